//! Comma-separated values that stand in the text as they are, as in most blocks they do.
//!
//! The general decoder takes one byte after another and copies each value. Where no value has a quote
//! within quotes, the ends of values are found many bytes at a time, and a column is made of the text
//! where it stands: several times as fast. What is not known here or does not fit is left to the general
//! decoder, which says what is wrong.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use memchr::memchr;

use super::marks::Marks;
use super::typed::{ColumnTexts, Numbers, array};

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
                array(&texts, field.data_type(), Numbers::AsTyped)
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

impl ColumnTexts for Texts<'_> {
    fn count(&self) -> usize {
        self.rows.len() / self.columns
    }

    /// Empty texts are null.
    fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        let rows = self.rows.chunks_exact(self.columns);
        rows.map(|row| {
            let (start, end) = row[self.column];
            let text = &self.text[start as usize..end as usize];
            (!text.is_empty()).then_some(text)
        })
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

#[cfg(test)]
mod tests {
    use arrow::csv::ReaderBuilder;
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use proptest::prelude::*;

    use super::super::csv::{decimals_as_texts, with_decimals};
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
            (T::Decimal64(9, 1), &["1.25", "-7", "12345678.9"]),
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
        let texts = ReaderBuilder::new(decimals_as_texts(schema)).with_batch_size(batch_rows);
        let batches = texts.build(records).ok()?;
        let batches = batches.map(|batch| with_decimals(batch?, schema.fields()));
        batches.collect::<Result<_, _>>().ok()
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
