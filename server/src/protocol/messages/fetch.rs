//! `Fetch` (key 1): read record batches from partitions, by consumers and by following replicas.
//!
//! Versions of the request:
//! - 0 to 2 differ only in the newest message format that the reader understands;
//! - 3 adds a limit on the whole response; from here on the order of partitions matters (KIP-74);
//! - 4 adds the isolation level and allows format v2 (KIP-98); 5 adds the follower's log start offset; 6
//!   changes nothing;
//! - 7 adds incremental sessions: their id and epoch, and the partitions to forget (KIP-227);
//! - 8 changes nothing; 9 adds the leader epoch that the reader believes in (KIP-320); 10 allows zstd
//!   (KIP-110);
//! - 11 adds the reader's rack (KIP-392);
//! - 12 is flexible, and adds the epoch of the last record fetched, by which a leader notices that logs have
//!   diverged (KIP-595), and the cluster id.
//!
//! Versions of the response: 1 adds the throttle time, 4 the last stable offset and the aborted transactions,
//! 5 the log start offset, 7 the session and a top-level error, 11 the preferred replica, 12 the diverging
//! epoch and the leader.
//!
//! Sources: `FetchRequest.json`, `FetchResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, Payload, message};

message! {
    /// Asks for records.
    pub struct FetchRequest<'a> (Fetch, versions 0..=12, flexible 12..) {
        /// The cluster that the reader means; null when it does not say.
        cluster_id: Option<Cow<'a, str>> [12.., tag 0],
        /// Broker id of a follower; −1 for a consumer, −2 for a debugging consumer.
        replica_id: i32 [0..],
        /// How long to wait for `min_bytes`, in milliseconds.
        max_wait_ms: i32 [0..],
        /// How much there must be before an answer is worth sending.
        min_bytes: i32 [0..],
        /// Most bytes of records in the whole answer; one batch may exceed it.
        max_bytes: i32 [3.., ignorable] = i32::MAX,
        /// 0: read all records; 1: none of transactions that are open or aborted.
        isolation_level: i8 [4.., ignorable],
        /// 0 when there is no session, or a new one is asked for.
        session_id: i32 [7.., ignorable],
        /// −1: no session; 0: a new one; else the number of this request in its session.
        session_epoch: i32 [7.., ignorable] = -1,
        /// In a session: those that are new or changed.
        topics: Array<'a, FetchTopic<'a>> [0..],
        /// Those to take out of the session.
        forgotten_topics_data: Array<'a, ForgottenTopic<'a>> [7..],
        /// Rack of the reader; empty when unknown.
        rack_id: Cow<'a, str> [11.., ignorable],
    }

    /// What to read of one topic.
    pub struct FetchTopic<'a> {
        topic: Cow<'a, str> [0..],
        partitions: Array<'a, FetchPartition> [0..],
    }

    /// What to read of one partition.
    pub struct FetchPartition {
        partition: i32 [0..],
        /// Epoch of the leader that the reader believes in; −1 when it does not say.
        current_leader_epoch: i32 [9.., ignorable] = -1,
        /// First offset to read.
        fetch_offset: i64 [0..],
        /// Epoch of the last record that the follower has; −1 when there is none.
        last_fetched_epoch: i32 [12..] = -1,
        /// First offset of the follower's log; −1 from a consumer.
        log_start_offset: i64 [5.., ignorable] = -1,
        /// Most bytes of records of this partition; one batch may exceed it.
        partition_max_bytes: i32 [0..],
    }

    /// Partitions that leave the session.
    pub struct ForgottenTopic<'a> {
        topic: Cow<'a, str> [7..],
        partitions: Array<'a, i32> [7..],
    }
}

message! {
    /// Brings records.
    pub struct FetchResponse<'a> (Fetch, versions 0..=12, flexible 12..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [7.., ignorable],
        /// 0 when there is no session.
        session_id: i32 [7..],
        /// In a session: those with news.
        responses: Array<'a, FetchableTopicResponse<'a>> [0..],
    }

    /// Records of one topic.
    pub struct FetchableTopicResponse<'a> {
        topic: Cow<'a, str> [0..],
        partition_responses: Array<'a, FetchablePartitionResponse<'a>> [0..],
    }

    /// Records of one partition.
    pub struct FetchablePartitionResponse<'a> {
        partition: i32 [0..],
        error_code: i16 [0..],
        /// First offset that is not yet on all in-sync replicas; −1 after an error.
        high_watermark: i64 [0..],
        /// First offset of the oldest open transaction, or the high watermark; −1 when unknown.
        last_stable_offset: i64 [4.., ignorable] = -1,
        /// First offset that is still readable.
        log_start_offset: i64 [5.., ignorable] = -1,
        /// Where the follower's log and the leader's part, when they do.
        diverging_epoch: EpochEndOffset [12.., tag 0],
        /// The leader, when the reader is mistaken about it.
        current_leader: LeaderIdAndEpoch [12.., tag 1],
        /// Null unless the isolation level is 1.
        aborted_transactions: Option<Array<'a, AbortedTransaction>> [4.., ignorable],
        /// Broker from which the reader had better read; −1 when it is this one.
        preferred_read_replica: i32 [11..] = -1,
        /// Record batches; the last may be cut off.
        record_set: Payload<'a> [0..],
    }

    /// The end of the largest epoch that both logs know.
    pub struct EpochEndOffset {
        epoch: i32 [12..] = -1,
        /// Exclusive.
        end_offset: i64 [12..] = -1,
    }

    /// Who leads, and since which epoch.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 [12..] = -1,
        leader_epoch: i32 [12..] = -1,
    }

    /// A transaction whose records a reader of committed data has to drop.
    pub struct AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
}
