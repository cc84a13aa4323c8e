//! The flags of what a leader does by itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use slipstream_frontend::settings::parse_duration;

use crate::leases::LEASE_TTL;

/// How often small extents are looked for when nothing is said: rows that come in every second then
/// stand in sixty extents before they stand in one, which no query notices.
pub const MERGE_INTERVAL: Duration = Duration::from_secs(60);
/// Merges at one time when nothing is said: the other cores are for ingests and queries.
const MERGES: usize = 1;
/// How often extents are looked for whose time is over when nothing is said. The policy promises no
/// more than that rows are kept as long (*Retention policy*, Kusto documentation).
const RETENTION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How often files are looked for that can go when nothing is said: nobody waits for the space.
const GC_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How long the file of an extent that left its table is kept when nothing is said: as long as
/// Kusto's soft-deleted extents can be brought back (*Retention policy*, Kusto documentation).
pub const GC_GRACE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Commits that are deleted together: what says where a log begins is written once for as many, and is
/// not found by one request any more.
const PRUNE_EVERY: u64 = 1_024;
/// The shortest lease. A follower that lost its leader asks again every two seconds: after a leader
/// began it has spoken twice by then.
const LEASE_TTL_MIN: Duration = Duration::from_secs(5);

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

    /// How often the files of removed extents are looked for that can be deleted, such as 1h; 0:
    /// never [default: 10m].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_GC_INTERVAL", value_parser = parse_duration)]
    pub gc_interval: Option<Duration>,

    /// How long at least the file of a removed extent is kept, and the log that leads to the versions
    /// which had it, such as 7d [default: 14d].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_GC_GRACE", value_parser = parse_duration)]
    pub gc_grace: Option<Duration>,

    /// How long what a follower reads is kept for it when it is not heard of, such as 10m; at least
    /// 5s. A leader that starts deletes nothing for as long [default: 1m].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_LEASE_TTL", value_parser = parse_duration)]
    pub lease_ttl: Option<Duration>,
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
    /// How often files are deleted; `None`: never.
    pub gc_interval: Option<Duration>,
    /// How long they are kept at least.
    pub gc_grace: Duration,
    /// How long a follower's lease lives without being renewed.
    pub lease_ttl: Duration,
    /// Commits at least that are deleted from the beginning of a log together.
    pub prune_every: u64,
}

impl LifecycleArgs {
    /// The keys of a settings file.
    pub const KEYS: [&str; 6] = [
        "merge-interval",
        "merge-concurrency",
        "retention-interval",
        "gc-interval",
        "gc-grace",
        "lease-ttl",
    ];

    /// Layers flags over a file over defaults.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn resolve(&self, file: &toml::Table) -> anyhow::Result<LifecycleSettings> {
        let [merge, concurrency, retention, gc, grace, lease] = Self::KEYS;
        let merges_max = match self.merge_concurrency {
            Some(merges) => merges,
            None => count(file, concurrency)?.unwrap_or(MERGES),
        };
        ensure!(
            merges_max > 0,
            "{concurrency}: at least 1 is needed; {merge} = 0 turns merging off"
        );
        let lease_ttl = duration(self.lease_ttl, file, lease, LEASE_TTL)?;
        ensure!(
            lease_ttl >= LEASE_TTL_MIN,
            "{lease}: at least 5s is needed, so that every follower has spoken by then"
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
            gc_interval: interval(self.gc_interval, file, gc, GC_INTERVAL)?,
            gc_grace: duration(self.gc_grace, file, grace, GC_GRACE)?,
            lease_ttl,
            prune_every: PRUNE_EVERY,
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
    let interval = duration(flag, file, key, default)?;
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

fn duration(
    flag: Option<Duration>,
    file: &toml::Table,
    key: &str,
    default: Duration,
) -> anyhow::Result<Duration> {
    match (flag, file.get(key)) {
        (Some(flag), _) => Ok(flag),
        (None, None) => Ok(default),
        (None, Some(toml::Value::Integer(0))) => Ok(Duration::ZERO),
        (None, Some(value)) => {
            let text = value.as_str();
            let text = text.with_context(|| format!("{key} is no duration such as \"30s\""))?;
            parse_duration(text).with_context(|| key.to_owned())
        }
    }
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
            gc_interval: Some(GC_INTERVAL),
            gc_grace: GC_GRACE,
            lease_ttl: LEASE_TTL,
            prune_every: PRUNE_EVERY,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn zero_turns_off() {
        let file = file("merge-interval = 0\nretention-interval = '0'\ngc-interval = 0");
        let settings = LifecycleArgs::default().resolve(&file).expect("sensible");
        assert_eq!(settings.merge_interval, None);
        assert_eq!(settings.retention_interval, None);
        assert_eq!(settings.gc_interval, None);
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
            ("gc-grace = 14", "gc-grace"),
            ("lease-ttl = '200ms'", "lease-ttl"),
        ] {
            let error = LifecycleArgs::default().resolve(&file(text));
            let error = format!("{:#}", error.expect_err("refused"));
            assert!(error.starts_with(key), "{error}");
        }
    }
}
