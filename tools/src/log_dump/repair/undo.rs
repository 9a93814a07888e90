//! The undo directory: every byte that a repair takes away or writes over, and how to put it back.
//!
//! ```text
//! manifest   a line of JSON for each change, in the order in which they were made; the first names the log directory
//! bytes      what was written over or cut, one piece after another; lines of the manifest name the pieces
//! files/N    segments that were taken away as a whole
//! done       is there once all changes were made
//! begun      is there once putting back has begun
//! ```
//!
//! A file that is replaced keeps its owner and mode, so that the broker can open what root has repaired, and a log keeps
//! its time, from which the age of records without timestamps is told. Putting back restores all of them.
//!
//! A change is made only when its piece and then its line are on the medium. Putting back goes through the lines from the
//! last to the first; each is made good whether its change had been made, half made or not. A line that is not whole is
//! the last, and its change was not made. Both ways may be interrupted at any point and run again.

use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};

use milena_engine::checkpoint;
use milena_engine::error::IoError;
use milena_engine::io::{FileHandle, Io, OpenMode, Owner};
use milena_engine::units::TimestampMs;
use serde_json::{Value, json};

use super::ownership;
use crate::log_dump::report::Read;

const MANIFEST: &str = "manifest";
const BYTES: &str = "bytes";
const FILES: &str = "files";
const DONE: &str = "done";
const BEGUN: &str = "begun";
/// A copy is made in pieces of so many bytes.
const COPY_SIZE_BYTES: usize = 1 << 20;
/// Behind the name of a file that is being written; brokers ignore it.
const TEMPORARY: &str = ".milena-repair";

/// How a file is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// It ended at `size` and ends at `to`; the piece is what lay between.
    Cut { to: u64, size: u64, saved: Range<u64> },
    /// It held the piece, or was not there; now it has the size `after`.
    Replace {
        size: u64,
        after: u64,
        saved: Option<Range<u64>>,
    },
    /// It was moved here, as a whole.
    Move { size: u64, number: u64 },
}

/// What a file was besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    owner: Option<Owner>,
    modified: TimestampMs,
}

impl Attributes {
    /// `None` if there is no file.
    fn of(io: &dyn Io, path: &Path) -> Read<Option<Attributes>> {
        let Some(stat) = io.stat(path)? else {
            return Ok(None);
        };
        Ok(Some(Attributes {
            owner: io.owner(path)?,
            modified: stat.modified,
        }))
    }

    fn set(&self, io: &dyn Io, path: &Path) -> Read<()> {
        if let Some(owner) = self.owner {
            io.set_owner(path, owner)?;
        }
        io.set_modified(path, self.modified)
    }
}

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    change: Change,
    /// Before the change, if it was there.
    was: Option<Attributes>,
}

impl Entry {
    fn to_json(&self) -> Value {
        let path = self.path.to_string_lossy();
        let mut line = match &self.change {
            Change::Cut { to, size, saved } => {
                json!({"change": "cut", "path": path, "to": to, "size": size, "from": saved.start, "until": saved.end})
            }
            Change::Replace { size, after, saved } => json!({
                "change": "replace", "path": path, "size": size, "after": after,
                "from": saved.as_ref().map(|saved| saved.start), "until": saved.as_ref().map(|saved| saved.end),
            }),
            Change::Move { size, number } => {
                json!({"change": "move", "path": path, "size": size, "number": number})
            }
        };
        if let Some(was) = self.was {
            line["modified"] = was.modified.get().into();
            if let Some(Owner { user, group, mode }) = was.owner {
                line["owner"] = json!([user, group, mode]);
            }
        }
        line
    }

    fn from_json(value: &Value) -> Option<Entry> {
        let number = |name: &str| value.get(name)?.as_u64();
        let range = || Some(number("from")?..number("until")?);
        let size = number("size")?;
        let owner = || {
            let [user, group, mode] = value.get("owner")?.as_array()?.as_slice() else {
                return None;
            };
            let number = |of: &Value| of.as_u64().and_then(|number| u32::try_from(number).ok());
            Some(Owner {
                user: number(user)?,
                group: number(group)?,
                mode: number(mode)?,
            })
        };
        let modified = value.get("modified").and_then(Value::as_i64);
        let was = modified.map(|modified| Attributes {
            owner: owner(),
            modified: TimestampMs(modified),
        });
        let change = match value.get("change")?.as_str()? {
            "cut" => Change::Cut {
                to: number("to")?,
                size,
                saved: range()?,
            },
            "replace" => Change::Replace {
                size,
                after: number("after")?,
                saved: range(),
            },
            "move" => Change::Move {
                size,
                number: number("number")?,
            },
            _ => return None,
        };
        Some(Entry {
            path: PathBuf::from(value.get("path")?.as_str()?),
            change,
            was,
        })
    }
}

/// An undo directory that is being filled.
#[derive(Debug)]
pub(super) struct Undo<'i> {
    io: &'i dyn Io,
    path: PathBuf,
    manifest: FileHandle,
    manifest_end: u64,
    bytes: FileHandle,
    bytes_end: u64,
    moved: u64,
}

/// What a file holds afterwards.
#[derive(Debug)]
pub(super) enum Content<'c> {
    Bytes(&'c [u8]),
    /// These ranges of what it holds now.
    Ranges(&'c [Range<u64>]),
}

impl Content<'_> {
    fn size_bytes(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Ranges(ranges) => ranges.iter().map(|range| range.end - range.start).sum(),
        }
    }
}

/// A change that is asked for.
#[derive(Debug)]
pub(super) enum Wanted<'c> {
    Cut {
        path: PathBuf,
        to: u64,
    },
    Replace {
        path: PathBuf,
        content: Content<'c>,
    },
    Remove {
        path: PathBuf,
    },
    /// As `Remove`, without a copy.
    Move {
        path: PathBuf,
    },
}

impl Wanted<'_> {
    fn path(&self) -> &Path {
        match self {
            Wanted::Cut { path, .. }
            | Wanted::Replace { path, .. }
            | Wanted::Remove { path }
            | Wanted::Move { path } => path,
        }
    }
}

impl Undo<'_> {
    /// Begins one at `path`, where nothing is yet, for the files of `log_dir`.
    pub(super) fn create<'i>(io: &'i dyn Io, path: &Path, log_dir: &Path) -> Read<Undo<'i>> {
        // Who may read the log may read what is kept of it, and nobody else.
        io.create_dir_all(path)?;
        ownership::as_directory(io, path, log_dir)?;
        io.create_dir_all(&path.join(FILES))?;
        ownership::as_directory(io, &path.join(FILES), log_dir)?;
        let created = |name: &str| {
            let file = io.open(&path.join(name), OpenMode::CreateNew)?;
            ownership::as_file(io, file.path(), log_dir)?;
            Ok(file)
        };
        let manifest = created(MANIFEST)?;
        let bytes = created(BYTES)?;
        let mut undo = Undo {
            io,
            path: path.to_owned(),
            manifest,
            manifest_end: 0,
            bytes,
            bytes_end: 0,
            moved: 0,
        };
        undo.write_lines(&format!(
            "{}\n",
            json!({"milenaUndo": 1, "logDir": log_dir.to_string_lossy()})
        ))?;
        for directory in [Some(path), path.parent()].into_iter().flatten() {
            io.sync_dir(directory)?;
        }
        Ok(undo)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All changes are made.
    pub(super) fn finish(&self) -> Read<()> {
        note(self.io, &self.path, DONE)
    }

    fn write_lines(&mut self, lines: &str) -> Read<()> {
        self.manifest
            .write_vectored_at(self.manifest_end, &[IoSlice::new(lines.as_bytes())])?;
        self.manifest_end += lines.len() as u64;
        self.manifest.sync()
    }

    /// Appends a range of a file to the bytes that are kept.
    fn save(&mut self, file: &FileHandle, range: Range<u64>) -> Read<Range<u64>> {
        let from = self.bytes_end;
        self.bytes_end += copy(file, range, &self.bytes, from)?;
        Ok(from..self.bytes_end)
    }

    /// Appends a file, if it is there.
    fn save_whole(&mut self, path: &Path) -> Read<(u64, Option<Range<u64>>)> {
        if self.io.stat(path)?.is_none() {
            return Ok((0, None));
        }
        let file = self.io.open(path, OpenMode::Read)?;
        let size = file.size_bytes()?;
        Ok((size, Some(self.save(&file, 0..size)?)))
    }

    /// Makes changes, in order: first all that they take away is kept, durably.
    ///
    /// # Errors
    /// A read or write failed. What was changed so far can be put back.
    pub(super) fn make(&mut self, wanted: &[Wanted<'_>]) -> Read<()> {
        let mut entries = Vec::new();
        for change in wanted {
            let path = change.path();
            ownership::check(self.io, path)?;
            let was = Attributes::of(self.io, path)?;
            let change = match change {
                Wanted::Cut { to, .. } => {
                    let file = self.io.open(path, OpenMode::Read)?;
                    let size = file.size_bytes()?;
                    let saved = self.save(&file, (*to).min(size)..size)?;
                    Change::Cut { to: *to, size, saved }
                }
                Wanted::Replace { content, .. } => {
                    let (size, saved) = self.save_whole(path)?;
                    let after = content.size_bytes();
                    Change::Replace { size, after, saved }
                }
                Wanted::Remove { .. } => match self.save_whole(path)? {
                    (_, None) => continue,
                    (size, saved) => Change::Replace {
                        size,
                        after: 0,
                        saved,
                    },
                },
                Wanted::Move { .. } => {
                    let size = self.io.stat(path)?.map_or(0, |stat| stat.size_bytes);
                    let number = self.moved;
                    self.moved += 1;
                    Change::Move { size, number }
                }
            };
            entries.push(Entry {
                path: path.to_owned(),
                change,
                was,
            });
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.bytes.sync()?;
        let lines: String = entries
            .iter()
            .map(|entry| format!("{}\n", entry.to_json()))
            .collect();
        self.write_lines(&lines)?;
        let mut moves = entries.iter().filter_map(|entry| match entry.change {
            Change::Move { number, .. } => Some(number),
            _ => None,
        });
        for change in wanted {
            match change {
                Wanted::Cut { path, to } => {
                    let was = Attributes::of(self.io, path)?;
                    let file = self.io.open(path, OpenMode::ReadWrite)?;
                    file.set_len(*to)?;
                    if let Some(was) = was {
                        self.io.set_modified(path, was.modified)?;
                    }
                    file.sync()?;
                }
                Wanted::Replace { path, content } => write_over(self.io, path, content)?,
                Wanted::Remove { path } => {
                    self.io.remove_file(path)?;
                    sync_parent(self.io, path)?;
                }
                Wanted::Move { path } => {
                    let number = moves.next().unwrap_or_default();
                    move_file(self.io, path, &self.path.join(FILES).join(number.to_string()))?;
                }
            }
        }
        Ok(())
    }
}

/// Makes an empty file in an undo directory, durably.
fn note(io: &dyn Io, undo: &Path, name: &str) -> Read<()> {
    let file = io.open(&undo.join(name), OpenMode::ReadWriteCreate)?;
    ownership::as_file(io, file.path(), undo)?;
    io.sync_dir(undo)
}

/// Copies a range; returns its size.
fn copy(from: &FileHandle, range: Range<u64>, to: &FileHandle, at: u64) -> Read<u64> {
    let mut buffer = vec![0; COPY_SIZE_BYTES];
    let mut done = 0;
    while range.start + done < range.end {
        let left = usize::try_from(range.end - range.start - done).unwrap_or(usize::MAX);
        let read = from.read_at(range.start + done, &mut buffer[..left.min(COPY_SIZE_BYTES)])?;
        if read == 0 {
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(IoError::new("pread", from.path(), error));
        }
        to.write_vectored_at(at + done, &[IoSlice::new(&buffer[..read])])?;
        done += read as u64;
    }
    Ok(done)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

fn sync_parent(io: &dyn Io, path: &Path) -> Read<()> {
    path.parent().map_or(Ok(()), |parent| io.sync_dir(parent))
}

/// Whether a file is a log, of which a broker keeps every byte, and looks at its time.
fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Replaces a file by one that holds something else, atomically and durably.
fn write_over(io: &dyn Io, path: &Path, content: &Content<'_>) -> Read<()> {
    let temporary = temporary(path);
    let was = Attributes::of(io, path)?;
    let written = (|| {
        let file = io.open(&temporary, OpenMode::Truncate)?;
        match content {
            Content::Bytes([]) => {}
            Content::Bytes(bytes) => file.write_vectored_at(0, &[IoSlice::new(bytes)])?,
            Content::Ranges(ranges) => {
                let present = io.open(path, OpenMode::Read)?;
                let mut at = 0;
                for range in *ranges {
                    at += copy(&present, range.clone(), &file, at)?;
                }
            }
        }
        match was {
            Some(was) if is_log(path) => was.set(io, &temporary)?,
            Some(Attributes {
                owner: Some(owner), ..
            }) => io.set_owner(&temporary, owner)?,
            Some(_) => {}
            None => ownership::as_file(io, &temporary, path.parent().unwrap_or(path))?,
        }
        file.sync()?;
        io.rename(&temporary, path)
    })();
    if written.is_err() {
        // Of no use to anyone; that it cannot be removed either says nothing new.
        let _ = io.remove_file(&temporary);
    }
    written?;
    sync_parent(io, path)
}

/// Moves a file, to another file system by copying.
fn move_file(io: &dyn Io, from: &Path, to: &Path) -> Read<()> {
    match io.rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let source = io.open(from, OpenMode::Read)?;
            let size = source.size_bytes()?;
            let temporary = temporary(to);
            let copied = (|| {
                let target = io.open(&temporary, OpenMode::Truncate)?;
                copy(&source, 0..size, &target, 0)?;
                target.sync()?;
                io.rename(&temporary, to)
            })();
            if copied.is_err() {
                let _ = io.remove_file(&temporary);
            }
            copied?;
            sync_parent(io, to)?;
            io.remove_file(from)?;
        }
        other => other?,
    }
    sync_parent(io, to)?;
    sync_parent(io, from)
}

/// Why nothing was put back.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotUndo {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: found {found}, expected the undo directory of a repair", path.display())]
    NoUndo { path: PathBuf, found: String },
    #[error(
        "{}: found {found} bytes, expected {expected} as the repair left it: something was written since, nothing is put back",
        path.display()
    )]
    Changed {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
}

/// What was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    pub(super) changes: usize,
    /// A broker was started since; it does not find the marker of the clean shutdown that was before the repair.
    pub(super) was_started: bool,
}

/// What an undo directory tells.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    pub(super) log_dir: PathBuf,
    entries: Vec<Entry>,
}

impl Manifest {
    /// Reads the lines; the last may be missing or torn.
    pub(super) fn read(io: &dyn Io, path: &Path) -> Result<Manifest, CannotUndo> {
        let no_undo = |found: String| CannotUndo::NoUndo {
            path: path.to_owned(),
            found,
        };
        let file = path.join(MANIFEST);
        if io.stat(&file)?.is_none() {
            return Err(no_undo("no manifest".to_owned()));
        }
        let handle = io.open(&file, OpenMode::Read)?;
        let size = usize::try_from(handle.size_bytes()?).unwrap_or(usize::MAX);
        let mut content = vec![0; size];
        let read = handle.read_at(0, &mut content)?;
        content.truncate(read);
        let whole = content
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut lines = content[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let head: Option<Value> = lines.next().and_then(|line| serde_json::from_slice(line).ok());
        let log_dir = head.as_ref().and_then(|head| {
            let is_known = head.get("milenaUndo")?.as_u64()? == 1;
            head.get("logDir")?.as_str().filter(|_| is_known)
        });
        let Some(log_dir) = log_dir else {
            return Err(no_undo("a manifest without a first line".to_owned()));
        };
        let mut entries = Vec::new();
        for line in lines {
            match serde_json::from_slice(line)
                .ok()
                .as_ref()
                .and_then(Entry::from_json)
            {
                Some(entry) => entries.push(entry),
                // Torn by a loss of power: lines are synced in order, so none behind it counts either.
                None => break,
            }
        }
        Ok(Manifest {
            path: path.to_owned(),
            log_dir: PathBuf::from(log_dir),
            entries,
        })
    }

    /// The files that would be written.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|entry| entry.path.as_path())
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// `Changed` before anything is done, if a log is not as the repair left it; otherwise it may be run again.
    pub(super) fn put_back(&self, io: &dyn Io) -> Result<Undone, CannotUndo> {
        let bytes = io.open(&self.path.join(BYTES), OpenMode::Read)?;
        for entry in &self.entries {
            self.check(io, entry, &bytes)?;
        }
        let is_there = |name: &str| Ok::<_, IoError>(io.stat(&self.path.join(name))?.is_some());
        let (is_done, is_begun) = (is_there(DONE)?, is_there(BEGUN)?);
        // A repair ends with the marker of a clean shutdown, which a broker that starts takes away.
        let is_marker = |entry: &&Entry| entry.path.ends_with(checkpoint::CLEAN_SHUTDOWN_FILE);
        let marker = self.entries.last().filter(is_marker);
        let was_started = match marker {
            Some(marker) => is_done && !is_begun && io.stat(&marker.path)?.is_none(),
            None => false,
        };
        if !was_started {
            note(io, &self.path, BEGUN)?;
        }
        for entry in self.entries.iter().rev() {
            // Its logs may not have been closed: it must recover them.
            if !(was_started && is_marker(&entry)) {
                self.put_one_back(io, entry, &bytes)?;
            }
        }
        Ok(Undone {
            changes: self.entries.len(),
            was_started,
        })
    }

    /// Whether a log is what the repair made of it, or what it was before, or something between.
    fn check(&self, io: &dyn Io, entry: &Entry, bytes: &FileHandle) -> Result<(), CannotUndo> {
        ownership::check(io, &entry.path)?;
        if let Change::Cut { to, size, saved } = &entry.change {
            let file = io.open(&entry.path, OpenMode::Read)?;
            let found = file.size_bytes()?;
            let is_ours = (*to..=*size).contains(&found) && is_same(&file, *to..found, bytes, saved.start)?;
            if !is_ours {
                let path = entry.path.clone();
                return Err(CannotUndo::Changed {
                    path,
                    found,
                    expected: *to,
                });
            }
        }
        // Of other files than logs a broker keeps none as it is.
        let (before, after) = match &entry.change {
            Change::Move { size, .. } => (*size, *size),
            Change::Replace { size, after, .. } if is_log(&entry.path) => (*size, *after),
            _ => return Ok(()),
        };
        match io.stat(&entry.path)?.map(|stat| stat.size_bytes) {
            Some(found) if found != before && found != after => Err(CannotUndo::Changed {
                path: entry.path.clone(),
                found,
                expected: after,
            }),
            _ => Ok(()),
        }
    }

    fn put_one_back(&self, io: &dyn Io, entry: &Entry, bytes: &FileHandle) -> Result<(), CannotUndo> {
        let path = &entry.path;
        match &entry.change {
            Change::Cut { to, saved, .. } => {
                let file = io.open(path, OpenMode::ReadWrite)?;
                copy(bytes, saved.clone(), &file, *to)?;
                if let Some(was) = entry.was {
                    was.set(io, path)?;
                }
                file.sync()?;
            }
            Change::Replace { saved: None, .. } => {
                // An interruption may have left it.
                io.remove_file(&temporary(path))?;
                io.remove_file(path)?;
                sync_parent(io, path)?;
            }
            Change::Replace {
                saved: Some(saved), ..
            } => {
                let temporary = temporary(path);
                let file = io.open(&temporary, OpenMode::Truncate)?;
                copy(bytes, saved.clone(), &file, 0)?;
                if let Some(was) = entry.was {
                    was.set(io, &temporary)?;
                }
                file.sync()?;
                io.rename(&temporary, path)?;
                sync_parent(io, path)?;
            }
            Change::Move { number, .. } => {
                let moved = self.path.join(FILES).join(number.to_string());
                if io.stat(&moved)?.is_some() {
                    // To another file system it goes as a copy.
                    move_file(io, &moved, path)?;
                }
                if let Some(was) = entry.was {
                    was.set(io, path)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a range of one file is what the other holds from a position on, or zeros: a lost power may bring back the
/// length of a file that was cut without all of its bytes.
fn is_same(file: &FileHandle, range: Range<u64>, other: &FileHandle, mut at: u64) -> Read<bool> {
    let (mut left, mut right) = (vec![0; COPY_SIZE_BYTES], vec![0; COPY_SIZE_BYTES]);
    let mut position = range.start;
    while position < range.end {
        let size = usize::try_from(range.end - position)
            .unwrap_or(usize::MAX)
            .min(COPY_SIZE_BYTES);
        let (read, also) = (
            file.read_at(position, &mut left[..size])?,
            other.read_at(at, &mut right[..size])?,
        );
        let is_ours = left[..read]
            .iter()
            .zip(&right[..also])
            .all(|(found, saved)| found == saved || *found == 0);
        if read == 0 || read != also || !is_ours {
            return Ok(false);
        }
        (position, at) = (position + read as u64, at + read as u64);
    }
    Ok(true)
}
