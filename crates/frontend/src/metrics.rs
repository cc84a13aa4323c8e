//! Prometheus metrics of the process.

use std::sync::OnceLock;
use std::time::Instant;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{DatabaseDescription, ServiceError};

/// Seconds; from the cost of a catalog answer to the default deadline.
const SECONDS_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 240.0,
];

/// Transactions of one commit, up to the most that a writer takes together.
const GROUP_SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts to gather metrics. Doing it again changes nothing.
pub(crate) fn install() {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets(&SECONDS_BUCKETS)
            .ok()?;
        let sizes = Matcher::Full("slipstream_commit_group_size".to_owned());
        let builder = builder.set_buckets_for_metric(sizes, &GROUP_SIZE_BUCKETS);
        let handle = builder.ok()?.install_recorder().ok()?;
        describe();
        Some(handle)
    });
}

fn describe() {
    describe_counter!(
        "slipstream_requests_total",
        "requests by door, operation and outcome"
    );
    describe_histogram!(
        "slipstream_request_seconds",
        "time until the answer begins; of an ingest, the whole of it"
    );
    describe_counter!(
        "slipstream_store_requests_total",
        "requests to the bucket by operation"
    );
    describe_counter!("slipstream_commits_total", "commits written");
    describe_histogram!("slipstream_commit_seconds", "time to make a commit durable");
    describe_counter!(
        "slipstream_merges_total",
        "merges of extents by outcome: merged, superseded or failed"
    );
    describe_counter!(
        "slipstream_merge_sources_total",
        "extents that became part of another"
    );
    describe_counter!("slipstream_merge_rows_total", "rows that merges wrote anew");
    describe_counter!(
        "slipstream_merge_bytes_total",
        "bytes of the extents that merges wrote"
    );
    describe_histogram!("slipstream_merge_seconds", "time to merge extents into one");
    describe_counter!(
        "slipstream_retention_removed_extents_total",
        "extents that left because the retention policy keeps them no longer"
    );
    describe_counter!(
        "slipstream_retention_removed_rows_total",
        "rows in those extents"
    );
    describe_counter!(
        "slipstream_retention_failures_total",
        "passes of a database in which they could not be removed"
    );
    describe_counter!(
        "slipstream_gc_deleted_extents_total",
        "extents whose files were deleted, by database"
    );
    describe_counter!("slipstream_gc_deleted_bytes_total", "bytes of those files");
    describe_counter!(
        "slipstream_gc_orphans_total",
        "files that were deleted because no commit ever named them, by database"
    );
    describe_counter!("slipstream_gc_orphan_bytes_total", "bytes of those files");
    describe_counter!(
        "slipstream_gc_dropped_databases_total",
        "dropped databases whose objects were deleted"
    );
    describe_counter!(
        "slipstream_gc_failures_total",
        "rounds of a database that ended before their time"
    );
    describe_gauge!(
        "slipstream_gc_blocked_extents",
        "removed extents whose files are kept, by database and reason"
    );
    describe_gauge!("slipstream_gc_blocked_bytes", "bytes of those files");
    describe_gauge!(
        "slipstream_database_version",
        "version that is served, by database"
    );
    describe_gauge!(
        "slipstream_follower_latency_ms",
        "how long ago the followed database that is furthest behind was known to be the newest"
    );
    describe_gauge!(
        "slipstream_database_lag_ms",
        "how long ago a followed database was known to be the newest there is"
    );
    describe_gauge!(
        "slipstream_database_versions_behind",
        "versions that the leader is known to be ahead"
    );
}

/// How far behind each followed database is, now; and, as Azure's `FollowerLatency`, the one that
/// is furthest.
pub(crate) fn note_lag(databases: &[DatabaseDescription]) {
    let mut latency = None;
    for database in databases {
        let Some(lag) = database.lag else { continue };
        let millis = lag.as_secs_f64() * 1_000.0;
        let name = database.name.clone();
        gauge!("slipstream_database_lag_ms", "database" => name.clone()).set(millis);
        let behind = database.versions_behind as f64;
        gauge!("slipstream_database_versions_behind", "database" => name).set(behind);
        latency = Some(latency.map_or(millis, |known: f64| known.max(millis)));
    }
    gauge!("slipstream_follower_latency_ms").set(latency.unwrap_or_default());
}

/// Everything gathered so far, in Prometheus' text format. The recorder keeps a gauge once it was
/// set: those of databases that are gone are left out here.
pub(crate) fn render(databases: &[DatabaseDescription]) -> String {
    install();
    let handle = HANDLE.get().and_then(Option::as_ref);
    let all = handle.map(PrometheusHandle::render).unwrap_or_default();
    let labels = databases.iter().map(|database| label(&database.name));
    without_gone(&all, &labels.collect::<Vec<_>>())
}

/// The label of a database, with what Prometheus' text format escapes.
fn label(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('"', "\\\"");
    format!("database=\"{}\"", escaped.replace('\n', "\\n"))
}

/// A text of metrics without the gauges of databases that none of the labels names.
fn without_gone(metrics: &str, labels: &[String]) -> String {
    let is_kept = |line: &&str| {
        !line.starts_with("slipstream_database_")
            || labels.iter().any(|label| line.contains(label.as_str()))
    };
    let lines = metrics.lines().filter(is_kept);
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A request that is being timed.
#[derive(Debug)]
pub(crate) struct Timer {
    door: &'static str,
    operation: &'static str,
    started: Instant,
}

impl Timer {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a request took decides nothing"
    )]
    pub(crate) fn start(door: &'static str, operation: &'static str) -> Self {
        Self {
            door,
            operation,
            started: Instant::now(),
        }
    }

    /// Counts the request, with what came of it.
    pub(crate) fn finish<T>(self, result: &Result<T, ServiceError>) {
        let Self {
            door,
            operation,
            started,
        } = self;
        let outcome = result.as_ref().map_or_else(ServiceError::code, |_| "ok");
        counter!(
            "slipstream_requests_total",
            "door" => door, "operation" => operation, "outcome" => outcome
        )
        .increment(1);
        histogram!("slipstream_request_seconds", "door" => door, "operation" => operation)
            .record(started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_of_databases_that_are_gone_are_left_out() {
        let metrics = "# TYPE slipstream_database_lag_ms gauge\n\
            slipstream_database_lag_ms{database=\"d\"} 1\n\
            slipstream_database_lag_ms{database=\"gone\"} 2\n\
            slipstream_queries_active 3\n";
        let shown = without_gone(metrics, &[label("d")]);
        assert_eq!(
            shown,
            metrics.replace("slipstream_database_lag_ms{database=\"gone\"} 2\n", "")
        );
        assert_eq!(label(r#"a"b\c"#), r#"database="a\"b\\c""#);
    }
}
