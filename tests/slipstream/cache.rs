//! A follower's cache: its own policy, on its own disk.

mod faults;
mod policies;
mod scan;
mod seed;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::{Node, Site, Store, eventually};

/// How often the follower is killed while it warms when `SLIPSTREAM_CRASH_ROUNDS` does not say.
const ROUNDS: u64 = 8;
/// Longest time between the start of a follower and its kill.
const ROUND_MILLISECONDS_MAX: u64 = 800;

/// `.show cache` of a follower, once it is as wanted.
async fn cache_becomes(
    follower: &Node,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = Value::Null;
    eventually(what, async || {
        let rows = follower.command("", ".show cache").await?;
        last = rows.into_iter().next().context("a row for the node")?;
        Ok(is_so(&last))
    })
    .await
    .with_context(|| format!("the cache was last {last}"))?;
    Ok(last)
}

#[tokio::test]
async fn a26_a27_a57_a61_a66_the_hot_cache_follows_the_policy() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        for year in 2020..2025 {
            let options = format!("format=csv&create=true&creation_time={year}-01-01T00:00:00Z");
            leader
                .ingest("d", "t", &options, format!("year\n{year}\n0\n"))
                .await?;
        }
        leader
            .ingest("d", "t", "format=csv", "year\n2030\n0\n")
            .await?;
        let address = format!("north={}", leader.grpc_url());
        let options = ["--leader", &address, "--cache-disk-bytes", "100MB"];
        let mut follower = site.start("follower", "south", "south", &options).await?;
        follower.wait_ready().await?;
        follower.attach(&leader, "d").await?;

        // No policy: everything is hot, and here, checked by what the bucket holds.
        let full = cache_becomes(&follower, "everything is here", |cache| {
            cache["ResidentExtents"] == 6
        })
        .await?;
        assert_eq!(
            (&full["HotExtents"], &full["ShortfallBytes"]),
            (&json!(6), &json!(0))
        );
        // In the form that scans faster, each of them; beside them stands whose they are.
        cache_becomes(&follower, "all have their form", |cache| {
            cache["EncodedExtents"] == 6
        })
        .await?;
        let hot = follower.data_directory().join("cache/hot");
        let files = || std::fs::read_dir(&hot).map(Iterator::count);
        assert_eq!(files()?, 7);
        let (_, metrics) = follower.get("/metrics").await?;
        ensure!(
            metrics.contains("slipstream_cache_utilization_percent"),
            "{metrics}"
        );

        // 0d: nothing is hot. What is cold is queryable all the same.
        follower
            .command("d", ".alter follower database d policy caching hot = 0d")
            .await?;
        cache_becomes(&follower, "nothing is here", |cache| {
            cache["ResidentExtents"] == 0
        })
        .await?;
        assert_eq!(files()?, 1);
        assert_eq!(
            follower.count("d", "SELECT sum(year) FROM t").await?,
            12_140
        );

        // Three years, by the time of creation; the leader knows nothing of it.
        follower
            .command(
                "d",
                ".alter follower database d table t policy caching hot = 1d, \
                 hot_window = datetime(2021-01-01) .. datetime(2022-06-01)",
            )
            .await?;
        cache_becomes(&follower, "the hot ones are here", |cache| {
            cache["ResidentExtents"] == 3
        })
        .await?;
        assert_eq!(
            follower
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            3
        );
        assert_eq!(
            leader
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            6
        );
        assert_eq!(leader.command("d", ".show cache").await?.len(), 0);

        // A query says what it read from where.
        follower.sql("d", "SELECT year + 1 FROM t").await?;
        let queries = follower.command("d", ".show queries").await?;
        let last = queries
            .iter()
            .rfind(|row| {
                row["Text"]
                    .as_str()
                    .is_some_and(|text| text.contains("year + 1"))
            })
            .context("the query is in the log")?;
        let statistics = &last["CacheStatistics"];
        let bytes = |which: &str, what: &str| statistics["Shards"][which][what].as_i64();
        ensure!(bytes("Hot", "HitBytes") > Some(0), "{statistics}");
        assert_eq!(bytes("Hot", "MissBytes"), Some(0), "{statistics}");
        // They were read before, so they stand among the cold blocks.
        ensure!(bytes("Cold", "HitBytes") > Some(0), "{statistics}");
        assert_eq!(bytes("Cold", "MissBytes"), Some(0), "{statistics}");

        // New extents come by themselves; a restart finds what is on the disk.
        leader
            .ingest("d", "t", "format=csv", "year\n2031\n0\n")
            .await?;
        cache_becomes(&follower, "the new one is here", |cache| {
            cache["ResidentExtents"] == 4
        })
        .await?;
        follower.kill()?;
        follower.restart().await?;
        follower.wait_ready().await?;
        cache_becomes(&follower, "all are found again", |cache| {
            cache["ResidentExtents"] == 4
        })
        .await?;
        let (_, metrics) = follower.get("/metrics").await?;
        ensure!(
            !metrics.contains("slipstream_cache_fetched_bytes_total"),
            "nothing was fetched again"
        );

        // Lost and cut files are fetched again, and queries answer meanwhile.
        for entry in std::fs::read_dir(follower.data_directory().join("cache/hot"))? {
            let path = entry?.path();
            if path.extension().is_some() {
                std::fs::write(path, "garbage")?;
            }
        }
        assert_eq!(
            follower.count("d", "SELECT sum(year) FROM t").await?,
            14_171
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a60_the_newest_stay_when_the_disk_is_too_small() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let mut size = 0;
        for year in 2020..2026 {
            let options = format!("format=csv&create=true&creation_time={year}-01-01T00:00:00Z");
            let receipt = leader
                .ingest("d", "t", &options, format!("year\n{year}\n"))
                .await?;
            size = receipt["size_bytes"].as_u64().context("a size")?;
        }
        // Three extents and a half, in the 95 % that whole extents may take.
        let disk = (size * 7 / 2 * 100 / 95).to_string();
        let address = format!("north={}", leader.grpc_url());
        let options = ["--leader", &address, "--cache-disk-bytes", &disk];
        let mut follower = site.start("follower", "south", "south", &options).await?;
        follower.wait_ready().await?;
        follower.attach(&leader, "d").await?;
        let cache = cache_becomes(&follower, "as much is here as fits", |cache| {
            cache["ResidentExtents"] == 3
        })
        .await?;
        assert_eq!(cache["HotExtents"], 6);
        assert_eq!(cache["ShortfallBytes"], json!(size * 3));
        ensure!(
            cache["CacheUtilizationFactor"].as_f64() > Some(100.0),
            "{cache}"
        );
        let newest = follower
            .command("d", ".show table t extents")
            .await?
            .into_iter()
            .filter(|extent| extent["MaxCreatedOn"].as_str() > Some("2023"));
        for extent in newest {
            let id = extent["ExtentId"].as_str().unwrap_or_default();
            let file = follower
                .data_directory()
                .join("cache/hot")
                .join(format!("{id}.parquet"));
            ensure!(file.exists(), "{extent}");
        }
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 6);
        Ok(())
    })
    .await
}

/// A leader whose `d.t` has an extent of one row for each year, `2020..to`, made in that year.
async fn years(site: &Site, to: i32) -> Result<Node> {
    let leader = site.leader("north").await?;
    leader.create_database("d").await?;
    for year in 2020..to {
        let options = format!("format=csv&create=true&creation_time={year}-01-01T00:00:00Z");
        let rows = format!("year\n{year}\n");
        leader.ingest("d", "t", &options, rows).await?;
    }
    Ok(leader)
}

async fn cached_follower(site: &Site, leader: &Node) -> Result<Node> {
    let follower = follower_with_cache(site, leader, "100MB").await?;
    follower.attach(leader, "d").await?;
    Ok(follower)
}

/// A follower that has nothing attached yet, with so much disk for its cache.
async fn follower_with_cache(site: &Site, leader: &Node, disk_bytes: &str) -> Result<Node> {
    let address = format!("{}={}", leader.cluster(), leader.grpc_url());
    let options = ["--leader", &address, "--cache-disk-bytes", disk_bytes];
    let mut follower = site.start("follower", "south", "south", &options).await?;
    follower.wait_ready().await?;
    Ok(follower)
}

/// What `.show cache` says of a table; null when nothing of it is hot.
async fn cache_of(follower: &Node, table: &str) -> Result<Value> {
    let rows = follower.command("", ".show cache").await?;
    let row = rows.into_iter().find(|row| row["TableName"] == table);
    Ok(row.unwrap_or_default())
}

/// What a query has read from where, by the id that its answer names.
async fn reads_of(node: &Node, query_id: &str) -> Result<Value> {
    let queries = node.command("d", ".show queries").await?;
    let query = queries
        .into_iter()
        .find(|row| row["RootActivityId"] == query_id);
    let mut query = query.with_context(|| format!("no query {query_id} in the log"))?;
    Ok(query["CacheStatistics"].take())
}

/// The ids of a table's extents that were made at a moment or after it; of all when it is "".
async fn extents_since(
    node: &Node,
    database: &str,
    table: &str,
    moment: &str,
) -> Result<BTreeSet<String>> {
    let extents = node
        .command(database, &format!(".show table {table} extents"))
        .await?;
    let extents = extents
        .iter()
        .filter(|extent| extent["MaxCreatedOn"].as_str() >= Some(moment));
    extents
        .map(|extent| Ok(extent["ExtentId"].as_str().context("an id")?.to_owned()))
        .collect()
}

/// The ids of the extents whose files are on the disk.
fn extents_on_disk(follower: &Node) -> Result<BTreeSet<String>> {
    let names = hot_files(follower)?.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?;
        let is_id = name.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        is_id.then(|| name.to_owned())
    });
    Ok(names.collect())
}

/// The files of hot extents.
fn hot_files(follower: &Node) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(follower.data_directory().join("cache/hot"))? {
        let path = entry?.path();
        if path.extension().is_some() {
            files.push(path);
        }
    }
    Ok(files)
}

#[tokio::test]
async fn a58_a_scope_leaves_out_what_is_cold() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2024).await?;
        let follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 4
        })
        .await?;
        let window = "hot = 0d, hot_window = datetime(2022-01-01) .. datetime(2023-12-31)";
        let alter = format!(".alter follower database d policy caching {window}");
        follower.command("d", &alter).await?;
        cache_becomes(&follower, "two years are here", |cache| {
            cache["ResidentExtents"] == 2
        })
        .await?;
        let sum = "SELECT sum(year) FROM t";
        assert_eq!(
            follower.count("d", sum).await?,
            2_020 + 2_021 + 2_022 + 2_023
        );
        let of_request = follower
            .ask("d", sum)
            .with("query_datascope", json!("hotcache"));
        assert_eq!(of_request.send().await?.count()?, 2_022 + 2_023);
        let set = format!("SET query_datascope = 'hotcache'; {sum}");
        assert_eq!(follower.count("d", &set).await?, 2_022 + 2_023);
        // A table's own scope beats what is set.
        let table = "SET query_datascope = 'hotcache'; SELECT sum(year) FROM datascope('t', 'all')";
        assert_eq!(follower.count("d", table).await?, 8_086);
        let wrong = follower
            .ask("d", sum)
            .with("query_datascope", json!("warm"));
        let wrong = wrong.refused().await?;
        ensure!(wrong.message.contains("no data scope"), "{wrong}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c03_a_policy_can_be_tried_before_it_is_set() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2024).await?;
        let follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 4
        })
        .await?;
        follower.sql("d", "SELECT year + 1 FROM t").await?;
        let alter = ".alter follower database d policy caching hot = 0d, \
                     hot_window = datetime(2022-01-01) .. datetime(2022-12-31)";
        let tried = follower
            .command("d", &format!("{alter} with (whatif=true)"))
            .await?;
        let [tried] = tried.as_slice() else {
            anyhow::bail!("one row is expected: {tried:?}");
        };
        assert_eq!(tried["ExtentsToEvict"], 3, "{tried}");
        assert_eq!(
            (&tried["ExtentsToFetch"], &tried["Fits"]),
            (&json!(0), &json!(true))
        );
        assert_eq!(tried["ReplayedQueries"], 1, "{tried}");
        assert_eq!(tried["HitPercentBefore"], json!(100.0), "{tried}");
        let after = tried["HitPercentAfter"].as_f64().context("a share")?;
        ensure!(
            (1.0..50.0).contains(&after),
            "a quarter of what was read: {tried}"
        );
        // Nothing has changed.
        let cache = follower.command("", ".show cache").await?;
        assert_eq!(cache[0]["ResidentExtents"], 4, "{cache:?}");
        follower.command("d", alter).await?;
        cache_becomes(&follower, "one is here", |cache| {
            cache["ResidentExtents"] == 1
        })
        .await?;
        let refused = leader
            .command_refused("d", &format!("{alter} with (whatif=true)"))
            .await?;
        ensure!(refused.message.contains("does not follow"), "{refused}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn b11_a_table_is_warmed_by_command() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2023).await?;
        let follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 3
        })
        .await?;
        for file in hot_files(&follower)? {
            std::fs::write(file, "garbage")?;
        }
        assert_eq!(follower.count("d", "SELECT sum(year) FROM t").await?, 6_063);
        let warmed = follower.command("d", ".warm database d table t").await?;
        assert_eq!(warmed[0]["HotExtents"], 3, "{warmed:?}");
        cache_becomes(&follower, "all are here again", |cache| {
            cache["EncodedExtents"] == 3
        })
        .await?;
        let missing = follower
            .command_refused("d", ".warm database d table u")
            .await?;
        ensure!(missing.message.contains("no table 'u'"), "{missing}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a28_prefetch_hides_a_version_until_its_extents_are_here() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2022).await?;
        let follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["ResidentExtents"] == 2
        })
        .await?;
        follower
            .command("d", ".alter follower database d prefetch-extents = true")
            .await?;
        // With the bucket's extents out of reach a new one cannot come, and so it cannot be seen.
        let folder = site.bucket_directory().join(site.only_database_folder()?);
        let (extents, away) = (folder.join("extents"), folder.join("away"));
        tokio::time::sleep(Duration::from_millis(600)).await;
        let receipt = leader
            .ingest("d", "t", "format=csv", "year\n2030\n")
            .await?;
        let version = receipt["version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 3);
        let cache = follower.command("", ".show cache").await?;
        assert_eq!(
            cache[0]["ResidentExtents"], 3,
            "it was here when it was seen: {cache:?}"
        );

        std::fs::rename(&extents, &away)?;
        std::fs::create_dir(&extents)?;
        // So that it does not fetch the extent before that is taken away.
        follower.signal("-STOP")?;
        let receipt = leader
            .ingest("d", "t", "format=csv", "year\n2031\n")
            .await?;
        for entry in std::fs::read_dir(&extents)? {
            let entry = entry?;
            std::fs::rename(entry.path(), away.join(entry.file_name()))?;
        }
        follower.signal("-CONT")?;
        let version = receipt["version"].as_u64().context("a version")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 3);
        let stale = follower
            .ask("d", "SELECT count(*) FROM t")
            .min_version(version)
            .with("when_stale", json!("fail"));
        ensure!(
            stale.refused().await?.code == "stale",
            "the new version waits"
        );
        std::fs::remove_dir(&extents)?;
        std::fs::rename(&away, &extents)?;
        follower.wait_for_version("d", version).await?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 4);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_bit_flipped_in_the_cache_changes_no_answer() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2024).await?;
        let follower = cached_follower(site, &leader).await?;
        let mut random = SmallRng::seed_from_u64(4);
        for round in 0..6 {
            cache_becomes(&follower, "all are here", |cache| {
                cache["EncodedExtents"] == 4
            })
            .await?;
            let mut files = hot_files(&follower)?;
            files.sort();
            let file = &files[random.random_range(0..files.len())];
            let mut bytes = std::fs::read(file)?;
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            std::fs::write(file, bytes)?;
            let sql = format!("SELECT sum(year + {round}) FROM t");
            assert_eq!(
                follower.count("d", &sql).await?,
                8_086 + 4 * round,
                "byte {at}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_follower_killed_while_it_warms_finds_what_is_whole_and_nothing_else() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let rounds = match std::env::var("SLIPSTREAM_CRASH_ROUNDS") {
            Ok(text) => text.parse().context("SLIPSTREAM_CRASH_ROUNDS")?,
            Err(_) => ROUNDS,
        };
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        for part in 0..40 {
            let rows: String = (0..2_000)
                .map(|n| format!("{}\n", part * 2_000 + n))
                .collect();
            let options = "format=csv&create=true";
            leader
                .ingest("d", "t", options, format!("n\n{rows}"))
                .await?;
        }
        let mut follower = cached_follower(site, &leader).await?;
        let mut random = SmallRng::seed_from_u64(50);
        for round in 0..rounds {
            let moment = Duration::from_millis(random.random_range(0..ROUND_MILLISECONDS_MAX));
            tokio::time::sleep(moment).await;
            follower.kill()?;
            if round % 4 == 3 {
                std::fs::remove_dir_all(follower.data_directory().join("cache"))?;
            }
            follower.restart().await?;
            follower.wait_ready().await?;
            let sum = follower.count("d", "SELECT sum(n + 0) FROM t").await?;
            assert_eq!(sum, 79_999 * 40_000, "round {round}");
        }
        cache_becomes(&follower, "everything is here in the end", |cache| {
            cache["EncodedExtents"] == 40
        })
        .await?;
        assert_eq!(hot_files(&follower)?.len(), 40);
        eprintln!("killed {rounds} times while it warmed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cache_that_is_another_nodes_is_refused_by_name() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2021).await?;
        let mut follower = cached_follower(site, &leader).await?;
        follower.terminate().await?;
        let address = format!("{}={}", leader.cluster(), leader.grpc_url());
        let options = ["--leader", &address, "--cache-disk-bytes", "100MB"];
        let other = site.start("follower", "east", "south", &options).await;
        let error = format!("{:#}", other.err().context("it must not start")?);
        ensure!(error.contains("is the cache of cluster 'south'"), "{error}");
        Ok(())
    })
    .await
}
