//! A disk with a bug in front of it: what the engine would do to the disk if it had that bug.
//!
//! The production code has no switches. A [`Planted`] stands between the engine and the simulated disk and
//! leaves out, or alters, exactly what the bug would.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use milena_engine::error::IoError;
use milena_engine::io::simulated::SimulatedDisk;
use milena_engine::io::{
    Completion, DirEntry, DirectoryLock, File, FileHandle, FileStat, Io, OpenMode, Operation, Owner, Space,
};
use milena_engine::units::TimestampMs;

/// What the engine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Directories are not synced.
    SkippedDirectorySync,
    /// Files are said to be synced before they are (ack before sync).
    AckBeforeSync,
    /// Index entries name the byte after the batch's first.
    IndexOffByOne,
}

pub(crate) fn skipped_directory_sync(disk: &SimulatedDisk) -> Arc<dyn Io> {
    planted(disk, Bug::SkippedDirectorySync)
}

pub(crate) fn ack_before_sync(disk: &SimulatedDisk) -> Arc<dyn Io> {
    planted(disk, Bug::AckBeforeSync)
}

pub(crate) fn index_off_by_one(disk: &SimulatedDisk) -> Arc<dyn Io> {
    planted(disk, Bug::IndexOffByOne)
}

fn planted(disk: &SimulatedDisk, bug: Bug) -> Arc<dyn Io> {
    Arc::new(Planted {
        disk: disk.clone(),
        bug,
    })
}

#[derive(Debug)]
struct Planted {
    disk: SimulatedDisk,
    bug: Bug,
}

struct PlantedFile {
    file: FileHandle,
    bug: Bug,
}

impl fmt::Debug for PlantedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl File for PlantedFile {
    fn write_vectored_at(&self, position: u64, buffers: &[IoSlice<'_>]) -> Result<(), IoError> {
        let is_index = self.path().extension().is_some_and(|of| of == "index");
        if self.bug != Bug::IndexOffByOne || !is_index {
            return self.file.write_vectored_at(position, buffers);
        }
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        for entry in bytes.chunks_exact_mut(8) {
            entry[7] = entry[7].wrapping_add(1);
        }
        self.file.write_vectored_at(position, &[IoSlice::new(&bytes)])
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        self.file.read_at(position, buffer)
    }

    fn size_bytes(&self) -> Result<u64, IoError> {
        self.file.size_bytes()
    }

    fn set_len(&self, size_bytes: u64) -> Result<(), IoError> {
        self.file.set_len(size_bytes)
    }

    fn allocate(&self, size_bytes: u64) -> Result<(), IoError> {
        self.file.allocate(size_bytes)
    }

    fn reserve(&self, position: u64, end: u64) {
        self.file.reserve(position, end);
    }

    fn sync(&self) -> Result<(), IoError> {
        match self.bug {
            Bug::AckBeforeSync => Ok(()),
            _ => self.file.sync(),
        }
    }

    fn is_resident(&self, position: u64, size_bytes: u64) -> bool {
        self.file.is_resident(position, size_bytes)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Io for Planted {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<FileHandle, IoError> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(PlantedFile { file, bug: self.bug }))
    }

    fn stat(&self, path: &Path) -> Result<Option<FileStat>, IoError> {
        self.disk.stat(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirEntry>, IoError> {
        self.disk.list(directory)
    }

    fn create_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.disk.create_dir_all(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.disk.remove_dir_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> Result<(), IoError> {
        match self.bug {
            Bug::SkippedDirectorySync => Ok(()),
            _ => self.disk.sync_dir(directory),
        }
    }

    fn set_modified(&self, path: &Path, modified: TimestampMs) -> Result<(), IoError> {
        self.disk.set_modified(path, modified)
    }

    fn owner(&self, path: &Path) -> Result<Option<Owner>, IoError> {
        self.disk.owner(path)
    }

    fn set_owner(&self, path: &Path, owner: Owner) -> Result<(), IoError> {
        self.disk.set_owner(path, owner)
    }

    fn space(&self, directory: &Path) -> Result<Space, IoError> {
        self.disk.space(directory)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DirectoryLock>>, IoError> {
        self.disk.lock(path)
    }

    /// The simulated disk does not know the files of this one and syncs them as they are when their turn comes,
    /// which a real disk may do too.
    fn submit(&self, operation: Operation, done: Completion) {
        match (self.bug, &operation) {
            (Bug::SkippedDirectorySync, Operation::SyncDir { .. }) => done(Ok(())),
            _ => self.disk.submit(operation, done),
        }
    }

    fn boot_id(&self) -> Result<String, IoError> {
        self.disk.boot_id()
    }

    fn describe(&self) -> String {
        format!("{:?} planted before {}", self.bug, self.disk.describe())
    }
}
