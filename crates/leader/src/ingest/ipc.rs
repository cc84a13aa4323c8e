//! Arrow IPC files, and Arrow batches, from strangers.
//!
//! As with streams ([`slipstream_frontend::arrow_ipc`]), what a file says of its sizes is compared with what
//! it has before Arrow makes room for it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::read_footer_length;
use arrow::ipc::root_as_footer;
use futures::{StreamExt, TryStreamExt, stream};
use slipstream_frontend::{ServiceError, arrow_ipc};

use super::{BATCH_ROWS, BatchStream};

/// The end of a file: the length of the footer, and the magic.
const TRAILER_BYTES: usize = 10;
/// Rows of one batch: what Arrow asks writers to keep to. Columns of nulls take no bytes, so that a
/// batch can say any number.
const ROWS_MAX: usize = i32::MAX as usize;

/// Compares what the footer of a file says with the file. Reads from its start afterwards.
pub(super) fn check_file(mut file: &File) -> Result<(), ArrowError> {
    let length = file.metadata()?.len();
    let damaged = |what: &str| ArrowError::IpcError(what.to_owned());
    let before_trailer = length
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or_else(|| damaged("it is too short"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(before_trailer))?;
    file.read_exact(&mut trailer)?;
    let footer_length = read_footer_length(trailer)?;
    let footer_at = before_trailer
        .checked_sub(footer_length as u64)
        .ok_or_else(|| damaged("its footer is longer than the file"))?;
    let mut footer = vec![0; footer_length];
    file.seek(SeekFrom::Start(footer_at))?;
    file.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer)
        .map_err(|error| ArrowError::IpcError(format!("its footer is damaged: {error}")))?;
    let blocks = footer.dictionaries().into_iter().flatten();
    for block in blocks.chain(footer.recordBatches().into_iter().flatten()) {
        let parts = [
            block.offset(),
            i64::from(block.metaDataLength()),
            block.bodyLength(),
        ];
        let parts = parts.map(|part| u64::try_from(part).ok());
        let end = parts
            .into_iter()
            .try_fold(0_u64, |sum, part| sum.checked_add(part?));
        if end.is_none_or(|end| end > length) {
            return Err(damaged("its footer names bytes that it does not have"));
        }
        let [at, metadata_length, _] = parts.map(Option::unwrap_or_default);
        let mut metadata = vec![0; usize::try_from(metadata_length).unwrap_or(0)];
        file.read_exact_at(&mut metadata, at)?;
        // A block begins with the length of its message, and in files of today with a mark before it.
        let prefix = if metadata.starts_with(&arrow_ipc::CONTINUATION) {
            8
        } else {
            4
        };
        let body = at + metadata_length;
        let message = metadata.get(prefix..).unwrap_or_default();
        arrow_ipc::check_message(message, |offset, length| {
            file.read_exact_at(length, body.checked_add(offset)?).ok()
        })?;
    }
    file.rewind()?;
    Ok(())
}

/// Batches of no more rows than others have, however many were put into one. Each is made when it is
/// asked for: all of a batch that says two billion rows of nulls would not fit into memory.
pub(super) fn in_pieces(
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> {
    batches.flat_map(|batch| {
        let (batch, error) = match batch.and_then(check_rows) {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(error)),
        };
        let whole = |batch| pieces(batch, BATCH_ROWS);
        let pieces = batch.into_iter().flat_map(whole).map(Ok);
        pieces.chain(error.map(Err))
    })
}

/// The same for batches that come one by one.
pub(super) fn stream_in_pieces(batches: BatchStream) -> BatchStream {
    let checked = batches.map(|batch| {
        let checked = check_rows(batch?);
        checked.map_err(|error| ServiceError::invalid(format!("{error}. Nothing was ingested")))
    });
    checked
        .map_ok(|batch| stream::iter(pieces(batch, BATCH_ROWS).map(Ok)))
        .try_flatten()
        .boxed()
}

/// A batch of no rows is a piece too.
pub(super) fn pieces(
    batch: RecordBatch,
    rows_max: usize,
) -> impl Iterator<Item = RecordBatch> + Send {
    let rows = batch.num_rows();
    let starts = (0..rows.max(1)).step_by(rows_max);
    starts.map(move |start| batch.slice(start, rows_max.min(rows - start)))
}

fn check_rows(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    if rows > ROWS_MAX {
        let message = format!("a batch has {rows} rows, and {ROWS_MAX} are the most");
        return Err(ArrowError::IpcError(message));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array};

    use super::*;

    #[test]
    fn a_large_batch_comes_in_pieces_that_are_made_one_by_one() {
        let rows = i64::try_from(BATCH_ROWS * 100 + 1).expect("not that many");
        let numbers = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("n", Arc::clone(&numbers) as _)]).expect("valid");
        let mut seen = Vec::new();
        for piece in in_pieces(std::iter::once(Ok(batch))) {
            let piece = piece.expect("readable");
            // Here, in the batch, and in this piece.
            let held = numbers.values().inner().strong_count();
            assert!(held <= 3, "{held} hold the numbers");
            let piece: &Int64Array = piece.column(0).as_any().downcast_ref().expect("numbers");
            seen.extend_from_slice(piece.values());
        }
        assert!(seen.into_iter().eq(0..rows));
    }
}
