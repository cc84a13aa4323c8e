//! What can go wrong with a query, and how callers tell it apart.

use std::error::Error;
use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use vortex::error::VortexError;

use crate::suggestion::did_you_mean;
use crate::table::{ExtentFault, FaultKind};

/// What kind of failure a [`QueryError`] is: what doors map to their own status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueryErrorKind {
    /// The text is not SQL.
    Syntax,
    /// The SQL does not fit the schema: unknown column or function, types that do not match.
    Planning,
    /// A database or table that does not exist.
    NotFound,
    /// A version that was never there, or is not yet.
    VersionNotFound,
    /// A version that was there, and is no longer kept as a whole.
    VersionNotKept,
    /// A statement that writes, where only reading is possible.
    ReadOnly,
    /// A statement or feature that this system does not have.
    Unsupported,
    /// The query needs more memory or spill space than it may have.
    ResourcesExhausted,
    /// Too many queries are waiting; trying again later is safe.
    Overloaded,
    /// The query took longer than it may, waiting included.
    DeadlineExceeded,
    /// The client went away, or the node is shutting down.
    Cancelled,
    /// An extent is missing, cut short or damaged.
    DataCorrupt,
    /// The bucket could not be read; trying again is safe.
    Storage,
    /// A value made the query fail: a division by zero, a cast that does not work out.
    Execution,
    /// A defect of this program.
    Internal,
}

/// A failed query. Reads as one sentence that names the object and says what to do.
#[derive(Debug, Clone)]
pub struct QueryError {
    kind: QueryErrorKind,
    message: String,
}

impl QueryError {
    /// An error of a kind, in the caller's words.
    pub fn new(kind: QueryErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> QueryErrorKind {
        self.kind
    }

    pub(crate) fn syntax(error: &DataFusionError) -> Self {
        let message = match error.find_root() {
            DataFusionError::SQL(parser, _) => without_prefix(&parser.to_string()).to_owned(),
            other => without_prefix(&other.strip_backtrace()).to_owned(),
        };
        Self::new(
            QueryErrorKind::Syntax,
            format!("this is not valid SQL: {message}"),
        )
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for QueryError {}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        if let Some(fault) = find::<ExtentFault>(&error) {
            return Self::from(fault);
        }
        if let Some(inner) = find::<QueryError>(&error) {
            return inner.clone();
        }
        let root = error.find_root();
        if let DataFusionError::SchemaError(schema, _) = root {
            return Self::new(QueryErrorKind::Planning, describe_schema_error(schema));
        }
        let message = without_prefix(&root.strip_backtrace()).to_owned();
        Self::new(kind_of(root), message)
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

impl From<&ExtentFault> for QueryError {
    fn from(fault: &ExtentFault) -> Self {
        let kind = match fault.kind() {
            FaultKind::Damaged => QueryErrorKind::DataCorrupt,
            FaultKind::NotKept => QueryErrorKind::VersionNotKept,
            FaultKind::Unreadable => QueryErrorKind::Storage,
        };
        Self::new(kind, fault.to_string())
    }
}

/// The first error of a type in the chain of causes.
fn find<T: Error + 'static>(error: &DataFusionError) -> Option<&T> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether the engine could not make sense of an extent's bytes.
pub(crate) fn is_decoding_failure(error: &DataFusionError) -> bool {
    find::<ExtentFault>(error).is_none()
        && (find::<ParquetError>(error).is_some()
            || matches!(find::<ArrowError>(error), Some(ArrowError::ParquetError(_))))
}

/// Whether an error comes from the reader of local forms. Of a file that cannot be opened only the
/// text is left by then.
pub(crate) fn is_local_failure(error: &DataFusionError) -> bool {
    find::<VortexError>(error).is_some()
        || matches!(error.find_root(), DataFusionError::Execution(text)
            if text.starts_with("Failed to open Vortex file"))
}

fn kind_of(root: &DataFusionError) -> QueryErrorKind {
    use QueryErrorKind as Kind;
    match root {
        DataFusionError::SQL(..) => Kind::Syntax,
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => Kind::Planning,
        DataFusionError::NotImplemented(_) => Kind::Unsupported,
        DataFusionError::ResourcesExhausted(_) => Kind::ResourcesExhausted,
        DataFusionError::ObjectStore(_) => Kind::Storage,
        DataFusionError::ArrowError(..)
        | DataFusionError::Execution(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::External(_) => Kind::Execution,
        // A spill file that could not be written is the usual case: the disk is full.
        DataFusionError::IoError(_) => Kind::ResourcesExhausted,
        DataFusionError::ExecutionJoin(error) if error.is_cancelled() => Kind::Cancelled,
        _ => Kind::Internal,
    }
}

/// DataFusion starts messages with the kind of error and often repeats it; callers have the kind
/// already.
fn without_prefix(message: &str) -> &str {
    const PREFIXES: [&str; 12] = [
        "Error during planning: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "Resources exhausted: ",
        "Schema error: ",
        "Arrow error: ",
        "SQL error: ",
        "sql parser error: ",
        "External error: ",
        "Invalid or Unsupported Configuration: ",
        "type_coercion\ncaused by\n",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ];
    let mut rest = message;
    while let Some(shorter) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    rest
}

/// Columns that are listed when a name is not among them; a wide table would drown the message.
const COLUMNS_LISTED_MAX: usize = 20;

fn describe_schema_error(error: &SchemaError) -> String {
    let SchemaError::FieldNotFound {
        field,
        valid_fields,
    } = error
    else {
        return error.to_string();
    };
    let mut tables: Vec<String> = valid_fields
        .iter()
        .filter_map(|column| column.relation.as_ref())
        .map(|relation| relation.to_string())
        .collect();
    tables.dedup();
    let place = match &tables[..] {
        [] => String::new(),
        [table] => format!(" in {table}"),
        tables => format!(" in any of {}", tables.join(", ")),
    };
    let names: Vec<&str> = valid_fields
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let hint = did_you_mean(&field.name, names.iter().copied());
    let listed = if names.is_empty() || names.len() > COLUMNS_LISTED_MAX {
        String::new()
    } else {
        format!("; the columns are {}", names.join(", "))
    };
    format!(
        "there is no column '{}'{place}{hint}{listed}",
        field.flat_name()
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_error_keeps_its_kind_through_wrappers() {
        let inner = QueryError::new(QueryErrorKind::Overloaded, "later");
        let wrapped = DataFusionError::Shared(Arc::new(
            DataFusionError::External(Box::new(inner)).context("somewhere"),
        ));
        let error = QueryError::from(wrapped);
        assert_eq!(error.kind(), QueryErrorKind::Overloaded);
        assert_eq!(error.to_string(), "later");
    }

    #[test]
    fn the_kind_is_not_repeated_in_the_message() {
        let error = QueryError::from(DataFusionError::Plan("no such thing".into()));
        assert_eq!(error.to_string(), "no such thing");
        assert_eq!(error.kind(), QueryErrorKind::Planning);
    }
}
