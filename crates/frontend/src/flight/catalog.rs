//! What clients browse: one catalog, a schema for each database, its tables; and what the
//! server can do.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow_flight::Ticket;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{SqlInfo, SqlSupportedTransaction};
use tonic::{Request, Status};

use super::request;
use crate::{AuthorizedEngine, NodeIdentity, NodeRole, ServiceError};

/// The one catalog: a cluster's databases are its schemas.
pub(super) const CATALOG: &str = slipstream_query::CATALOG;
/// What `information_schema.tables` calls the kinds of table there are.
pub(super) const TABLE_KINDS: [&str; 2] = ["BASE TABLE", "VIEW"];

pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: String,
}

/// The databases and system schemas.
pub(super) async fn schemas(
    engine: &AuthorizedEngine,
    request: &Request<Ticket>,
) -> Result<Vec<String>, Status> {
    let sql = "SELECT schema_name FROM information_schema.schemata ORDER BY schema_name";
    let rows = rows(engine, request, sql).await?;
    Ok(rows.into_iter().map(|mut row| row.remove(0)).collect())
}

/// The tables of all of them.
pub(super) async fn tables(
    engine: &AuthorizedEngine,
    request: &Request<Ticket>,
) -> Result<Vec<Table>, Status> {
    let sql = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
               ORDER BY table_schema, table_name";
    let rows = rows(engine, request, sql).await?.into_iter();
    Ok(rows
        .filter_map(|row| {
            let [schema, name, kind] = row.try_into().ok()?;
            Some(Table { schema, name, kind })
        })
        .collect())
}

/// The columns of one table.
pub(super) async fn schema_of(
    engine: &AuthorizedEngine,
    request: &Request<Ticket>,
    table: &Table,
) -> Result<SchemaRef, Status> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql = format!(
        "SELECT * FROM {}.{}",
        quote(&table.schema),
        quote(&table.name)
    );
    Ok(engine.describe(request::sql(request, sql)?).await?.schema)
}

/// Runs a query whose columns are all text.
async fn rows(
    engine: &AuthorizedEngine,
    request: &Request<Ticket>,
    sql: &str,
) -> Result<Vec<Vec<String>>, Status> {
    let mut sql = request::sql(request, sql.to_owned())?;
    sql.database = None;
    let batches = engine.execute(sql).await?.rows.collect_batches().await;
    let batches = batches.map_err(ServiceError::from)?;
    Ok(batches
        .iter()
        .map(texts)
        .collect::<Result<Vec<_>, _>>()?
        .concat())
}

fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Status> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8));
    let columns: Vec<_> = columns
        .collect::<Result<_, _>>()
        .map_err(|error| Status::internal(error.to_string()))?;
    let row = |row: usize| {
        let value = |column: &arrow::array::ArrayRef| {
            let column = column.as_string::<i32>();
            if column.is_null(row) {
                String::new()
            } else {
                column.value(row).to_owned()
            }
        };
        columns.iter().map(value).collect()
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// What this server is and can do.
pub(super) fn sql_info(identity: &NodeIdentity) -> Result<SqlInfoData, Status> {
    let mut builder = SqlInfoDataBuilder::new();
    let name = format!("Slipstream {}", identity.role);
    builder.append(SqlInfo::FlightSqlServerName, name.as_str());
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(
        SqlInfo::FlightSqlServerReadOnly,
        identity.role == NodeRole::Follower,
    );
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerCancel, false);
    builder.append(
        SqlInfo::FlightSqlServerBulkIngestion,
        identity.role == NodeRole::Leader,
    );
    builder.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    builder.append(
        SqlInfo::FlightSqlServerTransaction,
        SqlSupportedTransaction::None as i32,
    );
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    builder.append(SqlInfo::SqlDdlCatalog, false);
    builder.append(SqlInfo::SqlDdlSchema, false);
    builder.append(SqlInfo::SqlDdlTable, identity.role == NodeRole::Leader);
    builder
        .build()
        .map_err(|error| Status::internal(error.to_string()))
}
