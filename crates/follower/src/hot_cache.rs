//! The hot cache of a follower node: what is hot by its own policies, kept on its own disk.
//!
//! One budget and one plan for all followed databases together. The plan is made anew when a
//! database has another version, or its settings have changed, and now and then because time
//! passes; between two commits of the leader nothing turns cold.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::FutureExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::RwLock;
use slipstream_cache::{CachedStore, Fetch, HotExtent, HotTier, Warmer};
use slipstream_catalog::{DatabaseState, TableState};
use slipstream_frontend::CacheDescription;
use slipstream_frontend::settings::NodeSettings;
use slipstream_model::{EffectiveCaching, ExtentId, LeaderCaching, Overrides, Version};
use slipstream_query::Residency;
use slipstream_storage::{BucketConnection, BucketPath};

use crate::registry::Registry;

/// How often the node looks whether there is another plan to make.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Of the disk, this part in a hundred is for whole hot extents; the rest is for what queries read
/// of cold ones (*Caching policy*, Kusto documentation).
const HOT_PERCENT: u64 = 95;

/// What a plan was made of: when none of it has changed, neither has the plan.
type Basis = Vec<(String, Version, Overrides)>;

/// A node's hot cache.
#[derive(Debug)]
pub(crate) struct HotCache {
    warmer: Warmer,
    disk_bytes: u64,
    /// The extents that are hot by the last plan, those that did not fit included.
    hot: RwLock<HashSet<ExtentId>>,
}

impl HotCache {
    /// Opens the cache below the node's directory.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn open(
        settings: &NodeSettings,
        disk_bytes: u64,
        bucket: &BucketConnection,
    ) -> anyhow::Result<Arc<Self>> {
        let directory = settings.data_dir.join("cache");
        let tier = HotTier::open(directory).context("cannot use the cache's directory")?;
        let bucket = bucket.clone();
        let fetch: Fetch = Arc::new(move |extent: HotExtent| {
            let bucket = bucket.clone();
            async move {
                let path = BucketPath::extent(extent.database, extent.extent);
                let bytes: Result<Bytes, _> = bucket.get(&path).await;
                bytes.map_err(|error| error.to_string())
            }
            .boxed()
        });
        let budget_bytes = disk_bytes / 100 * HOT_PERCENT;
        Ok(Arc::new(Self {
            warmer: Warmer::new(Arc::new(tier), budget_bytes, fetch),
            disk_bytes,
            hot: RwLock::default(),
        }))
    }

    /// The bucket with the cache in front of it.
    pub(crate) fn store(&self, bucket: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(CachedStore::new(bucket, Arc::clone(self.warmer.tier())))
    }

    /// Where the bytes of an extent come from now.
    pub(crate) fn residency(&self, path: &Path) -> Residency {
        let Some(extent) = CachedStore::extent_of(path) else {
            return Residency::Cold;
        };
        if !self.hot.read().contains(&extent) {
            Residency::Cold
        } else if self.warmer.tier().holds(extent) {
            Residency::HotHit
        } else {
            Residency::HotMiss
        }
    }

    /// How full it is.
    pub(crate) fn describe(&self) -> CacheDescription {
        let (usage, plan) = (self.warmer.tier().usage(), self.warmer.last_plan());
        CacheDescription {
            disk_bytes: self.disk_bytes,
            hot_extents: self.hot.read().len() as u64,
            hot_bytes: plan.hot_bytes,
            resident_extents: usage.extents,
            resident_bytes: usage.bytes,
            shortfall_bytes: plan.shortfall_bytes,
        }
    }

    /// Keeps the cache in line with what is hot, for as long as the node runs.
    pub(crate) async fn run(self: Arc<Self>, registry: Arc<Registry>) {
        let clock = Arc::clone(&registry.context().clock);
        let mut last = None;
        loop {
            let basis = basis(&registry);
            if last.as_ref() != Some(&basis) {
                // What is not synchronised yet says nothing of what is hot: after a start nothing
                // is thrown away before it does.
                if basis.len() == registry.all().len() {
                    let hot = hot_extents(&registry);
                    *self.hot.write() = hot.iter().map(|extent| extent.extent).collect();
                    let is_outdated = || self::basis(&registry) != basis;
                    self.warmer.run(hot, is_outdated).await;
                    // What could not be fetched is tried again.
                    let is_complete = self.warmer.is_complete();
                    last = is_complete.then_some(basis);
                }
            }
            clock.sleep(LOOK_INTERVAL).await;
        }
    }
}

fn basis(registry: &Registry) -> Basis {
    let overrides = registry.overrides_by_database();
    let all = registry.all().into_iter();
    all.filter_map(|following| {
        let version = following.served().state?.version();
        let name = following.source().database.clone();
        let own = overrides.get(&name).cloned().unwrap_or_default();
        Some((name, version, own))
    })
    .collect()
}

/// Every extent that is hot on this node.
fn hot_extents(registry: &Registry) -> Vec<HotExtent> {
    let overrides = registry.overrides_by_database();
    let mut hot = Vec::new();
    for following in registry.all() {
        let Some(state) = following.served().state else {
            continue;
        };
        let own = overrides.get(&following.source().database);
        let own = own.cloned().unwrap_or_default();
        for table in state.tables() {
            add_hot(&state, table, &own, &mut hot);
        }
    }
    hot
}

fn add_hot(
    state: &DatabaseState,
    table: &TableState,
    overrides: &Overrides,
    hot: &mut Vec<HotExtent>,
) {
    let leader = LeaderCaching {
        database: state.caching_policy(),
        table: table.policies.caching.as_ref(),
    };
    let caching = EffectiveCaching::of_follower(leader, overrides, table.name.as_str());
    let now = state.committed_at();
    for block in table.extents.blocks() {
        for slot in block.live_slots() {
            let extent = block.extent(slot);
            if caching.is_hot(extent.max_created_on, now) {
                hot.push(HotExtent {
                    database: state.id(),
                    extent: extent.id,
                    size_bytes: extent.size_bytes,
                    sha256: extent.sha256,
                    max_created_on: extent.max_created_on,
                });
            }
        }
    }
}
