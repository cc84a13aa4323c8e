//! What the doors make of bodies, with no node behind them: for the fuzzers in `fuzz/`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use axum::http::HeaderMap;

use super::{arm, kusto, sql};
use crate::{AttachRequest, InviteRequest, ServiceError, SqlRequest};

/// A body of `/v1/rest/query`, `/v2/rest/query` or `/v1/rest/mgmt`.
///
/// # Errors
/// When it asks for nothing that can be done.
pub fn kusto_body(body: &[u8]) -> Result<SqlRequest, ServiceError> {
    kusto::read(body).map(|(request, _)| request)
}

/// A body of `/v1/sql`, as JSON.
///
/// # Errors
/// When it asks for nothing that can be done.
pub fn sql_body(body: &[u8]) -> Result<SqlRequest, ServiceError> {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let asked = sql::parse(&HeaderMap::new(), &HashMap::new(), body, peer)?;
    Ok(asked.request)
}

/// A body about a resource, whose path goes on after `/subscriptions/`.
///
/// # Errors
/// When there is no such resource, or the body does not fit it.
pub fn resource_body(path: &str, body: &[u8]) -> Result<(), ServiceError> {
    arm::read_body(path, body)
}

/// A body of `/v1/attachments`, or of `/v1/invitations`.
pub fn sharing_body(body: &[u8]) -> (bool, bool) {
    let attach = serde_json::from_slice::<AttachRequest>(body).is_ok();
    let invite = serde_json::from_slice::<InviteRequest>(body).is_ok();
    (attach, invite)
}
