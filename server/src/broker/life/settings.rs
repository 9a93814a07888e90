//! The broker's configuration, in the words of the parts that it is for.

use std::sync::Arc;
use std::time::Duration;

use milena_engine::log_manager::LogManagerConfig;

use crate::broker::channel::ChannelSettings;
use crate::broker::peer::PeerSettings;
use crate::config::{ApiVersion, BrokerConfig, InterBrokerVersions, QuotaWindowSettings};
use crate::controller::{ControllerSettings, LeaderRebalance};
use crate::coordination::startup::Registering;
use crate::coordination::znodes::RegistrationVersion;
use crate::group::config::GroupConfig;
use crate::network::NetworkConfig;
use crate::replication::ReplicaManagerSettings;
use crate::replication::replica_alter_log_dirs_manager::MoverSettings;
use crate::replication::replica_fetcher_manager::wire::{FetcherSettings, FetcherVersions};
use crate::replication::replication_quota_manager::QuotaWindows;

/// How much longer than its timeout a session may last: two ticks of a ZooKeeper with twice the usual one.
const SESSION_MARGIN: Duration = Duration::from_secs(8);

pub(super) fn network_config(config: &BrokerConfig) -> NetworkConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = &config.network;
    NetworkConfig {
        lane_count: settings.lanes.map_or(cores, |lanes| lanes as usize),
        reserved_listener: config
            .control_plane_listener_name
            .as_ref()
            .map(|name| name.as_str().into()),
        request_size_bytes_max: settings.socket_request_max_bytes as usize,
        queued_size_bytes_max: settings.queued_max_request_bytes,
        idle_max: settings.connections_max_idle_ms.map(Duration::from_millis),
        send_buffer_bytes: settings.socket_send_buffer_bytes.map(|size| size as usize),
        receive_buffer_bytes: settings.socket_receive_buffer_bytes.map(|size| size as usize),
    }
}

/// How the broker registers: in the words of `inter.broker.protocol.version`, and with patience for its own former session,
/// which a crash leaves behind. Servers end a session up to two ticks late.
pub(super) fn registering(config: &BrokerConfig) -> Registering {
    let protocol = config.inter_broker_protocol_version;
    let version = if protocol >= ApiVersion::V2_7_IV0 {
        RegistrationVersion::V5
    } else if protocol >= ApiVersion::V0_10_0_IV1 {
        RegistrationVersion::V4
    } else {
        RegistrationVersion::V2
    };
    let patience = config.zookeeper.as_ref().map_or(Duration::ZERO, |zookeeper| {
        let session = u64::try_from(zookeeper.session_timeout_ms).unwrap_or(0);
        Duration::from_millis(session) + SESSION_MARGIN
    });
    Registering {
        version,
        former_session: None,
        patience,
    }
}

/// By the settings that hold at the start, changes at run time included.
pub(super) fn controller_settings(broker_id: i32, config: &BrokerConfig) -> ControllerSettings {
    let balance = &config.leader_balance;
    ControllerSettings {
        broker_id,
        delete_topic_enable: config.topics.delete_topic_enable,
        unclean_leader_election_enable: config.topic_defaults.unclean_leader_election_enable,
        leader_rebalance: balance.auto_leader_rebalance_enable.then_some(LeaderRebalance {
            interval: balance.leader_imbalance_check_interval,
            imbalance_percentage: balance.leader_imbalance_per_broker_percentage,
        }),
        feature_versioning: config.inter_broker_protocol_version >= ApiVersion::V2_7_IV0,
    }
}

pub(super) fn log_manager_config(config: &BrokerConfig) -> LogManagerConfig {
    let settings = &config.logs;
    let defaults = LogManagerConfig::default();
    LogManagerConfig {
        recovery_threads_per_dir: settings.num_recovery_threads_per_data_dir as usize,
        retention_check_interval_ms: settings.retention_check_interval_ms,
        flush_scheduler_interval_ms: settings
            .flush_scheduler_interval_ms
            .unwrap_or(defaults.flush_scheduler_interval_ms),
        recovery_point_checkpoint_interval_ms: settings.flush_offset_checkpoint_interval_ms,
        log_start_offset_checkpoint_interval_ms: settings.flush_start_offset_checkpoint_interval_ms,
        high_watermark_checkpoint_interval_ms: settings.high_watermark_checkpoint_interval_ms,
        producer_id_expiration_ms: settings.producer_id_expiration_ms,
        disk_reserve_bytes: settings.disk_reserve_bytes,
        cuts_holes: config.zookeeper.is_some(),
        ..defaults
    }
}

/// `existing` are the partitions of `__consumer_offsets`, where the topic is there.
pub(super) fn group_config(config: &BrokerConfig, existing: Option<i32>) -> GroupConfig {
    let (group, offsets) = (&config.group, &config.offsets);
    GroupConfig {
        group_min_session_timeout_ms: group.min_session_timeout_ms,
        group_max_session_timeout_ms: group.max_session_timeout_ms,
        group_max_size: group.max_size as usize,
        group_initial_rebalance_delay_ms: group.initial_rebalance_delay_ms,
        offset_metadata_max_bytes: usize::try_from(offsets.metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: offsets.retention_ms,
        offsets_retention_check_interval_ms: i64::try_from(offsets.retention_check_interval_ms)
            .unwrap_or(i64::MAX),
        offsets_commit_timeout_ms: i32::try_from(offsets.commit_timeout_ms).unwrap_or(i32::MAX),
        offsets_load_buffer_size_bytes: offsets.load_buffer_size_bytes as usize,
        offsets_topic_compression_codec: offsets.topic_compression_codec,
        offsets_topic_num_partitions: existing.unwrap_or(offsets.topic_num_partitions),
    }
}

pub(super) fn replica_manager_settings(broker_id: i32, config: &BrokerConfig) -> ReplicaManagerSettings {
    ReplicaManagerSettings {
        broker_id,
        lag_max: config.replication.lag_max,
        fetcher_count: config.replication.fetcher_count as usize,
        quota_windows: quota_windows(config.replication.quota_windows),
        alter_log_dirs_quota_windows: quota_windows(config.replication.alter_log_dirs_quota_windows),
        mover_count: config
            .replication
            .alter_log_dirs_thread_count
            .map_or(config.log_dirs.len(), |count| count as usize),
    }
}

pub(super) fn mover_settings(broker_id: i32, config: &BrokerConfig) -> MoverSettings {
    MoverSettings {
        broker_id,
        copy_size_bytes_max: usize::try_from(config.replication.fetch_max_bytes).unwrap_or(0),
        backoff: config.replication.fetch_backoff,
    }
}

fn quota_windows(settings: QuotaWindowSettings) -> QuotaWindows {
    QuotaWindows {
        count: settings.count as usize,
        size: Duration::from_secs(settings.size_seconds.into()),
    }
}

pub(super) fn fetcher_settings(broker_id: i32, config: &BrokerConfig) -> FetcherSettings {
    let settings = &config.replication;
    let versions = InterBrokerVersions::of(config.inter_broker_protocol_version);
    FetcherSettings {
        broker_id,
        listener: config.inter_broker_listener_name.as_str().into(),
        versions: FetcherVersions {
            fetch: versions.fetch,
            list_offsets: versions.list_offsets,
            offset_for_leader_epoch: versions.offset_for_leader_epoch,
        },
        wait_max_ms: settings.fetch_wait_max_ms,
        min_bytes: settings.fetch_min_bytes,
        partition_max_bytes: settings.fetch_max_bytes,
        response_max_bytes: settings.fetch_response_max_bytes,
        backoff: settings.fetch_backoff,
        socket_timeout: settings.socket_timeout,
    }
}

pub(super) fn peer_settings(broker_id: i32, config: &BrokerConfig) -> PeerSettings {
    PeerSettings {
        broker_id,
        listener: config.inter_broker_listener_name.as_str().into(),
        connect_timeout: config.replication.controller_socket_timeout,
        request_timeout: Duration::from_millis(u64::try_from(config.network.request_timeout_ms).unwrap_or(0)),
    }
}

pub(super) fn channel_settings(broker_id: i32, config: &BrokerConfig) -> ChannelSettings {
    let between_brokers = peer_settings(broker_id, config);
    let control_plane = config.control_plane_listener_name.as_ref();
    let listener = control_plane.map_or(&config.inter_broker_listener_name, |name| name);
    ChannelSettings {
        leaders_listener: Arc::clone(&between_brokers.listener),
        peer: PeerSettings {
            listener: listener.as_str().into(),
            ..between_brokers
        },
        versions: InterBrokerVersions::of(config.inter_broker_protocol_version),
    }
}
