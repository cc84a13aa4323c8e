//! What queries read from the bucket, in blocks, the most useful within a share of the disk.
//!
//! Blocks have nothing to do with whole hot extents: a scan of cold data turns over this cache and
//! nothing else. Two queries that want a block at one time make one request for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, PsyncIoEngineConfig,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, Result};
use parking_lot::{Mutex, RwLock};
use slipstream_model::ExtentId;
use tokio::time::timeout;

use crate::ranges::requests;

/// Bytes of a block. A range costs up to two of them on top, so they are small beside a column of a
/// row group; and large enough that a disk reads one in the time that it needs to find it.
const BLOCK_BYTES: u64 = 32 << 10;
/// Requests of one read that are under way at one time.
const REQUESTS: usize = 16;
/// Blocks of one read that are looked up at one time.
const LOOKUPS: usize = 64;
/// foyer writes to the disk in units of this; a small cache has few of them.
const DISK_UNIT_BYTES: u64 = 16 << 20;
/// Below this there is no room for even a few units, and blocks are kept in memory only.
const DISK_BYTES_MIN: u64 = 1 << 20;
/// How long the last blocks may take to get to the disk when a node stops. They are some megabytes; a
/// disk that was full leaves foyer's flusher waiting for ever.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A block of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct BlockKey {
    extent: u128,
    number: u64,
}

impl Code for BlockKey {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        self.extent.encode(writer)?;
        self.number.encode(writer)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        Ok(Self {
            extent: u128::decode(reader)?,
            number: u64::decode(reader)?,
        })
    }

    fn estimated_size(&self) -> usize {
        size_of::<u128>() + size_of::<u64>()
    }
}

/// Where the bytes of a read came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Bytes that were asked for and stood on the local disk or in memory.
    pub cached_bytes: u64,
    /// Bytes that came from the bucket, those between wanted ones included.
    pub bucket_bytes: u64,
    /// Requests to the bucket.
    pub requests: u64,
}

/// Blocks that one request brings, for everybody who waits for one of them.
type Flight =
    Shared<BoxFuture<'static, std::result::Result<Arc<Vec<(BlockKey, Bytes)>>, Arc<Error>>>>;

/// Cold blocks, in memory and on the disk.
#[derive(Clone)]
pub struct ColdCache {
    blocks: HybridCache<BlockKey, Bytes>,
    in_flight: Arc<Mutex<HashMap<BlockKey, Flight>>>,
    /// How often an extent was forgotten. What is removed from the disk may be found there for a
    /// while, so its blocks get other keys.
    forgotten: Arc<RwLock<HashMap<ExtentId, u128>>>,
    disk_bytes: u64,
}

impl fmt::Debug for ColdCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdCache")
            .field("disk_bytes", &self.disk_bytes)
            .finish_non_exhaustive()
    }
}

/// An object that ranges are read of.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    pub(crate) store: &'a Arc<dyn ObjectStore>,
    pub(crate) location: &'a Path,
    pub(crate) extent: ExtentId,
    /// Its length, when it is known: the last block ends there.
    pub(crate) size_bytes: Option<u64>,
}

impl ColdCache {
    /// Opens the cache in a directory of its own. What an earlier process left there is used.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(
        directory: &FilePath,
        disk_bytes: u64,
        memory_bytes: usize,
    ) -> std::result::Result<Self, foyer::Error> {
        let memory = HybridCacheBuilder::new()
            .with_name("cold")
            // What was read is on the disk at once, not only when memory is full.
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(memory_bytes)
            .with_weighter(|_: &BlockKey, block: &Bytes| block.len())
            .storage();
        let has_disk = disk_bytes >= DISK_BYTES_MIN;
        let blocks = if has_disk {
            let unit = DISK_UNIT_BYTES.min(disk_bytes / 16);
            let capacity = usize::try_from(disk_bytes).unwrap_or(usize::MAX);
            let device = FsDeviceBuilder::new(directory)
                .with_capacity(capacity)
                .build()?;
            let engine = BlockEngineConfig::new(device)
                .with_block_size(usize::try_from(unit).unwrap_or(usize::MAX));
            memory
                .with_io_engine_config(PsyncIoEngineConfig::new())
                .with_engine_config(engine)
                .build()
                .await?
        } else {
            memory.build().await?
        };
        Ok(Self {
            blocks,
            in_flight: Arc::default(),
            forgotten: Arc::default(),
            disk_bytes: if has_disk { disk_bytes } else { 0 },
        })
    }

    /// Bytes of the disk that it may take.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Brings to the disk what is not there yet. Without it the latest blocks are lost.
    pub async fn close(&self) {
        match timeout(CLOSE_PATIENCE, self.blocks.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cache of cold blocks could not be closed");
            }
            Err(_) => tracing::warn!(
                "the disk does not take the last cold blocks: they are fetched again when they are read"
            ),
        }
    }

    /// Forgets the blocks of an extent of `size_bytes`.
    pub(crate) fn forget(&self, id: ExtentId, size_bytes: u64) {
        let extent = self.key_of(id);
        *self.forgotten.write().entry(id).or_default() += 1;
        for number in 0..size_bytes.div_ceil(BLOCK_BYTES) {
            self.blocks.remove(&BlockKey { extent, number });
        }
    }

    fn key_of(&self, extent: ExtentId) -> u128 {
        let times = self.forgotten.read().get(&extent).copied();
        extent.as_uuid().as_u128() ^ times.unwrap_or(0)
    }

    /// Reads ranges of an object, from here as far as they are here.
    pub(crate) async fn read(
        &self,
        object: &Object<'_>,
        ranges: &[Range<u64>],
    ) -> Result<(Vec<Bytes>, Origin)> {
        let wanted: BTreeSet<u64> = ranges
            .iter()
            .filter(|range| range.start < range.end)
            .flat_map(|range| range.start / BLOCK_BYTES..=(range.end - 1) / BLOCK_BYTES)
            .collect();
        let mut found = self.look_up(object, &wanted).await;
        let missing = wanted.iter().filter(|number| !found.contains_key(number));
        let missing: Vec<u64> = missing.copied().collect();
        let mut origin = Origin::default();
        self.fetch(object, &missing, &mut found, &mut origin)
            .await?;
        let pieces = ranges.iter().map(|range| piece(&found, range));
        let pieces: Vec<Bytes> = pieces.collect();
        let fetched: BTreeSet<u64> = missing.into_iter().collect();
        let cached = ranges.iter().map(|range| cached_bytes(range, &fetched));
        origin.cached_bytes = cached.sum();
        Ok((pieces, origin))
    }

    async fn look_up(&self, object: &Object<'_>, wanted: &BTreeSet<u64>) -> BTreeMap<u64, Bytes> {
        let extent = self.key_of(object.extent);
        let keys = wanted
            .iter()
            .copied()
            .map(|number| BlockKey { extent, number });
        let keys: Vec<BlockKey> = keys.collect();
        let lookups = keys
            .into_iter()
            .map(|key| async move { (key.number, self.blocks.get(&key).await) });
        let looked_up = stream::iter(lookups).buffer_unordered(LOOKUPS);
        let found = looked_up.filter_map(|(number, found)| {
            let block = found.unwrap_or_else(|error| {
                // A block that cannot be read back is a block that is not here.
                tracing::debug!(%error, "a cold block cannot be read");
                None
            });
            std::future::ready(block.map(|block| (number, block.value().clone())))
        });
        found.collect().await
    }

    /// Fetches blocks, each by one request however many ask for it.
    async fn fetch(
        &self,
        object: &Object<'_>,
        missing: &[u64],
        found: &mut BTreeMap<u64, Bytes>,
        origin: &mut Origin,
    ) -> Result<()> {
        let extent = self.key_of(object.extent);
        let end = object.size_bytes.unwrap_or(u64::MAX);
        let mut flights: Vec<Flight> = Vec::new();
        {
            let mut in_flight = self.in_flight.lock();
            let mut own = Vec::new();
            for number in missing {
                let key = BlockKey {
                    extent,
                    number: *number,
                };
                // What landed since it was looked up is in memory by now.
                if let Some(landed) = self.blocks.memory().get(&key) {
                    found.insert(*number, landed.value().clone());
                } else if let Some(flight) = in_flight.get(&key) {
                    flights.push(flight.clone());
                } else {
                    own.push(block_range(*number, end));
                }
            }
            for request in requests(&merge(own)) {
                origin.requests += 1;
                origin.bucket_bytes += request.end - request.start;
                let flight = self.flight(object, extent, request.clone());
                for number in request.start / BLOCK_BYTES..=(request.end - 1) / BLOCK_BYTES {
                    in_flight.insert(BlockKey { extent, number }, flight.clone());
                }
                flights.push(flight);
            }
        }
        let mut landed = stream::iter(flights).buffer_unordered(REQUESTS);
        while let Some(blocks) = landed.next().await {
            let blocks = blocks.map_err(shared_error)?;
            for (key, block) in blocks.iter() {
                found.insert(key.number, block.clone());
            }
        }
        Ok(())
    }

    fn flight(&self, object: &Object<'_>, extent: u128, request: Range<u64>) -> Flight {
        let (store, location) = (Arc::clone(object.store), object.location.clone());
        let (cache, in_flight) = (self.blocks.clone(), Arc::clone(&self.in_flight));
        let first = request.start / BLOCK_BYTES;
        let fetch = async move {
            // Made here: a task that is dropped before it runs must not take the lock that is held
            // while it is started.
            let _landing = Landing {
                in_flight,
                keys: (first..=(request.end - 1) / BLOCK_BYTES)
                    .map(|number| BlockKey { extent, number })
                    .collect(),
            };
            let options = object_store::GetOptions {
                range: Some(request.clone().into()),
                ..Default::default()
            };
            let bytes = store.get_opts(&location, options).await.map_err(Arc::new)?;
            let bytes = bytes.bytes().await.map_err(Arc::new)?;
            // Some stores answer a range beyond the end with what there is.
            let blocks = (first..).zip(split(&bytes)).map(|(number, block)| {
                let key = BlockKey { extent, number };
                cache.insert(key, block.clone());
                (key, block)
            });
            Ok(Arc::new(blocks.collect()))
        };
        // A task of its own: it ends, though everybody who waited has gone away.
        let task = tokio::spawn(fetch);
        let flight = async move {
            let lost = |error: tokio::task::JoinError| Arc::new(generic(error.into()));
            task.await.map_err(lost)?
        };
        flight.boxed().shared()
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic {
        store: "bucket",
        source,
    }
}

/// Takes a request's blocks off the list when it has ended.
struct Landing {
    in_flight: Arc<Mutex<HashMap<BlockKey, Flight>>>,
    keys: Vec<BlockKey>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock();
        let gone: Vec<_> = self.keys.iter().map(|key| in_flight.remove(key)).collect();
        drop(in_flight);
        drop(gone);
    }
}

/// The blocks of a response, each in memory of its own: one that stays must not keep the others.
fn split(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    bytes
        .chunks(BLOCK_BYTES as usize)
        .map(Bytes::copy_from_slice)
}

fn block_range(number: u64, end: u64) -> Range<u64> {
    let start = number * BLOCK_BYTES;
    start..(start + BLOCK_BYTES).min(end.max(start + 1))
}

/// Neighbours as one range.
fn merge(blocks: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match merged.last_mut() {
            Some(last) if last.end == block.start => last.end = block.end,
            _ => merged.push(block),
        }
    }
    merged
}

/// A range put together from blocks. Short when the object is.
fn piece(blocks: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Bytes {
    let numbers = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
    let mut parts = numbers.filter_map(|number| {
        let block = blocks.get(&number)?;
        let start = number * BLOCK_BYTES;
        let from = range.start.saturating_sub(start) as usize;
        let to = ((range.end - start) as usize).min(block.len());
        (from < to).then(|| block.slice(from..to))
    });
    let (Some(first), second) = (parts.next(), parts.next()) else {
        return Bytes::new();
    };
    let Some(second) = second else {
        return first;
    };
    let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
    [first, second]
        .into_iter()
        .chain(parts)
        .for_each(|part| whole.extend_from_slice(&part));
    whole.freeze()
}

/// Bytes of a range that stand in blocks that were not fetched.
fn cached_bytes(range: &Range<u64>, fetched: &BTreeSet<u64>) -> u64 {
    let numbers = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
    let here = numbers.filter(|number| !fetched.contains(number));
    here.map(|number| {
        let block = block_range(number, u64::MAX);
        block.end.min(range.end) - block.start.max(range.start)
    })
    .sum()
}

/// One failure told to several: each gets its own error of the same kind.
fn shared_error(error: Arc<Error>) -> Error {
    match &*error {
        Error::NotFound { path, .. } => Error::NotFound {
            path: path.clone(),
            source: Box::new(error),
        },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied {
            path: path.clone(),
            source: Box::new(error),
        },
        _ => generic(Box::new(error)),
    }
}

/// Reads ranges straight from the bucket, with the requests that are worth it.
pub(crate) async fn read_uncached(
    object: &Object<'_>,
    ranges: &[Range<u64>],
) -> Result<(Vec<Bytes>, Origin)> {
    let mut wanted: Vec<Range<u64>> = ranges.to_vec();
    wanted.retain(|range| range.start < range.end);
    wanted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<u64>> = Vec::new();
    for range in wanted {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    let requests = requests(&apart);
    let origin = Origin {
        cached_bytes: 0,
        bucket_bytes: requests.iter().map(|r| r.end - r.start).sum(),
        requests: requests.len() as u64,
    };
    let fetches = requests.into_iter().map(|request| async move {
        let options = object_store::GetOptions {
            range: Some(request.clone().into()),
            ..Default::default()
        };
        let answer = object.store.get_opts(object.location, options).await?;
        Ok::<_, Error>((request.start, answer.bytes().await?))
    });
    let fetched: BTreeMap<u64, Bytes> = stream::iter(fetches)
        .buffer_unordered(REQUESTS)
        .try_collect()
        .await?;
    let pieces = ranges.iter().map(|range| cut_out(&fetched, range));
    Ok((pieces.collect(), origin))
}

/// A range out of pieces that stand by their beginnings. Short when the object is.
fn cut_out(fetched: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Bytes {
    let before = fetched.range(..=range.start).next_back();
    let after = fetched.range(range.start + 1..range.end.max(range.start + 1));
    let mut whole = BytesMut::new();
    let parts = before.into_iter().chain(after);
    let mut parts = parts.filter_map(|(start, bytes)| {
        let from = range.start.saturating_sub(*start) as usize;
        let to = (range.end.saturating_sub(*start) as usize).min(bytes.len());
        (from < to).then(|| bytes.slice(from..to))
    });
    let Some(first) = parts.next() else {
        return Bytes::new();
    };
    let Some(second) = parts.next() else {
        return first;
    };
    for part in [first, second].into_iter().chain(parts) {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests;
