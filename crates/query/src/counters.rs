//! What a query has read so far.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::Residency;
use crate::table::OpenedExtent;

/// Extents that are checked when a query fails over bytes that make no sense. The damaged one is
/// among those opened last: each task of the query reads one at a time.
const OPENED_KEPT_MAX: usize = 64;

/// Counts of one query, shared by all its scans.
#[derive(Debug, Default)]
pub(crate) struct QueryCounters {
    rows: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
    hot_hit_bytes: AtomicU64,
    hot_miss_bytes: AtomicU64,
    opened: Mutex<Opened>,
}

/// The extents that were opened. A scan opens one several times: to prune, and to read.
#[derive(Debug, Default)]
struct Opened {
    hasher: RandomState,
    seen: HashSet<u64>,
    latest: VecDeque<OpenedExtent>,
}

/// What a query has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueryStatistics {
    /// Rows of the answer.
    pub rows: u64,
    /// Requests to the store that extents are read from.
    pub requests: u64,
    /// Bytes read from it.
    pub bytes_scanned: u64,
    /// Of them, bytes of hot extents that came from the local disk.
    pub hot_hit_bytes: u64,
    /// Bytes of hot extents that were not there, and came from the bucket.
    pub hot_miss_bytes: u64,
    /// Extents that were opened.
    pub extents_scanned: u64,
}

impl QueryCounters {
    pub(crate) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_request(&self, bytes: u64, residency: Residency) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        match residency {
            Residency::HotHit => self.hot_hit_bytes.fetch_add(bytes, Ordering::Relaxed),
            Residency::HotMiss => self.hot_miss_bytes.fetch_add(bytes, Ordering::Relaxed),
            Residency::Cold => 0,
        };
    }

    pub(crate) fn add_extent(&self, extent: OpenedExtent) {
        let mut opened = self.opened.lock();
        let hash = opened.hasher.hash_one(&extent.location);
        if !opened.seen.insert(hash) {
            return;
        }
        if opened.latest.len() == OPENED_KEPT_MAX {
            opened.latest.pop_front();
        }
        opened.latest.push_back(extent);
    }

    /// The extents opened last, the newest first.
    pub(crate) fn opened(&self) -> Vec<OpenedExtent> {
        self.opened.lock().latest.iter().rev().cloned().collect()
    }

    pub(crate) fn statistics(&self) -> QueryStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueryStatistics {
            rows: read(&self.rows),
            requests: read(&self.requests),
            bytes_scanned: read(&self.bytes),
            hot_hit_bytes: read(&self.hot_hit_bytes),
            hot_miss_bytes: read(&self.hot_miss_bytes),
            extents_scanned: self.opened.lock().seen.len() as u64,
        }
    }
}
