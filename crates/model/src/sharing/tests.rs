use super::*;

fn sharing(include: &[&str], exclude: &[&str]) -> TableLevelSharing {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    TableLevelSharing {
        tables_to_include: list(include),
        tables_to_exclude: list(exclude),
        ..TableLevelSharing::default()
    }
}

#[test]
fn exclude_beats_include_and_an_empty_include_means_everything() {
    let tables = |sharing: &TableLevelSharing| -> Vec<&str> {
        let names = ["Logs1", "Logs2", "Secret"];
        let seen = |name: &&str| sharing.allows(EntityKind::Table, name);
        names.into_iter().filter(seen).collect()
    };
    assert_eq!(tables(&sharing(&[], &[])), ["Logs1", "Logs2", "Secret"]);
    assert_eq!(tables(&sharing(&["Logs*"], &[])), ["Logs1", "Logs2"]);
    assert_eq!(tables(&sharing(&["Logs*"], &["Logs2"])), ["Logs1"]);
    assert_eq!(
        tables(&sharing(&[], &["Secret", "Missing"])),
        ["Logs1", "Logs2"]
    );
    assert!(tables(&sharing(&[], &["*"])).is_empty());
    let only_tables = sharing(&["Logs*"], &["*"]);
    assert!(only_tables.allows(EntityKind::Function, "Secret"));
}

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, name, expected) in [
        ("*", "", true),
        ("a*", "a", true),
        ("a*", "ba", false),
        ("*a", "ba", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("exact", "exact", true),
        ("exact", "exactly", false),
        ("a.c", "abc", false),
        ("*é*", "café!", true),
    ] {
        assert_eq!(
            pattern_matches(pattern, name),
            expected,
            "{pattern} on {name}"
        );
    }
}

#[test]
fn terms_that_contradict_each_other_are_refused() {
    let all = AttachTerms::of(DatabaseSelection::All);
    let one = AttachTerms::of("d".parse().expect("a name"));
    assert_eq!(all.check(), Ok(()));
    let filtered = AttachTerms {
        sharing: sharing(&["a"], &[]),
        ..all.clone()
    };
    assert_eq!(filtered.check(), Err(InvalidTerms::FiltersOfAll));
    let renamed = AttachTerms {
        database_name_override: DatabaseName::new("e").ok(),
        ..all
    };
    assert_eq!(renamed.check(), Err(InvalidTerms::OverrideOfAll));
    let many: Vec<String> = (0..=SHARING_ENTRIES_MAX).map(|n| n.to_string()).collect();
    let crowded = AttachTerms {
        sharing: TableLevelSharing {
            functions_to_include: many,
            ..TableLevelSharing::default()
        },
        ..one
    };
    assert_eq!(crowded.check(), Err(InvalidTerms::TooManyEntries(101)));
}

#[test]
fn a_prefix_or_an_override_names_the_database_here() {
    let original = DatabaseName::new("d").expect("a name");
    let mut terms = AttachTerms::of(DatabaseSelection::All);
    assert_eq!(terms.name_here(&original).as_ref(), Ok(&original));
    terms.database_name_prefix = Some("prod_".into());
    assert_eq!(
        terms.name_here(&original).expect("a name").as_str(),
        "prod_d"
    );
}

#[test]
fn kinds_are_read_in_any_case() {
    assert_eq!("REPLACE".parse(), Ok(PrincipalsModificationKind::Replace));
    assert!("both".parse::<CachingPoliciesModificationKind>().is_err());
}

#[test]
fn filters_have_the_names_of_the_resource() {
    let json = r#"{"tablesToInclude":["a*"],"functionsToExclude":["f"]}"#;
    let read: TableLevelSharing = serde_json::from_str(json).expect("JSON");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), json);
    assert!(serde_json::from_str::<TableLevelSharing>(r#"{"tables":[]}"#).is_err());
}
