//! Before a broker of a cluster stops, it asks the controller to have others lead what it leads (`KafkaServer.controlledShutdown`).
//!
//! It is asked until nothing is left to move, as many times as the settings say; then the broker stops, either way. Clients are
//! served all the while. A controller that has no such request is asked once. Where this broker is the controller itself, the others
//! hear of what was decided before it goes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::settings::peer_settings;
use super::{Broker, LOGGER};
use crate::broker::channel::BrokerChannels;
use crate::broker::peer::{PeerError, PeerSettings};
use crate::config::{ControlledShutdownSettings, InterBrokerVersions};
use crate::coordination::znodes::{self, BrokerRegistration, ControllerNode, ZnodeError};
use crate::coordination::{Coordination, CoordinationError};
use crate::protocol::messages::controller_commands::{ControlledShutdownRequest, ControlledShutdownResponse};
use crate::protocol::{ApiKey, ErrorCode};

/// How long other brokers may take to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the controller could not be asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("No controller registered in ZooKeeper")]
    NoController,
    #[error(
        "Broker registration for controller {id} is not available (i.e. the Controller's ZK session expired)"
    )]
    NotRegistered { id: i32 },
    #[error("controller {id} does not know of controlled shutdowns")]
    NotServed { id: i32 },
    #[error("Remaining partitions to move: [{}]; error from controller: {error}", .partitions.join(", "))]
    Remaining {
        partitions: Vec<String>,
        error: ErrorCode,
    },
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(
        "Error during controlled shutdown, possibly because leader movement took longer than the configured \
             controller.socket.timeout.ms and/or request.timeout.ms: {0}"
    )]
    Send(#[from] PeerError),
}

/// Hands leadership over, or gives up; `channels` are those of this broker as the controller.
pub(super) async fn run(broker: &Broker, channels: &BrokerChannels) {
    let (settings, peer, version) = {
        let config = broker.config();
        let versions = InterBrokerVersions::of(config.inter_broker_protocol_version);
        let peer = peer_settings(broker.id, &config);
        (config.controlled_shutdown, peer, versions.controlled_shutdown)
    };
    let ControlledShutdownSettings {
        enable,
        max_retries,
        retry_backoff_ms,
    } = settings;
    if !enable {
        return;
    }
    let id = broker.id;
    tracing::info!(target: LOGGER, "[KafkaServer id={id}] Starting controlled shutdown");
    for attempt in 1..=max_retries {
        match ask(broker, &peer, version).await {
            Ok(()) => {
                tracing::info!(target: LOGGER, "[KafkaServer id={id}] Controlled shutdown succeeded");
                if tokio::time::timeout(LAST_WORDS, channels.answered())
                    .await
                    .is_err()
                {
                    let waited = LAST_WORDS.as_secs();
                    tracing::warn!(
                        target: LOGGER,
                        "[KafkaServer id={id}] Some brokers have not heard of it after {waited} s; the next controller will tell them"
                    );
                }
                return;
            }
            Err(failure @ Failure::NotServed { .. }) => {
                tracing::warn!(target: LOGGER, "[KafkaServer id={id}] {failure}");
                break;
            }
            Err(failure) => tracing::warn!(target: LOGGER, "[KafkaServer id={id}] {failure}"),
        }
        if attempt < max_retries {
            tokio::time::sleep(Duration::from_millis(retry_backoff_ms)).await;
            tracing::warn!(
                target: LOGGER,
                "[KafkaServer id={id}] Retrying controlled shutdown after the previous attempt failed..."
            );
        }
    }
    tracing::warn!(
        target: LOGGER,
        "[KafkaServer id={id}] Proceeding to do an unclean shutdown as all the controlled shutdown attempts failed"
    );
}

/// One attempt: finds the controller of this moment and asks it.
async fn ask(broker: &Broker, peer: &PeerSettings, version: i16) -> Result<(), Failure> {
    let controller = find_controller(&*broker.coordination).await?;
    let id = controller.broker.id;
    let mut connection = peer.connect(&controller.broker).await?;
    if !connection
        .versions()
        .contains_key(&ApiKey::ControlledShutdown.id())
    {
        return Err(Failure::NotServed { id });
    }
    let request = ControlledShutdownRequest {
        broker_id: broker.id,
        broker_epoch: broker.epoch.load(Ordering::Acquire),
    };
    let answer = connection
        .call_in(&request, version)
        .await
        .map_err(PeerError::from)?;
    let response: ControlledShutdownResponse<'_> = answer.decode().map_err(PeerError::from)?;
    let error = ErrorCode::from_code(response.error_code);
    let remaining = response.remaining_partitions.iter();
    let partitions: Vec<String> = remaining
        .map(|partition| format!("{}-{}", partition.topic_name, partition.partition_index))
        .collect();
    match (error, partitions.is_empty()) {
        (ErrorCode::None, true) => Ok(()),
        _ => Err(Failure::Remaining { partitions, error }),
    }
}

/// The controller as it is registered.
async fn find_controller(coordination: &dyn Coordination) -> Result<BrokerRegistration, Failure> {
    let node = coordination
        .get(znodes::CONTROLLER, None)
        .await?
        .ok_or(Failure::NoController)?;
    let id = ControllerNode::decode(node.data.as_deref().unwrap_or_default())?.broker_id;
    let node = coordination.get(&znodes::broker_id(id), None).await?;
    let node = node.ok_or(Failure::NotRegistered { id })?;
    Ok(BrokerRegistration::decode(
        id,
        node.data.as_deref().unwrap_or_default(),
    )?)
}
