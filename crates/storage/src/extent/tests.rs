use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use slipstream_model::{ColumnStatistics, SortOrder, StatisticValue};

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

/// The statistics of a column in as many row groups, as the file has them and as the model finds them.
fn of_groups(groups: &[ArrayRef]) -> (ColumnStatistics, ColumnStatistics) {
    let data_type = groups[0].data_type();
    let fields = vec![Field::new("t", data_type.clone(), true)];
    let schema = TableSchema::new(&Schema::new(fields)).expect("valid");
    let mut expected = ColumnStatisticsBuilder::new(schema.columns()[0].id, data_type);
    let layout = ExtentLayout::new(&schema).expect("storable");
    let mut extent = ExtentAssembler::new(&layout).expect("storable");
    for group in groups {
        expected.update(group);
        let batch = RecordBatch::try_new(schema.arrow(), vec![Arc::clone(group)]).expect("valid");
        extent
            .append(layout.encode_rows(&[batch]).expect("encodes"))
            .expect("fits");
    }
    let now = Timestamp::from_micros(7);
    let encoded = extent.finish(ExtentId::default(), now, BTreeSet::new());
    let found = encoded.expect("encodes").extent.columns[0].clone();
    (found, expected.finish())
}

fn bytes_of(value: &StatisticValue) -> &[u8] {
    match value {
        StatisticValue::Text(text) => text.as_bytes(),
        StatisticValue::Bytes(bytes) => bytes,
        other => panic!("{other:?} is no text"),
    }
}

/// Bounds of texts and bytes are Parquet's; what the model finds is the reference.
#[test]
fn bounds_of_texts_and_bytes_are_those_of_the_values() {
    let long = |text: &str, bytes: usize| text.repeat(bytes.div_ceil(text.len()));
    let [just_fits, too_long] = [256, 257].map(|bytes| long("m", bytes));
    let (umlauts, last) = (long("ü", 301), long("\u{10ffff}", 400));
    let groups: &[&[&[Option<&str>]]] = &[
        &[&[Some("b"), None, Some(""), Some("é"), Some("a")]],
        &[&[Some("b"), Some("b")]],
        &[&[None, None]],
        &[&[]],
        &[&[None], &[Some("x")], &[None]],
        &[&[Some("b"), Some("c")], &[Some("a"), Some("b")]],
        &[&[Some(&just_fits)]],
        &[&[Some(&too_long), None]],
        &[&[Some("b"), Some(&too_long)], &[Some("a"), Some("z")]],
        &[&[Some(&umlauts), Some("ü")], &[Some("ü")]],
        &[&[Some("\u{10ffff}"), Some(&last)]],
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
    for (data_type, groups) in types
        .iter()
        .flat_map(|t| groups.iter().map(move |g| (t, g)))
    {
        let array = |texts: &&[Option<&str>]| {
            let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
            arrow::compute::cast(&texts, data_type).expect("a text in another form")
        };
        let arrays: Vec<ArrayRef> = groups.iter().map(array).collect();
        let (found, expected) = of_groups(&arrays);
        assert_eq!(
            found.bounds_exact, expected.bounds_exact,
            "{data_type} {groups:?}"
        );
        if expected.bounds_exact {
            assert_eq!(found, expected, "{data_type} {groups:?}");
            continue;
        }
        let mut values = groups.iter().copied().flatten().flatten();
        let min = bytes_of(found.min.as_ref().expect("a prefix"));
        assert!(
            values.clone().all(|value| min <= value.as_bytes()),
            "{data_type}"
        );
        assert!(min.len() <= BOUND_BYTES_MAX, "{data_type}");
        if let Some(max) = found.max.as_ref().map(bytes_of) {
            assert!(values.all(|value| max >= value.as_bytes()), "{data_type}");
            assert!(max.len() <= BOUND_BYTES_MAX, "{data_type}");
        }
    }
}

#[test]
fn bounds_of_bytes_are_in_the_order_of_unsigned_bytes() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[0x80], &[0x7f]]));
    let (found, expected) = of_groups(&[bytes]);
    assert_eq!(found, expected);
    assert_eq!(found.max, Some(StatisticValue::Bytes(vec![0x80])));

    let no_larger: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[0xff; 300]]));
    let (found, _) = of_groups(&[no_larger]);
    assert_eq!(
        found.min,
        Some(StatisticValue::Bytes(vec![0xff; BOUND_BYTES_MAX]))
    );
    assert_eq!((found.max, found.bounds_exact), (None, false));
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
