//! Parquet and Arrow: what goes in comes out as it was, or is refused by name.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, Float32Array, Float64Array, ListArray, NullArray, RecordBatchOptions,
    StringArray, StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt8Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Fields, Int8Type, Int32Type};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

const NAMES: [&str; 3] = ["f.parquet", "f.arrow", "f.feather"];

fn encoded(name: &str, batch: &RecordBatch) -> Vec<u8> {
    let (mut bytes, schema) = (Vec::new(), batch.schema());
    match name {
        "f.parquet" => {
            let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).expect("memory");
            writer.write(batch).expect("memory");
            writer.close().expect("memory");
        }
        "f.arrow" => {
            let mut writer = StreamWriter::try_new(&mut bytes, &schema).expect("memory");
            writer.write(batch).expect("memory");
            writer.finish().expect("memory");
        }
        _ => {
            let mut writer = FileWriter::try_new(&mut bytes, &schema).expect("memory");
            writer.write(batch).expect("memory");
            writer.finish().expect("memory");
        }
    }
    bytes
}

/// Three rows of many types, the second one null.
fn many_types() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let inner = Arc::new(Field::new("n", DataType::Int64, true));
    let nulls = arrow::buffer::NullBuffer::from(vec![true, false, true]);
    let structs = StructArray::new(vec![inner].into(), vec![Arc::clone(&numbers)], Some(nulls));
    let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
    let words = [Some("a"), None, Some("a")];
    let bytes = [Some(b"ab".as_slice()), None, Some(b"cd".as_slice())];
    let money = Decimal128Array::from(vec![Some(12_345), None, Some(-1)]);
    let zoned = TimestampMicrosecondArray::from(vec![Some(1), None, Some(3)]);
    let columns: Vec<ArrayRef> = vec![
        numbers,
        Arc::new(structs),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        Arc::new(DictionaryArray::<Int8Type>::from_iter(words)),
        Arc::new(StringArray::from_iter(words)),
        Arc::new(StringViewArray::from_iter(words)),
        Arc::new(BinaryArray::from_iter(bytes)),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 2)
                .expect("two bytes"),
        ),
        Arc::new(money.with_precision_and_scale(10, 2).expect("fits")),
        Arc::new(zoned.with_timezone("Europe/Berlin")),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(3)])),
        Arc::new(Date32Array::from(vec![Some(1), None, Some(3)])),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::NAN)])),
        Arc::new(UInt8Array::from(vec![Some(255), None, Some(0)])),
    ];
    let named = columns.into_iter().enumerate();
    RecordBatch::try_from_iter_with_nullable(
        named.map(|(n, column)| (format!("c{n}"), column, true)),
    )
    .expect("valid")
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_from_every_format() {
    let world = World::new().await;
    let batch = many_types();
    let table = TableSchema::new(&batch.schema()).expect("valid");
    for name in NAMES {
        for table in [None, Some(&table)] {
            // Cut into small chunks, as a network may.
            let bytes = encoded(name, &batch);
            let chunks = bytes.chunks(5).map(<[u8]>::to_vec).collect();
            let source = world.open(name, chunks, table, 0).await.expect(name);
            let batches: Vec<_> = source.batches.try_collect().await.expect(name);
            assert_eq!(batches.len(), 1, "{name}");
            for (found, expected) in batches[0].columns().iter().zip(batch.columns()) {
                assert_eq!(found, expected, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_named_by_row_and_left_out_when_allowed() {
    let world = World::new().await;
    let values: ArrayRef = Arc::new(Float64Array::from(vec![
        Some(1.0),
        Some(2.5),
        None,
        Some(-0.0),
    ]));
    let batch = RecordBatch::try_from_iter_with_nullable([("N", values, true)]).expect("valid");
    let table = table(&[
        ("n", DataType::Int64, false),
        ("more", DataType::Utf8, true),
    ]);
    for name in NAMES {
        let open = |max| world.open(name, vec![encoded(name, &batch)], Some(&table), max);
        let source = open(0).await.expect("opens");
        let error = source
            .batches
            .try_collect::<Vec<_>>()
            .await
            .expect_err("2.5 is not whole");
        for part in [
            name,
            "row 2",
            "'2.5' is not a Int64",
            "Nothing was ingested",
        ] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        let source = open(2).await.expect("opens");
        let batches: Vec<_> = source.batches.try_collect().await.expect("allowed");
        assert_eq!(numbers(&batches[0], 0), [Some(1), Some(0)]);
        assert_eq!(batches[0].column(1).null_count(), 2);
        let rejects = source.rejects.take();
        assert_eq!(rejects[1].line, 3);
        assert!(rejects[1].reason.contains("NOT NULL"), "{:?}", rejects[1]);
    }
}

#[tokio::test]
async fn columns_that_cannot_fit_are_refused_before_a_row_is_read() {
    let world = World::new().await;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let batch =
        |name: &str| RecordBatch::try_from_iter([(name, Arc::clone(&texts))]).expect("valid");
    let table = table(&[("a", list(), true), ("b", DataType::Utf8, false)]);
    for (column, parts) in [
        ("z", ["'z'", "a, b"]),
        ("a", ["'b'", "NOT NULL"]),
        ("B", ["", ""]),
    ] {
        let opened = world
            .open(
                "f.parquet",
                vec![encoded("f.parquet", &batch(column))],
                Some(&table),
                9,
            )
            .await;
        match opened {
            Ok(_) => assert_eq!(column, "B"),
            Err(error) => {
                for part in parts {
                    assert!(error.message().contains(part), "{part}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn fields_within_columns_go_by_their_names() {
    let world = World::new().await;
    let fields = |names: [&str; 2]| -> Fields {
        names
            .map(|name| Field::new(name, DataType::Int64, true))
            .into_iter()
            .collect()
    };
    let structs = |names| -> ArrayRef {
        let columns = [1, 2].map(|n| Arc::new(Int64Array::from(vec![n])) as ArrayRef);
        Arc::new(StructArray::new(fields(names), columns.to_vec(), None))
    };
    let listed = |names| -> ArrayRef {
        let structs = structs(names);
        let field = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
        Arc::new(ListArray::new(
            field,
            OffsetBuffer::from_lengths([1]),
            structs,
            None,
        ))
    };
    let places = DataType::Struct(fields(["lat", "lon"]));
    let lists = DataType::List(Arc::new(Field::new_list_field(places.clone(), true)));
    let table = table(&[("p", places, true), ("l", lists, true)]);
    let batch = |names, listed_names| {
        let columns = [("p", structs(names)), ("l", listed(listed_names))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true)))
            .expect("valid")
    };
    let (same, other) = (["lon", "lat"], ["lat", "lng"]);
    let batches = taken(&world, vec![batch(same, same)], &table).await;
    let lists = batches[0].column(1).as_list::<i32>().value(0);
    for structs in [batches[0].column(0), &lists] {
        let latitudes = structs.as_struct().column_by_name("lat").expect("found");
        assert_eq!(latitudes.as_primitive::<Int64Type>().value(0), 2);
    }
    for (names, listed, column) in [(other, same, "'p'"), (same, other, "'l'")] {
        let opened = open_batches(&world, vec![batch(names, listed)], Some(&table), 9).await;
        let error = opened.err().expect("another name").to_string();
        assert!(
            error.contains(column) && error.contains("cannot become"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn no_column_is_taken_twice() {
    let world = World::new().await;
    let table = table(&[("a", DataType::Int64, true), ("A", DataType::Int64, true)]);
    let batch = |name: &str| {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        RecordBatch::try_from_iter_with_nullable([(name, values, true)]).expect("valid")
    };
    for (name, expected) in [("a", [Some(7), None]), ("A", [None, Some(7)])] {
        let batches = taken(&world, vec![batch(name)], &table).await;
        assert_eq!(
            [0, 1].map(|column| numbers(&batches[0], column)[0]),
            expected
        );
    }
    let table = super::table(&[("ab", DataType::Int64, true), ("AB", DataType::Int64, true)]);
    let opened = open_batches(&world, vec![batch("Ab")], Some(&table), 0).await;
    let error = opened.err().expect("it may be both").to_string();
    assert!(error.contains("either of two columns"), "{error}");
}

fn list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)))
}

#[tokio::test]
async fn headers_of_pages_are_looked_at_before_they_are_read() {
    let world = World::new().await;
    let mut damaged = encoded("f.parquet", &many_types());
    // The first one stands behind the magic. Its first field gets the number of none.
    assert_eq!(damaged[4], 0x15);
    damaged[4] = 0x05;
    let source = world.open("f.parquet", vec![damaged], None, 0).await;
    let batches = source.expect("opens").batches.try_collect::<Vec<_>>();
    let error = batches.await.expect_err("no header");
    assert_eq!(error.code(), "corrupt_source");
    assert!(error.message().contains("in no order"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_damaged_is_refused_whole() {
    let world = World::new().await;
    let batch = many_types();
    for name in NAMES {
        let whole = encoded(name, &batch);
        for length in (1..whole.len() - 20).step_by(97) {
            let opened = world
                .open(name, vec![whole[..length].to_vec()], None, 9)
                .await;
            let read = match opened {
                Ok(source) => source.batches.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            // A stream without its end mark may stop between two batches: then nothing is there.
            let rows = read.map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>());
            assert!(
                rows.as_ref().map_or(true, |rows| *rows == 0),
                "{name} {length}: {rows:?}"
            );
        }
        // Damage in the middle: an error or other values, never a panic that looks like the end.
        for position in (8..whole.len()).step_by(31) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x55;
            let opened = world.open(name, vec![damaged], None, 9).await;
            let read = match opened {
                Ok(source) => source.batches.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &read {
                assert_eq!(error.code(), "corrupt_source", "{name} {position}: {error}");
            }
            if let Ok(batches) = read {
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                assert!(
                    rows == 3 || name == "f.arrow",
                    "{name} {position}: {rows} rows"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_fails_with_its_own_error() {
    let world = World::new().await;
    let batch = many_types();
    for name in NAMES {
        let start = encoded(name, &batch)[..300].to_vec();
        let chunks = [
            Ok(start.into()),
            Err(ServiceError::invalid("the body broke off")),
        ];
        let body = IngestSource::Body(futures::stream::iter(chunks).boxed());
        let opened = open_source(&world.context, body, None, name, &world.text, None, 0).await;
        let read = match opened {
            Ok(source) => source.batches.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        assert_eq!(read.expect_err(name).message(), "the body broke off");
    }
}

/// The code by which a source is refused; `None` when it is taken.
async fn refusal(name: &str, bytes: Vec<u8>) -> Option<String> {
    let world = World::new().await;
    let read = match world.open(name, vec![bytes], None, 0).await {
        Ok(source) => source.batches.try_collect::<Vec<_>>().await.map(drop),
        Err(error) => Err(error),
    };
    read.err().map(|error| error.code().to_owned())
}

#[tokio::test]
async fn lengths_that_arrow_data_claims_are_not_believed() {
    let petabyte =
        include_bytes!("../../../../../fuzz/corpus/parquet_ingest/arrow_body_of_a_petabyte");
    // What comes before it says to the fuzzer which format it is.
    let refused = refusal("f.arrow", petabyte[1..].to_vec()).await;
    assert_eq!(refused.as_deref(), Some("corrupt_source"));

    let file = encoded("f.feather", &many_types());
    let trailer = file.len() - 10;
    let length = file[trailer..trailer + 4].try_into().expect("four bytes");
    let footer_at = trailer - usize::try_from(i32::from_le_bytes(length)).expect("positive");
    // A block of the footer is an offset and the lengths of its metadata and its body.
    let mut refused = 0;
    for at in (footer_at..trailer - 8).step_by(4) {
        let mut damaged = file.clone();
        damaged[at..at + 8].copy_from_slice(&(1_i64 << 50).to_le_bytes());
        refused += usize::from(refusal("f.feather", damaged).await.is_some());
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn parquet_columns_that_are_nested_without_end_are_refused() {
    // Nothing but elements of a schema: each is called "g", and has one other.
    let groups = 1_u32 << 17;
    let mut footer = vec![0x15, 2, 0x19, 0xFC, 0x80, 0x80, 8];
    for _ in 0..groups {
        footer.extend([0x48, 1, b'g', 0x15, 2, 0]);
    }
    let length = u32::try_from(footer.len()).expect("small").to_le_bytes();
    let file = [b"PAR1", &footer[..], &length, b"PAR1"].concat();
    let refused = refusal("f.parquet", file).await;
    assert_eq!(refused.as_deref(), Some("corrupt_source"));
}

/// What becomes of batches that fit a table.
async fn taken(world: &World, batches: Vec<RecordBatch>, table: &TableSchema) -> Vec<RecordBatch> {
    let opened = open_batches(world, batches, Some(table), 0).await;
    let batches = opened.expect("opens").batches;
    batches.try_collect().await.expect("fits")
}

/// Batches as Flight brings them.
async fn open_batches(
    world: &World,
    batches: Vec<RecordBatch>,
    table: Option<&TableSchema>,
    bad_rows_max: u64,
) -> Result<OpenSource, ServiceError> {
    let schema = batches[0].schema();
    let batches = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
    let source = IngestSource::Batches(schema, batches);
    let text = &world.text;
    open_source(
        &world.context,
        source,
        None,
        "batches",
        text,
        table,
        bad_rows_max,
    )
    .await
}

#[tokio::test]
async fn batches_over_flight_are_checked_and_cut_as_those_of_files() {
    let world = World::new().await;
    let table = table(&[("n", DataType::Int64, true)]);
    let nulls = |rows| {
        let nulls: ArrayRef = Arc::new(NullArray::new(rows));
        RecordBatch::try_from_iter_with_nullable([("n", nulls, true)]).expect("valid")
    };
    for table in [None, Some(&table)] {
        let source = open_batches(&world, vec![nulls(1 << 44)], table, 9).await;
        let mut batches = source.expect("opens").batches;
        let error = batches.try_next().await.expect_err("too many rows");
        assert_eq!(error.code(), "invalid_argument");
        assert!(error.message().contains("are the most"), "{error}");

        let source = open_batches(&world, vec![nulls(1 << 30)], table, 9).await;
        let mut batches = source.expect("opens").batches;
        let first = batches.try_next().await.expect("fits").expect("a piece");
        assert_eq!(first.num_rows(), BATCH_ROWS);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    let opened = open_batches(&world, vec![batch.expect("rows")], Some(&table), 0).await;
    let refused = opened.err().map(|error| error.message().to_owned());
    assert_eq!(refused.as_deref(), Some("batches has no columns"));
}

#[tokio::test]
async fn rows_that_do_not_fit_are_found_wherever_they_stand() {
    let world = World::new().await;
    let table = table(&[("n", DataType::Int64, false)]);
    let rows = BATCH_ROWS * 3 + 5;
    let bad = [0, 1, 4_000, BATCH_ROWS, BATCH_ROWS + 1, rows - 1];
    let number = |row: usize| if bad.contains(&row) { 0.5 } else { row as f64 };
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(number)));
    let batch = RecordBatch::try_from_iter([("n", values)]).expect("valid");
    let source = open_batches(&world, vec![batch], Some(&table), 6)
        .await
        .expect("opens");
    let batches: Vec<_> = source.batches.try_collect().await.expect("allowed");
    let kept: Vec<_> = batches.iter().flat_map(|batch| numbers(batch, 0)).collect();
    let expected = (0..rows).filter(|row| !bad.contains(row));
    assert!(kept.into_iter().eq(expected.map(|row| Some(row as i64))));
    let rejects = source.rejects.take();
    let found: Vec<_> = rejects
        .iter()
        .map(|reject| reject.line as usize - 1)
        .collect();
    assert_eq!(found, bad);
}

#[tokio::test]
async fn rows_without_columns_are_refused() {
    let world = World::new().await;
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    let stream = encoded("f.arrow", &batch.expect("rows"));
    for table in [None, Some(&table(&[("a", DataType::Int64, true)]))] {
        let opened = world.open("f.arrow", vec![stream.clone()], table, 0).await;
        let refused = opened.err().map(|error| error.message().to_owned());
        assert_eq!(refused.as_deref(), Some("f.arrow has no columns"));
    }
}

#[test]
fn rows_are_as_wide_as_they_are_decoded() {
    let words = StringArray::from_iter_values(std::iter::repeat_n("x".repeat(1 << 16), 400));
    let batch = RecordBatch::try_from_iter([("word", Arc::new(words) as ArrayRef)]);
    let file = encoded("f.parquet", &batch.expect("a batch"));
    assert!(file.len() < 1 << 20, "the word is there once");
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("a file");
    assert!((100..=128).contains(&batch_rows(builder.metadata())));
}
