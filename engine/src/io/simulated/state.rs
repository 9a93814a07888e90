//! The state of a simulated disk under its lock: the tree, the counters and the faults, and each operation
//! upon them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{Error, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Fault;
use super::content::{Content, Snapshot};
use super::random::Random;
use super::tree::{Directory, NodeId, NodeKind, Tree};
use crate::error::IoError;
use crate::io::{Clock, OpenMode};
use crate::units::TimestampMs;

/// Largest simulated file: what a test asks for beyond it is a mistake, not a reason to exhaust the memory.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// The first modification time when there is no clock.
const FIRST_MODIFIED_MS: i64 = 1_600_000_000_000;

const EIO: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Write,
    Size,
    Sync,
    SyncDir,
    Name,
    Attribute,
}

#[derive(Clone, Debug)]
struct Armed {
    from: u64,
    fault: Fault,
    below: Option<PathBuf>,
    stays: bool,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) seed: u64,
    pub(super) boot_id: String,
    pub(super) tree: Tree,
    /// Counted operations; also the sequence number of what they wrote.
    pub(super) ops: u64,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) unreadable: Vec<(PathBuf, Range<u64>)>,
    pub(super) locks: BTreeSet<NodeId>,
    pub(super) powered: bool,
    pub(super) cut_at: Option<u64>,
    pub(super) trace: Option<Vec<String>>,
    /// Until the caches are dropped.
    pub(super) all_resident: bool,
    /// Files read or warmed since.
    pub(super) resident: BTreeSet<NodeId>,
    armed: Vec<Armed>,
    random: Random,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            seed,
            boot_id: boot_id_of(seed),
            tree: Tree::new(),
            ops: 0,
            clock: None,
            capacity_bytes: None,
            unreadable: Vec::new(),
            locks: BTreeSet::new(),
            powered: true,
            cut_at: None,
            trace: None,
            all_resident: true,
            resident: BTreeSet::new(),
            armed: Vec::new(),
            random: Random::new(seed),
        }
    }

    pub(super) fn arm(&mut self, count: u64, fault: Fault, below: Option<PathBuf>, stays: bool) {
        self.armed.push(Armed {
            from: self.ops + count,
            fault,
            below,
            stays,
        });
    }

    pub(super) fn clear_faults(&mut self) {
        self.armed.clear();
        self.unreadable.clear();
    }

    pub(super) fn check_power(&self, operation: &'static str, path: &Path) -> Result<(), IoError> {
        if self.powered {
            Ok(())
        } else {
            Err(IoError::new(
                operation,
                path,
                Error::other("the power of the simulated disk is cut"),
            ))
        }
    }

    /// Counts an operation and fails it if it must; what can also be done halfway is told to the caller
    /// instead.
    fn start(
        &mut self,
        kind: OpKind,
        operation: &'static str,
        path: &Path,
    ) -> Result<Option<Fault>, IoError> {
        if self.cut_at.is_some_and(|at| self.ops >= at) {
            self.powered = false;
        }
        self.check_power(operation, path)?;
        let number = self.ops;
        self.ops += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{number} {operation} {}", path.display()));
        }
        let found = self.armed.iter().position(|armed| {
            armed.from <= number
                && armed.below.as_ref().is_none_or(|below| path.starts_with(below))
                && applies(armed.fault, kind)
        });
        let Some(index) = found else { return Ok(None) };
        let fault = self.armed[index].fault;
        if !self.armed[index].stays {
            self.armed.remove(index);
        }
        Ok(Some(fault))
    }

    /// As `start`, for operations that happen whole or not at all.
    pub(super) fn begin(
        &mut self,
        kind: OpKind,
        operation: &'static str,
        path: &Path,
    ) -> Result<(), IoError> {
        match self.start(kind, operation, path)? {
            None => Ok(()),
            Some(fault) => Err(IoError::new(operation, path, error_of(fault))),
        }
    }

    fn now(&self) -> TimestampMs {
        match &self.clock {
            Some(clock) => clock.wall(),
            None => TimestampMs(FIRST_MODIFIED_MS + i64::try_from(self.ops).unwrap_or(0)),
        }
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> Result<NodeId, IoError> {
        self.check_power("open", path)?;
        let failed = |kind: ErrorKind| IoError::new("open", path, kind.into());
        let id = match self.tree.find(path) {
            Some(_) if mode == OpenMode::CreateNew => return Err(failed(ErrorKind::AlreadyExists)),
            Some(id) => {
                let content = self
                    .tree
                    .content(id)
                    .ok_or_else(|| failed(ErrorKind::IsADirectory))?;
                if mode == OpenMode::Truncate && content.size() > 0 {
                    self.set_size(id, 0, "open", path)?;
                }
                id
            }
            None if matches!(mode, OpenMode::Read | OpenMode::ReadWrite) => {
                return Err(failed(self.tree.why_missing(path)));
            }
            None => {
                let (parent, name) = self.tree.find_parent(path).map_err(failed)?;
                self.begin(OpKind::Name, "open", path)?;
                self.tree
                    .create(parent, &name, NodeKind::File(Content::default()), self.now())
            }
        };
        self.tree.node_mut(id).handles += 1;
        Ok(id)
    }

    pub(super) fn close(&mut self, id: NodeId) {
        let node = self.tree.node_mut(id);
        node.handles = node.handles.saturating_sub(1);
    }

    pub(super) fn write(
        &mut self,
        id: NodeId,
        position: u64,
        buffers: &[IoSlice<'_>],
        path: &Path,
    ) -> Result<(), IoError> {
        let failed = |error: Error| IoError::new("pwritev", path, error);
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let total = bytes.len() as u64;
        let end = position.checked_add(total).filter(|end| *end <= FILE_BYTES_MAX);
        let fault = self.start(OpKind::Write, "pwritev", path)?;
        let end = end.ok_or_else(|| failed(ErrorKind::FileTooLarge.into()))?;

        let size = self.tree.content(id).map_or(0, Content::size) as u64;
        let lacking = self.lacking(end.saturating_sub(size)).min(total);
        let (kept, outcome) = match fault {
            // At least one byte is missing, or it would not have been short.
            Some(fault) => (self.random.below(total), Err(failed(error_of(fault)))),
            None if lacking > 0 => (total - lacking, Err(failed(ErrorKind::StorageFull.into()))),
            None => (total, Ok(())),
        };
        let now = self.now();
        let sequence = self.ops;
        if let Some(content) = self.tree.content_mut(id) {
            // Both are within FILE_BYTES_MAX.
            content.write(sequence, position as usize, &bytes[..kept as usize]);
        }
        self.tree.node_mut(id).modified = now;
        outcome
    }

    /// How many of `growth` more bytes do not fit on the disk.
    fn lacking(&self, growth: u64) -> u64 {
        match self.capacity_bytes {
            Some(capacity) if growth > 0 => {
                growth.saturating_sub(capacity.saturating_sub(self.tree.used_bytes()))
            }
            _ => 0,
        }
    }

    pub(super) fn set_size(
        &mut self,
        id: NodeId,
        size_bytes: u64,
        operation: &'static str,
        path: &Path,
    ) -> Result<(), IoError> {
        self.begin(OpKind::Size, operation, path)?;
        if size_bytes > FILE_BYTES_MAX {
            return Err(IoError::new(operation, path, ErrorKind::FileTooLarge.into()));
        }
        let size = self.tree.content(id).map_or(0, Content::size) as u64;
        if self.lacking(size_bytes.saturating_sub(size)) > 0 {
            return Err(IoError::new(operation, path, ErrorKind::StorageFull.into()));
        }
        let now = self.now();
        let sequence = self.ops;
        if let Some(content) = self.tree.content_mut(id) {
            // Within FILE_BYTES_MAX.
            content.set_size(sequence, size_bytes as usize);
        }
        self.tree.node_mut(id).modified = now;
        Ok(())
    }

    pub(super) fn check_readable(&self, path: &Path, range: Range<u64>) -> Result<(), IoError> {
        self.check_power("pread", path)?;
        let hit = self.unreadable.iter().any(|(unreadable, bytes)| {
            unreadable == path && bytes.start < range.end && range.start < bytes.end
        });
        if hit {
            Err(IoError::new("pread", path, Error::from_raw_os_error(EIO)))
        } else {
            Ok(())
        }
    }

    pub(super) fn read(
        &mut self,
        id: NodeId,
        position: u64,
        buffer: &mut [u8],
        path: &Path,
    ) -> Result<usize, IoError> {
        self.check_readable(path, position..position.saturating_add(buffer.len() as u64))?;
        if !self.all_resident {
            self.resident.insert(id);
        }
        let live = self.tree.content(id).map_or(&[][..], Content::live);
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(live.len());
        let count = buffer.len().min(live.len() - start);
        buffer[..count].copy_from_slice(&live[start..start + count]);
        Ok(count)
    }

    pub(super) fn sync_file(&mut self, id: NodeId, snapshot: &Snapshot, path: &Path) -> Result<(), IoError> {
        let fault = self.start(OpKind::Sync, "fdatasync", path)?;
        let node = self.tree.node_mut(id);
        let NodeKind::File(content) = &mut node.kind else {
            return Ok(());
        };
        match fault {
            None => {
                content.commit(snapshot);
                node.durable_modified = node.modified;
                Ok(())
            }
            Some(Fault::LyingSync) => Ok(()),
            Some(fault) => {
                content.fail(snapshot, &mut self.random);
                Err(IoError::new("fdatasync", path, error_of(fault)))
            }
        }
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> Result<(), IoError> {
        let fault = self.start(OpKind::SyncDir, "fsync", path)?;
        let failed = |error: Error| IoError::new("fsync", path, error);
        let id = self
            .tree
            .find(path)
            .ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        if self.tree.directory(id).is_none() {
            return Err(failed(ErrorKind::NotADirectory.into()));
        }
        match fault {
            None => {
                self.tree.sync_directory(id);
                Ok(())
            }
            Some(Fault::LyingSync) => Ok(()),
            Some(fault) => {
                if self.random.coin() {
                    self.tree.sync_directory(id);
                }
                Err(failed(error_of(fault)))
            }
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> Result<(), IoError> {
        self.check_power("mkdir", path)?;
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            match self.tree.find(ancestor) {
                Some(id) if self.tree.directory(id).is_some() => {}
                Some(_) => return Err(IoError::new("mkdir", path, ErrorKind::AlreadyExists.into())),
                None => {
                    self.begin(OpKind::Name, "mkdir", ancestor)?;
                    let (parent, name) = self
                        .tree
                        .find_parent(ancestor)
                        .map_err(|kind| IoError::new("mkdir", path, kind.into()))?;
                    let kind = NodeKind::Directory(Directory::default());
                    self.tree.create(parent, &name, kind, self.now());
                }
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.begin(OpKind::Name, "rename", from)?;
        let failed = |kind: ErrorKind| IoError::new("rename", from, kind.into());
        let id = self
            .tree
            .find(from)
            .ok_or_else(|| failed(self.tree.why_missing(from)))?;
        let from_slot = self.tree.find_parent(from).map_err(failed)?;
        let to_slot = self.tree.find_parent(to).map_err(failed)?;
        let is_directory = self.tree.directory(id).is_some();
        if is_directory && to.starts_with(from) && to != from {
            return Err(failed(ErrorKind::InvalidInput));
        }
        match self.tree.find(to) {
            Some(present) if present == id => return Ok(()),
            Some(present) => match (is_directory, self.tree.directory(present)) {
                (false, None) => {}
                (true, Some(directory)) if directory.live.is_empty() => {}
                (true, Some(_)) => return Err(failed(ErrorKind::DirectoryNotEmpty)),
                (true, None) => return Err(failed(ErrorKind::NotADirectory)),
                (false, Some(_)) => return Err(failed(ErrorKind::IsADirectory)),
            },
            None => {}
        }
        self.tree.rename(id, from_slot, to_slot);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<(), IoError> {
        self.check_power("unlink", path)?;
        let Some(id) = self.tree.find(path) else {
            return Ok(());
        };
        if self.tree.directory(id).is_some() {
            return Err(IoError::new("unlink", path, ErrorKind::IsADirectory.into()));
        }
        self.remove(path, "unlink")
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> Result<(), IoError> {
        self.check_power("rmdir", path)?;
        let Some(id) = self.tree.find(path) else {
            return Ok(());
        };
        let Some(directory) = self.tree.directory(id) else {
            return Err(IoError::new("rmdir", path, ErrorKind::NotADirectory.into()));
        };
        let children: Vec<(String, NodeId)> = directory
            .live
            .iter()
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, child) in children {
            if self.tree.directory(child).is_some() {
                self.remove_dir_all(&path.join(name))?;
            } else {
                self.remove(&path.join(name), "unlink")?;
            }
        }
        self.remove(path, "rmdir")
    }

    fn remove(&mut self, path: &Path, operation: &'static str) -> Result<(), IoError> {
        self.begin(OpKind::Name, operation, path)?;
        let (parent, name) = self
            .tree
            .find_parent(path)
            .map_err(|kind| IoError::new(operation, path, kind.into()))?;
        self.tree.remove(parent, &name);
        Ok(())
    }

    pub(super) fn unique_bytes(&mut self) -> [u8; 16] {
        (u128::from(self.random.next()) << 64 | u128::from(self.random.next())).to_be_bytes()
    }

    pub(super) fn after_power_cut(&self, seed: u64) -> State {
        let mut random = Random::new(seed ^ self.seed.rotate_left(32) ^ self.ops);
        let tree = self.tree.after_power_cut(&mut random);
        let next = random.next();
        State {
            boot_id: boot_id_of(next),
            tree,
            clock: self.clock.clone(),
            capacity_bytes: self.capacity_bytes,
            all_resident: false,
            random: Random::new(next),
            ..State::new(self.seed)
        }
    }

    pub(super) fn after_process_kill(&self) -> State {
        let mut image = self.clone();
        image.tree = self.tree.after_process_kill();
        image.locks.clear();
        image.powered = true;
        image.cut_at = None;
        image.clear_faults();
        image
    }

    pub(super) fn is_all_durable(&self) -> bool {
        self.tree.is_all_durable()
    }

    pub(super) fn digest(&self) -> u64 {
        let mut text = String::new();
        let mut crc = 0;
        for (path, id) in self.tree.walk() {
            let node = self.tree.node(id);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{path} {}", node.modified);
            if let NodeKind::File(content) = &node.kind {
                crc = crc32c::crc32c_append(crc, content.live());
                crc = crc32c::crc32c_append(crc, content.durable());
                let _ = writeln!(text, "{} {}", content.live().len(), content.durable().len());
            }
        }
        u64::from(crc) << 32 | u64::from(crc32c::crc32c(text.as_bytes()))
    }
}

fn applies(fault: Fault, kind: OpKind) -> bool {
    match fault {
        Fault::Eio | Fault::Enospc => true,
        Fault::ShortWrite => kind == OpKind::Write,
        Fault::LyingSync | Fault::FailedSync => matches!(kind, OpKind::Sync | OpKind::SyncDir),
    }
}

fn error_of(fault: Fault) -> Error {
    match fault {
        Fault::Eio | Fault::FailedSync | Fault::LyingSync => Error::from_raw_os_error(EIO),
        Fault::Enospc => ErrorKind::StorageFull.into(),
        Fault::ShortWrite => ErrorKind::WriteZero.into(),
    }
}

/// In the form in which Linux gives it.
fn boot_id_of(seed: u64) -> String {
    let mut random = Random::new(seed);
    let (high, low) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}
