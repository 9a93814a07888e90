//! What [`validate`](super::validate) depends on beside the bytes: the topic's settings, the request's
//! version, who appends.
//!
//! Built once per partition and change of configuration, not per request, where that can be had.
//!
//! Source: the parameters of `LogValidator`, `ProduceRequest.validateRecords` of 2.7.2.

use crate::config::{CompressionType, LogConfig, Magic, TimestampType};
use crate::units::TopicPartition;

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AppendOrigin {
    /// A produce request: everything is checked.
    #[default]
    Client,
    /// The group or transaction coordinator: control batches are allowed, sequences are its own affair.
    Coordinator,
    /// A follower takes what the leader has; `validate` is not used.
    Replication,
}

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Kafka's checks, down to every record.
    #[default]
    Strict,
    /// Header and CRC only, where no setting of the topic demands to see the records: what a trusted producer
    /// wrote is believed.
    Header,
}

/// What the version of the produce request adds to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RequestRules {
    /// `None` for appends that come from no produce request.
    pub(in crate::record_batch) produce_version: Option<i16>,
}

impl RequestRules {
    /// No request, no further rules.
    pub const NONE: RequestRules = RequestRules {
        produce_version: None,
    };

    /// From version 3 on exactly one v2 batch; from version 7 on zstd.
    pub const fn produce(version: i16) -> RequestRules {
        RequestRules {
            produce_version: Some(version),
        }
    }
}

/// The settings that validation depends on.
#[derive(Clone, Debug)]
pub struct ValidationRules {
    /// For messages.
    pub topic_partition: TopicPartition,
    /// `message.format.version`: the layout of what is written.
    pub magic: Magic,
    pub compression: CompressionType,
    pub timestamp_type: TimestampType,
    /// How far a create time may be from now; `i64::MAX` is any distance.
    pub timestamp_difference_max_ms: i64,
    /// `cleanup.policy` contains compact: every record needs a key.
    pub compacted: bool,
    /// `max.message.bytes`, for each batch as sent and as rewritten.
    pub max_message_bytes: usize,
    pub origin: AppendOrigin,
    pub request: RequestRules,
}

impl ValidationRules {
    /// From a topic's settings.
    pub fn new(
        topic_partition: TopicPartition,
        config: &LogConfig,
        origin: AppendOrigin,
        request: RequestRules,
    ) -> ValidationRules {
        ValidationRules {
            topic_partition,
            magic: config.message_format,
            compression: config.compression_type,
            timestamp_type: config.message_timestamp_type,
            timestamp_difference_max_ms: config.message_timestamp_difference_max_ms,
            compacted: config.cleanup_policy.compact,
            max_message_bytes: config.max_message_bytes as usize,
            origin,
            request,
        }
    }

    pub(in crate::record_batch) fn in_partition(&self) -> String {
        format!("in topic partition {}", self.topic_partition)
    }

    /// Whether record timestamps have bounds.
    pub(in crate::record_batch) fn bounds_timestamps(&self) -> bool {
        self.timestamp_type == TimestampType::CreateTime && self.timestamp_difference_max_ms != i64::MAX
    }
}
