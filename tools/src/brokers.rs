//! `milena brokers`: who is in the cluster, and what each broker serves. It takes the place of
//! `kafka-broker-api-versions.sh`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use clap::Args;
use milena_server::client::Client;
use milena_server::protocol::ApiKey;
use serde_json::json;

use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::output::{Output, Rows, or_absent};

const EXAMPLES: &str = "\
Examples:
  milena brokers                           ids, addresses, racks, the controller, the cluster's id
  milena brokers --api-versions            which versions of which API each broker serves
  milena brokers -b kafka-1:9092,kafka-2:9092 --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BrokersArgs {
    /// Show instead which versions of which API each broker serves, and whether this client speaks one of them.
    #[arg(long)]
    api_versions: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &BrokersArgs) -> Exit {
    arguments.cluster.run(async |client| {
        if arguments.api_versions {
            show_versions(client, arguments).await
        } else {
            show(client, arguments)
        }
    })
}

fn show(client: &Client, arguments: &BrokersArgs) -> Result<(), CommandError> {
    let cluster = client.cluster();
    let mut out = Output::new();
    let is_controller = |id| cluster.controller == Some(id);
    if arguments.cluster.json {
        for node in cluster.brokers.values() {
            out.json(&json!({
                "id": node.id,
                "host": *node.address.host,
                "port": node.address.port,
                "rack": node.rack,
                "controller": is_controller(node.id),
                "cluster_id": cluster.cluster_id,
            }))?;
        }
        return out.flush();
    }
    let mut rows = Rows::new([">ID", "HOST", ">PORT", "RACK", "ROLE"]);
    for node in cluster.brokers.values() {
        rows.push([
            node.id.to_string(),
            node.address.host.to_string(),
            node.address.port.to_string(),
            or_absent(node.rack.as_ref()),
            or_absent(is_controller(node.id).then_some("controller")),
        ]);
    }
    out.line(format_args!("Cluster {}", or_absent(cluster.cluster_id.as_ref())))?;
    out.table(&rows)?;
    out.flush()
}

async fn show_versions(client: &mut Client, arguments: &BrokersArgs) -> Result<(), CommandError> {
    let ids: Vec<i32> = client.cluster().brokers.keys().copied().collect();
    let mut out = Output::new();
    let mut rows = Rows::new([">BROKER", ">KEY", "API", ">FIRST", ">LAST", "KNOWN HERE"]);
    for id in ids {
        let versions: HashMap<i16, RangeInclusive<i16>> = client.versions(id).await?;
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by_key(|(key, _)| *key);
        for (key, served) in versions {
            let api = ApiKey::from_id(key);
            let known = api
                .map(ApiKey::defined_versions)
                .filter(|known| known.start() <= served.end() && served.start() <= known.end());
            if arguments.cluster.json {
                out.json(&json!({
                    "broker": id,
                    "api_key": key,
                    "api": api.map(ApiKey::name),
                    "first_version": served.start(),
                    "last_version": served.end(),
                    "usable_version": known.map(|known| *known.end().min(served.end())),
                }))?;
            } else {
                rows.push([
                    id.to_string(),
                    key.to_string(),
                    or_absent(api),
                    served.start().to_string(),
                    served.end().to_string(),
                    known.map_or_else(String::new, |known| {
                        format!("{} to {}", known.start(), known.end())
                    }),
                ]);
            }
        }
    }
    if !arguments.cluster.json {
        out.table(&rows)?;
    }
    out.flush()
}
