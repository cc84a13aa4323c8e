//! Whether extents, one after another, are rows in order.

use arrow::array::{Array, ArrayRef};
use arrow::compute::kernels::cmp::lt_eq;
use arrow::compute::{SortColumn, interleave, lexsort_to_indices};
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use slipstream_model::{ColumnId, TableSchema};

use super::prune::Selected;

/// More extents than this are not put in order: a query that reads so many and wants them sorted
/// takes seconds, and the sort below milliseconds.
const ORDERED_EXTENTS_MAX: usize = 65_536;

/// An order of extents in which one column ascends from the first row to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordering {
    /// Positions of columns in the table that ascend; at least one.
    pub(crate) columns: Vec<usize>,
    /// The extents, as positions in the flattened selection.
    pub(crate) extents: Vec<usize>,
}

/// Finds an order in which the rows ascend in one of the wanted columns, or more. Each extent must
/// ascend in itself, without nulls, and no two of them may overlap by more than one value.
pub(crate) fn find(
    schema: &TableSchema,
    selection: &[Selected],
    wanted: &[bool],
) -> Option<Ordering> {
    let count: usize = selection.iter().map(|selected| selected.slots.len()).sum();
    if count > ORDERED_EXTENTS_MAX {
        return None;
    }
    let mut ordering: Option<Ordering> = None;
    for (position, column) in schema.columns().iter().enumerate() {
        if !wanted[position] || !ascends_within_extents(selection, column.id) {
            continue;
        }
        let Some((min, max)) = bounds(selection, column.id) else {
            continue;
        };
        match &mut ordering {
            None => {
                let Some(extents) = sorted(&min, &max) else {
                    continue;
                };
                ordering = Some(Ordering {
                    columns: vec![position],
                    extents,
                });
            }
            Some(ordering) => {
                if follows(&min, &max, &ordering.extents) {
                    ordering.columns.push(position);
                }
            }
        }
    }
    ordering
}

/// For each extent of an order but the first: the least value of a column of the order in it, where
/// that value stands in no extent before it. There the extents can be kept apart by that column.
pub(crate) fn starts(
    schema: &TableSchema,
    selection: &[Selected],
    ordering: &Ordering,
    column: usize,
) -> Vec<Option<ScalarValue>> {
    let column = &schema.columns()[column];
    let Some((min, max)) = bounds(selection, column.id) else {
        return vec![None; ordering.extents.len().saturating_sub(1)];
    };
    let value = |values: &ArrayRef, at: usize| ScalarValue::try_from_array(values, at).ok();
    let pairs = ordering.extents.windows(2);
    pairs
        .map(|pair| {
            let (end, start) = (value(&max, pair[0])?, value(&min, pair[1])?);
            (end < start).then_some(start)
        })
        .collect()
}

fn ascends_within_extents(selection: &[Selected], id: ColumnId) -> bool {
    selection.iter().all(|selected| {
        let Some(column) = selected.block.column(id) else {
            return false;
        };
        selected.slots.iter().all(|slot| {
            column.present.value(*slot)
                && column.ascending.value(*slot)
                && column.null_count.value(*slot) == 0
        })
    })
}

/// Minima and maxima of the selected extents, in the order of the selection.
fn bounds(selection: &[Selected], id: ColumnId) -> Option<(ArrayRef, ArrayRef)> {
    let columns: Option<Vec<_>> = selection
        .iter()
        .map(|selected| selected.block.column(id))
        .collect();
    let columns = columns?;
    if columns
        .iter()
        .any(|column| column.min.data_type() == &DataType::Null)
    {
        return None;
    }
    let indices: Vec<(usize, usize)> = selection
        .iter()
        .enumerate()
        .flat_map(|(number, selected)| selected.slots.iter().map(move |slot| (number, *slot)))
        .collect();
    let mins: Vec<&dyn Array> = columns.iter().map(|column| column.min.as_ref()).collect();
    let maxs: Vec<&dyn Array> = columns.iter().map(|column| column.max.as_ref()).collect();
    let min = interleave(&mins, &indices).ok()?;
    let max = interleave(&maxs, &indices).ok()?;
    (min.null_count() == 0 && max.null_count() == 0).then_some((min, max))
}

fn sorted(min: &ArrayRef, max: &ArrayRef) -> Option<Vec<usize>> {
    let by = |values: &ArrayRef| SortColumn {
        values: ArrayRef::clone(values),
        options: None,
    };
    let indices = lexsort_to_indices(&[by(min), by(max)], None).ok()?;
    let order: Vec<usize> = indices
        .values()
        .iter()
        .map(|index| *index as usize)
        .collect();
    follows(min, max, &order).then_some(order)
}

/// Whether each extent begins at or after the end of the one before it.
fn follows(min: &ArrayRef, max: &ArrayRef, order: &[usize]) -> bool {
    if order.len() < 2 {
        return true;
    }
    let pick = |values: &ArrayRef, positions: &[usize]| {
        let indices: Vec<_> = positions.iter().map(|position| (0, *position)).collect();
        interleave(&[values.as_ref()], &indices)
    };
    let ends = pick(max, &order[..order.len() - 1]);
    let starts = pick(min, &order[1..]);
    let (Ok(ends), Ok(starts)) = (ends, starts) else {
        return false;
    };
    lt_eq(&ends, &starts).is_ok_and(|fits| fits.true_count() == fits.len())
}
