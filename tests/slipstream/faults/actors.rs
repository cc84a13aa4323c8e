//! Clients that write and read while everything around them fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::check::{Book, History, Kind, ROWS, books, excuse};
use super::world::FOLLOWERS;
use crate::cluster::Client;

/// How long a client waits for an answer: longer than faults last, so that requests survive some.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two requests of one client, at most: half an hour must not make tables too large to be
/// summed up again and again by an unoptimised build.
const PAUSE_MILLISECONDS_MAX: u64 = 500;
/// Most that is moved between the accounts at once.
const AMOUNT_MAX: i64 = 500;
/// Of so many reads one asks for what was written last, and one for a version that was.
const READS: u32 = 5;

/// What all actors share.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) history: Arc<History>,
    /// Who leads, as far as anybody knows.
    leader: Arc<Mutex<Client>>,
    seed: u64,
}

/// Whom a reader asks.
#[derive(Debug)]
pub(super) enum Asked {
    /// One node: its versions never go back.
    Node(&'static str, Client),
    /// Whoever leads.
    Leader,
}

impl Stage {
    pub(super) fn new(leader: &Client, seed: u64) -> Self {
        Self {
            history: Arc::default(),
            leader: Arc::new(Mutex::new(leader.clone())),
            seed,
        }
    }

    /// From now on somebody else leads.
    pub(super) fn lead(&self, leader: &Client) {
        *self
            .leader
            .lock()
            .unwrap_or_else(|broken| broken.into_inner()) = leader.clone();
    }

    fn leader(&self) -> Client {
        let leader = self.leader.lock();
        leader.unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// The chance of one actor.
    pub(super) fn random(&self, actor: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed.wrapping_mul(1_000).wrapping_add(actor))
    }

    /// Counts what came instead of an answer; an error when it is no excuse.
    fn failed(&self, who: &str, error: &anyhow::Error) -> Result<()> {
        let of_replaced = self.history.is_replaced() && !FOLLOWERS.contains(&who);
        let excuse = excuse(error, of_replaced).with_context(|| who.to_owned())?;
        self.history.count(format!("{who}: {excuse}"));
        Ok(())
    }
}

/// Sends everybody on.
pub(super) fn start(stage: &Stage, nodes: Vec<(&'static str, Client)>) -> JoinSet<Result<()>> {
    let mut actors = JoinSet::new();
    actors.spawn(ingest(stage.clone(), 1));
    actors.spawn(ingest(stage.clone(), 2));
    actors.spawn(transfer(stage.clone(), 3));
    actors.spawn(transfer(stage.clone(), 4));
    actors.spawn(make_noise(stage.clone(), 5));
    let asked = nodes
        .into_iter()
        .map(|(name, node)| Asked::Node(name, node));
    for (actor, asked) in (6..).zip(asked.chain([Asked::Leader])) {
        actors.spawn(read(stage.clone(), asked, actor));
    }
    actors
}

async fn pause(random: &mut SmallRng) {
    let pause = random.random_range(0..PAUSE_MILLISECONDS_MAX);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

/// An answer, or nothing when it takes too long.
async fn in_time<T>(answer: impl Future<Output = Result<T>>) -> Option<Result<T>> {
    tokio::time::timeout(PATIENCE, answer).await.ok()
}

async fn ingest(stage: Stage, actor: u64) -> Result<()> {
    let mut random = stage.random(actor);
    while !stage.history.is_done() {
        let number = stage.history.begin(Kind::Batch);
        let rows = (0..ROWS).map(|row| {
            let sign = if row % 2 == 0 { 1 } else { -1 };
            format!("{},{}\n", number * ROWS + row, sign * number)
        });
        let rows: String = rows.collect();
        let leader = stage.leader();
        let sent = leader.ingest("d", "ledger", "format=csv", format!("id,amount\n{rows}"));
        match in_time(sent).await {
            Some(Ok(receipt)) => {
                let version = receipt["version"].as_u64().context("a version")?;
                stage.history.acknowledge(Kind::Batch, number, version);
            }
            Some(Err(error)) => stage.failed("ingest", &error)?,
            None => stage.history.count("ingest: gave up waiting"),
        }
        pause(&mut random).await;
    }
    Ok(())
}

async fn transfer(stage: Stage, actor: u64) -> Result<()> {
    let mut random = stage.random(actor);
    while !stage.history.is_done() {
        let number = stage.history.begin(Kind::Transfer);
        let amount = random.random_range(-AMOUNT_MAX..AMOUNT_MAX);
        let sql = format!(
            "INSERT INTO checking VALUES ({number}, {amount}); \
             INSERT INTO savings VALUES ({number}, {})",
            -amount
        );
        let leader = stage.leader();
        match in_time(leader.ask("d", &sql).send()).await {
            Some(Ok(reply)) => {
                let version = reply.version()?;
                stage.history.acknowledge(Kind::Transfer, number, version);
            }
            Some(Err(error)) => stage.failed("transfer", &error)?,
            None => stage.history.count("transfer: gave up waiting"),
        }
        pause(&mut random).await;
    }
    Ok(())
}

/// Rows that come and go: whatever is read, files are deleted beside it.
async fn make_noise(stage: Stage, actor: u64) -> Result<()> {
    let mut random = stage.random(actor);
    while !stage.history.is_done() {
        let sql = if random.random_range(0..4) == 0 {
            "DELETE FROM noise"
        } else {
            "INSERT INTO noise VALUES (1), (2), (3)"
        };
        let leader = stage.leader();
        match in_time(leader.ask("d", sql).send()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => stage.failed("noise", &error)?,
            None => stage.history.count("noise: gave up waiting"),
        }
        pause(&mut random).await;
    }
    Ok(())
}

async fn read(stage: Stage, asked: Asked, actor: u64) -> Result<()> {
    let mut random = stage.random(actor);
    let mut last = 0;
    while !stage.history.is_done() {
        let (name, node) = match &asked {
            Asked::Node(name, node) => (*name, node.clone()),
            Asked::Leader => ("who leads", stage.leader()),
        };
        let way = random.random_range(0..READS);
        let wanted = (way == 0).then(|| stage.history.newest()).flatten();
        let past = (way == 1)
            .then(|| stage.history.any_seen(&mut random))
            .flatten();
        let sql = books(past.map(|(version, _)| version));
        let mut ask = node.ask("d", &sql);
        if let Some(version) = wanted {
            ask = ask.min_version(version);
        }
        let reply = match in_time(ask.send()).await {
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                stage.failed(name, &error)?;
                pause(&mut random).await;
                continue;
            }
            None => {
                stage.history.count(format!("{name}: gave up waiting"));
                continue;
            }
        };
        if let Some((version, then)) = past {
            let now = Book::of(&reply).with_context(|| format!("{name}, {sql}"))?;
            ensure!(
                now == then,
                "VIOLATION: {name}: version {version} was {then:?} and is told as {now:?}"
            );
            stage
                .history
                .count(format!("{name}: read a version that was"));
            continue;
        }
        let version = stage.history.saw(&reply).with_context(|| name.to_owned())?;
        ensure!(
            Some(version) >= wanted,
            "VIOLATION: {name}: version {wanted:?} was asked for, and {version} answered"
        );
        if matches!(asked, Asked::Node(..)) {
            ensure!(
                version >= last,
                "VIOLATION: {name}: the version went from {last} back to {version}"
            );
        }
        last = version;
        stage.history.count(format!("{name}: answered"));
        pause(&mut random).await;
    }
    Ok(())
}
