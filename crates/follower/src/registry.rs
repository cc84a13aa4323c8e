//! The followed databases of a node: which there are, by which names, and what changes them.
//!
//! A configuration attaches one database of a leader, or all of them. What it brings is decided
//! here: each database is followed under its name of this node, and a name that is taken leaves
//! the later one out, until the name is free. Who has a name keeps it; when a node starts, a
//! configuration of one database comes before those of all of them.

mod attach;
mod describe;
mod older;
mod pins;
mod serve;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use slipstream_catalog::History;
use slipstream_frontend::{ErrorKind, NodeIdentity, ServiceError};
use slipstream_model::{DatabaseId, DatabaseName, DatabaseSelection, OverrideChange, Overrides};
use slipstream_storage::{BucketReader, StorageError};
use tokio::sync::OnceCell;

use crate::attachments::{Attachments, Configuration, FollowedDatabase};
use crate::following::{FollowContext, Following, Source};
use crate::link::LeaderAddress;

/// Whether a name is taken by a database that this cluster owns: such a database wins over one
/// that could be followed (`follower.md`).
pub type IsOwned = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A followed database by configuration and id.
type Key = (String, DatabaseId);

/// The followed databases of a node.
pub struct Registry {
    identity: NodeIdentity,
    leaders: Vec<LeaderAddress>,
    attachments: Attachments,
    context: FollowContext,
    is_owned: IsOwned,
    following: RwLock<BTreeMap<Key, Arc<Following>>>,
    /// The bucket, once it has said which one it is.
    bucket: OnceCell<BucketReader>,
    /// What is known of older versions, once somebody asked.
    history: OnceCell<History>,
    /// One change at a time: they change the same file.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("attachments", &self.attachments)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Follows what was attached before, and watches the leaders' catalogs.
    pub fn start(
        identity: NodeIdentity,
        leaders: Vec<LeaderAddress>,
        attachments: Attachments,
        context: FollowContext,
        is_owned: IsOwned,
    ) -> Arc<Self> {
        let registry = Arc::new(Self {
            identity,
            leaders,
            attachments,
            context,
            is_owned,
            following: RwLock::default(),
            bucket: OnceCell::new(),
            history: OnceCell::new(),
            changing: tokio::sync::Mutex::new(()),
        });
        registry.reconcile();
        let watching = watch::run(Arc::clone(&registry));
        let shutdown = registry.context.shutdown.clone();
        let tasks = registry.context.tasks.clone();
        tasks.spawn(async move {
            shutdown.run_until_cancelled(watching).await;
        });
        registry
    }

    /// What every followed database needs.
    pub(crate) fn context(&self) -> &FollowContext {
        &self.context
    }

    /// The bucket that this node reads.
    ///
    /// # Errors
    /// When it does not answer, or is none of ours.
    async fn bucket(&self) -> Result<&BucketReader, StorageError> {
        let identify = || BucketReader::identify(self.context.connection.clone());
        self.bucket.get_or_try_init(identify).await
    }

    /// Every followed database, by configuration.
    pub fn all(&self) -> Vec<Arc<Following>> {
        self.following.read().values().cloned().collect()
    }

    /// The followed database of a name.
    ///
    /// # Errors
    /// When none has that name here.
    pub fn by_database(&self, database: &str) -> Result<Arc<Following>, ServiceError> {
        let following = self.following.read();
        let found = following.values().find(|f| f.source().database == database);
        found.cloned().ok_or_else(|| {
            ServiceError::new(
                ErrorKind::NotFound,
                "database_not_found",
                format!(
                    "database '{database}' is not attached to cluster '{}': attach it with \
                     slipstream attach --leader NAME --database {database}",
                    self.identity.cluster
                ),
            )
        })
    }

    /// Changes this node's own settings for a followed database. On the disk when it returns.
    ///
    /// # Errors
    /// When the database is not followed, or a follower may not change that.
    pub async fn override_settings(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<(), ServiceError> {
        let _changing = self.changing.lock().await;
        let following = self.by_database(database)?;
        let source = following.source();
        let configuration = self.attachments.get(&source.configuration);
        let mut configuration =
            configuration.ok_or_else(|| not_found(&source.configuration, &[]))?;
        let is_it = |followed: &&mut FollowedDatabase| followed.id == source.database_id;
        if let Some(followed) = configuration.databases.iter_mut().find(is_it) {
            let changed = followed.overrides.clone().changed(change);
            followed.overrides = changed.map_err(invalid_override)?;
        }
        self.keep(configuration)
    }

    /// What a followed database's own settings would be after a change; nothing is changed.
    ///
    /// # Errors
    /// When the database is not followed, or a follower may not change that.
    pub(crate) fn overrides_after(
        &self,
        database: &str,
        change: OverrideChange,
    ) -> Result<Overrides, ServiceError> {
        self.by_database(database)?;
        let own = self.overrides_by_database().remove(database);
        own.unwrap_or_default()
            .changed(change)
            .map_err(invalid_override)
    }

    fn keep(&self, configuration: Configuration) -> Result<(), ServiceError> {
        self.attachments.set(configuration).map_err(on_disk)
    }

    /// Starts and stops following, until what is followed is what the configurations ask for.
    pub fn reconcile(&self) {
        let wanted = self.wanted();
        let mut following = self.following.write();
        following.retain(|key, running| {
            let is_wanted = wanted.get(key) == Some(running.source());
            if !is_wanted {
                running.stop();
            }
            is_wanted
        });
        for (key, source) in wanted {
            let pinned = self.lowest_pin(&key.0, key.1);
            following
                .entry(key)
                .or_insert_with(|| Following::start(source, pinned, self.context.clone()));
        }
    }

    /// What the configurations ask for, names that are taken left out.
    fn wanted(&self) -> BTreeMap<Key, Source> {
        let mut taken = BTreeSet::new();
        let mut wanted = BTreeMap::new();
        for (name, key, source) in self.claims() {
            if self.conflict(&name, &taken).is_none() {
                taken.insert(name.to_string());
                wanted.insert(key, source);
            }
        }
        wanted
    }

    /// What the configurations ask for, those first that go before others where names are the same.
    fn claims(&self) -> Vec<(DatabaseName, Key, Source)> {
        let following = self.following.read();
        let mut claims = Vec::new();
        for configuration in self.attachments.all() {
            let is_of_all = configuration.terms.database == DatabaseSelection::All;
            for followed in &configuration.databases {
                let Ok(name) = configuration.terms.name_here(&followed.original_name) else {
                    continue;
                };
                let key = (configuration.name.clone(), followed.id);
                let source = self.source(&configuration, followed, &name);
                // Somebody reads it by this name.
                let has_name = following
                    .get(&key)
                    .is_some_and(|running| running.source().database == source.database);
                claims.push(((!has_name, is_of_all), (name, key, source)));
            }
        }
        // Else in the order in which they were attached.
        claims.sort_by_key(|(rank, _)| *rank);
        claims.into_iter().map(|(_, claim)| claim).collect()
    }

    /// Why a name cannot be had.
    fn conflict(&self, name: &DatabaseName, taken: &BTreeSet<String>) -> Option<String> {
        if (self.is_owned)(name.as_str()) {
            return Some(format!(
                "cluster '{}' has a database '{name}' of its own",
                self.identity.cluster
            ));
        }
        taken
            .contains(name.as_str())
            .then(|| format!("another configuration has attached a database as '{name}'"))
    }

    fn source(
        &self,
        configuration: &Configuration,
        followed: &FollowedDatabase,
        name: &DatabaseName,
    ) -> Source {
        let known = self.leaders.iter().find(|l| l.name == configuration.leader);
        Source {
            configuration: configuration.name.clone(),
            leader: configuration.leader.clone(),
            leader_url: known.map_or_else(|| configuration.leader_url.clone(), |l| l.url.clone()),
            bucket_id: configuration.bucket_id,
            database_id: followed.id,
            database: name.to_string(),
            original_name: followed.original_name.to_string(),
            sharing: Arc::new(configuration.terms.sharing.clone()),
        }
    }
}

fn not_found(configuration: &str, known: &[String]) -> ServiceError {
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    ServiceError::new(
        ErrorKind::NotFound,
        "configuration_not_found",
        format!(
            "there is no attached database configuration '{configuration}'; there are: {known}"
        ),
    )
}

fn invalid_override(error: slipstream_model::InvalidOverride) -> ServiceError {
    ServiceError::new(
        ErrorKind::InvalidArgument,
        "invalid_override",
        error.to_string(),
    )
}

fn on_disk(error: crate::attachments::AttachmentsError) -> ServiceError {
    ServiceError::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use slipstream_frontend::NodeRole;
    use slipstream_model::ClusterName;
    use uuid::Uuid;

    use super::*;
    use crate::tests::{self, World};

    /// A configuration that brings a database 'd', as every one of these tests does.
    fn configuration(name: &str, database: DatabaseSelection, id: u128) -> Configuration {
        let mut configuration = tests::configuration(name, database);
        let id = DatabaseId::new(Uuid::from_u128(id));
        configuration.databases = vec![configuration.followed(id, d())];
        configuration
    }

    fn d() -> DatabaseName {
        DatabaseName::new("d").expect("a name")
    }

    /// Follows nothing in earnest: a node that is shutting down has no tasks.
    async fn registry(directory: &std::path::Path, owned: &'static str) -> Arc<Registry> {
        let context = World::new().await.context();
        context.shutdown.cancel();
        let identity = NodeIdentity {
            cluster: ClusterName::new("south").expect("a name"),
            role: NodeRole::Follower,
            location: String::new(),
        };
        let attachments = Attachments::open(directory).expect("readable");
        let is_owned = Arc::new(move |name: &str| name == owned);
        Registry::start(identity, Vec::new(), attachments, context, is_owned)
    }

    /// The configuration whose database is called 'd' here.
    fn owner(registry: &Registry) -> String {
        let following = registry.by_database("d").expect("followed");
        following.source().configuration.clone()
    }

    #[tokio::test]
    async fn a_database_that_appears_takes_the_name_of_none_that_is_followed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let registry = registry(directory.path(), "").await;
        let mut all = configuration("all", DatabaseSelection::All, 1);
        let appears = std::mem::take(&mut all.databases);
        registry.keep(all.clone()).expect("kept");
        let one = configuration("one", DatabaseSelection::One(d()), 2);
        registry.keep(one).expect("kept");
        registry.reconcile();
        assert_eq!(owner(&registry), "one");
        all.databases = appears;
        registry.keep(all).expect("kept");
        registry.reconcile();
        assert_eq!(owner(&registry), "one");
        registry.forget("one").expect("kept");
        assert_eq!(owner(&registry), "all", "the name is free");
        // Nor does one that is attached by its name, before the other one lets go of it.
        let late = configuration("late", DatabaseSelection::One(d()), 3);
        registry.keep(late).expect("kept");
        registry.reconcile();
        assert_eq!(owner(&registry), "all");
    }

    #[tokio::test]
    async fn what_is_attached_by_its_name_comes_first_when_a_node_starts() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let attachments = Attachments::open(directory.path()).expect("readable");
        let all = configuration("all", DatabaseSelection::All, 1);
        attachments.set(all).expect("written");
        let one = configuration("one", DatabaseSelection::One(d()), 2);
        attachments.set(one).expect("written");
        let registry = registry(directory.path(), "").await;
        assert_eq!(owner(&registry), "one");
    }

    #[tokio::test]
    async fn a_database_of_the_clusters_own_takes_its_name_from_everybody() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let registry = registry(directory.path(), "d").await;
        let one = configuration("one", DatabaseSelection::One(d()), 2);
        registry.keep(one).expect("kept");
        registry.reconcile();
        assert!(registry.by_database("d").is_err());
    }
}
