//! The only doors to the outside: [`Io`] to the disk, [`Clock`] to the time.
//!
//! Every byte that the engine (and redb under the embedded coordination tree) reads or writes passes
//! through `Io`, so that a seeded simulated disk can tear, lose and refuse any of it. Appends, reads and
//! directory changes are calls. Syncs and cold reads are submitted and complete later, in any order, on a
//! thread that is not the caller's.
//!
//! What each operation makes durable:
//! - `write_vectored_at`, `set_len`: nothing until a sync of that file completed.
//! - `sync` / [`Operation::Sync`]: all bytes and the length that the file had when it was called.
//! - `create` by `open`, `rename`, `remove_*`, `create_dir`: nothing until `sync_dir` of the parent
//!   directory.
//!
//! A failed write or sync is final for its directory: the caller takes it offline and never retries. No
//! body retries either.

use std::any::Any;
use std::fmt;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::IoError;
use crate::units::TimestampMs;

#[cfg(test)]
pub(crate) mod conformance;
pub mod simulated;
pub(crate) mod syscall;
#[cfg(target_os = "linux")]
mod uring;

/// Which body of [`Io`] the operator asks for (`milena.io.backend`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// The ring if the kernel lets us have one, otherwise system calls.
    #[default]
    Auto,
    /// The ring, or no start.
    Uring,
    /// System calls.
    Syscall,
}

impl Backend {
    /// From the value of `milena.io.backend`: `auto`, `uring` or `syscall`.
    pub fn from_name(name: &str) -> Option<Backend> {
        match name {
            "auto" => Some(Backend::Auto),
            "uring" => Some(Backend::Uring),
            "syscall" => Some(Backend::Syscall),
            _ => None,
        }
    }

    /// As [`Backend::from_name`] takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Uring => "uring",
            Backend::Syscall => "syscall",
        }
    }
}

/// `milena.io.backend=uring` was demanded and the kernel refuses it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "milena.io.backend=uring cannot be had here ({reason}); set it to auto or syscall, or allow io_uring"
)]
pub struct BackendRefused {
    /// The step of the probe that failed, with the system's answer.
    pub reason: String,
}

/// Opens the disk of this machine, once per process. Probes the ring (well below a millisecond) unless
/// system calls are asked for.
///
/// # Errors
/// Only for [`Backend::Uring`], when the ring is refused; [`Backend::Auto`] falls back, and
/// [`Io::describe`] tells why.
pub fn open(backend: Backend) -> Result<Arc<dyn Io>, BackendRefused> {
    match backend {
        Backend::Syscall => Ok(Arc::new(syscall::SyscallIo::new("milena.io.backend=syscall"))),
        Backend::Auto => match open_ring() {
            Ok(io) => Ok(io),
            Err(reason) => Ok(Arc::new(syscall::SyscallIo::new(&reason))),
        },
        Backend::Uring => open_ring().map_err(|reason| BackendRefused { reason }),
    }
}

#[cfg(target_os = "linux")]
fn open_ring() -> Result<Arc<dyn Io>, String> {
    Ok(Arc::new(uring::UringIo::probe()?))
}

#[cfg(not(target_os = "linux"))]
fn open_ring() -> Result<Arc<dyn Io>, String> {
    Err("io_uring: only on Linux".to_owned())
}

/// How `Io::open` treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    ReadWrite,
    /// Reads and writes; created empty if missing, otherwise left as it is.
    ReadWriteCreate,
    /// Reads and writes; must not exist yet.
    CreateNew,
    /// Reads and writes; created if missing, emptied if present.
    Truncate,
}

/// What a directory entry is, symbolic links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    /// A device, a socket, a link to nowhere.
    Other,
}

/// What the file system says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    pub kind: FileKind,
    pub size_bytes: u64,
    /// When the content changed last.
    pub modified: TimestampMs,
    /// Which file it is: another one under the same name has another number, as long as the first is open.
    pub identity: u64,
}

/// Who a file belongs to, and who may do what with it (the permission bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
    pub mode: u32,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The last component only. Names that are not UTF-8 are given lossily: Kafka writes ASCII names alone.
    pub name: String,
    pub kind: FileKind,
}

/// Free and whole size of the file system under a directory, in bytes, as an unprivileged writer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub available_bytes: u64,
    pub total_bytes: u64,
}

/// A submitted operation.
#[derive(Debug)]
pub enum Operation {
    /// Make all bytes written to the file before submission durable (fdatasync).
    Sync { file: FileHandle },
    /// Bring a range into the page cache, so that a later read or `sendfile` does not block.
    Warm {
        file: FileHandle,
        position: u64,
        size_bytes: u64,
    },
    /// Make the entries of a directory durable.
    SyncDir { directory: PathBuf },
}

/// Called exactly once, on a thread of the `Io` body; it must not block and must not panic.
pub type Completion = Box<dyn FnOnce(Result<(), IoError>) + Send + 'static>;

/// An open file. Clones of the handle share it; it closes with the last one.
pub type FileHandle = Arc<dyn File>;

/// An open file: positional reads and writes, no cursor.
pub trait File: Any + Send + Sync + fmt::Debug {
    /// Writes all buffers, in order, from `position` on, extending the file if need be.
    ///
    /// # Errors
    /// Any error, a short write included, leaves the written range undefined: the caller must treat it as
    /// failed for good.
    fn write_vectored_at(&self, position: u64, buffers: &[IoSlice<'_>]) -> Result<(), IoError>;

    /// Fills `buffer` from `position`; returns how many bytes were read, fewer than asked only at the end
    /// of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError>;

    /// Present size in bytes.
    fn size_bytes(&self) -> Result<u64, IoError>;

    /// Cuts or extends (with zeros) the file. Not durable before a sync.
    fn set_len(&self, size_bytes: u64) -> Result<(), IoError>;

    /// Reserves space for so many bytes and sets the length (`log.preallocate`). Not durable before a sync.
    fn allocate(&self, size_bytes: u64) -> Result<(), IoError>;

    /// Asks for space from `position` to `end`, behind the end of the file, for appends to come; the length stays,
    /// and [`File::set_len`] gives back what was not used. A hint: where it cannot be had nothing changes.
    fn reserve(&self, position: u64, end: u64);

    /// fdatasync, waiting for it: on `Ok` all bytes and the length are on the medium.
    fn sync(&self) -> Result<(), IoError>;

    /// Whether a read of the range would be served from memory. May err on the side of `true`.
    fn is_resident(&self, position: u64, size_bytes: u64) -> bool;

    /// The descriptor to hand to `sendfile`; `None` where there is none (simulated disk).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// The path it was opened under (a later rename is not followed); for messages.
    fn path(&self) -> &Path;
}

/// Holds the `.lock` of a log directory until dropped.
pub trait DirectoryLock: Send + Sync + fmt::Debug {}

/// The disk. Each method's errors are the system's, with the call that failed; what it makes durable is said at
/// the top of this file.
pub trait Io: Send + Sync + fmt::Debug {
    /// Opens a file. Its name, if this created it, is not durable yet.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<FileHandle, IoError>;

    /// `None` if nothing is there.
    fn stat(&self, path: &Path) -> Result<Option<FileStat>, IoError>;

    /// The entries of a directory, sorted by name.
    fn list(&self, directory: &Path) -> Result<Vec<DirEntry>, IoError>;

    /// Creates a directory and its missing parents; fine if it exists.
    fn create_dir_all(&self, directory: &Path) -> Result<(), IoError>;

    /// Atomically replaces `to` if it exists.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;

    /// Fine if the file does not exist.
    fn remove_file(&self, path: &Path) -> Result<(), IoError>;

    /// Removes a directory with all that is in it; fine if it does not exist.
    fn remove_dir_all(&self, directory: &Path) -> Result<(), IoError>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, directory: &Path) -> Result<(), IoError>;

    /// Sets the modification time (compaction and retention judge old segments by it).
    fn set_modified(&self, path: &Path, modified: TimestampMs) -> Result<(), IoError>;

    /// Whose a path is; `None` if nothing is there, or if this body knows no owners.
    fn owner(&self, path: &Path) -> Result<Option<Owner>, IoError>;

    /// Gives a path away, and sets its permission bits. What is so already is not set, for which nobody needs a right.
    fn set_owner(&self, path: &Path, owner: Owner) -> Result<(), IoError>;

    /// Of the file system under a directory.
    fn space(&self, directory: &Path) -> Result<Space, IoError>;

    /// Takes the POSIX record lock that Kafka's `FileLock` takes on `path`, creating the file; `None` if
    /// another process has it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DirectoryLock>>, IoError>;

    /// Starts an operation; `done` runs later on another thread.
    fn submit(&self, operation: Operation, done: Completion);

    /// Random bytes, for names that nothing else has.
    fn unique_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it runs a broker");
        bytes
    }

    /// Identity of the running kernel (`/proc/sys/kernel/random/boot_id`): while it stays, the page cache
    /// survived.
    fn boot_id(&self) -> Result<String, IoError>;

    /// One line for the log: the body in use and why (`uring`, or `syscall (io_uring_setup: EPERM)`).
    fn describe(&self) -> String;
}

/// The time. Wall clock for records and retention, monotonic for waiting; they never mix.
pub trait Clock: Send + Sync + fmt::Debug {
    /// What people call the time; it may jump either way.
    fn wall(&self) -> TimestampMs;

    /// Since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// Monotonic time counts from now.
    pub fn new() -> SystemClock {
        SystemClock {
            start: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> TimestampMs {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
