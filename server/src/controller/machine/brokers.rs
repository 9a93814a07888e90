//! Brokers that come, go, come back or lose a log directory, and the reign's beginning, when all of them are new.
//!
//! A broker hears of the others before it is told of leaders. Replicas that become unreachable lose their leaderships, leave
//! the in-sync sets and halt deletions; those that come back are told what they lead. Source: `KafkaController`
//! (`onControllerFailover`, `processBrokerChange`, `onReplicasBecomeOffline`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::{ClusterReading, ControllerMachine, OutOfSync, Output, StateNode, Work};
use crate::controller::command::{BrokerReply, CommandRefusal};
use crate::controller::context::{LiveBroker, PartitionPhase, ReplicaPhase};
use crate::planted::{self, Bug};

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
        let moving = self.context.all_partitions();
        let moving = moving.filter(|(_, one)| one.assignment.is_being_reassigned());
        self.context.being_reassigned = moving.map(|(at, _)| at).collect();
        let refused = self.take_up_deletions(reading.deletions);
        let mut distrusted = BTreeMap::new();
        for (at, node) in reading.states {
            let bounced = self.unseen_bounces(&at, &node);
            if let Some(partition) = self.context.partition_mut(&at) {
                partition.leadership = Some(node.state);
                if !bounced.is_empty() {
                    distrusted.insert(at, bounced);
                }
            }
        }
        self.tell_live_brokers();
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
        //
        // **Deviation:** Kafka's controller names no partitions here, and a broker that has just started tells its clients for a
        // moment that their topics do not exist. librdkafka believes it, and gives up what was to be sent.
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        let led = self.led_partitions();
        self.batch.add_update_metadata(brokers, led);
        self.flush();

        let offline = self.initialize_phases(&distrusted);
        let mut works = vec![Work::Flush, Work::Distrust(distrusted)];
        works.extend(
            offline
                .into_iter()
                .map(|(replica, partitions)| Work::TakeOffline {
                    replica,
                    partitions,
                    out_of_sync: OutOfSync::Keeps,
                }),
        );
        works.extend([
            Work::TriggerOnline,
            Work::Moves(reading.moves),
            Work::ResumeReassignments(None),
            Work::DeleteNodes(refused),
            Work::ResumeDeletions,
        ]);
        works.extend(reading.preferred_election.map(Work::PreferredElection));
        self.next(works);
    }

    /// The replicas of a partition that were down though no controller saw it.
    ///
    /// **Deviation:** where a broker and the controller lose their sessions together, as all do when the power goes, the next
    /// controller of 2.7.2 finds the broker alive and believes what the state says of it: a leader that lost the end of its log
    /// leads on in the same epoch. Here a replica that registered after the state was last written counts as gone and come
    /// back: a new epoch, and out of the in-sync set (unless the controller before wrote the state once more in the moment before it heard
    /// of it). Where nobody else in sync is there, one of them stays, the leader if it can.
    fn unseen_bounces(&self, at: &TopicPartition, node: &StateNode) -> Vec<i32> {
        let replicas = self.context.replicas_of(at);
        if replicas.len() < 2 || self.context.is_queued_for_deletion(&at.topic) {
            // Nobody could have seen what a sole replica lost.
            return Vec::new();
        }
        let state = &node.state.leader_and_isr;
        let trusted = state.isr.iter().copied().chain(state.leader);
        let known: BTreeSet<i32> = trusted.chain(replicas.iter().copied()).collect();
        let registered_later = |id: &i32| {
            let live = self.context.live_brokers.get(id);
            live.is_some_and(|live| live.epoch > node.mzxid) && !planted::has(Bug::UnseenBounceTakenForOnline)
        };
        known.into_iter().filter(registered_later).collect()
    }

    /// The phases that a reign begins with; returns the replicas that are not online, by broker. The others are told what they
    /// lead and follow, but for partitions whose states are about to be changed.
    fn initialize_phases(
        &mut self,
        distrusted: &BTreeMap<TopicPartition, Vec<i32>>,
    ) -> BTreeMap<i32, Vec<TopicPartition>> {
        let mut offline: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let partitions: Vec<TopicPartition> = self.context.all_partitions().map(|(at, _)| at).collect();
        for at in &partitions {
            for replica in self.context.replicas_of(at).iter().copied() {
                let online = self.context.is_replica_online(replica, at);
                let phase = if online {
                    ReplicaPhase::Online
                } else {
                    ReplicaPhase::DeletionIneligible
                };
                if let Some(partition) = self.context.partition_mut(at) {
                    partition.set_replica(replica, phase);
                }
                if !online {
                    offline.entry(replica).or_default().push(at.clone());
                } else if !distrusted.contains_key(at) {
                    self.replica_online(replica, at);
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
        offline
    }

    /// What brokers are told of all partitions whose leadership is known.
    fn led_partitions(&self) -> Vec<TopicPartition> {
        self.context
            .all_partitions()
            .filter(|(at, one)| one.leadership.is_some() && !self.context.is_queued_for_deletion(&at.topic))
            .map(|(at, _)| at)
            .collect()
    }

    fn tell_live_brokers(&mut self) {
        let live = self.context.live_brokers.values().cloned().collect();
        self.out.push(Output::LiveBrokers(live));
    }

    pub(super) fn brokers_changed(&mut self, brokers: Vec<LiveBroker>) {
        self.out.push(Output::LiveBrokers(brokers.clone()));
        let now: BTreeMap<i32, LiveBroker> = brokers.into_iter().map(|live| (live.broker.id, live)).collect();
        let before = &self.context.live_brokers;
        let dead: Vec<i32> = before
            .keys()
            .copied()
            .filter(|id| !now.contains_key(id))
            .collect();
        let (mut new, mut bounced, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for live in now.into_values() {
            match before.get(&live.broker.id) {
                None => new.push(live),
                Some(known) if live.epoch > known.epoch => bounced.push(live),
                Some(known) if live.epoch == known.epoch && live.broker != known.broker => moved.push(live),
                Some(_) => {}
            }
        }
        let ids = |brokers: &[LiveBroker]| brokers.iter().map(|live| live.broker.id).collect::<Vec<i32>>();

        // In this order: those that came, those that went and came back, those that went.
        let mut works = Vec::new();
        if !new.is_empty() {
            self.note(format!("New brokers: {:?}", ids(&new)));
            works.push(Work::BrokersStarted(new));
        }
        if !bounced.is_empty() {
            self.note(format!("Brokers that came back: {:?}", ids(&bounced)));
            works.push(Work::BrokersFailed(ids(&bounced)));
            works.push(Work::BrokersStarted(bounced));
        }
        if !dead.is_empty() {
            self.note(format!("Dead brokers: {dead:?}"));
            works.push(Work::BrokersFailed(dead));
        }
        if !moved.is_empty() {
            self.note(format!("Brokers with other endpoints: {:?}", ids(&moved)));
            for live in moved {
                self.context.live_brokers.insert(live.broker.id, live);
            }
            let brokers: Vec<i32> = self.context.live_broker_ids().collect();
            self.batch.add_update_metadata(brokers, []);
            works.push(Work::Flush);
        }
        self.next(works);
    }

    pub(super) fn brokers_started(&mut self, brokers: Vec<LiveBroker>) {
        let new: Vec<i32> = brokers.iter().map(|live| live.broker.id).collect();
        for live in brokers {
            self.context.offline_dir_replicas.remove(&live.broker.id);
            self.context.live_brokers.insert(live.broker.id, live);
        }
        let existing: Vec<i32> = self
            .context
            .live_broker_ids()
            .filter(|id| !new.contains(id))
            .collect();
        self.batch.add_update_metadata(existing, []);
        self.flush();
        let led = self.led_partitions();
        self.batch.add_update_metadata(new.iter().copied(), led);
        self.flush();
        for broker in &new {
            for at in self.context.partitions_on(*broker) {
                self.replica_online(*broker, &at);
            }
        }
        self.flush();
        self.go_on_with(new);
    }

    /// What waited for replicas of these brokers.
    fn go_on_with(&mut self, brokers: Vec<i32>) {
        let here = brokers.iter().flat_map(|id| self.context.partitions_on(*id));
        let mut here: BTreeSet<Arc<str>> = here.map(|at| at.topic).collect();
        here.retain(|topic| self.context.is_queued_for_deletion(topic));
        let mut works = vec![Work::TriggerOnline, Work::ResumeReassignments(Some(brokers))];
        if !here.is_empty() {
            self.context
                .topics_ineligible_for_deletion
                .retain(|topic| !here.contains(topic));
            works.push(Work::ResumeDeletions);
        }
        self.next(works);
    }

    /// **Deviation:** replicas of a broker that is gone without a word get a new leader epoch also where they are not in sync, and
    /// nothing else changes; 2.7.2 leaves it. No request of a replica says which life of its broker it comes from: a leader that
    /// remembers how far the former one had come must not take the next one for in sync.
    pub(super) fn brokers_failed(&mut self, dead: &[i32]) {
        let (mut replicas, mut behind) = (Vec::new(), BTreeSet::new());
        for broker in dead {
            self.context.live_brokers.remove(broker);
            self.context.offline_dir_replicas.remove(broker);
        }
        for broker in dead {
            let said_so = self.context.shutting_down.remove(broker);
            for at in self.context.partitions_on(*broker) {
                let state = self.context.leadership(&at).map(|state| &state.leader_and_isr);
                let is_behind = state.is_some_and(|state| {
                    let leader = state.leader.filter(|id| self.context.is_replica_online(*id, &at));
                    leader.is_some() && !state.isr.contains(broker)
                });
                if is_behind && !said_so && !self.context.is_queued_for_deletion(&at.topic) {
                    behind.insert(at.clone());
                }
                replicas.push((*broker, at));
            }
        }
        self.next([Work::BumpEpoch(behind.into_iter().collect()), Work::Flush]);
        self.replicas_offline(replicas);
    }

    /// Replicas became unreachable: elect other leaders, shrink in-sync sets, halt deletions.
    pub(super) fn replicas_offline(&mut self, replicas: Vec<(i32, TopicPartition)>) {
        let leaderless = self.context.partitions_with_offline_leader();
        for at in &leaderless {
            if let Some(partition) = self.context.partition_mut(at) {
                partition.phase = PartitionPhase::Offline;
            }
        }
        let mut works = vec![Work::TriggerOnline];
        let mut by_replica: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let mut halted = BTreeSet::new();
        for (replica, at) in replicas {
            if self.context.is_queued_for_deletion(&at.topic) {
                halted.insert(Arc::clone(&at.topic));
                self.deletion_failed(&at, replica);
            } else {
                by_replica.entry(replica).or_default().push(at);
            }
        }
        works.extend(
            by_replica
                .into_iter()
                .map(|(replica, partitions)| Work::TakeOffline {
                    replica,
                    partitions,
                    out_of_sync: OutOfSync::Keeps,
                }),
        );
        if !halted.is_empty() {
            self.halt_deletions(halted, "offline replicas");
        }
        works.push(match leaderless.is_empty() {
            true => Work::AnnounceBrokers,
            false => Work::Flush,
        });
        self.next(works);
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
        let (failed, others): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .partition(|(_, refusal)| *refusal == CommandRefusal::KafkaStorageError);
        let failed = failed.into_iter().map(|(at, _)| at);
        // An answer that comes late may be of a replica that was taken away since.
        let failed: BTreeSet<TopicPartition> = failed
            .filter(|at| self.context.replicas_of(at).contains(&broker))
            .collect();
        // What is refused for another reason says nothing about the directory, except that who has heard it already serves
        // the replica.
        let unclear: BTreeSet<TopicPartition> = others
            .into_iter()
            .filter(|(_, refusal)| *refusal != CommandRefusal::StaleControllerEpoch)
            .map(|(at, _)| at)
            .collect();
        let known = self.context.offline_dir_replicas.entry(broker).or_default();
        let newly: Vec<(i32, TopicPartition)> = failed
            .iter()
            .filter(|at| !known.contains(at))
            .map(|at| (broker, at.clone()))
            .collect();
        let served = partitions
            .into_iter()
            .filter(|at| !failed.contains(at) && !unclear.contains(at));
        let back: Vec<TopicPartition> = served.filter(|at| known.remove(at)).collect();
        known.extend(failed);
        if !back.is_empty() {
            let brokers = self.context.live_broker_ids();
            self.batch.add_update_metadata(brokers, back);
            self.flush();
            self.go_on_with(vec![broker]);
        }
        if !newly.is_empty() {
            self.note(format!(
                "{} replicas of broker {broker} are in an offline log directory",
                newly.len()
            ));
            self.replicas_offline(newly);
        }
    }
}
