//! `WriteTxnMarkers` (key 27): a transaction coordinator tells leaders how a transaction ended (KIP-98).
//!
//! Sources: `WriteTxnMarkersRequest.json`, `WriteTxnMarkersResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to write markers.
    pub struct WriteTxnMarkersRequest<'a> (WriteTxnMarkers, versions 0..=0) {
        markers: Array<'a, WritableTxnMarker<'a>> [0..],
    }

    /// The end of one transaction.
    pub struct WritableTxnMarker<'a> {
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        /// Whether it was committed.
        transaction_result: bool [0..],
        topics: Array<'a, WritableTxnMarkerTopic<'a>> [0..],
        /// Leader epoch of the coordinator's partition of `__transaction_state`.
        coordinator_epoch: i32 [0..],
    }

    /// Partitions of one topic.
    pub struct WritableTxnMarkerTopic<'a> {
        name: Cow<'a, str> [0..],
        partition_indexes: Array<'a, i32> [0..],
    }
}

message! {
    /// Says where the markers are written.
    pub struct WriteTxnMarkersResponse<'a> (WriteTxnMarkers, versions 0..=0) {
        markers: Array<'a, WritableTxnMarkerResult<'a>> [0..],
    }

    /// Results for one transaction.
    pub struct WritableTxnMarkerResult<'a> {
        producer_id: i64 [0..],
        topics: Array<'a, WritableTxnMarkerTopicResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct WritableTxnMarkerTopicResult<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, WritableTxnMarkerPartitionResult> [0..],
    }

    /// Result for one partition.
    pub struct WritableTxnMarkerPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
