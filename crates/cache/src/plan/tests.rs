use proptest::prelude::*;

use super::*;

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
