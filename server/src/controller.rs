//! The controller: the one broker that decides who leads which partition, and tells the others.
//!
//! [`machine`] decides; this is the shell around it. [`Controller::start`] gives a handle and a future: whoever polls the future
//! runs the controller, on one task. The future watches `/controller` and, when this broker is elected, the brokers, topics and
//! requests to delete; it reads what changed, feeds the machine, and carries out what it says: writes to the tree one at a
//! time, commands to brokers through [`command::BrokerChannel`] without waiting for their answers.
//!
//! Events are watches that fired. One-shot watches mean that each path has at most one event under way, and each event reads
//! the present state, so events that pile up cost one reading. It leaves the registration of the broker itself to
//! [`crate::coordination::startup`]. Source classes: `KafkaController`, `ControllerEventManager`.

pub mod command;
pub mod context;
pub mod election;
pub mod machine;
mod request_batch;
mod tree;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use milena_engine::io::Clock;
use tokio::sync::{mpsc, oneshot};

use crate::coordination::znodes::{self, ControllerNode};
use crate::coordination::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult,
    SessionEvent, Watch,
};
use command::{BrokerChannel, BrokerCommand};
use machine::{ControllerMachine, Input, Output};

/// What of `server.properties` the controller goes by.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    pub broker_id: i32,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `unclean.leader.election.enable` of the broker, at the start; a topic may say otherwise.
    pub unclean_leader_election_enable: bool,
}

/// What wakes the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    ControllerChanged,
    BrokersChanged,
    TopicsChanged,
    AssignmentChanged(Arc<str>),
    DeletionsChanged,
    LogDirEvents,
    SessionExpired,
    /// The broker has its place in the cluster again.
    Registered,
}

enum Message {
    Event(Event),
    Input(Input),
    /// `unclean.leader.election.enable` of the broker is this now.
    UncleanByDefault(bool),
    Shutdown(oneshot::Sender<()>),
}

/// The handle to a running controller.
#[derive(Clone, Debug)]
pub struct Controller {
    messages: mpsc::UnboundedSender<Message>,
    present: Arc<Present>,
}

#[derive(Debug)]
struct Present {
    /// −1: none known.
    controller_id: AtomicI32,
    active: AtomicBool,
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
        let present = Arc::new(Present {
            controller_id: AtomicI32::new(-1),
            active: AtomicBool::new(false),
        });
        let machine = ControllerMachine::new(settings.broker_id, settings.delete_topic_enable);
        let shell = Shell {
            settings,
            coordination,
            channel,
            clock,
            machine,
            messages: messages.clone(),
            present: Arc::clone(&present),
            is_registered: true,
        };
        (Controller { messages, present }, shell.run(inbox))
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
        // Nobody listens once it ended.
        let _ = self.messages.send(Message::UncleanByDefault(enabled));
    }

    /// Looks at the leaderless partitions of a topic anew: its settings let an out-of-sync replica lead.
    pub fn enable_topic_unclean_leader_election(&self, topic: &str) {
        let topic = Some(Arc::from(topic));
        let enabled = Input::UncleanLeaderElectionEnabled { topic };
        let _ = self.messages.send(Message::Input(enabled));
    }

    /// The broker is registered in its new session: it may stand for election again.
    pub fn registered(&self) {
        let _ = self.messages.send(Message::Event(Event::Registered));
    }

    /// Ends the future after the event at hand.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        // Nobody listens if it ended already.
        if self.messages.send(Message::Shutdown(done)).is_ok() {
            let _ = finished.await;
        }
    }
}

struct Shell {
    settings: ControllerSettings,
    coordination: Arc<dyn Coordination>,
    channel: Arc<dyn BrokerChannel>,
    clock: Arc<dyn Clock>,
    machine: ControllerMachine,
    messages: mpsc::UnboundedSender<Message>,
    present: Arc<Present>,
    /// From the end of a session until the broker has registered in the next, it cannot lead the cluster.
    is_registered: bool,
}

impl Shell {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let messages = self.messages.clone();
        self.coordination.listen(Arc::new(move |event| {
            let event = match event {
                SessionEvent::Expired => Event::SessionExpired,
                SessionEvent::Connected => Event::ControllerChanged,
                SessionEvent::Disconnected | SessionEvent::AuthenticationFailed | SessionEvent::Lost(_) => {
                    return;
                }
            };
            let _ = messages.send(Message::Event(event));
        }));
        let _ = self.messages.send(Message::Event(Event::ControllerChanged));
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Shutdown(done) => {
                    let _ = done.send(());
                    return;
                }
                Message::Input(input) => self.feed(input).await,
                Message::UncleanByDefault(enabled) => {
                    let before = self.settings.unclean_leader_election_enable;
                    self.settings.unclean_leader_election_enable = enabled;
                    if enabled && !before {
                        self.feed(Input::UncleanLeaderElectionEnabled { topic: None })
                            .await;
                    }
                }
                Message::Event(event) => {
                    if let Err(error) = self.react(&event).await {
                        self.log_error(&format!("{event:?}: {error}"));
                        if self.machine.is_active() && !matches!(error, CoordinationError::Lost { .. }) {
                            self.resign().await;
                        }
                    }
                }
            }
        }
    }

    fn log(&self, line: &str) {
        let id = self.settings.broker_id;
        tracing::info!(target: "kafka.controller.KafkaController", "[Controller id={id}] {line}");
    }

    fn log_error(&self, line: &str) {
        let id = self.settings.broker_id;
        tracing::error!(target: "kafka.controller.KafkaController", "[Controller id={id}] {line}");
    }

    /// A watch that sends `event`.
    fn watch(&self, event: Event) -> Option<Watch> {
        let messages = self.messages.clone();
        Some(Box::new(move |_| drop(messages.send(Message::Event(event)))))
    }

    async fn react(&mut self, event: &Event) -> Result<(), CoordinationError> {
        match event {
            Event::Registered => {
                self.is_registered = true;
                return self.follow_election().await;
            }
            Event::ControllerChanged if !self.is_registered => return Ok(()),
            Event::ControllerChanged => return self.follow_election().await,
            Event::SessionExpired => {
                self.is_registered = false;
                self.stand_down(None).await;
                return Ok(());
            }
            _ if !self.machine.is_active() => return Ok(()),
            Event::BrokersChanged => {
                let brokers = self.read_brokers().await?;
                self.feed(Input::Brokers(brokers)).await;
            }
            Event::TopicsChanged => {
                let (names, new) = self.read_topics().await?;
                self.feed(Input::Topics { names, new }).await;
            }
            Event::AssignmentChanged(topic) => {
                if let Some(assignment) = self.read_assignment(topic).await? {
                    self.feed(Input::Assignment {
                        topic: Arc::clone(topic),
                        assignment,
                    })
                    .await;
                }
            }
            Event::DeletionsChanged => {
                let topics = self.read_deletions().await?;
                self.feed(Input::Deletions(topics)).await;
            }
            Event::LogDirEvents => {
                let (brokers, nodes) = self.read_log_dir_events().await?;
                if !nodes.is_empty() {
                    self.feed(Input::LogDirEvents { brokers, nodes }).await;
                }
            }
        }
        Ok(())
    }

    /// Reads who the controller is; stands for election if there is none.
    async fn follow_election(&mut self) -> Result<(), CoordinationError> {
        loop {
            let watch = self.watch(Event::ControllerChanged);
            let node = self.coordination.get(znodes::CONTROLLER, watch).await?;
            if let Some(node) = node {
                let data = node.data.unwrap_or_default();
                let controller = match ControllerNode::decode(&data) {
                    Ok(node) => Some(node.broker_id),
                    Err(error) => {
                        self.log_error(&error.to_string());
                        None
                    }
                };
                let me = controller == Some(self.settings.broker_id);
                if !(me && self.machine.is_active()) {
                    self.stand_down(controller).await;
                }
                return Ok(());
            }
            self.stand_down(None).await;
            let Some((epoch, epoch_zk_version)) = self.stand_for_election().await? else {
                continue;
            };
            self.log(&format!("successfully elected as the controller, epoch {epoch}"));
            let reading = self.read_cluster().await?;
            let topic_count = reading.topics.len();
            self.feed(Input::Elected {
                epoch,
                epoch_zk_version,
                reading,
            })
            .await;
            self.present
                .controller_id
                .store(self.settings.broker_id, Ordering::Release);
            self.present
                .active
                .store(self.machine.is_active(), Ordering::Release);
            self.log(&format!(
                "Ready to serve as the new controller with epoch {epoch}, {topic_count} topics"
            ));
        }
    }

    /// Takes `/controller` and raises the epoch, in one transaction; `None` if another broker was faster, or it has to be tried
    /// again.
    async fn stand_for_election(&self) -> Result<Option<(i32, i32)>, CoordinationError> {
        let (present, version, create) = match self.coordination.get(znodes::CONTROLLER_EPOCH, None).await? {
            Some(node) => {
                let data = node.data.unwrap_or_default();
                let epoch =
                    znodes::decode_controller_epoch(&data).map_err(|error| CoordinationError::Lost {
                        path: error.path.clone(),
                        reason: error.to_string(),
                    })?;
                (epoch, node.stat.version, None)
            }
            None => {
                let data = Some(znodes::encode_controller_epoch(0));
                (0, 0, Some(Operation::create(znodes::CONTROLLER_EPOCH, data)))
            }
        };
        let node = ControllerNode {
            broker_id: self.settings.broker_id,
            timestamp_ms: self.clock.wall().get(),
        };
        let path = znodes::CONTROLLER.to_owned();
        let epoch = znodes::encode_controller_epoch(present + 1);
        let mut operations: Vec<Operation> = create.into_iter().collect();
        operations.push(Operation::Create {
            path,
            data: Some(node.encode()),
            mode: CreateMode::Ephemeral,
        });
        let expected = ExpectedVersion::Exactly(version);
        operations.push(Operation::set(znodes::CONTROLLER_EPOCH, epoch, expected));
        match self.coordination.multi(operations).await {
            Ok(results) => match results.last() {
                Some(OperationResult::Set(stat)) => Ok(Some((present + 1, stat.version))),
                other => unreachable!("set answered {other:?}"),
            },
            Err(MultiError {
                error: CoordinationError::NodeExists { .. } | CoordinationError::BadVersion { .. },
                ..
            }) => Ok(None),
            Err(MultiError {
                error: CoordinationError::ConnectionLoss,
                ..
            }) => self.elected_unheard(present + 1).await,
            Err(failed) => Err(failed.error),
        }
    }

    /// Whether an election whose answer was lost was won: `/controller` is this session's, and the epoch the one that was asked
    /// for. Kafka compares the broker's id, which another process might have, too.
    async fn elected_unheard(&self, epoch: i32) -> Result<Option<(i32, i32)>, CoordinationError> {
        let paths = [znodes::CONTROLLER, znodes::CONTROLLER_EPOCH].map(str::to_owned);
        let nodes = self.coordination.get_many(paths.into()).await?;
        let [Some(controller), Some(written)] = nodes.as_slice() else {
            return Ok(None);
        };
        let is_ours = controller.stat.ephemeral_owner == Some(self.coordination.session_id());
        let data = written.data.as_deref().unwrap_or_default();
        let is_won = is_ours && znodes::decode_controller_epoch(data) == Ok(epoch);
        Ok(is_won.then_some((epoch, written.stat.version)))
    }

    /// Follows `controller` from now on.
    async fn stand_down(&mut self, controller: Option<i32>) {
        self.present.active.store(false, Ordering::Release);
        self.present
            .controller_id
            .store(controller.unwrap_or(-1), Ordering::Release);
        if self.machine.is_active() {
            self.log("Resigned");
            self.channel.live_brokers(&[]);
        }
        self.step(Input::Resigned);
    }

    /// Gives the office up so that another election follows, as after an error that leaves the machine behind the tree.
    async fn resign(&mut self) {
        let version = self.machine.context().epoch_zk_version;
        self.stand_down(None).await;
        let fence = Operation::Check {
            path: znodes::CONTROLLER_EPOCH.to_owned(),
            version,
        };
        let give_up = vec![fence, Operation::delete(znodes::CONTROLLER)];
        loop {
            match self.coordination.multi(give_up.clone()).await {
                Ok(_) => return,
                // Fenced by the epoch, it removes nobody else. If it happened, there is nothing to remove.
                Err(MultiError {
                    error: CoordinationError::ConnectionLoss,
                    ..
                }) => {}
                Err(failed) => {
                    self.log_error(&format!("could not resign: {failed}"));
                    return;
                }
            }
        }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.machine.step(self.clock.wall(), input)
    }

    /// Feeds the machine and carries out what it says, until it waits for nothing.
    async fn feed(&mut self, input: Input) {
        let mut todo: VecDeque<Output> = self.step(input).into();
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Note(line) => self.log(&line),
                Output::Send { broker, command } => self.send(broker, command),
                Output::LiveBrokers(brokers) => self.channel.live_brokers(&brokers),
                Output::Watch(topics) => self.watch_topics(topics).await,
                Output::Write(operations) => {
                    let result = self.coordination.multi(operations).await;
                    todo.extend(self.step(Input::Written(result)));
                }
                Output::ReadStates(partitions) => {
                    let reading = self.read_states(partitions).await;
                    todo.extend(self.step(Input::StatesRead(reading)));
                }
                Output::RemoveTopic { topic, fence } => {
                    let result = self.remove_topic(&topic, fence).await;
                    todo.extend(self.step(Input::TopicRemoved(result)));
                }
                Output::Moved => {
                    self.stand_down(None).await;
                    let _ = self.messages.send(Message::Event(Event::ControllerChanged));
                }
            }
        }
    }

    /// Sends a command; the answer comes back as an input.
    fn send(&self, broker: i32, command: BrokerCommand) {
        let about: Option<Box<dyn FnOnce(command::BrokerReply) -> Input + Send>> = match &command {
            BrokerCommand::LeaderAndIsr(command) => {
                let partitions = command
                    .partitions
                    .iter()
                    .map(|one| one.topic_partition.clone())
                    .collect();
                Some(Box::new(move |reply| Input::LeaderAndIsrReplied {
                    broker,
                    partitions,
                    reply,
                }))
            }
            BrokerCommand::StopReplica(command) => {
                let deleted: Vec<_> = command
                    .partitions
                    .iter()
                    .filter(|one| one.delete_partition)
                    .map(|one| one.topic_partition.clone())
                    .collect();
                (!deleted.is_empty()).then_some(Box::new(move |reply| Input::StopReplicaReplied {
                    broker,
                    deleted,
                    reply,
                }))
            }
            BrokerCommand::UpdateMetadata(_) => None,
        };
        let answered = self.channel.send(broker, command);
        let messages = self.messages.clone();
        tokio::spawn(async move {
            let reply = answered.await;
            match about {
                Some(about) => drop(messages.send(Message::Input(about(reply)))),
                None => {
                    if let Err(refusal) = reply {
                        tracing::warn!(
                            target: "kafka.controller.KafkaController",
                            "Broker {broker} refused an UpdateMetadata: {refusal}"
                        );
                    }
                }
            }
        });
    }

    async fn watch_topics(&mut self, topics: Vec<Arc<str>>) {
        for topic in topics {
            let event = Event::AssignmentChanged(Arc::clone(&topic));
            let node = match self
                .coordination
                .get(&znodes::topic(&topic), self.watch(event.clone()))
                .await
            {
                Ok(node) => node,
                Err(error) => {
                    self.log_error(&format!("topic {topic} is not watched: {error}"));
                    continue;
                }
            };
            // It may have grown between the reading that the machine has and this watch.
            let Some(present) = self.decode_assignment(&topic, node) else {
                continue;
            };
            if present.partitions.len() > self.machine.context().partition_count(&topic) {
                let _ = self.messages.send(Message::Event(event));
            }
        }
    }
}

#[cfg(test)]
mod tests;
