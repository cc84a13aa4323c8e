//! Which commands ran lately on this node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_model::{Clock, Timestamp};
use uuid::Uuid;

use crate::{AuthorizedEngine, ServiceError, SqlRequest};

/// Commands that are remembered; with texts cut at [`TEXT_CHARS_MAX`], 4 MiB at most.
const KEPT_MAX: usize = 1_000;
/// Characters of a command's text that are kept.
const TEXT_CHARS_MAX: usize = 1_000;

/// The last commands of a node.
#[derive(Debug)]
pub(crate) struct CommandLog {
    clock: Arc<dyn Clock>,
    ended: Mutex<VecDeque<CommandRow>>,
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub(crate) struct CommandRow {
    pub(crate) id: Uuid,
    pub(crate) text: String,
    pub(crate) database: Option<String>,
    pub(crate) client: String,
    pub(crate) principal: String,
    pub(crate) started_on: Timestamp,
    pub(crate) duration: Duration,
    /// Why it failed, when it did.
    pub(crate) failure: Option<String>,
}

/// A command that runs.
pub(super) struct CommandEntry {
    log: Arc<CommandLog>,
    row: CommandRow,
    began: Duration,
}

impl CommandLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            ended: Mutex::default(),
        })
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        engine: &AuthorizedEngine,
        request: &SqlRequest,
    ) -> CommandEntry {
        let row = CommandRow {
            id: engine.new_id(),
            text: slipstream_kusto::without_secrets(&request.sql)
                .chars()
                .take(TEXT_CHARS_MAX)
                .collect(),
            database: request.database.clone(),
            client: request.client.clone(),
            principal: engine.caller().principal.to_string(),
            started_on: self.clock.now(),
            duration: Duration::ZERO,
            failure: None,
        };
        CommandEntry {
            log: Arc::clone(self),
            row,
            began: self.clock.elapsed(),
        }
    }

    /// The commands, the oldest first.
    pub(super) fn rows(&self) -> Vec<CommandRow> {
        self.ended.lock().iter().cloned().collect()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl CommandEntry {
    pub(super) fn end<T>(mut self, result: &Result<T, ServiceError>) {
        self.row.duration = self.log.clock.elapsed().saturating_sub(self.began);
        self.row.failure = result.as_ref().err().map(ToString::to_string);
        let mut ended = self.log.ended.lock();
        if ended.len() == KEPT_MAX {
            ended.pop_front();
        }
        ended.push_back(self.row);
    }
}
