//! Columns of system tables, made from rows.
//!
//! Counts are `Int64` rather than unsigned: every client has a place for that.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use slipstream_model::Timestamp;

/// One column of a system table over rows of type `R`.
pub(super) struct SystemColumn<R> {
    name: &'static str,
    data_type: DataType,
    is_nullable: bool,
    build: Build<R>,
}

/// Takes the column's values out of the rows.
type Build<R> = Box<dyn Fn(&[R]) -> ArrayRef + Send + Sync>;

impl<R> SystemColumn<R> {
    pub(super) fn field(&self) -> Field {
        Field::new(self.name, self.data_type.clone(), self.is_nullable)
    }

    pub(super) fn build(&self, rows: &[R]) -> ArrayRef {
        (self.build)(rows)
    }
}

/// Text.
pub(super) fn text<R, T: Display>(
    name: &'static str,
    value: impl Fn(&R) -> T + Send + Sync + 'static,
) -> SystemColumn<R> {
    let build = move |rows: &[R]| {
        let values = rows.iter().map(|row| value(row).to_string());
        Arc::new(StringArray::from_iter_values(values)) as ArrayRef
    };
    SystemColumn {
        name,
        data_type: DataType::Utf8,
        is_nullable: false,
        build: Box::new(build),
    }
}

/// Text, or null.
pub(super) fn optional_text<R, T: Display>(
    name: &'static str,
    value: impl Fn(&R) -> Option<T> + Send + Sync + 'static,
) -> SystemColumn<R> {
    let build = move |rows: &[R]| {
        let values = rows
            .iter()
            .map(|row| value(row).map(|value| value.to_string()));
        Arc::new(StringArray::from_iter(values)) as ArrayRef
    };
    SystemColumn {
        name,
        data_type: DataType::Utf8,
        is_nullable: true,
        build: Box::new(build),
    }
}

/// A count.
pub(super) fn count<R>(
    name: &'static str,
    value: impl Fn(&R) -> u64 + Send + Sync + 'static,
) -> SystemColumn<R> {
    let mut column = optional_count(name, move |row| Some(value(row)));
    column.is_nullable = false;
    column
}

/// A count, or null.
pub(super) fn optional_count<R>(
    name: &'static str,
    value: impl Fn(&R) -> Option<u64> + Send + Sync + 'static,
) -> SystemColumn<R> {
    let build = move |rows: &[R]| {
        let values = rows
            .iter()
            .map(|row| value(row).map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
        Arc::new(Int64Array::from_iter(values)) as ArrayRef
    };
    SystemColumn {
        name,
        data_type: DataType::Int64,
        is_nullable: true,
        build: Box::new(build),
    }
}

/// A duration in milliseconds, or null.
pub(super) fn optional_millis<R>(
    name: &'static str,
    value: impl Fn(&R) -> Option<Duration> + Send + Sync + 'static,
) -> SystemColumn<R> {
    optional_count(name, move |row| {
        value(row).map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    })
}

/// A moment.
pub(super) fn time<R>(
    name: &'static str,
    value: impl Fn(&R) -> Timestamp + Send + Sync + 'static,
) -> SystemColumn<R> {
    let mut column = optional_time(name, move |row| Some(value(row)));
    column.is_nullable = false;
    column
}

/// A moment, or null.
pub(super) fn optional_time<R>(
    name: &'static str,
    value: impl Fn(&R) -> Option<Timestamp> + Send + Sync + 'static,
) -> SystemColumn<R> {
    let build = move |rows: &[R]| {
        let values = rows.iter().map(|row| value(row).map(Timestamp::as_micros));
        Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC")) as ArrayRef
    };
    SystemColumn {
        name,
        data_type: DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        is_nullable: true,
        build: Box::new(build),
    }
}
