//! The network between the processes: what is cut, unplugged or slow, and what was before.
//!
//! As root, with `ip` (iproute2), each process gets a network namespace and a cable to a switch,
//! which is a bridge in a namespace of its own. Elsewhere each way from one process to another leads
//! through a proxy of this test, which can hold bytes back.

mod namespaces;
mod proxies;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use crate::cluster::{Host, Site};
use namespaces::Namespaces;
use proxies::Proxies;

/// Forces one of both: `namespaces` or `proxies`.
const CHOICE: &str = "SLIPSTREAM_FAULT_NETWORK";
/// The name of the S3 server's place.
pub(super) const BUCKET: &str = "bucket";

/// Which way nothing gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Both ways.
    Both,
    /// Only from the first to the second.
    There,
}

/// The bucket and some nodes, each by its name.
#[derive(Debug)]
pub(super) enum Network {
    /// Network namespaces of this machine.
    Namespaces(Namespaces),
    /// Proxies between processes that all listen on loopback.
    Proxies(Proxies),
}

impl Network {
    /// A network for the bucket and these nodes. Says which of both it is.
    pub(super) fn new(nodes: &[&str]) -> Result<Self> {
        let names: Vec<_> = [BUCKET].into_iter().chain(nodes.iter().copied()).collect();
        let choice = std::env::var(CHOICE).unwrap_or_default();
        match choice.as_str() {
            "namespaces" => Namespaces::new(&names).map(Self::Namespaces),
            "proxies" => Ok(Self::proxies("as asked for")),
            "" => Ok(match Namespaces::new(&names) {
                Ok(namespaces) => Self::Namespaces(namespaces),
                Err(error) => Self::proxies(&format!("{error:#}")),
            }),
            other => bail!("{CHOICE} is namespaces or proxies, and not '{other}'"),
        }
    }

    fn proxies(why: &str) -> Self {
        eprintln!("NETWORK: proxies within this test, no network namespaces: {why}");
        Self::Proxies(Proxies::default())
    }

    /// Where the S3 server runs.
    pub(super) fn bucket(&self) -> Host {
        match self {
            Self::Namespaces(namespaces) => namespaces.host(BUCKET),
            Self::Proxies(_) => Host::here(),
        }
    }

    /// Where a node runs.
    pub(super) async fn host(&self, site: &Site, node: &str) -> Result<Host> {
        match self {
            Self::Namespaces(namespaces) => Ok(namespaces.host(node)),
            Self::Proxies(proxies) => {
                let endpoint = proxies.route(node, BUCKET, site.endpoint()?).await?;
                Ok(Host::here().with("AWS_ENDPOINT", format!("http://{endpoint}")))
            }
        }
    }

    /// The gRPC address of a node, `http://...`, as another one reaches it.
    pub(super) async fn url(&self, from: &str, to: &str, url: &str) -> Result<String> {
        let Self::Proxies(proxies) = self else {
            return Ok(url.to_owned());
        };
        let address = url.strip_prefix("http://").context("an address")?;
        let address: SocketAddr = address.parse()?;
        let way = proxies.route(from, to, address).await?;
        Ok(format!("http://{way}"))
    }

    /// From now on nothing gets from one to the other. Nobody is told: packets vanish.
    pub(super) fn cut(&self, from: &str, to: &str, cut: Cut) -> Result<()> {
        match self {
            Self::Namespaces(namespaces) => namespaces.cut(from, to, cut),
            Self::Proxies(proxies) => {
                proxies.cut(from, to, cut);
                Ok(())
            }
        }
    }

    /// Ends a cut.
    pub(super) fn mend(&self, from: &str, to: &str) {
        match self {
            Self::Namespaces(namespaces) => namespaces.mend(from, to),
            Self::Proxies(proxies) => proxies.mend(from, to),
        }
    }

    /// Pulls a node's cable, or puts it back. In namespaces, clients do not reach it either.
    pub(super) fn plug(&self, node: &str, is_in: bool) -> Result<()> {
        match self {
            Self::Namespaces(namespaces) => namespaces.plug(node, is_in),
            Self::Proxies(proxies) => {
                proxies.plug(node, is_in);
                Ok(())
            }
        }
    }

    /// Makes a node's cable slow, or as fast as before.
    pub(super) fn slow(&self, node: &str, is_slow: bool) -> Result<()> {
        match self {
            Self::Namespaces(namespaces) => namespaces.slow(node, is_slow),
            Self::Proxies(proxies) => {
                proxies.slow(node, is_slow);
                Ok(())
            }
        }
    }
}
