//! What a query has read so far.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::path::Path;
use parking_lot::Mutex;

use crate::table::OpenedExtent;
use crate::{ReadOrigin, Residency};

/// Extents that are checked when a query fails over bytes that make no sense. The damaged one is
/// among those opened last: each task of the query reads one at a time.
const OPENED_KEPT_MAX: usize = 64;

/// An extent, for counting: a hash of its path. Two of a million fall together once in thirty
/// million times, and then a count is a little off.
pub(crate) type ExtentKey = u64;

/// The key of an extent, by its path. The same in every query of a process.
pub(crate) fn extent_key(path: &Path) -> ExtentKey {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Counts of one query, shared by all its scans.
#[derive(Debug, Default)]
pub(crate) struct QueryCounters {
    rows: AtomicU64,
    tables: Mutex<BTreeMap<String, Arc<TableCounters>>>,
    latest: Mutex<VecDeque<OpenedExtent>>,
}

/// Counts of one query's reads of one table.
#[derive(Debug, Default)]
pub(crate) struct TableCounters {
    requests: AtomicU64,
    hot_hit_bytes: AtomicU64,
    hot_miss_bytes: AtomicU64,
    cold_hit_bytes: AtomicU64,
    cold_miss_bytes: AtomicU64,
    hot_hits: AtomicU64,
    hot_misses: AtomicU64,
    cold_hits: AtomicU64,
    cold_misses: AtomicU64,
    extents_total: AtomicU64,
    /// Bytes that were read of each extent that was opened.
    extents: Mutex<HashMap<ExtentKey, u64>>,
}

/// What reading has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadStatistics {
    /// Requests to the bucket.
    pub requests: u64,
    /// Bytes of hot extents that came from the local disk or from memory.
    pub hot_hit_bytes: u64,
    /// Bytes of hot extents that were not there, and came from the bucket.
    pub hot_miss_bytes: u64,
    /// Bytes of cold extents that stood on the disk, because they were read before.
    pub cold_hit_bytes: u64,
    /// Bytes of cold extents that came from the bucket.
    pub cold_miss_bytes: u64,
    /// Reads that gave [`hot_hit_bytes`](Self::hot_hit_bytes).
    pub hot_hits: u64,
    /// Reads that gave [`hot_miss_bytes`](Self::hot_miss_bytes).
    pub hot_misses: u64,
    /// Reads that gave [`cold_hit_bytes`](Self::cold_hit_bytes) and nothing else.
    pub cold_hits: u64,
    /// Reads that gave [`cold_miss_bytes`](Self::cold_miss_bytes).
    pub cold_misses: u64,
    /// Extents that were there to be read, before any was left out.
    pub extents_total: u64,
    /// Extents that were opened.
    pub extents_scanned: u64,
}

impl ReadStatistics {
    /// Bytes that were read, from wherever.
    pub fn bytes_scanned(&self) -> u64 {
        self.hot_hit_bytes + self.hot_miss_bytes + self.cold_hit_bytes + self.cold_miss_bytes
    }

    /// Adds what another read cost.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.hot_hit_bytes += other.hot_hit_bytes;
        self.hot_miss_bytes += other.hot_miss_bytes;
        self.cold_hit_bytes += other.cold_hit_bytes;
        self.cold_miss_bytes += other.cold_miss_bytes;
        self.hot_hits += other.hot_hits;
        self.hot_misses += other.hot_misses;
        self.cold_hits += other.cold_hits;
        self.cold_misses += other.cold_misses;
        self.extents_total += other.extents_total;
        self.extents_scanned += other.extents_scanned;
    }
}

/// What a query has cost so far. As JSON it is the same on every door.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryStatistics {
    /// Rows of the answer.
    pub rows: u64,
    /// All reads together.
    pub reads: ReadStatistics,
    /// The reads of each table, by `database.table`.
    pub tables: BTreeMap<String, ReadStatistics>,
}

/// Reads the counters of a query, also after its rows were handed on.
#[derive(Debug, Clone, Default)]
pub struct QueryMeter(Option<Arc<QueryCounters>>);

impl QueryMeter {
    pub(crate) fn new(counters: &Arc<QueryCounters>) -> Self {
        Self(Some(Arc::clone(counters)))
    }

    /// What the query has cost so far; nothing for an answer that no query computed.
    pub fn read(&self) -> QueryStatistics {
        let counters = self.0.as_ref();
        counters
            .map(|counters| counters.statistics())
            .unwrap_or_default()
    }
}

impl TableCounters {
    /// Counts one read of an extent.
    pub(crate) fn add_read(&self, extent: ExtentKey, origin: ReadOrigin, residency: Residency) {
        *self.extents.lock().entry(extent).or_default() +=
            origin.cached_bytes + origin.bucket_bytes;
        let add = |counter: &AtomicU64, much: u64| counter.fetch_add(much, Ordering::Relaxed);
        add(&self.requests, origin.requests);
        let is_hot = residency != Residency::Cold;
        let (hit_bytes, hits, miss_bytes, misses) = if is_hot {
            (
                &self.hot_hit_bytes,
                &self.hot_hits,
                &self.hot_miss_bytes,
                &self.hot_misses,
            )
        } else {
            (
                &self.cold_hit_bytes,
                &self.cold_hits,
                &self.cold_miss_bytes,
                &self.cold_misses,
            )
        };
        add(hit_bytes, origin.cached_bytes);
        add(miss_bytes, origin.bucket_bytes);
        if origin.requests == 0 {
            add(hits, 1);
        } else {
            add(misses, 1);
        }
    }

    /// Notes that a scan had so many extents to choose from.
    pub(crate) fn add_extents(&self, total: u64) {
        self.extents_total.fetch_add(total, Ordering::Relaxed);
    }

    fn statistics(&self) -> ReadStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReadStatistics {
            requests: read(&self.requests),
            hot_hit_bytes: read(&self.hot_hit_bytes),
            hot_miss_bytes: read(&self.hot_miss_bytes),
            cold_hit_bytes: read(&self.cold_hit_bytes),
            cold_miss_bytes: read(&self.cold_miss_bytes),
            hot_hits: read(&self.hot_hits),
            hot_misses: read(&self.hot_misses),
            cold_hits: read(&self.cold_hits),
            cold_misses: read(&self.cold_misses),
            extents_total: read(&self.extents_total),
            extents_scanned: self.extents.lock().len() as u64,
        }
    }
}

impl QueryCounters {
    pub(crate) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// The counters of one table, by `database.table`.
    pub(crate) fn of_table(&self, table: &str) -> Arc<TableCounters> {
        let mut tables = self.tables.lock();
        Arc::clone(tables.entry(table.to_owned()).or_default())
    }

    /// Notes that an extent was opened.
    pub(crate) fn add_extent(&self, table: &TableCounters, extent: &OpenedExtent) {
        let mut extents = table.extents.lock();
        let entry = extents.entry(extent_key(&extent.location));
        if matches!(entry, Entry::Occupied(_)) {
            return;
        }
        entry.or_default();
        drop(extents);
        if extent.is_inline {
            // No object that could be looked at when bytes make no sense.
            return;
        }
        let mut latest = self.latest.lock();
        if latest.len() == OPENED_KEPT_MAX {
            latest.pop_front();
        }
        latest.push_back(extent.clone());
    }

    /// The extents opened last, the newest first.
    pub(crate) fn opened(&self) -> Vec<OpenedExtent> {
        self.latest.lock().iter().rev().cloned().collect()
    }

    /// Bytes that were read of each extent, so many of them at most.
    pub(crate) fn extents(&self, count_max: usize) -> Vec<(ExtentKey, u64)> {
        let tables = self.tables.lock();
        let mut all = Vec::new();
        for table in tables.values() {
            let extents = table.extents.lock();
            let left = count_max.saturating_sub(all.len());
            all.extend(extents.iter().map(|(key, bytes)| (*key, *bytes)).take(left));
        }
        all
    }

    pub(crate) fn statistics(&self) -> QueryStatistics {
        let tables = self.tables.lock();
        let tables: BTreeMap<_, _> = tables
            .iter()
            .map(|(name, counters)| (name.clone(), counters.statistics()))
            .collect();
        let mut reads = ReadStatistics::default();
        tables.values().for_each(|table| reads.add(table));
        QueryStatistics {
            rows: self.rows.load(Ordering::Relaxed),
            reads,
            tables,
        }
    }
}
