//! How long planning takes, by the number of extents in a table.
//!
//! `cargo bench --bench plan`. The metadata is made up; no extent exists, and none is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use divan::Bencher;
use slipstream_catalog::{DatabaseOp, DatabaseState};
use slipstream_model::{
    BucketId, ColumnStatistics, DatabaseId, Digest, Entropy, Extent, ExtentId, ManualClock,
    SortOrder, StatisticValue, TableId, TableName, TableSchema, Timestamp,
};
use slipstream_query::{
    ClusterView, DatabaseRow, FollowerRow, LeaseRow, QueryInfo, QueryOptions, QueryRuntime,
    QuerySession, SessionDatabases, StoredExtents,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

fn main() {
    divan::main();
}

const SIZES: [usize; 2] = [1_000, 1_000_000];
/// Each extent holds one minute.
const MINUTE: i64 = 60_000_000;
/// Extents that one made-up transaction adds.
const EXTENTS_PER_TRANSACTION: usize = 10_000;

#[divan::bench(args = SIZES)]
fn time_bounded(bencher: Bencher, extents: usize) {
    let middle = Timestamp::from_micros(extents as i64 / 2 * MINUTE);
    let end = Timestamp::from_micros(extents as i64 / 2 * MINUTE + 60 * MINUTE);
    let sql = format!(
        "SELECT device, avg(value) FROM events \
         WHERE at >= TIMESTAMP '{middle}' AND at < TIMESTAMP '{end}' GROUP BY device"
    );
    explain(bencher, extents, &sql);
}

#[divan::bench(args = SIZES)]
fn latest_rows(bencher: Bencher, extents: usize) {
    let since = Timestamp::from_micros((extents as i64 - 60) * MINUTE);
    let sql = format!("SELECT * FROM events WHERE at >= TIMESTAMP '{since}' ORDER BY at LIMIT 10");
    explain(bencher, extents, &sql);
}

#[divan::bench(args = SIZES)]
fn count_min_max(bencher: Bencher, extents: usize) {
    explain(
        bencher,
        extents,
        "SELECT count(*), min(at), max(at) FROM events",
    );
}

#[divan::bench(args = SIZES)]
fn session(bencher: Bencher, extents: usize) {
    let world = World::of(extents);
    bencher.bench(|| world.session());
}

/// Parses, plans and optimizes, down to the list of files to read.
fn explain(bencher: Bencher, extents: usize, sql: &str) {
    let world = World::of(extents);
    let sql = format!("EXPLAIN {sql}");
    bencher.bench(|| {
        world.tokio.block_on(async {
            let session = world.session();
            let statement = QuerySession::parse(&sql).expect("SQL").remove(0);
            let plan = session.plan_read_only(statement).await.expect("planned");
            let stream = session
                .execute(plan, QueryInfo::default())
                .await
                .expect("started");
            stream.collect_batches().await.expect("explained")
        })
    });
}

/// A table of so many extents, made once.
struct World {
    tokio: Runtime,
    runtime: Arc<QueryRuntime>,
    state: DatabaseState,
}

impl World {
    fn of(extents: usize) -> &'static Self {
        static WORLDS: [OnceLock<World>; 2] = [OnceLock::new(), OnceLock::new()];
        let position = SIZES
            .iter()
            .position(|size| *size == extents)
            .expect("a known size");
        WORLDS[position].get_or_init(|| Self::new(extents))
    }

    fn new(extents: usize) -> Self {
        let access = StoredExtents {
            store: Arc::new(object_store::memory::InMemory::new()),
            paths: Arc::new(|database, extent| format!("{database}/{extent}").into()),
            pace: None,
        };
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let runtime = QueryRuntime::new(
            QueryOptions::default(),
            Arc::new(access),
            clock,
            Entropy::from_seed(1),
        );
        Self {
            tokio: Runtime::new().expect("a runtime"),
            runtime: runtime.expect("set up"),
            state: database(extents),
        }
    }

    fn session(&self) -> QuerySession {
        let databases = BTreeMap::from([("db".to_owned(), self.state.clone())]);
        let databases = SessionDatabases {
            default: Some("db".to_owned()),
            databases,
            ..SessionDatabases::default()
        };
        self.runtime.session(databases, Arc::new(NoCluster))
    }
}

fn database(extents: usize) -> DatabaseState {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = Schema::new(vec![
        Field::new("at", time, false),
        Field::new("device", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
    ]);
    let schema = TableSchema::new(&columns).expect("columns");
    let id = TableId::new(Uuid::from_u128(1));
    let state = DatabaseState::empty(BucketId::default(), DatabaseId::new(Uuid::from_u128(2)));
    let create = DatabaseOp::CreateTable {
        id,
        name: TableName::new("events").expect("a name"),
        schema: schema.clone(),
        if_not_exists: false,
    };
    let mut state = state.preview(&[create]).expect("allowed");
    let numbers: Vec<usize> = (0..extents).collect();
    for numbers in numbers.chunks(EXTENTS_PER_TRANSACTION) {
        let extents = numbers
            .iter()
            .map(|number| extent(&schema, *number))
            .collect();
        let add = DatabaseOp::AddExtents {
            table: id,
            schema: schema.clone(),
            extents,
        };
        state = state.preview(&[add]).expect("allowed");
    }
    state
}

fn extent(schema: &TableSchema, number: usize) -> Extent {
    let start = number as i64 * MINUTE;
    let bounds = [
        (
            StatisticValue::Int(start),
            StatisticValue::Int(start + MINUTE - 1),
        ),
        (
            StatisticValue::Text("device-00".into()),
            StatisticValue::Text("device-99".into()),
        ),
        (
            StatisticValue::Float(0.0),
            StatisticValue::Float(number as f64),
        ),
    ];
    let columns = schema.columns().iter().zip(bounds).enumerate();
    let columns = columns.map(|(position, (column, (min, max)))| ColumnStatistics {
        id: column.id,
        null_count: 0,
        min: Some(min),
        max: Some(max),
        bounds_exact: true,
        sort_order: if position == 0 {
            SortOrder::Ascending
        } else {
            SortOrder::Unknown
        },
    });
    Extent {
        id: ExtentId::new(Uuid::from_u128(number as u128 + 1)),
        row_count: 10_000,
        size_bytes: 100_000,
        original_bytes: 400_000,
        sha256: Digest::of(&number.to_le_bytes()),
        footer_bytes: 2_000,
        min_created_on: Timestamp::from_micros(start),
        max_created_on: Timestamp::from_micros(start),
        tags: BTreeSet::new(),
        inline: None,
        columns: columns.collect(),
    }
}

#[derive(Debug)]
struct NoCluster;

impl ClusterView for NoCluster {
    fn databases(&self) -> Vec<DatabaseRow> {
        Vec::new()
    }

    fn followers(&self) -> Vec<FollowerRow> {
        Vec::new()
    }

    fn leases(&self) -> Vec<LeaseRow> {
        Vec::new()
    }
}
