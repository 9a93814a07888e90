//! What is asked of the group coordinator and what it answers, in domain terms.
//!
//! Handlers turn wire requests into these and answers back into wire responses; nothing here knows a version or an error
//! number. A member id of `""` means that the client has none yet, a generation below 0 that it is in none. Source: the
//! parameters and results of `GroupCoordinator.scala` in 2.7.2.

use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

use super::state::GroupState;

/// Why the coordinator refuses. Each variant is the protocol error of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    #[error("the coordinator failed in a way it does not expect")]
    UnknownServerError,
    #[error("the request timed out")]
    RequestTimedOut,
    #[error("the metadata of the offset is larger than offset.metadata.max.bytes")]
    OffsetMetadataTooLarge,
    #[error("the coordinator is loading the group")]
    CoordinatorLoadInProgress,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    #[error("the generation is not the current one")]
    IllegalGeneration,
    #[error("no protocol is supported by all members, or the protocol type differs")]
    InconsistentGroupProtocol,
    #[error("the group id is invalid")]
    InvalidGroupId,
    #[error("the coordinator does not know this member")]
    UnknownMemberId,
    #[error("the session timeout is outside group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    #[error("the group rebalances, so it must be joined again")]
    RebalanceInProgress,
    #[error("the committed offsets do not fit into one batch of __consumer_offsets")]
    InvalidCommitOffsetSize,
    #[error("the producer epoch is old")]
    InvalidProducerEpoch,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group does not exist")]
    GroupIdNotFound,
    #[error("the group must be joined with the member id in this answer")]
    MemberIdRequired,
    #[error("the group has group.max.size members")]
    GroupMaxSizeReached,
    #[error("another member with this group.instance.id has taken the place")]
    FencedInstanceId,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
}

/// One assignment strategy that a member offers, with its opaque metadata (for consumers: the subscription).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: Arc<str>,
    pub metadata: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroup {
    pub group_id: Arc<str>,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    /// Whether a client without an id is sent away with one before it takes a place (JoinGroup v4 and later without
    /// `group.instance.id`).
    pub require_known_member_id: bool,
    pub client_id: Arc<str>,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocol_type: Arc<str>,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
}

/// What the leader is told of each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    /// Of the selected protocol.
    pub metadata: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedGroup {
    pub member_id: Arc<str>,
    pub generation_id: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub leader_id: Arc<str>,
    /// Empty unless the member leads.
    pub members: Vec<JoinedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    pub error: GroupError,
    /// The id sent, `""`, or with [`GroupError::MemberIdRequired`] the id to join with.
    pub member_id: Arc<str>,
}

pub type JoinResult = Result<JoinedGroup, JoinRefusal>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
    pub group_id: Arc<str>,
    pub generation_id: i32,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    /// Checked where given (v5 and later).
    pub protocol_type: Option<Arc<str>>,
    /// Checked where given (v5 and later).
    pub protocol_name: Option<Arc<str>>,
    /// From the leader: member id and assignment. Members that are missing get an empty one.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedGroup {
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub assignment: Bytes,
}

pub type SyncResult = Result<SyncedGroup, GroupError>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub group_id: Arc<str>,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub generation_id: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroup {
    pub group_id: Arc<str>,
    pub members: Vec<MemberIdentity>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberIdentity {
    /// May be `""` where the instance id is given (an administrator removes a static member).
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
}

/// One result for each member of the request, in its order; or the refusal of the whole.
pub type LeaveResult = Result<Vec<Result<(), GroupError>>, GroupError>;

/// A committed position of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The next record to consume, as the client says; not checked against the log.
    pub offset: Offset,
    pub leader_epoch: Option<i32>,
    pub metadata: Box<str>,
    pub commit_timestamp: TimestampMs,
    /// Set by OffsetCommit v2 to v4 with a retention time: the offset goes then, whatever the group does.
    pub expire_timestamp: Option<TimestampMs>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsets {
    pub group_id: Arc<str>,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub generation_id: i32,
    pub offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    /// The transaction's producer, if the offsets are part of a transaction: they count once it commits.
    pub transaction: Option<(ProducerId, ProducerEpoch)>,
}

/// One result for each offset of the request, in its order.
pub type CommitResult = Vec<Result<(), GroupError>>;

/// What OffsetFetch says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchedOffset {
    Committed(OffsetAndMetadata),
    /// Nothing is committed: −1 on the wire, without an error.
    Absent,
    /// A commit is under way and the client asked for settled offsets only (UNSTABLE_OFFSET_COMMIT).
    Unstable,
}

/// One line of ListGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOverview {
    pub group_id: Arc<str>,
    /// `""` for a group that only stores offsets.
    pub protocol_type: Arc<str>,
    pub state: GroupState,
}

/// The groups of this broker; `loading` if some partitions are not loaded yet, so that the list is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupList {
    pub groups: Vec<GroupOverview>,
    pub loading: bool,
}

/// DescribeGroups for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    pub state: GroupState,
    pub protocol_type: Arc<str>,
    /// The selected protocol, `""` unless the group is stable.
    pub protocol: Arc<str>,
    pub members: Vec<MemberSummary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSummary {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    /// Empty unless the group is stable.
    pub assignment: Bytes,
}

/// One result for each partition of the request, in its order; or the refusal of the whole.
pub type DeleteOffsetsResult = Result<Vec<Result<(), GroupError>>, GroupError>;
