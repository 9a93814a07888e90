//! The leader epochs of a log: `leader-epoch-checkpoint` behind the pure [`LeaderEpochCache`].
//!
//! The file is Kafka's checkpoint text (`0`, count, then `epoch start-offset` lines) and is replaced as a
//! whole whenever the list changes. It is synced at once unless the log is empty; then it is synced together
//! with the first records, so that creating a partition waits for no disk. A file that cannot be read counts
//! as absent; recovery fills the list from the batches.
//!
//! Source: `LeaderEpochCheckpointFile.scala`, `Log.initializeLeaderEpochCache`; KIP-101.

use crate::checkpoint::{CheckpointError, LeaderEpochCheckpoint};
use crate::config::Magic;
use crate::error::{IoError, StorageError};
use crate::log::leader_epoch_cache::{EpochEndOffset, EpochEntry, LeaderEpochCache};
use crate::log::place::Place;
use crate::log::{Log, State, names};
use crate::units::{LeaderEpoch, Offset};

/// Reads the epochs of a log that keeps them (format v2); removes the file of one that does not.
pub(super) fn load(place: &Place, format: Magic) -> Result<LeaderEpochCache, IoError> {
    if format != Magic::V2 {
        place.remove(names::LEADER_EPOCHS)?;
        return Ok(LeaderEpochCache::new());
    }
    match LeaderEpochCheckpoint::new(&place.path()).read(place.io.as_ref()) {
        Ok(entries) => Ok(LeaderEpochCache::from_entries(entries)),
        Err(CheckpointError::Io(error)) => Err(error),
        Err(error) => {
            tracing::warn!("{error}; starting without leader epochs");
            Ok(LeaderEpochCache::new())
        }
    }
}

/// Writes the list.
pub(super) fn store(place: &Place, cache: &LeaderEpochCache, durable: bool) -> Result<(), IoError> {
    let checkpoint = LeaderEpochCheckpoint::new(&place.path());
    let io = place.io.as_ref();
    let written = match durable {
        true => checkpoint.write(io, cache.entries()),
        false => checkpoint.write_unsynced(io, cache.entries()),
    };
    written.map_err(|error| place.fatal(error))
}

impl Log {
    /// Notes that `epoch` starts at `start_offset`; durable on return unless the log is empty. Nothing
    /// happens for a log of an older message format, or if the epoch is known.
    ///
    /// # Errors
    /// The file could not be written; the directory is offline then.
    pub fn assign_leader_epoch(&self, epoch: LeaderEpoch, start_offset: Offset) -> Result<(), StorageError> {
        self.check_serving()?;
        let mut state = self.state.lock();
        self.assign_epoch(&mut state, epoch, start_offset)
    }

    pub(super) fn assign_epoch(
        &self,
        state: &mut State,
        epoch: LeaderEpoch,
        start_offset: Offset,
    ) -> Result<(), StorageError> {
        if self.config.load().message_format != Magic::V2 || epoch.get() < 0 {
            return Ok(());
        }
        if state.epochs.assign(epoch, start_offset) {
            self.store_epochs(state)
        } else {
            Ok(())
        }
    }

    /// Writes the list of `state`.
    pub(super) fn store_epochs(&self, state: &State) -> Result<(), StorageError> {
        let is_empty = self.log_end_offset() == Offset::ZERO;
        if is_empty {
            self.directory_changed();
        }
        Ok(store(&self.place, &state.epochs, !is_empty)?)
    }

    /// Empties the list if it is not: batches of a format without epochs were appended.
    pub(super) fn clear_epochs(&self, state: &mut State) -> Result<(), StorageError> {
        if state.epochs.clear() {
            self.store_epochs(state)
        } else {
            Ok(())
        }
    }

    pub(super) fn reload_epochs(&self, format: Magic) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.epochs = load(&self.place, format)?;
        Ok(())
    }

    /// The largest epoch known.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.state.lock().epochs.latest_epoch()
    }

    /// The first epoch known and where it starts.
    pub fn earliest_epoch(&self) -> Option<EpochEntry> {
        self.state.lock().epochs.earliest()
    }

    /// In which epoch the record at `offset` was written, as far as known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.state.lock().epochs.epoch_at(offset)
    }

    /// Where `epoch` ends in this log (exclusive): see [`LeaderEpochCache::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: Option<LeaderEpoch>) -> Option<EpochEndOffset> {
        let state = self.state.lock();
        state.epochs.end_offset_for(epoch, self.log_end_offset())
    }
}
