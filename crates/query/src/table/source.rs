//! A scan whose extents are Parquet in the bucket or Vortex on the local disk.
//!
//! DataFusion reads either with a source of its own. Here they stand behind one: whatever is pushed
//! down goes to both, and each extent is read by the one that has it. Which of the two that is, is
//! decided when the extent is first opened, once for the whole scan: several tasks may read parts
//! of one extent, and their parts fit together only if they mean the same form.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, SortOrderPushdownResult};
use datafusion_datasource::morsel::{MorselPlanner, Morselizer};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use slipstream_catalog::TableState;
use vortex::array::buffer::BufferHandle;
use vortex::buffer::Alignment;
use vortex::error::VortexResult;
use vortex::io::{CoalesceConfig, VortexReadAt};
use vortex::session::VortexSession;
use vortex_datafusion::VortexSource;
use vortex_datafusion::convert::DefaultExpressionConverter;
use vortex_datafusion::reader::VortexReaderFactory;

use super::files::is_inline;
use super::local_filter::SameMeaning;
use super::reader::{ExtentReaderFactory, opened_extent};
use super::{ScanContext, live_filter};
use crate::counters::{ExtentKey, QueryCounters, TableCounters, extent_key};
use crate::{ExtentAccess, LocalExtent, ReadOrigin, Residency};

/// The extents of one scan that were opened, with the form that each is read in; `None`: Parquet.
#[derive(Debug)]
pub(super) struct LocalForms {
    access: Arc<dyn ExtentAccess>,
    counters: Arc<QueryCounters>,
    table: Arc<TableCounters>,
    chosen: Mutex<HashMap<Path, Option<LocalExtent>>>,
    /// The chosen ones, by the path that Vortex's source knows them by.
    readers: Mutex<HashMap<Path, ChosenForm>>,
}

/// A local form, and the extent whose form it is.
#[derive(Debug, Clone)]
struct ChosenForm {
    local: LocalExtent,
    extent: ExtentKey,
}

impl LocalForms {
    pub(super) fn new(
        access: Arc<dyn ExtentAccess>,
        counters: Arc<QueryCounters>,
        table: Arc<TableCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            access,
            counters,
            table,
            chosen: Mutex::default(),
            readers: Mutex::default(),
        })
    }

    /// The file as Vortex's source is to read it, when it is on the disk in that form.
    fn choose(&self, file: &PartitionedFile) -> Option<PartitionedFile> {
        if is_inline(file) {
            return None;
        }
        let path = &file.object_meta.location;
        let local = {
            let mut chosen = self.chosen.lock();
            let open = || self.access.open_local(path);
            chosen.entry(path.clone()).or_insert_with(open).clone()
        }?;
        self.counters.add_extent(&self.table, &opened_extent(file));
        // Footers are cached by path: a form that is made anew gets another one.
        let local_path = Path::from(format!("{path}.{:016x}.vortex", local.content));
        let mut readers = self.readers.lock();
        readers
            .entry(local_path.clone())
            .or_insert_with(|| ChosenForm {
                local: local.clone(),
                extent: extent_key(path),
            });
        drop(readers);
        let mut local_file = file.clone();
        let size_bytes = file.object_meta.size;
        local_file.range = file
            .range
            .as_ref()
            .map(|range| scaled(range, size_bytes, local.size_bytes));
        local_file.object_meta.location = local_path;
        local_file.object_meta.size = local.size_bytes;
        Some(local_file)
    }
}

/// A part of a file of `from` bytes as the same part of one of `to` bytes. Parts that follow each
/// other still do, and the last one ends at the end.
fn scaled(range: &FileRange, from: u64, to: u64) -> FileRange {
    let scale = |at: i64| {
        let at = u128::try_from(at).unwrap_or(0).min(u128::from(from));
        let scaled = at * u128::from(to) / u128::from(from.max(1));
        i64::try_from(scaled).unwrap_or(i64::MAX)
    };
    FileRange {
        start: scale(range.start),
        end: scale(range.end),
    }
}

impl VortexReaderFactory for LocalForms {
    fn create_reader(
        &self,
        file: &PartitionedFile,
        _: &VortexSession,
    ) -> Result<Arc<dyn VortexReadAt>> {
        let path = &file.object_meta.location;
        let chosen = self.readers.lock().get(path).cloned();
        let chosen = chosen.ok_or_else(|| {
            DataFusionError::Internal(format!("{path} was not chosen to be read locally"))
        })?;
        Ok(Arc::new(CountingReader {
            inner: chosen.local.reader,
            extent: chosen.extent,
            table: Arc::clone(&self.table),
        }))
    }
}

/// Counts what is read of local forms.
struct CountingReader {
    inner: Arc<dyn VortexReadAt>,
    extent: ExtentKey,
    table: Arc<TableCounters>,
}

impl VortexReadAt for CountingReader {
    fn uri(&self) -> Option<&Arc<str>> {
        self.inner.uri()
    }

    fn coalesce_config(&self) -> Option<CoalesceConfig> {
        self.inner.coalesce_config()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn size(&self) -> BoxFuture<'static, VortexResult<u64>> {
        self.inner.size()
    }

    fn read_at(
        &self,
        offset: u64,
        length: usize,
        alignment: Alignment,
    ) -> BoxFuture<'static, VortexResult<BufferHandle>> {
        let origin = ReadOrigin {
            cached_bytes: length as u64,
            ..ReadOrigin::default()
        };
        self.table.add_read(self.extent, origin, Residency::HotHit);
        self.inner.read_at(offset, length, alignment).boxed()
    }
}

/// What a scan's source is made of, for one query or another.
pub(super) struct Making {
    /// The table, as the catalog has it.
    pub(super) table: Arc<TableState>,
    /// `database.table`.
    pub(super) name: String,
    /// Whether no extent is read from the bucket.
    pub(super) are_local: bool,
    pub(super) context: Arc<ScanContext>,
}

impl Making {
    /// What reads extents of Parquet alone, and where its reads are counted.
    pub(super) fn parquet(
        &self,
        counters: &Arc<QueryCounters>,
    ) -> (ParquetSource, Arc<TableCounters>) {
        let of_table = counters.of_table(&self.name);
        of_table.add_extents(self.table.extents.len());
        let readers =
            ExtentReaderFactory::new(&self.context, Arc::clone(counters), Arc::clone(&of_table));
        let parquet = ParquetSource::new(self.table.schema.arrow())
            .with_parquet_file_reader_factory(Arc::new(readers));
        (parquet, of_table)
    }

    fn both(self: &Arc<Self>, counters: Arc<QueryCounters>) -> ExtentSource {
        let (parquet, of_table) = self.parquet(&counters);
        let context = &self.context;
        // Vortex filters better than DataFusion does after it; Parquet does not. So the scan takes
        // filters over where all of it is local, and what is evicted meanwhile pays for it.
        let parquet = parquet.with_pushdown_filters(self.are_local);
        let schema = TableSchema::from(self.table.schema.arrow());
        let converter = SameMeaning(DefaultExpressionConverter::new(context.vortex.clone()));
        let forms = LocalForms::new(Arc::clone(&context.access), counters, of_table);
        let factory = Arc::clone(&forms) as Arc<dyn VortexReaderFactory>;
        let vortex = VortexSource::new(schema, context.vortex.clone())
            .with_expression_converter(Arc::new(converter))
            .with_file_metadata_cache(Arc::clone(&context.footers))
            .with_vortex_reader_factory(factory);
        ExtentSource {
            parquet: Arc::new(parquet),
            vortex: Arc::new(vortex),
            forms,
            making: Arc::clone(self),
            told: Vec::new(),
        }
    }
}

/// What planning told a source, one thing after another.
#[derive(Clone)]
enum Told {
    BatchSize(usize),
    Filters(Vec<Arc<dyn PhysicalExpr>>, Arc<ConfigOptions>),
    Projection(ProjectionExprs),
    /// Which order; it is not told again.
    Order,
}

/// Both sources, told the same.
#[derive(Clone)]
pub(super) struct ExtentSource {
    parquet: Arc<dyn FileSource>,
    vortex: Arc<dyn FileSource>,
    forms: Arc<LocalForms>,
    making: Arc<Making>,
    told: Vec<Told>,
}

impl Debug for ExtentSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentSource").finish_non_exhaustive()
    }
}

impl ExtentSource {
    pub(super) fn new(making: Making, counters: Arc<QueryCounters>) -> Self {
        Arc::new(making).both(counters)
    }

    /// Whether [`renewed`](Self::renewed) gives the same source again. One that waits for a filter
    /// that only its own query will know does not, and one that was told an order is not asked to.
    pub(super) fn is_renewable(&self) -> bool {
        self.told.iter().all(|told| match told {
            Told::BatchSize(_) | Told::Projection(_) => true,
            Told::Filters(filters, _) => !filters.iter().any(live_filter::is_live),
            Told::Order => false,
        })
    }

    /// A source for another query with the same plan: told the same, and counting for itself.
    ///
    /// # Errors
    /// When what is told means something else by now.
    pub(super) fn renewed(&self, counters: Arc<QueryCounters>) -> Result<Arc<dyn FileSource>> {
        let mut source: Arc<dyn FileSource> = Arc::new(self.making.both(counters));
        for told in &self.told {
            let next = match told {
                Told::BatchSize(size) => Some(source.with_batch_size(*size)),
                Told::Filters(filters, config) => {
                    let pushed = source.try_pushdown_filters(filters.clone(), config)?;
                    pushed.updated_node
                }
                Told::Projection(projection) => source.try_pushdown_projection(projection)?,
                Told::Order => None,
            };
            source = next.ok_or_else(|| {
                DataFusionError::Internal("a scan refuses what it took before".to_owned())
            })?;
        }
        Ok(source)
    }

    fn with(&self, parquet: Arc<dyn FileSource>, vortex: Arc<dyn FileSource>) -> Self {
        Self {
            parquet,
            vortex,
            ..self.clone()
        }
    }

    fn having_been(mut self, told: Told) -> Arc<Self> {
        self.told.push(told);
        Arc::new(self)
    }
}

impl FileSource for ExtentSource {
    fn create_file_opener(
        &self,
        _: Arc<dyn ObjectStore>,
        _: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let message = "extents are read as morsels, and have no opener";
        Err(DataFusionError::Internal(message.to_owned()))
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let parquet = self
            .parquet
            .create_morselizer(Arc::clone(&store), config, partition)?;
        let vortex = self.vortex.create_morselizer(store, config, partition)?;
        Ok(Box::new(ExtentMorselizer {
            parquet,
            vortex,
            forms: Arc::clone(&self.forms),
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let parquet = self.parquet.with_batch_size(batch_size);
        let vortex = self.vortex.with_batch_size(batch_size);
        self.with(parquet, vortex)
            .having_been(Told::BatchSize(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        "extents"
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.parquet.fmt_extra(format, f)
    }

    /// A filter is the scan's business only when both sources take it over.
    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let told = Told::Filters(filters.clone(), Arc::new(config.clone()));
        // Parquet's takes all of them over, where it filters.
        let schema = self.parquet.table_schema().table_schema();
        let of_parquet = filters.iter().map(|filter| {
            if live_filter::compares_floats(filter, schema) {
                physical_expr::expressions::lit(true)
            } else {
                Arc::clone(filter)
            }
        });
        let parquet = self
            .parquet
            .try_pushdown_filters(of_parquet.collect(), config)?;
        let vortex = self.vortex.try_pushdown_filters(filters, config)?;
        let both = parquet.filters.iter().zip(&vortex.filters);
        let taken = both.map(|pair| match pair {
            (PushedDown::Yes, PushedDown::Yes) => PushedDown::Yes,
            _ => PushedDown::No,
        });
        let updated = self.with(
            parquet
                .updated_node
                .unwrap_or_else(|| Arc::clone(&self.parquet)),
            vortex
                .updated_node
                .unwrap_or_else(|| Arc::clone(&self.vortex)),
        );
        Ok(
            FilterPushdownPropagation::with_parent_pushdown_result(taken.collect())
                .with_updated_node(updated.having_been(told)),
        )
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let parquet = self.parquet.try_pushdown_projection(projection)?;
        let vortex = self.vortex.try_pushdown_projection(projection)?;
        let told = Told::Projection(projection.clone());
        let both = parquet.zip(vortex);
        Ok(both.map(|(parquet, vortex)| self.with(parquet, vortex).having_been(told) as _))
    }

    /// What Parquet's source answers, told to Vortex's only when the order is exact: reading parts
    /// of a file in another order is something that Parquet's alone can do.
    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let parquet = self.parquet.try_pushdown_sort(order, properties)?;
        Ok(match parquet {
            SortOrderPushdownResult::Exact { inner } => {
                match self.vortex.try_pushdown_sort(order, properties)? {
                    SortOrderPushdownResult::Exact { inner: vortex } => {
                        SortOrderPushdownResult::Exact {
                            inner: self.with(inner, vortex).having_been(Told::Order),
                        }
                    }
                    _ => SortOrderPushdownResult::Unsupported,
                }
            }
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact {
                inner: self
                    .with(inner, Arc::clone(&self.vortex))
                    .having_been(Told::Order),
            },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.parquet.reorder_files(files)
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match self.parquet.apply_expressions(visit)? {
            TreeNodeRecursion::Stop => Ok(TreeNodeRecursion::Stop),
            _ => self.vortex.apply_expressions(visit),
        }
    }
}

/// The source of a scan that is one of both forms.
fn of_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<(&FileScanConfig, &ExtentSource)> {
    plan.downcast_ref::<DataSourceExec>()?
        .downcast_to_file_source::<ExtentSource>()
}

/// Whether a node is a scan that another query with the same plan can have, as
/// [`renewed_scan`] makes it.
pub(crate) fn is_renewable_scan(plan: &Arc<dyn ExecutionPlan>) -> bool {
    of_scan(plan).is_some_and(|(_, source)| source.is_renewable())
}

/// The same scan for another query, which counts for itself; `None` when the node is no such scan.
///
/// # Errors
/// When the scan cannot be made again.
pub(crate) fn renewed_scan(
    plan: &Arc<dyn ExecutionPlan>,
    counters: &Arc<QueryCounters>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some((config, source)) = of_scan(plan) else {
        return Ok(None);
    };
    let source = source.renewed(Arc::clone(counters))?;
    let config = FileScanConfigBuilder::from(config.clone()).with_source(source);
    Ok(Some(DataSourceExec::from_data_source(config.build())))
}

#[derive(Debug)]
struct ExtentMorselizer {
    parquet: Box<dyn Morselizer>,
    vortex: Box<dyn Morselizer>,
    forms: Arc<LocalForms>,
}

impl Morselizer for ExtentMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        match self.forms.choose(&file) {
            Some(local) => self.vortex.plan_file(local),
            None => self.parquet.plan_file(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_the_same_parts_of_its_other_form() {
        let parts = [(0, 10), (10, 25), (25, 100)];
        let scale = |(start, end): (i64, i64), to| {
            let range = scaled(&FileRange { start, end }, 100, to);
            (range.start, range.end)
        };
        assert_eq!(
            parts.map(|part| scale(part, 50)),
            [(0, 5), (5, 12), (12, 50)]
        );
        assert_eq!(
            parts.map(|part| scale(part, 1_000)),
            [(0, 100), (100, 250), (250, 1_000)]
        );
        // DataFusion may let the last part end beyond the end.
        assert_eq!(scale((25, 200), 50), (12, 50));
    }
}
