//! The resources `Microsoft.Kusto/clusters` as Azure Resource Manager has them, API version
//! 2025-02-14: what `azure-mgmt-kusto` and deployment templates speak.
//!
//! Subscription and resource group are taken as they come, since a node has neither. The cluster
//! must be the node's own. Operations are done when they are answered, but for a configuration
//! whose first synchronisation is under way: its `provisioningState` says so, and is polled.

mod assignments;
mod databases;
mod duration;
mod operation;
mod path;
mod resource;

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use slipstream_model::{PrincipalsModificationKind, TableLevelSharing};

use super::error::challenge;
use crate::{AttachRequest, AuthorizedEngine, ErrorKind, Gate, InviteRequest, ServiceError};
use databases::Write;
use path::{Resource, Scope};

/// The largest body: a configuration with a hundred filters is far smaller.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// An error in Resource Manager's shape.
struct ArmError(ServiceError);

impl<E: Into<ServiceError>> From<E> for ArmError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ArmError {
    fn into_response(self) -> Response {
        let error = self.0;
        let body = json!({"error": {"code": arm_code(&error), "message": error.message()}});
        let mut response = (error.kind().http(), Json(body)).into_response();
        challenge(&error, response.headers_mut());
        response
    }
}

/// Resource Manager's own codes where it has one; ours in its spelling elsewhere.
fn arm_code(error: &ServiceError) -> String {
    match error.code() {
        "configuration_not_found"
        | "database_not_found"
        | "leader_not_found"
        | "cluster_not_found" => "ResourceNotFound".to_owned(),
        "invalid_argument" => "InvalidRequestContent".to_owned(),
        code => code
            .split('_')
            .flat_map(|word| {
                let (first, rest) = word.split_at(word.len().min(1));
                [first.to_uppercase(), rest.to_owned()]
            })
            .collect(),
    }
}

type Answer = Result<Response, ArmError>;

/// Every request below `/subscriptions/`.
pub(super) async fn run(
    State(gate): State<Gate>,
    engine: Result<AuthorizedEngine, ServiceError>,
    method: Method,
    headers: HeaderMap,
    Path(rest): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => return ArmError(error).into_response(),
    };
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let request = Request {
        engine,
        origin: format!("{}://{}", gate.scheme(), host.unwrap_or("localhost")),
        query,
        body,
    };
    match request.answer(&method, &rest).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

struct Request {
    engine: AuthorizedEngine,
    /// Where the client found this node.
    origin: String,
    query: HashMap<String, String>,
    body: Bytes,
}

impl Request {
    async fn answer(self, method: &Method, rest: &str) -> Answer {
        if !self
            .query
            .keys()
            .any(|key| key.eq_ignore_ascii_case("api-version"))
        {
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "missing_api_version_parameter",
                "the query parameter api-version is missing: add api-version=2025-02-14",
            )
            .into());
        }
        if let Some(id) = path::operation(rest) {
            return Ok(ok(operation::status(&self.engine, id)?));
        }
        let (scope, resource) = path::parse(rest)?;
        let cluster = &self.engine.identity().cluster;
        if !scope.cluster.eq_ignore_ascii_case(cluster.as_str()) {
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "cluster_not_found",
                format!("this is cluster '{cluster}', not '{}'", scope.cluster),
            )
            .into());
        }
        match (method, resource) {
            (&Method::GET, Resource::Cluster) => Ok(ok(resource::cluster(&self.engine, &scope))),
            (&Method::DELETE, Resource::Cluster) => Err(self.delete_cluster().into()),
            (&Method::GET, Resource::Configurations) => Ok(ok(self.configurations(&scope)?)),
            (&Method::GET, Resource::Configuration(name)) => self.configuration(&scope, &name),
            (&Method::PUT, Resource::Configuration(name)) => self.put(&scope, name).await,
            (&Method::DELETE, Resource::Configuration(name)) => self.delete(&name).await,
            (&Method::POST, Resource::CheckConfigurationName) => self.check_configuration_name(),
            (&Method::GET, Resource::Databases) => Ok(ok(self.databases(&scope))),
            (&Method::GET, Resource::Database(name)) => self.database(&scope, &name),
            (&Method::PUT, Resource::Database(name)) => {
                self.put_database(&scope, &name, Write::Put).await
            }
            (&Method::PATCH, Resource::Database(name)) => {
                self.put_database(&scope, &name, Write::Patch).await
            }
            (&Method::DELETE, Resource::Database(name)) => self.delete_database(&name).await,
            (&Method::POST, Resource::Invite(name)) => self.invite(name).await,
            (&Method::POST, Resource::ListFollowers) => Ok(ok(self.followers(&scope, false)?)),
            (&Method::GET, Resource::ListFollowers) => Ok(ok(self.followers(&scope, true)?)),
            (&Method::GET, Resource::Assignments(database)) => {
                Ok(ok(assignments::list(&self.engine, &database, &scope)?))
            }
            (&Method::GET, Resource::Assignment(database, name)) => Ok(ok(assignments::get(
                &self.engine,
                &database,
                &name,
                &scope,
            )?)),
            (&Method::PUT, Resource::Assignment(database, name)) => {
                self.put_assignment(&scope, &database, &name).await
            }
            (&Method::DELETE, Resource::Assignment(database, name)) => {
                let deleted = assignments::delete(&self.engine, &database, &name).await?;
                Ok(status_of_delete(deleted).into_response())
            }
            (&Method::POST, Resource::DetachFollowers) => self.detach_follower().await,
            (method, _) => Err(ServiceError::new(
                ErrorKind::Unsupported,
                "method_not_allowed",
                format!("{method} is not supported of this resource"),
            )
            .into()),
        }
    }

    fn read<'a, T: Deserialize<'a>>(&'a self, what: &str) -> Result<T, ServiceError> {
        read(&self.body, what)
    }

    fn configurations(&self, scope: &Scope) -> Result<Value, ServiceError> {
        let location = &self.engine.identity().location;
        let all = self.engine.attachments()?;
        let all = all
            .iter()
            .map(|known| resource::configuration(known, scope, location));
        Ok(json!({"value": all.collect::<Vec<_>>()}))
    }

    fn configuration(&self, scope: &Scope, name: &str) -> Answer {
        let all = self.engine.attachments()?;
        let known = all
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(name));
        let known = known.ok_or_else(|| no_configuration(name))?;
        let location = &self.engine.identity().location;
        Ok(ok(resource::configuration(known, scope, location)))
    }

    async fn put(&self, scope: &Scope, name: String) -> Answer {
        let body: PutConfiguration = self.read("attached database configuration")?;
        let properties = body.properties;
        let all = self.engine.attachments()?;
        let is_new = !all.iter().any(|known| known.name == name);
        let attachment = self
            .engine
            .attach(AttachRequest {
                name: Some(name),
                leader: path::cluster_of(&properties.cluster_resource_id)?,
                database: properties.database_name,
                sharing: properties
                    .table_level_sharing_properties
                    .unwrap_or_default(),
                database_name_override: properties.database_name_override,
                database_name_prefix: properties.database_name_prefix,
                default_principals_modification_kind: properties
                    .default_principals_modification_kind,
                invitation: properties.invitation,
                location: body.location,
            })
            .await?;
        let status = if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let location = &self.engine.identity().location;
        let resource = resource::configuration(&attachment, scope, location);
        let mut response = (status, Json(resource)).into_response();
        let origin = &self.origin;
        operation::announce(&attachment, scope, location, origin, response.headers_mut());
        Ok(response)
    }

    async fn put_assignment(&self, scope: &Scope, database: &str, name: &str) -> Answer {
        let body = self.read("principal assignment")?;
        let is_new = assignments::put(&self.engine, database, name, body).await?;
        let status = if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        // On a follower whose kind leaves overrides out, what was just put does not show.
        let resource = assignments::get(&self.engine, database, name, scope)
            .unwrap_or_else(|_| json!({"name": name}));
        Ok((status, Json(resource)).into_response())
    }

    async fn delete(&self, name: &str) -> Answer {
        match self.engine.detach(name).await {
            Ok(()) => Ok(StatusCode::OK.into_response()),
            // What is not there is deleted: so Resource Manager has it.
            Err(error) if error.code() == "configuration_not_found" => {
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_configuration_name(&self) -> Answer {
        let asked: CheckName = self.read("name to check")?;
        let all = self.engine.attachments()?;
        let is_taken = all.iter().any(|known| known.name == asked.name);
        let mut answer = json!({"nameAvailable": !is_taken, "name": asked.name});
        if is_taken {
            answer["reason"] = json!("AlreadyExists");
            answer["message"] = json!(format!("there is a configuration '{}'", asked.name));
        }
        Ok(ok(answer))
    }

    async fn invite(&self, database: String) -> Answer {
        let body: Invite = self.read("invitation")?;
        let invitation = self
            .engine
            .invite(InviteRequest {
                database,
                invitee: Some(body.invitee_email),
                sharing: body.table_level_sharing_properties.unwrap_or_default(),
                expires_in: None,
            })
            .await?;
        Ok(ok(json!({"generatedInvitation": invitation.token})))
    }

    /// The POST form lists the properties themselves, the GET form has them below `properties`.
    fn followers(&self, scope: &Scope, is_nested: bool) -> Result<Value, ServiceError> {
        let followers = self.engine.followers()?;
        let followers = followers.iter().map(|follower| {
            let properties = resource::follower(follower, scope);
            if is_nested {
                json!({"properties": properties})
            } else {
                properties
            }
        });
        Ok(json!({"value": followers.collect::<Vec<_>>()}))
    }

    /// A cluster is not deleted by its own node. One that is followed could not be anyway, and then
    /// the followers are what there is to know (*Troubleshoot follower databases*).
    fn delete_cluster(&self) -> ServiceError {
        let followers = match self.engine.followers() {
            Ok(followers) => followers,
            Err(refused) => return refused,
        };
        let cluster = &self.engine.identity().cluster;
        if followers.is_empty() {
            return ServiceError::new(
                ErrorKind::Unsupported,
                "method_not_allowed",
                format!(
                    "cluster '{cluster}' is deleted by stopping its nodes and removing its \
                     databases from the bucket, not by a request to one of them"
                ),
            );
        }
        let names = followers.iter().map(|follower| {
            format!(
                "'{}' (configuration '{}')",
                follower.cluster, follower.configuration
            )
        });
        ServiceError::new(
            ErrorKind::Conflict,
            "cluster_followed",
            format!(
                "cluster '{cluster}' is followed by {}: detach them first",
                names.collect::<Vec<_>>().join(", ")
            ),
        )
    }

    async fn detach_follower(&self) -> Answer {
        let body: DetachFollower = self.read("follower database")?;
        let cluster = path::cluster_of(&body.cluster_resource_id)?;
        let name = &body.attached_database_configuration_name;
        self.engine.detach_follower(&cluster, name).await?;
        Ok(StatusCode::OK.into_response())
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, ServiceError> {
    serde_json::from_slice(body)
        .map_err(|error| ServiceError::invalid(format!("the body is no {what}: {error}")))
}

/// Reads a body as the resource of a path takes it, and does nothing with it.
pub(super) fn read_body(rest: &str, body: &[u8]) -> Result<(), ServiceError> {
    match path::parse(rest)?.1 {
        Resource::Configuration(_) => {
            let body: PutConfiguration = read(body, "attached database configuration")?;
            path::cluster_of(&body.properties.cluster_resource_id).map(drop)
        }
        Resource::CheckConfigurationName => read::<CheckName>(body, "name to check").map(drop),
        Resource::Database(_) => databases::read_body(body),
        Resource::Invite(_) => read::<Invite>(body, "invitation").map(drop),
        Resource::Assignment(..) => assignments::read_body(body),
        Resource::DetachFollowers => {
            let body: DetachFollower = read(body, "follower database")?;
            path::cluster_of(&body.cluster_resource_id).map(drop)
        }
        _ => Ok(()),
    }
}

/// What is not there is deleted: so Resource Manager has it.
const fn status_of_delete(was_there: bool) -> StatusCode {
    if was_there {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    }
}

fn ok(value: Value) -> Response {
    Json(value).into_response()
}

fn no_configuration(name: &str) -> ServiceError {
    let message = format!("there is no attached database configuration '{name}'");
    ServiceError::new(ErrorKind::NotFound, "configuration_not_found", message)
}

/// As Resource Manager does, properties that are not known are not minded: clients send what they
/// read.
#[derive(Debug, Deserialize)]
struct PutConfiguration {
    location: Option<String>,
    properties: ConfigurationProperties,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationProperties {
    database_name: String,
    cluster_resource_id: String,
    default_principals_modification_kind: PrincipalsModificationKind,
    table_level_sharing_properties: Option<TableLevelSharing>,
    database_name_override: Option<String>,
    database_name_prefix: Option<String>,
    /// Not Azure's: the token of an invitation.
    invitation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CheckName {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invite {
    invitee_email: String,
    table_level_sharing_properties: Option<TableLevelSharing>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DetachFollower {
    cluster_resource_id: String,
    attached_database_configuration_name: String,
}
