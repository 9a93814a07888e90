//! The controller as a pure machine: readings of the tree, results of writes and answers of brokers in; writes, questions and
//! commands out.
//!
//! ```text
//!            Elected                    Output::Write / ReadStates / RemoveTopic
//! Standby -----------> Active(idle) ----------------------------------------> Active(waiting)
//!    ^                    |  ^                                                      |
//!    |   Resigned         |  +------------ Written / StatesRead / TopicRemoved -----+
//!    +--------------------+------------------------- a write was fenced ------------+
//! ```
//!
//! One event is worked off at a time, as in Kafka's controller thread: while the machine waits for the tree, other inputs queue
//! up inside. Work that needs several writes lies in a queue of [`Work`], taken from the front. All writes are fenced by the
//! controller epoch: their first operation checks its version, and one that fails there ends the reign.
//!
//! This file has the queue of work and the fence, `dialogue` what goes in and out; the other files below have what happens to
//! brokers, to new topics, to leaders and in-sync sets, to replicas that move and to topics that go. It leaves reading, writing, sending and watches to the shell
//! ([`super::Controller`]). Source classes: `KafkaController`, `ZkPartitionStateMachine`, `ZkReplicaStateMachine`,
//! `TopicDeletionManager`.

mod brokers;
mod deletion;
mod dialogue;
mod elections;
mod isr;
mod preferred;
mod reassignment;
mod shutdown;
mod topics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use milena_engine::units::{TimestampMs, TopicPartition};

pub use dialogue::{
    AssignmentReading, ClusterReading, Input, Output, RequestedMoves, StateNode, StatesReading,
};
use reassignment::Step;

use super::command::CommandOrigin;
use super::context::{ControllerContext, LiveBroker, PartitionPhase, ReplicaPhase};
use super::election::ElectionStrategy;
use super::request::{ControllerErrorKind, PartitionResults, Request, RequestId};
use super::request_batch::RequestBatch;
use crate::cluster::LeaderAndIsr;
use crate::coordination::znodes::{self, PartitionState, ReplicaAssignment};
use crate::coordination::{CoordinationError, MultiError, Operation};
use crate::planted::{self, Bug};

/// Bytes of one write: ZooKeeper's frames end at 1 MiB.
const WRITE_BYTES_MAX: usize = 512 * 1024;

/// Something that takes one or more writes, or that has to wait for what does.
#[derive(Debug)]
enum Work {
    /// Brokers that came, or came back.
    BrokersStarted(Vec<LiveBroker>),
    /// Brokers that are gone.
    BrokersFailed(Vec<i32>),
    /// New -> Online: create the state nodes.
    Initialize(Vec<TopicPartition>),
    /// The rest of what did not fit into one write.
    CreateStates(Plan),
    /// Offline or Online -> Online.
    Elect {
        partitions: Vec<TopicPartition>,
        strategy: ElectionStrategy,
    },
    /// The replicas of this broker are down: out of the in-sync sets.
    TakeOffline {
        replica: i32,
        partitions: Vec<TopicPartition>,
        out_of_sync: OutOfSync,
    },
    /// These replicas were down, though it was not seen: see [`ControllerMachine::unseen_bounces`].
    Distrust(BTreeMap<TopicPartition, Vec<i32>>),
    Update(Update),
    /// A new leader epoch, with nothing else changed.
    BumpEpoch(Vec<TopicPartition>),
    /// The states of these partitions were changed by their leaders.
    RefreshStates(Vec<TopicPartition>),
    AnswerAlterIsr {
        id: RequestId,
        asked: Vec<TopicPartition>,
    },
    /// As in [`ControllerMachine::moves_requested`].
    Moves(Option<RequestedMoves>),
    /// Takes these out of `/admin/reassign_partitions`: those to this target, or to any.
    TickOffMoves(Vec<(TopicPartition, Option<Arc<[i32]>>)>),
    Reassign {
        at: TopicPartition,
        to: ReplicaAssignment,
    },
    WriteAssignment {
        at: TopicPartition,
        to: ReplicaAssignment,
        then: Step,
    },
    /// Looks whether the target is in sync; if not and the move begins (anew), tells all replicas.
    ContinueReassignment {
        at: TopicPartition,
        begin: bool,
    },
    /// Those of these brokers, or all.
    ResumeReassignments(Option<Vec<i32>>),
    /// Those that go are removed and the move ends, if a replica of its target leads.
    LeaveToTarget {
        at: TopicPartition,
        /// The assignment on the way.
        moving: ReplicaAssignment,
    },
    RemoveReplicas {
        at: TopicPartition,
        replicas: Vec<i32>,
    },
    DeleteReplicas {
        at: TopicPartition,
        replicas: Vec<i32>,
    },
    AnswerReassignments(RequestId),
    AnswerControlledShutdown {
        id: RequestId,
        broker_id: i32,
    },
    AnswerElections {
        id: RequestId,
        partitions: BTreeSet<TopicPartition>,
        /// Of those that nothing is known of.
        unelected: ControllerErrorKind,
    },
    /// Send what was collected.
    Flush,
    /// [`Work::Flush`], which tells all brokers who is alive in any case.
    AnnounceBrokers,
    /// Delete nodes, if they exist.
    DeleteNodes(Vec<String>),
    RemoveTopic(Arc<str>),
    ResumeDeletions,
    /// As in [`ControllerMachine::trigger_online`].
    TriggerOnline,
    /// As in [`ControllerMachine::preferred_election_requested`].
    PreferredElection(Vec<TopicPartition>),
}

/// Of each operation that creates a node: the partition it is for and its first state, if it creates the state node.
type Plan = Vec<(Operation, Option<(TopicPartition, PartitionState)>)>;

/// What the machine waits for.
#[derive(Debug)]
enum Waiting {
    Initialize {
        plan: Plan,
        states_known: bool,
    },
    /// Which states of the plan exist.
    PlanStates(Plan),
    ElectStates {
        partitions: Vec<TopicPartition>,
        strategy: ElectionStrategy,
    },
    /// Partitions that only an out-of-sync replica could lead; the others' changes wait.
    UncleanTopics {
        changes: Vec<(TopicPartition, LeaderAndIsr)>,
        leaderless: Vec<(TopicPartition, LeaderAndIsr)>,
    },
    OfflineStates {
        replica: i32,
        partitions: Vec<TopicPartition>,
        out_of_sync: OutOfSync,
    },
    DistrustStates(BTreeMap<TopicPartition, Vec<i32>>),
    BumpStates(Vec<TopicPartition>),
    AssignmentToWrite {
        at: TopicPartition,
        to: ReplicaAssignment,
        then: Step,
    },
    AssignmentWritten {
        at: TopicPartition,
        to: ReplicaAssignment,
        then: Step,
    },
    ReassignState {
        at: TopicPartition,
        begin: bool,
    },
    RefreshStates(Vec<TopicPartition>),
    Update(Update),
    /// Nothing depends on the outcome.
    Written,
    DeleteNodes(Vec<String>),
    RemoveTopic(Arc<str>),
}

/// What becomes of the leader epoch where a replica that goes is not in sync, so that nothing else changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutOfSync {
    /// It stays.
    Keeps,
    /// It rises, see [`ControllerMachine::brokers_failed`].
    Raises,
}

/// Conditional writes of partition states.
#[derive(Debug)]
struct Update {
    changes: Vec<(TopicPartition, LeaderAndIsr)>,
    why: UpdateReason,
}

#[derive(Clone, Debug)]
enum UpdateReason {
    Elect {
        strategy: ElectionStrategy,
    },
    TakeOffline {
        replica: i32,
        out_of_sync: OutOfSync,
    },
    Distrust {
        replicas: BTreeMap<TopicPartition, Vec<i32>>,
    },
    BumpEpoch,
    AlterIsr,
}

/// What came of the parts of the event that is worked off, for the answer at its end.
#[derive(Debug, Default)]
struct Outcomes {
    isr: PartitionResults<LeaderAndIsr>,
    elections: PartitionResults<i32>,
    reassignments: PartitionResults<()>,
}

/// See the module.
#[derive(Debug)]
pub struct ControllerMachine {
    id: i32,
    delete_topic_enable: bool,
    active: bool,
    context: ControllerContext,
    inbox: VecDeque<Input>,
    work: VecDeque<Work>,
    waiting: Option<Waiting>,
    batch: RequestBatch,
    outcomes: Outcomes,
    /// What `/admin/reassign_partitions` still asks for.
    moves: Option<RequestedMoves>,
    out: Vec<Output>,
}

impl ControllerMachine {
    /// On standby.
    pub fn new(broker_id: i32, delete_topic_enable: bool) -> ControllerMachine {
        ControllerMachine {
            id: broker_id,
            delete_topic_enable,
            active: false,
            context: ControllerContext::default(),
            inbox: VecDeque::new(),
            work: VecDeque::new(),
            waiting: None,
            batch: RequestBatch::default(),
            outcomes: Outcomes::default(),
            moves: None,
            out: Vec::new(),
        }
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    pub fn context(&self) -> &ControllerContext {
        &self.context
    }

    /// Takes one input and says what to do now. The outputs end with at most one that is to be answered.
    pub fn step(&mut self, _now: TimestampMs, input: Input) -> Vec<Output> {
        match (input, self.waiting.take()) {
            (Input::Resigned, _) => self.stand_by(),
            (input, None) => {
                if !is_answer(&input) {
                    self.inbox.push_back(input);
                }
            }
            (Input::Written(result), Some(waiting)) => self.written(waiting, result),
            (Input::StatesRead(reading), Some(Waiting::PlanStates(plan))) => {
                self.plan_states_read(plan, reading);
            }
            (Input::StatesRead(reading), Some(waiting)) => self.states_read(waiting, reading),
            (Input::AssignmentRead(reading), Some(Waiting::AssignmentToWrite { at, to, then })) => {
                self.assignment_read((at, to, then), reading);
            }
            (Input::UncleanTopics(topics), Some(Waiting::UncleanTopics { changes, leaderless })) => {
                self.unclean_topics_read(changes, leaderless, &topics)
            }
            (Input::TopicRemoved(result), Some(waiting)) => self.topic_removed(waiting, result),
            (input, waiting) => {
                self.waiting = waiting;
                self.inbox.push_back(input);
            }
        }
        while self.waiting.is_none() {
            if let Some(work) = self.work.pop_front() {
                self.perform(work);
            } else if let Some(input) = self.inbox.pop_front() {
                self.handle(input);
            } else {
                break;
            }
        }
        std::mem::take(&mut self.out)
    }

    fn stand_by(&mut self) {
        self.active = false;
        self.context = ControllerContext::default();
        self.inbox.clear();
        self.work.clear();
        self.waiting = None;
        self.batch = RequestBatch::default();
        self.moves = None;
    }

    fn note(&mut self, line: String) {
        self.out.push(Output::Note(line));
    }

    fn fence(&self) -> Operation {
        if planted::has(Bug::OldControllerWrites) {
            // Nobody ever sets the root.
            return Operation::Check {
                path: "/".to_owned(),
                version: 0,
            };
        }
        let version = self.context.epoch_zk_version;
        Operation::Check {
            path: znodes::CONTROLLER_EPOCH.to_owned(),
            version,
        }
    }

    fn ask(&mut self, output: Output, waiting: Waiting) {
        self.out.push(output);
        self.waiting = Some(waiting);
    }

    fn flush(&mut self) {
        for (broker, command) in self.batch.take(self.id, &self.context) {
            self.out.push(Output::Send { broker, command });
        }
    }

    /// Later work first: `works` run before what is already queued, in their order.
    fn next(&mut self, works: impl IntoIterator<Item = Work, IntoIter: DoubleEndedIterator>) {
        for work in works.into_iter().rev() {
            self.work.push_front(work);
        }
    }

    fn handle(&mut self, input: Input) {
        self.outcomes = Outcomes::default();
        match input {
            Input::Elected {
                epoch,
                epoch_zk_version,
                reading,
            } => {
                self.stand_by();
                self.active = true;
                self.context.epoch = epoch;
                self.context.epoch_zk_version = epoch_zk_version;
                self.fail_over(reading);
            }
            _ if !self.active => {}
            Input::Brokers(brokers) => self.brokers_changed(brokers),
            Input::Topics { names, new } => self.topics_changed(&names, new),
            Input::Assignment { topic, assignment } => self.assignment_changed(&topic, assignment),
            Input::Deletions(topics) => self.deletions_requested(topics),
            Input::LogDirEvents { brokers, nodes } => {
                for broker in brokers {
                    for at in self.context.partitions_on(broker) {
                        self.replica_online(broker, &at);
                    }
                }
                self.next([Work::Flush, Work::DeleteNodes(nodes)]);
            }
            Input::IsrChanges { partitions, nodes } => {
                self.next([Work::RefreshStates(partitions), Work::DeleteNodes(nodes)]);
            }
            Input::PreferredElection(partitions) => self.preferred_election_requested(partitions),
            Input::Moves(requested) => self.moves_requested(requested),
            Input::StateChanged(at) => self.check_reassignments(vec![at]),
            Input::RebalanceLeaders { imbalance_percentage } => self.rebalance_leaders(imbalance_percentage),
            Input::Request { id, request } => self.requested(id, request),
            Input::UncleanLeaderElectionEnabled { topic } => {
                let of = topic
                    .as_ref()
                    .map_or_else(|| "by default".to_owned(), |topic| format!("for topic {topic}"));
                self.note(format!("Unclean leader election has been enabled {of}"));
                self.trigger_online(topic.as_deref());
            }
            Input::LeaderAndIsrReplied {
                broker,
                origin,
                partitions,
                reply,
            } => {
                if self.is_current(broker, &origin) {
                    self.leader_and_isr_replied(broker, partitions, reply);
                }
            }
            Input::StopReplicaReplied {
                broker,
                origin,
                deleted,
                reply,
            } => {
                if self.is_current(broker, &origin) {
                    self.stop_replica_replied(broker, deleted, reply);
                }
            }
            Input::Written(_)
            | Input::StatesRead(_)
            | Input::UncleanTopics(_)
            | Input::AssignmentRead(_)
            | Input::TopicRemoved(_)
            | Input::Resigned => {}
        }
    }

    fn requested(&mut self, id: RequestId, request: Request) {
        match request {
            Request::AlterIsr {
                broker_id,
                broker_epoch,
                proposals,
            } => self.alter_isr(id, broker_id, broker_epoch, proposals),
            Request::ControlledShutdown {
                broker_id,
                broker_epoch,
            } => self.controlled_shutdown(id, broker_id, broker_epoch),
            Request::ElectLeaders {
                partitions,
                election_type,
            } => self.elect_leaders(id, partitions, election_type),
            Request::AlterReassignments(wanted) => self.alter_reassignments(id, wanted),
            Request::ListReassignments(partitions) => self.list_reassignments(id, partitions),
        }
    }

    /// Whether a command was of this reign and for the present life of its broker: what became of others is known without their
    /// answers.
    fn is_current(&self, broker: i32, origin: &CommandOrigin) -> bool {
        let live = self.context.live_brokers.get(&broker);
        origin.controller_epoch == self.context.epoch
            && live.is_some_and(|live| live.epoch == origin.broker_epoch)
    }

    /// Whether the transition was legal and happened.
    fn set_replica(&mut self, at: &TopicPartition, broker: i32, target: ReplicaPhase) -> bool {
        let Some(partition) = self.context.partition_mut(at) else {
            return false;
        };
        let legal = partition.replica(broker).may_become(target);
        if legal {
            partition.set_replica(broker, target);
        }
        legal
    }

    fn set_partition(&mut self, at: &TopicPartition, target: PartitionPhase) -> bool {
        let Some(partition) = self.context.partition_mut(at) else {
            return false;
        };
        let legal = partition.phase.may_become(target);
        if legal {
            partition.phase = target;
        }
        legal
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Flush => self.flush(),
            Work::AnnounceBrokers => {
                let brokers: Vec<i32> = self.context.live_broker_ids().collect();
                self.batch.add_update_metadata(brokers, []);
                self.flush();
            }
            Work::Initialize(partitions) => self.initialize(partitions),
            Work::CreateStates(plan) => self.write_plan(plan, false),
            Work::TriggerOnline => self.trigger_online(None),
            Work::BrokersStarted(brokers) => self.brokers_started(brokers),
            Work::BrokersFailed(brokers) => self.brokers_failed(&brokers),
            Work::Elect { partitions, strategy } => self.read_states(partitions, |partitions| {
                Waiting::ElectStates { partitions, strategy }
            }),
            Work::TakeOffline {
                replica,
                partitions,
                out_of_sync,
            } => {
                for at in &partitions {
                    self.batch.add_stop_replica(replica, at, false);
                }
                self.read_states(partitions, |partitions| Waiting::OfflineStates {
                    replica,
                    partitions,
                    out_of_sync,
                });
            }
            Work::Distrust(replicas) => {
                let partitions = replicas.keys().cloned().collect();
                self.read_states(partitions, |_| Waiting::DistrustStates(replicas));
            }
            Work::Update(update) => self.update(update),
            Work::BumpEpoch(partitions) => self.read_states(partitions, Waiting::BumpStates),
            Work::RefreshStates(partitions) => self.read_states(partitions, Waiting::RefreshStates),
            Work::Moves(requested) => self.moves_requested(requested),
            Work::TickOffMoves(done) => self.tick_off_moves(&done),
            Work::Reassign { at, to } => self.reassign(at, to),
            Work::WriteAssignment { at, to, then } => {
                let read = Output::ReadAssignment(Arc::clone(&at.topic));
                self.ask(read, Waiting::AssignmentToWrite { at, to, then });
            }
            Work::ContinueReassignment { at, begin } => self.continue_reassignment(at, begin),
            Work::ResumeReassignments(brokers) => self.resume_reassignments(brokers.as_deref()),
            Work::LeaveToTarget { at, moving } => self.leave_to_target(at, moving),
            Work::RemoveReplicas { at, replicas } => self.remove_replicas(at, replicas),
            Work::DeleteReplicas { at, replicas } => self.delete_replicas(&at, &replicas),
            Work::AnswerReassignments(id) => self.answer_reassignments(id),
            Work::PreferredElection(partitions) => self.preferred_election_requested(partitions),
            Work::AnswerAlterIsr { id, asked } => self.answer_alter_isr(id, asked),
            Work::AnswerControlledShutdown { id, broker_id } => {
                self.answer_controlled_shutdown(id, broker_id);
            }
            Work::AnswerElections {
                id,
                partitions,
                unelected,
            } => self.answer_elections(id, partitions, unelected),
            Work::DeleteNodes(paths) => self.delete_nodes(paths),
            Work::RemoveTopic(topic) => {
                let output = Output::RemoveTopic {
                    topic: Arc::clone(&topic),
                    fence: self.fence(),
                };
                self.ask(output, Waiting::RemoveTopic(topic));
            }
            Work::ResumeDeletions => self.resume_deletions(),
        }
    }

    fn read_states(
        &mut self,
        partitions: Vec<TopicPartition>,
        waiting: impl FnOnce(Vec<TopicPartition>) -> Waiting,
    ) {
        if !partitions.is_empty() {
            self.ask(Output::ReadStates(partitions.clone()), waiting(partitions));
        }
    }

    fn delete_nodes(&mut self, mut paths: Vec<String>) {
        if paths.is_empty() {
            return;
        }
        let fitting = fitting(paths.iter().map(|path| path.len()));
        let rest = paths.split_off(fitting);
        if !rest.is_empty() {
            self.next([Work::DeleteNodes(rest)]);
        }
        let mut operations = vec![self.fence()];
        operations.extend(paths.iter().map(Operation::delete));
        self.ask(Output::Write(operations), Waiting::DeleteNodes(paths));
    }

    fn written(&mut self, waiting: Waiting, result: Result<(), MultiError>) {
        if let Err(failed) = &result
            && is_fenced(failed)
        {
            self.moved(failed);
            return;
        }
        match (waiting, result) {
            (Waiting::Initialize { plan, .. }, Ok(_)) => self.initialized(plan),
            (Waiting::Initialize { plan, states_known }, Err(failed)) => {
                self.creation_refused(plan, states_known, &failed);
            }
            (Waiting::Update(update), result) => self.updated(update, result),
            (Waiting::AssignmentWritten { at, to, then }, result) => {
                self.assignment_write_answered((at, to, then), result);
            }
            (Waiting::DeleteNodes(mut paths), Err(failed)) => {
                // A node that is gone already is as good as deleted.
                let gone = matches!(failed.error, CoordinationError::NoNode { .. });
                match failed.index.checked_sub(1).filter(|at| gone && *at < paths.len()) {
                    Some(at) => {
                        paths.remove(at);
                        self.delete_nodes(paths);
                    }
                    None => self.note(format!("Nodes could not be changed: {failed}")),
                }
            }
            _ => {}
        }
    }

    fn moved(&mut self, failed: &MultiError) {
        self.note(format!("Controller {} was fenced: {failed}", self.id));
        self.out.push(Output::Moved);
        self.stand_by();
    }
}

fn is_answer(input: &Input) -> bool {
    matches!(
        input,
        Input::Written(_)
            | Input::StatesRead(_)
            | Input::UncleanTopics(_)
            | Input::AssignmentRead(_)
            | Input::TopicRemoved(_)
    )
}

/// The fence is the first operation.
fn is_fenced(failed: &MultiError) -> bool {
    failed.index == 0
        && matches!(
            failed.error,
            CoordinationError::BadVersion { .. } | CoordinationError::NoNode { .. }
        )
}

/// How many operations of these sizes one write takes: at least one.
pub(super) fn fitting(sizes: impl IntoIterator<Item = usize>) -> usize {
    /// Lengths, flags and rights of an operation on ZooKeeper's wire.
    const OVERHEAD: usize = 64;
    let mut bytes = 0;
    let fits = sizes.into_iter().take_while(|size| {
        bytes += size + OVERHEAD;
        bytes <= WRITE_BYTES_MAX
    });
    fits.count().max(1)
}

/// Bytes of an operation.
fn size_of(operation: &Operation) -> usize {
    let data = match operation {
        Operation::Create { data, .. } | Operation::SetData { data, .. } => {
            data.as_ref().map_or(0, |data| data.len())
        }
        Operation::Check { .. } | Operation::Delete { .. } => 0,
    };
    operation.path().len() + data
}

#[cfg(test)]
mod tests;
