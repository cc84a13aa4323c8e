//! Reads extents: footers once per process, ranges as the scan asks for them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::{
    CachedParquetMetaData, DFParquetMetadata,
};
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::Result;
use datafusion::execution::cache::Cache;
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::basic::{LogicalType, Type};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};
use datafusion::parquet::file::page_index::column_index::ColumnIndexMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::ScanContext;
use super::fault::{ExtentFault, ReadFailure, wrong_size};
use super::files::{HasNan, InlineBytes, is_inline};
use crate::counters::{QueryCounters, TableCounters, extent_key};
use crate::{ExtentAccess, ReadOrigin, Residency};

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
    /// The version that is read, when that is not the newest one.
    pub(crate) older: Option<String>,
    /// Whether it stands in the log, and is no object.
    pub(crate) is_inline: bool,
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
    access: Arc<dyn ExtentAccess>,
    footers: Arc<FileMetadataCache>,
    counters: Arc<QueryCounters>,
    table: Arc<TableCounters>,
}

impl ExtentReaderFactory {
    pub(crate) fn new(
        context: &ScanContext,
        counters: Arc<QueryCounters>,
        table: Arc<TableCounters>,
    ) -> Self {
        Self {
            access: Arc::clone(&context.access),
            footers: Arc::clone(&context.footers),
            counters,
            table,
        }
    }
}

/// The extent that is a file of a scan.
pub(super) fn opened_extent(file: &PartitionedFile) -> OpenedExtent {
    let meta = &file.object_meta;
    let table = file.table_reference.as_ref();
    OpenedExtent {
        table: table.map(ToString::to_string).unwrap_or_default().into(),
        location: meta.location.clone(),
        size_bytes: meta.size,
        sha256: meta.e_tag.clone().unwrap_or_default(),
        older: meta.version.clone(),
        is_inline: is_inline(file),
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
        let extent = opened_extent(&file);
        let inline = file.extension::<InlineBytes>();
        let inline = inline.map(|inline| inline.0.clone());
        let has_nan = file.extension::<HasNan>().is_some();
        let meta = file.object_meta;
        Ok(Box::new(ExtentReader {
            access: Arc::clone(&self.access),
            footers: Arc::clone(&self.footers),
            counters: Arc::clone(&self.counters),
            table: Arc::clone(&self.table),
            metrics: ParquetFileMetrics::new(partition, meta.location.as_ref(), metrics),
            metadata_size_hint,
            meta,
            extent,
            inline,
            has_nan,
            is_counted: false,
        }))
    }
}

struct ExtentReader {
    access: Arc<dyn ExtentAccess>,
    footers: Arc<FileMetadataCache>,
    counters: Arc<QueryCounters>,
    table: Arc<TableCounters>,
    metrics: ParquetFileMetrics,
    metadata_size_hint: Option<usize>,
    meta: ObjectMeta,
    extent: OpenedExtent,
    /// The whole of it, when it stands in the log.
    inline: Option<Bytes>,
    has_nan: bool,
    is_counted: bool,
}

impl ExtentReader {
    /// Counts the extent, once.
    fn count_extent(&mut self) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.counters.add_extent(&self.table, &self.extent);
        }
    }

    /// Reads ranges, and counts what that cost.
    async fn read(&mut self, ranges: &[Range<u64>]) -> ParquetResult<Vec<Bytes>> {
        self.count_extent();
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let bytes_scanned = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.metrics.bytes_scanned.add(bytes_scanned);
        if let Some(inline) = self.inline.clone() {
            return self.cut(&inline, ranges);
        }
        let location = &self.meta.location;
        let residency = self.access.residency(location);
        match self.access.read(location, ranges, self.meta.size).await {
            Ok((pieces, origin)) => {
                self.table.add_read(extent_key(location), origin, residency);
                self.check_lengths(ranges, &pieces)?;
                Ok(pieces)
            }
            Err(error) => Err(self.fault((&error).into()).await),
        }
    }

    /// Ranges of an extent that stands in the log, which cost no request.
    fn cut(&self, inline: &Bytes, ranges: &[Range<u64>]) -> ParquetResult<Vec<Bytes>> {
        let end = inline.len();
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(end);
        let pieces = ranges.iter().map(|range| {
            let start = at(range.start);
            inline.slice(start..at(range.end).max(start))
        });
        let pieces: Vec<Bytes> = pieces.collect();
        let origin = ReadOrigin {
            cached_bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
            ..ReadOrigin::default()
        };
        let key = extent_key(&self.meta.location);
        self.table.add_read(key, origin, Residency::HotHit);
        self.check_lengths(ranges, &pieces)?;
        Ok(pieces)
    }

    async fn fault(&self, failure: ReadFailure) -> ParquetError {
        let store = self.access.store().as_ref();
        let fault = ExtentFault::of_read(store, &self.extent, failure).await;
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
        let metadata = self.whole_metadata().await?;
        if self.has_nan {
            return Ok(Arc::new(without_float_bounds(&metadata)?));
        }
        Ok(metadata)
    }

    async fn whole_metadata(&mut self) -> ParquetResult<Arc<ParquetMetaData>> {
        if let Some(inline) = self.inline.clone() {
            self.count_extent();
            // Not remembered: it is gone soon, and costs no read.
            let mut reader =
                ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            reader.try_parse(&inline)?;
            return Ok(Arc::new(reader.finish()?));
        }
        if !self.has_footer() {
            self.fetch_footer().await?;
        }
        self.count_extent();
        // From memory, unless the footer is not as long as the catalog says.
        let fetched = DFParquetMetadata::new(self.access.store(), &self.meta)
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

    /// Reads the footer into memory, by the length that the catalog says it has. The page index
    /// stands right before it and comes with the same read, whatever the scan says.
    async fn fetch_footer(&mut self) -> ParquetResult<()> {
        let size = self.meta.size;
        let length = self.metadata_size_hint.unwrap_or(0) as u64;
        if length == 0 || length > size {
            return Ok(());
        }
        let footer = size - length..size;
        let pieces = self.read(std::slice::from_ref(&footer)).await?;
        let Some(footer) = pieces.into_iter().next() else {
            return Ok(());
        };
        let mut reader =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        // What cannot be read so is read as DataFusion does it, and has its error from there.
        if reader.try_parse_sized(&footer, size).is_ok()
            && let Ok(metadata) = reader.finish()
        {
            let metadata = Arc::new(CachedParquetMetaData::new(Arc::new(metadata)));
            let entry = CachedFileMetadataEntry::new(self.meta.clone(), metadata);
            Cache::put(self.footers.as_ref(), &self.meta.location, entry);
        }
        Ok(())
    }
}

impl AsyncFileReader for ExtentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let pieces = self.read(&[range]).await?;
            Ok(pieces.into_iter().next().unwrap_or_default())
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.read(&ranges).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.metadata().boxed()
    }
}

/// The metadata without the bounds of columns that may hold values that are no numbers.
fn without_float_bounds(metadata: &ParquetMetaData) -> ParquetResult<ParquetMetaData> {
    let is_float = |column: &ColumnChunkMetaData| {
        let is_half = column.column_descr().logical_type_ref() == Some(&LogicalType::Float16);
        is_half || matches!(column.column_type(), Type::FLOAT | Type::DOUBLE)
    };
    let mut builder = metadata.clone().into_builder();
    let index = builder.take_column_index().map(|mut index| {
        for (group, columns) in metadata.row_groups().iter().zip(&mut index) {
            let of_floats = group.columns().iter().zip(columns);
            for (_, index) in of_floats.filter(|(column, _)| is_float(column)) {
                *index = ColumnIndexMetaData::NONE;
            }
        }
        index
    });
    let groups = builder.take_row_groups().into_iter().map(|group| {
        let columns = group.columns().iter().cloned().map(|column| {
            if is_float(&column) {
                column.into_builder().clear_statistics().build()
            } else {
                Ok(column)
            }
        });
        let columns = columns.collect::<ParquetResult<_>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<ParquetResult<_>>()?;
    let builder = builder.set_row_groups(groups).set_column_index(index);
    Ok(builder.build())
}
