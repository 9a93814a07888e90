//! `milena brokers`: who is in the cluster.

use clap::Args;
use milena_server::client::Client;
use serde_json::json;

use crate::Exit;
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::output::{Output, Rows, or_absent};

#[derive(Debug, Args)]
pub(crate) struct BrokersArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &BrokersArgs) -> Exit {
    arguments.cluster.run(async |client| show(client, arguments))
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
