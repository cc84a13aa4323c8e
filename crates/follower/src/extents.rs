//! How a follower's queries read extents: from its own disk where they are hot and here, else
//! from the bucket, through the cache of cold blocks.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, Result};
use slipstream_cache::{CachedStore, Form, HotMemory, HotReader, HotTier, OpenExtent};
use slipstream_model::{DatabaseId, ExtentId};
use slipstream_query::{ExtentAccess, ExtentPaths, LocalExtent, ReadOrigin, ReadPace, Residency};
use slipstream_storage::BucketConnection;

use crate::hot_cache::HotSetIds;

/// The caches, as queries see them.
pub(crate) struct CachedExtents {
    pub(crate) paths: ExtentPaths,
    pub(crate) cached: CachedStore,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) tier: Arc<HotTier>,
    pub(crate) memory: HotMemory,
    pub(crate) hot: Arc<HotSetIds>,
    /// The bucket, which knows how fast it answers.
    pub(crate) connection: BucketConnection,
}

impl std::fmt::Debug for CachedExtents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedExtents")
            .field("cached", &self.cached)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ExtentAccess for CachedExtents {
    fn path(&self, database: DatabaseId, extent: ExtentId) -> Path {
        (self.paths)(database, extent)
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    async fn read(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
        size_bytes: u64,
    ) -> Result<(Vec<Bytes>, ReadOrigin)> {
        let (pieces, origin) = self.cached.read(path, ranges, Some(size_bytes)).await?;
        let origin = ReadOrigin {
            cached_bytes: origin.cached_bytes,
            bucket_bytes: origin.bucket_bytes,
            requests: origin.requests,
        };
        Ok((pieces, origin))
    }

    fn residency(&self, path: &Path) -> Residency {
        let Some(extent) = CachedStore::extent_of(path) else {
            return Residency::Cold;
        };
        if !self.hot.holds(extent) {
            Residency::Cold
        } else if self.tier.holds(extent).is_some() {
            Residency::HotHit
        } else {
            Residency::HotMiss
        }
    }

    fn has_local_forms(&self) -> bool {
        true
    }

    fn is_local(&self, path: &Path) -> bool {
        let extent = CachedStore::extent_of(path);
        extent.is_some_and(|extent| self.tier.form(extent) == Some(Form::Vortex))
    }

    fn open_local(&self, path: &Path) -> Option<LocalExtent> {
        let extent = CachedStore::extent_of(path)?;
        if self.tier.form(extent)? != Form::Vortex {
            return None;
        }
        let OpenExtent { form, file } = self.tier.open_extent(extent)?;
        if form != Form::Vortex {
            return None;
        }
        let (size_bytes, content) = (file.payload_bytes(), file.content());
        let tier = Arc::clone(&self.tier);
        let reader = HotReader::new(extent, file, tier, self.memory.clone());
        Some(LocalExtent {
            reader: Arc::new(reader),
            size_bytes,
            content,
        })
    }

    fn forget(&self, path: &Path, size_bytes: u64) {
        self.cached.forget(path, size_bytes);
    }

    fn memory_bytes(&self, path: &Path) -> u64 {
        let extent = CachedStore::extent_of(path);
        extent.map_or(0, |extent| self.memory.bytes_of(extent))
    }

    fn pace(&self) -> ReadPace {
        ReadPace {
            bucket: self.connection.pace(),
            disk_bytes_per_second: self.memory.disk_bytes_per_second(),
        }
    }
}
