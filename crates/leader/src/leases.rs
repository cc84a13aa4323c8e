//! Who reads which versions, and until when.
//!
//! A lease names the lowest version that a follower node's running queries and pins still use;
//! nothing that version holds may be deleted while the lease lives. Leases are kept in memory
//! only: after a restart the leader deletes nothing until one full lease period has passed, by
//! when every live follower has renewed. So it is when the process stood still: leases ended
//! meanwhile that their followers could not renew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_model::{Clock, DatabaseId, Timestamp, Version};
use uuid::Uuid;

/// How long a lease lives without being renewed, when nothing is said. Followers renew three times
/// as often, so two renewals may be lost.
pub const LEASE_TTL: Duration = Duration::from_secs(60);
/// More nodes than this on one leader are refused a lease: each costs a stream and memory.
const LEASES_MAX: usize = 10_000;
/// A process that did not look at its clock for this part of a lease stood still. A lease has at least
/// two thirds of its time left when its follower begins to renew it.
const STANDSTILL_DIVISOR: u32 = 2;
/// Looks in that time.
const LOOKS_PER_STANDSTILL: u32 = 5;
/// A leader that the bucket has not answered for so long may have been replaced. It looks every five seconds.
const OUT_OF_SIGHT: Duration = Duration::from_secs(15);

/// What a follower node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The database it reads.
    pub database: DatabaseId,
    /// The follower cluster.
    pub follower_cluster: String,
    /// The attached database configuration it reads through.
    pub configuration: String,
    /// The node, which is new with each start of its process.
    pub node: Uuid,
    /// The lowest version it still reads.
    pub lowest_version: Version,
    /// The version it serves to new queries.
    pub current_version: Version,
    /// When it was last heard.
    pub renewed_at: Timestamp,
    /// When the lease ends unless renewed.
    pub expires_at: Timestamp,
}

/// Why a lease is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There are too many.
    #[error(
        "this leader holds {LEASES_MAX} leases, which is its limit: detach followers that are gone"
    )]
    TooMany,
    /// The network held it back.
    #[error("a later renewal of this lease arrived before this one")]
    Overtaken,
}

/// All leases of a leader.
#[derive(Debug)]
pub struct LeaseTable {
    clock: Arc<dyn Clock>,
    ttl: Duration,
    leases: Mutex<HashMap<Key, Held>>,
    watch: Mutex<Watch>,
}

/// Since when this process has been here to take renewals.
#[derive(Debug)]
struct Watch {
    since: Duration,
    looked_at: Duration,
    saw_bucket_at: Duration,
}

/// One node may follow a database by several configurations, and names its node itself: nobody's
/// lease takes the place of another's.
type Key = (DatabaseId, String, String, Uuid);

/// A lease, and when it ends by a clock that nobody sets.
#[derive(Debug)]
struct Held {
    lease: Lease,
    until: Duration,
    /// When the node sent it, by its own clock.
    sent: Duration,
}

impl LeaseTable {
    /// An empty table of leases that live so long.
    pub fn new(clock: Arc<dyn Clock>, ttl: Duration) -> Self {
        let now = clock.elapsed();
        Self {
            clock,
            ttl,
            leases: Mutex::default(),
            watch: Mutex::new(Watch {
                since: now,
                looked_at: now,
                saw_bucket_at: now,
            }),
        }
    }

    /// How long it is still too early to know who reads what: a follower that has a lease from before
    /// this leader began, or stood still, has renewed it within one lease period.
    ///
    /// To be called several times in each lease period: who was not called for half of one stood still.
    pub fn until_known(&self) -> Duration {
        let now = self.clock.elapsed();
        let mut watch = self.watch.lock();
        if now.saturating_sub(watch.looked_at) > self.ttl / STANDSTILL_DIVISOR {
            watch.since = now;
        }
        watch.looked_at = now;
        self.ttl.saturating_sub(now.saturating_sub(watch.since))
    }

    /// The bucket has answered, and nobody else leads there.
    ///
    /// Renewals were refused while it did not for long, so it is not known who reads what.
    pub(crate) fn saw_bucket(&self) {
        let now = self.clock.elapsed();
        let mut watch = self.watch.lock();
        if now.saturating_sub(watch.saw_bucket_at) > OUT_OF_SIGHT {
            watch.since = now;
        }
        watch.saw_bucket_at = now;
    }

    /// Whether the bucket answered lately, so that this leader knows that it still leads.
    pub(crate) fn sees_bucket(&self) -> bool {
        let now = self.clock.elapsed();
        now.saturating_sub(self.watch.lock().saw_bucket_at) <= OUT_OF_SIGHT
    }

    /// How often somebody has to look.
    pub(crate) fn look_interval(&self) -> Duration {
        self.ttl / STANDSTILL_DIVISOR / LOOKS_PER_STANDSTILL
    }

    /// How long a lease lives without being renewed.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Grants or renews a lease; `renewed_at` and `expires_at` are set here. `sent` is when the node
    /// asked for it, by a clock of its own.
    ///
    /// # Errors
    /// When there are too many, or the node has asked again since.
    pub fn renew(&self, lease: Lease, sent: Duration) -> Result<(), LeaseError> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let mut leases = self.leases.lock();
        leases.retain(|_, held| held.until > elapsed);
        let key = (
            lease.database,
            lease.follower_cluster.clone(),
            lease.configuration.clone(),
            lease.node,
        );
        match leases.get(&key) {
            // The version that it holds may be one that the node did not need when it sent this.
            Some(held) if held.sent > sent => return Err(LeaseError::Overtaken),
            None if leases.len() >= LEASES_MAX => return Err(LeaseError::TooMany),
            _ => {}
        }
        let lease = Lease {
            renewed_at: now,
            expires_at: now.plus(self.ttl),
            ..lease
        };
        let until = elapsed + self.ttl;
        leases.insert(key, Held { lease, until, sent });
        Ok(())
    }

    /// Ends the leases of a configuration that was detached.
    pub fn release(&self, follower_cluster: &str, configuration: &str) {
        self.leases.lock().retain(|_, held| {
            let lease = &held.lease;
            lease.follower_cluster != follower_cluster || lease.configuration != configuration
        });
    }

    /// The leases that live now, in a stable order.
    pub fn live(&self) -> Vec<Lease> {
        let elapsed = self.clock.elapsed();
        let leases = self.leases.lock();
        let live = leases.values().filter(|held| held.until > elapsed);
        let mut live: Vec<_> = live.map(|held| held.lease.clone()).collect();
        live.sort_by(|a, b| {
            let key = |lease: &Lease| {
                (
                    lease.database,
                    lease.follower_cluster.clone(),
                    lease.configuration.clone(),
                    lease.node,
                )
            };
            key(a).cmp(&key(b))
        });
        live
    }
}

#[cfg(test)]
mod tests {
    use slipstream_model::ManualClock;

    use super::*;

    fn lease(node: u128, lowest: u64) -> Lease {
        Lease {
            database: DatabaseId::default(),
            follower_cluster: "f".into(),
            configuration: "c".into(),
            node: Uuid::from_u128(node),
            lowest_version: Version::new(lowest),
            current_version: Version::new(lowest),
            renewed_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_lease_lives_for_its_time_and_a_renewal_starts_it_again() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(Arc::clone(&clock) as _, LEASE_TTL);
        table.renew(lease(1, 5), Duration::ZERO).expect("room");
        clock.advance(LEASE_TTL / 2);
        table.renew(lease(2, 6), Duration::ZERO).expect("room");
        clock.advance(LEASE_TTL / 2);
        let live = table.live();
        assert_eq!(live.len(), 1);
        assert_eq!(live[0].lowest_version, Version::new(6));
    }

    #[test]
    fn who_did_not_see_the_bucket_waits_for_the_renewals_that_it_refused() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(Arc::clone(&clock) as _, LEASE_TTL);
        let pass = |time: Duration| {
            let end = clock.elapsed() + time;
            while clock.elapsed() < end {
                clock.advance(Duration::from_secs(1));
                table.until_known();
            }
        };
        pass(OUT_OF_SIGHT);
        assert!(table.sees_bucket());
        table.saw_bucket();
        pass(LEASE_TTL);
        assert!(!table.sees_bucket());
        assert_eq!(table.until_known(), Duration::ZERO);
        table.saw_bucket();
        assert!(table.sees_bucket());
        assert_eq!(table.until_known(), LEASE_TTL);
    }

    #[test]
    fn who_stood_still_waits_for_the_renewals_that_it_missed() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(Arc::clone(&clock) as _, LEASE_TTL);
        assert_eq!(table.until_known(), LEASE_TTL);
        let mut looked = Duration::ZERO;
        while looked < LEASE_TTL {
            clock.advance(table.look_interval());
            looked += table.look_interval();
            assert_eq!(table.until_known(), LEASE_TTL - looked);
        }
        clock.advance(LEASE_TTL / 2);
        assert_eq!(table.until_known(), Duration::ZERO);
        table.renew(lease(1, 5), Duration::ZERO).expect("room");
        clock.advance(LEASE_TTL);
        assert!(table.live().is_empty());
        assert_eq!(table.until_known(), LEASE_TTL);
    }

    #[test]
    fn no_lease_takes_the_place_of_another_configurations_or_clusters() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(clock, LEASE_TTL);
        table.renew(lease(1, 5), Duration::ZERO).expect("room");
        let others = [("f", "d"), ("g", "c")];
        for (cluster, configuration) in others {
            let other = Lease {
                follower_cluster: cluster.into(),
                configuration: configuration.into(),
                ..lease(1, 100)
            };
            table.renew(other, Duration::ZERO).expect("room");
        }
        let versions = table.live().into_iter().map(|lease| lease.lowest_version);
        assert_eq!(versions.min(), Some(Version::new(5)));
    }

    #[test]
    fn a_renewal_that_was_overtaken_changes_nothing() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(Arc::clone(&clock) as _, LEASE_TTL);
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(2));
        table.renew(lease(1, 5), late).expect("room");
        let overtaken = table.renew(lease(1, 73), early);
        assert_eq!(overtaken, Err(LeaseError::Overtaken));
        assert_eq!(table.live()[0].lowest_version, Version::new(5));
        // One that has ended keeps nobody from coming back.
        clock.advance(LEASE_TTL);
        table.renew(lease(1, 73), early).expect("room");
    }

    #[test]
    fn a_detached_configuration_holds_nothing() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let table = LeaseTable::new(clock, LEASE_TTL);
        table.renew(lease(1, 5), Duration::ZERO).expect("room");
        table.release("f", "other");
        assert_eq!(table.live().len(), 1);
        table.release("f", "c");
        assert!(table.live().is_empty());
    }
}
