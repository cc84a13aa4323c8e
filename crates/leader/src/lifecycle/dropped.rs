//! Deletes the objects of databases that were dropped.
//!
//! Nothing of a dropped database is ever read again, but by those who were reading it then: it goes
//! when the grace period and a lease period are over and nobody holds any of its versions. First its
//! extents, which the log and the intents name; then that is noted ([`DroppedDatabase`]), and
//! checkpoints and log go, number by number. Whoever dies in between is followed by somebody who
//! begins with the extents again, or with the numbers.
//!
//! Before anything is deleted the database is opened once more: whoever had it open commits no more.
//! The commits that opened it stay, and keep it so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::{
    ClusterReader, DatabaseReader, DatabaseState, DroppedDatabase, GarbageLedger, Removal,
    UploadIntent,
};
use slipstream_frontend::{GarbageBlocker, GarbageReason, ServiceError};
use slipstream_model::{DatabaseId, DatabaseName, ExtentId, Timestamp, Version};
use slipstream_storage::BucketPath;

use super::collector::{BATCH_EXTENTS, DELETE_CONCURRENCY, catalog_error, not_known_to_lead};
use super::garbage::{self, Blocker, Rules};
use crate::Cluster;

/// A database that was dropped.
#[derive(Debug, Clone)]
struct Dropped {
    id: DatabaseId,
    /// The name that it had.
    name: DatabaseName,
    /// The version of the cluster's catalog that dropped it.
    version: Version,
}

/// What is known of one.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// When it was dropped.
    DroppedAt(Timestamp),
    /// Nothing of it is left to delete.
    Gone,
}

/// Deletes the objects of dropped databases.
#[derive(Debug)]
pub(super) struct DroppedDatabases {
    cluster: Arc<Cluster>,
    grace: Duration,
    known: Mutex<HashMap<DatabaseId, Known>>,
}

impl DroppedDatabases {
    pub(super) fn new(cluster: Arc<Cluster>, grace: Duration) -> Self {
        Self {
            cluster,
            grace,
            known: Mutex::default(),
        }
    }

    /// Deletes what may go. What fails is tried again in the next round.
    pub(super) async fn round(&self) {
        for dropped in self.waiting() {
            if let Err(error) = self.collect(&dropped).await {
                let database = &dropped.name;
                metrics::counter!(
                    "slipstream_gc_failures_total", "database" => database.to_string()
                )
                .increment(1);
                tracing::warn!(
                    %database, id = %dropped.id, %error,
                    "objects of a dropped database stay for now"
                );
            }
        }
    }

    /// What keeps the objects of dropped databases.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub(super) async fn blockers(&self) -> Result<Vec<GarbageBlocker>, ServiceError> {
        let mut blockers = Vec::new();
        for dropped in self.waiting() {
            let dropped_at = self.dropped_at(&dropped).await?;
            let blocker = self.blocker(dropped.id, dropped_at);
            // What nothing keeps may be long gone: only who deletes asks for that.
            let is_gone = match &blocker {
                Some(_) => false,
                None => self.is_gone(dropped.id).await?,
            };
            if !is_gone {
                blockers.push(row(&dropped, dropped_at, blocker));
            }
        }
        Ok(blockers)
    }

    /// Those of which something may be left.
    fn waiting(&self) -> Vec<Dropped> {
        let catalog = self.cluster.catalog();
        let known = self.known.lock();
        let is_gone = |id: &DatabaseId| matches!(known.get(id), Some(Known::Gone));
        let waiting = catalog.dropped().filter(|(id, ..)| !is_gone(id));
        let waiting = waiting.map(|(id, name, version)| Dropped {
            id,
            name: name.clone(),
            version,
        });
        waiting.collect()
    }

    async fn dropped_at(&self, dropped: &Dropped) -> Result<Timestamp, ServiceError> {
        let known = self.known.lock().get(&dropped.id).copied();
        if let Some(Known::DroppedAt(at)) = known {
            return Ok(at);
        }
        let cluster = &self.cluster;
        let reader = ClusterReader::new(cluster.bucket().reader().clone(), cluster.name().clone());
        let at = reader.committed_at(dropped.version).await;
        let at = at.map_err(catalog_error)?;
        self.known.lock().insert(dropped.id, Known::DroppedAt(at));
        Ok(at)
    }

    /// What keeps the objects of a database.
    fn blocker(&self, database: DatabaseId, dropped_at: Timestamp) -> Option<Blocker> {
        let leases = self.cluster.leases().live().into_iter();
        let leases = leases.filter(|lease| lease.database == database);
        let queries = self.cluster.readers().versions(database).into_iter();
        let rules = Rules {
            now: self.cluster.careful_now(),
            grace: self.grace.saturating_add(self.cluster.leases().ttl()),
            until_leases_are_known: self.cluster.leases().until_known(),
            // A pin does not outlive its database.
            holders: garbage::holders(leases, queries, std::iter::empty()),
        };
        rules.blocker(&after_all_versions(dropped_at))
    }

    async fn is_gone(&self, database: DatabaseId) -> Result<bool, ServiceError> {
        let noted = DroppedDatabase::read(self.cluster.bucket().reader(), database).await;
        let noted = noted.map_err(catalog_error)?;
        let is_gone = noted.is_some_and(|noted| noted.is_done);
        if is_gone {
            self.known.lock().insert(database, Known::Gone);
        }
        Ok(is_gone)
    }

    async fn collect(&self, dropped: &Dropped) -> Result<(), ServiceError> {
        let dropped_at = self.dropped_at(dropped).await?;
        if self.blocker(dropped.id, dropped_at).is_some() {
            return Ok(());
        }
        let bucket = self.cluster.bucket();
        let noted = DroppedDatabase::read(bucket.reader(), dropped.id).await;
        let mut noted = match noted.map_err(catalog_error)? {
            Some(noted) => noted,
            None => self.delete_extents(dropped).await?,
        };
        if !noted.is_done {
            self.delete_log(dropped, &noted).await?;
            noted.is_done = true;
            let written = noted.write(bucket, dropped.id).await;
            written.map_err(catalog_error)?;
            metrics::counter!("slipstream_gc_dropped_databases_total").increment(1);
            tracing::info!(
                database = %dropped.name, id = %dropped.id, %dropped_at,
                reason = GarbageReason::Dropped.as_str(),
                "deleted the objects of a database that was dropped longer ago than the grace \
                 period, and that nobody reads"
            );
        }
        self.known.lock().insert(dropped.id, Known::Gone);
        Ok(())
    }

    /// Deletes all files that the log and the intents name, and then the intents; notes that.
    async fn delete_extents(&self, dropped: &Dropped) -> Result<DroppedDatabase, ServiceError> {
        self.check_leads(dropped).await?;
        let (bucket, id) = (self.cluster.bucket(), dropped.id);
        let writer = self.cluster.open_dropped(id).await;
        let writer = writer.map_err(catalog_error)?;
        let state = writer.state();
        writer.close().await;
        let ledger = GarbageLedger::load(bucket.reader(), id).await;
        let mut ledger = ledger.map_err(catalog_error)?;
        let reader = DatabaseReader::new(bucket.reader().clone(), id);
        let followed = ledger.follow(&reader, &state).await;
        followed.map_err(catalog_error)?;

        self.delete_files(dropped, files(&state, ledger.removals()))
            .await?;
        let unsettled = ledger.epochs().iter().filter(|opened| !opened.is_settled);
        for opened in unsettled {
            let mut intents = 0;
            loop {
                let intent = UploadIntent::read(bucket.reader(), id, opened.epoch, intents).await;
                let Some(intent) = intent.map_err(catalog_error)? else {
                    break;
                };
                self.delete_files(dropped, intent.ids().collect()).await?;
                intents += 1;
            }
            // The first goes last: without it nobody looks for the others.
            for number in (0..intents).rev() {
                let path = BucketPath::upload_intent(id, opened.epoch, number);
                bucket.delete(&path).await?;
            }
        }
        let noted = DroppedDatabase {
            version: state.version(),
            openings: ledger
                .epochs()
                .iter()
                .map(|opened| opened.version)
                .collect(),
            is_done: false,
        };
        let written = noted.write(bucket, id).await;
        written.map_err(catalog_error)?;
        Ok(noted)
    }

    async fn delete_files(
        &self,
        dropped: &Dropped,
        files: Vec<ExtentId>,
    ) -> Result<(), ServiceError> {
        let id = dropped.id;
        for batch in files.chunks(BATCH_EXTENTS) {
            self.check_leads(dropped).await?;
            let deletes = stream::iter(batch.to_vec()).map(|extent| {
                let bucket = self.cluster.bucket().clone();
                async move { bucket.delete_extent(id, extent).await }
            });
            let deletes = deletes.buffer_unordered(DELETE_CONCURRENCY);
            deletes.try_collect::<()>().await?;
        }
        Ok(())
    }

    /// Deletes checkpoints and log, from the newest to the oldest.
    async fn delete_log(
        &self,
        dropped: &Dropped,
        noted: &DroppedDatabase,
    ) -> Result<(), ServiceError> {
        let (bucket, id) = (self.cluster.bucket(), dropped.id);
        let noted = Arc::new(noted.clone());
        self.check_leads(dropped).await?;
        let hints = DroppedDatabase::delete_hints(bucket, id).await;
        hints.map_err(catalog_error)?;
        let mut last = noted.version.get();
        while last > 0 {
            let below = last.saturating_sub(BATCH_EXTENTS as u64);
            self.check_leads(dropped).await?;
            let versions = stream::iter((below + 1..=last).rev().map(Version::new));
            let deletes = versions.map(|version| {
                let (bucket, noted) = (bucket.clone(), Arc::clone(&noted));
                async move { noted.delete_version(&bucket, id, version).await }
            });
            let deletes = deletes.buffer_unordered(DELETE_CONCURRENCY);
            let deleted = deletes.try_collect::<()>().await;
            deleted.map_err(catalog_error)?;
            last = below;
        }
        Ok(())
    }

    async fn check_leads(&self, dropped: &Dropped) -> Result<(), ServiceError> {
        if self.cluster.is_newest().await {
            return Ok(());
        }
        Err(not_known_to_lead(&dropped.name))
    }
}

/// A removal of everything, in no version that anybody can read.
fn after_all_versions(dropped_at: Timestamp) -> Removal {
    Removal {
        version: Version::new(u64::MAX),
        removed_at: dropped_at,
        table: String::new(),
        extents: Vec::new(),
    }
}

/// The extents that a state has, and those that commits removed.
fn files(state: &DatabaseState, removals: &[Removal]) -> Vec<ExtentId> {
    let mut files = Vec::new();
    for table in state.tables() {
        for block in table.extents.blocks() {
            files.extend(block.live_slots().map(|slot| block.id(slot)));
        }
    }
    let removed = removals.iter().flat_map(|removal| &removal.extents);
    files.extend(removed.map(|extent| extent.id));
    files
}

fn row(dropped: &Dropped, dropped_at: Timestamp, blocker: Option<Blocker>) -> GarbageBlocker {
    let (holder, until) = match blocker {
        Some(blocker) if blocker.holder.is_empty() => {
            (blocker.reason.as_str().to_owned(), blocker.until)
        }
        Some(blocker) => (blocker.holder, blocker.until),
        None => (GarbageReason::Due.as_str().to_owned(), None),
    };
    GarbageBlocker {
        database: dropped.name.to_string(),
        reason: GarbageReason::Dropped,
        holder,
        extents: 0,
        bytes: 0,
        oldest_version: dropped.version,
        oldest_removed_at: dropped_at,
        until,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn dropped() -> Dropped {
        Dropped {
            id: DatabaseId::new(Uuid::from_u128(1)),
            name: DatabaseName::new("d").expect("a name"),
            version: Version::new(4),
        }
    }

    #[test]
    fn whoever_reads_any_version_keeps_a_dropped_database() {
        let at = Timestamp::from_micros(0);
        let rules = |queries: &[u64]| {
            let queries: Vec<_> = queries.iter().map(|number| Version::new(*number)).collect();
            Rules {
                now: at.plus(Duration::from_secs(10)),
                grace: Duration::from_secs(10),
                until_leases_are_known: Duration::ZERO,
                holders: garbage::holders(
                    std::iter::empty(),
                    queries.into_iter(),
                    std::iter::empty(),
                ),
            }
        };
        let reason = |queries: &[u64]| {
            let blocker = rules(queries).blocker(&after_all_versions(at));
            blocker.map(|blocker| blocker.reason)
        };
        assert_eq!(reason(&[]), None);
        assert_eq!(reason(&[1]), Some(GarbageReason::Query));
        assert_eq!(reason(&[1_000_000]), Some(GarbageReason::Query));
    }

    #[test]
    fn a_row_says_what_keeps_it() {
        let at = Timestamp::from_micros(7);
        let grace = Blocker {
            reason: GarbageReason::Grace,
            holder: String::new(),
            until: Some(at),
        };
        let kept = row(&dropped(), at, Some(grace));
        assert_eq!(kept.reason, GarbageReason::Dropped);
        assert_eq!((kept.holder.as_str(), kept.until), ("Grace", Some(at)));
        let due = row(&dropped(), at, None);
        assert_eq!((due.holder.as_str(), due.until), ("Due", None));
    }
}
