//! What a node says of itself, and attachments.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::{AttachRequest, Attachment, Engine, ErrorKind, ServiceError};

const ROUTES: &str = "POST /v1/sql, POST /v1/ingest/{database}/{table}, GET and POST \
                      /v1/attachments, DELETE /v1/attachments/{name}, POST /v1/rest/query, POST \
                      /v2/rest/query, /subscriptions/... (Microsoft.Kusto/clusters), GET /healthz, \
                      GET /readyz, GET /metrics";

pub(super) async fn about(State(engine): State<Arc<dyn Engine>>) -> String {
    let identity = engine.identity();
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

pub(super) async fn ready(State(engine): State<Arc<dyn Engine>>) -> Response {
    let readiness = engine.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

pub(super) async fn metrics() -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        crate::metrics::render(),
    )
        .into_response()
}

pub(super) async fn attachments(State(engine): State<Arc<dyn Engine>>) -> Json<Vec<Attachment>> {
    Json(engine.attachments())
}

pub(super) async fn attach(
    State(engine): State<Arc<dyn Engine>>,
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
    State(engine): State<Arc<dyn Engine>>,
    Path(name): Path<String>,
) -> Result<StatusCode, ServiceError> {
    engine.detach(&name).await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn unknown(method: Method, uri: Uri) -> ServiceError {
    ServiceError::new(
        ErrorKind::NotFound,
        "route_not_found",
        format!("there is no {method} {}; there are {ROUTES}", uri.path()),
    )
}
