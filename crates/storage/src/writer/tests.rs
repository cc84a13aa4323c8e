use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutResult, Result,
};
use slipstream_model::{ManualClock, Timestamp, Version};

use super::*;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_micros(1)))
}

fn commit_path() -> BucketPath {
    BucketPath::database_commit(DatabaseId::default(), Version::FIRST)
}

#[tokio::test]
async fn an_extent_that_is_gone_already_is_as_good_as_deleted() {
    let bucket = BucketWriter::memory(clock(), Entropy::from_seed(1)).await;
    let (database, extent) = (DatabaseId::default(), ExtentId::default());
    let path = BucketPath::extent(database, extent);
    let bytes = Bytes::from_static(b"rows");
    bucket.put(&path, bytes).await.expect("taken");
    for _ in 0..2 {
        let deleted = bucket.delete_extent(database, extent).await;
        deleted.expect("it is gone");
        assert_eq!(bucket.try_get(&path).await.expect("answered"), None);
    }
}

/// A store that answers one create wrongly: after doing it, or instead of doing it.
#[derive(Debug)]
struct LyingStore {
    inner: InMemory,
    armed: AtomicBool,
    lands: bool,
    ignores_create: bool,
}

impl LyingStore {
    fn new(lands: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            armed: AtomicBool::new(false),
            lands,
            ignores_create: false,
        })
    }
}

impl fmt::Display for LyingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LyingStore")
    }
}

#[async_trait]
impl ObjectStore for LyingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        if self.ignores_create {
            opts.mode = PutMode::Overwrite;
        }
        if !self.armed.swap(false, Ordering::SeqCst) {
            return self.inner.put_opts(location, payload, opts).await;
        }
        if self.lands {
            self.inner.put_opts(location, payload, opts).await?;
        }
        Err(object_store::Error::AlreadyExists {
            path: location.to_string(),
            source: "409 Conflict".into(),
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn writer_on(store: Arc<dyn ObjectStore>) -> Result<BucketWriter, StorageError> {
    BucketWriter::from_store(store, Path::default(), clock(), Entropy::from_seed(3)).await
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_still_counts_as_ours() {
    for lands in [true, false] {
        let store = LyingStore::new(lands);
        let bucket = writer_on(Arc::clone(&store) as _).await.expect("certified");
        store.armed.store(true, Ordering::SeqCst);
        let outcome = bucket
            .create(&commit_path(), Bytes::from_static(b"mine"))
            .await;
        assert_eq!(
            outcome.expect("known"),
            CreateOutcome::Created,
            "lands: {lands}"
        );
        assert_eq!(bucket.get(&commit_path()).await.expect("there"), "mine");
    }
}

#[tokio::test]
async fn a_store_that_ignores_create_only_is_refused() {
    let store = LyingStore {
        ignores_create: true,
        ..Arc::into_inner(LyingStore::new(true)).expect("one")
    };
    let error = writer_on(Arc::new(store)).await.expect_err("not certified");
    assert_eq!(error.kind(), StorageErrorKind::Uncertified);
}

#[tokio::test]
async fn a_directory_is_a_bucket_and_keeps_its_id() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url: BucketUrl = directory
        .path()
        .join("bucket")
        .to_string_lossy()
        .parse()
        .expect("path");
    let missing = BucketReader::open(&url).await.expect_err("no bucket yet");
    assert_eq!(missing.kind(), StorageErrorKind::NotFound);

    let first = BucketWriter::open(&url, clock(), Entropy::from_seed(1))
        .await
        .expect("new");
    let again = BucketWriter::open(&url, clock(), Entropy::from_seed(2))
        .await
        .expect("known");
    let reader = BucketReader::open(&url).await.expect("known");
    assert_eq!(first.id(), again.id());
    assert_eq!(first.id(), reader.id());

    let created = first
        .create(&commit_path(), Bytes::from_static(b"1"))
        .await
        .expect("known");
    assert_eq!(created, CreateOutcome::Created);
    let lost = again
        .create(&commit_path(), Bytes::from_static(b"2"))
        .await
        .expect("known");
    assert_eq!(lost, CreateOutcome::Exists(Bytes::from_static(b"1")));
}

#[tokio::test]
async fn the_store_handed_to_queries_cannot_be_written() {
    let bucket = BucketWriter::memory(clock(), Entropy::from_seed(1)).await;
    let store = bucket.object_store();
    let location = Path::from("x");
    assert!(store.put(&location, "y".into()).await.is_err());
    assert!(
        store
            .delete(&bucket.object_path(&BucketPath::identity()))
            .await
            .is_err()
    );
    assert!(bucket.get(&BucketPath::identity()).await.is_ok());
}
