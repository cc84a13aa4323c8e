//! Real processes under fault: nodes are killed, paused, cut off, slowed down and replaced, and their
//! disks filled, while clients write and read. Whatever fails, nothing that was acknowledged is lost or
//! doubled, no sum over tables wavers, no version goes back, equal versions are equal everywhere, and
//! whoever gets no answer is told why.
//!
//! `SLIPSTREAM_FAULT_MINUTES` says for how long; `SLIPSTREAM_FAULT_SEED` draws the same faults again,
//! which real processes meet at other moments. `SLIPSTREAM_FAULT_NETWORK` forces the kind of network.

mod actors;
mod check;
mod network;
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::cluster::{ApiError, Client, Node, Site, Store, eventually};
use network::{BUCKET, Cut, Network};

/// How long faults happen when `SLIPSTREAM_FAULT_MINUTES` does not say.
const SHORT: Duration = Duration::from_secs(30);
/// Rows of the table that a follower loses from under it, and in how many extents.
const ROWS: i64 = 3_000;
const INSERTS: i64 = 3;
/// Not answerable from statistics.
const SUM: &str = "SELECT sum(n * 2) FROM t";
/// Longer than lease and grace, and some rounds of deleting after them.
const PAST_THE_LEASE: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_nothing_acknowledged_is_lost_and_nobody_sees_half_of_it() -> Result<()> {
    let duration = match std::env::var("SLIPSTREAM_FAULT_MINUTES") {
        Ok(text) => Duration::from_secs_f64(60.0 * text.parse::<f64>()?),
        Err(_) => SHORT,
    };
    let seed = match std::env::var("SLIPSTREAM_FAULT_SEED") {
        Ok(text) => text.parse().context("SLIPSTREAM_FAULT_SEED")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    eprintln!("faults for {duration:?}, drawn by SLIPSTREAM_FAULT_SEED={seed}");
    let network = Network::new(&world::PLACES)?;
    Site::run_on(Store::SeaweedFs, &network.bucket(), async |site| {
        world::run(site, &network, seed, duration).await
    })
    .await
    .with_context(|| format!("SLIPSTREAM_FAULT_SEED={seed}"))
}

/// A leader that deletes soon, with a table `t`, and a follower of it.
async fn leader_and_follower(site: &Site, network: &Network) -> Result<(Node, Node)> {
    let host = network.host(site, "leader").await?;
    let options = [
        "--gc-interval",
        "200ms",
        "--gc-grace",
        "1s",
        "--lease-ttl",
        "5s",
    ];
    let mut leader = site
        .start_on(&host, "leader", "north", "north", &options)
        .await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    leader.sql("d", "CREATE TABLE t (n BIGINT)").await?;
    for number in 0..INSERTS {
        let rows = ROWS / INSERTS;
        let (first, last) = (number * rows + 1, (number + 1) * rows);
        let insert = format!("INSERT INTO t SELECT value FROM generate_series({first}, {last})");
        leader.sql("d", &insert).await?;
    }
    let host = network.host(site, "follower").await?;
    let url = network
        .url("follower", "leader", &leader.grpc_url())
        .await?;
    let address = format!("north={url}");
    let options = ["--leader", address.as_str()];
    let mut follower = site
        .start_on(&host, "follower", "south", "south", &options)
        .await?;
    follower.wait_ready().await?;
    follower.attach(&leader, "d").await?;
    Ok((leader, follower))
}

/// Twice the sum of the numbers.
const fn sum(rows: i64) -> i64 {
    rows * (rows + 1)
}

/// Rewrites every extent of the table, and waits until the files of the old ones are deleted. Gives
/// the version that did it.
async fn rewrite(leader: &Node) -> Result<u64> {
    let delete = format!("DELETE FROM t WHERE n % {} = 0", ROWS / INSERTS);
    let version = leader.sql("d", &delete).await?.version()?;
    eventually("the old files are deleted", async || {
        let name = "slipstream_gc_deleted_extents_total";
        let deleted = leader.metric(name, "database=\"d\"").await?;
        Ok(deleted == INSERTS.unsigned_abs())
    })
    .await?;
    Ok(version)
}

/// The next query of a node that lost what it reads answers rightly, or names the version; and so do
/// those after it, until it has healed. Gives how often it refused.
async fn answers_or_names_what_is_lost(node: &Client, lost: u64, newest: u64) -> Result<u64> {
    // Each third of the table lost its last number.
    let third = ROWS / INSERTS;
    let left = sum(ROWS) - 2 * (third + 2 * third + 3 * third);
    let mut refusals = 0;
    eventually("the follower answers with the newest version", async || {
        let reply = match node.ask("d", SUM).send().await {
            Ok(reply) => reply,
            Err(error) => {
                let refused: ApiError = error.downcast()?;
                assert_clear(&refused, lost);
                refusals += 1;
                return Ok(false);
            }
        };
        let (version, found) = (reply.version()?, reply.count()?);
        let expected = if version < newest { sum(ROWS) } else { left };
        assert_eq!(
            found, expected,
            "VIOLATION: a wrong sum at version {version}"
        );
        Ok(version >= newest)
    })
    .await?;
    Ok(refusals)
}

fn assert_clear(refused: &ApiError, lost: u64) {
    // The bucket may not be reached again yet.
    let names_it =
        refused.code == "version_not_kept" && refused.message.contains(&format!("version {lost} "));
    let is_clear = names_it || refused.code == "storage_unavailable";
    assert!(is_clear, "VIOLATION: not a clear refusal: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_cut_off_past_its_lease_answers_or_names_the_lost_version_and_heals()
-> Result<()> {
    let network = Network::new(&["leader", "follower"])?;
    Site::run_on(Store::SeaweedFs, &network.bucket(), async |site| {
        let (leader, follower) = leader_and_follower(site, &network).await?;
        let before = leader.sql("d", SUM).await?.version()?;
        follower.wait_for_version("d", before).await?;
        assert_eq!(follower.count("d", SUM).await?, sum(ROWS));

        network.cut("follower", "leader", Cut::Both)?;
        network.cut("follower", BUCKET, Cut::Both)?;
        // Asked while nothing can be read, and answered or refused when the files are gone.
        let node: Client = (*follower).clone();
        let asked = tokio::spawn(async move { node.ask("d", SUM).send().await });
        let newest = rewrite(&leader).await?;
        network.mend("follower", BUCKET);
        let refusals = answers_or_names_what_is_lost(&follower, before, newest).await?;
        match asked.await? {
            Ok(reply) => assert_eq!(reply.count()?, sum(ROWS), "{}", reply.version()?),
            Err(error) => assert_clear(&error.downcast::<ApiError>()?, before),
        }
        eprintln!("refused {refusals} times before it healed");

        network.mend("follower", "leader");
        let last = leader.sql("d", "INSERT INTO t VALUES (0)").await?;
        let here = follower
            .ask("d", "SELECT 1")
            .min_version(last.version()?)
            .send()
            .await?;
        assert_eq!(here.version()?, last.version()?);
        assert_eq!(here.digest()?, leader.sql("d", "SELECT 1").await?.digest()?);
        let leases = format!(
            "SELECT count(*) FROM slipstream.leases WHERE current_version >= {}",
            last.version()?
        );
        eventually("the leader holds its lease again", async || {
            Ok(leader.count("d", &leases).await? > 0)
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stood_still_past_its_lease_answers_or_names_the_lost_version_and_heals()
-> Result<()> {
    let network = Network::new(&["leader", "follower"])?;
    Site::run_on(Store::SeaweedFs, &network.bucket(), async |site| {
        let (leader, follower) = leader_and_follower(site, &network).await?;
        let before = leader.sql("d", SUM).await?.version()?;
        follower.wait_for_version("d", before).await?;
        follower.signal("-STOP")?;
        let newest = rewrite(&leader).await?;
        tokio::time::sleep(PAST_THE_LEASE).await;
        follower.signal("-CONT")?;
        let refusals = answers_or_names_what_is_lost(&follower, before, newest).await?;
        eprintln!("refused {refusals} times before it healed");
        ensure!(
            follower.readiness_of("d").await?.0 == 200,
            "it is ready again"
        );
        Ok(())
    })
    .await
}
