//! Every Arrow type comes back as it was declared.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, TimeUnit};

use super::fixture::{World, flights};

/// Values 1, 2 and null of a type.
fn sample(data_type: &DataType) -> ArrayRef {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
    let values = match data_type {
        DataType::Struct(fields) => {
            let columns = fields
                .iter()
                .map(|f| sample(f.data_type()).slice(0, 2))
                .collect();
            Arc::new(StructArray::new(fields.clone(), columns, None)) as ArrayRef
        }
        DataType::List(field) => {
            let values = sample(field.data_type()).slice(0, 2);
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 1]);
            Arc::new(arrow::array::ListArray::new(
                Arc::clone(field),
                offsets,
                values,
                None,
            ))
        }
        DataType::Map(entries, sorted) => {
            let entries_array = sample(entries.data_type()).slice(0, 2);
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 1]);
            let entries_array = entries_array
                .as_any()
                .downcast_ref::<StructArray>()
                .expect("entries are a struct")
                .clone();
            Arc::new(arrow::array::MapArray::new(
                Arc::clone(entries),
                offsets,
                entries_array,
                None,
                *sorted,
            ))
        }
        DataType::Dictionary(_, _) => cast(&texts, data_type).expect("cast"),
        DataType::FixedSizeBinary(width) => {
            let rows = [vec![1_u8; *width as usize], vec![2_u8; *width as usize]];
            Arc::new(
                arrow::array::FixedSizeBinaryArray::try_from_iter(rows.into_iter()).expect("wide"),
            )
        }
        DataType::Date32 | DataType::Time32(_) => {
            let narrow = cast(&numbers, &DataType::Int32).expect("cast");
            cast(&narrow, data_type).expect("cast")
        }
        data_type => cast(&numbers, data_type)
            .or_else(|_| cast(&texts, data_type))
            .unwrap_or_else(|error| panic!("{data_type}: {error}")),
    };
    assert_eq!(values.data_type(), data_type);
    concat(&[values.as_ref(), new_null_array(data_type, 1).as_ref()]).expect("joined")
}

fn types() -> Vec<DataType> {
    use DataType as T;
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let pair: Fields = vec![
        Field::new("x", T::Int64, true),
        Field::new(
            "y",
            T::Dictionary(Box::new(T::Int32), Box::new(T::Utf8)),
            true,
        ),
    ]
    .into();
    let entries: Fields = vec![
        Field::new("keys", T::Utf8, false),
        Field::new("values", T::Int64, true),
    ]
    .into();
    let mut types = vec![
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float32,
        T::Float64,
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::LargeBinary,
        T::BinaryView,
        T::FixedSizeBinary(3),
        T::Date32,
        T::Date64,
        T::Decimal32(7, 2),
        T::Decimal64(15, 3),
        T::Decimal128(30, 4),
        T::Decimal256(60, 5),
        T::Dictionary(Box::new(T::Int8), Box::new(T::Utf8)),
        T::Dictionary(Box::new(T::Int32), Box::new(T::LargeUtf8)),
        T::List(item(T::Int64)),
        T::List(item(T::Utf8View)),
        T::Struct(pair),
        T::Map(
            Arc::new(Field::new("entries", T::Struct(entries), false)),
            false,
        ),
        T::Time32(TimeUnit::Second),
        T::Time32(TimeUnit::Millisecond),
        T::Time64(TimeUnit::Microsecond),
        T::Time64(TimeUnit::Nanosecond),
    ];
    for unit in [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ] {
        types.push(T::Timestamp(unit, None));
        types.push(T::Timestamp(unit, Some("UTC".into())));
        types.push(T::Timestamp(unit, Some("Europe/Zurich".into())));
        types.push(T::Duration(unit));
    }
    types
}

#[tokio::test]
async fn every_arrow_type_survives() {
    let fields: Vec<Field> = types()
        .into_iter()
        .enumerate()
        .map(|(number, data_type)| {
            let metadata = HashMap::from([("unit".to_owned(), number.to_string())]);
            Field::new(format!("c{number}"), data_type, true).with_metadata(metadata)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = schema
        .fields()
        .iter()
        .map(|field| sample(field.data_type()))
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits");
    let mut world = World::new().await;
    world.create_table("everything", &schema);
    world.insert("everything", batch.clone()).await;

    let found = world
        .batches("SELECT * FROM everything")
        .await
        .expect("reads");
    assert_eq!(found[0].schema(), schema);
    for (number, (found, expected)) in found[0].columns().iter().zip(batch.columns()).enumerate() {
        assert_eq!(found.data_type(), expected.data_type());
        assert_eq!(
            found.to_data(),
            expected.to_data(),
            "c{number} {}",
            expected.data_type()
        );
    }
}

#[tokio::test]
async fn statistics_of_every_type_answer_what_a_scan_answers() {
    let mut world = World::new().await;
    let comparable = types()
        .into_iter()
        .filter(|data_type| !data_type.is_nested() && !matches!(data_type, DataType::Duration(_)));
    let fields: Vec<Field> = comparable
        .enumerate()
        .map(|(n, t)| Field::new(format!("c{n}"), t, true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| sample(field.data_type()))
        .collect();
    world.create_table("t", &schema);
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits");
    world.insert("t", batch.clone()).await;
    world.insert("t", batch.slice(1, 2)).await;
    for field in schema.fields() {
        let name = field.name();
        let aggregates = format!("count({name}), min({name}), max({name})");
        let before = world.requests();
        let known = world.batches(&format!("SELECT {aggregates} FROM t")).await;
        let known = known.unwrap_or_else(|error| panic!("{} {error}", field.data_type()));
        assert_eq!(world.requests(), before, "{}", field.data_type());
        // The volatile filter keeps every row and hides the statistics.
        let scanned = world
            .batches(&format!("SELECT {aggregates} FROM t WHERE random() < 2"))
            .await
            .unwrap_or_else(|error| panic!("{} {error}", field.data_type()));
        let values = |batches: &[RecordBatch]| super::fixture::lines(batches)[1].clone();
        assert_eq!(values(&known), values(&scanned), "{}", field.data_type());
        assert_eq!(known[0].schema().field(1), scanned[0].schema().field(1));
    }
}

#[tokio::test]
async fn an_extent_of_one_value_is_not_read_and_right() {
    let mut world = World::new().await;
    let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let schema = Arc::new(Schema::new(vec![
        Field::new("tag", data_type.clone(), true),
        Field::new("n", DataType::Int64, true),
    ]));
    world.create_table("tagged", &schema);
    let tags: ArrayRef = Arc::new(
        ["a", "a"]
            .into_iter()
            .collect::<arrow::array::DictionaryArray<Int32Type>>(),
    );
    let nulls: ArrayRef = new_null_array(&DataType::Int64, 2);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![tags, nulls]).expect("fits");
    world.insert("tagged", batch).await;
    let found = world.batches("SELECT * FROM tagged").await.expect("reads");
    assert_eq!(found[0].schema(), schema);
    assert_eq!(super::fixture::lines(&found)[1..], ["a ", "a "]);
}

#[tokio::test]
async fn older_extents_read_as_null() {
    let mut world = World::with_flights(&[1..3]).await;
    world.add_column("flights", Field::new("delay", DataType::Float64, true));
    let schema = world.state.table("flights").expect("there").schema.arrow();
    let old = flights(3..4);
    let delay: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.5]));
    let columns = vec![Arc::clone(old.column(0)), Arc::clone(old.column(1)), delay];
    world
        .insert(
            "flights",
            RecordBatch::try_new(schema, columns).expect("fits"),
        )
        .await;
    let rows = world
        .rows("SELECT month, delay FROM flights ORDER BY month")
        .await;
    assert_eq!(rows, ["1 ", "2 ", "3 1.5"]);
    let before = world.requests();
    let rows = world
        .rows("SELECT count(delay), min(delay), count(*) FROM flights")
        .await;
    assert_eq!(rows, ["1 1.5 3"]);
    assert_eq!(world.requests(), before);
    let rows = world
        .rows("SELECT sum(delay) FROM flights WHERE delay IS NULL OR delay > 1")
        .await;
    assert_eq!(rows, ["1.5"]);
    let rows = world
        .rows("SELECT month FROM flights ORDER BY delay NULLS FIRST, month")
        .await;
    assert_eq!(rows, ["1", "2", "3"]);
}

#[tokio::test]
async fn floats_that_are_not_numbers_do_not_lie() {
    let mut world = World::new().await;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    world.create_table("floats", &schema);
    for values in [
        vec![1.0, f64::NAN],
        vec![-0.0, 0.0, 2.0],
        vec![f64::NEG_INFINITY, 5.0],
    ] {
        let values: ArrayRef = Arc::new(arrow::array::Float64Array::from(values));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![values]).expect("fits");
        world.insert("floats", batch).await;
    }
    for aggregate in ["min(x)", "max(x)"] {
        let known = world.rows(&format!("SELECT {aggregate} FROM floats")).await;
        let scanned = world
            .rows(&format!(
                "SELECT {aggregate} FROM floats WHERE random() < 2"
            ))
            .await;
        assert_eq!(known, scanned, "{aggregate}");
    }
    assert_eq!(
        world.rows("SELECT count(*) FROM floats WHERE x = 2").await,
        ["1"]
    );
    assert_eq!(
        world.rows("SELECT count(*) FROM floats WHERE x < 0").await,
        ["1"]
    );
}

/// A table of floating-point numbers, an extent each, some of them in the log.
async fn floats(extents: &[&[f64]], are_inline: bool) -> World {
    let mut world = World::new().await;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    world.create_table("floats", &schema);
    for values in extents {
        let values: ArrayRef = Arc::new(arrow::array::Float64Array::from(values.to_vec()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![values]).expect("fits");
        if are_inline {
            world.insert_inline("floats", batch);
        } else {
            world.insert("floats", batch).await;
        }
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_is_larger_than_every_number_wherever_it_stands() {
    let extents: [&[f64]; 2] = [&[1.0, f64::NAN], &[7.0, -f64::NAN]];
    let cold = floats(&extents, false).await;
    let inline = floats(&extents, true).await;
    let near = floats(&extents, false).await.near(1).await;
    for (world, form) in [(cold, "cold"), (inline, "inline"), (near, "near")] {
        for (condition, expected) in [
            ("x > 5", "2"),
            ("x > 8", "1"),
            ("x < 0", "1"),
            ("x <> 1.0", "3"),
            ("x = 'NaN'", "1"),
            ("NOT (x <= 8)", "1"),
        ] {
            let rows = world
                .rows(&format!("SELECT count(*) FROM floats WHERE {condition}"))
                .await;
            assert_eq!(rows, [expected], "{form}: {condition}");
        }
        let largest = world
            .rows("SELECT x FROM floats ORDER BY x DESC LIMIT 1")
            .await;
        assert_eq!(largest, ["NaN"], "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_takes_both_zeros_for_one_wherever_they_stand() {
    let extents: [&[f64]; 3] = [&[-0.0, -0.0], &[1.0, -0.0, 0.0], &[5.0]];
    let cold = floats(&extents, false).await;
    let inline = floats(&extents, true).await;
    let near = floats(&extents, false).await.near(1).await;
    for (world, form) in [(cold, "cold"), (inline, "inline"), (near, "near")] {
        for sql in [
            "SELECT count(*) FROM floats f JOIN (SELECT 0.0::DOUBLE AS k) g ON f.x = g.k",
            "SELECT count(*) FROM floats WHERE x IN (SELECT 0.0::DOUBLE)",
        ] {
            assert_eq!(world.rows(sql).await, ["4"], "{form}: {sql}");
        }
    }
}
