//! Arrow columns as Kusto's types and JSON values.

use std::io::Cursor;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType, UInt64Type,
};
use arrow::json::ArrayWriter;
use arrow::util::display::array_value_to_string;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use serde_json::{Number, Value};

use crate::ServiceError;
use crate::command::column_type;

/// What Kusto calls a column: in v2 by its own name, in v1 by .NET's too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnKind {
    pub(super) column_type: &'static str,
    pub(super) data_type: &'static str,
}

fn kind_of(field: &Field) -> ColumnKind {
    let kind = column_type(field);
    // .NET's name without where it is from: `Int64`, `SqlDecimal`.
    let data_type = kind.dotnet().rsplit('.').next().unwrap_or_default();
    ColumnKind {
        column_type: kind.name(),
        data_type,
    }
}

/// The columns of an answer.
#[derive(Debug)]
pub(super) struct Columns(Vec<(String, ColumnKind)>);

impl Columns {
    pub(super) fn new(schema: &Schema) -> Self {
        let columns = schema.fields().iter();
        Self(
            columns
                .map(|field| (field.name().clone(), kind_of(field)))
                .collect(),
        )
    }

    /// One object a column: its name, and what `with` adds.
    pub(super) fn describe(&self, with: impl Fn(&ColumnKind) -> Value) -> Vec<Value> {
        let columns = self.0.iter();
        columns
            .map(|(name, kind)| {
                let mut described = with(kind);
                described["ColumnName"] = Value::from(name.as_str());
                described
            })
            .collect()
    }

    /// The rows of a batch.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Vec<Vec<Value>>, ServiceError> {
        let mut rows = vec![Vec::with_capacity(self.0.len()); batch.num_rows()];
        for ((_, kind), array) in self.0.iter().zip(batch.columns()) {
            let values = values(*kind, array)
                .map_err(|error| ServiceError::internal(format!("a column as JSON: {error}")))?;
            for (row, value) in rows.iter_mut().zip(values) {
                row.push(value);
            }
        }
        Ok(rows)
    }
}

fn values(kind: ColumnKind, array: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    let of = |value: &dyn Fn(usize) -> Value| -> Vec<Value> {
        let rows = 0..array.len();
        rows.map(|row| {
            if array.is_null(row) {
                Value::Null
            } else {
                value(row)
            }
        })
        .collect()
    };
    Ok(match kind.column_type {
        "bool" => {
            let array = array.as_boolean();
            of(&|row| Value::from(array.value(row)))
        }
        "long" if *array.data_type() == DataType::UInt64 => {
            let array = array.as_primitive::<UInt64Type>();
            of(&|row| Value::from(array.value(row)))
        }
        "int" | "long" => {
            let array = cast(array, &DataType::Int64)?;
            let array = array.as_primitive::<Int64Type>();
            of(&|row| Value::from(array.value(row)))
        }
        "real" => {
            let array = cast(array, &DataType::Float64)?;
            let array = array.as_primitive::<Float64Type>();
            of(&|row| real(array.value(row)))
        }
        "datetime" => {
            if let Some(array) = array.as_primitive_opt::<TimestampNanosecondType>() {
                return Ok(of(&|row| {
                    datetime(DateTime::from_timestamp_nanos(array.value(row)))
                }));
            }
            // Years that nanoseconds do not reach.
            let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let array = array.as_primitive::<TimestampMicrosecondType>();
            of(&|row| {
                let time = DateTime::from_timestamp_micros(array.value(row));
                time.filter(|_| array.is_valid(row))
                    .map_or(Value::Null, datetime)
            })
        }
        "dynamic" => return dynamic(array),
        _ => {
            let texts = (0..array.len()).map(|row| {
                if array.is_null(row) {
                    return Ok(Value::Null);
                }
                array_value_to_string(array, row).map(Value::from)
            });
            return texts.collect();
        }
    })
}

/// JSON has no such numbers; Kusto writes their names.
fn real(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

/// Kusto's resolution is 100 ns.
fn datetime(time: DateTime<Utc>) -> Value {
    let ticks = time.timestamp_subsec_nanos() / 100;
    Value::from(format!("{}.{ticks:07}Z", time.format("%Y-%m-%dT%H:%M:%S")))
}

fn dynamic(array: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    if let Some(texts) = array.as_string_opt::<i32>() {
        // A column that is declared dynamic holds JSON as text, or should.
        let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        return Ok(texts
            .iter()
            .map(|text| text.map_or(Value::Null, parsed))
            .collect());
    }
    let batch = RecordBatch::try_from_iter_with_nullable([("v", ArrayRef::clone(array), true)])?;
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let rows: Vec<serde_json::Map<String, Value>> =
        serde_json::from_reader(Cursor::new(writer.into_inner()))
            .map_err(|error| arrow::error::ArrowError::JsonError(error.to_string()))?;
    let values = rows.into_iter();
    Ok(values
        .map(|mut row| row.remove("v").unwrap_or(Value::Null))
        .collect())
}

/// The value of a query parameter: a JSON value, or the text of a Kusto literal such as `'x'`,
/// `long(1)` or `datetime(2024-01-01)`.
pub(super) fn parameter(value: &Value) -> Result<ScalarValue, ServiceError> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => ScalarValue::from(value),
            (None, value) => ScalarValue::Float64(value),
        },
        Value::String(text) => literal(text),
        other => {
            return Err(ServiceError::invalid(format!(
                "the parameter {other} is no scalar"
            )));
        }
    })
}

fn literal(text: &str) -> ScalarValue {
    let text = text.trim();
    for quote in ['\'', '"'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return ScalarValue::from(inner.replace(&format!("\\{quote}"), &quote.to_string()));
        }
    }
    let inner = text
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or(text);
    if inner == "null" {
        return ScalarValue::Null;
    }
    if let Ok(value) = inner.parse::<i64>() {
        return ScalarValue::from(value);
    }
    match (inner.parse::<f64>(), inner.parse::<bool>()) {
        (Ok(value), _) => ScalarValue::from(value),
        (_, Ok(value)) => ScalarValue::from(value),
        // Dates and the rest are read by what they are compared with.
        _ => ScalarValue::from(inner),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int32Array, TimestampMicrosecondArray};
    use serde_json::json;

    use super::*;

    fn column(array: ArrayRef) -> Vec<Value> {
        values(
            kind_of(&Field::new("c", array.data_type().clone(), true)),
            &array,
        )
        .expect("written")
    }

    #[test]
    fn values_are_written_as_kusto_writes_them() {
        let reals = vec![Some(1.5), None, Some(f64::NAN), Some(f64::NEG_INFINITY)];
        assert_eq!(
            column(Arc::new(Float64Array::from(reals))),
            [json!(1.5), Value::Null, json!("NaN"), json!("-Infinity")]
        );
        let times = TimestampMicrosecondArray::from(vec![1_357_034_400_123_456, -1]);
        assert_eq!(
            column(Arc::new(times)),
            [
                "2013-01-01T10:00:00.1234560Z",
                "1969-12-31T23:59:59.9999990Z"
            ]
        );
        assert_eq!(column(Arc::new(Int32Array::from(vec![7]))), [json!(7)]);
        assert_eq!(
            column(Arc::new(BooleanArray::from(vec![true]))),
            [json!(true)]
        );
    }

    #[test]
    fn parameters_are_literals_or_values() {
        for (value, expected) in [
            (json!("'it\\'s'"), ScalarValue::from("it's")),
            (json!("long(7)"), ScalarValue::from(7_i64)),
            (json!(7), ScalarValue::from(7_i64)),
            (json!("real(1.5)"), ScalarValue::from(1.5)),
            (
                json!("datetime(2024-01-01)"),
                ScalarValue::from("2024-01-01"),
            ),
            (json!("true"), ScalarValue::from(true)),
            (json!("int(null)"), ScalarValue::Null),
        ] {
            assert_eq!(parameter(&value).expect("a scalar"), expected, "{value}");
        }
    }
}
