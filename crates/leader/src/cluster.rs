//! The leader's cluster: which databases it owns, their writers, and who follows them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use slipstream_catalog::{
    CatalogError, ClusterOp, ClusterState, ClusterWriter, CommitError, Committed, DatabaseOp,
    DatabaseReader, DatabaseState, DatabaseWriter, FollowerRecord, RemovedExtent, WriterContext,
};
use slipstream_frontend::{Caller, ClusterPermission, ErrorKind, ServiceError};
use slipstream_model::{
    Clock, ClusterName, DatabaseId, DatabaseName, EntityKind, Entropy, Timestamp,
};
use slipstream_proto::sync::FollowerIdentity;
use slipstream_storage::BucketWriter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::ingest::ExtentIds;
use crate::leases::LeaseTable;
use crate::readers::Readers;

/// How many commits lie between two checkpoints: a reader that starts has at most this many
/// small objects to read after the checkpoint.
pub const CHECKPOINT_EVERY: u64 = 64;
/// How often a leader that has nothing to commit looks whether another one has taken over. Until
/// it commits or looks, a stale leader does no harm: it only sends heartbeats of an old version.
const FENCE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Looks at databases at one time.
const LOOKS_MAX: usize = 8;

/// How often a database is opened that the bucket does not give, and the pause after the first time;
/// each further one doubles it. A bucket that fails for half a minute is not there; one that fails
/// for a moment must not hold a database until the next start.
const OPEN_ATTEMPTS_MAX: u32 = 8;
const OPEN_BACKOFF: Duration = Duration::from_millis(200);

/// A client waits this long for a commit whose outcome the store does not tell. The writer itself
/// goes on until it knows; nothing else is committed before.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// The code of a commit that was refused because its ingest was committed before.
pub(crate) const INGESTED_BEFORE: &str = "ingested_before";
/// The code of one that was refused because the table has too many streamed rows.
pub(crate) const STREAMED_ROWS_FULL: &str = "streamed_rows_full";
/// The code of one that was refused because of a tag that the table has.
pub(crate) const TAG_EXISTS: &str = "tag_exists";

/// What a cluster is opened with.
#[derive(Debug, Clone)]
pub struct ClusterContext {
    /// The cluster's name.
    pub name: ClusterName,
    /// Its region.
    pub location: String,
    /// The bucket it writes.
    pub bucket: BucketWriter,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub entropy: Entropy,
    /// How long a follower's lease lives without being renewed.
    pub lease_ttl: Duration,
    /// Ends every task when the node stops.
    pub shutdown: CancellationToken,
    /// Holds those tasks, so that a stopping node can wait for them.
    pub tasks: TaskTracker,
}

/// One database that the cluster owns.
#[derive(Debug, Clone)]
enum Database {
    /// It can be read and written.
    Open(DatabaseWriter),
    /// Its log is damaged: it stands still at the last good version, if there is one.
    Held {
        state: Option<Box<DatabaseState>>,
        reason: String,
    },
}

/// A cluster that leads.
pub struct Cluster {
    context: ClusterContext,
    catalog: ClusterWriter,
    databases: RwLock<BTreeMap<DatabaseId, Database>>,
    /// Held while a database that was made is opened, or one is dropped: to open one twice fences the first.
    opening: tokio::sync::Mutex<()>,
    extent_ids: Mutex<HashMap<DatabaseId, ExtentIds>>,
    leases: LeaseTable,
    readers: Readers,
    opened: Opened,
}

/// When the cluster was opened, by both of its clock's times.
#[derive(Debug, Clone, Copy)]
struct Opened {
    now: Timestamp,
    elapsed: Duration,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.context.name)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens the cluster's catalog and all its databases for writing. From here on an older
    /// leader of the same cluster is fenced.
    ///
    /// A database whose log is damaged does not keep the others from opening.
    ///
    /// # Errors
    /// When the catalog itself cannot be opened.
    pub async fn open(context: ClusterContext) -> Result<Arc<Self>, CatalogError> {
        let writer = writer_context(&context);
        let catalog = ClusterWriter::open(context.bucket.clone(), writer).await?;
        let state = catalog.state();
        let opening = state.databases().map(|(_, id)| open_database(&context, id));
        let databases = join_all(opening).await.into_iter().collect();
        let leases = LeaseTable::new(Arc::clone(&context.clock), context.lease_ttl);
        let opened = Opened {
            now: context.clock.now(),
            elapsed: context.clock.elapsed(),
        };
        let cluster = Arc::new(Self {
            context,
            catalog,
            databases: RwLock::new(databases),
            opening: tokio::sync::Mutex::default(),
            extent_ids: Mutex::default(),
            leases,
            readers: Readers::default(),
            opened,
        });
        cluster
            .context
            .tasks
            .spawn(watch_for_successors(Arc::clone(&cluster)));
        cluster
            .context
            .tasks
            .spawn(watch_for_standstills(Arc::clone(&cluster)));
        Ok(cluster)
    }

    /// The cluster's name.
    pub fn name(&self) -> &ClusterName {
        &self.context.name
    }

    /// The cluster's region.
    pub fn location(&self) -> &str {
        &self.context.location
    }

    /// The bucket it writes.
    pub fn bucket(&self) -> &BucketWriter {
        &self.context.bucket
    }

    /// Where the time comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.context.clock
    }

    /// Where chance comes from.
    pub fn entropy(&self) -> &Entropy {
        &self.context.entropy
    }

    /// Who reads what.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// What the node's own queries read.
    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The time now, unless the clock was put forward while the node runs: then what it would be.
    /// Nobody loses a file because somebody corrected a clock.
    pub(crate) fn careful_now(&self) -> Timestamp {
        let since = self.clock().elapsed().saturating_sub(self.opened.elapsed);
        self.clock().now().min(self.opened.now.plus(since))
    }

    /// Fires when the node stops.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.context.shutdown
    }

    /// Tasks that a stopping node waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.context.tasks
    }

    /// Databases and followers, as committed.
    pub fn catalog(&self) -> ClusterState {
        self.catalog.state()
    }

    /// Refuses to speak of a catalog that another leader writes by now.
    ///
    /// # Errors
    /// `Fenced`.
    pub(crate) fn check_not_fenced(&self) -> Result<(), ServiceError> {
        if !self.catalog.is_fenced() {
            return Ok(());
        }
        Err(ServiceError::new(
            ErrorKind::Fenced,
            "fenced",
            format!(
                "this node of cluster '{}' was fenced: another leader writes its catalog",
                self.name()
            ),
        ))
    }

    /// Refuses to speak to followers while the bucket is out of sight: another leader may write there by
    /// now, and this one would not know.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) fn check_sight(&self) -> Result<(), ServiceError> {
        if self.leases.sees_bucket() {
            return Ok(());
        }
        Err(ServiceError::new(
            ErrorKind::Unavailable,
            "storage_unavailable",
            format!(
                "the leader of cluster '{}' does not reach the bucket, and cannot know whether it \
                 still leads",
                self.name()
            ),
        ))
    }

    /// The id of a database.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn database_id(&self, name: &str) -> Result<DatabaseId, ServiceError> {
        self.catalog().database(name).ok_or_else(|| {
            ServiceError::new(
                ErrorKind::NotFound,
                "database_not_found",
                format!(
                    "database '{name}' does not exist in cluster '{}': create it with CREATE \
                     DATABASE, or see SELECT * FROM slipstream.databases",
                    self.name()
                ),
            )
        })
    }

    /// The name of a database.
    pub fn database_name(&self, id: DatabaseId) -> Option<String> {
        self.catalog().database_name(id).map(ToString::to_string)
    }

    /// The writer of a database.
    ///
    /// # Errors
    /// When there is none, or it stands still because its log is damaged.
    pub fn writer(&self, id: DatabaseId) -> Result<DatabaseWriter, ServiceError> {
        match self.databases.read().get(&id) {
            Some(Database::Open(writer)) => Ok(writer.clone()),
            Some(Database::Held { reason, .. }) => Err(ServiceError::new(
                ErrorKind::DataCorrupt,
                "database_suspended",
                format!("the database stands still and takes no writes: {reason}"),
            )),
            None => Err(ServiceError::new(
                ErrorKind::NotFound,
                "database_not_found",
                format!("there is no database with id {id}"),
            )),
        }
    }

    /// The ids that extents of a database get.
    ///
    /// # Errors
    /// As [`Cluster::writer`].
    pub fn extent_ids(&self, id: DatabaseId) -> Result<ExtentIds, ServiceError> {
        let writer = self.writer(id)?;
        let mut all = self.extent_ids.lock();
        let ids = all.entry(id).or_insert_with(|| {
            let context = &self.context;
            let (clock, entropy) = (Arc::clone(&context.clock), context.entropy.clone());
            ExtentIds::new(context.bucket.clone(), clock, entropy, id, writer.epoch())
        });
        Ok(ids.clone())
    }

    /// The writers of the databases that can be written, by name.
    pub(crate) fn writers(&self) -> Vec<(DatabaseName, DatabaseWriter)> {
        let databases = self.databases.read();
        let writer = |id: DatabaseId| match databases.get(&id)? {
            Database::Open(writer) if !writer.is_fenced() => Some(writer.clone()),
            Database::Open(_) | Database::Held { .. } => None,
        };
        let catalog = self.catalog();
        catalog
            .databases()
            .filter_map(|(name, id)| Some((name.clone(), writer(id)?)))
            .collect()
    }

    /// Every database that can be read, by name: the newest committed states.
    pub fn states(&self) -> BTreeMap<String, DatabaseState> {
        let databases = self.databases.read();
        let state = |id: DatabaseId| match databases.get(&id)? {
            Database::Open(writer) => Some(writer.state()),
            Database::Held { state, .. } => state.as_deref().cloned(),
        };
        let catalog = self.catalog();
        catalog
            .databases()
            .filter_map(|(name, id)| Some((name.to_string(), state(id)?)))
            .collect()
    }

    /// Why a database stands still, when it does.
    pub fn suspension(&self, id: DatabaseId) -> Option<String> {
        match self.databases.read().get(&id)? {
            Database::Open(writer) if writer.is_fenced() => {
                Some("fenced: another leader has opened this database".to_owned())
            }
            Database::Open(_) => None,
            Database::Held { reason, .. } => Some(reason.clone()),
        }
    }

    /// The configuration of a follower cluster, when it is attached to a database and the caller
    /// may speak for it.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not, or no longer; `PERMISSION_DENIED` when somebody else attached
    /// it.
    pub(crate) fn attached(
        &self,
        follower: &FollowerIdentity,
        database: DatabaseId,
        caller: &Caller,
    ) -> Result<FollowerRecord, Status> {
        let catalog = self.catalog();
        let (cluster, configuration) = (&follower.cluster, &follower.configuration);
        let mut attached = catalog.followers_of(database).filter(|known| {
            known.cluster.as_str() == cluster && known.configuration == *configuration
        });
        let record = attached.next().ok_or_else(|| {
            Status::not_found(format!(
                "configuration '{configuration}' of cluster '{cluster}' is not attached to this \
                 database of cluster '{}'",
                self.name()
            ))
        })?;
        check_speaks_for(caller, record)?;
        Ok(record.clone())
    }

    /// Commits a change to the cluster's catalog.
    ///
    /// # Errors
    /// When the change is refused, or this leader was fenced.
    pub async fn commit(&self, op: ClusterOp) -> Result<(), ServiceError> {
        let committing = tokio::time::timeout(COMMIT_PATIENCE, self.catalog.commit(vec![op]));
        committing
            .await
            .map_err(|_| outcome_unknown())?
            .map(drop)
            .map_err(commit_error)
    }

    /// Creates a database; `false` when it was there and that is fine.
    ///
    /// # Errors
    /// When the name is taken, or this leader was fenced.
    pub async fn create_database(
        self: &Arc<Self>,
        name: DatabaseName,
        if_not_exists: bool,
    ) -> Result<bool, ServiceError> {
        let cluster = Arc::clone(self);
        // In a task of its own: what is in the catalog is opened, whether anybody waits for it or not.
        let making = async move { cluster.make_database(name, if_not_exists).await };
        match tokio::time::timeout(COMMIT_PATIENCE, self.tasks().spawn(making)).await {
            Ok(Ok(made)) => made,
            // The runtime goes away, or the task is broken.
            Ok(Err(_)) | Err(_) => Err(outcome_unknown()),
        }
    }

    async fn make_database(
        &self,
        name: DatabaseName,
        if_not_exists: bool,
    ) -> Result<bool, ServiceError> {
        let id = DatabaseId::new(self.entropy().uuid());
        let create = ClusterOp::CreateDatabase {
            id,
            name: name.clone(),
            if_not_exists,
        };
        let committed = self.catalog.commit(vec![create]).await;
        let _opening = self.opening.lock().await;
        // One that was refused may be there from an attempt whose end this leader did not see.
        if let Some(found) = self.catalog().database(name.as_str())
            && !self.databases.read().contains_key(&found)
        {
            let (found, database) = open_database(&self.context, found).await;
            self.databases.write().insert(found, database);
        }
        committed.map_err(commit_error)?;
        Ok(self.database_id(name.as_str())? == id)
    }

    /// Drops a database. Its objects stay in the bucket until garbage collection.
    ///
    /// # Errors
    /// When there is none, when it is followed, or when this leader was fenced.
    pub async fn drop_database(
        &self,
        name: DatabaseName,
        if_exists: bool,
    ) -> Result<bool, ServiceError> {
        let Some(id) = self.catalog().database(name.as_str()) else {
            if if_exists {
                return Ok(false);
            }
            return self.database_id(name.as_str()).map(|_| false);
        };
        self.commit(ClusterOp::DropDatabase { name, if_exists })
            .await?;
        let _opening = self.opening.lock().await;
        let dropped = self.databases.write().remove(&id);
        self.extent_ids.lock().remove(&id);
        if let Some(Database::Open(writer)) = dropped {
            writer.close().await;
        }
        Ok(true)
    }

    /// Commits changes to one database.
    ///
    /// # Errors
    /// When they are refused, or this leader was fenced.
    pub async fn commit_to(
        &self,
        database: DatabaseId,
        ops: Vec<DatabaseOp>,
    ) -> Result<Committed, ServiceError> {
        let writer = self.writer(database)?;
        let uploaded = uploaded(&ops);
        let committing = tokio::time::timeout(COMMIT_PATIENCE, writer.commit(ops));
        let committed = committing.await.map_err(|_| outcome_unknown())?;
        if committed.is_ok() {
            self.leases.saw_bucket();
        }
        if let Ok(ids) = self.extent_ids(database) {
            match &committed {
                Ok(_) => ids.settle(uploaded.iter().map(|file| file.id)),
                Err(CommitError::Rejected(_)) => ids.abandon(uploaded),
                Err(_) => {}
            }
        }
        committed.map_err(commit_error)
    }

    /// Notes that what operations put into tables will not be committed.
    pub(crate) fn abandon(&self, database: DatabaseId, ops: &[DatabaseOp]) {
        // Of a database that is gone meanwhile everything is deleted.
        if let Ok(ids) = self.extent_ids(database) {
            ids.abandon(uploaded(ops));
        }
    }

    /// Opens a database that was dropped, so that whoever had it open commits no more. The writer is
    /// to be closed soon.
    pub(crate) async fn open_dropped(
        &self,
        id: DatabaseId,
    ) -> Result<DatabaseWriter, CatalogError> {
        let bucket = self.context.bucket.clone();
        DatabaseWriter::open(bucket, id, writer_context(&self.context)).await
    }

    /// Whether this is the leader of the cluster, as the bucket says now. `false` also when that
    /// cannot be learned.
    pub(crate) async fn is_newest(&self) -> bool {
        self.catalog.is_newest().await
    }

    /// Commits changes to one database. `held` lives until it is known what became of them, also
    /// when nobody waits for that any more.
    ///
    /// # Errors
    /// When they are refused, or this leader was fenced.
    pub(crate) async fn commit_holding(
        &self,
        database: DatabaseId,
        ops: Vec<DatabaseOp>,
        held: impl Send + 'static,
    ) -> Result<(), ServiceError> {
        let writer = self.writer(database)?;
        let committing = self.tasks().spawn(async move {
            let committed = writer.commit(ops).await;
            drop(held);
            committed
        });
        let committed = tokio::time::timeout(COMMIT_PATIENCE, committing).await;
        match committed {
            Ok(Ok(committed)) => committed.map(drop).map_err(commit_error),
            // The runtime goes away, or the task is broken.
            Ok(Err(_)) | Err(_) => Err(outcome_unknown()),
        }
    }

    /// Ends what is queued, writes checkpoints, and stops.
    pub async fn close(&self) {
        let databases: Vec<_> = self.databases.read().values().cloned().collect();
        let closing = databases.iter().filter_map(|database| match database {
            Database::Open(writer) => Some(writer.close()),
            Database::Held { .. } => None,
        });
        join_all(closing).await;
        self.catalog.close().await;
    }
}

/// Refuses somebody who speaks for a follower that is not theirs. Whoever may share speaks for
/// all.
///
/// # Errors
/// `Forbidden`.
pub(crate) fn check_speaks_for(
    caller: &Caller,
    record: &FollowerRecord,
) -> Result<(), ServiceError> {
    if record.principal.as_ref() == Some(&caller.principal) || caller.may(ClusterPermission::Share)
    {
        return Ok(());
    }
    let message = format!(
        "configuration '{}' of cluster '{}' was attached by another principal than '{}': use that \
         cluster's own token, or one with the cluster role Contributor",
        record.configuration, record.cluster, caller.principal
    );
    Err(ServiceError::new(
        ErrorKind::Forbidden,
        "forbidden",
        message,
    ))
}

fn writer_context(context: &ClusterContext) -> WriterContext {
    WriterContext {
        writer: context.name.clone(),
        clock: Arc::clone(&context.clock),
        entropy: context.entropy.clone(),
        checkpoint_every: CHECKPOINT_EVERY,
    }
}

/// The files that operations put into tables.
fn uploaded(ops: &[DatabaseOp]) -> Vec<RemovedExtent> {
    let added = ops.iter().filter_map(|op| match op {
        DatabaseOp::AddExtents { extents, .. } => Some(extents),
        _ => None,
    });
    let files = added.flatten().map(|extent| RemovedExtent {
        id: extent.id,
        size_bytes: extent.size_bytes,
    });
    files.collect()
}

async fn open_database(context: &ClusterContext, id: DatabaseId) -> (DatabaseId, Database) {
    let mut pause = OPEN_BACKOFF;
    let mut attempts_left = OPEN_ATTEMPTS_MAX;
    let opened = loop {
        attempts_left -= 1;
        let open = DatabaseWriter::open(context.bucket.clone(), id, writer_context(context));
        match open.await {
            Err(CatalogError::Storage(error)) if error.is_retryable() && attempts_left > 0 => {
                tracing::warn!(database = %id, %error, "the database is opened again");
            }
            opened => break opened,
        }
        context.clock.sleep(pause).await;
        pause *= 2;
    };
    let database = match opened {
        Ok(writer) => Database::Open(writer),
        Err(error) => {
            let reason = error.to_string();
            tracing::error!(database = %id, %reason, "the database stands still");
            Database::Held {
                state: last_good(context, id).await.map(Box::new),
                reason,
            }
        }
    };
    (id, database)
}

/// What can still be read of a database that cannot be written.
async fn last_good(context: &ClusterContext, id: DatabaseId) -> Option<DatabaseState> {
    let reader = DatabaseReader::new(context.bucket.reader().clone(), id);
    match reader.load().await {
        Ok(loaded) => Some(loaded.state),
        Err(error) => {
            tracing::error!(database = %id, %error, "the database cannot be read either");
            None
        }
    }
}

/// A leader that commits nothing would never notice that it was replaced. This looks.
async fn watch_for_successors(cluster: Arc<Cluster>) {
    let shutdown = cluster.shutdown().clone();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = cluster.clock().sleep(FENCE_CHECK_INTERVAL) => {}
        }
        // Followers ask for the catalog too, and must not hear of an old one for long. One look that
        // takes long must not keep the others from saying that the bucket is there.
        let catalog = async {
            if let Ok(Some(_)) = cluster.catalog.check_fenced().await {
                cluster.leases.saw_bucket();
            }
        };
        let databases: Vec<_> = cluster.databases.read().values().cloned().collect();
        let looks = databases.into_iter();
        let looks: Vec<_> = looks
            .map(|database| look_at(Arc::clone(&cluster), database))
            .collect();
        let databases = stream::iter(looks)
            .buffer_unordered(LOOKS_MAX)
            .collect::<Vec<()>>();
        futures::join!(catalog, databases);
    }
}

async fn look_at(cluster: Arc<Cluster>, database: Database) {
    let Database::Open(writer) = database else {
        return;
    };
    let Ok(Some(is_fenced)) = writer.check_fenced().await else {
        return;
    };
    cluster.leases.saw_bucket();
    if is_fenced {
        tracing::error!(
            cluster = %cluster.name(),
            "another leader has opened this cluster's databases: this one refuses writes"
        );
    }
}

/// Lets the leases know that time passes, so that they notice when it did without this process.
async fn watch_for_standstills(cluster: Arc<Cluster>) {
    let shutdown = cluster.shutdown().clone();
    loop {
        cluster.leases.until_known();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = cluster.clock().sleep(cluster.leases.look_interval()) => {}
        }
    }
}

fn outcome_unknown() -> ServiceError {
    ServiceError::new(
        ErrorKind::Unavailable,
        "outcome_unknown",
        format!(
            "the bucket does not answer: after {COMMIT_PATIENCE:?} it is not known whether this was \
             committed. Look before you send it again, or send it with the same ingest id"
        ),
    )
}

/// What a refused or failed commit means to a client.
pub(crate) fn commit_error(error: CommitError) -> ServiceError {
    use slipstream_catalog::OpError;
    let mut message = error.to_string();
    if let CommitError::Rejected(OpError::TagsChanged { .. }) = &error {
        message.push_str(" meanwhile, and nothing was changed: send the request again");
    }
    if let CommitError::Rejected(OpError::ExtentNotFound { .. }) = &error {
        message.push_str(
            ". It was merged, moved or removed meanwhile, and nothing was changed: send the request \
             again",
        );
    }
    let (kind, code) = match &error {
        CommitError::Fenced { .. } => (ErrorKind::Fenced, "fenced"),
        CommitError::Closed => (ErrorKind::Unavailable, "unavailable"),
        CommitError::Corrupt(_) => (ErrorKind::DataCorrupt, "database_suspended"),
        CommitError::Rejected(rejection) => match rejection {
            OpError::TableExists(_) => (ErrorKind::AlreadyExists, "table_exists"),
            OpError::DatabaseExists(_) => (ErrorKind::AlreadyExists, "database_exists"),
            OpError::ColumnNotFound { .. } => (ErrorKind::NotFound, "column_not_found"),
            OpError::TableNotFound(_) => (ErrorKind::NotFound, "table_not_found"),
            OpError::EntityExists(EntityKind::Function, _) => {
                (ErrorKind::AlreadyExists, "function_exists")
            }
            OpError::EntityExists(..) => (ErrorKind::AlreadyExists, "table_exists"),
            OpError::EntityNotFound(EntityKind::Function, _) => {
                (ErrorKind::NotFound, "function_not_found")
            }
            OpError::EntityNotFound(..) => (ErrorKind::NotFound, "table_not_found"),
            OpError::DatabaseNotFound(_) => (ErrorKind::NotFound, "database_not_found"),
            OpError::DatabaseFollowed { .. } => (ErrorKind::Conflict, "database_followed"),
            OpError::SchemaChanged { .. } | OpError::TableDropped(_) => {
                (ErrorKind::Conflict, "schema_changed")
            }
            OpError::ExtentNotFound { .. } | OpError::TagsChanged { .. } => {
                (ErrorKind::Conflict, "extents_changed")
            }
            OpError::IngestedBefore { .. } => (ErrorKind::Conflict, INGESTED_BEFORE),
            OpError::StreamedRowsFull(_) => (ErrorKind::Conflict, STREAMED_ROWS_FULL),
            OpError::TagExists { .. } => (ErrorKind::Conflict, TAG_EXISTS),
            OpError::NotMovable { .. } => (ErrorKind::Conflict, "schema_differs"),
            OpError::ConfigurationExists { .. } => (ErrorKind::AlreadyExists, "already_attached"),
            OpError::ConfigurationNotFound { .. } => {
                (ErrorKind::NotFound, "configuration_not_found")
            }
            OpError::InvitationNotFound(_) => (ErrorKind::NotFound, "invitation_not_found"),
            OpError::PinExists(..) => (ErrorKind::AlreadyExists, "pin_exists"),
            OpError::PinNotFound(_) => (ErrorKind::NotFound, "pin_not_found"),
            OpError::NoSuchVersion { .. } => (ErrorKind::NotFound, "version_not_found"),
            _ => (ErrorKind::InvalidArgument, "invalid_argument"),
        },
        _ => (ErrorKind::Unavailable, "storage_unavailable"),
    };
    ServiceError::new(kind, code, message)
}
