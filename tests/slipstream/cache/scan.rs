//! What a scan of cold data does to what is hot: nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::{cache_becomes, hot_files, reads_of};
use crate::cluster::{Node, Site, Store, eventually, write_stream};

/// The cache's disk: about the smallest one whose share for cold blocks is kept on the disk at all.
const CACHE_BYTES: u64 = 22_000_000;
/// That share: five in a hundred.
const COLD_BYTES: u64 = CACHE_BYTES - CACHE_BYTES / 100 * 95;
/// The cache's memory: less than a scan turns over.
const MEMORY_BYTES: &str = "8MB";
/// Rows of one cold extent, and characters of each: several megabytes.
const ROWS: usize = 8_192;
const CHARACTERS: usize = 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn a59_b10_a_cold_scan_of_ten_times_the_cache_leaves_the_hot_set_as_it_is() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let hot: String = (0..2_000).map(|n| format!("{n}\n")).collect();
        for _ in 0..3 {
            let options = "format=csv&create=true";
            leader
                .ingest("d", "hot", options, format!("n\n{hot}"))
                .await?;
        }
        let cold_extents = fill(&leader).await?;
        let follower = small_follower(site, &leader).await?;
        let cache = cache_becomes(&follower, "the hot set is here", |cache| {
            cache["EncodedExtents"] == 3
        })
        .await?;
        assert_eq!(cache["HotExtents"], 3, "the scanned table is cold: {cache}");
        assert_eq!(cache["ColdDiskBytes"], COLD_BYTES);
        let (files, residency) = (hot_set(&follower)?, residency(&cache));

        let client = (*follower).clone();
        // Not to be answered from statistics: every row has to be read.
        let scan = "SELECT count(*) FROM cold WHERE word <> ''";
        let scan = tokio::spawn(async move { client.sql("d", scan).await });
        while !scan.is_finished() {
            residency.is_still_that_of(&follower).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let scanned = scan.await??;
        assert_eq!(scanned.count()?, i64::try_from(cold_extents * ROWS)?);
        let reads = reads_of(&follower, scanned.header("slipstream-query-id")?).await?;
        let missed = reads["Shards"]["Cold"]["MissBytes"].as_u64();
        ensure!(missed >= Some(10 * CACHE_BYTES), "ten times: {reads}");

        residency.is_still_that_of(&follower).await?;
        ensure!(
            hot_set(&follower)? == files,
            "files of the hot set were written again or changed"
        );
        let sum = follower.sql("d", "SELECT sum(n + 0) FROM hot").await?;
        assert_eq!(sum.count()?, 3 * 1_999 * 1_000);
        let reads = reads_of(&follower, sum.header("slipstream-query-id")?).await?;
        assert_eq!(reads["Requests"], 0, "{reads}");
        assert_eq!(reads["Shards"]["Hot"]["MissBytes"], 0, "{reads}");

        let cold = follower.data_directory().join("cache/cold");
        eventually("the scan has left blocks on the disk", async || {
            Ok(sizes(&cold)?.allocated > 0)
        })
        .await?;
        let found = sizes(&cold)?;
        ensure!(found.length <= COLD_BYTES, "{found:?} of {COLD_BYTES}");
        ensure!(found.allocated <= COLD_BYTES, "{found:?} of {COLD_BYTES}");
        Ok(())
    })
    .await
}

/// Makes a table that is cold by the leader's own policy and has more than ten times the bytes of
/// the cache. Gives its extents.
async fn fill(leader: &Node) -> Result<usize> {
    leader.sql("d", "CREATE TABLE cold (word VARCHAR)").await?;
    leader
        .command("d", ".alter table cold policy caching hot = 0d")
        .await?;
    let rows = incompressible()?;
    let (mut extents, mut bytes) = (0, 0);
    // One more, since a scan leaves out some bytes of a file: marks, and parts of its footer.
    while bytes < 11 * CACHE_BYTES {
        let receipt = leader
            .ingest("d", "cold", "format=arrow", rows.clone())
            .await?;
        let written = receipt["size_bytes"].as_u64().context("a size")?;
        ensure!(written > 0, "{receipt}");
        bytes += written;
        extents += 1;
    }
    Ok(extents)
}

/// Rows that no encoding makes much smaller, as an Arrow stream.
fn incompressible() -> Result<Bytes> {
    let mut random = SmallRng::seed_from_u64(59);
    let mut word = |_: usize| -> String {
        let letters = (0..CHARACTERS).map(|_| char::from(b'0' + random.random_range(0..64_u8)));
        letters.collect()
    };
    let words = StringArray::from_iter_values((0..ROWS).map(&mut word));
    let batch = RecordBatch::try_from_iter([("word", Arc::new(words) as ArrayRef)])?;
    write_stream(&[batch])
}

async fn small_follower(site: &Site, leader: &Node) -> Result<Node> {
    let address = format!("{}={}", leader.cluster(), leader.grpc_url());
    let disk = CACHE_BYTES.to_string();
    let options = [
        "--leader",
        &address,
        "--cache-disk-bytes",
        &disk,
        "--cache-memory-bytes",
        MEMORY_BYTES,
    ];
    let mut follower = site.start("follower", "south", "south", &options).await?;
    follower.wait_ready().await?;
    follower.attach(leader, "d").await?;
    Ok(follower)
}

/// The files of hot extents: when each was written, and its bytes. A file that was evicted and
/// fetched again has the same bytes, and another time.
fn hot_set(follower: &Node) -> Result<BTreeMap<PathBuf, (SystemTime, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    for path in hot_files(follower)? {
        let written = std::fs::metadata(&path)?.modified()?;
        let bytes = std::fs::read(&path)?;
        files.insert(path, (written, bytes));
    }
    Ok(files)
}

/// What `.show cache` says of the hot set.
#[derive(Debug, PartialEq)]
struct Residency(Vec<(&'static str, Value)>);

fn residency(cache: &Value) -> Residency {
    let columns = [
        "HotExtents",
        "HotBytes",
        "ResidentExtents",
        "ResidentBytes",
        "EncodedExtents",
        "ShortfallBytes",
        "FetchedBytes",
    ];
    Residency(columns.map(|column| (column, cache[column].clone())).into())
}

impl Residency {
    async fn is_still_that_of(&self, follower: &Node) -> Result<()> {
        let rows = follower.command("", ".show cache").await?;
        let now = residency(rows.first().context("a row for the node")?);
        ensure!(now == *self, "{self:?} has become {now:?}");
        Ok(())
    }
}

/// Bytes of the files of a directory: as long as they are, and as much as they take.
#[derive(Debug, Default)]
struct Sizes {
    length: u64,
    allocated: u64,
}

fn sizes(directory: &Path) -> Result<Sizes> {
    let mut sizes = Sizes::default();
    for entry in std::fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        sizes.length += metadata.len();
        sizes.allocated += metadata.blocks() * 512;
    }
    Ok(sizes)
}
