//! Commands as text: what a program would have typed.

use slipstream_model::{CachingPolicy, EntityKind, EntityName, OverrideChange, PrincipalName};

use crate::format_timespan;

/// The command that makes a change of a follower's own settings.
pub fn follower_command(database: &str, change: &OverrideChange) -> String {
    let database = name(database);
    match change {
        OverrideChange::SetCaching { entities, policy } => format!(
            ".alter follower database {database}{} policy caching {}",
            entity_list(entities),
            caching(policy)
        ),
        OverrideChange::DeleteCaching { entities } => format!(
            ".delete follower database {database}{} policy caching",
            entity_list(entities)
        ),
        OverrideChange::AddPrincipals(added) => {
            let role = added.first().map_or("viewers", |first| first.role.plural());
            let names: Vec<_> = added.iter().map(|p| p.principal.clone()).collect();
            let notes = added.first().and_then(|first| first.notes.as_ref());
            let notes = notes.map(|notes| format!(" {}", quoted(notes)));
            format!(
                ".add follower database {database} {role} {}{}",
                principals(&names),
                notes.unwrap_or_default()
            )
        }
        OverrideChange::DropPrincipals {
            role,
            principals: names,
        } => format!(
            ".drop follower database {database} {} {}",
            role.plural(),
            principals(names)
        ),
        // The one change that Kusto has no word with `follower` for: on a follower the word for
        // every database means this cluster's own principals.
        OverrideChange::SetPrincipals {
            role,
            principals: with_role,
        } => {
            let names: Vec<_> = with_role.iter().map(|p| p.principal.clone()).collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                principals(&names)
            };
            let notes = with_role.first().and_then(|first| first.notes.as_ref());
            let notes = notes.map(|notes| format!(" {}", quoted(notes)));
            format!(
                ".set database {database} {} {names}{}",
                role.plural(),
                notes.unwrap_or_default()
            )
        }
        OverrideChange::SetPrincipalsKind(kind) => format!(
            ".alter follower database {database} principals-modification-kind = {}",
            kind.to_string().to_lowercase()
        ),
        OverrideChange::SetCachingKind(kind) => format!(
            ".alter follower database {database} caching-policies-modification-kind = {}",
            kind.to_string().to_lowercase()
        ),
        OverrideChange::SetPrefetch(prefetch) => {
            format!(".alter follower database {database} prefetch-extents = {prefetch}")
        }
    }
}

/// The command that makes a follower fetch what is hot of a database, or of one of its tables.
pub fn warm_command(database: &str, table: Option<&str>) -> String {
    let table = table.map(|table| format!(" table {}", name(table)));
    format!(
        ".warm database {}{}",
        name(database),
        table.unwrap_or_default()
    )
}

fn entity_list(entities: &[EntityName]) -> String {
    let Some(first) = entities.first() else {
        return String::new();
    };
    let kind = match first.kind {
        EntityKind::MaterializedView => "materialized-views",
        _ => "tables",
    };
    let names = entities.iter().map(|entity| name(&entity.name));
    format!(" {kind} ({})", names.collect::<Vec<_>>().join(", "))
}

fn caching(policy: &CachingPolicy) -> String {
    let (data, index) = (policy.data_hot_span, policy.index_hot_span);
    let span = |span| format!("timespan({})", format_timespan(span));
    let mut text = if data == index {
        format!("hot = {}", span(data))
    } else {
        format!("hotdata = {} hotindex = {}", span(data), span(index))
    };
    for window in &policy.hot_windows {
        text.push_str(&format!(
            ", hot_window = datetime({}) .. datetime({})",
            window.min, window.max
        ));
    }
    text
}

fn principals(names: &[PrincipalName]) -> String {
    let names = names.iter().map(|name| quoted(name.as_str()));
    format!("({})", names.collect::<Vec<_>>().join(", "))
}

/// A bare name where that is one, in brackets elsewhere.
fn name(name: &str) -> String {
    let is_bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if is_bare {
        name.to_owned()
    } else {
        format!("[{}]", quoted(name))
    }
}

/// A literal, on one line whatever it holds.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    let escaped = escaped.replace('\n', "\\n").replace('\r', "\\r");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipstream_model::{DatabasePrincipal, DatabaseRole, HotWindow, Timestamp};

    use super::*;
    use crate::{Command, parse};

    #[test]
    fn what_is_written_is_read_as_what_was_meant() {
        let entity = |kind, name: &str| EntityName {
            kind,
            name: name.to_owned(),
        };
        let policy = CachingPolicy {
            index_hot_span: Duration::from_secs(7),
            hot_windows: vec![HotWindow {
                min: Timestamp::from_micros(1_000_001),
                max: Timestamp::from_micros(2_000_000),
            }],
            ..CachingPolicy::hot(Duration::from_millis(1_500))
        };
        let changes = [
            OverrideChange::SetCaching {
                entities: Vec::new(),
                policy: policy.clone(),
            },
            OverrideChange::SetCaching {
                entities: vec![
                    entity(EntityKind::Table, "it's"),
                    entity(EntityKind::Table, "t"),
                ],
                policy: CachingPolicy::hot(Duration::ZERO),
            },
            OverrideChange::DeleteCaching {
                entities: vec![entity(EntityKind::MaterializedView, "v w")],
            },
            OverrideChange::AddPrincipals(vec![DatabasePrincipal {
                role: DatabaseRole::Monitor,
                principal: "aadapp=x;t".parse().expect("a principal"),
                notes: Some("it's \\ ours".into()),
            }]),
            OverrideChange::DropPrincipals {
                role: DatabaseRole::Admin,
                principals: vec!["aaduser=ada".parse().expect("a principal")],
            },
            OverrideChange::SetPrincipalsKind("replace".parse().expect("a kind")),
            OverrideChange::SetCachingKind("none".parse().expect("a kind")),
            OverrideChange::SetPrefetch(true),
        ];
        // Its word is that of any database's principals, so it is read as such.
        let set = |principals: Vec<DatabasePrincipal>| {
            let role = DatabaseRole::Monitor;
            follower_command("D", &OverrideChange::SetPrincipals { role, principals })
        };
        assert_eq!(set(Vec::new()), ".set database D monitors none");
        let ada = DatabasePrincipal {
            role: DatabaseRole::Monitor,
            principal: "aaduser=ada".parse().expect("a principal"),
            notes: Some("x".into()),
        };
        let text = set(vec![ada]);
        assert_eq!(text, ".set database D monitors ('aaduser=ada') 'x'");
        assert!(matches!(
            parse(&text),
            Ok(Command::ChangeDatabasePrincipals { .. })
        ));
        for database in ["D", "my-db", "with 'quotes'", "details", "on two\r\nlines"] {
            for change in &changes {
                let text = follower_command(database, change);
                let read = parse(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
                let meant = Command::Follower {
                    database: database.to_owned(),
                    change: change.clone(),
                };
                assert_eq!(read, meant, "{text}");
            }
        }
    }

    #[test]
    fn what_is_warmed_is_read_as_it_was_named() {
        for (database, table) in [
            ("d", None),
            ("my 'database'", Some("t")),
            ("d", Some("a.b")),
        ] {
            let text = warm_command(database, table);
            let expected = Command::Warm {
                database: database.to_owned(),
                table: table.map(str::to_owned),
            };
            assert_eq!(parse(&text), Ok(expected), "{text}");
        }
    }
}
