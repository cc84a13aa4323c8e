//! Keeps one database in step with its leader.
//!
//! The log in the bucket is the truth and the leader's stream the fast path to learn of it. So
//! every doubt is settled in the bucket: a commit that comes out of order, a commit that does
//! not verify, a leader that is silent. What does not verify there either stops the database at
//! its last good version, and says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipstream_catalog::{Commit, CorruptLog, DatabaseReader, DatabaseState};
use slipstream_model::{Digest, Timestamp, Version};
use slipstream_proto::sync::{Heartbeat, SubscribeRequest, SyncEvent, sync_event};
use slipstream_storage::BucketReader;
use tonic::{Code, Status};

use crate::following::Following;

/// How often a leader is heard of at most and at least, whatever it says.
const HEARTBEAT_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));
/// Heartbeats that may be missed before a leader counts as silent.
const HEARTBEATS_MISSED_MAX: u32 = 3;
/// What a leader is given to begin its stream.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach a silent leader: at first, and at most. Each pause is jittered,
/// so that followers of a leader that comes back do not all arrive at once.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Between two looks into the bucket while the leader is silent: right after something was
/// found, and at most. One look is one small GET.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Between two questions whether the log still leads on from here, when nothing speaks against it: it is
/// cut no sooner than a lease after this node was last heard of.
const START_PAUSE: Duration = Duration::from_secs(30);
/// Between two attempts to get past a record that does not verify, or a bucket that does not
/// answer: whoever repairs it does not wait long, and the log is not flooded.
const TROUBLE_PAUSE: Duration = Duration::from_secs(2);

/// Why a phase of following ended.
enum Trouble {
    /// The leader is silent or refuses; the bucket may still tell.
    Leader(String),
    /// The bucket does not answer.
    Bucket(String),
    /// What the bucket holds does not verify.
    Corrupt(String),
}

/// Follows until cancelled.
pub(crate) async fn run(following: Arc<Following>) {
    Follow::of(following).run().await;
}

struct Follow {
    following: Arc<Following>,
    reader: Option<DatabaseReader>,
    /// What came so far of a first synchronisation by the leader; shown once it is whole.
    staged: Option<Staged>,
    /// When it was last asked whether the log still leads on from what is served.
    looked_for_start: Option<Duration>,
    /// A leader says that what is served is not of its history, and the bucket was not asked yet, or says so
    /// too.
    is_disputed: bool,
}

/// A first synchronisation under way.
struct Staged {
    state: DatabaseState,
    /// The leader's version when it began; what is older is not shown.
    whole_at: Version,
}

impl Follow {
    fn of(following: Arc<Following>) -> Self {
        Self {
            following,
            reader: None,
            staged: None,
            looked_for_start: None,
            is_disputed: false,
        }
    }

    async fn run(mut self) {
        let mut pause = RECONNECT_PAUSE.0;
        loop {
            let trouble = match self.keep_in_step(&mut pause).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Leader(reason) => {
                    self.note_silence(&reason);
                    let until_retry = self.jitter(pause);
                    pause = (pause * 2).min(RECONNECT_PAUSE.1);
                    if let Err(trouble) = self.tail_bucket(until_retry).await {
                        self.note_trouble(trouble);
                        self.sleep(TROUBLE_PAUSE).await;
                    }
                }
                trouble => {
                    self.note_trouble(trouble);
                    self.sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    /// From whatever there is to listening to the leader; returns when that breaks.
    async fn keep_in_step(
        &mut self,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, Trouble> {
        let state = self.bootstrap().await?;
        let source = self.following.source();
        let url = source.leader_url.clone();
        let dialer = &self.following.context.dialer;
        let mut client = dialer
            .sync_client(&source.leader, &url)
            .await
            .map_err(|status| Trouble::Leader(describe(&status)))?;
        let request = SubscribeRequest {
            follower: Some(self.following.context.node.identity(&source.configuration)),
            bucket_id: source.bucket_id.as_bytes().to_vec().into(),
            database_id: source.database_id.as_bytes().to_vec().into(),
            from_version: state.version().get(),
            from_digest: state.digest().as_bytes().to_vec().into(),
        };
        let subscribed = tokio::time::timeout(WELCOME_TIMEOUT, client.subscribe(request)).await;
        let mut events = match subscribed {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                self.is_disputed |= matches!(status.code(), Code::OutOfRange | Code::DataLoss);
                return Err(Trouble::Leader(describe(&status)));
            }
            Err(_) => return Err(Trouble::Leader(format!("the leader at {url} is silent"))),
        };
        let mut patience = WELCOME_TIMEOUT;
        loop {
            let event = match tokio::time::timeout(patience, events.message()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Err(Trouble::Leader("the leader ended the stream".into())),
                Ok(Err(status)) => return Err(Trouble::Leader(describe(&status))),
                Err(_) => return Err(Trouble::Leader(format!("the leader at {url} is silent"))),
            };
            if let Some(sync_event::Event::Welcome(welcome)) = &event.event {
                let interval = Duration::from_millis(welcome.heartbeat_interval_ms);
                let interval = interval.clamp(HEARTBEAT_INTERVAL.0, HEARTBEAT_INTERVAL.1);
                patience = interval * HEARTBEATS_MISSED_MAX;
                *pause = RECONNECT_PAUSE.0;
                self.note_voice(&welcome.leader_cluster);
            }
            self.on_event(event).await?;
        }
    }

    /// The state to go on from: what is served, or, at first, what the bucket holds.
    async fn bootstrap(&mut self) -> Result<DatabaseState, Trouble> {
        let served = self.following.newest();
        if let Some(state) = served.state {
            if served.suspension.is_some() {
                self.look().await?;
                return Ok(self.following.newest().state.unwrap_or(state));
            }
            return Ok(state);
        }
        let source = self.following.source();
        if source.sharing.is_everything() {
            return self.load().await;
        }
        // The leader takes out what may not be seen here, so it is asked first. Only when it is
        // silent, or too far ahead, the bucket is read and filtered here.
        let empty =
            DatabaseState::empty_within(source.bucket_id, source.database_id, &source.sharing);
        self.staged = Some(Staged {
            state: empty.clone(),
            whole_at: Version::FIRST,
        });
        Ok(empty)
    }

    /// Reads everything from the bucket: newest checkpoint, and the commits after it.
    async fn load(&mut self) -> Result<DatabaseState, Trouble> {
        let asked = self.following.context.clock.now();
        let reader = self.reader().await?;
        let loaded = reader
            .load()
            .await
            .map_err(|error| Trouble::Bucket(error.to_string()))?;
        self.staged = None;
        let newest_at = loaded.corrupt.is_none().then_some(asked);
        self.publish(loaded.state.clone(), newest_at);
        match loaded.corrupt {
            None => Ok(loaded.state),
            Some(corrupt) => Err(Trouble::Corrupt(corrupt.to_string())),
        }
    }

    /// The reader, once the bucket is known to be the one that was attached.
    async fn reader(&mut self) -> Result<&DatabaseReader, Trouble> {
        if self.reader.is_none() {
            let source = self.following.source();
            let bucket = BucketReader::identify(self.following.context.connection.clone())
                .await
                .map_err(|error| Trouble::Bucket(error.to_string()))?;
            if bucket.id() != source.bucket_id {
                return Err(Trouble::Corrupt(format!(
                    "{} is bucket {}, and the database was attached from bucket {}: correct \
                     --bucket",
                    bucket.name(),
                    bucket.id(),
                    source.bucket_id
                )));
            }
            let sharing = Arc::clone(&source.sharing);
            self.reader = Some(DatabaseReader::within(bucket, source.database_id, sharing));
        }
        Ok(self.reader.as_ref().expect("set above"))
    }

    async fn on_event(&mut self, event: SyncEvent) -> Result<(), Trouble> {
        match event.event {
            Some(sync_event::Event::Welcome(welcome)) => {
                let newest = Version::new(welcome.version);
                if let Some(staged) = &mut self.staged {
                    staged.whole_at = newest;
                }
                self.following.heard(newest);
                Ok(())
            }
            Some(sync_event::Event::Commit(bytes)) => self.on_commit(&bytes).await,
            Some(sync_event::Event::Heartbeat(heartbeat)) => self.on_heartbeat(&heartbeat).await,
            Some(sync_event::Event::Checkpoint(_)) => {
                // What is left out on the way may be another history.
                if let Some(served) = self.following.newest().state {
                    self.is_disputed = true;
                    self.settle_dispute(&served).await?;
                }
                self.load().await?;
                Err(Trouble::Leader("reading on from a checkpoint".into()))
            }
            // A newer leader may say more than this program understands.
            None => Ok(()),
        }
    }

    async fn on_commit(&mut self, bytes: &Bytes) -> Result<(), Trouble> {
        let state = self.current();
        match verify(&state, bytes) {
            Ok(Some(next)) => {
                // What is sent to catch up is older than the leader has said it is.
                let is_newest = next.version() >= self.following.newest().newest_version;
                let now = self.following.context.clock.now();
                self.publish(next, is_newest.then_some(now));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(problem) => {
                tracing::warn!(
                    database = %self.following.source().database,
                    %problem,
                    "a commit from the leader does not verify; reading it from the bucket"
                );
                self.look().await.map(drop)
            }
        }
    }

    async fn on_heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), Trouble> {
        let state = self.current();
        let leader = Version::new(heartbeat.version);
        if leader > state.version() {
            // A commit was missed on the way; the bucket has it.
            self.following
                .update(|served| served.newest_version = leader);
            self.look().await?;
            return Ok(());
        }
        let digest = Digest::from_slice(&heartbeat.digest).unwrap_or_default();
        if leader == state.version() && digest != state.digest() {
            return Err(Trouble::Corrupt(format!(
                "at version {leader} the leader has digest {digest}, and this node {}",
                state.digest()
            )));
        }
        if leader == state.version() {
            self.following.heard(leader);
        }
        Ok(())
    }

    /// Follows the log in the bucket for a while. Looks at once when somebody waits.
    async fn tail_bucket(&mut self, duration: Duration) -> Result<(), Trouble> {
        let clock = Arc::clone(&self.following.context.clock);
        let end = clock.elapsed() + duration;
        let mut pause = LOOK_PAUSE.0;
        loop {
            let found = self.look().await?;
            pause = if found {
                LOOK_PAUSE.0
            } else {
                (pause * 2).min(LOOK_PAUSE.1)
            };
            let left = end.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = clock.sleep(self.jitter(pause).min(left)) => {}
                () = self.following.look.notified() => {}
            }
        }
    }

    /// Reads the commits in the bucket after what is served. Whether there were any.
    async fn look(&mut self) -> Result<bool, Trouble> {
        if self.following.newest().state.is_none() {
            self.load().await?;
            return Ok(true);
        }
        self.staged = None;
        let mut found = false;
        loop {
            let state = self.current();
            let asked = self.following.context.clock.now();
            let reader = self.reader().await?;
            let bytes = reader
                .commit_after(&state)
                .await
                .map_err(|error| Trouble::Bucket(error.to_string()))?;
            let Some(bytes) = bytes else {
                if !found && self.is_cut_off(&state).await? {
                    self.load().await?;
                    return Ok(true);
                }
                self.settle_dispute(&state).await?;
                self.clear_suspension();
                self.following.was_newest(asked);
                return Ok(found);
            };
            match verify(&state, &bytes) {
                // There may be more behind it.
                Ok(Some(next)) => self.publish(next, None),
                Ok(None) => return Ok(found),
                Err(problem) => return Err(Trouble::Corrupt(problem.to_string())),
            }
            found = true;
        }
    }

    /// Whether the log no longer leads on from a state. While this node is in touch with its leader the
    /// lease keeps what it needs, so it is rarely asked.
    async fn is_cut_off(&mut self, state: &DatabaseState) -> Result<bool, Trouble> {
        let now = self.following.context.clock.elapsed();
        let is_behind = self.following.newest().newest_version > state.version();
        let looked = self.looked_for_start;
        if !is_behind && looked.is_some_and(|looked| now < looked + START_PAUSE) {
            return Ok(false);
        }
        let is_cut_off = self.reader().await?.is_cut_off(state).await;
        let is_cut_off = is_cut_off.map_err(|error| Trouble::Bucket(error.to_string()))?;
        self.looked_for_start = Some(now);
        if is_cut_off {
            tracing::warn!(
                database = %self.following.source().database, version = %state.version(),
                "the log that leads on from here was deleted; reading the newest state anew"
            );
        }
        Ok(is_cut_off)
    }

    /// Asks the bucket who is right when a leader does not know what is served: a leader that another one has
    /// replaced is behind the log, and a log that was put back from a copy is behind this node.
    async fn settle_dispute(&mut self, state: &DatabaseState) -> Result<(), Trouble> {
        if !self.is_disputed {
            return Ok(());
        }
        let is_history = self.reader().await?.remembers(state).await;
        if is_history.map_err(|error| Trouble::Bucket(error.to_string()))? {
            self.is_disputed = false;
            return Ok(());
        }
        Err(Trouble::Corrupt(format!(
            "version {} with digest {} is served here, and the log in the bucket does not have it: was the \
             bucket put back from an older copy? Restart this node to go on from what the bucket has",
            state.version(),
            state.digest()
        )))
    }

    fn current(&self) -> DatabaseState {
        if let Some(staged) = &self.staged {
            return staged.state.clone();
        }
        self.following
            .newest()
            .state
            .expect("only called after the first synchronisation")
    }

    /// Shows a newer state, whole and at once; with it, when it was known to be the newest, if it was.
    fn publish(&mut self, state: DatabaseState, newest_at: Option<Timestamp>) {
        match &mut self.staged {
            Some(staged) if state.version() < staged.whole_at => {
                staged.state = state;
                return;
            }
            _ => self.staged = None,
        }
        metrics::gauge!(
            "slipstream_database_version",
            "database" => self.following.source().database.clone()
        )
        .set(state.version().get() as f64);
        self.following.publish(state, newest_at);
    }

    fn clear_suspension(&self) {
        if self.following.newest().suspension.is_some() {
            tracing::info!(
                database = %self.following.source().database,
                "the database follows again"
            );
            self.following.update(|served| served.suspension = None);
        }
    }

    fn note_voice(&self, leader: &str) {
        let database = &self.following.source().database;
        tracing::info!(%database, leader, "in step with the leader");
        self.following.update(|served| served.leader_silence = None);
    }

    fn note_silence(&self, reason: &str) {
        if self.following.newest().leader_silence.as_deref() != Some(reason) {
            tracing::warn!(
                database = %self.following.source().database,
                reason,
                "the leader is silent; following the log in the bucket"
            );
            self.following
                .update(|served| served.leader_silence = Some(reason.to_owned()));
        }
    }

    fn note_trouble(&self, trouble: Trouble) {
        let reason = match trouble {
            Trouble::Leader(reason) => return self.note_silence(&reason),
            Trouble::Bucket(reason) | Trouble::Corrupt(reason) => reason,
        };
        if self.following.newest().suspension.as_deref() != Some(reason.as_str()) {
            tracing::error!(
                database = %self.following.source().database,
                %reason,
                "the database stands still at its last good version"
            );
            self.following
                .update(|served| served.suspension = Some(reason));
        }
    }

    fn jitter(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.following.context.entropy.fraction())
    }

    async fn sleep(&self, pause: Duration) {
        let pause = self.jitter(pause);
        self.following.context.clock.sleep(pause).await;
    }
}

/// The state after a commit; `None` when the commit is not newer than the state.
fn verify(state: &DatabaseState, bytes: &Bytes) -> Result<Option<DatabaseState>, CorruptLog> {
    let commit = Commit::decode(bytes)?;
    if commit.version() <= state.version() {
        return Ok(None);
    }
    state.apply(&commit).map(Some)
}

fn describe(status: &Status) -> String {
    match status.code() {
        Code::Unavailable | Code::Unknown => status.message().to_owned(),
        code => format!("{} ({code:?})", status.message()),
    }
}

#[cfg(test)]
mod tests {
    use slipstream_model::Clock;
    use slipstream_proto::sync::Welcome;

    use super::*;
    use crate::tests::World;

    #[tokio::test]
    async fn commits_that_catch_up_say_nothing_of_how_fresh_their_states_are() {
        let world = World::new().await;
        let mut follow = Follow::of(Arc::new(Following::new(
            world.source(),
            None,
            world.context(),
        )));
        let loaded_at = world.clock.now();
        assert!(follow.load().await.is_ok());
        let commits = [world.commit().await, world.commit().await];
        world.clock.advance(Duration::from_secs(10));
        let welcome = Welcome {
            version: commits[1].version.get(),
            ..Welcome::default()
        };
        let first = sync_event::Event::Commit(commits[0].bytes.clone());
        for event in [sync_event::Event::Welcome(welcome), first] {
            let event = SyncEvent { event: Some(event) };
            assert!(follow.on_event(event).await.is_ok());
            assert_eq!(follow.following.served().last_contact, loaded_at);
        }
        let last = sync_event::Event::Commit(commits[1].bytes.clone());
        let event = SyncEvent { event: Some(last) };
        assert!(follow.on_event(event).await.is_ok());
        assert_eq!(
            follow.following.served().last_contact,
            world.clock.now(),
            "nothing newer was heard of"
        );
    }
}
