//! What the follower shows of itself in the system tables.

use std::sync::Arc;

use slipstream_query::{ClusterView, DatabaseRow, FollowerRow, LeaseRow};

use crate::registry::Registry;

/// The follower's rows of `slipstream.databases`. It has no followers, and grants no leases.
#[derive(Debug)]
pub(crate) struct FollowerView {
    registry: Arc<Registry>,
}

impl FollowerView {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl ClusterView for FollowerView {
    fn databases(&self) -> Vec<DatabaseRow> {
        self.registry.database_rows()
    }

    fn followers(&self) -> Vec<FollowerRow> {
        Vec::new()
    }

    fn leases(&self) -> Vec<LeaseRow> {
        Vec::new()
    }
}
