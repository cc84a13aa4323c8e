use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use slipstream_model::{DatabaseId, Digest, Timestamp};

use super::*;
use crate::HotExtent;

async fn store(is_cached: bool) -> (CachedStore, Path, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let tier = HotTier::open(directory.path().to_owned(), "test").expect("usable");
    let tier = Arc::new(tier);
    let extent = ExtentId::default();
    let path = Path::from(format!("databases/d/extents/{extent}.parquet"));
    let bucket = Arc::new(InMemory::new());
    // The bucket has other bytes, so that it shows which of the two was read.
    let bytes = PutPayload::from_static(b"from bucket");
    bucket.put(&path, bytes).await.expect("written");
    if is_cached {
        let bytes = Bytes::from_static(b"from a disk");
        let wanted = HotExtent {
            database: DatabaseId::default(),
            extent,
            size_bytes: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            max_created_on: Timestamp::default(),
        };
        tier.insert(&wanted, Form::Parquet, &bytes).expect("kept");
    }
    let reads = Arc::<BucketReads>::default();
    (CachedStore::new(bucket, tier, None, reads), path, directory)
}

#[tokio::test]
async fn an_extent_is_read_from_the_disk_when_it_is_there() {
    for (is_cached, whole, tail) in [
        (true, "from a disk", "disk"),
        (false, "from bucket", "cket"),
    ] {
        let (store, path, _directory) = store(is_cached).await;
        let read = store.get_range(&path, 0..11).await.expect("readable");
        assert_eq!(read, whole);
        let ranges = [7..11, 0..4];
        let (pieces, origin) = store
            .read(&path, &ranges, Some(11))
            .await
            .expect("readable");
        assert_eq!(pieces, [tail, "from"]);
        let expected = if is_cached { (8, 0) } else { (0, 1) };
        assert_eq!((origin.cached_bytes, origin.requests), expected);
    }
}

#[tokio::test]
async fn a_lost_or_changed_file_costs_a_request_and_nothing_else() {
    for is_lost in [true, false] {
        let (store, path, directory) = store(true).await;
        let file = directory
            .path()
            .join(format!("{}.parquet", ExtentId::default()));
        if is_lost {
            std::fs::remove_file(&file).expect("removed");
        } else {
            let mut bytes = std::fs::read(&file).expect("readable");
            bytes[7] ^= 1;
            std::fs::write(&file, bytes).expect("written");
        }
        let read = store.get_range(&path, 5..11).await.expect("readable");
        assert_eq!(read, "bucket");
        assert_eq!(store.tier.holds(ExtentId::default()), None);
    }
}

#[tokio::test]
async fn ranges_beyond_the_end_fail_as_the_bucket_fails() {
    let (store, path, _directory) = store(true).await;
    assert!(store.get_range(&path, 100..101).await.is_err());
    assert!(
        store
            .get_ranges(&path, &[0..1, 0..100])
            .await
            .is_ok_and(|p| p[1].len() < 100)
            || store.get_ranges(&path, &[0..1, 100..200]).await.is_err()
    );
}
