//! Databases as they were: older versions, from the checkpoints and the log that are kept.
//!
//! A version is read by replaying the log from the nearest state below it that is at hand: one
//! that was asked for lately, a checkpoint, or the beginning. Every commit on the way is verified,
//! as it is when a database is followed. A state that leaves out what may not be seen leads to
//! older ones that leave out the same.

mod dropped;

use std::collections::VecDeque;
use std::fmt;

use futures::future::join_all;
use parking_lot::Mutex;
use slipstream_model::{DatabaseId, Digest, Timestamp, Version};
use slipstream_storage::{BucketPath, BucketReader};
use tokio::sync::Semaphore;

use crate::database::DatabaseRecord;
use crate::log::{LogRecord, LogState};
use crate::{CatalogError, Commit, CorruptLog, DatabaseState, LogStart, checkpoint, log};

pub use dropped::DroppedTable;

/// States that are remembered. A dashboard that compares some versions asks for the same ones again
/// and again; each may hold a million extents, shared with its neighbours as far as they are equal.
const STATES_MAX: usize = 16;
/// Versions that are read at one time; more wait. Each may hold a window of commits in memory.
const REPLAYS_MAX: usize = 4;
/// Objects that are read at once, as when a log is loaded.
const FETCH_CONCURRENCY: u64 = 16;
/// Commits that are read at once to tell what they did. Nobody waits for that in haste, and each may
/// be as large as a commit can be.
const SUMMARY_CONCURRENCY: usize = 4;
/// How far below a version a checkpoint is looked for, number by number: the bucket is not listed.
/// A leader writes one every 64 commits; under load a few more lie between two.
const CHECKPOINT_PROBES: u64 = 192;
/// Commits that are replayed for one version. At some thousand a second that is under a minute.
const REPLAY_COMMITS_MAX: u64 = 100_000;

/// An older version that cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// It is in the future.
    #[error("version {wanted} is not there yet: the newest here is version {newest}")]
    NotYet {
        /// The version that was asked for.
        wanted: Version,
        /// The newest that there is.
        newest: Version,
    },
    /// There is no version before the first commit.
    #[error("there is no version 0: versions are counted from 1")]
    BeforeFirst,
    /// Who asks has not read on to it.
    #[error(
        "at {time} version {newest}, the newest that is here, had a successor already: ask again when it \
         has arrived"
    )]
    Behind {
        /// The time that was asked for.
        time: Timestamp,
        /// The newest that is here.
        newest: Version,
    },
    /// The database did not exist then.
    #[error("nothing had been committed at {0}")]
    TooEarly(Timestamp),
    /// Commits that lead to it were deleted.
    #[error(
        "version {wanted} is no longer kept: the log that leads to it was deleted{}",
        oldest_kept(*oldest)
    )]
    NotKept {
        /// The version that was asked for.
        wanted: Version,
        /// The oldest that is kept, when it is known.
        oldest: Option<Version>,
    },
    /// Reading it takes more than may be spent on it.
    #[error(
        "version {wanted} lies {commits} commits after the nearest state that is kept, and at most \
         {max} are replayed", max = REPLAY_COMMITS_MAX
    )]
    TooFar {
        /// The version that was asked for.
        wanted: Version,
        /// Commits to be replayed.
        commits: u64,
    },
    /// The bucket did not answer, or what it holds cannot be trusted.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

fn oldest_kept(oldest: Option<Version>) -> String {
    oldest.map_or_else(String::new, |oldest| {
        format!(". The oldest that can be read is version {oldest}")
    })
}

/// A version, as its commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    /// Its number.
    pub version: Version,
    /// The leader's clock then.
    pub committed_at: Timestamp,
    /// The digest of the database at it.
    pub digest: Digest,
    /// What it changed: each kind of record once. Empty when it only opened the log, or changed
    /// nothing but what is left out.
    pub changes: Vec<&'static str>,
}

/// The older versions of the databases of a bucket.
pub struct History {
    bucket: BucketReader,
    /// The one that was used last stands last.
    recent: Mutex<VecDeque<DatabaseState>>,
    turns: Semaphore,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl History {
    /// Makes no request.
    pub fn new(bucket: BucketReader) -> Self {
        Self {
            bucket,
            recent: Mutex::default(),
            turns: Semaphore::new(REPLAYS_MAX),
        }
    }

    /// A database at an older version, of which the newest state is known. What that leaves out is
    /// left out.
    ///
    /// # Errors
    /// When there is no such version, or it is no longer kept.
    pub async fn state_at(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<DatabaseState, HistoryError> {
        if version == Version::ZERO {
            return Err(HistoryError::BeforeFirst);
        }
        if version > newest.version() {
            return Err(HistoryError::NotYet {
                wanted: version,
                newest: newest.version(),
            });
        }
        if version == newest.version() {
            return Ok(newest.clone());
        }
        if let Some(known) = self.recall(newest, version) {
            return Ok(known);
        }
        // Never closed, so that there always is a turn.
        let _turn = self.turns.acquire().await;
        // Whoever was before may have asked for the same.
        if let Some(known) = self.recall(newest, version) {
            return Ok(known);
        }
        let state = self.read(newest, version).await?;
        self.remember(state.clone());
        Ok(state)
    }

    /// The newest version of a database that was committed at a time or before it, by the clock of
    /// the leader that committed it.
    ///
    /// # Errors
    /// When there was none then, or it is no longer kept.
    pub async fn version_at(
        &self,
        newest: &DatabaseState,
        time: Timestamp,
    ) -> Result<Version, HistoryError> {
        if newest.version() == Version::ZERO {
            return Err(HistoryError::TooEarly(time));
        }
        if newest.committed_at() <= time {
            return Ok(newest.version());
        }
        // Commit times never go back, and the log is deleted from its beginning: what is missing is
        // older than what is there.
        let oldest = self.oldest(newest).await?;
        let before = oldest.map_or(0, |oldest| oldest.get() - 1);
        let (mut below, mut above) = (Version::new(before), newest.version());
        let mut is_kept = false;
        while below.next() < above {
            let middle = Version::new(below.get() + (above.get() - below.get()) / 2);
            match self.commit(newest.id(), middle).await? {
                Some(commit) if commit.committed_at() > time => above = middle,
                Some(_) => (below, is_kept) = (middle, true),
                None => (below, is_kept) = (middle, false),
            }
        }
        match (below, is_kept) {
            (Version::ZERO, _) => Err(HistoryError::TooEarly(time)),
            (version, true) => Ok(version),
            (wanted, false) => Err(HistoryError::NotKept { wanted, oldest }),
        }
    }

    /// Whether a state that was the newest by a time as far as is known here was it in truth. Whoever writes
    /// the log need not ask; who follows it may be behind. The log decides and no clock: when this node was
    /// in touch with the leader is by another clock than that of its commits.
    ///
    /// # Errors
    /// `Behind` when there was a newer one by then, or when the bucket cannot be read.
    pub async fn check_newest_at(
        &self,
        newest: &DatabaseState,
        time: Timestamp,
    ) -> Result<(), HistoryError> {
        let next = self.commit(newest.id(), newest.version().next()).await?;
        let is_behind = match next {
            Some(commit) => commit.committed_at() <= time,
            // There was one, when the log begins after it.
            None => self.oldest(newest).await? > Some(newest.version()),
        };
        if !is_behind {
            return Ok(());
        }
        Err(HistoryError::Behind {
            time,
            newest: newest.version(),
        })
    }

    /// The newest checkpoint that is not above a version, as far as it is worth looking for, and that
    /// the log goes on from.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn checkpoint_before(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<Option<DatabaseState>, HistoryError> {
        self.checkpoint(newest, Version::ZERO, version).await
    }

    /// The version that the log begins with, since its beginning was deleted.
    async fn oldest(&self, newest: &DatabaseState) -> Result<Option<Version>, HistoryError> {
        let start = LogStart::newest(&self.bucket, newest.id()).await?;
        Ok(start.map(|start| start.version))
    }

    async fn not_kept(&self, newest: &DatabaseState, wanted: Version) -> HistoryError {
        match self.oldest(newest).await {
            Ok(oldest) => HistoryError::NotKept { wanted, oldest },
            Err(error) => error,
        }
    }

    /// The newest versions of a database, newest first: at most so many, and as far back as the log
    /// is kept. Nothing is told of what the newest state leaves out.
    ///
    /// # Errors
    /// When the bucket does not answer, or a commit cannot be read.
    pub async fn summaries(
        &self,
        newest: &DatabaseState,
        count: usize,
    ) -> Result<Vec<VersionSummary>, HistoryError> {
        let numbers: Vec<u64> = (1..=newest.version().get()).rev().take(count).collect();
        let mut summaries = Vec::with_capacity(numbers.len());
        for window in numbers.chunks(SUMMARY_CONCURRENCY) {
            let reads = window
                .iter()
                .map(|number| self.summary(newest, Version::new(*number)));
            let reads: Vec<_> = reads.collect();
            for summary in join_all(reads).await {
                match summary? {
                    Some(summary) => summaries.push(summary),
                    None => return Ok(summaries),
                }
            }
        }
        Ok(summaries)
    }

    async fn summary(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<Option<VersionSummary>, HistoryError> {
        let Some(commit) = self.commit(newest.id(), version).await? else {
            return Ok(None);
        };
        let path = BucketPath::database_commit(newest.id(), version);
        let mut changes = Vec::new();
        let sections = commit.sections().iter();
        let records = sections
            .filter(|section| newest.tells_of(section.subject))
            .flat_map(|section| &section.records);
        for bytes in records {
            let record = DatabaseRecord::decode(bytes)
                .map_err(|what| CatalogError::from(CorruptLog::undecodable(&path, what)))?;
            let word = record.word();
            if !changes.contains(&word) {
                changes.push(word);
            }
        }
        Ok(Some(VersionSummary {
            version,
            committed_at: commit.committed_at(),
            digest: commit.digest(),
            changes,
        }))
    }

    fn recall(&self, newest: &DatabaseState, version: Version) -> Option<DatabaseState> {
        let mut recent = self.recent.lock();
        let is_it = |known: &DatabaseState| known.version() == version && known.is_same_as(newest);
        let position = recent.iter().position(is_it)?;
        let state = recent.remove(position)?;
        recent.push_back(state.clone());
        Some(state)
    }

    fn remember(&self, state: DatabaseState) {
        let mut recent = self.recent.lock();
        if recent.len() >= STATES_MAX {
            recent.pop_front();
        }
        recent.push_back(state);
    }

    async fn read(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<DatabaseState, HistoryError> {
        let start = self.start(newest, version).await?;
        let commits = version.get() - start.version().get();
        if commits > REPLAY_COMMITS_MAX {
            return Err(HistoryError::TooFar {
                wanted: version,
                commits,
            });
        }
        match self.replay(start, version).await? {
            Some(state) => Ok(state),
            None => Err(self.not_kept(newest, version).await),
        }
    }

    /// The nearest state at hand that is not newer than a version.
    async fn start(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<DatabaseState, HistoryError> {
        let recent = {
            let recent = self.recent.lock();
            let known = recent
                .iter()
                .filter(|known| known.version() <= version && known.is_same_as(newest));
            known.max_by_key(|known| known.version()).cloned()
        };
        let above = recent
            .as_ref()
            .map_or(Version::ZERO, DatabaseState::version);
        let checkpoint = self.checkpoint(newest, above, version).await?;
        if let Some(nearest) = checkpoint.or(recent) {
            return Ok(nearest);
        }
        let start = newest.load_start(&self.bucket, Version::ZERO).await?;
        let start = start.unwrap_or_else(|| newest.beginning());
        if start.version() > version {
            return Err(HistoryError::NotKept {
                wanted: version,
                oldest: Some(start.version()),
            });
        }
        Ok(start)
    }

    /// The newest checkpoint above one version and not above another, as far as it is worth looking
    /// for.
    async fn checkpoint(
        &self,
        newest: &DatabaseState,
        above: Version,
        version: Version,
    ) -> Result<Option<DatabaseState>, HistoryError> {
        let (above, mut upper) = (above.get(), version.get());
        // Looking for one costs no less than reading as many commits.
        if upper - above <= FETCH_CONCURRENCY {
            return Ok(None);
        }
        let lowest = (above + 1).max(upper.saturating_sub(CHECKPOINT_PROBES - 1));
        while upper >= lowest {
            let lower = lowest.max((upper + 1).saturating_sub(FETCH_CONCURRENCY));
            let probes = (lower..=upper).rev().map(|number| async move {
                let version = Version::new(number);
                let path = BucketPath::checkpoint_root(newest.id(), version);
                let found = self.bucket.try_get(&path).await;
                found.map(|root| root.map(|_| version))
            });
            let probes: Vec<_> = probes.collect();
            for found in join_all(probes).await {
                let Some(found) = found.map_err(CatalogError::from)? else {
                    continue;
                };
                if let Some(state) = self.load(newest, found).await? {
                    return Ok(Some(state));
                }
            }
            upper = lower - 1;
        }
        Ok(None)
    }

    /// A checkpoint that the log goes on from; `None` when it cannot be used.
    async fn load(
        &self,
        newest: &DatabaseState,
        version: Version,
    ) -> Result<Option<DatabaseState>, HistoryError> {
        let beginning = newest.beginning();
        let state = match checkpoint::load(&self.bucket, &beginning, version).await {
            Ok(state) => state,
            Err(error) if checkpoint::is_lost(&error) => {
                tracing::warn!(
                    database = %newest.id(), %version, %error,
                    "a checkpoint cannot be used; more of the log is read"
                );
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let next = self.commit(newest.id(), version.next()).await?;
        let goes_on = next.is_none_or(|next| next.previous_digest() == state.digest());
        if !goes_on {
            tracing::warn!(
                database = %newest.id(), %version,
                "the log does not go on from a checkpoint; more of it is read"
            );
        }
        Ok(goes_on.then_some(state))
    }

    /// Applies the commits after a state, up to a version; `None` when one of them is missing.
    async fn replay(
        &self,
        mut state: DatabaseState,
        version: Version,
    ) -> Result<Option<DatabaseState>, HistoryError> {
        while state.version() < version {
            let first = state.version().next().get();
            let last = version.get().min(first + FETCH_CONCURRENCY - 1);
            let database = state.id();
            let fetches = (first..=last).map(|number| self.commit(database, Version::new(number)));
            let fetches: Vec<_> = fetches.collect();
            for fetched in join_all(fetches).await {
                let Some(commit) = fetched? else {
                    return Ok(None);
                };
                let path = BucketPath::database_commit(database, state.version().next());
                let applied = state.apply(&commit).map_err(|corrupt| corrupt.named(&path));
                state = applied.map_err(CatalogError::from)?;
            }
        }
        Ok(Some(state))
    }

    async fn commit(
        &self,
        database: DatabaseId,
        version: Version,
    ) -> Result<Option<Commit>, HistoryError> {
        let path = BucketPath::database_commit(database, version);
        let bytes = self.bucket.try_get(&path).await;
        let Some(bytes) = bytes.map_err(CatalogError::from)? else {
            return Ok(None);
        };
        let commit = log::decode_at(&path, &bytes).map_err(CatalogError::from)?;
        Ok(Some(commit))
    }
}

#[cfg(test)]
mod tests;
