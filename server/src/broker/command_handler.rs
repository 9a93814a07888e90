//! Carries out what a controller commands this broker, whether it is the controller of this process or another
//! (`ReplicaManager.becomeLeaderOrFollower`, `stopReplicas`, `maybeUpdateMetadataCache`, and their callers in `KafkaApis`).
//!
//! Commands are carried out one at a time, in the order in which they were submitted, on the control thread and off the lanes;
//! what waits for the disk waits on a thread beside it. A command to a former life of this broker is refused whole, and so is
//! one of a controller that another has followed: whatever connection it was delayed on, it changes nothing. Equal and larger
//! epochs are obeyed: the controller may know of a registration before the broker itself does. Groups follow the partitions of
//! their topic.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use milena_engine::config::LogConfig;
use milena_engine::units::TopicPartition;
use tokio::sync::{mpsc, oneshot};

use super::configs::TopicConfigs;
use crate::cluster::BoxFuture;
use crate::controller::command::{
    BrokerCommand, BrokerReply, CommandOrigin, CommandRefusal, LeaderAndIsrCommand, LeaderAndIsrPartition,
    StopReplicaCommand, StopReplicaPartition, UNKNOWN_BROKER_EPOCH, UpdateMetadataCommand,
};
use crate::group::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator};
use crate::metadata_cache::MetadataCache;
use crate::planted::{self, Bug};
use crate::replication::{PartitionRefusal, ReplicaManager};

const LOGGER: &str = "state.change.logger";

/// What commands act on.
#[derive(Debug)]
pub(crate) struct CommandTargets {
    pub(crate) broker_id: i32,
    /// The czxid of this broker's registration.
    pub(crate) broker_epoch: Arc<AtomicI64>,
    /// Of the newest controller that was heard of.
    ///
    /// **Deviation:** a broker begins with what the tree says when it registers, Kafka's with 0: there a controller that was
    /// succeeded and does not know it may have a broker that has just started lead once more in an epoch of its former life.
    pub(crate) controller_epoch: Arc<AtomicI32>,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) metadata: Arc<MetadataCache>,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) configs: Arc<TopicConfigs>,
    /// What waits for the disk waits here: for simulations, whose disk is memory and which have one thread.
    pub(crate) blocks_for_disk: bool,
}

/// A command on its way.
#[derive(Debug)]
struct Submitted {
    command: BrokerCommand,
    done: oneshot::Sender<BrokerReply>,
}

/// Where commands are handed in.
#[derive(Clone, Debug)]
pub struct CommandHandler {
    inbox: mpsc::UnboundedSender<Submitted>,
}

impl CommandHandler {
    /// The handle, and the future that carries the commands out; it ends with the last handle.
    pub(crate) fn start(
        targets: CommandTargets,
    ) -> (CommandHandler, impl Future<Output = ()> + Send + 'static) {
        let (inbox, submitted) = mpsc::unbounded_channel();
        let worker = Worker { targets };
        (CommandHandler { inbox }, worker.run(submitted))
    }

    /// Hands a command in; its turn is that of this call, whenever the answer is waited for. While the broker stops nothing is
    /// carried out any more, and the answer is [`CommandRefusal::StaleBrokerEpoch`].
    pub fn submit(&self, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        let (done, carried_out) = oneshot::channel();
        // Where nobody takes it `done` is dropped, which the answer says.
        let _ = self.inbox.send(Submitted { command, done });
        Box::pin(async move { carried_out.await.unwrap_or(Err(CommandRefusal::StaleBrokerEpoch)) })
    }
}

struct Worker {
    targets: CommandTargets,
}

impl Worker {
    async fn run(self, mut submitted: mpsc::UnboundedReceiver<Submitted>) {
        while let Some(Submitted { command, done }) = submitted.recv().await {
            let reply = self.carry_out(command).await;
            // Who asked may have hung up.
            let _ = done.send(reply);
        }
    }

    async fn carry_out(&self, command: BrokerCommand) -> BrokerReply {
        let (name, origin) = (command.name(), *command.origin());
        self.check(&origin).inspect_err(|refusal| {
            tracing::warn!(
                target: LOGGER,
                "[Broker id={}] Ignoring {name} request from controller {} with epoch {} for broker epoch {}: {refusal}",
                self.targets.broker_id,
                origin.controller_id,
                origin.controller_epoch,
                origin.broker_epoch
            );
        })?;
        match command {
            BrokerCommand::LeaderAndIsr(command) => self.leader_and_isr(command).await,
            BrokerCommand::UpdateMetadata(command) => {
                self.update_metadata(&command);
                Ok(Vec::new())
            }
            BrokerCommand::StopReplica(command) => self.stop_replica(command).await,
        }
    }

    fn check(&self, origin: &CommandOrigin) -> Result<(), CommandRefusal> {
        let own = self.targets.broker_epoch.load(Ordering::Acquire);
        let is_stale = origin.broker_epoch != UNKNOWN_BROKER_EPOCH && origin.broker_epoch < own;
        if is_stale && !planted::has(Bug::StaleBrokerEpochAccepted) {
            return Err(CommandRefusal::StaleBrokerEpoch);
        }
        let known = self
            .targets
            .controller_epoch
            .fetch_max(origin.controller_epoch, Ordering::AcqRel);
        if origin.controller_epoch < known && !planted::has(Bug::OldControllerObeyed) {
            return Err(CommandRefusal::StaleControllerEpoch);
        }
        Ok(())
    }

    async fn leader_and_isr(&self, command: LeaderAndIsrCommand) -> BrokerReply {
        let targets = &self.targets;
        tracing::info!(
            target: LOGGER,
            "[Broker id={}] Handling LeaderAndIsr request from controller {} for {} partitions",
            targets.broker_id,
            command.origin.controller_id,
            command.partitions.len()
        );
        let mut refused = Vec::new();
        let mut named = HashMap::new();
        let mut partitions = command.partitions;
        partitions.retain(|partition| {
            let name = &partition.topic_partition;
            let epoch = partition.state.leader_epoch.get();
            // Of two words in one command the second is not newer.
            let known_here = named.insert(name.clone(), epoch).is_some();
            let checked = match self.check_placement(partition) {
                Ok(()) if known_here => Err(CommandRefusal::StaleControllerEpoch),
                checked => checked,
            };
            if checked == Err(CommandRefusal::KafkaStorageError) && &*name.topic == GROUP_METADATA_TOPIC_NAME
            {
                // Another coordinator may have its groups by now.
                targets.groups.on_resignation(name.partition, Some(epoch));
            }
            checked
                .inspect_err(|refusal| refused.push((name.clone(), *refusal)))
                .is_ok()
        });
        let mut configs: HashMap<Arc<str>, Arc<LogConfig>> = HashMap::new();
        for partition in &partitions {
            let name = &partition.topic_partition;
            let is_new = targets.replicas.partition(&name.topic, name.partition).is_err();
            if is_new && !configs.contains_key(&name.topic) {
                configs.insert(Arc::clone(&name.topic), targets.configs.read(&name.topic).await);
                targets.configs.throttle(&name.topic, &targets.replicas);
            }
        }
        let read: HashSet<Arc<str>> = configs.keys().cloned().collect();
        let (replicas, topics) = (Arc::clone(&targets.replicas), Arc::clone(&targets.configs));
        let results = self
            .on_disk(move || {
                // A partition that was there may be gone since, by a failure.
                let config_of = |topic: &str| {
                    let read = configs.get(topic).map(Arc::clone);
                    read.unwrap_or_else(|| topics.resolved(topic))
                };
                replicas.leader_and_isr(partitions, &config_of)
            })
            .await?;
        for (name, result) in results {
            match result {
                Ok(()) => {
                    // What was heard while the log was created did not find it.
                    if read.contains(&name.topic)
                        && let Ok(partition) = targets.replicas.partition(&name.topic, name.partition)
                    {
                        targets.configs.apply(&name.topic, &partition.log());
                    }
                    self.follow_election(&name, named[&name]);
                }
                Err(refusal) => refused.push((name, command_refusal(refusal))),
            }
        }
        Ok(refused)
    }

    /// A broker takes no part in a partition that is not placed on it.
    fn check_placement(&self, partition: &LeaderAndIsrPartition) -> Result<(), CommandRefusal> {
        let (name, epoch) = (&partition.topic_partition, partition.state.leader_epoch);
        let known = match self.targets.replicas.partition(&name.topic, name.partition) {
            Ok(hosted) => hosted.leader_epoch(),
            Err(PartitionRefusal::Offline) => return Err(CommandRefusal::KafkaStorageError),
            Err(_) => None,
        };
        let is_stale = known.is_some_and(|known| epoch <= known) && !planted::has(Bug::LeaderEpochIgnored);
        if epoch.get() < 0 || is_stale {
            return Err(CommandRefusal::StaleControllerEpoch);
        }
        if !partition.replicas.contains(&self.targets.broker_id) {
            return Err(CommandRefusal::UnknownTopicOrPartition);
        }
        Ok(())
    }

    fn follow_election(&self, name: &TopicPartition, epoch: i32) {
        if &*name.topic != GROUP_METADATA_TOPIC_NAME {
            return;
        }
        let led = self.targets.replicas.partition(&name.topic, name.partition);
        if led.is_ok_and(|partition| partition.check_leader(-1).is_ok()) {
            self.targets.groups.on_election(name.partition, epoch);
        } else {
            self.targets.groups.on_resignation(name.partition, Some(epoch));
        }
    }

    fn update_metadata(&self, command: &UpdateMetadataCommand) {
        let deleted = self.targets.metadata.update(command);
        for partition in &deleted {
            self.targets.configs.forget(&partition.topic);
        }
        if !deleted.is_empty() {
            self.targets.groups.on_partitions_deleted(&deleted);
        }
    }

    async fn stop_replica(&self, command: StopReplicaCommand) -> BrokerReply {
        tracing::info!(
            target: LOGGER,
            "[Broker id={}] Handling StopReplica request from controller {} for {} partitions",
            self.targets.broker_id,
            command.origin.controller_id,
            command.partitions.len()
        );
        let mut refused = Vec::new();
        let mut stopped: HashMap<TopicPartition, StopReplicaPartition> = HashMap::new();
        for partition in command.partitions {
            match self.check_stop(&partition) {
                Ok(()) => drop(stopped.insert(partition.topic_partition.clone(), partition)),
                Err(refusal) => refused.push((partition.topic_partition, refusal)),
            }
        }
        let replicas = Arc::clone(&self.targets.replicas);
        let asked: Vec<(TopicPartition, bool)> = stopped
            .iter()
            .map(|(name, partition)| (name.clone(), partition.delete_partition))
            .collect();
        let results = self.on_disk(move || replicas.stop_replicas(&asked)).await?;
        for (name, result) in results {
            if let Err(refusal) = result {
                refused.push((name, command_refusal(refusal)));
            } else if &*name.topic == GROUP_METADATA_TOPIC_NAME {
                let epoch = stopped[&name].leader_epoch.map(|epoch| epoch.get());
                self.targets.groups.on_resignation(name.partition, epoch);
            }
        }
        Ok(refused)
    }

    /// Runs what blocks for the disk beside the control thread.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CommandRefusal> {
        if self.targets.blocks_for_disk {
            return Ok(work());
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Ok(done),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The control thread ends.
                Err(_) => Err(CommandRefusal::UnknownServerError),
            },
        }
    }

    /// A replica that is in a reign obeys only what is newer, unless no epoch is said.
    fn check_stop(&self, partition: &StopReplicaPartition) -> Result<(), CommandRefusal> {
        let name = &partition.topic_partition;
        let hosted = match self.targets.replicas.partition(&name.topic, name.partition) {
            Ok(hosted) => hosted,
            Err(PartitionRefusal::Offline) => return Err(CommandRefusal::KafkaStorageError),
            // Its log may lie there since a former life.
            Err(_) => return Ok(()),
        };
        match (partition.leader_epoch, hosted.leader_epoch()) {
            (Some(asked), Some(known)) if asked <= known => Err(CommandRefusal::FencedLeaderEpoch),
            _ => Ok(()),
        }
    }
}

/// How 2.7.2 answers for a partition.
fn command_refusal(refusal: PartitionRefusal) -> CommandRefusal {
    match refusal {
        PartitionRefusal::Unknown => CommandRefusal::UnknownTopicOrPartition,
        PartitionRefusal::StaleLeaderEpoch => CommandRefusal::StaleControllerEpoch,
        PartitionRefusal::Offline => CommandRefusal::KafkaStorageError,
        PartitionRefusal::FencedLeaderEpoch => CommandRefusal::FencedLeaderEpoch,
        // Said to clients, never to a controller.
        PartitionRefusal::NotLeader | PartitionRefusal::UnknownLeaderEpoch => {
            CommandRefusal::UnknownServerError
        }
    }
}

#[cfg(test)]
mod tests;
