//! A leader and followers, and what happens to them: kills, pauses, cuts, slow cables, full disks, and
//! a second leader.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::SmallRng;

use super::actors::{self, Stage};
use super::check::{OPEN, books, excuse};
use super::network::{BUCKET, Cut, Network};
use crate::cluster::{ApiError, Client, Disk, Node, PATIENCE, Site, eventually};

/// The places of the nodes: the leader's, the one of another that takes over, and the followers'.
pub(super) const PLACES: [&str; 4] = ["leader", "second", "east", "west"];
/// The followers' places.
pub(super) const FOLLOWERS: [&str; 2] = ["east", "west"];
/// Everything that a leader does by itself, as often as it may: what is read has hardly begun to be
/// read when it is merged away, and its files go some seconds later.
const EAGER: [&str; 8] = [
    "--merge-interval",
    "500ms",
    "--gc-interval",
    "500ms",
    "--gc-grace",
    "2s",
    "--lease-ttl",
    "5s",
];
/// How long a fault lasts: some outlast lease and grace together.
const FAULT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// How long all is well between two faults of one node: long enough for clients to get somewhere.
const CALM: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(6));
/// The disk of the follower whose disk is filled, and its cache on it.
const DISK_MEBIBYTES: usize = 16;
const CACHE: [&str; 2] = ["--cache-disk-bytes", "8MB"];
/// What a disk is filled with at a time.
const FILLING: [u8; 4096] = [0; 4096];

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process is killed, and starts again.
    Kill,
    /// The process stands still (SIGSTOP), and goes on.
    Pause,
    /// Its cable is pulled.
    Unplug,
    /// Its cable is slow.
    Slow,
    /// It does not reach the bucket.
    NoBucket,
    /// A follower and its leader do not reach each other.
    NoLeader,
    /// Neither of both, but clients.
    Alone,
    /// The leader hears nothing of a follower, which hears all.
    OneWay,
    /// Nothing can be written to its disk.
    FullDisk,
    /// Another leader takes over while this one stands still; then this one, which must be fenced.
    TakeOver,
}

/// Faults that come in any order, each as often as the others.
#[derive(Debug)]
struct Deck {
    all: &'static [Fault],
    left: Vec<Fault>,
    random: SmallRng,
}

impl Deck {
    fn new(all: &'static [Fault], random: SmallRng) -> Self {
        Self {
            all,
            left: Vec::new(),
            random,
        }
    }

    fn draw(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = self.all.to_vec();
        }
        let chosen = self.random.random_range(0..self.left.len());
        self.left.swap_remove(chosen)
    }

    fn time(&mut self, (least, most): (Duration, Duration)) -> Duration {
        least + (most - least).mul_f64(self.random.random::<f64>())
    }

    /// How long a fault lasts: mostly not long, and now and then for as long as any.
    fn fault_time(&mut self) -> Duration {
        let (least, most) = FAULT;
        least + (most - least).mul_f64(self.random.random::<f64>().powi(3))
    }
}

/// Lets everything happen for so long, and checks that nothing wrong is seen then and at the end.
pub(super) async fn run(
    site: &Site,
    network: &Network,
    seed: u64,
    duration: Duration,
) -> Result<()> {
    let mut leader = start_leader(site, network, "leader").await?;
    leader.create_database("d").await?;
    leader.sql("d", OPEN).await?;
    let directory = site.path().join("west");
    std::fs::create_dir(&directory)?;
    // Dropped after the follower that has its files there.
    let disk = Disk::small(&directory, DISK_MEBIBYTES)?;
    let mut east = start_follower(site, network, &leader, "east", &[]).await?;
    let mut west = start_follower(site, network, &leader, "west", &CACHE).await?;

    let stage = Stage::new(&leader, seed);
    let readers = vec![
        ("leader", (*leader).clone()),
        ("east", (*east).clone()),
        ("west", (*west).clone()),
    ];
    let mut actors = actors::start(&stage, readers);
    let acting = async {
        while let Some(actor) = actors.join_next().await {
            actor??;
        }
        Ok::<_, anyhow::Error>(())
    };
    let ending = async {
        tokio::time::sleep(duration).await;
        stage.history.finish();
        Ok::<_, anyhow::Error>(())
    };
    let outcome = tokio::try_join!(
        ending,
        acting,
        trouble_leader(site, network, &stage, &mut leader),
        trouble_follower(network, &stage, &mut east, "east", None),
        trouble_follower(
            network,
            &stage,
            &mut west,
            "west",
            disk.as_ref().map(|_| &*directory)
        ),
    );
    eprintln!("{}", stage.history);
    outcome?;
    settle(&stage, &mut leader, [&mut east, &mut west]).await?;
    for node in [&leader, &east, &west] {
        let checked = stage.history.check_every_row(node).await;
        checked.with_context(|| format!("at the end, on {node}"))?;
    }
    for who in ["leader", "east", "west"] {
        let answered = stage.history.counted(&format!("{who}: answered"));
        ensure!(answered > 0, "{who} never answered: nothing was tested");
    }
    let newest = stage.history.newest();
    ensure!(
        newest.is_some(),
        "nothing was acknowledged: nothing was tested"
    );
    Ok(())
}

async fn start_leader(site: &Site, network: &Network, place: &str) -> Result<Node> {
    let host = network.host(site, place).await?;
    let mut leader = site
        .start_on(&host, "leader", "north", place, &EAGER)
        .await?;
    leader.wait_ready().await?;
    Ok(leader)
}

async fn start_follower(
    site: &Site,
    network: &Network,
    leader: &Node,
    place: &str,
    options: &[&str],
) -> Result<Node> {
    let host = network.host(site, place).await?;
    let url = network.url(place, "leader", &leader.grpc_url()).await?;
    let address = format!("{}={url}", leader.cluster());
    let options: Vec<_> = ["--leader", &address]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    let mut follower = site
        .start_on(&host, "follower", place, place, &options)
        .await?;
    follower.wait_ready().await?;
    follower.attach(leader, "d").await?;
    Ok(follower)
}

async fn trouble_leader(
    site: &Site,
    network: &Network,
    stage: &Stage,
    leader: &mut Node,
) -> Result<()> {
    let all = &[
        Fault::Kill,
        Fault::Pause,
        Fault::Unplug,
        Fault::Slow,
        Fault::NoBucket,
        Fault::TakeOver,
    ];
    let mut deck = Deck::new(all, stage.random(100));
    while !stage.history.is_done() {
        tokio::time::sleep(deck.time(CALM)).await;
        let (fault, time) = (deck.draw(), deck.fault_time());
        stage.history.count(format!("FAULT leader: {fault:?}"));
        match fault {
            Fault::TakeOver => take_over(site, network, stage, leader, time).await,
            fault => trouble(network, leader, "leader", None, fault, time).await,
        }
        .with_context(|| format!("leader: {fault:?} for {time:?}"))?;
    }
    Ok(())
}

async fn trouble_follower(
    network: &Network,
    stage: &Stage,
    follower: &mut Node,
    place: &'static str,
    disk: Option<&Path>,
) -> Result<()> {
    const WITHOUT_DISK: &[Fault] = &[
        Fault::Kill,
        Fault::Pause,
        Fault::Unplug,
        Fault::Slow,
        Fault::NoBucket,
        Fault::NoLeader,
        Fault::Alone,
        Fault::OneWay,
    ];
    const WITH_DISK: &[Fault] = &[
        Fault::FullDisk,
        Fault::Kill,
        Fault::Pause,
        Fault::NoBucket,
        Fault::Alone,
        Fault::OneWay,
    ];
    let (all, actor) = match disk {
        Some(_) => (WITH_DISK, 102),
        None => (WITHOUT_DISK, 101),
    };
    let mut deck = Deck::new(all, stage.random(actor));
    while !stage.history.is_done() {
        tokio::time::sleep(deck.time(CALM)).await;
        let (fault, time) = (deck.draw(), deck.fault_time());
        stage.history.count(format!("FAULT {place}: {fault:?}"));
        let happened = trouble(network, follower, place, disk, fault, time).await;
        happened.with_context(|| format!("{place}: {fault:?} for {time:?}"))?;
        follower.ensure_alive()?;
    }
    Ok(())
}

/// Lets a fault happen, for so long; afterwards all is as before.
async fn trouble(
    network: &Network,
    node: &mut Node,
    place: &str,
    disk: Option<&Path>,
    fault: Fault,
    time: Duration,
) -> Result<()> {
    let pause = tokio::time::sleep(time);
    match fault {
        Fault::Kill => {
            node.kill()?;
            pause.await;
            node.restart().await?;
        }
        Fault::Pause => {
            node.signal("-STOP")?;
            pause.await;
            node.signal("-CONT")?;
        }
        Fault::Unplug => {
            network.plug(place, false)?;
            pause.await;
            network.plug(place, true)?;
        }
        Fault::Slow => {
            network.slow(place, true)?;
            pause.await;
            network.slow(place, false)?;
        }
        Fault::NoBucket => {
            network.cut(place, BUCKET, Cut::Both)?;
            pause.await;
            network.mend(place, BUCKET);
        }
        Fault::NoLeader => {
            network.cut(place, "leader", Cut::Both)?;
            pause.await;
            network.mend(place, "leader");
        }
        Fault::Alone => {
            network.cut(place, BUCKET, Cut::Both)?;
            network.cut(place, "leader", Cut::Both)?;
            pause.await;
            // The bucket first: it is read before the leader knows of the reader.
            network.mend(place, BUCKET);
            tokio::time::sleep(CALM.0).await;
            network.mend(place, "leader");
        }
        Fault::OneWay => {
            network.cut(place, "leader", Cut::There)?;
            pause.await;
            network.mend(place, "leader");
        }
        Fault::FullDisk => {
            let filler = fill(disk.context("a disk of its own")?)?;
            pause.await;
            std::fs::remove_file(filler)?;
        }
        Fault::TakeOver => bail!("only a leader is taken over from"),
    }
    Ok(())
}

/// Writes until nothing more fits.
fn fill(disk: &Path) -> Result<PathBuf> {
    let path = disk.join("filler");
    let mut filler = File::create(&path)?;
    for _ in 0..(DISK_MEBIBYTES << 20) / FILLING.len() {
        match filler.write_all(&FILLING) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(path),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("{DISK_MEBIBYTES} MiB were written, and the disk is not full")
}

/// Another leader opens the database while the first one stands still, and writes for a while. The
/// first one goes on, and must not commit. Then it starts again, and leads again.
async fn take_over(
    site: &Site,
    network: &Network,
    stage: &Stage,
    leader: &mut Node,
    time: Duration,
) -> Result<()> {
    stage.history.replace(true);
    leader.signal("-STOP")?;
    let mut second = start_leader(site, network, "second").await?;
    stage.lead(&second);
    tokio::time::sleep(time).await;
    leader.signal("-CONT")?;
    is_fenced(leader).await?;
    stage.history.count("a leader that was replaced was fenced");
    second.kill()?;
    leader.restart().await?;
    leader.wait_ready().await?;
    stage.history.replace(false);
    stage.lead(leader);
    Ok(())
}

/// Fails when the leader commits, and when it does not say in time that it was replaced.
async fn is_fenced(leader: &Client) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match leader
            .ask("d", "INSERT INTO noise VALUES (-1)")
            .send()
            .await
        {
            Ok(reply) => bail!(
                "VIOLATION: a leader that was replaced committed version {}",
                reply.version()?
            ),
            Err(error) => error,
        };
        let refused = error.downcast_ref::<ApiError>();
        if refused.is_some_and(|refused| refused.code == "fenced") {
            return Ok(());
        }
        excuse(&error, true)?;
        ensure!(
            Instant::now() < deadline,
            "a leader that was replaced does not say so: {error:#}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all are well by themselves, and at one version with one digest.
async fn settle(stage: &Stage, leader: &mut Node, followers: [&mut Node; 2]) -> Result<()> {
    leader.wait_ready().await?;
    for follower in followers {
        follower.ensure_alive()?;
        follower.wait_ready().await?;
        eventually(&format!("{follower} has what the leader has"), async || {
            let (there, here) = (
                leader.sql("d", &books(None)).await?,
                follower.sql("d", &books(None)).await?,
            );
            let newest = stage.history.saw(&there)?;
            Ok(newest == stage.history.saw(&here)?)
        })
        .await?;
    }
    Ok(())
}
