//! What commits took out of tables, so that its files can be deleted one day.
//!
//! The log says it all: a commit's records name the extents that leave a table, and of a table that
//! is dropped the state before it knows them. A [`GarbageLedger`] has read the log up to a version
//! and remembers what is not deleted yet. It is written beside a checkpoint, so that whoever comes
//! next need not read the log from its start; but it is a hint only. Who finds it old, lost or
//! damaged reads more of the log, comes to more removals, and deletes some files a second time.
//!
//! It also knows who opened the log, and when: a writer that was replaced commits no more, and what
//! it uploaded without committing is garbage, as its intents ([`UploadIntent`](crate::UploadIntent))
//! name it.
//!
//! An extent that was taken out of a table may stand in another one: whoever deletes looks at the
//! newest state first ([`ExtentSet::held_of`](crate::ExtentSet::held_of)). Once no table has it, none
//! will have it again but by a drop that is undone, which nobody deletes beside; and once it leaves
//! the last one there is a removal that says so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message;
use slipstream_model::{
    BucketId, DatabaseId, Digest, Epoch, ExtentId, TableId, Timestamp, Version,
};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketReader, BucketWriter, frame};
use uuid::Uuid;

use crate::codec::{Malformed, fixed, to_bytes};
use crate::database::DatabaseRecord;
use crate::log::{self, LogRecord};
use crate::{
    CatalogError, Commit, CorruptLog, DatabaseReader, DatabaseState, LogDefect, LogStart,
    checkpoint,
};

/// Magic of a ledger: kind and format version.
const LEDGER_MAGIC: &[u8; 8] = b"SLPGRB01";
/// Bytes of an extent's id.
const ID_BYTES: usize = 16;
/// Commits that are read at once: as many as a node that starts reads.
const FETCH_CONCURRENCY: usize = 16;

/// What one commit took out of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The commit. Whoever reads an older version still needs the extents.
    pub version: Version,
    /// When it was made, by its leader's clock. Never goes back from one removal to the next.
    pub removed_at: Timestamp,
    /// The table's name.
    pub table: String,
    /// What left.
    pub extents: Vec<RemovedExtent>,
}

/// A writer that opened the log. What it uploaded and never committed is garbage once the next one
/// has opened it: then it can commit no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedEpoch {
    /// Its epoch, which no other writer has.
    pub epoch: Epoch,
    /// The commit that opened the log.
    pub version: Version,
    /// When that was made, by its leader's clock.
    pub opened_at: Timestamp,
    /// What it uploaded and never committed is deleted.
    pub is_settled: bool,
}

/// An extent that left a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedExtent {
    /// Its id.
    pub id: ExtentId,
    /// Bytes of its file.
    pub size_bytes: u64,
}

/// All removals of one database that nobody has settled yet, up to some version.
#[derive(Debug, Clone)]
pub struct GarbageLedger {
    state: DatabaseState,
    removals: Vec<Removal>,
    epochs: Vec<OpenedEpoch>,
    /// The version up to which the bucket has it.
    stored: Version,
}

impl GarbageLedger {
    /// Reads what the bucket has; without anything there, or with something that cannot be
    /// trusted, the ledger of a database before its first commit.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn load(bucket: &BucketReader, database: DatabaseId) -> Result<Self, CatalogError> {
        let empty = DatabaseState::empty(bucket.id(), database);
        let path = BucketPath::garbage_ledger(database);
        let start = LogStart::newest(bucket, database).await?;
        let begins = start.as_ref().map_or(Version::ZERO, |start| start.version);
        if let Some(object) = bucket.try_get(&path).await? {
            match Self::read(bucket, &empty, &path, &object).await {
                Ok(ledger) if ledger.stored >= begins => return Ok(ledger),
                // A late writer's. The log no longer leads on from it.
                Ok(_) => {}
                Err(error) if checkpoint::is_lost(&error) => tracing::warn!(
                    %database, %error,
                    "what was removed is not known any more; reading the log from its start"
                ),
                Err(error) => return Err(error),
            }
        }
        match start {
            None => Ok(Self::new(empty)),
            // All that was removed before is settled: otherwise the log would not begin there.
            Some(start) => {
                let state = start.state(bucket, &empty).await?;
                Ok(Self {
                    epochs: start.epochs,
                    ..Self::new(state)
                })
            }
        }
    }

    fn new(state: DatabaseState) -> Self {
        Self {
            stored: state.version(),
            state,
            removals: Vec::new(),
            epochs: Vec::new(),
        }
    }

    async fn read(
        bucket: &BucketReader,
        empty: &DatabaseState,
        path: &BucketPath,
        object: &Bytes,
    ) -> Result<Self, CatalogError> {
        let corrupt = |what: &str| CorruptLog::undecodable(path, what);
        let found = Found::decode(object).map_err(|defect| CorruptLog::new(path, defect))?;
        if (found.bucket, found.log) != (bucket.id(), empty.id().as_uuid()) {
            return Err(corrupt("it is another database's").into());
        }
        if found.epochs.is_empty() && found.version > Version::ZERO {
            return Err(
                corrupt("it does not say who opened the log, as older ones did not").into(),
            );
        }
        let state = checkpoint::load(bucket, empty, found.version).await?;
        // A bucket that was put back to an earlier time may have gone on differently since.
        if state.digest() != found.digest {
            return Err(corrupt("it is of another history").into());
        }
        Ok(Self {
            stored: state.version(),
            state,
            removals: found.removals,
            epochs: found.epochs,
        })
    }

    /// Reads the log on to the version that a state has. `newest` is the state of whoever writes
    /// the log.
    ///
    /// # Errors
    /// When the bucket does not answer, or the log does not lead to that state. What was read until
    /// then is kept.
    pub async fn follow(
        &mut self,
        reader: &DatabaseReader,
        newest: &DatabaseState,
    ) -> Result<(), CatalogError> {
        let numbers = self.state.version().get() + 1..=newest.version().get();
        let mut commits = stream::iter(numbers.map(Version::new))
            .map(|version| {
                let reader = reader.clone();
                async move { (version, reader.commit_at(version).await) }
            })
            .buffered(FETCH_CONCURRENCY);
        while let Some((version, bytes)) = commits.next().await {
            let path = BucketPath::database_commit(self.state.id(), version);
            let bytes = bytes?.ok_or_else(|| CorruptLog::undecodable(&path, "it is missing"))?;
            let commit = log::decode_at(&path, &bytes)?;
            let removals = commit.removals(&self.state)?;
            let known = self.state.epoch();
            self.state = self.state.apply(&commit)?;
            self.removals.extend(removals);
            if commit.epoch() > known {
                self.epochs.push(OpenedEpoch {
                    epoch: commit.epoch(),
                    version,
                    opened_at: commit.committed_at(),
                    is_settled: false,
                });
            }
        }
        if self.state.version() == newest.version() {
            if self.state.digest() != newest.digest() {
                let path = BucketPath::database_commit(newest.id(), newest.version());
                let what = "it leads to another state than the writer's";
                return Err(CorruptLog::undecodable(path, what).into());
            }
            // The same, and its memory is shared.
            self.state = newest.clone();
        }
        Ok(())
    }

    /// The state up to which the log was read.
    pub fn state(&self) -> &DatabaseState {
        &self.state
    }

    /// The version up to which the bucket has the ledger.
    pub fn stored(&self) -> Version {
        self.stored
    }

    /// What was removed and is not settled, in the order of versions.
    pub fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// Everybody who opened the log up to that version, in order.
    pub fn epochs(&self) -> &[OpenedEpoch] {
        &self.epochs
    }

    /// Notes that what a writer uploaded and never committed is deleted.
    pub fn settle_epoch(&mut self, epoch: Epoch) {
        let mut epochs = self.epochs.iter_mut();
        if let Some(opened) = epochs.find(|opened| opened.epoch == epoch) {
            opened.is_settled = true;
        }
    }

    /// Forgets extents of the first removals, which are deleted, or stand in another table.
    /// `is_settled` is asked for each extent of a removal that was made up to `version`.
    pub fn settle(&mut self, version: Version, is_settled: impl Fn(ExtentId) -> bool) {
        for removal in &mut self.removals {
            if removal.version > version {
                break;
            }
            removal.extents.retain(|extent| !is_settled(extent.id));
        }
        self.removals.retain(|removal| !removal.extents.is_empty());
    }

    /// Writes the ledger, after the checkpoint from which the next one reads on.
    ///
    /// Repeating it is harmless, and so is an older ledger in the place of a newer one.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn store(&mut self, bucket: &BucketWriter) -> Result<(), CatalogError> {
        checkpoint::write(bucket, &self.state).await?;
        let path = BucketPath::garbage_ledger(self.state.id());
        bucket.put(&path, self.encode()).await?;
        self.stored = self.state.version();
        Ok(())
    }

    /// A ledger that is there already, for the golden file of its format.
    #[cfg(test)]
    pub(crate) fn of(state: DatabaseState, removals: Vec<Removal>) -> Self {
        Self {
            removals,
            ..Self::new(state)
        }
    }

    /// The same, with who opened the log.
    #[cfg(test)]
    pub(crate) fn with_epochs(self, epochs: Vec<OpenedEpoch>) -> Self {
        Self { epochs, ..self }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let message = proto::GarbageLedger {
            bucket_id: to_bytes(self.state.bucket_id().as_bytes()),
            log_id: to_bytes(self.state.id().as_bytes()),
            version: self.state.version().get(),
            digest: to_bytes(self.state.digest().as_bytes()),
            removals: self.removals.iter().map(removal_to_proto).collect(),
            epochs: self.epochs.iter().map(epoch_to_proto).collect(),
        };
        frame::seal(LEDGER_MAGIC, &message.encode_to_vec())
    }
}

/// What a ledger's object holds.
pub(crate) struct Found {
    bucket: BucketId,
    log: Uuid,
    version: Version,
    digest: Digest,
    removals: Vec<Removal>,
    epochs: Vec<OpenedEpoch>,
}

impl Found {
    /// Opens the frame, and reads what is in it.
    pub(crate) fn decode(object: &Bytes) -> Result<Self, LogDefect> {
        let body = frame::open(LEDGER_MAGIC, object)?;
        let message = proto::GarbageLedger::decode(body).map_err(Malformed::from);
        let found = message.and_then(Self::from_proto);
        found.map_err(|what| LogDefect::Undecodable(what.to_string()))
    }

    /// What it says was removed.
    #[cfg(test)]
    pub(crate) fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// Who it says opened the log.
    #[cfg(test)]
    pub(crate) fn epochs(&self) -> &[OpenedEpoch] {
        &self.epochs
    }

    fn from_proto(message: proto::GarbageLedger) -> Result<Self, Malformed> {
        let removals = message.removals.into_iter().map(removal_from_proto);
        Ok(Self {
            bucket: fixed("the bucket id", &message.bucket_id, BucketId::from_slice)?,
            log: fixed("the log id", &message.log_id, |id| {
                Uuid::from_slice(id).ok()
            })?,
            version: Version::new(message.version),
            digest: fixed("the digest", &message.digest, Digest::from_slice)?,
            removals: removals.collect::<Result<_, _>>()?,
            epochs: message.epochs.into_iter().map(epoch_from_proto).collect(),
        })
    }
}

pub(crate) fn epoch_to_proto(opened: &OpenedEpoch) -> proto::OpenedEpoch {
    proto::OpenedEpoch {
        epoch: opened.epoch.get(),
        version: opened.version.get(),
        opened_at: opened.opened_at.as_micros(),
        is_settled: opened.is_settled,
    }
}

pub(crate) fn epoch_from_proto(opened: proto::OpenedEpoch) -> OpenedEpoch {
    OpenedEpoch {
        epoch: Epoch::new(opened.epoch),
        version: Version::new(opened.version),
        opened_at: Timestamp::from_micros(opened.opened_at),
        is_settled: opened.is_settled,
    }
}

fn removal_to_proto(removal: &Removal) -> proto::Removal {
    let mut ids = Vec::with_capacity(removal.extents.len() * ID_BYTES);
    for extent in &removal.extents {
        ids.extend_from_slice(extent.id.as_bytes());
    }
    let sizes = removal.extents.iter().map(|extent| extent.size_bytes);
    proto::Removal {
        version: removal.version.get(),
        removed_at: removal.removed_at.as_micros(),
        table: removal.table.clone(),
        extent_ids: ids.into(),
        size_bytes: sizes.collect(),
    }
}

fn removal_from_proto(message: proto::Removal) -> Result<Removal, Malformed> {
    if message.extent_ids.len() != message.size_bytes.len() * ID_BYTES {
        return Err(Malformed::new("a removal has not as many ids as sizes"));
    }
    let ids = message.extent_ids.chunks(ID_BYTES);
    let extents = ids.zip(message.size_bytes).map(|(id, size_bytes)| {
        let id = fixed("an extent id", id, ExtentId::from_slice)?;
        Ok(RemovedExtent { id, size_bytes })
    });
    Ok(Removal {
        version: Version::new(message.version),
        removed_at: Timestamp::from_micros(message.removed_at),
        table: message.table,
        extents: extents.collect::<Result<_, Malformed>>()?,
    })
}

impl Commit {
    /// What the commit takes out of each table of the state before it. An extent that it puts into
    /// another table is among that.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn removals(&self, before: &DatabaseState) -> Result<Vec<Removal>, CorruptLog> {
        let path = || BucketPath::database_commit(before.id(), self.version());
        let mut tables = BTreeMap::<Uuid, Changed>::new();
        for section in self.sections() {
            let table = before.table_by_id(TableId::new(section.subject));
            for bytes in &section.records {
                let record = DatabaseRecord::decode(bytes)
                    .map_err(|what| CorruptLog::undecodable(path(), what))?;
                let changed = tables.entry(section.subject).or_default();
                match record {
                    DatabaseRecord::CreateTable { name, .. } => changed.name = name.to_string(),
                    DatabaseRecord::AddExtents(extents) => {
                        let inline = extents.iter().filter(|extent| extent.inline.is_some());
                        changed.inline.extend(inline.map(|extent| extent.id));
                        let added = extents.iter().map(|extent| (extent.id, extent.size_bytes));
                        changed.added.extend(added);
                    }
                    DatabaseRecord::RemoveExtents(ids) => {
                        let own = changed.remove_added(ids);
                        // Of an extent whose size is not known the id counts all the same.
                        changed.removed.extend(own.iter().map(|id| (*id, 0)));
                        let known = table.and_then(|table| table.extents.get_all(&own).ok());
                        let known = known.unwrap_or_default();
                        let inline = known.iter().filter(|extent| extent.inline.is_some());
                        changed.inline.extend(inline.map(|extent| extent.id));
                        let known = known.into_iter();
                        let known = known.map(|extent| (extent.id, extent.size_bytes));
                        changed.removed.extend(known);
                    }
                    DatabaseRecord::DropTable => {
                        let blocks = table.map(|table| table.extents.blocks());
                        for block in blocks.iter().flatten() {
                            let of_files = |slot: &usize| block.inline(*slot).is_none();
                            let extents = block.live_slots().filter(of_files);
                            let extents =
                                extents.map(|slot| (block.id(slot), block.size_bytes(slot)));
                            changed.removed.extend(extents);
                        }
                        let added = std::mem::take(&mut changed.added);
                        changed.removed.extend(added);
                    }
                    _ => {}
                }
            }
        }
        let changed = tables
            .into_iter()
            .map(|(subject, changed)| (subject, changed.without_inline()))
            .filter(|(_, changed)| !changed.removed.is_empty());
        let removals = changed.map(|(subject, changed)| {
            let table = before.table_by_id(TableId::new(subject));
            let extents = changed.removed.into_iter();
            Removal {
                version: self.version(),
                removed_at: self.committed_at(),
                table: table.map_or(changed.name, |table| table.name.to_string()),
                extents: extents
                    .map(|(id, size_bytes)| RemovedExtent { id, size_bytes })
                    .collect(),
            }
        });
        Ok(removals.collect())
    }
}

/// What a commit does to one table.
#[derive(Default)]
struct Changed {
    /// Of a table that the commit itself made.
    name: String,
    added: BTreeMap<ExtentId, u64>,
    removed: BTreeMap<ExtentId, u64>,
    /// Those of them that stand in the log: there is no file to be deleted.
    inline: BTreeSet<ExtentId>,
}

impl Changed {
    /// The same but for what no file is of.
    fn without_inline(mut self) -> Self {
        let inline = &self.inline;
        self.removed.retain(|id, _| !inline.contains(id));
        self
    }

    /// Removes those of some extents that the commit itself put into the table; gives the others.
    fn remove_added(&mut self, ids: Vec<ExtentId>) -> Vec<ExtentId> {
        let mut others = Vec::new();
        for id in ids {
            match self.added.remove(&id) {
                Some(size_bytes) => {
                    self.removed.insert(id, size_bytes);
                }
                None => others.push(id),
            }
        }
        others
    }
}

#[cfg(test)]
mod tests;
