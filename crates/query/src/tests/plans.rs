//! Plans that are remembered.

use slipstream_catalog::{DatabaseOp, PutMode};
use slipstream_model::{EntityId, FunctionName, RowLevelSecurity, StoredFunction, TableName};
use std::sync::Arc;
use uuid::Uuid;

use super::fixture::{DATABASE, World, flights, lines};
use super::local::{QUERIES, world};
use crate::QueryStatistics;

const COUNTS: &str =
    "SELECT carrier, count(*) AS n FROM flights WHERE month > 5 GROUP BY carrier ORDER BY 1";

/// The answer, what it cost, and whether its plan was remembered.
async fn ask(world: &World, principal: &str, sql: &str) -> (Vec<String>, QueryStatistics, bool) {
    let (stream, was_known) = world.ask_again(principal, sql).await;
    let meter = stream.meter();
    let batches = stream.collect_batches().await;
    let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error}"));
    (lines(&batches), meter.read(), was_known)
}

async fn is_known(world: &World, sql: &str) -> bool {
    ask(world, "", sql).await;
    ask(world, "", sql).await.2
}

#[tokio::test]
async fn what_is_asked_again_has_the_same_answer_and_cost() {
    for step in [1, 2] {
        let world = world().await.near(step).await;
        let mut known = 0;
        for sql in QUERIES {
            let (first, first_cost, _) = ask(&world, "", sql).await;
            let (again, again_cost, was_known) = ask(&world, "", sql).await;
            assert_eq!(first, again, "{sql}");
            if was_known {
                known += 1;
                assert_eq!(first_cost.rows, again_cost.rows, "{sql}");
                for (table, reads) in &first_cost.tables {
                    let again = &again_cost.tables[table];
                    assert_eq!(reads.extents_total, again.extents_total, "{sql}");
                    assert_eq!(reads.extents_scanned, again.extents_scanned, "{sql}");
                    assert_eq!(reads.hot_hit_bytes > 0, again.hot_hit_bytes > 0, "{sql}");
                }
            }
        }
        assert!(
            known >= 8,
            "{known} of {} plans were remembered",
            QUERIES.len()
        );
    }
}

#[tokio::test]
async fn a_followers_plans_are_remembered_too() {
    let mut world = world().await.near(1).await;
    world.followed.insert(DATABASE.to_owned());
    assert!(is_known(&world, COUNTS).await);
}

#[tokio::test]
async fn plans_run_side_by_side() {
    let world = world().await.near(1).await;
    let (expected, _, _) = ask(&world, "", COUNTS).await;
    let answers = (0..8).map(|_| ask(&world, "", COUNTS));
    for (answer, cost, was_known) in futures::future::join_all(answers).await {
        assert_eq!(answer, expected);
        assert!(was_known);
        assert_eq!(cost.reads.extents_scanned, 6);
    }
}

#[tokio::test]
async fn a_change_of_the_table_is_seen_and_one_of_another_is_not_waited_for() {
    let mut world = World::with_flights(&[0..10]).await.near(1).await;
    let sql = "SELECT count(*) FROM flights WHERE month > 5";
    assert_eq!(ask(&world, "", sql).await.0, ["count(*)", "4"]);
    let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
        "a",
        arrow::datatypes::DataType::Int64,
        true,
    )]);
    world.create_table("other", &schema);
    let (answer, _, was_known) = ask(&world, "", sql).await;
    assert_eq!(answer, ["count(*)", "4"]);
    assert!(was_known, "another table has nothing to do with it");
    world.insert("flights", flights(10..12)).await;
    let (answer, _, was_known) = ask(&world, "", sql).await;
    assert_eq!(answer, ["count(*)", "6"]);
    assert!(!was_known);
}

#[tokio::test]
async fn a_query_over_little_data_is_one_tasks() {
    let world = world().await.near(1).await;
    for sql in [
        "SELECT carrier, count(*) FROM flights WHERE month > 5 GROUP BY carrier",
        "SELECT DISTINCT carrier FROM flights ORDER BY carrier",
        // The tasks of many would tell each other's scans what they found.
        "SELECT max(month) FROM flights WHERE carrier = 'C1'",
    ] {
        let plan = world.rows(&format!("EXPLAIN {sql}")).await.join("\n");
        assert!(!plan.contains("RepartitionExec"), "{plan}");
        assert!(!plan.contains("CoalescePartitionsExec"), "{plan}");
        assert!(is_known(&world, sql).await, "{sql}");
    }
    // What makes many rows of few is shared out as ever.
    let sql = "SELECT f.month, count(*) FROM flights f CROSS JOIN flights g GROUP BY f.month";
    let plan = world.rows(&format!("EXPLAIN {sql}")).await.join("\n");
    assert!(plan.contains("RepartitionExec"), "{plan}");
}

#[tokio::test]
async fn what_depends_on_more_than_tables_is_planned_each_time() {
    let mut world = world().await.near(1).await;
    assert!(is_known(&world, "SELECT count(*) FROM flights WHERE month > 5").await);
    for sql in [
        "SELECT count(*) FROM flights WHERE now() > '2013-01-01' AND month > 5",
        "SELECT month, random() FROM flights WHERE month < 5",
        "SELECT count(*) FROM flights WHERE carrier = current_principal()",
        // What one side of the join holds is told to the scan of the other.
        "SELECT count(*) FROM flights f JOIN carriers c ON f.carrier = c.code WHERE c.name = 'x'",
        "SELECT month FROM flights ORDER BY month DESC LIMIT 5",
        "SELECT count(*) FROM slipstream.tables",
        "EXPLAIN SELECT count(*) FROM flights WHERE month > 5",
        "SELECT count(*) FROM datascope('flights', 'hotcache') WHERE month > 5",
    ] {
        assert!(!is_known(&world, sql).await, "{sql}");
    }
    let function = StoredFunction {
        name: FunctionName::new("late").expect("a name"),
        parameters: Vec::new().into_iter().collect(),
        body: "SELECT * FROM flights WHERE month > 50000".to_owned(),
        docstring: String::new(),
        folder: String::new(),
    };
    world.change(DatabaseOp::PutFunction {
        id: EntityId::new(Uuid::from_u128(1)),
        function: Arc::new(function),
        mode: PutMode::Create,
    });
    assert!(!is_known(&world, "SELECT count(*) FROM late() WHERE month > 0").await);
    assert!(is_known(&world, "SELECT count(*) FROM flights WHERE month > 7").await);
}

#[tokio::test]
async fn a_plan_is_its_askers_alone_and_a_policy_makes_it_another() {
    let mut world = world().await.near(1).await;
    let sql = "SELECT count(*) FROM flights WHERE month >= 0";
    assert_eq!(
        ask(&world, "aaduser=ada", sql).await.0,
        ["count(*)", "60000"]
    );
    assert!(!ask(&world, "aaduser=eve", sql).await.2);
    assert!(ask(&world, "aaduser=ada", sql).await.2);
    world.change(DatabaseOp::SetRowLevelSecurity {
        table: TableName::new("flights").expect("a name"),
        policy: Some(RowLevelSecurity {
            is_enabled: true,
            predicate: "month < 10 AND current_principal() = 'aaduser=ada'".to_owned(),
        }),
    });
    for _ in 0..2 {
        assert_eq!(ask(&world, "aaduser=ada", sql).await.0, ["count(*)", "10"]);
        assert_eq!(ask(&world, "aaduser=eve", sql).await.0, ["count(*)", "0"]);
    }
}
