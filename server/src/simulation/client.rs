//! Idempotent producers with `acks=all`, each record sent until it is acknowledged, and their ledger; a former life of each of them; and a
//! reader of what is committed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use milena_engine::error::{AppendError, ProducerRefusal};
use milena_engine::io::Clock;
use milena_engine::log::UpperBound;
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RecordHeader, RequestRules, ValidationRules, batches, validate,
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

/// What was acknowledged, and what was refused for good.
#[derive(Default)]
pub(super) struct Ledger {
    acknowledged: RefCell<Vec<Entry>>,
    refused: RefCell<BTreeSet<String>>,
}

impl Ledger {
    pub(super) fn acknowledged(&self) -> Vec<Entry> {
        self.acknowledged.borrow().clone()
    }

    pub(super) fn acknowledged_count(&self) -> usize {
        self.acknowledged.borrow().len()
    }

    /// How many records of each partition were acknowledged.
    pub(super) fn counts(&self, partitions: i32) -> Vec<usize> {
        let mut counts = vec![0; partitions as usize];
        for entry in self.acknowledged.borrow().iter() {
            counts[entry.partition as usize] += 1;
        }
        counts
    }

    pub(super) fn was_refused(&self, value: &str) -> bool {
        self.refused.borrow().contains(value)
    }
}

/// What a record holds.
pub(super) fn value(partition: i32, producer: i64, number: i32) -> String {
    format!("{partition}/{producer}/{number}")
}

/// What a record of a producer's former life holds.
fn former_value(partition: i32, producer: i64, number: i32) -> String {
    format!("former/{}", value(partition, producer, number))
}

pub(super) fn is_of_former_life(value: &str) -> bool {
    value.starts_with("former/")
}

/// Records of a range of bytes: offset and value, or what else is found where key or header are not those that belong to it (A10).
pub(super) fn records_in(bytes: &[u8]) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in batches(bytes).map_while(Result::ok) {
        let base = batch.base_offset().get();
        let mut records = batch.records().expect("what a log holds can be read");
        let mut offset = base;
        while let Some(record) = records.next_record().expect("what a log holds can be read") {
            let mut value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let is_whole = record.key == Some(value.as_bytes()) && record.headers.iter().eq([header(&value)]);
            // The groups' records are their own.
            if !is_whole && value.contains('/') {
                value = format!("{value} spoiled: {record:?}");
            }
            found.push((offset, value));
            offset += 1;
        }
    }
    found
}

fn header(value: &str) -> RecordHeader<'_> {
    RecordHeader {
        key: b"of",
        value: Some(value.as_bytes()),
    }
}

pub(super) struct Clients {
    are_stopping: Rc<Cell<bool>>,
    /// Producers and groups.
    writers: Vec<JoinHandle<()>>,
    reader: JoinHandle<()>,
}

impl Clients {
    /// Producers finish the record at hand, and have one more acknowledged in each partition; groups one commit. Whether they could,
    /// in a healed cluster (A12).
    pub(super) async fn stop(self) -> bool {
        self.are_stopping.set(true);
        let all = async {
            for writer in self.writers {
                let _ = writer.await;
            }
        };
        let is_done = timeout(super::RECOVERY_MAX, all).await.is_ok();
        self.reader.abort();
        is_done
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
    let partitions = world.shape.partitions;
    let mut of_partition: Vec<_> = (0..partitions).map(|_| (0, LeaderEpoch(0))).collect();
    let pause_max = Duration::from_millis(10 + world.numbers.below(300));
    let mut last = 0..partitions;
    loop {
        let partition = match is_stopping.get() {
            false => {
                sleep(world.numbers.duration(pause_max)).await;
                world.numbers.below(partitions as u64) as i32
            }
            true => match last.next() {
                Some(partition) => partition,
                None => return,
            },
        };
        let (number, known) = &mut of_partition[partition as usize];
        if world.numbers.once_in(20) {
            send_of_former_life(&world, partition, producer, *number, known).await;
        }
        let record = Sending {
            partition,
            producer,
            epoch: PRESENT,
            number: *number,
            value: value(partition, producer, *number),
        };
        let sent = send_until_acknowledged(&world, record, known).await;
        let Ok(offset) = sent else { return };
        world.ledger.acknowledged.borrow_mut().push(Entry {
            partition,
            producer,
            number: *number,
            offset,
        });
        *number += 1;
    }
}

/// The record's offset; an error where something is wrong, which is told.
async fn send_until_acknowledged(
    world: &Rc<World>,
    record: Sending,
    known: &mut LeaderEpoch,
) -> Result<i64, ()> {
    loop {
        match send(world, record.clone(), known).await {
            Sent::Acknowledged(offset) => return Ok(offset),
            Sent::Refused(refusal) => {
                let value = record.value;
                world.checker.violation(format!(
                    "{value} does not follow what was acknowledged before it: {refusal:?}"
                ));
                return Err(());
            }
            Sent::Again => {}
        }
        sleep(Duration::from_millis(50 + world.numbers.below(100))).await;
    }
}

/// What is left on the way of the producer's former life arrives. Where the present one is known it is refused for good (A2).
async fn send_of_former_life(
    world: &Rc<World>,
    partition: i32,
    producer: i64,
    number: i32,
    known: &mut LeaderEpoch,
) {
    let record = Sending {
        partition,
        producer,
        epoch: FORMER,
        number: 0,
        value: former_value(partition, producer, number),
    };
    let value = record.value.clone();
    if let Sent::Refused(_) = send(world, record, known).await {
        world.ledger.refused.borrow_mut().insert(value);
    }
}

const FORMER: ProducerEpoch = ProducerEpoch(0);
const PRESENT: ProducerEpoch = ProducerEpoch(1);

/// A record on its way.
#[derive(Clone, Debug)]
struct Sending {
    partition: i32,
    producer: i64,
    epoch: ProducerEpoch,
    number: i32,
    value: String,
}

enum Sent {
    Acknowledged(i64),
    Again,
    /// For good: the broker misses what this producer was told is written, or knows a later life of it.
    Refused(ProducerRefusal),
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

async fn send(world: &Rc<World>, record: Sending, known: &mut LeaderEpoch) -> Sent {
    let Some(leader) = leader_of(world, record.partition, known) else {
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
        let sent = append(&world, &running, &record).await;
        if let Some(later) = again {
            let (world, running) = (Rc::clone(&world), Rc::clone(&running));
            spawn_local(async move {
                sleep(later).await;
                if running.is_alive() {
                    append(&world, &running, &record).await;
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
async fn append(world: &World, leader: &Running, record: &Sending) -> Sent {
    let Ok(partition) = leader.replicas.partition(TOPIC, record.partition) else {
        return Sent::Again;
    };
    if partition.check_leader(-1).is_err() || !partition.has_enough_replicas() {
        return Sent::Again;
    }
    let mut builder = RecordBatchBuilder::new().producer(
        ProducerId(record.producer),
        record.epoch,
        Some(Sequence(record.number)),
    );
    let value = record.value.as_bytes();
    builder.append_with_headers(
        world.clock.wall(),
        Some(value),
        Some(value),
        &[header(&record.value)],
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
            refusal @ (ProducerRefusal::OutOfOrderSequence { .. }
            | ProducerRefusal::NewEpochSequence { .. }
            | ProducerRefusal::StaleEpoch { .. }),
        )) => {
            let state = state_in_tree(world, partition.name());
            let reigns = state.is_some_and(|state| {
                state.leader == Some(leader.id) && Some(state.leader_epoch) == partition.leader_epoch()
            });
            // A former leader that has not heard of it misses what its successor acknowledged.
            match reigns {
                true => Sent::Refused(refusal),
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
            // A6. A batch holds one record.
            if offset != *position {
                let gap = format!("{offset} of {index} was read where {position} was asked for");
                world.checker.violation(gap);
            }
            *position = offset + 1;
        }
    }
}
