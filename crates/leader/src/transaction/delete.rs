//! `DELETE FROM`: extents that hold such rows leave, and what is left of them is written anew.
//!
//! An extent is immutable, so one that keeps some of its rows is another one afterwards. It keeps
//! the times and the tags of the one it comes from: the rows that stay have not become younger.
//! Rows that are added meanwhile are not looked at; when an extent that was looked at has left
//! meanwhile, nothing is changed and the client may try again.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use slipstream_catalog::DatabaseOp;
use slipstream_frontend::{ErrorKind, Permission, ServiceError};
use slipstream_model::{DatabaseId, Extent, ExtentId};
use slipstream_query::{Delete, Deletion, QuerySession};

use super::Transaction;
use crate::engine::LeaderEngine;
use crate::ingest::{ExtentIds, write_extents};

/// Extents of one `DELETE` that are worked on at one time. While one waits for the bucket another
/// is decoded or encoded; each may hold all its rows in memory.
const EXTENTS_MAX: usize = 4;

impl Transaction<'_> {
    /// Runs a `DELETE`.
    pub(super) async fn delete(
        &mut self,
        session: &QuerySession,
        delete: Delete,
    ) -> Result<(), ServiceError> {
        let database = self.state_of(delete.table.0.as_deref())?.id();
        let name = self.database_name().to_owned();
        self.request.access.check(&name, Permission::Administer)?;
        let info = self.query_info();
        let deletion = session.delete(&name, delete, info).await?;
        let (table, schema) = (deletion.table().id, deletion.table().schema.clone());
        let found = find(self.engine, database, &deletion).await;
        let changes = match found {
            Ok(changes) => {
                deletion.complete();
                changes
            }
            Err(error) => {
                deletion.fail(&error);
                return Err(error);
            }
        };
        if changes.removed.is_empty() {
            return Ok(());
        }
        self.rows += changes.rows;
        let extents = changes.removed.iter().map(|(id, _)| *id).collect();
        self.add(DatabaseOp::ExpectTags {
            table,
            extents: changes.removed,
        })?;
        self.add(DatabaseOp::RemoveExtents { table, extents })?;
        let written = changes.written.into_iter().flat_map(Written::keep);
        let written: Vec<_> = written.collect();
        if written.is_empty() {
            return Ok(());
        }
        self.add(DatabaseOp::AddExtents {
            table,
            schema,
            extents: written,
        })
    }
}

/// What a `DELETE` makes of a table, or of one of its extents.
#[derive(Default)]
struct Changes {
    /// Rows that go.
    rows: u64,
    /// With the tags that they had.
    removed: Vec<(ExtentId, BTreeSet<String>)>,
    written: Vec<Written>,
}

/// Files of rows that stay, abandoned unless they are kept.
struct Written {
    ids: ExtentIds,
    extents: Vec<Extent>,
}

impl Written {
    /// They are somebody else's to commit.
    fn keep(mut self) -> Vec<Extent> {
        std::mem::take(&mut self.extents)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.ids.abandon_all(&self.extents);
    }
}

/// Works out what becomes of each extent.
async fn find(
    engine: &LeaderEngine,
    database: DatabaseId,
    deletion: &Deletion,
) -> Result<Changes, ServiceError> {
    let candidates = deletion.candidates()?;
    let of_each: Vec<Changes> = futures::stream::iter(candidates)
        .map(|extent| find_in(engine, database, deletion, extent))
        .buffered(EXTENTS_MAX)
        .try_collect()
        .await?;
    let mut all = Changes::default();
    for changes in of_each {
        all.rows += changes.rows;
        all.removed.extend(changes.removed);
        all.written.extend(changes.written);
    }
    Ok(all)
}

async fn find_in(
    engine: &LeaderEngine,
    database: DatabaseId,
    deletion: &Deletion,
    extent: Extent,
) -> Result<Changes, ServiceError> {
    let rows = deletion.count(&extent).await?;
    if rows == 0 && extent.row_count > 0 {
        return Ok(Changes::default());
    }
    let written = if rows == extent.row_count {
        Vec::new()
    } else {
        vec![write_kept(engine, database, deletion, &extent, rows).await?]
    };
    Ok(Changes {
        rows,
        removed: vec![(extent.id, extent.tags)],
        written,
    })
}

/// Writes the rows of an extent that stay.
async fn write_kept(
    engine: &LeaderEngine,
    database: DatabaseId,
    deletion: &Deletion,
    extent: &Extent,
    deleted: u64,
) -> Result<Written, ServiceError> {
    let context =
        engine.ingest_context(database, Some(extent.max_created_on), extent.tags.clone())?;
    let kept = deletion.kept(extent)?;
    let extents = write_extents(&context, &deletion.table().schema, kept).await?;
    let mut written = Written {
        ids: context.ids,
        extents,
    };
    let kept_rows: u64 = written.extents.iter().map(|new| new.row_count).sum();
    // Every row goes or stays. Where the condition was answered one way and the other way round,
    // rows would be lost.
    if kept_rows + deleted != extent.row_count {
        return Err(ServiceError::new(
            ErrorKind::Unsupported,
            "unsupported",
            format!(
                "of the {} rows of extent {}, {deleted} meet the condition and {kept_rows} do not: \
                 it cannot be used to delete rows. Nothing was deleted",
                extent.row_count, extent.id
            ),
        ));
    }
    for new in &mut written.extents {
        new.min_created_on = extent.min_created_on;
        new.max_created_on = extent.max_created_on;
    }
    Ok(written)
}
