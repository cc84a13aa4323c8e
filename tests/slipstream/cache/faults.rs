//! A cache whose disk, directory or bucket is not as it should be.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::{
    cache_becomes, cache_of, cached_follower, extents_on_disk, extents_since, follower_with_cache,
    hot_files, reads_of, years,
};
use crate::cluster::{Disk, Node, Site, Store, eventually, write_stream};

/// Size of a disk, and of the file that takes most of it.
const DISK_MEBIBYTES: usize = 8;
const FILLER_MEBIBYTES: usize = 6;
/// Extents of random numbers, and numbers in each. Together they take more than that leaves, and
/// less than the disk.
const EXTENTS: u64 = 5;
const NUMBERS: usize = 80_000;

#[tokio::test]
async fn a_cache_directory_that_is_none_is_named_at_the_start() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2021).await?;
        let address = format!("north={}", leader.grpc_url());
        let options = ["--leader", &address, "--cache-disk-bytes", "100MB"];
        for place in ["cache", "cache/hot", "cache/cold"] {
            let directory = format!("south-{}", place.replace('/', "-"));
            let path = site.path().join(&directory).join(place);
            std::fs::create_dir_all(path.parent().context("it stands in a directory")?)?;
            std::fs::write(&path, "somebody's")?;
            let started = site.start("follower", "south", &directory, &options).await;
            let error = format!("{:#}", started.err().context("it must not start")?);
            for words in [
                "exit status: 1",
                "cannot use the cache's directory",
                &path.display().to_string(),
            ] {
                ensure!(error.contains(words), "{place}, {words}: {error}");
            }
            assert_eq!(std::fs::read_to_string(&path)?, "somebody's", "{place}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named_at_the_start_and_used_when_it_can() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2022).await?;
        let mut follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 2
        })
        .await?;
        ensure!(follower.terminate().await?.success());
        let directory = follower.data_directory().join("cache");
        let Some(read_only) = Disk::read_only(&directory)? else {
            return Ok(());
        };
        let error = follower.restart().await.err();
        let error = format!("{:#}", error.context("it must not start")?);
        for words in [
            "exit status: 1",
            "cannot use the cache's directory",
            &directory.display().to_string(),
            "Read-only file system",
        ] {
            ensure!(error.contains(words), "{words}: {error}");
        }
        drop(read_only);
        follower.restart().await?;
        follower.wait_ready().await?;
        let cache = cache_becomes(&follower, "all are found again", |cache| {
            cache["EncodedExtents"] == 2
        })
        .await?;
        assert_eq!(cache["FetchedBytes"], 0, "{cache}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cache_that_turns_read_only_leaves_queries_to_the_bucket() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2022).await?;
        let mut follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 2
        })
        .await?;
        let directory = follower.data_directory().join("cache/hot");
        let Some(read_only) = Disk::read_only(&directory)? else {
            return Ok(());
        };
        let receipt = leader
            .ingest("d", "t", "format=csv", "year\n2030\n")
            .await?;
        let version = receipt["version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        let cache = cache_becomes(&follower, "the new one could not be kept", |cache| {
            cache["Failures"].as_u64() > Some(0)
        })
        .await?;
        assert_eq!(cache["HotExtents"], 3, "{cache}");
        assert_eq!(cache["ResidentExtents"], 2, "{cache}");
        ensure!(follower.log().contains("Read-only file system"));

        let sum = follower.sql("d", "SELECT sum(year + 0) FROM t").await?;
        assert_eq!(sum.count()?, 2_020 + 2_021 + 2_030);
        let reads = reads_of(&follower, sum.header("slipstream-query-id")?).await?;
        ensure!(bytes(&reads, "Hot", "HitBytes") > Some(0), "{reads}");
        ensure!(bytes(&reads, "Hot", "MissBytes") > Some(0), "{reads}");
        follower.ensure_alive()?;

        drop(read_only);
        cache_becomes(&follower, "the new one is here", |cache| {
            cache["ResidentExtents"] == 3
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_disk_that_fills_while_it_warms_leaves_queries_to_the_bucket_and_heals() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let directory = site.path().join("south/cache");
        std::fs::create_dir_all(&directory)?;
        let Some(_disk) = Disk::small(&directory, DISK_MEBIBYTES)? else {
            return Ok(());
        };
        let filler = directory.join("filler");
        std::fs::write(&filler, vec![0; FILLER_MEBIBYTES << 20])?;
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let mut expected = 0;
        for number in 0..EXTENTS {
            let (rows, even) = random_numbers(number)?;
            leader
                .ingest("d", "t", "format=arrow&create=true", rows)
                .await?;
            expected += even;
        }
        let even = "SELECT count(*) FROM t WHERE n % 2 = 0";
        // By its budget everything fits.
        let mut follower = follower_with_cache(site, &leader, "30MB").await?;
        follower.attach(&leader, "d").await?;
        let cache = cache_becomes(&follower, "the disk is full", |cache| {
            cache["Failures"].as_u64() > Some(0) && cache["WaitingExtents"] == 0
        })
        .await?;
        assert_eq!(cache["HotExtents"], EXTENTS, "{cache}");
        assert_eq!(cache["ShortfallBytes"], 0, "{cache}");
        let number = |column: &str| cache[column].as_u64();
        ensure!(number("ResidentExtents") < Some(EXTENTS), "{cache}");
        ensure!(number("ResidentBytes") < number("HotBytes"), "{cache}");
        ensure!(follower.log().contains("No space left on device"));
        let counted = follower.sql("d", even).await?;
        assert_eq!(counted.count()?, expected);
        let reads = reads_of(&follower, counted.header("slipstream-query-id")?).await?;
        ensure!(bytes(&reads, "Hot", "MissBytes") > Some(0), "{reads}");
        follower.ensure_alive()?;

        std::fs::remove_file(&filler)?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["ResidentExtents"] == EXTENTS
        })
        .await?;
        // An extent that takes another form while it is scanned is asked for once more.
        eventually("the bucket is asked for nothing more", async || {
            let counted = follower.sql("d", even).await?;
            assert_eq!(counted.count()?, expected);
            let reads = reads_of(&follower, counted.header("slipstream-query-id")?).await?;
            Ok(reads["Requests"] == 0)
        })
        .await?;
        ensure!(follower.terminate().await?.success(), "it stops in peace");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn files_of_a_detached_database_go_and_files_of_others_stay() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2022).await?;
        leader.create_database("e").await?;
        for year in [2023, 2024] {
            let rows = format!("year\n{year}\n");
            leader
                .ingest("e", "t", "format=csv&create=true", rows)
                .await?;
        }
        let mut follower = cached_follower(site, &leader).await?;
        follower.attach(&leader, "e").await?;
        cache_becomes(&follower, "all are here", |cache| {
            cache["EncodedExtents"] == 4
        })
        .await?;
        let others = Others::leave(&follower)?;
        let of_e = extents_since(&follower, "e", "t", "").await?;
        assert_eq!((extents_on_disk(&follower)?.len(), of_e.len()), (4, 2));
        let mut of_d = Vec::new();
        for path in hot_files(&follower)? {
            let name = path.file_stem().context("a name")?.to_string_lossy();
            if !of_e.contains(&*name) && !others.0.contains(&path) {
                of_d.push((path.clone(), std::fs::read(&path)?));
            }
        }
        assert_eq!(of_d.len(), 2);

        follower.detach("d").await?;
        eventually("the files of the detached database go", async || {
            Ok(extents_on_disk(&follower)? == of_e)
        })
        .await?;
        let rows = follower.command("", ".show cache").await?;
        ensure!(
            rows.iter().all(|row| row["DatabaseName"] != "d"),
            "{rows:?}"
        );
        assert_eq!(rows[0]["HotExtents"], 2);
        others.are_untouched()?;

        // As after a crash between the detach and the last of its files.
        ensure!(follower.terminate().await?.success());
        for (path, bytes) in of_d {
            std::fs::write(path, bytes)?;
        }
        assert_eq!(extents_on_disk(&follower)?.len(), 4);
        follower.restart().await?;
        follower.wait_ready().await?;
        eventually("they go at the next start", async || {
            Ok(extents_on_disk(&follower)? == of_e)
        })
        .await?;
        others.are_untouched()?;
        let cache = cache_becomes(&follower, "the others are found", |cache| {
            cache["ResidentExtents"] == 2
        })
        .await?;
        assert_eq!(cache["FetchedBytes"], 0, "{cache}");
        assert_eq!(
            follower.count("e", "SELECT sum(year + 0) FROM t").await?,
            2_023 + 2_024
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_object_that_is_gone_or_another_stays_out_and_keeps_no_other_out() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let rows: String = (0..500).map(|n| format!("{n}\n")).collect();
        let mut wholes = Vec::new();
        for table in ["gone", "other", "whole"] {
            leader
                .ingest("d", table, "format=csv&create=true", format!("n\n{rows}"))
                .await?;
            let object = object_of(site, &leader, table).await?;
            let bytes = std::fs::read(&object)?;
            wholes.push((table, object, bytes));
        }
        std::fs::remove_file(&wholes[0].1)?;
        std::fs::write(&wholes[1].1, vec![b'x'; wholes[1].2.len()])?;

        let mut follower = cached_follower(site, &leader).await?;
        cache_becomes(&follower, "what is whole is here", |cache| {
            cache["ResidentExtents"] == 1 && cache["Failures"].as_u64() >= Some(2)
        })
        .await?;
        for (table, _, _) in &wholes {
            let shown = cache_of(&follower, table).await?;
            assert_eq!(shown["HotExtents"], 1, "{shown}");
            let here = u64::from(*table == "whole");
            assert_eq!(shown["ResidentExtents"], here, "{shown}");
        }
        let of_whole = extents_since(&leader, "d", "whole", "").await?;
        assert_eq!(extents_on_disk(&follower)?, of_whole);
        let log = follower.log();
        ensure!(log.contains("does not have the content that the catalog says"));

        // A follower cannot know whether its leader has deleted what is missing.
        let codes = ["version_not_kept", "corrupt_data"];
        for ((table, object, _), code) in wholes[..2].iter().zip(codes) {
            let sum = format!("SELECT sum(n + 0) FROM {table}");
            let refused = follower.refused("d", &sum).await?;
            assert_eq!(refused.code, code, "{table}: {refused}");
            let id = object.file_stem().context("a name")?.to_string_lossy();
            ensure!(refused.message.contains(&*id), "{table}: {refused}");
        }
        // What comes later is not kept waiting by what does not come.
        leader
            .ingest("d", "whole", "format=csv", "n\n500\n")
            .await?;
        cache_becomes(&follower, "the new one is here", |cache| {
            cache["ResidentExtents"] == 2
        })
        .await?;
        let sum = "SELECT sum(n + 0) FROM whole";
        assert_eq!(follower.count("d", sum).await?, 500 * 501 / 2);
        follower.ensure_alive()?;

        for (_, object, bytes) in &wholes[..2] {
            std::fs::write(object, bytes)?;
        }
        cache_becomes(&follower, "all are here in the end", |cache| {
            cache["EncodedExtents"] == 4
        })
        .await?;
        for table in ["gone", "other"] {
            let sum = format!("SELECT sum(n + 0) FROM {table}");
            assert_eq!(follower.count("d", &sum).await?, 499 * 500 / 2, "{table}");
        }
        Ok(())
    })
    .await
}

/// Bytes by the statistics of a query.
fn bytes(reads: &Value, shard: &str, what: &str) -> Option<u64> {
    reads["Shards"][shard][what].as_u64()
}

/// Numbers as an Arrow stream, and how many of them are even.
fn random_numbers(seed: u64) -> Result<(Bytes, i64)> {
    let mut random = SmallRng::seed_from_u64(seed);
    let numbers: Vec<i64> = (0..NUMBERS).map(|_| random.random()).collect();
    let even = numbers.iter().filter(|number| *number % 2 == 0).count();
    let column = Arc::new(Int64Array::from(numbers)) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("n", column)])?;
    Ok((write_stream(&[batch])?, i64::try_from(even)?))
}

/// The object of a table's only extent in the bucket.
async fn object_of(site: &Site, leader: &Node, table: &str) -> Result<PathBuf> {
    let ids = extents_since(leader, "d", table, "").await?;
    let id = ids.first().context("an extent")?;
    let folder = site.bucket_directory().join(site.only_database_folder()?);
    Ok(folder.join("extents").join(format!("{id}.parquet")))
}

/// Files of somebody else in the cache's directories; each holds its own path.
struct Others(Vec<PathBuf>);

impl Others {
    fn leave(follower: &Node) -> Result<Self> {
        let cache = follower.data_directory().join("cache");
        let names = [
            "notes.txt",
            "hot/notes.txt",
            "hot/flights.parquet",
            "hot/flights.vortex.bak",
            "cold/notes.txt",
        ];
        let paths = names.map(|name| cache.join(name));
        for path in &paths {
            std::fs::write(path, path.display().to_string())?;
        }
        Ok(Self(paths.into()))
    }

    fn are_untouched(&self) -> Result<()> {
        for path in &self.0 {
            let found = std::fs::read_to_string(path);
            let found = found.with_context(|| path.display().to_string())?;
            assert_eq!(found, path.display().to_string());
        }
        Ok(())
    }
}
