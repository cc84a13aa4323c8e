use slipstream_model::{DatabaseId, TableId};

use super::*;
use crate::testing::*;
use crate::{DatabaseState, log};

fn start() -> DatabaseState {
    DatabaseState::empty(BucketId::default(), DATABASE)
}

/// The first commits of a log, and the state after each.
fn history() -> Vec<(Commit, DatabaseState)> {
    let context = context(3);
    let mut state = start();
    let transactions = [
        vec![],
        vec![create_table(1, "t")],
        vec![add_extents(1, 0..2)],
        vec![add_extents(1, 2..4)],
    ];
    let commits = transactions.into_iter().map(|ops| {
        let stamp = context.stamp(state.version().next(), Epoch::FIRST, state.committed_at());
        let mut draft = log::Draft::new(state.clone());
        draft.add(ops).expect("allowed");
        let (bytes, next) = draft.seal(&stamp, &context.writer);
        state = next;
        (Commit::decode(&bytes).expect("whole"), state.clone())
    });
    commits.collect()
}

/// The commit with some of its message changed, in a frame of its own: as a faulty or malicious
/// writer would make it.
fn forged(commit: &Commit, change: impl FnOnce(&mut proto::Commit)) -> Commit {
    let body = frame::open(COMMIT_MAGIC, commit.bytes()).expect("whole");
    let mut message = proto::Commit::decode(body).expect("whole");
    change(&mut message);
    let bytes = frame::seal(COMMIT_MAGIC, &message.encode_to_vec());
    Commit::decode(&bytes).expect("still a commit")
}

fn defect(state: &DatabaseState, commit: &Commit) -> LogDefect {
    let corrupt = state.apply(commit).expect_err("refused");
    assert!(corrupt.object().ends_with(".commit"), "{corrupt}");
    corrupt.defect().clone()
}

#[test]
fn a_history_replays_to_the_same_states() {
    let mut state = start();
    for (commit, expected) in history() {
        state = state.apply(&commit).expect("the next one");
        assert_eq!(contents(&state), contents(&expected));
        assert_eq!(commit.writer(), "prod");
        assert_eq!(commit.digest(), state.digest());
    }
}

#[test]
fn only_the_next_commit_of_this_very_history_applies() {
    let history = history();
    let (_, state) = &history[1];
    let next = &history[2].0;
    assert!(state.apply(next).is_ok());
    assert!(matches!(
        defect(state, &history[1].0),
        LogDefect::WrongVersion { .. }
    ));
    assert!(matches!(
        defect(state, &history[3].0),
        LogDefect::WrongVersion { .. }
    ));

    let foreign = DatabaseState::empty(BucketId::new(Uuid::from_u128(9)), DATABASE);
    assert!(matches!(
        defect(&foreign, &history[0].0),
        LogDefect::WrongBucket { .. }
    ));
    let other = DatabaseState::empty(BucketId::default(), DatabaseId::new(Uuid::from_u128(9)));
    assert!(matches!(
        defect(&other, &history[0].0),
        LogDefect::WrongLog { .. }
    ));

    let older = forged(next, |message| message.epoch = 0);
    assert!(matches!(
        defect(state, &older),
        LogDefect::OlderEpoch { .. }
    ));
    let elsewhere = forged(next, |message| message.previous_digest = vec![7; 32].into());
    assert!(matches!(
        defect(state, &elsewhere),
        LogDefect::BrokenChain { .. }
    ));
}

#[test]
fn everything_that_a_commit_says_is_covered_by_its_digests() {
    let history = history();
    let (_, state) = &history[1];
    let next = &history[2].0;
    type Change = fn(&mut proto::Commit);
    let of_the_log: [Change; 4] = [
        |message| message.commit_id = vec![7; 16].into(),
        |message| message.committed_at += 1,
        |message| message.epoch += 1,
        |message| message.digest = vec![7; 32].into(),
    ];
    for change in of_the_log {
        let commit = forged(next, change);
        assert!(matches!(
            defect(state, &commit),
            LogDefect::LogDigest { .. }
        ));
    }
    let without_the_section = forged(next, |message| message.sections.clear());
    assert!(matches!(
        defect(state, &without_the_section),
        LogDefect::LogDigest { .. }
    ));

    let of_the_section: [Change; 2] = [
        |message| message.sections[0].digest = vec![7; 32].into(),
        |message| message.sections[0].digest = vec![0; 32].into(),
    ];
    for change in of_the_section {
        let commit = forged(next, change);
        assert!(matches!(
            defect(state, &commit),
            LogDefect::SubjectDigest { .. }
        ));
    }
    let later = history[3].0.sections()[0].records[0].clone();
    let other_records = forged(next, |message| message.sections[0].records = vec![later]);
    assert!(matches!(
        defect(state, &other_records),
        LogDefect::SubjectDigest { .. }
    ));
}

#[test]
fn records_that_make_no_sense_here_are_named() {
    let history = history();
    let (_, state) = &history[1];
    let next = &history[2].0;
    let twice = forged(next, |message| {
        let again = message.sections[0].records[0].clone();
        message.sections[0].records.push(again);
    });
    assert!(matches!(
        defect(state, &twice),
        LogDefect::Inapplicable { .. }
    ));
    let unknown = TableId::new(Uuid::from_u128(99));
    let elsewhere = forged(next, |message| {
        message.sections[0].subject = unknown.as_bytes().to_vec().into();
    });
    assert!(matches!(
        defect(state, &elsewhere),
        LogDefect::Inapplicable { .. }
    ));
    let garbage = forged(next, |message| {
        message.sections[0].records = vec![vec![0xff].into()]
    });
    assert!(matches!(defect(state, &garbage), LogDefect::Undecodable(_)));
    let of_the_future = forged(next, |message| {
        message.sections[0].records = vec![Bytes::new()]
    });
    let LogDefect::Undecodable(what) = defect(state, &of_the_future) else {
        panic!("decoded")
    };
    assert!(what.contains("a kind that this program knows"), "{what}");
    let missing = forged(next, |message| message.sections[0].records.clear());
    assert!(matches!(defect(state, &missing), LogDefect::Undecodable(_)));
}

#[test]
fn the_subject_of_a_dropped_table_is_forgotten() {
    let (_, state) = history().pop().expect("some");
    assert!(state.table_digest(table_id(1)).is_some());
    let context = context(4);
    let mut draft = log::Draft::new(state.clone());
    let op = crate::DatabaseOp::DropTable {
        name: table_name("t"),
        if_exists: false,
    };
    draft.add(vec![op]).expect("allowed");
    let stamp = context.stamp(state.version().next(), Epoch::FIRST, state.committed_at());
    let (bytes, dropped) = draft.seal(&stamp, &context.writer);
    assert_eq!(dropped.table_digest(table_id(1)), None);
    let commit = Commit::decode(&bytes).expect("whole");
    assert_eq!(commit.sections()[0].digest, Digest::ZERO);
    assert_eq!(
        contents(&state.apply(&commit).expect("the next one")),
        contents(&dropped)
    );
}

#[test]
fn a_frame_that_is_not_whole_is_no_commit() {
    let commit = &history()[1].0;
    let cut = Commit::decode(&commit.bytes().slice(..commit.bytes().len() - 1));
    let error = cut
        .expect_err("cut short")
        .named("databases/x/log/7.commit");
    assert!(matches!(error.defect(), LogDefect::Frame(_)));
    assert!(
        error
            .to_string()
            .starts_with("databases/x/log/7.commit cannot be trusted: ")
    );
}
