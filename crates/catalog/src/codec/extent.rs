//! Extents as records and segments hold them.

use bytes::Bytes;
use slipstream_model::{Digest, Extent, ExtentId, Timestamp};
use slipstream_proto::log as proto;

use super::{Malformed, fixed, statistic, to_bytes};

pub(crate) fn extent_to_proto(extent: &Extent) -> proto::Extent {
    proto::Extent {
        id: to_bytes(extent.id.as_bytes()),
        row_count: extent.row_count,
        size_bytes: extent.size_bytes,
        original_bytes: extent.original_bytes,
        sha256: to_bytes(extent.sha256.as_bytes()),
        footer_bytes: extent.footer_bytes,
        min_created_on: extent.min_created_on.as_micros(),
        max_created_on: extent.max_created_on.as_micros(),
        tags: extent.tags.iter().cloned().collect(),
        columns: extent
            .columns
            .iter()
            .map(statistic::column_to_proto)
            .collect(),
        inline: extent.inline.clone().unwrap_or_default(),
    }
}

pub(crate) fn extent_from_proto(extent: proto::Extent) -> Result<Extent, Malformed> {
    let columns: Vec<_> = extent
        .columns
        .into_iter()
        .map(statistic::column_from_proto)
        .collect::<Result<_, _>>()?;
    if !columns.is_sorted_by(|a, b| a.id < b.id) {
        return Err(Malformed::new("the columns of an extent are not in order"));
    }
    Ok(Extent {
        id: fixed("an extent id", &extent.id, ExtentId::from_slice)?,
        row_count: extent.row_count,
        size_bytes: extent.size_bytes,
        original_bytes: extent.original_bytes,
        sha256: fixed("an extent's digest", &extent.sha256, Digest::from_slice)?,
        footer_bytes: extent.footer_bytes,
        min_created_on: Timestamp::from_micros(extent.min_created_on),
        max_created_on: Timestamp::from_micros(extent.max_created_on),
        tags: extent.tags.into_iter().collect(),
        // A copy: what stays in a state must not hold on to all that it was read with.
        inline: (!extent.inline.is_empty()).then(|| Bytes::copy_from_slice(&extent.inline)),
        columns: columns.into(),
    })
}
