use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use slipstream_model::{ColumnId, StatisticValue};

use super::*;
use crate::testing::{extent, extent_id, extents, schema};

fn set_of(numbers: impl IntoIterator<Item = u64>) -> ExtentSet {
    let mut set = ExtentSet::empty(schema());
    set.add(extents(numbers)).expect("new");
    set
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<ExtentId> {
    numbers.into_iter().map(extent_id).collect()
}

#[test]
fn an_extent_of_more_rows_than_can_be_summed_is_refused() {
    let mut one = extent(1);
    one.row_count = u64::MAX;
    let (culprit, reason) = check_extents(&schema(), &[extent(0), one]).expect_err("too many");
    assert_eq!(culprit, extent_id(1));
    assert!(reason.contains(&u64::MAX.to_string()), "{reason}");
}

/// A set holds exactly these extents, whichever way one asks.
fn assert_holds(set: &ExtentSet, expected: &BTreeMap<ExtentId, Extent>) {
    let listed: BTreeMap<_, _> = set.iter().map(|extent| (extent.id, extent)).collect();
    assert_eq!(&listed, expected);
    let in_blocks: BTreeMap<_, _> = set
        .blocks()
        .iter()
        .flat_map(|block| {
            block
                .live_slots()
                .map(|slot| (block.id(slot), block.extent(slot)))
        })
        .collect();
    assert_eq!(&in_blocks, expected);
    for block in set.blocks() {
        for slot in block.live_slots() {
            let extent = block.extent(slot);
            let created = (block.min_created_on(slot), block.max_created_on(slot));
            assert_eq!(created, (extent.min_created_on, extent.max_created_on));
            assert_eq!(block.size_bytes(slot), extent.size_bytes);
            assert_eq!(block.original_bytes(slot), extent.original_bytes);
            assert_eq!(block.tags(slot), extent.tags);
        }
    }
    let live: usize = set.blocks().iter().map(ExtentBlock::live_count).sum();
    assert_eq!(live, expected.len());
    let sum = |of: fn(&Extent) -> u64| expected.values().map(of).sum::<u64>();
    assert_eq!(set.len(), expected.len() as u64);
    assert_eq!(set.row_count(), sum(|extent| extent.row_count));
    assert_eq!(set.size_bytes(), sum(|extent| extent.size_bytes));
    assert_eq!(set.original_bytes(), sum(|extent| extent.original_bytes));
    assert!(set.tail().len() < SEGMENT_EXTENTS);
}

#[test]
fn full_segments_are_sealed_and_the_rest_stays_in_the_tail() {
    let set = set_of(0..2_500);
    let lengths: Vec<_> = set.blocks().iter().map(ExtentBlock::len).collect();
    assert_eq!(lengths, [1024, 1024, 452]);
    assert_holds(
        &set,
        &extents(0..2_500).into_iter().map(|e| (e.id, e)).collect(),
    );
}

#[test]
fn an_older_version_keeps_what_a_newer_one_removed() {
    let before = set_of(0..2_000);
    let mut after = before.clone();
    after.remove(&ids([5, 1_500])).expect("there");
    assert_eq!((before.len(), after.len()), (2_000, 1_998));
    assert_eq!(before.get(extent_id(5)), Some(extent(5)));
    assert_eq!(after.get(extent_id(5)), None);
    assert!(before.blocks()[0].is_live(5));
    assert!(!after.blocks()[0].is_live(5));
    assert!(!after.blocks()[0].is_live(4_000), "there is no such slot");
}

#[test]
fn a_segment_of_holes_is_dissolved_and_an_empty_one_is_gone() {
    let mut set = set_of(0..3_000);
    set.remove(&ids(0..1_024)).expect("there");
    assert_eq!(set.blocks().len(), 2, "the first segment is gone");
    set.remove(&ids(1_024..1_024 + 800)).expect("there");
    assert_eq!(
        set.sealed()
            .iter()
            .filter(|block| block.live_count() < block.len())
            .count(),
        0
    );
    assert_holds(
        &set,
        &extents(1_824..3_000)
            .into_iter()
            .map(|e| (e.id, e))
            .collect(),
    );
}

#[test]
fn adding_twice_and_removing_what_is_not_there_is_refused_without_a_trace() {
    let mut set = set_of(0..1_100);
    let before: Vec<_> = set.iter().collect();
    assert_eq!(set.add(extents([2_000, 3])), Err(extent_id(3)), "sealed");
    assert_eq!(
        set.add(extents([1_050])),
        Err(extent_id(1_050)),
        "in the tail"
    );
    assert_eq!(
        set.add(extents([4_000, 4_000])),
        Err(extent_id(4_000)),
        "twice at once"
    );
    assert_eq!(set.remove(&ids([7, 9_999])), Err(extent_id(9_999)));
    assert_eq!(set.iter().collect::<Vec<_>>(), before);

    set.remove(&ids([3])).expect("there");
    assert_eq!(set.remove(&ids([3])), Err(extent_id(3)));
    set.add(extents([3])).expect("gone before, so new again");
}

#[test]
fn a_summary_covers_the_live_extents_only() {
    let mut set = set_of(0..1_024);
    let summary = |set: &ExtentSet, id| set.blocks()[0].summary(ColumnId(id));
    let at = summary(&set, 1).expect("present");
    assert_eq!(at.min, Some(StatisticValue::Int(0)));
    assert_eq!(at.max, Some(StatisticValue::Int(10_239)));
    assert_eq!((at.row_count, at.null_count), (10_240, 0));
    assert!(at.bounds_exact && at.all_present);

    set.remove(&ids((0..100).chain(1_000..1_024)))
        .expect("there");
    let at = summary(&set, 1).expect("present");
    assert_eq!(at.min, Some(StatisticValue::Int(1_000)));
    assert_eq!(at.max, Some(StatisticValue::Int(9_999)));
    assert_eq!(at.row_count, 9_000);

    let origin = summary(&set, 2).expect("present");
    assert_eq!(origin.min, Some(StatisticValue::Text("EWR".into())));
    assert_eq!(origin.null_count, 900);
    let route = summary(&set, 3).expect("present");
    assert_eq!(
        (route.min, route.max, route.bounds_exact),
        (None, None, false)
    );
    assert_eq!(summary(&set, 9), None);
}

#[test]
fn a_summary_does_not_claim_a_bound_that_one_extent_lacks() {
    let without_max = |number| {
        let mut extent = extent(number);
        let mut columns = extent.columns.to_vec();
        columns[1].max = None;
        columns[1].bounds_exact = false;
        extent.columns = columns.into();
        extent
    };
    let without_column = |number| {
        let mut extent = extent(number);
        extent.columns = extent.columns[..1].into();
        extent
    };
    let mut set = ExtentSet::empty(schema());
    set.add(vec![extent(1), without_max(2), without_column(3)])
        .expect("new");
    let origin = set.blocks()[0].summary(ColumnId(2)).expect("present");
    assert_eq!(origin.min, Some(StatisticValue::Text("EWR".into())));
    assert_eq!(origin.max, None);
    assert!(!origin.bounds_exact && !origin.all_present);
    assert_eq!((origin.row_count, origin.null_count), (20, 2));

    set.remove(&ids([2, 3])).expect("there");
    let origin = set.blocks()[0].summary(ColumnId(2)).expect("present");
    assert_eq!(origin.max, Some(StatisticValue::Text("LGA".into())));
    assert!(origin.bounds_exact && origin.all_present);
}

#[test]
fn columns_have_the_type_of_their_values() {
    let set = set_of(0..3);
    let block = &set.blocks()[0];
    let column = |id| block.column(ColumnId(id)).expect("present");
    assert_eq!(
        column(1).min.data_type(),
        schema().columns()[0].field.data_type()
    );
    assert_eq!(column(2).min.data_type(), &DataType::Utf8);
    assert_eq!(column(3).min.data_type(), &DataType::Null);
    assert_eq!(column(3).min.len(), 3);
    assert_eq!(column(1).ascending.count_set_bits(), 3);
    assert_eq!(column(2).null_count.values().to_vec(), [1, 1, 1]);
}

#[test]
fn extents_that_contradict_themselves_or_the_table_are_refused() {
    let check = |change: &dyn Fn(&mut Extent)| {
        let mut bad = extent(1);
        change(&mut bad);
        check_extents(&schema(), &[extent(0), bad, extent(2)])
            .map_err(|(id, reason)| {
                assert_eq!(id, extent_id(1), "{reason}");
            })
            .is_err()
    };
    let column = |extent: &mut Extent, change: &dyn Fn(&mut slipstream_model::ColumnStatistics)| {
        let mut columns = extent.columns.to_vec();
        change(&mut columns[0]);
        extent.columns = columns.into();
    };
    assert!(!check(&|_| {}));
    assert!(check(&|e| column(e, &|c| c.null_count = 11)));
    assert!(check(
        &|e| column(e, &|c| c.min = Some(StatisticValue::Text("x".into())))
    ));
    assert!(check(
        &|e| column(e, &|c| c.min = Some(StatisticValue::Int(1_000)))
    ));
    assert!(
        check(&|e| column(e, &|c| c.id = ColumnId(2))),
        "one column twice"
    );
    assert!(check(&|e| {
        let mut columns = e.columns.to_vec();
        columns[2].id = ColumnId(77);
        e.columns = columns.into();
    }));
    assert!(check(
        &|e| e.max_created_on = slipstream_model::Timestamp::from_micros(-1)
    ));
}

#[test]
fn a_tag_is_found_while_an_extent_has_it() {
    let full = SEGMENT_EXTENTS as u64;
    let tagged = |number| slipstream_model::Extent {
        tags: [format!("ingest-by:{number}"), "drop-by:x".to_owned()].into(),
        ..extent(number)
    };
    let mut set = ExtentSet::empty(schema());
    set.add((0..full + 9).map(tagged).collect()).expect("new");
    let has = |set: &ExtentSet, number: u64| set.has_tag(&format!("ingest-by:{number}"));
    for number in [0, 7, full - 1, full, full + 8] {
        assert!(has(&set, number), "{number}");
    }
    assert!(set.has_tag("drop-by:x"));
    for absent in ["ingest-by:", "ingest-by:00", "INGEST-BY:0", "drop-by:", ""] {
        assert!(!set.has_tag(absent), "{absent}");
    }
    set.remove(&ids([7, full + 8])).expect("there");
    assert!(!has(&set, 7) && !has(&set, full + 8), "it left");
    assert!(has(&set, 8) && has(&set, full), "its neighbours did not");
}

#[test]
fn what_stands_in_the_log_stays_in_the_tail_until_it_leaves() {
    let inline = |number| slipstream_model::Extent {
        size_bytes: 4,
        inline: Some(bytes::Bytes::from_static(b"PAR1")),
        ..extent(number)
    };
    let mut set = ExtentSet::empty(schema());
    set.add((0..3).map(inline).collect()).expect("new");
    set.add(extents(3..1_030)).expect("new");
    assert_eq!((set.sealed().len(), set.tail().len()), (1, 6));
    assert_eq!((set.inline().extents, set.inline().size_bytes), (3, 12));
    assert_eq!(set.get(extent_id(1)), Some(inline(1)));
    let sealed = &set.sealed()[0];
    assert!(
        sealed
            .live_slots()
            .all(|slot| sealed.inline(slot).is_none())
    );
    let stored = set.without_inline();
    assert_eq!((set.len(), set.inline().extents), (1_030, 3), "as it was");
    set.remove(&ids(0..3)).expect("there");
    for set in [set, stored] {
        assert_eq!(set.inline(), InlineTotals::default());
        assert_eq!((set.len(), set.tail().len()), (1_027, 3));
        assert_eq!(set.iter().count(), 1_027);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64),
    Remove { from: u64, count: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..1_500_u64).prop_map(Step::Add),
        1 => (0..6_000_u64, 1..1_500_u64).prop_map(|(from, count)| Step::Remove { from, count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_set_is_what_was_added_and_not_removed(steps in proptest::collection::vec(step(), 1..12)) {
        let mut set = ExtentSet::empty(schema());
        let mut expected = BTreeMap::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Add(count) => {
                    set.add(extents(next..next + count)).expect("new");
                    expected.extend(extents(next..next + count).into_iter().map(|e| (e.id, e)));
                    next += count;
                }
                Step::Remove { from, count } => {
                    let gone: Vec<_> = ids(from..from + count)
                        .into_iter()
                        .filter(|id| expected.remove(id).is_some())
                        .collect();
                    set.remove(&gone).expect("there");
                }
            }
            assert_holds(&set, &expected);
        }
    }
}
