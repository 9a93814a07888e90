//! JoinGroup (key 11): becomes or stays a member; the answer comes with the new generation.
//!
//! Version 1 brings the rebalance timeout (before, the session timeout counts for both); 4 sends new members away once with
//! their id (KIP-394); 5 has static members (KIP-345); 6 is flexible; 7 tells the protocol type and a null protocol (KIP-559).
//! Source: `KafkaApis.handleJoinGroupRequest`.

use std::borrow::Cow;

use bytes::Bytes;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::{JoinGroup, JoinedGroup, JoinedMember, Protocol};
use crate::protocol::messages::group_membership::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};

/// Answers once the rebalance is done. `client_host` is as Kafka shows it, `/127.0.0.1`.
pub async fn handle(
    groups: &GroupCoordinator,
    version: i16,
    client_id: &str,
    client_host: &str,
    request: &JoinGroupRequest<'_>,
) -> JoinGroupResponse<'static> {
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.as_ref().into(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    let rebalance_timeout_ms = if version == 0 {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    };
    let joined = groups
        .join_group(JoinGroup {
            group_id: request.group_id.as_ref().into(),
            member_id: request.member_id.as_ref().into(),
            group_instance_id: request.group_instance_id.as_deref().map(Into::into),
            require_known_member_id: version >= 4 && request.group_instance_id.is_none(),
            client_id: client_id.into(),
            client_host: client_host.into(),
            rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocol_type: request.protocol_type.as_ref().into(),
            protocols: protocols.collect(),
        })
        .await;
    match joined {
        Ok(joined) => response(version, joined),
        Err(refusal) => JoinGroupResponse {
            error_code: group_error::code(Err(refusal.error)),
            protocol_name: protocol_name(version, None),
            member_id: Cow::Owned(refusal.member_id.to_string()),
            ..JoinGroupResponse::default()
        },
    }
}

fn response(version: i16, joined: JoinedGroup) -> JoinGroupResponse<'static> {
    let member = |member: JoinedMember| JoinGroupResponseMember {
        member_id: Cow::Owned(member.member_id.to_string()),
        // A leader that is too old to know static members still has to assign them partitions.
        group_instance_id: member
            .group_instance_id
            .filter(|_| version >= 5)
            .map(|id| Cow::Owned(id.to_string())),
        metadata: Cow::Owned(member.metadata.to_vec()),
    };
    JoinGroupResponse {
        generation_id: joined.generation_id,
        protocol_type: joined.protocol_type.map(|name| Cow::Owned(name.to_string())),
        protocol_name: protocol_name(version, joined.protocol_name.as_deref()),
        leader: Cow::Owned(joined.leader_id.to_string()),
        member_id: Cow::Owned(joined.member_id.to_string()),
        members: joined.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

/// Null is for version 7 and later; older ones know the empty string.
fn protocol_name(version: i16, name: Option<&str>) -> Option<Cow<'static, str>> {
    match name {
        Some(name) => Some(Cow::Owned(name.to_owned())),
        None if version >= 7 => None,
        None => Some(Cow::Borrowed("")),
    }
}
