//! Ingests that came with an id.

use slipstream_proto::log as proto;

use super::{Malformed, name};
use crate::NotedIngest;

/// As it stands in a record, which needs no version: it has its commit's.
pub(crate) fn ingest_to_proto(ingest: &NotedIngest) -> proto::NotedIngest {
    proto::NotedIngest {
        id: ingest.id.to_string(),
        rows: ingest.rows,
        extents: ingest.extents,
        size_bytes: ingest.size_bytes,
        version: 0,
    }
}

pub(crate) fn ingest_from_proto(ingest: proto::NotedIngest) -> Result<NotedIngest, Malformed> {
    Ok(NotedIngest {
        id: name(ingest.id)?,
        rows: ingest.rows,
        extents: ingest.extents,
        size_bytes: ingest.size_bytes,
    })
}
