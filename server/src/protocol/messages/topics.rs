//! `CreateTopics` (key 19), `DeleteTopics` (20), `CreatePartitions` (37): which topics there are.
//!
//! `CreateTopics`: 1 can merely validate, and adds error messages; 2 adds the throttle time; 3 changes
//! nothing; 4 lets the broker choose the number of partitions and replicas (KIP-464); 5 is flexible, and
//! tells what was created with which settings (KIP-525); 6 says that the client knows
//! THROTTLING_QUOTA_EXCEEDED (KIP-599).
//!
//! `DeleteTopics`: 1 adds the throttle time; 2 changes nothing; 3 says that the client knows
//! TOPIC_DELETION_DISABLED; 4 is flexible; 5 adds error messages, and says that the client knows
//! THROTTLING_QUOTA_EXCEEDED.
//!
//! `CreatePartitions`: 1 changes nothing; 2 is flexible; 3 says that the client knows
//! THROTTLING_QUOTA_EXCEEDED.
//!
//! Sources: the six definitions of those names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for new topics.
    pub struct CreateTopicsRequest<'a> (CreateTopics, versions 0..=6, flexible 5..) {
        topics: Array<'a, CreatableTopic<'a>> [0..],
        /// How long to wait until the topics are there, in milliseconds.
        timeout_ms: i32 [0..] = 60000,
        /// Whether to check the request and create nothing.
        validate_only: bool [1..],
    }

    /// One new topic.
    pub struct CreatableTopic<'a> {
        name: Cow<'a, str> [0..],
        /// −1: as the broker is configured (version 4), or as `assignments` say.
        num_partitions: i32 [0..],
        /// −1: as the broker is configured (version 4), or as `assignments` say.
        replication_factor: i16 [0..],
        /// Which brokers get which partition; empty to leave it to the controller.
        assignments: Array<'a, CreatableReplicaAssignment<'a>> [0..],
        configs: Array<'a, CreateableTopicConfig<'a>> [0..],
    }

    /// The replicas of one partition.
    pub struct CreatableReplicaAssignment<'a> {
        partition_index: i32 [0..],
        /// The preferred leader first.
        broker_ids: Array<'a, i32> [0..],
    }

    /// One setting of the topic.
    pub struct CreateableTopicConfig<'a> {
        name: Cow<'a, str> [0..],
        value: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Says which topics there are now.
    pub struct CreateTopicsResponse<'a> (CreateTopics, versions 0..=6, flexible 5..) {
        throttle_time_ms: i32 [2.., ignorable],
        topics: Array<'a, CreatableTopicResult<'a>> [0..],
    }

    /// Result for one topic.
    pub struct CreatableTopicResult<'a> {
        name: Cow<'a, str> [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [1.., ignorable],
        /// Why the settings are not told.
        topic_config_error_code: i16 [5.., tag 0, ignorable],
        /// −1 when not told.
        num_partitions: i32 [5.., ignorable] = -1,
        /// −1 when not told.
        replication_factor: i16 [5.., ignorable] = -1,
        /// Null when not told.
        configs: Option<Array<'a, CreatableTopicConfigs<'a>>> [5.., ignorable],
    }

    /// One setting of the new topic.
    pub struct CreatableTopicConfigs<'a> {
        name: Cow<'a, str> [5..],
        /// Null when it is sensitive.
        value: Option<Cow<'a, str>> [5..],
        read_only: bool [5..],
        /// Where it comes from: see `DescribeConfigsResourceResult`.
        config_source: i8 [5.., ignorable] = -1,
        is_sensitive: bool [5..],
    }
}

message! {
    /// Asks to delete topics.
    pub struct DeleteTopicsRequest<'a> (DeleteTopics, versions 0..=5, flexible 4..) {
        topic_names: Array<'a, Cow<'a, str>> [0..],
        /// How long to wait until the topics are gone, in milliseconds.
        timeout_ms: i32 [0..],
    }
}

message! {
    /// Says which topics are gone.
    pub struct DeleteTopicsResponse<'a> (DeleteTopics, versions 0..=5, flexible 4..) {
        throttle_time_ms: i32 [1.., ignorable],
        responses: Array<'a, DeletableTopicResult<'a>> [0..],
    }

    /// Result for one topic.
    pub struct DeletableTopicResult<'a> {
        name: Cow<'a, str> [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [5.., ignorable],
    }
}

message! {
    /// Asks for more partitions.
    pub struct CreatePartitionsRequest<'a> (CreatePartitions, versions 0..=3, flexible 2..) {
        topics: Array<'a, CreatePartitionsTopic<'a>> [0..],
        /// How long to wait until the partitions are there, in milliseconds.
        timeout_ms: i32 [0..],
        /// Whether to check the request and create nothing.
        validate_only: bool [0..],
    }

    /// What one topic is to become.
    pub struct CreatePartitionsTopic<'a> {
        name: Cow<'a, str> [0..],
        /// How many partitions it is to have, the old ones included.
        count: i32 [0..],
        /// For each new partition, in order; null to leave it to the controller.
        assignments: Option<Array<'a, CreatePartitionsAssignment<'a>>> [0..],
    }

    /// The replicas of one partition.
    pub struct CreatePartitionsAssignment<'a> {
        /// The preferred leader first.
        broker_ids: Array<'a, i32> [0..],
    }
}

message! {
    /// Says which topics have grown.
    pub struct CreatePartitionsResponse<'a> (CreatePartitions, versions 0..=3, flexible 2..) {
        throttle_time_ms: i32 [0..],
        results: Array<'a, CreatePartitionsTopicResult<'a>> [0..],
    }

    /// Result for one topic.
    pub struct CreatePartitionsTopicResult<'a> {
        name: Cow<'a, str> [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
    }
}
