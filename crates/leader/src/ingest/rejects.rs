//! Rows that do not fit.

use std::sync::Arc;

use parking_lot::Mutex;
use slipstream_frontend::{ErrorKind, Reject, ServiceError};

/// A value or row is shown up to this many characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Where rows go that do not fit: as many as are allowed, then the ingest fails.
#[derive(Debug, Clone)]
pub struct Rejects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: String,
    max: u64,
    rejects: Mutex<Vec<Reject>>,
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

impl Rejects {
    pub(crate) fn new(source: &str, max: u64) -> Self {
        Self(Arc::new(Inner {
            source: source.to_owned(),
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
        let mut rejects = self.0.rejects.lock();
        if rejects.len() as u64 >= self.0.max {
            let message = describe(&reject, self.0.max);
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "bad_row",
                message,
            ));
        }
        rejects.push(reject);
        Ok(())
    }

    /// All rows that were left out, in the order of their lines.
    pub fn take(&self) -> Vec<Reject> {
        let mut rejects = std::mem::take(&mut *self.0.rejects.lock());
        rejects.sort_by_key(|reject| reject.line);
        rejects
    }
}

fn describe(reject: &Reject, max: u64) -> String {
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
    let advice = if max == 0 {
        "Correct it, or allow such rows to be left out with --max-bad-rows".to_owned()
    } else {
        format!("That is one more bad row than the {max} allowed")
    };
    format!(
        "{}, line {}{column}: {value}{}. Nothing was ingested. {advice}",
        reject.source, reject.line, reject.reason
    )
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
