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
//! It leaves reading, writing, sending and watches to the shell ([`super::Controller`]). Source classes: `KafkaController`,
//! `ZkPartitionStateMachine`, `ZkReplicaStateMachine`, `TopicDeletionManager`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, TimestampMs, TopicPartition};

use super::command::{BrokerCommand, BrokerReply, CommandRefusal, LeaderAndIsr};
use super::context::{ControllerContext, LiveBroker, PartitionPhase, ReplicaPhase};
use super::election::{ElectionStrategy, elect, without};
use super::request_batch::RequestBatch;
use crate::coordination::znodes::{self, PartitionState, TopicAssignment};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Operation, OperationResult};

/// Operations of one write: some 150 bytes each on ZooKeeper's wire, whose frames end at 1 MiB.
const WRITE_OPERATIONS_MAX: usize = 4096;

/// Everything in the tree that a new controller reads.
#[derive(Clone, Debug, Default)]
pub struct ClusterReading {
    pub brokers: Vec<LiveBroker>,
    pub topics: Vec<(Arc<str>, TopicAssignment)>,
    pub states: Vec<(TopicPartition, PartitionState)>,
    pub deletions: Vec<Arc<str>>,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// This broker won the election and read the tree.
    Elected {
        epoch: i32,
        epoch_zk_version: i32,
        reading: ClusterReading,
    },
    /// Another broker is the controller, or the session is gone.
    Resigned,
    /// The live brokers, after one came, went or changed.
    Brokers(Vec<LiveBroker>),
    /// All names below `/brokers/topics`, and the assignments of those that the machine does not know.
    Topics {
        names: BTreeSet<Arc<str>>,
        new: Vec<(Arc<str>, TopicAssignment)>,
    },
    /// The assignment of a topic changed.
    Assignment {
        topic: Arc<str>,
        assignment: TopicAssignment,
    },
    /// The names below `/admin/delete_topics`.
    Deletions(Vec<Arc<str>>),
    /// These nodes of `/log_dir_event_notification` tell of failed log directories of these brokers.
    LogDirEvents {
        brokers: BTreeSet<i32>,
        nodes: Vec<String>,
    },
    /// An out-of-sync replica may lead from now on: of this topic, or by the broker's default.
    UncleanLeaderElectionEnabled {
        topic: Option<Arc<str>>,
    },
    /// A broker answered a LeaderAndIsr about these partitions.
    LeaderAndIsrReplied {
        broker: i32,
        partitions: Vec<TopicPartition>,
        reply: BrokerReply,
    },
    /// A broker answered a StopReplica that was to delete these partitions.
    StopReplicaReplied {
        broker: i32,
        deleted: Vec<TopicPartition>,
        reply: BrokerReply,
    },

    // The answers to outputs; exactly one is awaited at a time.
    Written(Result<Vec<OperationResult>, MultiError>),
    StatesRead(StatesReading),
    TopicRemoved(Result<(), MultiError>),
}

/// The present states of partitions, and the topics that let an out-of-sync replica lead.
#[derive(Clone, Debug, Default)]
pub struct StatesReading {
    /// Partitions without a state node are left out.
    pub states: Vec<(TopicPartition, PartitionState)>,
    pub unclean_topics: BTreeSet<Arc<str>>,
    /// The tree could not be read.
    pub failed: Option<CoordinationError>,
}

/// What the machine wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send {
        broker: i32,
        command: BrokerCommand,
    },
    /// Answered by [`Input::Written`].
    Write(Vec<Operation>),
    /// Answered by [`Input::StatesRead`].
    ReadStates(Vec<TopicPartition>),
    /// Delete the topic's nodes: its subtree of `/brokers/topics`, then its settings, then the request, each fenced by the
    /// check. Answered by [`Input::TopicRemoved`].
    RemoveTopic {
        topic: Arc<str>,
        fence: Operation,
    },
    /// Watch the assignments of these topics.
    Watch(Vec<Arc<str>>),
    /// A line for the log.
    Note(String),
    /// The reign is over: another controller wrote.
    Moved,
}

/// Something that takes one or more writes.
#[derive(Debug)]
enum Work {
    /// New -> Online: create the state nodes.
    Initialize(Vec<TopicPartition>),
    /// Offline -> Online.
    Elect(Vec<TopicPartition>),
    /// The replicas of this broker are down: out of the in-sync sets.
    TakeOffline {
        replica: i32,
        partitions: Vec<TopicPartition>,
    },
    /// Send what was collected.
    Flush,
    /// Delete nodes, if they exist.
    DeleteNodes(Vec<String>),
    RemoveTopic(Arc<str>),
    ResumeDeletions,
    /// As in [`ControllerMachine::trigger_online`].
    TriggerOnline,
}

/// What the machine waits for.
#[derive(Debug)]
enum Waiting {
    Initialize {
        /// Of each operation but the fence: the partition it is for, and its new state if it creates the state node.
        plan: Vec<(Operation, Option<(TopicPartition, PartitionState)>)>,
    },
    ElectStates(Vec<TopicPartition>),
    OfflineStates {
        replica: i32,
        partitions: Vec<TopicPartition>,
    },
    Update(Update),
    DeleteNodes(Vec<String>),
    RemoveTopic(Arc<str>),
}

/// Conditional writes of partition states.
#[derive(Debug)]
struct Update {
    changes: Vec<(TopicPartition, LeaderAndIsr)>,
    why: UpdateReason,
}

#[derive(Clone, Debug)]
enum UpdateReason {
    Elect,
    TakeOffline { replica: i32 },
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
            (Input::StatesRead(reading), Some(waiting)) => self.states_read(waiting, reading),
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
    }

    fn note(&mut self, line: String) {
        self.out.push(Output::Note(line));
    }

    fn fence(&self) -> Operation {
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
            Input::UncleanLeaderElectionEnabled { topic } => {
                let of = topic
                    .as_ref()
                    .map_or_else(|| "by default".to_owned(), |topic| format!("for topic {topic}"));
                self.note(format!("Unclean leader election has been enabled {of}"));
                self.trigger_online(topic.as_deref());
            }
            Input::LeaderAndIsrReplied {
                broker,
                partitions,
                reply,
            } => {
                self.leader_and_isr_replied(broker, partitions, reply);
            }
            Input::StopReplicaReplied {
                broker,
                deleted,
                reply,
            } => {
                self.stop_replica_replied(broker, deleted, reply);
            }
            Input::Written(_) | Input::StatesRead(_) | Input::TopicRemoved(_) | Input::Resigned => {}
        }
    }

    // ---- the reign begins ----

    fn fail_over(&mut self, reading: ClusterReading) {
        self.context.live_brokers = reading
            .brokers
            .into_iter()
            .map(|live| (live.broker.id, live))
            .collect();
        for (topic, assignment) in reading.topics {
            self.context.assign(&topic, assignment);
        }
        for (at, state) in reading.states {
            if let Some(partition) = self.context.partition_mut(&at) {
                partition.leadership = Some(state);
            }
        }
        let topics = self.context.topics.keys().cloned().collect();
        self.out.push(Output::Watch(topics));
        self.note(format!(
            "Controller {} has epoch {}, {} live brokers and {} topics",
            self.id,
            self.context.epoch,
            self.context.live_brokers.len(),
            self.context.topics.len()
        ));

        // Brokers first: they accept nothing about leaders they do not know.
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        self.batch.add_update_metadata(brokers, []);
        self.flush();

        let mut offline: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let partitions: Vec<TopicPartition> = self.context.all_partitions().map(|(at, _)| at).collect();
        for at in &partitions {
            let replicas: Vec<i32> = self
                .context
                .partition(at)
                .map(|one| one.assignment.replicas.to_vec())
                .unwrap_or_default();
            for replica in replicas {
                let online = self.context.is_replica_online(replica, at);
                let phase = if online {
                    ReplicaPhase::Online
                } else {
                    ReplicaPhase::DeletionIneligible
                };
                if let Some(partition) = self.context.partition_mut(at) {
                    partition.set_replica(replica, phase);
                }
                if online {
                    self.replica_online(replica, at);
                } else {
                    offline.entry(replica).or_default().push(at.clone());
                }
            }
            let leader = self
                .context
                .leadership(at)
                .map(|state| state.leader_and_isr.leader);
            let phase = match leader {
                None => PartitionPhase::New,
                Some(Some(leader)) if self.context.is_replica_online(leader, at) => PartitionPhase::Online,
                Some(_) => PartitionPhase::Offline,
            };
            if let Some(partition) = self.context.partition_mut(at) {
                partition.phase = phase;
            }
        }
        let mut works = vec![Work::Flush];
        works.extend(
            offline
                .into_iter()
                .map(|(replica, partitions)| Work::TakeOffline { replica, partitions }),
        );
        works.push(Work::TriggerOnline);
        self.next(works);
        self.inbox.push_front(Input::Deletions(reading.deletions));
    }

    // ---- brokers ----

    fn brokers_changed(&mut self, brokers: Vec<LiveBroker>) {
        let now: BTreeMap<i32, LiveBroker> = brokers.into_iter().map(|live| (live.broker.id, live)).collect();
        let before = &self.context.live_brokers;
        let new: Vec<i32> = now
            .keys()
            .copied()
            .filter(|id| !before.contains_key(id))
            .collect();
        let dead: Vec<i32> = before
            .keys()
            .copied()
            .filter(|id| !now.contains_key(id))
            .collect();
        let both = || {
            now.iter()
                .filter_map(|(id, live)| Some((*id, live, before.get(id)?)))
        };
        let bounced: Vec<i32> = both()
            .filter(|(_, now, before)| now.epoch > before.epoch)
            .map(|(id, ..)| id)
            .collect();
        let moved = both().any(|(_, now, before)| now.epoch == before.epoch && now.broker != before.broker);

        // In this order: those that came, those that went and came back, those that went.
        let mut works = Vec::new();
        if !new.is_empty() {
            self.note(format!("New brokers: {new:?}"));
            for id in &new {
                self.context.live_brokers.insert(*id, now[id].clone());
            }
            self.brokers_started(&new, &mut works);
        }
        if !bounced.is_empty() {
            self.note(format!("Brokers that came back: {bounced:?}"));
            for id in &bounced {
                self.context.live_brokers.remove(id);
            }
            self.brokers_failed(&bounced, &mut works);
            for id in &bounced {
                self.context.live_brokers.insert(*id, now[id].clone());
            }
            self.brokers_started(&bounced, &mut works);
        }
        if !dead.is_empty() {
            self.note(format!("Dead brokers: {dead:?}"));
            for id in &dead {
                self.context.live_brokers.remove(id);
            }
            self.brokers_failed(&dead, &mut works);
        }
        if moved {
            for (id, live) in now {
                self.context.live_brokers.insert(id, live);
            }
            let brokers: Vec<i32> = self.context.live_broker_ids().collect();
            self.batch.add_update_metadata(brokers, []);
            works.push(Work::Flush);
        }
        self.next(works);
    }

    fn brokers_started(&mut self, new: &[i32], works: &mut Vec<Work>) {
        let existing: Vec<i32> = self
            .context
            .live_broker_ids()
            .filter(|id| !new.contains(id))
            .collect();
        self.batch.add_update_metadata(existing, []);
        self.flush();
        let led: Vec<TopicPartition> = self
            .context
            .all_partitions()
            .filter(|(at, one)| one.leadership.is_some() && !self.context.is_queued_for_deletion(&at.topic))
            .map(|(at, _)| at)
            .collect();
        self.batch.add_update_metadata(new.iter().copied(), led);
        self.flush();
        let mut waiting_for_deletion = BTreeSet::new();
        for broker in new {
            self.context.offline_dir_replicas.remove(broker);
            for at in self.context.partitions_on(*broker) {
                if self.context.is_queued_for_deletion(&at.topic) {
                    waiting_for_deletion.insert(Arc::clone(&at.topic));
                }
                self.replica_online(*broker, &at);
            }
        }
        self.flush();
        works.push(Work::TriggerOnline);
        if !waiting_for_deletion.is_empty() {
            self.context
                .topics_ineligible_for_deletion
                .retain(|topic| !waiting_for_deletion.contains(topic));
            works.push(Work::ResumeDeletions);
        }
    }

    fn brokers_failed(&mut self, dead: &[i32], works: &mut Vec<Work>) {
        let mut replicas = Vec::new();
        for broker in dead {
            self.context.offline_dir_replicas.remove(broker);
            replicas.extend(
                self.context
                    .partitions_on(*broker)
                    .into_iter()
                    .map(|at| (*broker, at)),
            );
        }
        self.replicas_offline(replicas, works);
    }

    /// Replicas became unreachable: elect other leaders, shrink in-sync sets, halt deletions.
    fn replicas_offline(&mut self, replicas: Vec<(i32, TopicPartition)>, works: &mut Vec<Work>) {
        let leaderless = self.context.partitions_with_offline_leader();
        for at in &leaderless {
            if let Some(partition) = self.context.partition_mut(at) {
                partition.phase = PartitionPhase::Offline;
            }
        }
        works.push(Work::TriggerOnline);
        let mut by_replica: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let mut halted = BTreeSet::new();
        for (replica, at) in replicas {
            if self.context.is_queued_for_deletion(&at.topic) {
                halted.insert(Arc::clone(&at.topic));
                self.set_replica(&at, replica, ReplicaPhase::DeletionIneligible);
            } else {
                by_replica.entry(replica).or_default().push(at);
            }
        }
        works.extend(
            by_replica
                .into_iter()
                .map(|(replica, partitions)| Work::TakeOffline { replica, partitions }),
        );
        if !halted.is_empty() {
            self.halt_deletions(halted, "offline replicas");
        }
        if leaderless.is_empty() {
            let brokers: Vec<i32> = self.context.live_broker_ids().collect();
            self.batch.add_update_metadata(brokers, []);
        }
        works.push(Work::Flush);
    }

    /// -> Online, with a LeaderAndIsr if the partition has a leader by now.
    fn replica_online(&mut self, broker: i32, at: &TopicPartition) {
        let had_state = self.context.leadership(at).is_some();
        let was_new = self.context.replica_phase(at, broker) == ReplicaPhase::New;
        if self.set_replica(at, broker, ReplicaPhase::Online) && had_state && !was_new {
            self.batch.add_leader_and_isr(&self.context, [broker], at, false);
        }
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

    // ---- topics ----

    fn topics_changed(&mut self, names: &BTreeSet<Arc<str>>, new: Vec<(Arc<str>, TopicAssignment)>) {
        let gone: Vec<Arc<str>> = self
            .context
            .topics
            .keys()
            .filter(|topic| !names.contains(*topic))
            .cloned()
            .collect();
        for topic in gone {
            self.context.remove_topic(&topic);
        }
        let mut created = Vec::new();
        let mut watched = Vec::new();
        for (topic, assignment) in new {
            created.extend(self.context.assign(&topic, assignment));
            watched.push(topic);
        }
        if !watched.is_empty() {
            self.note(format!("New topics: {}", watched.join(", ")));
            self.out.push(Output::Watch(watched));
        }
        self.partitions_created(created);
    }

    fn assignment_changed(&mut self, topic: &Arc<str>, assignment: TopicAssignment) {
        let Some(known) = self.context.topics.get(topic) else {
            return;
        };
        let grows = assignment
            .partitions
            .keys()
            .any(|number| !known.contains_key(number));
        self.out.push(Output::Watch(vec![Arc::clone(topic)]));
        if !grows {
            return;
        }
        if self.context.is_queued_for_deletion(topic) {
            // A topic that goes does not grow: the old assignment is restored.
            let restored = TopicAssignment {
                partitions: known
                    .iter()
                    .map(|(number, one)| (*number, one.assignment.clone()))
                    .collect(),
            };
            self.note(format!(
                "Topic {topic} is being deleted: its new partitions are taken back"
            ));
            let path = znodes::topic(topic);
            let restore = Operation::set(path, restored.encode(), ExpectedVersion::Any);
            let write = Output::Write(vec![self.fence(), restore]);
            self.ask(write, Waiting::DeleteNodes(Vec::new()));
            return;
        }
        let created = self.context.assign(topic, assignment);
        self.note(format!("New partitions of topic {topic}: {}", created.len()));
        self.partitions_created(created);
    }

    fn partitions_created(&mut self, created: Vec<TopicPartition>) {
        if created.is_empty() {
            return;
        }
        for at in &created {
            self.set_partition(at, PartitionPhase::New);
            let replicas = self
                .context
                .partition(at)
                .map(|one| Arc::clone(&one.assignment.replicas));
            for replica in replicas.iter().flat_map(|replicas| replicas.iter()) {
                self.set_replica(at, *replica, ReplicaPhase::New);
            }
        }
        self.next([Work::Initialize(created), Work::Flush]);
    }

    // ---- work ----

    fn perform(&mut self, work: Work) {
        match work {
            Work::Flush => self.flush(),
            Work::Initialize(partitions) => self.initialize(partitions),
            Work::TriggerOnline => self.trigger_online(None),
            Work::Elect(partitions) => {
                if !partitions.is_empty() {
                    self.ask(
                        Output::ReadStates(partitions.clone()),
                        Waiting::ElectStates(partitions),
                    );
                }
            }
            Work::TakeOffline { replica, partitions } => {
                for at in &partitions {
                    self.batch.add_stop_replica(replica, at, false);
                }
                let waiting = Waiting::OfflineStates {
                    replica,
                    partitions: partitions.clone(),
                };
                self.ask(Output::ReadStates(partitions), waiting);
            }
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

    /// New and offline partitions, of one topic or of all, try to get a leader.
    fn trigger_online(&mut self, topic: Option<&str>) {
        let open = self
            .context
            .partitions_in(&[PartitionPhase::New, PartitionPhase::Offline]);
        let open = open
            .into_iter()
            .filter(|at| topic.is_none_or(|topic| *at.topic == *topic))
            .filter(|at| !self.context.is_queued_for_deletion(&at.topic));
        let (new, offline): (Vec<_>, Vec<_>) =
            open.partition(|at| self.context.partition_phase(at) == PartitionPhase::New);
        self.next([Work::Initialize(new), Work::Elect(offline), Work::Flush]);
    }

    fn initialize(&mut self, partitions: Vec<TopicPartition>) {
        let mut plan = Vec::new();
        let mut last_topic: Option<Arc<str>> = None;
        let mut rest = partitions.into_iter();
        for at in rest.by_ref() {
            let Some(partition) = self.context.partition(&at) else {
                continue;
            };
            let replicas = &partition.assignment.replicas;
            let online = |id: &i32| self.context.is_replica_online(*id, &at);
            let isr: Arc<[i32]> = if replicas.iter().all(online) {
                Arc::clone(replicas)
            } else {
                replicas.iter().copied().filter(|id| online(id)).collect()
            };
            let Some(leader) = isr.first().copied() else {
                let line = format!("{at} stays without a leader: none of its replicas {replicas:?} is alive");
                self.note(line);
                continue;
            };
            let state = PartitionState {
                controller_epoch: self.context.epoch,
                leader_and_isr: LeaderAndIsr {
                    leader: Some(leader),
                    leader_epoch: LeaderEpoch(0),
                    isr,
                    zk_version: 0,
                },
            };
            if last_topic.as_ref() != Some(&at.topic) {
                // The first partition of a topic needs the node above all of them.
                let siblings = self.context.topics.get(&at.topic);
                let first = !siblings.is_some_and(|all| all.values().any(|one| one.leadership.is_some()));
                if first {
                    plan.push((Operation::create(znodes::partitions(&at.topic), None), None));
                }
                last_topic = Some(Arc::clone(&at.topic));
            }
            plan.push((
                Operation::create(znodes::partition(&at.topic, at.partition), None),
                None,
            ));
            let path = znodes::partition_state(&at.topic, at.partition);
            plan.push((Operation::create(path, Some(state.encode())), Some((at, state))));
            if plan.len() + 3 >= WRITE_OPERATIONS_MAX {
                break;
            }
        }
        let rest: Vec<TopicPartition> = rest.collect();
        if !rest.is_empty() {
            self.next([Work::Initialize(rest)]);
        }
        self.write_plan(plan);
    }

    fn write_plan(&mut self, plan: Vec<(Operation, Option<(TopicPartition, PartitionState)>)>) {
        if plan.is_empty() {
            return;
        }
        let mut operations = Vec::with_capacity(plan.len() + 1);
        operations.push(self.fence());
        operations.extend(plan.iter().map(|(operation, _)| operation.clone()));
        self.ask(Output::Write(operations), Waiting::Initialize { plan });
    }

    fn delete_nodes(&mut self, paths: Vec<String>) {
        if paths.is_empty() {
            return;
        }
        let mut operations = vec![self.fence()];
        operations.extend(paths.iter().map(Operation::delete));
        self.ask(Output::Write(operations), Waiting::DeleteNodes(paths));
    }

    // ---- answers of the tree ----

    fn written(&mut self, waiting: Waiting, result: Result<Vec<OperationResult>, MultiError>) {
        if let Err(failed) = &result
            && is_fenced(failed)
        {
            self.moved(failed);
            return;
        }
        match (waiting, result) {
            (Waiting::Initialize { plan }, Ok(_)) => self.initialized(plan),
            (Waiting::Initialize { mut plan }, Err(failed)) => {
                self.retry_plan(&mut plan, &failed);
                self.write_plan(plan);
            }
            (Waiting::Update(update), result) => self.updated(update, result),
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

    fn initialized(&mut self, plan: Vec<(Operation, Option<(TopicPartition, PartitionState)>)>) {
        for (at, state) in plan.into_iter().filter_map(|(_, state)| state) {
            let isr = Arc::clone(&state.leader_and_isr.isr);
            let Some(partition) = self.context.partition_mut(&at) else {
                continue;
            };
            partition.leadership = Some(state);
            partition.phase = PartitionPhase::Online;
            for replica in isr.iter() {
                if partition.replica(*replica).may_become(ReplicaPhase::Online) {
                    partition.set_replica(*replica, ReplicaPhase::Online);
                }
            }
            self.batch
                .add_leader_and_isr(&self.context, isr.iter().copied(), &at, true);
        }
    }

    /// Drops from the plan what cannot be created: a parent that exists is fine, a state that exists is someone else's.
    fn retry_plan(
        &mut self,
        plan: &mut Vec<(Operation, Option<(TopicPartition, PartitionState)>)>,
        failed: &MultiError,
    ) {
        let index = failed.index.checked_sub(1).filter(|index| *index < plan.len());
        let exists = matches!(failed.error, CoordinationError::NodeExists { .. });
        match index {
            Some(index) if exists => {
                if let (_, Some((at, _))) = plan.remove(index) {
                    self.note(format!(
                        "{at} has a state already; it keeps it until the next controller"
                    ));
                }
            }
            _ => {
                self.note(format!(
                    "{} partitions stay without a leader: {failed}",
                    plan.len()
                ));
                plan.clear();
            }
        }
    }

    fn states_read(&mut self, waiting: Waiting, reading: StatesReading) {
        if let Some(error) = &reading.failed {
            self.note(format!("Partition states could not be read: {error}"));
        }
        let states: BTreeMap<TopicPartition, PartitionState> = reading.states.into_iter().collect();
        match waiting {
            Waiting::ElectStates(partitions) => {
                let mut changes = Vec::new();
                for at in partitions {
                    let Some(present) = self.usable(&at, states.get(&at)) else {
                        continue;
                    };
                    let Some(partition) = self.context.partition(&at) else {
                        continue;
                    };
                    let unclean = reading.unclean_topics.contains(&at.topic);
                    let elected = elect(
                        ElectionStrategy::OfflinePartition,
                        &partition.assignment.replicas,
                        &present,
                        |id| self.context.is_replica_online(id, &at),
                        unclean,
                    );
                    match elected {
                        Some(elected) => changes.push((at, elected)),
                        None => self.note(format!(
                            "{at} stays without a leader: none of its in-sync replicas {:?} is alive",
                            present.isr
                        )),
                    }
                }
                self.update(Update {
                    changes,
                    why: UpdateReason::Elect,
                });
            }
            Waiting::OfflineStates { replica, partitions } => {
                let mut changes = Vec::new();
                for at in partitions {
                    let Some(state) = states.get(&at) else {
                        // No state node: only the phase changes.
                        self.set_replica(&at, replica, ReplicaPhase::Offline);
                        continue;
                    };
                    let Some(present) = self.usable(&at, Some(state)) else {
                        continue;
                    };
                    if present.isr.contains(&replica)
                        && (present.isr.len() > 1 || present.leader == Some(replica))
                    {
                        changes.push((at, without(replica, &present)));
                    } else {
                        self.taken_offline(replica, &at);
                    }
                }
                self.update(Update {
                    changes,
                    why: UpdateReason::TakeOffline { replica },
                });
            }
            _ => {}
        }
    }

    /// The state to change, unless a later controller wrote it.
    fn usable(&mut self, at: &TopicPartition, state: Option<&PartitionState>) -> Option<LeaderAndIsr> {
        let Some(state) = state else {
            self.note(format!("{at} has no state"));
            return None;
        };
        if state.controller_epoch > self.context.epoch {
            self.note(format!(
                "{at} was changed by a later controller, of epoch {}",
                state.controller_epoch
            ));
            return None;
        }
        Some(state.leader_and_isr.clone())
    }

    fn update(&mut self, mut update: Update) {
        if update.changes.is_empty() {
            return;
        }
        let rest = update
            .changes
            .split_off(update.changes.len().min(WRITE_OPERATIONS_MAX - 1));
        if !rest.is_empty() {
            let partitions = rest.into_iter().map(|(at, _)| at).collect();
            self.next([again(&update.why, partitions)]);
        }
        let mut operations = vec![self.fence()];
        for (at, change) in &update.changes {
            let state = PartitionState {
                controller_epoch: self.context.epoch,
                leader_and_isr: change.clone(),
            };
            let path = znodes::partition_state(&at.topic, at.partition);
            let expected = ExpectedVersion::Exactly(change.zk_version);
            operations.push(Operation::set(path, state.encode(), expected));
        }
        self.ask(Output::Write(operations), Waiting::Update(update));
    }

    fn updated(&mut self, update: Update, result: Result<Vec<OperationResult>, MultiError>) {
        let Update { mut changes, why } = update;
        match result {
            Ok(_) => {
                for (at, mut change) in changes {
                    change.zk_version += 1;
                    let epoch = self.context.epoch;
                    let Some(partition) = self.context.partition_mut(&at) else {
                        continue;
                    };
                    partition.leadership = Some(PartitionState {
                        controller_epoch: epoch,
                        leader_and_isr: change,
                    });
                    match why {
                        UpdateReason::Elect => {
                            partition.phase = PartitionPhase::Online;
                            let replicas = Arc::clone(&partition.assignment.replicas);
                            let live: Vec<i32> = replicas
                                .iter()
                                .copied()
                                .filter(|id| self.context.is_replica_online(*id, &at))
                                .collect();
                            self.batch.add_leader_and_isr(&self.context, live, &at, false);
                        }
                        UpdateReason::TakeOffline { replica } => self.taken_offline(replica, &at),
                    }
                }
            }
            Err(failed) => {
                let stale = matches!(
                    failed.error,
                    CoordinationError::BadVersion { .. } | CoordinationError::NoNode { .. }
                );
                let index = failed.index.checked_sub(1).filter(|index| *index < changes.len());
                match index {
                    Some(index) if stale => {
                        let (at, _) = changes.remove(index);
                        // Someone changed that one meanwhile: it is read again; the others stand.
                        self.next([again(&why, vec![at])]);
                        self.update(Update { changes, why });
                    }
                    _ => self.note(format!(
                        "{} partition states were not written: {failed}",
                        changes.len()
                    )),
                }
            }
        }
    }

    /// A replica is out of the in-sync set in the tree: its phase follows, and the others hear of it.
    fn taken_offline(&mut self, replica: i32, at: &TopicPartition) {
        self.set_replica(at, replica, ReplicaPhase::Offline);
        if self.context.is_queued_for_deletion(&at.topic) {
            return;
        }
        let assigned = self
            .context
            .partition(at)
            .map(|one| Arc::clone(&one.assignment.replicas));
        let others: Vec<i32> = assigned
            .iter()
            .flat_map(|ids| ids.iter().copied())
            .filter(|id| *id != replica)
            .collect();
        self.batch.add_leader_and_isr(&self.context, others, at, false);
    }

    // ---- answers of brokers ----

    fn leader_and_isr_replied(&mut self, broker: i32, partitions: Vec<TopicPartition>, reply: BrokerReply) {
        let refused = match reply {
            Ok(refused) => refused,
            Err(refusal) => {
                self.note(format!("Broker {broker} refused a LeaderAndIsr: {refusal}"));
                return;
            }
        };
        let failed: BTreeSet<TopicPartition> = refused
            .into_iter()
            .filter(|(_, refusal)| *refusal == CommandRefusal::KafkaStorageError)
            .map(|(at, _)| at)
            .collect();
        let known = self.context.offline_dir_replicas.entry(broker).or_default();
        let newly: Vec<(i32, TopicPartition)> = failed
            .iter()
            .filter(|at| !known.contains(at))
            .map(|at| (broker, at.clone()))
            .collect();
        for at in partitions {
            if !failed.contains(&at) {
                known.remove(&at);
            }
        }
        known.extend(failed);
        if !newly.is_empty() {
            self.note(format!(
                "{} replicas of broker {broker} are in an offline log directory",
                newly.len()
            ));
            let mut works = Vec::new();
            self.replicas_offline(newly, &mut works);
            self.next(works);
        }
    }

    fn stop_replica_replied(&mut self, broker: i32, deleted: Vec<TopicPartition>, reply: BrokerReply) {
        let refused: BTreeSet<TopicPartition> = match &reply {
            Ok(refused) => refused.iter().map(|(at, _)| at.clone()).collect(),
            Err(refusal) => {
                self.note(format!("Broker {broker} refused a StopReplica: {refusal}"));
                deleted.iter().cloned().collect()
            }
        };
        let mut halted = BTreeSet::new();
        for at in deleted {
            if !self.context.is_queued_for_deletion(&at.topic) {
                continue;
            }
            if refused.contains(&at) {
                self.set_replica(&at, broker, ReplicaPhase::DeletionIneligible);
                halted.insert(Arc::clone(&at.topic));
            } else {
                self.set_replica(&at, broker, ReplicaPhase::DeletionSuccessful);
            }
        }
        if !halted.is_empty() {
            self.halt_deletions(halted, "replica deletion failure");
        }
        self.next([Work::ResumeDeletions]);
    }

    // ---- deletion ----

    fn deletions_requested(&mut self, topics: Vec<Arc<str>>) {
        let (known, unknown): (Vec<_>, Vec<_>) = topics
            .into_iter()
            .partition(|topic| self.context.topics.contains_key(topic));
        if !self.delete_topic_enable {
            let refused = known.iter().chain(&unknown);
            let paths: Vec<String> = refused.map(|topic| znodes::delete_topic(topic)).collect();
            if !paths.is_empty() {
                self.note(format!(
                    "delete.topic.enable=false: {} requests to delete are dropped",
                    paths.len()
                ));
            }
            self.next([Work::DeleteNodes(paths)]);
            return;
        }
        if !unknown.is_empty() {
            self.note(format!(
                "Topics to be deleted that do not exist: {}",
                unknown.join(", ")
            ));
        }
        let offline: Vec<Arc<str>> = known
            .iter()
            .filter(|topic| {
                let partitions = self.context.topics.get(*topic);
                partitions.is_some_and(|all| all.values().any(|one| one.assignment.is_being_reassigned()))
            })
            .cloned()
            .collect();
        self.context.topics_to_be_deleted.extend(known);
        self.context.topics_ineligible_for_deletion.extend(offline);
        let paths = unknown.iter().map(|topic| znodes::delete_topic(topic)).collect();
        self.next([Work::DeleteNodes(paths), Work::ResumeDeletions]);
    }

    fn halt_deletions(&mut self, topics: BTreeSet<Arc<str>>, why: &str) {
        let halted: Vec<Arc<str>> = topics
            .into_iter()
            .filter(|topic| self.context.is_queued_for_deletion(topic))
            .collect();
        if !halted.is_empty() {
            self.note(format!("Halted deletion of topics {}: {why}", halted.join(", ")));
            self.context.topics_ineligible_for_deletion.extend(halted);
        }
    }

    fn resume_deletions(&mut self) {
        let queued: Vec<Arc<str>> = self.context.topics_to_be_deleted.iter().cloned().collect();
        let mut works = Vec::new();
        for topic in queued {
            if self
                .context
                .all_replicas_in(&topic, ReplicaPhase::DeletionSuccessful)
            {
                works.push(Work::RemoveTopic(topic));
                continue;
            }
            let started = self.context.any_replica_in(&topic, ReplicaPhase::DeletionStarted);
            if started || self.context.topics_ineligible_for_deletion.contains(&topic) {
                continue;
            }
            self.delete_topic(&topic);
        }
        self.flush();
        self.next(works);
    }

    /// Tells everyone that the topic goes, then its replicas to stop, then to delete.
    ///
    /// **Deviation:** the in-sync sets in the tree are not emptied first, as Kafka does with one write per partition: the nodes
    /// go anyway, and a controller that takes over meanwhile starts from the request to delete, not from them.
    fn delete_topic(&mut self, topic: &Arc<str>) {
        let partitions = self.context.partitions_of(topic);
        if self
            .context
            .topics_with_deletion_started
            .insert(Arc::clone(topic))
        {
            self.note(format!("Deletion of topic {topic} started"));
            for at in &partitions {
                self.set_partition(at, PartitionPhase::Offline);
                self.set_partition(at, PartitionPhase::NonExistent);
            }
        }
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        self.batch
            .add_update_metadata(brokers, partitions.iter().cloned());
        self.flush();
        let mut alive = Vec::new();
        let mut halted = false;
        for at in &partitions {
            let replicas = self
                .context
                .partition(at)
                .map(|one| one.replicas.clone())
                .unwrap_or_default();
            for (replica, phase) in replicas {
                if phase == ReplicaPhase::DeletionSuccessful {
                    continue;
                }
                if !self.context.is_replica_online(replica, at) {
                    self.set_replica(at, replica, ReplicaPhase::Offline);
                    self.set_replica(at, replica, ReplicaPhase::DeletionIneligible);
                    halted = true;
                    continue;
                }
                self.set_replica(at, replica, ReplicaPhase::Offline);
                self.batch.add_stop_replica(replica, at, false);
                alive.push((replica, at.clone()));
            }
        }
        self.flush();
        for (replica, at) in alive {
            self.set_replica(&at, replica, ReplicaPhase::DeletionStarted);
            self.batch.add_stop_replica(replica, &at, true);
        }
        self.flush();
        if halted {
            self.halt_deletions(BTreeSet::from([Arc::clone(topic)]), "offline replicas");
        }
    }

    fn topic_removed(&mut self, waiting: Waiting, result: Result<(), MultiError>) {
        let Waiting::RemoveTopic(topic) = waiting else {
            return;
        };
        match result {
            Ok(()) => {
                self.context.remove_topic(&topic);
                self.note(format!("Deletion of topic {topic} completed"));
            }
            Err(failed) if is_fenced(&failed) => self.moved(&failed),
            Err(failed) => self.note(format!("Nodes of topic {topic} could not be deleted: {failed}")),
        }
    }
}

fn is_answer(input: &Input) -> bool {
    matches!(
        input,
        Input::Written(_) | Input::StatesRead(_) | Input::TopicRemoved(_)
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

fn again(why: &UpdateReason, partitions: Vec<TopicPartition>) -> Work {
    match why {
        UpdateReason::Elect => Work::Elect(partitions),
        UpdateReason::TakeOffline { replica } => Work::TakeOffline {
            replica: *replica,
            partitions,
        },
    }
}

#[cfg(test)]
mod tests;
