//! A segment as one version of a table sees it: some of its extents may be gone.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::compute::filter;
use arrow::datatypes::DataType;
use bytes::Bytes;
use slipstream_model::{
    ColumnId, ColumnStatisticsBuilder, Extent, ExtentId, StatisticValue, Timestamp,
};

use super::removed::Removed;
use super::segment::{BlockColumn, Segment};

/// Up to 1,024 extents, column by column, for vectorised pruning. Cheap to clone.
///
/// Extents stand in *slots*. The slots of removed extents stay, so that all arrays keep their
/// positions: ask [`ExtentBlock::is_live`].
#[derive(Debug, Clone)]
pub struct ExtentBlock {
    segment: Arc<Segment>,
    removed: Removed,
    live_count: usize,
    /// One for each column of the segment, made when somebody asks.
    summaries: Arc<[OnceLock<Option<ColumnSummary>>]>,
}

/// What is known of one column over all live extents of a block that hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSummary {
    /// At most as large as every value; `None` when there is no value, or no bound is known.
    pub min: Option<StatisticValue>,
    /// At least as large as every value; `None` likewise.
    pub max: Option<StatisticValue>,
    /// Rows of the live extents that hold the column.
    pub row_count: u64,
    /// How many of those rows are null.
    pub null_count: u64,
    /// Whether `min` and `max` are values of the column, rather than bounds cut short.
    pub bounds_exact: bool,
    /// Whether every live extent holds the column; in those that do not, it reads as null.
    pub all_present: bool,
}

impl ExtentBlock {
    pub(super) fn new(segment: Arc<Segment>, removed: Removed) -> Self {
        let live_count = segment.len() - removed.count();
        let summaries = segment.columns().iter().map(|_| OnceLock::new()).collect();
        Self {
            segment,
            removed,
            live_count,
            summaries,
        }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn removed(&self) -> &Removed {
        &self.removed
    }

    /// The same block with some more slots removed.
    pub(super) fn without(&self, slots: &[usize]) -> Self {
        let mut removed = self.removed.clone();
        for slot in slots {
            removed.insert(*slot);
        }
        Self::new(Arc::clone(&self.segment), removed)
    }

    /// Slots, those of removed extents included.
    pub fn len(&self) -> usize {
        self.segment.len()
    }

    /// Whether there is no slot at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the extent in a slot is still part of the table.
    pub fn is_live(&self, slot: usize) -> bool {
        slot < self.len() && !self.removed.contains(slot)
    }

    /// Whether a live extent has a tag.
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        let slots = self.segment.slots_with_tag(tag);
        slots.into_iter().any(|slot| self.is_live(slot))
    }

    /// How many extents are still part of the table.
    pub fn live_count(&self) -> usize {
        self.live_count
    }

    /// The slots of the live extents, in order.
    pub fn live_slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|slot| self.is_live(*slot))
    }

    /// Rows of the extent in each slot.
    pub fn row_counts(&self) -> &UInt64Array {
        self.segment.row_counts()
    }

    /// Everything known of the extent in a slot, put together from the columns.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn extent(&self, slot: usize) -> Extent {
        self.segment.extent(slot)
    }

    /// The id of the extent in a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn id(&self, slot: usize) -> ExtentId {
        self.segment.id(slot)
    }

    /// Bytes of the file of the extent in a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn size_bytes(&self, slot: usize) -> u64 {
        self.segment.size_bytes(slot)
    }

    /// Bytes of the rows of the extent in a slot before encoding.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn original_bytes(&self, slot: usize) -> u64 {
        self.segment.original_bytes(slot)
    }

    /// The tags of the extent in a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn tags(&self, slot: usize) -> BTreeSet<String> {
        self.segment.tags(slot)
    }

    /// When the oldest source of the extent in a slot was made.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn min_created_on(&self, slot: usize) -> Timestamp {
        self.segment.min_created_on(slot)
    }

    /// When the newest source of the extent in a slot was made: what the caching policy asks.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn max_created_on(&self, slot: usize) -> Timestamp {
        self.segment.max_created_on(slot)
    }

    /// The bytes of an extent that stands in the log rather than in a file.
    pub fn inline(&self, slot: usize) -> Option<&Bytes> {
        self.segment.inline(slot)
    }

    /// What is known of a column in each slot; `None` when no extent here holds the column.
    pub fn column(&self, id: ColumnId) -> Option<&BlockColumn> {
        self.position(id)
            .map(|position| &self.segment.columns()[position].1)
    }

    /// The column over all live extents; `None` when none of them holds it. Worked out once.
    pub fn summary(&self, id: ColumnId) -> Option<ColumnSummary> {
        let position = self.position(id)?;
        let column = &self.segment.columns()[position].1;
        self.summaries[position]
            .get_or_init(|| self.summarise(id, column))
            .clone()
    }

    fn position(&self, id: ColumnId) -> Option<usize> {
        self.segment
            .columns()
            .binary_search_by_key(&id, |(id, _)| *id)
            .ok()
    }

    fn summarise(&self, id: ColumnId, column: &BlockColumn) -> Option<ColumnSummary> {
        let (mut row_count, mut null_count, mut present_count) = (0, 0, 0);
        let (mut min_known, mut max_known, mut bounds_exact) = (true, true, true);
        for slot in self.live_slots().filter(|slot| column.present.value(*slot)) {
            let (rows, nulls) = (self.row_counts().value(slot), column.null_count.value(slot));
            row_count += rows;
            null_count += nulls;
            present_count += 1;
            if nulls < rows {
                min_known &= is_known(&column.min, slot);
                max_known &= is_known(&column.max, slot);
                bounds_exact &= column.bounds_exact.value(slot);
            }
        }
        if present_count == 0 {
            return None;
        }
        Some(ColumnSummary {
            min: min_known.then(|| self.smallest(id, &column.min)).flatten(),
            max: max_known.then(|| self.largest(id, &column.max)).flatten(),
            row_count,
            null_count,
            bounds_exact: bounds_exact && min_known && max_known,
            all_present: present_count == self.live_count,
        })
    }

    fn smallest(&self, id: ColumnId, bounds: &ArrayRef) -> Option<StatisticValue> {
        let mut builder = ColumnStatisticsBuilder::new(id, bounds.data_type());
        builder.update(&self.live_only(bounds)?);
        builder.finish().min
    }

    fn largest(&self, id: ColumnId, bounds: &ArrayRef) -> Option<StatisticValue> {
        let mut builder = ColumnStatisticsBuilder::new(id, bounds.data_type());
        builder.update(&self.live_only(bounds)?);
        builder.finish().max
    }

    fn live_only(&self, bounds: &ArrayRef) -> Option<ArrayRef> {
        if self.live_count == self.len() {
            return Some(Arc::clone(bounds));
        }
        let live: BooleanArray = (0..self.len())
            .map(|slot| Some(self.is_live(slot)))
            .collect();
        filter(bounds, &live).ok()
    }
}

fn is_known(bounds: &ArrayRef, slot: usize) -> bool {
    bounds.data_type() != &DataType::Null && bounds.is_valid(slot)
}
