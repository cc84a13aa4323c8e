//! Who may do what: *Manage database security roles*.

use slipstream_model::{ClusterRole, DatabasePrincipal, DatabaseRole, PrincipalName};

use super::cursor::{Cursor, Parsed};
use super::follower;
use crate::{Command, PrincipalsAction, PrincipalsChange};

/// `.add ...`
pub(super) fn add(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("follower") {
        return follower::add(c);
    }
    change(c, PrincipalsAction::Add)
}

/// `.set ...`
pub(super) fn set(c: &mut Cursor<'_>) -> Parsed<Command> {
    change(c, PrincipalsAction::Set)
}

/// `database D viewers (...)`, `cluster AllDatabasesViewer (...)`.
fn change(c: &mut Cursor<'_>, action: PrincipalsAction) -> Parsed<Command> {
    if c.word_opt("cluster") {
        return of_cluster(c, action);
    }
    c.word("database")?;
    let database = c.name("the name of a database")?;
    of_database(c, database, action)
}

pub(super) fn of_database(
    c: &mut Cursor<'_>,
    database: String,
    action: PrincipalsAction,
) -> Parsed<Command> {
    let role = database_role(c, DatabaseRole::ALL)?;
    let (principals, notes) = principals(c, action)?;
    Ok(Command::ChangeDatabasePrincipals {
        database,
        change: PrincipalsChange {
            action,
            role,
            principals,
            notes,
        },
    })
}

pub(super) fn of_cluster(c: &mut Cursor<'_>, action: PrincipalsAction) -> Parsed<Command> {
    let mut found = None;
    for role in ClusterRole::ALL {
        if c.word_opt(&role.to_string()) || c.word_opt(role.plural()) {
            found = Some(*role);
            break;
        }
    }
    let Some(role) = found else { return c.fail() };
    let (principals, notes) = principals(c, action)?;
    Ok(Command::ChangeClusterPrincipals {
        change: PrincipalsChange {
            action,
            role,
            principals,
            notes,
        },
    })
}

pub(super) fn database_role(c: &mut Cursor<'_>, known: &[DatabaseRole]) -> Parsed<DatabaseRole> {
    for role in known {
        if c.word_opt(role.plural()) {
            return Ok(*role);
        }
    }
    c.fail()
}

/// `('aaduser=a', ...) [skip-results] ['notes']`, or, to set, `none`.
fn principals(
    c: &mut Cursor<'_>,
    action: PrincipalsAction,
) -> Parsed<(Vec<PrincipalName>, Option<String>)> {
    if action == PrincipalsAction::Set && c.word_opt("none") {
        c.word_opt("skip-results");
        return Ok((Vec::new(), None));
    }
    let principals = c.list(principal)?;
    c.word_opt("skip-results");
    Ok((principals, c.text_opt("notes in quotes")))
}

pub(super) fn principal(c: &mut Cursor<'_>) -> Parsed<PrincipalName> {
    let text = c.text("a principal such as 'aaduser=ada@example.org'")?;
    text.parse()
        .or_else(|error: slipstream_model::InvalidPrincipal| c.refuse(error.to_string()))
}

/// The same principals with a role.
pub(super) fn with_role(
    role: DatabaseRole,
    principals: Vec<PrincipalName>,
    notes: Option<&String>,
) -> Vec<DatabasePrincipal> {
    let principals = principals.into_iter();
    principals
        .map(|principal| DatabasePrincipal {
            role,
            principal,
            notes: notes.cloned(),
        })
        .collect()
}
