//! What ran and what runs: *.show queries*, *.show commands*, *.show commands-and-queries*. Those
//! of this node alone. What is not measured here is null in Kusto's columns.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use serde_json::{Value, json};
use slipstream_kusto::format_timespan;
use slipstream_model::Timestamp;

use crate::client::ClientLabel;
use crate::command::Context;
use crate::command::log::CommandRow;
use crate::command::rows::{Cell, Kind, Rows};
use crate::{ServiceError, SqlRequest};

use Kind::{Dynamic, Guid, Long, Text, Time, Timespan};

/// Requests are not sorted into groups: all are in the one that Kusto always has.
const WORKLOAD_GROUP: &str = "default";

/// *.show queries*.
const QUERIES: &[(&str, Kind)] = &[
    ("ClientActivityId", Text),
    ("Text", Text),
    ("Database", Text),
    ("StartedOn", Time),
    ("LastUpdatedOn", Time),
    ("Duration", Timespan),
    ("State", Text),
    ("RootActivityId", Guid),
    ("User", Text),
    ("FailureReason", Text),
    ("TotalCpu", Timespan),
    ("CacheStatistics", Dynamic),
    ("Application", Text),
    ("MemoryPeak", Long),
    ("ScannedExtentsStatistics", Dynamic),
    ("Principal", Text),
    ("ClientRequestProperties", Dynamic),
    ("ResultSetStatistics", Dynamic),
    ("WorkloadGroup", Text),
];

/// *.show commands*.
const COMMANDS: &[(&str, Kind)] = &[
    ("ClientActivityId", Text),
    ("CommandType", Text),
    ("Text", Text),
    ("Database", Text),
    ("StartedOn", Time),
    ("LastUpdatedOn", Time),
    ("Duration", Timespan),
    ("State", Text),
    ("RootActivityId", Guid),
    ("User", Text),
    ("FailureReason", Text),
    ("Application", Text),
    ("Principal", Text),
    ("TotalCpu", Timespan),
    ("ResourcesUtilization", Dynamic),
    ("WorkloadGroup", Text),
];

/// *.show commands-and-queries*.
const BOTH: &[(&str, Kind)] = &[
    ("ClientActivityId", Text),
    ("CommandType", Text),
    ("Text", Text),
    ("Database", Text),
    ("StartedOn", Time),
    ("LastUpdatedOn", Time),
    ("Duration", Timespan),
    ("State", Text),
    ("FailureReason", Text),
    ("RootActivityId", Guid),
    ("User", Text),
    ("Application", Text),
    ("Principal", Text),
    ("ClientRequestProperties", Dynamic),
    ("TotalCpu", Timespan),
    ("MemoryPeak", Long),
    ("CacheStatistics", Dynamic),
    ("ScannedExtentsStatistics", Dynamic),
    ("ResultSetStatistics", Dynamic),
    ("WorkloadGroup", Text),
];

/// Something that ran, or runs.
struct Activity {
    client: ClientLabel,
    /// What kind of command it is; `Query` for queries.
    kind: String,
    text: String,
    database: Option<String>,
    started_on: Timestamp,
    duration: Duration,
    state: String,
    id: String,
    principal: String,
    failure: String,
    /// What a query read and answered; commands read nothing.
    reads: Option<Reads>,
}

struct Reads {
    cache: Value,
    extents: Value,
    results: Value,
}

impl Activity {
    /// The value of one of Kusto's columns.
    fn cell(&self, column: &str) -> Cell {
        let reads = self.reads.as_ref();
        match column {
            "ClientActivityId" => self.client.activity_id.clone().into(),
            "CommandType" => self.kind.as_str().into(),
            "Text" => self.text.as_str().into(),
            "Database" => self.database.clone().into(),
            "StartedOn" => self.started_on.into(),
            "LastUpdatedOn" => self.started_on.plus(self.duration).into(),
            "Duration" => format_timespan(self.duration).into(),
            "State" => self.state.as_str().into(),
            "RootActivityId" => self.id.as_str().into(),
            "User" | "Principal" => self.principal.as_str().into(),
            "FailureReason" => self.failure.as_str().into(),
            "Application" => self.client.application().into(),
            "CacheStatistics" => reads.map(|reads| reads.cache.clone()).into(),
            "ScannedExtentsStatistics" => reads.map(|reads| reads.extents.clone()).into(),
            "ResultSetStatistics" => reads.map(|reads| reads.results.clone()).into(),
            "WorkloadGroup" => WORKLOAD_GROUP.into(),
            _ => Cell::Null,
        }
    }
}

fn table(columns: &[(&'static str, Kind)], activities: &[Activity]) -> Rows {
    let row = |activity: &Activity| {
        let cells = columns.iter().map(|(column, _)| activity.cell(column));
        cells.collect::<Vec<_>>()
    };
    Rows::new(columns).with(activities.iter().map(row))
}

pub(super) async fn queries(
    context: &Context<'_>,
    only_running: bool,
) -> Result<Rows, ServiceError> {
    Ok(table(QUERIES, &of_queries(context, only_running).await?))
}

pub(super) fn commands(context: &Context<'_>) -> Rows {
    table(COMMANDS, &of_commands(context))
}

pub(super) async fn commands_and_queries(context: &Context<'_>) -> Result<Rows, ServiceError> {
    let mut all = of_commands(context);
    all.extend(of_queries(context, false).await?);
    Ok(table(BOTH, &all))
}

async fn of_queries(
    context: &Context<'_>,
    only_running: bool,
) -> Result<Vec<Activity>, ServiceError> {
    let filter = if only_running {
        "WHERE state IN ('queued', 'running')"
    } else {
        // The query that asks is none of those that were asked for.
        "WHERE state NOT IN ('queued', 'running') OR text NOT LIKE '-- .show%'"
    };
    let request = SqlRequest {
        sql: format!(
            "-- .show queries\nSELECT query_id, text, database_name, state, principal, client, \
             error, started_on, duration_ms, row_count, bytes_scanned, requests, extents_scanned, \
             hot_hit_bytes, hot_miss_bytes, cold_hit_bytes, cold_miss_bytes \
             FROM slipstream.queries {filter} ORDER BY started_on"
        ),
        client: context.request.client.clone(),
        ..SqlRequest::default()
    };
    let answer = context.engine.execute_sql(request).await?;
    let batches = answer.rows.collect_batches().await?;
    let activities = batches.iter().map(activities_of);
    let activities = activities.collect::<Result<Vec<_>, _>>()?;
    Ok(activities.into_iter().flatten().collect())
}

fn activities_of(batch: &RecordBatch) -> Result<Vec<Activity>, ServiceError> {
    let texts: Vec<_> = batch.columns()[..7]
        .iter()
        .map(|column| cast(column, &DataType::Utf8))
        .collect::<Result<_, _>>()
        .map_err(|error| ServiceError::internal(error.to_string()))?;
    let started = batch.column(7).as_primitive::<TimestampMicrosecondType>();
    let numbers: Vec<_> = batch.columns()[8..]
        .iter()
        .map(|column| column.as_primitive::<Int64Type>())
        .collect();
    let activity = |row: usize| {
        let text = |column: usize| {
            let values = texts[column].as_string::<i32>();
            let is_there = !values.is_null(row);
            is_there.then(|| values.value(row).to_owned())
        };
        let known = |column: usize| text(column).unwrap_or_default();
        let number = |column: usize| numbers[column].value(row);
        Activity {
            client: ClientLabel::read(&known(5)),
            kind: "Query".to_owned(),
            text: known(1),
            database: text(2),
            started_on: Timestamp::from_micros(started.value(row)),
            duration: Duration::from_millis(u64::try_from(number(0)).unwrap_or(0)),
            state: capitalised(&known(3)),
            id: known(0),
            principal: known(4),
            failure: known(6),
            reads: Some(Reads {
                cache: cache_statistics(&[2, 3, 5, 6, 7, 8].map(number)),
                extents: json!({"ScannedExtentsCount": number(4)}),
                results: json!({"TableCount": 1, "TablesStatistics": [{"RowCount": number(1)}]}),
            }),
        }
    };
    Ok((0..batch.num_rows()).map(activity).collect())
}

/// Bytes that a query read: all, requests for them, hot ones from the disk and from the bucket, cold
/// ones likewise. In the shape of Kusto's `resource_usage.cache.shards`.
fn cache_statistics(&[all, requests, hot_hit, hot_miss, cold_hit, cold_miss]: &[i64; 6]) -> Value {
    json!({
        "Requests": requests,
        "BytesScanned": all,
        "Shards": {
            "Hot": {"HitBytes": hot_hit, "MissBytes": hot_miss},
            "Cold": {"HitBytes": cold_hit, "MissBytes": cold_miss},
        },
    })
}

/// Kusto's states begin with a capital letter.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

/// The commands that the caller may see, as with queries.
fn of_commands(context: &Context<'_>) -> Vec<Activity> {
    let all = context.engine.command_log().rows().into_iter();
    let visible = all.filter(|row| {
        let access = &context.access;
        access.sees_activity_of(&row.principal, row.database.as_deref())
    });
    visible.map(activity_of).collect()
}

fn activity_of(row: CommandRow) -> Activity {
    let state = if row.failure.is_some() {
        "Failed"
    } else {
        "Completed"
    };
    Activity {
        client: ClientLabel::read(&row.client),
        kind: command_type(&row.text),
        text: row.text,
        database: row.database,
        started_on: row.started_on,
        duration: row.duration,
        state: state.to_owned(),
        id: row.id.to_string(),
        principal: row.principal,
        failure: row.failure.unwrap_or_default(),
        reads: None,
    }
}

/// The command's first two words: `ShowTables`.
fn command_type(text: &str) -> String {
    let words = text.trim_start().trim_start_matches('.').split_whitespace();
    let words = words.take(2).map(|word| {
        let letters = word.chars().filter(|c| c.is_ascii_alphabetic());
        capitalised(&letters.collect::<String>().to_lowercase())
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_that_is_measured_has_a_value() {
        let activity = Activity {
            client: ClientLabel::read("kusto 127.0.0.1:1 id=a app=b"),
            kind: "Query".into(),
            text: "SELECT 1".into(),
            database: Some("d".into()),
            started_on: Timestamp::from_micros(0),
            duration: Duration::ZERO,
            state: "Completed".into(),
            id: "i".into(),
            principal: "aaduser=ada".into(),
            failure: String::new(),
            reads: Some(Reads {
                cache: json!({}),
                extents: json!({}),
                results: json!({}),
            }),
        };
        let not_measured = [
            "TotalCpu",
            "MemoryPeak",
            "ClientRequestProperties",
            "ResourcesUtilization",
        ];
        for (column, _) in QUERIES.iter().chain(COMMANDS).chain(BOTH) {
            let is_null = activity.cell(column) == Cell::Null;
            assert_eq!(is_null, not_measured.contains(column), "{column}");
        }
    }

    #[test]
    fn a_command_is_named_by_its_first_words() {
        assert_eq!(command_type(".show tables details"), "ShowTables");
        assert_eq!(
            command_type(" .create-merge table t (a:int)"),
            "CreatemergeTable"
        );
        assert_eq!(command_type(""), "");
    }
}
