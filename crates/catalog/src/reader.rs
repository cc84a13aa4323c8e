//! Reading a log from the bucket, without asking it for a listing: numbers are probed.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use slipstream_model::{ClusterName, DatabaseId, TableLevelSharing, Timestamp, Version};
use slipstream_storage::{BucketPath, BucketReader, StorageError};

use crate::log::{self, LogState};
use crate::{CatalogError, ClusterState, Commit, CorruptLog, DatabaseState, LogStart, checkpoint};

/// Log objects that are read at once. As many as fit in the memory and the request rate of a
/// starting node; InfluxDB capped its start-up reads at 16 to 20 after unbounded ones failed.
const LOG_FETCH_CONCURRENCY: usize = 16;

/// What a log gave: everything that can be trusted, and the object where that ended, if it did.
#[derive(Debug, Clone)]
pub struct Loaded<S = DatabaseState> {
    /// The newest state that can be trusted.
    pub state: S,
    /// The version that reading the log began from: of the checkpoint, or of the state handed in.
    pub read_from: Version,
    /// The object after it, when that cannot be trusted. Then a follower holds at `state`, and a
    /// leader does not write.
    pub corrupt: Option<CorruptLog>,
}

impl<S> Loaded<S> {
    /// The state, unless the log goes on with an object that cannot be trusted.
    ///
    /// # Errors
    /// That object.
    pub fn into_whole(self) -> Result<S, CorruptLog> {
        match self.corrupt {
            None => Ok(self.state),
            Some(corrupt) => Err(corrupt),
        }
    }
}

/// Reads the log of one database. Cheap to clone; keeps nothing.
#[derive(Debug, Clone)]
pub struct DatabaseReader {
    bucket: BucketReader,
    database: DatabaseId,
    sharing: Arc<TableLevelSharing>,
}

impl DatabaseReader {
    /// Makes no request.
    pub fn new(bucket: BucketReader, database: DatabaseId) -> Self {
        Self::within(bucket, database, Arc::default())
    }

    /// Reads only what `sharing` allows of a database. Makes no request.
    pub fn within(
        bucket: BucketReader,
        database: DatabaseId,
        sharing: Arc<TableLevelSharing>,
    ) -> Self {
        Self {
            bucket,
            database,
            sharing,
        }
    }

    /// The database before its first commit.
    pub fn empty(&self) -> DatabaseState {
        DatabaseState::empty_within(self.bucket.id(), self.database, &self.sharing)
    }

    /// The database.
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// The newest state: the newest checkpoint, and the log from there to its end. A lost or
    /// damaged checkpoint is reported to the log, and the database's log is read from its start: the
    /// first commit, or the checkpoint that it begins with since its beginning was deleted.
    ///
    /// A database that nobody has written has the empty state, of version 0.
    ///
    /// # Errors
    /// When the bucket does not answer. A log object that cannot be trusted is no error: see
    /// [`Loaded::corrupt`].
    pub async fn load(&self) -> Result<Loaded, CatalogError> {
        load(&self.bucket, self.empty()).await
    }

    /// The state at a version that a checkpoint was written at.
    ///
    /// # Errors
    /// When there is no such checkpoint, or part of it is lost or damaged.
    pub async fn read_checkpoint(&self, version: Version) -> Result<DatabaseState, CatalogError> {
        checkpoint::load(&self.bucket, &self.empty(), version).await
    }

    /// The bytes of the commit after a state; `None` when there is none yet. One request.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn commit_after(&self, state: &DatabaseState) -> Result<Option<Bytes>, CatalogError> {
        self.commit_at(state.version().next()).await
    }

    /// The bytes of a commit by its number; `None` when there is none. One request.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn commit_at(&self, version: Version) -> Result<Option<Bytes>, CatalogError> {
        let path = BucketPath::database_commit(self.database, version);
        Ok(self.bucket.try_get(&path).await?)
    }

    /// Whether there is no commit right after a state because the beginning of the log was deleted,
    /// rather than because the state is the newest. Then [`load`](Self::load) tells how to go on. One
    /// request for a log that is whole.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn is_cut_off(&self, state: &DatabaseState) -> Result<bool, CatalogError> {
        let start = LogStart::newest(&self.bucket, self.database).await?;
        Ok(start.is_some_and(|start| start.version > state.version().next()))
    }

    /// Whether a state is of the history that the bucket has: the log has its commit, or begins after it.
    /// Neither holds once a bucket was put back from a copy older than the state. One request for a state
    /// that is.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn remembers(&self, state: &DatabaseState) -> Result<bool, CatalogError> {
        if state.version().get() == 0 {
            return Ok(true);
        }
        if let Some(bytes) = self.commit_at(state.version()).await? {
            return Ok(Commit::decode(&bytes).is_ok_and(|commit| commit.digest() == state.digest()));
        }
        let start = LogStart::newest(&self.bucket, self.database).await?;
        Ok(start.is_some_and(|start| start.version > state.version()))
    }

    /// A state with every commit after it. One request when there is none.
    ///
    /// # Errors
    /// When the bucket does not answer. A log object that cannot be trusted is no error: see
    /// [`Loaded::corrupt`].
    pub async fn catch_up(&self, state: DatabaseState) -> Result<Loaded, CatalogError> {
        catch_up(&self.bucket, state).await
    }
}

/// Reads the catalog of one cluster: its databases, and who follows them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClusterReader {
    bucket: BucketReader,
    cluster: ClusterName,
}

impl ClusterReader {
    /// Makes no request.
    pub fn new(bucket: BucketReader, cluster: ClusterName) -> Self {
        Self { bucket, cluster }
    }

    /// The newest state: the whole catalog, read from its start. A cluster that has not written
    /// yet has the empty state, of version 0.
    ///
    /// # Errors
    /// As [`DatabaseReader::load`].
    pub async fn load(&self) -> Result<Loaded<ClusterState>, CatalogError> {
        load(
            &self.bucket,
            ClusterState::empty(self.bucket.id(), self.cluster.clone()),
        )
        .await
    }

    /// When a commit was made, by its leader's clock. One request.
    ///
    /// # Errors
    /// When the bucket does not answer, or there is no such commit that can be trusted.
    pub async fn committed_at(&self, version: Version) -> Result<Timestamp, CatalogError> {
        let path = BucketPath::cluster_commit(&self.cluster, version);
        let bytes = self.bucket.get(&path).await?;
        Ok(log::decode_at(&path, &bytes)?.committed_at())
    }

    /// A state with every commit after it. One request when there is none.
    ///
    /// # Errors
    /// As [`DatabaseReader::catch_up`].
    pub async fn catch_up(
        &self,
        state: ClusterState,
    ) -> Result<Loaded<ClusterState>, CatalogError> {
        catch_up(&self.bucket, state).await
    }
}

/// Checkpoint and log, from an empty state.
pub(crate) async fn load<S: LogState>(
    bucket: &BucketReader,
    empty: S,
) -> Result<Loaded<S>, CatalogError> {
    let Some(checkpoint) = empty.load_checkpoint(bucket).await? else {
        return read_to_end(bucket, empty).await;
    };
    let loaded = read_to_end(bucket, checkpoint).await?;
    match &loaded.corrupt {
        // The checkpoint may be what is wrong: only the log itself can tell.
        Some(corrupt) if loaded.state.chain().version == loaded.read_from => {
            tracing::warn!(
                checkpoint = %loaded.read_from, error = %corrupt,
                "the commit after the checkpoint does not continue it; \
                 reading the log from its start"
            );
            read_to_end(bucket, empty).await
        }
        _ => Ok(loaded),
    }
}

/// The log after a state, to its end. What looks like the end may be where the beginning of the log
/// was deleted: then it is read from where it begins now.
pub(crate) async fn read_to_end<S: LogState>(
    bucket: &BucketReader,
    mut state: S,
) -> Result<Loaded<S>, CatalogError> {
    loop {
        let loaded = read_log(bucket, state, LOG_FETCH_CONCURRENCY).await?;
        if loaded.corrupt.is_some() {
            return Ok(loaded);
        }
        let version = loaded.state.chain().version;
        match loaded.state.load_start(bucket, version).await? {
            None => return Ok(loaded),
            Some(start) => state = start,
        }
    }
}

/// The log alone, as far as it goes on from a state.
pub(crate) async fn catch_up<S: LogState>(
    bucket: &BucketReader,
    state: S,
) -> Result<Loaded<S>, CatalogError> {
    // Mostly there is nothing new, and one request tells.
    read_log(bucket, state, 1).await
}

/// Reads numbered objects window by window, until the first that is not there.
async fn read_log<S: LogState>(
    bucket: &BucketReader,
    mut state: S,
    mut window: usize,
) -> Result<Loaded<S>, CatalogError> {
    let read_from = state.chain().version;
    loop {
        let first = state.chain().version.next().get();
        let fetches = (first..).take(window).map(|number| {
            let path = state.commit_path(Version::new(number));
            async move { fetch(bucket, path).await }
        });
        let fetches: Vec<_> = fetches.collect();
        for fetched in join_all(fetches).await {
            let (path, bytes) = match fetched {
                Ok(Some(found)) => found,
                Ok(None) => {
                    return Ok(Loaded {
                        state,
                        read_from,
                        corrupt: None,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            let next = log::decode_at(&path, &bytes)
                .and_then(|commit| log::apply(&state, &commit))
                .map_err(|corrupt| corrupt.named(&path));
            match next {
                Ok(next) => state = next,
                Err(corrupt) => {
                    return Ok(Loaded {
                        state,
                        read_from,
                        corrupt: Some(corrupt),
                    });
                }
            }
        }
        window = (window * 2).min(LOG_FETCH_CONCURRENCY);
    }
}

async fn fetch(
    bucket: &BucketReader,
    path: BucketPath,
) -> Result<Option<(BucketPath, Bytes)>, StorageError> {
    Ok(bucket.try_get(&path).await?.map(|bytes| (path, bytes)))
}

#[cfg(test)]
mod tests;
