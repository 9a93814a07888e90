//! A log directory: its partitions and the small files that are about all of them.
//!
//! Source: `LogManager.loadLogs`, `Log.parseTopicPartitionName`, `CheckpointFile`, `BrokerMetadataCheckpoint` of 2.7.2; of later
//! versions `UnifiedLog` (`-stray`), `RemoteIndexCache` and `MetaProperties`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use milena_engine::checkpoint::{self, OffsetCheckpoint, properties};
use milena_engine::io::{FileKind, Io};
use milena_engine::log::names;
use milena_engine::log_manager::PartitionDirectoryName;
use milena_engine::units::{Offset, TopicPartition};

use super::finding::{Finding, Kind, Start};
use super::metadata_snapshot;
use super::partition::{Layout, Partition};
use crate::log_dump::report::Read;

/// Topics of which no broker deletes by age alone.
const COMPACTED_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];
/// What later versions keep beside the partitions.
const LATER_DIRECTORIES: [&str; 1] = ["remote-log-index-cache"];

/// What KRaft begins its metadata with.
const BOOTSTRAP_SNAPSHOT: &str = "bootstrap.checkpoint";

/// The offset checkpoints, and what 2.7.2 does without one that can be read.
const CHECKPOINTS: [(&str, &str); 4] = [
    (
        checkpoint::RECOVERY_POINT_FILE,
        "it is taken for empty: after an unclean shutdown all segments are recovered",
    ),
    (
        checkpoint::REPLICATION_OFFSET_FILE,
        "the broker takes the whole log directory offline",
    ),
    (
        checkpoint::LOG_START_OFFSET_FILE,
        "it is taken for empty: deleted records may come back",
    ),
    (
        checkpoint::CLEANER_OFFSET_FILE,
        "compaction takes the whole log directory for failed",
    ),
];

/// One offset checkpoint.
#[derive(Clone, Debug, Default)]
pub(in crate::log_dump) struct Checkpoint {
    pub(in crate::log_dump) entries: BTreeMap<TopicPartition, Offset>,
    /// The file is there but no such checkpoint; `entries` are the lines of it that are.
    pub(in crate::log_dump) is_damaged: bool,
    pub(in crate::log_dump) exists: bool,
}

/// What was found of a log directory.
#[derive(Clone, Debug, Default)]
pub(in crate::log_dump) struct Directory {
    pub(in crate::log_dump) path: PathBuf,
    /// All of it was asked for, not single partitions.
    pub(in crate::log_dump) is_whole: bool,
    pub(in crate::log_dump) is_clean: bool,
    pub(in crate::log_dump) checkpoints: BTreeMap<&'static str, Checkpoint>,
    /// `meta.properties` is there but cannot be read.
    pub(in crate::log_dump) metadata: Metadata,
    pub(in crate::log_dump) partitions: Vec<Partition>,
    pub(in crate::log_dump) findings: Vec<Finding>,
}

/// `meta.properties`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::log_dump) enum Metadata {
    #[default]
    Missing,
    Damaged,
    Sound(Vec<u8>),
}

/// Whether a directory is a partition's: its name says so, or a segment lies in it.
pub(in crate::log_dump) fn is_partition(io: &dyn Io, path: &Path) -> Read<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let has_segment = io.list(path)?.iter().any(|entry| {
        entry.kind == FileKind::File && names::parse(&entry.name).is_some_and(|name| name.kind == names::LOG)
    });
    let is_named = matches!(
        PartitionDirectoryName::parse(&name),
        Some(PartitionDirectoryName::Current(_) | PartitionDirectoryName::Future(_))
    );
    Ok(has_segment || is_named)
}

/// Reads the small files of a log directory. Of what is wrong with them is told only if all of it was asked for.
pub(super) fn look(io: &dyn Io, path: &Path, is_whole: bool, deep: bool) -> Read<Directory> {
    let mut directory = Directory {
        path: path.to_owned(),
        is_whole,
        is_clean: checkpoint::clean_shutdown_marker_exists(io, path)?,
        ..Directory::default()
    };
    for (name, at_start) in CHECKPOINTS {
        let file = path.join(name);
        let mut found = Checkpoint {
            exists: io.stat(&file)?.is_some(),
            ..Checkpoint::default()
        };
        match OffsetCheckpoint::new(path, name).read(io) {
            Ok(entries) => found.entries = entries,
            Err(checkpoint::CheckpointError::Io(error)) => return Err(error),
            Err(error) => {
                found.is_damaged = true;
                found.entries = salvaged(&checkpoint::read_file(io, &file)?.unwrap_or_default());
                let text = error.to_string();
                let text = text
                    .strip_prefix(&format!("{}: ", file.display()))
                    .unwrap_or(&text)
                    .to_owned();
                directory
                    .findings
                    .push(Finding::new(Kind::Checkpoint, &file, text, "", at_start));
            }
        }
        directory.checkpoints.insert(name, found);
    }
    let file = path.join(checkpoint::META_PROPERTIES_FILE);
    if let Some(content) = checkpoint::read_file(io, &file)? {
        directory.metadata = match metadata_error(&content) {
            None => Metadata::Sound(content),
            Some(found) => {
                let expected = "version 0 with broker.id, or version 1 with node.id";
                let at_start = "the broker does not start, or takes the log directory offline";
                directory
                    .findings
                    .push(Finding::new(Kind::Metadata, &file, found, expected, at_start));
                Metadata::Damaged
            }
        };
    } else if is_whole {
        directory.note(&file, "no such file", "the broker writes it");
    }
    if !is_whole {
        directory.findings.clear();
        return Ok(directory);
    }
    let file = path.join(BOOTSTRAP_SNAPSHOT);
    if io.stat(&file)?.is_some() {
        let found = metadata_snapshot::check(io, &file, deep);
        directory
            .findings
            .extend(found.unwrap_or_else(|error| Some(super::unreadable(&error))));
    }
    Ok(directory)
}

/// The lines of a damaged checkpoint that are entries.
fn salvaged(content: &[u8]) -> BTreeMap<TopicPartition, Offset> {
    let text = String::from_utf8_lossy(content);
    let entry = |line: &str| match *line.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
        [topic, partition, offset] => {
            // Only what names a partition as a broker would.
            let name = PartitionDirectoryName::parse(&format!("{topic}-{partition}"))?;
            let PartitionDirectoryName::Current(partition) = name else {
                return None;
            };
            let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
            Some((partition, Offset(offset)))
        }
        _ => None,
    };
    text.lines().filter_map(entry).collect()
}

/// What is wrong with `meta.properties`, of 2.7.2 or a later version.
fn metadata_error(content: &[u8]) -> Option<String> {
    let found = match properties::parse(content) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let get = |key: &str| {
        found
            .iter()
            .rev()
            .find(|property| property.key == key)
            .map(|p| p.value.as_str())
    };
    let version = get("version").unwrap_or("no version");
    let id = match version {
        "0" => "broker.id",
        "1" => "node.id",
        other => return Some(format!("version {other}")),
    };
    let value = get(id).unwrap_or_default();
    match value.parse::<i32>() {
        Ok(number) if number >= 0 => None,
        _ => Some(format!("{id}={value}")),
    }
}

impl Directory {
    fn entry(&self, name: &str, partition: Option<&TopicPartition>) -> Option<i64> {
        let entries = &self.checkpoints.get(name)?.entries;
        entries.get(partition?).map(|offset| offset.get())
    }

    /// What lies in a partition's directory, with what the log directory says of it.
    pub(super) fn layout(&self, io: &dyn Io, path: &Path, deep: bool) -> Read<Layout> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partition = match PartitionDirectoryName::parse(&name) {
            Some(PartitionDirectoryName::Current(partition) | PartitionDirectoryName::Future(partition)) => {
                Some(partition)
            }
            _ => None,
        };
        let of = partition.as_ref();
        let start = Start {
            clean: self.is_clean,
            recovery_point: self.entry(checkpoint::RECOVERY_POINT_FILE, of).unwrap_or(0),
        };
        let log_start = self.entry(checkpoint::LOG_START_OFFSET_FILE, of);
        let is_compacted = self.entry(checkpoint::CLEANER_OFFSET_FILE, of).is_some()
            || of.is_some_and(|partition| COMPACTED_TOPICS.contains(&&*partition.topic));
        let mut layout = Layout::of(io, path, partition, start, deep)?;
        (layout.log_start, layout.is_compacted) = (log_start, is_compacted);
        Ok(layout)
    }

    /// The directories of its partitions; what is none is told of.
    pub(super) fn partition_paths(&mut self, io: &dyn Io) -> Read<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in io.list(&self.path)? {
            let path = self.path.join(&entry.name);
            if entry.kind != FileKind::Directory {
                continue;
            }
            match PartitionDirectoryName::parse(&entry.name) {
                Some(PartitionDirectoryName::Current(_)) => paths.push(path),
                Some(PartitionDirectoryName::Future(_)) => {
                    let found = "a replica that is being moved here";
                    self.note(&path, found, "it is loaded, and the move goes on");
                    paths.push(path);
                }
                Some(PartitionDirectoryName::Deleted) => {
                    self.note(
                        &path,
                        "a partition that was being deleted",
                        "it is removed after a minute",
                    );
                }
                None if entry.name.ends_with("-stray")
                    || LATER_DIRECTORIES.contains(&entry.name.as_str()) =>
                {
                    self.note(
                        &path,
                        "a directory of a later version",
                        "2.7.2 does not start with it",
                    );
                }
                None => {
                    let found = "a directory that is no partition's";
                    let at_start = "the broker does not start";
                    let expected = "nothing but partitions";
                    self.findings
                        .push(Finding::new(Kind::Directory, path, found, expected, at_start));
                }
            }
        }
        Ok(paths)
    }

    fn note(&mut self, path: &Path, found: &str, at_start: &str) {
        self.findings
            .push(Finding::new(Kind::Note, path, found, "", at_start));
    }

    /// Takes a partition in and holds the log directory's word on it against it.
    pub(super) fn add(&mut self, mut partition: Partition) {
        let end = partition.end();
        if let Some(start) = partition.log_start.filter(|start| *start > end)
            && !partition.segments.is_empty()
        {
            let path = self.path.join(checkpoint::LOG_START_OFFSET_FILE);
            let found = format!("log start offset {start} of {}", partition.name());
            let expected = format!("at most {end}, the end of its log");
            let at_start = "all its segments are deleted, and an empty one is made at that offset";
            partition
                .findings
                .push(Finding::new(Kind::LogStart, path, found, expected, at_start));
        }
        self.partitions.push(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_damaged_checkpoint_that_are_entries_are_kept() {
        let kept = salvaged(b"0\n7\na 0 12\nb 1\nc x 3\nd 2 -4\n\xff\xff 0 1\ne 3 9\n");
        let kept: Vec<_> = kept
            .iter()
            .map(|(of, offset)| (of.to_string(), offset.get()))
            .collect();
        assert_eq!(kept, [("a-0".to_owned(), 12), ("e-3".to_owned(), 9)]);
    }

    #[test]
    fn meta_properties_of_both_kinds_are_sound() {
        assert_eq!(metadata_error(b"#\nversion=0\nbroker.id=3\n"), None);
        assert_eq!(
            metadata_error(b"version=1\nnode.id=3\ncluster.id=x\ndirectory.id=y\n"),
            None
        );
        assert_eq!(
            metadata_error(b"version=0\nbroker.id=x\n").as_deref(),
            Some("broker.id=x")
        );
        assert_eq!(metadata_error(b"version=7\n").as_deref(), Some("version 7"));
        assert_eq!(metadata_error(b"").as_deref(), Some("version no version"));
    }
}
