//! Chance as an argument.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::Timestamp;

/// A seeded source of randomness that many tasks share. Not for secrets.
#[derive(Debug, Clone)]
pub struct Entropy(Arc<Mutex<SmallRng>>);

impl Entropy {
    /// The same seed gives the same sequence.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// Sixty-four random bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A number in `[0, 1)`, for jitter.
    pub fn fraction(&self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A random id (UUID version 4).
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A time-ordered id (UUID version 7).
    pub fn uuid_at(&self, time: Timestamp) -> Uuid {
        let mut bytes = [0; 10];
        self.0.lock().fill_bytes(&mut bytes);
        let millis = u64::try_from(time.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }
}
