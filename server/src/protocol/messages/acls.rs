//! `DescribeAcls` (key 29), `CreateAcls` (30), `DeleteAcls` (31): who may do what.
//!
//! All three: 1 adds the pattern type of resource names (KIP-290), which in version 0 is always literal; 2 is
//! flexible.
//!
//! Numbers: a resource type is 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token; a pattern
//! type 2 match, 3 literal, 4 prefixed; an operation 2 all, 3 read, 4 write, 5 create, 6 delete, 7 alter, 8
//! describe, 9 cluster action, 10 describe configs, 11 alter configs, 12 idempotent write; a permission type
//! 2 deny, 3 allow. Everywhere 0 is unknown and, in filters, 1 is any. Sources: the six definitions of those
//! names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for the entries that match a filter; null matches everything.
    pub struct DescribeAclsRequest<'a> (DescribeAcls, versions 0..=2, flexible 2..) {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<Cow<'a, str>> [0..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<Cow<'a, str>> [0..],
        host_filter: Option<Cow<'a, str>> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

message! {
    /// Brings the entries.
    pub struct DescribeAclsResponse<'a> (DescribeAcls, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        resources: Array<'a, DescribeAclsResource<'a>> [0..],
    }

    /// Entries of one resource.
    pub struct DescribeAclsResource<'a> {
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        pattern_type: i8 [1..] = 3,
        acls: Array<'a, AclDescription<'a>> [0..],
    }

    /// One entry.
    pub struct AclDescription<'a> {
        /// Type and name: `User:alice`.
        principal: Cow<'a, str> [0..],
        host: Cow<'a, str> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

message! {
    /// Asks for new entries.
    pub struct CreateAclsRequest<'a> (CreateAcls, versions 0..=2, flexible 2..) {
        creations: Array<'a, AclCreation<'a>> [0..],
    }

    /// One new entry.
    pub struct AclCreation<'a> {
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        resource_pattern_type: i8 [1..] = 3,
        principal: Cow<'a, str> [0..],
        host: Cow<'a, str> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

message! {
    /// Says which entries there are now.
    pub struct CreateAclsResponse<'a> (CreateAcls, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        /// As asked, in that order.
        results: Array<'a, AclCreationResult<'a>> [0..],
    }

    /// Result for one entry.
    pub struct AclCreationResult<'a> {
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Asks to delete the entries that match filters.
    pub struct DeleteAclsRequest<'a> (DeleteAcls, versions 0..=2, flexible 2..) {
        filters: Array<'a, DeleteAclsFilter<'a>> [0..],
    }

    /// One filter; null matches everything.
    pub struct DeleteAclsFilter<'a> {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<Cow<'a, str>> [0..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<Cow<'a, str>> [0..],
        host_filter: Option<Cow<'a, str>> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

message! {
    /// Says which entries are gone.
    pub struct DeleteAclsResponse<'a> (DeleteAcls, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        /// As asked, in that order.
        filter_results: Array<'a, DeleteAclsFilterResult<'a>> [0..],
    }

    /// Result for one filter.
    pub struct DeleteAclsFilterResult<'a> {
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        matching_acls: Array<'a, DeleteAclsMatchingAcl<'a>> [0..],
    }

    /// One entry that matched.
    pub struct DeleteAclsMatchingAcl<'a> {
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        pattern_type: i8 [1..] = 3,
        principal: Cow<'a, str> [0..],
        host: Cow<'a, str> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}
