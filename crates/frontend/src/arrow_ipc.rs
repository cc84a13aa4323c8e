//! Arrow IPC from strangers.
//!
//! Arrow's readers make room for as many bytes as a message says it has, or as a compressed buffer says it
//! will have, and some bytes can say a petabyte, which ends the process. So a message is decoded once all
//! its bytes have come, and what its buffers say is looked at before.

use std::io::{self, Read};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::root_as_message;
use arrow_flight::FlightData;
use arrow_flight::error::FlightError;

/// What stands before the length of a message.
pub const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes that are decoded at one time.
const CHUNK_BYTES: usize = 64 << 10;
/// What the buffers of one message may take together once they are not compressed any more. A batch of a
/// million rows of a hundred columns takes less.
const DECOMPRESSED_BYTES_MAX: u64 = 1 << 30;
/// In front of a compressed buffer: how long it is without compression, or -1 when it is not compressed.
const LENGTH_BYTES: usize = 8;

/// The batches of a stream.
#[derive(Debug)]
pub struct StreamBatches<R> {
    reader: Checked<R>,
    decoder: StreamDecoder,
    chunk: Buffer,
    schema: SchemaRef,
    /// The first batch, when it came with the schema.
    first: Option<RecordBatch>,
    has_ended: bool,
}

impl<R: Read> StreamBatches<R> {
    /// Reads as far as the schema.
    ///
    /// # Errors
    /// When it is none, or ends before.
    pub fn open(reader: R) -> Result<Self, ArrowError> {
        let mut reader = Checked::new(reader);
        let mut decoder = StreamDecoder::new();
        loop {
            let mut chunk = next_chunk(&mut reader)?;
            if chunk.is_empty() {
                decoder.finish()?;
                let message = "it ends before its schema".to_owned();
                return Err(ArrowError::IpcError(message));
            }
            let first = decoder.decode(&mut chunk)?;
            if let Some(schema) = decoder.schema() {
                return Ok(Self {
                    reader,
                    decoder,
                    chunk,
                    schema,
                    first,
                    has_ended: false,
                });
            }
        }
    }

    /// Their schema.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if self.chunk.is_empty() {
                self.chunk = next_chunk(&mut self.reader)?;
                if self.chunk.is_empty() {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
            if let Some(batch) = self.decoder.decode(&mut self.chunk)? {
                return Ok(Some(batch));
            }
        }
    }
}

impl<R: Read> Iterator for StreamBatches<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = self.read().transpose();
        self.has_ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// What comes next; empty at the end.
fn next_chunk(reader: &mut impl Read) -> Result<Buffer, ArrowError> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    reader.take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Buffer::from_vec(bytes))
}

/// The bytes of a stream, message by message, each once all of it is there and was checked.
#[derive(Debug)]
struct Checked<R> {
    reader: R,
    message: Vec<u8>,
    given: usize,
    has_ended: bool,
}

impl<R: Read> Checked<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            message: Vec::new(),
            given: 0,
            has_ended: false,
        }
    }

    /// Reads so many bytes more of the message, if they are there.
    fn more(&mut self, count: u64) -> io::Result<bool> {
        let found = self
            .reader
            .by_ref()
            .take(count)
            .read_to_end(&mut self.message)?;
        Ok(found as u64 == count)
    }

    /// Reads the next message. What is cut off, or is none, is where it ends: whoever decodes it says so.
    fn next_message(&mut self) -> io::Result<()> {
        self.message.clear();
        self.given = 0;
        self.has_ended = true;
        if !self.more(4)? || (self.message == CONTINUATION && !self.more(4)?) {
            return Ok(());
        }
        let start = self.message.len();
        let length = self.message.last_chunk().copied().unwrap_or_default();
        let length = u32::from_le_bytes(length);
        if length == 0 || !self.more(length.into())? {
            return Ok(());
        }
        let Ok(message) = root_as_message(&self.message[start..]) else {
            return Ok(());
        };
        let Ok(body_length) = u64::try_from(message.bodyLength()) else {
            return Err(io::Error::other("a message is shorter than nothing"));
        };
        let body = self.message.len();
        if !self.more(body_length)? {
            return Ok(());
        }
        let (head, body) = self.message.split_at(body);
        check_message(&head[start..], |at, found| copy_from(body, at, found))
            .map_err(io::Error::other)?;
        self.has_ended = false;
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.message.len() && !self.has_ended {
            self.next_message()?;
        }
        let left = &self.message[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

/// Checks a message of Flight before it is decoded.
///
/// # Errors
/// When its buffers say that they are larger than any may be.
pub(crate) fn check_flight_data(data: FlightData) -> Result<FlightData, FlightError> {
    check_message(&data.data_header, |at, found| {
        copy_from(&data.data_body, at, found)
    })?;
    Ok(data)
}

fn copy_from(body: &[u8], at: u64, found: &mut [u8]) -> Option<()> {
    let at = usize::try_from(at).ok()?;
    let bytes = body.get(at..at.checked_add(found.len())?)?;
    found.copy_from_slice(bytes);
    Some(())
}

/// Compares what the compressed buffers of a message say with what they may take. `read` gives bytes of
/// its body; a buffer that is not there is nothing to check.
///
/// # Errors
/// When they say more.
pub fn check_message(
    message: &[u8],
    read: impl Fn(u64, &mut [u8]) -> Option<()>,
) -> Result<(), ArrowError> {
    let Ok(message) = root_as_message(message) else {
        // Whoever decodes it says what is wrong with it.
        return Ok(());
    };
    let dictionary = message.header_as_dictionary_batch();
    let batch = dictionary.and_then(|dictionary| dictionary.data());
    let Some(batch) = batch.or_else(|| message.header_as_record_batch()) else {
        return Ok(());
    };
    if batch.compression().is_none() {
        return Ok(());
    }
    let mut sum = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let mut said = [0; LENGTH_BYTES];
        let is_there = buffer.length() >= said.len() as i64;
        let Some(()) = u64::try_from(buffer.offset())
            .ok()
            .filter(|_| is_there)
            .and_then(|at| read(at, &mut said))
        else {
            continue;
        };
        let said = i64::from_le_bytes(said);
        sum = match (said, u64::try_from(said)) {
            (-1, _) => sum,
            (_, Ok(said)) => sum.saturating_add(said),
            (_, Err(_)) => return Err(garbled("a buffer is shorter than nothing")),
        };
        if sum > DECOMPRESSED_BYTES_MAX {
            return Err(garbled(
                "a batch takes more than 1 GiB without its compression: send smaller ones",
            ));
        }
    }
    Ok(())
}

fn garbled(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

#[cfg(test)]
mod tests;
