//! `OffsetForLeaderEpoch` (key 23): where does an epoch end in the leader's log? Asked by followers before
//! they truncate, and by consumers that have seen a change of leader.
//!
//! Versions of the request: 1 changes nothing; 2 adds the leader epoch that the asker believes in (KIP-320);
//! 3 adds its broker id. Versions of the response: 1 adds the epoch found, 2 the throttle time. None is
//! flexible.
//!
//! Sources: `OffsetForLeaderEpochRequest.json`, `OffsetForLeaderEpochResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for the ends of epochs.
    pub struct OffsetForLeaderEpochRequest<'a> (OffsetForLeaderEpoch, versions 0..=3) {
        /// Broker id of a follower; −1 for a consumer; −2 when it does not say, which is a follower too.
        replica_id: i32 [3.., ignorable] = -2,
        topics: Array<'a, OffsetForLeaderTopic<'a>> [0..],
    }

    /// Questions about one topic.
    pub struct OffsetForLeaderTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetForLeaderPartition> [0..],
    }

    /// A question about one partition.
    pub struct OffsetForLeaderPartition {
        partition_index: i32 [0..],
        /// Epoch of the leader that the asker believes in; −1 when it does not say.
        current_leader_epoch: i32 [2.., ignorable] = -1,
        /// The epoch whose end is wanted.
        leader_epoch: i32 [0..],
    }
}

message! {
    /// Brings the ends of epochs.
    pub struct OffsetForLeaderEpochResponse<'a> (OffsetForLeaderEpoch, versions 0..=3) {
        throttle_time_ms: i32 [2.., ignorable],
        topics: Array<'a, OffsetForLeaderTopicResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct OffsetForLeaderTopicResult<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OffsetForLeaderPartitionResult> [0..],
    }

    /// Result for one partition.
    pub struct OffsetForLeaderPartitionResult {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        /// The largest epoch not above the one asked for; −1 when there is none.
        leader_epoch: i32 [1.., ignorable] = -1,
        /// Its end, exclusive; −1 when unknown.
        end_offset: i64 [0..],
    }
}
