//! The leader epochs of one partition: `epoch startOffset` lines, oldest first (`LeaderEpochCheckpointFile`).
//!
//! Whether the entries increase is the epoch cache's to check; here they come as they stand.

use std::fmt;
use std::path::{Path, PathBuf};

use super::text::{self, CheckpointError};
use crate::error::IoError;
use crate::io::Io;
use crate::units::{LeaderEpoch, Offset};

/// A leader epoch and the offset of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

impl fmt::Display for EpochEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.epoch, self.start_offset)
    }
}

/// The `leader-epoch-checkpoint` of a partition's directory. Its owner writes it under the log's lock.
#[derive(Debug)]
pub struct LeaderEpochCheckpoint {
    path: PathBuf,
}

impl LeaderEpochCheckpoint {
    /// Touches nothing.
    pub fn new(partition_dir: &Path) -> LeaderEpochCheckpoint {
        LeaderEpochCheckpoint {
            path: partition_dir.join(super::LEADER_EPOCH_FILE),
        }
    }

    /// All entries in the file's order; none if it is missing or empty.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if it cannot be read; the others if it is not such a file.
    pub fn read(&self, io: &dyn Io) -> Result<Vec<EpochEntry>, CheckpointError> {
        text::read(io, &self.path, "'epoch startOffset'", |fields| match fields {
            [epoch, offset] => Some(EpochEntry {
                epoch: LeaderEpoch(epoch.parse().ok()?),
                start_offset: Offset(offset.parse().ok()?),
            }),
            _ => None,
        })
    }

    /// Replaces all entries, durably when it returns.
    ///
    /// # Errors
    /// Final for the directory; the file has its old or its new content.
    pub fn write(&self, io: &dyn Io, entries: &[EpochEntry]) -> Result<(), IoError> {
        super::replace_file(io, &self.path, text::render(entries.iter()).as_bytes())
    }

    /// Replaces all entries without a sync: a power cut may leave the old file, none, or one that is
    /// refused. For a log without records, which loses nothing by that.
    ///
    /// # Errors
    /// Final for the directory.
    pub fn write_unsynced(&self, io: &dyn Io, entries: &[EpochEntry]) -> Result<(), IoError> {
        super::replace_file_unsynced(io, &self.path, text::render(entries.iter()).as_bytes())
    }
}
