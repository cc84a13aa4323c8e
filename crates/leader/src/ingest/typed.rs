//! Columns of texts, as values of a type.
//!
//! `None` stands for a value that does not fit: nothing is cut off to make it fit.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::builder::{NullBufferBuilder, StringBuilder, StringViewBuilder};
use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, BooleanArray, PrimitiveArray, StringArray};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{
    self as types, ArrowPrimitiveType, ArrowTimestampType, DataType, DecimalType, TimeUnit, i256,
};

use super::{exact, numbers as usual};

/// The texts of a column, some of them null.
pub(super) trait ColumnTexts {
    /// How many there are.
    fn count(&self) -> usize;

    /// All of them.
    fn texts(&self) -> impl Iterator<Item = Option<&str>>;
}

impl ColumnTexts for StringArray {
    fn count(&self) -> usize {
        self.len()
    }

    fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        self.iter()
    }
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Whole ones in digits alone.
    AsTyped,
    /// As JSON has them: `1e3` is a whole one too, and one may stand for a date or a time.
    OfJson,
}

impl Numbers {
    fn whole<N: TryFrom<i128>>(self, text: &str) -> Option<N> {
        match self {
            Self::AsTyped => None,
            Self::OfJson => exact::whole(text),
        }
    }
}

/// A column of values; `None` when one does not fit its type.
pub(super) fn array(
    texts: &impl ColumnTexts,
    data_type: &DataType,
    numbers: Numbers,
) -> Option<ArrayRef> {
    use DataType as T;
    Some(match data_type {
        T::Utf8 => {
            let bytes = texts.texts().flatten().map(str::len).sum();
            let mut values = StringBuilder::with_capacity(texts.count(), bytes);
            texts.texts().for_each(|text| values.append_option(text));
            Arc::new(values.finish())
        }
        T::Utf8View => {
            let mut values = StringViewBuilder::with_capacity(texts.count());
            texts.texts().for_each(|text| values.append_option(text));
            Arc::new(values.finish())
        }
        T::Boolean => {
            let values = texts.texts().map(|text| match text {
                None => Some(None),
                Some(text) => boolean(text).map(Some),
            });
            Arc::new(values.collect::<Option<BooleanArray>>()?)
        }
        T::Int8 => integers::<types::Int8Type>(texts, numbers)?,
        T::Int16 => integers::<types::Int16Type>(texts, numbers)?,
        T::Int32 => integers::<types::Int32Type>(texts, numbers)?,
        T::Int64 => integers::<types::Int64Type>(texts, numbers)?,
        T::UInt8 => integers::<types::UInt8Type>(texts, numbers)?,
        T::UInt16 => integers::<types::UInt16Type>(texts, numbers)?,
        T::UInt32 => integers::<types::UInt32Type>(texts, numbers)?,
        T::UInt64 => integers::<types::UInt64Type>(texts, numbers)?,
        T::Float32 => floats::<types::Float32Type>(texts)?,
        T::Float64 => floats::<types::Float64Type>(texts)?,
        T::Date32 => {
            let day = |text: &str| {
                let day = usual::date(text.as_bytes());
                let day = day.or_else(|| types::Date32Type::parse(text));
                // Eight digits are a year, a month and a day, or nothing.
                day.or_else(|| numbers.whole(text).filter(|_| !is_eight_digits(text)))
            };
            Arc::new(primitives::<types::Date32Type>(texts, day)?)
        }
        T::Date64 => {
            let day = |text: &str| {
                let day = types::Date64Type::parse(text);
                day.or_else(|| numbers.whole(text).filter(|_| !is_eight_digits(text)))
            };
            Arc::new(primitives::<types::Date64Type>(texts, day)?)
        }
        T::Time32(TimeUnit::Second) => parsed::<types::Time32SecondType>(texts, numbers)?,
        T::Time32(TimeUnit::Millisecond) => parsed::<types::Time32MillisecondType>(texts, numbers)?,
        T::Time64(TimeUnit::Microsecond) => parsed::<types::Time64MicrosecondType>(texts, numbers)?,
        T::Time64(TimeUnit::Nanosecond) => parsed::<types::Time64NanosecondType>(texts, numbers)?,
        T::Duration(TimeUnit::Second) => parsed::<types::DurationSecondType>(texts, numbers)?,
        T::Duration(TimeUnit::Millisecond) => {
            parsed::<types::DurationMillisecondType>(texts, numbers)?
        }
        T::Duration(TimeUnit::Microsecond) => {
            parsed::<types::DurationMicrosecondType>(texts, numbers)?
        }
        T::Duration(TimeUnit::Nanosecond) => {
            parsed::<types::DurationNanosecondType>(texts, numbers)?
        }
        T::Decimal32(precision, scale) => {
            // As many digits as the precision allows fit.
            decimals::<types::Decimal32Type>(texts, *precision, *scale, |value| value as i32)?
        }
        T::Decimal64(precision, scale) => {
            decimals::<types::Decimal64Type>(texts, *precision, *scale, |value| value)?
        }
        T::Decimal128(precision, scale) => {
            decimals::<types::Decimal128Type>(texts, *precision, *scale, i128::from)?
        }
        T::Decimal256(precision, scale) => {
            let wide = |value: i64| i256::from_i128(value.into());
            decimals::<types::Decimal256Type>(texts, *precision, *scale, wide)?
        }
        T::Timestamp(unit, zone) => {
            let zone = zone.as_ref();
            match unit {
                TimeUnit::Second => times::<types::TimestampSecondType>(texts, zone, numbers)?,
                TimeUnit::Millisecond => {
                    times::<types::TimestampMillisecondType>(texts, zone, numbers)?
                }
                TimeUnit::Microsecond => {
                    times::<types::TimestampMicrosecondType>(texts, zone, numbers)?
                }
                TimeUnit::Nanosecond => {
                    times::<types::TimestampNanosecondType>(texts, zone, numbers)?
                }
            }
        }
        _ => return None,
    })
}

/// The values that texts say.
fn primitives<T: ArrowPrimitiveType>(
    texts: &impl ColumnTexts,
    parse: impl Fn(&str) -> Option<T::Native>,
) -> Option<PrimitiveArray<T>> {
    let mut values = Vec::with_capacity(texts.count());
    let mut nulls = NullBufferBuilder::new(texts.count());
    for text in texts.texts() {
        if let Some(text) = text {
            values.push(parse(text)?);
            nulls.append_non_null();
        } else {
            values.push(T::Native::default());
            nulls.append_null();
        }
    }
    PrimitiveArray::try_new(values.into(), nulls.finish()).ok()
}

fn floats<T: Parser>(texts: &impl ColumnTexts) -> Option<ArrayRef> {
    Some(Arc::new(primitives::<T>(texts, T::parse)?))
}

fn parsed<T>(texts: &impl ColumnTexts, numbers: Numbers) -> Option<ArrayRef>
where
    T: Parser<Native: TryFrom<i128>>,
{
    let parse = |text: &str| T::parse(text).or_else(|| numbers.whole(text));
    Some(Arc::new(primitives::<T>(texts, parse)?))
}

fn integers<T>(texts: &impl ColumnTexts, numbers: Numbers) -> Option<ArrayRef>
where
    T: Parser<Native: TryFrom<i64> + TryFrom<i128>>,
{
    let parse = |text: &str| {
        let number = usual::integer(text.as_bytes());
        let number = number.and_then(|number| T::Native::try_from(number).ok());
        let number = number.or_else(|| T::parse(text));
        number.or_else(|| numbers.whole(text))
    };
    Some(Arc::new(primitives::<T>(texts, parse)?))
}

fn decimals<T: DecimalType>(
    texts: &impl ColumnTexts,
    precision: u8,
    scale: i8,
    wide: impl Fn(i64) -> T::Native,
) -> Option<ArrayRef> {
    let parse = |text: &str| {
        let units = usual::decimal(text.as_bytes(), precision, scale).map(&wide);
        units.or_else(|| exact::decimal::<T>(text, precision, scale))
    };
    let values = primitives::<T>(texts, parse)?;
    Some(Arc::new(
        values.with_precision_and_scale(precision, scale).ok()?,
    ))
}

fn times<T: ArrowTimestampType>(
    texts: &impl ColumnTexts,
    zone: Option<&Arc<str>>,
    numbers: Numbers,
) -> Option<ArrayRef> {
    let zone_name = zone.map_or("UTC", |zone| zone);
    let tz = Tz::from_str(zone_name).ok()?;
    let is_utc = matches!(zone_name, "UTC" | "+00:00");
    let moment = |text: &str| {
        let usual = is_utc.then(|| usual::moment(text.as_bytes())).flatten();
        let (seconds, behind) = match usual {
            Some(moment) => moment,
            None => {
                let time = string_to_datetime(&tz, text).ok()?;
                (time.timestamp(), time.timestamp_subsec_nanos())
            }
        };
        let (per_second, unit_nanoseconds) = match T::UNIT {
            // A leap second is the second before it, and more than a second behind that.
            TimeUnit::Second => return Some(seconds),
            TimeUnit::Millisecond => (1_000, 1_000_000),
            TimeUnit::Microsecond => (1_000_000, 1_000),
            TimeUnit::Nanosecond => (1_000_000_000, 1),
        };
        let whole = seconds.checked_mul(per_second)?;
        whole.checked_add(i64::from(behind / unit_nanoseconds))
    };
    let number = |text: &str| match numbers {
        // Most of them: quicker to tell than a time.
        Numbers::OfJson => usual::integer(text.as_bytes()),
        Numbers::AsTyped => None,
    };
    let parse = |text: &str| {
        let parsed = number(text).or_else(|| moment(text));
        parsed.or_else(|| numbers.whole(text))
    };
    let values = primitives::<T>(texts, parse)?;
    Some(Arc::new(values.with_timezone_opt(zone.cloned())))
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn is_eight_digits(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit())
}
