//! What a `.show` command asks for.

use slipstream_model::DatabaseRole;

use crate::ShownExtents;

/// `.show ...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// `.show version`
    Version,
    /// `.show cluster`
    Cluster,
    /// `.show cluster details`
    ClusterDetails,
    /// `.show cache`
    Cache,
    /// `.show diagnostics`
    Diagnostics,
    /// `.show gc blockers`
    GcBlockers,
    /// `.show capacity [resource] [with (scope=...)]`; the scope is not kept.
    Capacity {
        /// Of one resource only.
        resource: Option<String>,
    },
    /// `.show queries`
    Queries,
    /// `.show running queries`
    RunningQueries,
    /// `.show commands`
    Commands,
    /// `.show commands-and-queries`
    CommandsAndQueries,
    /// `.show databases [(D1, D2)] [view]`
    Databases {
        /// Which; none: all.
        names: Vec<String>,
        /// What about them.
        view: DatabaseView,
    },
    /// `.show database [D] [view]`
    Database {
        /// Which; none: the one that the command was sent to.
        name: Option<String>,
        /// What about it.
        view: DatabaseView,
    },
    /// `.show database [D] schema [as json]`, `.show schema [as json]`
    DatabaseSchema {
        /// Which; none: the one that the command was sent to.
        name: Option<String>,
        /// As one JSON document.
        as_json: bool,
    },
    /// `.show database [D] versions`
    DatabaseVersions {
        /// Which; none: the one that the command was sent to.
        name: Option<String>,
    },
    /// `.show database [D] pins`
    DatabasePins {
        /// Which; none: the one that the command was sent to.
        name: Option<String>,
    },
    /// `.show tables [(T1, T2)] [details]`
    Tables {
        /// Which; none: all.
        names: Vec<String>,
        /// With sizes and policies.
        details: bool,
    },
    /// `.show table T [view]`
    Table {
        /// Which.
        name: String,
        /// What about it.
        view: TableView,
    },
    /// `.show cluster|database|table|tables extents [(ids)] [hot] [where tags ...]`
    Extents(ShownExtents),
    /// `.show database [D] principals`, `.show database [D] viewers`
    DatabasePrincipals {
        /// Which; none: the one that the command was sent to.
        database: Option<String>,
        /// Of one role only.
        role: Option<DatabaseRole>,
    },
    /// `.show cluster principals`
    ClusterPrincipals,
    /// `.show functions`
    Functions,
    /// `.show function F`
    Function {
        /// Which.
        name: String,
    },
    /// `.show external tables`
    ExternalTables,
    /// `.show external table N`
    ExternalTable {
        /// Which.
        name: String,
    },
    /// `.show table T policy caching`, `.show effective policy caching table T`
    Policy {
        /// Whose.
        entity: PolicyTarget,
        /// Which.
        policy: PolicyKind,
        /// The one that counts, wherever it comes from.
        effective: bool,
    },
    /// `.show follower database D`, `.show follower databases [(D1, D2)]`
    FollowerDatabases {
        /// Which; none: all.
        names: Vec<String>,
    },
}

/// What to show of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseView {
    /// No word behind the name.
    Basic,
    /// `details`
    Details,
    /// `datastats`
    DataStats,
    /// `identity`
    Identity,
    /// `policies`
    Policies,
    /// `verbose`
    Verbose,
}

/// What to show of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableView {
    /// No word behind the name: its columns.
    Columns,
    /// `details`
    Details,
    /// `schema as json`
    SchemaAsJson,
    /// `cslschema`
    CslSchema,
}

/// Whose policy to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyTarget {
    /// `database [D]`; none: the one that the command was sent to.
    Database(Option<String>),
    /// `table T`, `table *`; none: every table.
    Table(Option<String>),
    /// `materialized-view V`
    MaterializedView(String),
}

/// Which policy to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// `caching`
    Caching,
    /// `retention`
    Retention,
    /// `merge`
    Merge,
    /// `ingestionbatching`
    IngestionBatching,
    /// `streamingingestion`
    StreamingIngestion,
    /// `row_level_security`, of tables only.
    RowLevelSecurity,
}
