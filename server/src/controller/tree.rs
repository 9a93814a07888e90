//! How the controller's shell reads the tree: brokers, topics, states, requests.
//!
//! Reading a level also sets its watch, before the reading, so that no change goes unseen. A node whose data is damaged is
//! logged and left out; it never stops the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::context::LiveBroker;
use super::machine::{ClusterReading, StateNode, StatesReading};
use super::{Event, Shell};
use crate::coordination::znodes::{
    self, BrokerRegistration, EntityConfig, EntityType, PartitionState, TopicAssignment, ZnodeError,
    config::entity_path,
};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Node, Operation};

/// Nodes per reading.
const READ_CHUNK: usize = 4096;

type NewTopics = Vec<(Arc<str>, TopicAssignment)>;

impl Shell {
    pub(super) async fn read_cluster(&self) -> Result<ClusterReading, CoordinationError> {
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
        let states = self.read_partition_states(partitions).await?;
        let deletions = self.read_deletions().await?;
        // What failed before this reign shows when brokers answer; notifications of it are stale.
        let (_, stale) = self.read_log_dir_events().await?;
        for node in stale {
            self.coordination.delete(&node, ExpectedVersion::Any).await?;
        }
        Ok(ClusterReading {
            brokers,
            topics,
            states,
            deletions,
        })
    }

    pub(super) async fn read_brokers(&self) -> Result<Vec<LiveBroker>, CoordinationError> {
        let watch = self.watch(Event::BrokersChanged);
        let ids = self
            .coordination
            .children(znodes::BROKER_IDS, watch)
            .await?
            .unwrap_or_default();
        let mut brokers = Vec::with_capacity(ids.len());
        for id in ids {
            let Ok(id) = id.parse::<i32>() else { continue };
            let watch = self.watch(Event::BrokersChanged);
            let Some(node) = self.coordination.get(&znodes::broker_id(id), watch).await? else {
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
        let watch = self.watch(Event::TopicsChanged);
        let names = self
            .coordination
            .children(znodes::TOPICS, watch)
            .await?
            .unwrap_or_default();
        let names: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let known: BTreeSet<&Arc<str>> = self.machine.context().topic_names().collect();
        let new: Vec<Arc<str>> = names
            .iter()
            .filter(|name| !known.contains(name))
            .cloned()
            .collect();
        let mut topics = Vec::with_capacity(new.len());
        for chunk in new.chunks(READ_CHUNK) {
            let paths = chunk.iter().map(|topic| znodes::topic(topic)).collect();
            let nodes = self.coordination.get_many(paths).await?;
            for (topic, node) in chunk.iter().zip(nodes) {
                if let Some(assignment) = self.decode_assignment(topic, node) {
                    topics.push((Arc::clone(topic), assignment));
                }
            }
        }
        Ok((names, topics))
    }

    /// Without a watch: the machine asks for it when it has taken the assignment.
    pub(super) async fn read_assignment(
        &self,
        topic: &str,
    ) -> Result<Option<TopicAssignment>, CoordinationError> {
        let node = self.coordination.get(&znodes::topic(topic), None).await?;
        Ok(self.decode_assignment(topic, node))
    }

    pub(super) fn decode_assignment(&self, topic: &str, node: Option<Node>) -> Option<TopicAssignment> {
        let data = node?.data.unwrap_or_default();
        self.checked(TopicAssignment::decode(&znodes::topic(topic), &data))
    }

    pub(super) async fn read_deletions(&self) -> Result<Vec<Arc<str>>, CoordinationError> {
        let watch = self.watch(Event::DeletionsChanged);
        let topics = self.coordination.children(znodes::DELETE_TOPICS, watch).await?;
        Ok(topics.unwrap_or_default().into_iter().map(Arc::from).collect())
    }

    /// The brokers that lost a log directory, and the nodes that say so.
    pub(super) async fn read_log_dir_events(
        &self,
    ) -> Result<(BTreeSet<i32>, Vec<String>), CoordinationError> {
        let watch = self.watch(Event::LogDirEvents);
        let names = self
            .coordination
            .children(znodes::LOG_DIR_EVENT_NOTIFICATION, watch)
            .await?;
        let (mut brokers, mut nodes) = (BTreeSet::new(), Vec::new());
        for name in names.unwrap_or_default() {
            let path = format!("{}/{name}", znodes::LOG_DIR_EVENT_NOTIFICATION);
            let Some(node) = self.coordination.get(&path, None).await? else {
                continue;
            };
            let data = node.data.unwrap_or_default();
            brokers.extend(self.checked(znodes::decode_log_dir_event(&path, &data)));
            nodes.push(path);
        }
        Ok((brokers, nodes))
    }

    async fn read_partition_states(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, StateNode)>, CoordinationError> {
        let mut states = Vec::with_capacity(partitions.len());
        for chunk in partitions.chunks(READ_CHUNK) {
            let path = |at: &TopicPartition| znodes::partition_state(&at.topic, at.partition);
            let nodes = self
                .coordination
                .get_many(chunk.iter().map(path).collect())
                .await?;
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
        let topics: BTreeSet<Arc<str>> = partitions.iter().map(|at| Arc::clone(&at.topic)).collect();
        let mut reading = StatesReading::default();
        match self.read_partition_states(partitions).await {
            Ok(states) => reading.states = states,
            Err(error) => reading.failed = Some(error),
        }
        for topic in topics {
            let path = entity_path(EntityType::Topics, &topic);
            let unclean = match self.coordination.get(&path, None).await {
                Ok(node) => {
                    let data = node.and_then(|node| node.data);
                    let config = self.checked(EntityConfig::decode(&path, data.as_deref()));
                    let own = config.and_then(|config| {
                        config
                            .0
                            .get("unclean.leader.election.enable")
                            .map(|value| value.trim().eq_ignore_ascii_case("true"))
                    });
                    own.unwrap_or(self.settings.unclean_leader_election_enable)
                }
                Err(_) => false,
            };
            if unclean {
                reading.unclean_topics.insert(topic);
            }
        }
        reading
    }

    /// Deletes the nodes of a topic, in Kafka's order: assignment and states, settings, request.
    pub(super) async fn remove_topic(&self, topic: &str, fence: Operation) -> Result<(), MultiError> {
        let whole = |error| MultiError {
            index: usize::MAX,
            error,
        };
        let mut paths = self
            .coordination
            .subtree(&znodes::topic(topic))
            .await
            .map_err(whole)?;
        for path in [
            entity_path(EntityType::Topics, topic),
            znodes::delete_topic(topic),
        ] {
            if self.coordination.get(&path, None).await.map_err(whole)?.is_some() {
                paths.push(path);
            }
        }
        for chunk in paths.chunks(READ_CHUNK) {
            let mut operations = vec![fence.clone()];
            operations.extend(chunk.iter().map(Operation::delete));
            self.coordination.multi(operations).await?;
        }
        Ok(())
    }

    /// Logs a damaged node and goes on without it.
    fn checked<T>(&self, read: Result<T, ZnodeError>) -> Option<T> {
        read.inspect_err(|error| self.log_error(&error.to_string())).ok()
    }
}
