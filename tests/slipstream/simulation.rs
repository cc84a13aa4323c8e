//! A whole cluster in one thread, on virtual time, with everything going wrong.
//!
//! The real leader, follower, sync, lease, merge and garbage collection code runs over a store, a
//! network and clocks that are simulated ([`store`], [`network`], [`clock`]) and draw their faults
//! ([`faults`]) from one seed. Actors ([`actors`]) use the cluster and break it; the checker
//! ([`check`]) sees every object land and knows what must hold. One seed gives one run.
//!
//! ```text
//! cargo test --workspace --test slipstream simulation                                # what CI runs
//! SLIPSTREAM_SIM_SEEDS=10000 cargo test --workspace --test slipstream simulation::seeds -- --nocapture
//! SLIPSTREAM_SIM_SEED=17 cargo test --workspace --test slipstream simulation::seeds -- --nocapture
//! ```
//!
//! `SLIPSTREAM_SIM_SEEDS=5000..10000` goes on where another run ended. With `SLIPSTREAM_SIM_TRACE=1`
//! every request is printed.

mod actors;
mod check;
mod clock;
mod faults;
mod network;
mod store;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_storage::blocking;

use faults::{Counts, Fault, Sabotage};
use world::{DATABASE, PROMISES, World};

/// Seeds that CI runs.
const SEEDS: u64 = 60;
/// How often a long run says how far it is.
const TOLD_EVERY: u64 = 1000;
/// Seeds in which each planted bug has to be found.
const SEEDS_PLANTED: u64 = 40;
/// How long the actors are at work, in virtual time.
const BUSY: Duration = Duration::from_secs(60);
/// How long a cluster may take to come to rest once all faults are over.
const QUIET_MAX: Duration = Duration::from_secs(240);
const QUIET_STEP: Duration = Duration::from_secs(5);

thread_local! {
    /// The panics of this thread's tasks: a task's panic ends nothing but the task.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What became of a seed.
#[derive(Debug)]
struct Outcome {
    violations: Vec<String>,
    faults: Counts<Fault>,
    events: Counts<&'static str>,
    fingerprint: u64,
}

/// Runs one seed. The same seed gives the same outcome.
fn simulate(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    note_panics();
    blocking::run_in_place();
    PANICS.take();
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let world = runtime.block_on(async {
        let world = World::new(seed, sabotage, directory.path().to_owned());
        live(&world).await;
        world
    });
    let check = &world.check;
    check.finish(&world.store.objects());
    let mut violations = check.violations();
    violations.extend(
        PANICS
            .take()
            .into_iter()
            .map(|panic| format!("panic: {panic}")),
    );
    Outcome {
        violations,
        faults: world.faults.counts(),
        events: check.events(),
        fingerprint: check.fingerprint(),
    }
}

/// Setting up, faults, rest.
async fn live(world: &Arc<World>) {
    if let Err(error) = actors::set_up(world).await {
        return world
            .check
            .violation(format!("not even a start: {error:#}"));
    }
    world.faults.switch(true);
    actors::run(world, BUSY).await;
    world.faults.switch(false);
    if world.check.violations().is_empty()
        && let Err(unrest) = come_to_rest(world).await
    {
        world.check.violation(unrest);
    }
}

/// Mends everything and waits until followers have what the leader has, and until the bucket holds
/// nothing that no table names.
async fn come_to_rest(world: &Arc<World>) -> Result<(), String> {
    for host in world.leaders().iter().map(|leader| &leader.host) {
        host.heal();
    }
    for host in world.followers().iter().map(|follower| &follower.host) {
        host.heal();
    }
    // Whatever was put off is over before the last leader starts.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for leader in world.leaders() {
        world.kill_leader(&leader);
    }
    let leader = world.start_leader().await;
    leader.map_err(|error| format!("no leader starts in peace: {error:#}"))?;
    // One that knows nothing of what was before.
    world.kill_follower(0);
    for number in 0..actors::FOLLOWERS {
        let follower = match world.follower(number) {
            Some(follower) => follower,
            None => world.start_follower(number).map_err(|e| format!("{e:#}"))?,
        };
        let attached = follower.attach().await;
        attached.map_err(|error| format!("{} does not attach: {error:#}", follower.name))?;
    }
    let mut waited = Duration::ZERO;
    loop {
        tokio::time::sleep(QUIET_STEP).await;
        waited += QUIET_STEP;
        let is_long_enough = waited >= PROMISES.lease_ttl + PROMISES.grace;
        let unrest = unrest(world);
        match unrest {
            None if is_long_enough => return Ok(()),
            Some(unrest) if waited >= QUIET_MAX => {
                return Err(format!("after {waited:?} of peace {unrest}"));
            }
            _ => {}
        }
    }
}

fn unrest(world: &World) -> Option<String> {
    let newest = world.check.newest();
    for follower in world.followers() {
        let following = match follower.registry.by_database(DATABASE) {
            Ok(following) => following,
            Err(error) => return Some(format!("{} follows nothing: {error}", follower.name)),
        };
        let served = following.served();
        let shown = served.state.as_ref();
        let shown = shown.map(|state| (state.version(), state.digest()));
        if shown != newest || served.suspension.is_some() {
            return Some(format!(
                "{} shows {shown:?} and not {newest:?}: {:?} {:?}",
                follower.name, served.suspension, served.leader_silence
            ));
        }
    }
    let unreferenced = world.check.unreferenced(&world.store.objects());
    (!unreferenced.is_empty()).then(|| format!("the bucket still holds {unreferenced:?}"))
}

/// A directory for the few small files that nodes keep: in memory where there is such a one.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// Has panics noted by thread, besides what else is done about them.
fn note_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// The seeds that the environment names: so many of the first, or `from..to`.
fn seeds_wanted() -> Range<u64> {
    let Ok(wanted) = std::env::var("SLIPSTREAM_SIM_SEEDS") else {
        return 0..SEEDS;
    };
    let (from, to) = wanted.split_once("..").unwrap_or(("0", &wanted));
    let [from, to] = [from, to].map(|number| number.parse().expect("a number, or from..to"));
    from..to
}

/// What became of many seeds.
#[derive(Debug, Default)]
struct Summary {
    failed: BTreeMap<u64, Vec<String>>,
    faults: Counts<Fault>,
    events: Counts<&'static str>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (event, count) in outcome.events {
            *self.events.entry(event).or_default() += count;
        }
        if let Some(violation) = outcome.violations.first() {
            eprintln!("seed {seed}: {violation}");
            self.failed.insert(seed, outcome.violations);
        }
    }
}

/// Runs seeds on all cores.
fn simulate_all(seeds: Range<u64>) -> Summary {
    let (next, summary) = (AtomicU64::new(seeds.start), Mutex::new(Summary::default()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if seed > seeds.start && seed.is_multiple_of(TOLD_EVERY) {
                        eprintln!("at seed {seed} of {seeds:?}");
                    }
                    let outcome = simulate(seed, None);
                    summary.lock().add(seed, outcome);
                }
            });
        }
    });
    summary.into_inner()
}

/// The seeds of CI, or those that the environment names.
#[test]
fn seeds() {
    if let Some(seed) = number("SLIPSTREAM_SIM_SEED") {
        let outcome = simulate(seed, None);
        eprintln!("{outcome:#?}");
        assert!(outcome.violations.is_empty(), "seed {seed} fails");
        return;
    }
    let seeds = seeds_wanted();
    let began = std::time::Instant::now();
    let Summary {
        failed,
        faults,
        events,
    } = simulate_all(seeds.clone());
    let took = began.elapsed();
    let count = seeds.end.saturating_sub(seeds.start);
    eprintln!("{count} seeds, {seeds:?}, in {took:?}; events: {events:#?}; faults: {faults:#?}");
    let idle = Fault::ALL
        .iter()
        .filter(|fault| !faults.contains_key(fault));
    let idle: Vec<_> = idle.collect();
    assert!(idle.is_empty() || count < SEEDS, "never happened: {idle:?}");
    if let Some((seed, violations)) = failed.first_key_value() {
        panic!(
            "{} of {count} seeds fail: {:?}; seed {seed}: {violations:#?}\nreplay it with:\n  \
             SLIPSTREAM_SIM_SEED={seed} cargo test --workspace --test slipstream \
             simulation::seeds -- --nocapture",
            failed.len(),
            failed.keys().collect::<Vec<_>>(),
        );
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 0..4 {
        let runs = [(); 2].map(|()| simulate(seed, None));
        let [first, second] = runs.map(|outcome| outcome.fingerprint);
        assert_eq!(first, second, "seed {seed}");
    }
}

/// The checker bites: a planted bug is found, and by what it does.
fn finds(bug: Sabotage, symptoms: &[&str]) {
    for seed in 0..SEEDS_PLANTED {
        let outcome = simulate(seed, Some(bug));
        let first = outcome.violations.first();
        if let Some(violation) = first {
            let is_it = symptoms.iter().any(|symptom| violation.contains(symptom));
            assert!(is_it, "{bug:?} shows as something else: {violation}");
            return;
        }
    }
    panic!("{bug:?} was not found in {SEEDS_PLANTED} seeds");
}

#[test]
fn a_lease_that_is_ignored_is_found() {
    finds(
        Sabotage::LeaseIgnored,
        &[
            "has a lease on version",
            "still reads",
            "which its lease names",
        ],
    );
}

#[test]
fn a_deletion_that_comes_early_is_found() {
    finds(Sabotage::EarlyDeletion, &["before its grace period"]);
}

#[test]
fn a_swap_in_two_commits_is_found() {
    finds(Sabotage::NonAtomicSwap, &["twice", "has a sum of"]);
}

#[test]
fn a_create_without_a_look_back_is_found() {
    finds(
        Sabotage::MissingReadBack,
        &[
            // Who never hears that it was replaced goes on as if it led.
            "nobody who deletes knows of it",
            "was acknowledged",
            "which does not have it",
            "has digest",
            "does not follow the newest",
        ],
    );
}

#[test]
fn an_epoch_that_is_not_checked_is_found() {
    finds(
        Sabotage::EpochNotChecked,
        &[
            "does not follow the newest",
            "was acknowledged",
            "log is damaged",
        ],
    );
}
