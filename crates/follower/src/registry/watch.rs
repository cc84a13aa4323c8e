//! Watches what leaders say of this node's configurations: databases that come and go under `*`,
//! and attachments that were ended.
//!
//! A leader that answers is asked, because it says only what concerns this follower: its catalog in
//! the bucket also names other databases, other followers and their filters. The log is the truth
//! here too: whatever a leader cannot say, or would end, is settled there. A leader that says "not
//! attached" could be another one at the same address, and one that is down says nothing.

mod ask;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::{CatalogError, ClusterReader, ClusterState};
use slipstream_model::{ClusterName, DatabaseId, DatabaseName, DatabaseSelection, Version};
use slipstream_storage::{StorageError, StorageErrorKind};

use super::Registry;
use crate::attachments::{Configuration, FollowedDatabase};
use ask::Client;

/// Between two looks: one small request for each configuration, or one small GET for each leader
/// that is silent. A database created under `*` appears within this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches until the node stops.
pub(super) async fn run(registry: Arc<Registry>) {
    let mut watch = Watch {
        registry,
        clients: BTreeMap::new(),
        catalogs: BTreeMap::new(),
    };
    let mut trouble: Option<String> = None;
    loop {
        let context = &watch.registry.context;
        let jitter = 0.8 + 0.4 * context.entropy.fraction();
        let pause = LOOK_INTERVAL.mul_f64(jitter);
        context.clock.sleep(pause).await;
        match watch.look().await {
            Ok(()) => trouble = None,
            Err(error) => {
                let error = error.to_string();
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!(%error, "a leader's catalog cannot be read; trying on");
                }
                trouble = Some(error);
            }
        }
        // Names of this cluster's own databases may have become free, or taken.
        watch.registry.reconcile();
    }
}

/// A database that a configuration brings.
type Brought = (DatabaseName, DatabaseId);

struct Watch {
    registry: Arc<Registry>,
    /// Connections to leaders that answer.
    clients: BTreeMap<String, Client>,
    /// The catalogs of leaders that do not, as last read from the bucket.
    catalogs: BTreeMap<String, ClusterState>,
}

impl Watch {
    /// Looks once at everything. One leader's trouble does not keep the others from being looked at.
    async fn look(&mut self) -> Result<(), CatalogError> {
        let mut by_leader: BTreeMap<String, Vec<Configuration>> = BTreeMap::new();
        for configuration in self.registry.attachments.all() {
            let leader = configuration.leader.clone();
            by_leader.entry(leader).or_default().push(configuration);
        }
        self.clients
            .retain(|leader, _| by_leader.contains_key(leader));
        self.catalogs
            .retain(|leader, _| by_leader.contains_key(leader));
        let mut looked = Ok(());
        for (leader, configurations) in by_leader {
            looked = looked.and(self.look_at(&leader, configurations).await);
        }
        looked
    }

    async fn look_at(
        &mut self,
        leader: &str,
        configurations: Vec<Configuration>,
    ) -> Result<(), CatalogError> {
        let answers = self.ask(leader, &configurations).await;
        let mut doubtful = Vec::new();
        for (configuration, answer) in configurations.into_iter().zip(answers) {
            match answer {
                Some(brought) if !ends_something(&configuration, &brought) => {
                    self.registry.bring(&configuration, brought).await;
                }
                _ => doubtful.push(configuration),
            }
        }
        if doubtful.is_empty() {
            // What it says of others is not kept longer than it is needed.
            self.catalogs.remove(leader);
            return Ok(());
        }
        // Checked when it was attached.
        let Ok(cluster) = ClusterName::new(leader) else {
            return Ok(());
        };
        let catalog = self.read_catalog(cluster).await?;
        for configuration in doubtful {
            if configuration.bucket_id == self.registry.bucket().await?.id() {
                self.registry.settle(&configuration, &catalog).await;
            }
        }
        Ok(())
    }

    async fn read_catalog(&mut self, cluster: ClusterName) -> Result<ClusterState, CatalogError> {
        let bucket = self.registry.bucket().await?.clone();
        let reader = ClusterReader::new(bucket, cluster.clone());
        let loaded = match self.catalogs.get(cluster.as_str()) {
            Some(state) => reader.catch_up(state.clone()).await?,
            None => reader.load().await?,
        };
        let state = loaded.into_whole()?;
        if state.version() == Version::default() {
            // A folder that is not mounted looks like this, and says nothing of who was detached.
            let message = format!("the bucket has no catalog of cluster '{cluster}'");
            return Err(StorageError::new(StorageErrorKind::NotFound, message).into());
        }
        self.catalogs.insert(cluster.to_string(), state.clone());
        Ok(state)
    }
}

impl Registry {
    /// Brings a configuration in line with what its leader's log says of it.
    async fn settle(&self, configuration: &Configuration, catalog: &ClusterState) {
        if catalog
            .follower(&self.identity.cluster, &configuration.name)
            .is_some()
        {
            let all = catalog.databases();
            let all = all.map(|(name, id)| (name.clone(), id)).collect();
            return self.bring(configuration, all).await;
        }
        let _changing = self.changing.lock().await;
        if !self.is_still(configuration) {
            return;
        }
        tracing::info!(
            configuration = configuration.name,
            leader = configuration.leader,
            "detached by the leader"
        );
        if let Err(error) = self.forget(&configuration.name) {
            tracing::error!(%error, "what the leader changed cannot be kept");
        }
    }

    /// Follows the databases that a configuration of all of them brings now.
    async fn bring(&self, configuration: &Configuration, brought: Vec<Brought>) {
        if configuration.terms.database != DatabaseSelection::All {
            return;
        }
        let databases = databases_of(configuration, brought);
        if databases == configuration.databases {
            return;
        }
        let _changing = self.changing.lock().await;
        if !self.is_still(configuration) {
            return;
        }
        let changed = self.keep(Configuration {
            databases,
            ..configuration.clone()
        });
        if let Err(error) = changed {
            tracing::error!(%error, "what the leader changed cannot be kept");
        }
    }

    /// Whether a configuration is as it was before the leader was asked.
    fn is_still(&self, configuration: &Configuration) -> bool {
        self.attachments.get(&configuration.name).as_ref() == Some(configuration)
    }
}

/// Whether an answer leaves out what has come with a configuration. A leader that another one has
/// replaced without its knowledge does not know the newest databases, and their settings and pins here
/// would be lost with them.
fn ends_something(configuration: &Configuration, brought: &[Brought]) -> bool {
    let is_brought = |followed: &FollowedDatabase| brought.iter().any(|(_, id)| *id == followed.id);
    configuration.terms.database == DatabaseSelection::All
        && !configuration.databases.iter().all(is_brought)
}

/// The databases of a leader; those known before keep their settings.
fn databases_of(configuration: &Configuration, brought: Vec<Brought>) -> Vec<FollowedDatabase> {
    let known = |id| {
        configuration
            .databases
            .iter()
            .find(|followed| followed.id == id)
    };
    let brought = brought.into_iter().map(|(name, id)| match known(id) {
        Some(followed) => followed.clone(),
        None => configuration.followed(id, name),
    });
    brought.collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::tests;

    fn brought(number: u128) -> Brought {
        let name = DatabaseName::new(format!("d{number}")).expect("a name");
        (name, DatabaseId::new(Uuid::from_u128(number)))
    }

    fn configuration(database: DatabaseSelection, numbers: &[u128]) -> Configuration {
        let mut configuration = tests::configuration("all", database);
        let known = numbers.iter().map(|number| brought(*number)).collect();
        configuration.databases = databases_of(&configuration, known);
        configuration
    }

    #[test]
    fn an_answer_that_would_end_a_database_is_settled_in_the_log() {
        let all = configuration(DatabaseSelection::All, &[1, 2]);
        assert!(!ends_something(&all, &[brought(2), brought(1)]));
        assert!(!ends_something(&all, &[brought(1), brought(2), brought(3)]));
        assert!(ends_something(&all, &[brought(1)]));
        assert!(ends_something(&all, &[brought(1), brought(3)]));
        assert!(ends_something(&all, &[]));
    }

    #[test]
    fn a_configuration_of_one_database_keeps_it_whatever_an_answer_says() {
        let (name, _) = brought(1);
        let one = configuration(DatabaseSelection::One(name), &[1]);
        assert!(!ends_something(&one, &[]));
    }
}
