//! A bucket that can be read.

use std::ops::Deref;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use slipstream_model::{BucketId, DatabaseId, ExtentId};

use crate::{BucketConnection, BucketPath, BucketUrl, StorageError, StorageErrorKind};

/// The version of the layout and the formats in a bucket that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Files that are looked for at one time. Somebody waits, and each look is a small request.
const LOOK_CONCURRENCY: usize = 64;

/// What `_slipstream/bucket.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) bucket_id: BucketId,
    pub(crate) format_version: u32,
}

impl Identity {
    /// Reads the identity; `None` when there is no bucket yet.
    pub(crate) async fn read(connection: &BucketConnection) -> Result<Option<Self>, StorageError> {
        let path = BucketPath::identity();
        let Some(bytes) = connection.try_get(&path).await? else {
            return Ok(None);
        };
        let object = connection.describe(&path);
        let identity: Self = serde_json::from_slice(&bytes).map_err(|error| {
            StorageError::new(
                StorageErrorKind::Corrupt,
                format!("{object} is damaged: {error}"),
            )
        })?;
        if identity.format_version > FORMAT_VERSION {
            let message = format!(
                "{object} has format version {}, and this program knows versions up to \
                 {FORMAT_VERSION}: use a newer one",
                identity.format_version
            );
            return Err(StorageError::new(StorageErrorKind::Invalid, message));
        }
        Ok(Some(identity))
    }
}

/// A bucket to read from. Cheap to clone. There is no way to put or delete through it: a
/// follower is built on this type.
#[derive(Debug, Clone)]
pub struct BucketReader {
    connection: BucketConnection,
    id: BucketId,
}

impl BucketReader {
    /// Opens a bucket that a leader has made.
    ///
    /// # Errors
    /// When there is none, when it cannot be reached, or when its format is newer than this
    /// program.
    pub async fn open(url: &BucketUrl) -> Result<Self, StorageError> {
        Self::identify(BucketConnection::new(url)?).await
    }

    /// Reads which bucket a connection leads to.
    ///
    /// # Errors
    /// As [`BucketReader::open`].
    pub async fn identify(connection: BucketConnection) -> Result<Self, StorageError> {
        match Identity::read(&connection).await? {
            Some(identity) => Ok(Self {
                connection,
                id: identity.bucket_id,
            }),
            None => Err(StorageError::new(
                StorageErrorKind::NotFound,
                format!(
                    "{} is not a Slipstream bucket: it has no {}. Start a leader on it first, or \
                     correct --bucket",
                    connection.name(),
                    BucketPath::identity()
                ),
            )),
        }
    }

    pub(crate) fn new(connection: BucketConnection, id: BucketId) -> Self {
        Self { connection, id }
    }

    /// Which bucket this is, wherever it is reached from.
    pub fn id(&self) -> BucketId {
        self.id
    }

    /// One of some extents whose file is not there; `None` when all are. Costs a request each.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn missing_extent(
        &self,
        database: DatabaseId,
        extents: &[ExtentId],
    ) -> Result<Option<ExtentId>, StorageError> {
        let looks = stream::iter(extents.to_vec()).map(|id| {
            let connection = self.connection.clone();
            async move { (id, connection.has(&BucketPath::extent(database, id)).await) }
        });
        let mut looks = looks.buffer_unordered(LOOK_CONCURRENCY);
        while let Some((id, is_there)) = looks.next().await {
            if !is_there? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

impl Deref for BucketReader {
    type Target = BucketConnection;

    fn deref(&self) -> &BucketConnection {
        &self.connection
    }
}
