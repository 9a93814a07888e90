//! What has to be written for the node to be a broker of the cluster in ZooKeeper: a pure function of what its tree has and
//! what is there.
//!
//! A path without a cluster id is no cluster yet: it gets everything, and the cluster id last, so that up to then no broker
//! starts on a part of it (its log directories are of that cluster). A cluster with the node's id gets the topics that it does
//! not have; the settings that all its brokers share stay as they are, and are told.
//!
//! | there | what happens |
//! |---|---|
//! | another cluster id | refused |
//! | a broker of this id that lives, or other topics with replicas on it | refused |
//! | no cluster id, but topics that the node does not have | refused |
//! | nothing at the path | it is created |
//! | the same as here | it stays: a move that was interrupted goes on |
//! | no data, where the node has some | they are set |
//! | other data | refused, but for those below |
//! | the state of a partition with the same in-sync replicas, not older | it stays: a controller may have written it meanwhile |
//! | a block of producer ids | raised above those that the node gave out |
//! | the epoch of the controllers | it stays |
//!
//! All that is refused is found before the first write. A partition's leader epoch is one above the last, since leadership
//! begins anew.
//!
//! One transaction has whole topics, in full: settings, partitions and states; only what does not fit goes on in the next.
//! Meanwhile no controller can do anything with such a topic, because its only replica is on this node, which does not run.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use milena_engine::units::LeaderEpoch;

use super::{ExportedZnode, LastingTree};
use crate::coordination::znodes::{
    self, EntityConfig, EntityType, PartitionState, ProducerIdBlock, TopicAssignment, ZnodeError,
};
use crate::coordination::{ExpectedVersion, Operation};

/// What a transaction may have. A server takes 1 MiB (`jute.maxbuffer`), with what frames and rights add.
pub const TRANSACTION_SIZE_BYTES: usize = 256 << 10;
/// About what a node costs on the wire besides its path and data.
const OPERATION_SIZE_BYTES: usize = 80;
/// Clashes that are named; the others are counted.
const CLASHES_SHOWN: usize = 10;

/// What ZooKeeper has, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Those paths of the node's that are there, with data and version.
    pub nodes: BTreeMap<String, (Option<Bytes>, i32)>,
    /// `/brokers/ids`
    pub live_brokers: Vec<i32>,
    /// Topics that the node does not have.
    pub other_topics: BTreeMap<String, TopicAssignment>,
}

impl Target {
    fn data(&self, path: &str) -> Option<&Bytes> {
        let (data, _) = self.nodes.get(path)?;
        data.as_ref().filter(|data| !data.is_empty())
    }
}

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Transactions, in their order.
    pub writes: Vec<Vec<Operation>>,
    /// Nodes that are there already.
    pub already: usize,
    /// Settings that are the cluster's, and are others on this node.
    pub left_to_the_cluster: Vec<String>,
}

/// Something that is there is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Why nothing is written at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the coordination tree has no cluster id: start this node without zookeeper.connect once, and stop it"
    )]
    NeverRan,
    #[error(
        "the log directories are of cluster {ours}, and zookeeper.connect leads to cluster {theirs}. A node moves into its own \
         cluster, or to a path where there is none: name an empty one in zookeeper.connect (host:2181/path). To bring the topics \
         into the other cluster, copy their records with a mirroring tool."
    )]
    OtherCluster { ours: String, theirs: String },
    #[error("{} {}; nothing was written", if .0.len() == 1 { "there is a clash:" } else { "there are clashes:" }, clashes(.0))]
    Clashes(Vec<Clash>),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
}

fn clashes(all: &[Clash]) -> String {
    let shown: Vec<String> = all.iter().take(CLASHES_SHOWN).map(Clash::to_string).collect();
    let mut text = shown.join("; ");
    if all.len() > CLASHES_SHOWN {
        text.push_str(&format!("; and {} more", all.len() - CLASHES_SHOWN));
    }
    text
}

/// What a path of the tree is to a move.
enum Kind<'a> {
    ClusterId,
    ControllerEpoch,
    ProducerIds,
    /// A setting of all brokers, of another one, or of clients and users.
    Shared,
    TopicSettings,
    Topic(&'a str),
    BelowTopic,
    Deletion,
    Other,
}

impl Kind<'_> {
    fn of(path: &str, broker_id: i32) -> Kind<'_> {
        match path {
            znodes::CLUSTER_ID => return Kind::ClusterId,
            znodes::CONTROLLER_EPOCH => return Kind::ControllerEpoch,
            znodes::PRODUCER_ID_BLOCK => return Kind::ProducerIds,
            _ => {}
        }
        match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
            ["brokers", "topics", topic] => Kind::Topic(topic),
            ["brokers", "topics", _, ..] => Kind::BelowTopic,
            ["config", "topics", _] => Kind::TopicSettings,
            ["config", "brokers", id] if *id == broker_id.to_string() => Kind::Other,
            ["config", "brokers" | "users" | "clients", _, ..] => Kind::Shared,
            ["admin", "delete_topics", _] => Kind::Deletion,
            _ => Kind::Other,
        }
    }
}

/// What has to be written, or why nothing may be. `transaction_size_bytes` is [`TRANSACTION_SIZE_BYTES`].
///
/// # Errors
/// By variant.
pub fn plan(local: &LastingTree, target: &Target, transaction_size_bytes: usize) -> Result<Plan, Refusal> {
    let ours = local.data(znodes::CLUSTER_ID).ok_or(Refusal::NeverRan)?;
    let ours = znodes::decode_cluster_id(ours)?;
    let theirs = target
        .data(znodes::CLUSTER_ID)
        .map(|data| znodes::decode_cluster_id(data));
    let theirs = theirs.transpose()?;
    if let Some(theirs) = theirs.clone().filter(|theirs| *theirs != ours) {
        return Err(Refusal::OtherCluster { ours, theirs });
    }
    let epoch_of = |data: &Bytes| znodes::decode_controller_epoch(data);
    let their_epoch = target.data(znodes::CONTROLLER_EPOCH).map(epoch_of).transpose()?;
    let our_epoch = local.data(znodes::CONTROLLER_EPOCH).map(epoch_of).transpose()?;
    let planner = Planner {
        local,
        target,
        is_cluster: theirs.is_some(),
        controller_epoch: their_epoch.or(our_epoch).unwrap_or_default(),
        clashes: Vec::new(),
        plan: Plan::default(),
    };
    planner.run(transaction_size_bytes)
}

struct Planner<'a> {
    local: &'a LastingTree,
    target: &'a Target,
    /// There is one already, and it is the node's own.
    is_cluster: bool,
    /// Of the cluster: a state with a higher one keeps its controllers from elections.
    controller_epoch: i32,
    clashes: Vec<Clash>,
    plan: Plan,
}

impl Planner<'_> {
    fn run(mut self, transaction_size_bytes: usize) -> Result<Plan, Refusal> {
        self.check_broker_id();
        self.check_other_topics();
        let (mut first, mut topics, mut deletions, mut last) = (vec![], vec![], vec![], vec![]);
        for ExportedZnode { path, data } in &self.local.znodes {
            let data = data.as_ref();
            match Kind::of(path, self.local.broker_id) {
                Kind::ClusterId => last.extend(self.node(path, data)),
                Kind::ControllerEpoch if self.target.data(path).is_some() => self.plan.already += 1,
                Kind::ProducerIds => first.extend(self.producer_ids(data)?),
                Kind::Shared if self.is_cluster => self.leave_to_the_cluster(path, data),
                Kind::Topic(topic) => topics.push(self.topic(topic)?),
                Kind::Deletion => deletions.extend(self.node(path, data)),
                // With their topics; those that have none are nobody's.
                Kind::BelowTopic | Kind::TopicSettings => {}
                Kind::ControllerEpoch | Kind::Shared | Kind::Other => first.extend(self.node(path, data)),
            }
        }
        if !self.clashes.is_empty() {
            return Err(Refusal::Clashes(self.clashes));
        }
        let mut writes = pack([first], transaction_size_bytes);
        writes.extend(pack(topics, transaction_size_bytes));
        writes.extend(pack([deletions], transaction_size_bytes));
        writes.extend(pack([last], transaction_size_bytes));
        self.plan.writes = writes;
        Ok(self.plan)
    }

    fn clash(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.clashes.push(Clash {
            path: path.into(),
            reason: reason.into(),
        });
    }

    fn check_broker_id(&mut self) {
        let id = self.local.broker_id;
        if self.target.live_brokers.contains(&id) {
            let reason = "a broker with this node's id runs there; two brokers cannot have one id";
            self.clash(znodes::broker_id(id), reason);
        }
    }

    /// Who comes as broker 0 is taken for the one that had that id.
    fn check_other_topics(&mut self) {
        let id = self.local.broker_id;
        for (topic, assignment) in &self.target.other_topics {
            let mut replicas = assignment.partitions.values();
            if replicas.any(|one| one.replicas.contains(&id)) {
                let reason = format!(
                    "the topic has replicas on broker {id}, whose id this node has, and they are not in its log directories"
                );
                self.clash(znodes::topic(topic), reason);
            } else if !self.is_cluster {
                let reason =
                    "the path has no cluster id, but this topic, which is not this node's: it is not empty";
                self.clash(znodes::topic(topic), reason);
            }
        }
    }

    /// What is needed for `path` to have `data`.
    fn node(&mut self, path: &str, data: Option<&Bytes>) -> Option<Operation> {
        let Some((there, version)) = self.target.nodes.get(path) else {
            return Some(Operation::create(path, data.cloned()));
        };
        let there = there.as_ref().filter(|there| !there.is_empty());
        match (there, data) {
            (None, Some(data)) => {
                let expected = ExpectedVersion::Exactly(*version);
                return Some(Operation::set(path, data.clone(), expected));
            }
            (Some(there), Some(data)) if !means_the_same(there, data) => {
                let (there, data) = (String::from_utf8_lossy(there), String::from_utf8_lossy(data));
                self.clash(path, format!("there is {there}, and here {data}"));
            }
            (None, None) | (Some(_), _) => self.plan.already += 1,
        }
        None
    }

    fn producer_ids(&mut self, data: Option<&Bytes>) -> Result<Option<Operation>, ZnodeError> {
        let path = znodes::PRODUCER_ID_BLOCK;
        let (Some(ours), Some(theirs)) = (data, self.target.data(path)) else {
            return Ok(self.node(path, data));
        };
        if ProducerIdBlock::decode(theirs)?.last >= ProducerIdBlock::decode(ours)?.last {
            self.plan.already += 1;
            return Ok(None);
        }
        let version = self.target.nodes.get(path).map_or(0, |(_, version)| *version);
        let raised = Operation::set(path, ours.clone(), ExpectedVersion::Exactly(version));
        Ok(Some(raised))
    }

    fn leave_to_the_cluster(&mut self, path: &str, data: Option<&Bytes>) {
        match (self.target.data(path), data) {
            (Some(there), Some(data)) if means_the_same(there, data) => self.plan.already += 1,
            (_, None) => {}
            (_, Some(_)) => self.plan.left_to_the_cluster.push(path.to_owned()),
        }
    }

    /// What is needed for a topic to be there: settings, partitions, and their states.
    fn topic(&mut self, topic: &str) -> Result<Vec<Operation>, ZnodeError> {
        let path = znodes::topic(topic);
        let local = self.local;
        let data = local.data(&path);
        let ours = TopicAssignment::decode(&path, data.map_or(&[][..], |data| data))?;
        let mut replicas = ours.partitions.values();
        if let Some(other) = replicas.find(|one| one.replicas[..] != [local.broker_id]) {
            let reason = format!("this node has it on brokers {:?}, not alone", &other.replicas[..]);
            self.clash(&path, reason);
        }
        let is_there = self.target.nodes.contains_key(&path);
        let mut needed = Vec::new();
        match self.target.data(&path) {
            Some(theirs) => {
                if TopicAssignment::decode(&path, theirs)? == ours {
                    self.plan.already += 1;
                } else {
                    let reason = "a topic of this name is there, with other partitions or replicas: delete one of the two, or \
                                  move to an empty path";
                    self.clash(&path, reason);
                    return Ok(Vec::new());
                }
            }
            None => needed.extend(self.node(&path, data)),
        }
        // Before the topic, as Kafka writes them.
        needed.splice(..0, self.settings(topic, is_there)?);
        for ExportedZnode { path, data } in local.below(&path) {
            match path.strip_suffix("/state").and(data.as_ref()) {
                Some(data) => needed.extend(self.state(path, data)?),
                None => needed.extend(self.node(path, data.as_ref())),
            }
        }
        Ok(needed)
    }

    fn settings(&mut self, topic: &str, topic_is_there: bool) -> Result<Option<Operation>, ZnodeError> {
        let path = znodes::config::entity_path(EntityType::Topics, topic);
        let data = self.local.data(&path);
        if !topic_is_there && !self.target.nodes.contains_key(&path) {
            return Ok(data.map(|data| Operation::create(&path, Some(data.clone()))));
        }
        let ours = EntityConfig::decode(&path, data.map(|data| &**data))?;
        let theirs = EntityConfig::decode(&path, self.target.data(&path).map(|data| &**data))?;
        if ours == theirs {
            self.plan.already += 1;
        } else {
            let text = |config: &EntityConfig| String::from_utf8_lossy(&config.encode()).into_owned();
            let reason = format!(
                "the topic's settings there are {}, and here {}",
                text(&theirs),
                text(&ours)
            );
            self.clash(&path, reason);
        }
        Ok(None)
    }

    fn state(&mut self, path: &str, data: &[u8]) -> Result<Option<Operation>, ZnodeError> {
        let mut state = PartitionState::decode(path, data, 0)?;
        let Some(theirs) = self.target.data(path) else {
            let leadership = &mut state.leader_and_isr;
            if leadership.leader.is_some() {
                leadership.leader_epoch = LeaderEpoch(leadership.leader_epoch.get() + 1);
            }
            state.controller_epoch = self.controller_epoch;
            return Ok(self.node(path, Some(&state.encode())));
        };
        let (ours, theirs) = (
            state.leader_and_isr,
            PartitionState::decode(path, theirs, 0)?.leader_and_isr,
        );
        let has_no_other_leader = theirs.leader.is_none() || theirs.leader == ours.leader;
        if theirs.isr == ours.isr && has_no_other_leader && theirs.leader_epoch >= ours.leader_epoch {
            self.plan.already += 1;
        } else {
            let reason = format!(
                "there it is at leader epoch {} with {:?} in sync, and here at {} with {:?}",
                theirs.leader_epoch.get(),
                &theirs.isr[..],
                ours.leader_epoch.get(),
                &ours.isr[..]
            );
            self.clash(path, reason);
        }
        Ok(None)
    }
}

/// Bytes, or JSON in any order.
fn means_the_same(one: &[u8], other: &[u8]) -> bool {
    let json = |data| serde_json::from_slice::<serde_json::Value>(data).ok();
    one == other || json(one).is_some_and(|one| Some(one) == json(other))
}

/// Operations as transactions, in order. What is one unit stays together, if it fits.
fn pack(
    units: impl IntoIterator<Item = Vec<Operation>>,
    transaction_size_bytes: usize,
) -> Vec<Vec<Operation>> {
    let mut packed: Vec<Vec<Operation>> = Vec::new();
    let mut left = 0;
    for unit in units {
        let mut is_new = unit.iter().map(size_bytes).sum::<usize>() > left;
        for operation in unit {
            let size = size_bytes(&operation);
            match packed.last_mut() {
                Some(last) if !is_new && size <= left => last.push(operation),
                _ => {
                    packed.push(vec![operation]);
                    left = transaction_size_bytes;
                }
            }
            is_new = false;
            left = left.saturating_sub(size);
        }
    }
    packed
}

fn size_bytes(operation: &Operation) -> usize {
    let data = match operation {
        Operation::Create { data, .. } | Operation::SetData { data, .. } => data.as_ref(),
        Operation::Check { .. } | Operation::Delete { .. } => None,
    };
    OPERATION_SIZE_BYTES + operation.path().len() + data.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests;
