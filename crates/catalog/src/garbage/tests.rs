use slipstream_model::TableName;

use super::*;
use crate::testing::*;
use crate::{DatabaseOp, DatabaseWriter};

fn reader(bucket: &BucketWriter) -> DatabaseReader {
    DatabaseReader::new(bucket.reader().clone(), DATABASE)
}

/// The ledger that the bucket has, after it has read on to what the writer has.
async fn load(bucket: &BucketWriter, writer: &DatabaseWriter) -> GarbageLedger {
    let mut ledger = GarbageLedger::load(bucket.reader(), DATABASE)
        .await
        .expect("answered");
    let newest = writer.state();
    ledger
        .follow(&reader(bucket), &newest)
        .await
        .expect("the log leads there");
    assert_eq!(ledger.state().digest(), newest.digest());
    ledger
}

/// Version, table, and what left it.
fn told(ledger: &GarbageLedger) -> Vec<(u64, &str, Vec<ExtentId>)> {
    let removals = ledger.removals().iter();
    removals
        .map(|removal| {
            let ids = removal.extents.iter().map(|extent| extent.id);
            (removal.version.get(), removal.table.as_str(), ids.collect())
        })
        .collect()
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<ExtentId> {
    numbers.into_iter().map(extent_id).collect()
}

fn drop_table(name: &str) -> DatabaseOp {
    DatabaseOp::DropTable {
        name: TableName::new(name).expect("a name"),
        if_exists: false,
    }
}

async fn commit(writer: &DatabaseWriter, ops: Vec<DatabaseOp>) -> u64 {
    let committed = writer.commit(ops).await.expect("allowed");
    committed.version.get()
}

#[tokio::test]
async fn whatever_leaves_a_table_is_told_by_version_table_and_size() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let filled = vec![
        create_table(1, "t"),
        create_table(2, "u"),
        add_extents(1, 0..1_100),
    ];
    commit(&writer, filled).await;
    let removed = commit(&writer, vec![remove_extents(1, [3, 1_050])]).await;
    let moved = DatabaseOp::MoveExtents {
        from: table_id(1),
        to: table_id(2),
        extents: ids([7]),
    };
    let moved = commit(&writer, vec![moved]).await;
    let dropped = commit(&writer, vec![drop_table("t")]).await;

    let ledger = load(&bucket, &writer).await;
    let left = (0..1_100).filter(|number| ![3, 7, 1_050].contains(number));
    let expected = [
        (removed, "t", ids([3, 1_050])),
        (moved, "t", ids([7])),
        (dropped, "t", ids(left)),
    ];
    let mut found = told(&ledger);
    found.iter_mut().for_each(|(.., ids)| ids.sort_unstable());
    assert_eq!(found, expected);
    let sizes = ledger.removals()[0].extents.iter();
    assert_eq!(
        sizes.map(|extent| extent.size_bytes).collect::<Vec<_>>(),
        [1_003, 2_050]
    );
    writer.close().await;
}

#[tokio::test]
async fn what_one_commit_adds_and_takes_is_told_too() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let passing = vec![
        create_table(1, "t"),
        add_extents(1, [1, 2]),
        remove_extents(1, [1]),
        drop_table("t"),
    ];
    let version = commit(&writer, passing).await;
    let ledger = load(&bucket, &writer).await;
    assert_eq!(told(&ledger), [(version, "t", ids([1, 2]))]);
    writer.close().await;
}

#[tokio::test]
async fn a_stored_ledger_is_read_on_from_and_a_lost_one_costs_nothing_but_time() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    commit(&writer, vec![create_table(1, "t"), add_extents(1, 0..5)]).await;
    let first = commit(&writer, vec![remove_extents(1, [0, 1])]).await;
    let mut ledger = load(&bucket, &writer).await;
    ledger.settle(Version::new(first), |id| id == extent_id(0));
    ledger.store(&bucket).await.expect("taken");
    assert_eq!(ledger.stored(), writer.state().version());
    let second = commit(&writer, vec![remove_extents(1, [2])]).await;

    let read = GarbageLedger::load(bucket.reader(), DATABASE)
        .await
        .expect("answered");
    assert_eq!(read.stored(), Version::new(first));
    let ledger = load(&bucket, &writer).await;
    let expected = [(first, "t", ids([1])), (second, "t", ids([2]))];
    assert_eq!(told(&ledger), expected);

    let path = BucketPath::garbage_ledger(DATABASE);
    bucket
        .put(&path, Bytes::from_static(b"something else"))
        .await
        .expect("taken");
    let ledger = load(&bucket, &writer).await;
    let expected = [(first, "t", ids([0, 1])), (second, "t", ids([2]))];
    assert_eq!(told(&ledger), expected);
    writer.close().await;
}

#[tokio::test]
async fn a_ledger_of_another_history_is_not_believed() {
    let (bucket, other) = (bucket().await, bucket().await);
    let mut ledgers = Vec::new();
    for (bucket, name, seed) in [(&bucket, "t", 2), (&other, "u", 3)] {
        let writer = open(bucket, seed).await;
        commit(&writer, vec![create_table(1, name), add_extents(1, [1])]).await;
        commit(&writer, vec![remove_extents(1, [1])]).await;
        let mut ledger = load(bucket, &writer).await;
        ledger.store(bucket).await.expect("taken");
        let path = BucketPath::garbage_ledger(DATABASE);
        ledgers.push(bucket.get(&path).await.expect("there"));
        writer.close().await;
    }
    let path = BucketPath::garbage_ledger(DATABASE);
    bucket.put(&path, ledgers.remove(1)).await.expect("taken");
    let found = GarbageLedger::load(bucket.reader(), DATABASE)
        .await
        .expect("answered");
    assert_eq!(found.stored(), Version::ZERO);
    assert!(found.removals().is_empty());
}

#[tokio::test]
async fn only_removals_up_to_a_version_are_settled() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    commit(&writer, vec![create_table(1, "t"), add_extents(1, 0..4)]).await;
    let first = commit(&writer, vec![remove_extents(1, [0, 1])]).await;
    let second = commit(&writer, vec![remove_extents(1, [2])]).await;
    let mut ledger = load(&bucket, &writer).await;
    ledger.settle(Version::new(first), |_| true);
    assert_eq!(told(&ledger), [(second, "t", ids([2]))]);
    writer.close().await;
}

#[tokio::test]
async fn everybody_who_opened_the_log_is_known_and_so_is_who_is_settled() {
    let bucket = bucket().await;
    let mut opened = Vec::new();
    for seed in 2..5 {
        let writer = open(&bucket, seed).await;
        opened.push((writer.epoch().get(), writer.state().version().get()));
        let name = format!("t{seed}");
        commit(&writer, vec![create_table(seed.into(), &name)]).await;
        let mut ledger = load(&bucket, &writer).await;
        // What the last round noted is read on from.
        let known = ledger.epochs().iter();
        let settled = known.map(|opened| opened.is_settled);
        let expected = (2..=seed).map(|other| other < seed);
        assert_eq!(settled.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        ledger.settle_epoch(writer.epoch());
        ledger.store(&bucket).await.expect("taken");
        writer.close().await;
    }
    assert_eq!(opened, [(1, 1), (2, 3), (3, 5)]);
    let ledger = GarbageLedger::load(bucket.reader(), DATABASE).await;
    let ledger = ledger.expect("answered");
    let known = ledger.epochs().iter();
    let known = known.map(|opened| (opened.epoch.get(), opened.version.get()));
    assert_eq!(known.collect::<Vec<_>>(), opened);
}

#[tokio::test]
async fn a_ledger_that_does_not_say_who_opened_the_log_is_made_anew() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let mut ledger = load(&bucket, &writer).await;
    ledger.epochs.clear();
    ledger.store(&bucket).await.expect("taken");
    let ledger = load(&bucket, &writer).await;
    assert_eq!(ledger.stored(), Version::ZERO);
    assert_eq!(ledger.epochs().len(), 1);
    writer.close().await;
}

#[test]
fn a_removal_with_too_few_sizes_is_refused() {
    let message = proto::Removal {
        extent_ids: Bytes::from_static(&[0; 32]),
        size_bytes: vec![1],
        ..proto::Removal::default()
    };
    assert!(removal_from_proto(message).is_err());
}

#[tokio::test]
async fn an_extent_whose_tags_change_was_not_removed() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    let filled = vec![create_table(1, "t"), add_extents(1, 0..3)];
    commit(&writer, filled).await;
    let tags = DatabaseOp::AlterExtentTags {
        table: table_id(1),
        extents: ids([1, 2]),
        change: crate::TagsChange::Clear,
    };
    commit(&writer, vec![tags]).await;
    let ledger = load(&bucket, &writer).await;
    assert!(told(&ledger).is_empty());
    let table = ledger.state().table("t").expect("there");
    assert!(table.extents.iter().all(|extent| extent.tags.is_empty()));
}
