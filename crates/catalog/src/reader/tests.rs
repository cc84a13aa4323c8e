use slipstream_model::BucketId;
use slipstream_storage::BucketWriter;

use super::*;
use crate::testing::*;
use crate::{CommitError, DatabaseWriter, LogDefect};

fn reader(bucket: &BucketWriter) -> DatabaseReader {
    DatabaseReader::new(bucket.reader().clone(), DATABASE)
}

fn commit_path(version: u64) -> BucketPath {
    BucketPath::database_commit(DATABASE, Version::new(version))
}

/// A log of four commits: opened, a table, two extents one by one. No checkpoint.
async fn four_commits(bucket: &BucketWriter) -> Vec<DatabaseState> {
    let writer = open(bucket, 2).await;
    let mut states = vec![DatabaseState::empty(bucket.id(), DATABASE), writer.state()];
    for op in [
        create_table(1, "t"),
        add_extents(1, [1]),
        add_extents(1, [2]),
    ] {
        states.push(writer.commit(vec![op]).await.expect("ok").state);
    }
    states
}

#[tokio::test]
async fn a_database_that_nobody_wrote_is_empty() {
    let bucket = bucket().await;
    let loaded = reader(&bucket).load().await.expect("answered");
    assert_eq!(loaded.state.version(), Version::ZERO);
    assert!(loaded.corrupt.is_none());
}

#[tokio::test]
async fn a_reader_follows_commit_by_commit_or_all_at_once() {
    let bucket = bucket().await;
    let states = four_commits(&bucket).await;
    let reader = reader(&bucket);
    let mut state = states[0].clone();
    while let Some(bytes) = reader.commit_after(&state).await.expect("answered") {
        let commit = crate::Commit::decode(&bytes).expect("whole");
        state = state.apply(&commit).expect("the next one");
    }
    assert_eq!(contents(&state), contents(&states[4]));
    for state in states.iter().cloned() {
        let caught_up = reader.catch_up(state).await.expect("answered").state;
        assert_eq!(contents(&caught_up), contents(&states[4]));
    }
}

#[tokio::test]
async fn finding_nothing_new_takes_one_request() {
    let bucket = bucket().await;
    let states = four_commits(&bucket).await;
    let before = bucket.requests();
    reader(&bucket)
        .catch_up(states[4].clone())
        .await
        .expect("answered");
    let after = bucket.requests();
    assert_eq!(
        (after.get - before.get, after.list, after.head),
        (1, before.list, before.head)
    );
}

#[tokio::test]
async fn a_long_log_is_read_without_a_listing() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    for i in 0..60 {
        writer.commit(vec![add_extents(1, [i])]).await.expect("ok");
    }
    let before = bucket.requests();
    let loaded = reader(&bucket).load().await.expect("answered");
    let after = bucket.requests();
    assert_eq!(contents(&loaded.state), contents(&writer.state()));
    assert_eq!(after.list, before.list);
    assert!(after.get - before.get <= 62 + 1 + 16);
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_of_a_commit_is_noticed_and_named() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let states = four_commits(&bucket).await;
    let reader = reader(&bucket);
    for version in 1..=4 {
        let path = commit_path(version);
        let whole = bucket.get(&path).await.expect("there");
        for position in 0..whole.len() {
            let mut flipped = whole.to_vec();
            flipped[position] ^= 1;
            for damaged in [Bytes::from(flipped), whole.slice(..position)] {
                store.overwrite(&path, damaged).await;
                let start = states[0].clone();
                let loaded = reader.catch_up(start).await.expect("answered");
                let corrupt = loaded.corrupt.expect("noticed");
                assert_eq!(corrupt.object(), path.as_str());
                let held = &states[usize::try_from(version - 1).expect("small")];
                assert_eq!(
                    loaded.state.digest(),
                    held.digest(),
                    "the last good version"
                );
            }
        }
        store.overwrite(&path, whole).await;
    }
    assert!(
        reader.load().await.expect("answered").corrupt.is_none(),
        "all is as it was"
    );
}

#[tokio::test]
async fn commits_of_another_bucket_are_not_followed() {
    let (bucket, other) = (
        bucket().await,
        FaultyStore::new(Fault::NoAnswer).bucket().await,
    );
    four_commits(&bucket).await;
    let bytes = bucket.get(&commit_path(1)).await.expect("there");
    other
        .put(&commit_path(1), bytes)
        .await
        .expect("memory takes it");
    // Both were made from one seed, so make the other one another bucket.
    let foreign = DatabaseState::empty(BucketId::new(uuid::Uuid::from_u128(5)), DATABASE);
    let loaded = reader(&other).catch_up(foreign).await.expect("answered");
    let corrupt = loaded.corrupt.expect("noticed");
    assert!(
        matches!(corrupt.defect(), LogDefect::WrongBucket { .. }),
        "{corrupt}"
    );
}

#[tokio::test]
async fn nobody_writes_a_database_whose_log_is_damaged() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    four_commits(&bucket).await;
    let whole = bucket.get(&commit_path(3)).await.expect("there");
    store
        .overwrite(&commit_path(3), whole.slice(..whole.len() - 9))
        .await;
    let refused = DatabaseWriter::open(bucket.clone(), DATABASE, context(5)).await;
    let error = refused.expect_err("refused").to_string();
    assert!(error.starts_with(commit_path(3).as_str()), "{error}");
}

#[tokio::test]
async fn a_writer_that_finds_garbage_in_its_way_stops() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let writer = open(&bucket, 2).await;
    store.overwrite(&commit_path(2), &b"not a commit"[..]).await;
    for _ in 0..2 {
        let error = writer
            .commit(vec![create_table(1, "t")])
            .await
            .expect_err("stopped");
        assert!(matches!(error, CommitError::Corrupt(_)), "{error}");
    }
    assert!(!writer.is_fenced());
}
