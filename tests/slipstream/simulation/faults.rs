//! What goes wrong, how often, and how often it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipstream_model::Entropy;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A put takes seconds.
    SlowPut,
    /// A put lands, and its answer is lost.
    LostAnswer,
    /// A put is refused with 503, and nothing lands.
    PutUnavailable,
    /// A put is refused with 403, and nothing lands.
    PutRefused,
    /// A create is answered with 409, and nothing has landed.
    SpuriousConflict,
    /// Half of an object lands in place of the whole.
    TornPut,
    /// A put that was given up lands later.
    LatePut,
    /// A get takes seconds.
    SlowGet,
    /// A get is refused with 503.
    GetUnavailable,
    /// A get is refused with 403.
    GetRefused,
    /// A body breaks off.
    TornGet,
    /// A delete takes seconds.
    SlowDelete,
    /// A delete is refused with 503.
    DeleteUnavailable,
    /// A delete is refused with 403.
    DeleteRefused,
    /// A delete is done, and its answer is lost.
    LostDelete,
    /// A message takes long.
    SlowMessage,
    /// All connections of a node break.
    Reset,
    /// A node hears and says nothing for a while.
    Partition,
    /// A node does not reach the bucket for a while.
    BucketCut,
    /// A leader dies.
    LeaderKilled,
    /// A leader dies, and what it was writing lands.
    DyingPut,
    /// A second leader starts while the first one runs.
    TwoLeaders,
    /// A follower dies.
    FollowerKilled,
    /// A node stands still for a while.
    Frozen,
    /// A clock is set.
    ClockSkew,
}

impl Fault {
    pub(crate) const ALL: [Self; 25] = [
        Self::SlowPut,
        Self::LostAnswer,
        Self::PutUnavailable,
        Self::PutRefused,
        Self::SpuriousConflict,
        Self::TornPut,
        Self::LatePut,
        Self::SlowGet,
        Self::GetUnavailable,
        Self::GetRefused,
        Self::TornGet,
        Self::SlowDelete,
        Self::DeleteUnavailable,
        Self::DeleteRefused,
        Self::LostDelete,
        Self::SlowMessage,
        Self::Reset,
        Self::Partition,
        Self::BucketCut,
        Self::LeaderKilled,
        Self::DyingPut,
        Self::TwoLeaders,
        Self::FollowerKilled,
        Self::Frozen,
        Self::ClockSkew,
    ];
}

/// A bug that is planted, each at a seam that belongs to the simulation: the product's code is what
/// ships. Where each one sits is said where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Renewals are answered, and not noted.
    LeaseIgnored,
    /// Files are deleted as soon as a commit has removed them.
    EarlyDeletion,
    /// What replaces an extent comes with another commit than its removal.
    NonAtomicSwap,
    /// A create that meets an object counts as landed, without a look at what stands there.
    MissingReadBack,
    /// A leader that was replaced writes on, over what its successor wrote.
    EpochNotChecked,
}

/// How often something happens: counted by its name.
pub(crate) type Counts<K> = BTreeMap<K, u64>;

/// What goes wrong in one seed.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    /// The chance that a request goes wrong in one way.
    rate: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_on: bool,
    counts: Counts<Fault>,
}

/// Chances that a seed may have: some are calm, so that the actors get far.
const RATES: [f64; 4] = [0.002, 0.01, 0.03, 0.08];

impl Faults {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let first = Entropy::from_seed(seed).next_u64();
        Arc::new(Self {
            seed,
            rate: RATES[(first % RATES.len() as u64) as usize],
            state: Mutex::default(),
        })
    }

    pub(crate) fn switch(&self, is_on: bool) {
        self.state.lock().is_on = is_on;
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state.lock().is_on
    }

    pub(crate) fn counts(&self) -> Counts<Fault> {
        self.state.lock().counts.clone()
    }

    /// Dice for one who throws them in a sequence of its own. Two tasks that wake at one instant
    /// may do so in either order (`tokio::sync::watch` draws it), and must not thereby swap what
    /// they throw.
    pub(crate) fn dice(self: &Arc<Self>, who: &str) -> Dice {
        let mut hash = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in who.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Dice {
            faults: Arc::clone(self),
            entropy: Entropy::from_seed(hash),
        }
    }
}

/// One sequence of throws.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    faults: Arc<Faults>,
    entropy: Entropy,
}

impl Dice {
    /// Whether a request goes wrong in this way.
    pub(crate) fn hits(&self, fault: Fault) -> bool {
        let hits = self.faults.is_on() && self.chance(self.faults.rate);
        if hits {
            self.note(fault);
        }
        hits
    }

    pub(crate) fn note(&self, fault: Fault) {
        *self.faults.state.lock().counts.entry(fault).or_default() += 1;
    }

    /// A duration between two bounds.
    pub(crate) fn between(&self, low: Duration, high: Duration) -> Duration {
        low + (high - low).mul_f64(self.entropy.fraction())
    }

    pub(crate) fn chance(&self, of_one: f64) -> bool {
        self.entropy.fraction() < of_one
    }

    /// A number below a bound.
    pub(crate) fn below(&self, bound: usize) -> usize {
        (self.entropy.next_u64() % bound as u64) as usize
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.entropy
    }
}
