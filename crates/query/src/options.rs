//! What a node gives to its queries.

use std::path::PathBuf;
use std::time::Duration;

use slipstream_storage::BucketConnection;

use crate::{QueryError, QueryErrorKind};

/// Kusto's default: <https://learn.microsoft.com/kusto/set-timeout-limits>.
const DEADLINE: Duration = Duration::from_secs(4 * 60);
/// Enough for joins and sorts of a few million rows; more is a decision about the machine.
const MEMORY_BYTES: usize = 2 << 30;
/// Spilled data is compressed columns: ten times the memory still fits any laptop's disk.
const SPILL_BYTES: u64 = 20 << 30;
/// Queries that run at one time. Each already uses every core, so more of them finish later, not
/// sooner.
const CONCURRENCY: usize = 16;
/// Queries that wait for their turn. A dashboard opens with tens of tiles at once.
const QUEUE: usize = 256;

/// Limits for all queries of a process together.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Bytes of memory that operators of all queries may hold together.
    pub memory_bytes_max: usize,
    /// Where sorts, joins and aggregates put what does not fit into memory; `None`: the system's
    /// directory for temporary files.
    pub spill_directory: Option<PathBuf>,
    /// Bytes that all queries may spill together.
    pub spill_bytes_max: u64,
    /// Directories of this machine whose files external tables may read; none by default.
    pub external_files: Vec<PathBuf>,
    /// The bucket that the databases are in: no external table may read it.
    pub bucket: Option<BucketConnection>,
    /// Queries that run at one time.
    pub concurrency_max: usize,
    /// Queries that wait for their turn; one more is refused.
    pub queue_max: usize,
    /// How long a query may take, waiting included. A request may ask for less.
    pub deadline: Duration,
    /// Parallelism of one query.
    pub target_partitions: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            memory_bytes_max: MEMORY_BYTES,
            spill_directory: None,
            spill_bytes_max: SPILL_BYTES,
            external_files: Vec::new(),
            bucket: None,
            concurrency_max: CONCURRENCY,
            queue_max: QUEUE,
            deadline: DEADLINE,
            target_partitions: cores,
        }
    }
}

impl QueryOptions {
    pub(crate) fn validate(&self) -> Result<(), QueryError> {
        let fail = |what: &str| {
            Err(QueryError::new(
                QueryErrorKind::Planning,
                format!("{what} must be at least 1"),
            ))
        };
        match self {
            Self {
                memory_bytes_max: 0,
                ..
            } => fail("the memory of queries"),
            Self {
                concurrency_max: 0, ..
            } => fail("the number of running queries"),
            Self {
                target_partitions: 0,
                ..
            } => fail("the parallelism of a query"),
            _ => Ok(()),
        }
    }
}
