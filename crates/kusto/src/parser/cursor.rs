//! A place among tokens that remembers what was expected at the furthest place it came to.

use std::ops::Range;
use std::time::Duration;

use super::is_word;
use crate::lexer::{self, Kind, Token};
use crate::{SyntaxError, parse_timespan};

/// Expectations that an error lists; more would not help.
const LISTED_MAX: usize = 8;
/// How alike two words are that one may have been meant for the other.
const ALIKE: f64 = 0.8;
/// Bytes of a word that may be a misspelt one. Comparing takes time and memory by its length, once
/// for each word that is expected.
const MISSPELT_BYTES_MAX: usize = 64;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Failed {
    /// Something else was expected at the furthest place.
    Expected,
    /// What stands there makes no sense.
    At(Range<usize>, String),
}

pub(super) type Parsed<T> = Result<T, Failed>;

/// See the module.
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    furthest: usize,
    expected: Vec<String>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self {
            text,
            tokens,
            at: 0,
            furthest: 0,
            expected: Vec::new(),
        }
    }

    pub(super) fn peek(&self) -> Option<&'a Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// Where the token before this place stands.
    pub(super) fn last_span(&self) -> Range<usize> {
        let last = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        last.map_or(0..0, |token| token.span.clone())
    }

    fn expect(&mut self, what: String) {
        if self.at > self.furthest {
            self.furthest = self.at;
            self.expected.clear();
        }
        if self.at == self.furthest && !self.expected.contains(&what) {
            self.expected.push(what);
        }
    }

    pub(super) fn fail<T>(&self) -> Parsed<T> {
        Err(Failed::Expected)
    }

    /// Refuses the token that was just read.
    pub(super) fn refuse<T>(&self, why: impl Into<String>) -> Parsed<T> {
        Err(Failed::At(self.last_span(), why.into()))
    }

    fn take(&mut self, what: &str, fits: impl Fn(&Kind) -> bool) -> bool {
        if self.peek().is_some_and(fits) {
            self.at += 1;
            return true;
        }
        self.expect(what.to_owned());
        false
    }

    pub(super) fn word_opt(&mut self, word: &str) -> bool {
        self.take(&format!("'{word}'"), |kind| is_word(kind, word))
    }

    /// Whether a word follows; it is not taken, and not expected when it does not.
    pub(super) fn sees(&self, word: &str) -> bool {
        self.peek().is_some_and(|kind| is_word(kind, word))
    }

    pub(super) fn word(&mut self, word: &str) -> Parsed<()> {
        if self.word_opt(word) {
            Ok(())
        } else {
            self.fail()
        }
    }

    pub(super) fn words(&mut self, words: &[&str]) -> Parsed<()> {
        words.iter().try_for_each(|word| self.word(word))
    }

    pub(super) fn sign_opt(&mut self, sign: char) -> bool {
        self.take(&format!("'{sign}'"), |kind| *kind == Kind::Sign(sign))
    }

    pub(super) fn sign(&mut self, sign: char) -> Parsed<()> {
        if self.sign_opt(sign) {
            Ok(())
        } else {
            self.fail()
        }
    }

    pub(super) fn sees_sign(&self, sign: char) -> bool {
        self.peek() == Some(&Kind::Sign(sign))
    }

    pub(super) fn range(&mut self) -> Parsed<()> {
        if self.take("'..'", |kind| *kind == Kind::Range) {
            return Ok(());
        }
        // `datetime(a).. datetime(b)` and `a . . b` are the same to people.
        self.fail()
    }

    pub(super) fn end(&mut self) -> Parsed<()> {
        if self.at == self.tokens.len() {
            return Ok(());
        }
        self.expect("the end of the command".to_owned());
        self.fail()
    }

    /// A name: bare, in brackets, or a text.
    pub(super) fn name(&mut self, what: &str) -> Parsed<String> {
        match self.name_opt(what) {
            Some(name) => Ok(name),
            None => self.fail(),
        }
    }

    pub(super) fn name_opt(&mut self, what: &str) -> Option<String> {
        let name = match self.peek() {
            Some(Kind::Word(name) | Kind::Name(name) | Kind::Text(name) | Kind::Literal(name)) => {
                name.clone()
            }
            _ => {
                self.expect(what.to_owned());
                return None;
            }
        };
        self.at += 1;
        Some(name)
    }

    /// A string literal.
    pub(super) fn text(&mut self, what: &str) -> Parsed<String> {
        match self.text_opt(what) {
            Some(text) => Ok(text),
            None => self.fail(),
        }
    }

    pub(super) fn text_opt(&mut self, what: &str) -> Option<String> {
        if let Some(Kind::Text(text)) = self.peek() {
            self.at += 1;
            return Some(text.clone());
        }
        self.expect(what.to_owned());
        None
    }

    /// `{ ... }`.
    pub(super) fn body(&mut self) -> Parsed<String> {
        if let Some(Kind::Body(body)) = self.peek() {
            self.at += 1;
            return Ok(body.clone());
        }
        self.expect("a body in braces".to_owned());
        self.fail()
    }

    /// Reads the text of the body that was just taken. What is wrong with it is told by its place
    /// in the whole.
    pub(super) fn within<T>(
        &self,
        body: &str,
        read: impl FnOnce(&mut Cursor<'_>) -> Parsed<T>,
    ) -> Parsed<T> {
        let span = self.last_span();
        let taken = self.text.get(span.clone()).unwrap_or_default();
        let start = span.start + taken.find(body).unwrap_or(0);
        let place = |span: Range<usize>| start + span.start..start + span.end;
        let tokens = lexer::tokens(body).map_err(|(span, what)| Failed::At(place(span), what))?;
        let mut inner = Cursor::new(body, &tokens);
        let parsed = read(&mut inner).and_then(|parsed| {
            inner.end()?;
            Ok(parsed)
        });
        parsed.map_err(|failed| {
            let (span, what) = match failed {
                Failed::At(span, what) => (span, what),
                Failed::Expected => inner.unexpected(),
            };
            Failed::At(place(span), what)
        })
    }

    /// All that is left, as it stands: SQL.
    pub(super) fn sql(&mut self) -> Parsed<String> {
        let begins = |kind: &Kind| is_word(kind, "select") || is_word(kind, "with");
        let token = self.tokens.get(self.at);
        let Some(token) = token.filter(|token| begins(&token.kind)) else {
            self.expect("a query: '.show ... extents', or SQL".to_owned());
            return self.fail();
        };
        let left = self.text.get(token.span.start..).unwrap_or_default();
        self.at = self.tokens.len();
        Ok(left.trim_end().trim_end_matches(';').trim_end().to_owned())
    }

    /// A whole number.
    pub(super) fn number(&mut self) -> Parsed<u64> {
        let text = match self.peek() {
            Some(Kind::Literal(text)) => text.clone(),
            _ => {
                self.expect("a whole number".to_owned());
                return self.fail();
            }
        };
        self.at += 1;
        text.parse()
            .or_else(|_| self.refuse(format!("'{text}' is no whole number")))
    }

    /// `(item, item)`, at least one.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        self.sign('(')?;
        let mut items = vec![item(self)?];
        while self.sign_opt(',') {
            items.push(item(self)?);
        }
        self.sign(')')?;
        Ok(items)
    }

    pub(super) fn names(&mut self, what: &str) -> Parsed<Vec<String>> {
        self.list(|c| c.name(what))
    }

    /// `(A, B)`, or nothing.
    pub(super) fn names_opt(&mut self, what: &str) -> Parsed<Vec<String>> {
        if self.sees_sign('(') {
            self.names(what)
        } else {
            Ok(Vec::new())
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self) -> Parsed<bool> {
        if self.word_opt("true") {
            return Ok(true);
        }
        self.word("false")?;
        Ok(false)
    }

    /// `3d`, `timespan(3.00:00:00)`, `'3.00:00:00'`.
    pub(super) fn timespan(&mut self) -> Parsed<Duration> {
        let text = match self.peek() {
            Some(Kind::Literal(text) | Kind::Text(text)) => text.clone(),
            Some(Kind::Call(word, text)) if !word.to_ascii_lowercase().starts_with("date") => {
                text.clone()
            }
            _ => {
                self.expect("a timespan such as 7d".to_owned());
                return self.fail();
            }
        };
        self.at += 1;
        match parse_timespan(&text) {
            Some(span) => Ok(span),
            None => self.refuse(format!("'{text}' is no timespan such as 7d or 3.00:00:00")),
        }
    }

    /// The text of any literal, as it stands.
    pub(super) fn literal(&mut self) -> Parsed<String> {
        let is_negative = self.sign_opt('-');
        let text = match self.peek() {
            Some(Kind::Literal(text) | Kind::Text(text) | Kind::Word(text)) => text.clone(),
            Some(Kind::Call(_, text)) => text.clone(),
            _ => {
                self.expect("a literal".to_owned());
                return self.fail();
            }
        };
        self.at += 1;
        Ok(if is_negative {
            format!("-{text}")
        } else {
            text
        })
    }

    /// `datetime(...)`: what stands in the parentheses.
    pub(super) fn datetime(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Kind::Call(word, inner)) if word.to_ascii_lowercase().starts_with("date") => {
                self.at += 1;
                Ok(inner.clone())
            }
            _ => {
                self.expect("datetime(...)".to_owned());
                self.fail()
            }
        }
    }

    /// Leaves out everything up to the parenthesis that closes this one.
    pub(super) fn skip_parentheses(&mut self) -> Parsed<()> {
        self.sign('(')?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Some(Kind::Sign('(')) => depth += 1,
                Some(Kind::Sign(')')) => depth -= 1,
                Some(_) => {}
                None => {
                    self.expect("')'".to_owned());
                    return self.fail();
                }
            }
            self.at += 1;
        }
        Ok(())
    }

    /// The error for people.
    pub(super) fn explain(&self, failed: Failed) -> SyntaxError {
        let secrets: Vec<_> = self
            .tokens
            .iter()
            .filter(|token| token.is_secret)
            .map(|token| token.span.clone())
            .collect();
        let (span, message) = match failed {
            Failed::At(span, message) => (span, message),
            Failed::Expected => self.unexpected(),
        };
        SyntaxError::new(self.text, &secrets, span, message)
    }

    fn unexpected(&self) -> (Range<usize>, String) {
        let expected = self.listed();
        let Some(token) = self.tokens.get(self.furthest) else {
            let end = self.text.trim_end().len();
            return (
                end..end,
                format!("the command ends where {expected} is expected"),
            );
        };
        if let Kind::Word(found) = &token.kind
            && let Some(meant) = self.meant(found)
        {
            let message = format!("unknown word '{found}': did you mean {meant}?");
            return (token.span.clone(), message);
        }
        (token.span.clone(), format!("{expected} is expected here"))
    }

    /// The expected word that a misspelt one is most like.
    fn meant(&self, found: &str) -> Option<&str> {
        if found.len() > MISSPELT_BYTES_MAX {
            return None;
        }
        let found = found.to_lowercase();
        let likeness = |expected: &&str| {
            let word = expected.trim_matches('\'');
            strsim::damerau_levenshtein(&found, word) <= 1
                || strsim::jaro_winkler(&found, word) >= ALIKE
        };
        let words = self.expected.iter().map(String::as_str);
        let words = words.filter(|expected| expected.starts_with('\'') && expected.len() > 3);
        words.filter(likeness).max_by(|a, b| {
            let score = |word: &str| strsim::jaro_winkler(&found, word.trim_matches('\''));
            score(a).total_cmp(&score(b))
        })
    }

    fn listed(&self) -> String {
        let listed = &self.expected[..self.expected.len().min(LISTED_MAX)];
        match listed {
            [] => "something else".to_owned(),
            [one] => one.clone(),
            [first @ .., last] => {
                let more = if self.expected.len() > LISTED_MAX {
                    " or another word"
                } else {
                    ""
                };
                format!("{} or {last}{more}", first.join(", "))
            }
        }
    }
}
