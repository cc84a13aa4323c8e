//! Kusto's column types and Arrow's.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use slipstream_kusto::{ColumnDefinition, ColumnType};

use super::rows::KUSTO_TYPE;

/// Digits of a `decimal`: those that 128 bits hold.
const DECIMAL_PRECISION: u8 = 38;
/// Of them, how many stand behind the point.
const DECIMAL_SCALE: i8 = 17;
/// The key of a field's metadata that says what a column is for.
const DOCSTRING: &str = "kusto.docstring";

/// A column of a table, as a command describes it. Where Arrow has no such type (`dynamic`,
/// `guid`, `timespan`) the values are text and the field says what they mean.
pub(super) fn field(column: &ColumnDefinition) -> Field {
    let data_type = match column.column_type {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::DateTime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Decimal => DataType::Decimal128(DECIMAL_PRECISION, DECIMAL_SCALE),
        ColumnType::Int => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Real => DataType::Float64,
        ColumnType::String | ColumnType::Dynamic | ColumnType::Guid | ColumnType::TimeSpan => {
            DataType::Utf8
        }
    };
    let mut field = Field::new(&column.name, data_type, true);
    let mut metadata = std::collections::HashMap::new();
    let own = matches!(
        column.column_type,
        ColumnType::Dynamic | ColumnType::Guid | ColumnType::TimeSpan
    );
    if own {
        metadata.insert(KUSTO_TYPE.to_owned(), column.column_type.to_string());
    }
    if let Some(docstring) = &column.docstring {
        metadata.insert(DOCSTRING.to_owned(), docstring.clone());
    }
    field.set_metadata(metadata);
    field
}

/// What Kusto calls a column's type.
pub(crate) fn column_type(field: &Field) -> ColumnType {
    let said = field.metadata().get(KUSTO_TYPE);
    let said = said.and_then(|name| name.parse().ok());
    said.unwrap_or_else(|| of_arrow(field.data_type()))
}

fn of_arrow(data_type: &DataType) -> ColumnType {
    use DataType as T;
    match data_type {
        T::Boolean => ColumnType::Bool,
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => ColumnType::Int,
        T::Int64 | T::UInt32 | T::UInt64 => ColumnType::Long,
        T::Float16 | T::Float32 | T::Float64 => ColumnType::Real,
        T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => {
            ColumnType::Decimal
        }
        T::Timestamp(..) | T::Date32 | T::Date64 => ColumnType::DateTime,
        T::List(_)
        | T::LargeList(_)
        | T::FixedSizeList(..)
        | T::ListView(_)
        | T::LargeListView(_)
        | T::Struct(_)
        | T::Map(..) => ColumnType::Dynamic,
        T::Dictionary(_, values) => of_arrow(values),
        _ => ColumnType::String,
    }
}

/// What a column is for.
pub(super) fn docstring(field: &Field) -> &str {
    field.metadata().get(DOCSTRING).map_or("", String::as_str)
}

/// `name:type,name:type`.
pub(super) fn csl_schema(schema: &SchemaRef) -> String {
    let columns = schema.fields().iter();
    let columns = columns.map(|field| format!("{}:{}", field.name(), column_type(field)));
    columns.collect::<Vec<_>>().join(",")
}

/// The columns as Kusto's JSON has them.
pub(super) fn json_columns(fields: &[Arc<Field>]) -> serde_json::Value {
    let columns = fields.iter().map(|field| {
        let kind = column_type(field);
        let mut column = serde_json::json!({
            "Name": field.name(), "Type": kind.dotnet(), "CslType": kind.to_string(),
        });
        if !docstring(field).is_empty() {
            column["DocString"] = docstring(field).into();
        }
        column
    });
    serde_json::Value::from_iter(columns)
}
