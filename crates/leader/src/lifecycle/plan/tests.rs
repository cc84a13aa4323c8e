use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use slipstream_model::{ColumnStatistics, Digest};
use slipstream_storage::EXTENT_ROWS_MAX;
use uuid::Uuid;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
/// Rows of the small extents below.
const ROWS: u64 = 100;

fn id(number: u64) -> ExtentId {
    ExtentId::new(Uuid::from_u128(number.into()))
}

fn at(minute: u32) -> Timestamp {
    Timestamp::from_micros(0).plus(Duration::from_secs(60) * minute)
}

fn extent(number: u64, row_count: u64) -> Candidate {
    let minute = u32::try_from(number).expect("small");
    Candidate {
        id: id(number),
        row_count,
        original_bytes: row_count * 20,
        size_bytes: row_count * 10,
        min_created_on: at(minute),
        max_created_on: at(minute),
        tags: BTreeSet::new(),
    }
}

fn tagged(number: u64, tags: &[&str]) -> Candidate {
    Candidate {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..extent(number, ROWS)
    }
}

fn bounds() -> Bounds {
    Bounds::of(&MergePolicy::default(), EXTENT_ROWS_MAX)
}

fn ids(numbers: &[u64]) -> Vec<ExtentId> {
    numbers.iter().map(|number| id(*number)).collect()
}

/// What extents become, as the catalog will know it.
fn merged(sources: &[Candidate], number: u64) -> Candidate {
    let sum = |of: fn(&Candidate) -> u64| sources.iter().map(of).sum();
    let oldest = sources.iter().map(|extent| extent.min_created_on).min();
    let newest = sources.iter().map(|extent| extent.max_created_on).max();
    Candidate {
        id: id(number),
        row_count: sum(|extent| extent.row_count),
        original_bytes: sum(|extent| extent.original_bytes),
        size_bytes: sum(|extent| extent.size_bytes),
        min_created_on: oldest.expect("two sources"),
        max_created_on: newest.expect("two sources"),
        tags: sources.iter().flat_map(|e| e.tags.clone()).collect(),
    }
}

/// A table in which merges are carried out as soon as they are planned.
#[derive(Default)]
struct Table {
    extents: Vec<Candidate>,
    /// How often the rows of an extent were written, the first time not counted.
    rewrites: HashMap<ExtentId, u32>,
    next_id: u64,
}

impl Table {
    fn add(&mut self, extent: Candidate) {
        self.next_id = self.next_id.max(1 << 32) + 1;
        self.extents.push(extent);
    }

    /// Whether there was something to merge.
    fn merge(&mut self, bounds: &Bounds) -> bool {
        let groups = plan(self.extents.clone(), bounds);
        for group in &groups {
            let group: BTreeSet<ExtentId> = group.iter().copied().collect();
            let (sources, rest): (Vec<_>, Vec<_>) = self
                .extents
                .drain(..)
                .partition(|extent| group.contains(&extent.id));
            self.extents = rest;
            self.next_id += 1;
            let result = merged(&sources, self.next_id);
            let before = sources.iter().map(|extent| self.rewrites.get(&extent.id));
            let before = before.map(|times| times.copied().unwrap_or(0)).max();
            self.rewrites.insert(result.id, before.unwrap_or(0) + 1);
            self.extents.push(result);
        }
        !groups.is_empty()
    }

    fn merge_all(&mut self, bounds: &Bounds) {
        let rounds_max = self.extents.len();
        let mut rounds = 0;
        while self.merge(bounds) {
            rounds += 1;
            assert!(rounds <= rounds_max, "each merge leaves fewer extents");
        }
    }

    fn rows(&self) -> u64 {
        self.extents.iter().map(|extent| extent.row_count).sum()
    }
}

#[test]
fn small_neighbours_become_one_and_one_alone_stays() {
    let candidates = vec![extent(3, 10), extent(1, 30), extent(2, 20)];
    assert_eq!(plan(candidates, &bounds()), [ids(&[1, 2, 3])]);
    assert!(plan(vec![extent(1, 10)], &bounds()).is_empty());
    assert!(plan(Vec::new(), &bounds()).is_empty());
}

#[test]
fn a_large_extent_stays_and_parts_its_neighbours() {
    let large = EXTENT_ROWS_MAX / 2 + 1;
    let rows = [10, 10, large, 10, 10];
    let candidates = (1..).zip(rows).map(|(number, rows)| extent(number, rows));
    let groups = plan(candidates.collect(), &bounds());
    assert_eq!(groups, [ids(&[1, 2]), ids(&[4, 5])]);
}

#[test]
fn rows_are_not_written_anew_for_few_others() {
    let rows = [1_000, 10, 10, 10];
    let candidates = (1..).zip(rows).map(|(number, rows)| extent(number, rows));
    let groups = plan(candidates.collect(), &bounds());
    assert_eq!(groups, [ids(&[2, 3, 4])], "the first has most of the rows");
    let pair = vec![extent(1, 11), extent(2, 10)];
    assert!(plan(pair, &bounds()).is_empty());
}

#[test]
fn fences_are_kept_and_other_tags_do_not_matter() {
    let candidates = vec![
        tagged(1, &["drop-by:a"]),
        tagged(2, &["drop-by:b", "x"]),
        tagged(3, &["drop-by:a", "ingest-by:1"]),
        tagged(4, &["drop-by:a", "drop-by:b"]),
        tagged(5, &["drop-by:b"]),
        tagged(6, &["x"]),
        tagged(7, &[]),
    ];
    let mut groups = plan(candidates, &bounds());
    groups.sort();
    assert_eq!(groups, [ids(&[1, 3]), ids(&[2, 5]), ids(&[6, 7])]);
}

#[test]
fn tags_that_are_too_long_together_keep_extents_apart() {
    let long = |letter: &str| letter.repeat(TAG_CHARS_MAX / 2 + 1);
    let (a, b) = (long("a"), long("b"));
    let pair = |first: &str, second: &str| vec![tagged(1, &[first]), tagged(2, &[second])];
    assert!(plan(pair(&a, &b), &bounds()).is_empty());
    assert_eq!(plan(pair(&a, &a), &bounds()).len(), 1, "one tag once");
}

#[test]
fn the_policy_bounds_a_group() {
    let candidates = || -> Vec<Candidate> {
        let numbers = 1..=9;
        numbers.map(|number| extent(number * 60, ROWS)).collect()
    };
    let sizes = |policy: MergePolicy| -> Vec<usize> {
        let groups = plan(candidates(), &Bounds::of(&policy, EXTENT_ROWS_MAX));
        groups.iter().map(Vec::len).collect()
    };
    let default = MergePolicy::default();
    assert_eq!(sizes(default), [9]);
    let cases = [
        MergePolicy {
            max_extents_to_merge: 4,
            ..default
        },
        MergePolicy {
            row_count_upper_bound_for_merge: 4 * ROWS,
            ..default
        },
        MergePolicy {
            max_range_in_hours: 3,
            ..default
        },
    ];
    for policy in cases {
        assert_eq!(sizes(policy), [4, 4], "{policy:?}");
    }
    let nothing = MergePolicy {
        max_extents_to_merge: 1,
        ..default
    };
    assert!(sizes(nothing).is_empty());
}

#[test]
fn ten_thousand_small_ingests_end_as_few_extents() {
    let mut at_once = Table::default();
    for number in 0..10_000 {
        let mut extent = extent(number, ROWS);
        // One every second.
        let created = Timestamp::from_micros(0).plus(Duration::from_secs(number));
        (extent.min_created_on, extent.max_created_on) = (created, created);
        at_once.add(extent);
    }
    let mut over_time = Table::default();
    for (number, extent) in at_once.extents.iter().enumerate() {
        over_time.add(extent.clone());
        if number % 60 == 59 {
            over_time.merge(&bounds());
        }
    }
    for (table, rewrites_max) in [(&mut at_once, 2), (&mut over_time, 9)] {
        table.merge_all(&bounds());
        assert_eq!(table.rows(), 10_000 * ROWS);
        let extents = table.extents.len();
        assert!(extents <= 20, "{extents} extents");
        let rewrites = table.rewrites.values().max().copied();
        assert!(rewrites <= Some(rewrites_max), "{rewrites:?}");
    }
}

/// Mostly small extents, of few moments; some large, some wide.
fn candidate() -> impl Strategy<Value = Candidate> {
    let rows = prop_oneof![
        8 => 0_u64..1_000,
        2 => 0_u64..=EXTENT_ROWS_MAX,
        1 => any::<u64>(),
    ];
    let bytes = || prop_oneof![8 => 0_u64..1 << 20, 1 => 0_u64..4 << 30, 1 => any::<u64>()];
    let tags = ["drop-by:a", "drop-by:b", "ingest-by:1", "x"];
    let tags = prop::sample::subsequence(tags.to_vec(), 0..=4);
    let minutes = (
        0_u32..3_000,
        prop_oneof![5 => Just(0_u32), 1 => 0_u32..3_000],
    );
    (rows, bytes(), bytes(), minutes, tags).prop_map(
        |(row_count, original_bytes, size_bytes, (minute, minutes), tags)| Candidate {
            id: id(0),
            row_count,
            original_bytes,
            size_bytes,
            min_created_on: at(minute),
            max_created_on: at(minute + minutes),
            tags: tags.into_iter().map(str::to_owned).collect(),
        },
    )
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(candidate(), 0..60).prop_map(|drawn| {
        let numbered = (1..).zip(drawn);
        let numbered = numbered.map(|(number, extent)| Candidate {
            id: id(number),
            ..extent
        });
        numbered.collect::<Vec<_>>()
    })
}

fn policy() -> impl Strategy<Value = MergePolicy> {
    let rows = prop_oneof![4 => Just(16_000_000_u64), 1 => any::<u64>(), 1 => 0_u64..2_000];
    let megabytes = prop_oneof![4 => Just(30_000_u64), 1 => any::<u64>(), 1 => 0_u64..10];
    (rows, megabytes, 0_u32..120, 0_u32..60).prop_map(|(rows, megabytes, extents, hours)| {
        MergePolicy {
            row_count_upper_bound_for_merge: rows,
            original_size_mb_upper_bound_for_merge: megabytes,
            max_extents_to_merge: extents,
            max_range_in_hours: hours,
            ..MergePolicy::default()
        }
    })
}

/// Sums that no drawn number overflows.
fn sum(extents: &[&Candidate], of: fn(&Candidate) -> u64) -> u128 {
    extents.iter().map(|extent| u128::from(of(extent))).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn groups_are_neighbours_within_the_bounds_and_none_is_in_two(
        all in candidates(),
        policy in policy(),
    ) {
        let bounds = Bounds::of(&policy, EXTENT_ROWS_MAX);
        let groups = plan(all.clone(), &bounds);
        let mut seen = BTreeSet::new();
        for group in &groups {
            prop_assert!((2..=bounds.extents).contains(&group.len()));
            let members: Vec<&Candidate> = group
                .iter()
                .map(|id| all.iter().find(|extent| extent.id == *id).expect("one of them"))
                .collect();
            for member in &members {
                prop_assert!(seen.insert(member.id), "in two groups");
                prop_assert_eq!(member.fences(), members[0].fences());
            }
            let rows = sum(&members, |extent| extent.row_count);
            prop_assert!(rows <= u128::from(policy.row_count_upper_bound_for_merge));
            prop_assert!(rows <= u128::from(EXTENT_ROWS_MAX));
            let original = sum(&members, |extent| extent.original_bytes);
            prop_assert!(original <= u128::from(bounds.original_bytes));
            let size = sum(&members, |extent| extent.size_bytes);
            prop_assert!(size <= EXTENT_BYTES_MAX as u128);
            let oldest = members.iter().map(|extent| extent.min_created_on).min();
            let newest = members.iter().map(|extent| extent.max_created_on).max();
            let (oldest, newest) = oldest.zip(newest).expect("two of them");
            prop_assert!(newest.since(oldest) <= HOUR * policy.max_range_in_hours);
            let largest = members.iter().map(|extent| extent.row_count).max().expect("two");
            prop_assert!(u128::from(largest) * 2 <= rows, "too much is written anew");

            // In the order of creation nothing else of the same fences stands between them.
            let mut order: Vec<&Candidate> = all
                .iter()
                .filter(|extent| extent.fences() == members[0].fences())
                .collect();
            order.sort_by_key(|e| (e.min_created_on, e.max_created_on, e.id));
            let order: Vec<ExtentId> = order.iter().map(|extent| extent.id).collect();
            let first = order.iter().position(|id| *id == group[0]).expect("there");
            prop_assert_eq!(&order[first..first + group.len()], &group[..]);
        }
    }

    #[test]
    fn merging_comes_to_an_end_and_loses_nothing(all in candidates(), policy in policy()) {
        let bounds = Bounds::of(&policy, EXTENT_ROWS_MAX);
        let mut table = Table::default();
        for extent in all {
            table.add(extent);
        }
        let total = |table: &Table| {
            let all: Vec<&Candidate> = table.extents.iter().collect();
            (sum(&all, |extent| extent.row_count), sum(&all, |extent| extent.size_bytes))
        };
        let before = total(&table);
        table.merge_all(&bounds);
        prop_assert_eq!(total(&table), before);
        prop_assert!(!table.merge(&bounds), "what is merged is not merged for ever");
    }

    #[test]
    fn no_row_is_written_more_than_twenty_times(
        sizes in prop::collection::vec(1_u64..5_000, 1..400),
        pause in 1_usize..20,
    ) {
        let mut table = Table::default();
        for (number, rows) in (0..).zip(sizes) {
            table.add(extent(number, rows));
            if usize::try_from(number).expect("small") % pause == 0 {
                table.merge(&bounds());
            }
        }
        table.merge_all(&bounds());
        prop_assert!(table.rewrites.values().all(|times| *times <= 20));
    }
}

fn schema() -> TableSchema {
    let field = |name| Field::new(name, DataType::Int64, true);
    TableSchema::new(&Schema::new(vec![field("a"), field("b")])).expect("valid")
}

/// An extent whose two columns have these bounds, and ascend where they have any.
fn stored(number: u64, bounds: [Option<(i64, i64)>; 2]) -> Extent {
    let column = |(number, bounds): (u32, Option<(i64, i64)>)| ColumnStatistics {
        id: ColumnId(number),
        null_count: 0,
        min: bounds.map(|(min, _)| StatisticValue::Int(min)),
        max: bounds.map(|(_, max)| StatisticValue::Int(max)),
        bounds_exact: true,
        sort_order: match bounds {
            Some(_) => SortOrder::Ascending,
            None => SortOrder::Unknown,
        },
    };
    let of = extent(number, ROWS);
    Extent {
        id: of.id,
        row_count: of.row_count,
        size_bytes: of.size_bytes,
        original_bytes: of.original_bytes,
        sha256: Digest::ZERO,
        footer_bytes: 100,
        min_created_on: of.min_created_on,
        max_created_on: of.max_created_on,
        tags: of.tags,
        inline: None,
        columns: (1..).zip(bounds).map(column).collect(),
    }
}

fn written(sources: Vec<Extent>) -> Vec<ExtentId> {
    let order = write_order(sources, &schema());
    order.iter().map(|extent| extent.id).collect()
}

#[test]
fn rows_are_written_in_the_order_of_creation() {
    let nothing = [None, None];
    let sources = vec![stored(3, nothing), stored(1, nothing), stored(2, nothing)];
    assert_eq!(written(sources), ids(&[1, 2, 3]));
    // A column ascends in that order, though another one would in another.
    let sources = vec![
        stored(2, [Some((0, 9)), Some((5, 7))]),
        stored(1, [Some((10, 19)), Some((1, 5))]),
    ];
    assert_eq!(written(sources), ids(&[1, 2]));
}

#[test]
fn rows_are_written_in_the_order_of_a_column_that_ascends_in_no_other() {
    let of = |number, a| stored(number, [Some(a), Some((7, 7))]);
    let sources = || vec![of(1, (20, 29)), of(2, (0, 9)), of(3, (9, 20))];
    assert_eq!(written(sources()), ids(&[2, 3, 1]));
    // Where they overlap there is no such order.
    let mut overlapping = sources();
    overlapping.push(of(4, (0, 29)));
    assert_eq!(written(overlapping), ids(&[1, 2, 3, 4]));
    // Nor where one of them does not hold the column, or not in order.
    let mut unordered = sources();
    unordered.push(stored(4, [None, Some((7, 7))]));
    assert_eq!(written(unordered), ids(&[1, 2, 3, 4]));
}
