//! `DeleteRecords` (key 21): forget the beginnings of partitions.
//!
//! Version 1 changes nothing; 2 is flexible. Sources: `DeleteRecordsRequest.json`,
//! `DeleteRecordsResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to move the start of partitions forward.
    pub struct DeleteRecordsRequest<'a> (DeleteRecords, versions 0..=2, flexible 2..) {
        topics: Array<'a, DeleteRecordsTopic<'a>> [0..],
        /// How long to wait for the replicas, in milliseconds.
        timeout_ms: i32 [0..],
    }

    /// Partitions of one topic.
    pub struct DeleteRecordsTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, DeleteRecordsPartition> [0..],
    }

    /// One partition.
    pub struct DeleteRecordsPartition {
        partition_index: i32 [0..],
        /// First offset to keep; −1: the high watermark.
        offset: i64 [0..],
    }
}

message! {
    /// Says where partitions begin now.
    pub struct DeleteRecordsResponse<'a> (DeleteRecords, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        topics: Array<'a, DeleteRecordsTopicResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct DeleteRecordsTopicResult<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, DeleteRecordsPartitionResult> [0..],
    }

    /// Result for one partition.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        /// The smallest log start offset among the live replicas; −1 after an error.
        low_watermark: i64 [0..],
        error_code: i16 [0..],
    }
}
