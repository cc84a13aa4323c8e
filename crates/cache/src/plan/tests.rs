use std::cmp::Reverse;
use std::time::Duration;

use proptest::prelude::*;
use slipstream_model::{
    CachingPoliciesModificationKind, CachingPolicy, EffectiveCaching, HotWindow, LeaderCaching,
    Overrides,
};

use super::*;

const DAY_MICROS: i64 = 86_400_000_000;
/// Some moment in 2026: what drawn days are counted from.
const TODAY: i64 = 20_600 * DAY_MICROS;

fn extent(number: u64, size_bytes: u64, created: i64) -> HotExtent {
    HotExtent {
        database: DatabaseId::default(),
        extent: id(number),
        size_bytes,
        sha256: Digest::ZERO,
        max_created_on: Timestamp::from_micros(created),
    }
}

fn id(number: u64) -> ExtentId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ExtentId::from_slice(&bytes).expect("16 bytes")
}

fn kept(file_bytes: u64) -> Resident {
    Resident {
        file_bytes,
        sha256: Digest::ZERO,
    }
}

fn ids(extents: &[HotExtent]) -> Vec<ExtentId> {
    extents.iter().map(|extent| extent.extent).collect()
}

#[test]
fn a60_the_newest_are_kept_when_the_disk_is_too_small() {
    let hot = vec![extent(1, 10, 100), extent(2, 10, 300), extent(3, 10, 200)];
    let resident = [(id(1), kept(10))].into();
    let found = plan(hot, &resident, 25);
    assert_eq!(ids(&found.fetch), [id(2), id(3)], "the newest first");
    assert_eq!(found.evict, [id(1)]);
    assert_eq!((found.hot_bytes, found.shortfall_bytes), (30, 10));
}

#[test]
fn what_is_here_and_hot_stays_and_what_is_cold_goes() {
    let hot = vec![extent(1, 10, 100), extent(2, 10, 200)];
    let resident = [(id(1), kept(10)), (id(9), kept(10))].into();
    let found = plan(hot, &resident, 1_000);
    assert_eq!(ids(&found.fetch), [id(2)]);
    assert_eq!(found.evict, [id(9)]);
    assert_eq!(found.shortfall_bytes, 0);
}

#[test]
fn a_file_of_other_bytes_is_not_the_extent() {
    let other = Resident {
        file_bytes: 10,
        sha256: Digest::of(b"other"),
    };
    let found = plan(vec![extent(1, 10, 1)], &[(id(1), other)].into(), 100);
    assert_eq!((found.fetch.len(), found.evict), (1, vec![id(1)]));
}

#[test]
fn a_file_counts_as_what_it_takes_here() {
    let hot = vec![extent(1, 10, 100), extent(2, 10, 200)];
    let here = [(id(2), kept(15))].into();
    let found = plan(hot, &here, 24);
    assert_eq!((found.hot_bytes, found.shortfall_bytes), (25, 10));
    assert!(found.fetch.is_empty() && found.evict.is_empty());
}

#[test]
fn sources_stay_until_what_they_became_is_here_unless_there_is_no_room_for_both() {
    let hot = vec![extent(9, 30, 300)];
    let resident = [1, 2, 3].map(|number| (id(number), kept(10))).into();
    let room = |budget| plan(hot.clone(), &resident, budget).make_room(&resident, budget);
    assert_eq!(room(60), (vec![], vec![id(1), id(2), id(3)]));
    assert_eq!(room(45), (vec![id(1), id(2)], vec![id(3)]));
    assert_eq!(room(30), (vec![id(1), id(2), id(3)], vec![]));
    // A file of other bytes stands where the extent will.
    let other = Resident {
        file_bytes: 10,
        sha256: Digest::of(b"other"),
    };
    let resident = [(id(1), kept(10)), (id(9), other)].into();
    let found = plan(hot, &resident, 1_000);
    assert_eq!(
        found.make_room(&resident, 1_000),
        (vec![id(9)], vec![id(1)])
    );
}

proptest! {
    #[test]
    fn what_is_kept_fits_is_hot_and_nothing_newer_was_left_out(
        sizes in proptest::collection::vec((1_u64..100, 0_i64..50), 0..40),
        here in proptest::collection::vec(0_u64..60, 0..30),
        budget in 0_u64..1_500,
    ) {
        let hot: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(number, (size, created))| extent(number as u64, *size, *created))
            .collect();
        let size_of = |wanted: ExtentId| {
            hot.iter().find(|e| e.extent == wanted).map_or(7, |e| e.size_bytes)
        };
        let resident: BTreeMap<_, _> =
            here.iter().map(|n| (id(*n), kept(size_of(id(*n))))).collect();
        let found = plan(hot.clone(), &resident, budget);

        // What is on the disk once the plan was carried out.
        let mut after: BTreeMap<_, _> = resident.clone();
        for gone in &found.evict {
            prop_assert!(after.remove(gone).is_some(), "evicts what is not here");
        }
        for fetched in &found.fetch {
            prop_assert!(after.insert(fetched.extent, kept(fetched.size_bytes)).is_none(), "fetches twice");
        }
        prop_assert!(after.values().map(|here| here.file_bytes).sum::<u64>() <= budget);
        prop_assert!(after.keys().all(|kept| hot.iter().any(|e| e.extent == *kept)));
        let left_out: Vec<_> = hot.iter().filter(|e| !after.contains_key(&e.extent)).collect();
        let oldest_kept = hot
            .iter()
            .filter(|e| after.contains_key(&e.extent))
            .map(|e| (e.max_created_on, e.extent))
            .min();
        if let Some(oldest) = oldest_kept {
            prop_assert!(left_out.iter().all(|e| (e.max_created_on, e.extent) < oldest));
        }
        let total: u64 = hot.iter().map(|e| e.size_bytes).sum();
        prop_assert_eq!(found.hot_bytes, total);
        prop_assert_eq!(found.shortfall_bytes, left_out.iter().map(|e| e.size_bytes).sum::<u64>());
        // Nothing is left to do once it was done.
        let again = plan(hot, &after, budget);
        prop_assert!(again.fetch.is_empty() && again.evict.is_empty());
    }
}

/// Extents by number, with the size and the day of creation of each. Few days, so that many extents
/// are of one moment.
fn extents() -> impl Strategy<Value = Vec<HotExtent>> {
    let size = prop_oneof![8 => 0_u64..100, 1 => 0_u64..1 << 50];
    let drawn = prop::collection::vec((size, -400_i64..=400), 0..30);
    drawn.prop_map(|drawn| {
        let numbered = (0_u64..).zip(drawn);
        let made = numbered.map(|(number, (size_bytes, day))| {
            extent(number, size_bytes, TODAY + day * DAY_MICROS)
        });
        made.collect::<Vec<_>>()
    })
}

/// What stands on the disk: of some of those extents, and of others; as large as in the bucket or
/// not; made of other bytes now and then.
fn on_disk() -> impl Strategy<Value = BTreeMap<ExtentId, Resident>> {
    let file = (0_u64..120, prop::bool::weighted(0.9));
    let drawn = prop::collection::btree_map(0_u64..40, file, 0..30);
    drawn.prop_map(|drawn| {
        let files = drawn.into_iter().map(|(number, (file_bytes, is_it))| {
            let sha256 = if is_it {
                Digest::ZERO
            } else {
                Digest::of(b"other")
            };
            (id(number), Resident { file_bytes, sha256 })
        });
        files.collect::<BTreeMap<_, _>>()
    })
}

fn budget() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0_u64..2_000,
        1 => Just(0_u64),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

/// The plan as it is defined: an extent is kept when it fits together with all that are hot and
/// newer. Sums are wide enough for any sizes, and each is made anew.
fn plan_by_definition(
    hot: &BTreeMap<ExtentId, HotExtent>,
    resident: &BTreeMap<ExtentId, Resident>,
    budget_bytes: u64,
) -> Plan {
    let here = |extent: &HotExtent| {
        let here = resident.get(&extent.extent);
        here.filter(|here| here.sha256 == extent.sha256)
    };
    let bytes = |extent: &HotExtent| {
        let bytes = here(extent).map_or(extent.size_bytes, |here| here.file_bytes);
        u128::from(bytes)
    };
    let age = |extent: &HotExtent| Reverse((extent.max_created_on, extent.extent));
    let is_kept = |extent: &HotExtent| {
        let newer = hot.values().filter(|other| age(other) <= age(extent));
        newer.map(bytes).sum::<u128>() <= u128::from(budget_bytes)
    };
    let kept: Vec<&HotExtent> = hot.values().filter(|extent| is_kept(extent)).collect();
    let (staying, missing): (Vec<&HotExtent>, Vec<&HotExtent>) = kept
        .iter()
        .copied()
        .partition(|extent| here(extent).is_some());
    let stays = |id: &ExtentId| staying.iter().any(|extent| extent.extent == *id);
    let mut fetch: Vec<HotExtent> = missing.into_iter().cloned().collect();
    fetch.sort_by_key(age);
    let hot_bytes: u128 = hot.values().map(bytes).sum();
    let kept_bytes: u128 = kept.iter().map(|extent| bytes(extent)).sum();
    let narrow = |bytes: u128| u64::try_from(bytes).expect("thirty sizes below 2^50");
    Plan {
        fetch,
        evict: resident.keys().filter(|id| !stays(id)).copied().collect(),
        hot_bytes: narrow(hot_bytes),
        shortfall_bytes: narrow(hot_bytes - kept_bytes),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_plan_is_its_definition(
        all in extents(),
        picked in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        resident in on_disk(),
        budget in budget(),
    ) {
        // In any order, and twice when two configurations follow one database.
        let hot: Vec<HotExtent> = match all.as_slice() {
            [] => Vec::new(),
            all => picked.iter().map(|index| index.get(all).clone()).collect(),
        };
        let by_id: BTreeMap<_, _> =
            hot.iter().map(|extent| (extent.extent, extent.clone())).collect();
        let expected = plan_by_definition(&by_id, &resident, budget);
        prop_assert_eq!(plan(hot, &resident, budget), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn room_is_made_before_anything_comes_and_no_more_of_it_than_is_needed(
        hot in extents(),
        resident in on_disk(),
        budget in budget(),
    ) {
        let found = plan(hot, &resident, budget);
        let (first, later) = found.make_room(&resident, budget);
        let mut both: Vec<ExtentId> = first.iter().chain(&later).copied().collect();
        both.sort_unstable();
        prop_assert_eq!(&both, &found.evict);
        let is_fetched = |id: &ExtentId| found.fetch.iter().any(|extent| extent.extent == *id);
        prop_assert!(!later.iter().any(is_fetched), "it would be evicted once it is here");

        let file_bytes = |id: &ExtentId| u128::from(resident[id].file_bytes);
        let stays = resident.keys().filter(|id| !first.contains(id));
        let fetched = found.fetch.iter().map(|extent| u128::from(extent.size_bytes));
        let most: u128 = stays.map(file_bytes).chain(fetched).sum();
        prop_assert!(most <= u128::from(budget), "more than fits while it is fetched");
        if let Some(last) = first.iter().rfind(|id| !is_fetched(id)) {
            prop_assert!(most + file_bytes(last) > u128::from(budget), "it could have stayed");
        }
    }
}

/// A policy of days, as people write them.
fn policy() -> impl Strategy<Value = CachingPolicy> {
    let day = || -400_i64..=400;
    let windows = prop::collection::vec((day(), day()), 0..4);
    (0_u32..500, windows).prop_map(|(days, windows)| {
        let at = |day: i64| Timestamp::from_micros(TODAY + day * DAY_MICROS);
        let windows = windows.into_iter().map(|(min, max)| HotWindow {
            min: at(min),
            max: at(max),
        });
        CachingPolicy {
            hot_windows: windows.collect(),
            ..CachingPolicy::hot(Duration::from_secs(86_400) * days)
        }
    })
}

/// Today, up to a year off, or as far off as there are numbers for.
fn now() -> impl Strategy<Value = Timestamp> {
    let micros = prop_oneof![
        8 => (-365_i64..=365).prop_map(|days| TODAY + days * DAY_MICROS),
        1 => prop::sample::select(vec![i64::MIN, 0, i64::MAX]),
    ];
    micros.prop_map(Timestamp::from_micros)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_will_be_on_the_disk_is_what_the_policies_ask_for(
        all in extents(),
        leader in proptest::option::of(policy()),
        own in proptest::option::of(policy()),
        now in now(),
        budget in budget(),
    ) {
        let overrides = Overrides {
            caching_policy: own.clone(),
            caching_policies_modification_kind: CachingPoliciesModificationKind::Union,
            ..Overrides::default()
        };
        let of_leader = LeaderCaching { database: leader.as_ref(), table: None };
        let caching = EffectiveCaching::of_follower(of_leader, &overrides, "t");
        let hot: Vec<HotExtent> = all
            .iter()
            .filter(|extent| caching.is_hot(extent.max_created_on, now))
            .cloned()
            .collect();
        let found = plan(hot, &BTreeMap::new(), budget);

        // From the newest to the oldest, with pencil and paper.
        let mut by_age = all.clone();
        by_age.sort_by_key(|extent| Reverse((extent.max_created_on, extent.extent)));
        let (mut kept, mut left_out, mut used, mut is_full) = (Vec::new(), 0_u64, 0_u128, false);
        for extent in by_age {
            let created = i128::from(extent.max_created_on.as_micros());
            let is_hot = own.as_ref().or(leader.as_ref()).is_none_or(|policy| {
                let span = i128::try_from(policy.data_hot_span.as_micros()).expect("500 days");
                let is_young = span > 0 && i128::from(now.as_micros()) - created <= span;
                let is_within = |window: &HotWindow| {
                    i128::from(window.min.as_micros()) <= created
                        && created <= i128::from(window.max.as_micros())
                };
                is_young || policy.hot_windows.iter().any(is_within)
            });
            if !is_hot {
                continue;
            }
            is_full |= used + u128::from(extent.size_bytes) > u128::from(budget);
            if is_full {
                left_out += extent.size_bytes;
            } else {
                used += u128::from(extent.size_bytes);
                kept.push(extent);
            }
        }
        prop_assert_eq!(found.fetch, kept);
        prop_assert_eq!(found.shortfall_bytes, left_out);
        prop_assert_eq!(u128::from(found.hot_bytes), used + u128::from(left_out));
        prop_assert!(found.evict.is_empty());
    }
}
