//! One numbered object of a log, decoded but not yet verified against a state.

mod redact;

pub use redact::Redactor;

use bytes::Bytes;
use prost::Message;
use slipstream_model::{BucketId, CommitId, Digest, Epoch, Timestamp, Version};
use slipstream_proto::log as proto;
use slipstream_storage::frame;
use uuid::Uuid;

use crate::codec::{Malformed, counted, fixed};
use crate::{CorruptLog, LogDefect};

/// Magic of a commit object: kind and format version.
pub(crate) const COMMIT_MAGIC: &[u8; 8] = b"SLPCMT01";

/// No commit object is larger. Whatever carries one (a gRPC message) must allow as much.
pub const COMMIT_BYTES_MAX: usize = 56 << 20;

/// A commit, as it stands in the bucket and as it is broadcast. Cheap to clone.
///
/// Decoding checks that the bytes are whole; [`DatabaseState::apply`](crate::DatabaseState::apply)
/// checks that the commit continues the history it is applied to.
#[derive(Debug, Clone)]
pub struct Commit {
    bytes: Bytes,
    bucket_id: BucketId,
    log_id: Uuid,
    version: Version,
    epoch: Epoch,
    commit_id: CommitId,
    committed_at: Timestamp,
    writer: String,
    previous_digest: Digest,
    digest: Digest,
    sections: Vec<Section>,
}

/// Consecutive records of one subject, and the subject's digest after them.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) subject: Uuid,
    pub(crate) records: Vec<Bytes>,
    pub(crate) digest: Digest,
}

impl Commit {
    /// Decodes a commit that did not come with a name of its own.
    ///
    /// # Errors
    /// When the bytes are not a whole commit. The error calls it "a commit"; use
    /// [`CorruptLog::named`] to say which.
    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptLog> {
        const NAME: &str = "a commit";
        let body = frame::open(COMMIT_MAGIC, bytes)
            .map_err(|error| CorruptLog::new(NAME, LogDefect::Frame(error)))?;
        proto::Commit::decode(body)
            .map_err(Malformed::from)
            .and_then(|message| Self::from_proto(message, bytes.clone()))
            .map_err(|error| CorruptLog::undecodable(NAME, error))
    }

    pub(crate) fn from_proto(message: proto::Commit, bytes: Bytes) -> Result<Self, Malformed> {
        let sections = message.sections.into_iter().map(Section::from_proto);
        Ok(Self {
            bytes,
            bucket_id: fixed("the bucket id", &message.bucket_id, BucketId::from_slice)?,
            log_id: fixed("the log id", &message.log_id, |id| {
                Uuid::from_slice(id).ok()
            })?,
            version: Version::new(counted("the version", message.version)?),
            epoch: Epoch::new(counted("the epoch", message.epoch)?),
            commit_id: fixed("the commit id", &message.commit_id, CommitId::from_slice)?,
            committed_at: Timestamp::from_micros(message.committed_at),
            writer: message.writer,
            previous_digest: digest("the previous digest", &message.previous_digest)?,
            digest: digest("the digest", &message.digest)?,
            sections: sections.collect::<Result<_, _>>()?,
        })
    }

    /// The object's bytes, frame included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bucket it belongs to.
    pub fn bucket_id(&self) -> BucketId {
        self.bucket_id
    }

    /// The log it belongs to: a database's id, or a UUID made from a cluster's name.
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Its number.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many writers had opened the log when it was written.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The writer's name for this attempt.
    pub fn commit_id(&self) -> CommitId {
        self.commit_id
    }

    /// The writer's clock.
    pub fn committed_at(&self) -> Timestamp {
        self.committed_at
    }

    /// The cluster that wrote it, for people.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The log's digest before it.
    pub fn previous_digest(&self) -> Digest {
        self.previous_digest
    }

    /// The log's digest after it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }
}

impl Section {
    fn from_proto(section: proto::Section) -> Result<Self, Malformed> {
        Ok(Self {
            subject: fixed("a subject's id", &section.subject, |id| {
                Uuid::from_slice(id).ok()
            })?,
            records: section.records,
            digest: digest("a subject's digest", &section.digest)?,
        })
    }
}

fn digest(field: &str, bytes: &[u8]) -> Result<Digest, Malformed> {
    fixed(field, bytes, Digest::from_slice)
}

#[cfg(test)]
mod tests;
