//! The flags of what a leader does by itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use slipstream_frontend::settings::parse_duration;

/// How often small extents are looked for when nothing is said: rows that come in every second then
/// stand in sixty extents before they stand in one, which no query notices.
const MERGE_INTERVAL: Duration = Duration::from_secs(60);
/// Merges at one time when nothing is said: the other cores are for ingests and queries.
const MERGES: usize = 1;
/// How often extents are looked for whose time is over when nothing is said. The policy promises no
/// more than that rows are kept as long (*Retention policy*, Kusto documentation).
const RETENTION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LifecycleArgs {
    /// How often small extents are looked for, to make large ones of them, such as 30s; 0: never
    /// [default: 1m].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_MERGE_INTERVAL", value_parser = parse_duration)]
    pub merge_interval: Option<Duration>,

    /// How many merges run at once; each takes a core and up to a gigabyte of memory [default: 1].
    #[arg(long, value_name = "N", env = "SLIPSTREAM_MERGE_CONCURRENCY")]
    pub merge_concurrency: Option<usize>,

    /// How often extents are removed that are older than the retention policy keeps them, such as
    /// 1h; 0: never [default: 5m].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_RETENTION_INTERVAL", value_parser = parse_duration)]
    pub retention_interval: Option<Duration>,
}

/// The settings, all decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// How often merges are planned; `None`: never.
    pub merge_interval: Option<Duration>,
    /// Merges at one time.
    pub merges_max: usize,
    /// How often extents are removed; `None`: never.
    pub retention_interval: Option<Duration>,
}

impl LifecycleArgs {
    /// The keys of a settings file.
    pub const KEYS: [&str; 3] = ["merge-interval", "merge-concurrency", "retention-interval"];

    /// Layers flags over a file over defaults.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn resolve(&self, file: &toml::Table) -> anyhow::Result<LifecycleSettings> {
        let [merge, concurrency, retention] = Self::KEYS;
        let merges_max = match self.merge_concurrency {
            Some(merges) => merges,
            None => count(file, concurrency)?.unwrap_or(MERGES),
        };
        ensure!(
            merges_max > 0,
            "{concurrency}: at least 1 is needed; {merge} = 0 turns merging off"
        );
        Ok(LifecycleSettings {
            merge_interval: interval(self.merge_interval, file, merge, MERGE_INTERVAL)?,
            merges_max,
            retention_interval: interval(
                self.retention_interval,
                file,
                retention,
                RETENTION_INTERVAL,
            )?,
        })
    }
}

fn count(file: &toml::Table, key: &str) -> anyhow::Result<Option<usize>> {
    let Some(value) = file.get(key) else {
        return Ok(None);
    };
    let count = value.as_integer().and_then(|n| usize::try_from(n).ok());
    Ok(Some(count.with_context(|| format!("{key} is no number"))?))
}

/// None at all when it is zero.
fn interval(
    flag: Option<Duration>,
    file: &toml::Table,
    key: &str,
    default: Duration,
) -> anyhow::Result<Option<Duration>> {
    let interval = match (flag, file.get(key)) {
        (Some(flag), _) => flag,
        (None, None) => default,
        (None, Some(toml::Value::Integer(0))) => Duration::ZERO,
        (None, Some(value)) => {
            let text = value.as_str();
            let text = text.with_context(|| format!("{key} is no duration such as \"30s\""))?;
            parse_duration(text).with_context(|| key.to_owned())?
        }
    };
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> toml::Table {
        text.parse().expect("TOML")
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let args = LifecycleArgs {
            merge_interval: Some(Duration::from_secs(5)),
            ..LifecycleArgs::default()
        };
        let file = file("merge-interval = '1h'\nmerge-concurrency = 3");
        let settings = args.resolve(&file).expect("sensible");
        let expected = LifecycleSettings {
            merge_interval: Some(Duration::from_secs(5)),
            merges_max: 3,
            retention_interval: Some(RETENTION_INTERVAL),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn zero_turns_off() {
        let file = file("merge-interval = 0\nretention-interval = '0'");
        let settings = LifecycleArgs::default().resolve(&file).expect("sensible");
        assert_eq!(settings.merge_interval, None);
        assert_eq!(settings.retention_interval, None);
        let args = LifecycleArgs {
            retention_interval: Some(Duration::ZERO),
            ..LifecycleArgs::default()
        };
        let settings = args.resolve(&toml::Table::new()).expect("sensible");
        assert_eq!(settings.retention_interval, None);
        assert_eq!(settings.merge_interval, Some(MERGE_INTERVAL));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        for (text, key) in [
            ("merge-interval = 'often'", "merge-interval"),
            ("merge-interval = 30", "merge-interval"),
            ("merge-concurrency = -1", "merge-concurrency"),
            ("merge-concurrency = 0", "merge-concurrency"),
            ("retention-interval = true", "retention-interval"),
        ] {
            let error = LifecycleArgs::default().resolve(&file(text));
            let error = format!("{:#}", error.expect_err("refused"));
            assert!(error.starts_with(key), "{error}");
        }
    }
}
