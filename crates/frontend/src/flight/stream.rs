//! An answer as Flight data.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use prost::bytes::Bytes;
use serde_json::json;
use slipstream_query::QueryStatistics;
use tonic::Status;

use crate::{Answer, ServiceError};

/// The state that an answer came from, as JSON; nothing when the request named no database.
pub(super) fn describe(answer: &Answer) -> Bytes {
    let Some(freshness) = &answer.freshness else {
        return Bytes::new();
    };
    let lag = freshness.staleness(answer.answered_at);
    let json = json!({
        "database": freshness.database,
        "version": freshness.version.get(),
        "digest": freshness.digest.to_string(),
        "last_contact": freshness.last_contact.to_string(),
        "lag_ms": u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
        "versions_behind": freshness.versions_behind,
    });
    json.to_string().into()
}

/// The rows, with the state they came from in the first message's `app_metadata` and, after a query,
/// what it cost in the last one's. That message has no rows.
pub(super) fn encode(answer: Answer) -> BoxStream<'static, Result<FlightData, Status>> {
    let metadata = describe(&answer);
    let schema = answer.rows.schema();
    let is_query = answer.rows.query_id().is_some();
    let (meter, columns) = (answer.rows.meter(), Arc::clone(&schema));
    let rows = answer
        .rows
        .map_err(|error| FlightError::Tonic(Box::new(Status::from(ServiceError::from(error)))));
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The schema that was announced says dictionaries; so the data has to.
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_metadata(metadata)
        .build(rows)
        .map_err(Status::from);
    if !is_query {
        return messages.boxed();
    }
    let last = stream::once(async move { cost(&columns, &meter.read()) });
    let last = last.map_ok(|messages| stream::iter(messages.into_iter().map(Ok::<_, Status>)));
    messages.chain(last.try_flatten()).boxed()
}

/// A batch without rows whose `app_metadata` says what a query cost. The encoder of rows leaves such
/// a batch out; clients that know nothing of it read nothing.
fn cost(schema: &SchemaRef, statistics: &QueryStatistics) -> Result<Vec<FlightData>, Status> {
    let options = IpcWriteOptions::default();
    let generator = IpcDataGenerator::default();
    let mut tracker = DictionaryTracker::new(false);
    // Numbers the dictionaries as the first message of the answer does.
    let _ = generator.schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    let empty = RecordBatch::new_empty(Arc::clone(schema));
    let mut context = IpcWriteContext::default();
    let (dictionaries, batch) = generator
        .encode(&empty, &mut tracker, &options, &mut context)
        .map_err(|error| Status::internal(error.to_string()))?;
    let mut last = FlightData::from(batch);
    last.app_metadata = json!({"statistics": statistics}).to_string().into();
    let mut messages: Vec<FlightData> = dictionaries.into_iter().map(FlightData::from).collect();
    messages.push(last);
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow_flight::decode::FlightRecordBatchStream;

    use super::*;

    #[tokio::test]
    async fn the_cost_comes_with_a_batch_that_has_no_rows() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("d", dictionary.clone(), true),
            Field::new("e", dictionary, true),
        ]));
        let messages = cost(&schema, &QueryStatistics::default()).expect("encodable");
        let last = messages.last().expect("a message");
        let said: serde_json::Value = serde_json::from_slice(&last.app_metadata).expect("JSON");
        assert_eq!(said["statistics"]["reads"]["requests"], 0);

        // After an answer without rows, a client reads nothing, and no error.
        let answer = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_dictionary_handling(DictionaryHandling::Resend)
            .build(stream::empty())
            .chain(stream::iter(messages.into_iter().map(Ok)));
        let batches = FlightRecordBatchStream::new_from_flight_data(answer);
        let batches: Vec<RecordBatch> = batches.try_collect().await.expect("readable");
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    }
}
