//! Parquet and Arrow IPC.
//!
//! Parquet and Arrow files are read from the end, so they are spooled to a file first; an Arrow
//! stream is read as it comes.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader as IpcStreamReader};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use slipstream_frontend::{ErrorKind, ServiceError};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::source::ByteStream;
use super::{BATCH_ROWS, BatchStream, IngestContext};

/// Batches that wait to be encoded.
const BATCHES_AHEAD: usize = 8;
const ARROW_FILE_MAGIC: &[u8] = b"ARROW1";

/// Reads a Parquet file.
pub(super) async fn parquet(
    context: &IngestContext,
    bytes: ByteStream,
    source: &str,
) -> Result<(SchemaRef, BatchStream), ServiceError> {
    let file = spool(context, bytes).await?;
    read(source, "Parquet", move || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let schema = Arc::clone(builder.schema());
        Ok((schema, builder.with_batch_size(BATCH_ROWS).build()?))
    })
    .await
}

/// Reads an Arrow IPC stream or file.
pub(super) async fn arrow(
    context: &IngestContext,
    mut bytes: ByteStream,
    source: &str,
) -> Result<(SchemaRef, BatchStream), ServiceError> {
    let mut start: Vec<Bytes> = Vec::new();
    let mut head: Vec<u8> = Vec::new();
    while head.len() < ARROW_FILE_MAGIC.len()
        && let Some(chunk) = bytes.try_next().await?
    {
        head.extend_from_slice(&chunk);
        start.push(chunk);
    }
    let bytes: ByteStream = stream::iter(start.into_iter().map(Ok)).chain(bytes).boxed();
    if head.starts_with(ARROW_FILE_MAGIC) {
        let file = spool(context, bytes).await?;
        return read(source, "Arrow IPC", move || {
            let reader = FileReader::try_new_buffered(file, None)?;
            Ok((reader.schema(), reader))
        })
        .await;
    }
    let reader = StreamReader::new(bytes.map(|chunk| chunk.map_err(std::io::Error::other)));
    let reader = SyncIoBridge::new(reader);
    read(source, "Arrow IPC", move || {
        let reader = IpcStreamReader::try_new_buffered(reader, None)?;
        Ok((reader.schema(), reader))
    })
    .await
}

/// Writes a source to a file without a name, which vanishes with the last handle to it.
async fn spool(context: &IngestContext, mut bytes: ByteStream) -> Result<File, ServiceError> {
    let directory = context.options.spool.clone();
    let fail = move |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Internal,
        };
        let message = format!(
            "cannot spool the source to {}: {error}",
            directory.display()
        );
        ServiceError::new(
            kind,
            if kind == ErrorKind::Full {
                "disk_full"
            } else {
                "internal"
            },
            message,
        )
    };
    let mut file = tempfile::tempfile_in(&context.options.spool).map_err(&fail)?;
    while let Some(chunk) = bytes.try_next().await? {
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&chunk)?;
            Ok(file)
        });
        file = written
            .await
            .map_err(|error| ServiceError::internal(error.to_string()))?
            .map_err(&fail)?;
    }
    file.rewind().map_err(&fail)?;
    Ok(file)
}

/// Runs a blocking reader in a thread of its own.
async fn read<R>(
    source: &str,
    format: &'static str,
    open: impl FnOnce() -> Result<(SchemaRef, R), ArrowError> + Send + 'static,
) -> Result<(SchemaRef, BatchStream), ServiceError>
where
    R: Iterator<Item = Result<RecordBatch, ArrowError>>,
{
    let source = source.to_owned();
    let garbled = move |error: ArrowError| {
        ServiceError::new(
            ErrorKind::InvalidArgument,
            "corrupt_source",
            format!("{source} is not readable {format}: {error}. Nothing was ingested"),
        )
    };
    let (announce, opened) = oneshot::channel();
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let reader = match open() {
            Ok((schema, reader)) => {
                if announce.send(Ok(schema)).is_err() {
                    return;
                }
                reader
            }
            Err(error) => {
                let _ = announce.send(Err(garbled(error)));
                return;
            }
        };
        for batch in reader {
            // A receiver that is gone wants no more.
            if sender.blocking_send(batch.map_err(&garbled)).is_err() {
                return;
            }
        }
    });
    let schema = opened
        .await
        .map_err(|_| ServiceError::internal("a reader ended without a word"))??;
    Ok((schema, ReceiverStream::new(batches).boxed()))
}
