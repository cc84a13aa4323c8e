//! Which files nobody can read any more: a pure function of what was removed, and of who reads.
//!
//! The file of an extent is deleted when all of this holds; each on its own keeps it:
//!
//! * a commit took the extent out of its table, and the grace period since is over,
//! * one lease period has passed since the leader began, so that it knows who reads,
//! * nobody holds a version before that commit: no follower by a lease, no query of the leader's
//!   own, no pin,
//! * no table of the newest state has the extent: it may have moved to another one,
//! * no later removal that is kept names it: it may have left that other table too.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use slipstream_catalog::{DatabaseState, Removal, RemovedExtent};
use slipstream_frontend::{GarbageBlocker, GarbageReason};
use slipstream_model::{ExtentId, Timestamp, Version};

use crate::leases::Lease;

/// Somebody who reads a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// The lowest version that they read.
    pub(super) version: Version,
    /// By what they hold it.
    pub(super) reason: GarbageReason,
    /// Who they are, for people.
    pub(super) name: String,
    /// Until when at least, when they are not heard of again.
    pub(super) until: Option<Timestamp>,
}

/// All who read a database: followers by their leases, queries of the leader's own, and versions
/// that somebody pinned.
pub(super) fn holders(
    leases: impl Iterator<Item = Lease>,
    queries: impl Iterator<Item = Version>,
    pins: impl Iterator<Item = (String, Version)>,
) -> Vec<Holder> {
    let leases = leases.map(|lease| Holder {
        version: lease.lowest_version,
        reason: GarbageReason::Lease,
        name: format!(
            "{}/{} node {}",
            lease.follower_cluster, lease.configuration, lease.node
        ),
        until: Some(lease.expires_at),
    });
    let queries = queries.map(|version| Holder {
        version,
        reason: GarbageReason::Query,
        name: format!("version {version}"),
        until: None,
    });
    let pins = pins.map(|(name, version)| Holder {
        version,
        reason: GarbageReason::Pin,
        name: format!("version {version} pinned as '{name}'"),
        until: None,
    });
    leases.chain(queries).chain(pins).collect()
}

/// What deleting has to wait for.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The time now.
    pub(super) now: Timestamp,
    /// How long files are kept after the removing commit.
    pub(super) grace: Duration,
    /// How long it is still unknown who reads.
    pub(super) until_leases_are_known: Duration,
    /// Who reads.
    pub(super) holders: Vec<Holder>,
}

/// Why what a commit removed is kept, and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocker {
    pub(super) reason: GarbageReason,
    pub(super) holder: String,
    pub(super) until: Option<Timestamp>,
}

impl Rules {
    /// What keeps the extents of a removal; `None`: nothing that is known without a look at tables.
    ///
    /// What holds for one removal holds for every later one too.
    pub(super) fn blocker(&self, removal: &Removal) -> Option<Blocker> {
        let blocker = |reason, until| {
            Some(Blocker {
                reason,
                holder: String::new(),
                until: Some(until),
            })
        };
        let over = removal.removed_at.plus(self.grace);
        if self.now < over {
            return blocker(GarbageReason::Grace, over);
        }
        if !self.until_leases_are_known.is_zero() {
            let known = self.now.plus(self.until_leases_are_known);
            return blocker(GarbageReason::Restart, known);
        }
        let below = self.holders.iter();
        let below = below.filter(|holder| holder.version < removal.version);
        let lowest = below.min_by_key(|holder| holder.version)?;
        Some(Blocker {
            reason: lowest.reason,
            holder: lowest.name.clone(),
            until: lowest.until,
        })
    }

    /// How many of the first removals nothing blocks.
    fn open(&self, removals: &[Removal]) -> usize {
        let open = removals.iter();
        open.take_while(|removal| self.blocker(removal).is_none())
            .count()
    }
}

/// An extent whose file goes, and what made it garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deletable {
    pub(super) extent: RemovedExtent,
    pub(super) table: String,
    pub(super) version: Version,
    pub(super) removed_at: Timestamp,
}

/// A batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Picked {
    /// The version of the last removal that was looked at.
    pub(super) through: Version,
    /// What is to be deleted, each extent once.
    pub(super) delete: Vec<Deletable>,
    /// What has nothing to delete: the extent stands in another table, or left that one too, and a
    /// later removal speaks for it.
    pub(super) spared: HashSet<ExtentId>,
}

/// The first extents that nothing blocks; `None` when there are none. `held_of` says which of some
/// extents the newest state has.
pub(super) fn pick(
    removals: &[Removal],
    rules: &Rules,
    extents_max: usize,
    held_of: impl FnOnce(&[ExtentId]) -> HashSet<ExtentId>,
) -> Option<Picked> {
    let (open, kept) = removals.split_at(rules.open(removals));
    let each = open.iter().flat_map(|removal| {
        let extents = removal.extents.iter();
        extents.map(move |extent| (removal, *extent))
    });
    let first: Vec<(&Removal, RemovedExtent)> = each.take(extents_max).collect();
    let through = first.last()?.0.version;
    let ids: HashSet<ExtentId> = first.iter().map(|(_, extent)| extent.id).collect();
    let mut spared = held_of(&ids.iter().copied().collect::<Vec<_>>());
    let kept = kept.iter().flat_map(|removal| &removal.extents);
    let kept = kept.map(|extent| extent.id);
    spared.extend(kept.filter(|id| ids.contains(id)));

    let mut seen = spared.clone();
    let first = first.into_iter();
    let delete = first.filter(|(_, extent)| seen.insert(extent.id));
    let delete = delete.map(|(removal, extent)| Deletable {
        extent,
        table: removal.table.clone(),
        version: removal.version,
        removed_at: removal.removed_at,
    });
    Some(Picked {
        through,
        delete: delete.collect(),
        spared,
    })
}

/// Which of some extents any table has.
pub(super) fn held_of(state: &DatabaseState, ids: &[ExtentId]) -> HashSet<ExtentId> {
    let tables = state.tables();
    tables
        .flat_map(|table| table.extents.held_of(ids))
        .collect()
}

/// What keeps removed extents in the bucket, summed up by reason and holder. What nothing keeps is
/// among it, as due.
pub(super) fn blockers(
    database: &str,
    removals: &[Removal],
    rules: &Rules,
    held: &HashSet<ExtentId>,
) -> Vec<GarbageBlocker> {
    let mut sums = BTreeMap::<(GarbageReason, String), GarbageBlocker>::new();
    for removal in removals {
        let blocker = rules.blocker(removal);
        for extent in &removal.extents {
            let (reason, holder, until) = match &blocker {
                _ if held.contains(&extent.id) => (GarbageReason::InTable, "", None),
                Some(blocker) => (blocker.reason, blocker.holder.as_str(), blocker.until),
                None => (GarbageReason::Due, "", None),
            };
            let sum = sums
                .entry((reason, holder.to_owned()))
                .or_insert_with(|| GarbageBlocker {
                    database: database.to_owned(),
                    reason,
                    holder: holder.to_owned(),
                    extents: 0,
                    bytes: 0,
                    oldest_version: removal.version,
                    oldest_removed_at: removal.removed_at,
                    until,
                });
            sum.extents += 1;
            sum.bytes += extent.size_bytes;
        }
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests;
