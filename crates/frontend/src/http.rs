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

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post};

use crate::Gate;

/// The largest SQL request: a transaction of many `INSERT ... VALUES`. More is an ingest.
const SQL_BYTES_MAX: usize = 64 << 20;

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
}

#[cfg(test)]
mod tests;
