//! What all queries of a process share.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::path::Path;
use slipstream_catalog::DatabaseState;
use slipstream_model::{Clock, Entropy};
use vortex::VortexSessionDefault;
use vortex::io::session::RuntimeSessionExt;
use vortex::session::VortexSession;

use crate::admission::Admission;
use crate::counters::extent_key;
use crate::log::QueryLog;
use crate::plans::Plans;
use crate::session::{QuerySession, base_state};
use crate::table::ScanContext;
use crate::{
    ClusterView, DataScope, ExtentAccess, OlderVersions, QueryError, QueryErrorKind, QueryOptions,
    RemoteNode, SessionIdentity,
};

/// The name that the store of extents is registered under in DataFusion. Plans carry it.
const STORE_URL: &str = "slipstream://extents/";
/// Operators that an error about memory names.
const MEMORY_CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(5).expect("not zero");
/// Footers may take this part of the memory of queries, on top of it. A footer with its page
/// index takes about 1 % of its extent; scans of tables with more extents than fit read the
/// others' again.
const FOOTER_MEMORY_DIVISOR: usize = 8;
/// Below this, footers of a few thousand extents would push each other out.
const FOOTER_BYTES_MIN: usize = 64 << 20;
/// How DataFusion begins the names of its folders below the spill directory.
const SPILL_FOLDER_PREFIX: &str = "datafusion-";

/// The engine of one process: memory, spill space, admission, footer cache and query log.
///
/// Runs on the tokio runtime of whoever executes a query.
#[derive(Debug)]
pub struct QueryRuntime {
    pub(crate) options: QueryOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) admission: Admission,
    pub(crate) log: Arc<QueryLog>,
    pub(crate) scans: Arc<ScanContext>,
    pub(crate) plans: Plans,
    /// What sessions are copied from: registering some three hundred functions takes longer than
    /// planning a small query.
    pub(crate) base: datafusion::execution::SessionState,
}

/// The databases that a request sees: snapshots, resolved once, which stay as they are until its
/// last row.
#[derive(Debug, Clone, Default)]
pub struct SessionDatabases {
    /// Where names without a database are looked up.
    pub default: Option<String>,
    /// Every database that can be named, by its name on this node.
    pub databases: BTreeMap<String, DatabaseState>,
    /// The default database at the version that is read of it; `None`: as it stands above. Of what
    /// it is now only functions, policies and system tables tell then.
    pub as_of: Option<DatabaseState>,
    /// Databases whose rows cannot be read, and of which the system tables tell nevertheless.
    pub metadata_only: BTreeMap<String, DatabaseState>,
    /// Databases whose files another node deletes. One that is missing may be no damage: a node that
    /// was cut off for longer than its lease reads a version that is no longer kept.
    pub followed: BTreeSet<String>,
    /// Which extents are read, where a table does not say otherwise.
    pub scope: DataScope,
    /// Who asks.
    pub identity: SessionIdentity,
    /// The leader of the default database, when it is followed: what `at_leader` asks.
    pub leader: Option<Arc<dyn RemoteNode>>,
    /// What `FOR VERSION AS OF` asks; `None`: only the newest versions can be read.
    pub history: Option<Arc<dyn OlderVersions>>,
}

impl QueryRuntime {
    /// Sets up the engine. Folders that an earlier process left behind in the spill directory are
    /// removed, so the directory must belong to this process alone.
    ///
    /// # Errors
    /// When a limit is zero, or the spill directory cannot be made.
    pub fn new(
        options: QueryOptions,
        extents: Arc<dyn ExtentAccess>,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Arc<Self>, QueryError> {
        options.validate()?;
        let environment = environment(&options)?;
        let store_url = ObjectStoreUrl::parse(STORE_URL)?;
        environment.register_object_store(store_url.as_ref(), Arc::clone(extents.store()));
        let scans = Arc::new(ScanContext {
            access: extents,
            store_url,
            footers: environment.cache_manager.get_file_metadata_cache(),
            // Its tasks run on the tokio runtime of whoever executes a query.
            vortex: VortexSession::default().with_tokio(),
        });
        Ok(Arc::new(Self {
            admission: Admission::new(options.concurrency_max, options.queue_max),
            log: QueryLog::new(Arc::clone(&clock)),
            base: base_state(&options, Arc::new(environment)),
            scans,
            plans: Plans::default(),
            options,
            clock,
            entropy,
        }))
    }

    /// A session over some snapshots. Cheap: one a request.
    pub fn session(
        self: &Arc<Self>,
        databases: SessionDatabases,
        cluster: Arc<dyn ClusterView>,
    ) -> QuerySession {
        QuerySession::new(Arc::clone(self), databases, cluster)
    }

    /// How many queries may run at one time, and how many do.
    pub fn slots(&self) -> (usize, usize) {
        let total = self.options.concurrency_max;
        (total, total.saturating_sub(self.admission.free()))
    }

    /// What the remembered queries would have read of hot extents, had these been the hot ones.
    pub fn replay(&self, hot: impl Iterator<Item = Path>) -> crate::Replay {
        let hot: HashSet<_> = hot.map(|path| extent_key(&path)).collect();
        self.log.replay(|extent| hot.contains(&extent))
    }

    /// What all ended queries read of each table, by `database.table`.
    pub fn reads(&self) -> BTreeMap<String, crate::ReadStatistics> {
        self.log.reads()
    }

    /// Bytes that operators of all queries hold now.
    pub fn memory_bytes_reserved(&self) -> usize {
        self.base.runtime_env().memory_pool.reserved()
    }

    /// How long a query may take that asks for `timeout`.
    pub(crate) fn timeout(&self, timeout: Option<Duration>) -> Duration {
        timeout.map_or(self.options.deadline, |asked| {
            asked.min(self.options.deadline)
        })
    }
}

fn environment(options: &QueryOptions) -> Result<RuntimeEnv, QueryError> {
    let mode = match &options.spill_directory {
        None => DiskManagerMode::OsTmpDirectory,
        Some(directory) => {
            prepare_spill_directory(directory)?;
            DiskManagerMode::Directories(vec![directory.clone()])
        }
    };
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(options.spill_bytes_max);
    // Fair: what can spill shares the memory evenly, so one large sort does not make every later
    // query fail, as it would with first come, first served. The price is that a lone query with
    // many operators spills a little earlier. Tracked: the error then says who holds the memory.
    let pool = FairSpillPool::new(options.memory_bytes_max);
    let pool = TrackConsumersPool::new(pool, MEMORY_CONSUMERS_NAMED);
    let footer_bytes = (options.memory_bytes_max / FOOTER_MEMORY_DIVISOR).max(FOOTER_BYTES_MIN);
    let environment = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(disk)
        .with_memory_pool(Arc::new(pool))
        .with_metadata_cache_limit(footer_bytes)
        // Only external tables are listed, and their files come and go.
        .with_object_list_cache_limit(0)
        .build()?;
    Ok(environment)
}

fn prepare_spill_directory(directory: &FilePath) -> Result<(), QueryError> {
    let fail = |error: std::io::Error| {
        let message = format!(
            "the spill directory {} cannot be used: {error}",
            directory.display()
        );
        QueryError::new(QueryErrorKind::ResourcesExhausted, message)
    };
    std::fs::create_dir_all(directory).map_err(fail)?;
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(SPILL_FOLDER_PREFIX)
        {
            std::fs::remove_dir_all(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}
