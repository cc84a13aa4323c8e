//! Queries over little data, which are one task's.
//!
//! Sharing out some thousand rows among the cores, and putting the shares together again, takes longer
//! than the rows do; and where many such queries come at one time, the others keep the cores busy.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// DataFusion's rule that shares out the rows of a plan, told of one task only where they are few.
#[derive(Debug, Default)]
pub(crate) struct ShareOutMany(EnsureRequirements);

impl ShareOutMany {
    /// Whether this is the rule in whose place it stands.
    pub(crate) fn replaces(rule: &dyn PhysicalOptimizerRule) -> bool {
        rule.name() == EnsureRequirements::new().name()
    }
}

impl PhysicalOptimizerRule for ShareOutMany {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !is_over_few_rows(&plan, config.optimizer.repartition_file_min_size) {
            return self.0.optimize(plan, config);
        }
        let mut config = config.clone();
        config.execution.target_partitions = 1;
        self.0.optimize(plan, &config)
    }

    fn name(&self) -> &str {
        "share_out_many"
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether a plan takes its rows from one small scan, and does not make many of them.
fn is_over_few_rows(plan: &Arc<dyn ExecutionPlan>, bytes_max: usize) -> bool {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        let config = source.data_source().downcast_ref::<FileScanConfig>();
        return config.is_some_and(|config| {
            let files = config.file_groups.iter().flat_map(|group| group.files());
            let bytes: u64 = files.map(PartitionedFile::effective_size).sum();
            plan.output_partitioning().partition_count() == 1 && bytes < bytes_max as u64
        });
    }
    match plan.children().as_slice() {
        [input] => !plan.is::<UnnestExec>() && is_over_few_rows(input, bytes_max),
        _ => false,
    }
}
