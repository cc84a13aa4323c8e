//! Where clusters are.

/// Whether two names mean one location. Azure writes one region as `North Central US` and as
/// `northcentralus`.
pub fn is_same_location(a: &str, b: &str) -> bool {
    letters(a).eq(letters(b))
}

fn letters(location: &str) -> impl Iterator<Item = char> {
    let visible = location.chars().filter(|c| !c.is_whitespace());
    visible.flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_a_name_for_people_and_one_for_programs() {
        assert!(is_same_location("North Central US", "northcentralus"));
        assert!(is_same_location("local", " Local "));
        assert!(!is_same_location("northcentralus", "southcentralus"));
        assert!(!is_same_location("mars", ""));
    }
}
