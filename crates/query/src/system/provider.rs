//! A table whose rows are made while they are read.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;

use super::columns::SystemColumn;

/// Rows in pieces. Each piece becomes one batch, so pieces are a thousand rows or so.
pub(super) type Pieces<R> = Box<dyn Iterator<Item = Vec<R>> + Send>;

/// A table of rows of type `R`.
pub(super) struct SystemTable<R> {
    name: &'static str,
    schema: SchemaRef,
    columns: Arc<[SystemColumn<R>]>,
    rows: Arc<dyn Fn() -> Pieces<R> + Send + Sync>,
}

impl<R: Send + 'static> SystemTable<R> {
    pub(super) fn provider(
        name: &'static str,
        columns: Vec<SystemColumn<R>>,
        rows: impl Fn() -> Pieces<R> + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        let fields: Vec<_> = columns.iter().map(SystemColumn::field).collect();
        let schema = Arc::new(Schema::new(fields));
        Arc::new(Self {
            name,
            schema,
            columns: columns.into(),
            rows: Arc::new(rows),
        })
    }
}

impl<R> fmt::Debug for SystemTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<R: Send + 'static> TableProvider for SystemTable<R> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.columns.len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&projection)?);
        let rows = SystemRows {
            name: self.name,
            schema: Arc::clone(&schema),
            columns: Arc::clone(&self.columns),
            projection,
            rows: Arc::clone(&self.rows),
        };
        let scan =
            StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, None, false, limit)?;
        Ok(Arc::new(scan))
    }
}

/// The wanted columns of a system table.
struct SystemRows<R> {
    name: &'static str,
    schema: SchemaRef,
    columns: Arc<[SystemColumn<R>]>,
    projection: Vec<usize>,
    rows: Arc<dyn Fn() -> Pieces<R> + Send + Sync>,
}

impl<R> fmt::Debug for SystemRows<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemRows")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<R: Send + 'static> PartitionStream for SystemRows<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let (columns, projection) = (Arc::clone(&self.columns), self.projection.clone());
        let batches = (self.rows)().map(move |rows| {
            let arrays = projection
                .iter()
                .map(|column| columns[*column].build(&rows))
                .collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)
                .map_err(DataFusionError::from)
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            stream::iter(batches),
        ))
    }
}
