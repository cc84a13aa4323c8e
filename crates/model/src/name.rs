//! Names that users choose, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Kusto's limit for entity names.
const NAME_CHARS_MAX: usize = 1024;
/// A cluster name becomes a path segment and a host label.
const CLUSTER_NAME_CHARS_MAX: usize = 63;
/// Schemas of the system's own.
const RESERVED_DATABASES: [&str; 2] = ["slipstream", "information_schema"];

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name '{name}' cannot be used: {reason}")]
pub struct InvalidName {
    kind: &'static str,
    name: String,
    reason: &'static str,
}

fn check_common(kind: &'static str, name: &str) -> Result<(), InvalidName> {
    let fail = |reason| {
        Err(InvalidName {
            kind,
            name: name.to_owned(),
            reason,
        })
    };
    if name.is_empty() {
        return fail("it is empty");
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return fail("it is longer than 1024 characters");
    }
    if name.trim() != name {
        return fail("it begins or ends with white space");
    }
    if name.chars().any(char::is_control) {
        return fail("it contains a control character");
    }
    Ok(())
}

fn check_database(name: &str) -> Result<(), InvalidName> {
    check_common("database", name)?;
    if RESERVED_DATABASES
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
    {
        let reason = "it is the name of a system schema";
        return Err(InvalidName {
            kind: "database",
            name: name.to_owned(),
            reason,
        });
    }
    Ok(())
}

fn check_table(name: &str) -> Result<(), InvalidName> {
    check_common("table", name)
}

fn check_function(name: &str) -> Result<(), InvalidName> {
    check_common("function", name)
}

fn check_pin(name: &str) -> Result<(), InvalidName> {
    check_common("pin", name)
}

fn check_cluster(name: &str) -> Result<(), InvalidName> {
    check_common("cluster", name)?;
    let fail = |reason| {
        Err(InvalidName {
            kind: "cluster",
            name: name.to_owned(),
            reason,
        })
    };
    if name.len() > CLUSTER_NAME_CHARS_MAX {
        return fail("it is longer than 63 characters");
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return fail("only letters, digits, '-' and '_' are allowed");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the name.
            ///
            /// # Errors
            /// When the name cannot be used; the error says why.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                let name = name.into();
                $check(&name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, Self::Error> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// The name of a database: 1 to 1024 characters, not the name of a system schema.
    DatabaseName,
    check_database
);
name!(
    /// The name of a table: 1 to 1024 characters.
    TableName,
    check_table
);
name!(
    /// The name of a stored function: 1 to 1024 characters.
    FunctionName,
    check_function
);
name!(
    /// The name of a pinned version: 1 to 1024 characters.
    PinName,
    check_pin
);
name!(
    /// The name of a cluster: 1 to 63 letters, digits, `-` and `_`.
    ClusterName,
    check_cluster
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_hide_or_break_something_are_refused() {
        for name in ["", " a", "a\n", "slipstream", "Information_Schema"] {
            assert!(DatabaseName::new(name).is_err(), "{name:?}");
        }
        for name in ["", "a/b", "..", "a.b", &"x".repeat(64)] {
            assert!(ClusterName::new(name).is_err(), "{name:?}");
        }
        assert!(TableName::new("Störungen 2013").is_ok());
    }
}
