//! `milena groups reset`: offsets of groups without members are set anew. Nothing happens without `--execute`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use milena_server::client::{Client, ClientError, IsolationLevel, Target};
use milena_server::protocol::messages::offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use serde_json::json;

use super::chosen;
use super::coordinators::coordinators;
use super::describe::{Committed, committed};
use super::membership::described;
use super::plan::{self, Plan};
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::moment::{self, date_time};
use crate::output::{Output, Rows, count, or_absent};
use crate::partition_offsets::{Partition, by_topic, list_offsets};
use crate::partitions::{PartitionArg, resolved};
use crate::patterns::NamePattern;
use crate::{Exit, complain};

const EXAMPLES: &str = "\
Examples:
  milena groups reset billing --topic orders --to-earliest             shows the plan
  milena groups reset billing --topic orders --to-earliest --execute   does it
  milena groups reset billing --topic orders:0,2 --to-offset 100
  milena groups reset billing --all-topics --shift-by=-10 --execute
  milena groups reset billing --all-topics --to-datetime 2026-01-31T12:00:00Z
  milena groups reset billing --all-topics --by-duration PT1H          an hour back
  milena groups reset billing --all-topics --to-current --export > plan.csv
  milena groups reset billing --from-file plan.csv --execute

Groups that have members are refused: stop their consumers first. A group that does not exist yet is made.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("goal").required(true))]
#[command(group = clap::ArgGroup::new("scope"))]
pub(super) struct ResetArgs {
    /// Names, globs, or regular expressions between slashes.
    #[arg(value_name = "group", required = true)]
    groups: Vec<NamePattern>,
    /// A topic, or single partitions of it: orders, orders:0, orders:0,2; may be given several times.
    #[arg(long = "topic", value_name = "topic[:partition,..]", group = "scope")]
    topics: Vec<PartitionArg>,
    /// All partitions of which the group has offsets.
    #[arg(long, group = "scope")]
    all_topics: bool,
    /// To the first record that there is.
    #[arg(long, group = "goal")]
    to_earliest: bool,
    /// To the end: only what comes from now on is read.
    #[arg(long, group = "goal")]
    to_latest: bool,
    /// To where the group is; where it has no offset, to the end.
    #[arg(long, group = "goal")]
    to_current: bool,
    /// To this offset, or the nearest that there is.
    #[arg(long, value_name = "offset", group = "goal", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record that is not older: 2026-01-31T12:00:00, UTC unless it says otherwise.
    #[arg(long, value_name = "time", group = "goal", value_parser = date_time)]
    to_datetime: Option<i64>,
    /// To the first record that is not older than so long before now: PT1H, P1D, '90m'.
    #[arg(long, value_name = "time", group = "goal", value_parser = span)]
    by_duration: Option<Duration>,
    /// By so many records forward, or backward if negative.
    #[arg(long, value_name = "number", group = "goal", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the offsets of a CSV file, as --export or kafka-consumer-groups.sh writes it.
    #[arg(long, value_name = "file", group = "goal", conflicts_with = "scope")]
    from_file: Option<PathBuf>,
    /// Do it; otherwise the plan is shown and nothing changed.
    #[arg(long)]
    execute: bool,
    /// Print the plan as CSV.
    #[arg(long, conflicts_with = "json")]
    export: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Not negative; also nothing.
fn span(text: &str) -> Result<Duration, String> {
    let parsed = moment::span(text).and_then(|span| span.try_into().ok());
    parsed.ok_or_else(|| format!("found {text:?}, expected a time as PT1H, P1D or 90m"))
}

/// Where a partition begins and ends, and where it is at the time that is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    first: i64,
    end: i64,
}

pub(super) fn run(arguments: &ResetArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| reset(client, arguments).await)
}

async fn reset(client: &mut Client, arguments: &ResetArgs) -> Result<(), CommandError> {
    if arguments.topics.is_empty() && !arguments.all_topics && arguments.from_file.is_none() {
        return Err(CommandError::Usage(
            "which topics? name them with --topic, or say --all-topics".to_owned(),
        ));
    }
    let names = chosen(client, &arguments.groups).await?;
    let file = match &arguments.from_file {
        Some(path) => Some(plan::read(path, &names).map_err(CommandError::Usage)?),
        None => None,
    };
    let coordinators = coordinators(client, &names).await?;
    let mut failed = false;
    let mut inactive = BTreeSet::new();
    for (name, group) in described(client, &coordinators).await? {
        let group = group?;
        if group.is_inactive() {
            inactive.insert(name);
            continue;
        }
        failed = true;
        complain(format_args!(
            "group {name} is {} with {}: its offsets can be reset once its consumers are stopped",
            group.state,
            count(group.members.len(), "member")
        ));
    }
    let committed = committed(client, &coordinators).await?;
    let named = resolved(client, &arguments.topics).await?;
    let mut plan = Plan::new();
    for name in &inactive {
        let current = committed.get(name).cloned().unwrap_or_default();
        let from_file = file.as_ref().map(|file| file.get(name));
        let offsets = match from_file {
            Some(Some(wanted)) => within_bounds(client, wanted.clone()).await?,
            Some(None) => {
                failed = true;
                complain(format_args!("the file has no offsets for group {name}"));
                continue;
            }
            None => {
                let all = current.keys().cloned().collect();
                let partitions = if arguments.all_topics { &all } else { &named };
                planned(client, arguments, partitions, &current).await?
            }
        };
        if offsets.is_empty() {
            failed = true;
            complain(format_args!(
                "group {name} has no offsets; name topics with --topic"
            ));
            continue;
        }
        plan.insert(name.clone(), offsets);
    }
    if arguments.execute {
        for (group, offsets) in &plan {
            let committing = client.retry(async |client| commit(client, group, offsets).await);
            for error in committing.await? {
                failed = true;
                complain(error);
            }
        }
    }
    show(arguments, &names, &plan, &committed)?;
    if !arguments.execute && !plan.is_empty() {
        complain("nothing was changed; --execute does it");
    }
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

/// The new offset of each partition.
async fn planned(
    client: &mut Client,
    arguments: &ResetArgs,
    partitions: &BTreeSet<Partition>,
    current: &Committed,
) -> Result<BTreeMap<Partition, i64>, CommandError> {
    let ago = |span: Duration| {
        let now = Timestamp::now().as_millisecond();
        now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    };
    if let Some(time) = arguments.to_datetime.or(arguments.by_duration.map(ago)) {
        // Where no record is as late as that, to the end.
        let mut offsets = at(client, partitions, -1).await?;
        offsets.extend(at(client, partitions, time).await?);
        return Ok(offsets);
    }
    if arguments.to_earliest {
        return at(client, partitions, -2).await;
    }
    if arguments.to_latest {
        return at(client, partitions, -1).await;
    }
    if arguments.to_current {
        let missing = partitions
            .iter()
            .filter(|partition| !current.contains_key(*partition))
            .cloned();
        let mut offsets = at(client, &missing.collect(), -1).await?;
        let known = current
            .iter()
            .filter(|(partition, _)| partitions.contains(*partition));
        offsets.extend(known.map(|(partition, offset)| (partition.clone(), *offset)));
        return Ok(offsets);
    }
    let mut wanted = BTreeMap::new();
    for partition in partitions {
        let offset = match (arguments.to_offset, arguments.shift_by, current.get(partition)) {
            (Some(offset), _, _) => offset,
            (None, Some(shift), Some(current)) => current.saturating_add(shift),
            (None, ..) => {
                let (topic, number) = partition;
                return Err(CommandError::Failed(format!(
                    "{topic}-{number} cannot be shifted: the group has no offset there; --to-earliest, --to-latest \
                     and --to-offset need none"
                )));
            }
        };
        wanted.insert(partition.clone(), offset);
    }
    within_bounds(client, wanted).await
}

/// The offsets at a time; a partition without a record that is late enough is missing.
async fn at(
    client: &mut Client,
    partitions: &BTreeSet<Partition>,
    timestamp: i64,
) -> Result<BTreeMap<Partition, i64>, CommandError> {
    let wanted = partitions
        .iter()
        .map(|partition| (partition.clone(), timestamp))
        .collect();
    let mut offsets = BTreeMap::new();
    for (partition, found) in list_offsets(client, IsolationLevel::ReadUncommitted, wanted).await? {
        if let Some(offset) = found?.offset {
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}

/// Moves each offset that is not there to the nearest that is, and says so.
async fn within_bounds(
    client: &mut Client,
    wanted: BTreeMap<Partition, i64>,
) -> Result<BTreeMap<Partition, i64>, CommandError> {
    let partitions: BTreeSet<Partition> = wanted.keys().cloned().collect();
    let first = at(client, &partitions, -2).await?;
    let end = at(client, &partitions, -1).await?;
    let offsets = wanted.into_iter().map(|(partition, offset)| {
        let bounds = Bounds {
            first: first.get(&partition).copied().unwrap_or(0),
            end: end.get(&partition).copied().unwrap_or(i64::MAX),
        };
        let moved = bounds.nearest(offset);
        if moved != offset {
            let (topic, number) = &partition;
            complain(format_args!(
                "{topic}-{number}: {offset} is not between the first offset {} and the end {}, so it becomes {moved}",
                bounds.first, bounds.end
            ));
        }
        (partition, moved)
    });
    Ok(offsets.collect())
}

impl Bounds {
    fn nearest(self, offset: i64) -> i64 {
        if offset > self.end {
            self.end
        } else {
            offset.max(self.first)
        }
    }
}

/// Commits as a consumer without a group would. What was refused is returned.
async fn commit(
    client: &mut Client,
    group: &str,
    offsets: &BTreeMap<Partition, i64>,
) -> Result<Vec<ClientError>, ClientError> {
    let partitions: Vec<&Partition> = offsets.keys().collect();
    let topics = by_topic(&partitions)
        .into_iter()
        .map(|(topic, numbers)| OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: numbers
                .into_iter()
                .map(|number| OffsetCommitRequestPartition {
                    partition_index: number,
                    committed_offset: offsets.get(&(topic.to_owned(), number)).copied().unwrap_or(0),
                    committed_metadata: Some("".into()),
                    ..Default::default()
                })
                .collect(),
        });
    let request = OffsetCommitRequest {
        group_id: group.into(),
        topics: topics.collect(),
        ..Default::default()
    };
    let answer = client.call(Target::Coordinator(group), &request).await?;
    let response: OffsetCommitResponse<'_> = answer.decode()?;
    let mut refused = Vec::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let name = || format!("group {group}: {}-{}", topic.name, partition.partition_index);
            match ClientError::check(partition.error_code, None, name) {
                Err(error) if error.is_retriable() => return Err(error),
                Err(error) => refused.push(error),
                Ok(()) => {}
            }
        }
    }
    Ok(refused)
}

fn show(
    arguments: &ResetArgs,
    names: &[String],
    plan: &Plan,
    committed: &BTreeMap<String, Committed>,
) -> Result<(), CommandError> {
    let mut out = Output::new();
    if arguments.export {
        let text = plan::written(plan, names.len() == 1).map_err(CommandError::Failed)?;
        text.lines().try_for_each(|line| out.line(line))?;
        return out.flush();
    }
    let mut rows = Rows::new(["GROUP", "TOPIC", ">PARTITION", ">CURRENT-OFFSET", ">NEW-OFFSET"]);
    for (group, offsets) in plan {
        for (partition, offset) in offsets {
            let current = committed
                .get(group)
                .and_then(|committed| committed.get(partition));
            if arguments.cluster.json {
                out.json(&json!({
                    "group": group,
                    "topic": partition.0,
                    "partition": partition.1,
                    "current_offset": current,
                    "new_offset": offset,
                    "executed": arguments.execute,
                }))?;
            } else {
                rows.push([
                    group.clone(),
                    partition.0.clone(),
                    partition.1.to_string(),
                    or_absent(current),
                    offset.to_string(),
                ]);
            }
        }
    }
    if !rows.is_empty() {
        out.table(&rows)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_is_not_there_becomes_the_nearest_that_is() {
        let bounds = Bounds { first: 3, end: 9 };
        assert_eq!(
            [0, 3, 5, 9, 10].map(|offset| bounds.nearest(offset)),
            [3, 3, 5, 9, 9]
        );
    }

    #[test]
    fn spans_are_read_as_iso_8601_and_as_people_write_them() {
        for (text, seconds) in [
            ("PT1H", 3600),
            ("P1D", 86_400),
            ("PT0S", 0),
            ("90m", 5400),
            ("P1DT2H", 93_600),
        ] {
            assert_eq!(span(text).map(|span| span.as_secs()), Ok(seconds), "{text}");
        }
        assert!(span("-PT1H").is_err() && span("soon").is_err());
    }
}
