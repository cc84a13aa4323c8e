//! A follower's own settings: *Follower cluster commands*.

use slipstream_model::{DatabaseRole, EntityKind, EntityName, OverrideChange, PrincipalName};

use super::cursor::{Cursor, Parsed};
use super::policy;
use super::principals::{database_role, principal, with_role};
use crate::Command;

/// The roles that a follower can give: the others make no sense where nothing is written.
const ROLES: [DatabaseRole; 4] = [
    DatabaseRole::Admin,
    DatabaseRole::User,
    DatabaseRole::Viewer,
    DatabaseRole::Monitor,
];

fn database(c: &mut Cursor<'_>) -> Parsed<String> {
    c.word("database")?;
    c.name("the name of a followed database")
}

fn changed(database: String, change: OverrideChange) -> Parsed<Command> {
    Ok(Command::Follower { database, change })
}

/// `.alter follower ...`
pub(super) fn alter(c: &mut Cursor<'_>) -> Parsed<Command> {
    let database = database(c)?;
    if c.word_opt("principals-modification-kind") {
        c.sign('=')?;
        let kind = kind(c)?;
        return changed(database, OverrideChange::SetPrincipalsKind(kind));
    }
    if c.word_opt("caching-policies-modification-kind") {
        c.sign('=')?;
        let kind = kind(c)?;
        return changed(database, OverrideChange::SetCachingKind(kind));
    }
    if c.word_opt("prefetch-extents") {
        c.sign('=')?;
        let prefetch = c.flag()?;
        return changed(database, OverrideChange::SetPrefetch(prefetch));
    }
    let entities = entities(c)?;
    c.words(&["policy", "caching"])?;
    let policy = policy::caching(c)?;
    caching(c, database, OverrideChange::SetCaching { entities, policy })
}

/// A change of a caching policy, or, `with (whatif=true)`, what it would do.
fn caching(c: &mut Cursor<'_>, database: String, change: OverrideChange) -> Parsed<Command> {
    let mut is_asked = false;
    if c.word_opt("with") {
        c.sign('(')?;
        c.word("whatif")?;
        c.sign('=')?;
        is_asked = c.flag()?;
        c.sign(')')?;
    }
    if is_asked {
        return Ok(Command::WhatIf { database, change });
    }
    changed(database, change)
}

/// `.warm ...`
pub(super) fn warm(c: &mut Cursor<'_>) -> Parsed<Command> {
    let database = database(c)?;
    let table = if c.word_opt("table") {
        Some(c.name("the name of a table")?)
    } else {
        None
    };
    Ok(Command::Warm { database, table })
}

/// `none`, `union` or `replace`.
fn kind<K: std::str::FromStr>(c: &mut Cursor<'_>) -> Parsed<K> {
    for word in ["none", "union", "replace"] {
        if c.word_opt(word) {
            return word.parse().or_else(|_| c.fail());
        }
    }
    c.fail()
}

/// `table T`, `tables (...)`, `materialized-view V`, `materialized-views (...)`, or nothing: the
/// database.
fn entities(c: &mut Cursor<'_>) -> Parsed<Vec<EntityName>> {
    let named = |kind: EntityKind, names: Vec<String>| {
        let names = names.into_iter();
        names.map(|name| EntityName { kind, name }).collect()
    };
    if c.word_opt("table") {
        return Ok(named(
            EntityKind::Table,
            vec![c.name("the name of a table")?],
        ));
    }
    if c.word_opt("tables") {
        return Ok(named(EntityKind::Table, c.names("the name of a table")?));
    }
    if c.word_opt("materialized-view") {
        let name = c.name("the name of a materialized view")?;
        return Ok(named(EntityKind::MaterializedView, vec![name]));
    }
    if c.word_opt("materialized-views") {
        let names = c.names("the name of a materialized view")?;
        return Ok(named(EntityKind::MaterializedView, names));
    }
    Ok(Vec::new())
}

/// `.delete follower ...`
pub(super) fn delete(c: &mut Cursor<'_>) -> Parsed<Command> {
    let database = database(c)?;
    let entities = entities(c)?;
    c.words(&["policy", "caching"])?;
    caching(c, database, OverrideChange::DeleteCaching { entities })
}

/// `.add follower ...`
pub(super) fn add(c: &mut Cursor<'_>) -> Parsed<Command> {
    let database = database(c)?;
    let (role, principals, notes) = role_and_principals(c)?;
    let principals = with_role(role, principals, notes.as_ref());
    changed(database, OverrideChange::AddPrincipals(principals))
}

/// `.drop follower ...`
pub(super) fn drop(c: &mut Cursor<'_>) -> Parsed<Command> {
    let database = database(c)?;
    let (role, principals, _) = role_and_principals(c)?;
    changed(
        database,
        OverrideChange::DropPrincipals { role, principals },
    )
}

type RoleAndPrincipals = (DatabaseRole, Vec<PrincipalName>, Option<String>);

fn role_and_principals(c: &mut Cursor<'_>) -> Parsed<RoleAndPrincipals> {
    let role = database_role(c, &ROLES)?;
    // The documented syntax has the word, its examples do not.
    if !c.sees_sign('(') {
        c.word_opt("role");
    }
    let principals = c.list(principal)?;
    Ok((role, principals, c.text_opt("notes in quotes")))
}
