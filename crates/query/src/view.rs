//! What a node knows beyond its database states, for the system tables.

use std::fmt;
use std::time::Duration;

use slipstream_catalog::DatabaseState;
use slipstream_model::{DatabaseAccessMode, DatabaseId, Digest, Epoch, Timestamp, Version};

/// Rows of the system tables that only the node can give. Asked when a query reads them.
pub trait ClusterView: fmt::Debug + Send + Sync {
    /// Every database of this node, those that cannot be queried now included.
    fn databases(&self) -> Vec<DatabaseRow>;

    /// Who follows which database of this node; empty on a follower.
    fn followers(&self) -> Vec<FollowerRow>;

    /// Which follower nodes read which versions; empty on a follower.
    fn leases(&self) -> Vec<LeaseRow>;

    /// Whether whoever asks may see a principal's queries of a database, or of none in particular.
    fn shows_query_of(&self, principal: &str, database: Option<&str>) -> bool {
        let _ = (principal, database);
        true
    }
}

/// A row of `slipstream.databases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRow {
    /// The name that queries use on this node.
    pub database_name: String,
    /// The id, the same on every node.
    pub database_id: DatabaseId,
    /// Whether this node writes it or follows it.
    pub database_access_mode: DatabaseAccessMode,
    /// The version that is served; `None` before the first synchronisation.
    pub version: Option<Version>,
    /// Its digest: nodes at one version agree on it.
    pub digest: Option<Digest>,
    /// Which of the leaders in a row wrote it.
    pub epoch: Option<Epoch>,
    /// When the version was committed, by the leader's clock.
    pub committed_at: Option<Timestamp>,
    /// When this node last heard from the leader, or read the log's end.
    pub last_contact: Option<Timestamp>,
    /// How long ago that was.
    pub lag: Option<Duration>,
    /// How many versions the leader is known to be ahead.
    pub versions_behind: Option<u64>,
    /// The leader cluster that is followed.
    pub leader: Option<String>,
    /// The attached database configuration it is followed through.
    pub configuration: Option<String>,
    /// Why it stands still, when it does.
    pub suspension_state: Option<String>,
    /// Its tables.
    pub table_count: u64,
    /// Extents of all tables.
    pub extent_count: u64,
    /// Rows of all tables.
    pub row_count: u64,
    /// Bytes of the extent files.
    pub size_bytes: u64,
    /// Bytes of the rows before encoding.
    pub original_bytes: u64,
}

impl DatabaseRow {
    /// The row of a database at a state; `None` when there is none yet. What the state does not
    /// know (leader, contact, suspension) is left open.
    pub fn of(
        database_name: impl Into<String>,
        database_id: DatabaseId,
        database_access_mode: DatabaseAccessMode,
        state: Option<&DatabaseState>,
    ) -> Self {
        let mut row = Self {
            database_name: database_name.into(),
            database_id,
            database_access_mode,
            version: state.map(DatabaseState::version),
            digest: state.map(DatabaseState::digest),
            epoch: state.map(DatabaseState::epoch),
            committed_at: state.map(DatabaseState::committed_at),
            last_contact: None,
            lag: None,
            versions_behind: None,
            leader: None,
            configuration: None,
            suspension_state: None,
            table_count: 0,
            extent_count: 0,
            row_count: 0,
            size_bytes: 0,
            original_bytes: 0,
        };
        for table in state.into_iter().flat_map(DatabaseState::tables) {
            row.table_count += 1;
            row.extent_count += table.extents.len();
            row.row_count += table.extents.row_count();
            row.size_bytes += table.extents.size_bytes();
            row.original_bytes += table.extents.original_bytes();
        }
        row
    }
}

/// A row of `slipstream.followers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerRow {
    /// The database that is followed.
    pub database_name: String,
    /// The cluster that follows it.
    pub follower_cluster: String,
    /// The attached database configuration there.
    pub configuration: String,
    /// Since when.
    pub attached_at: Timestamp,
    /// When one of its nodes last renewed a lease.
    pub last_seen: Option<Timestamp>,
    /// The version that node serves.
    pub version: Option<Version>,
}

/// A row of `slipstream.leases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The database that is read.
    pub database_name: String,
    /// The cluster that reads it.
    pub follower_cluster: String,
    /// The node of that cluster.
    pub node_id: String,
    /// The lowest version that its running queries and pins still use.
    pub lowest_version: Version,
    /// The version it serves to new queries.
    pub current_version: Version,
    /// When the lease ends unless it is renewed.
    pub expires_at: Timestamp,
}
