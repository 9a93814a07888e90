//! SyncGroup (key 14): brings the leader's assignment and fetches one's own.
//!
//! Version 3 has static members; 4 is flexible; 5 must name protocol type and protocol, which are checked (KIP-559). Source:
//! `KafkaApis.handleSyncGroupRequest`.

use std::borrow::Cow;

use bytes::Bytes;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::{GroupError, SyncGroup};
use crate::protocol::messages::group_membership::{SyncGroupRequest, SyncGroupResponse};

/// Answers once the assignment of the generation is stored.
pub async fn handle(
    groups: &GroupCoordinator,
    version: i16,
    request: &SyncGroupRequest<'_>,
) -> SyncGroupResponse<'static> {
    let lacks_protocol = request.protocol_type.is_none() || request.protocol_name.is_none();
    let synced = if version >= 5 && lacks_protocol {
        Err(GroupError::InconsistentGroupProtocol)
    } else {
        let assignments = request.assignments.iter().map(|assignment| {
            (
                assignment.member_id.as_ref().into(),
                Bytes::copy_from_slice(&assignment.assignment),
            )
        });
        groups
            .sync_group(SyncGroup {
                group_id: request.group_id.as_ref().into(),
                generation_id: request.generation_id,
                member_id: request.member_id.as_ref().into(),
                group_instance_id: request.group_instance_id.as_deref().map(Into::into),
                protocol_type: request.protocol_type.as_deref().map(Into::into),
                protocol_name: request.protocol_name.as_deref().map(Into::into),
                assignments: assignments.collect(),
            })
            .await
    };
    match synced {
        Ok(synced) => SyncGroupResponse {
            protocol_type: synced.protocol_type.map(|name| Cow::Owned(name.to_string())),
            protocol_name: synced.protocol_name.map(|name| Cow::Owned(name.to_string())),
            assignment: Cow::Owned(synced.assignment.to_vec()),
            ..SyncGroupResponse::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: group_error::code(Err(error)),
            ..SyncGroupResponse::default()
        },
    }
}
