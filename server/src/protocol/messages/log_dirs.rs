//! `DescribeLogDirs` (key 35): which partition lies in which directory, and how large it is (KIP-113).
//!
//! Version 1 changes nothing; 2 is flexible. Sources: `DescribeLogDirsRequest.json`,
//! `DescribeLogDirsResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

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
