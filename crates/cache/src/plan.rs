//! What is to be on the disk: a pure function of what is hot, what is here, and how much fits.

use std::collections::BTreeMap;

use slipstream_model::{DatabaseId, Digest, ExtentId, Timestamp};

/// An extent that a policy makes hot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotExtent {
    /// Where it is from.
    pub database: DatabaseId,
    /// Which one.
    pub extent: ExtentId,
    /// Its length.
    pub size_bytes: u64,
    /// What its bytes hash to.
    pub sha256: Digest,
    /// When its newest rows were taken in.
    pub max_created_on: Timestamp,
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

/// Decides. `resident` is what is on the disk, with its sizes.
///
/// When the hot extents do not fit into `budget_bytes`, the newest are kept (*Caching policy*,
/// Kusto documentation): all that are newer than the first one that does not fit, so that no old
/// small extent stays in the place of a newer one.
pub fn plan(
    mut hot: Vec<HotExtent>,
    resident: &BTreeMap<ExtentId, u64>,
    budget_bytes: u64,
) -> Plan {
    // Ids are time-ordered; they decide between extents of one moment, the same way each time.
    hot.sort_unstable_by(|a, b| {
        let newest = b.max_created_on.cmp(&a.max_created_on);
        newest.then_with(|| b.extent.cmp(&a.extent))
    });
    hot.dedup_by_key(|extent| extent.extent);
    let hot_bytes = hot.iter().map(|extent| extent.size_bytes).sum();
    let mut kept_bytes = 0_u64;
    let fits = hot.iter().take_while(|extent| {
        kept_bytes = kept_bytes.saturating_add(extent.size_bytes);
        kept_bytes <= budget_bytes
    });
    let count = fits.count();
    hot.truncate(count);
    let wanted: BTreeMap<ExtentId, u64> = hot
        .iter()
        .map(|extent| (extent.extent, extent.size_bytes))
        .collect();
    let wanted_bytes: u64 = wanted.values().sum();
    let is_here = |extent: &HotExtent| resident.get(&extent.extent) == Some(&extent.size_bytes);
    let evict = resident
        .iter()
        .filter(|(extent, size)| wanted.get(extent) != Some(size))
        .map(|(extent, _)| *extent)
        .collect();
    hot.retain(|extent| !is_here(extent));
    Plan {
        fetch: hot,
        evict,
        hot_bytes,
        shortfall_bytes: hot_bytes - wanted_bytes,
    }
}

#[cfg(test)]
mod tests;
