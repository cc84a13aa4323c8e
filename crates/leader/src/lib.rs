//! The leader: owns databases, takes rows in, commits, and tells followers.
//!
//! * [`Cluster`] holds the cluster's catalog and one fenced writer for each database.
//! * [`LeaderEngine`] is what the doors call: SQL, transactions, ingestion.
//! * [`ingest`] turns files and batches into uploaded extents; `intake` sees to it that each ingest
//!   is committed once, and lets small ones share a commit.
//! * `lifecycle` merges small extents, removes those that the retention policy keeps no longer, and
//!   deletes the files that nobody reads any more.
//! * `SyncService` and `AdminService` are the gRPC services that followers talk to.
//!
//! An order holds throughout: extents are uploaded first, then the commit is made durable, then
//! the new state is shown and told, then the client gets its answer. A crash between any two of
//! these loses nothing that was acknowledged.

mod admin;
mod cluster;
mod engine;
pub mod ingest;
mod intake;
mod leases;
mod lifecycle;
mod node;
mod older;
mod pins;
mod readers;
mod sharing;
mod sync;
mod transaction;
mod undo;
mod view;

pub use admin::AdminService;
pub use cluster::{CHECKPOINT_EVERY, Cluster, ClusterContext};
pub use engine::LeaderEngine;
pub use leases::{LEASE_TTL, Lease, LeaseError, LeaseTable};
pub use lifecycle::{
    GC_GRACE, GarbageCollector, LifecycleArgs, LifecycleSettings, MERGE_INTERVAL, MergeBounds,
    MergeCandidate, plan_merges, start as start_lifecycle,
};
pub use node::{LeaderArgs, run};
pub use sync::SyncService;
