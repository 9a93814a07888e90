//! What stands in the log directories is made known in the tree: the directory that Apache Kafka wrote is
//! taken over, and what Kafka did there between two runs of Milena is followed.
//!
//! The directories say which partitions there are, their last leader epochs and the producer ids in use. They
//! do not say how a topic is set up, nor who else had replicas. So a topic that is found keeps everything
//! (explicit `retention.ms=-1` and `retention.bytes=-1`) until it is told otherwise or [`Import`] knows
//! better; internal topics get Kafka's settings.
//!
//! How a broker that stands alone calls it, on every start (with `zookeeper.connect` it is never called):
//! 1. `Survey::of`, `check_identity`; the tree opened; `create_persistent_paths`, `get_or_create_cluster_id`
//!    with the cluster id of `meta.properties` proposed;
//! 2. [`adopt`]: before the logs are loaded, since it settles their topics' settings;
//! 3. `LogManager::open`, then [`producer_ids::raise_above`] with `LogManager::highest_producer_id`, if
//!    [`AdoptionReport::producer_ids_may_be_new`] says that another broker may have written;
//! 4. once `meta.properties` is written: [`remember`].
//!
//! | directories | tree | what happens |
//! |---|---|---|
//! | partition | no such topic | the topic is registered |
//! | partition | topic without that partition | the partition is added |
//! | partition with records | partition was absent at an earlier start | it is led by this broker |
//! | nothing | topic, Kafka ran since, and Milena had had it on this disk | the topic is removed: Kafka deleted it |
//! | only the first partitions | as above | the others are removed: Kafka made the topic anew |
//! | nothing | any other topic | it stays, its partitions will be empty |
//! | offline | anything | nothing is removed; a first start is refused, since what there is is not known |
//!
//! That another broker ran is known by `meta.properties`, which Kafka rewrites on every start and Milena does
//! not ([`evidence`]).
//!
//! A list of partitions has no gaps, because producers count it. A partition that is not here but must exist,
//! since a higher one is found or the import names it, is registered without a leader and with nobody in
//! sync. It is unavailable, and becomes an empty one if `unclean.leader.election.enable=true` allows it, or
//! its records if its directory is brought here.
//!
//! The leader epoch is the last of `leader-epoch-checkpoint`: above what ZooKeeper knows, it would confuse
//! the Kafka broker that comes back; below it, the log would forget epochs.
//!
//! One topic is one transaction; a start that is cut off continues where it was. Nothing of a partition is
//! written here, and no file is removed. It leaves identity to the log manager's survey, and the reverse way
//! to [`crate::export_znodes`].
//!
//! **Deviation:** Kafka has no such thing: a directory without its ZooKeeper is a heap of unknown logs to it.
//!
//! [`producer_ids::raise_above`]: crate::coordination::producer_ids::raise_above

pub mod evidence;
pub mod import;
mod known_topics;
mod new_topics;
mod registration;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use milena_engine::io::Io;
use milena_engine::log_manager::{FoundPartition, Survey};
use milena_engine::units::ProducerId;

use crate::config::BrokerConfig;
use crate::coordination::producer_ids::{ProducerIdError, raise_above};
use crate::coordination::znodes::{self, TopicAssignment, ZnodeError};
use crate::coordination::{Coordination, CoordinationError, MultiError};

pub use evidence::remember;
pub use import::{Import, ImportError};

use evidence::{Evidence, Visit};

/// The name under which adoption logs.
const LOGGER: &str = "milena.server.Adoption";

/// What a start knows when it looks for topics.
#[derive(Debug)]
pub struct Start<'a> {
    /// Settled by configuration and `meta.properties`.
    pub broker_id: i32,
    /// As it stands in the tree.
    pub cluster_id: &'a str,
    pub config: &'a BrokerConfig,
    pub survey: &'a Survey,
    pub io: &'a dyn Io,
    /// This start created the tree.
    pub tree_is_new: bool,
    pub import: Option<&'a Import>,
}

/// Why a start must not go on. The tree has whole topics only.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    #[error(
        "log directory {} is offline ({reason}), so that it is not known which partitions this broker has. Repair it before \
         Milena takes the directories over for the first time, or take it out of log.dirs if it is lost.",
        directory.display()
    )]
    DirectoryOffline { directory: PathBuf, reason: String },
    #[error(
        "{} is a dump of cluster {found}, but the log directories belong to cluster {expected}",
        path.display()
    )]
    ImportOfOtherCluster {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error("the coordination tree refused a change: {0}")]
    Multi(#[from] MultiError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    ProducerIds(#[from] ProducerIdError),
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// What was done; every entry was logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptionReport {
    /// Topics registered now.
    pub adopted: Vec<Arc<str>>,
    /// Topics that got partitions, or the records of partitions, that were not known before.
    pub extended: Vec<Arc<str>>,
    /// Topics of which Kafka had deleted all or the last partitions.
    pub removed: Vec<Arc<str>>,
    /// Known topics whose settings the import replaced.
    pub imported: Vec<Arc<str>>,
    /// Another broker may have written to a directory since Milena last ran, or this is the first run: logs
    /// may hold producer ids above all blocks of the tree.
    pub producer_ids_may_be_new: bool,
    pub messages: Vec<(Severity, String)>,
}

impl AdoptionReport {
    /// Logs a message and keeps it.
    fn say(&mut self, severity: Severity, text: String) {
        match severity {
            Severity::Info => tracing::info!(target: LOGGER, "{text}"),
            Severity::Warning => tracing::warn!(target: LOGGER, "{text}"),
            Severity::Error => tracing::error!(target: LOGGER, "{text}"),
        }
        self.messages.push((severity, text));
    }
}

/// The partitions found, by topic; details only if they were read.
type FoundTopics = BTreeMap<Arc<str>, BTreeMap<i32, Option<FoundPartition>>>;

/// The whole of one start's look at directories and tree.
struct Adoption<'a> {
    start: &'a Start<'a>,
    tree: &'a dyn Coordination,
    found: FoundTopics,
    evidence: Evidence,
    /// Topics with partitions that no directory had, as of the last start.
    with_absent: BTreeSet<String>,
    /// Written into the states of partitions.
    controller_epoch: i32,
    report: AdoptionReport,
}

/// Brings the tree into agreement with the log directories; durable on return. On a start that finds what the
/// last one left, it reads one node per topic and writes nothing.
///
/// # Errors
/// The broker does not start; a later start continues.
pub async fn adopt(tree: &dyn Coordination, start: &Start<'_>) -> Result<AdoptionReport, AdoptionError> {
    check_import(start)?;
    let evidence = Evidence::gather(tree, start.survey, start.io).await?;
    let mut adoption = Adoption {
        start,
        tree,
        found: FoundTopics::new(),
        evidence,
        with_absent: BTreeSet::new(),
        controller_epoch: 0,
        report: AdoptionReport::default(),
    };
    adoption.run().await?;
    Ok(adoption.report)
}

fn check_import(start: &Start<'_>) -> Result<(), AdoptionError> {
    let Some(import) = start.import else { return Ok(()) };
    match &import.cluster_id {
        Some(found) if found != start.cluster_id => Err(AdoptionError::ImportOfOtherCluster {
            path: import.path.clone(),
            found: found.clone(),
            expected: start.cluster_id.to_owned(),
        }),
        _ => Ok(()),
    }
}

impl Adoption<'_> {
    async fn run(&mut self) -> Result<(), AdoptionError> {
        for (partition, _) in self.start.survey.partitions() {
            let topic = self.found.entry(Arc::clone(&partition.topic)).or_default();
            topic.insert(partition.partition, None);
        }
        self.check_first_start()?;
        self.announce();
        self.import_nodes().await?;
        self.with_absent = self.names_below(evidence::ABSENT).await?;
        self.controller_epoch = self.read_controller_epoch().await?;

        let known = self.read_topics().await?;
        let new: Vec<Arc<str>> = self
            .found
            .keys()
            .filter(|topic| !known.contains_key(*topic))
            .cloned()
            .collect();
        let differs = self.found.iter().any(|(topic, numbers)| match known.get(topic) {
            Some((assignment, _)) => numbers
                .keys()
                .any(|number| !assignment.partitions.contains_key(number)),
            None => true,
        });
        let visited = self.evidence.visit() != Visit::None;
        self.report.producer_ids_may_be_new = visited && !self.found.is_empty();
        if differs || visited || !self.with_absent.is_empty() {
            self.read_details().await?;
        }
        let deletions = self.names_below(znodes::DELETE_TOPICS).await?;
        for topic in new {
            if deletions.contains(&*topic) {
                let text = format!(
                    "Topic {topic} is being deleted: its directories that are still there stay unregistered."
                );
                self.report.say(Severity::Info, text);
            } else {
                self.register_new(&topic).await?;
            }
        }
        for (topic, (assignment, version)) in known {
            if !deletions.contains(&*topic) {
                self.reconcile(&topic, assignment, version).await?;
            }
        }
        self.note_unused_import();
        Ok(())
    }

    /// What an offline directory has is not known: a topic would be registered with too few partitions.
    fn check_first_start(&self) -> Result<(), AdoptionError> {
        match self.start.survey.offline.first() {
            Some(directory) if self.start.tree_is_new && !self.found.is_empty() => {
                Err(AdoptionError::DirectoryOffline {
                    directory: directory.path().to_owned(),
                    reason: directory.offline_reason().unwrap_or_default().to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Says why the directories are looked at more closely.
    fn announce(&mut self) {
        if self.found.is_empty() {
            return;
        }
        let partitions: usize = self.found.values().map(BTreeMap::len).sum();
        let topics = self.found.len();
        if self.start.tree_is_new {
            let ran_before = self.evidence.milena_ran_before();
            let broker = self.start.broker_id;
            let cluster = self.start.cluster_id;
            let (severity, text) = if ran_before {
                (
                    Severity::Warning,
                    format!(
                        "Milena ran in these log directories before, but its coordination tree is gone. {topics} topics with \
                         {partitions} partitions are registered anew from the directories of broker {broker}, cluster \
                         {cluster}; their settings are lost unless --import gives them."
                    ),
                )
            } else {
                (
                    Severity::Info,
                    format!(
                        "Taking over the log directories of Apache Kafka's broker {broker} of cluster {cluster}: {topics} \
                         topics with {partitions} partitions. Topic settings, and replicas on other brokers, are not \
                         recorded in them."
                    ),
                )
            };
            self.report.say(severity, text);
        } else {
            for directory in self.evidence.visited() {
                let text = format!(
                    "Another broker has used log directory {} since Milena last ran; its topics are compared with the tree.",
                    directory.display()
                );
                self.report.say(Severity::Info, text);
            }
        }
    }

    /// Reads the small files of all partitions found, and keeps producer ids above all that are seen.
    async fn read_details(&mut self) -> Result<(), AdoptionError> {
        let mut highest: Option<ProducerId> = None;
        for found in self.start.survey.found_partitions(self.start.io) {
            highest = highest.max(found.highest_producer_id);
            let topic = self.found.entry(Arc::clone(&found.partition.topic)).or_default();
            topic.insert(found.partition.partition, Some(found));
        }
        if let Some(seen) = highest {
            raise_above(self.tree, self.start.broker_id, seen).await?;
        }
        Ok(())
    }

    async fn read_controller_epoch(&self) -> Result<i32, AdoptionError> {
        let node = self.tree.get(znodes::CONTROLLER_EPOCH, None).await?;
        match node.and_then(|node| node.data) {
            Some(data) => Ok(znodes::decode_controller_epoch(&data)?),
            None => Ok(0),
        }
    }

    /// All topics of the tree with the versions of their nodes. A damaged one is said and left alone.
    async fn read_topics(&mut self) -> Result<BTreeMap<Arc<str>, (TopicAssignment, i32)>, AdoptionError> {
        let names = self
            .tree
            .children(znodes::TOPICS, None)
            .await?
            .unwrap_or_default();
        let paths = names.iter().map(|topic| znodes::topic(topic)).collect();
        let nodes = self.tree.get_many(paths).await?;
        let mut topics = BTreeMap::new();
        for (topic, node) in names.into_iter().zip(nodes) {
            let Some(node) = node else { continue };
            let data = node.data.unwrap_or_default();
            let assignment = match TopicAssignment::decode(&znodes::topic(&topic), &data) {
                Ok(assignment) => assignment,
                Err(error) => {
                    self.report.say(Severity::Error, error.to_string());
                    self.found.remove(topic.as_str());
                    continue;
                }
            };
            topics.insert(Arc::from(topic), (assignment, node.stat.version));
        }
        Ok(topics)
    }

    async fn names_below(&self, path: &str) -> Result<BTreeSet<String>, AdoptionError> {
        let names = self.tree.children(path, None).await?;
        Ok(names.unwrap_or_default().into_iter().collect())
    }
}
