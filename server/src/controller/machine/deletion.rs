//! Topics that go: their replicas stop, then delete, then the nodes are removed.
//!
//! A replica that cannot answer halts the deletion of its topic until its broker comes back. Source:
//! `TopicDeletionManager`.

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::{ControllerMachine, Waiting, Work, is_fenced};
use crate::controller::command::BrokerReply;
use crate::controller::context::{PartitionPhase, ReplicaPhase};
use crate::coordination::MultiError;
use crate::coordination::znodes;

impl ControllerMachine {
    /// The requests to delete that a reign begins with; returns the nodes of those that are refused. A topic that has no nodes any
    /// more is in here too: the last controller may have ended between them and the settings.
    pub(super) fn take_up_deletions(&mut self, topics: Vec<Arc<str>>) -> Vec<String> {
        if !self.delete_topic_enable {
            return topics.iter().map(|topic| znodes::delete_topic(topic)).collect();
        }
        for topic in topics {
            let partitions = self.context.partitions_of(&topic);
            let hindered = partitions.iter().any(|at| {
                let replicas = self.context.replicas_of(at);
                let offline = replicas.iter().any(|id| !self.context.is_replica_online(*id, at));
                offline || self.context.being_reassigned.contains(at)
            });
            if hindered {
                self.context
                    .topics_ineligible_for_deletion
                    .insert(Arc::clone(&topic));
            }
            self.context.topics_to_be_deleted.insert(topic);
        }
        Vec::new()
    }

    pub(super) fn deletions_requested(&mut self, topics: Vec<Arc<str>>) {
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
        let moving = |topic: &&Arc<str>| {
            let mut moving = self.context.being_reassigned.iter();
            moving.any(|at| at.topic == **topic)
        };
        let moving: Vec<Arc<str>> = known.iter().filter(moving).cloned().collect();
        self.context.topics_to_be_deleted.extend(known);
        self.context.topics_ineligible_for_deletion.extend(moving);
        let paths = unknown.iter().map(|topic| znodes::delete_topic(topic)).collect();
        self.next([Work::DeleteNodes(paths), Work::ResumeDeletions]);
    }

    pub(super) fn halt_deletions(&mut self, topics: BTreeSet<Arc<str>>, why: &str) {
        let halted: Vec<Arc<str>> = topics
            .into_iter()
            .filter(|topic| self.context.is_queued_for_deletion(topic))
            .collect();
        if !halted.is_empty() {
            self.note(format!("Halted deletion of topics {}: {why}", halted.join(", ")));
            self.context.topics_ineligible_for_deletion.extend(halted);
        }
    }

    pub(super) fn resume_deletions(&mut self) {
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
    pub(super) fn delete_topic(&mut self, topic: &Arc<str>) {
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
            for replica in self.context.replicas_of(at).iter().copied() {
                if self.context.replica_phase(at, replica) == ReplicaPhase::DeletionSuccessful {
                    continue;
                }
                if !self.context.is_replica_online(replica, at) {
                    self.deletion_failed(at, replica);
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

    /// A replica cannot be deleted now.
    pub(super) fn deletion_failed(&mut self, at: &TopicPartition, replica: i32) {
        if self.context.replica_phase(at, replica) != ReplicaPhase::DeletionStarted {
            self.set_replica(at, replica, ReplicaPhase::Offline);
        }
        self.set_replica(at, replica, ReplicaPhase::DeletionIneligible);
    }

    pub(super) fn topic_removed(&mut self, waiting: Waiting, result: Result<(), MultiError>) {
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

    pub(super) fn stop_replica_replied(
        &mut self,
        broker: i32,
        deleted: Vec<TopicPartition>,
        reply: BrokerReply,
    ) {
        let refused: BTreeSet<TopicPartition> = match &reply {
            Ok(refused) => refused.iter().map(|(at, _)| at.clone()).collect(),
            Err(refusal) => {
                self.note(format!("Broker {broker} refused a StopReplica: {refusal}"));
                deleted.iter().cloned().collect()
            }
        };
        let mut halted = BTreeSet::new();
        for at in deleted {
            if !self.context.topics_with_deletion_started.contains(&at.topic) {
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
}
