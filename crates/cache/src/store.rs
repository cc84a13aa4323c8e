//! A store that reads extents from the local disk where they are there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use slipstream_model::ExtentId;

use crate::HotTier;

/// The bucket, with the hot tier in front of it. Only extents are ever found there.
#[derive(Debug, Clone)]
pub struct CachedStore {
    bucket: Arc<dyn ObjectStore>,
    tier: Arc<HotTier>,
}

impl CachedStore {
    /// Puts a tier in front of a store.
    pub fn new(bucket: Arc<dyn ObjectStore>, tier: Arc<HotTier>) -> Self {
        Self { bucket, tier }
    }

    /// The extent that a path names.
    pub fn extent_of(location: &Path) -> Option<ExtentId> {
        location.filename()?.strip_suffix(".parquet")?.parse().ok()
    }

    /// The extent's file, when a request can be answered from it.
    fn local(&self, location: &Path, options: &GetOptions) -> Option<GetResult> {
        let is_plain = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none()
            && options.version.is_none();
        let extent = Self::extent_of(location).filter(|_| is_plain)?;
        let (file, path, size) = self.tier.file(extent)?;
        let modified = file.metadata().ok()?.modified().ok()?;
        let range = match &options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) if range.start < size => {
                range.start..range.end.min(size)
            }
            Some(GetRange::Offset(start)) if *start < size => *start..size,
            Some(GetRange::Suffix(length)) => size.saturating_sub(*length)..size,
            // The bucket has the right error.
            Some(_) => return None,
        };
        Some(GetResult {
            payload: GetResultPayload::File(file, path),
            meta: ObjectMeta {
                location: location.clone(),
                last_modified: modified.into(),
                size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::default(),
        })
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
        match self.local(location, &options) {
            Some(found) => Ok(found),
            None => self.bucket.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let whole = GetOptions::default();
        match self.local(location, &whole) {
            Some(GetResult {
                payload: GetResultPayload::File(file, path),
                ..
            }) => {
                let ranges = ranges.to_vec();
                read_ranges(file, path, ranges).await
            }
            _ => self.bucket.get_ranges(location, ranges).await,
        }
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

/// All ranges of one file, on a thread that may wait for the disk.
async fn read_ranges(
    file: std::fs::File,
    path: std::path::PathBuf,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<Bytes>> {
    use std::os::unix::fs::FileExt;
    let read = move || {
        let pieces = ranges.into_iter().map(|range| {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, range.start)?;
            Ok(Bytes::from(piece))
        });
        pieces.collect::<std::io::Result<Vec<_>>>()
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
        store: "hot cache",
        source,
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| failed(error.into()))?
        .map_err(|error| failed(format!("{}: {error}", path.display()).into()))
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use slipstream_model::{DatabaseId, Digest, Timestamp};

    use super::*;
    use crate::HotExtent;

    async fn store(is_cached: bool) -> (CachedStore, Path, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tier = Arc::new(HotTier::open(directory.path().to_owned()).expect("usable"));
        let extent = ExtentId::default();
        let path = Path::from(format!("databases/d/extents/{extent}.parquet"));
        let bucket = Arc::new(InMemory::new());
        // The bucket has other bytes, so that it shows which of the two was read.
        bucket
            .put(&path, PutPayload::from_static(b"from bucket"))
            .await
            .expect("written");
        if is_cached {
            let bytes = Bytes::from_static(b"from a disk");
            let wanted = HotExtent {
                database: DatabaseId::default(),
                extent,
                size_bytes: bytes.len() as u64,
                sha256: Digest::of(&bytes),
                max_created_on: Timestamp::default(),
            };
            tier.insert(&wanted, &bytes).expect("whole");
        }
        (CachedStore::new(bucket, tier), path, directory)
    }

    #[tokio::test]
    async fn an_extent_is_read_from_the_disk_when_it_is_there() {
        for (is_cached, whole, tail) in [
            (true, "from a disk", "disk"),
            (false, "from bucket", "cket"),
        ] {
            let (store, path, _directory) = store(is_cached).await;
            let read = store.get(&path).await.expect("there").bytes().await;
            assert_eq!(read.expect("readable"), whole);
            assert_eq!(
                store.get_range(&path, 0..4).await.expect("readable"),
                "from"
            );
            let ranges = store
                .get_ranges(&path, &[7..11, 0..4])
                .await
                .expect("readable");
            assert_eq!(ranges, [tail, "from"]);
            let suffix = GetOptions {
                range: Some(GetRange::Suffix(4)),
                ..GetOptions::default()
            };
            let read = store
                .get_opts(&path, suffix)
                .await
                .expect("there")
                .bytes()
                .await;
            assert_eq!(read.expect("readable"), tail);
        }
    }

    #[tokio::test]
    async fn a_lost_file_costs_a_request_and_nothing_else() {
        let (store, path, directory) = store(true).await;
        std::fs::remove_dir_all(directory.path()).expect("removed");
        assert_eq!(
            store.get_range(&path, 5..11).await.expect("readable"),
            "bucket"
        );
    }

    #[tokio::test]
    async fn ranges_beyond_the_end_fail_as_the_bucket_fails() {
        let (store, path, _directory) = store(true).await;
        assert!(store.get_range(&path, 100..101).await.is_err());
        assert!(store.get_ranges(&path, &[0..1, 0..100]).await.is_err());
    }
}
