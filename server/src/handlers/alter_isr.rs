//! AlterIsr (key 56): a leader asks the controller to change who is in sync. Answered by the controller alone.
//!
//! Source: `KafkaApis.handleAlterIsrRequest`, `KafkaController.alterIsrs`.

use std::borrow::Cow;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::controller_error::by_topic;
use crate::cluster::LeaderAndIsr;
use crate::controller::Controller;
use crate::controller::request::ControllerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::alter_isr::{
    AlterIsrPartitionResult, AlterIsrRequest, AlterIsrResponse, AlterIsrTopicResult,
};

pub async fn handle(controller: &Controller, request: &AlterIsrRequest<'_>) -> AlterIsrResponse<'static> {
    let mut proposals = Vec::new();
    for topic in request.topics.iter() {
        for partition in topic.partitions.iter() {
            let at = TopicPartition::new(&*topic.name, partition.partition_index);
            let proposed = LeaderAndIsr {
                leader: Some(request.broker_id),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                isr: partition.new_isr.iter().collect(),
                zk_version: partition.current_isr_version,
            };
            proposals.push((at, proposed));
        }
    }
    let answer = controller
        .alter_isr(request.broker_id, request.broker_epoch, proposals)
        .await;
    let results = match answer {
        Ok(results) => results,
        Err(error) => {
            return AlterIsrResponse {
                error_code: ErrorCode::from(error.kind).code(),
                ..AlterIsrResponse::default()
            };
        }
    };
    let partition = |(partition_index, result): (i32, Result<LeaderAndIsr, ControllerError>)| match result {
        Ok(LeaderAndIsr {
            leader,
            leader_epoch,
            isr,
            zk_version,
        }) => AlterIsrPartitionResult {
            partition_index,
            error_code: ErrorCode::None.code(),
            leader_id: leader.unwrap_or(-1),
            leader_epoch: leader_epoch.get(),
            isr: isr.to_vec().into(),
            current_isr_version: zk_version,
        },
        Err(error) => AlterIsrPartitionResult {
            partition_index,
            error_code: ErrorCode::from(error.kind).code(),
            ..AlterIsrPartitionResult::default()
        },
    };
    let topics = by_topic(results)
        .into_iter()
        .map(|(name, partitions)| AlterIsrTopicResult {
            name: Cow::Owned(name),
            partitions: partitions.into_iter().map(partition).collect::<Vec<_>>().into(),
        });
    AlterIsrResponse {
        topics: topics.collect::<Vec<_>>().into(),
        ..AlterIsrResponse::default()
    }
}
