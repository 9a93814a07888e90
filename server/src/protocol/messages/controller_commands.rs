//! `LeaderAndIsr` (key 4), `StopReplica` (5), `UpdateMetadata` (6): what a controller tells a broker; `ControlledShutdown` (7): what a
//! broker asks of the controller before it stops.
//!
//! A command carries the epoch of the controller and that of the broker that it is meant for (KIP-380); which version is sent follows
//! from `inter.broker.protocol.version`.
//!
//! Versions of LeaderAndIsr: 1 says whether a replica is new; 2 adds the broker epoch and gathers partitions by topic; 3 adds the
//! replicas that a reassignment brings and takes (KIP-455); 4 is flexible. Of StopReplica: 1 adds the broker epoch and gathers
//! partitions by topic; 2 is flexible; 3 has leader epoch and deletion for each partition (KIP-570). Of UpdateMetadata: 1 has
//! several endpoints for a broker; 2 the rack; 3 the listener's name; 4 offline replicas; 5 the broker epoch, and gathers
//! partitions by topic; 6 is flexible. Of ControlledShutdown: 1 has an ordinary header; 2 adds the broker epoch; 3 is flexible.
//!
//! Sources: `LeaderAndIsrRequest.json`, `StopReplicaRequest.json`, `UpdateMetadataRequest.json`, `ControlledShutdownRequest.json`,
//! and the responses of the same names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Tells a broker which replicas it has, and whom they follow.
    pub struct LeaderAndIsrRequest<'a> (LeaderAndIsr, versions 0..=4, flexible 4..) {
        controller_id: i32 [0..],
        controller_epoch: i32 [0..],
        /// Of the broker that is told; −1 when the controller does not say.
        broker_epoch: i64 [2.., ignorable] = -1,
        ungrouped_partition_states: Array<'a, LeaderAndIsrPartitionState<'a>> [0..=1],
        topic_states: Array<'a, LeaderAndIsrTopicState<'a>> [2..],
        /// The leaders among the partitions, with their addresses.
        live_leaders: Array<'a, LeaderAndIsrLiveLeader<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct LeaderAndIsrTopicState<'a> {
        topic_name: Cow<'a, str> [2..],
        partition_states: Array<'a, LeaderAndIsrPartitionState<'a>> [2..],
    }

    /// A leader's address.
    pub struct LeaderAndIsrLiveLeader<'a> {
        broker_id: i32 [0..],
        host_name: Cow<'a, str> [0..],
        port: i32 [0..],
    }

    /// One partition.
    pub struct LeaderAndIsrPartitionState<'a> {
        topic_name: Cow<'a, str> [0..=1, ignorable],
        partition_index: i32 [0..],
        /// Of the controller that wrote the state.
        controller_epoch: i32 [0..],
        /// Broker id; −1: no leader, −2: the topic is being deleted.
        leader: i32 [0..],
        leader_epoch: i32 [0..],
        /// Broker ids.
        isr: Array<'a, i32> [0..],
        /// Version of the state's node in ZooKeeper.
        zk_version: i32 [0..],
        /// Broker ids; the preferred leader first.
        replicas: Array<'a, i32> [0..],
        adding_replicas: Array<'a, i32> [3.., ignorable],
        removing_replicas: Array<'a, i32> [3.., ignorable],
        /// Whether the replica cannot have been there before.
        is_new: bool [1.., ignorable],
    }
}

message! {
    /// Says which partitions could not be taken over.
    pub struct LeaderAndIsrResponse<'a> (LeaderAndIsr, versions 0..=4, flexible 4..) {
        error_code: i16 [0..],
        partition_errors: Array<'a, LeaderAndIsrPartitionError<'a>> [0..],
    }

    /// Result for one partition.
    pub struct LeaderAndIsrPartitionError<'a> {
        topic_name: Cow<'a, str> [0..],
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

message! {
    /// Tells a broker to give replicas up, or to delete them.
    pub struct StopReplicaRequest<'a> (StopReplica, versions 0..=3, flexible 2..) {
        controller_id: i32 [0..],
        controller_epoch: i32 [0..],
        /// Of the broker that is told; −1 when the controller does not say.
        broker_epoch: i64 [1.., ignorable] = -1,
        /// Whether all of them are to be deleted.
        delete_partitions: bool [0..=2],
        ungrouped_partitions: Array<'a, StopReplicaPartitionV0<'a>> [0..=0],
        topics: Array<'a, StopReplicaTopicV1<'a>> [1..=2],
        topic_states: Array<'a, StopReplicaTopicState<'a>> [3..],
    }

    /// One partition.
    pub struct StopReplicaPartitionV0<'a> {
        topic_name: Cow<'a, str> [0..=0],
        partition_index: i32 [0..=0],
    }

    /// Partitions of one topic.
    pub struct StopReplicaTopicV1<'a> {
        name: Cow<'a, str> [1..=2],
        partition_indexes: Array<'a, i32> [1..=2],
    }

    /// Partitions of one topic, each with its epoch.
    pub struct StopReplicaTopicState<'a> {
        topic_name: Cow<'a, str> [3..],
        partition_states: Array<'a, StopReplicaPartitionState> [3..],
    }

    /// One partition with its epoch.
    pub struct StopReplicaPartitionState {
        partition_index: i32 [3..],
        /// −1: unknown, −2: the topic is being deleted.
        leader_epoch: i32 [3..] = -1,
        delete_partition: bool [3..],
    }
}

message! {
    /// Says which partitions could not be given up.
    pub struct StopReplicaResponse<'a> (StopReplica, versions 0..=3, flexible 2..) {
        error_code: i16 [0..],
        partition_errors: Array<'a, StopReplicaPartitionError<'a>> [0..],
    }

    /// Result for one partition.
    pub struct StopReplicaPartitionError<'a> {
        topic_name: Cow<'a, str> [0..],
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

message! {
    /// Tells a broker what clients will ask it: who is there and who leads what.
    pub struct UpdateMetadataRequest<'a> (UpdateMetadata, versions 0..=6, flexible 6..) {
        controller_id: i32 [0..],
        controller_epoch: i32 [0..],
        /// Of the broker that is told; −1 when the controller does not say.
        broker_epoch: i64 [5.., ignorable] = -1,
        ungrouped_partition_states: Array<'a, UpdateMetadataPartitionState<'a>> [0..=4],
        /// What changed; topics that are not named stay as they are known.
        topic_states: Array<'a, UpdateMetadataTopicState<'a>> [5..],
        /// All that are alive.
        live_brokers: Array<'a, UpdateMetadataBroker<'a>> [0..],
    }

    /// Partitions of one topic.
    pub struct UpdateMetadataTopicState<'a> {
        topic_name: Cow<'a, str> [5..],
        partition_states: Array<'a, UpdateMetadataPartitionState<'a>> [5..],
    }

    /// A broker that is alive.
    pub struct UpdateMetadataBroker<'a> {
        id: i32 [0..],
        v0_host: Cow<'a, str> [0..=0, ignorable],
        v0_port: i32 [0..=0, ignorable],
        endpoints: Array<'a, UpdateMetadataEndpoint<'a>> [1.., ignorable],
        rack: Option<Cow<'a, str>> [2.., ignorable],
    }

    /// Where a broker is reached.
    pub struct UpdateMetadataEndpoint<'a> {
        port: i32 [1..],
        host: Cow<'a, str> [1..],
        listener: Cow<'a, str> [3.., ignorable],
        /// 0: PLAINTEXT, 1: SSL, 2: SASL_PLAINTEXT, 3: SASL_SSL.
        security_protocol: i16 [1..],
    }

    /// One partition.
    pub struct UpdateMetadataPartitionState<'a> {
        topic_name: Cow<'a, str> [0..=4, ignorable],
        partition_index: i32 [0..],
        /// Of the controller that wrote the state.
        controller_epoch: i32 [0..],
        /// Broker id; −1: no leader, −2: the topic is being deleted.
        leader: i32 [0..],
        leader_epoch: i32 [0..],
        /// Broker ids.
        isr: Array<'a, i32> [0..],
        /// Version of the state's node in ZooKeeper.
        zk_version: i32 [0..],
        /// Broker ids; the preferred leader first.
        replicas: Array<'a, i32> [0..],
        /// Broker ids.
        offline_replicas: Array<'a, i32> [4.., ignorable],
    }
}

message! {
    /// Says whether the broker believes the controller.
    pub struct UpdateMetadataResponse (UpdateMetadata, versions 0..=6, flexible 6..) {
        error_code: i16 [0..],
    }
}

message! {
    /// Asks the controller to move what a broker leads elsewhere.
    pub struct ControlledShutdownRequest (ControlledShutdown, versions 0..=3, flexible 3..) {
        broker_id: i32 [0..],
        /// −1 when the broker does not say.
        broker_epoch: i64 [2.., ignorable] = -1,
    }
}

message! {
    /// Says what the broker still leads.
    pub struct ControlledShutdownResponse<'a> (ControlledShutdown, versions 0..=3, flexible 3..) {
        error_code: i16 [0..],
        /// Empty: it may stop.
        remaining_partitions: Array<'a, RemainingPartition<'a>> [0..],
    }

    /// A partition that has no other leader yet.
    pub struct RemainingPartition<'a> {
        topic_name: Cow<'a, str> [0..],
        partition_index: i32 [0..],
    }
}
