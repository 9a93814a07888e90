//! [`Place`]: where the files of one log are, and what happens when one of them cannot be written.
//!
//! The partition's directory may be renamed while the log is open (deletion, a move between log directories),
//! so that nothing below the log keeps paths; it asks here. Every failed write, sync, create or rename passes
//! through [`Place::fatal`], which takes the log directory offline before the error goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::IoError;
use crate::io::{FileHandle, Io, OpenMode};
use crate::log::directory::LogDirectory;

/// The door of one log to its files. See the module.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) directory: Arc<LogDirectory>,
    path: RwLock<PathBuf>,
}

impl Place {
    pub(crate) fn new(io: Arc<dyn Io>, directory: Arc<LogDirectory>, name: &str) -> Place {
        let path = RwLock::new(directory.path().join(name));
        Place { io, directory, path }
    }

    /// The partition's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.read().join(name)
    }

    /// Takes the log directory offline because of `error`, which is handed on.
    #[cold]
    pub(crate) fn fatal(&self, error: IoError) -> IoError {
        self.directory.fail(&error);
        error
    }

    /// Opens a file for reading; a failure is not final for the directory.
    pub(crate) fn open_to_read(&self, name: &str) -> Result<FileHandle, IoError> {
        self.io.open(&self.file(name), OpenMode::Read)
    }

    /// Opens a file for writing; a failure is final.
    pub(crate) fn open_to_write(&self, name: &str, mode: OpenMode) -> Result<FileHandle, IoError> {
        self.io
            .open(&self.file(name), mode)
            .map_err(|error| self.fatal(error))
    }

    /// Removes a file if it is there; a failure is final.
    pub(crate) fn remove(&self, name: &str) -> Result<(), IoError> {
        self.io
            .remove_file(&self.file(name))
            .map_err(|error| self.fatal(error))
    }

    /// Renames a file of this log, replacing `to`; a failure is final.
    pub(crate) fn rename_file(&self, from: &str, to: &str) -> Result<(), IoError> {
        let path = self.path.read();
        self.io
            .rename(&path.join(from), &path.join(to))
            .map_err(|error| self.fatal(error))
    }

    /// As [`Place::rename_file`]; fine if `from` does not exist.
    pub(crate) fn rename_if_exists(&self, from: &str, to: &str) -> Result<(), IoError> {
        let path = self.path.read();
        match self.io.rename(&path.join(from), &path.join(to)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.fatal(error)),
            _ => Ok(()),
        }
    }

    /// Makes the entries of the partition's directory durable; a failure is final.
    pub(crate) fn sync_dir(&self) -> Result<(), IoError> {
        self.io
            .sync_dir(&self.path.read())
            .map_err(|error| self.fatal(error))
    }

    /// The whole of a small file; `None` if it does not exist.
    pub(crate) fn read_small(&self, name: &str, size_max: usize) -> Result<Option<Vec<u8>>, IoError> {
        let file = match self.open_to_read(name) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = usize::try_from(file.size_bytes()?)
            .unwrap_or(usize::MAX)
            .min(size_max);
        let mut bytes = vec![0; size];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Moves the partition's directory within its log directory and syncs the parent; a failure is final.
    pub(crate) fn rename_directory(&self, name: &str) -> Result<(), IoError> {
        let mut path = self.path.write();
        let to = self.directory.path().join(name);
        if *path != to {
            self.io.rename(&path, &to).map_err(|error| self.fatal(error))?;
            *path = to;
            let parent: &Path = self.directory.path();
            self.io.sync_dir(parent).map_err(|error| self.fatal(error))?;
        }
        Ok(())
    }
}
