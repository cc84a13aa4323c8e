//! The leader as a process: settings in, doors open, orderly shutdown.

use std::sync::Arc;

use anyhow::Context;
use slipstream_follower::{
    Attachments, FollowContext, IsOwned, NodeName, Registry, Upstream, UpstreamArgs,
};
use slipstream_frontend::runtime::{self, SystemClock};
use slipstream_frontend::settings::{NodeArgs, NodeSettings};
use slipstream_frontend::{Gate, NodeIdentity, NodeRole, NodeServer};
use slipstream_model::Clock;
use slipstream_proto::sync::admin_server::AdminServer;
use slipstream_proto::sync::metadata_sync_server::MetadataSyncServer;
use slipstream_storage::{BucketConnection, BucketWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::ingest::IngestOptions;
use crate::lifecycle::{self, LifecycleArgs, LifecycleSettings};
use crate::{AdminService, Cluster, ClusterContext, LeaderEngine, SyncService};

/// The leader's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LeaderArgs {
    /// What leader and follower have in common.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Other clusters whose databases this one may follow.
    #[command(flatten)]
    pub upstream: UpstreamArgs,

    /// What it does by itself.
    #[command(flatten)]
    pub lifecycle: LifecycleArgs,
}

/// Runs a leader until it is told to stop.
///
/// # Errors
/// When settings make no sense, a port is taken, or the bucket cannot be opened for writing.
pub async fn run(args: LeaderArgs) -> anyhow::Result<()> {
    let mut own_keys = UpstreamArgs::KEYS.to_vec();
    own_keys.extend(LifecycleArgs::KEYS);
    let (settings, own) = args.node.resolve(NodeRole::Leader, &own_keys)?;
    let lifecycle = args.lifecycle.resolve(&own)?;
    let upstream = args.upstream.resolve(&own)?;
    runtime::init_telemetry(&settings.log, settings.log_json)?;
    let shutdown = runtime::shutdown_signal();
    let clock = Arc::new(SystemClock::default());
    serve(settings, upstream, lifecycle, clock, shutdown).await
}

async fn serve(
    settings: NodeSettings,
    upstream: Upstream,
    lifecycle: LifecycleSettings,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make --data-dir {}", settings.data_dir.display()))?;
    // Ports first: a second leader started by mistake then fails before it fences the first.
    let tokens = settings.tokens(&clock)?;
    let server = NodeServer::bind(settings.server_options(&tokens)).await?;

    let entropy = runtime::entropy_from_os();
    let bucket = BucketWriter::open(&settings.bucket, Arc::clone(&clock), entropy.clone()).await?;
    let tasks = TaskTracker::new();
    let query = settings.query_runtime(&bucket, &clock, &entropy)?;
    let context = FollowContext {
        connection: BucketConnection::new(&settings.bucket)?,
        clock: Arc::clone(&clock),
        entropy: entropy.clone(),
        node: NodeName {
            cluster: settings.cluster.to_string(),
            node: entropy.uuid(),
        },
        dialer: upstream.dialer,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        news: Arc::default(),
        shows_streamed: upstream.shows_streamed,
    };
    let gate_entropy = entropy.clone();
    let cluster = Cluster::open(ClusterContext {
        name: settings.cluster.clone(),
        location: settings.location.clone(),
        bucket,
        clock,
        entropy,
        lease_ttl: lifecycle.lease_ttl,
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    })
    .await
    .context("cannot open the cluster's catalog")?;

    let identity = NodeIdentity {
        cluster: settings.cluster.clone(),
        role: NodeRole::Leader,
        location: settings.location.clone(),
    };
    let ingest = IngestOptions::in_directory(settings.data_dir.join("spool"))?;
    let garbage = lifecycle::start(&cluster, &lifecycle, &ingest);
    let attachments = Attachments::open(&settings.data_dir)?;
    let owner = Arc::clone(&cluster);
    let is_owned: IsOwned = Arc::new(move |name| owner.catalog().database(name).is_some());
    let registry = Registry::start(
        identity.clone(),
        upstream.leaders,
        attachments,
        context,
        is_owned,
    );
    let owned = Arc::clone(&cluster);
    let engine = LeaderEngine::new(identity, owned, registry, query, ingest, garbage);
    let gate = Gate::new(Arc::new(engine), tokens, gate_entropy)
        .asking_nodes_for_certificates(settings.asks_nodes_for_certificates());
    let sync = MetadataSyncServer::new(SyncService::new(Arc::clone(&cluster)));
    let admin = AdminServer::new(AdminService::new(Arc::clone(&cluster)));
    let services = Routes::new(InterceptedService::new(sync, gate.node_interceptor()))
        .add_service(InterceptedService::new(admin, gate.node_interceptor()));

    runtime::announce(&settings, &server)?;
    let served = server.serve(gate, services, shutdown).await;
    cluster.close().await;
    tasks.close();
    runtime::drain(&tasks).await;
    served.map_err(Into::into)
}
