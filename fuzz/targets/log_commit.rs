//! Objects of a log: bytes as they come, and the body of a commit in a frame that is whole, with the
//! digests that its records give, as somebody can write it who can write the bucket. It is applied
//! to an empty database, to one that leaves a part of it out, and to an empty cluster.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use slipstream_catalog::{
    ClusterState, Commit, CorruptLog, DatabaseState, LogDefect, Redactor, TableState,
};
use slipstream_model::{BucketId, ClusterName, DatabaseId, TableLevelSharing};
use slipstream_proto::log as proto;
use slipstream_storage::frame;

const MAGIC: &[u8; 8] = b"SLPCMT01";
const ID_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Finding a section's digest takes one more try.
const SECTIONS_MAX: usize = 24;
/// Bucket, log, version and the log's own digest are found in the same way.
const TRIES_MORE: usize = 6;

pub(crate) fn run(data: &[u8]) {
    let _ = Commit::decode(&Bytes::copy_from_slice(data));
    let Ok(mut message) = proto::Commit::decode(data) else {
        return;
    };
    message.sections.truncate(SECTIONS_MAX);
    in_a_database(&message);
    in_a_cluster(message);
}

fn in_a_database(message: &proto::Commit) {
    let (bucket, database) = (BucketId::default(), DatabaseId::default());
    let empty = DatabaseState::empty(bucket, database);
    let Some((commit, state)) = signed(message.clone(), |commit| empty.apply(commit)) else {
        return;
    };
    state.tables().for_each(|table| look_at(table));
    let _ = commit.removals(&empty);
    let sharing = Arc::new(TableLevelSharing {
        tables_to_exclude: vec!["f*".to_owned()],
        ..TableLevelSharing::default()
    });
    let Ok(told) = Redactor::new(Arc::clone(&sharing)).redact(&commit, &state) else {
        return;
    };
    let told = Commit::decode(&told).expect("a part of a commit is a commit");
    let filtered = DatabaseState::empty_within(bucket, database, &sharing);
    if let Ok(seen) = filtered.apply(&told) {
        assert_eq!(seen.digest(), state.digest());
        seen.tables().for_each(|table| look_at(table));
    }
}

fn in_a_cluster(message: proto::Commit) {
    let name = ClusterName::new("leader").expect("a name");
    let empty = ClusterState::empty(BucketId::default(), name);
    if let Some((_, state)) = signed(message, |commit| empty.apply(commit)) {
        let known = state.databases();
        known.for_each(|(_, id)| assert_eq!(state.followers_of(id).count(), follows(&state, id)));
    }
}

fn follows(state: &ClusterState, database: DatabaseId) -> usize {
    let all = state.followers();
    all.filter(|follower| follower.follows(database)).count()
}

/// The commit with the place and the digests that make it the next one, and the state after it;
/// `None` when it is refused for anything else.
fn signed<S>(
    mut message: proto::Commit,
    apply: impl Fn(&Commit) -> Result<S, CorruptLog>,
) -> Option<(Commit, S)> {
    let zeros = |length| Bytes::from(vec![0; length]);
    message.bucket_id = zeros(ID_BYTES);
    message.log_id = zeros(ID_BYTES);
    message.previous_digest = zeros(DIGEST_BYTES);
    message.digest = zeros(DIGEST_BYTES);
    if message.commit_id.len() != ID_BYTES {
        message.commit_id = zeros(ID_BYTES);
    }
    for section in &mut message.sections {
        section.digest = zeros(DIGEST_BYTES);
    }
    for _ in 0..message.sections.len() + TRIES_MORE {
        let object = frame::seal(MAGIC, &message.encode_to_vec());
        let commit = Commit::decode(&object).ok()?;
        let refused = match apply(&commit) {
            Ok(state) => return Some((commit, state)),
            Err(refused) => refused,
        };
        match refused.defect() {
            LogDefect::WrongLog { expected, .. } => {
                message.log_id = Bytes::copy_from_slice(expected.as_bytes());
            }
            LogDefect::WrongVersion { expected, .. } => message.version = expected.get(),
            LogDefect::LogDigest { expected, .. } => {
                message.digest = Bytes::copy_from_slice(expected.as_bytes());
            }
            LogDefect::SubjectDigest {
                subject,
                expected,
                found,
            } => {
                let mut sections = message.sections.iter_mut();
                let section = sections.find(|section| {
                    section.subject[..] == subject.as_bytes()[..]
                        && section.digest[..] == found.as_bytes()[..]
                })?;
                section.digest = Bytes::copy_from_slice(expected.as_bytes());
            }
            _ => return None,
        }
    }
    None
}

/// What a query and a cache ask of a table.
fn look_at(table: &TableState) {
    let mut live = 0;
    for block in table.extents.blocks() {
        live += block.live_count() as u64;
        for column in table.schema.columns() {
            let _ = block.summary(column.id);
        }
        for slot in block.live_slots() {
            assert!(table.extents.get(block.id(slot)).is_some());
            let _ = block.extent(slot);
        }
    }
    assert_eq!(live, table.extents.len());
}
