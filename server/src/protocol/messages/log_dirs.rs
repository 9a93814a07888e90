//! `AlterReplicaLogDirs` (key 34): move replicas to other directories of this broker; `DescribeLogDirs` (35): which partition lies in
//! which directory, and how large it is (KIP-113).
//!
//! Version 1 changes nothing in either; 2 of DescribeLogDirs is flexible. Sources: `AlterReplicaLogDirsRequest.json`,
//! `DescribeLogDirsRequest.json`, and the responses of the same names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to move replicas.
    pub struct AlterReplicaLogDirsRequest<'a> (AlterReplicaLogDirs, versions 0..=1) {
        dirs: Array<'a, AlterReplicaLogDir<'a>> [0..],
    }

    /// What is to lie in one directory.
    pub struct AlterReplicaLogDir<'a> {
        /// Absolute path.
        path: Cow<'a, str> [0..],
        topics: Array<'a, AlterReplicaLogDirTopic<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct AlterReplicaLogDirTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, i32> [0..],
    }
}

message! {
    /// Says which replicas will move.
    pub struct AlterReplicaLogDirsResponse<'a> (AlterReplicaLogDirs, versions 0..=1) {
        throttle_time_ms: i32 [0..],
        results: Array<'a, AlterReplicaLogDirTopicResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct AlterReplicaLogDirTopicResult<'a> {
        topic_name: Cow<'a, str> [0..],
        partitions: Array<'a, AlterReplicaLogDirPartitionResult> [0..],
    }

    /// Result for one partition.
    pub struct AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

message! {
    /// Asks about partitions on this broker.
    pub struct DescribeLogDirsRequest<'a> (DescribeLogDirs, versions 0..=2, flexible 2..) {
        /// Null for all.
        topics: Option<Array<'a, DescribableLogDirTopic<'a>>> [0..],
    }

    /// Partitions of one topic.
    pub struct DescribableLogDirTopic<'a> {
        topic: Cow<'a, str> [0..],
        /// Several, in spite of its name.
        partition_index: Array<'a, i32> [0..],
    }
}

message! {
    /// Tells what lies where.
    pub struct DescribeLogDirsResponse<'a> (DescribeLogDirs, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        results: Array<'a, DescribeLogDirsResult<'a>> [0..],
    }

    /// One directory.
    pub struct DescribeLogDirsResult<'a> {
        error_code: i16 [0..],
        /// Absolute path.
        log_dir: Cow<'a, str> [0..],
        topics: Array<'a, DescribeLogDirsTopic<'a>> [0..],
    }

    /// What lies there of one topic.
    pub struct DescribeLogDirsTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, DescribeLogDirsPartition> [0..],
    }

    /// What lies there of one partition.
    pub struct DescribeLogDirsPartition {
        partition_index: i32 [0..],
        /// Bytes of its segments.
        partition_size: i64 [0..],
        /// How many offsets it is behind the high watermark, or as a future replica behind the current one.
        offset_lag: i64 [0..],
        /// Whether it is to replace the replica in another directory.
        is_future_key: bool [0..],
    }
}
