//! What is wrong with a text, and where.

use std::ops::Range;

/// Characters of a line that an error quotes.
const EXCERPT_CHARS_MAX: usize = 120;
/// Of those, how many stand in front of the spot.
const EXCERPT_CHARS_BEFORE: usize = 50;
/// Characters of the found text that an error quotes.
const FOUND_CHARS_MAX: usize = 60;
const CUT: &str = "...";

/// A text that is no command. Its `Display` has three lines: what and where, the line of the text,
/// and a mark under the spot. What stands in `h'...'` is not quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}\n  {excerpt}\n  {marker}")]
pub struct SyntaxError {
    /// Bytes in front of the spot.
    pub offset: usize,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What stands there, cut to a few words; empty at the end of the text.
    pub found: String,
    /// What is wrong with it.
    pub message: String,
    excerpt: String,
    marker: String,
}

impl SyntaxError {
    /// `span` has to lie on character boundaries of `text`; `secrets` are not to be quoted.
    pub(crate) fn new(
        text: &str,
        secrets: &[Range<usize>],
        span: Range<usize>,
        message: String,
    ) -> Self {
        let offset = span.start;
        let before = text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[line_start..]
            .find('\n')
            .map_or(text.len(), |at| line_start + at);
        let column = text[line_start..offset].chars().count();
        let shown = text[line_start..line_end].trim_end();
        let marked = text
            .get(offset..span.end.min(line_start + shown.len()).max(offset))
            .map_or(0, |found| found.chars().count());
        let (excerpt, marker) = excerpt(shown, line_start, secrets, column, marked.max(1));
        Self {
            offset,
            line: before.matches('\n').count() + 1,
            column: column + 1,
            found: cut(&quoted(text, secrets, &span)),
            // It may quote a text of several lines.
            message: message.chars().map(plain).collect(),
            excerpt,
            marker,
        }
    }
}

/// A piece of the text, with a star for each character that is nobody's business.
pub(crate) fn quoted(text: &str, secrets: &[Range<usize>], span: &Range<usize>) -> String {
    let is_secret = |at: usize| secrets.iter().any(|secret| secret.contains(&at));
    text.get(span.clone())
        .unwrap_or_default()
        .char_indices()
        .take(FOUND_CHARS_MAX + 1)
        .map(|(at, c)| {
            if is_secret(span.start + at) {
                '*'
            } else {
                plain(c)
            }
        })
        .collect()
}

/// A text that fits an error.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((at, _)) => format!("{}{CUT}", &text[..at]),
        None => text.to_owned(),
    }
}

/// Tabs and the like would move the mark away from the spot.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

fn excerpt(
    line: &str,
    line_start: usize,
    secrets: &[Range<usize>],
    column: usize,
    marked: usize,
) -> (String, String) {
    let is_secret = |at: usize| secrets.iter().any(|secret| secret.contains(&at));
    let count = line.chars().count();
    let first = if count > EXCERPT_CHARS_MAX {
        column
            .saturating_sub(EXCERPT_CHARS_BEFORE)
            .min(count - EXCERPT_CHARS_MAX)
    } else {
        0
    };
    let shown = line
        .char_indices()
        .skip(first)
        .take(EXCERPT_CHARS_MAX)
        .map(|(at, c)| {
            if is_secret(line_start + at) {
                '*'
            } else {
                plain(c)
            }
        });
    let (front, back) = (
        if first > 0 { CUT } else { "" },
        if first + EXCERPT_CHARS_MAX < count {
            CUT
        } else {
            ""
        },
    );
    let excerpt = format!("{front}{}{back}", shown.collect::<String>());
    let indent = front.len() + column.saturating_sub(first);
    let marked = marked
        .min((EXCERPT_CHARS_MAX + first).saturating_sub(column))
        .max(1);
    (
        excerpt,
        format!("{}{}", " ".repeat(indent), "^".repeat(marked)),
    )
}
