//! `at_leader('SELECT ...')`: rows straight from the leader of the request's database.
//!
//! For what cannot wait for a follower at all: the newest rows from the leader, united with the
//! rest from here. The query runs there, with the rights that the caller has there.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor, Value, Visit, Visitor,
};
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::statement::{self, Class};
use crate::{QueryError, QueryErrorKind, QuerySession};

/// What the function is called.
const NAME: &str = "at_leader";
/// Calls in one query: each is a query of its own at the leader.
const CALLS_MAX: usize = 8;

/// Rows of an answer from elsewhere.
pub type RemoteRows = BoxStream<'static, Result<RecordBatch, QueryError>>;

/// Another node that answers queries.
#[async_trait]
pub trait RemoteNode: fmt::Debug + Send + Sync {
    /// The columns that a query answers.
    async fn schema(&self, sql: &str) -> Result<SchemaRef, QueryError>;

    /// Runs a query.
    async fn run(&self, sql: &str) -> Result<RemoteRows, QueryError>;
}

/// Makes the function callable in a session, for the [`calls`] that a statement holds. Their
/// columns are asked for now: planning itself does not wait.
///
/// # Errors
/// When the leader cannot be asked, or refuses.
pub(crate) async fn register(
    state: &mut SessionState,
    calls: Vec<String>,
    remote: Option<&Arc<dyn RemoteNode>>,
) -> Result<(), QueryError> {
    if calls.is_empty() {
        return Ok(());
    }
    let remote = remote.ok_or_else(|| {
        QueryError::new(
            QueryErrorKind::Planning,
            format!("{NAME} is of followed databases: send the query with one that is followed"),
        )
    })?;
    let mut answers = BTreeMap::new();
    for sql in calls {
        check_query(&sql)?;
        let schema = remote.schema(&sql).await?;
        answers.insert(sql, schema);
    }
    let function = AtLeader {
        remote: Arc::clone(remote),
        answers,
    };
    state.register_udtf(NAME, Arc::new(function));
    Ok(())
}

/// A query changes nothing anywhere: what is sent on must be one too.
fn check_query(sql: &str) -> Result<(), QueryError> {
    let statements = QuerySession::parse(sql)?;
    match &statements[..] {
        [one] if matches!(statement::classify(one), Class::Query) => Ok(()),
        _ => Err(QueryError::new(
            QueryErrorKind::Planning,
            format!("{NAME} takes one query, and this is something else: {sql}"),
        )),
    }
}

/// The queries that a statement sends to the leader.
///
/// # Errors
/// When a call does not hold one as a constant, or there are too many.
pub(crate) fn calls(statement: &Statement) -> Result<Vec<String>, QueryError> {
    struct Find(Vec<String>);
    impl Visitor for Find {
        type Break = String;

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
            let TableFactor::Table {
                name,
                args: Some(args),
                ..
            } = factor
            else {
                return ControlFlow::Continue(());
            };
            if !name.to_string().eq_ignore_ascii_case(NAME) {
                return ControlFlow::Continue(());
            }
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value)))] =
                &args.args[..]
            else {
                return ControlFlow::Break(name.to_string());
            };
            match &value.value {
                Value::SingleQuotedString(sql) => self.0.push(sql.clone()),
                Value::DollarQuotedString(sql) => self.0.push(sql.value.clone()),
                _ => return ControlFlow::Break(name.to_string()),
            }
            ControlFlow::Continue(())
        }
    }
    let Statement::Statement(statement) = statement else {
        return Ok(Vec::new());
    };
    let mut find = Find(Vec::new());
    let wrong = |message| Err(QueryError::new(QueryErrorKind::Planning, message));
    if statement.visit(&mut find).is_break() {
        return wrong(format!("{NAME} takes one text: a query, as a constant"));
    }
    if find.0.len() > CALLS_MAX {
        return wrong(format!("a query holds at most {CALLS_MAX} calls of {NAME}"));
    }
    Ok(find.0)
}

#[derive(Debug)]
struct AtLeader {
    remote: Arc<dyn RemoteNode>,
    /// The columns of each query.
    answers: BTreeMap<String, SchemaRef>,
}

impl TableFunctionImpl for AtLeader {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let sql = match args.exprs() {
            [Expr::Literal(ScalarValue::Utf8(Some(sql)), _)] => sql,
            _ => return Err(plan_datafusion_err!("{NAME} takes one text")),
        };
        let schema = self.answers.get(sql).ok_or_else(|| {
            plan_datafusion_err!("{NAME} stands in the query itself, not in a function")
        })?;
        Ok(Arc::new(RemoteTable {
            remote: Arc::clone(&self.remote),
            sql: sql.as_str().into(),
            schema: Arc::clone(schema),
        }))
    }
}

/// The answer of one query at the leader, as a table.
#[derive(Debug, Clone)]
struct RemoteTable {
    remote: Arc<dyn RemoteNode>,
    sql: Arc<str>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partition = Arc::new(self.clone()) as Arc<dyn PartitionStream>;
        let scan = StreamingTableExec::try_new(
            Arc::clone(&self.schema),
            vec![partition],
            projection,
            None,
            false,
            limit,
        )?;
        Ok(Arc::new(scan))
    }
}

impl RemoteTable {
    /// Rows with the columns that the query here was planned with. The leader plans its part anew when it
    /// runs it, and a table may have been altered since it was asked what the columns are.
    fn check(&self, batch: RecordBatch) -> Result<RecordBatch, QueryError> {
        let (planned, found) = (self.schema.fields(), batch.schema());
        let is_same = |(planned, found): (&FieldRef, &FieldRef)| {
            planned.name() == found.name() && planned.data_type().equals_datatype(found.data_type())
        };
        let are_same = planned.len() == found.fields().len()
            && planned.iter().zip(found.fields()).all(is_same);
        if are_same {
            return Ok(batch);
        }
        Err(QueryError::new(
            QueryErrorKind::Storage,
            format!(
                "the columns of {NAME}('{}') were changed at the leader meanwhile: send the query again",
                self.sql
            ),
        ))
    }
}

impl PartitionStream for RemoteTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = self.clone();
        let failed = |error: QueryError| DataFusionError::External(Box::new(error));
        let rows = async move {
            let rows = table.remote.run(&table.sql).await.map_err(failed)?;
            let checked = rows.and_then(move |batch| ready(table.check(batch)));
            Ok::<_, DataFusionError>(checked.map_err(failed))
        };
        let stream = futures::stream::once(rows).try_flatten().boxed();
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            stream,
        ))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    /// A leader that answers with a column `n` of numbers, whatever it announces.
    #[derive(Debug)]
    struct Leader(SchemaRef);

    fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
        let columns = columns.iter();
        let fields: Vec<_> = columns
            .map(|(name, kind)| Field::new(*name, kind.clone(), true))
            .collect();
        Arc::new(Schema::new(fields))
    }

    #[async_trait]
    impl RemoteNode for Leader {
        async fn schema(&self, _: &str) -> Result<SchemaRef, QueryError> {
            Ok(Arc::clone(&self.0))
        }

        async fn run(&self, _: &str) -> Result<RemoteRows, QueryError> {
            let numbers = Arc::new(Int64Array::from(vec![1, 2]));
            let schema = columns(&[("n", DataType::Int64)]);
            let batch = RecordBatch::try_new(schema, vec![numbers]).expect("fits");
            Ok(futures::stream::iter([Ok(batch)]).boxed())
        }
    }

    async fn rows(announced: SchemaRef) -> Result<Vec<RecordBatch>, QueryError> {
        let table = RemoteTable {
            remote: Arc::new(Leader(Arc::clone(&announced))),
            sql: "SELECT * FROM t".into(),
            schema: announced,
        };
        let rows = table.execute(Arc::new(TaskContext::default()));
        Ok(rows.try_collect().await?)
    }

    #[tokio::test]
    async fn rows_of_other_columns_than_those_that_were_planned_are_refused() {
        let answered = rows(columns(&[("n", DataType::Int64)])).await;
        assert_eq!(answered.expect("the same")[0].num_rows(), 2);
        for announced in [
            columns(&[("n", DataType::Utf8)]),
            columns(&[("m", DataType::Int64)]),
            columns(&[("n", DataType::Int64), ("m", DataType::Int64)]),
            columns(&[]),
        ] {
            let refused = rows(announced).await.expect_err("changed");
            assert_eq!(refused.kind(), QueryErrorKind::Storage);
            let message = refused.to_string();
            assert!(message.contains("send the query again"), "{message}");
        }
    }
}
