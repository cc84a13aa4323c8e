//! What can go wrong with a store: one public kind, and the store's own words behind it.

use std::error::Error as StdError;
use std::{fmt, io};

/// What a caller can do about a [`StorageError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// There is no such object.
    NotFound,
    /// The credentials do not allow it.
    Denied,
    /// The disk behind a `file://` bucket is full.
    Full,
    /// The store did not answer, or not in time. Trying again is safe.
    Unavailable,
    /// An object is there, but it is not what it should be.
    Corrupt,
    /// The request makes no sense: a malformed URL, a bucket of a newer format.
    Invalid,
    /// The store does not keep the promise that commits rest on.
    Uncertified,
}

/// A request to the bucket that failed. Names the object and what was being done.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    message: String,
    source: Option<object_store::Error>,
}

impl StorageError {
    /// An error of our own finding.
    pub fn new(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// An error of the store's, while doing `action` to `object`.
    pub(crate) fn from_store(
        action: &str,
        object: &dyn fmt::Display,
        source: object_store::Error,
    ) -> Self {
        let kind = classify(&source);
        Self {
            kind,
            message: format!("cannot {action} {object}"),
            source: Some(source),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later, and does no harm when it did already.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            StorageErrorKind::Unavailable | StorageErrorKind::Full
        )
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let hint = match self.kind {
            StorageErrorKind::NotFound => ": there is no such object",
            StorageErrorKind::Denied => ": the store refuses these credentials",
            StorageErrorKind::Full => ": no space left on the device",
            StorageErrorKind::Unavailable => ": the store does not answer",
            _ => "",
        };
        if self.source.is_some() {
            f.write_str(hint)?;
        }
        match (&self.source, self.kind) {
            (None, _) | (_, StorageErrorKind::NotFound) => Ok(()),
            (Some(source), _) => write!(f, " ({})", innermost(source)),
        }
    }
}

impl StdError for StorageError {}

/// The last error of the chain: the others only say that something failed below them.
fn innermost(error: &object_store::Error) -> String {
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn classify(error: &object_store::Error) -> StorageErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => StorageErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => StorageErrorKind::Denied,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => StorageErrorKind::Invalid,
        _ => classify_io(error),
    }
}

fn classify_io(error: &object_store::Error) -> StorageErrorKind {
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    StorageErrorKind::Denied
                }
                io::ErrorKind::NotFound => StorageErrorKind::NotFound,
                _ => StorageErrorKind::Unavailable,
            };
        }
        cause = current.source();
    }
    StorageErrorKind::Unavailable
}
