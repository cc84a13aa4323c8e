//! Every Arrow type that Parquet can hold goes in, through the bucket, and out as it was.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;

use crate::cluster::{Node, Site, Store, write_stream};

#[tokio::test(flavor = "multi_thread")]
async fn every_arrow_type_survives_from_leader_to_follower() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = site.follower("follower", &leader).await?;
        leader.create_database("d").await?;
        follower.attach(&leader, "d").await?;
        let mut lost = Vec::new();
        let columns = scalars()?.into_iter().chain(nested()?);
        for (number, column) in columns.enumerate() {
            let data_type = column.data_type().clone();
            if let Err(error) = survives(&leader, &follower, number, column).await {
                lost.push(format!("{data_type}: {error:#}"));
            }
        }
        ensure!(
            lost.is_empty(),
            "types that did not survive:\n{}",
            lost.join("\n")
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_say_what_a_scan_says() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        let mut wrong = Vec::new();
        for (number, column) in scalars()?.into_iter().enumerate() {
            let data_type = column.data_type().clone();
            if matches!(data_type, DataType::Null | DataType::Interval(_)) {
                continue; // No order.
            }
            if let Err(error) = statistics_agree(&leader, number, column).await {
                wrong.push(format!("{data_type}: {error:#}"));
            }
        }
        ensure!(
            wrong.is_empty(),
            "statistics that differ:\n{}",
            wrong.join("\n")
        );
        Ok(())
    })
    .await
}

async fn survives(leader: &Node, follower: &Node, number: usize, column: ArrayRef) -> Result<()> {
    let table = format!("t{number}");
    let version = ingest(leader, &table, &column).await?;
    let sql = format!("SELECT c FROM {table}");
    for (node, name) in [(leader, "leader"), (follower, "follower")] {
        let (schema, batches) = node.ask("d", &sql).min_version(version).arrow().await?;
        let found = schema.field(0).data_type();
        ensure!(
            found == column.data_type(),
            "the {name} answers it as {found}"
        );
        let arrays: Vec<_> = batches
            .iter()
            .map(|batch| batch.column(0).as_ref())
            .collect();
        let rows = arrow::compute::concat(&arrays)?;
        ensure!(
            same(&rows, &column)?,
            "the {name} answers {rows:?}\ninstead of {column:?}"
        );
    }
    Ok(())
}

/// Dictionaries and runs may come back with another coding of the same values.
fn same(a: &ArrayRef, b: &ArrayRef) -> Result<bool> {
    if a == b {
        return Ok(true);
    }
    Ok(match b.data_type() {
        DataType::Dictionary(_, values) => cast(a, values)? == cast(b, values)?,
        DataType::RunEndEncoded(_, values) => {
            cast(a, values.data_type())? == cast(b, values.data_type())?
        }
        _ => false,
    })
}

async fn statistics_agree(leader: &Node, number: usize, column: ArrayRef) -> Result<()> {
    let table = format!("t{number}");
    ingest(leader, &table, &column).await?;
    let known = format!("SELECT min(c) AS lo, max(c) AS hi, count(c) AS n FROM {table}");
    // A filter that statistics cannot decide.
    let scanned = format!("{known} WHERE id % 2 >= 0");
    let (_, known) = leader.ask("d", &known).arrow().await?;
    let (_, scanned) = leader.ask("d", &scanned).arrow().await?;
    ensure!(
        known == scanned,
        "from statistics {known:?}\nfrom a scan {scanned:?}"
    );
    Ok(())
}

/// Sends a table of a number and the column; gives the version.
async fn ingest(leader: &Node, table: &str, column: &ArrayRef) -> Result<u64> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..column.len() as i64));
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("c", column.data_type().clone(), true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![ids, Arc::clone(column)])?;
    let receipt = leader
        .ingest(
            "d",
            table,
            "format=arrow&create=true",
            write_stream(&[batch])?,
        )
        .await
        .context("ingest")?;
    receipt["version"].as_u64().context("a version")
}

/// A column of each type without parts. Each has a null, a small, a large and a usual value.
fn scalars() -> Result<Vec<ArrayRef>> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(NullArray::new(4)),
        Arc::new(BooleanArray::from(vec![
            Some(true),
            None,
            Some(false),
            Some(true),
        ])),
        Arc::new(Int8Array::from(vec![
            Some(i8::MIN),
            None,
            Some(i8::MAX),
            Some(1),
        ])),
        Arc::new(Int16Array::from(vec![
            Some(i16::MIN),
            None,
            Some(i16::MAX),
            Some(1),
        ])),
        Arc::new(Int32Array::from(vec![
            Some(i32::MIN),
            None,
            Some(i32::MAX),
            Some(1),
        ])),
        Arc::new(Int64Array::from(vec![
            Some(i64::MIN),
            None,
            Some(i64::MAX),
            Some(1),
        ])),
        Arc::new(UInt8Array::from(vec![
            Some(0),
            None,
            Some(u8::MAX),
            Some(1),
        ])),
        Arc::new(UInt16Array::from(vec![
            Some(0),
            None,
            Some(u16::MAX),
            Some(1),
        ])),
        Arc::new(UInt32Array::from(vec![
            Some(0),
            None,
            Some(u32::MAX),
            Some(1),
        ])),
        Arc::new(UInt64Array::from(vec![
            Some(0),
            None,
            Some(u64::MAX),
            Some(1),
        ])),
        Arc::new(Float32Array::from(vec![
            Some(-1.5),
            None,
            Some(f32::MAX),
            Some(0.25),
        ])),
        Arc::new(Float64Array::from(vec![
            Some(-1.5),
            None,
            Some(f64::MAX),
            Some(0.25),
        ])),
        Arc::new(IntervalYearMonthArray::from(vec![
            Some(-3),
            None,
            Some(14),
            Some(0),
        ])),
        Arc::new(IntervalDayTimeArray::from(vec![
            Some(IntervalDayTime::new(-1, 500)),
            None,
            Some(IntervalDayTime::new(40, 0)),
            Some(IntervalDayTime::ZERO),
        ])),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(
            [
                Some([0, 1, 255]),
                None,
                Some([255, 255, 255]),
                Some([1, 2, 3]),
            ]
            .into_iter(),
            3,
        )?),
        Arc::new(
            Decimal128Array::from(vec![
                Some(-(10_i128.pow(38) - 1)),
                None,
                Some(10_i128.pow(38) - 1),
                Some(1),
            ])
            .with_precision_and_scale(38, 10)?,
        ),
        Arc::new(
            Decimal256Array::from(vec![
                Some(i256::from_string(&format!("-{}", "9".repeat(76))).context("76 digits")?),
                None,
                Some(i256::from_string(&"9".repeat(76)).context("76 digits")?),
                Some(i256::ONE),
            ])
            .with_precision_and_scale(76, 20)?,
        ),
    ];
    columns.extend(numbers_as_other_types()?);
    columns.extend(texts_and_bytes()?);
    Ok(columns)
}

/// Types that are a whole number underneath.
fn numbers_as_other_types() -> Result<Vec<ArrayRef>> {
    let small: ArrayRef = Arc::new(Int32Array::from(vec![
        Some(-7),
        None,
        Some(80_000),
        Some(1),
    ]));
    let day: ArrayRef = Arc::new(Int32Array::from(vec![Some(0), None, Some(86_399), Some(1)]));
    let long = Int64Array::from(vec![Some(-1_000_000_007), None, Some(1 << 53), Some(1)]);
    let long: ArrayRef = Arc::new(long);
    // Whole days, in milliseconds.
    let date = Int64Array::from(vec![
        Some(-86_400_000),
        None,
        Some(86_400_000 * 20_000),
        Some(0),
    ]);
    let date: ArrayRef = Arc::new(date);
    let long_day = Int64Array::from(vec![Some(0), None, Some(86_399_999_999), Some(1)]);
    let long_day: ArrayRef = Arc::new(long_day);
    let mut columns = vec![
        cast(&small, &DataType::Float16)?,
        cast(&small, &DataType::Date32)?,
        cast(&date, &DataType::Date64)?,
        cast(&day, &DataType::Time32(TimeUnit::Second))?,
        cast(&day, &DataType::Time32(TimeUnit::Millisecond))?,
        cast(&long_day, &DataType::Time64(TimeUnit::Microsecond))?,
        cast(&long_day, &DataType::Time64(TimeUnit::Nanosecond))?,
        cast(&small, &DataType::Decimal32(9, 2))?,
        cast(&small, &DataType::Decimal64(18, 3))?,
        cast(&small, &DataType::Decimal128(12, 0))?,
    ];
    for unit in [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ] {
        columns.push(cast(&long, &DataType::Duration(unit))?);
        for zone in [None, Some("UTC"), Some("+02:00"), Some("America/New_York")] {
            columns.push(cast(
                &long,
                &DataType::Timestamp(unit, zone.map(Into::into)),
            )?);
        }
    }
    Ok(columns)
}

fn texts_and_bytes() -> Result<Vec<ArrayRef>> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![
        Some(""),
        None,
        Some("žluťoučký kůň 🐎, longer than the twelve bytes that a view holds itself"),
        Some("a"),
    ]));
    let mut columns = vec![Arc::clone(&texts)];
    for data_type in [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        dictionary(DataType::Int8, DataType::Utf8),
        dictionary(DataType::Int32, DataType::Utf8),
        dictionary(DataType::UInt16, DataType::LargeUtf8),
        dictionary(DataType::Int32, DataType::Binary),
    ] {
        columns.push(cast(&texts, &data_type)?);
    }
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(-5),
        None,
        Some(1 << 40),
        Some(1),
    ]));
    columns.push(cast(
        &numbers,
        &dictionary(DataType::Int32, DataType::Int64),
    )?);
    Ok(columns)
}

fn dictionary(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

/// Columns with parts. Each has a null, an empty and a full value where it can.
fn nested() -> Result<Vec<ArrayRef>> {
    let lists = [
        Some(vec![Some(1), None, Some(3)]),
        None,
        Some(vec![]),
        Some(vec![Some(4)]),
    ];
    let pairs = [
        Some(vec![Some(1), None]),
        None,
        Some(vec![Some(3), Some(4)]),
    ];
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(lists.clone());
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let views = StringViewArray::from(vec![Some("a"), None, Some("longer than twelve bytes")]);
    let offsets = OffsetBuffer::new(vec![0, 2, 2, 3].into());
    let of_views = ListArray::try_new(item, offsets, Arc::new(views), None)?;
    let structs = StructArray::try_new(
        Fields::from(vec![
            Field::new("id", DataType::Int32, true),
            Field::new("list", list.data_type().clone(), true),
            Field::new(
                "at",
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                false,
            ),
        ]),
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, None, Some(4)])),
            Arc::new(list.clone()),
            Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3, 4]).with_timezone("UTC")),
        ],
        Some(NullBuffer::from(vec![true, true, false, true])),
    )?;
    let inner = Arc::new(Field::new("item", structs.data_type().clone(), true));
    let offsets = OffsetBuffer::new(vec![0, 3, 3, 4].into());
    let nulls = Some(NullBuffer::from(vec![true, false, true]));
    let of_structs = ListArray::try_new(inner, offsets, Arc::new(structs.clone()), nulls)?;
    Ok(vec![
        Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(
            lists.iter().map(|list| {
                list.as_ref()
                    .map(|list| list.iter().map(|n| n.map(i64::from)).collect::<Vec<_>>())
            }),
        )),
        Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
            pairs, 2,
        )),
        Arc::new(list),
        Arc::new(of_views),
        Arc::new(structs),
        Arc::new(of_structs),
        Arc::new(map()?),
    ])
}

fn map() -> Result<MapArray> {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    builder.keys().append_value("a");
    builder.values().append_value(1);
    builder.keys().append_value("b");
    builder.values().append_null();
    builder.append(true)?;
    builder.append(false)?;
    builder.append(true)?;
    Ok(builder.finish())
}

/// A batch of a few usual types, for tests about something else.
pub(crate) fn small_batch(rows: i64) -> Result<RecordBatch> {
    let words = StringArray::from_iter_values((0..rows).map(|n| format!("word {n}")));
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|n| n * 1_000_000));
    let batch = RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef,
        ),
        ("word", Arc::new(words)),
        (
            "score",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|n| n as f64 / 4.0),
            )),
        ),
        ("at", Arc::new(times.with_timezone("UTC"))),
    ])?;
    Ok(batch)
}
