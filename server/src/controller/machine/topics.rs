//! Topics and partitions that are new: from the assignment to the first leader.
//!
//! The state nodes of many partitions are created in one write; what exists already is read at once and left out, and the
//! rest goes on.
//! Source: `KafkaController` (`processTopicChange`, `processPartitionModifications`), `ZkPartitionStateMachine`
//! (`initializeLeaderAndIsrForPartitions`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::elections::CLEAN;
use super::{ControllerMachine, Output, Plan, StateNode, StatesReading, Waiting, Work, fitting, size_of};
use crate::cluster::LeaderAndIsr;
use crate::controller::context::{PartitionPhase, ReplicaPhase};
use crate::coordination::znodes::{self, PartitionState, TopicAssignment};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Operation};

impl ControllerMachine {
    pub(super) fn topics_changed(
        &mut self,
        names: &BTreeSet<Arc<str>>,
        new: Vec<(Arc<str>, TopicAssignment)>,
    ) {
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

    pub(super) fn assignment_changed(&mut self, topic: &Arc<str>, assignment: TopicAssignment) {
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
            self.ask(write, Waiting::Written);
            return;
        }
        let created = self.context.assign(topic, assignment);
        self.note(format!("New partitions of topic {topic}: {}", created.len()));
        self.partitions_created(created);
    }

    pub(super) fn partitions_created(&mut self, created: Vec<TopicPartition>) {
        if created.is_empty() {
            return;
        }
        for at in &created {
            self.set_partition(at, PartitionPhase::New);
            for replica in self.context.replicas_of(at).iter() {
                self.set_replica(at, *replica, ReplicaPhase::New);
            }
        }
        self.next([Work::Initialize(created), Work::Flush]);
    }

    /// Creates the state nodes of partitions, with the first replica that is online as the leader.
    pub(super) fn initialize(&mut self, partitions: Vec<TopicPartition>) {
        let mut plan: Plan = Vec::new();
        let mut last_topic: Option<Arc<str>> = None;
        for at in partitions {
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
        }
        self.write_plan(plan, false);
    }

    /// `states_known`: none of its states existed when they were read.
    pub(super) fn write_plan(&mut self, mut plan: Plan, states_known: bool) {
        if plan.is_empty() {
            return;
        }
        // Parents come before children, also in the piece that is written first.
        let rest = plan.split_off(fitting(plan.iter().map(|(operation, _)| size_of(operation))));
        if !rest.is_empty() {
            self.next([Work::CreateStates(rest)]);
        }
        let mut operations = Vec::with_capacity(plan.len() + 1);
        operations.push(self.fence());
        operations.extend(plan.iter().map(|(operation, _)| operation.clone()));
        self.ask(
            Output::Write(operations),
            Waiting::Initialize { plan, states_known },
        );
    }

    pub(super) fn initialized(&mut self, plan: Plan) {
        for (at, state) in plan.into_iter().filter_map(|(_, state)| state) {
            let isr = Arc::clone(&state.leader_and_isr.isr);
            let Some(partition) = self.context.partition_mut(&at) else {
                continue;
            };
            partition.leadership = Some(state);
            partition.phase = PartitionPhase::Online;
            // Those on brokers that are down too: they are told when they come.
            for replica in self.context.replicas_of(&at).iter() {
                self.set_replica(&at, *replica, ReplicaPhase::Online);
            }
            self.elected(&at);
            self.batch
                .add_leader_and_isr(&self.context, isr.iter().copied(), &at, true);
        }
    }

    /// A parent that exists is fine; a state that exists holds. Where one exists many may, and each would refuse a whole write:
    /// the states of all of the plan are read, unless they are known and only a parent is in the way.
    pub(super) fn creation_refused(&mut self, mut plan: Plan, states_known: bool, failed: &MultiError) {
        let index = failed.index.checked_sub(1).filter(|index| *index < plan.len());
        let exists = matches!(failed.error, CoordinationError::NodeExists { .. });
        let Some(index) = index.filter(|_| exists) else {
            self.plan_given_up(plan, failed);
            return;
        };
        // It leaves the plan in any case: a state that nobody can read is not tried again.
        let (_, refused) = plan.remove(index);
        let is_parent = refused.is_none();
        let planned = plan.iter().filter_map(|(_, state)| state.as_ref());
        let partitions: Vec<TopicPartition> = planned.chain(&refused).map(|(at, _)| at.clone()).collect();
        if is_parent && (states_known || partitions.is_empty()) {
            self.write_plan(plan, true);
        } else {
            self.read_states(partitions, |_| Waiting::PlanStates(plan));
        }
    }

    /// What exists of a plan is known: that is taken over, the rest is created.
    pub(super) fn plan_states_read(&mut self, mut plan: Plan, reading: StatesReading) {
        if let Some(error) = &reading.failed {
            self.plan_given_up(plan, error);
            return;
        }
        let states: BTreeMap<TopicPartition, StateNode> = reading.states.into_iter().collect();
        let exists = |at: &TopicPartition| {
            [
                znodes::partitions(&at.topic),
                znodes::partition(&at.topic, at.partition),
                znodes::partition_state(&at.topic, at.partition),
            ]
        };
        let existing: BTreeSet<String> = states.keys().flat_map(exists).collect();
        plan.retain(|(operation, _)| !existing.contains(operation.path()));
        self.note(format!(
            "{} partitions have states already, which hold",
            states.len()
        ));
        self.take_over(states.keys().cloned().collect(), &states);
        self.write_plan(plan, true);
    }

    fn plan_given_up(&mut self, plan: Plan, error: &impl Display) {
        let partitions = plan.into_iter().filter(|(_, state)| state.is_some()).count();
        self.note(format!("{partitions} partitions stay without a leader: {error}"));
    }

    /// States that exist though this controller did not create them: they hold, and those without a live leader get one.
    ///
    /// **Deviation:** 2.7.2 leaves such a partition without a leader until the next controller; its own creation whose answer was
    /// lost with the connection is enough for that.
    pub(super) fn take_over(
        &mut self,
        partitions: Vec<TopicPartition>,
        states: &BTreeMap<TopicPartition, StateNode>,
    ) {
        let mut leaderless = Vec::new();
        for at in partitions {
            let Some(leadership) = self.usable(&at, states.get(&at)) else {
                continue;
            };
            let online = leadership
                .leader
                .is_some_and(|leader| self.context.is_replica_online(leader, &at));
            self.refresh(&at, leadership);
            for replica in self.context.replicas_of(&at).iter() {
                self.set_replica(&at, *replica, ReplicaPhase::Online);
            }
            if online {
                self.set_partition(&at, PartitionPhase::Online);
                let replicas = self.context.replicas_of(&at);
                self.batch
                    .add_leader_and_isr(&self.context, replicas.iter().copied(), &at, false);
            } else {
                self.set_partition(&at, PartitionPhase::Offline);
                leaderless.push(at);
            }
        }
        self.next([
            Work::Elect {
                partitions: leaderless,
                strategy: CLEAN,
            },
            Work::Flush,
        ]);
    }
}
