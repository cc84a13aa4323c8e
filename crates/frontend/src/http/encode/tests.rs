use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;

fn batches() -> Vec<RecordBatch> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]));
    let batch = |numbers: Vec<Option<i64>>, texts: Vec<&str>| {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(numbers)),
            Arc::new(StringArray::from(texts)),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid")
    };
    vec![
        batch(vec![Some(1), None], vec!["a", "b,c"]),
        batch(vec![], vec![]),
        batch(vec![Some(3)], vec!["]"]),
    ]
}

async fn encode(format: AnswerFormat, batches: Vec<RecordBatch>, schema: SchemaRef) -> Vec<u8> {
    let rows = futures::stream::iter(batches.into_iter().map(Ok));
    let chunks = Encoder::new(format, schema)
        .expect("encodable")
        .encode(rows);
    let chunks: Vec<_> = chunks.collect().await;
    chunks
        .into_iter()
        .flat_map(|chunk| chunk.expect("encoded"))
        .collect()
}

#[tokio::test]
async fn json_is_one_array_over_all_batches() {
    let schema = batches()[0].schema();
    let bytes = encode(AnswerFormat::Json, batches(), Arc::clone(&schema)).await;
    let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let expected = serde_json::json!([
        {"n": 1, "s": "a"}, {"n": null, "s": "b,c"}, {"n": 3, "s": "]"}
    ]);
    assert_eq!(value, expected);
    assert_eq!(encode(AnswerFormat::Json, vec![], schema).await, b"[]\n");
}

#[tokio::test]
async fn csv_has_one_header_also_without_rows() {
    let schema = batches()[0].schema();
    let bytes = encode(AnswerFormat::Csv, batches(), Arc::clone(&schema)).await;
    assert_eq!(
        String::from_utf8(bytes).expect("text"),
        "n,s\n1,a\n,\"b,c\"\n3,]\n"
    );
    assert_eq!(encode(AnswerFormat::Csv, vec![], schema).await, b"n,s\n");
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_in_an_error() {
    let failure = QueryError::new(slipstream_query::QueryErrorKind::Internal, "broke");
    let rows = futures::stream::iter([Ok(batches().remove(0)), Err(failure)]);
    let encoder = Encoder::new(AnswerFormat::Json, batches()[0].schema()).expect("encodable");
    let chunks: Vec<_> = encoder.encode(rows).collect().await;
    assert!(chunks.last().is_some_and(Result::is_err));
}

#[tokio::test]
async fn statistics_stand_after_the_rows() {
    let encode = async |format: AnswerFormat, batches: Vec<RecordBatch>, schema: SchemaRef| {
        let rows = futures::stream::iter(batches.into_iter().map(Ok));
        let encoder = Encoder::new(format, schema).expect("encodable");
        let body = with_statistics(format, encoder.encode(rows), QueryMeter::default());
        let chunks: Vec<_> = body.collect().await;
        let chunks = chunks.into_iter().map(|chunk| chunk.expect("encoded"));
        chunks.flatten().collect::<Vec<u8>>()
    };
    let schema = batches()[0].schema();
    for (rows, count) in [(batches(), 3), (vec![], 0)] {
        let bytes = encode(AnswerFormat::Json, rows, Arc::clone(&schema)).await;
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["rows"].as_array().map(Vec::len), Some(count));
        assert_eq!(value["statistics"]["reads"]["hotHitBytes"], 0);
        assert_eq!(value["statistics"]["tables"], serde_json::json!({}));
    }

    let bytes = encode(AnswerFormat::JsonLines, batches(), Arc::clone(&schema)).await;
    let text = String::from_utf8(bytes).expect("text");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["statistics"]["rows"], 0);

    // One stream after the other: a reader of the first stops at its end.
    let bytes = encode(AnswerFormat::Arrow, batches(), schema).await;
    let mut rest = bytes.as_slice();
    let mut counts = Vec::new();
    for _ in 0..2 {
        let reader = arrow::ipc::reader::StreamReader::try_new(&mut rest, None).expect("a stream");
        let read: Vec<_> = reader.map(|batch| batch.expect("a batch")).collect();
        counts.push(read.iter().map(RecordBatch::num_rows).sum::<usize>());
    }
    assert_eq!((counts, rest.len()), (vec![3, 1], 0));
    assert!(AnswerFormat::Csv.check_statistics().is_err());
}
