//! Types of text columns, found by looking at their first rows.

use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, TimeUnit};

/// Rows that are looked at. A column that changes its kind later is a bad row then, which says
/// so; looking at everything would mean reading the file twice.
pub(crate) const SAMPLE_ROWS: usize = 100_000;
/// Bytes of text that are kept while looking.
pub(crate) const SAMPLE_BYTES: usize = 16 << 20;

/// What a column may still be, from the narrowest.
#[derive(Debug, Clone, Copy)]
struct Candidates {
    has_values: bool,
    integer: bool,
    float: bool,
    boolean: bool,
    date: bool,
    timestamp: bool,
    timestamp_utc: bool,
}

impl Candidates {
    const ALL: Self = Self {
        has_values: false,
        integer: true,
        float: true,
        boolean: true,
        date: true,
        timestamp: true,
        timestamp_utc: true,
    };

    fn see(&mut self, text: &str) {
        self.has_values = true;
        self.integer = self.integer && is_integer(text);
        self.float = self.float && is_float(text);
        self.boolean = self.boolean && is_boolean(text);
        let is_date = is_date(text);
        self.date = self.date && is_date;
        if self.timestamp || self.timestamp_utc {
            // A day alone is midnight of it, among times of day.
            let has_zone = if is_date { Some(false) } else { has_zone(text) };
            self.timestamp = self.timestamp && has_zone == Some(false);
            self.timestamp_utc = self.timestamp_utc && has_zone == Some(true);
        }
    }

    /// What a quoted text may be: `"1"` is quoted because it is no number.
    const QUOTED: Self = Self {
        integer: false,
        float: false,
        boolean: false,
        ..Self::ALL
    };

    fn decide(self) -> DataType {
        match self {
            Self {
                has_values: false, ..
            } => DataType::Utf8,
            Self { integer: true, .. } => DataType::Int64,
            Self { float: true, .. } => DataType::Float64,
            Self { boolean: true, .. } => DataType::Boolean,
            Self { date: true, .. } => DataType::Date32,
            Self {
                timestamp: true, ..
            } => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self {
                timestamp_utc: true,
                ..
            } => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8,
        }
    }
}

/// Looks at rows of text and says what their columns are.
#[derive(Debug)]
pub(crate) struct Inference {
    columns: Vec<(String, Candidates)>,
}

impl Inference {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            columns: names
                .into_iter()
                .map(|name| (name, Candidates::ALL))
                .collect(),
        }
    }

    /// Columns whose values are texts in any case, and may be texts of dates and times.
    pub(crate) fn of_texts(names: impl IntoIterator<Item = String>) -> Self {
        let columns = names.into_iter().map(|name| (name, Candidates::QUOTED));
        Self {
            columns: columns.collect(),
        }
    }

    /// Takes in one value; `None` for null, which any column may hold.
    pub(crate) fn see(&mut self, column: usize, value: Option<&str>) {
        if let (Some((_, candidates)), Some(value)) = (self.columns.get_mut(column), value) {
            candidates.see(value);
        }
    }

    pub(crate) fn schema(self) -> Schema {
        let fields = self
            .columns
            .into_iter()
            .map(|(name, c)| Field::new(name, c.decide(), true));
        Schema::new(fields.collect::<Vec<_>>())
    }
}

/// Leading zeros mean something that a number would lose: postal codes, account numbers.
fn has_leading_zero(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.")
}

fn is_integer(text: &str) -> bool {
    text.parse::<i64>().is_ok()
        && !text.starts_with('+')
        && !has_leading_zero(text.trim_start_matches('-'))
}

fn is_float(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.parse::<f64>().is_ok()
        && !has_leading_zero(text.trim_start_matches('-'))
        && is_held_by_double(text)
}

/// Whether a double is the very number that digits say: of those beyond 2^53, few are. What is rounded is no
/// number to calculate with but a name, such as an id, and another one's afterwards.
pub(crate) fn is_held_by_double(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    // So many are always exact.
    let is_short = digits.len() <= 15;
    if is_short || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    let numbers = (digits.parse::<u128>(), digits.parse::<f64>());
    matches!(numbers, (Ok(whole), Ok(double)) if double as u128 == whole)
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

fn is_date(text: &str) -> bool {
    text.len() == "2013-01-31".len() && Date32Type::parse(text).is_some()
}

/// Whether a time names its zone; `None` when it is no time.
fn has_zone(text: &str) -> Option<bool> {
    // The decoder has the last word: it reads some times that others do not, and the reverse.
    string_to_datetime(&chrono::Utc, text).ok()?;
    if chrono::DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)).is_ok() {
        return Some(true);
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let is_time = formats
        .iter()
        .any(|format| chrono::NaiveDateTime::parse_from_str(text, format).is_ok());
    is_time.then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(values: &[Option<&str>]) -> DataType {
        let mut inference = Inference::new(["c".to_owned()]);
        values.iter().for_each(|value| inference.see(0, *value));
        inference.schema().field(0).data_type().clone()
    }

    #[test]
    fn the_narrowest_type_that_holds_everything_is_found() {
        let micros =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let cases: [(&[Option<&str>], DataType); 18] = [
            (&[Some("1"), None, Some("-7")], DataType::Int64),
            (&[Some("1"), Some("2.5")], DataType::Float64),
            (&[Some("1e3"), Some("0.5")], DataType::Float64),
            (&[Some("true"), Some("FALSE")], DataType::Boolean),
            (&[Some("2013-01-31")], DataType::Date32),
            (&[Some("2013-01-01T10:00:00Z")], micros(Some("UTC"))),
            (&[Some("2013-01-01 10:00:00")], micros(None)),
            (
                &[Some("2013-01-01"), Some("2013-01-01T10:00:00.5")],
                micros(None),
            ),
            (
                &[Some("2013-01-01 10:00:00"), Some("2013-01-01")],
                micros(None),
            ),
            (
                &[Some("2013-01-01T10:00:00Z"), Some("2013-01-01")],
                DataType::Utf8,
            ),
            (&[Some("00501"), Some("10001")], DataType::Utf8),
            (&[Some("12345678901234567890")], DataType::Utf8),
            (&[Some("9007199254740993")], DataType::Int64),
            (&[Some("9007199254740993"), Some("0.5")], DataType::Utf8),
            (&[Some("9007199254740992"), Some("0.5")], DataType::Float64),
            (
                &[Some("-18446744073709551616"), Some("1e30")],
                DataType::Float64,
            ),
            (&[Some("1"), Some("one")], DataType::Utf8),
            (&[None], DataType::Utf8),
        ];
        for (values, expected) in cases {
            assert_eq!(infer(values), expected, "{values:?}");
        }
    }
}
