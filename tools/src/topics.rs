//! `milena topics`: list, describe, tell the health of, create, alter, delete, and forget the beginnings of partitions. It takes the place
//! of `kafka-topics.sh` and `kafka-delete-records.sh`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use milena_server::client::{Client, ClientError};
use serde_json::{Value, json};

use crate::cluster_args::{ClusterArgs, CommandError};
use crate::output::{Output, Rows, or_absent};
use crate::patterns::{Internal, NamePattern, chosen};
use crate::{Exit, complain};

mod change;
mod create;
mod delete_records;
mod describe;
mod health;
mod trouble;

const EXAMPLES: &str = "\
Examples:
  milena topics list
  milena topics create orders --partitions 3 --config retention.ms=86400000
  milena topics describe orders
  milena topics describe --under-replicated
  milena topics health
  milena topics alter orders --partitions 6
  milena topics delete-records orders:0 --before 100 --yes
  milena topics delete orders --yes

`milena configs` shows and changes the settings of topics.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// List topics with the numbers of their partitions and replicas.
    List(ListArgs),
    /// Show leaders, replicas and in-sync replicas of each partition, and settings that are not the default.
    Describe(describe::DescribeArgs),
    /// Show how the cluster is: brokers, controller, and which partitions are in trouble.
    Health(health::HealthArgs),
    /// Create topics.
    Create(create::CreateArgs),
    /// Give topics more partitions.
    Alter(change::AlterArgs),
    /// Delete topics with all their records.
    Delete(change::DeleteArgs),
    /// Forget the records before an offset.
    DeleteRecords(delete_records::DeleteRecordsArgs),
}

const LIST_EXAMPLES: &str = "\
Examples:
  milena topics list
  milena topics list 'orders-*' --exclude-internal
  milena topics list --names               names alone, one per line
  milena topics list --json";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// Names, globs, or regular expressions between slashes; all topics if absent.
    #[arg(value_name = "topic")]
    topics: Vec<NamePattern>,
    /// Names alone.
    #[arg(long, conflicts_with = "json")]
    names: bool,
    /// Without the topics of the brokers themselves, unless they are named.
    #[arg(long)]
    exclude_internal: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &TopicsArgs) -> Exit {
    match &arguments.command {
        TopicsCommand::List(arguments) => arguments
            .cluster
            .run(async |client| list(client, arguments).await),
        TopicsCommand::Describe(arguments) => describe::run(arguments),
        TopicsCommand::Health(arguments) => health::run(arguments),
        TopicsCommand::Create(arguments) => create::run(arguments),
        TopicsCommand::Alter(arguments) => change::run_alter(arguments),
        TopicsCommand::Delete(arguments) => change::run_delete(arguments),
        TopicsCommand::DeleteRecords(arguments) => delete_records::run(arguments),
    }
}

async fn list(client: &mut Client, arguments: &ListArgs) -> Result<(), CommandError> {
    let internal = if arguments.exclude_internal {
        Internal::Excluded
    } else {
        Internal::Included
    };
    let topics = chosen(client, &arguments.topics, internal).await?;
    let mut out = Output::new();
    let mut rows = Rows::new(["TOPIC", ">PARTITIONS", ">REPLICAS", "KIND"]);
    for topic in topics.values() {
        let replicas = topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len());
        if arguments.names {
            out.line(&topic.name)?;
        } else if arguments.cluster.json {
            out.json(&json!({
                "topic": topic.name,
                "partitions": topic.partitions.len(),
                "replication_factor": replicas,
                "internal": topic.is_internal,
            }))?;
        } else {
            rows.push([
                topic.name.clone(),
                topic.partitions.len().to_string(),
                replicas.to_string(),
                or_absent(topic.is_internal.then_some("internal")),
            ]);
        }
    }
    if !arguments.names && !arguments.cluster.json {
        out.table(&rows)?;
    }
    out.flush()
}

/// What was done with a topic.
#[derive(Clone, Debug)]
struct Done {
    verb: &'static str,
    /// An object.
    facts: Value,
}

type Results = BTreeMap<String, Result<Done, ClientError>>;

/// Tells what became of each topic: what was done on standard output, refusals on standard error.
fn tell(arguments: &ClusterArgs, results: &Results) -> Result<(), CommandError> {
    let mut out = Output::new();
    let mut failed = false;
    for (name, result) in results {
        match result {
            Ok(Done { verb, facts }) => {
                let facts = facts.as_object().into_iter().flatten();
                if arguments.json {
                    let mut object = json!({"topic": name, "done": verb});
                    for (key, value) in facts {
                        object[key] = value.clone();
                    }
                    out.json(&object)?;
                    continue;
                }
                let facts = facts.map(|(key, value)| format!("{} {value}", key.replace('_', " ")));
                match facts.collect::<Vec<_>>().as_slice() {
                    [] => out.line(format_args!("{verb} {name}"))?,
                    facts => out.line(format_args!("{verb} {name}: {}", facts.join(", ")))?,
                }
            }
            Err(error) => {
                failed = true;
                complain(error);
            }
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}
