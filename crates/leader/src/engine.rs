//! The leader behind its doors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use slipstream_catalog::{DatabaseState, VersionSummary};
use slipstream_follower::{Registry, queries_capacity};
use slipstream_frontend::{
    Answer, AttachRequest, Attachment, Caller, Capacity, ClusterPermission, CollectedExtent,
    DatabaseChange, DatabaseDescription, DatabaseReadiness, Description, Engine, ErrorKind,
    FollowerDatabase, FollowerDescription, GarbageBlocker, IngestReceipt, IngestRequest,
    Invitation, InvitationDescription, InviteRequest, NodeIdentity, PinChange, PinnedVersion,
    Readiness, RecoveredExtent, ServiceError, SqlRequest, TableMode, UndoDropTable, freshness_at,
};
use slipstream_model::{
    DatabaseId, DatabaseName, DatabasePrincipal, Digest, Freshness, FreshnessRequirement,
    OverrideChange, TableId, TableSchema, Timestamp, Version, WhenStale,
};
use slipstream_query::{
    OlderState, OlderVersions, QueryInfo, QueryRuntime, QuerySession, QueryStream, Statement,
    take_settings,
};
use tokio::sync::Semaphore;

use crate::GarbageCollector;
use crate::cluster::Cluster;
use crate::ingest::{IngestContext, IngestOptions};
use crate::intake::IngestQueue;
use crate::older::LeaderHistory;
use crate::transaction::{self, Kind, Outcome, Transaction};
use crate::view::LeaderView;

/// How long a request waits for a version that is not there yet, when it does not say. A leader
/// commits in milliseconds: a version that does not come within this was never promised.
const WAIT_FOR_VERSION: Duration = Duration::from_secs(10);

/// A leader node.
#[derive(Debug)]
pub struct LeaderEngine {
    identity: NodeIdentity,
    cluster: Arc<Cluster>,
    /// The databases of other clusters that this one follows.
    registry: Arc<Registry>,
    runtime: Arc<QueryRuntime>,
    ingest: IngestOptions,
    /// Extents that are encoded at one time, over all requests: one a core.
    encoding: Arc<Semaphore>,
    garbage: Arc<GarbageCollector>,
    history: Arc<LeaderHistory>,
    /// Small ingests that wait for each other.
    queue: Arc<IngestQueue>,
}

impl LeaderEngine {
    /// Puts the parts together.
    pub fn new(
        identity: NodeIdentity,
        cluster: Arc<Cluster>,
        registry: Arc<Registry>,
        runtime: Arc<QueryRuntime>,
        ingest: IngestOptions,
        garbage: Arc<GarbageCollector>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let encoding = Arc::new(Semaphore::new(cores));
        let history = LeaderHistory::new(Arc::clone(&cluster), Arc::clone(&registry));
        let queue = Arc::new(IngestQueue::new(Arc::clone(&cluster)));
        Self {
            identity,
            cluster,
            registry,
            runtime,
            ingest,
            encoding,
            garbage,
            history: Arc::new(history),
            queue,
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(crate) fn queue(&self) -> &Arc<IngestQueue> {
        &self.queue
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn collector(&self) -> &GarbageCollector {
        &self.garbage
    }

    pub(crate) fn history(&self) -> &LeaderHistory {
        &self.history
    }

    /// A session of whoever sent the request, over these states.
    pub(crate) fn session(
        &self,
        request: &SqlRequest,
        databases: BTreeMap<String, DatabaseState>,
    ) -> QuerySession {
        self.session_of(request, databases, None)
    }

    /// The same, over the request's database as it was.
    fn session_of(
        &self,
        request: &SqlRequest,
        databases: BTreeMap<String, DatabaseState>,
        older: Option<&OlderState>,
    ) -> QuerySession {
        let history = Arc::clone(&self.history) as Arc<dyn OlderVersions>;
        self.session_with(request, databases, older, Some(history))
    }

    /// A session over states that are not committed yet. They have no versions: a state that is
    /// changed still says the version that it was made from.
    pub(crate) fn session_of_changes(
        &self,
        request: &SqlRequest,
        databases: BTreeMap<String, DatabaseState>,
    ) -> QuerySession {
        self.session_with(request, databases, None, None)
    }

    fn session_with(
        &self,
        request: &SqlRequest,
        databases: BTreeMap<String, DatabaseState>,
        older: Option<&OlderState>,
        history: Option<Arc<dyn OlderVersions>>,
    ) -> QuerySession {
        let access = &request.access;
        let default = request.database.clone();
        // A database that this cluster owns is at its leader already.
        let leader = self
            .follows(default.as_deref())
            .then(|| self.registry.leader_of(request))
            .flatten();
        let mut session = access.session(&self.identity, default, leader, request.scope, databases);
        session.history = history;
        let followed = session.databases.keys().cloned();
        session.followed = followed.filter(|name| self.follows(Some(name))).collect();
        session.as_of = older.map(|older| older.state.clone());
        let view = LeaderView::new(Arc::clone(&self.cluster), Arc::clone(&self.registry));
        self.runtime.session(session, access.view(Arc::new(view)))
    }

    pub(crate) fn ingest_context(
        &self,
        database: DatabaseId,
        created_on: Option<Timestamp>,
        tags: BTreeSet<String>,
    ) -> Result<IngestContext, ServiceError> {
        Ok(IngestContext {
            bucket: self.cluster.bucket().clone(),
            clock: Arc::clone(self.cluster.clock()),
            ids: self.cluster.extent_ids(database)?,
            database,
            created_on: created_on.unwrap_or_else(|| self.cluster.clock().now()),
            tags,
            encoding: Arc::clone(&self.encoding),
            options: self.ingest.clone(),
        })
    }

    /// The states a request is answered from: all databases, owned and followed, resolved once;
    /// and how fresh the request's own is.
    async fn resolve(
        &self,
        request: &SqlRequest,
    ) -> Result<(BTreeMap<String, DatabaseState>, Option<Freshness>), ServiceError> {
        let is_followed = self.follows(request.database.as_deref());
        let (mut databases, mut freshness) = if is_followed {
            self.registry.resolve(request).await?
        } else {
            (self.registry.states(), None)
        };
        // A name that is owned wins.
        databases.extend(self.cluster.states());
        if let Some(name) = request.database.as_ref().filter(|_| !is_followed) {
            let id = self.cluster.database_id(name)?;
            let timeout = request.timeout.unwrap_or(WAIT_FOR_VERSION);
            let waited = self.wait_for_version(id, &request.freshness, timeout);
            if let Some(state) = waited.await? {
                databases.insert(name.clone(), state);
            }
            let state = databases.get(name);
            freshness = state.map(|state| self.freshness(name, state));
        }
        Ok((databases, freshness))
    }

    /// Whether a database is one of another cluster, followed here.
    fn follows(&self, database: Option<&str>) -> bool {
        database.is_some_and(|name| {
            self.cluster.catalog().database(name).is_none()
                && self.registry.by_database(name).is_ok()
        })
    }

    /// The database of a name, to change it.
    ///
    /// # Errors
    /// When there is none, or another cluster owns it.
    pub(crate) fn owned(&self, name: &str) -> Result<DatabaseId, ServiceError> {
        if self.follows(Some(name)) {
            return Err(self.registry.refuse_write(Some(name)));
        }
        self.cluster.database_id(name)
    }

    /// Refuses to drop what is only followed.
    pub(crate) fn check_not_attached(&self, name: &str) -> Result<(), ServiceError> {
        if !self.follows(Some(name)) {
            return Ok(());
        }
        let following = self.registry.by_database(name)?;
        let configuration = &following.source().configuration;
        Err(ServiceError::new(
            ErrorKind::Conflict,
            "database_attached",
            format!(
                "database '{name}' is attached by configuration '{configuration}' and cannot be \
                 dropped here: detach it with slipstream detach --name {configuration}"
            ),
        ))
    }

    /// Waits until a database has the version that a request asks for.
    async fn wait_for_version(
        &self,
        database: DatabaseId,
        freshness: &FreshnessRequirement,
        timeout: Duration,
    ) -> Result<Option<DatabaseState>, ServiceError> {
        let Some(wanted) = freshness.min_version else {
            return Ok(None);
        };
        let Ok(writer) = self.cluster.writer(database) else {
            return Ok(None);
        };
        let mut subscription = writer.subscribe();
        if subscription.state.version() >= wanted || freshness.when_stale == WhenStale::Stale {
            return Ok(Some(subscription.state));
        }
        let has = subscription.state.version();
        let stale = || {
            ServiceError::new(
                ErrorKind::Stale,
                "stale",
                format!("the database is at version {has}, and version {wanted} was asked for"),
            )
        };
        if freshness.when_stale == WhenStale::Fail {
            return Err(stale());
        }
        let arrives = async {
            while let Ok(committed) = subscription.commits.recv().await {
                if committed.version >= wanted {
                    return Some(committed.state);
                }
            }
            None
        };
        let arrived = tokio::time::timeout(timeout, arrives).await;
        arrived.ok().flatten().map(Some).ok_or_else(stale)
    }

    fn freshness(&self, name: &str, state: &DatabaseState) -> Freshness {
        Freshness {
            database: name.to_owned(),
            version: state.version(),
            digest: state.digest(),
            last_contact: self.cluster.clock().now(),
            committed_at: state.committed_at(),
            versions_behind: 0,
        }
    }

    async fn query(
        &self,
        request: SqlRequest,
        statement: Statement,
    ) -> Result<Answer, ServiceError> {
        request.check_query()?;
        let (databases, freshness) = self.resolve(&request).await?;
        let pins = (
            self.registry.pin(&databases),
            self.cluster.readers().hold(databases.values()),
        );
        let older = request.older(&databases, &*self.history).await?;
        let freshness = freshness.map(|newest| freshness_at(newest, older.as_ref()));
        let session = self.session_of(&request, databases, older.as_ref());
        let plan = session.plan_read_only(statement).await?;
        let plan = session.bind(plan, request.parameters)?;
        let pins = (pins, older.and_then(|older| older.hold));
        let info = QueryInfo {
            text: request.sql,
            client: request.client,
            database: request.database,
            timeout: request.timeout,
        };
        let rows = session.execute(plan, info).await?.holding(pins);
        let answered_at = self.cluster.clock().now();
        Ok(Answer {
            rows,
            freshness,
            answered_at,
            rows_written: None,
        })
    }

    /// The one row that a statement without rows of its own answers.
    fn acknowledge(&self, outcome: Outcome) -> Result<Answer, ServiceError> {
        let state = match (&outcome.committed, &outcome.database) {
            (Some(committed), _) => Some(committed.state.clone()),
            (None, Some(name)) => self.cluster.states().remove(name),
            (None, None) => None,
        };
        let freshness = outcome
            .database
            .as_ref()
            .zip(state.as_ref())
            .map(|(name, state)| self.freshness(name, state));
        let version = freshness.as_ref().map(|freshness| freshness.version.get());
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(UInt64Array::from(vec![version])),
            Arc::new(UInt64Array::from(vec![outcome.rows])),
        ];
        let batch = RecordBatch::try_new(acknowledgement_schema(), columns)
            .map_err(|error| ServiceError::internal(error.to_string()))?;
        Ok(Answer {
            rows: QueryStream::from_batches(acknowledgement_schema(), vec![batch]),
            freshness,
            answered_at: self.cluster.clock().now(),
            rows_written: Some(outcome.rows),
        })
    }

    /// Where an ingest goes: the table there is, or the one to be made of what the source holds.
    pub(crate) fn target(
        &self,
        request: &IngestRequest,
        state: &DatabaseState,
    ) -> Result<Option<(TableId, TableSchema)>, ServiceError> {
        let table = state.table(&request.table);
        match (request.table_mode, table) {
            (TableMode::Append | TableMode::CreateOrAppend, Some(table)) => {
                Ok(Some((table.id, table.schema.clone())))
            }
            (TableMode::Append, None) => Err(ServiceError::new(
                ErrorKind::NotFound,
                "table_not_found",
                format!(
                    "table '{}' does not exist in database '{}': create it with CREATE TABLE, or \
                     ingest with create",
                    request.table, request.database
                ),
            )),
            (TableMode::Create, Some(_)) => Err(ServiceError::new(
                ErrorKind::AlreadyExists,
                "table_exists",
                format!("table '{}' exists already", request.table),
            )),
            (TableMode::Create | TableMode::CreateOrAppend | TableMode::Replace, _) => Ok(None),
        }
    }
}

/// The columns that a statement without rows of its own answers.
fn acknowledgement_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("version", DataType::UInt64, true),
        Field::new("rows", DataType::UInt64, false),
    ]))
}

fn invalid(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::new(
        ErrorKind::InvalidArgument,
        "invalid_argument",
        error.to_string(),
    )
}

/// The statements of a request, all of one kind.
enum Request {
    Query(Statement),
    Database(Statement),
    Changes(Vec<Statement>),
}

/// Reads a request. A scope and a version that it sets for itself go into it.
fn classify(request: &mut SqlRequest) -> Result<Request, ServiceError> {
    let mut statements = QuerySession::parse(&request.sql)?;
    let settings = take_settings(&mut statements)?;
    request.scope = settings.scope.unwrap_or(request.scope);
    request.version = settings.version.or(request.version);
    let Some(last) = statements.pop() else {
        return Err(invalid("the request has no statement"));
    };
    if statements.is_empty() {
        return Ok(match transaction::kind_of(&last) {
            Kind::Query => Request::Query(last),
            Kind::Database => Request::Database(last),
            Kind::Change => Request::Changes(vec![last]),
        });
    }
    statements.push(last);
    if statements
        .iter()
        .all(|statement| matches!(transaction::kind_of(statement), Kind::Change))
    {
        return Ok(Request::Changes(statements));
    }
    Err(invalid(
        "several statements in one request are one transaction, which holds CREATE, DROP and ALTER \
         TABLE, INSERT and DELETE only: send queries and CREATE or DROP DATABASE one by one",
    ))
}

#[async_trait]
impl Engine for LeaderEngine {
    fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    async fn execute(&self, mut request: SqlRequest) -> Result<Answer, ServiceError> {
        match classify(&mut request)? {
            Request::Query(statement) => self.query(request, statement).await,
            Request::Database(_) | Request::Changes(_) if request.version.is_some() => {
                Err(invalid(
                    "SET version is for queries: what changes a database reads its newest version",
                ))
            }
            Request::Database(statement) => {
                request
                    .access
                    .caller()
                    .check(ClusterPermission::ManageDatabases)?;
                self.acknowledge(transaction::change_database(self, &statement).await?)
            }
            Request::Changes(statements) => {
                // Read-your-writes holds for the reading half of a transaction too.
                let (databases, _) = self.resolve(&request).await?;
                // Its statements read these versions, or newer ones.
                let _held = self.cluster.readers().hold(databases.values());
                let outcome = Transaction::new(self, &request).run(statements).await?;
                self.acknowledge(outcome)
            }
        }
    }

    async fn describe(&self, mut request: SqlRequest) -> Result<Description, ServiceError> {
        let parsed = classify(&mut request)?;
        if request.version.is_some() {
            request.check_query()?;
        }
        let (databases, _) = self.resolve(&request).await?;
        let older = request.older(&databases, &*self.history).await?;
        let session = self.session_of(&request, databases, older.as_ref());
        let (plan, is_query) = match parsed {
            Request::Query(statement) => {
                request.check_query()?;
                (session.plan_read_only(statement).await?, true)
            }
            Request::Changes(mut statements) if statements.len() == 1 => {
                let statement = statements.remove(0);
                if !transaction::needs_plan(&statement) {
                    return Ok(Description::of_change(acknowledgement_schema()));
                }
                // What planning says of tables is for those who may read them.
                request.check_query()?;
                (session.plan(statement).await?, false)
            }
            Request::Database(_) | Request::Changes(_) => {
                return Ok(Description::of_change(acknowledgement_schema()));
            }
        };
        let parameters = QuerySession::parameter_schema(&plan)?;
        let plan = if request.parameters.is_empty() {
            plan
        } else {
            session.bind(plan, request.parameters)?
        };
        let schema = if is_query {
            Arc::new(plan.schema().as_arrow().clone())
        } else {
            acknowledgement_schema()
        };
        Ok(Description {
            schema,
            parameters,
            is_query,
        })
    }

    async fn ingest(&self, request: IngestRequest) -> Result<IngestReceipt, ServiceError> {
        self.take_in(request).await
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
        let mut states = self.registry.states();
        states.extend(self.cluster.states());
        states
    }

    async fn versions(
        &self,
        database: &str,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        match self.states().remove(database) {
            Some(newest) => self.history.versions(database, &newest, count).await,
            None => Ok(Vec::new()),
        }
    }

    async fn change(&self, change: DatabaseChange) -> Result<(Version, Digest), ServiceError> {
        let request = SqlRequest {
            database: Some(change.database),
            access: change.access,
            ..SqlRequest::default()
        };
        let outcome = Transaction::new(self, &request).apply(change.ops).await?;
        match (outcome.committed, &request.database) {
            (Some(committed), _) => Ok((committed.version, committed.digest)),
            (None, Some(name)) => {
                let state = self.cluster.writer(self.owned(name)?)?.state();
                Ok((state.version(), state.digest()))
            }
            (None, None) => Err(ServiceError::internal("a change of no database")),
        }
    }

    async fn garbage(&self) -> Result<Vec<GarbageBlocker>, ServiceError> {
        let mut all = Vec::new();
        for (name, writer) in self.cluster.writers() {
            all.extend(self.garbage.blockers(&name, &writer).await?);
        }
        all.extend(self.garbage.dropped().await?);
        Ok(all)
    }

    async fn collect_garbage(
        &self,
        database: &str,
        what_if: bool,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        let writer = self.cluster.writer(self.owned(database)?)?;
        if what_if {
            return self.garbage.preview(&writer).await;
        }
        let name = DatabaseName::new(database).map_err(ServiceError::invalid_name)?;
        self.garbage.collect(&name, &writer).await
    }

    async fn undo_drop_table(
        &self,
        undo: UndoDropTable,
    ) -> Result<Vec<RecoveredExtent>, ServiceError> {
        self.undo_drop(undo).await
    }

    async fn change_pin(&self, change: PinChange) -> Result<(), ServiceError> {
        if !self.follows(Some(&change.database)) {
            return self.pin_own(change).await;
        }
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
        if self.follows(Some(database)) {
            return self.registry.pinned_versions(database);
        }
        let state = self.cluster.states().remove(database);
        let pins = state.iter().flat_map(|state| state.pins());
        let pinned = pins.map(|(name, version)| PinnedVersion {
            name: name.clone(),
            version: *version,
            cluster: self.identity.cluster.to_string(),
        });
        pinned.collect()
    }

    fn capacity(&self) -> Vec<Capacity> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let free = self.encoding.available_permits();
        let encoding = Capacity {
            resource: "Ingestions",
            total: cores as u64,
            consumed: cores.saturating_sub(free) as u64,
        };
        vec![queries_capacity(&self.runtime), encoding]
    }

    fn principals(&self) -> BTreeMap<String, Vec<DatabasePrincipal>> {
        let mut all = self.registry.principals();
        let owned = self.cluster.states().into_iter();
        all.extend(owned.map(|(name, state)| (name, state.principals().to_vec())));
        all
    }

    fn databases(&self) -> Vec<DatabaseDescription> {
        let owned = self.cluster.database_descriptions().into_iter();
        owned.chain(self.registry.databases()).collect()
    }

    fn followers(&self) -> Vec<FollowerDescription> {
        self.cluster.follower_descriptions()
    }

    async fn detach_follower(
        &self,
        cluster: &str,
        configuration: &str,
    ) -> Result<(), ServiceError> {
        let cluster = cluster.parse().map_err(ServiceError::invalid_name)?;
        // Whoever comes this way may share, and so speak for any follower.
        let caller = Caller::local();
        self.cluster
            .detach_follower(cluster, configuration, &caller)
            .await
    }

    async fn invite(&self, request: InviteRequest) -> Result<Invitation, ServiceError> {
        self.cluster.invite(request).await
    }

    fn invitations(&self) -> Vec<InvitationDescription> {
        self.cluster.invitation_descriptions()
    }

    async fn revoke_invitation(&self, id: &str) -> Result<(), ServiceError> {
        self.cluster.revoke_invitation(id).await
    }

    fn readiness(&self) -> Readiness {
        let catalog = self.cluster.catalog();
        let states = self.cluster.states();
        let databases: Vec<_> = catalog
            .databases()
            .map(|(name, id)| {
                let state = states.get(name.as_str());
                let suspension_state = self.cluster.suspension(id);
                DatabaseReadiness {
                    name: name.to_string(),
                    ready: suspension_state.is_none() && state.is_some(),
                    version: state.map(|state| state.version().get()),
                    digest: state.map(|state| state.digest().to_string()),
                    suspension_state,
                }
            })
            .chain(self.registry.readiness())
            .collect();
        Readiness::of(databases)
    }
}
