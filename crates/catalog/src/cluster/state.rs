//! The state of a cluster's catalog.

use std::sync::Arc;

use imbl::OrdMap;
use slipstream_model::{
    BucketId, ClusterName, DatabaseId, DatabaseName, Digest, DigestBuilder, Epoch, PrincipalName,
    TableLevelSharing, Timestamp, Version,
};
use slipstream_storage::{BucketPath, BucketReader, BucketWriter};
use uuid::Uuid;

use super::{ClusterOp, ClusterRecord as Record};
use crate::log::{self, Chain, LogState, SubjectFate};
use crate::{CatalogError, Commit, CorruptLog, OpError};

/// The databases of a cluster and their followers, at one version. Immutable; clones in O(1).
#[derive(Debug, Clone)]
pub struct ClusterState {
    cluster: Arc<ClusterName>,
    chain: Chain,
    by_name: OrdMap<DatabaseName, DatabaseId>,
    by_id: OrdMap<DatabaseId, DatabaseName>,
    dropped: OrdMap<DatabaseId, (DatabaseName, Version)>,
    followers: OrdMap<Uuid, FollowerRecord>,
    invitations: OrdMap<Uuid, InvitationRecord>,
}

/// An attached database configuration of another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerRecord {
    /// The follower cluster.
    pub cluster: ClusterName,
    /// The name of its attached database configuration, unique in that cluster.
    pub configuration: String,
    /// The database it follows; `None` for all, those created later included.
    pub database_id: Option<DatabaseId>,
    /// What of it.
    pub sharing: Arc<TableLevelSharing>,
    /// The invitation by which it came; `None` when it had the right itself.
    pub invitation: Option<Uuid>,
    /// Who attached it, and may speak for it; `None` in records from before nodes had to say.
    pub principal: Option<PrincipalName>,
    /// When it was attached.
    pub attached_at: Timestamp,
}

impl FollowerRecord {
    /// Whether it follows a database.
    pub fn follows(&self, database: DatabaseId) -> bool {
        self.database_id.is_none_or(|id| id == database)
    }

    /// Whether it asks for the same, whenever that was.
    fn has_terms_of(&self, other: &Self) -> bool {
        let now = other.attached_at;
        *other
            == Self {
                attached_at: now,
                ..self.clone()
            }
    }
}

/// What an invitation grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationRecord {
    /// The database.
    pub database_id: DatabaseId,
    /// SHA-256 of the token.
    pub token_sha256: Digest,
    /// What of the database.
    pub sharing: Arc<TableLevelSharing>,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// For whom, for people.
    pub invitee: String,
}

impl ClusterState {
    /// A cluster before its first commit.
    pub fn empty(bucket: BucketId, cluster: ClusterName) -> Self {
        let log_id = uuid_of(
            DigestBuilder::new("slipstream.cluster.v1"),
            &[cluster.as_str()],
        );
        Self {
            cluster: Arc::new(cluster),
            chain: Chain::start(bucket, log_id),
            by_name: OrdMap::new(),
            by_id: OrdMap::new(),
            dropped: OrdMap::new(),
            followers: OrdMap::new(),
            invitations: OrdMap::new(),
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// How many commits have made it what it is.
    pub fn version(&self) -> Version {
        self.chain.version
    }

    /// How many writers have opened it.
    pub fn epoch(&self) -> Epoch {
        self.chain.epoch
    }

    /// Covers the whole history up to this version.
    pub fn digest(&self) -> Digest {
        self.chain.digest
    }

    /// The cluster's clock at the newest commit. Never goes back.
    pub fn committed_at(&self) -> Timestamp {
        self.chain.committed_at
    }

    /// The id of a database.
    pub fn database(&self, name: &str) -> Option<DatabaseId> {
        self.by_name.get(name).copied()
    }

    /// The name of a database.
    pub fn database_name(&self, id: DatabaseId) -> Option<&DatabaseName> {
        self.by_id.get(&id)
    }

    /// All databases, by name.
    pub fn databases(&self) -> impl ExactSizeIterator<Item = (&DatabaseName, DatabaseId)> {
        self.by_name.iter().map(|(name, id)| (name, *id))
    }

    /// The databases that were dropped, in an order that means nothing: the name that each had then,
    /// and the version that dropped it. Those whose objects are long deleted are among them.
    pub fn dropped(&self) -> impl ExactSizeIterator<Item = (DatabaseId, &DatabaseName, Version)> {
        let dropped = self.dropped.iter();
        dropped.map(|(id, (name, version))| (*id, name, *version))
    }

    /// All attachments, in an order that means nothing.
    pub fn followers(&self) -> impl ExactSizeIterator<Item = &FollowerRecord> {
        self.followers.values()
    }

    /// The attachments of one database.
    pub fn followers_of(&self, database: DatabaseId) -> impl Iterator<Item = &FollowerRecord> {
        self.followers()
            .filter(move |follower| follower.follows(database))
    }

    /// All invitations that were not revoked, by id; those that expired included.
    pub fn invitations(&self) -> impl ExactSizeIterator<Item = (Uuid, &InvitationRecord)> {
        self.invitations.iter().map(|(id, record)| (*id, record))
    }

    /// One attachment.
    pub fn follower(&self, cluster: &ClusterName, configuration: &str) -> Option<&FollowerRecord> {
        self.followers
            .get(&follower_subject(cluster, configuration))
    }

    /// The state after a commit; verifies it as
    /// [`DatabaseState::apply`](crate::DatabaseState::apply) does.
    ///
    /// # Errors
    /// When anything differs; the error names the object and what differs.
    pub fn apply(&self, commit: &Commit) -> Result<Self, CorruptLog> {
        log::apply(self, commit)
    }

    /// What the state would be after some operations. Version and digest stay.
    ///
    /// # Errors
    /// When an operation would be refused.
    pub fn preview(&self, ops: &[ClusterOp]) -> Result<Self, OpError> {
        log::preview(self, ops.iter().cloned())
    }

    fn plan_drop(&self, name: DatabaseName) -> Result<(Uuid, Record), OpError> {
        let id = self
            .database(name.as_str())
            .ok_or_else(|| OpError::DatabaseNotFound(name.to_string()))?;
        self.check_not_followed(id, &name)?;
        Ok((id.as_uuid(), Record::DropDatabase))
    }

    fn check_not_followed(&self, id: DatabaseId, name: &DatabaseName) -> Result<(), OpError> {
        let mut followers: Vec<_> = self
            .followers_of(id)
            .map(|follower| follower.cluster.clone())
            .collect();
        followers.sort_unstable();
        followers.dedup();
        if followers.is_empty() {
            return Ok(());
        }
        Err(OpError::DatabaseFollowed {
            database: name.clone(),
            followers,
        })
    }

    fn plan_attach(&self, follower: FollowerRecord) -> Result<Option<(Uuid, Record)>, OpError> {
        let known = self.follower(&follower.cluster, &follower.configuration);
        match known {
            Some(known) if known.has_terms_of(&follower) => return Ok(None),
            Some(known) if known.database_id != follower.database_id => {
                return Err(OpError::ConfigurationExists {
                    cluster: follower.cluster,
                    configuration: follower.configuration,
                });
            }
            _ => {}
        }
        let subject = follower_subject(&follower.cluster, &follower.configuration);
        Ok(Some((subject, Record::AttachFollower(follower))))
    }

    fn create(&mut self, id: DatabaseId, name: DatabaseName) -> Result<(), OpError> {
        if id == DatabaseId::default() || self.by_id.contains_key(&id) {
            return Err(OpError::DatabaseIdInUse(id));
        }
        if self.by_name.contains_key(&name) {
            return Err(OpError::DatabaseExists(name));
        }
        self.by_name.insert(name.clone(), id);
        self.by_id.insert(id, name);
        Ok(())
    }

    fn check_exists(&self, database: Option<DatabaseId>) -> Result<(), OpError> {
        match database {
            Some(id) if !self.by_id.contains_key(&id) => {
                Err(OpError::DatabaseNotFound(id.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn forget(&mut self, id: DatabaseId) -> Result<(), OpError> {
        let Some(name) = self.by_id.get(&id).cloned() else {
            return Err(OpError::DatabaseNotFound(id.to_string()));
        };
        self.check_not_followed(id, &name)?;
        self.by_id.remove(&id);
        self.by_name.remove(&name);
        // Records are applied to the state before their commit.
        let version = self.chain.version.next();
        self.dropped.insert(id, (name, version));
        Ok(())
    }
}

impl LogState for ClusterState {
    type Op = ClusterOp;
    type Record = Record;

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn chain_mut(&mut self) -> &mut Chain {
        &mut self.chain
    }

    fn commit_path(&self, version: Version) -> BucketPath {
        BucketPath::cluster_commit(&self.cluster, version)
    }

    fn plan(&self, op: ClusterOp) -> Result<Vec<(Uuid, Record)>, OpError> {
        let planned = match op {
            ClusterOp::CreateDatabase {
                name,
                if_not_exists: true,
                ..
            } if self.database(name.as_str()).is_some() => None,
            ClusterOp::CreateDatabase { id, name, .. } => {
                Some((id.as_uuid(), Record::CreateDatabase { name }))
            }
            ClusterOp::DropDatabase { name, if_exists } => match self.plan_drop(name) {
                Err(OpError::DatabaseNotFound(_)) if if_exists => None,
                planned => Some(planned?),
            },
            ClusterOp::AttachFollower(follower) => self.plan_attach(follower)?,
            ClusterOp::DetachFollower {
                follower_cluster,
                configuration,
            } => {
                let subject = follower_subject(&follower_cluster, &configuration);
                if !self.followers.contains_key(&subject) {
                    let cluster = follower_cluster;
                    return Err(OpError::ConfigurationNotFound {
                        cluster,
                        configuration,
                    });
                }
                Some((subject, Record::DetachFollower))
            }
            ClusterOp::CreateInvitation { id, invitation } => {
                Some((id, Record::CreateInvitation(invitation)))
            }
            ClusterOp::RevokeInvitation { id } => {
                if !self.invitations.contains_key(&id) {
                    return Err(OpError::InvitationNotFound(id));
                }
                Some((id, Record::RevokeInvitation))
            }
        };
        Ok(planned.into_iter().collect())
    }

    fn apply_record(&mut self, subject: Uuid, record: Record) -> Result<SubjectFate, OpError> {
        match record {
            Record::CreateDatabase { name } => {
                self.create(DatabaseId::new(subject), name)?;
                Ok(SubjectFate::Lives)
            }
            Record::DropDatabase => {
                self.forget(DatabaseId::new(subject))?;
                Ok(SubjectFate::Ends)
            }
            Record::AttachFollower(follower) => {
                self.check_exists(follower.database_id)?;
                self.followers.insert(subject, follower);
                Ok(SubjectFate::Lives)
            }
            Record::DetachFollower => {
                self.followers.remove(&subject);
                Ok(SubjectFate::Ends)
            }
            Record::CreateInvitation(invitation) => {
                self.check_exists(Some(invitation.database_id))?;
                self.invitations.insert(subject, invitation);
                Ok(SubjectFate::Lives)
            }
            Record::RevokeInvitation => {
                self.invitations.remove(&subject);
                Ok(SubjectFate::Ends)
            }
        }
    }

    /// A catalog has as many commits as people made databases and attachments: it is read whole.
    async fn load_checkpoint(&self, _bucket: &BucketReader) -> Result<Option<Self>, CatalogError> {
        Ok(None)
    }

    async fn write_checkpoint(&self, _bucket: &BucketWriter) -> Result<bool, CatalogError> {
        Ok(false)
    }
}

/// The subject of an attachment.
fn follower_subject(cluster: &ClusterName, configuration: &str) -> Uuid {
    let domain = DigestBuilder::new("slipstream.follower.v1");
    uuid_of(domain, &[cluster.as_str(), configuration])
}

/// A UUID (version 8) made from names.
fn uuid_of(domain: DigestBuilder, names: &[&str]) -> Uuid {
    let digest = names
        .iter()
        .fold(domain, |digest, name| digest.part(name.as_bytes()))
        .finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests;
