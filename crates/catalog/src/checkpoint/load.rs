//! Reading a checkpoint: the hint, the root it names, the segments that the root names.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use slipstream_model::{DatabaseId, EntityKind, TableSchema, Version};
use slipstream_storage::{BucketPath, BucketReader, StorageErrorKind};

use super::SEGMENT_CONCURRENCY;
use super::format::{
    Root, RootTable, SegmentReference, check_root, decode_newest, decode_root, decode_segment,
};
use crate::extents::{Removed, Segment};
use crate::{CatalogError, CorruptLog, DatabaseState, ExtentSet, LogDefect, TableState};

/// Reads the newest checkpoint. `None` when there is none, or when part of it is lost or
/// damaged: the log alone gives the same state, only later.
///
/// What `empty` leaves out is left out, and its segments are not read.
pub(crate) async fn load_newest(
    bucket: &BucketReader,
    empty: &DatabaseState,
) -> Result<Option<DatabaseState>, CatalogError> {
    let database = empty.id();
    let loaded = match newest_version(bucket, database).await {
        Ok(None) => return Ok(None),
        Ok(Some(version)) => load(bucket, empty, version).await,
        Err(error) => Err(error),
    };
    match loaded {
        Ok(state) => Ok(Some(state)),
        Err(error) if is_lost(&error) => {
            tracing::warn!(
                database = %database, error = %error,
                "the newest checkpoint cannot be used; reading the log from its start"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the bucket answered, and what it answered is no checkpoint.
pub(crate) fn is_lost(error: &CatalogError) -> bool {
    match error {
        CatalogError::Corrupt(_) => true,
        CatalogError::Storage(error) => {
            matches!(
                error.kind(),
                StorageErrorKind::NotFound | StorageErrorKind::Corrupt
            )
        }
        CatalogError::Contended { .. } => false,
    }
}

async fn newest_version(
    bucket: &BucketReader,
    database: DatabaseId,
) -> Result<Option<Version>, CatalogError> {
    let path = BucketPath::checkpoint_newest(database);
    let Some(object) = bucket.try_get(&path).await? else {
        return Ok(None);
    };
    let version = decode_newest(&object).map_err(|defect| CorruptLog::new(path, defect))?;
    Ok(Some(version))
}

/// Reads the checkpoint of a version, without what `empty` leaves out.
pub(crate) async fn load(
    bucket: &BucketReader,
    empty: &DatabaseState,
    version: Version,
) -> Result<DatabaseState, CatalogError> {
    let database = empty.id();
    let path = BucketPath::checkpoint_root(database, version);
    let object = bucket.get(&path).await?;
    let corrupt = |defect| CorruptLog::new(&path, defect);
    let root = decode_root(&object).map_err(corrupt)?;
    check_root(&root, bucket.id(), database, version).map_err(corrupt)?;

    let Root {
        chain,
        tables,
        functions,
        external_tables,
        caching,
        retention,
        merge,
        ingestion_batching,
        streaming_ingestion,
        principals,
        pins,
    } = root;
    let mut state = empty.moved_to(chain);
    let held = tables
        .into_iter()
        .filter(|table| empty.holds(EntityKind::Table, table.name.as_str()));
    for table in held {
        let RootTable {
            id,
            name,
            schema,
            segments,
            tail,
            policies,
            ingests,
        } = table;
        let segments = load_segments(bucket, database, &schema, segments).await?;
        let extents = ExtentSet::from_parts(schema.clone(), segments, tail)
            .map_err(|reason| corrupt(LogDefect::Undecodable(reason)))?;
        state.put(TableState {
            id,
            name,
            schema,
            extents,
            policies: Arc::new(policies),
            ingests,
        });
    }
    for function in functions {
        if empty.holds(EntityKind::Function, function.entity.name.as_str()) {
            state.put_function(function);
        }
    }
    for table in external_tables {
        if empty.holds(EntityKind::ExternalTable, table.entity.name.as_str()) {
            state.put_external_table(table);
        }
    }
    state.set_retention_policy(retention);
    state.set_merge_policy(merge);
    state.set_ingestion_batching_policy(ingestion_batching);
    state.set_streaming_ingestion_policy(streaming_ingestion);
    state.set_principals(principals);
    state.set_pins(pins);
    state.set_caching_policy(caching);
    Ok(state)
}

async fn load_segments(
    bucket: &BucketReader,
    database: DatabaseId,
    schema: &TableSchema,
    references: Vec<SegmentReference>,
) -> Result<Vec<(Arc<Segment>, Removed)>, CatalogError> {
    stream::iter(references)
        .map(|reference| load_segment(bucket, database, schema.clone(), reference))
        .buffered(SEGMENT_CONCURRENCY)
        .try_collect()
        .await
}

async fn load_segment(
    bucket: &BucketReader,
    database: DatabaseId,
    schema: TableSchema,
    reference: SegmentReference,
) -> Result<(Arc<Segment>, Removed), CatalogError> {
    let path = BucketPath::checkpoint_segment(database, reference.sha256);
    let object = bucket.get(&path).await?;
    // Decoding takes milliseconds each, and many segments at once should use all processors.
    let decoded = super::off_the_runtime(move || {
        decode_segment(&object, &schema, &reference).map(|segment| (segment, reference.removed))
    });
    decoded
        .await
        .map_err(|defect| CorruptLog::new(path, defect).into())
}
