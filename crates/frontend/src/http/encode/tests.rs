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
