//! The broker: what its handlers see of it. Its life, start in order and stop in reverse, is in [`life`].
//!
//! [`Broker`] only holds the parts together; what needs two of them to answer a question is here, everything else is theirs.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::{ArcSwap, Guard};
use milena_engine::io::{Clock, Io};
use milena_engine::log_manager::LogManager;
use parking_lot::Mutex;

use crate::admin::configs::ConfigAdmin;
use crate::admin::topics::TopicAdmin;
use crate::config::BrokerConfig;
use crate::controller::Controller;
use crate::coordination::producer_ids::ProducerIdManager;
use crate::fetch_session::FetchSessionCache;
use crate::group::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator};
use crate::metadata_cache::MetadataCache;
use crate::protocol::ErrorCode;
use crate::replication::{Partition, PartitionRefusal, ReplicaManager};

mod alter_isr;
mod channel;
pub(crate) mod command_handler;
pub mod command_messages;
pub(crate) mod configs;
pub mod controller_channel;
mod housekeeping;
mod life;
pub mod peer;
mod signals;

use command_handler::CommandHandler;
pub(crate) use life::connect;
pub use life::{Ending, RunningBroker, StartError};
pub use signals::Signals;

/// Kafka's other internal topic.
pub const TRANSACTION_STATE_TOPIC_NAME: &str = "__transaction_state";

/// A running broker, as its handlers see it.
#[derive(Debug)]
pub struct Broker {
    pub id: i32,
    /// The czxid of this broker's node, another after each session that ended: what commands to this incarnation bear.
    pub epoch: Arc<AtomicI64>,
    /// Of the features that the cluster has agreed to use, none of which this release knows; −1 if that is not known.
    pub features_epoch: Arc<AtomicI64>,
    pub cluster_id: Arc<str>,
    pub configs: ConfigAdmin,
    pub topics: TopicAdmin,
    config: Arc<ArcSwap<BrokerConfig>>,
    pub io: Arc<dyn Io>,
    pub clock: Arc<dyn Clock>,
    pub logs: Arc<LogManager>,
    /// What the controller commands.
    pub commands: CommandHandler,
    pub controller: Controller,
    pub replicas: Arc<ReplicaManager>,
    pub metadata: Arc<MetadataCache>,
    pub groups: Arc<GroupCoordinator>,
    pub producer_ids: ProducerIdManager,
    pub fetch_sessions: Mutex<FetchSessionCache>,
    pub coordination: Arc<dyn crate::coordination::Coordination>,
}

impl Broker {
    /// The present settings, changes at run time included.
    pub fn config(&self) -> Guard<Arc<BrokerConfig>> {
        self.config.load()
    }

    /// Whether there is no ZooKeeper, and so no other broker.
    pub fn stands_alone(&self) -> bool {
        self.config().zookeeper.is_none()
    }

    /// Whether a topic belongs to the brokers themselves.
    pub fn is_internal_topic(&self, topic: &str) -> bool {
        matches!(topic, GROUP_METADATA_TOPIC_NAME | TRANSACTION_STATE_TOPIC_NAME)
    }

    /// The partition as it is hosted here.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION if the cluster has none such, NOT_LEADER_OR_FOLLOWER if it is another broker's,
    /// KAFKA_STORAGE_ERROR if it is offline.
    pub fn leader_partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        self.replicas
            .partition(topic, partition)
            .map_err(|refusal| match refusal {
                PartitionRefusal::Unknown if self.metadata.contains(topic, partition) => {
                    ErrorCode::NotLeaderOrFollower
                }
                refusal => refusal.into(),
            })
    }

    /// `fetch.max.bytes`
    pub fn fetch_max_bytes(&self) -> usize {
        self.config().fetch.max_bytes as usize
    }

    /// A random positive number, for fetch sessions.
    pub fn random_id(&self) -> i32 {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
        (u32::from_ne_bytes(bytes) >> 1) as i32
    }
}
