//! Small ingests that wait for each other: one extent and one commit for many of them.
//!
//! ```text
//! ingest -> rows in memory --+
//! ingest -> rows in memory --+-> batch -> extents -> commit -> an answer to each
//! ingest -> does not fit: fails alone
//! ```
//!
//! What waits is bounded by the batching policy and, over all tables, by memory: what finds no room
//! is written at once, and so is what waits. Each ingest was checked before it joins a batch, so
//! that the fault of one is nobody else's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::DatabaseOp;
use slipstream_frontend::{ErrorKind, IngestReceipt, ServiceError};
use slipstream_model::{
    DatabaseId, IngestId, IngestionBatchingPolicy, TableId, TableName, TableSchema, Timestamp,
};
use slipstream_storage::batch_bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::once::Once;
use super::{note, size_of_files};
use crate::cluster::{Cluster, INGESTED_BEFORE};
use crate::ingest::{BatchStream, IngestContext, check_nulls, write_extents};

/// Rows that wait, over all tables, in KiB. A node of any size has that to spare, and ten thousand
/// ingests of some kilobytes fit.
const WAITING_KIB_MAX: usize = 256 << 10;

/// Whoever waits for an ingest.
type Reply = oneshot::Sender<Result<IngestReceipt, ServiceError>>;

/// Ingests that can share an extent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) database: DatabaseId,
    pub(super) table: TableId,
    pub(super) tags: BTreeSet<String>,
    /// `None`: when the extent is written.
    pub(super) creation_time: Option<Timestamp>,
}

/// Rows in memory, with the room that they take up.
#[derive(Default)]
pub(super) struct Rows {
    batches: Vec<RecordBatch>,
    bytes: u64,
    room: Option<OwnedSemaphorePermit>,
}

impl Rows {
    pub(super) fn row_count(&self) -> u64 {
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }

    /// The rows; the room stays taken.
    pub(super) fn take_batches(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches)
    }
}

/// What was read of a source.
pub(super) enum Collected {
    /// All of it.
    Whole(Rows),
    /// As much as may wait, and the rest.
    TooLarge(Rows, BatchStream),
}

/// One ingest of a batch.
pub(super) struct Item {
    rows: Rows,
    id: Option<IngestId>,
    /// What it is answered, short of what only the commit knows.
    receipt: IngestReceipt,
    /// More than one when it was sent again while it waits.
    replies: Vec<Reply>,
}

impl Item {
    pub(super) fn new(rows: Rows, id: Option<IngestId>, receipt: IngestReceipt) -> Self {
        Self {
            rows,
            id,
            receipt,
            replies: Vec::new(),
        }
    }

    fn answer(self, result: &Result<IngestReceipt, ServiceError>) {
        for reply in self.replies {
            // Who is gone does not hear it.
            drop(reply.send(result.clone()));
        }
    }
}

/// Ingests that become one commit.
struct Batch {
    table: TableName,
    schema: TableSchema,
    policy: IngestionBatchingPolicy,
    context: IngestContext,
    /// Fires when no more join.
    sealed: CancellationToken,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    bytes: u64,
    by_id: HashMap<IngestId, usize>,
}

impl Waiting {
    fn push(&mut self, mut item: Item, reply: Reply) {
        let known = item.id.as_ref().and_then(|id| self.by_id.get(id));
        if let Some(first) = known.and_then(|position| self.items.get_mut(*position)) {
            first.replies.push(reply);
            return;
        }
        if let Some(id) = &item.id {
            self.by_id.insert(id.clone(), self.items.len());
        }
        item.replies.push(reply);
        self.bytes += item.rows.bytes;
        self.items.push(item);
    }

    fn is_full(&self, policy: &IngestionBatchingPolicy) -> bool {
        self.items.len() >= policy.maximum_number_of_items as usize
            || self.bytes >= policy.bytes_max()
    }
}

/// The batches of a node that still take ingests.
pub(crate) struct IngestQueue {
    cluster: Arc<Cluster>,
    room: Arc<Semaphore>,
    open: Mutex<BTreeMap<Key, Arc<Batch>>>,
}

impl fmt::Debug for IngestQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngestQueue").finish_non_exhaustive()
    }
}

impl IngestQueue {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            room: Arc::new(Semaphore::new(WAITING_KIB_MAX)),
            open: Mutex::default(),
        }
    }

    /// Reads a source into memory, as far as there is room and a batch may be large.
    ///
    /// # Errors
    /// When a row does not fit the table.
    pub(super) async fn collect(
        &self,
        mut source: BatchStream,
        schema: &TableSchema,
        policy: &IngestionBatchingPolicy,
    ) -> Result<Collected, ServiceError> {
        let mut rows = Rows::default();
        while let Some(batch) = source.try_next().await? {
            check_nulls(&batch, schema)?;
            let bytes = batch_bytes(&batch) as u64;
            rows.batches.push(batch);
            rows.bytes += bytes;
            let Some(room) = self.reserve(bytes) else {
                self.seal_all();
                return Ok(Collected::TooLarge(rows, source));
            };
            match &mut rows.room {
                Some(taken) => taken.merge(room),
                taken => *taken = Some(room),
            }
            if rows.bytes > policy.bytes_max() {
                return Ok(Collected::TooLarge(rows, source));
            }
        }
        Ok(Collected::Whole(rows))
    }

    fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }

    /// Has everything written that waits.
    fn seal_all(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        for batch in open.into_values() {
            batch.sealed.cancel();
        }
    }

    /// Joins a batch, and waits until that is durable.
    ///
    /// # Errors
    /// When it could not be written or committed.
    pub(super) async fn add(
        self: &Arc<Self>,
        key: Key,
        table: TableName,
        schema: TableSchema,
        policy: IngestionBatchingPolicy,
        context: IngestContext,
        item: Item,
    ) -> Result<IngestReceipt, ServiceError> {
        metrics::counter!("slipstream_queued_ingests_total").increment(1);
        let (reply, answer) = oneshot::channel();
        {
            let mut open = self.open.lock();
            let known = open.get(&key).filter(|batch| batch.schema == schema);
            let batch = match known {
                Some(batch) => Arc::clone(batch),
                None => {
                    let batch = Arc::new(Batch {
                        table,
                        schema,
                        policy,
                        context,
                        sealed: CancellationToken::new(),
                        waiting: Mutex::default(),
                    });
                    let replaced = open.insert(key.clone(), Arc::clone(&batch));
                    if let Some(replaced) = replaced {
                        replaced.sealed.cancel();
                    }
                    let waiting = Arc::clone(self).run(key.clone(), Arc::clone(&batch));
                    self.cluster.tasks().spawn(waiting);
                    batch
                }
            };
            let mut waiting = batch.waiting.lock();
            waiting.push(item, reply);
            if waiting.is_full(&batch.policy) {
                open.remove(&key);
                batch.sealed.cancel();
            }
        }
        answer.await.unwrap_or_else(|_| {
            let message = "the node stopped before the rows were written; send them again with \
                           the same ingest id";
            Err(ServiceError::new(
                ErrorKind::Unavailable,
                "unavailable",
                message,
            ))
        })
    }

    /// Waits until a batch is full, its time is over, or the node stops; then writes it.
    async fn run(self: Arc<Self>, key: Key, batch: Arc<Batch>) {
        let clock = Arc::clone(self.cluster.clock());
        tokio::select! {
            biased;
            () = batch.sealed.cancelled() => {}
            () = self.cluster.shutdown().cancelled() => {}
            () = clock.sleep(batch.policy.maximum_batching_time_span) => {}
        }
        // Ingests join under this lock: after it, none does.
        {
            let mut open = self.open.lock();
            let is_open = open
                .get(&key)
                .is_some_and(|known| Arc::ptr_eq(known, &batch));
            if is_open {
                open.remove(&key);
            }
        }
        let items = std::mem::take(&mut batch.waiting.lock().items);
        self.write(&key, &batch, items).await;
    }

    /// Writes a batch, and answers everybody in it.
    async fn write(&self, key: &Key, batch: &Batch, mut items: Vec<Item>) {
        while !items.is_empty() {
            let error = match self.commit(key, batch, &items).await {
                Ok(committed) => {
                    for item in items {
                        let receipt = IngestReceipt {
                            rows: item.receipt.rows,
                            bad_rows: item.receipt.bad_rows,
                            rejects: item.receipt.rejects.clone(),
                            ..committed.clone()
                        };
                        item.answer(&Ok(receipt));
                    }
                    return;
                }
                Err(error) => error,
            };
            let before = items.len();
            if error.code() == INGESTED_BEFORE {
                // Sent again while the first one was on its way. The others do without it.
                items = self.answer_known(key, batch, items).await;
            }
            if items.len() == before {
                for item in items {
                    item.answer(&Err(error.clone()));
                }
                return;
            }
        }
    }

    /// Writes and commits the rows of some items. The answer lacks what differs between them.
    async fn commit(
        &self,
        key: &Key,
        batch: &Batch,
        items: &[Item],
    ) -> Result<IngestReceipt, ServiceError> {
        let clock = self.cluster.clock();
        let context = IngestContext {
            created_on: key.creation_time.unwrap_or_else(|| clock.now()),
            ..batch.context.clone()
        };
        let rows: Vec<_> = items
            .iter()
            .flat_map(|item| item.rows.batches.iter().cloned())
            .map(Ok::<_, ServiceError>)
            .collect();
        let extents = write_extents(&context, &batch.schema, stream::iter(rows)).await?;
        let shared = IngestReceipt {
            extents: extents.len() as u64,
            size_bytes: size_of_files(&extents),
            rejects: Vec::new(),
            ..items[0].receipt.clone()
        };
        let noted = items.iter().filter_map(|item| {
            let receipt = IngestReceipt {
                rows: item.receipt.rows,
                ..shared.clone()
            };
            Some(note(item.id.as_ref()?, &receipt))
        });
        let noted: Vec<_> = noted.collect();
        let mut ops = Vec::new();
        if !noted.is_empty() {
            ops.push(DatabaseOp::IngestOnce {
                table: batch.table.clone(),
                tags: Vec::new(),
                ids: noted.iter().map(|ingest| ingest.id.clone()).collect(),
            });
        }
        if !extents.is_empty() {
            ops.push(DatabaseOp::AddExtents {
                table: key.table,
                schema: batch.schema.clone(),
                extents,
            });
        }
        ops.push(DatabaseOp::NoteIngests {
            table: key.table,
            ingests: noted,
        });
        let committed = self.cluster.commit_to(key.database, ops).await?;
        metrics::counter!("slipstream_ingest_batches_total").increment(1);
        Ok(IngestReceipt {
            version: committed.version.get(),
            digest: committed.digest.to_string(),
            ..shared
        })
    }

    /// Answers the items that the table remembers; the others are left.
    async fn answer_known(&self, key: &Key, batch: &Batch, items: Vec<Item>) -> Vec<Item> {
        let Ok(writer) = self.cluster.writer(key.database) else {
            return items;
        };
        let state = writer.state();
        let mut left = Vec::new();
        for item in items {
            let once = Once {
                tags: Vec::new(),
                id: item.id.clone(),
            };
            match once.find(&state, &batch.table) {
                Some(found) => {
                    let receipt = item.receipt.clone();
                    let receipt = found.receipt(&self.cluster, &state, receipt).await;
                    item.answer(&Ok(receipt));
                }
                None => left.push(item),
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: Option<&str>, bytes: u64) -> Item {
        let rows = Rows {
            bytes,
            ..Rows::default()
        };
        let receipt = IngestReceipt {
            database: "d".to_owned(),
            table: "t".to_owned(),
            version: 0,
            digest: String::new(),
            rows: 1,
            extents: 0,
            size_bytes: 0,
            bad_rows: 0,
            rejects: Vec::new(),
            skipped: None,
        };
        Item::new(rows, id.map(|id| id.parse().expect("an id")), receipt)
    }

    fn push(waiting: &mut Waiting, item: Item) {
        let (reply, _) = oneshot::channel();
        waiting.push(item, reply);
    }

    #[test]
    fn what_is_sent_twice_while_it_waits_is_in_the_batch_once() {
        let mut waiting = Waiting::default();
        for id in [Some("a"), None, Some("b"), None, Some("a")] {
            push(&mut waiting, item(id, 10));
        }
        let replies = waiting.items.iter().map(|item| item.replies.len());
        assert_eq!(replies.collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert_eq!(waiting.bytes, 40);
    }

    #[test]
    fn a_batch_is_full_by_number_or_by_size() {
        let policy = IngestionBatchingPolicy {
            maximum_number_of_items: 3,
            maximum_raw_data_size_mb: 1,
            ..IngestionBatchingPolicy::default()
        };
        let pushes = |sizes: &[u64]| {
            let mut waiting = Waiting::default();
            sizes
                .iter()
                .for_each(|bytes| push(&mut waiting, item(None, *bytes)));
            waiting.is_full(&policy)
        };
        assert!(!pushes(&[1, 1]));
        assert!(pushes(&[1, 1, 1]), "by number");
        assert!(!pushes(&[(1 << 20) - 1]));
        assert!(pushes(&[1 << 19, 1 << 19]), "by size");
    }
}
