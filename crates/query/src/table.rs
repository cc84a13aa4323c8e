//! A table of a snapshot, as DataFusion sees it.
//!
//! Everything about the table comes from the catalog: which extents there are, how large they
//! are, where their footers begin, what is in them. Planning makes no request; running makes
//! ranged reads of the extents that survive pruning, and nothing else.

mod fault;
mod files;
mod limited;
mod live_filter;
mod local_filter;
mod one_task;
mod order;
mod prune;
mod reader;
mod scan;
mod source;
mod statistics;
mod wish;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use slipstream_catalog::TableState;
use slipstream_model::{DatabaseId, Extent, Version};
use vortex::session::VortexSession;

use crate::counters::QueryCounters;
use crate::{DataScope, ExtentAccess};

pub(crate) use fault::{ExtentFault, FaultKind, check_extents};
pub(crate) use files::is_inline;
pub(crate) use limited::ShowLimits;
pub(crate) use one_task::ShareOutMany;
pub(crate) use reader::OpenedExtent;
pub(crate) use scan::ResolveScans;
pub(crate) use source::{is_renewable_scan, renewed_scan};

/// What all scans of a process share.
pub(crate) struct ScanContext {
    /// Where extents are read from.
    pub(crate) access: Arc<dyn ExtentAccess>,
    /// The name that the store is registered under.
    pub(crate) store_url: ObjectStoreUrl,
    /// Footers and page indexes that were read already.
    pub(crate) footers: Arc<FileMetadataCache>,
    /// What Vortex's readers share.
    pub(crate) vortex: VortexSession,
}

impl fmt::Debug for ScanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanContext")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A table at one version.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotTable {
    database_name: Arc<str>,
    database: DatabaseId,
    table: Arc<TableState>,
    scope: DataScope,
    /// Its version, when its files may have been deleted: it is not the newest one, or it is another
    /// node that deletes them.
    older: Option<Version>,
    /// Whether rows are to come in the order in which they stand in their extents.
    in_order: bool,
    context: Arc<ScanContext>,
}

impl SnapshotTable {
    pub(crate) fn new(
        database_name: Arc<str>,
        database: DatabaseId,
        table: Arc<TableState>,
        scope: DataScope,
        context: Arc<ScanContext>,
    ) -> Self {
        Self {
            database_name,
            database,
            table,
            scope,
            older: None,
            in_order: false,
            context,
        }
    }

    /// The same table, of a version whose files may have been deleted.
    pub(crate) fn may_be_gone(self, version: Version) -> Self {
        Self {
            older: Some(version),
            ..self
        }
    }

    /// The table with none but one of its extents, whose rows come in their order.
    pub(crate) fn only(&self, extent: &Extent) -> Self {
        Self {
            table: Arc::new(self.table.with_only(extent.clone())),
            in_order: true,
            ..self.clone()
        }
    }

    /// The table, as the catalog has it.
    pub(crate) fn state(&self) -> &Arc<TableState> {
        &self.table
    }

    /// The database's name on this node.
    pub(crate) fn database_name(&self) -> &str {
        &self.database_name
    }

    /// Whether all extents are read, in any order.
    pub(crate) fn is_whole(&self) -> bool {
        !self.in_order && self.scope == DataScope::All
    }

    /// The extents that may hold rows for all of some conditions over the table's columns, told
    /// by minima and maxima alone. Extents without rows are none of them.
    pub(crate) fn extents_for(&self, state: &dyn Session, filters: &[Expr]) -> Vec<Extent> {
        let predicate = self.pruning_predicate(state, filters);
        let selected = prune::select(&self.table, predicate.as_ref());
        let extents = selected.iter().flat_map(|selected| {
            let slots = selected.slots.iter();
            slots.map(move |slot| selected.block.extent(*slot))
        });
        extents.collect()
    }

    /// What can be said of an extent by its minima and maxima. A predicate that cannot be used
    /// for that is no error: nothing is left out then, and the filter above the scan decides.
    fn pruning_predicate(&self, state: &dyn Session, filters: &[Expr]) -> Option<PruningPredicate> {
        let predicate = conjunction(filters.iter().cloned())?;
        let schema = self.table.schema.arrow();
        let build = || -> Result<PruningPredicate> {
            let qualified = DFSchema::try_from(Arc::clone(&schema))?;
            let expression = state.create_physical_expr(predicate, &qualified)?;
            PruningPredicateBuilder::new()
                .with_file_schema(Arc::clone(&schema))
                .try_build(expression)
        };
        match build() {
            Ok(predicate) => Some(predicate).filter(|predicate| !predicate.always_true()),
            Err(error) => {
                tracing::debug!(table = %self.table.name, %error, "filters cannot prune extents");
                None
            }
        }
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema.arrow()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let args = ScanArgs::default()
            .with_projection(projection.map(Vec::as_slice))
            .with_filters(Some(filters))
            .with_limit(limit);
        Ok(self.scan_with_args(state, args).await?.into_inner())
    }

    async fn scan_with_args<'a>(
        &self,
        state: &dyn Session,
        args: ScanArgs<'a>,
    ) -> Result<ScanResult> {
        let filters = args.filters().unwrap_or(&[]);
        let request = scan::ScanRequest {
            projection: args.projection().map(<[usize]>::to_vec),
            is_filtered: !filters.is_empty(),
            predicate: self.pruning_predicate(state, filters),
            limit: args.limit(),
            counters: state
                .config()
                .get_extension::<QueryCounters>()
                .unwrap_or_default(),
        };
        let scan = scan::DeferredScan::try_new(self.clone(), request)?;
        Ok(ScanResult::new(Arc::new(scan)))
    }

    /// Extents are left out by minimum and maximum, row groups and pages likewise; rows are not
    /// filtered here, so the filter stays above the scan.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
