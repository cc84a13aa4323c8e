//! The follower: attaches databases of leaders, keeps in step with them, and answers queries.
//!
//! * [`FollowerEngine`] is what the doors call. It refuses every write.
//! * [`Registry`] knows the followed databases: attaching, detaching, names, settings.
//! * [`Attachments`] are durable: the attached database configurations of this node, in a file.
//! * A follow task per database keeps its state in step: from the leader over gRPC when it
//!   speaks, from the log in the bucket when it does not.
//! * A lease task per database tells the leader which versions are still being read, on a
//!   connection of its own.
//!
//! What is absent here is the point: there is no way to write to the bucket. A follower holds a
//! [`BucketReader`](slipstream_storage::BucketReader), which cannot put or delete.

mod attachments;
mod cache_settings;
mod engine;
mod extents;
mod follow;
mod following;
mod hot_cache;
mod leader_query;
mod lease;
mod link;
mod node;
mod pins;
mod registry;
#[cfg(test)]
mod tests;
mod upstream;
mod view;

pub use attachments::{Attachments, Configuration, FollowedDatabase};
pub use engine::{FollowerEngine, queries_capacity};
pub use following::{FollowContext, Following, Served, Source};
pub use link::{Carrier, Dialer, LeaderAddress, NodeName};
pub use node::{FollowerArgs, run};
pub use pins::Pin;
pub use registry::{IsOwned, Registry};
pub use upstream::{Upstream, UpstreamArgs};
