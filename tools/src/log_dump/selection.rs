//! [`select`]: the files that are meant by the paths of a command line, in the order in which they are dumped.
//!
//! A path is a file, a directory of a partition, a log directory, or a pattern, which is expanded here if no shell
//! did it. Of directories the files are taken that a broker uses: not those that it is about to delete, nor those of
//! a cleaning that was not finished; named themselves, they are dumped too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use milena_engine::error::IoError;
use milena_engine::io::{FileKind as Entry, Io};

/// What a file is by its name, in the order of dumping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    MetaProperties,
    CleanShutdown,
    OffsetCheckpoint,
    PartitionMetadata,
    LeaderEpochs,
    /// Of KRaft: a log of its own.
    Snapshot,
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
    Unknown,
}

impl FileKind {
    /// Of the kinds that Kafka's tool knows.
    fn of_extension(path: &Path) -> FileKind {
        match path.extension().unwrap_or_default().to_str() {
            Some("log") => FileKind::Log,
            Some("index") => FileKind::OffsetIndex,
            Some("timeindex") => FileKind::TimeIndex,
            Some("txnindex") => FileKind::TransactionIndex,
            Some("snapshot") => FileKind::ProducerSnapshot,
            _ => FileKind::Unknown,
        }
    }

    /// Of all kinds.
    fn of_name(path: &Path) -> FileKind {
        match path.file_name().unwrap_or_default().to_str() {
            Some("meta.properties") => FileKind::MetaProperties,
            Some(".kafka_cleanshutdown") => FileKind::CleanShutdown,
            Some("partition.metadata") => FileKind::PartitionMetadata,
            Some("leader-epoch-checkpoint") => FileKind::LeaderEpochs,
            Some(
                "recovery-point-offset-checkpoint"
                | "replication-offset-checkpoint"
                | "log-start-offset-checkpoint"
                | "cleaner-offset-checkpoint",
            ) => FileKind::OffsetCheckpoint,
            _ if path
                .extension()
                .is_some_and(|extension| extension == "checkpoint") =>
            {
                FileKind::Snapshot
            }
            _ => FileKind::of_extension(path),
        }
    }

    /// In JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            FileKind::MetaProperties => "metaProperties",
            FileKind::CleanShutdown => "cleanShutdown",
            FileKind::OffsetCheckpoint => "offsetCheckpoint",
            FileKind::PartitionMetadata => "partitionMetadata",
            FileKind::LeaderEpochs => "leaderEpochs",
            FileKind::Snapshot => "snapshot",
            FileKind::Log => "log",
            FileKind::OffsetIndex => "offsetIndex",
            FileKind::TimeIndex => "timeIndex",
            FileKind::TransactionIndex => "transactionIndex",
            FileKind::ProducerSnapshot => "producerSnapshot",
            FileKind::Unknown => "unknown",
        }
    }

    /// Has the base offset of its segment for a name.
    fn is_of_segment(self) -> bool {
        matches!(
            self,
            FileKind::Log | FileKind::OffsetIndex | FileKind::TimeIndex | FileKind::TransactionIndex
        )
    }
}

/// A file to be dumped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) path: PathBuf,
    pub(super) kind: FileKind,
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) base_offset: Option<i64>,
    /// The base offset of the next segment, if its files are selected too: no offset of this one reaches it.
    pub(super) next_base_offset: Option<i64>,
    /// Named itself, not found in a directory.
    pub(super) is_named: bool,
    /// Named in Kafka's spelling: what is no file of Kafka's is passed over, as its tool does.
    pub(super) is_by_kafka: bool,
}

impl Selected {
    /// By Kafka's spelling, which knows no other kinds than Kafka's tool.
    pub(super) fn by_kafka(path: &Path) -> Selected {
        // As `java.io.File` writes it.
        let path: PathBuf = path.components().collect();
        let kind = FileKind::of_extension(&path);
        Selected {
            is_by_kafka: true,
            ..Selected::new(path, kind, true)
        }
    }

    /// A file that was named.
    pub(super) fn named(path: &Path) -> Selected {
        let mut bare = path.to_path_buf();
        // What a broker is about to delete, or had not finished.
        while bare
            .extension()
            .is_some_and(|last| last == "deleted" || last == "cleaned" || last == "swap")
        {
            bare.set_extension("");
        }
        Selected::new(path.components().collect(), FileKind::of_name(&bare), true)
    }

    fn found(path: PathBuf) -> Option<Selected> {
        let kind = FileKind::of_name(&path);
        (kind != FileKind::Unknown).then(|| Selected::new(path, kind, false))
    }

    fn new(path: PathBuf, kind: FileKind, is_named: bool) -> Selected {
        // A log directory may have a name like that of a partition.
        let is_of_log_dir = matches!(
            kind,
            FileKind::MetaProperties | FileKind::CleanShutdown | FileKind::OffsetCheckpoint
        );
        let parent = parent(&path).filter(|_| !is_of_log_dir);
        let place = parent.and_then(|parent| partition_of(parent.file_name()?.to_str()?));
        let (topic, partition) = place.unzip();
        Selected {
            base_offset: base_offset_of(&path).filter(|_| kind != FileKind::Snapshot),
            path,
            kind,
            topic,
            partition,
            next_base_offset: None,
            is_named,
            is_by_kafka: false,
        }
    }

    /// Its name should begin with an offset.
    pub(super) fn must_have_offset(&self) -> bool {
        self.kind == FileKind::Log
    }

    fn order(&self) -> impl Ord + '_ {
        (
            self.topic.as_deref(),
            self.partition,
            self.path.parent(),
            self.base_offset,
            self.kind,
            &self.path,
        )
    }
}

/// The directory of a file, with its name.
fn parent(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    Some(absolute.parent()?.components().collect())
}

/// The offset in a file's name; Kafka takes what stands before the first dot.
pub(super) fn base_offset_of(path: &Path) -> Option<i64> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// Topic and partition of a directory's name, those of a directory to be deleted, of a future replica or a stray one
/// included.
pub(super) fn partition_of(name: &str) -> Option<(String, i32)> {
    let name = match name.rsplit_once('-') {
        Some((rest, "delete" | "future" | "stray")) => rest.rsplit_once('.').map_or(rest, |(name, _)| name),
        _ => name,
    };
    let (topic, partition) = name.rsplit_once('-')?;
    let is_number = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !topic.is_empty()).then_some((topic.to_owned(), partition.parse().ok()?))
}

/// Whether a broker uses a directory of that name for a partition.
pub(super) fn is_partition(name: &str) -> bool {
    partition_of(name).is_some_and(|(topic, partition)| format!("{topic}-{partition}") == name)
}

/// The partitions in a log directory; `None` for a directory of one partition.
pub(super) fn partitions_in(io: &dyn Io, directory: &Path) -> Result<Option<BTreeSet<String>>, IoError> {
    let entries = io.list(directory)?;
    let has_logs = entries
        .iter()
        .any(|entry| entry.kind == Entry::File && entry.name.ends_with(".log"));
    let partitions: BTreeSet<_> = entries
        .into_iter()
        .filter(|entry| entry.kind == Entry::Directory && is_partition(&entry.name))
        .map(|entry| entry.name)
        .collect();
    let name = std::path::absolute(directory).ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let is_named_so = name.is_some_and(|name| partition_of(name).is_some());
    let is_one = has_logs || partitions.is_empty() && is_named_so;
    Ok((!is_one).then_some(partitions))
}

/// The files that are meant, in the order of topic, partition, base offset and kind; `complain` gets what is nothing.
pub(super) fn select(
    io: &dyn Io,
    paths: &[PathBuf],
    mut complain: impl FnMut(&Path, String),
) -> Vec<Selected> {
    let mut selected = Vec::new();
    for path in paths {
        for path in expanded(io, path, &mut complain) {
            match io.stat(&path) {
                Ok(Some(stat)) if stat.kind == Entry::Directory => {
                    let before = selected.len();
                    if let Err(error) = add_directory(io, &path, &mut selected) {
                        complain(&path, error.to_string());
                    } else if selected.len() == before {
                        complain(&path, format!("{}: found no file of Kafka's", path.display()));
                    }
                }
                Ok(Some(_)) => selected.push(Selected::named(&path)),
                Ok(None) => complain(&path, format!("{}: is not there", path.display())),
                Err(error) => complain(&path, error.to_string()),
            }
        }
    }
    ordered(selected)
}

/// The logs of a partition's directory, in order.
pub(super) fn logs_in(io: &dyn Io, directory: &Path) -> Result<Vec<Selected>, IoError> {
    let mut selected = Vec::new();
    for entry in io.list(directory)? {
        if entry.kind == Entry::File {
            let path = directory.join(&entry.name).components().collect();
            selected.extend(Selected::found(path).filter(|file| file.kind == FileKind::Log));
        }
    }
    Ok(ordered(selected))
}

/// In the order of dumping, each once, with the base offsets of the next segments.
fn ordered(mut selected: Vec<Selected>) -> Vec<Selected> {
    selected.sort_by(|one, other| one.order().cmp(&other.order()));
    selected.dedup_by(|second, first| second.path == first.path);
    let mut next: Option<(Option<PathBuf>, i64, Option<i64>)> = None;
    for file in selected.iter_mut().rev() {
        let Some(base) = file.base_offset.filter(|_| file.kind.is_of_segment()) else {
            continue;
        };
        let directory = file.path.parent().map(Path::to_path_buf);
        next = match next.take() {
            Some((other, at, behind)) if other == directory && at == base => Some((directory, base, behind)),
            Some((other, at, _)) if other == directory => Some((directory, base, Some(at))),
            _ => Some((directory, base, None)),
        };
        file.next_base_offset = next.as_ref().and_then(|(_, _, behind)| *behind);
    }
    selected
}

/// The paths that a pattern stands for; what is there under that very name is no pattern.
fn expanded(io: &dyn Io, path: &Path, complain: &mut impl FnMut(&Path, String)) -> Vec<PathBuf> {
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']));
    let Some(pattern) = pattern.filter(|_| !matches!(io.stat(path), Ok(Some(_)))) else {
        return vec![path.to_path_buf()];
    };
    let mut paths = Vec::new();
    match glob::glob(pattern) {
        Ok(matches) => {
            for found in matches {
                match found {
                    Ok(found) => paths.push(found),
                    Err(error) => complain(
                        error.path(),
                        format!("{}: {}", error.path().display(), error.error()),
                    ),
                }
            }
            if paths.is_empty() {
                complain(path, format!("{pattern}: nothing has such a name"));
            }
        }
        Err(error) => complain(path, format!("{pattern}: {error}")),
    }
    paths
}

/// The files of a partition, or those of a log directory with all partitions in it.
fn add_directory(io: &dyn Io, directory: &Path, selected: &mut Vec<Selected>) -> Result<(), IoError> {
    for entry in io.list(directory)? {
        let path: PathBuf = directory.join(&entry.name).components().collect();
        match entry.kind {
            Entry::File => selected.extend(Selected::found(path)),
            Entry::Directory if is_partition(&entry.name) => {
                for file in io.list(&path)? {
                    if file.kind == Entry::File {
                        selected.extend(Selected::found(path.join(&file.name)));
                    }
                }
            }
            Entry::Directory | Entry::Other => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use milena_engine::io::{Backend, open};

    use super::*;

    #[test]
    fn the_name_of_a_directory_tells_topic_and_partition() {
        for (name, expected) in [
            ("orders-0", Some(("orders", 0))),
            ("a-b-12", Some(("a-b", 12))),
            ("orders-3.0f1e-delete", Some(("orders", 3))),
            ("a.b-3.0f1e-future", Some(("a.b", 3))),
            ("orders", None),
            ("-1", None),
            ("orders--1", Some(("orders-", 1))),
            ("orders-1x", None),
        ] {
            let expected = expected.map(|(topic, partition)| (topic.to_owned(), partition));
            assert_eq!(partition_of(name), expected, "{name}");
        }
        assert!(
            is_partition("orders-0") && !is_partition("orders-3.0f1e-delete") && !is_partition("orders-00")
        );
    }

    #[test]
    fn directories_and_patterns_give_their_files_once_by_topic_partition_offset_and_kind() {
        let io = open(Backend::Syscall).unwrap();
        let root = std::env::temp_dir().join(format!("milena-selection-{}", std::process::id()));
        for (directory, names) in [
            ("", &["meta.properties", "milena.state"][..]),
            ("b-10", &["00000000000000000000.log"]),
            (
                "b-9",
                &[
                    "00000000000000000005.index",
                    "00000000000000000005.log",
                    "00000000000000000000.log",
                    "x.log.deleted",
                ],
            ),
            (
                "a-0",
                &[
                    "00000000000000000007.snapshot",
                    "leader-epoch-checkpoint",
                    "00000000000000000000.timeindex",
                ],
            ),
            ("c-0.0f-delete", &["00000000000000000000.log"]),
        ] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
            for name in names {
                std::fs::write(root.join(directory).join(name), "").unwrap();
            }
        }
        let ask = |paths: &[PathBuf]| {
            let mut complaints = Vec::new();
            let selected = select(&*io, paths, |_, what| complaints.push(what));
            let names: Vec<_> = selected
                .iter()
                .map(|file| {
                    let path = file.path.strip_prefix(&root).unwrap().display().to_string();
                    (path.replace("0000000000000000000", "0"), file.next_base_offset)
                })
                .collect();
            (names, complaints)
        };
        let all = [
            ("meta.properties", None),
            ("a-0/leader-epoch-checkpoint", None),
            ("a-0/00.timeindex", None),
            ("a-0/07.snapshot", None),
            ("b-9/00.log", Some(5)),
            ("b-9/05.log", None),
            ("b-9/05.index", None),
            ("b-10/00.log", None),
        ]
        .map(|(name, next)| (name.to_owned(), next));
        assert_eq!(ask(&[root.clone(), root.join("b-9")]), (all.to_vec(), vec![]));
        let logs = ask(&[root.join("b-*/*.log")]).0;
        assert_eq!(logs, [all[4].clone(), all[5].clone(), all[7].clone()]);
        let deleted = ask(&[root.join("c-0.0f-delete"), root.join("b-9/x.log.deleted")]).0;
        assert_eq!(deleted[0].0, "b-9/x.log.deleted");
        assert_eq!(deleted[1].0, "c-0.0f-delete/00.log");
        let (none, complaints) = ask(&[root.join("z*")]);
        assert!(
            none.is_empty() && complaints[0].ends_with("nothing has such a name"),
            "{complaints:?}"
        );
        std::fs::remove_dir_all(&root).unwrap();
    }
}
