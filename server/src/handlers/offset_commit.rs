//! OffsetCommit (key 8): remembers how far a group has come.
//!
//! Version 0 keeps offsets in the coordination tree. Version 1 has generation, member and a commit timestamp of the client's
//! choice; 2 to 4 a retention time for all offsets of the request; 6 the leader epoch; 7 static members; 8 is flexible. A
//! partition that does not exist gets an error of its own and keeps no other from being committed. Source:
//! `KafkaApis.handleOffsetCommitRequest`.
//!
//! **Deviation:** who is not (or not yet) the coordinator of the group says so of every partition. 2.7.2 says
//! UNKNOWN_TOPIC_OR_PARTITION of those that it does not know, which clients take for final: a broker that has just come back, and was the
//! coordinator before, knows none.

use std::borrow::Cow;
use std::sync::Arc;

use milena_engine::units::{Offset, TimestampMs, TopicPartition};

use super::{consumer_offset_znodes, group_error};
use crate::coordination::Coordination;
use crate::group::GroupCoordinator;
use crate::group::requests::{CommitOffsets, OffsetAndMetadata};
use crate::metadata_cache::MetadataCache;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};

/// Answers once the offsets are in the log on all in-sync replicas. `now` is the wall clock.
pub async fn handle(
    groups: &GroupCoordinator,
    metadata: &MetadataCache,
    tree: &Arc<dyn Coordination>,
    version: i16,
    now: TimestampMs,
    request: &OffsetCommitRequest<'_>,
) -> OffsetCommitResponse<'static> {
    let mut codes: Vec<(TopicPartition, i16)> = Vec::new();
    // Where in `codes` the answer to each accepted partition belongs.
    let mut accepted: Vec<usize> = Vec::new();
    let mut offsets: Vec<(TopicPartition, OffsetAndMetadata)> = Vec::new();
    let snapshot = metadata.snapshot();
    // Version 0 needs no coordinator.
    let coordinated = match version {
        0 => Ok(()),
        _ => groups
            .fetch_offsets(&request.group_id, Some(&[]), false)
            .map(|_| ()),
    };
    let unknown = coordinated.map_or_else(ErrorCode::from, |()| ErrorCode::UnknownTopicOrPartition);
    for topic in &request.topics {
        let name: Arc<str> = topic.name.as_ref().into();
        for partition in &topic.partitions {
            let topic_partition = TopicPartition::new(name.clone(), partition.partition_index);
            if snapshot.contains(&name, partition.partition_index) {
                accepted.push(codes.len());
                offsets.push((
                    topic_partition.clone(),
                    committed(&partition, request.retention_time_ms, now),
                ));
                codes.push((topic_partition, ErrorCode::None.code()));
            } else {
                codes.push((topic_partition, unknown.code()));
            }
        }
    }
    if version == 0 {
        let metadata_max = groups.config().offset_metadata_max_bytes;
        for (index, (partition, value)) in accepted.into_iter().zip(offsets) {
            codes[index].1 = if value.metadata.encode_utf16().count() > metadata_max {
                ErrorCode::OffsetMetadataTooLarge.code()
            } else {
                consumer_offset_znodes::store(tree, &request.group_id, &partition, value.offset)
                    .await
                    .code()
            };
        }
    } else if !offsets.is_empty() {
        let results = groups
            .commit_offsets(CommitOffsets {
                group_id: request.group_id.as_ref().into(),
                member_id: request.member_id.as_ref().into(),
                group_instance_id: request.group_instance_id.as_deref().map(Into::into),
                generation_id: request.generation_id,
                offsets,
                transaction: None,
            })
            .await;
        for (index, result) in accepted.into_iter().zip(results) {
            codes[index].1 = group_error::code(result);
        }
    }
    let topics = group_error::by_topic(codes)
        .into_iter()
        .map(|(name, partitions)| OffsetCommitResponseTopic {
            name: Cow::Owned(name.to_string()),
            partitions: partitions
                .into_iter()
                .map(|(partition_index, error_code)| OffsetCommitResponsePartition {
                    partition_index,
                    error_code,
                })
                .collect(),
        });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}

fn committed(
    partition: &OffsetCommitRequestPartition<'_>,
    retention_time_ms: i64,
    now: TimestampMs,
) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: Offset(partition.committed_offset),
        leader_epoch: Some(partition.committed_leader_epoch).filter(|epoch| *epoch != -1),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
        commit_timestamp: match partition.commit_timestamp {
            -1 => now,
            chosen => TimestampMs(chosen),
        },
        expire_timestamp: match retention_time_ms {
            -1 => None,
            retention => Some(TimestampMs(now.get().saturating_add(retention))),
        },
    }
}
