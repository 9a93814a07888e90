//! The files of a log directory as bytes: whether every index entry names a batch that is there, and whether two
//! states of a directory are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use milena_engine::io::simulated::SimulatedDisk;
use milena_engine::io::{FileKind, Io, OpenMode};
use milena_engine::record_batch::{Batch, BatchHeader};
use milena_engine::units::TopicPartition;

use super::Violation;

/// Each with its content.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files below a directory with their content, in order.
pub(crate) fn files_below(disk: &SimulatedDisk, directory: &Path) -> Files {
    let mut files = Files::new();
    for entry in disk.list(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if entry.kind == FileKind::Directory {
            files.extend(files_below(disk, &path));
        } else {
            let file = disk.open(&path, OpenMode::Read).expect("it is listed");
            let mut bytes = vec![0; file.size_bytes().expect("a healthy disk") as usize];
            file.read_at(0, &mut bytes).expect("a healthy disk");
            files.insert(path, bytes);
        }
    }
    files
}

/// The batches of a segment file: position, header.
fn headers(content: &[u8]) -> Vec<(usize, BatchHeader)> {
    let mut position = 0;
    let mut found = Vec::new();
    while let Ok(batch) = Batch::parse(&content[position..]) {
        found.push((position, *batch.header()));
        position += batch.size_bytes();
    }
    found
}

/// Every entry of every index names a batch that is there.
pub(crate) fn indexes(
    disk: &SimulatedDisk,
    directories: &[&str],
    out_of_service: &BTreeSet<TopicPartition>,
) -> Result<(), Violation> {
    for directory in directories {
        let files = files_below(disk, Path::new(directory));
        for (path, content) in &files {
            let is_untouched = out_of_service
                .iter()
                .any(|partition| path.iter().any(|part| *part == *partition.to_string()));
            let is_deleted = path
                .iter()
                .any(|part| part.to_string_lossy().ends_with("-delete"));
            if is_deleted || is_untouched || path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let headers = headers(content);
            let base: i64 = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok())
                .expect("segments are named by their offset");
            let wrong = |kind: &str, entry: &dyn std::fmt::Debug| {
                format!(
                    "{}.{kind} has an entry {entry:?} of no batch",
                    path.with_extension("").display()
                )
            };
            let offsets = files.get(&path.with_extension("index"));
            let mut before = None;
            for entry in offsets.map_or(&[][..], Vec::as_slice).chunks(8) {
                let (offset, position) = (relative(entry), relative(&entry[4.min(entry.len())..]));
                let (Some(offset), Some(position)) = (offset, position) else {
                    return Err(wrong("index", &entry));
                };
                let batch = headers.iter().find(|(at, _)| *at as i64 == position);
                if batch.is_none_or(|(_, header)| header.last_offset.get() != base + offset)
                    || before.is_some_and(|before| before >= offset)
                {
                    return Err(wrong("index", &(base + offset, position)));
                }
                before = Some(offset);
            }
            let times = files.get(&path.with_extension("timeindex"));
            for entry in times.map_or(&[][..], Vec::as_slice).chunks(12) {
                let timestamp = entry.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
                let (Some(timestamp), Some(offset)) = (timestamp, relative(&entry[8.min(entry.len())..]))
                else {
                    return Err(wrong("timeindex", &entry));
                };
                let of = headers.iter().find(|(_, header)| {
                    header.base_offset.get() <= base + offset && base + offset <= header.last_offset.get()
                });
                let largest = headers
                    .iter()
                    .filter(|(_, header)| header.base_offset.get() <= base + offset)
                    .map(|(_, header)| header.max_timestamp.get())
                    .max();
                if of.is_none_or(|(_, header)| header.max_timestamp.get() != timestamp)
                    || largest != Some(timestamp)
                {
                    return Err(wrong("timeindex", &(timestamp, base + offset)));
                }
            }
        }
    }
    Ok(())
}

fn relative(bytes: &[u8]) -> Option<i64> {
    bytes
        .first_chunk()
        .map(|bytes| i64::from(u32::from_be_bytes(*bytes)))
}

/// What of the files a recovery settles.
pub(super) fn snapshot(disk: &SimulatedDisk, directories: &[&str]) -> Files {
    directories
        .iter()
        .flat_map(|directory| files_below(disk, Path::new(directory)))
        // An index without entries may be missing, and preallocated space may be trimmed.
        .map(|(path, mut content)| {
            let size = content
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            content.truncate(size);
            (path, content)
        })
        .filter(|(path, content)| {
            // Two files may hold more than can be built from the log: producers without a batch in it, and the
            // entry that a clean stop adds to the time index. A power cut may take either.
            let holds_more = path
                .extension()
                .is_some_and(|of| of == "snapshot" || of == "timeindex");
            !content.is_empty() && !holds_more
        })
        .collect()
}

/// A file that only one of them has, or that differs.
pub(super) fn difference(before: &Files, after: &Files) -> Option<PathBuf> {
    let of = |files: &Files, other: &Files| {
        files
            .iter()
            .find(|(path, content)| other.get(*path) != Some(content))
            .map(|(path, _)| path.clone())
    };
    of(before, after).or_else(|| of(after, before))
}
