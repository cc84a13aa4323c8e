//! Tags of extents: `.alter`, `.alter-merge` and `.drop`.

use super::cursor::{Cursor, Parsed};
use super::extents::{Properties, query};
use crate::{Command, ExtentsToTag, TagsAction};

const TABLE: &str = "the name of a table";

/// `tags ('a', 'b') [with (...)] <| query`, behind `extent`.
pub(super) fn of_query(
    c: &mut Cursor<'_>,
    action: TagsAction,
    table: Option<String>,
) -> Parsed<Command> {
    c.word("tags")?;
    let tags = c.list(tag)?;
    let mut properties = Properties::default();
    properties.read(c)?;
    queried(c, action, table, tags, properties)
}

/// `from table T ('a', 'b')`, `('a', 'b') from table T`, `('a', 'b') <| query` or, to drop all
/// tags of some extents, `<| query`; behind `.drop extent tags`.
pub(super) fn drop(c: &mut Cursor<'_>) -> Parsed<Command> {
    let mut properties = Properties::default();
    if c.word_opt("from") {
        c.word("table")?;
        let table = c.name(TABLE)?;
        let tags = c.list(tag)?;
        properties.read(c)?;
        return Ok(dropped(ExtentsToTag::Table(table), tags, &properties));
    }
    let mut tags = Vec::new();
    if c.sees_sign('(') {
        tags = c.list(tag)?;
        if c.word_opt("from") {
            c.word("table")?;
            let table = c.name(TABLE)?;
            properties.read(c)?;
            return Ok(dropped(ExtentsToTag::Table(table), tags, &properties));
        }
    }
    properties.read(c)?;
    queried(c, TagsAction::Drop, None, tags, properties)
}

/// `tags ('a', 'b')`, `tags [('a', 'b')] <| query`, behind `.drop table T extent`.
pub(super) fn drop_of_table(c: &mut Cursor<'_>, table: String) -> Parsed<Command> {
    c.word("tags")?;
    let mut tags = Vec::new();
    if c.sees_sign('(') {
        tags = c.list(tag)?;
    }
    let mut properties = Properties::default();
    properties.read(c)?;
    if !tags.is_empty() && !c.sees_sign('<') {
        return Ok(dropped(ExtentsToTag::Table(table), tags, &properties));
    }
    queried(c, TagsAction::Drop, Some(table), tags, properties)
}

fn tag(c: &mut Cursor<'_>) -> Parsed<String> {
    c.text("a tag in quotes")
}

fn dropped(extents: ExtentsToTag, tags: Vec<String>, properties: &Properties) -> Command {
    Command::AlterExtentTags {
        extents,
        action: TagsAction::Drop,
        tags,
        window: properties.window,
        what_if: properties.what_if,
    }
}

fn queried(
    c: &mut Cursor<'_>,
    action: TagsAction,
    table: Option<String>,
    tags: Vec<String>,
    properties: Properties,
) -> Parsed<Command> {
    c.sign('<')?;
    c.sign('|')?;
    let query = query(c)?;
    Ok(Command::AlterExtentTags {
        extents: ExtentsToTag::Query { table, query },
        action,
        tags,
        window: properties.window,
        what_if: properties.what_if,
    })
}
