//! Writing a checkpoint: segments first, then the root that names them, then the hint.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use slipstream_model::DatabaseId;
use slipstream_storage::{BucketPath, BucketWriter, CreateOutcome};

use super::SEGMENT_CONCURRENCY;
use super::format::{encode_newest, encode_root, encode_segment};
use crate::extents::Segment;
use crate::{CatalogError, CorruptLog, DatabaseState, LogDefect};

/// Writes what of a state is not in the bucket yet.
///
/// Repeating it is harmless: every object but the hint is created under a name of its own, and an
/// old hint only means more commits to read.
pub(crate) async fn write(
    bucket: &BucketWriter,
    state: &DatabaseState,
) -> Result<(), CatalogError> {
    let database = state.id();
    let new_segments: Vec<Arc<Segment>> = state
        .tables()
        .flat_map(|table| table.extents.sealed().iter())
        .map(|block| block.segment())
        .filter(|segment| segment.stored().is_none())
        .map(Arc::clone)
        .collect();
    stream::iter(new_segments)
        .map(|segment| store_segment(bucket, database, segment))
        .buffer_unordered(SEGMENT_CONCURRENCY)
        .try_collect::<()>()
        .await?;

    let root = BucketPath::checkpoint_root(database, state.version());
    // A root that is there is an equally good one: the state at a version is the same for all.
    let _: CreateOutcome = bucket.create(&root, encode_root(state)).await?;
    let newest = BucketPath::checkpoint_newest(database);
    Ok(bucket.put(&newest, encode_newest(state.version())).await?)
}

async fn store_segment(
    bucket: &BucketWriter,
    database: DatabaseId,
    segment: Arc<Segment>,
) -> Result<(), CatalogError> {
    // Encoding takes milliseconds, and commits should not wait for it.
    let (object, digest) = {
        let segment = Arc::clone(&segment);
        super::off_the_runtime(move || encode_segment(&segment)).await
    };
    let path = BucketPath::checkpoint_segment(database, digest);
    match bucket.create(&path, object).await? {
        CreateOutcome::Created => {
            segment.set_stored(digest);
            Ok(())
        }
        CreateOutcome::Exists(found) => {
            let found = slipstream_model::Digest::of(&found);
            let defect = LogDefect::WrongContent {
                expected: digest,
                found,
            };
            Err(CorruptLog::new(path, defect).into())
        }
    }
}
