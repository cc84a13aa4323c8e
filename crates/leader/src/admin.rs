//! `Admin`: what a follower cluster asks of this one when it attaches or detaches.

use std::sync::Arc;

use slipstream_catalog::ClusterOp;
use slipstream_model::ClusterName;
use slipstream_proto::sync::admin_server::Admin;
use slipstream_proto::sync::{
    AttachFollowerRequest, AttachFollowerResponse, DatabaseDescription, DescribeClusterRequest,
    DescribeClusterResponse, DetachFollowerRequest, DetachFollowerResponse,
};
use tonic::{Request, Response, Status};

use crate::cluster::Cluster;
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
        let request = request.into_inner();
        check_bucket(&self.cluster, &request.bucket_id)?;
        let location = self.cluster.location();
        if request.location != location {
            return Err(Status::failed_precondition(format!(
                "follower cluster '{}' is in location '{}', and leader cluster '{}' in '{location}': \
                 a database can only be followed within one location",
                request.follower_cluster,
                request.location,
                self.cluster.name()
            )));
        }
        let database_id = self
            .cluster
            .database_id(&request.database_name)
            .map_err(status)?;
        let attach = ClusterOp::AttachFollower {
            follower_cluster: cluster_name(&request.follower_cluster)?,
            configuration: request.configuration,
            database_id,
            attached_at: self.cluster.clock().now(),
        };
        self.cluster.commit(attach).await.map_err(status)?;
        Ok(Response::new(AttachFollowerResponse {
            leader_cluster: self.cluster.name().to_string(),
            bucket_id: self.cluster.bucket().id().as_bytes().to_vec().into(),
            database_id: database_id.as_bytes().to_vec().into(),
            location: location.to_owned(),
        }))
    }

    async fn detach_follower(
        &self,
        request: Request<DetachFollowerRequest>,
    ) -> Result<Response<DetachFollowerResponse>, Status> {
        let DetachFollowerRequest {
            follower_cluster,
            configuration,
        } = request.into_inner();
        let name = cluster_name(&follower_cluster)?;
        if self
            .cluster
            .catalog()
            .follower(&name, &configuration)
            .is_some()
        {
            let configuration = configuration.clone();
            let detach = ClusterOp::DetachFollower {
                follower_cluster: name,
                configuration,
            };
            self.cluster.commit(detach).await.map_err(status)?;
        }
        self.cluster
            .leases()
            .release(&follower_cluster, &configuration);
        Ok(Response::new(DetachFollowerResponse {}))
    }

    async fn describe_cluster(
        &self,
        _request: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        let databases = self
            .cluster
            .states()
            .into_iter()
            .map(|(name, state)| DatabaseDescription {
                name,
                database_id: state.id().as_bytes().to_vec().into(),
                version: state.version().get(),
            })
            .collect();
        Ok(Response::new(DescribeClusterResponse {
            cluster: self.cluster.name().to_string(),
            location: self.cluster.location().to_owned(),
            bucket_id: self.cluster.bucket().id().as_bytes().to_vec().into(),
            databases,
        }))
    }
}

fn cluster_name(name: &str) -> Result<ClusterName, Status> {
    ClusterName::new(name).map_err(|error| Status::invalid_argument(error.to_string()))
}
