//! `principalAssignments` of a database: a role for one principal, under a name.
//!
//! Names are kept as the principal's notes. A role that was given in another way has a name made
//! of its principal and role.

use serde::Deserialize;
use serde_json::{Value, json};
use slipstream_catalog::PrincipalsChange;
use slipstream_model::{DatabasePrincipal, DatabaseRole, Digest, PrincipalKind, PrincipalName};

use super::path::Scope;
use crate::{AuthorizedEngine, ErrorKind, Permission, ServiceError};

#[derive(Debug, Deserialize)]
pub(super) struct PutAssignment {
    properties: AssignmentProperties,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssignmentProperties {
    principal_id: String,
    role: DatabaseRole,
    principal_type: String,
    tenant_id: Option<String>,
}

fn name_of(principal: &DatabasePrincipal) -> String {
    match &principal.notes {
        Some(notes) if !notes.is_empty() => notes.clone(),
        _ => {
            let text = format!("{} {}", principal.role, principal.principal);
            Digest::of(text.as_bytes()).short()
        }
    }
}

fn describe(principal: &DatabasePrincipal, database: &str, scope: &Scope) -> Value {
    let name = name_of(principal);
    let id = scope.id("Databases", database);
    json!({
        "id": format!("{id}/PrincipalAssignments/{name}"),
        "name": format!("{}/{database}/{name}", scope.cluster),
        "type": "Microsoft.Kusto/Clusters/Databases/PrincipalAssignments",
        "properties": {
            "principalId": principal.principal.id(),
            "principalName": principal.principal.id(),
            "aadObjectId": principal.principal.id(),
            "role": principal.role.to_string(),
            "principalType": principal.principal.kind().to_string(),
            "tenantId": principal.principal.tenant(),
            "tenantName": principal.principal.tenant(),
            "provisioningState": "Succeeded",
        },
    })
}

pub(super) fn list(
    engine: &AuthorizedEngine,
    database: &str,
    scope: &Scope,
) -> Result<Value, ServiceError> {
    let all = engine.principals(database)?;
    let all = all.iter().map(|known| describe(known, database, scope));
    Ok(json!({"value": all.collect::<Vec<_>>()}))
}

pub(super) fn get(
    engine: &AuthorizedEngine,
    database: &str,
    name: &str,
    scope: &Scope,
) -> Result<Value, ServiceError> {
    let known = find(engine, database, name)?.ok_or_else(|| {
        ServiceError::new(
            ErrorKind::NotFound,
            "assignment_not_found",
            format!("database '{database}' has no principal assignment '{name}'"),
        )
    })?;
    Ok(describe(&known, database, scope))
}

fn find(
    engine: &AuthorizedEngine,
    database: &str,
    name: &str,
) -> Result<Option<DatabasePrincipal>, ServiceError> {
    let all = engine.principals(database)?.into_iter();
    Ok(all.into_iter().find(|known| name_of(known) == name))
}

/// Gives the role; whoever had the assignment's name before loses theirs. Says whether it is new.
pub(super) async fn put(
    engine: &AuthorizedEngine,
    database: &str,
    name: &str,
    body: PutAssignment,
) -> Result<bool, ServiceError> {
    let wanted = DatabasePrincipal {
        role: body.properties.role,
        principal: principal(&body.properties)?,
        notes: Some(name.to_owned()),
    };
    let before = find(engine, database, name)?;
    let is_new = before.is_none();
    if let Some(before) = before.filter(|before| *before != wanted) {
        drop_one(engine, database, before).await?;
    }
    engine
        .change_principals(database, PrincipalsChange::Add(vec![wanted]))
        .await?;
    Ok(is_new)
}

/// Takes the role back; says whether there was one.
pub(super) async fn delete(
    engine: &AuthorizedEngine,
    database: &str,
    name: &str,
) -> Result<bool, ServiceError> {
    match find(engine, database, name)? {
        Some(known) => drop_one(engine, database, known).await.map(|()| true),
        None => Ok(false),
    }
}

async fn drop_one(
    engine: &AuthorizedEngine,
    database: &str,
    known: DatabasePrincipal,
) -> Result<(), ServiceError> {
    engine.access().check(database, Permission::Administer)?;
    let overrides = engine.overrides().into_iter();
    let mut here = overrides.filter(|known| known.database == database);
    let is_the_leaders = here.any(|here| {
        let mut own = here.overrides.principals.iter();
        !own.any(|own| own.role == known.role && own.principal == known.principal)
    });
    if is_the_leaders {
        return Err(ServiceError::new(
            ErrorKind::Conflict,
            "leaders_principal",
            format!(
                "{} has this role from the leader, and a follower cannot take it back: with the \
                 principals modification kind Replace only its own principals count",
                known.principal
            ),
        ));
    }
    let change = PrincipalsChange::Drop(known.role, vec![known.principal]);
    engine.change_principals(database, change).await
}

/// Reads a body, and does nothing with it.
pub(super) fn read_body(body: &[u8]) -> Result<(), ServiceError> {
    let body: PutAssignment = super::read(body, "principal assignment")?;
    principal(&body.properties).map(drop)
}

fn principal(properties: &AssignmentProperties) -> Result<PrincipalName, ServiceError> {
    let kinds = [
        PrincipalKind::User,
        PrincipalKind::Group,
        PrincipalKind::App,
    ];
    let wanted = &properties.principal_type;
    let kind = kinds
        .iter()
        .find(|kind| kind.to_string().eq_ignore_ascii_case(wanted))
        .ok_or_else(|| {
            ServiceError::invalid(format!(
                "principalType '{wanted}' is not User, Group or App"
            ))
        })?;
    let prefix = match kind {
        PrincipalKind::User => "aaduser",
        PrincipalKind::Group => "aadgroup",
        PrincipalKind::App => "aadapp",
    };
    let tenant = properties.tenant_id.as_deref().filter(|id| !id.is_empty());
    let tenant = tenant.map(|id| format!(";{id}")).unwrap_or_default();
    format!("{prefix}={}{tenant}", properties.principal_id)
        .parse()
        .map_err(|error: slipstream_model::InvalidPrincipal| {
            ServiceError::invalid(error.to_string())
        })
}
