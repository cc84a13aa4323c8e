//! A text as tokens.

use std::ops::Range;

use winnow::ascii::till_line_ending;
use winnow::combinator::{alt, cut_err, delimited, fail, opt, preceded, repeat, terminated};
use winnow::error::{ContextError, ErrMode, StrContext};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location, Stream};
use winnow::token::{any, none_of, one_of, take_until, take_while};

/// Braces within braces in the body of a function.
pub const NESTING_MAX: usize = 256;

/// What a command is made of. White space and comments are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword or a bare name; may have `-` within, and `!` in front.
    Word,
    /// A number, a span of time, a moment or an id: whatever begins with a digit.
    Number,
    /// `['name']`
    Name(String),
    /// A string literal.
    Text { value: String, is_secret: bool },
    /// `{...}`; the text is in the command.
    Braces,
    /// `..`
    Range,
    /// Any other character.
    Punctuation(char),
    /// What begins here and does not end, and whatever follows.
    Fault(&'static str),
}

type Input<'a> = LocatingSlice<&'a str>;

const TEXT_UNENDED: &str = "the text that begins here does not end on its line: a line break within \
     is written \\n, or the text stands between ``` and ```";
const LINES_UNENDED: &str = "the text that begins here does not end: ``` is missing";
const ESCAPE_UNKNOWN: &str = "the text that begins here has an unknown escape: a backslash itself \
     is written \\\\, or the text as @'...'";
const NAME_UNENDED: &str = "the name that begins here does not end: ] is missing";
const BRACES_UNENDED: &str = "the text that begins here does not end: } is missing";
const BRACES_DEEP: &str = "more than 256 braces stand within each other here";
const UNREADABLE: &str = "this cannot be read";

/// The tokens of a text. A fault is the last of them.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        // Skips what is there; nothing there is no error.
        let _ = space(&mut input);
        if input.is_empty() {
            return tokens;
        }
        let start = input.current_token_start();
        match token(&mut input) {
            Ok(kind) => tokens.push(Token {
                kind,
                span: start..input.current_token_start(),
            }),
            Err(error) => {
                tokens.push(Token {
                    kind: TokenKind::Fault(label(error)),
                    span: start..text.len(),
                });
                return tokens;
            }
        }
    }
}

fn label(error: ErrMode<ContextError>) -> &'static str {
    let inner = error.into_inner().unwrap_or_default();
    inner
        .context()
        .find_map(|context| match context {
            StrContext::Label(label) => Some(*label),
            _ => None,
        })
        .unwrap_or(UNREADABLE)
}

fn space(input: &mut Input<'_>) -> ModalResult<()> {
    let blank = take_while(1.., |c: char| c.is_whitespace() || c == '\u{feff}').void();
    let comment = ("//", till_line_ending).void();
    repeat(0.., alt((blank, comment))).parse_next(input)
}

fn token(input: &mut Input<'_>) -> ModalResult<TokenKind> {
    alt((
        text,
        name,
        word.value(TokenKind::Word),
        number.value(TokenKind::Number),
        braces.value(TokenKind::Braces),
        "..".value(TokenKind::Range),
        any.map(TokenKind::Punctuation),
    ))
    .parse_next(input)
}

/// Whether a character may stand in a bare name.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(input: &mut Input<'_>) -> ModalResult<()> {
    let part = |input: &mut Input<'_>| -> ModalResult<()> {
        take_while(1.., is_name_char).void().parse_next(input)
    };
    let first = one_of(|c: char| is_name_char(c) && !c.is_ascii_digit());
    let more = repeat::<_, _, (), _, _>(0.., ('-', part));
    (opt('!'), first, take_while(0.., is_name_char), more)
        .void()
        .parse_next(input)
}

fn number(input: &mut Input<'_>) -> ModalResult<()> {
    let digit = || one_of(|c: char| c.is_ascii_digit());
    let more = alt((
        take_while(1.., is_name_char).void(),
        ('.', digit()).void(),
        (':', digit()).void(),
        ('-', one_of(is_name_char)).void(),
    ));
    (digit(), repeat::<_, _, (), _, _>(0.., more))
        .void()
        .parse_next(input)
}

fn name(input: &mut Input<'_>) -> ModalResult<TokenKind> {
    let blanks = || take_while(0.., char::is_whitespace);
    let quoted = alt((verbatim, escaped));
    let end = cut_err((blanks(), ']')).context(StrContext::Label(NAME_UNENDED));
    delimited(('[', blanks()), quoted, end)
        .map(TokenKind::Name)
        .parse_next(input)
}

fn text(input: &mut Input<'_>) -> ModalResult<TokenKind> {
    (opt(one_of(['h', 'H'])), alt((lines, verbatim, escaped)))
        .map(|(prefix, value)| TokenKind::Text {
            value,
            is_secret: prefix.is_some(),
        })
        .parse_next(input)
}

/// ```` ```...``` ````
fn lines(input: &mut Input<'_>) -> ModalResult<String> {
    let rest = cut_err(terminated(take_until(0.., "```"), "```"))
        .context(StrContext::Label(LINES_UNENDED));
    preceded("```", rest).map(str::to_owned).parse_next(input)
}

/// `@'...'`, in which two quotes are one.
fn verbatim(input: &mut Input<'_>) -> ModalResult<String> {
    let quote = preceded('@', one_of(['\'', '"'])).parse_next(input)?;
    let inner = alt((
        none_of(move |c: char| c == quote || c == '\n'),
        (quote, quote).value(quote),
    ));
    ended(inner, quote).parse_next(input)
}

/// `'...'`, with escapes.
fn escaped(input: &mut Input<'_>) -> ModalResult<String> {
    let quote = one_of(['\'', '"']).parse_next(input)?;
    let escape = cut_err(escape).context(StrContext::Label(ESCAPE_UNKNOWN));
    let inner = alt((
        none_of(move |c: char| c == quote || c == '\n' || c == '\\'),
        preceded('\\', escape),
    ));
    ended(inner, quote).parse_next(input)
}

fn ended<'a>(
    inner: impl ModalParser<Input<'a>, char, ContextError>,
    quote: char,
) -> impl ModalParser<Input<'a>, String, ContextError> {
    cut_err(terminated(repeat(0.., inner), quote)).context(StrContext::Label(TEXT_UNENDED))
}

/// What stands behind a backslash.
fn escape(input: &mut Input<'_>) -> ModalResult<char> {
    let code = |digits: usize| {
        take_while(digits, |c: char| c.is_ascii_hexdigit())
            .verify_map(|hex: &str| char::from_u32(u32::from_str_radix(hex, 16).ok()?))
    };
    alt((
        one_of(['\\', '\'', '"']),
        'n'.value('\n'),
        't'.value('\t'),
        'r'.value('\r'),
        '0'.value('\0'),
        'a'.value('\u{7}'),
        'b'.value('\u{8}'),
        'f'.value('\u{c}'),
        'v'.value('\u{b}'),
        preceded('x', code(2)),
        preceded('u', code(4)),
        preceded('U', code(8)),
    ))
    .parse_next(input)
}

fn braces(input: &mut Input<'_>) -> ModalResult<()> {
    if !input.starts_with('{') {
        return fail.parse_next(input);
    }
    match braces_length(input) {
        Ok(length) => {
            input.next_slice(length);
            Ok(())
        }
        Err(fault) => cut_err(fail).context(StrContext::Label(fault)).parse_next(input),
    }
}

/// Bytes up to the brace that closes the first one. Braces in string literals and comments, of
/// Kusto and of SQL, do not count.
fn braces_length(text: &str) -> Result<usize, &'static str> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        at += match c {
            '\'' | '"' => literal_length(rest, c, !text[..at].ends_with('@'))?,
            '`' if rest.starts_with("```") => 3 + past(&rest[3..], "```")?,
            '/' if rest.starts_with("/*") => 2 + past(&rest[2..], "*/")?,
            '/' | '-' if rest.starts_with("//") || rest.starts_with("--") => past(rest, "\n")?,
            _ => c.len_utf8(),
        };
        match c {
            '{' if depth == NESTING_MAX => return Err(BRACES_DEEP),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(BRACES_UNENDED)
}

fn past(text: &str, end: &str) -> Result<usize, &'static str> {
    text.find(end)
        .map(|at| at + end.len())
        .ok_or(BRACES_UNENDED)
}

/// Bytes of a string literal with its quotes.
fn literal_length(text: &str, quote: char, has_escapes: bool) -> Result<usize, &'static str> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if has_escapes => is_escaped = true,
            _ if c == quote => return Ok(at + c.len_utf8()),
            _ => {}
        }
    }
    Err(BRACES_UNENDED)
}

#[cfg(test)]
mod tests;
