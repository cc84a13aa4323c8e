//! Who uses the cluster, and who breaks it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::stream;
use slipstream_catalog::{Committed, DatabaseOp, DatabaseState, TableState};
use slipstream_frontend::{ErrorKind, ServiceError};
use slipstream_leader::ingest::{inline_extent, write_extents};
use slipstream_model::{
    CachingPolicy, Digest, Extent, MergePolicy, RetentionPolicy, TableId, TableName, TableSchema,
};
use slipstream_storage::{BucketPath, StorageErrorKind};
use tokio::time::{Instant, sleep};

use super::check::{Row, decode};
use super::faults::{Dice, Fault, Sabotage};
use super::world::{DATABASE, Follower, Leader, World, skew};

pub(crate) const FOLLOWERS: usize = 2;
/// Tables between which money moves, and one that comes and goes.
const TABLES: [&str; 2] = ["accounts", "savings"];
const SCRATCH: &str = "scratch";

/// Clients of the leader, clients of followers, and what they wait between two requests.
const WRITERS: usize = 2;
const READERS: usize = 2;
const THINKING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(2_500));
/// How long a query reads.
const QUERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(40));
/// How many of the extents are streamed in.
const STREAMED: f64 = 0.3;
/// Between two breakages.
const CHAOS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How long something is broken.
const OUTAGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// How often a client sends what was refused for sure.
const ATTEMPTS: usize = 3;
/// How often a query asks for one extent.
const READ_ATTEMPTS: usize = 60;

/// Starts a leader, a database with its tables, and followers of it.
pub(crate) async fn set_up(world: &Arc<World>) -> anyhow::Result<()> {
    let leader = world.start_leader().await?;
    let name = DATABASE.parse()?;
    leader.cluster.create_database(name, false).await?;
    let id = leader.cluster.database_id(DATABASE)?;
    let tables = TABLES.into_iter().chain([SCRATCH]);
    let dice = world.faults.dice("set up");
    let tables: anyhow::Result<Vec<_>> = tables.map(|name| create(&dice, name)).collect();
    leader.cluster.commit_to(id, tables?).await?;
    for number in 0..FOLLOWERS {
        world.start_follower(number)?.attach().await?;
    }
    Ok(())
}

fn create(dice: &Dice, name: &str) -> anyhow::Result<DatabaseOp> {
    let fields = ["id", "amount"].map(|name| Field::new(name, DataType::Int64, true));
    Ok(DatabaseOp::CreateTable {
        id: TableId::new(dice.entropy().uuid()),
        name: TableName::new(name)?,
        schema: TableSchema::new(&Schema::new(fields.to_vec()))?,
        if_not_exists: true,
    })
}

/// Has everybody at work for a while.
pub(crate) async fn run(world: &Arc<World>, duration: Duration) {
    let end = Instant::now() + duration;
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let dice = world.faults.dice(&format!("writer {number}"));
        tasks.push(tokio::spawn(write(Arc::clone(world), dice, end)));
    }
    for number in 0..READERS {
        let dice = world.faults.dice(&format!("reader {number}"));
        tasks.push(tokio::spawn(read(Arc::clone(world), dice, number, end)));
    }
    let dice = world.faults.dice("chaos");
    tasks.push(tokio::spawn(break_things(Arc::clone(world), dice, end)));
    for task in tasks {
        if let Err(error) = task.await {
            world.check.violation(format!("an actor failed: {error}"));
        }
    }
}

async fn pause(dice: &Dice, (low, high): (Duration, Duration)) {
    sleep(dice.between(low, high)).await;
}

/// A client of the leader.
async fn write(world: Arc<World>, dice: Dice, end: Instant) {
    while Instant::now() < end {
        pause(&dice, THINKING).await;
        let Some(leader) = pick_leader(&world, &dice) else {
            continue;
        };
        let writing = leader.with(write_once(&world, &dice, &leader));
        // Who waits for a bucket that does not answer goes away; the outcome is not known.
        let _ = tokio::time::timeout(Duration::from_secs(40), writing).await;
    }
}

/// The newest leader, or now and then one that was replaced: not everybody has heard.
fn pick_leader(world: &World, dice: &Dice) -> Option<Arc<Leader>> {
    let mut leaders = world.leaders();
    if leaders.len() > 1 && dice.chance(0.3) {
        return Some(leaders.swap_remove(0));
    }
    leaders.pop()
}

/// A client's view of the database.
struct View {
    state: DatabaseState,
    leader: Arc<Leader>,
    world: Arc<World>,
    dice: Dice,
}

async fn write_once(world: &Arc<World>, dice: &Dice, leader: &Arc<Leader>) {
    let Some(state) = leader.cluster.states().remove(DATABASE) else {
        return;
    };
    let view = View {
        state,
        leader: Arc::clone(leader),
        world: Arc::clone(world),
        dice: dice.clone(),
    };
    // What fails is the product's to answer for only when it was acknowledged.
    let _: Option<()> = match dice.below(100) {
        0..30 => view.ingest().await,
        30..50 => view.transfer().await,
        50..60 => view.move_extents().await,
        60..76 => view.rewrite().await,
        76..82 => view.remove().await,
        82..88 => view.scratch().await,
        88..92 => view.recreate_scratch().await,
        _ => view.change_policies().await,
    };
}

impl View {
    fn table(&self, name: &str) -> Option<&Arc<TableState>> {
        self.state.table(name)
    }

    fn any_table(&self) -> Option<&Arc<TableState>> {
        self.table(TABLES[self.dice.below(TABLES.len())])
    }

    fn any_extent(&self, table: &TableState) -> Option<Extent> {
        let mut extents: Vec<_> = table.extents.iter().collect();
        if extents.is_empty() {
            return None;
        }
        Some(extents.swap_remove(self.dice.below(extents.len())))
    }

    fn amount(&self) -> i64 {
        1 + self.dice.below(1_000) as i64
    }

    /// New rows with these amounts.
    fn rows(&self, amounts: &[i64]) -> Vec<Row> {
        let first = self.world.row_numbers(amounts.len() as i64);
        let rows: Vec<Row> = (first..).zip(amounts.iter().copied()).collect();
        self.world.check.sends(&rows);
        rows
    }

    /// Makes an extent of rows, a file or one that stands in the log; the commit comes later.
    async fn upload(&self, table: &TableState, rows: &[Row]) -> Option<DatabaseOp> {
        let columns: (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        let columns = [columns.0, columns.1].map(Int64Array::from);
        let columns = columns.map(|column| Arc::new(column) as _);
        let batch = RecordBatch::try_new(table.schema.arrow(), columns.to_vec()).expect("a batch");
        let context = self.leader.ingest(self.state.id()).ok()?;
        let extents = if self.dice.chance(STREAMED) {
            let extent = inline_extent(&context, &table.schema, vec![batch]).await;
            extent.ok()?.into_iter().collect()
        } else {
            let batches = stream::iter([Ok::<_, ServiceError>(batch)]);
            let extents = write_extents(&context, &table.schema, batches).await;
            extents.ok()?
        };
        Some(DatabaseOp::AddExtents {
            table: table.id,
            schema: table.schema.clone(),
            extents,
        })
    }

    async fn commit(&self, ops: Vec<DatabaseOp>, rows: &[Row]) -> Result<(), ServiceError> {
        let committing = self.leader.cluster.commit_to(self.state.id(), ops);
        let Committed {
            version, digest, ..
        } = committing.await?;
        self.world.check.acknowledged(version, digest, rows);
        Ok(())
    }

    /// Rows that sum up to nothing. A client that was refused for sure sends them again.
    async fn ingest(&self) -> Option<()> {
        let (a, b) = (self.amount(), self.amount());
        let rows = self.rows(&[a, b, -a, -b][..]);
        let table = self.any_table()?.name.to_string();
        let mut leader = Arc::clone(&self.leader);
        for _ in 0..ATTEMPTS {
            let view = View {
                state: leader.cluster.states().remove(DATABASE)?,
                leader: Arc::clone(&leader),
                world: Arc::clone(&self.world),
                dice: self.dice.clone(),
            };
            let add = view.upload(view.table(&table)?, &rows).await?;
            match view.commit(vec![add], &rows).await {
                Err(error) if is_refused(&error) => {
                    pause(&self.dice, THINKING).await;
                    leader = self.world.leader()?;
                }
                _ => return Some(()),
            }
        }
        Some(())
    }

    /// Takes from one table what it gives to the other, in one commit.
    async fn transfer(&self) -> Option<()> {
        let amount = self.amount();
        let rows = self.rows(&[-amount, amount]);
        let from = self.upload(self.table(TABLES[0])?, &rows[..1]).await?;
        let to = self.upload(self.table(TABLES[1])?, &rows[1..]).await?;
        self.commit(vec![from, to], &rows).await.ok()
    }

    async fn move_extents(&self) -> Option<()> {
        let (mut from, mut to) = (self.table(TABLES[0])?, self.table(TABLES[1])?);
        if self.dice.chance(0.5) {
            std::mem::swap(&mut from, &mut to);
        }
        let op = DatabaseOp::MoveExtents {
            from: from.id,
            to: to.id,
            extents: vec![self.any_extent(from)?.id],
        };
        self.commit(vec![op], &[]).await.ok()
    }

    /// Writes the rows of an extent anew, perhaps into the other table, as `DELETE` does with those
    /// that stay.
    async fn rewrite(&self) -> Option<()> {
        let (from, to) = (self.any_table()?, self.any_table()?);
        let old = self.any_extent(from)?;
        let rows = self.world.check.rows(old.id)?;
        let add = self.upload(to, &rows).await?;
        let remove = DatabaseOp::RemoveExtents {
            table: from.id,
            extents: vec![old.id],
        };
        if self.world.sabotage == Some(Sabotage::NonAtomicSwap) {
            // Planted in the client: each commit on its own is as the product promises.
            self.commit(vec![add], &rows).await.ok()?;
            return self.commit(vec![remove], &rows).await.ok();
        }
        self.commit(vec![remove, add], &rows).await.ok()
    }

    /// Removes rows that sum up to nothing.
    async fn remove(&self) -> Option<()> {
        let table = self.any_table()?;
        let extent = self.any_extent(table)?;
        let rows = self.world.check.rows(extent.id)?;
        if rows.iter().map(|row| row.1).sum::<i64>() != 0 {
            return None;
        }
        self.world.check.removes(&rows);
        let op = DatabaseOp::RemoveExtents {
            table: table.id,
            extents: vec![extent.id],
        };
        self.commit(vec![op], &[]).await.ok()
    }

    /// Rows of no worth that nobody keeps.
    async fn scratch(&self) -> Option<()> {
        let rows = self.rows(&[0]);
        self.world.check.removes(&rows);
        let add = self.upload(self.table(SCRATCH)?, &rows).await?;
        self.commit(vec![add], &[]).await.ok()
    }

    async fn recreate_scratch(&self) -> Option<()> {
        let drop = DatabaseOp::DropTable {
            name: TableName::new(SCRATCH).expect("a name"),
            if_exists: true,
        };
        let create = create(&self.dice, SCRATCH).expect("a table");
        self.commit(vec![drop, create], &[]).await.ok()
    }

    async fn change_policies(&self) -> Option<()> {
        let faults = &self.dice;
        let name = |name: &str| Some(TableName::new(name).expect("a name"));
        let op = match faults.below(3) {
            0 => DatabaseOp::SetMergePolicy {
                table: name(TABLES[faults.below(2)]),
                policy: faults.chance(0.5).then(|| MergePolicy {
                    allow_rebuild: false,
                    allow_merge: faults.chance(0.5),
                    ..MergePolicy::default()
                }),
            },
            1 => DatabaseOp::SetRetentionPolicy {
                table: name(SCRATCH),
                policy: faults.chance(0.7).then(|| RetentionPolicy {
                    soft_delete_period: faults.between(Duration::ZERO, Duration::from_secs(30)),
                    ..RetentionPolicy::default()
                }),
            },
            _ => DatabaseOp::SetCachingPolicy {
                table: name(TABLES[faults.below(2)]),
                policy: faults.chance(0.5).then(|| CachingPolicy {
                    data_hot_span: Duration::from_secs(60),
                    index_hot_span: Duration::from_secs(60),
                    hot_windows: Vec::new(),
                }),
            },
        };
        self.commit(vec![op], &[]).await.ok()
    }
}

/// Whether nothing of a commit can be there: its leader was replaced, or the bucket would not have it.
fn is_refused(error: &ServiceError) -> bool {
    error.kind() == ErrorKind::Fenced || error.code() == "storage_denied"
}

/// A client of a follower, whose queries take long.
async fn read(world: Arc<World>, dice: Dice, number: usize, end: Instant) {
    while Instant::now() < end {
        pause(&dice, THINKING).await;
        let Some(follower) = world.follower(number % FOLLOWERS) else {
            continue;
        };
        let querying = query(&world, &dice, &follower);
        follower.host.down.run_until_cancelled(querying).await;
    }
}

/// What the engine does for a query: it holds the version until the last row was read.
async fn query(world: &World, dice: &Dice, follower: &Follower) {
    let states = follower.registry.states();
    let _pins = follower.registry.pin(&states);
    let Some(state) = states.get(DATABASE) else {
        return;
    };
    let query = world.check.query_begins(follower.node, state);
    pause(dice, QUERY).await;
    let mut found = Vec::new();
    for table in state.tables() {
        for extent in table.extents.iter() {
            match read_extent(world, follower, query, state, &extent).await {
                Some(rows) => found.extend(rows),
                None => return world.check.query_ends(query, None),
            }
        }
    }
    world.check.query_ends(query, Some(&found));
}

async fn read_extent(
    world: &World,
    follower: &Follower,
    query: u64,
    state: &DatabaseState,
    extent: &Extent,
) -> Option<Vec<Row>> {
    if let Some(bytes) = &extent.inline {
        return Some(decode(bytes.clone()));
    }
    let path = BucketPath::extent(state.id(), extent.id);
    for _ in 0..READ_ATTEMPTS {
        match follower.bucket.get(&path).await {
            Ok(bytes) if Digest::of(&bytes) == extent.sha256 => return Some(decode(bytes)),
            Ok(_) => {
                let version = state.version();
                let what = format!("extent {} of version {version} is damaged", extent.id);
                world.check.violation(what);
                return None;
            }
            Err(error) if error.kind() == StorageErrorKind::NotFound => {
                if world.check.is_promised(query) {
                    let version = state.version();
                    let what = format!(
                        "a query of {} at version {version} misses extent {}, which its lease names",
                        follower.name, extent.id
                    );
                    world.check.violation(what);
                }
                return None;
            }
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
    None
}

/// Breaks things, one after another, and mends what a person would mend.
async fn break_things(world: Arc<World>, dice: Dice, end: Instant) {
    while Instant::now() < end {
        pause(&dice, CHAOS).await;
        let faults = &dice;
        let outage = faults.between(OUTAGE.0, OUTAGE.1);
        let number = faults.below(FOLLOWERS);
        let mut hosts: Vec<_> = world
            .leaders()
            .iter()
            .map(|l| Arc::clone(&l.host))
            .collect();
        hosts.extend(world.followers().iter().map(|f| Arc::clone(&f.host)));
        if hosts.is_empty() {
            let _ = world.start_leader().await;
            continue;
        }
        let host = &hosts[faults.below(hosts.len())];
        match faults.below(12) {
            0 | 1 => {
                if let Some(leader) = world.leader() {
                    faults.note(Fault::LeaderKilled);
                    world.kill_leader(&leader);
                    tokio::time::sleep(outage / 4).await;
                }
                // One that does not get the bucket to answer is started again later.
                let _ = world.start_leader().await;
            }
            2 | 3 => {
                faults.note(Fault::TwoLeaders);
                let _ = world.start_leader().await;
            }
            4 => {
                let mut leaders = world.leaders();
                if leaders.len() > 1 {
                    world.kill_leader(&leaders.swap_remove(0));
                }
            }
            5 => {
                faults.note(Fault::FollowerKilled);
                world.kill_follower(number);
                tokio::time::sleep(outage / 4).await;
                let _ = world.start_follower(number);
            }
            6 => {
                if let Some(follower) = world.follower(number) {
                    world.check.forget_node(follower.node);
                    follower.detach().await;
                    world.check.forget_node(follower.node);
                    tokio::time::sleep(outage / 8).await;
                    let _ = follower.attach().await;
                }
            }
            7 => {
                faults.note(Fault::Partition);
                host.cut(outage);
            }
            8 => {
                faults.note(Fault::Reset);
                host.reset();
            }
            9 => {
                faults.note(Fault::BucketCut);
                host.cut_bucket(outage);
            }
            10 => {
                faults.note(Fault::Frozen);
                host.freeze(outage);
            }
            _ => {
                faults.note(Fault::ClockSkew);
                host.skew(skew(faults));
            }
        }
    }
}
