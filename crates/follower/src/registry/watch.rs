//! Watches the catalogs of leaders in the bucket: databases that come and go under `*`, and
//! attachments that the leader has ended.
//!
//! The log is the truth here too: a leader that says "not attached" could be another one at the
//! same address, and one that is down says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::{CatalogError, ClusterReader, ClusterState};
use slipstream_model::{ClusterName, DatabaseSelection};
use slipstream_storage::BucketReader;

use super::Registry;
use crate::attachments::{Configuration, FollowedDatabase};

/// Between two looks at a leader's catalog: one small GET for each leader, whatever is attached
/// of it. A database created under `*` appears within this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches until the node stops.
pub(super) async fn run(registry: Arc<Registry>) {
    let mut trouble: Option<String> = None;
    loop {
        let jitter = 0.8 + 0.4 * registry.context.entropy.fraction();
        let pause = LOOK_INTERVAL.mul_f64(jitter);
        registry.context.clock.sleep(pause).await;
        match registry.look_at_catalogs().await {
            Ok(()) => trouble = None,
            Err(error) => {
                let error = error.to_string();
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the leaders' catalogs cannot be read; trying on");
                }
                trouble = Some(error);
            }
        }
        // Names of this cluster's own databases may have become free, or taken.
        registry.reconcile();
    }
}

impl Registry {
    async fn look_at_catalogs(&self) -> Result<(), CatalogError> {
        let configurations = self.attachments.all();
        let leaders: BTreeSet<_> = configurations.iter().map(|c| c.leader.clone()).collect();
        if leaders.is_empty() {
            return Ok(());
        }
        let bucket = self.bucket().await?.clone();
        for leader in leaders {
            // Checked when it was attached.
            let Ok(cluster) = ClusterName::new(leader.clone()) else {
                continue;
            };
            let catalog = self.read_catalog(&bucket, &cluster).await?;
            for configuration in configurations.iter().filter(|c| c.leader == leader) {
                if configuration.bucket_id == bucket.id() {
                    self.follow_catalog(configuration, &catalog).await;
                }
            }
        }
        Ok(())
    }

    async fn read_catalog(
        &self,
        bucket: &BucketReader,
        cluster: &ClusterName,
    ) -> Result<ClusterState, CatalogError> {
        let reader = ClusterReader::new(bucket.clone(), cluster.clone());
        let known = self.catalogs.lock().get(cluster.as_str()).cloned();
        let loaded = match known {
            Some(state) => reader.catch_up(state).await?,
            None => reader.load().await?,
        };
        let state = loaded.into_whole()?;
        let mut catalogs = self.catalogs.lock();
        catalogs.insert(cluster.to_string(), state.clone());
        Ok(state)
    }

    /// Brings a configuration in line with what its leader's catalog says of it.
    async fn follow_catalog(&self, configuration: &Configuration, catalog: &ClusterState) {
        let _changing = self.changing.lock().await;
        // It may have changed while the bucket was read.
        let Some(mut known) = self.attachments.get(&configuration.name) else {
            return;
        };
        if known != *configuration {
            return;
        }
        let changed = match catalog.follower(&self.identity.cluster, &known.name) {
            None => {
                tracing::info!(
                    configuration = known.name,
                    leader = known.leader,
                    "detached by the leader"
                );
                self.forget(&known.name)
            }
            Some(_) if known.terms.database == DatabaseSelection::All => {
                let databases = databases_of(&known, catalog);
                if databases == known.databases {
                    return;
                }
                known.databases = databases;
                self.keep(known)
            }
            Some(_) => return,
        };
        if let Err(error) = changed {
            tracing::error!(%error, "what the leader changed cannot be kept");
        }
    }
}

/// The databases of a leader; those known before keep their settings.
fn databases_of(configuration: &Configuration, catalog: &ClusterState) -> Vec<FollowedDatabase> {
    let known = |id| {
        configuration
            .databases
            .iter()
            .find(|followed| followed.id == id)
    };
    catalog
        .databases()
        .map(|(name, id)| match known(id) {
            Some(followed) => followed.clone(),
            None => configuration.followed(id, name.clone()),
        })
        .collect()
}
