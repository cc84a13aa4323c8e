//! Tables that were dropped, as they were just before.

use std::sync::Arc;

use slipstream_model::{Timestamp, Version};
use slipstream_storage::BucketPath;

use super::{History, HistoryError};
use crate::database::DatabaseRecord;
use crate::log::{LogRecord, LogState};
use crate::{CatalogError, Commit, CorruptLog, DatabaseState, LogDefect, TableState};

/// A table that was dropped.
#[derive(Debug, Clone)]
pub struct DroppedTable {
    /// The commit that dropped it.
    pub version: Version,
    /// When that was made.
    pub dropped_at: Timestamp,
    /// What it was right before, the changes that the same commit made to it included.
    pub table: Arc<TableState>,
}

impl History {
    /// The table of a name that a version dropped; when it dropped none of that name, the one that
    /// the version after it dropped. So a drop is named by its own version, as its answer says it,
    /// or by the last version that had the table.
    ///
    /// # Errors
    /// When there is no such version, or it is no longer kept.
    pub async fn dropped_table(
        &self,
        newest: &DatabaseState,
        name: &str,
        version: Version,
    ) -> Result<Option<DroppedTable>, HistoryError> {
        if version == Version::ZERO {
            return Err(HistoryError::BeforeFirst);
        }
        if version > newest.version() {
            return Err(HistoryError::NotYet {
                wanted: version,
                newest: newest.version(),
            });
        }
        for version in [version, version.next()] {
            if version > newest.version() {
                break;
            }
            let Some(commit) = self.commit(newest.id(), version).await? else {
                return Err(self.not_kept(newest, version).await);
            };
            let path = BucketPath::database_commit(newest.id(), version);
            let untrusted = |corrupt: CorruptLog| CatalogError::from(corrupt.named(&path));
            if !drops_tables(&commit).map_err(untrusted)? {
                continue;
            }
            // The first commit only opens the log, so there is one before.
            let before = Version::new(version.get() - 1);
            let before = self.state_at(newest, before).await?;
            before.apply(&commit).map_err(untrusted)?;
            let table = dropped_by(&commit, &before, name).map_err(untrusted)?;
            if let Some(table) = table {
                return Ok(Some(DroppedTable {
                    version,
                    dropped_at: commit.committed_at(),
                    table,
                }));
            }
        }
        Ok(None)
    }
}

fn records(commit: &Commit) -> impl Iterator<Item = Result<DatabaseRecord, CorruptLog>> + '_ {
    let records = commit.sections().iter();
    let records = records.flat_map(|section| &section.records);
    records.map(decode)
}

fn decode(bytes: &bytes::Bytes) -> Result<DatabaseRecord, CorruptLog> {
    DatabaseRecord::decode(bytes).map_err(|what| CorruptLog::undecodable("a commit", what))
}

fn drops_tables(commit: &Commit) -> Result<bool, CorruptLog> {
    for record in records(commit) {
        if record? == DatabaseRecord::DropTable {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The table of a name that a commit drops; the last one, when it does so more than once.
fn dropped_by(
    commit: &Commit,
    before: &DatabaseState,
    name: &str,
) -> Result<Option<Arc<TableState>>, CorruptLog> {
    let mut state = before.clone();
    let mut dropped = None;
    for section in commit.sections() {
        let subject = section.subject;
        for bytes in &section.records {
            let record = decode(bytes)?;
            if record == DatabaseRecord::DropTable {
                let table = state.table_by_id(slipstream_model::TableId::new(subject));
                let named = table.filter(|table| table.name.as_str() == name);
                dropped = named.map(Arc::clone).or(dropped);
            }
            let applied = state.apply_record(subject, record);
            applied.map_err(|reason| {
                CorruptLog::new("a commit", LogDefect::Inapplicable { subject, reason })
            })?;
        }
    }
    Ok(dropped)
}
