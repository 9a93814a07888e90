//! Idempotent producers with `acks=all`, each record sent until it is acknowledged, and their ledger; and a reader of what is committed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use milena_engine::error::{AppendError, ProducerRefusal};
use milena_engine::io::Clock;
use milena_engine::log::UpperBound;
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, batches, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::checker::state_in_tree;
use super::network::Place;
use super::node::Running;
use super::{TOPIC, World, group};
use crate::replication::{Acknowledgement, Partition};

const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);
const PRODUCERS: i64 = 3;

/// A record as its producer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) partition: i32,
    pub(super) producer: i64,
    pub(super) number: i32,
    pub(super) offset: i64,
}

/// What was acknowledged.
#[derive(Default)]
pub(super) struct Ledger {
    acknowledged: RefCell<Vec<Entry>>,
}

impl Ledger {
    pub(super) fn acknowledged(&self) -> Vec<Entry> {
        self.acknowledged.borrow().clone()
    }

    pub(super) fn acknowledged_count(&self) -> usize {
        self.acknowledged.borrow().len()
    }
}

/// What a record holds.
pub(super) fn value(partition: i32, producer: i64, number: i32) -> String {
    format!("{partition}/{producer}/{number}")
}

/// Records of a range of bytes: offset and value.
pub(super) fn records_in(bytes: &[u8]) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in batches(bytes).map_while(Result::ok) {
        let base = batch.base_offset().get();
        let mut records = batch.records().expect("what a log holds can be read");
        let mut offset = base;
        while let Some(record) = records.next_record().expect("what a log holds can be read") {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            found.push((offset, value));
            offset += 1;
        }
    }
    found
}

pub(super) struct Clients {
    are_stopping: Rc<Cell<bool>>,
    /// Producers and groups.
    writers: Vec<JoinHandle<()>>,
    reader: JoinHandle<()>,
}

impl Clients {
    /// Producers finish the record at hand.
    pub(super) async fn stop(self) {
        self.are_stopping.set(true);
        // A record that cannot be written in a healed cluster shows in the last check.
        let _ = timeout(super::RECOVERY_MAX, async {
            for writer in self.writers {
                let _ = writer.await;
            }
        })
        .await;
        self.reader.abort();
    }
}

pub(super) fn start(world: &Rc<World>) -> Clients {
    let are_stopping = Rc::new(Cell::new(false));
    let produce = |producer| spawn_local(produce(Rc::clone(world), producer, Rc::clone(&are_stopping)));
    Clients {
        writers: (0..PRODUCERS)
            .map(produce)
            .chain(group::start(world, &are_stopping))
            .collect(),
        reader: spawn_local(read(Rc::clone(world))),
        are_stopping,
    }
}

async fn produce(world: Rc<World>, producer: i64, is_stopping: Rc<Cell<bool>>) {
    let mut numbers = vec![0; world.shape.partitions as usize];
    let mut epochs = vec![LeaderEpoch(0); world.shape.partitions as usize];
    let pause_max = Duration::from_millis(10 + world.numbers.below(300));
    while !is_stopping.get() {
        sleep(world.numbers.duration(pause_max)).await;
        let partition = world.numbers.below(world.shape.partitions as u64) as i32;
        let number = numbers[partition as usize];
        numbers[partition as usize] += 1;
        let mut gave_up_at = None;
        loop {
            match send(
                &world,
                partition,
                producer,
                number,
                &mut epochs[partition as usize],
            )
            .await
            {
                Sent::Acknowledged(offset) => {
                    let entry = Entry {
                        partition,
                        producer,
                        number,
                        offset,
                    };
                    world.ledger.acknowledged.borrow_mut().push(entry);
                    break;
                }
                Sent::OutOfOrder(refusal) => {
                    let record = value(partition, producer, number);
                    world.checker.violation(format!(
                        "{record} does not follow what was acknowledged before it: {refusal:?}"
                    ));
                    return;
                }
                Sent::Again => {}
            }
            // Nobody waits for ever for a cluster that does not heal.
            if is_stopping.get() {
                let now = world.clock.monotonic();
                let since = *gave_up_at.get_or_insert(now);
                if now - since > super::RECOVERY_MAX / 2 {
                    return;
                }
            }
            sleep(Duration::from_millis(50 + world.numbers.below(100))).await;
        }
    }
}

enum Sent {
    Acknowledged(i64),
    Again,
    /// The broker misses what this producer was told is written.
    OutOfOrder(ProducerRefusal),
}

/// Who leads, as some broker says; what is older than `known` is not believed (KIP-320).
fn leader_of(world: &World, partition: i32, known: &mut LeaderEpoch) -> Option<i32> {
    let asked = world.numbers.below(world.shape.brokers as u64) as i32;
    let running = world.running(asked)?;
    let metadata = running.metadata.snapshot();
    let said = metadata.partition(TOPIC, partition)?;
    if said.leader_epoch < *known {
        return None;
    }
    *known = said.leader_epoch;
    said.leader
}

async fn send(
    world: &Rc<World>,
    partition: i32,
    producer: i64,
    number: i32,
    known: &mut LeaderEpoch,
) -> Sent {
    let Some(leader) = leader_of(world, partition, known) else {
        return Sent::Again;
    };
    let (answer, answered) = oneshot::channel();
    let clients = Rc::clone(world);
    spawn_local(async move {
        let world = clients;
        let (here, there) = (Place::Clients, Place::Broker(leader));
        if !world.network.travel(here, there).await {
            return std::future::pending().await;
        }
        let Some(running) = world.running(leader) else {
            return;
        };
        let again = world.network.again();
        let sent = append(&world, &running, partition, producer, number).await;
        if let Some(later) = again {
            let (world, running) = (Rc::clone(&world), Rc::clone(&running));
            spawn_local(async move {
                sleep(later).await;
                if running.is_alive() {
                    append(&world, &running, partition, producer, number).await;
                }
            });
        }
        if running.is_alive() && world.network.travel(there, here).await {
            let _ = answer.send(sent);
        } else {
            std::future::pending().await
        }
    });
    match timeout(REQUEST_TIMEOUT, answered).await {
        Ok(Ok(sent)) => sent,
        _ => Sent::Again,
    }
}

/// As the handler of Produce does it.
async fn append(world: &World, leader: &Running, index: i32, producer: i64, number: i32) -> Sent {
    let Ok(partition) = leader.replicas.partition(TOPIC, index) else {
        return Sent::Again;
    };
    if partition.check_leader(-1).is_err() || !partition.has_enough_replicas() {
        return Sent::Again;
    }
    let mut builder =
        RecordBatchBuilder::new().producer(ProducerId(producer), ProducerEpoch(0), Some(Sequence(number)));
    builder.append(
        world.clock.wall(),
        None,
        Some(value(index, producer, number).as_bytes()),
    );
    let batch = builder.build();
    let config = partition.log().config();
    let rules = ValidationRules::new(
        partition.name().clone(),
        &config,
        AppendOrigin::Client,
        RequestRules::produce(8),
    );
    let batches = validate(&batch, &rules, world.clock.wall(), Level::Strict).expect("a good batch");
    let Ok(mut appended) = partition.append(&mut [batches], AppendOrigin::Client) else {
        return Sent::Again;
    };
    match appended.results.pop().expect("one set gives one result") {
        Ok(info) => {
            let offset = info.first_offset.unwrap_or(info.last_offset);
            match acknowledged(&partition, appended.leader_epoch, info.last_offset).await {
                Acknowledgement::Done => Sent::Acknowledged(offset.get()),
                _ => Sent::Again,
            }
        }
        Err(AppendError::Producer(
            refusal @ (ProducerRefusal::OutOfOrderSequence { .. } | ProducerRefusal::NewEpochSequence { .. }),
        )) => {
            let state = state_in_tree(world, partition.name());
            let reigns = state.is_some_and(|state| {
                state.leader == Some(leader.id) && Some(state.leader_epoch) == partition.leader_epoch()
            });
            // A former leader that has not heard of it misses what its successor acknowledged.
            match reigns {
                true => Sent::OutOfOrder(refusal),
                false => Sent::Again,
            }
        }
        Err(_) => Sent::Again,
    }
}

async fn acknowledged(partition: &Partition, epoch: LeaderEpoch, last_offset: Offset) -> Acknowledgement {
    let (done, settled) = oneshot::channel();
    let told = move |acknowledgement| {
        let _ = done.send(acknowledgement);
    };
    partition.when_acknowledged(epoch, last_offset, Box::new(told));
    settled.await.unwrap_or(Acknowledgement::NotLeader)
}

/// Reads what leaders give to consumers.
async fn read(world: Rc<World>) {
    let mut positions = vec![0; world.shape.partitions as usize];
    loop {
        sleep(Duration::from_millis(30 + world.numbers.below(100))).await;
        let index = world.numbers.below(world.shape.partitions as u64) as i32;
        let asked = leader_of(&world, index, &mut LeaderEpoch(0));
        let Some(leader) = asked.and_then(|leader| world.running(leader)) else {
            continue;
        };
        let Ok(partition) = leader.replicas.partition(TOPIC, index) else {
            continue;
        };
        if partition.check_leader(-1).is_err() {
            continue;
        }
        // Now and then from somewhere before.
        let position = &mut positions[index as usize];
        if world.numbers.once_in(10) {
            *position = world.numbers.below(*position as u64 + 1) as i64;
        }
        let info = partition
            .log()
            .read(Offset(*position), 2000, UpperBound::HighWatermark, true);
        let bytes = match info.map(|info| info.records) {
            Ok(Some(slice)) => slice.read().unwrap_or_default(),
            _ => continue,
        };
        for (offset, value) in records_in(&bytes) {
            world.checker.read(index, offset, &value);
            *position = (*position).max(offset + 1);
        }
    }
}
