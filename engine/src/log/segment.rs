//! [`LogSegment`]: one `.log` file with its indexes.
//!
//! A segment holds the batches from its base offset (the file's name) to the next segment's. Readers go
//! through [`LogSegment::locate`]; the appender alone writes, by an [`AppendCursor`] that is committed once
//! the bytes are in the file, so that no index entry is visible before its batch. Files are opened when
//! needed: a segment at rest holds no descriptor, except that the active one keeps its `.log` open after the
//! first append or read.
//!
//! Invariants: the file holds whole batches in `0..size_bytes`, in strictly increasing offset order, all
//! within `i32::MAX` of the base offset; what lies behind is preallocation, reserved or being written. An index
//! entry is due when more than `index.interval.bytes` lie between the position of the last entry and the batch
//! at hand; it names that batch's last offset and position. A time-index entry goes with it if the largest
//! timestamp grew.
//!
//! Left to the log: which segment is active, locking of appends, durability. Source: `LogSegment.scala`.
//!
//! **Deviation:** 2.7.2 counts the interval anew after a restart and, on followers, per fetched chunk; here
//! it is counted from the last entry and per batch, so that an index always equals its rebuild.

mod cursor;
mod lookup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::LogConfig;
use crate::error::{CorruptFile, IoError, StorageError};
use crate::io::{FileHandle, OpenMode};
use crate::log::names;
use crate::log::offset_index::OffsetPosition;
use crate::log::place::Place;
use crate::log::scan::{BatchScanner, Step};
use crate::log::sparse_index::SparseIndex;
use crate::log::time_index::TimestampOffset;
use crate::log::transaction_index::TransactionIndex;
use crate::record_batch::BatchHeader;
use crate::units::{Offset, TimestampMs};

pub(crate) use cursor::{AppendCursor, RollParams};

/// One segment: its files, and what is known of them without opening them.
#[derive(Debug)]
pub(crate) struct LogSegment {
    pub(crate) base_offset: Offset,
    /// Bytes of batches that readers may see.
    size_bytes: AtomicU64,
    /// Renamed to `.deleted`; readers that still hold it may finish.
    deleted: AtomicBool,
    /// No more appends.
    sealed: AtomicBool,
    /// All files synced after sealing.
    flushed: AtomicBool,
    /// A descriptor was asked for since the last [`LogSegment::release`].
    used: AtomicBool,
    pub(crate) state: Mutex<SegmentState>,
}

/// What a segment knows beside its size; a short lock.
#[derive(Debug)]
pub(crate) struct SegmentState {
    log: Option<FileHandle>,
    pub(crate) offsets: SparseIndex<OffsetPosition>,
    pub(crate) times: SparseIndex<TimestampOffset>,
    pub(crate) transactions: TransactionIndex,
    /// When it was created or loaded, by the wall clock.
    created: TimestampMs,
    /// Largest timestamp of the first batch; `None` until looked up or while empty.
    first_timestamp: Option<TimestampMs>,
    /// Largest timestamp so far; `None` until looked up.
    largest: Option<TimestampOffset>,
    /// The file is longer than `size_bytes`.
    preallocated: bool,
    /// Up to where space was asked for behind the end of the file; 0 if it was not.
    reserved_end: u64,
}

impl LogSegment {
    /// Creates the `.log` file of an empty active segment, under a name that is free. Its directory entry is
    /// not durable yet. A failure is final for the directory.
    pub(crate) fn create(
        place: &Place,
        base_offset: Offset,
        config: &LogConfig,
        now: TimestampMs,
    ) -> Result<Arc<LogSegment>, IoError> {
        let name = names::file_name(base_offset, names::LOG);
        let file = place.open_to_write(&name, OpenMode::CreateNew)?;
        if config.preallocate {
            let size = u64::from(config.segment_size_bytes);
            file.allocate(size).map_err(|error| place.fatal(error))?;
        }
        let state = SegmentState {
            log: None,
            offsets: SparseIndex::new_empty(),
            times: SparseIndex::new_empty(),
            transactions: TransactionIndex::new_empty(),
            created: now,
            first_timestamp: None,
            largest: Some(TimestampOffset {
                timestamp: TimestampMs::NONE,
                offset: base_offset,
            }),
            preallocated: config.preallocate,
            reserved_end: 0,
        };
        Ok(Arc::new(LogSegment::with(base_offset, 0, state)))
    }

    /// Frees the names of a segment that is to be created where files may have been left.
    pub(crate) fn remove_leftovers(place: &Place, base_offset: Offset) -> Result<(), IoError> {
        for suffix in names::SEGMENT_SUFFIXES {
            place.remove(&names::file_name(base_offset, suffix))?;
        }
        Ok(())
    }

    /// A segment whose files are there; nothing is opened.
    pub(crate) fn on_disk(
        base_offset: Offset,
        size_bytes: u64,
        has_transactions: bool,
        now: TimestampMs,
    ) -> LogSegment {
        let state = SegmentState {
            log: None,
            offsets: SparseIndex::on_disk(),
            times: SparseIndex::on_disk(),
            transactions: TransactionIndex::on_disk(has_transactions),
            created: now,
            first_timestamp: None,
            largest: None,
            preallocated: false,
            reserved_end: 0,
        };
        LogSegment::with(base_offset, size_bytes, state)
    }

    fn with(base_offset: Offset, size_bytes: u64, state: SegmentState) -> LogSegment {
        LogSegment {
            base_offset,
            size_bytes: AtomicU64::new(size_bytes),
            deleted: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
            used: AtomicBool::new(true),
            state: Mutex::new(state),
        }
    }

    /// Bytes of batches, without preallocation.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size_bytes() == 0
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn set_flushed(&self) {
        self.flushed.store(true, Ordering::Release);
    }

    pub(crate) fn set_sealed(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// The `.log` file, opened if it is not.
    pub(crate) fn file(&self, place: &Place) -> Result<FileHandle, IoError> {
        self.open_log(place, &mut self.state.lock())
    }

    fn open_log(&self, place: &Place, state: &mut SegmentState) -> Result<FileHandle, IoError> {
        self.used.store(true, Ordering::Relaxed);
        if let Some(file) = &state.log {
            return Ok(file.clone());
        }
        let mut name = names::file_name(self.base_offset, names::LOG);
        if self.is_deleted() {
            name.push_str(names::DELETED);
        }
        let mode = if self.sealed.load(Ordering::Acquire) {
            OpenMode::Read
        } else {
            OpenMode::ReadWrite
        };
        let file = place.io.open(&place.file(&name), mode)?;
        state.log = Some(file.clone());
        Ok(file)
    }

    /// Closes what was not used since the last call.
    pub(crate) fn release(&self, is_active: bool) {
        if !self.used.swap(false, Ordering::Relaxed) {
            let mut state = self.state.lock();
            if !is_active {
                state.log = None;
            }
            state.offsets.release();
            state.times.release();
        }
    }

    /// Damage at `position` of the `.log` file.
    pub(crate) fn corrupt(&self, place: &Place, position: u64, expected: &str, found: String) -> CorruptFile {
        let path = place.file(&names::file_name(self.base_offset, names::LOG));
        CorruptFile {
            path,
            position,
            expected: expected.to_owned(),
            found,
        }
    }

    /// The file to write to and where. Only the appender calls this, under the log's append lock.
    pub(crate) fn begin_append(&self, place: &Place) -> Result<(FileHandle, AppendCursor), StorageError> {
        let largest = self.largest(place)?;
        let mut state = self.state.lock();
        let state = &mut *state;
        let file = self.open_log(place, state)?;
        let size = self.size_bytes();
        let base = self.base_offset;
        let last_entry = state.offsets.last(place, base)?;
        let last_position = last_entry.map_or(0, |entry| u64::from(entry.position).min(size));
        let last_time = state.times.last(place, base)?;
        if size > 0 && state.first_timestamp.is_none() {
            state.first_timestamp = first_timestamp(&file, size)?;
        }
        let cursor = AppendCursor {
            base_offset: base,
            position: size,
            reserved_end: state.reserved_end,
            bytes_since_entry: size - last_position,
            created: state.created,
            first_timestamp: state.first_timestamp,
            largest,
            last_time: last_time.map_or(TimestampMs::NONE, |entry| entry.timestamp),
            offset_count: state.offsets.count(place, base)?,
            time_count: state.times.count(place, base)?,
            new_offsets: Vec::new(),
            new_times: Vec::new(),
        };
        Ok((file, cursor))
    }

    /// Makes visible what was written: the bytes are in the file.
    pub(crate) fn commit_append(&self, place: &Place, cursor: AppendCursor) -> Result<(), IoError> {
        let mut state = self.state.lock();
        state.first_timestamp = cursor.first_timestamp;
        state.largest = Some(cursor.largest);
        state.reserved_end = cursor.reserved_end;
        if !cursor.new_offsets.is_empty() {
            for entry in cursor.new_offsets {
                state.offsets.push(entry);
            }
            for entry in cursor.new_times {
                state.times.push(entry);
            }
            if state.offsets.wants_write() {
                state.offsets.write_through(place, self.base_offset)?;
                state.times.write_through(place, self.base_offset)?;
            }
        }
        self.size_bytes.store(cursor.position, Ordering::Release);
        Ok(())
    }

    /// Takes over what a walk of the segment found; the indexes were truncated to what it began with.
    pub(crate) fn commit_rebuilt(&self, place: &Place, cursor: &AppendCursor) -> Result<(), IoError> {
        let mut state = self.state.lock();
        state.offsets.count(place, self.base_offset)?;
        state.times.count(place, self.base_offset)?;
        cursor
            .new_offsets
            .iter()
            .for_each(|entry| state.offsets.push(*entry));
        cursor.new_times.iter().for_each(|entry| state.times.push(*entry));
        state.largest = Some(cursor.largest);
        state.first_timestamp = cursor.first_timestamp;
        self.size_bytes.store(cursor.position, Ordering::Release);
        Ok(())
    }

    /// Adds the closing entry of the time index, if it says something new.
    fn close_time_index(&self, place: &Place, state: &mut SegmentState) -> Result<(), IoError> {
        if let Some(largest) = state.largest {
            let last = state.times.last(place, self.base_offset)?;
            if largest.timestamp > last.map_or(TimestampMs::NONE, |last| last.timestamp) {
                state.times.push(largest);
            }
        }
        Ok(())
    }

    /// The `.log` file to be synced; `None` if the segment was deleted and removed meanwhile.
    pub(crate) fn file_to_sync(&self, place: &Place) -> Result<Option<FileHandle>, IoError> {
        match self.file(place) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_deleted() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Completes the indexes on disk and trims preallocated and reserved space: at a roll and at a clean close.
    /// Nothing is synced. A failure is final for the directory.
    pub(crate) fn complete_files(&self, place: &Place) -> Result<(), IoError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.close_time_index(place, state)?;
        state.offsets.write_through(place, self.base_offset)?;
        state.times.write_through(place, self.base_offset)?;
        if state.preallocated || state.reserved_end > self.size_bytes() {
            let file = self.open_log(place, state)?;
            file.set_len(self.size_bytes())
                .map_err(|error| place.fatal(error))?;
            state.preallocated = false;
            state.reserved_end = 0;
        }
        Ok(())
    }

    /// Writes index entries through without closing them, so that what is flushed is complete up to here.
    pub(crate) fn write_indexes(&self, place: &Place) -> Result<(), IoError> {
        let mut state = self.state.lock();
        state.offsets.write_through(place, self.base_offset)?;
        state.times.write_through(place, self.base_offset)
    }

    /// The open index files, to be synced: those that exist.
    pub(crate) fn index_files(&self, place: &Place) -> Result<Vec<FileHandle>, IoError> {
        let mut files = Vec::with_capacity(3);
        let has_transactions = !self.state.lock().transactions.is_known_empty();
        for suffix in [names::OFFSET_INDEX, names::TIME_INDEX, names::TRANSACTION_INDEX] {
            if suffix == names::TRANSACTION_INDEX && !has_transactions {
                continue;
            }
            let path = place.file(&names::file_name(self.base_offset, suffix));
            match place.io.open(&path, OpenMode::ReadWrite) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// The batches end before the file does: what lies behind is space.
    pub(crate) fn set_preallocated(&self, size_bytes: u64) {
        self.state.lock().preallocated = true;
        self.size_bytes.store(size_bytes, Ordering::Release);
    }

    /// Drops the batches from `position` on, of which `offset` is the first offset, and their index entries.
    /// The segment is active afterwards. A failure is final for the directory.
    pub(crate) fn truncate_to(
        &self,
        place: &Place,
        position: u64,
        offset: Offset,
        now: TimestampMs,
    ) -> Result<(), StorageError> {
        self.sealed.store(false, Ordering::Release);
        self.flushed.store(false, Ordering::Release);
        let base = self.base_offset;
        let mut state = self.state.lock();
        let state = &mut *state;
        state.log = None;
        let file = self.open_log(place, state)?;
        self.size_bytes.store(position, Ordering::Release);
        file.set_len(position).map_err(|error| place.fatal(error))?;
        file.sync().map_err(|error| place.fatal(error))?;
        state.preallocated = false;
        state.reserved_end = 0;
        let count = state.offsets.partition_point(place, base, |entry| {
            entry.offset < offset && u64::from(entry.position) < position
        })?;
        state.offsets.truncate(place, base, count)?;
        let count = state
            .times
            .partition_point(place, base, |entry| entry.offset < offset)?;
        state.times.truncate(place, base, count)?;
        state.transactions.truncate_to(place, base, offset)?;
        if position == 0 {
            state.created = now;
            state.first_timestamp = None;
        }
        // The largest timestamp may have been cut off: take the last entry's, then look at what follows it.
        let last = state.times.last(place, base)?;
        let largest = last.unwrap_or(TimestampOffset {
            timestamp: TimestampMs::NONE,
            offset: base,
        });
        let from = self
            .lookup(place, state, largest.offset)?
            .map_or(0, |entry| u64::from(entry.position));
        state.largest = Some(lookup::scan_largest(&file, from..position, largest)?);
        Ok(())
    }

    /// Renames the files to `.deleted`; readers that hold the segment go on. A failure is final for the
    /// directory.
    pub(crate) fn mark_deleted(&self, place: &Place) -> Result<(), IoError> {
        // The state's lock keeps a reader from opening the file under the old name in between.
        let mut state = self.state.lock();
        self.deleted.store(true, Ordering::Release);
        state.offsets.release();
        state.times.release();
        for suffix in names::SEGMENT_SUFFIXES {
            if suffix == names::TRANSACTION_INDEX && state.transactions.is_known_empty() {
                continue;
            }
            let name = names::file_name(self.base_offset, suffix);
            place.rename_if_exists(&name, &format!("{name}{}", names::DELETED))?;
        }
        Ok(())
    }

    /// Removes the files that [`LogSegment::mark_deleted`] renamed.
    pub(crate) fn remove_deleted(place: &Place, base_offset: Offset) -> Result<(), IoError> {
        for suffix in names::SEGMENT_SUFFIXES {
            place.remove(&format!(
                "{}{}",
                names::file_name(base_offset, suffix),
                names::DELETED
            ))?;
        }
        Ok(())
    }
}

/// Largest timestamp of the first batch of a file.
fn first_timestamp(file: &FileHandle, size: u64) -> Result<Option<TimestampMs>, IoError> {
    match BatchScanner::new(file.as_ref(), 0, size, BatchHeader::SIZE_MAX).step()? {
        Step::Batch { header, .. } => Ok(Some(header.max_timestamp)),
        _ => Ok(None),
    }
}
