//! Text as blocks of whole records, so that blocks can be decoded in parallel.

use std::io::{BufReader, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use slipstream_frontend::ServiceError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::source::ByteStream;

/// A block: large enough that a thread is worth waking, small enough that several fit anywhere.
const BLOCK_BYTES: usize = 1 << 20;
/// One record is at most this long. A quote that is never closed would otherwise take the rest
/// of the file into memory.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Blocks that wait for a decoder.
const BLOCKS_AHEAD: usize = 4;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whole records.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) bytes: Bytes,
    /// The line on which it begins, from 1.
    pub(crate) first_line: u64,
}

pub(crate) type BlockStream = BoxStream<'static, Result<Block, ServiceError>>;

/// Where a record may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// At every end of line.
    Lines,
    /// At every end of line that is not within quotes.
    Quoted,
}

/// Cuts bytes, gzipped or not, into blocks. Runs in a thread of its own.
pub(crate) fn blocks(bytes: ByteStream, records: Records) -> BlockStream {
    let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
    let reader = StreamReader::new(bytes.map(|chunk| chunk.map_err(std::io::Error::other)));
    let reader = SyncIoBridge::new(reader);
    tokio::task::spawn_blocking(move || {
        let mut cutter = Cutter {
            records,
            carry: Vec::new(),
            line: 1,
            sender,
        };
        // A receiver that is gone wants no more; there is nobody to tell.
        if let Err(Some(error)) = cutter.run(reader) {
            let _ = cutter.sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(blocks).boxed()
}

struct Cutter {
    records: Records,
    /// Bytes read that do not make whole records yet.
    carry: Vec<u8>,
    line: u64,
    sender: mpsc::Sender<Result<Block, ServiceError>>,
}

impl Cutter {
    /// `Err(None)` when nobody listens any more.
    fn run(&mut self, reader: impl Read) -> Result<(), Option<ServiceError>> {
        let mut reader = BufReader::with_capacity(BLOCK_BYTES, reader);
        let start = std::io::BufRead::fill_buf(&mut reader).map_err(broken)?;
        if start.starts_with(&GZIP_MAGIC) {
            self.cut(MultiGzDecoder::new(reader))
        } else {
            self.cut(reader)
        }
    }

    fn cut(&mut self, mut reader: impl Read) -> Result<(), Option<ServiceError>> {
        let mut is_first = true;
        loop {
            let before = self.carry.len();
            self.carry.resize(before + BLOCK_BYTES, 0);
            let read = fill(&mut reader, &mut self.carry[before..]).map_err(broken)?;
            self.carry.truncate(before + read);
            if std::mem::take(&mut is_first) && self.carry.starts_with(BYTE_ORDER_MARK) {
                self.carry.drain(..BYTE_ORDER_MARK.len());
            }
            if read == 0 {
                let rest = std::mem::take(&mut self.carry);
                return if rest.is_empty() {
                    Ok(())
                } else {
                    self.send(rest)
                };
            }
            match self.end_of_records() {
                Some(end) => {
                    let rest = self.carry.split_off(end);
                    let block = std::mem::replace(&mut self.carry, rest);
                    self.send(block)?;
                }
                None if self.carry.len() > RECORD_BYTES_MAX => {
                    return Err(Some(ServiceError::invalid(format!(
                        "the record that begins on line {} is longer than {} MiB: is a quote not \
                         closed?",
                        self.line,
                        RECORD_BYTES_MAX >> 20
                    ))));
                }
                None => {}
            }
        }
    }

    /// Just behind the last record that is whole.
    fn end_of_records(&self) -> Option<usize> {
        let last_line_end = || self.carry.iter().rposition(|byte| *byte == b'\n');
        if self.records == Records::Lines || !self.carry.contains(&b'"') {
            return last_line_end().map(|position| position + 1);
        }
        // A doubled quote inside quotes closes and opens again, so counting is enough.
        let mut is_quoted = false;
        let mut end = None;
        for (position, byte) in self.carry.iter().enumerate() {
            match byte {
                b'"' => is_quoted = !is_quoted,
                b'\n' if !is_quoted => end = Some(position + 1),
                _ => {}
            }
        }
        end
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), Option<ServiceError>> {
        let first_line = self.line;
        self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let block = Block {
            bytes: bytes.into(),
            first_line,
        };
        self.sender.blocking_send(Ok(block)).map_err(|_| None)
    }
}

fn fill(reader: &mut impl Read, mut buffer: &mut [u8]) -> std::io::Result<usize> {
    let wanted = buffer.len();
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - buffer.len())
}

/// An error of the stream comes back as it was; others are of the gzip decoder.
fn broken(error: std::io::Error) -> Option<ServiceError> {
    let text = error.to_string();
    let inner = error
        .into_inner()
        .and_then(|inner| inner.downcast::<ServiceError>().ok());
    Some(match inner {
        Some(inner) => *inner,
        None => ServiceError::invalid(format!("the source cannot be unpacked: {text}")),
    })
}
