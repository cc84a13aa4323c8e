//! Where a state stands in its history, and the digests that tie it to everything before.

use imbl::OrdMap;
use slipstream_model::{BucketId, CommitId, Digest, DigestBuilder, Epoch, Timestamp, Version};
use uuid::Uuid;

use crate::{Commit, LogDefect};

const SUBJECT_DOMAIN: &str = "slipstream.subject.v1";
const LOG_DOMAIN: &str = "slipstream.log.v1";

/// A state's place in the history of one log.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    pub(crate) bucket_id: BucketId,
    pub(crate) log_id: Uuid,
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) digest: Digest,
    pub(crate) committed_at: Timestamp,
    pub(crate) subjects: OrdMap<Uuid, Digest>,
}

/// What a commit's digest covers beside the subjects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) commit_id: CommitId,
    pub(crate) committed_at: Timestamp,
}

impl Stamp {
    pub(crate) fn of(commit: &Commit) -> Self {
        Self {
            version: commit.version(),
            epoch: commit.epoch(),
            commit_id: commit.commit_id(),
            committed_at: commit.committed_at(),
        }
    }
}

impl Chain {
    /// The beginning of a log.
    pub(crate) fn start(bucket_id: BucketId, log_id: Uuid) -> Self {
        Self {
            bucket_id,
            log_id,
            version: Version::ZERO,
            epoch: Epoch::ZERO,
            digest: Digest::ZERO,
            committed_at: Timestamp::default(),
            subjects: OrdMap::new(),
        }
    }

    /// Whether a commit is the next one of this very history.
    pub(crate) fn check_continues(&self, commit: &Commit) -> Result<(), LogDefect> {
        if commit.bucket_id() != self.bucket_id {
            let (expected, found) = (self.bucket_id, commit.bucket_id());
            return Err(LogDefect::WrongBucket { expected, found });
        }
        if commit.log_id() != self.log_id {
            let (expected, found) = (self.log_id, commit.log_id());
            return Err(LogDefect::WrongLog { expected, found });
        }
        if commit.version() != self.version.next() {
            let (expected, found) = (self.version.next(), commit.version());
            return Err(LogDefect::WrongVersion { expected, found });
        }
        if commit.epoch() < self.epoch {
            return Err(LogDefect::OlderEpoch {
                current: self.epoch,
                found: commit.epoch(),
            });
        }
        if commit.previous_digest() != self.digest {
            let (expected, found) = (self.digest, commit.previous_digest());
            return Err(LogDefect::BrokenChain { expected, found });
        }
        Ok(())
    }

    /// A subject's digest; zeros when the subject has no records yet.
    pub(crate) fn subject(&self, subject: Uuid) -> Digest {
        self.subjects.get(&subject).copied().unwrap_or(Digest::ZERO)
    }

    /// Zeros mean that the subject is gone.
    pub(crate) fn set_subject(&mut self, subject: Uuid, digest: Digest) {
        if digest == Digest::ZERO {
            self.subjects.remove(&subject);
        } else {
            self.subjects.insert(subject, digest);
        }
    }

    /// The log's digest after a commit that left the subjects as they are now.
    pub(crate) fn digest_after(&self, stamp: &Stamp) -> Digest {
        // Two's complement keeps times before 1970 apart from all others.
        let committed_at = stamp.committed_at.as_micros().cast_unsigned();
        let header = DigestBuilder::new(LOG_DOMAIN)
            .part(self.digest.as_bytes())
            .number(stamp.version.get())
            .number(stamp.epoch.get())
            .part(stamp.commit_id.as_bytes())
            .number(committed_at);
        self.subjects
            .iter()
            .fold(header, |builder, (subject, digest)| {
                builder.part(subject.as_bytes()).part(digest.as_bytes())
            })
            .finish()
    }

    /// Moves on by one commit.
    pub(crate) fn advance(&mut self, stamp: &Stamp, digest: Digest) {
        self.version = stamp.version;
        self.epoch = stamp.epoch;
        self.committed_at = stamp.committed_at;
        self.digest = digest;
    }
}

/// A subject's digest after one more record.
pub(crate) fn subject_digest(digest: Digest, record: &[u8]) -> Digest {
    DigestBuilder::new(SUBJECT_DOMAIN)
        .part(digest.as_bytes())
        .part(record)
        .finish()
}
