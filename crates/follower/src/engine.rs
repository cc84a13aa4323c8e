//! The follower behind its doors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use slipstream_catalog::DatabaseState;
use slipstream_frontend::{
    Answer, AttachRequest, Attachment, DatabaseDescription, DatabaseReadiness, Description, Engine,
    ErrorKind, FollowerDatabase, IngestReceipt, IngestRequest, NodeIdentity, Readiness,
    ServiceError, SqlRequest,
};
use slipstream_model::{Clock, Freshness, OverrideChange, WhenStale};
use slipstream_query::{
    QueryErrorKind, QueryInfo, QueryRuntime, QuerySession, SessionDatabases, Statement,
};

use crate::following::{Following, Served};
use crate::registry::Registry;
use crate::view::FollowerView;

/// How long a request waits for fresher state when it does not say.
const WAIT_FOR_FRESHNESS: Duration = Duration::from_secs(10);

/// What a follower node shares between its requests.
#[derive(Debug)]
pub struct FollowerEngine {
    identity: NodeIdentity,
    runtime: Arc<QueryRuntime>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
}

impl FollowerEngine {
    /// Puts the parts together.
    pub(crate) fn new(
        identity: NodeIdentity,
        runtime: Arc<QueryRuntime>,
        registry: Arc<Registry>,
    ) -> Self {
        let clock = Arc::clone(&registry.context().clock);
        Self {
            identity,
            runtime,
            clock,
            registry,
        }
    }

    /// The states a request is answered from, resolved once, and how fresh its database is.
    async fn resolve(
        &self,
        request: &SqlRequest,
    ) -> Result<(SessionDatabases, Option<Freshness>), ServiceError> {
        let mut databases: BTreeMap<String, DatabaseState> = BTreeMap::new();
        for following in self.registry.all() {
            if let Some(state) = following.served().state {
                databases.insert(following.source().database.clone(), state);
            }
        }
        let mut freshness = None;
        if let Some(name) = &request.database {
            let following = self.registry.by_database(name)?;
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
            let now = self.clock.now();
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
        let database = &following.source().database;
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
        let staleness = freshness.staleness(self.clock.now());
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
        let view = FollowerView::new(self.registry.all(), Arc::clone(&self.clock));
        self.runtime.session(databases, Arc::new(view))
    }

    /// Says where writes go, instead of only that they do not go here.
    fn refuse_write(&self, database: Option<&str>) -> ServiceError {
        let leader = database
            .and_then(|name| self.registry.by_database(name).ok())
            .map(|following| {
                let source = following.source();
                format!("leader '{}' at {}", source.leader, source.leader_url)
            })
            .or_else(|| {
                let leaders = self.registry.leaders().iter();
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
            .registry
            .all()
            .iter()
            .filter_map(|following| {
                let state = databases.databases.get(&following.source().database)?;
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
        let answered_at = self.clock.now();
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
        self.registry.attach(request).await
    }

    async fn detach(&self, configuration: &str) -> Result<(), ServiceError> {
        self.registry.detach(configuration).await
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.registry.attachments()
    }

    fn databases(&self) -> Vec<DatabaseDescription> {
        self.registry.databases()
    }

    async fn override_settings(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<(), ServiceError> {
        self.registry.override_settings(database, change).await
    }

    fn overrides(&self) -> Vec<FollowerDatabase> {
        self.registry.overrides()
    }

    fn readiness(&self) -> Readiness {
        let databases = self.registry.all().into_iter().map(|following| {
            let served = following.served();
            DatabaseReadiness {
                name: following.source().database.clone(),
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
