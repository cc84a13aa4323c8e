//! One followed database: what is served of it, and the tasks that keep it in step.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_catalog::DatabaseState;
use slipstream_model::{
    BucketId, Clock, DatabaseId, Entropy, Freshness, TableLevelSharing, Timestamp, Version,
};
use slipstream_storage::BucketConnection;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::{Dialer, NodeName};
use crate::pins::{Pin, Pins};
use crate::{follow, lease};

/// What is served of a database, as of now. Replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The newest state that verified; `None` before the first synchronisation.
    pub state: Option<DatabaseState>,
    /// When it was last known to be the newest there is. A state that took its place while nobody knew
    /// whether there is a newer one keeps the time of its predecessor, which it is no older than.
    pub last_contact: Timestamp,
    /// The newest version that the leader or the bucket was heard to have.
    pub newest_version: Version,
    /// Why the database stands still, when it does.
    pub suspension: Option<String>,
    /// Since when it has stood still without a break.
    pub suspended_since: Option<Timestamp>,
    /// Why the leader is not being listened to, when it is not.
    pub leader_silence: Option<String>,
}

/// Where a followed database comes from, and what it is called here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The attached database configuration.
    pub configuration: String,
    /// The leader cluster.
    pub leader: String,
    /// Where the leader answers gRPC now, which may be another address than when it was attached.
    pub leader_url: String,
    /// The bucket.
    pub bucket_id: BucketId,
    /// The database.
    pub database_id: DatabaseId,
    /// Its name here.
    pub database: String,
    /// Its name at the leader.
    pub original_name: String,
    /// What of it is followed.
    pub sharing: Arc<TableLevelSharing>,
}

/// A followed database.
#[derive(Debug)]
pub struct Following {
    source: Source,
    /// The newest that verified.
    newest: watch::Sender<Served>,
    /// What queries get: the same, or an older state while its successor is being fetched.
    served: watch::Sender<Served>,
    held: Mutex<Held>,
    pub(crate) pins: Pins,
    /// The lowest version that is kept here by name.
    pinned: Mutex<Option<Version>>,
    /// The lowest version that the newest lease names; `None` while there is none.
    leased: watch::Sender<Option<Version>>,
    /// Asks the lease task to renew at once.
    pub(crate) renew: Notify,
    /// Asks the follow task to look into the bucket at once: somebody waits.
    pub(crate) look: Notify,
    pub(crate) cancelled: CancellationToken,
    pub(crate) context: FollowContext,
    /// What the last lease renewal failed with, so that it is logged once and not each time.
    pub(crate) lease_failure: Mutex<Option<String>>,
}

/// Whether new states wait until their extents are near (`prefetch-extents`).
#[derive(Debug, Default)]
struct Held {
    is_on: bool,
    /// Since when newer states than the served one wait.
    since: Option<Duration>,
}

/// How long states may wait for their extents while none of them can be shown. A bucket that gives nothing
/// must not make a follower fall behind for ever.
const HELD_MAX: Duration = Duration::from_secs(60);

/// What every followed database needs.
#[derive(Debug, Clone)]
pub struct FollowContext {
    /// The bucket, which may not be there yet.
    pub connection: BucketConnection,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub entropy: Entropy,
    /// Who this node is to its leaders.
    pub node: NodeName,
    /// Reaches them.
    pub dialer: Dialer,
    /// Holds the tasks, so that a stopping node can wait for them.
    pub tasks: TaskTracker,
    /// Ends every task when the node stops.
    pub shutdown: CancellationToken,
    /// Says that a database has another version: its extents may be wanted near.
    pub news: Arc<Notify>,
    /// Whether rows are shown that a leader has streamed in and not yet moved into files.
    pub shows_streamed: bool,
}

impl FollowContext {
    /// What queries see of a state.
    pub(crate) fn visible(&self, state: DatabaseState) -> DatabaseState {
        if self.shows_streamed {
            state
        } else {
            state.without_streamed_rows()
        }
    }
}

impl Following {
    /// Starts to follow; `pinned` is the lowest version that is kept here by name.
    pub(crate) fn start(
        source: Source,
        pinned: Option<Version>,
        context: FollowContext,
    ) -> Arc<Self> {
        let following = Arc::new(Self::new(source, pinned, context));
        let tasks = following.context.tasks.clone();
        tasks.spawn(until_cancelled(Arc::clone(&following), follow::run));
        tasks.spawn(until_cancelled(Arc::clone(&following), lease::run));
        following
    }

    /// Without the tasks that keep it in step.
    pub(crate) fn new(source: Source, pinned: Option<Version>, context: FollowContext) -> Self {
        Self {
            source,
            newest: watch::Sender::new(Served::default()),
            served: watch::Sender::new(Served::default()),
            held: Mutex::default(),
            pins: Pins::default(),
            pinned: Mutex::new(pinned),
            leased: watch::Sender::new(None),
            renew: Notify::new(),
            look: Notify::new(),
            cancelled: context.shutdown.child_token(),
            lease_failure: Mutex::new(None),
            context,
        }
    }

    /// Stops to follow.
    pub(crate) fn stop(&self) {
        self.cancelled.cancel();
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is served now.
    pub fn served(&self) -> Served {
        self.served.borrow().clone()
    }

    /// The newest that verified, which may not be served yet.
    pub(crate) fn newest(&self) -> Served {
        self.newest.borrow().clone()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Served> {
        self.served.subscribe()
    }

    /// Changes what is served.
    ///
    /// # Panics
    /// When the version would go back: that must never be seen by anybody.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Served)) {
        let mut is_news = false;
        self.newest.send_modify(|served| {
            let before = served.state.as_ref().map(DatabaseState::version);
            change(served);
            let after = served.state.as_ref().map(DatabaseState::version);
            assert!(
                after >= before,
                "the served version went back from {before:?} to {after:?}"
            );
            served.suspended_since = match (&served.suspension, served.suspended_since) {
                (None, _) => None,
                (Some(_), since) => since.or(Some(self.context.clock.now())),
            };
            if let Some(version) = after {
                served.newest_version = served.newest_version.max(version);
            }
            is_news = after > before;
        });
        if is_news {
            self.context.news.notify_one();
        }
        self.serve(None);
    }

    /// Whether new states wait until [`show`](Self::show) lets them be seen.
    pub(crate) fn hold(&self, is_on: bool) {
        self.held.lock().is_on = is_on;
        self.serve(None);
    }

    /// Serves a state that has all it needs near, and that was known to be the newest at a time.
    pub(crate) fn show(&self, state: &DatabaseState, newest_at: Timestamp) {
        self.serve(Some((state, newest_at)));
    }

    /// Serves the newest state, or, while it is held, the newest that may be seen.
    fn serve(&self, ready: Option<(&DatabaseState, Timestamp)>) {
        // Locked until it is served: two at one time must not pass each other.
        let mut held = self.held.lock();
        let newest = self.newest.borrow().clone();
        let version = |state: &Option<DatabaseState>| state.as_ref().map(DatabaseState::version);
        let before = self.served.borrow().clone();
        let mut shown = (before.state.clone(), before.last_contact);
        if let Some((state, newest_at)) = ready
            && Some(state.version()) > version(&before.state)
        {
            shown = (Some(state.clone()), newest_at);
            // The bucket gives what is asked of it. What came after this state has its own time.
            held.since = None;
        }
        let waits = held.is_on && shown.0.is_some() && version(&shown.0) < version(&newest.state);
        let now = self.context.clock.elapsed();
        let waited = waits.then(|| now.saturating_sub(*held.since.get_or_insert(now)));
        let (state, last_contact) = match waited {
            Some(waited) if waited <= HELD_MAX => shown,
            Some(_) => {
                tracing::warn!(
                    database = %self.source.database,
                    "the extents of a new version are not all here after {HELD_MAX:?}: it is served as it is"
                );
                metrics::counter!("slipstream_prefetch_given_up_total").increment(1);
                held.since = None;
                (newest.state.clone(), newest.last_contact)
            }
            None => {
                held.since = None;
                (newest.state.clone(), newest.last_contact)
            }
        };
        // What is served already is not made again: it is what remembered plans go by.
        let state = match (state, before.state) {
            (Some(state), Some(before)) if state.version() == before.version() => Some(before),
            (state, _) => state.map(|state| self.context.visible(state)),
        };
        self.served.send_replace(Served {
            state,
            last_contact,
            ..newest
        });
    }

    /// Notes a state that verified, and when it was known to be the newest, if it was.
    pub(crate) fn publish(&self, state: DatabaseState, newest_at: Option<Timestamp>) {
        let now = self.context.clock.now();
        self.update(|served| {
            let known = served.state.as_ref().map(DatabaseState::version);
            served.last_contact = match (newest_at, known) {
                (Some(at), _) => at,
                // Nothing else is known yet, and when it was committed it was the newest.
                (None, None) => state.committed_at().min(now),
                (None, Some(_)) => served.last_contact,
            };
            if known.is_none_or(|known| known < state.version()) {
                served.state = Some(state);
            }
            served.suspension = None;
        });
    }

    /// Notes that the leader has just said which version is its newest.
    pub(crate) fn heard(&self, newest: Version) {
        let now = self.context.clock.now();
        self.update(|served| {
            served.newest_version = served.newest_version.max(newest);
            let version = served.state.as_ref().map(DatabaseState::version);
            if version == Some(served.newest_version) {
                served.last_contact = now;
            }
        });
    }

    /// Notes that the log in the bucket, which is the truth, had nothing newer at a time.
    pub(crate) fn was_newest(&self, at: Timestamp) {
        self.update(|served| {
            served.last_contact = at;
            let version = served.state.as_ref().map(DatabaseState::version);
            served.newest_version = version.unwrap_or_default();
        });
    }

    /// Holds a version for a reader, so that the lease names it.
    pub(crate) fn pin(&self, version: Version) -> Pin {
        self.pins.hold(version)
    }

    /// Keeps this version and all after it, so that the lease names it, or no older one than what
    /// is read.
    pub(crate) fn set_pinned(&self, lowest: Option<Version>) {
        *self.pinned.lock() = lowest;
    }

    /// The lowest version that is still needed, where `current` is served. Before the first synchronisation
    /// only what is pinned is.
    pub(crate) fn lowest_needed(&self, current: Option<Version>) -> Option<Version> {
        let (read, pinned) = (self.pins.lowest(), *self.pinned.lock());
        let needed = [current, read, pinned];
        needed.into_iter().flatten().min()
    }

    /// Notes which lowest version the leader knows of; `None`: perhaps of none any more.
    pub(crate) fn note_lease(&self, lowest: Option<Version>) {
        self.leased.send_replace(lowest);
    }

    /// Waits until the leader has granted a lease that names this version or an older one; whether
    /// it has.
    pub(crate) async fn is_leased(&self, version: Version, patience: Duration) -> bool {
        let mut leased = self.leased.subscribe();
        // A renewal that is on its way may name what was needed before.
        self.note_lease(None);
        self.renew.notify_one();
        let granted = leased.wait_for(|lowest| lowest.is_some_and(|lowest| lowest <= version));
        let granted = tokio::time::timeout(patience, granted).await;
        granted.is_ok_and(|granted| granted.is_ok())
    }

    /// How fresh what is served is; `None` before the first synchronisation.
    pub fn freshness(&self, served: &Served) -> Option<Freshness> {
        let state = served.state.as_ref()?;
        Some(Freshness {
            database: self.source.database.clone(),
            version: state.version(),
            digest: state.digest(),
            last_contact: served.last_contact,
            committed_at: state.committed_at(),
            versions_behind: served
                .newest_version
                .get()
                .saturating_sub(state.version().get()),
        })
    }
}

async fn until_cancelled<F>(following: Arc<Following>, run: fn(Arc<Following>) -> F)
where
    F: Future<Output = ()>,
{
    let cancelled = following.cancelled.clone();
    cancelled.run_until_cancelled(run(following)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::World;

    fn version(served: &Served) -> Version {
        let state = served.state.as_ref().expect("synchronised");
        state.version()
    }

    #[tokio::test]
    async fn a_state_is_the_newest_at_a_time_only_when_no_newer_one_was_heard_of() {
        let world = World::new().await;
        let following = Following::new(world.source(), None, world.context());
        let states = [world.commit().await.state, world.commit().await.state];
        let known = world.clock.now();
        following.publish(states[0].clone(), Some(known));
        world.clock.advance(Duration::from_secs(10));
        following.heard(states[1].version());
        assert_eq!(following.served().last_contact, known);
        // On the way there it is not known either what is newer.
        following.publish(states[1].clone(), None);
        assert_eq!(following.served().last_contact, known);
        following.heard(states[1].version());
        assert_eq!(following.served().last_contact, world.clock.now());
        // The log in the bucket has the last word.
        following.heard(states[1].version().next());
        world.clock.advance(Duration::from_secs(10));
        following.was_newest(world.clock.now());
        let served = following.served();
        assert_eq!(served.last_contact, world.clock.now());
        assert_eq!(
            following.freshness(&served).expect("some").versions_behind,
            0
        );
    }

    #[tokio::test]
    async fn a_first_state_that_may_not_be_the_newest_is_as_old_as_its_commit() {
        let world = World::new().await;
        let following = Following::new(world.source(), None, world.context());
        let state = world.commit().await.state;
        world.clock.advance(Duration::from_secs(10));
        following.publish(state.clone(), None);
        assert_eq!(following.served().last_contact, state.committed_at());
    }

    #[tokio::test]
    async fn a_state_that_is_held_back_leaves_its_predecessor_as_old_as_it_is() {
        let world = World::new().await;
        let following = Following::new(world.source(), None, world.context());
        following.hold(true);
        let (mut states, mut times) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            states.push(world.commit().await.state);
            times.push(world.clock.now());
            following.publish(states[states.len() - 1].clone(), Some(world.clock.now()));
        }
        world.clock.advance(Duration::from_secs(10));
        following.heard(states[2].version());
        let served = following.served();
        assert_eq!(version(&served), states[0].version());
        assert_eq!(served.last_contact, times[0]);

        following.show(&states[1], times[1]);
        following.heard(states[2].version());
        let served = following.served();
        assert_eq!(version(&served), states[1].version());
        assert_eq!(served.last_contact, times[1]);

        following.show(&states[2], times[2]);
        let served = following.served();
        assert_eq!(version(&served), states[2].version());
        assert_eq!(served.last_contact, world.clock.now());
    }

    #[tokio::test]
    async fn what_is_pinned_is_needed_before_anything_is_served() {
        let world = World::new().await;
        let pinned = Some(Version::new(2));
        let following = Following::new(world.source(), pinned, world.context());
        assert_eq!(following.lowest_needed(None), pinned);
        assert_eq!(following.lowest_needed(Some(Version::new(7))), pinned);
        following.set_pinned(None);
        assert_eq!(following.lowest_needed(None), None);
        let reader = following.pin(Version::new(5));
        assert_eq!(
            following.lowest_needed(Some(Version::new(7))),
            Some(Version::new(5))
        );
        drop(reader);
        assert_eq!(
            following.lowest_needed(Some(Version::new(7))),
            Some(Version::new(7))
        );
    }

    #[tokio::test]
    async fn states_are_held_back_for_as_long_as_their_extents_keep_coming() {
        let world = World::new().await;
        let following = Following::new(world.source(), None, world.context());
        following.hold(true);
        let mut shown = world.commit().await.state;
        following.publish(shown.clone(), Some(world.clock.now()));
        let mut next = world.commit().await.state;
        let mut next_at = world.clock.now();
        following.publish(next.clone(), Some(next_at));
        for _ in 0..5 {
            // Before one is here, the one after it has come.
            world.clock.advance(HELD_MAX / 3 * 2);
            let later = world.commit().await.state;
            let later_at = world.clock.now();
            following.publish(later.clone(), Some(later_at));
            assert_eq!(version(&following.served()), shown.version());
            following.show(&next, next_at);
            (shown, next, next_at) = (next, later, later_at);
            assert_eq!(version(&following.served()), shown.version());
        }
        // When nothing comes any more, what there is is served as it is.
        world.clock.advance(HELD_MAX * 2);
        following.heard(next.version());
        assert_eq!(version(&following.served()), next.version());
    }
}
