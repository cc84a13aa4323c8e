//! The follower as a process: settings in, doors open, orderly shutdown.

use std::sync::Arc;

use anyhow::Context;
use bytesize::ByteSize;
use slipstream_frontend::runtime::{self, SystemClock};
use slipstream_frontend::settings::{NodeArgs, NodeSettings};
use slipstream_frontend::{Gate, NodeIdentity, NodeRole, NodeServer};
use slipstream_model::Clock;
use slipstream_storage::BucketConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attachments::Attachments;
use crate::engine::FollowerEngine;
use crate::following::FollowContext;
use crate::hot_cache::HotCache;
use crate::link::{Dialer, LeaderAddress, NodeName};
use crate::registry::Registry;
use crate::upstream::UpstreamArgs;

/// The follower's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FollowerArgs {
    /// What leader and follower have in common.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Its leaders.
    #[command(flatten)]
    pub upstream: UpstreamArgs,

    /// Disk for the hot cache, such as 100GB: whole extents that the caching policies make hot, below
    /// DATA_DIR/cache [default: no cache].
    #[arg(long, value_name = "BYTES", env = "SLIPSTREAM_CACHE_DISK_BYTES")]
    pub cache_disk_bytes: Option<ByteSize>,
}

/// Runs a follower until it is told to stop.
///
/// # Errors
/// When settings make no sense, a port is taken, or the node's own directory cannot be used. A
/// bucket or leader that is not there yet is waited for.
pub async fn run(args: FollowerArgs) -> anyhow::Result<()> {
    let mut own_keys = UpstreamArgs::KEYS.to_vec();
    own_keys.push(CACHE_KEY);
    let (settings, own) = args.node.resolve(NodeRole::Follower, &own_keys)?;
    let cache_bytes = match args.cache_disk_bytes {
        Some(bytes) => bytes.as_u64(),
        None => cache_bytes_of_file(&own)?,
    };
    let (mut leaders, dialer) = args.upstream.resolve(&own)?;
    if leaders.is_empty() {
        leaders.push(default_leader());
    }
    runtime::init_telemetry(&settings.log, settings.log_json)?;
    let shutdown = runtime::shutdown_signal();
    serve(
        settings,
        leaders,
        dialer,
        cache_bytes,
        Arc::new(SystemClock::default()),
        shutdown,
    )
    .await
}

/// The cache's size in a settings file.
const CACHE_KEY: &str = "cache-disk-bytes";

fn cache_bytes_of_file(own: &toml::Table) -> anyhow::Result<u64> {
    let bytes = match own.get(CACHE_KEY) {
        None => return Ok(0),
        Some(toml::Value::Integer(bytes)) => u64::try_from(*bytes).ok(),
        Some(toml::Value::String(text)) => text.parse::<ByteSize>().ok().map(|b| b.as_u64()),
        Some(_) => None,
    };
    bytes.with_context(|| format!("{CACHE_KEY} is no number of bytes such as \"100GB\""))
}

/// The leader of a follower that was told nothing: the one that was started in the same folder.
fn default_leader() -> LeaderAddress {
    LeaderAddress {
        name: "leader".to_owned(),
        url: "http://127.0.0.1:7410".to_owned(),
    }
}

async fn serve(
    settings: NodeSettings,
    leaders: Vec<LeaderAddress>,
    dialer: Dialer,
    cache_bytes: u64,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make --data-dir {}", settings.data_dir.display()))?;
    let tokens = settings.tokens(&clock)?;
    let server = NodeServer::bind(settings.server_options(&tokens)).await?;

    let entropy = runtime::entropy_from_os();
    let connection = BucketConnection::new(&settings.bucket)?;
    let tasks = TaskTracker::new();
    let cache = (cache_bytes > 0)
        .then(|| HotCache::open(&settings, cache_bytes, &connection))
        .transpose()?;
    let query = match &cache {
        None => settings.query_runtime(&connection, &clock, &entropy)?,
        Some(cache) => {
            let store = cache.store(connection.object_store());
            let known = Arc::clone(cache);
            let residency = Arc::new(move |path: &_| known.residency(path));
            settings.query_runtime_over(store, residency, &connection, &clock, &entropy)?
        }
    };
    let identity = NodeIdentity {
        cluster: settings.cluster.clone(),
        role: NodeRole::Follower,
        location: settings.location.clone(),
    };
    let node = NodeName {
        cluster: settings.cluster.to_string(),
        node: entropy.uuid(),
    };
    let gate_entropy = entropy.clone();
    let context = FollowContext {
        connection,
        clock,
        entropy,
        node,
        dialer,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    let attachments = Attachments::open(&settings.data_dir)?;
    let owns_nothing = Arc::new(|_: &str| false);
    let registry = Registry::start(
        identity.clone(),
        leaders,
        attachments,
        context,
        owns_nothing,
    );
    if let Some(cache) = &cache {
        let warming = Arc::clone(cache).run(Arc::clone(&registry));
        let stopping = shutdown.clone();
        tasks.spawn(async move {
            stopping.run_until_cancelled(warming).await;
        });
    }
    let engine = FollowerEngine::new(identity, query, registry, cache);

    runtime::announce(&settings, &server)?;
    let routes = tonic::service::Routes::default();
    let gate = Gate::new(Arc::new(engine), tokens, gate_entropy);
    let served = server.serve(gate, routes, shutdown).await;
    tasks.close();
    runtime::drain(&tasks).await;
    served.map_err(Into::into)
}
