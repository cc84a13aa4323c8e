//! The one task that writes a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipstream_storage::{BucketPath, CreateOutcome, StorageError, StorageErrorKind};
use tokio::sync::{mpsc, oneshot};

use super::checkpointer::Checkpointer;
use super::{Committed, Shared, committed};
use crate::log::{self, Draft, LogState, TRANSACTION_BYTES_MAX};
use crate::{COMMIT_BYTES_MAX, CommitError, OpError};

/// Transactions in one commit. Enough for everything that can wait while a store takes an object.
const GROUP_TRANSACTIONS_MAX: usize = 512;
/// Bytes of records after which a commit takes in no more transactions, so that one commit stays
/// a message of a few megabytes that every follower gets.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// The last transaction taken in may be as large as one can be; the rest is the commit's header.
const _: () = assert!(GROUP_BYTES_MAX + TRANSACTION_BYTES_MAX + (1 << 20) < COMMIT_BYTES_MAX);
/// The pause after the first unanswered attempt; each further one doubles it. The store's client
/// and the bucket have retried already.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause: how soon an idle store is noticed to be back.
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(5);

type Reply<S> = oneshot::Sender<Result<Committed<S>, CommitError>>;

/// A transaction that waits.
#[derive(Debug)]
pub(super) struct Request<S: LogState> {
    pub(super) ops: Vec<S::Op>,
    pub(super) reply: Reply<S>,
}

/// A transaction that was looked at; its caller hears of it when the commit's fate is known.
type Validated<S> = (Reply<S>, Result<(), OpError>);

/// What became of an attempt to write an object.
enum Written {
    Landed,
    /// Something else stands there.
    Taken(Bytes),
    /// The store refused, or the writer is closed while the store does not answer.
    Failed(StorageError),
}

pub(super) struct WriterTask<S: LogState> {
    shared: Arc<Shared<S>>,
    requests: mpsc::Receiver<Request<S>>,
    checkpointer: Checkpointer,
}

impl<S: LogState> WriterTask<S> {
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        requests: mpsc::Receiver<Request<S>>,
        checkpointer: Checkpointer,
    ) -> Self {
        Self {
            shared,
            requests,
            checkpointer,
        }
    }

    /// Runs until the writer is closed, stopped, or dropped with all its clones.
    pub(super) async fn run(mut self) {
        self.checkpointer.commit_landed(&self.shared.state());
        while let Some(request) = self.next_request().await {
            match self.shared.stopped() {
                // The caller is gone when this fails, here and below.
                Some(reason) => drop(request.reply.send(Err(reason))),
                None => self.commit_group(request).await,
            }
        }
        let closed = self.shared.stopping.is_cancelled() && self.shared.stopped().is_none();
        self.shared.stop(CommitError::Closed);
        if closed {
            self.checkpointer.finish(self.shared.state()).await;
        }
    }

    async fn next_request(&mut self) -> Option<Request<S>> {
        if !self.requests.is_closed() {
            tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => self.requests.close(),
                request = self.requests.recv() => return request,
            }
        }
        self.requests.recv().await
    }

    /// Makes one commit of a transaction and whatever else is waiting.
    async fn commit_group(&mut self, first: Request<S>) {
        let started = self.shared.context.clock.elapsed();
        let (draft, validated) = self.draft(first);
        let state = self.shared.state();
        if draft.is_empty() {
            return answer(validated, &Ok(committed(state, Bytes::new())));
        }
        let group_size = validated.len();
        let chain = state.chain();
        let context = &self.shared.context;
        let stamp = context.stamp(chain.version.next(), self.shared.epoch, chain.committed_at);
        let (bytes, next) = draft.seal(&stamp, &context.writer);
        let path = state.commit_path(stamp.version);

        let fate = match self.write(&path, &bytes).await {
            Written::Landed => Ok(self.landed(next, bytes)),
            Written::Taken(found) => Err(self.taken(&state, &path, found)),
            Written::Failed(error) => Err(CommitError::Unavailable(Arc::new(error))),
        };
        if fate.is_ok() {
            let elapsed = self.shared.context.clock.elapsed().saturating_sub(started);
            metrics::counter!("slipstream_commits_total").increment(1);
            metrics::histogram!("slipstream_commit_group_size").record(group_size as f64);
            metrics::histogram!("slipstream_commit_seconds").record(elapsed.as_secs_f64());
        }
        answer(validated, &fate);
    }

    /// Validates what is waiting, each transaction against what those before it leave.
    fn draft(&mut self, first: Request<S>) -> (Draft<S>, Vec<Validated<S>>) {
        let mut draft = Draft::new(self.shared.state());
        let mut validated = Vec::new();
        let mut waiting = Some(first);
        while let Some(Request { ops, reply }) = waiting.take() {
            validated.push((reply, draft.add(ops)));
            let is_full = validated.len() >= GROUP_TRANSACTIONS_MAX
                || draft.record_bytes() >= GROUP_BYTES_MAX;
            if !is_full {
                waiting = self.requests.try_recv().ok();
            }
        }
        (draft, validated)
    }

    /// Writes an object, and goes on until it is known whether it is there.
    async fn write(&self, path: &BucketPath, bytes: &Bytes) -> Written {
        let context = &self.shared.context;
        let mut backoff = RETRY_BACKOFF;
        let mut is_unknown = false;
        loop {
            let error = match self.shared.bucket.create(path, bytes.clone()).await {
                Ok(CreateOutcome::Created) => return Written::Landed,
                Ok(CreateOutcome::Exists(found)) => return Written::Taken(found),
                Err(error) => error,
            };
            // A store that refuses has not taken it. One that does not answer may have, so the
            // same bytes go there again until an answer comes, even when it refuses then.
            is_unknown |= error.kind() == StorageErrorKind::Unavailable;
            if !is_unknown {
                return Written::Failed(error);
            }
            tracing::warn!(%path, %error, "a commit's fate is unknown; trying again");
            tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => return Written::Failed(error),
                () = context.clock.sleep(backoff.mul_f64(0.5 + context.entropy.fraction())) => {}
            }
            // A clock of virtual time does not wait; others must have a turn all the same.
            tokio::task::yield_now().await;
            backoff = (backoff * 2).min(RETRY_BACKOFF_MAX);
        }
    }

    fn landed(&mut self, state: S, bytes: Bytes) -> Committed<S> {
        let committed = self.shared.publish(state, bytes);
        self.checkpointer.commit_landed(&committed.state);
        committed
    }

    /// Something stands where the commit was to go. Says what this means for its transactions.
    fn taken(&mut self, state: &S, path: &BucketPath, found: Bytes) -> CommitError {
        let applied = log::decode_at(path, &found)
            .and_then(|commit| Ok((commit.epoch(), log::apply(state, &commit)?)));
        let reason = match applied {
            Ok((epoch, next)) if epoch == self.shared.epoch => {
                // An attempt of our own that had been given up as refused. It is in the log, so
                // it is committed; what came after it was not written.
                self.landed(next, found);
                let message = format!(
                    "{path} holds an earlier commit of this writer that had seemed to fail; \
                     this one was not written: try again"
                );
                let error = StorageError::new(StorageErrorKind::Unavailable, message);
                return CommitError::Unavailable(Arc::new(error));
            }
            Ok((epoch, _)) => CommitError::Fenced { epoch },
            Err(corrupt) => CommitError::Corrupt(corrupt),
        };
        self.shared.stop(reason.clone());
        reason
    }
}

/// Tells every caller. A rejection holds only if the commit that it was found against does.
fn answer<S: LogState>(validated: Vec<Validated<S>>, fate: &Result<Committed<S>, CommitError>) {
    for (reply, verdict) in validated {
        let answer = match (fate, verdict) {
            (Ok(_), Err(error)) => Err(CommitError::Rejected(error)),
            (fate, _) => fate.clone(),
        };
        drop(reply.send(answer));
    }
}
