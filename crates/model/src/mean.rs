//! A mean that forgets.

use std::sync::atomic::{AtomicU64, Ordering};

/// The newest value weighs one part in so many: as TCP smooths its round trips (RFC 6298).
const WEIGHT_DIVISOR: u128 = 8;

/// An exponentially weighted mean of values above zero: the older one is, the less it weighs.
///
/// ```
/// use slipstream_model::MovingMean;
///
/// let mean = MovingMean::default();
/// assert_eq!(mean.get(), None);
/// mean.note(800);
/// mean.note(1_600);
/// assert_eq!(mean.get(), Some(900));
/// ```
#[derive(Debug, Default)]
pub struct MovingMean(AtomicU64);

impl MovingMean {
    /// Takes another value in. Zero counts as one: it stands for no value at all.
    pub fn note(&self, value: u64) {
        let value = value.max(1);
        let order = Ordering::Relaxed;
        // Never `None`, so it never fails.
        let _ = self
            .0
            .fetch_update(order, order, |mean| Some(mixed(mean, value)));
    }

    /// The mean; `None` before the first value.
    pub fn get(&self) -> Option<u64> {
        let mean = self.0.load(Ordering::Relaxed);
        (mean > 0).then_some(mean)
    }
}

fn mixed(mean: u64, value: u64) -> u64 {
    if mean == 0 {
        return value;
    }
    let sum = u128::from(mean) * (WEIGHT_DIVISOR - 1) + u128::from(value);
    u64::try_from(sum / WEIGHT_DIVISOR)
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_new_and_forgets_what_is_old() {
        let mean = MovingMean::default();
        for _ in 0..10 {
            mean.note(1_000);
        }
        assert_eq!(mean.get(), Some(1_000));
        for _ in 0..100 {
            mean.note(50);
        }
        let found = mean.get().expect("values were noted");
        assert!((50..60).contains(&found), "{found}");
    }

    #[test]
    fn the_smallest_and_the_largest_values_are_values() {
        let mean = MovingMean::default();
        mean.note(0);
        assert_eq!(mean.get(), Some(1));
        mean.note(u64::MAX);
        mean.note(u64::MAX);
        assert!(mean.get() > Some(1 << 60));
    }
}
