use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
    StringArray, StringViewArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, TimeUnit};
use parquet::arrow::ArrowWriter;
use vortex::array::stream::ArrayStreamExt;
use vortex::file::OpenOptionsSessionExt;

use super::*;

/// Rows of many types, with nulls in each and values at the edges.
fn rows() -> RecordBatch {
    let count = 20_000_i64;
    let some = |at: i64| (at % 7 != 0).then_some(at);
    let float = |at: i64| match at % 5 {
        0 => f64::NAN,
        1 => -0.0,
        2 => f64::INFINITY,
        _ => at as f64 / 3.0,
    };
    let text = |at: i64| format!("text {} {}", at % 13, "x".repeat((at % 40) as usize));
    let lists = (0..count).map(|at| some(at).map(|at| vec![Some(at as i32), None]));
    let amounts = (0..count).map(|at| some(at).map(|at| i128::from(at) * 1_000_003));
    let times = (0..count).map(|at| some(at).map(|at| at * 86_400_000_123));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from_iter((0..count).map(some)))),
        (
            "u",
            Arc::new(UInt8Array::from_iter((0..count).map(|at| Some(at as u8)))),
        ),
        (
            "f",
            Arc::new(Float64Array::from_iter(
                (0..count).map(|at| some(at).map(float)),
            )),
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(
                (0..count).map(|at| some(at).map(text)),
            )),
        ),
        (
            "v",
            Arc::new(StringViewArray::from_iter(
                (0..count).map(|at| some(at).map(text)),
            )),
        ),
        (
            "b",
            Arc::new(BooleanArray::from_iter(
                (0..count).map(|at| some(at).map(|a| a % 2 == 0)),
            )),
        ),
        (
            "n",
            Arc::new(BinaryArray::from_iter(
                (0..count).map(|at| some(at).map(i64::to_le_bytes)),
            )),
        ),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        ),
        (
            "d",
            Arc::new(
                Decimal128Array::from_iter(amounts)
                    .with_precision_and_scale(38, 6)
                    .expect("in range"),
            ),
        ),
        (
            "t",
            Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("Europe/Berlin")),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .expect("one length")
}

fn parquet(rows: &RecordBatch) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("writable");
    writer.write(rows).expect("written");
    writer.into_inner().expect("closed").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_as_they_were() {
    let rows = rows();
    let (form, payload) = Encoder::default()
        .encode(parquet(&rows))
        .await
        .expect("encoded");
    assert_eq!(form, Form::Vortex);
    let session = VortexSession::default().with_tokio();
    let buffer = vortex::buffer::ByteBuffer::from(payload);
    let file = session.open_options().open_buffer(buffer).expect("whole");
    let array = file
        .scan()
        .expect("readable")
        .into_array_stream()
        .expect("readable");
    let array = array.read_all().await.expect("readable");
    let target = Field::new_struct("", rows.schema().fields().clone(), false);
    let mut context = session.create_execution_ctx();
    let back = session
        .arrow()
        .execute_arrow(array, Some(&target), &mut context);
    let back = back.expect("arrow");
    let back = RecordBatch::from(arrow::array::AsArray::as_struct(&back).clone());
    for (at, field) in rows.schema().fields().iter().enumerate() {
        assert_eq!(rows.column(at), back.column(at), "column {}", field.name());
    }
}

#[tokio::test]
async fn types_that_do_not_come_back_leave_the_extent_as_it_is() {
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fixed = DataType::FixedSizeBinary(16);
    let encoder = Encoder::default();
    for data_type in [interval, dictionary, fixed] {
        let schema = Schema::new(vec![Field::new("c", data_type.clone(), true)]);
        assert!(!encoder.gives_back(&schema), "{data_type}");
    }
    let kept = [
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Date32,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Decimal128(15, 2),
    ];
    for data_type in kept {
        let schema = Schema::new(vec![Field::new("c", data_type.clone(), true)]);
        assert!(encoder.gives_back(&schema), "{data_type}");
    }
    let rows = concat_batches(&rows().schema(), []).expect("no rows");
    encoder
        .encode(parquet(&rows))
        .await
        .expect("an extent without rows");
    let error = encoder.encode(Bytes::from_static(b"no parquet")).await;
    assert!(error.is_err());
}
