//! How the controller's commands reach this broker: the same commands that travel to others as LeaderAndIsr, UpdateMetadata and
//! StopReplica, carried out here (`KafkaApis.handleLeaderAndIsrRequest` and its neighbours).
//!
//! A command of an older controller is refused whole. Groups follow the partitions of their topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use milena_engine::config::LogConfig;
use milena_engine::units::TopicPartition;

use super::configs::TopicConfigs;
use crate::cluster::BoxFuture;
use crate::controller::command::{
    BrokerChannel, BrokerCommand, BrokerReply, CommandRefusal, LeaderAndIsrCommand, StopReplicaCommand,
    UpdateMetadataCommand,
};
use crate::controller::context::LiveBroker;
use crate::group::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator};
use crate::metadata_cache::MetadataCache;
use crate::replication::{PartitionRefusal, ReplicaManager};

/// The channel to the broker of this process, the only one there is while it stands alone.
#[derive(Debug)]
pub(super) struct LocalChannel {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    broker_id: i32,
    controller_epoch: AtomicI32,
    replicas: Arc<ReplicaManager>,
    metadata: Arc<MetadataCache>,
    groups: Arc<GroupCoordinator>,
    configs: Arc<TopicConfigs>,
}

impl LocalChannel {
    pub(super) fn new(
        broker_id: i32,
        replicas: Arc<ReplicaManager>,
        metadata: Arc<MetadataCache>,
        groups: Arc<GroupCoordinator>,
        configs: Arc<TopicConfigs>,
    ) -> LocalChannel {
        let controller_epoch = AtomicI32::new(0);
        LocalChannel {
            parts: Arc::new(Parts {
                broker_id,
                controller_epoch,
                replicas,
                metadata,
                groups,
                configs,
            }),
        }
    }
}

impl BrokerChannel for LocalChannel {
    fn send(&self, broker_id: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            if broker_id != parts.broker_id {
                tracing::warn!(target: "state.change.logger", "no channel to broker {broker_id}: this broker stands alone");
                return Err(CommandRefusal::UnknownServerError);
            }
            match command {
                BrokerCommand::LeaderAndIsr(command) => parts.leader_and_isr(command).await,
                BrokerCommand::UpdateMetadata(command) => parts.update_metadata(&command),
                BrokerCommand::StopReplica(command) => parts.stop_replica(&command),
            }
        })
    }

    fn live_brokers(&self, _brokers: &[LiveBroker]) {
        // A broker that stands alone lives as long as its process.
    }
}

impl Parts {
    fn check_controller(&self, epoch: i32) -> Result<(), CommandRefusal> {
        let known = self.controller_epoch.fetch_max(epoch, Ordering::AcqRel);
        if epoch < known {
            Err(CommandRefusal::StaleControllerEpoch)
        } else {
            Ok(())
        }
    }

    async fn leader_and_isr(&self, command: LeaderAndIsrCommand) -> BrokerReply {
        self.check_controller(command.origin.controller_epoch)?;
        let mut configs: HashMap<Arc<str>, Arc<LogConfig>> = HashMap::new();
        for partition in &command.partitions {
            let topic = &partition.topic_partition.topic;
            if !configs.contains_key(topic) {
                configs.insert(Arc::clone(topic), self.configs.read(topic).await);
            }
        }
        let epochs: HashMap<TopicPartition, i32> = command
            .partitions
            .iter()
            .map(|partition| {
                (
                    partition.topic_partition.clone(),
                    partition.state.leader_epoch.get(),
                )
            })
            .collect();
        let config_of = |topic: &str| Arc::clone(&configs[topic]);
        let results = self.replicas.leader_and_isr(command.partitions, &config_of);
        let mut refused = Vec::new();
        for (name, result) in results {
            match result {
                Ok(()) => {
                    if &*name.topic == GROUP_METADATA_TOPIC_NAME {
                        self.follow_election(&name, epochs[&name]);
                    }
                }
                Err(refusal) => refused.push((name, refusal.into())),
            }
        }
        Ok(refused)
    }

    fn follow_election(&self, name: &TopicPartition, epoch: i32) {
        let led = self.replicas.partition(&name.topic, name.partition);
        if led.is_ok_and(|partition| partition.check_leader(-1).is_ok()) {
            self.groups.on_election(name.partition, epoch);
        } else {
            self.groups.on_resignation(name.partition, Some(epoch));
        }
    }

    fn update_metadata(&self, command: &UpdateMetadataCommand) -> BrokerReply {
        self.check_controller(command.origin.controller_epoch)?;
        let deleted = self.metadata.update(command);
        if !deleted.is_empty() {
            self.groups.on_partitions_deleted(&deleted);
        }
        Ok(Vec::new())
    }

    fn stop_replica(&self, command: &StopReplicaCommand) -> BrokerReply {
        self.check_controller(command.origin.controller_epoch)?;
        let partitions: Vec<(TopicPartition, bool)> = command
            .partitions
            .iter()
            .map(|partition| (partition.topic_partition.clone(), partition.delete_partition))
            .collect();
        for partition in &command.partitions {
            if &*partition.topic_partition.topic == GROUP_METADATA_TOPIC_NAME {
                let epoch = partition.leader_epoch.map(|epoch| epoch.get());
                self.groups
                    .on_resignation(partition.topic_partition.partition, epoch);
            }
        }
        let results = self.replicas.stop_replicas(&partitions);
        let refused = results
            .into_iter()
            .filter_map(|(name, result)| Some((name, result.err()?.into())));
        Ok(refused.collect())
    }
}

impl From<PartitionRefusal> for CommandRefusal {
    fn from(refusal: PartitionRefusal) -> CommandRefusal {
        match refusal {
            PartitionRefusal::Unknown | PartitionRefusal::NotLeader => {
                CommandRefusal::UnknownTopicOrPartition
            }
            PartitionRefusal::FencedLeaderEpoch | PartitionRefusal::UnknownLeaderEpoch => {
                CommandRefusal::FencedLeaderEpoch
            }
            PartitionRefusal::StaleLeaderEpoch => CommandRefusal::StaleControllerEpoch,
            PartitionRefusal::Offline => CommandRefusal::KafkaStorageError,
        }
    }
}
