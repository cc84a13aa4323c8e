//! Which extents a writer may upload, said in the bucket before it uploads them.
//!
//! What was uploaded and never committed is named by no commit. So that it can be deleted without
//! trusting a listing, a writer reserves the ids first: an [`UploadIntent`] names a range of them,
//! and one object covers many uploads. Intents are named by the writer's epoch, which no other
//! writer has, and are numbered from 0, so that whoever looks for them need not list either. One whose
//! ids are all committed or deleted is overwritten by one that names none: a leader that runs for
//! months leaves little to look for.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{BucketId, DatabaseId, Epoch, ExtentId};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketReader, BucketWriter, CreateOutcome, frame};
use uuid::Uuid;

use crate::codec::{Malformed, fixed, to_bytes};
use crate::{CatalogError, CorruptLog, LogDefect};

/// Magic of an intent: kind and format version.
const INTENT_MAGIC: &[u8; 8] = b"SLPINT01";
/// In so many low bits differ the ids of one intent. The others tell intents apart: 48 bits of time
/// and 58 of chance.
const INDEX_BITS: u32 = 16;

/// Ids of extents that one writer may upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadIntent {
    epoch: Epoch,
    number: u64,
    first: ExtentId,
    count: u32,
}

impl UploadIntent {
    /// Ids that begin with most of a random one. Nobody may use them before the intent is
    /// [created](Self::create).
    ///
    /// # Panics
    /// When it asks for more ids than an intent can name.
    pub fn new(epoch: Epoch, number: u64, random: Uuid, count: u32) -> Self {
        assert!(count <= 1 << INDEX_BITS, "an intent has 65,536 ids at most");
        Self {
            epoch,
            number,
            first: Self::first_of(ExtentId::new(random)),
            count,
        }
    }

    /// The id that tells the intent of an id from all others.
    pub fn first_of(id: ExtentId) -> ExtentId {
        let first = id.as_uuid().as_u128() >> INDEX_BITS << INDEX_BITS;
        ExtentId::new(Uuid::from_u128(first))
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = ExtentId> + use<> {
        let first = self.first.as_uuid().as_u128();
        (0..u128::from(self.count)).map(move |index| ExtentId::new(Uuid::from_u128(first + index)))
    }

    /// Writes the intent. Repeating it is harmless. `false` when another stands there already, of a
    /// history that the bucket has forgotten: then none of these ids may be used, and the writer
    /// goes on to the next number.
    ///
    /// # Errors
    /// When it is not known to be there. It may be; the same intent may be written again.
    pub async fn create(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
    ) -> Result<bool, CatalogError> {
        let path = BucketPath::upload_intent(database, self.epoch, self.number);
        let bytes = self.encode(bucket.id(), database);
        let outcome = bucket.create(&path, bytes).await?;
        Ok(outcome == CreateOutcome::Created)
    }

    /// Overwrites the intent by one that names nothing: each of its ids is committed, or its file is
    /// deleted. Repeating it is harmless.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn retire(
        &self,
        bucket: &BucketWriter,
        database: DatabaseId,
    ) -> Result<(), CatalogError> {
        let path = BucketPath::upload_intent(database, self.epoch, self.number);
        let retired = Self { count: 0, ..*self };
        let bytes = retired.encode(bucket.id(), database);
        Ok(bucket.put(&path, bytes).await?)
    }

    /// Reads a writer's intent by its number; `None` when there is none, nor any of a higher number.
    /// One request.
    ///
    /// # Errors
    /// When the bucket does not answer, or what it holds cannot be trusted.
    pub async fn read(
        bucket: &BucketReader,
        database: DatabaseId,
        epoch: Epoch,
        number: u64,
    ) -> Result<Option<Self>, CatalogError> {
        let path = BucketPath::upload_intent(database, epoch, number);
        let Some(object) = bucket.try_get(&path).await? else {
            return Ok(None);
        };
        let found = Found::decode(&object).map_err(|defect| CorruptLog::new(&path, defect))?;
        let is_expected = (found.bucket, found.log) == (bucket.id(), database.as_uuid())
            && (found.intent.epoch, found.intent.number) == (epoch, number);
        if !is_expected {
            return Err(CorruptLog::undecodable(&path, "it is another writer's").into());
        }
        Ok(Some(found.intent))
    }

    pub(crate) fn encode(&self, bucket: BucketId, database: DatabaseId) -> Bytes {
        let message = proto::UploadIntent {
            bucket_id: to_bytes(bucket.as_bytes()),
            log_id: to_bytes(database.as_bytes()),
            epoch: self.epoch.get(),
            number: self.number,
            first_extent_id: to_bytes(self.first.as_bytes()),
            count: self.count.into(),
        };
        frame::seal(INTENT_MAGIC, &message.encode_to_vec())
    }
}

/// What an intent's object holds.
pub(crate) struct Found {
    bucket: BucketId,
    log: Uuid,
    pub(crate) intent: UploadIntent,
}

impl Found {
    /// Opens the frame, and reads what is in it.
    pub(crate) fn decode(object: &Bytes) -> Result<Self, LogDefect> {
        let body = frame::open(INTENT_MAGIC, object)?;
        let message = proto::UploadIntent::decode(body).map_err(Malformed::from);
        let found = message.and_then(Self::from_proto);
        found.map_err(|what| LogDefect::Undecodable(what.to_string()))
    }

    fn from_proto(message: proto::UploadIntent) -> Result<Self, Malformed> {
        let first = fixed(
            "an extent id",
            &message.first_extent_id,
            ExtentId::from_slice,
        )?;
        let is_aligned = first.as_uuid().as_u128().trailing_zeros() >= INDEX_BITS;
        let count = u32::try_from(message.count).unwrap_or(u32::MAX);
        if !is_aligned || count > 1 << INDEX_BITS {
            return Err(Malformed::new("an intent does not name a range of ids"));
        }
        Ok(Self {
            bucket: fixed("the bucket id", &message.bucket_id, BucketId::from_slice)?,
            log: fixed("the log id", &message.log_id, |id| {
                Uuid::from_slice(id).ok()
            })?,
            intent: UploadIntent {
                epoch: Epoch::new(message.epoch),
                number: message.number,
                first,
                count,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::*;

    const EPOCH: Epoch = Epoch::FIRST;

    fn intent(random: u128, number: u64, count: u32) -> UploadIntent {
        UploadIntent::new(EPOCH, number, Uuid::from_u128(random), count)
    }

    #[test]
    fn its_ids_differ_and_begin_alike() {
        let intent = intent(u128::MAX, 0, 1 << INDEX_BITS);
        let ids: BTreeSet<ExtentId> = intent.ids().collect();
        assert_eq!(ids.len(), 1 << INDEX_BITS);
        let prefixes = ids.iter().map(|id| id.as_uuid().as_u128() >> INDEX_BITS);
        assert_eq!(prefixes.collect::<BTreeSet<_>>().len(), 1);
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_what_another_wrote_is_not_taken_for_it() {
        let bucket = bucket().await;
        let mine = intent(0xABCD_0000, 0, 3);
        let read = async |number| {
            UploadIntent::read(bucket.reader(), DATABASE, EPOCH, number)
                .await
                .expect("answered")
        };
        assert_eq!(read(0).await, None);
        for _ in 0..2 {
            assert!(mine.create(&bucket, DATABASE).await.expect("answered"));
        }
        assert_eq!(read(0).await, Some(mine));
        assert_eq!(read(1).await, None);
        let other = intent(0xEF01_0000, 0, 3);
        assert!(!other.create(&bucket, DATABASE).await.expect("answered"));
        assert_eq!(read(0).await, Some(mine));
        // One that is done with names nothing, and is still there for those behind it.
        mine.retire(&bucket, DATABASE).await.expect("taken");
        let retired = read(0).await.expect("it is there");
        assert_eq!(retired.ids().count(), 0);
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let message = |first: u128, count| proto::UploadIntent {
            bucket_id: to_bytes(&[0; 16]),
            log_id: to_bytes(&[0; 16]),
            epoch: 1,
            number: 0,
            first_extent_id: to_bytes(&first.to_be_bytes()),
            count,
        };
        assert!(Found::from_proto(message(1 << INDEX_BITS, 1 << INDEX_BITS)).is_ok());
        assert!(Found::from_proto(message(1, 1)).is_err());
        assert!(Found::from_proto(message(0, (1 << INDEX_BITS) + 1)).is_err());
    }
}
