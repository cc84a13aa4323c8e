//! Older versions of the databases that a leader owns, and of those that it follows.

use std::sync::Arc;

use async_trait::async_trait;
use slipstream_catalog::{DatabaseState, DroppedTable, History, VersionSummary};
use slipstream_follower::Registry;
use slipstream_frontend::ServiceError;
use slipstream_model::Version;
use slipstream_query::{
    OlderState, OlderVersions, PointInTime, QueryError, dropped_table, older_state, older_version,
    version_summaries,
};

use crate::cluster::Cluster;

/// What a leader's sessions ask for older versions.
#[derive(Debug)]
pub(crate) struct LeaderHistory {
    cluster: Arc<Cluster>,
    registry: Arc<Registry>,
    history: History,
}

impl LeaderHistory {
    /// Makes no request.
    pub(crate) fn new(cluster: Arc<Cluster>, registry: Arc<Registry>) -> Self {
        let history = History::new(cluster.bucket().reader().clone());
        Self {
            cluster,
            registry,
            history,
        }
    }

    /// What the newest commits of a database did, newest first.
    pub(crate) async fn versions(
        &self,
        database: &str,
        newest: &DatabaseState,
        count: usize,
    ) -> Result<Vec<VersionSummary>, ServiceError> {
        if self.cluster.database_name(newest.id()).is_none() {
            return self.registry.versions(database, newest, count).await;
        }
        Ok(version_summaries(&self.history, database, newest, count).await?)
    }

    /// A database of this cluster at an older version.
    pub(crate) async fn state_at(
        &self,
        database: &str,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<DatabaseState, ServiceError> {
        Ok(older_state(&self.history, database, newest, version).await?)
    }

    /// A table of a database of this cluster, as a version dropped it.
    pub(crate) async fn dropped_table(
        &self,
        database: &str,
        newest: &DatabaseState,
        name: &str,
        version: Version,
    ) -> Result<Option<DroppedTable>, ServiceError> {
        Ok(dropped_table(&self.history, database, newest, name, version).await?)
    }
}

#[async_trait]
impl OlderVersions for LeaderHistory {
    async fn at(
        &self,
        database: &str,
        newest: &DatabaseState,
        point: PointInTime,
    ) -> Result<OlderState, QueryError> {
        if self.cluster.database_name(newest.id()).is_none() {
            return self.registry.at(database, newest, point).await;
        }
        let version = older_version(&self.history, database, newest, point).await?;
        let state = older_state(&self.history, database, newest, version).await?;
        // What this version has is not deleted as long as somebody reads it.
        let reader = self.cluster.readers().hold([&state].into_iter());
        Ok(OlderState {
            state,
            hold: Some(Box::new(reader)),
        })
    }
}
