//! Arrow Flight SQL, as its Rust client speaks it. (`tests/python/adbc.py` does the same with ADBC.)

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetTables, CommandStatementIngest, SqlInfo, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightInfo};
use futures::TryStreamExt;
use serde_json::Value;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Node, Site, Store};
use crate::types::small_batch;

type Flight = FlightSqlServiceClient<Channel>;

#[tokio::test(flavor = "multi_thread")]
async fn flight_sql_answers_on_leader_and_follower() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = site.follower("follower", &leader).await?;
        leader.create_database("d").await?;
        leader
            .sql("d", "CREATE TABLE item (id BIGINT NOT NULL, word VARCHAR)")
            .await?;
        let version = bulk_ingest(&leader).await?;
        follower.attach(&leader, "d").await?;
        follower.wait_for_version("d", version).await?;
        updates_are_for_the_leader(&leader, &follower).await?;
        a_write_happens_once_even_if_its_answer_is_not_fetched(&leader).await?;
        for node in [&leader, &follower] {
            let mut flight = connect(node).await?;
            statements(&mut flight)
                .await
                .with_context(|| format!("statements on {node}"))?;
            prepared(&mut flight)
                .await
                .with_context(|| format!("prepared on {node}"))?;
            metadata(&mut flight)
                .await
                .with_context(|| format!("metadata on {node}"))?;
        }
        Ok(())
    })
    .await
}

async fn connect(node: &Node) -> Result<Flight> {
    let channel = Endpoint::from_shared(node.grpc_url())?.connect().await?;
    let mut flight = FlightSqlServiceClient::new(channel);
    flight.set_header("database", "d");
    Ok(flight)
}

/// All rows of an answer, as one batch.
async fn fetch(flight: &mut Flight, info: FlightInfo) -> Result<RecordBatch> {
    let schema = Arc::new(info.clone().try_decode_schema()?);
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.context("an endpoint has a ticket")?;
        let stream = flight.do_get(ticket).await?;
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    Ok(concat_batches(&schema, &batches)?)
}

/// The messages of an answer, as they come.
async fn messages(flight: &mut Flight, info: &FlightInfo) -> Result<Streaming<FlightData>> {
    let endpoint = info.endpoint.first().context("an endpoint")?;
    let ticket = endpoint
        .ticket
        .clone()
        .context("an endpoint has a ticket")?;
    let mut request = tonic::Request::new(ticket);
    request.metadata_mut().insert("database", "d".parse()?);
    Ok(flight.inner_mut().do_get(request).await?.into_inner())
}

/// What the first message of an answer says about the state that the rows come from.
async fn freshness(flight: &mut Flight, info: &FlightInfo) -> Result<Value> {
    let mut messages = messages(flight, info).await?;
    let first = messages.message().await?.context("a first message")?;
    Ok(serde_json::from_slice(&first.app_metadata)?)
}

/// What the last message of an answer says about what it cost.
async fn statistics(flight: &mut Flight, info: &FlightInfo) -> Result<Value> {
    let mut messages = messages(flight, info).await?;
    let mut last = None;
    while let Some(message) = messages.message().await? {
        last = Some(message);
    }
    let last = last.context("a message")?;
    let said: Value = serde_json::from_slice(&last.app_metadata)?;
    Ok(said["statistics"].clone())
}

/// The texts of a column.
fn texts(batch: &RecordBatch, column: &str) -> Result<Vec<String>> {
    let array = batch
        .column_by_name(column)
        .with_context(|| format!("no column {column}"))?;
    let array = arrow::compute::cast(array, &DataType::Utf8)?;
    let texts = array.as_string::<i32>().iter();
    Ok(texts
        .map(|text| text.unwrap_or("null").to_owned())
        .collect())
}

async fn bulk_ingest(leader: &Node) -> Result<u64> {
    let mut flight = connect(leader).await?;
    let batch = small_batch(1000)?;
    let command = |exists: TableExistsOption| CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: exists.into(),
        }),
        table: "bulk".to_owned(),
        ..Default::default()
    };
    let rows = async |flight: &mut Flight, exists| {
        let batches = vec![Ok(batch.clone()), Ok(batch.clone())];
        flight
            .execute_ingest(command(exists), futures::stream::iter(batches))
            .await
    };
    assert_eq!(rows(&mut flight, TableExistsOption::Fail).await?, 2000);
    ensure!(
        rows(&mut flight, TableExistsOption::Fail).await.is_err(),
        "the table is there"
    );
    assert_eq!(rows(&mut flight, TableExistsOption::Append).await?, 2000);
    assert_eq!(leader.count("d", "SELECT count(*) FROM bulk").await?, 4000);
    assert_eq!(rows(&mut flight, TableExistsOption::Replace).await?, 2000);
    let reply = leader.sql("d", "SELECT count(*) FROM bulk").await?;
    assert_eq!(reply.count()?, 2000);
    reply.version()
}

async fn updates_are_for_the_leader(leader: &Node, follower: &Node) -> Result<()> {
    let sql = "INSERT INTO item VALUES (1, 'one'), (2, 'two')";
    let mut flight = connect(leader).await?;
    assert_eq!(flight.execute_update(sql.to_owned(), None).await?, 2);
    let mut flight = connect(follower).await?;
    let refused = flight
        .execute_update(sql.to_owned(), None)
        .await
        .err()
        .context("a refusal")?;
    ensure!(
        refused.to_string().contains("leader"),
        "names the leader: {refused}"
    );
    let version = leader.sql("d", "SELECT 1").await?.version()?;
    follower.wait_for_version("d", version).await
}

/// Clients send `CREATE TABLE` as a query too, and many never fetch what it answers.
async fn a_write_happens_once_even_if_its_answer_is_not_fetched(leader: &Node) -> Result<()> {
    let mut flight = connect(leader).await?;
    flight
        .execute("CREATE TABLE unfetched (a BIGINT)".to_owned(), None)
        .await?;
    assert_eq!(
        leader.count("d", "SELECT count(*) FROM unfetched").await?,
        0
    );
    let info = flight
        .execute("INSERT INTO unfetched VALUES (1)".to_owned(), None)
        .await?;
    for _ in 0..2 {
        let batch = fetch(&mut flight, info.clone()).await?;
        assert_eq!(texts(&batch, "rows")?, ["1"]);
    }
    let mut statement = flight
        .prepare("INSERT INTO unfetched VALUES ($1)".into(), None)
        .await?;
    let value: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    statement.set_parameters(RecordBatch::try_from_iter([("$1", value)])?)?;
    statement.execute().await?;
    assert_eq!(leader.count("d", "SELECT sum(a) FROM unfetched").await?, 3);
    Ok(())
}

async fn statements(flight: &mut Flight) -> Result<()> {
    let sql = "SELECT id, word FROM item ORDER BY id";
    let info = flight.execute(sql.to_owned(), None).await?;
    let freshness = freshness(flight, &info).await?;
    for name in ["database", "version", "digest", "last_contact", "lag_ms"] {
        ensure!(
            !freshness[name].is_null(),
            "app_metadata tells the {name}: {freshness}"
        );
    }
    let statistics = statistics(flight, &info).await?;
    assert_eq!(statistics["rows"], 2, "{statistics}");
    let of_table = &statistics["tables"]["d.item"];
    assert_eq!(of_table["extentsScanned"], 1, "{statistics}");
    let batch = fetch(flight, info).await?;
    assert_eq!(
        batch.column(0).as_primitive::<Int64Type>().values(),
        &[1, 2]
    );
    assert_eq!(texts(&batch, "word")?, ["one", "two"]);
    let empty = flight
        .execute("SELECT id FROM item WHERE id > 99".to_owned(), None)
        .await?;
    let batch = fetch(flight, empty).await?;
    assert_eq!((batch.num_rows(), batch.num_columns()), (0, 1));
    let refused = flight
        .execute("SELECT nothing FROM nowhere".to_owned(), None)
        .await;
    let refused = refused.err().context("a refusal")?;
    ensure!(refused.to_string().contains("nowhere"), "{refused}");
    Ok(())
}

async fn prepared(flight: &mut Flight) -> Result<()> {
    let sql = "SELECT count(*) AS n, min(word) AS word FROM bulk WHERE id < $1 AND score >= $2";
    let mut statement = flight.prepare(sql.to_owned(), None).await?;
    assert_eq!(statement.dataset_schema()?.fields().len(), 2);
    assert_eq!(statement.parameter_schema()?.fields().len(), 2);
    for (below, expected) in [(10, 18), (100, 198), (1, 0)] {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![below]));
        let score: ArrayRef = Arc::new(Float64Array::from(vec![0.25]));
        let parameters = RecordBatch::try_from_iter([("$1", id), ("$2", score)])?;
        statement.set_parameters(parameters)?;
        let info = statement.execute().await?;
        let batch = fetch(flight, info).await?;
        assert_eq!(
            batch.column(0).as_primitive::<Int64Type>().value(0),
            expected,
            "id < {below}"
        );
    }
    statement.close().await?;

    let mut statement = flight
        .prepare("SELECT count(*) FROM item WHERE word = $1".into(), None)
        .await?;
    let word: ArrayRef = Arc::new(StringArray::from(vec!["two"]));
    statement.set_parameters(RecordBatch::try_from_iter([("$1", word)])?)?;
    let info = statement.execute().await?;
    let batch = fetch(flight, info).await?;
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    statement.close().await?;
    Ok(())
}

async fn metadata(flight: &mut Flight) -> Result<()> {
    let info = flight.get_catalogs().await?;
    ensure!(
        fetch(flight, info).await?.num_rows() > 0,
        "at least one catalog"
    );
    let request = CommandGetDbSchemas {
        catalog: None,
        db_schema_filter_pattern: Some("d".into()),
    };
    let info = flight.get_db_schemas(request).await?;
    let schemas = fetch(flight, info).await?;
    assert_eq!(texts(&schemas, "db_schema_name")?, ["d"]);
    let request = CommandGetTables {
        db_schema_filter_pattern: Some("d".into()),
        table_name_filter_pattern: Some("b%".into()),
        include_schema: true,
        ..Default::default()
    };
    let info = flight.get_tables(request).await?;
    let tables = fetch(flight, info).await?;
    assert_eq!(texts(&tables, "table_name")?, ["bulk"]);
    let schema = tables
        .column_by_name("table_schema")
        .context("table_schema")?;
    let schema =
        arrow::ipc::reader::StreamReader::try_new(schema.as_binary::<i32>().value(0), None)?;
    assert_eq!(
        schema.schema(),
        small_batch(1)?.schema(),
        "the columns as they were sent"
    );
    let info = flight.get_table_types().await?;
    ensure!(
        fetch(flight, info).await?.num_rows() > 0,
        "at least one type of table"
    );
    let info = flight
        .get_sql_info(vec![SqlInfo::FlightSqlServerName])
        .await?;
    assert_eq!(fetch(flight, info).await?.num_rows(), 1);
    Ok(())
}
