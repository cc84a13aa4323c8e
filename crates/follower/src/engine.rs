//! The follower behind its doors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use slipstream_catalog::DatabaseState;
use slipstream_frontend::{
    Answer, AttachRequest, AttachedDatabase, Attachment, DatabaseReadiness, Description, Engine,
    ErrorKind, IngestReceipt, IngestRequest, NodeIdentity, ProvisioningError, ProvisioningState,
    Readiness, ServiceError, SqlRequest,
};
use slipstream_model::{
    AttachTerms, BucketId, ClusterName, DatabaseId, DatabaseName, DatabaseSelection, Freshness,
    PrincipalsModificationKind, WhenStale,
};
use slipstream_proto::sync::{AttachFollowerRequest, DetachFollowerRequest};
use slipstream_query::{
    QueryErrorKind, QueryInfo, QueryRuntime, QuerySession, SessionDatabases, Statement,
};
use slipstream_storage::BucketReader;

use crate::attachments::{ATTACHMENTS_MAX, Attachments, Configuration};
use crate::following::{FollowContext, Following, Served};
use crate::link::{self, LeaderAddress};
use crate::view::FollowerView;

/// How long a request waits for fresher state when it does not say.
const WAIT_FOR_FRESHNESS: Duration = Duration::from_secs(10);
/// How long an attach waits for the first synchronisation before it answers `Creating`.
const WAIT_FOR_FIRST_SYNC: Duration = Duration::from_secs(15);

/// What a follower node shares between its requests.
#[derive(Debug)]
pub struct FollowerEngine {
    identity: NodeIdentity,
    leaders: Vec<LeaderAddress>,
    runtime: Arc<QueryRuntime>,
    attachments: Attachments,
    context: FollowContext,
    following: Arc<RwLock<BTreeMap<String, Arc<Following>>>>,
    /// One attach or detach at a time: they change the same file.
    changing: tokio::sync::Mutex<()>,
}

impl FollowerEngine {
    /// Puts the parts together, and follows what was attached before.
    pub(crate) fn start(
        identity: NodeIdentity,
        leaders: Vec<LeaderAddress>,
        runtime: Arc<QueryRuntime>,
        attachments: Attachments,
        context: FollowContext,
    ) -> Self {
        let engine = Self {
            identity,
            leaders,
            runtime,
            attachments,
            context,
            following: Arc::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        for configuration in engine.attachments.all() {
            engine.follow(configuration);
        }
        engine
    }

    fn follow(&self, configuration: Configuration) -> Arc<Following> {
        let name = configuration.name.clone();
        let url = self
            .leaders
            .iter()
            .find(|leader| leader.name == configuration.leader)
            .map_or_else(
                || configuration.leader_url.clone(),
                |leader| leader.url.clone(),
            );
        let following = Following::start(configuration, url, self.context.clone());
        self.following.write().insert(name, Arc::clone(&following));
        following
    }

    fn all(&self) -> Vec<Arc<Following>> {
        self.following.read().values().cloned().collect()
    }

    /// The followed database of a name.
    fn by_database(&self, database: &str) -> Result<Arc<Following>, ServiceError> {
        let found = self
            .all()
            .into_iter()
            .find(|f| f.configuration().database == database);
        found.ok_or_else(|| {
            ServiceError::new(
                ErrorKind::NotFound,
                "database_not_found",
                format!(
                    "database '{database}' is not attached to cluster '{}': attach it with \
                     slipstream attach --leader NAME --database {database}",
                    self.identity.cluster
                ),
            )
        })
    }

    /// The states a request is answered from, resolved once, and how fresh its database is.
    async fn resolve(
        &self,
        request: &SqlRequest,
    ) -> Result<(SessionDatabases, Option<Freshness>), ServiceError> {
        let mut databases: BTreeMap<String, DatabaseState> = BTreeMap::new();
        for following in self.all() {
            if let Some(state) = following.served().state {
                databases.insert(following.configuration().database.clone(), state);
            }
        }
        let mut freshness = None;
        if let Some(name) = &request.database {
            let following = self.by_database(name)?;
            let served = self.wait_until_fresh(&following, request).await?;
            freshness = following.freshness(&served);
            if let Some(state) = served.state {
                databases.insert(name.clone(), state);
            }
        }
        Ok((
            SessionDatabases {
                default: request.database.clone(),
                databases,
            },
            freshness,
        ))
    }

    /// Waits until a database is as fresh as a request asks for, or fails as it chooses.
    async fn wait_until_fresh(
        &self,
        following: &Following,
        request: &SqlRequest,
    ) -> Result<Served, ServiceError> {
        let wanted = &request.freshness;
        let is_met = |served: &Served| {
            let now = self.context.clock.now();
            following
                .freshness(served)
                .is_some_and(|freshness| wanted.is_met_by(&freshness, now))
        };
        let served = following.served();
        let as_is = wanted.when_stale == WhenStale::Stale && served.state.is_some();
        if as_is || is_met(&served) {
            return Ok(served);
        }
        if wanted.when_stale != WhenStale::Fail {
            let mut changes = following.changes();
            following.look.notify_one();
            let timeout = request.timeout.unwrap_or(WAIT_FOR_FRESHNESS);
            let arrived = tokio::time::timeout(timeout, changes.wait_for(|s| is_met(s))).await;
            if let Ok(Ok(served)) = arrived {
                return Ok(served.clone());
            }
        }
        Err(self.stale(following, &following.served(), request))
    }

    fn stale(&self, following: &Following, served: &Served, request: &SqlRequest) -> ServiceError {
        let database = &following.configuration().database;
        let why = served
            .suspension
            .as_ref()
            .or(served.leader_silence.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let Some(freshness) = following.freshness(served) else {
            return ServiceError::new(
                ErrorKind::Unavailable,
                "not_synchronised",
                format!("database '{database}' has not had its first synchronisation{why}"),
            );
        };
        let staleness = freshness.staleness(self.context.clock.now());
        let wanted = match (
            request.freshness.min_version,
            request.freshness.max_staleness,
        ) {
            (Some(version), _) if version > freshness.version => {
                format!("version {version} was asked for")
            }
            (_, Some(bound)) => format!("at most {bound:?} old was asked for"),
            (version, None) => format!("version {version:?} was asked for"),
        };
        ServiceError::new(
            ErrorKind::Stale,
            "stale",
            format!(
                "database '{database}' is at version {}, last known to be the newest {staleness:?} \
                 ago; {wanted}{why}",
                freshness.version
            ),
        )
    }

    fn session(&self, databases: SessionDatabases) -> QuerySession {
        let view = FollowerView::new(self.all(), Arc::clone(&self.context.clock));
        self.runtime.session(databases, Arc::new(view))
    }

    /// Says where writes go, instead of only that they do not go here.
    fn refuse_write(&self, database: Option<&str>) -> ServiceError {
        let leader = database
            .and_then(|name| self.by_database(name).ok())
            .map(|following| {
                let configuration = following.configuration();
                format!(
                    "leader '{}' at {}",
                    configuration.leader, following.leader_url
                )
            })
            .or_else(|| {
                let leaders = self.leaders.iter();
                let leaders: Vec<_> = leaders
                    .map(|l| format!("leader '{}' at {}", l.name, l.url))
                    .collect();
                (!leaders.is_empty()).then(|| leaders.join(" or "))
            })
            .unwrap_or_else(|| "the database's leader".to_owned());
        ServiceError::new(
            ErrorKind::ReadOnly,
            "read_only_follower",
            format!(
                "cluster '{}' is a follower, and its databases are read-only here: send the \
                 change to {leader}",
                self.identity.cluster
            ),
        )
    }

    fn leader(&self, name: &str) -> Result<&LeaderAddress, ServiceError> {
        self.leaders
            .iter()
            .find(|leader| leader.name == name)
            .ok_or_else(|| {
                let known: Vec<_> = self
                    .leaders
                    .iter()
                    .map(|leader| leader.name.as_str())
                    .collect();
                ServiceError::new(
                    ErrorKind::NotFound,
                    "leader_not_found",
                    format!(
                        "leader '{name}' is not known here: this follower was started with {}. Add \
                     --leader {name}=GRPC_URL",
                        if known.is_empty() {
                            "no leader".into()
                        } else {
                            known.join(", ")
                        }
                    ),
                )
            })
    }

    /// What stands in the way of a new configuration; the same one may be asked for again.
    fn find_existing(
        &self,
        name: &str,
        request: &AttachRequest,
    ) -> Result<Option<Arc<Following>>, ServiceError> {
        let conflict =
            |message| ServiceError::new(ErrorKind::AlreadyExists, "already_attached", message);
        for following in self.all() {
            let known = following.configuration();
            let is_same = known.leader == request.leader && known.database == request.database;
            if known.name == name && is_same {
                return Ok(Some(following));
            }
            if known.name == name {
                return Err(conflict(format!(
                    "configuration '{name}' exists and attaches database '{}' of leader '{}': \
                     choose another --name, or detach it first",
                    known.database, known.leader
                )));
            }
            if known.database == request.database {
                return Err(conflict(format!(
                    "database '{}' is attached already, by configuration '{}' from leader '{}'",
                    known.database, known.name, known.leader
                )));
            }
        }
        Ok(None)
    }

    /// Asks the leader, which keeps who follows what in its log.
    async fn register(
        &self,
        leader: &LeaderAddress,
        name: &str,
        database: &str,
    ) -> Result<Configuration, ServiceError> {
        let bucket = BucketReader::identify(self.context.connection.clone()).await?;
        let mut client = link::admin_client(&leader.url)
            .await
            .map_err(|s| refused(leader, &s))?;
        let mut request = tonic::Request::new(AttachFollowerRequest {
            follower_cluster: self.identity.cluster.to_string(),
            configuration: name.to_owned(),
            database_name: database.to_owned(),
            bucket_id: bucket.id().as_bytes().to_vec().into(),
            location: self.identity.location.clone(),
        });
        request.set_timeout(link::REQUEST_TIMEOUT);
        let answer = client
            .attach_follower(request)
            .await
            .map_err(|s| refused(leader, &s))?;
        let answer = answer.into_inner();
        let garbled =
            || ServiceError::internal(format!("leader '{}' answered nonsense", leader.name));
        if answer.leader_cluster != leader.name {
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "wrong_leader",
                format!(
                    "{} is cluster '{}', not '{}': correct --leader",
                    leader.url, answer.leader_cluster, leader.name
                ),
            ));
        }
        Ok(Configuration {
            name: name.to_owned(),
            leader: leader.name.clone(),
            leader_url: leader.url.clone(),
            database: database.to_owned(),
            database_id: DatabaseId::from_slice(&answer.database_id).ok_or_else(garbled)?,
            bucket_id: BucketId::from_slice(&answer.bucket_id).ok_or_else(garbled)?,
        })
    }

    async fn unregister(&self, following: &Following) -> Result<(), tonic::Status> {
        let mut client = link::admin_client(&following.leader_url).await?;
        let mut request = tonic::Request::new(DetachFollowerRequest {
            follower_cluster: self.identity.cluster.to_string(),
            configuration: following.configuration().name.clone(),
        });
        request.set_timeout(link::REQUEST_TIMEOUT);
        client.detach_follower(request).await.map(drop)
    }

    fn parse(&self, request: &SqlRequest) -> Result<Statement, ServiceError> {
        let mut statements = QuerySession::parse(&request.sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => Ok(statement),
            (None, _) => Err(invalid("the request has no statement".to_owned())),
            (Some(_), false) => Err(invalid(
                "a follower answers one query a request: send them one by one".into(),
            )),
        }
    }

    async fn plan(
        &self,
        session: &QuerySession,
        statement: Statement,
        database: Option<&str>,
    ) -> Result<datafusion::logical_expr::LogicalPlan, ServiceError> {
        session
            .plan_read_only(statement)
            .await
            .map_err(|error| match error.kind() {
                QueryErrorKind::ReadOnly => self.refuse_write(database),
                _ => error.into(),
            })
    }
}

fn invalid(message: String) -> ServiceError {
    ServiceError::new(ErrorKind::InvalidArgument, "invalid_argument", message)
}

fn refused(leader: &LeaderAddress, status: &tonic::Status) -> ServiceError {
    use tonic::Code;
    let message = format!("leader '{}': {}", leader.name, status.message());
    let (kind, code) = match status.code() {
        Code::NotFound => (ErrorKind::NotFound, "database_not_found"),
        Code::FailedPrecondition => (ErrorKind::Conflict, "leader_refused"),
        Code::InvalidArgument => (ErrorKind::InvalidArgument, "invalid_argument"),
        Code::AlreadyExists => (ErrorKind::AlreadyExists, "already_attached"),
        Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled => {
            (ErrorKind::Unavailable, "leader_unreachable")
        }
        _ => (ErrorKind::Internal, "internal"),
    };
    ServiceError::new(kind, code, message)
}

fn attachment_of(following: &Following) -> Attachment {
    let configuration = following.configuration();
    let served = following.served();
    let state = match (&served.state, &served.suspension) {
        (_, Some(_)) => ProvisioningState::Failed,
        (Some(_), None) => ProvisioningState::Succeeded,
        (None, None) => ProvisioningState::Creating,
    };
    let error = served.suspension.map(|message| ProvisioningError {
        code: "suspended".to_owned(),
        message,
    });
    Attachment {
        name: configuration.name.clone(),
        leader: configuration.leader.clone(),
        leader_url: following.leader_url.clone(),
        terms: AttachTerms::of(DatabaseSelection::All),
        default_principals_modification_kind: PrincipalsModificationKind::default(),
        bucket_id: configuration.bucket_id.to_string(),
        provisioning_state: state,
        error: error.clone(),
        databases: vec![AttachedDatabase {
            name: configuration.database.clone(),
            original_name: configuration.database.clone(),
            database_id: configuration.database_id.to_string(),
            provisioning_state: state,
            error,
            version: served.state.map(|state| state.version().get()),
        }],
    }
}

#[async_trait]
impl Engine for FollowerEngine {
    fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    async fn execute(&self, request: SqlRequest) -> Result<Answer, ServiceError> {
        let statements = QuerySession::parse(&request.sql)?;
        if statements.iter().any(QuerySession::is_write) {
            return Err(self.refuse_write(request.database.as_deref()));
        }
        let statement = self.parse(&request)?;
        let (databases, freshness) = self.resolve(&request).await?;
        // From here on the lease names these versions, until the last row was read.
        let pins: Vec<_> = self
            .all()
            .iter()
            .filter_map(|following| {
                let state = databases
                    .databases
                    .get(&following.configuration().database)?;
                Some(following.pin(state.version()))
            })
            .collect();
        let session = self.session(databases);
        let plan = self
            .plan(&session, statement, request.database.as_deref())
            .await?;
        let plan = session.bind(plan, request.parameters)?;
        let info = QueryInfo {
            text: request.sql,
            client: request.client,
            database: request.database,
            timeout: request.timeout,
        };
        let rows = session.execute(plan, info).await?.holding(pins);
        let answered_at = self.context.clock.now();
        Ok(Answer {
            rows,
            freshness,
            answered_at,
            rows_written: None,
        })
    }

    async fn describe(&self, request: SqlRequest) -> Result<Description, ServiceError> {
        let statement = self.parse(&request)?;
        if QuerySession::is_write(&statement) {
            return Err(self.refuse_write(request.database.as_deref()));
        }
        let (databases, _) = self.resolve(&request).await?;
        let session = self.session(databases);
        let plan = self
            .plan(&session, statement, request.database.as_deref())
            .await?;
        let parameters = QuerySession::parameter_schema(&plan)?;
        let plan = if request.parameters.is_empty() {
            plan
        } else {
            session.bind(plan, request.parameters)?
        };
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(Description {
            schema,
            parameters,
            is_query: true,
        })
    }

    async fn ingest(&self, request: IngestRequest) -> Result<IngestReceipt, ServiceError> {
        Err(self.refuse_write(Some(&request.database)))
    }

    async fn attach(&self, request: AttachRequest) -> Result<Attachment, ServiceError> {
        let _changing = self.changing.lock().await;
        ClusterName::new(request.leader.clone()).map_err(|e| invalid(e.to_string()))?;
        DatabaseName::new(request.database.clone()).map_err(|e| invalid(e.to_string()))?;
        let name = request
            .name
            .clone()
            .unwrap_or_else(|| request.database.clone());
        if let Some(following) = self.find_existing(&name, &request)? {
            return Ok(attachment_of(&following));
        }
        if self.following.read().len() >= ATTACHMENTS_MAX {
            return Err(invalid(format!(
                "a follower attaches at most {ATTACHMENTS_MAX} databases"
            )));
        }
        let leader = self.leader(&request.leader)?;
        let configuration = self.register(leader, &name, &request.database).await?;
        self.attachments
            .add(configuration.clone())
            .map_err(|error| ServiceError::internal(error.to_string()))?;
        let following = self.follow(configuration);
        let mut changes = following.changes();
        let first =
            changes.wait_for(|served| served.state.is_some() || served.suspension.is_some());
        // Past the bound the answer says `Creating`, and the first synchronisation goes on.
        let _ = tokio::time::timeout(WAIT_FOR_FIRST_SYNC, first).await;
        Ok(attachment_of(&following))
    }

    async fn detach(&self, configuration: &str) -> Result<(), ServiceError> {
        let _changing = self.changing.lock().await;
        let Some(following) = self.following.read().get(configuration).cloned() else {
            let known: Vec<_> = self.following.read().keys().cloned().collect();
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "configuration_not_found",
                format!(
                    "there is no attached database configuration '{configuration}'; there are: {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ),
            ));
        };
        self.attachments
            .remove(configuration)
            .map_err(|error| ServiceError::internal(error.to_string()))?;
        self.following.write().remove(configuration);
        following.stop();
        // Detaching needs one side only: a leader that is down learns of it when it lists no
        // lease of this configuration any more.
        if let Err(status) = self.unregister(&following).await {
            tracing::warn!(
                configuration,
                reason = status.message(),
                "detached here; the leader could not be told"
            );
        }
        Ok(())
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.all()
            .iter()
            .map(|following| attachment_of(following))
            .collect()
    }

    fn readiness(&self) -> Readiness {
        let databases = self.all().into_iter().map(|following| {
            let served = following.served();
            DatabaseReadiness {
                name: following.configuration().database.clone(),
                ready: served.state.is_some() && served.suspension.is_none(),
                version: served.state.as_ref().map(|state| state.version().get()),
                digest: served
                    .state
                    .as_ref()
                    .map(|state| state.digest().to_string()),
                suspension_state: served.suspension,
            }
        });
        Readiness::of(databases.collect())
    }
}
