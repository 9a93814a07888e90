//! UpdateMetadata (key 6): a controller says who is alive and who leads what.
//!
//! Source: `KafkaApis.handleUpdateMetadataRequest`.

use crate::broker::Broker;
use crate::broker::command_messages::{UnusableCommand, update_metadata_command, update_metadata_response};
use crate::controller::command::BrokerCommand;
use crate::protocol::messages::controller_commands::{UpdateMetadataRequest, UpdateMetadataResponse};

/// # Errors
/// No controller sends such a request.
pub async fn handle(
    broker: &Broker,
    api_version: i16,
    request: &UpdateMetadataRequest<'_>,
) -> Result<UpdateMetadataResponse, UnusableCommand> {
    let command = update_metadata_command(request, api_version)?;
    let reply = broker
        .commands
        .submit(BrokerCommand::UpdateMetadata(command))
        .await;
    Ok(update_metadata_response(reply))
}
