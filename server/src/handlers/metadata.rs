//! Metadata (key 3): brokers, topics, leaders, from the metadata cache alone.
//!
//! A topic that is asked for by name and does not exist is created where that is allowed; its answer is LEADER_NOT_AVAILABLE
//! until the controller has placed it, and the client asks again (`KafkaApis.handleTopicMetadataRequest`). Version 0 asks for all
//! topics by an empty list, later ones by null; from 8 on the operations that a client may do are given on request.
//!
//! **Deviation:** a broker that has just joined a cluster and has not heard of the controller yet lets the question wait, up to
//! five seconds, and then names no broker and no topic. Kafka's answers at once, and says of each topic that it does not exist, which
//! some clients take for the truth: librdkafka from 2.10 on drops the brokers that it knew, and is silent for minutes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use super::RequestContext;
use crate::admin::error::AdminErrorKind;
use crate::broker::Broker;
use crate::cluster;
use crate::metadata_cache::{MetadataSnapshot, PartitionMetadata, TopicMetadata};
use crate::protocol::ErrorCode;
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};

const NO_LEADER: i32 = -1;
const NO_CONTROLLER: i32 = -1;
const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
/// Without an authorizer everybody may do everything. A bit per operation, numbered as in `AclOperation.java`: read 3, write 4,
/// create 5, delete 6, alter 7, describe 8, cluster action 9, describe configs 10, alter configs 11, idempotent write 12.
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// How long the controller may take to greet a broker that has registered.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(5);

pub async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: &MetadataRequest<'_>,
) -> MetadataResponse<'static> {
    let greeting = timeout(GREETING_WAIT_MAX, broker.metadata.heard_of_the_controller()).await;
    let view = View {
        broker,
        context,
        snapshot: broker.metadata.snapshot(),
    };
    let names = match &request.topics {
        _ if greeting.is_err() => Some(Vec::new()),
        Some(topics) if context.api_version > 0 || !topics.is_empty() => {
            let mut seen = HashSet::new();
            let names = topics.iter().map(|topic| topic.name.into_owned());
            Some(names.filter(|name| seen.insert(name.clone())).collect::<Vec<_>>())
        }
        _ => None,
    };
    let mut topics = Vec::new();
    match names {
        None => topics.extend(view.snapshot.topics().map(|topic| view.topic(topic))),
        Some(names) => {
            for name in names {
                topics.push(match view.snapshot.topic(&name) {
                    Some(topic) => view.topic(topic),
                    None => missing(broker, &name, request.allow_auto_topic_creation).await,
                });
            }
        }
    }
    if request.include_topic_authorized_operations {
        for topic in &mut topics {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let asked = request.include_cluster_authorized_operations;
    MetadataResponse {
        brokers: view.brokers().into(),
        cluster_id: Some(Cow::Owned(broker.cluster_id.to_string())),
        controller_id: view.snapshot.controller_id().unwrap_or(NO_CONTROLLER),
        topics: topics.into(),
        cluster_authorized_operations: if asked {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        },
        ..MetadataResponse::default()
    }
}

async fn missing(broker: &Broker, name: &str, may_create: bool) -> MetadataResponseTopic<'static> {
    let is_internal = broker.is_internal_topic(name);
    let creates = is_internal || (may_create && broker.config().topics.auto_create_topics_enable);
    let error = if creates {
        match broker.topics.auto_create_topic(name).await {
            Ok(()) => ErrorCode::LeaderNotAvailable,
            Err(error) if error.kind == AdminErrorKind::CoordinatorNotAvailable => {
                ErrorCode::InvalidReplicationFactor
            }
            Err(error) => error.kind.into(),
        }
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    MetadataResponseTopic {
        error_code: error.code(),
        name: Cow::Owned(name.to_owned()),
        is_internal,
        ..MetadataResponseTopic::default()
    }
}

/// One moment of the cluster as a client of one listener in one version sees it.
struct View<'a> {
    broker: &'a Broker,
    context: &'a RequestContext,
    snapshot: std::sync::Arc<MetadataSnapshot>,
}

impl View<'_> {
    fn brokers(&self) -> Vec<MetadataResponseBroker<'static>> {
        let node = |broker: &cluster::Broker| {
            let endpoint = broker.endpoint(&self.context.peer.listener)?;
            Some(MetadataResponseBroker {
                node_id: broker.id,
                host: Cow::Owned(endpoint.host.to_string()),
                port: endpoint.port,
                rack: broker.rack.as_ref().map(|rack| Cow::Owned(rack.to_string())),
            })
        };
        self.snapshot.brokers().filter_map(node).collect()
    }

    fn topic(&self, topic: &TopicMetadata) -> MetadataResponseTopic<'static> {
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| self.partition(partition))
            .collect();
        MetadataResponseTopic {
            name: Cow::Owned(topic.name.to_string()),
            is_internal: self.broker.is_internal_topic(&topic.name),
            partitions: partitions.into(),
            ..MetadataResponseTopic::default()
        }
    }

    fn is_alive(&self, id: i32) -> bool {
        let broker = self.snapshot.broker(id);
        broker.is_some_and(|broker| broker.endpoint(&self.context.peer.listener).is_some())
    }

    fn partition(&self, partition: &PartitionMetadata) -> MetadataResponsePartition<'static> {
        let version = self.context.api_version;
        // Version 0 shows only those that are alive.
        let shown = |ids: &[i32]| -> Vec<i32> {
            ids.iter()
                .copied()
                .filter(|id| version > 0 || self.is_alive(*id))
                .collect()
        };
        let (replicas, isr) = (shown(&partition.replicas), shown(&partition.isr));
        let leader = partition.leader.filter(|leader| self.is_alive(*leader));
        let error = match (partition.leader, leader) {
            (_, Some(_)) if replicas.len() < partition.replicas.len() || isr.len() < partition.isr.len() => {
                ErrorCode::ReplicaNotAvailable
            }
            (_, Some(_)) => ErrorCode::None,
            (Some(id), None) if self.snapshot.broker(id).is_some() && version >= 6 => {
                ErrorCode::ListenerNotFound
            }
            _ => ErrorCode::LeaderNotAvailable,
        };
        MetadataResponsePartition {
            error_code: error.code(),
            partition_index: partition.partition,
            leader_id: leader.unwrap_or(NO_LEADER),
            leader_epoch: partition.leader_epoch.get(),
            replica_nodes: replicas.into(),
            isr_nodes: isr.into(),
            offline_replicas: partition.offline_replicas.to_vec().into(),
        }
    }
}
