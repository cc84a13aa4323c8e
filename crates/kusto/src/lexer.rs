//! From text to tokens, each with its place.

use std::ops::Range;

use winnow::ascii::{multispace1, till_line_ending};
use winnow::combinator::{alt, fail, opt, preceded, repeat};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, one_of, take_until, take_while};

/// How deep braces may nest in the text of a function.
const BRACES_MAX: usize = 100;

/// A piece of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word, which may hold hyphens: `create-or-alter`, `Trips`.
    Word(String),
    /// A name in brackets: `['my table']`.
    Name(String),
    /// A string literal.
    Text(String),
    /// What begins with a digit: `7d`, `3.00:00:00`, `42`.
    Literal(String),
    /// `datetime(...)`, `timespan(...)`: the word, and what stands in the parentheses.
    Call(String, String),
    /// `{ ... }`: what stands in the braces.
    Body(String),
    /// Between two moments: `..`.
    Range,
    /// Any other sign.
    Sign(char),
}

/// A piece, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Range<usize>,
    /// Written `h'...'`: not for logs and errors.
    pub(crate) is_secret: bool,
}

type Input<'a> = LocatingSlice<&'a str>;
type Lexed<T> = Result<T, ErrMode<ContextError>>;

/// The tokens of a text, or the place where it cannot be read any further, and why.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, (Range<usize>, String)> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        // White space and comments are never an error.
        let _ = blank(&mut input);
        let start = input.current_token_start();
        if start == text.len() {
            return Ok(tokens);
        }
        match token(&mut input) {
            Ok((kind, is_secret)) => {
                tokens.push(Token {
                    kind,
                    span: start..input.current_token_start(),
                    is_secret,
                });
                if begins_sql(&tokens) {
                    return Ok(tokens);
                }
            }
            Err(_) => return Err(explain(text, start)),
        }
    }
}

/// Whether the last word begins a query, behind `<|` or alone in braces. What follows is SQL, which has other
/// signs and texts.
fn begins_sql(tokens: &[Token]) -> bool {
    let [before @ .., last] = tokens else {
        return false;
    };
    let signs = [Kind::Sign('<'), Kind::Sign('|')];
    matches!(&last.kind, Kind::Word(word)
        if word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with"))
        && (before.is_empty()
            || before.len() >= 2
                && before[before.len() - 2..]
                    .iter()
                    .map(|token| &token.kind)
                    .eq(&signs))
}

fn explain(text: &str, start: usize) -> (Range<usize>, String) {
    let rest = text.get(start..).unwrap_or_default();
    let first = rest.chars().next().unwrap_or(' ');
    let end = start + first.len_utf8();
    let message = match first {
        '\'' | '"' | '`' | '~' | '@' | 'h' | 'H' => "the text that begins here does not end",
        '{' => "the body that begins here does not end, or nests too deep",
        '[' => "a name in brackets is written ['name']",
        _ => "this cannot be read here",
    };
    (start..end, message.to_owned())
}

fn blank(input: &mut Input<'_>) -> Lexed<()> {
    let comment = ("//", till_line_ending).void();
    repeat(0.., alt((multispace1.void(), comment))).parse_next(input)
}

fn token(input: &mut Input<'_>) -> Lexed<(Kind, bool)> {
    alt((
        secret.map(|text| (Kind::Text(text), true)),
        text.map(|text| (Kind::Text(text), false)),
        name.map(|name| (Kind::Name(name), false)),
        call.map(|(word, inner)| (Kind::Call(word, inner), false)),
        word.map(|word| (Kind::Word(word), false)),
        literal.map(|literal| (Kind::Literal(literal), false)),
        body.map(|body| (Kind::Body(body), false)),
        "..".map(|_| (Kind::Range, false)),
        sign.map(|sign| (Kind::Sign(sign), false)),
    ))
    .parse_next(input)
}

fn sign(input: &mut Input<'_>) -> Lexed<char> {
    any.verify(|sign: &char| !matches!(sign, '\'' | '"' | '{' | '[' | '@' | '`' | '~'))
        .parse_next(input)
}

/// A string literal in any of Kusto's forms (*The string data type*).
fn text(input: &mut Input<'_>) -> Lexed<String> {
    alt((
        preceded('@', alt((verbatim('\''), verbatim('"')))),
        escaped('\''),
        escaped('"'),
        multiline("```"),
        multiline("~~~"),
    ))
    .parse_next(input)
}

fn secret(input: &mut Input<'_>) -> Lexed<String> {
    preceded(one_of(['h', 'H']), text).parse_next(input)
}

fn multiline<'a>(fence: &'static str) -> impl Parser<Input<'a>, String, ErrMode<ContextError>> {
    (fence, take_until(0.., fence), fence).map(|(_, text, _): (_, &str, _)| text.to_owned())
}

/// Quotes are doubled, and nothing else means anything.
fn verbatim<'a>(quote: char) -> impl Parser<Input<'a>, String, ErrMode<ContextError>> {
    move |input: &mut Input<'a>| {
        one_of(quote).parse_next(input)?;
        let mut text = String::new();
        loop {
            let part: &str = take_while(0.., move |c| c != quote).parse_next(input)?;
            text.push_str(part);
            one_of(quote).parse_next(input)?;
            if opt(one_of(quote)).parse_next(input)?.is_none() {
                return Ok(text);
            }
            text.push(quote);
        }
    }
}

/// With backslashes, on one line.
fn escaped<'a>(quote: char) -> impl Parser<Input<'a>, String, ErrMode<ContextError>> {
    move |input: &mut Input<'a>| {
        one_of(quote).parse_next(input)?;
        let mut text = String::new();
        loop {
            match any.parse_next(input)? {
                '\\' => {
                    let escaped = any.parse_next(input)?;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '0' => '\0',
                        other => other,
                    });
                }
                '\n' | '\r' => return fail.parse_next(input),
                end if end == quote => return Ok(text),
                other => text.push(other),
            }
        }
    }
}

fn name(input: &mut Input<'_>) -> Lexed<String> {
    let space = || take_while(0.., [' ', '\t']);
    (
        '[',
        space(),
        alt((escaped('\''), escaped('"'))),
        space(),
        ']',
    )
        .map(|(_, _, name, _, _)| name)
        .parse_next(input)
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// A hyphen belongs to the word when a letter or digit follows it.
fn hyphenated<'a>(input: &mut Input<'a>, more: fn(char) -> bool) -> Lexed<String> {
    let mut word = String::new();
    loop {
        let part: &str = take_while(1.., more).parse_next(input)?;
        word.push_str(part);
        let hyphen = opt(('-', winnow::combinator::peek(one_of(is_word)))).parse_next(input)?;
        match hyphen {
            Some(_) => word.push('-'),
            None => return Ok(word),
        }
    }
}

fn word(input: &mut Input<'_>) -> Lexed<String> {
    winnow::combinator::peek(one_of(is_letter)).parse_next(input)?;
    hyphenated(input, is_word)
}

/// Points and colons belong to it, but not two points in a row: they stand between moments.
fn literal(input: &mut Input<'_>) -> Lexed<String> {
    winnow::combinator::peek(one_of(|c: char| c.is_ascii_digit())).parse_next(input)?;
    let mut literal = hyphenated(input, is_word)?;
    loop {
        let part = opt((one_of(['.', ':']), take_while(1.., is_word))).parse_next(input)?;
        let Some((sign, digits)): Option<(char, &str)> = part else {
            return Ok(literal);
        };
        literal.push(sign);
        literal.push_str(digits);
    }
}

/// Literals of moments and spans hold signs that mean something else outside.
fn call(input: &mut Input<'_>) -> Lexed<(String, String)> {
    let (word, _, inner, _) = (
        word.verify(|word: &String| {
            ["datetime", "date", "timespan", "time"]
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known))
        }),
        '(',
        take_while(0.., |c| !matches!(c, '(' | ')' | '\n')),
        ')',
    )
        .parse_next(input)?;
    Ok((word, inner.trim().to_owned()))
}

/// Balanced braces; those in texts and comments do not count.
fn body(input: &mut Input<'_>) -> Lexed<String> {
    '{'.parse_next(input)?;
    let mut body = String::new();
    let mut depth = 1;
    loop {
        if let Some(comment) = opt(alt((line_comment, block_comment))).parse_next(input)? {
            body.push_str(comment);
            continue;
        }
        let next = any.parse_next(input)?;
        match next {
            '{' => depth += 1,
            '}' => depth -= 1,
            '\'' | '"' => {
                body.push(next);
                // A doubled quote ends one text and begins another: all the same here.
                let quoted: &str = take_while(0.., move |c| c != next).parse_next(input)?;
                body.push_str(quoted);
                one_of(next).parse_next(input)?;
            }
            _ => {}
        }
        if depth == 0 {
            return Ok(body.trim().to_owned());
        }
        if depth > BRACES_MAX {
            return fail.parse_next(input);
        }
        body.push(next);
    }
}

fn line_comment<'a>(input: &mut Input<'a>) -> Lexed<&'a str> {
    (alt(("--", "//")), till_line_ending)
        .take()
        .parse_next(input)
}

fn block_comment<'a>(input: &mut Input<'a>) -> Lexed<&'a str> {
    ("/*", take_until(0.., "*/"), "*/").take().parse_next(input)
}

#[cfg(test)]
mod tests;
