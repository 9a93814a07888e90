//! OffsetDelete (key 47): forgets offsets of topics that a group does not consume (KIP-496). Version 0 only.
//!
//! An error of the group stands at the top, and no partitions are answered then. Source: `KafkaApis.handleOffsetDeleteRequest`.

use std::borrow::Cow;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::metadata_cache::MetadataCache;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offsets::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

/// Answers once the offsets are gone from the log.
pub async fn handle(
    groups: &GroupCoordinator,
    metadata: &MetadataCache,
    request: &OffsetDeleteRequest<'_>,
) -> OffsetDeleteResponse<'static> {
    let mut codes: Vec<(TopicPartition, i16)> = Vec::new();
    let mut existing: Vec<TopicPartition> = Vec::new();
    let snapshot = metadata.snapshot();
    for topic in &request.topics {
        let name: Arc<str> = topic.name.as_ref().into();
        for partition in &topic.partitions {
            let topic_partition = TopicPartition::new(name.clone(), partition.partition_index);
            if snapshot.contains(&name, partition.partition_index) {
                existing.push(topic_partition);
            } else {
                codes.push((topic_partition, ErrorCode::UnknownTopicOrPartition.code()));
            }
        }
    }
    match groups
        .delete_offsets(request.group_id.as_ref().into(), existing.clone())
        .await
    {
        Err(error) => {
            return OffsetDeleteResponse {
                error_code: group_error::code(Err(error)),
                ..OffsetDeleteResponse::default()
            };
        }
        Ok(results) => codes.extend(
            existing
                .into_iter()
                .zip(results.into_iter().map(group_error::code)),
        ),
    }
    let topics = group_error::by_topic(codes)
        .into_iter()
        .map(|(name, partitions)| OffsetDeleteResponseTopic {
            name: Cow::Owned(name.to_string()),
            partitions: partitions
                .into_iter()
                .map(|(partition_index, error_code)| OffsetDeleteResponsePartition {
                    partition_index,
                    error_code,
                })
                .collect(),
        });
    OffsetDeleteResponse {
        topics: topics.collect(),
        ..OffsetDeleteResponse::default()
    }
}
