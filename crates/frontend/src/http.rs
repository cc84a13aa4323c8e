//! HTTP: SQL, ingestion, attachments, Azure's resources, health, metrics.

mod arm;
mod encode;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod kusto;
mod node;
mod sql;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};

use crate::{ErrorKind, Gate, ServiceError};

/// The largest SQL request: a transaction of many `INSERT ... VALUES`. More is an ingest.
const SQL_BYTES_MAX: usize = 64 << 20;

/// A body up to this is read before anything is decided.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// How long a small body may take to arrive.
const SMALL_PATIENCE: Duration = Duration::from_secs(10);

/// Everything behind the HTTP port.
pub(crate) fn router(gate: Gate) -> Router {
    Router::new()
        .route("/", get(node::about))
        .route(
            "/v1/sql",
            post(sql::run).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)),
        )
        .route(
            "/v1/ingest/{database}/{table}",
            post(ingest::run).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/attachments", get(node::attachments).post(node::attach))
        .route("/v1/attachments/{name}", delete(node::detach))
        .route("/v1/overrides", get(node::overrides))
        .route("/v1/followers", get(node::followers))
        .route(
            "/v1/followers/{cluster}/{name}",
            delete(node::detach_follower),
        )
        .route("/v1/invitations", get(node::invitations).post(node::invite))
        .route("/v1/invitations/{id}", delete(node::revoke_invitation))
        .route(
            "/subscriptions/{*resource}",
            any(arm::run).layer(DefaultBodyLimit::max(arm::BODY_BYTES_MAX)),
        )
        .route(
            "/v2/rest/query",
            post(kusto::query_v2).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)),
        )
        .route(
            "/v1/rest/query",
            post(kusto::query_v1).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)),
        )
        .route(
            "/v1/rest/mgmt",
            post(kusto::query_v1).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)),
        )
        .route("/v1/rest/auth/metadata", get(kusto::auth_metadata))
        .route(
            "/v1/rest/ingest/{database}/{table}",
            post(ingest::run_kusto).layer(DefaultBodyLimit::disable()),
        )
        .route("/healthz", get(node::health))
        .route("/readyz", get(node::ready))
        .route("/metrics", get(node::metrics))
        .fallback(node::unknown)
        .with_state(gate)
        .layer(middleware::from_fn(take_small_body))
}

/// Reads a small body before the request is looked at. A refusal that comes earlier than its body
/// ends with HTTP/2's reset of the stream, and curl may tell of that instead of what was refused.
async fn take_small_body(request: Request, next: Next) -> Response {
    let size = request.body().size_hint().upper();
    if !size.is_some_and(|size| (1..=SMALL_BYTES_MAX as u64).contains(&size)) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let taken = tokio::time::timeout(SMALL_PATIENCE, to_bytes(body, SMALL_BYTES_MAX)).await;
    match taken {
        Ok(Ok(bytes)) => {
            next.run(Request::from_parts(parts, Body::from(bytes)))
                .await
        }
        _ => {
            let message = "the request's body did not arrive as a whole";
            ServiceError::new(ErrorKind::InvalidArgument, "invalid_argument", message)
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests;
