//! Leaders and in-sync sets of partitions that exist: read, decided, written conditionally.
//!
//! States are read before each change and written at the version that was read; one that changed meanwhile is read again
//! while the others stand. Source: `ZkPartitionStateMachine` (`doElectLeaderForPartitions`), `ZkReplicaStateMachine`
//! (`removeReplicasFromIsr`).

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::{
    ControllerMachine, Output, StatesReading, Update, UpdateReason, WRITE_OPERATIONS_MAX, Waiting, Work,
    again,
};
use crate::cluster::LeaderAndIsr;
use crate::controller::context::{PartitionPhase, ReplicaPhase};
use crate::controller::election::{ElectionStrategy, elect, without};
use crate::coordination::znodes::{self, PartitionState};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Operation, OperationResult};

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
        let (new, offline): (Vec<_>, Vec<_>) =
            open.partition(|at| self.context.partition_phase(at) == PartitionPhase::New);
        self.next([Work::Initialize(new), Work::Elect(offline), Work::Flush]);
    }

    pub(super) fn states_read(&mut self, waiting: Waiting, reading: StatesReading) {
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
    pub(super) fn usable(
        &mut self,
        at: &TopicPartition,
        state: Option<&PartitionState>,
    ) -> Option<LeaderAndIsr> {
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

    pub(super) fn update(&mut self, mut update: Update) {
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

    pub(super) fn updated(&mut self, update: Update, result: Result<Vec<OperationResult>, MultiError>) {
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
    pub(super) fn taken_offline(&mut self, replica: i32, at: &TopicPartition) {
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
}
