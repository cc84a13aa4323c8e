//! Up to 1,024 extents, column by column, immutable.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, OnceLock};

use arrow::array::{Array, ArrayRef, NullArray, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use bytes::Bytes;
use slipstream_model::{
    ColumnId, ColumnStatistics, Digest, Extent, ExtentId, SortOrder, StatisticValue, TableSchema,
    Timestamp,
};

use super::SEGMENT_EXTENTS;

/// A million extents are a thousand of these. What most extents have in common (no nulls in a
/// column, the column is there, no tags) takes no memory of its own.
#[derive(Debug)]
pub(crate) struct Segment {
    ids: Box<[ExtentId]>,
    /// The slots in the order of their ids.
    by_id: Box<[u16]>,
    row_counts: UInt64Array,
    size_bytes: Box<[u64]>,
    original_bytes: Box<[u64]>,
    sha256: Box<[Digest]>,
    footer_bytes: Box<[u32]>,
    min_created_on: Box<[Timestamp]>,
    max_created_on: Box<[Timestamp]>,
    tags: Tags,
    /// Empty when no extent is inline.
    inline: Box<[Option<Bytes>]>,
    /// By ascending column id.
    columns: Box<[(ColumnId, BlockColumn)]>,
    /// The digest of the object that holds this segment, once that is known to be in the bucket.
    stored: OnceLock<Digest>,
}

/// What is known of one column in the extents of a block, slot by slot.
#[derive(Debug, Clone)]
pub struct BlockColumn {
    /// Lower bounds, of the column's type (a dictionary's value type); null where none is known.
    /// A null array for types without bounds.
    pub min: ArrayRef,
    /// Upper bounds, likewise.
    pub max: ArrayRef,
    /// How many values are null; 0 where the column is not present.
    pub null_count: UInt64Array,
    /// Which extents hold the column; in the others it reads as null.
    pub present: BooleanBuffer,
    /// Where both bounds are values of the column rather than cut short.
    pub bounds_exact: BooleanBuffer,
    /// Where the rows ascend in this column, without nulls.
    pub ascending: BooleanBuffer,
}

static ZEROS: LazyLock<UInt64Array> = LazyLock::new(|| vec![0; SEGMENT_EXTENTS].into());
static ALL: LazyLock<BooleanBuffer> = LazyLock::new(|| BooleanBuffer::new_set(SEGMENT_EXTENTS));
static NONE: LazyLock<BooleanBuffer> = LazyLock::new(|| BooleanBuffer::new_unset(SEGMENT_EXTENTS));

/// A buffer of flags that shares its memory with all others when the flags are all alike.
fn flags(values: impl ExactSizeIterator<Item = bool> + Clone) -> BooleanBuffer {
    let count = values.len();
    if values.clone().all(|value| value) && count <= SEGMENT_EXTENTS {
        ALL.slice(0, count)
    } else if !values.clone().any(|value| value) && count <= SEGMENT_EXTENTS {
        NONE.slice(0, count)
    } else {
        values.collect()
    }
}

fn counts(values: impl ExactSizeIterator<Item = u64> + Clone) -> UInt64Array {
    let count = values.len();
    if values.clone().all(|value| value == 0) && count <= SEGMENT_EXTENTS {
        ZEROS.slice(0, count)
    } else {
        UInt64Array::from_iter_values(values)
    }
}

/// The bounds of a column as an array, one entry a value.
pub(super) fn bounds_array<'a>(
    data_type: &DataType,
    values: impl ExactSizeIterator<Item = Option<&'a StatisticValue>> + Clone,
) -> Result<ArrayRef, String> {
    let count = values.len();
    match StatisticValue::to_array(data_type, values.clone()) {
        Ok(mut array) => {
            array.shrink_to_fit();
            Ok(array)
        }
        Err(_) if values.clone().all(|value| value.is_none()) => {
            Ok(Arc::new(NullArray::new(count)))
        }
        Err(error) => Err(error.to_string()),
    }
}

impl BlockColumn {
    fn build(data_type: &DataType, extents: &[Option<&ColumnStatistics>]) -> Result<Self, String> {
        let slots = extents.iter().copied();
        Ok(Self {
            min: bounds_array(data_type, slots.clone().map(|c| c?.min.as_ref()))?,
            max: bounds_array(data_type, slots.clone().map(|c| c?.max.as_ref()))?,
            null_count: counts(slots.clone().map(|c| c.map_or(0, |c| c.null_count))),
            present: flags(slots.clone().map(|c| c.is_some())),
            bounds_exact: flags(slots.clone().map(|c| c.is_some_and(|c| c.bounds_exact))),
            ascending: flags(
                slots.map(|c| c.is_some_and(|c| c.sort_order == SortOrder::Ascending)),
            ),
        })
    }

    fn statistics(&self, id: ColumnId, slot: usize) -> Option<ColumnStatistics> {
        self.present.value(slot).then(|| ColumnStatistics {
            id,
            null_count: self.null_count.value(slot),
            min: bound_at(&self.min, slot),
            max: bound_at(&self.max, slot),
            bounds_exact: self.bounds_exact.value(slot),
            sort_order: if self.ascending.value(slot) {
                SortOrder::Ascending
            } else {
                SortOrder::Unknown
            },
        })
    }

    fn memory_bytes(&self) -> usize {
        let array = |array: &dyn Array| array.get_buffer_memory_size();
        // Buffers that all segments share are counted as nothing.
        let flags = |buffer: &BooleanBuffer| {
            let start = buffer.inner().as_ptr();
            let shared = start == ALL.inner().as_ptr() || start == NONE.inner().as_ptr();
            if shared { 0 } else { buffer.inner().capacity() }
        };
        let shared_zeros = self.null_count.values().as_ptr() == ZEROS.values().as_ptr();
        array(&self.min)
            + array(&self.max)
            + if shared_zeros {
                0
            } else {
                array(&self.null_count)
            }
            + flags(&self.present)
            + flags(&self.bounds_exact)
            + flags(&self.ascending)
            + size_of::<(ColumnId, Self)>()
    }
}

fn bound_at(array: &ArrayRef, slot: usize) -> Option<StatisticValue> {
    if array.data_type() == &DataType::Null {
        return None;
    }
    StatisticValue::from_array(array, slot)
}

impl Segment {
    /// Lays extents out column by column.
    ///
    /// # Errors
    /// When a bound is not of its column's type, or an extent holds a column that is not in the
    /// schema. States check their extents before, so only a damaged checkpoint comes to that.
    pub(crate) fn build(schema: &TableSchema, extents: &[&Extent]) -> Result<Self, String> {
        let ids: BTreeSet<ColumnId> = extents
            .iter()
            .flat_map(|extent| extent.columns.iter().map(|column| column.id))
            .collect();
        let columns = ids
            .into_iter()
            .map(|id| {
                let data_type = column_type(schema, id)?;
                let slots: Vec<_> = extents.iter().map(|extent| extent.column(id)).collect();
                Ok((id, BlockColumn::build(data_type, &slots)?))
            })
            .collect::<Result<_, String>>()?;
        let mut by_id: Box<[u16]> = (0_u16..).take(extents.len()).collect();
        by_id.sort_unstable_by_key(|slot| extents[usize::from(*slot)].id);
        Ok(Self {
            by_id,
            columns,
            ids: extents.iter().map(|extent| extent.id).collect(),
            row_counts: UInt64Array::from_iter_values(
                extents.iter().map(|extent| extent.row_count),
            ),
            size_bytes: extents.iter().map(|extent| extent.size_bytes).collect(),
            original_bytes: extents.iter().map(|extent| extent.original_bytes).collect(),
            sha256: extents.iter().map(|extent| extent.sha256).collect(),
            footer_bytes: extents.iter().map(|extent| extent.footer_bytes).collect(),
            min_created_on: extents.iter().map(|extent| extent.min_created_on).collect(),
            max_created_on: extents.iter().map(|extent| extent.max_created_on).collect(),
            tags: Tags::build(extents),
            inline: if extents.iter().any(|extent| extent.inline.is_some()) {
                extents.iter().map(|extent| extent.inline.clone()).collect()
            } else {
                Box::default()
            },
            stored: OnceLock::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn id(&self, slot: usize) -> ExtentId {
        self.ids[slot]
    }

    pub(crate) fn row_counts(&self) -> &UInt64Array {
        &self.row_counts
    }

    pub(crate) fn size_bytes(&self, slot: usize) -> u64 {
        self.size_bytes[slot]
    }

    pub(crate) fn original_bytes(&self, slot: usize) -> u64 {
        self.original_bytes[slot]
    }

    pub(crate) fn min_created_on(&self, slot: usize) -> Timestamp {
        self.min_created_on[slot]
    }

    pub(crate) fn tags(&self, slot: usize) -> BTreeSet<String> {
        self.tags.at(slot)
    }

    /// The slots of the extents that have a tag.
    pub(crate) fn slots_with_tag(&self, tag: &str) -> Vec<usize> {
        let sets = self.tags.sets_with(tag);
        if sets.is_empty() {
            return Vec::new();
        }
        let slots = 0..self.len();
        let slots = slots.filter(|slot| sets.contains(&self.tags.set_at(*slot)));
        slots.collect()
    }

    /// The bytes of an extent that stands in the log.
    pub(crate) fn inline(&self, slot: usize) -> Option<&Bytes> {
        self.inline.get(slot)?.as_ref()
    }

    pub(crate) fn max_created_on(&self, slot: usize) -> Timestamp {
        self.max_created_on[slot]
    }

    pub(crate) fn columns(&self) -> &[(ColumnId, BlockColumn)] {
        &self.columns
    }

    /// Where an extent stands.
    pub(crate) fn slot_of(&self, id: ExtentId) -> Option<usize> {
        let by_id = |slot: &u16| self.ids[usize::from(*slot)].cmp(&id);
        let found = self.by_id.binary_search_by(by_id).ok()?;
        Some(usize::from(self.by_id[found]))
    }

    /// The smallest and the largest id; ids are ordered by time, so few segments can hold one.
    pub(crate) fn id_range(&self) -> Option<(ExtentId, ExtentId)> {
        let (first, last) = (self.by_id.first()?, self.by_id.last()?);
        Some((self.ids[usize::from(*first)], self.ids[usize::from(*last)]))
    }

    /// Puts one extent together again.
    pub(crate) fn extent(&self, slot: usize) -> Extent {
        let columns = self
            .columns
            .iter()
            .filter_map(|(id, column)| column.statistics(*id, slot))
            .collect();
        Extent {
            id: self.ids[slot],
            row_count: self.row_counts.value(slot),
            size_bytes: self.size_bytes[slot],
            original_bytes: self.original_bytes[slot],
            sha256: self.sha256[slot],
            footer_bytes: self.footer_bytes[slot],
            min_created_on: self.min_created_on[slot],
            max_created_on: self.max_created_on[slot],
            tags: self.tags.at(slot),
            inline: self.inline(slot).cloned(),
            columns,
        }
    }

    /// The name of the object that holds this segment, when it is known to be in the bucket.
    pub(crate) fn stored(&self) -> Option<Digest> {
        self.stored.get().copied()
    }

    /// Remembers that the segment is in the bucket.
    pub(crate) fn set_stored(&self, digest: Digest) {
        // Whoever was first stored the same bytes.
        let _ = self.stored.set(digest);
    }

    /// Bytes of memory, to a few.
    pub(crate) fn memory_bytes(&self) -> usize {
        let per_slot = size_of::<ExtentId>()
            + size_of::<Digest>()
            + 2 * size_of::<u64>()
            + 2 * size_of::<Timestamp>()
            + size_of::<u32>()
            + size_of::<u16>();
        let columns: usize = self
            .columns
            .iter()
            .map(|(_, column)| column.memory_bytes())
            .sum();
        size_of::<Self>()
            + self.len() * per_slot
            + self.row_counts.get_buffer_memory_size()
            + self.tags.memory_bytes()
            + size_of_val(&*self.inline)
            + self.inline.iter().flatten().map(Bytes::len).sum::<usize>()
            + columns
    }
}

/// The type of a column by its id.
pub(super) fn column_type(schema: &TableSchema, id: ColumnId) -> Result<&DataType, String> {
    let column = schema.column_of(id);
    column
        .map(|column| column.field.data_type())
        .ok_or_else(|| format!("it holds a column with id {}, and the table has none", id.0))
}

/// Tags of the extents. An ingest gives all its extents the same ones, so sets are kept once.
#[derive(Debug)]
struct Tags {
    sets: Box<[BTreeSet<String>]>,
    /// Empty when all slots have the one set.
    set_of_slot: Box<[u16]>,
    /// Hashes of tags, ascending, with the sets that hold them; made when somebody asks for a tag.
    /// An extent of many merged ones has many tags, and a table has many extents.
    by_hash: OnceLock<Box<[(u64, u16)]>>,
}

impl Tags {
    fn build(extents: &[&Extent]) -> Self {
        let mut numbers = BTreeMap::new();
        let mut sets = Vec::new();
        let mut set_of_slot = Vec::with_capacity(extents.len());
        for extent in extents {
            let number = *numbers.entry(&extent.tags).or_insert_with(|| {
                sets.push(extent.tags.clone());
                u16::try_from(sets.len() - 1).unwrap_or(u16::MAX)
            });
            set_of_slot.push(number);
        }
        if sets.len() <= 1 {
            set_of_slot.clear();
        }
        Self {
            sets: sets.into(),
            set_of_slot: set_of_slot.into(),
            by_hash: OnceLock::new(),
        }
    }

    fn at(&self, slot: usize) -> BTreeSet<String> {
        self.sets
            .get(self.set_at(slot))
            .cloned()
            .unwrap_or_default()
    }

    fn set_at(&self, slot: usize) -> usize {
        let set = self.set_of_slot.get(slot);
        set.map_or(0, |set| usize::from(*set))
    }

    /// The sets that hold a tag.
    fn sets_with(&self, tag: &str) -> Vec<usize> {
        let by_hash = self.by_hash.get_or_init(|| self.hash());
        let wanted = hash_of(tag);
        let first = by_hash.partition_point(|(hash, _)| *hash < wanted);
        let alike = by_hash[first..]
            .iter()
            .take_while(|(hash, _)| *hash == wanted);
        let sets = alike.map(|(_, set)| usize::from(*set));
        sets.filter(|set| self.sets[*set].contains(tag)).collect()
    }

    fn hash(&self) -> Box<[(u64, u16)]> {
        let mut hashes: Vec<(u64, u16)> = (0_u16..)
            .zip(self.sets.iter())
            .flat_map(|(number, set)| set.iter().map(move |tag| (hash_of(tag), number)))
            .collect();
        hashes.sort_unstable();
        hashes.into()
    }

    fn memory_bytes(&self) -> usize {
        let set = |set: &BTreeSet<String>| {
            size_of_val(set)
                + set
                    .iter()
                    .map(|tag| size_of::<String>() + tag.len())
                    .sum::<usize>()
        };
        self.sets.iter().map(set).sum::<usize>()
            + size_of_val(&*self.set_of_slot)
            + self
                .by_hash
                .get()
                .map_or(0, |hashes| size_of_val(&**hashes))
    }
}

fn hash_of(tag: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    tag.hash(&mut hasher);
    hasher.finish()
}
