//! `milena logdirs`: what lies in the log directories of each broker, and how large it is. It takes the place of
//! `kafka-log-dirs.sh`.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::messages::log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use serde_json::json;

use crate::cluster_args::{ClusterArgs, CommandError, explained};
use crate::output::{Output, Rows, or_absent};
use crate::patterns::{Internal, NamePattern, chosen};
use crate::{Exit, complain};

const EXAMPLES: &str = "\
Examples:
  milena logdirs                           each directory of each broker: partitions, bytes, errors
  milena logdirs --by topic                what fills the disks
  milena logdirs orders                    each replica of a topic, with its lag
  milena logdirs 'audit-*' --broker 0,1 --bytes
  milena logdirs --by partition --json     one JSON object per replica";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogDirsArgs {
    /// Names, globs, or regular expressions between slashes; all topics if absent.
    #[arg(value_name = "topic")]
    topics: Vec<NamePattern>,
    /// Only these brokers.
    #[arg(long, value_name = "id,..", value_delimiter = ',')]
    broker: Vec<i32>,
    /// What a line is; a partition when topics are named, otherwise a directory.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Exact numbers of bytes instead of KiB, MiB, GiB.
    #[arg(long)]
    bytes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Directory,
    Topic,
    Partition,
}

/// A replica in a directory.
#[derive(Clone, Debug)]
struct Replica {
    topic: String,
    partition: i32,
    size_bytes: i64,
    offset_lag: i64,
    is_future: bool,
}

/// A directory of a broker.
#[derive(Clone, Debug)]
struct Directory {
    broker: i32,
    path: String,
    error: Option<String>,
    replicas: Vec<Replica>,
}

pub(crate) fn run(arguments: &LogDirsArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| show(client, arguments).await)
}

async fn show(client: &mut Client, arguments: &LogDirsArgs) -> Result<(), CommandError> {
    let topics = match arguments.topics.as_slice() {
        [] => None,
        patterns => {
            let chosen = chosen(client, patterns, Internal::Included).await?;
            let question = |topic: &milena_server::client::TopicMetadata| DescribableLogDirTopic {
                topic: topic.name.clone().into(),
                partition_index: topic.partitions.iter().map(|partition| partition.id).collect(),
            };
            Some(chosen.values().map(question).collect())
        }
    };
    let request = DescribeLogDirsRequest { topics };
    let mut brokers: Vec<i32> = client.cluster().brokers.keys().copied().collect();
    if !arguments.broker.is_empty() {
        brokers.clone_from(&arguments.broker);
    }
    let mut directories = Vec::new();
    let mut failed = false;
    for broker in brokers {
        match of_broker(client, broker, &request).await {
            Ok(found) => directories.extend(found),
            Err(error) => {
                complain(format_args!("broker {broker}: {}", explained(&error, &[])));
                failed = true;
            }
        }
    }
    failed |= directories.iter().any(|directory| directory.error.is_some());
    let by = arguments.by.unwrap_or(match arguments.topics.as_slice() {
        [] => By::Directory,
        _ => By::Partition,
    });
    let mut out = Output::new();
    match by {
        By::Directory => by_directory(&mut out, arguments, &directories)?,
        By::Topic => by_topic(&mut out, arguments, &directories)?,
        By::Partition => by_partition(&mut out, arguments, &directories)?,
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

async fn of_broker(
    client: &mut Client,
    broker: i32,
    request: &DescribeLogDirsRequest<'_>,
) -> Result<Vec<Directory>, ClientError> {
    let answer = client.call(Target::Broker(broker), request).await?;
    let response: DescribeLogDirsResponse<'_> = answer.decode()?;
    let mut directories = Vec::new();
    for result in &response.results {
        let checked = ClientError::check(result.error_code, None, || result.log_dir.to_string());
        let mut replicas = Vec::new();
        for topic in &result.topics {
            replicas.extend(topic.partitions.iter().map(|partition| Replica {
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                size_bytes: partition.partition_size,
                offset_lag: partition.offset_lag,
                is_future: partition.is_future_key,
            }));
        }
        replicas.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        directories.push(Directory {
            broker,
            path: result.log_dir.to_string(),
            error: checked.err().map(|error| error.to_string()),
            replicas,
        });
    }
    directories.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(directories)
}

fn by_directory(
    out: &mut Output,
    arguments: &LogDirsArgs,
    directories: &[Directory],
) -> Result<(), CommandError> {
    let mut rows = Rows::new([">BROKER", "DIRECTORY", ">PARTITIONS", ">SIZE", "ERROR"]);
    for directory in directories {
        let size: i64 = directory.replicas.iter().map(|replica| replica.size_bytes).sum();
        if arguments.cluster.json {
            out.json(&json!({
                "broker": directory.broker,
                "directory": directory.path,
                "partitions": directory.replicas.len(),
                "bytes": size,
                "error": directory.error,
            }))?;
        } else {
            rows.push([
                directory.broker.to_string(),
                directory.path.clone(),
                directory.replicas.len().to_string(),
                arguments.size(size),
                or_absent(directory.error.as_ref()),
            ]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

fn by_topic(
    out: &mut Output,
    arguments: &LogDirsArgs,
    directories: &[Directory],
) -> Result<(), CommandError> {
    let mut topics: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for replica in directories.iter().flat_map(|directory| &directory.replicas) {
        let (count, size) = topics.entry(&replica.topic).or_default();
        *count += 1;
        *size += replica.size_bytes;
    }
    let mut topics: Vec<_> = topics.into_iter().collect();
    topics.sort_by_key(|(_, (_, size))| std::cmp::Reverse(*size));
    let mut rows = Rows::new(["TOPIC", ">REPLICAS", ">SIZE"]);
    for (topic, (count, size)) in topics {
        if arguments.cluster.json {
            out.json(&json!({"topic": topic, "replicas": count, "bytes": size}))?;
        } else {
            rows.push([topic.to_owned(), count.to_string(), arguments.size(size)]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

fn by_partition(
    out: &mut Output,
    arguments: &LogDirsArgs,
    directories: &[Directory],
) -> Result<(), CommandError> {
    let mut rows = Rows::new([
        ">BROKER",
        "DIRECTORY",
        "TOPIC",
        ">PARTITION",
        ">SIZE",
        ">LAG",
        "FUTURE",
    ]);
    for directory in directories {
        for replica in &directory.replicas {
            if arguments.cluster.json {
                out.json(&json!({
                    "broker": directory.broker,
                    "directory": directory.path,
                    "topic": replica.topic,
                    "partition": replica.partition,
                    "bytes": replica.size_bytes,
                    "offset_lag": replica.offset_lag,
                    "future": replica.is_future,
                }))?;
            } else {
                rows.push([
                    directory.broker.to_string(),
                    directory.path.clone(),
                    replica.topic.clone(),
                    replica.partition.to_string(),
                    arguments.size(replica.size_bytes),
                    replica.offset_lag.to_string(),
                    or_absent(replica.is_future.then_some("future")),
                ]);
            }
        }
        if let Some(error) = &directory.error {
            complain(format_args!("broker {}: {error}", directory.broker));
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

impl LogDirsArgs {
    fn size(&self, bytes: i64) -> String {
        if self.bytes {
            bytes.to_string()
        } else {
            human(bytes)
        }
    }
}

/// `1.5 GiB`, with three digits that matter.
fn human(bytes: i64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if size < 1023.95 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{size:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_units_that_people_read() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}
