//! A commit in the making: transactions validated one after another against the state that
//! those before them leave.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{ClusterName, Digest};
use slipstream_proto::log as proto;
use slipstream_storage::frame;
use uuid::Uuid;

use super::{LogRecord, LogState, Stamp, SubjectFate, subject_digest};
use crate::OpError;
use crate::codec::to_bytes;
use crate::commit::COMMIT_MAGIC;

/// Bytes of records in one transaction: enough for 100,000 extents of ten columns, and with
/// what shares its commit within [`COMMIT_BYTES_MAX`](crate::COMMIT_BYTES_MAX).
pub(crate) const TRANSACTION_BYTES_MAX: usize = 48 << 20;

/// What a record takes beside its own bytes when it is alone in its section: the subject's id
/// and digest, and their lengths.
const SECTION_BYTES: usize = 64;

/// Transactions that are to become one commit.
#[derive(Debug)]
pub(crate) struct Draft<S> {
    state: S,
    sections: Vec<proto::Section>,
    record_bytes: usize,
}

impl<S: LogState> Draft<S> {
    pub(crate) fn new(state: S) -> Self {
        Self {
            state,
            sections: Vec::new(),
            record_bytes: 0,
        }
    }

    /// Whether nothing is to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Bytes of all records taken in, sections included.
    pub(crate) fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Takes in a transaction. One that is refused leaves no trace.
    pub(crate) fn add(&mut self, ops: Vec<S::Op>) -> Result<(), OpError> {
        let mut state = self.state.clone();
        let mut records = Vec::new();
        let mut record_bytes = 0;
        for op in ops {
            for (subject, record) in state.plan(op)? {
                let bytes = record.encode();
                record_bytes += bytes.len() + SECTION_BYTES;
                if record_bytes > TRANSACTION_BYTES_MAX {
                    return Err(OpError::TransactionTooLarge {
                        bytes: record_bytes,
                        bytes_max: TRANSACTION_BYTES_MAX,
                    });
                }
                let digest = match state.apply_record(subject, record)? {
                    SubjectFate::Lives => subject_digest(state.chain().subject(subject), &bytes),
                    SubjectFate::Ends => Digest::ZERO,
                };
                state.chain_mut().set_subject(subject, digest);
                records.push((subject, bytes, digest));
            }
        }
        self.state = state;
        self.record_bytes += record_bytes;
        for (subject, bytes, digest) in records {
            self.push(subject, bytes, digest);
        }
        Ok(())
    }

    /// Consecutive records of one subject share a section. A subject that comes up again later
    /// gets another one, so that records are applied in the order in which they were validated.
    fn push(&mut self, subject: Uuid, record: Bytes, digest: Digest) {
        let digest = to_bytes(digest.as_bytes());
        match self.sections.last_mut() {
            Some(last) if last.subject == subject.as_bytes()[..] => {
                last.records.push(record);
                last.digest = digest;
            }
            _ => self.sections.push(proto::Section {
                subject: to_bytes(subject.as_bytes()),
                records: vec![record],
                digest,
            }),
        }
    }

    /// The object to write, and the state once it is written.
    pub(crate) fn seal(self, stamp: &Stamp, writer: &ClusterName) -> (Bytes, S) {
        let mut state = self.state;
        let chain = state.chain();
        let digest = chain.digest_after(stamp);
        let message = proto::Commit {
            bucket_id: to_bytes(chain.bucket_id.as_bytes()),
            log_id: to_bytes(chain.log_id.as_bytes()),
            version: stamp.version.get(),
            epoch: stamp.epoch.get(),
            commit_id: to_bytes(stamp.commit_id.as_bytes()),
            committed_at: stamp.committed_at.as_micros(),
            writer: writer.to_string(),
            previous_digest: to_bytes(chain.digest.as_bytes()),
            sections: self.sections,
            digest: to_bytes(digest.as_bytes()),
        };
        state.chain_mut().advance(stamp, digest);
        (frame::seal(COMMIT_MAGIC, &message.encode_to_vec()), state)
    }
}
