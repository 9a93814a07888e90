//! How the controller's shell reads the tree: brokers, topics, states, requests.
//!
//! Reading a level also sets its watch, before the reading, so that no change goes unseen. A node whose data is damaged is
//! logged and left out; it never stops the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::TopicPartition;

use super::context::LiveBroker;
use super::machine::{AssignmentReading, ClusterReading, RequestedMoves, StateNode, StatesReading, fitting};
use super::shell::{Event, Shell};
use crate::coordination::znodes::{
    self, BrokerRegistration, EntityConfig, EntityType, PartitionState, TopicAssignment, ZnodeError,
    config::entity_path,
};
use crate::coordination::{CoordinationError, MultiError, Node, Operation};

/// Nodes per reading.
const READ_CHUNK: usize = 4096;

type NewTopics = Vec<(Arc<str>, TopicAssignment)>;

impl Shell {
    /// A node, watched for `event`.
    pub(super) fn get(
        &self,
        path: &str,
        event: Option<Event>,
    ) -> impl Future<Output = Result<Option<Node>, CoordinationError>> + Send + use<'_> {
        let watch = event.and_then(|event| self.watch(path, event));
        let watched = watch.is_some().then(|| path.to_owned());
        // Asked before anybody waits for the answer.
        let asked = self.coordination.get(path, watch);
        async move {
            let node = asked.await;
            if node.is_err()
                && let Some(path) = watched
            {
                self.unwatch(&path);
            }
            node
        }
    }

    /// The children of a node, watched for `event`; none if it does not exist.
    async fn children(&self, path: &str, event: Event) -> Result<Vec<String>, CoordinationError> {
        let watch = self.watch(path, event);
        let is_new = watch.is_some();
        let children = self.coordination.children(path, watch).await;
        // Where nothing is, nothing is watched.
        if is_new && !matches!(children, Ok(Some(_))) {
            self.unwatch(path);
        }
        Ok(children?.unwrap_or_default())
    }

    pub(super) async fn read_cluster(&self, fence: &Operation) -> Result<ClusterReading, CoordinationError> {
        self.forget_notifications(fence).await?;
        let brokers = self.read_brokers().await?;
        let (_, topics) = self.read_topics().await?;
        let partitions: Vec<TopicPartition> = topics
            .iter()
            .flat_map(|(topic, assignment)| {
                assignment
                    .partitions
                    .keys()
                    .map(|number| TopicPartition::new(Arc::clone(topic), *number))
            })
            .collect();
        Ok(ClusterReading {
            brokers,
            topics,
            states: self.read_partition_states(partitions).await?,
            deletions: self.read_deletions().await?,
            moves: self.read_moves().await?,
            preferred_election: self.read_preferred_election().await?,
        })
    }

    /// What was told before this reign is in what is read now.
    async fn forget_notifications(&self, fence: &Operation) -> Result<(), CoordinationError> {
        loop {
            let (_, mut stale) = self.read_log_dir_events().await?;
            stale.extend(self.read_isr_changes().await?.1);
            match self.delete_all(&stale, fence).await {
                // The last controller was still at it.
                Err(failed)
                    if failed.index > 0 && matches!(failed.error, CoordinationError::NoNode { .. }) => {}
                answer => return answer.map_err(|failed| failed.error),
            }
        }
    }

    pub(super) async fn read_brokers(&self) -> Result<Vec<LiveBroker>, CoordinationError> {
        let ids = self.children(znodes::BROKER_IDS, Event::BrokersChanged).await?;
        let mut brokers = Vec::with_capacity(ids.len());
        for id in ids {
            let Ok(id) = id.parse::<i32>() else { continue };
            let path = znodes::broker_id(id);
            let Some(node) = self.get(&path, Some(Event::BrokersChanged)).await? else {
                continue;
            };
            let data = node.data.unwrap_or_default();
            if let Some(registration) = self.checked(BrokerRegistration::decode(id, &data)) {
                brokers.push(LiveBroker {
                    broker: registration.broker,
                    epoch: node.stat.czxid,
                });
            }
        }
        Ok(brokers)
    }

    /// All names, and the assignments of those that the machine does not know.
    pub(super) async fn read_topics(&self) -> Result<(BTreeSet<Arc<str>>, NewTopics), CoordinationError> {
        let names = self.children(znodes::TOPICS, Event::TopicsChanged).await?;
        let names: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let known: BTreeSet<&Arc<str>> = self.machine.context().topic_names().collect();
        let new: Vec<Arc<str>> = names
            .iter()
            .filter(|name| !known.contains(name))
            .cloned()
            .collect();
        let mut topics = Vec::with_capacity(new.len());
        for chunk in new.chunks(READ_CHUNK) {
            let paths: Vec<String> = chunk.iter().map(|topic| znodes::topic(topic)).collect();
            let nodes = self.coordination.get_many(paths).await?;
            for (topic, node) in chunk.iter().zip(nodes) {
                if let Some((assignment, _)) = self.decode_assignment(topic, node) {
                    topics.push((Arc::clone(topic), assignment));
                }
            }
        }
        Ok((names, topics))
    }

    /// Without a watch: the machine asks for it when it has taken the assignment.
    pub(super) async fn read_assignment(&self, topic: &str) -> AssignmentReading {
        let node = self.get(&znodes::topic(topic), None).await?;
        Ok(self.decode_assignment(topic, node))
    }

    /// The assignment, and the data version of its node.
    pub(super) fn decode_assignment(
        &self,
        topic: &str,
        node: Option<Node>,
    ) -> Option<(TopicAssignment, i32)> {
        let node = node?;
        let data = node.data.unwrap_or_default();
        let assignment = self.checked(TopicAssignment::decode(&znodes::topic(topic), &data))?;
        Some((assignment, node.stat.version))
    }

    pub(super) async fn read_deletions(&self) -> Result<Vec<Arc<str>>, CoordinationError> {
        let topics = self
            .children(znodes::DELETE_TOPICS, Event::DeletionsChanged)
            .await?;
        Ok(topics.into_iter().map(Arc::from).collect())
    }

    pub(super) async fn read_moves(&self) -> Result<Option<RequestedMoves>, CoordinationError> {
        let path = znodes::REASSIGN_PARTITIONS;
        let Some(node) = self.get(path, Some(Event::MovesChanged)).await? else {
            return Ok(None);
        };
        let data = node.data.unwrap_or_default();
        let moves = self.checked(znodes::topic::decode_reassignment(path, &data));
        Ok(Some(RequestedMoves {
            // What nobody can read asks for nothing, and goes.
            moves: moves.unwrap_or_default(),
            version: node.stat.version,
        }))
    }

    pub(super) async fn read_preferred_election(
        &self,
    ) -> Result<Option<Vec<TopicPartition>>, CoordinationError> {
        let path = znodes::PREFERRED_REPLICA_ELECTION;
        let Some(node) = self.get(path, Some(Event::PreferredElection)).await? else {
            return Ok(None);
        };
        let data = node.data.unwrap_or_default();
        let partitions = self.checked(znodes::topic::decode_partitions(path, &data));
        Ok(Some(partitions.unwrap_or_default()))
    }

    /// The brokers that lost a log directory, and the nodes that say so.
    pub(super) async fn read_log_dir_events(
        &self,
    ) -> Result<(BTreeSet<i32>, Vec<String>), CoordinationError> {
        let root = znodes::LOG_DIR_EVENT_NOTIFICATION;
        let notes = self.read_notifications(root, Event::LogDirEvents).await?;
        let (mut brokers, mut nodes) = (BTreeSet::new(), Vec::new());
        for (path, data) in notes {
            brokers.extend(self.checked(znodes::decode_log_dir_event(&path, &data)));
            nodes.push(path);
        }
        Ok((brokers, nodes))
    }

    /// The partitions whose in-sync sets their leaders changed, and the nodes that say so.
    pub(super) async fn read_isr_changes(
        &self,
    ) -> Result<(Vec<TopicPartition>, Vec<String>), CoordinationError> {
        let root = znodes::ISR_CHANGE_NOTIFICATION;
        let notes = self.read_notifications(root, Event::IsrChanges).await?;
        let (mut partitions, mut nodes) = (BTreeSet::new(), Vec::new());
        for (path, data) in notes {
            let told = self.checked(znodes::topic::decode_partitions(&path, &data));
            partitions.extend(told.into_iter().flatten());
            nodes.push(path);
        }
        Ok((partitions.into_iter().collect(), nodes))
    }

    /// Paths and data of the children, oldest first.
    async fn read_notifications(
        &self,
        root: &str,
        event: Event,
    ) -> Result<Vec<(String, Bytes)>, CoordinationError> {
        let names = self.children(root, event).await?;
        let paths: Vec<String> = names.iter().map(|name| format!("{root}/{name}")).collect();
        let mut notes = Vec::with_capacity(paths.len());
        for chunk in paths.chunks(READ_CHUNK) {
            for (path, node) in chunk
                .iter()
                .zip(self.coordination.get_many(chunk.to_vec()).await?)
            {
                let data = node.map(|node| node.data.unwrap_or_default());
                notes.extend(data.map(|data| (path.clone(), data)));
            }
        }
        Ok(notes)
    }

    async fn read_partition_states(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, StateNode)>, CoordinationError> {
        let mut states = Vec::with_capacity(partitions.len());
        for chunk in partitions.chunks(READ_CHUNK) {
            let path = |at: &TopicPartition| znodes::partition_state(&at.topic, at.partition);
            let paths: Vec<String> = chunk.iter().map(path).collect();
            let nodes = self.coordination.get_many(paths).await?;
            for (at, node) in chunk.iter().zip(nodes) {
                let Some(node) = node else { continue };
                let data = node.data.unwrap_or_default();
                let state = PartitionState::decode(&path(at), &data, node.stat.version);
                if let Some(state) = self.checked(state) {
                    let mzxid = node.stat.mzxid;
                    states.push((at.clone(), StateNode { state, mzxid }));
                }
            }
        }
        Ok(states)
    }

    pub(super) async fn read_states(&self, partitions: Vec<TopicPartition>) -> StatesReading {
        match self.read_partition_states(partitions).await {
            Ok(states) => StatesReading { states, failed: None },
            Err(error) => StatesReading {
                states: Vec::new(),
                failed: Some(error),
            },
        }
    }

    /// Those whose settings, or the broker's, let an out-of-sync replica lead. What cannot be read does not.
    pub(super) async fn read_unclean_topics(&self, topics: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let path = |topic: &Arc<str>| entity_path(EntityType::Topics, topic);
        let paths: Vec<String> = topics.iter().map(path).collect();
        let nodes = match self.coordination.get_many(paths).await {
            Ok(nodes) => nodes,
            Err(error) => {
                self.log_error(&format!("settings of topics could not be read: {error}"));
                return BTreeSet::new();
            }
        };
        let is_unclean = |(topic, node): &(Arc<str>, Option<Node>)| {
            let data = node.as_ref().and_then(|node| node.data.as_deref());
            let config = self.checked(EntityConfig::decode(&path(topic), data));
            config.is_some_and(|config| {
                let own = config.0.get("unclean.leader.election.enable");
                own.map_or(self.settings.unclean_leader_election_enable, |value| {
                    value.trim().eq_ignore_ascii_case("true")
                })
            })
        };
        let unclean = topics.into_iter().zip(nodes).filter(is_unclean);
        unclean.map(|(topic, _)| topic).collect()
    }

    /// Deletes the nodes of a topic: states, then in one write assignment, settings and request.
    ///
    /// As soon as they are gone the name is free. After an answer that was lost, or another surprise, a topic without a request to
    /// delete it is another one of that name.
    pub(super) async fn remove_topic(&self, topic: &str, fence: Operation) -> Result<(), MultiError> {
        let whole = |error| MultiError {
            index: usize::MAX,
            error,
        };
        let root = znodes::topic(topic);
        let request = znodes::delete_topic(topic);
        let last = [
            root.clone(),
            entity_path(EntityType::Topics, topic),
            request.clone(),
        ];
        let mut is_first = true;
        loop {
            let found = self.coordination.get_many(last.to_vec()).await.map_err(whole)?;
            let there = last.iter().zip(found).filter(|(_, node)| node.is_some());
            let there: Vec<String> = there.map(|(path, _)| path.clone()).collect();
            if !is_first && !there.contains(&request) {
                return Ok(());
            }
            is_first = false;
            let mut below = self.subtree(root.clone()).await.map_err(whole)?;
            below.retain(|path| *path != root);
            let removed = match self.delete_all(&below, &fence).await {
                Ok(()) => self.delete_all(&there, &fence).await,
                failed => failed,
            };
            match removed {
                // Someone else deleted or created below it: what is there now goes.
                Err(failed)
                    if failed.index > 0
                        && matches!(
                            failed.error,
                            CoordinationError::NoNode { .. } | CoordinationError::NotEmpty { .. }
                        ) => {}
                answer => return answer,
            }
        }
    }

    async fn delete_all(&self, paths: &[String], fence: &Operation) -> Result<(), MultiError> {
        let mut rest = paths;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(fitting(rest.iter().map(String::len)));
            let mut operations = vec![fence.clone()];
            operations.extend(piece.iter().map(Operation::delete));
            self.write(operations).await?;
            rest = others;
        }
        Ok(())
    }

    /// `path` and everything below it, children before parents; nothing if it does not exist. A level is asked for at a time.
    async fn subtree(&self, path: String) -> Result<Vec<String>, CoordinationError> {
        let (mut found, mut level) = (Vec::new(), vec![path]);
        while !level.is_empty() {
            let asked: Vec<_> = level
                .iter()
                .map(|path| self.coordination.children(path, None))
                .collect();
            let mut below = Vec::new();
            for (path, children) in level.into_iter().zip(asked) {
                if let Some(children) = children.await? {
                    below.extend(children.iter().map(|child| format!("{path}/{child}")));
                    found.push(path);
                }
            }
            level = below;
        }
        found.reverse();
        Ok(found)
    }

    /// Logs a damaged node and goes on without it.
    fn checked<T>(&self, read: Result<T, ZnodeError>) -> Option<T> {
        read.inspect_err(|error| self.log_error(&error.to_string())).ok()
    }
}
