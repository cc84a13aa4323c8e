use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, Schema};
use slipstream_catalog::WriterContext;
use slipstream_model::{
    ClusterName, DatabaseId, Digest, Entropy, Extent, ManualClock, TableId, TableName, TableSchema,
};
use slipstream_storage::BucketWriter;
use uuid::Uuid;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn at(day: u32) -> Timestamp {
    Timestamp::from_micros(0).plus(DAY * day)
}

fn id(number: u128) -> ExtentId {
    ExtentId::new(Uuid::from_u128(number))
}

fn table(number: u128) -> TableId {
    TableId::new(Uuid::from_u128(number))
}

fn schema() -> TableSchema {
    let field = Field::new("n", DataType::Int64, true);
    TableSchema::new(&Schema::new(vec![field])).expect("valid")
}

/// An extent of ten rows that came from a first to a last day.
fn extent(number: u128, first: u32, last: u32) -> Extent {
    Extent {
        id: id(number),
        row_count: 10,
        size_bytes: 100,
        original_bytes: 80,
        sha256: Digest::ZERO,
        footer_bytes: 50,
        min_created_on: at(first),
        max_created_on: at(last),
        tags: BTreeSet::new(),
        inline: None,
        columns: Vec::new().into(),
    }
}

fn create(number: u128, name: &str, extents: Vec<Extent>) -> Vec<DatabaseOp> {
    vec![
        DatabaseOp::CreateTable {
            id: table(number),
            name: TableName::new(name).expect("a name"),
            schema: schema(),
            if_not_exists: false,
        },
        DatabaseOp::AddExtents {
            table: table(number),
            schema: schema(),
            extents,
        },
    ]
}

fn keep(name: Option<&str>, days: u32) -> DatabaseOp {
    DatabaseOp::SetRetentionPolicy {
        table: name.map(|name| TableName::new(name).expect("a name")),
        policy: Some(RetentionPolicy {
            soft_delete_period: DAY * days,
            ..RetentionPolicy::default()
        }),
    }
}

async fn writer(ops: Vec<DatabaseOp>) -> DatabaseWriter {
    let clock = Arc::new(ManualClock::new(at(100)));
    let entropy = Entropy::from_seed(1);
    let bucket = BucketWriter::memory(Arc::clone(&clock) as _, entropy.clone()).await;
    let cluster = ClusterName::new("prod").expect("a name");
    let context = WriterContext::new(cluster, clock, entropy);
    let opened = DatabaseWriter::open(bucket, DatabaseId::default(), context).await;
    let writer = opened.expect("opened");
    writer.commit(ops).await.expect("allowed");
    writer
}

fn removal(number: u128, extents: &[u128]) -> DatabaseOp {
    DatabaseOp::RemoveExtents {
        table: table(number),
        extents: extents.iter().map(|number| id(*number)).collect(),
    }
}

#[tokio::test]
async fn an_extent_goes_by_its_newest_source_and_a_table_beats_its_database() {
    let extents = |first| {
        vec![
            extent(first, 10, 10),
            extent(first + 1, 10, 95),
            extent(first + 2, 80, 80),
        ]
    };
    let mut ops = create(1, "a", extents(1));
    ops.extend(create(2, "b", extents(11)));
    ops.extend(create(3, "c", extents(21)));
    let kept = writer(ops.clone()).await.state();
    assert_eq!(Over::find(&kept, at(100)), Over::default(), "no policy");

    ops.push(keep(None, 30));
    ops.push(keep(Some("b"), 10));
    ops.push(keep(Some("c"), 1_000));
    let state = writer(ops).await.state();
    let found = Over::find(&state, at(100));
    assert_eq!(found.ops, [removal(1, &[1]), removal(2, &[11, 13])]);
    assert_eq!((found.extents, found.rows), (3, 30));
}

#[tokio::test]
async fn all_tables_are_one_commit_and_nothing_is_left_to_do() {
    let mut ops = create(1, "a", vec![extent(1, 1, 1), extent(2, 99, 99)]);
    ops.extend(create(2, "b", vec![extent(3, 1, 1)]));
    ops.push(keep(None, 30));
    let writer = writer(ops).await;
    let before = writer.state().version();
    let over = Over::find(&writer.state(), at(100));
    writer.commit(over.ops).await.expect("allowed");
    let state = writer.state();
    assert_eq!(state.version(), before.next());
    let left: Vec<u64> = state.tables().map(|table| table.extents.len()).collect();
    assert_eq!(left, [1, 0]);
    assert_eq!(Over::find(&state, at(100)), Over::default());
}
