//! A database whose files stay as they are, while somebody brings back what was removed or makes
//! sure that it is not deleted.

use std::collections::HashSet;
use std::time::Duration;

use slipstream_catalog::{DatabaseState, DatabaseWriter, GarbageLedger};
use slipstream_frontend::ServiceError;
use slipstream_model::{ExtentId, Timestamp};
use slipstream_storage::BucketReader;
use tokio::sync::OwnedMutexGuard;

use super::{GarbageCollector, garbage};

/// Nothing of the database is deleted as long as this lives.
#[derive(Debug)]
pub(crate) struct Kept {
    newest: DatabaseState,
    /// What left its table and was not deleted, as far as the ledger knows. It may be behind: what
    /// it still names can have been deleted by a leader that died before it noted that.
    removed: HashSet<ExtentId>,
    now: Timestamp,
    grace: Duration,
    bucket: BucketReader,
    /// Rounds of deletion wait for it.
    _ledger: OwnedMutexGuard<Option<GarbageLedger>>,
}

impl GarbageCollector {
    /// Waits until a round of deletion has ended, and lets none begin.
    ///
    /// # Errors
    /// When it cannot be told what was removed.
    pub(crate) async fn keep(&self, writer: &DatabaseWriter) -> Result<Kept, ServiceError> {
        let cell = self.cell(writer.state().id());
        let mut cell = cell.lock_owned().await;
        let ledger = self.followed(&mut cell, writer).await?;
        let removals = ledger.removals().iter();
        let removed = removals.flat_map(|removal| &removal.extents);
        Ok(Kept {
            newest: ledger.state().clone(),
            removed: removed.map(|extent| extent.id).collect(),
            now: self.cluster.careful_now(),
            grace: self.grace,
            bucket: self.cluster.bucket().reader().clone(),
            _ledger: cell,
        })
    }
}

impl Kept {
    /// The newest state.
    pub(crate) fn newest(&self) -> &DatabaseState {
        &self.newest
    }

    /// How long files stay after the commit that removed them.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether what was removed at a time may be deleted by now.
    pub(crate) fn is_over(&self, removed_at: Timestamp) -> bool {
        self.now >= removed_at.plus(self.grace)
    }

    /// One of some extents that a table has.
    pub(crate) fn held_of(&self, ids: &[ExtentId]) -> Option<ExtentId> {
        garbage::held_of(&self.newest, ids).into_iter().min()
    }

    /// One of some extents, which no table has, whose file is gone.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(crate) async fn gone_of(&self, ids: &[ExtentId]) -> Result<Option<ExtentId>, ServiceError> {
        if let Some(gone) = ids.iter().find(|id| !self.removed.contains(*id)) {
            return Ok(Some(*gone));
        }
        let database = self.newest.id();
        Ok(self.bucket.missing_extent(database, ids).await?)
    }
}
