//! Reading by offset and by timestamp.
//!
//! A read hands out a range of a segment file: it begins at the batch that contains the offset asked for and
//! ends at the bound, after `max_bytes`, or at the end of the segment, whichever comes first; the last batch
//! may be cut, as Kafka's consumers expect. The header of the first batch is checked; its records are not
//! read. No append lock is taken.
//!
//! A header that is not one takes the partition out of service, unless a truncation ran meanwhile: then the
//! read is repeated.
//!
//! **Deviation:** 2.7.2 looks for a timestamp in one segment only, and finds nothing if the records it has in
//! mind lie below the log start offset; here the search goes on in the next segment.
//!
//! Source: `Log.read`, `LogSegment.read`, `Log.fetchOffsetByTimestamp`, `Log.legacyFetchOffsetsBefore`;
//! KIP-33, KIP-98.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Magic;
use crate::error::{CorruptFile, ReadError, StorageError};
use crate::log::scan::{BatchScanner, SCAN_WINDOW_SIZE_BYTES, Step};
use crate::log::segment::LogSegment;
use crate::log::{
    AbortedTransactionRange, FetchInfo, FileSlice, Log, LogOffsetMetadata, Offsets, TimestampAndOffset,
    UpperBound, transaction_index,
};
use crate::units::{Offset, TimestampMs};

/// How often a read is repeated that was disturbed by truncation or deletion.
const ATTEMPTS_MAX: usize = 5;

impl Log {
    /// The range of batches from `from` on, as far as `bound` lets see; empty if `from` is at or beyond the
    /// bound.
    ///
    /// With `min_one` the first batch is included whole, however small `max_bytes`. With `flush.messages=1`
    /// no bound lets see what is not synced.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or beyond the log end; `Storage` if the bytes cannot be read or
    /// are not batches.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        bound: UpperBound,
        min_one: bool,
    ) -> Result<FetchInfo, ReadError> {
        self.repeat(|| self.try_read(from, max_bytes, bound, min_one))
    }

    /// Runs a read again if a truncation or deletion came between; damage found otherwise ends the service.
    fn repeat<T>(&self, read: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let mut attempt = 1;
        loop {
            self.check_serving()?;
            let truncations = self.truncations.load(Ordering::Acquire);
            let error = match read() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let disturbed = match &error {
                ReadError::Storage(StorageError::Io(error)) => error.kind() == ErrorKind::NotFound,
                ReadError::Storage(StorageError::Corrupt(_)) => {
                    self.truncations.load(Ordering::Acquire) != truncations
                }
                _ => return Err(error),
            };
            if !disturbed || attempt == ATTEMPTS_MAX {
                return Err(match error {
                    ReadError::Storage(StorageError::Corrupt(damage)) => {
                        self.take_out_of_service(&damage).into()
                    }
                    error => error,
                });
            }
            attempt += 1;
        }
    }

    fn try_read(
        &self,
        from: Offset,
        max_bytes: usize,
        bound: UpperBound,
        min_one: bool,
    ) -> Result<FetchInfo, ReadError> {
        let offsets = *self.offsets.lock();
        let segments = self.segments.load();
        if from < offsets.log_start || from > offsets.end.offset {
            return Err(self.out_of_range(&offsets, &segments, from));
        }
        let end = self.bound_offset(&offsets, bound);
        let mut info = FetchInfo {
            records: None,
            fetch_offset: offsets.end,
            log_start_offset: offsets.log_start,
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable(),
            log_end_offset: offsets.end.offset,
            aborted_transactions: (bound == UpperBound::LastStable).then(Vec::new),
            first_entry_incomplete: false,
        };
        if from >= end {
            info.fetch_offset = self.locate_offset(&offsets, &segments, from)?;
            return Ok(info);
        }
        // Retention lets segments go before it raises the log start: later records are no answer.
        if from < segments[0].base_offset {
            return Err(self.out_of_range(&offsets, &segments, from));
        }
        let first = segments
            .partition_point(|segment| segment.base_offset <= from)
            .saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            if segment.base_offset >= end {
                break;
            }
            // The bound's own position matters only in the segment that holds it.
            let ends_later = segments
                .get(index + 1)
                .is_some_and(|next| next.base_offset <= end);
            let limit = if ends_later {
                segment.size_bytes()
            } else {
                let bound = self.locate_offset(&offsets, &segments, end)?;
                if bound.segment_base_offset == segment.base_offset {
                    bound.position
                } else {
                    segment.size_bytes()
                }
            };
            let Some(located) = segment.locate(&self.place, from, limit)? else {
                continue;
            };
            info.fetch_offset = LogOffsetMetadata {
                offset: from,
                segment_base_offset: segment.base_offset,
                position: located.position,
            };
            let first_size = located.header.size_bytes;
            let wanted = if min_one {
                max_bytes.max(first_size)
            } else {
                max_bytes
            };
            if wanted == 0 {
                return Ok(info);
            }
            let available = usize::try_from(limit - located.position).unwrap_or(usize::MAX);
            let size_bytes = wanted.min(available);
            info.first_entry_incomplete = wanted < first_size;
            info.records = Some(FileSlice {
                file: segment.file(&self.place).map_err(StorageError::from)?,
                position: located.position,
                size_bytes,
            });
            let has_aborted = |segment: &Arc<LogSegment>| !segment.state.lock().transactions.is_known_empty();
            if let Some(aborted) = &mut info.aborted_transactions
                && segments[index..].iter().any(has_aborted)
            {
                let position = located.position + size_bytes as u64;
                let upper_bound = match segment.upper_bound_offset(&self.place, position)? {
                    Some(offset) => offset,
                    None => segments
                        .get(index + 1)
                        .map_or(offsets.end.offset, |next| next.base_offset),
                };
                self.collect_aborted(&segments[index..], from, upper_bound, aborted)?;
            }
            return Ok(info);
        }
        Ok(info)
    }

    /// Where `bound` is now.
    fn bound_offset(&self, offsets: &Offsets, bound: UpperBound) -> Offset {
        let end = match bound {
            UpperBound::LogEnd => offsets.end.offset,
            UpperBound::HighWatermark => offsets.high_watermark,
            UpperBound::LastStable => offsets.last_stable(),
        };
        if self.is_synced_mode() {
            end.min(offsets.synced_end)
        } else {
            end
        }
    }

    /// The batch boundary at `offset`, which a bound is; the batch that contains it otherwise.
    fn locate_offset(
        &self,
        offsets: &Offsets,
        segments: &[Arc<LogSegment>],
        offset: Offset,
    ) -> Result<LogOffsetMetadata, StorageError> {
        if offset >= offsets.end.offset {
            return Ok(offsets.end);
        }
        if let Some(known) = offsets
            .known
            .iter()
            .flatten()
            .find(|known| known.offset == offset)
        {
            return Ok(*known);
        }
        let first = segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1);
        for segment in &segments[first..] {
            if let Some(located) = segment.locate(&self.place, offset, segment.size_bytes())? {
                let found = LogOffsetMetadata {
                    offset,
                    segment_base_offset: segment.base_offset,
                    position: located.position,
                };
                let mut offsets = self.offsets.lock();
                let is_bound =
                    [offsets.high_watermark, offsets.last_stable(), offsets.synced_end].contains(&offset);
                if is_bound {
                    offsets.known.rotate_right(1);
                    offsets.known[0] = Some(found);
                }
                return Ok(found);
            }
        }
        Ok(offsets.end)
    }

    /// Where the batch that contains `offset` begins; the log end for the log end offset.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn offset_metadata(&self, offset: Offset) -> Result<LogOffsetMetadata, ReadError> {
        self.repeat(|| {
            let offsets = *self.offsets.lock();
            let segments = self.segments.load();
            let is_gone = offset < offsets.end.offset && offset < segments[0].base_offset;
            if is_gone || offset < offsets.log_start || offset > offsets.end.offset {
                return Err(self.out_of_range(&offsets, &segments, offset));
            }
            Ok(self.locate_offset(&offsets, &segments, offset)?)
        })
    }

    fn out_of_range(&self, offsets: &Offsets, segments: &[Arc<LogSegment>], found: Offset) -> ReadError {
        ReadError::OffsetOutOfRange {
            partition: self.partition.clone(),
            found,
            log_start_offset: offsets
                .log_start
                .max(segments[0].base_offset.min(offsets.end.offset)),
            upper_bound: offsets.end.offset,
        }
    }

    /// Adds the aborted transactions that touch `[from, upper_bound)`, from the first of `segments` on.
    fn collect_aborted(
        &self,
        segments: &[Arc<LogSegment>],
        from: Offset,
        upper_bound: Offset,
        aborted: &mut Vec<AbortedTransactionRange>,
    ) -> Result<(), StorageError> {
        let mut found = Vec::new();
        for segment in segments {
            let base = segment.base_offset;
            let entries = {
                let mut state = segment.state.lock();
                if state.transactions.is_known_empty() {
                    continue;
                }
                state.transactions.entries(&self.place, base)?
            };
            let entries = entries.map_err(|found| CorruptFile {
                path: self
                    .place
                    .file(&super::names::file_name(base, super::names::TRANSACTION_INDEX)),
                position: 0,
                expected: "aborted transactions".to_owned(),
                found,
            })?;
            if transaction_index::collect(&entries, from, upper_bound, &mut found) {
                break;
            }
        }
        aborted.extend(
            found
                .into_iter()
                .map(|(producer_id, first_offset)| AbortedTransactionRange {
                    producer_id,
                    first_offset,
                }),
        );
        Ok(())
    }

    /// The first record at or after the log start whose timestamp is `target` or later, if it lies below
    /// `bound`. Looks into batches, decompressing at most those whose largest timestamp is late enough.
    ///
    /// # Errors
    /// `Storage` if the bytes cannot be read or are not batches.
    pub fn offset_for_timestamp(
        &self,
        target: TimestampMs,
        bound: UpperBound,
    ) -> Result<Option<TimestampAndOffset>, ReadError> {
        let found = self.repeat(|| self.try_offset_for_timestamp(target))?;
        let offsets = *self.offsets.lock();
        let end = self.bound_offset(&offsets, bound);
        Ok(found.filter(|found| found.offset < end))
    }

    fn try_offset_for_timestamp(&self, target: TimestampMs) -> Result<Option<TimestampAndOffset>, ReadError> {
        let log_start = self.log_start_offset();
        for segment in self.segments.load_full().iter() {
            let place = &self.place;
            let largest = match segment.largest_timestamp(place)? {
                Some(largest) => largest,
                None => segment.modified(place)?,
            };
            if largest < target {
                continue;
            }
            let position = segment.position_for_timestamp(place, target, log_start)?;
            let size = segment.size_bytes();
            if position >= size {
                continue;
            }
            // Nothing, where all that is late enough lies below the log start: the next segment may have
            // more.
            if let Some(found) = self.search_timestamp(segment, position, size, target, log_start)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn search_timestamp(
        &self,
        segment: &LogSegment,
        position: u64,
        end: u64,
        target: TimestampMs,
        log_start: Offset,
    ) -> Result<Option<TimestampAndOffset>, StorageError> {
        let file = segment.file(&self.place)?;
        let mut scanner =
            BatchScanner::new(file.as_ref(), position, end, SCAN_WINDOW_SIZE_BYTES.min(64 << 10));
        loop {
            let (position, header) = match scanner.step()? {
                Step::End => return Ok(None),
                Step::Batch { position, header } => (position, header),
                // A wrong index entry: from the beginning, once.
                Step::Bad { .. } if position > 0 => {
                    return self.search_timestamp(segment, 0, end, target, log_start);
                }
                Step::Bad { position, error } => {
                    return Err(segment
                        .corrupt(&self.place, position, "a batch header", error.to_string())
                        .into());
                }
            };
            if header.max_timestamp < target || header.last_offset < log_start {
                continue;
            }
            let damage = |error: crate::record_batch::BatchError| {
                segment.corrupt(&self.place, position, "a batch", error.to_string())
            };
            let batch = scanner.batch(position, &header)?.map_err(damage)?;
            batch.verify_crc().map_err(damage)?;
            let mut records = batch.records().map_err(damage)?;
            while let Some(record) = records.next_record().map_err(damage)? {
                if record.timestamp >= target && record.offset >= log_start {
                    return Ok(Some(TimestampAndOffset {
                        timestamp: record.timestamp,
                        offset: record.offset,
                        leader_epoch: header.leader_epoch,
                    }));
                }
            }
        }
    }

    /// Offsets for ListOffsets v0, latest first, at most `count_max`: the base offsets of segments last
    /// written at or before `timestamp` (−1 = latest, −2 = earliest), and the log end among the latest.
    ///
    /// # Errors
    /// `Storage` if a file cannot be looked at.
    pub fn segment_base_offsets_before(
        &self,
        timestamp: i64,
        count_max: usize,
    ) -> Result<Vec<Offset>, ReadError> {
        self.check_serving()?;
        let offsets = *self.offsets.lock();
        let segments = self.segments.load_full();
        let mut times = Vec::with_capacity(segments.len() + 1);
        for segment in segments.iter() {
            times.push((
                segment.base_offset.max(offsets.log_start),
                segment.modified(&self.place)?,
            ));
        }
        if segments.last().is_some_and(|last| !last.is_empty()) {
            times.push((offsets.end.offset, self.clock.wall()));
        }
        let count = match timestamp {
            -1 => times.len(),
            -2 => 1,
            _ => times
                .iter()
                .rposition(|(_, modified)| modified.get() <= timestamp)
                .map_or(0, |index| index + 1),
        };
        let mut found: Vec<Offset> = times[..count]
            .iter()
            .rev()
            .take(count_max)
            .map(|(offset, _)| *offset)
            .collect();
        found.sort_unstable_by(|left, right| right.cmp(left));
        Ok(found)
    }

    /// Whether timestamps can be searched for: not in logs of message format v0.
    pub fn has_timestamps(&self) -> bool {
        self.config.load().message_format != Magic::V0
    }
}
