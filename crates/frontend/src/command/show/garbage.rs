//! Files of removed extents: what keeps them, and what was deleted. Kusto deletes without a word.

use crate::command::Context;
use crate::command::rows::{Kind, Rows};
use crate::{CollectedExtent, ServiceError};

use Kind::{Guid, Long, Text, Time};

/// *.show gc blockers*: a row for each database, reason and holder.
pub(super) async fn blockers(context: &Context<'_>) -> Result<Rows, ServiceError> {
    let rows = Rows::new(&[
        ("DatabaseName", Text),
        ("Reason", Text),
        ("Holder", Text),
        ("Extents", Long),
        ("Bytes", Long),
        ("OldestRemovedVersion", Long),
        ("OldestRemovedOn", Time),
        ("KeptUntil", Time),
    ]);
    let blockers = context.engine.garbage().await?.into_iter();
    Ok(rows.with(blockers.map(|blocker| {
        vec![
            blocker.database.into(),
            blocker.reason.as_str().into(),
            blocker.holder.into(),
            blocker.extents.into(),
            blocker.bytes.into(),
            blocker.oldest_version.get().into(),
            blocker.oldest_removed_at.into(),
            blocker.until.into(),
        ]
    })))
}

/// What *.gc database* deleted, or would delete.
pub(in crate::command) fn collected(database: &str, collected: &[CollectedExtent]) -> Rows {
    let rows = Rows::new(&[
        ("DatabaseName", Text),
        ("TableName", Text),
        ("ExtentId", Guid),
        ("ExtentSize", Long),
        ("RemovedVersion", Long),
        ("RemovedOn", Time),
        ("Reason", Text),
    ]);
    rows.with(collected.iter().map(|extent| {
        vec![
            database.into(),
            extent.table.as_str().into(),
            extent.id.to_string().into(),
            extent.size_bytes.into(),
            extent.removed_version.get().into(),
            extent.removed_at.into(),
            extent.reason.as_str().into(),
        ]
    }))
}
