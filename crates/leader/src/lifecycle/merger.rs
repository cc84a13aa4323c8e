//! The task that plans merges and has them done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use slipstream_catalog::{DatabaseState, DatabaseWriter, TableState};
use slipstream_frontend::ServiceError;
use slipstream_model::{
    DatabaseId, DatabaseName, Extent, ExtentId, MergePolicy, Timestamp, Version,
};
use slipstream_storage::blocking::off_the_runtime;
use tokio::sync::Semaphore;

use super::failures::Failures;
use super::merge::{Merge, MergeError};
use super::plan::{self, Bounds};
use crate::Cluster;
use crate::ingest::{IngestContext, IngestOptions};

/// Merges of one table in one round: the other tables have their turn before the next.
const TABLE_MERGES_MAX: usize = 4;

/// Moves at one time, over all databases: each is of some megabytes.
const MOVES_MAX: usize = 2;

/// Merges small extents of the databases of a node.
pub(super) struct Merger {
    cluster: Arc<Cluster>,
    options: IngestOptions,
    /// Extents that become one at one time, over all databases.
    merges_max: usize,
    /// Whether it moves streamed rows into files, rather than merging what are files already.
    moves: bool,
    /// Slots to encode in, shared with nobody: ingests have theirs, and wait for no merge.
    encoding: Arc<Semaphore>,
    failures: Mutex<Failures>,
    /// The versions at which nothing was to be merged: then neither is it later, as time only makes
    /// extents too old.
    settled: Mutex<HashMap<DatabaseId, Version>>,
}

/// Merges that are planned together.
#[derive(Default)]
struct Round {
    merges: Vec<(DatabaseWriter, Merge)>,
    /// Whether a table has more of them.
    has_more: bool,
}

impl Merger {
    pub(super) fn new(cluster: Arc<Cluster>, options: IngestOptions, merges_max: usize) -> Self {
        Self {
            cluster,
            options,
            merges_max,
            moves: false,
            encoding: Arc::new(Semaphore::new(merges_max)),
            failures: Mutex::default(),
            settled: Mutex::default(),
        }
    }

    /// One that only moves streamed rows into files.
    pub(super) fn moving(cluster: Arc<Cluster>, options: IngestOptions) -> Self {
        Self {
            moves: true,
            ..Self::new(cluster, options, MOVES_MAX)
        }
    }

    /// Merges for as long as the node runs.
    pub(super) async fn run(self: Arc<Self>, interval: Duration) {
        loop {
            super::pause(&self.cluster, interval).await;
            while self.round().await {}
        }
    }

    /// Plans, and does what is planned. Whether there is more to do at once.
    async fn round(self: &Arc<Self>) -> bool {
        let planner = Arc::clone(self);
        // Looking through many extents takes a while: not on a thread that serves others.
        let planned = off_the_runtime(move || planner.plan()).await;
        let round = match planned {
            Ok(round) => round,
            Err(error) => {
                tracing::error!(%error, "merges could not be planned");
                return false;
            }
        };
        let merged = AtomicUsize::new(0);
        let count = &merged;
        stream::iter(round.merges)
            .for_each_concurrent(self.merges_max, |(writer, merge)| async move {
                if self.merge(writer, merge).await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        round.has_more && merged.into_inner() > 0
    }

    fn plan(&self) -> Round {
        let (now, elapsed) = (self.cluster.clock().now(), self.cluster.clock().elapsed());
        self.failures.lock().forget_gone(elapsed);
        let may_retry = !self.failures.lock().is_empty();
        let mut round = Round::default();
        let mut settled = HashMap::new();
        for (name, writer) in self.cluster.writers() {
            let state = writer.state();
            let (id, version) = (state.id(), state.version());
            let is_settled = self.settled.lock().get(&id) == Some(&version);
            if is_settled && !may_retry {
                settled.insert(id, version);
                continue;
            }
            let before = round.merges.len();
            for table in state.tables() {
                self.plan_table(&name, &writer, &state, table, (now, elapsed), &mut round);
            }
            if round.merges.len() == before {
                settled.insert(id, version);
            }
        }
        *self.settled.lock() = settled;
        round
    }

    fn plan_table(
        &self,
        database: &DatabaseName,
        writer: &DatabaseWriter,
        state: &DatabaseState,
        table: &TableState,
        (now, elapsed): (Timestamp, Duration),
        round: &mut Round,
    ) {
        let policy = MergePolicy::effective(table.policies.merge, state.merge_policy());
        let has_work = if self.moves {
            table.extents.inline().extents > 0
        } else {
            policy.allows_merging() && table.extents.len() >= 2
        };
        if !has_work {
            return;
        }
        let bounds = Bounds::of(&policy, self.options.extent_rows_max);
        let failures = self.failures.lock();
        let is_left_out = |extent: ExtentId| failures.holds(extent, elapsed);
        let groups = if self.moves {
            plan::streamed(table, &bounds, is_left_out)
        } else {
            let candidates = plan::candidates(state, table, &policy, &bounds, now, is_left_out);
            plan::plan(candidates, &bounds)
        };
        drop(failures);
        round.has_more |= groups.len() > TABLE_MERGES_MAX;
        for group in groups.into_iter().take(TABLE_MERGES_MAX) {
            let sources = group.iter().filter_map(|id| table.extents.get(*id));
            let merge = Merge {
                database: database.clone(),
                database_id: state.id(),
                table: table.name.clone(),
                table_id: table.id,
                schema: table.schema.clone(),
                sources: plan::write_order(sources.collect(), &table.schema),
            };
            round.merges.push((writer.clone(), merge));
        }
    }

    /// Has one merge done; whether it is committed. What fails is noted, and harms nothing.
    async fn merge(&self, writer: DatabaseWriter, merge: Merge) -> bool {
        let clock = self.cluster.clock();
        let started = clock.elapsed();
        let outcome = match self.context(merge.database_id) {
            Ok(context) => merge.run(&writer, &context).await,
            Err(error) => Err(MergeError::Failed(error)),
        };
        let ended = clock.elapsed();
        let (database, table) = (&merge.database, &merge.table);
        let (outcome, is_merged) = match outcome {
            Ok(extents) => {
                tell(&merge, &extents, ended.saturating_sub(started));
                ("merged", true)
            }
            Err(MergeError::Superseded(reason)) => {
                tracing::info!(
                    %database, %table, %reason,
                    "extents were not merged: the table has changed meanwhile"
                );
                ("superseded", false)
            }
            Err(MergeError::Unreadable(extent, error)) => {
                tracing::warn!(
                    %database, %table, %extent, %error,
                    "extents were not merged; all but this one are tried again"
                );
                self.failures.lock().note(extent, ended);
                ("failed", false)
            }
            Err(MergeError::Failed(error)) => {
                tracing::warn!(
                    %database, %table, %error,
                    "{} extents were not merged; tried again later", merge.sources.len()
                );
                let mut failures = self.failures.lock();
                for source in &merge.sources {
                    failures.note(source.id, ended);
                }
                ("failed", false)
            }
        };
        metrics::counter!("slipstream_merges_total", "outcome" => outcome).increment(1);
        is_merged
    }

    /// How the results are written.
    fn context(&self, database: DatabaseId) -> Result<IngestContext, ServiceError> {
        let cluster = &self.cluster;
        Ok(IngestContext {
            bucket: cluster.bucket().clone(),
            clock: Arc::clone(cluster.clock()),
            ids: cluster.extent_ids(database)?,
            database,
            created_on: cluster.clock().now(),
            tags: BTreeSet::new(),
            encoding: Arc::clone(&self.encoding),
            options: self.options.clone(),
        })
    }
}

/// Counts a merge that is committed, and says so.
fn tell(merge: &Merge, extents: &[Extent], took: Duration) {
    let sum = |extents: &[Extent], of: fn(&Extent) -> u64| extents.iter().map(of).sum::<u64>();
    let sources = merge.sources.len();
    let rows = sum(extents, |extent| extent.row_count);
    let bytes_before = sum(&merge.sources, |extent| extent.size_bytes);
    let bytes = sum(extents, |extent| extent.size_bytes);
    metrics::counter!("slipstream_merge_sources_total").increment(sources as u64);
    metrics::counter!("slipstream_merge_rows_total").increment(rows);
    metrics::counter!("slipstream_merge_bytes_total").increment(bytes);
    metrics::histogram!("slipstream_merge_seconds").record(took.as_secs_f64());
    tracing::info!(
        database = %merge.database, table = %merge.table,
        sources, extents = extents.len(), rows, bytes_before, bytes,
        "merged extents in {took:?}"
    );
}
