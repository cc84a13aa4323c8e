//! Which extents a query reads: all, or those that a caching policy makes hot; and what else a
//! request says at its beginning of all its tables.
//!
//! The rules are Kusto's (*Caching policy*): a table's own scope beats `SET query_datascope`, which
//! beats the request's property. In SQL a table has a scope of its own as
//! `datascope('flights', 'hotcache')`. External tables are read whole, whatever the scope.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use slipstream_model::Version;

use crate::namespace::Namespace;
use crate::{QueryError, QueryErrorKind, Statement};

/// The function that gives a table a scope of its own.
pub(crate) const FUNCTION: &str = "datascope";
/// The settings that a request may begin with: its scope, and its version.
const SCOPE: &str = "query_datascope";
/// See [`SCOPE`].
const VERSION: &str = "version";

/// Which extents are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DataScope {
    /// All.
    #[default]
    All,
    /// Those that a caching policy makes hot, wherever they stand now.
    HotCache,
}

impl fmt::Display for DataScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::HotCache => "hotcache",
        })
    }
}

impl FromStr for DataScope {
    type Err = QueryError;

    fn from_str(text: &str) -> std::result::Result<Self, QueryError> {
        match text.to_ascii_lowercase().as_str() {
            "default" | "all" => Ok(Self::All),
            "hotcache" => Ok(Self::HotCache),
            _ => Err(planning(format!(
                "'{text}' is no data scope: use default, all or hotcache"
            ))),
        }
    }
}

fn planning(message: String) -> QueryError {
    QueryError::new(QueryErrorKind::Planning, message)
}

/// What a request says of all its tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which extents are read.
    pub scope: Option<DataScope>,
    /// Which version of the request's database is read.
    pub version: Option<Version>,
}

/// Takes `SET query_datascope = '...'` and `SET version = n` off the beginning of a request.
///
/// # Errors
/// When the scope is not known, or the version is no number.
pub fn take_settings(statements: &mut Vec<Statement>) -> std::result::Result<Settings, QueryError> {
    let mut settings = Settings::default();
    let mut count = 0;
    // Taken off all at once: a request may hold a great many.
    while let Some((name, value)) = statements.get(count).and_then(assigned) {
        if name == SCOPE {
            settings.scope = Some(value.parse()?);
        } else {
            let version = value.parse::<Version>().map_err(|_| {
                planning(format!(
                    "SET version takes the number of a version: '{value}' is none"
                ))
            })?;
            settings.version = Some(version);
        }
        count += 1;
    }
    statements.drain(..count);
    Ok(settings)
}

/// The setting that a statement gives a value, and the value.
fn assigned(statement: &Statement) -> Option<(&'static str, String)> {
    let Statement::Statement(statement) = statement else {
        return None;
    };
    let ast::Statement::Set(ast::Set::SingleAssignment {
        variable, values, ..
    }) = &**statement
    else {
        return None;
    };
    let [value] = values.as_slice() else {
        return None;
    };
    let variable = variable.to_string();
    let mut known = [SCOPE, VERSION].into_iter();
    let name = known.find(|name| variable.eq_ignore_ascii_case(name))?;
    Some((name, value.to_string().trim_matches(['\'', '"']).to_owned()))
}

/// `datascope('table', 'hotcache')`, and `datascope('database.table', ...)`.
#[derive(Debug)]
pub(crate) struct Scoped(pub(crate) Arc<Namespace>);

impl TableFunctionImpl for Scoped {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let usage = || plan_datafusion_err!("{FUNCTION}('table', 'all' or 'hotcache') is wanted");
        let [table, scope] = args.exprs() else {
            return Err(usage());
        };
        let (table, scope) = (
            text(table).ok_or_else(usage)?,
            text(scope).ok_or_else(usage)?,
        );
        let scope: DataScope = scope
            .parse()
            .map_err(|error: QueryError| plan_datafusion_err!("{error}"))?;
        let found = self.0.scoped(&table, scope)?;
        found.ok_or_else(|| plan_datafusion_err!("there is no table '{table}'"))
    }
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
            _,
        ) => Some(text.clone()),
        _ => None,
    }
}
