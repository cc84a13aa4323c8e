//! What the tests of this crate share: small schemas and extents, buckets, a store with faults.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use slipstream_model::{
    ClusterName, ColumnId, ColumnStatistics, DatabaseId, Digest, Entropy, Extent, ExtentId,
    ManualClock, SortOrder, StatisticValue, TableId, TableName, TableSchema, Timestamp,
};
use slipstream_storage::{BucketPath, BucketWriter};
use uuid::Uuid;

use crate::{DatabaseOp, DatabaseState, DatabaseWriter, WriterContext};

pub(crate) const DATABASE: DatabaseId = DatabaseId::new(Uuid::from_u128(0xDA7A));

pub(crate) fn table_id(number: u128) -> TableId {
    TableId::new(Uuid::from_u128(0x7AB1_0000 + number))
}

pub(crate) fn extent_id(number: u64) -> ExtentId {
    ExtentId::new(Uuid::from_u128(
        0xE000_0000_0000_0000_0000 + u128::from(number),
    ))
}

pub(crate) fn table_name(name: &str) -> TableName {
    TableName::new(name).expect("a table name")
}

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).expect("a cluster name")
}

/// Columns 1 `at` (a time with zone), 2 `origin` (a dictionary), 3 `route` (a list).
pub(crate) fn schema() -> TableSchema {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("America/New_York".into()));
    let origin = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let route = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let fields = vec![
        Field::new("at", at, true),
        Field::new("origin", origin, true),
        Field::new("route", route, true),
    ];
    TableSchema::new(&Schema::new(fields)).expect("a schema")
}

/// An extent of ten rows whose `at` lies in `[10 × number, 10 × number + 9]`.
pub(crate) fn extent(number: u64) -> Extent {
    let base = i64::try_from(number).expect("small") * 10;
    let origin = |text: &str| Some(StatisticValue::Text(text.to_owned()));
    let column = |id, min, max| ColumnStatistics {
        id: ColumnId(id),
        null_count: u64::from(id) - 1,
        min,
        max,
        bounds_exact: true,
        sort_order: if id == 1 {
            SortOrder::Ascending
        } else {
            SortOrder::Unknown
        },
    };
    Extent {
        id: extent_id(number),
        row_count: 10,
        size_bytes: 1_000 + number,
        original_bytes: 2_000 + number,
        sha256: Digest::of(&number.to_le_bytes()),
        footer_bytes: 300,
        min_created_on: Timestamp::from_micros(base),
        max_created_on: Timestamp::from_micros(base + 1),
        tags: if number.is_multiple_of(3) {
            BTreeSet::new()
        } else {
            ["drop-by:x".to_owned()].into()
        },
        inline: None,
        columns: [
            column(
                1,
                Some(StatisticValue::Int(base)),
                Some(StatisticValue::Int(base + 9)),
            ),
            column(2, origin("EWR"), origin("LGA")),
            column(3, None, None),
        ]
        .into(),
    }
}

pub(crate) fn extents(numbers: impl IntoIterator<Item = u64>) -> Vec<Extent> {
    numbers.into_iter().map(extent).collect()
}

pub(crate) fn create_table(number: u128, name: &str) -> DatabaseOp {
    DatabaseOp::CreateTable {
        id: table_id(number),
        name: table_name(name),
        schema: schema(),
        if_not_exists: false,
    }
}

pub(crate) fn add_extents(table: u128, numbers: impl IntoIterator<Item = u64>) -> DatabaseOp {
    DatabaseOp::AddExtents {
        table: table_id(table),
        schema: schema(),
        extents: extents(numbers),
    }
}

pub(crate) fn remove_extents(table: u128, numbers: impl IntoIterator<Item = u64>) -> DatabaseOp {
    let extents = numbers.into_iter().map(extent_id).collect();
    DatabaseOp::RemoveExtents {
        table: table_id(table),
        extents,
    }
}

pub(crate) fn context(seed: u64) -> WriterContext {
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(
        1_357_016_400_000_000,
    )));
    WriterContext::new(cluster("prod"), clock, Entropy::from_seed(seed))
}

pub(crate) async fn bucket() -> BucketWriter {
    let WriterContext { clock, entropy, .. } = context(1);
    BucketWriter::memory(clock, entropy).await
}

pub(crate) async fn open(bucket: &BucketWriter, seed: u64) -> DatabaseWriter {
    DatabaseWriter::open(bucket.clone(), DATABASE, context(seed))
        .await
        .expect("opened")
}

/// Everything in a state that two states can differ in.
pub(crate) fn contents(state: &DatabaseState) -> impl PartialEq + fmt::Debug + use<> {
    let tables: Vec<_> = state
        .tables()
        .map(|table| {
            let set = &table.extents;
            let extents: Vec<Extent> = set.iter().collect();
            let totals = (
                set.len(),
                set.row_count(),
                set.size_bytes(),
                set.original_bytes(),
            );
            let digest = state.table_digest(table.id);
            (
                table.id,
                table.name.clone(),
                table.schema.clone(),
                extents,
                totals,
                digest,
            )
        })
        .collect();
    let place = (
        state.version(),
        state.epoch(),
        state.digest(),
        state.committed_at(),
    );
    (state.id(), state.bucket_id(), place, tables)
}

/// What goes wrong with a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The object lands, and the answer is lost.
    LostAnswer,
    /// Nothing lands, and nobody answers.
    NoAnswer,
    /// The store refuses.
    Refused,
}

/// A store in memory whose next puts fail, and whose objects can be overwritten behind its back.
pub(crate) struct FaultyStore {
    inner: InMemory,
    fault: Fault,
    /// Puts that still fail.
    puts: AtomicUsize,
    /// What happens while the next put is on its way.
    meanwhile: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl FaultyStore {
    pub(crate) fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            fault,
            puts: AtomicUsize::new(0),
            meanwhile: Mutex::default(),
        })
    }

    /// Has something happen while the next put is on its way.
    pub(crate) fn delay_next_put(&self, meanwhile: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock() = Some(meanwhile.boxed());
    }

    pub(crate) async fn bucket(self: &Arc<Self>) -> BucketWriter {
        let WriterContext { clock, entropy, .. } = context(1);
        BucketWriter::from_store(Arc::clone(self) as _, Path::default(), clock, entropy)
            .await
            .expect("certified")
    }

    pub(crate) fn fail_next_puts(&self, puts: usize) {
        self.puts.store(puts, Ordering::SeqCst);
    }

    pub(crate) fn puts_still_failing(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }

    pub(crate) async fn overwrite(&self, path: &BucketPath, bytes: impl Into<Bytes>) {
        let payload = PutPayload::from_bytes(bytes.into());
        self.inner
            .put(&Path::from(path.as_str()), payload)
            .await
            .expect("memory takes it");
    }

    pub(crate) async fn remove(&self, path: &BucketPath) {
        self.inner
            .delete(&Path::from(path.as_str()))
            .await
            .expect("it was there");
    }

    pub(crate) async fn paths(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let objects: Vec<_> = self
            .inner
            .list(None)
            .try_collect()
            .await
            .expect("memory lists");
        objects
            .into_iter()
            .map(|object| object.location.to_string())
            .collect()
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let meanwhile = self.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        let one_less = |puts: usize| puts.checked_sub(1);
        if self
            .puts
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_err()
        {
            return self.inner.put_opts(location, payload, opts).await;
        }
        match self.fault {
            Fault::LostAnswer => drop(self.inner.put_opts(location, payload, opts).await),
            Fault::NoAnswer => {}
            Fault::Refused => {
                let source = "not today".into();
                return Err(object_store::Error::PermissionDenied {
                    path: location.to_string(),
                    source,
                });
            }
        }
        Err(object_store::Error::Generic {
            store: "FaultyStore",
            source: "timed out".into(),
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
