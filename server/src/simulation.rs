//! Whole clusters from one seed: real controllers, replica managers, fetchers and logs, on disks, a network, a ZooKeeper ensemble and a
//! clock in memory, under faults.
//!
//! Everything runs on one thread whose clock moves only when everybody waits; every delay and every fault comes from the seed, so
//! that the same seed gives the same run. Producers write numbered records with `acks=all` until they are acknowledged and keep a
//! ledger; a reader watches that an offset never holds two values; [`checker`] looks at all brokers between events. In the end
//! everything is healed, and the cluster must come together: every acknowledged record at its offset, once and in order, and the
//! replicas identical.
//!
//! The shells of network, handlers and processes are not in it; nor are clients of Kafka. A simulation that fails names its seed, and
//! [`run`] repeats it.

mod checker;
mod client;
mod clock;
mod faults;
mod group;
mod isr_store;
mod leader;
mod network;
mod node;
mod promise;
mod story;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::config::BrokerConfig;
use crate::coordination::simulated::{Ensemble, EnsembleRules};
use crate::group::GROUP_METADATA_TOPIC_NAME;
use checker::Checker;
use client::Ledger;
use clock::SimulatedClock;
use faults::{Fault, Plan};
use group::Commits;
use network::Network;
use node::Node;
use promise::Promise;

/// The topic that everything is about.
const TOPIC: &str = "t";
/// Faults come for so long.
const TROUBLE: Duration = Duration::from_secs(25);
/// A healed cluster comes together within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// A seeded generator (SplitMix64); clones share it.
#[derive(Clone, Debug)]
struct Numbers(Arc<Mutex<u64>>);

impl Numbers {
    fn new(seed: u64) -> Numbers {
        Numbers(Arc::new(Mutex::new(seed)))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, from 0.
    fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `count` times.
    fn once_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn duration(&self, bound: Duration) -> Duration {
        Duration::from_micros(self.below(bound.as_micros() as u64))
    }
}

/// What one seed makes of a cluster.
#[derive(Clone, Copy, Debug)]
struct Shape {
    brokers: i32,
    partitions: i32,
    /// Every record on the medium before it is acknowledged: then the power may be cut.
    is_synced: bool,
    /// `inter.broker.protocol.version` from 2.7-IV2 on: leaders do not write the tree themselves.
    asks_controller_for_isr: bool,
}

impl Shape {
    fn of(numbers: &Numbers) -> Shape {
        Shape {
            brokers: 3 + numbers.below(3) as i32,
            partitions: 1 + numbers.below(3) as i32,
            is_synced: numbers.once_in(3),
            asks_controller_for_isr: !numbers.once_in(3),
        }
    }
}

/// Everything that a run has.
struct World {
    shape: Shape,
    config: Arc<BrokerConfig>,
    numbers: Numbers,
    clock: Arc<SimulatedClock>,
    ensemble: Ensemble,
    network: Network,
    nodes: Vec<Node>,
    ledger: Ledger,
    commits: Commits,
    checker: Checker,
    promise: Promise,
    /// Nothing goes wrong any more.
    is_healed: Cell<bool>,
}

impl World {
    /// Every partition of the cluster: of the records, and of the groups.
    fn all_partitions(&self) -> Vec<TopicPartition> {
        let records = (0..self.shape.partitions).map(|number| TopicPartition::new(TOPIC, number));
        let groups = TopicPartition::new(GROUP_METADATA_TOPIC_NAME, 0);
        records.chain([groups]).collect()
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What must not happen and did, in order.
    pub(crate) violations: Vec<String>,
    pub(crate) acknowledged: usize,
    /// The last offsets of all groups together.
    pub(crate) committed: i64,
    /// Elections that the checker saw.
    pub(crate) reigns: usize,
    /// More was lost than is promised to be kept, and the run ended there.
    pub(crate) is_void: bool,
    /// Of everything that happened, for the comparison of two runs.
    pub(crate) digest: u64,
}

/// Runs the cluster of a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    run_with(seed, &plan(seed))
}

/// What goes wrong in the run of a seed.
fn plan(seed: u64) -> Plan {
    // Numbers of its own: what goes wrong does not depend on how the brokers fare.
    let shape = Shape::of(&Numbers::new(seed));
    // What a failed sync left in the page cache may be missing after a power cut; such a log is taken out of service for good.
    let numbers = Numbers::new(!seed);
    let may_lose_power = match shape.is_synced {
        true => numbers.once_in(2),
        false => Numbers::new(seed.reverse_bits()).once_in(3),
    };
    faults::plan(&numbers, shape, may_lose_power, TROUBLE)
}

/// Runs the cluster of a seed through other troubles than its own.
fn run_with(seed: u64, plan: &[(u64, Fault)]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, live(seed, plan))
}

async fn live(seed: u64, plan: &[(u64, Fault)]) -> Outcome {
    let _story = story::tell();
    let numbers = Numbers::new(seed);
    let shape = Shape::of(&numbers);
    let clock = Arc::new(SimulatedClock::new());
    let rules = EnsembleRules {
        servers: 3,
        session_timeout: Duration::from_millis(2000 + numbers.below(4000)),
        delay_max: Duration::from_millis(1 + numbers.below(20)),
        lag_max: Duration::from_millis(1 + numbers.below(60)),
    };
    let ensemble = {
        let numbers = numbers.clone();
        let below = Arc::new(Mutex::new(move |bound| numbers.below(bound)));
        Ensemble::new(rules, clock.clone(), below)
    };
    let world = Rc::new(World {
        nodes: (0..shape.brokers)
            .map(|_| Node::new(numbers.next(), clock.another()))
            .collect(),
        network: Network::new(numbers.clone(), Duration::from_millis(1 + numbers.below(10))),
        ledger: Ledger::default(),
        commits: Commits::default(),
        checker: Checker::default(),
        promise: Promise::default(),
        is_healed: Cell::new(false),
        config: Arc::new(node::config(shape)),
        shape,
        numbers,
        clock,
        ensemble,
    });
    node::create_topics(&world).await;
    for id in 0..shape.brokers {
        node::start(&world, id);
    }
    let watching = tokio::task::spawn_local(checker::watch(Rc::clone(&world)));
    let clients = client::start(&world);
    let whole = async {
        faults::trouble(&world, plan).await;
        heal_in_parts(&world).await;
        faults::heal(&world);
        if !clients.stop().await {
            let stuck = "a record or a commit is not acknowledged in the healed cluster".to_owned();
            world.checker.violation(stuck);
        }
        let came_together = checker::comes_together(&world, RECOVERY_MAX).await;
        if let Err(missing) = came_together {
            world
                .checker
                .violation(format!("the healed cluster does not come together: {missing}"));
        }
        checker::scan(&world);
        group::check(&world).await;
    };
    let is_void = tokio::select! {
        biased;
        () = world.promise.is_void() => true,
        () = whole => false,
    };
    watching.abort();
    // So that nothing of this run is left in the runtime.
    for id in 0..shape.brokers {
        node::kill(&world, id);
    }
    sleep(Duration::from_secs(1)).await;
    Outcome {
        violations: world.checker.violations(),
        acknowledged: world.ledger.acknowledged_count(),
        committed: world.commits.acknowledged().iter().sum(),
        reigns: world.checker.reign_count(),
        is_void,
        digest: world.checker.digest(&world.ledger, &world.commits),
    }
}

/// First all but one broker are well, if the others have what is needed, and must go on.
async fn heal_in_parts(world: &Rc<World>) {
    let down = world.numbers.below(world.shape.brokers as u64 * 2) as i32;
    if down >= world.shape.brokers || !checker::can_do_without(world, down) {
        return;
    }
    faults::heal_all_but(world, down);
    if let Err(still) = checker::goes_on_without(world, down, RECOVERY_MAX / 2).await {
        world.checker.violation(still);
    }
}

#[cfg(test)]
mod tests;
