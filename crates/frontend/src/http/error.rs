//! Errors as HTTP answers.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::{ErrorKind, ServiceError};

/// Says how to authenticate, when nobody did (RFC 9110, section 11.6.1).
pub(super) fn challenge(error: &ServiceError, headers: &mut HeaderMap) {
    if error.kind() == ErrorKind::Unauthenticated {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"slipstream\""),
        );
    }
}

impl IntoResponse for ServiceError {
    /// `{"error": {"code": ..., "message": ..., "sqlstate": ...}}` with the kind's status.
    fn into_response(self) -> Response {
        let body = json!({
            "error": {
                "code": self.code(),
                "message": self.message(),
                "sqlstate": self.kind().sqlstate(),
            }
        });
        let mut response = (self.kind().http(), Json(body)).into_response();
        challenge(&self, response.headers_mut());
        response
    }
}
