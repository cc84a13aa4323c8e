//! One error for every door, and the one table that says what each kind is called there.

use std::fmt;

use axum::http::StatusCode;
use slipstream_query::{QueryError, QueryErrorKind};
use slipstream_storage::{StorageError, StorageErrorKind};
use tonic::{Code, Status};

/// What kind of failure a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is not SQL.
    Syntax,
    /// The request makes no sense, or does not fit the schema.
    InvalidArgument,
    /// There is no such database, table, configuration.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The state of things does not allow it: a followed database, a schema that changed.
    Conflict,
    /// Nobody says who asks, or somebody whom the node does not know.
    Unauthenticated,
    /// Whoever asks may not do that.
    Forbidden,
    /// This node only reads.
    ReadOnly,
    /// Another leader has taken over.
    Fenced,
    /// The state is older than the request allows.
    Stale,
    /// The system does not do this.
    Unsupported,
    /// The query needs more memory or disk than it may have.
    ResourcesExhausted,
    /// Too many requests wait already; later is fine.
    Overloaded,
    /// It took longer than it may.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// An object in the bucket is missing or damaged.
    DataCorrupt,
    /// The bucket, or another node, does not answer; later may be fine.
    Unavailable,
    /// A disk is full.
    Full,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tests and tables.
    pub const ALL: [Self; 19] = [
        Self::Syntax,
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::ReadOnly,
        Self::Fenced,
        Self::Stale,
        Self::Unsupported,
        Self::ResourcesExhausted,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::DataCorrupt,
        Self::Unavailable,
        Self::Full,
        Self::Internal,
    ];

    /// What the kind is called on each door: gRPC code, HTTP status, SQLSTATE.
    const fn codes(self) -> (Code, StatusCode, &'static str) {
        match self {
            Self::Syntax => (Code::InvalidArgument, StatusCode::BAD_REQUEST, "42601"),
            Self::InvalidArgument => (Code::InvalidArgument, StatusCode::BAD_REQUEST, "22023"),
            Self::NotFound => (Code::NotFound, StatusCode::NOT_FOUND, "42P01"),
            Self::AlreadyExists => (Code::AlreadyExists, StatusCode::CONFLICT, "42710"),
            Self::Conflict => (Code::FailedPrecondition, StatusCode::CONFLICT, "55000"),
            Self::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED, "28000"),
            Self::Forbidden => (Code::PermissionDenied, StatusCode::FORBIDDEN, "42501"),
            Self::ReadOnly => (Code::PermissionDenied, StatusCode::FORBIDDEN, "25006"),
            Self::Fenced => (Code::FailedPrecondition, StatusCode::CONFLICT, "57P04"),
            Self::Stale => (
                Code::FailedPrecondition,
                StatusCode::PRECONDITION_FAILED,
                "55000",
            ),
            Self::Unsupported => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED, "0A000"),
            Self::ResourcesExhausted => (
                Code::ResourceExhausted,
                StatusCode::INSUFFICIENT_STORAGE,
                "53200",
            ),
            Self::Overloaded => (
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                "53300",
            ),
            Self::DeadlineExceeded => {
                (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, "57014")
            }
            Self::Cancelled => (Code::Cancelled, StatusCode::REQUEST_TIMEOUT, "57014"),
            Self::DataCorrupt => (Code::DataLoss, StatusCode::INTERNAL_SERVER_ERROR, "XX001"),
            Self::Unavailable => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "08006"),
            Self::Full => (
                Code::ResourceExhausted,
                StatusCode::INSUFFICIENT_STORAGE,
                "53100",
            ),
            Self::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, "XX000"),
        }
    }

    /// The gRPC code.
    pub const fn grpc(self) -> Code {
        self.codes().0
    }

    /// The HTTP status.
    pub const fn http(self) -> StatusCode {
        self.codes().1
    }

    /// The SQLSTATE.
    pub const fn sqlstate(self) -> &'static str {
        self.codes().2
    }
}

/// A request that failed: its kind, a stable code for programs, a message for people.
#[derive(Debug, Clone)]
pub struct ServiceError {
    kind: ErrorKind,
    code: &'static str,
    message: String,
}

impl ServiceError {
    /// An error with a stable code, such as `table_not_found`.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
        }
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal", message)
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, "invalid_argument", message)
    }

    /// A name that cannot be used.
    pub fn invalid_name(error: slipstream_model::InvalidName) -> Self {
        Self::new(
            ErrorKind::InvalidArgument,
            "invalid_name",
            error.to_string(),
        )
    }

    /// Says where it happened, in front of what happened.
    #[must_use]
    pub fn context(self, place: impl fmt::Display) -> Self {
        Self {
            message: format!("{place}: {}", self.message),
            ..self
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What happened, for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServiceError {}

impl From<QueryError> for ServiceError {
    fn from(error: QueryError) -> Self {
        use QueryErrorKind as Q;
        let (kind, code) = match error.kind() {
            Q::Syntax => (ErrorKind::Syntax, "syntax_error"),
            Q::Planning => (ErrorKind::InvalidArgument, "invalid_query"),
            Q::NotFound => (ErrorKind::NotFound, "table_not_found"),
            Q::VersionNotFound => (ErrorKind::NotFound, "version_not_found"),
            Q::VersionNotKept => (ErrorKind::NotFound, "version_not_kept"),
            Q::ReadOnly => (ErrorKind::ReadOnly, "read_only"),
            Q::Unsupported => (ErrorKind::Unsupported, "unsupported"),
            Q::ResourcesExhausted => (ErrorKind::ResourcesExhausted, "resources_exhausted"),
            Q::Overloaded => (ErrorKind::Overloaded, "overloaded"),
            Q::DeadlineExceeded => (ErrorKind::DeadlineExceeded, "deadline_exceeded"),
            Q::Cancelled => (ErrorKind::Cancelled, "cancelled"),
            Q::DataCorrupt => (ErrorKind::DataCorrupt, "corrupt_data"),
            Q::Storage => (ErrorKind::Unavailable, "storage_unavailable"),
            Q::Execution => (ErrorKind::InvalidArgument, "execution_failed"),
            _ => (ErrorKind::Internal, "internal"),
        };
        Self::new(kind, code, error.to_string())
    }
}

impl From<StorageError> for ServiceError {
    fn from(error: StorageError) -> Self {
        use StorageErrorKind as S;
        let (kind, code) = match error.kind() {
            S::NotFound => (ErrorKind::NotFound, "object_not_found"),
            S::Denied => (ErrorKind::Unavailable, "storage_denied"),
            S::Full => (ErrorKind::Full, "storage_full"),
            S::Unavailable => (ErrorKind::Unavailable, "storage_unavailable"),
            S::Corrupt => (ErrorKind::DataCorrupt, "corrupt_data"),
            S::Invalid => (ErrorKind::InvalidArgument, "invalid_argument"),
            S::Uncertified => (ErrorKind::Unsupported, "store_not_certified"),
        };
        Self::new(kind, code, error.to_string())
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let mut status = Self::new(error.kind.grpc(), error.message);
        // The stable code travels beside the message, so that programs need not parse it.
        if let Ok(code) = error.code.parse() {
            status.metadata_mut().insert("slipstream-error-code", code);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_an_error_on_every_door() {
        for kind in ErrorKind::ALL {
            assert_ne!(kind.grpc(), Code::Ok, "{kind:?}");
            assert!(
                kind.http().is_client_error() || kind.http().is_server_error(),
                "{kind:?}"
            );
            assert_eq!(kind.sqlstate().len(), 5, "{kind:?}");
        }
    }

    #[test]
    fn the_stable_code_reaches_grpc_clients() {
        let error = ServiceError::new(ErrorKind::NotFound, "table_not_found", "no table 't'");
        let status = Status::from(error.context("statement 1 of 2"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "statement 1 of 2: no table 't'");
        let code = status
            .metadata()
            .get("slipstream-error-code")
            .expect("code");
        assert_eq!(code, "table_not_found");
    }
}
