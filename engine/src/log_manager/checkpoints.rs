//! The offset checkpoints of one log directory, each written only when it would differ from what the file
//! has.
//!
//! Invariant: an entry exists for no partition that is created anew. [`DirectoryCheckpoints::forget`] removes
//! a deleted partition's entries, durably, before its name is used again; otherwise a recovery point of the
//! past would keep the new log from being recovered, and a log start offset of the past would empty it.
//!
//! Entries of partitions that are on the disk but out of service are kept as they are: their recovery points
//! say which of their bytes must be whole.
//!
//! **Deviation:** in Kafka a checkpoint that cannot be written takes its directory offline. Here one that
//! fails for lack of space does not: the file is replaced as a whole, so that the old one stands, and the
//! write is tried again when it is due next.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use crate::checkpoint::{self, CheckpointError, OffsetCheckpoint};
use crate::error::IoError;
use crate::io::Io;
use crate::log::LogDirectory;
use crate::units::{Offset, TopicPartition};

/// One offset per partition.
pub(super) type Offsets = BTreeMap<TopicPartition, Offset>;

/// Beside Kafka's checkpoints, a file of ours in the same layout: partitions that were taken out of service
/// because of damaged bytes, with the first offset that is in doubt. The next start checks them as a whole
/// before it serves them.
pub(super) const OUT_OF_SERVICE_FILE: &str = "milena.out-of-service";
/// A file of ours in the same layout, of one entry: up to where the background scrub came.
pub(super) const SCRUB_FILE: &str = "milena.scrub";

/// A checkpoint and what it holds.
#[derive(Debug)]
pub(super) struct WrittenOffsets {
    file: OffsetCheckpoint,
    written: Mutex<Offsets>,
}

impl WrittenOffsets {
    /// Reads the file. One that is damaged counts as empty, as in Kafka, with a warning.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(io: &dyn Io, directory: &Path, name: &str) -> Result<WrittenOffsets, IoError> {
        let file = OffsetCheckpoint::new(directory, name);
        let written = match file.read(io) {
            Ok(offsets) => offsets,
            Err(CheckpointError::Io(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(
                    "{name} of directory {} is taken for empty: {error}",
                    directory.display()
                );
                Offsets::new()
            }
        };
        Ok(WrittenOffsets {
            file,
            written: Mutex::new(written),
        })
    }

    pub(super) fn get(&self, partition: &TopicPartition) -> Option<Offset> {
        self.written.lock().get(partition).copied()
    }

    pub(super) fn all(&self) -> Offsets {
        self.written.lock().clone()
    }

    /// Whether the file says this, where a missing entry says 0.
    pub(super) fn says(&self, offsets: &Offsets) -> bool {
        let told = |offsets: &Offsets| -> Offsets {
            let beyond_zero = offsets.iter().filter(|(_, offset)| **offset != Offset::ZERO);
            beyond_zero.map(|(at, offset)| (at.clone(), *offset)).collect()
        };
        let written = self.written.lock();
        *written == *offsets || told(&written) == told(offsets)
    }

    /// Makes the file hold these entries; durable when it returns.
    ///
    /// # Errors
    /// The file has its old entries still, or the new ones.
    pub(super) fn write(&self, io: &dyn Io, offsets: Offsets) -> Result<(), IoError> {
        self.change(io, |written| *written = offsets)
    }

    /// Makes the file lack the partition.
    pub(super) fn forget(&self, io: &dyn Io, partition: &TopicPartition) -> Result<(), IoError> {
        self.change(io, |written| {
            written.remove(partition);
        })
    }

    /// Makes the file have this entry.
    pub(super) fn put(&self, io: &dyn Io, partition: &TopicPartition, offset: Offset) -> Result<(), IoError> {
        self.change(io, |written| {
            written.insert(partition.clone(), offset);
        })
    }

    /// Makes the file say no more of these partitions than this.
    pub(super) fn lower<'a>(
        &self,
        io: &dyn Io,
        limits: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
    ) -> Result<(), IoError> {
        self.change(io, |written| {
            for (partition, limit) in limits {
                if let Some(offset) = written.get_mut(partition) {
                    *offset = (*offset).min(limit);
                }
            }
        })
    }

    /// One change at a time: logs that are loaded in parallel note their damage in the same file.
    fn change(&self, io: &dyn Io, change: impl FnOnce(&mut Offsets)) -> Result<(), IoError> {
        let mut written = self.written.lock();
        let mut offsets = written.clone();
        change(&mut offsets);
        if *written != offsets {
            self.file.write(io, &offsets)?;
            *written = offsets;
        }
        Ok(())
    }
}

/// All offset checkpoints of one log directory.
#[derive(Debug)]
pub(super) struct DirectoryCheckpoints {
    /// Held from reading what the logs say to writing it, over a truncation, and while the entries of a partition
    /// that is to be created anew are removed: what was read before these is not written after them. Whoever holds
    /// it does not ask for the manager's `changing`.
    pub(super) recovery_gate: Mutex<()>,
    pub(super) recovery_points: WrittenOffsets,
    pub(super) log_start_offsets: WrittenOffsets,
    pub(super) high_watermarks: WrittenOffsets,
    /// Kafka's cleaner writes them.
    pub(super) cleaned_ends: WrittenOffsets,
    pub(super) out_of_service: WrittenOffsets,
    pub(super) scrub: WrittenOffsets,
}

impl DirectoryCheckpoints {
    pub(super) fn load(io: &dyn Io, directory: &Path) -> Result<DirectoryCheckpoints, IoError> {
        Ok(DirectoryCheckpoints {
            recovery_gate: Mutex::new(()),
            recovery_points: WrittenOffsets::load(io, directory, checkpoint::RECOVERY_POINT_FILE)?,
            log_start_offsets: WrittenOffsets::load(io, directory, checkpoint::LOG_START_OFFSET_FILE)?,
            high_watermarks: WrittenOffsets::load(io, directory, checkpoint::REPLICATION_OFFSET_FILE)?,
            cleaned_ends: WrittenOffsets::load(io, directory, checkpoint::CLEANER_OFFSET_FILE)?,
            out_of_service: WrittenOffsets::load(io, directory, OUT_OF_SERVICE_FILE)?,
            scrub: WrittenOffsets::load(io, directory, SCRUB_FILE)?,
        })
    }

    /// Removes all entries of a partition that is to be created anew.
    ///
    /// # Errors
    /// Some entries may be left: the partition must not be created.
    pub(super) fn forget(&self, io: &dyn Io, partition: &TopicPartition) -> Result<(), IoError> {
        self.recovery_points.forget(io, partition)?;
        self.log_start_offsets.forget(io, partition)?;
        self.high_watermarks.forget(io, partition)?;
        self.cleaned_ends.forget(io, partition)?;
        self.out_of_service.forget(io, partition)
    }
}

/// Takes the directory offline because a checkpoint could not be replaced, unless space is what was missing.
pub(super) fn tolerate_full(directory: &LogDirectory, error: &IoError) {
    if error.lacks_space() {
        tracing::warn!(
            "{error}: no space is left on log directory {}, the old file stays until there is",
            directory.path().display()
        );
    } else {
        directory.fail(error);
    }
}
