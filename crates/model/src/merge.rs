//! Which extents are merged, and how far (*Merge policy*, Kusto documentation).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{EffectiveCaching, Timestamp};

/// How far back [`MergeLookback::Default`] looks.
const LOOKBACK_DEFAULT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Which small extents of a table become larger ones, and how large.
///
/// Parameters, defaults and JSON are Kusto's. Kusto knows two operations: a *rebuild* writes rows
/// anew, up to the size of a shard (1,048,576 rows), and a *merge* puts shards together as they
/// are, up to the bounds of this policy. Here an extent is one Parquet file, which can only be
/// written anew. So a merge is Kusto's rebuild: its result stays within the bounds below *and*
/// within the size of an extent, and with the defaults only the latter is felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "PascalCase")]
pub struct MergePolicy {
    /// Rows of a result, at most. An extent has at most 1,048,576 rows whatever this says.
    pub row_count_upper_bound_for_merge: u64,
    /// Original size of a result, at most, in MB.
    #[serde(rename = "OriginalSizeMBUpperBoundForMerge")]
    pub original_size_mb_upper_bound_for_merge: u64,
    /// Extents that become one at a time, at most.
    pub max_extents_to_merge: u32,
    /// Between the creation times of the sources of one extent lie at most as many hours.
    pub max_range_in_hours: u32,
    /// Whether extents may be rebuilt.
    pub allow_rebuild: bool,
    /// Whether extents may be merged. As there is one operation, it is off when both are.
    pub allow_merge: bool,
    /// Which extents are looked at, by their age.
    pub lookback: MergeLookback,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self {
            row_count_upper_bound_for_merge: 16_000_000,
            original_size_mb_upper_bound_for_merge: 30_000,
            max_extents_to_merge: 100,
            max_range_in_hours: 24,
            allow_rebuild: true,
            allow_merge: true,
            lookback: MergeLookback::Default,
        }
    }
}

impl MergePolicy {
    /// The policy that holds for a table: its own, else the database's, else the default.
    pub fn effective(table: Option<Self>, database: Option<Self>) -> Self {
        table.or(database).unwrap_or_default()
    }

    /// Whether anything is merged at all.
    pub const fn allows_merging(&self) -> bool {
        self.allow_rebuild || self.allow_merge
    }

    /// The largest range of creation times within one extent.
    pub const fn max_range(&self) -> Duration {
        Duration::from_secs(self.max_range_in_hours as u64 * 60 * 60)
    }
}

/// Which extents are looked at, by their age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LookbackJson", into = "LookbackJson")]
pub enum MergeLookback {
    /// Those of the last 14 days.
    #[default]
    Default,
    /// All of them.
    All,
    /// Those that the caching policy makes hot.
    HotCache,
    /// Those that are younger than this.
    Custom(Duration),
}

impl MergeLookback {
    /// Whether an extent is looked at, judged by the newest creation time of its rows.
    pub fn reaches(
        self,
        max_created_on: Timestamp,
        now: Timestamp,
        caching: &EffectiveCaching,
    ) -> bool {
        let age = now.since(max_created_on);
        match self {
            Self::Default => age < LOOKBACK_DEFAULT,
            Self::All => true,
            Self::HotCache => caching.is_hot(max_created_on, now),
            Self::Custom(period) => age < period,
        }
    }
}

/// `{"Kind": "Custom", "CustomPeriod": "30.00:00:00"}`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct LookbackJson {
    kind: LookbackKind,
    #[serde(default)]
    custom_period: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum LookbackKind {
    Default,
    All,
    HotCache,
    Custom,
}

impl From<MergeLookback> for LookbackJson {
    fn from(lookback: MergeLookback) -> Self {
        let (kind, custom_period) = match lookback {
            MergeLookback::Default => (LookbackKind::Default, None),
            MergeLookback::All => (LookbackKind::All, None),
            MergeLookback::HotCache => (LookbackKind::HotCache, None),
            MergeLookback::Custom(period) => (LookbackKind::Custom, Some(format_period(period))),
        };
        Self {
            kind,
            custom_period,
        }
    }
}

impl TryFrom<LookbackJson> for MergeLookback {
    type Error = String;

    fn try_from(json: LookbackJson) -> Result<Self, String> {
        Ok(match (json.kind, json.custom_period) {
            (LookbackKind::Default, _) => Self::Default,
            (LookbackKind::All, _) => Self::All,
            (LookbackKind::HotCache, _) => Self::HotCache,
            (LookbackKind::Custom, Some(text)) => {
                let period = parse_period(&text);
                Self::Custom(period.ok_or_else(|| {
                    format!("CustomPeriod: '{text}' is no timespan such as 30.00:00:00")
                })?)
            }
            (LookbackKind::Custom, None) => {
                return Err("Lookback: the kind Custom needs a CustomPeriod".to_owned());
            }
        })
    }
}

/// `days.hours:minutes:seconds`, as Kusto writes spans; parts of a second are dropped.
pub(crate) fn format_period(period: Duration) -> String {
    let seconds = period.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("{days}.{hours:02}:{minutes:02}:{seconds:02}")
}

/// `[days.]hours:minutes[:seconds]`.
pub(crate) fn parse_period(text: &str) -> Option<Duration> {
    let (hours, rest) = text.trim().split_once(':')?;
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "0"));
    let below = |text: &str, limit: u32| {
        let number = text.parse::<u32>().ok()?;
        (number < limit).then_some(u64::from(number))
    };
    let days = below(days, u32::MAX)?;
    let (hours, minutes) = (below(hours, 24)?, below(minutes, 60)?);
    let seconds = below(seconds, 60)?;
    Some(Duration::from_secs(
        ((days * 24 + hours) * 60 + minutes) * 60 + seconds,
    ))
}

#[cfg(test)]
mod tests;
