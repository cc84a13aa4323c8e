//! Tables as they were.

use std::any::Any;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use slipstream_catalog::{DatabaseOp, DatabaseState, DatabaseWriter, History, WriterContext};
use slipstream_model::{
    Clock, ClusterName, Entropy, Extent, ExtentId, RowLevelSecurity, TableId, TableName,
    TableSchema, Version,
};
use slipstream_storage::ExtentEncoder;

use super::fixture::{World, flights, flights_schema, statement};
use crate::{
    OlderState, OlderVersions, PointInTime, QueryError, QueryErrorKind, QueryInfo, older_state,
    older_version,
};

/// Reads older versions from the bucket, and counts those that are being read.
#[derive(Debug)]
struct Past {
    history: History,
    readers: Arc<AtomicUsize>,
}

/// One that is being read.
struct Reader(Arc<AtomicUsize>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl OlderVersions for Past {
    async fn at(
        &self,
        database: &str,
        newest: &DatabaseState,
        point: PointInTime,
    ) -> Result<OlderState, QueryError> {
        let version = older_version(&self.history, database, newest, point).await?;
        let state = older_state(&self.history, database, newest, version).await?;
        self.readers.fetch_add(1, Ordering::SeqCst);
        let hold: Box<dyn Any + Send> = Box::new(Reader(Arc::clone(&self.readers)));
        Ok(OlderState {
            state,
            hold: Some(hold),
        })
    }
}

/// A world whose database has a log.
struct Logged {
    world: World,
    writer: DatabaseWriter,
    readers: Arc<AtomicUsize>,
    entropy: Entropy,
}

impl Logged {
    /// Version 1 opens the log; version 2 makes the table `flights`.
    async fn new() -> Self {
        let mut world = World::new().await;
        let entropy = Entropy::from_seed(11);
        let context = WriterContext::new(
            ClusterName::new("prod").expect("a name"),
            Arc::clone(&world.clock) as _,
            entropy.clone(),
        );
        let database = world.state.id();
        let writer = DatabaseWriter::open(world.bucket.clone(), database, context).await;
        let writer = writer.expect("opened");
        let readers = Arc::new(AtomicUsize::new(0));
        world.history = Some(Arc::new(Past {
            history: History::new(world.bucket.reader().clone()),
            readers: Arc::clone(&readers),
        }));
        let mut logged = Self {
            world,
            writer,
            readers,
            entropy,
        };
        logged.create_flights().await;
        logged
    }

    async fn commit(&mut self, op: DatabaseOp) {
        let committed = self.writer.commit(vec![op]).await.expect("ok");
        self.world.state = committed.state;
    }

    async fn create_flights(&mut self) {
        self.commit(DatabaseOp::CreateTable {
            id: TableId::new(self.entropy.uuid()),
            name: TableName::new("flights").expect("a name"),
            schema: TableSchema::new(&flights_schema()).expect("columns"),
            if_not_exists: false,
        })
        .await;
    }

    async fn insert(&mut self, months: Range<i64>) -> Extent {
        self.world.clock.advance(Duration::from_secs(1));
        let now = self.world.clock.now();
        let table = Arc::clone(self.world.state.table("flights").expect("there"));
        let mut encoder = ExtentEncoder::new(&table.schema).expect("storable");
        encoder.write(&flights(months)).expect("fits");
        let id = ExtentId::new(self.entropy.uuid_at(now));
        let encoded = encoder.finish(id, now, BTreeSet::new()).expect("encodes");
        let (bucket, database) = (&self.world.bucket, self.world.state.id());
        let uploaded = bucket.upload_extent(database, &encoded).await;
        uploaded.expect("uploaded");
        let extent = encoded.extent.clone();
        self.commit(DatabaseOp::AddExtents {
            table: table.id,
            schema: table.schema.clone(),
            extents: vec![encoded.extent],
        })
        .await;
        extent
    }

    async fn remove(&mut self, extent: &Extent) {
        let table = self.world.state.table("flights").expect("there").id;
        self.commit(DatabaseOp::RemoveExtents {
            table,
            extents: vec![extent.id],
        })
        .await;
    }

    /// The sum of all months at a version.
    async fn sum_at(&self, version: u64) -> String {
        let sql = format!("SELECT sum(month) FROM flights FOR VERSION AS OF {version}");
        self.world.rows(&sql).await.remove(0)
    }
}

#[tokio::test]
async fn each_table_reference_reads_its_own_version() {
    let mut logged = Logged::new().await;
    let first = logged.insert(0..3).await;
    logged.insert(3..5).await;
    logged.remove(&first).await;
    assert_eq!(logged.sum_at(3).await, "3");
    assert_eq!(logged.sum_at(4).await, "10");
    assert_eq!(logged.sum_at(5).await, "7");
    let world = &logged.world;
    let rows = world
        .rows(
            "SELECT count(now.month), count(*) FROM flights FOR VERSION AS OF 4 AS was \
             LEFT JOIN flights now ON now.month = was.month",
        )
        .await;
    assert_eq!(rows, ["2 5"]);
    // Its name is what it is called in the rest of the query, and as ever without a clause.
    let rows = world
        .rows(
            "SELECT flights.month FROM flights_db.Flights FOR VERSION AS OF 3 \
             WHERE flights.month > 0 ORDER BY flights.month DESC LIMIT 1",
        )
        .await;
    assert_eq!(rows, ["2"]);
    assert_eq!(world.rows("SELECT count(*) FROM flights").await, ["2"]);
    let rows = world
        .rows("SELECT count(*) FROM (SELECT * FROM flights FOR VERSION AS OF 2)")
        .await;
    assert_eq!(rows, ["0"]);
    let explained = world
        .rows("EXPLAIN SELECT * FROM flights FOR VERSION AS OF 3")
        .await;
    assert!(!explained.is_empty());
}

#[tokio::test]
async fn columns_and_tables_are_those_of_the_version() {
    let mut logged = Logged::new().await;
    logged.insert(0..3).await;
    let name = TableName::new("flights").expect("a name");
    let field = Field::new("note", DataType::Utf8, true);
    logged
        .commit(DatabaseOp::AddColumn {
            table: name.clone(),
            field,
            if_not_exists: false,
        })
        .await;
    logged
        .commit(DatabaseOp::DropTable {
            name,
            if_exists: false,
        })
        .await;
    logged.create_flights().await;
    let world = &logged.world;
    let width = async |version: u64| {
        let sql = format!("SELECT * FROM flights FOR VERSION AS OF {version}");
        let plan = world.plan(&sql).await.expect("plans");
        let fields = plan.schema().as_arrow().fields();
        let names = fields.iter().map(|field| field.name().as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(width(3).await, "month carrier");
    assert_eq!(width(4).await, "month carrier note");
    assert_eq!(width(6).await, "month carrier");
    assert_eq!(logged.sum_at(4).await, "3");
    let gone = world
        .error("SELECT * FROM flights FOR VERSION AS OF 5")
        .await;
    assert_eq!(gone.kind(), QueryErrorKind::NotFound);
    assert_eq!(
        gone.to_string(),
        "there is no table 'flights' in database 'flights_db' at version 5"
    );
}

#[tokio::test]
async fn a_time_stands_for_the_version_of_then() {
    let mut logged = Logged::new().await;
    logged.insert(0..3).await;
    let then = logged.world.state.committed_at();
    logged.insert(3..5).await;
    let sql = format!("SELECT count(*) FROM flights FOR TIMESTAMP AS OF '{then}'");
    assert_eq!(logged.world.rows(&sql).await, ["3"]);
    let sql = "SELECT count(*) FROM flights FOR TIMESTAMP AS OF '2099-01-01'";
    assert_eq!(logged.world.rows(sql).await, ["5"]);
    let sql = "SELECT count(*) FROM flights FOR TIMESTAMP AS OF '1999-01-01'";
    let error = logged.world.error(sql).await;
    assert_eq!(error.kind(), QueryErrorKind::VersionNotFound, "{error}");
}

#[tokio::test]
async fn versions_that_are_not_there_are_refused_by_name() {
    let mut logged = Logged::new().await;
    logged.insert(0..3).await;
    for (version, words) in [
        (0, "versions are counted from 1"),
        (
            4,
            "version 4 is not there yet: the newest here is version 3",
        ),
    ] {
        let sql = format!("SELECT * FROM flights FOR VERSION AS OF {version}");
        let error = logged.world.error(&sql).await;
        assert_eq!(error.kind(), QueryErrorKind::VersionNotFound, "{error}");
        assert!(error.to_string().contains("'flights_db'"), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = logged
        .world
        .error("SELECT * FROM flights_bd.flights FOR VERSION AS OF 1")
        .await;
    let message = error.to_string();
    assert!(message.contains("did you mean 'flights_db'?"), "{message}");
    logged.world.history = None;
    let error = logged
        .world
        .error("SELECT * FROM flights FOR VERSION AS OF 1")
        .await;
    assert_eq!(error.kind(), QueryErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn an_extent_that_was_deleted_since_names_the_version_that_needs_it() {
    let mut logged = Logged::new().await;
    let first = logged.insert(0..3).await;
    logged.insert(3..5).await;
    logged.remove(&first).await;
    let (bucket, database) = (&logged.world.bucket, logged.world.state.id());
    let deleted = bucket.delete_extent(database, first.id).await;
    deleted.expect("deleted");
    let sql = "SELECT sum(month), max(carrier) FROM flights FOR VERSION AS OF 4 WHERE month > 1";
    let error = logged.world.error(sql).await;
    assert_eq!(error.kind(), QueryErrorKind::VersionNotKept, "{error}");
    let message = error.to_string();
    assert!(message.contains("version 4 is no longer kept"), "{message}");
    assert!(message.contains(&first.id.to_string()), "{message}");
    // What needs it not is answered, and so is what the catalog knows.
    let rows = logged
        .world
        .rows("SELECT sum(month) FROM flights FOR VERSION AS OF 4 WHERE month >= 3")
        .await;
    assert_eq!(rows, ["7"]);
    let rows = logged
        .world
        .rows("SELECT count(*) FROM flights FOR VERSION AS OF 4")
        .await;
    assert_eq!(rows, ["5"]);
}

#[tokio::test]
async fn who_may_see_which_rows_is_what_it_is_now() {
    let mut logged = Logged::new().await;
    logged.insert(0..10).await;
    let name = TableName::new("flights").expect("a name");
    let policy = RowLevelSecurity {
        is_enabled: true,
        predicate: "month < 4".to_owned(),
    };
    logged
        .commit(DatabaseOp::SetRowLevelSecurity {
            table: name.clone(),
            policy: Some(policy),
        })
        .await;
    assert_eq!(logged.sum_at(3).await, "6");
    let guarded = logged.world.state.version().get();
    // Nor does it help to drop the table and to make another one, with a policy or without.
    let policy = RowLevelSecurity {
        is_enabled: true,
        predicate: "month < 2".to_owned(),
    };
    logged
        .commit(DatabaseOp::DropTable {
            name: name.clone(),
            if_exists: false,
        })
        .await;
    logged.create_flights().await;
    assert_eq!(logged.sum_at(guarded).await, "6");
    logged
        .commit(DatabaseOp::SetRowLevelSecurity {
            table: name,
            policy: Some(policy),
        })
        .await;
    assert_eq!(logged.sum_at(3).await, "1");
}

#[tokio::test]
async fn an_older_version_is_held_until_the_last_row() {
    let mut logged = Logged::new().await;
    logged.insert(0..3).await;
    logged.insert(3..5).await;
    let readers = || logged.readers.load(Ordering::SeqCst);
    let session = logged.world.session();
    let sql = "SELECT * FROM flights FOR VERSION AS OF 3";
    let plan = session.plan_read_only(statement(sql)).await.expect("plans");
    assert_eq!(readers(), 1);
    let stream = session.execute(plan, QueryInfo::default()).await;
    let stream = stream.expect("starts");
    drop(session);
    assert_eq!(readers(), 1);
    let batches = stream.collect_batches().await.expect("answers");
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!((rows, readers()), (3, 0));
}

#[tokio::test]
async fn without_a_clause_nothing_is_asked_of_the_past() {
    let mut logged = Logged::new().await;
    logged.insert(0..3).await;
    let before = logged.world.requests().get;
    let plan = logged.world.plan("SELECT month FROM flights").await;
    plan.expect("plans");
    assert_eq!(logged.world.requests().get, before);
    assert_eq!(logged.world.state.version(), Version::new(3));
}
