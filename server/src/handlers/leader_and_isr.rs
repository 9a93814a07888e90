//! LeaderAndIsr (key 4): a controller says which partitions this broker has and whom they follow.
//!
//! Source: `KafkaApis.handleLeaderAndIsrRequest`.

use crate::broker::Broker;
use crate::broker::command_messages::{UnusableCommand, leader_and_isr_command, leader_and_isr_response};
use crate::controller::command::BrokerCommand;
use crate::protocol::messages::controller_commands::{LeaderAndIsrRequest, LeaderAndIsrResponse};

/// # Errors
/// No controller sends such a request.
pub async fn handle(
    broker: &Broker,
    request: &LeaderAndIsrRequest<'_>,
) -> Result<LeaderAndIsrResponse<'static>, UnusableCommand> {
    let command = leader_and_isr_command(request)?;
    let partitions = command.partitions.iter();
    let asked = partitions
        .map(|partition| partition.topic_partition.clone())
        .collect();
    let reply = broker.commands.submit(BrokerCommand::LeaderAndIsr(command)).await;
    Ok(leader_and_isr_response(asked, reply))
}
