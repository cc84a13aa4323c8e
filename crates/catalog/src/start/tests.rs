use std::sync::Arc;

use super::*;
use crate::testing::*;
use crate::{DatabaseReader, DatabaseWriter, History, HistoryError};

/// A log of some versions, and the state at each of them.
struct Log {
    store: Arc<FaultyStore>,
    bucket: BucketWriter,
    writer: DatabaseWriter,
    states: Vec<DatabaseState>,
}

impl Log {
    async fn open() -> Self {
        let store = FaultyStore::new(Fault::NoAnswer);
        let bucket = store.bucket().await;
        let writer = open(&bucket, 2).await;
        let empty = DatabaseState::empty(bucket.id(), DATABASE);
        let mut log = Self {
            states: vec![empty, writer.state()],
            store,
            bucket,
            writer,
        };
        log.commit(create_table(1, "t")).await;
        log
    }

    async fn commit(&mut self, op: crate::DatabaseOp) {
        self.writer.commit(vec![op]).await.expect("allowed");
        self.states.push(self.writer.state());
    }

    async fn grow_to(&mut self, version: u64) {
        while self.newest().version().get() < version {
            let number = self.newest().version().get();
            // As many as make a segment, so that checkpoints share something.
            let extents = number * 2_000..number * 2_000 + 1_200;
            self.commit(add_extents(1, extents)).await;
        }
    }

    fn newest(&self) -> &DatabaseState {
        self.states.last().expect("opened")
    }

    fn at(&self, version: u64) -> &DatabaseState {
        &self.states[usize::try_from(version).expect("small")]
    }

    fn reader(&self) -> DatabaseReader {
        DatabaseReader::new(self.bucket.reader().clone(), DATABASE)
    }

    async fn checkpoint(&self, version: u64) {
        let written = checkpoint::write(&self.bucket, self.at(version)).await;
        written.expect("taken");
    }

    /// Deletes all that leads to what lies before a version.
    async fn cut(&self, version: u64) -> LogStart {
        self.checkpoint(version).await;
        let bucket = self.bucket.reader();
        let mut ledger = GarbageLedger::load(bucket, DATABASE).await.expect("read");
        let followed = ledger.follow(&self.reader(), self.newest()).await;
        followed.expect("the log leads there");
        let before = LogStart::newest(bucket, DATABASE).await.expect("answered");
        let first = before.as_ref().map_or(1, |before| before.version.get());
        let start = LogStart::at(self.at(version), &ledger, before.as_ref());
        let created = start.create(&self.bucket, DATABASE).await;
        assert_eq!(created.expect("taken"), start);
        let kept = checkpoint_segments(bucket, DATABASE, start.version);
        let kept = kept.await.expect("there");
        for number in first..version {
            let gone = Version::new(number);
            let deleted = start.delete_version(&self.bucket, DATABASE, gone, &kept);
            deleted.await.expect("answered");
        }
        start
    }

    async fn has_commit(&self, version: u64) -> bool {
        let commit = self.reader().commit_at(Version::new(version)).await;
        commit.expect("answered").is_some()
    }

    async fn loaded(&self) -> DatabaseState {
        let loaded = self.reader().load().await.expect("answered");
        loaded.into_whole().expect("whole")
    }

    async fn lose(&self, path: &BucketPath) {
        self.store.remove(path).await;
    }
}

#[tokio::test]
async fn the_newest_start_is_found_however_many_there_are() {
    let bucket = bucket().await;
    let newest = async || LogStart::newest(bucket.reader(), DATABASE).await;
    assert_eq!(newest().await.expect("answered"), None);
    for number in 0..300 {
        let start = LogStart {
            number,
            version: Version::new(10 + number),
            digest: Digest::ZERO,
            epochs: Vec::new(),
        };
        let created = start.create(&bucket, DATABASE).await.expect("taken");
        assert_eq!(created, start);
        assert_eq!(newest().await.expect("answered"), Some(start));
    }
}

#[tokio::test]
async fn a_start_is_made_once() {
    let mut log = Log::open().await;
    log.grow_to(12).await;
    let first = log.cut(6).await;
    let late = LogStart {
        version: Version::new(4),
        ..first.clone()
    };
    let found = late.create(&log.bucket, DATABASE).await.expect("answered");
    assert_eq!(found, first);
    let newest = LogStart::newest(log.bucket.reader(), DATABASE).await;
    assert_eq!(newest.expect("answered"), Some(first));
}

#[tokio::test]
async fn a_log_without_its_beginning_leads_to_the_same_state() {
    let mut log = Log::open().await;
    log.grow_to(20).await;
    log.checkpoint(3).await;
    for version in [6, 11] {
        log.cut(version).await;
        assert_eq!(contents(&log.loaded().await), contents(log.newest()));
        // The hint is lost.
        log.lose(&BucketPath::checkpoint_newest(DATABASE)).await;
        assert_eq!(contents(&log.loaded().await), contents(log.newest()));
        // A late leader brings an old checkpoint back, and names it.
        log.checkpoint(4).await;
        assert_eq!(contents(&log.loaded().await), contents(log.newest()));
    }
    assert!(log.has_commit(1).await, "it opened the log");
    for version in 2..11 {
        assert!(!log.has_commit(version).await, "{version}");
    }
    assert!(log.has_commit(11).await);
    let roots = log.store.paths().await;
    let roots: Vec<_> = roots
        .iter()
        .filter(|path| path.ends_with(".root"))
        .collect();
    // The late leader's one too.
    assert_eq!(roots.len(), 2, "{roots:?}");
}

#[tokio::test]
async fn segments_go_with_the_last_checkpoint_that_names_them() {
    let mut log = Log::open().await;
    log.grow_to(4).await;
    log.checkpoint(4).await;
    let segments = async || {
        let paths = log.store.paths().await;
        paths
            .iter()
            .filter(|path| path.ends_with(".segment"))
            .count()
    };
    let before = segments().await;
    assert!(before > 0);
    log.writer
        .commit(vec![remove_extents(1, 4_000..5_200)])
        .await
        .expect("allowed");
    let removed = log.writer.state();
    assert!(removed.stored_segments().count() < before);
    let (mut cut, version) = (log, removed.version().get());
    cut.states.push(removed);
    cut.cut(version).await;
    let paths = cut.store.paths().await;
    let left = paths
        .iter()
        .filter(|path| path.ends_with(".segment"))
        .count();
    let named = checkpoint_segments(cut.bucket.reader(), DATABASE, Version::new(version)).await;
    assert_eq!(left, named.expect("there").len());
    assert_eq!(contents(&cut.loaded().await), contents(cut.newest()));
}

#[tokio::test]
async fn a_state_is_known_as_long_as_the_log_has_it_or_begins_after_it() {
    let mut log = Log::open().await;
    log.grow_to(20).await;
    log.cut(10).await;
    let reader = log.reader();
    for version in [4, 9, 10, 15, 20] {
        let known = reader.remembers(log.at(version)).await.expect("answered");
        assert!(known, "{version}");
    }
    let mut other = Log::open().await;
    other.commit(create_table(2, "other")).await;
    other.grow_to(21).await;
    for version in [15, 20, 21] {
        let known = reader.remembers(other.at(version)).await.expect("answered");
        assert!(!known, "{version}");
    }
}

#[tokio::test]
async fn who_stands_before_the_start_is_told_so() {
    let mut log = Log::open().await;
    log.grow_to(20).await;
    let reader = log.reader();
    assert!(!reader.is_cut_off(log.at(4)).await.expect("answered"));
    log.cut(10).await;
    let next = reader.commit_after(log.at(4)).await.expect("answered");
    assert!(next.is_none());
    assert!(reader.is_cut_off(log.at(4)).await.expect("answered"));
    for version in [9, 10, 20] {
        let state = log.at(version);
        assert!(!reader.is_cut_off(state).await.expect("answered"));
    }
}

#[tokio::test]
async fn the_next_writer_goes_on_at_the_end() {
    let mut log = Log::open().await;
    log.grow_to(20).await;
    log.cut(10).await;
    log.checkpoint(4).await;
    let next = open(&log.bucket, 3).await.state();
    assert_eq!(next.version(), Version::new(21));
    assert_eq!(next.epoch(), log.newest().epoch().next());
    assert!(!log.has_commit(5).await);
}

#[tokio::test]
async fn a_writer_that_stood_still_while_it_opened_the_log_opens_it_again() {
    let mut log = Log::open().await;
    log.grow_to(5).await;
    let (store, bucket) = (Arc::clone(&log.store), log.bucket.clone());
    let (told, states) = tokio::sync::oneshot::channel();
    store.delay_next_put(async move {
        log.grow_to(20).await;
        log.cut(15).await;
        // The number that the other one is about to take is free again.
        assert!(!log.has_commit(6).await);
        assert!(told.send(log).is_ok());
    });
    let late = open(&bucket, 3).await;
    let log = states.await.expect("it came in between");
    assert_eq!(late.state().version(), Version::new(21));
    assert_eq!(late.state().epoch(), log.newest().epoch().next());
    assert!(!log.has_commit(6).await, "it is taken back");
    let fenced = log.writer.commit(vec![create_table(2, "u")]).await;
    assert!(fenced.is_err() && log.writer.is_fenced());
}

#[tokio::test]
async fn a_ledger_that_is_lost_begins_with_the_log() {
    let mut log = Log::open().await;
    log.grow_to(8).await;
    log.writer.close().await;
    let second = open(&log.bucket, 3).await;
    log.states.push(second.state());
    log.writer = second;
    log.grow_to(20).await;
    let start = log.cut(12).await;
    let opened: Vec<u64> = start
        .epochs
        .iter()
        .map(|opened| opened.version.get())
        .collect();
    assert_eq!(opened, [1, 9]);
    assert!(log.has_commit(9).await, "it opened the log");
    let bucket = log.bucket.reader();
    let mut ledger = GarbageLedger::load(bucket, DATABASE).await.expect("read");
    assert_eq!(ledger.stored(), Version::new(12));
    let followed = ledger.follow(&log.reader(), log.newest()).await;
    followed.expect("the log leads there");
    assert_eq!(ledger.epochs(), start.epochs);
}

#[tokio::test]
async fn older_versions_are_read_from_the_start_on() {
    let mut log = Log::open().await;
    log.grow_to(20).await;
    log.cut(10).await;
    let history = History::new(log.bucket.reader().clone());
    for version in 10..=20 {
        let state = history.state_at(log.newest(), Version::new(version)).await;
        let state = state.expect("kept");
        assert_eq!(contents(&state), contents(log.at(version)));
    }
    for version in [1, 2, 9] {
        let gone = history.state_at(log.newest(), Version::new(version)).await;
        let gone = gone.expect_err("deleted");
        let oldest = Some(Version::new(10));
        assert!(
            matches!(gone, HistoryError::NotKept { oldest: found, .. } if found == oldest),
            "{gone}"
        );
        assert!(gone.to_string().ends_with("version 10"), "{gone}");
    }
}
