//! What the controller knows of the cluster: live brokers, topics, assignments, leaders, and the state of each partition and
//! replica.
//!
//! Pure data with look-ups; only [`super::machine`] changes it. Source classes: `ControllerContext`, `PartitionState`,
//! `ReplicaState`.
//!
//! ```text
//! partition:  NonExistent -> New -> Online <-> Offline -> NonExistent      (Online -> Online: a new leader)
//! replica:    NonExistent -> New -> Online <-> Offline -> DeletionStarted -> DeletionSuccessful -> NonExistent
//!                                                 ^             |
//!                                                 +-- DeletionIneligible <--+  (refused, or the broker is down)
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use crate::cluster::Broker;
use crate::coordination::znodes::{PartitionState, ReplicaAssignment, TopicAssignment};

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionPhase {
    NonExistent,
    /// Assigned, without leader and state node.
    New,
    Online,
    /// Its leader is down.
    Offline,
}

impl PartitionPhase {
    pub fn may_become(self, target: PartitionPhase) -> bool {
        use PartitionPhase::{New, NonExistent, Offline, Online};
        match target {
            NonExistent => self == Offline,
            New => self == NonExistent,
            Online | Offline => matches!(self, New | Online | Offline),
        }
    }
}

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaPhase {
    NonExistent,
    New,
    Online,
    Offline,
    /// The broker was told to delete it.
    DeletionStarted,
    DeletionSuccessful,
    /// It cannot be deleted now: its broker is down, or refused.
    DeletionIneligible,
}

impl ReplicaPhase {
    pub fn may_become(self, target: ReplicaPhase) -> bool {
        use ReplicaPhase::{
            DeletionIneligible, DeletionStarted, DeletionSuccessful, New, NonExistent, Offline, Online,
        };
        match target {
            NonExistent => self == DeletionSuccessful,
            New => self == NonExistent,
            Online | Offline => matches!(self, New | Online | Offline | DeletionIneligible),
            DeletionStarted => self == Offline,
            DeletionSuccessful => self == DeletionStarted,
            DeletionIneligible => matches!(self, Offline | DeletionStarted),
        }
    }
}

/// Whether a replica can be reached, and may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Online,
    /// Its broker hands its leaderships over: it is reached, but counts as gone.
    ShuttingDown,
    /// Its broker, or the log directory that it is in, is down.
    Offline,
}

/// A live broker and the czxid of its registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBroker {
    pub broker: Broker,
    pub epoch: i64,
}

#[derive(Clone, Debug)]
pub(super) struct PartitionContext {
    pub(super) assignment: ReplicaAssignment,
    pub(super) phase: PartitionPhase,
    /// What the state node says; `None` before it exists.
    pub(super) leadership: Option<PartitionState>,
    /// Those that are in another phase than NonExistent: assigned, or on their way out.
    replicas: Vec<(i32, ReplicaPhase)>,
}

impl PartitionContext {
    fn new(assignment: ReplicaAssignment) -> PartitionContext {
        PartitionContext {
            assignment,
            phase: PartitionPhase::NonExistent,
            leadership: None,
            replicas: Vec::new(),
        }
    }

    pub(super) fn replica(&self, broker: i32) -> ReplicaPhase {
        let found = self.replicas.iter().find(|(id, _)| *id == broker);
        found.map_or(ReplicaPhase::NonExistent, |(_, phase)| *phase)
    }

    pub(super) fn set_replica(&mut self, broker: i32, phase: ReplicaPhase) {
        match self.replicas.iter_mut().find(|(id, _)| *id == broker) {
            Some(known) => known.1 = phase,
            None => self.replicas.push((broker, phase)),
        }
    }

    /// The replica is no more.
    pub(super) fn forget_replica(&mut self, broker: i32) {
        self.replicas.retain(|(id, _)| *id != broker);
    }
}

pub(super) type Partitions = BTreeMap<i32, PartitionContext>;

/// See the module.
#[derive(Debug, Default)]
pub struct ControllerContext {
    /// Of this controller's reign.
    pub epoch: i32,
    /// Data version of `/controller_epoch` during this reign: what fences every write.
    pub epoch_zk_version: i32,
    /// Those that are shutting down included.
    pub(super) live_brokers: BTreeMap<i32, LiveBroker>,
    /// Those that asked to hand their leaderships over, until they are gone.
    pub(super) shutting_down: BTreeSet<i32>,
    pub(super) topics: BTreeMap<Arc<str>, Partitions>,
    /// Replicas in log directories that went offline, by broker.
    pub(super) offline_dir_replicas: BTreeMap<i32, BTreeSet<TopicPartition>>,
    pub(super) being_reassigned: BTreeSet<TopicPartition>,
    pub(super) topics_to_be_deleted: BTreeSet<Arc<str>>,
    pub(super) topics_with_deletion_started: BTreeSet<Arc<str>>,
    pub(super) topics_ineligible_for_deletion: BTreeSet<Arc<str>>,
}

impl ControllerContext {
    /// Those that are shutting down included.
    pub fn live_broker_ids(&self) -> impl Iterator<Item = i32> {
        self.live_brokers.keys().copied()
    }

    pub fn topic_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// 0 for an unknown topic.
    pub fn partition_count(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, BTreeMap::len)
    }

    pub(super) fn partition(&self, at: &TopicPartition) -> Option<&PartitionContext> {
        self.topics.get(&at.topic)?.get(&at.partition)
    }

    pub(super) fn partition_mut(&mut self, at: &TopicPartition) -> Option<&mut PartitionContext> {
        self.topics.get_mut(&at.topic)?.get_mut(&at.partition)
    }

    /// The state of a partition as the controller last knew it.
    pub fn leadership(&self, at: &TopicPartition) -> Option<&PartitionState> {
        self.partition(at)?.leadership.as_ref()
    }

    pub fn partition_phase(&self, at: &TopicPartition) -> PartitionPhase {
        self.partition(at)
            .map_or(PartitionPhase::NonExistent, |partition| partition.phase)
    }

    pub fn replica_phase(&self, at: &TopicPartition, broker: i32) -> ReplicaPhase {
        self.partition(at)
            .map_or(ReplicaPhase::NonExistent, |partition| partition.replica(broker))
    }

    /// Takes partitions over that were not known before, and returns them. Assignments of known ones only change by this
    /// controller's own doing.
    pub(super) fn assign(&mut self, topic: &Arc<str>, assignment: TopicAssignment) -> Vec<TopicPartition> {
        let partitions = self.topics.entry(Arc::clone(topic)).or_default();
        let mut new = Vec::new();
        for (number, assignment) in assignment.partitions {
            if let Entry::Vacant(vacant) = partitions.entry(number) {
                vacant.insert(PartitionContext::new(assignment));
                new.push(TopicPartition::new(Arc::clone(topic), number));
            }
        }
        new
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.topics_to_be_deleted.remove(topic);
        self.topics_with_deletion_started.remove(topic);
        self.topics_ineligible_for_deletion.remove(topic);
        self.being_reassigned.retain(|at| *at.topic != *topic);
        for replicas in self.offline_dir_replicas.values_mut() {
            replicas.retain(|at| *at.topic != *topic);
        }
    }

    pub(super) fn is_queued_for_deletion(&self, topic: &str) -> bool {
        self.topics_to_be_deleted.contains(topic)
    }

    pub(super) fn standing(&self, broker: i32, at: &TopicPartition) -> Standing {
        let offline_dir = self.offline_dir_replicas.get(&broker);
        if !self.live_brokers.contains_key(&broker)
            || offline_dir.is_some_and(|replicas| replicas.contains(at))
        {
            Standing::Offline
        } else if self.shutting_down.contains(&broker) {
            Standing::ShuttingDown
        } else {
            Standing::Online
        }
    }

    pub(super) fn is_replica_online(&self, broker: i32, at: &TopicPartition) -> bool {
        self.standing(broker, at) == Standing::Online
    }

    /// The replicas of a partition, the preferred one first; none for an unknown partition.
    pub(super) fn replicas_of(&self, at: &TopicPartition) -> Arc<[i32]> {
        self.partition(at)
            .map(|one| Arc::clone(&one.assignment.replicas))
            .unwrap_or_default()
    }

    pub(super) fn all_partitions(&self) -> impl Iterator<Item = (TopicPartition, &PartitionContext)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(|(number, context)| (TopicPartition::new(Arc::clone(topic), *number), context))
        })
    }

    pub(super) fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let Some((topic, partitions)) = self.topics.get_key_value(topic) else {
            return Vec::new();
        };
        partitions
            .keys()
            .map(|number| TopicPartition::new(Arc::clone(topic), *number))
            .collect()
    }

    /// The partitions that have a replica on this broker.
    pub(super) fn partitions_on(&self, broker: i32) -> Vec<TopicPartition> {
        self.all_partitions()
            .filter(|(_, context)| context.assignment.replicas.contains(&broker))
            .map(|(at, _)| at)
            .collect()
    }

    /// Whose leader is known and down, and whose topic stays.
    pub(super) fn partitions_with_offline_leader(&self) -> Vec<TopicPartition> {
        self.all_partitions()
            .filter(|(at, context)| {
                let leader = context
                    .leadership
                    .as_ref()
                    .map(|state| state.leader_and_isr.leader);
                leader.is_some_and(|leader| !leader.is_some_and(|id| self.is_replica_online(id, at)))
                    && !self.is_queued_for_deletion(&at.topic)
            })
            .map(|(at, _)| at)
            .collect()
    }

    pub(super) fn partitions_in(&self, phases: &[PartitionPhase]) -> Vec<TopicPartition> {
        self.all_partitions()
            .filter(|(_, context)| phases.contains(&context.phase))
            .map(|(at, _)| at)
            .collect()
    }

    /// Whether all (or any) replicas of a topic are in a phase.
    pub(super) fn all_replicas_in(&self, topic: &str, phase: ReplicaPhase) -> bool {
        self.replica_phases(topic).all(|one| one == phase)
    }

    pub(super) fn any_replica_in(&self, topic: &str, phase: ReplicaPhase) -> bool {
        self.replica_phases(topic).any(|one| one == phase)
    }

    fn replica_phases(&self, topic: &str) -> impl Iterator<Item = ReplicaPhase> {
        let partitions = self
            .topics
            .get(topic)
            .into_iter()
            .flat_map(|partitions| partitions.values());
        partitions.flat_map(|partition| {
            let assigned = partition.assignment.replicas.iter();
            assigned.map(|id| partition.replica(*id))
        })
    }
}
