//! `ElectLeaders` (key 43), `AlterPartitionReassignments` (45), `ListPartitionReassignments` (46): what operators ask the
//! controller about leaders and replicas (KIP-460, KIP-455).
//!
//! Version 1 of ElectLeaders has the type of election and an error of the whole answer; 2 is flexible.
//!
//! Sources: `ElectLeadersRequest.json`, `AlterPartitionReassignmentsRequest.json`, `ListPartitionReassignmentsRequest.json`, and the
//! responses of the same names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for elections.
    pub struct ElectLeadersRequest<'a> (ElectLeaders, versions 0..=2, flexible 2..) {
        /// 0: the preferred replica; 1: the first replica that is alive, in sync or not, where there is no leader.
        election_type: i8 [1..],
        /// Null for all.
        topic_partitions: Option<Array<'a, TopicPartitions<'a>>> [0..],
        /// Milliseconds.
        timeout_ms: i32 [0..] = 60000,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions<'a> {
        topic: Cow<'a, str> [0..],
        /// Several, in spite of its name.
        partition_id: Array<'a, i32> [0..],
    }
}

message! {
    /// Says how the elections went.
    pub struct ElectLeadersResponse<'a> (ElectLeaders, versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [1..],
        replica_election_results: Array<'a, ReplicaElectionResult<'a>> [0..],
    }

    /// Results for one topic.
    pub struct ReplicaElectionResult<'a> {
        topic: Cow<'a, str> [0..],
        partition_result: Array<'a, PartitionResult<'a>> [0..],
    }

    /// Result for one partition.
    pub struct PartitionResult<'a> {
        partition_id: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Asks for other replicas.
    pub struct AlterPartitionReassignmentsRequest<'a> (AlterPartitionReassignments, versions 0..=0, flexible 0..) {
        /// Milliseconds.
        timeout_ms: i32 [0..] = 60000,
        topics: Array<'a, ReassignableTopic<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct ReassignableTopic<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, ReassignablePartition<'a>> [0..],
    }

    /// One partition.
    pub struct ReassignablePartition<'a> {
        partition_index: i32 [0..],
        /// Broker ids; null: end the reassignment that is under way.
        replicas: Option<Array<'a, i32>> [0..],
    }
}

message! {
    /// Says which reassignments are under way.
    pub struct AlterPartitionReassignmentsResponse<'a> (AlterPartitionReassignments, versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        responses: Array<'a, ReassignableTopicResponse<'a>> [0..],
    }

    /// Results for one topic.
    pub struct ReassignableTopicResponse<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, ReassignablePartitionResponse<'a>> [0..],
    }

    /// Result for one partition.
    pub struct ReassignablePartitionResponse<'a> {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Asks what is under way.
    pub struct ListPartitionReassignmentsRequest<'a> (ListPartitionReassignments, versions 0..=0, flexible 0..) {
        /// Milliseconds.
        timeout_ms: i32 [0..] = 60000,
        /// Null for all.
        topics: Option<Array<'a, ListPartitionReassignmentsTopics<'a>>> [0..],
    }

    /// Partitions of one topic.
    pub struct ListPartitionReassignmentsTopics<'a> {
        name: Cow<'a, str> [0..],
        partition_indexes: Array<'a, i32> [0..],
    }
}

message! {
    /// Tells what is under way.
    pub struct ListPartitionReassignmentsResponse<'a> (ListPartitionReassignments, versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        topics: Array<'a, OngoingTopicReassignment<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct OngoingTopicReassignment<'a> {
        name: Cow<'a, str> [0..],
        partitions: Array<'a, OngoingPartitionReassignment<'a>> [0..],
    }

    /// One partition.
    pub struct OngoingPartitionReassignment<'a> {
        partition_index: i32 [0..],
        /// Broker ids of all replicas, those to come and those to go included.
        replicas: Array<'a, i32> [0..],
        adding_replicas: Array<'a, i32> [0..],
        removing_replicas: Array<'a, i32> [0..],
    }
}
