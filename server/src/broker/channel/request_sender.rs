//! The task that sends commands to one broker (`RequestSendThread`).
//!
//! One command is under way at a time. It is sent until an answer comes: a connection that was lost may have carried it or not,
//! and a broker that has obeyed already finds nothing new in it. It ends when whoever holds its queue drops it, or aborts it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::{ChannelSettings, LOGGER};
use crate::broker::command_messages::{
    leader_and_isr_reply, leader_and_isr_request, stop_replica_reply, stop_replica_requests,
    update_metadata_reply, update_metadata_request,
};
use crate::broker::peer::PeerError;
use crate::client::{ClientError, Connection};
use crate::cluster::Broker;
use crate::controller::command::{BrokerCommand, BrokerReply, CommandRefusal};
use crate::protocol::messages::controller_commands::{
    LeaderAndIsrResponse, StopReplicaResponse, UpdateMetadataResponse,
};

/// Before the next attempt.
const BACKOFF: Duration = Duration::from_millis(100);

/// A command, and where its answer goes.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: BrokerCommand,
    pub(super) done: oneshot::Sender<BrokerReply>,
    pub(super) unanswered: Unanswered,
}

/// Counts a command as long as it lives.
#[derive(Debug)]
pub(super) struct Unanswered(Arc<watch::Sender<usize>>);

impl Unanswered {
    pub(super) fn new(count: &Arc<watch::Sender<usize>>) -> Unanswered {
        count.send_modify(|count| *count += 1);
        Unanswered(Arc::clone(count))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct RequestSender {
    settings: Arc<ChannelSettings>,
    /// As it is registered now.
    broker: watch::Receiver<Broker>,
    connection: Option<Connection>,
}

impl RequestSender {
    pub(super) fn new(settings: Arc<ChannelSettings>, broker: watch::Receiver<Broker>) -> RequestSender {
        RequestSender {
            settings,
            broker,
            connection: None,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Queued>) {
        while let Some(queued) = queue.recv().await {
            let reply = self.answer_to(&queued.command).await;
            // The controller may be another one by now.
            let _ = queued.done.send(reply);
            drop(queued.unanswered);
        }
    }

    async fn answer_to(&mut self, command: &BrokerCommand) -> BrokerReply {
        loop {
            let error = match self.ask(command).await {
                Ok(reply) => return reply,
                Err(error) => error,
            };
            self.connection = None;
            let (id, name) = (self.settings.peer.broker_id, command.name());
            let broker = self.broker.borrow().id;
            if let PeerError::Client(ClientError::Inexpressible { .. }) = error {
                tracing::error!(
                    target: LOGGER,
                    "[RequestSendThread controllerId={id}] {name} for broker {broker} cannot be sent: {error}"
                );
                return Err(CommandRefusal::UnknownServerError);
            }
            tracing::warn!(
                target: LOGGER,
                "[RequestSendThread controllerId={id}] Controller {id} fails to send {name} to broker {broker}: {error}. \
                 Reconnecting to broker."
            );
            tokio::time::sleep(BACKOFF).await;
        }
    }

    async fn ask(&mut self, command: &BrokerCommand) -> Result<BrokerReply, PeerError> {
        let settings = Arc::clone(&self.settings);
        let versions = &settings.versions;
        let connection = self.connection().await?;
        match command {
            BrokerCommand::LeaderAndIsr(command) => {
                let version = versions.leader_and_isr;
                let request = leader_and_isr_request(command, version, &settings.leaders_listener);
                let answer = connection.call_in(&request, version).await?;
                Ok(leader_and_isr_reply(
                    &answer.decode::<LeaderAndIsrResponse<'_>>()?,
                ))
            }
            BrokerCommand::UpdateMetadata(command) => {
                let version = versions.update_metadata;
                let request = update_metadata_request(command, version);
                let answer = connection.call_in(&request, version).await?;
                Ok(update_metadata_reply(&answer.decode::<UpdateMetadataResponse>()?))
            }
            BrokerCommand::StopReplica(command) => {
                let version = versions.stop_replica;
                let mut refused = Vec::new();
                for request in stop_replica_requests(command, version) {
                    let answer = connection.call_in(&request, version).await?;
                    match stop_replica_reply(&answer.decode::<StopReplicaResponse<'_>>()?) {
                        Ok(some) => refused.extend(some),
                        Err(refusal) => return Ok(Err(refusal)),
                    }
                }
                Ok(Ok(refused))
            }
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection, PeerError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let broker = self.broker.borrow().clone();
                self.settings.peer.connect(&broker).await?
            }
        };
        Ok(self.connection.insert(connection))
    }
}
