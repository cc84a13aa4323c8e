//! A follower's own settings for a followed database, and how they combine with the leader's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    CachingPoliciesModificationKind, DatabasePrincipal, DatabaseRole, EntityKind, PrincipalName,
    PrincipalsModificationKind, Timestamp,
};

/// Principals in the overrides of one database.
pub const OVERRIDE_PRINCIPALS_MAX: usize = 1_000;

/// Which extents are to be kept near the processors, judged by their creation times.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachingPolicy {
    /// Extents created within this time before now are hot.
    pub data_hot_span: Duration,
    /// The same for indexes; Parquet keeps them in the footer, which is always kept.
    pub index_hot_span: Duration,
    /// Extents created within one of these are hot too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot_windows: Vec<HotWindow>,
}

impl CachingPolicy {
    /// `hot = span`.
    pub const fn hot(span: Duration) -> Self {
        Self {
            data_hot_span: span,
            index_hot_span: span,
            hot_windows: Vec::new(),
        }
    }
}

/// A range of creation times that is hot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotWindow {
    /// From, inclusive.
    pub min: Timestamp,
    /// To, inclusive.
    pub max: Timestamp,
}

/// A table or materialized view that has a caching policy of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityName {
    /// What it is.
    pub kind: EntityKind,
    /// What it is called.
    pub name: String,
}

/// One change of a follower's own settings for a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideChange {
    /// `policy caching hot = ...` of the database, or of some of its entities.
    SetCaching {
        /// The entities; none: the database.
        entities: Vec<EntityName>,
        /// The policy.
        policy: CachingPolicy,
    },
    /// `.delete ... policy caching`: the leader's counts again.
    DeleteCaching {
        /// The entities; none: the database.
        entities: Vec<EntityName>,
    },
    /// `.add follower database D role (...)`.
    AddPrincipals(Vec<DatabasePrincipal>),
    /// `.drop follower database D role (...)`.
    DropPrincipals {
        /// The role.
        role: DatabaseRole,
        /// Who loses it.
        principals: Vec<PrincipalName>,
    },
    /// `.set database D role (...)`: these have the role, and nobody else.
    SetPrincipals {
        /// The role.
        role: DatabaseRole,
        /// Who has it; any role they bring is put in its place.
        principals: Vec<DatabasePrincipal>,
    },
    /// `principals-modification-kind = ...`.
    SetPrincipalsKind(PrincipalsModificationKind),
    /// `caching-policies-modification-kind = ...`.
    SetCachingKind(CachingPoliciesModificationKind),
    /// `prefetch-extents = ...`.
    SetPrefetch(bool),
}

/// A follower's own settings for one followed database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// The database's caching policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caching_policy: Option<CachingPolicy>,
    /// The caching policies of tables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub table_caching_policies: BTreeMap<String, CachingPolicy>,
    /// The caching policies of materialized views.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub materialized_view_caching_policies: BTreeMap<String, CachingPolicy>,
    /// Principals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<DatabasePrincipal>,
    /// How principals combine.
    pub principals_modification_kind: PrincipalsModificationKind,
    /// How caching policies combine.
    pub caching_policies_modification_kind: CachingPoliciesModificationKind,
    /// Show new extents only once they are local. Then what a merge at the leader takes the place of
    /// is read until the result is here; else queries read the result from the bucket meanwhile.
    pub prefetch_extents: bool,
}

/// A change that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOverride {
    /// Only four roles can be overridden.
    #[error(
        "role '{0}' cannot be overridden on a follower: use admins, users, viewers or monitors"
    )]
    Role(DatabaseRole),
    /// Nothing of this kind is cached.
    #[error("a {0} has no caching policy: only tables and materialized views have")]
    Entity(EntityKind),
    /// Too many principals.
    #[error("a database has at most {OVERRIDE_PRINCIPALS_MAX} principals of its own on a follower")]
    TooManyPrincipals,
}

impl Overrides {
    /// The settings after a change. Making the same change twice is making it once.
    ///
    /// # Errors
    /// When the change is not one that a follower may make.
    pub fn changed(mut self, change: OverrideChange) -> Result<Self, InvalidOverride> {
        match change {
            OverrideChange::SetCaching { entities, policy } => {
                self.set_caching(&entities, Some(&policy))?;
            }
            OverrideChange::DeleteCaching { entities } => self.set_caching(&entities, None)?,
            OverrideChange::AddPrincipals(added) => self.add_principals(added)?,
            OverrideChange::DropPrincipals { role, principals } => self
                .principals
                .retain(|known| known.role != role || !principals.contains(&known.principal)),
            OverrideChange::SetPrincipals { role, principals } => {
                self.set_principals(role, principals)?;
            }
            OverrideChange::SetPrincipalsKind(kind) => self.principals_modification_kind = kind,
            OverrideChange::SetCachingKind(kind) => self.caching_policies_modification_kind = kind,
            OverrideChange::SetPrefetch(prefetch) => self.prefetch_extents = prefetch,
        }
        Ok(self)
    }

    fn set_caching(
        &mut self,
        entities: &[EntityName],
        policy: Option<&CachingPolicy>,
    ) -> Result<(), InvalidOverride> {
        if entities.is_empty() {
            self.caching_policy = policy.cloned();
        }
        for entity in entities {
            let policies = match entity.kind {
                EntityKind::Table => &mut self.table_caching_policies,
                EntityKind::MaterializedView => &mut self.materialized_view_caching_policies,
                kind => return Err(InvalidOverride::Entity(kind)),
            };
            match policy {
                Some(policy) => policies.insert(entity.name.clone(), policy.clone()),
                None => policies.remove(&entity.name),
            };
        }
        Ok(())
    }

    fn set_principals(
        &mut self,
        role: DatabaseRole,
        principals: Vec<DatabasePrincipal>,
    ) -> Result<(), InvalidOverride> {
        check_role(role)?;
        self.principals.retain(|known| known.role != role);
        let with_role = |principal| DatabasePrincipal { role, ..principal };
        self.add_principals(principals.into_iter().map(with_role).collect())
    }

    fn add_principals(&mut self, added: Vec<DatabasePrincipal>) -> Result<(), InvalidOverride> {
        for new in added {
            check_role(new.role)?;
            let is_same = |known: &&mut DatabasePrincipal| {
                (known.role, &known.principal) == (new.role, &new.principal)
            };
            match self.principals.iter_mut().find(is_same) {
                Some(known) => *known = new,
                None => self.principals.push(new),
            }
        }
        if self.principals.len() > OVERRIDE_PRINCIPALS_MAX {
            return Err(InvalidOverride::TooManyPrincipals);
        }
        Ok(())
    }

    /// Who has a role in the database here, given who has one at the leader.
    pub fn effective_principals(&self, leader: &[DatabasePrincipal]) -> Vec<DatabasePrincipal> {
        use PrincipalsModificationKind as Kind;
        let kind = self.principals_modification_kind;
        let inherited = leader.iter().filter(|_| kind != Kind::Replace);
        let mut effective: Vec<_> = inherited.cloned().collect();
        let own = self.principals.iter().filter(|_| kind != Kind::None);
        for principal in own {
            let is_same = |known: &DatabasePrincipal| {
                (known.role, &known.principal) == (principal.role, &principal.principal)
            };
            if !effective.iter().any(is_same) {
                effective.push(principal.clone());
            }
        }
        effective
    }
}

fn check_role(role: DatabaseRole) -> Result<(), InvalidOverride> {
    use DatabaseRole::{Admin, Monitor, User, Viewer};
    if matches!(role, Admin | User | Viewer | Monitor) {
        return Ok(());
    }
    Err(InvalidOverride::Role(role))
}

#[cfg(test)]
mod tests;
