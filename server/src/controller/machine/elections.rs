//! Leaders and in-sync sets of partitions that exist: read, decided, written conditionally.
//!
//! States are read before each change and written at the version that was read; one that changed meanwhile is read again
//! while the others stand. Source: `ZkPartitionStateMachine` (`doElectLeaderForPartitions`), `ZkReplicaStateMachine`
//! (`removeReplicasFromIsr`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::preferred::not_elected;
use super::{
    ControllerMachine, OutOfSync, Output, StateNode, StatesReading, Update, UpdateReason, Waiting, Work,
    fitting,
};
use crate::cluster::LeaderAndIsr;
use crate::controller::context::{PartitionPhase, ReplicaPhase, Standing};
use crate::controller::election::{ElectionStrategy, elect, in_new_epoch, without, without_returned};
use crate::controller::request::{ControllerError, ControllerErrorKind};
use crate::coordination::znodes::{self, PartitionState};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Operation};
use crate::planted::{self, Bug};

/// Only who is in sync may lead.
pub(super) const CLEAN: ElectionStrategy = ElectionStrategy::OfflinePartition { allow_unclean: false };
pub(super) const UNCLEAN: ElectionStrategy = ElectionStrategy::OfflinePartition { allow_unclean: true };

impl ControllerMachine {
    /// New and offline partitions, of one topic or of all, try to get a leader.
    pub(super) fn trigger_online(&mut self, topic: Option<&str>) {
        let open = self
            .context
            .partitions_in(&[PartitionPhase::New, PartitionPhase::Offline]);
        let open = open
            .into_iter()
            .filter(|at| topic.is_none_or(|topic| *at.topic == *topic))
            .filter(|at| !self.context.is_queued_for_deletion(&at.topic));
        self.bring_online(open.collect(), CLEAN);
    }

    /// -> Online: those that are new get their first leader, the others are elected anew.
    pub(super) fn bring_online(&mut self, partitions: Vec<TopicPartition>, strategy: ElectionStrategy) {
        let (new, partitions): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .partition(|at| self.context.partition_phase(at) == PartitionPhase::New);
        self.next([
            Work::Initialize(new),
            Work::Elect { partitions, strategy },
            Work::Flush,
        ]);
    }

    pub(super) fn states_read(&mut self, waiting: Waiting, reading: StatesReading) {
        if let Some(error) = &reading.failed {
            self.note(format!("Partition states could not be read: {error}"));
        }
        let states: BTreeMap<TopicPartition, StateNode> = reading.states.into_iter().collect();
        match waiting {
            Waiting::ElectStates { partitions, strategy } => {
                self.elect_by_states(partitions, strategy, &states);
            }
            Waiting::OfflineStates {
                replica,
                partitions,
                out_of_sync,
            } => {
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
                    let changes_state = match present.isr.contains(&replica) {
                        true => present.isr.len() > 1 || present.leader == Some(replica),
                        false => out_of_sync == OutOfSync::Raises,
                    };
                    if changes_state {
                        changes.push((at, without(&[replica], &present)));
                    } else {
                        self.refresh(&at, present);
                        self.taken_offline(replica, &at);
                    }
                }
                self.update(Update {
                    changes,
                    why: UpdateReason::TakeOffline { replica, out_of_sync },
                });
            }
            Waiting::ReassignState { at, begin } => {
                let node = states.get(&at);
                self.reassign_state_read(at, begin, node);
            }
            Waiting::RefreshStates(partitions) => self.refreshed(partitions, states),
            Waiting::BumpStates(partitions) => {
                let mut changes = Vec::new();
                for at in partitions {
                    if let Some(present) = self.usable(&at, states.get(&at)) {
                        let change = in_new_epoch(&self.context.replicas_of(&at), &present);
                        changes.push((at, change));
                    }
                }
                self.update(Update {
                    changes,
                    why: UpdateReason::BumpEpoch,
                });
            }
            Waiting::DistrustStates(replicas) => {
                let mut changes = Vec::new();
                for (at, gone) in &replicas {
                    // In a new epoch also where the leader took them out meanwhile: they have been told nothing yet.
                    if let Some(present) = self.usable(at, states.get(at))
                        && (present.isr.iter().any(|id| gone.contains(id))
                            || !planted::has(Bug::DistrustedHearNothing))
                    {
                        let is_online = |id: &i32| self.context.is_replica_online(*id, at);
                        changes.push((at.clone(), without_returned(gone, &present, is_online)));
                    }
                }
                self.update(Update {
                    changes,
                    why: UpdateReason::Distrust { replicas },
                });
            }
            _ => {}
        }
    }

    fn elect_by_states(
        &mut self,
        partitions: Vec<TopicPartition>,
        strategy: ElectionStrategy,
        states: &BTreeMap<TopicPartition, StateNode>,
    ) {
        let (mut changes, mut leaderless) = (Vec::new(), Vec::new());
        for at in partitions {
            let Some(present) = self.usable(&at, states.get(&at)) else {
                continue;
            };
            match self.elect(&at, &present, strategy) {
                Some(elected) => changes.push((at, elected)),
                None if strategy == CLEAN && self.elect(&at, &present, UNCLEAN).is_some() => {
                    leaderless.push((at, present));
                }
                None => self.nobody_elected(at, &present, strategy),
            }
        }
        if leaderless.is_empty() {
            let why = UpdateReason::Elect { strategy };
            self.update(Update { changes, why });
        } else {
            // Only the settings of these topics matter.
            let topics = leaderless.iter().map(|(at, _)| Arc::clone(&at.topic)).collect();
            let waiting = Waiting::UncleanTopics { changes, leaderless };
            self.ask(Output::ReadUncleanTopics(topics), waiting);
        }
    }

    pub(super) fn unclean_topics_read(
        &mut self,
        mut changes: Vec<(TopicPartition, LeaderAndIsr)>,
        leaderless: Vec<(TopicPartition, LeaderAndIsr)>,
        topics: &BTreeSet<Arc<str>>,
    ) {
        for (at, present) in leaderless {
            let elected = self.elect(&at, &present, UNCLEAN);
            match elected.filter(|_| topics.contains(&at.topic)) {
                Some(elected) => {
                    self.note(format!(
                        "{at} gets a leader that is out of sync: {:?}",
                        elected.leader
                    ));
                    changes.push((at, elected));
                }
                None => self.nobody_elected(at, &present, CLEAN),
            }
        }
        let why = UpdateReason::Elect { strategy: CLEAN };
        self.update(Update { changes, why });
    }

    fn elect(
        &self,
        at: &TopicPartition,
        present: &LeaderAndIsr,
        strategy: ElectionStrategy,
    ) -> Option<LeaderAndIsr> {
        let replicas = self.context.replicas_of(at);
        elect(strategy, &replicas, present, |id| self.context.standing(id, at))
    }

    fn nobody_elected(&mut self, at: TopicPartition, present: &LeaderAndIsr, strategy: ElectionStrategy) {
        let line = format!(
            "{at} gets no leader by {strategy:?}: of its in-sync replicas {:?} none may lead",
            present.isr
        );
        let refusal = ControllerError::new(not_elected(strategy), line.clone());
        self.outcomes.elections.insert(at, Err(refusal));
        self.note(line);
    }

    /// The state to change, unless a later controller wrote it. Nobody hears from this one what was before then: a broker that
    /// came back would lead by it in an epoch of its former life.
    pub(super) fn usable(&mut self, at: &TopicPartition, node: Option<&StateNode>) -> Option<LeaderAndIsr> {
        let Some(StateNode { state, .. }) = node else {
            self.note(format!("{at} has no state"));
            return None;
        };
        if state.controller_epoch > self.context.epoch {
            if let Some(partition) = self.context.partition_mut(at) {
                partition.leadership = Some(state.clone());
            }
            self.note(format!(
                "{at} was changed by a later controller, of epoch {}",
                state.controller_epoch
            ));
            return None;
        }
        Some(state.leader_and_isr.clone())
    }

    /// What the tree says holds. Who hears of it from this controller hears it as this controller's.
    pub(super) fn refresh(&mut self, at: &TopicPartition, leader_and_isr: LeaderAndIsr) {
        let controller_epoch = self.context.epoch;
        if let Some(partition) = self.context.partition_mut(at) {
            partition.leadership = Some(PartitionState {
                controller_epoch,
                leader_and_isr,
            });
        }
    }

    pub(super) fn update(&mut self, mut update: Update) {
        if update.changes.is_empty() {
            return;
        }
        let operation = |(at, change): &(TopicPartition, LeaderAndIsr)| {
            let state = PartitionState {
                controller_epoch: self.context.epoch,
                leader_and_isr: change.clone(),
            };
            let path = znodes::partition_state(&at.topic, at.partition);
            Operation::set(path, state.encode(), ExpectedVersion::Exactly(change.zk_version))
        };
        let mut operations: Vec<Operation> = update.changes.iter().map(operation).collect();
        let fitting = fitting(operations.iter().map(super::size_of));
        operations.truncate(fitting);
        let rest = update.changes.split_off(fitting);
        if !rest.is_empty() {
            let why = update.why.clone();
            self.next([Work::Update(Update { changes: rest, why })]);
        }
        operations.insert(0, self.fence());
        self.ask(Output::Write(operations), Waiting::Update(update));
    }

    pub(super) fn updated(&mut self, update: Update, result: Result<(), MultiError>) {
        let Update { mut changes, why } = update;
        match result {
            Ok(_) => {
                for (at, mut change) in changes {
                    change.zk_version += 1;
                    self.refresh(&at, change);
                    self.state_written(&at, &why);
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
                        match again(&why, &at) {
                            Some(work) => self.next([work]),
                            None => self.isr_not_written(at, &failed.error),
                        }
                        self.update(Update { changes, why });
                    }
                    _ => {
                        self.note(format!(
                            "{} partition states were not written: {failed}",
                            changes.len()
                        ));
                        for (at, _) in changes {
                            self.state_not_written(at, &why, &failed.error);
                        }
                    }
                }
            }
        }
    }

    /// Who waits for it hears why.
    fn state_not_written(&mut self, at: TopicPartition, why: &UpdateReason, error: &CoordinationError) {
        match why {
            UpdateReason::AlterIsr => self.isr_not_written(at, error),
            UpdateReason::Elect { .. } => {
                let refusal =
                    ControllerError::new(ControllerErrorKind::UnknownServerError, error.to_string());
                self.outcomes.elections.insert(at, Err(refusal));
            }
            UpdateReason::TakeOffline { .. } | UpdateReason::Distrust { .. } | UpdateReason::BumpEpoch => {}
        }
    }

    /// The tree holds a new state, and the context has it: phases follow, and brokers hear of it.
    fn state_written(&mut self, at: &TopicPartition, why: &UpdateReason) {
        match why {
            UpdateReason::Elect { strategy } => {
                self.set_partition(at, PartitionPhase::Online);
                let told: Vec<i32> = self
                    .context
                    .replicas_of(at)
                    .iter()
                    .copied()
                    .filter(|id| match strategy {
                        ElectionStrategy::OfflinePartition { .. } => self.context.is_replica_online(*id, at),
                        _ => self.context.standing(*id, at) != Standing::Offline,
                    })
                    .collect();
                let is_leaving = |id: &i32| {
                    *strategy == ElectionStrategy::ControlledShutdown
                        && self.context.standing(*id, at) == Standing::ShuttingDown
                };
                let (leaving, told): (Vec<i32>, Vec<i32>) = told.into_iter().partition(is_leaving);
                for replica in leaving {
                    self.batch.add_stop_replica(replica, at, false);
                }
                self.batch.add_leader_and_isr(&self.context, told, at, false);
                self.elected(at);
            }
            UpdateReason::AlterIsr => {
                if let Some(state) = self.context.leadership(at) {
                    let holds = state.leader_and_isr.clone();
                    self.outcomes.isr.insert(at.clone(), Ok(holds));
                }
            }
            UpdateReason::BumpEpoch => self.tell_all_replicas(at),
            UpdateReason::TakeOffline { replica, .. } => self.taken_offline(*replica, at),
            UpdateReason::Distrust { .. } => {
                let leader = self
                    .context
                    .leadership(at)
                    .and_then(|one| one.leader_and_isr.leader);
                if leader.is_none() {
                    self.set_partition(at, PartitionPhase::Offline);
                }
                self.tell_all_replicas(at);
            }
        }
    }

    /// A partition has a leader: who asked for it hears so.
    pub(super) fn elected(&mut self, at: &TopicPartition) {
        if let Some(leader) = self.leader_of(at) {
            self.outcomes.elections.insert(at.clone(), Ok(leader));
        }
    }

    /// Those that a reassignment adds are new: a log of theirs may be created even while a log directory is offline.
    fn tell_all_replicas(&mut self, at: &TopicPartition) {
        let Some(partition) = self.context.partition(at) else {
            return;
        };
        let assignment = partition.assignment.clone();
        for replica in assignment.replicas.iter() {
            let is_new = assignment.adding_replicas.contains(replica);
            self.batch
                .add_leader_and_isr(&self.context, [*replica], at, is_new);
        }
    }

    /// A replica is out of the in-sync set in the tree: its phase follows, and the others hear of it.
    pub(super) fn taken_offline(&mut self, replica: i32, at: &TopicPartition) {
        self.set_replica(at, replica, ReplicaPhase::Offline);
        if self.context.is_queued_for_deletion(&at.topic) {
            return;
        }
        let replicas = self.context.replicas_of(at);
        let others = replicas.iter().copied().filter(|id| *id != replica);
        self.batch.add_leader_and_isr(&self.context, others, at, false);
    }
}

/// The work that decides a change anew; `None` if its leader has to.
fn again(why: &UpdateReason, at: &TopicPartition) -> Option<Work> {
    let partitions = vec![at.clone()];
    Some(match why {
        UpdateReason::AlterIsr => return None,
        UpdateReason::BumpEpoch => Work::BumpEpoch(partitions),
        UpdateReason::Elect { strategy } => Work::Elect {
            partitions,
            strategy: *strategy,
        },
        UpdateReason::TakeOffline { replica, out_of_sync } => Work::TakeOffline {
            replica: *replica,
            partitions,
            out_of_sync: *out_of_sync,
        },
        UpdateReason::Distrust { replicas } => {
            let gone = replicas.get(at).cloned().unwrap_or_default();
            Work::Distrust(BTreeMap::from([(at.clone(), gone)]))
        }
    })
}
