//! Whether another broker used the log directories since Milena last ran.
//!
//! Apache Kafka rewrites `meta.properties` in every directory on every start, with the time in a comment;
//! Milena writes it only where it would say something else. So [`remember`] keeps the file's text, by
//! directory, in the tree at [`REMEMBERED`], and a start that finds another text knows that someone else was
//! there. A directory that moved is not recognised, which is the careful side: nothing is concluded from it.
//!
//! `milena.state` lists the partitions that Milena had in a directory when it last wrote it. A partition that
//! is listed, whose directory is gone, where another broker ran, was deleted by that broker. One that is not
//! listed was never created.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use milena_engine::checkpoint::{META_PROPERTIES_FILE, RunState, read_file};
use milena_engine::io::Io;
use milena_engine::log_manager::Survey;
use milena_engine::units::TopicPartition;
use serde_json::{Map, Value, json};

use crate::coordination::znodes::ZnodeError;
use crate::coordination::{Coordination, CoordinationError};

/// The branch of the tree that is Milena's own, and is never exported.
pub const OWN_BRANCH: &str = "/milena";
/// `{"version":1,"log_dirs":{"/data":"…text of meta.properties…"}}`
pub const REMEMBERED: &str = "/milena/log_dirs";
/// Below it a node, without data, for each topic of which a partition is nowhere in the directories.
pub(super) const ABSENT: &str = "/milena/absent";

/// Whether another broker was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visit {
    None,
    /// The directory was never remembered, or not under this path.
    Unknown,
    Certain,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    visit: Visit,
    /// What Milena had there when it last wrote `milena.state`; `None` without a readable one.
    state: Option<RunState>,
}

/// What all log directories say together.
#[derive(Debug)]
pub(super) struct Evidence {
    online: Vec<Directory>,
    /// A directory that was remembered is offline or no longer in `log.dirs`.
    some_missing: bool,
}

impl Evidence {
    pub(super) async fn gather(
        tree: &dyn Coordination,
        survey: &Survey,
        io: &dyn Io,
    ) -> Result<Evidence, CoordinationError> {
        let remembered = read_remembered(tree).await?;
        let mut online = Vec::new();
        for found in &survey.online {
            let path = found.directory.path();
            let now = meta_properties(io, path);
            let visit = match (remembered.get(&key(path)), &now) {
                (Some(then), Some(now)) if then == now => Visit::None,
                (Some(_), Some(_)) => Visit::Certain,
                (None, None) if found.partitions.is_empty() => Visit::None,
                _ => Visit::Unknown,
            };
            let state = match visit {
                Visit::None => None,
                // A warning about an unreadable one is given when the logs are loaded.
                _ => RunState::read(io, path).ok().flatten(),
            };
            online.push(Directory {
                path: path.to_owned(),
                visit,
                state,
            });
        }
        let is_online = |path: &String| online.iter().any(|directory| key(&directory.path) == *path);
        let some_missing = !survey.offline.is_empty() || !remembered.keys().all(is_online);
        Ok(Evidence { online, some_missing })
    }

    /// Over all directories: the most that must be reckoned with.
    pub(super) fn visit(&self) -> Visit {
        let visits = self.online.iter().map(|directory| directory.visit);
        visits.max().unwrap_or(Visit::None)
    }

    pub(super) fn visited(&self) -> impl Iterator<Item = &Path> {
        let visited = self
            .online
            .iter()
            .filter(|directory| directory.visit == Visit::Certain);
        visited.map(|directory| directory.path.as_path())
    }

    /// Whether Milena wrote to one of the directories, as far as they were looked into.
    pub(super) fn milena_ran_before(&self) -> bool {
        self.online.iter().any(|directory| directory.state.is_some())
    }

    /// Whether `directory` was certainly used by another broker.
    pub(super) fn is_visited(&self, directory: &Path) -> bool {
        self.visited().any(|visited| visited == directory)
    }

    /// Whether a partition that has no directory now was certainly deleted by another broker.
    pub(super) fn was_deleted(&self, partition: &TopicPartition) -> bool {
        let had = |directory: &Directory| {
            let state = directory.state.as_ref();
            state.is_some_and(|state| state.synced_ends.contains_key(partition))
        };
        let mut homes = self.online.iter().filter(|directory| had(directory)).peekable();
        !self.some_missing
            && homes.peek().is_some()
            && homes.all(|directory| directory.visit == Visit::Certain)
    }
}

/// The directories that another broker certainly used since Milena last ran.
pub(crate) async fn visited(
    tree: &dyn Coordination,
    survey: &Survey,
    io: &dyn Io,
) -> Result<Vec<PathBuf>, CoordinationError> {
    let evidence = Evidence::gather(tree, survey, io).await?;
    Ok(evidence.visited().map(Path::to_owned).collect())
}

/// Keeps what `meta.properties` says in these directories, which are online, so that the next start sees
/// whether another broker was there. Durable on return; writes only what changed. Directories that are not
/// named keep what was remembered.
pub async fn remember(
    tree: &dyn Coordination,
    io: &dyn Io,
    directories: &[PathBuf],
) -> Result<(), CoordinationError> {
    let remembered = read_remembered(tree).await?;
    let mut now = remembered.clone();
    for directory in directories {
        if let Some(text) = meta_properties(io, directory) {
            now.insert(key(directory), text);
        }
    }
    if now == remembered {
        return Ok(());
    }
    let log_dirs: Map<String, Value> = now.into_iter().map(|(path, text)| (path, json!(text))).collect();
    let data = json!({"version": 1, "log_dirs": log_dirs}).to_string();
    tree.set_or_create(REMEMBERED, Bytes::from(data)).await
}

fn key(directory: &Path) -> String {
    directory.display().to_string()
}

/// `None` if there is none, or it cannot be read, which others say.
fn meta_properties(io: &dyn Io, directory: &Path) -> Option<String> {
    let content = read_file(io, &directory.join(META_PROPERTIES_FILE))
        .ok()
        .flatten()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// Damaged, it counts as empty: then nothing is concluded.
async fn read_remembered(tree: &dyn Coordination) -> Result<BTreeMap<String, String>, CoordinationError> {
    let node = tree.get(REMEMBERED, None).await?;
    let data = node.and_then(|node| node.data).unwrap_or_default();
    if data.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(decode(&data).unwrap_or_else(|error| {
        tracing::warn!(target: super::LOGGER, "{error}");
        BTreeMap::new()
    }))
}

fn decode(data: &[u8]) -> Result<BTreeMap<String, String>, ZnodeError> {
    let object = crate::coordination::znodes::Object::parse(REMEMBERED, data)?;
    let log_dirs = object.each("log_dirs", "texts by directory", |path, text| {
        Some((path.to_owned(), text.as_str()?.to_owned()))
    })?;
    Ok(log_dirs.into_iter().collect())
}
