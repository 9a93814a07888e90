//! `DescribeGroups` (key 15), `ListGroups` (16), `DeleteGroups` (42): groups, seen by an administrator.
//!
//! `DescribeGroups`: 1 adds the throttle time; 2 changes nothing; 3 adds the authorized operations (KIP-430);
//! 4 the instance ids of static members (KIP-345); 5 is flexible.
//!
//! `ListGroups`: 1 adds the throttle time; 2 changes nothing; 3 is flexible; 4 filters by state and tells it
//! (KIP-518).
//!
//! `DeleteGroups`: 1 changes nothing; 2 is flexible.
//!
//! Sources: the six definitions of those names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks what groups are doing.
    pub struct DescribeGroupsRequest<'a> (DescribeGroups, versions 0..=5, flexible 5..) {
        /// Group ids.
        groups: Array<'a, Cow<'a, str>> [0..],
        include_authorized_operations: bool [3..],
    }
}

message! {
    /// Says what groups are doing.
    pub struct DescribeGroupsResponse<'a> (DescribeGroups, versions 0..=5, flexible 5..) {
        throttle_time_ms: i32 [1.., ignorable],
        groups: Array<'a, DescribedGroup<'a>> [0..],
    }

    /// One group.
    pub struct DescribedGroup<'a> {
        error_code: i16 [0..],
        group_id: Cow<'a, str> [0..],
        /// `PreparingRebalance`, `CompletingRebalance`, `Stable`, `Empty` or `Dead`; empty after an error.
        group_state: Cow<'a, str> [0..],
        /// Empty when there are no members.
        protocol_type: Cow<'a, str> [0..],
        /// The protocol in use; empty unless the group is stable.
        protocol_data: Cow<'a, str> [0..],
        members: Array<'a, DescribedGroupMember<'a>> [0..],
        authorized_operations: i32 [3..] = i32::MIN,
    }

    /// One member.
    pub struct DescribedGroupMember<'a> {
        member_id: Cow<'a, str> [0..],
        group_instance_id: Option<Cow<'a, str>> [4.., ignorable],
        client_id: Cow<'a, str> [0..],
        /// Address of the member, after a slash.
        client_host: Cow<'a, str> [0..],
        /// What it said when it joined; opaque to the broker.
        member_metadata: Cow<'a, [u8]> [0..],
        /// What the leader gave it; opaque to the broker.
        member_assignment: Cow<'a, [u8]> [0..],
    }
}

message! {
    /// Asks which groups this broker coordinates.
    pub struct ListGroupsRequest<'a> (ListGroups, versions 0..=4, flexible 3..) {
        /// Names of states; empty for all.
        states_filter: Array<'a, Cow<'a, str>> [4..],
    }
}

message! {
    /// Lists groups.
    pub struct ListGroupsResponse<'a> (ListGroups, versions 0..=4, flexible 3..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [0..],
        groups: Array<'a, ListedGroup<'a>> [0..],
    }

    /// One group.
    pub struct ListedGroup<'a> {
        group_id: Cow<'a, str> [0..],
        protocol_type: Cow<'a, str> [0..],
        group_state: Cow<'a, str> [4.., ignorable],
    }
}

message! {
    /// Asks to delete groups with all their offsets.
    pub struct DeleteGroupsRequest<'a> (DeleteGroups, versions 0..=2, flexible 2..) {
        /// Group ids.
        groups_names: Array<'a, Cow<'a, str>> [0..],
    }
}

message! {
    /// Says which groups are gone.
    pub struct DeleteGroupsResponse<'a> (DeleteGroups, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        results: Array<'a, DeletableGroupResult<'a>> [0..],
    }

    /// Result for one group.
    pub struct DeletableGroupResult<'a> {
        group_id: Cow<'a, str> [0..],
        error_code: i16 [0..],
    }
}
