//! The controller's shell: one task that hears watches, requests and answers, feeds the machine and does what it says.
//!
//! A write that the connection was lost under is done again after a look whether it happened ([`super::writes`]). When the session is
//! over the reign is over at once, before the client of the tree has another session; this broker stands for election again when it has
//! registered anew, as in 2.7.2 (`RegisterBrokerAndReelect`). Source classes: `KafkaController`, `ControllerEventManager`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use milena_engine::io::Clock;
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::command::{BrokerChannel, BrokerCommand, BrokerReply};
use super::machine::{ControllerMachine, Input, Output};
use super::request::{Answer, Request, RequestId};
use super::{ControllerSettings, Present};
use crate::coordination::znodes;
use crate::coordination::{Coordination, CoordinationError, SessionEvent, Watch};

/// What wakes the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    ControllerChanged,
    BrokersChanged,
    TopicsChanged,
    AssignmentChanged(Arc<str>),
    DeletionsChanged,
    LogDirEvents,
    IsrChanges,
    MovesChanged,
    PreferredElection,
    StateChanged(TopicPartition),
    SessionExpired,
}

#[derive(Debug)]
pub(super) enum Message {
    Event(Event),
    Input(Input),
    Request(Request, oneshot::Sender<Answer>),
    /// `unclean.leader.election.enable` of the broker is this now.
    UncleanByDefault(bool),
    /// This broker registered again, after so many sessions that ended.
    Registered {
        expired_sessions: u64,
    },
    Rebalance,
}

pub(super) struct Shell {
    pub(super) settings: ControllerSettings,
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) channel: Arc<dyn BrokerChannel>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) machine: ControllerMachine,
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) present: Arc<Present>,
    /// Requests that the machine has not answered yet.
    pub(super) answers: HashMap<RequestId, oneshot::Sender<Answer>>,
    pub(super) last_request: u64,
    /// Paths with a watch of ours in this session that has not fired. No second one is set: each would bring an event, and each event
    /// a reading that sets the watches of all.
    pub(super) watched: Arc<Mutex<HashSet<String>>>,
    /// The epoch that this broker last stood for, until it knows what came of it.
    pub(super) candidacy: Option<i32>,
    /// How many sessions were over when this broker last registered.
    pub(super) registered_after: u64,
    /// When to look at the balance of leaders.
    pub(super) rebalance_at: Option<Instant>,
}

impl Shell {
    pub(super) fn new(
        settings: ControllerSettings,
        coordination: Arc<dyn Coordination>,
        channel: Arc<dyn BrokerChannel>,
        clock: Arc<dyn Clock>,
        messages: mpsc::UnboundedSender<Message>,
        present: Arc<Present>,
    ) -> Shell {
        let machine = ControllerMachine::new(settings.broker_id, settings.delete_topic_enable);
        Shell {
            settings,
            coordination,
            channel,
            clock,
            machine,
            messages,
            present,
            answers: HashMap::new(),
            last_request: 0,
            watched: Arc::default(),
            candidacy: None,
            registered_after: 0,
            rebalance_at: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut stopped: watch::Receiver<bool>,
    ) {
        self.listen();
        self.put(Event::ControllerChanged);
        loop {
            let message = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                message = inbox.recv() => message,
                () = reached(self.rebalance_at) => Some(Message::Rebalance),
            };
            let Some(message) = message else { return };
            // What waits for a server that is gone must not keep the broker from stopping.
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = self.take(message) => {}
            }
        }
    }

    fn listen(&self) {
        let (messages, present) = (self.messages.clone(), Arc::clone(&self.present));
        let watched = Arc::clone(&self.watched);
        self.coordination.listen(Arc::new(move |event| {
            let event = match event {
                SessionEvent::Expired => {
                    watched.lock().clear();
                    present.active.store(false, Ordering::Release);
                    present.expired_sessions.fetch_add(1, Ordering::AcqRel);
                    Event::SessionExpired
                }
                SessionEvent::Connected => Event::ControllerChanged,
                SessionEvent::Disconnected | SessionEvent::AuthenticationFailed | SessionEvent::Lost(_) => {
                    return;
                }
            };
            // Nobody listens once the controller ended.
            let _ = messages.send(Message::Event(event));
        }));
    }

    /// Whether this broker has registered in the present session. A reign is of the session that it began in.
    pub(super) fn is_registered(&self) -> bool {
        self.registered_after == self.present.expired_sessions.load(Ordering::Acquire)
    }

    /// Whether a reign is of a session that ended.
    fn is_over(&self) -> bool {
        self.machine.is_active() && !self.is_registered()
    }

    /// Puts an event at the end of the queue.
    fn put(&self, event: Event) {
        // The inbox lives as long as this shell runs.
        let _ = self.messages.send(Message::Event(event));
    }

    async fn take(&mut self, message: Message) {
        if self.is_over() {
            self.stand_down(None);
        }
        match message {
            Message::Input(input) => self.feed(input).await,
            Message::Request(request, answer) => {
                // Who asks somebody else than the controller hears of it by the dropped channel.
                if self.machine.is_active() {
                    self.last_request += 1;
                    let id = RequestId(self.last_request);
                    self.answers.insert(id, answer);
                    self.feed(Input::Request { id, request }).await;
                }
            }
            Message::UncleanByDefault(enabled) => {
                let before = self.settings.unclean_leader_election_enable;
                self.settings.unclean_leader_election_enable = enabled;
                if enabled && !before {
                    self.feed(Input::UncleanLeaderElectionEnabled { topic: None })
                        .await;
                }
            }
            Message::Registered { expired_sessions } => {
                self.registered_after = expired_sessions;
                self.put(Event::ControllerChanged);
            }
            Message::Rebalance => {
                self.rebalance_at = None;
                if let Some(rebalance) = self.settings.leader_rebalance {
                    let imbalance_percentage = rebalance.imbalance_percentage;
                    self.feed(Input::RebalanceLeaders { imbalance_percentage }).await;
                    if self.machine.is_active() {
                        self.rebalance_at = Some(Instant::now() + rebalance.interval);
                    }
                }
            }
            Message::Event(event) => {
                if let Err(error) = self.react(&event).await {
                    self.log_error(&format!("{event:?}: {error}"));
                    if self.machine.is_active() {
                        self.resign(&error).await;
                    }
                }
            }
        }
    }

    pub(super) fn log(&self, line: &str) {
        let id = self.settings.broker_id;
        tracing::info!(target: "kafka.controller.KafkaController", "[Controller id={id}] {line}");
    }

    pub(super) fn log_error(&self, line: &str) {
        let id = self.settings.broker_id;
        tracing::error!(target: "kafka.controller.KafkaController", "[Controller id={id}] {line}");
    }

    /// A watch of a path that sends `event`; `None` if there is one.
    pub(super) fn watch(&self, path: &str, event: Event) -> Option<Watch> {
        let path = path.to_owned();
        if !self.watched.lock().insert(path.clone()) {
            return None;
        }
        let (messages, watched) = (self.messages.clone(), Arc::clone(&self.watched));
        Some(Box::new(move |_| {
            watched.lock().remove(&path);
            drop(messages.send(Message::Event(event)));
        }))
    }

    /// The watch of a path was not set.
    pub(super) fn unwatch(&self, path: &str) {
        self.watched.lock().remove(path);
    }

    async fn react(&mut self, event: &Event) -> Result<(), CoordinationError> {
        match event {
            Event::ControllerChanged => return self.follow_election().await,
            Event::SessionExpired => {
                self.stand_down(None);
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
                let node = self.get(&znodes::topic(topic), None).await?;
                let exists = node.is_some();
                if let Some((assignment, _)) = self.decode_assignment(topic, node) {
                    let topic = Arc::clone(topic);
                    self.feed(Input::Assignment { topic, assignment }).await;
                } else if exists {
                    // Whoever damaged it may mend it.
                    self.watch_topics(vec![Arc::clone(topic)]).await;
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
            Event::IsrChanges => {
                let (partitions, nodes) = self.read_isr_changes().await?;
                if !nodes.is_empty() {
                    self.feed(Input::IsrChanges { partitions, nodes }).await;
                }
            }
            Event::MovesChanged => {
                let moves = self.read_moves().await?;
                self.feed(Input::Moves(moves)).await;
            }
            Event::PreferredElection => {
                if let Some(partitions) = self.read_preferred_election().await? {
                    self.feed(Input::PreferredElection(partitions)).await;
                }
            }
            Event::StateChanged(at) => {
                self.feed(Input::StateChanged(at.clone())).await;
            }
        }
        Ok(())
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Output> {
        self.machine.step(self.clock.wall(), input)
    }

    /// Feeds the machine and carries out what it says, until it waits for nothing.
    pub(super) async fn feed(&mut self, input: Input) {
        let mut todo: VecDeque<Output> = self.step(input).into();
        while let Some(output) = todo.pop_front() {
            if self.is_over() {
                // The rest of the reign is not for the session that follows, whatever was read in that.
                self.stand_down(None);
                return;
            }
            let answer = match output {
                Output::Note(line) => {
                    self.log(&line);
                    continue;
                }
                Output::Send { broker, command } => {
                    self.send(broker, command);
                    continue;
                }
                Output::LiveBrokers(brokers) => {
                    self.channel.live_brokers(&brokers);
                    continue;
                }
                Output::Watch(topics) => {
                    self.watch_topics(topics).await;
                    continue;
                }
                Output::WatchState(at) => {
                    self.watch_state(at).await;
                    continue;
                }
                Output::Answer { id, answer } => {
                    if let Some(asked) = self.answers.remove(&id) {
                        // Who asked may be gone.
                        let _ = asked.send(answer);
                    }
                    continue;
                }
                Output::Moved => {
                    self.stand_down(None);
                    self.put(Event::ControllerChanged);
                    return;
                }
                Output::Write(operations) => Input::Written(self.write(operations).await),
                Output::ReadStates(partitions) => Input::StatesRead(self.read_states(partitions).await),
                Output::ReadUncleanTopics(topics) => {
                    Input::UncleanTopics(self.read_unclean_topics(topics).await)
                }
                Output::ReadAssignment(topic) => Input::AssignmentRead(self.read_assignment(&topic).await),
                Output::RemoveTopic { topic, fence } => {
                    Input::TopicRemoved(self.remove_topic(&topic, fence).await)
                }
            };
            todo.extend(self.step(answer));
        }
    }

    /// Sends a command; the answer comes back as an input.
    fn send(&self, broker: i32, command: BrokerCommand) {
        let about: Option<Box<dyn FnOnce(BrokerReply) -> Input + Send>> = match &command {
            BrokerCommand::LeaderAndIsr(command) => {
                let origin = command.origin;
                let partitions = command
                    .partitions
                    .iter()
                    .map(|one| one.topic_partition.clone())
                    .collect();
                Some(Box::new(move |reply| Input::LeaderAndIsrReplied {
                    broker,
                    origin,
                    partitions,
                    reply,
                }))
            }
            BrokerCommand::StopReplica(command) => {
                let origin = command.origin;
                let deleted: Vec<_> = command
                    .partitions
                    .iter()
                    .filter(|one| one.delete_partition)
                    .map(|one| one.topic_partition.clone())
                    .collect();
                (!deleted.is_empty()).then_some(Box::new(move |reply| Input::StopReplicaReplied {
                    broker,
                    origin,
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
        // All are asked before the first answer is waited for.
        let ask = |topic: &Arc<str>| {
            let event = Event::AssignmentChanged(Arc::clone(topic));
            self.get(&znodes::topic(topic), Some(event))
        };
        let asked: Vec<_> = topics.iter().map(ask).collect();
        for (topic, answer) in topics.iter().zip(asked) {
            let node = match answer.await {
                Ok(node) => node,
                Err(error) => {
                    self.log_error(&format!("topic {topic} is not watched: {error}"));
                    continue;
                }
            };
            // It may have grown between the reading that the machine has and this watch.
            let Some((present, _)) = self.decode_assignment(topic, node) else {
                continue;
            };
            if present.partitions.len() > self.machine.context().partition_count(topic) {
                self.put(Event::AssignmentChanged(Arc::clone(topic)));
            }
        }
    }

    async fn watch_state(&mut self, at: TopicPartition) {
        let path = znodes::partition_state(&at.topic, at.partition);
        if self.watched.lock().contains(&path) {
            return;
        }
        if let Err(error) = self.get(&path, Some(Event::StateChanged(at.clone()))).await {
            self.log_error(&format!("the state of {at} is not watched: {error}"));
        }
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
