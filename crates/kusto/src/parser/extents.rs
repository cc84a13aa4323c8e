//! Extents: which are shown, dropped, moved.

use std::time::Duration;

use uuid::Uuid;

use super::cursor::{Cursor, Parsed};
use super::{policy, show};
use crate::{
    Command, CreatedOnWindow, ExtentQuery, ExtentScope, ExtentSize, ExtentTrim, ExtentsToDrop,
    ExtentsToMove, Show, ShownExtents, TagFilter, TagOperator,
};

const TABLE: &str = "the name of a table";

/// `[(ids)] [hot] [where tags has 'x' and tags !contains 'y']`.
pub(super) fn shown(c: &mut Cursor<'_>, scope: ExtentScope) -> Parsed<ShownExtents> {
    let ids = if c.sees_sign('(') {
        c.list(extent_id)?
    } else {
        Vec::new()
    };
    let hot = c.word_opt("hot");
    let mut filters = Vec::new();
    if c.word_opt("where") {
        filters.push(tag_filter(c)?);
        while c.word_opt("and") {
            filters.push(tag_filter(c)?);
        }
    }
    Ok(ShownExtents {
        scope,
        ids,
        hot,
        filters,
    })
}

fn extent_id(c: &mut Cursor<'_>) -> Parsed<Uuid> {
    let text = c.name("the id of an extent")?;
    text.parse()
        .or_else(|_| c.refuse(format!("'{text}' is no extent's id")))
}

fn tag_filter(c: &mut Cursor<'_>) -> Parsed<TagFilter> {
    c.word("tags")?;
    let is_not = c.sign_opt('!');
    let op = if c.word_opt("has") {
        if is_not {
            TagOperator::HasNot
        } else {
            TagOperator::Has
        }
    } else {
        c.word("contains")?;
        if is_not {
            TagOperator::ContainsNot
        } else {
            TagOperator::Contains
        }
    };
    Ok(TagFilter {
        op,
        tag: c.text("a tag in quotes")?,
    })
}

/// `ID [from T]`.
pub(super) fn drop_one(c: &mut Cursor<'_>) -> Parsed<Command> {
    let ids = vec![extent_id(c)?];
    drop_ids(c, ids, false)
}

/// `.drop extents ...`, or, to know what that would do, `.drop-pretend extents ...`.
pub(super) fn drop(c: &mut Cursor<'_>, pretend: bool) -> Parsed<Command> {
    let mut what_if = c.word_opt("whatif") || pretend;
    what_if |= what_if_property(c)?;
    if c.sees_sign('(') {
        let ids = c.list(extent_id)?;
        return drop_ids(c, ids, what_if);
    }
    if c.sign_opt('<') {
        c.sign('|')?;
        let extents = ExtentsToDrop::Query(query(c)?);
        return Ok(Command::DropExtents { extents, what_if });
    }
    let older_than = if c.word_opt("older") {
        Some(age(c)?)
    } else {
        None
    };
    c.word("from")?;
    let tables = tables(c)?;
    let trim = if c.word_opt("trim") {
        Some(trim(c)?)
    } else {
        None
    };
    let limit = if c.word_opt("limit") {
        Some(c.number()?)
    } else {
        None
    };
    what_if |= what_if_property(c)?;
    Ok(Command::DropExtents {
        extents: ExtentsToDrop::Of {
            tables,
            older_than,
            trim,
            limit,
        },
        what_if,
    })
}

fn drop_ids(c: &mut Cursor<'_>, ids: Vec<Uuid>, mut what_if: bool) -> Parsed<Command> {
    let table = if c.word_opt("from") {
        Some(c.name(TABLE)?)
    } else {
        None
    };
    what_if |= what_if_property(c)?;
    let extents = ExtentsToDrop::Ids { ids, table };
    Ok(Command::DropExtents { extents, what_if })
}

/// `T`, `tables (T1, T2)` or, as no table at all, `all tables`.
fn tables(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    if c.word_opt("all") {
        c.word("tables")?;
        return Ok(Vec::new());
    }
    if c.word_opt("tables") {
        return c.names(TABLE);
    }
    Ok(vec![c.name(TABLE)?])
}

/// `10 days`, `6 hours`.
fn age(c: &mut Cursor<'_>) -> Parsed<Duration> {
    let count = c.number()?;
    let seconds = if c.word_opt("days") {
        86_400
    } else {
        c.word("hours")?;
        3_600
    };
    match count.checked_mul(seconds) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => c.refuse("no extent is as old as that"),
    }
}

/// `by extentsize|datasize 10 MB|GB|bytes`.
fn trim(c: &mut Cursor<'_>) -> Parsed<ExtentTrim> {
    c.word("by")?;
    let by = if c.word_opt("extentsize") {
        ExtentSize::Extent
    } else {
        c.word("datasize")?;
        ExtentSize::Data
    };
    let count = c.number()?;
    let unit: u64 = if c.word_opt("mb") {
        1 << 20
    } else if c.word_opt("gb") {
        1 << 30
    } else {
        c.word("bytes")?;
        1
    };
    let bytes = count.saturating_mul(unit);
    Ok(ExtentTrim { by, bytes })
}

/// `.gc database D [with (whatif=true)]`.
pub(super) fn collect_garbage(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.word("database")?;
    let database = c.name("the name of a database")?;
    let what_if = what_if_property(c)?;
    Ok(Command::CollectGarbage { database, what_if })
}

/// `with (whatif = true)`, or nothing.
fn what_if_property(c: &mut Cursor<'_>) -> Parsed<bool> {
    if !c.word_opt("with") {
        return Ok(false);
    }
    c.sign('(')?;
    c.word("whatif")?;
    c.sign('=')?;
    let what_if = c.flag()?;
    c.sign(')')?;
    Ok(what_if)
}

/// What `with (...)` says of extents that are moved, or get other tags.
#[derive(Default)]
pub(super) struct Properties {
    pub(super) window: CreatedOnWindow,
    pub(super) what_if: bool,
}

impl Properties {
    pub(super) fn read(&mut self, c: &mut Cursor<'_>) -> Parsed<()> {
        if !c.word_opt("with") {
            return Ok(());
        }
        c.sign('(')?;
        loop {
            self.read_one(c)?;
            if !c.sign_opt(',') {
                break;
            }
        }
        c.sign(')')
    }

    fn read_one(&mut self, c: &mut Cursor<'_>) -> Parsed<()> {
        if c.word_opt("extentCreatedOnFrom") {
            c.sign('=')?;
            self.window.from = Some(policy::moment(c)?);
        } else if c.word_opt("extentCreatedOnTo") {
            c.sign('=')?;
            self.window.to = Some(policy::moment(c)?);
        } else if c.word_opt("setNewIngestionTime") {
            c.sign('=')?;
            if c.flag()? {
                return c.refuse("an extent that is moved keeps its time");
            }
        } else {
            c.word("whatif")?;
            c.sign('=')?;
            self.what_if = c.flag()?;
        }
        Ok(())
    }
}

/// `.move extents all from table A to table B`, `.move extents from table A to table B (ids)`,
/// `.move extents (ids) from table A to table B`, `.move extents to table B <| query`.
pub(super) fn move_to(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.word("extents")?;
    let mut properties = Properties::default();
    if c.word_opt("to") {
        let to = to_table(c)?;
        properties.read(c)?;
        c.sign('<')?;
        c.sign('|')?;
        let extents = ExtentsToMove::Query(query(c)?);
        return Ok(moved(extents, to, &properties));
    }
    let is_all = c.word_opt("all");
    let mut ids = Vec::new();
    if !is_all && c.sees_sign('(') {
        ids = c.list(extent_id)?;
    }
    c.words(&["from", "table"])?;
    let table = c.name(TABLE)?;
    c.word("to")?;
    let to = to_table(c)?;
    properties.read(c)?;
    if is_all {
        return Ok(moved(ExtentsToMove::All { table }, to, &properties));
    }
    if ids.is_empty() {
        ids = c.list(extent_id)?;
        properties.read(c)?;
    }
    Ok(moved(ExtentsToMove::Ids { table, ids }, to, &properties))
}

fn to_table(c: &mut Cursor<'_>) -> Parsed<String> {
    c.word("table")?;
    c.name(TABLE)
}

fn moved(extents: ExtentsToMove, to: String, properties: &Properties) -> Command {
    Command::MoveExtents {
        extents,
        to,
        window: properties.window,
        what_if: properties.what_if,
    }
}

/// `.replace extents in table B [with (...)] <| {drop}, {move}`.
pub(super) fn replace(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.words(&["extents", "in", "table"])?;
    let table = c.name(TABLE)?;
    let mut properties = Properties::default();
    properties.read(c)?;
    c.sign('<')?;
    c.sign('|')?;
    let drop = braced_query(c)?;
    c.sign(',')?;
    let add = braced_query(c)?;
    Ok(Command::ReplaceExtents {
        table,
        drop,
        add,
        window: properties.window,
        what_if: properties.what_if,
    })
}

fn braced_query(c: &mut Cursor<'_>) -> Parsed<ExtentQuery> {
    let body = c.body()?;
    c.within(&body, query)
}

/// `.show ... extents ...`, or SQL.
pub(super) fn query(c: &mut Cursor<'_>) -> Parsed<ExtentQuery> {
    if !c.sign_opt('.') {
        return c.sql().map(ExtentQuery::Sql);
    }
    c.word("show")?;
    match show::show(c)? {
        Show::Extents(extents) => Ok(ExtentQuery::Show(extents)),
        _ => c.refuse("only '.show ... extents' gives extents"),
    }
}
