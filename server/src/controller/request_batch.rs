//! Collects what one change of state has to tell the brokers, so that each gets at most one command of each kind.
//!
//! In one batch a broker hears LeaderAndIsr before UpdateMetadata before StopReplica. Whatever is told by a LeaderAndIsr is
//! told to all live brokers by an UpdateMetadata. Source class: `ControllerBrokerRequestBatch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::command::{
    BrokerCommand, CommandOrigin, LeaderAndIsrCommand, LeaderAndIsrPartition, MetadataLeader,
    PartitionMetadataUpdate, StopReplicaCommand, StopReplicaPartition, UpdateMetadataCommand,
};
use super::context::ControllerContext;
use crate::cluster::Broker;

#[derive(Debug, Default)]
pub(super) struct RequestBatch {
    /// By broker; the flag is "is new".
    leader_and_isr: BTreeMap<i32, BTreeMap<TopicPartition, bool>>,
    /// By broker; the flag is "delete".
    stop_replica: BTreeMap<i32, BTreeMap<TopicPartition, bool>>,
    metadata_brokers: BTreeSet<i32>,
    metadata_partitions: BTreeSet<TopicPartition>,
}

impl RequestBatch {
    pub(super) fn add_leader_and_isr(
        &mut self,
        context: &ControllerContext,
        brokers: impl IntoIterator<Item = i32>,
        at: &TopicPartition,
        is_new: bool,
    ) {
        for broker in brokers {
            *self
                .leader_and_isr
                .entry(broker)
                .or_default()
                .entry(at.clone())
                .or_default() |= is_new;
        }
        self.add_update_metadata(context.live_broker_ids(), [at.clone()]);
    }

    pub(super) fn add_stop_replica(&mut self, broker: i32, at: &TopicPartition, delete_partition: bool) {
        *self
            .stop_replica
            .entry(broker)
            .or_default()
            .entry(at.clone())
            .or_default() |= delete_partition;
    }

    pub(super) fn add_update_metadata(
        &mut self,
        brokers: impl IntoIterator<Item = i32>,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) {
        self.metadata_brokers.extend(brokers);
        self.metadata_partitions.extend(partitions);
    }

    /// The commands, in the order in which they are to be sent; the batch is empty afterwards.
    pub(super) fn take(
        &mut self,
        controller_id: i32,
        context: &ControllerContext,
    ) -> Vec<(i32, BrokerCommand)> {
        let batch = std::mem::take(self);
        let origin = |broker: i32| {
            let live = context.live_brokers.get(&broker)?;
            Some(CommandOrigin {
                controller_id,
                controller_epoch: context.epoch,
                broker_epoch: live.epoch,
            })
        };
        let mut commands = Vec::new();
        for (broker, partitions) in batch.leader_and_isr {
            let Some(origin) = origin(broker) else { continue };
            let partitions: Vec<LeaderAndIsrPartition> = partitions
                .into_iter()
                .filter_map(|(at, is_new)| leader_and_isr_partition(context, at, is_new))
                .collect();
            let leaders: BTreeSet<i32> = partitions.iter().filter_map(|one| one.state.leader).collect();
            let live_leaders = leaders
                .iter()
                .filter_map(|id| context.live_brokers.get(id).map(|live| live.broker.clone()))
                .collect();
            let command = LeaderAndIsrCommand {
                origin,
                partitions,
                live_leaders,
            };
            commands.push((broker, BrokerCommand::LeaderAndIsr(command)));
        }
        if !batch.metadata_brokers.is_empty() {
            let live_brokers: Arc<[Broker]> = context
                .live_brokers
                .values()
                .map(|live| live.broker.clone())
                .collect();
            let partitions: Vec<PartitionMetadataUpdate> = batch
                .metadata_partitions
                .into_iter()
                .filter_map(|at| metadata_partition(context, at))
                .collect();
            for broker in batch.metadata_brokers {
                let Some(origin) = origin(broker) else { continue };
                let (partitions, live_brokers) = (partitions.clone(), Arc::clone(&live_brokers));
                let command = UpdateMetadataCommand {
                    origin,
                    partitions,
                    live_brokers,
                };
                commands.push((broker, BrokerCommand::UpdateMetadata(command)));
            }
        }
        for (broker, partitions) in batch.stop_replica {
            let Some(origin) = origin(broker) else { continue };
            let partitions = partitions
                .into_iter()
                .map(|(at, delete_partition)| {
                    let deleting = context.is_queued_for_deletion(&at.topic);
                    let epoch = context
                        .leadership(&at)
                        .map(|state| state.leader_and_isr.leader_epoch);
                    let leader_epoch = epoch.filter(|_| !deleting);
                    StopReplicaPartition {
                        topic_partition: at,
                        leader_epoch,
                        delete_partition,
                    }
                })
                .collect();
            commands.push((
                broker,
                BrokerCommand::StopReplica(StopReplicaCommand { origin, partitions }),
            ));
        }
        commands
    }
}

fn leader_and_isr_partition(
    context: &ControllerContext,
    at: TopicPartition,
    is_new: bool,
) -> Option<LeaderAndIsrPartition> {
    let partition = context.partition(&at)?;
    let state = partition.leadership.as_ref()?;
    Some(LeaderAndIsrPartition {
        topic_partition: at,
        controller_epoch: state.controller_epoch,
        state: state.leader_and_isr.clone(),
        replicas: Arc::clone(&partition.assignment.replicas),
        adding_replicas: Arc::clone(&partition.assignment.adding_replicas),
        removing_replicas: Arc::clone(&partition.assignment.removing_replicas),
        is_new,
    })
}

/// `None` for a partition that has no leadership yet: there is nothing to tell.
fn metadata_partition(context: &ControllerContext, at: TopicPartition) -> Option<PartitionMetadataUpdate> {
    let partition = context.partition(&at)?;
    let state = partition.leadership.as_ref()?;
    let replicas = &partition.assignment.replicas;
    let offline_replicas: Vec<i32> = replicas
        .iter()
        .copied()
        .filter(|id| !context.is_replica_online(*id, &at))
        .collect();
    let (leader, leader_epoch) = if context.is_queued_for_deletion(&at.topic) {
        (MetadataLeader::Deleted, LeaderEpoch(0))
    } else {
        let leader = state
            .leader_and_isr
            .leader
            .map_or(MetadataLeader::None, MetadataLeader::Broker);
        (leader, state.leader_and_isr.leader_epoch)
    };
    Some(PartitionMetadataUpdate {
        topic_partition: at,
        controller_epoch: state.controller_epoch,
        leader,
        leader_epoch,
        isr: Arc::clone(&state.leader_and_isr.isr),
        zk_version: state.leader_and_isr.zk_version,
        replicas: Arc::clone(replicas),
        offline_replicas: offline_replicas.into(),
    })
}
