//! `AlterIsr` (key 56): a leader asks the controller to change who is in sync (KIP-497).
//!
//! Sources: `AlterIsrRequest.json`, `AlterIsrResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Proposes in-sync sets.
    pub struct AlterIsrRequest<'a> (AlterIsr, versions 0..=0, flexible 0..) {
        /// Of the leader that asks.
        broker_id: i32 [0..],
        broker_epoch: i64 [0..] = -1,
        topics: Array<'a, AlterIsrTopic<'a>> [0..],
    }

    /// Proposals for one topic.
    pub struct AlterIsrTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, AlterIsrPartition<'a>> [0..],
    }

    /// A proposal for one partition.
    pub struct AlterIsrPartition<'a> {
        partition_index: i32 [0..],
        /// Of the leader that asks.
        leader_epoch: i32 [0..],
        /// Broker ids.
        new_isr: Array<'a, i32> [0..],
        /// Version of the state in ZooKeeper that the proposal replaces.
        current_isr_version: i32 [0..],
    }
}

message! {
    /// Brings what holds now.
    pub struct AlterIsrResponse<'a> (AlterIsr, versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        topics: Array<'a, AlterIsrTopicResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct AlterIsrTopicResult<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, AlterIsrPartitionResult<'a>> [0..],
    }

    /// Result for one partition.
    pub struct AlterIsrPartitionResult<'a> {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        /// Broker id.
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
        /// Broker ids.
        isr: Array<'a, i32> [0..],
        /// Version of the state in ZooKeeper.
        current_isr_version: i32 [0..],
    }
}
