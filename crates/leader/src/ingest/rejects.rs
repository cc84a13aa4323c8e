//! Rows that do not fit.

use std::sync::Arc;

use parking_lot::Mutex;
use slipstream_frontend::{ErrorKind, Reject, ServiceError};

/// A value is shown up to this many characters.
const SHOWN_CHARS_MAX: usize = 120;
/// Rejects are held until the commit and then sent with the receipt, whole rows and all: this is
/// far more than anybody reads, and no trouble for either side.
const REJECT_BYTES_MAX: usize = 64 << 20;

/// How places in a source are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// By lines of text.
    Line,
    /// By rows, where there are no lines.
    Row,
}

/// Where rows go that do not fit: as many as are allowed, then the ingest fails.
#[derive(Debug, Clone)]
pub struct Rejects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: String,
    place: Place,
    /// Whether the columns' types were guessed from the first rows.
    is_inferred: bool,
    max: u64,
    rejects: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    rejects: Vec<Reject>,
    bytes: usize,
}

/// What is wrong with a row, before it is known which source it is of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Misfit {
    pub(crate) line: u64,
    pub(crate) column: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) reason: String,
    pub(crate) row: Option<String>,
}

impl Misfit {
    /// A row that is wrong as a whole.
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// One value that is wrong.
    pub(crate) fn at(column: &str, value: Option<String>, reason: impl Into<String>) -> Self {
        Self {
            column: Some(column.to_owned()),
            value,
            reason: reason.into(),
            ..Self::default()
        }
    }
}

impl Rejects {
    pub(crate) fn new(source: &str, place: Place, is_inferred: bool, max: u64) -> Self {
        Self(Arc::new(Inner {
            source: source.to_owned(),
            place,
            is_inferred,
            max,
            rejects: Mutex::default(),
        }))
    }

    /// The source's name.
    pub(crate) fn source(&self) -> &str {
        &self.0.source
    }

    /// Leaves a row out.
    ///
    /// # Errors
    /// When that is one more than is allowed; names the file, line, column and value.
    pub(crate) fn add(&self, misfit: Misfit) -> Result<(), ServiceError> {
        let reject = Reject {
            source: self.0.source.clone(),
            line: misfit.line,
            column: misfit.column,
            value: misfit.value.as_deref().map(shorten),
            reason: misfit.reason,
            row: misfit.row,
        };
        let mut collected = self.0.rejects.lock();
        collected.bytes = collected.bytes.saturating_add(bytes_of(&reject));
        let too_many = collected.rejects.len() as u64 >= self.0.max;
        if too_many || collected.bytes > REJECT_BYTES_MAX {
            let message = self.describe(&reject, collected.rejects.len());
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "bad_row",
                message,
            ));
        }
        collected.rejects.push(reject);
        Ok(())
    }

    /// All rows that were left out, in the order of their lines.
    pub fn take(&self) -> Vec<Reject> {
        let mut rejects = std::mem::take(&mut *self.0.rejects.lock()).rejects;
        rejects.sort_by_key(|reject| reject.line);
        rejects
    }

    fn describe(&self, reject: &Reject, before: usize) -> String {
        let place = match self.0.place {
            Place::Line => "line",
            Place::Row => "row",
        };
        let column = reject
            .column
            .as_ref()
            .map(|name| format!(", column '{name}'"))
            .unwrap_or_default();
        let value = reject
            .value
            .as_ref()
            .map(|value| format!("'{value}' "))
            .unwrap_or_default();
        let advice = match (self.0.max, self.0.is_inferred) {
            (0, false) => {
                "Correct it, or allow such rows to be left out with --max-bad-rows".to_owned()
            }
            (0, true) => "The table's columns were inferred from the first rows: create the table \
                          with the columns it should have, or allow such rows to be left out with \
                          --max-bad-rows"
                .to_owned(),
            (max, _) if before as u64 >= max => {
                format!("That is one more bad row than the {max} allowed")
            }
            _ => format!(
                "With it, the {} bad rows are more than {} MiB",
                before + 1,
                REJECT_BYTES_MAX >> 20
            ),
        };
        format!(
            "{}, {place} {}{column}: {value}{}. Nothing was ingested. {advice}",
            reject.source, reject.line, reject.reason
        )
    }
}

/// What a reject takes in memory.
fn bytes_of(reject: &Reject) -> usize {
    let Reject {
        source,
        line: _,
        column,
        value,
        reason,
        row,
    } = reject;
    let parts = [column, value, row].into_iter().flatten();
    let texts = parts.chain([source, reason]).map(String::capacity);
    size_of::<Reject>() + texts.sum::<usize>()
}

/// As much of a text as is shown.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, bytes: usize) -> Misfit {
        Misfit {
            line,
            row: Some("x".repeat(bytes)),
            ..Misfit::because("is wrong")
        }
    }

    #[test]
    fn rejects_are_bounded_in_memory_whatever_number_is_allowed() {
        let rejects = Rejects::new("f.csv", Place::Line, false, u64::MAX);
        let (bytes, mut added) = (8 << 20, 0);
        let error = loop {
            match rejects.add(row(added + 1, bytes)) {
                Ok(()) => added += 1,
                Err(error) => break error,
            }
        };
        assert!(added * bytes as u64 <= REJECT_BYTES_MAX as u64);
        assert!(error.message().contains("64 MiB"), "{error}");
        assert_eq!(rejects.take().len() as u64, added);
    }

    #[test]
    fn every_text_of_a_reject_takes_room() {
        let long = "x".repeat(1 << 20);
        let reason = Misfit::because(long.clone());
        let column = Misfit::at(&long, None, "");
        let rows = [
            (long.as_str(), Misfit::because("")),
            ("", reason),
            ("", column),
        ];
        for (source, misfit) in rows {
            let rejects = Rejects::new(source, Place::Row, false, u64::MAX);
            let added = (0..100).take_while(|_| rejects.add(misfit.clone()).is_ok());
            assert_eq!(added.count(), 63);
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(shorten("short"), "short");
        let shown = shorten(&"ü".repeat(200));
        assert_eq!(shown, format!("{}...", "ü".repeat(SHOWN_CHARS_MAX)));
    }

    #[test]
    fn rejects_come_in_the_order_of_their_lines() {
        let rejects = Rejects::new("f.csv", Place::Line, false, 3);
        for line in [9, 4, 7] {
            rejects.add(row(line, 1)).expect("allowed");
        }
        let lines: Vec<_> = rejects.take().iter().map(|reject| reject.line).collect();
        assert_eq!(lines, [4, 7, 9]);
    }
}
