//! `BrokerConfig`: the settings of one broker, typed, derived and checked.
//!
//! A value of this type has passed every check of [`super::checks`]; it never changes, a change of dynamic
//! settings gives a new one. Fields bear Kafka's names with the unit last; what Kafka spreads over synonyms
//! (`log.retention.{ms,minutes,hours}`) is one field. Settings without effect here have no field: the table
//! says why.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::config::{Codec, LogConfig};

use super::api_version::ApiVersion;
use super::listener::{EndPoint, ListenerName};
use super::sources::{Sources, Values};
pub use super::zookeeper::{ZooKeeperSettings, ZooKeeperTls};
pub(super) use crate::logging::LogOutput;

/// The settings of one broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `broker.id`; `None` if it is unset or -1: then the id in `meta.properties` holds, and in empty directories a new one,
    /// which for a broker that stands alone is 0.
    pub broker_id: Option<i32>,
    /// `reserved.broker.max.id`: generated ids lie above.
    pub reserved_broker_max_id: i32,
    /// Where `zookeeper.connect` is set; otherwise the broker stands alone.
    pub zookeeper: Option<ZooKeeperSettings>,
    /// `broker.rack`
    pub rack: Option<String>,
    /// `listeners`, never empty; all PLAINTEXT.
    pub listeners: Vec<EndPoint>,
    /// `advertised.listeners`, in their order; a subset of `listeners` by name. Host `None` and port 0 are
    /// still to be filled in: [`super::local_host_name`], and the port that was bound.
    pub advertised_listeners: Vec<EndPoint>,
    /// The listener of brokers among themselves: always one of the advertised.
    pub inter_broker_listener_name: ListenerName,
    /// `control.plane.listener.name`: kept for the controller's requests; one of the advertised, and another than that of brokers.
    pub control_plane_listener_name: Option<ListenerName>,
    /// `inter.broker.protocol.version`
    pub inter_broker_protocol_version: ApiVersion,
    /// `log.dirs`, else `log.dir`: never empty, in their order, as written.
    pub log_dirs: Vec<PathBuf>,
    pub network: NetworkSettings,
    pub logs: LogManagerSettings,
    /// What a topic without settings of its own has.
    pub topic_defaults: LogConfig,
    pub topics: TopicManagementSettings,
    pub group: GroupSettings,
    pub offsets: OffsetsSettings,
    pub transactions: TransactionSettings,
    pub fetch: FetchSettings,
    pub leader_balance: LeaderBalanceSettings,
    pub replication: ReplicationSettings,
    pub controlled_shutdown: ControlledShutdownSettings,
    /// `milena.io.backend`
    pub io_backend: IoBackend,
    pub log_output: LogOutput,
    pub(super) sources: Arc<Sources>,
    pub(super) values: Arc<Values>,
}

/// Sockets and connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `milena.lanes`; `None`: one per core.
    pub lanes: Option<u32>,
    /// `socket.send.buffer.bytes`; `None` (-1) leaves it to the system.
    pub socket_send_buffer_bytes: Option<u32>,
    /// `socket.receive.buffer.bytes`; `None` (-1) leaves it to the system.
    pub socket_receive_buffer_bytes: Option<u32>,
    /// `socket.request.max.bytes`, at least 1.
    pub socket_request_max_bytes: u32,
    /// `queued.max.request.bytes`, at least `socket.request.max.bytes`; `None` (0 or less) sets no limit.
    pub queued_max_request_bytes: Option<u64>,
    /// `max.connections`
    pub max_connections: u32,
    /// `max.connections.per.ip`
    pub max_connections_per_ip: u32,
    /// `max.connections.per.ip.overrides`: host name or address, and count.
    pub max_connections_per_ip_overrides: Vec<(String, u32)>,
    /// `max.connection.creation.rate`, per second.
    pub max_connection_creation_rate: u32,
    /// `quota.window.num`, at least 1.
    pub quota_window_num: u32,
    /// `quota.window.size.seconds`, at least 1.
    pub quota_window_size_seconds: u32,
    /// `listener.name.{listener}.max.connections` and `.max.connection.creation.rate`, in this order; where a listener sets
    /// only one, the other is the broker's.
    pub listener_connections: BTreeMap<ListenerName, (u32, u32)>,
    /// `connections.max.idle.ms`; `None` (negative) never closes an idle connection.
    pub connections_max_idle_ms: Option<u64>,
    /// `request.timeout.ms`
    pub request_timeout_ms: i32,
}

/// What concerns all logs of the broker together.
#[derive(Clone, Debug)]
pub struct LogManagerSettings {
    /// `log.retention.check.interval.ms`, at least 1.
    pub retention_check_interval_ms: u64,
    /// `log.flush.scheduler.interval.ms`; `None` never.
    pub flush_scheduler_interval_ms: Option<u64>,
    /// `log.flush.offset.checkpoint.interval.ms`
    pub flush_offset_checkpoint_interval_ms: u64,
    /// `log.flush.start.offset.checkpoint.interval.ms`
    pub flush_start_offset_checkpoint_interval_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`
    pub high_watermark_checkpoint_interval_ms: u64,
    /// `num.recovery.threads.per.data.dir`, at least 1.
    pub num_recovery_threads_per_data_dir: u32,
    /// `transactional.id.expiration.ms`: a producer silent for longer is forgotten.
    pub producer_id_expiration_ms: i64,
    /// `milena.disk.reserve.bytes`: appends to a directory stop while less is free.
    ///
    /// The default of 256 MiB holds what a fast disk takes in one second between two looks at the free space,
    /// beside checkpoints, indexes and the tree, so that no write of ours meets a full disk.
    pub disk_reserve_bytes: u64,
}

/// Creating and deleting topics.
#[derive(Clone, Debug)]
pub struct TopicManagementSettings {
    /// `auto.create.topics.enable`
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `num.partitions`, at least 1.
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i32,
}

/// Consumer groups.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`, at least 1.
    pub max_size: u32,
}

/// Committed offsets and their topic.
#[derive(Clone, Debug)]
pub struct OffsetsSettings {
    /// `offset.metadata.max.bytes`
    pub metadata_max_bytes: i32,
    /// `offsets.load.buffer.size`, in bytes, at least 1.
    pub load_buffer_size_bytes: u32,
    /// `offsets.topic.replication.factor`, at least 1.
    ///
    /// **Deviation:** 1 if unset on a broker that stands alone, where Kafka's 3 could never be met.
    pub topic_replication_factor: i16,
    /// `offsets.topic.num.partitions`, at least 1.
    pub topic_num_partitions: i32,
    /// `offsets.topic.segment.bytes`
    pub topic_segment_bytes: i32,
    /// `offsets.topic.compression.codec`
    pub topic_compression_codec: Codec,
    /// `offsets.retention.minutes` in milliseconds.
    pub retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_interval_ms: u64,
    /// `offsets.commit.timeout.ms`
    pub commit_timeout_ms: u32,
    /// `offsets.commit.required.acks`, from -1 to the replication factor.
    pub commit_required_acks: i16,
}

/// The topic of transactions; transactions themselves are not built yet.
#[derive(Clone, Debug)]
pub struct TransactionSettings {
    /// `transaction.state.log.min.isr`
    ///
    /// **Deviation:** 1 if unset on a broker that stands alone, where Kafka's 2 could never be met.
    pub state_log_min_isr: u32,
    /// `transaction.state.log.replication.factor`
    ///
    /// **Deviation:** 1 if unset on a broker that stands alone, where Kafka's 3 could never be met.
    pub state_log_replication_factor: i16,
    /// `transaction.state.log.num.partitions`
    pub state_log_num_partitions: i32,
    /// `transaction.state.log.segment.bytes`
    pub state_log_segment_bytes: i32,
}

/// Fetch responses and sessions.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// `replica.selector.class` names Kafka's rack-aware one: consumers are sent to a replica in their rack.
    pub is_rack_aware: bool,
    /// `fetch.max.bytes`, at least 1024.
    pub max_bytes: u32,
    /// `max.incremental.fetch.session.cache.slots`
    pub max_incremental_session_cache_slots: u32,
}

/// Leadership that returns to preferred replicas by itself.
#[derive(Clone, Copy, Debug)]
pub struct LeaderBalanceSettings {
    /// `auto.leader.rebalance.enable`
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.per.broker.percentage`
    pub leader_imbalance_per_broker_percentage: u32,
    /// `leader.imbalance.check.interval.seconds`, at least 1.
    pub leader_imbalance_check_interval: Duration,
}

/// Following and being followed.
#[derive(Clone, Debug)]
pub struct ReplicationSettings {
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
    /// `num.replica.fetchers`, at least 1.
    pub fetcher_count: u32,
    /// `replication.quota.window.*`
    pub quota_windows: QuotaWindowSettings,
    /// `alter.log.dirs.replication.quota.window.*`
    pub alter_log_dirs_quota_windows: QuotaWindowSettings,
    pub throttles: ReplicationThrottles,
    /// `num.replica.alter.log.dirs.threads`, at least 1; by default one for each of `log.dirs`.
    pub alter_log_dirs_thread_count: Option<u32>,
    /// `replica.fetch.wait.max.ms`
    pub fetch_wait_max_ms: i32,
    /// `replica.fetch.min.bytes`
    pub fetch_min_bytes: i32,
    /// `replica.fetch.max.bytes`
    pub fetch_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub fetch_response_max_bytes: i32,
    /// `replica.fetch.backoff.ms`
    pub fetch_backoff: Duration,
    /// `replica.socket.timeout.ms`
    pub socket_timeout: Duration,
    /// `controller.socket.timeout.ms`
    pub controller_socket_timeout: Duration,
}

/// Over which time the rate of a quota is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaWindowSettings {
    /// `*.window.num`
    pub count: u32,
    /// `*.window.size.seconds`
    pub size_seconds: u32,
}

/// Rates in bytes per second; [`u64::MAX`] is no limit. Only `/config/brokers/{id}` has them: what stands in `<default>` has no effect, as
/// in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationThrottles {
    /// `leader.replication.throttled.rate`
    pub leader: u64,
    /// `follower.replication.throttled.rate`
    pub follower: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`
    pub alter_log_dirs: u64,
}

/// Handing leadership over before a stop.
#[derive(Clone, Copy, Debug)]
pub struct ControlledShutdownSettings {
    /// `controlled.shutdown.enable`
    pub enable: bool,
    /// `controlled.shutdown.max.retries`: attempts in all.
    pub max_retries: u32,
    /// `controlled.shutdown.retry.backoff.ms`
    pub retry_backoff_ms: u64,
}

/// `milena.io.backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// io_uring where a probe at start finds it, else threads.
    Auto,
    Uring,
    Syscall,
}
