//! What may be asked of a database, and why it may be refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Field;
use slipstream_model::{
    CachingPolicy, ClusterName, DatabaseId, DatabaseName, DatabasePrincipal, DatabaseRole,
    EntityId, EntityKind, Extent, ExtentId, ExternalTable, FunctionName, IngestId,
    IngestionBatchingPolicy, InvalidExternalTable, InvalidFunction, InvalidSchema, MergePolicy,
    PinName, PrincipalName, RetentionPolicy, RowLevelSecurity, StoredFunction,
    StreamingIngestionPolicy, TableId, TableName, TableSchema, Version,
};

use crate::NotedIngest;
use crate::extents::{INLINE_BYTES_MAX, INLINE_EXTENTS_MAX};

/// Principals of one database: each request looks through them.
pub(crate) const DATABASE_PRINCIPALS_MAX: usize = 1_000;
/// Pinned versions of one database. Each keeps files that nothing else does, and people forget
/// what they pinned.
pub(crate) const PINS_MAX: usize = 100;
/// Tags of one extent, and the bytes of one. Every node keeps them in memory, and filters by them.
pub const EXTENT_TAGS_MAX: usize = 1_000;
/// See [`EXTENT_TAGS_MAX`].
pub(crate) const EXTENT_TAG_BYTES_MAX: usize = 4_096;

/// Checks that an extent may have these tags.
///
/// # Errors
/// When they are too many, or one is too long.
pub fn check_tags(tags: &BTreeSet<String>) -> Result<(), OpError> {
    let fits = |tag: &String| tag.len() <= EXTENT_TAG_BYTES_MAX;
    if tags.len() > EXTENT_TAGS_MAX || !tags.iter().all(fits) {
        return Err(OpError::TooManyTags);
    }
    Ok(())
}

/// One thing to do to a database. Several of them are one transaction: all or none.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseOp {
    /// Makes an empty table.
    CreateTable {
        /// Chosen by the caller, so that later operations of the same transaction can name it.
        id: TableId,
        /// Its name.
        name: TableName,
        /// Its columns.
        schema: TableSchema,
        /// Do nothing when there is a table of that name.
        if_not_exists: bool,
    },
    /// Removes a table with everything in it.
    DropTable {
        /// Its name.
        name: TableName,
        /// Do nothing when there is no such table.
        if_exists: bool,
    },
    /// Adds a column at the end; rows that are there read as null.
    AddColumn {
        /// The table's name.
        table: TableName,
        /// Name, type and metadata; must be nullable.
        field: Field,
        /// Do nothing when there is a column of that name.
        if_not_exists: bool,
    },
    /// Forgets a column. The files that hold it stay, and its name is not given again.
    DropColumn {
        /// The table's name.
        table: TableName,
        /// The column's name.
        column: String,
        /// Do nothing when there is no such column.
        if_exists: bool,
    },
    /// Makes uploaded extents part of a table.
    AddExtents {
        /// The table, by id: one dropped and created again meanwhile is another table.
        table: TableId,
        /// The schema that the extents were written with. The columns that they hold must still
        /// be there, with the same types.
        schema: TableSchema,
        /// The extents.
        extents: Vec<Extent>,
    },
    /// Takes extents out of a table. Their files stay.
    RemoveExtents {
        /// The table.
        table: TableId,
        /// The extents; each must be there.
        extents: Vec<ExtentId>,
    },
    /// Changes nothing, and is refused when extents have other tags than these by now: for whoever
    /// puts others in their place, which are to have the tags that they had.
    ExpectTags {
        /// The table.
        table: TableId,
        /// The extents; each must be there.
        extents: Vec<(ExtentId, BTreeSet<String>)>,
    },
    /// Gives extents of one table to another. Their files and ids stay as they are.
    MoveExtents {
        /// The table that has them.
        from: TableId,
        /// The table that gets them. It has every column of the other, with the same type.
        to: TableId,
        /// The extents; each must be there.
        extents: Vec<ExtentId>,
    },
    /// Keeps a query under a name.
    PutFunction {
        /// Chosen by the caller; taken when the function is new.
        id: EntityId,
        /// The function.
        function: Arc<StoredFunction>,
        /// What to do when there is one of that name, or none.
        mode: PutMode,
    },
    /// Forgets a function.
    DropFunction {
        /// Its name.
        name: FunctionName,
        /// Do nothing when there is no such function.
        if_exists: bool,
    },
    /// Says which extents are hot.
    SetCachingPolicy {
        /// The table; `None`: the database.
        table: Option<TableName>,
        /// The policy; `None`: there is none from now on.
        policy: Option<CachingPolicy>,
    },
    /// Names files outside the bucket as a table.
    PutExternalTable {
        /// Chosen by the caller; taken when the table is new.
        id: EntityId,
        /// The table.
        table: Arc<ExternalTable>,
        /// What to do when there is one of that name, or none.
        mode: PutMode,
    },
    /// Forgets an external table. Its files stay.
    DropExternalTable {
        /// Its name.
        name: TableName,
        /// Do nothing when there is no such table.
        if_exists: bool,
    },
    /// Says who may do what in the database.
    ChangePrincipals(PrincipalsChange),
    /// Says how long rows are kept.
    SetRetentionPolicy {
        /// The table; `None`: the database.
        table: Option<TableName>,
        /// The policy; `None`: there is none from now on.
        policy: Option<RetentionPolicy>,
    },
    /// Says which extents are merged.
    SetMergePolicy {
        /// The table; `None`: the database.
        table: Option<TableName>,
        /// The policy; `None`: there is none from now on.
        policy: Option<MergePolicy>,
    },
    /// Says how queued ingests are put together.
    SetIngestionBatchingPolicy {
        /// The table; `None`: the database.
        table: Option<TableName>,
        /// The policy; `None`: there is none from now on.
        policy: Option<IngestionBatchingPolicy>,
    },
    /// Says whether rows may be streamed in.
    SetStreamingIngestionPolicy {
        /// The table; `None`: the database.
        table: Option<TableName>,
        /// The policy; `None`: there is none from now on.
        policy: Option<StreamingIngestionPolicy>,
    },
    /// Refuses the transaction when a table has what it would bring. Changes nothing by itself.
    IngestOnce {
        /// The table; when there is none of that name, it has nothing.
        table: TableName,
        /// Tags that no extent of it may have.
        tags: Vec<String>,
        /// Ids that it may not remember.
        ids: Vec<IngestId>,
    },
    /// Remembers ingests that the same transaction brings.
    NoteIngests {
        /// The table, by id.
        table: TableId,
        /// The ingests.
        ingests: Vec<NotedIngest>,
    },
    /// Says which rows are shown to whom.
    SetRowLevelSecurity {
        /// The table.
        table: TableName,
        /// The policy; `None`: there is none from now on.
        policy: Option<RowLevelSecurity>,
    },
    /// Keeps everything that a version holds.
    PutPin {
        /// What it is called.
        name: PinName,
        /// The version. Whoever asks has made sure that it can still be read, and that nothing of
        /// it is deleted meanwhile.
        version: Version,
    },
    /// Lets go of a pinned version.
    DropPin {
        /// What it is called.
        name: PinName,
    },
    /// Changes the tags of extents. Their files and ids stay as they are.
    AlterExtentTags {
        /// The table.
        table: TableId,
        /// The extents; each must be there.
        extents: Vec<ExtentId>,
        /// The change.
        change: TagsChange,
    },
}

/// A change of an extent's tags. Making the same change twice is making it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagsChange {
    /// It has these, and no others.
    Set(BTreeSet<String>),
    /// It has these too.
    Add(BTreeSet<String>),
    /// It has none of these any more.
    Drop(BTreeSet<String>),
    /// It has none.
    Clear,
}

impl TagsChange {
    /// The tags after the change.
    pub fn of(&self, tags: &BTreeSet<String>) -> BTreeSet<String> {
        match self {
            Self::Set(all) => all.clone(),
            Self::Add(added) => tags | added,
            Self::Drop(dropped) => tags - dropped,
            Self::Clear => BTreeSet::new(),
        }
    }
}

/// A change of who may do what. Making the same change twice is making it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalsChange {
    /// They have the role from now on.
    Add(Vec<DatabasePrincipal>),
    /// They do not have it any more.
    Drop(DatabaseRole, Vec<PrincipalName>),
    /// They have it, and nobody else.
    Set(DatabaseRole, Vec<DatabasePrincipal>),
}

/// What putting something does when it is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// It must not be there.
    Create,
    /// It is left as it is when it is there.
    CreateIfNotExists,
    /// It becomes what is put, whether it was there or not.
    CreateOrAlter,
    /// It must be there.
    Alter,
}

/// Why an operation was refused. The state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The name is taken.
    #[error("table '{0}' exists already")]
    TableExists(TableName),
    /// No table of that name, or of that id when the name is not known.
    #[error("there is no table '{0}'")]
    TableNotFound(String),
    /// The table was dropped while rows for it were on their way.
    #[error("the table {0} that the rows were written for is not there any more")]
    TableDropped(TableId),
    /// The caller chose an id that is in use, or the nil UUID.
    #[error("the id {0} cannot be given to a new table: it is in use or reserved")]
    TableIdInUse(TableId),
    /// The table has such a column.
    #[error("table '{table}' has a column '{column}' already")]
    ColumnExists {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// The table is not as it was when the extents were written.
    #[error(
        "column '{column}' of table '{table}' is not what the rows were written with: {reason}. \
         Ingest them again"
    )]
    SchemaChanged {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// How they differ.
        reason: String,
    },
    /// The table has no such column.
    #[error("table '{table}' has no column '{column}'")]
    ColumnNotFound {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// An extent is in the table already.
    #[error("extent {extent} is in table '{table}' already")]
    ExtentExists {
        /// The table.
        table: TableName,
        /// The extent.
        extent: ExtentId,
    },
    /// An extent is not in the table, or not any more.
    #[error("there is no extent {extent} in table '{table}'")]
    ExtentNotFound {
        /// The table.
        table: TableName,
        /// The extent.
        extent: ExtentId,
    },
    /// Somebody has given an extent other tags.
    #[error("the tags of extent {extent} in table '{table}' have changed")]
    TagsChanged {
        /// The table.
        table: TableName,
        /// The extent.
        extent: ExtentId,
    },
    /// What is said of an extent contradicts itself or the table's columns.
    #[error("extent {extent} does not fit table '{table}': {reason}")]
    InvalidExtent {
        /// The table.
        table: TableName,
        /// The extent.
        extent: ExtentId,
        /// What does not fit.
        reason: String,
    },
    /// A table would have more streamed rows than it may. They are taken when some were moved into
    /// files, or as a file.
    #[error(
        "table '{0}' would have more than {extents} extents or {bytes} bytes of streamed rows that are \
         not in files yet",
        extents = INLINE_EXTENTS_MAX,
        bytes = INLINE_BYTES_MAX
    )]
    StreamedRowsFull(TableName),
    /// The one table does not have what the other's extents hold.
    #[error("extents of table '{from}' cannot be moved to table '{to}': {reason}")]
    NotMovable {
        /// The table that has the extents.
        from: TableName,
        /// The table that would get them.
        to: TableName,
        /// What does not fit.
        reason: String,
    },
    /// The table has extents of such a tag, and the ingest was to happen only if it has none.
    #[error("table '{table}' has extents with the tag '{tag}' already")]
    TagExists {
        /// The table.
        table: TableName,
        /// The tag.
        tag: String,
    },
    /// An ingest of that id was committed before.
    #[error("ingest '{id}' was committed to table '{table}' before, with version {version}")]
    IngestedBefore {
        /// The table.
        table: TableName,
        /// The id.
        id: IngestId,
        /// The version that committed it.
        version: Version,
    },
    /// The columns cannot be a table's.
    #[error(transparent)]
    InvalidSchema(#[from] InvalidSchema),
    /// A database would keep no rows at all (Data Explorer's *Retention policy*).
    #[error(
        "a soft-delete period of 0 empties tables: a database's retention policy cannot have it, \
         and a table's can"
    )]
    NothingRetained,
    /// One transaction must fit in one object that fits in one message.
    #[error("the transaction takes {bytes} bytes of records; at most {bytes_max} are allowed")]
    TransactionTooLarge {
        /// Bytes of its records.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The name is taken.
    #[error("database '{0}' exists already")]
    DatabaseExists(DatabaseName),
    /// No such database in this cluster.
    #[error("there is no database '{0}'")]
    DatabaseNotFound(String),
    /// The caller chose an id that is in use, or the nil UUID.
    #[error("the id {0} cannot be given to a new database: it is in use or reserved")]
    DatabaseIdInUse(DatabaseId),
    /// A followed database is not dropped from under its followers.
    #[error(
        "database '{database}' is followed by {}: detach it there first",
        followers.iter().map(ClusterName::as_str).collect::<Vec<_>>().join(", ")
    )]
    DatabaseFollowed {
        /// The database.
        database: DatabaseName,
        /// The clusters that follow it, each once, by name.
        followers: Vec<ClusterName>,
    },
    /// The follower cluster uses that configuration name for another database.
    #[error("cluster '{cluster}' has a configuration '{configuration}' for another database")]
    ConfigurationExists {
        /// The follower cluster.
        cluster: ClusterName,
        /// The name of its attached database configuration.
        configuration: String,
    },
    /// No such attachment.
    #[error("cluster '{cluster}' has no configuration '{configuration}' here")]
    ConfigurationNotFound {
        /// The follower cluster.
        cluster: ClusterName,
        /// The name of its attached database configuration.
        configuration: String,
    },
    /// No such invitation, or not any more.
    #[error("there is no invitation {0}")]
    InvitationNotFound(uuid::Uuid),
    /// The name is taken.
    #[error("{0} '{1}' exists already")]
    EntityExists(EntityKind, String),
    /// None of that name, or of that id when the name is not known.
    #[error("there is no {0} '{1}'")]
    EntityNotFound(EntityKind, String),
    /// The caller chose an id that is in use, or the nil UUID.
    #[error("the id {1} cannot be given to a new {0}: it is in use or reserved")]
    EntityIdInUse(EntityKind, EntityId),
    /// The external table cannot be kept.
    #[error(transparent)]
    InvalidExternalTable(#[from] InvalidExternalTable),
    /// Too many principals.
    #[error("a database has at most {DATABASE_PRINCIPALS_MAX} principals")]
    TooManyPrincipals,
    /// The pin's name is taken.
    #[error("version {1} is pinned as '{0}' already: unpin it first, or choose another name")]
    PinExists(PinName, Version),
    /// No such pin, or not any more.
    #[error("no version is pinned as '{0}'")]
    PinNotFound(PinName),
    /// Only what is there can be kept.
    #[error("version {wanted} cannot be pinned: there are versions 1 to {newest}")]
    NoSuchVersion {
        /// What was to be pinned.
        wanted: Version,
        /// The newest version.
        newest: Version,
    },
    /// Too many pins.
    #[error("a database has at most {PINS_MAX} pinned versions: unpin one first")]
    TooManyPins,
    /// Too many or too long tags.
    #[error(
        "an extent has at most {EXTENT_TAGS_MAX} tags of at most {EXTENT_TAG_BYTES_MAX} bytes each"
    )]
    TooManyTags,
    /// The function cannot be kept.
    #[error(transparent)]
    InvalidFunction(#[from] InvalidFunction),
    /// The record is not one of its subject.
    #[error("a record for a {0} stands in a section of something else")]
    WrongSubject(&'static str),
}
