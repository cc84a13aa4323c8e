//! Stored functions: `SELECT * FROM f(1, 'x')`.
//!
//! A call is the function's text, planned where it is called with its parameters filled in, as if
//! it stood there as a view. Functions of the request's own database can be called.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_datafusion_err;
use datafusion::datasource::ViewTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use futures::FutureExt;
use slipstream_catalog::DatabaseState;
use slipstream_model::{FunctionParameter, StoredFunction};

use crate::statement::{self, Class};
use crate::{Parameters, QueryError, QueryErrorKind, QuerySession, parameters};

/// Functions that call functions: deeper ones are most likely calling themselves.
const CALL_DEPTH_MAX: usize = 16;

thread_local! {
    /// How many calls are being planned within one another. Planning stays on its thread.
    static CALL_DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Makes the functions of a database callable in a session.
pub(crate) fn register(state: &mut SessionState, database: &DatabaseState) {
    for known in database.functions() {
        let call = Call(Arc::clone(&known.entity));
        state.register_udtf(known.entity.name.as_str(), Arc::new(call));
    }
}

/// Checks that the text of a function is one query.
///
/// # Errors
/// When it is not SQL, is several statements, or changes something.
pub(crate) fn check(function: &StoredFunction) -> Result<(), QueryError> {
    body(function).map(drop)
}

fn body(function: &StoredFunction) -> Result<crate::Statement, QueryError> {
    let (mut statements, clauses) = QuerySession::parse_clauses(&function.body)?;
    if clauses > 0 {
        return Err(QueryError::new(
            QueryErrorKind::Unsupported,
            format!(
                "function '{}' reads what its caller reads: FOR VERSION AS OF and FOR TIMESTAMP AS \
                 OF stand in the query itself",
                function.name
            ),
        ));
    }
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) if matches!(statement::classify(&statement), Class::Query) => {
            Ok(statement)
        }
        _ => Err(QueryError::new(
            QueryErrorKind::Planning,
            format!("the text of function '{}' is not one query", function.name),
        )),
    }
}

/// A stored function as DataFusion calls it.
#[derive(Debug)]
struct Call(Arc<StoredFunction>);

impl TableFunctionImpl for Call {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let function = &self.0;
        let _depth = Depth::enter(function)?;
        let state = args
            .session()
            .as_any()
            .downcast_ref::<SessionState>()
            .ok_or_else(|| plan_datafusion_err!("functions are called in a session of ours"))?;
        let values = bind(function, args.exprs())?;
        let within = |error: QueryError| {
            DataFusionError::Plan(format!("in function '{}': {error}", function.name))
        };
        let statement = body(function).map_err(within)?;
        // Whoever plans waits already, and names resolve at once: everything is in memory.
        let planned = state.statement_to_plan(statement).now_or_never();
        let plan = planned
            .ok_or_else(|| plan_datafusion_err!("the names of a function do not resolve at once"))?
            .map_err(|error| within(QueryError::from(error)))?;
        let plan = if function.parameters.is_empty() {
            plan
        } else {
            parameters::bind(plan, Parameters::named(values)).map_err(within)?
        };
        Ok(Arc::new(ViewTable::new(plan, Some(function.body.clone()))))
    }
}

/// The values of a call, by parameter.
fn bind(function: &StoredFunction, given: &[Expr]) -> Result<Vec<(String, ScalarValue)>> {
    let name = &function.name;
    if given.len() > function.parameters.len() {
        return Err(plan_datafusion_err!(
            "function '{name}' takes {} arguments, and {} are given",
            function.parameters.len(),
            given.len()
        ));
    }
    let values = function.parameters.iter().enumerate();
    values
        .map(|(index, parameter)| {
            let value = match given.get(index) {
                Some(Expr::Literal(value, _)) => value.clone(),
                Some(other) => {
                    return Err(plan_datafusion_err!(
                        "function '{name}': argument '{}' is {other}, and only constants can be \
                         given",
                        parameter.field.name()
                    ));
                }
                None => default_of(function, parameter)?,
            };
            let value = value
                .cast_to(parameter.field.data_type())
                .map_err(|error| {
                    plan_datafusion_err!(
                        "function '{name}': argument '{}' is no {}: {error}",
                        parameter.field.name(),
                        parameter.field.data_type()
                    )
                })?;
            Ok((parameter.field.name().clone(), value))
        })
        .collect()
}

fn default_of(function: &StoredFunction, parameter: &FunctionParameter) -> Result<ScalarValue> {
    match &parameter.default {
        Some(text) => Ok(ScalarValue::from(text.as_str())),
        None => Err(plan_datafusion_err!(
            "function '{}' is called without its argument '{}'",
            function.name,
            parameter.field.name()
        )),
    }
}

/// One more call is being planned.
struct Depth;

impl Depth {
    fn enter(function: &StoredFunction) -> Result<Self> {
        let depth = CALL_DEPTH.get() + 1;
        if depth > CALL_DEPTH_MAX {
            return Err(plan_datafusion_err!(
                "function '{}' is called {depth} functions deep; at most {CALL_DEPTH_MAX} are \
                 allowed. Does it call itself?",
                function.name
            ));
        }
        CALL_DEPTH.set(depth);
        Ok(Self)
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        CALL_DEPTH.set(CALL_DEPTH.get().saturating_sub(1));
    }
}
