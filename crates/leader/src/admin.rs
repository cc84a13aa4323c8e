//! `Admin`: what a follower cluster asks of this one when it attaches or detaches.

use std::sync::Arc;

use slipstream_frontend::wire::{sharing_from_proto, sharing_to_proto};
use slipstream_frontend::{ClusterPermission, ErrorKind, caller_of};
use slipstream_model::{ClusterName, DatabaseId, InvalidName};
use slipstream_proto::sync::admin_server::Admin;
use slipstream_proto::sync::{
    AttachFollowerRequest, AttachFollowerResponse, DatabaseDescription, DescribeClusterRequest,
    DescribeClusterResponse, DetachFollowerRequest, DetachFollowerResponse,
};
use tonic::{Request, Response, Status};

use crate::cluster::{Cluster, check_speaks_for};
use crate::sharing::WantedFollower;
use crate::sync::{check_bucket, status};

/// The service.
#[derive(Debug, Clone)]
pub struct AdminService {
    cluster: Arc<Cluster>,
}

impl AdminService {
    /// Administers a cluster.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn attach_follower(
        &self,
        request: Request<AttachFollowerRequest>,
    ) -> Result<Response<AttachFollowerResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        check_bucket(&self.cluster, &request.bucket_id)?;
        let database = request.database_name.parse();
        let wanted = WantedFollower {
            cluster: cluster_name(&request.follower_cluster)?,
            configuration: request.configuration,
            database: database
                .map_err(|error: InvalidName| Status::invalid_argument(error.to_string()))?,
            location: request.location,
            sharing: sharing_from_proto(request.sharing),
            invitation: Some(request.invitation).filter(|token| !token.is_empty()),
        };
        let record = self
            .cluster
            .attach_follower(wanted, &caller)
            .await
            .map_err(status)?;
        Ok(Response::new(AttachFollowerResponse {
            leader_cluster: self.cluster.name().to_string(),
            bucket_id: self.cluster.bucket().id().as_bytes().to_vec().into(),
            database_id: record
                .database_id
                .map(|id| id.as_bytes().to_vec().into())
                .unwrap_or_default(),
            location: self.cluster.location().to_owned(),
            databases: self.describe(|id| record.follows(id)),
            sharing: Some(sharing_to_proto(&record.sharing)),
        }))
    }

    async fn detach_follower(
        &self,
        request: Request<DetachFollowerRequest>,
    ) -> Result<Response<DetachFollowerResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let name = cluster_name(&request.follower_cluster)?;
        match self
            .cluster
            .detach_follower(name, &request.configuration, &caller)
            .await
        {
            // A follower that asks twice has what it wants.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            detached => detached.map_err(status)?,
        }
        Ok(Response::new(DetachFollowerResponse {}))
    }

    async fn describe_cluster(
        &self,
        request: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        let caller = caller_of(&request)?;
        self.cluster.check_not_fenced().map_err(status)?;
        let databases = match request.into_inner().follower {
            None => {
                caller.check(ClusterPermission::Share).map_err(status)?;
                self.describe(|_| true)
            }
            Some(follower) => {
                let name = cluster_name(&follower.cluster)?;
                let catalog = self.cluster.catalog();
                let record = catalog.follower(&name, &follower.configuration);
                let record = record.ok_or_else(|| {
                    Status::not_found(format!(
                        "configuration '{}' of cluster '{name}' is not attached to cluster '{}'",
                        follower.configuration,
                        self.cluster.name()
                    ))
                })?;
                check_speaks_for(&caller, record).map_err(status)?;
                self.describe(|id| record.follows(id))
            }
        };
        Ok(Response::new(DescribeClusterResponse {
            cluster: self.cluster.name().to_string(),
            location: self.cluster.location().to_owned(),
            bucket_id: self.cluster.bucket().id().as_bytes().to_vec().into(),
            databases,
        }))
    }
}

impl AdminService {
    fn describe(&self, is_shown: impl Fn(DatabaseId) -> bool) -> Vec<DatabaseDescription> {
        let states = self.cluster.states();
        let version = |name: &str| states.get(name).map_or(0, |state| state.version().get());
        // A database that cannot be read here is one all the same: followers keep it.
        let catalog = self.cluster.catalog();
        catalog
            .databases()
            .filter(|(_, id)| is_shown(*id))
            .map(|(name, id)| DatabaseDescription {
                name: name.to_string(),
                database_id: id.as_bytes().to_vec().into(),
                version: version(name.as_str()),
            })
            .collect()
    }
}

fn cluster_name(name: &str) -> Result<ClusterName, Status> {
    ClusterName::new(name).map_err(|error| Status::invalid_argument(error.to_string()))
}
