//! Comma-separated values that stand in the text as they are, as in most blocks they do.
//!
//! The general decoder takes one byte after another and copies each value. Where no value has a quote
//! within quotes, the ends of values are found many bytes at a time, and a column is made of the text
//! where it stands: several times as fast. What is not known here or does not fit is left to the general
//! decoder, which says what is wrong.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::builder::{NullBufferBuilder, StringBuilder, StringViewBuilder};
use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{
    self as types, ArrowPrimitiveType, ArrowTimestampType, DataType, DecimalType, SchemaRef,
    TimeUnit, i256,
};
use memchr::memchr;

use super::marks::Marks;
use super::numbers;

/// What a text may begin with, and does not belong to the first value.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Decodes records, of which each has as many values as the schema has columns. Only empty values are
/// null. `None`: the general decoder has to look at them.
pub(super) fn decode(
    records: &[u8],
    delimiter: u8,
    schema: &SchemaRef,
    batch_rows: usize,
) -> Option<Vec<RecordBatch>> {
    let values = Values::find(records, delimiter, schema.fields().len())?;
    let mut batches = Vec::with_capacity(values.rows.div_ceil(batch_rows));
    for first in (0..values.rows).step_by(batch_rows) {
        let end = values.rows.min(first + batch_rows);
        let columns = schema.fields().iter().enumerate();
        let columns: Option<Vec<ArrayRef>> = columns
            .map(|(column, field)| {
                let texts = values.column(column, first..end);
                array(&texts, field.data_type())
            })
            .collect();
        batches.push(RecordBatch::try_new(Arc::clone(schema), columns?).ok()?);
    }
    Some(batches)
}

/// Where each value stands.
struct Values<'a> {
    text: &'a str,
    columns: usize,
    rows: usize,
    /// From where to where each value goes, without its quotes, in their order.
    places: Vec<(u32, u32)>,
}

impl<'a> Values<'a> {
    fn find(records: &'a [u8], delimiter: u8, columns: usize) -> Option<Self> {
        if memchr(b'\r', records).is_some() || records.starts_with(BYTE_ORDER_MARK) {
            return None;
        }
        let text = std::str::from_utf8(records).ok()?;
        u32::try_from(records.len()).ok()?;
        let mut places = Places {
            records,
            columns,
            column: 0,
            found: Vec::with_capacity(records.len() / 8),
        };
        if memchr(b'"', records).is_some() {
            places.find_quoted(Marks::new(records, [delimiter, b'\n', b'"']))?;
        } else {
            places.find_plain(Marks::new(records, [delimiter, b'\n', b'\n']))?;
        }
        let values = Self {
            text,
            columns,
            rows: places.found.len() / columns.max(1),
            places: places.found,
        };
        // An empty line is no record.
        let has_empty_line = columns == 1 && values.places.iter().any(|(start, end)| start == end);
        (!has_empty_line).then_some(values)
    }

    fn column(&self, column: usize, rows: Range<usize>) -> Texts<'_> {
        Texts {
            text: self.text,
            rows: &self.places[rows.start * self.columns..rows.end * self.columns],
            columns: self.columns,
            column,
        }
    }
}

/// The values of a column in some rows.
struct Texts<'a> {
    text: &'a str,
    /// From where to where each value of these rows goes.
    rows: &'a [(u32, u32)],
    columns: usize,
    column: usize,
}

impl<'a> Texts<'a> {
    fn len(&self) -> usize {
        self.rows.len() / self.columns
    }

    fn iter(&self) -> impl Iterator<Item = &'a str> {
        let (text, column) = (self.text, self.column);
        self.rows.chunks_exact(self.columns).map(move |row| {
            let (start, end) = row[column];
            &text[start as usize..end as usize]
        })
    }

    /// Empty texts are null.
    fn each(&self, mut take: impl FnMut(Option<&'a str>)) {
        for text in self.iter() {
            take((!text.is_empty()).then_some(text));
        }
    }
}

/// The places of values while they are looked for; each way gives up at what has other rules.
struct Places<'a> {
    records: &'a [u8],
    columns: usize,
    /// Values of the record so far.
    column: usize,
    found: Vec<(u32, u32)>,
}

impl Places<'_> {
    /// Of records without quotes, by all delimiters and ends of lines.
    fn find_plain(&mut self, ends: impl Iterator<Item = usize>) -> Option<()> {
        let mut start = 0;
        for end in ends {
            self.push(start, end, end)?;
            start = end + 1;
        }
        self.finish(start)
    }

    /// Of records with quotes, by all delimiters, ends of lines and quotes.
    fn find_quoted(&mut self, mut marks: impl Iterator<Item = usize>) -> Option<()> {
        let mut start = 0;
        while let Some(mark) = marks.next() {
            if self.records[mark] != b'"' {
                self.push(start, mark, mark)?;
                start = mark + 1;
            } else if mark == start {
                let close = marks.find(|mark| self.records[*mark] == b'"')?;
                let Some(end) = marks.next() else {
                    // The last value of all.
                    return (close + 1 == self.records.len())
                        .then(|| self.push(start + 1, close, close + 1))?;
                };
                // Behind two quotes the value goes on.
                if end != close + 1 || self.records[end] == b'"' {
                    return None;
                }
                self.push(start + 1, close, end)?;
                start = end + 1;
            }
            // Any other quote is text.
        }
        self.finish(start)
    }

    /// Notes a value, and what stands at `mark` behind it: a delimiter, or else the record ends.
    fn push(&mut self, start: usize, end: usize, mark: usize) -> Option<()> {
        self.found.push((start as u32, end as u32));
        self.column += 1;
        if self.records.get(mark).is_none_or(|mark| *mark == b'\n') {
            return (std::mem::take(&mut self.column) == self.columns).then_some(());
        }
        Some(())
    }

    /// The last record may lack its end of line.
    fn finish(&mut self, start: usize) -> Option<()> {
        let end = self.records.len();
        if start < end || self.column > 0 {
            self.push(start, end, end)?;
        }
        Some(())
    }
}

/// A column of values; `None` when one does not fit its type.
fn array(texts: &Texts<'_>, data_type: &DataType) -> Option<ArrayRef> {
    use DataType as T;
    Some(match data_type {
        T::Utf8 => {
            let bytes = texts.iter().map(str::len).sum();
            let mut values = StringBuilder::with_capacity(texts.len(), bytes);
            texts.each(|text| values.append_option(text));
            Arc::new(values.finish())
        }
        T::Utf8View => {
            let mut values = StringViewBuilder::with_capacity(texts.len());
            texts.each(|text| values.append_option(text));
            Arc::new(values.finish())
        }
        T::Boolean => {
            let values = texts.iter().map(|text| match text {
                "" => Some(None),
                text => boolean(text).map(Some),
            });
            Arc::new(values.collect::<Option<BooleanArray>>()?)
        }
        T::Int8 => integers::<types::Int8Type>(texts)?,
        T::Int16 => integers::<types::Int16Type>(texts)?,
        T::Int32 => integers::<types::Int32Type>(texts)?,
        T::Int64 => integers::<types::Int64Type>(texts)?,
        T::UInt8 => integers::<types::UInt8Type>(texts)?,
        T::UInt16 => integers::<types::UInt16Type>(texts)?,
        T::UInt32 => integers::<types::UInt32Type>(texts)?,
        T::UInt64 => integers::<types::UInt64Type>(texts)?,
        T::Float32 => parsed::<types::Float32Type>(texts)?,
        T::Float64 => parsed::<types::Float64Type>(texts)?,
        T::Date32 => {
            let day = |text: &str| {
                let day = numbers::date(text.as_bytes());
                day.or_else(|| types::Date32Type::parse(text))
            };
            Arc::new(primitives::<types::Date32Type>(texts, day)?)
        }
        T::Date64 => parsed::<types::Date64Type>(texts)?,
        T::Time32(TimeUnit::Second) => parsed::<types::Time32SecondType>(texts)?,
        T::Time32(TimeUnit::Millisecond) => parsed::<types::Time32MillisecondType>(texts)?,
        T::Time64(TimeUnit::Microsecond) => parsed::<types::Time64MicrosecondType>(texts)?,
        T::Time64(TimeUnit::Nanosecond) => parsed::<types::Time64NanosecondType>(texts)?,
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
                TimeUnit::Second => times::<types::TimestampSecondType>(texts, zone)?,
                TimeUnit::Millisecond => times::<types::TimestampMillisecondType>(texts, zone)?,
                TimeUnit::Microsecond => times::<types::TimestampMicrosecondType>(texts, zone)?,
                TimeUnit::Nanosecond => times::<types::TimestampNanosecondType>(texts, zone)?,
            }
        }
        _ => return None,
    })
}

/// The values that texts say; empty ones are null.
fn primitives<T: ArrowPrimitiveType>(
    texts: &Texts<'_>,
    parse: impl Fn(&str) -> Option<T::Native>,
) -> Option<PrimitiveArray<T>> {
    let mut values = Vec::with_capacity(texts.len());
    let mut nulls = NullBufferBuilder::new(texts.len());
    for text in texts.iter() {
        if text.is_empty() {
            values.push(T::Native::default());
            nulls.append_null();
        } else {
            values.push(parse(text)?);
            nulls.append_non_null();
        }
    }
    PrimitiveArray::try_new(values.into(), nulls.finish()).ok()
}

fn parsed<T: Parser>(texts: &Texts<'_>) -> Option<ArrayRef> {
    Some(Arc::new(primitives::<T>(texts, T::parse)?))
}

fn integers<T>(texts: &Texts<'_>) -> Option<ArrayRef>
where
    T: Parser<Native: TryFrom<i64>>,
{
    let parse = |text: &str| {
        let number = numbers::integer(text.as_bytes());
        let number = number.and_then(|number| T::Native::try_from(number).ok());
        number.or_else(|| T::parse(text))
    };
    Some(Arc::new(primitives::<T>(texts, parse)?))
}

fn decimals<T: DecimalType>(
    texts: &Texts<'_>,
    precision: u8,
    scale: i8,
    wide: impl Fn(i64) -> T::Native,
) -> Option<ArrayRef> {
    let parse = |text: &str| {
        let units = numbers::decimal(text.as_bytes(), precision, scale).map(&wide);
        units.or_else(|| parse_decimal::<T>(text, precision, scale).ok())
    };
    let values = primitives::<T>(texts, parse)?;
    Some(Arc::new(
        values.with_precision_and_scale(precision, scale).ok()?,
    ))
}

fn times<T: ArrowTimestampType>(texts: &Texts<'_>, zone: Option<&Arc<str>>) -> Option<ArrayRef> {
    let zone_name = zone.map_or("UTC", |zone| zone);
    let tz = Tz::from_str(zone_name).ok()?;
    let is_utc = matches!(zone_name, "UTC" | "+00:00");
    let parse = |text: &str| {
        let usual = is_utc.then(|| numbers::moment(text.as_bytes())).flatten();
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

#[cfg(test)]
mod tests {
    use arrow::csv::ReaderBuilder;
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    /// Each type with values that fit it, besides the empty one.
    fn types() -> Vec<(DataType, &'static [&'static str])> {
        use DataType as T;
        const NUMBERS: &[&str] = &["0", "7", "+42", "-1", "007", "-0"];
        const TIMES: &[&str] = &[
            "2024-02-29T13:37:00",
            "1969-12-31 23:59:59.999999",
            "2024-05-01T00:00:00+02:00",
            "2024-05-01T00:00:00.25Z",
            "2024-05-01",
            "2016-12-31T23:59:60Z",
            "2016-12-31 23:59:60.5",
        ];
        let zoned = |unit, zone: &str| T::Timestamp(unit, Some(zone.into()));
        vec![
            (T::Utf8, &["x", " two words ", "Zürich", "5\" disk"]),
            (T::Utf8View, &["x", "longer than twelve bytes", "é"]),
            (T::Boolean, &["true", "FALSE"]),
            (T::Int8, NUMBERS),
            (T::Int64, &["9223372036854775807", "-9223372036854775808"]),
            (T::UInt16, &["65535", "0", "-0"]),
            (T::Float64, &["1.5", "-0.0", "NaN", "1e300", "inf"]),
            (
                T::Decimal128(12, 2),
                &["1.25", "-0.01", "3", "1.005", "1e2"],
            ),
            (T::Decimal256(40, 3), &["1.125", "-9"]),
            (T::Date32, &["1970-01-01", "2024-2-9", "1600-12-31"]),
            (T::Date64, &["1970-01-01", "2024-02-29"]),
            (T::Time32(TimeUnit::Millisecond), &["12:34:56.789", "00:00"]),
            (T::Time64(TimeUnit::Microsecond), &["23:59:59.999999"]),
            (T::Timestamp(TimeUnit::Microsecond, None), TIMES),
            (T::Timestamp(TimeUnit::Nanosecond, None), TIMES),
            (zoned(TimeUnit::Second, "UTC"), TIMES),
            (zoned(TimeUnit::Millisecond, "+01:00"), TIMES),
        ]
    }

    fn schema(columns: &[usize]) -> SchemaRef {
        let types = types();
        let field = |(place, column): (usize, &usize)| {
            Field::new(format!("c{place}"), types[*column].0.clone(), true)
        };
        let fields: Vec<_> = columns.iter().enumerate().map(field).collect();
        Arc::new(Schema::new(fields))
    }

    /// What the general decoder makes of it, in batches of as many rows.
    fn general(records: &[u8], schema: &SchemaRef, batch_rows: usize) -> Option<Vec<RecordBatch>> {
        let reader = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(batch_rows);
        reader.build(records).ok()?.collect::<Result<_, _>>().ok()
    }

    fn check(records: &str, schema: &SchemaRef) -> Option<Vec<RecordBatch>> {
        let found = decode(records.as_bytes(), b',', schema, 3);
        if let Some(found) = &found {
            let expected = general(records.as_bytes(), schema, 3);
            assert_eq!(Some(found), expected.as_ref(), "{records:?}");
        }
        found
    }

    fn table() -> impl Strategy<Value = (Vec<usize>, Vec<Vec<String>>)> {
        let columns = prop::collection::vec(0..types().len(), 1..5);
        columns.prop_flat_map(|columns| {
            let value = |column: &usize| {
                let fits = prop::sample::select(types()[*column].1.to_vec());
                let fits = prop_oneof![9 => fits.prop_map(str::to_owned), 1 => Just(String::new())];
                (fits, prop::bool::weighted(0.2)).prop_map(|(text, is_quoted)| match is_quoted {
                    true => format!("\"{text}\""),
                    false => text,
                })
            };
            let row: Vec<_> = columns.iter().map(value).collect();
            (Just(columns), prop::collection::vec(row, 0..10))
        })
    }

    proptest! {
        #[test]
        fn what_fits_is_decoded_as_by_the_general_decoder(
            (columns, rows) in table(),
            ends in any::<bool>(),
        ) {
            let rows: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
            let records = rows.join("\n") + if ends && !rows.is_empty() { "\n" } else { "" };
            let found = check(&records, &schema(&columns));
            let is_empty = |row: &String| row.is_empty() || row == "\"\"";
            let has_empty_line = columns.len() == 1 && rows.iter().any(is_empty);
            let has_quote_in_quotes = records.contains("\"5\" disk\"");
            prop_assert!(
                found.is_some() || has_empty_line || has_quote_in_quotes,
                "{records:?}"
            );
        }

        #[test]
        fn whatever_the_bytes_it_agrees_or_declines(
            columns in prop::collection::vec(0..types().len(), 1..4),
            records in "[0-9a,\"\n\r\u{feff}ü.:T-]{0,40}",
        ) {
            check(&records, &schema(&columns));
        }
    }

    #[test]
    fn quotes_hold_delimiters_and_ends_of_lines() {
        let schema = schema(&[0, 0]);
        for records in ["\"a,b\",c\nd,\"e\nf\"\n", "\"\",\"x\"", "5\" disk,\"a\"\n"] {
            assert!(check(records, &schema).is_some(), "{records:?}");
        }
    }

    #[test]
    fn what_has_other_rules_is_left_to_the_general_decoder() {
        let schema = schema(&[0, 3]);
        for records in [
            "\"a\"\"b\",1\n",
            "\"a\"b,1\n",
            "a,1\r\n",
            "\u{feff}a,1\n",
            "a,1\n\nb,2\n",
            "a\n",
            "a,1,2\n",
            "a,x\n",
            "a,128\n",
        ] {
            assert!(check(records, &schema).is_none(), "{records:?}");
        }
        assert!(decode(b"\xff,1\n", b',', &schema, 3).is_none());
    }
}
