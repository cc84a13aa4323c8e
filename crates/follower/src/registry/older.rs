//! Older versions of followed databases.
//!
//! They are read from the bucket, whether the leader is there or not, without what the
//! configuration's filters leave out. The lease names them for as long as they are read.

use async_trait::async_trait;
use slipstream_catalog::{DatabaseState, History, VersionSummary};
use slipstream_frontend::ServiceError;
use slipstream_query::{
    OlderState, OlderVersions, PointInTime, QueryError, QueryErrorKind, followed_version,
    older_state, version_summaries,
};
use slipstream_storage::StorageError;

use super::Registry;

impl Registry {
    /// What the newest commits of a followed database did, newest first.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn versions(
        &self,
        database: &str,
        newest: &DatabaseState,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        let history = self.history().await?;
        Ok(version_summaries(history, database, newest, count).await?)
    }

    pub(super) async fn history(&self) -> Result<&History, StorageError> {
        self.history.get_or_try_init(|| self.open_history()).await
    }

    async fn open_history(&self) -> Result<History, StorageError> {
        Ok(History::new(self.bucket().await?.clone()))
    }
}

#[async_trait]
impl OlderVersions for Registry {
    async fn at(
        &self,
        database: &str,
        newest: &DatabaseState,
        point: PointInTime,
    ) -> Result<OlderState, QueryError> {
        let following = self
            .by_database(database)
            .map_err(|error| QueryError::new(QueryErrorKind::NotFound, error.to_string()))?;
        let history = self.history().await.map_err(|error| {
            let message = format!("older versions are read from the bucket: {error}");
            QueryError::new(QueryErrorKind::Storage, message)
        })?;
        let version = followed_version(history, database, newest, point).await?;
        let pin = following.pin(version.min(newest.version()));
        let state = older_state(history, database, newest, version).await?;
        Ok(OlderState {
            state: following.context.visible(state),
            hold: Some(Box::new(pin)),
        })
    }
}
