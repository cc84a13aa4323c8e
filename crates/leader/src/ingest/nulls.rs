//! Texts that mean null.

use memchr::memmem::Finder;
use regex::Regex;
use slipstream_frontend::ServiceError;

/// The texts that mean null in comma-separated values; the empty one always does.
///
/// The decoder would compare each value with a pattern, tens of nanoseconds for each. Most blocks
/// hold none of these texts, which a search over the block finds out many times faster.
#[derive(Debug, Clone)]
pub(super) struct NullTexts {
    /// Matches a text that means null, whole.
    pattern: Regex,
    /// `None` for texts that may stand in a file in other bytes than their own.
    finders: Option<Vec<Finder<'static>>>,
}

impl NullTexts {
    pub(super) fn new(texts: &[String]) -> Result<Self, ServiceError> {
        let escaped: Vec<_> = texts.iter().map(|text| regex::escape(text)).collect();
        let pattern = Regex::new(&format!("^(?:|{})$", escaped.join("|")))
            .map_err(|error| ServiceError::invalid(error.to_string()))?;
        let is_plain = |text: &&String| !text.is_empty() && !text.contains('"');
        let others = texts.iter().filter(|text| !text.is_empty());
        let finders = others.clone().all(|text| is_plain(&text));
        let finders = finders.then(|| {
            let finder = |text: &String| Finder::new(text.as_bytes()).into_owned();
            others.map(finder).collect()
        });
        Ok(Self { pattern, finders })
    }

    /// Whether a value means null.
    pub(super) fn is_null(&self, value: &str) -> bool {
        self.pattern.is_match(value)
    }

    /// What a decoder of these records has to compare each value with; `None` when only empty
    /// values can be null here.
    pub(super) fn pattern_for(&self, records: &[u8], delimiter: u8) -> Option<&Regex> {
        let Some(finders) = &self.finders else {
            return Some(&self.pattern);
        };
        let ends_value = |byte: Option<&u8>| {
            byte.is_none_or(|byte| *byte == delimiter || matches!(byte, b'"' | b'\n' | b'\r'))
        };
        let holds = |finder: &Finder<'_>| {
            finder.find_iter(records).any(|start| {
                let end = start + finder.needle().len();
                let before = start.checked_sub(1).and_then(|at| records.get(at));
                ends_value(before) && ends_value(records.get(end))
            })
        };
        finders.iter().any(holds).then_some(&self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_pattern(texts: &[&str], records: &str) -> bool {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        let nulls = NullTexts::new(&texts).expect("texts");
        nulls.pattern_for(records.as_bytes(), b',').is_some()
    }

    #[test]
    fn a_null_text_is_found_wherever_it_is_a_whole_value() {
        for records in [
            "NA",
            "NA,1\n",
            "1,NA\n",
            "1,NA\r\n",
            "1,\"NA\"\n",
            "1\nNA\n",
            "XNA,NA",
        ] {
            assert!(needs_pattern(&["NULL", "NA"], records), "{records:?}");
        }
    }

    #[test]
    fn parts_of_values_are_no_nulls() {
        for records in ["", "1,2\n", ",\n", "NAN,BANANA\n", "DNA\n", "N,A\n"] {
            assert!(!needs_pattern(&["NULL", "NA"], records), "{records:?}");
        }
    }

    #[test]
    fn a_text_that_a_file_spells_otherwise_is_looked_for_in_each_value() {
        assert!(needs_pattern(&["\""], "1,2\n"));
        assert!(!needs_pattern(&[""], "1,2\n"));
    }

    /// The pattern is the reference: without it, only what is empty is null.
    #[test]
    fn records_that_need_no_pattern_hold_no_null_text() {
        let nulls = NullTexts::new(&["a".to_owned(), "ab".to_owned()]).expect("texts");
        const ALPHABET: &[u8] = b"ab,\"\n";
        const LENGTH: u32 = 6;
        for number in 0..ALPHABET.len().pow(LENGTH) {
            let digit = |place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()];
            let text: Vec<u8> = (0..LENGTH).map(digit).collect();
            if nulls.pattern_for(&text, b',').is_some() {
                continue;
            }
            let mut reader = csv::ReaderBuilder::new();
            let mut reader = reader.has_headers(false).flexible(true).from_reader(&*text);
            for record in reader.byte_records() {
                for value in &record.expect("memory") {
                    let value = std::str::from_utf8(value).expect("ASCII");
                    let is_null = nulls.is_null(value);
                    assert_eq!(
                        is_null,
                        value.is_empty(),
                        "{value:?} in {:?}",
                        text.escape_ascii().to_string()
                    );
                }
            }
        }
    }
}
