//! Tokens as a command.
//!
//! A descent without going back: each function reads what it is named after, and notes what it
//! would have taken where it does not find it. What is noted at the place that was reached is what
//! an error says was expected.

mod entities;
mod external;
mod follower;
mod functions;
mod policies;
mod principals;
mod report;
mod show;
mod tables;

use std::ops::Range;

use crate::lexer::{self, Token, TokenKind};
use crate::{Command, FunctionPutMode, PrincipalsAction, SyntaxError};

/// Longer texts are refused without a look at them.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Reads one command.
///
/// # Errors
/// When the text is not a command; the error says where, and what was expected there.
pub fn parse(text: &str) -> Result<Command, SyntaxError> {
    if text.len() > COMMAND_BYTES_MAX {
        let message = format!("a command has at most {COMMAND_BYTES_MAX} bytes");
        return Err(SyntaxError::new("", &[], 0..0, message));
    }
    let mut parser = Parser::new(text);
    parser
        .whole_command()
        .map_err(|failure| parser.report(failure))
}

/// Why reading stopped.
#[derive(Debug)]
enum Failure {
    /// What stands here is not what was expected.
    Unexpected,
    /// What stands here cannot be.
    Refused {
        span: Range<usize>,
        message: String,
    },
}

type Parsed<T> = Result<T, Failure>;

/// What would have been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A keyword.
    Word(&'static str),
    /// A character.
    Punctuation(char),
    /// Anything of a kind, such as "a name".
    Kind(&'static str),
}

#[derive(Debug)]
struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    /// What would have been taken at `at`.
    expected: Vec<Expected>,
}

#[derive(Clone, Copy)]
enum Verb {
    Show,
    Create,
    CreateMerge,
    CreateOrAlter,
    Alter,
    AlterMerge,
    Delete,
    Drop,
    Rename,
    Add,
    Set,
}

const VERBS: [(&str, Verb); 11] = [
    ("show", Verb::Show),
    ("create", Verb::Create),
    ("create-merge", Verb::CreateMerge),
    ("create-or-alter", Verb::CreateOrAlter),
    ("alter", Verb::Alter),
    ("alter-merge", Verb::AlterMerge),
    ("delete", Verb::Delete),
    ("drop", Verb::Drop),
    ("rename", Verb::Rename),
    ("add", Verb::Add),
    ("set", Verb::Set),
];

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            tokens: lexer::tokens(text),
            at: 0,
            expected: Vec::new(),
        }
    }

    fn whole_command(&mut self) -> Parsed<Command> {
        self.expect('.')?;
        let command = match self.one_of(&VERBS)? {
            Verb::Show => self.show().map(Command::Show),
            Verb::Create => self.create(),
            Verb::CreateMerge => self.create_merge(),
            Verb::CreateOrAlter => self.create_or_alter(),
            Verb::Alter => self.alter(),
            Verb::AlterMerge => self.alter_merge(),
            Verb::Delete => self.delete(),
            Verb::Drop => self.drop(),
            Verb::Rename => self.rename(),
            Verb::Add => self.principals(PrincipalsAction::Add),
            Verb::Set => self.principals(PrincipalsAction::Set),
        }?;
        self.accept(';');
        self.end()?;
        Ok(command)
    }

    // Tokens.

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn advance(&mut self) {
        self.at += 1;
        self.expected.clear();
    }

    fn source(&self, token: &Token) -> &'a str {
        self.text.get(token.span.clone()).unwrap_or_default()
    }

    /// Whether a word stands there; in any case.
    fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.token(ahead).is_some_and(|token| {
            token.kind == TokenKind::Word && self.source(token).eq_ignore_ascii_case(word)
        })
    }

    fn is_punctuation(&self, ahead: usize, c: char) -> bool {
        self.token(ahead)
            .is_some_and(|token| token.kind == TokenKind::Punctuation(c))
    }

    fn is_end(&self, ahead: usize) -> bool {
        self.token(ahead).is_none() || self.is_punctuation(ahead, ';')
    }

    /// Where the next token stands.
    fn here(&self) -> Range<usize> {
        match self.token(0) {
            Some(token) => token.span.clone(),
            None => {
                let end = self.last_end();
                end..end
            }
        }
    }

    /// Where the token that was taken last ends.
    fn last_end(&self) -> usize {
        self.at
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .map_or(0, |token| token.span.end)
    }

    // Failures.

    fn note(&mut self, expected: Expected) {
        if !self.expected.contains(&expected) {
            self.expected.push(expected);
        }
    }

    fn fail<T>(&mut self, expected: Expected) -> Parsed<T> {
        self.note(expected);
        Err(Failure::Unexpected)
    }

    fn refuse<T>(&self, span: Range<usize>, message: impl Into<String>) -> Parsed<T> {
        let message = message.into();
        Err(Failure::Refused { span, message })
    }

    fn end(&mut self) -> Parsed<()> {
        match self.token(0) {
            None => Ok(()),
            Some(_) => self.fail(Expected::Kind("the end of the command")),
        }
    }

    // Words and characters.

    /// Takes a word if it is there.
    fn word(&mut self, word: &'static str) -> bool {
        let is_there = self.is_word(0, word);
        if is_there {
            self.advance();
        } else {
            self.note(Expected::Word(word));
        }
        is_there
    }

    fn expect_word(&mut self, word: &'static str) -> Parsed<()> {
        if self.word(word) {
            Ok(())
        } else {
            Err(Failure::Unexpected)
        }
    }

    /// Takes one of some words if it is there.
    fn maybe_one_of<T: Copy>(&mut self, words: &[(&'static str, T)]) -> Option<T> {
        words
            .iter()
            .find_map(|(word, meaning)| self.word(word).then_some(*meaning))
    }

    fn one_of<T: Copy>(&mut self, words: &[(&'static str, T)]) -> Parsed<T> {
        self.maybe_one_of(words).ok_or(Failure::Unexpected)
    }

    /// Takes a character if it is there.
    fn accept(&mut self, c: char) -> bool {
        let is_there = self.is_punctuation(0, c);
        if is_there {
            self.advance();
        } else {
            self.note(Expected::Punctuation(c));
        }
        is_there
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.accept(c) {
            Ok(())
        } else {
            Err(Failure::Unexpected)
        }
    }

    // Names and literals.

    /// Bare, in brackets, or a string literal.
    fn name(&mut self) -> Parsed<String> {
        let name = self.token(0).and_then(|token| match &token.kind {
            TokenKind::Word => Some(self.source(token).to_owned()),
            TokenKind::Number => Some(self.source(token).to_owned()).filter(|text| {
                text.chars().all(lexer::is_name_char) && !text.bytes().all(|b| b.is_ascii_digit())
            }),
            TokenKind::Name(name) => Some(name.clone()),
            TokenKind::Text { value, .. } => Some(value.clone()),
            _ => None,
        });
        match name {
            Some(name) if name.starts_with('!') && self.is_bare() => {
                self.fail(Expected::Kind("a name"))
            }
            Some(name) if name.trim().is_empty() => self.refuse(self.here(), "a name is not empty"),
            Some(name) => {
                self.advance();
                Ok(name)
            }
            None => self.fail(Expected::Kind("a name")),
        }
    }

    fn is_bare(&self) -> bool {
        self.token(0)
            .is_some_and(|token| token.kind == TokenKind::Word)
    }

    /// `(item, item)`, at least one.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect('(')?;
        let mut items = vec![item(self)?];
        while self.accept(',') {
            items.push(item(self)?);
        }
        self.expect(')')?;
        Ok(items)
    }

    /// `(N1, N2)`
    fn names(&mut self) -> Parsed<Vec<String>> {
        self.list(Self::name)
    }

    fn is_text(&self) -> bool {
        self.token(0)
            .is_some_and(|token| matches!(token.kind, TokenKind::Text { .. }))
    }

    /// A string literal, and where it stands.
    fn text(&mut self) -> Parsed<(String, Range<usize>)> {
        let text = self.token(0).and_then(|token| match &token.kind {
            TokenKind::Text { value, .. } => Some((value.clone(), token.span.clone())),
            _ => None,
        });
        match text {
            Some(text) => {
                self.advance();
                Ok(text)
            }
            None => self.fail(Expected::Kind("a text in quotes")),
        }
    }

    /// A string literal if it is there.
    fn maybe_text(&mut self) -> Parsed<Option<String>> {
        if self.is_text() {
            self.text().map(|(text, _)| Some(text))
        } else {
            self.note(Expected::Kind("a text in quotes"));
            Ok(None)
        }
    }

    /// `true` or `false`, bare or in quotes.
    fn boolean(&mut self) -> Parsed<bool> {
        if self.is_text() {
            let (text, span) = self.text()?;
            return match text.to_ascii_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => self.refuse(span, "this is 'true' or 'false'"),
            };
        }
        self.one_of(&[("true", true), ("false", false)])
    }

    /// What stands between parentheses, as it stands there: `(2026-01-31 10:00)`.
    fn raw_in_parentheses(&mut self) -> Parsed<(&'a str, Range<usize>)> {
        self.expect('(')?;
        let start = self.here().start;
        while !self.is_punctuation(0, ')') {
            match self.token(0).map(|token| &token.kind) {
                None | Some(TokenKind::Fault(_)) => return self.fail(Expected::Punctuation(')')),
                Some(_) => self.advance(),
            }
        }
        let span = start..self.here().start;
        self.expect(')')?;
        Ok((self.text.get(span.clone()).unwrap_or_default(), span))
    }

    // What stands behind names.

    fn if_exists(&mut self) -> bool {
        self.word("ifexists")
    }

    fn drop(&mut self) -> Parsed<Command> {
        #[derive(Clone, Copy)]
        enum What {
            Database,
            Cluster,
            Follower,
            Table,
            Tables,
            Column,
            Function,
            Functions,
            External,
        }
        let what = self.one_of(&[
            ("database", What::Database),
            ("cluster", What::Cluster),
            ("follower", What::Follower),
            ("table", What::Table),
            ("tables", What::Tables),
            ("column", What::Column),
            ("function", What::Function),
            ("functions", What::Functions),
            ("external", What::External),
        ])?;
        match what {
            What::Database => self.drop_database(),
            What::Cluster => self.cluster_principals(PrincipalsAction::Drop),
            What::Follower => self.follower_principals(PrincipalsAction::Drop),
            What::Table => self.drop_table(),
            What::Tables => Ok(Command::DropTables {
                names: self.names()?,
                if_exists: self.if_exists(),
            }),
            What::Column => self.drop_column(),
            What::Function => Ok(Command::DropFunctions {
                names: vec![self.name()?],
                if_exists: self.if_exists(),
            }),
            What::Functions => Ok(Command::DropFunctions {
                names: self.names()?,
                if_exists: self.if_exists(),
            }),
            What::External => self.drop_external(),
        }
    }
}

/// Which of two forms a `.create function` has.
fn create_mode(if_not_exists: bool) -> FunctionPutMode {
    if if_not_exists {
        FunctionPutMode::CreateIfNotExists
    } else {
        FunctionPutMode::Create
    }
}

#[cfg(test)]
mod tests;
