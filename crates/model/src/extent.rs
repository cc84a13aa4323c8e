//! What the catalog knows of one Parquet file.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::{ColumnId, Digest, ExtentId, StatisticValue, Timestamp};

/// One immutable horizontal part of a table: a Parquet file and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// The id, which is also its file name.
    pub id: ExtentId,
    /// Rows in the file.
    pub row_count: u64,
    /// Bytes of the Parquet file.
    pub size_bytes: u64,
    /// Bytes of the rows before encoding, as Arrow holds them.
    pub original_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Bytes at the end of the file that hold the footer, page index included, so that one
    /// ranged read opens it.
    pub footer_bytes: u32,
    /// The oldest creation time among its sources; equal to `max_created_on` at birth.
    pub min_created_on: Timestamp,
    /// The newest creation time among its sources: what the caching policy looks at.
    pub max_created_on: Timestamp,
    /// Tags given at ingestion.
    pub tags: BTreeSet<String>,
    /// The file's bytes, while they stand in the log rather than as an object in the bucket: rows
    /// that were streamed in and not moved yet.
    pub inline: Option<Bytes>,
    /// One entry for each column that the file holds, by ascending column id. A column of the
    /// table without an entry was added later and reads as null.
    pub columns: Arc<[ColumnStatistics]>,
}

impl Extent {
    /// The statistics of a column; `None` when the file does not hold the column.
    pub fn column(&self, id: ColumnId) -> Option<&ColumnStatistics> {
        self.columns
            .binary_search_by_key(&id, |column| column.id)
            .ok()
            .map(|i| &self.columns[i])
    }
}

/// How the rows of an extent stand in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// Nothing is known.
    #[default]
    Unknown,
    /// No nulls, and each value at least as large as the one before it.
    Ascending,
}

/// Exact statistics of one column in one extent.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnStatistics {
    /// The column.
    pub id: ColumnId,
    /// How many of the extent's values are null.
    pub null_count: u64,
    /// A value at most as large as each value; `None` when all are null, or when the type has
    /// no order that is kept (lists, structs).
    pub min: Option<StatisticValue>,
    /// A value at least as large as each value; `None` as above.
    pub max: Option<StatisticValue>,
    /// Whether `min` and `max` are values of the column, rather than bounds cut short.
    pub bounds_exact: bool,
    /// How the rows stand in this column.
    pub sort_order: SortOrder,
}
