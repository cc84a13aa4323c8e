//! `DELETE FROM`, extent by extent: which extents may hold such rows, how many, and what is left.
//!
//! Extents never change. So whoever carries a `DELETE` out leaves those alone that hold no such
//! row, removes those that hold no other, and writes the rest anew without them. Here is told
//! which is which; nothing is written.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, WriteOp, lit};
use datafusion::physical_plan::execute_stream;
use futures::executor::block_on;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use slipstream_catalog::TableState;
use slipstream_model::Extent;

use crate::admission::Slot;
use crate::deadline::Deadline;
use crate::log::QueryEntry;
use crate::statement::qualified;
use crate::stream::{Failure, explain, panic_message};
use crate::table::SnapshotTable;
use crate::{ExtentAccess, QueryError, QueryErrorKind, QueryInfo, QuerySession, stack};

/// `DELETE FROM`, taken apart.
#[derive(Debug, Clone)]
pub struct Delete {
    /// Database, when the statement names it, and table.
    pub table: (Option<String>, String),
    /// The table by the name that the predicate has for it.
    reference: TableReference,
    /// Which rows; `None`: all.
    predicate: Option<Expr>,
}

/// Takes the plan of a `DELETE` apart; `None` for other plans.
pub fn delete_parts(plan: &LogicalPlan) -> Option<Delete> {
    let LogicalPlan::Dml(dml) = plan else {
        return None;
    };
    if dml.op != WriteOp::Delete {
        return None;
    }
    let predicate = match dml.input.as_ref() {
        LogicalPlan::Filter(filter) => Some(filter.predicate.clone()),
        // A table, or one behind its row-level security.
        LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) => None,
        _ => return None,
    };
    Some(Delete {
        table: qualified(&dml.table_name),
        reference: dml.table_name.clone(),
        predicate,
    })
}

impl QuerySession {
    /// Begins to find out what a `DELETE` does to a table. Waits for its turn first; the deadline
    /// counts from here, and all of it is one query of the log.
    ///
    /// Where row-level security is on, rows that are not shown to whoever asks are not deleted.
    ///
    /// # Errors
    /// When there is no such table, too many queries wait, or the predicate differs from one time
    /// to the next.
    pub async fn delete(
        &self,
        database: &str,
        delete: Delete,
        info: QueryInfo,
    ) -> Result<Deletion, QueryError> {
        let runtime = &self.runtime;
        let name = &delete.table.1;
        let table = self.names.whole(database, name).ok_or_else(|| {
            let message = format!("there is no table '{name}' in database '{database}'");
            QueryError::new(QueryErrorKind::NotFound, message)
        })?;
        let id = runtime.entropy.uuid_at(runtime.clock.now());
        let timeout = runtime.timeout(info.timeout);
        let entry = runtime.log.begin(id, info, self.principal());
        let deadline = Deadline::new(Arc::clone(&runtime.clock), timeout);
        let begun = async {
            let slot = runtime.admission.admit(deadline.remaining()).await?;
            entry.run();
            let condition = stack::on_large_stack(|| self.condition(&table, &delete))?;
            Ok::<_, QueryError>((slot, condition))
        };
        let (slot, condition) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                entry.fail(&error);
                return Err(error);
            }
        };
        let mut state = self.query_state(&entry);
        // Rows keep their order within an extent; extents are worked on side by side.
        state.config_mut().options_mut().execution.target_partitions = 1;
        Ok(Deletion {
            state,
            table,
            reference: delete.reference,
            condition,
            entry,
            deadline,
            access: Arc::clone(&runtime.scans.access),
            _slot: slot,
        })
    }

    /// Which rows go: those of the predicate that are shown to whoever asks. `None`: all.
    fn condition(
        &self,
        table: &SnapshotTable,
        delete: &Delete,
    ) -> Result<Option<Expr>, QueryError> {
        let policy = table.state().policies.row_level_security.as_ref();
        let shown = match policy.filter(|policy| policy.is_enabled) {
            Some(policy) => {
                let source = provider_as_source(Arc::new(table.clone()));
                let scan = LogicalPlanBuilder::scan(delete.reference.clone(), source, None)?;
                let base = &self.runtime.base;
                Some(base.create_logical_expr(&policy.predicate, scan.schema())?)
            }
            None => None,
        };
        let both = [delete.predicate.clone(), shown];
        let condition = conjunction(both.into_iter().flatten());
        if let Some(condition) = &condition
            && is_volatile(condition)?
        {
            let message = "the condition of a DELETE is asked more than once, and this one may \
                           answer something else each time";
            return Err(QueryError::new(QueryErrorKind::Unsupported, message));
        }
        Ok(condition)
    }
}

/// A `DELETE` that is being worked out. Nothing is changed by that.
pub struct Deletion {
    state: SessionState,
    table: SnapshotTable,
    reference: TableReference,
    condition: Option<Expr>,
    entry: QueryEntry,
    deadline: Deadline,
    access: Arc<dyn ExtentAccess>,
    _slot: Slot,
}

impl fmt::Debug for Deletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deletion")
            .field("table", &self.reference)
            .finish_non_exhaustive()
    }
}

impl Deletion {
    /// The table as it was when the rows were chosen.
    pub fn table(&self) -> &TableState {
        self.table.state()
    }

    /// The extents that may hold rows to delete, told from the catalog alone.
    ///
    /// # Errors
    /// When the condition cannot even be looked at.
    pub fn candidates(&self) -> Result<Vec<Extent>, QueryError> {
        let Some(condition) = &self.condition else {
            return Ok(self.table().extents.iter().collect());
        };
        stack::on_large_stack(|| {
            let parts = split_conjunction_owned(unnormalize_col(condition.clone()));
            // What depends on other tables is no matter of minima and maxima.
            let filters: Vec<Expr> = parts
                .into_iter()
                .filter(|part| !has_subquery(part))
                .collect();
            Ok(self.table.extents_for(&self.state, &filters))
        })
    }

    /// How many rows of an extent are to go.
    ///
    /// # Errors
    /// When the extent cannot be read, a value makes the condition fail, or the deadline passes.
    pub async fn count(&self, extent: &Extent) -> Result<u64, QueryError> {
        let Some(condition) = &self.condition else {
            return Ok(extent.row_count);
        };
        let mut marks = self.rows(extent, |scan| {
            scan.filter(condition.clone())?.project(vec![lit(true)])
        })?;
        let mut count = 0;
        while let Some(batch) = marks.try_next().await? {
            count += batch.num_rows() as u64;
        }
        Ok(count)
    }

    /// The rows of an extent that stay, in their order: those for which the condition is not true.
    ///
    /// # Errors
    /// As with [`count`](Self::count).
    pub fn kept(
        &self,
        extent: &Extent,
    ) -> Result<BoxStream<'_, Result<RecordBatch, QueryError>>, QueryError> {
        let condition = self.condition.clone().unwrap_or_else(|| lit(true));
        self.rows(extent, |scan| scan.filter(condition.is_not_true()))
    }

    /// Notes that it was carried out.
    pub fn complete(self) {
        self.entry.complete();
    }

    /// Notes why it was not.
    pub fn fail(self, why: impl fmt::Display) {
        let error = QueryError::new(QueryErrorKind::Execution, why.to_string());
        self.entry.fail(&error);
    }

    /// The rows of a plan over one extent.
    fn rows(
        &self,
        extent: &Extent,
        plan: impl FnOnce(LogicalPlanBuilder) -> datafusion::error::Result<LogicalPlanBuilder> + Send,
    ) -> Result<BoxStream<'_, Result<RecordBatch, QueryError>>, QueryError> {
        self.deadline.check()?;
        let physical = stack::on_large_stack(|| {
            let source = provider_as_source(Arc::new(self.table.only(extent)));
            let scan = LogicalPlanBuilder::scan(self.reference.clone(), source, None)?;
            let plan = plan(scan)?.build()?;
            Ok(block_on(self.state.create_physical_plan(&plan))?)
        })?;
        let batches = execute_stream(physical, self.state.task_ctx())?;
        let rows = futures::stream::try_unfold(batches, move |batches| self.next(batches));
        Ok(rows.boxed())
    }

    async fn next(
        &self,
        mut batches: SendableRecordBatchStream,
    ) -> Result<Option<(RecordBatch, SendableRecordBatchStream)>, QueryError> {
        let next = AssertUnwindSafe(batches.next()).catch_unwind();
        let outcome = self.deadline.hold(next).await?;
        let failure = match outcome {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(batch))) => return Ok(Some((batch, batches))),
            Ok(Some(Err(error))) => Failure::Engine(error),
            Err(panic) => Failure::Panic(panic_message(&*panic)),
        };
        Err(explain(failure, &self.entry, self.access.as_ref(), &self.deadline).await)
    }
}

/// Whether a condition may answer something else the next time, in its subqueries too: which rows a
/// limit lets through is nowhere said.
fn is_volatile(condition: &Expr) -> Result<bool, QueryError> {
    let found = condition.exists(|part| {
        let subquery = match part {
            Expr::Exists(exists) => &exists.subquery,
            Expr::InSubquery(list) => &list.subquery,
            Expr::SetComparison(comparison) => &comparison.subquery,
            Expr::ScalarSubquery(subquery) => subquery,
            part => return Ok(part.is_volatile_node()),
        };
        let mut is_found = false;
        subquery.subquery.apply_with_subqueries(|plan| {
            is_found |= matches!(plan, LogicalPlan::Limit(_));
            plan.apply_expressions(|expression| {
                is_found |= expression.is_volatile();
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(is_found)
    });
    Ok(found?)
}

/// Whether a condition asks other tables.
fn has_subquery(condition: &Expr) -> bool {
    let is_subquery = |part: &Expr| {
        matches!(
            part,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
        )
    };
    condition
        .exists(|part| Ok(is_subquery(part)))
        .unwrap_or(true)
}
