//! Extents whose time is over leave their tables (*Retention policy*, Kusto documentation).

use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::{CommitError, DatabaseOp, DatabaseState, DatabaseWriter, OpError};
use slipstream_model::{DatabaseName, ExtentId, RetentionPolicy, Timestamp};

use crate::Cluster;

/// How often removing is planned anew in one pass, when others take the same extents away meanwhile.
/// What is left then has its turn in the next.
const ATTEMPTS_MAX: usize = 3;

/// Removes extents for as long as the node runs.
pub(super) async fn run(cluster: Arc<Cluster>, interval: Duration) {
    loop {
        super::pause(&cluster, interval).await;
        for (database, writer) in cluster.writers() {
            remove(&cluster, &database, &writer).await;
        }
    }
}

/// Removes what is over in one database, from all its tables in one commit.
async fn remove(cluster: &Cluster, database: &DatabaseName, writer: &DatabaseWriter) {
    for _ in 0..ATTEMPTS_MAX {
        let state = writer.state();
        let over = Over::find(&state, cluster.careful_now());
        if over.ops.is_empty() {
            return;
        }
        let (extents, rows) = (over.extents, over.rows);
        match writer.commit(over.ops).await {
            Ok(committed) => {
                metrics::counter!("slipstream_retention_removed_extents_total").increment(extents);
                metrics::counter!("slipstream_retention_removed_rows_total").increment(rows);
                tracing::info!(
                    %database, version = %committed.version, extents, rows,
                    "removed extents that are older than the retention policy keeps them"
                );
                return;
            }
            // Somebody has removed or merged one of them since: whatever is left is looked for again.
            Err(CommitError::Rejected(
                OpError::ExtentNotFound { .. } | OpError::TableDropped(_),
            )) => {}
            Err(error) => {
                metrics::counter!("slipstream_retention_failures_total").increment(1);
                tracing::warn!(%database, %error, "extents that are over could not be removed");
                return;
            }
        }
    }
}

/// What is over in a database.
#[derive(Debug, Default, PartialEq)]
struct Over {
    /// One for each table that has any.
    ops: Vec<DatabaseOp>,
    extents: u64,
    rows: u64,
}

impl Over {
    fn find(state: &DatabaseState, now: Timestamp) -> Self {
        let mut over = Self::default();
        for table in state.tables() {
            let own = table.policies.retention;
            let Some(policy) = RetentionPolicy::effective(own, state.retention_policy()) else {
                continue;
            };
            let mut extents: Vec<ExtentId> = Vec::new();
            for block in table.extents.blocks() {
                let is_over = |slot: &usize| policy.is_over(block.max_created_on(*slot), now);
                for slot in block.live_slots().filter(is_over) {
                    extents.push(block.id(slot));
                    over.rows += block.row_counts().value(slot);
                }
            }
            if !extents.is_empty() {
                over.extents += extents.len() as u64;
                over.ops.push(DatabaseOp::RemoveExtents {
                    table: table.id,
                    extents,
                });
            }
        }
        over
    }
}

#[cfg(test)]
mod tests;
