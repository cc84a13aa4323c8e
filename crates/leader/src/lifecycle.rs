//! What a leader does to extents by itself: small ones become large ones, and those whose time is
//! over leave.
//!
//! * [`plan`] decides which extents become one, and does nothing else.
//! * [`Merger`] has that done, and moves streamed rows into files by the same way: a [`merge::Merge`] reads extents, writes their rows anew and puts the
//!   result in their place, in one transaction, or leaves everything as it is.
//! * [`retention`] takes extents out of tables.
//!
//! Both only change what the tables consist of. The files of extents that left stay where they
//! are: whoever reads an older version still finds them, until [`garbage`] deletes those that
//! nobody can read any more.

mod collector;
mod dropped;
mod failures;
mod garbage;
mod merge;
mod merger;
mod orphans;
mod plan;
mod pruner;
mod read;
mod retention;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use crate::Cluster;
use crate::ingest::IngestOptions;
pub use collector::GarbageCollector;
pub(crate) use collector::{Kept, catalog_error};
use merger::Merger;
pub use plan::{Bounds as MergeBounds, Candidate as MergeCandidate, plan as plan_merges};
pub use settings::{GC_GRACE, LifecycleArgs, LifecycleSettings, MERGE_INTERVAL};

/// Between two looks for streamed rows that can become files. Long enough that a table which takes
/// rows all the time gets six small files a minute, which merges find; short enough that logs and
/// states hold little.
const MOVE_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the tasks of a node. They end with it. Gives the one that is also asked.
pub fn start(
    cluster: &Arc<Cluster>,
    settings: &LifecycleSettings,
    ingest: &IngestOptions,
) -> Arc<GarbageCollector> {
    if let Some(interval) = settings.retention_interval {
        let removing = retention::run(Arc::clone(cluster), interval);
        spawn(cluster, removing);
    }
    if let Some(interval) = settings.merge_interval {
        let merger = Merger::new(Arc::clone(cluster), ingest.clone(), settings.merges_max);
        spawn(cluster, Arc::new(merger).run(interval));
    }
    let mover = Merger::moving(Arc::clone(cluster), ingest.clone());
    spawn(cluster, Arc::new(mover).run(MOVE_INTERVAL));
    let garbage = GarbageCollector::new(Arc::clone(cluster), settings);
    let garbage = Arc::new(garbage);
    if let Some(interval) = settings.gc_interval {
        spawn(cluster, Arc::clone(&garbage).run(interval));
    }
    garbage
}

fn spawn(cluster: &Cluster, task: impl Future<Output = ()> + Send + 'static) {
    let shutdown = cluster.shutdown().clone();
    cluster.tasks().spawn(async move {
        shutdown.run_until_cancelled(task).await;
    });
}

/// Waits for the next turn: about an interval, so that nodes that were started together part.
async fn pause(cluster: &Cluster, interval: Duration) {
    let jitter = 0.8 + 0.4 * cluster.entropy().fraction();
    cluster.clock().sleep(interval.mul_f64(jitter)).await;
}
