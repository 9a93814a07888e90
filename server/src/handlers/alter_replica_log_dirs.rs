//! AlterReplicaLogDirs (key 34): replicas move to other log directories of this broker (KIP-113). Answered as soon as the moves have
//! begun.
//!
//! A partition that is named for two directories goes to the last. One that is not here yet is created where it was said, and the
//! answer is REPLICA_NOT_AVAILABLE. Source: `KafkaApis.handleAlterReplicaLogDirsRequest`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use crate::broker::Broker;
use crate::protocol::ErrorCode;
use crate::protocol::messages::log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};
use crate::replication::replica_alter_log_dirs::AlterLogDirError;

pub async fn handle(
    broker: &Broker,
    request: &AlterReplicaLogDirsRequest<'_>,
) -> AlterReplicaLogDirsResponse<'static> {
    let mut moves = BTreeMap::new();
    for directory in request.dirs.iter() {
        for topic in directory.topics.iter() {
            for partition in topic.partitions.iter() {
                let name = TopicPartition::new(&*topic.name, partition);
                moves.insert(name, PathBuf::from(&*directory.path));
            }
        }
    }
    let asked: Vec<TopicPartition> = moves.keys().cloned().collect();
    let replicas = Arc::clone(&broker.replicas);
    let moves = moves.into_iter().collect();
    let altered = tokio::task::spawn_blocking(move || replicas.alter_replica_log_dirs(moves)).await;
    let codes: Vec<(TopicPartition, ErrorCode)> = match altered {
        Ok(altered) => altered
            .into_iter()
            .map(|(name, altered)| {
                let code =
                    altered.map_or_else(|error| error_code(broker, &name, &error), |()| ErrorCode::None);
                (name, code)
            })
            .collect(),
        Err(failed) => {
            tracing::error!(target: "kafka.server.KafkaApis", "moves between log directories were not begun: {failed}");
            asked
                .into_iter()
                .map(|name| (name, ErrorCode::UnknownServerError))
                .collect()
        }
    };
    let mut topics: BTreeMap<Arc<str>, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for (name, code) in codes {
        let partitions = topics.entry(name.topic).or_default();
        partitions.push(AlterReplicaLogDirPartitionResult {
            partition_index: name.partition,
            error_code: code.code(),
        });
    }
    let results = topics
        .into_iter()
        .map(|(name, partitions)| AlterReplicaLogDirTopicResult {
            topic_name: Cow::Owned(name.to_string()),
            partitions: partitions.into(),
        });
    AlterReplicaLogDirsResponse {
        results: results.collect::<Vec<_>>().into(),
        ..AlterReplicaLogDirsResponse::default()
    }
}

fn error_code(broker: &Broker, name: &TopicPartition, error: &AlterLogDirError) -> ErrorCode {
    match error {
        AlterLogDirError::TopicNameTooLong => ErrorCode::InvalidTopicException,
        AlterLogDirError::NoSuchDirectory(_) => ErrorCode::LogDirNotFound,
        AlterLogDirError::Storage(_) => ErrorCode::KafkaStorageError,
        AlterLogDirError::NotHosted if broker.metadata.contains(&name.topic, name.partition) => {
            ErrorCode::ReplicaNotAvailable
        }
        AlterLogDirError::NotHosted => ErrorCode::UnknownTopicOrPartition,
    }
}
