//! `milena groups`: list, describe with lag, delete, reset offsets. It takes the place of `kafka-consumer-groups.sh`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use milena_server::client::Client;
use serde_json::json;

use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError, unknown};
use crate::output::{Output, Rows, or_absent};
use crate::patterns::NamePattern;

mod coordinators;
mod delete;
mod describe;
mod membership;
mod plan;
mod reset;

use membership::listed;

const EXAMPLES: &str = "\
Examples:
  milena groups list
  milena groups describe billing                     offsets, ends and lag of each partition, and who reads it
  milena groups describe billing --members
  milena groups reset billing --topic orders --to-earliest             shows what it would do
  milena groups reset billing --topic orders --to-earliest --execute   does it
  milena groups delete-offsets billing --topic orders --yes
  milena groups delete billing --yes";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    /// List groups with their states.
    List(ListArgs),
    /// Show offsets and lag of each partition, members with their assignments, or states.
    Describe(describe::DescribeArgs),
    /// Set the offsets of groups that have no members; shows the plan unless --execute is given.
    Reset(reset::ResetArgs),
    /// Delete groups with all their offsets.
    Delete(delete::DeleteArgs),
    /// Forget the offsets that a group has of topics.
    DeleteOffsets(delete::DeleteOffsetsArgs),
}

const LIST_EXAMPLES: &str = "\
Examples:
  milena groups list
  milena groups list 'billing-*' --state Stable,Empty
  milena groups list --names               names alone, one per line
  milena groups list --json";

/// The last two are those of KIP-848 (Kafka 4).
const STATES: [&str; 7] = [
    "Stable",
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Dead",
    "Assigning",
    "Reconciling",
];

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// Names, globs, or regular expressions between slashes; all groups if absent.
    #[arg(value_name = "group")]
    groups: Vec<NamePattern>,
    /// Only groups in these states.
    #[arg(long, value_name = "state,..", value_delimiter = ',', value_parser = STATES, ignore_case = true)]
    state: Vec<String>,
    /// Names alone.
    #[arg(long, conflicts_with = "json")]
    names: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &GroupsArgs) -> Exit {
    match &arguments.command {
        GroupsCommand::List(arguments) => arguments
            .cluster
            .run(async |client| list(client, arguments).await),
        GroupsCommand::Describe(arguments) => describe::run(arguments),
        GroupsCommand::Reset(arguments) => reset::run(arguments),
        GroupsCommand::Delete(arguments) => delete::run(arguments),
        GroupsCommand::DeleteOffsets(arguments) => delete::run_offsets(arguments),
    }
}

async fn list(client: &mut Client, arguments: &ListArgs) -> Result<(), CommandError> {
    let mut groups = listed(client).await?;
    groups.retain(|name, _| {
        arguments.groups.is_empty() || arguments.groups.iter().any(|pattern| pattern.fits(name))
    });
    if groups.values().any(|group| group.state.is_none()) {
        membership::add_states(client, &mut groups).await?;
    }
    let is_in = |state: &str| {
        arguments
            .state
            .iter()
            .any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    groups.retain(|_, group| arguments.state.is_empty() || group.state.as_deref().is_some_and(is_in));
    let mut out = Output::new();
    let mut rows = Rows::new(["GROUP", "STATE", "PROTOCOL", ">COORDINATOR"]);
    for (name, group) in &groups {
        if arguments.names {
            out.line(name)?;
        } else if arguments.cluster.json {
            out.json(&json!({
                "group": name,
                "state": group.state,
                "protocol_type": group.protocol_type,
                "coordinator": group.coordinator,
            }))?;
        } else {
            rows.push([
                name.clone(),
                or_absent(group.state.as_ref()),
                group.protocol_type.clone(),
                group.coordinator.to_string(),
            ]);
        }
    }
    if !arguments.names && !arguments.cluster.json {
        out.table(&rows)?;
    }
    out.flush()
}

/// The names that are meant; such as are written out need not exist.
async fn chosen(client: &mut Client, patterns: &[NamePattern]) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    let mut known: Option<BTreeMap<String, membership::Listed>> = None;
    for pattern in patterns {
        match pattern {
            NamePattern::Name(name) => names.push(name.clone()),
            NamePattern::Pattern { .. } => {
                let known = match &mut known {
                    Some(known) => known,
                    none => none.insert(listed(client).await?),
                };
                let count = names.len();
                names.extend(known.keys().filter(|name| pattern.fits(name)).cloned());
                if names.len() == count {
                    return Err(CommandError::Failed(format!("no group fits {pattern}")));
                }
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The text about a group that is not there.
async fn no_such_group(client: &mut Client, group: &str) -> CommandError {
    match listed(client).await {
        Ok(known) => CommandError::Failed(unknown("group", group, known.keys())),
        Err(error) => error,
    }
}
