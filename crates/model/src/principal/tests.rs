use super::*;

#[test]
fn a_principal_has_a_kind_a_name_and_maybe_a_tenant() {
    let app: PrincipalName = "AADApp=reader;contoso.com".parse().expect("valid");
    assert_eq!(app.as_str(), "aadapp=reader;contoso.com");
    assert_eq!(app.kind(), PrincipalKind::App);
    assert_eq!((app.id(), app.tenant()), ("reader", Some("contoso.com")));
    for text in [
        "ada",
        "dstsgroup=x",
        "aaduser=",
        "aaduser=;t",
        "aaduser=a\nb",
        "=x",
    ] {
        assert!(text.parse::<PrincipalName>().is_err(), "{text:?}");
    }
}

#[test]
fn roles_are_read_as_commands_and_as_resources_spell_them() {
    assert_eq!("admins".parse(), Ok(DatabaseRole::Admin));
    assert_eq!(
        "UnrestrictedViewer".parse(),
        Ok(DatabaseRole::UnrestrictedViewer)
    );
    assert_eq!(
        "alldatabasesadmin".parse(),
        Ok(ClusterRole::AllDatabasesAdmin)
    );
    let error = "owners".parse::<DatabaseRole>().expect_err("unknown");
    assert!(error.to_string().contains("Viewer"), "{error}");
}
