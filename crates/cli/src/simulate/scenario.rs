//! What is simulated: rows, questions, policies, followers, faults, and what a bucket takes for it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytesize::ByteSize;
use serde::{Serialize, Serializer};
use slipstream_model::{CachingPolicy, MergePolicy, RetentionPolicy};

/// Rows that a run may take in: the work of a model grows with its commits, not with its rows, but
/// sums are to stay exact.
const ROWS_MAX: f64 = 1e15;
/// Commits of a run: each is looked at by each follower, and its lag is remembered.
pub(super) const COMMITS_MAX: u64 = 2_000_000;
/// Followers of a run, for the same reason.
const FOLLOWERS_MAX: usize = 64;

/// Everything that a run is made of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Scenario {
    pub(super) followers: Vec<Follower>,
    #[serde(serialize_with = "seconds")]
    pub(super) duration: Duration,
    /// How far back rows go that are there when it begins.
    #[serde(serialize_with = "seconds")]
    pub(super) history: Duration,
    pub(super) ingest: Ingest,
    pub(super) queries: Queries,
    pub(super) policies: Policies,
    pub(super) faults: Faults,
    pub(super) bucket: Bucket,
    pub(super) prices: Prices,
    pub(super) seed: u64,
}

impl Scenario {
    /// Refuses what would run for ever or means nothing.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.duration.is_zero(),
            "--duration: at least a second is needed, such as 7d"
        );
        ensure!(
            self.followers.len() <= FOLLOWERS_MAX,
            "--followers: {} are more than {FOLLOWERS_MAX}",
            self.followers.len()
        );
        let commits = self.commits();
        ensure!(
            commits <= COMMITS_MAX,
            "{commits} commits are more than {COMMITS_MAX}: a shorter --duration, or rows that come in \
             less often (--ingest every=...), are needed"
        );
        let time = (self.duration + self.history).as_secs_f64();
        ensure!(
            self.ingest.rows * time <= ROWS_MAX,
            "--ingest rows={}: too many rows for so long a time",
            self.ingest.rows
        );
        let mut names: Vec<_> = self.followers.iter().map(|f| &f.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("--follower: two are called '{}'", twice[0]);
        }
        Ok(())
    }

    pub(super) fn commits(&self) -> u64 {
        let every = self.ingest.every.as_secs_f64();
        (self.duration.as_secs_f64() / every).ceil() as u64
    }
}

/// A follower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Follower {
    pub(super) name: String,
    /// Its override of the caching policy; `None`: the leader's.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) hot: Option<Duration>,
    /// What its cache may take of the disk.
    pub(super) disk_bytes: u64,
}

impl Follower {
    pub(super) fn caching<'a>(&self, leader: Option<&'a CachingPolicy>) -> Caching<'a> {
        match self.hot {
            Some(hot) => Caching::Own(CachingPolicy::hot(hot)),
            None => Caching::Leaders(leader),
        }
    }
}

/// Whose caching policy holds for a follower.
#[derive(Debug, Clone)]
pub(super) enum Caching<'a> {
    Own(CachingPolicy),
    /// `None`: everything is hot.
    Leaders(Option<&'a CachingPolicy>),
}

impl Caching<'_> {
    pub(super) fn policy(&self) -> Option<&CachingPolicy> {
        match self {
            Self::Own(policy) => Some(policy),
            Self::Leaders(policy) => *policy,
        }
    }
}

impl FromStr for Follower {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pairs = Pairs::of(text)?;
        let follower = Self {
            name: pairs
                .text("name")
                .context("a follower needs a name, as in name=recent,hot=3d,disk=20GB")?
                .to_owned(),
            hot: pairs.span("hot")?,
            disk_bytes: pairs.bytes("disk")?.unwrap_or(DISK_BYTES),
        };
        pairs.end()?;
        Ok(follower)
    }
}

/// The disk of a follower of which nothing is said.
pub(super) const DISK_BYTES: u64 = 100_000_000_000;

/// Rows that come in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ingest {
    /// A second, on average over a day.
    pub(super) rows: f64,
    /// Bytes of a row in memory.
    pub(super) row_bytes: f64,
    /// Between two commits.
    #[serde(serialize_with = "seconds")]
    pub(super) every: Duration,
    /// How many times smaller rows are as Parquet.
    pub(super) compression: f64,
    /// How much more there is at two in the afternoon than on average, and less at two in the
    /// morning: 0 to 1.
    pub(super) daily: f64,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            rows: 1_000.0,
            row_bytes: 200.0,
            every: Duration::from_secs(10),
            compression: 5.0,
            daily: 0.5,
        }
    }
}

impl FromStr for Ingest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pairs = Pairs::of(text)?;
        let default = Self::default();
        let ingest = Self {
            rows: pairs.number("rows")?.unwrap_or(default.rows),
            row_bytes: pairs.number("row-bytes")?.unwrap_or(default.row_bytes),
            every: pairs.span("every")?.unwrap_or(default.every),
            compression: pairs.number("compression")?.unwrap_or(default.compression),
            daily: pairs.number("daily")?.unwrap_or(default.daily),
        };
        pairs.end()?;
        ensure!(ingest.rows > 0.0, "rows={}: more than 0", ingest.rows);
        ensure!(
            ingest.row_bytes >= 1.0,
            "row-bytes={}: at least 1",
            ingest.row_bytes
        );
        ensure!(
            ingest.compression > 0.0,
            "compression={}: more than 0",
            ingest.compression
        );
        ensure!(
            ingest.every >= Duration::from_millis(100),
            "every: at least 100ms"
        );
        ensure!(
            (0.0..=1.0).contains(&ingest.daily),
            "daily={}: from 0 to 1",
            ingest.daily
        );
        Ok(ingest)
    }
}

/// What each follower is asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Queries {
    /// A second.
    pub(super) rate: f64,
    /// What of an extent's bytes a query reads, in percent.
    pub(super) columns: f64,
    /// How far back they look, and how often relative to each other.
    pub(super) look: Vec<Look>,
}

/// A kind of query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Look {
    /// How far back it looks; `None`: at everything.
    #[serde(serialize_with = "maybe_seconds")]
    pub(super) back: Option<Duration>,
    pub(super) weight: f64,
}

impl Default for Queries {
    fn default() -> Self {
        let look = |hours: u64, weight| Look {
            back: Some(Duration::from_secs(hours * 60 * 60)),
            weight,
        };
        Self {
            rate: 1.0,
            columns: 25.0,
            look: vec![look(1, 80.0), look(24, 15.0), look(24 * 7, 5.0)],
        }
    }
}

impl FromStr for Queries {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pairs = Pairs::of(text)?;
        let default = Self::default();
        let look = pairs.text("look").map(looks).transpose()?;
        let queries = Self {
            rate: pairs.number("rate")?.unwrap_or(default.rate),
            columns: pairs.number("columns")?.unwrap_or(default.columns),
            look: look.unwrap_or(default.look),
        };
        pairs.end()?;
        ensure!(
            queries.columns > 0.0 && queries.columns <= 100.0,
            "columns={}: percent, above 0 and at most 100",
            queries.columns
        );
        Ok(queries)
    }
}

/// `1h:80+1d:15+all:5`.
fn looks(text: &str) -> anyhow::Result<Vec<Look>> {
    let look = |part: &str| {
        let (back, weight) = part
            .split_once(':')
            .with_context(|| format!("look: '{part}' is not like 1h:80"))?;
        let back = match back {
            "all" => None,
            span => Some(span_of(span)?),
        };
        let weight: f64 = weight
            .parse()
            .with_context(|| format!("look: the weight '{weight}' of '{back:?}' is no number"))?;
        ensure!(
            weight.is_finite() && weight >= 0.0,
            "look: a weight is at least 0"
        );
        Ok(Look { back, weight })
    };
    let looks: Vec<_> = text.split('+').map(look).collect::<anyhow::Result<_>>()?;
    ensure!(
        looks.iter().map(|look| look.weight).sum::<f64>() > 0.0,
        "look: all weights are 0"
    );
    Ok(looks)
}

/// The leader's policies.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Policies {
    /// `None`: everything is hot.
    pub(super) caching: Option<CachingPolicy>,
    pub(super) merge: MergePolicy,
    /// `None`: rows are kept for ever.
    #[serde(serialize_with = "maybe_retention")]
    pub(super) retention: Option<RetentionPolicy>,
}

/// One of them, as it is written: `caching=30d`, `retention=90d`, `merge={...}`.
#[derive(Debug, Clone)]
pub(super) enum Policy {
    Caching(CachingPolicy),
    Merge(MergePolicy),
    Retention(RetentionPolicy),
}

impl FromStr for Policy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (kind, value) = text
            .split_once('=')
            .context("a policy is written like caching=30d, retention=90d or merge={...}")?;
        Ok(match kind {
            "caching" => Self::Caching(CachingPolicy::hot(span_of(value)?)),
            "retention" => Self::Retention(RetentionPolicy {
                soft_delete_period: span_of(value)?,
                ..RetentionPolicy::default()
            }),
            "merge" if value == "off" => Self::Merge(MergePolicy {
                allow_rebuild: false,
                allow_merge: false,
                ..MergePolicy::default()
            }),
            "merge" => Self::Merge(serde_json::from_str(value).context(
                "merge: neither off nor a policy such as {\"MaxRangeInHours\": 24} (.alter table T \
                 policy merge)",
            )?),
            _ => bail!("there is no policy '{kind}' here: caching, retention and merge are known"),
        })
    }
}

impl Policies {
    pub(super) fn of(policies: &[Policy]) -> Self {
        let mut all = Self::default();
        for policy in policies {
            match policy.clone() {
                Policy::Caching(caching) => all.caching = Some(caching),
                Policy::Merge(merge) => all.merge = merge,
                Policy::Retention(retention) => all.retention = Some(retention),
            }
        }
        all
    }
}

/// How often something fails, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Outages {
    /// Between two, on average.
    #[serde(serialize_with = "seconds")]
    pub(super) between: Duration,
    /// How long one lasts, on average.
    #[serde(serialize_with = "seconds")]
    pub(super) lasts: Duration,
}

/// What fails; `None`: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Faults {
    /// The leader does not run.
    pub(super) leader: Option<Outages>,
    /// A follower reaches neither bucket nor leader.
    pub(super) cut: Option<Outages>,
    /// A follower does not reach the leader.
    pub(super) silent: Option<Outages>,
    /// Nobody reaches the bucket.
    pub(super) bucket: Option<Outages>,
}

impl Faults {
    const SOME: &str = "leader=14d/1m,cut=7d/5m,silent=3d/5m,bucket=30d/2m";
    const HARSH: &str = "leader=1d/2m,cut=12h/10m,silent=6h/10m,bucket=3d/5m";
}

impl FromStr for Faults {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = match text {
            "none" => return Ok(Self::default()),
            "some" => Self::SOME,
            "harsh" => Self::HARSH,
            text => text,
        };
        let mut pairs = Pairs::of(text).context("neither none, some, harsh, nor like cut=7d/5m")?;
        let faults = Self {
            leader: pairs.outages("leader")?,
            cut: pairs.outages("cut")?,
            silent: pairs.outages("silent")?,
            bucket: pairs.outages("bucket")?,
        };
        pairs.end()?;
        Ok(faults)
    }
}

/// How fast the bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bucket {
    /// Half of all requests take at most as long.
    #[serde(serialize_with = "seconds")]
    pub(super) p50: Duration,
    /// Ninety-nine of a hundred.
    #[serde(serialize_with = "seconds")]
    pub(super) p99: Duration,
    /// Bytes a second that a follower gets.
    pub(super) bandwidth: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            p50: Duration::from_millis(30),
            p99: Duration::from_millis(200),
            bandwidth: 100_000_000,
        }
    }
}

impl FromStr for Bucket {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pairs = Pairs::of(text)?;
        let default = Self::default();
        let bucket = Self {
            p50: pairs.span("p50")?.unwrap_or(default.p50),
            p99: pairs.span("p99")?.unwrap_or(default.p99),
            bandwidth: pairs.bytes("bandwidth")?.unwrap_or(default.bandwidth),
        };
        pairs.end()?;
        ensure!(!bucket.p50.is_zero(), "p50: more than 0");
        ensure!(bucket.p99 >= bucket.p50, "p99 is less than p50");
        ensure!(bucket.bandwidth > 0, "bandwidth: more than 0");
        Ok(bucket)
    }
}

/// What things cost, in one currency. The defaults are the list prices of S3 Standard in us-east-1
/// in US dollars (aws.amazon.com/s3/pricing); reading within a region is free of charge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Prices {
    /// A thousand PUT requests.
    pub(super) put: f64,
    /// A thousand GET requests.
    pub(super) get: f64,
    /// A gigabyte for a month.
    pub(super) storage: f64,
    /// A gigabyte that leaves the bucket.
    pub(super) egress: f64,
    /// A node for an hour.
    pub(super) machine: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            put: 0.005,
            get: 0.000_4,
            storage: 0.023,
            egress: 0.0,
            machine: 0.0,
        }
    }
}

impl FromStr for Prices {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pairs = Pairs::of(text)?;
        let default = Self::default();
        let prices = Self {
            put: pairs.number("put")?.unwrap_or(default.put),
            get: pairs.number("get")?.unwrap_or(default.get),
            storage: pairs.number("storage")?.unwrap_or(default.storage),
            egress: pairs.number("egress")?.unwrap_or(default.egress),
            machine: pairs.number("machine")?.unwrap_or(default.machine),
        };
        pairs.end()?;
        Ok(prices)
    }
}

/// `key=value,key=value`.
struct Pairs<'a>(Vec<(&'a str, &'a str)>, Vec<&'static str>);

impl<'a> Pairs<'a> {
    fn of(text: &'a str) -> anyhow::Result<Self> {
        let pair = |part: &'a str| {
            let pair = part.split_once('=');
            let (key, value) = pair.with_context(|| format!("'{part}' is not like key=value"))?;
            Ok((key.trim(), value.trim()))
        };
        let pairs: Vec<_> = text.split(',').map(pair).collect::<anyhow::Result<_>>()?;
        let mut keys: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("'{}' is said twice", twice[0]);
        }
        Ok(Self(pairs, Vec::new()))
    }

    fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.1.push(key);
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn number(&mut self, key: &'static str) -> anyhow::Result<Option<f64>> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let number = text.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        let number = number.ok_or_else(|| anyhow!("{key}={text}: not a number from 0 on"))?;
        Ok(Some(number))
    }

    fn span(&mut self, key: &'static str) -> anyhow::Result<Option<Duration>> {
        let text = self.text(key);
        text.map(|text| span_of(text).context(key)).transpose()
    }

    fn bytes(&mut self, key: &'static str) -> anyhow::Result<Option<u64>> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let size: ByteSize = text
            .parse()
            .map_err(|error| anyhow!("{key}={text}: no size such as 20GB: {error}"))?;
        Ok(Some(size.as_u64()))
    }

    fn outages(&mut self, key: &'static str) -> anyhow::Result<Option<Outages>> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let (between, lasts) = text.split_once('/').with_context(|| {
            format!("{key}={text}: how often and for how long is written like 7d/5m")
        })?;
        let outages = Outages {
            between: span_of(between).context(key)?,
            lasts: span_of(lasts).context(key)?,
        };
        ensure!(
            !outages.lasts.is_zero() && outages.between > outages.lasts,
            "{key}={text}: the first is to be longer than the second, and the second more than 0"
        );
        Ok(Some(outages))
    }

    /// Refuses what nobody asked for.
    fn end(self) -> anyhow::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => bail!("'{key}' is not known here: {}", self.1.join(", ")),
        }
    }
}

/// `90s`, `7d`.
fn span_of(text: &str) -> anyhow::Result<Duration> {
    humantime::parse_duration(text)
        .map_err(|error| anyhow!("'{text}' is no time span such as 90s or 7d: {error}"))
}

pub(super) fn written(span: Duration) -> impl fmt::Display {
    humantime::format_duration(span)
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(to)
}

fn maybe_retention<S: Serializer>(
    policy: &Option<RetentionPolicy>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    maybe_seconds(&policy.map(|policy| policy.soft_delete_period), serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let ingest: Ingest = "rows=50,every=1s".parse().expect("an ingest");
        assert_eq!((ingest.rows, ingest.every), (50.0, Duration::from_secs(1)));
        let queries: Queries = "rate=3,look=1h:70+all:30".parse().expect("queries");
        assert_eq!(queries.look[1].back, None);
        let follower: Follower = "name=recent,hot=3d,disk=20GB".parse().expect("a follower");
        assert_eq!(follower.disk_bytes, 20_000_000_000);
        let faults: Faults = "harsh".parse().expect("faults");
        assert!(faults.leader.is_some() && faults.bucket.is_some());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refusal = |error: anyhow::Error| format!("{error:#}");
        for (text, says) in [
            ("rows=many", "rows=many"),
            ("rows", "key=value"),
            ("rows=1,rows=2", "twice"),
            ("speed=3", "'speed' is not known here: rows, row-bytes"),
            ("every=1ms", "every"),
            ("every=soon", "soon"),
            ("daily=2", "daily=2"),
            ("rows=-1", "rows=-1"),
        ] {
            let error = refusal(text.parse::<Ingest>().expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
        for (text, says) in [
            ("cut=5m", "7d/5m"),
            ("cut=5m/7d", "longer"),
            ("often", "none, some, harsh"),
        ] {
            let error = refusal(text.parse::<Faults>().expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
        let error = refusal("hot=3d".parse::<Follower>().expect_err("no name"));
        assert!(error.contains("name"), "{error}");
        let error = refusal("look=1h".parse::<Queries>().expect_err("no weight"));
        assert!(error.contains("1h:80"), "{error}");
        let error = refusal("sharding=1".parse::<Policy>().expect_err("unknown"));
        assert!(error.contains("sharding"), "{error}");
    }
}
