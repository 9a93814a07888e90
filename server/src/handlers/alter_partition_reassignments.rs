//! AlterPartitionReassignments (key 45): replicas move to other brokers, or a move is ended (KIP-455). Answered by the controller
//! alone, as soon as the move has begun.
//!
//! Source: `KafkaApis.handleAlterPartitionReassignmentsRequest`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use milena_engine::units::TopicPartition;

use super::controller_error::{by_topic, code_and_message};
use crate::controller::Controller;
use crate::controller::request::ControllerError;
use crate::protocol::messages::reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartitionResponse,
    ReassignableTopicResponse,
};

pub async fn handle(
    controller: &Controller,
    request: &AlterPartitionReassignmentsRequest<'_>,
) -> AlterPartitionReassignmentsResponse<'static> {
    let mut wanted = BTreeMap::new();
    for topic in request.topics.iter() {
        for partition in topic.partitions.iter() {
            let at = TopicPartition::new(&*topic.name, partition.partition_index);
            let target = partition.replicas.as_ref().map(|ids| ids.iter().collect());
            wanted.insert(at, target);
        }
    }
    let results = match controller.alter_partition_reassignments(wanted).await {
        Ok(results) => results,
        Err(error) => {
            let (error_code, error_message) = code_and_message(Some(error));
            return AlterPartitionReassignmentsResponse {
                error_code,
                error_message,
                ..AlterPartitionReassignmentsResponse::default()
            };
        }
    };
    let partition = |(partition_index, result): (i32, Result<(), ControllerError>)| {
        let (error_code, error_message) = code_and_message(result.err());
        ReassignablePartitionResponse {
            partition_index,
            error_code,
            error_message,
        }
    };
    let topics = by_topic(results)
        .into_iter()
        .map(|(name, partitions)| ReassignableTopicResponse {
            name: Cow::Owned(name),
            partitions: partitions.into_iter().map(partition).collect::<Vec<_>>().into(),
        });
    AlterPartitionReassignmentsResponse {
        responses: topics.collect::<Vec<_>>().into(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}
