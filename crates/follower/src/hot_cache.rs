//! The cache of a follower node: what is hot by its own policies, kept on its own disk.
//!
//! One budget and one plan for all followed databases together. The plan is made anew when a
//! database has another version, or its settings have changed; between two commits of the leader
//! nothing turns cold. What leaves the hot set stays on the disk, if there is room, until what comes
//! is there and no query reads a state that had it: so a merge at the leader leaves no gap to those
//! who wait for new extents to be near (`prefetch-extents`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parking_lot::RwLock;
use slipstream_cache::{
    BucketReads, CachedStore, ColdCache, Fetch, Form, HotExtent, HotMemory, HotTier, Warmer,
    WarmerOptions, plan,
};
use slipstream_catalog::{DatabaseState, TableState};
use slipstream_frontend::settings::{NodeSettings, extent_paths};
use slipstream_frontend::{CacheDescription, CachingPreview, HotSet};
use slipstream_model::{
    Clock, EffectiveCaching, ExtentId, LeaderCaching, Overrides, Timestamp, Version,
};
use slipstream_query::{ExtentAccess, QueryRuntime, ReadStatistics};
use slipstream_storage::{BucketConnection, BucketPath};
use tokio::sync::Notify;

use crate::cache_settings::{CacheForm, CacheSettings};
use crate::extents::CachedExtents;
use crate::following::Following;
use crate::registry::Registry;

/// How often the node looks whether there is another plan to make, when nobody says so.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Of the disk, this part in a hundred is for whole hot extents; the rest is for what queries read
/// of cold ones (*Caching policy*, Kusto documentation).
const HOT_PERCENT: u64 = 95;
/// Of the memory, this part is for blocks of cold extents.
const COLD_MEMORY_DIVISOR: u64 = 8;

/// What a plan was made of: when none of it has changed, neither has the plan.
type Basis = Vec<(String, Version, Overrides)>;

/// A node's cache.
#[derive(Debug)]
pub(crate) struct HotCache {
    warmer: Warmer,
    settings: CacheSettings,
    memory: HotMemory,
    cold: ColdCache,
    queries: Arc<BucketReads>,
    connection: BucketConnection,
    hot: Arc<HotSetIds>,
    /// The hot extents of the last plan, by database and table.
    tables: RwLock<BTreeMap<(String, String), Vec<HotExtent>>>,
    /// Asks for a plan at once.
    look: Notify,
}

/// The extents that are hot by the last plan, those that did not fit included.
#[derive(Debug, Default)]
pub(crate) struct HotSetIds(RwLock<HashSet<ExtentId>>);

impl HotSetIds {
    pub(crate) fn holds(&self, extent: ExtentId) -> bool {
        self.0.read().contains(&extent)
    }
}

impl HotCache {
    /// Opens the cache below the node's directory.
    ///
    /// # Errors
    /// When the directory cannot be used, or belongs to another node.
    pub(crate) async fn open(
        node: &NodeSettings,
        settings: CacheSettings,
        connection: &BucketConnection,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<Self>> {
        let directory = node.data_dir.join("cache");
        let owner = format!("cluster '{}'", node.cluster);
        let tier = HotTier::open(directory.join("hot"), &owner)
            .context("cannot use the cache's directory")?;
        let hot_bytes = settings.disk_bytes / 100 * HOT_PERCENT;
        let cold_memory_bytes = settings.memory_bytes / COLD_MEMORY_DIVISOR;
        let cold_directory = directory.join("cold");
        let fail = || {
            format!(
                "cannot use the cache's directory {}",
                cold_directory.display()
            )
        };
        std::fs::create_dir_all(&cold_directory).with_context(fail)?;
        let cold = ColdCache::open(
            &cold_directory,
            settings.disk_bytes - hot_bytes,
            usize::try_from(cold_memory_bytes).unwrap_or(usize::MAX),
        );
        let cold = cold.await.with_context(fail)?;
        let hot_memory_bytes = settings.memory_bytes - cold_memory_bytes;
        let options = WarmerOptions {
            budget_bytes: hot_bytes,
            bytes_per_second: settings.bandwidth,
            encode: settings.form == CacheForm::Vortex,
        };
        let queries = Arc::<BucketReads>::default();
        let fetch = fetch_from(connection.clone());
        let warmer = Warmer::new(Arc::new(tier), options, fetch, clock, Arc::clone(&queries));
        Ok(Arc::new(Self {
            warmer,
            settings,
            memory: HotMemory::new(usize::try_from(hot_memory_bytes).unwrap_or(usize::MAX)),
            cold,
            queries,
            connection: connection.clone(),
            hot: Arc::default(),
            tables: RwLock::default(),
            look: Notify::new(),
        }))
    }

    /// How queries read extents.
    pub(crate) fn extents(&self) -> Arc<dyn ExtentAccess> {
        let tier = Arc::clone(self.warmer.tier());
        let cached = CachedStore::new(
            self.connection.object_store(),
            Arc::clone(&tier),
            Some(self.cold.clone()),
            Arc::clone(&self.queries),
        );
        Arc::new(CachedExtents {
            paths: extent_paths(&self.connection),
            store: Arc::new(cached.clone()),
            cached,
            tier,
            memory: self.memory.clone(),
            hot: Arc::clone(&self.hot),
            connection: self.connection.clone(),
        })
    }

    /// How full it is. `reads` is what queries have read of each table, by `database.table`.
    pub(crate) fn describe(&self, reads: &BTreeMap<String, ReadStatistics>) -> CacheDescription {
        let (plan, progress) = (self.warmer.last_plan(), self.warmer.progress());
        let mut tables = BTreeMap::new();
        let mut hot = HotSet::default();
        for ((database, table), extents) in self.tables.read().iter() {
            let mut set = self.hot_set(extents);
            let reads = reads.get(&format!("{database}.{table}"));
            set.reads = reads.copied().unwrap_or_default();
            hot.add(&set);
            tables.insert((database.clone(), table.clone()), set);
        }
        CacheDescription {
            disk_bytes: self.settings.disk_bytes,
            hot,
            shortfall_bytes: plan.shortfall_bytes,
            waiting_extents: progress.waiting_extents,
            waiting_bytes: progress.waiting_bytes,
            in_flight_bytes: progress.in_flight_bytes,
            fetched_bytes: progress.fetched_bytes,
            failures: progress.failures,
            memory_bytes_max: self.settings.memory_bytes,
            memory_bytes: self.memory.bytes(),
            cold_disk_bytes: self.cold.disk_bytes(),
            tables,
        }
    }

    fn hot_set(&self, extents: &[HotExtent]) -> HotSet {
        let tier = self.warmer.tier();
        let mut set = HotSet::default();
        for extent in extents {
            set.extents += 1;
            match tier.holds(extent.extent) {
                None => set.bytes += extent.size_bytes,
                Some(resident) => {
                    set.bytes += resident.file_bytes;
                    set.resident_extents += 1;
                    set.resident_bytes += resident.file_bytes;
                    if tier.form(extent.extent) == Some(Form::Vortex) {
                        set.encoded_extents += 1;
                    }
                }
            }
        }
        set
    }

    /// What the cache would do if a database had other settings.
    pub(crate) fn preview(
        &self,
        registry: &Registry,
        runtime: &QueryRuntime,
        database: &str,
        overrides: &Overrides,
    ) -> CachingPreview {
        let mut followed = followed(registry);
        let hot = |followed: &[Followed]| -> Vec<HotExtent> {
            hot_tables(followed).into_values().flatten().collect()
        };
        let before = hot(&followed);
        for one in &mut followed {
            if one.following.source().database == database {
                one.overrides = overrides.clone();
            }
        }
        let after = hot(&followed);
        let resident = self.warmer.tier().resident();
        let budget_bytes = self.warmer.options().budget_bytes;
        let now = plan(before.clone(), &resident, budget_bytes);
        let then = plan(after.clone(), &resident, budget_bytes);
        let paths = extent_paths(&self.connection);
        let replay = |hot: &[HotExtent]| {
            runtime.replay(
                hot.iter()
                    .map(|extent| paths(extent.database, extent.extent)),
            )
        };
        let evicted = then.evict.iter().filter_map(|extent| resident.get(extent));
        CachingPreview {
            fetch_extents: then.fetch.len() as u64,
            fetch_bytes: then.fetch.iter().map(|extent| extent.size_bytes).sum(),
            evict_extents: then.evict.len() as u64,
            evict_bytes: evicted.map(|resident| resident.file_bytes).sum(),
            hot_bytes_before: now.hot_bytes,
            hot_bytes_after: then.hot_bytes,
            budget_bytes,
            shortfall_bytes: then.shortfall_bytes,
            before: replay(&before),
            after: replay(&after),
        }
    }

    /// Fetches what is hot of a database, or of one of its tables, before anything else.
    pub(crate) fn warm(&self, database: &str, table: Option<&str>) {
        let tables = self.tables.read();
        let asked = tables
            .iter()
            .filter(|((of, name), _)| of == database && table.is_none_or(|table| table == name));
        let asked = asked
            .flat_map(|(_, extents)| extents)
            .map(|extent| extent.extent);
        self.warmer.prefer(asked.collect());
        self.look.notify_one();
    }

    /// Keeps the cache in line with what is hot, for as long as the node runs.
    pub(crate) async fn run(self: Arc<Self>, registry: Arc<Registry>) {
        let clock = Arc::clone(&registry.context().clock);
        let news = Arc::clone(&registry.context().news);
        let (mut last, mut is_settled) = (None, true);
        loop {
            let followed = followed(&registry);
            // What is not synchronised yet says nothing of what is hot: after a start nothing is
            // thrown away before it does.
            let are_all = followed.len() == registry.all().len();
            let basis = (basis(&followed), self.warmer.tier().losses(), are_all);
            if last.as_ref() != Some(&basis) || self.warmer.is_retry_due() {
                let tables = hot_tables(&followed);
                let hot: Vec<HotExtent> = tables.values().flatten().cloned().collect();
                self.warmer
                    .note_replacements(replacements(&self.tables.read(), &tables));
                // What was hot stays so for queries of older states, for as long as it is here.
                let ids = hot.iter().map(|extent| extent.extent);
                self.hot.0.write().extend(ids);
                *self.tables.write() = tables;
                let is_outdated = || self::basis(&self::followed(&registry)) != basis.0;
                if are_all {
                    self.warmer.bring(hot.clone(), is_outdated).await;
                } else {
                    self.warmer.bring_part(hot.clone(), is_outdated).await;
                }
                self.show(&followed);
                is_settled = !are_all || self.let_go(&followed);
                self.warmer.encode(hot, is_outdated).await;
                last = Some(basis);
            }
            is_settled = is_settled || self.let_go(&followed);
            tokio::select! {
                () = clock.sleep(LOOK_INTERVAL) => {}
                () = news.notified() => {}
                () = self.look.notified() => last = None,
            }
        }
    }

    /// Lets those states be seen whose hot extents are here, as far as they fit.
    fn show(&self, followed: &[Followed]) {
        let tier = self.warmer.tier();
        let fetched = self.warmer.last_plan().fetch;
        let missing = fetched.iter().map(|extent| extent.extent);
        let missing: HashSet<ExtentId> = missing
            .filter(|extent| tier.holds(*extent).is_none())
            .collect();
        for one in followed.iter().filter(|one| one.overrides.prefetch_extents) {
            let mut tables = one.state.tables();
            let waits = tables.any(|table| {
                let hot = hot_extents(&one.state, table, &one.overrides);
                hot.iter().any(|extent| missing.contains(&extent.extent))
            });
            if !waits {
                one.following.show(&one.state, one.last_contact);
            }
        }
    }

    /// Lets go of what is not hot any more, once what is hot is here, and no query reads an older
    /// state or can begin to. Whether it has.
    fn let_go(&self, followed: &[Followed]) -> bool {
        let is_newest = |one: &Followed| {
            let newest = one.state.version();
            let served = one.following.served().state;
            let is_served = served.is_some_and(|served| served.version() >= newest);
            let lowest = one.following.pins.lowest();
            is_served && lowest.is_none_or(|lowest| lowest >= newest)
        };
        if !followed.iter().all(is_newest) || !self.warmer.let_go() {
            return false;
        }
        let mut ids = HashSet::new();
        for extents in self.tables.read().values() {
            ids.extend(extents.iter().map(|extent| extent.extent));
        }
        *self.hot.0.write() = ids;
        true
    }

    /// Brings to the disk what is still in memory.
    pub(crate) async fn close(&self) {
        self.cold.close().await;
    }
}

fn fetch_from(bucket: BucketConnection) -> Fetch {
    Arc::new(move |extent: &HotExtent| {
        let path = BucketPath::extent(extent.database, extent.extent);
        let (store, path) = (bucket.object_store(), bucket.object_path(&path));
        let opened = async move { Ok(store.get(&path).await?.into_stream()) };
        let pieces = opened.try_flatten_stream();
        pieces
            .map_err(|error: object_store::Error| error.to_string())
            .boxed()
    })
}

/// A followed database, at its newest version.
struct Followed {
    following: Arc<Following>,
    state: DatabaseState,
    /// When that was last known to be the newest.
    last_contact: Timestamp,
    overrides: Overrides,
}

/// The databases that had their first synchronisation. Tells each whether it is to wait for its
/// extents.
fn followed(registry: &Registry) -> Vec<Followed> {
    let overrides = registry.overrides_by_database();
    let all = registry.all().into_iter();
    all.filter_map(|following| {
        let own = overrides.get(&following.source().database);
        let overrides = own.cloned().unwrap_or_default();
        following.hold(overrides.prefetch_extents);
        let newest = following.newest();
        Some(Followed {
            following,
            state: newest.state?,
            last_contact: newest.last_contact,
            overrides,
        })
    })
    .collect()
}

fn basis(followed: &[Followed]) -> Basis {
    let basis = followed.iter().map(|one| {
        let name = one.following.source().database.clone();
        (name, one.state.version(), one.overrides.clone())
    });
    basis.collect()
}

/// Every extent that is hot on this node, by database and table.
fn hot_tables(followed: &[Followed]) -> BTreeMap<(String, String), Vec<HotExtent>> {
    let mut hot = BTreeMap::new();
    for one in followed {
        for table in one.state.tables() {
            let extents = hot_extents(&one.state, table, &one.overrides);
            if !extents.is_empty() {
                let database = one.following.source().database.clone();
                hot.insert((database, table.name.to_string()), extents);
            }
        }
    }
    hot
}

/// What is newly hot in tables from which something has gone: above all what a merge has made of
/// that. While it is not here, queries of the newest state read it from the bucket.
fn replacements(
    before: &BTreeMap<(String, String), Vec<HotExtent>>,
    now: &BTreeMap<(String, String), Vec<HotExtent>>,
) -> HashSet<ExtentId> {
    let ids = |extents: &[HotExtent]| -> HashSet<ExtentId> {
        extents.iter().map(|extent| extent.extent).collect()
    };
    let mut replacements = HashSet::new();
    for (table, extents) in now {
        let (now, before) = (ids(extents), before.get(table).map(|known| ids(known)));
        if let Some(before) = before.filter(|before| !before.is_subset(&now)) {
            replacements.extend(now.difference(&before));
        }
    }
    replacements
}

/// The extents of a table that are hot.
pub(crate) fn hot_extents(
    state: &DatabaseState,
    table: &TableState,
    overrides: &Overrides,
) -> Vec<HotExtent> {
    let leader = LeaderCaching {
        database: state.caching_policy(),
        table: table.policies.caching.as_ref(),
    };
    let caching = EffectiveCaching::of_follower(leader, overrides, table.name.as_str());
    let now = state.committed_at();
    let mut hot = Vec::new();
    for block in table.extents.blocks() {
        for slot in block.live_slots() {
            // It is in memory as it is.
            if block.inline(slot).is_some() {
                continue;
            }
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
    hot
}
