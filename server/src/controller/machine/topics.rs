//! Topics and partitions that are new: from the assignment to the first leader.
//!
//! The state nodes of many partitions are created in one write; what exists already is left out and the rest goes on.
//! Source: `KafkaController` (`processTopicChange`, `processPartitionModifications`), `ZkPartitionStateMachine`
//! (`initializeLeaderAndIsrForPartitions`).

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::{ControllerMachine, Output, WRITE_OPERATIONS_MAX, Waiting, Work};
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
            self.ask(write, Waiting::DeleteNodes(Vec::new()));
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

    pub(super) fn initialize(&mut self, partitions: Vec<TopicPartition>) {
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

    pub(super) fn write_plan(&mut self, plan: Vec<(Operation, Option<(TopicPartition, PartitionState)>)>) {
        if plan.is_empty() {
            return;
        }
        let mut operations = Vec::with_capacity(plan.len() + 1);
        operations.push(self.fence());
        operations.extend(plan.iter().map(|(operation, _)| operation.clone()));
        self.ask(Output::Write(operations), Waiting::Initialize { plan });
    }

    pub(super) fn initialized(&mut self, plan: Vec<(Operation, Option<(TopicPartition, PartitionState)>)>) {
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
    pub(super) fn retry_plan(
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
}
