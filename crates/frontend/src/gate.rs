//! Where requests come in: finds out who asks, and hands them the node as they may use it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slipstream_catalog::{DatabaseState, VersionSummary};
use slipstream_model::{
    Clock, ClusterRole, DatabasePrincipal, Digest, Entropy, OverrideChange, Version,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::command::{self, CommandLog};
use crate::{
    Access, Answer, AttachRequest, Attachment, CacheDescription, CachingPreview, Caller, Capacity,
    ClusterPermission, CollectedExtent, DatabaseChange, DatabaseDescription, Description, Engine,
    FollowerDatabase, FollowerDescription, GarbageBlocker, IngestReceipt, IngestRequest,
    IngestSource, Invitation, InvitationDescription, InviteRequest, NodeIdentity, Permission,
    PinChange, PinnedVersion, Readiness, RecoveredExtent, ServiceError, SqlRequest, TableMode,
    TokenRecord, Tokens, UndoDropTable,
};

/// A node behind its authentication. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    engine: Arc<dyn Engine>,
    services: Arc<Services>,
    nodes_have_certificates: bool,
    is_encrypted: bool,
}

/// What all callers of a node share.
#[derive(Debug)]
struct Services {
    tokens: Arc<Tokens>,
    commands: Arc<CommandLog>,
    entropy: Entropy,
}

impl Gate {
    /// Puts the tokens in front of a node.
    pub fn new(engine: Arc<dyn Engine>, tokens: Arc<Tokens>, entropy: Entropy) -> Self {
        let services = Services {
            commands: CommandLog::new(Arc::clone(tokens.clock())),
            tokens,
            entropy,
        };
        Self {
            engine,
            services: Arc::new(services),
            nodes_have_certificates: false,
            is_encrypted: false,
        }
    }

    /// Lets other nodes in only with a certificate, which the TLS of the port has checked.
    #[must_use]
    pub fn asking_nodes_for_certificates(mut self, is_asking: bool) -> Self {
        self.nodes_have_certificates = is_asking;
        self
    }

    /// Notes that the ports take TLS, for the addresses that answers name.
    #[must_use]
    pub(crate) fn encrypted(mut self, is_encrypted: bool) -> Self {
        self.is_encrypted = is_encrypted;
        self
    }

    /// What the node's addresses begin with.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// The node as whoever has this `Authorization` header may use it.
    ///
    /// # Errors
    /// `Unauthenticated`.
    fn enter(&self, authorization: Option<&str>) -> Result<AuthorizedEngine, ServiceError> {
        let token = authorization.and_then(token_of);
        let caller = self.services.tokens.authenticate(token.as_deref())?;
        Ok(AuthorizedEngine {
            engine: Arc::clone(&self.engine),
            services: Arc::clone(&self.services),
            caller,
            token: token.map(Into::into),
        })
    }

    /// What is open to everybody: who the node is.
    pub(crate) fn identity(&self) -> &NodeIdentity {
        self.engine.identity()
    }

    /// Whether the node is ready, with its databases for callers who may see them.
    pub(crate) fn readiness(&self, visitor: Option<&AuthorizedEngine>) -> Readiness {
        let readiness = self.engine.readiness();
        let access = visitor.map(AuthorizedEngine::access).unwrap_or_default();
        let visible = |name: &str| access.may(name, Permission::ViewMetadata);
        if readiness.databases.iter().all(|known| visible(&known.name)) {
            return readiness;
        }
        Readiness {
            ready: readiness.ready,
            reason: readiness.reason.map(|_| {
                "a database has not had its first synchronisation, or stands still; a token says \
                 which"
                    .to_owned()
            }),
            databases: readiness
                .databases
                .into_iter()
                .filter(|known| visible(&known.name))
                .collect(),
        }
    }

    /// Authenticates the calls of a gRPC service; [`caller_of`] tells its methods who it is.
    pub fn interceptor(
        &self,
    ) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let gate = self.clone();
        move |mut request| {
            let visitor = gate.enter(authorization(request.metadata()))?;
            request.extensions_mut().insert(visitor);
            Ok(request)
        }
    }
}

impl Gate {
    /// The same for services that only nodes of other clusters call.
    pub fn node_interceptor(
        &self,
    ) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let authenticate = self.interceptor();
        let is_asking = self.nodes_have_certificates;
        move |request| {
            let has_certificate = request.peer_certs().is_some_and(|chain| !chain.is_empty());
            if is_asking && !has_certificate {
                return Err(Status::unauthenticated(
                    "this cluster asks other clusters' nodes for a TLS certificate: start the \
                     follower with --leader-cert and --leader-key",
                ));
            }
            authenticate(request)
        }
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
}

/// The token in an `Authorization` header: `Bearer TOKEN`, or the password of `Basic`, for
/// clients that know nothing but user and password.
pub(crate) fn token_of(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        return decoded.split_once(':').map(|(_, token)| token.to_owned());
    }
    None
}

/// Who a gRPC call comes from, behind [`Gate::interceptor`].
///
/// # Errors
/// `Unauthenticated` when the service does not stand behind a gate.
pub fn caller_of<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    visitor_of(request).map(|visitor| visitor.caller)
}

/// The node as whoever a gRPC call comes from may use it, behind [`Gate::interceptor`].
///
/// # Errors
/// `Unauthenticated` when the service does not stand behind a gate.
pub fn visitor_of<T>(request: &Request<T>) -> Result<AuthorizedEngine, Status> {
    let visitor = request.extensions().get::<AuthorizedEngine>();
    visitor
        .cloned()
        .ok_or_else(|| Status::unauthenticated("this call was not authenticated"))
}

impl FromRequestParts<Gate> for AuthorizedEngine {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, gate: &Gate) -> Result<Self, ServiceError> {
        gate.enter(authorization_header(&parts.headers))
    }
}

fn authorization_header(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
}

/// The node as one caller may use it. What every door works with.
#[derive(Clone)]
pub struct AuthorizedEngine {
    engine: Arc<dyn Engine>,
    services: Arc<Services>,
    caller: Arc<Caller>,
    /// What they showed; a secret.
    token: Option<Arc<str>>,
}

impl fmt::Debug for AuthorizedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizedEngine")
            .field("engine", &self.engine)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl AuthorizedEngine {
    /// Who asks.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Who asks, by what they showed, as it is now: for what goes on for long.
    ///
    /// # Errors
    /// `Unauthenticated` when the token was revoked, or has expired.
    pub fn authenticate_again(&self) -> Result<Arc<Caller>, ServiceError> {
        self.services.tokens.authenticate(self.token.as_deref())
    }

    /// What they may do.
    pub fn access(&self) -> Access {
        let caller = Arc::clone(&self.caller);
        if caller.has(ClusterRole::AllDatabasesAdmin) {
            // There is nothing that a role in one database would add.
            let access = Access::new(caller, &BTreeMap::new());
            return access.with_token(self.token.as_ref());
        }
        Access::new(caller, &self.engine.principals()).with_token(self.token.as_ref())
    }

    /// See [`Engine::identity`].
    pub fn identity(&self) -> &NodeIdentity {
        self.engine.identity()
    }

    /// See [`Engine::execute`]. What the statements may do is checked where they are understood.
    ///
    /// # Errors
    /// Also when the caller has no role in the request's database.
    pub async fn execute(&self, request: SqlRequest) -> Result<Answer, ServiceError> {
        if command::is_command(&request.sql) {
            return command::run(self, &request).await;
        }
        self.execute_sql(request).await
    }

    /// The same for what is SQL.
    pub(crate) async fn execute_sql(&self, request: SqlRequest) -> Result<Answer, ServiceError> {
        let request = self.authorize(request)?;
        self.engine.execute(request).await
    }

    /// See [`Engine::describe`].
    ///
    /// # Errors
    /// Also when the caller has no role in the request's database.
    pub async fn describe(&self, request: SqlRequest) -> Result<Description, ServiceError> {
        if command::is_command(&request.sql) {
            return command::describe(self, &request).await;
        }
        let request = self.authorize(request)?;
        self.engine.describe(request).await
    }

    fn authorize(&self, request: SqlRequest) -> Result<SqlRequest, ServiceError> {
        let access = self.access();
        if let Some(database) = &request.database {
            access.check_sees(database)?;
        }
        Ok(SqlRequest { access, ..request })
    }

    /// See [`Engine::ingest`]. Making a table of what comes also takes the right to create, and
    /// replacing one the right to drop.
    ///
    /// # Errors
    /// Also when the caller may not do that in the database.
    pub async fn ingest(&self, request: IngestRequest) -> Result<IngestReceipt, ServiceError> {
        let access = self.access();
        access.check(&request.database, Permission::Ingest)?;
        match request.table_mode {
            TableMode::Append => {}
            TableMode::Create | TableMode::CreateOrAppend => {
                access.check(&request.database, Permission::Create)?;
            }
            TableMode::Replace => access.check(&request.database, Permission::Administer)?,
        }
        // Whoever may read this machine's files could be its operator.
        if let IngestSource::Url(url) = &request.source
            && !["s3://", "az://", "gs://", "https://", "http://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
        {
            self.caller.check(ClusterPermission::ManageDatabases)?;
        }
        self.engine.ingest(request).await
    }

    /// See [`Engine::attach`].
    ///
    /// # Errors
    /// Also when the caller may not share.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        self.engine.attach(request).await
    }

    /// See [`Engine::detach`].
    ///
    /// # Errors
    /// Also when the caller may not share.
    pub async fn detach(&self, configuration: &str) -> Result<(), ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        self.engine.detach(configuration).await
    }

    /// See [`Engine::attachments`].
    ///
    /// # Errors
    /// When the caller may not share.
    pub fn attachments(&self) -> Result<Vec<Attachment>, ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        Ok(self.engine.attachments())
    }

    /// See [`Engine::databases`]: those that the caller may know of.
    pub fn databases(&self) -> Vec<DatabaseDescription> {
        let access = self.access();
        let all = self.engine.databases().into_iter();
        all.filter(|known| access.sees(&known.name)).collect()
    }

    /// See [`Engine::followers`].
    ///
    /// # Errors
    /// When the caller may not share.
    pub fn followers(&self) -> Result<Vec<FollowerDescription>, ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        Ok(self.engine.followers())
    }

    /// See [`Engine::detach_follower`].
    ///
    /// # Errors
    /// Also when the caller may not share.
    pub async fn detach_follower(
        &self,
        cluster: &str,
        configuration: &str,
    ) -> Result<(), ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        self.engine.detach_follower(cluster, configuration).await
    }

    /// See [`Engine::invite`].
    ///
    /// # Errors
    /// Also when the caller may not share.
    pub async fn invite(&self, request: InviteRequest) -> Result<Invitation, ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        self.engine.invite(request).await
    }

    /// See [`Engine::invitations`].
    ///
    /// # Errors
    /// When the caller may not share.
    pub fn invitations(&self) -> Result<Vec<InvitationDescription>, ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        Ok(self.engine.invitations())
    }

    /// See [`Engine::revoke_invitation`].
    ///
    /// # Errors
    /// Also when the caller may not share.
    pub async fn revoke_invitation(&self, id: &str) -> Result<(), ServiceError> {
        self.caller.check(ClusterPermission::Share)?;
        self.engine.revoke_invitation(id).await
    }

    /// See [`Engine::override_settings`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub async fn override_settings(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<(), ServiceError> {
        self.access().check(database, Permission::Administer)?;
        self.engine.override_settings(database, change).await
    }

    /// See [`Engine::preview_caching`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub(crate) fn preview_caching(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<CachingPreview, ServiceError> {
        self.access().check(database, Permission::Administer)?;
        self.engine.preview_caching(database, change)
    }

    /// See [`Engine::warm`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub(crate) fn warm(&self, database: &str, table: Option<&str>) -> Result<(), ServiceError> {
        self.access().check(database, Permission::Administer)?;
        self.engine.warm(database, table)
    }

    /// See [`Engine::garbage`].
    ///
    /// # Errors
    /// Also when the caller may not see what belongs to the whole cluster: it names followers.
    pub(crate) async fn garbage(&self) -> Result<Vec<GarbageBlocker>, ServiceError> {
        self.caller.check(ClusterPermission::Monitor)?;
        self.engine.garbage().await
    }

    /// See [`Engine::collect_garbage`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub(crate) async fn collect_garbage(
        &self,
        database: &str,
        what_if: bool,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        self.access().check(database, Permission::Administer)?;
        self.engine.collect_garbage(database, what_if).await
    }

    /// See [`Engine::undo_drop_table`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub(crate) async fn undo_drop_table(
        &self,
        undo: UndoDropTable,
    ) -> Result<Vec<RecoveredExtent>, ServiceError> {
        undo.access.check(&undo.database, Permission::Administer)?;
        self.engine.undo_drop_table(undo).await
    }

    /// See [`Engine::change_pin`].
    ///
    /// # Errors
    /// Also when the caller does not administer the database.
    pub(crate) async fn change_pin(&self, change: PinChange) -> Result<(), ServiceError> {
        change
            .access
            .check(&change.database, Permission::Administer)?;
        self.engine.change_pin(change).await
    }

    /// See [`Engine::pins`].
    ///
    /// # Errors
    /// Also when the caller may not see the database's metadata.
    pub(crate) fn pins(&self, database: &str) -> Result<Vec<PinnedVersion>, ServiceError> {
        self.access().check(database, Permission::ViewMetadata)?;
        Ok(self.engine.pins(database))
    }

    /// See [`Engine::versions`].
    ///
    /// # Errors
    /// Also when the caller may not see the database's metadata.
    pub(crate) async fn versions(
        &self,
        database: &str,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        self.access().check(database, Permission::ViewMetadata)?;
        self.engine.versions(database, count).await
    }

    /// See [`Engine::overrides`]: of the databases whose metadata the caller may see.
    pub fn overrides(&self) -> Vec<FollowerDatabase> {
        let access = self.access();
        let all = self.engine.overrides().into_iter();
        all.filter(|known| access.may(&known.database, Permission::ViewMetadata))
            .collect()
    }

    /// Who has which role in a database here.
    ///
    /// # Errors
    /// When the caller may not see its metadata.
    pub fn principals(&self, database: &str) -> Result<Vec<DatabasePrincipal>, ServiceError> {
        self.access().check(database, Permission::ViewMetadata)?;
        let mut all: BTreeMap<_, _> = self.engine.principals();
        all.remove(database)
            .ok_or_else(|| no_database(self.identity(), database))
    }

    /// The states of all databases. For commands, which show what the caller may see.
    pub(crate) fn states(&self) -> BTreeMap<String, DatabaseState> {
        self.engine.states()
    }

    /// The state of one database.
    pub(crate) fn state(&self, database: &str) -> Result<DatabaseState, ServiceError> {
        let mut states = self.engine.states();
        states
            .remove(database)
            .ok_or_else(|| self.no_database(database))
    }

    pub(crate) fn no_database(&self, database: &str) -> ServiceError {
        no_database(self.identity(), database)
    }

    /// See [`Engine::change`].
    pub(crate) async fn change(
        &self,
        change: DatabaseChange,
    ) -> Result<(Version, Digest), ServiceError> {
        change.access.check_sees(&change.database)?;
        self.engine.change(change).await
    }

    /// See [`Engine::cache`].
    pub(crate) fn cache(&self) -> Option<CacheDescription> {
        self.engine.cache()
    }

    /// See [`Engine::capacity`].
    pub(crate) fn capacity(&self) -> Vec<Capacity> {
        self.engine.capacity()
    }

    /// See [`Engine::readiness`]; for those who may see what belongs to the whole cluster.
    pub(crate) fn readiness(&self) -> Readiness {
        self.engine.readiness()
    }

    /// The node's tokens, without their secrets.
    pub(crate) fn tokens(&self) -> Vec<TokenRecord> {
        self.services.tokens.records()
    }

    /// Which commands ran lately.
    pub(crate) fn command_log(&self) -> &Arc<CommandLog> {
        &self.services.commands
    }

    /// The node's clock.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.services.commands.clock()
    }

    /// An id for something new.
    pub(crate) fn new_id(&self) -> Uuid {
        self.services.entropy.uuid()
    }

    /// The process's metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// When the caller may not see what belongs to the whole cluster: metrics name databases.
    pub fn metrics(&self) -> Result<String, ServiceError> {
        self.caller.check(ClusterPermission::Monitor)?;
        let databases = self.engine.databases();
        crate::metrics::note_lag(&databases);
        Ok(crate::metrics::render(&databases))
    }
}

fn no_database(node: &NodeIdentity, database: &str) -> ServiceError {
    ServiceError::new(
        crate::ErrorKind::NotFound,
        "database_not_found",
        format!(
            "cluster '{}' has no database '{database}', owned or followed",
            node.cluster
        ),
    )
}
