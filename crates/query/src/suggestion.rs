//! Near matches for names that do not exist.

/// Typing errors that a suggestion forgives, by length of the name: one in every three letters.
const LETTERS_PER_ERROR: usize = 3;
/// Candidates that are compared; more would make an error message slow to write.
const CANDIDATES_MAX: usize = 10_000;
/// Nobody mistypes a longer name, and the effort grows with the length.
const NAME_BYTES_MAX: usize = 128;

/// `": did you mean 'flights'?"`, or nothing when no candidate is close.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    if name.len() > NAME_BYTES_MAX {
        return String::new();
    }
    let wanted = name.to_lowercase();
    let errors_max = wanted.chars().count().div_ceil(LETTERS_PER_ERROR);
    candidates
        .take(CANDIDATES_MAX)
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(errors, _)| *errors <= errors_max)
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, candidate)| format!(": did you mean {}?", quoted(candidate)))
        .unwrap_or_default()
}

/// The name as SQL would have to write it: folded names bare, others in double quotes.
fn quoted(name: &str) -> String {
    let folds = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if folds {
        format!("'{name}'")
    } else {
        format!("'\"{name}\"'")
    }
}

/// Insertions, deletions and replacements that lead from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_forgiven() {
        let tables = ["flights", "airports", "Weather"];
        assert_eq!(
            did_you_mean("fligths", tables.into_iter()),
            ": did you mean 'flights'?"
        );
        assert_eq!(
            did_you_mean("weather", tables.into_iter()),
            ": did you mean '\"Weather\"'?"
        );
        assert_eq!(did_you_mean("customers", tables.into_iter()), "");
    }

    #[test]
    fn the_distance_counts_single_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
