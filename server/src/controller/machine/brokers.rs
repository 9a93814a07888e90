//! Brokers that come, go, come back or lose a log directory, and the reign's beginning, when all of them are new.
//!
//! A broker hears of the others before it is told of leaders. Replicas that become unreachable lose their leaderships, leave
//! the in-sync sets and halt deletions; those that come back are told what they lead. Source: `KafkaController`
//! (`onControllerFailover`, `processBrokerChange`, `onReplicasBecomeOffline`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::{ClusterReading, ControllerMachine, Input, Output, Work};
use crate::controller::command::{BrokerReply, CommandRefusal};
use crate::controller::context::{LiveBroker, PartitionPhase, ReplicaPhase};

impl ControllerMachine {
    pub(super) fn fail_over(&mut self, reading: ClusterReading) {
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

    pub(super) fn brokers_changed(&mut self, brokers: Vec<LiveBroker>) {
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

    pub(super) fn brokers_started(&mut self, new: &[i32], works: &mut Vec<Work>) {
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

    pub(super) fn brokers_failed(&mut self, dead: &[i32], works: &mut Vec<Work>) {
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
    pub(super) fn replicas_offline(&mut self, replicas: Vec<(i32, TopicPartition)>, works: &mut Vec<Work>) {
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
    pub(super) fn replica_online(&mut self, broker: i32, at: &TopicPartition) {
        let had_state = self.context.leadership(at).is_some();
        let was_new = self.context.replica_phase(at, broker) == ReplicaPhase::New;
        if self.set_replica(at, broker, ReplicaPhase::Online) && had_state && !was_new {
            self.batch.add_leader_and_isr(&self.context, [broker], at, false);
        }
    }

    pub(super) fn leader_and_isr_replied(
        &mut self,
        broker: i32,
        partitions: Vec<TopicPartition>,
        reply: BrokerReply,
    ) {
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
}
