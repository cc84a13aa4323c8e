//! Extents that cannot be read, and why.

use std::error::Error;
use std::fmt;

use datafusion::error::DataFusionError;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use slipstream_model::DigestBuilder;

use super::reader::OpenedExtent;

/// Whether reading again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The extent is missing, cut short, or its bytes were changed.
    Damaged,
    /// The extent is missing, and may have been deleted since: its version is an older one, or it is
    /// another node that deletes files.
    NotKept,
    /// The store did not answer as it should; the extent may be whole.
    Unreadable,
}

/// An extent that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct ExtentFault {
    kind: FaultKind,
    extent: OpenedExtent,
    reason: String,
}

impl ExtentFault {
    pub(crate) fn damaged(extent: &OpenedExtent, reason: impl Into<String>) -> Self {
        Self {
            kind: FaultKind::Damaged,
            extent: extent.clone(),
            reason: reason.into(),
        }
    }

    fn missing(extent: &OpenedExtent) -> Self {
        let kind = match extent.older {
            Some(_) => FaultKind::NotKept,
            None => FaultKind::Damaged,
        };
        Self {
            kind,
            ..Self::damaged(extent, NOT_THERE)
        }
    }

    fn unreadable(extent: &OpenedExtent, reason: impl Into<String>) -> Self {
        Self {
            kind: FaultKind::Unreadable,
            extent: extent.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn kind(&self) -> FaultKind {
        self.kind
    }

    /// Finds out what is behind a failed read: an extent that is not what the catalog says, or a
    /// store in trouble. Asks for the object's size, which only a failed query does.
    pub(crate) async fn of_read(
        store: &dyn ObjectStore,
        extent: &OpenedExtent,
        failure: ReadFailure,
    ) -> Self {
        if failure.is_not_found {
            return Self::missing(extent);
        }
        match store.head(&extent.location).await {
            Ok(found) if found.size != extent.size_bytes => {
                Self::damaged(extent, wrong_size(found.size, extent.size_bytes))
            }
            Ok(_) if !failure.is_from_store => Self::damaged(extent, failure.message),
            Err(object_store::Error::NotFound { .. }) => Self::missing(extent),
            _ => Self::unreadable(extent, failure.message),
        }
    }
}

const NOT_THERE: &str = "the object is not there";

/// What an error of a read says.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    is_not_found: bool,
    is_from_store: bool,
    message: String,
}

impl From<&object_store::Error> for ReadFailure {
    fn from(error: &object_store::Error) -> Self {
        Self {
            is_not_found: matches!(error, object_store::Error::NotFound { .. }),
            is_from_store: true,
            message: error.to_string(),
        }
    }
}

impl From<&DataFusionError> for ReadFailure {
    fn from(error: &DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ObjectStore(error) => Self::from(error.as_ref()),
            other => Self {
                is_not_found: false,
                is_from_store: false,
                message: other.strip_backtrace(),
            },
        }
    }
}

pub(crate) fn wrong_size(found: u64, expected: u64) -> String {
    format!("the object has {found} bytes, and the catalog says {expected}")
}

impl fmt::Display for ExtentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            extent,
            reason,
        } = self;
        match (kind, &extent.older) {
            (FaultKind::NotKept, Some(version)) => write!(
                f,
                "version {version} is no longer kept as a whole: {extent} is not there any more"
            ),
            (FaultKind::Damaged | FaultKind::NotKept, _) => {
                write!(f, "{extent} is damaged: {reason}")
            }
            (FaultKind::Unreadable, _) => write!(f, "{extent} cannot be read now: {reason}"),
        }
    }
}

impl Error for ExtentFault {}

/// Reads extents from end to end and compares them with the catalog; the first that differs.
///
/// Called when a query failed over bytes that make no sense, to name the extent they came from.
pub(crate) async fn check_extents(
    store: &dyn ObjectStore,
    extents: &[OpenedExtent],
) -> Option<ExtentFault> {
    for extent in extents {
        let digest = async {
            let mut hash = DigestBuilder::default();
            let mut bytes = store.get(&extent.location).await?.into_stream();
            while let Some(bytes) = bytes.try_next().await? {
                hash.update(&bytes);
            }
            Ok::<_, object_store::Error>(hash.finish().to_string())
        };
        match digest.await {
            Ok(found) if found == extent.sha256 => {}
            Ok(found) => {
                let reason = format!(
                    "its SHA-256 is {found}, and the catalog says {}",
                    extent.sha256
                );
                return Some(ExtentFault::damaged(extent, reason));
            }
            Err(object_store::Error::NotFound { .. }) => {
                return Some(ExtentFault::missing(extent));
            }
            Err(error) => {
                tracing::debug!(%extent, %error, "could not check an extent");
            }
        }
    }
    None
}
