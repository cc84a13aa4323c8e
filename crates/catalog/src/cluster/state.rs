//! The state of a cluster's catalog.

use std::sync::Arc;

use imbl::OrdMap;
use slipstream_model::{
    BucketId, ClusterName, DatabaseId, DatabaseName, Digest, DigestBuilder, Epoch, Timestamp,
    Version,
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
    followers: OrdMap<Uuid, FollowerRecord>,
}

/// A database that another cluster has attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerRecord {
    /// The follower cluster.
    pub cluster: ClusterName,
    /// The name of its attached database configuration.
    pub configuration: String,
    /// The database it follows.
    pub database_id: DatabaseId,
    /// When it was attached.
    pub attached_at: Timestamp,
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
            followers: OrdMap::new(),
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

    /// All attachments, in an order that means nothing.
    pub fn followers(&self) -> impl ExactSizeIterator<Item = &FollowerRecord> {
        self.followers.values()
    }

    /// The attachments of one database.
    pub fn followers_of(&self, database: DatabaseId) -> impl Iterator<Item = &FollowerRecord> {
        self.followers()
            .filter(move |follower| follower.database_id == database)
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
        let FollowerRecord {
            cluster,
            configuration,
            database_id,
            attached_at,
        } = follower;
        match self.follower(&cluster, &configuration) {
            Some(known) if known.database_id == database_id => return Ok(None),
            Some(_) => {
                return Err(OpError::ConfigurationExists {
                    cluster,
                    configuration,
                });
            }
            None => {}
        }
        let subject = follower_subject(&cluster, &configuration);
        let follower_cluster = cluster;
        let record = Record::AttachFollower {
            follower_cluster,
            configuration,
            database_id,
            attached_at,
        };
        Ok(Some((subject, record)))
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

    fn forget(&mut self, id: DatabaseId) -> Result<(), OpError> {
        let Some(name) = self.by_id.get(&id).cloned() else {
            return Err(OpError::DatabaseNotFound(id.to_string()));
        };
        self.check_not_followed(id, &name)?;
        self.by_id.remove(&id);
        self.by_name.remove(&name);
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
            ClusterOp::AttachFollower {
                follower_cluster,
                configuration,
                database_id,
                attached_at,
            } => self.plan_attach(FollowerRecord {
                cluster: follower_cluster,
                configuration,
                database_id,
                attached_at,
            })?,
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
            Record::AttachFollower {
                follower_cluster,
                configuration,
                database_id,
                attached_at,
            } => {
                if !self.by_id.contains_key(&database_id) {
                    return Err(OpError::DatabaseNotFound(database_id.to_string()));
                }
                let cluster = follower_cluster;
                let follower = FollowerRecord {
                    cluster,
                    configuration,
                    database_id,
                    attached_at,
                };
                self.followers.insert(subject, follower);
                Ok(SubjectFate::Lives)
            }
            Record::DetachFollower => {
                self.followers.remove(&subject);
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
