//! What the follower shows of itself in the system tables.

use std::sync::Arc;

use slipstream_model::{Clock, DatabaseAccessMode};
use slipstream_query::{ClusterView, DatabaseRow, FollowerRow, LeaseRow};

use crate::following::Following;

/// The follower's rows of `slipstream.databases`. It has no followers, and grants no leases.
#[derive(Debug)]
pub(crate) struct FollowerView {
    following: Vec<Arc<Following>>,
    clock: Arc<dyn Clock>,
}

impl FollowerView {
    pub(crate) fn new(following: Vec<Arc<Following>>, clock: Arc<dyn Clock>) -> Self {
        Self { following, clock }
    }
}

impl ClusterView for FollowerView {
    fn databases(&self) -> Vec<DatabaseRow> {
        let now = self.clock.now();
        let rows = self.following.iter().map(|following| {
            let served = following.served();
            let source = following.source();
            let freshness = following.freshness(&served);
            DatabaseRow {
                last_contact: freshness.as_ref().map(|freshness| freshness.last_contact),
                lag: freshness.as_ref().map(|freshness| freshness.staleness(now)),
                versions_behind: freshness
                    .as_ref()
                    .map(|freshness| freshness.versions_behind),
                leader: Some(source.leader.clone()),
                configuration: Some(source.configuration.clone()),
                suspension_state: served.suspension.clone(),
                ..DatabaseRow::of(
                    &source.database,
                    source.database_id,
                    DatabaseAccessMode::ReadOnlyFollowing,
                    served.state.as_ref(),
                )
            }
        });
        rows.collect()
    }

    fn followers(&self) -> Vec<FollowerRow> {
        Vec::new()
    }

    fn leases(&self) -> Vec<LeaseRow> {
        Vec::new()
    }
}
