use std::sync::Arc;
use std::time::Duration;

use slipstream_model::{Entropy, ManualClock, TableLevelSharing};
use slipstream_storage::BucketWriter;

use super::*;
use crate::testing::*;
use crate::{DatabaseOp, DatabaseReader, DatabaseWriter, WriterContext};

/// When the first version of a log in these tests is committed.
const START: Timestamp = Timestamp::from_micros(1_000_000_000);
/// What lies between two commits.
const STEP: Duration = Duration::from_secs(10);

/// A log that grows, and its states by version.
struct Log {
    bucket: BucketWriter,
    clock: Arc<ManualClock>,
    writer: DatabaseWriter,
    states: Vec<DatabaseState>,
}

impl Log {
    async fn open(bucket: BucketWriter, checkpoint_every: u64) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let context = WriterContext::new(
            cluster("prod"),
            Arc::clone(&clock) as _,
            Entropy::from_seed(2),
        );
        let context = WriterContext {
            checkpoint_every,
            ..context
        };
        let writer = DatabaseWriter::open(bucket.clone(), DATABASE, context).await;
        let writer = writer.expect("opened");
        let states = vec![DatabaseState::empty(bucket.id(), DATABASE), writer.state()];
        Self {
            bucket,
            clock,
            writer,
            states,
        }
    }

    async fn commit(&mut self, ops: Vec<DatabaseOp>) {
        self.clock.advance(STEP);
        let committed = self.writer.commit(ops).await.expect("ok");
        self.states.push(committed.state);
    }

    /// Some tables, extents that come and go, a table that is dropped.
    async fn grow(&mut self, rounds: u64) {
        self.commit(vec![create_table(1, "t"), create_table(2, "hidden")])
            .await;
        for round in 0..rounds {
            self.commit(vec![add_extents(1, [round]), add_extents(2, [500 + round])])
                .await;
            if round % 3 == 2 {
                self.commit(vec![remove_extents(1, [round - 1])]).await;
            }
        }
        let drop = DatabaseOp::DropTable {
            name: table_name("hidden"),
            if_exists: false,
        };
        self.commit(vec![drop]).await;
    }

    fn history(&self) -> History {
        History::new(self.bucket.reader().clone())
    }

    fn newest(&self) -> &DatabaseState {
        self.states.last().expect("not empty")
    }
}

async fn error(history: &History, newest: &DatabaseState, version: u64) -> HistoryError {
    let state = history.state_at(newest, Version::new(version)).await;
    state.expect_err("cannot be told")
}

#[tokio::test]
async fn every_version_is_told_as_it_was_with_checkpoints_and_without() {
    for checkpoint_every in [5, 1_000] {
        let mut log = Log::open(bucket().await, checkpoint_every).await;
        log.grow(40).await;
        let remembering = log.history();
        for (version, state) in log.states.iter().enumerate().skip(1) {
            let version = Version::new(version as u64);
            for history in [&remembering, &log.history()] {
                let told = history.state_at(log.newest(), version).await;
                assert_eq!(contents(&told.expect("kept")), contents(state));
            }
        }
    }
}

#[tokio::test]
async fn what_is_left_out_of_the_newest_state_is_left_out_of_older_ones() {
    let mut log = Log::open(bucket().await, 5).await;
    log.grow(40).await;
    let sharing = TableLevelSharing {
        tables_to_exclude: vec!["hidden".to_owned()],
        ..TableLevelSharing::default()
    };
    let reader = log.bucket.reader().clone();
    let reader = DatabaseReader::within(reader, DATABASE, Arc::new(sharing));
    let filtered = reader.load().await.expect("answered");
    let filtered = filtered.into_whole().expect("whole");
    let history = log.history();
    for (version, whole) in log.states.iter().enumerate().skip(2) {
        let version = Version::new(version as u64);
        // Whoever sees everything asked for it before.
        let all = history.state_at(log.newest(), version).await.expect("kept");
        let told = history.state_at(&filtered, version).await.expect("kept");
        assert_eq!(
            (told.digest(), all.digest()),
            (whole.digest(), whole.digest())
        );
        assert!(told.table("hidden").is_none() && told.table("t").is_some());
        let is_whole = all.table("hidden").is_some();
        assert_eq!(is_whole, whole.table("hidden").is_some());
    }
}

#[tokio::test]
async fn a_version_is_read_once_and_from_the_nearest_checkpoint() {
    let mut log = Log::open(bucket().await, 4).await;
    log.grow(80).await;
    let history = log.history();
    let gets = async |version: u64| {
        let before = log.bucket.requests().get;
        let state = history.state_at(log.newest(), Version::new(version)).await;
        assert_eq!(state.expect("kept").version(), Version::new(version));
        log.bucket.requests().get - before
    };
    // One window of probes, the checkpoint, the commit after it, and up to the version.
    let first = gets(90).await;
    assert!(first <= 16 + 2 + 16, "{first} requests");
    assert_eq!(gets(90).await, 0);
    assert_eq!(gets(92).await, 2, "from the one that is remembered");
    let newest = log.newest().version().get();
    assert_eq!(gets(newest).await, 0);
}

#[tokio::test]
async fn states_are_remembered_up_to_a_bound() {
    let mut log = Log::open(bucket().await, 1_000).await;
    log.grow(40).await;
    let history = log.history();
    for version in 1..40 {
        let state = history.state_at(log.newest(), Version::new(version)).await;
        state.expect("kept");
    }
    assert_eq!(history.recent.lock().len(), STATES_MAX);
}

#[tokio::test]
async fn a_time_stands_for_the_newest_version_that_was_committed_by_then() {
    let mut log = Log::open(bucket().await, 5).await;
    log.grow(20).await;
    let history = log.history();
    let at = async |time| history.version_at(log.newest(), time).await;
    for (version, state) in log.states.iter().enumerate().skip(1) {
        let version = Version::new(version as u64);
        let committed = state.committed_at();
        assert_eq!(at(committed).await.expect("kept"), version);
        assert_eq!(at(committed.plus(STEP / 2)).await.expect("kept"), version);
    }
    let after_all = log.newest().committed_at().plus(STEP * 1_000);
    let newest = log.newest().version();
    assert_eq!(at(after_all).await.expect("kept"), newest);
    let before_all = Timestamp::from_micros(START.as_micros() - 1);
    let too_early = at(before_all).await.expect_err("nothing was there");
    assert!(
        matches!(too_early, HistoryError::TooEarly(_)),
        "{too_early}"
    );
}

#[tokio::test]
async fn a_state_that_is_behind_is_not_taken_for_the_newest_of_a_later_time() {
    let mut log = Log::open(bucket().await, 5).await;
    log.grow(5).await;
    let history = log.history();
    let check = async |state: &DatabaseState, time| history.check_newest_at(state, time).await;
    let behind = &log.states[log.states.len() - 3];
    let next = &log.states[log.states.len() - 2];
    let until_next = Timestamp::from_micros(next.committed_at().as_micros() - 1);
    check(behind, behind.committed_at()).await.expect("it was");
    check(behind, until_next).await.expect("it was");
    for time in [next.committed_at(), next.committed_at().plus(STEP * 9)] {
        let refused = check(behind, time).await.expect_err("another one was");
        assert!(matches!(refused, HistoryError::Behind { .. }), "{refused}");
    }
    let much_later = log.newest().committed_at().plus(STEP * 1_000);
    check(log.newest(), much_later).await.expect("it is");
}

#[tokio::test]
async fn a_version_that_is_not_there_is_refused() {
    let mut log = Log::open(bucket().await, 5).await;
    log.grow(3).await;
    let (history, newest) = (log.history(), log.newest());
    let future = error(&history, newest, newest.version().get() + 1).await;
    assert!(matches!(future, HistoryError::NotYet { .. }), "{future}");
    let zero = error(&history, newest, 0).await;
    assert!(matches!(zero, HistoryError::BeforeFirst), "{zero}");
}

#[tokio::test]
async fn versions_whose_log_was_removed_are_no_longer_kept() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let mut log = Log::open(store.bucket().await, 1_000).await;
    log.grow(40).await;
    for version in 1..=20 {
        let path = BucketPath::database_commit(DATABASE, Version::new(version));
        store.remove(&path).await;
    }
    let history = log.history();
    for version in [1, 20, 30] {
        let gone = error(&history, log.newest(), version).await;
        assert!(matches!(gone, HistoryError::NotKept { .. }), "{gone}");
    }
    let then = |version: usize| log.states[version].committed_at();
    let kept = history.version_at(log.newest(), then(21)).await;
    assert_eq!(kept.expect("kept"), Version::new(21));
    for version in [1, 5, 20] {
        let gone = history.version_at(log.newest(), then(version)).await;
        let gone = gone.expect_err("removed");
        assert!(matches!(gone, HistoryError::NotKept { .. }), "{gone}");
    }
}

#[tokio::test]
async fn a_commit_that_was_changed_on_the_way_is_named() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let mut log = Log::open(store.bucket().await, 1_000).await;
    log.grow(10).await;
    let path = BucketPath::database_commit(DATABASE, Version::new(3));
    let other = BucketPath::database_commit(DATABASE, Version::new(4));
    let foreign = log.bucket.get(&other).await.expect("there");
    store.overwrite(&path, foreign).await;
    let corrupt = error(&log.history(), log.newest(), 5).await;
    let message = corrupt.to_string();
    assert!(message.contains(path.as_str()), "{message}");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_read_around() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let mut log = Log::open(store.bucket().await, 4).await;
    log.grow(40).await;
    for version in 1..=log.newest().version().get() {
        let path = BucketPath::checkpoint_root(DATABASE, Version::new(version));
        store.overwrite(&path, &b"no checkpoint"[..]).await;
    }
    let state = log.history().state_at(log.newest(), Version::new(30)).await;
    assert_eq!(contents(&state.expect("kept")), contents(&log.states[30]));
}

#[tokio::test]
async fn the_newest_versions_say_what_they_did_and_nothing_of_what_is_left_out() {
    let mut log = Log::open(bucket().await, 5).await;
    log.grow(3).await;
    let summaries = log.history().summaries(log.newest(), 100).await;
    let summaries = summaries.expect("kept");
    let words: Vec<_> = summaries.iter().map(|s| s.changes.join("+")).collect();
    let expected = [
        "DropTable",
        "RemoveExtents",
        "AddExtents",
        "AddExtents",
        "AddExtents",
        "CreateTable",
        "",
    ];
    assert_eq!(words, expected);
    for (summary, state) in summaries.iter().zip(log.states.iter().rev()) {
        let told = (summary.version, summary.digest, summary.committed_at);
        let was = (state.version(), state.digest(), state.committed_at());
        assert_eq!(told, was);
    }
    let two = log.history().summaries(log.newest(), 2).await;
    assert_eq!(two.expect("kept"), summaries[..2]);

    let sharing = TableLevelSharing {
        tables_to_include: vec!["t".to_owned()],
        ..TableLevelSharing::default()
    };
    let reader = log.bucket.reader().clone();
    let reader = DatabaseReader::within(reader, DATABASE, Arc::new(sharing));
    let filtered = reader.load().await.expect("answered").state;
    let told = log.history().summaries(&filtered, 1).await.expect("kept");
    assert!(told[0].changes.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_dropped_table_is_told_as_it_was_right_before_by_its_drop_or_the_version_before() {
    let mut log = Log::open(bucket().await, 1_000).await;
    let drop = |name: &str| DatabaseOp::DropTable {
        name: table_name(name),
        if_exists: false,
    };
    log.commit(vec![create_table(1, "t"), create_table(2, "u")])
        .await;
    log.commit(vec![add_extents(1, 0..3)]).await;
    // What the dropping commit itself did before counts too, and so does a table that it made.
    log.commit(vec![
        add_extents(1, [3]),
        drop("t"),
        create_table(3, "t"),
        add_extents(3, [9]),
    ])
    .await;
    log.commit(vec![create_table(4, "brief"), drop("brief"), drop("t")])
        .await;
    let history = log.history();
    let told = async |name: &str, version: u64| {
        let told = history.dropped_table(log.newest(), name, Version::new(version));
        let told = told.await.expect("kept");
        told.map(|told| (told.version.get(), told.table.id, told.table.extents.len()))
    };
    assert_eq!(told("t", 4).await, Some((4, table_id(1), 4)));
    assert_eq!(told("t", 3).await, Some((4, table_id(1), 4)));
    assert_eq!(told("t", 5).await, Some((5, table_id(3), 1)));
    assert_eq!(told("brief", 5).await, Some((5, table_id(4), 0)));
    assert_eq!(told("u", 4).await, None);
    assert_eq!(told("t", 2).await, None);
    for version in [0, 6] {
        let refused = history.dropped_table(log.newest(), "t", Version::new(version));
        refused.await.expect_err("no such version");
    }
}
