//! Comma-separated values that stand in the text as they are, as in most blocks they do.
//!
//! The general decoder takes one byte after another and copies each value. Where no value has a quote
//! within quotes, the ends of values are found many bytes at a time, and a column is made of the text
//! where it stands: twice as fast, or more. What is not known here or does not fit is left to the general
//! decoder, which says what is wrong.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{
    self as types, ArrowTimestampType, DataType, DecimalType, SchemaRef, TimeUnit,
};
use memchr::{memchr, memchr2_iter, memchr3_iter};

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
                let texts = (first..end).map(|row| values.get(row, column));
                array(texts, field.data_type())
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
            places.find_quoted(memchr3_iter(delimiter, b'\n', b'"', records))?;
        } else {
            places.find_plain(memchr2_iter(delimiter, b'\n', records))?;
        }
        let values = Self {
            text,
            columns,
            rows: places.found.len() / columns.max(1),
            places: places.found,
        };
        // An empty line is no record.
        let has_empty_line =
            columns == 1 && (0..values.rows).any(|row| values.get(row, 0).is_empty());
        (!has_empty_line).then_some(values)
    }

    fn get(&self, row: usize, column: usize) -> &'a str {
        let (start, end) = self.places[row * self.columns + column];
        &self.text[start as usize..end as usize]
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
fn array<'a>(texts: impl Iterator<Item = &'a str>, data_type: &DataType) -> Option<ArrayRef> {
    use DataType as T;
    let values = texts.map(|text| (!text.is_empty()).then_some(text));
    Some(match data_type {
        T::Utf8 => Arc::new(values.collect::<StringArray>()),
        T::Utf8View => Arc::new(values.collect::<StringViewArray>()),
        T::Boolean => Arc::new(parsed(values, boolean).collect::<Option<BooleanArray>>()?),
        T::Int8 => primitives::<types::Int8Type>(values)?,
        T::Int16 => primitives::<types::Int16Type>(values)?,
        T::Int32 => primitives::<types::Int32Type>(values)?,
        T::Int64 => primitives::<types::Int64Type>(values)?,
        T::UInt8 => primitives::<types::UInt8Type>(values)?,
        T::UInt16 => primitives::<types::UInt16Type>(values)?,
        T::UInt32 => primitives::<types::UInt32Type>(values)?,
        T::UInt64 => primitives::<types::UInt64Type>(values)?,
        T::Float32 => primitives::<types::Float32Type>(values)?,
        T::Float64 => primitives::<types::Float64Type>(values)?,
        T::Date32 => primitives::<types::Date32Type>(values)?,
        T::Date64 => primitives::<types::Date64Type>(values)?,
        T::Time32(TimeUnit::Second) => primitives::<types::Time32SecondType>(values)?,
        T::Time32(TimeUnit::Millisecond) => primitives::<types::Time32MillisecondType>(values)?,
        T::Time64(TimeUnit::Microsecond) => primitives::<types::Time64MicrosecondType>(values)?,
        T::Time64(TimeUnit::Nanosecond) => primitives::<types::Time64NanosecondType>(values)?,
        T::Decimal128(precision, scale) => {
            decimals::<types::Decimal128Type>(values, *precision, *scale)?
        }
        T::Decimal256(precision, scale) => {
            decimals::<types::Decimal256Type>(values, *precision, *scale)?
        }
        T::Timestamp(unit, zone) => {
            let zone = zone.as_ref();
            match unit {
                TimeUnit::Second => times::<types::TimestampSecondType>(values, zone)?,
                TimeUnit::Millisecond => times::<types::TimestampMillisecondType>(values, zone)?,
                TimeUnit::Microsecond => times::<types::TimestampMicrosecondType>(values, zone)?,
                TimeUnit::Nanosecond => times::<types::TimestampNanosecondType>(values, zone)?,
            }
        }
        _ => return None,
    })
}

/// The values that texts say, `None` for one that says none; nulls stay nulls.
fn parsed<'a, V>(
    texts: impl Iterator<Item = Option<&'a str>>,
    parse: impl Fn(&str) -> Option<V>,
) -> impl Iterator<Item = Option<Option<V>>> {
    texts.map(move |text| match text {
        Some(text) => parse(text).map(Some),
        None => Some(None),
    })
}

fn primitives<'a, T: Parser>(texts: impl Iterator<Item = Option<&'a str>>) -> Option<ArrayRef> {
    let values = parsed(texts, T::parse).collect::<Option<PrimitiveArray<T>>>()?;
    Some(Arc::new(values))
}

fn decimals<'a, T: DecimalType>(
    texts: impl Iterator<Item = Option<&'a str>>,
    precision: u8,
    scale: i8,
) -> Option<ArrayRef> {
    let parse = |text: &str| parse_decimal::<T>(text, precision, scale).ok();
    let values = parsed(texts, parse).collect::<Option<PrimitiveArray<T>>>()?;
    Some(Arc::new(
        values.with_precision_and_scale(precision, scale).ok()?,
    ))
}

fn times<'a, T: ArrowTimestampType>(
    texts: impl Iterator<Item = Option<&'a str>>,
    zone: Option<&Arc<str>>,
) -> Option<ArrayRef> {
    let tz = Tz::from_str(zone.map_or("UTC", |zone| zone)).ok()?;
    let parse = |text: &str| {
        let time = string_to_datetime(&tz, text).ok()?;
        match T::UNIT {
            TimeUnit::Second => Some(time.timestamp()),
            TimeUnit::Millisecond => Some(time.timestamp_millis()),
            TimeUnit::Microsecond => Some(time.timestamp_micros()),
            TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
        }
    };
    let values = parsed(texts, parse).collect::<Option<PrimitiveArray<T>>>()?;
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
        const NUMBERS: &[&str] = &["0", "7", "+42", "-1", "007"];
        const TIMES: &[&str] = &[
            "2024-02-29T13:37:00",
            "1969-12-31 23:59:59.999999",
            "2024-05-01T00:00:00+02:00",
            "2024-05-01",
        ];
        let zoned = |unit, zone: &str| T::Timestamp(unit, Some(zone.into()));
        vec![
            (T::Utf8, &["x", " two words ", "Zürich", "5\" disk"]),
            (T::Utf8View, &["x", "longer than twelve bytes", "é"]),
            (T::Boolean, &["true", "FALSE"]),
            (T::Int8, NUMBERS),
            (T::Int64, &["9223372036854775807", "-9223372036854775808"]),
            (T::UInt16, &["65535", "0"]),
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
