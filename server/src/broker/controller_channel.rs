//! How this broker asks the controller, wherever that is at the moment (`BrokerToControllerChannelManager`).
//!
//! There is one connection, and one question under way on it: questions are answered in the order in which they were asked. Who
//! the controller is says the metadata cache, which may be behind; so a lost connection and the answer NOT_CONTROLLER are no
//! answers, and the question is asked again, of whoever is the controller then. A question may therefore be carried out more
//! than once: it must bear that, as those with versions or epochs in them do. Who asks sets an end to it by dropping the future;
//! what was under way on the connection goes with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::peer::{PeerError, PeerSettings};
use crate::client::{Answer, ClientError, Connection};
use crate::metadata_cache::MetadataCache;
use crate::protocol::{ErrorCode, Message};

/// Before the next attempt, unless the metadata change first.
const BACKOFF: Duration = Duration::from_millis(100);
const LOGGER: &str = "kafka.server.BrokerToControllerRequestThread";

/// Why a question was not answered this time.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no controller is known")]
    NoController,
    #[error("broker {0} is not the controller")]
    NotController(i32),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl From<ClientError> for NoAnswer {
    fn from(error: ClientError) -> NoAnswer {
        NoAnswer::Peer(error.into())
    }
}

/// See the module.
#[derive(Debug)]
pub struct ControllerChannel {
    settings: PeerSettings,
    metadata: Arc<MetadataCache>,
    connected: Mutex<Option<Connected>>,
}

#[derive(Debug)]
struct Connected {
    controller: i32,
    connection: Connection,
}

impl ControllerChannel {
    pub fn new(settings: PeerSettings, metadata: Arc<MetadataCache>) -> ControllerChannel {
        ControllerChannel {
            settings,
            metadata,
            connected: Mutex::default(),
        }
    }

    /// Asks the controller until it answers. `code_of` reads the answer's own error code: NOT_CONTROLLER is no answer.
    ///
    /// # Errors
    /// The question cannot be said in this version, or what was answered cannot be read: asking again would not help.
    pub async fn call<'r, Q: Message<'r>>(
        &self,
        request: &Q,
        version: i16,
        code_of: impl Fn(&Answer) -> Result<i16, ClientError>,
    ) -> Result<Answer, ClientError> {
        let mut connected = self.connected.lock().await;
        let mut updates = self.metadata.subscribe();
        loop {
            updates.mark_unchanged();
            let error = match self.ask(&mut connected, request, version, &code_of).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Peer(PeerError::Client(
                    error @ (ClientError::Inexpressible { .. } | ClientError::Malformed { .. }),
                ))) => return Err(error),
                Err(error) => error,
            };
            tracing::info!(
                target: LOGGER,
                "[broker-{}-to-controller] {} was not answered: {error}",
                self.settings.broker_id,
                Q::KEY
            );
            // Either way it is time to try again.
            let _ = tokio::time::timeout(BACKOFF, updates.changed()).await;
        }
    }

    async fn ask<'r, Q: Message<'r>>(
        &self,
        connected: &mut Option<Connected>,
        request: &Q,
        version: i16,
        code_of: impl Fn(&Answer) -> Result<i16, ClientError>,
    ) -> Result<Answer, NoAnswer> {
        let metadata = self.metadata.snapshot();
        let controller = metadata.controller_id().and_then(|id| metadata.broker(id));
        let controller = controller.ok_or(NoAnswer::NoController)?;
        // Out of its place while it is in use: whatever ends this but an answer closes it.
        let connection = connected.take().filter(|known| known.controller == controller.id);
        let mut connection = match connection {
            Some(known) => known.connection,
            None => {
                let connection = self.settings.connect(controller).await?;
                tracing::info!(
                    target: LOGGER,
                    "[broker-{}-to-controller] Recorded new controller, from now on will use broker {}",
                    self.settings.broker_id,
                    controller.id
                );
                connection
            }
        };
        let answer = connection.call_in(request, version).await?;
        if ErrorCode::from_code(code_of(&answer)?) == ErrorCode::NotController {
            return Err(NoAnswer::NotController(controller.id));
        }
        *connected = Some(Connected {
            controller: controller.id,
            connection,
        });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
