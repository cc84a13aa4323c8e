//! Digits in quotes where JSON has a date or a time.
//!
//! A number there is so many of the column's units since 1970; `"2024"` is a year to whoever wrote it, and no date.
//! Decoded as texts the two look alike, so lines that have such a value are looked for in what was written.

use arrow::datatypes::{DataType, Schema};
use memchr::memmem::Finder;
use serde_json::Value;

/// Columns of dates and times, and fields within columns.
pub(super) struct Times {
    keys: Vec<Key>,
}

struct Key {
    /// The name as a key is written.
    quoted: Finder<'static>,
    /// Eight digits are a year, a month and a day.
    is_date: bool,
}

impl Times {
    pub(super) fn of(schema: &Schema) -> Self {
        let mut keys = Vec::new();
        for field in schema.fields() {
            find(field.name(), field.data_type(), &mut keys);
        }
        Self { keys }
    }

    /// Whether lines may have such a value. A key that is written with escapes is not found.
    pub(super) fn may_be_quoted(&self, lines: &[u8]) -> bool {
        self.keys.iter().any(|key| {
            let length = key.quoted.needle().len();
            let mut places = key.quoted.find_iter(lines);
            places.any(|place| key.is_followed_by_digits(&lines[place + length..]))
        })
    }
}

fn find(name: &str, data_type: &DataType, keys: &mut Vec<Key>) {
    match data_type {
        DataType::Interval(_) => {}
        time if time.is_temporal() => {
            let quoted = Value::from(name).to_string();
            keys.push(Key {
                quoted: Finder::new(&quoted).into_owned(),
                is_date: is_date(time),
            });
        }
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            find(name, field.data_type(), keys);
        }
        DataType::Struct(fields) => {
            for field in fields {
                find(field.name(), field.data_type(), keys);
            }
        }
        _ => {}
    }
}

impl Key {
    /// What stands behind a key: a colon, perhaps the beginning of a list, and digits in quotes?
    fn is_followed_by_digits(&self, text: &[u8]) -> bool {
        let mut text = text.trim_ascii_start();
        for sign in [":", "[", "\""] {
            match text.strip_prefix(sign.as_bytes()) {
                Some(rest) => text = rest.trim_ascii_start(),
                None if sign == "[" => {}
                None => return false,
            }
        }
        let end = text.iter().position(|byte| *byte == b'"');
        end.is_some_and(|end| is_number(&text[..end], self.is_date))
    }
}

/// Whether a line's value of a type, or one within it, is such a one.
pub(super) fn is_quoted(value: &Value, data_type: &DataType) -> bool {
    match (value, data_type) {
        (Value::String(text), time) if time.is_temporal() => {
            !matches!(time, DataType::Interval(_)) && is_number(text.as_bytes(), is_date(time))
        }
        (
            Value::Array(values),
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _),
        ) => values
            .iter()
            .any(|value| is_quoted(value, field.data_type())),
        (Value::Object(values), DataType::Struct(fields)) => fields.iter().any(|field| {
            let value = values.get(field.name());
            value.is_some_and(|value| is_quoted(value, field.data_type()))
        }),
        _ => false,
    }
}

fn is_date(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64)
}

fn is_number(text: &[u8], is_date: bool) -> bool {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+"));
    let digits = digits.unwrap_or(text);
    !digits.is_empty()
        && digits
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E'))
        && !(is_date && text.len() == 8)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn times() -> Times {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let within = Field::new("w\"", time.clone(), true);
        Times::of(&Schema::new(vec![
            Field::new("d", DataType::Date32, true),
            Field::new("at", time.clone(), true),
            Field::new("l", DataType::new_list(time, true), true),
            Field::new("s", DataType::Struct(vec![within].into()), true),
            Field::new("n", DataType::Int64, true),
        ]))
    }

    #[test]
    fn digits_in_quotes_are_found_behind_keys_of_times() {
        for line in [
            r#"{"d":"2024"}"#,
            r#"{"n":1,"at" : "20240101"}"#,
            r#"{"at":"-1700000000"}"#,
            r#"{"at":"1.7e9"}"#,
            r#"{"l": [ "1", 2]}"#,
            r#"{"s":{"w\"":"1"}}"#,
        ] {
            assert!(times().may_be_quoted(line.as_bytes()), "{line}");
        }
        for line in [
            r#"{"d":"20240108"}"#,
            r#"{"d":2024,"at":1700000000}"#,
            r#"{"at":"2024-01-01","n":"17"}"#,
            r#"{"n":"\"at\":\"17\""}"#,
            r#"{"at":""}"#,
            r#"{"at":null,"l":[1]}"#,
            r#"{"at":"#,
        ] {
            assert!(!times().may_be_quoted(line.as_bytes()), "{line}");
        }
    }
}
