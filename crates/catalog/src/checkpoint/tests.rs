use proptest::prelude::*;
use slipstream_model::Version;
use slipstream_storage::{BucketPath, BucketReader, BucketWriter};

use super::format::{SegmentReference, decode_segment, encode_segment};
use crate::extents::{Removed, SEGMENT_EXTENTS, Segment};
use crate::log::LogState;
use crate::testing::*;
use crate::{DatabaseOp, DatabaseReader, DatabaseState, DatabaseWriter, WriterContext};

async fn load(bucket: &BucketWriter) -> DatabaseState {
    let reader = DatabaseReader::new(bucket.reader().clone(), DATABASE);
    reader
        .load()
        .await
        .expect("answered")
        .into_whole()
        .expect("whole")
}

/// The log alone, from its start.
async fn replay(bucket: &BucketReader) -> DatabaseState {
    let reader = DatabaseReader::new(bucket.clone(), DATABASE);
    let empty = DatabaseState::empty(bucket.id(), DATABASE);
    reader
        .catch_up(empty)
        .await
        .expect("answered")
        .into_whole()
        .expect("whole")
}

async fn open_with(bucket: &BucketWriter, checkpoint_every: u64) -> DatabaseWriter {
    let context = WriterContext {
        checkpoint_every,
        ..context(2)
    };
    DatabaseWriter::open(bucket.clone(), DATABASE, context)
        .await
        .expect("opened")
}

#[tokio::test]
async fn closing_writes_a_checkpoint_and_loading_reads_no_more_than_that() {
    let bucket = bucket().await;
    let writer = open(&bucket, 2).await;
    writer
        .commit(vec![create_table(1, "t"), add_extents(1, 0..3_000)])
        .await
        .expect("ok");
    for i in 0..40 {
        writer
            .commit(vec![add_extents(1, [3_000 + i])])
            .await
            .expect("ok");
    }
    writer.close().await;

    let before = bucket.requests();
    let state = load(&bucket).await;
    let after = bucket.requests();
    assert_eq!(contents(&state), contents(&writer.state()));
    assert_eq!(after.list, before.list);
    assert_eq!(after.head, before.head);
    // The hint, the root, two segments, one window of numbers that are not there, and whether the log
    // begins later.
    assert!(
        after.get - before.get <= 4 + 16 + 1,
        "{} requests",
        after.get - before.get
    );
}

#[tokio::test]
async fn segments_are_written_once() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let segments = async || {
        let paths = store.paths().await;
        paths
            .iter()
            .filter(|path| path.ends_with(".segment"))
            .count()
    };
    let writer = open_with(&bucket, 1_000).await;
    writer
        .commit(vec![create_table(1, "t"), add_extents(1, 0..2_100)])
        .await
        .expect("ok");
    writer.close().await;
    assert_eq!(segments().await, 2);

    let writer = open_with(&bucket, 1_000).await;
    writer
        .commit(vec![
            remove_extents(1, [5, 6]),
            add_extents(1, 2_100..2_110),
        ])
        .await
        .expect("ok");
    let before = bucket.requests();
    writer.close().await;
    let after = bucket.requests();
    assert_eq!(segments().await, 2, "removing does not touch a segment");
    assert_eq!(after.put - before.put, 2, "the root and the hint");
    assert_eq!(contents(&load(&bucket).await), contents(&writer.state()));
}

#[tokio::test]
async fn a_checkpoint_is_written_beside_the_commits() {
    let bucket = bucket().await;
    let writer = open_with(&bucket, 4).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    for i in 0..20 {
        writer.commit(vec![add_extents(1, [i])]).await.expect("ok");
        tokio::task::yield_now().await;
    }
    let newest = BucketPath::checkpoint_newest(DATABASE);
    for _ in 0..1_000 {
        if bucket.try_get(&newest).await.expect("answered").is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(bucket.try_get(&newest).await.expect("answered").is_some());
    assert_eq!(contents(&load(&bucket).await), contents(&writer.state()));
}

#[tokio::test]
async fn a_damaged_or_lost_checkpoint_only_costs_time() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let writer = open_with(&bucket, 1_000).await;
    writer
        .commit(vec![create_table(1, "t"), add_extents(1, 0..1_030)])
        .await
        .expect("ok");
    writer.close().await;
    let expected = writer.state();
    let parts = store
        .paths()
        .await
        .into_iter()
        .filter(|path| path.contains("/checkpoint/"));
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts.len(), 3, "{parts:?}");

    let version = expected.version();
    let root = BucketPath::checkpoint_root(DATABASE, version);
    let newest = BucketPath::checkpoint_newest(DATABASE);
    let segment = parts
        .iter()
        .find(|path| path.ends_with(".segment"))
        .expect("one");
    let segment = segment
        .rsplit('/')
        .next()
        .expect("a name")
        .trim_end_matches(".segment");
    let segment = BucketPath::checkpoint_segment(DATABASE, segment.parse().expect("a digest"));
    let reader = DatabaseReader::new(bucket.reader().clone(), DATABASE);
    assert!(reader.read_checkpoint(version).await.is_ok());
    for part in [&segment, &root, &newest] {
        let whole = bucket.get(part).await.expect("there");
        let mut flipped = whole.to_vec();
        flipped[whole.len() / 2] ^= 0x10;
        store.overwrite(part, flipped).await;
        assert_eq!(
            contents(&load(&bucket).await),
            contents(&expected),
            "{part} damaged"
        );
        assert!(part == &newest || reader.read_checkpoint(version).await.is_err());
        store.overwrite(part, whole.slice(..20)).await;
        assert_eq!(
            contents(&load(&bucket).await),
            contents(&expected),
            "{part} cut short"
        );
        store.remove(part).await;
        assert_eq!(
            contents(&load(&bucket).await),
            contents(&expected),
            "{part} lost"
        );
        store.overwrite(part, whole).await;
    }
    assert!(
        reader.read_checkpoint(version).await.is_ok(),
        "all is as it was"
    );
}

#[tokio::test]
async fn a_checkpoint_of_another_bucket_or_version_is_not_used() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let writer = open(&bucket, 2).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    writer.close().await;
    let version = writer.state().version();
    let root = bucket
        .get(&BucketPath::checkpoint_root(DATABASE, version))
        .await
        .expect("there");
    store
        .overwrite(
            &BucketPath::checkpoint_root(DATABASE, Version::new(77)),
            root.clone(),
        )
        .await;
    let reader = DatabaseReader::new(bucket.reader().clone(), DATABASE);
    let error = reader
        .read_checkpoint(Version::new(77))
        .await
        .expect_err("another version");
    assert!(
        error
            .to_string()
            .contains("version 2 where version 77 is expected"),
        "{error}"
    );

    let other = super::super::testing::bucket().await;
    let foreign = DatabaseState::empty(slipstream_model::BucketId::default(), DATABASE);
    let foreign_root = super::format::encode_root(&foreign);
    let path = BucketPath::checkpoint_root(DATABASE, Version::ZERO);
    other
        .put(&path, foreign_root)
        .await
        .expect("memory takes it");
    let reader = DatabaseReader::new(other.reader().clone(), DATABASE);
    let error = reader
        .read_checkpoint(Version::ZERO)
        .await
        .expect_err("another bucket");
    assert!(error.to_string().contains("belongs to bucket"), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_the_log_does_not_continue_is_not_believed() {
    let store = FaultyStore::new(Fault::NoAnswer);
    let bucket = store.bucket().await;
    let writer = open_with(&bucket, 1_000).await;
    let state = writer
        .commit(vec![create_table(1, "t")])
        .await
        .expect("ok")
        .state;
    writer.commit(vec![add_extents(1, [1])]).await.expect("ok");
    let mut forged = state.preview(&[add_extents(1, [9])]).expect("allowed");
    forged.chain_mut().digest = slipstream_model::Digest::of(b"another history");
    super::write(&bucket, &forged).await.expect("written");

    let reader = DatabaseReader::new(bucket.reader().clone(), DATABASE);
    let loaded = reader.load().await.expect("answered");
    assert_eq!(loaded.read_from, Version::ZERO);
    assert!(loaded.corrupt.is_none());
    assert_eq!(contents(&loaded.state), contents(&writer.state()));
}

#[tokio::test]
async fn a_checkpoint_that_fails_costs_no_commit() {
    let store = FaultyStore::new(Fault::Refused);
    let bucket = store.bucket().await;
    let writer = open_with(&bucket, 1_000).await;
    writer.commit(vec![create_table(1, "t")]).await.expect("ok");
    store.fail_next_puts(100);
    writer.close().await;
    store.fail_next_puts(0);
    assert_eq!(contents(&load(&bucket).await), contents(&writer.state()));
}

/// What the tables of the random histories are called; an operation on one that is not there, or
/// there already, is refused, and that is part of the test.
fn op() -> impl Strategy<Value = DatabaseOp> {
    let table = 1..3_u128;
    prop_oneof![
        1 => table.clone().prop_map(|table| create_table(table, &format!("t{table}"))),
        1 => table.clone().prop_map(|table| DatabaseOp::DropTable {
            name: table_name(&format!("t{table}")),
            if_exists: true,
        }),
        6 => (table.clone(), 0..4_000_u64, 1..900_u64)
            .prop_map(|(table, from, count)| add_extents(table, from..from + count)),
        4 => (table, 0..4_000_u64, 1..300_u64)
            .prop_map(|(table, from, count)| remove_extents(table, from..from + count)),
    ]
}

#[test]
fn a_segment_holds_what_a_segment_can() {
    let decode = |count: usize, removed: &[usize]| {
        let extents = extents(0..count as u64);
        let segment = Segment::build(&schema(), &extents.iter().collect::<Vec<_>>());
        let (object, sha256) = encode_segment(&segment.expect("fits"));
        let mut bits = Removed::default();
        removed.iter().for_each(|slot| bits.insert(*slot));
        let reference = SegmentReference {
            sha256,
            extent_count: count as u64,
            removed: bits,
        };
        decode_segment(&object, &schema(), &reference)
    };
    assert!(decode(SEGMENT_EXTENTS, &[0, SEGMENT_EXTENTS - 1]).is_ok());
    assert!(decode(3, &[2]).is_ok());
    assert!(decode(3, &[3]).is_err());
    assert!(decode(SEGMENT_EXTENTS + 1, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn replaying_the_log_equals_checkpoint_and_tail(
        ops in proptest::collection::vec(op(), 1..30),
        checkpoint_at in 0..30_usize,
        reopen_at in 0..30_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let bucket = bucket().await;
            let mut writer = open(&bucket, 2).await;
            writer.commit(vec![create_table(1, "t1"), add_extents(1, 0..1_500)]).await.expect("ok");
            for (i, op) in ops.into_iter().enumerate() {
                if i == reopen_at {
                    writer.close().await;
                    writer = open(&bucket, 3).await;
                }
                if i == checkpoint_at {
                    super::write(&bucket, &writer.state()).await.expect("written");
                }
                // A refused one leaves no trace.
                let _ = writer.commit(vec![op]).await;
            }
            let (replayed, loaded) = (replay(bucket.reader()).await, load(&bucket).await);
            assert_eq!(contents(&replayed), contents(&writer.state()));
            assert_eq!(contents(&loaded), contents(&writer.state()));
        });
    }
}
