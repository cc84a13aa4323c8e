//! Stored functions and row-level security.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use slipstream_catalog::{DatabaseOp, PutMode};
use slipstream_model::{
    EntityId, FunctionName, FunctionParameter, RowLevelSecurity, StoredFunction, TableName,
};
use uuid::Uuid;

use super::fixture::{DATABASE, World};
use crate::{QueryErrorKind, QuerySession};

fn function(
    name: &str,
    parameters: &[(&str, DataType, Option<&str>)],
    body: &str,
) -> StoredFunction {
    let parameters = parameters
        .iter()
        .map(|(name, data_type, default)| FunctionParameter {
            field: Arc::new(Field::new(*name, data_type.clone(), true)),
            default: default.map(str::to_owned),
        });
    StoredFunction {
        name: FunctionName::new(name).expect("a name"),
        parameters: parameters.collect(),
        body: body.to_owned(),
        docstring: String::new(),
        folder: String::new(),
    }
}

fn put(function: StoredFunction) -> DatabaseOp {
    let id = u128::from(function.name.as_str().len() as u64) << 64
        | u128::from(function.name.as_str().as_bytes()[0]);
    DatabaseOp::PutFunction {
        id: EntityId::new(Uuid::from_u128(id)),
        function: Arc::new(function),
        mode: PutMode::Create,
    }
}

fn secure(predicate: &str, is_enabled: bool) -> DatabaseOp {
    DatabaseOp::SetRowLevelSecurity {
        table: TableName::new("flights").expect("a name"),
        policy: Some(RowLevelSecurity {
            is_enabled,
            predicate: predicate.to_owned(),
        }),
    }
}

#[tokio::test]
async fn a_function_is_a_query_with_its_parameters_filled_in() {
    let mut world = World::with_flights(&[0..10]).await;
    world.change(put(function(
        "after",
        &[
            ("from", DataType::Int64, None),
            ("count", DataType::Int64, Some("2")),
        ],
        "SELECT month FROM flights WHERE month > $from ORDER BY month LIMIT $count",
    )));
    assert_eq!(world.rows("SELECT * FROM after(3)").await, ["4", "5"]);
    assert_eq!(world.rows("SELECT * FROM after(3 + 1, 1)").await, ["5"]);
    assert_eq!(
        world.rows("SELECT sum(month) FROM after('7')").await,
        ["17"]
    );
    let joined = "SELECT a.month FROM after(1, 3) a JOIN after(2, 3) b ON a.month = b.month \
                  ORDER BY 1";
    assert_eq!(world.rows(joined).await, ["3", "4"]);
}

#[tokio::test]
async fn a_function_may_call_others_but_not_itself_for_ever() {
    let mut world = World::with_flights(&[0..10]).await;
    world.change(put(function(
        "inner",
        &[],
        "SELECT * FROM flights WHERE month < 5",
    )));
    world.change(put(function(
        "outer_one",
        &[],
        "SELECT count(*) AS n FROM inner()",
    )));
    world.change(put(function("self", &[], "SELECT * FROM self()")));
    assert_eq!(world.rows("SELECT n FROM outer_one()").await, ["5"]);
    let error = world.error("SELECT * FROM self()").await;
    assert_eq!(error.kind(), QueryErrorKind::Planning);
    assert!(
        error.to_string().contains("Does it call itself?"),
        "{error}"
    );
}

#[tokio::test]
async fn a_call_that_does_not_fit_says_which_argument() {
    let mut world = World::with_flights(&[0..10]).await;
    let parameters = [("from", DataType::Int64, None)];
    let body = "SELECT * FROM flights WHERE month > $from";
    world.change(put(function("after", &parameters, body)));
    for (sql, expected) in [
        ("SELECT * FROM after()", "without its argument 'from'"),
        (
            "SELECT * FROM after(1, 2)",
            "takes 1 arguments, and 2 are given",
        ),
        ("SELECT * FROM after('x')", "argument 'from' is no Int64"),
    ] {
        let error = world.error(sql).await;
        assert_eq!(error.kind(), QueryErrorKind::Planning, "{sql}: {error}");
        assert!(error.to_string().contains(expected), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_function_that_is_not_there_is_named() {
    let world = World::with_flights(&[0..2]).await;
    let error = world.error("SELECT * FROM aftr(1)").await;
    assert!(error.to_string().contains("'aftr'"), "{error}");
}

#[test]
fn only_one_query_is_kept_as_a_function() {
    for body in [
        "SELECT 1; SELECT 2",
        "DROP TABLE flights",
        "SELEC 1",
        "INSERT INTO t VALUES (1)",
    ] {
        let kept = QuerySession::check_function(&function("f", &[], body));
        assert!(kept.is_err(), "{body}");
    }
    assert!(QuerySession::check_function(&function("f", &[], "SELECT * FROM later")).is_ok());
}

#[tokio::test]
async fn a37_rows_are_hidden_by_principal_and_by_cluster() {
    let mut world = World::with_flights(&[0..6, 6..12]).await;
    let predicate = "carrier = current_principal() OR current_cluster_endpoint() = 'leader'";
    world.change(secure(predicate, true));
    let sums = "SELECT count(*), min(month), max(month) FROM flights";
    for (principal, endpoint, expected) in [
        ("C4", "follower", "1 4 4"),
        ("nobody", "follower", "0"),
        ("nobody", "leader", "12 0 11"),
    ] {
        let rows = world.rows_as(principal, endpoint, sums).await;
        assert_eq!(rows[0].trim(), expected, "{principal} at {endpoint}");
    }
    // A function of the database sees no more than whoever calls it.
    world.change(put(function("everything", &[], "SELECT * FROM flights")));
    let rows = world
        .rows_as("C4", "follower", "SELECT month FROM everything()")
        .await;
    assert_eq!(rows, ["4"]);

    world.change(secure(predicate, false));
    let rows = world.rows_as("nobody", "follower", sums).await;
    assert_eq!(rows, ["12 0 11"], "a policy that is off hides nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_condition_is_asked_of_hidden_rows() {
    let conditions = [
        "CASE WHEN month > 2 THEN CAST(carrier AS INT) ELSE 1 END = 1",
        "1 / (month - 4) < 100",
    ];
    // A condition that is cheaper than the policy's would be asked first.
    for policy in [
        "month < 2",
        "carrier IS NULL OR carrier LIKE 'X%'",
        "month + 1 < 3",
    ] {
        let mut far = World::with_flights(&[0..6, 6..12]).await;
        far.change(secure(policy, true));
        let near = {
            let mut world = World::with_flights(&[0..6, 6..12]).await;
            world.change(secure(policy, true));
            world.near(1).await
        };
        for (world, form) in [(&far, "far"), (&near, "near")] {
            for condition in conditions {
                let sql = format!("SELECT count(*) FROM flights WHERE {condition}");
                let answer = world.batches(&sql).await;
                assert!(answer.is_ok(), "{form}: {policy}: {condition}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_fail_prunes_below_a_policy() {
    let mut world = World::with_flights(&[0..6, 6..12]).await;
    world.change(secure("carrier IS NOT NULL OR month >= 0", true));
    let sql = "SELECT count(*) FROM flights WHERE month >= 8 AND carrier || 'x' <> 'y'";
    let plan = world.rows(&format!("EXPLAIN {sql}")).await.join("\n");
    let scan = plan.split("DataSourceExec").nth(1).expect("a scan");
    let files = scan.lines().next().unwrap_or_default();
    assert_eq!(files.matches(".parquet").count(), 1, "{plan}");
    assert_eq!(world.rows(sql).await, ["3"]);
}

#[tokio::test]
async fn who_asks_can_be_asked() {
    let world = World::with_flights(&[0..1]).await;
    let sql = "SELECT current_principal() || ' at ' || current_cluster_endpoint()";
    assert_eq!(world.rows_as("ada", "north", sql).await, ["ada at north"]);
}

#[tokio::test]
async fn a_predicate_that_is_no_condition_of_the_table_is_refused() {
    let world = World::with_flights(&[0..1]).await;
    let check = |predicate: &str| {
        let policy = RowLevelSecurity {
            is_enabled: true,
            predicate: predicate.to_owned(),
        };
        world
            .session()
            .check_row_level_security(DATABASE, "flights", &policy)
    };
    assert!(check("carrier = current_principal()").is_ok());
    for predicate in ["carier = 'x'", "month +", "month + 1", ""] {
        let error = check(predicate).expect_err(predicate);
        assert_eq!(
            error.kind(),
            QueryErrorKind::Planning,
            "{predicate}: {error}"
        );
    }
}
