//! Finding batches in a segment: by offset, by timestamp, by position.
//!
//! Every index entry is a hint that is checked against the batch it names before it is believed; what a wrong
//! one costs is a scan of headers from the beginning. Source: `LogSegment.translateOffset`,
//! `LogSegment.findOffsetByTimestamp`.

use std::ops::Range;

use crate::error::{IoError, StorageError};
use crate::io::FileHandle;
use crate::log::names;
use crate::log::offset_index::OffsetPosition;
use crate::log::place::Place;
use crate::log::scan::{BatchScanner, LOOKUP_WINDOW_SIZE_BYTES, Step};
use crate::log::time_index::TimestampOffset;
use crate::record_batch::BatchHeader;
use crate::units::{Offset, TimestampMs};

use super::{LogSegment, SegmentState};

/// A batch found by offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl LogSegment {
    /// The first batch in `0..end` whose last offset is at or above `target`; `None` if there is none.
    ///
    /// The index entry used is checked against the batch at its position; a wrong one costs a scan from the
    /// beginning.
    ///
    /// # Errors
    /// `Corrupt` if a batch header before the target is not one.
    pub(crate) fn locate(
        &self,
        place: &Place,
        target: Offset,
        end: u64,
    ) -> Result<Option<Located>, StorageError> {
        let (file, hint) = {
            let mut state = self.state.lock();
            let file = self.open_log(place, &mut state)?;
            (file, self.lookup(place, &mut state, target)?)
        };
        if let Some(hint) = hint {
            match self.scan_for(&file, u64::from(hint.position), target, end, Some(hint.offset))? {
                Ok(located) => return Ok(located),
                Err(reason) => tracing::warn!(
                    "offset index entry {} of segment {} in {} is wrong ({}); reading without it",
                    hint.offset,
                    self.base_offset,
                    place.path().display(),
                    reason.1
                ),
            }
        }
        self.scan_for(&file, 0, target, end, None)?
            .map_err(|(position, found)| {
                StorageError::Corrupt(self.corrupt(place, position, "a batch header", found))
            })
    }

    /// The last index entry at or below `target`.
    pub(super) fn lookup(
        &self,
        place: &Place,
        state: &mut SegmentState,
        target: Offset,
    ) -> Result<Option<OffsetPosition>, IoError> {
        let base = self.base_offset;
        let after = state
            .offsets
            .partition_point(place, base, |entry| entry.offset <= target)?;
        let entry = match after.checked_sub(1) {
            Some(index) => state.offsets.get(place, base, index)?,
            None => None,
        };
        // In an index that is not in order the search may end anywhere.
        Ok(entry.filter(|entry| entry.offset <= target))
    }

    /// Scans headers from `position`. The inner error is what is wrong and where.
    pub(super) fn scan_for(
        &self,
        file: &FileHandle,
        position: u64,
        target: Offset,
        end: u64,
        hint: Option<Offset>,
    ) -> Result<Result<Option<Located>, (u64, String)>, IoError> {
        if position > end {
            return Ok(Err((position, format!("position beyond the end {end}"))));
        }
        let mut scanner = BatchScanner::new(file.as_ref(), position, end, LOOKUP_WINDOW_SIZE_BYTES);
        let mut hint = hint;
        loop {
            match scanner.step()? {
                Step::End => return Ok(Ok(None)),
                Step::Bad { position, error } => return Ok(Err((position, error.to_string()))),
                Step::Batch { position, header } => {
                    if header.last_offset < self.base_offset
                        || hint.take().is_some_and(|hint| header.last_offset > hint)
                    {
                        let found = format!(
                            "a batch with offsets {} to {}",
                            header.base_offset, header.last_offset
                        );
                        return Ok(Err((position, found)));
                    }
                    if header.last_offset >= target {
                        return Ok(Ok(Some(Located { position, header })));
                    }
                }
            }
        }
    }

    /// An offset that lies beyond the file range before `position`, though not the smallest such; `None` if
    /// the index has no sound entry so far on.
    pub(crate) fn upper_bound_offset(
        &self,
        place: &Place,
        position: u64,
    ) -> Result<Option<Offset>, StorageError> {
        let base = self.base_offset;
        let entry = {
            let mut state = self.state.lock();
            let index = state
                .offsets
                .partition_point(place, base, |entry| u64::from(entry.position) < position)?;
            state.offsets.get(place, base, index)?
        };
        match entry {
            Some(entry) if self.is_sound(place, &entry)? => Ok(Some(entry.offset)),
            _ => Ok(None),
        }
    }

    /// Whether a batch begins where the entry says, and it or one behind it ends at the entry's offset.
    fn is_sound(&self, place: &Place, entry: &OffsetPosition) -> Result<bool, StorageError> {
        let file = self.file(place)?;
        let (position, end) = (u64::from(entry.position), self.size_bytes());
        Ok(
            match self.scan_for(&file, position, entry.offset, end, Some(entry.offset))? {
                Ok(located) => located.is_some_and(|located| located.header.last_offset == entry.offset),
                Err(_) => false,
            },
        )
    }

    /// Whether the batch that contains the entry's offset has the entry's timestamp as its largest.
    pub(crate) fn is_sound_time(&self, place: &Place, entry: &TimestampOffset) -> Result<bool, StorageError> {
        let located = self.locate(place, entry.offset, self.size_bytes())?;
        Ok(located.is_some_and(|located| located.header.max_timestamp == entry.timestamp))
    }

    /// Whether the last entries of both indexes are what they must be, as far as the batches they name tell.
    pub(crate) fn has_sound_index_ends(&self, place: &Place) -> Result<bool, StorageError> {
        let (offset, time) = {
            let mut state = self.state.lock();
            (
                state.offsets.last(place, self.base_offset)?,
                state.times.last(place, self.base_offset)?,
            )
        };
        let offset_is_sound = match offset {
            Some(entry) => self.is_sound(place, &entry)?,
            None => true,
        };
        let time_is_sound = match time {
            Some(entry) => self.is_sound_time(place, &entry)?,
            None => true,
        };
        Ok(offset_is_sound && time_is_sound)
    }

    /// The offset after the last record; the base offset of an empty segment. Reads from the last index entry
    /// on, which must be sound.
    pub(crate) fn next_offset(&self, place: &Place) -> Result<Offset, StorageError> {
        let end = self.size_bytes();
        let last_entry = self.state.lock().offsets.last(place, self.base_offset)?;
        let from = last_entry.map_or(0, |entry| u64::from(entry.position));
        let file = self.file(place)?;
        let mut scanner = BatchScanner::new(file.as_ref(), from, end, LOOKUP_WINDOW_SIZE_BYTES);
        let mut next = self.base_offset;
        loop {
            match scanner.step()? {
                Step::Batch { header, .. } => next = header.next_offset(),
                Step::End => return Ok(next),
                Step::Bad { position, error } => {
                    return Err(self
                        .corrupt(place, position, "a batch header", error.to_string())
                        .into());
                }
            }
        }
    }

    /// Where a search for `timestamp` among the records from `from` on begins: no record before has a
    /// timestamp so late. The time-index entry used is checked against its batch; a wrong one costs a scan
    /// from the beginning.
    pub(crate) fn position_for_timestamp(
        &self,
        place: &Place,
        timestamp: TimestampMs,
        from: Offset,
    ) -> Result<u64, StorageError> {
        let base = self.base_offset;
        let entry = {
            let mut state = self.state.lock();
            let after = state
                .times
                .partition_point(place, base, |entry| entry.timestamp <= timestamp)?;
            match after.checked_sub(1) {
                Some(index) => state.times.get(place, base, index)?,
                None => None,
            }
        };
        let offset = match entry {
            Some(entry) if entry.timestamp <= timestamp && self.is_sound_time(place, &entry)? => {
                entry.offset.max(from)
            }
            _ => from,
        };
        Ok(self
            .locate(place, offset, self.size_bytes())?
            .map_or(self.size_bytes(), |located| located.position))
    }

    /// The largest timestamp by batch headers; `None` if no batch has one (format v0, or empty).
    pub(crate) fn largest_timestamp(&self, place: &Place) -> Result<Option<TimestampMs>, StorageError> {
        let largest = self.largest(place)?;
        Ok((largest.timestamp.get() >= 0).then_some(largest.timestamp))
    }

    /// The largest timestamp and where, from the last time-index entry if that is sound, else from all batch
    /// headers.
    pub(super) fn largest(&self, place: &Place) -> Result<TimestampOffset, StorageError> {
        let base = self.base_offset;
        let last = {
            let mut state = self.state.lock();
            if let Some(largest) = state.largest {
                return Ok(largest);
            }
            state.times.last(place, base)?
        };
        let largest = match last {
            Some(entry) if self.is_sound_time(place, &entry)? => entry,
            _ => {
                let none = TimestampOffset {
                    timestamp: TimestampMs::NONE,
                    offset: base,
                };
                match self.size_bytes() {
                    0 => none,
                    size => scan_largest(&self.file(place)?, 0..size, none)?,
                }
            }
        };
        Ok(*self.state.lock().largest.get_or_insert(largest))
    }

    /// When the file was last written, as the file system says.
    pub(crate) fn modified(&self, place: &Place) -> Result<TimestampMs, IoError> {
        let path = place.file(&names::file_name(self.base_offset, names::LOG));
        Ok(place
            .io
            .stat(&path)?
            .map_or(TimestampMs::NONE, |stat| stat.modified))
    }
}

/// The largest of `known` and the timestamps in the batch headers of `range`, and where.
pub(super) fn scan_largest(
    file: &FileHandle,
    range: Range<u64>,
    known: TimestampOffset,
) -> Result<TimestampOffset, IoError> {
    let mut largest = known;
    let mut scanner = BatchScanner::new(file.as_ref(), range.start, range.end, LOOKUP_WINDOW_SIZE_BYTES);
    while let Step::Batch { header, .. } = scanner.step()? {
        if header.max_timestamp > largest.timestamp {
            largest = TimestampOffset {
                timestamp: header.max_timestamp,
                offset: header.last_offset,
            };
        }
    }
    Ok(largest)
}
