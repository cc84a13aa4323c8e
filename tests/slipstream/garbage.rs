//! Files of extents that left their tables: when they go, and what keeps them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::{Node, PATIENCE, Site, Store, eventually};

/// A lease this short is over soon after a leader began.
const SHORT_LEASE: &str = "5s";
/// How often the leader is killed.
const ROUNDS: u64 = 5;
/// Files that it deletes each time.
const FILES: i64 = 100;
/// The longest time between the first file that goes and the kill: some are deleted and not noted.
const MOMENT_MILLISECONDS_MAX: u64 = 8;
/// Rows of the table that a slow reader reads, and how they are put in.
const ROWS: i64 = 300_000;
const INSERTS: i64 = 6;

/// A leader with a database `d`, that looks for garbage so often.
pub(crate) async fn leader(site: &Site, directory: &str, options: &[&str]) -> Result<Node> {
    let mut leader = site.start("leader", "north", directory, options).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    // Files are counted: nothing is merged.
    let off = r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
    leader.command("d", off).await?;
    Ok(leader)
}

pub(crate) async fn ingest(leader: &Node, table: &str, rows: &str) -> Result<()> {
    let options = "format=csv&create=true";
    leader.ingest("d", table, options, rows.to_owned()).await?;
    Ok(())
}

/// The names of the database's extent files, without their endings.
pub(crate) fn files(site: &Site) -> Result<BTreeSet<String>> {
    let folder = format!("{}/extents", site.only_database_folder()?);
    // The store takes an empty folder away with its last file.
    if !site.bucket_directory().join(&folder).exists() {
        return Ok(BTreeSet::new());
    }
    let files = site.bucket_files(&folder)?.into_iter();
    let names = files.filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()));
    Ok(names.collect())
}

/// The ids of all extents of the database's tables.
async fn extents(leader: &Node) -> Result<BTreeSet<String>> {
    let rows = leader.command("d", ".show database d extents").await?;
    let ids = rows.iter().map(|row| {
        let id = row["ExtentId"].as_str().map(str::to_owned);
        id.with_context(|| format!("an id in {row}"))
    });
    ids.collect()
}

pub(crate) async fn blockers(leader: &Node) -> Result<Vec<Value>> {
    leader.command("d", ".show gc blockers").await
}

/// Waits until nothing keeps any extent. Files are gone a moment before it is written down that they are, and
/// a leader that is killed in between has to find that out.
pub(crate) async fn nothing_is_kept(leader: &Node) -> Result<()> {
    let mut last = Vec::new();
    eventually("nothing is kept", async || {
        last = blockers(leader).await?;
        Ok(last.is_empty())
    })
    .await
    .with_context(|| format!("{last:?}"))
}

/// Waits until something keeps so many extents for a reason; gives the row that says so.
pub(crate) async fn blocked_by(leader: &Node, reason: &str, extents: u64) -> Result<Value> {
    let mut last = Vec::new();
    let what = format!("{extents} extents are kept: {reason}");
    let mut found = None;
    eventually(&what, async || {
        last = blockers(leader).await?;
        let mut rows = last.iter();
        found = rows
            .find(|row| row["Reason"] == reason && row["Extents"] == extents)
            .cloned();
        Ok(found.is_some())
    })
    .await
    .with_context(|| format!("{last:?}"))?;
    found.context("a row")
}

/// Waits until there are fewer files than there were.
async fn deleting_begins(site: &Site, before: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while files(site)?.len() >= before {
        ensure!(Instant::now() < deadline, "nothing is deleted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followers_running_query_keeps_the_files_it_reads_until_it_ends() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "200ms", "--gc-grace", "500ms"];
        let options = [&options[..], &["--lease-ttl", SHORT_LEASE]].concat();
        let leader = leader(site, "north", &options).await?;
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
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", version).await?;
        let before = files(site)?;
        ensure!(before.len() == 6, "{before:?}");

        // Somebody asks for more than the ways in between hold, and reads no further for now.
        let http = reqwest::Client::builder().no_proxy().build()?;
        let asked = http.post(format!("{}/v1/sql", follower.http_url()));
        let asked = asked.header("accept", "text/csv");
        let asked = asked.json(&json!({"database": "d", "sql": "SELECT n, filler FROM t"}));
        let mut answer = asked.send().await?.error_for_status()?;
        let first = answer.chunk().await?.context("a first row")?;
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let mut read = lines(&first);

        let dropped = leader.sql("d", "DROP TABLE t").await?.version()?;
        follower.wait_for_version("d", dropped).await?;
        let row = blocked_by(&leader, "Lease", 6).await?;
        let holder = row["Holder"].as_str().unwrap_or_default();
        ensure!(holder.starts_with("south/d node "), "{row}");
        ensure!(row["OldestRemovedVersion"] == dropped, "{row}");
        ensure!(row["Bytes"].as_u64() > Some(0), "{row}");
        // Several rounds, and more than a lease's life: it is renewed.
        tokio::time::sleep(Duration::from_secs(8)).await;
        blocked_by(&leader, "Lease", 6).await?;
        assert_eq!(files(site)?, before);
        let kept = leader
            .metric("slipstream_gc_blocked_extents", "reason=\"Lease\"")
            .await?;
        assert_eq!(kept, 6);

        while let Some(more) = answer.chunk().await? {
            read += lines(&more);
        }
        // The first line names the columns.
        assert_eq!(i64::try_from(read)?, ROWS + 1);
        eventually("the files go when the query has ended", async || {
            Ok(files(site)?.is_empty())
        })
        .await?;
        nothing_is_kept(&leader).await?;
        let deleted = leader
            .metric("slipstream_gc_deleted_extents_total", "database=\"d\"")
            .await?;
        assert_eq!(deleted, 6);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_starts_again_deletes_nothing_for_one_lease_period() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "200ms", "--gc-grace", "0s"];
        let options = [&options[..], &["--lease-ttl", "15s"]].concat();
        let mut leader = leader(site, "north", &options).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        leader.sql("d", "DROP TABLE t").await?;
        blocked_by(&leader, "Restart", 1).await?;
        // Most of the period passes; the next leader knows nothing of that.
        tokio::time::sleep(Duration::from_secs(8)).await;
        leader.restart().await?;
        leader.wait_ready().await?;
        let row = blocked_by(&leader, "Restart", 1).await?;
        ensure!(row["KeptUntil"].is_string(), "{row}");
        let asked = leader.command("d", ".gc database d").await?;
        ensure!(asked.is_empty(), "{asked:?}");
        // The first leader would have deleted it by now.
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(files(site)?.len(), 1);
        eventually("the file goes", async || Ok(files(site)?.is_empty())).await
    })
    .await
}

#[tokio::test]
async fn the_grace_period_keeps_what_was_just_removed() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "100ms", "--lease-ttl", SHORT_LEASE];
        let leader = leader(site, "north", &options).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        leader.sql("d", "DELETE FROM t").await?;
        // Fourteen days, when nothing is said.
        let row = blocked_by(&leader, "Grace", 1).await?;
        ensure!(row["KeptUntil"].is_string(), "{row}");
        tokio::time::sleep(Duration::from_secs(7)).await;
        blocked_by(&leader, "Grace", 1).await?;
        assert_eq!(files(site)?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_file_of_an_extent_that_moved_is_kept_until_that_table_loses_it_too() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "100ms", "--gc-grace", "0s"];
        let options = [&options[..], &["--lease-ttl", SHORT_LEASE]].concat();
        let leader = leader(site, "north", &options).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        leader.sql("d", "CREATE TABLE u (n BIGINT)").await?;
        let moved = ".move extents all from table t to table u";
        leader.command("d", moved).await?;
        ingest(&leader, "t", "n\n2\n").await?;
        leader.sql("d", "DROP TABLE t").await?;
        eventually("the extent that stayed behind goes", async || {
            Ok(files(site)?.len() == 1)
        })
        .await?;
        assert_eq!(files(site)?, extents(&leader).await?);
        let row = leader.count("d", "SELECT sum(n) FROM u").await?;
        assert_eq!(row, 1);
        leader.sql("d", "DROP TABLE u").await?;
        eventually("nothing is left", async || Ok(files(site)?.is_empty())).await
    })
    .await
}

#[tokio::test]
async fn what_would_go_is_said_and_stays_and_what_went_is_known_after_a_restart() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "0", "--gc-grace", "0s"];
        let options = [&options[..], &["--lease-ttl", SHORT_LEASE]].concat();
        let mut leader = leader(site, "north", &options).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        let gone = extents(&leader).await?;
        ingest(&leader, "kept", "n\n1\n").await?;
        let dropped = leader.sql("d", "DROP TABLE t").await?.version()?;
        blocked_by(&leader, "Due", 1).await?;

        for _ in 0..2 {
            let asked = ".gc database d with (whatif=true)";
            let rows = leader.command("d", asked).await?;
            let [row] = rows.as_slice() else {
                anyhow::bail!("expected one extent: {rows:?}");
            };
            let id = row["ExtentId"].as_str().unwrap_or_default();
            ensure!(gone.contains(id), "{row}");
            ensure!(row["TableName"] == "t", "{row}");
            ensure!(row["RemovedVersion"] == dropped, "{row}");
            assert_eq!(files(site)?.len(), 2);
        }
        let deleted = leader.command("d", ".gc database d").await?;
        assert_eq!(deleted.len(), 1, "{deleted:?}");
        assert_eq!(files(site)?, extents(&leader).await?);

        leader.restart().await?;
        leader.wait_ready().await?;
        ensure!(blockers(&leader).await?.is_empty());

        // Without its memory it finds the same once more, which is nothing to delete any more.
        leader.kill()?;
        let ledger = site.bucket_directory().join(site.only_database_folder()?);
        std::fs::remove_file(ledger.join("garbage/ledger"))?;
        leader.restart().await?;
        leader.wait_ready().await?;
        blocked_by(&leader, "Due", 1).await?;
        let again = leader.command("d", ".gc database d").await?;
        assert_eq!(again.len(), 1, "{again:?}");
        assert_eq!(files(site)?, extents(&leader).await?);
        ensure!(blockers(&leader).await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_deletes_nothing() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "0", "--gc-grace", "0s"];
        let options = [&options[..], &["--lease-ttl", SHORT_LEASE]].concat();
        let older = leader(site, "older", &options).await?;
        ingest(&older, "t", "n\n1\n").await?;
        older.sql("d", "DROP TABLE t").await?;
        blocked_by(&older, "Due", 1).await?;
        let mut newer = site.start("leader", "north", "newer", &options).await?;
        newer.wait_ready().await?;
        let refused = older.command_refused("d", ".gc database d").await?;
        ensure!(refused.code.eq_ignore_ascii_case("fenced"), "{refused}");
        assert_eq!(files(site)?.len(), 1);
        blocked_by(&newer, "Due", 1).await?;
        let deleted = newer.command("d", ".gc database d").await?;
        assert_eq!(deleted.len(), 1, "{deleted:?}");
        ensure!(files(site)?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_while_it_deletes_leaves_nothing_wrong() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "50ms", "--gc-grace", "0s"];
        let options = [&options[..], &["--lease-ttl", SHORT_LEASE]].concat();
        let mut leader = leader(site, "north", &options).await?;
        let mut random = SmallRng::seed_from_u64(14);
        for round in 0..ROUNDS {
            for number in 0..FILES {
                ingest(&leader, "gone", &format!("n\n{number}\n")).await?;
            }
            ingest(&leader, "kept", &format!("n\n{round}\n")).await?;
            let before = files(site)?.len();
            leader.sql("d", "DROP TABLE gone").await?;
            deleting_begins(site, before).await?;
            let moment = random.random_range(0..MOMENT_MILLISECONDS_MAX);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            leader.restart().await?;
            leader.wait_ready().await?;
            let live = extents(&leader).await?;
            ensure!(live.is_subset(&files(site)?), "a file is missing: {live:?}");
            let sum = leader.count("d", "SELECT sum(n) FROM kept").await?;
            assert_eq!(u64::try_from(sum)?, round * (round + 1) / 2);
        }
        eventually("only what tables have is left", async || {
            Ok(files(site)? == extents(&leader).await?)
        })
        .await?;
        nothing_is_kept(&leader).await?;
        Ok(())
    })
    .await
}
