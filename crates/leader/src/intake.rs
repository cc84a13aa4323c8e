//! Ingests: what is asked of them, when they are written, and that each happens once.

mod once;
mod queue;
mod streamed;

use futures::{StreamExt, stream};
use slipstream_catalog::{DatabaseOp, NotedIngest, check_tags};
use slipstream_frontend::{
    ErrorKind, IngestReceipt, IngestRequest, IngestSource, Reject, ServiceError, TableMode,
};
use slipstream_model::{
    DatabaseId, Extent, IngestId, IngestionBatchingPolicy, TableId, TableName, TableSchema,
};
use slipstream_storage::check_storable;

use self::once::Once;
pub(crate) use self::queue::IngestQueue;
use self::queue::{Collected, Item, Key};
use crate::engine::LeaderEngine;
use crate::ingest::{IngestContext, OpenSource, open_source, write_extents};

impl LeaderEngine {
    /// Takes rows in: at once, or together with others when the request says so.
    pub(crate) async fn take_in(
        &self,
        request: IngestRequest,
    ) -> Result<IngestReceipt, ServiceError> {
        let database = self.owned(&request.database)?;
        let state = self.cluster().writer(database)?.state();
        let name = TableName::new(request.table.clone())
            .map_err(|error| ServiceError::invalid(error.to_string()))?;
        check_tags(&request.tags).map_err(|error| ServiceError::invalid(error.to_string()))?;
        let once = Once::of(&request);
        let receipt = receipt_of(&request);
        // Only the commit decides; but what is known by now need not be uploaded.
        if let Some(found) = once.find(&state, &name) {
            drain(request.source).await;
            return Ok(found.receipt(self.cluster(), &state, receipt).await);
        }
        let target = self.target(&request, &state)?;
        let streams = self.streams(&request, &state, target.clone())?;
        let context = self.ingest_context(database, request.creation_time, request.tags.clone())?;
        let mut open = open_source(
            &context,
            request.source,
            request.format,
            &request.source_name,
            &request.text,
            target.as_ref().map(|(_, schema)| schema),
            request.bad_rows_max,
        )
        .await?;

        // What the table may not have is decided for each ingest alone, and a table is made by one.
        let mut collected = None;
        if let Some((table, schema)) = streams {
            let queue = self.queue();
            match queue
                .collect(open.batches, &schema, &streamed::BOUNDS)
                .await?
            {
                Collected::Whole(mut rows) => {
                    let batches = rows.take_batches();
                    let extent = streamed::extent(&state, table, &context, &schema, &batches);
                    if let Some(extent) = extent.await? {
                        let ingest = streamed::Streamed {
                            database,
                            table,
                            name: &name,
                            schema,
                            once: &once,
                            receipt: receipt.clone(),
                            rejects: &open.rejects,
                        };
                        if let Some(receipt) = self.commit_streamed(ingest, extent).await? {
                            return Ok(receipt);
                        }
                    }
                    open.batches = stream::iter(batches.into_iter().map(Ok)).boxed();
                    collected = Some(rows);
                }
                Collected::TooLarge(mut rows, rest) => {
                    let first = stream::iter(rows.take_batches().into_iter().map(Ok));
                    open.batches = first.chain(rest).boxed();
                    collected = Some(rows);
                }
            }
        }
        if request.queued
            && once.tags.is_empty()
            && let Some((table, schema)) = target.clone()
        {
            let policy = IngestionBatchingPolicy::effective(
                state
                    .table_by_id(table)
                    .and_then(|table| table.policies.ingestion_batching),
                state.ingestion_batching_policy(),
            );
            let queue = self.queue();
            match queue.collect(open.batches, &schema, &policy).await? {
                Collected::Whole(rows) => {
                    let receipt = with_rows(receipt, rows.row_count(), open.rejects.take());
                    let key = Key {
                        database,
                        table,
                        tags: request.tags,
                        creation_time: request.creation_time,
                    };
                    let item = Item::new(rows, once.id, receipt);
                    return queue.add(key, name, schema, policy, context, item).await;
                }
                Collected::TooLarge(mut rows, rest) => {
                    let first = stream::iter(rows.take_batches().into_iter().map(Ok));
                    open.batches = first.chain(rest).boxed();
                    // Its memory is given back when all is written.
                    collected = Some(rows);
                }
            }
        }
        let order = Order {
            database,
            table: name,
            mode: request.table_mode,
            target,
            once,
            receipt,
        };
        let written = self.write_at_once(order, &context, open).await;
        drop(collected);
        written
    }

    /// Writes the rows of a source, and commits them.
    async fn write_at_once(
        &self,
        order: Order,
        context: &IngestContext,
        open: OpenSource,
    ) -> Result<IngestReceipt, ServiceError> {
        let OpenSource {
            schema,
            batches,
            rejects,
        } = open;
        let Order {
            database,
            table: name,
            mode,
            target,
            once,
            receipt,
        } = order;
        let mut ops: Vec<DatabaseOp> = once.op(&name).into_iter().collect();
        let may_be_made = target.is_none() && mode == TableMode::CreateOrAppend;
        let (mut table, schema) = match target {
            Some(target) => target,
            None => {
                let invalid =
                    |error: &dyn std::fmt::Display| ServiceError::invalid(error.to_string());
                check_storable(&schema).map_err(|error| invalid(&error))?;
                let schema = TableSchema::new(&schema).map_err(|error| invalid(&error))?;
                let id = TableId::new(self.cluster().entropy().uuid());
                if mode == TableMode::Replace {
                    ops.push(DatabaseOp::DropTable {
                        name: name.clone(),
                        if_exists: true,
                    });
                }
                ops.push(DatabaseOp::CreateTable {
                    id,
                    name: name.clone(),
                    schema: schema.clone(),
                    if_not_exists: false,
                });
                (id, schema)
            }
        };
        let extents = write_extents(context, &schema, batches).await?;
        // Somebody else may have made the table meanwhile: then these rows are appended to it.
        let state = self.cluster().writer(database)?.state();
        if may_be_made && let Some(made) = state.table(name.as_str()) {
            if made.schema != schema {
                context.ids.abandon_all(&extents);
                return Err(made_meanwhile(&name));
            }
            table = made.id;
            ops.retain(|op| !matches!(op, DatabaseOp::CreateTable { .. }));
        }
        let rows = extents.iter().map(|extent| extent.row_count).sum();
        let mut receipt = with_rows(receipt, rows, rejects.take());
        receipt.extents = extents.len() as u64;
        receipt.size_bytes = size_of_files(&extents);
        if !extents.is_empty() {
            ops.push(DatabaseOp::AddExtents {
                table,
                schema,
                extents,
            });
        }
        if let Some(id) = &once.id {
            ops.push(DatabaseOp::NoteIngests {
                table,
                ingests: vec![note(id, &receipt)],
            });
        }
        match self.cluster().commit_to(database, ops).await {
            Ok(committed) => {
                receipt.version = committed.version.get();
                receipt.digest = committed.digest.to_string();
                Ok(receipt)
            }
            // Another one was faster, and is in the state by now.
            Err(error) if once::is_done(&error) => {
                let state = self.cluster().writer(database)?.state();
                match once.find(&state, &name) {
                    Some(found) => Ok(found.receipt(self.cluster(), &state, receipt).await),
                    None => Err(error),
                }
            }
            Err(error) if may_be_made && error.code() == "table_exists" => {
                Err(made_meanwhile(&name))
            }
            Err(error) => Err(error),
        }
    }
}

fn made_meanwhile(name: &TableName) -> ServiceError {
    ServiceError::new(
        ErrorKind::Conflict,
        "schema_changed",
        format!("table '{name}' was made by another ingest meanwhile: send this one again"),
    )
}

/// An ingest that is written by itself.
struct Order {
    database: DatabaseId,
    table: TableName,
    mode: TableMode,
    target: Option<(TableId, TableSchema)>,
    once: Once,
    receipt: IngestReceipt,
}

/// The receipt of an ingest that has taken nothing in yet.
fn receipt_of(request: &IngestRequest) -> IngestReceipt {
    IngestReceipt {
        database: request.database.clone(),
        table: request.table.clone(),
        version: 0,
        digest: String::new(),
        rows: 0,
        extents: 0,
        size_bytes: 0,
        bad_rows: 0,
        rejects: Vec::new(),
        skipped: None,
    }
}

fn with_rows(receipt: IngestReceipt, rows: u64, rejects: Vec<Reject>) -> IngestReceipt {
    with_rejects(IngestReceipt { rows, ..receipt }, rejects)
}

fn with_rejects(receipt: IngestReceipt, rejects: Vec<Reject>) -> IngestReceipt {
    IngestReceipt {
        bad_rows: rejects.len() as u64,
        rejects,
        ..receipt
    }
}

/// What a table remembers of an ingest.
fn note(id: &IngestId, receipt: &IngestReceipt) -> NotedIngest {
    NotedIngest {
        id: id.clone(),
        rows: receipt.rows,
        extents: receipt.extents,
        size_bytes: receipt.size_bytes,
    }
}

fn size_of_files(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.size_bytes).sum()
}

/// Reads what a client still sends: until it has sent all of it, it may not read the answer.
async fn drain(source: IngestSource) {
    match source {
        IngestSource::Body(mut bytes) => while let Some(Ok(_)) = bytes.next().await {},
        IngestSource::Batches(_, mut batches) => while let Some(Ok(_)) = batches.next().await {},
        IngestSource::Url(_) => {}
    }
}
