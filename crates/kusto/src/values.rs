//! Types and literals of Kusto.

mod column_type;
mod datetime;
mod timespan;

pub use column_type::{ColumnType, UnknownColumnType};
pub use datetime::parse_datetime;
pub use timespan::{format_timespan, parse_timespan};

#[cfg(test)]
mod tests;
