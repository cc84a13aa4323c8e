//! Policies and principals as the JSON that Kusto's columns hold.

use std::time::Duration;

use serde_json::{Map, Value, json};
use slipstream_kusto::format_timespan;
use slipstream_model::{
    CachingPolicy, DatabasePrincipal, IngestionBatchingPolicy, MergePolicy, Overrides,
    RetentionPolicy, RowLevelSecurity, StreamingIngestionPolicy,
};

use crate::ServiceError;

/// A caching policy, as `.show ... policy caching` has it.
pub(super) fn caching(policy: &CachingPolicy) -> Value {
    let windows = policy.hot_windows.iter().map(
        |window| json!({"MinValue": window.min.to_string(), "MaxValue": window.max.to_string()}),
    );
    json!({
        "DataHotSpan": format_timespan(policy.data_hot_span),
        "IndexHotSpan": format_timespan(policy.index_hot_span),
        "HotWindows": Value::from_iter(windows),
    })
}

/// A caching policy, as `.show follower database` has it: spans are objects there.
pub(super) fn caching_override(policy: &CachingPolicy) -> Value {
    let span = |span: Duration| json!({"Value": format_timespan(span)});
    let mut value = json!({
        "DataHotSpan": span(policy.data_hot_span),
        "IndexHotSpan": span(policy.index_hot_span),
    });
    if !policy.hot_windows.is_empty() {
        value["HotWindows"] = caching(policy)["HotWindows"].take();
    }
    value
}

/// The overrides of tables and materialized views: `{"T": {"CachingPolicyOverride": ...}}`. The
/// names of materialized views begin with `_MV_`.
pub(super) fn table_overrides(overrides: &Overrides) -> Value {
    let entry = |policy| json!({"CachingPolicyOverride": caching_override(policy)});
    let tables = overrides.table_caching_policies.iter();
    let tables = tables.map(|(name, policy)| (name.clone(), entry(policy)));
    let views = overrides.materialized_view_caching_policies.iter();
    let views = views.map(|(name, policy)| (format!("_MV_{name}"), entry(policy)));
    Value::Object(tables.chain(views).collect())
}

/// Who has which role.
pub(super) fn principals(principals: &[DatabasePrincipal]) -> Value {
    let all = principals.iter().map(|known| {
        json!({
            "Principal": {
                "FullyQualifiedName": known.principal.as_str(),
                "DisplayName": known.principal.id(),
                "Type": known.principal.kind().to_string(),
                "Notes": known.notes.clone().unwrap_or_default(),
            },
            "Role": known.role.to_string(),
        })
    });
    Value::from_iter(all)
}

/// A retention policy.
pub(super) fn retention(policy: RetentionPolicy) -> Value {
    json!({
        "SoftDeletePeriod": format_timespan(policy.soft_delete_period),
        "Recoverability": if policy.is_recoverable { "Enabled" } else { "Disabled" },
    })
}

/// A merge policy: its JSON is Kusto's.
pub(super) fn merge(policy: MergePolicy) -> Value {
    serde_json::to_value(policy).unwrap_or_default()
}

/// Members of a merge policy that clients still send, and that say nothing here.
const MERGE_IGNORED: [&str; 2] = ["LoopPeriod", "Origin"];

/// Changes a merge policy by what a JSON object says.
///
/// # Errors
/// When it is none, or says something that no such policy has.
pub(super) fn read_merge(base: MergePolicy, json: &str) -> Result<MergePolicy, ServiceError> {
    let said: Map<String, Value> = serde_json::from_str(json).map_err(|error| {
        ServiceError::invalid(format!("a merge policy is a JSON object: {error}"))
    })?;
    let mut policy = merge(base);
    for (member, value) in said {
        if !MERGE_IGNORED.contains(&member.as_str()) {
            policy[member] = value;
        }
    }
    serde_json::from_value(policy)
        .map_err(|error| ServiceError::invalid(format!("this is no merge policy: {error}")))
}

/// An ingestion batching policy: its JSON is Kusto's.
pub(super) fn ingestion_batching(policy: IngestionBatchingPolicy) -> Value {
    serde_json::to_value(policy).unwrap_or_default()
}

/// Changes an ingestion batching policy by what a JSON object says.
///
/// # Errors
/// When it is none, says something that no such policy has, or a bound that no batch can have.
pub(super) fn read_ingestion_batching(
    base: IngestionBatchingPolicy,
    json: &str,
) -> Result<IngestionBatchingPolicy, ServiceError> {
    let refuse = |error: &dyn std::fmt::Display| {
        ServiceError::invalid(format!("this is no ingestion batching policy: {error}"))
    };
    let said: Map<String, Value> = serde_json::from_str(json).map_err(|error| refuse(&error))?;
    let mut policy = ingestion_batching(base);
    for (member, value) in said {
        policy[member] = value;
    }
    let policy: IngestionBatchingPolicy =
        serde_json::from_value(policy).map_err(|error| refuse(&error))?;
    policy.check().map_err(|error| refuse(&error))?;
    Ok(policy)
}

/// A streaming ingestion policy: its JSON is Kusto's.
pub(super) fn streaming_ingestion(policy: StreamingIngestionPolicy) -> Value {
    json!({"IsEnabled": policy.is_enabled, "HintAllocatedRate": null})
}

/// Changes a streaming ingestion policy by what a JSON object says. Kusto's hint of how much will
/// come is taken and not kept: nothing is allocated for it.
///
/// # Errors
/// When it is none, or says something that no such policy has.
pub(super) fn read_streaming_ingestion(
    base: StreamingIngestionPolicy,
    json: &str,
) -> Result<StreamingIngestionPolicy, ServiceError> {
    let refuse = |error: &dyn std::fmt::Display| {
        ServiceError::invalid(format!("this is no streaming ingestion policy: {error}"))
    };
    let mut said: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| refuse(&error))?;
    said.remove("HintAllocatedRate");
    said.entry("IsEnabled").or_insert(base.is_enabled.into());
    serde_json::from_value(said.into()).map_err(|error| refuse(&error))
}

/// A row-level security policy.
pub(super) fn security(policy: &RowLevelSecurity) -> Value {
    json!({"IsEnabled": policy.is_enabled, "Query": policy.predicate})
}
