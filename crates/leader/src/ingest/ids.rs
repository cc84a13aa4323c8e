//! Ids for the extents that are uploaded, reserved in the bucket before they are used.
//!
//! A file whose commit never comes must be deleted one day, and nothing but an id that was noted
//! before says that it is there. One [`UploadIntent`] notes many ids, and the next is written while
//! there still are some: only the first upload to a database since the leader began may have to
//! wait for one, and that is written while its rows are encoded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use slipstream_catalog::{CatalogError, RemovedExtent, UploadIntent};
use slipstream_frontend::ServiceError;
use slipstream_model::{Clock, DatabaseId, Entropy, Epoch, Extent, ExtentId, Timestamp};
use slipstream_storage::BucketWriter;
use tokio_util::task::AbortOnDropHandle;

use super::blocking::died;
use crate::lifecycle::catalog_error;

/// Ids of a leader's first intent for a database. Few: whoever comes after it asks the bucket for
/// each of them.
const FIRST_IDS: u32 = 16;
/// Ids of a later intent at most; each has twice as many as the one before. With a thousand, one
/// upload in a thousand costs a request more.
const IDS_MAX: u32 = 1_024;
/// Files that failed ingests of one database left behind, and that are remembered, about 50 bytes
/// each. Of more than these the next leader learns from the intents.
const ABANDONED_MAX: usize = 100_000;

/// The ids that one writer of a database may give to extents. Cheap to clone.
#[derive(Clone)]
pub struct ExtentIds(Arc<Shared>);

struct Shared {
    bucket: BucketWriter,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    database: DatabaseId,
    epoch: Epoch,
    reserved: tokio::sync::Mutex<Reserved>,
    abandoned: Mutex<VecDeque<Abandoned>>,
    unsettled: Mutex<Unsettled>,
}

/// What is still to become of ids: each is committed one day, or its file is deleted.
#[derive(Default)]
struct Unsettled {
    /// By the first id of its intent, each intent with those of its ids.
    open: HashMap<ExtentId, (UploadIntent, HashSet<ExtentId>)>,
    /// Intents that have no such id left.
    done: VecDeque<UploadIntent>,
}

struct Reserved {
    /// Ids that may be used.
    ready: VecDeque<ExtentId>,
    /// The intent that is next.
    number: u64,
    count: u32,
    /// The intent that is being written, or could not be. It may stand in the bucket: so it is
    /// written again, and no other.
    next: Option<UploadIntent>,
    writing: Option<AbortOnDropHandle<Result<bool, CatalogError>>>,
}

/// A file that was uploaded, maybe in part, and that this leader will never commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abandoned {
    /// Its id, and its bytes.
    pub(crate) extent: RemovedExtent,
    /// Since when.
    pub(crate) since: Timestamp,
}

impl fmt::Debug for ExtentIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentIds")
            .field("database", &self.0.database)
            .field("epoch", &self.0.epoch)
            .finish_non_exhaustive()
    }
}

impl ExtentIds {
    /// The ids of the writer that has opened a database with an epoch. There must be one of these
    /// for each writer. Makes no request yet.
    pub fn new(
        bucket: BucketWriter,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
        database: DatabaseId,
        epoch: Epoch,
    ) -> Self {
        let reserved = Reserved {
            ready: VecDeque::new(),
            number: 0,
            count: FIRST_IDS,
            next: None,
            writing: None,
        };
        Self(Arc::new(Shared {
            bucket,
            clock,
            entropy,
            database,
            epoch,
            reserved: tokio::sync::Mutex::new(reserved),
            abandoned: Mutex::default(),
            unsettled: Mutex::default(),
        }))
    }

    /// Begins to reserve ids when there are none, for somebody who will soon ask for one.
    pub(super) fn prepare(&self) {
        // Whoever holds it does the same.
        if let Ok(mut reserved) = self.0.reserved.try_lock() {
            self.begin_when_low(&mut reserved);
        }
    }

    /// An id that no other extent has or will have.
    ///
    /// # Errors
    /// When none is left, and the bucket does not take an intent.
    pub(super) async fn next(&self) -> Result<ExtentId, ServiceError> {
        let mut reserved = self.0.reserved.lock().await;
        loop {
            self.begin_when_low(&mut reserved);
            if let Some(id) = reserved.ready.pop_front() {
                return Ok(id);
            }
            let Some(writing) = &mut reserved.writing else {
                continue;
            };
            let is_old = writing.is_finished();
            // Whoever waits may go away meanwhile, so the task stays where the next one finds it.
            let written = writing.await;
            reserved.writing = None;
            let written = written.map_err(|error| died(&error))?;
            match written {
                Ok(is_ours) => {
                    if let Some(intent) = reserved.take(is_ours) {
                        self.0.unsettled.lock().add(intent);
                    }
                }
                // It failed a while ago, when nobody needed it.
                Err(_) if is_old => {}
                Err(error) => return Err(catalog_error(error)),
            }
        }
    }

    /// Notes files that will never be committed.
    pub(crate) fn abandon(&self, extents: impl IntoIterator<Item = RemovedExtent>) {
        let since = self.0.clock.now();
        let mut abandoned = self.0.abandoned.lock();
        let room = ABANDONED_MAX.saturating_sub(abandoned.len());
        let extents = extents.into_iter().take(room);
        abandoned.extend(extents.map(|extent| Abandoned { extent, since }));
    }

    /// Notes the files of extents that will never be committed.
    pub(crate) fn abandon_all(&self, extents: &[Extent]) {
        self.abandon(extents.iter().map(|extent| RemovedExtent {
            id: extent.id,
            size_bytes: extent.size_bytes,
        }));
    }

    /// The files that this leader will never commit, oldest first.
    pub(crate) fn abandoned(&self) -> Vec<Abandoned> {
        self.0.abandoned.lock().iter().copied().collect()
    }

    /// Forgets the first so many abandoned files: they are deleted.
    pub(crate) fn forget(&self, count: usize) {
        let mut abandoned = self.0.abandoned.lock();
        let count = count.min(abandoned.len());
        abandoned.drain(..count);
    }

    /// Notes ids that are committed, or whose files are deleted.
    pub(crate) fn settle(&self, ids: impl IntoIterator<Item = ExtentId>) {
        let mut unsettled = self.0.unsettled.lock();
        for id in ids {
            unsettled.settle(id);
        }
    }

    /// Intents whose ids are all settled, oldest first.
    pub(crate) fn settled(&self) -> Vec<UploadIntent> {
        self.0.unsettled.lock().done.iter().copied().collect()
    }

    /// Forgets the first so many of those: they are retired.
    pub(crate) fn forget_settled(&self, count: usize) {
        let mut unsettled = self.0.unsettled.lock();
        let count = count.min(unsettled.done.len());
        unsettled.done.drain(..count);
    }

    /// What one ingest uploads. Until it is [kept](Uploads::keep) its files are abandoned when it
    /// goes.
    pub(super) fn uploads(&self) -> Uploads {
        Uploads {
            ids: self.clone(),
            noted: Arc::default(),
        }
    }

    fn begin_when_low(&self, reserved: &mut Reserved) {
        let is_low = reserved.ready.len() <= reserved.count as usize / 4;
        if !is_low || reserved.writing.is_some() {
            return;
        }
        let shared = &self.0;
        let (number, count) = (reserved.number, reserved.count);
        let intent = *reserved.next.get_or_insert_with(|| {
            let random = shared.entropy.uuid_at(shared.clock.now());
            UploadIntent::new(shared.epoch, number, random, count)
        });
        let (bucket, database) = (shared.bucket.clone(), shared.database);
        let writing = async move { intent.create(&bucket, database).await };
        reserved.writing = Some(AbortOnDropHandle::new(tokio::spawn(writing)));
    }
}

impl Reserved {
    /// The next intent stands in the bucket; `is_ours` unless another does under its number. Gives
    /// the one whose ids may be used.
    fn take(&mut self, is_ours: bool) -> Option<UploadIntent> {
        let intent = self.next.take().filter(|_| is_ours);
        self.number += 1;
        if let Some(intent) = &intent {
            self.ready.extend(intent.ids());
            self.count = (self.count * 2).min(IDS_MAX);
        }
        intent
    }
}

impl Unsettled {
    fn add(&mut self, intent: UploadIntent) {
        let ids: HashSet<ExtentId> = intent.ids().collect();
        let first = ids.iter().next().copied().map(UploadIntent::first_of);
        if let Some(first) = first {
            self.open.insert(first, (intent, ids));
        }
    }

    fn settle(&mut self, id: ExtentId) {
        let first = UploadIntent::first_of(id);
        // Whoever writes extents again that were committed long ago settles nothing.
        let Some((_, ids)) = self.open.get_mut(&first) else {
            return;
        };
        ids.remove(&id);
        if ids.is_empty()
            && let Some((intent, _)) = self.open.remove(&first)
        {
            self.done.push_back(intent);
        }
    }
}

/// The files of one ingest, while it is not known whether they will be committed.
pub(super) struct Uploads {
    ids: ExtentIds,
    noted: Arc<Mutex<Vec<RemovedExtent>>>,
}

impl Uploads {
    /// Where files are noted, by tasks that upload them.
    pub(super) fn noted(&self) -> Arc<Mutex<Vec<RemovedExtent>>> {
        Arc::clone(&self.noted)
    }

    /// They are somebody else's to commit.
    pub(super) fn keep(self) {
        self.noted.lock().clear();
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let noted = std::mem::take(&mut *self.noted.lock());
        self.ids.abandon(noted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use slipstream_model::ManualClock;
    use uuid::Uuid;

    use super::*;

    const EPOCH: Epoch = Epoch::FIRST;

    async fn bucket() -> (BucketWriter, Arc<dyn Clock>, Entropy) {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(1)));
        let entropy = Entropy::from_seed(1);
        let bucket = BucketWriter::memory(Arc::clone(&clock), entropy.clone()).await;
        (bucket, clock, entropy)
    }

    async fn ids() -> (ExtentIds, BucketWriter) {
        let (bucket, clock, entropy) = bucket().await;
        let database = DatabaseId::default();
        let ids = ExtentIds::new(bucket.clone(), clock, entropy, database, EPOCH);
        (ids, bucket)
    }

    /// All ids that the bucket's intents name.
    async fn noted(bucket: &BucketWriter) -> BTreeSet<ExtentId> {
        let mut all = BTreeSet::new();
        for number in 0.. {
            let read = UploadIntent::read(bucket.reader(), DatabaseId::default(), EPOCH, number);
            let Some(intent) = read.await.expect("answered") else {
                break;
            };
            all.extend(intent.ids());
        }
        all
    }

    #[tokio::test]
    async fn each_id_is_noted_before_it_is_given_and_given_once() {
        let (ids, bucket) = ids().await;
        let before = bucket.requests().put;
        ids.prepare();
        let mut given = BTreeSet::new();
        for _ in 0..5_000 {
            let id = ids.next().await.expect("given");
            assert!(given.insert(id), "{id} was given twice");
            if given.len() % 500 == 1 {
                assert!(noted(&bucket).await.is_superset(&given));
            }
        }
        assert!(noted(&bucket).await.is_superset(&given));
        let puts = bucket.requests().put - before;
        assert!(puts < 20, "{puts} requests for 5,000 uploads");
    }

    #[tokio::test]
    async fn ids_that_another_history_noted_are_not_given() {
        let (ids, bucket) = ids().await;
        let theirs = UploadIntent::new(EPOCH, 0, Uuid::from_u128(u128::MAX), 16);
        let created = theirs.create(&bucket, DatabaseId::default()).await;
        assert!(created.expect("answered"));
        let theirs: BTreeSet<ExtentId> = theirs.ids().collect();
        let id = ids.next().await.expect("given");
        assert!(!theirs.contains(&id));
        assert!(noted(&bucket).await.contains(&id));
    }

    #[tokio::test]
    async fn an_intent_is_settled_when_each_of_its_ids_is() {
        let (ids, _) = ids().await;
        let mut given = Vec::new();
        for _ in 0..FIRST_IDS {
            given.push(ids.next().await.expect("given"));
        }
        let (last, others) = given.split_last().expect("some");
        ids.settle(others.iter().chain(others).copied());
        assert!(ids.settled().is_empty());
        ids.settle([ExtentId::default()]);
        ids.settle([*last]);
        let settled = ids.settled();
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].ids().collect::<Vec<_>>(), given);
        ids.forget_settled(1);
        assert!(ids.settled().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_kept_is_abandoned() {
        let (ids, _) = ids().await;
        let extent = |number| RemovedExtent {
            id: ExtentId::new(Uuid::from_u128(number)),
            size_bytes: 7,
        };
        for (number, is_kept) in [(1, true), (2, false), (3, false)] {
            let uploads = ids.uploads();
            uploads.noted().lock().push(extent(number));
            if is_kept {
                uploads.keep();
            }
        }
        let abandoned = ids.abandoned().into_iter().map(|one| one.extent);
        assert_eq!(abandoned.collect::<Vec<_>>(), [extent(2), extent(3)]);
        ids.forget(1);
        assert_eq!(ids.abandoned().len(), 1);
    }
}
