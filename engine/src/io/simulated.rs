//! [`Io`] in memory, from a seed: a disk whose power can be cut between any two operations, and which can
//! refuse, tear, lose and lie.
//!
//! It keeps two images. The *live* one is what the running process reads: the page cache. The *durable* one
//! is what survives the loss of power. Only syncs move bytes from the first to the second for certain; the
//! kernel may do so at any time for any part.
//!
//! # What may happen at a power cut ([`SimulatedDisk::power_cut`])
//! For each file whose name survives:
//! - each 512-byte sector written since the file's last sync has its synced content, or its last, or one of
//!   those in between, independently of all other sectors; a sector itself is never torn, and a synced
//!   sector never changes;
//! - the length is the synced one, or the last, or any it had in between, or between the two at a sector's
//!   boundary as the data was written back; a length that arrived before its data shows zeros;
//! - the modification time is the last or that of the last sync.
//!
//! For each creation, removal and rename not covered by a `sync_dir` of its directory: it happened, whole,
//! or it did not. A rename across two directories is durable when either is synced. Changes of the same
//! name or the same file keep their order, others do not. Syncing a file does not make its name durable.
//! The boot id is another one.
//!
//! # What may happen when the process is killed ([`SimulatedDisk::process_kill`])
//! Nothing: all writes are there, durable or not; locks are free; submitted operations that did not run
//! never do. The boot id stays.
//!
//! # Faults that a test may ask for
//! - [`Fault::Eio`], [`Fault::Enospc`], [`Fault::ShortWrite`]: the operation fails. A write may have left
//!   any beginning of its bytes; a sync may have made any of the sectors durable, and the rest is *lost*:
//!   still readable, clean for the kernel, and never written by a later sync, which succeeds (fsyncgate) -
//!   until [`SimulatedDisk::drop_caches`] or a power cut shows it.
//! - [`Fault::FailedSync`]: that, for the first sync that comes.
//! - [`Fault::LyingSync`]: a sync says `Ok` and does nothing (a volatile cache); the next honest one
//!   catches up.
//! - [`SimulatedDisk::set_capacity`]: a full disk; a write leaves what fitted.
//! - [`SimulatedDisk::fail_reads`], [`SimulatedDisk::flip_bit`]: unreadable ranges and silent damage at rest.
//! - [`SimulatedDisk::cut_power_after`]: the power goes; that operation and everything later fails.
//!
//! Not simulated: misdirected writes, sectors torn inside, other processes, permissions, symbolic links.
//!
//! # Determinism
//! The same seed and the same calls give the same bytes, in every image. With [`Completions::Manual`]
//! nothing happens on another thread: [`SimulatedDisk::run_completions`] runs what was submitted, in an
//! order that its seed chooses. Modification times are those of the clock given, or count operations.
//!
//! Operations that change something are counted ([`SimulatedDisk::op_count`]), so that a test can cut or
//! fail at every one; the removal of a tree counts one for each name, as it may be cut in between. Reads,
//! `stat`, `list` and the opening of what exists are not counted.

use std::any::Any;
use std::fmt;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    Clock, Completion, DirEntry, DirectoryLock, File, FileHandle, FileKind, FileStat, Io, OpenMode,
    Operation, Owner, Space,
};
use crate::error::IoError;
use crate::units::TimestampMs;

mod clock;
mod content;
mod queue;
mod random;
mod state;
#[cfg(test)]
mod tests;
mod tree;

pub use clock::ManualClock;

use content::Content;
use queue::{Queue, Task};
use state::{OpKind, State};
use tree::{NodeId, NodeKind};

/// What an operation is made to do. `Eio`, `Enospc` fail any operation; the others wait for the first to
/// which they can apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Any operation: input/output error.
    Eio,
    /// Any operation: no space left on device.
    Enospc,
    /// A write: some beginning was written, then an error.
    ShortWrite,
    /// A sync of a file or directory says `Ok` and makes nothing durable.
    LyingSync,
    /// A sync fails and what it should have written is lost, though later syncs succeed.
    FailedSync,
}

/// Who runs submitted operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Completions {
    /// A thread, soon: for tests that wait.
    #[default]
    Automatic,
    /// [`SimulatedDisk::run_completions`], on the thread that calls it.
    Manual,
}

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct SimulatedDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    queue: Queue,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("SimulatedDisk")
            .field("seed", &state.seed)
            .field("operations", &state.ops)
            .finish()
    }
}

impl SimulatedDisk {
    /// An empty disk with a root directory, without limit of space, completing submitted operations
    /// automatically.
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk::of(State::new(seed), Completions::default())
    }

    fn of(state: State, completions: Completions) -> SimulatedDisk {
        SimulatedDisk {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                queue: Queue::new(completions),
            }),
        }
    }

    /// Modification times come from this clock.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.shared.state.lock().clock = Some(clock);
    }

    /// Who runs what is submitted from now on.
    pub fn set_completions(&self, completions: Completions) {
        self.shared.queue.set_mode(completions);
    }

    /// With [`Completions::Manual`]: has `listener` hear of each submitted operation. It must not call this disk.
    pub fn set_listener(&self, listener: Box<dyn Fn() + Send>) {
        self.shared.queue.set_listener(listener);
    }

    /// Runs the submitted operations, those included that completions submit meanwhile, in an order chosen
    /// by `seed`. Returns how many.
    pub fn run_completions(&self, seed: u64) -> usize {
        let mut random = random::Random::new(seed);
        let mut count = 0;
        while self.run_one(&mut random) {
            count += 1;
        }
        count
    }

    /// Runs one submitted operation, chosen by `seed`; `false` if there is none.
    pub fn run_one_completion(&self, seed: u64) -> bool {
        self.run_one(&mut random::Random::new(seed))
    }

    fn run_one(&self, random: &mut random::Random) -> bool {
        match self.shared.queue.take(random) {
            Some(task) => {
                self.run(task);
                true
            }
            None => false,
        }
    }

    /// How many submitted operations wait for [`SimulatedDisk::run_completions`].
    pub fn submitted_count(&self) -> usize {
        self.shared.queue.waiting()
    }

    /// Operations so far that changed something or tried to.
    pub fn op_count(&self) -> u64 {
        self.shared.state.lock().ops
    }

    /// After `count` more operations the next one to which `fault` can apply suffers it, once. `0` means
    /// the next operation.
    pub fn fail_after(&self, count: u64, fault: Fault) {
        self.shared.state.lock().arm(count, fault, None, false);
    }

    /// From now on every operation on this file or below this directory suffers the fault.
    pub fn fail_below(&self, path: &Path, fault: Fault) {
        self.shared
            .state
            .lock()
            .arm(0, fault, Some(path.to_path_buf()), true);
    }

    /// Reads of the file at `path` (as it was opened) that touch these bytes fail with EIO from now on.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) {
        self.shared
            .state
            .lock()
            .unreadable
            .push((path.to_path_buf(), range));
    }

    /// Disarms every fault, unreadable ranges included.
    pub fn clear_faults(&self) {
        self.shared.state.lock().clear_faults();
    }

    /// After `count` more operations the power is gone: the next does not happen, and it and everything
    /// later fails. `0` means the next.
    pub fn cut_power_after(&self, count: u64) {
        let mut state = self.shared.state.lock();
        state.cut_at = Some(state.ops + count);
    }

    /// Whether a [`SimulatedDisk::cut_power_after`] has not struck yet.
    pub fn is_powered(&self) -> bool {
        self.shared.state.lock().powered
    }

    /// Space for the sum of all file sizes, in bytes; `None` for no limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.shared.state.lock().capacity_bytes = capacity_bytes;
    }

    /// Turns one bit (0 the lowest) of the file at `path`, on the medium and in memory. `false` if there is
    /// no such byte.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> bool {
        let mut state = self.shared.state.lock();
        let Some(content) = state.tree.find(path).and_then(|id| state.tree.content_mut(id)) else {
            return false;
        };
        match usize::try_from(position) {
            Ok(position) if position < content.size() => {
                content.flip(position, 1 << (bit % 8));
                true
            }
            _ => false,
        }
    }

    /// The page cache forgets every clean page. Shows what failed syncs lost; [`File::is_resident`] is
    /// `false` until read or warmed.
    pub fn drop_caches(&self) {
        let mut state = self.shared.state.lock();
        state.tree.contents_mut().for_each(Content::evict);
        state.resident.clear();
        state.all_resident = false;
    }

    /// The disk as the machine finds it after losing its power now; `seed` chooses among the permitted
    /// images. This disk stays as it is, so that several images can be taken of one moment.
    pub fn power_cut(&self, seed: u64) -> SimulatedDisk {
        let image = self.shared.state.lock().after_power_cut(seed);
        SimulatedDisk::of(image, self.shared.queue.mode())
    }

    /// The disk as the next process finds it when this one is killed now. This disk stays as it is.
    pub fn process_kill(&self) -> SimulatedDisk {
        let image = self.shared.state.lock().after_process_kill();
        SimulatedDisk::of(image, self.shared.queue.mode())
    }

    /// Whether a power cut now could not change any file or name.
    pub fn is_all_durable(&self) -> bool {
        self.shared.state.lock().is_all_durable()
    }

    /// A number that differs if a byte of either image differs. For tests of determinism.
    pub fn digest(&self) -> u64 {
        self.shared.state.lock().digest()
    }

    /// Starts to note every counted operation, for [`SimulatedDisk::trace`].
    pub fn start_trace(&self) {
        self.shared.state.lock().trace = Some(Vec::new());
    }

    /// The operations noted, each with its number, its name and its path.
    pub fn trace(&self) -> Vec<String> {
        self.shared.state.lock().trace.clone().unwrap_or_default()
    }

    fn run(&self, task: Task) {
        let outcome = match &task {
            Task {
                operation: Operation::Sync { file },
                snapshot,
                ..
            } => match snapshot {
                Some((id, snapshot)) => self.shared.state.lock().sync_file(*id, snapshot, file.path()),
                // A file of another body.
                None => file.sync(),
            },
            Task {
                operation: Operation::SyncDir { directory },
                ..
            } => self.shared.state.lock().sync_directory(directory),
            Task {
                operation:
                    Operation::Warm {
                        file,
                        position,
                        size_bytes,
                    },
                ..
            } => match self.own(file) {
                Some(own) => {
                    let mut state = self.shared.state.lock();
                    let end = position.saturating_add(*size_bytes);
                    state.check_readable(file.path(), *position..end).map(|()| {
                        state.resident.insert(own);
                    })
                }
                None => Ok(()),
            },
        };
        // Not under the lock: the completion may call this disk, and the operation may hold the last handle
        // of a file.
        let Task { operation, done, .. } = task;
        done(outcome);
        drop(operation);
    }

    /// The file's node, if it is of this disk.
    fn own(&self, file: &FileHandle) -> Option<NodeId> {
        let any: &dyn Any = file.as_ref();
        let own = any.downcast_ref::<SimulatedFile>()?;
        Arc::ptr_eq(&own.disk.shared, &self.shared).then_some(own.id)
    }
}

impl Io for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<FileHandle, IoError> {
        let id = self.shared.state.lock().open(path, mode)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            id,
            path: path.to_path_buf(),
            writable,
        }))
    }

    fn stat(&self, path: &Path) -> Result<Option<FileStat>, IoError> {
        let state = self.shared.state.lock();
        state.check_power("stat", path)?;
        Ok(state.tree.find(path).map(|id| {
            let node = state.tree.node(id);
            let (kind, size_bytes) = match &node.kind {
                NodeKind::Directory(_) => (FileKind::Directory, 4096),
                NodeKind::File(content) => (FileKind::File, content.size() as u64),
            };
            FileStat {
                kind,
                size_bytes,
                modified: node.modified,
                identity: id,
            }
        }))
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirEntry>, IoError> {
        let state = self.shared.state.lock();
        state.check_power("readdir", directory)?;
        let failed = |kind: ErrorKind| IoError::new("readdir", directory, kind.into());
        let id = state
            .tree
            .find(directory)
            .ok_or_else(|| failed(ErrorKind::NotFound))?;
        let found = state
            .tree
            .directory(id)
            .ok_or_else(|| failed(ErrorKind::NotADirectory))?;
        let entries = found.live.iter().map(|(name, child)| DirEntry {
            name: name.clone(),
            kind: match state.tree.node(*child).kind {
                NodeKind::Directory(_) => FileKind::Directory,
                NodeKind::File(_) => FileKind::File,
            },
        });
        Ok(entries.collect())
    }

    fn create_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.shared.state.lock().create_dir_all(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.shared.state.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        self.shared.state.lock().remove_file(path)
    }

    fn remove_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.shared.state.lock().remove_dir_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> Result<(), IoError> {
        self.shared.state.lock().sync_directory(directory)
    }

    fn set_modified(&self, path: &Path, modified: TimestampMs) -> Result<(), IoError> {
        let mut state = self.shared.state.lock();
        state.begin(OpKind::Attribute, "utimensat", path)?;
        match state.tree.find(path) {
            Some(id) => {
                state.tree.node_mut(id).modified = modified;
                Ok(())
            }
            None => Err(IoError::new("utimensat", path, ErrorKind::NotFound.into())),
        }
    }

    fn owner(&self, path: &Path) -> Result<Option<Owner>, IoError> {
        self.shared.state.lock().check_power("stat", path)?;
        Ok(None)
    }

    fn set_owner(&self, path: &Path, _owner: Owner) -> Result<(), IoError> {
        Err(IoError::new("chown", path, ErrorKind::Unsupported.into()))
    }

    fn space(&self, directory: &Path) -> Result<Space, IoError> {
        let state = self.shared.state.lock();
        state.check_power("statvfs", directory)?;
        if state.tree.find(directory).is_none() {
            return Err(IoError::new("statvfs", directory, ErrorKind::NotFound.into()));
        }
        let total_bytes = state.capacity_bytes.unwrap_or(1 << 40);
        Ok(Space {
            available_bytes: total_bytes.saturating_sub(state.tree.used_bytes()),
            total_bytes,
        })
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DirectoryLock>>, IoError> {
        let mut state = self.shared.state.lock();
        if let Some(id) = state.tree.find(path)
            && state.locks.contains(&id)
        {
            return Ok(None);
        }
        let id = state.open(path, OpenMode::ReadWriteCreate)?;
        state.locks.insert(id);
        drop(state);
        Ok(Some(Box::new(SimulatedLock {
            disk: self.clone(),
            id,
        })))
    }

    fn submit(&self, operation: Operation, done: Completion) {
        let snapshot = match &operation {
            Operation::Sync { file } => self.own(file).and_then(|id| {
                let state = self.shared.state.lock();
                Some((id, state.tree.content(id)?.snapshot(state.ops)))
            }),
            Operation::Warm { .. } | Operation::SyncDir { .. } => None,
        };
        self.shared.queue.push(
            self,
            Task {
                operation,
                snapshot,
                done,
            },
        );
    }

    fn unique_bytes(&self) -> [u8; 16] {
        self.shared.state.lock().unique_bytes()
    }

    fn boot_id(&self) -> Result<String, IoError> {
        let state = self.shared.state.lock();
        state.check_power("read", Path::new("/proc/sys/kernel/random/boot_id"))?;
        Ok(state.boot_id.clone())
    }

    fn describe(&self) -> String {
        format!("simulated (seed {})", self.shared.state.lock().seed)
    }
}

/// An open file of a simulated disk.
#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    id: NodeId,
    path: PathBuf,
    writable: bool,
}

impl SimulatedFile {
    fn check_writable(&self, operation: &'static str) -> Result<(), IoError> {
        if self.writable {
            Ok(())
        } else {
            // EBADF has no ErrorKind of its own.
            Err(IoError::new(
                operation,
                &self.path,
                std::io::Error::from_raw_os_error(9),
            ))
        }
    }
}

impl File for SimulatedFile {
    fn write_vectored_at(&self, position: u64, buffers: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.check_writable("pwritev")?;
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return Ok(());
        }
        self.disk
            .shared
            .state
            .lock()
            .write(self.id, position, buffers, &self.path)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.disk
            .shared
            .state
            .lock()
            .read(self.id, position, buffer, &self.path)
    }

    fn size_bytes(&self) -> Result<u64, IoError> {
        let state = self.disk.shared.state.lock();
        state.check_power("fstat", &self.path)?;
        Ok(state
            .tree
            .content(self.id)
            .map_or(0, |content| content.size() as u64))
    }

    fn set_len(&self, size_bytes: u64) -> Result<(), IoError> {
        self.check_writable("ftruncate")?;
        self.disk
            .shared
            .state
            .lock()
            .set_size(self.id, size_bytes, "ftruncate", &self.path)
    }

    /// Nothing that a crash could show depends on it.
    fn reserve(&self, _position: u64, _end: u64) {}

    fn allocate(&self, size_bytes: u64) -> Result<(), IoError> {
        self.check_writable("fallocate")?;
        self.disk
            .shared
            .state
            .lock()
            .set_size(self.id, size_bytes, "fallocate", &self.path)
    }

    fn sync(&self) -> Result<(), IoError> {
        let mut state = self.disk.shared.state.lock();
        match state
            .tree
            .content(self.id)
            .map(|content| content.snapshot(state.ops))
        {
            Some(snapshot) => state.sync_file(self.id, &snapshot, &self.path),
            None => Ok(()),
        }
    }

    fn is_resident(&self, _position: u64, _size_bytes: u64) -> bool {
        let state = self.disk.shared.state.lock();
        state.all_resident || state.resident.contains(&self.id)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.shared.state.lock().close(self.id);
    }
}

#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedDisk,
    id: NodeId,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.disk.shared.state.lock();
        state.locks.remove(&self.id);
        state.close(self.id);
    }
}

impl DirectoryLock for SimulatedLock {}
