//! Which statements are taken, and what plans of changes look like.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::Statement as Sql;

use super::fixture::{World, flights_schema, lines, statement};
use crate::{
    Parameters, QueryErrorKind, QueryInfo, QuerySession, Statement, create_table_parts,
    insert_parts,
};

#[tokio::test]
async fn read_only_refuses_each_kind_of_statement() {
    let world = World::with_flights(&[0..2]).await;
    for (sql, words) in [
        ("INSERT INTO flights VALUES (1, 'a')", "INSERT"),
        ("INSERT INTO flights SELECT * FROM flights", "INSERT"),
        ("CREATE TABLE t (a INT)", "CREATE TABLE"),
        ("CREATE TABLE t AS SELECT 1", "CREATE TABLE"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE VIEW"),
        ("CREATE DATABASE d", "CREATE DATABASE"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE EXTERNAL TABLE",
        ),
        ("DROP TABLE flights", "DROP TABLE"),
        ("ALTER TABLE flights ADD COLUMN x INT", "ALTER TABLE"),
        ("UPDATE flights SET month = 1", "UPDATE"),
        ("DELETE FROM flights", "DELETE"),
        ("TRUNCATE TABLE flights", "TRUNCATE"),
        ("COPY flights TO '/tmp/x.csv'", "COPY"),
        ("COPY (SELECT 1) TO '/tmp/x.parquet'", "COPY"),
        (
            "EXPLAIN INSERT INTO flights VALUES (1, 'a')",
            "EXPLAIN of INSERT",
        ),
        (
            "EXPLAIN ANALYZE INSERT INTO flights SELECT * FROM flights",
            "EXPLAIN of INSERT",
        ),
        ("EXPLAIN COPY flights TO '/tmp/x.csv'", "EXPLAIN of COPY"),
        (
            "EXPLAIN CREATE TABLE t AS SELECT 1",
            "EXPLAIN of CREATE TABLE",
        ),
        ("SELECT 1 INTO t", "queries"),
    ] {
        let error = world.plan(sql).await.expect_err(sql);
        assert_eq!(error.kind(), QueryErrorKind::ReadOnly, "{sql}: {error}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn what_no_node_takes_says_what_to_do_instead() {
    let world = World::with_flights(&[0..2]).await;
    for sql in [
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "START TRANSACTION",
        "COMMIT",
        "PREPARE p AS SELECT 1",
        "USE other",
        "SHOW DATABASES",
    ] {
        let error = world.plan(sql).await.expect_err(sql);
        assert_eq!(error.kind(), QueryErrorKind::Unsupported, "{sql}: {error}");
        assert!(
            error.to_string().contains("is not supported: "),
            "{sql}: {error}"
        );
    }
}

#[tokio::test]
async fn reading_statements_of_all_kinds_run() {
    let world = World::with_flights(&[0..2]).await;
    for sql in [
        "SELECT * FROM flights",
        "WITH f AS (SELECT * FROM flights) SELECT * FROM f",
        "VALUES (1), (2)",
        "EXPLAIN SELECT * FROM flights",
        "EXPLAIN VERBOSE SELECT * FROM flights",
        "EXPLAIN ANALYZE SELECT * FROM flights",
        "EXPLAIN FORMAT TREE SELECT * FROM flights",
        "SHOW TABLES",
        "SHOW COLUMNS FROM flights",
        "SHOW ALL",
        "DESCRIBE flights",
        "SELECT * FROM flights UNION ALL SELECT 1, 'x' ORDER BY 1",
    ] {
        assert!(!world.rows(sql).await.is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn a_leader_refuses_what_it_cannot_do() {
    let world = World::with_flights(&[0..2]).await;
    for sql in [
        "UPDATE flights SET month = 1",
        "DELETE FROM flights LIMIT 1",
        "TRUNCATE TABLE flights",
        "EXPLAIN DELETE FROM flights",
        "COPY flights TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "INSERT OVERWRITE flights VALUES (1, 'a')",
        "REPLACE INTO flights VALUES (1, 'a')",
        "CREATE TABLE t (a INT PRIMARY KEY)",
        "CREATE TABLE t (a INT DEFAULT 7)",
        "EXPLAIN INSERT INTO flights VALUES (1, 'a')",
        "SET x = 1",
    ] {
        let error = world.session().plan(statement(sql)).await.expect_err(sql);
        assert_eq!(error.kind(), QueryErrorKind::Unsupported, "{sql}: {error}");
    }
}

/// The rows that an `INSERT` would add.
async fn inserted(world: &World, sql: &str, parameters: Parameters) -> Vec<String> {
    let session = world.session();
    let plan = session
        .plan(statement(sql))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = session
        .bind(plan, parameters)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let insert = insert_parts(&plan).expect("an insert");
    assert_eq!(insert.table.1, "flights");
    let types: Vec<_> = insert
        .input
        .schema()
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect();
    assert_eq!(types, [DataType::Int64, DataType::Utf8], "{sql}");
    let stream = session
        .execute(insert.input, QueryInfo::default())
        .await
        .expect("runs");
    assert_eq!(stream.schema().field(0).name(), "month");
    lines(&stream.collect_batches().await.expect("rows")).split_off(1)
}

#[tokio::test]
async fn inserts_are_coerced_to_the_columns_of_the_table() {
    let world = World::with_flights(&[0..2]).await;
    let none = Parameters::default;
    let values = "INSERT INTO flights VALUES (1, 'a'), (2, NULL)";
    assert_eq!(
        inserted(&world, values, none()).await,
        ["1 a", "2"].map(padded)
    );
    let swapped = "INSERT INTO flights_db.flights (carrier, month) VALUES ('b', '7')";
    assert_eq!(inserted(&world, swapped, none()).await, ["7 b"]);
    let partial = "INSERT INTO flights (carrier) VALUES ('c')";
    assert_eq!(inserted(&world, partial, none()).await, [" c"]);
    let select = "INSERT INTO flights (month) SELECT cast(month AS INT) + 10 FROM flights";
    assert_eq!(
        inserted(&world, select, none()).await,
        ["10", "11"].map(padded)
    );
    let parameters = Parameters::positional(vec![ScalarValue::from(3_i32), ScalarValue::from("d")]);
    let bound = "INSERT INTO flights VALUES ($1, $2)";
    assert_eq!(inserted(&world, bound, parameters).await, ["3 d"]);
    let parameters = Parameters::positional(vec!["4".into(), ScalarValue::Null]);
    assert_eq!(inserted(&world, bound, parameters).await, ["4"].map(padded));
}

/// A row whose last cell is empty.
fn padded(row: &str) -> String {
    if row.contains(' ') {
        row.to_owned()
    } else {
        format!("{row} ")
    }
}

#[tokio::test]
async fn a_wrong_insert_is_explained() {
    let world = World::with_flights(&[0..2]).await;
    for (sql, words) in [
        (
            "INSERT INTO fligths VALUES (1, 'a')",
            "did you mean 'flights'",
        ),
        (
            "INSERT INTO flights (mont) VALUES (1)",
            "there is no column 'mont'",
        ),
        ("INSERT INTO flights VALUES (1)", "expected 2"),
    ] {
        let error = world.session().plan(statement(sql)).await.expect_err(sql);
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn create_table_is_taken_apart() {
    let world = World::with_flights(&[0..2]).await;
    let plan = |sql: &'static str| {
        let session = world.session_in(None);
        async move {
            session
                .plan(statement(sql))
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"))
        }
    };
    let create = create_table_parts(
        &plan("CREATE TABLE IF NOT EXISTS d.T2 (a INT NOT NULL, \"B\" TEXT, c TIMESTAMP, d DECIMAL(10, 2))")
            .await,
    )
    .expect("a table");
    assert_eq!(create.name, (Some("d".to_owned()), "t2".to_owned()));
    assert!(create.if_not_exists && !create.or_replace && create.input.is_none());
    assert_eq!(
        create.schema,
        Schema::new(vec![
            Field::new("a", DataType::Int32, false),
            Field::new("B", DataType::Utf8, true),
            Field::new("c", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
            Field::new("d", DataType::Decimal128(10, 2), true),
        ])
    );
    let create = create_table_parts(
        &plan("CREATE OR REPLACE TABLE t AS SELECT month AS m, NULL AS n FROM flights_db.flights")
            .await,
    )
    .expect("a table");
    assert!(create.or_replace);
    let input = create.input.expect("rows");
    let types = |schema: &Schema| -> Vec<_> {
        schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect()
    };
    assert_eq!(types(&create.schema), types(input.schema().as_arrow()));
    assert_eq!(create.schema.field(1).data_type(), &DataType::Utf8);
    let stream = world
        .session()
        .execute(input, QueryInfo::default())
        .await
        .expect("runs");
    assert_eq!(
        stream.collect_batches().await.expect("rows")[0].num_columns(),
        2
    );
    assert!(insert_parts(&plan("SELECT 1").await).is_none());
}

#[tokio::test]
async fn parameters_are_described_and_bound() {
    let world = World::with_flights(&[0..20]).await;
    let sql = "SELECT month FROM flights WHERE month BETWEEN $1 AND $2 AND carrier = $3";
    let plan: LogicalPlan = world.plan(sql).await.expect("plans");
    let schema = QuerySession::parameter_schema(&plan).expect("described");
    let described: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    assert_eq!(
        described,
        [
            ("$1", DataType::Int64),
            ("$2", DataType::Int64),
            ("$3", DataType::Utf8)
        ]
    );
    let values = vec![ScalarValue::from(5_i32), "12".into(), "C7".into()];
    let stream = world
        .stream_with(sql, Parameters::positional(values), None)
        .await
        .expect("runs");
    assert_eq!(
        lines(&stream.collect_batches().await.expect("rows"))[1..],
        ["7"]
    );

    let named = "SELECT month FROM flights WHERE month = $wanted";
    let parameters = Parameters::named([("wanted", ScalarValue::from(4_i64))]);
    let stream = world
        .stream_with(named, parameters, None)
        .await
        .expect("runs");
    assert_eq!(
        lines(&stream.collect_batches().await.expect("rows"))[1..],
        ["4"]
    );

    let halves = Parameters::positional(vec![ScalarValue::from(4.5_f64)]);
    let stream = world
        .stream_with("SELECT month FROM flights WHERE month = $1", halves, None)
        .await
        .expect("runs");
    assert!(stream.collect_batches().await.expect("no rows").is_empty());
}

#[tokio::test]
async fn missing_and_needless_parameters_are_errors() {
    let world = World::with_flights(&[0..2]).await;
    for (sql, parameters, words) in [
        (
            "SELECT * FROM flights WHERE month = $1",
            Parameters::default(),
            "parameter $1",
        ),
        (
            "SELECT 1",
            Parameters::positional(vec!["x".into()]),
            "has no parameters",
        ),
        (
            "SELECT * FROM flights WHERE month = $1",
            Parameters::positional(vec!["soon".into()]),
            "parameter $1 cannot be read as Int64",
        ),
    ] {
        let error = world
            .stream_with(sql, parameters, None)
            .await
            .expect_err(sql);
        assert_eq!(error.kind(), QueryErrorKind::Planning);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn parameters_of_a_row_are_positional() {
    let batch = super::fixture::flights(7..8);
    let parameters = Parameters::from_row(&batch, 0).expect("a row");
    assert_eq!(
        parameters,
        Parameters::positional(vec![7_i64.into(), "C7".into()])
    );
    assert!(Parameters::from_row(&batch, 1).is_err());
    assert_eq!(batch.schema(), flights_schema());
}

#[tokio::test]
async fn malformed_sql_says_where() {
    let error = QuerySession::parse("SELECT * FORM flights WHERE").expect_err("not SQL");
    assert_eq!(error.kind(), QueryErrorKind::Syntax);
    assert!(error.to_string().contains("Line: 1"), "{error}");
    let nested = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(
        QuerySession::parse(&nested).expect_err("too deep").kind(),
        QueryErrorKind::Unsupported
    );
}

#[test]
fn a_column_definition_becomes_a_field() {
    let statement = statement("ALTER TABLE t ADD COLUMN \"When\" TIMESTAMP");
    let Statement::Statement(statement) = statement else {
        panic!("SQL")
    };
    let Sql::AlterTable(alter) = *statement else {
        panic!("ALTER TABLE")
    };
    let operation = alter.operations.into_iter().next().expect("one");
    let datafusion::sql::sqlparser::ast::AlterTableOperation::AddColumn { column_def, .. } =
        operation
    else {
        panic!("ADD COLUMN")
    };
    let field = QuerySession::column_field(&column_def, true).expect("a type");
    assert_eq!(field.name(), "When");
    assert!(field.is_nullable());
    assert!(
        !QuerySession::column_field(&column_def, false)
            .expect("a type")
            .is_nullable()
    );
}
