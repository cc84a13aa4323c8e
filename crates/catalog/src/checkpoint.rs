//! Checkpoints: the state of a database, so that a cold start reads little of the log.
//!
//! A checkpoint is a small *root* that names *segments*. Segments are named by what they hold,
//! shared by all checkpoints and written once; so a checkpoint costs what changed since the one
//! before it. The *newest* object names the newest root. It is a hint: whoever finds it old, lost
//! or damaged reads more of the log, and comes to the same state.

pub(crate) mod format;
mod load;
mod write;

use bytes::Bytes;
use slipstream_model::{DatabaseId, Digest, Version};
use slipstream_storage::{BucketPath, BucketWriter, blocking};

use crate::{CatalogError, LogDefect};
pub(crate) use load::{is_lost, load, load_newest};
pub(crate) use write::write;

/// Segments that are read or written at once. InfluxDB capped its start-up reads at 16 to 20
/// after unbounded ones made nodes fail in loops.
const SEGMENT_CONCURRENCY: usize = 16;

/// The segments that a root names.
pub(crate) fn segments(root: &Bytes) -> Result<Vec<Digest>, LogDefect> {
    let tables = format::decode_root(root)?.tables.into_iter();
    let segments = tables.flat_map(|table| table.segments);
    Ok(segments.map(|segment| segment.sha256).collect())
}

/// Deletes the checkpoint of a version, when there is one, and those of its segments that do not
/// stay. Repeating it is harmless.
pub(crate) async fn delete(
    bucket: &BucketWriter,
    database: DatabaseId,
    version: Version,
    stays: impl Fn(&Digest) -> bool,
) -> Result<(), CatalogError> {
    let root = BucketPath::checkpoint_root(database, version);
    let Some(object) = bucket.try_get(&root).await? else {
        return Ok(());
    };
    match segments(&object) {
        // The root goes last: it alone names them.
        Ok(segments) => {
            for sha256 in segments.into_iter().filter(|segment| !stays(segment)) {
                let path = BucketPath::checkpoint_segment(database, sha256);
                bucket.delete(&path).await?;
            }
        }
        Err(defect) => tracing::warn!(
            %root, %defect, "what a damaged checkpoint shares with no other one stays"
        ),
    }
    Ok(bucket.delete(&root).await?)
}

/// Runs work that takes long on a thread for such work.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match blocking::off_the_runtime(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is cancelled only when the runtime goes away, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
