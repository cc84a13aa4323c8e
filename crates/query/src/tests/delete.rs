//! What a `DELETE` leaves of each extent.

use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use slipstream_catalog::DatabaseOp;
use slipstream_model::{RowLevelSecurity, TableName};

use super::fixture::{DATABASE, World, lines, statement};
use crate::{Deletion, Parameters, QueryError, QueryErrorKind, QueryInfo, delete_parts};

async fn begin(world: &World, sql: &str, parameters: Parameters) -> Result<Deletion, QueryError> {
    let session = world.session();
    let plan = session.plan(statement(sql)).await?;
    let plan = session.bind(plan, parameters)?;
    let delete = delete_parts(&plan).expect("a DELETE");
    session.delete(DATABASE, delete, QueryInfo::default()).await
}

/// For each extent that is looked at: how many of its rows go, and those that stay.
async fn left(world: &World, sql: &str) -> Vec<(u64, Vec<String>)> {
    let deletion = begin(world, sql, Parameters::default()).await;
    let deletion = deletion.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut left = Vec::new();
    for extent in deletion.candidates().expect("a condition") {
        let count = deletion.count(&extent).await.expect("read");
        let kept = deletion.kept(&extent).expect("starts");
        let kept: Vec<_> = kept.try_collect().await.expect("read");
        let rows: usize = kept.iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(count + rows as u64, extent.row_count, "{sql}");
        let kept = if rows == 0 {
            Vec::new()
        } else {
            lines(&kept).split_off(1)
        };
        left.push((count, kept));
    }
    deletion.complete();
    left
}

fn rows(rows: &[&str]) -> Vec<String> {
    rows.iter().map(|row| (*row).to_owned()).collect()
}

#[tokio::test]
async fn extents_that_cannot_hold_such_rows_are_not_looked_at() {
    let world = World::with_flights(&[0..3, 3..6, 6..9]).await;
    let some = "DELETE FROM flights WHERE month >= 4 AND month < 6";
    assert_eq!(left(&world, some).await, [(2, rows(&["3 "]))]);
    let before = world.requests();
    let none = "DELETE FROM flights WHERE month > 50";
    assert!(left(&world, none).await.is_empty());
    assert_eq!(world.requests(), before, "the catalog alone told so");
}

#[tokio::test]
async fn rows_for_which_the_condition_is_not_true_stay_in_their_order() {
    let world = World::with_flights(&[0..6]).await;
    // Carriers of months 0 and 3 are null, and a comparison with null is not true.
    for (condition, count, kept) in [
        (
            "carrier = 'C1'",
            1,
            vec!["0 ", "2 C2", "3 ", "4 C4", "5 C5"],
        ),
        ("carrier <> 'C1'", 3, vec!["0 ", "1 C1", "3 "]),
        ("NOT (carrier = 'C1')", 3, vec!["0 ", "1 C1", "3 "]),
        ("carrier IS NULL", 2, vec!["1 C1", "2 C2", "4 C4", "5 C5"]),
        ("month < 3 OR carrier = 'C5'", 4, vec!["3 ", "4 C4"]),
        ("month > 100 AND carrier IS NULL", 0, vec![]),
        ("true", 6, vec![]),
    ] {
        let sql = format!("DELETE FROM flights WHERE {condition}");
        let left = left(&world, &sql).await;
        if condition.starts_with("month > 100") {
            assert!(left.is_empty(), "{condition}");
        } else {
            assert_eq!(left, [(count, rows(&kept))], "{condition}");
        }
    }
    assert_eq!(left(&world, "DELETE FROM flights").await, [(6, vec![])]);
}

#[tokio::test]
async fn a_condition_may_ask_other_tables_and_the_table_itself() {
    let mut world = World::with_flights(&[0..3, 3..6]).await;
    world.create_table("gone", &super::fixture::flights_schema());
    world.insert("gone", super::fixture::flights(2..4)).await;
    let by_other = "DELETE FROM flights WHERE month IN (SELECT month FROM gone)";
    assert_eq!(
        left(&world, by_other).await,
        [(1, rows(&["0 ", "1 C1"])), (1, rows(&["4 C4", "5 C5"]))]
    );
    // The whole table is asked, not the one extent that is read.
    let by_itself = "DELETE FROM flights WHERE month = (SELECT max(month) FROM flights)";
    assert_eq!(
        left(&world, by_itself).await,
        [
            (0, rows(&["0 ", "1 C1", "2 C2"])),
            (1, rows(&["3 ", "4 C4"]))
        ]
    );
}

#[tokio::test]
async fn a_hidden_row_is_not_deleted() {
    let mut world = World::with_flights(&[0..3]).await;
    world.change(DatabaseOp::SetRowLevelSecurity {
        table: TableName::new("flights").expect("a name"),
        policy: Some(RowLevelSecurity {
            is_enabled: true,
            predicate: "month <> 1".to_owned(),
        }),
    });
    let expected = [(2, rows(&["1 C1"]))];
    assert_eq!(left(&world, "DELETE FROM flights").await, expected);
    assert_eq!(
        left(&world, "DELETE FROM flights WHERE month >= 0").await,
        expected
    );
}

#[tokio::test]
async fn parameters_are_bound_and_a_condition_by_chance_is_refused() {
    let world = World::with_flights(&[0..3]).await;
    let sql = "DELETE FROM flights_db.flights WHERE month = $1";
    let parameters = Parameters::positional(vec![ScalarValue::from(2_i32)]);
    let deletion = begin(&world, sql, parameters).await.expect("begins");
    let extents = deletion.candidates().expect("a condition");
    assert_eq!(deletion.count(&extents[0]).await.expect("read"), 1);
    deletion.fail("for a reason");
    let log = world
        .rows("SELECT state, error FROM slipstream.queries WHERE error IS NOT NULL")
        .await;
    assert_eq!(log, ["failed for a reason"]);
    for by_chance in [
        "random() < 0.5",
        "month = (SELECT CAST(max(month) * random() AS BIGINT) FROM flights)",
        "month IN (SELECT month FROM flights LIMIT 1)",
    ] {
        let sql = format!("DELETE FROM flights WHERE {by_chance}");
        let error = begin(&world, &sql, Parameters::default()).await;
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), QueryErrorKind::Unsupported, "{error}");
    }
    let missing = world.session().plan(statement("DELETE FROM fligths")).await;
    let missing = missing.expect_err("no such table").to_string();
    assert!(missing.contains("did you mean 'flights'"), "{missing}");
}
