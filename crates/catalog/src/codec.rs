//! Between the model's types and the messages that stand in the bucket.
//!
//! Encoding cannot fail; decoding says what is wrong. Encoding is deterministic: the same value
//! gives the same bytes, so that segments can be named by what they hold.

mod extent;
mod ingest;
mod policy;
mod schema;
mod statistic;

use bytes::Bytes;

pub(crate) use extent::{extent_from_proto, extent_to_proto};
pub(crate) use ingest::{ingest_from_proto, ingest_to_proto};
pub(crate) use policy::{
    batching_from_proto, batching_to_proto, caching_from_proto, caching_to_proto,
    external_from_proto, external_to_proto, function_from_proto, function_to_proto,
    merge_from_proto, merge_to_proto, pin_from_proto, pin_to_proto, principal_from_proto,
    principal_to_proto, retention_from_proto, retention_to_proto, security_from_proto,
    security_to_proto, streaming_from_proto, streaming_to_proto,
};
pub(crate) use schema::{column_from_proto, column_to_proto, schema_from_proto, schema_to_proto};

/// What a message holds is not what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

impl Malformed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Reads a field of fixed width: an id or a digest.
pub(crate) fn fixed<T>(
    field: &str,
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Malformed> {
    read(bytes).ok_or_else(|| Malformed(format!("{field} has {} bytes", bytes.len())))
}

/// Reads a name that was checked when it was chosen.
pub(crate) fn name<T>(text: String) -> Result<T, Malformed>
where
    T: TryFrom<String>,
    T::Error: std::fmt::Display,
{
    T::try_from(text).map_err(|error| Malformed(error.to_string()))
}

/// Versions and epochs count commits, one by one: nobody comes this far, and the one after the
/// largest still is a number.
const COUNT_MAX: u64 = 1 << 62;

/// Reads a version or an epoch.
pub(crate) fn counted(field: &str, number: u64) -> Result<u64, Malformed> {
    if number > COUNT_MAX {
        return Err(Malformed(format!("{field} is {number}")));
    }
    Ok(number)
}

/// A message field that proto3 cannot require.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed(format!("{field} is missing")))
}

pub(crate) fn to_bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests;
