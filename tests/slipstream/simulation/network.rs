//! Connections in memory, with delays, silences and breaks.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use slipstream_follower::Carrier;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::Host;
use super::faults::{Dice, Fault, Faults};

/// Bytes on their way through one end.
const BUFFER: usize = 64 << 10;
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
const LATENCY_SLOW: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What comes in at an address.
pub(crate) type Incoming = mpsc::UnboundedReceiver<io::Result<DuplexStream>>;

struct Listener {
    host: Arc<Host>,
    incoming: mpsc::UnboundedSender<io::Result<DuplexStream>>,
}

/// The network: one address, at which the newest leader listens, as a name service has it.
pub(crate) struct Network {
    listeners: Mutex<BTreeMap<String, Listener>>,
    faults: Arc<Faults>,
}

impl Network {
    pub(crate) fn new(faults: Arc<Faults>) -> Arc<Self> {
        Arc::new(Self {
            listeners: Mutex::default(),
            faults,
        })
    }

    /// Listens at an address in place of whoever did. Their connections go on.
    pub(crate) fn listen(&self, address: &str, host: &Arc<Host>) -> Incoming {
        let (incoming, accepted) = mpsc::unbounded_channel();
        let listener = Listener {
            host: Arc::clone(host),
            incoming,
        };
        self.listeners.lock().insert(address.to_owned(), listener);
        accepted
    }

    async fn open(self: Arc<Self>, from: Arc<Host>, url: String) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let number = from.opens();
        let dice = |way: &str| self.faults.dice(&format!("{} {number} {way}", from.name));
        let (dice_there, dice_back) = (dice("there"), dice("back"));
        sleep(dice_there.between(LATENCY.0, LATENCY.1)).await;
        let (to, incoming) = {
            let listeners = self.listeners.lock();
            let listener = listeners.get(address).ok_or_else(refused)?;
            (Arc::clone(&listener.host), listener.incoming.clone())
        };
        if !to.is_up() {
            return Err(refused());
        }
        reachable(&from, &to).await;
        let (client, near) = tokio::io::duplex(BUFFER);
        let (far, server) = tokio::io::duplex(BUFFER);
        incoming.send(Ok(server)).map_err(|_| refused())?;
        let (near_read, near_write) = split(near);
        let (far_read, far_write) = split(far);
        let there = carry(
            dice_there,
            (near_read, far_write),
            Arc::clone(&from),
            Arc::clone(&to),
        );
        let back = carry(
            dice_back,
            (far_read, near_write),
            Arc::clone(&to),
            Arc::clone(&from),
        );
        tokio::spawn(async move {
            let broken = (from.connections(), to.connections());
            // When one way ends, so does the other.
            tokio::select! {
                biased;
                () = from.down.cancelled() => {}
                () = to.down.cancelled() => {}
                () = broken.0.cancelled() => {}
                () = broken.1.cancelled() => {}
                () = there => {}
                () = back => {}
            }
        });
        Ok(client)
    }
}

/// Carries bytes one way.
async fn carry(
    dice: Dice,
    (mut from, mut to): (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>),
    sender: Arc<Host>,
    receiver: Arc<Host>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let (low, high) = if dice.hits(Fault::SlowMessage) {
            LATENCY_SLOW
        } else {
            LATENCY
        };
        sleep(dice.between(low, high)).await;
        reachable(&sender, &receiver).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until neither of two hosts is cut off or stands still.
async fn reachable(a: &Host, b: &Host) {
    loop {
        let until = a.cut_until().max(b.cut_until());
        let until = until.max(a.frozen_until()).max(b.frozen_until());
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// A host's way into the network.
pub(crate) struct Port {
    pub(crate) network: Arc<Network>,
    pub(crate) host: Arc<Host>,
}

impl Carrier for Port {
    fn open(&self, url: &str) -> BoxFuture<'static, io::Result<DuplexStream>> {
        let network = Arc::clone(&self.network);
        Box::pin(network.open(Arc::clone(&self.host), url.to_owned()))
    }
}
