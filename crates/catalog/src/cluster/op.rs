use slipstream_model::{ClusterName, DatabaseId, DatabaseName, Timestamp};

/// One thing to do to a cluster's catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterOp {
    /// Makes a database known.
    CreateDatabase {
        /// Chosen by the caller.
        id: DatabaseId,
        /// Its name.
        name: DatabaseName,
        /// Do nothing when there is a database of that name.
        if_not_exists: bool,
    },
    /// Forgets a database. Its objects stay in the bucket. Refused while clusters follow it.
    DropDatabase {
        /// Its name.
        name: DatabaseName,
        /// Do nothing when there is no such database.
        if_exists: bool,
    },
    /// Notes that a follower cluster has attached a database. Doing it again does nothing.
    AttachFollower {
        /// The follower cluster.
        follower_cluster: ClusterName,
        /// The name of its attached database configuration, unique in that cluster.
        configuration: String,
        /// The database.
        database_id: DatabaseId,
        /// When.
        attached_at: Timestamp,
    },
    /// Notes that a follower cluster has detached a database.
    DetachFollower {
        /// The follower cluster.
        follower_cluster: ClusterName,
        /// The name of its attached database configuration.
        configuration: String,
    },
}
