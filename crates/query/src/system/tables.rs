//! The system tables, column by column.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use slipstream_catalog::{DatabaseState, ExtentBlock, TableState};
use slipstream_model::{DatabaseId, Extent};
use slipstream_storage::BucketPath;

use super::columns::{
    count, optional_count, optional_millis, optional_text, optional_time, text, time,
};
use super::provider::{Pieces, SystemTable};
use crate::log::{QueryLog, QueryRow};
use crate::{ClusterView, DatabaseRow, FollowerRow, LeaseRow, QueryStatistics};

type Databases = Arc<BTreeMap<String, DatabaseState>>;

/// `slipstream.databases`.
pub(super) fn databases(cluster: Arc<dyn ClusterView>) -> Arc<dyn TableProvider> {
    type R = DatabaseRow;
    let columns = vec![
        text("database_name", |row: &R| row.database_name.clone()),
        text("database_id", |row: &R| row.database_id),
        text("database_access_mode", |row: &R| row.database_access_mode),
        optional_count("version", |row: &R| {
            row.version.map(|version| version.get())
        }),
        optional_text("digest", |row: &R| row.digest),
        optional_count("epoch", |row: &R| row.epoch.map(|epoch| epoch.get())),
        optional_time("committed_at", |row: &R| row.committed_at),
        optional_time("last_contact", |row: &R| row.last_contact),
        optional_millis("lag_ms", |row: &R| row.lag),
        optional_count("versions_behind", |row: &R| row.versions_behind),
        optional_text("suspension_state", |row: &R| row.suspension_state.clone()),
        optional_text("leader", |row: &R| row.leader.clone()),
        optional_text("configuration", |row: &R| row.configuration.clone()),
        count("table_count", |row: &R| row.table_count),
        count("extent_count", |row: &R| row.extent_count),
        count("row_count", |row: &R| row.row_count),
        count("size_bytes", |row: &R| row.size_bytes),
        count("original_bytes", |row: &R| row.original_bytes),
    ];
    SystemTable::provider("databases", columns, move || one_piece(cluster.databases()))
}

/// `slipstream.followers`.
pub(super) fn followers(cluster: Arc<dyn ClusterView>) -> Arc<dyn TableProvider> {
    type R = FollowerRow;
    let columns = vec![
        text("database_name", |row: &R| row.database_name.clone()),
        text("follower_cluster", |row: &R| row.follower_cluster.clone()),
        text("configuration", |row: &R| row.configuration.clone()),
        time("attached_at", |row: &R| row.attached_at),
        optional_time("last_seen", |row: &R| row.last_seen),
        optional_count("version", |row: &R| {
            row.version.map(|version| version.get())
        }),
    ];
    SystemTable::provider("followers", columns, move || one_piece(cluster.followers()))
}

/// `slipstream.leases`.
pub(super) fn leases(cluster: Arc<dyn ClusterView>) -> Arc<dyn TableProvider> {
    type R = LeaseRow;
    let columns = vec![
        text("database_name", |row: &R| row.database_name.clone()),
        text("follower_cluster", |row: &R| row.follower_cluster.clone()),
        text("node_id", |row: &R| row.node_id.clone()),
        count("lowest_version", |row: &R| row.lowest_version.get()),
        count("current_version", |row: &R| row.current_version.get()),
        time("expires_at", |row: &R| row.expires_at),
    ];
    SystemTable::provider("leases", columns, move || one_piece(cluster.leases()))
}

/// `slipstream.queries`.
pub(super) fn queries(log: Arc<QueryLog>, cluster: Arc<dyn ClusterView>) -> Arc<dyn TableProvider> {
    type R = QueryRow;
    let columns = vec![
        text("query_id", |row: &R| row.id),
        optional_text("database_name", |row: &R| row.database.clone()),
        text("text", |row: &R| row.text.clone()),
        text("client", |row: &R| row.client.clone()),
        text("principal", |row: &R| row.principal.clone()),
        text("state", |row: &R| row.state),
        time("started_on", |row: &R| row.started_on),
        optional_millis("duration_ms", |row: &R| Some(row.duration)),
        count("row_count", |row: &R| row.statistics.rows),
        count("bytes_scanned", |row: &R| {
            row.statistics.reads.bytes_scanned()
        }),
        count("hot_hit_bytes", |row: &R| {
            row.statistics.reads.hot_hit_bytes
        }),
        count("hot_miss_bytes", |row: &R| {
            row.statistics.reads.hot_miss_bytes
        }),
        count("cold_hit_bytes", |row: &R| {
            row.statistics.reads.cold_hit_bytes
        }),
        count("cold_miss_bytes", |row: &R| {
            row.statistics.reads.cold_miss_bytes
        }),
        count("requests", |row: &R| row.statistics.reads.requests),
        count("extents_scanned", |row: &R| {
            row.statistics.reads.extents_scanned
        }),
        // A JSON object: the same counts and more, of each table.
        text("tables", |row: &R| tables_json(&row.statistics)),
        optional_text("error", |row: &R| row.error.clone()),
    ];
    SystemTable::provider("queries", columns, move || {
        let rows = log.rows().into_iter();
        one_piece(
            rows.filter(|row| cluster.shows_query_of(&row.principal, row.database.as_deref()))
                .collect(),
        )
    })
}

fn tables_json(statistics: &QueryStatistics) -> String {
    serde_json::to_string(&statistics.tables).unwrap_or_default()
}

/// A table of a database, for `slipstream.tables`.
struct TableRow {
    database_name: String,
    table: Arc<TableState>,
}

/// `slipstream.tables`.
pub(super) fn tables(databases: Databases) -> Arc<dyn TableProvider> {
    type R = TableRow;
    let columns = vec![
        text("database_name", |row: &R| row.database_name.clone()),
        text("table_name", |row: &R| row.table.name.clone()),
        text("table_id", |row: &R| row.table.id),
        count("column_count", |row: &R| {
            row.table.schema.columns().len() as u64
        }),
        count("extent_count", |row: &R| row.table.extents.len()),
        count("row_count", |row: &R| row.table.extents.row_count()),
        count("size_bytes", |row: &R| row.table.extents.size_bytes()),
        count("original_bytes", |row: &R| {
            row.table.extents.original_bytes()
        }),
    ];
    SystemTable::provider("tables", columns, move || {
        one_piece(all_tables(&databases).map(|(row, _)| row).collect())
    })
}

/// An extent of a table, for `slipstream.extents`.
struct ExtentRow {
    database_name: Arc<str>,
    table_name: Arc<str>,
    database: DatabaseId,
    extent: Extent,
}

/// `slipstream.extents`.
pub(super) fn extents(databases: Databases) -> Arc<dyn TableProvider> {
    type R = ExtentRow;
    let columns = vec![
        text("extent_id", |row: &R| row.extent.id),
        text("database_name", |row: &R| Arc::clone(&row.database_name)),
        text("table_name", |row: &R| Arc::clone(&row.table_name)),
        count("row_count", |row: &R| row.extent.row_count),
        count("size_bytes", |row: &R| row.extent.size_bytes),
        count("original_bytes", |row: &R| row.extent.original_bytes),
        time("min_created_on", |row: &R| row.extent.min_created_on),
        time("max_created_on", |row: &R| row.extent.max_created_on),
        // A JSON array: unlike a list, CSV can hold it too.
        text("tags", |row: &R| json_array(row.extent.tags.iter())),
        text("sha256", |row: &R| row.extent.sha256),
        // What was streamed in has none until it is moved into a file.
        optional_text("path", |row: &R| {
            let has_file = row.extent.inline.is_none();
            has_file.then(|| BucketPath::extent(row.database, row.extent.id))
        }),
    ];
    SystemTable::provider("extents", columns, move || {
        let tables: Vec<_> = all_tables(&databases).collect();
        Box::new(
            tables
                .into_iter()
                .flat_map(|(row, database)| extent_pieces(&row, database)),
        )
    })
}

/// The extents of one table, a block at a time.
fn extent_pieces(
    row: &TableRow,
    database: DatabaseId,
) -> impl Iterator<Item = Vec<ExtentRow>> + use<> {
    let database_name: Arc<str> = row.database_name.as_str().into();
    let table_name: Arc<str> = row.table.name.as_str().into();
    row.table
        .extents
        .blocks()
        .into_iter()
        .map(move |block: ExtentBlock| {
            let rows = block.live_slots().map(|slot| ExtentRow {
                database_name: Arc::clone(&database_name),
                table_name: Arc::clone(&table_name),
                database,
                extent: block.extent(slot),
            });
            rows.collect()
        })
}

fn all_tables(databases: &Databases) -> impl Iterator<Item = (TableRow, DatabaseId)> + '_ {
    databases.iter().flat_map(|(name, state)| {
        state.tables().map(move |table| {
            let row = TableRow {
                database_name: name.clone(),
                table: Arc::clone(table),
            };
            (row, state.id())
        })
    })
}

fn one_piece<R: Send + 'static>(rows: Vec<R>) -> Pieces<R> {
    Box::new(std::iter::once(rows))
}

fn json_array<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    serde_json::Value::from_iter(texts.map(String::as_str)).to_string()
}
