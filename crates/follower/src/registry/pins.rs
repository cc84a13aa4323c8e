//! Versions of followed databases that this node keeps, by names of its own.
//!
//! A follower cannot write the log. It keeps a version by its lease, which names the lowest one
//! that is still needed here, and remembers on its own disk that it does. So a pin of a follower
//! holds for as long as its lease does: a node that is away for longer may come back too late.

use std::collections::BTreeMap;
use std::time::Duration;

use slipstream_frontend::{ErrorKind, PinnedVersion, ServiceError};
use slipstream_model::{DatabaseId, PinName, Version};
use slipstream_query::older_state;

use super::{Registry, not_found};
use crate::attachments::FollowedDatabase;
use crate::following::Following;

/// Versions that a node keeps of one database: as many as a leader.
const PINS_MAX: usize = 100;
/// How long the leader has to say that it knows of a pin. It takes one short request.
const LEASE_PATIENCE: Duration = Duration::from_secs(10);

impl Registry {
    /// Keeps everything that a version of a followed database holds. When it returns, the pin is on
    /// the disk, the leader knows of it, and all that the version holds was there.
    ///
    /// # Errors
    /// When the database is not followed, there is no such version, part of it is gone, or the
    /// leader does not grant the lease. Then nothing is pinned that was not before.
    pub async fn pin_version(
        &self,
        database: &str,
        name: PinName,
        version: Version,
    ) -> Result<(), ServiceError> {
        let following = self.by_database(database)?;
        let newest = following.served().state.ok_or_else(|| {
            ServiceError::new(
                ErrorKind::Unavailable,
                "not_synchronised",
                format!("database '{database}' has not had its first synchronisation"),
            )
        })?;
        let history = self.history().await?;
        let state = older_state(history, database, &newest, version).await?;
        // One that is there already may be of a request that went away before it had looked.
        let is_new = self.put_pin(&following, &name, version).await?;
        let checked = async {
            if !following.is_leased(version, LEASE_PATIENCE).await {
                return Err(not_leased(database, version));
            }
            // What is removed from here on is kept.
            let newest = following.served().state.unwrap_or(newest);
            let removed = state.removed_until(&newest);
            let bucket = self.bucket().await?;
            match bucket.missing_extent(newest.id(), &removed).await? {
                Some(gone) => Err(ServiceError::new(
                    ErrorKind::NotFound,
                    "version_not_kept",
                    format!(
                        "version {version} of database '{database}' cannot be pinned: the file of \
                         extent {gone}, which it holds, was deleted"
                    ),
                )),
                None => Ok(()),
            }
        };
        if let Err(error) = checked.await {
            if is_new {
                self.drop_pin(&following, &name).await?;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Lets go of a version that this node keeps.
    ///
    /// # Errors
    /// When the database is not followed, or this node keeps no version of that name.
    pub async fn unpin_version(&self, database: &str, name: &PinName) -> Result<(), ServiceError> {
        let following = self.by_database(database)?;
        if self.drop_pin(&following, name).await? {
            return Ok(());
        }
        Err(ServiceError::new(
            ErrorKind::NotFound,
            "pin_not_found",
            format!(
                "cluster '{}' pins no version as '{name}'",
                self.identity.cluster
            ),
        ))
    }

    /// The versions of a followed database that are kept: by its leader, and by this node.
    pub fn pinned_versions(&self, database: &str) -> Vec<PinnedVersion> {
        let Ok(following) = self.by_database(database) else {
            return Vec::new();
        };
        let source = following.source();
        let pinned = |pins: BTreeMap<PinName, Version>, cluster: &str| {
            let cluster = cluster.to_owned();
            pins.into_iter().map(move |(name, version)| PinnedVersion {
                name,
                version,
                cluster: cluster.clone(),
            })
        };
        let state = following.served().state;
        let leaders = state.map(|state| state.pins().clone()).unwrap_or_default();
        let own = self.own_pins(&source.configuration, source.database_id);
        let leaders = pinned(leaders, &source.leader);
        leaders
            .chain(pinned(own, self.identity.cluster.as_str()))
            .collect()
    }

    /// The lowest version of a database that this node keeps.
    pub(super) fn lowest_pin(&self, configuration: &str, database: DatabaseId) -> Option<Version> {
        let own = self.own_pins(configuration, database);
        own.into_values().min()
    }

    fn own_pins(&self, configuration: &str, database: DatabaseId) -> BTreeMap<PinName, Version> {
        let configuration = self.attachments.get(configuration);
        let databases = configuration.map(|known| known.databases);
        let mut databases = databases.into_iter().flatten();
        let followed = databases.find(|followed| followed.id == database);
        followed.map(|followed| followed.pins).unwrap_or_default()
    }

    /// `false` when it is pinned already.
    async fn put_pin(
        &self,
        following: &Following,
        name: &PinName,
        version: Version,
    ) -> Result<bool, ServiceError> {
        self.change_pins(following, |pins| match pins.get(name) {
            Some(known) if *known == version => Ok(false),
            Some(known) => Err(ServiceError::new(
                ErrorKind::AlreadyExists,
                "pin_exists",
                format!(
                    "version {known} is pinned as '{name}' already: unpin it first, or choose \
                     another name"
                ),
            )),
            None if pins.len() >= PINS_MAX => Err(ServiceError::invalid(format!(
                "a node pins at most {PINS_MAX} versions of a database: unpin one first"
            ))),
            None => {
                pins.insert(name.clone(), version);
                Ok(true)
            }
        })
        .await
    }

    /// Whether there was such a pin.
    async fn drop_pin(&self, following: &Following, name: &PinName) -> Result<bool, ServiceError> {
        self.change_pins(following, |pins| Ok(pins.remove(name).is_some()))
            .await
    }

    /// Changes this node's pins of a database; `change` says whether it did.
    async fn change_pins(
        &self,
        following: &Following,
        change: impl FnOnce(&mut BTreeMap<PinName, Version>) -> Result<bool, ServiceError>,
    ) -> Result<bool, ServiceError> {
        let _changing = self.changing.lock().await;
        let source = following.source();
        let configuration = self.attachments.get(&source.configuration);
        let mut configuration =
            configuration.ok_or_else(|| not_found(&source.configuration, &[]))?;
        let is_it = |followed: &&mut FollowedDatabase| followed.id == source.database_id;
        let Some(followed) = configuration.databases.iter_mut().find(is_it) else {
            return Ok(false);
        };
        let is_changed = change(&mut followed.pins)?;
        let lowest = followed.pins.values().min().copied();
        if is_changed {
            self.keep(configuration)?;
            following.set_pinned(lowest);
        }
        Ok(is_changed)
    }
}

fn not_leased(database: &str, version: Version) -> ServiceError {
    ServiceError::new(
        ErrorKind::Unavailable,
        "not_leased",
        format!(
            "version {version} of database '{database}' cannot be pinned here now: its leader does \
             not grant the lease that would keep it"
        ),
    )
}
