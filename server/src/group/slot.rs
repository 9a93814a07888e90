//! One partition's machine at work: its lock, the requests that wait for it, and its appends in order.
//!
//! What a request does: lock its partition's machine, step, unlock; then send what is to be sent. An answer that is there at
//! once is returned without a channel; otherwise the request waits on a oneshot, and the machine guarantees that the wait
//! ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use milena_engine::config::Codec;
use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::Sequence;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::config::GroupConfig;
use super::machine::{Answer, AppendRequest, GroupMachine, Input, LogLevel, Output, Token};
use super::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator, NEVER};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: Mutex<SlotState>,
    outbox: Mutex<Outbox>,
    /// The machine's next deadline.
    pub(super) deadline_ms: AtomicI64,
}

impl Slot {
    pub(super) fn new(partition: i32, config: Arc<GroupConfig>) -> Slot {
        Slot {
            state: Mutex::new(SlotState {
                machine: GroupMachine::new(partition, config),
                waiting: HashMap::new(),
                next_token: 0,
            }),
            outbox: Mutex::new(Outbox::default()),
            deadline_ms: AtomicI64::new(NEVER),
        }
    }
}

#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) machine: GroupMachine,
    waiting: HashMap<Token, oneshot::Sender<Answer>>,
    next_token: u64,
}

/// Appends in the order in which the machine asked for them.
#[derive(Debug, Default)]
struct Outbox {
    queue: VecDeque<AppendRequest>,
    /// Somebody is passing them on.
    is_draining: bool,
}

/// The answer to a request, now or later.
pub(super) enum Pending {
    Ready(Answer),
    Waiting(oneshot::Receiver<Answer>),
}

impl Pending {
    /// `None` if the coordinator is gone.
    pub(super) async fn answer(self) -> Option<Answer> {
        match self {
            Pending::Ready(answer) => Some(answer),
            Pending::Waiting(answer) => answer.await.ok(),
        }
    }
}

/// What is left to do after a step.
#[derive(Default)]
struct Effects {
    answers: Vec<(Token, Option<oneshot::Sender<Answer>>, Answer)>,
    has_appends: bool,
    load: Option<i32>,
    log: Vec<(LogLevel, String)>,
    deadline_ms: Option<i64>,
}

impl GroupCoordinator {
    /// Steps the group's machine with a request.
    pub(super) fn call(&self, group_id: &str, input: impl FnOnce(Token) -> Input) -> Pending {
        let partition = self.partition_for(group_id);
        let slot = self.slot(partition);
        let mut effects = Effects::default();
        let mut state = slot.state.lock();
        let token = Token(state.next_token);
        state.next_token += 1;
        self.step_locked(slot, &mut state, input(token), &mut effects);
        let own = effects
            .answers
            .iter()
            .position(|(answered, _, _)| *answered == token);
        let pending = match own {
            Some(index) => Pending::Ready(effects.answers.swap_remove(index).2),
            None => {
                let (sender, receiver) = oneshot::channel();
                state.waiting.insert(token, sender);
                Pending::Waiting(receiver)
            }
        };
        drop(state);
        self.carry_out(partition, effects);
        pending
    }

    /// Steps a machine with anything else. A partition that the topic did not have at start is not known and is passed over.
    pub(super) fn step(&self, partition: i32, input: Input) {
        let Some(slot) = usize::try_from(partition)
            .ok()
            .and_then(|index| self.slots.get(index))
        else {
            tracing::error!(
                target: "kafka.coordinator.group.GroupCoordinator",
                "{GROUP_METADATA_TOPIC_NAME}-{partition} is not served: the topic had {} partitions when the broker started",
                self.slots.len()
            );
            return;
        };
        let mut effects = Effects::default();
        let mut state = slot.state.lock();
        self.step_locked(slot, &mut state, input, &mut effects);
        drop(state);
        self.carry_out(partition, effects);
    }

    fn step_locked(&self, slot: &Slot, state: &mut SlotState, input: Input, effects: &mut Effects) {
        let mut outputs = Vec::new();
        state.machine.step(self.now(), input, &mut outputs);
        for output in outputs {
            match output {
                Output::Answer { token, answer } => {
                    effects
                        .answers
                        .push((token, state.waiting.remove(&token), answer));
                }
                Output::Append(request) => {
                    slot.outbox.lock().queue.push_back(request);
                    effects.has_appends = true;
                }
                Output::Load { epoch } => effects.load = Some(epoch),
                Output::Log { level, message } => effects.log.push((level, message)),
            }
        }
        let deadline_ms = state.machine.next_deadline().unwrap_or(NEVER);
        slot.deadline_ms.store(deadline_ms, Ordering::SeqCst);
        effects.deadline_ms = Some(deadline_ms);
    }

    /// What a step asked for, without its lock.
    fn carry_out(&self, partition: i32, effects: Effects) {
        if effects
            .deadline_ms
            .is_some_and(|at_ms| at_ms < self.wakes_at_ms.load(Ordering::SeqCst))
        {
            self.wake.notify_one();
        }
        for (level, message) in effects.log {
            match level {
                LogLevel::Info => {
                    tracing::info!(target: "kafka.coordinator.group.GroupCoordinator", "{message}")
                }
                LogLevel::Warn => {
                    tracing::warn!(target: "kafka.coordinator.group.GroupCoordinator", "{message}")
                }
                LogLevel::Error => {
                    tracing::error!(target: "kafka.coordinator.group.GroupCoordinator", "{message}")
                }
            }
        }
        for (_, waiting, answer) in effects.answers {
            // Nobody waits if the connection is gone.
            if let Some(waiting) = waiting {
                drop(waiting.send(answer));
            }
        }
        if let Some(epoch) = effects.load {
            self.load(partition, epoch);
        }
        if effects.has_appends {
            self.drain_outbox(partition);
        }
    }

    /// Passes appends on, one thread at a time, so that their order holds. What other steps ask for during the call is passed on
    /// here. Never called in answer to a result: who tells it may hold the locks that an append waits for.
    fn drain_outbox(&self, partition: i32) {
        let slot = self.slot(partition);
        {
            let mut outbox = slot.outbox.lock();
            if outbox.is_draining {
                return;
            }
            outbox.is_draining = true;
        }
        loop {
            let request = {
                let mut outbox = slot.outbox.lock();
                match outbox.queue.pop_front() {
                    Some(request) => request,
                    None => {
                        outbox.is_draining = false;
                        return;
                    }
                }
            };
            let (id, me) = (request.id, self.me.clone());
            let done = Box::new(move |result| {
                if let Some(me) = me.upgrade() {
                    me.step(partition, Input::Appended { id, result });
                }
            });
            self.log.append(
                partition,
                encode(&request, self.config.offsets_topic_compression_codec),
                done,
            );
        }
    }
}

/// The batch of an append, as a coordinator of 2.7.2 writes it: format v2, create time, `offsets.topic.compression.codec`.
pub(super) fn encode(request: &AppendRequest, codec: Codec) -> Bytes {
    let mut builder = RecordBatchBuilder::new().codec(codec);
    if let Some((producer_id, producer_epoch)) = request.transaction {
        // As Kafka does: each batch begins with sequence 0, which the log does not check for coordinators.
        builder = builder
            .producer(producer_id, producer_epoch, Some(Sequence(0)))
            .transactional(true);
    }
    for record in &request.records {
        builder.append(request.timestamp, Some(&record.key), record.value.as_deref());
    }
    Bytes::from(builder.build())
}
