//! `.alter`, `.alter-merge`, `.delete`, `.drop`, `.rename`.

use super::cursor::{Cursor, Parsed};
use super::{create, extents, follower, policy, principals, tags};
use crate::{Command, FunctionPutMode, PolicyEntity, PrincipalsAction, TablePutMode, TagsAction};

const DATABASE: &str = "the name of a database";
const TABLE: &str = "the name of a table";
const COLUMN: &str = "the name of a column";
const VIEW: &str = "the name of a materialized view";

/// `.alter ...`
pub(super) fn alter(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("follower") {
        return follower::alter(c);
    }
    if c.word_opt("function") {
        return create::function(c, FunctionPutMode::Alter);
    }
    if c.word_opt("external") {
        c.word("table")?;
        return create::external_table(c, crate::ExternalTablePutMode::Alter);
    }
    if c.word_opt("extent") {
        return tags::of_query(c, TagsAction::Set, None);
    }
    if c.word_opt("table") {
        let table = c.name(TABLE)?;
        if c.sees_sign('(') {
            return create::put_tables(c, TablePutMode::Alter, table);
        }
        c.sign_opt('(');
        if c.word_opt("extent") {
            return tags::of_query(c, TagsAction::Set, Some(table));
        }
        return policy::alter(c, PolicyEntity::Tables(vec![table]));
    }
    let entity = entity(c)?;
    policy::alter(c, entity)
}

/// `.alter-merge ...`
pub(super) fn alter_merge(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("extent") {
        return tags::of_query(c, TagsAction::Add, None);
    }
    if c.word_opt("table") {
        let table = c.name(TABLE)?;
        if c.sees_sign('(') {
            return create::put_tables(c, TablePutMode::AlterMerge, table);
        }
        c.sign_opt('(');
        if c.word_opt("extent") {
            return tags::of_query(c, TagsAction::Add, Some(table));
        }
        return policy::alter_merge(c, PolicyEntity::Tables(vec![table]));
    }
    let entity = entity(c)?;
    policy::alter_merge(c, entity)
}

/// `.delete ...`
pub(super) fn delete(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("follower") {
        return follower::delete(c);
    }
    if c.word_opt("table") {
        let table = c.name(TABLE)?;
        return policy::delete(c, PolicyEntity::Tables(vec![table]));
    }
    let entity = entity(c)?;
    policy::delete(c, entity)
}

/// What has policies, but for a single table.
fn entity(c: &mut Cursor<'_>) -> Parsed<PolicyEntity> {
    if c.word_opt("database") {
        return Ok(PolicyEntity::Database(c.name(DATABASE)?));
    }
    if c.word_opt("tables") {
        return Ok(PolicyEntity::Tables(c.names(TABLE)?));
    }
    if c.word_opt("materialized-view") {
        return Ok(PolicyEntity::MaterializedViews(vec![c.name(VIEW)?]));
    }
    c.word("materialized-views")?;
    Ok(PolicyEntity::MaterializedViews(c.names(VIEW)?))
}

/// `.drop ...`
pub(super) fn drop(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("follower") {
        return follower::drop(c);
    }
    if c.word_opt("database") {
        let name = c.name(DATABASE)?;
        if c.word_opt("ifexists") {
            let if_exists = true;
            return Ok(Command::DropDatabase { name, if_exists });
        }
        if c.peek().is_none() || c.sees_sign(';') {
            let if_exists = false;
            return Ok(Command::DropDatabase { name, if_exists });
        }
        return principals::of_database(c, name, PrincipalsAction::Drop);
    }
    if c.word_opt("cluster") {
        return principals::of_cluster(c, PrincipalsAction::Drop);
    }
    if c.word_opt("table") {
        let table = c.name(TABLE)?;
        if c.word_opt("columns") {
            let columns = c.names(COLUMN)?;
            return Ok(Command::DropColumns { table, columns });
        }
        if c.word_opt("extent") {
            return tags::drop_of_table(c, table);
        }
        let if_exists = c.word_opt("ifexists");
        let names = vec![table];
        return Ok(Command::DropTables { names, if_exists });
    }
    if c.word_opt("tables") {
        let names = c.names(TABLE)?;
        let if_exists = c.word_opt("ifexists");
        return Ok(Command::DropTables { names, if_exists });
    }
    if c.word_opt("column") {
        let (table, column) = column(c)?;
        let columns = vec![column];
        return Ok(Command::DropColumns { table, columns });
    }
    if c.word_opt("extent") {
        if c.word_opt("tags") {
            return tags::drop(c);
        }
        return extents::drop_one(c);
    }
    if c.word_opt("extents") {
        return extents::drop(c, false);
    }
    if c.word_opt("function") {
        let names = vec![c.name("the name of a function")?];
        let if_exists = c.word_opt("ifexists");
        return Ok(Command::DropFunctions { names, if_exists });
    }
    if c.word_opt("functions") {
        let names = c.names("the name of a function")?;
        let if_exists = c.word_opt("ifexists");
        return Ok(Command::DropFunctions { names, if_exists });
    }
    c.words(&["external", "table"])?;
    let name = c.name(TABLE)?;
    let if_exists = c.word_opt("ifexists");
    Ok(Command::DropExternalTable { name, if_exists })
}

/// `T.C`.
fn column(c: &mut Cursor<'_>) -> Parsed<(String, String)> {
    let table = c.name(TABLE)?;
    c.sign('.')?;
    Ok((table, c.name(COLUMN)?))
}

/// `.rename ...`
pub(super) fn rename(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("column") {
        let (table, from) = column(c)?;
        c.word("to")?;
        let to = c.name(COLUMN)?;
        return Ok(Command::RenameColumn { table, from, to });
    }
    c.word("table")?;
    let from = c.name(TABLE)?;
    c.word("to")?;
    let to = c.name(TABLE)?;
    Ok(Command::RenameTable { from, to })
}
