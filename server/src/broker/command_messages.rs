//! A controller's commands as messages, and messages as commands: both directions beside each other, for the channel that sends
//! them and the handlers that receive them.
//!
//! | version | what it cannot say |
//! |---|---|
//! | LeaderAndIsr 0 | that a partition is new; it counts as known |
//! | LeaderAndIsr 0-1, StopReplica 0, UpdateMetadata 0-4 | the broker epoch; it counts as unknown |
//! | LeaderAndIsr 0-2 | which replicas a reassignment brings and takes |
//! | StopReplica 0-2 | leader epochs; and all its partitions are deleted, or none: a command may take two messages |
//! | UpdateMetadata 0 | any endpoint but the PLAINTEXT one |
//! | UpdateMetadata 1-2 | names of listeners; they count as named after their security protocol |
//! | UpdateMetadata 0-1 | racks |
//! | UpdateMetadata 0-3 | offline replicas |
//!
//! What a message names is made up of strings and numbers from outside: a partition whose name is not that of a directory is an
//! error here, before anybody acts on it. Sources: `LeaderAndIsrRequest`, `StopReplicaRequest`, `UpdateMetadataRequest` and
//! `AbstractControllerBrokerRequestBatch`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use milena_engine::log_manager::PartitionDirectoryName;
use milena_engine::units::{LeaderEpoch, TopicPartition};

use crate::cluster::{Broker, Endpoint, LeaderAndIsr, SecurityProtocol};
use crate::controller::command::{
    BrokerReply, CommandOrigin, CommandRefusal, LeaderAndIsrCommand, LeaderAndIsrPartition, MetadataLeader,
    PartitionMetadataUpdate, StopReplicaCommand, StopReplicaPartition, UpdateMetadataCommand,
};
use crate::protocol::messages::controller_commands::{
    LeaderAndIsrLiveLeader, LeaderAndIsrPartitionError, LeaderAndIsrPartitionState, LeaderAndIsrRequest,
    LeaderAndIsrResponse, LeaderAndIsrTopicState, StopReplicaPartitionError, StopReplicaPartitionState,
    StopReplicaPartitionV0, StopReplicaRequest, StopReplicaResponse, StopReplicaTopicState,
    StopReplicaTopicV1, UpdateMetadataBroker, UpdateMetadataEndpoint, UpdateMetadataPartitionState,
    UpdateMetadataRequest, UpdateMetadataResponse, UpdateMetadataTopicState,
};
use crate::protocol::{Array, ErrorCode};

/// Nobody leads.
const NO_LEADER: i32 = -1;
/// `LeaderAndIsr.LeaderDuringDelete`
const LEADER_DURING_DELETE: i32 = -2;
/// `LeaderAndIsr.EpochDuringDelete`
const EPOCH_DURING_DELETE: i32 = -2;
/// A partition with a larger number is nobody's: numbers are indices of tables here.
const PARTITION_MAX: i32 = 1_000_000;

/// A message that no controller sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableCommand {
    #[error("found partition {0}, which is the name of no log directory")]
    Partition(TopicPartition),
    #[error("found security protocol {id} at broker {broker}, expected 0 to 3")]
    SecurityProtocol { broker: i32, id: i16 },
}

/// Partitions in messages come by topic.
struct Topic(Arc<str>);

impl Topic {
    fn partition(&self, index: i32) -> Result<TopicPartition, UnusableCommand> {
        let name = TopicPartition::new(Arc::clone(&self.0), index);
        match PartitionDirectoryName::parse(&name.to_string()) {
            Some(PartitionDirectoryName::Current(parsed)) if parsed == name && index <= PARTITION_MAX => {
                Ok(name)
            }
            _ => Err(UnusableCommand::Partition(name)),
        }
    }
}

/// Partitions of one topic stand beside each other in a command.
fn by_topic<P>(partitions: &[P], name: fn(&P) -> &TopicPartition) -> impl Iterator<Item = (&str, &[P])> {
    let topics = partitions.chunk_by(move |one, other| name(one).topic == name(other).topic);
    topics.map(move |partitions| (&*name(&partitions[0]).topic, partitions))
}

fn ids(ids: &[i32]) -> Array<'static, i32> {
    ids.iter().copied().collect()
}

fn shared(ids: &Array<'_, i32>) -> Arc<[i32]> {
    ids.iter().collect()
}

/// `listener` is the one of brokers among themselves, on which leaders are reached.
pub fn leader_and_isr_request<'c>(
    command: &'c LeaderAndIsrCommand,
    version: i16,
    listener: &str,
) -> LeaderAndIsrRequest<'c> {
    let leaders = command.live_leaders.iter().filter_map(|leader| {
        let endpoint = leader.endpoint(listener)?;
        Some(LeaderAndIsrLiveLeader {
            broker_id: leader.id,
            host_name: Cow::Borrowed(&*endpoint.host),
            port: endpoint.port,
        })
    });
    let mut request = LeaderAndIsrRequest {
        controller_id: command.origin.controller_id,
        controller_epoch: command.origin.controller_epoch,
        broker_epoch: command.origin.broker_epoch,
        live_leaders: leaders.collect(),
        ..LeaderAndIsrRequest::default()
    };
    if version < 2 {
        request.ungrouped_partition_states = command.partitions.iter().map(leader_and_isr_state).collect();
    } else {
        let topics = by_topic(&command.partitions, |partition| &partition.topic_partition);
        let topics = topics.map(|(topic, partitions)| LeaderAndIsrTopicState {
            topic_name: Cow::Borrowed(topic),
            partition_states: partitions.iter().map(leader_and_isr_state).collect(),
        });
        request.topic_states = topics.collect();
    }
    request
}

fn leader_and_isr_state(partition: &LeaderAndIsrPartition) -> LeaderAndIsrPartitionState<'_> {
    LeaderAndIsrPartitionState {
        topic_name: Cow::Borrowed(&*partition.topic_partition.topic),
        partition_index: partition.topic_partition.partition,
        controller_epoch: partition.controller_epoch,
        leader: partition.state.leader.unwrap_or(NO_LEADER),
        leader_epoch: partition.state.leader_epoch.get(),
        isr: ids(&partition.state.isr),
        zk_version: partition.state.zk_version,
        replicas: ids(&partition.replicas),
        adding_replicas: ids(&partition.adding_replicas),
        removing_replicas: ids(&partition.removing_replicas),
        is_new: partition.is_new,
    }
}

/// The leaders' addresses are left out.
///
/// # Errors
/// [`UnusableCommand::Partition`].
pub fn leader_and_isr_command(
    request: &LeaderAndIsrRequest<'_>,
) -> Result<LeaderAndIsrCommand, UnusableCommand> {
    let mut partitions = Vec::new();
    for state in request.ungrouped_partition_states.iter() {
        partitions.push(leader_and_isr_partition(
            &Topic(state.topic_name.as_ref().into()),
            &state,
        )?);
    }
    for states in request.topic_states.iter() {
        let topic = Topic(states.topic_name.as_ref().into());
        for state in states.partition_states.iter() {
            partitions.push(leader_and_isr_partition(&topic, &state)?);
        }
    }
    Ok(LeaderAndIsrCommand {
        origin: CommandOrigin {
            controller_id: request.controller_id,
            controller_epoch: request.controller_epoch,
            broker_epoch: request.broker_epoch,
        },
        partitions,
        live_leaders: Vec::new(),
    })
}

fn leader_and_isr_partition(
    topic: &Topic,
    state: &LeaderAndIsrPartitionState<'_>,
) -> Result<LeaderAndIsrPartition, UnusableCommand> {
    Ok(LeaderAndIsrPartition {
        topic_partition: topic.partition(state.partition_index)?,
        controller_epoch: state.controller_epoch,
        state: LeaderAndIsr {
            leader: (state.leader >= 0).then_some(state.leader),
            leader_epoch: LeaderEpoch(state.leader_epoch),
            isr: shared(&state.isr),
            zk_version: state.zk_version,
        },
        replicas: shared(&state.replicas),
        adding_replicas: shared(&state.adding_replicas),
        removing_replicas: shared(&state.removing_replicas),
        is_new: state.is_new,
    })
}

/// Below version 3, which says it for each partition, what is to be deleted and what is not go apart, deletions first.
pub fn stop_replica_requests(command: &StopReplicaCommand, version: i16) -> Vec<StopReplicaRequest<'_>> {
    let request = || StopReplicaRequest {
        controller_id: command.origin.controller_id,
        controller_epoch: command.origin.controller_epoch,
        broker_epoch: command.origin.broker_epoch,
        ..StopReplicaRequest::default()
    };
    let partitions = &command.partitions;
    if version >= 3 {
        let topics = by_topic(partitions, |partition| &partition.topic_partition);
        let topics = topics.map(|(topic, partitions)| {
            let states = partitions.iter().map(|partition| StopReplicaPartitionState {
                partition_index: partition.topic_partition.partition,
                leader_epoch: partition
                    .leader_epoch
                    .map_or(EPOCH_DURING_DELETE, LeaderEpoch::get),
                delete_partition: partition.delete_partition,
            });
            StopReplicaTopicState {
                topic_name: Cow::Borrowed(topic),
                partition_states: states.collect(),
            }
        });
        return vec![StopReplicaRequest {
            topic_states: topics.collect(),
            ..request()
        }];
    }
    let alike = |delete_partitions: bool| {
        let names: Vec<&TopicPartition> = partitions
            .iter()
            .filter(|partition| partition.delete_partition == delete_partitions)
            .map(|partition| &partition.topic_partition)
            .collect();
        let mut request = StopReplicaRequest {
            delete_partitions,
            ..request()
        };
        if version == 0 {
            let partitions = names.iter().map(|name| StopReplicaPartitionV0 {
                topic_name: Cow::Borrowed(&*name.topic),
                partition_index: name.partition,
            });
            request.ungrouped_partitions = partitions.collect();
        } else {
            let topics = names.chunk_by(|one, other| one.topic == other.topic);
            let topics = topics.map(|names| StopReplicaTopicV1 {
                name: Cow::Borrowed(&*names[0].topic),
                partition_indexes: names.iter().map(|name| name.partition).collect(),
            });
            request.topics = topics.collect();
        }
        (!names.is_empty()).then_some(request)
    };
    [true, false].into_iter().filter_map(alike).collect()
}

/// # Errors
/// [`UnusableCommand::Partition`].
pub fn stop_replica_command(request: &StopReplicaRequest<'_>) -> Result<StopReplicaCommand, UnusableCommand> {
    let mut partitions = Vec::new();
    let without_epoch = |topic_partition| StopReplicaPartition {
        topic_partition,
        leader_epoch: None,
        delete_partition: request.delete_partitions,
    };
    for partition in request.ungrouped_partitions.iter() {
        let topic = Topic(partition.topic_name.as_ref().into());
        partitions.push(without_epoch(topic.partition(partition.partition_index)?));
    }
    for topic in request.topics.iter() {
        let name = Topic(topic.name.as_ref().into());
        for index in topic.partition_indexes.iter() {
            partitions.push(without_epoch(name.partition(index)?));
        }
    }
    for topic in request.topic_states.iter() {
        let name = Topic(topic.topic_name.as_ref().into());
        for state in topic.partition_states.iter() {
            partitions.push(StopReplicaPartition {
                topic_partition: name.partition(state.partition_index)?,
                leader_epoch: (state.leader_epoch >= 0).then_some(LeaderEpoch(state.leader_epoch)),
                delete_partition: state.delete_partition,
            });
        }
    }
    Ok(StopReplicaCommand {
        origin: CommandOrigin {
            controller_id: request.controller_id,
            controller_epoch: request.controller_epoch,
            broker_epoch: request.broker_epoch,
        },
        partitions,
    })
}

pub fn update_metadata_request(command: &UpdateMetadataCommand, version: i16) -> UpdateMetadataRequest<'_> {
    let mut request = UpdateMetadataRequest {
        controller_id: command.origin.controller_id,
        controller_epoch: command.origin.controller_epoch,
        broker_epoch: command.origin.broker_epoch,
        live_brokers: command.live_brokers.iter().map(live_broker).collect(),
        ..UpdateMetadataRequest::default()
    };
    if version < 5 {
        request.ungrouped_partition_states = command.partitions.iter().map(metadata_state).collect();
    } else {
        let topics = by_topic(&command.partitions, |partition| &partition.topic_partition);
        let topics = topics.map(|(topic, partitions)| UpdateMetadataTopicState {
            topic_name: Cow::Borrowed(topic),
            partition_states: partitions.iter().map(metadata_state).collect(),
        });
        request.topic_states = topics.collect();
    }
    request
}

fn live_broker(broker: &Broker) -> UpdateMetadataBroker<'_> {
    let plaintext = broker.endpoint(SecurityProtocol::Plaintext.name());
    let endpoints = broker.endpoints.iter().map(|endpoint| UpdateMetadataEndpoint {
        port: endpoint.port,
        host: Cow::Borrowed(&*endpoint.host),
        listener: Cow::Borrowed(&*endpoint.listener),
        security_protocol: endpoint.security_protocol.id(),
    });
    UpdateMetadataBroker {
        id: broker.id,
        v0_host: Cow::Borrowed(plaintext.map_or("", |endpoint| &*endpoint.host)),
        v0_port: plaintext.map_or(-1, |endpoint| endpoint.port),
        endpoints: endpoints.collect(),
        rack: broker.rack.as_deref().map(Cow::Borrowed),
    }
}

fn metadata_state(partition: &PartitionMetadataUpdate) -> UpdateMetadataPartitionState<'_> {
    UpdateMetadataPartitionState {
        topic_name: Cow::Borrowed(&*partition.topic_partition.topic),
        partition_index: partition.topic_partition.partition,
        controller_epoch: partition.controller_epoch,
        leader: match partition.leader {
            MetadataLeader::Broker(id) => id,
            MetadataLeader::None => NO_LEADER,
            MetadataLeader::Deleted => LEADER_DURING_DELETE,
        },
        leader_epoch: partition.leader_epoch.get(),
        isr: ids(&partition.isr),
        zk_version: partition.zk_version,
        replicas: ids(&partition.replicas),
        offline_replicas: ids(&partition.offline_replicas),
    }
}

/// `version` is that of the request.
///
/// # Errors
/// See [`UnusableCommand`].
pub fn update_metadata_command(
    request: &UpdateMetadataRequest<'_>,
    version: i16,
) -> Result<UpdateMetadataCommand, UnusableCommand> {
    let mut partitions = Vec::new();
    for state in request.ungrouped_partition_states.iter() {
        partitions.push(metadata_update(&Topic(state.topic_name.as_ref().into()), &state)?);
    }
    for states in request.topic_states.iter() {
        let topic = Topic(states.topic_name.as_ref().into());
        for state in states.partition_states.iter() {
            partitions.push(metadata_update(&topic, &state)?);
        }
    }
    let brokers = request.live_brokers.iter();
    let live_brokers: Result<Vec<Broker>, UnusableCommand> =
        brokers.map(|broker| announced_broker(&broker, version)).collect();
    Ok(UpdateMetadataCommand {
        origin: CommandOrigin {
            controller_id: request.controller_id,
            controller_epoch: request.controller_epoch,
            broker_epoch: request.broker_epoch,
        },
        partitions,
        live_brokers: live_brokers?.into(),
    })
}

fn metadata_update(
    topic: &Topic,
    state: &UpdateMetadataPartitionState<'_>,
) -> Result<PartitionMetadataUpdate, UnusableCommand> {
    Ok(PartitionMetadataUpdate {
        topic_partition: topic.partition(state.partition_index)?,
        controller_epoch: state.controller_epoch,
        leader: match state.leader {
            LEADER_DURING_DELETE => MetadataLeader::Deleted,
            id if id >= 0 => MetadataLeader::Broker(id),
            _ => MetadataLeader::None,
        },
        leader_epoch: LeaderEpoch(state.leader_epoch),
        isr: shared(&state.isr),
        zk_version: state.zk_version,
        replicas: shared(&state.replicas),
        offline_replicas: shared(&state.offline_replicas),
    })
}

fn announced_broker(broker: &UpdateMetadataBroker<'_>, version: i16) -> Result<Broker, UnusableCommand> {
    let endpoint = |endpoint: UpdateMetadataEndpoint<'_>| {
        let id = endpoint.security_protocol;
        let security_protocol = SecurityProtocol::from_id(id).ok_or(UnusableCommand::SecurityProtocol {
            broker: broker.id,
            id,
        })?;
        let listener = match version {
            ..3 => security_protocol.name(),
            _ => &*endpoint.listener,
        };
        Ok(Endpoint {
            listener: listener.into(),
            host: endpoint.host.as_ref().into(),
            port: endpoint.port,
            security_protocol,
        })
    };
    let endpoints = if version == 0 {
        let plaintext = SecurityProtocol::Plaintext;
        vec![Endpoint {
            listener: plaintext.name().into(),
            host: broker.v0_host.as_ref().into(),
            port: broker.v0_port,
            security_protocol: plaintext,
        }]
    } else {
        broker.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?
    };
    Ok(Broker {
        id: broker.id,
        endpoints,
        rack: broker.rack.as_deref().map(Into::into),
    })
}

/// What an answer says: its own code, and one for each partition.
struct Codes {
    whole: ErrorCode,
    partitions: Vec<(TopicPartition, ErrorCode)>,
}

/// Every partition has its code; those that are not refused have none.
fn codes(asked: Vec<TopicPartition>, reply: BrokerReply) -> Codes {
    match reply {
        Ok(refused) => {
            let refused: HashMap<TopicPartition, CommandRefusal> = refused.into_iter().collect();
            let code = |name: &TopicPartition| {
                refused
                    .get(name)
                    .map_or(ErrorCode::None, |refusal| (*refusal).into())
            };
            let asked = asked.into_iter();
            Codes {
                whole: ErrorCode::None,
                partitions: asked.map(|name| (name.clone(), code(&name))).collect(),
            }
        }
        Err(refusal) => Codes {
            whole: refusal.into(),
            partitions: asked.into_iter().map(|name| (name, refusal.into())).collect(),
        },
    }
}

/// The answer to a command for the partitions `asked`.
pub fn leader_and_isr_response(
    asked: Vec<TopicPartition>,
    reply: BrokerReply,
) -> LeaderAndIsrResponse<'static> {
    let codes = codes(asked, reply);
    let partitions = codes
        .partitions
        .into_iter()
        .map(|(name, code)| LeaderAndIsrPartitionError {
            topic_name: Cow::Owned(name.topic.to_string()),
            partition_index: name.partition,
            error_code: code.code(),
        });
    LeaderAndIsrResponse {
        error_code: codes.whole.code(),
        partition_errors: partitions.collect(),
    }
}

/// The answer to a command for the partitions `asked`; one that is refused whole names none.
pub fn stop_replica_response(asked: Vec<TopicPartition>, reply: BrokerReply) -> StopReplicaResponse<'static> {
    let asked = if reply.is_ok() { asked } else { Vec::new() };
    let codes = codes(asked, reply);
    let partitions = codes
        .partitions
        .into_iter()
        .map(|(name, code)| StopReplicaPartitionError {
            topic_name: Cow::Owned(name.topic.to_string()),
            partition_index: name.partition,
            error_code: code.code(),
        });
    StopReplicaResponse {
        error_code: codes.whole.code(),
        partition_errors: partitions.collect(),
    }
}

pub fn update_metadata_response(reply: BrokerReply) -> UpdateMetadataResponse {
    UpdateMetadataResponse {
        error_code: codes(Vec::new(), reply).whole.code(),
    }
}

pub fn leader_and_isr_reply(response: &LeaderAndIsrResponse<'_>) -> BrokerReply {
    let partitions = response.partition_errors.iter();
    let partitions = partitions.map(|error| {
        let name = TopicPartition::new(error.topic_name.as_ref(), error.partition_index);
        (name, error.error_code)
    });
    reply(response.error_code, partitions)
}

pub fn stop_replica_reply(response: &StopReplicaResponse<'_>) -> BrokerReply {
    let partitions = response.partition_errors.iter();
    let partitions = partitions.map(|error| {
        let name = TopicPartition::new(error.topic_name.as_ref(), error.partition_index);
        (name, error.error_code)
    });
    reply(response.error_code, partitions)
}

pub fn update_metadata_reply(response: &UpdateMetadataResponse) -> BrokerReply {
    reply(response.error_code, [])
}

fn reply(whole: i16, partitions: impl IntoIterator<Item = (TopicPartition, i16)>) -> BrokerReply {
    match refusal(whole) {
        Some(refusal) => Err(refusal),
        None => {
            let refused = partitions.into_iter();
            Ok(refused
                .filter_map(|(name, code)| Some((name, refusal(code)?)))
                .collect())
        }
    }
}

/// What a code means; `None` without error.
fn refusal(code: i16) -> Option<CommandRefusal> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => None,
        ErrorCode::StaleControllerEpoch => Some(CommandRefusal::StaleControllerEpoch),
        ErrorCode::StaleBrokerEpoch => Some(CommandRefusal::StaleBrokerEpoch),
        ErrorCode::UnknownTopicOrPartition => Some(CommandRefusal::UnknownTopicOrPartition),
        ErrorCode::FencedLeaderEpoch => Some(CommandRefusal::FencedLeaderEpoch),
        ErrorCode::KafkaStorageError => Some(CommandRefusal::KafkaStorageError),
        _ => Some(CommandRefusal::UnknownServerError),
    }
}

#[cfg(test)]
mod tests;
