//! The tree of a stopped node, for ZooKeeper: written there by [`move_stopped`], with which the node becomes a broker of a cluster,
//! or as text for a fresh ZooKeeper of Apache Kafka 2.7.2.
//!
//! It is cluster id, topics, partition states with their leader epochs, settings, the last block of producer ids, the
//! controller's epoch. [`StoppedNode::open`] takes the locks of the log directories, so that no broker runs meanwhile; [`export`]
//! reads the tree; [`Format`] says how it is written as text:
//! - `zookeeper-shell`: one `create` command per znode, parents first, for `zookeeper-shell.sh HOST:PORT < FILE`.
//!   A node that exists already is left as it is, with a complaint of the shell. The shell splits at white space
//!   and reads in its own character set, so JSON is written without either ([`shell_data`]).
//! - `json`: one object per line, `{"path":…,"data":…}` with the data as a string or null, for scripts.
//!
//! Both are understood by `milena start --import`.
//!
//! Left out: what lives only with a session (brokers, the controller), notifications, and Milena's own
//! branch. The version of `/brokers/seqid`, from which Kafka makes generated broker ids, cannot be written;
//! ids that exist stand in `meta.properties`. An export writes nothing to the directories but what opening the tree
//! writes into its file. It leaves the reverse way to [`crate::adoption`].
//!
//! Parts: `plan` (what a move writes, a pure function), `moving` (who does it).

mod moving;
pub mod plan;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::error::IoError;
use milena_engine::io::{Clock, Io};
use milena_engine::log_manager::{LogDirsError, Survey};
use serde_json::json;

use crate::adoption::evidence::OWN_BRANCH;
use crate::broker::StartError;
use crate::coordination::embedded::{
    EmbeddedSession, EmbeddedTree, OpenTreeError, TREE_FILE, locate, locate_moved,
};
use crate::coordination::znodes::{self, PartitionState};
use crate::coordination::{Coordination, CoordinationError, join};
pub use moving::{Moved, Published, move_stopped};
use plan::Refusal;

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("log directory {} does not exist", directory.display())]
    Missing { directory: PathBuf },
    #[error(
        "log directory {} is in use by a broker, Milena or Kafka, of another process: stop it first",
        directory.display()
    )]
    Running { directory: PathBuf },
    #[error(
        "there is no {TREE_FILE} in {}: Milena never ran on these log directories, so that it knows nothing that Kafka does not",
        list(directories)
    )]
    NoTree { directories: Vec<PathBuf> },
    #[error("this node was moved into ZooKeeper before: {} is what its own tree was then", set_aside.display())]
    MovedBefore { set_aside: PathBuf },
    #[error(
        "another broker used log directory {} since Milena last ran, and the tree does not know what it did: start this node \
         without zookeeper.connect, which makes it known, and stop it",
        directory.display()
    )]
    Visited { directory: PathBuf },
    #[error(transparent)]
    Directories(#[from] LogDirsError),
    /// ZooKeeper cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] Box<StartError>),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Tree(#[from] OpenTreeError),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error("{path}: its data cannot be given to the shell of ZooKeeper, which has no way to write {found}")]
    NotForTheShell { path: String, found: String },
    #[error("cannot make what waits for the tree: {0}")]
    Runtime(std::io::Error),
}

fn list(directories: &[PathBuf]) -> String {
    let directories: Vec<String> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    directories.join(", ")
}

/// The tree of a node that does not run, kept from running by this.
#[derive(Debug)]
pub struct StoppedNode {
    session: Arc<EmbeddedSession>,
    // Dropped in this order: the file is closed before the directories are free.
    tree: EmbeddedTree,
    survey: Survey,
}

impl StoppedNode {
    /// Locks the directories and opens the tree that lies in one of them.
    ///
    /// # Errors
    /// By variant; nothing was changed, but that a `.lock` is there.
    pub fn open(
        io: &Arc<dyn Io>,
        clock: Arc<dyn Clock>,
        log_dirs: &[PathBuf],
    ) -> Result<StoppedNode, ExportError> {
        for directory in log_dirs {
            if io.stat(directory)?.is_none() {
                let directory = directory.clone();
                return Err(ExportError::Missing { directory });
            }
        }
        let survey = Survey::of(log_dirs, &**io).map_err(|error| match error {
            LogDirsError::Locked { directory } => ExportError::Running { directory },
            error => error.into(),
        })?;
        if locate(io.as_ref(), log_dirs)?.is_none() {
            return Err(match locate_moved(io.as_ref(), log_dirs)? {
                Some(set_aside) => ExportError::MovedBefore { set_aside },
                None => ExportError::NoTree {
                    directories: log_dirs.to_vec(),
                },
            });
        }
        let tree = EmbeddedTree::open(io, clock, log_dirs)?;
        Ok(StoppedNode {
            session: tree.session(),
            tree,
            survey,
        })
    }

    pub fn tree(&self) -> &dyn Coordination {
        self.session.as_ref()
    }

    fn survey(&self) -> &Survey {
        &self.survey
    }

    /// The tree is the node's no more; where it lies now.
    fn set_aside(self) -> Result<PathBuf, IoError> {
        self.tree.set_aside()
    }
}

/// Everything that lasts of the tree of a node.
#[derive(Clone, Debug)]
pub struct LastingTree {
    broker_id: i32,
    /// As [`export`] has them.
    znodes: Vec<ExportedZnode>,
    index: HashMap<String, usize>,
}

impl LastingTree {
    fn new(broker_id: i32, znodes: Vec<ExportedZnode>) -> LastingTree {
        let paths = znodes.iter().enumerate();
        let index = paths.map(|(at, znode)| (znode.path.clone(), at)).collect();
        LastingTree {
            broker_id,
            znodes,
            index,
        }
    }

    async fn read(node: &StoppedNode) -> Result<LastingTree, ExportError> {
        // Directories without an id have never seen a broker to its end.
        let metadata = node.survey().metadata().ok_or(Refusal::NeverRan)?;
        Ok(LastingTree::new(metadata.broker_id, export(node.tree()).await?))
    }

    fn data(&self, path: &str) -> Option<&Bytes> {
        let at = self.index.get(path)?;
        self.znodes[*at].data.as_ref()
    }

    /// What is below a path.
    fn below(&self, path: &str) -> impl Iterator<Item = &ExportedZnode> {
        let first = self.index.get(path).map_or(self.znodes.len(), |at| at + 1);
        let prefix = format!("{path}/");
        let following = self.znodes[first..].iter();
        following.take_while(move |znode| znode.path.starts_with(&prefix))
    }
}

/// A znode to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedZnode {
    pub path: String,
    pub data: Option<Bytes>,
}

/// How znodes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    ZookeeperShell,
    Json,
}

/// Everything that lasts, parents before children, in the order of names.
pub async fn export(tree: &dyn Coordination) -> Result<Vec<ExportedZnode>, CoordinationError> {
    let mut exported = Vec::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        if path != "/" {
            let Some(node) = tree
                .get(&path, None)
                .await?
                .filter(|node| node.stat.ephemeral_owner.is_none())
            else {
                continue;
            };
            let data = node.data.filter(|data| !data.is_empty());
            exported.push(ExportedZnode {
                path: path.clone(),
                data,
            });
        }
        if !has_passing_children(&path) {
            let children = tree.children(&path, None).await?.unwrap_or_default();
            let children = children.iter().rev().map(|child| join(&path, child));
            open.extend(children.filter(|child| is_exported(child)));
        }
    }
    Ok(exported)
}

/// What is below is of live brokers or a notification to them.
fn has_passing_children(path: &str) -> bool {
    let passing = [
        znodes::BROKER_IDS,
        znodes::CONFIG_CHANGES,
        znodes::ISR_CHANGE_NOTIFICATION,
        znodes::LOG_DIR_EVENT_NOTIFICATION,
    ];
    passing.contains(&path)
}

fn is_exported(path: &str) -> bool {
    path != OWN_BRANCH && path != znodes::CONTROLLER && path != znodes::PREFERRED_REPLICA_ELECTION
}

/// What a person should know about an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub topics: usize,
    pub partitions: usize,
    /// `topic-partition` of those that nobody leads, because their records are not on this node.
    pub without_records: Vec<String>,
    /// Topics whose deletion Kafka will finish.
    pub being_deleted: Vec<String>,
}

impl Summary {
    pub fn of(exported: &[ExportedZnode]) -> Summary {
        let mut summary = Summary::default();
        let mut topics = BTreeSet::new();
        for znode in exported {
            let data = znode.data.as_deref().unwrap_or_default();
            match znode.path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
                ["brokers", "topics", topic] => {
                    topics.insert((*topic).to_owned());
                }
                ["brokers", "topics", topic, "partitions", number, "state"] => {
                    summary.partitions += 1;
                    let state =
                        PartitionState::decode(&znode.path, data, 0).map(|state| state.leader_and_isr);
                    if state.is_ok_and(|state| state.leader.is_none() && state.isr.is_empty()) {
                        summary.without_records.push(format!("{topic}-{number}"));
                    }
                }
                ["admin", "delete_topics", topic] => summary.being_deleted.push((*topic).to_owned()),
                _ => {}
            }
        }
        summary.topics = topics.len();
        summary
    }
}

/// All znodes as text.
///
/// # Errors
/// [`ExportError::NotForTheShell`].
pub fn render(exported: &[ExportedZnode], format: Format) -> Result<String, ExportError> {
    let mut text = String::new();
    for ExportedZnode { path, data } in exported {
        match format {
            Format::Json => {
                let data = data.as_deref().map(String::from_utf8_lossy);
                text.push_str(&json!({"path": path, "data": data}).to_string());
            }
            Format::ZookeeperShell => {
                let refused = |found: &str| ExportError::NotForTheShell {
                    path: path.clone(),
                    found: found.to_owned(),
                };
                if path.chars().any(|c| c.is_whitespace() || !c.is_ascii()) || path.contains(['"', '\'']) {
                    return Err(refused("a path with white space, quotes or letters beyond ASCII"));
                }
                text.push_str("create ");
                text.push_str(path);
                if let Some(data) = data {
                    let data = std::str::from_utf8(data).map_err(|_| refused("bytes that are no text"))?;
                    let data = shell_data(data).ok_or_else(|| refused("text of this kind"))?;
                    text.push(' ');
                    text.push_str(&data);
                }
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Data as one word of the shell, which splits at white space, knows quotes only around a whole word, and no
/// escapes.
///
/// JSON becomes a word by leaving out white space between its tokens, and by writing white space and
/// everything beyond ASCII inside of its strings as `\uXXXX`, which means the same. Other text goes as it is,
/// or in quotes that it does not have.
pub fn shell_data(data: &str) -> Option<String> {
    if data.starts_with('{') {
        return Some(json_word(data));
    }
    if data.is_empty() || !data.is_ascii() || data.chars().any(|c| c.is_control()) {
        return None;
    }
    if !data.contains(char::is_whitespace) && !data.starts_with(['"', '\'']) {
        return Some(data.to_owned());
    }
    let quote = ['\'', '"'].into_iter().find(|quote| !data.contains(*quote))?;
    Some(format!("{quote}{data}{quote}"))
}

fn json_word(data: &str) -> String {
    let mut word = String::with_capacity(data.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in data.chars() {
        if in_string && (c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                word.push_str(&format!("\\u{unit:04x}"));
            }
            continue;
        }
        if !in_string && c.is_whitespace() {
            continue;
        }
        word.push(c);
        if escaped {
            escaped = false;
        } else if in_string && c == '\\' {
            escaped = true;
        } else if c == '"' {
            in_string = !in_string;
        }
    }
    word
}

/// All in one: the text for `log_dirs`, and what to say about it. Blocks.
///
/// # Errors
/// By variant.
pub fn export_stopped(
    io: &Arc<dyn Io>,
    clock: Arc<dyn Clock>,
    log_dirs: &[PathBuf],
    format: Format,
) -> Result<(String, Summary), ExportError> {
    let node = StoppedNode::open(io, clock, log_dirs)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(ExportError::Runtime)?;
    let exported = runtime.block_on(export(node.tree()))?;
    Ok((render(&exported, format)?, Summary::of(&exported)))
}

/// Puts the text where it is asked for, durably.
///
/// # Errors
/// As the disk says; the file has its old or its new content.
pub fn write_file(io: &dyn Io, path: &Path, text: &str) -> Result<(), IoError> {
    milena_engine::checkpoint::replace_file(io, path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
    use milena_engine::units::TimestampMs;

    use super::*;
    use crate::adoption::Import;
    use crate::coordination::CreateMode;
    use crate::coordination::startup::create_persistent_paths;
    use crate::test_cluster::run;

    fn disk() -> (Arc<dyn Io>, Arc<dyn Clock>, Vec<PathBuf>) {
        let disk = SimulatedDisk::new(1);
        let directory = PathBuf::from("/a");
        disk.create_dir_all(&directory).unwrap();
        (
            Arc::new(disk),
            Arc::new(ManualClock::new(TimestampMs(1))),
            vec![directory],
        )
    }

    const LASTING: [(&str, &str); 8] = [
        ("/cluster/id", r#"{"version":"1","id":"lX2CrF_KSPCgF2WuaT801A"}"#),
        ("/controller_epoch", "3"),
        (
            "/brokers/topics/t",
            r#"{"version":2,"partitions":{"0":[0]},"adding_replicas":{},"removing_replicas":{}}"#,
        ),
        ("/brokers/topics/t/partitions", ""),
        ("/brokers/topics/t/partitions/0", ""),
        (
            "/brokers/topics/t/partitions/0/state",
            r#"{"controller_epoch":3,"leader":0,"version":1,"leader_epoch":5,"isr":[0]}"#,
        ),
        (
            "/config/topics/t",
            r#"{"version":1,"config":{"retention.ms":"-1"}}"#,
        ),
        (
            "/latest_producer_id_block",
            r#"{"version":1,"broker":0,"block_start":"1000","block_end":"1999"}"#,
        ),
    ];

    async fn fill(tree: &dyn Coordination) {
        create_persistent_paths(tree).await.unwrap();
        for (path, data) in LASTING {
            match data {
                "" => tree.ensure(path).await.unwrap(),
                data => tree.set_or_create(path, Bytes::from(data)).await.unwrap(),
            }
        }
        let passing = [
            ("/controller", CreateMode::Ephemeral),
            ("/brokers/ids/0", CreateMode::Ephemeral),
            ("/config/changes/config_change_", CreateMode::PersistentSequential),
            (
                "/log_dir_event_notification/log_dir_event_",
                CreateMode::PersistentSequential,
            ),
            (
                "/isr_change_notification/isr_change_",
                CreateMode::PersistentSequential,
            ),
            ("/milena", CreateMode::Persistent),
            ("/milena/log_dirs", CreateMode::Persistent),
        ];
        for (path, mode) in passing {
            tree.create(path, Some(Bytes::from_static(b"{}")), mode)
                .await
                .unwrap();
        }
    }

    #[test]
    fn what_lasts_is_exported_parents_first_and_what_passes_is_not() {
        let (io, clock, dirs) = disk();
        run(async {
            let tree = EmbeddedTree::open(&io, clock, &dirs).unwrap();
            let session = tree.session();
            fill(session.as_ref()).await;
            let exported = export(session.as_ref()).await.unwrap();
            let mut seen: BTreeSet<&str> = BTreeSet::from([""]);
            for znode in &exported {
                let (parent, _) = znode.path.rsplit_once('/').unwrap();
                assert!(seen.contains(parent), "{parent} comes before {}", znode.path);
                seen.insert(&znode.path);
            }
            for (path, data) in LASTING {
                let znode = exported.iter().find(|znode| znode.path == path).unwrap();
                assert_eq!(
                    znode.data.as_deref().unwrap_or_default(),
                    data.as_bytes(),
                    "{path}"
                );
            }
            for path in znodes::PERSISTENT_PATHS {
                assert!(seen.contains(path), "{path}");
            }
            let passing = |path: &str| path.starts_with("/milena") || path.starts_with("/controller/");
            assert!(
                !seen
                    .iter()
                    .any(|path| passing(path) || path.ends_with('0') && path.contains("_change_"))
            );
            for path in [
                "/controller",
                "/brokers/ids/0",
                "/milena",
                "/config/changes/config_change_0000000000",
            ] {
                assert!(!seen.contains(path), "{path}");
            }
            let summary = Summary::of(&exported);
            assert_eq!((summary.topics, summary.partitions), (1, 1));
        });
    }

    #[test]
    fn both_formats_are_understood_by_import() {
        let (io, clock, dirs) = disk();
        run(async {
            let tree = EmbeddedTree::open(&io, clock, &dirs).unwrap();
            let session = tree.session();
            fill(session.as_ref()).await;
            let exported = export(session.as_ref()).await.unwrap();
            for format in [Format::ZookeeperShell, Format::Json] {
                let text = render(&exported, format).unwrap();
                let import = Import::parse(Path::new("x"), text.as_bytes()).unwrap();
                let topic = &import.topics["t"];
                assert_eq!(topic.settings.as_ref().unwrap().0["retention.ms"], "-1");
                assert_eq!(topic.partitions[&0].leader_epoch.unwrap().get(), 5);
                assert_eq!(import.producer_ids.unwrap().last, 1999);
                assert_eq!(import.controller_epoch, Some(3));
            }
        });
    }

    #[test]
    fn a_running_node_and_one_that_never_ran_are_refused() {
        let (io, clock, dirs) = disk();
        let refused = StoppedNode::open(&io, Arc::clone(&clock), &dirs).unwrap_err();
        assert!(matches!(refused, ExportError::NoTree { .. }), "{refused}");
        drop(EmbeddedTree::open(&io, Arc::clone(&clock), &dirs).unwrap());
        let lock = io.lock(Path::new("/a/.lock")).unwrap().unwrap();
        let refused = StoppedNode::open(&io, Arc::clone(&clock), &dirs).unwrap_err();
        assert!(matches!(refused, ExportError::Running { .. }), "{refused}");
        drop(lock);
        let node = StoppedNode::open(&io, Arc::clone(&clock), &dirs).unwrap();
        assert!(
            io.lock(Path::new("/a/.lock")).unwrap().is_none(),
            "it keeps brokers out"
        );
        drop(node);
        assert!(io.lock(Path::new("/a/.lock")).unwrap().is_some());
        let refused = StoppedNode::open(&io, clock, &[PathBuf::from("/b")]).unwrap_err();
        assert!(matches!(refused, ExportError::Missing { .. }), "{refused}");
    }

    #[test]
    fn json_becomes_one_word_that_means_the_same() {
        let words: [&str; 5] = [
            r#"{"a":"x y","b":"\"  \\","c":"tab\there"}"#,
            "{ \"a\" : [ 1 , 2 ] }",
            "{\"a\":\"grüße 🦀\u{a0}\"}",
            "{\"a\":\"it's\\\\\"}",
            "{}",
        ];
        for json in words {
            let word = shell_data(json).unwrap();
            assert!(word.is_ascii() && !word.contains(char::is_whitespace), "{word}");
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(value(&word), value(json), "{word}");
        }
    }

    #[test]
    fn other_text_is_quoted_where_it_must_be_and_refused_where_it_cannot_be() {
        for (data, expected) in [
            ("7", Some("7")),
            ("a b", Some("'a b'")),
            ("it's here", Some("\"it's here\"")),
            ("'", Some("\"'\"")),
            ("'\" ", None),
            ("a\nb", None),
            ("ü", None),
        ] {
            assert_eq!(shell_data(data).as_deref(), expected, "{data}");
        }
    }
}
