//! What the leader shows of itself in the system tables.

use std::sync::Arc;

use slipstream_follower::Registry;
use slipstream_model::{ALL_DATABASES, DatabaseAccessMode};
use slipstream_query::{ClusterView, DatabaseRow, FollowerRow, LeaseRow};

use crate::cluster::Cluster;

/// The leader's rows of `slipstream.databases`, `followers` and `leases`.
#[derive(Debug)]
pub(crate) struct LeaderView {
    cluster: Arc<Cluster>,
    registry: Arc<Registry>,
}

impl LeaderView {
    pub(crate) fn new(cluster: Arc<Cluster>, registry: Arc<Registry>) -> Self {
        Self { cluster, registry }
    }

    fn name_of(&self, id: slipstream_model::DatabaseId) -> String {
        self.cluster
            .database_name(id)
            .unwrap_or_else(|| id.to_string())
    }
}

impl ClusterView for LeaderView {
    fn databases(&self) -> Vec<DatabaseRow> {
        let now = self.cluster.clock().now();
        let states = self.cluster.states();
        let catalog = self.cluster.catalog();
        catalog
            .databases()
            .map(|(name, id)| {
                let state = states.get(name.as_str());
                DatabaseRow {
                    last_contact: state.map(|_| now),
                    lag: state.map(|_| std::time::Duration::ZERO),
                    suspension_state: self.cluster.suspension(id),
                    ..DatabaseRow::of(name.as_str(), id, DatabaseAccessMode::ReadWrite, state)
                }
            })
            .chain(self.registry.database_rows())
            .collect()
    }

    fn followers(&self) -> Vec<FollowerRow> {
        let leases = self.cluster.leases().live();
        let catalog = self.cluster.catalog();
        catalog
            .followers()
            .map(|follower| {
                let newest = leases
                    .iter()
                    .filter(|lease| {
                        lease.follower_cluster == follower.cluster.as_str()
                            && lease.configuration == follower.configuration
                    })
                    .max_by_key(|lease| lease.renewed_at);
                FollowerRow {
                    database_name: follower
                        .database_id
                        .map_or_else(|| ALL_DATABASES.to_owned(), |id| self.name_of(id)),
                    follower_cluster: follower.cluster.to_string(),
                    configuration: follower.configuration.clone(),
                    attached_at: follower.attached_at,
                    last_seen: newest.map(|lease| lease.renewed_at),
                    version: newest.map(|lease| lease.current_version),
                }
            })
            .collect()
    }

    fn leases(&self) -> Vec<LeaseRow> {
        let leases = self.cluster.leases().live().into_iter();
        leases
            .map(|lease| LeaseRow {
                database_name: self.name_of(lease.database),
                follower_cluster: lease.follower_cluster,
                node_id: lease.node.to_string(),
                lowest_version: lease.lowest_version,
                current_version: lease.current_version,
                expires_at: lease.expires_at,
            })
            .collect()
    }
}
