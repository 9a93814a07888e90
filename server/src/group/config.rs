//! The settings of the group coordinator, resolved from `server.properties`.
//!
//! Holds numbers only, under Kafka's names with the unit last; parsing, defaults and range checks of the keys belong to
//! `config`. Source: the group and offsets sections of `KafkaConfig`, `GroupConfig` and `OffsetConfig` of 2.7.2.

use milena_engine::config::Codec;

/// How long a member that has just sent its first JoinGroup may wait for the group before it is dropped: until then it has
/// no member id to send heartbeats with (`GroupCoordinator.NewMemberJoinTimeoutMs`).
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// Kafka's keys of group membership and committed offsets. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`, inclusive.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`, inclusive.
    pub group_max_session_timeout_ms: i32,
    /// `group.max.size`, inclusive.
    pub group_max_size: usize,
    /// `group.initial.rebalance.delay.ms`
    pub group_initial_rebalance_delay_ms: i32,
    /// `offset.metadata.max.bytes`; counted, as Kafka does, in UTF-16 code units.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.commit.timeout.ms`: how long an append to `__consumer_offsets` may take before the client hears of it.
    pub offsets_commit_timeout_ms: i32,
    /// `offsets.load.buffer.size`
    pub offsets_load_buffer_size_bytes: usize,
    /// `offsets.topic.compression.codec`: of every batch that the coordinator writes.
    pub offsets_topic_compression_codec: Codec,
    /// The partitions `__consumer_offsets` has, or `offsets.topic.num.partitions` where it does not exist yet.
    pub offsets_topic_num_partitions: i32,
}

impl Default for GroupConfig {
    /// Kafka 2.7.2's defaults.
    fn default() -> Self {
        GroupConfig {
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: i32::MAX as usize,
            group_initial_rebalance_delay_ms: 3_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offsets_commit_timeout_ms: 5_000,
            offsets_load_buffer_size_bytes: 5 * 1024 * 1024,
            offsets_topic_compression_codec: Codec::None,
            offsets_topic_num_partitions: 50,
        }
    }
}
