//! What a follower that sees only part of a database is told of a commit.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use slipstream_model::{EntityKind, TableId, TableLevelSharing};
use slipstream_proto::log as proto;
use slipstream_storage::frame;
use uuid::Uuid;

use super::{COMMIT_MAGIC, Commit, Section};
use crate::database::DatabaseRecord;
use crate::log::LogRecord;
use crate::{CorruptLog, DatabaseState};

/// Takes out of commits, one after another, the records of what a follower may not see. The
/// digests stay, and with them the follower can still verify the whole.
#[derive(Debug)]
pub struct Redactor {
    sharing: Arc<TableLevelSharing>,
    /// What is known of the tables met so far; a table keeps its name.
    visible: HashMap<Uuid, bool>,
}

impl Redactor {
    /// Shows what `sharing` allows.
    pub fn new(sharing: Arc<TableLevelSharing>) -> Self {
        Self {
            sharing,
            visible: HashMap::new(),
        }
    }

    /// The bytes to send: the commit's own when nothing is to be left out. Names are looked up in
    /// `newest`, a state of the same database that is not older than the commit. A table that was
    /// dropped since has no name any more and is left out.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn redact(&mut self, commit: &Commit, newest: &DatabaseState) -> Result<Bytes, CorruptLog> {
        let corrupt = |what| CorruptLog::undecodable("a commit", what);
        if self.sharing.is_everything() {
            return Ok(commit.bytes().clone());
        }
        let mut shown = Vec::with_capacity(commit.sections().len());
        for section in commit.sections() {
            shown.push(self.is_visible(section, newest).map_err(corrupt)?);
        }
        if shown.iter().all(|is_shown| *is_shown) {
            return Ok(commit.bytes().clone());
        }
        let body = frame::open(COMMIT_MAGIC, commit.bytes())
            .map_err(|error| CorruptLog::new("a commit", crate::LogDefect::Frame(error)))?;
        let mut message =
            proto::Commit::decode(body).map_err(|error| corrupt(error.to_string()))?;
        for (section, is_shown) in message.sections.iter_mut().zip(shown) {
            if !is_shown {
                section.records.clear();
            }
        }
        Ok(frame::seal(COMMIT_MAGIC, &message.encode_to_vec()))
    }

    fn is_visible(&mut self, section: &Section, newest: &DatabaseState) -> Result<bool, String> {
        if section.subject.is_nil() {
            return Ok(true);
        }
        if let Some(known) = self.visible.get(&section.subject) {
            return Ok(*known);
        }
        let first = section.records.first().map(DatabaseRecord::decode);
        let first = first.transpose()?;
        let is_visible = match first.as_ref().and_then(DatabaseRecord::named) {
            Some((kind, name)) => self.sharing.allows(kind, name),
            None => self.is_visible_now(section.subject, newest),
        };
        self.visible.insert(section.subject, is_visible);
        Ok(is_visible)
    }

    fn is_visible_now(&self, subject: Uuid, newest: &DatabaseState) -> bool {
        let table = newest.table_by_id(TableId::new(subject));
        let table = table.map(|table| (EntityKind::Table, table.name.as_str()));
        let function = || {
            let known = newest.functions().find(|f| f.id.as_uuid() == subject);
            known.map(|known| (EntityKind::Function, known.entity.name.as_str()))
        };
        let external = || {
            let known = newest.external_tables().find(|t| t.id.as_uuid() == subject);
            known.map(|known| (EntityKind::ExternalTable, known.entity.name.as_str()))
        };
        let named = table.or_else(function).or_else(external);
        named.is_some_and(|(kind, name)| self.sharing.allows(kind, name))
    }
}
