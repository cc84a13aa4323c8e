//! Durations as ISO 8601 writes them: `P31D`, `PT12H`, `P1DT30M`. Years and months have no fixed
//! length and are refused.

use std::time::Duration;

use crate::ServiceError;

/// A hundred thousand years: beyond any data, and far from overflowing.
const DAYS_MAX: u64 = 36_500_000;

/// Reads a duration.
///
/// # Errors
/// When it is none.
pub(super) fn parse(text: &str) -> Result<Duration, ServiceError> {
    read(text).ok_or_else(|| {
        ServiceError::invalid(format!("'{text}' is no duration such as P31D or PT12H"))
    })
}

fn read(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix('P')?;
    let (days, times) = rest.split_once('T').unwrap_or((rest, ""));
    if rest.is_empty() || rest.ends_with('T') {
        return None;
    }
    let days = match days {
        "" => 0,
        days => days.strip_suffix('D')?.parse::<u64>().ok()?,
    };
    if days > DAYS_MAX {
        return None;
    }
    let mut total = Duration::from_secs(days * 86_400);
    let mut left = times;
    for (unit, seconds) in [('H', 3_600), ('M', 60), ('S', 1)] {
        if let Some((number, after)) = left.split_once(unit) {
            let number = u32::try_from(number.parse::<u64>().ok()?).ok()?;
            total = total.checked_add(Duration::from_secs(seconds).checked_mul(number)?)?;
            left = after;
        }
    }
    left.is_empty().then_some(total)
}

/// Writes a duration, to the second.
pub(super) fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let parts = [(rest / 3_600, 'H'), (rest / 60 % 60, 'M'), (rest % 60, 'S')];
    let times: String = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    match (days, times.as_str()) {
        (days, "") => format!("P{days}D"),
        (0, times) => format!("PT{times}"),
        (days, times) => format!("P{days}DT{times}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (text, seconds) in [
            ("P31D", 31 * 86_400),
            ("PT12H", 43_200),
            ("P1DT2H3M4S", 93_784),
            ("P0D", 0),
        ] {
            let duration = parse(text).expect("a duration");
            assert_eq!(duration.as_secs(), seconds, "{text}");
            assert_eq!(format(duration), text);
        }
        for text in [
            "",
            "P",
            "PT",
            "31D",
            "P1Y",
            "P-1D",
            "PT1D",
            "P99999999999D",
            "P1DT5X",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
