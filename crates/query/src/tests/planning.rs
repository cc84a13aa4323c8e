//! What planning costs, in things that can be counted.

use super::fixture::World;

#[tokio::test]
async fn planning_makes_no_request() {
    let world = World::with_flights(&[0..5, 5..10]).await;
    let before = world.requests();
    world
        .rows("EXPLAIN SELECT carrier FROM flights WHERE month > 2 ORDER BY month")
        .await;
    world
        .rows("EXPLAIN VERBOSE SELECT count(*) FROM flights GROUP BY carrier")
        .await;
    assert_eq!(world.requests(), before);
}

#[tokio::test]
async fn a_resolved_plan_is_an_ordinary_parquet_scan() {
    let world = World::with_flights(&[0..5, 5..10]).await;
    let plan = world
        .rows("EXPLAIN SELECT carrier FROM flights WHERE month > 2")
        .await
        .join("\n");
    assert!(
        plan.contains("DataSourceExec") && plan.contains("file_type=parquet"),
        "{plan}"
    );
    assert!(!plan.contains("DeferredScan"), "{plan}");
    let plan = world
        .rows("EXPLAIN SELECT (SELECT max(month) FROM flights WHERE carrier = 'C1'), month FROM flights")
        .await
        .join("\n");
    assert!(!plan.contains("DeferredScan"), "{plan}");
}

#[tokio::test]
async fn the_announced_schema_is_the_one_that_comes() {
    let world = World::with_flights(&[0..5]).await;
    for sql in [
        "SELECT count(*), max(month) AS m FROM flights",
        "SELECT month, 1 AS one, carrier || 'x' AS c FROM flights",
        "SELECT carrier, avg(month) FROM flights GROUP BY carrier",
        "EXPLAIN SELECT 1",
        "DESCRIBE flights",
    ] {
        let announced = world
            .plan(sql)
            .await
            .expect("plans")
            .schema()
            .as_arrow()
            .clone();
        let stream = world.stream(sql).await.expect("runs");
        assert_eq!(stream.schema().as_ref(), &announced, "{sql}");
        for batch in stream.collect_batches().await.expect("rows") {
            assert_eq!(batch.schema().as_ref(), &announced, "{sql}");
        }
    }
}
