//! OffsetFetch (key 9): how far a group has come.
//!
//! Version 0 reads the coordination tree. From 2 on, null topics ask for all offsets of the group and errors of the group stand
//! at the top (before, at each partition); 5 has the leader epoch; 6 is flexible; 7 may ask for settled offsets only
//! (KIP-447). A partition without an offset gets −1 and no error. Source: `KafkaApis.handleOffsetFetchRequest`.

use std::borrow::Cow;
use std::sync::Arc;

use milena_engine::units::{Offset, TopicPartition};

use super::{consumer_offset_znodes, group_error};
use crate::coordination::Coordination;
use crate::group::GroupCoordinator;
use crate::group::requests::FetchedOffset;
use crate::metadata_cache::MetadataCache;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offsets::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};

pub async fn handle(
    groups: &GroupCoordinator,
    metadata: &MetadataCache,
    tree: &Arc<dyn Coordination>,
    version: i16,
    request: &OffsetFetchRequest<'_>,
) -> OffsetFetchResponse<'static> {
    let partitions: Option<Vec<TopicPartition>> = request.topics.as_ref().map(|topics| {
        let mut partitions = Vec::new();
        for topic in topics {
            let name: Arc<str> = topic.name.as_ref().into();
            partitions.extend(
                topic
                    .partition_indexes
                    .iter()
                    .map(|index| TopicPartition::new(name.clone(), index)),
            );
        }
        partitions
    });
    if version == 0 {
        let partitions = partitions.unwrap_or_default();
        return response(load_from_tree(metadata, tree, &request.group_id, partitions).await);
    }
    match groups.fetch_offsets(&request.group_id, partitions.as_deref(), request.require_stable) {
        Ok(offsets) => response(
            offsets
                .into_iter()
                .map(|(partition, offset)| (partition, fetched(offset))),
        ),
        Err(error) => {
            let error = ErrorCode::from(error);
            if version >= 2 {
                return OffsetFetchResponse {
                    error_code: error.code(),
                    ..OffsetFetchResponse::default()
                };
            }
            response(
                partitions
                    .unwrap_or_default()
                    .into_iter()
                    .map(|partition| (partition, absent(error))),
            )
        }
    }
}

async fn load_from_tree(
    metadata: &MetadataCache,
    tree: &Arc<dyn Coordination>,
    group_id: &str,
    partitions: Vec<TopicPartition>,
) -> Vec<(TopicPartition, OffsetFetchResponsePartition<'static>)> {
    let mut answers = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let answer = if !metadata.contains(&partition.topic, partition.partition) {
            absent(ErrorCode::UnknownTopicOrPartition)
        } else {
            match consumer_offset_znodes::load(tree, group_id, &partition).await {
                Ok(Some(Offset(committed_offset))) => OffsetFetchResponsePartition {
                    committed_offset,
                    ..absent(ErrorCode::None)
                },
                // The oldest clients are told in an error that there is nothing.
                Ok(None) => absent(ErrorCode::UnknownTopicOrPartition),
                Err(error) => absent(error),
            }
        };
        answers.push((partition, answer));
    }
    answers
}

fn fetched(offset: FetchedOffset) -> OffsetFetchResponsePartition<'static> {
    match offset {
        FetchedOffset::Committed(value) => OffsetFetchResponsePartition {
            committed_offset: value.offset.get(),
            committed_leader_epoch: value.leader_epoch.unwrap_or(-1),
            metadata: Some(Cow::Owned(value.metadata.into())),
            ..absent(ErrorCode::None)
        },
        FetchedOffset::Absent => absent(ErrorCode::None),
        FetchedOffset::Unstable => absent(ErrorCode::UnstableOffsetCommit),
    }
}

fn absent(error: ErrorCode) -> OffsetFetchResponsePartition<'static> {
    OffsetFetchResponsePartition {
        committed_offset: -1,
        metadata: Some(Cow::Borrowed("")),
        error_code: error.code(),
        ..OffsetFetchResponsePartition::default()
    }
}

fn response(
    answers: impl IntoIterator<Item = (TopicPartition, OffsetFetchResponsePartition<'static>)>,
) -> OffsetFetchResponse<'static> {
    let topics = group_error::by_topic(answers)
        .into_iter()
        .map(|(name, partitions)| OffsetFetchResponseTopic {
            name: Cow::Owned(name.to_string()),
            partitions: partitions
                .into_iter()
                .map(|(partition_index, answer)| OffsetFetchResponsePartition {
                    partition_index,
                    ..answer
                })
                .collect(),
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        ..OffsetFetchResponse::default()
    }
}
