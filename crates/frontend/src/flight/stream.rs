//! An answer as Flight data.

use arrow_flight::FlightData;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::bytes::Bytes;
use serde_json::json;
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

/// The rows, with the state they came from in the first message's `app_metadata`.
pub(super) fn encode(answer: Answer) -> BoxStream<'static, Result<FlightData, Status>> {
    let metadata = describe(&answer);
    let schema = answer.rows.schema();
    let rows = answer
        .rows
        .map_err(|error| FlightError::Tonic(Box::new(Status::from(ServiceError::from(error)))));
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The schema that was announced says dictionaries; so the data has to.
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_metadata(metadata)
        .build(rows)
        .map_err(Status::from)
        .boxed()
}
