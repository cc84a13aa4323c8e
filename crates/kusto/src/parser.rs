//! From tokens to a command.

mod alter;
mod create;
mod cursor;
mod extents;
mod follower;
mod policy;
mod principals;
mod show;
mod tags;
mod versions;

use crate::lexer::{self, Kind};
use crate::{Command, SyntaxError};
use cursor::{Cursor, Parsed};

/// The longest text that is looked at: a function's body is far shorter.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Reads one command.
///
/// # Errors
/// When the text is none; the error says where, and what was expected there.
pub fn parse(text: &str) -> Result<Command, SyntaxError> {
    if text.len() > COMMAND_BYTES_MAX {
        let message = format!("a command has at most {COMMAND_BYTES_MAX} bytes");
        return Err(SyntaxError::new("", &[], 0..0, message));
    }
    let tokens =
        lexer::tokens(text).map_err(|(span, what)| SyntaxError::new(text, &[], span, what))?;
    let mut cursor = Cursor::new(text, &tokens);
    let parsed = command(&mut cursor).and_then(|command| {
        cursor.sign_opt(';');
        cursor.end()?;
        Ok(command)
    });
    parsed.map_err(|failed| cursor.explain(failed))
}

/// A command's text for logs: what is written `h'...'` is left out, and so is a text that cannot
/// even be cut into words.
pub fn without_secrets(text: &str) -> String {
    let Ok(tokens) = lexer::tokens(text) else {
        return "(a text that is no command)".to_owned();
    };
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for token in tokens.iter().filter(|token| token.is_secret) {
        clean.push_str(&text[from..token.span.start]);
        clean.push_str("h'***'");
        from = token.span.end;
    }
    // Behind what is read as a command stands SQL, which has no such texts; somebody may write one all the same.
    let end = tokens.last().map_or(0, |token| token.span.end).max(from);
    clean.push_str(&text[from..end]);
    let mut sql = &text[end..];
    while let Some(at) = sql.find(['\'', '"']) {
        let (before, quoted) = sql.split_at(at);
        let (quote, inner) = quoted.split_at(1);
        clean.push_str(secret_behind(before).unwrap_or(before));
        sql = match secret_behind(before) {
            Some(_) => {
                clean.push_str("h'***'");
                inner.split_once(quote).map_or("", |(_, rest)| rest)
            }
            None => {
                clean.push_str(quote);
                inner
            }
        };
    }
    clean.push_str(sql);
    clean
}

/// What stands before an `h` or `h@` that makes a secret of the text behind it, if one does.
fn secret_behind(text: &str) -> Option<&str> {
    let text = text.strip_suffix('@').unwrap_or(text);
    let before = text.strip_suffix(['h', 'H'])?;
    let is_word = |sign: char| sign.is_alphanumeric() || sign == '_';
    (!before.ends_with(is_word)).then_some(before)
}

fn command(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.sign('.')?;
    if c.word_opt("show") {
        return show::show(c).map(Command::Show);
    }
    if c.word_opt("create") {
        return create::create(c);
    }
    if c.word_opt("create-merge") {
        return create::create_merge(c);
    }
    if c.word_opt("create-or-alter") {
        return create::create_or_alter(c);
    }
    if c.word_opt("alter") {
        return alter::alter(c);
    }
    if c.word_opt("alter-merge") {
        return alter::alter_merge(c);
    }
    if c.word_opt("delete") {
        return alter::delete(c);
    }
    if c.word_opt("drop") {
        return alter::drop(c);
    }
    if c.word_opt("rename") {
        return alter::rename(c);
    }
    if c.word_opt("add") {
        return principals::add(c);
    }
    if c.word_opt("set") {
        return principals::set(c);
    }
    if c.word_opt("drop-pretend") {
        c.word("extents")?;
        return extents::drop(c, true);
    }
    if c.word_opt("move") {
        return extents::move_to(c);
    }
    if c.word_opt("replace") {
        return extents::replace(c);
    }
    if c.word_opt("gc") {
        return extents::collect_garbage(c);
    }
    if c.word_opt("undo") {
        return versions::undo(c);
    }
    if c.word_opt("pin") {
        return versions::pin(c);
    }
    if c.word_opt("unpin") {
        return versions::unpin(c);
    }
    if c.word_opt("warm") {
        return follower::warm(c);
    }
    c.fail()
}

/// A word that is no literal and no sign.
fn is_word(kind: &Kind, word: &str) -> bool {
    matches!(kind, Kind::Word(found) if found.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
