//! Reads extents: footers once per process, ranges as the scan asks for them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::ScanContext;
use super::fault::{ExtentFault, ReadFailure, wrong_size};
use crate::counters::QueryCounters;
use crate::{ExtentAccess, Residency};

/// An extent that a query reads, as far as errors have to name it.
#[derive(Debug, Clone)]
pub(crate) struct OpenedExtent {
    /// `database.table`.
    pub(crate) table: Arc<str>,
    /// Where the object is.
    pub(crate) location: Path,
    /// Its length, by the catalog.
    pub(crate) size_bytes: u64,
    /// Its SHA-256 as text, by the catalog.
    pub(crate) sha256: String,
}

impl fmt::Display for OpenedExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.location.filename().unwrap_or_default();
        let id = name.strip_suffix(".parquet").unwrap_or(name);
        write!(f, "extent {id} of {} ({})", self.table, self.location)
    }
}

/// Makes the readers of one scan.
#[derive(Debug)]
pub(crate) struct ExtentReaderFactory {
    access: ExtentAccess,
    footers: Arc<FileMetadataCache>,
    counters: Arc<QueryCounters>,
}

impl ExtentReaderFactory {
    pub(crate) fn new(context: &ScanContext, counters: Arc<QueryCounters>) -> Self {
        Self {
            access: context.access.clone(),
            footers: Arc::clone(&context.footers),
            counters,
        }
    }
}

impl ParquetFileReaderFactory for ExtentReaderFactory {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let meta = file.object_meta;
        let table = file
            .table_reference
            .map(|table| table.to_string())
            .unwrap_or_default();
        let extent = OpenedExtent {
            table: table.into(),
            location: meta.location.clone(),
            size_bytes: meta.size,
            sha256: meta.e_tag.clone().unwrap_or_default(),
        };
        Ok(Box::new(ExtentReader {
            store: Arc::clone(&self.access.store),
            residency: Arc::clone(&self.access.residency),
            footers: Arc::clone(&self.footers),
            counters: Arc::clone(&self.counters),
            metrics: ParquetFileMetrics::new(partition, meta.location.as_ref(), metrics),
            metadata_size_hint,
            meta,
            extent,
            is_counted: false,
        }))
    }
}

struct ExtentReader {
    store: Arc<dyn ObjectStore>,
    residency: Arc<dyn Fn(&Path) -> Residency + Send + Sync>,
    footers: Arc<FileMetadataCache>,
    counters: Arc<QueryCounters>,
    metrics: ParquetFileMetrics,
    metadata_size_hint: Option<usize>,
    meta: ObjectMeta,
    extent: OpenedExtent,
    is_counted: bool,
}

impl ExtentReader {
    /// Counts a request, and with the first one the extent.
    fn count(&mut self, bytes: u64) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.counters.add_extent(self.extent.clone());
        }
        let residency = (self.residency)(&self.meta.location);
        self.counters.add_request(bytes, residency);
        self.metrics
            .bytes_scanned
            .add(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    async fn fault(&self, failure: ReadFailure) -> ParquetError {
        let fault = ExtentFault::of_read(self.store.as_ref(), &self.extent, failure).await;
        ParquetError::External(Box::new(fault))
    }

    /// Some stores answer a range beyond the end with what there is.
    fn check_lengths(&self, ranges: &[Range<u64>], found: &[Bytes]) -> ParquetResult<()> {
        let is_short =
            |(range, bytes): (&Range<u64>, &Bytes)| (bytes.len() as u64) < range.end - range.start;
        match ranges.iter().zip(found).find(|pair| is_short(*pair)) {
            None => Ok(()),
            Some((range, bytes)) => {
                let end = range.start + bytes.len() as u64;
                let reason = wrong_size(end, self.extent.size_bytes);
                let fault = ExtentFault::damaged(&self.extent, reason);
                Err(ParquetError::External(Box::new(fault)))
            }
        }
    }

    fn has_footer(&self) -> bool {
        self.footers
            .get(&self.meta.location)
            .is_some_and(|cached| cached.is_valid_for(&self.meta))
    }

    async fn metadata(&mut self) -> ParquetResult<Arc<ParquetMetaData>> {
        if self.has_footer() {
            if !std::mem::replace(&mut self.is_counted, true) {
                self.counters.add_extent(self.extent.clone());
            }
        } else {
            self.count(self.metadata_size_hint.unwrap_or(0) as u64);
        }
        // The page index stands right before the footer and comes with the same request, so it is
        // always asked for, whatever the scan says.
        let fetched = DFParquetMetadata::new(&self.store, &self.meta)
            .with_file_metadata_cache(Some(Arc::clone(&self.footers)))
            .with_metadata_size_hint(self.metadata_size_hint)
            .with_page_index_policy(Some(PageIndexPolicy::Optional))
            .fetch_metadata()
            .await;
        match fetched {
            Ok(metadata) => Ok(metadata),
            Err(error) => Err(self.fault((&error).into()).await),
        }
    }
}

impl AsyncFileReader for ExtentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            self.count(range.end - range.start);
            match self
                .store
                .get_range(&self.meta.location, range.clone())
                .await
            {
                Ok(bytes) => {
                    self.check_lengths(&[range], std::slice::from_ref(&bytes))?;
                    Ok(bytes)
                }
                Err(error) => Err(self.fault((&error).into()).await),
            }
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            self.count(ranges.iter().map(|range| range.end - range.start).sum());
            match self.store.get_ranges(&self.meta.location, &ranges).await {
                Ok(bytes) => {
                    self.check_lengths(&ranges, &bytes)?;
                    Ok(bytes)
                }
                Err(error) => Err(self.fault((&error).into()).await),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.metadata().boxed()
    }
}
