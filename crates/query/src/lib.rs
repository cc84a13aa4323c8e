//! SQL over snapshots of databases, by DataFusion.
//!
//! A request gets a [`QuerySession`] over [`SessionDatabases`]: immutable states, resolved once.
//! Whatever it reads, it reads at those versions, from the first row to the last.
//!
//! * [`QueryRuntime`] is one per process: memory pool, spill space, admission, footer cache,
//!   query log.
//! * [`QuerySession`] turns SQL into plans and plans into rows.
//! * [`QueryStream`] is the rows while they are computed. Dropping it stops the query.
//! * [`ClusterView`] is what the node adds to the system tables in the schema `slipstream`.
//!
//! What holds here:
//!
//! * Planning makes no request to the store; running makes ranged reads of extents, and no LIST
//!   and no HEAD. `count(*)`, `min` and `max` of a table make no request at all.
//! * An extent that is missing, cut short or damaged is an error that names it.
//! * Nothing is written: [`QuerySession::plan_read_only`] refuses what is not a query, and the
//!   plans of `INSERT`, `DELETE` and `CREATE TABLE` are taken apart and carried out by the leader.
//! * A scan is an ordinary Parquet scan of paths, sizes and digests; there is nothing in it that
//!   could not be sent to another node.
//!
//! ```
//! use slipstream_query::{QueryErrorKind, QuerySession};
//!
//! let statements = QuerySession::parse("SELECT 1; SELECT 2").expect("SQL");
//! assert_eq!(statements.len(), 2);
//! let error = QuerySession::parse("SELEC 1").expect_err("not SQL");
//! assert_eq!(error.kind(), QueryErrorKind::Syntax);
//! ```

mod admission;
mod barrier;
mod bill;
mod bounds;
mod counters;
mod deadline;
mod delete;
mod error;
mod extents;
mod external;
mod functions;
mod identity;
mod log;
mod namespace;
mod options;
mod parameters;
mod plans;
mod remote;
mod runtime;
mod scope;
mod session;
mod stack;
mod statement;
mod stream;
mod suggestion;
mod system;
mod table;
mod travel;
mod view;

pub use counters::{QueryMeter, QueryStatistics, ReadStatistics};
pub use datafusion::sql::parser::Statement;
pub use delete::{Delete, Deletion, delete_parts};
pub use error::{QueryError, QueryErrorKind};
pub use extents::{
    ExtentAccess, ExtentPaths, LocalExtent, ReadOrigin, ReadPace, Residency, StorePace,
    StoredExtents,
};
pub use identity::SessionIdentity;
pub use log::Replay;
pub use namespace::CATALOG;
pub use options::QueryOptions;
pub use parameters::Parameters;
pub use plans::KnownQuery;
pub use remote::{RemoteNode, RemoteRows};
pub use runtime::{QueryRuntime, SessionDatabases};
pub use scope::{DataScope, Settings, take_settings};
pub use session::{QueryInfo, QuerySession};
pub use stack::THREAD_STACK_BYTES;
pub use statement::{CreateTable, Insert, create_table_parts, insert_parts};
pub use stream::QueryStream;
pub use travel::{
    OlderState, OlderVersions, PointInTime, dropped_table, followed_version, older_state,
    older_version, version_summaries,
};
pub use view::{ClusterView, DatabaseRow, FollowerRow, LeaseRow};

#[cfg(test)]
mod tests;
