use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use slipstream_model::{SortOrder, StatisticValue};

use super::*;

fn schema() -> TableSchema {
    TableSchema::new(&Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]))
    .expect("valid")
}

fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
    let texts: StringArray = numbers
        .clone()
        .map(|n| (n % 3 != 0).then(|| format!("text {n}")))
        .collect();
    let numbers = Int64Array::from_iter_values(numbers);
    RecordBatch::try_new(schema().arrow(), vec![Arc::new(numbers), Arc::new(texts)]).expect("valid")
}

fn encode(batches: &[RecordBatch]) -> EncodedExtent {
    let mut encoder = ExtentEncoder::new(&schema()).expect("storable");
    for batch in batches {
        encoder.write(batch).expect("fits");
    }
    encoder
        .finish(
            ExtentId::default(),
            Timestamp::from_micros(7),
            BTreeSet::new(),
        )
        .expect("encodes")
}

#[test]
fn an_extent_is_parquet_that_any_tool_reads() {
    let encoded = encode(&[batch(0..10), batch(10..20)]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(encoded.bytes).expect("parquet");
    let rows: usize = reader
        .build()
        .expect("readable")
        .map(|batch| batch.expect("batch").num_rows())
        .sum();
    assert_eq!(rows, 20);
}

#[test]
fn statistics_are_exact() {
    let extent = encode(&[batch(5..10), batch(10..20)]).extent;
    assert_eq!(extent.row_count, 15);
    let [numbers, texts] = &extent.columns[..] else {
        panic!("two columns")
    };
    assert_eq!(numbers.min, Some(StatisticValue::Int(5)));
    assert_eq!(numbers.max, Some(StatisticValue::Int(19)));
    assert_eq!(numbers.sort_order, SortOrder::Ascending);
    assert_eq!(texts.null_count, 5);
    assert!(texts.bounds_exact);
}

/// Those of texts and bytes are Parquet's; what the model finds is the reference.
#[test]
fn bounds_of_texts_and_bytes_are_those_of_the_values() {
    let long = |end: &str| "ü".repeat(BOUND_BYTES_MAX) + end;
    let texts: [&[Option<&str>]; 6] = [
        &[Some("b"), None, Some(""), Some("é"), Some("a")],
        &[Some("b"), Some("b")],
        &[None, None],
        &[],
        &[Some(&long("x")), Some(&long("y")), None],
        &[
            Some("\u{10ffff}"),
            Some(&"\u{10ffff}".repeat(BOUND_BYTES_MAX)),
        ],
    ];
    use DataType as T;
    let types = [
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::LargeBinary,
        T::BinaryView,
    ];
    for (data_type, texts) in types.iter().flat_map(|t| texts.map(|texts| (t, texts))) {
        let array = StringArray::from(texts.to_vec());
        let array = arrow::compute::cast(&array, data_type).expect("a text in another form");
        let fields = vec![Field::new("t", data_type.clone(), true)];
        let schema = TableSchema::new(&Schema::new(fields)).expect("valid");
        let mut expected = ColumnStatisticsBuilder::new(schema.columns()[0].id, data_type);
        expected.update(&array);
        let expected = expected.finish();

        let batch = RecordBatch::try_new(schema.arrow(), vec![array]).expect("valid");
        let mut encoder = ExtentEncoder::new(&schema).expect("storable");
        encoder.write(&batch).expect("fits");
        let encoded = encoder.finish(
            ExtentId::default(),
            Timestamp::from_micros(7),
            BTreeSet::new(),
        );
        let found = encoded.expect("encodes").extent.columns[0].clone();
        if expected.bounds_exact {
            assert_eq!(found, expected, "{data_type} {texts:?}");
            continue;
        }
        let bytes = |value: &StatisticValue| match value {
            StatisticValue::Text(text) => text.as_bytes().to_vec(),
            StatisticValue::Bytes(bytes) => bytes.clone(),
            other => panic!("{other:?} is no text"),
        };
        let mut values = texts.iter().flatten().map(|text| text.as_bytes());
        let min = found.min.as_ref().map(bytes).expect("a prefix");
        assert!(!found.bounds_exact, "{data_type}");
        assert!(values.clone().all(|value| *min <= *value), "{data_type}");
        if let Some(max) = found.max.as_ref().map(bytes) {
            assert!(values.all(|value| *max >= *value), "{data_type}");
        }
    }
}

#[test]
fn footer_and_page_index_are_within_the_recorded_length() {
    let encoded = encode(&[batch(0..100_000)]);
    let start = encoded.bytes.len() - encoded.extent.footer_bytes as usize;
    let tail = encoded.bytes.slice(start..);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader
        .try_parse_sized(&tail, encoded.bytes.len() as u64)
        .expect("everything is in the tail");
    let metadata = reader.finish().expect("parsed");
    assert!(metadata.column_index().is_some() && metadata.offset_index().is_some());
}

#[test]
fn an_extent_without_rows_is_still_a_file() {
    let encoded = encode(&[]);
    assert_eq!(encoded.extent.row_count, 0);
    ParquetRecordBatchReaderBuilder::try_new(encoded.bytes).expect("parquet");
}

#[test]
fn a_type_that_parquet_cannot_hold_is_named() {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let schema = Schema::new(vec![Field::new("span", interval, true)]);
    let error = check_storable(&schema).expect_err("not storable");
    assert!(error.to_string().contains("'span'"), "{error}");
}

#[test]
fn a_batch_of_another_table_is_refused() {
    let other = Schema::new(vec![Field::new("x", DataType::Int64, false)]);
    let batch =
        RecordBatch::try_new(Arc::new(other), vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let error = ExtentEncoder::new(&schema())
        .unwrap()
        .write(&batch)
        .expect_err("does not fit");
    assert!(matches!(error, EncodeError::SchemaMismatch { .. }));
}
