//! What a query would read, told by `EXPLAIN` before it runs.
//!
//! All figures are upper bounds: a running query leaves out row groups, pages and extents that its
//! own findings rule out, and a limit may end it early.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use bytesize::ByteSize;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::metadata::CachedParquetMetaData;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::{ExecutionPlan, collect};

use crate::Residency;
use crate::table::ScanContext;

/// The name of the row that it adds to the answer of `EXPLAIN`.
const PLAN_TYPE: &str = "reading";
/// A store's first byte, and what one connection then carries a second, as Quickwit has published
/// them of S3: 50 to 100 ms, 90 MiB.
const FIRST_BYTE: Duration = Duration::from_millis(75);
const CONNECTION_BYTES_PER_SECOND: u64 = 90 << 20;
/// Connections that one query's reads share.
const CONNECTIONS: u64 = 16;
/// What a disk that is good enough for a cache carries a second.
const DISK_BYTES_PER_SECOND: u64 = 1 << 30;

/// The reads of one table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Reads {
    extents: u64,
    /// Bytes of extents that are on the disk or in memory.
    near_bytes: u64,
    /// Bytes of the others.
    far_bytes: u64,
    /// Requests for those: one for the footer of each, and one for each of its row groups.
    requests: u64,
}

impl Reads {
    /// From the first request to the last byte, with nothing else to do.
    fn time(&self) -> Duration {
        let seconds = |bytes: u64, rate: u64| Duration::from_secs_f64(bytes as f64 / rate as f64);
        let rounds = u32::try_from(self.requests.div_ceil(CONNECTIONS)).unwrap_or(u32::MAX);
        FIRST_BYTE * rounds
            + seconds(self.far_bytes, CONNECTION_BYTES_PER_SECOND * CONNECTIONS)
            + seconds(self.near_bytes, DISK_BYTES_PER_SECOND)
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "extents={}, near<={}, bucket<={}, requests<={}, reading<={} ms",
            self.extents,
            ByteSize::b(self.near_bytes),
            ByteSize::b(self.far_bytes),
            self.requests,
            self.time().as_millis()
        )
    }
}

/// The answer of `EXPLAIN`, with a row about reading at its end.
///
/// # Errors
/// When the plan cannot be explained.
pub(crate) async fn with_bill(
    explained: Arc<dyn ExecutionPlan>,
    query: &Arc<dyn ExecutionPlan>,
    scans: &ScanContext,
    context: Arc<TaskContext>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = explained.schema();
    let mut rows = collect(explained, context).await?;
    let mut tables = BTreeMap::new();
    add(query, scans, &mut tables);
    let lines: Vec<String> = tables
        .iter()
        .map(|(table, reads)| format!("{table}: {reads}"))
        .collect();
    let text = if lines.is_empty() {
        "nothing is read".to_owned()
    } else {
        lines.join("\n")
    };
    let cells: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![PLAN_TYPE])),
        Arc::new(StringArray::from(vec![text])),
    ];
    rows.push(RecordBatch::try_new(Arc::clone(&schema), cells)?);
    Ok(MemorySourceConfig::try_new_exec(&[rows], schema, None)?)
}

/// Adds what a plan reads of each table.
fn add(plan: &Arc<dyn ExecutionPlan>, scans: &ScanContext, tables: &mut BTreeMap<String, Reads>) {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>()
        && let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>()
        && config.object_store_url == scans.store_url
    {
        let wanted = wanted(config.file_source().as_ref());
        // Parts of one extent are read by several tasks.
        let mut seen = HashSet::new();
        let files = config.file_groups.iter().flat_map(|group| group.iter());
        for file in files.filter(|file| seen.insert(file.object_meta.location.clone())) {
            let table = file.table_reference.as_ref();
            let table = table.map(ToString::to_string).unwrap_or_default();
            add_extent(file, &wanted, scans, tables.entry(table).or_default());
        }
    }
    for child in plan.children() {
        add(child, scans, tables);
    }
}

/// The columns that a scan reads, of so many.
struct Wanted {
    names: HashSet<String>,
    of: usize,
}

fn wanted(source: &dyn FileSource) -> Wanted {
    let schema = source.table_schema().table_schema();
    let projected = source.projection().map(|all| all.column_indices());
    let filtered = source.filter().map(|filter| collect_columns(&filter));
    let filtered = filtered.into_iter().flatten().map(|column| column.index());
    let positions = projected.into_iter().flatten().chain(filtered);
    let names = positions.filter_map(|at| Some(schema.fields().get(at)?.name().clone()));
    Wanted {
        names: names.collect(),
        of: schema.fields().len(),
    }
}

fn add_extent(file: &PartitionedFile, wanted: &Wanted, scans: &ScanContext, reads: &mut Reads) {
    let location = &file.object_meta.location;
    let (bytes, row_groups) = columns_of_footer(file, wanted, scans)
        // A footer that was never read: as if all columns were equally wide.
        .unwrap_or_else(|| {
            let share = wanted.names.len() as u64 * file.object_meta.size;
            (share / wanted.of.max(1) as u64, 1)
        });
    reads.extents += 1;
    if scans.access.residency(location) == Residency::HotHit {
        reads.near_bytes += bytes;
    } else {
        reads.far_bytes += bytes;
        reads.requests += 1 + row_groups;
    }
}

/// Bytes of the wanted columns and number of row groups, by a footer that is in memory.
fn columns_of_footer(
    file: &PartitionedFile,
    wanted: &Wanted,
    scans: &ScanContext,
) -> Option<(u64, u64)> {
    let cached = scans.footers.get(&file.object_meta.location)?;
    let footer = cached.file_metadata.as_any();
    let footer = footer.downcast_ref::<CachedParquetMetaData>()?;
    let row_groups = footer.parquet_metadata().row_groups();
    let chunks = row_groups.iter().flat_map(|group| group.columns());
    let wanted = chunks.filter(|chunk| {
        let root = chunk.column_path().parts().first();
        root.is_some_and(|root| wanted.names.contains(root))
    });
    let bytes: i64 = wanted.map(|chunk| chunk.compressed_size()).sum();
    Some((u64::try_from(bytes).unwrap_or(0), row_groups.len() as u64))
}
