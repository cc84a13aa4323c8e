//! What has to be done to get from a follower as it is to one as it should be.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail};
use slipstream_frontend::{AttachRequest, Attachment};
use slipstream_kusto::follower_command;
use slipstream_model::{
    CachingPolicy, DatabasePrincipal, DatabaseRole, EntityKind, EntityName, OverrideChange,
    Overrides,
};

use super::document::{AttachmentSpec, CachingSpec, DatabaseSpec, Document};

/// One change of what is attached.
#[derive(Debug)]
pub(super) enum AttachStep {
    /// Put a configuration.
    Put {
        request: Box<AttachRequest>,
        /// What is different; nothing for one that is new.
        differences: Vec<String>,
    },
    /// Stop following.
    Detach { name: String },
}

impl fmt::Display for AttachStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put {
                request,
                differences,
            } => {
                let name = request.name.as_deref().unwrap_or_default();
                if differences.is_empty() {
                    return write!(
                        f,
                        "attach '{}' of leader '{}' as configuration '{name}'",
                        request.database, request.leader
                    );
                }
                write!(
                    f,
                    "change configuration '{name}': {}",
                    differences.join("; ")
                )
            }
            Self::Detach { name } => write!(f, "detach configuration '{name}'"),
        }
    }
}

/// The changes of what is attached.
///
/// # Errors
/// When two attachments have one name.
pub(super) fn attachments(
    wanted: &Document,
    current: &[Attachment],
    is_pruning: bool,
) -> anyhow::Result<Vec<AttachStep>> {
    let mut steps = Vec::new();
    let mut named = BTreeMap::new();
    for spec in &wanted.attachments {
        if named.insert(spec.name().to_owned(), ()).is_some() {
            bail!(
                "two attachments are called '{}': give one another name",
                spec.name()
            );
        }
        let known = current.iter().find(|known| known.name == spec.name());
        let differences = known.map(|known| differences(spec, &AttachmentSpec::of(known)));
        if differences.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        steps.push(AttachStep::Put {
            request: Box::new(spec.request()),
            differences: differences.unwrap_or_default(),
        });
    }
    if is_pruning {
        let gone = current
            .iter()
            .filter(|known| !named.contains_key(&known.name));
        // First what is in the way of a name.
        let gone = gone.map(|known| AttachStep::Detach {
            name: known.name.clone(),
        });
        steps.splice(0..0, gone);
    }
    Ok(steps)
}

fn differences(wanted: &AttachmentSpec, known: &AttachmentSpec) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, wanted: String, known: String| {
        if wanted != known {
            all.push(format!("{what} {known} -> {wanted}"));
        }
    };
    compare("leader", wanted.leader.clone(), known.leader.clone());
    compare("database", wanted.database.clone(), known.database.clone());
    let json = |value: &slipstream_model::TableLevelSharing| {
        serde_json::to_string(value).unwrap_or_default()
    };
    compare("sharing", json(&wanted.sharing), json(&known.sharing));
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    compare(
        "databaseNameOverride",
        text(&wanted.database_name_override),
        text(&known.database_name_override),
    );
    compare(
        "databaseNamePrefix",
        text(&wanted.database_name_prefix),
        text(&known.database_name_prefix),
    );
    compare(
        "defaultPrincipalsModificationKind",
        wanted.default_principals_modification_kind.to_string(),
        known.default_principals_modification_kind.to_string(),
    );
    all
}

/// The commands that give a database the settings that the document says.
///
/// # Errors
/// When a policy cannot be read.
pub(super) fn commands(
    database: &str,
    wanted: &DatabaseSpec,
    current: &Overrides,
) -> anyhow::Result<Vec<String>> {
    let mut changes = Vec::new();
    let policy = |spec: &CachingSpec| {
        let policy = spec.policy();
        policy.with_context(|| format!("caching of database '{database}'"))
    };
    let caching = wanted.caching.as_ref().map(policy).transpose()?;
    if caching != current.caching_policy {
        changes.push(caching_change(Vec::new(), caching));
    }
    for (kind, wanted, current) in [
        (
            EntityKind::Table,
            &wanted.tables,
            &current.table_caching_policies,
        ),
        (
            EntityKind::MaterializedView,
            &wanted.materialized_views,
            &current.materialized_view_caching_policies,
        ),
    ] {
        for (name, spec) in wanted {
            let policy = policy(spec)?;
            if current.get(name) != Some(&policy) {
                changes.push(caching_change(entity(kind, name), Some(policy)));
            }
        }
        for name in current.keys().filter(|name| !wanted.contains_key(*name)) {
            changes.push(caching_change(entity(kind, name), None));
        }
    }
    principal_changes(&wanted.principals, &current.principals, &mut changes);
    if let Some(kind) = wanted.principals_modification_kind
        && kind != current.principals_modification_kind
    {
        changes.push(OverrideChange::SetPrincipalsKind(kind));
    }
    if wanted.caching_policies_modification_kind != current.caching_policies_modification_kind {
        let kind = wanted.caching_policies_modification_kind;
        changes.push(OverrideChange::SetCachingKind(kind));
    }
    if wanted.prefetch_extents != current.prefetch_extents {
        changes.push(OverrideChange::SetPrefetch(wanted.prefetch_extents));
    }
    let changes = changes.iter();
    Ok(changes
        .map(|change| follower_command(database, change))
        .collect())
}

fn entity(kind: EntityKind, name: &str) -> Vec<EntityName> {
    let name = name.to_owned();
    vec![EntityName { kind, name }]
}

fn caching_change(entities: Vec<EntityName>, policy: Option<CachingPolicy>) -> OverrideChange {
    match policy {
        Some(policy) => OverrideChange::SetCaching { entities, policy },
        None => OverrideChange::DeleteCaching { entities },
    }
}

/// New principals before old ones go, so that nobody is locked out between.
fn principal_changes(
    wanted: &[DatabasePrincipal],
    current: &[DatabasePrincipal],
    changes: &mut Vec<OverrideChange>,
) {
    let new = wanted
        .iter()
        .filter(|principal| !current.contains(principal));
    changes.extend(new.map(|new| OverrideChange::AddPrincipals(vec![new.clone()])));
    let is_wanted = |known: &DatabasePrincipal| {
        wanted
            .iter()
            .any(|new| (new.role, &new.principal) == (known.role, &known.principal))
    };
    for role in DatabaseRole::ALL {
        let gone = current
            .iter()
            .filter(|known| known.role == *role && !is_wanted(known));
        let principals: Vec<_> = gone.map(|known| known.principal.clone()).collect();
        if !principals.is_empty() {
            let role = *role;
            changes.push(OverrideChange::DropPrincipals { role, principals });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "
databases:
  d:
    principalsModificationKind: Replace
    caching: {hot: 7d, hotWindows: [{from: 2026-01-01, to: 2026-01-02}]}
    tables: {t: 3d}
    principals:
      - {role: Viewer, principal: aaduser=ada, notes: ours}
      - {role: Admin, principal: aadapp=ops}
";

    #[test]
    fn applying_what_was_applied_changes_nothing() {
        let document: Document = serde_saphyr::from_str(DOCUMENT).expect("a document");
        let spec = &document.databases["d"];
        let mut overrides = Overrides {
            prefetch_extents: true,
            table_caching_policies: [("old".to_owned(), CachingPolicy::hot(Default::default()))]
                .into(),
            principals: vec![DatabasePrincipal {
                role: DatabaseRole::User,
                principal: "aaduser=gone".parse().expect("a principal"),
                notes: None,
            }],
            ..Overrides::default()
        };
        let texts = commands("d", spec, &overrides).expect("readable");
        assert_eq!(texts.len(), 8, "{texts:#?}");
        for text in &texts {
            match slipstream_kusto::parse(text) {
                Ok(slipstream_kusto::Command::Follower { change, .. }) => {
                    overrides = overrides.changed(change).expect("allowed");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let again = commands("d", spec, &overrides).expect("readable");
        assert!(again.is_empty(), "{again:#?}");
    }

    #[test]
    fn a_mistake_in_a_document_is_named() {
        for (text, phrase) in [
            (
                "attachments: [{leader: l, database: d, sharings: {}}]",
                "sharings",
            ),
            ("attachments: [{database: d}]", "leader"),
            ("databases: {d: {cachingKind: Replace}}", "cachingKind"),
            (
                "databases: {d: {principals: [{role: Owner, principal: aaduser=a}]}}",
                "Owner",
            ),
        ] {
            let error = serde_saphyr::from_str::<Document>(text).expect_err(text);
            assert!(error.to_string().contains(phrase), "{text}: {error}");
        }
        let text = "databases: {d: {caching: soon}}";
        let document: Document = serde_saphyr::from_str(text).expect("a document");
        let error = commands("d", &document.databases["d"], &Overrides::default());
        assert!(format!("{:#}", error.expect_err("no timespan")).contains("'soon'"));
    }
}
