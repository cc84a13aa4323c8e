use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{
    DataType, Field, Fields, IntervalUnit, Schema, TimeUnit, UnionFields, UnionMode, i256,
};
use bytes::Bytes;
use proptest::prelude::*;
use slipstream_model::{
    Column, ColumnId, ColumnStatistics, Digest, Extent, SortOrder, StatisticValue, TableSchema,
    Timestamp,
};

use super::*;
use crate::testing::extent_id;

fn every_type() -> Vec<DataType> {
    use DataType as T;
    let item = || Arc::new(Field::new("element", T::Int16, false));
    let entries = Fields::from(vec![
        Field::new("keys", T::Utf8, false),
        Field::new("values", T::Decimal128(9, 2), true),
    ]);
    let zone = |unit| T::Timestamp(unit, Some("Europe/Berlin".into()));
    vec![
        T::Null,
        T::Boolean,
        T::Int8,
        T::UInt64,
        T::Float16,
        T::Float64,
        T::Timestamp(TimeUnit::Nanosecond, None),
        zone(TimeUnit::Second),
        zone(TimeUnit::Microsecond),
        T::Date32,
        T::Date64,
        T::Time32(TimeUnit::Millisecond),
        T::Time64(TimeUnit::Nanosecond),
        T::Duration(TimeUnit::Second),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Binary,
        T::FixedSizeBinary(16),
        T::LargeBinary,
        T::BinaryView,
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::List(item()),
        T::ListView(item()),
        T::FixedSizeList(item(), 3),
        T::LargeList(item()),
        T::Struct(entries.clone()),
        T::Union(
            UnionFields::try_new([4, 7], entries.iter().map(Arc::clone)).expect("a union"),
            UnionMode::Dense,
        ),
        T::Dictionary(T::UInt8.into(), T::LargeUtf8.into()),
        T::Dictionary(T::Int64.into(), T::Decimal256(40, -3).into()),
        T::Decimal32(5, 1),
        T::Decimal64(12, 0),
        T::Map(
            Arc::new(Field::new("entries", T::Struct(entries), false)),
            true,
        ),
        T::RunEndEncoded(
            Arc::new(Field::new("run_ends", T::Int32, false)),
            Arc::new(Field::new("values", T::Utf8, true)),
        ),
    ]
}

#[test]
fn every_arrow_type_survives_with_metadata_and_column_ids() {
    let metadata: HashMap<_, _> = ["unit", "ARROW:extension:name", "a"]
        .map(|key| (key.into(), format!("{key}!")))
        .into();
    let fields: Vec<Field> = every_type()
        .into_iter()
        .enumerate()
        .map(|(i, data_type)| {
            Field::new(format!("c{i}"), data_type, i % 2 == 0).with_metadata(metadata.clone())
        })
        .collect();
    let schema = TableSchema::new(&Schema::new(fields)).expect("a schema");
    let wider = schema
        .with_added_column(Field::new("ß", DataType::Utf8, true))
        .expect("wider");
    for schema in [schema, wider] {
        let message = schema_to_proto(&schema);
        assert_eq!(schema_from_proto(Some(message)), Ok(schema.clone()));
        for column in schema.columns() {
            let message = column_to_proto(column);
            assert_eq!(column_from_proto(Some(message)), Ok(column.clone()));
        }
    }
}

#[test]
fn encoding_a_schema_twice_gives_the_same_bytes() {
    let metadata: HashMap<_, _> = (0..20)
        .map(|i| (format!("key {i}"), String::new()))
        .collect();
    let encode = || {
        // Each map iterates in an order of its own.
        let copy: HashMap<_, _> = metadata
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let field = Arc::new(Field::new("a", DataType::Int8, true).with_metadata(copy));
        column_to_proto(&Column {
            id: ColumnId(1),
            field,
        })
        .arrow_schema
    };
    assert_eq!(encode(), encode());
}

#[test]
fn what_is_no_schema_is_refused_without_a_panic() {
    let whole = column_to_proto(&Column {
        id: ColumnId(1),
        field: Arc::new(Field::new("a", DataType::Utf8, true)),
    });
    // Up to seven bytes at the end only pad.
    for cut in 0..whole.arrow_schema.len() - 7 {
        let mut column = whole.clone();
        column.arrow_schema.truncate(cut);
        assert!(column_from_proto(Some(column)).is_err(), "cut at {cut}");
    }
    assert!(column_from_proto(None).is_err());
}

fn value() -> impl Strategy<Value = StatisticValue> {
    prop_oneof![
        any::<bool>().prop_map(StatisticValue::Boolean),
        any::<i64>().prop_map(StatisticValue::Int),
        any::<u64>().prop_map(StatisticValue::UInt),
        any::<f64>().prop_map(StatisticValue::Float),
        any::<(i128, u128)>()
            .prop_map(|(high, low)| StatisticValue::Decimal(i256::from_parts(low, high))),
        any::<String>().prop_map(StatisticValue::Text),
        any::<Vec<u8>>().prop_map(StatisticValue::Bytes),
    ]
}

fn column() -> impl Strategy<Value = ColumnStatistics> {
    let bounds = (proptest::option::of(value()), proptest::option::of(value()));
    (any::<u32>(), any::<u64>(), bounds, any::<(bool, bool)>()).prop_map(
        |(id, null_count, (min, max), (bounds_exact, ascending))| ColumnStatistics {
            id: ColumnId(id),
            null_count,
            min,
            max,
            bounds_exact,
            sort_order: if ascending {
                SortOrder::Ascending
            } else {
                SortOrder::Unknown
            },
        },
    )
}

fn extent() -> impl Strategy<Value = Extent> {
    let columns = proptest::collection::vec(column(), 0..4);
    let tags = proptest::collection::btree_set(".{0,9}", 0..3);
    (
        any::<[u64; 4]>(),
        any::<u32>(),
        any::<(i64, i64)>(),
        tags,
        columns,
    )
        .prop_map(|(numbers, footer_bytes, times, tags, mut columns)| {
            columns.sort_by_key(|column| column.id);
            columns.dedup_by_key(|column| column.id);
            Extent {
                id: extent_id(numbers[0]),
                row_count: numbers[1],
                size_bytes: numbers[2],
                original_bytes: numbers[3],
                sha256: Digest::of(&numbers[0].to_le_bytes()),
                footer_bytes,
                min_created_on: Timestamp::from_micros(times.0),
                max_created_on: Timestamp::from_micros(times.1),
                tags,
                inline: numbers[0]
                    .is_multiple_of(2)
                    .then(|| Bytes::from_static(b"PAR1")),
                columns: columns.into(),
            }
        })
}

proptest! {
    #[test]
    fn every_extent_survives(extent in extent()) {
        prop_assert_eq!(extent_from_proto(extent_to_proto(&extent)), Ok(extent));
    }
}

#[test]
fn columns_out_of_order_and_ids_of_another_length_are_refused() {
    let mut message = extent_to_proto(&crate::testing::extent(1));
    message.columns.swap(0, 1);
    assert!(extent_from_proto(message).is_err());

    let mut message = extent_to_proto(&crate::testing::extent(1));
    message.sha256.truncate(31);
    let error = extent_from_proto(message).expect_err("too short");
    assert_eq!(error.to_string(), "an extent's digest has 31 bytes");
}

#[test]
fn numbers_of_columns_are_each_ones_own() {
    let columns = ["a", "b"].map(|name| Field::new(name, DataType::Utf8, true));
    let schema = TableSchema::new(&Schema::new(columns.to_vec())).expect("a schema");
    let message = schema_to_proto(&schema);
    for (ids, next) in [([1, 1], 3), ([1, 2], 2), ([1, 2], u32::MAX)] {
        let mut damaged = message.clone();
        damaged.column_ids = ids.to_vec();
        damaged.next_column_id = next;
        assert!(schema_from_proto(Some(damaged)).is_err(), "{ids:?} {next}");
    }
    let mut damaged = message.clone();
    damaged.dropped_columns = vec![column_to_proto(&schema.columns()[0])];
    assert!(schema_from_proto(Some(damaged)).is_err());
    assert_eq!(schema_from_proto(Some(message)), Ok(schema));
}

#[test]
fn a_version_has_one_after_it() {
    assert_eq!(counted("the version", 7), Ok(7));
    assert!(counted("the version", u64::MAX).is_err());
}
