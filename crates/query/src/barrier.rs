//! What stands between the rows that row-level security leaves and what a query asks of them.
//!
//! A condition that fails says the value that it failed at: `CAST(tailnum AS INT) = 1` names one. The
//! optimizer puts a query's conditions beside the policy's, and evaluates them in any order, over whole
//! batches. So no condition passes below the barrier but those that cannot fail: comparisons of columns
//! with values, which is what extents are pruned by. PostgreSQL calls such functions leakproof.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, Operator, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, Literal,
    NotExpr, lit,
};
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

/// The name of the node in plans.
pub(crate) const NAME: &str = "RowLevelSecurityExec";

/// Puts a barrier above what a policy leaves.
pub(crate) fn above(plan: LogicalPlan) -> LogicalPlan {
    let input = Arc::new(plan);
    LogicalPlan::Extension(Extension {
        node: Arc::new(Barrier { input }),
    })
}

/// The barrier, in a logical plan. The optimizer takes no condition past a node that it does not know.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Barrier {
    input: Arc<LogicalPlan>,
}

impl PartialOrd for Barrier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for Barrier {
    fn name(&self) -> &str {
        "RowLevelSecurity"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowLevelSecurity")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs
            .pop()
            .ok_or_else(|| DataFusionError::Internal("a barrier without an input".to_owned()))?;
        Ok(Self {
            input: Arc::new(input),
        })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// Takes conditions that cannot fail past a barrier.
#[derive(Debug)]
pub(crate) struct PushThroughBarriers;

impl OptimizerRule for PushThroughBarriers {
    fn name(&self) -> &str {
        "push_through_barriers"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else {
            return Ok(Transformed::no(plan));
        };
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let node: &dyn UserDefinedLogicalNode = extension.node.as_ref();
        let Some(barrier) = node.as_any().downcast_ref::<Barrier>() else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let conditions = split_conjunction_owned(filter.predicate.clone());
        let (passing, staying): (Vec<_>, Vec<_>) = conditions.into_iter().partition(cannot_fail);
        let Some(passing) = conjunction(passing) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let below = Filter::try_new(passing, Arc::clone(&barrier.input))?;
        let passed = above(LogicalPlan::Filter(below));
        let plan = match conjunction(staying) {
            Some(staying) => LogicalPlan::Filter(Filter::try_new(staying, Arc::new(passed))?),
            None => passed,
        };
        Ok(Transformed::yes(plan))
    }
}

/// Whether a condition gives true, false or null for every row.
fn cannot_fail(condition: &Expr) -> bool {
    let is_plain = |side: &Expr| matches!(side, Expr::Column(_) | Expr::Literal(..));
    match condition {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => cannot_fail(&binary.left) && cannot_fail(&binary.right),
            operator => {
                is_comparison(operator) && is_plain(&binary.left) && is_plain(&binary.right)
            }
        },
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner) => cannot_fail(inner),
        Expr::Between(between) => {
            let sides = [&between.expr, &between.low, &between.high];
            sides.into_iter().all(|side| is_plain(side))
        }
        Expr::InList(list) => {
            is_plain(&list.expr)
                && list
                    .list
                    .iter()
                    .all(|item| matches!(item, Expr::Literal(..)))
        }
        _ => false,
    }
}

/// The same of a condition in a physical plan. What a join or a sort finds out is compared with columns only.
fn cannot_fail_either(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let is_plain = |side: &Arc<dyn PhysicalExpr>| side.is::<Column>() || side.is::<Literal>();
    if let Some(dynamic) = condition.downcast_ref::<DynamicFilterPhysicalExpr>() {
        return dynamic.children().iter().all(|child| child.is::<Column>());
    }
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        let (left, right) = (binary.left(), binary.right());
        return match binary.op() {
            Operator::And | Operator::Or => cannot_fail_either(left) && cannot_fail_either(right),
            operator => is_comparison(*operator) && is_plain(left) && is_plain(right),
        };
    }
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        return is_plain(list.expr()) && list.list().iter().all(|item| item.is::<Literal>());
    }
    let inner = condition
        .downcast_ref::<NotExpr>()
        .map(NotExpr::arg)
        .or_else(|| condition.downcast_ref::<IsNullExpr>().map(IsNullExpr::arg))
        .or_else(|| {
            condition
                .downcast_ref::<IsNotNullExpr>()
                .map(IsNotNullExpr::arg)
        });
    inner.map_or_else(|| is_plain(condition), cannot_fail_either)
}

fn is_comparison(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// DataFusion's planner, which also knows barriers.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)]);
        planner.create_physical_plan(plan, session).await
    }
}

#[async_trait]
impl ExtensionPlanner for Planner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let input = inputs.first().filter(|_| node.as_any().is::<Barrier>());
        Ok(input.map(|input| BarrierExec::above(Arc::clone(input))))
    }
}

/// The barrier, in a physical plan. Gives the rows of its input as they are.
#[derive(Debug)]
pub(crate) struct BarrierExec {
    input: Arc<dyn ExecutionPlan>,
}

impl BarrierExec {
    fn above(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input })
    }
}

impl DisplayAs for BarrierExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl ExecutionPlan for BarrierExec {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Self::above(input)),
            _ => Err(DataFusionError::Internal(format!("{NAME} has one input"))),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// Never exact: nothing is to be answered from what the hidden rows have a part in.
    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(inputs[0].as_ref().clone().to_inexact()))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        // The results are told by position, so what stays is asked for as what is always true.
        let passing = parent_filters.iter().map(|filter| {
            if cannot_fail_either(filter) {
                Arc::clone(filter)
            } else {
                lit(true)
            }
        });
        let passing: Vec<_> = passing.collect();
        let child = ChildFilterDescription::from_child(&passing, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }

    /// Whoever asked looks at every row again: what was passed on is for pruning.
    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let stay = result.parent_filters.iter().map(|_| PushedDown::No);
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(
            stay.collect(),
        ))
    }
}
