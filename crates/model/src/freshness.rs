//! How fresh an answer is, and how fresh it has to be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp, Version};

/// What to do when a node cannot meet a freshness requirement at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenStale {
    /// Wait for the required state until the request's deadline, then fail.
    #[default]
    Wait,
    /// Fail at once.
    Fail,
    /// Answer from what is there; the answer says how stale it is.
    Stale,
}

impl fmt::Display for WhenStale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Fail => "fail",
            Self::Stale => "stale",
        })
    }
}

impl FromStr for WhenStale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wait" => Ok(Self::Wait),
            "fail" => Ok(Self::Fail),
            "stale" => Ok(Self::Stale),
            other => Err(format!("'{other}' is not one of wait, fail, stale")),
        }
    }
}

/// What a request asks of the state it is answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FreshnessRequirement {
    /// At least this version of the request's database: read-your-writes, with the version that
    /// an ingest or DDL answered.
    pub min_version: Option<Version>,
    /// The version last known to be the newest at most this long ago.
    pub max_staleness: Option<Duration>,
    /// What to do when the state is older.
    pub when_stale: WhenStale,
}

impl FreshnessRequirement {
    /// Whether a state of this freshness, seen at `now`, is good enough.
    pub fn is_met_by(&self, freshness: &Freshness, now: Timestamp) -> bool {
        let new_enough = self
            .min_version
            .is_none_or(|version| freshness.version >= version);
        let heard_lately = self
            .max_staleness
            .is_none_or(|bound| freshness.staleness(now) <= bound);
        new_enough && heard_lately
    }
}

/// The state that an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The database, by the name it has on this node.
    pub database: String,
    /// The version the whole answer was computed from.
    pub version: Version,
    /// The database digest at that version. Two nodes at one version agree on it.
    pub digest: Digest,
    /// When this node last knew that there is no newer version: the leader said so, or the bucket, whose
    /// log ended there. On the leader itself: now.
    pub last_contact: Timestamp,
    /// When the version was committed, by the leader's clock.
    pub committed_at: Timestamp,
    /// How many versions the leader is known to be ahead.
    pub versions_behind: u64,
}

impl Freshness {
    /// How long ago this node last knew that it was up to date.
    pub fn staleness(&self, now: Timestamp) -> Duration {
        now.since(self.last_contact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_is_met_by_version_and_contact_together() {
        let freshness = Freshness {
            database: "d".into(),
            version: Version::new(7),
            digest: Digest::ZERO,
            last_contact: Timestamp::from_micros(10_000_000),
            committed_at: Timestamp::from_micros(9_000_000),
            versions_behind: 0,
        };
        let now = Timestamp::from_micros(12_000_000);
        let asks = |min_version, seconds| FreshnessRequirement {
            min_version: Some(Version::new(min_version)),
            max_staleness: Some(Duration::from_secs(seconds)),
            when_stale: WhenStale::Wait,
        };
        assert!(asks(7, 2).is_met_by(&freshness, now));
        assert!(!asks(8, 2).is_met_by(&freshness, now));
        assert!(!asks(7, 1).is_met_by(&freshness, now));
    }
}
