//! Text as blocks of whole records, so that blocks can be decoded in parallel.

use std::io::{BufReader, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use memchr::memchr_iter;
use slipstream_frontend::{ErrorKind, ServiceError};
use tokio::sync::Semaphore;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::BatchStream;
use super::blocking::{Sender, Stop, compute, cores, died, give, produce};
use super::records::{Records, Scanner};
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

/// Cuts bytes, gzipped or not, into blocks. Runs in a thread of its own.
pub(crate) fn blocks(bytes: ByteStream, records: Records, source: &str) -> BlockStream {
    let reader = StreamReader::new(bytes.map(|chunk| chunk.map_err(std::io::Error::other)));
    let reader = SyncIoBridge::new(reader);
    let source = source.to_owned();
    let blocks = produce(BLOCKS_AHEAD, died, move |sender| {
        let mut cutter = Cutter {
            source,
            scanner: Scanner::new(records),
            carry: Vec::new(),
            line: 1,
            sender,
        };
        cutter.run(reader)
    });
    blocks.boxed()
}

/// Cuts blocks of JSON lines into those of so many lines, and some more where an object goes over several.
pub(crate) fn of_lines(blocks: BlockStream, lines: usize) -> BlockStream {
    blocks
        .map_ok(move |block| stream::iter(block.pieces(lines).map(Ok)))
        .try_flatten()
        .boxed()
}

impl Block {
    fn pieces(self, lines: usize) -> impl Iterator<Item = Self> + Send {
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.bytes.is_empty() {
                return None;
            }
            let bytes = rest.bytes.clone();
            let mut newlines = (1..).zip(memchr_iter(b'\n', &bytes)).skip(lines - 1);
            let cut =
                newlines.find(|(_, newline)| is_between(&bytes[..*newline], &bytes[*newline..]));
            let (passed, end) = cut.map_or((0, bytes.len()), |(line, at)| (line, at + 1));
            let piece = Self {
                bytes: rest.bytes.split_to(end),
                first_line: rest.first_line,
            };
            rest.first_line += passed;
            Some(piece)
        })
    }
}

/// Whether an object ends before the end of a line, and another begins behind it.
fn is_between(before: &[u8], behind: &[u8]) -> bool {
    let mut backwards = before.iter().rev();
    let last = backwards.find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    last == Some(&b'}') && matches!(behind.trim_ascii_start().first(), Some(b'{') | None)
}

/// Decodes blocks in parallel; batches come out in order.
pub(crate) fn decode_all(
    slots: &Arc<Semaphore>,
    blocks: BlockStream,
    decode: impl Fn(&Block) -> Result<Vec<RecordBatch>, ServiceError> + Send + Sync + 'static,
) -> BatchStream {
    let (slots, decode) = (Arc::clone(slots), Arc::new(decode));
    blocks
        .map(move |block| {
            let (slots, decode) = (Arc::clone(&slots), Arc::clone(&decode));
            async move {
                let block = block?;
                compute(&slots, move || decode(&block)).await?
            }
        })
        // One that is decoded waits for those before it, and leaves its core to the next.
        .buffered(cores() * 2)
        .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

struct Cutter<'a> {
    source: String,
    scanner: Scanner,
    /// Bytes read that do not make whole records yet.
    carry: Vec<u8>,
    line: u64,
    sender: &'a Sender<Block>,
}

impl Cutter<'_> {
    fn run(&mut self, reader: impl Read) -> Result<(), Stop> {
        let mut reader = BufReader::with_capacity(BLOCK_BYTES, reader);
        // A network may well bring the first byte alone.
        let mut magic = [0; GZIP_MAGIC.len()];
        let read = fill(&mut reader, &mut magic).map_err(|error| self.broken(error))?;
        let reader = magic[..read].chain(reader);
        if magic == GZIP_MAGIC {
            self.cut(MultiGzDecoder::new(reader))
        } else {
            self.cut(reader)
        }
    }

    fn cut(&mut self, mut reader: impl Read) -> Result<(), Stop> {
        let mut is_first = true;
        loop {
            let mut before = self.carry.len();
            self.carry.resize(before + BLOCK_BYTES, 0);
            let read = fill(&mut reader, &mut self.carry[before..]);
            let read = read.map_err(|error| self.broken(error))?;
            self.carry.truncate(before + read);
            if read == 0 {
                return self.end();
            }
            if std::mem::take(&mut is_first) && self.carry.starts_with(BYTE_ORDER_MARK) {
                self.carry.drain(..BYTE_ORDER_MARK.len());
                before = 0;
            }
            match self.scanner.read(&self.carry[before..]) {
                Some(end) => {
                    let rest = self.carry.split_off(before + end);
                    let block = std::mem::replace(&mut self.carry, rest);
                    self.send(block)?;
                }
                None if self.carry.len() > RECORD_BYTES_MAX => {
                    let hint = if self.scanner.is_quoted() {
                        ": is a quote not closed?"
                    } else {
                        ""
                    };
                    return Err(Stop::Failed(ServiceError::invalid(format!(
                        "{}, line {}: the record that begins here is longer than {} MiB{hint}",
                        self.source,
                        self.line,
                        RECORD_BYTES_MAX >> 20
                    ))));
                }
                None => {}
            }
        }
    }

    /// What is left may lack the end of its line, but not that of a quote: the value would be
    /// the whole rest of the file.
    fn end(&mut self) -> Result<(), Stop> {
        let rest = std::mem::take(&mut self.carry);
        if self.scanner.is_quoted() {
            return Err(Stop::Failed(ServiceError::new(
                ErrorKind::InvalidArgument,
                "bad_row",
                format!(
                    "{}, line {}: a quote in the record that begins here is never closed. Nothing \
                     was ingested",
                    self.source, self.line
                ),
            )));
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.send(rest)
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        let first_line = self.line;
        self.line += memchr_iter(b'\n', &bytes).count() as u64;
        let block = Block {
            bytes: bytes.into(),
            first_line,
        };
        give(self.sender, block)
    }

    /// An error of the stream comes back as it was; others are of the gzip decoder.
    fn broken(&self, error: std::io::Error) -> Stop {
        let text = error.to_string();
        let inner = error
            .into_inner()
            .and_then(|inner| inner.downcast::<ServiceError>().ok());
        Stop::Failed(match inner {
            Some(inner) => *inner,
            None => ServiceError::new(
                ErrorKind::InvalidArgument,
                "corrupt_source",
                format!(
                    "{} cannot be unpacked: {text}. Nothing was ingested",
                    self.source
                ),
            ),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_where_objects_end() {
        let cut = |text: &'static str, lines| -> Vec<(u64, Bytes)> {
            let block = Block {
                bytes: Bytes::from(text),
                first_line: 5,
            };
            let pieces = block.pieces(lines);
            pieces
                .map(|piece| (piece.first_line, piece.bytes))
                .collect()
        };
        assert_eq!(cut("{}\n{}\n\n1", 9), [(5, "{}\n{}\n\n1".into())]);
        assert_eq!(
            cut("{}\n{} \r\n\n{}", 2),
            [(5, "{}\n{} \r\n".into()), (7, "\n{}".into())]
        );
        assert_eq!(
            cut("{\n\"a\":\n1}\n{}\n{}", 2),
            [(5, "{\n\"a\":\n1}\n".into()), (8, "{}\n{}".into())]
        );
        let pretty = "{\n\"a\": {\n}\n}\n";
        assert_eq!(cut("{\n\"a\": {\n}\n}\n", 1), [(5, pretty.into())]);
        assert_eq!(cut("{}\n{}\n", 1), [(5, "{}\n".into()), (6, "{}\n".into())]);
        assert!(cut("", 1).is_empty());
    }
}
