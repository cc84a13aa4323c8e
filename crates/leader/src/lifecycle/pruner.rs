//! Deletes the beginning of a log, with the checkpoints that stand there.
//!
//! A log is kept for as long as a version that it leads to may be asked for: through the grace period,
//! as the files of removed extents are; as long as a lease, a query or a pin holds it; and until what it
//! removed is deleted, which it is the last to know of. Then a [`LogStart`] is made of the newest
//! checkpoint that all of this allows, and what lies before that is deleted. Whoever dies in between
//! goes on with it: what is deleted follows from the numbers of two starts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::{
    DatabaseReader, DatabaseWriter, GarbageLedger, History, HistoryError, LogStart,
    checkpoint_segments,
};
use slipstream_frontend::ServiceError;
use slipstream_model::{DatabaseId, DatabaseName, Digest, Timestamp, Version};

use super::collector::{BATCH_EXTENTS, DELETE_CONCURRENCY, catalog_error, not_known_to_lead};
use super::garbage::Rules;
use crate::Cluster;

/// When nothing could be deleted, it is looked again after this part of the grace period.
const LOOKS_IN_GRACE: u32 = 16;

/// Deletes what of logs nobody can ask for any more.
pub(super) struct Pruner {
    cluster: Arc<Cluster>,
    grace: Duration,
    /// Commits at least that are deleted together.
    step: u64,
    history: History,
    known: Mutex<HashMap<DatabaseId, Known>>,
}

/// What is known of a database's log.
#[derive(Debug, Clone, Default)]
struct Known {
    start: Option<LogStart>,
    /// What lies before this and not before the start may be there still.
    deleted_to: Version,
    /// There is nothing to do before.
    not_before: Timestamp,
}

impl fmt::Debug for Pruner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pruner")
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl Pruner {
    pub(super) fn new(cluster: Arc<Cluster>, grace: Duration, step: u64) -> Self {
        Self {
            history: History::new(cluster.bucket().reader().clone()),
            cluster,
            grace,
            step,
            known: Mutex::default(),
        }
    }

    /// Forgets databases that were dropped.
    pub(super) fn forget_all_but(&self, alive: &HashSet<DatabaseId>) {
        self.known.lock().retain(|id, _| alive.contains(id));
    }

    /// Deletes what may go of a database's log.
    ///
    /// # Errors
    /// When the bucket does not answer, or another leader has taken over. It is gone on with the next
    /// time.
    pub(super) async fn prune(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
        ledger: &GarbageLedger,
        rules_now: impl Fn() -> Rules,
    ) -> Result<(), ServiceError> {
        let id = ledger.state().id();
        let rules = &rules_now();
        if !rules.until_leases_are_known.is_zero() {
            return Ok(());
        }
        let known = self.known.lock().get(&id).cloned();
        let mut known = match known {
            Some(known) => known,
            None => self.look(id).await?,
        };
        let needed = needed(ledger, rules);
        if known.is_done() && rules.now >= known.not_before {
            let next = self.next_start(ledger, rules, &known, needed).await?;
            if next.is_some() && !writer.is_newest().await {
                return Err(not_known_to_lead(database));
            }
            // Somebody may hold an older version since it was looked.
            let needed = self::needed(ledger, &rules_now());
            match next.filter(|next| next.version <= needed) {
                Some(next) => {
                    let created = next.create(self.cluster.bucket(), id).await;
                    known.start = Some(created.map_err(catalog_error)?);
                }
                None => {
                    known.not_before = rules.now.plus(self.grace / LOOKS_IN_GRACE);
                }
            }
        }
        self.note(id, &known);
        // It may be another leader's, who did not know of somebody that this one knows.
        let may_go = |start: &LogStart| !known.is_done() && start.version <= needed;
        if let Some(start) = known.start.clone().filter(may_go) {
            self.delete(database, writer, ledger, &start, known.deleted_to)
                .await?;
            known.deleted_to = start.version;
            self.note(id, &known);
        }
        Ok(())
    }

    fn note(&self, id: DatabaseId, known: &Known) {
        self.known.lock().insert(id, known.clone());
    }

    /// Where a log begins, and whether all before it is deleted.
    async fn look(&self, id: DatabaseId) -> Result<Known, ServiceError> {
        let bucket = self.cluster.bucket().reader();
        let start = LogStart::newest(bucket, id).await.map_err(catalog_error)?;
        let mut known = Known {
            deleted_to: Version::FIRST,
            ..Known::default()
        };
        if let Some(start) = start {
            let before = start.version_before(bucket, id).await;
            let before = before.map_err(catalog_error)?;
            known.deleted_to = start.version;
            if let Some(last) = last_to_delete(&start, before) {
                let commit = DatabaseReader::new(bucket.clone(), id)
                    .commit_at(last)
                    .await;
                if commit.map_err(catalog_error)?.is_some() {
                    known.deleted_to = before;
                }
            }
            known.start = Some(start);
        }
        Ok(known)
    }

    /// A start from which on all is kept that somebody may ask for, if enough lies before it.
    async fn next_start(
        &self,
        ledger: &GarbageLedger,
        rules: &Rules,
        known: &Known,
        needed: Version,
    ) -> Result<Option<LogStart>, ServiceError> {
        let newest = ledger.state();
        let enough = Version::new(known.deleted_to.get() + self.step);
        if needed < enough {
            return Ok(None);
        }
        let grace = i64::try_from(self.grace.as_micros()).unwrap_or(i64::MAX);
        let time = Timestamp::from_micros(rules.now.as_micros().saturating_sub(grace));
        let old = match self.history.version_at(newest, time).await {
            Ok(version) => version,
            Err(HistoryError::TooEarly(_) | HistoryError::NotKept { .. }) => return Ok(None),
            Err(error) => return Err(history_error(error)),
        };
        let latest = needed.min(old);
        if latest < enough {
            return Ok(None);
        }
        let checkpoint = self.history.checkpoint_before(newest, latest);
        let checkpoint = checkpoint.await.map_err(history_error)?;
        let checkpoint = checkpoint.filter(|state| state.version() >= enough);
        let start = checkpoint.map(|state| LogStart::at(&state, ledger, known.start.as_ref()));
        Ok(start)
    }

    /// Deletes commits and checkpoints from a version on, up to the start.
    async fn delete(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
        ledger: &GarbageLedger,
        start: &LogStart,
        from: Version,
    ) -> Result<(), ServiceError> {
        let id = ledger.state().id();
        let kept = Arc::new(self.kept_segments(ledger, start, writer).await?);
        let start = Arc::new(start.clone());
        // The last one goes last: it says that all of this is done.
        let last = last_to_delete(&start, from).unwrap_or(from);
        let others = (from.get()..start.version.get()).filter(|number| *number != last.get());
        let others: Vec<u64> = others.collect();
        for batch in others.chunks(BATCH_EXTENTS).chain([&[last.get()][..]]) {
            if !writer.is_newest().await {
                return Err(not_known_to_lead(database));
            }
            let versions = stream::iter(batch.to_vec()).map(Version::new);
            let deletes = versions.map(|version| {
                let bucket = self.cluster.bucket().clone();
                let (start, kept) = (Arc::clone(&start), Arc::clone(&kept));
                async move { start.delete_version(&bucket, id, version, &kept).await }
            });
            let deletes = deletes.buffer_unordered(DELETE_CONCURRENCY);
            let deleted = deletes.try_collect::<()>().await;
            deleted.map_err(catalog_error)?;
        }
        let commits = start.version.get() - from.get();
        metrics::counter!(
            "slipstream_log_deleted_commits_total", "database" => database.to_string()
        )
        .increment(commits);
        tracing::info!(
            %database, commits, oldest = %start.version,
            "deleted the beginning of the log: what led to versions older than the grace period, which \
             nobody reads"
        );
        Ok(())
    }

    /// The segments of checkpoints that stay.
    async fn kept_segments(
        &self,
        ledger: &GarbageLedger,
        start: &LogStart,
        writer: &DatabaseWriter,
    ) -> Result<HashSet<Digest>, ServiceError> {
        let (bucket, id) = (self.cluster.bucket().reader(), ledger.state().id());
        let mut kept: HashSet<Digest> = writer.state().stored_segments().collect();
        for version in [start.version, ledger.stored()] {
            let segments = checkpoint_segments(bucket, id, version).await;
            kept.extend(segments.map_err(catalog_error)?);
        }
        Ok(kept)
    }
}

impl Known {
    fn is_done(&self) -> bool {
        self.start
            .as_ref()
            .is_none_or(|start| start.version == self.deleted_to)
    }
}

/// The version that has to stay whatever the time, and all after it.
fn needed(ledger: &GarbageLedger, rules: &Rules) -> Version {
    let held = rules.holders.iter().map(|holder| holder.version);
    // Who loses the ledger has to find the commit that removed something.
    let removals = ledger.removals().iter();
    let removals = removals.map(|removal| Version::new(removal.version.get() - 1));
    let lowest = held.chain(removals).min();
    lowest.map_or(ledger.stored(), |lowest| lowest.min(ledger.stored()))
}

/// The last version before a start whose commit does not stay.
fn last_to_delete(start: &LogStart, from: Version) -> Option<Version> {
    let mut numbers = (from.get()..start.version.get()).rev().map(Version::new);
    numbers.find(|version| !start.is_opening(*version))
}

fn history_error(error: HistoryError) -> ServiceError {
    match error {
        HistoryError::Catalog(error) => catalog_error(error),
        other => ServiceError::internal(other.to_string()),
    }
}
