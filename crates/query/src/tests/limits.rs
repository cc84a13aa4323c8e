//! Deadlines, admission, memory, cancellation.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::fixture::World;
use crate::{Parameters, QueryErrorKind, QueryOptions};

/// A query that computes for hours and takes little memory.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 10000000) a \
                       CROSS JOIN generate_series(1, 10000000) b WHERE a.value + b.value = 3";
/// A query with an answer of 10 billion rows.
const VAST: &str = "SELECT value FROM generate_series(1, 10000000000)";

async fn small(concurrency_max: usize, queue_max: usize) -> World {
    let options = QueryOptions {
        concurrency_max,
        queue_max,
        ..QueryOptions::default()
    };
    World::with_options(options).await
}

/// Waits until so many queries are in a state.
async fn wait_for_states(world: &World, state: &str, count: usize) {
    for _ in 0..10_000 {
        let rows = world.runtime.log.rows();
        if rows
            .iter()
            .filter(|row| row.state.to_string() == state)
            .count()
            == count
        {
            return;
        }
        tokio::task::yield_now().await;
        let nap = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>());
        nap.await.expect_err("never ready");
    }
    panic!(
        "{count} queries never were {state}: {:?}",
        world.runtime.log.rows()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_past_its_deadline_stops() {
    let world = World::new().await;
    for sql in [ENDLESS, VAST] {
        let timeout = Some(Duration::from_millis(50));
        let stream = world
            .stream_with(sql, Parameters::default(), timeout)
            .await
            .expect("starts");
        let error = stream.collect_batches().await.expect_err("takes too long");
        assert_eq!(error.kind(), QueryErrorKind::DeadlineExceeded, "{error}");
    }
    let error = world.rows("SELECT count(error) FROM slipstream.queries WHERE state = 'failed'");
    assert_eq!(error.await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_holds_when_nobody_reads() {
    let world = small(1, 1).await;
    let timeout = Some(Duration::from_millis(50));
    let stalled = world
        .stream_with(VAST, Parameters::default(), timeout)
        .await
        .expect("starts");
    // The only slot is given back although the stream is alive and was never asked.
    assert_eq!(world.rows("SELECT 1").await, ["1"]);
    let mut batches = stalled.collect::<Vec<_>>().await;
    let error = batches.pop().expect("something").expect_err("too late");
    assert_eq!(error.kind(), QueryErrorKind::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_ask_for_more_time_than_the_node_gives() {
    let options = QueryOptions {
        deadline: Duration::from_millis(50),
        ..QueryOptions::default()
    };
    let world = World::with_options(options).await;
    let timeout = Some(Duration::from_secs(3_600));
    let stream = world
        .stream_with(VAST, Parameters::default(), timeout)
        .await
        .expect("starts");
    let error = stream.collect_batches().await.expect_err("takes too long");
    assert_eq!(error.kind(), QueryErrorKind::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_past_the_queue_are_refused() {
    let world = Arc::new(small(1, 1).await);
    let running = world.stream(ENDLESS).await.expect("starts");
    let waiting = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.rows("SELECT 1").await }
    });
    wait_for_states(&world, "queued", 1).await;
    let error = world.error("SELECT 2").await;
    assert_eq!(error.kind(), QueryErrorKind::Overloaded, "{error}");
    drop(running);
    assert_eq!(waiting.await.expect("no panic"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_frees_its_slot_and_memory() {
    let world = small(1, 1).await;
    for sql in [ENDLESS, VAST] {
        let mut stream = world.stream(sql).await.expect("starts");
        if sql == VAST {
            stream.next().await.expect("a batch").expect("of rows");
        }
        drop(stream);
        assert_eq!(world.rows("SELECT 1").await, ["1"]);
    }
    wait_for_states(&world, "cancelled", 2).await;
    // Tasks of the engine end a moment after the one they belong to.
    while world.runtime.memory_bytes_reserved() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_sort_spills_and_a_large_join_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = QueryOptions {
        memory_bytes_max: 30 << 20,
        spill_directory: Some(directory.path().join("spill")),
        target_partitions: 2,
        ..QueryOptions::default()
    };
    let world = World::with_options(options).await;
    let sorted = "SELECT sum(n) FROM (SELECT row_number() OVER (ORDER BY -value) AS n \
                  FROM generate_series(1, 3000000))";
    assert_eq!(world.rows(sorted).await, ["4500001500000"]);

    let join = "SELECT count(*) FROM generate_series(1, 9000000) a \
                JOIN generate_series(1, 9000000) b ON a.value = b.value";
    let error = world.error(join).await;
    assert_eq!(error.kind(), QueryErrorKind::ResourcesExhausted, "{error}");
    assert_eq!(world.rows("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn functions_make_no_more_than_they_may() {
    let world = World::new().await;
    for sql in [
        "SELECT repeat('ab', 2000000000)",
        "SELECT repeat(repeat('a', 100000), 100000)",
        "SELECT max(length(repeat('a', value * 100000))) FROM generate_series(1, 8000)",
        "SELECT lpad('a', 2000000000)",
        "SELECT rpad('a', 2000000000, 'xy')",
        "SELECT replace(repeat('a', 1000000), 'a', repeat('b', 1000000))",
        "SELECT array_repeat(1, 2147483647)",
        "SELECT list_repeat(array_repeat(1, 100000), 100000)",
        "SELECT sum(cardinality(array_repeat(value, value * 100000))) FROM generate_series(1, 8000)",
        "SELECT array_resize([1], 2147483647)",
        "SELECT array_resize([[1]], 100000, array_repeat(1, 100000))",
        "SELECT range(10000000000)",
        "SELECT generate_series(0, -10000000000, -1)",
        "SELECT range(DATE '0001-01-01', DATE '9999-12-31', INTERVAL '1 second')",
        "SELECT generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2027-01-01', INTERVAL '1 microsecond')",
        "SELECT unnest(range(10000000000))",
    ] {
        let error = world.error(sql).await;
        assert_eq!(
            error.kind(),
            QueryErrorKind::ResourcesExhausted,
            "{sql}: {error}"
        );
        assert!(
            error.to_string().contains("would make more than 256 MiB"),
            "{error}"
        );
    }
    // Nothing that ends.
    let still = "SELECT generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2027-01-01', \
                 INTERVAL '1 month -31 days')";
    let error = world.error(still).await;
    assert!(error.to_string().contains("does not get on"), "{error}");
}

#[tokio::test]
async fn functions_make_what_they_always_did() {
    let world = World::new().await;
    let many = "FROM generate_series(1, 20000)";
    for (sql, answer) in [
        (
            "SELECT repeat('ab', 3) || lpad('a', 3, 'x') || rpad('a', 3, '-')",
            "abababxxaa--",
        ),
        (
            "SELECT replace('banana', 'an', 'x'), replace('a', 'b', 'c')",
            "bxxa a",
        ),
        (
            "SELECT array_repeat(1, 3), array_repeat([1, 2], 2)",
            "[1, 1, 1] [[1, 2], [1, 2]]",
        ),
        (
            "SELECT array_repeat(1, -1), repeat('a', -1), array_repeat(NULL, 2)",
            "[]  [, ]",
        ),
        (
            "SELECT array_resize([1], 3), array_resize([1], 2, 7)",
            "[1, , ] [1, 7]",
        ),
        (
            "SELECT range(3), range(1, 3), generate_series(1, 3)",
            "[0, 1, 2] [1, 2] [1, 2, 3]",
        ),
        (
            "SELECT range(3, 1), generate_series(3, 1, -1), range(NULL)",
            "[] [3, 2, 1] ",
        ),
        (
            "SELECT cardinality(generate_series(DATE '2026-01-01', DATE '2026-12-31', INTERVAL '1 month'))",
            "12",
        ),
        (
            "SELECT cardinality(range(TIMESTAMP '2026-01-02', TIMESTAMP '2026-01-01', INTERVAL '-1 hour'))",
            "24",
        ),
        (
            "SELECT cardinality(range(TIMESTAMP '2026-01-01', TIMESTAMP '2027-01-01', \
             INTERVAL '1 month -1 day'))",
            "13",
        ),
        (
            &format!("SELECT sum(length(lpad(value::text, 9, '0'))) {many}"),
            "180000",
        ),
        (
            &format!("SELECT sum(cardinality(range(0, value, 7))) {many}"),
            "28581429",
        ),
        // More than the bound if every row were as the widest, and by far not.
        (
            &format!(
                "SELECT sum(length(repeat(s, n))) FROM (SELECT repeat('a', CASE WHEN value = 1 THEN \
                 100000 ELSE 1 END) AS s, CASE WHEN value = 2 THEN 100000 ELSE 1 END AS n {many})"
            ),
            "219998",
        ),
    ] {
        assert_eq!(world.rows(sql).await, [answer], "{sql}");
    }
}

#[tokio::test]
async fn what_a_killed_process_spilled_is_swept() {
    let directory = tempfile::tempdir().expect("a directory");
    let spill = directory.path().join("spill");
    std::fs::create_dir_all(spill.join("datafusion-old")).expect("made");
    std::fs::write(spill.join("datafusion-old/part"), "x").expect("written");
    let options = QueryOptions {
        spill_directory: Some(spill.clone()),
        ..QueryOptions::default()
    };
    World::with_options(options).await;
    assert!(!spill.join("datafusion-old").exists());
}

#[tokio::test]
async fn the_query_log_tells_what_ran() {
    let world = World::with_flights(&[0..5]).await;
    world.rows("SELECT * FROM flights").await;
    world
        .stream("SELECT 1 / 0")
        .await
        .expect("starts")
        .collect_batches()
        .await
        .expect_err("fails");
    let rows = world
        .rows("SELECT text, state, row_count, requests, client FROM slipstream.queries ORDER BY query_id")
        .await;
    assert_eq!(rows[0], "SELECT * FROM flights completed 5 2 test");
    assert_eq!(rows[1], "SELECT 1 / 0 failed 0 0 test");
    assert!(rows[2].contains("running"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_statements_that_are_taken_run() {
    let world = Arc::new(World::with_flights(&[0..5]).await);
    let count = crate::stack::OPERATORS_MAX - 10;
    let repeat = |part: &str, separator: &str, times: usize| vec![part; times].join(separator);
    let join = |n: usize| format!(" JOIN flights t{n} ON a.month = t{n}.month AND t{n}.month > 0");
    let joins: String = (0..60).map(join).collect();
    for sql in [
        format!("SELECT sum({}) FROM flights", repeat("month", " + ", count)),
        format!(
            "SELECT count(*) FROM flights WHERE {}",
            repeat("month = 9", " OR ", count / 2)
        ),
        format!(
            "SELECT month{} FROM flights",
            "::int::bigint".repeat(count / 2)
        ),
        repeat("SELECT month FROM flights", " UNION ALL ", 100),
        format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)),
        format!("SELECT count(*) FROM flights a{joins}"),
    ] {
        let world = Arc::clone(&world);
        // On a thread of the runtime, whose stack is the usual one.
        let run = tokio::spawn(async move { world.batches(&sql).await.map(|_| ()) });
        run.await.expect("no panic").expect("runs");
    }
}

#[tokio::test]
async fn deeper_statements_are_refused() {
    let chain = vec!["1"; crate::stack::OPERATORS_MAX + 2].join(" + ");
    let error = crate::QuerySession::parse(&format!("SELECT {chain}")).expect_err("too deep");
    assert_eq!(error.kind(), QueryErrorKind::Unsupported);
    assert!(error.to_string().contains("IN (...)"), "{error}");
}
