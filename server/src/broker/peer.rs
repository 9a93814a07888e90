//! How this broker connects to another one: the listener of brokers among themselves, how it presents itself, how long it waits.

use std::sync::Arc;
use std::time::Duration;

use crate::client::{Address, ClientError, Connection, ConnectionConfig};
use crate::cluster::{Broker, SecurityProtocol};

/// What connections to other brokers go by.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    pub broker_id: i32,
    /// Of brokers among themselves.
    pub listener: Arc<str>,
    /// `controller.socket.timeout.ms`
    pub connect_timeout: Duration,
    /// `request.timeout.ms`
    pub request_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("broker {broker} has no listener {listener}")]
    NoListener { broker: i32, listener: Arc<str> },
    #[error("the listener {listener} of broker {broker} is {}, of which this broker speaks PLAINTEXT alone", .protocol.name())]
    NotPlaintext {
        broker: i32,
        listener: Arc<str>,
        protocol: SecurityProtocol,
    },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl PeerSettings {
    /// # Errors
    /// See [`PeerError`].
    pub async fn connect(&self, broker: &Broker) -> Result<Connection, PeerError> {
        let listener = || Arc::clone(&self.listener);
        let endpoint = broker
            .endpoint(&self.listener)
            .ok_or_else(|| PeerError::NoListener {
                broker: broker.id,
                listener: listener(),
            })?;
        if endpoint.security_protocol != SecurityProtocol::Plaintext {
            return Err(PeerError::NotPlaintext {
                broker: broker.id,
                listener: listener(),
                protocol: endpoint.security_protocol,
            });
        }
        let address = Address {
            host: Arc::clone(&endpoint.host),
            port: u16::try_from(endpoint.port).unwrap_or(0),
        };
        let config = ConnectionConfig {
            client_id: self.broker_id.to_string(),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
        };
        Ok(Connection::open(&address, &config).await?)
    }
}
