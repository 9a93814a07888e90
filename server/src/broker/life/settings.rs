//! The broker's configuration, in the words of the parts that it is for.

use std::time::Duration;

use milena_engine::log_manager::LogManagerConfig;

use crate::config::{ApiVersion, BrokerConfig};
use crate::coordination::startup::Registering;
use crate::coordination::znodes::RegistrationVersion;
use crate::group::config::GroupConfig;
use crate::network::NetworkConfig;
use crate::replication::ReplicaManagerSettings;
use crate::replication::replica_fetcher_manager::wire::{FetcherSettings, FetcherVersions};

/// How much longer than its timeout a session may last: two ticks of a ZooKeeper with twice the usual one.
const SESSION_MARGIN: Duration = Duration::from_secs(8);

pub(super) fn network_config(config: &BrokerConfig) -> NetworkConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = &config.network;
    NetworkConfig {
        lane_count: settings.lanes.map_or(cores, |lanes| lanes as usize),
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
        ..defaults
    }
}

pub(super) fn group_config(config: &BrokerConfig) -> GroupConfig {
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
        offsets_topic_num_partitions: offsets.topic_num_partitions,
    }
}

pub(super) fn replica_manager_settings(broker_id: i32, config: &BrokerConfig) -> ReplicaManagerSettings {
    ReplicaManagerSettings {
        broker_id,
        lag_max: config.replication.lag_max,
        fetcher_count: config.replication.fetcher_count as usize,
    }
}

pub(super) fn fetcher_settings(broker_id: i32, config: &BrokerConfig) -> FetcherSettings {
    let settings = &config.replication;
    FetcherSettings {
        broker_id,
        listener: config.inter_broker_listener_name.as_str().into(),
        versions: fetcher_versions(config.inter_broker_protocol_version),
        wait_max_ms: settings.fetch_wait_max_ms,
        min_bytes: settings.fetch_min_bytes,
        partition_max_bytes: settings.fetch_max_bytes,
        response_max_bytes: settings.fetch_response_max_bytes,
        backoff: settings.fetch_backoff,
        socket_timeout: settings.socket_timeout,
    }
}

/// The version that a release uses, of a table that names for each the first release with it; newest first.
fn version_at(release: ApiVersion, table: &[(&str, i16)]) -> Option<i16> {
    let reached = |first: &str| ApiVersion::parse(first).is_some_and(|first| release >= first);
    let found = table.iter().find(|(first, _)| reached(first));
    found.map(|(_, version)| *version)
}

/// `ReplicaFetcherThread.{fetchRequestVersion, offsetForLeaderEpochRequestVersion, listOffsetRequestVersion}`
fn fetcher_versions(release: ApiVersion) -> FetcherVersions {
    let fetch = [
        ("2.7-IV1", 12),
        ("2.3-IV1", 11),
        ("2.1-IV2", 10),
        ("2.0-IV1", 8),
        ("1.1-IV0", 7),
        ("0.11.0-IV1", 5),
        ("0.11.0-IV0", 4),
        ("0.10.1-IV1", 3),
        ("0.10.0-IV0", 2),
        ("0.9.0", 1),
    ];
    let list_offsets = [
        ("2.2-IV1", 5),
        ("2.1-IV1", 4),
        ("2.0-IV1", 3),
        ("0.11.0-IV0", 2),
        ("0.10.1-IV2", 1),
    ];
    let offset_for_leader_epoch = [("2.3-IV1", 3), ("2.1-IV1", 2), ("2.0-IV0", 1), ("0.11.0-IV2", 0)];
    FetcherVersions {
        fetch: version_at(release, &fetch).unwrap_or(0),
        list_offsets: version_at(release, &list_offsets).unwrap_or(0),
        offset_for_leader_epoch: version_at(release, &offset_for_leader_epoch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_ask_in_the_versions_of_the_release() {
        for (release, fetch, list_offsets, epochs) in [
            ("2.7-IV2", 12, 5, Some(3)),
            ("2.7-IV0", 11, 5, Some(3)),
            ("2.6", 11, 5, Some(3)),
            ("2.1", 10, 4, Some(2)),
            ("1.0", 5, 2, Some(0)),
            ("0.11.0-IV1", 5, 2, None),
            ("0.8.2", 0, 0, None),
        ] {
            let expected = FetcherVersions {
                fetch,
                list_offsets,
                offset_for_leader_epoch: epochs,
            };
            let release = ApiVersion::parse(release).unwrap();
            assert_eq!(fetcher_versions(release), expected, "{release}");
        }
    }
}
