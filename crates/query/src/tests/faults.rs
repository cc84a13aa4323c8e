//! Extents that are not what the catalog says.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slipstream_model::{Clock, Entropy, Extent};
use slipstream_storage::BucketPath;

use super::fixture::{DATABASE, World};
use crate::{QueryErrorKind, QueryOptions, QueryRuntime, StoredExtents};

/// A world whose extents are read from a store of its own, where they can be damaged.
async fn damaged(damage: impl FnOnce(Bytes) -> Option<Bytes>) -> (World, Extent) {
    let mut world = World::with_flights(&[0..1_000]).await;
    let extent = world
        .insert("flights", super::fixture::flights(1_000..2_000))
        .await;
    let store = Arc::new(InMemory::new());
    for copied in world.state.table("flights").expect("there").extents.iter() {
        let bytes = world
            .bucket
            .get(&BucketPath::extent(world.state.id(), copied.id))
            .await
            .expect("uploaded");
        store
            .put(&Path::from(copied.id.to_string()), bytes.into())
            .await
            .expect("written");
    }
    let path = Path::from(extent.id.to_string());
    let bytes = store
        .get(&path)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    match damage(bytes) {
        Some(bytes) => {
            store.put(&path, bytes.into()).await.expect("written");
        }
        None => store.delete(&path).await.expect("deleted"),
    }
    let access = StoredExtents {
        store: store as Arc<dyn ObjectStore>,
        paths: Arc::new(|_, extent| Path::from(extent.to_string())),
        pace: None,
    };
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    world.runtime = QueryRuntime::new(
        QueryOptions::default(),
        Arc::new(access),
        clock,
        Entropy::from_seed(9),
    )
    .expect("set up");
    (world, extent)
}

async fn assert_named(world: &World, extent: &Extent, sql: &str) {
    let error = world.error(sql).await;
    assert_eq!(error.kind(), QueryErrorKind::DataCorrupt, "{error}");
    assert!(
        error.to_string().contains(&extent.id.to_string()),
        "{error}"
    );
    assert!(error.to_string().contains("flights_db.flights"), "{error}");
    // The node lives, and so do the other extents.
    let rows = world
        .rows("SELECT count(*) FROM flights WHERE month < 500")
        .await;
    assert_eq!(rows, ["500"]);
}

const READ: &str = "SELECT sum(month), max(carrier) FROM flights";

#[tokio::test]
async fn a_missing_extent_is_named() {
    let (world, extent) = damaged(|_| None).await;
    assert_named(&world, &extent, READ).await;
}

#[tokio::test]
async fn a_missing_extent_that_another_node_may_have_deleted_names_the_version() {
    let (mut world, extent) = damaged(|_| None).await;
    world.followed.insert(DATABASE.to_owned());
    let error = world.error(READ).await;
    assert_eq!(error.kind(), QueryErrorKind::VersionNotKept, "{error}");
    let message = error.to_string();
    let version = world.state.version();
    let names_it = message.contains(&format!("version {version} is no longer kept"));
    assert!(names_it, "{message}");
    assert!(message.contains(&extent.id.to_string()), "{message}");
}

#[tokio::test]
async fn a_truncated_extent_is_named() {
    for kept in [0, 1, 100, 1_000] {
        let (world, extent) = damaged(|bytes| Some(bytes.slice(..kept))).await;
        assert_named(&world, &extent, READ).await;
    }
}

#[tokio::test]
async fn an_extent_with_a_damaged_footer_is_named() {
    let (world, extent) = damaged(|bytes| {
        let mut bytes = bytes.to_vec();
        let end = bytes.len() - 200;
        bytes[end..].fill(0x5a);
        Some(bytes.into())
    })
    .await;
    assert_named(&world, &extent, READ).await;
}

#[tokio::test]
async fn an_extent_with_damaged_pages_is_named() {
    let (world, extent) = damaged(|bytes| {
        let mut bytes = bytes.to_vec();
        bytes[4..200].fill(0xff);
        Some(bytes.into())
    })
    .await;
    assert_named(&world, &extent, READ).await;
}

#[tokio::test]
async fn an_extent_that_grew_short_while_the_footer_is_cached_is_named() {
    let (world, extent) = damaged(Some).await;
    assert_eq!(
        world
            .rows("SELECT count(*) FROM flights WHERE month >= 0")
            .await,
        ["2000"]
    );
    let store = Arc::clone(world.runtime.scans.access.store());
    let path = Path::from(extent.id.to_string());
    store
        .put(&path, Bytes::from_static(b"PAR1").into())
        .await
        .expect("written");
    assert_named(&world, &extent, READ).await;
}

#[tokio::test]
async fn the_stream_ends_with_the_error() {
    let (world, _) = damaged(|_| None).await;
    let mut stream = world.stream("SELECT * FROM flights").await.expect("plans");
    let mut errors = 0;
    while let Some(batch) = stream.next().await {
        errors += usize::from(batch.is_err());
    }
    assert_eq!(errors, 1);
    let states = "SELECT state FROM slipstream.queries WHERE error LIKE '%is damaged%'";
    assert_eq!(world.rows(states).await, ["failed"]);
}
