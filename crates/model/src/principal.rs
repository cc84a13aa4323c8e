//! Who may do what: principals and roles, as Kusto names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longer names than this are refused: they would fill logs and records.
const PRINCIPAL_CHARS_MAX: usize = 256;

/// A principal's full name: `aaduser=...`, `aadgroup=...` or `aadapp=...`, optionally with
/// `;tenant` behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalName(String);

/// A text that names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' names no principal: {reason}")]
pub struct InvalidPrincipal {
    name: String,
    reason: &'static str,
}

impl PrincipalName {
    /// Whoever comes to a node that has no tokens: it listens on loopback only.
    pub fn anonymous() -> Self {
        Self("aaduser=anonymous".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind in front of `=`, in small letters.
    pub fn kind(&self) -> PrincipalKind {
        match self.0.split('=').next() {
            Some("aadapp") => PrincipalKind::App,
            Some("aadgroup") => PrincipalKind::Group,
            _ => PrincipalKind::User,
        }
    }

    /// What stands behind `=`, without the tenant.
    pub fn id(&self) -> &str {
        let value = self.0.split_once('=').map_or("", |(_, value)| value);
        value.split_once(';').map_or(value, |(id, _)| id)
    }

    /// The tenant behind `;`.
    pub fn tenant(&self) -> Option<&str> {
        self.0.split_once(';').map(|(_, tenant)| tenant)
    }
}

impl FromStr for PrincipalName {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| {
            Err(InvalidPrincipal {
                name: text.chars().take(PRINCIPAL_CHARS_MAX).collect(),
                reason,
            })
        };
        let Some((kind, value)) = text.split_once('=') else {
            return fail("it is not kind=name, such as aaduser=ada@example.org");
        };
        let kind = kind.trim().to_ascii_lowercase();
        if !matches!(kind.as_str(), "aaduser" | "aadgroup" | "aadapp") {
            return fail("the kinds are aaduser, aadgroup and aadapp");
        }
        let value = value.trim();
        if value.is_empty() || value.starts_with(';') {
            return fail("nothing stands behind '='");
        }
        if value.chars().any(char::is_control) {
            return fail("it contains a control character");
        }
        if text.chars().count() > PRINCIPAL_CHARS_MAX {
            return fail("it is longer than 256 characters");
        }
        Ok(Self(format!("{kind}={value}")))
    }
}

impl TryFrom<String> for PrincipalName {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PrincipalName> for String {
    fn from(name: PrincipalName) -> Self {
        name.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A group of people.
    Group,
    /// A program.
    App,
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::App => "App",
        })
    }
}

/// A role that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no role: there are {known}")]
pub struct UnknownRole {
    name: String,
    known: String,
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal | $plural:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every role.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What commands call the principals of this role.
            pub const fn plural(self) -> &'static str {
                match self {
                    $(Self::$variant => $plural,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }

        impl FromStr for $name {
            type Err = UnknownRole;

            /// Singular or plural, in any case.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $(if text.eq_ignore_ascii_case($text) || text.eq_ignore_ascii_case($plural) {
                    return Ok(Self::$variant);
                })*
                let known: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
                Err(UnknownRole { name: text.to_owned(), known: known.join(", ") })
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownRole;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(role: $name) -> Self {
                role.to_string()
            }
        }
    };
}

role!(
    /// A role in one database (*Role-based access control*, Kusto documentation).
    DatabaseRole {
        /// Everything in the database.
        Admin = "Admin" | "admins",
        /// Reads, and creates tables and functions.
        User = "User" | "users",
        /// Reads.
        Viewer = "Viewer" | "viewers",
        /// Reads, restricted views too; there are none in this version, so it is a viewer.
        UnrestrictedViewer = "UnrestrictedViewer" | "unrestrictedviewers",
        /// Takes rows in, without reading any.
        Ingestor = "Ingestor" | "ingestors",
        /// Sees metadata, no rows.
        Monitor = "Monitor" | "monitors",
    }
);

role!(
    /// A role in all databases of a cluster.
    ClusterRole {
        /// Everything in every database.
        AllDatabasesAdmin = "AllDatabasesAdmin" | "alldatabasesadmin",
        /// Reads every database.
        AllDatabasesViewer = "AllDatabasesViewer" | "alldatabasesviewer",
        /// Sees the metadata of every database.
        AllDatabasesMonitor = "AllDatabasesMonitor" | "alldatabasesmonitor",
        /// Attaches, detaches, invites: what Azure calls Contributor on the cluster resource.
        Contributor = "Contributor" | "contributors",
    }
);

/// A principal's role in a database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabasePrincipal {
    /// The role.
    pub role: DatabaseRole,
    /// Who.
    pub principal: PrincipalName,
    /// What whoever added it wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

#[cfg(test)]
mod tests;
