//! [`Survey`]: what stands in the log directories before any log is opened.
//!
//! The first of the two stages of a start. It takes each directory's lock, proves that it can be written,
//! reads `meta.properties` and the names of the partitions, so that the broker can settle its id, its cluster
//! and the topics' settings; [`LogManager::open`](super::LogManager::open) then loads the logs. Nothing of a
//! partition is touched here.
//!
//! What is found has a named outcome:
//!
//! | found | outcome |
//! |---|---|
//! | missing directory | created |
//! | not a directory, unreadable, read-only, I/O error | offline; if all are, [`LogDirsError::AllOffline`] |
//! | full | online: what is there is served, the disk reserve stops appends |
//! | locked by another process | [`LogDirsError::Locked`] |
//! | the same directory twice, also by a link | [`LogDirsError::SameDirectory`] |
//! | `meta.properties` damaged | [`LogDirsError::Metadata`] |
//! | directories of different brokers or clusters | [`LogDirsError::InconsistentMetadata`] |
//! | another broker or cluster id than configured | [`LogDirsError::BrokerId`], [`LogDirsError::ClusterId`] |
//! | a directory that is no partition | [`LogDirsError::UnknownDirectories`]; plain files are ignored |
//! | one partition in two directories | [`LogDirsError::DuplicatePartition`] |
//! | `…-delete` | removed once the broker runs |
//! | `…-future` | loaded: the move goes on |
//!
//! A file that this start creates in each directory, under a name that no other start uses, proves that the
//! directory can be written; found there already, it proves that the directory was given before under another
//! name. Source: `LogManager.scala` (`createAndValidateLogDirs`, `lockLogDirs`), `KafkaServer.scala`
//! (`getBrokerMetadataAndOfflineDirs`, `getOrGenerateBrokerId`).
//!
//! **Deviation:** Kafka writes nothing to see whether a directory can be written, so that a read-only one is
//! noticed by its first append at the latest; here it is offline from the start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{self, BrokerMetadata, MetaPropertiesError};
use crate::error::IoError;
use crate::io::{DirectoryLock, FileKind, Io, OpenMode};
use crate::log::LogDirectory;
use crate::units::{TimestampMs, TopicPartition};

use super::partition_directory::PartitionDirectoryName;

/// Followed by 32 hex digits: exists for a moment at start. Found at another time, it is a leftover of a
/// crash and removed.
const PROBE_PREFIX: &str = "milena.probe.";

/// The log directories cannot be used as they are: the broker does not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LogDirsError {
    #[error("log.dirs names no directory")]
    NoDirectories,
    #[error("log.dirs names one directory twice: {} and {}", first.display(), second.display())]
    SameDirectory { first: PathBuf, second: PathBuf },
    #[error(
        "Failed to acquire lock on file .lock in {}. A Kafka instance in another process or thread is using \
         this directory.",
        directory.display()
    )]
    Locked { directory: PathBuf },
    #[error("{0}")]
    Metadata(#[from] MetaPropertiesError),
    #[error(
        "BrokerMetadata is not consistent across log.dirs. This could happen if multiple brokers shared a \
         log directory (log.dirs) or partial data was manually copied from another broker. Found:{}",
        list_metadata(found)
    )]
    InconsistentMetadata { found: Vec<(PathBuf, BrokerMetadata)> },
    #[error(
        "Configured broker.id {configured} doesn't match stored broker.id {stored} in {}. If you moved your \
         data, make sure your configured broker.id matches. If you intend to create a new broker, you should \
         remove all data in your data directories (log.dirs).",
        path.display()
    )]
    BrokerId {
        path: PathBuf,
        configured: i32,
        stored: i32,
    },
    #[error(
        "The Cluster ID {configured} doesn't match stored clusterId {stored} in {}. The broker is trying to \
         join the wrong cluster. Configured zookeeper.connect may be wrong.",
        path.display()
    )]
    ClusterId {
        path: PathBuf,
        configured: String,
        stored: String,
    },
    #[error(
        "log.dirs contains directories that are no partitions (topic-partition, or \
         topic-partition.uniqueId-delete if marked for deletion): {}. Move them elsewhere: log directories \
         should only contain Kafka topic data.",
        list_paths(paths)
    )]
    UnknownDirectories { paths: Vec<PathBuf> },
    #[error(
        "Duplicate log directories for {partition} are found in both {} and {}. It is likely because log \
         directory failure happened while broker was replacing current replica with future replica. Recover \
         broker from this failure by manually deleting one of the two directories for this partition. It is \
         recommended to delete the partition in the log directory that is known to have failed recently.",
        first.display(), second.display()
    )]
    DuplicatePartition {
        partition: TopicPartition,
        first: PathBuf,
        second: PathBuf,
    },
    #[error(
        "none of the log directories can be used: {}. Each that log.dirs names must be a directory in which \
         this process may write, or be missing where it may create it.",
        list_reasons(reasons)
    )]
    AllOffline { reasons: Vec<(PathBuf, String)> },
}

fn list_paths(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn list_reasons(reasons: &[(PathBuf, String)]) -> String {
    reasons
        .iter()
        .map(|(path, why)| format!("{}: {why}", path.display()))
        .collect::<Vec<_>>()
        .join("; ")
}

fn list_metadata(found: &[(PathBuf, BrokerMetadata)]) -> String {
    found
        .iter()
        .map(|(path, metadata)| {
            let cluster = metadata.cluster_id.as_deref().unwrap_or("none");
            format!(
                " {} -> broker.id {}, cluster.id {cluster};",
                path.display(),
                metadata.broker_id
            )
        })
        .collect()
}

/// One log directory that can be used.
pub struct SurveyedDirectory {
    pub directory: Arc<LogDirectory>,
    /// Held as long as the broker runs.
    pub(super) lock: Box<dyn DirectoryLock>,
    /// `.kafka_cleanshutdown` was there: no log needs recovery.
    pub clean_shutdown: bool,
    /// `meta.properties`; `None` if there is none yet.
    pub metadata: Option<BrokerMetadata>,
    /// In order of their names.
    pub partitions: Vec<TopicPartition>,
    /// Logs that are to replace the partition's in another directory, with the names of their directories, in
    /// the order of these.
    pub future: Vec<(TopicPartition, String)>,
    /// Names of `…-delete` directories, whose removal was interrupted.
    pub(super) deleted: Vec<String>,
    /// Nothing could be written because no space is left.
    pub full: bool,
}

impl fmt::Debug for SurveyedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SurveyedDirectory")
            .field("directory", &self.directory)
            .field("clean_shutdown", &self.clean_shutdown)
            .field("metadata", &self.metadata)
            .field("partitions", &self.partitions)
            .field("future", &self.future)
            .field("deleted", &self.deleted)
            .field("full", &self.full)
            .finish_non_exhaustive()
    }
}

/// All log directories as found, each usable one locked until this (or the manager made of it) is dropped.
#[derive(Debug)]
pub struct Survey {
    /// The usable ones, in the order of `log.dirs`.
    pub online: Vec<SurveyedDirectory>,
    /// The others, marked offline with the reason.
    pub offline: Vec<Arc<LogDirectory>>,
}

impl Survey {
    /// Looks at the directories of `log.dirs`.
    ///
    /// # Errors
    /// By the table above. All locks are released; what was created stays.
    pub fn of(paths: &[PathBuf], io: &dyn Io) -> Result<Survey, LogDirsError> {
        if paths.is_empty() {
            return Err(LogDirsError::NoDirectories);
        }
        for (index, path) in paths.iter().enumerate() {
            if let Some(first) = paths[..index].iter().find(|earlier| *earlier == path) {
                return Err(LogDirsError::SameDirectory {
                    first: first.clone(),
                    second: path.clone(),
                });
            }
        }
        let probe = format!("{PROBE_PREFIX}{}", unique_id(io));
        let mut survey = Survey {
            online: Vec::new(),
            offline: Vec::new(),
        };
        let looked = survey.look_at_all(paths, &probe, io);
        for found in &survey.online {
            // What stays behind is removed by the next start.
            let _ = io.remove_file(&found.directory.path().join(&probe));
        }
        let unknown = looked?;
        if !unknown.is_empty() {
            return Err(LogDirsError::UnknownDirectories { paths: unknown });
        }
        if survey.online.is_empty() {
            return Err(LogDirsError::AllOffline {
                reasons: survey.offline_reasons(),
            });
        }
        survey.check_metadata()?;
        survey.check_partitions()?;
        Ok(survey)
    }

    /// Broker id and cluster id that the directories agree upon; `None` if all are new.
    pub fn metadata(&self) -> Option<&BrokerMetadata> {
        self.online.iter().find_map(|found| found.metadata.as_ref())
    }

    /// Compares `meta.properties` with the configuration, where both say something.
    ///
    /// # Errors
    /// [`LogDirsError::BrokerId`], [`LogDirsError::ClusterId`].
    pub fn check_identity(
        &self,
        broker_id: Option<i32>,
        cluster_id: Option<&str>,
    ) -> Result<(), LogDirsError> {
        for found in &self.online {
            let Some(metadata) = &found.metadata else { continue };
            let path = || found.directory.path().join(checkpoint::META_PROPERTIES_FILE);
            if let Some(configured) = broker_id.filter(|id| *id != metadata.broker_id) {
                return Err(LogDirsError::BrokerId {
                    path: path(),
                    configured,
                    stored: metadata.broker_id,
                });
            }
            if let (Some(configured), Some(stored)) = (cluster_id, &metadata.cluster_id)
                && configured != stored
            {
                let (configured, stored) = (configured.to_owned(), stored.clone());
                return Err(LogDirsError::ClusterId {
                    path: path(),
                    configured,
                    stored,
                });
            }
        }
        Ok(())
    }

    /// Writes `meta.properties` into each usable directory that has another content or none, durably when it
    /// returns. Kafka does this once the broker is registered.
    ///
    /// # Errors
    /// None: a directory that cannot be written is taken offline, a full one keeps what it has.
    pub fn write_metadata(&self, metadata: &BrokerMetadata, io: &dyn Io, now: TimestampMs) {
        for found in &self.online {
            write_metadata(&found.directory, found.metadata.as_ref(), metadata, io, now);
        }
    }

    /// All partitions with the directory that has them.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, &Path)> {
        self.online.iter().flat_map(|found| {
            found
                .partitions
                .iter()
                .map(move |partition| (partition, found.directory.path()))
        })
    }

    /// Why each unusable directory is one.
    pub fn offline_reasons(&self) -> Vec<(PathBuf, String)> {
        let reason =
            |directory: &Arc<LogDirectory>| directory.offline_reason().unwrap_or_default().to_owned();
        self.offline
            .iter()
            .map(|directory| (directory.path().to_owned(), reason(directory)))
            .collect()
    }

    /// Fills the two lists; returns the directories below that are no partitions.
    fn look_at_all(
        &mut self,
        paths: &[PathBuf],
        probe: &str,
        io: &dyn Io,
    ) -> Result<Vec<PathBuf>, LogDirsError> {
        let mut unknown = Vec::new();
        for path in paths {
            match self.look(path, probe, io) {
                Ok((found, more_unknown)) => {
                    self.online.push(found);
                    unknown.extend(more_unknown);
                }
                Err(Refusal::Start(error)) => return Err(error),
                Err(Refusal::Directory(reason)) => {
                    tracing::error!(
                        "Failed to create or validate data directory {}: {reason}",
                        path.display()
                    );
                    let directory = Arc::new(LogDirectory::new(path));
                    directory.take_offline(reason);
                    self.offline.push(directory);
                }
            }
        }
        Ok(unknown)
    }

    /// Looks at one directory.
    fn look(
        &self,
        path: &Path,
        probe: &str,
        io: &dyn Io,
    ) -> Result<(SurveyedDirectory, Vec<PathBuf>), Refusal> {
        match io.stat(path)? {
            None => {
                tracing::info!("Log directory {} not found, creating it.", path.display());
                io.create_dir_all(path)?;
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    io.sync_dir(parent)?;
                }
            }
            Some(stat) if stat.kind != FileKind::Directory => {
                return Err(Refusal::Directory(format!(
                    "{} is not a directory",
                    path.display()
                )));
            }
            Some(_) => {}
        }
        let lock = match io.lock(&path.join(checkpoint::LOCK_FILE)) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(self.locked(path, probe, io)),
            Err(error) => return Err(error.into()),
        };
        let full = match io.open(&path.join(probe), OpenMode::CreateNew) {
            Ok(_) => false,
            Err(error) if error.lacks_space() => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(self.locked(path, probe, io));
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = match BrokerMetadata::read(io, path) {
            Ok(metadata) => metadata,
            Err(MetaPropertiesError::Io(error)) => return Err(error.into()),
            Err(error) => {
                let _ = io.remove_file(&path.join(probe));
                return Err(Refusal::Start(error.into()));
            }
        };
        let mut found = SurveyedDirectory {
            directory: Arc::new(LogDirectory::new(path)),
            lock,
            clean_shutdown: checkpoint::clean_shutdown_marker_exists(io, path)?,
            metadata,
            partitions: Vec::new(),
            future: Vec::new(),
            deleted: Vec::new(),
            full,
        };
        let mut unknown = Vec::new();
        for entry in io.list(path)? {
            if entry.name.starts_with(PROBE_PREFIX) && entry.name != probe {
                io.remove_file(&path.join(&entry.name))?;
            }
            if entry.kind != FileKind::Directory {
                continue;
            }
            match PartitionDirectoryName::parse(&entry.name) {
                Some(PartitionDirectoryName::Current(partition)) => found.partitions.push(partition),
                Some(PartitionDirectoryName::Future(partition)) => found.future.push((partition, entry.name)),
                Some(PartitionDirectoryName::Deleted) => found.deleted.push(entry.name),
                None => unknown.push(path.join(entry.name)),
            }
        }
        Ok((found, unknown))
    }

    /// The directory is taken: by another process, unless the probe is there, which only this start creates.
    fn locked(&self, path: &Path, probe: &str, io: &dyn Io) -> Refusal {
        let here = || matches!(io.stat(&path.join(probe)), Ok(Some(_)));
        if here() {
            for earlier in &self.online {
                let _ = io.remove_file(&earlier.directory.path().join(probe));
                if !here() {
                    let first = earlier.directory.path().to_owned();
                    return Refusal::Start(LogDirsError::SameDirectory {
                        first,
                        second: path.to_owned(),
                    });
                }
            }
        }
        Refusal::Start(LogDirsError::Locked {
            directory: path.to_owned(),
        })
    }

    fn check_metadata(&self) -> Result<(), LogDirsError> {
        let stored: Vec<(PathBuf, BrokerMetadata)> = self
            .online
            .iter()
            .filter_map(|found| Some((found.directory.path().to_owned(), found.metadata.clone()?)))
            .collect();
        if stored.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            return Err(LogDirsError::InconsistentMetadata { found: stored });
        }
        Ok(())
    }

    fn check_partitions(&self) -> Result<(), LogDirsError> {
        let mut seen: BTreeMap<&TopicPartition, &Path> = BTreeMap::new();
        for (partition, directory) in self.partitions() {
            if let Some(first) = seen.insert(partition, directory) {
                let name = partition.to_string();
                return Err(LogDirsError::DuplicatePartition {
                    partition: partition.clone(),
                    first: first.join(&name),
                    second: directory.join(&name),
                });
            }
        }
        Ok(())
    }
}

pub(super) fn write_metadata(
    directory: &LogDirectory,
    stored: Option<&BrokerMetadata>,
    metadata: &BrokerMetadata,
    io: &dyn Io,
    now: TimestampMs,
) {
    if stored == Some(metadata) || !directory.is_online() {
        return;
    }
    if let Err(error) = metadata.write(io, directory.path(), now) {
        super::checkpoints::tolerate_full(directory, &error);
    }
}

/// 32 random hex digits.
pub(super) fn unique_id(io: &dyn Io) -> String {
    io.unique_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Why a directory is not used.
enum Refusal {
    /// It is offline; others may serve.
    Directory(String),
    /// The broker must not start.
    Start(LogDirsError),
}

impl From<IoError> for Refusal {
    fn from(error: IoError) -> Self {
        Refusal::Directory(error.to_string())
    }
}

#[cfg(test)]
mod tests;
