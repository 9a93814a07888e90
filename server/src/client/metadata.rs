//! The cluster as a broker described it: who is there, who leads what. A snapshot that owns its text.
//!
//! Source: `MetadataResponse.json`, `Cluster.java`.

use std::collections::BTreeMap;

use super::Address;
use crate::protocol::ErrorCode;
use crate::protocol::messages::metadata::{MetadataResponse, MetadataResponseTopic};

/// What one answer to Metadata said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// Unknown to brokers before 0.10.1.
    pub cluster_id: Option<String>,
    /// Broker id of the controller.
    pub controller: Option<i32>,
    /// Those that are alive, by id.
    pub brokers: BTreeMap<i32, Node>,
    /// Those that were asked for, by name; also such as could not be described.
    pub topics: BTreeMap<String, TopicMetadata>,
}

/// A broker that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub address: Address,
    pub rack: Option<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub name: String,
    /// `None` of [`ErrorCode`] when the topic is described.
    pub error: ErrorCode,
    /// Whether it belongs to the brokers themselves.
    pub is_internal: bool,
    /// Ascending by id.
    pub partitions: Vec<PartitionMetadata>,
}

/// A partition; the lists are of broker ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub id: i32,
    pub error: ErrorCode,
    pub leader: Option<i32>,
    /// −1 when unknown.
    pub leader_epoch: i32,
    /// The preferred leader first.
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline_replicas: Vec<i32>,
}

impl ClusterMetadata {
    pub(super) fn of(response: &MetadataResponse<'_>) -> ClusterMetadata {
        let brokers = response.brokers.iter().filter_map(|broker| {
            let node = Node {
                id: broker.node_id,
                address: Address {
                    host: broker.host.as_ref().into(),
                    port: u16::try_from(broker.port).ok()?,
                },
                rack: broker.rack.map(Into::into),
            };
            Some((node.id, node))
        });
        let topics = response.topics.iter().map(|topic| {
            let topic = TopicMetadata::of(&topic);
            (topic.name.clone(), topic)
        });
        ClusterMetadata {
            cluster_id: response.cluster_id.as_deref().map(str::to_owned),
            controller: Some(response.controller_id).filter(|&id| id >= 0),
            brokers: brokers.collect(),
            topics: topics.collect(),
        }
    }

    /// The broker that leads a partition, if one does and is alive.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let partition = self.topics.get(topic)?.partition(partition)?;
        partition.leader.filter(|id| self.brokers.contains_key(id))
    }
}

impl TopicMetadata {
    fn of(topic: &MetadataResponseTopic<'_>) -> TopicMetadata {
        let partitions = topic.partitions.iter().map(|partition| PartitionMetadata {
            id: partition.partition_index,
            error: ErrorCode::from_code(partition.error_code),
            leader: Some(partition.leader_id).filter(|&id| id >= 0),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes.iter().collect(),
            isr: partition.isr_nodes.iter().collect(),
            offline_replicas: partition.offline_replicas.iter().collect(),
        });
        let mut partitions: Vec<PartitionMetadata> = partitions.collect();
        partitions.sort_by_key(|partition| partition.id);
        TopicMetadata {
            name: topic.name.to_string(),
            error: ErrorCode::from_code(topic.error_code),
            is_internal: topic.is_internal,
            partitions,
        }
    }

    pub fn partition(&self, id: i32) -> Option<&PartitionMetadata> {
        let at = self
            .partitions
            .binary_search_by_key(&id, |partition| partition.id);
        at.ok().map(|at| &self.partitions[at])
    }
}
