//! Parquet and Arrow IPC.
//!
//! Parquet and Arrow files are read from the end, so they are spooled to a file first; an Arrow
//! stream is read as it comes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use slipstream_frontend::arrow_ipc::StreamBatches;
use slipstream_frontend::{ErrorKind, ServiceError};
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::blocking::{Stop, died, give, produce};
use super::source::ByteStream;
use super::{BATCH_ROWS, BatchStream, IngestContext, footer, ipc, pages};

/// Batches that wait to be encoded.
const BATCHES_AHEAD: usize = 8;
/// Bytes of one batch, about: the batches that wait then stay within 64 MiB.
pub(super) const BATCH_BYTES: usize = 8 << 20;
const ARROW_FILE_MAGIC: &[u8] = b"ARROW1";

/// Reads a Parquet file.
pub(super) async fn parquet(
    context: &IngestContext,
    bytes: ByteStream,
    source: &str,
) -> Result<(SchemaRef, BatchStream), ServiceError> {
    let expansion = Arc::<OnceLock<i64>>::default();
    let file = Spooled {
        file: spool(context, bytes).await?,
        expansion: Arc::clone(&expansion),
    };
    read(source, "Parquet", move || {
        footer::check(&file.file)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        expansion.get_or_init(|| pages::expansion(builder.metadata()));
        let schema = Arc::clone(builder.schema());
        let rows = batch_rows(builder.metadata());
        Ok((schema, builder.with_batch_size(rows).build()?))
    })
    .await
}

/// A Parquet file. What is read of it byte by byte are headers of pages, and they are looked at before.
struct Spooled {
    file: File,
    /// See [`pages::expansion`]; known once the footer is.
    expansion: Arc<OnceLock<i64>>,
}

impl Length for Spooled {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Spooled {
    type T = CheckedHeader;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(CheckedHeader {
            file: self.file.try_clone()?,
            expansion: self.expansion.get().copied().unwrap_or(1),
            start,
            is_footer: self.len().checked_sub(start) == Some(FOOTER_SIZE as u64),
            reader: None,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.file.get_bytes(start, length)
    }
}

/// The header of a page.
struct CheckedHeader {
    file: File,
    expansion: i64,
    start: u64,
    /// The length of the footer stands there.
    is_footer: bool,
    /// Made when something is read: this may be asked for and not be used, where no header stands.
    reader: Option<BufReader<File>>,
}

impl CheckedHeader {
    /// What reads from the start. All of them share a place in the file: one after the other.
    fn at_start(&self) -> io::Result<BufReader<File>> {
        self.file.get_read(self.start).map_err(io::Error::other)
    }
}

impl Read for CheckedHeader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                if !self.is_footer {
                    pages::check_header(self.at_start()?, self.expansion)?;
                }
                let reader = self.at_start()?;
                self.reader.insert(reader)
            }
        };
        reader.read(buffer)
    }
}

/// Rows of one batch: fewer where rows are so wide that the usual number would be too much to
/// hold. Of a text that a dictionary holds once, every row has a copy; writers that say how much
/// that makes are asked.
pub(crate) fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let row_bytes = metadata.row_groups().iter().map(|group| {
        let columns = group.columns().iter().map(|column| {
            let decoded = column.unencoded_byte_array_data_bytes().unwrap_or(0);
            decoded.max(column.uncompressed_size())
        });
        let bytes = columns.fold(0, i64::saturating_add);
        let bytes = usize::try_from(bytes).unwrap_or(0);
        bytes / usize::try_from(group.num_rows()).unwrap_or(1).max(1)
    });
    let widest = row_bytes.max().unwrap_or(0).max(1);
    (BATCH_BYTES / widest).clamp(1, BATCH_ROWS)
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
            ipc::check_file(&file)?;
            let reader = FileReader::try_new_buffered(file, None)?;
            Ok((reader.schema(), ipc::in_pieces(reader)))
        })
        .await;
    }
    let reader = StreamReader::new(bytes.map(|chunk| chunk.map_err(io::Error::other)));
    let reader = SyncIoBridge::new(reader);
    read(source, "Arrow IPC", move || {
        let reader = StreamBatches::open(reader)?;
        Ok((reader.schema(), ipc::in_pieces(reader)))
    })
    .await
}

/// Writes a source to a file without a name, which vanishes with the last handle to it.
async fn spool(context: &IngestContext, mut bytes: ByteStream) -> Result<File, ServiceError> {
    let directory = context.options.spool.clone();
    let fail = move |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
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
            .map_err(|error| died(&error))?
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
    let name = source.to_owned();
    let garbled = move |what: &dyn Display| {
        ServiceError::new(
            ErrorKind::InvalidArgument,
            "corrupt_source",
            format!("{name} is not readable {format}: {what}. Nothing was ingested"),
        )
    };
    let damaged = garbled.clone();
    // The decoders do not expect every kind of damage.
    let on_panic = move |_: &JoinError| damaged(&"it is damaged");
    let broken = move |error: ArrowError| stream_error(&error).unwrap_or_else(|| garbled(&error));
    let (announce, opened) = oneshot::channel();
    let mut batches = produce(BATCHES_AHEAD, on_panic, move |sender| {
        let (schema, reader) = open().map_err(&broken)?;
        announce.send(schema).map_err(|_| Stop::Unwanted)?;
        for batch in reader {
            give(sender, batch.map_err(&broken)?)?;
        }
        Ok(())
    })
    .boxed();
    match opened.await {
        // Whatever number of rows it says, each would be nothing but nulls.
        Ok(schema) if schema.fields().is_empty() => {
            Err(ServiceError::invalid(format!("{source} has no columns")))
        }
        Ok(schema) => Ok((schema, batches)),
        // Without a schema there are no batches either: only the reason.
        Err(_) => match batches.try_next().await {
            Err(error) => Err(error),
            Ok(_) => Err(ServiceError::internal("a reader ended without a word")),
        },
    }
}

/// What the source's stream itself said: that the client went away, for example.
fn stream_error(error: &ArrowError) -> Option<ServiceError> {
    match error {
        ArrowError::IoError(_, error) => error.get_ref()?.downcast_ref().cloned(),
        _ => None,
    }
}
