//! `.snapshot` files: the producer state of a log at the offset in the name.
//!
//! One is written when a segment is rolled (named by the new base offset), at a clean close and after
//! loading; only the last ones are kept. They are not synced but at a clean close: each carries a CRC, and
//! one that cannot be read is removed and an older one used, or the batches are read again. Source:
//! `ProducerStateManager.scala`,
//! `Log.deleteSnapshotsAfterRecoveryPointCheckpoint`.

use std::io::IoSlice;

use crate::error::{IoError, StorageError};
use crate::io::OpenMode;
use crate::log::place::Place;
use crate::log::{Log, State, names};
use crate::units::Offset;

/// Largest snapshot that is read: more than two million producers of 46 bytes.
pub(super) const SNAPSHOT_SIZE_BYTES_MAX: usize = 100 << 20;

/// The offsets of all snapshots in the partition's directory, in order.
pub(super) fn list(place: &Place) -> Result<Vec<Offset>, IoError> {
    let entries = place.io.list(&place.path())?;
    let mut offsets: Vec<Offset> = entries
        .iter()
        .filter_map(|entry| names::parse(&entry.name))
        .filter(|parsed| parsed.kind == names::SNAPSHOT && parsed.stage.is_empty())
        .map(|parsed| parsed.offset)
        .collect();
    offsets.sort_unstable();
    Ok(offsets)
}

/// Writes one; a failure is final for the directory.
pub(super) fn write(place: &Place, offset: Offset, bytes: &[u8]) -> Result<(), IoError> {
    let file = place.open_to_write(&names::file_name(offset, names::SNAPSHOT), OpenMode::Truncate)?;
    file.write_vectored_at(0, &[IoSlice::new(bytes)])
        .map_err(|error| place.fatal(error))
}

/// Makes the content of the newest one durable; its name is with the next sync of the directory. A failure is
/// final.
pub(super) fn sync_newest(place: &Place) -> Result<bool, IoError> {
    let Some(offset) = list(place)?.last().copied() else {
        return Ok(false);
    };
    let file = place.open_to_write(&names::file_name(offset, names::SNAPSHOT), OpenMode::ReadWrite)?;
    file.sync().map_err(|error| place.fatal(error))?;
    Ok(true)
}

/// Removes those for which `doomed` holds; returns whether there were any. Durable with the next sync of the
/// directory.
pub(super) fn remove(place: &Place, doomed: impl Fn(Offset) -> bool) -> Result<bool, IoError> {
    let mut has_removed = false;
    for offset in list(place)? {
        if doomed(offset) {
            place.remove(&names::file_name(offset, names::SNAPSHOT))?;
            has_removed = true;
        }
    }
    Ok(has_removed)
}

impl Log {
    /// Writes the present producer state unless the last snapshot says the same.
    pub(super) fn write_snapshot(&self, state: &mut State) -> Result<(), StorageError> {
        if let Some((offset, bytes)) = state.producers.take_snapshot() {
            write(&self.place, offset, &bytes)?;
        }
        Ok(())
    }

    /// Removes snapshots that neither a truncation into the last two segments nor a recovery from the
    /// checkpointed recovery point can need; to be called after that checkpoint was written.
    ///
    /// # Errors
    /// A file could not be removed; the directory is offline then.
    pub fn delete_snapshots_after_checkpoint(&self) -> Result<(), StorageError> {
        self.check_serving()?;
        let segments = self.segments.load_full();
        let below = |offset: Offset| {
            let count = segments.partition_point(|segment| segment.base_offset < offset);
            count.checked_sub(1).map(|index| segments[index].base_offset)
        };
        let active = self.active().base_offset;
        let two_segments = below(active).unwrap_or(active);
        let recovery_point = self.recovery_point();
        let retained = below(recovery_point).unwrap_or(recovery_point).min(two_segments);
        remove(&self.place, |offset| offset < retained)?;
        Ok(())
    }
}
