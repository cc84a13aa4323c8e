//! The follower as a process: settings in, doors open, orderly shutdown.

use std::sync::Arc;

use anyhow::Context;
use slipstream_frontend::runtime::{self, SystemClock};
use slipstream_frontend::settings::{NodeArgs, NodeSettings};
use slipstream_frontend::{Gate, NodeIdentity, NodeRole, NodeServer};
use slipstream_model::Clock;
use slipstream_storage::BucketConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attachments::Attachments;
use crate::cache_settings::{CacheArgs, CacheSettings};
use crate::engine::FollowerEngine;
use crate::following::FollowContext;
use crate::hot_cache::HotCache;
use crate::link::{LeaderAddress, NodeName};
use crate::registry::Registry;
use crate::upstream::{Upstream, UpstreamArgs};

/// The follower's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FollowerArgs {
    /// What leader and follower have in common.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Its leaders.
    #[command(flatten)]
    pub upstream: UpstreamArgs,

    /// Its cache.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Runs a follower until it is told to stop.
///
/// # Errors
/// When settings make no sense, a port is taken, or the node's own directory cannot be used. A
/// bucket or leader that is not there yet is waited for.
pub async fn run(args: FollowerArgs) -> anyhow::Result<()> {
    let mut own_keys = UpstreamArgs::KEYS.to_vec();
    own_keys.extend(CacheArgs::KEYS);
    let (settings, own) = args.node.resolve(NodeRole::Follower, &own_keys)?;
    let cache = args.cache.resolve(&own)?;
    let mut upstream = args.upstream.resolve(&own)?;
    if upstream.leaders.is_empty() {
        upstream.leaders.push(default_leader());
    }
    runtime::init_telemetry(&settings.log, settings.log_json)?;
    let shutdown = runtime::shutdown_signal();
    serve(
        settings,
        upstream,
        cache,
        Arc::new(SystemClock::default()),
        shutdown,
    )
    .await
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
    upstream: Upstream,
    cache: CacheSettings,
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
    let cache = match cache.disk_bytes {
        0 => None,
        _ => Some(HotCache::open(&settings, cache, &connection, Arc::clone(&clock)).await?),
    };
    let query = match &cache {
        None => settings.query_runtime(&connection, &clock, &entropy)?,
        Some(cache) => {
            settings.query_runtime_over(cache.extents(), &connection, &clock, &entropy)?
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
        dialer: upstream.dialer,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        news: Arc::default(),
        shows_streamed: upstream.shows_streamed,
    };
    let attachments = Attachments::open(&settings.data_dir)?;
    let owns_nothing = Arc::new(|_: &str| false);
    let registry = Registry::start(
        identity.clone(),
        upstream.leaders,
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
    let engine = FollowerEngine::new(identity, query, registry, cache.clone());

    runtime::announce(&settings, &server)?;
    let routes = tonic::service::Routes::default();
    let gate = Gate::new(Arc::new(engine), tokens, gate_entropy);
    let served = server.serve(gate, routes, shutdown).await;
    tasks.close();
    runtime::drain(&tasks).await;
    if let Some(cache) = cache {
        cache.close().await;
    }
    served.map_err(Into::into)
}
