//! Moments.

use std::ops::RangeInclusive;

use slipstream_model::Timestamp;

/// Microseconds of the years 1 to 9999: what a datetime can be.
const MICROS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Reads what stands between the parentheses of `datetime(...)`: a date, or a date and a time
/// with ` ` or `T` between. A time without a zone is in UTC. Parts of a microsecond are dropped, and
/// what is before year 1 or after year 9999 is none.
pub fn parse_datetime(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (text, "00:00:00"),
    };
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let clock = match clock.matches(':').count() {
        1 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    let moment: Timestamp = format!("{date}T{clock}{zone}").parse().ok()?;
    MICROS.contains(&moment.as_micros()).then_some(moment)
}
