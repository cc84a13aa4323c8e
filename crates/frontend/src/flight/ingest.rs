//! Batches in: `adbc_ingest`, and plain `DoPut` with a path.

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use futures::{StreamExt, TryStreamExt, stream};

use super::request::IngestHeaders;
use crate::arrow_ipc::check_flight_data;
use crate::{
    AuthorizedEngine, ErrorKind, IngestReceipt, IngestRequest, IngestSource, Permission,
    ServiceError, TableMode,
};

/// Flight SQL's `CommandStatementIngest`: the schema is the database.
pub(super) async fn of_command(
    engine: &AuthorizedEngine,
    command: CommandStatementIngest,
    database: Option<String>,
    headers: IngestHeaders,
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
    let target = (database, command.table, table_mode);
    ingest(engine, target, headers, batches).await
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
    headers: IngestHeaders,
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
    let target = (database, table, TableMode::Append);
    ingest(engine, target, headers, batches).await
}

async fn ingest(
    engine: &AuthorizedEngine,
    (database, table, table_mode): (String, String, TableMode),
    headers: IngestHeaders,
    batches: PeekableFlightDataStream,
) -> Result<IngestReceipt, ServiceError> {
    // Before anything of it is decoded.
    engine.access().check(&database, Permission::Ingest)?;
    let broken =
        |error: FlightError| ServiceError::invalid(format!("the stream broke off: {error}"));
    let messages = batches.map(|data| data.map_err(FlightError::from).and_then(check_flight_data));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    // The schema comes with the first message, which is read with the first batch.
    let first = batches.next().await.transpose().map_err(broken)?;
    let schema = batches
        .schema()
        .cloned()
        .ok_or_else(|| ServiceError::invalid("the stream has no schema"))?;
    let rows = stream::iter(first.map(Ok))
        .chain(batches.map_err(broken))
        .boxed();
    let source_name = format!("batches for {table}");
    let source = IngestSource::Batches(schema, rows);
    let request = IngestRequest {
        table_mode,
        tags: headers.tags,
        ingest_if_not_exists: headers.if_not_exists,
        ingest_id: headers.id,
        queued: headers.queued,
        ..IngestRequest::append(database, table, source, source_name)
    };
    engine.ingest(request).await
}
