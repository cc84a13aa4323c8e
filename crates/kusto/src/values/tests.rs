use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_span_is_read_in_all_its_forms() {
    let seconds = Duration::from_secs;
    for (text, span) in [
        ("7d", seconds(7 * 86_400)),
        ("1.5h", seconds(5_400)),
        ("10m", seconds(600)),
        ("30s", seconds(30)),
        ("100ms", Duration::from_millis(100)),
        ("1tick", Duration::from_nanos(100)),
        ("3.00:00:00", seconds(3 * 86_400)),
        ("02:30:00", seconds(9_000)),
        ("00:00:00.1", Duration::from_millis(100)),
        ("0", Duration::ZERO),
        ("2", seconds(2 * 86_400)),
    ] {
        assert_eq!(parse_timespan(text), Some(span), "{text}");
    }
    for text in [
        "",
        "d",
        "-1d",
        "7parsecs",
        "25:00:00",
        "1:2:3:4",
        "99999999999999d",
    ] {
        assert_eq!(parse_timespan(text), None, "{text}");
    }
}

#[test]
fn a_moment_is_a_date_or_a_date_and_a_time() {
    for (text, expected) in [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31 10:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00.500000Z"),
    ] {
        let found = parse_datetime(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(found, expected.parse().expect("RFC 3339"), "{text}");
    }
    for text in ["tomorrow", "9999-12-31T23:59:59-01:00", "0000-12-31"] {
        assert_eq!(parse_datetime(text), None, "{text}");
    }
}

#[test]
fn a_type_has_many_names() {
    for kind in ColumnType::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(kind.dotnet().parse(), Ok(kind));
    }
    for (name, kind) in [
        ("INT64", ColumnType::Long),
        ("double", ColumnType::Real),
        ("uuid", ColumnType::Guid),
        ("date", ColumnType::DateTime),
    ] {
        assert_eq!(name.parse(), Ok(kind), "{name}");
    }
    assert!("varchar".parse::<ColumnType>().is_err());
}

proptest! {
    #[test]
    fn a_span_survives_being_written(ticks in 0_u64..i64::MAX as u64) {
        let span = Duration::new(ticks / 10_000_000, u32::try_from(ticks % 10_000_000).expect("small") * 100);
        prop_assert_eq!(parse_timespan(&format_timespan(span)), Some(span));
    }
}
