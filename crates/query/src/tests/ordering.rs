//! Rows in order without sorting them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::fixture::{World, flights};
use crate::QueryOptions;

async fn explain(world: &World, sql: &str) -> String {
    world.rows(&format!("EXPLAIN {sql}")).await.join("\n")
}

fn numbers(from: i64, to: i64) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn extents_that_do_not_overlap_need_no_sort() {
    let world = World::with_flights(&[20..30, 0..10, 10..20, 30..40]).await;
    let sql = "SELECT month FROM flights ORDER BY month";
    let plan = explain(&world, sql).await;
    assert!(!plan.contains("SortExec"), "{plan}");
    assert_eq!(world.rows(sql).await, numbers(0, 40));
    assert_eq!(world.rows(&format!("{sql} LIMIT 13")).await, numbers(0, 13));
    assert_eq!(
        world.rows(&format!("{sql} LIMIT 5 OFFSET 8")).await,
        numbers(8, 13)
    );
}

#[tokio::test]
async fn a_limit_in_order_reads_the_first_extents_only() {
    let options = QueryOptions {
        target_partitions: 1,
        ..QueryOptions::default()
    };
    let mut world = World::with_options(options).await;
    world.create_table("flights", &super::fixture::flights_schema());
    for start in [30, 0, 20, 10] {
        world.insert("flights", flights(start..start + 10)).await;
    }
    let stream = world
        .stream("SELECT month FROM flights ORDER BY month LIMIT 3")
        .await
        .expect("plans");
    let id = stream.query_id().expect("computed");
    let batches = stream.collect_batches().await.expect("reads");
    assert_eq!(super::fixture::lines(&batches)[1..], numbers(0, 3));
    let sql = format!("SELECT extents_scanned FROM slipstream.queries WHERE query_id = '{id}'");
    let scanned: u64 = world.rows(&sql).await[0].parse().expect("a number");
    assert!(scanned <= 2, "{scanned} of 4 extents were read for 3 rows");
}

#[tokio::test]
async fn extents_that_touch_are_still_in_order() {
    // 5 and 8 stand in two extents each.
    let world = World::with_flights(&[5..9, 8..12, 0..6]).await;
    let sql = "SELECT month FROM flights ORDER BY month";
    let plan = explain(&world, sql).await;
    assert!(!plan.contains("SortExec"), "{plan}");
    assert_eq!(
        world.rows(sql).await,
        [numbers(0, 6), numbers(5, 9), numbers(8, 12)].concat()
    );
}

#[tokio::test]
async fn overlapping_or_unsorted_extents_are_sorted() {
    let mut world = World::with_flights(&[0..10, 5..15]).await;
    let mut expected: Vec<i64> = (0..10).chain(5..15).collect();
    expected.sort_unstable();
    let text = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>();
    let sql = "SELECT month FROM flights ORDER BY month";
    assert_eq!(world.rows(sql).await, text(&expected));

    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    world.create_table("shuffled", &schema);
    for values in [
        vec![Some(3), Some(1), Some(2)],
        vec![Some(4), None, Some(5)],
    ] {
        let values: ArrayRef = Arc::new(Int64Array::from(values));
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![values]).expect("fits");
        world.insert("shuffled", batch).await;
    }
    let rows = world.rows("SELECT n FROM shuffled ORDER BY n").await;
    assert_eq!(rows, ["1", "2", "3", "4", "5", ""]);
    let rows = world
        .rows("SELECT n FROM shuffled ORDER BY n DESC NULLS LAST LIMIT 2")
        .await;
    assert_eq!(rows, ["5", "4"]);
}

#[tokio::test]
async fn the_other_direction_is_right_too() {
    let world = World::with_flights(&[20..30, 0..10, 10..20]).await;
    let rows = world
        .rows("SELECT month FROM flights ORDER BY month DESC LIMIT 4")
        .await;
    assert_eq!(rows, ["29", "28", "27", "26"]);
    let rows = world
        .rows("SELECT month FROM flights ORDER BY month DESC")
        .await;
    let mut expected = numbers(0, 30);
    expected.reverse();
    assert_eq!(rows, expected);
    let first = "SELECT month FROM flights ORDER BY month NULLS FIRST LIMIT 2";
    assert_eq!(world.rows(first).await, ["0", "1"]);
}

#[tokio::test]
async fn windows_over_time_use_the_order() {
    let world = World::with_flights(&[10..20, 0..10]).await;
    let sql = "SELECT month - lag(month) OVER (ORDER BY month) AS step FROM flights";
    let plan = explain(&world, sql).await;
    assert!(!plan.contains("SortExec"), "{plan}");
    let rows = world
        .rows(&format!("SELECT count(*), sum(step) FROM ({sql})"))
        .await;
    assert_eq!(rows, ["20 19"]);
}

#[tokio::test]
async fn two_columns_that_ascend_together_are_both_known() {
    let mut world = World::new().await;
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", DataType::Int64, false),
        Field::new("x", DataType::Int64, false),
    ]));
    world.create_table("events", &schema);
    for start in [100, 0, 200] {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 50));
        let ats: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (start..start + 50).map(|n| n * 7),
        ));
        let xs: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (start..start + 50).map(|n| n % 3),
        ));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![ids, ats, xs]).expect("fits");
        world.insert("events", batch).await;
    }
    for column in ["id", "at"] {
        let sql = format!("SELECT {column} FROM events ORDER BY {column}");
        let plan = explain(&world, &sql).await;
        assert!(!plan.contains("SortExec"), "{plan}");
        let found: Vec<i64> = world
            .rows(&sql)
            .await
            .iter()
            .map(|row| row.parse().expect("a number"))
            .collect();
        assert!(found.is_sorted() && found.len() == 150);
    }
    let plan = explain(&world, "SELECT x FROM events ORDER BY x").await;
    assert!(plan.contains("SortExec"), "{plan}");
}

#[tokio::test]
async fn a_query_that_wants_no_order_shares_out_its_extents() {
    let world = World::with_flights(&[10..20, 0..10]).await;
    let plan = explain(
        &world,
        "SELECT carrier, count(*) FROM flights GROUP BY carrier",
    )
    .await;
    assert!(!plan.contains("output_ordering"), "{plan}");
}

async fn two_partitions(extents: &[std::ops::Range<i64>]) -> World {
    let options = QueryOptions {
        target_partitions: 2,
        ..QueryOptions::default()
    };
    let mut world = World::with_options(options).await;
    world.create_table("flights", &super::fixture::flights_schema());
    for months in extents {
        world.insert("flights", flights(months.clone())).await;
    }
    world
}

const BY_MONTH: &str = "SELECT month, count(*) AS n FROM flights GROUP BY month ORDER BY month";

#[tokio::test]
async fn groups_that_stand_in_one_extent_each_are_counted_where_they_are() {
    let world = two_partitions(&[30..40, 0..10, 20..30, 10..20]).await;
    let plan = explain(&world, BY_MONTH).await;
    assert!(plan.contains("SinglePartitioned"), "{plan}");
    assert!(plan.contains("ordering_mode=Sorted"), "{plan}");
    assert!(!plan.contains("RepartitionExec"), "{plan}");
    let expected: Vec<String> = (0..40).map(|month| format!("{month} 1")).collect();
    assert_eq!(world.rows(BY_MONTH).await, expected);
    // By way of a filter and a projection, and with other columns in the key.
    let sql = "SELECT m, carrier, count(*) FROM (SELECT month AS m, carrier FROM flights) \
               WHERE m <> 7 GROUP BY m, carrier";
    assert_eq!(world.rows(sql).await.len(), 39);
}

#[tokio::test]
async fn a_group_that_stands_in_two_extents_is_one_group() {
    // 9, 19 and 29 stand in two extents each: there is no place to keep them apart.
    for extents in [[0..10, 9..20, 19..30, 29..40], [0..40, 0..40, 0..40, 0..40]] {
        let world = two_partitions(&extents).await;
        let rows = world.rows(BY_MONTH).await;
        assert_eq!(rows.len(), 40, "{rows:?}");
        let plan = explain(&world, BY_MONTH).await;
        assert!(!plan.contains("SinglePartitioned"), "{plan}");
    }
    // 10 alone does; the place in the middle is free.
    let world = two_partitions(&[0..11, 10..20, 20..30, 30..40]).await;
    let plan = explain(&world, BY_MONTH).await;
    assert!(plan.contains("SinglePartitioned"), "{plan}");
    let rows = world.rows(BY_MONTH).await;
    assert_eq!((rows.len(), rows[10].as_str()), (40, "10 2"));
}

#[tokio::test]
async fn extents_of_very_unequal_size_are_shared_out_as_ever() {
    let world = two_partitions(&[0..1, 1..100_000]).await;
    let plan = explain(&world, BY_MONTH).await;
    assert!(!plan.contains("SinglePartitioned"), "{plan}");
    assert_eq!(world.rows(BY_MONTH).await.len(), 100_000);
}

#[tokio::test]
async fn zeros_of_both_signs_are_one_group() {
    let options = QueryOptions {
        target_partitions: 2,
        ..QueryOptions::default()
    };
    let mut world = World::with_options(options).await;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, false)]));
    world.create_table("floats", &schema);
    for values in [[-1.0, -0.0], [0.0, 1.0]] {
        let values: ArrayRef = Arc::new(arrow::array::Float64Array::from(values.to_vec()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![values]).expect("fits");
        world.insert("floats", batch).await;
    }
    let sql = "SELECT abs(x) AS x, count(*) FROM (SELECT x FROM floats) GROUP BY abs(x) ORDER BY 1";
    let of_expression = world.rows(sql).await;
    assert_eq!(of_expression, ["0.0 2", "1.0 2"]);
    let plan = explain(&world, "SELECT x, count(*) FROM floats GROUP BY x").await;
    assert!(!plan.contains("SinglePartitioned"), "{plan}");
}

#[tokio::test]
async fn order_is_not_asked_for_where_it_gets_lost() {
    let world = two_partitions(&[10..20, 0..10]).await;
    let sql = "SELECT carrier, max(month) AS m FROM flights GROUP BY carrier ORDER BY m LIMIT 3";
    let plan = explain(&world, sql).await;
    assert!(!plan.contains("output_ordering"), "{plan}");
}
