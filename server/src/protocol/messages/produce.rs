//! `Produce` (key 0): append record batches to partitions.
//!
//! Versions of the request:
//! - 0 to 2 differ only in the message format that the sender may use (v0 and v1 messages; from 2 on with
//!   timestamps);
//! - 3 adds the transactional id and demands exactly one batch of format v2 per partition (KIP-98);
//! - 4 says that the client knows KAFKA_STORAGE_ERROR; 5 and 6 change only the response;
//! - 7 allows zstd (KIP-110); 8 changes only the response.
//!
//! Versions of the response:
//! - 1 adds the throttle time; 2 the timestamp that the broker gave when the topic has log append time;
//! - 5 adds the log start offset, from which a producer tells a deleted record from a lost one;
//! - 8 names the records that were refused, and why (KIP-467).
//!
//! No version is flexible. Sources: `ProduceRequest.json`, `ProduceResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to append records. With `acks` 0 there is no response.
    pub struct ProduceRequest<'a> (Produce, versions 0..=8) {
        /// Of a transactional producer; null for all others.
        transactional_id: Option<Cow<'a, str>> [3..],
        /// 0: no answer; 1: the leader has appended; −1: all in-sync replicas have.
        acks: i16 [0..],
        /// How long to wait for `acks`, in milliseconds.
        timeout_ms: i32 [0..],
        topics: Array<'a, TopicProduceData<'a>> [0..],
    }

    /// Records for one topic.
    pub struct TopicProduceData<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, PartitionProduceData<'a>> [0..],
    }

    /// Records for one partition.
    pub struct PartitionProduceData<'a> {
        partition_index: i32 [0..],
        /// Record batches (from version 3 on exactly one), unchecked.
        records: Option<Cow<'a, [u8]>> [0..],
    }
}

message! {
    /// Says where the records were appended.
    pub struct ProduceResponse<'a> (Produce, versions 0..=8) {
        responses: Array<'a, TopicProduceResponse<'a>> [0..],
        throttle_time_ms: i32 [1.., ignorable],
    }

    /// Results for one topic.
    pub struct TopicProduceResponse<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, PartitionProduceResponse<'a>> [0..],
    }

    /// Result for one partition.
    pub struct PartitionProduceResponse<'a> {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        /// Offset given to the first record; −1 after an error.
        base_offset: i64 [0..],
        /// When the broker appended, in milliseconds since 1970, if the topic has log append time; else −1.
        log_append_time_ms: i64 [2.., ignorable] = -1,
        /// First offset of the partition that is still readable.
        log_start_offset: i64 [5.., ignorable] = -1,
        /// The records because of which the batch was refused.
        record_errors: Array<'a, BatchIndexAndErrorMessage<'a>> [8.., ignorable],
        /// Why the batch was refused, in words common to all its records.
        error_message: Option<Cow<'a, str>> [8.., ignorable],
    }

    /// One record that was refused.
    pub struct BatchIndexAndErrorMessage<'a> {
        /// Position of the record in its batch, from 0.
        batch_index: i32 [8..],
        batch_index_error_message: Option<Cow<'a, str>> [8..],
    }
}
