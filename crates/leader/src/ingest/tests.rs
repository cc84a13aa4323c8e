//! Claims about ingestion.

use std::io::Write;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;
use slipstream_model::{Entropy, Epoch, Extent, ManualClock, StatisticValue};

use super::*;

mod columnar;
mod text;
mod write;

struct World {
    context: IngestContext,
    text: TextOptions,
    _spool: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(1)));
        let entropy = Entropy::from_seed(1);
        let spool = tempfile::tempdir().expect("temporary directory");
        let bucket = BucketWriter::memory(Arc::clone(&clock), entropy.clone()).await;
        let database = DatabaseId::default();
        let of_ids = (bucket.clone(), Arc::clone(&clock), entropy);
        let context = IngestContext {
            ids: ExtentIds::new(of_ids.0, of_ids.1, of_ids.2, database, Epoch::FIRST),
            bucket,
            clock,
            database,
            created_on: Timestamp::from_micros(7),
            tags: BTreeSet::from(["t".to_owned()]),
            encoding: Arc::new(Semaphore::new(2)),
            options: IngestOptions::in_directory(spool.path().to_owned()).expect("made"),
        };
        Self {
            context,
            text: TextOptions::default(),
            _spool: spool,
        }
    }

    async fn open(
        &self,
        name: &str,
        chunks: Vec<Vec<u8>>,
        table: Option<&TableSchema>,
        bad_rows_max: u64,
    ) -> Result<OpenSource, ServiceError> {
        let chunks = chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk)));
        let body = IngestSource::Body(futures::stream::iter(chunks).boxed());
        let text = &self.text;
        open_source(&self.context, body, None, name, text, table, bad_rows_max).await
    }

    /// All rows as one batch.
    async fn rows(
        &self,
        name: &str,
        text: &str,
        table: Option<&TableSchema>,
    ) -> Result<RecordBatch, ServiceError> {
        // Cut into small chunks, as a network may.
        let chunks = text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
        let source = self.open(name, chunks, table, 0).await?;
        let batches: Vec<_> = source.batches.try_collect().await?;
        let schema = Arc::new(source.schema);
        arrow::compute::concat_batches(&schema, &batches)
            .map_err(|error| ServiceError::internal(error.to_string()))
    }
}

fn table(columns: &[(&str, DataType, bool)]) -> TableSchema {
    let field = |(name, data_type, nullable): &(&str, DataType, bool)| {
        Field::new(*name, data_type.clone(), *nullable)
    };
    TableSchema::new(&Schema::new(columns.iter().map(field).collect::<Vec<_>>())).expect("valid")
}

fn numbers(batch: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    batch
        .column(column)
        .as_primitive::<Int64Type>()
        .iter()
        .collect()
}

#[tokio::test]
async fn columns_of_a_new_table_get_the_types_that_flights_need() {
    let world = World::new().await;
    let text = "year,dep_delay,carrier,time_hour\n2013,NA,UA,2013-01-01T10:00:00Z\n2013,2.5,NA,2013-01-01T11:00:00Z\n";
    let batch = world
        .rows("flights.csv", text, None)
        .await
        .expect("readable");
    let types: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(
        types,
        [DataType::Int64, DataType::Float64, DataType::Utf8, utc]
    );
    assert_eq!(batch.num_rows(), 2);
    assert!(batch.column(1).is_null(0) && batch.column(2).is_null(1));
}

#[tokio::test]
async fn a_bad_row_is_named_with_file_line_column_and_value() {
    let world = World::new().await;
    let table = table(&[("a", DataType::Utf8, true), ("n", DataType::Int64, true)]);
    // A quoted line end before the bad row: lines are counted as an editor counts them.
    let text = "a,n\n\"two\nlines\",1\nx,2\ny,three\n";
    let error = world
        .rows("f.csv", text, Some(&table))
        .await
        .expect_err("a bad row");
    assert_eq!(error.code(), "bad_row");
    for part in [
        "f.csv",
        "line 5",
        "'n'",
        "'three'",
        "Int64",
        "Nothing was ingested",
    ] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_bad_row_far_into_a_large_file_is_named_too() {
    let world = World::new().await;
    let table = table(&[("n", DataType::Int64, true)]);
    let mut text = String::from("n\n");
    for n in 0..600_000 {
        text.push_str(if n == 555_555 { "oops\n" } else { "1234567\n" });
    }
    let chunks = text
        .into_bytes()
        .chunks(1 << 16)
        .map(<[u8]>::to_vec)
        .collect();
    let source = world
        .open("f.csv", chunks, Some(&table), 0)
        .await
        .expect("opens");
    let error = source
        .batches
        .try_collect::<Vec<_>>()
        .await
        .expect_err("a bad row");
    assert!(error.message().contains("line 555557"), "{error}");
}

#[tokio::test]
async fn rows_that_do_not_fit_are_left_out_up_to_the_limit() {
    let world = World::new().await;
    let table = table(&[("n", DataType::Int64, false), ("s", DataType::Utf8, true)]);
    let text = "n,s\n1,a\nx,b\n2,c,d\n,e\n3,f\n";
    let open = |max| world.open("f.csv", vec![text.as_bytes().to_vec()], Some(&table), max);

    let source = open(3).await.expect("opens");
    let batches: Vec<_> = source
        .batches
        .try_collect()
        .await
        .expect("within the limit");
    let rows: Vec<_> = batches.iter().flat_map(|batch| numbers(batch, 0)).collect();
    assert_eq!(rows, [Some(1), Some(3)]);
    let rejects = source.rejects.take();
    let lines: Vec<_> = rejects.iter().map(|reject| reject.line).collect();
    assert_eq!(lines, [3, 4, 5]);
    assert_eq!(rejects[0].row.as_deref(), Some("x,b"));
    assert!(
        rejects[1].reason.contains("3 values where 2"),
        "{:?}",
        rejects[1]
    );
    assert!(rejects[2].reason.contains("NOT NULL"), "{:?}", rejects[2]);

    let source = open(2).await.expect("opens");
    let error = source
        .batches
        .try_collect::<Vec<_>>()
        .await
        .expect_err("one too many");
    assert!(error.message().contains("2 allowed"), "{error}");
}

#[tokio::test]
async fn columns_are_matched_by_name_and_missing_ones_are_null() {
    let world = World::new().await;
    let table = table(&[
        ("a", DataType::Int64, true),
        ("b", DataType::Int64, true),
        ("c", DataType::Int64, true),
    ]);
    let batch = world
        .rows("f.csv", "C,a\n3,1\n", Some(&table))
        .await
        .expect("readable");
    let row: Vec<_> = (0..3).map(|column| numbers(&batch, column)[0]).collect();
    assert_eq!(row, [Some(1), None, Some(3)]);
    let error = world
        .rows("f.csv", "a,z\n1,2\n", Some(&table))
        .await
        .expect_err("unknown column");
    assert!(
        error.message().contains("'z'") && error.message().contains("a, b, c"),
        "{error}"
    );
}

#[tokio::test]
async fn line_ends_quotes_byte_order_marks_and_gzip_are_understood() {
    let world = World::new().await;
    let text = "\u{feff}a,b\r\n1,\"x, \"\"y\"\"\"\r\n2,\r\n";
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    for bytes in [text.as_bytes().to_vec(), gzip.finish().expect("memory")] {
        let source = world
            .open("f.csv.gz", vec![bytes], None, 0)
            .await
            .expect("opens");
        let batches: Vec<_> = source.batches.try_collect().await.expect("readable");
        assert_eq!(source.schema.field(0).name(), "a");
        let texts = batches[0].column(1).as_string::<i32>();
        assert_eq!(texts.value(0), "x, \"y\"");
        assert!(texts.is_null(1));
    }
}

#[tokio::test]
async fn json_lines_are_read_strictly() {
    let world = World::new().await;
    let good = "{\"n\": 1, \"tags\": [\"a\"]}\n{\"tags\": []}\n";
    let batch = world.rows("f.jsonl", good, None).await.expect("readable");
    assert_eq!(
        numbers(&batch, batch.schema().index_of("n").expect("found")),
        [Some(1), None]
    );

    let table = table(&[("n", DataType::Int64, true)]);
    for (text, part) in [
        ("{\"n\": 1}\n{\"n\": \"x\"}\n", "'x' is not a Int64"),
        ("{\"n\": 1}\n{\"m\": 2}\n", "no such column"),
        ("{\"n\": 1}\n{\"n\": \n", "not JSON"),
    ] {
        let error = world
            .rows("f.jsonl", text, Some(&table))
            .await
            .expect_err("a bad row");
        assert!(error.message().contains("line 2"), "{error}");
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_source_that_is_not_what_it_says_is_refused() {
    let world = World::new().await;
    for (name, code) in [
        ("f.parquet", "corrupt_source"),
        ("f.arrow", "corrupt_source"),
        ("f.unknown", "unknown_format"),
    ] {
        let error = world
            .open(name, vec![b"garbage, not a file".to_vec()], None, 0)
            .await;
        assert_eq!(error.err().map(|error| error.code()), Some(code), "{name}");
    }
    let error = world.rows("f.csv", "", None).await.expect_err("empty");
    assert!(error.message().contains("empty"), "{error}");
}

async fn write(world: &World, batches: Vec<RecordBatch>) -> Vec<Extent> {
    let schema = table(&[("n", DataType::Int64, false)]);
    let batches = futures::stream::iter(batches.into_iter().map(Ok::<_, ServiceError>));
    write_extents(&world.context, &schema, batches)
        .await
        .expect("written")
}

fn range(numbers: std::ops::Range<i64>) -> RecordBatch {
    let schema = table(&[("n", DataType::Int64, false)]).arrow();
    RecordBatch::try_new(
        schema,
        vec![Arc::new(Int64Array::from_iter_values(numbers))],
    )
    .expect("valid")
}

#[tokio::test]
async fn extents_are_cut_where_they_are_full_and_keep_the_order() {
    let mut world = World::new().await;
    world.context.options.extent_rows_max = 1_000;
    let batches = (0..25).map(|n| range(n * 100..(n + 1) * 100)).collect();
    let extents = write(&world, batches).await;
    let rows: Vec<_> = extents.iter().map(|extent| extent.row_count).collect();
    assert_eq!(rows, [1_000, 1_000, 500]);
    let starts: Vec<_> = extents
        .iter()
        .map(|extent| extent.columns[0].min.clone())
        .collect();
    let starts_expected = [0, 1_000, 2_000].map(|n| Some(StatisticValue::Int(n)));
    assert_eq!(starts, starts_expected);
    for extent in &extents {
        let path = slipstream_storage::BucketPath::extent(world.context.database, extent.id);
        let bytes = world.context.bucket.get(&path).await.expect("uploaded");
        assert_eq!(slipstream_model::Digest::of(&bytes), extent.sha256);
        assert_eq!(
            (extent.max_created_on, extent.tags.len()),
            (Timestamp::from_micros(7), 1)
        );
    }
}

#[tokio::test]
async fn no_rows_make_no_extent() {
    let world = World::new().await;
    assert!(write(&world, vec![range(0..0)]).await.is_empty());
}
