//! Scans that are worked out as late as possible.
//!
//! A table may have a million extents. Listing them costs seconds and gigabytes, and
//! `SELECT count(*)` needs none of them: the optimizer answers it from the statistics. So a table
//! first plans a [`DeferredScan`], which knows its statistics only; what the optimizer leaves of
//! those, the rule [`ResolveScans`] turns into ordinary Parquet scans. It runs right after
//! `aggregate_statistics` and before every rule that looks at files.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, TableReference, project_schema};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr, RangePartitioning,
    SplitPoint,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, replace_children_if_necessary,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, execute_stream,
};

use super::SnapshotTable;
use super::prune::{Selected, select};
use super::source::{ExtentSource, Making};
use super::wish::Wish;
use super::{files, order, statistics};
use crate::counters::QueryCounters;
use crate::{DataScope, Residency};

/// Tasks that read what is not here, to each that reads what is: while some wait for the bucket, the
/// others compute.
const COLD_READERS: usize = 2;

/// What a query asks of a table.
#[derive(Debug, Clone)]
pub(super) struct ScanRequest {
    /// Positions of the wanted columns; `None`: all.
    pub(super) projection: Option<Vec<usize>>,
    /// Whether a filter stands above the scan.
    pub(super) is_filtered: bool,
    /// What of the filter can leave out extents.
    pub(super) predicate: Option<PruningPredicate>,
    /// Rows that are enough; only without filter.
    pub(super) limit: Option<usize>,
    /// Where the query counts what it reads.
    pub(super) counters: Arc<QueryCounters>,
}

/// A scan whose extents are not chosen yet.
#[derive(Debug)]
pub(crate) struct DeferredScan {
    table: SnapshotTable,
    request: ScanRequest,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    statistics: OnceLock<Arc<Statistics>>,
}

impl DeferredScan {
    pub(super) fn try_new(table: SnapshotTable, request: ScanRequest) -> Result<Self> {
        let schema = project_schema(&table.table.schema.arrow(), request.projection.as_ref())?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties);
        Ok(Self {
            table,
            request,
            schema,
            properties,
            statistics: OnceLock::new(),
        })
    }

    /// For each column of the table, whether the query needs it.
    fn wanted(&self) -> Vec<bool> {
        let count = self.table.table.schema.columns().len();
        match &self.request.projection {
            None => vec![true; count],
            Some(projection) => (0..count)
                .map(|column| projection.contains(&column))
                .collect(),
        }
    }

    fn projected_statistics(&self) -> Statistics {
        // Rows that a filter drops are counted in the catalog, and the filter above says so too.
        if self.request.is_filtered || self.table.scope != DataScope::All {
            return Statistics::new_unknown(&self.schema);
        }
        let mut statistics = statistics::of_table(&self.table.table, &self.wanted());
        if let Some(projection) = &self.request.projection {
            let columns = &statistics.column_statistics;
            statistics.column_statistics = projection
                .iter()
                .map(|column| columns[*column].clone())
                .collect();
        }
        statistics
    }

    /// The extents that have to be read: those that may hold rows, up to the limit.
    fn selection(&self) -> Vec<Selected> {
        let mut selection = select(&self.table.table, self.request.predicate.as_ref());
        if self.table.scope == DataScope::HotCache {
            self.keep_hot(&mut selection);
        }
        if let Some(limit) = self.request.limit.filter(|_| !self.request.is_filtered) {
            keep_first_rows(&mut selection, limit as u64);
        }
        selection
    }

    /// Drops the extents that are not hot by now.
    fn keep_hot(&self, selection: &mut Vec<Selected>) {
        let SnapshotTable {
            database, context, ..
        } = &self.table;
        for selected in selection.iter_mut() {
            let block = selected.block.clone();
            selected.slots.retain(|slot| {
                let path = context.access.path(*database, block.id(*slot));
                block.inline(*slot).is_some() || context.access.residency(&path) != Residency::Cold
            });
        }
        selection.retain(|selected| !selected.slots.is_empty());
    }

    /// Chooses the extents and makes a Parquet scan of them, by as many tasks as `config` says.
    fn resolve(&self, config: &ConfigOptions, wish: &Wish) -> Result<Arc<dyn ExecutionPlan>> {
        let selection = self.selection();
        if selection.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::clone(&self.schema))));
        }
        let SnapshotTable {
            database_name,
            database,
            table,
            older,
            context,
            ..
        } = &self.table;
        let wanted = self.wanted();
        let name = TableReference::partial(Arc::clone(database_name), table.name.as_str());
        let path = |extent: &slipstream_model::Extent| context.access.path(*database, extent.id);
        let mut files = files::files(&table.schema, &selection, &wanted, &name, *older, path);
        let ordering = wish
            .is_any()
            .then(|| order::find(&table.schema, &selection, &wanted))
            .flatten()
            .filter(|found| {
                self.in_order(&wish.order, found, |_| true).is_some()
                    || self.grouped_by(wish, found).is_some()
            });
        if let Some(ordering) = &ordering {
            files = ordering
                .extents
                .iter()
                .map(|position| files[*position].clone())
                .collect();
        }

        let is_local = |file: &PartitionedFile| {
            files::is_inline(file) || context.access.is_local(&file.object_meta.location)
        };
        let are_local = files.iter().all(is_local);
        let size_bytes: u64 = files.iter().map(PartitionedFile::effective_size).sum();
        let is_shared_out =
            !are_local || size_bytes >= config.optimizer.repartition_file_min_size as u64;
        let partitions = if is_shared_out {
            config.execution.target_partitions
        } else {
            1
        };
        let source = self.source(&name, are_local);
        let apart = ordering
            .as_ref()
            .and_then(|found| self.apart(wish, found, &selection, &files, partitions));
        let (groups, partitioning) = if let Some((groups, partitioning)) = apart {
            (groups, Some(partitioning))
        } else if self.request.limit.is_some()
            || self.table.in_order
            || ordering.is_some()
            || are_local
        {
            (files::groups(files, partitions), None)
        } else {
            let readers = partitions * COLD_READERS;
            (files::groups(files::parts(files, readers), readers), None)
        };
        let config = FileScanConfigBuilder::new(context.store_url.clone(), source)
            .with_file_groups(groups)
            .with_statistics(self.resolved_statistics(&selection, &wanted))
            .with_output_ordering(ordering.map_or_else(Vec::new, |found| self.orderings(&found)))
            .with_output_partitioning(partitioning)
            .with_limit(self.request.limit)
            .with_projection_indices(self.request.projection.clone())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The first of the wished columns that is in order and `fits`, by its position in the table.
    fn in_order(
        &self,
        wished: &[usize],
        found: &order::Ordering,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let of_table = |column: &usize| match &self.request.projection {
            Some(projection) => projection.get(*column).copied(),
            None => Some(*column),
        };
        let mut wished = wished.iter().filter_map(of_table);
        wished.find(|column| found.columns.contains(column) && fits(*column))
    }

    fn grouped_by(&self, wish: &Wish, found: &order::Ordering) -> Option<usize> {
        let schema = self.table.table.schema.arrow();
        // Two zeros are one group and two values in order.
        let fits = |column: usize| !schema.field(column).data_type().is_floating();
        self.in_order(&wish.groups, found, fits)
    }

    /// As many groups of extents as there are to be partitions, no two of which hold the same value
    /// of the column that groups are made by above: then each is aggregated to its end alone.
    fn apart(
        &self,
        wish: &Wish,
        found: &order::Ordering,
        selection: &[Selected],
        files: &[PartitionedFile],
        partitions: usize,
    ) -> Option<(Vec<FileGroup>, Partitioning)> {
        if partitions < 2 {
            return None;
        }
        let column = self.grouped_by(wish, found)?;
        let starts = order::starts(&self.table.table.schema, selection, found, column);
        let may_cut: Vec<bool> = starts.iter().map(Option::is_some).collect();
        let (groups, cuts) = files::groups_at(files, &may_cut, partitions)?;
        let points = cuts.iter().filter_map(|cut| starts[*cut].clone());
        let points = points.map(|start| SplitPoint::new(vec![start])).collect();
        let ordering = self.orderings(found).into_iter().nth(
            found
                .columns
                .iter()
                .position(|ordered| *ordered == column)?,
        )?;
        let range = RangePartitioning::try_new(ordering, points).ok()?;
        Some((groups, Partitioning::Range(range)))
    }

    /// What reads the chosen extents. `are_local`: none of them is read from the bucket.
    fn source(&self, name: &TableReference, are_local: bool) -> Arc<dyn FileSource> {
        let SnapshotTable { table, context, .. } = &self.table;
        let making = Making {
            table: Arc::clone(table),
            name: name.to_string(),
            are_local,
            context: Arc::clone(context),
        };
        let counters = &self.request.counters;
        if context.access.has_local_forms() {
            Arc::new(ExtentSource::new(making, Arc::clone(counters)))
        } else {
            Arc::new(making.parquet(counters).0)
        }
    }

    /// Statistics of the chosen extents, for all columns of the table.
    fn resolved_statistics(&self, selection: &[Selected], wanted: &[bool]) -> Statistics {
        let table = &self.table.table;
        let is_whole = self.table.scope == DataScope::All;
        if is_whole && !self.request.is_filtered && self.request.limit.is_none() {
            return statistics::of_table(table, wanted);
        }
        let blocks = selection.iter().map(|selected| &selected.block);
        let mut statistics = statistics::of_blocks(&table.schema, blocks, wanted);
        let rows: u64 = selection.iter().map(Selected::row_count).sum();
        let bytes_per_row = table.extents.original_bytes() / table.extents.row_count().max(1);
        statistics.num_rows = statistics::exact(rows);
        statistics.total_byte_size = statistics::exact(rows.saturating_mul(bytes_per_row));
        statistics.to_inexact()
    }

    fn orderings(&self, found: &order::Ordering) -> Vec<LexOrdering> {
        let schema = self.table.table.schema.arrow();
        let ascending = |position: &usize| {
            let column = Column::new(schema.field(*position).name(), *position);
            // There are no nulls; SQL's default for ascending sorts is to put them last.
            let options = arrow::compute::SortOptions {
                descending: false,
                nulls_first: false,
            };
            LexOrdering::new([PhysicalSortExpr::new(Arc::new(column), options)])
        };
        found.columns.iter().filter_map(ascending).collect()
    }
}

impl Selected {
    fn row_count(&self) -> u64 {
        self.slots
            .iter()
            .map(|slot| self.block.row_counts().value(*slot))
            .sum()
    }
}

/// Drops the extents after those that hold the first `limit` rows.
fn keep_first_rows(selection: &mut Vec<Selected>, limit: u64) {
    let mut rows = 0;
    for selected in selection.iter_mut() {
        let counts = selected.block.row_counts().clone();
        selected.slots.retain(|slot| {
            let needed = rows < limit;
            rows += counts.value(*slot);
            needed
        });
    }
    selection.retain(|selected| !selected.slots.is_empty());
}

impl DisplayAs for DeferredScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnapshotTable {
            database_name,
            table,
            ..
        } = &self.table;
        write!(f, "DeferredScan: table={database_name}.{}", table.name)
    }
}

impl ExecutionPlan for DeferredScan {
    fn name(&self) -> &str {
        "DeferredScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(
            self.statistics
                .get_or_init(|| Arc::new(self.projected_statistics())),
        ))
    }

    /// For plans that were never optimized.
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(DataFusionError::Internal(format!(
                "there is no partition {partition}"
            )));
        }
        let mut config = context.session_config().options().as_ref().clone();
        config.execution.target_partitions = 1;
        execute_stream(self.resolve(&config, &Wish::default())?, context)
    }
}

/// Turns every [`DeferredScan`] that is left in a plan into a Parquet scan.
#[derive(Debug, Default)]
pub(crate) struct ResolveScans;

impl PhysicalOptimizerRule for ResolveScans {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        resolve(plan, config, &Wish::default())
    }

    fn name(&self) -> &str {
        "resolve_scans"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn resolve(
    plan: Arc<dyn ExecutionPlan>,
    config: &ConfigOptions,
    wish: &Wish,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = plan.downcast_ref::<DeferredScan>() {
        return scan.resolve(config, wish);
    }
    let wish = wish.of_input(&plan);
    let children = plan
        .children()
        .into_iter()
        .map(Arc::clone)
        .collect::<Vec<_>>();
    if children.is_empty() {
        return Ok(plan);
    }
    let resolved: Result<Vec<_>> = children
        .into_iter()
        .map(|child| resolve(child, config, &wish))
        .collect();
    replace_children_if_necessary(plan, resolved?)
}
