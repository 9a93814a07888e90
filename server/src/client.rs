//! A client of Kafka's protocol: connections, metadata and retries, for the command line, the benchmarks and the tests.
//!
//! Promise: it speaks with every broker from 0.10 on, in the highest version that both sides know. What may succeed a
//! little later is tried again until [`ClientConfig::operation_timeout`] is over; everything else is told at once. A
//! [`Client`] is one task's: it asks one question at a time and keeps a connection to each broker that it asked. Who
//! wants several questions under way takes [`Connection`]s.
//!
//! It speaks neither TLS nor SASL yet, and says so when a broker expects it. Sources: `NetworkClient.java`,
//! `KafkaAdminClient.java`.

mod address;
mod backoff;
mod connection;
mod consumer;
mod error;
mod fetched;
mod metadata;
mod offsets;
mod partitioner;
mod producer;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use backoff::Backoff;

pub use address::Address;
pub use connection::{Answer, Connection, ConnectionConfig, PreparedRequest};
pub use consumer::{Consumer, ConsumerConfig, ReadRange};
pub use error::ClientError;
pub use fetched::{ConsumerRecord, Fetched, FetchedPartition, IsolationLevel};
pub use metadata::{ClusterMetadata, Node, PartitionMetadata, TopicMetadata};
pub use offsets::{ListedOffset, ListedOffsets, OffsetSpec};
pub use partitioner::partition_of_key;
pub use producer::{Acks, ProduceError, Producer, ProducerConfig, ProducerRecord};

use crate::protocol::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use crate::protocol::{ErrorCode, Message};

/// Questions of [`Client::call_all`] that are under way at a time.
const PIPELINE_LENGTH: usize = 64;

/// How patient a client is and what it calls itself.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub connection: ConnectionConfig,
    /// For one operation with all its attempts; `default.api.timeout.ms`.
    pub operation_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            connection: ConnectionConfig::default(),
            operation_timeout: Duration::from_secs(60),
        }
    }
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'t> {
    /// Whoever is there.
    Any,
    Controller,
    /// By its id.
    Broker(i32),
    /// Of a group.
    Coordinator(&'t str),
}

/// Which topics metadata is wanted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics<'t> {
    None,
    All,
    Named(&'t [String]),
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    bootstrap: Vec<Address>,
    cluster: ClusterMetadata,
    connections: HashMap<Address, Connection>,
}

impl Client {
    /// Learns from the first broker of the list that answers who else is there. Each is asked once: a wrong address is
    /// told at once.
    ///
    /// # Errors
    /// Why the only one does not answer, or [`ClientError::NoBroker`] with the reasons of all.
    pub async fn connect(bootstrap: Vec<Address>, config: ClientConfig) -> Result<Client, ClientError> {
        let mut client = Client {
            config,
            bootstrap,
            cluster: ClusterMetadata::default(),
            connections: HashMap::new(),
        };
        client.cluster = client.describe(Topics::None, false).await?;
        Ok(client)
    }

    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// What was last heard of brokers and controller. Its topics are none: ask [`Client::metadata`].
    pub fn cluster(&self) -> &ClusterMetadata {
        &self.cluster
    }

    /// Describes topics, without creating those that are missing. Errors of single topics stand in them.
    ///
    /// # Errors
    /// Those of the connection, when they last.
    pub async fn metadata(&mut self, topics: Topics<'_>) -> Result<ClusterMetadata, ClientError> {
        self.retry(async |client| client.describe(topics, false).await)
            .await
    }

    async fn describe(&mut self, topics: Topics<'_>, create: bool) -> Result<ClusterMetadata, ClientError> {
        let topic = |name: &str| MetadataRequestTopic {
            name: Cow::Owned(name.to_owned()),
        };
        let request = MetadataRequest {
            topics: match topics {
                Topics::None => Some(Vec::new().into()),
                Topics::All => None,
                Topics::Named(names) => Some(names.iter().map(|name| topic(name)).collect()),
            },
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let answer = self.call(Target::Any, &request).await?;
        let described = ClusterMetadata::of(&answer.decode::<MetadataResponse<'_>>()?);
        self.cluster = ClusterMetadata {
            topics: Default::default(),
            ..described.clone()
        };
        Ok(described)
    }

    /// Does something until it succeeds, fails for good, or the time is over; between attempts the brokers are
    /// described anew.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn retry<T>(
        &mut self,
        attempt: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.retry_within(self.config.operation_timeout, attempt).await
    }

    /// [`Client::retry`] with a time of its own.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn retry_within<T>(
        &mut self,
        limit: Duration,
        mut attempt: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::default();
        loop {
            let error = match attempt(self).await {
                Ok(done) => return Ok(done),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => error,
            };
            let pause = backoff.next(chance());
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            // A failure here shows again in the attempt, which is the one to be told.
            let _ = self.describe(Topics::None, false).await;
        }
    }

    /// Asks once. A connection that was kept and turns out to be closed is opened again.
    ///
    /// # Errors
    /// Those of [`Connection::call`], and what the way to the target says.
    pub async fn call<'r, Q: Message<'r>>(
        &mut self,
        target: Target<'_>,
        request: &Q,
    ) -> Result<Answer, ClientError> {
        let limit = self.config.connection.request_timeout;
        self.call_within(target, request, limit).await
    }

    /// [`Client::call`] with a time of its own for the answer.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn call_within<'r, Q: Message<'r>>(
        &mut self,
        target: Target<'_>,
        request: &Q,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let address = match target {
            Target::Any => return self.call_any(request, limit).await,
            Target::Controller => self.address_of_controller()?,
            Target::Broker(id) => self.address_of(id)?,
            Target::Coordinator(group) => self.coordinator(group).await?,
        };
        self.call_at(&address, request, limit).await
    }

    /// Sends a broker what it does not answer: a produce with `acks=0`.
    ///
    /// # Errors
    /// Those of [`Connection::send_unanswered`] and [`Connection::flush`]; [`ClientError::TimedOut`] when the broker
    /// takes nothing.
    async fn send_unanswered<'r, Q: Message<'r>>(
        &mut self,
        broker_id: i32,
        request: &Q,
    ) -> Result<(), ClientError> {
        let mut connection = self.take_connection(self.address_of(broker_id)?).await?;
        connection.send_unanswered(request)?;
        let after = self.config.connection.request_timeout;
        let sent = timeout(after, connection.flush()).await;
        sent.map_err(|_| ClientError::TimedOut {
            address: connection.address().clone(),
            api_key: Q::KEY,
            after,
        })??;
        self.connections.insert(connection.address().clone(), connection);
        Ok(())
    }

    /// Asks one broker many questions, of which several are under way at a time. The answers stand in their order.
    ///
    /// # Errors
    /// Those of [`Client::call`]; there is no answer at all then.
    pub async fn call_all<'r, Q: Message<'r>>(
        &mut self,
        target: Target<'_>,
        requests: &[Q],
    ) -> Result<Vec<Answer>, ClientError> {
        // The first finds the broker, and a connection that is alive.
        let Some((first, rest)) = requests.split_first() else {
            return Ok(Vec::new());
        };
        let first = self.call(target, first).await?;
        let address = first.address().clone();
        let mut connection = self.take_connection(address.clone()).await?;
        let mut answers = vec![first];
        let mut rest = rest.iter();
        loop {
            while connection.pending() < PIPELINE_LENGTH
                && let Some(request) = rest.next()
            {
                connection.send(request)?;
            }
            if connection.pending() == 0 {
                break;
            }
            let after = self.config.connection.request_timeout;
            let received = timeout(after, connection.receive()).await;
            answers.push(received.map_err(|_| ClientError::TimedOut {
                address: address.clone(),
                api_key: Q::KEY,
                after,
            })??);
        }
        self.connections.insert(address, connection);
        Ok(answers)
    }

    /// What a broker serves, by the number of the API; also what this client does not know.
    ///
    /// # Errors
    /// Those of the way to the broker.
    pub async fn versions(
        &mut self,
        broker_id: i32,
    ) -> Result<HashMap<i16, RangeInclusive<i16>>, ClientError> {
        let address = self.address_of(broker_id)?;
        let connection = self.take_connection(address.clone()).await?;
        let versions = connection.versions().clone();
        self.connections.insert(address, connection);
        Ok(versions)
    }

    /// The connection that was kept, or a new one.
    async fn take_connection(&mut self, address: Address) -> Result<Connection, ClientError> {
        match self.connections.remove(&address) {
            Some(connection) => Ok(connection),
            None => Connection::open(&address, &self.config.connection).await,
        }
    }

    /// Prefers a connection that is open, then brokers that are known, then those that the user named.
    async fn call_any<'r, Q: Message<'r>>(
        &mut self,
        request: &Q,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let known = self.cluster.brokers.values().map(|node| &node.address);
        let mut candidates: Vec<Address> = self.connections.keys().chain(known).cloned().collect();
        candidates.extend(self.bootstrap.iter().cloned());
        let mut errors: Vec<ClientError> = Vec::new();
        let mut asked: Vec<Address> = Vec::new();
        for address in candidates {
            if asked.contains(&address) {
                continue;
            }
            match self.call_at(&address, request, limit).await {
                Err(error) if error.ends_connection() => errors.push(error),
                answered => return answered,
            }
            asked.push(address);
        }
        match errors.pop() {
            // Why the only broker that was named does not answer needs no list.
            Some(error) if errors.is_empty() => Err(error),
            Some(error) => {
                errors.push(error);
                Err(ClientError::NoBroker(errors))
            }
            None => Err(ClientError::NoBroker(errors)),
        }
    }

    async fn call_at<'r, Q: Message<'r>>(
        &mut self,
        address: &Address,
        request: &Q,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        if let Some(mut connection) = self.connections.remove(address) {
            match connection.call_within(request, limit).await {
                Err(ClientError::Disconnected { .. }) => {}
                called => return self.keep(connection, called),
            }
        }
        let mut connection = Connection::open(address, &self.config.connection).await?;
        let called = connection.call_within(request, limit).await;
        self.keep(connection, called)
    }

    fn keep(
        &mut self,
        connection: Connection,
        called: Result<Answer, ClientError>,
    ) -> Result<Answer, ClientError> {
        if !called.as_ref().is_err_and(ClientError::ends_connection) {
            self.connections.insert(connection.address().clone(), connection);
        }
        called
    }

    fn address_of_controller(&self) -> Result<Address, ClientError> {
        // One that died is named until another is elected.
        let alive = self.cluster.controller.and_then(|id| self.address_of(id).ok());
        alive.ok_or_else(|| refused("the controller".to_owned(), ErrorCode::NotController))
    }

    /// Where a broker listens.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it is not among those that are alive.
    pub fn address_of(&self, broker_id: i32) -> Result<Address, ClientError> {
        let node = self.cluster.brokers.get(&broker_id);
        node.map(|node| node.address.clone())
            .ok_or_else(|| refused(format!("broker {broker_id}"), ErrorCode::BrokerNotAvailable))
    }

    async fn coordinator(&mut self, group: &str) -> Result<Address, ClientError> {
        let request = FindCoordinatorRequest {
            key: Cow::Borrowed(group),
            key_type: 0,
        };
        let limit = self.config.connection.request_timeout;
        let answer = self.call_any(&request, limit).await?;
        let response: FindCoordinatorResponse<'_> = answer.decode()?;
        ClientError::check(response.error_code, response.error_message.as_deref(), || {
            format!("group {group}")
        })?;
        let port = u16::try_from(response.port);
        let port = port.map_err(|_| refused(format!("group {group}"), ErrorCode::CoordinatorNotAvailable))?;
        Ok(Address {
            host: response.host.as_ref().into(),
            port,
        })
    }
}

fn refused(what: String, code: ErrorCode) -> ClientError {
    ClientError::Refused {
        what,
        code,
        message: None,
    }
}

/// Any number; which one matters to nobody.
fn chance() -> u32 {
    getrandom::u32().unwrap_or_default()
}
