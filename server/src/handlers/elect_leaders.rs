//! ElectLeaders (key 43): preferred replicas become leaders, or any live one where there is none. Answered by the controller alone.
//!
//! The answer waits until this broker has heard of the new leaders, or the request's time is up. Who asks for all partitions is
//! not told of those that needed no election. Version 0 knows preferred elections only. Source:
//! `KafkaApis.handleElectReplicaLeader`, `DelayedElectLeader`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use milena_engine::units::TopicPartition;

use super::controller_error::{by_topic, code_and_message};
use crate::controller::Controller;
use crate::controller::request::{ControllerErrorKind, ElectionType, PartitionResults};
use crate::metadata_cache::{MetadataCache, MetadataSnapshot};
use crate::protocol::ErrorCode;
use crate::protocol::messages::reassignments::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// # Errors
/// A type of election that nobody knows: the connection is closed, as by 2.7.2.
pub async fn handle(
    controller: &Controller,
    metadata: &MetadataCache,
    request: &ElectLeadersRequest<'_>,
) -> Result<ElectLeadersResponse<'static>, String> {
    let election_type = match request.election_type {
        PREFERRED => ElectionType::Preferred,
        UNCLEAN => ElectionType::Unclean,
        other => return Err(format!("{other} is no type of election")),
    };
    let partitions: BTreeSet<TopicPartition> = match &request.topic_partitions {
        Some(topics) => {
            let named = topics.iter().flat_map(|topic| {
                let ids: Vec<i32> = topic.partition_id.iter().collect();
                let name = topic.topic.into_owned();
                ids.into_iter()
                    .map(move |id| TopicPartition::new(name.as_str(), id))
            });
            named.collect()
        }
        None => all_partitions(&metadata.load()),
    };
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let results = match controller.elect_leaders(partitions.clone(), election_type).await {
        Ok(elected) => {
            // Time is up at the latest when the client gives up; then what was heard counts.
            let _ = tokio::time::timeout(wait, heard(metadata, &elected)).await;
            let now = metadata.load();
            let outcome = |(at, result): (TopicPartition, Result<i32, _>)| {
                let (code, message) = match result {
                    Ok(leader) if is_led(&now, &at, leader) => (ErrorCode::None.code(), None),
                    Ok(_) => (ErrorCode::RequestTimedOut.code(), None),
                    Err(error) => code_and_message(Some(error)),
                };
                (at, (code, message))
            };
            elected.into_iter().map(outcome).collect::<Vec<_>>()
        }
        Err(error) => {
            let code = ErrorCode::from(error.kind).code();
            let refused = partitions.into_iter().map(|at| (at, (code, None)));
            refused.collect()
        }
    };
    let not_needed = ErrorCode::from(ControllerErrorKind::ElectionNotNeeded).code();
    let of_all = request.topic_partitions.is_none();
    let told = results
        .into_iter()
        .filter(|(_, (code, _))| !(of_all && *code == not_needed));
    let topics = by_topic(told).into_iter().map(|(topic, partitions)| {
        let partition =
            |(partition_id, (error_code, error_message)): (i32, (i16, Option<Cow<'static, str>>))| {
                PartitionResult {
                    partition_id,
                    error_code,
                    error_message,
                }
            };
        ReplicaElectionResult {
            topic: Cow::Owned(topic),
            partition_result: partitions.into_iter().map(partition).collect::<Vec<_>>().into(),
        }
    });
    Ok(ElectLeadersResponse {
        replica_election_results: topics.collect::<Vec<_>>().into(),
        ..ElectLeadersResponse::default()
    })
}

fn all_partitions(now: &MetadataSnapshot) -> BTreeSet<TopicPartition> {
    let topics = now.topics();
    let partitions = topics.flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(move |one| TopicPartition::new(&*topic.name, one.partition))
    });
    partitions.collect()
}

fn is_led(now: &MetadataSnapshot, at: &TopicPartition, leader: i32) -> bool {
    let partition = now.partition(&at.topic, at.partition);
    partition.is_some_and(|one| one.leader == Some(leader))
}

/// Waits until this broker has heard of all leaders.
async fn heard(metadata: &MetadataCache, elected: &PartitionResults<i32>) {
    let mut updates = metadata.subscribe();
    let is_heard = |now: &MetadataSnapshot| {
        let mut leaders = elected
            .iter()
            .filter_map(|(at, result)| Some((at, *result.as_ref().ok()?)));
        leaders.all(|(at, leader)| is_led(now, at, leader))
    };
    while !is_heard(&metadata.load()) {
        if updates.changed().await.is_err() {
            return;
        }
    }
}
