//! LeaveGroup (key 13): takes members out of a group.
//!
//! Up to version 2 one member leaves and its error is that of the answer; from 3 on a batch leaves, each with an error of its own
//! (KIP-345); 4 is flexible. Source: `KafkaApis.handleLeaveGroupRequest`, `LeaveGroupResponse.java`.

use std::borrow::Cow;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::{LeaveGroup, MemberIdentity};
use crate::protocol::messages::group_membership::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};

pub async fn handle(
    groups: &GroupCoordinator,
    version: i16,
    request: &LeaveGroupRequest<'_>,
) -> LeaveGroupResponse<'static> {
    let members: Vec<MemberIdentity> = if version <= 2 {
        vec![MemberIdentity {
            member_id: request.member_id.as_ref().into(),
            group_instance_id: None,
        }]
    } else {
        let member =
            |member: crate::protocol::messages::group_membership::MemberIdentity<'_>| MemberIdentity {
                member_id: member.member_id.as_ref().into(),
                group_instance_id: member.group_instance_id.as_deref().map(Into::into),
            };
        request.members.iter().map(member).collect()
    };
    let group_id = request.group_id.as_ref().into();
    let results = match groups
        .leave_group(LeaveGroup {
            group_id,
            members: members.clone(),
        })
        .await
    {
        Ok(results) => results,
        Err(error) => {
            let error_code = group_error::code(Err(error));
            return LeaveGroupResponse {
                error_code,
                ..LeaveGroupResponse::default()
            };
        }
    };
    if version <= 2 {
        let result = results.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        return LeaveGroupResponse {
            error_code: group_error::code(result),
            ..LeaveGroupResponse::default()
        };
    }
    let members = members
        .into_iter()
        .zip(results)
        .map(|(member, result)| MemberResponse {
            member_id: Cow::Owned(member.member_id.to_string()),
            group_instance_id: member.group_instance_id.map(|id| Cow::Owned(id.to_string())),
            error_code: group_error::code(result),
        });
    LeaveGroupResponse {
        members: members.collect(),
        ..LeaveGroupResponse::default()
    }
}
