//! Leaders and followers as they ship, over a simulated store, network and clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use object_store::path::Path;
use parking_lot::Mutex;
use slipstream_follower::{
    Attachments, Dialer, FollowContext, IsOwned, LeaderAddress, NodeName, Registry,
};
use slipstream_frontend::{
    Answer, AttachRequest, Attachment, Description, Engine, Gate, IngestReceipt, IngestRequest,
    NodeIdentity, NodeRole, Readiness, ServiceError, SqlRequest, Tokens,
};
use slipstream_leader::ingest::{IngestContext, IngestOptions};
use slipstream_leader::{
    AdminService, Cluster, ClusterContext, LifecycleSettings, SyncService, start_lifecycle,
};
use slipstream_model::{Clock, ClusterName, DatabaseId, Entropy, Version};
use slipstream_proto::sync::admin_server::AdminServer;
use slipstream_proto::sync::metadata_sync_server::{MetadataSync, MetadataSyncServer};
use slipstream_proto::sync::{RenewLeaseRequest, RenewLeaseResponse, SubscribeRequest};
use slipstream_storage::{BucketConnection, BucketWriter};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::check::{Check, Promises};
use super::clock::{Host, SimulatedClock};
use super::faults::{Dice, Faults, Sabotage};
use super::network::{Network, Port};
use super::store::{Access, Store};

/// The cluster that leads, and where it answers.
const LEADER: &str = "lead";
const ADDRESS: &str = "lead:7410";
/// Its database.
pub(crate) const DATABASE: &str = "bank";

/// What followers are promised. All short, as virtual minutes cost real milliseconds; but a lease
/// outlives the time in which a leader notices that it was replaced.
pub(crate) const PROMISES: Promises = Promises {
    lease_ttl: Duration::from_secs(15),
    grace: Duration::from_secs(10),
};

/// How far wrong a clock is at most.
const SKEW_MAX: Duration = Duration::from_secs(15);

/// Everything that one seed makes.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) check: Arc<Check>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) sabotage: Option<Sabotage>,
    network: Arc<Network>,
    directory: PathBuf,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    starts: u64,
    next_row: i64,
    /// The newest leader, and those that it has replaced and that still run.
    leaders: Vec<Arc<Leader>>,
    followers: BTreeMap<usize, Arc<Follower>>,
}

/// A leader's process.
pub(crate) struct Leader {
    pub(crate) host: Arc<Host>,
    pub(crate) cluster: Arc<Cluster>,
    options: IngestOptions,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// A follower's process.
pub(crate) struct Follower {
    pub(crate) name: String,
    pub(crate) host: Arc<Host>,
    pub(crate) node: Uuid,
    pub(crate) registry: Arc<Registry>,
    pub(crate) bucket: BucketConnection,
    shutdown: CancellationToken,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>, directory: PathBuf) -> Arc<Self> {
        let faults = Faults::new(seed);
        let check = Check::new(PROMISES);
        Arc::new(Self {
            store: Store::new(Arc::clone(&check), sabotage),
            network: Network::new(Arc::clone(&faults)),
            check,
            faults,
            sabotage,
            directory,
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// A machine, and its dice.
    fn host(&self, role: &str) -> (Arc<Host>, Dice) {
        let start = {
            let mut state = self.state.lock();
            state.starts += 1;
            state.starts
        };
        let host = Host::new(format!("{role}-{start}"), self.began);
        let dice = self.faults.dice(&host.name);
        if self.faults.is_on() {
            host.skew(skew(&dice));
        }
        (host, dice)
    }

    /// Starts a leader, which replaces whoever leads: they are not told.
    pub(crate) async fn start_leader(self: &Arc<Self>) -> Result<Arc<Leader>> {
        let (host, dice) = self.host("leader");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock(Arc::clone(&host)));
        let entropy = Entropy::from_seed(dice.entropy().next_u64());
        let access = Arc::new(Access {
            store: Arc::clone(&self.store),
            host: Arc::clone(&host),
            dice,
        });
        let bucket =
            BucketWriter::from_store(access, Path::default(), Arc::clone(&clock), entropy.clone());
        let (shutdown, name) = (CancellationToken::new(), ClusterName::new(LEADER)?);
        let cluster = Cluster::open(ClusterContext {
            name: name.clone(),
            location: "here".to_owned(),
            bucket: bucket.await?,
            clock: Arc::clone(&clock),
            entropy: entropy.clone(),
            lease_ttl: PROMISES.lease_ttl,
            shutdown: shutdown.clone(),
            tasks: TaskTracker::new(),
        });
        let cluster = cluster.await?;
        let options = IngestOptions::in_directory(self.directory.join("spool"))?;
        let grace = match self.sabotage {
            // Planted in the settings: the collector does as it is told.
            Some(Sabotage::EarlyDeletion) => Duration::ZERO,
            _ => PROMISES.grace,
        };
        let settings = LifecycleSettings {
            merge_interval: Some(Duration::from_secs(5)),
            merges_max: 2,
            retention_interval: Some(Duration::from_secs(6)),
            gc_interval: Some(Duration::from_secs(3)),
            gc_grace: grace,
            lease_ttl: PROMISES.lease_ttl,
            prune_every: 8,
        };
        start_lifecycle(&cluster, &settings, &options);
        let identity = NodeIdentity {
            cluster: name,
            role: NodeRole::Leader,
            location: "here".to_owned(),
        };
        let tokens = Tokens::open(self.directory.join("no-tokens"), clock)?;
        let gate = Gate::new(Arc::new(Door(identity)), Arc::new(tokens), entropy);
        let sync = Watched {
            service: SyncService::new(Arc::clone(&cluster)),
            host: Arc::clone(&host),
            check: Arc::clone(&self.check),
            sabotage: self.sabotage,
        };
        let sync = InterceptedService::new(MetadataSyncServer::new(sync), gate.node_interceptor());
        let admin = AdminServer::new(AdminService::new(Arc::clone(&cluster)));
        let admin = InterceptedService::new(admin, gate.node_interceptor());
        let incoming = UnboundedReceiverStream::new(self.network.listen(ADDRESS, &host));
        let server = tonic::transport::Server::builder()
            .add_service(sync)
            .add_service(admin)
            .serve_with_incoming(incoming);
        let held = cluster
            .catalog()
            .databases()
            .find_map(|(_, id)| cluster.suspension(id));
        if let Some(held) = held {
            // Whoever starts it looks at it, and starts it again.
            host.down.cancel();
            shutdown.cancel();
            anyhow::bail!("{}: {held}", host.name);
        }
        let leader = Arc::new(Leader {
            host,
            cluster,
            options,
            shutdown,
            serving: tokio::spawn(async move {
                // It ends with the process.
                let _ = server.await;
            }),
        });
        self.state.lock().leaders.push(Arc::clone(&leader));
        Ok(leader)
    }

    /// The newest leader.
    pub(crate) fn leader(&self) -> Option<Arc<Leader>> {
        self.state.lock().leaders.last().cloned()
    }

    /// All leaders that run, the newest one last.
    pub(crate) fn leaders(&self) -> Vec<Arc<Leader>> {
        self.state.lock().leaders.clone()
    }

    /// A leader's process dies.
    pub(crate) fn kill_leader(&self, leader: &Arc<Leader>) {
        leader.host.down.cancel();
        leader.shutdown.cancel();
        leader.serving.abort();
        let mut state = self.state.lock();
        state.leaders.retain(|known| !Arc::ptr_eq(known, leader));
    }

    /// Starts a follower, with what it had on its disk.
    pub(crate) fn start_follower(self: &Arc<Self>, number: usize) -> Result<Arc<Follower>> {
        let name = format!("follower{number}");
        let (host, dice) = self.host(&name);
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock(Arc::clone(&host)));
        let entropy = Entropy::from_seed(dice.entropy().next_u64());
        let access = Arc::new(Access {
            store: Arc::clone(&self.store),
            host: Arc::clone(&host),
            dice,
        });
        let bucket = BucketConnection::from_store(access, Path::default());
        let port = Port {
            network: Arc::clone(&self.network),
            host: Arc::clone(&host),
        };
        let (shutdown, node) = (CancellationToken::new(), entropy.uuid());
        let context = FollowContext {
            connection: bucket.clone(),
            clock,
            entropy,
            node: NodeName {
                cluster: name.clone(),
                node,
            },
            dialer: Dialer::over(Arc::new(port)),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
            news: Arc::default(),
            shows_streamed: true,
        };
        let identity = NodeIdentity {
            cluster: ClusterName::new(name.clone())?,
            role: NodeRole::Follower,
            location: "here".to_owned(),
        };
        let disk = self.directory.join(&name);
        std::fs::create_dir_all(&disk)?;
        let leaders = vec![LeaderAddress {
            name: LEADER.to_owned(),
            url: format!("http://{ADDRESS}"),
        }];
        let owns_nothing: IsOwned = Arc::new(|_| false);
        let attachments = Attachments::open(&disk)?;
        let registry = Registry::start(identity, leaders, attachments, context, owns_nothing);
        let follower = Arc::new(Follower {
            name,
            host,
            node,
            registry,
            bucket,
            shutdown,
        });
        tokio::spawn(watch(Arc::clone(self), Arc::clone(&follower)));
        let mut state = self.state.lock();
        state.followers.insert(number, Arc::clone(&follower));
        Ok(follower)
    }

    pub(crate) fn follower(&self, number: usize) -> Option<Arc<Follower>> {
        self.state.lock().followers.get(&number).cloned()
    }

    pub(crate) fn followers(&self) -> Vec<Arc<Follower>> {
        self.state.lock().followers.values().cloned().collect()
    }

    /// A follower's process dies.
    pub(crate) fn kill_follower(&self, number: usize) {
        let Some(follower) = self.state.lock().followers.remove(&number) else {
            return;
        };
        follower.host.down.cancel();
        follower.shutdown.cancel();
        self.check.forget_node(follower.node);
    }

    /// Numbers for new rows.
    pub(crate) fn row_numbers(&self, count: i64) -> i64 {
        let mut state = self.state.lock();
        state.next_row += count;
        state.next_row - count
    }
}

/// How wrong a clock is.
pub(crate) fn skew(dice: &Dice) -> i64 {
    let skew = dice.between(Duration::ZERO, 2 * SKEW_MAX);
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).expect("seconds");
    micros(skew) - micros(SKEW_MAX)
}

impl Leader {
    /// How rows for a database are written.
    pub(crate) fn ingest(&self, database: DatabaseId) -> Result<IngestContext, ServiceError> {
        let cluster = &self.cluster;
        Ok(IngestContext {
            bucket: cluster.bucket().clone(),
            clock: Arc::clone(cluster.clock()),
            ids: cluster.extent_ids(database)?,
            database,
            created_on: cluster.clock().now(),
            tags: Default::default(),
            encoding: Arc::new(Semaphore::new(1)),
            options: self.options.clone(),
        })
    }

    /// Does something with this leader, unless it dies before that is done.
    pub(crate) async fn with<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.host.down.run_until_cancelled(work).await
    }
}

impl Follower {
    /// Attaches the database, unless it is.
    pub(crate) async fn attach(&self) -> Result<()> {
        let request = AttachRequest::of(LEADER, DATABASE);
        let attaching = self.registry.attach(request);
        let attached = self.host.down.run_until_cancelled(attaching).await;
        attached.context("it died")??;
        Ok(())
    }

    pub(crate) async fn detach(&self) {
        let detaching = self.registry.detach(DATABASE);
        // One that is not attached has nothing to detach.
        let _ = self.host.down.run_until_cancelled(detaching).await;
    }
}

/// Tells the checker of every state that a follower shows.
async fn watch(world: Arc<World>, follower: Arc<Follower>) {
    let watching = async {
        loop {
            let Ok(following) = follower.registry.by_database(DATABASE) else {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            };
            let mut changes = following.changes();
            loop {
                let state = changes.borrow_and_update().state.clone();
                if let Some(state) = state
                    && follower.host.is_up()
                {
                    world.check.shows(&follower.name, &state);
                }
                let changed = tokio::time::timeout(Duration::from_secs(2), changes.changed());
                let is_this = follower.registry.by_database(DATABASE);
                let is_this = is_this.is_ok_and(|now| Arc::ptr_eq(&now, &following));
                if !matches!(changed.await, Ok(Ok(()))) && !is_this {
                    break;
                }
            }
        }
    };
    follower.host.down.run_until_cancelled(watching).await;
}

/// The sync service, with somebody who notes which leases it grants.
struct Watched {
    service: SyncService,
    host: Arc<Host>,
    check: Arc<Check>,
    sabotage: Option<Sabotage>,
}

#[tonic::async_trait]
impl MetadataSync for Watched {
    type SubscribeStream = <SyncService as MetadataSync>::SubscribeStream;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.service.subscribe(request).await
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let follower = request.get_ref().follower.as_ref();
        let node = follower.and_then(|follower| Uuid::from_slice(&follower.node_id).ok());
        let lowest = Version::new(request.get_ref().lowest_version);
        let answer = match self.sabotage {
            // Planted in front of the real service, which never hears of the lease.
            Some(Sabotage::LeaseIgnored) => Response::new(RenewLeaseResponse {
                lease_ttl_ms: u64::try_from(PROMISES.lease_ttl.as_millis()).expect("seconds"),
            }),
            _ => self.service.renew_lease(request).await?,
        };
        if let Some(node) = node {
            self.check.grants(&self.host, node, lowest);
        }
        Ok(answer)
    }
}

/// What stands behind the gate of a leader. Nothing asks it anything: it only lets nodes in.
#[derive(Debug)]
struct Door(NodeIdentity);

fn closed<T>() -> Result<T, ServiceError> {
    Err(ServiceError::internal("this door has no room behind it"))
}

#[async_trait]
impl Engine for Door {
    fn identity(&self) -> &NodeIdentity {
        &self.0
    }

    async fn execute(&self, _: SqlRequest) -> Result<Answer, ServiceError> {
        closed()
    }

    async fn describe(&self, _: SqlRequest) -> Result<Description, ServiceError> {
        closed()
    }

    async fn ingest(&self, _: IngestRequest) -> Result<IngestReceipt, ServiceError> {
        closed()
    }

    async fn attach(&self, _: AttachRequest) -> Result<Attachment, ServiceError> {
        closed()
    }

    async fn detach(&self, _: &str) -> Result<(), ServiceError> {
        closed()
    }

    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            ready: true,
            reason: None,
            databases: Vec::new(),
        }
    }
}
