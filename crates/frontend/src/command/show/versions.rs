//! What the newest commits of a database did, and which versions are kept. Kusto keeps its versions
//! to itself.

use crate::command::Context;
use crate::command::rows::{Kind, Rows};
use crate::{RecoveredExtent, ServiceError};

use super::ROWS_MAX;
use Kind::{Guid, Long, Text, Time};

/// Versions that are shown: each is one request to the bucket.
const VERSIONS_MAX: usize = 100;

/// *.show database D versions*: the newest first.
pub(super) async fn versions(context: &Context<'_>, database: &str) -> Result<Rows, ServiceError> {
    context.visible_database(database)?;
    let rows = Rows::new(&[
        ("Version", Long),
        ("CommittedOn", Time),
        ("Digest", Text),
        ("Changes", Text),
    ]);
    let versions = context.engine.versions(database, VERSIONS_MAX).await?;
    Ok(rows.with(versions.into_iter().map(|version| {
        vec![
            version.version.get().into(),
            version.committed_at.into(),
            version.digest.to_string().into(),
            version.changes.join(", ").into(),
        ]
    })))
}

/// *.show database D pins*: by name.
pub(in crate::command) fn pins(
    context: &Context<'_>,
    database: &str,
) -> Result<Rows, ServiceError> {
    context.visible_database(database)?;
    let rows = Rows::new(&[
        ("DatabaseName", Text),
        ("PinName", Text),
        ("Version", Long),
        ("PinnedAt", Text),
    ]);
    let pins = context.engine.pins(database)?.into_iter();
    Ok(rows.with(pins.map(|pin| {
        vec![
            database.into(),
            pin.name.as_str().into(),
            pin.version.get().into(),
            pin.cluster.into(),
        ]
    })))
}

/// What *.undo drop table* brought back (`undo-drop-table-command.md`).
pub(in crate::command) fn recovered(extents: &[RecoveredExtent]) -> Rows {
    let rows = Rows::new(&[
        ("ExtentId", Guid),
        ("NumberOfRecords", Long),
        ("Status", Text),
        ("FailureReason", Text),
    ]);
    rows.with(extents.iter().take(ROWS_MAX).map(|extent| {
        vec![
            extent.id.to_string().into(),
            extent.row_count.into(),
            "Recovered".into(),
            "".into(),
        ]
    }))
}
