//! Whether what is said of an extent makes sense.
//!
//! Checked before an extent becomes part of a state, by writer and reader alike, so that laying
//! extents out in columns later cannot fail.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use slipstream_model::{ColumnId, Extent, ExtentId, StatisticValue, TableSchema};

use super::segment::{bounds_array, column_type};

/// Checks extents against a table's columns.
///
/// # Errors
/// The extent that does not fit, and why.
pub(crate) fn check_extents(
    schema: &TableSchema,
    extents: &[Extent],
) -> Result<(), (ExtentId, String)> {
    for extent in extents {
        check_shape(extent).map_err(|reason| (extent.id, reason))?;
    }
    let held: BTreeSet<ColumnId> = extents
        .iter()
        .flat_map(|extent| extent.columns.iter().map(|column| column.id))
        .collect();
    for id in held {
        check_column(schema, id, extents)?;
    }
    Ok(())
}

/// Rows of an extent, and bytes of its file and of its rows, are fewer: no store keeps a file of
/// that size, and the sums over sixteen million extents fit 64 bits.
const EXTENT_NUMBER_MAX: u64 = 1 << 40;

/// Bytes of one extent that stands in the log. Kusto streams at most 4 MB of rows, which are fewer
/// bytes as Parquet, but for a footer of a wide table.
pub const INLINE_EXTENT_BYTES_MAX: usize = 8 << 20;

/// Checks what can be told from an extent alone.
///
/// # Errors
/// Why it cannot be part of a table.
pub(crate) fn check_shape(extent: &Extent) -> Result<(), String> {
    let numbers = [extent.row_count, extent.size_bytes, extent.original_bytes];
    if let Some(number) = numbers.iter().find(|number| **number > EXTENT_NUMBER_MAX) {
        return Err(format!(
            "{number} rows or bytes are more than an extent has"
        ));
    }
    if let Some(bytes) = &extent.inline {
        let (length, size_bytes) = (bytes.len(), extent.size_bytes);
        if length as u64 != size_bytes {
            return Err(format!(
                "it is {length} bytes long, and is said to be {size_bytes}"
            ));
        }
        if length > INLINE_EXTENT_BYTES_MAX {
            return Err(format!(
                "its {length} bytes are more than the {INLINE_EXTENT_BYTES_MAX} that stand in the log"
            ));
        }
    }
    if !extent.columns.is_sorted_by(|a, b| a.id < b.id) {
        return Err("its columns are not in order".to_owned());
    }
    if let Some(column) = extent
        .columns
        .iter()
        .find(|c| c.null_count > extent.row_count)
    {
        let (nulls, rows) = (column.null_count, extent.row_count);
        return Err(format!(
            "column {} has {nulls} nulls in {rows} rows",
            column.id.0
        ));
    }
    if extent.max_created_on < extent.min_created_on {
        return Err("its newest source is older than its oldest".to_owned());
    }
    Ok(())
}

/// All bounds of one column at once; one extent after another only to find the culprit.
fn check_column(
    schema: &TableSchema,
    id: ColumnId,
    extents: &[Extent],
) -> Result<(), (ExtentId, String)> {
    let holds = |extent: &&Extent| extent.column(id).is_some();
    let data_type = column_type(schema, id).map_err(|reason| {
        let culprit = extents
            .iter()
            .find(holds)
            .map_or_else(ExtentId::default, |e| e.id);
        (culprit, reason)
    })?;
    if check_bounds(data_type, id, extents).is_ok() {
        return Ok(());
    }
    for extent in extents {
        check_bounds(data_type, id, std::slice::from_ref(extent)).map_err(|r| (extent.id, r))?;
    }
    Ok(())
}

fn check_bounds(data_type: &DataType, id: ColumnId, extents: &[Extent]) -> Result<(), String> {
    let mins: Vec<Option<&StatisticValue>> = extents
        .iter()
        .map(|extent| extent.column(id)?.min.as_ref())
        .collect();
    let maxs: Vec<Option<&StatisticValue>> = extents
        .iter()
        .map(|extent| extent.column(id)?.max.as_ref())
        .collect();
    bounds_array(data_type, mins.iter().copied())?;
    bounds_array(data_type, maxs.iter().copied())?;
    let crossed = mins.iter().zip(&maxs).any(|pair| match pair {
        (Some(min), Some(max)) => min > max,
        _ => false,
    });
    if crossed {
        return Err(format!(
            "the minimum of column {} is larger than its maximum",
            id.0
        ));
    }
    Ok(())
}
