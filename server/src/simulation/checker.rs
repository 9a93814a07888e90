//! What must hold at every moment, and in the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use milena_engine::log::UpperBound;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use tokio::time::{Instant, sleep};

use super::client::{Ledger, is_of_former_life, records_in, value};
use super::group::Commits;
use super::{TOPIC, World, promise, story};
use crate::cluster::LeaderAndIsr;
use crate::coordination::znodes::{self, PartitionState, ReplicaAssignment, TopicAssignment};
use crate::replication::Partition;

/// Violations that one run tells.
const VIOLATIONS_MAX: usize = 10;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Checker {
    violations: RefCell<Vec<String>>,
    /// By partition and epoch: who leads.
    reigns: RefCell<BTreeMap<(TopicPartition, i32), Reign>>,
    /// By partition and broker: the replica there, and the last epoch that it knew.
    epochs: RefCell<BTreeMap<(TopicPartition, i32), KnownEpoch>>,
    /// By partition: its state in the tree, and the transaction that wrote it.
    states: RefCell<BTreeMap<TopicPartition, (i64, LeaderAndIsr)>>,
    /// By partition: the last leader epoch in the tree.
    in_tree: RefCell<BTreeMap<TopicPartition, LeaderEpoch>>,
    /// By partition and offset: the record that a consumer read.
    read: RefCell<BTreeMap<(i32, i64), String>>,
    events: Cell<u64>,
}

/// A leader, in one of its lives.
struct Reign {
    broker: i32,
    replica: Weak<Partition>,
}

/// The last epoch that a replica knew, while it is the same one.
struct KnownEpoch {
    replica: Weak<Partition>,
    epoch: LeaderEpoch,
}

impl Checker {
    pub(super) fn violation(&self, text: String) {
        tracing::error!(target: story::EVENTS, "{text}");
        let mut violations = self.violations.borrow_mut();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(text);
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    pub(super) fn reign_count(&self) -> usize {
        self.reigns.borrow().len()
    }

    /// Something happened that a second run of the seed must repeat.
    pub(super) fn event(&self, text: String) {
        tracing::info!(target: story::EVENTS, "{text}");
        let mut hasher = DefaultHasher::new();
        (self.events.get(), text).hash(&mut hasher);
        self.events.set(hasher.finish());
    }

    pub(super) fn digest(&self, ledger: &Ledger, commits: &Commits) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.events.get().hash(&mut hasher);
        for (of, reign) in self.reigns.borrow().iter() {
            (of, reign.broker).hash(&mut hasher);
        }
        self.read.borrow().hash(&mut hasher);
        ledger.acknowledged().hash(&mut hasher);
        commits.acknowledged().hash(&mut hasher);
        hasher.finish()
    }

    /// A5: an offset never holds two records.
    pub(super) fn read(&self, partition: i32, offset: i64, value: &str) {
        let mut read = self.read.borrow_mut();
        let known = read
            .entry((partition, offset))
            .or_insert_with(|| value.to_owned());
        if known != value {
            let known = known.clone();
            drop(read);
            self.violation(format!(
                "offset {offset} of {partition} was read as {known} and as {value}"
            ));
        }
    }

    /// A9: a replica's epoch only rises, as long as it is hosted.
    fn knows(&self, at: &TopicPartition, broker: i32, replica: &Arc<Partition>) {
        let Some(epoch) = replica.leader_epoch() else {
            return;
        };
        let latest = KnownEpoch {
            replica: Arc::downgrade(replica),
            epoch,
        };
        let before = self.epochs.borrow_mut().insert((at.clone(), broker), latest);
        if let Some(before) = before
            && before.replica.as_ptr() == Arc::as_ptr(replica)
            && epoch < before.epoch
        {
            let before = before.epoch;
            self.violation(format!(
                "broker {broker} went from epoch {before} of {at} back to {epoch}"
            ));
        }
    }

    /// A9: the epoch in the tree only rises.
    fn decided(&self, at: &TopicPartition, epoch: LeaderEpoch) {
        let before = self.in_tree.borrow_mut().insert(at.clone(), epoch);
        if let Some(before) = before
            && epoch < before
        {
            self.violation(format!(
                "the epoch of {at} in the tree went from {before} back to {epoch}"
            ));
        }
    }

    /// A9: one leader for each epoch, in one life: in the next it may have less. Where the state was written after that began, by a
    /// controller that had not heard of it, no other controller can know.
    fn leads(&self, world: &World, at: &TopicPartition, epoch: i32, broker: i32, replica: &Arc<Partition>) {
        let mut reigns = self.reigns.borrow_mut();
        let reign = reigns.entry((at.clone(), epoch)).or_insert_with(|| Reign {
            broker,
            replica: Arc::downgrade(replica),
        });
        let first = reign.broker;
        if reign.replica.as_ptr() != Arc::as_ptr(replica) {
            if first == broker && is_bounce_hidden(world, at, broker) {
                reign.replica = Arc::downgrade(replica);
                return;
            }
            drop(reigns);
            self.violation(format!(
                "broker {broker} leads {at} in epoch {epoch}, which {first} led in another life"
            ));
        }
    }
}

/// Whether the broker registered before the partition's state was last written.
fn is_bounce_hidden(world: &World, at: &TopicPartition, broker: i32) -> bool {
    let registration = world.ensemble.look(&znodes::broker_id(broker));
    let state = world
        .ensemble
        .look(&znodes::partition_state(&at.topic, at.partition));
    let both = registration.zip(state);
    both.is_some_and(|(registration, state)| registration.stat.czxid < state.stat.mzxid)
}

/// Looks at all brokers again and again.
pub(super) async fn watch(world: Rc<World>) {
    loop {
        sleep(Duration::from_millis(5 + world.numbers.below(40))).await;
        promise::look(&world);
        for at in world.all_partitions() {
            look(&world, &at);
        }
    }
}

/// The state that the ensemble's leader has of a partition.
pub(super) fn state_in_tree(world: &World, at: &TopicPartition) -> Option<LeaderAndIsr> {
    let path = znodes::partition_state(&at.topic, at.partition);
    let node = world.ensemble.look(&path)?;
    let mut states = world.checker.states.borrow_mut();
    if let Some((written, state)) = states.get(at)
        && *written == node.stat.mzxid
    {
        return Some(state.clone());
    }
    let state = PartitionState::decode(&path, &node.data?, node.stat.version).ok()?;
    states.insert(at.clone(), (node.stat.mzxid, state.leader_and_isr.clone()));
    Some(state.leader_and_isr)
}

/// Who has replicas of a partition, as the ensemble's leader has it.
fn assignment(world: &World, at: &TopicPartition) -> ReplicaAssignment {
    let path = znodes::topic(&at.topic);
    let data = world.ensemble.look(&path).and_then(|node| node.data);
    let decoded = TopicAssignment::decode(&path, &data.expect("it was written before the brokers started"));
    decoded.expect("brokers write it well").partitions[&at.partition].clone()
}

fn look(world: &World, at: &TopicPartition) {
    let state = state_in_tree(world, at);
    if let Some(state) = &state {
        world.checker.decided(at, state.leader_epoch);
    }
    for id in 0..world.shape.brokers {
        let Some(running) = world.running(id) else {
            continue;
        };
        let Ok(partition) = running.replicas.partition(&at.topic, at.partition) else {
            continue;
        };
        world.checker.knows(at, id, &partition);
        let Ok(epoch) = partition.check_leader(-1) else {
            continue;
        };
        world.checker.leads(world, at, epoch.get(), id, &partition);
        // A9: what this leader calls committed is on all in-sync replicas.
        let Some(state) = &state else { continue };
        if state.leader != Some(id) || state.leader_epoch != epoch {
            continue;
        }
        let high_watermark = partition.log().high_watermark();
        for member in state.isr.iter().filter(|member| **member != id) {
            let Some(other) = world.running(*member) else {
                continue;
            };
            let Ok(replica) = other.replicas.partition(&at.topic, at.partition) else {
                continue;
            };
            let end = replica.log().log_end_offset();
            if end < high_watermark {
                world.checker.violation(format!(
                    "the high watermark {high_watermark} of {at} on {id} is beyond the end {end} of {member}, which is in sync"
                ));
            }
        }
    }
}

/// Waits until every partition has all its replicas in sync and alike; what is missing, otherwise (A12).
pub(super) async fn comes_together(world: &Rc<World>, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    loop {
        let missing = world.all_partitions().iter().find_map(|at| missing(world, at));
        let Some(missing) = missing else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(missing);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until records were acknowledged in every partition while one broker is down; where none was (A12). Nothing is expected where
/// only that one is in sync of a partition, which the producers may then wait for.
pub(super) async fn goes_on_without(world: &Rc<World>, down: i32, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    let before = world.ledger.counts(world.shape.partitions);
    let is_still =
        |partition: &usize| world.ledger.counts(world.shape.partitions)[*partition] == before[*partition];
    let mut still: Vec<usize> = (0..before.len()).collect();
    while Instant::now() < deadline {
        still.retain(is_still);
        if still.is_empty() {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    if !can_do_without(world, down) {
        return Ok(());
    }
    let at = TopicPartition::new(TOPIC, still[0] as i32);
    let state = state_in_tree(world, &at);
    Err(format!(
        "nothing is acknowledged in {at} without broker {down}: {state:?}"
    ))
}

/// Whether every partition has somebody else in sync.
pub(super) fn can_do_without(world: &World, broker: i32) -> bool {
    let states = world
        .all_partitions()
        .into_iter()
        .map(|at| state_in_tree(world, &at));
    states
        .into_iter()
        .all(|state| others_in_sync(state.as_ref(), broker))
}

fn others_in_sync(state: Option<&LeaderAndIsr>, broker: i32) -> bool {
    state.is_some_and(|state| state.isr.iter().any(|id| *id != broker))
}

fn missing(world: &World, at: &TopicPartition) -> Option<String> {
    let Some(state) = state_in_tree(world, at) else {
        return Some(format!("{at} has no state"));
    };
    let Some(leader) = state.leader else {
        return Some(format!("{at} has no leader: {state:?}"));
    };
    let assignment = assignment(world, at);
    if assignment.is_being_reassigned() {
        return Some(format!("{at} is still being moved: {assignment:?}"));
    }
    if state.isr.len() < assignment.replicas.len() {
        return Some(format!("{at} has too few in sync: {state:?}"));
    }
    let mut ends = Vec::new();
    for id in state.isr.iter() {
        let Some(running) = world.running(*id) else {
            return Some(format!("{id} is down"));
        };
        let Ok(partition) = running.replicas.partition(&at.topic, at.partition) else {
            return Some(format!("{at} is not on {id}"));
        };
        if partition.leader_epoch() != Some(state.leader_epoch)
            || partition.check_leader(-1).is_ok() != (*id == leader)
        {
            return Some(format!("{id} does not know the state of {at}: {state:?}"));
        }
        let offsets = partition.log().offsets();
        ends.push((offsets.log_end_offset, offsets.high_watermark));
    }
    let (end, _) = ends[0];
    let is_alike = ends.iter().all(|found| *found == (end, end));
    (!is_alike).then(|| format!("the ends of {at} differ: {ends:?}"))
}

/// Everything that lies in a replica.
fn bytes_of(world: &World, id: i32, at: &TopicPartition) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(partition) = world
        .running(id)
        .and_then(|running| running.replicas.partition(&at.topic, at.partition).ok())
    else {
        return bytes;
    };
    let log = partition.log();
    let mut next = log.log_start_offset();
    while let Ok(info) = log.read(next, 1 << 20, UpperBound::LogEnd, true) {
        let Some(slice) = info.records else { break };
        let more = slice.read().unwrap_or_default();
        let Some((last, _)) = records_in(&more).last().cloned() else {
            break;
        };
        next = Offset(last + 1);
        bytes.extend_from_slice(&more);
    }
    bytes
}

/// A1 to A4, A10 and A11, of a cluster that has come together.
pub(super) fn scan(world: &Rc<World>) {
    for at in &world.all_partitions() {
        let replicas = assignment(world, at).replicas;
        let Some((first, others)) = replicas.split_first() else {
            world.checker.violation(format!("nobody has {at}"));
            continue;
        };
        let bytes = bytes_of(world, *first, at);
        for other in others {
            if bytes_of(world, *other, at) != bytes {
                world
                    .checker
                    .violation(format!("the replicas of {at} on {first} and {other} differ"));
            }
        }
        if *at.topic == *TOPIC {
            check_records(world, at.partition, &records_in(&bytes));
        }
    }
}

fn check_records(world: &World, index: i32, records: &[(i64, String)]) {
    let by_offset: BTreeMap<i64, &str> = records
        .iter()
        .map(|(offset, value)| (*offset, value.as_str()))
        .collect();
    for entry in world
        .ledger
        .acknowledged()
        .iter()
        .filter(|entry| entry.partition == index)
    {
        let expected = value(index, entry.producer, entry.number);
        match by_offset.get(&entry.offset) {
            Some(found) if *found == expected => {}
            found => world.checker.violation(format!(
                "{expected} was acknowledged at offset {}, where there is {found:?}",
                entry.offset
            )),
        }
    }
    let mut last: BTreeMap<&str, i32> = BTreeMap::new();
    for (offset, value) in records {
        world.checker.read(index, *offset, value);
        if world.ledger.was_refused(value) {
            let text = format!("{value} at offset {offset} had been refused");
            world.checker.violation(text);
        }
        if is_of_former_life(value) {
            continue;
        }
        let (producer, number) = value.rsplit_once('/').expect("values of ours have numbers");
        let number: i32 = number.parse().expect("values of ours have numbers");
        if let Some(before) = last.insert(producer, number)
            && number != before + 1
        {
            world
                .checker
                .violation(format!("{value} at offset {offset} follows number {before}"));
        }
    }
}
