//! How deep lines of JSON are nested.
//!
//! Arrow's decoder keeps what is open on the heap, but to say what is wrong with a value it calls itself for each
//! level of it: a line of a million brackets would end the process. So nothing that is nested deeper than anybody
//! needs is given to it.

/// Lists and objects within each other. `serde_json`, which finds out what is wrong with a line, goes as deep.
pub(super) const DEPTH_MAX: usize = 127;

/// Looks at a record line by line, before it is decoded.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// Brackets that open, within strings too: it is not nested deeper than that.
    openings: usize,
    /// The depth, once it matters.
    depth: Option<Depth>,
}

impl Nesting {
    /// Whether a line leaves its record within [`DEPTH_MAX`]; `before` are the lines of the record before it.
    pub(super) fn allows(&mut self, before: &[u8], line: &[u8]) -> bool {
        if let Some(depth) = &mut self.depth {
            return depth.read(line);
        }
        self.openings += openings(line);
        if self.openings <= DEPTH_MAX {
            return true;
        }
        let depth = self.depth.insert(Depth::default());
        depth.read(before) && depth.read(line)
    }
}

/// Many bytes are counted at a time: most lines are not looked at in any other way.
fn openings(text: &[u8]) -> usize {
    // The two differ by this bit.
    let is_opening = |byte: &&u8| **byte | (b'[' ^ b'{') == b'{';
    text.iter().filter(is_opening).count()
}

#[derive(Debug, Default)]
struct Depth {
    open: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Depth {
    /// Reads on, until it is too deep.
    fn read(&mut self, text: &[u8]) -> bool {
        for byte in text {
            if std::mem::take(&mut self.is_escaped) {
                continue;
            }
            match byte {
                b'"' => self.is_in_string = !self.is_in_string,
                b'\\' => self.is_escaped = self.is_in_string,
                b'[' | b'{' if !self.is_in_string => self.open += 1,
                b']' | b'}' if !self.is_in_string => self.open = self.open.saturating_sub(1),
                _ => {}
            }
            if self.open > DEPTH_MAX {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(record: &str) -> bool {
        let (mut nesting, mut at) = (Nesting::default(), 0);
        record.split_inclusive('\n').all(|line| {
            let before = &record.as_bytes()[..at];
            at += line.len();
            nesting.allows(before, line.as_bytes())
        })
    }

    #[test]
    fn what_is_open_at_one_time_counts() {
        let lists = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(allows(&lists(DEPTH_MAX)));
        assert!(!allows(&lists(DEPTH_MAX + 1)));
        assert!(!allows(&"{\"a\":".repeat(DEPTH_MAX + 1)));
        assert!(allows(&lists(DEPTH_MAX).repeat(3)));
        assert!(!allows(&(lists(DEPTH_MAX) + &lists(DEPTH_MAX + 1))));
    }

    #[test]
    fn brackets_within_strings_are_text() {
        let brackets = "[{".repeat(DEPTH_MAX);
        assert!(allows(&format!("{{\"{brackets}\": \"\\\"{brackets}\"}}")));
        let closing = "]".repeat(DEPTH_MAX);
        let half = "[".repeat(DEPTH_MAX / 2 + 1);
        assert!(!allows(&format!("{half}\"{closing}\\\\\"{half}")));
    }

    #[test]
    fn lines_of_one_record_count_together() {
        assert!(allows(&"[\n".repeat(DEPTH_MAX)));
        assert!(!allows(&"[\n".repeat(DEPTH_MAX + 1)));
        assert!(allows(&"[\n]\n".repeat(DEPTH_MAX)));
    }
}
