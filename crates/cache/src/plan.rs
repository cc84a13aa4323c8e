//! What is to be on the disk: a pure function of what is hot, what is here, and how much fits.

use std::collections::{BTreeMap, BTreeSet};

use slipstream_model::{DatabaseId, Digest, ExtentId, Timestamp};

/// An extent that a policy makes hot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotExtent {
    /// Where it is from.
    pub database: DatabaseId,
    /// Which one.
    pub extent: ExtentId,
    /// Its length in the bucket.
    pub size_bytes: u64,
    /// What its bytes in the bucket hash to.
    pub sha256: Digest,
    /// When its newest rows were taken in.
    pub max_created_on: Timestamp,
}

/// An extent that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Bytes of its file, which may be in another form than the bucket's.
    pub file_bytes: u64,
    /// What the extent's bytes in the bucket hash to.
    pub sha256: Digest,
}

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be fetched, the newest first.
    pub fetch: Vec<HotExtent>,
    /// To go: not hot any more, or pushed out by newer ones.
    pub evict: Vec<ExtentId>,
    /// Bytes of everything that is hot.
    pub hot_bytes: u64,
    /// Bytes of what is hot and does not fit.
    pub shortfall_bytes: u64,
}

impl Plan {
    /// Parts what is to go: into what goes before anything is fetched, because both do not fit or
    /// because it stands where the other will; and into what may stay until that is here. So the
    /// sources of a merge are near as long as the result is not.
    ///
    /// `resident` and `budget_bytes` are those of the plan. The oldest go first.
    pub fn make_room(
        &self,
        resident: &BTreeMap<ExtentId, Resident>,
        budget_bytes: u64,
    ) -> (Vec<ExtentId>, Vec<ExtentId>) {
        let fetched: BTreeSet<ExtentId> = self.fetch.iter().map(|e| e.extent).collect();
        let bytes = |extent: &ExtentId| resident.get(extent).map_or(0, |here| here.file_bytes);
        let sum = |all: u64, bytes: u64| all.saturating_add(bytes);
        let here = resident.values().map(|here| here.file_bytes);
        let coming = self.fetch.iter().map(|extent| extent.size_bytes);
        let mut excess = here.chain(coming).fold(0, sum).saturating_sub(budget_bytes);
        let (mut first, mut later): (Vec<_>, Vec<_>) = self
            .evict
            .iter()
            .copied()
            .partition(|extent| fetched.contains(extent));
        excess = excess.saturating_sub(first.iter().map(bytes).fold(0, sum));
        // Ids are time-ordered.
        let oldest = later.iter().take_while(|extent| {
            let is_needed = excess > 0;
            excess = excess.saturating_sub(bytes(extent));
            is_needed
        });
        let stays = later.split_off(oldest.count());
        first.append(&mut later);
        (first, stays)
    }
}

/// Decides. `resident` is what is on the disk; what is not is taken to be as large as it is in the
/// bucket.
///
/// When the hot extents do not fit into `budget_bytes`, the newest are kept (*Caching policy*,
/// Kusto documentation): all that are newer than the first one that does not fit, so that no old
/// small extent stays in the place of a newer one.
pub fn plan(
    mut hot: Vec<HotExtent>,
    resident: &BTreeMap<ExtentId, Resident>,
    budget_bytes: u64,
) -> Plan {
    // Ids are time-ordered; they decide between extents of one moment, the same way each time.
    hot.sort_unstable_by(|a, b| {
        let newest = b.max_created_on.cmp(&a.max_created_on);
        newest.then_with(|| b.extent.cmp(&a.extent))
    });
    hot.dedup_by_key(|extent| extent.extent);
    let here = |extent: &HotExtent| {
        let here = resident.get(&extent.extent);
        here.filter(|here| here.sha256 == extent.sha256)
    };
    let bytes = |extent: &HotExtent| here(extent).map_or(extent.size_bytes, |here| here.file_bytes);
    let total = |extents: &[HotExtent]| extents.iter().map(bytes).fold(0, u64::saturating_add);
    let hot_bytes = total(&hot);
    let mut kept_bytes = 0_u64;
    let fits = hot.iter().take_while(|extent| {
        kept_bytes = kept_bytes.saturating_add(bytes(extent));
        kept_bytes <= budget_bytes
    });
    let left_out = hot.split_off(fits.count());
    let shortfall_bytes = total(&left_out);
    let kept = hot.iter().filter(|extent| here(extent).is_some());
    let kept: BTreeSet<ExtentId> = kept.map(|extent| extent.extent).collect();
    let evict = resident.keys().filter(|extent| !kept.contains(extent));
    let evict = evict.copied().collect();
    hot.retain(|extent| here(extent).is_none());
    Plan {
        fetch: hot,
        evict,
        hot_bytes,
        shortfall_bytes,
    }
}

#[cfg(test)]
mod tests;
