//! What a controller tells a broker: LeaderAndIsr, UpdateMetadata and StopReplica as domain values, and the door through
//! which it tells it.
//!
//! The controller commands its own broker by the same commands as every other one. Epochs travel along: a broker refuses a
//! command of an older controller, or one that was meant for its former life. Source classes: `ControllerChannelManager`,
//! `LeaderAndIsrRequest`, `UpdateMetadataRequest`, `StopReplicaRequest`.

use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::context::LiveBroker;
use crate::cluster::{BoxFuture, Broker, LeaderAndIsr};

/// Where a controller does not say which life of a broker it means.
pub const UNKNOWN_BROKER_EPOCH: i64 = -1;

/// Who commands whom: checked by the receiver before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandOrigin {
    pub controller_id: i32,
    /// A smaller one than the broker has seen is refused: [`CommandRefusal::StaleControllerEpoch`].
    pub controller_epoch: i32,
    /// The czxid of the receiver's registration as the controller knows it; a smaller one than the broker's own is refused.
    pub broker_epoch: i64,
}

/// One partition of a LeaderAndIsr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsrPartition {
    pub topic_partition: TopicPartition,
    /// Of the controller that wrote the state.
    pub controller_epoch: i32,
    pub state: LeaderAndIsr,
    pub replicas: Arc<[i32]>,
    pub adding_replicas: Arc<[i32]>,
    pub removing_replicas: Arc<[i32]>,
    /// The partition never had a leader before: its log may be created even while a log directory is offline.
    pub is_new: bool,
}

/// Become leader or follower of these partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsrCommand {
    pub origin: CommandOrigin,
    pub partitions: Vec<LeaderAndIsrPartition>,
    /// Where the leaders named above are reached: a word for the wire, as the broker that is commanded finds them in its metadata
    /// cache.
    pub live_leaders: Vec<Broker>,
}

/// One partition of an UpdateMetadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadataUpdate {
    pub topic_partition: TopicPartition,
    pub controller_epoch: i32,
    /// `Deleted` removes the partition from the metadata cache (−2 on the wire).
    pub leader: MetadataLeader,
    pub leader_epoch: LeaderEpoch,
    pub isr: Arc<[i32]>,
    pub zk_version: i32,
    pub replicas: Arc<[i32]>,
    pub offline_replicas: Arc<[i32]>,
}

/// The leader that an UpdateMetadata announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataLeader {
    Broker(i32),
    /// −1
    None,
    /// −2: the topic is being deleted.
    Deleted,
}

/// What the cluster looks like: changed partitions, and always all live brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMetadataCommand {
    pub origin: CommandOrigin,
    pub partitions: Vec<PartitionMetadataUpdate>,
    pub live_brokers: Arc<[Broker]>,
}

/// One partition of a StopReplica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplicaPartition {
    pub topic_partition: TopicPartition,
    /// `None` when the topic is being deleted (−2 on the wire), or when the controller does not say (−1, as before version 3):
    /// not checked against the broker's epoch then.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Delete the log too.
    pub delete_partition: bool,
}

/// Stop being a replica of these partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplicaCommand {
    pub origin: CommandOrigin,
    pub partitions: Vec<StopReplicaPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerCommand {
    LeaderAndIsr(LeaderAndIsrCommand),
    UpdateMetadata(UpdateMetadataCommand),
    StopReplica(StopReplicaCommand),
}

impl BrokerCommand {
    /// Kafka's name for it.
    pub fn name(&self) -> &'static str {
        match self {
            BrokerCommand::LeaderAndIsr(_) => "LeaderAndIsr",
            BrokerCommand::UpdateMetadata(_) => "UpdateMetadata",
            BrokerCommand::StopReplica(_) => "StopReplica",
        }
    }

    pub fn origin(&self) -> &CommandOrigin {
        match self {
            BrokerCommand::LeaderAndIsr(command) => &command.origin,
            BrokerCommand::UpdateMetadata(command) => &command.origin,
            BrokerCommand::StopReplica(command) => &command.origin,
        }
    }
}

/// Why a broker refused a command, or one partition of it; names are those of Kafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    #[error("STALE_CONTROLLER_EPOCH")]
    StaleControllerEpoch,
    #[error("STALE_BROKER_EPOCH")]
    StaleBrokerEpoch,
    /// Not a replica of the partition.
    #[error("UNKNOWN_TOPIC_OR_PARTITION")]
    UnknownTopicOrPartition,
    #[error("FENCED_LEADER_EPOCH")]
    FencedLeaderEpoch,
    /// The log directory of the replica is offline.
    #[error("KAFKA_STORAGE_ERROR")]
    KafkaStorageError,
    #[error("UNKNOWN_SERVER_ERROR")]
    UnknownServerError,
}

/// A broker's answer: a refusal of the whole command, or the partitions it could not serve (those not named went well).
pub type BrokerReply = Result<Vec<(TopicPartition, CommandRefusal)>, CommandRefusal>;

/// How the controller reaches a broker.
pub trait BrokerChannel: Send + Sync {
    /// Sends one command. Commands to one broker are carried out in the order of the calls; the future completes with the
    /// broker's answer. A channel over a network sends again until the broker is no longer registered, and then drops the
    /// command and answers [`CommandRefusal::StaleBrokerEpoch`].
    fn send(&self, broker_id: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply>;

    /// Who is registered from now on, each with its epoch: said before the commands that follow from it. Commands to others, and
    /// to the former life of one that came back, are given up. Nobody, when the reign ends.
    fn live_brokers(&self, brokers: &[LiveBroker]);
}
