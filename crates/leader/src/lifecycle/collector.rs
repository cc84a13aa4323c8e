//! Deletes the files that nobody reads any more.
//!
//! What was removed comes from the log, by a [`GarbageLedger`]; never from a listing of the bucket.
//! What may go decides [`garbage`], which does nothing else. A batch is deleted only after the
//! bucket has said that no other leader has taken over, and is noted after it is deleted: whoever
//! dies in between deletes it again. [`Orphans`] are what no commit ever named, and
//! [`DroppedDatabases`] go as a whole. The [`Pruner`] deletes the log that leads to what is gone.

mod kept;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::{
    CatalogError, DatabaseReader, DatabaseState, DatabaseWriter, GarbageLedger,
};
use slipstream_frontend::{
    CollectedExtent, CollectedReason, ErrorKind, GarbageBlocker, GarbageReason, ServiceError,
};
use slipstream_model::{DatabaseId, DatabaseName, ExtentId};

use super::dropped::DroppedDatabases;
use super::garbage::{self, Deletable, Picked, Rules};
use super::orphans::Orphans;
use super::pruner::Pruner;
use super::settings::LifecycleSettings;
use crate::Cluster;

pub(crate) use kept::Kept;

/// Extents that are deleted between two looks whether this is still the leader: some seconds' work.
pub(super) const BATCH_EXTENTS: usize = 256;
/// Files that are deleted at one time. Nobody waits for the space, and others wait for the bucket.
pub(super) const DELETE_CONCURRENCY: usize = 8;
/// Commits that a leader that starts reads at most to know what was removed, when nothing was
/// deleted for long.
const STORE_EVERY: u64 = 1_024;
/// Extents that an answer names; it stands in memory. All of them are deleted.
pub(super) const NAMED_MAX: usize = 100_000;

/// What one database's rounds share; one round at a time.
type Cell = Arc<tokio::sync::Mutex<Option<GarbageLedger>>>;

/// Deletes the files of removed extents.
#[derive(Debug)]
pub struct GarbageCollector {
    cluster: Arc<Cluster>,
    grace: Duration,
    ledgers: Mutex<HashMap<DatabaseId, Cell>>,
    orphans: Orphans,
    pruner: Pruner,
    dropped: DroppedDatabases,
}

impl GarbageCollector {
    pub(super) fn new(cluster: Arc<Cluster>, settings: &LifecycleSettings) -> Self {
        let grace = settings.gc_grace;
        Self {
            pruner: Pruner::new(Arc::clone(&cluster), grace, settings.prune_every),
            orphans: Orphans::new(Arc::clone(&cluster), grace),
            dropped: DroppedDatabases::new(Arc::clone(&cluster), grace),
            cluster,
            grace,
            ledgers: Mutex::default(),
        }
    }

    /// Deletes for as long as the node runs.
    pub(super) async fn run(self: Arc<Self>, interval: Duration) {
        loop {
            super::pause(&self.cluster, interval).await;
            let writers = self.cluster.writers();
            self.forget_all_but(&writers);
            for (database, writer) in writers {
                if let Err(error) = self.round(&database, &writer).await {
                    metrics::counter!(
                        "slipstream_gc_failures_total", "database" => database.to_string()
                    )
                    .increment(1);
                    tracing::warn!(%database, %error, "files of removed extents stay for now");
                }
            }
            self.dropped.round().await;
        }
    }

    async fn round(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
    ) -> Result<(), ServiceError> {
        self.collect(database, writer).await?;
        let blockers = self.blockers(database, writer).await?;
        note_blockers(database, &blockers);
        Ok(())
    }

    /// What keeps the files of removed extents of a database.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(crate) async fn blockers(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
    ) -> Result<Vec<GarbageBlocker>, ServiceError> {
        let id = writer.state().id();
        let cell = self.cell(id);
        let mut cell = cell.lock().await;
        let ledger = self.followed(&mut cell, writer).await?;
        let removals = ledger.removals();
        let ids = removals.iter().flat_map(|removal| &removal.extents);
        let ids: Vec<ExtentId> = ids.map(|extent| extent.id).collect();
        let held = garbage::held_of(ledger.state(), &ids);
        let rules = self.rules(ledger.state());
        let mut blockers = garbage::blockers(database.as_str(), removals, &rules, &held);
        blockers.extend(self.orphans.blockers(database, ledger).await?);
        Ok(blockers)
    }

    /// What keeps the objects of databases that were dropped.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(crate) async fn dropped(&self) -> Result<Vec<GarbageBlocker>, ServiceError> {
        self.dropped.blockers().await
    }

    /// What would be deleted now.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(crate) async fn preview(
        &self,
        writer: &DatabaseWriter,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        let id = writer.state().id();
        let cell = self.cell(id);
        let mut cell = cell.lock().await;
        let ledger = self.followed(&mut cell, writer).await?;
        let (state, rules) = (ledger.state(), self.rules(ledger.state()));
        let held_of = |ids: &[ExtentId]| garbage::held_of(state, ids);
        let picked = garbage::pick(ledger.removals(), &rules, NAMED_MAX, held_of);
        let picked = picked.unwrap_or_default();
        let mut all: Vec<_> = picked.delete.into_iter().map(collected).collect();
        all.extend(self.orphans.preview(ledger).await?);
        Ok(all)
    }

    /// Deletes what may go; gives what that was.
    ///
    /// # Errors
    /// When the bucket does not answer, or another leader has taken over. What was deleted until
    /// then stays deleted, and is found to be gone the next time.
    pub(crate) async fn collect(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        let id = writer.state().id();
        let cell = self.cell(id);
        let mut cell = cell.lock().await;
        let ledger = self.followed(&mut cell, writer).await?;
        let mut deleted = Vec::new();
        let mut is_changed = false;
        let mut outcome = Ok(());
        loop {
            let rules = self.rules(ledger.state());
            let state = ledger.state();
            let held_of = |ids: &[ExtentId]| garbage::held_of(state, ids);
            let picked = garbage::pick(ledger.removals(), &rules, BATCH_EXTENTS, held_of);
            let Some(picked) = picked else {
                break;
            };
            if !writer.is_newest().await {
                outcome = Err(not_known_to_lead(database));
                break;
            }
            let failed = self.delete(id, &picked).await;
            settle(ledger, &picked, &failed);
            is_changed = true;
            let gone = picked.delete.into_iter();
            let gone = gone.filter(|one| !failed.contains_key(&one.extent.id));
            let gone: Vec<Deletable> = gone.collect();
            note_batch(database, &gone);
            let room = NAMED_MAX.saturating_sub(deleted.len());
            deleted.extend(gone.into_iter().take(room).map(collected));
            if let Some(error) = failed.into_values().next() {
                outcome = Err(error);
                break;
            }
        }
        if outcome.is_ok() {
            let before = settled_epochs(ledger);
            let orphans = self.orphans.collect(database, writer, ledger, &mut deleted);
            outcome = orphans.await;
            is_changed |= settled_epochs(ledger) > before;
        }
        let ahead = ledger.state().version().get() - ledger.stored().get();
        if is_changed || ahead >= STORE_EVERY {
            let stored = ledger.store(self.cluster.bucket()).await;
            outcome = outcome.and(stored.map_err(catalog_error));
        }
        if outcome.is_ok() {
            let rules = || self.rules(&writer.state());
            outcome = self.pruner.prune(database, writer, ledger, rules).await;
        }
        outcome.map(|()| deleted)
    }

    /// Deletes the files of a batch; gives why some of them could not be.
    async fn delete(
        &self,
        database: DatabaseId,
        picked: &Picked,
    ) -> HashMap<ExtentId, ServiceError> {
        let ids: Vec<ExtentId> = picked.delete.iter().map(|one| one.extent.id).collect();
        let deletes = stream::iter(ids).map(|id| {
            let bucket = self.cluster.bucket().clone();
            async move { (id, bucket.delete_extent(database, id).await) }
        });
        let deletes = deletes.buffer_unordered(DELETE_CONCURRENCY);
        let failed = deletes.filter_map(|(id, deleted)| async move {
            let error = deleted.err()?;
            Some((id, ServiceError::from(error)))
        });
        failed.collect().await
    }

    /// A database's ledger, read on to the newest state.
    async fn followed<'a>(
        &self,
        ledger: &'a mut Option<GarbageLedger>,
        writer: &DatabaseWriter,
    ) -> Result<&'a mut GarbageLedger, ServiceError> {
        let (bucket, newest) = (self.cluster.bucket().reader(), writer.state());
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => {
                let loaded = GarbageLedger::load(bucket, newest.id()).await;
                ledger.insert(loaded.map_err(catalog_error)?)
            }
        };
        let reader = DatabaseReader::new(bucket.clone(), newest.id());
        let followed = ledger.follow(&reader, &newest).await;
        followed.map_err(catalog_error)?;
        Ok(ledger)
    }

    fn rules(&self, newest: &DatabaseState) -> Rules {
        let database = newest.id();
        let leases = self.cluster.leases().live().into_iter();
        let leases = leases.filter(|lease| lease.database == database);
        let queries = self.cluster.readers().versions(database).into_iter();
        let pins = newest.pins().iter();
        let pins = pins.map(|(name, version)| (name.to_string(), *version));
        Rules {
            now: self.cluster.careful_now(),
            grace: self.grace,
            until_leases_are_known: self.cluster.leases().until_known(),
            holders: garbage::holders(leases, queries, pins),
        }
    }

    fn cell(&self, database: DatabaseId) -> Cell {
        let mut ledgers = self.ledgers.lock();
        Arc::clone(ledgers.entry(database).or_default())
    }

    /// Forgets databases that were dropped.
    fn forget_all_but(&self, writers: &[(DatabaseName, DatabaseWriter)]) {
        let alive = writers.iter().map(|(_, writer)| writer.state().id());
        let alive: HashSet<DatabaseId> = alive.collect();
        self.orphans.forget_all_but(&alive);
        self.pruner.forget_all_but(&alive);
        self.ledgers.lock().retain(|id, _| alive.contains(id));
    }
}

/// Of how many writers everything is deleted that they did not commit.
fn settled_epochs(ledger: &GarbageLedger) -> usize {
    let epochs = ledger.epochs().iter();
    epochs.filter(|opened| opened.is_settled).count()
}

/// Forgets what of a batch is done.
fn settle(ledger: &mut GarbageLedger, picked: &Picked, failed: &HashMap<ExtentId, ServiceError>) {
    let deleted = picked.delete.iter().map(|one| one.extent.id);
    let deleted = deleted.filter(|id| !failed.contains_key(id));
    let settled: HashSet<ExtentId> = deleted.chain(picked.spared.iter().copied()).collect();
    ledger.settle(picked.through, |id| settled.contains(&id));
}

fn collected(deleted: Deletable) -> CollectedExtent {
    CollectedExtent {
        id: deleted.extent.id,
        reason: CollectedReason::Removed,
        table: deleted.table,
        removed_version: deleted.version,
        removed_at: deleted.removed_at,
        size_bytes: deleted.extent.size_bytes,
    }
}

/// Tells what was deleted, and why it could be.
fn note_batch(database: &DatabaseName, deleted: &[Deletable]) {
    let (Some(first), Some(last)) = (deleted.first(), deleted.last()) else {
        return;
    };
    let (extents, bytes) = (
        deleted.len() as u64,
        deleted.iter().map(|one| one.extent.size_bytes).sum::<u64>(),
    );
    let name = || database.to_string();
    metrics::counter!("slipstream_gc_deleted_extents_total", "database" => name())
        .increment(extents);
    metrics::counter!("slipstream_gc_deleted_bytes_total", "database" => name()).increment(bytes);
    tracing::info!(
        %database, extents, bytes,
        first_removed_version = %first.version, last_removed_version = %last.version,
        last_removed_at = %last.removed_at,
        "deleted the files of extents that were removed longer ago than the grace period, are in no \
         table, and are in no version that is still read"
    );
    for one in deleted {
        tracing::debug!(
            %database, extent = %one.extent.id, table = %one.table,
            removed_version = %one.version, removed_at = %one.removed_at,
            "deleted an extent's file"
        );
    }
}

fn note_blockers(database: &DatabaseName, blockers: &[GarbageBlocker]) {
    let mut sums = BTreeMap::<GarbageReason, (u64, u64)>::new();
    for blocker in blockers {
        let (extents, bytes) = sums.entry(blocker.reason).or_default();
        *extents += blocker.extents;
        *bytes += blocker.bytes;
    }
    for reason in GarbageReason::ALL {
        let (extents, bytes) = sums.get(&reason).copied().unwrap_or_default();
        let labels = [
            ("database", database.to_string()),
            ("reason", reason.as_str().to_owned()),
        ];
        metrics::gauge!("slipstream_gc_blocked_extents", &labels).set(extents as f64);
        metrics::gauge!("slipstream_gc_blocked_bytes", &labels).set(bytes as f64);
    }
}

pub(super) fn not_known_to_lead(database: &DatabaseName) -> ServiceError {
    ServiceError::new(
        ErrorKind::Fenced,
        "fenced",
        format!(
            "nothing more is deleted of database '{database}': another leader has opened it, or the \
             bucket does not say that none has"
        ),
    )
}

pub(crate) fn catalog_error(error: CatalogError) -> ServiceError {
    match error {
        CatalogError::Storage(error) => error.into(),
        CatalogError::Corrupt(error) => {
            ServiceError::new(ErrorKind::DataCorrupt, "corrupt_log", error.to_string())
        }
        other => ServiceError::new(
            ErrorKind::Unavailable,
            "storage_unavailable",
            other.to_string(),
        ),
    }
}
