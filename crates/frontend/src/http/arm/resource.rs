//! Resources as JSON.

use serde_json::{Value, json};
use slipstream_model::{DatabaseAccessMode, TableLevelSharing};

use super::duration;
use super::path::Scope;
use crate::{
    Attachment, AuthorizedEngine, DatabaseDescription, FollowerDatabase, FollowerDescription,
};

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
    overrides: &[FollowerDatabase],
    scope: &Scope,
    location: &str,
) -> Value {
    let mut properties = json!({
        "provisioningState": database.provisioning_state,
        "statistics": {"size": database.size_bytes},
    });
    if let Some(reason) = &database.suspension {
        properties["suspensionDetails"] = json!({"reason": reason});
    }
    match (&database.source, database.access_mode) {
        (Some(source), DatabaseAccessMode::ReadOnlyFollowing) => {
            properties["leaderClusterResourceId"] = json!(scope.cluster_id(&source.leader));
            properties["attachedDatabaseConfigurationName"] = json!(source.configuration);
            properties["principalsModificationKind"] = json!(source.principals_modification_kind);
            properties["originalDatabaseName"] = json!(source.original_name);
            properties["databaseShareOrigin"] = json!(source.origin);
            share(&mut properties, &source.sharing);
            let own = overrides.iter().find(|own| own.database == database.name);
            if let Some(policy) = own.and_then(|own| own.overrides.caching_policy.as_ref()) {
                properties["hotCachePeriod"] = json!(duration::format(policy.data_hot_span));
            }
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
