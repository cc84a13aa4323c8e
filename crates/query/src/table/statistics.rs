//! What the catalog knows, in the words of the optimizer.
//!
//! The optimizer trusts exact values: `count(*)`, `min` and `max` are answered from them, and a
//! column with one value is never read. So a value is exact here only when it is.

use arrow::datatypes::DataType;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::scalar::ScalarValue;
use slipstream_catalog::{ExtentBlock, TableState};
use slipstream_model::{Column, StatisticValue, TableSchema};

use super::prune::live_rows;

/// Statistics of the live extents of some blocks, for all columns of the table; those that are
/// not `wanted` are left unknown, because each costs a walk over the blocks.
pub(crate) fn of_blocks<'a>(
    schema: &TableSchema,
    blocks: impl Iterator<Item = &'a ExtentBlock>,
    wanted: &[bool],
) -> Statistics {
    let blocks: Vec<(&ExtentBlock, u64)> = blocks.map(|block| (block, live_rows(block))).collect();
    let rows: u64 = blocks.iter().map(|(_, rows)| rows).sum();
    let columns = schema.columns().iter().zip(wanted);
    Statistics {
        num_rows: exact(rows),
        total_byte_size: Precision::Absent,
        column_statistics: columns
            .map(|(column, wanted)| {
                if *wanted {
                    of_column(column, &blocks)
                } else {
                    ColumnStatistics::new_unknown()
                }
            })
            .collect(),
    }
}

/// Exact statistics of a whole table.
pub(crate) fn of_table(table: &TableState, wanted: &[bool]) -> Statistics {
    let blocks = table.extents.blocks();
    let mut statistics = of_blocks(&table.schema, blocks.iter(), wanted);
    // What rows take in memory: joins choose their build side by it.
    statistics.total_byte_size = exact(table.extents.original_bytes()).to_inexact();
    statistics
}

fn of_column(column: &Column, blocks: &[(&ExtentBlock, u64)]) -> ColumnStatistics {
    let mut nulls = 0;
    let (mut min, mut max): (Option<StatisticValue>, Option<StatisticValue>) = (None, None);
    let (mut is_known, mut is_exact) = (true, true);
    for (block, rows) in blocks {
        let Some(summary) = block.summary(column.id) else {
            nulls += rows;
            continue;
        };
        nulls += rows - summary.row_count + summary.null_count;
        if summary.null_count == summary.row_count {
            continue;
        }
        is_exact &= summary.bounds_exact;
        match (summary.min, summary.max) {
            (Some(low), Some(high)) => {
                min = Some(min.map_or(low.clone(), |min| if low < min { low } else { min }));
                max = Some(max.map_or(high.clone(), |max| if high > max { high } else { max }));
            }
            _ => is_known = false,
        }
    }
    let bound = |value: Option<StatisticValue>| {
        let value = value.filter(|_| is_known);
        precision(
            value.and_then(|value| scalar(column.field.data_type(), &value)),
            is_exact,
        )
    };
    ColumnStatistics {
        null_count: exact(nulls),
        min_value: bound(min),
        max_value: bound(max),
        ..ColumnStatistics::new_unknown()
    }
}

/// Exact statistics of one extent.
pub(crate) fn of_extent(
    schema: &TableSchema,
    block: &ExtentBlock,
    slot: usize,
    wanted: &[bool],
) -> Statistics {
    let rows = block.row_counts().value(slot);
    let columns = schema.columns().iter().zip(wanted);
    Statistics {
        num_rows: exact(rows),
        total_byte_size: Precision::Absent,
        column_statistics: columns
            .map(|(column, wanted)| {
                if *wanted {
                    of_column_in_extent(column, block, slot, rows)
                } else {
                    ColumnStatistics::new_unknown()
                }
            })
            .collect(),
    }
}

fn of_column_in_extent(
    column: &Column,
    block: &ExtentBlock,
    slot: usize,
    rows: u64,
) -> ColumnStatistics {
    let Some(found) = block
        .column(column.id)
        .filter(|found| found.present.value(slot))
    else {
        return ColumnStatistics {
            null_count: exact(rows),
            ..ColumnStatistics::new_unknown()
        };
    };
    let is_exact = found.bounds_exact.value(slot);
    let bound = |array| {
        let value = ScalarValue::try_from_array(array, slot)
            .ok()
            .filter(|value| !value.is_null());
        precision(value, is_exact)
    };
    ColumnStatistics {
        null_count: exact(found.null_count.value(slot)),
        min_value: bound(&found.min),
        max_value: bound(&found.max),
        ..ColumnStatistics::new_unknown()
    }
}

pub(super) fn exact(count: u64) -> Precision<usize> {
    usize::try_from(count).map_or(Precision::Absent, Precision::Exact)
}

fn precision(value: Option<ScalarValue>, is_exact: bool) -> Precision<ScalarValue> {
    match value {
        None => Precision::Absent,
        Some(value) if is_exact => Precision::Exact(value),
        Some(value) => Precision::Inexact(value),
    }
}

/// A recorded value as one of the column's type (a dictionary's value type).
fn scalar(data_type: &DataType, value: &StatisticValue) -> Option<ScalarValue> {
    let array = StatisticValue::to_array(data_type, std::iter::once(Some(value))).ok()?;
    ScalarValue::try_from_array(&array, 0).ok()
}
