//! A store that reads extents from the local disk where they are there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use slipstream_model::ExtentId;

use crate::cold::{Object, read_uncached};
use crate::{BucketReads, ColdCache, Form, HotTier, OpenExtent, Origin};

/// The bucket, with the caches in front of it. Only extents are ever found there.
#[derive(Debug, Clone)]
pub struct CachedStore {
    bucket: Arc<dyn ObjectStore>,
    tier: Arc<HotTier>,
    cold: Option<ColdCache>,
    reads: Arc<BucketReads>,
}

impl CachedStore {
    /// Puts the tiers in front of a store. `reads` is told of what queries read from the bucket.
    pub fn new(
        bucket: Arc<dyn ObjectStore>,
        tier: Arc<HotTier>,
        cold: Option<ColdCache>,
        reads: Arc<BucketReads>,
    ) -> Self {
        Self {
            bucket,
            tier,
            cold,
            reads,
        }
    }

    /// The extent that a path names.
    pub fn extent_of(location: &Path) -> Option<ExtentId> {
        location.filename()?.strip_suffix(".parquet")?.parse().ok()
    }

    /// Reads ranges of an object, and says where they came from. `size_bytes` is the object's
    /// length, when it is known.
    ///
    /// # Errors
    /// When the bucket fails.
    pub async fn read(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        size_bytes: Option<u64>,
    ) -> Result<(Vec<Bytes>, Origin)> {
        let extent = Self::extent_of(location);
        if let Some(extent) = extent
            && let Some(pieces) = self.read_local(extent, ranges).await
        {
            let origin = Origin {
                cached_bytes: ranges.iter().map(|range| range.end - range.start).sum(),
                ..Origin::default()
            };
            return Ok((pieces, origin));
        }
        let _read = self.reads.begin();
        let object = Object {
            store: &self.bucket,
            location,
            extent: extent.unwrap_or_default(),
            size_bytes,
        };
        match &self.cold {
            Some(cold) if extent.is_some() => cold.read(&object, ranges).await,
            _ => read_uncached(&object, ranges).await,
        }
    }

    /// Forgets the blocks of an extent of `size_bytes`.
    pub fn forget(&self, location: &Path, size_bytes: u64) {
        if let (Some(cold), Some(extent)) = (&self.cold, Self::extent_of(location)) {
            cold.forget(extent, size_bytes);
        }
    }

    /// Ranges of an extent that is here as it came; `None` when it is not, or cannot be read.
    async fn read_local(&self, extent: ExtentId, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        if self.tier.form(extent)? != Form::Parquet {
            return None;
        }
        let (tier, ranges) = (Arc::clone(&self.tier), ranges.to_vec());
        let read = move || {
            let OpenExtent { form, file } = tier.open_extent(extent)?;
            // It may have got another form just now.
            if form != Form::Parquet {
                return None;
            }
            let pieces = ranges.into_iter().map(|range| {
                let length = usize::try_from(range.end - range.start).ok()?;
                // The bucket has the right error for a range beyond the end.
                if range.end > file.payload_bytes() {
                    return None;
                }
                let mut piece = vec![0; length];
                match file.read_at(range.start, &mut piece) {
                    Ok(()) => Some(Bytes::from(piece)),
                    Err(error) => {
                        tier.found_broken(extent, &error);
                        None
                    }
                }
            });
            pieces.collect()
        };
        // On a thread that may wait for the disk.
        tokio::task::spawn_blocking(read).await.ok()?
    }
}

impl fmt::Display for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} behind a hot cache", self.bucket)
    }
}

#[async_trait]
impl ObjectStore for CachedStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_plain = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none()
            && options.version.is_none()
            && !options.head;
        match &options.range {
            Some(GetRange::Bounded(range))
                if is_plain && Self::extent_of(location).is_some() && range.start < range.end =>
            {
                let range = range.clone();
                let (pieces, _) = self
                    .read(location, std::slice::from_ref(&range), None)
                    .await?;
                let bytes = pieces.into_iter().next().unwrap_or_default();
                if bytes.is_empty() {
                    // The bucket has the right error.
                    return self.bucket.get_opts(location, options).await;
                }
                let end = range.start + bytes.len() as u64;
                Ok(GetResult {
                    payload: GetResultPayload::Stream(
                        futures::stream::once(std::future::ready(Ok(bytes))).boxed(),
                    ),
                    meta: ObjectMeta {
                        location: location.clone(),
                        last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                        size: end,
                        e_tag: None,
                        version: None,
                    },
                    range: range.start..end,
                    attributes: Attributes::default(),
                })
            }
            _ => self.bucket.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Ok(self.read(location, ranges, None).await?.0)
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.bucket.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.bucket.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.bucket.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.bucket.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.bucket.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.bucket.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
