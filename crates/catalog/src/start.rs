//! Where a database's log begins, once its oldest commits are deleted.
//!
//! A log without its beginning needs something that tells it from one that is at its end: who looks for
//! the next commit finds nothing in both. So before anything is deleted a [`LogStart`] says from which
//! checkpoint the log is read now. Starts are numbered and created once, as commits are; a leader that
//! was replaced can neither take one back nor bring an older one into its place, however late its
//! request arrives. Whoever comes to what looks like the end of the log asks for the newest start.
//!
//! The commits that opened the log stay, as those of a dropped database do: each of them is the number
//! that a writer finds taken that was replaced and does not know it.

use std::collections::HashSet;

use bytes::Bytes;
use futures::future::join_all;
use prost::Message;
use slipstream_model::{BucketId, DatabaseId, Digest, Version};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketReader, BucketWriter, CreateOutcome, frame};
use uuid::Uuid;

use crate::checkpoint;
use crate::codec::{Malformed, fixed, to_bytes};
use crate::garbage::{epoch_from_proto, epoch_to_proto};
use crate::{CatalogError, CorruptLog, DatabaseState, GarbageLedger, LogDefect, OpenedEpoch};

/// Magic of the object: kind and format version.
const START_MAGIC: &[u8; 8] = b"SLPBEG01";
/// Starts that are asked for at one time. Numbers are doubled until one is missing: with as many, the
/// first look reaches further than any log is cut.
const PROBES: u32 = 16;

/// The oldest version of a database that its log leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStart {
    /// Its number.
    pub number: u64,
    /// The version. It has a checkpoint, and its commit and all later ones are kept.
    pub version: Version,
    /// The log's digest at it.
    pub digest: Digest,
    /// Who opened the log up to it, in order.
    pub epochs: Vec<OpenedEpoch>,
}

impl LogStart {
    /// The version that the log began with before.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    pub async fn version_before(
        &self,
        bucket: &BucketReader,
        database: DatabaseId,
    ) -> Result<Version, CatalogError> {
        let Some(number) = self.number.checked_sub(1) else {
            return Ok(Version::FIRST);
        };
        let before = Self::read(bucket, database, number).await?;
        Ok(before.map_or(Version::FIRST, |before| before.version))
    }

    /// The newest one; `None` when the whole log is kept. One request then.
    ///
    /// # Errors
    /// When the bucket does not answer, or what it holds cannot be trusted.
    pub async fn newest(
        bucket: &BucketReader,
        database: DatabaseId,
    ) -> Result<Option<Self>, CatalogError> {
        let Some(first) = Self::read(bucket, database, 0).await? else {
            return Ok(None);
        };
        let mut newest = first;
        // Between the newest that was found and the first that is known to be missing.
        let mut missing = u64::MAX;
        while missing - newest.number > 1 {
            let numbers = probes(newest.number, missing);
            let reads = numbers
                .iter()
                .map(|number| Self::read(bucket, database, *number));
            let found = join_all(reads).await;
            for (number, found) in numbers.iter().zip(found) {
                match found? {
                    Some(start) => newest = start,
                    None => {
                        missing = *number;
                        break;
                    }
                }
            }
        }
        Ok(Some(newest))
    }

    async fn read(
        bucket: &BucketReader,
        database: DatabaseId,
        number: u64,
    ) -> Result<Option<Self>, CatalogError> {
        let path = BucketPath::log_start(database, number);
        let Some(object) = bucket.try_get(&path).await? else {
            return Ok(None);
        };
        let found = Found::decode(&object).map_err(|defect| CorruptLog::new(&path, defect))?;
        if (found.bucket, found.log) != (bucket.id(), database.as_uuid()) {
            return Err(CorruptLog::undecodable(&path, "it is another database's").into());
        }
        Ok(Some(found.numbered(number)))
    }

    /// The state that the log goes on from, without what `empty` leaves out.
    ///
    /// # Errors
    /// When the bucket does not answer, or the checkpoint is lost or damaged: then nothing leads to
    /// the versions after it, but for a newer checkpoint.
    pub(crate) async fn state(
        &self,
        bucket: &BucketReader,
        empty: &DatabaseState,
    ) -> Result<DatabaseState, CatalogError> {
        let state = checkpoint::load(bucket, empty, self.version).await?;
        if state.digest() != self.digest {
            let path = BucketPath::checkpoint_root(empty.id(), self.version);
            let what = "it has another digest than the start of the log says";
            return Err(CorruptLog::undecodable(path, what).into());
        }
        Ok(state)
    }

    /// The start at a checkpoint that a ledger has passed, to be the next after `before`.
    pub fn at(checkpoint: &DatabaseState, ledger: &GarbageLedger, before: Option<&Self>) -> Self {
        let version = checkpoint.version();
        let epochs = ledger.epochs().iter();
        Self {
            number: before.map_or(0, |before| before.number + 1),
            version,
            digest: checkpoint.digest(),
            epochs: epochs
                .filter(|opened| opened.version <= version)
                .cloned()
                .collect(),
        }
    }

    /// Makes it the start of the log; gives the one that has its number, which may be another
    /// writer's. Nothing may be deleted that lies behind that.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn create(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
    ) -> Result<Self, CatalogError> {
        let path = BucketPath::log_start(database, self.number);
        let object = self.encode(bucket.id(), database);
        match bucket.create(&path, object).await? {
            CreateOutcome::Created => Ok(self.clone()),
            CreateOutcome::Exists(found) => {
                let found = Found::decode(&found);
                let found = found.map_err(|defect| CorruptLog::new(&path, defect))?;
                Ok(found.numbered(self.number))
            }
        }
    }

    /// Deletes the checkpoint of a version before it, when there is one, and the version's commit
    /// unless that opened the log. Segments that `kept` has stay. Repeating it is harmless.
    ///
    /// # Errors
    /// When the store does not say that they are gone.
    pub async fn delete_version(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
        version: Version,
        kept: &HashSet<Digest>,
    ) -> Result<(), CatalogError> {
        debug_assert!(version < self.version, "it is still needed");
        let stays = |segment: &Digest| kept.contains(segment);
        checkpoint::delete(bucket, database, version, stays).await?;
        if !self.is_opening(version) {
            let commit = BucketPath::database_commit(database, version);
            bucket.delete(&commit).await?;
        }
        Ok(())
    }

    /// Whether a version's commit opened the log.
    pub fn is_opening(&self, version: Version) -> bool {
        let found = self
            .epochs
            .binary_search_by_key(&version, |opened| opened.version);
        found.is_ok()
    }

    pub(crate) fn encode(&self, bucket: BucketId, database: DatabaseId) -> Bytes {
        let message = proto::LogStart {
            bucket_id: to_bytes(bucket.as_bytes()),
            log_id: to_bytes(database.as_bytes()),
            version: self.version.get(),
            digest: to_bytes(self.digest.as_bytes()),
            epochs: self.epochs.iter().map(epoch_to_proto).collect(),
        };
        frame::seal(START_MAGIC, &message.encode_to_vec())
    }
}

/// The segments that checkpoints share with the one at a version, so that they stay.
///
/// # Errors
/// When the bucket does not answer, or there is no such checkpoint.
pub async fn checkpoint_segments(
    bucket: &BucketReader,
    database: DatabaseId,
    version: Version,
) -> Result<HashSet<Digest>, CatalogError> {
    let path = BucketPath::checkpoint_root(database, version);
    let root = bucket.get(&path).await?;
    let segments = checkpoint::segments(&root).map_err(|defect| CorruptLog::new(&path, defect))?;
    Ok(segments.into_iter().collect())
}

/// Numbers between two, ascending, that halve what is unknown many times at once.
fn probes(found: u64, missing: u64) -> Vec<u64> {
    let width = missing - found;
    if width <= u64::from(PROBES) {
        return (found + 1..missing).collect();
    }
    if width > 1 << PROBES {
        return (0..PROBES).map(|power| found + (1 << power)).collect();
    }
    let step = width.div_ceil(u64::from(PROBES));
    (1..u64::from(PROBES))
        .map(|place| found + place * step)
        .filter(|number| *number < missing)
        .collect()
}

/// What the object holds.
pub(crate) struct Found {
    bucket: BucketId,
    log: Uuid,
    version: Version,
    digest: Digest,
    epochs: Vec<OpenedEpoch>,
}

impl Found {
    /// Opens the frame, and reads what is in it.
    pub(crate) fn decode(object: &Bytes) -> Result<Self, LogDefect> {
        let body = frame::open(START_MAGIC, object)?;
        let message = proto::LogStart::decode(body).map_err(Malformed::from);
        let found = message.and_then(Self::from_proto);
        found.map_err(|what| LogDefect::Undecodable(what.to_string()))
    }

    fn from_proto(message: proto::LogStart) -> Result<Self, Malformed> {
        let epochs = message.epochs.into_iter().map(epoch_from_proto);
        let epochs: Vec<OpenedEpoch> = epochs.collect();
        if message.version == 0 {
            return Err(Malformed::new("no log begins with version 0"));
        }
        if !epochs.is_sorted_by_key(|opened| opened.version) {
            return Err(Malformed::new("the openings are not in order"));
        }
        Ok(Self {
            bucket: fixed("the bucket id", &message.bucket_id, BucketId::from_slice)?,
            log: fixed("the log id", &message.log_id, |id| {
                Uuid::from_slice(id).ok()
            })?,
            version: Version::new(message.version),
            digest: fixed("the digest", &message.digest, Digest::from_slice)?,
            epochs,
        })
    }

    pub(crate) fn numbered(self, number: u64) -> LogStart {
        LogStart {
            number,
            version: self.version,
            digest: self.digest,
            epochs: self.epochs,
        }
    }
}

#[cfg(test)]
mod tests;
