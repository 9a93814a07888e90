//! ControlledShutdown (key 7): a broker hands its leaderships over before it stops. Answered by the controller alone.
//!
//! Brokers of old do not know their epoch: below version 2 it is −1. Source: `KafkaApis.handleControlledShutdownRequest`.

use std::borrow::Cow;

use crate::controller::Controller;
use crate::controller::request::ControllerErrorKind;
use crate::protocol::ErrorCode;
use crate::protocol::messages::controller_commands::{
    ControlledShutdownRequest, ControlledShutdownResponse, RemainingPartition,
};

pub async fn handle(
    controller: &Controller,
    request: &ControlledShutdownRequest,
) -> ControlledShutdownResponse<'static> {
    let broker_epoch = Some(request.broker_epoch).filter(|epoch| *epoch != -1);
    match controller
        .controlled_shutdown(request.broker_id, broker_epoch)
        .await
    {
        Ok(remaining) => {
            let remaining = remaining.into_iter().map(|at| RemainingPartition {
                topic_name: Cow::Owned(at.topic.to_string()),
                partition_index: at.partition,
            });
            ControlledShutdownResponse {
                error_code: ErrorCode::None.code(),
                remaining_partitions: remaining.collect::<Vec<_>>().into(),
            }
        }
        Err(error) => {
            let code = match error.kind {
                // Kafka's word for it here: the controller has moved.
                ControllerErrorKind::NotController => ErrorCode::StaleControllerEpoch,
                kind => kind.into(),
            };
            ControlledShutdownResponse {
                error_code: code.code(),
                ..ControlledShutdownResponse::default()
            }
        }
    }
}
