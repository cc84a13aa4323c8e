//! What a query would read, told by `EXPLAIN` before it runs.
//!
//! All figures are upper bounds: a running query leaves out row groups, pages and extents that its
//! own findings rule out, and a limit may end it early. Of an extent that is here, as many of the
//! bytes count as memory's as its pieces have there, whichever columns these are of.
//!
//! The time is what reading alone would take, at the pace of the reads of late; where there were
//! none, at one that was published. The row says which.

use std::collections::{BTreeMap, HashSet};
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

use crate::table::{ScanContext, is_inline};
use crate::{ReadPace, Residency};

/// The name of the row that it adds to the answer of `EXPLAIN`.
const PLAN_TYPE: &str = "reading";
/// Before the bucket was read: a store's first byte, and what one connection then carries a second,
/// as Quickwit has published them of S3: 50 to 100 ms, 90 MiB.
const FIRST_BYTE: Duration = Duration::from_millis(75);
const CONNECTION_BYTES_PER_SECOND: u64 = 90 << 20;
/// Connections that one query's reads share.
const CONNECTIONS: u64 = 16;
/// Before the disk was read: what one that is good enough for a cache carries a second.
const DISK_BYTES_PER_SECOND: u64 = 1 << 30;

/// The reads of one table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Reads {
    extents: u64,
    /// Bytes that are in memory.
    memory_bytes: u64,
    /// Bytes that are on the disk.
    disk_bytes: u64,
    /// Bytes that are in the bucket.
    bucket_bytes: u64,
    /// Requests for those: one for the footer of each extent, and one for each of its row groups.
    requests: u64,
}

impl Reads {
    fn describe(&self, pace: &ReadPace) -> String {
        let time = self.time(pace);
        let basis = match (time.has_measured, time.has_assumed) {
            (true, false) => " (measured)",
            (false, true) => " (assumed)",
            (true, true) => " (partly measured)",
            (false, false) => "",
        };
        format!(
            "extents={}, memory<={}, disk<={}, bucket<={}, requests<={}, reading<={} ms{basis}",
            self.extents,
            ByteSize::b(self.memory_bytes),
            ByteSize::b(self.disk_bytes),
            ByteSize::b(self.bucket_bytes),
            self.requests,
            time.total.as_millis()
        )
    }

    /// From the first request to the last byte, with nothing else to do.
    fn time(&self, pace: &ReadPace) -> ReadingTime {
        let mut time = ReadingTime::default();
        if self.requests > 0 {
            let first_byte = time.figure(pace.bucket.first_byte, FIRST_BYTE);
            let rate = pace.bucket.bytes_per_second;
            let rate = time.figure(rate, CONNECTION_BYTES_PER_SECOND);
            let rounds = u32::try_from(self.requests.div_ceil(CONNECTIONS)).unwrap_or(u32::MAX);
            time.total += first_byte.saturating_mul(rounds);
            let connections = self.requests.min(CONNECTIONS);
            time.add(self.bucket_bytes, rate.saturating_mul(connections));
        }
        if self.disk_bytes > 0 {
            let rate = time.figure(pace.disk_bytes_per_second, DISK_BYTES_PER_SECOND);
            time.add(self.disk_bytes, rate);
        }
        time
    }
}

/// A time, and what the figures are that it was made of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct ReadingTime {
    total: Duration,
    has_measured: bool,
    has_assumed: bool,
}

impl ReadingTime {
    /// A figure as it was measured, or else as it is assumed.
    fn figure<T>(&mut self, measured: Option<T>, assumed: T) -> T {
        self.has_measured |= measured.is_some();
        self.has_assumed |= measured.is_none();
        measured.unwrap_or(assumed)
    }

    fn add(&mut self, bytes: u64, bytes_per_second: u64) {
        let seconds = bytes as f64 / bytes_per_second.max(1) as f64;
        self.total += Duration::from_secs_f64(seconds);
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
    let pace = scans.access.pace();
    let lines: Vec<String> = tables
        .iter()
        .map(|(table, reads)| format!("{table}: {}", reads.describe(&pace)))
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
    if is_inline(file) {
        reads.memory_bytes += bytes;
    } else if scans.access.residency(location) == Residency::HotHit {
        let memory_bytes = scans.access.memory_bytes(location).min(bytes);
        reads.memory_bytes += memory_bytes;
        reads.disk_bytes += bytes - memory_bytes;
    } else {
        reads.bucket_bytes += bytes;
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

#[cfg(test)]
mod tests {
    use slipstream_storage::BucketPace;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_time_is_of_measured_figures_where_there_are_any() {
        let reads = Reads {
            extents: 3,
            memory_bytes: 5 * MIB,
            disk_bytes: 10 * MIB,
            bucket_bytes: 40 * MIB,
            requests: 20,
        };
        // Two rounds of requests, on sixteen connections, and the disk.
        let assumed = reads.describe(&ReadPace::default());
        assert_eq!(
            assumed,
            "extents=3, memory<=5.0 MiB, disk<=10.0 MiB, bucket<=40.0 MiB, requests<=20, \
             reading<=187 ms (assumed)"
        );
        let mut pace = ReadPace {
            bucket: BucketPace {
                first_byte: Some(Duration::from_millis(10)),
                bytes_per_second: Some(10 * MIB),
            },
            disk_bytes_per_second: None,
        };
        let text = reads.describe(&pace);
        assert!(
            text.ends_with("reading<=279 ms (partly measured)"),
            "{text}"
        );
        pace.disk_bytes_per_second = Some(100 * MIB);
        let text = reads.describe(&pace);
        assert!(text.ends_with("reading<=370 ms (measured)"), "{text}");
    }

    #[test]
    fn only_figures_that_are_needed_count() {
        let pace = ReadPace {
            disk_bytes_per_second: Some(MIB),
            ..ReadPace::default()
        };
        let near = Reads {
            extents: 1,
            disk_bytes: MIB,
            ..Reads::default()
        };
        assert!(
            near.describe(&pace)
                .ends_with("reading<=1000 ms (measured)")
        );
        let in_memory = Reads {
            extents: 1,
            memory_bytes: MIB,
            ..Reads::default()
        };
        assert!(in_memory.describe(&pace).ends_with("reading<=0 ms"));
        // One request does not share sixteen connections.
        let one = Reads {
            extents: 1,
            bucket_bytes: 90 * MIB,
            requests: 1,
            ..Reads::default()
        };
        assert!(one.describe(&pace).ends_with("reading<=1075 ms (assumed)"));
    }
}
