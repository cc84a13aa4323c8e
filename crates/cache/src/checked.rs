//! Local files that notice when their bytes have changed.
//!
//! ```text
//! payload | XXH3-64 of each block of 64 KiB | trailer
//! ```
//!
//! The payload is written once, from bytes that were checked against the catalog. Whatever is read
//! later is checked block by block, so a disk that forgets a bit, or somebody who writes into the
//! file, costs a look into the bucket and never a wrong answer. The trailer says which extent the
//! payload was made from; it is the last thing written, so a file without one is not whole.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use slipstream_model::Digest;
use twox_hash::XxHash3_64;

/// What is checked together. Reading one byte costs a block: small enough for footers, large
/// enough that the hashes are an eight-thousandth of the payload.
const BLOCK_BYTES: u64 = 64 << 10;
/// The last eight bytes of a whole file. The digit is the version of this format.
const MAGIC: [u8; 8] = *b"SLIPHOT1";
/// Payload length, the extent's length, its SHA-256, hash of all before, magic.
const TRAILER_BYTES: u64 = 8 + 8 + 32 + 8 + 8;

/// The extent that a file was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its length in the bucket.
    pub size_bytes: u64,
    /// What its bytes hash to.
    pub sha256: Digest,
}

/// A file whose payload cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckedFileError {
    /// Its bytes are not those that were written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be read.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl CheckedFileError {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Damaged { path, .. } | Self::Disk { path, .. } => path,
        }
    }
}

/// A file that is open and was whole when it was opened.
#[derive(Debug)]
pub struct CheckedFile {
    file: File,
    path: PathBuf,
    source: Source,
    payload_bytes: u64,
    content: u64,
    hashes: Vec<u64>,
}

/// Writes a file piece by piece.
pub(crate) struct CheckedWriter<W> {
    to: W,
    /// Of the block that is not full yet.
    hash: XxHash3_64,
    payload_bytes: u64,
    /// The hashes of full blocks; later all that stands behind the payload.
    end: Vec<u8>,
}

impl<W: Write> CheckedWriter<W> {
    /// Begins a file in `to`, which has no name yet that anybody looks for.
    pub(crate) fn new(to: W) -> Self {
        Self {
            to,
            hash: XxHash3_64::new(),
            payload_bytes: 0,
            end: Vec::new(),
        }
    }

    /// Adds to the payload.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            let room = BLOCK_BYTES - self.payload_bytes % BLOCK_BYTES;
            let taken = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at(taken);
            self.hash.write(now);
            self.payload_bytes += taken as u64;
            if self.payload_bytes.is_multiple_of(BLOCK_BYTES) {
                self.end_block();
            }
            rest = later;
        }
        self.to.write_all(piece)
    }

    fn end_block(&mut self) {
        let hash = std::mem::take(&mut self.hash);
        self.end.extend_from_slice(&hash.finish().to_le_bytes());
    }

    /// Ends the file, which was made from `source`. Gives it, and how many bytes it has.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn finish(mut self, source: &Source) -> io::Result<(W, u64)> {
        if !self.payload_bytes.is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        let mut end = self.end;
        end.extend_from_slice(&self.payload_bytes.to_le_bytes());
        end.extend_from_slice(&source.size_bytes.to_le_bytes());
        end.extend_from_slice(source.sha256.as_bytes());
        end.extend_from_slice(&XxHash3_64::oneshot(&end).to_le_bytes());
        end.extend_from_slice(&MAGIC);
        // Not synced: what a power cut takes of it is found by the hashes, and is in the bucket.
        self.to.write_all(&end)?;
        self.to.flush()?;
        Ok((self.to, self.payload_bytes + end.len() as u64))
    }
}

/// Bytes that a payload takes on the disk.
pub(crate) fn file_bytes(payload_bytes: u64) -> u64 {
    payload_bytes + payload_bytes.div_ceil(BLOCK_BYTES) * 8 + TRAILER_BYTES
}

impl CheckedFile {
    /// Opens a file and checks its trailer and hashes, not its payload.
    ///
    /// # Errors
    /// When it is not whole, or cannot be read.
    pub fn open(path: PathBuf) -> Result<Self, CheckedFileError> {
        let disk = |source| CheckedFileError::Disk {
            path: path.clone(),
            source,
        };
        let damaged = |reason: &str| CheckedFileError::Damaged {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let file = File::open(&path).map_err(disk)?;
        let length = file.metadata().map_err(disk)?.len();
        let Some(trailer_at) = length.checked_sub(TRAILER_BYTES) else {
            return Err(damaged("it is too short to be whole"));
        };
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.read_exact_at(&mut trailer, trailer_at).map_err(disk)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&trailer[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let payload_bytes = number(0);
        // Compared before anything is allocated: a damaged length must not ask for memory.
        if trailer[56..] != MAGIC || payload_bytes > length || file_bytes(payload_bytes) != length {
            return Err(damaged("it was cut off, or is of another format"));
        }
        let hash_bytes = usize::try_from(trailer_at - payload_bytes).unwrap_or(usize::MAX);
        let mut end = vec![0; hash_bytes];
        file.read_exact_at(&mut end, payload_bytes).map_err(disk)?;
        let hashes = end
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        end.extend_from_slice(&trailer[..48]);
        if XxHash3_64::oneshot(&end) != number(48) {
            return Err(damaged("its hashes were changed"));
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&trailer[16..48]);
        let source = Source {
            size_bytes: number(8),
            sha256: Digest::new(sha256),
        };
        Ok(Self {
            file,
            path,
            source,
            payload_bytes,
            content: number(48),
            hashes,
        })
    }

    /// The extent that the payload was made from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// A number that two files share only when their payloads are the same.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Length of the payload.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Where the file is, or was: it stays open when it is evicted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills a buffer with the payload from `offset` on, and checks every block that it touches.
    /// Waits for the disk.
    ///
    /// # Errors
    /// When the payload ends before, or its bytes are not those that were written.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), CheckedFileError> {
        let end = offset.saturating_add(into.len() as u64);
        if end > self.payload_bytes {
            let length = self.payload_bytes;
            return Err(self.damaged(format!("bytes {offset}..{end} of {length} were asked for")));
        }
        if into.is_empty() {
            return Ok(());
        }
        let (first, last) = (offset / BLOCK_BYTES, (end - 1) / BLOCK_BYTES);
        // Blocks that are wanted whole go where they are wanted, in one read; of those at the
        // edges, all is read and a part is kept.
        let whole_from = if offset == self.block(first).start {
            first
        } else {
            first + 1
        };
        let whole_to = if end == self.block(last).end {
            last + 1
        } else {
            last
        };
        if whole_from < whole_to {
            let inner = self.block(whole_from).start..self.block(whole_to - 1).end;
            let target = &mut into[(inner.start - offset) as usize..(inner.end - offset) as usize];
            self.read_exact(inner.start, target)?;
            for (block, bytes) in (whole_from..).zip(target.chunks(BLOCK_BYTES as usize)) {
                self.check(block, bytes)?;
            }
        }
        let mut edges = vec![first, last];
        edges.dedup();
        edges.retain(|block| !(whole_from..whole_to).contains(block));
        for block in edges {
            let range = self.block(block);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.read_exact(range.start, &mut bytes)?;
            self.check(block, &bytes)?;
            let (from, to) = (range.start.max(offset), range.end.min(end));
            into[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                &bytes[(from - range.start) as usize..(to - range.start) as usize],
            );
        }
        Ok(())
    }

    fn block(&self, number: u64) -> Range<u64> {
        let start = number * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(self.payload_bytes)
    }

    fn read_exact(&self, offset: u64, into: &mut [u8]) -> Result<(), CheckedFileError> {
        let read = self.file.read_exact_at(into, offset);
        read.map_err(|source| CheckedFileError::Disk {
            path: self.path.clone(),
            source,
        })
    }

    fn check(&self, block: u64, bytes: &[u8]) -> Result<(), CheckedFileError> {
        let expected = self
            .hashes
            .get(usize::try_from(block).unwrap_or(usize::MAX));
        if expected == Some(&XxHash3_64::oneshot(bytes)) {
            return Ok(());
        }
        let range = self.block(block);
        let (start, end) = (range.start, range.end);
        Err(self.damaged(format!(
            "bytes {start}..{end} are not those that were written"
        )))
    }

    fn damaged(&self, reason: String) -> CheckedFileError {
        CheckedFileError::Damaged {
            path: self.path.clone(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
