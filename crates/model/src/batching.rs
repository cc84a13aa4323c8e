//! How long small ingests wait for each other (*Ingestion batching policy*, Kusto documentation).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::merge::{format_period, parse_period};

/// The shortest wait. Kusto's is ten seconds; there nobody waits for the end of it.
const TIME_SPAN_MIN: Duration = Duration::from_secs(1);
/// The longest wait, as in Kusto.
const TIME_SPAN_MAX: Duration = Duration::from_secs(30 * 60);
/// Items of a batch, at most, as in Kusto.
const ITEMS_MAX: u32 = 25_000;
/// Size of a batch in MB, at most, as in Kusto.
const SIZE_MB_MAX: u32 = 4_096;

/// When queued ingests to a table become one extent and one commit: as soon as one of the bounds
/// is met.
///
/// Parameters and JSON are Kusto's, and so are the defaults but one. Kusto acknowledges a queued
/// ingest at once and takes it in within five minutes; here the writer waits for its
/// acknowledgement until the rows are durable, so the default is Kusto's shortest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "PascalCase")]
pub struct IngestionBatchingPolicy {
    /// How long the first of a batch waits, at most.
    #[serde(with = "span")]
    pub maximum_batching_time_span: Duration,
    /// Ingests of a batch, at most.
    pub maximum_number_of_items: u32,
    /// Size of a batch before encoding, in MB.
    #[serde(rename = "MaximumRawDataSizeMB")]
    pub maximum_raw_data_size_mb: u32,
}

/// A bound that no batch can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member}: at least {least} and at most {most} are allowed")]
pub struct InvalidBatching {
    member: &'static str,
    least: &'static str,
    most: &'static str,
}

impl Default for IngestionBatchingPolicy {
    fn default() -> Self {
        Self {
            maximum_batching_time_span: Duration::from_secs(10),
            maximum_number_of_items: 500,
            maximum_raw_data_size_mb: 1_024,
        }
    }
}

impl IngestionBatchingPolicy {
    /// The policy that holds for a table: its own, else the database's, else the default.
    pub fn effective(table: Option<Self>, database: Option<Self>) -> Self {
        table.or(database).unwrap_or_default()
    }

    /// Bytes of a batch before encoding, at most.
    pub const fn bytes_max(&self) -> u64 {
        (self.maximum_raw_data_size_mb as u64) << 20
    }

    /// Whether every bound is one that a batch can have.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), InvalidBatching> {
        let refuse = |member, least, most| {
            Err(InvalidBatching {
                member,
                least,
                most,
            })
        };
        if !(TIME_SPAN_MIN..=TIME_SPAN_MAX).contains(&self.maximum_batching_time_span) {
            return refuse("MaximumBatchingTimeSpan", "00:00:01", "00:30:00");
        }
        if !(1..=ITEMS_MAX).contains(&self.maximum_number_of_items) {
            return refuse("MaximumNumberOfItems", "1", "25000");
        }
        if !(1..=SIZE_MB_MAX).contains(&self.maximum_raw_data_size_mb) {
            return refuse("MaximumRawDataSizeMB", "1", "4096");
        }
        Ok(())
    }
}

/// A time span as Kusto writes it: `00:05:00`.
mod span {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{format_period, parse_period};

    pub(super) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = format_period(*span);
        text.strip_prefix("0.")
            .unwrap_or(&text)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_period(&text)
            .ok_or_else(|| D::Error::custom(format!("'{text}' is no timespan such as 00:05:00")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_is_kustos() {
        let json = json!({
            "MaximumBatchingTimeSpan": "00:00:10",
            "MaximumNumberOfItems": 500,
            "MaximumRawDataSizeMB": 1024,
        });
        let default = IngestionBatchingPolicy::default();
        assert_eq!(serde_json::to_value(default).expect("JSON"), json);
        let read = serde_json::from_value::<IngestionBatchingPolicy>;
        assert_eq!(read(json).expect("read"), default);
        let part = read(json!({"MaximumBatchingTimeSpan": "00:05:00"})).expect("read");
        let expected = IngestionBatchingPolicy {
            maximum_batching_time_span: Duration::from_secs(300),
            ..default
        };
        assert_eq!(part, expected);
        for wrong in [
            json!({"MaximumBatchingTimeSpan": "soon"}),
            json!({"MaximumBatchingTimeSpan": 10}),
            json!({"MaximumNumberOfItems": -1}),
            json!({"MaximumItems": 1}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_that_no_batch_can_have_are_refused() {
        let default = IngestionBatchingPolicy::default();
        assert_eq!(default.check(), Ok(()));
        let of_span = |seconds| IngestionBatchingPolicy {
            maximum_batching_time_span: Duration::from_secs(seconds),
            ..default
        };
        let of_items = |maximum_number_of_items| IngestionBatchingPolicy {
            maximum_number_of_items,
            ..default
        };
        let of_size = |maximum_raw_data_size_mb| IngestionBatchingPolicy {
            maximum_raw_data_size_mb,
            ..default
        };
        let fits = [of_span(1), of_span(1_800), of_items(25_000), of_size(4_096)];
        assert!(fits.iter().all(|policy| policy.check().is_ok()));
        for (policy, member) in [
            (of_span(0), "MaximumBatchingTimeSpan"),
            (of_span(1_801), "MaximumBatchingTimeSpan"),
            (of_items(0), "MaximumNumberOfItems"),
            (of_items(25_001), "MaximumNumberOfItems"),
            (of_size(0), "MaximumRawDataSizeMB"),
            (of_size(4_097), "MaximumRawDataSizeMB"),
        ] {
            let error = policy.check().expect_err("out of bounds").to_string();
            assert!(error.starts_with(member), "{error}");
        }
    }

    #[test]
    fn a_table_beats_its_database_and_that_the_default() {
        let items = |maximum_number_of_items| IngestionBatchingPolicy {
            maximum_number_of_items,
            ..IngestionBatchingPolicy::default()
        };
        let effective = IngestionBatchingPolicy::effective;
        assert_eq!(effective(Some(items(1)), Some(items(2))), items(1));
        assert_eq!(effective(None, Some(items(2))), items(2));
        assert_eq!(effective(None, None), items(500));
    }
}
