use slipstream_model::MergePolicy;

use super::super::scenario::{Bucket, DISK_BYTES, Faults, Outages, Policies, Prices, Queries};
use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn follower(name: &str, hot: Option<Duration>, disk_bytes: u64) -> Follower {
    Follower {
        name: name.to_owned(),
        hot,
        disk_bytes,
    }
}

/// Two days after ten others, with a follower that keeps all.
fn scenario() -> Scenario {
    Scenario {
        followers: vec![follower("all", None, DISK_BYTES)],
        duration: HOUR * 48,
        history: HOUR * 240,
        ingest: Ingest {
            rows: 100.0,
            every: Duration::from_secs(60),
            ..Ingest::default()
        },
        queries: Queries::default(),
        policies: Policies::default(),
        faults: Faults::default(),
        bucket: Bucket::default(),
        prices: Prices::default(),
        seed: 1,
    }
}

fn outcome(scenario: &Scenario) -> Outcome {
    run(scenario, |_| {})
}

#[test]
fn a_seed_gives_the_same_outcome_and_another_another() {
    let mut scenario = scenario();
    scenario.faults = "harsh".parse().expect("faults");
    let first = outcome(&scenario);
    assert_eq!(first, outcome(&scenario));
    scenario.seed = 2;
    assert_ne!(first, outcome(&scenario));
}

#[test]
fn nothing_fails_and_everyone_is_up_to_date() {
    let found = outcome(&scenario());
    assert_eq!(found.commits, 48 * 60 + found.merges);
    let lag = found.followers[0].lag_ms;
    assert!(lag.max < 2.5, "the leader says it: {lag:?}");
    assert_eq!(found.requests.get_for_probes, 0);
    assert!((found.followers[0].hit_percent - 100.0).abs() < 1e-9);
    let bucket = scenario().bucket;
    let least = 2.0 * bucket.p50.as_secs_f64() * 1e3;
    let p50 = found.acknowledged_ms.p50;
    assert!(p50 > least * 0.9 && p50 < least * 2.0, "two puts: {p50}");
}

#[test]
fn rows_come_in_as_said_and_more_by_day_than_by_night() {
    let scenario = scenario();
    let found = outcome(&scenario);
    // Two whole days: the swing cancels out.
    let expected = 100 * 48 * 3_600;
    assert!(
        found.rows.abs_diff(expected) < expected / 1_000,
        "{}",
        found.rows
    );
    let hour = |hour: i64| START.plus(Duration::from_secs(hour as u64 * 3_600));
    let rows = |from| rows_of(&scenario.ingest, hour(from), hour(from + 1));
    assert!(rows(13) > rows(1) * 2, "{} {}", rows(13), rows(1));
}

#[test]
fn merging_leaves_few_extents_and_none_is_lost() {
    let mut scenario = scenario();
    let merged = outcome(&scenario);
    scenario.policies.merge = MergePolicy {
        allow_rebuild: false,
        allow_merge: false,
        ..MergePolicy::default()
    };
    let unmerged = outcome(&scenario);
    assert_eq!(unmerged.merges, 0);
    assert_eq!(unmerged.garbage_bytes, 0);
    let history = (100 * 240 * 3_600_u64).div_ceil(EXTENT_ROWS_MAX);
    assert_eq!(unmerged.extents, history + 48 * 60);
    // Extents are more than half full, or on their way there.
    let rows = 100 * 48 * 3_600_u64;
    let most = history + 2 * rows / EXTENT_ROWS_MAX + 60;
    assert!(
        (history..most).contains(&merged.extents),
        "{}",
        merged.extents
    );
    // Rounding to whole bytes is all that may differ.
    assert!(merged.stored_bytes.abs_diff(unmerged.stored_bytes) < 10_000);
}

#[test]
fn a_follower_that_is_cut_off_lags_as_long_as_that_and_finds_the_log_when_its_leader_is_silent() {
    let outages = |hours: u32, minutes: u64| Outages {
        between: HOUR * hours,
        lasts: Duration::from_secs(60 * minutes),
    };
    let mut scenario = scenario();
    scenario.faults.cut = Some(outages(12, 60));
    let found = outcome(&scenario);
    let lag = found.followers[0].lag_ms;
    assert!(lag.max > 60_000.0 && lag.p50 < 2.5, "{lag:?}");
    assert!(found.outages["all: cut off"] > 0);

    scenario.faults = Faults {
        silent: Some(outages(12, 60)),
        ..Faults::default()
    };
    let found = outcome(&scenario);
    let lag = found.followers[0].lag_ms;
    assert!(lag.max < 5_000.0, "the bucket tells it: {lag:?}");
    assert!(found.requests.get_for_probes > 0);
}

#[test]
fn what_is_acknowledged_waits_for_a_leader_that_is_down() {
    let mut scenario = scenario();
    scenario.faults = "leader=6h/10m".parse().expect("faults");
    let found = outcome(&scenario);
    assert!(
        found.acknowledged_ms.max > 60_000.0,
        "{:?}",
        found.acknowledged_ms
    );
    assert_eq!(
        found.rows,
        outcome(&self::scenario()).rows,
        "no row is lost"
    );
}

#[test]
fn a_shorter_span_costs_disk_less_and_hits_less() {
    let mut scenario = scenario();
    // All of it fits, and little of what is cold.
    let disk = 5_000_000_000;
    scenario.followers = vec![
        follower("short", Some(HOUR * 6), disk),
        follower("long", Some(HOUR * 24 * 8), disk),
        follower("all", None, disk),
    ];
    let found = outcome(&scenario).followers;
    let hot: Vec<_> = found.iter().map(|follower| follower.hot_bytes).collect();
    assert!(hot[0] < hot[1] && hot[1] < hot[2], "{hot:?}");
    assert!(found[0].hit_percent < found[1].hit_percent);
    assert!(
        (found[1].hit_percent - 100.0).abs() < 1e-9,
        "all questions look back a week"
    );
    // A hundred rows of 40 bytes a second.
    let expected = 6.0 * 3_600.0 * 4_000.0;
    let ratio = hot[0] as f64 / expected;
    assert!((0.4..2.5).contains(&ratio), "{ratio}");
}

#[test]
fn more_disk_never_hits_less_and_too_little_is_told() {
    let mut scenario = scenario();
    let disks = [1, 5, 10, 20, 50].map(|part| part * 100_000_000);
    scenario.followers = disks
        .iter()
        .map(|disk| follower(&disk.to_string(), None, *disk))
        .collect();
    let found = outcome(&scenario).followers;
    let hits: Vec<_> = found.iter().map(|follower| follower.hit_percent).collect();
    assert!(
        hits.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9),
        "{hits:?}"
    );
    assert!(found[0].shortfall_bytes > 0 && found[0].hit_percent < 100.0);
    assert_eq!(found[4].shortfall_bytes, 0);
    for follower in &found {
        let fits = follower.hot_bytes - follower.shortfall_bytes;
        assert!(fits as f64 <= follower.disk_bytes as f64 * HOT_SHARE);
    }
}

#[test]
fn retention_takes_out_what_is_old_and_grace_keeps_its_files() {
    let mut scenario = scenario();
    scenario.policies = Policies::of(&["retention=5d".parse().expect("a policy")]);
    let found = outcome(&scenario);
    let per_day = 100.0 * 86_400.0 * 40.0;
    let days = found.stored_bytes as f64 / per_day;
    assert!((4.5..5.6).contains(&days), "{days}");
    assert!(found.garbage_bytes as f64 > per_day);
    assert_eq!(found.requests.delete, 0, "no grace is over after two days");
}

#[test]
fn costs_are_what_requests_and_bytes_cost() {
    let mut scenario = scenario();
    scenario.prices.machine = 0.1;
    scenario.duration = Duration::from_secs((HOURS_OF_A_MONTH * 3_600.0) as u64);
    scenario.history = Duration::ZERO;
    let found = outcome(&scenario);
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-6;
    let requests = &found.requests;
    let by_kind: u64 = requests.named().iter().map(|(_, count)| count).sum();
    assert_eq!(by_kind, requests.put() + requests.get() + requests.delete);
    assert!(near(
        found.cost.put,
        requests.put() as f64 * 0.005 / 1_000.0
    ));
    assert!(near(
        found.cost.get,
        requests.get() as f64 * 0.000_4 / 1_000.0
    ));
    assert!(near(found.cost.machines, 2.0 * 0.1 * HOURS_OF_A_MONTH));
    // Between nothing and all of it.
    let all = (found.stored_bytes + found.garbage_bytes) as f64 / 1e9 * scenario.prices.storage;
    assert!(found.cost.storage > 0.0 && found.cost.storage < all * 1.01);
}
