use serde_json::json;

use super::*;
use crate::{CachingPolicy, LeaderCaching};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_json_is_kustos() {
    let json = json!({
        "RowCountUpperBoundForMerge": 16_000_000,
        "OriginalSizeMBUpperBoundForMerge": 30_000,
        "MaxExtentsToMerge": 100,
        "MaxRangeInHours": 24,
        "AllowRebuild": true,
        "AllowMerge": true,
        "Lookback": {"Kind": "Default", "CustomPeriod": null},
    });
    let default = MergePolicy::default();
    assert_eq!(serde_json::to_value(default).expect("JSON"), json);
    assert_eq!(
        serde_json::from_value::<MergePolicy>(json).expect("read"),
        default
    );
}

#[test]
fn what_is_not_said_is_the_default_and_what_is_not_known_is_refused() {
    let read = serde_json::from_value::<MergePolicy>;
    let policy = read(json!({"MaxRangeInHours": 8})).expect("read");
    let expected = MergePolicy {
        max_range_in_hours: 8,
        ..MergePolicy::default()
    };
    assert_eq!(policy, expected);
    assert_eq!(policy.max_range(), HOUR * 8);
    for wrong in [
        json!({"MaxRange": 8}),
        json!({"MaxRangeInHours": -1}),
        json!({"Lookback": {"Kind": "Forever"}}),
        json!({"Lookback": {"Kind": "Custom"}}),
        json!({"Lookback": {"Kind": "Custom", "CustomPeriod": "soon"}}),
        json!({"Lookback": {"Kind": "Custom", "CustomPeriod": "1.24:00"}}),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_period_is_read_as_it_is_written() {
    for (text, period) in [
        ("30.00:00", DAY * 30),
        ("1.02:03:04", DAY + HOUR * 2 + Duration::from_secs(184)),
        ("12:00", HOUR * 12),
        ("0.00:00:00", Duration::ZERO),
    ] {
        let lookback = MergeLookback::Custom(period);
        let json = json!({"Kind": "Custom", "CustomPeriod": text});
        assert_eq!(
            serde_json::from_value::<MergeLookback>(json).expect("read"),
            lookback
        );
        let written = serde_json::to_value(lookback).expect("JSON");
        let again = serde_json::from_value::<MergeLookback>(written);
        assert_eq!(again.expect("read"), lookback);
    }
}

#[test]
fn a_table_beats_its_database_and_that_the_default() {
    let hours = |max_range_in_hours| MergePolicy {
        max_range_in_hours,
        ..MergePolicy::default()
    };
    let effective = MergePolicy::effective;
    assert_eq!(effective(Some(hours(1)), Some(hours(2))), hours(1));
    assert_eq!(effective(None, Some(hours(2))), hours(2));
    assert_eq!(effective(None, None), hours(24));
}

#[test]
fn nothing_is_merged_when_neither_operation_is_allowed() {
    for (allow_rebuild, allow_merge) in [(true, true), (true, false), (false, true), (false, false)]
    {
        let policy = MergePolicy {
            allow_rebuild,
            allow_merge,
            ..MergePolicy::default()
        };
        assert_eq!(policy.allows_merging(), allow_rebuild || allow_merge);
    }
}

#[test]
fn the_lookback_goes_by_the_newest_source() {
    let now = Timestamp::from_micros(0).plus(DAY * 100);
    let hot = CachingPolicy::hot(DAY * 3);
    let caching = EffectiveCaching::of_leader(LeaderCaching {
        database: Some(&hot),
        table: None,
    });
    // Lookback, the oldest day that it reaches, and the day before.
    for (lookback, oldest, too_old) in [
        (MergeLookback::Default, 87, Some(86)),
        (MergeLookback::All, 0, None),
        (MergeLookback::HotCache, 97, Some(96)),
        (MergeLookback::Custom(DAY * 2), 99, Some(98)),
    ] {
        let reaches = |day: u32| {
            let created = Timestamp::from_micros(0).plus(DAY * day);
            lookback.reaches(created, now, &caching)
        };
        assert!(reaches(oldest) && reaches(101), "{lookback:?}");
        assert!(!too_old.is_some_and(reaches), "{lookback:?}");
    }
}
