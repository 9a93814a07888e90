//! Heartbeat (key 12): says that a member is alive, and learns whether it has to join again.
//!
//! Version 1 has the throttle time, 3 static members, 4 is flexible. Source: `KafkaApis.handleHeartbeatRequest`.

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::Heartbeat;
use crate::protocol::messages::group_membership::{HeartbeatRequest, HeartbeatResponse};

pub async fn handle(groups: &GroupCoordinator, request: &HeartbeatRequest<'_>) -> HeartbeatResponse {
    let result = groups
        .heartbeat(Heartbeat {
            group_id: request.group_id.as_ref().into(),
            member_id: request.member_id.as_ref().into(),
            group_instance_id: request.group_instance_id.as_deref().map(Into::into),
            generation_id: request.generation_id,
        })
        .await;
    HeartbeatResponse {
        error_code: group_error::code(result),
        ..HeartbeatResponse::default()
    }
}
