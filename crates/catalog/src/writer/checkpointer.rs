//! Decides when a checkpoint is due, and writes it beside the commits.

use slipstream_model::Version;
use slipstream_storage::BucketWriter;
use tokio::task::JoinHandle;

use crate::log::LogState;

/// At most one checkpoint is being written at a time.
#[derive(Debug)]
pub(super) struct Checkpointer {
    bucket: BucketWriter,
    every: u64,
    /// The version of the last checkpoint that was begun.
    begun: Version,
    /// Whether that one is in the bucket, once it is known.
    running: Option<JoinHandle<bool>>,
    written: bool,
}

impl Checkpointer {
    /// `newest` is the checkpoint that is there already; version 0 when there is none.
    pub(super) fn new(bucket: BucketWriter, every: u64, newest: Version) -> Self {
        Self {
            bucket,
            every,
            begun: newest,
            running: None,
            written: true,
        }
    }

    /// Begins a checkpoint of a state when enough has happened since the last.
    ///
    /// One that fails is not repeated at once: the log is complete without it, and the store that
    /// failed it has commits to take.
    pub(super) fn commit_landed<S: LogState>(&mut self, state: &S) {
        let version = state.chain().version;
        let is_due = version.get().saturating_sub(self.begun.get()) >= self.every.max(1);
        let is_busy = self
            .running
            .as_ref()
            .is_some_and(|running| !running.is_finished());
        if is_due && !is_busy {
            self.begun = version;
            self.running = Some(tokio::spawn(write(self.bucket.clone(), state.clone())));
        }
    }

    /// Waits for the checkpoint that is being written, and writes one of a state unless it is
    /// there.
    pub(super) async fn finish<S: LogState>(mut self, state: S) {
        if let Some(running) = self.running.take() {
            self.written = running.await.unwrap_or(false);
        }
        if self.begun != state.chain().version || !self.written {
            write(self.bucket, state).await;
        }
    }
}

/// Whether the checkpoint is in the bucket.
async fn write<S: LogState>(bucket: BucketWriter, state: S) -> bool {
    let version = state.chain().version;
    match state.write_checkpoint(&bucket).await {
        Ok(true) => {
            metrics::counter!("slipstream_checkpoints_total").increment(1);
            tracing::debug!(log = %state.chain().log_id, %version, "wrote a checkpoint");
            true
        }
        Ok(false) => true,
        Err(error) => {
            tracing::warn!(
                log = %state.chain().log_id, %version, %error,
                "could not write a checkpoint; cold starts read more of the log until the next"
            );
            false
        }
    }
}
