//! Which extents are read.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;

use super::fixture::{World, flights};

/// Rows of the answer, and extents opened for it.
async fn cost(world: &World, sql: &str) -> (usize, u64) {
    let mut stream = world.stream(sql).await.expect("plans");
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.expect("reads").num_rows();
    }
    (rows, stream.statistics().reads.extents_scanned)
}

#[tokio::test]
async fn pruning_reads_only_matching_extents() {
    let world = World::with_flights(&[0..10, 10..20, 20..30, 30..40]).await;
    assert_eq!(
        cost(&world, "SELECT * FROM flights WHERE month = 15").await,
        (1, 1)
    );
    let between = "SELECT * FROM flights WHERE month BETWEEN 18 AND 21";
    assert_eq!(cost(&world, between).await, (4, 2));
    assert_eq!(
        cost(&world, "SELECT * FROM flights WHERE month IN (1, 35)").await,
        (2, 2)
    );
    assert_eq!(
        cost(&world, "SELECT * FROM flights WHERE month > 100").await,
        (0, 0)
    );
    assert_eq!(
        cost(&world, "SELECT * FROM flights WHERE carrier > 'D'").await,
        (0, 0)
    );
    let either = "SELECT * FROM flights WHERE month < 2 OR month > 38";
    assert_eq!(cost(&world, either).await, (3, 2));
}

#[tokio::test]
async fn a_value_sent_as_parameter_prunes_too() {
    let world = World::with_flights(&[0..10, 10..20]).await;
    let parameters = crate::Parameters::positional(vec!["15".into()]);
    let stream = world
        .stream_with(
            "SELECT carrier FROM flights WHERE month = $1",
            parameters,
            None,
        )
        .await
        .expect("plans");
    let counters = stream.statistics();
    assert_eq!(counters.reads.extents_scanned, 0);
    assert_eq!(
        super::fixture::lines(&stream.collect_batches().await.expect("reads")).len(),
        2
    );
}

#[tokio::test]
async fn nulls_prune_by_their_counts() {
    let mut world = World::with_flights(&[1..3]).await;
    let months: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
    let carriers: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>, None]));
    let batch = RecordBatch::try_new(super::fixture::flights_schema(), vec![months, carriers]);
    world.insert("flights", batch.expect("fits")).await;
    assert_eq!(
        cost(&world, "SELECT month FROM flights WHERE carrier IS NULL").await,
        (2, 1)
    );
    assert_eq!(
        cost(
            &world,
            "SELECT month FROM flights WHERE carrier IS NOT NULL"
        )
        .await,
        (2, 1)
    );
    assert_eq!(
        cost(&world, "SELECT month FROM flights WHERE carrier = 'C1'").await,
        (1, 1)
    );
}

#[tokio::test]
async fn an_extent_without_the_column_is_pruned_as_null() {
    let mut world = World::with_flights(&[1..3]).await;
    world.add_column("flights", Field::new("delay", DataType::Int64, true));
    let schema = world.state.table("flights").expect("there").schema.arrow();
    let old = flights(3..5);
    let delays: ArrayRef = Arc::new(Int64Array::from(vec![30, 40]));
    let columns = vec![Arc::clone(old.column(0)), Arc::clone(old.column(1)), delays];
    world
        .insert(
            "flights",
            RecordBatch::try_new(schema, columns).expect("fits"),
        )
        .await;
    assert_eq!(
        cost(&world, "SELECT month FROM flights WHERE delay > 35").await,
        (1, 1)
    );
    assert_eq!(
        cost(&world, "SELECT month FROM flights WHERE delay IS NULL").await,
        (2, 1)
    );
    assert_eq!(
        cost(&world, "SELECT month FROM flights WHERE delay IS NOT NULL").await,
        (2, 1)
    );
}

#[tokio::test]
async fn both_levels_of_pruning_agree_with_a_full_scan() {
    // More extents than a block has slots, some removed, so that both levels have work to do.
    let mut world = World::new().await;
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    world.create_table("numbers", &schema);
    let mut extents = Vec::new();
    for start in 0..(slipstream_catalog::SEGMENT_EXTENTS as i64 + 60) {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![start * 10, start * 10 + 9]));
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![numbers]).expect("fits");
        extents.push(world.insert("numbers", batch).await);
    }
    for extent in extents.iter().skip(5).step_by(7) {
        world.remove("numbers", extent);
    }
    // An expression over the column cannot be pruned by, so this is the full scan.
    let all = world
        .rows("SELECT n FROM numbers WHERE abs(n) BETWEEN 40 AND 120 ORDER BY n")
        .await;
    let pruned = world
        .rows("SELECT n FROM numbers WHERE n BETWEEN 40 AND 120 ORDER BY n")
        .await;
    assert_eq!(all, pruned);
    assert_eq!(
        cost(&world, "SELECT n FROM numbers WHERE n BETWEEN 0 AND 39").await,
        (8, 4)
    );
    assert_eq!(
        cost(&world, "SELECT n FROM numbers WHERE n > 10800").await,
        (5, 3)
    );
}
