//! The words of the system, as types: ids, versions, digests, schemas, extents, freshness.
//!
//! Everything here is pure. There is no I/O, no task, no DataFusion, no wall clock and no
//! ambient randomness: time and chance come in through [`Clock`] and [`Entropy`].
//!
//! The types a newcomer should know first:
//!
//! * [`Version`] numbers the commits of one database, starting at 1. Versions never go back.
//! * [`Digest`] is a SHA-256; a database's digest covers its whole history up to a version.
//! * [`TableSchema`] is an ordered list of [`Column`]s, each with an id that is never reused.
//! * [`Extent`] describes one immutable Parquet file: where it came from, how large it is,
//!   what its bytes hash to, and exact statistics per column.
//!
//! ```
//! use slipstream_model::{Timestamp, Version};
//!
//! let version = Version::FIRST;
//! assert_eq!(version.next().to_string(), "2");
//! let at: Timestamp = "2013-01-01T05:00:00Z".parse().expect("RFC 3339");
//! assert_eq!(at.to_string(), "2013-01-01T05:00:00Z");
//! ```

mod batching;
mod caching;
mod digest;
mod extent;
mod external;
mod freshness;
mod function;
mod ids;
mod ingest;
mod location;
mod mean;
mod merge;
mod name;
mod overrides;
mod principal;
mod random;
mod schema;
mod sharing;
mod statistics;
mod streaming;
mod time;

pub use batching::{IngestionBatchingPolicy, InvalidBatching};
pub use caching::{CachingSource, EffectiveCaching, LeaderCaching};
pub use digest::{Digest, DigestBuilder, DigestParseError};
pub use extent::{ColumnStatistics, Extent, SortOrder};
pub use external::{EXTERNAL_LOCATIONS_MAX, ExternalFormat, ExternalTable, InvalidExternalTable};
pub use freshness::{Freshness, FreshnessRequirement, WhenStale};
pub use function::{
    FUNCTION_BODY_CHARS_MAX, FUNCTION_PARAMETERS_MAX, FunctionParameter, InvalidFunction,
    RetentionPolicy, RowLevelSecurity, StoredFunction, TablePolicies,
};
pub use ids::{BucketId, CommitId, DatabaseId, EntityId, Epoch, ExtentId, TableId, Version};
pub use ingest::{INGEST_BY, IngestId, InvalidIngestId};
pub use location::is_same_location;
pub use mean::MovingMean;
pub use merge::{MergeLookback, MergePolicy};
pub use name::{ClusterName, DatabaseName, FunctionName, InvalidName, PinName, TableName};
pub use overrides::{
    CachingPolicy, EntityName, HotWindow, InvalidOverride, OVERRIDE_PRINCIPALS_MAX, OverrideChange,
    Overrides,
};
pub use principal::{
    ClusterRole, DatabasePrincipal, DatabaseRole, InvalidPrincipal, PrincipalKind, PrincipalName,
    UnknownRole,
};
pub use random::Entropy;
pub use schema::{Column, ColumnId, InvalidSchema, TableSchema};
pub use sharing::{
    ALL_DATABASES, AttachTerms, CachingPoliciesModificationKind, DatabaseSelection, EntityKind,
    InvalidTerms, PrincipalsModificationKind, SHARING_ENTRIES_MAX, TableLevelSharing, UnknownKind,
    pattern_matches,
};
pub use statistics::{
    BOUND_BYTES_MAX, ColumnStatisticsBuilder, StatisticValue, UnsupportedStatistic,
};
pub use streaming::StreamingIngestionPolicy;
pub use time::{Clock, ManualClock, Sleep, Timestamp, TimestampParseError};

/// What a cluster may do with a database: the Kusto column `DatabaseAccessMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseAccessMode {
    /// The cluster owns the database and writes it.
    ReadWrite,
    /// The cluster follows the database; nothing in it can be changed here.
    ReadOnlyFollowing,
}

impl std::fmt::Display for DatabaseAccessMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadWrite => "ReadWrite",
            Self::ReadOnlyFollowing => "ReadOnlyFollowing",
        })
    }
}
