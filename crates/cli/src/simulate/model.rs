//! The model: extents come and become fewer, followers learn of them, keep what is hot, and answer.
//!
//! Time is virtual and goes in two steps: from commit to commit for lag, and from tick to tick for what
//! moves slower (merges, caches, queries, storage). Where the product has a pure function for a
//! decision, it decides here too: the planner of merges, the caching policy, the plan of a cache.
//! Chance is drawn for latencies and faults alone, from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use slipstream_cache::{HotExtent, Plan, Resident, plan};
use slipstream_leader::{
    CHECKPOINT_EVERY, GC_GRACE, MERGE_INTERVAL, MergeBounds, MergeCandidate, plan_merges,
};
use slipstream_model::{
    CachingPolicy, DatabaseId, Digest, EffectiveCaching, Entropy, ExtentId, LeaderCaching,
    Timestamp,
};
use slipstream_storage::EXTENT_ROWS_MAX;

use super::outages::{Downtime, all_over};
use super::scenario::{Caching, Follower, Ingest, Scenario};

/// When a run begins: a Monday at midnight, so that a day in a plot is a day.
const START: Timestamp = Timestamp::from_micros(1_767_571_200_000_000);
/// Ticks of a run. Plots have no more points, and nothing that is counted by tick changes faster
/// than once a minute.
const TICKS: u32 = 2_000;
const TICK_MIN: Duration = Duration::from_secs(60);
/// From the leader's commit until a follower that listens has applied it: a message within a
/// region, and some hundred microseconds of work.
const PUSH: Duration = Duration::from_millis(2);
/// How long a follower that hears nothing of its leader waits between two looks for the next
/// commit in the bucket. It looks more seldom where nothing comes; here something does.
const PROBE: Duration = Duration::from_secs(1);
/// Requests that a query needs for a cold extent: its footer, and its columns, which lie together.
const COLD_REQUESTS: u64 = 2;
/// Part of a cache's disk that holds whole extents; the rest is for blocks of cold reads.
const HOT_SHARE: f64 = 0.95;
/// Puts of one checkpoint: its root, the pointer to the newest, and the segment that changed.
const CHECKPOINT_PUTS: u64 = 3;
/// Of two standard normal deviations more or less: the 99th percentile.
const P99_DEVIATIONS: f64 = 2.326;
const HOURS_OF_A_MONTH: f64 = 730.0;

/// What a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Outcome {
    pub(super) commits: u64,
    pub(super) merges: u64,
    pub(super) rows: u64,
    /// From rows being ready to their acknowledgement.
    pub(super) acknowledged_ms: Spread,
    pub(super) extents: u64,
    pub(super) extents_at_most: u64,
    /// What tables hold at the end, and what waits to be deleted.
    pub(super) stored_bytes: u64,
    pub(super) garbage_bytes: u64,
    pub(super) outages: BTreeMap<String, u64>,
    pub(super) requests: Requests,
    pub(super) followers: Vec<FollowerOutcome>,
    pub(super) cost: Cost,
    pub(super) series: Series,
}

/// Requests to the bucket, by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Requests {
    pub(super) put_extents: u64,
    pub(super) put_commits: u64,
    pub(super) put_checkpoints: u64,
    pub(super) get_for_merges: u64,
    pub(super) get_for_warming: u64,
    pub(super) get_for_cold_reads: u64,
    pub(super) get_for_probes: u64,
    pub(super) delete: u64,
}

impl Requests {
    pub(super) fn put(&self) -> u64 {
        self.put_extents + self.put_commits + self.put_checkpoints
    }

    pub(super) fn get(&self) -> u64 {
        self.get_for_merges + self.get_for_warming + self.get_for_cold_reads + self.get_for_probes
    }

    /// Each kind with its name.
    pub(super) fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("PUT of extents", self.put_extents),
            ("PUT of commits", self.put_commits),
            ("PUT of checkpoints", self.put_checkpoints),
            ("GET for merges", self.get_for_merges),
            ("GET for warming", self.get_for_warming),
            ("GET for cold reads", self.get_for_cold_reads),
            ("GET for probes of the log", self.get_for_probes),
            ("DELETE", self.delete),
        ]
    }
}

/// A month at this rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) put: f64,
    pub(super) get: f64,
    pub(super) storage: f64,
    pub(super) egress: f64,
    pub(super) machines: f64,
}

impl Cost {
    pub(super) fn total(&self) -> f64 {
        self.put + self.get + self.storage + self.egress + self.machines
    }
}

/// How numbers are spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f32>) -> Self {
        numbers.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| {
            let last = numbers.len().saturating_sub(1);
            let position = (numbers.len() as f64 * share) as usize;
            numbers
                .get(position.min(last))
                .copied()
                .map_or(0.0, f64::from)
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// What became of a follower.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct FollowerOutcome {
    pub(super) name: String,
    /// From a commit to its being seen here.
    pub(super) lag_ms: Spread,
    pub(super) queries: u64,
    /// Of the bytes that queries read, those on the own disk, in percent.
    pub(super) hit_percent: f64,
    pub(super) read_bytes: u64,
    pub(super) cold_bytes: u64,
    pub(super) warmed_bytes: u64,
    /// What is hot at the end, and what of it does not fit.
    pub(super) hot_bytes: u64,
    pub(super) shortfall_bytes: u64,
    pub(super) disk_bytes: u64,
    pub(super) requests: u64,
}

/// What was seen at each tick.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Series {
    /// Hours since the beginning.
    pub(super) hours: Vec<f64>,
    pub(super) extents: Vec<f64>,
    pub(super) stored_gb: Vec<f64>,
    pub(super) garbage_gb: Vec<f64>,
    /// Requests a second.
    pub(super) puts: Vec<f64>,
    pub(super) gets: Vec<f64>,
    pub(super) followers: Vec<FollowerSeries>,
}

/// The same of one follower.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct FollowerSeries {
    /// The largest lag since the last tick.
    pub(super) lag_ms: Vec<f64>,
    pub(super) hit_percent: Vec<f64>,
    pub(super) hot_gb: Vec<f64>,
    pub(super) resident_gb: Vec<f64>,
}

/// An extent of the table, as the planner of merges knows it.
type Extent = MergeCandidate;

/// A follower while it runs.
struct Node<'a> {
    spec: &'a Follower,
    caching: Caching<'a>,
    cut: Downtime,
    silent: Downtime,
    dice: Entropy,
    resident: BTreeMap<ExtentId, Resident>,
    resident_bytes: u64,
    /// Bytes that it may still fetch: what its line carried and nobody used, up to a tick.
    credit: f64,
    lags: Vec<f32>,
    lag_of_tick: f64,
    last: Plan,
    seen: Timestamp,
    outcome: FollowerOutcome,
    series: FollowerSeries,
}

/// Runs a scenario. `progress` is told how far it is, from 0 to 1.
pub(super) fn run(scenario: &Scenario, progress: impl Fn(f64)) -> Outcome {
    let mut world = World::new(scenario);
    let every = scenario.ingest.every;
    let mut at = START;
    let mut next_tick = START.plus(world.tick);
    let mut next_merge = START.plus(MERGE_INTERVAL);
    while at < world.end {
        let next = at.plus(every).min(world.end);
        world.ingest(at, next);
        at = next;
        while next_merge <= at {
            world.merge(next_merge);
            next_merge = next_merge.plus(MERGE_INTERVAL);
        }
        while next_tick <= at {
            world.tick(next_tick);
            progress(next_tick.since(START).as_secs_f64() / scenario.duration.as_secs_f64());
            next_tick = next_tick.plus(world.tick);
        }
    }
    world.finish()
}

struct World<'a> {
    scenario: &'a Scenario,
    dice: Entropy,
    end: Timestamp,
    tick: Duration,
    database: DatabaseId,
    bounds: MergeBounds,
    leader_down: Downtime,
    bucket_down: Downtime,
    /// The table, the oldest first.
    live: Vec<Extent>,
    /// When each file can go, and its length.
    garbage: Vec<(Timestamp, u64)>,
    nodes: Vec<Node<'a>>,
    committed_at: Timestamp,
    waits: Vec<f32>,
    stored_byte_ticks: f64,
    ticks: u64,
    requests_before: (u64, u64),
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let dice = Entropy::from_seed(scenario.seed);
        let end = START.plus(scenario.duration);
        let tick = (scenario.duration / TICKS)
            .max(TICK_MIN)
            .min(scenario.duration);
        let faults = &scenario.faults;
        let draw =
            |outages| Downtime::draw(outages, START, end, &Entropy::from_seed(dice.next_u64()));
        let leader_down = draw(faults.leader);
        let bucket_down = draw(faults.bucket);
        let nodes = scenario.followers.iter().map(|spec| Node {
            spec,
            caching: spec.caching(scenario.policies.caching.as_ref()),
            cut: draw(faults.cut),
            silent: draw(faults.silent),
            dice: Entropy::from_seed(dice.next_u64()),
            resident: BTreeMap::new(),
            resident_bytes: 0,
            credit: 0.0,
            lags: Vec::new(),
            lag_of_tick: 0.0,
            last: Plan::default(),
            seen: START,
            outcome: FollowerOutcome {
                name: spec.name.clone(),
                disk_bytes: spec.disk_bytes,
                ..FollowerOutcome::default()
            },
            series: FollowerSeries::default(),
        });
        let nodes: Vec<_> = nodes.collect();
        let mut outages = BTreeMap::new();
        outages.insert("leader".to_owned(), leader_down.count() as u64);
        outages.insert("bucket".to_owned(), bucket_down.count() as u64);
        for node in &nodes {
            let name = &node.spec.name;
            outages.insert(format!("{name}: cut off"), node.cut.count() as u64);
            outages.insert(format!("{name}: no leader"), node.silent.count() as u64);
        }
        let mut world = Self {
            scenario,
            database: DatabaseId::new(dice.uuid()),
            bounds: MergeBounds::of(&scenario.policies.merge, EXTENT_ROWS_MAX),
            dice,
            end,
            tick,
            leader_down,
            bucket_down,
            live: Vec::new(),
            garbage: Vec::new(),
            nodes,
            committed_at: START,
            waits: Vec::new(),
            stored_byte_ticks: 0.0,
            ticks: 0,
            requests_before: (0, 0),
            outcome: Outcome {
                outages,
                ..Outcome::default()
            },
        };
        world.remember();
        world
    }

    /// What was there before the beginning: full extents, and on each follower what fits of what is
    /// hot, as if it had run for long.
    fn remember(&mut self) {
        let ingest = &self.scenario.ingest;
        let rows = (ingest.rows * self.scenario.history.as_secs_f64()) as u64;
        let full = Duration::from_secs_f64(EXTENT_ROWS_MAX as f64 / ingest.rows);
        let mut left = rows;
        let mut until = START;
        while left > 0 {
            let taken = left.min(EXTENT_ROWS_MAX);
            let from = Timestamp::from_micros(until.as_micros() - micros(full));
            let extent = self.extent(from, until, taken);
            self.live.push(extent);
            until = from;
            left -= taken;
        }
        self.live.reverse();
        for node in &mut self.nodes {
            node.plan(&self.live, self.database, START);
            let fetch = std::mem::take(&mut node.last.fetch);
            for extent in &fetch {
                node.keep(extent);
            }
        }
    }

    fn extent(&self, from: Timestamp, to: Timestamp, rows: u64) -> Extent {
        let ingest = &self.scenario.ingest;
        let original = rows as f64 * ingest.row_bytes;
        Extent {
            id: ExtentId::new(self.dice.uuid_at(to)),
            row_count: rows,
            original_bytes: original as u64,
            size_bytes: ((original / ingest.compression) as u64).max(1),
            min_created_on: from,
            max_created_on: to,
            tags: BTreeSet::new(),
        }
    }

    fn latency(&self) -> Duration {
        latency(self.scenario, &self.dice)
    }

    /// Rows of a span become an extent and a commit, and followers learn of it.
    fn ingest(&mut self, from: Timestamp, to: Timestamp) {
        let rows = rows_of(&self.scenario.ingest, from, to);
        if rows == 0 {
            return;
        }
        // One extent for each full one, and one for the rest.
        let upload = self.latency();
        let commit = self.latency();
        let works = all_over(&[&self.leader_down, &self.bucket_down], to);
        let done = works.plus(upload + commit).max(self.committed_at);
        self.committed_at = done;
        self.waits.push(millis(done.since(to)) as f32);
        self.outcome.rows += rows;
        let mut left = rows;
        while left > 0 {
            let taken = left.min(EXTENT_ROWS_MAX);
            let extent = self.extent(from, done, taken);
            self.outcome.requests.put_extents += 1;
            for node in &mut self.nodes {
                node.offer(&extent, self.database, done, &mut self.outcome.requests);
            }
            self.live.push(extent);
            left -= taken;
        }
        self.commit();
        for node in &mut self.nodes {
            let is_told = node.learn(self.scenario, &self.leader_down, &self.bucket_down, done);
            self.outcome.requests.get_for_probes += u64::from(!is_told);
        }
    }

    fn commit(&mut self) {
        self.outcome.commits += 1;
        self.outcome.requests.put_commits += 1;
        if self.outcome.commits.is_multiple_of(CHECKPOINT_EVERY) {
            self.outcome.requests.put_checkpoints += CHECKPOINT_PUTS;
        }
    }

    /// Everything that does not happen with a commit.
    fn tick(&mut self, now: Timestamp) {
        if self.leads(now) {
            self.retain(now);
            self.collect(now);
        }
        let live = self.live.iter().map(|extent| extent.size_bytes).sum();
        let garbage: u64 = self.garbage.iter().map(|(_, bytes)| bytes).sum();
        self.stored_byte_ticks += (live + garbage) as f64;
        self.ticks += 1;
        self.outcome.extents_at_most = self.outcome.extents_at_most.max(self.live.len() as u64);
        for node in &mut self.nodes {
            let can_fetch = !node.cut.is_down(now) && !self.bucket_down.is_down(now);
            node.tick(
                self.scenario,
                (&self.live, self.database),
                (now, self.tick, can_fetch),
                &mut self.outcome.requests,
            );
        }
        let requests = (self.outcome.requests.put(), self.outcome.requests.get());
        let rate = |count: u64| count as f64 / self.tick.as_secs_f64();
        let series = &mut self.outcome.series;
        series.hours.push(now.since(START).as_secs_f64() / 3_600.0);
        series.extents.push(self.live.len() as f64);
        series.stored_gb.push(gigabytes(live));
        series.garbage_gb.push(gigabytes(garbage));
        series.puts.push(rate(requests.0 - self.requests_before.0));
        series.gets.push(rate(requests.1 - self.requests_before.1));
        self.requests_before = requests;
    }

    fn leads(&self, now: Timestamp) -> bool {
        !self.leader_down.is_down(now) && !self.bucket_down.is_down(now)
    }

    /// Takes out what is older than the retention policy keeps.
    fn retain(&mut self, now: Timestamp) {
        let Some(retention) = self.scenario.policies.retention else {
            return;
        };
        let before = self.live.len();
        let garbage = &mut self.garbage;
        self.live.retain(|extent| {
            let is_over = retention.is_over(extent.max_created_on, now);
            if is_over {
                garbage.push((now.plus(GC_GRACE), extent.size_bytes));
            }
            !is_over
        });
        if self.live.len() < before {
            self.commit();
        }
    }

    /// One round of merges, by the product's own planner.
    fn merge(&mut self, now: Timestamp) {
        let policy = &self.scenario.policies.merge;
        if !policy.allows_merging() || !self.leads(now) {
            return;
        }
        let caching = EffectiveCaching::of_leader(LeaderCaching {
            database: self.scenario.policies.caching.as_ref(),
            table: None,
        });
        let is_reached = |extent: &&Extent| {
            policy
                .lookback
                .reaches(extent.max_created_on, now, &caching)
        };
        let reached = self.live.iter().filter(is_reached).cloned().collect();
        for group in plan_merges(reached, &self.bounds) {
            self.replace(&group, now);
        }
    }

    /// Puts one extent in the place of some.
    fn replace(&mut self, group: &[ExtentId], now: Timestamp) {
        let is_source = |extent: &Extent| group.contains(&extent.id);
        let Some(first) = self.live.iter().position(is_source) else {
            return;
        };
        // What is before the first one does not move.
        let rest = self.live.split_off(first);
        let (sources, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_source);
        self.live.extend(others);
        let rows = sources.iter().map(|source| source.row_count).sum();
        let from = sources.iter().map(|source| source.min_created_on).min();
        let to = sources.iter().map(|source| source.max_created_on).max();
        let (Some(from), Some(to)) = (from, to) else {
            return;
        };
        let merged = self.extent(from, to, rows);
        let place = self
            .live
            .partition_point(|extent| extent.max_created_on <= to);
        self.live.insert(place, merged);
        let gone = sources.iter().map(|source| source.size_bytes);
        self.garbage
            .extend(gone.map(|bytes| (now.plus(GC_GRACE), bytes)));
        self.outcome.requests.get_for_merges += sources.len() as u64;
        self.outcome.requests.put_extents += 1;
        self.outcome.merges += 1;
        self.commit();
    }

    /// Deletes files whose grace is over.
    fn collect(&mut self, now: Timestamp) {
        let before = self.garbage.len();
        self.garbage.retain(|(goes, _)| *goes > now);
        self.outcome.requests.delete += (before - self.garbage.len()) as u64;
    }

    fn finish(mut self) -> Outcome {
        let stored = self.stored_byte_ticks / (self.ticks.max(1) as f64);
        let scenario = self.scenario;
        let mut egress = 0.0;
        for mut node in self.nodes {
            let outcome = &mut node.outcome;
            outcome.lag_ms = Spread::of(node.lags);
            let cold = outcome.cold_bytes as f64 / (outcome.read_bytes.max(1) as f64);
            outcome.hit_percent = 100.0 * (1.0 - cold);
            outcome.hot_bytes = node.last.hot_bytes;
            outcome.shortfall_bytes = node.last.shortfall_bytes;
            egress += (outcome.warmed_bytes + outcome.cold_bytes) as f64;
            self.outcome.followers.push(node.outcome);
            self.outcome.series.followers.push(node.series);
        }
        let outcome = &mut self.outcome;
        outcome.acknowledged_ms = Spread::of(self.waits);
        outcome.extents = self.live.len() as u64;
        outcome.stored_bytes = self.live.iter().map(|extent| extent.size_bytes).sum();
        outcome.garbage_bytes = self.garbage.iter().map(|(_, bytes)| bytes).sum();
        let months = scenario.duration.as_secs_f64() / 3_600.0 / HOURS_OF_A_MONTH;
        let prices = &scenario.prices;
        outcome.cost = Cost {
            put: outcome.requests.put() as f64 / 1_000.0 * prices.put / months,
            get: outcome.requests.get() as f64 / 1_000.0 * prices.get / months,
            storage: stored / 1e9 * prices.storage,
            egress: egress / 1e9 * prices.egress / months,
            machines: (1 + scenario.followers.len()) as f64 * prices.machine * HOURS_OF_A_MONTH,
        };
        self.outcome
    }
}

impl Node<'_> {
    fn hot_bytes_max(&self) -> u64 {
        (self.spec.disk_bytes as f64 * HOT_SHARE) as u64
    }

    fn is_hot(&self, max_created_on: Timestamp, now: Timestamp) -> bool {
        let policy = self.caching.policy();
        policy.is_none_or(|policy: &CachingPolicy| policy.is_hot(max_created_on, now))
    }

    fn keep(&mut self, extent: &HotExtent) {
        let resident = Resident {
            file_bytes: extent.size_bytes,
            sha256: extent.sha256,
        };
        if self.resident.insert(extent.extent, resident).is_none() {
            self.resident_bytes += extent.size_bytes;
        }
    }

    /// A new extent is fetched at once when it is hot and there is room; else the next plan decides.
    fn offer(
        &mut self,
        extent: &Extent,
        database: DatabaseId,
        now: Timestamp,
        requests: &mut Requests,
    ) {
        let size_bytes = extent.size_bytes;
        let fits = self.resident_bytes + size_bytes <= self.hot_bytes_max();
        if fits && !self.cut.is_down(now) && self.is_hot(extent.max_created_on, now) {
            self.keep(&hot(extent, database));
            self.credit -= size_bytes as f64;
            self.outcome.warmed_bytes += size_bytes;
            self.outcome.requests += 1;
            requests.get_for_warming += 1;
        }
    }

    /// When it sees a commit: by the leader's word, or by the bucket. Gives whether it was told.
    fn learn(
        &mut self,
        scenario: &Scenario,
        leader_down: &Downtime,
        bucket_down: &Downtime,
        committed: Timestamp,
    ) -> bool {
        let heard = all_over(&[&self.cut, &self.silent, leader_down], committed).plus(PUSH);
        let reaches = all_over(&[&self.cut, bucket_down], committed);
        let probe = PROBE.mul_f64(self.dice.fraction()) + latency(scenario, &self.dice);
        let found = reaches.plus(probe);
        let is_told = heard <= found;
        // Versions are seen in order.
        let seen = heard.min(found).max(self.seen);
        self.seen = seen;
        let lag = millis(seen.since(committed));
        self.lags.push(lag as f32);
        self.lag_of_tick = self.lag_of_tick.max(lag);
        self.outcome.requests += u64::from(!is_told);
        is_told
    }

    fn plan(&mut self, live: &[Extent], database: DatabaseId, now: Timestamp) {
        let wanted = live
            .iter()
            .filter(|extent| self.is_hot(extent.max_created_on, now));
        let wanted = wanted.map(|extent| hot(extent, database)).collect();
        self.last = plan(wanted, &self.resident, self.hot_bytes_max());
    }

    /// Warms, evicts and answers for a tick.
    fn tick(
        &mut self,
        scenario: &Scenario,
        (live, database): (&[Extent], DatabaseId),
        (now, tick, can_fetch): (Timestamp, Duration, bool),
        requests: &mut Requests,
    ) {
        let carried = scenario.bucket.bandwidth as f64 * tick.as_secs_f64();
        self.credit = (self.credit + carried).min(carried);
        self.plan(live, database, now);
        for extent in &self.last.evict {
            if let Some(gone) = self.resident.remove(extent) {
                self.resident_bytes -= gone.file_bytes;
            }
        }
        let wanted = std::mem::take(&mut self.last.fetch);
        for extent in wanted.iter().filter(|_| can_fetch) {
            if self.credit < extent.size_bytes as f64 {
                break;
            }
            self.credit -= extent.size_bytes as f64;
            self.keep(extent);
            self.outcome.warmed_bytes += extent.size_bytes;
            self.outcome.requests += 1;
            requests.get_for_warming += 1;
        }
        let answered = if can_fetch {
            self.answer(scenario, live, now, tick, requests)
        } else {
            // Hot questions are answered all the same; cold ones wait or fail.
            100.0
        };
        let series = &mut self.series;
        series.lag_ms.push(self.lag_of_tick);
        series.hit_percent.push(answered);
        series.hot_gb.push(gigabytes(self.last.hot_bytes));
        series.resident_gb.push(gigabytes(self.resident_bytes));
        self.lag_of_tick = 0.0;
    }

    /// Answers the questions of a tick. Gives how much was near, in percent.
    fn answer(
        &mut self,
        scenario: &Scenario,
        live: &[Extent],
        now: Timestamp,
        tick: Duration,
        requests: &mut Requests,
    ) -> f64 {
        let queries = &scenario.queries;
        let weights: f64 = queries.look.iter().map(|look| look.weight).sum();
        let asked = queries.rate * tick.as_secs_f64();
        self.outcome.queries += asked.round() as u64;
        let cold_cache = self.spec.disk_bytes as f64 * (1.0 - HOT_SHARE);
        let share = queries.columns / 100.0;
        let (mut read, mut cold) = (0.0, 0.0);
        for look in &queries.look {
            let from = look
                .back
                .map(|back| Timestamp::from_micros(now.as_micros() - micros(back)));
            let first = from.map_or(0, |from| {
                live.partition_point(|extent| extent.max_created_on < from)
            });
            let (mut bytes, mut cold_bytes, mut cold_extents) = (0.0, 0.0, 0_u64);
            for extent in &live[first..] {
                let size = extent.size_bytes as f64 * share;
                bytes += size;
                if !self.resident.contains_key(&extent.id) {
                    cold_bytes += size;
                    cold_extents += 1;
                }
            }
            let questions = asked * look.weight / weights;
            // The blocks of cold reads that fit stay; the others are fetched each time.
            let missed = (1.0 - cold_cache / f64::max(cold_bytes, 1.0)).max(0.0);
            read += bytes * questions;
            cold += cold_bytes * missed * questions;
            let gets = cold_extents as f64 * COLD_REQUESTS as f64 * missed * questions;
            requests.get_for_cold_reads += gets.round() as u64;
            self.outcome.requests += gets.round() as u64;
        }
        self.outcome.read_bytes = self.outcome.read_bytes.saturating_add(read as u64);
        self.outcome.cold_bytes = self.outcome.cold_bytes.saturating_add(cold as u64);
        if read > 0.0 {
            100.0 * (1.0 - cold / read)
        } else {
            100.0
        }
    }
}

fn hot(extent: &Extent, database: DatabaseId) -> HotExtent {
    HotExtent {
        database,
        extent: extent.id,
        size_bytes: extent.size_bytes,
        // Nothing is ever damaged here, so one digest does for all.
        sha256: Digest::default(),
        max_created_on: extent.max_created_on,
    }
}

/// Rows of a span: as many as there are at its middle.
fn rows_of(ingest: &Ingest, from: Timestamp, to: Timestamp) -> u64 {
    let span = to.since(from).as_secs_f64();
    let middle = from.as_micros() as f64 / 1e6 + span / 2.0;
    // Most at 14:00, least at 02:00.
    let hour = middle.rem_euclid(86_400.0) / 3_600.0;
    let swing = ((hour - 8.0) / 24.0 * std::f64::consts::TAU).sin();
    (ingest.rows * span * (1.0 + ingest.daily * swing)).round() as u64
}

/// How long a request takes: log-normal, through both percentiles.
fn latency(scenario: &Scenario, dice: &Entropy) -> Duration {
    let (p50, p99) = (
        scenario.bucket.p50.as_secs_f64(),
        scenario.bucket.p99.as_secs_f64(),
    );
    let sigma = (p99 / p50).ln() / P99_DEVIATIONS;
    // Box and Muller's way from two even numbers to a normal one.
    let (a, b) = (1.0 - dice.fraction(), dice.fraction());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    Duration::from_secs_f64(p50 * (sigma * normal).exp())
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4)
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests;
