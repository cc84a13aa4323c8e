//! Text: where records end, what is refused, and what is never changed on the way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::StringArray;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Int8Type, Time64MicrosecondType, TimestampSecondType,
};

use super::*;

/// More than fits in one block, so that cuts and line counts matter.
const SEVERAL_BLOCKS: usize = 3 << 20;

impl World {
    /// All rows, from large chunks.
    async fn all(
        &self,
        name: &str,
        text: String,
        table: Option<&TableSchema>,
    ) -> Result<RecordBatch, ServiceError> {
        let chunks = text
            .into_bytes()
            .chunks(60_000)
            .map(<[u8]>::to_vec)
            .collect();
        let source = self.open(name, chunks, table, 0).await?;
        let batches: Vec<_> = source.batches.try_collect().await?;
        let schema = Arc::new(source.schema);
        Ok(arrow::compute::concat_batches(&schema, &batches).expect("one schema"))
    }

    async fn error(&self, name: &str, text: &str, table: Option<&TableSchema>) -> String {
        let rows = self.all(name, text.to_owned(), table).await;
        rows.expect_err(text).to_string()
    }
}

fn texts(batch: &RecordBatch, column: usize) -> &StringArray {
    batch.column(column).as_string::<i32>()
}

fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

#[tokio::test]
async fn inch_marks_do_not_shift_the_cuts_between_blocks() {
    let world = World::new().await;
    let table = table(&[("s", DataType::Utf8, true), ("n", DataType::Int64, true)]);
    // An odd number of quotes that are text, then quotes that hold an end of line.
    let mut text = String::from("s,n\n");
    let mut rows = 0;
    while text.len() < SEVERAL_BLOCKS {
        text.push_str("5\" disk,1\n\"two\nlines, and \"\"quotes\"\"\",2\n3\" disk,3\n4\" disk,4\n");
        rows += 4;
    }
    let batch = world
        .all("f.csv", text, Some(&table))
        .await
        .expect("readable");
    assert_eq!(batch.num_rows(), rows);
    for row in 0..rows {
        let (expected, number) = match row % 4 {
            0 => ("5\" disk", 1),
            1 => ("two\nlines, and \"quotes\"", 2),
            2 => ("3\" disk", 3),
            _ => ("4\" disk", 4),
        };
        assert_eq!(texts(&batch, 0).value(row), expected, "row {row}");
        assert_eq!(
            batch.column(1).as_primitive::<Int64Type>().value(row),
            number
        );
    }
}

#[tokio::test]
async fn a_quote_that_is_never_closed_does_not_swallow_the_rest() {
    let world = World::new().await;
    let table = table(&[("s", DataType::Utf8, true)]);
    let text = b"s\nx\n\"y\nz\nz\n".to_vec();
    for bad_rows_max in [0, 100] {
        let source = world
            .open("f.csv", vec![text.clone()], Some(&table), bad_rows_max)
            .await;
        let read = match source {
            Ok(source) => source.batches.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        let error = read.expect_err("a quote is open");
        assert_contains(
            error.message(),
            &["f.csv, line 3", "never closed", "Nothing was"],
        );
    }
}

#[tokio::test]
async fn lines_are_counted_across_blocks_and_quoted_line_ends() {
    let world = World::new().await;
    let table = table(&[("s", DataType::Utf8, true), ("n", DataType::Int64, true)]);
    let (mut text, mut line) = (String::from("s,n\n"), 1);
    while text.len() < SEVERAL_BLOCKS {
        text.push_str("\"two\nlines\",1\n\nx,2\r\n");
        line += 4;
    }
    text.push_str("\"two\nlines\",three\ny,4\n");
    let error = world.error("f.csv", &text, Some(&table)).await;
    assert_contains(
        &error,
        &[&format!("f.csv, line {}, column 'n'", line + 1), "'three'"],
    );
}

#[tokio::test]
async fn gzip_is_known_by_a_first_byte_that_comes_alone_and_may_not_break_off() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for n in 0..100_000 {
        writeln!(gzip, "{n}").expect("memory");
    }
    let bytes = gzip.finish().expect("memory");
    let table = table(&[("n", DataType::Int64, true)]);
    let read = async |chunks, name| {
        let mut world = World::new().await;
        world.text.header = false;
        let source = world.open(name, chunks, Some(&table), 0).await?;
        source.batches.try_collect::<Vec<_>>().await
    };
    let chunks = vec![bytes[..1].to_vec(), bytes[1..].to_vec()];
    let batches = read(chunks, "f.csv").await.expect("readable");
    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        100_000
    );
    let error = read(vec![bytes[..bytes.len() / 2].to_vec()], "f.csv.gz").await;
    let error = error.expect_err("half of a file");
    assert_eq!(error.code(), "corrupt_source");
    assert_contains(error.message(), &["f.csv.gz", "unpacked"]);
}

#[tokio::test]
async fn a_body_that_breaks_off_fails_with_its_own_error() {
    let world = World::new().await;
    let chunks = [
        Ok(Bytes::from_static(b"n\n1\n2\n")),
        Err(ServiceError::invalid("the body broke off")),
    ];
    let body = IngestSource::Body(futures::stream::iter(chunks).boxed());
    let table = table(&[("n", DataType::Int64, true)]);
    let text = TextOptions::default();
    let opened = open_source(&world.context, body, None, "f.csv", &text, Some(&table), 9).await;
    let read = match opened {
        Ok(source) => source.batches.try_collect::<Vec<_>>().await,
        Err(error) => Err(error),
    };
    assert_eq!(read.expect_err("broken").message(), "the body broke off");
}

#[tokio::test]
async fn rows_of_the_wrong_width_or_encoding_are_named() {
    let world = World::new().await;
    let table = table(&[("a", DataType::Utf8, true), ("b", DataType::Utf8, true)]);
    let mut bytes = b"a,b\n1,2\n3\n4,".to_vec();
    bytes.extend(b"\xff\xfe\n5,6\n");
    let source = world
        .open("f.csv", vec![bytes], Some(&table), 2)
        .await
        .expect("opens");
    let batches: Vec<_> = source
        .batches
        .try_collect()
        .await
        .expect("within the limit");
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let rejects = source.rejects.take();
    assert_eq!((rows, rejects.len()), (2, 2));
    assert_eq!((rejects[0].line, rejects[0].column.as_deref()), (3, None));
    assert_contains(&rejects[0].reason, &["1 values where 2"]);
    assert_eq!(
        (rejects[1].line, rejects[1].column.as_deref()),
        (4, Some("b"))
    );
    assert_contains(&rejects[1].reason, &["UTF-8"]);
}

#[tokio::test]
async fn headers_that_cannot_be_right_are_refused() {
    let world = World::new().await;
    let table = table(&[
        ("a", DataType::Int64, true),
        ("l", list_of(DataType::Int64), true),
    ]);
    for (text, part) in [
        ("a,a\n1,2\n", "'a' twice"),
        ("a,A\n1,2\n", "two columns for the table's 'a'"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("l\n1\n", "send JSON lines, Parquet or Arrow"),
    ] {
        assert_contains(
            &world.error("f.csv", text, Some(&table)).await,
            &["f.csv", part],
        );
    }
}

fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

#[tokio::test]
async fn a_column_that_changes_its_kind_later_says_how_to_go_on() {
    let world = World::new().await;
    let mut text = String::from("n\n");
    while text.len() < infer::SAMPLE_BYTES + SEVERAL_BLOCKS {
        text.push_str("12345678901234\n");
    }
    text.push_str("late\n");
    let error = world.error("f.csv", &text, None).await;
    assert_contains(
        &error,
        &[
            "'late' is not a Int64",
            "inferred",
            "create the table",
            "--max-bad-rows",
        ],
    );
}

/// Whatever type a text makes inference choose, the decoder must be able to read that text.
#[tokio::test]
async fn what_is_inferred_from_a_text_can_be_decoded() {
    let world = World::new().await;
    let mut lost = Vec::new();
    for text in [
        "1",
        "-1",
        "+1",
        "+1.5",
        "-0",
        "0",
        "00",
        "-01",
        "1.",
        ".5",
        "-.5",
        "1e5",
        "1E-5",
        "1e400",
        "0x1F",
        "1_000",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "true",
        "TRUE",
        "t",
        "yes",
        "2013-01-31",
        "2013-1-31",
        "2013-02-30",
        "+201-01-01",
        "0000-01-01",
        "9999-12-31",
        "2013-01-01T10:00:00Z",
        "2013-01-01 10:00:00Z",
        "2013-01-01T10:00:00+02:00",
        "2013-01-01T10:00:00+0200",
        "2013-01-01 10:00:00 UTC",
        "2013-01-01T10:00:00",
        "2013-01-01 10:00:00.123456789",
        "2013-01-01T10:00",
        "2013-01-01t10:00:00z",
        "2016-12-31T23:59:60Z",
        "2013-01-01T24:00:00",
        "2013-01-01T1:00:00",
        "99999-01-01 00:00:00",
        " 1",
        "1 ",
        "１",
        "",
        "NA",
        "x",
    ] {
        let json = serde_json::json!({ "c": text }).to_string();
        for (name, text) in [("f.csv", format!("c,d\n{text},x\n")), ("f.jsonl", json)] {
            match world.rows(name, &text, None).await {
                Ok(batch) if batch.num_rows() == 1 => {}
                other => lost.push(format!("{text:?}: {other:?}")),
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[tokio::test]
async fn numbers_in_json_keep_their_fractions_or_are_refused() {
    let world = World::new().await;
    let table = table(&[
        ("n", DataType::Int64, true),
        ("u", DataType::UInt64, true),
        ("l", list_of(DataType::Int64), true),
    ]);
    let good =
        "{\"n\": -9223372036854775808, \"u\": 18446744073709551615}\n{\"n\": 2.0, \"l\": [1e3]}\n";
    let batch = world
        .rows("f.jsonl", good, Some(&table))
        .await
        .expect("whole numbers");
    assert_eq!(numbers(&batch, 0), [Some(i64::MIN), Some(2)]);
    for (bad, column) in [
        ("{\"n\": 2.5}", "n"),
        ("{\"n\": 1e30}", "n"),
        ("{\"u\": -1}", "u"),
        ("{\"l\": [1, 2.5]}", "l"),
    ] {
        let text = format!("{good}{bad}\n");
        let error = world.error("f.jsonl", &text, Some(&table)).await;
        assert_contains(&error, &["line 3", &format!("column '{column}'")]);
    }
}

#[tokio::test]
async fn lines_that_are_nested_without_end_are_bad_rows() {
    let world = World::new().await;
    let table = table(&[("n", DataType::Int64, true)]);
    let nested = |depth: usize, between: &str| {
        let open = format!("[{between}").repeat(depth);
        format!("{{\"n\": {open}{}}}\n", "]".repeat(depth))
    };
    let text = format!("{{\"n\": 1}}\n{}{{\"n\": 2}}\n", nested(1 << 20, ""));
    let opened = world.open("f.jsonl", vec![text.into_bytes()], Some(&table), 1);
    let source = opened.await.expect("opens");
    let batches: Vec<_> = source.batches.try_collect().await.expect("one is allowed");
    let rows: Vec<_> = batches.iter().flat_map(|batch| numbers(batch, 0)).collect();
    assert_eq!(rows, [Some(1), Some(2)]);
    let rejects = source.rejects.take();
    assert_eq!(rejects[0].line, 2);
    assert_contains(&rejects[0].reason, &["127 levels"]);
    // Over several lines, of which each is harmless.
    let over_lines = nested(2_000, &format!("{}\n", "[".repeat(99)));
    let over_lines = over_lines.replacen(']', &"]".repeat(2_000 * 99 + 1), 1);
    let error = world.error("f.jsonl", &over_lines, Some(&table)).await;
    assert_contains(&error, &["f.jsonl, line 1", "not JSON"]);
    let error = world.error("f.jsonl", &nested(100, ""), Some(&table)).await;
    assert_contains(&error, &["column 'n'", "is not a Int64"]);
}

#[tokio::test]
async fn ids_that_a_double_does_not_hold_become_texts() {
    let world = World::new().await;
    let ids = ["12345678901234567890", "12345678901234567891"];
    let csv = format!("id\n{}\n{}\n", ids[0], ids[1]);
    let json = ids.map(|id| format!("{{\"id\": {id}}}\n")).concat();
    for (name, text) in [("f.csv", csv), ("f.jsonl", json)] {
        let batch = world.rows(name, &text, None).await.expect("readable");
        let found: Vec<_> = texts(&batch, 0).iter().flatten().collect();
        assert_eq!(found, ids, "{name}");
    }
    let numbers = "{\"n\": 9007199254740993}\n{\"n\": 1.5}\n";
    let batch = world
        .rows("f.jsonl", numbers, None)
        .await
        .expect("readable");
    assert_eq!(texts(&batch, 0).value(0), "9007199254740993");
}

#[tokio::test]
async fn reasons_name_some_of_very_many_columns() {
    let world = World::new().await;
    let table = wide_table();
    let unknown = "x".repeat(10_000);
    let text = format!("{{\"{unknown}\": 1}}\n");
    let opened = world.open("f.jsonl", vec![text.into_bytes()], Some(&table), 1);
    let source = opened.await.expect("opens");
    source
        .batches
        .try_collect::<Vec<_>>()
        .await
        .expect("one is allowed");
    let rejects = source.rejects.take();
    assert_contains(&rejects[0].reason, &["c0, c1", "c99 and 900 more"]);
    assert!(
        rejects[0]
            .column
            .as_ref()
            .is_some_and(|name| name.len() < 200)
    );
}

type RowOf = fn(&str) -> String;

/// A text format's ways to write two values a row, in columns `a` and `b`.
const TWO_COLUMNS: [(&str, RowOf); 4] = [
    ("f.csv", |a| format!("a,b\n{a},\n")),
    // A quote within quotes is for the general decoder.
    ("f.csv", |a| format!("a,b\n{a},\"5\"\" disk\"\n")),
    ("f.jsonl", |a| format!("{{\"a\": {a}}}\n")),
    ("f.jsonl", |a| format!("{{\"a\": \"{a}\"}}\n")),
];

#[tokio::test]
async fn decimals_are_rounded_in_every_text_and_never_cut_off() {
    let world = World::new().await;
    for (written, precision, scale, expected) in [
        ("59.969999999999999", 10, 2, Some(5_997)),
        ("-59.965", 10, 2, Some(-5_997)),
        ("2.9", 10, 0, Some(3)),
        ("1e2", 10, 2, Some(10_000)),
        ("1e65536", 10, 2, None),
        ("99999999.995", 10, 2, None),
        (&format!("1{}", "0".repeat(256)), 10, 2, None),
    ] {
        let decimal = DataType::Decimal128(precision, scale);
        let table = table(&[("a", decimal, true), ("b", DataType::Utf8, true)]);
        for (name, text) in TWO_COLUMNS {
            let rows = world.rows(name, &text(written), Some(&table)).await;
            let found = rows.ok().map(|batch| {
                let values = batch.column(0).as_primitive::<Decimal128Type>();
                values.value(0)
            });
            assert_eq!(found, expected, "{}", text(written));
        }
    }
}

#[tokio::test]
async fn whole_numbers_lose_nothing_in_any_text() {
    let world = World::new().await;
    let zeros = format!("1{}", "0".repeat(256));
    let table = table(&[("a", DataType::Int64, true), ("b", DataType::Utf8, true)]);
    for written in [
        "2.00000000001",
        "2.5",
        "2.000000000000000000001",
        "1e-1",
        "9223372036854775808",
        &zeros,
    ] {
        for (name, text) in TWO_COLUMNS {
            let error = world.error(name, &text(written), Some(&table)).await;
            assert_contains(&error, &["column 'a'", "is not a Int64"]);
            world.error(name, &text("1e65536"), Some(&table)).await;
        }
    }
}

#[tokio::test]
async fn numbers_in_json_stand_for_times_when_they_are_whole_and_in_range() {
    let world = World::new().await;
    let second = DataType::Timestamp(TimeUnit::Second, None);
    let table = table(&[
        ("at", second, true),
        ("day", DataType::Date32, true),
        ("time", DataType::Time64(TimeUnit::Microsecond), true),
    ]);
    let good = "{\"at\": 1700000000, \"day\": 19000, \"time\": 1e6}\n\
                {\"at\": \"2023-11-14 22:13:20\", \"day\": \"20220108\", \"time\": \"00:00:01\"}\n\
                {\"at\": 1.7e9, \"day\": 20220108, \"time\": 1000000.0}\n";
    let batch = world
        .rows("f.jsonl", good, Some(&table))
        .await
        .expect("whole");
    let at = batch.column(0).as_primitive::<TimestampSecondType>();
    assert_eq!(at.values()[..], [1_700_000_000; 3]);
    assert_eq!(
        batch.column(1).as_primitive::<Date32Type>().values()[..],
        [19_000; 3]
    );
    let time = batch.column(2).as_primitive::<Time64MicrosecondType>();
    assert_eq!(time.values()[..], [1_000_000; 3]);
    for bad in [
        "{\"at\": 1700000000.5}",
        "{\"at\": 1e30}",
        // A year, or a day, to whoever wrote it.
        "{\"at\": \"1700000000\"}",
        "{\"at\": \"20240101\"}",
        "{\"day\": \"2024\"}",
        "{\"at\": true}",
        "{\"day\": 19000.5}",
        "{\"day\": 20221308}",
        "{\"day\": 1e10}",
        "{\"time\": 0.5}",
    ] {
        let error = world.error("f.jsonl", bad, Some(&table)).await;
        assert_contains(&error, &["f.jsonl, line 1, column", "is not a"]);
    }
}

#[tokio::test]
async fn numbers_within_json_lists_and_objects_lose_nothing_either() {
    let world = World::new().await;
    let decimal = DataType::Decimal128(10, 1);
    let fields = vec![
        Field::new("n", DataType::Int8, true),
        Field::new(
            "l",
            DataType::LargeList(Arc::new(Field::new_list_field(decimal, true))),
            true,
        ),
    ];
    let three = DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Date32, true)), 3);
    let table = table(&[
        ("s", DataType::Struct(fields.into()), true),
        ("three", three, true),
    ]);
    let good = "{\"s\": {\"n\": 1e1, \"l\": [0.25, null]}}\n\
                {\"s\": null, \"three\": [1, null, \"1970-01-02\"]}\n{\"s\": {}}\n";
    let batch = world
        .rows("f.jsonl", good, Some(&table))
        .await
        .expect("fits");
    assert_eq!(batch.schema(), table.arrow());
    let s = batch.column(0).as_struct();
    assert_eq!(s.column(0).as_primitive::<Int8Type>().value(0), 10);
    let tenths = s.column(1).as_list::<i64>().value(0);
    assert_eq!(tenths.as_primitive::<Decimal128Type>().value(0), 3);
    assert!(tenths.is_null(1) && s.is_null(1) && s.column(0).is_null(2));
    let three = batch.column(1).as_fixed_size_list();
    let days = three.value(1);
    let days: Vec<_> = days.as_primitive::<Date32Type>().iter().collect();
    assert_eq!(days, [Some(1), None, Some(1)]);
    assert!(three.is_null(0));
    for (bad, column) in [
        ("{\"s\": {\"n\": 1.5}}", "'s'"),
        ("{\"three\": [1, 2, 2.5]}", "'three'"),
        ("{\"three\": [1, 2]}", "'three'"),
    ] {
        assert_contains(&world.error("f.jsonl", bad, Some(&table)).await, &[column]);
    }
}

/// A thousand columns: a row of them takes 24 kB, null or not.
fn wide_table() -> TableSchema {
    let field = |n: i32| Field::new(format!("c{n}"), DataType::Int64, true);
    TableSchema::new(&Schema::new((0..1_000).map(field).collect::<Vec<_>>())).expect("valid")
}

/// Eight mebibytes of them.
const WIDE_ROWS: usize = 349;

#[tokio::test]
async fn short_lines_of_a_wide_table_come_in_small_batches() {
    let world = World::new().await;
    let table = wide_table();
    let rows = WIDE_ROWS * 5 + 1;
    for (name, text) in [
        ("f.jsonl", "{}\n".repeat(rows)),
        ("f.csv", format!("c7\n{}", "1\n".repeat(rows))),
    ] {
        let opened = world.open(name, vec![text.into_bytes()], Some(&table), 0);
        let source = opened.await.expect("opens");
        let batches: Vec<_> = source.batches.try_collect().await.expect("readable");
        let found: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(found.iter().sum::<usize>(), rows, "{name}");
        assert!(
            found.iter().all(|rows| *rows <= WIDE_ROWS),
            "{name}: {found:?}"
        );
        let nulls = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
        // What a file does not have takes room once.
        let shares = nulls(&batches[0]) == nulls(&batches[1]);
        assert_eq!(shares, name == "f.csv", "{name}");
    }
}

#[tokio::test]
async fn objects_of_one_line_are_no_more_than_lines_may_be() {
    let world = World::new().await;
    let table = wide_table();
    let text = "{}".repeat(WIDE_ROWS * 2);
    let batch = world.all("f.jsonl", text.clone(), Some(&table)).await;
    assert_eq!(batch.expect("few enough").num_rows(), WIDE_ROWS * 2);
    let error = world.error("f.jsonl", &(text + "{}"), Some(&table)).await;
    assert_contains(&error, &["f.jsonl, line 1", "several objects"]);
}

#[tokio::test]
async fn json_columns_may_have_any_type_of_the_table() {
    let world = World::new().await;
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let table = table(&[
        ("d", dictionary, true),
        ("v", DataType::Utf8View, true),
        ("i", DataType::Int8, false),
        ("t", DataType::Time64(TimeUnit::Microsecond), true),
    ]);
    let text = "{\"d\": \"a\", \"v\": 7, \"i\": 1, \"t\": \"10:20:30\"}\n{\"i\": 2}\n";
    let batch = world
        .rows("f.jsonl", text, Some(&table))
        .await
        .expect("readable");
    assert_eq!(batch.schema(), table.arrow());
    assert_eq!(batch.column(1).as_string_view().value(0), "7");
    for (bad, part) in [
        ("{\"i\": 300}", "'300' is not a Int8"),
        (
            "{\"v\": \"x\"}",
            "column 'i': is null, and the column is NOT NULL",
        ),
        (
            "{\"i\": null}",
            "column 'i': is null, and the column is NOT NULL",
        ),
        ("[1]", "not a JSON object"),
    ] {
        let error = world.error("f.jsonl", bad, Some(&table)).await;
        assert_contains(&error, &["f.jsonl, line 1", part]);
    }
}

#[tokio::test]
async fn times_in_json_are_found_and_other_texts_stay_texts() {
    let world = World::new().await;
    let text = "{\"at\": \"2013-01-01T10:00:00Z\", \"day\": \"2013-01-01\", \"code\": \"007\", \"mix\": 1}\n\
                {\"at\": null, \"day\": \"2013-01-02\", \"code\": \"8\", \"mix\": \"x\"}\n";
    let batch = world.rows("f.jsonl", text, None).await.expect("readable");
    let type_of = |name| {
        batch
            .schema()
            .field_with_name(name)
            .expect("found")
            .data_type()
            .clone()
    };
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!((type_of("at"), type_of("day")), (utc, DataType::Date32));
    assert_eq!(
        (type_of("code"), type_of("mix")),
        (DataType::Utf8, DataType::Utf8)
    );
    let error = world
        .error("f.json", "[\n{\"a\": 1},\n{\"a\": 2}\n]\n", None)
        .await;
    assert_contains(&error, &["f.json", "on a line of its own"]);
}

/// Counts what is taken of an endless source while nobody takes the rows.
#[tokio::test]
async fn a_source_is_not_read_ahead_of_whoever_takes_the_rows() {
    const CHUNK_BYTES: usize = 1 << 18;
    // Blocks in the queue, in the decoders, with the cutter, and in its buffers.
    const BLOCKS_HELD_MAX: usize = 16;
    let mut world = World::new().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let chunk = Bytes::from("1234567\n".repeat(CHUNK_BYTES / 8));
    let endless = futures::stream::repeat_with(move || {
        counter.fetch_add(CHUNK_BYTES, Ordering::SeqCst);
        Ok(chunk.clone())
    });
    let body = IngestSource::Body(endless.boxed());
    world.text.header = false;
    let table = table(&[("n", DataType::Int64, true)]);
    let opened = open_source(
        &world.context,
        body,
        None,
        "f.csv",
        &world.text,
        Some(&table),
        0,
    );
    let mut batches = opened.await.expect("opens").batches;
    for _ in 0..40 {
        assert!(batches.try_next().await.expect("readable").is_some());
    }
    // The reading thread comes to a stand by itself.
    let mut before = 0;
    while before != taken.load(Ordering::SeqCst) {
        before = taken.load(Ordering::SeqCst);
        tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>())
            .await
            .expect_err("pending");
    }
    let given = 40 * BATCH_ROWS * "1234567\n".len();
    assert!(
        before - given.min(before) <= BLOCKS_HELD_MAX << 20,
        "{before} bytes were read"
    );
}
