//! What must hold whatever fails, and what clients know that it is checked against.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value};

use crate::cluster::{ApiError, Client, Reply};

/// Rows of one ingest: half of one shows.
pub(super) const ROWS: i64 = 20;
/// What both accounts hold together, always.
const TOTAL: i64 = 1_000_000;
/// What there is at first. `noise` comes and goes, so that there is always something to delete.
pub(super) const OPEN: &str = "CREATE TABLE ledger (id BIGINT, amount BIGINT); \
    CREATE TABLE checking (id BIGINT, amount BIGINT); \
    CREATE TABLE savings (id BIGINT, amount BIGINT); \
    CREATE TABLE noise (id BIGINT); \
    INSERT INTO checking VALUES (0, 600000); INSERT INTO savings VALUES (0, 400000)";
/// Versions that were seen lately.
const RECENT: usize = 8;
/// The tables that are checked, and how their columns begin in an answer.
const TABLES: [(&str, &str); 3] = [("ledger", "l"), ("checking", "k"), ("savings", "v")];

/// All tables in one query: as they are, or as they were at a version.
pub(super) fn books(version: Option<u64>) -> String {
    let clause = version.map(|version| format!(" FOR VERSION AS OF {version}"));
    let clause = clause.unwrap_or_default();
    let columns = TABLES
        .map(|(_, t)| format!("{t}.n AS {t}_n, {t}.d AS {t}_d, {t}.i AS {t}_i, {t}.a AS {t}_a"));
    let sums = TABLES.map(|(table, t)| {
        format!(
            "(SELECT count(*) AS n, count(DISTINCT id) AS d, coalesce(sum(id), 0) AS i, \
             coalesce(sum(amount), 0) AS a FROM {table}{clause}) {t}"
        )
    });
    format!(
        "SELECT {} FROM {}",
        columns.join(", "),
        sums.join(" CROSS JOIN ")
    )
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sums {
    rows: i64,
    ids: i64,
    id: i64,
    amount: i64,
}

/// What [`books`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Book {
    ledger: Sums,
    checking: Sums,
    savings: Sums,
}

impl Book {
    /// Reads an answer, which must be whole in itself.
    pub(super) fn of(reply: &Reply) -> Result<Self> {
        let [row] = reply.rows.as_slice() else {
            bail!("expected one row: {}", reply.text());
        };
        let [ledger, checking, savings] = TABLES.map(|(_, prefix)| sums(row, prefix));
        let book = Self {
            ledger: ledger?,
            checking: checking?,
            savings: savings?,
        };
        book.check().with_context(|| reply.text())?;
        Ok(book)
    }

    fn check(&self) -> Result<()> {
        let Self {
            ledger,
            checking,
            savings,
        } = self;
        for (name, sums) in [
            ("ledger", ledger),
            ("checking", checking),
            ("savings", savings),
        ] {
            ensure!(
                sums.rows == sums.ids,
                "VIOLATION: a row of {name} is there twice"
            );
        }
        ensure!(
            ledger.rows % ROWS == 0 && ledger.amount == 0,
            "VIOLATION: a batch is there half"
        );
        ensure!(
            checking.rows == savings.rows && checking.id == savings.id,
            "VIOLATION: a transfer is there half"
        );
        let total = checking.amount + savings.amount;
        ensure!(
            total == TOTAL,
            "VIOLATION: the sum over both accounts is {total}"
        );
        Ok(())
    }
}

fn sums(row: &Map<String, Value>, prefix: &str) -> Result<Sums> {
    let number = |name: &str| {
        let value = row.get(&format!("{prefix}_{name}"));
        let number = value.and_then(Value::as_i64);
        number.with_context(|| format!("a number {prefix}_{name} in {row:?}"))
    };
    Ok(Sums {
        rows: number("n")?,
        ids: number("d")?,
        id: number("i")?,
        amount: number("a")?,
    })
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows of the ledger that one ingest puts in.
    Batch,
    /// Money from one account to the other, in one commit.
    Transfer,
}

/// What was sent of one kind. Numbers begin with 1.
#[derive(Debug, Default)]
struct Sent {
    last: i64,
    acknowledged: BTreeMap<i64, u64>,
    by_version: BTreeMap<u64, i64>,
}

impl Sent {
    fn acknowledged_until(&self, version: u64) -> i64 {
        self.by_version.range(..=version).map(|(_, n)| n).sum()
    }
}

/// What all clients know together.
#[derive(Debug, Default)]
pub(super) struct History {
    batches: Mutex<Sent>,
    transfers: Mutex<Sent>,
    /// What was seen of each version: its digest, and what it held.
    seen: Mutex<BTreeMap<u64, (String, Book)>>,
    tally: Mutex<BTreeMap<String, u64>>,
    is_done: AtomicBool,
    is_replaced: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl History {
    /// Ends everything.
    pub(super) fn finish(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }

    /// Whether the first leader stands still, or goes on without knowing that it was replaced.
    pub(super) fn replace(&self, is_replaced: bool) {
        self.is_replaced.store(is_replaced, Ordering::Relaxed);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// Counts something that happened.
    pub(super) fn count(&self, what: impl Into<String>) {
        *locked(&self.tally).entry(what.into()).or_default() += 1;
    }

    /// How often it happened.
    pub(super) fn counted(&self, what: &str) -> u64 {
        locked(&self.tally).get(what).copied().unwrap_or_default()
    }

    fn sent(&self, kind: Kind) -> MutexGuard<'_, Sent> {
        match kind {
            Kind::Batch => locked(&self.batches),
            Kind::Transfer => locked(&self.transfers),
        }
    }

    /// The number of something that is about to be sent.
    pub(super) fn begin(&self, kind: Kind) -> i64 {
        let mut sent = self.sent(kind);
        sent.last += 1;
        sent.last
    }

    /// It was acknowledged.
    pub(super) fn acknowledge(&self, kind: Kind, number: i64, version: u64) {
        let mut sent = self.sent(kind);
        sent.acknowledged.insert(number, version);
        *sent.by_version.entry(version).or_default() += 1;
    }

    /// The newest version that a client was told of.
    pub(super) fn newest(&self) -> Option<u64> {
        let newest = |kind| self.sent(kind).by_version.keys().next_back().copied();
        newest(Kind::Batch).max(newest(Kind::Transfer))
    }

    /// Checks an answer against all that is known; gives its version.
    pub(super) fn saw(&self, reply: &Reply) -> Result<u64> {
        let (version, digest) = (reply.version()?, reply.digest()?.to_owned());
        let book = Book::of(reply).with_context(|| format!("version {version}"))?;
        self.agrees(version, &digest, book)?;
        let counts = [
            (Kind::Batch, book.ledger.rows / ROWS),
            // The first row of each account was put in with the table.
            (Kind::Transfer, book.checking.rows - 1),
        ];
        for (kind, found) in counts {
            let sent = self.sent(kind);
            let (least, most) = (sent.acknowledged_until(version), sent.last);
            ensure!(
                (least..=most).contains(&found),
                "VIOLATION: version {version} has {found} of kind {kind:?}; {least} were \
                 acknowledged until then, and {most} were sent"
            );
        }
        Ok(version)
    }

    /// Equal versions have equal digests and equal rows, wherever they are read.
    fn agrees(&self, version: u64, digest: &str, book: Book) -> Result<()> {
        let mut seen = locked(&self.seen);
        let told = (digest.to_owned(), book);
        let known = seen.entry(version).or_insert_with(|| told.clone());
        ensure!(
            *known == told,
            "VIOLATION: version {version} was {known:?} and now is {told:?}"
        );
        Ok(())
    }

    /// A version that somebody has read, and what it held.
    pub(super) fn any_seen(&self, random: &mut SmallRng) -> Option<(u64, Book)> {
        let seen = locked(&self.seen);
        // The last few are likely to be kept still, the others not.
        let most = if random.random() { RECENT } else { seen.len() };
        let age = random.random_range(0..most.min(seen.len()).max(1));
        let (version, (_, book)) = seen.iter().rev().nth(age)?;
        Some((*version, *book))
    }

    /// Each row by its number: all that were acknowledged, the others at most once. For the end.
    pub(super) async fn check_every_row(&self, node: &Client) -> Result<()> {
        let batches = format!("SELECT id / {ROWS} AS number, count(*) AS n FROM ledger GROUP BY 1");
        self.compare(node, Kind::Batch, &batches, ROWS).await?;
        for table in ["checking", "savings"] {
            let transfers =
                format!("SELECT id AS number, count(*) AS n FROM {table} WHERE id > 0 GROUP BY 1");
            self.compare(node, Kind::Transfer, &transfers, 1).await?;
        }
        Ok(())
    }

    async fn compare(&self, node: &Client, kind: Kind, sql: &str, rows: i64) -> Result<()> {
        let mut found = BTreeSet::new();
        for row in node.sql("d", sql).await?.rows {
            let number = row["number"].as_i64().context("a number")?;
            ensure!(
                row["n"] == rows,
                "VIOLATION: {kind:?} {number} is there half or twice: {row:?}"
            );
            ensure!(
                found.insert(number),
                "VIOLATION: {kind:?} {number} is there twice"
            );
        }
        let sent = self.sent(kind);
        for (number, version) in &sent.acknowledged {
            ensure!(
                found.contains(number),
                "VIOLATION: {kind:?} {number} was acknowledged at version {version} and is gone"
            );
        }
        let strange = found
            .iter()
            .find(|number| !(1..=sent.last).contains(*number));
        ensure!(
            strange.is_none(),
            "VIOLATION: {kind:?} {strange:?} was never sent"
        );
        Ok(())
    }
}

/// What happened, a line each.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in [Kind::Batch, Kind::Transfer] {
            let sent = self.sent(kind);
            let (all, acknowledged) = (sent.last, sent.acknowledged.len());
            writeln!(
                f,
                "{all:7} sent of kind {kind:?}, {acknowledged} acknowledged"
            )?;
        }
        for (what, times) in locked(&self.tally).iter() {
            writeln!(f, "{times:7} {what}")?;
        }
        Ok(())
    }
}

/// What comes instead of an answer must be one of these: broken connections, and refusals that say
/// what is the matter. Gives a name to count it by.
///
/// A leader that was replaced, and does not know it yet, reads a version that nobody keeps for it. It
/// finds files missing, and takes that for damage: it is the one that deletes.
pub(super) fn excuse(error: &anyhow::Error, of_replaced: bool) -> Result<String> {
    let Some(refused) = error.downcast_ref::<ApiError>() else {
        let is_broken = error.chain().any(|cause| cause.is::<reqwest::Error>());
        ensure!(
            is_broken,
            "VIOLATION: an answer that makes no sense: {error:#}"
        );
        return Ok("no answer: the connection broke".to_owned());
    };
    let is_clear = match refused.code.as_str() {
        // A node or the bucket is not reached, or not in time.
        "storage_unavailable"
        | "unavailable"
        | "outcome_unknown"
        | "not_synchronised"
        | "leader_unreachable"
        | "stale"
        | "deadline_exceeded"
        | "overloaded" => true,
        // A leader that was replaced.
        "fenced" => true,
        // What a statement wanted to change was merged meanwhile.
        "extents_changed" => true,
        "version_not_kept" | "version_not_found" => refused.message.contains("version "),
        "corrupt_data" => of_replaced && refused.message.contains("the object is not there"),
        _ => false,
    };
    ensure!(is_clear, "VIOLATION: not a clear refusal: {refused}");
    Ok(format!("refused: {}", refused.code))
}
