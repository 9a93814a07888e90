//! `milena topics create`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use milena_server::client::{Client, ClientError, Node, PartitionMetadata, Target, Topics};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse, CreateableTopicConfig,
};
use serde_json::{Value, json};

use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::topics::{Done, Results, tell};

const EXAMPLES: &str = "\
Examples:
  milena topics create orders              partitions and replicas as the broker has them by default
  milena topics create orders audit --partitions 3 --replication-factor 1
  milena topics create state --config cleanup.policy=compact --config segment.bytes=104857600
  milena topics create placed --replica-assignment 0,0,0
  milena topics create orders --if-not-exists
  milena topics create orders-v2 --partitions 12 --validate-only";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArgs {
    #[arg(value_name = "topic", required = true)]
    topics: Vec<String>,
    /// Without it the broker's num.partitions, from Kafka 2.4 on.
    #[arg(short, long, value_name = "number", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Without it the broker's default.replication.factor, from Kafka 2.4 on.
    #[arg(short, long, value_name = "number", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Broker ids for each partition: 0:1,1:2 for two partitions of two replicas, the preferred leader first.
    #[arg(long, value_name = "id:id,..", conflicts_with_all = ["partitions", "replication_factor"],
          value_parser = assignment)]
    replica_assignment: Option<Assignment>,
    /// A setting of the topics; may be given several times.
    #[arg(short, long, value_name = "key=value", value_parser = crate::parse_override)]
    config: Vec<(String, String)>,
    /// That a topic exists already is no error.
    #[arg(long)]
    if_not_exists: bool,
    /// Let the broker check everything and create nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The replicas of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment(pub(super) Vec<Vec<i32>>);

/// `0:1,1:2` as kafka-topics.sh reads it: a comma between partitions, a colon between replicas.
pub(super) fn assignment(text: &str) -> Result<Assignment, String> {
    let replicas = |part: &str| -> Option<Vec<i32>> {
        let ids: Option<Vec<i32>> = part.split(':').map(|id| id.trim().parse().ok()).collect();
        let ids = ids?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        (sorted.len() == ids.len()).then_some(ids)
    };
    let parts: Option<Vec<Vec<i32>>> = text.split(',').map(replicas).collect();
    let parts = parts.filter(|parts| parts.iter().all(|ids| ids.len() == parts[0].len()));
    parts.map(Assignment).ok_or_else(|| {
        format!("found {text:?}, expected as many different broker ids for each partition, as in 0:1,1:2")
    })
}

/// Pauses while brokers learn of new topics.
const PAUSES_MS: [u64; 6] = [50, 100, 200, 400, 800, 1600];

impl Assignment {
    /// The first broker of it that is not alive. Brokers make such a topic, and then wait in vain for its leaders.
    fn absent(&self, alive: &BTreeMap<i32, Node>) -> Option<i32> {
        let mut ids = self.0.iter().flatten().copied();
        ids.find(|id| !alive.contains_key(id))
    }
}

pub(super) fn run(arguments: &CreateArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let alive = &client.cluster().brokers;
        let assignment = arguments.replica_assignment.as_ref();
        if let Some(id) = assignment.and_then(|assignment| assignment.absent(alive)) {
            let ids: Vec<String> = alive.keys().map(i32::to_string).collect();
            return Err(CommandError::Failed(format!(
                "--replica-assignment: found broker {id}, expected brokers that are alive: {}",
                ids.join(", ")
            )));
        }
        let results = client
            .retry(async |client| create(client, arguments).await)
            .await?;
        if !arguments.validate_only {
            let created = results.iter().filter(|(_, result)| result.is_ok());
            settled(client, created.map(|(name, _)| name.clone()).collect()).await?;
        }
        tell(&arguments.cluster, &results)
    })
}

/// Waits a moment until the broker that is asked next knows what its controller has done, so that the next command finds
/// the topics.
async fn settled(client: &mut Client, names: Vec<String>) -> Result<(), ClientError> {
    for pause_ms in PAUSES_MS {
        let topics = client.metadata(Topics::Named(&names)).await?.topics;
        if topics
            .values()
            .all(|topic| topic.error.is_none() && topic.partitions.iter().all(has_leader))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(())
}

fn has_leader(partition: &PartitionMetadata) -> bool {
    partition.leader.is_some()
}

async fn create(client: &mut Client, arguments: &CreateArgs) -> Result<Results, ClientError> {
    let assigned = arguments
        .replica_assignment
        .as_ref()
        .map_or(&[][..], |assignment| &assignment.0);
    let topics = arguments.topics.iter().map(|name| CreatableTopic {
        name: name.into(),
        num_partitions: arguments.partitions.unwrap_or(-1),
        replication_factor: arguments.replication_factor.unwrap_or(-1),
        assignments: (0..)
            .zip(assigned)
            .map(|(partition_index, ids)| CreatableReplicaAssignment {
                partition_index,
                broker_ids: ids.clone().into(),
            })
            .collect(),
        configs: arguments
            .config
            .iter()
            .map(|(name, value)| CreateableTopicConfig {
                name: name.into(),
                value: Some(value.into()),
            })
            .collect(),
    });
    let request = CreateTopicsRequest {
        topics: topics.collect(),
        timeout_ms: timeout_ms(&client.config().connection.request_timeout),
        validate_only: arguments.validate_only,
    };
    let answer = client.call(Target::Controller, &request).await?;
    let response: CreateTopicsResponse<'_> = answer.decode()?;
    let verb = if arguments.validate_only {
        "could create"
    } else {
        "created"
    };
    let mut results = Results::new();
    for result in &response.topics {
        let name = result.name.to_string();
        let message = result.error_message.as_deref();
        let checked = ClientError::check(result.error_code, message, || format!("topic {name}"));
        let done = match checked {
            // Everybody's affair.
            Err(error) if error.code() == Some(ErrorCode::NotController) => return Err(error),
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) && arguments.if_not_exists => {
                Ok(Done {
                    verb: "kept",
                    facts: json!({}),
                })
            }
            checked => checked.map(|()| Done {
                verb,
                facts: facts(&result),
            }),
        };
        results.insert(name, done);
    }
    Ok(results)
}

/// Told by brokers from 2.4 on.
fn facts(result: &CreatableTopicResult<'_>) -> Value {
    match result.num_partitions {
        1.. => json!({
            "partitions": result.num_partitions,
            "replication_factor": result.replication_factor,
        }),
        _ => json!({}),
    }
}

/// How long a broker may take; a little less than what is waited for the answer, so that it comes.
pub(super) fn timeout_ms(request_timeout: &Duration) -> i32 {
    let ms = request_timeout.as_millis() * 9 / 10;
    i32::try_from(ms).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_kafka_topics_reads_it() {
        assert_eq!(assignment("0:1,1:2").unwrap().0, [[0, 1], [1, 2]]);
        assert_eq!(assignment("0,0,0").unwrap().0, [[0], [0], [0]]);
        for wrong in ["", "a", "0:0", "0:1,2", "0:,1"] {
            let error = assignment(wrong).unwrap_err();
            assert!(
                error.contains("expected as many different broker ids"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn a_broker_of_an_assignment_that_is_not_alive_is_found() {
        let alive = [0, 1].map(|id| {
            let address = "a:9092".parse().unwrap();
            let rack = None;
            (id, Node { id, address, rack })
        });
        let alive = BTreeMap::from(alive);
        assert_eq!(assignment("0:1,1:0").unwrap().absent(&alive), None);
        assert_eq!(assignment("0:1,1:7").unwrap().absent(&alive), Some(7));
    }
}
