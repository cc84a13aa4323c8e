//! The node itself: *.show cluster*, *.show diagnostics*, *.show capacity*.

use serde_json::json;
use slipstream_query::Replay;

use crate::command::Context;
use crate::command::rows::{Cell, Kind, Rows};
use crate::{CachingPreview, ClusterPermission, HotSet, NodeRole, ServiceError};

use Kind::{Bool, Long, Real, Text};

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
