//! A node that stood alone becomes a broker of a cluster: what [`plan`](super::plan) says is written into ZooKeeper, and its own
//! tree is set aside.
//!
//! The log directories are locked meanwhile and nothing of them is touched; the tree's file gets another name once everything is
//! in ZooKeeper. Whatever ends the move before, it is done again as a whole: what is there is left. A write whose answer was
//! lost is looked for before it is repeated.
//!
//! The controller of a cluster that runs learns of a new topic without looking for partition states, and would begin them
//! anew, which fails on those that are there. So at the end another controller is elected, which reads everything; it is
//! what a person does by deleting `/controller`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::{Clock, Io};

use super::plan::{Plan, Refusal, TRANSACTION_SIZE_BYTES, Target, plan};
use super::{ExportError, LastingTree, StoppedNode, Summary};
use crate::adoption::evidence;
use crate::broker;
use crate::config::{BrokerConfig, ZooKeeperSettings};
use crate::coordination::bounded::BoundedCoordination;
use crate::coordination::znodes::{self, TopicAssignment};
use crate::coordination::{Coordination, CoordinationError, ExpectedVersion, MultiError};

/// Nodes that are asked for at once.
const READ_AT_ONCE: usize = 1000;
/// Writes in succession that may fail and be looked for.
const FAILURES_MAX: u32 = 5;
/// How long ZooKeeper may be away before the move ends.
const OUTAGE_MAX: Duration = Duration::from_secs(30);

/// What became of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Everything is in ZooKeeper.
    Now {
        summary: Summary,
        published: Published,
        /// The node's own tree, under its last name.
        set_aside: PathBuf,
    },
    /// It was before: this says so.
    Before { set_aside: PathBuf },
    /// Nothing was written: this would be.
    Planned { summary: Summary, plan: Plan },
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub written: usize,
    pub already: usize,
    pub left_to_the_cluster: Vec<String>,
    /// A cluster that runs has to choose another controller.
    pub renewed_controller: bool,
}

/// Moves the node on the log directories of `config` into the ZooKeeper that it names, or says what that would write. Blocks.
///
/// # Errors
/// By variant. What was written stays, and the next move goes on from there.
pub fn move_stopped(
    io: &Arc<dyn Io>,
    clock: Arc<dyn Clock>,
    config: &BrokerConfig,
    settings: &ZooKeeperSettings,
    is_dry_run: bool,
) -> Result<Moved, ExportError> {
    let node = match StoppedNode::open(io, clock, &config.log_dirs) {
        Err(ExportError::MovedBefore { set_aside }) => return Ok(Moved::Before { set_aside }),
        opened => opened?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExportError::Runtime)?;
    let work = runtime.block_on(async {
        let visited = evidence::visited(node.tree(), node.survey(), &**io).await?;
        if let Some(directory) = visited.into_iter().next() {
            return Err(ExportError::Visited { directory });
        }
        let local = LastingTree::read(&node).await?;
        let cluster_id = local.data(znodes::CLUSTER_ID).ok_or(Refusal::NeverRan)?;
        let cluster_id = znodes::decode_cluster_id(cluster_id).map_err(Refusal::from)?;
        node.survey()
            .check_identity(config.broker_id, Some(&cluster_id))?;
        let zookeeper = Arc::new(broker::connect(settings).await.map_err(Box::new)?);
        let session = BoundedCoordination::new(Arc::clone(&zookeeper) as Arc<dyn Coordination>, OUTAGE_MAX);
        let work = async {
            if is_dry_run {
                return Ok(Work::Planned(look(&session, &local).await?.1));
            }
            zookeeper.ensure_chroot().await?;
            publish(&session, &local).await.map(Work::Published)
        };
        let work = work.await;
        zookeeper.close().await?;
        Ok((Summary::of(&local.znodes), work?))
    });
    Ok(match work? {
        (summary, Work::Planned(plan)) => Moved::Planned { summary, plan },
        (summary, Work::Published(published)) => Moved::Now {
            summary,
            published,
            set_aside: node.set_aside()?,
        },
    })
}

enum Work {
    Planned(Plan),
    Published(Published),
}

/// Writes what is missing, and has everything read by whoever is controller.
async fn publish(tree: &dyn Coordination, local: &LastingTree) -> Result<Published, ExportError> {
    let mut published = Published::default();
    let mut failures = 0;
    let is_alive = 'look: loop {
        let (target, plan) = look(tree, local).await?;
        for transaction in plan.writes {
            let written = transaction.len();
            match tree.multi(transaction).await {
                Ok(_) => {
                    published.written += written;
                    failures = 0;
                }
                Err(MultiError {
                    error:
                        CoordinationError::ConnectionLoss
                        | CoordinationError::NodeExists { .. }
                        | CoordinationError::NoNode { .. }
                        | CoordinationError::BadVersion { .. },
                    ..
                }) if failures < FAILURES_MAX => {
                    failures += 1;
                    continue 'look;
                }
                Err(failed) => return Err(failed.error.into()),
            }
        }
        published.already = plan.already;
        published.left_to_the_cluster = plan.left_to_the_cluster;
        break !target.live_brokers.is_empty();
    };
    published.renewed_controller = is_alive && end_controller(tree).await?;
    Ok(published)
}

/// Has the cluster elect a controller. Done twice it does no harm.
async fn end_controller(tree: &dyn Coordination) -> Result<bool, CoordinationError> {
    loop {
        match tree.delete(znodes::CONTROLLER, ExpectedVersion::Any).await {
            Err(CoordinationError::ConnectionLoss) => {}
            ended => return ended,
        }
    }
}

/// What is there, and what therefore has to be done.
async fn look(tree: &dyn Coordination, local: &LastingTree) -> Result<(Target, Plan), ExportError> {
    let target = read(tree, local).await?;
    let plan = plan(local, &target, TRANSACTION_SIZE_BYTES)?;
    Ok((target, plan))
}

async fn read(tree: &dyn Coordination, local: &LastingTree) -> Result<Target, ExportError> {
    let mut target = Target::default();
    let paths: Vec<&String> = local.znodes.iter().map(|znode| &znode.path).collect();
    for paths in paths.chunks(READ_AT_ONCE) {
        let nodes = tree.get_many(paths.iter().copied().cloned().collect()).await?;
        for (path, node) in paths.iter().zip(nodes) {
            if let Some(node) = node {
                target
                    .nodes
                    .insert((*path).clone(), (node.data, node.stat.version));
            }
        }
    }
    let brokers = tree.children(znodes::BROKER_IDS, None).await?.unwrap_or_default();
    target.live_brokers = brokers.iter().filter_map(|id| id.parse().ok()).collect();
    let ours: HashSet<&str> = paths.iter().map(|path| path.as_str()).collect();
    let topics = tree.children(znodes::TOPICS, None).await?.unwrap_or_default();
    let others = topics.into_iter().map(|topic| (znodes::topic(&topic), topic));
    let others: Vec<(String, String)> = others.filter(|(path, _)| !ours.contains(path.as_str())).collect();
    for others in others.chunks(READ_AT_ONCE) {
        let nodes = tree
            .get_many(others.iter().map(|(path, _)| path.clone()).collect())
            .await?;
        for ((path, topic), node) in others.iter().zip(nodes) {
            let Some(data) = node.and_then(|node| node.data) else {
                continue;
            };
            let assignment = TopicAssignment::decode(path, &data).map_err(Refusal::from)?;
            target.other_topics.insert(topic.clone(), assignment);
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
