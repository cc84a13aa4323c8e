//! Spans of time.

use std::time::Duration;

/// Kusto counts time in ticks of 100 ns.
const TICKS_PER_SECOND: u128 = 10_000_000;
const TICKS_PER_DAY: u128 = 86_400 * TICKS_PER_SECOND;
/// A timespan is a signed 64-bit number of ticks.
const TICKS_MAX: u128 = i64::MAX as u128;
/// Digits behind the point that are looked at: more would not fit the arithmetic.
const FRACTION_DIGITS_MAX: usize = 18;

/// Reads a span: `7d`, `1.5h`, `10m`, `30s`, `100ms`, `10microseconds`, `1tick`, `3.00:00:00`,
/// `02:30:00`, `00:00:00.1`, or a number without a unit, which is in days. Parts of a tick are
/// dropped; a span that is negative or does not fit a Kusto timespan is none.
pub fn parse_timespan(text: &str) -> Option<Duration> {
    let text = text.trim();
    let ticks = if text.contains(':') {
        clock_ticks(text)?
    } else {
        let unit_at = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        decimal_ticks(number, unit_ticks(unit)?)?
    };
    if ticks > TICKS_MAX {
        return None;
    }
    let seconds = u64::try_from(ticks / TICKS_PER_SECOND).ok()?;
    let nanos = u32::try_from(ticks % TICKS_PER_SECOND * 100).ok()?;
    Some(Duration::new(seconds, nanos))
}

/// Writes a span as Kusto does: `3.00:00:00`, `02:30:00`, `00:00:00.1000000`. Parts of a tick
/// are dropped.
pub fn format_timespan(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, rest) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let mut text = format!("{hours:02}:{minutes:02}:{rest:02}");
    if days > 0 {
        text = format!("{days}.{text}");
    }
    match span.subsec_nanos() / 100 {
        0 => text,
        ticks => format!("{text}.{ticks:07}"),
    }
}

fn unit_ticks(unit: &str) -> Option<u128> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "d" | "day" | "days" => TICKS_PER_DAY,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600 * TICKS_PER_SECOND,
        "m" | "min" | "minute" | "minutes" => 60 * TICKS_PER_SECOND,
        "s" | "sec" | "second" | "seconds" => TICKS_PER_SECOND,
        "ms" | "milli" | "millis" | "millisec" | "millisecond" | "milliseconds" => 10_000,
        "micro" | "micros" | "microsec" | "microsecond" | "microseconds" => 10,
        "tick" | "ticks" => 1,
        _ => return None,
    })
}

/// `1.5` of a unit.
fn decimal_ticks(number: &str, unit_ticks: u128) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, digits(fraction, FRACTION_DIGITS_MAX)?),
        None => (number, (0, 1)),
    };
    let (whole, _) = digits(whole, FRACTION_DIGITS_MAX + 1)?;
    Some(whole * unit_ticks + fraction.0 * unit_ticks / fraction.1)
}

/// `[days.]hours:minutes[:seconds[.fraction]]`
fn clock_ticks(text: &str) -> Option<u128> {
    let (hours, rest) = text.split_once(':')?;
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "0"));
    let below = |text: &str, limit: u128| digits(text, 2).map(|n| n.0).filter(|n| *n < limit);
    let (days, _) = digits(days, 8)?;
    let minutes = below(hours, 24)? * 60 + below(minutes, 60)?;
    let seconds =
        decimal_ticks(seconds, TICKS_PER_SECOND).filter(|ticks| *ticks < 60 * TICKS_PER_SECOND)?;
    Some(days * TICKS_PER_DAY + minutes * 60 * TICKS_PER_SECOND + seconds)
}

/// A number of 1 to `max` digits, and the power of ten that is just above all such numbers.
fn digits(text: &str, max: usize) -> Option<(u128, u128)> {
    let is_number = (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        let power = u32::try_from(text.len()).ok()?;
        Some((text.parse().ok()?, 10u128.pow(power)))
    } else {
        None
    }
}
