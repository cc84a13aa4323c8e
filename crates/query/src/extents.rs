//! The cache seam: where extents are read from, and what stands nearer than the bucket.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, Result};
use slipstream_model::{DatabaseId, ExtentId};
use slipstream_storage::BucketPace;
use vortex::io::VortexReadAt;

/// What a node gives its queries to read extents from.
///
/// A path names an extent, in whatever way the node likes. Extents are asked for by ranges only,
/// never listed.
#[async_trait]
pub trait ExtentAccess: fmt::Debug + Send + Sync {
    /// The path of an extent.
    fn path(&self, database: DatabaseId, extent: ExtentId) -> Path;

    /// The store that has all extents, as Parquet, under their paths.
    fn store(&self) -> &Arc<dyn ObjectStore>;

    /// Reads ranges of an extent of `size_bytes`, and says where they came from.
    ///
    /// # Errors
    /// When the store fails.
    async fn read(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
        size_bytes: u64,
    ) -> Result<(Vec<Bytes>, ReadOrigin)> {
        let _ = size_bytes;
        let pieces = self.store().get_ranges(path, ranges).await?;
        let origin = ReadOrigin {
            cached_bytes: 0,
            bucket_bytes: ranges.iter().map(|range| range.end - range.start).sum(),
            requests: 1,
        };
        Ok((pieces, origin))
    }

    /// Where an extent's bytes would come from now.
    fn residency(&self, _path: &Path) -> Residency {
        Residency::Cold
    }

    /// Whether extents may stand on the local disk in another form than Parquet.
    fn has_local_forms(&self) -> bool {
        false
    }

    /// Whether [`open_local`](Self::open_local) would give something now.
    fn is_local(&self, _path: &Path) -> bool {
        false
    }

    /// Opens the local form of an extent. It can be read to its end, whatever becomes of the cache.
    fn open_local(&self, _path: &Path) -> Option<LocalExtent> {
        None
    }

    /// Keeps nothing that was read of an extent of `size_bytes`: some of it made no sense, and must not
    /// be served when the bucket has it right.
    fn forget(&self, _path: &Path, _size_bytes: u64) {}

    /// Bytes of an extent's local form that are in memory now.
    fn memory_bytes(&self, _path: &Path) -> u64 {
        0
    }

    /// How fast reads were lately.
    fn pace(&self) -> ReadPace {
        ReadPace::default()
    }
}

/// How fast reads were lately, as far as there were any that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPace {
    /// Reads of the bucket.
    pub bucket: BucketPace,
    /// Bytes a second that one read of the local disk brings.
    pub disk_bytes_per_second: Option<u64>,
}

/// An extent that stands on the local disk as Vortex.
#[derive(Clone)]
pub struct LocalExtent {
    /// Reads it.
    pub reader: Arc<dyn VortexReadAt>,
    /// Its length there.
    pub size_bytes: u64,
    /// A number that two forms share only when they are the same, byte for byte.
    pub content: u64,
}

impl fmt::Debug for LocalExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalExtent")
            .field("size_bytes", &self.size_bytes)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// Where the bytes of a read came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOrigin {
    /// Bytes that were asked for and stood near.
    pub cached_bytes: u64,
    /// Bytes that came from the bucket.
    pub bucket_bytes: u64,
    /// Requests to the bucket.
    pub requests: u64,
}

/// Where an extent's bytes come from, as far as a cache is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// It is hot, and on the local disk.
    HotHit,
    /// It is hot, and not here yet.
    HotMiss,
    /// It is not hot, or there is no cache.
    Cold,
}

/// Names the path of an extent.
pub type ExtentPaths = Arc<dyn Fn(DatabaseId, ExtentId) -> Path + Send + Sync>;

/// Says how fast a store answered lately.
pub type StorePace = Arc<dyn Fn() -> BucketPace + Send + Sync>;

/// Extents that are read from a store, and nothing nearer.
#[derive(Clone)]
pub struct StoredExtents {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// An extent's path in it.
    pub paths: ExtentPaths,
    /// How fast it answers, when somebody watches that.
    pub pace: Option<StorePace>,
}

impl fmt::Debug for StoredExtents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredExtents")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ExtentAccess for StoredExtents {
    fn path(&self, database: DatabaseId, extent: ExtentId) -> Path {
        (self.paths)(database, extent)
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    fn pace(&self) -> ReadPace {
        ReadPace {
            bucket: self.pace.as_ref().map(|pace| pace()).unwrap_or_default(),
            ..ReadPace::default()
        }
    }
}
