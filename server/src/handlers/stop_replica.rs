//! StopReplica (key 5): a controller takes replicas from this broker, and has them deleted where it says so.
//!
//! Source: `KafkaApis.handleStopReplicaRequest`.

use crate::broker::Broker;
use crate::broker::command_messages::{UnusableCommand, stop_replica_command, stop_replica_response};
use crate::controller::command::BrokerCommand;
use crate::protocol::messages::controller_commands::{StopReplicaRequest, StopReplicaResponse};

/// # Errors
/// No controller sends such a request.
pub async fn handle(
    broker: &Broker,
    request: &StopReplicaRequest<'_>,
) -> Result<StopReplicaResponse<'static>, UnusableCommand> {
    let command = stop_replica_command(request)?;
    let partitions = command.partitions.iter();
    let asked = partitions
        .map(|partition| partition.topic_partition.clone())
        .collect();
    let reply = broker.commands.submit(BrokerCommand::StopReplica(command)).await;
    Ok(stop_replica_response(asked, reply))
}
