use proptest::prelude::*;
use slipstream_model::DatabaseId;
use uuid::Uuid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> ExtentId {
    ExtentId::new(Uuid::from_u128(number.into()))
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_micros(0).plus(Duration::from_secs(second))
}

/// A removal at a version, made as many seconds after the beginning.
fn removal(version: u64, extents: &[u64]) -> Removal {
    let extents = extents.iter().map(|number| RemovedExtent {
        id: id(*number),
        size_bytes: 10,
    });
    Removal {
        version: Version::new(version),
        removed_at: at(version),
        table: "t".to_owned(),
        extents: extents.collect(),
    }
}

fn lease(lowest: u64) -> Lease {
    Lease {
        database: DatabaseId::default(),
        follower_cluster: "south".into(),
        configuration: "d".into(),
        node: Uuid::nil(),
        lowest_version: Version::new(lowest),
        current_version: Version::new(lowest + 5),
        renewed_at: at(0),
        expires_at: at(60),
    }
}

/// Nobody reads, and everything is over.
fn open() -> Rules {
    Rules {
        now: at(1_000),
        grace: 10 * SECOND,
        until_leases_are_known: Duration::ZERO,
        holders: Vec::new(),
    }
}

fn reading(leases: &[u64], queries: &[u64], pins: &[u64]) -> Rules {
    let versions = |numbers: &[u64]| {
        let versions = numbers.iter().map(|number| Version::new(*number));
        versions.collect::<Vec<_>>().into_iter()
    };
    let leases = leases.iter().map(|lowest| lease(*lowest));
    let pins = versions(pins).map(|version| ("report".to_owned(), version));
    Rules {
        holders: holders(leases, versions(queries), pins),
        ..open()
    }
}

fn reason(rules: &Rules, version: u64) -> Option<GarbageReason> {
    let blocker = rules.blocker(&removal(version, &[1]));
    blocker.map(|blocker| blocker.reason)
}

fn picked(removals: &[Removal], rules: &Rules, held: &[u64]) -> Vec<ExtentId> {
    let held: HashSet<_> = held.iter().map(|number| id(*number)).collect();
    let picked = pick(removals, rules, usize::MAX, |_| held).unwrap_or_default();
    picked.delete.iter().map(|one| one.extent.id).collect()
}

#[test]
fn the_grace_period_is_kept_to_its_end() {
    let rules = |now| Rules { now, ..open() };
    assert_eq!(reason(&rules(at(16)), 7), Some(GarbageReason::Grace));
    assert_eq!(reason(&rules(at(17)), 7), None);
    let blocker = rules(at(16)).blocker(&removal(7, &[1]));
    assert_eq!(blocker.and_then(|blocker| blocker.until), Some(at(17)));
}

#[test]
fn a_leader_that_does_not_know_yet_who_reads_deletes_nothing() {
    let rules = Rules {
        until_leases_are_known: SECOND,
        ..open()
    };
    assert_eq!(reason(&rules, 7), Some(GarbageReason::Restart));
    assert!(picked(&[removal(7, &[1])], &rules, &[]).is_empty());
}

#[test]
fn who_reads_a_version_before_the_removal_keeps_the_file() {
    // The removing version itself does not have the extent any more.
    assert_eq!(reason(&reading(&[7], &[], &[]), 7), None);
    assert_eq!(
        reason(&reading(&[6], &[], &[]), 7),
        Some(GarbageReason::Lease)
    );
    assert_eq!(
        reason(&reading(&[9], &[6], &[]), 7),
        Some(GarbageReason::Query)
    );
    assert_eq!(
        reason(&reading(&[9], &[9], &[1]), 7),
        Some(GarbageReason::Pin)
    );
    let blocker = reading(&[6, 3], &[5], &[]).blocker(&removal(7, &[1]));
    let blocker = blocker.expect("blocked");
    assert!(blocker.holder.starts_with("south/d node "), "{blocker:?}");
    assert_eq!(blocker.until, Some(at(60)));
}

#[test]
fn an_extent_that_moved_is_spared_until_it_left_the_other_table_too() {
    let moved = [removal(7, &[1, 2])];
    assert_eq!(picked(&moved, &open(), &[1]), [id(2)]);
    let left = [removal(7, &[1, 2]), removal(9, &[1])];
    assert_eq!(picked(&left, &reading(&[8], &[], &[]), &[]), [id(2)]);
    assert_eq!(picked(&left, &open(), &[]), [id(1), id(2)]);
}

#[test]
fn a_batch_ends_in_the_middle_of_a_dropped_table() {
    let removals = [removal(7, &[1, 2, 3]), removal(8, &[4])];
    let batch = pick(&removals, &open(), 2, |_| HashSet::new()).expect("a batch");
    let ids: Vec<_> = batch.delete.iter().map(|one| one.extent.id).collect();
    assert_eq!((ids, batch.through), (vec![id(1), id(2)], Version::new(7)));
    assert_eq!(pick(&[], &open(), 2, |_| HashSet::new()), None);
}

#[test]
fn blockers_are_summed_up_by_reason_and_holder() {
    let removals = [removal(7, &[1, 2, 3]), removal(9, &[4]), removal(995, &[5])];
    let rules = reading(&[8], &[], &[]);
    let sums = blockers("d", &removals, &rules, &[id(3)].into());
    let told: Vec<_> = sums
        .iter()
        .map(|sum| (sum.reason, sum.extents, sum.bytes, sum.oldest_version.get()))
        .collect();
    assert_eq!(
        told,
        [
            (GarbageReason::Grace, 1, 10, 995),
            (GarbageReason::Lease, 1, 10, 9),
            (GarbageReason::InTable, 1, 10, 7),
            (GarbageReason::Due, 2, 20, 7),
        ]
    );
}

/// Removals with versions that rise, of few extents, so that some are removed more than once.
fn some_removals() -> impl Strategy<Value = Vec<Removal>> {
    let one = (1_u64..4, prop::collection::vec(0_u64..12, 1..4));
    prop::collection::vec(one, 0..12).prop_map(|steps| {
        let mut version = 0;
        let removals = steps.into_iter().map(|(step, extents)| {
            version += step;
            removal(version, &extents)
        });
        removals.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// However batches are cut: what is deleted is what the rules allow, looked at one by one, and
    /// nothing that they allow is left.
    #[test]
    fn exactly_what_the_rules_allow_is_deleted(
        removals in some_removals(),
        now in 0_u64..50,
        grace in 0_u64..20,
        waits in prop::bool::weighted(0.1),
        readers in prop::collection::vec((0_u64..40, 0_usize..3), 0..3),
        held in prop::collection::hash_set(0_u64..12, 0..4),
        extents_max in 1_usize..5,
    ) {
        let of = |kind: usize| {
            let of_kind = readers.iter().filter(move |(_, found)| *found == kind);
            of_kind.map(|(version, _)| *version).collect::<Vec<_>>()
        };
        let rules = Rules {
            now: at(now),
            grace: Duration::from_secs(grace),
            until_leases_are_known: if waits { SECOND } else { Duration::ZERO },
            ..reading(&of(0), &of(1), &of(2))
        };
        let held: HashSet<ExtentId> = held.into_iter().map(id).collect();

        // Said once more, in other words: of all removals of an extent the last one decides.
        let may_go = |extent: ExtentId| {
            let names = |removal: &&Removal| removal.extents.iter().any(|one| one.id == extent);
            let Some(last) = removals.iter().rev().find(names) else {
                return false;
            };
            let removed = last.version.get();
            !held.contains(&extent)
                && !waits
                && now >= removed + grace
                && readers.iter().all(|(version, _)| *version >= removed)
        };

        let (mut left, mut deleted) = (removals.clone(), HashSet::new());
        while let Some(batch) = pick(&left, &rules, extents_max, |_| held.clone()) {
            let ids: HashSet<ExtentId> = batch.delete.iter().map(|one| one.extent.id).collect();
            prop_assert!(ids.len() <= extents_max);
            for extent in &ids {
                prop_assert!(may_go(*extent), "{extent:?} is deleted");
            }
            for removal in left.iter_mut().filter(|removal| removal.version <= batch.through) {
                let is_settled =
                    |id: ExtentId| ids.contains(&id) || batch.spared.contains(&id);
                removal.extents.retain(|extent| !is_settled(extent.id));
            }
            left.retain(|removal| !removal.extents.is_empty());
            deleted.extend(ids);
        }
        for extent in removals.iter().flat_map(|removal| &removal.extents) {
            prop_assert_eq!(deleted.contains(&extent.id), may_go(extent.id));
        }
    }
}
