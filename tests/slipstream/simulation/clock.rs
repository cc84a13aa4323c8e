//! A node of the simulation: its clock, and whether it lives, stands still, or is cut off.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_model::{Clock, Sleep, Timestamp};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// What every clock shows when a simulation starts, when it is right.
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// One process on one machine.
pub(crate) struct Host {
    pub(crate) name: String,
    /// Fires when the process dies.
    pub(crate) down: CancellationToken,
    began: Instant,
    /// How wrong the clock is, and how far ahead it ever was.
    skew_micros: AtomicI64,
    skew_micros_max: AtomicI64,
    opened: AtomicU64,
    state: Mutex<State>,
}

struct State {
    frozen_until: Instant,
    cut_until: Instant,
    bucket_cut_until: Instant,
    /// All its connections end with it; a new one takes its place.
    connections: CancellationToken,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.name).finish()
    }
}

impl Host {
    /// `began`: when the simulation did.
    pub(crate) fn new(name: String, began: Instant) -> Arc<Self> {
        Arc::new(Self {
            name,
            down: CancellationToken::new(),
            began,
            skew_micros: AtomicI64::new(0),
            skew_micros_max: AtomicI64::new(0),
            opened: AtomicU64::new(0),
            state: Mutex::new(State {
                frozen_until: began,
                cut_until: began,
                bucket_cut_until: began,
                connections: CancellationToken::new(),
            }),
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.down.is_cancelled()
    }

    /// Goes on when the process runs: later when it stands still, and never when it is dead.
    pub(crate) async fn runs(&self) {
        loop {
            if !self.is_up() {
                std::future::pending::<()>().await;
            }
            let until = self.state.lock().frozen_until;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// The number of a connection that it opens.
    pub(crate) fn opens(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn freeze(&self, duration: Duration) {
        self.state.lock().frozen_until = Instant::now() + duration;
    }

    pub(crate) fn frozen_until(&self) -> Instant {
        self.state.lock().frozen_until
    }

    pub(crate) fn cut(&self, duration: Duration) {
        self.state.lock().cut_until = Instant::now() + duration;
    }

    pub(crate) fn cut_until(&self) -> Instant {
        self.state.lock().cut_until
    }

    pub(crate) fn cut_bucket(&self, duration: Duration) {
        self.state.lock().bucket_cut_until = Instant::now() + duration;
    }

    pub(crate) fn reaches_bucket(&self) -> bool {
        self.state.lock().bucket_cut_until <= Instant::now()
    }

    /// Breaks all connections.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.connections.cancel();
        state.connections = CancellationToken::new();
    }

    pub(crate) fn connections(&self) -> CancellationToken {
        self.state.lock().connections.clone()
    }

    /// Ends everything that was set for a while.
    pub(crate) fn heal(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.frozen_until = now;
        state.cut_until = now;
        state.bucket_cut_until = now;
    }

    /// Sets the clock.
    pub(crate) fn skew(&self, micros: i64) {
        self.skew_micros.store(micros, Ordering::Relaxed);
        self.skew_micros_max.fetch_max(micros, Ordering::Relaxed);
    }

    /// The latest that this clock can have shown by now.
    pub(crate) fn latest_now(&self) -> Timestamp {
        self.at(self.skew_micros_max.load(Ordering::Relaxed))
    }

    fn at(&self, skew: i64) -> Timestamp {
        let since = i64::try_from(self.began.elapsed().as_micros()).expect("a short run");
        Timestamp::from_micros(START.as_micros() + since + skew)
    }
}

/// The clock of a host.
#[derive(Debug)]
pub(crate) struct SimulatedClock(pub(crate) Arc<Host>);

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.0.at(self.0.skew_micros.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let host = Arc::clone(&self.0);
        Box::pin(async move {
            sleep(duration).await;
            host.runs().await;
        })
    }
}
