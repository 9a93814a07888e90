//! `milena groups describe`: how far groups have come, who is in them, what state they are in.

use std::collections::BTreeMap;

use clap::Args;
use milena_server::client::{Client, ClientError, IsolationLevel, Target};
use milena_server::protocol::messages::offsets::{OffsetFetchRequest, OffsetFetchResponse};
use serde_json::json;

use super::coordinators::{Coordinators, coordinators};
use super::membership::{Group, Member, described, listed};
use super::{chosen, no_such_group};
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::output::{Output, Rows, count, or_absent};
use crate::partition_offsets::{Partition, list_offsets};
use crate::patterns::NamePattern;
use crate::{Exit, complain};

const EXAMPLES: &str = "\
Examples:
  milena groups describe billing
  milena groups describe 'billing-*' audit
  milena groups describe --all
  milena groups describe billing --members           who is in it, and what each reads
  milena groups describe --all --state               states, coordinators and total lag, a line per group
  milena groups describe billing --json              one JSON object per partition";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DescribeArgs {
    /// Names, globs, or regular expressions between slashes.
    #[arg(value_name = "group", required_unless_present = "all")]
    groups: Vec<NamePattern>,
    /// Every group.
    #[arg(short, long, conflicts_with = "groups")]
    all: bool,
    /// Show members and their assignments.
    #[arg(long)]
    members: bool,
    /// Show states, coordinators, assignors and total lag, a line per group.
    #[arg(long, conflicts_with = "members")]
    state: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What a group has committed, by partition.
pub(super) type Committed = BTreeMap<Partition, i64>;

/// A partition of a group.
struct Progress<'g> {
    partition: &'g Partition,
    current: Option<i64>,
    end: Option<i64>,
    member: Option<&'g Member>,
}

impl Progress<'_> {
    fn lag(&self) -> Option<i64> {
        Some(self.end? - self.current?)
    }
}

pub(super) fn run(arguments: &DescribeArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| show(client, arguments).await)
}

async fn show(client: &mut Client, arguments: &DescribeArgs) -> Result<(), CommandError> {
    let coordinators = if arguments.all {
        let mut coordinators = Coordinators::new();
        for (name, group) in listed(client).await? {
            coordinators.entry(group.coordinator).or_default().push(name);
        }
        coordinators
    } else {
        let names = chosen(client, &arguments.groups).await?;
        coordinators(client, &names).await?
    };
    let described = described(client, &coordinators).await?;
    let committed = if arguments.members {
        BTreeMap::new()
    } else {
        committed(client, &coordinators).await?
    };
    let mut failed = false;
    let mut groups: BTreeMap<String, (Group, Committed)> = BTreeMap::new();
    for (name, group) in described {
        let committed = committed.get(&name).cloned().unwrap_or_default();
        match group {
            Ok(group) if group.is_dead() && committed.is_empty() && !arguments.all => {
                failed = true;
                match no_such_group(client, &name).await {
                    CommandError::Failed(text) => complain(text),
                    error => return Err(error),
                }
            }
            Ok(group) => drop(groups.insert(name, (group, committed))),
            Err(error) => {
                failed = true;
                complain(error);
            }
        }
    }
    let mut out = Output::new();
    if arguments.members {
        show_members(&mut out, arguments, &groups)?;
    } else {
        let ends = ends(client, &groups).await?;
        if arguments.state {
            show_states(&mut out, client, arguments, &groups, &ends)?;
        } else {
            show_offsets(&mut out, arguments, &groups, &ends)?;
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

/// All offsets of each group; a group without any has none.
pub(super) async fn committed(
    client: &mut Client,
    coordinators: &Coordinators,
) -> Result<BTreeMap<String, Committed>, CommandError> {
    let mut committed = BTreeMap::new();
    for (&coordinator, groups) in coordinators {
        let request = |group: &String| OffsetFetchRequest {
            group_id: group.clone().into(),
            topics: None,
            require_stable: false,
        };
        let requests: Vec<OffsetFetchRequest<'_>> = groups.iter().map(request).collect();
        let found = client.retry(async |client| {
            let answers = client.call_all(Target::Broker(coordinator), &requests).await?;
            let mut found = Vec::new();
            for (group, answer) in groups.iter().zip(&answers) {
                let response: OffsetFetchResponse<'_> = answer.decode()?;
                ClientError::check(response.error_code, None, || format!("group {group}"))?;
                found.push((group.clone(), of_wire(&response)));
            }
            Ok(found)
        });
        committed.extend(found.await?);
    }
    Ok(committed)
}

fn of_wire(response: &OffsetFetchResponse<'_>) -> Committed {
    let mut committed = Committed::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            if partition.error_code == 0 && partition.committed_offset >= 0 {
                let key = (topic.name.to_string(), partition.partition_index);
                committed.insert(key, partition.committed_offset);
            }
        }
    }
    committed
}

/// The ends of all partitions that occur; such as cannot be told are missing.
async fn ends(
    client: &mut Client,
    groups: &BTreeMap<String, (Group, Committed)>,
) -> Result<BTreeMap<Partition, i64>, CommandError> {
    let mut wanted = BTreeMap::new();
    for (group, committed) in groups.values() {
        let assigned = group.members.iter().flat_map(|member| &member.assignment);
        wanted.extend(
            committed
                .keys()
                .chain(assigned)
                .map(|partition| (partition.clone(), -1)),
        );
    }
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = list_offsets(client, IsolationLevel::ReadUncommitted, wanted).await?;
    let ends = found
        .into_iter()
        .filter_map(|(partition, found)| Some((partition, found.ok()?.offset?)));
    Ok(ends.collect())
}

/// First what members read, then what only has an offset.
fn progress<'g>(
    group: &'g Group,
    committed: &'g Committed,
    ends: &BTreeMap<Partition, i64>,
) -> Vec<Progress<'g>> {
    let mut rows: BTreeMap<&Partition, Option<&Member>> =
        committed.keys().map(|partition| (partition, None)).collect();
    for member in &group.members {
        rows.extend(
            member
                .assignment
                .iter()
                .map(|partition| (partition, Some(member))),
        );
    }
    let progress = rows.into_iter().map(|(partition, member)| Progress {
        partition,
        current: committed.get(partition).copied(),
        end: ends.get(partition).copied(),
        member,
    });
    progress.collect()
}

fn total_lag(progress: &[Progress<'_>]) -> i64 {
    progress.iter().filter_map(Progress::lag).sum()
}

fn show_offsets(
    out: &mut Output,
    arguments: &DescribeArgs,
    groups: &BTreeMap<String, (Group, Committed)>,
    ends: &BTreeMap<Partition, i64>,
) -> Result<(), CommandError> {
    let mut is_first = true;
    for (name, (group, committed)) in groups {
        let progress = progress(group, committed, ends);
        if arguments.cluster.json {
            for row in &progress {
                out.json(&json!({
                    "group": name,
                    "state": group.state,
                    "topic": row.partition.0,
                    "partition": row.partition.1,
                    "current_offset": row.current,
                    "log_end_offset": row.end,
                    "lag": row.lag(),
                    "consumer_id": row.member.map(|member| &member.id),
                    "host": row.member.map(|member| &member.host),
                    "client_id": row.member.map(|member| &member.client_id),
                }))?;
            }
            continue;
        }
        if !is_first {
            out.line("")?;
        }
        is_first = false;
        let members = count(group.members.len(), "member");
        out.title(format_args!(
            "{name}: {}, {members}, lag {}",
            group.state,
            total_lag(&progress)
        ))?;
        let headings = [
            "TOPIC",
            ">PARTITION",
            ">CURRENT-OFFSET",
            ">LOG-END-OFFSET",
            ">LAG",
            "CONSUMER-ID",
            "HOST",
            "CLIENT-ID",
        ];
        let mut rows = Rows::new(headings);
        for row in &progress {
            rows.push([
                row.partition.0.clone(),
                row.partition.1.to_string(),
                or_absent(row.current),
                or_absent(row.end),
                or_absent(row.lag()),
                or_absent(row.member.map(|member| &member.id)),
                or_absent(row.member.map(|member| &member.host)),
                or_absent(row.member.map(|member| &member.client_id)),
            ]);
        }
        out.table(&rows)?;
    }
    Ok(())
}

fn show_members(
    out: &mut Output,
    arguments: &DescribeArgs,
    groups: &BTreeMap<String, (Group, Committed)>,
) -> Result<(), CommandError> {
    let headings = [
        "GROUP",
        "CONSUMER-ID",
        "INSTANCE-ID",
        "HOST",
        "CLIENT-ID",
        ">PARTITIONS",
        "ASSIGNMENT",
    ];
    let mut rows = Rows::new(headings);
    for (name, (group, _)) in groups {
        for member in &group.members {
            if arguments.cluster.json {
                let assignment = by_topic(&member.assignment);
                out.json(&json!({
                    "group": name,
                    "consumer_id": member.id,
                    "instance_id": member.instance_id,
                    "host": member.host,
                    "client_id": member.client_id,
                    "subscription": member.subscription,
                    "assignment": assignment.into_iter().collect::<BTreeMap<_, _>>(),
                }))?;
            } else {
                rows.push([
                    name.clone(),
                    member.id.clone(),
                    or_absent(member.instance_id.as_ref()),
                    member.host.clone(),
                    member.client_id.clone(),
                    member.assignment.len().to_string(),
                    assignment_text(&member.assignment),
                ]);
            }
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

fn by_topic(assignment: &[Partition]) -> Vec<(&str, Vec<i32>)> {
    crate::partition_offsets::by_topic(&assignment.iter().collect::<Vec<_>>())
}

/// `audit(0), orders(0,1)` as kafka-consumer-groups.sh prints it.
fn assignment_text(assignment: &[Partition]) -> String {
    let topics = by_topic(assignment).into_iter().map(|(topic, numbers)| {
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        format!("{topic}({})", numbers.join(","))
    });
    topics.collect::<Vec<_>>().join(", ")
}

fn show_states(
    out: &mut Output,
    client: &Client,
    arguments: &DescribeArgs,
    groups: &BTreeMap<String, (Group, Committed)>,
    ends: &BTreeMap<Partition, i64>,
) -> Result<(), CommandError> {
    let mut rows = Rows::new(["GROUP", "STATE", "COORDINATOR", "ASSIGNOR", ">MEMBERS", ">LAG"]);
    for (name, (group, committed)) in groups {
        let lag = total_lag(&progress(group, committed, ends));
        let address = client.address_of(group.coordinator).ok();
        if arguments.cluster.json {
            out.json(&json!({
                "group": name,
                "state": group.state,
                "protocol_type": group.protocol_type,
                "assignor": group.protocol,
                "coordinator": group.coordinator,
                "members": group.members.len(),
                "lag": lag,
            }))?;
        } else {
            let place = address.map(|address| format!("{address} ({})", group.coordinator));
            rows.push([
                name.clone(),
                group.state.clone(),
                place.unwrap_or_else(|| group.coordinator.to_string()),
                group.protocol.clone(),
                group.members.len().to_string(),
                lag.to_string(),
            ]);
        }
    }
    if arguments.cluster.json {
        Ok(())
    } else {
        out.table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_what_has_an_offset_is_told_with_its_lag() {
        let partition = |number: i32| ("t".to_owned(), number);
        let member = Member {
            id: "m".to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            host: "/h".to_owned(),
            subscription: vec!["t".to_owned()],
            assignment: vec![partition(0), partition(1)],
        };
        assert_eq!(assignment_text(&member.assignment), "t(0,1)");
        assert_eq!(assignment_text(&[]), "");
        let group = Group {
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            coordinator: 0,
            members: vec![member],
        };
        let committed = Committed::from([(partition(0), 5), (partition(2), 7)]);
        let ends = BTreeMap::from([(partition(0), 9), (partition(1), 3)]);
        let rows = progress(&group, &committed, &ends);
        let facts: Vec<_> = rows
            .iter()
            .map(|row| (row.partition.1, row.current, row.lag(), row.member.is_some()))
            .collect();
        assert_eq!(
            facts,
            [
                (0, Some(5), Some(4), true),
                (1, None, None, true),
                (2, Some(7), None, false)
            ]
        );
        assert_eq!(total_lag(&rows), 4);
    }
}
