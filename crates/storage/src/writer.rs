//! A bucket that can be written, and the primitive that commits rest on.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use slipstream_model::{BucketId, Clock, DatabaseId, Entropy, ExtentId};

use crate::bucket::{FORMAT_VERSION, Identity};
use crate::{
    BucketConnection, BucketPath, BucketReader, BucketUrl, EncodedExtent, StorageError,
    StorageErrorKind, certify,
};

/// How often one create is tried before its outcome is given up on as unknown. The store's own
/// client has retried each of them already.
const CREATE_ATTEMPTS_MAX: u32 = 5;
/// The pause after the first failed attempt; each further one doubles it.
const CREATE_BACKOFF: Duration = Duration::from_millis(50);

/// What became of a create-only put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The object there is ours: written now, or by an earlier attempt whose answer was lost.
    Created,
    /// Somebody else's object stands there; these are its bytes.
    Exists(Bytes),
}

/// A bucket to read and write. Cheap to clone.
#[derive(Clone)]
pub struct BucketWriter {
    reader: BucketReader,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl BucketWriter {
    /// Opens a bucket, makes it one if it is new, and certifies that its store can be committed
    /// to.
    ///
    /// # Errors
    /// When the store cannot be reached, refuses, holds a newer format, or does not honour
    /// create-only puts.
    pub async fn open(
        url: &BucketUrl,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Self, StorageError> {
        if let Some(directory) = url.local_directory() {
            tokio::fs::create_dir_all(&directory)
                .await
                .map_err(|error| {
                    let message =
                        format!("cannot make the directory {}: {error}", directory.display());
                    StorageError::new(StorageErrorKind::Denied, message)
                })?;
        }
        Self::connect(BucketConnection::new(url)?, clock, entropy).await
    }

    /// The same, over a store that somebody else made.
    ///
    /// # Errors
    /// As [`BucketWriter::open`].
    pub async fn from_store(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Self, StorageError> {
        Self::connect(BucketConnection::from_store(store, prefix), clock, entropy).await
    }

    /// A new bucket in memory, for tests and examples.
    ///
    /// # Panics
    /// Never: memory honours create-only puts.
    pub async fn memory(clock: Arc<dyn Clock>, entropy: Entropy) -> Self {
        Self::from_store(Arc::new(InMemory::new()), Path::default(), clock, entropy)
            .await
            .expect("a store in memory is always certified")
    }

    async fn connect(
        connection: BucketConnection,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Self, StorageError> {
        let unidentified = BucketReader::new(connection.clone(), BucketId::default());
        let mut writer = Self {
            reader: unidentified,
            clock,
            entropy,
        };
        certify::certify(&writer).await?;
        let id = match Identity::read(&connection).await? {
            Some(identity) => identity.bucket_id,
            None => writer.make_identity().await?,
        };
        writer.reader = BucketReader::new(connection, id);
        Ok(writer)
    }

    /// Makes the bucket one. Of two leaders that do so at once, both end with the same id.
    async fn make_identity(&self) -> Result<BucketId, StorageError> {
        let identity = Identity {
            bucket_id: BucketId::new(self.entropy.uuid()),
            format_version: FORMAT_VERSION,
        };
        let body = serde_json::to_vec_pretty(&identity).expect("two plain fields are JSON");
        match self.create(&BucketPath::identity(), body.into()).await? {
            CreateOutcome::Created => Ok(identity.bucket_id),
            CreateOutcome::Exists(_) => {
                let theirs = Identity::read(self).await?;
                theirs.map(|identity| identity.bucket_id).ok_or_else(|| {
                    let message = format!("{} vanished", self.describe(&BucketPath::identity()));
                    StorageError::new(StorageErrorKind::Corrupt, message)
                })
            }
        }
    }

    /// The reading half.
    pub fn reader(&self) -> &BucketReader {
        &self.reader
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Writes an object unless there is one at that path.
    ///
    /// An `AlreadyExists` from a store has three meanings: another writer won, our own earlier
    /// attempt landed and its answer was lost, or two requests collided and nothing landed. So
    /// the object is read back and compared: our own bytes mean success. Callers make their bytes
    /// unique (a commit carries its commit id), so that equal bytes are truly their own.
    ///
    /// # Errors
    /// When the outcome could not be learned. It is then *unknown*: the object may be there.
    pub async fn create(
        &self,
        path: &BucketPath,
        bytes: Bytes,
    ) -> Result<CreateOutcome, StorageError> {
        let mut backoff = CREATE_BACKOFF;
        // Of an attempt that may have landed, or may still land.
        let mut unknown = None;
        for attempt in 1.. {
            let failure = match self.put_with(path, bytes.clone(), PutMode::Create).await {
                Ok(()) => return Ok(CreateOutcome::Created),
                Err(error) => error,
            };
            let is_conflict = matches!(
                failure,
                object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }
            );
            let failure = StorageError::from_store("create", &self.describe(path), failure);
            let is_final = !is_conflict && !failure.is_retryable();
            match self.try_get(path).await {
                Ok(Some(found)) if found != bytes => return Ok(CreateOutcome::Exists(found)),
                Ok(Some(_)) if self.is_durable(path, &bytes).await => {
                    return Ok(CreateOutcome::Created);
                }
                _ => {}
            }
            if is_final || attempt == CREATE_ATTEMPTS_MAX {
                return Err(unknown.unwrap_or(failure));
            }
            if failure.is_retryable() {
                unknown = Some(failure);
            }
            self.clock
                .sleep(backoff.mul_f64(0.5 + self.entropy.fraction()))
                .await;
            backoff *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Whether an object that reads as it was written would also survive a power failure. On a local disk it
    /// may not, when its flush is what failed; a second flush proves nothing after the first has failed, so
    /// it is written anew.
    async fn is_durable(&self, path: &BucketPath, bytes: &Bytes) -> bool {
        !self.is_local
            || self
                .put_with(path, bytes.clone(), PutMode::Overwrite)
                .await
                .is_ok()
    }

    /// Writes an object, replacing what is there. Only for hints: nothing may rest on it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn put(&self, path: &BucketPath, bytes: Bytes) -> Result<(), StorageError> {
        self.put_with(path, bytes, PutMode::Overwrite)
            .await
            .map_err(|error| StorageError::from_store("write", &self.describe(path), error))
    }

    /// Writes an extent file. Its path is new, so writing it twice writes the same bytes.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn upload_extent(
        &self,
        database: DatabaseId,
        extent: &EncodedExtent,
    ) -> Result<(), StorageError> {
        self.put(
            &BucketPath::extent(database, extent.extent.id),
            extent.bytes.clone(),
        )
        .await
    }

    /// Deletes an extent file. One that is gone already is as good: whoever dies before they have
    /// noted what they deleted deletes it again.
    ///
    /// Nothing here knows who still reads it: only garbage collection asks for this, after it has
    /// found out.
    ///
    /// # Errors
    /// When the store does not say that it is gone.
    pub async fn delete_extent(
        &self,
        database: DatabaseId,
        extent: ExtentId,
    ) -> Result<(), StorageError> {
        self.delete(&BucketPath::extent(database, extent)).await
    }

    /// Deletes an object, as [`BucketWriter::delete_extent`] deletes a file. Only garbage collection
    /// asks for this.
    ///
    /// # Errors
    /// When the store does not say that it is gone.
    pub async fn delete(&self, path: &BucketPath) -> Result<(), StorageError> {
        match self.store.delete(&self.object_path(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StorageError::from_store(
                "delete",
                &self.describe(path),
                error,
            )),
        }
    }

    /// The bytes of an extent's file that may never have been uploaded; `None` when it was not. For
    /// garbage collection: who reads knows the size from the catalog.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn extent_size(
        &self,
        database: DatabaseId,
        extent: ExtentId,
    ) -> Result<Option<u64>, StorageError> {
        let path = BucketPath::extent(database, extent);
        match self.store.head(&self.object_path(&path)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::from_store(
                "look for",
                &self.describe(&path),
                error,
            )),
        }
    }

    async fn put_with(
        &self,
        path: &BucketPath,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        let location = self.object_path(path);
        let options = PutOptions {
            mode,
            ..Default::default()
        };
        self.store
            .put_opts(&location, PutPayload::from_bytes(bytes), options)
            .await?;
        if self.is_local {
            flush_to_device(location).await
        } else {
            Ok(())
        }
    }

    /// Removes a certification probe.
    pub(crate) async fn remove_probe(&self, path: &BucketPath) -> Result<(), object_store::Error> {
        self.store.delete(&self.object_path(path)).await
    }

    pub(crate) async fn create_once(
        &self,
        path: &BucketPath,
        bytes: Bytes,
    ) -> Result<(), object_store::Error> {
        self.put_with(path, bytes, PutMode::Create).await
    }
}

impl Deref for BucketWriter {
    type Target = BucketReader;

    fn deref(&self) -> &BucketReader {
        &self.reader
    }
}

impl fmt::Debug for BucketWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketWriter").field(&self.reader).finish()
    }
}

/// Flushes a local file and the directory entry that names it, so that what was acknowledged
/// survives a power failure. `LocalFileSystem` itself does not.
async fn flush_to_device(location: Path) -> Result<(), object_store::Error> {
    let file = std::path::Path::new("/").join(location.as_ref());
    let flush = move || -> std::io::Result<()> {
        std::fs::File::open(&file)?.sync_all()?;
        match file.parent() {
            Some(directory) => std::fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    let flushed = tokio::task::spawn_blocking(flush)
        .await
        .map_err(std::io::Error::other);
    flushed
        .flatten()
        .map_err(|error| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: error.into(),
        })
}

#[cfg(test)]
mod tests;
