//! Ways between processes that lead through this test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::Cut;

/// How long a slow way holds back each piece.
const SLOW: Duration = Duration::from_millis(150);
/// How often a way that is cut is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What is taken from one side at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// All ways so far, each from one process to another.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Mutex<HashMap<(String, String), Arc<Way>>>);

/// What is wrong with a way now.
#[derive(Debug, Default)]
struct Way {
    there_cut: AtomicBool,
    back_cut: AtomicBool,
    is_unplugged: AtomicBool,
    is_slow: AtomicBool,
}

impl Proxies {
    /// A way from one process to a server of another; gives the address to go to.
    pub(super) async fn route(
        &self,
        from: &str,
        to: &str,
        server: SocketAddr,
    ) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let key = (from.to_owned(), to.to_owned());
        let way = Arc::clone(self.ways().entry(key).or_default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server, Arc::clone(&way)));
            }
        });
        Ok(address)
    }

    pub(super) fn cut(&self, from: &str, to: &str, cut: Cut) {
        self.between(from, to, cut, true);
    }

    pub(super) fn mend(&self, from: &str, to: &str) {
        self.between(from, to, Cut::Both, false);
    }

    fn between(&self, from: &str, to: &str, cut: Cut, is_cut: bool) {
        for ((client, server), way) in self.ways().iter() {
            let is_forward = client == from && server == to;
            let is_backward = client == to && server == from;
            if is_forward || (is_backward && cut == Cut::Both) {
                way.there_cut.store(is_cut, Ordering::Relaxed);
            }
            if is_backward || (is_forward && cut == Cut::Both) {
                way.back_cut.store(is_cut, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn plug(&self, name: &str, is_in: bool) {
        for way in self.touching(name) {
            way.is_unplugged.store(!is_in, Ordering::Relaxed);
        }
    }

    pub(super) fn slow(&self, name: &str, is_slow: bool) {
        for way in self.touching(name) {
            way.is_slow.store(is_slow, Ordering::Relaxed);
        }
    }

    fn touching(&self, name: &str) -> Vec<Arc<Way>> {
        let ways = self.ways();
        let touching = ways
            .iter()
            .filter(|((from, to), _)| from == name || to == name);
        touching.map(|(_, way)| Arc::clone(way)).collect()
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Way>>> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Way {
    fn is_there_cut(&self) -> bool {
        self.there_cut.load(Ordering::Relaxed)
    }

    fn is_back_cut(&self) -> bool {
        self.back_cut.load(Ordering::Relaxed)
    }

    /// Waits for as long as nothing gets through.
    async fn pass(&self, is_cut: fn(&Self) -> bool) {
        if self.is_slow.load(Ordering::Relaxed) {
            tokio::time::sleep(SLOW).await;
        }
        while is_cut(self) || self.is_unplugged.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Carries one connection. One that breaks is the affair of the two that hold it.
async fn connect(client: TcpStream, server: SocketAddr, way: Arc<Way>) {
    way.pass(Way::is_there_cut).await;
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    // As a network does: small pieces go at once.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = carry(from_client, to_server, &way, Way::is_there_cut);
    let back = carry(from_server, to_client, &way, Way::is_back_cut);
    tokio::join!(there, back);
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: &Way,
    is_cut: fn(&Way) -> bool,
) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length) = from.read(&mut piece).await {
        way.pass(is_cut).await;
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
