//! Brings the tier in line with what is hot.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use crate::{HotExtent, HotTier, Plan, plan};

/// Extents that are fetched at one time: enough to fill a gigabit from a store that answers in
/// tens of milliseconds, and few enough to leave queries their share.
const FETCHES: usize = 4;

/// Reads a whole extent from the bucket.
pub type Fetch = Arc<dyn Fn(HotExtent) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// Fetches and evicts.
pub struct Warmer {
    tier: Arc<HotTier>,
    budget_bytes: u64,
    fetch: Fetch,
    last: Mutex<Plan>,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmer")
            .field("tier", &self.tier)
            .field("budget_bytes", &self.budget_bytes)
            .finish_non_exhaustive()
    }
}

impl Warmer {
    /// Fills a tier with at most so many bytes.
    pub fn new(tier: Arc<HotTier>, budget_bytes: u64, fetch: Fetch) -> Self {
        Self {
            tier,
            budget_bytes,
            fetch,
            last: Mutex::default(),
        }
    }

    /// The tier.
    pub fn tier(&self) -> &Arc<HotTier> {
        &self.tier
    }

    /// Bytes that it may hold.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// What was decided last.
    pub fn last_plan(&self) -> Plan {
        self.last.lock().clone()
    }

    /// Whether everything that the last plan wanted is here.
    pub fn is_complete(&self) -> bool {
        let last = self.last.lock();
        last.fetch
            .iter()
            .all(|extent| self.tier.holds(extent.extent))
    }

    /// Evicts what is to go, then fetches what is to come, the newest first. What cannot be
    /// fetched is left for the next time; queries read it from the bucket meanwhile. Stops between
    /// two extents when `is_outdated` says that there is a newer plan to make.
    pub async fn run(&self, hot: Vec<HotExtent>, is_outdated: impl Fn() -> bool) {
        let plan = plan(hot, &self.tier.resident(), self.budget_bytes);
        *self.last.lock() = plan.clone();
        self.tell();
        for extent in &plan.evict {
            self.tier.evict(*extent);
        }
        let wanted = stream::iter(plan.fetch).take_while(|_| std::future::ready(!is_outdated()));
        wanted
            .for_each_concurrent(FETCHES, |extent| async move {
                if let Err(reason) = self.bring(extent.clone()).await {
                    metrics::counter!("slipstream_cache_failures_total").increment(1);
                    tracing::warn!(extent = %extent.extent, %reason, "an extent could not be cached");
                }
            })
            .await;
        self.tell();
    }

    async fn bring(&self, extent: HotExtent) -> Result<(), String> {
        let bytes = (self.fetch)(extent.clone()).await?;
        metrics::counter!("slipstream_cache_fetched_bytes_total").increment(bytes.len() as u64);
        let tier = Arc::clone(&self.tier);
        // Hashing and writing take milliseconds, which queries on this thread should not wait.
        let insert = move || {
            tier.insert(&extent, &bytes)
                .map_err(|error| error.to_string())
        };
        let inserted = tokio::task::spawn_blocking(insert).await;
        inserted.map_err(|error| error.to_string())?
    }

    /// The metrics: as Azure's `CacheUtilizationFactor`, hot bytes in percent of the disk.
    fn tell(&self) {
        let (usage, last) = (self.tier.usage(), self.last_plan());
        let percent = last.hot_bytes as f64 * 100.0 / self.budget_bytes.max(1) as f64;
        metrics::gauge!("slipstream_cache_utilization_percent").set(percent);
        metrics::gauge!("slipstream_cache_resident_bytes").set(usage.bytes as f64);
        metrics::gauge!("slipstream_cache_resident_extents").set(usage.extents as f64);
        metrics::gauge!("slipstream_cache_shortfall_bytes").set(last.shortfall_bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::FutureExt;
    use slipstream_model::{DatabaseId, Digest, ExtentId, Timestamp};

    use super::*;

    fn extent(number: u8) -> HotExtent {
        let bytes = [number; 10];
        HotExtent {
            database: DatabaseId::default(),
            extent: ExtentId::from_slice(&[number; 16]).expect("16 bytes"),
            size_bytes: 10,
            sha256: Digest::of(&bytes),
            max_created_on: Timestamp::from_micros(i64::from(number)),
        }
    }

    fn warmer(budget_bytes: u64, damaged: u8) -> (Warmer, Arc<AtomicU64>, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tier = Arc::new(HotTier::open(directory.path().to_owned()).expect("usable"));
        let fetches = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&fetches);
        let fetch: Fetch = Arc::new(move |extent: HotExtent| {
            counted.fetch_add(1, Ordering::SeqCst);
            let number = extent.extent.as_bytes()[0];
            let byte = if number == damaged { 0xFF } else { number };
            async move { Ok(Bytes::from(vec![byte; 10])) }.boxed()
        });
        (Warmer::new(tier, budget_bytes, fetch), fetches, directory)
    }

    fn here(warmer: &Warmer) -> Vec<u8> {
        let resident: BTreeMap<_, _> = warmer.tier().resident();
        resident.keys().map(|id| id.as_bytes()[0]).collect()
    }

    #[tokio::test]
    async fn the_tier_follows_what_is_hot() {
        let (warmer, fetches, _directory) = warmer(25, 0);
        warmer
            .run(vec![extent(1), extent(2), extent(3)], || false)
            .await;
        assert_eq!(here(&warmer), [2, 3]);
        assert_eq!(warmer.last_plan().shortfall_bytes, 10);
        warmer.run(vec![extent(3), extent(4)], || false).await;
        assert_eq!(here(&warmer), [3, 4]);
        assert_eq!(
            fetches.load(Ordering::SeqCst),
            3,
            "what is here is not fetched again"
        );
        warmer.run(Vec::new(), || false).await;
        assert_eq!(here(&warmer), Vec::<u8>::new());
    }

    #[tokio::test]
    async fn one_damaged_extent_keeps_no_other_out() {
        let (warmer, _, _directory) = warmer(100, 2);
        warmer
            .run(vec![extent(1), extent(2), extent(3)], || false)
            .await;
        assert_eq!(here(&warmer), [1, 3]);
    }

    #[tokio::test]
    async fn a_plan_that_is_outdated_fetches_nothing_more() {
        let (warmer, fetches, _directory) = warmer(100, 0);
        warmer.run(vec![extent(1), extent(2)], || true).await;
        assert_eq!(fetches.load(Ordering::SeqCst), 0);
    }
}
