//! Names: databases, tables, columns, and what is said when there is none.

use super::fixture::{World, statement};
use crate::QueryErrorKind;

async fn complaint(world: &World, default: Option<&str>, sql: &str) -> (QueryErrorKind, String) {
    let session = world.session_in(default);
    let error = session
        .plan_read_only(statement(sql))
        .await
        .expect_err("unknown name");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn names_fold_and_quote() {
    let mut world = World::with_flights(&[0..2]).await;
    world.create_table("Mixed", &super::fixture::flights_schema());
    assert_eq!(
        world.rows("SELECT COUNT(*) FROM FLIGHTS_DB.Flights").await,
        ["2"]
    );
    assert_eq!(world.rows("SELECT count(*) FROM \"Mixed\"").await, ["0"]);
    assert_eq!(
        world
            .rows("SELECT count(*) FROM cluster.flights_db.flights")
            .await,
        ["2"]
    );
    let (kind, message) = complaint(&world, Some("flights_db"), "SELECT * FROM mixed").await;
    assert_eq!(kind, QueryErrorKind::NotFound);
    assert!(message.contains("did you mean '\"Mixed\"'?"), "{message}");
}

#[tokio::test]
async fn an_unknown_table_is_named_with_its_database_and_a_near_match() {
    let world = World::with_flights(&[0..2]).await;
    let (kind, message) = complaint(&world, Some("flights_db"), "SELECT * FROM fligths").await;
    assert_eq!(kind, QueryErrorKind::NotFound);
    assert_eq!(
        message,
        "there is no table 'fligths' in database 'flights_db': did you mean 'flights'?"
    );
    let (_, message) = complaint(&world, None, "SELECT * FROM flights_bd.flights").await;
    assert_eq!(
        message,
        "there is no database 'flights_bd': did you mean 'flights_db'?"
    );
    let (_, message) = complaint(&world, None, "SELECT * FROM other.flights_db.flights").await;
    assert!(message.contains("there is no catalog 'other'"), "{message}");
    let (_, message) = complaint(&world, None, "SELECT * FROM slipstream.extent").await;
    assert!(message.contains("did you mean 'extents'?"), "{message}");
}

#[tokio::test]
async fn without_a_database_a_bare_name_is_explained() {
    let world = World::with_flights(&[0..2]).await;
    let (kind, message) = complaint(&world, None, "SELECT * FROM flights").await;
    assert_eq!(kind, QueryErrorKind::NotFound);
    assert!(message.contains("write database.flights"), "{message}");
    let session = world.session_in(None);
    session
        .plan_read_only(statement("SELECT * FROM flights_db.flights"))
        .await
        .expect("qualified");
}

#[tokio::test]
async fn an_unknown_column_is_named_with_its_table() {
    let world = World::with_flights(&[0..2]).await;
    let (kind, message) = complaint(&world, Some("flights_db"), "SELECT carier FROM flights").await;
    assert_eq!(kind, QueryErrorKind::Planning);
    assert_eq!(
        message,
        "there is no column 'carier' in flights: did you mean 'carrier'?; \
         the columns are month, carrier"
    );
    let (kind, message) = complaint(&world, None, "SELECT no_such(1)").await;
    assert_eq!(kind, QueryErrorKind::Planning);
    assert!(message.contains("no_such"), "{message}");
}

#[tokio::test]
async fn information_schema_lists_databases_and_system_tables() {
    let world = World::with_flights(&[0..2]).await;
    let rows = world
        .rows(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_schema <> 'information_schema' ORDER BY 1, 2",
        )
        .await;
    assert_eq!(
        rows,
        [
            "flights_db flights",
            "slipstream databases",
            "slipstream extents",
            "slipstream followers",
            "slipstream leases",
            "slipstream queries",
            "slipstream tables",
        ]
    );
    let rows = world
        .rows(
            "SELECT column_name, data_type FROM information_schema.columns \
             WHERE table_name = 'flights' ORDER BY ordinal_position",
        )
        .await;
    assert_eq!(rows, ["month Int64", "carrier Utf8"]);
    assert_eq!(
        world.rows("DESCRIBE flights").await,
        ["month Int64 YES", "carrier Utf8 YES"]
    );
    assert!(
        world
            .rows("SHOW TABLES")
            .await
            .iter()
            .any(|row| row.contains("flights_db flights"))
    );
}

#[tokio::test]
async fn system_tables_tell_of_databases_tables_and_extents() {
    let mut world = World::with_flights(&[0..2]).await;
    let extent = world.insert("flights", super::fixture::flights(2..7)).await;
    let rows = world
        .rows(
            "SELECT database_name, database_access_mode, version, lag_ms, table_count, \
             extent_count, row_count, leader FROM slipstream.databases",
        )
        .await;
    assert_eq!(rows, ["flights_db ReadWrite 0 1500 1 2 7 "]);
    let rows = world
        .rows(
            "SELECT database_name, table_name, column_count, extent_count, row_count \
             FROM slipstream.tables",
        )
        .await;
    assert_eq!(rows, ["flights_db flights 2 2 7"]);
    let rows = world
        .rows(
            "SELECT extent_id, table_name, row_count, tags, sha256, path, max_created_on \
             FROM slipstream.extents WHERE row_count = 5",
        )
        .await;
    let path = world.extent_path(&extent);
    let expected = format!(
        "{} flights 5 [\"source \\\"a\\\"\"] {} {path} 2013-01-01T00:00:02Z",
        extent.id, extent.sha256
    );
    assert_eq!(rows, [expected]);
    assert_eq!(
        world.rows("SELECT count(*) FROM slipstream.extents").await,
        ["2"]
    );
    assert_eq!(
        world
            .rows("SELECT follower_cluster FROM slipstream.followers")
            .await,
        ["dashboards"]
    );
    assert!(
        world
            .rows("SELECT * FROM slipstream.leases")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn system_tables_make_rows_as_far_as_they_are_asked() {
    let world = World::with_flights(&[0..2, 2..4]).await;
    let before = world.requests();
    assert_eq!(
        world
            .rows("SELECT row_count FROM slipstream.extents LIMIT 1")
            .await,
        ["2"]
    );
    assert_eq!(world.requests(), before);
}

#[tokio::test]
async fn files_of_the_machine_cannot_be_named() {
    let world = World::with_flights(&[]).await;
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'file:///etc/passwd.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('x.parquet')",
    ] {
        complaint(&world, Some("flights_db"), sql).await;
    }
}
