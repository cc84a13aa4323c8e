//! When something is down.

use std::time::Duration;

use slipstream_model::{Entropy, Timestamp};

use super::scenario::Outages;

/// Spans of time, in order, in which something does not work.
#[derive(Debug, Clone, Default)]
pub(super) struct Downtime(Vec<(Timestamp, Timestamp)>);

impl Downtime {
    /// Draws them: both how long it works and how long it does not are exponentially distributed.
    pub(super) fn draw(
        outages: Option<Outages>,
        from: Timestamp,
        to: Timestamp,
        dice: &Entropy,
    ) -> Self {
        let Some(Outages { between, lasts }) = outages else {
            return Self::default();
        };
        let working = between.saturating_sub(lasts);
        let mut spans = Vec::new();
        let mut at = from.plus(exponential(working, dice));
        while at < to {
            let end = at.plus(exponential(lasts, dice));
            spans.push((at, end));
            // Two never touch.
            at = end.plus(exponential(working, dice) + Duration::from_micros(1));
        }
        Self(spans)
    }

    /// How often.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// When it works, at `at` or later.
    pub(super) fn over(&self, at: Timestamp) -> Timestamp {
        let after = self.0.partition_point(|(start, _)| *start <= at);
        match after.checked_sub(1).map(|before| self.0[before]) {
            Some((_, end)) if at < end => end,
            _ => at,
        }
    }

    pub(super) fn is_down(&self, at: Timestamp) -> bool {
        self.over(at) > at
    }
}

/// When all of them work, at `at` or later.
pub(super) fn all_over(downtimes: &[&Downtime], at: Timestamp) -> Timestamp {
    let mut over = at;
    loop {
        let later = downtimes
            .iter()
            .fold(over, |at, downtime| downtime.over(at));
        if later == over {
            return over;
        }
        over = later;
    }
}

fn exponential(mean: Duration, dice: &Entropy) -> Duration {
    mean.mul_f64(-(1.0 - dice.fraction()).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn what_is_down_is_over_at_its_end() {
        let first = Downtime(vec![(at(10), at(20)), (at(30), at(40))]);
        assert_eq!(first.over(at(9)), at(9));
        assert_eq!(first.over(at(10)), at(20));
        assert_eq!(first.over(at(20)), at(20));
        assert!(first.is_down(at(35)) && !first.is_down(at(25)));
        let second = Downtime(vec![(at(18), at(31))]);
        assert_eq!(all_over(&[&first, &second], at(12)), at(40));
        assert_eq!(all_over(&[], at(12)), at(12));
    }

    #[test]
    fn outages_come_as_often_and_last_as_long_as_is_said() {
        let outages = Outages {
            between: Duration::from_secs(1_000),
            lasts: Duration::from_secs(100),
        };
        let dice = Entropy::from_seed(1);
        let drawn = Downtime::draw(Some(outages), at(0), at(1_000_000), &dice);
        assert!((800..1_200).contains(&drawn.count()), "{}", drawn.count());
        let down: Duration = drawn.0.iter().map(|(start, end)| end.since(*start)).sum();
        assert!((80_000..120_000).contains(&down.as_secs()), "{down:?}");
        assert_eq!(Downtime::draw(None, at(0), at(1_000), &dice).count(), 0);
    }
}
