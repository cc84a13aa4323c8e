//! The node itself: *.show cluster*, *.show diagnostics*, *.show capacity*, *.show queries*.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use serde_json::json;
use slipstream_kusto::format_timespan;
use slipstream_model::Timestamp;
use slipstream_query::Replay;

use crate::command::Context;
use crate::command::log::CommandRow;
use crate::command::rows::{Cell, Kind, Rows};
use crate::{CachingPreview, ClusterPermission, HotSet, NodeRole, ServiceError, SqlRequest};

use Kind::{Bool, Dynamic, Guid, Long, Real, Text, Time, Timespan};

/// *.show version*.
pub(super) fn version() -> Rows {
    Rows::new(&[
        ("BuildVersion", Text),
        ("BuildTime", Text),
        ("ServiceType", Text),
        ("ProductVersion", Text),
        ("ServiceOffering", Text),
    ])
    .with([vec![
        env!("CARGO_PKG_VERSION").into(),
        Cell::Null,
        "Engine".into(),
        concat!("Slipstream ", env!("CARGO_PKG_VERSION")).into(),
        json!({"Type": "Slipstream"}).into(),
    ]])
}

/// *.show cluster*: one row a node, and this one knows of itself.
pub(super) fn cluster(context: &Context<'_>) -> Rows {
    let identity = context.engine.identity();
    Rows::new(&[
        ("NodeId", Text),
        ("Address", Text),
        ("Name", Text),
        ("Role", Text),
        ("Location", Text),
        ("IsAdmin", Bool),
        ("ProductVersion", Text),
    ])
    .with([vec![
        identity.cluster.as_str().into(),
        identity.cluster.as_str().into(),
        identity.cluster.as_str().into(),
        identity.role.to_string().into(),
        identity.location.as_str().into(),
        (identity.role == NodeRole::Leader).into(),
        env!("CARGO_PKG_VERSION").into(),
    ]])
}

/// *.show diagnostics* (`check-cluster-health.md`).
pub(super) fn diagnostics(context: &Context<'_>) -> Result<Rows, ServiceError> {
    context.access.caller().check(ClusterPermission::Monitor)?;
    let readiness = context.engine.readiness();
    let suspended = readiness
        .databases
        .iter()
        .filter_map(|database| {
            let why = database.suspension_state.as_ref()?;
            Some(format!("database '{}' stands still: {why}", database.name))
        })
        .collect::<Vec<_>>();
    let count = |ready: bool| {
        let all = readiness.databases.iter();
        all.filter(|database| database.ready == ready).count()
    };
    Ok(Rows::new(&[
        ("IsHealthy", Bool),
        ("NotHealthyReason", Text),
        ("IsAttentionRequired", Bool),
        ("AttentionRequiredReason", Text),
        ("IsScaleOutRequired", Bool),
        ("DatabasesReady", Long),
        ("DatabasesNotReady", Long),
    ])
    .with([vec![
        readiness.ready.into(),
        readiness.reason.clone().unwrap_or_default().into(),
        (!suspended.is_empty()).into(),
        suspended.join("; ").into(),
        false.into(),
        count(true).into(),
        count(false).into(),
    ]]))
}

/// *.show cache*: a row for the node, then one for each table that has hot extents; no row when the
/// node has no cache. Kusto documents no columns.
pub(super) fn cache(context: &Context<'_>) -> Result<Rows, ServiceError> {
    context.access.caller().check(ClusterPermission::Monitor)?;
    let mut columns = HOT_SET.to_vec();
    columns.extend([
        ("DiskBytes", Long),
        ("ShortfallBytes", Long),
        ("CacheUtilizationFactor", Real),
        ("WaitingExtents", Long),
        ("WaitingBytes", Long),
        ("InFlightBytes", Long),
        ("FetchedBytes", Long),
        ("Failures", Long),
        ("MemoryBytes", Long),
        ("MemoryBytesMax", Long),
        ("ColdDiskBytes", Long),
    ]);
    let Some(cache) = context.engine.cache() else {
        return Ok(Rows::new(&columns));
    };
    // Azure's: 100 is ideal, less is spare, more is hot data that does not fit.
    let factor = cache.hot.bytes as f64 * 100.0 / cache.disk_bytes.max(1) as f64;
    let mut node = hot_set("", "", &cache.hot);
    node.extend([
        cache.disk_bytes.into(),
        cache.shortfall_bytes.into(),
        factor.into(),
        cache.waiting_extents.into(),
        cache.waiting_bytes.into(),
        cache.in_flight_bytes.into(),
        cache.fetched_bytes.into(),
        cache.failures.into(),
        cache.memory_bytes.into(),
        cache.memory_bytes_max.into(),
        cache.cold_disk_bytes.into(),
    ]);
    let tables = cache.tables.iter().map(|((database, table), set)| {
        let mut row = hot_set(database, table, set);
        row.resize(columns.len(), Cell::Null);
        row
    });
    Ok(Rows::new(&columns).with(std::iter::once(node).chain(tables)))
}

/// What `.warm` answers: what is hot of a database, or of one of its tables, and how much is here.
pub(in crate::command) fn cache_of(
    context: &Context<'_>,
    database: &str,
    table: Option<&str>,
) -> Result<Rows, ServiceError> {
    let cache = context.engine.cache().unwrap_or_default();
    let rows = cache.tables.iter().filter_map(|(name, set)| {
        let is_it = name.0 == database && table.is_none_or(|table| name.1 == table);
        is_it.then(|| hot_set(&name.0, &name.1, set))
    });
    Ok(Rows::new(HOT_SET).with(rows))
}

/// What `.alter follower ... policy caching ... with (whatif=true)` answers.
pub(in crate::command) fn caching_preview(preview: &CachingPreview) -> Rows {
    let percent = |replay: &Replay| replay.hit_percent().map_or(Cell::Null, Cell::from);
    Rows::new(&[
        ("ExtentsToFetch", Long),
        ("BytesToFetch", Long),
        ("ExtentsToEvict", Long),
        ("BytesToEvict", Long),
        ("HotBytesBefore", Long),
        ("HotBytesAfter", Long),
        ("BudgetBytes", Long),
        ("Fits", Bool),
        ("ShortfallBytes", Long),
        ("ReplayedQueries", Long),
        ("HitPercentBefore", Real),
        ("HitPercentAfter", Real),
    ])
    .with([vec![
        preview.fetch_extents.into(),
        preview.fetch_bytes.into(),
        preview.evict_extents.into(),
        preview.evict_bytes.into(),
        preview.hot_bytes_before.into(),
        preview.hot_bytes_after.into(),
        preview.budget_bytes.into(),
        (preview.shortfall_bytes == 0).into(),
        preview.shortfall_bytes.into(),
        preview.after.queries.into(),
        percent(&preview.before),
        percent(&preview.after),
    ]])
}

/// The columns of [`hot_set`].
const HOT_SET: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("TableName", Text),
    ("HotExtents", Long),
    ("HotBytes", Long),
    ("ResidentExtents", Long),
    ("ResidentBytes", Long),
    ("EncodedExtents", Long),
    ("HitPercent", Real),
    ("HotHitBytes", Long),
    ("HotMissBytes", Long),
    ("ColdHitBytes", Long),
    ("ColdMissBytes", Long),
];

fn hot_set(database: &str, table: &str, set: &HotSet) -> Vec<Cell> {
    vec![
        database.into(),
        table.into(),
        set.extents.into(),
        set.bytes.into(),
        set.resident_extents.into(),
        set.resident_bytes.into(),
        set.encoded_extents.into(),
        set.hit_percent().map_or(Cell::Null, Cell::from),
        set.reads.hot_hit_bytes.into(),
        set.reads.hot_miss_bytes.into(),
        set.reads.cold_hit_bytes.into(),
        set.reads.cold_miss_bytes.into(),
    ]
}

/// *.show capacity*.
pub(super) async fn capacity(
    context: &Context<'_>,
    resource: Option<&str>,
) -> Result<Rows, ServiceError> {
    let all = context.engine.capacity();
    let wanted = all
        .iter()
        .filter(|known| resource.is_none_or(|name| known.resource.eq_ignore_ascii_case(name)));
    Ok(Rows::new(&[
        ("Resource", Text),
        ("Total", Long),
        ("Consumed", Long),
        ("Remaining", Long),
        ("Origin", Text),
    ])
    .with(wanted.map(|known| {
        vec![
            known.resource.into(),
            known.total.into(),
            known.consumed.into(),
            known.total.saturating_sub(known.consumed).into(),
            "CapacityPolicy".into(),
        ]
    })))
}

/// *.show queries*: those of this node alone.
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
    ("CacheStatistics", Dynamic),
    ("Application", Text),
    ("ScannedExtentsStatistics", Dynamic),
    ("Principal", Text),
    ("ResultSetStatistics", Dynamic),
];

pub(super) async fn queries(
    context: &Context<'_>,
    only_running: bool,
) -> Result<Rows, ServiceError> {
    Ok(Rows::new(QUERIES).with(query_rows(context, only_running).await?))
}

async fn query_rows(
    context: &Context<'_>,
    only_running: bool,
) -> Result<Vec<Vec<Cell>>, ServiceError> {
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
    let rows = batches.iter().map(rows_of);
    Ok(rows.collect::<Result<Vec<_>, _>>()?.concat())
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Vec<Cell>>, ServiceError> {
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
    let row = |row: usize| {
        let text = |column: usize| {
            let values = texts[column].as_string::<i32>();
            let is_there = !values.is_null(row);
            is_there.then(|| values.value(row).to_owned())
        };
        let number = |column: usize| numbers[column].value(row);
        let started_on = Timestamp::from_micros(started.value(row));
        let duration = Duration::from_millis(u64::try_from(number(0)).unwrap_or(0));
        vec![
            text(0).into(),
            text(1).into(),
            text(2).into(),
            started_on.into(),
            started_on.plus(duration).into(),
            format_timespan(duration).into(),
            text(3).map(capitalised).into(),
            text(0).into(),
            text(4).into(),
            text(6).unwrap_or_default().into(),
            cache_statistics(&[2, 3, 5, 6, 7, 8].map(number)).into(),
            text(5).into(),
            json!({"ScannedExtentsCount": number(4)}).into(),
            text(4).into(),
            json!({"TableCount": 1, "TablesStatistics": [{"RowCount": number(1)}]}).into(),
        ]
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// Bytes that a query read: all, requests for them, hot ones from the disk and from the bucket, cold
/// ones likewise. In the shape of Kusto's `resource_usage.cache.shards`.
fn cache_statistics(
    &[all, requests, hot_hit, hot_miss, cold_hit, cold_miss]: &[i64; 6],
) -> serde_json::Value {
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
fn capitalised(text: String) -> String {
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}

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
    ("User", Text),
    ("FailureReason", Text),
    ("Application", Text),
    ("Principal", Text),
];

/// The caller's own; everybody's, for those who may see what belongs to the cluster.
fn visible_commands(context: &Context<'_>) -> Vec<CommandRow> {
    let caller = context.access.caller();
    let all = context.engine.command_log().rows().into_iter();
    let sees_all = caller.may(ClusterPermission::Monitor);
    all.filter(|row| sees_all || row.principal == caller.principal.as_str())
        .collect()
}

pub(super) fn commands(context: &Context<'_>) -> Rows {
    let rows = visible_commands(context).into_iter();
    Rows::new(COMMANDS).with(rows.map(|row| {
        let state = state_of(&row);
        vec![
            Cell::Null,
            command_type(&row.text).into(),
            row.text.into(),
            row.database.into(),
            row.started_on.into(),
            row.started_on.plus(row.duration).into(),
            format_timespan(row.duration).into(),
            state.into(),
            row.principal.as_str().into(),
            row.failure.unwrap_or_default().into(),
            row.client.into(),
            row.principal.into(),
        ]
    }))
}

fn state_of(row: &CommandRow) -> &'static str {
    if row.failure.is_some() {
        "Failed"
    } else {
        "Completed"
    }
}

/// The command's first two words: `ShowTables`.
fn command_type(text: &str) -> String {
    let words = text.trim_start().trim_start_matches('.').split_whitespace();
    let words = words.take(2).map(|word| {
        let letters = word.chars().filter(|c| c.is_ascii_alphabetic());
        capitalised(letters.collect::<String>().to_lowercase())
    });
    words.collect()
}

/// *.show commands-and-queries*.
pub(super) async fn commands_and_queries(context: &Context<'_>) -> Result<Rows, ServiceError> {
    let columns = &[
        ("ClientActivityId", Text),
        ("CommandType", Text),
        ("Text", Text),
        ("Database", Text),
        ("StartedOn", Time),
        ("LastUpdatedOn", Time),
        ("Duration", Timespan),
        ("State", Text),
        ("FailureReason", Text),
        ("Application", Text),
        ("Principal", Text),
    ];
    let of_commands = visible_commands(context).into_iter().map(|row| {
        let state = state_of(&row);
        vec![
            Cell::Null,
            command_type(&row.text).into(),
            row.text.into(),
            row.database.into(),
            row.started_on.into(),
            row.started_on.plus(row.duration).into(),
            format_timespan(row.duration).into(),
            state.into(),
            row.failure.unwrap_or_default().into(),
            row.client.into(),
            row.principal.into(),
        ]
    });
    let of_queries = query_rows(context, false).await?.into_iter().map(|row| {
        let pick = |column: usize| row[column].clone();
        let mut picked = vec![pick(0), "Query".into()];
        picked.extend([1, 2, 3, 4, 5, 6, 9, 11, 13].map(pick));
        picked
    });
    Ok(Rows::new(columns).with(of_commands.chain(of_queries)))
}
