//! `.undo`, `.pin`, `.unpin`: what is about versions of a database.

use super::cursor::{Cursor, Parsed};
use crate::Command;

const DATABASE: &str = "the name of a database";
const TABLE: &str = "the name of a table";
const PIN: &str = "the name of a pin";

/// `.undo drop table T [as N] version=v`.
pub(super) fn undo(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.words(&["drop", "table"])?;
    let table = c.name(TABLE)?;
    let new_name = if c.word_opt("as") {
        Some(c.name(TABLE)?)
    } else {
        None
    };
    c.word("version")?;
    c.sign('=')?;
    Ok(Command::UndoDropTable {
        table,
        new_name,
        version: version(c)?,
    })
}

/// `.pin database D version n as NAME`.
pub(super) fn pin(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.word("database")?;
    let database = c.name(DATABASE)?;
    c.word("version")?;
    let version = version(c)?;
    c.word("as")?;
    Ok(Command::Pin {
        database,
        version,
        name: c.name(PIN)?,
    })
}

/// `.unpin database D NAME`.
pub(super) fn unpin(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.word("database")?;
    Ok(Command::Unpin {
        database: c.name(DATABASE)?,
        name: c.name(PIN)?,
    })
}

/// `24`, or as databases show it: `v24.0`. The second number counts nothing.
fn version(c: &mut Cursor<'_>) -> Parsed<u64> {
    const WHAT: &str = "a version such as 24 or v24.0";
    let mut text = c.name(WHAT)?;
    if c.sign_opt('.') {
        text = format!("{text}.{}", c.number()?);
    }
    let digits = text.strip_prefix(['v', 'V']).unwrap_or(&text);
    let major = digits.strip_suffix(".0").unwrap_or(digits);
    major
        .parse()
        .or_else(|_| c.refuse(format!("'{text}' is no version such as 24 or v24.0")))
}
