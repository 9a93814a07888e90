//! The resolved settings of one log, under Kafka's topic configuration names (`LogConfig.scala`).
//!
//! Resolution (topic override, broker setting, default) is the server's; here every value is final.

/// How record batches are compressed on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// From bits 0-2 of a batch's attributes; `None` for the unassigned 5, 6 and 7.
    pub const fn from_id(id: u8) -> Option<Codec> {
        match id {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Kafka's name: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompressionType {
    /// Keep what the producer chose.
    #[default]
    Producer,
    /// Always this one (`uncompressed` is `Codec::None`).
    Always(Codec),
}

/// Which clock stamps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum TimestampType {
    #[default]
    CreateTime = 0,
    LogAppendTime = 1,
}

/// The version of the batch layout, as in byte 16 of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Magic {
    V0 = 0,
    V1 = 1,
    #[default]
    V2 = 2,
}

/// `cleanup.policy`: both, one or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// Settings of one log. Units are in the names; `None` stands for Kafka's "unlimited" (−1 or `Long.MAX_VALUE`).
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_size_bytes: u32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_size_bytes: u32,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `flush.messages`; `Some(1)` is synced-before-ack.
    pub flush_messages: Option<u64>,
    /// `flush.ms`
    pub flush_ms: Option<u64>,
    /// `retention.bytes`
    pub retention_bytes: Option<u64>,
    /// `retention.ms`
    pub retention_ms: Option<i64>,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: u64,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election_enable: bool,
    /// `min.insync.replicas`
    pub min_insync_replicas: u32,
    /// `compression.type`
    pub compression_type: CompressionType,
    /// `preallocate`
    pub preallocate: bool,
    /// `message.format.version`, as the batch layout it stands for
    pub message_format: Magic,
    /// `message.timestamp.type`
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.difference.max.ms`
    pub message_timestamp_difference_max_ms: i64,
    /// `message.downconversion.enable`
    pub message_downconversion_enable: bool,
}

impl Default for LogConfig {
    /// What applies with an empty `server.properties`.
    fn default() -> Self {
        LogConfig {
            segment_size_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_size_bytes: 10 << 20,
            index_interval_bytes: 4096,
            flush_messages: None,
            flush_ms: None,
            retention_bytes: None,
            retention_ms: Some(7 * 24 * 3_600_000),
            max_message_bytes: (1 << 20) + 12,
            delete_retention_ms: 24 * 3_600_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            min_cleanable_dirty_ratio: 0.5,
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            unclean_leader_election_enable: false,
            min_insync_replicas: 1,
            compression_type: CompressionType::Producer,
            preallocate: false,
            message_format: Magic::V2,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_difference_max_ms: i64::MAX,
            message_downconversion_enable: true,
        }
    }
}
