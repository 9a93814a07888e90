//! `milena log-dump verify`: whether every file of partitions and log directories is what it must be, of any Kafka from 0.8
//! to 4.x.
//!
//! The examination reads each segment once, as many at a time as there are cores, and yields [`Directory`]s: facts and
//! [`Finding`]s, from which the report here and the plan of a repair are made. It changes nothing and takes no lock. Memory
//! is a few windows of 1 MiB for each core, and what is kept of producers, epochs and damage.
//!
//! The parts: `segment` (one file read once) with `index` and `transactions`, `partition` (what is derived from the
//! log against the log), `epochs`, `directory` (checkpoints, `meta.properties`, what else lies there), `finding`, `window`, `progress`.
//!
//! Exit codes: 0 sound, 1 wrong words, 2 something cannot be read, 3 damage.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use milena_engine::error::IoError;
use milena_engine::io::{Backend, FileKind, Io, open};
use parking_lot::Mutex;
use serde_json::json;

use crate::{Exit, complain};

mod directory;
mod epochs;
mod finding;
mod index;
mod metadata_snapshot;
mod partition;
mod producers;
mod progress;
mod segment;
mod transactions;
mod window;

use partition::Layout;
use progress::Progress;
use segment::Task;

pub(super) use directory::{Directory, Metadata, is_partition};
pub(super) use epochs::epochs_of_leaders;
pub(super) use finding::{Finding, Kind};
pub(super) use partition::{Partition, Snapshot};
pub(super) use progress::size;
pub(super) use segment::Segment;
pub(super) use window::Window;

const EXAMPLES: &str = "\
Examples:
  milena log-dump verify /var/lib/kafka           every partition of a log directory
  milena log-dump verify /var/lib/kafka/orders-3  one partition
  milena log-dump verify --deep orders-*          decompress and check every record too
  find /backups -name meta.properties -printf '%h\\n' | xargs milena log-dump verify
                                                  every log directory below another
  milena log-dump verify --json /var/lib/kafka | jq 'select(.severity == \"damage\") | .file'

Exit codes: 0 all is sound; 1 the command line is wrong; 2 something cannot be read; 3 something is damaged.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Partition directories (`orders-3`) or log directories (an entry of `log.dirs`).
    #[arg(value_name = "dir", required = true)]
    directories: Vec<PathBuf>,
    /// Decompress every batch and check every record; without it, headers and checksums.
    #[arg(long)]
    deep: bool,
    /// One JSON object a line in place of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &VerifyArgs) -> Exit {
    let io = match open(Backend::Syscall) {
        Ok(io) => io,
        Err(refused) => {
            complain(refused);
            return Exit::NoBroker;
        }
    };
    let examination = match examine(&*io, &arguments.directories, arguments.deep) {
        Ok(examination) => examination,
        Err(error) => {
            complain(error);
            return Exit::NoBroker;
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match examination
        .report(&mut out, arguments.json)
        .and_then(|()| out.flush())
    {
        // Whoever read has enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("standard output: {error}"));
            Exit::NoBroker
        }
        _ => examination.exit(),
    }
}

/// What was found in all directories.
#[derive(Debug, Default)]
pub(super) struct Examination {
    pub(super) directories: Vec<Directory>,
}

/// What the file system does not give.
fn unreadable(error: &IoError) -> Finding {
    Finding::new(
        Kind::Unreadable,
        &error.path,
        format!("{} ({})", error.source, error.operation),
        "",
        "",
    )
}

/// Why nothing was examined.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotExamine {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: found {found}, expected a partition's directory or a log directory", path.display())]
    Neither { path: PathBuf, found: &'static str },
}

/// Examines partitions and log directories.
///
/// # Errors
/// A directory is none, or cannot be listed. What of its files cannot be read is a finding.
pub(super) fn examine(io: &dyn Io, paths: &[PathBuf], deep: bool) -> Result<Examination, CannotExamine> {
    let mut directories: Vec<Directory> = Vec::new();
    let mut layouts: Vec<(usize, Layout)> = Vec::new();
    for path in paths {
        let neither = |found| CannotExamine::Neither {
            path: path.clone(),
            found,
        };
        match io.stat(path)? {
            None => return Err(neither("nothing")),
            Some(stat) if stat.kind != FileKind::Directory => return Err(neither("a file")),
            Some(_) => {}
        }
        // Without `.` and a slash at the end, so that it has a name and a parent.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let is_partition = directory::is_partition(io, &path)?;
        let log_dir = if is_partition {
            path.parent().unwrap_or(Path::new("/"))
        } else {
            &path
        };
        let at = directories
            .iter()
            .position(|known| known.path == log_dir && known.is_whole != is_partition);
        let at = match at {
            Some(at) => at,
            None => {
                directories.push(directory::look(io, log_dir, !is_partition, deep)?);
                directories.len() - 1
            }
        };
        let partitions = if is_partition {
            vec![path]
        } else {
            directories[at].partition_paths(io)?
        };
        for partition in partitions {
            match directories[at].layout(io, &partition, deep) {
                Ok(layout) => layouts.push((at, layout)),
                Err(error) => directories[at].findings.push(unreadable(&error)),
            }
        }
    }
    for (at, partition) in read_all(io, layouts) {
        directories[at].add(partition);
    }
    Ok(Examination { directories })
}

/// A partition whose segments are being read.
struct Reading {
    layout: Layout,
    /// By segment; what cannot be read is noted.
    segments: Vec<Option<Segment>>,
    unreadable: Vec<Finding>,
}

/// Reads the segments of all partitions, one on each core at a time.
fn read_all(io: &dyn Io, layouts: Vec<(usize, Layout)>) -> Vec<(usize, Partition)> {
    let mut work: Vec<(usize, usize, Task)> = Vec::new();
    let mut total_bytes = 0;
    let mut readings = Vec::new();
    let mut done: Vec<Mutex<Option<Partition>>> = Vec::new();
    for (at, (directory, layout)) in layouts.into_iter().enumerate() {
        total_bytes += layout.segments.iter().map(|(_, size)| size).sum::<u64>();
        let tasks = layout.tasks();
        let segments = vec![None; tasks.len()];
        let reading = Reading {
            layout,
            segments,
            unreadable: Vec::new(),
        };
        if tasks.is_empty() {
            done.push(Mutex::new(Some(reading.layout.finish(io, Vec::new()))));
            readings.push((directory, Mutex::new(None), AtomicUsize::new(0)));
            continue;
        }
        readings.push((
            directory,
            Mutex::new(Some(reading)),
            AtomicUsize::new(tasks.len()),
        ));
        done.push(Mutex::new(None));
        work.extend(
            tasks
                .into_iter()
                .enumerate()
                .map(|(index, task)| (at, index, task)),
        );
    }
    let progress = Progress::default();
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some((at, index, task)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (_, reading, left) = &readings[*at];
            let read = segment::examine(io, task, &progress);
            let mut slot = reading.lock();
            if let Some(reading) = slot.as_mut() {
                match read {
                    Ok(segment) => reading.segments[*index] = Some(segment),
                    Err(error) => reading.unreadable.push(unreadable(&error)),
                }
            }
            if left.fetch_sub(1, Ordering::AcqRel) == 1
                && let Some(reading) = slot.take()
            {
                *done[*at].lock() = Some(finish(io, reading));
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let shower = scope.spawn(|| progress.show(total_bytes));
        let workers: Vec<_> = (1..cores).map(|_| scope.spawn(worker)).collect();
        worker();
        for worker in workers {
            if let Err(panic) = worker.join() {
                progress.end(shower.thread());
                std::panic::resume_unwind(panic);
            }
        }
        progress.end(shower.thread());
    });
    let of = readings.iter().map(|(directory, _, _)| *directory);
    of.zip(done)
        .filter_map(|(directory, partition)| Some((directory, partition.into_inner()?)))
        .collect()
}

fn finish(io: &dyn Io, reading: Reading) -> Partition {
    let Reading {
        layout,
        segments,
        unreadable,
    } = reading;
    let mut partition = layout.finish(io, segments.into_iter().flatten().collect());
    partition.findings.extend(unreadable);
    partition
}

impl Examination {
    /// All findings, in the order of the directories and partitions.
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.directories.iter().flat_map(|directory| {
            let of_partitions = directory
                .partitions
                .iter()
                .flat_map(|partition| &partition.findings);
            directory.findings.iter().chain(of_partitions)
        })
    }

    pub(super) fn exit(&self) -> Exit {
        if self.findings().any(|finding| finding.kind == Kind::Unreadable) {
            Exit::NoBroker
        } else if self.findings().any(Finding::is_damage) {
            Exit::Failed
        } else {
            Exit::Success
        }
    }

    /// Each finding, a line or object for each partition that was asked for by name, and the sum.
    fn report(&self, out: &mut impl Write, is_json: bool) -> io::Result<()> {
        for finding in self.findings() {
            if is_json {
                writeln!(out, "{}", finding.to_json())?;
            } else {
                writeln!(out, "{finding}")?;
            }
        }
        let partitions = || {
            self.directories
                .iter()
                .flat_map(|directory| &directory.partitions)
        };
        if is_json {
            for partition in partitions() {
                let damage = partition
                    .findings
                    .iter()
                    .filter(|finding| finding.is_damage())
                    .count();
                let first = partition.segments.first().map(|segment| segment.base);
                writeln!(
                    out,
                    "{}",
                    json!({
                        "type": "partition",
                        "path": partition.path.to_string_lossy(),
                        "segments": partition.segments.len(),
                        "bytes": partition.segments.iter().map(|segment| segment.size_bytes).sum::<u64>(),
                        "batches": partition.segments.iter().map(|segment| segment.batches).sum::<u64>(),
                        "firstOffset": first,
                        "logEndOffset": first.map(|_| partition.end()),
                        "damage": damage,
                    })
                )?;
            }
        }
        let segments = || partitions().flat_map(|partition| &partition.segments);
        let (bytes, batches) = segments().fold((0, 0), |(bytes, batches), segment| {
            (bytes + segment.size_bytes, batches + segment.batches)
        });
        let damage = self.findings().filter(|finding| finding.is_damage()).count();
        let count = |kind| self.findings().filter(|finding| finding.kind == kind).count();
        let (notes, unreadable) = (count(Kind::Note), count(Kind::Unreadable));
        if is_json {
            let summary = json!({
                "type": "summary",
                "partitions": partitions().count(),
                "segments": segments().count(),
                "bytes": bytes,
                "batches": batches,
                "damage": damage,
                "notes": notes,
                "unreadable": unreadable,
            });
            return writeln!(out, "{summary}");
        }
        writeln!(
            out,
            "{} partitions, {} segments, {} in {batches} batches: {}{}{}",
            partitions().count(),
            segments().count(),
            size(bytes),
            if damage == 0 {
                "sound".to_owned()
            } else {
                format!("{damage} damaged")
            },
            if notes == 0 {
                String::new()
            } else {
                format!(", {notes} notes")
            },
            if unreadable == 0 {
                String::new()
            } else {
                format!(", {unreadable} cannot be read")
            },
        )
    }
}

#[cfg(test)]
mod tests;
