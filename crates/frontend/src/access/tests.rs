use super::*;

fn principal(name: &str) -> PrincipalName {
    name.parse().expect("a principal")
}

fn access(role: Option<DatabaseRole>, cluster: &[ClusterRole]) -> Access {
    let ada = principal("aaduser=ada");
    let caller = Caller {
        principal: ada.clone(),
        groups: Vec::new(),
        cluster_roles: cluster.to_vec(),
    };
    let principals = role.map(|role| DatabasePrincipal {
        role,
        principal: ada,
        notes: None,
    });
    let databases = [
        ("d".to_owned(), principals.into_iter().collect()),
        ("other".to_owned(), Vec::new()),
    ];
    Access::new(Arc::new(caller), &databases.into())
}

/// The rule, role by role: Kusto's documentation of its roles.
#[test]
fn each_role_may_do_what_it_is_for_and_nothing_else() {
    use Permission::{Administer, Create, Ingest, Monitor, Query, ViewMetadata};
    let rules: [(DatabaseRole, &[Permission]); 6] = [
        (DatabaseRole::Admin, &Permission::ALL),
        (DatabaseRole::User, &[Query, ViewMetadata, Create]),
        (DatabaseRole::Viewer, &[Query, ViewMetadata]),
        (DatabaseRole::UnrestrictedViewer, &[Query, ViewMetadata]),
        (DatabaseRole::Ingestor, &[Ingest]),
        (DatabaseRole::Monitor, &[ViewMetadata, Monitor]),
    ];
    assert_eq!(rules.len(), DatabaseRole::ALL.len());
    for (role, allowed) in rules {
        let access = access(Some(role), &[]);
        for permission in Permission::ALL {
            assert_eq!(
                access.may("d", permission),
                allowed.contains(&permission),
                "{role} {permission:?}"
            );
            assert!(!access.may("other", permission), "{role} {permission:?}");
        }
        assert!(access.sees("d") && !access.sees("other"), "{role}");
        for permission in ClusterPermission::ALL {
            assert!(!access.caller().may(permission), "{role} {permission:?}");
        }
        assert_eq!(
            Administer.roles().contains(&role),
            role == DatabaseRole::Admin
        );
    }
}

#[test]
fn cluster_roles_hold_in_every_database() {
    let admin = access(None, &[ClusterRole::AllDatabasesAdmin]);
    let viewer = access(None, &[ClusterRole::AllDatabasesViewer]);
    let monitor = access(None, &[ClusterRole::AllDatabasesMonitor]);
    let contributor = access(None, &[ClusterRole::Contributor]);
    for database in ["d", "other", "not there"] {
        assert!(Permission::ALL.iter().all(|p| admin.may(database, *p)));
        assert!(viewer.may(database, Permission::Query));
        assert!(!viewer.may(database, Permission::Create));
        assert!(monitor.may(database, Permission::ViewMetadata));
        assert!(!monitor.may(database, Permission::Query));
        assert!(!contributor.may(database, Permission::ViewMetadata));
        assert!(contributor.sees(database));
    }
    assert!(contributor.caller().may(ClusterPermission::Share));
    assert!(!viewer.caller().may(ClusterPermission::Share));
}

#[test]
fn others_queries_are_seen_by_those_who_watch_over_the_database() {
    for (role, sees) in [
        (DatabaseRole::Admin, true),
        (DatabaseRole::Monitor, true),
        (DatabaseRole::User, false),
        (DatabaseRole::Viewer, false),
    ] {
        let access = access(Some(role), &[]);
        assert!(access.sees_activity_of("aaduser=ada", None), "{role}");
        assert_eq!(
            access.sees_activity_of("aaduser=bob", Some("d")),
            sees,
            "{role}"
        );
        assert!(
            !access.sees_activity_of("aaduser=bob", Some("other")),
            "{role}"
        );
        assert!(!access.sees_activity_of("aaduser=bob", None), "{role}");
    }
}

#[test]
fn an_error_does_not_tell_whether_a_hidden_database_is_there() {
    let access = access(Some(DatabaseRole::Viewer), &[]);
    let there = access
        .check("other", Permission::Query)
        .expect_err("hidden");
    let missing = access.check("gone", Permission::Query).expect_err("hidden");
    assert_eq!(
        there.message().replace("other", "NAME"),
        missing.message().replace("gone", "NAME")
    );
    let known = access.check("d", Permission::Ingest).expect_err("a viewer");
    assert!(known.message().contains("Ingestor or Admin"), "{known}");
}

#[test]
fn what_a_group_may_do_its_members_may() {
    let caller = Caller {
        principal: principal("aaduser=ada"),
        groups: vec![principal("aadgroup=analysts")],
        cluster_roles: Vec::new(),
    };
    let viewers = DatabasePrincipal {
        role: DatabaseRole::Viewer,
        principal: principal("aadgroup=analysts"),
        notes: None,
    };
    let access = Access::new(Arc::new(caller), &[("d".to_owned(), vec![viewers])].into());
    assert!(access.may("d", Permission::Query));
}

#[test]
fn nobody_may_do_anything() {
    let access = Access::default();
    assert!(Permission::ALL.iter().all(|p| !access.may("d", *p)));
    assert!(!access.sees("d"));
}
