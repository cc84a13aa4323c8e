//! What a node says of itself, and attachments.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::{
    AttachRequest, Attachment, AuthorizedEngine, ErrorKind, FollowerDatabase, FollowerDescription,
    Gate, Invitation, InvitationDescription, InviteRequest, ServiceError,
};

const ROUTES: &str = "POST /v1/sql, POST /v1/ingest/{database}/{table}, GET and POST \
                      /v1/attachments, DELETE /v1/attachments/{name}, GET /v1/overrides, GET \
                      /v1/followers, DELETE /v1/followers/{cluster}/{name}, GET and POST /v1/invitations, \
                      DELETE /v1/invitations/{id}, POST /v1/rest/query, POST /v1/rest/mgmt, POST \
                      /v2/rest/query, POST /v1/rest/ingest/{database}/{table}, GET \
                      /v1/rest/auth/metadata, /subscriptions/... (Microsoft.Kusto/clusters), GET /healthz, \
                      GET /readyz, GET /metrics";

pub(super) async fn about(State(gate): State<Gate>) -> String {
    let identity = gate.identity();
    format!(
        "Slipstream {} of cluster '{}' in location '{}', version {}.\n{ROUTES}\n",
        identity.role,
        identity.cluster,
        identity.location,
        env!("CARGO_PKG_VERSION"),
    )
}

pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(
    State(gate): State<Gate>,
    visitor: Result<AuthorizedEngine, ServiceError>,
) -> Response {
    // A probe has no token, and needs to know no more than whether the node is ready.
    let readiness = gate.readiness(visitor.as_ref().ok());
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

pub(super) async fn metrics(engine: AuthorizedEngine) -> Result<Response, ServiceError> {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], engine.metrics()?).into_response())
}

pub(super) async fn attachments(
    engine: AuthorizedEngine,
) -> Result<Json<Vec<Attachment>>, ServiceError> {
    engine.attachments().map(Json)
}

pub(super) async fn attach(
    engine: AuthorizedEngine,
    body: Bytes,
) -> Result<Json<Attachment>, ServiceError> {
    let request: AttachRequest = serde_json::from_slice(&body).map_err(|error| {
        ServiceError::invalid(format!(
            "the body is not {{\"leader\": ..., \"database\": ..., \"name\": ...}}: {error}"
        ))
    })?;
    engine.attach(request).await.map(Json)
}

pub(super) async fn detach(
    engine: AuthorizedEngine,
    Path(name): Path<String>,
) -> Result<StatusCode, ServiceError> {
    engine.detach(&name).await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn overrides(engine: AuthorizedEngine) -> Json<Vec<FollowerDatabase>> {
    Json(engine.overrides())
}

pub(super) async fn followers(
    engine: AuthorizedEngine,
) -> Result<Json<Vec<FollowerDescription>>, ServiceError> {
    engine.followers().map(Json)
}

pub(super) async fn detach_follower(
    engine: AuthorizedEngine,
    Path((cluster, name)): Path<(String, String)>,
) -> Result<StatusCode, ServiceError> {
    let detached = engine.detach_follower(&cluster, &name).await;
    detached.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn invite(
    engine: AuthorizedEngine,
    body: Bytes,
) -> Result<Json<Invitation>, ServiceError> {
    let request: InviteRequest = serde_json::from_slice(&body).map_err(|error| {
        ServiceError::invalid(format!(
            "the body is not {{\"database\": ..., \"sharing\": ..., \"expires_in\": \"7d\"}}: {error}"
        ))
    })?;
    engine.invite(request).await.map(Json)
}

pub(super) async fn invitations(
    engine: AuthorizedEngine,
) -> Result<Json<Vec<InvitationDescription>>, ServiceError> {
    engine.invitations().map(Json)
}

pub(super) async fn revoke_invitation(
    engine: AuthorizedEngine,
    Path(id): Path<String>,
) -> Result<StatusCode, ServiceError> {
    let revoked = engine.revoke_invitation(&id).await;
    revoked.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn unknown(method: Method, uri: Uri) -> ServiceError {
    ServiceError::new(
        ErrorKind::NotFound,
        "route_not_found",
        format!("there is no {method} {}; there are {ROUTES}", uri.path()),
    )
}
