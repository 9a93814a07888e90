//! `Metadata` (key 3): which brokers there are, and who leads which partition.
//!
//! Versions of the request:
//! - 0 asks for all topics by an empty list; from 1 on null is all and an empty list is none;
//! - 4 lets the client forbid that a missing topic is created;
//! - 8 asks for the operations that the client may do (KIP-430); 9 is flexible; the others change the
//!   response only.
//!
//! Versions of the response:
//! - 1 adds racks, the controller and the mark of internal topics; 2 the cluster id; 3 the throttle time; 4
//!   nothing;
//! - 5 adds the replicas that are offline; 6 nothing; 7 the leader epoch (KIP-320); 8 the authorized
//!   operations;
//! - 9 is flexible.
//!
//! Sources: `MetadataRequest.json`, `MetadataResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks about topics.
    pub struct MetadataRequest<'a> (Metadata, versions 0..=9, flexible 9..) {
        /// Null for all topics; in version 0, where there is no null, empty for all topics.
        topics: Option<Array<'a, MetadataRequestTopic<'a>>> [0.., nullable 1..],
        /// Whether a topic that does not exist may be created, if the broker does that at all.
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..],
        include_topic_authorized_operations: bool [8..],
    }

    /// One topic asked about.
    pub struct MetadataRequestTopic<'a> {
        name: Cow<'a, str> [0..],
    }
}

message! {
    /// The cluster, as the broker knows it.
    pub struct MetadataResponse<'a> (Metadata, versions 0..=9, flexible 9..) {
        throttle_time_ms: i32 [3.., ignorable],
        /// Those that are alive.
        brokers: Array<'a, MetadataResponseBroker<'a>> [0..],
        cluster_id: Option<Cow<'a, str>> [2.., ignorable],
        /// Broker id of the controller; −1 when there is none.
        controller_id: i32 [1.., ignorable] = -1,
        topics: Array<'a, MetadataResponseTopic<'a>> [0..],
        /// A bit for each operation; `i32::MIN` when not asked for.
        cluster_authorized_operations: i32 [8..] = i32::MIN,
    }

    /// One broker, at the listener by which the question came.
    pub struct MetadataResponseBroker<'a> {
        node_id: i32 [0..],
        host: Cow<'a, str> [0..],
        port: i32 [0..],
        rack: Option<Cow<'a, str>> [1.., ignorable],
    }

    /// One topic.
    pub struct MetadataResponseTopic<'a> {
        error_code: i16 [0..],
        name: Cow<'a, str> [0..],
        /// Whether the topic belongs to the brokers themselves.
        is_internal: bool [1.., ignorable],
        partitions: Array<'a, MetadataResponsePartition<'a>> [0..],
        /// A bit for each operation; `i32::MIN` when not asked for.
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }

    /// One partition; all lists are of broker ids.
    pub struct MetadataResponsePartition<'a> {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        /// −1 when there is none.
        leader_id: i32 [0..],
        /// −1 when unknown.
        leader_epoch: i32 [7.., ignorable] = -1,
        /// The preferred leader first.
        replica_nodes: Array<'a, i32> [0..],
        isr_nodes: Array<'a, i32> [0..],
        offline_replicas: Array<'a, i32> [5.., ignorable],
    }
}
