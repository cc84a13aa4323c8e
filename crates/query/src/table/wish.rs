//! What the operators above a scan would gain from.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use crate::barrier::BarrierExec;

/// Columns of a plan's output, by position. A scan in order is not shared out among idle tasks, so
/// only those who gain ask for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// Rows in the order of one of these.
    pub(super) order: Vec<usize>,
    /// Rows with the same value of one of these in one partition, and next to each other.
    pub(super) groups: Vec<usize>,
}

impl Wish {
    pub(super) fn is_any(&self) -> bool {
        !self.order.is_empty() || !self.groups.is_empty()
    }

    /// What a plan's input is to fulfil, for the plan to fulfil this.
    pub(super) fn of_input(&self, plan: &Arc<dyn ExecutionPlan>) -> Self {
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            let by = aggregate.group_expr();
            let columns = by.expr().iter().filter_map(|(by, _)| position(by));
            let groups = columns.filter(|_| !by.has_grouping_set()).collect();
            return Self {
                groups,
                ..Self::default()
            };
        }
        if let Some(sort) = plan.downcast_ref::<SortExec>() {
            let order = position(&sort.expr().first().expr).into_iter().collect();
            return Self {
                order,
                ..Self::default()
            };
        }
        let windows = plan
            .downcast_ref::<WindowAggExec>()
            .map(WindowAggExec::window_expr);
        let windows = windows.or_else(|| {
            plan.downcast_ref::<BoundedWindowAggExec>()
                .map(BoundedWindowAggExec::window_expr)
        });
        if let Some(window) = windows.and_then(|windows| windows.first()) {
            let order = window.order_by().iter().map(|by| &by.expr);
            let columns = window.partition_by().iter().chain(order);
            return Self {
                order: columns.filter_map(position).collect(),
                ..Self::default()
            };
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            return self.mapped(|column| match filter.projection() {
                Some(projection) => projection.get(column).copied(),
                None => Some(column),
            });
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            return self.mapped(|column| position(&projection.expr().get(column)?.expr));
        }
        let keeps_order = plan.is::<GlobalLimitExec>()
            || plan.is::<LocalLimitExec>()
            || plan.is::<CoalescePartitionsExec>()
            || plan.is::<SortPreservingMergeExec>()
            || plan.is::<BarrierExec>()
            || plan.is::<UnionExec>();
        if keeps_order {
            return Self {
                order: self.order.clone(),
                ..Self::default()
            };
        }
        Self::default()
    }

    fn mapped(&self, of_input: impl Fn(usize) -> Option<usize>) -> Self {
        let map = |columns: &[usize]| {
            let columns = columns.iter();
            columns.filter_map(|column| of_input(*column)).collect()
        };
        Self {
            order: map(&self.order),
            groups: map(&self.groups),
        }
    }
}

/// Which column of the input an expression is.
fn position(expression: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expression.downcast_ref::<Column>().map(Column::index)
}
