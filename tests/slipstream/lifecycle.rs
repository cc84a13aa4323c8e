//! What a leader does to extents by itself, and what readers see of it: the same rows in fewer
//! files, until their time is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::{Client, Node, Site, Store, eventually};

/// Small ingests when `SLIPSTREAM_LIFECYCLE_INGESTS` does not say: some seconds of work.
const INGESTS: i64 = 200;
/// Clients that send them.
const CLIENTS: i64 = 4;
/// Rows of each.
const ROWS: i64 = 100;
/// As few extents are left of them.
const EXTENTS_MAX: usize = 20;
/// How often the leader is killed when `SLIPSTREAM_CRASH_ROUNDS` does not say.
const ROUNDS: u64 = 6;
/// Longest time between the last ingest of a round and the kill.
const ROUND_MILLISECONDS_MAX: u64 = 200;

/// All rows, each of them once.
const WHOLE: &str = "SELECT count(*) AS c, count(DISTINCT n) AS d, coalesce(sum(amount), 0) AS s \
    FROM t";
/// What turns merging off, and on again.
const OFF: &str =
    r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
const ON: &str = ".delete database d policy merge";

/// A leader with a database `d` that looks after its extents so often.
async fn leader(site: &Site, interval: &str) -> Result<Node> {
    let options = [
        "--merge-interval",
        interval,
        "--retention-interval",
        interval,
    ];
    let mut leader = site.start("leader", "north", "north", &options).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    Ok(leader)
}

/// A follower of `d` with a cache that is large enough.
async fn follower(site: &Site, leader: &Node, options: &[&str]) -> Result<Node> {
    let address = format!("{}={}", leader.cluster(), leader.grpc_url());
    let own = ["--leader", &address, "--cache-disk-bytes", "100MB"];
    let options: Vec<&str> = own.into_iter().chain(options.iter().copied()).collect();
    let mut follower = site.start("follower", "south", "south", &options).await?;
    follower.wait_ready().await?;
    follower.attach(leader, "d").await?;
    Ok(follower)
}

/// The rows of a batch: numbers that no other batch has, and amounts that add up to nothing.
fn batch(number: i64) -> String {
    let rows = (0..ROWS).map(|row| {
        let sign = if row % 2 == 0 { 1 } else { -1 };
        format!("{},{}\n", number * ROWS + row, sign * (number + 1))
    });
    let rows: String = rows.collect();
    format!("n,amount\n{rows}")
}

async fn create_table(leader: &Node) -> Result<()> {
    let create = "CREATE TABLE t (n BIGINT, amount BIGINT)";
    leader.sql("d", create).await?;
    Ok(())
}

async fn ingest(leader: &Client, options: &str, rows: impl Into<String>) -> Result<()> {
    let options = format!("format=csv&create=true{options}");
    let rows: String = rows.into();
    leader.ingest("d", "t", &options, rows).await?;
    Ok(())
}

async fn extents(node: &Node) -> Result<Vec<Value>> {
    node.command("d", ".show table t extents").await
}

/// Waits until the table has so many extents.
async fn extents_become(node: &Node, is_so: impl Fn(usize) -> bool) -> Result<Vec<Value>> {
    let mut last = Vec::new();
    eventually("extents become one", async || {
        last = extents(node).await?;
        Ok(is_so(last.len()))
    })
    .await
    .with_context(|| format!("there are {} extents: {last:?}", last.len()))?;
    Ok(last)
}

/// Waits until the follower has what the leader has now.
async fn follow(leader: &Node, follower: &Node) -> Result<()> {
    let version = leader.sql("d", "SELECT 1").await?.version()?;
    follower.wait_for_version("d", version).await
}

/// Fails unless a node has so many batches, each row once.
async fn check_whole(node: &Node, batches: i64) -> Result<()> {
    let reply = node.sql("d", WHOLE).await?;
    let (rows, text) = (batches * ROWS, reply.text());
    let [row] = reply.rows.as_slice() else {
        anyhow::bail!("expected one row: {text}");
    };
    ensure!(row["c"] == rows, "{rows} rows are expected: {text}");
    ensure!(row["d"] == rows, "a row is there twice: {text}");
    ensure!(row["s"] == 0, "a batch is there half: {text}");
    let sum = node.count("d", "SELECT sum(n) FROM t").await?;
    ensure!(sum == rows * (rows - 1) / 2, "other rows: {sum}");
    Ok(())
}

/// What readers and writers share.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicI64,
    is_done: AtomicBool,
}

/// Reads in a loop; gives over how many versions. `sees_all` says whether what is acknowledged
/// must be seen at once.
async fn read_until_done(client: Client, progress: Arc<Progress>, sees_all: bool) -> Result<u64> {
    let (mut versions, mut last_version, mut last_rows) = (0, 0, 0);
    loop {
        let is_last = progress.is_done.load(Ordering::SeqCst);
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        let reply = client.sql("d", WHOLE).await?;
        let version = reply.version()?;
        let [row] = reply.rows.as_slice() else {
            anyhow::bail!("expected one row: {}", reply.text());
        };
        let rows = row["c"].as_i64().context("a count")?;
        ensure!(row["d"] == rows, "twice at version {version}: {row:?}");
        ensure!(rows % ROWS == 0, "half at version {version}: {row:?}");
        ensure!(row["s"] == 0, "half at version {version}: {row:?}");
        ensure!(rows >= last_rows, "lost at version {version}: {row:?}");
        ensure!(version >= last_version, "{version} after {last_version}");
        if sees_all {
            let expected = acknowledged * ROWS;
            ensure!(rows >= expected, "{rows} of {expected} at {version}");
        }
        versions += u64::from(version > last_version);
        (last_version, last_rows) = (version, rows);
        if is_last {
            return Ok(versions);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_ingests_end_as_few_extents_and_readers_see_every_row_once() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let ingests = match std::env::var("SLIPSTREAM_LIFECYCLE_INGESTS") {
            Ok(text) => text.parse().context("SLIPSTREAM_LIFECYCLE_INGESTS")?,
            Err(_) => INGESTS,
        };
        let leader = leader(site, "200ms").await?;
        create_table(&leader).await?;
        let follower = follower(site, &leader, &[]).await?;
        let progress = Arc::<Progress>::default();
        let readers = [(&leader, true), (&follower, false)].map(|(node, sees_all)| {
            let client = (**node).clone();
            tokio::spawn(read_until_done(client, Arc::clone(&progress), sees_all))
        });
        let writers: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (leader, progress) = ((*leader).clone(), Arc::clone(&progress));
                tokio::spawn(async move {
                    let mut number = client;
                    while number < ingests {
                        ingest(&leader, "", batch(number)).await?;
                        progress.acknowledged.fetch_add(1, Ordering::SeqCst);
                        number += CLIENTS;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        let found = extents_become(&leader, |count| count <= EXTENTS_MAX).await?;
        follow(&leader, &follower).await?;
        progress.is_done.store(true, Ordering::SeqCst);
        for (name, reader) in ["the leader", "the follower"].into_iter().zip(readers) {
            let versions = reader.await?.context(name)?;
            ensure!(versions > 3, "{name} saw {versions} versions");
        }
        check_whole(&leader, ingests).await?;
        check_whole(&follower, ingests).await?;
        let merges = leader.metric("slipstream_merges_total", "merged").await?;
        let failed = leader.metric("slipstream_merges_total", "failed").await?;
        ensure!(
            merges > 0 && failed == 0,
            "{merges} merges, {failed} failed"
        );
        eprintln!(
            "{ingests} ingests, {merges} merges, {} extents",
            found.len()
        );
        eventually("what is hot is near", async || {
            let cache = follower.command("", ".show cache").await?;
            let cache = cache.first().context("a row for the node")?;
            Ok(cache["ResidentExtents"] == cache["HotExtents"])
        })
        .await
    })
    .await
}

#[tokio::test]
async fn extents_behind_different_fences_do_not_become_one() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "100ms").await?;
        leader.command("d", OFF).await?;
        for round in 0..3 {
            for tags in ["drop-by:a", "drop-by:b&tag=x", "y"] {
                let tags = format!("&tag={tags}&tag=ingest-by:{round}");
                ingest(&leader, &tags, format!("n\n{round}\n")).await?;
            }
        }
        assert_eq!(extents(&leader).await?.len(), 9);
        leader.command("d", ON).await?;
        let found = extents_become(&leader, |count| count == 3).await?;
        let tags = found.iter().map(|extent| -> BTreeSet<String> {
            let tags = extent["Tags"].as_str().unwrap_or_default();
            tags.split("\r\n").map(str::to_owned).collect()
        });
        let tags: BTreeSet<BTreeSet<String>> = tags.collect();
        let rounds = ["ingest-by:0", "ingest-by:1", "ingest-by:2"];
        let expected = [&["drop-by:a"][..], &["drop-by:b", "x"], &["y"]];
        let expected = expected.map(|fences| -> BTreeSet<String> {
            let all = fences.iter().chain(&rounds);
            all.map(|tag| (*tag).to_owned()).collect()
        });
        assert_eq!(tags, BTreeSet::from(expected));
        assert_eq!(leader.count("d", "SELECT sum(n + 0) FROM t").await?, 9);
        Ok(())
    })
    .await
}

/// A moment so many hours ago.
fn hours_ago(hours: u64) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seconds = now.as_secs() - hours * 3_600;
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days to civil: years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day + 2) / 153;
    let day = day - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    Ok(format!(
        "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

#[tokio::test]
async fn a36_extents_leave_when_their_newest_source_is_too_old() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "100ms").await?;
        let made = |hours| anyhow::Ok(format!("&creation_time={}", hours_ago(hours)?));
        ingest(&leader, &made(12)?, "n\n1\n").await?;
        ingest(&leader, &made(1)?, "n\n2\n").await?;
        let apart = format!("{}&tag=drop-by:x", made(12)?);
        ingest(&leader, &apart, "n\n4\n").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        extents_become(&leader, |count| count == 2).await?;

        let sum = "SELECT coalesce(sum(n + 0), 0) FROM t";
        for (period, expected, removed) in [("2d", 7, 0), ("6h", 3, 1), ("30m", 0, 2)] {
            let keep = format!(".alter-merge table t policy retention softdelete = {period}");
            leader.command("d", &keep).await?;
            eventually(period, async || {
                Ok(leader.count("d", sum).await? == expected)
            })
            .await?;
            follow(&leader, &follower).await?;
            assert_eq!(follower.count("d", sum).await?, expected, "{period}");
            let name = "slipstream_retention_removed_extents_total";
            eventually("they are counted", async || {
                Ok(leader.metric(name, "").await? == removed)
            })
            .await?;
        }
        // Rows that are taken in now stay.
        ingest(&leader, "", "n\n8\n").await?;
        let passes = Duration::from_millis(500);
        tokio::time::sleep(passes).await;
        assert_eq!(leader.count("d", sum).await?, 8);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn columns_come_and_go_while_extents_become_one() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "20ms").await?;
        let create = "CREATE TABLE t (n BIGINT, c0 BIGINT)";
        leader.sql("d", create).await?;
        let mut sum = 0;
        for round in 1..=8 {
            for _ in 0..3 {
                ingest(&leader, "", format!("n\n{round}\n")).await?;
            }
            let add = format!("ALTER TABLE t ADD COLUMN c{round} BIGINT");
            leader.sql("d", &add).await?;
            let rows = format!("n,c{round}\n{round},{round}\n");
            ingest(&leader, "", rows).await?;
            let drop = format!("ALTER TABLE t DROP COLUMN c{}", round - 1);
            leader.sql("d", &drop).await?;
            sum += 4 * round;
            let read = format!("SELECT sum(n + 0) * 1000 + sum(c{round} + 0) FROM t");
            assert_eq!(leader.count("d", &read).await?, sum * 1_000 + round);
        }
        extents_become(&leader, |count| count <= 8).await?;
        let read = "SELECT sum(n + 0) * 1000 + sum(c8 + 0) + count(c8) FROM t";
        assert_eq!(leader.count("d", read).await?, sum * 1_000 + 8 + 1);
        let failed = leader.metric("slipstream_merges_total", "failed").await?;
        assert_eq!(failed, 0, "a merge that is overtaken has not failed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_killed_while_it_merges_leaves_the_table_whole() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let rounds = match std::env::var("SLIPSTREAM_CRASH_ROUNDS") {
            Ok(text) => text.parse().context("SLIPSTREAM_CRASH_ROUNDS")?,
            Err(_) => ROUNDS,
        };
        let mut leader = leader(site, "10ms").await?;
        create_table(&leader).await?;
        let mut random = SmallRng::seed_from_u64(33);
        let mut batches = 0;
        for round in 0..rounds {
            for _ in 0..10 {
                ingest(&leader, "", batch(batches)).await?;
                batches += 1;
            }
            let moment = Duration::from_millis(random.random_range(0..ROUND_MILLISECONDS_MAX));
            tokio::time::sleep(moment).await;
            leader.kill()?;
            leader.restart().await?;
            leader.wait_ready().await?;
            check_whole(&leader, batches)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        extents_become(&leader, |count| count <= EXTENTS_MAX).await?;
        check_whole(&leader, batches).await?;
        ensure!(
            leader.log().contains("merged extents"),
            "nothing was tested"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_damaged_extent_keeps_no_other_from_becoming_one() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "100ms").await?;
        leader.command("d", OFF).await?;
        for number in 0..6 {
            ingest(&leader, "", format!("n\n{number}\n")).await?;
        }
        let id = extents(&leader).await?[2]["ExtentId"].clone();
        let id = id.as_str().context("an id")?;
        let folder = site.bucket_directory().join(site.only_database_folder()?);
        let object = folder.join("extents").join(format!("{id}.parquet"));
        let mut bytes = std::fs::read(&object)?;
        bytes[20] ^= 1;
        std::fs::write(&object, bytes)?;
        leader.command("d", ON).await?;
        let found = extents_become(&leader, |count| count == 2).await?;
        ensure!(
            found.iter().any(|extent| extent["ExtentId"] == id),
            "it stays as it is: {found:?}"
        );
        ensure!(leader.log().contains(&format!("extent {id} is damaged")));
        Ok(())
    })
    .await
}

/// Sums up in a loop, and fails when a query has read anything from the bucket. Gives how many
/// sums it saw.
async fn read_near_until_done(client: Client, progress: Arc<Progress>) -> Result<usize> {
    let mut sums = BTreeSet::new();
    while !progress.is_done.load(Ordering::SeqCst) {
        let ask = client.ask("d", "SELECT sum(n + 0) AS s FROM t");
        let body = ask.with("statistics", json!(true));
        let answer: Value = serde_json::from_str(&body.body("application/json").await?)?;
        let reads = &answer["statistics"]["reads"];
        for what in ["requests", "hotMissBytes", "coldMissBytes"] {
            ensure!(reads[what] == 0, "read from the bucket: {answer}");
        }
        ensure!(reads["hotHitBytes"].as_u64() > Some(0), "{answer}");
        sums.insert(answer["rows"][0]["s"].as_i64().context("a sum")?);
    }
    Ok(sums.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followers_hot_set_stays_near_while_extents_become_one() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, "200ms").await?;
        create_table(&leader).await?;
        let first = 10;
        for number in 0..first {
            ingest(&leader, "", batch(number)).await?;
        }
        // An extent that changes its form while it is read is asked for once more.
        let mut follower = follower(site, &leader, &["--cache-form", "parquet"]).await?;
        follower
            .command("d", ".alter follower database d prefetch-extents = true")
            .await?;
        // A node that runs looks for its settings some times a second; one that starts has them.
        follower.terminate().await?;
        follower.restart().await?;
        follower.wait_ready().await?;
        eventually("the hot set is near", async || {
            let cache = follower.command("", ".show cache").await?;
            let cache = cache.first().context("a row for the node")?;
            let hot = &cache["HotExtents"];
            Ok(*hot != 0 && cache["ResidentExtents"] == *hot)
        })
        .await?;
        follow(&leader, &follower).await?;

        let progress = Arc::<Progress>::default();
        let client = (*follower).clone();
        let reader = tokio::spawn(read_near_until_done(client, Arc::clone(&progress)));
        let merges_before = leader.metric("slipstream_merges_total", "merged").await?;
        let batches = first + 60;
        for number in first..batches {
            ingest(&leader, "", batch(number)).await?;
        }
        extents_become(&leader, |count| count <= EXTENTS_MAX).await?;
        follow(&leader, &follower).await?;
        progress.is_done.store(true, Ordering::SeqCst);
        let sums = reader.await??;
        let merges = leader.metric("slipstream_merges_total", "merged").await?;
        ensure!(sums > 3, "{sums} sums: nothing was tested");
        ensure!(merges > merges_before, "nothing was merged meanwhile");
        check_whole(&follower, batches).await?;

        // What the extents were made of goes in the end.
        eventually("only what is hot is on the disk", async || {
            let hot: BTreeSet<String> = extents(&follower)
                .await?
                .iter()
                .filter_map(|extent| extent["ExtentId"].as_str().map(str::to_owned))
                .collect();
            Ok(extents_on_disk(&follower)? == hot)
        })
        .await
    })
    .await
}

/// The ids of the extents in a follower's cache.
fn extents_on_disk(follower: &Node) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(follower.data_directory().join("cache/hot"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|form| form == "parquet") {
            let id = path.file_stem().context("a name")?;
            ids.insert(id.to_string_lossy().into_owned());
        }
    }
    Ok(ids)
}
