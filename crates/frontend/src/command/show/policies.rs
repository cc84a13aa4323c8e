//! Policies, and a follower's own settings: *.show follower database*, *.show table policy*.

use serde_json::Value;
use slipstream_catalog::TableState;
use slipstream_kusto::{PolicyKind, PolicyTarget};

use super::{Database, no_table};
use crate::command::rows::{Cell, Kind, Rows};
use crate::command::{Context, json as shapes};
use crate::{ErrorKind, Permission, ServiceError};

use Kind::{Bool, Long, Text};

/// *.show follower database*.
const FOLLOWER: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("LeaderClusterMetadataPath", Text),
    ("CachingPolicyOverride", Text),
    ("AuthorizedPrincipalsOverride", Text),
    ("AuthorizedPrincipalsModificationKind", Text),
    ("CachingPoliciesModificationKind", Text),
    ("IsAutoPrefetchEnabled", Bool),
    ("TableMetadataOverrides", Text),
];

pub(in crate::command) fn follower_databases(
    context: &Context<'_>,
    names: &[String],
) -> Result<Rows, ServiceError> {
    let all = context.engine.overrides();
    for name in names {
        context.access.check(name, Permission::ViewMetadata)?;
        if !all.iter().any(|known| known.database == *name) {
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "not_a_followed_database",
                format!("database '{name}' is not one that this cluster follows"),
            ));
        }
    }
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    let rows = all
        .iter()
        .filter(|known| wanted(&known.database))
        .map(|known| {
            let overrides = &known.overrides;
            vec![
                known.database.as_str().into(),
                known.metadata_url.as_str().into(),
                overrides
                    .caching_policy
                    .as_ref()
                    .map(shapes::caching_override)
                    .into(),
                shapes::principals(&overrides.principals).into(),
                overrides.principals_modification_kind.to_string().into(),
                overrides
                    .caching_policies_modification_kind
                    .to_string()
                    .into(),
                overrides.prefetch_extents.into(),
                shapes::table_overrides(overrides).into(),
            ]
        });
    Ok(Rows::new(FOLLOWER).with(rows))
}

/// *.show table policy caching* and its like.
const POLICY: &[(&str, Kind)] = &[
    ("PolicyName", Text),
    ("EntityName", Text),
    ("Policy", Text),
    ("ChildEntities", Text),
    ("EntityType", Text),
];

pub(super) fn policy(
    context: &Context<'_>,
    target: &PolicyTarget,
    kind: PolicyKind,
) -> Result<Rows, ServiceError> {
    let name = policy_name(kind);
    let row = |entity: String, policy: Option<Value>, children: Cell, entity_type: &str| {
        vec![
            name.into(),
            entity.into(),
            // Kusto says null as text.
            policy.unwrap_or_default().to_string().into(),
            children,
            entity_type.into(),
        ]
    };
    let rows = Rows::new(POLICY);
    match target {
        PolicyTarget::Database(named) => {
            let database = context.database_or(named.as_deref())?;
            let database = context.visible_database(database)?;
            let state = database.state.as_ref();
            let policy = match kind {
                PolicyKind::Caching => state
                    .and_then(|state| state.caching_policy())
                    .map(shapes::caching),
                PolicyKind::Retention => state
                    .and_then(|state| state.retention_policy())
                    .map(shapes::retention),
                PolicyKind::Merge => state
                    .and_then(|state| state.merge_policy())
                    .map(shapes::merge),
                PolicyKind::IngestionBatching => state
                    .and_then(|state| state.ingestion_batching_policy())
                    .map(shapes::ingestion_batching),
                PolicyKind::StreamingIngestion => state
                    .and_then(|state| state.streaming_ingestion_policy())
                    .map(shapes::streaming_ingestion),
                PolicyKind::RowLevelSecurity => return Err(of_tables_only()),
            };
            let tables = database.tables().map(|table| table.name.as_str());
            let children = Value::from_iter(tables);
            let entity = format!("[{}]", database.description.name);
            Ok(rows.with([row(entity, policy, children.into(), "Database")]))
        }
        PolicyTarget::Table(named) => {
            let database = context.own_database()?;
            let tables = tables_of(&database, named.as_deref())?;
            Ok(rows.with(tables.into_iter().map(|table| {
                let policies = &table.policies;
                let policy = match kind {
                    PolicyKind::Caching => policies.caching.as_ref().map(shapes::caching),
                    PolicyKind::Retention => policies.retention.map(shapes::retention),
                    PolicyKind::Merge => policies.merge.map(shapes::merge),
                    PolicyKind::IngestionBatching => {
                        policies.ingestion_batching.map(shapes::ingestion_batching)
                    }
                    PolicyKind::StreamingIngestion => policies
                        .streaming_ingestion
                        .map(shapes::streaming_ingestion),
                    PolicyKind::RowLevelSecurity => {
                        policies.row_level_security.as_ref().map(shapes::security)
                    }
                };
                let entity = format!("[{}].[{}]", database.description.name, table.name);
                row(entity, policy, Cell::Null, "Table")
            })))
        }
        PolicyTarget::MaterializedView(name) => Err(no_view(name)),
    }
}

const fn policy_name(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Caching => "CachingPolicy",
        PolicyKind::Retention => "RetentionPolicy",
        PolicyKind::Merge => "ExtentsMergePolicy",
        PolicyKind::IngestionBatching => "IngestionBatchingPolicy",
        PolicyKind::StreamingIngestion => "StreamingIngestionPolicy",
        PolicyKind::RowLevelSecurity => "RowLevelSecurityPolicy",
    }
}

fn tables_of<'a>(
    database: &'a Database,
    name: Option<&str>,
) -> Result<Vec<&'a TableState>, ServiceError> {
    let tables = database.tables().map(AsRef::as_ref);
    let Some(name) = name else {
        return Ok(tables.collect());
    };
    let found: Vec<_> = tables.filter(|table| table.name.as_str() == name).collect();
    if found.is_empty() {
        return Err(no_table(&database.description.name, name));
    }
    Ok(found)
}

/// What holds, and why: the leader's policies, this node's overrides, how they combine, what
/// comes of it, and the version it was read from.
const EFFECTIVE: &[(&str, Kind)] = &[
    ("PolicyName", Text),
    ("DatabaseName", Text),
    ("TableName", Text),
    ("LeaderDatabasePolicy", Text),
    ("LeaderTablePolicy", Text),
    ("DatabaseOverride", Text),
    ("TableOverride", Text),
    ("CachingPoliciesModificationKind", Text),
    ("EffectivePolicy", Text),
    ("Source", Text),
    ("Explanation", Text),
    ("AppliedVersion", Long),
    ("AppliedDigest", Text),
];

pub(super) fn effective(
    context: &Context<'_>,
    target: &PolicyTarget,
    kind: PolicyKind,
) -> Result<Rows, ServiceError> {
    if kind != PolicyKind::Caching {
        return Err(ServiceError::new(
            ErrorKind::Unsupported,
            "unsupported",
            "only the caching policy can differ from the leader's: use .show table T policy for \
             the others",
        ));
    }
    let rows = Rows::new(EFFECTIVE);
    match target {
        PolicyTarget::Database(named) => {
            let database = context.visible_database(context.database_or(named.as_deref())?)?;
            Ok(rows.with([explain(&database, None)]))
        }
        PolicyTarget::Table(named) => {
            let database = context.own_database()?;
            let tables = tables_of(&database, named.as_deref())?;
            Ok(rows.with(
                tables
                    .into_iter()
                    .map(|table| explain(&database, Some(table))),
            ))
        }
        PolicyTarget::MaterializedView(name) => Err(no_view(name)),
    }
}

fn explain(database: &Database, table: Option<&TableState>) -> Vec<Cell> {
    let effective = match table {
        Some(table) => database.caching(table),
        None => database.default_caching(),
    };
    let state = database.state.as_ref();
    let overrides = database.overrides.as_ref();
    let own_table = overrides
        .zip(table)
        .and_then(|(overrides, table)| overrides.table_caching_policies.get(table.name.as_str()));
    let kind = overrides.map(|overrides| overrides.caching_policies_modification_kind.to_string());
    let explanation = if database.is_followed() {
        format!(
            "{}; kind {}: {}",
            effective.source,
            kind.as_deref().unwrap_or_default(),
            match kind.as_deref() {
                Some("None") => "overrides are kept and do nothing",
                Some("Replace") => "the leader's policies count for nothing here",
                _ =>
                    "an override takes the place of the leader's policy of the same entity, and a \
                      table's policy beats the database's",
            }
        )
    } else {
        format!("{}; this cluster owns the database", effective.source)
    };
    vec![
        "CachingPolicy".into(),
        database.description.name.as_str().into(),
        table.map(|table| table.name.as_str()).into(),
        state
            .and_then(|state| state.caching_policy())
            .map(shapes::caching)
            .into(),
        table
            .and_then(|table| table.policies.caching.as_ref())
            .map(shapes::caching)
            .into(),
        overrides
            .and_then(|overrides| overrides.caching_policy.as_ref())
            .map(shapes::caching)
            .into(),
        own_table.map(shapes::caching).into(),
        kind.clone().into(),
        effective.policy.as_ref().map(shapes::caching).into(),
        format!("{:?}", effective.source).into(),
        explanation.into(),
        state.map(|state| state.version().get()).into(),
        state.map(|state| state.digest().to_string()).into(),
    ]
}

fn of_tables_only() -> ServiceError {
    ServiceError::invalid("a database has no row-level security: only tables have")
}

fn no_view(name: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::NotFound,
        "materialized_view_not_found",
        format!("there is no materialized view '{name}': this version has none"),
    )
}
