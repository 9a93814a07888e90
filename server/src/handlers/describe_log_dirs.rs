//! DescribeLogDirs (key 35): sizes of partitions by log directory (KIP-113, `ReplicaManager.describeLogDirs`).
//!
//! A replica that moves is named twice, its future log with how far it is behind the current one. Null asks for all partitions. A
//! directory that is offline is named with KAFKA_STORAGE_ERROR and nothing in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use milena_engine::units::TopicPartition;

use crate::broker::Broker;
use crate::protocol::ErrorCode;
use crate::protocol::messages::log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};

/// Of a replica that is not served (`DescribeLogDirsResponse.INVALID_OFFSET_LAG`).
const UNKNOWN_LAG: i64 = -1;

pub fn handle(broker: &Broker, request: &DescribeLogDirsRequest<'_>) -> DescribeLogDirsResponse<'static> {
    let chosen: Option<HashSet<TopicPartition>> = request.topics.as_ref().map(|topics| {
        let named = topics.iter().flat_map(|topic| {
            let name = topic.topic.to_string();
            let indexes: Vec<i32> = topic.partition_index.iter().collect();
            indexes
                .into_iter()
                .map(move |index| TopicPartition::new(name.as_str(), index))
        });
        named.collect()
    });
    let results = broker.logs.describe().into_iter().map(|directory| {
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for log in &directory.logs {
            let partitions = topics.entry(log.partition.topic.to_string()).or_default();
            if chosen
                .as_ref()
                .is_none_or(|chosen| chosen.contains(&log.partition))
            {
                partitions.push(DescribeLogDirsPartition {
                    partition_index: log.partition.partition,
                    partition_size: i64::try_from(log.size_bytes).unwrap_or(i64::MAX),
                    offset_lag: broker
                        .replicas
                        .offset_lag(&log.partition, log.log_end_offset, log.is_future)
                        .unwrap_or(UNKNOWN_LAG),
                    is_future_key: log.is_future,
                });
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic {
            name: Cow::Owned(name),
            partitions: partitions.into(),
        });
        let error = if directory.offline_reason.is_none() {
            ErrorCode::None
        } else {
            ErrorCode::KafkaStorageError
        };
        DescribeLogDirsResult {
            error_code: error.code(),
            log_dir: Cow::Owned(directory.path.display().to_string()),
            topics: topics.collect::<Vec<_>>().into(),
        }
    });
    DescribeLogDirsResponse {
        results: results.collect::<Vec<_>>().into(),
        ..DescribeLogDirsResponse::default()
    }
}
