//! What commands say of extents: which are meant, and what happens to them.

use std::time::Duration;

use slipstream_model::Timestamp;
use uuid::Uuid;

/// `cluster|database|table|tables extents [(ids)] [hot] [where tags ...]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownExtents {
    /// Of what.
    pub scope: ExtentScope,
    /// Which; none: all.
    pub ids: Vec<Uuid>,
    /// Only those of the hot set.
    pub hot: bool,
    /// Only those that pass all of these.
    pub filters: Vec<TagFilter>,
}

/// Of what to show extents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentScope {
    /// Of all databases.
    Cluster,
    /// Of a database; none: the one that the command was sent to.
    Database(Option<String>),
    /// Of tables, at least one.
    Tables(Vec<String>),
}

/// A condition about an extent's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    /// How tags are compared.
    pub op: TagOperator,
    /// With what.
    pub tag: String,
}

/// How an extent's tags are compared with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagOperator {
    /// `has`: one of them is it.
    Has,
    /// `contains`: it stands in one of them.
    Contains,
    /// `!has`
    HasNot,
    /// `!contains`
    ContainsNot,
}

/// What stands behind `<|`: extents, by a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentQuery {
    /// `.show ... extents ...`
    Show(ShownExtents),
    /// SQL whose rows have an extent's id each.
    Sql(String),
}

/// Which extents `.drop extents` drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentsToDrop {
    /// `(ids) [from T]`
    Ids {
        /// The extents, at least one.
        ids: Vec<Uuid>,
        /// The table that has them; none: any of the database.
        table: Option<String>,
    },
    /// `[older N days] from T [trim by extentsize N MB] [limit N]`
    Of {
        /// The tables; none: all of the database.
        tables: Vec<String>,
        /// Only those whose newest row is older.
        older_than: Option<Duration>,
        /// Only as many, the oldest first, as leave no more than this.
        trim: Option<ExtentTrim>,
        /// At most so many, the oldest.
        limit: Option<u64>,
    },
    /// `<| query`
    Query(ExtentQuery),
}

/// What may be left of some tables: `trim by ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtentTrim {
    /// What is counted.
    pub by: ExtentSize,
    /// How much of it is left at most, in bytes.
    pub bytes: u64,
}

/// A size of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentSize {
    /// `extentsize`: of its file.
    Extent,
    /// `datasize`: of its rows before they were encoded.
    Data,
}

/// Which extents `.move extents` moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentsToMove {
    /// `all from table T`
    All {
        /// The table that has them.
        table: String,
    },
    /// `from table T ... (ids)`
    Ids {
        /// The table that has them.
        table: String,
        /// The extents, at least one.
        ids: Vec<Uuid>,
    },
    /// `<| query`
    Query(ExtentQuery),
}

/// Which extents get other tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentsToTag {
    /// `from table T`: all of it.
    Table(String),
    /// `<| query`
    Query {
        /// `table T`: all of them must be in this one.
        table: Option<String>,
        /// The query.
        query: ExtentQuery,
    },
}

/// What happens to tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagsAction {
    /// `.alter`: extents have these, and no others.
    Set,
    /// `.alter-merge`: they have these too.
    Add,
    /// `.drop`: they have none of these any more.
    Drop,
}

/// `with (extentCreatedOnFrom=..., extentCreatedOnTo=...)`: extents of this time only, judged by
/// their newest row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CreatedOnWindow {
    /// Not older.
    pub from: Option<Timestamp>,
    /// Not newer.
    pub to: Option<Timestamp>,
}

impl CreatedOnWindow {
    /// Whether a moment lies in it.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to)
    }
}
