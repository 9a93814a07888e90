//! `milena topics describe`: the partitions of topics, whole or only those in trouble, and settings that differ from the
//! default.

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use milena_server::client::{Client, PartitionMetadata, TopicMetadata};
use serde_json::{Value, json};

use super::trouble::{Trouble, min_insync_replicas, replicas_to_come};
use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::configs::{Entity, Setting, settings_of};
use crate::output::{Output, Rows, count, list, or_absent};
use crate::patterns::{Internal, NamePattern, chosen};

const EXAMPLES: &str = "\
Examples:
  milena topics describe orders
  milena topics describe                   every topic
  milena topics describe --under-replicated
  milena topics describe --unavailable --json
  milena topics describe --with-overrides  topics with settings of their own";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DescribeArgs {
    /// Names, globs, or regular expressions between slashes; all topics if absent.
    #[arg(value_name = "topic")]
    topics: Vec<NamePattern>,
    /// Only partitions that have fewer replicas in sync than they should.
    #[arg(long, group = "filter", visible_alias = "under-replicated-partitions")]
    under_replicated: bool,
    /// Only partitions with exactly as many replicas in sync as min.insync.replicas demands.
    #[arg(long, group = "filter", visible_alias = "at-min-isr-partitions")]
    at_min_isr: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas demands, or without a leader.
    #[arg(long, group = "filter", visible_alias = "under-min-isr-partitions")]
    under_min_isr: bool,
    /// Only partitions whose leader is missing.
    #[arg(long, group = "filter", visible_alias = "unavailable-partitions")]
    unavailable: bool,
    /// Only topics with settings of their own.
    #[arg(long)]
    with_overrides: bool,
    /// Without the topics of the brokers themselves, unless they are named.
    #[arg(long)]
    exclude_internal: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(arguments: &DescribeArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| show(client, arguments).await)
}

impl DescribeArgs {
    fn filters_partitions(&self) -> bool {
        self.under_replicated || self.at_min_isr || self.under_min_isr || self.unavailable
    }
}

async fn show(client: &mut Client, arguments: &DescribeArgs) -> Result<(), CommandError> {
    let internal = if arguments.exclude_internal {
        Internal::Excluded
    } else {
        Internal::Included
    };
    let topics = chosen(client, &arguments.topics, internal).await?;
    let entities: Vec<Entity> = topics.keys().cloned().map(Entity::Topic).collect();
    let settings = settings_of(client, &entities).await?;
    let to_come = match arguments.under_replicated {
        true => replicas_to_come(client).await?,
        false => HashMap::new(),
    };
    let mut out = Output::new();
    let mut filtered = Rows::new(["TOPIC", ">PARTITION", ">LEADER", "REPLICAS", "ISR", "OFFLINE"]);
    let mut is_first = true;
    for (topic, settings) in topics.values().zip(&settings) {
        if arguments.with_overrides && !settings.iter().any(Setting::is_of_topic) {
            continue;
        }
        let alive = &client.cluster().brokers;
        let min_isr = min_insync_replicas(settings);
        let is_meant = |partition: &&PartitionMetadata| {
            let adding = to_come.get(&(topic.name.clone(), partition.id)).copied();
            let trouble = Trouble::of(partition, adding.unwrap_or(0), min_isr, |id| {
                alive.contains_key(&id)
            });
            !arguments.filters_partitions()
                || arguments.under_replicated && trouble.under_replicated
                || arguments.at_min_isr && trouble.at_min_isr
                || arguments.under_min_isr && trouble.under_min_isr
                || arguments.unavailable && trouble.unavailable
        };
        let partitions: Vec<&PartitionMetadata> = topic.partitions.iter().filter(is_meant).collect();
        if arguments.cluster.json {
            if !partitions.is_empty() || !arguments.filters_partitions() {
                out.json(&object(topic, &partitions, settings))?;
            }
        } else if arguments.filters_partitions() {
            for partition in partitions {
                let [id, leader, replicas, isr, offline] = cells(partition);
                filtered.push([topic.name.clone(), id, leader, replicas, isr, offline]);
            }
        } else {
            if !is_first {
                out.line("")?;
            }
            is_first = false;
            of_topic(&mut out, topic, &partitions, settings)?;
        }
    }
    if arguments.filters_partitions() && !arguments.cluster.json {
        out.table(&filtered)?;
    }
    out.flush()
}

fn of_topic(
    out: &mut Output,
    topic: &TopicMetadata,
    partitions: &[&PartitionMetadata],
    settings: &[Setting],
) -> Result<(), CommandError> {
    let replicas = partitions.first().map_or(0, |partition| partition.replicas.len());
    out.title(format_args!(
        "{}: {}, replication factor {replicas}{}",
        topic.name,
        count(partitions.len(), "partition"),
        if topic.is_internal { ", internal" } else { "" },
    ))?;
    for setting in settings.iter().filter(|setting| !setting.is_default()) {
        out.line(format_args!("  {}={}", setting.name, setting.shown()))?;
    }
    let mut rows = Rows::new([">PARTITION", ">LEADER", "REPLICAS", "ISR", "OFFLINE"]);
    for partition in partitions {
        rows.push(cells(partition));
    }
    out.table(&rows)
}

fn cells(partition: &PartitionMetadata) -> [String; 5] {
    [
        partition.id.to_string(),
        or_absent(partition.leader),
        list(&partition.replicas),
        list(&partition.isr),
        list(&partition.offline_replicas),
    ]
}

fn object(topic: &TopicMetadata, partitions: &[&PartitionMetadata], settings: &[Setting]) -> Value {
    let differing = settings.iter().filter(|setting| !setting.is_default());
    let settings: BTreeMap<&str, &Option<String>> = differing
        .map(|setting| (setting.name.as_str(), &setting.value))
        .collect();
    let partitions = partitions.iter().map(|partition| {
        json!({
            "partition": partition.id,
            "leader": partition.leader,
            "replicas": partition.replicas,
            "isr": partition.isr,
            "offline_replicas": partition.offline_replicas,
        })
    });
    json!({
        "topic": topic.name,
        "internal": topic.is_internal,
        "configs": settings,
        "partitions": partitions.collect::<Vec<Value>>(),
    })
}
