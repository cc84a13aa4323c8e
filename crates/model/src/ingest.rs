//! What makes an ingest happen once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What the tags begin with that `ingestIfNotExists` asks for (*Extent tags*, Kusto documentation).
pub const INGEST_BY: &str = "ingest-by:";

/// Bytes of an id. A UUID has 36; states hold some thousand ids a table.
const ID_BYTES_MAX: usize = 64;

/// An ingest's own name, chosen by the client: the same one sent again is the same ingest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IngestId(Arc<str>);

/// A text that cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no ingest id: it has 1 to {max} ASCII letters, digits and signs, no spaces",
    max = ID_BYTES_MAX
)]
pub struct InvalidIngestId(String);

impl IngestId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IngestId {
    type Err = InvalidIngestId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            Ok(Self(text.into()))
        } else {
            let shown = text.chars().take(ID_BYTES_MAX).collect();
            Err(InvalidIngestId(shown))
        }
    }
}

impl TryFrom<String> for IngestId {
    type Error = InvalidIngestId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for IngestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_short_word() {
        for id in ["a", "2f1c9e9e-0000-4000-8000-000000000000", "a/b:c_7"] {
            assert_eq!(id.parse::<IngestId>().expect("an id").as_str(), id);
        }
        let long = "x".repeat(65);
        for wrong in ["", "a b", "ä", "a\n", &long] {
            assert!(wrong.parse::<IngestId>().is_err(), "{wrong}");
        }
    }
}
