//! What the registry says of itself at the doors.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipstream_catalog::DatabaseState;
use slipstream_frontend::{
    AttachedDatabase, Attachment, DatabaseDescription, DatabaseSource, FollowerDatabase,
    ProvisioningError, ProvisioningState, ServiceError, ShareOrigin,
};
use slipstream_model::{DatabaseAccessMode, DatabasePrincipal, DatabaseSelection, Overrides};

use super::{Registry, not_found};
use crate::attachments::{Configuration, FollowedDatabase};
use crate::following::{Following, Served};

impl Registry {
    /// The configurations as they are.
    pub fn attachments(&self) -> Vec<Attachment> {
        let all = self.attachments.all();
        all.iter().map(|known| self.describe(known)).collect()
    }

    /// The configuration of a name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn attachment(&self, name: &str) -> Result<Attachment, ServiceError> {
        let configuration = self.attachments.get(name);
        let configuration = configuration.ok_or_else(|| not_found(name, &[]))?;
        Ok(self.describe(&configuration))
    }

    fn describe(&self, configuration: &Configuration) -> Attachment {
        let databases: Vec<_> = configuration
            .databases
            .iter()
            .map(|followed| self.describe_database(configuration, followed))
            .collect();
        // One database fails or succeeds for its configuration; of many, each for itself.
        let first = databases.first();
        let (state, error) = match (&configuration.terms.database, first) {
            (DatabaseSelection::One(_), Some(database)) => {
                (database.provisioning_state, database.error.clone())
            }
            _ => (ProvisioningState::Succeeded, None),
        };
        Attachment {
            name: configuration.name.clone(),
            leader: configuration.leader.clone(),
            leader_url: self
                .leader(&configuration.leader)
                .map_or_else(|_| configuration.leader_url.clone(), |l| l.url.clone()),
            terms: configuration.terms.clone(),
            default_principals_modification_kind: configuration
                .default_principals_modification_kind,
            bucket_id: configuration.bucket_id.to_string(),
            provisioning_state: state,
            error,
            databases,
        }
    }

    fn describe_database(
        &self,
        configuration: &Configuration,
        followed: &FollowedDatabase,
    ) -> AttachedDatabase {
        let key = (configuration.name.clone(), followed.id);
        let following = self.following.read().get(&key).cloned();
        let name = configuration.terms.name_here(&followed.original_name);
        let (state, error, version) = match &following {
            Some(following) => {
                let served = following.served();
                let (state, error) = provisioning(&served);
                (
                    state,
                    error,
                    served.state.map(|state| state.version().get()),
                )
            }
            None => (
                ProvisioningState::Failed,
                Some(self.why_left_out(&name)),
                None,
            ),
        };
        AttachedDatabase {
            name: name.map_or_else(|_| followed.original_name.to_string(), |n| n.to_string()),
            original_name: followed.original_name.to_string(),
            database_id: followed.id.to_string(),
            provisioning_state: state,
            error,
            version,
        }
    }

    fn why_left_out(
        &self,
        name: &Result<slipstream_model::DatabaseName, slipstream_model::InvalidName>,
    ) -> ProvisioningError {
        let message = match name {
            Err(error) => error.to_string(),
            Ok(name) => {
                let taken = self
                    .all()
                    .iter()
                    .map(|f| f.source().database.clone())
                    .collect();
                self.conflict(name, &taken)
                    .unwrap_or_else(|| "it is about to be followed".to_owned())
            }
        };
        ProvisioningError {
            code: "database_name_conflict".to_owned(),
            message,
        }
    }

    /// The followed databases, for the doors.
    pub fn databases(&self) -> Vec<DatabaseDescription> {
        let all = self.all();
        all.iter()
            .map(|following| self.describe_following(following))
            .collect()
    }

    fn describe_following(&self, following: &Arc<Following>) -> DatabaseDescription {
        let source = following.source();
        let served = following.served();
        let (provisioning_state, _) = provisioning(&served);
        let freshness = following.freshness(&served);
        let now = self.context.clock.now();
        let state = served.state.as_ref();
        let tables = state.into_iter().flat_map(DatabaseState::tables);
        DatabaseDescription {
            name: source.database.clone(),
            database_id: source.database_id.to_string(),
            access_mode: DatabaseAccessMode::ReadOnlyFollowing,
            version: state.map(|state| state.version().get()),
            size_bytes: tables.map(|table| table.extents.size_bytes()).sum(),
            is_followed: false,
            source: Some(DatabaseSource {
                leader: source.leader.clone(),
                configuration: source.configuration.clone(),
                original_name: source.original_name.clone(),
                sharing: source.sharing.as_ref().clone(),
                origin: self.origin_of(&source.configuration),
                principals_modification_kind: self
                    .overrides_of(following)
                    .principals_modification_kind,
            }),
            provisioning_state,
            lag: freshness.as_ref().map(|freshness| freshness.staleness(now)),
            versions_behind: freshness.map_or(0, |freshness| freshness.versions_behind),
            suspended_since: served.suspended_since,
            suspension: served.suspension,
        }
    }

    /// This node's own settings for each followed database, by its name here.
    pub(crate) fn overrides_by_database(&self) -> BTreeMap<String, Overrides> {
        let all = self.overrides().into_iter();
        all.map(|known| (known.database, known.overrides)).collect()
    }

    fn origin_of(&self, configuration: &str) -> ShareOrigin {
        let known = self.attachments.get(configuration);
        if known.is_some_and(|known| known.is_invited) {
            ShareOrigin::Other
        } else {
            ShareOrigin::Direct
        }
    }

    /// The followed databases with this node's own settings.
    pub fn overrides(&self) -> Vec<FollowerDatabase> {
        let all = self.all();
        let describe = |following: &Arc<Following>| {
            let source = following.source();
            FollowerDatabase {
                database: source.database.clone(),
                original_name: source.original_name.clone(),
                leader: source.leader.clone(),
                metadata_url: format!(
                    "{}/databases/{}",
                    self.context.connection.name().trim_end_matches('/'),
                    source.database_id
                ),
                overrides: self.overrides_of(following),
            }
        };
        all.iter().map(describe).collect()
    }

    /// Who has which role in each followed database, by its name here.
    pub fn principals(&self) -> BTreeMap<String, Vec<DatabasePrincipal>> {
        // Read once for all of them: this is asked with every request.
        let configurations = self.attachments.all();
        let followed = configurations.iter().flat_map(|configuration| {
            let followed = configuration.databases.iter();
            followed.map(move |followed| ((configuration.name.as_str(), followed.id), followed))
        });
        let followed: BTreeMap<_, _> = followed.collect();
        let all = self.all();
        let principals = all.iter().filter_map(|following| {
            let source = following.source();
            let served = following.served();
            let leader = served.state.as_ref().map(DatabaseState::principals);
            let key = (source.configuration.as_str(), source.database_id);
            let overrides = &followed.get(&key)?.overrides;
            let effective = overrides.effective_principals(leader.unwrap_or_default());
            Some((source.database.clone(), effective))
        });
        principals.collect()
    }

    fn overrides_of(&self, following: &Following) -> Overrides {
        let source = following.source();
        let configuration = self.attachments.get(&source.configuration);
        let databases = configuration
            .map(|known| known.databases)
            .unwrap_or_default();
        let followed = databases.into_iter().find(|f| f.id == source.database_id);
        followed
            .map(|followed| followed.overrides)
            .unwrap_or_default()
    }
}

fn provisioning(served: &Served) -> (ProvisioningState, Option<ProvisioningError>) {
    match (&served.state, &served.suspension) {
        (_, Some(message)) => {
            let error = ProvisioningError {
                code: "suspended".to_owned(),
                message: message.clone(),
            };
            (ProvisioningState::Failed, Some(error))
        }
        (Some(_), None) => (ProvisioningState::Succeeded, None),
        (None, None) => (ProvisioningState::Creating, None),
    }
}
