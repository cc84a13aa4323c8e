//! The follower as a process: settings in, doors open, orderly shutdown.

use std::sync::Arc;

use anyhow::{Context, bail};
use slipstream_frontend::runtime::{self, SystemClock};
use slipstream_frontend::settings::{NodeArgs, NodeSettings};
use slipstream_frontend::{Engine, NodeIdentity, NodeRole, NodeServer, ServerOptions};
use slipstream_model::Clock;
use slipstream_storage::BucketConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attachments::Attachments;
use crate::engine::FollowerEngine;
use crate::following::FollowContext;
use crate::link::{LeaderAddress, NodeName};
use crate::registry::Registry;

/// The follower's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FollowerArgs {
    /// What leader and follower have in common.
    #[command(flatten)]
    pub node: NodeArgs,

    /// A leader that databases can be attached from; may be given several times [default:
    /// leader=http://127.0.0.1:7410].
    #[arg(
        long = "leader",
        value_name = "NAME=GRPC_URL",
        env = "SLIPSTREAM_LEADER",
        value_delimiter = ','
    )]
    pub leaders: Vec<LeaderAddress>,
}

/// Runs a follower until it is told to stop.
///
/// # Errors
/// When settings make no sense, a port is taken, or the node's own directory cannot be used. A
/// bucket or leader that is not there yet is waited for.
pub async fn run(args: FollowerArgs) -> anyhow::Result<()> {
    let (settings, own) = args.node.resolve(NodeRole::Follower, &["leader"])?;
    let leaders = if args.leaders.is_empty() {
        leaders_of_file(&own)?.unwrap_or_else(|| vec![default_leader()])
    } else {
        args.leaders
    };
    runtime::init_telemetry(&settings.log, settings.log_json)?;
    let shutdown = runtime::shutdown_signal();
    serve(
        settings,
        leaders,
        Arc::new(SystemClock::default()),
        shutdown,
    )
    .await
}

/// `leader = ["NAME=URL", ...]` in the settings file.
///
/// # Errors
/// When it is something else.
pub fn leaders_of_file(own: &toml::Table) -> anyhow::Result<Option<Vec<LeaderAddress>>> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|error| anyhow::anyhow!("leader: {error}"))
    };
    match own.get("leader") {
        None => Ok(None),
        Some(toml::Value::String(one)) => Ok(Some(vec![parse(one)?])),
        Some(toml::Value::Array(several)) => {
            let texts = several
                .iter()
                .map(|value| value.as_str().unwrap_or_default());
            texts.map(parse).collect::<anyhow::Result<_>>().map(Some)
        }
        Some(other) => bail!("leader: {other} is not a list of NAME=URL"),
    }
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
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make --data-dir {}", settings.data_dir.display()))?;
    let server = NodeServer::bind(ServerOptions {
        grpc: settings.grpc,
        http: settings.http,
        allow_remote_without_authentication: settings.insecure_listen,
    })
    .await?;

    let entropy = runtime::entropy_from_os();
    let connection = BucketConnection::new(&settings.bucket)?;
    let tasks = TaskTracker::new();
    let query = settings.query_runtime(&connection, &clock, &entropy)?;
    let identity = NodeIdentity {
        cluster: settings.cluster.clone(),
        role: NodeRole::Follower,
        location: settings.location.clone(),
    };
    let node = NodeName {
        cluster: settings.cluster.to_string(),
        node: entropy.uuid(),
    };
    let context = FollowContext {
        connection,
        clock,
        entropy,
        node,
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
    let engine = FollowerEngine::new(identity, query, registry);

    runtime::announce(&settings, &server)?;
    let routes = tonic::service::Routes::default();
    let served = server
        .serve(Arc::new(engine) as Arc<dyn Engine>, routes, shutdown)
        .await;
    tasks.close();
    runtime::drain(&tasks).await;
    served.map_err(Into::into)
}
