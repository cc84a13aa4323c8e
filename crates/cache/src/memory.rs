//! What of the hot tier is kept in memory: the encoded pieces that queries read, as they were
//! read and checked.
//!
//! A piece here saves the copy out of the system's page cache, the check and, when the page cache
//! has given it up, the disk. Decoding stays: it costs less than moving decoded rows would.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foyer::{Cache, CacheBuilder, Event, EventListener, EvictionConfig, S3FifoConfig};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use slipstream_model::{ExtentId, MovingMean};
use tokio::time::Instant;
use vortex::array::buffer::BufferHandle;
use vortex::buffer::{Alignment, ByteBuffer, ByteBufferMut};
use vortex::error::{VortexError, VortexResult};
use vortex::io::VortexReadAt;

use crate::HotTier;
use crate::checked::CheckedFile;

/// Pieces of one file that may be read at one time: as many as a disk's queue takes gladly.
const READS: usize = 32;
/// Locks of the memory's index. More than a machine has cores, so that scans seldom meet.
const SHARDS: usize = 64;
/// What a piece costs beside its bytes: key, entry, index.
const ENTRY_BYTES: usize = 176;
/// A read that is shorter tells how long the disk takes to find something, not what it carries.
const RATE_BYTES_MIN: usize = 64 << 10;

/// A piece: of which extent and content, from where on, how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PieceKey {
    extent: ExtentId,
    content: u64,
    offset: u64,
    length: u64,
}

/// Pieces of hot extents, the most useful within a number of bytes.
#[derive(Clone)]
pub struct HotMemory {
    pieces: Cache<PieceKey, ByteBuffer>,
    held: Arc<HeldBytes>,
    /// Bytes a second that reads of the disk bring.
    disk_rate: Arc<MovingMean>,
}

/// Bytes of each extent's pieces.
#[derive(Debug, Default)]
struct HeldBytes(Mutex<HashMap<ExtentId, u64>>);

impl HeldBytes {
    fn add(&self, extent: ExtentId, bytes: u64) {
        *self.0.lock().entry(extent).or_default() += bytes;
    }

    fn remove(&self, extent: ExtentId, bytes: u64) {
        let mut held = self.0.lock();
        if let Some(left) = held.get_mut(&extent) {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                held.remove(&extent);
            }
        }
    }

    fn of(&self, extent: ExtentId) -> u64 {
        self.0.lock().get(&extent).copied().unwrap_or(0)
    }
}

impl EventListener for HeldBytes {
    type Key = PieceKey;
    type Value = ByteBuffer;

    fn on_leave(&self, _: Event, key: &PieceKey, piece: &ByteBuffer) {
        self.remove(key.extent, piece.len() as u64);
    }
}

impl fmt::Debug for HotMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotMemory")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl HotMemory {
    /// Memory for at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        // S3-FIFO: what is read once passes through, what is read again stays.
        let eviction = EvictionConfig::S3Fifo(S3FifoConfig::default());
        let held = Arc::<HeldBytes>::default();
        let listener =
            Arc::clone(&held) as Arc<dyn EventListener<Key = PieceKey, Value = ByteBuffer>>;
        let pieces = CacheBuilder::new(bytes_max)
            .with_shards(SHARDS)
            .with_eviction_config(eviction)
            .with_weighter(|_: &PieceKey, piece: &ByteBuffer| piece.len() + ENTRY_BYTES)
            .with_event_listener(listener)
            .build();
        Self {
            pieces,
            held,
            disk_rate: Arc::default(),
        }
    }

    /// Bytes that are held now.
    pub fn bytes(&self) -> u64 {
        self.pieces.usage() as u64
    }

    /// Bytes that are held now of an extent.
    pub fn bytes_of(&self, extent: ExtentId) -> u64 {
        self.held.of(extent)
    }

    /// Bytes a second that a read of the disk brought lately; `None` before the first that says so.
    pub fn disk_bytes_per_second(&self) -> Option<u64> {
        self.disk_rate.get()
    }

    /// Keeps a piece that the disk took so long to give.
    fn keep(&self, key: PieceKey, piece: ByteBuffer, took: Duration) {
        if piece.len() >= RATE_BYTES_MIN {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            let bytes = piece.len() as u64;
            self.disk_rate
                .note(bytes.saturating_mul(1_000_000) / micros);
        }
        // Before it is inserted: it may have to leave at once.
        self.held.add(key.extent, piece.len() as u64);
        self.pieces.insert(key, piece);
    }
}

/// Reads one extent that is kept as Vortex.
#[derive(Debug)]
pub struct HotReader {
    extent: ExtentId,
    file: Arc<CheckedFile>,
    tier: Arc<HotTier>,
    memory: HotMemory,
}

impl HotReader {
    /// A reader for an open extent.
    pub fn new(
        extent: ExtentId,
        file: Arc<CheckedFile>,
        tier: Arc<HotTier>,
        memory: HotMemory,
    ) -> Self {
        Self {
            extent,
            file,
            tier,
            memory,
        }
    }

    /// Reads a piece from the disk, where a thread may wait for it, and says how long that took.
    async fn from_disk(
        extent: ExtentId,
        file: Arc<CheckedFile>,
        tier: Arc<HotTier>,
        offset: u64,
        length: usize,
        alignment: Alignment,
    ) -> VortexResult<(ByteBuffer, Duration)> {
        let read = move || {
            let mut piece = ByteBufferMut::zeroed_aligned(length, alignment);
            let began = Instant::now();
            match file.read_at(offset, piece.as_mut_slice()) {
                Ok(()) => Ok((piece.freeze(), began.elapsed())),
                Err(error) => {
                    tier.found_broken(extent, &error);
                    Err(VortexError::from(std::io::Error::other(error)))
                }
            }
        };
        let joined = tokio::task::spawn_blocking(read).await;
        joined.map_err(|error| VortexError::from(std::io::Error::other(error)))?
    }
}

impl VortexReadAt for HotReader {
    fn concurrency(&self) -> usize {
        READS
    }

    fn size(&self) -> BoxFuture<'static, VortexResult<u64>> {
        let bytes = self.file.payload_bytes();
        async move { Ok(bytes) }.boxed()
    }

    fn read_at(
        &self,
        offset: u64,
        length: usize,
        alignment: Alignment,
    ) -> BoxFuture<'static, VortexResult<BufferHandle>> {
        let key = PieceKey {
            extent: self.extent,
            content: self.file.content(),
            offset,
            length: length as u64,
        };
        if let Some(found) = self.memory.pieces.get(&key)
            && found.value().is_aligned(alignment)
        {
            let piece = found.value().clone().aligned(alignment);
            return async move { Ok(BufferHandle::new_host(piece)) }.boxed();
        }
        let memory = self.memory.clone();
        let read = Self::from_disk(
            self.extent,
            Arc::clone(&self.file),
            Arc::clone(&self.tier),
            offset,
            length,
            alignment,
        );
        async move {
            let (piece, took) = read.await?;
            memory.keep(key, piece.clone(), took);
            Ok(BufferHandle::new_host(piece))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use slipstream_model::{DatabaseId, Digest, Timestamp};

    use super::*;
    use crate::{Form, HotExtent};

    #[tokio::test]
    async fn a_piece_is_read_from_the_disk_once_and_checked_then() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tier = HotTier::open(directory.path().to_owned(), "test").expect("usable");
        let tier = Arc::new(tier);
        let payload = Bytes::from_static(b"0123456789");
        let wanted = HotExtent {
            database: DatabaseId::default(),
            extent: ExtentId::default(),
            size_bytes: 10,
            sha256: Digest::of(&payload),
            max_created_on: Timestamp::default(),
        };
        tier.insert(&wanted, Form::Vortex, &payload).expect("kept");
        let memory = HotMemory::new(1 << 20);
        let reader = || {
            let open = tier.open_extent(wanted.extent)?;
            let tier = Arc::clone(&tier);
            Some(HotReader::new(
                wanted.extent,
                open.file,
                tier,
                memory.clone(),
            ))
        };
        let first = reader().expect("here");
        let alignment = Alignment::new(8);
        let read = |reader: &HotReader, offset, length| reader.read_at(offset, length, alignment);
        let piece = read(&first, 2, 3).await.expect("readable");
        assert_eq!(piece.as_host().as_slice(), b"234");
        assert!(memory.bytes() >= 3);
        assert_eq!(memory.bytes_of(wanted.extent), 3);
        assert_eq!(memory.disk_bytes_per_second(), None, "it was too short");

        // The same piece needs no disk any more; another one does, and finds it changed.
        let path = directory.path().join(format!("{}.vortex", wanted.extent));
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let second = reader().expect("the payload is not looked at");
        let piece = read(&second, 2, 3).await.expect("from memory");
        assert_eq!(piece.as_host().as_slice(), b"234");
        let damaged = read(&second, 5, 3).await.expect_err("changed");
        assert!(
            damaged.to_string().contains("not those that were written"),
            "{damaged}"
        );
        assert!(reader().is_none(), "and it is forgotten");
    }

    #[test]
    fn what_is_held_of_an_extent_is_known_also_when_pieces_leave() {
        let memory = HotMemory::new(SHARDS * (RATE_BYTES_MIN + ENTRY_BYTES));
        let extents: Vec<ExtentId> = (1..=3)
            .filter_map(|n| ExtentId::from_slice(&[n; 16]))
            .collect();
        assert_eq!(extents.len(), 3);
        for round in 0..200 {
            for extent in &extents {
                let key = PieceKey {
                    extent: *extent,
                    content: 1,
                    offset: round,
                    length: RATE_BYTES_MIN as u64,
                };
                let piece = ByteBuffer::from(vec![0_u8; RATE_BYTES_MIN]);
                memory.keep(key, piece, Duration::from_millis(1));
            }
        }
        let held: u64 = extents.iter().map(|extent| memory.bytes_of(*extent)).sum();
        let entries = memory.pieces.entries();
        assert_eq!(held, (entries * RATE_BYTES_MIN) as u64);
        assert!(entries < 600, "some had to leave");
        assert_eq!(memory.disk_bytes_per_second(), Some(65_536_000));
        memory.pieces.clear();
        assert_eq!(memory.bytes_of(extents[0]), 0);
    }
}
