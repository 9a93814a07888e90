//! [`Io`] by plain system calls: what every Linux offers, and what the ring falls back upon.
//!
//! Promise: one call of the trait is one step of the kernel's contract, nothing is cached and nothing that
//! failed is tried again. Appends are `pwritev` on the caller's thread, because a buffered write to ext4
//! through a ring costs two context switches and serialises per file; submitted operations run on at most
//! [`THREADS_MAX`] threads, started when first needed.
//!
//! Invariants:
//! - A write either wrote all of its bytes or is an error. A short count without an error (the kernel's
//!   limit of 2 GiB per call) is continued; `EINTR` before the first byte is repeated; nothing else is.
//! - `fdatasync` is never repeated, whatever it answered: after a failure the kernel marks the pages clean.
//! - Dropping the body does not wait; what was submitted still completes.
//!
//! The lock is the POSIX record lock of the whole file that `java.nio.channels.FileChannel.tryLock` takes,
//! so that a Java broker and this one exclude each other (`kafka.utils.FileLock`). Such locks belong to the
//! process and vanish when *any* descriptor of the file is closed; therefore a registry refuses the second
//! taker inside the process before it opens the file, and nobody may open a `.lock` through [`Io::open`].
//!
//! Leaves to others: atomic replacement ([`crate::checkpoint`]), which directory is offline (the log
//! manager).

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::{
    Completion, DirEntry, DirectoryLock, File, FileHandle, FileKind, FileStat, Io, OpenMode, Operation,
    Owner, Space,
};
use crate::error::IoError;
use crate::units::TimestampMs;

mod pool;

use pool::Pool;

/// Most threads that serve submitted operations. Four syncs in flight let a journal share its commits; more
/// only queue in it.
const THREADS_MAX: usize = 4;

/// Most buffers of one `pwritev` (`IOV_MAX` of Linux).
const BUFFERS_PER_CALL_MAX: usize = 1024;

/// Distance of the probes of [`File::is_resident`]: the read-ahead window of Linux, 128 KiB.
const RESIDENT_PROBE_STRIDE_BYTES: u64 = 128 * 1024;

/// Most probes of one question; a longer range is probed more thinly.
const RESIDENT_PROBES_MAX: u64 = 8;

/// Bytes that one step of warming reads.
pub(super) const WARM_CHUNK_BYTES: usize = 256 * 1024;

/// The disk by system calls.
#[derive(Debug)]
pub(crate) struct SyscallIo {
    pool: Pool,
    description: String,
}

impl SyscallIo {
    /// `reason` says why this body is in use; it is part of the line that [`Io::describe`] gives.
    pub(crate) fn new(reason: &str) -> SyscallIo {
        SyscallIo {
            pool: Pool::new(THREADS_MAX),
            description: format!("syscall ({reason})"),
        }
    }
}

impl Io for SyscallIo {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<FileHandle, IoError> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::ReadWriteCreate => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
            OpenMode::Truncate => {
                options.write(true).create(true).truncate(true);
            }
        }
        let file = options
            .open(path)
            .map_err(|error| IoError::new("open", path, error))?;
        Ok(Arc::new(SyscallFile {
            file,
            path: path.to_path_buf(),
        }))
    }

    fn stat(&self, path: &Path) -> Result<Option<FileStat>, IoError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(FileStat {
                kind: kind_of(metadata.file_type()),
                size_bytes: metadata.len(),
                modified: timestamp_of(&metadata),
                identity: metadata.ino(),
            })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(IoError::new("stat", path, error)),
        }
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirEntry>, IoError> {
        let failed = |error| IoError::new("readdir", directory, error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let mut kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                // Operators link partition directories elsewhere; Kafka follows the link, and ignores a
                // dangling one.
                match fs::metadata(entry.path()) {
                    Ok(metadata) => kind = metadata.file_type(),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(IoError::new("stat", entry.path(), error)),
                }
            }
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                kind: kind_of(kind),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        fs::create_dir_all(directory).map_err(|error| IoError::new("mkdir", directory, error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        fs::rename(from, to).map_err(|error| IoError::new("rename", from, error))
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        absent_is_fine(fs::remove_file(path)).map_err(|error| IoError::new("unlink", path, error))
    }

    fn remove_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        absent_is_fine(fs::remove_dir_all(directory)).map_err(|error| IoError::new("rmdir", directory, error))
    }

    fn sync_dir(&self, directory: &Path) -> Result<(), IoError> {
        sync_dir(directory)
    }

    fn set_modified(&self, path: &Path, modified: TimestampMs) -> Result<(), IoError> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: modified.get().div_euclid(1000),
                tv_nsec: modified.get().rem_euclid(1000) * 1_000_000,
            },
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())
            .map_err(|errno| IoError::new("utimensat", path, errno.into()))
    }

    fn owner(&self, path: &Path) -> Result<Option<Owner>, IoError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Owner {
                user: metadata.uid(),
                group: metadata.gid(),
                mode: metadata.mode() & 0o7777,
            })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(IoError::new("stat", path, error)),
        }
    }

    fn set_owner(&self, path: &Path, owner: Owner) -> Result<(), IoError> {
        let is_already = |found: &Owner| (found.user, found.group) == (owner.user, owner.group);
        if !self.owner(path)?.as_ref().is_some_and(is_already) {
            std::os::unix::fs::chown(path, Some(owner.user), Some(owner.group))
                .map_err(|error| IoError::new("chown", path, error))?;
        }
        // Behind it: a change of owners may take bits away.
        if self.owner(path)? != Some(owner) {
            fs::set_permissions(path, fs::Permissions::from_mode(owner.mode))
                .map_err(|error| IoError::new("chmod", path, error))?;
        }
        Ok(())
    }

    fn space(&self, directory: &Path) -> Result<Space, IoError> {
        let found = rustix::fs::statvfs(directory)
            .map_err(|errno| IoError::new("statvfs", directory, errno.into()))?;
        Ok(Space {
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DirectoryLock>>, IoError> {
        let lock = ProcessLock::take(path)?;
        Ok(lock.map(|lock| Box::new(lock) as Box<dyn DirectoryLock>))
    }

    fn submit(&self, operation: Operation, done: Completion) {
        self.pool.submit(operation, done);
    }

    fn boot_id(&self) -> Result<String, IoError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(path).map_err(|error| IoError::new("read", path, error))?;
        Ok(text.trim().to_owned())
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// An open file of this body.
#[derive(Debug)]
struct SyscallFile {
    file: fs::File,
    path: PathBuf,
}

impl SyscallFile {
    fn failed(&self, operation: &'static str, error: std::io::Error) -> IoError {
        IoError::new(operation, &self.path, error)
    }
}

impl File for SyscallFile {
    fn write_vectored_at(&self, position: u64, buffers: &[IoSlice<'_>]) -> Result<(), IoError> {
        let mut position = position;
        for chunk in buffers.chunks(BUFFERS_PER_CALL_MAX) {
            position +=
                write_chunk(&self.file, position, chunk).map_err(|error| self.failed("pwritev", error))?;
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("pread", error)),
            }
        }
        Ok(filled)
    }

    fn size_bytes(&self) -> Result<u64, IoError> {
        Ok(self
            .file
            .metadata()
            .map_err(|error| self.failed("fstat", error))?
            .len())
    }

    fn set_len(&self, size_bytes: u64) -> Result<(), IoError> {
        self.file
            .set_len(size_bytes)
            .map_err(|error| self.failed("ftruncate", error))
    }

    fn allocate(&self, size_bytes: u64) -> Result<(), IoError> {
        if size_bytes > 0 {
            loop {
                match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size_bytes) {
                    // A file system that cannot reserve still gets the length, which is all that Kafka's
                    // preallocation does.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(self.failed("fallocate", errno.into())),
                }
            }
        }
        self.set_len(size_bytes)
    }

    fn reserve(&self, position: u64, end: u64) {
        let size = end.saturating_sub(position);
        if size > 0 {
            // No room, or a file system without this: the append itself will ask for what it needs.
            let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, position, size);
        }
    }

    fn sync(&self) -> Result<(), IoError> {
        rustix::fs::fdatasync(&self.file).map_err(|errno| self.failed("fdatasync", errno.into()))
    }

    fn is_resident(&self, position: u64, size_bytes: u64) -> bool {
        if size_bytes == 0 {
            return true;
        }
        let last = position.saturating_add(size_bytes - 1);
        let stride = RESIDENT_PROBE_STRIDE_BYTES.max(size_bytes.div_ceil(RESIDENT_PROBES_MAX));
        let mut at = position;
        while at < last {
            if !is_byte_resident(&self.file, at) {
                return false;
            }
            at = at.saturating_add(stride);
        }
        is_byte_resident(&self.file, last)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes all of `buffers` (at most `IOV_MAX`), or fails. Returns how many bytes that were.
fn write_chunk(file: &fs::File, position: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<u64> {
    let total: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
    let mut written = 0;
    while written < total {
        let outcome = if written == 0 {
            rustix::io::pwritev(file, buffers, position)
        } else {
            rustix::io::pwritev(file, &rest_of(buffers, written), position + written)
        };
        match outcome {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(total)
}

/// What of `buffers` follows their first `skip` bytes.
fn rest_of<'a>(buffers: &'a [IoSlice<'_>], skip: u64) -> Vec<IoSlice<'a>> {
    let mut skip = skip;
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let size = buffer.len() as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        // Smaller than the buffer's length, hence a usize.
        rest.push(IoSlice::new(&buffer[skip as usize..]));
        skip = 0;
    }
    rest
}

#[cfg(target_os = "linux")]
fn is_byte_resident(file: &fs::File, position: u64) -> bool {
    use std::io::IoSliceMut;

    let mut byte = [0];
    let outcome = rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(&mut byte)],
        position,
        rustix::io::ReadWriteFlags::NOWAIT,
    );
    !matches!(outcome, Err(Errno::AGAIN))
}

#[cfg(not(target_os = "linux"))]
fn is_byte_resident(_file: &fs::File, _position: u64) -> bool {
    true
}

/// fsync of a directory.
pub(super) fn sync_dir(directory: &Path) -> Result<(), IoError> {
    let opened = fs::File::open(directory).map_err(|error| IoError::new("open", directory, error))?;
    rustix::fs::fsync(&opened).map_err(|errno| IoError::new("fsync", directory, errno.into()))
}

/// Runs a submitted operation on the calling thread, waiting for it.
pub(super) fn run(operation: &Operation) -> Result<(), IoError> {
    match operation {
        Operation::Sync { file } => file.sync(),
        Operation::SyncDir { directory } => sync_dir(directory),
        Operation::Warm {
            file,
            position,
            size_bytes,
        } => warm(file, *position, *size_bytes),
    }
}

/// Reads the range in steps and drops what it read; ends early at the end of the file.
fn warm(file: &FileHandle, position: u64, size_bytes: u64) -> Result<(), IoError> {
    // The range may be stated by anyone: the buffer is at most one step.
    let mut buffer = vec![0; WARM_CHUNK_BYTES.min(usize::try_from(size_bytes).unwrap_or(WARM_CHUNK_BYTES))];
    let end = position.saturating_add(size_bytes);
    let mut at = position;
    while at < end {
        let step = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let count = file.read_at(at, &mut buffer[..step])?;
        if count < step {
            break;
        }
        at += step as u64;
    }
    Ok(())
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_file() {
        FileKind::File
    } else {
        FileKind::Other
    }
}

fn timestamp_of(metadata: &fs::Metadata) -> TimestampMs {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    TimestampMs(match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    })
}

fn absent_is_fine(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Device and inode of the lock files that this process holds.
static HELD: LazyLock<Mutex<HashSet<(u64, u64)>>> = LazyLock::new(Mutex::default);

/// The record lock of this process on one file.
#[derive(Debug)]
struct ProcessLock {
    /// `None` only while dropping: closing it frees the lock.
    file: Option<fs::File>,
    identity: (u64, u64),
}

impl ProcessLock {
    /// `None` if this or another process holds it.
    fn take(path: &Path) -> Result<Option<ProcessLock>, IoError> {
        let mut held = HELD.lock();
        // Looked at before it is opened: opening and closing a file whose lock we hold would free that lock.
        match fs::metadata(path) {
            Ok(metadata) if held.contains(&(metadata.dev(), metadata.ino())) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(IoError::new("stat", path, error)),
        }
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| IoError::new("open", path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| IoError::new("fstat", path, error))?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let identity = (metadata.dev(), metadata.ino());
                held.insert(identity);
                Ok(Some(ProcessLock {
                    file: Some(file),
                    identity,
                }))
            }
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(errno) => Err(IoError::new("fcntl(F_SETLK)", path, errno.into())),
        }
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        self.file = None;
        held.remove(&self.identity);
    }
}

impl DirectoryLock for ProcessLock {}
