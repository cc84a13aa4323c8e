//! The types of columns.

use std::fmt;
use std::str::FromStr;

/// What a column, or a parameter of a function, holds (*Scalar data types*, Kusto documentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// A moment.
    DateTime,
    /// 128 bits with a decimal point.
    Decimal,
    /// Any JSON.
    Dynamic,
    /// 128 bits that name something.
    Guid,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A 64-bit floating-point number.
    Real,
    /// Text.
    String,
    /// A span of time.
    TimeSpan,
}

/// A name that is no type's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no type: there are bool, datetime, decimal, dynamic, guid, int, long, real, string \
     and timespan"
)]
pub struct UnknownColumnType(String);

/// Kusto's name, its .NET name, other names in small letters.
const NAMES: [(ColumnType, &str, &str, &[&str]); 10] = [
    (
        ColumnType::Bool,
        "bool",
        "System.SByte",
        &["boolean", "system.boolean"],
    ),
    (
        ColumnType::DateTime,
        "datetime",
        "System.DateTime",
        &["date"],
    ),
    (
        ColumnType::Decimal,
        "decimal",
        "System.Data.SqlTypes.SqlDecimal",
        &["system.decimal", "sqldecimal"],
    ),
    (ColumnType::Dynamic, "dynamic", "System.Object", &[]),
    (
        ColumnType::Guid,
        "guid",
        "System.Guid",
        &["uuid", "uniqueid"],
    ),
    (ColumnType::Int, "int", "System.Int32", &["int32"]),
    (ColumnType::Long, "long", "System.Int64", &["int64"]),
    (ColumnType::Real, "real", "System.Double", &["double"]),
    (ColumnType::String, "string", "System.String", &[]),
    (
        ColumnType::TimeSpan,
        "timespan",
        "System.TimeSpan",
        &["time"],
    ),
];

impl ColumnType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::Bool,
        Self::DateTime,
        Self::Decimal,
        Self::Dynamic,
        Self::Guid,
        Self::Int,
        Self::Long,
        Self::Real,
        Self::String,
        Self::TimeSpan,
    ];

    /// Kusto's name.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// The .NET name, as Kusto answers it: a bool is a `System.SByte` there.
    pub const fn dotnet(self) -> &'static str {
        NAMES[self as usize].2
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ColumnType {
    type Err = UnknownColumnType;

    /// Kusto's name, an alias or a .NET name, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_named = |(_, name, dotnet, others): &&(Self, &str, &str, &[&str])| {
            text.eq_ignore_ascii_case(name)
                || text.eq_ignore_ascii_case(dotnet)
                || others.iter().any(|other| text.eq_ignore_ascii_case(other))
        };
        match NAMES.iter().find(is_named) {
            Some(entry) => Ok(entry.0),
            None => Err(UnknownColumnType(text.chars().take(64).collect())),
        }
    }
}
