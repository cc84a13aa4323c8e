//! What a command says, once it is read.

use std::time::Duration;

use slipstream_model::{CachingPolicy, ClusterRole, DatabaseRole, OverrideChange, PrincipalName};

use crate::{
    ColumnType, CreatedOnWindow, ExtentQuery, ExtentsToDrop, ExtentsToMove, ExtentsToTag, Show,
    TagsAction,
};

/// One management command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `.show ...`
    Show(Show),
    /// `.alter|.delete|.add|.drop follower database D ...`
    Follower {
        /// The followed database, as it is called here.
        database: String,
        /// What is to change.
        change: OverrideChange,
    },
    /// The same about a caching policy, `with (whatif=true)`: says what would happen.
    WhatIf {
        /// The followed database, as it is called here.
        database: String,
        /// What would change.
        change: OverrideChange,
    },
    /// `.warm database D [table T]`: hot extents are fetched now.
    Warm {
        /// The followed database, as it is called here.
        database: String,
        /// One of its tables; `None`: all.
        table: Option<String>,
    },
    /// `.create database D [ifnotexists]`
    CreateDatabase {
        /// Its name.
        name: String,
        /// No error when it is there already.
        if_not_exists: bool,
    },
    /// `.drop database D [ifexists]`
    DropDatabase {
        /// Its name.
        name: String,
        /// No error when it is not there.
        if_exists: bool,
    },
    /// `.create table`, `.create-merge tables` and their like.
    PutTables {
        /// What happens to a table that is there already.
        mode: TablePutMode,
        /// The tables, at least one.
        tables: Vec<TableDefinition>,
    },
    /// `.drop table T`, `.drop tables (T1, T2)`
    DropTables {
        /// Their names, at least one.
        names: Vec<String>,
        /// No error when one is not there.
        if_exists: bool,
    },
    /// `.undo drop table T [as N] version=v`
    UndoDropTable {
        /// What it was called.
        table: String,
        /// What it is to be called; none: the same.
        new_name: Option<String>,
        /// The version that dropped it, or the last one that had it.
        version: u64,
    },
    /// `.pin database D version n as NAME`
    Pin {
        /// The database.
        database: String,
        /// The version.
        version: u64,
        /// What the pin is to be called.
        name: String,
    },
    /// `.unpin database D NAME`
    Unpin {
        /// The database.
        database: String,
        /// What the pin is called.
        name: String,
    },
    /// `.rename table T to N`
    RenameTable {
        /// The name it has.
        from: String,
        /// The name it is to have.
        to: String,
    },
    /// `.drop column T.C`, `.drop table T columns (C1, C2)`
    DropColumns {
        /// The table.
        table: String,
        /// The columns, at least one.
        columns: Vec<String>,
    },
    /// `.rename column T.C to N`
    RenameColumn {
        /// The table.
        table: String,
        /// The name the column has.
        from: String,
        /// The name it is to have.
        to: String,
    },
    /// `.drop extent ID`, `.drop extents ...`
    DropExtents {
        /// Which.
        extents: ExtentsToDrop,
        /// Only say which that would be.
        what_if: bool,
    },
    /// `.move extents ... to table T`
    MoveExtents {
        /// Which.
        extents: ExtentsToMove,
        /// The table that gets them.
        to: String,
        /// Of them, those of this time.
        window: CreatedOnWindow,
        /// Only say what would happen.
        what_if: bool,
    },
    /// `.replace extents in table T <| {drop}, {move}`
    ReplaceExtents {
        /// The table.
        table: String,
        /// The extents that it loses.
        drop: ExtentQuery,
        /// The extents of other tables that it gets.
        add: ExtentQuery,
        /// Of both, those of this time.
        window: CreatedOnWindow,
        /// Only say what would happen.
        what_if: bool,
    },
    /// `.alter extent tags`, `.alter-merge extent tags`, `.drop extent tags`
    AlterExtentTags {
        /// Whose.
        extents: ExtentsToTag,
        /// What happens to them.
        action: TagsAction,
        /// The tags; only for [`TagsAction::Drop`] there may be none: all of them.
        tags: Vec<String>,
        /// Of the extents, those of this time.
        window: CreatedOnWindow,
        /// Only say what would happen.
        what_if: bool,
    },
    /// `.gc database D`: files that nobody reads any more are deleted now.
    CollectGarbage {
        /// The database.
        database: String,
        /// Only say which files those are.
        what_if: bool,
    },
    /// `.create function` and its like.
    PutFunction(FunctionCommand),
    /// `.drop function F`, `.drop functions (F1, F2)`
    DropFunctions {
        /// Their names, at least one.
        names: Vec<String>,
        /// No error when one is not there.
        if_exists: bool,
    },
    /// `.create external table` and its like.
    PutExternalTable(ExternalTableDefinition),
    /// `.drop external table N`
    DropExternalTable {
        /// Its name.
        name: String,
        /// No error when it is not there.
        if_exists: bool,
    },
    /// `.alter ... policy caching ...`
    SetCachingPolicy {
        /// Whose.
        entity: PolicyEntity,
        /// The policy.
        policy: CachingPolicy,
    },
    /// `.delete ... policy caching`
    DeleteCachingPolicy {
        /// Whose.
        entity: PolicyEntity,
    },
    /// `.alter ... policy retention ...`, `.alter-merge ... policy retention ...`
    SetRetentionPolicy {
        /// Whose.
        entity: PolicyEntity,
        /// The policy.
        policy: RetentionPolicy,
        /// `.alter-merge`: what the policy does not say stays as it is.
        is_merge: bool,
    },
    /// `.delete ... policy retention`
    DeleteRetentionPolicy {
        /// Whose.
        entity: PolicyEntity,
    },
    /// `.alter ... policy merge ...`, `.alter-merge ... policy merge ...`
    SetMergePolicy {
        /// Whose.
        entity: PolicyEntity,
        /// The policy as JSON. It is read where it is known what it changes.
        policy: String,
        /// `.alter-merge`: what the policy does not say stays as it is.
        is_merge: bool,
    },
    /// `.delete ... policy merge`
    DeleteMergePolicy {
        /// Whose.
        entity: PolicyEntity,
    },
    /// `.alter ... policy ingestionbatching ...`, `.alter-merge ... policy ingestionbatching ...`
    SetIngestionBatchingPolicy {
        /// Whose.
        entity: PolicyEntity,
        /// The policy as JSON. It is read where it is known what it changes.
        policy: String,
        /// `.alter-merge`: what the policy does not say stays as it is.
        is_merge: bool,
    },
    /// `.delete ... policy ingestionbatching`
    DeleteIngestionBatchingPolicy {
        /// Whose.
        entity: PolicyEntity,
    },
    /// `.alter ... policy streamingingestion enable|disable`, or with JSON; `.alter-merge ...`
    SetStreamingIngestionPolicy {
        /// Whose.
        entity: PolicyEntity,
        /// The policy as JSON. It is read where it is known what it changes.
        policy: String,
        /// `.alter-merge`: what the policy does not say stays as it is.
        is_merge: bool,
    },
    /// `.delete ... policy streamingingestion`
    DeleteStreamingIngestionPolicy {
        /// Whose.
        entity: PolicyEntity,
    },
    /// `.alter table T policy row_level_security enable|disable "query"`
    SetRowLevelSecurity {
        /// The table.
        table: String,
        /// A policy that is there and off hides nothing.
        is_enabled: bool,
        /// The query.
        query: String,
    },
    /// `.delete table T policy row_level_security`
    DeleteRowLevelSecurity {
        /// The table.
        table: String,
    },
    /// `.add|.drop|.set database D viewers (...)`
    ChangeDatabasePrincipals {
        /// The database.
        database: String,
        /// The change.
        change: PrincipalsChange<DatabaseRole>,
    },
    /// `.add|.drop|.set cluster AllDatabasesViewer (...)`
    ChangeClusterPrincipals {
        /// The change.
        change: PrincipalsChange<ClusterRole>,
    },
}

/// What happens when the table that a command describes is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TablePutMode {
    /// Create it; leave one that is there as it is.
    Create,
    /// Create it, or add the columns that it lacks.
    CreateMerge,
    /// Give one that is there exactly these columns.
    Alter,
    /// Add the columns that it lacks to one that is there.
    AlterMerge,
}

/// A table, as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDefinition {
    /// Its name.
    pub name: String,
    /// Its columns, in order, at least one.
    pub columns: Vec<ColumnDefinition>,
    /// What it is for.
    pub docstring: Option<String>,
    /// Where a browser shows it.
    pub folder: Option<String>,
}

/// A column, as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub column_type: ColumnType,
    /// A string literal behind the type: what it is for.
    pub docstring: Option<String>,
}

/// What happens when the function that a command describes is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FunctionPutMode {
    /// Create it; one that is there is an error.
    Create,
    /// Create it; leave one that is there as it is.
    CreateIfNotExists,
    /// Create it, or replace one that is there.
    CreateOrAlter,
    /// Replace one that is there.
    Alter,
}

/// A stored function, as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCommand {
    /// What happens to one that is there already.
    pub mode: FunctionPutMode,
    /// Its name.
    pub name: String,
    /// What it takes, in order.
    pub parameters: Vec<FunctionParameterDefinition>,
    /// The text between the outer braces, without the white space around it.
    pub body: String,
    /// What it is for.
    pub docstring: Option<String>,
    /// Where a browser shows it.
    pub folder: Option<String>,
}

/// One parameter of a function, as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionParameterDefinition {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub column_type: ColumnType,
    /// The text of the literal that is taken when the caller gives nothing.
    pub default: Option<String>,
}

/// What happens when the external table that a command describes is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExternalTablePutMode {
    /// Create it; one that is there is an error.
    Create,
    /// Create it, or replace one that is there.
    CreateOrAlter,
    /// Replace one that is there.
    Alter,
}

/// A table over files elsewhere, as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTableDefinition {
    /// What happens to one that is there already.
    pub mode: ExternalTablePutMode,
    /// Its name.
    pub name: String,
    /// Its columns, in order, at least one.
    pub columns: Vec<ColumnDefinition>,
    /// How the files are to be read.
    pub format: ExternalFormat,
    /// Where the files are, at least one place. May hold a secret behind `;` or `?`.
    pub locations: Vec<String>,
    /// What it is for.
    pub docstring: Option<String>,
    /// Where a browser shows it.
    pub folder: Option<String>,
}

/// How the files of an external table are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExternalFormat {
    /// `dataformat=csv`
    Csv {
        /// The first line of each file names the columns.
        header: bool,
    },
    /// `dataformat=json` and `dataformat=multijson`
    Json,
    /// `dataformat=parquet`
    Parquet,
}

/// Whose policy a command changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyEntity {
    /// `database D`
    Database(String),
    /// `table T`, `tables (T1, T2)`: at least one.
    Tables(Vec<String>),
    /// `materialized-view V`, `materialized-views (V1, V2)`: at least one.
    MaterializedViews(Vec<String>),
}

/// How long data is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RetentionPolicy {
    /// Extents older than this may be dropped.
    pub soft_delete_period: Option<Duration>,
    /// Whether dropped extents can be brought back for a while.
    pub is_recoverable: Option<bool>,
}

/// What is to happen to the principals of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalsAction {
    /// They get the role.
    Add,
    /// They lose the role.
    Drop,
    /// They have the role, and nobody else.
    Set,
}

/// A change of who has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalsChange<Role> {
    /// What is to happen.
    pub action: PrincipalsAction,
    /// The role.
    pub role: Role,
    /// Who; empty only with [`PrincipalsAction::Set`], as `none` says it.
    pub principals: Vec<PrincipalName>,
    /// What whoever sent the command wrote about it.
    pub notes: Option<String>,
}
