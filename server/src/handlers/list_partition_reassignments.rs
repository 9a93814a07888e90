//! ListPartitionReassignments (key 46): the moves that are under way. Answered by the controller alone.
//!
//! Source: `KafkaApis.handleListPartitionReassignmentsRequest`.

use std::borrow::Cow;

use milena_engine::units::TopicPartition;

use super::controller_error::{by_topic, code_and_message};
use crate::controller::Controller;
use crate::coordination::znodes::ReplicaAssignment;
use crate::protocol::messages::reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, OngoingPartitionReassignment,
    OngoingTopicReassignment,
};

pub async fn handle(
    controller: &Controller,
    request: &ListPartitionReassignmentsRequest<'_>,
) -> ListPartitionReassignmentsResponse<'static> {
    let partitions = request.topics.as_ref().map(|topics| {
        let named = topics.iter().flat_map(|topic| {
            let numbers: Vec<i32> = topic.partition_indexes.iter().collect();
            let name = topic.name.into_owned();
            numbers
                .into_iter()
                .map(move |number| TopicPartition::new(name.as_str(), number))
        });
        named.collect()
    });
    let moving = match controller.list_partition_reassignments(partitions).await {
        Ok(moving) => moving,
        Err(error) => {
            let (error_code, error_message) = code_and_message(Some(error));
            return ListPartitionReassignmentsResponse {
                error_code,
                error_message,
                ..ListPartitionReassignmentsResponse::default()
            };
        }
    };
    let partition = |(partition_index, moving): (i32, ReplicaAssignment)| OngoingPartitionReassignment {
        partition_index,
        replicas: moving.replicas.to_vec().into(),
        adding_replicas: moving.adding_replicas.to_vec().into(),
        removing_replicas: moving.removing_replicas.to_vec().into(),
    };
    let topics = by_topic(moving)
        .into_iter()
        .map(|(name, partitions)| OngoingTopicReassignment {
            name: Cow::Owned(name),
            partitions: partitions.into_iter().map(partition).collect::<Vec<_>>().into(),
        });
    ListPartitionReassignmentsResponse {
        topics: topics.collect::<Vec<_>>().into(),
        ..ListPartitionReassignmentsResponse::default()
    }
}
