//! What can go wrong between an operation and a commit, or between a commit and a state.

use std::fmt;
use std::sync::Arc;

use slipstream_model::{BucketId, Digest, Epoch, Version};
use slipstream_storage::StorageError;
use slipstream_storage::frame::FrameError;
use uuid::Uuid;

use crate::OpError;

/// An object of a log that cannot be trusted: what it is called, and what is wrong with it.
///
/// Nothing is guessed past such an object. A follower holds at the version before it; a leader
/// refuses to write the database until somebody has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptLog(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    object: String,
    defect: LogDefect,
}

impl CorruptLog {
    pub(crate) fn new(object: impl fmt::Display, defect: LogDefect) -> Self {
        Self(Box::new(Inner {
            object: object.to_string(),
            defect,
        }))
    }

    pub(crate) fn undecodable(object: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new(object, LogDefect::Undecodable(what.to_string()))
    }

    /// The object's path below the bucket's prefix; for bytes that came by another way than the
    /// bucket, what the caller called them.
    pub fn object(&self) -> &str {
        &self.0.object
    }

    /// What is wrong.
    pub fn defect(&self) -> &LogDefect {
        &self.0.defect
    }

    /// The same defect, of an object by another name.
    #[must_use]
    pub fn named(self, object: impl fmt::Display) -> Self {
        Self::new(object, self.0.defect)
    }
}

impl fmt::Display for CorruptLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be trusted: {}", self.0.object, self.0.defect)
    }
}

impl std::error::Error for CorruptLog {}

/// What is wrong with an object of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogDefect {
    /// Cut short, changed, or another kind of object.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The frame is whole, but what it holds is not a message of this program's.
    #[error("it cannot be decoded: {0}")]
    Undecodable(String),
    /// Copied here from another bucket.
    #[error("it belongs to bucket {found}, and this is bucket {expected}")]
    WrongBucket {
        /// The bucket it was read from.
        expected: BucketId,
        /// The bucket it names.
        found: BucketId,
    },
    /// Copied here from another database's log.
    #[error("it belongs to log {found}, and this is log {expected}")]
    WrongLog {
        /// The log it was read from.
        expected: Uuid,
        /// The log it names.
        found: Uuid,
    },
    /// Under a number that is not its own.
    #[error("it holds version {found} where version {expected} is expected")]
    WrongVersion {
        /// The number that is next.
        expected: Version,
        /// The number it holds.
        found: Version,
    },
    /// Written by a writer that had been replaced before.
    #[error("its epoch {found} is older than the log's epoch {current}")]
    OlderEpoch {
        /// The epoch of the commit before it.
        current: Epoch,
        /// The epoch it holds.
        found: Epoch,
    },
    /// It follows another history than the one read so far.
    #[error(
        "it continues a history with digest {}, and the one read so far has {}",
        found.short(), expected.short()
    )]
    BrokenChain {
        /// The digest of the version before it.
        expected: Digest,
        /// The digest it says that version has.
        found: Digest,
    },
    /// The records of a subject do not give the digest that the commit states for it.
    #[error(
        "the records of {subject} give digest {}, and it states {}",
        expected.short(), found.short()
    )]
    SubjectDigest {
        /// A table's id, or the nil UUID for the database itself.
        subject: Uuid,
        /// The digest that the records give.
        expected: Digest,
        /// The digest that the commit states.
        found: Digest,
    },
    /// All subjects agree, and their digest does not.
    #[error("its contents give digest {}, and it states {}", expected.short(), found.short())]
    LogDigest {
        /// The digest that the contents give.
        expected: Digest,
        /// The digest that the commit states.
        found: Digest,
    },
    /// A record asks for something that the state does not allow.
    #[error("its record for {subject} cannot be applied: {reason}")]
    Inapplicable {
        /// A table's id, or the nil UUID for the database itself.
        subject: Uuid,
        /// Why not.
        reason: OpError,
    },
    /// An object that is named by the digest of its bytes holds other bytes.
    #[error("its bytes have digest {}, and its name says {}", found.short(), expected.short())]
    WrongContent {
        /// The digest in its name.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
}

/// A log that could not be read or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The bucket did not give or take an object.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An object of the log cannot be trusted.
    #[error(transparent)]
    Corrupt(#[from] CorruptLog),
    /// Other writers kept opening the log at the same time.
    #[error(
        "{object} went to another writer, {attempts} times in a row: is more than one leader \
         started on this database? Stop the others, or try again"
    )]
    Contended {
        /// The object that this writer did not get to create.
        object: String,
        /// How often it tried.
        attempts: u32,
    },
}

/// A transaction that is not, or not known to be, committed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The transaction asks for something that the state does not allow. Nothing was committed.
    #[error(transparent)]
    Rejected(#[from] OpError),
    /// A newer writer has opened the log. This one never writes again. Nothing was committed.
    #[error("another writer has taken over with epoch {epoch}: this one may not write any more")]
    Fenced {
        /// The epoch of the newest writer seen.
        epoch: Epoch,
    },
    /// The bucket did not take the commit. Whether it is there is unknown only when the error
    /// says that the store does not answer; it is not there when the store refused.
    #[error("the commit could not be written: {0}")]
    Unavailable(Arc<StorageError>),
    /// An object stands where the next commit belongs, and cannot be trusted. Nothing was
    /// committed, and nothing will be until somebody has looked.
    #[error(transparent)]
    Corrupt(#[from] CorruptLog),
    /// The writer was closed, or its runtime stopped, before the outcome was known.
    #[error("the writer of this log is closed")]
    Closed,
}
