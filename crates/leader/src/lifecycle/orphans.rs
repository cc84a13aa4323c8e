//! Files that were uploaded and that no commit ever named: which they are, and when they go.
//!
//! A leader notes the ids that it may upload before it does ([`UploadIntent`]). When another one
//! has opened the database, the first can commit no more: what its intents name, and neither a table
//! has nor the ledger of removals, no version has or ever will have. Files that a failed ingest of
//! this very leader left behind are known without that.
//!
//! Nobody reads such a file, so no version keeps it. It stays for grace and one lease period all the
//! same: for as long a leader that was replaced may still be uploading.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::{DatabaseWriter, GarbageLedger, OpenedEpoch, RemovedExtent, UploadIntent};
use slipstream_frontend::{
    CollectedExtent, CollectedReason, GarbageBlocker, GarbageReason, ServiceError,
};
use slipstream_model::{DatabaseId, DatabaseName, Epoch, ExtentId, Timestamp, Version};
use slipstream_storage::{BucketPath, StorageError};

use super::collector::{
    BATCH_EXTENTS, DELETE_CONCURRENCY, NAMED_MAX, catalog_error, not_known_to_lead,
};
use super::garbage;
use crate::Cluster;
use crate::ingest::Abandoned;

/// Files that are asked about at one time. Nobody waits for the answer.
const LOOK_CONCURRENCY: usize = 8;

/// When files go that nobody will commit any more.
#[derive(Debug, Clone, Copy)]
struct Age {
    now: Timestamp,
    /// How long they are kept: grace and one lease period.
    kept: Duration,
    until_leases_are_known: Duration,
}

impl Age {
    fn is_over(&self, since: Timestamp) -> bool {
        self.until_leases_are_known.is_zero() && self.now >= since.plus(self.kept)
    }

    fn until(&self, since: Timestamp) -> Timestamp {
        let known = self.now.plus(self.until_leases_are_known);
        since.plus(self.kept).max(known)
    }
}

/// A writer that can commit no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Replaced {
    epoch: Epoch,
    /// The commit by which the next one opened the log, and when that was made.
    by: Version,
    at: Timestamp,
}

/// The writers that can commit no more, and whose files are not dealt with.
fn replaced(epochs: &[OpenedEpoch]) -> Vec<Replaced> {
    let successors = epochs.iter().skip(1);
    let pairs = epochs.iter().zip(successors);
    let pairs = pairs.filter(|(opened, _)| !opened.is_settled);
    pairs
        .map(|(opened, next)| Replaced {
            epoch: opened.epoch,
            by: next.version,
            at: next.opened_at,
        })
        .collect()
}

/// What the log speaks for: extents that tables have, and that a removal names. Whatever else a
/// commit ever named is deleted already.
struct Named<'a> {
    ledger: &'a GarbageLedger,
    removed: HashSet<ExtentId>,
}

impl<'a> Named<'a> {
    fn of(ledger: &'a GarbageLedger) -> Self {
        let removals = ledger.removals().iter();
        let removed = removals.flat_map(|removal| &removal.extents);
        Self {
            ledger,
            removed: removed.map(|extent| extent.id).collect(),
        }
    }

    /// Those of some ids that no commit speaks for.
    fn without(&self, ids: &[ExtentId]) -> Vec<ExtentId> {
        let held = garbage::held_of(self.ledger.state(), ids);
        let is_named = |id: &ExtentId| held.contains(id) || self.removed.contains(id);
        ids.iter().copied().filter(|id| !is_named(id)).collect()
    }
}

/// What a replaced writer left in the bucket.
#[derive(Debug, Default)]
struct Found {
    files: Vec<RemovedExtent>,
    intents: u64,
}

/// Finds orphans, and deletes them.
#[derive(Debug)]
pub(super) struct Orphans {
    cluster: Arc<Cluster>,
    grace: Duration,
    /// What writers left behind whose files are not due. To show it; who deletes looks again.
    seen: Mutex<HashMap<(DatabaseId, Epoch), Arc<Found>>>,
}

impl Orphans {
    pub(super) fn new(cluster: Arc<Cluster>, grace: Duration) -> Self {
        Self {
            cluster,
            grace,
            seen: Mutex::default(),
        }
    }

    /// Forgets databases that were dropped.
    pub(super) fn forget_all_but(&self, alive: &HashSet<DatabaseId>) {
        self.seen.lock().retain(|(id, _), _| alive.contains(id));
    }

    /// What orphans there are of a database, by who left them.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(super) async fn blockers(
        &self,
        database: &DatabaseName,
        ledger: &GarbageLedger,
    ) -> Result<Vec<GarbageBlocker>, ServiceError> {
        let age = self.age();
        let mut blockers = Vec::new();
        for writer in replaced(ledger.epochs()) {
            let found = self.see(ledger, writer.epoch).await?;
            let holder = format!("epoch {}", writer.epoch);
            blockers.extend(blocker(
                database,
                holder,
                &found.files,
                (writer.by, writer.at),
                &age,
            ));
        }
        let abandoned = self.abandoned(ledger.state().id());
        if let Some(oldest) = abandoned.first() {
            let files: Vec<RemovedExtent> = abandoned.iter().map(|one| one.extent).collect();
            let since = (ledger.state().version(), oldest.since);
            let holder = "this leader".to_owned();
            blockers.extend(blocker(database, holder, &files, since, &age));
        }
        Ok(blockers)
    }

    /// What would be deleted now.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(super) async fn preview(
        &self,
        ledger: &GarbageLedger,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        let mut all = Vec::new();
        for writer in self.due(ledger) {
            let found = self.look(ledger, writer.epoch).await?;
            let files = found.files.iter();
            all.extend(files.map(|file| collected(*file, writer.by, writer.at)));
        }
        let by = ledger.state().version();
        let (due, _) = self.due_of_own(ledger);
        all.extend(due.iter().map(|one| collected(one.extent, by, one.since)));
        Ok(all)
    }

    /// Deletes what is due, and adds it to what was deleted.
    ///
    /// # Errors
    /// When the bucket does not answer, or another leader has taken over. What was deleted until
    /// then stays deleted, and is found to be gone the next time.
    pub(super) async fn collect(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
        ledger: &mut GarbageLedger,
        deleted: &mut Vec<CollectedExtent>,
    ) -> Result<(), ServiceError> {
        let id = ledger.state().id();
        for gone in self.due(ledger) {
            let found = self.look(ledger, gone.epoch).await?;
            for batch in found.files.chunks(BATCH_EXTENTS) {
                self.delete(database, writer, batch).await?;
                let files = batch.iter();
                let files = files.map(|file| collected(*file, gone.by, gone.at));
                let room = NAMED_MAX.saturating_sub(deleted.len());
                deleted.extend(files.take(room));
            }
            // The first goes last: without it nobody looks for the others.
            for number in (0..found.intents).rev() {
                let path = BucketPath::upload_intent(id, gone.epoch, number);
                self.cluster.bucket().delete(&path).await?;
            }
            ledger.settle_epoch(gone.epoch);
            self.seen.lock().remove(&(id, gone.epoch));
        }
        let by = ledger.state().version();
        let (due, looked_at) = self.due_of_own(ledger);
        for batch in due.chunks(BATCH_EXTENTS) {
            let files: Vec<RemovedExtent> = batch.iter().map(|one| one.extent).collect();
            self.delete(database, writer, &files).await?;
            let batch = batch.iter();
            let batch = batch.map(|one| collected(one.extent, by, one.since));
            let room = NAMED_MAX.saturating_sub(deleted.len());
            deleted.extend(batch.take(room));
        }
        let ids = self.cluster.extent_ids(id)?;
        let gone = ids.abandoned().into_iter().take(looked_at);
        ids.settle(gone.map(|one| one.extent.id));
        ids.forget(looked_at);
        let settled = ids.settled();
        for intent in &settled {
            let retired = intent.retire(self.cluster.bucket(), id).await;
            retired.map_err(catalog_error)?;
        }
        ids.forget_settled(settled.len());
        Ok(())
    }

    fn age(&self) -> Age {
        Age {
            now: self.cluster.careful_now(),
            kept: self.grace.saturating_add(self.cluster.leases().ttl()),
            until_leases_are_known: self.cluster.leases().until_known(),
        }
    }

    /// The writers whose files may go.
    fn due(&self, ledger: &GarbageLedger) -> Vec<Replaced> {
        let age = self.age();
        let all = replaced(ledger.epochs()).into_iter();
        all.filter(|writer| age.is_over(writer.at)).collect()
    }

    /// Files of this leader's own that may go, and how many of the oldest were looked at.
    fn due_of_own(&self, ledger: &GarbageLedger) -> (Vec<Abandoned>, usize) {
        let age = self.age();
        let mut due = self.abandoned(ledger.state().id());
        let old = due.iter().take_while(|one| age.is_over(one.since)).count();
        due.truncate(old);
        if due.is_empty() {
            return (due, old);
        }
        let ids: Vec<ExtentId> = due.iter().map(|one| one.extent.id).collect();
        let unnamed = Named::of(ledger).without(&ids).into_iter();
        let unnamed: HashSet<ExtentId> = unnamed.collect();
        due.retain(|one| unnamed.contains(&one.extent.id));
        (due, old)
    }

    fn abandoned(&self, database: DatabaseId) -> Vec<Abandoned> {
        let ids = self.cluster.extent_ids(database);
        ids.map(|ids| ids.abandoned()).unwrap_or_default()
    }

    /// What a writer left behind, as it was when this was first asked.
    async fn see(&self, ledger: &GarbageLedger, epoch: Epoch) -> Result<Arc<Found>, ServiceError> {
        let key = (ledger.state().id(), epoch);
        if let Some(found) = self.seen.lock().get(&key) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.look(ledger, epoch).await?);
        self.seen.lock().insert(key, Arc::clone(&found));
        Ok(found)
    }

    /// Asks the bucket for a writer's intents, and for what they name and no commit does.
    async fn look(&self, ledger: &GarbageLedger, epoch: Epoch) -> Result<Found, ServiceError> {
        let (bucket, database) = (self.cluster.bucket(), ledger.state().id());
        let mut found = Found::default();
        let mut named = None;
        loop {
            let intent = UploadIntent::read(bucket.reader(), database, epoch, found.intents).await;
            let Some(intent) = intent.map_err(catalog_error)? else {
                return Ok(found);
            };
            found.intents += 1;
            let named = named.get_or_insert_with(|| Named::of(ledger));
            let ids: Vec<ExtentId> = intent.ids().collect();
            let sizes = stream::iter(named.without(&ids)).map(|id| {
                let bucket = bucket.clone();
                async move {
                    let size = bucket.extent_size(database, id).await?;
                    Ok::<_, StorageError>(size.map(|size_bytes| RemovedExtent { id, size_bytes }))
                }
            });
            let sizes = sizes.buffered(LOOK_CONCURRENCY);
            let files: Vec<Option<RemovedExtent>> = sizes.try_collect().await?;
            found.files.extend(files.into_iter().flatten());
        }
    }

    /// Deletes a batch of files, unless another leader has taken over.
    async fn delete(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
        files: &[RemovedExtent],
    ) -> Result<(), ServiceError> {
        if !writer.is_newest().await {
            return Err(not_known_to_lead(database));
        }
        let id = writer.state().id();
        let extents: Vec<ExtentId> = files.iter().map(|file| file.id).collect();
        let deletes = stream::iter(extents).map(|extent| {
            let bucket = self.cluster.bucket().clone();
            async move { bucket.delete_extent(id, extent).await }
        });
        let deletes = deletes.buffer_unordered(DELETE_CONCURRENCY);
        deletes.try_collect::<()>().await?;
        note_batch(database, files);
        Ok(())
    }
}

/// A row about files that somebody left behind since a version and a time.
fn blocker(
    database: &DatabaseName,
    holder: String,
    files: &[RemovedExtent],
    (version, since): (Version, Timestamp),
    age: &Age,
) -> Option<GarbageBlocker> {
    let is_over = age.is_over(since);
    let reason = if is_over {
        GarbageReason::Due
    } else {
        GarbageReason::Orphan
    };
    let row = GarbageBlocker {
        database: database.to_string(),
        reason,
        holder,
        extents: files.len() as u64,
        bytes: files.iter().map(|file| file.size_bytes).sum(),
        oldest_version: version,
        oldest_removed_at: since,
        until: (!is_over).then(|| age.until(since)),
    };
    (!files.is_empty()).then_some(row)
}

fn collected(file: RemovedExtent, by: Version, at: Timestamp) -> CollectedExtent {
    CollectedExtent {
        id: file.id,
        reason: CollectedReason::Orphan,
        table: String::new(),
        removed_version: by,
        removed_at: at,
        size_bytes: file.size_bytes,
    }
}

/// Tells what was deleted, and why it could be.
fn note_batch(database: &DatabaseName, files: &[RemovedExtent]) {
    let (extents, bytes) = (
        files.len() as u64,
        files.iter().map(|file| file.size_bytes).sum::<u64>(),
    );
    let name = || database.to_string();
    metrics::counter!("slipstream_gc_orphans_total", "database" => name()).increment(extents);
    metrics::counter!("slipstream_gc_orphan_bytes_total", "database" => name()).increment(bytes);
    tracing::info!(
        %database, extents, bytes, reason = CollectedReason::Orphan.as_str(),
        "deleted files that were uploaded, that no commit ever named, and that nobody can commit any \
         more"
    );
    for file in files {
        tracing::debug!(%database, extent = %file.id, "deleted an orphan's file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(second))
    }

    /// A writer that opened the log at a version, as many seconds after the beginning.
    fn opened(epoch: u64, version: u64, is_settled: bool) -> OpenedEpoch {
        OpenedEpoch {
            epoch: Epoch::new(epoch),
            version: Version::new(version),
            opened_at: at(version),
            is_settled,
        }
    }

    fn age(now: u64, until_leases_are_known: Duration) -> Age {
        Age {
            now: at(now),
            kept: 10 * SECOND,
            until_leases_are_known,
        }
    }

    #[test]
    fn a_writer_is_replaced_when_the_next_has_opened_and_the_newest_never_is() {
        assert!(replaced(&[]).is_empty());
        assert!(replaced(&[opened(1, 1, false)]).is_empty());
        let epochs = [
            opened(1, 1, true),
            opened(2, 5, false),
            opened(4, 9, false),
            opened(5, 12, false),
        ];
        let expected = [(2, 9), (4, 12)].map(|(epoch, by)| Replaced {
            epoch: Epoch::new(epoch),
            by: Version::new(by),
            at: at(by),
        });
        assert_eq!(replaced(&epochs), expected);
    }

    #[test]
    fn files_are_kept_to_the_end_of_their_age_and_until_leases_are_known() {
        assert!(!age(14, Duration::ZERO).is_over(at(5)));
        assert!(age(15, Duration::ZERO).is_over(at(5)));
        assert!(!age(1_000, SECOND).is_over(at(5)));
        assert_eq!(age(7, Duration::ZERO).until(at(5)), at(15));
        assert_eq!(age(1_000, SECOND).until(at(5)), at(1_001));
    }

    #[test]
    fn a_row_says_whether_files_are_due_and_there_is_none_without_files() {
        let name = DatabaseName::new("d").expect("a name");
        let file = RemovedExtent {
            id: ExtentId::default(),
            size_bytes: 7,
        };
        let row = |files: &[RemovedExtent], now| {
            let since = (Version::new(3), at(5));
            blocker(
                &name,
                "epoch 1".into(),
                files,
                since,
                &age(now, Duration::ZERO),
            )
        };
        assert_eq!(row(&[], 7), None);
        let kept = row(&[file, file], 7).expect("files");
        assert_eq!(
            (kept.reason, kept.extents, kept.bytes),
            (GarbageReason::Orphan, 2, 14)
        );
        assert_eq!(kept.until, Some(at(15)));
        let due = row(&[file], 15).expect("files");
        assert_eq!((due.reason, due.until), (GarbageReason::Due, None));
    }
}
