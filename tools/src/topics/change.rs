//! `milena topics alter` and `milena topics delete`.

use clap::Args;
use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::topics::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use serde_json::json;

use super::create::{Assignment, assignment, timeout_ms};
use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::confirmation::confirmed;
use crate::output::count;
use crate::patterns::{Internal, NamePattern, chosen};
use crate::topics::{Done, Results, tell};

const ALTER_EXAMPLES: &str = "\
Examples:
  milena topics alter orders --partitions 6
  milena topics alter orders --partitions 7 --validate-only
  milena topics alter placed --partitions 4 --replica-assignment 0

Records keep their partition, but keys are spread anew: consumers that rely on the order per key should know.
Settings are changed by `milena configs set`.";

#[derive(Debug, Args)]
#[command(after_help = ALTER_EXAMPLES)]
pub(super) struct AlterArgs {
    /// Names, globs, or regular expressions between slashes.
    #[arg(value_name = "topic", required = true)]
    topics: Vec<NamePattern>,
    /// How many partitions each is to have, the old ones included.
    #[arg(short, long, value_name = "number", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Broker ids for each new partition: 0:1,1:2 for two partitions of two replicas.
    #[arg(long, value_name = "id:id,..", value_parser = assignment)]
    replica_assignment: Option<Assignment>,
    /// Let the broker check everything and change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  milena topics delete orders              asks first
  milena topics delete 'orders-*' --yes
  milena topics delete orders --if-exists --yes";

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct DeleteArgs {
    /// Names, globs, or regular expressions between slashes. Patterns leave topics of the brokers themselves alone.
    #[arg(value_name = "topic", required = true)]
    topics: Vec<NamePattern>,
    /// That there is no such topic is no error.
    #[arg(long)]
    if_exists: bool,
    /// Do it without asking.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run_alter(arguments: &AlterArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let topics = chosen(client, &arguments.topics, Internal::Excluded).await?;
        let names: Vec<String> = topics.into_keys().collect();
        let results = client
            .retry(async |client| alter(client, arguments, &names).await)
            .await?;
        tell(&arguments.cluster, &results)
    })
}

async fn alter(client: &mut Client, arguments: &AlterArgs, names: &[String]) -> Result<Results, ClientError> {
    let assignments = arguments.replica_assignment.as_ref().map(|assignment| {
        let new = assignment.0.iter().map(|ids| CreatePartitionsAssignment {
            broker_ids: ids.clone().into(),
        });
        new.collect::<Vec<_>>()
    });
    let topics = names.iter().map(|name| CreatePartitionsTopic {
        name: name.into(),
        count: arguments.partitions,
        assignments: assignments.clone().map(Into::into),
    });
    let request = CreatePartitionsRequest {
        topics: topics.collect(),
        timeout_ms: timeout_ms(&client.config().connection.request_timeout),
        validate_only: arguments.validate_only,
    };
    let answer = client.call(Target::Controller, &request).await?;
    let response: CreatePartitionsResponse<'_> = answer.decode()?;
    let done = Done {
        verb: if arguments.validate_only {
            "could alter"
        } else {
            "altered"
        },
        facts: json!({"partitions": arguments.partitions}),
    };
    let results = response.results.iter().map(|result| {
        let code = (result.error_code, result.error_message.as_deref());
        of_topic(result.name.to_string(), code, &done)
    });
    results.collect()
}

pub(super) fn run_delete(arguments: &DeleteArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let mut names = Vec::new();
        for pattern in &arguments.topics {
            match chosen(client, std::slice::from_ref(pattern), Internal::Excluded).await {
                Ok(topics) => names.extend(topics.into_keys()),
                Err(CommandError::Failed(_)) if arguments.if_exists => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let question = format!(
            "Delete {} with all records: {}?",
            count(names.len(), "topic"),
            names.join(", ")
        );
        confirmed(arguments.yes, &question).await?;
        let mut results = client.retry(async |client| delete(client, &names).await).await?;
        // Somebody else was faster, or the broker that was asked did not know yet.
        let is_gone = |error: &ClientError| error.code() == Some(ErrorCode::UnknownTopicOrPartition);
        results.retain(|_, result| !arguments.if_exists || !result.as_ref().is_err_and(is_gone));
        tell(&arguments.cluster, &results)
    })
}

async fn delete(client: &mut Client, names: &[String]) -> Result<Results, ClientError> {
    let request = DeleteTopicsRequest {
        topic_names: names.iter().map(Into::into).collect(),
        timeout_ms: timeout_ms(&client.config().connection.request_timeout),
    };
    let answer = client.call(Target::Controller, &request).await?;
    let response: DeleteTopicsResponse<'_> = answer.decode()?;
    let done = Done {
        verb: "deleted",
        facts: json!({}),
    };
    let results = response.responses.iter().map(|result| {
        let code = (result.error_code, result.error_message.as_deref());
        of_topic(result.name.to_string(), code, &done)
    });
    results.collect()
}

/// The result of one topic; an error for all when it is everybody's affair.
fn of_topic(
    name: String,
    (code, message): (i16, Option<&str>),
    done: &Done,
) -> Result<(String, Result<Done, ClientError>), ClientError> {
    match ClientError::check(code, message, || format!("topic {name}")) {
        Err(error) if error.code() == Some(ErrorCode::NotController) => Err(error),
        checked => Ok((name, checked.map(|()| done.clone()))),
    }
}
