//! `milena topics health`: the cluster on one screen: its brokers and controller, and which partitions are in trouble.

use clap::Args;
use milena_server::client::Client;
use serde_json::{Value, json};

use super::trouble::{Trouble, min_insync_replicas, replicas_to_come};
use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::configs::{Entity, settings_of};
use crate::output::{Output, Rows, count, list, or_absent};
use crate::patterns::{Internal, chosen};

const EXAMPLES: &str = "\
Examples:
  milena topics health
  milena topics health --json
  milena topics describe --under-replicated      where the replicas are";

/// Partitions that a line names; the others are counted.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(arguments: &HealthArgs) -> Exit {
    arguments
        .cluster
        .run(async |client| show(client, arguments).await)
}

type IsSo = fn(&Trouble) -> bool;

/// The kinds of trouble, the worst first.
const KINDS: [(&str, IsSo); 4] = [
    ("unavailable", |trouble| trouble.unavailable),
    ("under-min-isr", |trouble| trouble.under_min_isr),
    ("under-replicated", |trouble| trouble.under_replicated),
    ("at-min-isr", |trouble| trouble.at_min_isr),
];

async fn show(client: &mut Client, arguments: &HealthArgs) -> Result<(), CommandError> {
    let topics = chosen(client, &[], Internal::Included).await?;
    let entities: Vec<Entity> = topics.keys().cloned().map(Entity::Topic).collect();
    let settings = settings_of(client, &entities).await?;
    let to_come = replicas_to_come(client).await?;
    let cluster = client.cluster();
    let mut partitions = 0;
    let mut found: [Vec<String>; KINDS.len()] = Default::default();
    for (topic, settings) in topics.values().zip(&settings) {
        let min_isr = min_insync_replicas(settings);
        for partition in &topic.partitions {
            partitions += 1;
            let adding = to_come.get(&(topic.name.clone(), partition.id)).copied();
            let is_alive = |id| cluster.brokers.contains_key(&id);
            let trouble = Trouble::of(partition, adding.unwrap_or(0), min_isr, is_alive);
            for ((_, is_so), names) in KINDS.iter().zip(&mut found) {
                if is_so(&trouble) {
                    names.push(format!("{}-{}", topic.name, partition.id));
                }
            }
        }
    }
    let mut out = Output::new();
    let brokers: Vec<i32> = cluster.brokers.keys().copied().collect();
    if arguments.cluster.json {
        let mut object = json!({
            "cluster_id": cluster.cluster_id,
            "controller": cluster.controller,
            "brokers": brokers,
            "topics": topics.len(),
            "partitions": partitions,
        });
        for ((kind, _), names) in KINDS.iter().zip(found) {
            object[kind.replace('-', "_")] = Value::from(names);
        }
        out.json(&object)?;
        return out.flush();
    }
    out.line(format_args!(
        "Cluster {}: brokers {}, controller {}",
        or_absent(cluster.cluster_id.as_ref()),
        list(brokers),
        or_absent(cluster.controller)
    ))?;
    out.line(format_args!(
        "{} with {}",
        count(topics.len(), "topic"),
        count(partitions, "partition")
    ))?;
    let mut rows = Rows::new(["STATE", ">PARTITIONS", "WHICH"]);
    for ((kind, _), names) in KINDS.iter().zip(&found) {
        rows.push([(*kind).to_owned(), names.len().to_string(), shown(names)]);
    }
    out.table(&rows)?;
    out.flush()
}

fn shown(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED_MAX)].join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_some_and_counts_the_others() {
        let names =
            |count: usize| -> Vec<String> { (0..count).map(|number| format!("t-{number}")).collect() };
        assert_eq!(shown(&names(0)), "");
        assert_eq!(shown(&names(5)), "t-0, t-1, t-2, t-3, t-4");
        assert_eq!(shown(&names(7)), "t-0, t-1, t-2, t-3, t-4 and 2 more");
    }
}
