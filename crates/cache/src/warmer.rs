//! Brings the tier in line with what is hot.
//!
//! First everything that is to be here is fetched, as it is: then it is near. After that, one
//! extent at a time is turned into the form that scans faster. So warming goes as fast as the
//! bucket gives, and queries never wait for an encoder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use slipstream_model::{Clock, ExtentId, Timestamp};
use tokio::sync::mpsc;

use crate::form::Encoder;
use crate::{Form, HotExtent, HotTier, Plan, Resident, TierError, plan};

/// Extents that are fetched at one time: enough to fill ten gigabits from a store that answers in
/// tens of milliseconds.
const FETCHES: usize = 8;
/// Pieces of an extent that wait to be written; the bucket gives some kilobytes at a time.
const PIECES: usize = 64;
/// How long a fetch that failed waits before it is tried again, doubled with each failure.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// How long it waits at most.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long an extent that could not be turned into another form stays as it is.
const ENCODE_RETRY: Duration = Duration::from_secs(600);
/// How long a fetch that waits for queries to have read sleeps before it looks again.
const YIELD: Duration = Duration::from_millis(10);

/// Reads a whole extent from the bucket, piece by piece.
pub type Fetch = Arc<dyn Fn(&HotExtent) -> BoxStream<'static, Result<Bytes, String>> + Send + Sync>;

/// What bounds warming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmerOptions {
    /// Bytes on the disk.
    pub budget_bytes: u64,
    /// Bytes fetched in a second; `None`: as fast as the bucket gives them.
    pub bytes_per_second: Option<u64>,
    /// Whether extents are turned into the form that scans faster, or stay Parquet.
    pub encode: bool,
}

/// How far warming is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Extents that are being fetched now.
    pub in_flight_extents: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
    /// Bytes that were fetched since the start.
    pub fetched_bytes: u64,
    /// Extents that still have to be fetched, those in flight included.
    pub waiting_extents: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Attempts that failed since the start.
    pub failures: u64,
}

/// Queries that read from the bucket now. They go before warming: while there are any, it keeps to
/// one fetch at a time.
#[derive(Debug, Default)]
pub struct BucketReads(AtomicUsize);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct BucketRead<'a>(&'a BucketReads);

impl BucketReads {
    /// A query begins to read.
    pub fn begin(&self) -> BucketRead<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        BucketRead(self)
    }

    fn are_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for BucketRead<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of turning an extent into another form.
enum Encoded {
    /// It is, or is not here any more.
    Done,
    /// The form does not take its types.
    NeverFits,
    /// The other form would not fit on the disk now.
    NoRoom,
}

/// Fetches of one extent that failed, one after another.
#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    /// When it may be tried again, in the clock's monotonic time.
    until: Duration,
}

/// Fetches, encodes and evicts.
pub struct Warmer {
    tier: Arc<HotTier>,
    options: WarmerOptions,
    fetch: Fetch,
    clock: Arc<dyn Clock>,
    queries: Arc<BucketReads>,
    encoder: Encoder,
    /// Extents that stay as they are: for good, if no other form takes them, or for a while.
    stays: Mutex<HashMap<ExtentId, Option<Duration>>>,
    /// Extents that could not be fetched.
    failed: Mutex<HashMap<ExtentId, Failed>>,
    /// Extents that somebody asked for: they are fetched first.
    preferred: Mutex<HashSet<ExtentId>>,
    /// Extents that take the place of others which were hot: they are fetched first too.
    replacing: Mutex<HashSet<ExtentId>>,
    /// Extents that are not hot any more, and stay until what is hot is here.
    leaving: Mutex<Vec<ExtentId>>,
    last: Mutex<Plan>,
    progress: Mutex<Progress>,
    /// When the next fetch may begin, in microseconds of the clock's monotonic time.
    next_fetch: AtomicU64,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmer")
            .field("tier", &self.tier)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Warmer {
    /// Fills a tier. `queries` are those that it gives way to.
    pub fn new(
        tier: Arc<HotTier>,
        options: WarmerOptions,
        fetch: Fetch,
        clock: Arc<dyn Clock>,
        queries: Arc<BucketReads>,
    ) -> Self {
        Self {
            tier,
            options,
            fetch,
            clock,
            queries,
            encoder: Encoder::default(),
            stays: Mutex::default(),
            failed: Mutex::default(),
            preferred: Mutex::default(),
            replacing: Mutex::default(),
            leaving: Mutex::default(),
            last: Mutex::default(),
            progress: Mutex::default(),
            next_fetch: AtomicU64::new(0),
        }
    }

    /// The tier.
    pub fn tier(&self) -> &Arc<HotTier> {
        &self.tier
    }

    /// What bounds it.
    pub fn options(&self) -> WarmerOptions {
        self.options
    }

    /// Fetches these before others, as far as they are hot and fit, and those that failed at once.
    pub fn prefer(&self, extents: HashSet<ExtentId>) {
        self.failed.lock().clear();
        *self.preferred.lock() = extents;
    }

    /// Fetches these before others until they are here: they are what hot extents became.
    pub fn note_replacements(&self, extents: impl IntoIterator<Item = ExtentId>) {
        self.replacing.lock().extend(extents);
    }

    /// What was decided last.
    pub fn last_plan(&self) -> Plan {
        self.last.lock().clone()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Whether there is something that could not be fetched and may be tried again by now.
    pub fn is_retry_due(&self) -> bool {
        let now = self.clock.elapsed();
        self.failed
            .lock()
            .values()
            .any(|failed| failed.until <= now)
    }

    /// Makes room and fetches what is to come, the newest first. What is to go and is not in the way
    /// stays until [`let_go`](Self::let_go). What cannot be fetched is tried again later, and read
    /// from the bucket by queries meanwhile. Stops between two extents when `is_outdated` says that
    /// there is a newer plan to make.
    pub async fn bring(&self, hot: Vec<HotExtent>, is_outdated: impl Fn() -> bool) {
        let (resident, budget_bytes) = (self.tier.resident(), self.options.budget_bytes);
        self.bring_within(hot, &resident, budget_bytes, is_outdated)
            .await;
    }

    /// The same while it is not known yet what else is hot: whatever else is here stays.
    pub async fn bring_part(&self, hot: Vec<HotExtent>, is_outdated: impl Fn() -> bool) {
        let known: HashSet<ExtentId> = hot.iter().map(|extent| extent.extent).collect();
        let (resident, others): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .tier
            .resident()
            .into_iter()
            .partition(|(extent, _)| known.contains(extent));
        let others = others.values().map(|here| here.file_bytes);
        let others = others.fold(0, u64::saturating_add);
        let budget_bytes = self.options.budget_bytes.saturating_sub(others);
        self.bring_within(hot, &resident, budget_bytes, is_outdated)
            .await;
    }

    async fn bring_within(
        &self,
        hot: Vec<HotExtent>,
        resident: &BTreeMap<ExtentId, Resident>,
        budget_bytes: u64,
        is_outdated: impl Fn() -> bool,
    ) {
        let mut plan = plan(hot, resident, budget_bytes);
        let (in_the_way, leaving) = plan.make_room(resident, budget_bytes);
        let planned: HashSet<ExtentId> = plan.fetch.iter().map(|e| e.extent).collect();
        {
            let preferred = self.preferred.lock();
            let mut replacing = self.replacing.lock();
            replacing.retain(|extent| planned.contains(extent));
            let is_first =
                |extent: &ExtentId| preferred.contains(extent) || replacing.contains(extent);
            plan.fetch.sort_by_key(|extent| !is_first(&extent.extent));
        }
        *self.last.lock() = plan.clone();
        *self.leaving.lock() = leaving;
        self.tell();
        for extent in in_the_way {
            self.tier.evict(extent);
        }
        let now = self.clock.elapsed();
        {
            let mut failed = self.failed.lock();
            failed.retain(|extent, _| planned.contains(extent));
            plan.fetch.retain(|e| {
                failed
                    .get(&e.extent)
                    .is_none_or(|failed| failed.until <= now)
            });
        }
        self.fetch_all(plan.fetch, &is_outdated).await;
        self.tell();
    }

    /// Evicts what is to go, if all that is to be here is. Queries of older states read it until
    /// then, and so does whoever waits for the new ones to be near. Whether it went.
    pub fn let_go(&self) -> bool {
        let is_here = |extent: &HotExtent| self.tier.holds(extent.extent).is_some();
        let are_all_here = self.last.lock().fetch.iter().all(is_here);
        if are_all_here {
            self.evict_leaving();
        }
        are_all_here
    }

    /// Whether there was anything to evict.
    fn evict_leaving(&self) -> bool {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        for extent in &leaving {
            self.tier.evict(*extent);
        }
        !leaving.is_empty()
    }

    async fn fetch_all(&self, wanted: Vec<HotExtent>, is_outdated: &impl Fn() -> bool) {
        {
            let mut progress = self.progress.lock();
            progress.waiting_extents = wanted.len() as u64;
            progress.waiting_bytes = wanted.iter().map(|extent| extent.size_bytes).sum();
        }
        // Some of them in any case: commits may come faster than plans are made.
        let wanted = stream::iter(wanted)
            .enumerate()
            .take_while(|(n, _)| std::future::ready(*n < FETCHES || !is_outdated()));
        wanted
            .map(|(_, extent)| extent)
            .for_each_concurrent(FETCHES, |extent| async move {
                self.wait_for_turn(extent.size_bytes).await;
                let brought = self.bring_one(&extent).await;
                let mut progress = self.progress.lock();
                progress.waiting_extents = progress.waiting_extents.saturating_sub(1);
                progress.waiting_bytes = progress.waiting_bytes.saturating_sub(extent.size_bytes);
                progress.failures += u64::from(brought.is_err());
                drop(progress);
                match brought {
                    Ok(()) => drop(self.failed.lock().remove(&extent.extent)),
                    Err(reason) => self.note_failure(extent.extent, &reason),
                }
            })
            .await;
    }

    fn note_failure(&self, extent: ExtentId, reason: &str) {
        metrics::counter!("slipstream_cache_failures_total").increment(1);
        let mut all = self.failed.lock();
        let times = all.get(&extent).map_or(0, |failed| failed.times);
        let wait = RETRY_MIN
            .saturating_mul(2_u32.saturating_pow(times))
            .min(RETRY_MAX);
        // Spread over half of it, so that what failed together is not tried together.
        let spread = (extent.as_uuid().as_u128() % 512) as u32;
        let wait = wait - wait * spread / 1_024;
        tracing::warn!(%extent, %reason, "an extent could not be cached; tried again in {wait:?}");
        let failed = Failed {
            times: times + 1,
            until: self.clock.elapsed() + wait,
        };
        all.insert(extent, failed);
    }

    /// Waits until the bandwidth allows another fetch, and, beside other fetches, until no query
    /// reads from the bucket.
    async fn wait_for_turn(&self, bytes: u64) {
        while self.queries.are_any() && self.progress().in_flight_extents > 0 {
            self.clock.sleep(YIELD).await;
        }
        let Some(per_second) = self.options.bytes_per_second else {
            return;
        };
        let takes = bytes.saturating_mul(1_000_000) / per_second.max(1);
        let now = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        let update = |next: u64| Some(next.max(now).saturating_add(takes));
        let order = Ordering::Relaxed;
        let next = self.next_fetch.fetch_update(order, order, update);
        let wait = next.unwrap_or(now).saturating_sub(now);
        self.clock.sleep(Duration::from_micros(wait)).await;
    }

    async fn bring_one(&self, extent: &HotExtent) -> Result<(), String> {
        self.note_flight(extent, 1);
        let brought = self.fetch_one(extent).await;
        self.note_flight(extent, -1);
        brought
    }

    /// Fetches an extent while what has come of it is hashed and written.
    async fn fetch_one(&self, extent: &HotExtent) -> Result<(), String> {
        let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES);
        let (tier, wanted) = (Arc::clone(&self.tier), extent.clone());
        // On a thread of its own: it takes milliseconds, which queries should not wait.
        let keep = move || {
            let mut insertion = tier.begin(wanted)?;
            while let Some(piece) = pieces.blocking_recv() {
                insertion.write(&piece)?;
            }
            Ok::<_, TierError>(insertion)
        };
        let keeping = tokio::task::spawn_blocking(keep);
        let mut fetched = (self.fetch)(extent);
        let mut failure = None;
        while let Some(piece) = fetched.next().await {
            match piece {
                Ok(piece) => {
                    let bytes = piece.len() as u64;
                    self.progress.lock().fetched_bytes += bytes;
                    metrics::counter!("slipstream_cache_fetched_bytes_total").increment(bytes);
                    // Nobody takes it any more: why not is told below.
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        drop((sender, fetched));
        let insertion = keeping.await.map_err(|error| error.to_string())?;
        let insertion = insertion.map_err(|error| error.to_string())?;
        match failure {
            Some(error) => Err(error),
            None => insertion
                .finish()
                .map(drop)
                .map_err(|error| error.to_string()),
        }
    }

    fn note_flight(&self, extent: &HotExtent, direction: i64) {
        let mut progress = self.progress.lock();
        let bytes = i64::try_from(extent.size_bytes).unwrap_or(i64::MAX);
        let add = |to: &mut u64, much: i64| *to = to.saturating_add_signed(much);
        add(&mut progress.in_flight_extents, direction);
        add(&mut progress.in_flight_bytes, direction * bytes);
    }

    /// Turns what is here as Parquet into the faster form, the newest first, when that is wanted.
    pub async fn encode(&self, mut hot: Vec<HotExtent>, is_outdated: impl Fn() -> bool) {
        if !self.options.encode {
            return;
        }
        hot.sort_unstable_by_key(|extent| std::cmp::Reverse(newest_first(extent)));
        let known: HashSet<ExtentId> = hot.iter().map(|extent| extent.extent).collect();
        self.stays.lock().retain(|extent, _| known.contains(extent));
        let mut has_encoded = false;
        for extent in hot {
            // One in any case: commits may come faster than plans are made.
            if has_encoded && is_outdated() {
                return;
            }
            let is_parquet = self.tier.form(extent.extent) == Some(Form::Parquet);
            let now = self.clock.elapsed();
            let stays = |until: &Option<Duration>| until.is_none_or(|until| until > now);
            if !is_parquet || self.stays.lock().get(&extent.extent).is_some_and(stays) {
                continue;
            }
            has_encoded = true;
            let mut encoded = self.encode_one(&extent).await;
            if matches!(encoded, Ok(Encoded::NoRoom)) && self.evict_leaving() {
                encoded = self.encode_one(&extent).await;
            }
            let until = match encoded {
                Ok(Encoded::Done) => continue,
                Ok(Encoded::NeverFits) => None,
                Ok(Encoded::NoRoom) => Some(now + ENCODE_RETRY),
                Err(reason) => {
                    tracing::warn!(extent = %extent.extent, %reason, "an extent stays as it came");
                    Some(now + ENCODE_RETRY)
                }
            };
            self.stays.lock().insert(extent.extent, until);
        }
    }

    /// Encodes one extent that is here.
    async fn encode_one(&self, extent: &HotExtent) -> Result<Encoded, String> {
        let Some(open) = self.tier.open_extent(extent.extent) else {
            return Ok(Encoded::Done);
        };
        let (tier, encoder, extent) =
            (Arc::clone(&self.tier), self.encoder.clone(), extent.clone());
        let budget_bytes = self.options.budget_bytes;
        let work = move || -> Result<Encoded, String> {
            let length = usize::try_from(open.file.payload_bytes()).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            if let Err(error) = open.file.read_at(0, &mut bytes) {
                tier.found_broken(extent.extent, &error);
                return Ok(Encoded::Done);
            }
            // On one core, whatever the machine has: queries want the others.
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let encoded = runtime.block_on(encoder.encode(bytes.into()));
            let (form, payload) = encoded.map_err(|error| error.to_string())?;
            if form == Form::Parquet {
                return Ok(Encoded::NeverFits);
            }
            let others = tier
                .usage()
                .bytes
                .saturating_sub(tier.holds(extent.extent).map_or(0, |here| here.file_bytes));
            let fits = others + crate::checked::file_bytes(payload.len() as u64) <= budget_bytes;
            if !fits {
                return Ok(Encoded::NoRoom);
            }
            // Evicted meanwhile: it must not come back by this way.
            if tier.holds(extent.extent).is_none() {
                return Ok(Encoded::Done);
            }
            let inserted = tier.insert(&extent, form, &payload);
            inserted.map_err(|error| error.to_string())?;
            metrics::counter!("slipstream_cache_encoded_total").increment(1);
            Ok(Encoded::Done)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| error.to_string())?
    }

    /// The metrics: as Azure's `CacheUtilizationFactor`, hot bytes in percent of the disk.
    fn tell(&self) {
        let (usage, last) = (self.tier.usage(), self.last_plan());
        let percent = last.hot_bytes as f64 * 100.0 / self.options.budget_bytes.max(1) as f64;
        metrics::gauge!("slipstream_cache_utilization_percent").set(percent);
        metrics::gauge!("slipstream_cache_resident_bytes").set(usage.bytes as f64);
        metrics::gauge!("slipstream_cache_resident_extents").set(usage.extents as f64);
        metrics::gauge!("slipstream_cache_shortfall_bytes").set(last.shortfall_bytes as f64);
    }
}

fn newest_first(extent: &HotExtent) -> (Timestamp, ExtentId) {
    (extent.max_created_on, extent.extent)
}

#[cfg(test)]
mod tests;
