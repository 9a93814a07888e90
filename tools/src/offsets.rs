//! `milena offsets`: where partitions begin and end, how many records lie between, and the offset at a time. It takes the
//! place of Kafka's GetOffsetShell.

use std::collections::BTreeMap;

use clap::Args;
use milena_server::client::{Client, IsolationLevel};
use serde_json::json;

use crate::cluster_args::{ClusterArgs, CommandError};
use crate::moment::{self, Moment};
use crate::output::{Output, Rows, or_absent};
use crate::partition_offsets::{Found, Offsets, Partition, list_offsets};
use crate::patterns::{Internal, NamePattern, chosen};
use crate::{Exit, complain};

const EXAMPLES: &str = "\
Examples:
  milena offsets                           every partition: first offset, end, number of records
  milena offsets orders 'audit-*'          of these topics
  milena offsets orders --partitions 0,2
  milena offsets --by-topic                a line per topic
  milena offsets orders --time latest      the ends alone, as GetOffsetShell --time -1 shows them
  milena offsets orders --time 2026-01-31T12:00:00Z
  milena offsets orders --time '2h ago'    the first record that is not older than two hours
  milena offsets orders --json             one JSON object per partition";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct OffsetsArgs {
    /// Names, globs, or regular expressions between slashes; all topics if absent.
    #[arg(value_name = "topic")]
    topics: Vec<NamePattern>,
    /// Only these partitions of each topic.
    #[arg(long, value_name = "number,..", value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Instead of both ends the offset at a time: earliest, latest, 2026-01-31T12:00:00Z, '2h ago', or milliseconds
    /// since 1970.
    #[arg(long, value_name = "time", value_parser = Moment::parse, allow_hyphen_values = true)]
    time: Option<Moment>,
    /// Ends are those of transactions that are over, not those of all records.
    #[arg(long)]
    read_committed: bool,
    /// A line per topic instead of one per partition.
    #[arg(long, conflicts_with = "time")]
    by_topic: bool,
    /// Without the topics of the brokers themselves, unless they are named.
    #[arg(long)]
    exclude_internal: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &OffsetsArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| show(client, arguments).await)
}

async fn show(client: &mut Client, arguments: &OffsetsArgs) -> Result<(), CommandError> {
    let internal = if arguments.exclude_internal {
        Internal::Excluded
    } else {
        Internal::Included
    };
    let topics = chosen(client, &arguments.topics, internal).await?;
    let is_meant = |id: &i32| arguments.partitions.is_empty() || arguments.partitions.contains(id);
    let mut wanted: Vec<Partition> = Vec::new();
    for topic in topics.values() {
        let ids = topic
            .partitions
            .iter()
            .map(|partition| partition.id)
            .filter(is_meant);
        wanted.extend(ids.map(|id| (topic.name.clone(), id)));
    }
    if let [number, ..] = arguments.partitions.as_slice()
        && wanted.is_empty()
    {
        return Err(CommandError::Failed(format!(
            "none of these topics has a partition {number}"
        )));
    }
    let isolation = if arguments.read_committed {
        IsolationLevel::ReadCommitted
    } else {
        IsolationLevel::ReadUncommitted
    };
    let mut at = async |moment: Moment| {
        let timestamp = moment.timestamp();
        let questions = wanted.iter().map(|partition| (partition.clone(), timestamp));
        list_offsets(client, isolation, questions.collect()).await
    };
    let mut out = Output::new();
    let failures = match arguments.time {
        Some(time) => {
            let found = at(time).await?;
            let (found, failures) = parted(found);
            of_a_time(&mut out, arguments, &found)?;
            failures
        }
        None => {
            let (first, failures) = parted(at(Moment::Earliest).await?);
            let (end, further) = parted(at(Moment::Latest).await?);
            let mut ends = BTreeMap::new();
            for (partition, found) in first {
                if let Some(end) = end.get(&partition).and_then(|end| end.offset) {
                    ends.insert(partition, (found.offset.unwrap_or(0), end));
                }
            }
            both_ends(&mut out, arguments, &ends)?;
            failures.into_iter().chain(further).collect()
        }
    };
    out.flush()?;
    told(failures)
}

/// What was found, and why the rest was not.
fn parted(offsets: Offsets) -> (BTreeMap<Partition, Found>, BTreeMap<Partition, String>) {
    let (mut found, mut failures) = (BTreeMap::new(), BTreeMap::new());
    for (partition, offset) in offsets {
        match offset {
            Ok(offset) => drop(found.insert(partition, offset)),
            Err(error) => drop(failures.insert(partition, error.to_string())),
        }
    }
    (found, failures)
}

fn told(failures: BTreeMap<Partition, String>) -> Result<(), CommandError> {
    if failures.is_empty() {
        return Ok(());
    }
    failures.values().for_each(complain);
    Err(CommandError::Told)
}

fn of_a_time(
    out: &mut Output,
    arguments: &OffsetsArgs,
    found: &BTreeMap<Partition, Found>,
) -> Result<(), CommandError> {
    let mut rows = Rows::new(["TOPIC", ">PARTITION", ">OFFSET", "TIMESTAMP"]);
    for ((topic, partition), found) in found {
        if arguments.cluster.json {
            out.json(&json!({
                "topic": topic,
                "partition": partition,
                "offset": found.offset,
                "timestamp": found.timestamp,
            }))?;
        } else {
            rows.push([
                topic.clone(),
                partition.to_string(),
                or_absent(found.offset),
                or_absent(found.timestamp.map(moment::shown)),
            ]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

fn both_ends(
    out: &mut Output,
    arguments: &OffsetsArgs,
    ends: &BTreeMap<Partition, (i64, i64)>,
) -> Result<(), CommandError> {
    if arguments.by_topic {
        return totals(out, arguments, ends);
    }
    let mut rows = Rows::new(["TOPIC", ">PARTITION", ">EARLIEST", ">LATEST", ">RECORDS"]);
    for ((topic, partition), (first, end)) in ends {
        if arguments.cluster.json {
            out.json(&json!({
                "topic": topic,
                "partition": partition,
                "earliest": first,
                "latest": end,
                "records": end - first,
            }))?;
        } else {
            let numbers = [first, end, &(end - first)].map(i64::to_string);
            let [first, end, count] = numbers;
            rows.push([topic.clone(), partition.to_string(), first, end, count]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

fn totals(
    out: &mut Output,
    arguments: &OffsetsArgs,
    ends: &BTreeMap<Partition, (i64, i64)>,
) -> Result<(), CommandError> {
    let mut topics: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for ((topic, _), (first, end)) in ends {
        let (partitions, count) = topics.entry(topic).or_default();
        *partitions += 1;
        *count += end - first;
    }
    let mut rows = Rows::new(["TOPIC", ">PARTITIONS", ">RECORDS"]);
    for (topic, (partitions, count)) in topics {
        if arguments.cluster.json {
            out.json(&json!({"topic": topic, "partitions": partitions, "records": count}))?;
        } else {
            rows.push([topic.to_owned(), partitions.to_string(), count.to_string()]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}
