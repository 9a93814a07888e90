//! `milena groups delete` and `milena groups delete-offsets`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use milena_server::protocol::messages::offsets::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponse,
};
use serde_json::json;

use super::coordinators::{Coordinators, coordinators};
use super::describe::committed;
use super::{chosen, no_such_group};
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::confirmation::confirmed;
use crate::output::{Output, count};
use crate::partition_offsets::{Partition, by_topic};
use crate::partitions::PartitionArg;
use crate::patterns::NamePattern;
use crate::{Exit, complain};

const DELETE_EXAMPLES: &str = "\
Examples:
  milena groups delete billing             asks first
  milena groups delete 'test-*' --yes";

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct DeleteArgs {
    /// Names, globs, or regular expressions between slashes. Groups that have members are refused.
    #[arg(value_name = "group", required = true)]
    groups: Vec<NamePattern>,
    /// Do it without asking.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const DELETE_OFFSETS_EXAMPLES: &str = "\
Examples:
  milena groups delete-offsets billing --topic orders
  milena groups delete-offsets billing --topic orders:0,2 --topic audit --yes";

#[derive(Debug, Args)]
#[command(after_help = DELETE_OFFSETS_EXAMPLES)]
pub(super) struct DeleteOffsetsArgs {
    #[arg(value_name = "group")]
    group: String,
    /// A topic, or single partitions of it: orders, orders:0, orders:0,2; may be given several times.
    #[arg(long = "topic", value_name = "topic[:partition,..]", required = true)]
    topics: Vec<PartitionArg>,
    /// Do it without asking.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(arguments: &DeleteArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let names = chosen(client, &arguments.groups).await?;
        let question = format!(
            "Delete {} with all offsets: {}?",
            count(names.len(), "group"),
            names.join(", ")
        );
        confirmed(arguments.yes, &question).await?;
        let coordinators = coordinators(client, &names).await?;
        let results = delete(client, &coordinators).await?;
        tell(client, arguments, results).await
    })
}

type Results = BTreeMap<String, Result<(), ClientError>>;

async fn delete(client: &mut Client, coordinators: &Coordinators) -> Result<Results, CommandError> {
    let mut results = Results::new();
    for (&coordinator, names) in coordinators {
        let request = DeleteGroupsRequest {
            groups_names: names.iter().map(Into::into).collect(),
        };
        let asked = client.retry(async |client| {
            let answer = client.call(Target::Broker(coordinator), &request).await?;
            let response: DeleteGroupsResponse<'_> = answer.decode()?;
            let results = response.results.iter().map(|result| {
                let name = result.group_id.to_string();
                let checked = ClientError::check(result.error_code, None, || format!("group {name}"));
                (name, checked)
            });
            Ok(results.collect::<Vec<_>>())
        });
        results.extend(asked.await?);
    }
    Ok(results)
}

async fn tell(client: &mut Client, arguments: &DeleteArgs, results: Results) -> Result<(), CommandError> {
    let mut out = Output::new();
    let mut failed = false;
    for (name, result) in results {
        match result {
            Ok(()) if arguments.cluster.json => out.json(&json!({"group": name, "done": "deleted"}))?,
            Ok(()) => out.line(format_args!("deleted {name}"))?,
            Err(error) => {
                failed = true;
                match error.code() {
                    Some(ErrorCode::GroupIdNotFound) => match no_such_group(client, &name).await {
                        CommandError::Failed(text) => complain(text),
                        error => return Err(error),
                    },
                    Some(ErrorCode::NonEmptyGroup) => {
                        complain(format_args!("{error}; stop its consumers first"));
                    }
                    _ => complain(error),
                }
            }
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

pub(super) fn run_offsets(arguments: &DeleteOffsetsArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let group = &arguments.group;
        let coordinators = coordinators(client, std::slice::from_ref(group)).await?;
        let committed = committed(client, &coordinators).await?.remove(group).unwrap_or_default();
        if committed.is_empty() {
            let known = super::listed(client).await?;
            if known.contains_key(group) {
                return Err(CommandError::Failed(format!("group {group} has no offsets")));
            }
            return Err(no_such_group(client, group).await);
        }
        // What a group has offsets of may have been deleted, so the group is asked, not the topics.
        let mut partitions: BTreeSet<&Partition> = BTreeSet::new();
        for topic in &arguments.topics {
            let before = partitions.len();
            partitions.extend(committed.keys().filter(|partition| topic.includes(partition)));
            if partitions.len() == before {
                return Err(CommandError::Failed(format!(
                    "group {group} has no offset of {topic}; `milena groups describe {group}` shows what it has"
                )));
            }
        }
        let partitions: Vec<&Partition> = partitions.into_iter().collect();
        let question =
            format!("Forget the offsets of group {group} for {}?", count(partitions.len(), "partition"));
        confirmed(arguments.yes, &question).await?;
        let results = client.retry(async |client| forget(client, group, &partitions).await).await?;
        tell_offsets(arguments, results)
    })
}

type PartitionResults = BTreeMap<Partition, Result<(), ClientError>>;

async fn forget(
    client: &mut Client,
    group: &str,
    partitions: &[&Partition],
) -> Result<PartitionResults, ClientError> {
    let topics = by_topic(partitions)
        .into_iter()
        .map(|(topic, numbers)| OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: numbers
                .into_iter()
                .map(|partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        });
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics.collect(),
    };
    let answer = client.call(Target::Coordinator(group), &request).await?;
    let response: OffsetDeleteResponse<'_> = answer.decode()?;
    ClientError::check(response.error_code, None, || format!("group {group}"))?;
    let mut results = PartitionResults::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let name = || format!("{}-{}", topic.name, partition.partition_index);
            let checked = ClientError::check(partition.error_code, None, name);
            results.insert((topic.name.to_string(), partition.partition_index), checked);
        }
    }
    Ok(results)
}

fn tell_offsets(arguments: &DeleteOffsetsArgs, results: PartitionResults) -> Result<(), CommandError> {
    let mut out = Output::new();
    let mut failed = false;
    for ((topic, partition), result) in results {
        match result {
            Ok(()) if arguments.cluster.json => out.json(&json!({
                "group": arguments.group,
                "topic": topic,
                "partition": partition,
                "done": "forgotten",
            }))?,
            Ok(()) => out.line(format_args!("forgot the offset of {topic}-{partition}"))?,
            Err(error) => {
                failed = true;
                complain(error);
            }
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}
