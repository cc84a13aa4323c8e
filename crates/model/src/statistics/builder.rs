//! Statistics of one column, built batch by batch while an extent is written.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, downcast_primitive_array,
};
use arrow::compute::kernels::{aggregate, cmp};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;

use super::{StatisticValue, has_bounds, value_type};
use crate::{ColumnId, ColumnStatistics, SortOrder};

/// Longer text and binary bounds are cut to this, and then marked as not exact. Catalog
/// memory is paid for each extent, so one document in a column must not cost megabytes.
pub const BOUND_BYTES_MAX: usize = 256;

/// Gathers exact statistics of one column over the batches of an extent.
#[derive(Debug)]
pub struct ColumnStatisticsBuilder {
    id: ColumnId,
    null_count: u64,
    min: Option<Bound>,
    max: Option<Bound>,
    bounded: bool,
    ascending: bool,
    first: Option<ArrayRef>,
    last: Option<ArrayRef>,
}

#[derive(Debug)]
struct Bound {
    value: StatisticValue,
    /// Whether it is one of the values, and not only beyond them.
    exact: bool,
}

impl ColumnStatisticsBuilder {
    /// Starts the statistics of a column of a type.
    pub fn new(id: ColumnId, data_type: &DataType) -> Self {
        let bounded = has_bounds(data_type);
        let ascending = bounded && !matches!(data_type, DataType::Dictionary(..));
        Self {
            id,
            null_count: 0,
            min: None,
            max: None,
            bounded,
            ascending,
            first: None,
            last: None,
        }
    }

    /// Takes in the column's values of the next batch.
    pub fn update(&mut self, array: &ArrayRef) {
        self.update_but_bounds(array);
        self.update_bounds(array);
    }

    /// Takes in the bounds of values only.
    pub fn update_bounds(&mut self, array: &ArrayRef) {
        if !array.is_empty() && self.bounded {
            let (min, max) = bounds(array);
            let exact = |value| Bound { value, exact: true };
            self.widen(min.map(exact), max.map(exact));
        }
    }

    /// Takes in all but the bounds of values. Who finds those anyway gives them with
    /// [`bounded_by`](Self::bounded_by).
    pub fn update_but_bounds(&mut self, array: &ArrayRef) {
        self.null_count += array.logical_null_count() as u64;
        if array.is_empty() || !self.bounded {
            return;
        }
        self.ascending = self.ascending
            && array.null_count() == 0
            && joins(self.last.as_ref(), &array.slice(0, 1))
            && ascends(array);
        if self.ascending && self.first.is_none() {
            self.first = Some(array.slice(0, 1));
        }
        self.last = self.ascending.then(|| array.slice(array.len() - 1, 1));
    }

    /// Takes in the smallest and the largest of some values. What is not exact is below or above them.
    pub fn bounded_by(
        &mut self,
        (min, min_exact): (StatisticValue, bool),
        (max, max_exact): (StatisticValue, bool),
    ) {
        let bound = |value, exact| Some(Bound { value, exact });
        self.widen(bound(min, min_exact), bound(max, max_exact));
    }

    /// The statistics of these rows and then those of `after`.
    #[must_use]
    pub fn followed_by(mut self, after: Self) -> Self {
        self.null_count += after.null_count;
        self.widen(after.min, after.max);
        self.ascending = match &after.first {
            Some(first) => self.ascending && after.ascending && joins(self.last.as_ref(), first),
            None => self.ascending && after.ascending,
        };
        self.first = self.first.or(after.first);
        self.last = if self.ascending {
            after.last.or(self.last)
        } else {
            None
        };
        self
    }

    fn widen(&mut self, min: Option<Bound>, max: Option<Bound>) {
        widen(&mut self.min, min, |found, known| found < known);
        widen(&mut self.max, max, |found, known| found > known);
    }

    /// The statistics.
    pub fn finish(self) -> ColumnStatistics {
        let is_cut = |bound: &Bound| !bound.exact || is_long(&bound.value);
        let cut = [&self.min, &self.max].into_iter().flatten().any(is_cut);
        ColumnStatistics {
            id: self.id,
            null_count: self.null_count,
            min: self.min.map(|min| shorten_lower(min.value)),
            max: self.max.and_then(|max| shorten_upper(max.value)),
            bounds_exact: !cut,
            sort_order: if self.ascending && self.last.is_some() {
                SortOrder::Ascending
            } else {
                SortOrder::Unknown
            },
        }
    }
}

/// Takes a bound that is farther than the known one, or says of the same one that it is exact.
fn widen(
    known: &mut Option<Bound>,
    found: Option<Bound>,
    is_farther: impl Fn(&StatisticValue, &StatisticValue) -> bool,
) {
    let Some(found) = found else {
        return;
    };
    match known {
        Some(known) if known.value == found.value => known.exact |= found.exact,
        Some(known) if !is_farther(&found.value, &known.value) => {}
        _ => *known = Some(found),
    }
}

/// Whether rows may go on with `next` after `last` and stay ascending.
fn joins(last: Option<&ArrayRef>, next: &ArrayRef) -> bool {
    last.is_none_or(|last| concat(&[last.as_ref(), next.as_ref()]).is_ok_and(|edge| ascends(&edge)))
}

/// Whether each value is at least as large as the one before it. The array has no nulls.
fn ascends(array: &ArrayRef) -> bool {
    let pairs = array.len().saturating_sub(1);
    let (before, after) = (
        array.slice(0, pairs),
        array.slice(array.len() - pairs, pairs),
    );
    cmp::lt_eq(&before, &after).is_ok_and(|ordered| ordered.false_count() == 0)
}

fn bounds(array: &ArrayRef) -> (Option<StatisticValue>, Option<StatisticValue>) {
    let data_type = array.data_type();
    if let DataType::Dictionary(..) = data_type {
        return match cast(array, value_type(data_type)) {
            Ok(values) => bounds(&values),
            Err(_) => (None, None),
        };
    }
    let text = |value: Option<&str>| value.map(|value| StatisticValue::Text(value.to_owned()));
    let bytes = |value: Option<&[u8]>| value.map(|value| StatisticValue::Bytes(value.to_vec()));
    use aggregate as agg;
    match data_type {
        DataType::Boolean => {
            let array = array.as_boolean();
            let wrap = |value: Option<bool>| value.map(StatisticValue::Boolean);
            (wrap(agg::min_boolean(array)), wrap(agg::max_boolean(array)))
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            (text(agg::min_string(array)), text(agg::max_string(array)))
        }
        DataType::LargeUtf8 => {
            let array = array.as_string::<i64>();
            (text(agg::min_string(array)), text(agg::max_string(array)))
        }
        DataType::Utf8View => {
            let array = array.as_string_view();
            (
                text(agg::min_string_view(array)),
                text(agg::max_string_view(array)),
            )
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            (bytes(agg::min_binary(array)), bytes(agg::max_binary(array)))
        }
        DataType::LargeBinary => {
            let array = array.as_binary::<i64>();
            (bytes(agg::min_binary(array)), bytes(agg::max_binary(array)))
        }
        DataType::BinaryView => {
            let array = array.as_binary_view();
            (
                bytes(agg::min_binary_view(array)),
                bytes(agg::max_binary_view(array)),
            )
        }
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            (
                bytes(array.iter().flatten().min()),
                bytes(array.iter().flatten().max()),
            )
        }
        _ => primitive_bounds(array),
    }
}

fn primitive_bounds(array: &ArrayRef) -> (Option<StatisticValue>, Option<StatisticValue>) {
    /// Reads the bound in the column's own type.
    fn at<T: ArrowPrimitiveType>(
        array: &PrimitiveArray<T>,
        value: Option<T::Native>,
    ) -> Option<StatisticValue> {
        let value = value?;
        let single = PrimitiveArray::<T>::from_iter_values([value]);
        StatisticValue::from_array(&single.with_data_type(array.data_type().clone()), 0)
    }
    let array: &dyn Array = array.as_ref();
    downcast_primitive_array!(
        array => (at(array, aggregate::min(array)), at(array, aggregate::max(array))),
        _ => (None, None)
    )
}

fn is_long(value: &StatisticValue) -> bool {
    match value {
        StatisticValue::Text(text) => text.len() > BOUND_BYTES_MAX,
        StatisticValue::Bytes(bytes) => bytes.len() > BOUND_BYTES_MAX,
        _ => false,
    }
}

/// A prefix sorts before what it is a prefix of.
fn shorten_lower(value: StatisticValue) -> StatisticValue {
    match value {
        StatisticValue::Text(mut text) if text.len() > BOUND_BYTES_MAX => {
            text.truncate(text.floor_char_boundary(BOUND_BYTES_MAX));
            StatisticValue::Text(text)
        }
        StatisticValue::Bytes(mut bytes) => {
            bytes.truncate(BOUND_BYTES_MAX);
            StatisticValue::Bytes(bytes)
        }
        other => other,
    }
}

/// A prefix with its last character raised sorts after everything with that prefix; `None` when
/// no character can be raised.
fn shorten_upper(value: StatisticValue) -> Option<StatisticValue> {
    match value {
        StatisticValue::Text(text) if text.len() > BOUND_BYTES_MAX => {
            let mut prefix: Vec<char> = text[..text.floor_char_boundary(BOUND_BYTES_MAX)]
                .chars()
                .collect();
            while let Some(last) = prefix.pop() {
                if let Some(raised) =
                    (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32)
                {
                    prefix.push(raised);
                    return Some(StatisticValue::Text(prefix.into_iter().collect()));
                }
            }
            None
        }
        StatisticValue::Bytes(mut bytes) if bytes.len() > BOUND_BYTES_MAX => {
            bytes.truncate(BOUND_BYTES_MAX);
            while let Some(last) = bytes.pop() {
                if let Some(raised) = last.checked_add(1) {
                    bytes.push(raised);
                    return Some(StatisticValue::Bytes(bytes));
                }
            }
            None
        }
        other => Some(other),
    }
}
