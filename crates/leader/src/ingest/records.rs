//! Where the records of a text end.

use memchr::{memchr, memchr2};

/// How records are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// One record a line.
    Lines,
    /// Values between delimiters; a quoted value may hold delimiters and ends of lines.
    Quoted {
        /// What stands between values.
        delimiter: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Only here does a quote open a quoted value.
    StartOfValue,
    InValue,
    InQuotes,
    /// Behind a quote within quotes: another one makes both of them text, anything else ends the
    /// quoted part.
    BehindQuote,
}

/// Reads a text piece by piece and knows where its last whole record ends.
///
/// Follows the rules of the decoder (`csv_core`) exactly, or a block would be cut where the
/// decoder sees no end of a record: a quote in the middle of a value (`5" disk`) is text.
#[derive(Debug)]
pub(crate) struct Scanner {
    records: Records,
    state: State,
}

impl Scanner {
    pub(crate) fn new(records: Records) -> Self {
        Self {
            records,
            state: State::StartOfValue,
        }
    }

    /// Reads on. Gives the position just behind the last record that ends within `bytes`.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let is_plain = self.state != State::InQuotes && self.state != State::BehindQuote;
        let delimiter = match self.records {
            Records::Quoted { delimiter } if !is_plain || memchr(b'"', bytes).is_some() => {
                delimiter
            }
            _ => {
                // Without a quote nothing but the end of a line matters.
                if let (Records::Quoted { delimiter }, Some(last)) = (self.records, bytes.last()) {
                    self.state = match *last {
                        b'\n' | b'\r' => State::StartOfValue,
                        last if last == delimiter => State::StartOfValue,
                        _ => State::InValue,
                    };
                }
                return bytes.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
            }
        };
        let (mut state, mut end, mut at) = (self.state, None, 0);
        // Outside of quotes only quotes and ends of lines matter, and within them only quotes.
        while at < bytes.len() {
            let rest = &bytes[at..];
            match state {
                State::InQuotes => match memchr(b'"', rest) {
                    Some(quote) => (state, at) = (State::BehindQuote, at + quote + 1),
                    None => break,
                },
                State::BehindQuote if rest[0] == b'"' => (state, at) = (State::InQuotes, at + 1),
                _ => {
                    let found = memchr2(b'"', b'\n', rest);
                    let passed = found.unwrap_or(rest.len());
                    // What stands right before decides whether a value begins here.
                    state = match rest[..passed].last() {
                        None if state == State::BehindQuote => State::InValue,
                        None => state,
                        Some(last) if *last == delimiter || *last == b'\r' => State::StartOfValue,
                        Some(_) => State::InValue,
                    };
                    at += passed;
                    let Some(byte) = found.map(|_| bytes[at]) else {
                        break;
                    };
                    at += 1;
                    if byte == b'\n' {
                        (state, end) = (State::StartOfValue, Some(at));
                    } else if state == State::StartOfValue {
                        state = State::InQuotes;
                    } else {
                        state = State::InValue;
                    }
                }
            }
        }
        self.state = state;
        end
    }

    /// Whether the text so far ends within quotes.
    pub(crate) fn is_quoted(&self) -> bool {
        self.state == State::InQuotes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &[u8], piece: usize) -> (Vec<usize>, bool) {
        let mut scanner = Scanner::new(Records::Quoted { delimiter: b',' });
        let mut found = Vec::new();
        for (number, bytes) in text.chunks(piece).enumerate() {
            found.extend(scanner.read(bytes).map(|end| number * piece + end));
        }
        (found, scanner.is_quoted())
    }

    #[test]
    fn ends_of_lines_within_quotes_are_text() {
        assert_eq!(ends(b"a,\"b\nc\"\nd", 100), (vec![8], false));
        assert_eq!(ends(b"\"a\"\"\nb\"\n", 100), (vec![8], false));
        assert_eq!(ends(b"a,\"b\n", 100), (vec![], true));
        assert_eq!(ends(b"\"a\"\r\n\"b\r\n\"\r\n", 100), (vec![12], false));
    }

    #[test]
    fn a_quote_within_a_value_is_text() {
        assert_eq!(ends(b"5\" disk,1\n3\" disk\n", 100), (vec![18], false));
        assert_eq!(ends(b"\"a\"b\",c\n\"d\ne\"\n", 100), (vec![14], false));
    }

    /// The decoder is the reference: whatever the text, every cut is one of its ends of a record.
    #[test]
    fn cuts_agree_with_the_decoder_for_every_short_text() {
        const ALPHABET: &[u8] = b"a\",\n\r";
        const LENGTH: u32 = 6;
        for number in 0..ALPHABET.len().pow(LENGTH) {
            let digit = |place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()];
            let text: Vec<u8> = (0..LENGTH).map(digit).collect();
            let (mut reader, mut values) = (reader(&text), csv::ByteRecord::new());
            let mut known = vec![0];
            while reader.read_byte_record(&mut values).expect("memory") {
                known.push(reader.position().byte() as usize);
            }
            for piece in [1, 3, 100] {
                let (found, is_quoted) = ends(&text, piece);
                for end in found {
                    // Ends of empty lines and the second half of \r\n belong to no record.
                    let start = text[..end]
                        .iter()
                        .rposition(|b| !matches!(b, b'\n' | b'\r'));
                    let start = start.map_or(0, |last| last + 1);
                    let is_known = known.iter().any(|known| (start..=end).contains(known));
                    assert!(
                        is_known,
                        "{:?} is cut at {end}",
                        text.escape_ascii().to_string()
                    );
                }
                // Closing the quotes changes nothing where they are closed already.
                assert_eq!(
                    is_quoted,
                    is_open(&text),
                    "{:?}",
                    text.escape_ascii().to_string()
                );
            }
        }
    }

    fn reader(text: &[u8]) -> csv::Reader<&[u8]> {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).from_reader(text)
    }

    /// Whether the decoder takes what is put behind the text as part of its last value.
    fn is_open(text: &[u8]) -> bool {
        let text = [text, b"\nZ"].concat();
        let last = reader(&text).into_byte_records().last();
        let last = last.map(|record| record.expect("memory"));
        last.is_some_and(|record| record.iter().any(|value| value.ends_with(b"\nZ")))
    }
}
