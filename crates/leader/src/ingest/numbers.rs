//! Integers, decimals, dates and times, in the form in which most of them are written.
//!
//! `None` is no error here: Arrow's parsers know more forms, look for them first, and decide.

use chrono::{Datelike, NaiveDate};

/// So many digits fit an `i64`.
const DIGITS_MAX: usize = 18;
/// The first day of 1970, counted from the first day of the year 1, which is 1.
const EPOCH: i32 = 719_163;

/// Digits, and perhaps a minus before them.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    signed(text, |text| {
        let fits = (1..=DIGITS_MAX).contains(&text.len());
        fits.then(|| digits(0, text))?
    })
}

/// Digits with at most `scale` of them behind a point, and perhaps a minus before them, as a number of
/// units of that scale.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i64> {
    let scale = usize::try_from(scale).ok()?;
    let digits_max = DIGITS_MAX.min(usize::from(precision));
    signed(text, |text| {
        let point = text.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(point) => (&text[..point], &text[point + 1..]),
            None => (text, &text[text.len()..]),
        };
        if whole.is_empty() || fraction.len() > scale || whole.len() + scale > digits_max {
            return None;
        }
        let value = digits(digits(0, whole)?, fraction)?;
        Some((fraction.len()..scale).fold(value, |value, _| value * 10))
    })
}

/// Year, month and day with hyphens between them, as a number of days since 1970.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let text: &[u8; 10] = text.try_into().ok()?;
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let number = |text| digits(0, text).and_then(|number| u32::try_from(number).ok());
    let (year, month, day) = (
        number(&text[..4])?,
        number(&text[5..7])?,
        number(&text[8..])?,
    );
    let date = NaiveDate::from_ymd_opt(year as i32, month, day)?;
    Some(date.num_days_from_ce() - EPOCH)
}

/// A date, a `T` or a space, hours, minutes and seconds, perhaps a fraction, and perhaps a `Z`: seconds since 1970,
/// and nanoseconds behind them. It is a time of UTC, or of whatever a text without a zone is meant for.
pub(super) fn moment(text: &[u8]) -> Option<(i64, u32)> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (day, time) = text.split_at_checked(10)?;
    let (clock, fraction) = time.split_at_checked(9)?;
    let &[b'T' | b' ', ref hour @ .., b':', _, _, b':', _, _] = clock else {
        return None;
    };
    let number = |text| digits(0, text);
    let (hour, minute, second) = (number(hour)?, number(&clock[4..6])?, number(&clock[7..])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanoseconds = match fraction {
        [] => 0,
        [b'.', fraction @ ..] if (1..=9).contains(&fraction.len()) => {
            let value = u32::try_from(number(fraction)?).ok()?;
            (fraction.len()..9).fold(value, |value, _| value * 10)
        }
        _ => return None,
    };
    let seconds = (hour * 60 + minute) * 60 + second;
    Some((i64::from(date(day)?) * 86_400 + seconds, nanoseconds))
}

/// What is written behind a sign. Only a minus is taken.
fn signed(text: &[u8], unsigned: impl Fn(&[u8]) -> Option<i64>) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(text) => unsigned(text).map(|value| -value),
        None => unsigned(text),
    }
}

/// A number that goes on with these digits; there are at most [`DIGITS_MAX`] in all.
fn digits(before: i64, text: &[u8]) -> Option<i64> {
    text.iter().try_fold(before, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::timezone::Tz;
    use arrow::array::types::{Date32Type, Decimal128Type, Int64Type};
    use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
    use proptest::prelude::*;

    use super::*;

    /// What is taken is what Arrow says of it.
    fn check(text: &str, precision: u8, scale: i8) {
        let bytes = text.as_bytes();
        let known = integer(bytes);
        if known.is_some() {
            assert_eq!(known, Int64Type::parse(text), "{text:?}");
        }
        let decimal = decimal(bytes, precision, scale);
        if let Some(value) = decimal {
            let expected = parse_decimal::<Decimal128Type>(text, precision, scale).ok();
            assert_eq!(
                Some(i128::from(value)),
                expected,
                "{text:?} of ({precision}, {scale})"
            );
        }
        let date = date(bytes);
        if date.is_some() {
            assert_eq!(date, Date32Type::parse(text), "{text:?}");
        }
        let moment = moment(bytes);
        if moment.is_some() {
            let utc: Tz = "+00:00".parse().expect("a zone");
            let expected = string_to_datetime(&utc, text).ok();
            let expected = expected.map(|time| (time.timestamp(), time.timestamp_subsec_nanos()));
            assert_eq!(moment, expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_taken(value in -999_999_999_999_999_999_i64..=999_999_999_999_999_999) {
            let text = value.to_string();
            prop_assert!(integer(text.as_bytes()).is_some());
            check(&text, 18, 0);
        }

        #[test]
        fn decimals_are_taken(
            value in -99_999_999_i64..=99_999_999,
            fraction in "[0-9]{0,3}",
            precision in 11..=38_u8,
        ) {
            let text = format!("{value}.{fraction}");
            prop_assert!(decimal(text.as_bytes(), precision, 3).is_some());
            check(&text, precision, 3);
        }

        #[test]
        fn days_are_taken(days in -719_528..2_932_897_i32) {
            let day = Date32Type::to_naive_date_opt(days).expect("a day of the years 0 to 9999");
            let text = day.to_string();
            prop_assert!(date(text.as_bytes()).is_some());
            check(&text, 18, 0);
        }

        #[test]
        fn moments_are_taken(
            days in -719_528..2_932_897_i32,
            separator in "[T ]",
            clock in "(0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z?",
        ) {
            let day = Date32Type::to_naive_date_opt(days).expect("a day of the years 0 to 9999");
            let text = format!("{day}{separator}{clock}");
            prop_assert!(moment(text.as_bytes()).is_some());
            check(&text, 18, 0);
        }

        #[test]
        fn whatever_the_text_it_agrees_or_declines(
            text in prop_oneof![
                "[-+]?[0-9]{0,24}[.]?[0-9]{0,14}",
                "[-+0-9.eE]{0,22}",
                "[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-6:]{8}[.0-9+Z]{0,12})?",
                "\\PC{0,10}",
            ],
            precision in 1..=38_u8,
            scale in -3..=12_i8,
        ) {
            check(&text, precision, scale);
        }
    }
}
