use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;

const SIZE: u64 = 10 * BLOCK_BYTES + 1_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at * 31 + at / 251) as u8).collect()
}

async fn bucket(path: &Path) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    store.put(path, content().into()).await.expect("written");
    Arc::new(store)
}

fn object<'a>(store: &'a Arc<dyn ObjectStore>, location: &'a Path) -> Object<'a> {
    Object {
        store,
        location,
        extent: ExtentId::default(),
        size_bytes: Some(SIZE),
    }
}

async fn cache(disk_bytes: u64) -> (ColdCache, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = ColdCache::open(directory.path(), disk_bytes, 1 << 20).await;
    (cache.expect("usable"), directory)
}

fn check(pieces: &[Bytes], ranges: &[Range<u64>]) {
    let content = content();
    for (piece, range) in pieces.iter().zip(ranges) {
        assert_eq!(
            piece,
            &content[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_here_and_is_not_asked_for_again() {
    for disk_bytes in [0, 8 << 20] {
        let path = Path::from("extent");
        let store = bucket(&path).await;
        let (cache, _directory) = cache(disk_bytes).await;
        let ranges = [10..20, BLOCK_BYTES - 5..BLOCK_BYTES + 5, SIZE - 10..SIZE];
        let (pieces, first) = cache
            .read(&object(&store, &path), &ranges)
            .await
            .expect("read");
        check(&pieces, &ranges);
        assert_eq!((first.requests, first.cached_bytes), (2, 0));
        assert_eq!(first.bucket_bytes, 2 * BLOCK_BYTES + 1_000);
        let (pieces, second) = cache
            .read(&object(&store, &path), &ranges)
            .await
            .expect("read");
        check(&pieces, &ranges);
        assert_eq!(
            (second.requests, second.bucket_bytes, second.cached_bytes),
            (0, 0, 30)
        );
        cache.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_survive_a_restart() {
    let path = Path::from("extent");
    let store = bucket(&path).await;
    let directory = tempfile::tempdir().expect("temporary directory");
    for requests in [1, 0] {
        let cache = ColdCache::open(directory.path(), 8 << 20, 1 << 20)
            .await
            .expect("usable");
        let whole = [0..SIZE];
        let (pieces, origin) = cache
            .read(&object(&store, &path), &whole)
            .await
            .expect("read");
        check(&pieces, &whole);
        assert_eq!(origin.requests, requests);
        cache.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_of_one_block_make_one_request() {
    let path = Path::from("extent");
    let store = bucket(&path).await;
    let (cache, _directory) = cache(0).await;
    let requests = AtomicU64::new(0);
    let object = object(&store, &path);
    let reads = (0..20).map(|_| async {
        let (pieces, origin) = cache.read(&object, &[0..SIZE]).await.expect("read");
        check(&pieces, &[0..SIZE]);
        requests.fetch_add(origin.requests, Ordering::Relaxed);
    });
    futures::future::join_all(reads).await;
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    assert!(cache.in_flight.lock().is_empty());
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_kept_for_none() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("extent");
    let (cache, _directory) = cache(0).await;
    let missing = object(&store, &path);
    let (a, b) = futures::join!(cache.read(&missing, &[0..1]), cache.read(&missing, &[0..1]));
    assert!(matches!(a, Err(Error::NotFound { .. })), "{a:?}");
    assert!(matches!(b, Err(Error::NotFound { .. })), "{b:?}");
    store.put(&path, content().into()).await.expect("written");
    cache
        .read(&missing, &[0..1])
        .await
        .expect("it is there now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_ranges_are_read_as_they_are_with_and_without_cache(
        ranges in proptest::collection::vec((0..SIZE, 0..SIZE), 0..12),
        again in proptest::collection::vec((0..SIZE, 0..SIZE), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let path = Path::from("extent");
            let store = bucket(&path).await;
            let object = object(&store, &path);
            let (cache, _directory) = cache(0).await;
            for ranges in [ranges, again] {
                let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| a.min(b)..a.max(b)).collect();
                let (pieces, _) = cache.read(&object, &ranges).await.expect("read");
                check(&pieces, &ranges);
                let (pieces, _) = read_uncached(&object, &ranges).await.expect("read");
                check(&pieces, &ranges);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_asked_for_again() {
    for disk_bytes in [0, 8 << 20] {
        let path = Path::from("extent");
        let store = bucket(&path).await;
        let (cache, _directory) = cache(disk_bytes).await;
        let object = object(&store, &path);
        let whole = [0..SIZE];
        cache.read(&object, &whole).await.expect("read");
        let (_, again) = cache.read(&object, &whole).await.expect("read");
        assert_eq!(again.requests, 0);
        cache.forget(object.extent, SIZE);
        let (pieces, fetched) = cache.read(&object, &whole).await.expect("read");
        check(&pieces, &whole);
        assert_eq!((fetched.requests, fetched.cached_bytes), (1, 0));
    }
}
