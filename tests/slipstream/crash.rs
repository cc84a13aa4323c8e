//! The leader is killed in the middle of its work.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::cluster::{Client, Node, Site, Store};

/// Clients that ingest at the same time, so that commits are grouped when the leader dies.
const CLIENTS: u64 = 4;
/// Rows of one ingest: each has the batch's number, so that a half shows.
const ROWS: i64 = 200;
/// How often the leader is killed when `SLIPSTREAM_CRASH_ROUNDS` does not say: a minute of work.
const ROUNDS: u64 = 8;
/// Longest time between the start of a round's ingests and the kill.
const ROUND_MILLISECONDS_MAX: u64 = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_ingest_is_there_once_and_none_is_there_half() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let rounds = match std::env::var("SLIPSTREAM_CRASH_ROUNDS") {
            Ok(text) => text.parse().context("SLIPSTREAM_CRASH_ROUNDS")?,
            Err(_) => ROUNDS,
        };
        let mut random = SmallRng::seed_from_u64(20_130_101);
        let mut leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        leader
            .sql("d", "CREATE TABLE t (batch BIGINT, n BIGINT)")
            .await?;
        let follower = site.follower("follower", &leader).await?;
        follower.attach(&leader, "d").await?;
        let mut history = History::default();
        for round in 0..rounds {
            let moment = Duration::from_millis(random.random_range(0..ROUND_MILLISECONDS_MAX));
            ingest_until_killed(&mut leader, &mut history, moment).await?;
            leader.restart().await?;
            leader.wait_ready().await?;
            history
                .check(&leader)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        let last = leader.sql("d", "SELECT 1").await?;
        follower.wait_for_version("d", last.version()?).await?;
        history.check(&follower).await.context("on the follower")?;
        let here = follower.sql("d", "SELECT 1").await?;
        assert_eq!(
            (here.version()?, here.digest()?),
            (last.version()?, last.digest()?)
        );
        eprintln!(
            "killed {rounds} times; {} ingests acknowledged, {} unanswered",
            history.acknowledged.len(),
            history.unanswered.len()
        );
        ensure!(
            !history.acknowledged.is_empty(),
            "no ingest was acknowledged: nothing was tested"
        );
        Ok(())
    })
    .await
}

/// What the clients know: which ingests were acknowledged, with their versions, and which were
/// sent without an answer.
#[derive(Debug, Default)]
struct History {
    next: i64,
    acknowledged: BTreeMap<i64, u64>,
    unanswered: Vec<i64>,
}

impl History {
    async fn check(&self, node: &Node) -> Result<()> {
        let sql = "SELECT batch, count(*) AS n, count(DISTINCT n) AS d FROM t GROUP BY batch";
        let mut found = BTreeMap::new();
        for row in node.sql("d", sql).await?.rows {
            let number = |name: &str| row[name].as_i64().context("a number");
            ensure!(
                number("n")? == ROWS,
                "a batch is there half or twice: {row:?}"
            );
            ensure!(number("d")? == ROWS, "a row is there twice: {row:?}");
            found.insert(number("batch")?, ());
        }
        for (batch, version) in &self.acknowledged {
            ensure!(
                found.remove(batch).is_some(),
                "batch {batch} was acknowledged at version {version} and is gone"
            );
        }
        for batch in found.keys() {
            ensure!(
                self.unanswered.contains(batch),
                "batch {batch} was never sent"
            );
        }
        Ok(())
    }
}

/// Ingests from several clients, kills the leader at a moment, and notes who had an answer.
async fn ingest_until_killed(
    leader: &mut Node,
    history: &mut History,
    moment: Duration,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        // Numbers are handed out in strides, so that clients need not agree.
        let first = history.next + i64::try_from(client)?;
        clients.spawn(ingest_until_it_fails((**leader).clone(), first));
    }
    tokio::time::sleep(moment).await;
    leader.kill()?;
    while let Some(outcome) = clients.join_next().await {
        let (acknowledged, unanswered) = outcome?;
        let last = i64::try_from(CLIENTS)? + unanswered;
        history.next = history.next.max(last);
        history.acknowledged.extend(acknowledged);
        history.unanswered.push(unanswered);
    }
    Ok(())
}

async fn ingest_until_it_fails(client: Client, first: i64) -> (Vec<(i64, u64)>, i64) {
    let mut acknowledged = Vec::new();
    let mut batch = first;
    loop {
        let rows: String = (0..ROWS).map(|n| format!("{batch},{n}\n")).collect();
        let sent = client
            .ingest("d", "t", "format=csv", format!("batch,n\n{rows}"))
            .await;
        match sent.ok().and_then(|receipt| receipt["version"].as_u64()) {
            Some(version) => acknowledged.push((batch, version)),
            None => return (acknowledged, batch),
        }
        batch += CLIENTS as i64;
    }
}
