//! Ingests whose rows go into the commit itself: one put, and they are durable and visible. The
//! lifecycle moves them into files.

use std::time::Duration;

use arrow::array::RecordBatch;
use slipstream_catalog::{DatabaseOp, DatabaseState, INLINE_BYTES_MAX, INLINE_EXTENTS_MAX};
use slipstream_frontend::{ErrorKind, IngestReceipt, IngestRequest, ServiceError, Streaming};
use slipstream_model::{
    DatabaseId, Extent, IngestionBatchingPolicy, StreamingIngestionPolicy, TableId, TableName,
    TableSchema,
};

use super::once::{self, Once};
use super::{note, with_rejects};
use crate::cluster::STREAMED_ROWS_FULL;
use crate::engine::LeaderEngine;
use crate::ingest::{IngestContext, Rejects, inline_extent};

/// How much is streamed at once: 4 MB, as in Kusto. What is larger is well served by a file.
pub(super) const BOUNDS: IngestionBatchingPolicy = IngestionBatchingPolicy {
    maximum_batching_time_span: Duration::ZERO,
    maximum_number_of_items: 1,
    maximum_raw_data_size_mb: 4,
};

/// Bytes in the log over all tables of a database: each node that has its state holds them in memory.
const DATABASE_BYTES_MAX: u64 = 4 * INLINE_BYTES_MAX;

/// An ingest whose rows go into the commit.
pub(super) struct Streamed<'a> {
    pub(super) database: DatabaseId,
    pub(super) table: TableId,
    pub(super) name: &'a TableName,
    pub(super) schema: TableSchema,
    pub(super) once: &'a Once,
    pub(super) receipt: IngestReceipt,
    pub(super) rejects: &'a Rejects,
}

/// The rows as an extent in the log; `None` when there are none, or no room for them.
pub(super) async fn extent(
    state: &DatabaseState,
    table: TableId,
    context: &IngestContext,
    schema: &TableSchema,
    batches: &[RecordBatch],
) -> Result<Option<Extent>, ServiceError> {
    let has_rows = batches.iter().any(|batch| batch.num_rows() > 0);
    if !has_rows || !has_room(state, table) {
        return Ok(None);
    }
    inline_extent(context, schema, batches.to_vec()).await
}

/// Whether a table takes more. Half of what it may have is left to ingests that are on their way.
fn has_room(state: &DatabaseState, table: TableId) -> bool {
    let all = state
        .tables()
        .map(|table| table.extents.inline().size_bytes);
    let of_table = state.table_by_id(table).map(|table| table.extents.inline());
    let of_table = of_table.unwrap_or_default();
    of_table.extents < INLINE_EXTENTS_MAX / 2
        && of_table.size_bytes < INLINE_BYTES_MAX / 2
        && all.sum::<u64>() < DATABASE_BYTES_MAX
}

impl LeaderEngine {
    /// The table that an ingest streams into; `None`: its rows are written as a file.
    ///
    /// # Errors
    /// When it is to stream, and the policy does not allow it.
    pub(super) fn streams(
        &self,
        request: &IngestRequest,
        state: &DatabaseState,
        target: Option<(TableId, TableSchema)>,
    ) -> Result<Option<(TableId, TableSchema)>, ServiceError> {
        if request.streaming == Streaming::No {
            return Ok(None);
        }
        let own = target
            .as_ref()
            .and_then(|(table, _)| state.table_by_id(*table));
        let policy = StreamingIngestionPolicy::effective(
            own.and_then(|table| table.policies.streaming_ingestion),
            state.streaming_ingestion_policy(),
        );
        match (policy.is_enabled, request.streaming) {
            (true, _) => Ok(target),
            (false, Streaming::Asked) => {
                let table = &request.table;
                Err(ServiceError::new(
                    ErrorKind::Conflict,
                    "streaming_disabled",
                    format!(
                        "rows are not streamed into table '{table}': '.alter table {table} policy \
                         streamingingestion enable' allows it"
                    ),
                ))
            }
            (false, _) => Ok(None),
        }
    }

    /// Commits the rows. `None`: so many others were on their way that the table has no room any more.
    pub(super) async fn commit_streamed(
        &self,
        ingest: Streamed<'_>,
        extent: Extent,
    ) -> Result<Option<IngestReceipt>, ServiceError> {
        let Streamed {
            database,
            table,
            name,
            schema,
            once,
            mut receipt,
            rejects,
        } = ingest;
        receipt.rows = extent.row_count;
        receipt.extents = 1;
        receipt.size_bytes = extent.size_bytes;
        let mut ops: Vec<DatabaseOp> = once.op(name).into_iter().collect();
        ops.push(DatabaseOp::AddExtents {
            table,
            schema,
            extents: vec![extent],
        });
        if let Some(id) = &once.id {
            ops.push(DatabaseOp::NoteIngests {
                table,
                ingests: vec![note(id, &receipt)],
            });
        }
        match self.cluster().commit_to(database, ops).await {
            Ok(committed) => {
                metrics::counter!("slipstream_streamed_ingests_total").increment(1);
                receipt.version = committed.version.get();
                receipt.digest = committed.digest.to_string();
                Ok(Some(with_rejects(receipt, rejects.take())))
            }
            Err(error) if error.code() == STREAMED_ROWS_FULL => Ok(None),
            // Another one was faster, and is in the state by now.
            Err(error) if once::is_done(&error) => {
                let state = self.cluster().writer(database)?.state();
                match once.find(&state, name) {
                    Some(found) => {
                        let receipt = found.receipt(self.cluster(), &state, receipt).await;
                        Ok(Some(receipt))
                    }
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}
