//! DescribeGroups (key 15): what groups are doing.
//!
//! Version 3 may ask for the operations one is allowed (KIP-430), 4 has static members, 5 is flexible. A group that
//! does not exist is described as `Dead`, without an error. Source: `KafkaApis.handleDescribeGroupRequest`.

use std::borrow::Cow;
use std::sync::Arc;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::MemberSummary;
use crate::protocol::messages::groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

/// Without an authorizer everything that exists for groups is allowed: READ (3), DELETE (6), DESCRIBE (8), one bit each.
const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

pub fn handle(
    groups: &GroupCoordinator,
    version: i16,
    request: &DescribeGroupsRequest<'_>,
) -> DescribeGroupsResponse<'static> {
    let describe = |group_id: Cow<'_, str>| {
        let group_id_of_answer = Cow::Owned(group_id.to_string());
        match groups.describe_group(&group_id) {
            Err(error) => DescribedGroup {
                error_code: group_error::code(Err(error)),
                group_id: group_id_of_answer,
                ..DescribedGroup::default()
            },
            Ok(summary) => DescribedGroup {
                group_id: group_id_of_answer,
                group_state: Cow::Borrowed(summary.state.name()),
                protocol_type: owned(&summary.protocol_type),
                protocol_data: owned(&summary.protocol),
                members: summary.members.into_iter().map(member).collect(),
                authorized_operations: if version >= 3 && request.include_authorized_operations {
                    ALL_GROUP_OPERATIONS
                } else {
                    i32::MIN
                },
                ..DescribedGroup::default()
            },
        }
    };
    let groups = request.groups.iter().map(describe).collect();
    DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }
}

fn member(member: MemberSummary) -> DescribedGroupMember<'static> {
    DescribedGroupMember {
        member_id: owned(&member.member_id),
        group_instance_id: member.group_instance_id.as_ref().map(owned),
        client_id: owned(&member.client_id),
        client_host: owned(&member.client_host),
        member_metadata: Cow::Owned(member.metadata.to_vec()),
        member_assignment: Cow::Owned(member.assignment.to_vec()),
    }
}

fn owned(text: &Arc<str>) -> Cow<'static, str> {
    Cow::Owned(text.to_string())
}
