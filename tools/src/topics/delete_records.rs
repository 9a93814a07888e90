//! `milena topics delete-records`: the records before an offset or a time are forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use milena_server::client::{Client, ClientError, IsolationLevel, Target, Topics};
use milena_server::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use serde::Deserialize;
use serde_json::json;

use super::create::timeout_ms;
use crate::cluster_args::{ClusterArgs, CommandError, no_such_topic};
use crate::confirmation::confirmed;
use crate::moment::Moment;
use crate::output::{Output, Rows, count};
use crate::partition_offsets::{ByPartition, Partition, by_leader, by_topic, list_offsets};
use crate::partitions::PartitionArg;
use crate::small_file;
use crate::{Exit, complain};

/// A million entries of a list have half of it.
const LIST_SIZE_MAX_BYTES: u64 = 128 << 20;

const EXAMPLES: &str = "\
Examples:
  milena topics delete-records orders:0 --before 100 --yes
  milena topics delete-records orders --before latest --yes        empties the topic
  milena topics delete-records orders --before-time '7d ago' --yes
  milena topics delete-records --offset-json-file delete.json --yes

The file is that of kafka-delete-records.sh:
  {\"version\": 1, \"partitions\": [{\"topic\": \"orders\", \"partition\": 0, \"offset\": 100}]}";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeleteRecordsArgs {
    /// Topics, or single partitions of one: orders, orders:0, orders:0,2.
    #[arg(
        value_name = "topic[:partition,..]",
        required_unless_present = "offset_json_file"
    )]
    partitions: Vec<PartitionArg>,
    /// The first offset to keep, or latest.
    #[arg(long, value_name = "offset", value_parser = before, required_unless_present_any = ["before_time", "offset_json_file"])]
    before: Option<i64>,
    /// Keep what is not older: 2026-01-31T12:00:00Z, '7d ago', or milliseconds since 1970.
    #[arg(long, value_name = "time", value_parser = Moment::parse, conflicts_with = "before")]
    before_time: Option<Moment>,
    /// Which offsets of which partitions, as kafka-delete-records.sh takes it.
    #[arg(long, value_name = "file", conflicts_with_all = ["partitions", "before", "before_time"])]
    offset_json_file: Option<PathBuf>,
    /// Do it without asking.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// −1 is what DeleteRecords calls the high watermark.
fn before(text: &str) -> Result<i64, String> {
    match text {
        "latest" => Ok(-1),
        _ => text.parse().ok().filter(|&offset| offset >= 0).ok_or_else(|| {
            format!("found {text:?}, expected an offset or latest; --before-time takes a time")
        }),
    }
}

#[derive(Deserialize)]
struct File {
    version: Option<i32>,
    partitions: Vec<FilePartition>,
}

#[derive(Deserialize)]
struct FilePartition {
    topic: String,
    partition: i32,
    offset: i64,
}

fn read(path: &Path) -> Result<BTreeMap<Partition, i64>, CommandError> {
    let wrong = |what: String| CommandError::Usage(format!("{}: {what}", path.display()));
    let text = small_file::read(path, LIST_SIZE_MAX_BYTES).map_err(CommandError::Usage)?;
    let file: File = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(version) = file.version.filter(|&version| version != 1) {
        return Err(wrong(format!("found version {version}, expected 1")));
    }
    let mut offsets = BTreeMap::new();
    for FilePartition {
        topic,
        partition,
        offset,
    } in file.partitions
    {
        if offsets.insert((topic.clone(), partition), offset).is_some() {
            return Err(wrong(format!("found {topic}-{partition} twice")));
        }
    }
    Ok(offsets)
}

pub(super) fn run(arguments: &DeleteRecordsArgs) -> Exit {
    arguments.cluster.run(async |client| {
        let offsets = wanted(client, arguments).await?;
        let question = match offsets.len() {
            1..=5 => {
                let texts = offsets.iter().map(|((topic, partition), offset)| match offset {
                    -1 => format!("{topic}-{partition} all"),
                    _ => format!("{topic}-{partition} before {offset}"),
                });
                format!("Delete records of {}?", texts.collect::<Vec<_>>().join(", "))
            }
            many => format!("Delete records of {}?", count(many, "partition")),
        };
        confirmed(arguments.yes, &question).await?;
        let results = delete(client, &offsets).await?;
        tell(&arguments.cluster, &results)
    })
}

async fn wanted(
    client: &mut Client,
    arguments: &DeleteRecordsArgs,
) -> Result<BTreeMap<Partition, i64>, CommandError> {
    if let Some(path) = &arguments.offset_json_file {
        return read(path);
    }
    let partitions = crate::partitions::resolved(client, &arguments.partitions).await?;
    let Some(time) = arguments.before_time else {
        let offset = arguments.before.unwrap_or(-1);
        return Ok(partitions
            .into_iter()
            .map(|partition| (partition, offset))
            .collect());
    };
    let questions = partitions
        .into_iter()
        .map(|partition| (partition, time.timestamp()));
    let found = list_offsets(client, IsolationLevel::ReadUncommitted, questions.collect()).await?;
    let offsets = found.into_iter().map(|(partition, found)| {
        // Without a record that is late enough all are older.
        Ok((partition, found?.offset.unwrap_or(-1)))
    });
    offsets.collect()
}

type Results = ByPartition<i64>;

/// The new beginning of each partition.
async fn delete(client: &mut Client, offsets: &BTreeMap<Partition, i64>) -> Result<Results, CommandError> {
    let mut names: Vec<String> = offsets.keys().map(|(topic, _)| topic.clone()).collect();
    names.dedup();
    let cluster = client.metadata(Topics::Named(&names)).await?;
    if let Some(missing) = names.iter().find(|name| {
        cluster
            .topics
            .get(*name)
            .is_none_or(|topic| topic.partitions.is_empty())
    }) {
        return Err(no_such_topic(client, missing).await);
    }
    let mut results = Results::new();
    let timeout_ms = timeout_ms(&client.config().connection.request_timeout);
    for (leader, partitions) in by_leader(&cluster, offsets.keys(), &mut results) {
        let topics = by_topic(&partitions)
            .into_iter()
            .map(|(topic, numbers)| DeleteRecordsTopic {
                name: topic.into(),
                partitions: numbers
                    .into_iter()
                    .map(|number| DeleteRecordsPartition {
                        partition_index: number,
                        offset: offsets.get(&(topic.to_owned(), number)).copied().unwrap_or(0),
                    })
                    .collect(),
            });
        let request = DeleteRecordsRequest {
            topics: topics.collect(),
            timeout_ms,
        };
        match ask(client, leader, &request).await {
            Ok(found) => results.extend(found),
            Err(error) => {
                let error = Arc::new(error);
                results.extend(
                    partitions
                        .iter()
                        .map(|&partition| (partition.clone(), Err(error.clone()))),
                );
            }
        }
    }
    Ok(results)
}

async fn ask(
    client: &mut Client,
    leader: i32,
    request: &DeleteRecordsRequest<'_>,
) -> Result<Results, ClientError> {
    let answer = client.call(Target::Broker(leader), request).await?;
    let response: DeleteRecordsResponse<'_> = answer.decode()?;
    let mut results = Results::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let name = || format!("{}-{}", topic.name, partition.partition_index);
            let checked = ClientError::check(partition.error_code, None, name);
            let key = (topic.name.to_string(), partition.partition_index);
            results.insert(key, checked.map_err(Arc::new).map(|()| partition.low_watermark));
        }
    }
    Ok(results)
}

fn tell(arguments: &ClusterArgs, results: &Results) -> Result<(), CommandError> {
    let mut out = Output::new();
    let mut rows = Rows::new(["TOPIC", ">PARTITION", ">LOW WATERMARK"]);
    let mut failed = false;
    for ((topic, partition), result) in results {
        match result {
            Ok(low_watermark) if arguments.json => out.json(&json!({
                "topic": topic,
                "partition": partition,
                "low_watermark": low_watermark,
            }))?,
            Ok(low_watermark) => {
                rows.push([topic.clone(), partition.to_string(), low_watermark.to_string()]);
            }
            Err(error) => {
                failed = true;
                complain(error);
            }
        }
    }
    if !rows.is_empty() {
        out.table(&rows)?;
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_keep_is_an_offset_or_the_end() {
        assert_eq!(before("0"), Ok(0));
        assert_eq!(before("latest"), Ok(-1));
        assert!(before("-1").is_err() && before("all").is_err());
        assert!(
            before("7d ago")
                .unwrap_err()
                .contains("--before-time takes a time")
        );
    }
}
