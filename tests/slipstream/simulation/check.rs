//! What must hold, whatever goes wrong.
//!
//! The checker sees each object land, at the moment it lands: it follows the log by itself, with no
//! faults, and knows each version as it is. Against that it holds what clients are told, what
//! followers show, what queries find, and what is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch};
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use slipstream_catalog::{Commit, DatabaseState};
use slipstream_model::{BucketId, DatabaseId, Digest, ExtentId, Timestamp, Version};
use slipstream_storage::BucketPath;
use tokio::time::Instant;
use uuid::Uuid;

use super::clock::Host;
use super::faults::Counts;
use super::store::Objects;

/// How long a leader may go on granting leases that has been replaced: until it looks the next time
/// (every five seconds), with slow answers on the way, or has not seen the bucket for fifteen.
const FENCED_GRANTS: Duration = Duration::from_secs(30);

/// Whether every event is printed.
static IS_TOLD: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("SLIPSTREAM_SIM_TRACE").is_some());

/// One row: its number, which no other has, and an amount. All amounts together are zero.
pub(crate) type Row = (i64, i64);

/// One version.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) digest: Digest,
    landed_at: Instant,
    committed_at: Timestamp,
    /// Whether a leader opened the log by it.
    is_opening: bool,
    /// Where each extent stands.
    pub(crate) extents: BTreeSet<ExtentId>,
}

/// The time for which followers are promised that what they read stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises {
    pub(crate) lease_ttl: Duration,
    pub(crate) grace: Duration,
}

/// What a leader granted to a node.
#[derive(Debug)]
struct Grant {
    lowest: Version,
    until: Instant,
    /// Since when it has been renewed without a gap.
    since: Instant,
}

/// A query that runs.
#[derive(Debug)]
struct Running {
    node: Uuid,
    version: Version,
    since: Instant,
}

pub(crate) struct Check {
    promises: Promises,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    bucket: Option<BucketId>,
    database: Option<DatabaseId>,
    state: Option<DatabaseState>,
    /// By version; the first one is version 1.
    versions: Vec<Arc<Facts>>,
    /// Who has opened the log last, and when.
    newest_leader: Option<(String, Instant)>,
    rows: BTreeMap<ExtentId, Arc<Vec<Row>>>,
    /// Where each row number stands in the newest version.
    present: BTreeSet<i64>,
    /// The last commit that took an extent out of a table.
    removed: BTreeMap<ExtentId, (Version, Timestamp, Instant)>,
    /// When it was last decided that the log begins later.
    cut_at: Option<Instant>,
    /// When starts of the log were first sent to the bucket, by their paths.
    starts: BTreeMap<String, Instant>,
    /// Versions whose commits were deleted.
    cut: BTreeSet<Version>,
    /// Files that were deleted though no commit had named them.
    orphans: BTreeSet<ExtentId>,
    /// Row numbers that a client has sent, those whose commit was acknowledged, and those that a
    /// client wanted to be gone.
    sent: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
    unwanted: BTreeSet<i64>,
    acknowledgements: BTreeMap<Version, Digest>,
    grants: BTreeMap<Uuid, Grant>,
    running: BTreeMap<u64, Running>,
    next_query: u64,
    shown: BTreeMap<String, Version>,
    violations: Vec<String>,
    trace: u64,
    events: Counts<&'static str>,
}

impl Check {
    pub(crate) fn new(promises: Promises) -> Arc<Self> {
        Arc::new(Self {
            promises,
            inner: Mutex::default(),
        })
    }

    /// Something that must not be.
    pub(crate) fn violation(&self, what: String) {
        self.inner.lock().violation(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }

    /// Notes that something happened: two runs of one seed must come to the same sum.
    pub(crate) fn trace(&self, host: &Host, what: &'static str, object: &str) {
        self.inner
            .lock()
            .trace(&host.name, what, object, host.latest_now());
    }

    /// The sum of all that happened.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.inner.lock().trace
    }

    /// How often what happened.
    pub(crate) fn events(&self) -> Counts<&'static str> {
        self.inner.lock().events.clone()
    }

    /// An object stands in the bucket.
    pub(crate) fn landed(&self, host: &Host, path: &str, bytes: &Bytes, objects: &Objects) {
        let mut inner = self.inner.lock();
        inner.trace(&host.name, "landed", path, host.latest_now());
        if path == BucketPath::identity().as_str() {
            let identity: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            let id = identity["bucket_id"].as_str().expect("an id");
            inner.bucket = Some(id.parse().expect("a UUID"));
        } else if path.starts_with("databases/") && path.ends_with(".commit") {
            inner.commit(host, bytes, objects);
        } else if let Some(decided_at) = inner.starts.get(path) {
            inner.cut_at = Some(*decided_at);
        }
    }

    /// A node is about to put an object.
    pub(crate) fn puts(&self, path: &str) {
        if path.ends_with(".start") {
            let mut inner = self.inner.lock();
            let sent = inner.starts.entry(path.to_owned());
            sent.or_insert_with(Instant::now);
        }
    }

    /// A client is about to send rows.
    pub(crate) fn sends(&self, rows: &[Row]) {
        self.inner.lock().sent.extend(rows.iter().map(|row| row.0));
    }

    /// A client is about to ask for rows to be removed.
    pub(crate) fn removes(&self, rows: &[Row]) {
        self.inner
            .lock()
            .unwanted
            .extend(rows.iter().map(|row| row.0));
    }

    /// A client was told that its change is committed, with these rows.
    pub(crate) fn acknowledged(&self, version: Version, digest: Digest, rows: &[Row]) {
        let mut inner = self.inner.lock();
        let Some(facts) = inner.facts(version) else {
            return inner.violation(format!(
                "version {version} was acknowledged and is not in the bucket"
            ));
        };
        if facts.digest != digest {
            inner.violation(format!(
                "version {version} was acknowledged with digest {digest}, and the bucket has {}",
                facts.digest
            ));
        }
        let there = inner.rows_of(&facts);
        for (number, _) in rows {
            if !there.contains_key(number) && !inner.unwanted.contains(number) {
                inner.violation(format!(
                    "row {number} was acknowledged with version {version}, which does not have it"
                ));
            }
        }
        inner.count("acknowledged");
        inner.acknowledged.extend(rows.iter().map(|row| row.0));
        inner.acknowledgements.insert(version, digest);
    }

    /// The rows of an extent, once a commit has named it.
    pub(crate) fn rows(&self, extent: ExtentId) -> Option<Arc<Vec<Row>>> {
        self.inner.lock().rows.get(&extent).cloned()
    }

    /// A follower shows a state.
    pub(crate) fn shows(&self, follower: &str, state: &DatabaseState) {
        let mut inner = self.inner.lock();
        let version = state.version();
        let before = inner.shown.insert(follower.to_owned(), version);
        if let Some(before) = before.filter(|before| *before > version) {
            inner.violation(format!(
                "{follower} went back from version {before} to {version}"
            ));
        }
        inner.agrees(follower, version, state.digest());
    }

    /// A query begins to read a version.
    pub(crate) fn query_begins(&self, node: Uuid, state: &DatabaseState) -> u64 {
        let mut inner = self.inner.lock();
        inner.agrees("a query", state.version(), state.digest());
        let query = inner.next_query;
        inner.next_query += 1;
        let running = Running {
            node,
            version: state.version(),
            since: Instant::now(),
        };
        inner.running.insert(query, running);
        query
    }

    /// Whether what a query reads is promised to be there.
    pub(crate) fn is_promised(&self, query: u64) -> bool {
        let inner = self.inner.lock();
        let running = inner.running.get(&query);
        running.is_some_and(|running| inner.covers(running))
    }

    /// A query has found these rows.
    pub(crate) fn query_ends(&self, query: u64, found: Option<&[Row]>) {
        let mut inner = self.inner.lock();
        let Some(running) = inner.running.remove(&query) else {
            return;
        };
        let Some(found) = found else {
            return inner.count("queries without an answer");
        };
        inner.count("queries answered");
        let version = running.version;
        let sum: i64 = found.iter().map(|row| row.1).sum();
        if sum != 0 {
            inner.violation(format!("a query at version {version} found a sum of {sum}"));
        }
        let numbers: BTreeSet<i64> = found.iter().map(|row| row.0).collect();
        if numbers.len() != found.len() {
            inner.violation(format!("a query at version {version} found a row twice"));
        }
        let facts = inner.facts(version);
        let there = facts.map(|facts| inner.rows_of(&facts)).unwrap_or_default();
        if !numbers.iter().eq(there.keys()) {
            inner.violation(format!(
                "a query at version {version} found other rows than that version has"
            ));
        }
    }

    /// A node's queries are not protected any more: it died, or was detached.
    pub(crate) fn forget_node(&self, node: Uuid) {
        let mut inner = self.inner.lock();
        inner.grants.remove(&node);
        inner.running.retain(|_, running| running.node != node);
    }

    /// A leader has granted a lease.
    pub(crate) fn grants(&self, leader: &Host, node: Uuid, lowest: Version) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        inner.trace(
            &leader.name,
            "grants",
            &format!("{node} {lowest}"),
            leader.latest_now(),
        );
        if let Some((newest, since)) = &inner.newest_leader
            && *newest != leader.name
        {
            // A follower that holds to a leader that was replaced is cut off from the one that
            // deletes, until the old one has noticed.
            let able_since = (*since).max(leader.frozen_until());
            if now.duration_since(able_since) > FENCED_GRANTS {
                let replaced = now.duration_since(*since);
                let message = format!(
                    "{} granted a lease {replaced:?} after {newest} had taken over: nobody who \
                     deletes knows of it",
                    leader.name
                );
                inner.violation(message);
            }
            return;
        }
        let until = now + self.promises.lease_ttl;
        let known = inner.grants.get(&node).filter(|known| known.until > now);
        let since = known.map_or(now, |known| known.since);
        let grant = Grant {
            lowest,
            until,
            since,
        };
        inner.grants.insert(node, grant);
    }

    /// A leader is about to delete an object.
    pub(crate) fn deletes(&self, leader: &Host, path: &str) {
        let mut inner = self.inner.lock();
        if let Some(version) = version_of(path) {
            return inner.cuts(leader, version, self.promises.grace);
        }
        let Some(extent) = extent_of(path) else {
            return;
        };
        inner.trace(&leader.name, "deletes", path, leader.latest_now());
        let newest = inner.versions.last().map(Arc::clone);
        if newest.is_some_and(|newest| newest.extents.contains(&extent)) {
            inner.violation(format!(
                "{} deletes extent {extent}, which is in a table",
                leader.name
            ));
        }
        let Some((version, committed_at, landed_at)) = inner.removed.get(&extent).copied() else {
            // An orphan, as it seems: no commit may ever name it.
            inner.orphans.insert(extent);
            return inner.count("orphans deleted");
        };
        if leader.latest_now() < committed_at.plus(self.promises.grace) {
            inner.violation(format!(
                "{} deletes extent {extent} before its grace period is over",
                leader.name
            ));
        }
        let now = Instant::now();
        let leased = inner.grants.iter().find(|(_, grant)| {
            grant.until > now && grant.lowest < version && grant.since <= landed_at
        });
        if let Some((node, grant)) = leased {
            let message = format!(
                "{} deletes extent {extent}, removed by version {version}, while node {node} has \
                 a lease on version {}",
                leader.name, grant.lowest
            );
            inner.violation(message);
        }
        let mut running = inner.running.values();
        let read = running.find(|running| {
            let facts = inner.facts(running.version);
            facts.is_some_and(|facts| facts.extents.contains(&extent)) && inner.covers(running)
        });
        if let Some(read) = read {
            let message = format!(
                "{} deletes extent {extent}, which a query at version {} still reads",
                leader.name, read.version
            );
            inner.violation(message);
        }
    }

    /// The newest version and its digest.
    pub(crate) fn newest(&self) -> Option<(Version, Digest)> {
        let inner = self.inner.lock();
        let state = inner.state.as_ref()?;
        Some((state.version(), state.digest()))
    }

    /// Extents in the bucket that no table has, of those that a commit has ever named: what was
    /// uploaded and never committed has no record that could tell of it yet (ADR 14).
    pub(crate) fn unreferenced(&self, objects: &Objects) -> Vec<ExtentId> {
        let inner = self.inner.lock();
        let Some(newest) = inner.versions.last() else {
            return Vec::new();
        };
        let there = objects.keys().filter_map(|path| extent_of(path));
        let unreferenced = there.filter(|extent| !newest.extents.contains(extent));
        unreferenced
            .filter(|extent| inner.removed.contains_key(extent))
            .collect()
    }

    /// At the end: the log is what everybody was told, but for its beginning.
    pub(crate) fn finish(&self, objects: &Objects) {
        let mut inner = self.inner.lock();
        let (Some(bucket), Some(database)) = (inner.bucket, inner.database) else {
            return inner.violation("no database was made".to_owned());
        };
        let Some(state) = inner.state.clone() else {
            return inner.violation(format!("nothing was committed to bucket {bucket}"));
        };
        for (version, told) in inner.acknowledgements.clone() {
            match inner.facts(version) {
                None => inner.violation(format!("version {version} was acknowledged and is lost")),
                Some(facts) if facts.digest != told => {
                    inner.violation(format!("version {version} is not what was acknowledged"));
                }
                Some(_) => {}
            }
        }
        for number in 1..=state.version().get() {
            let version = Version::new(number);
            let path = BucketPath::database_commit(database, version);
            match objects.get(path.as_str()).map(Commit::decode) {
                None if inner.cut.contains(&version) => {}
                None => inner.violation(format!("the commit of version {version} is lost")),
                Some(Ok(commit)) => {
                    let landed = inner.facts(version).map(|facts| facts.digest);
                    if landed != Some(commit.digest()) {
                        inner.violation(format!("version {version} is another one by now"));
                    }
                }
                Some(Err(corrupt)) => inner.violation(format!("the log is damaged: {corrupt}")),
            }
        }
        let extents = state.tables().flat_map(|table| table.extents.iter());
        // What stands in the log has no file.
        let extents = extents.filter(|extent| extent.inline.is_none());
        let extents: Vec<_> = extents.collect();
        for extent in extents {
            let path = BucketPath::extent(database, extent.id);
            let object = objects.get(path.as_str());
            if object.is_none_or(|bytes| Digest::of(bytes) != extent.sha256) {
                inner.violation(format!("extent {} is lost or damaged", extent.id));
            }
        }
        let kept = inner.acknowledged.difference(&inner.unwanted);
        let lost: Vec<i64> = kept
            .filter(|number| !inner.present.contains(number))
            .copied()
            .collect();
        if !lost.is_empty() {
            inner.violation(format!("rows {lost:?} were acknowledged and are lost"));
        }
    }
}

impl Inner {
    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn trace(&mut self, host: &str, what: &'static str, object: &str, at: Timestamp) {
        let at = at.as_micros().to_le_bytes();
        let mut event = 0xcbf2_9ce4_8422_2325_u64;
        for byte in host
            .bytes()
            .chain(what.bytes())
            .chain(object.bytes())
            .chain(at)
        {
            event = (event ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // What happens at one instant may happen in either order.
        self.trace = self.trace.wrapping_add(event);
        self.count(what);
        if *IS_TOLD {
            eprintln!("{} {host} {what} {object}", i64::from_le_bytes(at));
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    fn facts(&self, version: Version) -> Option<Arc<Facts>> {
        let position = usize::try_from(version.get()).ok()?.checked_sub(1)?;
        self.versions.get(position).cloned()
    }

    fn rows_of(&self, facts: &Facts) -> BTreeMap<i64, i64> {
        let extents = facts.extents.iter();
        let rows = extents.filter_map(|extent| self.rows.get(extent));
        rows.flat_map(|rows| rows.iter().copied()).collect()
    }

    fn agrees(&mut self, who: &str, version: Version, digest: Digest) {
        match self.facts(version) {
            None => self.violation(format!(
                "{who} has version {version}, which is not in the bucket"
            )),
            Some(facts) if facts.digest != digest => self.violation(format!(
                "{who} has digest {digest} at version {version}, and the bucket {}",
                facts.digest
            )),
            Some(_) => {}
        }
    }

    /// Whether what a query reads is promised. Not so when the lease had lapsed since the query
    /// began, or since its version was followed by another: files may have gone meanwhile, and a
    /// lease that is granted again brings none back.
    fn covers(&self, running: &Running) -> bool {
        let Some(grant) = self.grants.get(&running.node) else {
            return false;
        };
        let next = self.facts(running.version.next());
        let is_in_time = next.is_none_or(|next| grant.since <= next.landed_at);
        grant.until > Instant::now() && grant.since <= running.since && is_in_time
    }

    /// A commit is about to be deleted.
    fn cuts(&mut self, leader: &Host, version: Version, grace: Duration) {
        let facts = self.facts(version).zip(self.facts(version.next()));
        let Some((facts, next)) = facts else {
            let leader = &leader.name;
            return self.violation(format!("{leader} deletes the newest commit, {version}"));
        };
        if !self.cut.insert(version) {
            return;
        }
        self.count("commits deleted");
        if facts.is_opening {
            let leader = &leader.name;
            self.violation(format!(
                "{leader} deletes commit {version}, which opened the log"
            ));
        }
        // Whoever asks for the version after it could still come from it.
        if leader.latest_now() < next.committed_at.plus(grace) {
            self.violation(format!(
                "{} deletes commit {version} before its grace period is over",
                leader.name
            ));
        }
        let now = Instant::now();
        let promised = self.grants.iter().find(|(_, grant)| {
            let is_older = self.cut_at.is_none_or(|cut_at| grant.since <= cut_at);
            grant.until > now && grant.lowest <= version && is_older
        });
        if let Some((node, grant)) = promised {
            let message = format!(
                "{} deletes commit {version} while node {node} has a lease on version {}",
                leader.name, grant.lowest
            );
            self.violation(message);
        }
    }

    /// A commit stands in the log.
    fn commit(&mut self, host: &Host, bytes: &Bytes, objects: &Objects) {
        let (Some(bucket), Some(database)) = (self.bucket, self.database) else {
            return self.first_commit(host, bytes, objects);
        };
        let before = match self.state.take() {
            Some(state) => state,
            None => DatabaseState::empty(bucket, database),
        };
        let applied = Commit::decode(bytes).and_then(|commit| {
            let removals = commit.removals(&before)?;
            Ok((before.apply(&commit)?, removals))
        });
        let (state, removals) = match applied {
            Ok(applied) => applied,
            Err(corrupt) => {
                self.state = Some(before);
                return self.violation(format!(
                    "{} wrote a commit that does not follow the newest: {corrupt}",
                    host.name
                ));
            }
        };
        if state.epoch() > before.epoch() {
            self.newest_leader = Some((host.name.clone(), Instant::now()));
        }
        let extents: Vec<_> = state
            .tables()
            .flat_map(|table| table.extents.iter())
            .collect();
        let mut ids = BTreeSet::new();
        for extent in &extents {
            if !ids.insert(extent.id) {
                self.violation(format!("extent {} stands in two tables", extent.id));
            }
            if self.rows.contains_key(&extent.id) {
                continue;
            }
            if extent.inline.is_some() {
                self.count("streamed extents");
            }
            let path = BucketPath::extent(state.id(), extent.id);
            let file = extent.inline.as_ref().or(objects.get(path.as_str()));
            match file {
                Some(file) if Digest::of(file) == extent.sha256 => {
                    self.rows.insert(extent.id, Arc::new(decode(file.clone())));
                }
                _ => self.violation(format!(
                    "version {} names extent {}, which is not in the bucket as it should be",
                    state.version(),
                    extent.id
                )),
            }
        }
        let facts = Arc::new(Facts {
            digest: state.digest(),
            landed_at: Instant::now(),
            committed_at: state.committed_at(),
            is_opening: state.epoch() > before.epoch(),
            extents: ids,
        });
        // Transactions that share a commit may add an extent and remove it: no version has it, and
        // its file goes all the same.
        for extent in removals.iter().flat_map(|removal| &removal.extents) {
            if !facts.extents.contains(&extent.id) {
                let removal = (state.version(), state.committed_at(), facts.landed_at);
                self.removed.insert(extent.id, removal);
            }
        }
        if let Some(extent) = facts.extents.intersection(&self.orphans).next() {
            let version = state.version();
            self.violation(format!(
                "version {version} has extent {extent}, which was deleted as an orphan"
            ));
        }
        self.compare(&state, &facts);
        self.count("versions");
        self.versions.push(facts);
        self.state = Some(state);
    }

    /// The first commit says which database it is.
    fn first_commit(&mut self, host: &Host, bytes: &Bytes, objects: &Objects) {
        let Ok(commit) = Commit::decode(bytes) else {
            return self.violation("the first commit cannot be read".to_owned());
        };
        self.database = Some(DatabaseId::new(commit.log_id()));
        self.commit(host, bytes, objects);
    }

    /// What a version changed.
    fn compare(&mut self, state: &DatabaseState, facts: &Facts) {
        let version = state.version();
        if let Some(before) = self.versions.last().map(Arc::clone) {
            for extent in before.extents.difference(&facts.extents) {
                let removal = (version, state.committed_at(), facts.landed_at);
                self.removed.insert(*extent, removal);
            }
        }
        let mut numbers = BTreeSet::new();
        let mut sum = 0;
        let rows = facts.extents.iter().filter_map(|id| self.rows.get(id));
        let rows: Vec<Row> = rows.flat_map(|rows| rows.iter().copied()).collect();
        for (number, amount) in rows {
            sum += amount;
            if !numbers.insert(number) {
                self.violation(format!("version {version} has row {number} twice"));
            }
        }
        if sum != 0 {
            self.violation(format!("version {version} has a sum of {sum}"));
        }
        let strangers: Vec<i64> = numbers.difference(&self.sent).copied().collect();
        if !strangers.is_empty() {
            self.violation(format!(
                "version {version} has rows {strangers:?} of nobody"
            ));
        }
        let gone = self.present.difference(&numbers);
        let lost: Vec<i64> = gone
            .filter(|number| !self.unwanted.contains(number))
            .copied()
            .collect();
        if !lost.is_empty() {
            self.violation(format!("version {version} has lost rows {lost:?}"));
        }
        self.present = numbers;
    }
}

fn extent_of(path: &str) -> Option<ExtentId> {
    let name = path.strip_suffix(".parquet")?.rsplit_once("/extents/")?.1;
    name.parse().ok()
}

fn version_of(path: &str) -> Option<Version> {
    let name = path.strip_suffix(".commit")?.rsplit_once("/log/")?.1;
    name.parse().ok().map(Version::new)
}

/// The rows of an extent's file.
pub(crate) fn decode(file: Bytes) -> Vec<Row> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let batches = reader.build().expect("Parquet");
    batches
        .flat_map(|batch| rows_of(&batch.expect("a batch")))
        .collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| -> Int64Array {
        let column = batch.column_by_name(name).expect("the column");
        column.to_data().into()
    };
    let (ids, amounts) = (column("id"), column("amount"));
    let pairs = ids.values().iter().zip(amounts.values());
    pairs.map(|(id, amount)| (*id, *amount)).collect()
}
