//! The leader as a process: settings in, doors open, orderly shutdown.

use std::sync::Arc;

use anyhow::Context;
use slipstream_follower::{Attachments, FollowContext, IsOwned, LeaderAddress, NodeName, Registry};
use slipstream_frontend::runtime::{self, SystemClock};
use slipstream_frontend::settings::{NodeArgs, NodeSettings};
use slipstream_frontend::{Engine, NodeIdentity, NodeRole, NodeServer, ServerOptions};
use slipstream_model::Clock;
use slipstream_proto::sync::admin_server::AdminServer;
use slipstream_proto::sync::metadata_sync_server::MetadataSyncServer;
use slipstream_storage::{BucketConnection, BucketWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ingest::IngestOptions;
use crate::{AdminService, Cluster, ClusterContext, LeaderEngine, SyncService};

/// The leader's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LeaderArgs {
    /// What leader and follower have in common.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Another cluster whose databases this one may follow; may be given several times.
    #[arg(
        long = "leader",
        value_name = "NAME=GRPC_URL",
        env = "SLIPSTREAM_LEADER",
        value_delimiter = ','
    )]
    pub leaders: Vec<LeaderAddress>,
}

/// Runs a leader until it is told to stop.
///
/// # Errors
/// When settings make no sense, a port is taken, or the bucket cannot be opened for writing.
pub async fn run(args: LeaderArgs) -> anyhow::Result<()> {
    let (settings, own) = args.node.resolve(NodeRole::Leader, &["leader"])?;
    let leaders = if args.leaders.is_empty() {
        slipstream_follower::leaders_of_file(&own)?.unwrap_or_default()
    } else {
        args.leaders
    };
    runtime::init_telemetry(&settings.log, settings.log_json)?;
    let shutdown = runtime::shutdown_signal();
    let clock = Arc::new(SystemClock::default());
    serve(settings, leaders, clock, shutdown).await
}

async fn serve(
    settings: NodeSettings,
    leaders: Vec<LeaderAddress>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make --data-dir {}", settings.data_dir.display()))?;
    // Ports first: a second leader started by mistake then fails before it fences the first.
    let server = NodeServer::bind(ServerOptions {
        grpc: settings.grpc,
        http: settings.http,
        allow_remote_without_authentication: settings.insecure_listen,
    })
    .await?;

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
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    let cluster = Cluster::open(ClusterContext {
        name: settings.cluster.clone(),
        location: settings.location.clone(),
        bucket,
        clock,
        entropy,
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
    let attachments = Attachments::open(&settings.data_dir)?;
    let owner = Arc::clone(&cluster);
    let is_owned: IsOwned = Arc::new(move |name| owner.catalog().database(name).is_some());
    let registry = Registry::start(identity.clone(), leaders, attachments, context, is_owned);
    let engine = LeaderEngine::new(identity, Arc::clone(&cluster), registry, query, ingest);
    let services = tonic::service::Routes::new(MetadataSyncServer::new(SyncService::new(
        Arc::clone(&cluster),
    )))
    .add_service(AdminServer::new(AdminService::new(Arc::clone(&cluster))));

    runtime::announce(&settings, &server)?;
    let served = server
        .serve(Arc::new(engine) as Arc<dyn Engine>, services, shutdown)
        .await;
    cluster.close().await;
    tasks.close();
    runtime::drain(&tasks).await;
    served.map_err(Into::into)
}
