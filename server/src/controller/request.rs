//! What brokers and administrators ask of the controller, and what it answers: domain values, carried to the machine by
//! [`super::Controller`].
//!
//! Only an active controller answers; from all others comes [`ControllerErrorKind::NotController`]. Handlers translate from and to
//! the wire. Source: the callbacks of `KafkaController`.

use std::collections::{BTreeMap, BTreeSet};

use milena_engine::units::TopicPartition;

use crate::cluster::LeaderAndIsr;
use crate::coordination::znodes::ReplicaAssignment;

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who may become leader when an administrator asks for an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica of each partition, where it does not lead yet.
    Preferred,
    /// Any live replica, where there is no leader.
    Unclean,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A leader proposes in-sync sets: each with itself as the leader, and the version of the state that it knows.
    AlterIsr {
        broker_id: i32,
        broker_epoch: i64,
        proposals: Vec<(TopicPartition, LeaderAndIsr)>,
    },
    /// A broker is about to stop. Brokers of old do not know their epoch.
    ControlledShutdown {
        broker_id: i32,
        broker_epoch: Option<i64>,
    },
    ElectLeaders {
        partitions: BTreeSet<TopicPartition>,
        election_type: ElectionType,
    },
    /// Replicas to move to; `None` ends a move that is under way.
    AlterReassignments(BTreeMap<TopicPartition, Option<Vec<i32>>>),
    /// `None` for all.
    ListReassignments(Option<BTreeSet<TopicPartition>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What holds now of each partition.
    AlterIsr(Result<PartitionResults<LeaderAndIsr>, ControllerError>),
    /// The partitions that the broker still leads.
    ControlledShutdown(Result<Vec<TopicPartition>, ControllerError>),
    /// The new leaders.
    ElectLeaders(PartitionResults<i32>),
    AlterReassignments(PartitionResults<()>),
    ListReassignments(BTreeMap<TopicPartition, ReplicaAssignment>),
}

pub type PartitionResults<T> = BTreeMap<TopicPartition, Result<T, ControllerError>>;

/// Named as Kafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerErrorKind {
    UnknownServerError,
    UnknownTopicOrPartition,
    BrokerNotAvailable,
    InvalidTopicException,
    InvalidReplicaAssignment,
    NotController,
    InvalidRequest,
    FencedLeaderEpoch,
    StaleBrokerEpoch,
    PreferredLeaderNotAvailable,
    EligibleLeadersNotAvailable,
    ElectionNotNeeded,
    NoReassignmentInProgress,
    InvalidUpdateVersion,
}

/// Why the controller refuses; without a text of its own the standard text of its kind holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {}", message.as_deref().unwrap_or("no message"))]
pub struct ControllerError {
    pub kind: ControllerErrorKind,
    pub message: Option<String>,
}

impl ControllerError {
    pub fn new(kind: ControllerErrorKind, message: impl Into<String>) -> ControllerError {
        ControllerError {
            kind,
            message: Some(message.into()),
        }
    }
}

impl From<ControllerErrorKind> for ControllerError {
    fn from(kind: ControllerErrorKind) -> ControllerError {
        ControllerError { kind, message: None }
    }
}
