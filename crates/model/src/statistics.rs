//! Smallest and largest values: taken from Arrow arrays, merged, and turned back into arrays.
//!
//! A [`StatisticValue`] has the shape that records have on disk. What it means follows from the
//! column's Arrow type: an `Int` is a count of microseconds in a `Timestamp(Microsecond)` column.

mod builder;

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray,
    FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, PrimitiveArray, StringArray,
    StringViewArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};

pub use builder::{BOUND_BYTES_MAX, ColumnStatisticsBuilder};

/// A value that a minimum or maximum can be.
#[derive(Debug, Clone)]
pub enum StatisticValue {
    /// Of a boolean column.
    Boolean(bool),
    /// Of a signed integer, date, time, timestamp or duration column, in the column's unit.
    Int(i64),
    /// Of an unsigned integer column.
    UInt(u64),
    /// Of a floating-point column. Ordered by IEEE 754 total order, as Arrow's kernels do.
    Float(f64),
    /// Of a decimal column, unscaled.
    Decimal(i256),
    /// Of a text column. Ordered by UTF-8 bytes.
    Text(String),
    /// Of a binary column. Ordered by bytes.
    Bytes(Vec<u8>),
}

impl StatisticValue {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::UInt(a), Self::UInt(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            _ => return None,
        })
    }
}

impl PartialEq for StatisticValue {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for StatisticValue {
    /// `None` for values of different kinds, which belong to different columns.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.compare(other)
    }
}

/// A value of one kind stands where a column of another type is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a column of type {0} cannot have the recorded minimum or maximum")]
pub struct UnsupportedStatistic(String);

/// The type whose values the statistics of a column hold: a dictionary's value type, else the
/// type itself.
pub(crate) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value_type(value),
        other => other,
    }
}

/// Whether minimum and maximum are kept for columns of a type.
pub(crate) fn has_bounds(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        value_type(data_type),
        T::Boolean
            | T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64
            | T::Float32
            | T::Float64
            | T::Decimal32(..)
            | T::Decimal64(..)
            | T::Decimal128(..)
            | T::Decimal256(..)
            | T::Date32
            | T::Date64
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(..)
            | T::Duration(_)
            | T::Utf8
            | T::LargeUtf8
            | T::Utf8View
            | T::Binary
            | T::LargeBinary
            | T::BinaryView
            | T::FixedSizeBinary(_)
    )
}

/// Runs `$body` with `$t` standing for the Arrow type of an integer-like `$data_type`, and
/// `$wrap` for the kind its values have; `$otherwise` for every other type.
macro_rules! with_integer_type {
    ($data_type:expr, $t:ident, $wrap:ident => $body:expr, _ => $otherwise:expr) => {{
        macro_rules! arm {
            ($arrow:ty, $variant:ident) => {{
                type $t = $arrow;
                let $wrap = StatisticValue::$variant;
                let _ = $wrap;
                $body
            }};
        }
        match $data_type {
            DataType::Int8 => arm!(Int8Type, Int),
            DataType::Int16 => arm!(Int16Type, Int),
            DataType::Int32 => arm!(Int32Type, Int),
            DataType::Int64 => arm!(Int64Type, Int),
            DataType::UInt8 => arm!(UInt8Type, UInt),
            DataType::UInt16 => arm!(UInt16Type, UInt),
            DataType::UInt32 => arm!(UInt32Type, UInt),
            DataType::UInt64 => arm!(UInt64Type, UInt),
            DataType::Date32 => arm!(Date32Type, Int),
            DataType::Date64 => arm!(Date64Type, Int),
            DataType::Time32(TimeUnit::Second) => arm!(Time32SecondType, Int),
            DataType::Time32(TimeUnit::Millisecond) => arm!(Time32MillisecondType, Int),
            DataType::Time64(TimeUnit::Microsecond) => arm!(Time64MicrosecondType, Int),
            DataType::Time64(TimeUnit::Nanosecond) => arm!(Time64NanosecondType, Int),
            DataType::Timestamp(TimeUnit::Second, _) => arm!(TimestampSecondType, Int),
            DataType::Timestamp(TimeUnit::Millisecond, _) => arm!(TimestampMillisecondType, Int),
            DataType::Timestamp(TimeUnit::Microsecond, _) => arm!(TimestampMicrosecondType, Int),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => arm!(TimestampNanosecondType, Int),
            DataType::Duration(TimeUnit::Second) => arm!(DurationSecondType, Int),
            DataType::Duration(TimeUnit::Millisecond) => arm!(DurationMillisecondType, Int),
            DataType::Duration(TimeUnit::Microsecond) => arm!(DurationMicrosecondType, Int),
            DataType::Duration(TimeUnit::Nanosecond) => arm!(DurationNanosecondType, Int),
            _ => $otherwise,
        }
    }};
}

impl StatisticValue {
    /// The value at `row` of an array; `None` when it is null or of a type without bounds.
    ///
    /// Dictionary arrays are looked through to their values.
    pub fn from_array(array: &dyn Array, row: usize) -> Option<Self> {
        if array.is_null(row) {
            return None;
        }
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            let key = dictionary.normalized_keys()[row];
            return Self::from_array(dictionary.values().as_ref(), key);
        }
        with_integer_type!(array.data_type(), T, wrap => {
            Some(wrap(array.as_primitive::<T>().value(row).into()))
        }, _ => Self::from_other_array(array, row))
    }

    fn from_other_array(array: &dyn Array, row: usize) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean().value(row)),
            DataType::Float32 => {
                Self::Float(f64::from(array.as_primitive::<Float32Type>().value(row)))
            }
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal32(..) => {
                let unscaled = array.as_primitive::<Decimal32Type>().value(row);
                Self::Decimal(i256::from_i128(unscaled.into()))
            }
            DataType::Decimal64(..) => {
                let unscaled = array.as_primitive::<Decimal64Type>().value(row);
                Self::Decimal(i256::from_i128(unscaled.into()))
            }
            DataType::Decimal128(..) => Self::Decimal(i256::from_i128(
                array.as_primitive::<Decimal128Type>().value(row),
            )),
            DataType::Decimal256(..) => {
                Self::Decimal(array.as_primitive::<Decimal256Type>().value(row))
            }
            DataType::Utf8 => Self::Text(array.as_string::<i32>().value(row).to_owned()),
            DataType::LargeUtf8 => Self::Text(array.as_string::<i64>().value(row).to_owned()),
            DataType::Utf8View => Self::Text(array.as_string_view().value(row).to_owned()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().value(row).to_vec()),
            DataType::LargeBinary => Self::Bytes(array.as_binary::<i64>().value(row).to_vec()),
            DataType::BinaryView => Self::Bytes(array.as_binary_view().value(row).to_vec()),
            DataType::FixedSizeBinary(_) => {
                Self::Bytes(array.as_fixed_size_binary().value(row).to_vec())
            }
            _ => return None,
        })
    }

    /// An array of a column's value type (a dictionary column's values) with one entry for each
    /// value, null where there is none.
    ///
    /// # Errors
    /// When a value is not of the kind that the type calls for.
    pub fn to_array<'a>(
        data_type: &DataType,
        values: impl Iterator<Item = Option<&'a Self>>,
    ) -> Result<ArrayRef, UnsupportedStatistic> {
        let data_type = value_type(data_type);
        with_integer_type!(data_type, T, _wrap => {
            integers::<T>(data_type, values)
        }, _ => other_array(data_type, values))
    }
}

/// Turns each value into what an array of the type is built from.
fn convert<'a, V>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a StatisticValue>>,
    to_native: impl Fn(&'a StatisticValue) -> Option<V>,
) -> Result<Vec<Option<V>>, UnsupportedStatistic> {
    let fail = || UnsupportedStatistic(data_type.to_string());
    values
        .map(|value| {
            value
                .map(|value| to_native(value).ok_or_else(fail))
                .transpose()
        })
        .collect()
}

fn integers<'a, T>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a StatisticValue>>,
) -> Result<ArrayRef, UnsupportedStatistic>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64> + TryFrom<u64>,
{
    let natives = convert(data_type, values, |value| match value {
        StatisticValue::Int(value) => T::Native::try_from(*value).ok(),
        StatisticValue::UInt(value) => T::Native::try_from(*value).ok(),
        _ => None,
    })?;
    let array = PrimitiveArray::<T>::from_iter(natives);
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

fn decimals<'a, T>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a StatisticValue>>,
    narrow: impl Fn(i256) -> Option<T::Native>,
) -> Result<ArrayRef, UnsupportedStatistic>
where
    T: ArrowPrimitiveType,
{
    let natives = convert(data_type, values, |value| match value {
        StatisticValue::Decimal(value) => narrow(*value),
        _ => None,
    })?;
    let array = PrimitiveArray::<T>::from_iter(natives);
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

fn other_array<'a>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a StatisticValue>>,
) -> Result<ArrayRef, UnsupportedStatistic> {
    let float = |value: &StatisticValue| match value {
        StatisticValue::Float(value) => Some(*value),
        _ => None,
    };
    fn text(value: &StatisticValue) -> Option<&str> {
        match value {
            StatisticValue::Text(value) => Some(value),
            _ => None,
        }
    }
    fn bytes(value: &StatisticValue) -> Option<&[u8]> {
        match value {
            StatisticValue::Bytes(value) => Some(value),
            _ => None,
        }
    }
    Ok(match data_type {
        DataType::Boolean => {
            let natives = convert(data_type, values, |value| match value {
                StatisticValue::Boolean(value) => Some(*value),
                _ => None,
            })?;
            Arc::new(BooleanArray::from(natives))
        }
        DataType::Float32 => Arc::new(PrimitiveArray::<Float32Type>::from_iter(
            // The value came from a Float32 array, so narrowing gives it back exactly.
            convert(data_type, values, float)?
                .into_iter()
                .map(|value| value.map(|v| v as f32)),
        )),
        DataType::Float64 => Arc::new(PrimitiveArray::<Float64Type>::from_iter(convert(
            data_type, values, float,
        )?)),
        DataType::Decimal32(..) => decimals::<Decimal32Type>(data_type, values, |value| {
            value.to_i128().and_then(|value| value.try_into().ok())
        })?,
        DataType::Decimal64(..) => decimals::<Decimal64Type>(data_type, values, |value| {
            value.to_i128().and_then(|value| value.try_into().ok())
        })?,
        DataType::Decimal128(..) => {
            decimals::<Decimal128Type>(data_type, values, |value| value.to_i128())?
        }
        DataType::Decimal256(..) => decimals::<Decimal256Type>(data_type, values, Some)?,
        DataType::Utf8 => Arc::new(StringArray::from(convert(data_type, values, text)?)),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from(convert(data_type, values, text)?)),
        DataType::Utf8View => Arc::new(StringViewArray::from(convert(data_type, values, text)?)),
        DataType::Binary => Arc::new(BinaryArray::from(convert(data_type, values, bytes)?)),
        DataType::LargeBinary => {
            Arc::new(LargeBinaryArray::from(convert(data_type, values, bytes)?))
        }
        DataType::BinaryView => Arc::new(BinaryViewArray::from_iter(convert(
            data_type, values, bytes,
        )?)),
        DataType::FixedSizeBinary(width) => {
            let natives = convert(data_type, values, bytes)?;
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(natives.into_iter(), *width)
                .map(Arc::new)
                .map_err(|_| UnsupportedStatistic(data_type.to_string()))?
        }
        _ => return Err(UnsupportedStatistic(data_type.to_string())),
    })
}

#[cfg(test)]
mod tests;
