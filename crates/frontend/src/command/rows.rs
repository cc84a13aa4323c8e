//! The answer of a command: a few rows in memory, with Kusto's types.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use slipstream_model::Timestamp;

use crate::ServiceError;

/// The key of a field's metadata that names its type in Kusto, where Arrow has none for it.
pub(crate) const KUSTO_TYPE: &str = "kusto.type";

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Long(i64),
    Real(f64),
    Bool(bool),
    Time(Timestamp),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Long(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::from(count as u64)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Timestamp> for Cell {
    fn from(at: Timestamp) -> Self {
        Self::Time(at)
    }
}

impl From<serde_json::Value> for Cell {
    /// As its text: where Kusto documents JSON in a column, the column is a string.
    fn from(value: serde_json::Value) -> Self {
        Self::Text(value.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Guid,
    Dynamic,
    Timespan,
    Long,
    Real,
    Bool,
    Time,
}

/// Rows under named columns.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    columns: Vec<(&'static str, Kind)>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    pub(crate) fn new(columns: &[(&'static str, Kind)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a value for each column");
        self.rows.push(row);
    }

    pub(crate) fn with(mut self, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        rows.into_iter().for_each(|row| self.push(row));
        self
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|(name, kind)| {
            let field = Field::new(*name, data_type(*kind), true);
            let kusto = match kind {
                Kind::Guid => "guid",
                Kind::Dynamic => "dynamic",
                Kind::Timespan => "timespan",
                _ => return field,
            };
            field.with_metadata([(KUSTO_TYPE.to_owned(), kusto.to_owned())].into())
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(crate) fn batch(&self) -> Result<RecordBatch, ServiceError> {
        let columns = self.columns.iter().enumerate();
        let columns = columns.map(|(index, (_, kind))| self.column(index, *kind));
        RecordBatch::try_new(self.schema(), columns.collect())
            .map_err(|error| ServiceError::internal(error.to_string()))
    }

    fn column(&self, index: usize, kind: Kind) -> ArrayRef {
        let cells = || self.rows.iter().map(|row| &row[index]);
        match kind {
            Kind::Text | Kind::Guid | Kind::Dynamic | Kind::Timespan => {
                Arc::new(StringArray::from_iter(cells().map(|cell| match cell {
                    Cell::Text(text) => Some(text.clone()),
                    _ => None,
                })))
            }
            Kind::Long => Arc::new(Int64Array::from_iter(cells().map(|cell| match cell {
                Cell::Long(value) => Some(*value),
                _ => None,
            }))),
            Kind::Real => Arc::new(Float64Array::from_iter(cells().map(|cell| match cell {
                Cell::Real(value) => Some(*value),
                _ => None,
            }))),
            Kind::Bool => Arc::new(BooleanArray::from_iter(cells().map(|cell| match cell {
                Cell::Bool(value) => Some(*value),
                _ => None,
            }))),
            Kind::Time => {
                let times = cells().map(|cell| match cell {
                    Cell::Time(at) => Some(at.as_micros()),
                    _ => None,
                });
                Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC"))
            }
        }
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Guid | Kind::Dynamic | Kind::Timespan => DataType::Utf8,
        Kind::Long => DataType::Int64,
        Kind::Real => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}
