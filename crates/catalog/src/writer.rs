//! Writing a log: one task, one object at a time, many transactions in each.

mod checkpointer;
mod task;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use slipstream_model::{
    Clock, ClusterName, CommitId, DatabaseId, Digest, Entropy, Epoch, Timestamp, Version,
};
use slipstream_storage::{BucketWriter, CreateOutcome, StorageError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::log::{self, Draft, LogState, Stamp};
use crate::reader::{catch_up, load, read_to_end};
use crate::{CatalogError, ClusterState, CommitError, DatabaseState};
use checkpointer::Checkpointer;
use task::{Request, WriterTask};

/// Commits between two checkpoints: a cold start then reads about four windows of log objects at
/// most. A root is small (for a million extents some hundred kilobytes), but not worth a commit.
pub const CHECKPOINT_EVERY: u64 = 64;

/// Transactions that may wait for their turn; more wait outside. A few seconds' worth at the rate
/// at which a store takes objects.
const QUEUE_TRANSACTIONS_MAX: usize = 1024;

/// Commits that a subscriber may be behind before it loses the oldest and has to read them from
/// the bucket. They share their memory with the newest state but for the bytes, which are small.
const SUBSCRIBER_COMMITS_MAX: usize = 256;

/// How often opening tries for a number that others keep taking. A busy writer that is being
/// replaced takes some; two leaders that both restart in a loop would take them for ever.
const OPEN_ATTEMPTS_MAX: u32 = 32;

/// How often [`LogWriter::is_newest`] looks again when a commit of its own lands in between: one
/// that commits all the time still finds a moment, and nobody waits long who does not.
const LOOKS_MAX: u32 = 8;

/// What a writer is given from outside.
#[derive(Debug, Clone)]
pub struct WriterContext {
    /// The cluster that writes, for people who read the log.
    pub writer: ClusterName,
    /// Stamps commits, and times retries.
    pub clock: Arc<dyn Clock>,
    /// Makes commit ids, and jitter.
    pub entropy: Entropy,
    /// Commits between two checkpoints.
    pub checkpoint_every: u64,
}

impl WriterContext {
    /// A context with a checkpoint every [`CHECKPOINT_EVERY`] commits.
    pub fn new(writer: ClusterName, clock: Arc<dyn Clock>, entropy: Entropy) -> Self {
        Self {
            writer,
            clock,
            entropy,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }

    pub(crate) fn stamp(&self, version: Version, epoch: Epoch, not_before: Timestamp) -> Stamp {
        Stamp {
            version,
            epoch,
            commit_id: CommitId::new(self.entropy.uuid()),
            // Caching policies take this for "now": it must not go back when the clock does.
            committed_at: self.clock.now().max(not_before),
        }
    }
}

/// A commit that is in the bucket.
#[derive(Debug, Clone)]
pub struct Committed<S = DatabaseState> {
    /// Its version.
    pub version: Version,
    /// The log's digest at it.
    pub digest: Digest,
    /// The state at it.
    pub state: S,
    /// The very bytes that stand in the bucket. Empty for a transaction that had nothing to
    /// change: then the rest describes the newest commit there was.
    pub bytes: Bytes,
}

/// The newest state, and every commit after it.
#[derive(Debug)]
pub struct Subscription<S = DatabaseState> {
    /// The state now.
    pub state: S,
    /// What comes after it. Closes when the writer is fenced or closed. Who is too slow is told
    /// so, and reads what it missed from the bucket.
    pub commits: broadcast::Receiver<Committed<S>>,
}

/// Writes one log. Cheap to clone; all clones are one writer.
///
/// A writer that finds another's commit under its next number is *fenced*: it never writes again.
pub struct LogWriter<S: LogState> {
    shared: Arc<Shared<S>>,
    queue: mpsc::Sender<Request<S>>,
}

/// Writes the log of one database.
pub type DatabaseWriter = LogWriter<DatabaseState>;

/// Writes the catalog of one cluster.
pub type ClusterWriter = LogWriter<ClusterState>;

impl LogWriter<DatabaseState> {
    /// Reads the database, and opens it for writing by a commit with the next epoch: from then on
    /// every older writer is fenced.
    ///
    /// # Errors
    /// When the bucket does not answer, when an object of the log cannot be trusted, or when
    /// other writers keep opening the same database.
    pub async fn open(
        bucket: BucketWriter,
        database: DatabaseId,
        context: WriterContext,
    ) -> Result<Self, CatalogError> {
        let empty = DatabaseState::empty(bucket.id(), database);
        Self::open_log(bucket, empty, context).await
    }
}

impl LogWriter<ClusterState> {
    /// Reads the catalog of the context's cluster, and opens it for writing.
    ///
    /// # Errors
    /// As [`DatabaseWriter::open`].
    pub async fn open(bucket: BucketWriter, context: WriterContext) -> Result<Self, CatalogError> {
        let empty = ClusterState::empty(bucket.id(), context.writer.clone());
        Self::open_log(bucket, empty, context).await
    }
}

impl<S: LogState> LogWriter<S> {
    async fn open_log(
        bucket: BucketWriter,
        empty: S,
        context: WriterContext,
    ) -> Result<Self, CatalogError> {
        let mut loaded = load(bucket.reader(), empty).await?;
        let checkpointed = loaded.read_from;
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let state = loaded.into_whole()?;
            let chain = state.chain();
            let stamp = context.stamp(chain.version.next(), chain.epoch.next(), chain.committed_at);
            let (bytes, opened) = Draft::new(state.clone()).seal(&stamp, &context.writer);
            match bucket
                .create(&state.commit_path(stamp.version), bytes)
                .await?
            {
                CreateOutcome::Created => {
                    // A number is free at the end of the log, and where its beginning was deleted
                    // since it was read.
                    let start = opened.load_start(bucket.reader(), stamp.version).await?;
                    let Some(start) = start else {
                        return Ok(Self::start(bucket, opened, checkpointed, context));
                    };
                    bucket.delete(&state.commit_path(stamp.version)).await?;
                    loaded = read_to_end(bucket.reader(), start).await?;
                }
                CreateOutcome::Exists(_) => loaded = catch_up(bucket.reader(), state).await?,
            }
        }
        let state = loaded.state;
        let object = state.commit_path(state.chain().version.next()).to_string();
        Err(CatalogError::Contended {
            object,
            attempts: OPEN_ATTEMPTS_MAX,
        })
    }

    fn start(
        bucket: BucketWriter,
        state: S,
        checkpointed: Version,
        context: WriterContext,
    ) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE_TRANSACTIONS_MAX);
        let chain = state.chain();
        tracing::info!(
            first = %state.commit_path(chain.version), epoch = %chain.epoch,
            "opened a log for writing"
        );
        let checkpointer =
            Checkpointer::new(bucket.clone(), context.checkpoint_every, checkpointed);
        let (sender, _) = broadcast::channel(SUBSCRIBER_COMMITS_MAX);
        let shared = Arc::new(Shared {
            epoch: chain.epoch,
            bucket,
            context,
            published: Mutex::new(Published {
                state,
                sender: Some(sender),
                stopped: None,
            }),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let task = WriterTask::new(Arc::clone(&shared), requests, checkpointer);
        shared.tasks.spawn(task.run());
        Self { shared, queue }
    }

    /// The newest committed state.
    pub fn state(&self) -> S {
        self.shared.published.lock().state.clone()
    }

    /// Commits a transaction: all of its operations, or none. Transactions that wait at the same
    /// time share a commit.
    ///
    /// Waits while the store does not answer; what is waiting may yet be committed when this
    /// future is dropped.
    ///
    /// # Errors
    /// [`CommitError::Rejected`] when the state does not allow an operation: nothing happened.
    /// All others say whether the transaction may yet be in the bucket.
    pub async fn commit(&self, ops: Vec<S::Op>) -> Result<Committed<S>, CommitError> {
        if let Some(reason) = self.shared.stopped() {
            return Err(reason);
        }
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request { ops, reply }).await.is_err() {
            return Err(self.shared.stop_reason());
        }
        answer
            .await
            .unwrap_or_else(|_| Err(self.shared.stop_reason()))
    }

    /// The newest state and everything after it, with nothing lost or repeated in between.
    pub fn subscribe(&self) -> Subscription<S> {
        let published = self.shared.published.lock();
        let commits = match &published.sender {
            Some(sender) => sender.subscribe(),
            // Closed at once.
            None => broadcast::channel(1).1,
        };
        Subscription {
            state: published.state.clone(),
            commits,
        }
    }

    /// Its epoch, which no other writer of the log has.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Whether another writer is known to have taken over.
    pub fn is_fenced(&self) -> bool {
        matches!(self.shared.stopped(), Some(CommitError::Fenced { .. }))
    }

    /// Looks whether another writer has taken over, for a writer that has nothing to write and
    /// so would not notice. One request; none, and `None`, when it has stopped already.
    ///
    /// # Errors
    /// When the store does not answer: it is not known then.
    pub async fn check_fenced(&self) -> Result<Option<bool>, StorageError> {
        if self.shared.stopped().is_some() {
            return Ok(None);
        }
        self.sees_end_of_log().await?;
        Ok(Some(self.is_fenced()))
    }

    /// Whether this is the newest writer, as the bucket says now. For what must not be done by one
    /// that was replaced and has not noticed. `false` also when that cannot be learned.
    pub async fn is_newest(&self) -> bool {
        for _ in 0..LOOKS_MAX {
            match self.sees_end_of_log().await {
                Ok(Some(true)) => return self.shared.stopped().is_none(),
                // A commit of our own has just landed; what comes after it is what counts.
                Ok(Some(false)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
        false
    }

    /// Looks at the number after the newest commit that is known here. `Some(true)`: nothing is
    /// there. `Some(false)`: a commit of our own, that is just landing. `None` when this writer has
    /// stopped.
    async fn sees_end_of_log(&self) -> Result<Option<bool>, StorageError> {
        if self.shared.stopped().is_some() {
            return Ok(None);
        }
        let state = self.state();
        let path = state.commit_path(state.chain().version.next());
        let Some(bytes) = self.shared.bucket.try_get(&path).await? else {
            return Ok(Some(true));
        };
        Ok(match log::decode_at(&path, &bytes) {
            Ok(commit) if commit.epoch() > self.shared.epoch => {
                self.shared.stop(CommitError::Fenced {
                    epoch: commit.epoch(),
                });
                None
            }
            Ok(_) => Some(false),
            Err(corrupt) => {
                self.shared.stop(CommitError::Corrupt(corrupt));
                None
            }
        })
    }

    /// Finishes what is queued, writes a checkpoint, and stops. Commits are refused from now on.
    pub async fn close(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl<S: LogState> Clone for LogWriter<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            queue: self.queue.clone(),
        }
    }
}

impl<S: LogState> fmt::Debug for LogWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published = self.shared.published.lock();
        f.debug_struct("LogWriter")
            .field(
                "next",
                &published
                    .state
                    .commit_path(published.state.chain().version.next()),
            )
            .field("epoch", &self.shared.epoch)
            .field("stopped", &published.stopped)
            .finish_non_exhaustive()
    }
}

/// What handles and task have in common.
struct Shared<S> {
    bucket: BucketWriter,
    context: WriterContext,
    /// This writer's own: every commit with this epoch is its work, and no other writer's.
    epoch: Epoch,
    published: Mutex<Published<S>>,
    /// Fires when the writer shall take no more.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// What is changed together, so that nobody sees one without the other.
struct Published<S> {
    state: S,
    /// Gone once the writer has stopped, which closes all subscriptions.
    sender: Option<broadcast::Sender<Committed<S>>>,
    /// Why nothing is committed any more.
    stopped: Option<CommitError>,
}

impl<S: LogState> Shared<S> {
    fn state(&self) -> S {
        self.published.lock().state.clone()
    }

    fn stopped(&self) -> Option<CommitError> {
        self.published.lock().stopped.clone()
    }

    fn stop_reason(&self) -> CommitError {
        self.stopped().unwrap_or(CommitError::Closed)
    }

    /// Makes a commit known that is in the bucket.
    fn publish(&self, state: S, bytes: Bytes) -> Committed<S> {
        let committed = committed(state, bytes);
        let mut published = self.published.lock();
        published.state = committed.state.clone();
        if let Some(sender) = &published.sender {
            // An error says that nobody listens.
            let _ = sender.send(committed.clone());
        }
        committed
    }

    /// Stops for good. The first reason stays.
    fn stop(&self, reason: CommitError) {
        let mut published = self.published.lock();
        if published.stopped.is_none() {
            let next = published.state.chain().version.next();
            let object = published.state.commit_path(next);
            match &reason {
                CommitError::Closed => tracing::info!(%object, "closed a log"),
                CommitError::Fenced { .. } => {
                    metrics::counter!("slipstream_fenced_total").increment(1);
                    tracing::error!(%object, error = %reason, "this writer is fenced");
                }
                _ => tracing::error!(%object, error = %reason, "stopped writing a log"),
            }
            published.stopped = Some(reason);
            published.sender = None;
        }
        drop(published);
        self.stopping.cancel();
    }
}

fn committed<S: LogState>(state: S, bytes: Bytes) -> Committed<S> {
    let chain = state.chain();
    Committed {
        version: chain.version,
        digest: chain.digest,
        state,
        bytes,
    }
}

#[cfg(test)]
mod tests;
