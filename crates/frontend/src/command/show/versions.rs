//! What the newest commits of a database did. Kusto keeps its versions to itself.

use crate::ServiceError;
use crate::command::Context;
use crate::command::rows::{Kind, Rows};

use Kind::{Long, Text, Time};

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
