//! Batches in: `adbc_ingest`, and plain `DoPut` with a path.

use std::collections::BTreeSet;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    AuthorizedEngine, ErrorKind, IngestReceipt, IngestRequest, IngestSource, ServiceError,
    TableMode, TextOptions,
};

/// Flight SQL's `CommandStatementIngest`: the schema is the database.
pub(super) async fn of_command(
    engine: &AuthorizedEngine,
    command: CommandStatementIngest,
    database: Option<String>,
    batches: PeekableFlightDataStream,
) -> Result<IngestReceipt, ServiceError> {
    let unsupported = |what: &str| {
        Err(ServiceError::new(
            ErrorKind::Unsupported,
            "unsupported",
            format!("{what} is not supported"),
        ))
    };
    if command.temporary {
        return unsupported("ingestion into a temporary table");
    }
    if command.transaction_id.is_some() {
        return unsupported(
            "ingestion as part of a transaction: an ingest is one commit of its own",
        );
    }
    let table_mode = mode_of(&command)?;
    let database = command
        .schema
        .filter(|schema| !schema.is_empty())
        .or(database)
        .ok_or_else(|| {
            ServiceError::invalid(
                "no database is named: set the call header 'database' or the db_schema",
            )
        })?;
    ingest(engine, database, command.table, table_mode, batches).await
}

fn mode_of(command: &CommandStatementIngest) -> Result<TableMode, ServiceError> {
    let Some(options) = &command.table_definition_options else {
        return Ok(TableMode::Append);
    };
    use {TableExistsOption as Exists, TableNotExistOption as Missing};
    match (options.if_not_exist(), options.if_exists()) {
        (Missing::Create, Exists::Append) => Ok(TableMode::CreateOrAppend),
        (Missing::Create, Exists::Replace) => Ok(TableMode::Replace),
        (Missing::Create, _) => Ok(TableMode::Create),
        (_, Exists::Append | Exists::Unspecified) => Ok(TableMode::Append),
        (missing, exists) => Err(ServiceError::invalid(format!(
            "an ingest with if_not_exist {} and if_exists {} has no meaning",
            missing.as_str_name(),
            exists.as_str_name()
        ))),
    }
}

/// A descriptor with the path `[database, table]`.
pub(super) async fn of_path(
    engine: &AuthorizedEngine,
    mut batches: PeekableFlightDataStream,
) -> Result<IngestReceipt, ServiceError> {
    let path = match batches.peek().await {
        Some(Ok(first)) => first.flight_descriptor.as_ref().map(|d| d.path.clone()),
        Some(Err(status)) => return Err(ServiceError::invalid(status.message())),
        None => return Err(ServiceError::invalid("the stream is empty")),
    };
    let [database, table] = <[String; 2]>::try_from(path.unwrap_or_default()).map_err(|_| {
        ServiceError::invalid(
            "the descriptor is neither a Flight SQL command nor a path of database and table",
        )
    })?;
    ingest(engine, database, table, TableMode::Append, batches).await
}

async fn ingest(
    engine: &AuthorizedEngine,
    database: String,
    table: String,
    table_mode: TableMode,
    batches: PeekableFlightDataStream,
) -> Result<IngestReceipt, ServiceError> {
    let broken =
        |error: FlightError| ServiceError::invalid(format!("the stream broke off: {error}"));
    let mut batches =
        FlightRecordBatchStream::new_from_flight_data(batches.map_err(FlightError::from));
    // The schema comes with the first message, which is read with the first batch.
    let first = batches.next().await.transpose().map_err(broken)?;
    let schema = batches
        .schema()
        .cloned()
        .ok_or_else(|| ServiceError::invalid("the stream has no schema"))?;
    let rows = stream::iter(first.map(Ok))
        .chain(batches.map_err(broken))
        .boxed();
    let request = IngestRequest {
        source_name: format!("batches for {table}"),
        database,
        table,
        source: IngestSource::Batches(schema, rows),
        format: None,
        table_mode,
        creation_time: None,
        tags: BTreeSet::new(),
        text: TextOptions::default(),
        bad_rows_max: 0,
    };
    engine.ingest(request).await
}
