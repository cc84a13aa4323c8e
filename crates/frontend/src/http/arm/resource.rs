//! Resources as JSON.

use std::time::Duration;

use serde_json::{Value, json};
use slipstream_catalog::DatabaseState;
use slipstream_model::{
    DatabaseAccessMode, EffectiveCaching, LeaderCaching, Overrides, TableLevelSharing,
};

use super::duration;
use super::path::Scope;
use crate::{Attachment, AuthorizedEngine, DatabaseDescription, FollowerDescription};

/// A database's periods, as they hold on this cluster. Kept for ever, or hot whatever its age:
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Policies {
    hot_cache_period: Option<Duration>,
    soft_delete_period: Option<Duration>,
}

impl Policies {
    /// Of a database at a state; `overrides` where it is followed.
    pub(super) fn of(state: Option<&DatabaseState>, overrides: Option<&Overrides>) -> Self {
        let leader = LeaderCaching {
            database: state.and_then(DatabaseState::caching_policy),
            table: None,
        };
        let caching = match overrides {
            // No table has this name.
            Some(overrides) => EffectiveCaching::of_follower(leader, overrides, ""),
            None => EffectiveCaching::of_leader(leader),
        };
        let retention = state.and_then(DatabaseState::retention_policy);
        Self {
            hot_cache_period: caching.policy.map(|policy| policy.data_hot_span),
            soft_delete_period: retention.map(|policy| policy.soft_delete_period),
        }
    }
}

/// `Microsoft.Kusto/Clusters`.
pub(super) fn cluster(engine: &AuthorizedEngine, scope: &Scope) -> Value {
    let identity = engine.identity();
    json!({
        "id": scope.cluster_id(identity.cluster.as_str()),
        "name": identity.cluster.as_str(),
        "type": "Microsoft.Kusto/Clusters",
        "location": identity.location,
        "sku": {"name": "Slipstream", "tier": "Standard", "capacity": 1},
        "properties": {"state": "Running", "provisioningState": "Succeeded"},
    })
}

/// `Microsoft.Kusto/Clusters/AttachedDatabaseConfigurations`.
pub(super) fn configuration(attachment: &Attachment, scope: &Scope, location: &str) -> Value {
    let terms = &attachment.terms;
    let served = attachment
        .databases
        .iter()
        .filter(|database| database.version.is_some());
    let mut properties = json!({
        "provisioningState": attachment.provisioning_state,
        "databaseName": terms.database.to_string(),
        "clusterResourceId": scope.cluster_id(&attachment.leader),
        "attachedDatabaseNames": served.map(|database| &database.name).collect::<Vec<_>>(),
        "defaultPrincipalsModificationKind": attachment.default_principals_modification_kind,
    });
    share(&mut properties, &terms.sharing);
    if let Some(name) = &terms.database_name_override {
        properties["databaseNameOverride"] = json!(name);
    }
    if let Some(prefix) = &terms.database_name_prefix {
        properties["databaseNamePrefix"] = json!(prefix);
    }
    if let Some(error) = &attachment.error {
        properties["error"] = json!({"code": error.code, "message": error.message});
    }
    json!({
        "id": scope.id("AttachedDatabaseConfigurations", &attachment.name),
        "name": format!("{}/{}", scope.cluster, attachment.name),
        "type": "Microsoft.Kusto/Clusters/AttachedDatabaseConfigurations",
        "location": location,
        "properties": properties,
    })
}

/// `Microsoft.Kusto/Clusters/Databases`, of either kind.
pub(super) fn database(
    database: &DatabaseDescription,
    policies: &Policies,
    scope: &Scope,
    location: &str,
) -> Value {
    let mut properties = json!({
        "provisioningState": database.provisioning_state,
        "statistics": {"size": database.size_bytes},
    });
    if let Some(reason) = &database.suspension {
        properties["suspensionDetails"] = json!({
            "reason": reason,
            "suspensionStartDate": database.suspended_since.map(|since| since.to_string()),
        });
    }
    if let Some(period) = policies.hot_cache_period {
        properties["hotCachePeriod"] = json!(duration::format(period));
    }
    if let Some(period) = policies.soft_delete_period {
        properties["softDeletePeriod"] = json!(duration::format(period));
    }
    match (&database.source, database.access_mode) {
        (Some(source), DatabaseAccessMode::ReadOnlyFollowing) => {
            properties["leaderClusterResourceId"] = json!(scope.cluster_id(&source.leader));
            properties["attachedDatabaseConfigurationName"] = json!(source.configuration);
            properties["principalsModificationKind"] = json!(source.principals_modification_kind);
            properties["originalDatabaseName"] = json!(source.original_name);
            properties["databaseShareOrigin"] = json!(source.origin);
            share(&mut properties, &source.sharing);
        }
        _ => properties["isFollowed"] = json!(database.is_followed),
    }
    json!({
        "id": scope.id("Databases", &database.name),
        "name": format!("{}/{}", scope.cluster, database.name),
        "type": "Microsoft.Kusto/Clusters/Databases",
        "location": location,
        "kind": database.access_mode.to_string(),
        "properties": properties,
    })
}

/// An entry of `listFollowerDatabases`.
pub(super) fn follower(follower: &FollowerDescription, scope: &Scope) -> Value {
    let mut properties = json!({
        "clusterResourceId": scope.cluster_id(&follower.cluster),
        "attachedDatabaseConfigurationName": follower.configuration,
        "databaseName": follower.database,
        "databaseShareOrigin": follower.origin,
    });
    share(&mut properties, &follower.sharing);
    properties
}

fn share(properties: &mut Value, sharing: &TableLevelSharing) {
    if !sharing.is_everything() {
        properties["tableLevelSharingProperties"] = json!(sharing);
    }
}
