//! Keeps filters that come up while a query runs out of scans that stop after some rows.
//!
//! Such a filter leaves out rows before a scan counts them: the first ten rows that find a partner
//! are not the partners of the first ten rows. DataFusion gives scans their limit first and hands
//! them filters afterwards, and stops handing them down at a limit that stands for itself.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::LocalLimitExec;

/// Puts a limit above each scan that has one.
#[derive(Debug, Default)]
pub(crate) struct ShowLimits;

impl PhysicalOptimizerRule for ShowLimits {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let limit = plan.fetch().filter(|_| plan.is::<DataSourceExec>());
            Ok(match limit {
                Some(limit) => Transformed::yes(Arc::new(LocalLimitExec::new(plan, limit)) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "show_limits"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
