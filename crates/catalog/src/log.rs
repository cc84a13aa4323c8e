//! The machinery that every log shares: how records become a state, and how a history is
//! chained by digests so that a changed, missing or foreign commit is noticed.
//!
//! A log has *subjects*: the tables of a database, the databases of a cluster. Each subject has
//! a digest over all its records; the log's digest covers all subjects and the digest before it.
//! So who holds only some of the subjects can still verify those, and the log as a whole from the
//! digests of the others.

mod chain;
mod draft;

use std::fmt;

use bytes::Bytes;
use slipstream_model::{Digest, Version};
use slipstream_storage::{BucketPath, BucketReader, BucketWriter};
use uuid::Uuid;

pub(crate) use chain::{Chain, Stamp, subject_digest};
pub(crate) use draft::{Draft, TRANSACTION_BYTES_MAX};

use crate::codec::Malformed;
use crate::{CatalogError, Commit, CorruptLog, LogDefect, OpError};

/// What a subject's record left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectFate {
    /// The subject goes on; its digest covers the record.
    Lives,
    /// The record ended the subject; its digest is zeros, and later forgotten.
    Ends,
}

/// What stands in the log: one change to one subject, validated, frozen on disk.
pub trait LogRecord: fmt::Debug + Clone + Send + Sync + 'static {
    /// The bytes that stand in the commit.
    fn encode(&self) -> Bytes;

    /// Reads them back.
    #[doc(hidden)]
    fn decode(bytes: &Bytes) -> Result<Self, String>;
}

/// What a log adds up to. Pure; clones in O(1); applies a record in O(change).
pub trait LogState: fmt::Debug + Clone + Send + Sync + 'static {
    /// What may be asked.
    type Op: fmt::Debug + Send + Sync + 'static;
    /// What is written.
    type Record: LogRecord;

    /// Where the state stands in its history.
    fn chain(&self) -> &Chain;

    /// The same, to move it on.
    fn chain_mut(&mut self) -> &mut Chain;

    /// Where a commit of this log stands.
    fn commit_path(&self, version: Version) -> BucketPath;

    /// Turns an operation into records, or refuses it.
    ///
    /// # Errors
    /// When names do not resolve, or the request does not fit the state.
    fn plan(&self, op: Self::Op) -> Result<Vec<(Uuid, Self::Record)>, OpError>;

    /// Applies one record. After an error the state is not to be used any more.
    ///
    /// # Errors
    /// When the record does not fit the state.
    fn apply_record(&mut self, subject: Uuid, record: Self::Record)
    -> Result<SubjectFate, OpError>;

    /// Whether a subject is one that this state leaves out: then only its digest is kept.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn leaves_out(&self, subject: Uuid, records: &[Bytes]) -> Result<bool, String> {
        let _ = (subject, records);
        Ok(false)
    }

    /// What a record does to its subject, for records that are not applied.
    fn fate(record: &Self::Record) -> SubjectFate {
        let _ = record;
        SubjectFate::Lives
    }

    /// Reads the newest checkpoint that can be trusted; `None` when there is none, so that the
    /// log has to be read from its start.
    fn load_checkpoint(
        &self,
        bucket: &BucketReader,
    ) -> impl Future<Output = Result<Option<Self>, CatalogError>> + Send;

    /// The state that the log begins with since its oldest commits were deleted, if that lies above
    /// a version; `None` for a log that is whole.
    fn load_start(
        &self,
        bucket: &BucketReader,
        above: Version,
    ) -> impl Future<Output = Result<Option<Self>, CatalogError>> + Send {
        let _ = (bucket, above);
        std::future::ready(Ok(None))
    }

    /// Writes a checkpoint; `false` for a log that does without.
    fn write_checkpoint(
        &self,
        bucket: &BucketWriter,
    ) -> impl Future<Output = Result<bool, CatalogError>> + Send;
}

/// The state after a commit, with everything verified.
pub(crate) fn apply<S: LogState>(state: &S, commit: &Commit) -> Result<S, CorruptLog> {
    let object = || state.commit_path(commit.version());
    let fail = |defect| CorruptLog::new(object(), defect);
    state.chain().check_continues(commit).map_err(fail)?;

    let mut next = state.clone();
    for section in commit.sections() {
        let digest = apply_section(&mut next, section).map_err(fail)?;
        next.chain_mut().set_subject(section.subject, digest);
    }
    let stamp = Stamp::of(commit);
    let digest = next.chain().digest_after(&stamp);
    if digest != commit.digest() {
        return Err(fail(LogDefect::LogDigest {
            expected: digest,
            found: commit.digest(),
        }));
    }
    next.chain_mut().advance(&stamp, digest);
    Ok(next)
}

/// Applies the records of a section, and verifies the digest that it states for its subject.
///
/// Of a subject that the state leaves out, only the digest is kept. Where the records were left
/// out on the way it is taken as it stands: the log's digest vouches for it.
fn apply_section<S: LogState>(
    state: &mut S,
    section: &crate::commit::Section,
) -> Result<Digest, LogDefect> {
    let subject = section.subject;
    let is_left_out = state
        .leaves_out(subject, &section.records)
        .map_err(LogDefect::Undecodable)?;
    if section.records.is_empty() && is_left_out {
        return Ok(section.digest);
    }
    if section.records.is_empty() {
        let what = format!("the records of {subject} are missing");
        return Err(LogDefect::Undecodable(what));
    }
    let mut digest = state.chain().subject(subject);
    for bytes in &section.records {
        let record = S::Record::decode(bytes).map_err(LogDefect::Undecodable)?;
        let fate = if is_left_out {
            S::fate(&record)
        } else {
            state
                .apply_record(subject, record)
                .map_err(|reason| LogDefect::Inapplicable { subject, reason })?
        };
        digest = match fate {
            SubjectFate::Lives => subject_digest(digest, bytes),
            SubjectFate::Ends => Digest::ZERO,
        };
    }
    if digest != section.digest {
        return Err(LogDefect::SubjectDigest {
            subject,
            expected: digest,
            found: section.digest,
        });
    }
    Ok(digest)
}

/// What the state would be after some operations; its place in the history stays.
pub(crate) fn preview<S: LogState>(
    state: &S,
    ops: impl IntoIterator<Item = S::Op>,
) -> Result<S, OpError> {
    let mut next = state.clone();
    for op in ops {
        for (subject, record) in next.plan(op)? {
            next.apply_record(subject, record)?;
        }
    }
    Ok(next)
}

/// Decodes a commit that was read from the bucket, so that errors name the object.
pub(crate) fn decode_at(path: &BucketPath, bytes: &Bytes) -> Result<Commit, CorruptLog> {
    Commit::decode(bytes).map_err(|error| error.named(path))
}

impl From<Malformed> for String {
    fn from(error: Malformed) -> Self {
        error.to_string()
    }
}
