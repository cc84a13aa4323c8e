//! Tables whose rows stand in files that the system does not own.

use arrow::datatypes::SchemaRef;

use crate::TableName;

/// Locations of one external table: each is listed when the table is read.
pub const EXTERNAL_LOCATIONS_MAX: usize = 100;
/// The kinds of places that are read on behalf of whoever names one.
const EXTERNAL_SCHEMES: [&str; 10] = [
    "file", "s3", "s3a", "az", "azure", "abfs", "abfss", "gs", "https", "http",
];

/// Files outside the bucket, read as a table when a query names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTable {
    /// Its name, which no table of the database has.
    pub name: TableName,
    /// Its columns.
    pub schema: SchemaRef,
    /// How the files are encoded.
    pub format: ExternalFormat,
    /// Files, or folders of files (ending in `/`), by URL. Without credentials: the node that
    /// reads them has its own.
    pub locations: Vec<String>,
    /// What it is for.
    pub docstring: String,
    /// Where a browser shows it.
    pub folder: String,
}

/// How the files of an external table are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalFormat {
    /// Comma-separated values.
    Csv {
        /// The first line of each file names the columns.
        has_header: bool,
    },
    /// One JSON object a line.
    Json,
    /// Apache Parquet.
    Parquet,
}

impl ExternalFormat {
    /// What commands and records call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv { .. } => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }
}

/// An external table that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExternalTable {
    /// Nowhere to read from, or too many places.
    #[error("external table '{0}' has 1 to {EXTERNAL_LOCATIONS_MAX} locations")]
    Locations(TableName),
    /// A location that is no URL, or holds a secret.
    #[error("external table '{table}': location '{location}' {reason}")]
    Location {
        /// The table.
        table: TableName,
        /// The location, up to where a secret may begin.
        location: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No columns.
    #[error("external table '{0}' has no columns")]
    Columns(TableName),
}

impl ExternalTable {
    /// Checks what can be told without reading a file.
    ///
    /// # Errors
    /// When columns or locations are missing, or a location holds a secret: it would stand in
    /// the log and reach every follower.
    pub fn check(&self) -> Result<(), InvalidExternalTable> {
        if self.schema.fields().is_empty() {
            return Err(InvalidExternalTable::Columns(self.name.clone()));
        }
        if self.locations.is_empty() || self.locations.len() > EXTERNAL_LOCATIONS_MAX {
            return Err(InvalidExternalTable::Locations(self.name.clone()));
        }
        for location in &self.locations {
            // What may be a secret is not said back.
            let shown = location.split([';', '?']).next().unwrap_or_default();
            let shown = shown.rsplit('@').next().unwrap_or_default();
            let fail = |reason| {
                Err(InvalidExternalTable::Location {
                    table: self.name.clone(),
                    location: shown.to_owned(),
                    reason,
                })
            };
            let Some((scheme, _)) = location.split_once("://") else {
                return fail("is no URL such as s3://bucket/folder/ or file:///folder/file.csv");
            };
            if !EXTERNAL_SCHEMES.contains(&&*scheme.to_ascii_lowercase()) {
                return fail(
                    "is of no kind that is read: file://, s3://, az://, gs://, https://, http://",
                );
            }
            let authority = location.split("://").nth(1).unwrap_or_default();
            let authority = authority.split('/').next().unwrap_or_default();
            if location.contains(';') || location.contains('?') || authority.contains('@') {
                return fail(
                    "holds a key or a query: credentials come from the environment of the node \
                     that reads it",
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table(location: &str) -> ExternalTable {
        ExternalTable {
            name: TableName::new("e").expect("a name"),
            schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)])),
            format: ExternalFormat::Parquet,
            locations: vec![location.to_owned()],
            docstring: String::new(),
            folder: String::new(),
        }
    }

    #[test]
    fn a_location_is_a_url_without_a_secret() {
        for good in [
            "s3://bucket/folder/",
            "https://host/a.csv",
            "file:///data/x@y.parquet",
        ] {
            assert_eq!(table(good).check(), Ok(()), "{good}");
        }
        for bad in [
            "/data/file",
            "https://account.blob.example/c;KEY",
            "https://host/a.csv?sig=KEY",
            "https://user:KEY@host/a.csv",
            "slipstream://extents/a.parquet",
            "memory:///a.csv",
        ] {
            let error = table(bad).check().expect_err(bad);
            assert!(!error.to_string().contains("KEY"), "{error}");
        }
        let nowhere = ExternalTable {
            locations: Vec::new(),
            ..table("")
        };
        assert!(nowhere.check().is_err());
    }
}
