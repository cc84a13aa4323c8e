//! What a database holds beside tables: stored functions, and policies of its tables.

use std::time::Duration;

use arrow::datatypes::FieldRef;

use crate::{
    CachingPolicy, FunctionName, IngestionBatchingPolicy, MergePolicy, StreamingIngestionPolicy,
    Timestamp,
};

/// Parameters of one function; more are a table.
pub const FUNCTION_PARAMETERS_MAX: usize = 64;
/// Characters of a function's text: it is planned with every query that names it.
pub const FUNCTION_BODY_CHARS_MAX: usize = 64 * 1024;

/// A query that is kept under a name, and takes parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFunction {
    /// Its name.
    pub name: FunctionName,
    /// What it takes, in order.
    pub parameters: Vec<FunctionParameter>,
    /// A query in SQL, in which `$name` stands for a parameter.
    pub body: String,
    /// What it is for.
    pub docstring: String,
    /// Where a browser shows it.
    pub folder: String,
}

/// One parameter of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionParameter {
    /// Its name and type.
    pub field: FieldRef,
    /// An SQL literal that is taken when the caller gives nothing.
    pub default: Option<String>,
}

/// A function that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFunction {
    /// It has too many parameters.
    #[error("function '{0}' has more than {FUNCTION_PARAMETERS_MAX} parameters")]
    TooManyParameters(FunctionName),
    /// Two parameters share a name.
    #[error("function '{0}' has two parameters '{1}'")]
    DuplicateParameter(FunctionName, String),
    /// A parameter that may be left out stands before one that may not.
    #[error("function '{0}': parameter '{1}' needs a default, because one before it has one")]
    DefaultBefore(FunctionName, String),
    /// The text is missing or too long.
    #[error("the text of function '{0}' has 1 to {FUNCTION_BODY_CHARS_MAX} characters")]
    Body(FunctionName),
}

impl StoredFunction {
    /// Checks what can be told without planning the text.
    ///
    /// # Errors
    /// When parameters contradict each other, or a limit is exceeded.
    pub fn check(&self) -> Result<(), InvalidFunction> {
        let name = || self.name.clone();
        if self.parameters.len() > FUNCTION_PARAMETERS_MAX {
            return Err(InvalidFunction::TooManyParameters(name()));
        }
        let mut has_default = false;
        for (index, parameter) in self.parameters.iter().enumerate() {
            let text = parameter.field.name();
            if self.parameters[..index]
                .iter()
                .any(|p| p.field.name() == text)
            {
                return Err(InvalidFunction::DuplicateParameter(name(), text.clone()));
            }
            if has_default && parameter.default.is_none() {
                return Err(InvalidFunction::DefaultBefore(name(), text.clone()));
            }
            has_default |= parameter.default.is_some();
        }
        let length = self.body.chars().count();
        if self.body.trim().is_empty() || length > FUNCTION_BODY_CHARS_MAX {
            return Err(InvalidFunction::Body(name()));
        }
        Ok(())
    }
}

/// Which rows of a table are shown to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLevelSecurity {
    /// A policy that is there and off hides nothing.
    pub is_enabled: bool,
    /// A condition in SQL over the table's columns; rows for which it holds are shown.
    pub predicate: String,
}

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Extents whose newest row was taken in longer ago than this may be removed.
    pub soft_delete_period: Duration,
    /// Whether what was removed can be brought back for a while.
    pub is_recoverable: bool,
}

impl Default for RetentionPolicy {
    /// Kusto's: a thousand years, recoverable (*Retention policy*).
    fn default() -> Self {
        Self {
            soft_delete_period: Duration::from_secs(365_000 * 24 * 60 * 60),
            is_recoverable: true,
        }
    }
}

impl RetentionPolicy {
    /// The policy that holds for a table: its own, else the database's. `None`: rows are kept for
    /// ever.
    pub fn effective(table: Option<Self>, database: Option<Self>) -> Option<Self> {
        table.or(database)
    }

    /// Whether an extent may be removed, judged by the newest creation time of its rows.
    pub fn is_over(&self, max_created_on: Timestamp, now: Timestamp) -> bool {
        now.since(max_created_on) > self.soft_delete_period
    }
}

/// The policies of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePolicies {
    /// Which extents are hot; the database's when there is none.
    pub caching: Option<CachingPolicy>,
    /// Which rows are shown to whom; all to everybody when there is none.
    pub row_level_security: Option<RowLevelSecurity>,
    /// How long rows are kept; the database's when there is none.
    pub retention: Option<RetentionPolicy>,
    /// Which extents are merged; the database's when there is none.
    pub merge: Option<MergePolicy>,
    /// How queued ingests are put together; the database's when there is none.
    pub ingestion_batching: Option<IngestionBatchingPolicy>,
    /// Whether rows may be streamed in; the database's when there is none.
    pub streaming_ingestion: Option<StreamingIngestionPolicy>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn function(parameters: &[(&str, Option<&str>)]) -> StoredFunction {
        let parameters = parameters.iter().map(|(name, default)| FunctionParameter {
            field: Arc::new(Field::new(*name, DataType::Int64, true)),
            default: default.map(str::to_owned),
        });
        StoredFunction {
            name: FunctionName::new("f").expect("a name"),
            parameters: parameters.collect(),
            body: "SELECT 1".into(),
            docstring: String::new(),
            folder: String::new(),
        }
    }

    #[test]
    fn an_extent_may_go_once_its_newest_source_is_older_than_the_period() {
        let day = Duration::from_secs(86_400);
        let policy = |days| RetentionPolicy {
            soft_delete_period: day * days,
            ..RetentionPolicy::default()
        };
        let now = Timestamp::from_micros(0).plus(day * 50);
        let made = |days| Timestamp::from_micros(0).plus(day * days);
        assert!(policy(10).is_over(made(39), now));
        assert!(!policy(10).is_over(made(40), now));
        assert!(!policy(0).is_over(made(51), now), "made in the future");
        assert!(!RetentionPolicy::default().is_over(made(0), now));
        let effective = RetentionPolicy::effective;
        assert_eq!(effective(Some(policy(1)), Some(policy(2))), Some(policy(1)));
        assert_eq!(effective(None, Some(policy(2))), Some(policy(2)));
        assert_eq!(effective(None, None), None);
    }

    #[test]
    fn parameters_that_contradict_each_other_are_refused() {
        assert_eq!(function(&[("a", None), ("b", Some("1"))]).check(), Ok(()));
        let twice = function(&[("a", None), ("a", None)]).check();
        assert!(matches!(
            twice,
            Err(InvalidFunction::DuplicateParameter(..))
        ));
        let gap = function(&[("a", Some("1")), ("b", None)]).check();
        assert!(matches!(gap, Err(InvalidFunction::DefaultBefore(..))));
        let empty = StoredFunction {
            body: " ".into(),
            ..function(&[])
        };
        assert!(matches!(empty.check(), Err(InvalidFunction::Body(_))));
    }
}
