//! Which slots of a segment are empty: one bit a slot, copied on write.

use std::sync::Arc;

use super::SEGMENT_EXTENTS;

const WORDS: usize = SEGMENT_EXTENTS / 64;

/// The removed slots of one segment. Cheap to clone; nothing is allocated while none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Removed(Option<Arc<[u64; WORDS]>>);

impl Removed {
    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.0
            .as_ref()
            .is_some_and(|words| words[slot / 64] >> (slot % 64) & 1 == 1)
    }

    pub(crate) fn count(&self) -> usize {
        let ones = |words: &Arc<[u64; WORDS]>| words.iter().map(|w| w.count_ones() as usize).sum();
        self.0.as_ref().map_or(0, ones)
    }

    pub(crate) fn insert(&mut self, slot: usize) {
        let words = self.0.get_or_insert_with(|| Arc::new([0; WORDS]));
        Arc::make_mut(words)[slot / 64] |= 1 << (slot % 64);
    }

    /// As checkpoints hold it: nothing when no slot is removed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bytes =
            |words: &Arc<[u64; WORDS]>| words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.0.as_ref().map_or_else(Vec::new, bytes)
    }

    /// Reads it back; `None` when it is longer than a segment.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > WORDS * 8 {
            return None;
        }
        let mut words = [0; WORDS];
        for (i, byte) in bytes.iter().enumerate() {
            words[i / 8] |= u64::from(*byte) << (i % 8 * 8);
        }
        Some(Self(
            words.iter().any(|word| *word != 0).then(|| Arc::new(words)),
        ))
    }
}
