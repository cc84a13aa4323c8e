//! A cluster's catalog: its databases by name, and the clusters that follow them.

mod op;
mod record;
mod state;

pub use op::ClusterOp;
pub(crate) use record::ClusterRecord;
pub use state::{ClusterState, FollowerRecord, InvitationRecord};
