//! Files that no commit names, and databases that were dropped: when they go, and what stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::cluster::{Node, Site, Store, eventually};
use crate::garbage::{blocked_by, blockers, files, ingest, leader, nothing_is_kept};

/// Looks all the time, keeps nothing for long, and has a lease that is over soon.
const EAGER: [&str; 6] = [
    "--gc-interval",
    "200ms",
    "--gc-grace",
    "0s",
    "--lease-ttl",
    "5s",
];
/// The same, but looks only when it is asked.
const ASKED: [&str; 6] = [
    "--gc-interval",
    "0",
    "--gc-grace",
    "0s",
    "--lease-ttl",
    "5s",
];
/// Uploads a file, and then takes longer than any test.
const UPLOADS_AND_HANGS: &str = "INSERT INTO t VALUES (1000); \
    INSERT INTO t SELECT count(*) FROM generate_series(1, 1000000) AS a \
    CROSS JOIN generate_series(1, 1000000) AS b WHERE a.value + b.value < 0";
/// How often the leader is killed while it deletes a database.
const ROUNDS: u64 = 3;
/// Commits of a database that is dropped: more than lie between two checkpoints.
const COMMITS: u64 = 80;
/// The longest time between the first file that goes and the kill.
const MOMENT_MILLISECONDS_MAX: u64 = 40;

/// Kills a leader that has uploaded a file of a database's and not committed it; gives the extent.
async fn killed_in_an_insert(site: &Site, leader: &mut Node, folder: &str) -> Result<String> {
    let extents = format!("{folder}/extents");
    let before = objects(site, &extents)?;
    let new = || -> Result<Option<String>> {
        let now = objects(site, &extents)?;
        let mut new = now.difference(&before);
        Ok(new.find(|name| name.ends_with(".parquet")).cloned())
    };
    let client = (**leader).clone();
    let hanging = tokio::spawn(async move { client.sql("d", UPLOADS_AND_HANGS).await });
    eventually("the first file is uploaded", async || Ok(new()?.is_some())).await?;
    ensure!(!hanging.is_finished(), "it does not hang");
    leader.kill()?;
    ensure!(hanging.await?.is_err(), "it was acknowledged");
    let orphan = new()?.context("a file")?;
    Ok(orphan.trim_end_matches(".parquet").to_owned())
}

/// The objects below a folder of the bucket, by their paths in it.
fn objects(site: &Site, folder: &str) -> Result<BTreeSet<String>> {
    fn add(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
        // A folder goes away with its last file, at any moment.
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                add(root, &path, found)?;
            } else {
                let path = path.strip_prefix(root)?;
                found.insert(path.to_string_lossy().into_owned());
            }
        }
        Ok(())
    }
    let root = site.bucket_directory().join(folder);
    let mut found = BTreeSet::new();
    add(&root, &root, &mut found)?;
    Ok(found)
}

/// Whether only what stays for good is left of a dropped database: commits that opened its log, and
/// the note that all else is gone.
fn is_gone(site: &Site, folder: &str) -> Result<bool> {
    let left = objects(site, folder)?;
    let mut others = left.iter().filter(|path| !path.starts_with("log/"));
    let is_noted = others.next().is_some_and(|path| path == "garbage/dropped");
    Ok(is_noted && others.next().is_none() && left.len() < 20)
}

/// Waits until a dropped database is gone, and the leader says so.
async fn goes(site: &Site, leader: &Node, folder: &str) -> Result<()> {
    let waited = eventually("the database's objects go", async || is_gone(site, folder)).await;
    waited.with_context(|| format!("left: {:?}", objects(site, folder)))?;
    eventually("nothing is said to keep it", async || {
        let rows = blockers(leader).await?;
        Ok(!rows.iter().any(|row| row["Reason"] == "Dropped"))
    })
    .await
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_commit_never_came_goes_and_committed_ones_stay() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let long = [&EAGER[..4], &["--lease-ttl", "15s"]].concat();
        let mut leader = leader(site, "north", &long).await?;
        for number in 1..=20 {
            ingest(&leader, "t", &format!("n\n{number}\n")).await?;
        }
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        // One more extent leaves its table, and is the ledger's to delete.
        leader.sql("d", "DELETE FROM t WHERE n = 20").await?;
        let folder = site.only_database_folder()?;
        let orphan = killed_in_an_insert(site, &mut leader, &folder).await?;
        leader.restart().await?;
        leader.wait_ready().await?;

        let row = blocked_by(&leader, "Orphan", 1).await?;
        ensure!(text(&row, "Holder") == "epoch 1", "{row}");
        ensure!(row["Bytes"].as_u64() > Some(0), "{row}");
        ensure!(row["KeptUntil"].is_string(), "{row}");
        let asked = leader.command("d", ".gc database d").await?;
        ensure!(
            !asked.iter().any(|row| row["Reason"] == "Orphan"),
            "{asked:?}"
        );
        ensure!(files(site)?.contains(&orphan));

        eventually("only what tables have is left", async || {
            Ok(files(site)?.len() == 19)
        })
        .await?;
        ensure!(!files(site)?.contains(&orphan));
        nothing_is_kept(&leader).await?;
        let deleted = leader
            .metric("slipstream_gc_orphans_total", "database=\"d\"")
            .await?;
        assert_eq!(deleted, 1);
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", version).await?;
        for node in [&leader, &follower] {
            assert_eq!(node.count("d", "SELECT sum(n) FROM t").await?, 190);
        }
        // Its intents went with it, and those of the one that leads stay.
        ingest(&leader, "t", "n\n21\n").await?;
        let intents = objects(site, &format!("{folder}/garbage/intents"))?;
        let of_first = format!("{:020}-", 1);
        ensure!(!intents.is_empty(), "an upload without an intent");
        ensure!(
            !intents.iter().any(|name| name.starts_with(&of_first)),
            "{intents:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_named_before_they_go_and_are_gone_for_good() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site, "north", &ASKED).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        let kept = files(site)?;
        let folder = site.only_database_folder()?;
        let orphan = killed_in_an_insert(site, &mut leader, &folder).await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        let row = blocked_by(&leader, "Due", 1).await?;
        ensure!(text(&row, "Holder") == "epoch 1", "{row}");
        for (command, is_there) in [
            (".gc database d with (whatif=true)", true),
            (".gc database d", false),
        ] {
            let rows = leader.command("d", command).await?;
            let [row] = rows.as_slice() else {
                anyhow::bail!("{command}: expected one file: {rows:?}");
            };
            ensure!(text(row, "ExtentId") == orphan, "{row}");
            ensure!(text(row, "Reason") == "Orphan", "{row}");
            assert_eq!(files(site)?.contains(&orphan), is_there);
        }
        assert_eq!(files(site)?, kept);
        ensure!(blockers(&leader).await?.is_empty());
        // The next leader reads what was noted, or, without it, the log: there is nothing to find.
        for loses_memory in [false, true] {
            leader.kill()?;
            if loses_memory {
                let folder = site.bucket_directory().join(site.only_database_folder()?);
                std::fs::remove_file(folder.join("garbage/ledger"))?;
            }
            leader.restart().await?;
            leader.wait_ready().await?;
            // Until leases are known, what they might keep is kept.
            nothing_is_kept(&leader).await?;
            tokio::time::sleep(Duration::from_secs(6)).await;
            let rows = leader.command("d", ".gc database d").await?;
            ensure!(rows.is_empty(), "{rows:?}");
            assert_eq!(files(site)?, kept);
        }
        assert_eq!(leader.count("d", "SELECT sum(n) FROM t").await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_transaction_uploaded_goes_while_the_leader_runs() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "north", &EAGER).await?;
        ingest(&leader, "t", "n\n1\n").await?;
        let kept = files(site)?;
        let half = "INSERT INTO t VALUES (2); INSERT INTO missing VALUES (5)";
        leader.refused("d", half).await?;
        assert_eq!(files(site)?.len(), 2);
        let row = blocked_by(&leader, "Orphan", 1).await?;
        ensure!(text(&row, "Holder") == "this leader", "{row}");
        eventually("the file goes", async || Ok(files(site)? == kept)).await?;
        nothing_is_kept(&leader).await?;
        let deleted = leader
            .metric("slipstream_gc_orphans_total", "database=\"d\"")
            .await?;
        assert_eq!(deleted, 1);
        assert_eq!(leader.count("d", "SELECT sum(n) FROM t").await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_goes_as_a_whole_and_others_are_as_they_were() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site, "north", &EAGER).await?;
        let folder = site.only_database_folder()?;
        leader.create_database("kept").await?;
        leader
            .ingest("kept", "t", "format=csv&create=true", "n\n1\n2\n")
            .await?;
        for number in 0..COMMITS {
            ingest(&leader, "t", &format!("n\n{number}\n")).await?;
        }
        leader.sql("d", "DELETE FROM t WHERE n = 7").await?;
        killed_in_an_insert(site, &mut leader, &folder).await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        ingest(&leader, "u", "n\n1\n").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "kept").await?;
        let all = objects(site, "databases")?;
        let name = folder.trim_start_matches("databases/").to_owned();
        let of_others = |all: &BTreeSet<String>| {
            let others = all.iter().filter(|path| !path.starts_with(&name));
            let extents = others.filter(|path| path.contains("/extents/"));
            extents.cloned().collect::<BTreeSet<_>>()
        };
        leader.ask_node("DROP DATABASE d").send().await?;
        let mut seen = Vec::new();
        eventually("the database is said to be dropped", async || {
            seen = blockers(&leader).await?;
            Ok(seen.iter().any(|row| row["Reason"] == "Dropped"))
        })
        .await
        .with_context(|| format!("{seen:?}"))?;

        goes(site, &leader, &folder).await?;
        // Both leaders opened it, and so did the one that deleted it.
        let left = objects(site, &folder)?;
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(of_others(&objects(site, "databases")?), of_others(&all));
        for node in [&leader, &follower] {
            assert_eq!(node.count("kept", "SELECT sum(n) FROM t").await?, 3);
        }
        let databases = leader
            .metric("slipstream_gc_dropped_databases_total", "")
            .await?;
        assert_eq!(databases, 1);

        // Nobody begins again.
        leader.restart().await?;
        leader.wait_ready().await?;
        tokio::time::sleep(Duration::from_secs(7)).await;
        goes(site, &leader, &folder).await?;
        assert_eq!(objects(site, &folder)?, left);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_while_it_deletes_a_database_is_followed_by_one_that_ends_it() -> Result<()>
{
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site, "north", &EAGER).await?;
        let mut random = SmallRng::seed_from_u64(18);
        for round in 0..ROUNDS {
            if round > 0 {
                leader.create_database("d").await?;
            }
            let known = objects(site, "databases")?;
            for number in 0..COMMITS {
                ingest(&leader, "t", &format!("n\n{number}\n")).await?;
            }
            let all = objects(site, "databases")?;
            let new = all.difference(&known).next().context("a new object")?;
            let (id, _) = new.split_once('/').context("a folder")?;
            let folder = format!("databases/{id}");
            let before = objects(site, &folder)?.len();
            leader.ask_node("DROP DATABASE d").send().await?;
            eventually("deleting begins", async || {
                Ok(objects(site, &folder)?.len() < before)
            })
            .await?;
            let moment = random.random_range(0..MOMENT_MILLISECONDS_MAX);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            leader.restart().await?;
            leader.wait_ready().await?;
            goes(site, &leader, &folder).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_commits_nothing_to_a_database_that_is_gone() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut older = leader(site, "older", &ASKED).await?;
        ingest(&older, "t", "n\n1\n").await?;
        let folder = site.only_database_folder()?;
        older.signal("-STOP")?;
        let mut newer = site.start("leader", "north", "newer", &EAGER).await?;
        newer.wait_ready().await?;
        newer.ask_node("DROP DATABASE d").send().await?;
        goes(site, &newer, &folder).await?;
        let log = objects(site, &format!("{folder}/log"))?;
        older.signal("-CONT")?;
        let late = older.ingest("d", "t", "format=csv", "n\n2\n").await;
        ensure!(late.is_err(), "it was acknowledged: {late:?}");
        assert_eq!(objects(site, &format!("{folder}/log"))?, log);
        older.kill()
    })
    .await
}
