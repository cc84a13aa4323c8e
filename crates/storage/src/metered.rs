//! Counts the requests that go to a store, watches how fast it answers, and refuses to change it
//! when told so.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use metrics::counter;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::time::Instant;

use crate::BucketPace;
use crate::pace::PaceMeter;

/// Requests made so far. The cost of a query, and what object stores bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCounts {
    /// Objects or ranges of objects read.
    pub get: u64,
    /// Objects asked about.
    pub head: u64,
    /// Listings.
    pub list: u64,
    /// Objects written, copied or renamed.
    pub put: u64,
    /// Objects deleted.
    pub delete: u64,
}

#[derive(Debug, Default)]
struct Counters {
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
}

/// A store with a meter on it.
#[derive(Debug, Clone)]
pub(crate) struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
    pace: Arc<PaceMeter>,
    writable: bool,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            counters: Arc::default(),
            pace: Arc::default(),
            writable: true,
        }
    }

    /// The same store and meter, without the power to change anything.
    pub(crate) fn read_only(&self) -> Self {
        Self {
            writable: false,
            ..self.clone()
        }
    }

    pub(crate) fn counts(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            get: read(&self.counters.get),
            head: read(&self.counters.head),
            list: read(&self.counters.list),
            put: read(&self.counters.put),
            delete: read(&self.counters.delete),
        }
    }

    /// How fast it answered lately.
    pub(crate) fn pace(&self) -> BucketPace {
        self.pace.pace()
    }

    fn count(&self, counter: &AtomicU64, operation: &'static str) {
        counter.fetch_add(1, Ordering::Relaxed);
        counter!("slipstream_store_requests_total", "operation" => operation).increment(1);
    }

    fn count_put(&self, location: &Path) -> Result<()> {
        self.check_writable(location)?;
        self.count(&self.counters.put, "put");
        Ok(())
    }

    fn check_writable(&self, location: &Path) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(object_store::Error::PermissionDenied {
            path: location.to_string(),
            source: "this node reads the bucket and never writes it".into(),
        })
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

// A default that is inherited silently would bypass the meter.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.count_put(location)?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.count_put(location)?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            self.count(&self.counters.head, "head");
            return self.inner.get_opts(location, options).await;
        }
        self.count(&self.counters.get, "get");
        let asked = Instant::now();
        let answer = self.inner.get_opts(location, options).await?;
        Ok(self.pace.watch(asked.elapsed(), answer))
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        // Stores coalesce neighbouring ranges, so this is one request or a few.
        self.count(&self.counters.get, "get");
        let asked = Instant::now();
        let pieces = self.inner.get_ranges(location, ranges).await?;
        if let [range] = ranges {
            let bytes = range.end.saturating_sub(range.start);
            self.pace.note_range(bytes, asked.elapsed());
        }
        Ok(pieces)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let checked = locations.map(move |location| {
            let location = location?;
            this.check_writable(&location)?;
            this.count(&this.counters.delete, "delete");
            Ok(location)
        });
        if self.writable {
            self.inner.delete_stream(checked.boxed())
        } else {
            checked.boxed()
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count(&self.counters.list, "list");
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count(&self.counters.list, "list");
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count(&self.counters.list, "list");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count_put(to)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.count_put(to)?;
        self.inner.rename_opts(from, to, options).await
    }
}
