//! A store that has been named, but not yet looked at.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt};

use crate::metered::MeteredStore;
use crate::{BucketPace, BucketPath, BucketUrl, RequestCounts, StorageError, StorageErrorKind};

/// A store and the prefix below which a bucket stands in it. Making one makes no request, so a
/// follower can start before its bucket does.
#[derive(Debug, Clone)]
pub struct BucketConnection {
    pub(crate) store: MeteredStore,
    prefix: Path,
    name: Arc<str>,
    /// A `file://` bucket: its objects are flushed to the device before they count as written.
    pub(crate) is_local: bool,
}

impl BucketConnection {
    /// Names a store.
    ///
    /// # Errors
    /// When the address cannot be one. Nothing is asked of the store yet.
    pub fn new(url: &BucketUrl) -> Result<Self, StorageError> {
        let (store, prefix) = url.build()?;
        let is_local = url.local_directory().is_some();
        Ok(Self {
            store: MeteredStore::new(store),
            prefix,
            name: url.to_string().into(),
            is_local,
        })
    }

    /// Wraps a store that somebody else made: a shared in-memory one, or one that injects faults.
    pub fn from_store(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        let name = format!("{store}/{prefix}").into();
        Self {
            store: MeteredStore::new(store),
            prefix,
            name,
            is_local: false,
        }
    }

    /// The store, for reading only: puts and deletes are refused. Counts requests.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store.read_only())
    }

    /// Where an object stands in that store.
    pub fn object_path(&self, path: &BucketPath) -> Path {
        self.prefix
            .parts()
            .chain(Path::from(path.as_str()).parts())
            .collect()
    }

    /// Whether a path of a store leads to objects of this bucket. They are read by queries, which know who
    /// may see which rows, and by nothing else that somebody may name.
    pub fn overlaps(&self, store: &dyn ObjectStore, path: &Path) -> bool {
        let overlap = |root: &&str| {
            let root: Path = self.prefix.parts().chain([PathPart::from(*root)]).collect();
            path.prefix_matches(&root) || root.prefix_matches(path)
        };
        // A store names itself by its kind and bucket, whatever address it was opened by.
        store.to_string() == self.store.to_string() && BucketPath::ROOTS.iter().any(overlap)
    }

    /// The requests made through this connection and its clones.
    pub fn requests(&self) -> RequestCounts {
        self.store.counts()
    }

    /// How fast the store answered lately, over this connection and its clones.
    pub fn pace(&self) -> BucketPace {
        self.store.pace()
    }

    /// Reads an object whole.
    ///
    /// # Errors
    /// When it is not there or the store does not give it.
    pub async fn get(&self, path: &BucketPath) -> Result<Bytes, StorageError> {
        let fail = |error| StorageError::from_store("read", &self.describe(path), error);
        let result = self
            .store
            .get(&self.object_path(path))
            .await
            .map_err(fail)?;
        result.bytes().await.map_err(fail)
    }

    /// Reads an object whole; `None` when it is not there.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn try_get(&self, path: &BucketPath) -> Result<Option<Bytes>, StorageError> {
        match self.get(path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is there; it is not read.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn has(&self, path: &BucketPath) -> Result<bool, StorageError> {
        match self.store.head(&self.object_path(path)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StorageError::from_store(
                "look for",
                &self.describe(path),
                error,
            )),
        }
    }

    /// An object's full address, for messages.
    pub(crate) fn describe(&self, path: &BucketPath) -> String {
        format!("{}/{path}", self.name.trim_end_matches('/'))
    }

    /// The bucket's address, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}
