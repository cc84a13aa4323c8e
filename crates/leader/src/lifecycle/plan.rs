//! Which extents become one: a pure function of what a table has and of its policy.
//!
//! * Extents become one with their neighbours in the order of creation, so that rows stay in the
//!   order in which they came. One that is large already stays, and parts its neighbours.
//! * Extents with different `drop-by:` tags never become one (*Extent tags*, Kusto documentation).
//! * A result has at least twice the rows of each of its sources. So a row is written anew at most
//!   as often as an extent can be doubled, about twenty times, however rows trickle in; and as each
//!   merge leaves fewer extents, there comes an end.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slipstream_catalog::{DatabaseState, EXTENT_TAGS_MAX, ExtentBlock, TableState};
use slipstream_model::{
    ColumnId, EffectiveCaching, Extent, ExtentId, LeaderCaching, MergePolicy, RetentionPolicy,
    SortOrder, StatisticValue, TableSchema, Timestamp,
};
use slipstream_storage::EXTENT_BYTES_MAX;

/// What tags begin with that keep extents apart.
const FENCE: &str = "drop-by:";
/// Original size of a result: Kusto's bound of a rebuild (*Sharding policy*, Kusto documentation).
const ORIGINAL_BYTES_MAX: u64 = 3_072 << 20;
/// Characters of the tags of a result (*Extent tags*, Kusto documentation): the catalog holds them
/// with each extent.
const TAG_CHARS_MAX: usize = 1_000_000;
/// Small extents that are looked at, the first of a table. The others have their turn when these
/// are fewer.
const CANDIDATES_MAX: usize = 131_072;

/// What a plan knows of an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub id: ExtentId,
    /// Its rows.
    pub row_count: u64,
    /// Bytes of its rows in memory.
    pub original_bytes: u64,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// When its oldest rows were taken in.
    pub min_created_on: Timestamp,
    /// When its newest rows were.
    pub max_created_on: Timestamp,
    /// Its tags.
    pub tags: BTreeSet<String>,
}

impl Candidate {
    fn of(block: &ExtentBlock, slot: usize) -> Self {
        Self {
            id: block.id(slot),
            row_count: block.row_counts().value(slot),
            original_bytes: block.original_bytes(slot),
            size_bytes: block.size_bytes(slot),
            min_created_on: block.min_created_on(slot),
            max_created_on: block.max_created_on(slot),
            tags: block.tags(slot),
        }
    }

    /// The tags that it shares with all it may become one with.
    fn fences(&self) -> BTreeSet<String> {
        let fences = self.tags.iter().filter(|tag| tag.starts_with(FENCE));
        fences.cloned().collect()
    }
}

/// How large a result may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Sources.
    extents: usize,
    row_count: u64,
    original_bytes: u64,
    /// Bytes of the sources' files; those of the result are about as many.
    size_bytes: u64,
    /// Between the oldest and the newest creation time.
    range: Duration,
}

impl Bounds {
    /// What a policy and the size of an extent allow together.
    pub fn of(policy: &MergePolicy, extent_rows_max: u64) -> Self {
        let megabytes = policy.original_size_mb_upper_bound_for_merge;
        Self {
            extents: policy.max_extents_to_merge as usize,
            row_count: policy.row_count_upper_bound_for_merge.min(extent_rows_max),
            original_bytes: megabytes.saturating_mul(1 << 20).min(ORIGINAL_BYTES_MAX),
            size_bytes: EXTENT_BYTES_MAX as u64,
            range: policy.max_range(),
        }
    }

    /// Whether an extent stays as it is: nothing twice as large is allowed.
    fn is_large(&self, candidate: &Candidate) -> bool {
        candidate.row_count > self.row_count / 2
            || candidate.original_bytes > self.original_bytes / 2
            || candidate.size_bytes > self.size_bytes / 2
    }
}

/// The extents of a table that the policy looks at. Those whose time is over soon leave by
/// themselves, and those that are left out are somebody's concern.
pub(super) fn candidates(
    state: &DatabaseState,
    table: &TableState,
    policy: &MergePolicy,
    bounds: &Bounds,
    now: Timestamp,
    is_left_out: impl Fn(ExtentId) -> bool,
) -> Vec<Candidate> {
    let caching = EffectiveCaching::of_leader(LeaderCaching {
        database: state.caching_policy(),
        table: table.policies.caching.as_ref(),
    });
    let retention = RetentionPolicy::effective(table.policies.retention, state.retention_policy());
    let (mut candidates, mut small) = (Vec::new(), 0);
    for block in table.extents.blocks() {
        for slot in block.live_slots() {
            let newest = block.max_created_on(slot);
            let is_over = retention.is_some_and(|retention| retention.is_over(newest, now));
            let is_reached = policy.lookback.reaches(newest, now, &caching);
            // Those in the log are moved, whatever the policy says.
            let is_inline = block.inline(slot).is_some();
            if is_inline || is_over || !is_reached || is_left_out(block.id(slot)) {
                continue;
            }
            let candidate = Candidate::of(&block, slot);
            small += usize::from(!bounds.is_large(&candidate));
            candidates.push(candidate);
            if small == CANDIDATES_MAX {
                return candidates;
            }
        }
    }
    candidates
}

/// Groups of extents that become one each: at least two in a group, and none in two groups.
pub fn plan(candidates: Vec<Candidate>, bounds: &Bounds) -> Vec<Vec<ExtentId>> {
    let mut fenced: BTreeMap<BTreeSet<String>, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let within = fenced.entry(candidate.fences()).or_default();
        within.push(candidate);
    }
    let mut groups = Vec::new();
    for mut within in fenced.into_values() {
        within.sort_by_key(|extent| (extent.min_created_on, extent.max_created_on, extent.id));
        for run in within.split(|extent| bounds.is_large(extent)) {
            for window in windows(run, bounds) {
                pick(window, &mut groups);
            }
        }
    }
    groups
}

/// Groups of extents that stand in the log and become a file each: one is enough for a group.
pub(super) fn streamed(
    table: &TableState,
    bounds: &Bounds,
    is_left_out: impl Fn(ExtentId) -> bool,
) -> Vec<Vec<ExtentId>> {
    // A table has few of them, and their files are small.
    let bounds = Bounds {
        extents: usize::MAX,
        ..*bounds
    };
    let mut fenced: BTreeMap<BTreeSet<String>, Vec<Candidate>> = BTreeMap::new();
    for block in table.extents.blocks() {
        for slot in block.live_slots() {
            if block.inline(slot).is_some() && !is_left_out(block.id(slot)) {
                let candidate = Candidate::of(&block, slot);
                let within = fenced.entry(candidate.fences()).or_default();
                within.push(candidate);
            }
        }
    }
    let mut groups = Vec::new();
    for mut within in fenced.into_values() {
        within.sort_by_key(|extent| (extent.min_created_on, extent.max_created_on, extent.id));
        for window in windows(&within, &bounds) {
            groups.push(window.iter().map(|extent| extent.id).collect());
        }
    }
    groups
}

/// Cuts neighbours into as few windows as the bounds allow, the first ones as large as can be.
fn windows<'a>(run: &'a [Candidate], bounds: &Bounds) -> Vec<&'a [Candidate]> {
    let mut windows = Vec::new();
    let (mut start, mut sum) = (0, Sum::default());
    for (position, extent) in run.iter().enumerate() {
        if position > start && !sum.takes(extent, bounds) {
            windows.push(&run[start..position]);
            start = position;
            sum = Sum::default();
        }
        sum.add(extent);
    }
    windows.push(&run[start..]);
    windows
}

/// Takes a window as a group when the result has twice the rows of the largest; else what stands
/// before that one and what stands after it, by the same rule.
fn pick(window: &[Candidate], groups: &mut Vec<Vec<ExtentId>>) {
    let rows = window.iter().map(|extent| extent.row_count);
    let total = rows.clone().fold(0, u64::saturating_add);
    let largest = rows.enumerate().max_by_key(|(_, rows)| *rows);
    match largest {
        Some((_, rows)) if window.len() > 1 && rows <= total / 2 => {
            groups.push(window.iter().map(|extent| extent.id).collect());
        }
        Some((position, _)) if window.len() > 2 => {
            pick(&window[..position], groups);
            pick(&window[position + 1..], groups);
        }
        _ => {}
    }
}

/// Extents of a window, together.
#[derive(Default)]
struct Sum<'a> {
    extents: usize,
    row_count: u64,
    original_bytes: u64,
    size_bytes: u64,
    created_on: Option<(Timestamp, Timestamp)>,
    tags: BTreeSet<&'a str>,
    tag_chars: usize,
}

impl<'a> Sum<'a> {
    fn takes(&self, extent: &Candidate, bounds: &Bounds) -> bool {
        let (oldest, newest) = self.range_with(extent);
        let new_tags = extent.tags.iter().map(String::as_str);
        let new_tags = new_tags.filter(|tag| !self.tags.contains(tag));
        self.extents < bounds.extents
            && self.row_count.saturating_add(extent.row_count) <= bounds.row_count
            && self.original_bytes.saturating_add(extent.original_bytes) <= bounds.original_bytes
            && self.size_bytes.saturating_add(extent.size_bytes) <= bounds.size_bytes
            && newest.since(oldest) <= bounds.range
            && self.tags.len() + new_tags.clone().count() <= EXTENT_TAGS_MAX
            && self.tag_chars + new_tags.map(chars).sum::<usize>() <= TAG_CHARS_MAX
    }

    fn add(&mut self, extent: &'a Candidate) {
        self.created_on = Some(self.range_with(extent));
        self.extents += 1;
        self.row_count = self.row_count.saturating_add(extent.row_count);
        self.original_bytes = self.original_bytes.saturating_add(extent.original_bytes);
        self.size_bytes = self.size_bytes.saturating_add(extent.size_bytes);
        for tag in &extent.tags {
            if self.tags.insert(tag) {
                self.tag_chars += chars(tag);
            }
        }
    }

    fn range_with(&self, extent: &Candidate) -> (Timestamp, Timestamp) {
        let own = (extent.min_created_on, extent.max_created_on);
        let (oldest, newest) = self.created_on.unwrap_or(own);
        (oldest.min(own.0), newest.max(own.1))
    }
}

fn chars(tag: &str) -> usize {
    tag.chars().count()
}

/// Puts the sources of a merge in the order in which their rows are written. That is the order of
/// their creation; unless no column ascends in it, and there is an order in which one does.
pub(super) fn write_order(mut sources: Vec<Extent>, schema: &TableSchema) -> Vec<Extent> {
    sources.sort_by_key(|extent| (extent.min_created_on, extent.max_created_on, extent.id));
    let columns = schema.columns().iter().map(|column| column.id);
    let ascending = columns.filter(|column| {
        let mut ranges = sources.iter().map(|extent| range(extent, *column));
        ranges.all(|range| range.is_some())
    });
    let ascending: Vec<ColumnId> = ascending.collect();
    if ascending.iter().any(|column| ascends(&sources, *column)) {
        return sources;
    }
    for column in ascending {
        let mut sorted = sources.clone();
        sorted.sort_by(|a, b| {
            let order = range(a, column).partial_cmp(&range(b, column));
            order.unwrap_or(Ordering::Equal)
        });
        if ascends(&sorted, column) {
            return sorted;
        }
    }
    sources
}

/// The least and the largest value of a column in which the rows of an extent ascend.
fn range(extent: &Extent, column: ColumnId) -> Option<(&StatisticValue, &StatisticValue)> {
    let column = extent.column(column)?;
    if column.sort_order != SortOrder::Ascending {
        return None;
    }
    column.min.as_ref().zip(column.max.as_ref())
}

/// Whether the rows of all extents, one after another, ascend in a column, and not only stand still.
fn ascends(extents: &[Extent], column: ColumnId) -> bool {
    let ranges = extents.iter().map(|extent| range(extent, column));
    let Some(ranges) = ranges.collect::<Option<Vec<_>>>() else {
        return false;
    };
    let is_moving = ranges
        .first()
        .zip(ranges.last())
        .is_some_and(|(first, last)| first.0 < last.1);
    is_moving && ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0)
}

#[cfg(test)]
mod tests;
