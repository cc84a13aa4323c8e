//! The middle of a node: what every door hands its requests to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use slipstream_catalog::{DatabaseOp, DatabaseState, VersionSummary};
use slipstream_model::{
    ClusterName, DatabasePrincipal, Digest, ExtentId, Freshness, FreshnessRequirement, IngestId,
    OverrideChange, PinName, PrincipalName, Timestamp, Version,
};
use slipstream_query::{
    DataScope, OlderState, OlderVersions, Parameters, PointInTime, QueryStream, ReadStatistics,
    Replay, SessionIdentity,
};

use crate::{
    Access, AttachRequest, Attachment, DatabaseDescription, ErrorKind, FollowerDatabase,
    FollowerDescription, Invitation, InvitationDescription, InviteRequest, Permission,
    ServiceError,
};

/// A node: leader or follower. Doors authenticate, translate and stream; what a request means is
/// decided behind this trait.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Who this node is.
    fn identity(&self) -> &NodeIdentity;

    /// Runs SQL: one query, or on a leader also one transaction of several statements.
    async fn execute(&self, request: SqlRequest) -> Result<Answer, ServiceError>;

    /// Plans SQL without running it, for prepared statements.
    async fn describe(&self, request: SqlRequest) -> Result<Description, ServiceError>;

    /// Takes rows in. All of them become visible in one commit, or none.
    async fn ingest(&self, request: IngestRequest) -> Result<IngestReceipt, ServiceError>;

    /// Puts an attached database configuration: starts following, or changes what is followed.
    /// Idempotent. A leader that cannot be asked leaves a configuration that is there as it is.
    async fn attach(&self, request: AttachRequest) -> Result<Attachment, ServiceError>;

    /// Stops following. The leader's data stays as it is.
    async fn detach(&self, configuration: &str) -> Result<(), ServiceError>;

    /// The attached database configurations of this node.
    fn attachments(&self) -> Vec<Attachment>;

    /// The databases of this node, owned and followed.
    fn databases(&self) -> Vec<DatabaseDescription> {
        Vec::new()
    }

    /// Who follows databases of this node.
    fn followers(&self) -> Vec<FollowerDescription> {
        Vec::new()
    }

    /// Makes a follower cluster stop following: the leader's side of detaching. Idempotent.
    async fn detach_follower(
        &self,
        cluster: &str,
        configuration: &str,
    ) -> Result<(), ServiceError> {
        let _ = (cluster, configuration);
        Err(owns_nothing(self.identity()))
    }

    /// Lets whoever has the answer's token attach a database of this node.
    async fn invite(&self, request: InviteRequest) -> Result<Invitation, ServiceError> {
        let _ = request;
        Err(owns_nothing(self.identity()))
    }

    /// The invitations that were not revoked.
    fn invitations(&self) -> Vec<InvitationDescription> {
        Vec::new()
    }

    /// Takes an invitation back. Followers that used it stay attached.
    async fn revoke_invitation(&self, id: &str) -> Result<(), ServiceError> {
        let _ = id;
        Err(owns_nothing(self.identity()))
    }

    /// Changes this node's own settings for a followed database.
    async fn override_settings(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<(), ServiceError> {
        let _ = (database, change);
        Err(follows_nothing(self.identity()))
    }

    /// The followed databases of this node with their own settings.
    fn overrides(&self) -> Vec<FollowerDatabase> {
        Vec::new()
    }

    /// The states of the databases that can be read, by their names here.
    fn states(&self) -> BTreeMap<String, DatabaseState> {
        BTreeMap::new()
    }

    /// Changes a database of this node: all of it in one commit, or nothing. The answer is the
    /// version from which on the changes hold, and its digest.
    async fn change(&self, change: DatabaseChange) -> Result<(Version, Digest), ServiceError> {
        let _ = change;
        Err(owns_nothing(self.identity()))
    }

    /// The hot cache of the node, when it has one.
    fn cache(&self) -> Option<CacheDescription> {
        None
    }

    /// What a change of a followed database's caching policy would do; nothing is changed.
    ///
    /// # Errors
    /// When the database is not followed, or the node has no cache.
    fn preview_caching(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<CachingPreview, ServiceError> {
        let _ = (database, change);
        Err(follows_nothing(self.identity()))
    }

    /// Fetches what is hot of a followed database, or of one of its tables, before anything else.
    ///
    /// # Errors
    /// When the database is not followed, has no such table, or the node has no cache.
    fn warm(&self, database: &str, table: Option<&str>) -> Result<(), ServiceError> {
        let _ = (database, table);
        Err(follows_nothing(self.identity()))
    }

    /// What keeps the files of removed extents in the bucket, of all databases that the node owns.
    async fn garbage(&self) -> Result<Vec<GarbageBlocker>, ServiceError> {
        Ok(Vec::new())
    }

    /// Deletes the files of removed extents that nobody reads any more; with `what_if`, only says
    /// which those are.
    async fn collect_garbage(
        &self,
        database: &str,
        what_if: bool,
    ) -> Result<Vec<CollectedExtent>, ServiceError> {
        let _ = (database, what_if);
        Err(owns_nothing(self.identity()))
    }

    /// The newest versions of a database, newest first, at most so many: what their commits say of
    /// themselves.
    async fn versions(
        &self,
        database: &str,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        let _ = (database, count);
        Ok(Vec::new())
    }

    /// Brings a dropped table back, with its rows and policies, in one commit.
    async fn undo_drop_table(
        &self,
        undo: UndoDropTable,
    ) -> Result<Vec<RecoveredExtent>, ServiceError> {
        let _ = undo;
        Err(owns_nothing(self.identity()))
    }

    /// Keeps everything that a version of a database holds, or lets go of it. What a leader keeps
    /// it keeps for everybody; a follower keeps it by its lease.
    async fn change_pin(&self, change: PinChange) -> Result<(), ServiceError> {
        let _ = change;
        Err(owns_nothing(self.identity()))
    }

    /// The versions of a database that are kept: those of its leader, and on a follower its own.
    fn pins(&self, database: &str) -> Vec<PinnedVersion> {
        let _ = database;
        Vec::new()
    }

    /// What the node can do at one time, and how much of that it does.
    fn capacity(&self) -> Vec<Capacity> {
        Vec::new()
    }

    /// Who has which role in each database of the node: on a follower, what its own settings
    /// make of what the leader says.
    fn principals(&self) -> BTreeMap<String, Vec<DatabasePrincipal>> {
        BTreeMap::new()
    }

    /// Whether the node can answer queries.
    fn readiness(&self) -> Readiness;
}

fn owns_nothing(node: &NodeIdentity) -> ServiceError {
    ServiceError::new(
        ErrorKind::Unsupported,
        "not_a_leader",
        format!(
            "cluster '{}' is a follower and owns no databases",
            node.cluster
        ),
    )
}

fn follows_nothing(node: &NodeIdentity) -> ServiceError {
    ServiceError::new(
        ErrorKind::Unsupported,
        "not_a_follower",
        format!("cluster '{}' does not follow databases", node.cluster),
    )
}

/// A change of a database, short of rows.
#[derive(Debug)]
pub struct DatabaseChange {
    /// The database.
    pub database: String,
    /// What is to be done, in order.
    pub ops: Vec<DatabaseOp>,
    /// Who asks, and what they may do.
    pub access: Access,
}

/// A dropped table that is to come back.
#[derive(Debug)]
pub struct UndoDropTable {
    /// The database.
    pub database: String,
    /// What the table was called.
    pub table: String,
    /// What it is to be called; `None`: the same.
    pub new_name: Option<String>,
    /// The version that dropped it, or the last one that had it.
    pub version: Version,
    /// Who asks, and what they may do.
    pub access: Access,
}

/// An extent that is in a table again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredExtent {
    /// The extent.
    pub id: ExtentId,
    /// Its rows.
    pub row_count: u64,
}

/// A version of a database that is to be kept, or not any more.
#[derive(Debug)]
pub struct PinChange {
    /// The database.
    pub database: String,
    /// What the pin is called.
    pub name: PinName,
    /// The version; `None`: there is no such pin from now on.
    pub version: Option<Version>,
    /// Who asks, and what they may do.
    pub access: Access,
}

/// A version of a database that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedVersion {
    /// What the pin is called.
    pub name: PinName,
    /// The version.
    pub version: Version,
    /// The cluster where it was pinned.
    pub cluster: String,
}

/// Why the file of a removed extent is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GarbageReason {
    /// It was removed not long enough ago.
    Grace,
    /// The leader has not run for long enough to know who reads.
    Restart,
    /// A follower's lease names a version that has it.
    Lease,
    /// A query of the leader's own reads a version that has it.
    Query,
    /// A pinned version has it.
    Pin,
    /// It was moved, and another table has it.
    InTable,
    /// It was uploaded and never committed, not long enough ago.
    Orphan,
    /// Its whole database was dropped, not long enough ago, or somebody reads it.
    Dropped,
    /// Nothing keeps it: the next round deletes it.
    Due,
}

impl GarbageReason {
    /// Every one, for metrics.
    pub const ALL: [Self; 9] = [
        Self::Grace,
        Self::Restart,
        Self::Lease,
        Self::Query,
        Self::Pin,
        Self::InTable,
        Self::Orphan,
        Self::Dropped,
        Self::Due,
    ];

    /// As people and metrics see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grace => "Grace",
            Self::Restart => "Restart",
            Self::Lease => "Lease",
            Self::Query => "Query",
            Self::Pin => "Pin",
            Self::InTable => "InTable",
            Self::Orphan => "Orphan",
            Self::Dropped => "Dropped",
            Self::Due => "Due",
        }
    }
}

/// What keeps files of removed extents in the bucket, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageBlocker {
    /// The database.
    pub database: String,
    /// Why they are kept.
    pub reason: GarbageReason,
    /// Who keeps them, where somebody does: a follower's node, a version.
    pub holder: String,
    /// How many they are; 0 of a database that was dropped, whose extents nobody counts.
    pub extents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest version that removed one of them. Of orphans, that since which their writer
    /// commits no more; of a database that was dropped, that of the cluster's catalog.
    pub oldest_version: Version,
    /// When that was committed.
    pub oldest_removed_at: Timestamp,
    /// Until when the first of them is kept at least, where that is known.
    pub until: Option<Timestamp>,
}

/// Why a file was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollectedReason {
    /// A commit took the extent out of its table.
    Removed,
    /// It was uploaded, and no commit ever named it.
    Orphan,
}

impl CollectedReason {
    /// As people see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "Removed",
            Self::Orphan => "Orphan",
        }
    }
}

/// An extent whose file was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedExtent {
    /// The extent.
    pub id: ExtentId,
    /// Why.
    pub reason: CollectedReason,
    /// The table that it left; empty for an orphan.
    pub table: String,
    /// The version that removed it; of an orphan, that since which its writer commits no more.
    pub removed_version: Version,
    /// When that was committed; of an orphan that this leader's own ingest left, when that failed.
    pub removed_at: Timestamp,
    /// Bytes of its file.
    pub size_bytes: u64,
}

/// How full a node's cache is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheDescription {
    /// Bytes of disk that it may use, for hot extents and cold blocks together.
    pub disk_bytes: u64,
    /// All hot extents together.
    pub hot: HotSet,
    /// Bytes that are hot and do not fit.
    pub shortfall_bytes: u64,
    /// Extents that are to be fetched, those that are being fetched included.
    pub waiting_extents: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Bytes that are being fetched now.
    pub in_flight_bytes: u64,
    /// Bytes that were fetched since the node started.
    pub fetched_bytes: u64,
    /// Fetches that failed since then.
    pub failures: u64,
    /// Bytes of memory that pieces of hot extents may take.
    pub memory_bytes_max: u64,
    /// Bytes of memory that they take.
    pub memory_bytes: u64,
    /// Bytes of disk that blocks of cold extents may take.
    pub cold_disk_bytes: u64,
    /// The hot extents of each table that has any, by database and table.
    pub tables: BTreeMap<(String, String), HotSet>,
}

/// What a change of a caching policy would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CachingPreview {
    /// Extents that would be fetched.
    pub fetch_extents: u64,
    /// Their bytes.
    pub fetch_bytes: u64,
    /// Extents that would go.
    pub evict_extents: u64,
    /// Their bytes.
    pub evict_bytes: u64,
    /// Bytes that are hot now, in all databases of the node.
    pub hot_bytes_before: u64,
    /// Bytes that would be hot.
    pub hot_bytes_after: u64,
    /// Bytes that hot extents may take.
    pub budget_bytes: u64,
    /// Bytes that would be hot and would not fit.
    pub shortfall_bytes: u64,
    /// What the remembered queries read of extents that are kept now.
    pub before: Replay,
    /// What they would have read of those that would be kept.
    pub after: Replay,
}

/// What is hot, and how much of it is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HotSet {
    /// Extents that are hot by the policies.
    pub extents: u64,
    /// Their bytes: on the disk for those that are here, in the bucket for the others.
    pub bytes: u64,
    /// Of them, extents that are here.
    pub resident_extents: u64,
    /// Their bytes on the disk.
    pub resident_bytes: u64,
    /// Of those, extents that have the form that scans fastest.
    pub encoded_extents: u64,
    /// What queries have read since the node started.
    pub reads: ReadStatistics,
}

impl HotSet {
    /// Adds another set.
    pub fn add(&mut self, other: &Self) {
        self.extents += other.extents;
        self.bytes += other.bytes;
        self.resident_extents += other.resident_extents;
        self.resident_bytes += other.resident_bytes;
        self.encoded_extents += other.encoded_extents;
        self.reads.add(&other.reads);
    }

    /// Of the bytes that queries read of hot extents, those that were here, in percent; `None`
    /// before the first.
    pub fn hit_percent(&self) -> Option<f64> {
        let read = self.reads.hot_hit_bytes + self.reads.hot_miss_bytes;
        (read > 0).then(|| self.reads.hot_hit_bytes as f64 * 100.0 / read as f64)
    }
}

/// How much of something a node does at one time.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// What: `Queries`, `Ingestions`.
    pub resource: &'static str,
    /// How much it can do.
    pub total: u64,
    /// How much it does now.
    pub consumed: u64,
}

/// Who a node is.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// `leader` or `follower`.
    pub role: NodeRole,
    /// The region.
    pub location: String,
}

impl NodeIdentity {
    /// Who asks, as functions and row-level security see it. A cluster's endpoint is its name: it
    /// is the same by whatever address the cluster was reached.
    pub fn session(&self, principal: &PrincipalName) -> SessionIdentity {
        SessionIdentity {
            principal: principal.to_string(),
            cluster_endpoint: self.cluster.to_string(),
        }
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Owns databases and writes them.
    Leader,
    /// Follows databases and only reads.
    Follower,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        })
    }
}

/// SQL from a client.
#[derive(Debug, Clone, Default)]
pub struct SqlRequest {
    /// The default schema: names without a schema are looked up in this database.
    pub database: Option<String>,
    /// One statement, or several separated by `;`.
    pub sql: String,
    /// Values of `$1`, `$2`... or `$name`.
    pub parameters: Parameters,
    /// How fresh the answer has to be.
    pub freshness: FreshnessRequirement,
    /// How long the client is willing to wait; the node's own deadline also holds.
    pub timeout: Option<Duration>,
    /// Which extents are read, when neither the query nor its `SET` says so.
    pub scope: DataScope,
    /// Which version of the request's database is read; `None`: the newest that there is here.
    pub version: Option<Version>,
    /// Which door and client, for the query log: `http 127.0.0.1:50123`.
    pub client: String,
    /// Who asks, and what they may do. Set by [`AuthorizedEngine`](crate::AuthorizedEngine).
    pub access: Access,
}

impl SqlRequest {
    /// Refuses a query of somebody who may not read the request's database. Other databases that
    /// it names are not there for them in the first place.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_query(&self) -> Result<(), ServiceError> {
        let database = self.database.as_deref();
        database.map_or(Ok(()), |name| self.access.check(name, Permission::Query))
    }

    /// The request's database at the version that it asks for, if it does.
    ///
    /// # Errors
    /// When it names no database that can be read, or there is no such version, or not any more.
    pub async fn older(
        &self,
        databases: &BTreeMap<String, DatabaseState>,
        history: &dyn OlderVersions,
    ) -> Result<Option<OlderState>, ServiceError> {
        let Some(version) = self.version else {
            return Ok(None);
        };
        let name = self.database.as_deref().unwrap_or_default();
        let newest = databases.get(name).ok_or_else(|| {
            ServiceError::invalid(
                "SET version is about the request's database, and it names none that can be read",
            )
        })?;
        let point = PointInTime::Version(version);
        Ok(Some(history.at(name, newest, point).await?))
    }
}

/// What is said of an answer, when it is of an older version than the newest that is here.
pub fn freshness_at(newest: Freshness, older: Option<&OlderState>) -> Freshness {
    match older.map(|older| &older.state) {
        None => newest,
        Some(state) => Freshness {
            version: state.version(),
            digest: state.digest(),
            committed_at: state.committed_at(),
            ..newest
        },
    }
}

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    /// The rows. A statement that is not a query answers one row: `version`, `rows`.
    pub rows: QueryStream,
    /// The state of the request's database that the answer came from; `None` when the request
    /// named no database.
    pub freshness: Option<Freshness>,
    /// When the answer was begun, by the node's clock: lag is measured up to here.
    pub answered_at: Timestamp,
    /// The number of rows written, for statements that are not queries.
    pub rows_written: Option<u64>,
}

/// What a statement would answer, and which parameters it takes.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of the answer.
    pub schema: SchemaRef,
    /// One field for each parameter, in order; type `Null` where it could not be inferred.
    pub parameters: Schema,
    /// Whether the statement only reads.
    pub is_query: bool,
}

impl Description {
    /// Of a statement that changes something and takes no parameters.
    pub fn of_change(schema: SchemaRef) -> Self {
        Self {
            schema,
            parameters: Schema::empty(),
            is_query: false,
        }
    }
}

/// How the bytes of an ingest are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestFormat {
    /// Comma-separated values, optionally gzip-compressed.
    Csv,
    /// One JSON object a line, optionally gzip-compressed.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, stream or file.
    Arrow,
}

/// Where the bytes of an ingest come from.
pub enum IngestSource {
    /// Bytes that the client sends along.
    Body(BoxStream<'static, Result<Bytes, ServiceError>>),
    /// Arrow batches that the client sends along (Flight).
    Batches(
        SchemaRef,
        BoxStream<'static, Result<arrow::array::RecordBatch, ServiceError>>,
    ),
    /// An object that the node reads: `s3://`, `az://`, `gs://`, `https://`, `file://`.
    Url(String),
}

impl fmt::Debug for IngestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(_) => f.write_str("Body"),
            Self::Batches(schema, _) => f.debug_tuple("Batches").field(schema).finish(),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
        }
    }
}

/// Rows to take in.
#[derive(Debug)]
pub struct IngestRequest {
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Where the bytes come from.
    pub source: IngestSource,
    /// How they are encoded; `None`: by the name's ending. Ignored for batches.
    pub format: Option<IngestFormat>,
    /// How the source is called in errors: `flights.csv`.
    pub source_name: String,
    /// What to do when the table is there, or is not.
    pub table_mode: TableMode,
    /// The extents' creation time, when not now.
    pub creation_time: Option<Timestamp>,
    /// The extents' tags.
    pub tags: BTreeSet<String>,
    /// Nothing is ingested when an extent of the table has the tag `ingest-by:` with one of these
    /// behind it.
    pub ingest_if_not_exists: BTreeSet<String>,
    /// The ingest's own name: one that was committed before is not ingested again.
    pub ingest_id: Option<IngestId>,
    /// Whether it waits for others, to become one extent and one commit with them.
    pub queued: bool,
    /// Whether its rows may go into the commit itself.
    pub streaming: Streaming,
    /// CSV and JSON lines: how to read them.
    pub text: TextOptions,
    /// Rows that may be left out because they do not fit; `0`: the first one fails the ingest.
    pub bad_rows_max: u64,
}

/// Whether an ingest's rows may go into the commit itself, to be moved into an extent later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streaming {
    /// They are written as an extent at once.
    #[default]
    No,
    /// They may where the table's policy allows it.
    IfEnabled,
    /// They are to; where the policy does not allow it, nothing is ingested.
    Asked,
}

impl IngestRequest {
    /// An ingest that appends to a table, and asks for nothing else.
    pub fn append(
        database: String,
        table: String,
        source: IngestSource,
        source_name: String,
    ) -> Self {
        Self {
            database,
            table,
            source,
            format: None,
            source_name,
            table_mode: TableMode::Append,
            creation_time: None,
            tags: BTreeSet::new(),
            ingest_if_not_exists: BTreeSet::new(),
            ingest_id: None,
            queued: false,
            streaming: Streaming::No,
            text: TextOptions::default(),
            bad_rows_max: 0,
        }
    }
}

/// What an ingest does with its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableMode {
    /// The table must be there.
    #[default]
    Append,
    /// A missing table is created with inferred columns; an existing one is appended to.
    CreateOrAppend,
    /// The table must not be there (`adbc_ingest` mode `create`).
    Create,
    /// The table is dropped and created again, in the same commit (mode `replace`).
    Replace,
}

/// How text is read.
#[derive(Debug, Clone)]
pub struct TextOptions {
    /// CSV: whether the first line names the columns.
    pub header: bool,
    /// CSV: what stands between values.
    pub delimiter: u8,
    /// CSV: texts that mean null, besides the empty one.
    pub nulls: Vec<String>,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            header: true,
            delimiter: b',',
            nulls: vec!["NA".into(), "NULL".into(), "null".into()],
        }
    }
}

/// What an ingest did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IngestReceipt {
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// The version from which on the rows are visible: ask for it with `min_version`.
    pub version: u64,
    /// The database digest at that version.
    pub digest: String,
    /// Rows taken in.
    pub rows: u64,
    /// Extents written. A queued ingest shares them with others.
    pub extents: u64,
    /// Bytes of those extents.
    pub size_bytes: u64,
    /// Rows left out.
    pub bad_rows: u64,
    /// Those rows, where they stood and why they did not fit.
    pub rejects: Vec<Reject>,
    /// Why nothing was ingested by this request, when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// Why an ingest took nothing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// The table has extents of a tag that it was not to have.
    TagExists,
    /// It was committed before: the receipt is that of the first time, short of rows left out.
    IngestedBefore,
}

/// A row that did not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The file or stream.
    pub source: String,
    /// The line in it, from 1; the row, for formats without lines.
    pub line: u64,
    /// The column, when one is to blame.
    pub column: Option<String>,
    /// What stood there, cut to a readable length.
    pub value: Option<String>,
    /// What was expected.
    pub reason: String,
    /// The whole row as it stood, for text formats.
    pub row: Option<String>,
}

/// Whether a node can answer.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// Every attached (or owned) database can be queried and none is suspended.
    pub ready: bool,
    /// What is missing, when something is.
    pub reason: Option<String>,
    /// One entry a database.
    pub databases: Vec<DatabaseReadiness>,
}

impl Readiness {
    /// A node is ready when each of its databases is.
    pub fn of(databases: Vec<DatabaseReadiness>) -> Self {
        let waiting = databases.iter().find(|database| !database.ready);
        let reason = waiting.map(|database| match &database.suspension_state {
            Some(why) => format!("database '{}' stands still: {why}", database.name),
            None => format!(
                "database '{}' has not had its first synchronisation",
                database.name
            ),
        });
        Self {
            ready: reason.is_none(),
            reason,
            databases,
        }
    }
}

/// Whether a database can be queried.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseReadiness {
    /// The database.
    pub name: String,
    /// Whether it had its first synchronisation and is not suspended.
    pub ready: bool,
    /// The version that is served.
    pub version: Option<u64>,
    /// Its digest.
    pub digest: Option<String>,
    /// Why it stands still, when it does.
    pub suspension_state: Option<String>,
}
