//! The controller: the one broker that decides who leads which partition, and tells the others.
//!
//! [`machine`] decides; `shell`, with `office`, `tree` and `writes`, is what is around it. [`Controller::start`] gives a handle and a future: whoever polls the future
//! runs the controller, on one task. The future watches `/controller` and, when this broker is elected, the brokers, the topics
//! and what is asked for in the tree; it reads what changed, feeds the machine, and carries out what it says: writes to the
//! tree one at a time, commands to brokers through [`command::BrokerChannel`] without waiting for their answers.
//!
//! Events are watches that fired. One-shot watches mean that each path has at most one event under way, and each event reads
//! the present state, so events that pile up cost one reading. It leaves the registration of the broker itself to
//! [`crate::coordination::startup`]. Source classes: `KafkaController`, `ControllerEventManager`.

pub mod command;
pub mod context;
pub mod election;
mod features;
pub mod machine;
mod office;
mod reassignment;
pub mod request;
mod request_batch;
mod shell;
mod tree;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::TopicPartition;
use tokio::sync::{mpsc, watch};

use crate::cluster::LeaderAndIsr;
use crate::coordination::Coordination;
use crate::coordination::znodes::ReplicaAssignment;
use command::BrokerChannel;
use machine::Input;
use request::{Answer, ControllerError, ControllerErrorKind, ElectionType, PartitionResults, Request};
use shell::{Message, Shell};

/// What of `server.properties` the controller goes by.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    pub broker_id: i32,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `unclean.leader.election.enable` of the broker, at the start; a topic may say otherwise.
    pub unclean_leader_election_enable: bool,
    /// `auto.leader.rebalance.enable` and what belongs to it.
    pub leader_rebalance: Option<LeaderRebalance>,
    /// Whether `inter.broker.protocol.version` knows finalized features: from 2.7-IV0 on.
    pub feature_versioning: bool,
}

/// How leaders go back to preferred replicas by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderRebalance {
    /// `leader.imbalance.check.interval.seconds`
    pub interval: Duration,
    /// `leader.imbalance.per.broker.percentage`
    pub imbalance_percentage: u32,
}

/// The handle to a controller.
#[derive(Clone, Debug)]
pub struct Controller {
    messages: mpsc::UnboundedSender<Message>,
    stop: Arc<watch::Sender<bool>>,
    present: Arc<Present>,
}

#[derive(Debug)]
struct Present {
    /// −1: none known.
    controller_id: AtomicI32,
    active: AtomicBool,
    /// How many sessions are over: what was begun in one ends with it.
    expired_sessions: AtomicU64,
}

impl Controller {
    /// The handle, and the future that is the controller. The broker must be registered, and its channel open, before the
    /// future is polled.
    pub fn start(
        settings: ControllerSettings,
        coordination: Arc<dyn Coordination>,
        channel: Arc<dyn BrokerChannel>,
        clock: Arc<dyn Clock>,
    ) -> (Controller, impl Future<Output = ()> + Send + 'static) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let present = Arc::new(Present {
            controller_id: AtomicI32::new(-1),
            active: AtomicBool::new(false),
            expired_sessions: AtomicU64::new(0),
        });
        let controller = Controller {
            messages: messages.clone(),
            stop: Arc::new(stop),
            present: Arc::clone(&present),
        };
        let shell = Shell::new(settings, coordination, channel, clock, messages, present);
        (controller, shell.run(inbox, stopped))
    }

    /// Whether this broker is the controller.
    pub fn is_active(&self) -> bool {
        self.present.active.load(Ordering::Acquire)
    }

    /// Who is the controller, as far as this broker knows.
    pub fn controller_id(&self) -> Option<i32> {
        let id = self.present.controller_id.load(Ordering::Acquire);
        (id >= 0).then_some(id)
    }

    /// Says what `unclean.leader.election.enable` of the broker is now. Where it turns true, leaderless partitions are looked
    /// at anew.
    pub fn set_unclean_leader_election(&self, enabled: bool) {
        self.tell(Message::UncleanByDefault(enabled));
    }

    /// Looks at the leaderless partitions of a topic anew: its settings let an out-of-sync replica lead.
    pub fn enable_topic_unclean_leader_election(&self, topic: &str) {
        let topic = Some(Arc::from(topic));
        self.tell(Message::Input(Input::UncleanLeaderElectionEnabled { topic }));
    }

    /// This broker has registered again, after its session expired: it may stand for election from now on.
    pub fn registered(&self) {
        let expired_sessions = self.present.expired_sessions.load(Ordering::Acquire);
        self.tell(Message::Registered { expired_sessions });
    }

    fn tell(&self, message: Message) {
        // Nobody listens once it ended.
        let _ = self.messages.send(message);
    }

    /// A leader proposes in-sync sets, each with itself as the leader and the version of the state that it knows.
    ///
    /// # Errors
    /// `NotController`, `StaleBrokerEpoch`.
    pub async fn alter_isr(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        proposals: Vec<(TopicPartition, LeaderAndIsr)>,
    ) -> Result<PartitionResults<LeaderAndIsr>, ControllerError> {
        let request = Request::AlterIsr {
            broker_id,
            broker_epoch,
            proposals,
        };
        match self.ask(request).await? {
            Answer::AlterIsr(results) => results,
            other => unreachable!("AlterIsr answered {other:?}"),
        }
    }

    /// A broker is about to stop: its leaderships move. Returns the partitions that it still leads. A broker of old does not know
    /// its epoch.
    ///
    /// # Errors
    /// `NotController`, `StaleBrokerEpoch`, `BrokerNotAvailable`.
    pub async fn controlled_shutdown(
        &self,
        broker_id: i32,
        broker_epoch: Option<i64>,
    ) -> Result<Vec<TopicPartition>, ControllerError> {
        let request = Request::ControlledShutdown {
            broker_id,
            broker_epoch,
        };
        match self.ask(request).await? {
            Answer::ControlledShutdown(remaining) => remaining,
            other => unreachable!("ControlledShutdown answered {other:?}"),
        }
    }

    /// Elects leaders; returns the new ones, which brokers will hear of.
    ///
    /// # Errors
    /// `NotController`.
    pub async fn elect_leaders(
        &self,
        partitions: BTreeSet<TopicPartition>,
        election_type: ElectionType,
    ) -> Result<PartitionResults<i32>, ControllerError> {
        let request = Request::ElectLeaders {
            partitions,
            election_type,
        };
        match self.ask(request).await? {
            Answer::ElectLeaders(results) => Ok(results),
            other => unreachable!("ElectLeaders answered {other:?}"),
        }
    }

    /// Begins to move replicas, or ends moves that are under way (`None`).
    ///
    /// # Errors
    /// `NotController`.
    pub async fn alter_partition_reassignments(
        &self,
        wanted: BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<PartitionResults<()>, ControllerError> {
        match self.ask(Request::AlterReassignments(wanted)).await? {
            Answer::AlterReassignments(results) => Ok(results),
            other => unreachable!("AlterReassignments answered {other:?}"),
        }
    }

    /// The moves that are under way, of these partitions or of all.
    ///
    /// # Errors
    /// `NotController`.
    pub async fn list_partition_reassignments(
        &self,
        partitions: Option<BTreeSet<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, ReplicaAssignment>, ControllerError> {
        match self.ask(Request::ListReassignments(partitions)).await? {
            Answer::ListReassignments(moving) => Ok(moving),
            other => unreachable!("ListReassignments answered {other:?}"),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, ControllerError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.tell(Message::Request(request, answer));
        // A controller that is none, or ends before it answers, drops it.
        let answer = answered.await;
        answer.map_err(|_| ControllerErrorKind::NotController.into())
    }

    /// Ends the future; what is under way is left to the next controller.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.messages.closed().await;
    }
}

#[cfg(test)]
mod tests;
