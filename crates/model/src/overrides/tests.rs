use super::*;

fn principal(role: DatabaseRole, name: &str) -> DatabasePrincipal {
    DatabasePrincipal {
        role,
        principal: name.parse().expect("a principal"),
        notes: None,
    }
}

fn names(principals: &[DatabasePrincipal]) -> Vec<&str> {
    principals.iter().map(|p| p.principal.id()).collect()
}

#[test]
fn principals_combine_by_union_replace_or_none() {
    let leader = [principal(DatabaseRole::Viewer, "aaduser=ada")];
    let own = OverrideChange::AddPrincipals(vec![
        principal(DatabaseRole::Viewer, "aaduser=ada"),
        principal(DatabaseRole::Viewer, "aaduser=bob"),
    ]);
    let overrides = Overrides::default().changed(own).expect("allowed");
    for (kind, expected) in [
        (PrincipalsModificationKind::Union, vec!["ada", "bob"]),
        (PrincipalsModificationKind::Replace, vec!["ada", "bob"]),
        (PrincipalsModificationKind::None, vec!["ada"]),
    ] {
        let set = OverrideChange::SetPrincipalsKind(kind);
        let overrides = overrides.clone().changed(set).expect("allowed");
        assert_eq!(names(&overrides.effective_principals(&leader)), expected);
    }
}

#[test]
fn replace_without_overrides_leaves_nobody() {
    let leader = [principal(DatabaseRole::Admin, "aaduser=ada")];
    let overrides = Overrides {
        principals_modification_kind: PrincipalsModificationKind::Replace,
        ..Overrides::default()
    };
    assert!(overrides.effective_principals(&leader).is_empty());
}

#[test]
fn only_four_roles_can_be_overridden() {
    let add = OverrideChange::AddPrincipals(vec![principal(DatabaseRole::Ingestor, "aadapp=a")]);
    let error = Overrides::default().changed(add).expect_err("refused");
    assert_eq!(error, InvalidOverride::Role(DatabaseRole::Ingestor));
}

#[test]
fn setting_a_role_replaces_who_had_it_and_nobody_else() {
    let before = OverrideChange::AddPrincipals(vec![
        principal(DatabaseRole::Viewer, "aaduser=ada"),
        principal(DatabaseRole::User, "aaduser=ada"),
    ]);
    let overrides = Overrides::default().changed(before).expect("allowed");
    let set = |role, names: &[&str]| OverrideChange::SetPrincipals {
        role,
        principals: names.iter().map(|name| principal(role, name)).collect(),
    };
    let bob = set(DatabaseRole::Viewer, &["aaduser=bob"]);
    let changed = overrides.clone().changed(bob).expect("allowed");
    let expected = [
        principal(DatabaseRole::User, "aaduser=ada"),
        principal(DatabaseRole::Viewer, "aaduser=bob"),
    ];
    assert_eq!(changed.principals, expected);
    let nobody = changed
        .changed(set(DatabaseRole::Viewer, &[]))
        .expect("allowed");
    assert_eq!(names(&nobody.principals), ["ada"]);
    let ingestors = overrides.changed(set(DatabaseRole::Ingestor, &[]));
    assert_eq!(
        ingestors,
        Err(InvalidOverride::Role(DatabaseRole::Ingestor))
    );
}

#[test]
fn dropping_what_was_set_gives_the_settings_from_before() {
    let table = EntityName {
        kind: EntityKind::Table,
        name: "t".into(),
    };
    let set = OverrideChange::SetCaching {
        entities: vec![table.clone()],
        policy: CachingPolicy::hot(Duration::from_secs(86_400)),
    };
    let changed = Overrides::default().changed(set).expect("allowed");
    assert_ne!(changed, Overrides::default());
    let entities = vec![table];
    let deleted = changed.changed(OverrideChange::DeleteCaching { entities });
    assert_eq!(deleted, Ok(Overrides::default()));
}

#[test]
fn settings_survive_being_written_down() {
    let change = OverrideChange::AddPrincipals(vec![principal(DatabaseRole::User, "aadapp=a;t")]);
    let overrides = Overrides::default().changed(change).expect("allowed");
    let json = serde_json::to_string(&overrides).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Overrides>(&json).ok(),
        Some(overrides)
    );
}
