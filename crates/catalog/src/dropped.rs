//! How far the deletion of a dropped database is, and what of it is left to delete.
//!
//! Extents go first, for the log names them; after that a [`DroppedDatabase`] is written, and log and
//! checkpoints need not be whole any more. What their objects are called follows from numbers, and
//! what a checkpoint shares with others its root says. The commits that opened the log stay: each of
//! them is the number that a writer finds taken that was replaced and does not know it.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{BucketId, DatabaseId, Version};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketReader, BucketWriter, frame};
use uuid::Uuid;

use crate::checkpoint;
use crate::codec::{Malformed, fixed, to_bytes};
use crate::{CatalogError, CorruptLog, LogDefect};

/// Magic of the object: kind and format version.
const DROPPED_MAGIC: &[u8; 8] = b"SLPDRP01";

/// A dropped database whose extents are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedDatabase {
    /// Its newest commit.
    pub version: Version,
    /// The commits that opened its log, in order. They stay.
    pub openings: Vec<Version>,
    /// Nothing is left to delete.
    pub is_done: bool,
}

impl DroppedDatabase {
    /// Reads how far the deletion is; `None` when there are extents left. One request.
    ///
    /// # Errors
    /// When the bucket does not answer, or what it holds cannot be trusted.
    pub async fn read(
        bucket: &BucketReader,
        database: DatabaseId,
    ) -> Result<Option<Self>, CatalogError> {
        let path = BucketPath::dropped_database(database);
        let Some(object) = bucket.try_get(&path).await? else {
            return Ok(None);
        };
        let found = Found::decode(&object).map_err(|defect| CorruptLog::new(&path, defect))?;
        if (found.bucket, found.log) != (bucket.id(), database.as_uuid()) {
            return Err(CorruptLog::undecodable(&path, "it is another database's").into());
        }
        Ok(Some(found.dropped))
    }

    /// Writes how far the deletion is. Repeating it is harmless.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn write(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
    ) -> Result<(), CatalogError> {
        let path = BucketPath::dropped_database(database);
        let bytes = self.encode(bucket.id(), database);
        Ok(bucket.put(&path, bytes).await?)
    }

    /// Deletes the hints that name log and checkpoints as if they were whole.
    ///
    /// # Errors
    /// When the store does not say that they are gone.
    pub async fn delete_hints(
        bucket: &BucketWriter,
        database: DatabaseId,
    ) -> Result<(), CatalogError> {
        bucket
            .delete(&BucketPath::checkpoint_newest(database))
            .await?;
        Ok(bucket.delete(&BucketPath::garbage_ledger(database)).await?)
    }

    /// Deletes the checkpoint of a version, when there is one, and its commit, unless that stays.
    /// Repeating it is harmless.
    ///
    /// # Errors
    /// When the store does not say that they are gone.
    pub async fn delete_version(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
        version: Version,
    ) -> Result<(), CatalogError> {
        checkpoint::delete(bucket, database, version, |_| false).await?;
        if self.openings.binary_search(&version).is_err() {
            let commit = BucketPath::database_commit(database, version);
            bucket.delete(&commit).await?;
        }
        Ok(())
    }

    pub(crate) fn encode(&self, bucket: BucketId, database: DatabaseId) -> Bytes {
        let openings = self.openings.iter().map(|version| version.get());
        let message = proto::DroppedDatabase {
            bucket_id: to_bytes(bucket.as_bytes()),
            log_id: to_bytes(database.as_bytes()),
            version: self.version.get(),
            openings: openings.collect(),
            is_done: self.is_done,
        };
        frame::seal(DROPPED_MAGIC, &message.encode_to_vec())
    }
}

/// What the object holds.
pub(crate) struct Found {
    bucket: BucketId,
    log: Uuid,
    pub(crate) dropped: DroppedDatabase,
}

impl Found {
    /// Opens the frame, and reads what is in it.
    pub(crate) fn decode(object: &Bytes) -> Result<Self, LogDefect> {
        let body = frame::open(DROPPED_MAGIC, object)?;
        let message = proto::DroppedDatabase::decode(body).map_err(Malformed::from);
        let found = message.and_then(Self::from_proto);
        found.map_err(|what| LogDefect::Undecodable(what.to_string()))
    }

    fn from_proto(message: proto::DroppedDatabase) -> Result<Self, Malformed> {
        if !message.openings.is_sorted() {
            return Err(Malformed::new("the openings are not in order"));
        }
        let openings = message.openings.into_iter().map(Version::new);
        Ok(Self {
            bucket: fixed("the bucket id", &message.bucket_id, BucketId::from_slice)?,
            log: fixed("the log id", &message.log_id, |id| {
                Uuid::from_slice(id).ok()
            })?,
            dropped: DroppedDatabase {
                version: Version::new(message.version),
                openings: openings.collect(),
                is_done: message.is_done,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::DatabaseWriter;
    use crate::testing::*;

    /// The objects of the database, and the versions that opened it.
    async fn filled(store: &Arc<FaultyStore>, bucket: &BucketWriter) -> DroppedDatabase {
        let mut openings = Vec::new();
        let mut version = Version::ZERO;
        for seed in 2..4 {
            let writer = open(bucket, seed).await;
            openings.push(writer.state().version());
            let ops = if seed == 2 {
                vec![create_table(1, "t"), add_extents(1, 0..1_100)]
            } else {
                vec![remove_extents(1, [1])]
            };
            version = writer.commit(ops).await.expect("allowed").version;
            writer.close().await;
        }
        let paths = store.paths().await;
        assert!(paths.iter().any(|path| path.ends_with(".segment")));
        DroppedDatabase {
            version,
            openings,
            is_done: false,
        }
    }

    #[tokio::test]
    async fn all_goes_but_the_commits_that_opened_the_log_however_often_it_is_begun() {
        let store = FaultyStore::new(Fault::Refused);
        let bucket = store.bucket().await;
        let others = store.paths().await;
        let dropped = filled(&store, &bucket).await;
        // The first try ends half-way.
        for first in [2, 1] {
            let hints = DroppedDatabase::delete_hints(&bucket, DATABASE).await;
            hints.expect("answered");
            for number in (first..=dropped.version.get()).rev() {
                let version = Version::new(number);
                let deleted = dropped.delete_version(&bucket, DATABASE, version).await;
                deleted.expect("answered");
            }
        }
        let left: Vec<String> = store.paths().await.difference(&others).cloned().collect();
        let openings = dropped.openings.iter();
        let openings = openings.map(|version| BucketPath::database_commit(DATABASE, *version));
        let expected: Vec<String> = openings.map(|path| path.as_str().to_owned()).collect();
        assert_eq!(left, expected);
    }

    #[tokio::test]
    async fn a_writer_that_was_replaced_finds_its_next_number_taken() {
        let store = FaultyStore::new(Fault::Refused);
        let bucket = store.bucket().await;
        let replaced: DatabaseWriter = open(&bucket, 2).await;
        replaced
            .commit(vec![create_table(1, "t")])
            .await
            .expect("allowed");
        let newest = open(&bucket, 3).await.state().version();
        let dropped = DroppedDatabase {
            version: newest,
            openings: vec![Version::FIRST, newest],
            is_done: false,
        };
        for number in 1..=newest.get() {
            let version = Version::new(number);
            let deleted = dropped.delete_version(&bucket, DATABASE, version).await;
            deleted.expect("answered");
        }
        let late = replaced.commit(vec![create_table(2, "u")]).await;
        assert!(late.is_err());
        assert!(replaced.is_fenced());
    }

    #[tokio::test]
    async fn how_far_it_is_is_read_as_it_was_written() {
        let bucket = bucket().await;
        let read = async || DroppedDatabase::read(bucket.reader(), DATABASE).await;
        assert_eq!(read().await.expect("answered"), None);
        let dropped = DroppedDatabase {
            version: Version::new(9),
            openings: vec![Version::new(1), Version::new(5)],
            is_done: true,
        };
        dropped.write(&bucket, DATABASE).await.expect("taken");
        assert_eq!(read().await.expect("answered"), Some(dropped));
    }
}
