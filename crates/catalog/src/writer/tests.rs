use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures::future::join_all;
use slipstream_storage::{BucketPath, StorageErrorKind};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::*;
use crate::testing::*;
use crate::{DatabaseOp, DatabaseReader, OpError};

async fn load(bucket: &BucketWriter) -> DatabaseState {
    let reader = DatabaseReader::new(bucket.reader().clone(), DATABASE);
    reader
        .load()
        .await
        .expect("answered")
        .into_whole()
        .expect("whole")
}

#[tokio::test]
async fn opening_begins_an_epoch_and_closing_ends_it() {
    let bucket = bucket().await;
    let first = open(&bucket, 2).await;
    assert_eq!(
        (first.state().version(), first.state().epoch()),
        (Version::FIRST, Epoch::FIRST)
    );
    first.close().await;
    let refused = first.commit(vec![create_table(1, "t")]).await;
    assert!(matches!(refused, Err(CommitError::Closed)));
    let second = open(&bucket, 3).await;
    assert_eq!(second.state().epoch(), Epoch::new(2));
    second.close().await;
}

#[tokio::test]
async fn the_newest_writer_knows_that_it_is_and_no_other_believes_it() {
    let bucket = bucket().await;
    let older = open(&bucket, 2).await;
    older.commit(vec![create_table(1, "t")]).await.expect("ok");
    assert!(older.is_newest().await);
    let newer = open(&bucket, 3).await;
    assert!(!older.is_newest().await);
    assert!(older.is_fenced());
    assert!(newer.is_newest().await);
    newer.close().await;
    assert!(!newer.is_newest().await, "it has stopped");
}

#[tokio::test]
async fn the_older_of_two_writers_is_fenced_and_no_version_is_written_twice() {
    let bucket = bucket().await;
    let older = open(&bucket, 2).await;
    older.commit(vec![create_table(1, "t")]).await.expect("ok");
    let mut subscription = older.subscribe();

    let newer = open(&bucket, 3).await;
    let committed = newer.commit(vec![add_extents(1, [1])]).await.expect("ok");
    let object = BucketPath::database_commit(DATABASE, committed.version);
    for _ in 0..2 {
        let refused = older
            .commit(vec![add_extents(1, [2])])
            .await
            .expect_err("fenced");
        assert!(matches!(refused, CommitError::Fenced { epoch } if epoch == Epoch::new(2)));
    }
    assert!(older.is_fenced());
    assert_eq!(
        subscription.commits.recv().await.expect_err("closed"),
        RecvError::Closed
    );
    let late = older.subscribe().commits.try_recv().expect_err("closed");
    assert_eq!(late, TryRecvError::Closed);
    older.close().await;

    assert_eq!(bucket.get(&object).await.expect("there"), committed.bytes);
    newer
        .commit(vec![add_extents(1, [2])])
        .await
        .expect("the newer one goes on");
    assert_eq!(contents(&load(&bucket).await), contents(&newer.state()));
}

#[tokio::test]
async fn an_idle_writer_can_find_out_that_it_is_fenced() {
    let bucket = bucket().await;
    let older = open(&bucket, 2).await;
    assert_eq!(older.check_fenced().await.expect("an answer"), Some(false));
    let newer = open(&bucket, 3).await;
    assert!(!older.is_fenced());
    assert_eq!(older.check_fenced().await.expect("an answer"), Some(true));
    assert_eq!(older.check_fenced().await.expect("none asked"), None);
    assert_eq!(newer.check_fenced().await.expect("an answer"), Some(false));
    older.close().await;
}

#[tokio::test]
async fn many_writers_that_open_at_once_leave_one_that_can_write() {
    let bucket = bucket().await;
    let writers = join_all((0..8).map(|seed| open(&bucket, 10 + seed))).await;
    let attempts = writers
        .iter()
        .enumerate()
        .map(|(i, writer)| writer.commit(vec![create_table(i as u128 + 1, &format!("t{i}"))]));
    let outcomes = join_all(attempts).await;
    let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(winners, 1);
    let state = load(&bucket).await;
    assert_eq!(state.epoch(), Epoch::new(8));
    assert_eq!(
        (state.version(), state.tables().len()),
        (Version::new(9), 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_in_a_tug_of_war_lose_and_double_nothing() {
    let bucket = bucket().await;
    let first = open(&bucket, 2).await;
    first.commit(vec![create_table(1, "t")]).await.expect("ok");
    let next = AtomicUsize::new(0);
    let race = async |seed: u64| {
        let mut acknowledged = Vec::new();
        for round in 0..10 {
            let writer = open(&bucket, 100 * seed + round).await;
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst) as u64;
                match writer.commit(vec![add_extents(1, [number])]).await {
                    Ok(committed) => acknowledged.push((committed.version, extent_id(number))),
                    Err(CommitError::Fenced { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
                if number % 7 == seed {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        acknowledged
    };
    let (left, right) = tokio::join!(race(3), race(5));
    let total = left.len() + right.len();
    let versions: BTreeMap<_, _> = left.into_iter().chain(right).collect();
    assert_eq!(versions.len(), total, "no version acknowledged twice");
    let state = load(&bucket).await;
    let table = state.table("t").expect("made");
    assert!(
        versions.values().all(|id| table.extents.get(*id).is_some()),
        "all acknowledged are there"
    );
    assert_eq!(table.extents.len(), total as u64, "and nothing else");
}

#[tokio::test]
async fn concurrent_transactions_share_commits_and_all_acknowledged_are_there() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    let commits = (0..300).map(|number| writer.commit(vec![add_extents(1, [number])]));
    let committed = join_all(commits).await;
    for (number, committed) in committed.iter().enumerate() {
        let state = &committed.as_ref().expect("ok").state;
        let table = state.table("t").expect("made");
        assert!(table.extents.get(extent_id(number as u64)).is_some());
    }
    assert!(
        writer.state().version() < Version::new(10),
        "{} commits",
        writer.state().version()
    );
    assert_eq!(
        load(&bucket).await.table("t").expect("made").extents.len(),
        300
    );
}

#[tokio::test]
async fn a_rejected_transaction_leaves_no_trace_in_its_group() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    let good = writer.commit(vec![add_extents(1, [1])]);
    let half = writer.commit(vec![add_extents(1, [2]), remove_extents(1, [9])]);
    let clash = writer.commit(vec![add_extents(1, [1])]);
    let other = writer.commit(vec![create_table(2, "u"), add_extents(2, [1])]);
    let (good, half, clash, other) = tokio::join!(good, half, clash, other);
    assert!(matches!(
        half,
        Err(CommitError::Rejected(OpError::ExtentNotFound { .. }))
    ));
    assert!(matches!(
        clash,
        Err(CommitError::Rejected(OpError::ExtentExists { .. }))
    ));
    let (good, other) = (good.expect("ok"), other.expect("ok"));
    assert_eq!(good.version, other.version, "one commit");
    let table = other.state.table("t").expect("made");
    assert_eq!(
        table
            .extents
            .iter()
            .map(|extent| extent.id)
            .collect::<Vec<_>>(),
        [extent_id(1)]
    );
    assert_eq!(contents(&load(&bucket).await), contents(&other.state));

    let before = bucket.requests().put;
    let alone = writer.commit(vec![remove_extents(1, [9])]).await;
    assert!(matches!(alone, Err(CommitError::Rejected(_))));
    assert_eq!(bucket.requests().put, before, "nothing to write");
}

#[tokio::test]
async fn rows_for_a_table_dropped_meanwhile_are_rejected() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    let drop = DatabaseOp::DropTable {
        name: table_name("t"),
        if_exists: false,
    };
    writer
        .commit(vec![drop, create_table(2, "t")])
        .await
        .expect("ok");
    let error = writer
        .commit(vec![add_extents(1, [1])])
        .await
        .expect_err("rejected");
    assert!(
        matches!(&error, CommitError::Rejected(OpError::TableDropped(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_transaction_without_an_effect_writes_nothing() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let drop = DatabaseOp::DropTable {
        name: table_name("t"),
        if_exists: true,
    };
    let committed = writer.commit(vec![drop]).await.expect("ok");
    assert_eq!(
        (committed.version, committed.bytes.len()),
        (Version::FIRST, 0)
    );
}

#[tokio::test]
async fn a_transaction_too_large_for_one_message_is_rejected() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    let mut huge = extent(1);
    huge.tags = (0..log::TRANSACTION_BYTES_MAX / 1_000)
        .map(|i| format!("{i:0>1000}"))
        .collect();
    let op = DatabaseOp::AddExtents {
        table: table_id(1),
        schema: schema(),
        extents: vec![huge],
    };
    let error = writer.commit(vec![op]).await.expect_err("rejected");
    assert!(matches!(
        error,
        CommitError::Rejected(OpError::TransactionTooLarge { .. })
    ));
}

#[tokio::test]
async fn a_subscriber_gets_every_commit_as_the_very_bytes() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let Subscription {
        mut state,
        mut commits,
    } = writer.subscribe();
    for i in 0..20 {
        writer
            .commit(vec![create_table(i + 1, &format!("t{i}"))])
            .await
            .expect("ok");
    }
    writer.close().await;
    let mut count = 0;
    while let Ok(committed) = commits.recv().await {
        let commit = crate::Commit::decode(&committed.bytes).expect("whole");
        state = state.apply(&commit).expect("the next one");
        assert_eq!(
            (state.version(), state.digest()),
            (committed.version, committed.digest)
        );
        assert_eq!(contents(&state), contents(&committed.state));
        count += 1;
    }
    assert_eq!(count, 20, "and then the channel closes");
}

#[tokio::test]
async fn a_commit_whose_fate_is_unknown_is_tried_until_it_is_known() {
    for fault in [Fault::LostAnswer, Fault::NoAnswer] {
        let store = FaultyStore::new(fault);
        let bucket = store.bucket().await;
        let writer = open(&bucket, 2).await;
        // More than one round of the bucket's own attempts.
        store.fail_next_puts(13);
        let later = writer.commit(vec![create_table(1, "t")]);
        let committed = later.await.expect("in the end");
        let expected = if fault == Fault::NoAnswer { 0 } else { 12 };
        assert_eq!(store.puts_still_failing(), expected, "{fault:?}");
        store.fail_next_puts(0);
        assert_eq!(contents(&load(&bucket).await), contents(&committed.state));
        assert_eq!(committed.version, Version::new(2), "written once");
    }
}

#[tokio::test]
async fn a_refused_commit_fails_and_the_next_one_goes_through() {
    let store = FaultyStore::new(Fault::Refused);
    let bucket = store.bucket().await;
    let writer = open(&bucket, 2).await;
    store.fail_next_puts(1);
    let error = writer
        .commit(vec![create_table(1, "t")])
        .await
        .expect_err("refused");
    let CommitError::Unavailable(storage) = &error else {
        panic!("{error}")
    };
    assert_eq!(storage.kind(), StorageErrorKind::Denied);
    let committed = writer.commit(vec![create_table(2, "t")]).await.expect("ok");
    assert_eq!(committed.version, Version::new(2));
}

#[tokio::test]
async fn an_earlier_commit_of_its_own_is_not_mistaken_for_a_strangers() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    // As if an attempt had been refused to this writer's face, and landed all the same.
    let state = writer.state();
    let stamp = context(9).stamp(state.version().next(), state.epoch(), state.committed_at());
    let mut draft = Draft::new(state.clone());
    draft.add(vec![create_table(1, "t")]).expect("allowed");
    let (bytes, _) = draft.seal(&stamp, &cluster("prod"));
    bucket
        .create(&state.commit_path(stamp.version), bytes)
        .await
        .expect("ok");

    let error = writer
        .commit(vec![create_table(2, "u")])
        .await
        .expect_err("not written");
    assert!(matches!(error, CommitError::Unavailable(_)), "{error}");
    assert!(
        writer.state().table("t").is_some(),
        "what is in the log is committed"
    );
    assert!(!writer.is_fenced());
    writer.commit(vec![create_table(2, "u")]).await.expect("ok");
    assert_eq!(contents(&load(&bucket).await), contents(&writer.state()));
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_gives_up_on_a_dead_store() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let mut queued = Box::pin(writer.commit(vec![create_table(1, "t")]));
    assert!(matches!(futures::poll!(&mut queued), Poll::Pending));
    let (committed, ()) = tokio::join!(queued, writer.close());
    committed.expect("it was in the queue before");

    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let writer = open(&bucket, 2).await;
    store.fail_next_puts(usize::MAX);
    let mut hanging = Box::pin(writer.commit(vec![create_table(1, "t")]));
    for _ in 0..100 {
        assert!(matches!(futures::poll!(&mut hanging), Poll::Pending));
        tokio::task::yield_now().await;
    }
    let (fate, ()) = tokio::join!(hanging, writer.close());
    assert!(matches!(fate, Err(CommitError::Unavailable(_))));
}

#[tokio::test]
async fn time_in_the_log_does_not_go_back_with_the_clock() {
    let bucket = bucket().await;
    let later = WriterContext {
        clock: Arc::new(slipstream_model::ManualClock::new(Timestamp::from_micros(
            i64::MAX / 2,
        ))),
        ..context(2)
    };
    let ahead = DatabaseWriter::open(bucket.clone(), DATABASE, later)
        .await
        .expect("opened");
    let watermark = ahead.state().committed_at();
    let behind = open(&bucket, 3).await;
    assert_eq!(behind.state().committed_at(), watermark);
}
