//! An answer as Flight data.

use arrow_flight::FlightData;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tonic::Status;

use crate::{Answer, ServiceError};

/// The rows, with the state they came from as JSON in the first message's `app_metadata`.
pub(super) fn encode(answer: Answer) -> BoxStream<'static, Result<FlightData, Status>> {
    let schema = answer.rows.schema();
    let metadata = answer.freshness.map(|freshness| {
        json!({
            "database": freshness.database,
            "version": freshness.version.get(),
            "digest": freshness.digest.to_string(),
            "last_contact": freshness.last_contact.to_string(),
            "lag_ms": u64::try_from(freshness.staleness(answer.answered_at).as_millis()).ok(),
            "versions_behind": freshness.versions_behind,
        })
    });
    let rows = answer.rows.map_err(|error| {
        FlightError::Tonic(Box::new(Status::from(ServiceError::from(error))))
    });
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The schema that was announced says dictionaries; so the data has to.
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_metadata(metadata.map_or_else(Default::default, |value| value.to_string().into()))
        .build(rows)
        .map_err(Status::from)
        .boxed()
}
