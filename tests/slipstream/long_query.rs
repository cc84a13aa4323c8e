//! A query that runs for very long, while what it reads is merged, outlives its time, is dropped, and
//! is garbage for many rounds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Node, Site, Store, eventually};

/// How long the query runs when `SLIPSTREAM_LONG_QUERY_SECONDS` does not say: some lease periods.
const SECONDS: u64 = 20;
/// Rows of the table: more bytes than all the ways in between hold, so that the query cannot run ahead
/// of its reader.
const ROWS: usize = 300_000;
/// What has to be read before the query can end: the buffers of sockets hold some 10 MB of the
/// answer's 60.
const READ_ALONE: f64 = 0.7;
/// In how many extents they are put in.
const INSERTS: usize = 6;
/// What turns merging off, and on again.
const OFF: &str =
    r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
const ON: &str = ".delete database d policy merge";
/// Everything a leader does by itself, as often as it may.
const EAGER: [&str; 10] = [
    "--merge-interval",
    "500ms",
    "--retention-interval",
    "500ms",
    "--gc-interval",
    "200ms",
    "--gc-grace",
    "500ms",
    "--lease-ttl",
    "5s",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_long_query_ends_with_the_right_answer_and_then_its_objects_vanish() -> Result<()> {
    let seconds = match std::env::var("SLIPSTREAM_LONG_QUERY_SECONDS") {
        Ok(text) => text.parse().context("SLIPSTREAM_LONG_QUERY_SECONDS")?,
        Err(_) => SECONDS,
    };
    Site::run(Store::Directory, async |site| {
        long_query(site, Duration::from_secs(seconds)).await
    })
    .await
}

async fn long_query(site: &Site, duration: Duration) -> Result<()> {
    let mut leader = site.start("leader", "north", "north", &EAGER).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    leader.command("d", OFF).await?;
    let create = "CREATE TABLE t (n BIGINT, filler VARCHAR)";
    leader.sql("d", create).await?;
    for number in 0..INSERTS {
        let rows = ROWS / INSERTS;
        let insert = format!(
            "INSERT INTO t SELECT value, repeat('x', 200) FROM generate_series({}, {})",
            number * rows + 1,
            (number + 1) * rows
        );
        leader.sql("d", &insert).await?;
    }
    let address = format!("north={}", leader.grpc_url());
    let options = ["--leader", address.as_str(), "--query-timeout", "1h"];
    let mut follower = site.start("follower", "south", "south", &options).await?;
    follower.wait_ready().await?;
    follower.attach(&leader, "d").await?;
    let version = leader.sql("d", "SELECT 1").await?.version()?;
    follower.wait_for_version("d", version).await?;
    let needed = files(site)?;
    assert_eq!(needed.len(), INSERTS, "{needed:?}");

    let http = reqwest::Client::builder().no_proxy().build()?;
    let asked = http.post(format!("{}/v1/sql", follower.http_url()));
    let asked = asked.header("accept", "text/csv");
    let asked = asked.json(&json!({"database": "d", "sql": "SELECT n, filler FROM t"}));
    let answer = asked.send().await?.error_for_status()?;
    let began = Instant::now();

    let (is_gone, is_ahead) = (AtomicBool::new(false), AtomicBool::new(false));
    let reading = read_slowly(answer, duration, &is_gone, &is_ahead);
    let changing = async {
        take_everything_away(&leader, &follower).await?;
        is_gone.store(true, Ordering::SeqCst);
        while !is_ahead.load(Ordering::SeqCst) {
            let there = files(site)?;
            ensure!(
                is_ahead.load(Ordering::SeqCst) || needed.is_subset(&there),
                "files of a running query were deleted: {needed:?}, {there:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::try_join!(reading, changing)?;
    eprintln!("the query took {:?}", began.elapsed());
    eventually("the files go when the query has ended", async || {
        Ok(files(site)?.is_disjoint(&needed))
    })
    .await?;
    eventually("nothing is left", async || Ok(files(site)?.is_empty())).await
}

/// Reads an answer as slowly as it takes to need so long; past its middle only when the table is
/// gone. Says when the query may have ended at its node, ahead of what was read here. Fails unless it
/// has each number once.
async fn read_slowly(
    mut answer: reqwest::Response,
    duration: Duration,
    is_gone: &AtomicBool,
    is_ahead: &AtomicBool,
) -> Result<()> {
    let began = Instant::now();
    let (mut seen, mut count, mut rest) = (vec![false; ROWS + 1], 0, Vec::<u8>::new());
    let mut is_first = true;
    while let Some(piece) = answer
        .chunk()
        .await
        .context("the query failed on its way")?
    {
        rest.extend_from_slice(&piece);
        let mut lines = rest.split(|byte| *byte == b'\n');
        // The last line is not whole yet, or empty.
        let unfinished = lines.next_back().unwrap_or_default().to_vec();
        for line in lines {
            if std::mem::take(&mut is_first) {
                continue;
            }
            let line = std::str::from_utf8(line)?;
            let number = line.split(',').next().unwrap_or_default();
            let number: usize = number.parse().with_context(|| line.to_owned())?;
            let place = seen.get_mut(number).with_context(|| line.to_owned())?;
            ensure!(!std::mem::replace(place, true), "{number} came twice");
            count += 1;
        }
        rest = unfinished;
        let part = count as f64 / ROWS as f64;
        if part > READ_ALONE {
            is_ahead.store(true, Ordering::SeqCst);
        }
        let due = duration.mul_f64(part);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        while part > 0.5 && !is_gone.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    ensure!(rest.is_empty(), "the answer ends within a row");
    assert_eq!(count, ROWS, "rows are missing");
    Ok(())
}

/// Merges the table's extents, adds to it and deletes from it, lets the rest outlive its time, and
/// drops it; the follower knows it all.
async fn take_everything_away(leader: &Node, follower: &Node) -> Result<()> {
    leader.command("d", ON).await?;
    eventually("extents are merged", async || {
        Ok(leader.command("d", ".show table t extents").await?.len() < INSERTS)
    })
    .await?;
    leader.command("d", OFF).await?;
    leader.sql("d", "INSERT INTO t VALUES (-1, 'new')").await?;
    leader.sql("d", "DELETE FROM t WHERE n % 2 = 0").await?;
    let keep = ".alter-merge table t policy retention softdelete = 1s";
    leader.command("d", keep).await?;
    eventually("everything outlives its time", async || {
        Ok(leader.count("d", "SELECT count(*) FROM t").await? == 0)
    })
    .await?;
    let dropped = leader.sql("d", "DROP TABLE t").await?.version()?;
    follower.wait_for_version("d", dropped).await
}

/// The database's extent files.
fn files(site: &Site) -> Result<BTreeSet<String>> {
    let folder = format!("{}/extents", site.only_database_folder()?);
    // The store takes an empty folder away with its last file.
    if !site.bucket_directory().join(&folder).exists() {
        return Ok(BTreeSet::new());
    }
    let files = site.bucket_files(&folder)?.into_iter();
    Ok(files.map(|file| file.display().to_string()).collect())
}
