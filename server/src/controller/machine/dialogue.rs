//! What goes into the machine and what comes out of it.
//!
//! Source: the events of `ControllerEventManager`.

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use crate::controller::command::{BrokerCommand, BrokerReply, CommandOrigin};
use crate::controller::context::LiveBroker;
use crate::controller::request::{Answer, Request, RequestId};
use crate::coordination::znodes::{PartitionState, TopicAssignment};
use crate::coordination::{CoordinationError, MultiError, Operation};

/// Everything in the tree that a new controller reads.
#[derive(Clone, Debug, Default)]
pub struct ClusterReading {
    pub brokers: Vec<LiveBroker>,
    pub topics: Vec<(Arc<str>, TopicAssignment)>,
    pub states: Vec<(TopicPartition, StateNode)>,
    pub deletions: Vec<Arc<str>>,
    /// Of `/admin/reassign_partitions`, if it exists.
    pub moves: Option<RequestedMoves>,
    /// Of `/admin/preferred_replica_election`, if it exists.
    pub preferred_election: Option<Vec<TopicPartition>>,
}

/// What `/admin/reassign_partitions` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedMoves {
    pub moves: Vec<(TopicPartition, Vec<i32>)>,
    /// Data version of the node.
    pub version: i32,
}

/// The assignment of a topic and the data version of its node; `None` if there is none.
pub type AssignmentReading = Result<Option<(TopicAssignment, i32)>, CoordinationError>;

/// A partition's state node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateNode {
    pub state: PartitionState,
    /// Id of the transaction that last wrote it.
    pub mzxid: i64,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// This broker won the election and read the tree.
    Elected {
        epoch: i32,
        epoch_zk_version: i32,
        reading: ClusterReading,
    },
    /// Another broker is the controller, or the session is gone.
    Resigned,
    /// The live brokers, after one came, went or changed.
    Brokers(Vec<LiveBroker>),
    /// All names below `/brokers/topics`, and the assignments of those that the machine does not know.
    Topics {
        names: BTreeSet<Arc<str>>,
        new: Vec<(Arc<str>, TopicAssignment)>,
    },
    /// The assignment of a topic changed.
    Assignment {
        topic: Arc<str>,
        assignment: TopicAssignment,
    },
    /// The names below `/admin/delete_topics`.
    Deletions(Vec<Arc<str>>),
    /// These nodes of `/log_dir_event_notification` tell of failed log directories of these brokers.
    LogDirEvents {
        brokers: BTreeSet<i32>,
        nodes: Vec<String>,
    },
    /// These nodes of `/isr_change_notification` tell of other in-sync sets of these partitions.
    IsrChanges {
        partitions: Vec<TopicPartition>,
        nodes: Vec<String>,
    },
    /// `/admin/preferred_replica_election` names these.
    PreferredElection(Vec<TopicPartition>),
    /// `/admin/reassign_partitions` is so now.
    Moves(Option<RequestedMoves>),
    /// A state that the machine asked to watch was written.
    StateChanged(TopicPartition),
    /// Time to look whether leaders are where they should be.
    RebalanceLeaders {
        /// `leader.imbalance.per.broker.percentage`
        imbalance_percentage: u32,
    },
    /// Answered by [`Output::Answer`], but for a controller that is not active, or ends before.
    Request {
        id: RequestId,
        request: Request,
    },
    /// An out-of-sync replica may lead from now on: of this topic, or by the broker's default.
    UncleanLeaderElectionEnabled {
        topic: Option<Arc<str>>,
    },
    /// A broker answered a LeaderAndIsr about these partitions.
    LeaderAndIsrReplied {
        broker: i32,
        origin: CommandOrigin,
        partitions: Vec<TopicPartition>,
        reply: BrokerReply,
    },
    /// A broker answered a StopReplica that was to delete these partitions.
    StopReplicaReplied {
        broker: i32,
        origin: CommandOrigin,
        deleted: Vec<TopicPartition>,
        reply: BrokerReply,
    },

    // The answers to outputs; exactly one is awaited at a time.
    Written(Result<(), MultiError>),
    StatesRead(StatesReading),
    /// Those of the topics asked about that let an out-of-sync replica lead.
    UncleanTopics(BTreeSet<Arc<str>>),
    AssignmentRead(AssignmentReading),
    TopicRemoved(Result<(), MultiError>),
}

/// The present states of partitions.
#[derive(Clone, Debug, Default)]
pub struct StatesReading {
    /// Partitions without a state node are left out.
    pub states: Vec<(TopicPartition, StateNode)>,
    /// The tree could not be read.
    pub failed: Option<CoordinationError>,
}

/// What the machine wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send {
        broker: i32,
        command: BrokerCommand,
    },
    /// Answered by [`Input::Written`].
    Write(Vec<Operation>),
    /// Answered by [`Input::StatesRead`].
    ReadStates(Vec<TopicPartition>),
    /// Answered by [`Input::UncleanTopics`].
    ReadUncleanTopics(BTreeSet<Arc<str>>),
    /// Answered by [`Input::AssignmentRead`].
    ReadAssignment(Arc<str>),
    /// Delete the topic's nodes: its subtree of `/brokers/topics`, then its settings, then the request, each fenced by the
    /// check. Answered by [`Input::TopicRemoved`].
    RemoveTopic {
        topic: Arc<str>,
        fence: Operation,
    },
    /// Watch the assignments of these topics.
    Watch(Vec<Arc<str>>),
    /// Watch the state of a partition whose replicas move.
    WatchState(TopicPartition),
    Answer {
        id: RequestId,
        answer: Answer,
    },
    /// These brokers are alive: commands to others are given up.
    LiveBrokers(Vec<LiveBroker>),
    /// A line for the log.
    Note(String),
    /// The reign is over: another controller wrote.
    Moved,
}
