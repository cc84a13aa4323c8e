use std::collections::BTreeMap;

use slipstream_model::{DatabaseId, Digest, ManualClock};

use super::*;

fn extent(number: u8) -> HotExtent {
    HotExtent {
        database: DatabaseId::default(),
        extent: ExtentId::from_slice(&[number; 16]).expect("16 bytes"),
        size_bytes: 1_000,
        sha256: Digest::of(&[number; 1_000]),
        max_created_on: Timestamp::from_micros(i64::from(number)),
    }
}

fn warmer(budget_bytes: u64, damaged: u8) -> (Warmer, Arc<AtomicU64>, tempfile::TempDir) {
    let clock = Arc::new(ManualClock::new(Timestamp::default()));
    warmer_at(clock, budget_bytes, damaged)
}

fn warmer_at(
    clock: Arc<ManualClock>,
    budget_bytes: u64,
    damaged: u8,
) -> (Warmer, Arc<AtomicU64>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let tier = HotTier::open(directory.path().to_owned(), "test").expect("usable");
    let fetches = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&fetches);
    let fetch: Fetch = Arc::new(move |extent: &HotExtent| {
        counted.fetch_add(1, Ordering::SeqCst);
        let number = extent.extent.as_bytes()[0];
        let byte = if number == damaged { 0xFF } else { number };
        let pieces = vec![byte; 1_000];
        let pieces = pieces
            .chunks(300)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)));
        stream::iter(pieces.collect::<Vec<_>>()).boxed()
    });
    let options = WarmerOptions {
        budget_bytes,
        bytes_per_second: None,
        encode: true,
    };
    let warmer = Warmer::new(Arc::new(tier), options, fetch, clock, Arc::default());
    (warmer, fetches, directory)
}

fn here(warmer: &Warmer) -> Vec<u8> {
    let resident: BTreeMap<_, _> = warmer.tier().resident();
    resident.keys().map(|id| id.as_bytes()[0]).collect()
}

#[tokio::test]
async fn the_tier_follows_what_is_hot() {
    let (warmer, fetches, _directory) = warmer(2_500, 0);
    let hot = vec![extent(1), extent(2), extent(3)];
    warmer.bring(hot, || false).await;
    assert_eq!(here(&warmer), [2, 3]);
    assert_eq!(warmer.last_plan().shortfall_bytes, 1_000);
    warmer.bring(vec![extent(3), extent(4)], || false).await;
    assert_eq!(here(&warmer), [3, 4]);
    let fetched = fetches.load(Ordering::SeqCst);
    assert_eq!(fetched, 3, "what is here is not fetched again");
    assert_eq!(warmer.progress().fetched_bytes, 3_000);
    warmer.bring(Vec::new(), || false).await;
    warmer.let_go();
    assert_eq!(here(&warmer), Vec::<u8>::new());
}

#[tokio::test]
async fn what_others_become_is_fetched_first_and_they_stay_until_it_is_here() {
    let clock = Arc::new(ManualClock::new(Timestamp::default()));
    let (warmer, _, _directory) = warmer_at(Arc::clone(&clock), 10_000, 3);
    warmer.bring(vec![extent(1), extent(2)], || false).await;
    // The two became one, which cannot be fetched; another is newer.
    warmer.note_replacements([extent(3).extent]);
    let hot = || vec![extent(3), extent(4)];
    warmer.bring(hot(), || false).await;
    let order: Vec<u8> = warmer
        .last_plan()
        .fetch
        .iter()
        .map(|extent| extent.extent.as_bytes()[0])
        .collect();
    assert_eq!(order, [3, 4]);
    warmer.let_go();
    assert_eq!(here(&warmer), [1, 2, 4], "the result is not here");
    // It is not wanted any more.
    warmer.bring(vec![extent(4)], || false).await;
    warmer.let_go();
    assert_eq!(here(&warmer), [4]);
}

#[tokio::test]
async fn one_damaged_extent_keeps_no_other_out() {
    let (warmer, _, _directory) = warmer(10_000, 2);
    let hot = vec![extent(1), extent(2), extent(3)];
    warmer.bring(hot, || false).await;
    assert_eq!(here(&warmer), [1, 3]);
    assert_eq!(warmer.progress().failures, 1);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_tried_again_ever_more_seldom() {
    let clock = Arc::new(ManualClock::new(Timestamp::default()));
    let (warmer, fetches, _directory) = warmer_at(Arc::clone(&clock), 10_000, 2);
    let second = Duration::from_secs(1);
    for _ in 0..600 {
        warmer.bring(vec![extent(2)], || false).await;
        clock.advance(second);
    }
    let tried = fetches.load(Ordering::SeqCst);
    assert!(
        (10..=25).contains(&tried),
        "tried {tried} times in ten minutes"
    );
    clock.advance(RETRY_MAX);
    assert!(warmer.is_retry_due());
    warmer.bring(Vec::new(), || false).await;
    assert!(
        !warmer.is_retry_due(),
        "what is not wanted any more is forgotten"
    );
}

#[tokio::test]
async fn who_asks_for_extents_does_not_wait_for_the_next_attempt() {
    let (warmer, fetches, _directory) = warmer(10_000, 2);
    for asked in 1..=3 {
        warmer.bring(vec![extent(2)], || false).await;
        warmer.bring(vec![extent(2)], || false).await;
        assert_eq!(fetches.load(Ordering::SeqCst), asked);
        warmer.prefer(HashSet::new());
    }
}

#[tokio::test]
async fn a_plan_that_is_outdated_fetches_little_more_but_something() {
    let (warmer, fetches, _directory) = warmer(100_000, 0);
    let hot: Vec<_> = (1..=20).map(extent).collect();
    warmer.bring(hot.clone(), || true).await;
    assert_eq!(fetches.load(Ordering::SeqCst), FETCHES as u64);
    warmer.encode(hot.clone(), || true).await;
    while here(&warmer).len() < hot.len() {
        warmer.bring(hot.clone(), || true).await;
    }
}

#[tokio::test]
async fn what_is_not_known_to_be_hot_stays_until_all_is_known() {
    let (warmer, _, _directory) = warmer(3_500, 0);
    let of_others = vec![extent(1), extent(2)];
    warmer.bring(of_others, || false).await;
    warmer
        .bring_part(vec![extent(3), extent(4)], || false)
        .await;
    warmer.let_go();
    assert_eq!(here(&warmer), [1, 2, 4]);
    warmer.bring(vec![extent(3), extent(4)], || false).await;
    warmer.let_go();
    assert_eq!(here(&warmer), [3, 4]);
}

#[tokio::test]
async fn what_is_not_parquet_stays_as_it_came_and_is_not_tried_again() {
    let (warmer, _, _directory) = warmer(10_000, 0);
    for _ in 0..2 {
        warmer.bring(vec![extent(1)], || false).await;
        warmer.encode(vec![extent(1)], || false).await;
        assert_eq!(warmer.tier().form(extent(1).extent), Some(Form::Parquet));
        assert_eq!(warmer.stays.lock().len(), 1);
    }
    warmer.encode(Vec::new(), || false).await;
    assert_eq!(warmer.stays.lock().len(), 0, "what is gone is forgotten");
}
