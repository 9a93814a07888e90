//! `ListOffsets` (key 2): offsets by time, and the two ends of a partition.
//!
//! Versions of the request: 0 asks for the first offsets of several segments; 1 for the one record of a time,
//! and drops the number of offsets (KIP-79); 2 adds the isolation level (KIP-98); 3 changes nothing; 4 adds
//! the leader epoch that the reader believes in (KIP-320); 5 says that the reader knows OFFSET_NOT_AVAILABLE.
//!
//! Versions of the response: 0 lists offsets; 1 has one timestamp and one offset; 2 adds the throttle time, 4
//! the leader epoch. None is flexible.
//!
//! The structs are called `ListOffset...`, the API `ListOffsets`, as in Kafka's definitions
//! `ListOffsetRequest.json` and `ListOffsetResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for offsets.
    pub struct ListOffsetRequest<'a> (ListOffsets, versions 0..=5) {
        /// Broker id of a follower; −1 for a consumer, −2 for a debugging consumer.
        replica_id: i32 [0..],
        /// 0: up to the high watermark; 1: up to the last stable offset.
        isolation_level: i8 [2..],
        topics: Array<'a, ListOffsetTopic<'a>> [0..],
    }

    /// Questions about one topic.
    pub struct ListOffsetTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, ListOffsetPartition> [0..],
    }

    /// A question about one partition.
    pub struct ListOffsetPartition {
        partition_index: i32 [0..],
        /// −1 when the reader does not say.
        current_leader_epoch: i32 [4.., ignorable] = -1,
        /// Milliseconds since 1970, for the first record not earlier; −1: the end; −2: the start.
        timestamp: i64 [0..],
        /// Most offsets that version 0 is to list.
        max_num_offsets: i32 [0..=0] = 1,
    }
}

message! {
    /// Brings offsets.
    pub struct ListOffsetResponse<'a> (ListOffsets, versions 0..=5) {
        throttle_time_ms: i32 [2.., ignorable],
        topics: Array<'a, ListOffsetTopicResponse<'a>> [0..],
    }

    /// Offsets of one topic.
    pub struct ListOffsetTopicResponse<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, ListOffsetPartitionResponse<'a>> [0..],
    }

    /// Offset of one partition.
    pub struct ListOffsetPartitionResponse<'a> {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        /// First offsets of segments, the newest first.
        old_style_offsets: Array<'a, i64> [0..=0],
        /// Of the record found, in milliseconds since 1970; −1 for the ends, and when there is none.
        timestamp: i64 [1..] = -1,
        /// −1 when there is none.
        offset: i64 [1..] = -1,
        /// Of the record found; −1 when unknown.
        leader_epoch: i32 [4..] = -1,
    }
}
