//! Which queries run, and which ran lately.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use slipstream_model::{Clock, Timestamp};
use uuid::Uuid;

use crate::counters::{ExtentKey, QueryCounters, QueryStatistics, ReadStatistics};
use crate::{QueryError, QueryInfo};

/// Ended queries that are remembered. With texts cut at [`TEXT_BYTES_MAX`], 4 MiB at most.
const ENDED_KEPT_MAX: usize = 1_000;
/// Bytes of a query's text that are kept.
const TEXT_BYTES_MAX: usize = 4_096;
/// Extents of one ended query that are remembered: all of a thousand queries take 64 MB at most.
const EXTENTS_KEPT_MAX: usize = 4_096;
/// Tables whose reads are added up. Tables come and go; their counts do not, until the restart.
const TABLES_KEPT_MAX: usize = 10_000;

/// What became of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryState {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl fmt::Display for QueryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A query as the table `slipstream.queries` shows it.
#[derive(Debug, Clone)]
pub(crate) struct QueryRow {
    pub(crate) id: Uuid,
    pub(crate) database: Option<String>,
    pub(crate) text: String,
    pub(crate) client: String,
    pub(crate) principal: String,
    pub(crate) state: QueryState,
    pub(crate) started_on: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) statistics: QueryStatistics,
    pub(crate) error: Option<String>,
    /// What was read of which extents; of ended queries only.
    pub(crate) extents: Vec<(ExtentKey, u64)>,
}

/// What the remembered queries would have read from near, had other extents been hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replay {
    /// Queries that were replayed.
    pub queries: u64,
    /// Bytes that they read.
    pub bytes: u64,
    /// Of them, bytes of extents that would have been hot.
    pub hot_bytes: u64,
}

impl Replay {
    /// Hot bytes in percent of all; `None` when nothing was read.
    pub fn hit_percent(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.hot_bytes as f64 * 100.0 / self.bytes as f64)
    }
}

/// The queries of a process.
#[derive(Debug)]
pub(crate) struct QueryLog {
    clock: Arc<dyn Clock>,
    queries: Mutex<Queries>,
}

#[derive(Debug, Default)]
struct Queries {
    active: BTreeMap<Uuid, Active>,
    ended: VecDeque<QueryRow>,
    /// What all ended queries read of each table.
    reads: BTreeMap<String, ReadStatistics>,
}

#[derive(Debug)]
struct Active {
    row: QueryRow,
    began: Duration,
    counters: Arc<QueryCounters>,
}

impl QueryLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            queries: Mutex::default(),
        })
    }

    /// Notes that a query has come. It counts as cancelled when the entry is dropped before it is
    /// told how the query ended.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: Uuid,
        info: QueryInfo,
        principal: String,
    ) -> QueryEntry {
        let counters = Arc::<QueryCounters>::default();
        let row = QueryRow {
            id,
            database: info.database,
            text: cut(&info.text),
            client: info.client,
            principal,
            state: QueryState::Queued,
            started_on: self.clock.now(),
            duration: Duration::ZERO,
            statistics: QueryStatistics::default(),
            error: None,
            extents: Vec::new(),
        };
        let began = self.clock.elapsed();
        let active = Active {
            row,
            began,
            counters: Arc::clone(&counters),
        };
        self.queries.lock().active.insert(id, active);
        gauge!("slipstream_queries_active").increment(1.0);
        QueryEntry {
            log: Arc::clone(self),
            id,
            counters,
            has_ended: false,
        }
    }

    /// All queries, the oldest first.
    pub(crate) fn rows(&self) -> Vec<QueryRow> {
        let now = self.clock.elapsed();
        let queries = self.queries.lock();
        let active = queries.active.values().map(|active| active.row_at(now));
        let mut rows: Vec<QueryRow> = queries.ended.iter().cloned().chain(active).collect();
        rows.sort_by_key(|row| row.started_on);
        rows
    }

    /// What all ended queries read of each table, by `database.table`.
    pub(crate) fn reads(&self) -> BTreeMap<String, ReadStatistics> {
        self.queries.lock().reads.clone()
    }

    /// Asks of everything that the remembered queries read whether it would be hot.
    pub(crate) fn replay(&self, is_hot: impl Fn(ExtentKey) -> bool) -> Replay {
        let mut replay = Replay::default();
        for row in &self.queries.lock().ended {
            if row.extents.is_empty() {
                continue;
            }
            replay.queries += 1;
            for (extent, bytes) in &row.extents {
                replay.bytes += bytes;
                if is_hot(*extent) {
                    replay.hot_bytes += bytes;
                }
            }
        }
        replay
    }

    fn end(&self, id: Uuid, state: QueryState, error: Option<String>) {
        let now = self.clock.elapsed();
        let mut queries = self.queries.lock();
        let Some(active) = queries.active.remove(&id) else {
            return;
        };
        let row = QueryRow {
            state,
            error,
            extents: active.counters.extents(EXTENTS_KEPT_MAX),
            ..active.row_at(now)
        };
        gauge!("slipstream_queries_active").decrement(1.0);
        counter!("slipstream_queries_total", "state" => state.to_string()).increment(1);
        histogram!("slipstream_query_seconds").record(row.duration.as_secs_f64());
        counter!("slipstream_query_bytes_scanned_total")
            .increment(row.statistics.reads.bytes_scanned());
        for (table, reads) in &row.statistics.tables {
            if queries.reads.len() < TABLES_KEPT_MAX || queries.reads.contains_key(table) {
                queries.reads.entry(table.clone()).or_default().add(reads);
            }
        }
        if queries.ended.len() == ENDED_KEPT_MAX {
            queries.ended.pop_front();
        }
        queries.ended.push_back(row);
    }
}

impl Active {
    fn row_at(&self, now: Duration) -> QueryRow {
        QueryRow {
            duration: now.saturating_sub(self.began),
            statistics: self.counters.statistics(),
            ..self.row.clone()
        }
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A query that has not ended.
#[derive(Debug)]
pub(crate) struct QueryEntry {
    log: Arc<QueryLog>,
    id: Uuid,
    counters: Arc<QueryCounters>,
    has_ended: bool,
}

impl QueryEntry {
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn counters(&self) -> &Arc<QueryCounters> {
        &self.counters
    }

    /// Its turn has come.
    pub(crate) fn run(&self) {
        if let Some(active) = self.log.queries.lock().active.get_mut(&self.id) {
            active.row.state = QueryState::Running;
        }
    }

    pub(crate) fn complete(mut self) {
        self.has_ended = true;
        self.log.end(self.id, QueryState::Completed, None);
    }

    pub(crate) fn fail(mut self, error: &QueryError) {
        self.has_ended = true;
        let state = match error.kind() {
            crate::QueryErrorKind::Cancelled => QueryState::Cancelled,
            _ => QueryState::Failed,
        };
        self.log.end(self.id, state, Some(error.to_string()));
    }
}

impl Drop for QueryEntry {
    fn drop(&mut self) {
        if !self.has_ended {
            self.log.end(self.id, QueryState::Cancelled, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use slipstream_model::{Entropy, ManualClock};

    use super::*;

    #[test]
    fn the_log_forgets_the_oldest_and_never_the_running() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let log = QueryLog::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let entropy = Entropy::from_seed(1);
        let info = |text: &str| QueryInfo {
            text: text.to_owned(),
            ..QueryInfo::default()
        };
        let running = log.begin(entropy.uuid(), info("long"), String::new());
        running.run();
        for number in 0..ENDED_KEPT_MAX + 5 {
            clock.advance(Duration::from_millis(1));
            log.begin(entropy.uuid(), info(&number.to_string()), String::new())
                .complete();
        }
        let rows = log.rows();
        assert_eq!(rows.len(), ENDED_KEPT_MAX + 1);
        assert_eq!(
            (rows[0].text.as_str(), rows[0].state),
            ("long", QueryState::Running)
        );
        assert_eq!(rows[1].text, "5");
        assert_eq!(
            rows[0].duration,
            Duration::from_millis(ENDED_KEPT_MAX as u64 + 5)
        );
    }

    #[test]
    fn a_query_that_nobody_ended_was_cancelled() {
        let log = QueryLog::new(Arc::new(ManualClock::new(Timestamp::from_micros(0))));
        let text = "é".repeat(TEXT_BYTES_MAX);
        let info = QueryInfo {
            text,
            ..QueryInfo::default()
        };
        drop(log.begin(Uuid::nil(), info, String::new()));
        let rows = log.rows();
        assert_eq!(rows[0].state, QueryState::Cancelled);
        assert_eq!(rows[0].text.len(), TEXT_BYTES_MAX);
    }
}
