//! Which caching policy holds for a table on a follower, and which extents it makes hot.
//!
//! The rules are those of *Follower cluster commands* and *Caching policy* (Kusto documentation).
//! How Union merges is not documented there; here an override takes the place of the leader's
//! policy of the same entity, and what has no override keeps the leader's.

use std::fmt;
use std::time::Duration;

use crate::{CachingPoliciesModificationKind, CachingPolicy, Overrides, Timestamp};

/// What the leader says of one table.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaderCaching<'a> {
    /// The database's policy.
    pub database: Option<&'a CachingPolicy>,
    /// The table's own.
    pub table: Option<&'a CachingPolicy>,
}

/// The policy that holds for one table, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveCaching {
    /// The policy; `None`: everything is hot.
    pub policy: Option<CachingPolicy>,
    /// Where it comes from.
    pub source: CachingSource,
}

/// Where a table's caching policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CachingSource {
    /// The table's policy at the leader.
    LeaderTable,
    /// The database's policy at the leader.
    LeaderDatabase,
    /// This follower's override for the table.
    TableOverride,
    /// This follower's override for the database.
    DatabaseOverride,
    /// There is none.
    Nothing,
}

impl fmt::Display for CachingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaderTable => "the leader's policy of the table",
            Self::LeaderDatabase => "the leader's policy of the database",
            Self::TableOverride => "this follower's override for the table",
            Self::DatabaseOverride => "this follower's override for the database",
            Self::Nothing => "no policy: everything is hot",
        })
    }
}

impl EffectiveCaching {
    /// For a table of a database that this cluster owns.
    pub fn of_leader(leader: LeaderCaching<'_>) -> Self {
        Self::first([
            (leader.table, CachingSource::LeaderTable),
            (leader.database, CachingSource::LeaderDatabase),
        ])
    }

    /// For a table of a followed database.
    pub fn of_follower(leader: LeaderCaching<'_>, overrides: &Overrides, table: &str) -> Self {
        let own_table = overrides.table_caching_policies.get(table);
        let own_database = overrides.caching_policy.as_ref();
        match overrides.caching_policies_modification_kind {
            CachingPoliciesModificationKind::None => Self::of_leader(leader),
            CachingPoliciesModificationKind::Replace => Self::first([
                (own_table, CachingSource::TableOverride),
                (own_database, CachingSource::DatabaseOverride),
            ]),
            // A table's policy beats the database's, whoever set it: an override of the database
            // does not shrink tables that have a policy at the leader.
            CachingPoliciesModificationKind::Union => Self::first([
                (own_table, CachingSource::TableOverride),
                (leader.table, CachingSource::LeaderTable),
                (own_database, CachingSource::DatabaseOverride),
                (leader.database, CachingSource::LeaderDatabase),
            ]),
        }
    }

    fn first<const N: usize>(candidates: [(Option<&CachingPolicy>, CachingSource); N]) -> Self {
        let found = candidates
            .into_iter()
            .find_map(|(policy, source)| policy.map(|policy| (policy.clone(), source)));
        match found {
            Some((policy, source)) => Self {
                policy: Some(policy),
                source,
            },
            None => Self {
                policy: None,
                source: CachingSource::Nothing,
            },
        }
    }

    /// Whether an extent is hot, judged by the newest creation time of its rows.
    pub fn is_hot(&self, max_created_on: Timestamp, now: Timestamp) -> bool {
        let policy = self.policy.as_ref();
        policy.is_none_or(|policy| policy.is_hot(max_created_on, now))
    }
}

impl CachingPolicy {
    /// Whether an extent is hot. `now` is the leader's clock at its newest commit: with a skewed
    /// clock of this machine, or a table that nobody writes to, nothing turns cold by itself.
    pub fn is_hot(&self, max_created_on: Timestamp, now: Timestamp) -> bool {
        let age = now.as_micros().saturating_sub(max_created_on.as_micros());
        let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        let is_young = self.data_hot_span > Duration::ZERO && age <= self.data_hot_span;
        is_young
            || self
                .hot_windows
                .iter()
                .any(|window| (window.min..=window.max).contains(&max_created_on))
    }
}

#[cfg(test)]
mod tests;
