//! Errors as HTTP answers.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::ServiceError;

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
        (self.kind().http(), Json(body)).into_response()
    }
}
