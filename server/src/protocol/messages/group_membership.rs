//! `JoinGroup` (key 11), `Heartbeat` (12), `LeaveGroup` (13), `SyncGroup` (14): the life of a group member.
//!
//! `JoinGroup`: 1 parts the rebalance timeout from the session timeout; 2 adds the throttle time; 3 changes
//! nothing; 4 makes a new member come back with the id it is given (KIP-394); 5 adds static members
//! (KIP-345); 6 is flexible; 7 adds the protocol type to the answer, and lets its protocol be null (KIP-559).
//!
//! `Heartbeat`: 1 adds the throttle time; 2 changes nothing; 3 adds static members; 4 is flexible.
//!
//! `LeaveGroup`: 1 adds the throttle time; 2 changes nothing; 3 lets several members leave at once, each with
//! a result of its own, in place of the one member id; 4 is flexible.
//!
//! `SyncGroup`: 1 adds the throttle time; 2 changes nothing; 3 adds static members; 4 is flexible; 5 adds
//! protocol type and protocol on both sides.
//!
//! Sources: the eight definitions of those names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to become or stay a member.
    pub struct JoinGroupRequest<'a> (JoinGroup, versions 0..=7, flexible 6..) {
        group_id: Cow<'a, str> [0..],
        /// Without a heartbeat for so many milliseconds the member is thrown out.
        session_timeout_ms: i32 [0..],
        /// How long a rebalance waits for the member to join again, in milliseconds; −1: the session timeout.
        rebalance_timeout_ms: i32 [1.., ignorable] = -1,
        /// As the coordinator gave it; empty for a new member.
        member_id: Cow<'a, str> [0..],
        /// Name of a static member; null for a dynamic one.
        group_instance_id: Option<Cow<'a, str>> [5..],
        /// `consumer`, `connect`, ...
        protocol_type: Cow<'a, str> [0..],
        /// What the member is able to follow, the dearest first.
        protocols: Array<'a, JoinGroupRequestProtocol<'a>> [0..],
    }

    /// One protocol.
    pub struct JoinGroupRequestProtocol<'a> {
        name: Cow<'a, str> [0..],
        /// What the leader needs to know of the member; opaque to the broker.
        metadata: Cow<'a, [u8]> [0..],
    }
}

message! {
    /// The new generation.
    pub struct JoinGroupResponse<'a> (JoinGroup, versions 0..=7, flexible 6..) {
        throttle_time_ms: i32 [2.., ignorable],
        error_code: i16 [0..],
        /// −1 after an error.
        generation_id: i32 [0..] = -1,
        protocol_type: Option<Cow<'a, str>> [7.., ignorable],
        /// The protocol that was chosen; before version 7 empty instead of null.
        protocol_name: Option<Cow<'a, str>> [0.., nullable 7..],
        /// Member id of the leader.
        leader: Cow<'a, str> [0..],
        member_id: Cow<'a, str> [0..],
        /// All members for the leader; empty for the others.
        members: Array<'a, JoinGroupResponseMember<'a>> [0..],
    }

    /// One member, as the leader needs to know it.
    pub struct JoinGroupResponseMember<'a> {
        member_id: Cow<'a, str> [0..],
        group_instance_id: Option<Cow<'a, str>> [5..],
        /// What the member said when it joined.
        metadata: Cow<'a, [u8]> [0..],
    }
}

message! {
    /// Says that a member is alive.
    pub struct HeartbeatRequest<'a> (Heartbeat, versions 0..=4, flexible 4..) {
        group_id: Cow<'a, str> [0..],
        generation_id: i32 [0..],
        member_id: Cow<'a, str> [0..],
        group_instance_id: Option<Cow<'a, str>> [3..],
    }
}

message! {
    /// Says whether it is still a member, or has to join again.
    pub struct HeartbeatResponse (Heartbeat, versions 0..=4, flexible 4..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [0..],
    }
}

message! {
    /// Takes members out of a group.
    pub struct LeaveGroupRequest<'a> (LeaveGroup, versions 0..=4, flexible 4..) {
        group_id: Cow<'a, str> [0..],
        /// The one member of the old versions.
        member_id: Cow<'a, str> [0..=2],
        members: Array<'a, MemberIdentity<'a>> [3..],
    }

    /// A member; a static one may be given by its instance id and an empty member id.
    pub struct MemberIdentity<'a> {
        member_id: Cow<'a, str> [3..],
        group_instance_id: Option<Cow<'a, str>> [3..],
    }
}

message! {
    /// Says who has left.
    pub struct LeaveGroupResponse<'a> (LeaveGroup, versions 0..=4, flexible 4..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [0..],
        /// As asked, in that order.
        members: Array<'a, MemberResponse<'a>> [3..],
    }

    /// Result for one member.
    pub struct MemberResponse<'a> {
        member_id: Cow<'a, str> [3..],
        group_instance_id: Option<Cow<'a, str>> [3..],
        error_code: i16 [3..],
    }
}

message! {
    /// Asks for the assignment, and from the leader brings those of all.
    pub struct SyncGroupRequest<'a> (SyncGroup, versions 0..=5, flexible 4..) {
        group_id: Cow<'a, str> [0..],
        generation_id: i32 [0..],
        member_id: Cow<'a, str> [0..],
        group_instance_id: Option<Cow<'a, str>> [3..],
        protocol_type: Option<Cow<'a, str>> [5.., ignorable],
        protocol_name: Option<Cow<'a, str>> [5.., ignorable],
        /// From the leader; empty from the others.
        assignments: Array<'a, SyncGroupRequestAssignment<'a>> [0..],
    }

    /// What one member is to do; opaque to the broker.
    pub struct SyncGroupRequestAssignment<'a> {
        member_id: Cow<'a, str> [0..],
        assignment: Cow<'a, [u8]> [0..],
    }
}

message! {
    /// Brings the member's assignment.
    pub struct SyncGroupResponse<'a> (SyncGroup, versions 0..=5, flexible 4..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [0..],
        protocol_type: Option<Cow<'a, str>> [5.., ignorable],
        protocol_name: Option<Cow<'a, str>> [5.., ignorable],
        assignment: Cow<'a, [u8]> [0..],
    }
}
