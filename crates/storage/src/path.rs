//! Where each thing stands in the bucket. The only place that spells these names out.

use std::fmt;

use slipstream_model::{ClusterName, DatabaseId, Digest, Epoch, ExtentId, Version};

/// The path of one object, below the bucket's prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketPath(String);

impl BucketPath {
    /// The folders that every path begins with.
    pub(crate) const ROOTS: [&str; 3] = ["_slipstream", "clusters", "databases"];

    /// Bucket id and format version, written once.
    pub fn identity() -> Self {
        Self("_slipstream/bucket.json".to_owned())
    }

    /// A key that a starting leader races itself for.
    pub(crate) fn certification(probe: impl fmt::Display) -> Self {
        Self(format!("_slipstream/certification/{probe}"))
    }

    /// A commit in a cluster's catalog: which databases there are, and who follows them.
    pub fn cluster_commit(cluster: &ClusterName, version: Version) -> Self {
        Self(format!(
            "clusters/{cluster}/catalog/{:020}.commit",
            version.get()
        ))
    }

    /// A commit in a database's log.
    pub fn database_commit(database: DatabaseId, version: Version) -> Self {
        Self(format!(
            "databases/{database}/log/{:020}.commit",
            version.get()
        ))
    }

    /// Where a database's log begins since its oldest commits were deleted for the `number`th time,
    /// counted from 0.
    pub fn log_start(database: DatabaseId, number: u64) -> Self {
        Self(format!("databases/{database}/log/{number:020}.start"))
    }

    /// A database's state at a version, without its segments.
    pub fn checkpoint_root(database: DatabaseId, version: Version) -> Self {
        Self(format!(
            "databases/{database}/checkpoint/{:020}.root",
            version.get()
        ))
    }

    /// Extents that many checkpoints share; named by its own SHA-256.
    pub fn checkpoint_segment(database: DatabaseId, sha256: Digest) -> Self {
        Self(format!(
            "databases/{database}/checkpoint/segments/{sha256}.segment"
        ))
    }

    /// The hint that names the newest checkpoint.
    pub fn checkpoint_newest(database: DatabaseId) -> Self {
        Self(format!("databases/{database}/checkpoint/newest"))
    }

    /// What commits took out of a database's tables and is not deleted yet.
    pub fn garbage_ledger(database: DatabaseId) -> Self {
        Self(format!("databases/{database}/garbage/ledger"))
    }

    /// Ids of extents that the writer of an epoch may upload. Its intents are numbered from 0.
    pub fn upload_intent(database: DatabaseId, epoch: Epoch, number: u64) -> Self {
        Self(format!(
            "databases/{database}/garbage/intents/{:020}-{number:010}",
            epoch.get()
        ))
    }

    /// How far the deletion of a database that was dropped is.
    pub fn dropped_database(database: DatabaseId) -> Self {
        Self(format!("databases/{database}/garbage/dropped"))
    }

    /// An extent file.
    pub fn extent(database: DatabaseId, extent: ExtentId) -> Self {
        Self(format!("databases/{database}/extents/{extent}.parquet"))
    }

    /// The path as text, `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
