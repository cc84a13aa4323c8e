//! The follower behind its doors.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use slipstream_catalog::{DatabaseState, VersionSummary};
use slipstream_frontend::{
    Answer, AttachRequest, Attachment, CacheDescription, CachingPreview, Capacity, DatabaseChange,
    DatabaseDescription, Description, Engine, ErrorKind, FollowerDatabase, IngestReceipt,
    IngestRequest, NodeIdentity, PinChange, PinnedVersion, Readiness, RecoveredExtent,
    ServiceError, SqlRequest, UndoDropTable, freshness_at,
};
use slipstream_model::{Clock, DatabasePrincipal, Digest, Freshness, OverrideChange, Version};
use slipstream_query::{
    OlderState, OlderVersions, QueryErrorKind, QueryInfo, QueryRuntime, QuerySession,
    SessionDatabases, Statement, take_settings,
};

use crate::hot_cache::HotCache;
use crate::registry::Registry;
use crate::view::FollowerView;

/// What a follower node shares between its requests.
#[derive(Debug)]
pub struct FollowerEngine {
    identity: NodeIdentity,
    runtime: Arc<QueryRuntime>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    cache: Option<Arc<HotCache>>,
}

impl FollowerEngine {
    /// Puts the parts together.
    pub(crate) fn new(
        identity: NodeIdentity,
        runtime: Arc<QueryRuntime>,
        registry: Arc<Registry>,
        cache: Option<Arc<HotCache>>,
    ) -> Self {
        let clock = Arc::clone(&registry.context().clock);
        Self {
            identity,
            runtime,
            clock,
            registry,
            cache,
        }
    }

    /// The states a request is answered from, resolved once, and how fresh its database is.
    async fn resolve(
        &self,
        request: &SqlRequest,
    ) -> Result<(SessionDatabases, Option<Freshness>), ServiceError> {
        let (databases, freshness) = self.registry.resolve(request).await?;
        let access = &request.access;
        let leader = self.registry.leader_of(request);
        let default = request.database.clone();
        let mut session = access.session(&self.identity, default, leader, request.scope, databases);
        session.history = Some(Arc::clone(&self.registry) as Arc<dyn OlderVersions>);
        session.followed = session.databases.keys().cloned().collect();
        Ok((session, freshness))
    }

    /// The request's database as it was, if that is asked for: what is read, and what holds it.
    async fn go_back(
        &self,
        request: &SqlRequest,
        session: &mut SessionDatabases,
    ) -> Result<Option<OlderState>, ServiceError> {
        let older = request.older(&session.databases, &*self.registry).await?;
        session.as_of = older.as_ref().map(|older| older.state.clone());
        Ok(older)
    }

    fn session(&self, request: &SqlRequest, databases: SessionDatabases) -> QuerySession {
        let view = Arc::new(FollowerView::new(Arc::clone(&self.registry)));
        self.runtime.session(databases, request.access.view(view))
    }

    /// The one query of a request. A scope and a version that it sets for itself go into it.
    fn parse(&self, request: &mut SqlRequest) -> Result<Statement, ServiceError> {
        let mut statements = QuerySession::parse(&request.sql)?;
        if statements.iter().any(QuerySession::is_write) {
            return Err(self.registry.refuse_write(request.database.as_deref()));
        }
        let settings = take_settings(&mut statements)?;
        request.scope = settings.scope.unwrap_or(request.scope);
        request.version = settings.version.or(request.version);
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => Ok(statement),
            (None, _) => Err(invalid("the request has no statement".to_owned())),
            (Some(_), false) => Err(invalid(
                "a follower answers one query a request: send them one by one".into(),
            )),
        }
    }

    fn its_cache(&self) -> Result<&HotCache, ServiceError> {
        self.cache.as_deref().ok_or_else(|| {
            ServiceError::new(
                ErrorKind::Unsupported,
                "no_cache",
                format!(
                    "cluster '{}' has no cache: start it with --cache-disk-bytes",
                    self.identity.cluster
                ),
            )
        })
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
                QueryErrorKind::ReadOnly => self.registry.refuse_write(database),
                _ => error.into(),
            })
    }
}

/// How many queries a node runs at one time.
pub fn queries_capacity(runtime: &QueryRuntime) -> Capacity {
    let (total, running) = runtime.slots();
    Capacity {
        resource: "Queries",
        total: total as u64,
        consumed: running as u64,
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

    async fn execute(&self, mut request: SqlRequest) -> Result<Answer, ServiceError> {
        let statement = self.parse(&mut request)?;
        request.check_query()?;
        let (mut databases, freshness) = self.resolve(&request).await?;
        // From here on the lease names these versions, until the last row was read.
        let pins = self.registry.pin(&databases.databases);
        let older = self.go_back(&request, &mut databases).await?;
        let freshness = freshness.map(|newest| freshness_at(newest, older.as_ref()));
        let pins = (pins, older.and_then(|older| older.hold));
        let is_whole = request.parameters.is_empty() && databases.as_of.is_none();
        let known = is_whole
            .then(|| self.runtime.known(&request.sql, &databases))
            .flatten();
        let info = |request: SqlRequest| QueryInfo {
            text: request.sql,
            client: request.client,
            database: request.database,
            timeout: request.timeout,
        };
        let rows = if let Some(known) = known {
            known.execute(info(request)).await?
        } else {
            let session = self.session(&request, databases);
            let plan = self
                .plan(&session, statement, request.database.as_deref())
                .await?;
            let plan = session.bind(plan, std::mem::take(&mut request.parameters))?;
            if is_whole {
                session.execute_and_remember(plan, info(request)).await?
            } else {
                session.execute(plan, info(request)).await?
            }
        };
        let rows = rows.holding(pins);
        let answered_at = self.clock.now();
        Ok(Answer {
            rows,
            freshness,
            answered_at,
            rows_written: None,
        })
    }

    async fn describe(&self, mut request: SqlRequest) -> Result<Description, ServiceError> {
        let statement = self.parse(&mut request)?;
        request.check_query()?;
        let (mut databases, _) = self.resolve(&request).await?;
        let _older = self.go_back(&request, &mut databases).await?;
        let session = self.session(&request, databases);
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
        Err(self.registry.refuse_write(Some(&request.database)))
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

    fn states(&self) -> BTreeMap<String, DatabaseState> {
        self.registry.states()
    }

    async fn versions(
        &self,
        database: &str,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        match self.states().remove(database) {
            Some(newest) => self.registry.versions(database, &newest, count).await,
            None => Ok(Vec::new()),
        }
    }

    async fn undo_drop_table(
        &self,
        undo: UndoDropTable,
    ) -> Result<Vec<RecoveredExtent>, ServiceError> {
        Err(self.registry.refuse_write(Some(&undo.database)))
    }

    async fn change_pin(&self, change: PinChange) -> Result<(), ServiceError> {
        let PinChange {
            database,
            name,
            version,
            ..
        } = change;
        match version {
            Some(version) => self.registry.pin_version(&database, name, version).await,
            None => self.registry.unpin_version(&database, &name).await,
        }
    }

    fn pins(&self, database: &str) -> Vec<PinnedVersion> {
        self.registry.pinned_versions(database)
    }

    async fn change(&self, change: DatabaseChange) -> Result<(Version, Digest), ServiceError> {
        Err(self.registry.refuse_write(Some(&change.database)))
    }

    fn cache(&self) -> Option<CacheDescription> {
        let cache = self.cache.as_ref()?;
        Some(cache.describe(&self.runtime.reads()))
    }

    fn preview_caching(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<CachingPreview, ServiceError> {
        let cache = self.its_cache()?;
        let changed = self.registry.overrides_after(database, change)?;
        Ok(cache.preview(&self.registry, &self.runtime, database, &changed))
    }

    fn warm(&self, database: &str, table: Option<&str>) -> Result<(), ServiceError> {
        let cache = self.its_cache()?;
        let served = self.registry.by_database(database)?.served();
        if let (Some(table), Some(state)) = (table, served.state)
            && state.table(table).is_none()
        {
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "table_not_found",
                format!("there is no table '{table}' in database '{database}'"),
            ));
        }
        cache.warm(database, table);
        Ok(())
    }

    fn capacity(&self) -> Vec<Capacity> {
        vec![queries_capacity(&self.runtime)]
    }

    fn principals(&self) -> BTreeMap<String, Vec<DatabasePrincipal>> {
        self.registry.principals()
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(self.registry.readiness())
    }
}
