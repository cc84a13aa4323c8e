use slipstream_model::{ClusterName, DatabaseId, DatabaseName};
use uuid::Uuid;

use super::{FollowerRecord, InvitationRecord};

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
    /// Notes that a follower cluster has attached a database or all of them, or that its terms
    /// are others now. Doing it again does nothing.
    AttachFollower(FollowerRecord),
    /// Notes that a follower cluster has detached a database.
    DetachFollower {
        /// The follower cluster.
        follower_cluster: ClusterName,
        /// The name of its attached database configuration.
        configuration: String,
    },
    /// Lets whoever has a token attach a database.
    CreateInvitation {
        /// Chosen by the caller.
        id: Uuid,
        /// What it grants.
        invitation: InvitationRecord,
    },
    /// Takes an invitation back. Whoever used it stays attached.
    RevokeInvitation {
        /// Which.
        id: Uuid,
    },
}
