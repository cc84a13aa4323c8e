//! Extents that stand on the local disk in another form answer as those in the bucket do.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use slipstream_model::{Clock, DatabaseId, Entropy, ExtentId};
use slipstream_storage::BucketPath;
use vortex::VortexSessionDefault;
use vortex::array::buffer::BufferHandle;
use vortex::array::stream::ArrayStreamAdapter;
use vortex::arrow::ArrowSessionExt;
use vortex::buffer::{Alignment, ByteBuffer};
use vortex::error::{VortexError, VortexResult};
use vortex::file::WriteOptionsSessionExt;
use vortex::io::VortexReadAt;
use vortex::io::session::RuntimeSessionExt;
use vortex::session::VortexSession;

use super::fixture::World;
use crate::{
    DataScope, ExtentAccess, LocalExtent, QueryOptions, QueryRuntime, ReadPace, Residency,
    StoredExtents,
};

/// The world's extents, some of them near.
#[derive(Debug)]
struct Near {
    stored: StoredExtents,
    forms: HashMap<Path, ByteBuffer>,
    /// Bytes of each of those that are in memory.
    memory_bytes: u64,
    pace: ReadPace,
}

#[async_trait]
impl ExtentAccess for Near {
    fn path(&self, database: DatabaseId, extent: ExtentId) -> Path {
        self.stored.path(database, extent)
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        self.stored.store()
    }

    fn residency(&self, path: &Path) -> Residency {
        if self.is_local(path) {
            Residency::HotHit
        } else {
            Residency::Cold
        }
    }

    fn has_local_forms(&self) -> bool {
        true
    }

    fn is_local(&self, path: &Path) -> bool {
        self.forms.contains_key(path)
    }

    fn open_local(&self, path: &Path) -> Option<LocalExtent> {
        let form = self.forms.get(path)?.clone();
        Some(LocalExtent {
            size_bytes: form.len() as u64,
            content: form.len() as u64,
            reader: Arc::new(form),
        })
    }

    fn memory_bytes(&self, path: &Path) -> u64 {
        if self.is_local(path) {
            self.memory_bytes
        } else {
            0
        }
    }

    fn pace(&self) -> ReadPace {
        self.pace
    }
}

async fn encoded(extent: Bytes) -> ByteBuffer {
    let session = VortexSession::default().with_tokio();
    let reader = ParquetRecordBatchReaderBuilder::try_new(extent).expect("Parquet");
    let schema = Arc::clone(reader.schema());
    let dtype = session
        .arrow()
        .from_arrow_schema(&schema)
        .expect("known types");
    let importing = session.clone();
    let arrays = reader.build().expect("readable").map(move |batch| {
        let batch = batch.map_err(VortexError::from)?;
        importing.arrow().from_arrow_record_batch(batch, &schema)
    });
    let arrays = ArrayStreamAdapter::new(dtype, futures::stream::iter(arrays));
    let mut file = Vec::new();
    let options = session.write_options();
    options.write(&mut file, arrays).await.expect("encoded");
    ByteBuffer::from(file)
}

impl World {
    /// The same world, with every `step`-th extent near.
    pub(super) async fn near(self, step: usize) -> Self {
        self.near_at(step, 0, ReadPace::default()).await
    }

    /// The same, with bytes of each near extent in memory, and reads of a pace.
    async fn near_at(mut self, step: usize, memory_bytes: u64, pace: ReadPace) -> Self {
        let connection = (**self.bucket.reader()).clone();
        let stored = StoredExtents {
            store: self.bucket.object_store(),
            paths: Arc::new(move |database, extent| {
                connection.object_path(&BucketPath::extent(database, extent))
            }),
            pace: None,
        };
        let mut forms = HashMap::new();
        let extents = self.state.tables().flat_map(|table| table.extents.iter());
        for extent in extents.step_by(step) {
            let path = BucketPath::extent(self.state.id(), extent.id);
            let bytes = self.bucket.get(&path).await.expect("uploaded");
            forms.insert(
                stored.path(self.state.id(), extent.id),
                encoded(bytes).await,
            );
        }
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let options = QueryOptions {
            target_partitions: 4,
            ..QueryOptions::default()
        };
        let access = Arc::new(Near {
            stored,
            forms,
            memory_bytes,
            pace,
        });
        let entropy = Entropy::from_seed(11);
        self.runtime = QueryRuntime::new(options, access, clock, entropy).expect("set up");
        self
    }
}

/// Flights of 60,000 months in six extents, one of them without the column that was added last;
/// and carriers to join them with.
pub(super) async fn world() -> World {
    let mut world = World::with_flights(&[0..10_000, 10_000..20_000]).await;
    world.add_column("flights", Field::new("delay", DataType::Float64, true));
    let schema = world.state.table("flights").expect("there").schema.arrow();
    for start in [20_000, 30_000, 40_000, 50_000] {
        let old = super::fixture::flights(start..start + 10_000);
        let delay: arrow::array::Float64Array = (start..start + 10_000)
            .map(|month| match month % 5 {
                0 => None,
                1 => Some(f64::NAN),
                4 => Some(if month % 2 == 0 { 0.0 } else { -0.0 }),
                _ => Some(month as f64 / 7.0),
            })
            .collect();
        let mut columns = old.columns().to_vec();
        columns.push(Arc::new(delay));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits");
        world.insert("flights", batch).await;
    }
    let carriers = Schema::new(vec![
        Field::new("code", DataType::Utf8, false),
        Field::new("name", DataType::Utf8View, true),
    ]);
    world.create_table("carriers", &carriers);
    let codes: arrow::array::StringArray = (0..10).map(|at| Some(format!("C{at}"))).collect();
    let names: arrow::array::StringViewArray = (0..10)
        .map(|at| (at != 4).then(|| format!("carrier number {at}")))
        .collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(codes), Arc::new(names)];
    let batch = RecordBatch::try_new(Arc::new(carriers), columns).expect("fits");
    world.insert("carriers", batch).await;
    world
}

pub(super) const QUERIES: &[&str] = &[
    "SELECT count(*), sum(month), count(carrier), count(delay) FROM flights WHERE month >= 0",
    "SELECT * FROM flights WHERE month BETWEEN 29998 AND 30003 ORDER BY month",
    "SELECT month FROM flights WHERE carrier IS NULL AND month < 20 ORDER BY month",
    "SELECT carrier, count(*), avg(month) FROM flights WHERE month % 7 = 3 GROUP BY carrier ORDER BY 1",
    "SELECT count(*) FROM flights WHERE carrier LIKE 'C_' AND carrier NOT IN ('C1', 'C7')",
    "SELECT count(*) FROM flights WHERE delay > 5000 OR delay IS NULL",
    "SELECT count(*) FROM flights WHERE delay = 0.0",
    "SELECT count(*) FROM flights WHERE delay >= 0.0 AND delay < 5000",
    "SELECT count(*) FROM flights WHERE delay IN (0.0, 1.0) OR delay <> -0.0",
    "SELECT count(*) FROM flights WHERE month * 9223372036854775807 > 0 AND month + 1 > 20000",
    "SELECT max(delay), min(delay) FROM flights WHERE delay <> 'NaN'",
    "SELECT upper(carrier) || '!', month + 1 FROM flights WHERE month = 41 OR month = 55000 ORDER BY 2",
    "SELECT c.name, count(*) FROM flights f JOIN carriers c ON f.carrier = c.code \
     WHERE f.month > 12345 GROUP BY c.name ORDER BY c.name NULLS FIRST",
    "SELECT month FROM flights ORDER BY month DESC LIMIT 5",
    "SELECT month, row_number() OVER (ORDER BY month) FROM flights WHERE month > 59990 ORDER BY 1",
    "SELECT count(*) FROM (SELECT * FROM flights LIMIT 25000) x",
    "SELECT f.month FROM flights f WHERE f.month IN (SELECT month * 2 FROM flights WHERE month < 4) ORDER BY 1",
    "SELECT arrow_typeof(carrier), arrow_typeof(delay) FROM flights WHERE month = 30001",
    "SELECT arrow_typeof(name), name FROM carriers WHERE code = 'C3'",
    "SELECT CASE WHEN month > 30000 THEN 'late' ELSE 'early' END AS era, count(*) FROM flights \
     WHERE coalesce(carrier, 'none') <> 'none' GROUP BY 1 ORDER BY 1",
    // Filters that become known while the query runs.
    "SELECT f.month, c.name FROM flights f JOIN carriers c ON f.carrier = c.code \
     WHERE c.name LIKE '%7' ORDER BY f.month DESC LIMIT 5",
    "SELECT count(*) FROM flights f JOIN carriers c ON f.carrier = c.code WHERE c.name = 'nobody'",
    "SELECT count(*), sum(g.m) FROM flights f \
     JOIN (SELECT month AS m FROM flights WHERE month % 3 = 0) g ON f.month = g.m",
    "SELECT count(*) FROM flights f \
     JOIN (SELECT month AS m FROM flights WHERE month % 100 <> 7) g ON f.month = g.m",
    "SELECT count(*), count(c.name) FROM flights f LEFT JOIN carriers c ON f.carrier = c.code AND c.code > 'C5'",
    "SELECT count(*), count(f.month) FROM flights f RIGHT JOIN carriers c ON f.carrier = c.code",
    "SELECT count(*), count(f.month) FROM flights f FULL JOIN carriers c ON f.carrier = c.code AND c.code < 'C3'",
    "SELECT count(*) FROM flights f WHERE NOT EXISTS (SELECT 1 FROM carriers c WHERE c.code = f.carrier)",
    "SELECT count(*) FROM flights f JOIN flights g ON f.month = g.month AND f.carrier = g.carrier \
     WHERE g.month BETWEEN 7000 AND 9500",
    "SELECT count(*), count(f.delay) FROM flights f \
     JOIN (SELECT delay FROM flights WHERE month BETWEEN 25000 AND 25020) g ON f.delay = g.delay",
    "SELECT f.carrier, count(*), avg(g.average) FROM flights f \
     JOIN (SELECT carrier, avg(month) AS average FROM flights GROUP BY carrier) g ON f.carrier = g.carrier \
     WHERE f.month IN (12, 20012, 40012) GROUP BY f.carrier ORDER BY 1",
    "SELECT month, carrier FROM flights WHERE carrier <> 'C1' ORDER BY carrier DESC, month LIMIT 7",
    "SELECT max(month), min(month) FROM flights WHERE carrier = 'C3'",
    // What is computed for a join fails for none of the rows that the query leaves out.
    "SELECT count(*) FROM flights f JOIN carriers c ON CAST(substr(f.carrier, 2) AS INT) = length(c.code) - 1 \
     WHERE f.carrier LIKE 'C_'",
    "SELECT month, count(*) FROM flights GROUP BY month HAVING count(*) > 1 OR month = 30000",
];

#[tokio::test(flavor = "multi_thread")]
async fn near_extents_answer_as_far_ones_do() {
    let far = world().await;
    let near = world().await.near(1).await;
    let mixed = world().await.near(2).await;
    for sql in QUERIES {
        let expected = far.answer(sql).await;
        assert_eq!(near.answer(sql).await, expected, "near: {sql}");
        assert_eq!(mixed.answer(sql).await, expected, "mixed: {sql}");
    }
}

/// What the scans of a query gave to the operators above them, as it stands in the plan.
async fn scanned(world: &World, sql: &str) -> Vec<String> {
    let plan = world.rows(&format!("EXPLAIN ANALYZE {sql}")).await;
    let lines = plan.iter().flat_map(|text| text.lines());
    let scans = lines.filter(|line| line.contains("DataSourceExec"));
    let rows = scans.map(|line| line.split("output_rows=").nth(1).expect("counted"));
    rows.map(|rows| rows.split(',').next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_scan_gives_only_rows_that_will_find_a_partner() {
    let (far, near) = (world().await, world().await.near(1).await);
    // A few keys, which are looked for one by one, and many.
    for (condition, rows) in [("month IN (5, 45000)", "2"), ("month % 12 = 7", "5.00 K")] {
        let sql = format!(
            "SELECT count(*) FROM flights f \
             JOIN (SELECT month AS m FROM flights WHERE {condition}) g ON f.month = g.m"
        );
        let of_far = scanned(&far, &sql).await;
        assert!(!of_far.iter().any(|found| found == rows), "{of_far:?}");
        let of_near = scanned(&near, &sql).await;
        assert!(of_near.iter().any(|found| found == rows), "{of_near:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_gets_what_is_left_of_the_first_rows_and_not_the_first_of_what_is_left() {
    let mut near = world().await.near(1).await;
    // In one partition the scan itself stops after ten rows.
    let options = QueryOptions {
        target_partitions: 1,
        ..QueryOptions::default()
    };
    let clock = Arc::clone(&near.clock) as Arc<dyn Clock>;
    let access = Arc::clone(&near.runtime.scans.access);
    let runtime = QueryRuntime::new(options, access, clock, Entropy::from_seed(12));
    near.runtime = runtime.expect("set up");
    let sql = "SELECT count(*), sum(a.month) \
               FROM (SELECT month FROM flights ORDER BY month LIMIT 10) a \
               JOIN (VALUES (3), (8000), (45000)) d(month) ON a.month = d.month";
    assert_eq!(near.rows(sql).await, ["1 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_form_makes_the_query_begin_again_without_it() {
    let far = world().await;
    let mut near = world().await.near(1).await;
    // The first extent that is opened cannot be read, and is forgotten with that.
    let access = Arc::new(Forgetful {
        near: Arc::clone(&near.runtime.scans.access),
        forgotten: Mutex::default(),
    });
    let clock = Arc::clone(&near.clock) as Arc<dyn Clock>;
    let runtime = QueryRuntime::new(
        QueryOptions::default(),
        Arc::clone(&access) as Arc<dyn ExtentAccess>,
        clock,
        Entropy::from_seed(12),
    );
    near.runtime = runtime.expect("set up");
    let sql = "SELECT carrier, sum(month) FROM flights GROUP BY carrier ORDER BY carrier";
    let before = near.requests();
    assert_eq!(near.answer(sql).await, far.answer(sql).await);
    assert!(access.forgotten.lock().is_some());
    assert!(near.requests().get > before.get, "it came from the bucket");
}

/// Gives a reader that fails for the first extent, once.
#[derive(Debug)]
struct Forgetful {
    near: Arc<dyn ExtentAccess>,
    forgotten: Mutex<Option<Path>>,
}

#[async_trait]
impl ExtentAccess for Forgetful {
    fn path(&self, database: DatabaseId, extent: ExtentId) -> Path {
        self.near.path(database, extent)
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        self.near.store()
    }

    fn has_local_forms(&self) -> bool {
        true
    }

    fn is_local(&self, path: &Path) -> bool {
        self.forgotten.lock().as_ref() != Some(path)
    }

    fn open_local(&self, path: &Path) -> Option<LocalExtent> {
        let local = self.near.open_local(path)?;
        let mut forgotten = self.forgotten.lock();
        match &*forgotten {
            Some(known) if known == path => None,
            Some(_) => Some(local),
            None => {
                *forgotten = Some(path.clone());
                let reader = Arc::new(Broken(local.size_bytes));
                Some(LocalExtent { reader, ..local })
            }
        }
    }
}

struct Broken(u64);

impl VortexReadAt for Broken {
    fn concurrency(&self) -> usize {
        1
    }

    fn size(&self) -> BoxFuture<'static, VortexResult<u64>> {
        std::future::ready(Ok(self.0)).boxed()
    }

    fn read_at(
        &self,
        _: u64,
        _: usize,
        _: Alignment,
    ) -> BoxFuture<'static, VortexResult<BufferHandle>> {
        let error = std::io::Error::other("the bytes are not those that were written");
        std::future::ready(Err(VortexError::from(error))).boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_explain_says_what_would_be_read_from_where() {
    let far = world().await;
    let mixed = world().await.near(2).await;
    let bill = async |world: &World, sql: &str| {
        let rows = world.rows(&format!("EXPLAIN {sql}")).await;
        let at = rows.iter().position(|row| row.starts_with("reading "));
        rows[at.expect("a row about reading")..].join(" ")
    };
    let sql = "SELECT sum(month) FROM flights WHERE month >= 10000 AND month < 30000";
    let before = far.requests();
    let all_far = bill(&far, sql).await;
    assert!(
        all_far.contains("flights_db.flights: extents=2, memory<=0 B, disk<=0 B, bucket<="),
        "{all_far}"
    );
    assert!(all_far.contains("requests<=4"), "{all_far}");
    assert!(all_far.contains("(assumed)"), "{all_far}");
    assert_eq!(far.requests(), before, "nothing was read");
    let half = bill(&mixed, sql).await;
    assert!(
        half.contains("extents=2, memory<=0 B, disk<=") && half.contains("requests<=2"),
        "{half}"
    );
    assert!(!half.contains("disk<=0 B"), "{half}");
    // What is in memory needs no disk; more than is wanted does not count.
    let pace = ReadPace {
        disk_bytes_per_second: Some(1 << 20),
        ..ReadPace::default()
    };
    let near = world().await.near_at(1, 100, pace).await;
    let split = bill(&near, sql).await;
    assert!(
        split.contains("memory<=200 B, disk<=") && split.contains("requests<=0"),
        "{split}"
    );
    assert!(split.contains("ms (measured)"), "{split}");
    let near = world().await.near_at(1, u64::MAX, pace).await;
    let in_memory = bill(&near, sql).await;
    assert!(
        in_memory.contains("disk<=0 B, bucket<=0 B, requests<=0, reading<=0 ms"),
        "{in_memory}"
    );
    let none = bill(&far, "SELECT count(*) FROM flights").await;
    assert!(none.contains("nothing is read"), "{none}");
    // With the footers in memory, it is the wanted columns' own bytes.
    far.answer(sql).await;
    let known = bill(&far, sql).await;
    assert_ne!(known, all_far);
}

#[tokio::test(flavor = "multi_thread")]
async fn a58_the_scope_of_a_table_beats_that_of_the_request() {
    let mut world = world().await.near(2).await;
    let count = "SELECT count(*), min(month), max(month) FROM flights";
    let whole = ["60000 0 59999"];
    // Every second extent is hot.
    let hot = ["30000 10000 59999"];
    let of_table = |scope: &str| {
        format!("SELECT count(*), min(month), max(month) FROM datascope('flights', '{scope}')")
    };
    assert_eq!(world.rows(count).await, whole);
    assert_eq!(world.rows(&of_table("hotcache")).await, hot);
    world.scope = DataScope::HotCache;
    assert_eq!(world.rows(count).await, hot);
    assert_eq!(world.rows(&of_table("all")).await, whole);
    assert_eq!(world.rows(&of_table("default")).await, whole);
    let late = "SELECT count(*) FROM flights WHERE month >= 25000";
    assert_eq!(world.rows(late).await, ["20000"]);
    let wrong = world.error(&of_table("warm")).await;
    assert!(
        wrong.to_string().contains("'warm' is no data scope"),
        "{wrong}"
    );
    let missing = world
        .error("SELECT * FROM datascope('flight', 'all')")
        .await;
    assert!(
        missing.to_string().contains("no table 'flight'"),
        "{missing}"
    );
}

#[test]
fn a_request_may_begin_with_its_scope() {
    let parse = |sql: &str| {
        let mut statements = crate::QuerySession::parse(sql).expect("SQL");
        let settings = crate::take_settings(&mut statements);
        let scope = settings.map(|settings| settings.scope);
        (scope, statements.len())
    };
    let (scope, left) = parse("SET query_datascope = 'hotcache'; SELECT 1");
    assert_eq!(
        (scope.expect("known"), left),
        (Some(DataScope::HotCache), 1)
    );
    let (scope, left) = parse("SELECT 1");
    assert_eq!((scope.expect("none"), left), (None, 1));
    let (scope, left) = parse("SET other = 1; SELECT 1");
    assert_eq!((scope.expect("not ours"), left), (None, 2));
    assert!(parse("SET query_datascope = 'warm'; SELECT 1").0.is_err());
}

#[test]
fn a_request_may_begin_with_the_version_that_it_reads() {
    let parse = |sql: &str| {
        let mut statements = crate::QuerySession::parse(sql).expect("SQL");
        let settings = crate::take_settings(&mut statements);
        settings.map(|settings| (settings, statements.len()))
    };
    let both = "SET version = 12; SET query_datascope = 'hotcache'; SELECT 1";
    let expected = crate::Settings {
        scope: Some(DataScope::HotCache),
        version: Some(slipstream_model::Version::new(12)),
    };
    assert_eq!(parse(both).expect("known"), (expected, 1));
    let none = parse("SELECT 1").expect("nothing to read");
    assert_eq!(none, (crate::Settings::default(), 1));
    for wrong in ["-1", "'x'", "1.5"] {
        let error = parse(&format!("SET version = {wrong}; SELECT 1"));
        let error = error.expect_err("no version").to_string();
        assert!(error.contains("the number of a version"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_near_extents_makes_no_request_and_counts_what_it_reads() {
    let near = world().await.near(1).await;
    let before = near.requests();
    let mut stream = near
        .stream("SELECT sum(delay), max(carrier) FROM flights WHERE month > 100 AND month < 50000")
        .await
        .expect("starts");
    while let Some(batch) = futures::StreamExt::next(&mut stream).await {
        batch.expect("reads");
    }
    let statistics = stream.statistics();
    assert_eq!(near.requests(), before);
    assert_eq!(
        (statistics.reads.requests, statistics.reads.extents_scanned),
        (0, 5)
    );
    assert!(statistics.reads.hot_hit_bytes > 0, "{statistics:?}");
    assert_eq!(
        statistics.reads.hot_hit_bytes,
        statistics.reads.bytes_scanned()
    );
    assert_eq!(
        statistics.tables.keys().collect::<Vec<_>>(),
        ["flights_db.flights"]
    );
}
