//! A database in a bucket in memory, and sessions over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::LogicalPlan;
use object_store::path::Path;
use slipstream_catalog::{DatabaseOp, DatabaseState};
use slipstream_model::{
    BucketId, Clock, DatabaseAccessMode, DatabaseId, Entropy, Extent, ExtentId, ManualClock,
    TableId, TableName, TableSchema, Timestamp,
};
use slipstream_storage::{BucketPath, BucketWriter, ExtentEncoder, RequestCounts};

use crate::{
    ClusterView, DataScope, DatabaseRow, FollowerRow, LeaseRow, OlderVersions, Parameters,
    QueryError, QueryInfo, QueryOptions, QueryRuntime, QuerySession, QueryStream, SessionDatabases,
    SessionIdentity, Statement, StoredExtents,
};

/// The name of the database that sessions look names up in.
pub(super) const DATABASE: &str = "flights_db";

/// One database and everything around it.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) bucket: BucketWriter,
    pub(super) runtime: Arc<QueryRuntime>,
    pub(super) state: DatabaseState,
    /// The scope of its sessions.
    pub(super) scope: DataScope,
    /// What tells its sessions of older versions.
    pub(super) history: Option<Arc<dyn OlderVersions>>,
    /// Databases of its sessions that another node deletes files of.
    pub(super) followed: BTreeSet<String>,
    entropy: Entropy,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with_options(QueryOptions::default()).await
    }

    pub(super) async fn with_options(options: QueryOptions) -> Self {
        let options = QueryOptions {
            target_partitions: options.target_partitions.min(4),
            ..options
        };
        let clock = Arc::new(ManualClock::new(
            "2013-01-01T00:00:00Z".parse().expect("a time"),
        ));
        let entropy = Entropy::from_seed(7);
        let bucket = BucketWriter::memory(Arc::clone(&clock) as _, entropy.clone()).await;
        let connection = (**bucket.reader()).clone();
        let access = StoredExtents {
            store: bucket.object_store(),
            paths: Arc::new(move |database, extent| {
                connection.object_path(&BucketPath::extent(database, extent))
            }),
            pace: None,
        };
        let runtime = QueryRuntime::new(
            options,
            Arc::new(access),
            Arc::clone(&clock) as _,
            entropy.clone(),
        )
        .expect("set up");
        let state = DatabaseState::empty(bucket.id(), DatabaseId::new(entropy.uuid()));
        Self {
            clock,
            bucket,
            runtime,
            state,
            scope: DataScope::All,
            history: None,
            followed: BTreeSet::new(),
            entropy,
        }
    }

    /// A world with the table `flights(month, carrier)` of some extents, one per range of months.
    pub(super) async fn with_flights(months: &[std::ops::Range<i64>]) -> Self {
        let mut world = Self::new().await;
        world.create_table("flights", &flights_schema());
        for months in months {
            world.insert("flights", flights(months.clone())).await;
        }
        world
    }

    pub(super) fn change(&mut self, op: DatabaseOp) {
        self.state = self.state.preview(&[op]).expect("allowed");
    }

    pub(super) fn create_table(&mut self, name: &str, schema: &Schema) {
        self.change(DatabaseOp::CreateTable {
            id: TableId::new(self.entropy.uuid()),
            name: TableName::new(name).expect("a name"),
            schema: TableSchema::new(schema).expect("columns"),
            if_not_exists: false,
        });
    }

    pub(super) fn add_column(&mut self, table: &str, field: Field) {
        self.change(DatabaseOp::AddColumn {
            table: TableName::new(table).expect("a name"),
            field,
            if_not_exists: false,
        });
    }

    /// Writes one extent.
    pub(super) async fn insert(&mut self, table: &str, batch: RecordBatch) -> Extent {
        let table = Arc::clone(self.state.table(table).expect("there"));
        self.clock.advance(Duration::from_secs(1));
        let mut encoder = ExtentEncoder::new(&table.schema).expect("storable");
        encoder.write(&batch).expect("fits");
        let id = ExtentId::new(self.entropy.uuid_at(self.clock.now()));
        let tags = BTreeSet::from(["source \"a\"".to_owned()]);
        let encoded = encoder.finish(id, self.clock.now(), tags).expect("encodes");
        self.bucket
            .upload_extent(self.state.id(), &encoded)
            .await
            .expect("uploaded");
        let extent = encoded.extent.clone();
        self.change(DatabaseOp::AddExtents {
            table: table.id,
            schema: table.schema.clone(),
            extents: vec![encoded.extent],
        });
        extent
    }

    /// Puts rows into the log, as an extent without a file.
    pub(super) fn insert_inline(&mut self, table: &str, batch: RecordBatch) {
        let table = Arc::clone(self.state.table(table).expect("there"));
        self.clock.advance(Duration::from_secs(1));
        let mut encoder = ExtentEncoder::new(&table.schema).expect("storable");
        encoder.write(&batch).expect("fits");
        let id = ExtentId::new(self.entropy.uuid_at(self.clock.now()));
        let encoded = encoder.finish(id, self.clock.now(), BTreeSet::new());
        let encoded = encoded.expect("encodes");
        let inline = Some(encoded.bytes);
        self.change(DatabaseOp::AddExtents {
            table: table.id,
            schema: table.schema.clone(),
            extents: vec![Extent {
                inline,
                ..encoded.extent
            }],
        });
    }

    pub(super) fn remove(&mut self, table: &str, extent: &Extent) {
        let table = self.state.table(table).expect("there").id;
        self.change(DatabaseOp::RemoveExtents {
            table,
            extents: vec![extent.id],
        });
    }

    pub(super) fn extent_path(&self, extent: &Extent) -> Path {
        self.bucket
            .object_path(&BucketPath::extent(self.state.id(), extent.id))
    }

    pub(super) fn session(&self) -> QuerySession {
        self.session_in(Some(DATABASE))
    }

    pub(super) fn session_in(&self, default: Option<&str>) -> QuerySession {
        self.session_of(default, SessionIdentity::default())
    }

    fn session_of(&self, default: Option<&str>, identity: SessionIdentity) -> QuerySession {
        let view = View(self.state.clone());
        let databases = self.databases_of(default, identity);
        self.runtime.session(databases, Arc::new(view))
    }

    /// What somebody sees.
    fn databases_of(&self, default: Option<&str>, identity: SessionIdentity) -> SessionDatabases {
        let databases = BTreeMap::from([
            (DATABASE.to_owned(), self.state.clone()),
            (
                "empty_db".to_owned(),
                DatabaseState::empty(BucketId::default(), DatabaseId::default()),
            ),
        ]);
        SessionDatabases {
            metadata_only: Default::default(),
            followed: self.followed.clone(),
            leader: None,
            history: self.history.clone(),
            as_of: None,
            scope: self.scope,
            default: default.map(str::to_owned),
            databases,
            identity,
        }
    }

    /// What somebody is answered, by a plan that was remembered if there is one; and whether there
    /// was.
    pub(super) async fn ask_again(&self, principal: &str, sql: &str) -> (QueryStream, bool) {
        let identity = SessionIdentity {
            principal: principal.to_owned(),
            ..SessionIdentity::default()
        };
        let info = QueryInfo {
            text: sql.to_owned(),
            ..QueryInfo::default()
        };
        let databases = self.databases_of(Some(DATABASE), identity.clone());
        if let Some(known) = self.runtime.known(sql, &databases) {
            return (known.execute(info).await.expect("starts"), true);
        }
        let session = self.session_of(Some(DATABASE), identity);
        let plan = session.plan_read_only(statement(sql)).await;
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let stream = session.execute_and_remember(plan, info).await;
        (stream.expect("starts"), false)
    }

    pub(super) async fn plan(&self, sql: &str) -> Result<LogicalPlan, QueryError> {
        self.session().plan_read_only(statement(sql)).await
    }

    pub(super) async fn stream(&self, sql: &str) -> Result<QueryStream, QueryError> {
        self.stream_with(sql, Parameters::default(), None).await
    }

    pub(super) async fn stream_with(
        &self,
        sql: &str,
        parameters: Parameters,
        timeout: Option<Duration>,
    ) -> Result<QueryStream, QueryError> {
        let session = self.session();
        let plan = session.plan_read_only(statement(sql)).await?;
        let plan = session.bind(plan, parameters)?;
        let info = QueryInfo {
            text: sql.to_owned(),
            client: "test".into(),
            timeout,
            database: None,
        };
        session.execute(plan, info).await
    }

    pub(super) async fn batches(&self, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        self.stream(sql).await?.collect_batches().await
    }

    /// The answer as lines of text, header first.
    pub(super) async fn answer(&self, sql: &str) -> Vec<String> {
        let batches = self
            .batches(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        lines(&batches)
    }

    /// The rows of the answer as text, without header.
    pub(super) async fn rows(&self, sql: &str) -> Vec<String> {
        self.answer(sql).await.split_off(1)
    }

    /// The rows that somebody is answered, by a cluster.
    pub(super) async fn rows_as(&self, principal: &str, endpoint: &str, sql: &str) -> Vec<String> {
        let identity = SessionIdentity {
            principal: principal.to_owned(),
            cluster_endpoint: endpoint.to_owned(),
        };
        let session = self.session_of(Some(DATABASE), identity);
        let plan = session.plan_read_only(statement(sql)).await;
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let stream = session.execute(plan, QueryInfo::default()).await;
        let batches = stream.expect("starts").collect_batches().await;
        lines(&batches.expect("answers")).split_off(1)
    }

    pub(super) async fn error(&self, sql: &str) -> QueryError {
        self.batches(sql).await.expect_err("fails")
    }

    pub(super) fn requests(&self) -> RequestCounts {
        self.bucket.requests()
    }
}

/// The cells of some batches, a line each, separated by one blank.
pub(super) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches)
        .expect("printable")
        .to_string();
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            cells.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

pub(super) fn statement(sql: &str) -> Statement {
    let mut statements = QuerySession::parse(sql).expect("SQL");
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

pub(super) fn flights_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("month", DataType::Int64, true),
        Field::new("carrier", DataType::Utf8, true),
    ]))
}

/// One flight a month; every third carrier is null.
pub(super) fn flights(months: std::ops::Range<i64>) -> RecordBatch {
    let carriers: StringArray = months
        .clone()
        .map(|month| (month % 3 != 0).then(|| format!("C{}", month % 10)))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(months)),
        Arc::new(carriers),
    ];
    RecordBatch::try_new(flights_schema(), columns).expect("fits")
}

#[derive(Debug)]
struct View(DatabaseState);

impl ClusterView for View {
    fn databases(&self) -> Vec<DatabaseRow> {
        let mode = DatabaseAccessMode::ReadWrite;
        vec![DatabaseRow {
            lag: Some(Duration::from_millis(1_500)),
            ..DatabaseRow::of(DATABASE, self.0.id(), mode, Some(&self.0))
        }]
    }

    fn followers(&self) -> Vec<FollowerRow> {
        vec![FollowerRow {
            database_name: DATABASE.to_owned(),
            follower_cluster: "dashboards".to_owned(),
            configuration: "default".to_owned(),
            attached_at: Timestamp::from_micros(0),
            last_seen: None,
            version: None,
        }]
    }

    fn leases(&self) -> Vec<LeaseRow> {
        Vec::new()
    }
}
