//! Dropped tables that come back: *.undo drop table*.
//!
//! A table comes back as a new one, with another id, in one commit: its columns under their
//! numbers, its policies, and the extents that it had, whose files are still in the bucket. Nothing
//! of the database is deleted from the first look until it is known what became of the commit.

use slipstream_catalog::{DatabaseOp, DroppedTable};
use slipstream_frontend::{ErrorKind, RecoveredExtent, ServiceError, SqlRequest, UndoDropTable};
use slipstream_model::{Extent, ExtentId, RetentionPolicy, TableId, TableName, TablePolicies};

use crate::engine::LeaderEngine;
use crate::lifecycle::Kept;
use crate::transaction::Transaction;

impl LeaderEngine {
    /// Brings a dropped table back.
    pub(crate) async fn undo_drop(
        &self,
        undo: UndoDropTable,
    ) -> Result<Vec<RecoveredExtent>, ServiceError> {
        let UndoDropTable {
            database,
            table,
            new_name,
            version,
            access,
        } = undo;
        let name = new_name.unwrap_or_else(|| table.clone());
        let name = TableName::new(name).map_err(ServiceError::invalid_name)?;
        let writer = self.cluster().writer(self.owned(&database)?)?;
        let kept = self.collector().keep(&writer).await?;
        let newest = kept.newest();
        if newest.table(name.as_str()).is_some() {
            let message = format!(
                "table '{name}' exists already: bring the dropped one back under another name, as \
                 in '.undo drop table {table} as NewName version={version}'"
            );
            return Err(ServiceError::new(
                ErrorKind::AlreadyExists,
                "table_exists",
                message,
            ));
        }
        let history = self.history();
        let dropped = history.dropped_table(&database, newest, &table, version);
        let dropped = dropped.await?.ok_or_else(|| {
            ServiceError::new(
                ErrorKind::NotFound,
                "table_not_found",
                format!(
                    "version {version} of database '{database}' dropped no table '{table}', and \
                     neither did the one after it: '.show database {database} versions' says what \
                     versions did"
                ),
            )
        })?;
        let extents: Vec<Extent> = dropped.table.extents.iter().collect();
        check_recoverable(&kept, &dropped, &extents).await?;

        let recovered = extents.iter().map(|extent| RecoveredExtent {
            id: extent.id,
            row_count: extent.row_count,
        });
        let recovered = recovered.collect();
        let id = TableId::new(self.cluster().entropy().uuid());
        let ops = restoration(id, &name, &dropped, extents);
        let request = SqlRequest {
            database: Some(database),
            access,
            ..SqlRequest::default()
        };
        let transaction = Transaction::new(self, &request);
        transaction.apply_holding(ops, kept).await?;
        Ok(recovered)
    }
}

/// Refuses what may not come back, and what cannot any more.
async fn check_recoverable(
    kept: &Kept,
    dropped: &DroppedTable,
    extents: &[Extent],
) -> Result<(), ServiceError> {
    let (name, version) = (&dropped.table.name, dropped.version);
    let policy = dropped.table.policies.retention;
    let policy = RetentionPolicy::effective(policy, kept.newest().retention_policy());
    let refused = |code, why: String| {
        let message = format!("table '{name}', dropped by version {version}, is gone: {why}");
        Err(ServiceError::new(ErrorKind::Conflict, code, message))
    };
    if policy.is_some_and(|policy| !policy.is_recoverable) {
        let why = "its retention policy says that it is not recoverable";
        return refused("not_recoverable", why.to_owned());
    }
    if kept.is_over(dropped.dropped_at) {
        let (at, grace) = (dropped.dropped_at, kept.grace());
        return refused(
            "not_recoverable",
            format!("that was at {at}, and what is removed is kept for {grace:?}"),
        );
    }
    let ids: Vec<ExtentId> = extents.iter().map(|extent| extent.id).collect();
    if let Some(held) = kept.held_of(&ids) {
        return refused(
            "extent_in_use",
            format!("a table has its extent {held} already, so it was brought back before"),
        );
    }
    // What stood in the log stands there still.
    let files = extents.iter().filter(|extent| extent.inline.is_none());
    let files: Vec<ExtentId> = files.map(|extent| extent.id).collect();
    match kept.gone_of(&files).await? {
        Some(gone) => refused(
            "not_recoverable",
            format!("the file of its extent {gone} was deleted"),
        ),
        None => Ok(()),
    }
}

/// What makes a new table of a dropped one. Its policies come first: whoever may not see a row of
/// it does not see it now.
fn restoration(
    id: TableId,
    name: &TableName,
    dropped: &DroppedTable,
    extents: Vec<Extent>,
) -> Vec<DatabaseOp> {
    let schema = &dropped.table.schema;
    // By name, so that none is forgotten.
    let TablePolicies {
        caching,
        row_level_security,
        retention,
        merge,
        ingestion_batching,
        streaming_ingestion,
    } = TablePolicies::clone(&dropped.table.policies);
    let mut ops = vec![DatabaseOp::CreateTable {
        id,
        name: name.clone(),
        schema: schema.clone(),
        if_not_exists: false,
    }];
    // Before there are rows that it hides.
    ops.extend(
        row_level_security.map(|policy| DatabaseOp::SetRowLevelSecurity {
            table: name.clone(),
            policy: Some(policy),
        }),
    );
    let table = Some(name);
    ops.extend(caching.map(|policy| DatabaseOp::SetCachingPolicy {
        table: table.cloned(),
        policy: Some(policy),
    }));
    ops.extend(retention.map(|policy| DatabaseOp::SetRetentionPolicy {
        table: table.cloned(),
        policy: Some(policy),
    }));
    ops.extend(merge.map(|policy| DatabaseOp::SetMergePolicy {
        table: table.cloned(),
        policy: Some(policy),
    }));
    ops.extend(
        ingestion_batching.map(|policy| DatabaseOp::SetIngestionBatchingPolicy {
            table: table.cloned(),
            policy: Some(policy),
        }),
    );
    ops.extend(
        streaming_ingestion.map(|policy| DatabaseOp::SetStreamingIngestionPolicy {
            table: table.cloned(),
            policy: Some(policy),
        }),
    );
    if !extents.is_empty() {
        ops.push(DatabaseOp::AddExtents {
            table: id,
            schema: schema.clone(),
            extents,
        });
    }
    ops
}
