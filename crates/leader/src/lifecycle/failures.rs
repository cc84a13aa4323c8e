//! Extents whose merging failed, and until when they are left alone.

use std::collections::HashMap;
use std::time::Duration;

use slipstream_model::ExtentId;

/// How long an extent is left alone after its merging failed once; doubled with each further time.
const BACKOFF_MIN: Duration = Duration::from_secs(30);
/// How long at most. An extent whose file is damaged is tried as often, and no other waits for it.
const BACKOFF_MAX: Duration = Duration::from_secs(60 * 60);

/// What is known of them. Times are those of the clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<ExtentId, Failure>);

#[derive(Debug, Clone, Copy)]
struct Failure {
    times: u32,
    until: Duration,
}

impl Failures {
    /// Notes that merging an extent failed.
    pub(super) fn note(&mut self, extent: ExtentId, now: Duration) {
        let times = self.0.get(&extent).map_or(0, |failure| failure.times);
        let wait = BACKOFF_MIN
            .saturating_mul(2_u32.saturating_pow(times))
            .min(BACKOFF_MAX);
        let failure = Failure {
            times: times.saturating_add(1),
            until: now + wait,
        };
        self.0.insert(extent, failure);
    }

    /// Whether an extent is left alone for now.
    pub(super) fn holds(&self, extent: ExtentId, now: Duration) -> bool {
        let failure = self.0.get(&extent);
        failure.is_some_and(|failure| failure.until > now)
    }

    /// Whether nothing failed lately.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets extents that are gone: those that could have been tried again long ago, and were not.
    pub(super) fn forget_gone(&mut self, now: Duration) {
        self.0
            .retain(|_, failure| failure.until + BACKOFF_MAX > now);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_fails_again_waits_longer_and_what_is_gone_is_forgotten() {
        let extent = ExtentId::new(Uuid::from_u128(1));
        let other = ExtentId::new(Uuid::from_u128(2));
        let mut failures = Failures::default();
        let mut now = Duration::ZERO;
        for wait in [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            failures.note(extent, now);
            let second = Duration::from_secs(1);
            now += second * (wait - 1);
            assert!(failures.holds(extent, now), "{wait}");
            assert!(!failures.holds(other, now));
            now += second;
            assert!(!failures.holds(extent, now), "{wait}");
        }
        failures.forget_gone(now);
        assert!(!failures.is_empty());
        failures.forget_gone(now + BACKOFF_MAX);
        assert!(failures.is_empty());
    }
}
