//! What a follower attaches of a leader, and under which names.
//!
//! Rules: *Attach databases in Azure Data Explorer* (`follower.md`) and the resource
//! `Microsoft.Kusto/clusters/attachedDatabaseConfigurations`, API version 2025-02-14.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DatabaseName, InvalidName};

/// Entries of all filters of one configuration together, as `follower.md` limits them.
pub const SHARING_ENTRIES_MAX: usize = 100;
/// The name that stands for all databases of a leader, those created later included.
pub const ALL_DATABASES: &str = "*";

/// What kind of thing a filter, an override or a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntityKind {
    /// A table with extents of its own.
    Table,
    /// A table over files elsewhere.
    ExternalTable,
    /// A materialized view.
    MaterializedView,
    /// A stored function.
    Function,
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::ExternalTable => "external table",
            Self::MaterializedView => "materialized view",
            Self::Function => "function",
        })
    }
}

/// Which entities of a database a follower sees: `tableLevelSharingProperties`.
///
/// An empty include list includes everything of that kind; exclude beats include. A pattern is a
/// name in which each `*` stands for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TableLevelSharing {
    /// Tables to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables_to_include: Vec<String>,
    /// Tables not to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables_to_exclude: Vec<String>,
    /// External tables to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_tables_to_include: Vec<String>,
    /// External tables not to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_tables_to_exclude: Vec<String>,
    /// Materialized views to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub materialized_views_to_include: Vec<String>,
    /// Materialized views not to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub materialized_views_to_exclude: Vec<String>,
    /// Functions to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions_to_include: Vec<String>,
    /// Functions not to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions_to_exclude: Vec<String>,
}

impl TableLevelSharing {
    /// Whether an entity of that name is followed.
    pub fn allows(&self, kind: EntityKind, name: &str) -> bool {
        let (include, exclude) = self.lists(kind);
        let is_named = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| pattern_matches(pattern, name))
        };
        !is_named(exclude) && (include.is_empty() || is_named(include))
    }

    /// Whether everything is followed.
    pub fn is_everything(&self) -> bool {
        self.entry_count() == 0
    }

    /// Entries of all eight lists.
    pub fn entry_count(&self) -> usize {
        self.all_lists().iter().map(|list| list.len()).sum()
    }

    /// The patterns of one kind: include, exclude.
    pub fn lists(&self, kind: EntityKind) -> (&[String], &[String]) {
        match kind {
            EntityKind::Table => (&self.tables_to_include, &self.tables_to_exclude),
            EntityKind::ExternalTable => (
                &self.external_tables_to_include,
                &self.external_tables_to_exclude,
            ),
            EntityKind::MaterializedView => (
                &self.materialized_views_to_include,
                &self.materialized_views_to_exclude,
            ),
            EntityKind::Function => (&self.functions_to_include, &self.functions_to_exclude),
        }
    }

    /// Whether everything that these filters show is also shown by `other`, told from the patterns
    /// alone: equal lists, or `other` without filters. What cannot be told is not within.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_everything() || self == other
    }

    fn all_lists(&self) -> [&Vec<String>; 8] {
        [
            &self.tables_to_include,
            &self.tables_to_exclude,
            &self.external_tables_to_include,
            &self.external_tables_to_exclude,
            &self.materialized_views_to_include,
            &self.materialized_views_to_exclude,
            &self.functions_to_include,
            &self.functions_to_exclude,
        ]
    }
}

/// Whether a name fits a pattern in which each `*` stands for any characters, or none.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// One database, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DatabaseSelection {
    /// The one of a name.
    One(DatabaseName),
    /// `*`: all that there are, and those created later.
    All,
}

impl fmt::Display for DatabaseSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(name) => name.as_str(),
            Self::All => ALL_DATABASES,
        })
    }
}

impl FromStr for DatabaseSelection {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            ALL_DATABASES => Ok(Self::All),
            name => name.parse().map(Self::One),
        }
    }
}

impl TryFrom<String> for DatabaseSelection {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DatabaseSelection> for String {
    fn from(selection: DatabaseSelection) -> Self {
        selection.to_string()
    }
}

/// What an attached database configuration asks for: the part that does not change with time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTerms {
    /// Which databases.
    pub database: DatabaseSelection,
    /// What of them.
    #[serde(default, skip_serializing_if = "TableLevelSharing::is_everything")]
    pub sharing: TableLevelSharing,
    /// What the one database is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name_override: Option<DatabaseName>,
    /// What stands here in front of the name of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name_prefix: Option<String>,
}

impl AttachTerms {
    /// Everything of the selected databases, under their own names.
    pub fn of(database: DatabaseSelection) -> Self {
        Self {
            database,
            sharing: TableLevelSharing::default(),
            database_name_override: None,
            database_name_prefix: None,
        }
    }

    /// Checks what can be told without asking the leader.
    ///
    /// # Errors
    /// When terms contradict each other or exceed a limit.
    pub fn check(&self) -> Result<(), InvalidTerms> {
        let entries = self.sharing.entry_count();
        if entries > SHARING_ENTRIES_MAX {
            return Err(InvalidTerms::TooManyEntries(entries));
        }
        if let Some(empty) = self
            .sharing
            .all_lists()
            .iter()
            .position(|list| list.contains(&String::new()))
        {
            return Err(InvalidTerms::EmptyEntry(LIST_NAMES[empty]));
        }
        if self.database == DatabaseSelection::All {
            if entries > 0 {
                return Err(InvalidTerms::FiltersOfAll);
            }
            if self.database_name_override.is_some() {
                return Err(InvalidTerms::OverrideOfAll);
            }
        }
        if self.database_name_override.is_some() && self.database_name_prefix.is_some() {
            return Err(InvalidTerms::OverrideAndPrefix);
        }
        Ok(())
    }

    /// What a database of the leader is called on the follower.
    ///
    /// # Errors
    /// When prefix and name together cannot be a database's name.
    pub fn name_here(&self, original: &DatabaseName) -> Result<DatabaseName, InvalidName> {
        match (&self.database_name_override, &self.database_name_prefix) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(prefix)) => DatabaseName::new(format!("{prefix}{original}")),
            (None, None) => Ok(original.clone()),
        }
    }
}

const LIST_NAMES: [&str; 8] = [
    "tablesToInclude",
    "tablesToExclude",
    "externalTablesToInclude",
    "externalTablesToExclude",
    "materializedViewsToInclude",
    "materializedViewsToExclude",
    "functionsToInclude",
    "functionsToExclude",
];

/// Terms that no leader would be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// More filters than allowed.
    #[error(
        "tableLevelSharingProperties has {0} entries, and at most {SHARING_ENTRIES_MAX} are \
         allowed: use wildcards"
    )]
    TooManyEntries(usize),
    /// A filter that could not match anything.
    #[error("{0} has an empty entry: remove it")]
    EmptyEntry(&'static str),
    /// Filters name entities of one database.
    #[error(
        "tableLevelSharingProperties cannot be used with databaseName '*': attach databases one by one"
    )]
    FiltersOfAll,
    /// One name for many databases.
    #[error("databaseNameOverride cannot be used with databaseName '*': use databaseNamePrefix")]
    OverrideOfAll,
    /// Two ways to the name.
    #[error("databaseNameOverride and databaseNamePrefix cannot be used together")]
    OverrideAndPrefix,
}

macro_rules! modification_kind {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }

        impl FromStr for $name {
            type Err = UnknownKind;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $(if text.eq_ignore_ascii_case($text) {
                    return Ok(Self::$variant);
                })*
                Err(UnknownKind(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownKind;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(kind: $name) -> Self {
                kind.to_string()
            }
        }
    };
}

/// A modification kind that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no modification kind: there are Union, Replace and None")]
pub struct UnknownKind(String);

modification_kind!(
    /// How a follower combines the leader's principals of a database with its own. The sources
    /// disagree about a default, so that an attach has to state it.
    PrincipalsModificationKind {
        /// The leader's and its own.
        #[default]
        Union = "Union",
        /// Its own only: without any, nobody has a role in the database.
        Replace = "Replace",
        /// The leader's only.
        None = "None",
    }
);

modification_kind!(
    /// How a follower combines the leader's caching policies with its own.
    CachingPoliciesModificationKind {
        /// Its own where it has one, else the leader's.
        #[default]
        Union = "Union",
        /// Its own only: without any, everything is hot.
        Replace = "Replace",
        /// The leader's only.
        None = "None",
    }
);

#[cfg(test)]
mod tests;
