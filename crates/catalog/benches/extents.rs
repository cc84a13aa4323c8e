//! What a table of a thousand and of a million extents costs: a commit, applying one, a cold
//! start from a checkpoint, and memory.
//!
//! `cargo bench -p slipstream-catalog`. The first two should not depend on the number of extents.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use divan::{AllocProfiler, Bencher, black_box};
use slipstream_catalog::{
    Commit, DatabaseOp, DatabaseReader, DatabaseState, DatabaseWriter, WriterContext,
};
use slipstream_model::{
    ClusterName, ColumnId, ColumnStatistics, DatabaseId, Digest, Entropy, Extent, ExtentId,
    ManualClock, SortOrder, StatisticValue, TableId, TableName, TableSchema, Timestamp,
};
use slipstream_storage::BucketWriter;
use tokio::runtime::Runtime;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

const SIZES: [u64; 2] = [1_000, 1_000_000];
const TABLE: TableId = TableId::new(Uuid::from_u128(1));
/// Extents in one commit while a table is filled: some megabytes of records.
const FILL_EXTENTS: u64 = 10_000;

fn schema() -> TableSchema {
    let fields = vec![
        Field::new(
            "at",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
        Field::new("origin", DataType::Utf8, true),
        Field::new("distance", DataType::Int32, true),
        Field::new("delay", DataType::Float64, true),
        Field::new("cancelled", DataType::Boolean, true),
    ];
    TableSchema::new(&Schema::new(fields)).expect("a schema")
}

/// The extents of a stream: ordered by id and by time.
fn extent(number: u64) -> Extent {
    use StatisticValue as V;
    let at = i64::try_from(number).expect("small") * 1_000_000;
    let column = |id, null_count, min, max, sort_order| ColumnStatistics {
        id: ColumnId(id),
        null_count,
        min: Some(min),
        max: Some(max),
        bounds_exact: true,
        sort_order,
    };
    let unordered = SortOrder::Unknown;
    Extent {
        id: ExtentId::new(Uuid::from_u128(1 << 100 | u128::from(number))),
        row_count: 1_048_576,
        size_bytes: 20_000_000 + number,
        original_bytes: 80_000_000 + number,
        sha256: Digest::of(&number.to_le_bytes()),
        footer_bytes: 20_000,
        min_created_on: Timestamp::from_micros(at),
        max_created_on: Timestamp::from_micros(at),
        tags: BTreeSet::new(),
        inline: None,
        columns: [
            column(1, 0, V::Int(at), V::Int(at + 999_999), SortOrder::Ascending),
            column(
                2,
                0,
                V::Text("ABQ".into()),
                V::Text(format!("XNA{}", number % 7)),
                unordered,
            ),
            column(3, 0, V::Int(17), V::Int(4_983), unordered),
            column(
                4,
                number % 100,
                V::Float(-43.0),
                V::Float(number as f64),
                unordered,
            ),
            column(5, 0, V::Boolean(false), V::Boolean(true), unordered),
        ]
        .into(),
    }
}

fn add(numbers: std::ops::Range<u64>) -> Vec<DatabaseOp> {
    let extents = numbers.map(extent).collect();
    vec![DatabaseOp::AddExtents {
        table: TABLE,
        schema: schema(),
        extents,
    }]
}

/// A database with one table of so many extents, in a bucket in memory, with a checkpoint.
#[derive(Clone)]
struct Fixture {
    bucket: BucketWriter,
    database: DatabaseId,
    writer: DatabaseWriter,
    state: DatabaseState,
    next: Commit,
    next_number: Arc<AtomicU64>,
}

impl Fixture {
    /// Each is made once.
    fn of(extents: u64) -> Self {
        static MADE: Mutex<BTreeMap<u64, Fixture>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().expect("no benchmark panics");
        made.entry(extents)
            .or_insert_with(|| RUNTIME.block_on(Self::make(extents)))
            .clone()
    }

    async fn make(extents: u64) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let entropy = Entropy::from_seed(extents);
        let bucket = BucketWriter::memory(Arc::clone(&clock) as _, entropy.clone()).await;
        let database = DatabaseId::new(entropy.uuid());
        let cluster = ClusterName::new("bench").expect("a name");
        let context = WriterContext {
            checkpoint_every: u64::MAX,
            ..WriterContext::new(cluster, clock, entropy)
        };
        let open = async || {
            let (bucket, context) = (bucket.clone(), context.clone());
            DatabaseWriter::open(bucket, database, context)
                .await
                .expect("opened")
        };
        let writer = open().await;
        let name = TableName::new("flights").expect("a name");
        let create = DatabaseOp::CreateTable {
            id: TABLE,
            name,
            schema: schema(),
            if_not_exists: false,
        };
        writer.commit(vec![create]).await.expect("committed");
        for start in (0..extents).step_by(FILL_EXTENTS as usize) {
            let end = extents.min(start + FILL_EXTENTS);
            writer.commit(add(start..end)).await.expect("committed");
        }
        writer.close().await;

        let writer = open().await;
        let state = writer.state();
        let committed = writer
            .commit(add(extents..extents + 1))
            .await
            .expect("committed");
        let next = Commit::decode(&committed.bytes).expect("whole");
        let next_number = Arc::new(AtomicU64::new(extents + 1));
        Self {
            bucket,
            database,
            writer,
            state,
            next,
            next_number,
        }
    }
}

/// One extent, from the call to the acknowledgement, over a store that answers at once.
#[divan::bench(args = SIZES, sample_count = 200, sample_size = 10)]
fn commit_one_extent(bencher: Bencher<'_, '_>, extents: u64) {
    let fixture = Fixture::of(extents);
    bencher
        .with_inputs(|| {
            let number = fixture.next_number.fetch_add(1, Ordering::Relaxed);
            add(number..number + 1)
        })
        .bench_values(|ops| {
            RUNTIME
                .block_on(fixture.writer.commit(ops))
                .expect("committed")
        });
}

/// The same commit as a follower applies it, everything verified.
#[divan::bench(args = SIZES, sample_count = 200, sample_size = 10)]
fn apply_one_commit(bencher: Bencher<'_, '_>, extents: u64) {
    let fixture = Fixture::of(extents);
    bencher.bench(|| {
        black_box(&fixture.state)
            .apply(&fixture.next)
            .expect("the next one")
    });
}

/// A cold start: hint, root, segments and the commits after them.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn load_from_checkpoint(bencher: Bencher<'_, '_>, extents: u64) {
    let fixture = Fixture::of(extents);
    let reader = DatabaseReader::new(fixture.bucket.reader().clone(), fixture.database);
    bencher.bench(|| RUNTIME.block_on(reader.load()).expect("answered"));
}

/// Every summary of one column, as the first query after a start works them out.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn summarise_a_column(bencher: Bencher<'_, '_>, extents: u64) {
    let fixture = Fixture::of(extents);
    let reader = DatabaseReader::new(fixture.bucket.reader().clone(), fixture.database);
    bencher
        .with_inputs(|| RUNTIME.block_on(reader.load()).expect("answered").state)
        .bench_values(|state| {
            let table = state.table_by_id(TABLE).expect("made");
            let blocks = table.extents.blocks();
            blocks
                .iter()
                .filter_map(|block| block.summary(ColumnId(1)))
                .count()
        });
}

fn main() {
    let extents = SIZES[SIZES.len() - 1];
    let state = Fixture::of(extents).state;
    let set = &state.table_by_id(TABLE).expect("made").extents;
    let columns = schema().columns().len();
    let per_extent = set.memory_bytes() as u64 / set.len();
    println!("{extents} extents of {columns} columns: {per_extent} bytes of memory an extent");
    divan::main();
}
