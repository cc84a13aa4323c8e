use slipstream_model::{DatabaseId, TableId};

use super::*;
use crate::testing::*;
use crate::{DatabaseOp, DatabaseState, log};

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

mod filters {
    use std::sync::Arc;

    use slipstream_model::{EntityId, FunctionName, StoredFunction, TableLevelSharing};

    use super::*;
    use crate::PutMode;

    /// Two tables, of which one is dropped in the end; and what may be seen of them.
    fn shared() -> (Vec<(Commit, DatabaseState)>, Arc<TableLevelSharing>) {
        let context = context(4);
        let mut state = start();
        let drop_table = DatabaseOp::DropTable {
            name: table_name("secret_plans"),
            if_exists: false,
        };
        let transactions = [
            vec![],
            vec![create_table(1, "flights"), create_table(2, "secret_plans")],
            vec![add_extents(2, 0..2), add_extents(1, 2..4)],
            vec![add_extents(2, 4..6)],
            vec![drop_table],
            vec![add_extents(1, 6..7), function(3, "secret_report")],
        ];
        let commits = transactions.into_iter().map(|ops| {
            let stamp = context.stamp(state.version().next(), Epoch::FIRST, state.committed_at());
            let mut draft = log::Draft::new(state.clone());
            draft.add(ops).expect("allowed");
            let (bytes, next) = draft.seal(&stamp, &context.writer);
            state = next;
            (Commit::decode(&bytes).expect("whole"), state.clone())
        });
        let sharing = TableLevelSharing {
            tables_to_exclude: vec!["secret*".into()],
            functions_to_exclude: vec!["*".into()],
            ..TableLevelSharing::default()
        };
        (commits.collect(), Arc::new(sharing))
    }

    fn function(id: u128, name: &str) -> DatabaseOp {
        let function = StoredFunction {
            name: FunctionName::new(name).expect("a name"),
            parameters: Vec::new(),
            body: "SELECT * FROM flights".into(),
            docstring: String::new(),
            folder: String::new(),
        };
        DatabaseOp::PutFunction {
            id: EntityId::new(Uuid::from_u128(id)),
            function: Arc::new(function),
            mode: PutMode::Create,
        }
    }

    fn filtered(sharing: &Arc<TableLevelSharing>) -> DatabaseState {
        DatabaseState::empty_within(BucketId::default(), DATABASE, sharing)
    }

    fn is_named_in(name: &str, bytes: &Bytes) -> bool {
        bytes
            .windows(name.len())
            .any(|window| window == name.as_bytes())
    }

    #[test]
    fn a_filtered_state_has_the_digests_of_the_whole() {
        let (history, sharing) = shared();
        let mut state = filtered(&sharing);
        for (commit, whole) in &history {
            state = state.apply(commit).expect("the next one");
            assert_eq!(
                (state.version(), state.digest()),
                (whole.version(), whole.digest())
            );
            assert!(state.table("secret_plans").is_none());
            assert_eq!(state.functions().len(), 0);
        }
        assert_eq!(state.tables().len(), 1);
    }

    #[test]
    fn redacted_commits_name_nothing_hidden_and_still_verify() {
        let (history, sharing) = shared();
        // The leader is three commits ahead: the secret table is there, and later it is not.
        for newest in [&history[3].1, &history[5].1] {
            let mut redactor = Redactor::new(Arc::clone(&sharing));
            let mut state = filtered(&sharing);
            for (commit, whole) in &history {
                let bytes = redactor.redact(commit, newest).expect("readable");
                assert!(!is_named_in("secret", &bytes));
                let redacted = Commit::decode(&bytes).expect("whole");
                state = state.apply(&redacted).expect("the next one");
                assert_eq!(state.digest(), whole.digest());
            }
            assert_eq!(contents(&state), contents(&history[5].1));
        }
    }

    #[test]
    fn a_commit_with_nothing_to_hide_is_sent_as_it_is() {
        let (history, sharing) = shared();
        let mut redactor = Redactor::new(sharing);
        let (commit, whole) = &history[0];
        let sent = redactor.redact(commit, whole).expect("readable");
        assert_eq!(&sent, commit.bytes());
    }

    #[test]
    fn who_may_see_everything_does_not_accept_missing_records() {
        let (history, sharing) = shared();
        let mut redactor = Redactor::new(sharing);
        let (commit, newest) = &history[1];
        let redacted = redactor.redact(commit, newest).expect("readable");
        let redacted = Commit::decode(&redacted).expect("whole");
        let defect = defect(&history[0].1, &redacted);
        assert!(matches!(defect, LogDefect::Undecodable(_)), "{defect}");
    }

    #[test]
    fn the_records_of_a_visible_table_cannot_be_withheld() {
        let (history, sharing) = shared();
        let state = filtered(&sharing);
        let state = state.apply(&history[0].0).expect("the first");
        let state = state.apply(&history[1].0).expect("the second");
        let withheld = forged(&history[2].0, |message| {
            for section in &mut message.sections {
                section.records.clear();
            }
        });
        assert!(matches!(
            defect(&state, &withheld),
            LogDefect::Undecodable(_)
        ));
    }
}
