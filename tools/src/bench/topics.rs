//! The topics of a scenario: made for it, led by somebody before it begins, deleted after it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use milena_server::client::{Address, Client, ClientConfig, ClientError, Target, Topics as Described};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::topics::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, CreateableTopicConfig, DeleteTopicsRequest,
    DeleteTopicsResponse,
};
use tokio::runtime::Runtime;

use super::error::BenchError;
use super::interrupt::Interrupt;
use super::load::{Place, connection_config};
use super::scenario::Scenario;
use super::ticker::now_ns;

/// See the module. Who drops it without [`Topics::delete`] leaves the topics.
#[derive(Debug)]
pub(crate) struct Topics {
    runtime: Runtime,
    client: Client,
    names: Vec<String>,
    places: Vec<Arc<Place>>,
}

impl Topics {
    /// Makes the topics and waits until every partition has a leader.
    ///
    /// # Errors
    /// The broker's.
    pub(crate) fn create(
        scenario: &Scenario,
        bootstrap: &[Address],
        interrupt: &Interrupt,
    ) -> Result<Topics, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BenchError::system("a runtime"))?;
        let config = ClientConfig {
            connection: connection_config(),
            ..ClientConfig::default()
        };
        let client = runtime.block_on(interrupt.or(Client::connect(bootstrap.to_vec(), config)))?;
        // No other run has these names, nor had them lately.
        let run = now_ns() % 1_000_000_000_000;
        let name = |number| format!("milena-bench-{}-{run}-{number}", std::process::id());
        let mut topics = Topics {
            runtime,
            client,
            names: (0..scenario.topics).map(name).collect(),
            places: Vec::new(),
        };
        if let Err(error) = topics.make(scenario, interrupt) {
            // Some may be there. The first error is the one to be told.
            let _ = topics.delete();
            return Err(error);
        }
        Ok(topics)
    }

    fn make(&mut self, scenario: &Scenario, interrupt: &Interrupt) -> Result<(), BenchError> {
        let config = |(name, value): &(String, String)| CreateableTopicConfig {
            name: Cow::Owned(name.clone()),
            value: Some(Cow::Owned(value.clone())),
        };
        let topic = |name: &String| CreatableTopic {
            name: Cow::Owned(name.clone()),
            num_partitions: scenario.partitions as i32,
            replication_factor: scenario.replication_factor,
            configs: scenario.topic_config.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: self.names.iter().map(topic).collect(),
            ..Default::default()
        };
        let (client, names) = (&mut self.client, &self.names);
        let made = async {
            client
                .retry(async |client| {
                    let limit = Duration::from_secs(90);
                    let answer = client.call_within(Target::Controller, &request, limit).await?;
                    let response: CreateTopicsResponse<'_> = answer.decode()?;
                    for topic in response.topics.iter() {
                        // A second attempt finds what the first has made.
                        if topic.error_code != ErrorCode::TopicAlreadyExists.code() {
                            let message = topic.error_message.as_deref();
                            ClientError::check(topic.error_code, message, || topic.name.to_string())?;
                        }
                    }
                    Ok(())
                })
                .await?;
            client
                .retry(async |client| places(client, names, scenario).await)
                .await
        };
        self.places = self.runtime.block_on(interrupt.or(made))?;
        Ok(())
    }

    /// All partitions, by their numbers.
    pub(crate) fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    /// Deletes the topics.
    ///
    /// # Errors
    /// The broker's.
    pub(crate) fn delete(&mut self) -> Result<(), BenchError> {
        let request = DeleteTopicsRequest {
            topic_names: self.names.iter().map(|name| Cow::Owned(name.clone())).collect(),
            timeout_ms: 30_000,
        };
        let client = &mut self.client;
        let deleted = self.runtime.block_on(client.retry(async |client| {
            let answer = client.call(Target::Controller, &request).await?;
            let response: DeleteTopicsResponse<'_> = answer.decode()?;
            for topic in response.responses.iter() {
                if topic.error_code != ErrorCode::UnknownTopicOrPartition.code() {
                    let message = topic.error_message.as_deref();
                    ClientError::check(topic.error_code, message, || topic.name.to_string())?;
                }
            }
            Ok(())
        }));
        Ok(deleted?)
    }
}

/// Where the partitions are, once each has a leader.
async fn places(
    client: &mut Client,
    names: &[String],
    scenario: &Scenario,
) -> Result<Vec<Arc<Place>>, ClientError> {
    let described = client.metadata(Described::Named(names)).await?;
    let mut places = Vec::new();
    for topic in names {
        for partition in 0..scenario.partitions as i32 {
            let leader = described
                .leader(topic, partition)
                .and_then(|id| described.brokers.get(&id));
            let Some(leader) = leader else {
                return Err(ClientError::Refused {
                    what: format!("{topic}-{partition}"),
                    code: ErrorCode::LeaderNotAvailable,
                    message: None,
                });
            };
            places.push(Arc::new(Place {
                number: places.len(),
                topic: topic.clone(),
                partition,
                leader: leader.address.clone(),
            }));
        }
    }
    Ok(places)
}
