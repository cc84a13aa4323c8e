//! The extents of one table, at one version.

mod block;
mod check;
mod removed;
mod segment;

use std::sync::{Arc, OnceLock};

use imbl::Vector;
use slipstream_model::{Extent, ExtentId, TableSchema};

pub use block::{ColumnSummary, ExtentBlock};
pub use check::INLINE_EXTENT_BYTES_MAX;
pub(crate) use check::{check_extents, check_shape};
pub(crate) use removed::Removed;
pub use segment::BlockColumn;
pub(crate) use segment::Segment;

/// Extents in a sealed segment. Large enough that a million extents are a thousand segments,
/// which are quickly walked; small enough that sealing one holds up no
/// commit noticeably.
pub const SEGMENT_EXTENTS: usize = 1024;

/// Extents of a table that stand in the log at one time. They are moved within seconds; more of them
/// would make every scan open too many small files.
pub const INLINE_EXTENTS_MAX: u64 = 1024;

/// Their bytes: every node that has the state has them in memory, and a checkpoint writes them again.
/// Few enough that the undo of a table's drop is still one transaction.
pub const INLINE_BYTES_MAX: u64 = 32 << 20;

/// A sealed segment with fewer live extents than its length divided by this is dissolved: they
/// move to the tail, so that removals do not leave segments of holes behind.
const DISSOLVE_BELOW_FRACTION: usize = 4;

/// The extents of a table. Immutable, clones in O(1).
///
/// Most stand in sealed segments that versions share; the newest, fewer than
/// [`SEGMENT_EXTENTS`], in a tail, and so do those that are inline, until they are moved: a segment
/// would keep their bytes when they are gone. Adding costs the same however many there are; removing marks
/// bits in the segments concerned.
#[derive(Debug, Clone)]
pub struct ExtentSet {
    schema: TableSchema,
    sealed: Vector<ExtentBlock>,
    tail: Vector<Arc<Extent>>,
    /// The tail column by column, made when somebody asks.
    tail_block: Arc<OnceLock<ExtentBlock>>,
    totals: Totals,
    inline: InlineTotals,
    /// The largest id that was ever added: ids are ordered by time, so a new one is mostly larger
    /// and needs no search to be known as new.
    largest_id: Option<ExtentId>,
}

/// Exact sums over the live extents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    extents: u64,
    rows: u64,
    size_bytes: u64,
    original_bytes: u64,
}

impl Totals {
    fn add(&mut self, rows: u64, size_bytes: u64, original_bytes: u64) {
        self.extents += 1;
        self.rows += rows;
        self.size_bytes += size_bytes;
        self.original_bytes += original_bytes;
    }

    fn subtract(&mut self, rows: u64, size_bytes: u64, original_bytes: u64) {
        self.extents -= 1;
        self.rows -= rows;
        self.size_bytes -= size_bytes;
        self.original_bytes -= original_bytes;
    }
}

/// Exact sums over the extents that are inline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InlineTotals {
    /// How many there are.
    pub extents: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes, as files and as they are.
    pub size_bytes: u64,
}

impl InlineTotals {
    fn add(&mut self, extent: &Extent) {
        if extent.inline.is_some() {
            self.extents += 1;
            self.rows += extent.row_count;
            self.size_bytes += extent.size_bytes;
        }
    }

    fn subtract(&mut self, extent: &Extent) {
        if extent.inline.is_some() {
            self.extents -= 1;
            self.rows -= extent.row_count;
            self.size_bytes -= extent.size_bytes;
        }
    }

    /// Whether these are more than a table may have.
    pub(crate) fn are_too_many(&self) -> bool {
        self.extents > INLINE_EXTENTS_MAX || self.size_bytes > INLINE_BYTES_MAX
    }
}

impl ExtentSet {
    pub(crate) fn empty(schema: TableSchema) -> Self {
        Self {
            schema,
            sealed: Vector::new(),
            tail: Vector::new(),
            tail_block: Arc::default(),
            totals: Totals::default(),
            inline: InlineTotals::default(),
            largest_id: None,
        }
    }

    /// One extent of a set with these columns, by itself.
    pub(crate) fn of_one(schema: TableSchema, extent: Extent) -> Self {
        let mut set = Self::empty(schema);
        set.push(vec![extent]);
        set
    }

    /// Puts a set together as a checkpoint holds it.
    pub(crate) fn from_parts(
        schema: TableSchema,
        segments: Vec<(Arc<Segment>, Removed)>,
        tail: Vec<Extent>,
    ) -> Result<Self, String> {
        let mut set = Self::empty(schema);
        for (segment, removed) in segments {
            let block = ExtentBlock::new(segment, removed);
            for slot in block.live_slots() {
                let segment = block.segment();
                set.totals.add(
                    segment.row_counts().value(slot),
                    segment.size_bytes(slot),
                    segment.original_bytes(slot),
                );
            }
            set.largest_id = set
                .largest_id
                .max(block.segment().id_range().map(|range| range.1));
            set.sealed.push_back(block);
        }
        check_extents(&set.schema, &tail)
            .map_err(|(id, reason)| format!("extent {id}: {reason}"))?;
        set.push(tail);
        Ok(set)
    }

    /// Live extents.
    pub fn len(&self) -> u64 {
        self.totals.extents
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows in the live extents.
    pub fn row_count(&self) -> u64 {
        self.totals.rows
    }

    /// Bytes of their files.
    pub fn size_bytes(&self) -> u64 {
        self.totals.size_bytes
    }

    /// Bytes of their rows before encoding.
    pub fn original_bytes(&self) -> u64 {
        self.totals.original_bytes
    }

    /// What of all this stands in the log rather than in files.
    pub fn inline(&self) -> InlineTotals {
        self.inline
    }

    /// Those that stand in files.
    pub(crate) fn without_inline(&self) -> Self {
        let inline = self.tail.iter().filter(|extent| extent.inline.is_some());
        let mut ids: Vec<_> = inline.map(|extent| extent.id).collect();
        ids.sort_unstable();
        let mut set = self.clone();
        set.remove_from_tail(&ids);
        set
    }

    /// Every sealed segment, then the tail as one more block.
    pub fn blocks(&self) -> Vec<ExtentBlock> {
        self.sealed
            .iter()
            .chain(self.tail_block())
            .cloned()
            .collect()
    }

    /// Every live extent, put together from the columns, in the order of the blocks.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        let sealed = self
            .sealed
            .iter()
            .flat_map(|block| block.live_slots().map(|slot| block.extent(slot)));
        sealed.chain(self.tail.iter().map(|extent| Extent::clone(extent)))
    }

    /// Whether an extent has a tag. Costs a look at each segment, however many tags there are, and
    /// at each extent of the tail.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tail.iter().any(|extent| extent.tags.contains(tag))
            || self.sealed.iter().any(|block| block.has_tag(tag))
    }

    /// The extent of an id.
    pub fn get(&self, id: ExtentId) -> Option<Extent> {
        let (_, place) = self.locate(&[id]).pop()?;
        Some(self.at(place))
    }

    /// Those of some ids whose extents are here. Costs a look at each segment, however many ids
    /// there are.
    pub fn held_of(&self, ids: &[ExtentId]) -> Vec<ExtentId> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let found = self.locate(&ids).into_iter();
        found.map(|(id, _)| id).collect()
    }

    /// The extents of some ids, each once, in the order of the blocks.
    ///
    /// # Errors
    /// The id of one that is not there.
    pub(crate) fn get_all(&self, ids: &[ExtentId]) -> Result<Vec<Extent>, ExtentId> {
        let (_, found) = self.locate_all(ids)?;
        Ok(found.into_iter().map(|(_, place)| self.at(place)).collect())
    }

    fn at(&self, place: Place) -> Extent {
        match place {
            Place::Sealed { block, slot } => self.sealed[block].extent(slot),
            Place::Tail(position) => Extent::clone(&self.tail[position]),
        }
    }

    /// Bytes of memory of the sealed segments, which versions share. The tail, bounded by
    /// [`SEGMENT_EXTENTS`], is not counted.
    pub fn memory_bytes(&self) -> usize {
        let block = |block: &ExtentBlock| size_of::<ExtentBlock>() + block.segment().memory_bytes();
        self.sealed.iter().map(block).sum()
    }

    pub(crate) fn sealed(&self) -> &Vector<ExtentBlock> {
        &self.sealed
    }

    pub(crate) fn tail(&self) -> &Vector<Arc<Extent>> {
        &self.tail
    }

    /// The columns changed; extents that are there keep theirs.
    pub(crate) fn set_schema(&mut self, schema: TableSchema) {
        self.schema = schema;
    }

    /// Adds extents that [`check_extents`] let pass.
    ///
    /// # Errors
    /// The id of one that is there already.
    pub(crate) fn add(&mut self, extents: Vec<Extent>) -> Result<(), ExtentId> {
        let mut ids: Vec<_> = extents.iter().map(|extent| extent.id).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(twice[0]);
        }
        let may_be_there = ids
            .first()
            .is_some_and(|first| Some(*first) <= self.largest_id);
        if may_be_there && let Some((id, _)) = self.locate(&ids).first() {
            return Err(*id);
        }
        self.push(extents);
        Ok(())
    }

    /// Takes extents out.
    ///
    /// # Errors
    /// The id of one that is not there; the set is as it was.
    pub(crate) fn remove(&mut self, ids: &[ExtentId]) -> Result<(), ExtentId> {
        let (ids, found) = self.locate_all(ids)?;
        let in_tail = found
            .iter()
            .any(|(_, place)| matches!(place, Place::Tail(_)));
        if in_tail {
            self.remove_from_tail(&ids);
        }
        self.remove_from_sealed(&found);
        Ok(())
    }

    fn tail_block(&self) -> Option<&ExtentBlock> {
        if self.tail.is_empty() {
            return None;
        }
        Some(
            self.tail_block
                .get_or_init(|| self.lay_out(self.tail.iter())),
        )
    }

    fn lay_out<'a>(&self, extents: impl Iterator<Item = &'a Arc<Extent>>) -> ExtentBlock {
        let extents: Vec<&Extent> = extents.map(AsRef::as_ref).collect();
        let segment = Segment::build(&self.schema, &extents)
            .expect("extents were checked against the schema when they were added");
        ExtentBlock::new(Arc::new(segment), Removed::default())
    }

    /// Appends to the tail, and seals what is full.
    fn push(&mut self, extents: Vec<Extent>) {
        for extent in extents {
            self.totals
                .add(extent.row_count, extent.size_bytes, extent.original_bytes);
            self.inline.add(&extent);
            self.largest_id = self.largest_id.max(Some(extent.id));
            self.tail.push_back(Arc::new(extent));
        }
        let inline = usize::try_from(self.inline.extents).unwrap_or(usize::MAX);
        while self.tail.len().saturating_sub(inline) >= SEGMENT_EXTENTS {
            let rest = if inline == 0 {
                self.tail.split_off(SEGMENT_EXTENTS)
            } else {
                self.split_off_full()
            };
            self.sealed.push_back(self.lay_out(self.tail.iter()));
            self.tail = rest;
        }
        self.tail_block = Arc::default();
    }

    /// Leaves in the tail the first extents that fill a segment, and gives the others, with all that
    /// are inline.
    fn split_off_full(&mut self) -> Vector<Arc<Extent>> {
        let (mut full, mut rest) = (Vector::new(), Vector::new());
        for extent in std::mem::take(&mut self.tail) {
            if extent.inline.is_none() && full.len() < SEGMENT_EXTENTS {
                full.push_back(extent);
            } else {
                rest.push_back(extent);
            }
        }
        self.tail = full;
        rest
    }

    /// Where the extents of some sorted ids are; those that are nowhere are left out.
    fn locate(&self, ids: &[ExtentId]) -> Vec<(ExtentId, Place)> {
        let mut found = Vec::new();
        for (number, block) in self.sealed.iter().enumerate() {
            let Some((first, last)) = block.segment().id_range() else {
                continue;
            };
            let start = ids.partition_point(|id| *id < first);
            for id in ids[start..].iter().take_while(|id| **id <= last) {
                if let Some(slot) = block.segment().slot_of(*id)
                    && block.is_live(slot)
                {
                    found.push((
                        *id,
                        Place::Sealed {
                            block: number,
                            slot,
                        },
                    ));
                }
            }
        }
        for (position, extent) in self.tail.iter().enumerate() {
            if ids.binary_search(&extent.id).is_ok() {
                found.push((extent.id, Place::Tail(position)));
            }
        }
        found
    }

    /// Where the extents of some ids are, and the ids, sorted and each once.
    ///
    /// # Errors
    /// The id of one that is nowhere.
    fn locate_all(&self, ids: &[ExtentId]) -> Result<Located, ExtentId> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let found = self.locate(&ids);
        if found.len() < ids.len() {
            let mut known: Vec<_> = found.iter().map(|(id, _)| *id).collect();
            known.sort_unstable();
            let missing = ids.iter().find(|id| known.binary_search(id).is_err());
            return Err(*missing.unwrap_or(&ids[0]));
        }
        Ok((ids, found))
    }

    fn remove_from_tail(&mut self, ids: &[ExtentId]) {
        let (totals, inline) = (&mut self.totals, &mut self.inline);
        self.tail.retain(|extent| {
            let stays = ids.binary_search(&extent.id).is_err();
            if !stays {
                totals.subtract(extent.row_count, extent.size_bytes, extent.original_bytes);
                inline.subtract(extent);
            }
            stays
        });
        self.tail_block = Arc::default();
    }

    fn remove_from_sealed(&mut self, found: &[(ExtentId, Place)]) {
        let mut dissolved = Vec::new();
        for (number, slots) in by_block(found) {
            let block = self.sealed[number].without(&slots);
            for slot in slots {
                let segment = block.segment();
                self.totals.subtract(
                    segment.row_counts().value(slot),
                    segment.size_bytes(slot),
                    segment.original_bytes(slot),
                );
            }
            if block.live_count() * DISSOLVE_BELOW_FRACTION < block.len() {
                dissolved.push(number);
            }
            self.sealed.set(number, block);
        }
        self.dissolve(&dissolved);
    }

    /// Moves what is left of some blocks to the tail.
    fn dissolve(&mut self, numbers: &[usize]) {
        let mut moved = Vec::new();
        for number in numbers {
            let block = &self.sealed[*number];
            moved.extend(block.live_slots().map(|slot| block.extent(slot)));
        }
        // From the back, so that the numbers of the others stay.
        for number in numbers.iter().rev() {
            self.sealed.remove(*number);
        }
        for extent in &moved {
            // `push` adds them again.
            self.totals
                .subtract(extent.row_count, extent.size_bytes, extent.original_bytes);
        }
        if !moved.is_empty() {
            self.push(moved);
        }
    }
}

/// Where an extent stands in a set.
#[derive(Debug, Clone, Copy)]
enum Place {
    Sealed { block: usize, slot: usize },
    Tail(usize),
}

/// Ids, sorted, and where their extents are.
type Located = (Vec<ExtentId>, Vec<(ExtentId, Place)>);

/// The slots to remove, by block, blocks ascending: the order in which they were found.
fn by_block(found: &[(ExtentId, Place)]) -> Vec<(usize, Vec<usize>)> {
    let mut blocks: Vec<(usize, Vec<usize>)> = Vec::new();
    for (_, place) in found {
        let Place::Sealed { block, slot } = *place else {
            continue;
        };
        match blocks.last_mut() {
            Some((number, slots)) if *number == block => slots.push(slot),
            _ => blocks.push((block, vec![slot])),
        }
    }
    blocks
}

#[cfg(test)]
mod tests;
