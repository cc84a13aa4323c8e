//! What queries answer, and what it costs.

use super::fixture::{World, flights};

#[tokio::test]
async fn a_join_over_extents_and_system_tables_answers() {
    let world = World::with_flights(&[1..5, 5..9]).await;
    let rows = world
        .rows(
            "SELECT f.carrier, count(*) AS n FROM flights f JOIN flights g ON f.month = g.month \
             WHERE f.carrier IS NOT NULL GROUP BY f.carrier ORDER BY f.carrier LIMIT 2",
        )
        .await;
    assert_eq!(rows, ["C1 1", "C2 1"]);
}

#[tokio::test]
async fn count_min_max_make_no_request() {
    let world = World::with_flights(&[1..5, 10..20, 5..10]).await;
    let before = world.requests();
    let rows = world
        .rows("SELECT count(*), min(month), max(month) FROM flights")
        .await;
    assert_eq!(rows, ["19 1 19"]);
    let rows = world
        .rows("SELECT count(carrier), min(carrier), max(carrier) FROM flights")
        .await;
    assert_eq!(rows, ["13 C0 C9"]);
    assert_eq!(world.requests(), before);
}

#[tokio::test]
async fn rows_in_the_log_are_read_without_a_request_and_answer_the_same() {
    let stored = World::with_flights(&[1..5, 5..10]).await;
    let mut streamed = World::with_flights(&[1..5]).await;
    streamed.insert_inline("flights", flights(5..10));
    for sql in [
        "SELECT count(*), sum(month), max(carrier) FROM flights WHERE month > 3",
        "SELECT month, carrier FROM flights ORDER BY month",
        "SELECT carrier, count(*) FROM flights GROUP BY carrier ORDER BY carrier",
    ] {
        assert_eq!(streamed.rows(sql).await, stored.rows(sql).await, "{sql}");
    }
    let before = streamed.requests();
    let rows = streamed
        .rows("SELECT sum(month) FROM flights WHERE month > 5")
        .await;
    assert_eq!(rows, ["30"]);
    assert_eq!(streamed.requests(), before);
}

#[tokio::test]
async fn a_filter_is_counted_by_reading() {
    let world = World::with_flights(&[1..5, 10..20, 5..10]).await;
    // Nothing can be left out by it, and still it drops a row.
    let rows = world
        .rows("SELECT count(*), max(month) FROM flights WHERE carrier <> 'C5'")
        .await;
    assert_eq!(rows, ["12 19"]);
    let rows = world
        .rows("SELECT count(*) FROM flights WHERE month >= 0")
        .await;
    assert_eq!(rows, ["19"]);
    let rows = world
        .rows("SELECT count(*), max(month) FROM flights WHERE month > 99")
        .await;
    assert_eq!(rows, ["0 "]);
    let rows = world
        .rows("SELECT count(*) FROM (SELECT * FROM flights LIMIT 6)")
        .await;
    assert_eq!(rows, ["6"]);
    let rows = world
        .rows("SELECT max(month) FROM (SELECT * FROM flights LIMIT 2)")
        .await;
    assert_ne!(rows, ["19"]);
}

#[tokio::test]
async fn a_removed_extent_is_not_counted() {
    let mut world = World::with_flights(&[1..5]).await;
    let extent = world
        .insert("flights", super::fixture::flights(50..60))
        .await;
    assert_eq!(
        world.rows("SELECT count(*), max(month) FROM flights").await,
        ["14 59"]
    );
    world.remove("flights", &extent);
    assert_eq!(
        world.rows("SELECT count(*), max(month) FROM flights").await,
        ["4 4"]
    );
    assert_eq!(
        world
            .rows("SELECT count(*) FROM flights WHERE month > 0")
            .await,
        ["4"]
    );
}

#[tokio::test]
async fn an_empty_table_answers() {
    let world = World::with_flights(&[]).await;
    assert_eq!(
        world
            .rows("SELECT count(*), min(month), max(carrier) FROM flights")
            .await,
        ["0  "]
    );
    assert!(
        world
            .batches("SELECT * FROM flights")
            .await
            .expect("answers")
            .is_empty()
    );
}

#[tokio::test]
async fn an_attached_table_query_makes_no_list_and_no_head() {
    let world = World::with_flights(&[1..5, 5..9, 9..12]).await;
    let before = world.requests();
    let mut stream = world
        .stream("SELECT * FROM flights ORDER BY carrier")
        .await
        .expect("plans");
    let mut rows = 0;
    while let Some(batch) = futures::StreamExt::next(&mut stream).await {
        rows += batch.expect("reads").num_rows();
    }
    let after = world.requests();
    assert_eq!(rows, 11);
    assert_eq!((after.list, after.head), (before.list, before.head));
    let statistics = stream.statistics();
    assert_eq!((statistics.rows, statistics.reads.extents_scanned), (11, 3));
    assert_eq!(statistics.reads.requests, after.get - before.get);
    // Footer and rows: two requests an extent.
    assert_eq!(statistics.reads.requests, 6);
}

#[tokio::test]
async fn footers_are_read_once_per_process() {
    let world = World::with_flights(&[1..5, 5..9]).await;
    let sum = "SELECT sum(month) FROM flights";
    assert_eq!(world.rows(sum).await, ["36"]);
    let before = world.requests();
    assert_eq!(world.rows(sum).await, ["36"]);
    assert_eq!(world.requests().get - before.get, 2);
}

#[tokio::test]
async fn a_limit_reads_the_extents_it_needs() {
    let world = World::with_flights(&[1..5, 5..9, 9..12]).await;
    let mut stream = world
        .stream("SELECT month FROM flights LIMIT 3")
        .await
        .expect("plans");
    let mut rows = 0;
    while let Some(batch) = futures::StreamExt::next(&mut stream).await {
        rows += batch.expect("reads").num_rows();
    }
    assert_eq!((rows, stream.statistics().reads.extents_scanned), (3, 1));
}

#[tokio::test]
async fn a_query_of_old_snapshots_does_not_see_new_extents() {
    let mut world = World::with_flights(&[1..5]).await;
    let session = world.session();
    world.insert("flights", super::fixture::flights(5..9)).await;
    let plan = session
        .plan_read_only(super::fixture::statement("SELECT count(*) FROM flights"))
        .await
        .expect("plans");
    let stream = session
        .execute(plan, crate::QueryInfo::default())
        .await
        .expect("runs");
    let batches = stream.collect_batches().await.expect("answers");
    assert_eq!(super::fixture::lines(&batches)[1], "4");
    assert_eq!(world.rows("SELECT count(*) FROM flights").await, ["8"]);
}

#[tokio::test]
async fn now_is_the_clocks() {
    let world = World::new().await;
    let rows = world
        .rows("SELECT now() = TIMESTAMP '2013-01-01T00:00:00Z' AS same")
        .await;
    assert_eq!(rows, ["true"]);
}
