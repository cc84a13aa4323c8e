//! The objects of a checkpoint, between bytes and what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use slipstream_model::{
    BucketId, CachingPolicy, DatabaseId, DatabasePrincipal, Digest, EntityId, Epoch, Extent,
    ExternalTable, IngestionBatchingPolicy, MergePolicy, PinName, RetentionPolicy, StoredFunction,
    StreamingIngestionPolicy, TableId, TableName, TablePolicies, TableSchema, Timestamp, Version,
};
use slipstream_proto::log as proto;
use slipstream_storage::frame;
use uuid::Uuid;

use crate::codec::{
    Malformed, batching_from_proto, batching_to_proto, caching_from_proto, caching_to_proto,
    counted, extent_from_proto, extent_to_proto, external_from_proto, external_to_proto, fixed,
    function_from_proto, function_to_proto, ingest_from_proto, ingest_to_proto, merge_from_proto,
    merge_to_proto, name, pin_from_proto, pin_to_proto, principal_from_proto, principal_to_proto,
    required, retention_from_proto, retention_to_proto, schema_from_proto, schema_to_proto,
    security_from_proto, security_to_proto, streaming_from_proto, streaming_to_proto, to_bytes,
};
use crate::extents::{Removed, SEGMENT_EXTENTS, Segment, check_shape};
use crate::log::{Chain, LogState};
use crate::{DatabaseState, LogDefect, RecentIngests, Stored, TableState};

const ROOT_MAGIC: &[u8; 8] = b"SLPCKR01";
const SEGMENT_MAGIC: &[u8; 8] = b"SLPCKS01";
const NEWEST_MAGIC: &[u8; 8] = b"SLPCKN01";

/// A root, with the segments still to be read.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) chain: Chain,
    pub(crate) tables: Vec<RootTable>,
    pub(crate) functions: Vec<Stored<StoredFunction>>,
    pub(crate) external_tables: Vec<Stored<ExternalTable>>,
    pub(crate) caching: Option<CachingPolicy>,
    pub(crate) retention: Option<RetentionPolicy>,
    pub(crate) merge: Option<MergePolicy>,
    pub(crate) ingestion_batching: Option<IngestionBatchingPolicy>,
    pub(crate) streaming_ingestion: Option<StreamingIngestionPolicy>,
    pub(crate) principals: Vec<DatabasePrincipal>,
    pub(crate) pins: BTreeMap<PinName, Version>,
}

#[derive(Debug)]
pub(crate) struct RootTable {
    pub(crate) id: TableId,
    pub(crate) name: TableName,
    pub(crate) schema: TableSchema,
    pub(crate) segments: Vec<SegmentReference>,
    pub(crate) tail: Vec<Extent>,
    pub(crate) policies: TablePolicies,
    pub(crate) ingests: RecentIngests,
}

#[derive(Debug)]
pub(crate) struct SegmentReference {
    pub(crate) sha256: Digest,
    pub(crate) extent_count: u64,
    pub(crate) removed: Removed,
}

/// The root of a state; all its segments must be stored.
pub(crate) fn encode_root(state: &DatabaseState) -> Bytes {
    let chain = state.chain();
    let subjects = chain
        .subjects
        .iter()
        .map(|(subject, digest)| proto::SubjectDigest {
            subject: to_bytes(subject.as_bytes()),
            digest: to_bytes(digest.as_bytes()),
        });
    let root = proto::CheckpointRoot {
        bucket_id: to_bytes(chain.bucket_id.as_bytes()),
        log_id: to_bytes(chain.log_id.as_bytes()),
        version: chain.version.get(),
        epoch: chain.epoch.get(),
        digest: to_bytes(chain.digest.as_bytes()),
        committed_at: chain.committed_at.as_micros(),
        subjects: subjects.collect(),
        tables: state.tables().map(|table| table_to_proto(table)).collect(),
        functions: state.functions().map(function_state_to_proto).collect(),
        caching_policy: state.caching_policy().map(caching_to_proto),
        principals: state.principals().iter().map(principal_to_proto).collect(),
        retention_policy: state.retention_policy().as_ref().map(retention_to_proto),
        merge_policy: state.merge_policy().as_ref().map(merge_to_proto),
        ingestion_batching_policy: state
            .ingestion_batching_policy()
            .as_ref()
            .map(batching_to_proto),
        streaming_ingestion_policy: state
            .streaming_ingestion_policy()
            .as_ref()
            .map(streaming_to_proto),
        external_tables: state
            .external_tables()
            .map(external_state_to_proto)
            .collect(),
        pins: state
            .pins()
            .iter()
            .map(|(name, version)| pin_to_proto(name, *version))
            .collect(),
    };
    frame::seal(ROOT_MAGIC, &root.encode_to_vec())
}

fn external_state_to_proto(state: &Stored<ExternalTable>) -> proto::ExternalTableState {
    proto::ExternalTableState {
        external_table_id: to_bytes(state.id.as_bytes()),
        external_table: Some(external_to_proto(&state.entity)),
    }
}

fn external_state_from_proto(
    state: proto::ExternalTableState,
) -> Result<Stored<ExternalTable>, Malformed> {
    let id = &state.external_table_id;
    let table = required("an external table", state.external_table)?;
    Ok(Stored {
        id: fixed("an external table's id", id, EntityId::from_slice)?,
        entity: Arc::new(external_from_proto(table)?),
    })
}

fn function_state_to_proto(state: &Stored<StoredFunction>) -> proto::FunctionState {
    proto::FunctionState {
        function_id: to_bytes(state.id.as_bytes()),
        function: Some(function_to_proto(&state.entity)),
    }
}

fn function_state_from_proto(
    state: proto::FunctionState,
) -> Result<Stored<StoredFunction>, Malformed> {
    let function = required("a function", state.function)?;
    Ok(Stored {
        id: fixed("a function's id", &state.function_id, EntityId::from_slice)?,
        entity: Arc::new(function_from_proto(function)?),
    })
}

fn table_to_proto(table: &TableState) -> proto::TableState {
    let segments = table
        .extents
        .sealed()
        .iter()
        .map(|block| proto::SegmentReference {
            sha256: to_bytes(block.segment().stored().unwrap_or_default().as_bytes()),
            extent_count: block.len() as u64,
            removed: block.removed().to_bytes().into(),
        });
    let ingests = table
        .ingests
        .iter()
        .map(|(version, ingest)| proto::NotedIngest {
            version: version.get(),
            ..ingest_to_proto(ingest)
        });
    proto::TableState {
        table_id: to_bytes(table.id.as_bytes()),
        name: table.name.to_string(),
        schema: Some(schema_to_proto(&table.schema)),
        segments: segments.collect(),
        tail: table
            .extents
            .tail()
            .iter()
            .map(|extent| extent_to_proto(extent))
            .collect(),
        caching_policy: table.policies.caching.as_ref().map(caching_to_proto),
        row_level_security: table
            .policies
            .row_level_security
            .as_ref()
            .map(security_to_proto),
        retention_policy: table.policies.retention.as_ref().map(retention_to_proto),
        merge_policy: table.policies.merge.as_ref().map(merge_to_proto),
        ingestion_batching_policy: table
            .policies
            .ingestion_batching
            .as_ref()
            .map(batching_to_proto),
        streaming_ingestion_policy: table
            .policies
            .streaming_ingestion
            .as_ref()
            .map(streaming_to_proto),
        ingests: ingests.collect(),
    }
}

pub(crate) fn decode_root(object: &Bytes) -> Result<Root, LogDefect> {
    let body = frame::open(ROOT_MAGIC, object)?;
    let root = proto::CheckpointRoot::decode(body).map_err(|error| undecodable(error.into()))?;
    root_from_proto(root).map_err(undecodable)
}

fn root_from_proto(root: proto::CheckpointRoot) -> Result<Root, Malformed> {
    let subjects = root.subjects.into_iter().map(|entry| {
        let subject = fixed("a subject's id", &entry.subject, |id| {
            Uuid::from_slice(id).ok()
        })?;
        Ok((
            subject,
            fixed("a subject's digest", &entry.digest, Digest::from_slice)?,
        ))
    });
    let chain = Chain {
        bucket_id: fixed("the bucket id", &root.bucket_id, BucketId::from_slice)?,
        log_id: fixed("the log id", &root.log_id, |id| Uuid::from_slice(id).ok())?,
        version: Version::new(counted("the version", root.version)?),
        epoch: Epoch::new(counted("the epoch", root.epoch)?),
        digest: fixed("the digest", &root.digest, Digest::from_slice)?,
        committed_at: Timestamp::from_micros(root.committed_at),
        subjects: subjects.collect::<Result<_, Malformed>>()?,
    };
    let tables = root
        .tables
        .into_iter()
        .map(table_from_proto)
        .collect::<Result<_, _>>()?;
    let functions = root.functions.into_iter().map(function_state_from_proto);
    Ok(Root {
        chain,
        tables,
        functions: functions.collect::<Result<_, _>>()?,
        external_tables: root
            .external_tables
            .into_iter()
            .map(external_state_from_proto)
            .collect::<Result<_, _>>()?,
        caching: root.caching_policy.map(caching_from_proto),
        retention: root.retention_policy.map(retention_from_proto),
        merge: root.merge_policy.map(merge_from_proto).transpose()?,
        ingestion_batching: root.ingestion_batching_policy.map(batching_from_proto),
        streaming_ingestion: root.streaming_ingestion_policy.map(streaming_from_proto),
        principals: root
            .principals
            .into_iter()
            .map(principal_from_proto)
            .collect::<Result<_, _>>()?,
        pins: root
            .pins
            .into_iter()
            .map(pin_from_proto)
            .collect::<Result<_, _>>()?,
    })
}

fn table_from_proto(table: proto::TableState) -> Result<RootTable, Malformed> {
    let segments = table.segments.into_iter().map(|reference| {
        Ok(SegmentReference {
            sha256: fixed("a segment's digest", &reference.sha256, Digest::from_slice)?,
            extent_count: reference.extent_count,
            removed: fixed(
                "a segment's bitmap",
                &reference.removed,
                Removed::from_bytes,
            )?,
        })
    });
    let mut ingests = RecentIngests::default();
    for ingest in table.ingests {
        ingests.note(Version::new(ingest.version), ingest_from_proto(ingest)?);
    }
    Ok(RootTable {
        id: fixed("a table's id", &table.table_id, TableId::from_slice)?,
        name: name(table.name)?,
        schema: schema_from_proto(table.schema)?,
        segments: segments.collect::<Result<_, Malformed>>()?,
        tail: table
            .tail
            .into_iter()
            .map(extent_from_proto)
            .collect::<Result<_, _>>()?,
        policies: TablePolicies {
            caching: table.caching_policy.map(caching_from_proto),
            row_level_security: table.row_level_security.map(security_from_proto),
            retention: table.retention_policy.map(retention_from_proto),
            merge: table.merge_policy.map(merge_from_proto).transpose()?,
            ingestion_batching: table.ingestion_batching_policy.map(batching_from_proto),
            streaming_ingestion: table.streaming_ingestion_policy.map(streaming_from_proto),
        },
        ingests,
    })
}

/// A segment's object, and the digest that names it.
pub(crate) fn encode_segment(segment: &Segment) -> (Bytes, Digest) {
    let extents = (0..segment.len()).map(|slot| extent_to_proto(&segment.extent(slot)));
    let message = proto::Segment {
        extents: extents.collect(),
    };
    let object = frame::seal(SEGMENT_MAGIC, &message.encode_to_vec());
    let digest = Digest::of(&object);
    (object, digest)
}

/// Reads a segment of a table with these columns.
pub(crate) fn decode_segment(
    object: &Bytes,
    schema: &TableSchema,
    reference: &SegmentReference,
) -> Result<Arc<Segment>, LogDefect> {
    let found = Digest::of(object);
    if found != reference.sha256 {
        return Err(LogDefect::WrongContent {
            expected: reference.sha256,
            found,
        });
    }
    let body = frame::open(SEGMENT_MAGIC, object)?;
    let message = proto::Segment::decode(body).map_err(|error| undecodable(error.into()))?;
    let extents = message.extents.into_iter().map(extent_from_proto);
    let extents: Vec<_> = extents.collect::<Result<_, _>>().map_err(undecodable)?;
    if extents.len() as u64 != reference.extent_count {
        let (found, expected) = (extents.len(), reference.extent_count);
        let what = format!("it holds {found} extents where {expected} are expected");
        return Err(LogDefect::Undecodable(what));
    }
    check_slots(&extents, &reference.removed).map_err(LogDefect::Undecodable)?;
    let extents: Vec<&Extent> = extents.iter().collect();
    let segment = Segment::build(schema, &extents).map_err(LogDefect::Undecodable)?;
    segment.set_stored(found);
    Ok(Arc::new(segment))
}

/// Whether extents can be a segment's, with some slots removed.
fn check_slots(extents: &[Extent], removed: &Removed) -> Result<(), String> {
    let count = extents.len();
    if count > SEGMENT_EXTENTS {
        return Err(format!(
            "it holds {count} extents, more than the {SEGMENT_EXTENTS} of a segment"
        ));
    }
    if (count..SEGMENT_EXTENTS).any(|slot| removed.contains(slot)) {
        return Err(format!("more than its {count} extents are removed"));
    }
    extents.iter().try_for_each(check_shape)
}

pub(crate) fn encode_newest(version: Version) -> Bytes {
    let message = proto::NewestCheckpoint {
        version: version.get(),
    };
    frame::seal(NEWEST_MAGIC, &message.encode_to_vec())
}

pub(crate) fn decode_newest(object: &Bytes) -> Result<Version, LogDefect> {
    let body = frame::open(NEWEST_MAGIC, object)?;
    let message =
        proto::NewestCheckpoint::decode(body).map_err(|error| undecodable(error.into()))?;
    let version = counted("the version", message.version).map_err(undecodable)?;
    Ok(Version::new(version))
}

/// Whether a root is what its name and its reader take it for.
pub(crate) fn check_root(
    root: &Root,
    bucket: BucketId,
    database: DatabaseId,
    version: Version,
) -> Result<(), LogDefect> {
    let chain = &root.chain;
    if chain.bucket_id != bucket {
        return Err(LogDefect::WrongBucket {
            expected: bucket,
            found: chain.bucket_id,
        });
    }
    if chain.log_id != database.as_uuid() {
        return Err(LogDefect::WrongLog {
            expected: database.as_uuid(),
            found: chain.log_id,
        });
    }
    if chain.version != version {
        return Err(LogDefect::WrongVersion {
            expected: version,
            found: chain.version,
        });
    }
    Ok(())
}

fn undecodable(error: Malformed) -> LogDefect {
    LogDefect::Undecodable(error.to_string())
}
