//! `OffsetCommit` (key 8), `OffsetFetch` (9), `OffsetDelete` (47): how far a group has come.
//!
//! `OffsetCommit`: 0 keeps offsets in ZooKeeper in 2.7.2, the others in the group's log; 1 adds generation,
//! member and, in this version alone, a timestamp per partition; 2 has in its place one retention time for
//! all; 3 adds the throttle time; 4 changes nothing; 5 drops the retention time, which is now the broker's
//! affair (KIP-211); 6 adds the leader epoch (KIP-320); 7 static members (KIP-345); 8 is flexible.
//!
//! `OffsetFetch`: 0 reads what `OffsetCommit` 0 has kept, the others what the others have; 2 lets the topics
//! be null, which means all, and adds a top-level error; 3 adds the throttle time; 4 changes nothing; 5 adds
//! the leader epoch; 6 is flexible; 7 can insist on offsets that no open transaction is about to change
//! (KIP-447).
//!
//! `OffsetDelete` has version 0 only, and is not flexible (KIP-496).
//!
//! Sources: the six definitions of those names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to remember offsets.
    pub struct OffsetCommitRequest<'a> (OffsetCommit, versions 0..=8, flexible 8..) {
        group_id: Cow<'a, str> [0..],
        /// −1 from a consumer that assigns itself its partitions.
        generation_id: i32 [1.., ignorable] = -1,
        /// Empty from a consumer that assigns itself its partitions.
        member_id: Cow<'a, str> [1.., ignorable],
        group_instance_id: Option<Cow<'a, str>> [7..],
        /// How long to keep the offsets, in milliseconds; −1: as the broker is configured.
        retention_time_ms: i64 [2..=4, ignorable] = -1,
        topics: Array<'a, OffsetCommitRequestTopic<'a>> [0..],
    }

    /// Offsets of one topic.
    pub struct OffsetCommitRequestTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetCommitRequestPartition<'a>> [0..],
    }

    /// Offset of one partition.
    pub struct OffsetCommitRequestPartition<'a> {
        partition_index: i32 [0..],
        /// Of the next record to read.
        committed_offset: i64 [0..],
        /// Of the last record read; −1 when unknown.
        committed_leader_epoch: i32 [6.., ignorable] = -1,
        /// Milliseconds since 1970; −1: now.
        commit_timestamp: i64 [1..=1] = -1,
        /// Whatever the consumer likes to keep beside it.
        committed_metadata: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Says which offsets are remembered.
    pub struct OffsetCommitResponse<'a> (OffsetCommit, versions 0..=8, flexible 8..) {
        throttle_time_ms: i32 [3.., ignorable],
        topics: Array<'a, OffsetCommitResponseTopic<'a>> [0..],
    }

    /// Results for one topic.
    pub struct OffsetCommitResponseTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetCommitResponsePartition> [0..],
    }

    /// Result for one partition.
    pub struct OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

message! {
    /// Asks for the offsets of a group.
    pub struct OffsetFetchRequest<'a> (OffsetFetch, versions 0..=7, flexible 6..) {
        group_id: Cow<'a, str> [0..],
        /// Null for all that the group has.
        topics: Option<Array<'a, OffsetFetchRequestTopic<'a>>> [0.., nullable 2..],
        /// Whether to refuse offsets that an open transaction may change.
        require_stable: bool [7..],
    }

    /// Partitions of one topic.
    pub struct OffsetFetchRequestTopic<'a> {
        name: Cow<'a, str> [0..],
        partition_indexes: Array<'a, i32> [0..],
    }
}

message! {
    /// Brings the offsets of a group.
    pub struct OffsetFetchResponse<'a> (OffsetFetch, versions 0..=7, flexible 6..) {
        throttle_time_ms: i32 [3.., ignorable],
        topics: Array<'a, OffsetFetchResponseTopic<'a>> [0..],
        /// Before version 2 each partition has it instead.
        error_code: i16 [2.., ignorable],
    }

    /// Offsets of one topic.
    pub struct OffsetFetchResponseTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetFetchResponsePartition<'a>> [0..],
    }

    /// Offset of one partition.
    pub struct OffsetFetchResponsePartition<'a> {
        partition_index: i32 [0..],
        /// Of the next record to read; −1 when the group has none here.
        committed_offset: i64 [0..],
        /// −1 when unknown.
        committed_leader_epoch: i32 [5.., ignorable] = -1,
        /// What the consumer kept beside it; empty when there is no offset.
        metadata: Option<Cow<'a, str>> [0..],
        error_code: i16 [0..],
    }
}

message! {
    /// Asks to forget offsets of a group.
    pub struct OffsetDeleteRequest<'a> (OffsetDelete, versions 0..=0) {
        group_id: Cow<'a, str> [0..],
        topics: Array<'a, OffsetDeleteRequestTopic<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct OffsetDeleteRequestTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetDeleteRequestPartition> [0..],
    }

    /// One partition.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }
}

message! {
    /// Says which offsets are forgotten.
    pub struct OffsetDeleteResponse<'a> (OffsetDelete, versions 0..=0) {
        error_code: i16 [0..],
        throttle_time_ms: i32 [0.., ignorable],
        topics: Array<'a, OffsetDeleteResponseTopic<'a>> [0..],
    }

    /// Results for one topic.
    pub struct OffsetDeleteResponseTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetDeleteResponsePartition> [0..],
    }

    /// Result for one partition.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
