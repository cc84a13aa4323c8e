use proptest::prelude::*;

use super::*;
use crate::HotWindow;

const DAY: Duration = Duration::from_secs(86_400);
const DAY_MICROS: i64 = 86_400_000_000;
/// Some moment in 2026: what drawn days are counted from.
const TODAY: i64 = 20_600 * DAY_MICROS;

fn days(days: u32) -> CachingPolicy {
    CachingPolicy::hot(DAY * days)
}

fn overrides(
    kind: CachingPoliciesModificationKind,
    database: Option<u32>,
    table: Option<u32>,
) -> Overrides {
    Overrides {
        caching_policy: database.map(days),
        table_caching_policies: table
            .map(|t| ("t".to_owned(), days(t)))
            .into_iter()
            .collect(),
        caching_policies_modification_kind: kind,
        ..Overrides::default()
    }
}

#[test]
fn a26_a27_overrides_combine_as_the_kind_says() {
    use CachingPoliciesModificationKind::{None as Leader, Replace, Union};
    use CachingSource as S;
    let (of_database, of_table) = (days(10), days(20));
    // Leader's database and table policy, kind, overrides, what holds.
    let cases = [
        (
            true,
            true,
            Leader,
            Some(1),
            Some(2),
            (Some(20), S::LeaderTable),
        ),
        (
            true,
            false,
            Leader,
            Some(1),
            Some(2),
            (Some(10), S::LeaderDatabase),
        ),
        (
            true,
            true,
            Union,
            Some(1),
            Some(2),
            (Some(2), S::TableOverride),
        ),
        (true, true, Union, Some(1), None, (Some(20), S::LeaderTable)),
        (
            true,
            false,
            Union,
            Some(1),
            None,
            (Some(1), S::DatabaseOverride),
        ),
        (
            true,
            false,
            Union,
            None,
            None,
            (Some(10), S::LeaderDatabase),
        ),
        (
            true,
            true,
            Replace,
            Some(1),
            None,
            (Some(1), S::DatabaseOverride),
        ),
        (
            true,
            true,
            Replace,
            Some(0),
            None,
            (Some(0), S::DatabaseOverride),
        ),
        (true, true, Replace, None, None, (None, S::Nothing)),
        (false, false, Union, None, None, (None, S::Nothing)),
    ];
    for (has_database, has_table, kind, database, table, (expected, source)) in cases {
        let leader = LeaderCaching {
            database: has_database.then_some(&of_database),
            table: has_table.then_some(&of_table),
        };
        let found = EffectiveCaching::of_follower(leader, &overrides(kind, database, table), "t");
        let wanted = EffectiveCaching {
            policy: expected.map(days),
            source,
        };
        assert_eq!(
            found, wanted,
            "{has_database} {has_table} {kind} {database:?} {table:?}"
        );
    }
}

#[test]
fn an_extent_is_hot_by_its_creation_time() {
    let at = |day: i64| Timestamp::from_micros(day * 86_400_000_000);
    let policy = CachingPolicy {
        hot_windows: vec![HotWindow {
            min: at(10),
            max: at(11),
        }],
        ..days(3)
    };
    let now = at(100);
    for (created, expected) in [(100, true), (97, true), (96, false), (10, true), (9, false)] {
        assert_eq!(policy.is_hot(at(created), now), expected, "day {created}");
    }
    // Created after the newest commit that is known: new, not cold.
    assert!(policy.is_hot(at(101), now));
    assert!(
        !CachingPolicy::hot(Duration::ZERO).is_hot(now, now),
        "0d: nothing is hot"
    );
}

/// Mostly days, up to two years off, so that several fall together; now and then any moment that
/// there is.
fn moment() -> impl Strategy<Value = Timestamp> {
    let micros = prop_oneof![
        8 => (-800_i64..=800).prop_map(|days| TODAY + days * DAY_MICROS),
        2 => (-800 * DAY_MICROS..=800 * DAY_MICROS).prop_map(|off| TODAY + off),
        1 => prop::sample::select(vec![i64::MIN, -1, 0, i64::MAX]),
        1 => any::<i64>(),
    ];
    micros.prop_map(Timestamp::from_micros)
}

/// None, parts of a microsecond, days, the longest of Kusto, the longest that there is.
fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0_u32..800).prop_map(|days| DAY * days),
        1 => prop::sample::select(vec![
            Duration::ZERO,
            Duration::from_nanos(100),
            Duration::from_micros(1),
            Duration::new(922_337_203_685, 477_580_700),
            Duration::MAX,
        ]),
    ]
}

/// Windows that overlap, are the same, are a single moment, or end before they begin.
fn windows() -> impl Strategy<Value = Vec<HotWindow>> {
    let window = (moment(), moment()).prop_map(|(min, max)| HotWindow { min, max });
    prop::collection::vec(window, 0..6)
}

fn policy() -> impl Strategy<Value = CachingPolicy> {
    (span(), span(), windows()).prop_map(|(data_hot_span, index_hot_span, hot_windows)| {
        CachingPolicy {
            data_hot_span,
            index_hot_span,
            hot_windows,
        }
    })
}

fn kind() -> impl Strategy<Value = CachingPoliciesModificationKind> {
    use CachingPoliciesModificationKind::{None, Replace, Union};
    prop::sample::select(vec![None, Union, Replace])
}

/// *Caching policy*: created within the span before now, which is not nothing, or within a window,
/// its ends included. In numbers that no sum here overflows.
fn is_hot_by_definition(policy: &CachingPolicy, created: Timestamp, now: Timestamp) -> bool {
    let micros = |at: Timestamp| i128::from(at.as_micros());
    let span_nanos = policy.data_hot_span.as_nanos();
    let oldest_nanos = micros(now) * 1_000 - i128::try_from(span_nanos).expect("96 bits");
    let mut is_hot = span_nanos > 0 && micros(created) * 1_000 >= oldest_nanos;
    for window in &policy.hot_windows {
        is_hot |= micros(window.min) <= micros(created) && micros(created) <= micros(window.max);
    }
    is_hot
}

/// The moments where a policy may change its mind, and those right beside them.
fn edges(policy: &CachingPolicy, now: Timestamp) -> Vec<Timestamp> {
    let span = i64::try_from(policy.data_hot_span.as_micros()).unwrap_or(i64::MAX);
    let mut edges = vec![now.as_micros(), now.as_micros().saturating_sub(span)];
    for window in &policy.hot_windows {
        edges.extend([window.min.as_micros(), window.max.as_micros()]);
    }
    let beside = |edge: i64| [edge.saturating_sub(1), edge, edge.saturating_add(1)];
    let edges = edges.into_iter().flat_map(beside);
    edges.map(Timestamp::from_micros).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_hot_is_what_the_definition_says(
        policy in policy(),
        created in prop::collection::vec(moment(), 0..20),
        now in moment(),
    ) {
        for created in created.into_iter().chain(edges(&policy, now)) {
            prop_assert_eq!(
                policy.is_hot(created, now),
                is_hot_by_definition(&policy, created, now),
                "created at {}, now {}", created, now
            );
        }
    }

    #[test]
    fn a_clock_that_runs_ahead_takes_away_and_gives_nothing(
        policy in policy(),
        created in prop::collection::vec(moment(), 1..20),
        now in moment(),
        ahead in span(),
    ) {
        let later = now.plus(ahead);
        for created in created.into_iter().chain(edges(&policy, later)) {
            let (before, after) = (policy.is_hot(created, now), policy.is_hot(created, later));
            prop_assert!(before || !after, "created at {}, now {}, then {}", created, now, later);
        }
    }

    #[test]
    fn the_policy_that_holds_is_the_first_that_the_kind_asks(
        kind in kind(),
        leader_database in proptest::option::of(policy()),
        leader_table in proptest::option::of(policy()),
        own_database in proptest::option::of(policy()),
        own_table in proptest::option::of(policy()),
        created in moment(),
        now in moment(),
    ) {
        use CachingPoliciesModificationKind as Kind;
        let mut overrides = Overrides {
            caching_policy: own_database.clone(),
            caching_policies_modification_kind: kind,
            ..Overrides::default()
        };
        // Another table's policy is nobody else's.
        overrides.table_caching_policies.insert("u".to_owned(), days(1));
        if let Some(own) = &own_table {
            overrides.table_caching_policies.insert("t".to_owned(), own.clone());
        }
        let leader = LeaderCaching {
            database: leader_database.as_ref(),
            table: leader_table.as_ref(),
        };
        let found = EffectiveCaching::of_follower(leader, &overrides, "t");
        let expected = match kind {
            Kind::None => leader_table.or(leader_database),
            Kind::Replace => own_table.or(own_database),
            Kind::Union => own_table.or(leader_table).or(own_database).or(leader_database),
        };
        prop_assert_eq!(&found.policy, &expected);
        prop_assert_eq!(found.source == CachingSource::Nothing, expected.is_none());
        let is_hot = match &expected {
            None => true,
            Some(policy) => is_hot_by_definition(policy, created, now),
        };
        prop_assert_eq!(found.is_hot(created, now), is_hot);
    }
}
