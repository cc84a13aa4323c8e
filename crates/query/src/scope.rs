//! Which extents a query reads: all, or those that a caching policy makes hot.
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

use crate::namespace::Namespace;
use crate::{QueryError, QueryErrorKind, Statement};

/// The function that gives a table a scope of its own.
pub(crate) const FUNCTION: &str = "datascope";
/// The setting that a request may begin with.
const SETTING: &str = "query_datascope";

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

/// Takes `SET query_datascope = '...'` off the beginning of a request; `None` when it does not begin
/// with that.
///
/// # Errors
/// When the scope is not known.
pub fn take_data_scope(
    statements: &mut Vec<Statement>,
) -> std::result::Result<Option<DataScope>, QueryError> {
    let mut scope = None;
    while let Some(value) = statements.first().and_then(assigned) {
        scope = Some(value.parse()?);
        statements.remove(0);
    }
    Ok(scope)
}

/// What a statement sets the scope to, when it does.
fn assigned(statement: &Statement) -> Option<String> {
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
    let is_it = variable.to_string().eq_ignore_ascii_case(SETTING);
    is_it.then(|| value.to_string().trim_matches(['\'', '"']).to_owned())
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
