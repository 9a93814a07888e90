//! Retention: old segments leave the log by time, by size, or because the log start offset has passed them.
//!
//! A segment leaves in two steps: its files are renamed to `.deleted` (a reader that holds it goes on), and
//! after `file.delete.delay.ms` they are removed. The log starts no timer: [`Log::next_deletion_due`] says
//! when, and the log manager calls [`Log::run_due_deletions`]. What is left behind by a crash is removed at
//! the next start.
//!
//! A segment goes only if its successor begins at or below the high watermark, oldest first, and never the
//! last one unless another was rolled. A log that is compacted alone loses only what lies below the log start
//! offset.
//!
//! Source: `Log.deleteOldSegments`, `Log.maybeIncrementLogStartOffset`; KIP-107.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ReadError, StorageError};
use crate::log::segment::LogSegment;
use crate::log::{Log, State, snapshots};
use crate::units::Offset;

/// Renamed segments and when their files go, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct DelayedDeletions {
    queue: VecDeque<(Duration, Offset)>,
}

/// Why the log start offset moves; for the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStartOffsetIncrementReason {
    ClientRecordDeletion,
    LeaderOffsetIncremented,
    SegmentDeletion,
}

impl fmt::Display for LogStartOffsetIncrementReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogStartOffsetIncrementReason::ClientRecordDeletion => "client delete records request",
            LogStartOffsetIncrementReason::LeaderOffsetIncremented => "leader offset increment",
            LogStartOffsetIncrementReason::SegmentDeletion => "segment deletion",
        })
    }
}

impl Log {
    /// Raises the log start offset; nothing happens if it is there already. Returns whether it moved. Durable
    /// with the next log start checkpoint.
    ///
    /// # Errors
    /// `OffsetOutOfRange` above the high watermark; `Storage` if the epoch file could not be written.
    pub fn advance_log_start_offset(
        &self,
        offset: Offset,
        reason: LogStartOffsetIncrementReason,
    ) -> Result<bool, ReadError> {
        self.check_serving()?;
        {
            let mut state = self.state.lock();
            let offsets = *self.offsets.lock();
            if offset > offsets.high_watermark {
                return Err(ReadError::OffsetOutOfRange {
                    partition: self.partition.clone(),
                    found: offset,
                    log_start_offset: offsets.log_start,
                    upper_bound: offsets.high_watermark,
                });
            }
            if offset <= offsets.log_start {
                return Ok(false);
            }
            self.raise_log_start(&mut state, offset, reason)?;
        }
        self.notify();
        Ok(true)
    }

    /// Raises the log start offset, and the high watermark with it if need be. Under the append lock.
    ///
    /// **Deviation:** 2.7.2 raises the recovery point too, though nothing was synced. After a power cut the
    /// bytes below, which may be torn, would pass for synced.
    fn raise_log_start(
        &self,
        state: &mut State,
        offset: Offset,
        reason: LogStartOffsetIncrementReason,
    ) -> Result<(), StorageError> {
        {
            let mut offsets = self.offsets.lock();
            if offset <= offsets.log_start {
                return Ok(());
            }
            offsets.log_start = offset;
            offsets.high_watermark = offsets.high_watermark.max(offset);
        }
        tracing::info!(
            "{}: incremented log start offset to {offset} due to {reason}",
            self.partition
        );
        if state.epochs.truncate_from_start(offset) {
            self.store_epochs(state)?;
        }
        snapshots::remove(&self.place, |snapshot| snapshot < offset)?;
        let latest = snapshots::list(&self.place)?.last().copied();
        state.producers.truncate_head(offset, latest);
        self.publish_first_unstable(state);
        Ok(())
    }

    /// Lets go what `retention.ms`, `retention.bytes` and the log start offset no longer keep. Returns how
    /// many segments.
    ///
    /// # Errors
    /// A file could not be renamed or looked at; for a rename the directory is offline then.
    pub fn delete_old_segments(&self) -> Result<usize, StorageError> {
        self.check_serving()?;
        let config = self.config.load_full();
        let mut count = 0;
        if config.cleanup_policy.delete {
            if let Some(retention_ms) = config.retention_ms {
                let now = self.clock.wall();
                count += self.delete_while("retention time", |segment, _| {
                    let largest = match segment.largest_timestamp(&self.place)? {
                        Some(largest) => largest,
                        None => segment.modified(&self.place)?,
                    };
                    Ok(now.get().saturating_sub(largest.get()) > retention_ms)
                })?;
            }
            if let Some(retention_bytes) = config.retention_bytes {
                let mut excess = self.size_bytes().saturating_sub(retention_bytes);
                if self.size_bytes() >= retention_bytes {
                    count += self.delete_while("retention size", |segment, _| {
                        let size = segment.size_bytes();
                        let goes = excess >= size;
                        excess = excess.saturating_sub(size);
                        Ok(goes)
                    })?;
                }
            }
        }
        let log_start = self.log_start_offset();
        count += self.delete_while("log start offset", |_, next| {
            Ok(next.is_some_and(|next| next.base_offset <= log_start))
        })?;
        Ok(count)
    }

    /// Deletes from the oldest segment on while `goes` says so and the high watermark has passed.
    fn delete_while(
        &self,
        breach: &str,
        mut goes: impl FnMut(&LogSegment, Option<&LogSegment>) -> Result<bool, StorageError>,
    ) -> Result<usize, StorageError> {
        let count = {
            let mut state = self.state.lock();
            let segments = self.segments.load_full();
            let (high_watermark, end) = {
                let offsets = self.offsets.lock();
                (offsets.high_watermark, offsets.end.offset)
            };
            let mut count = 0;
            for (index, segment) in segments.iter().enumerate() {
                let next = segments.get(index + 1);
                let upper_bound = next.map_or(end, |next| next.base_offset);
                let is_last_and_empty = next.is_none() && segment.is_empty();
                if high_watermark < upper_bound || is_last_and_empty || !goes(segment, next.map(Arc::as_ref))?
                {
                    break;
                }
                count += 1;
            }
            if count == 0 {
                return Ok(0);
            }
            if count == segments.len() {
                self.roll_to(&mut state, Offset::ZERO, self.clock.wall())?;
            }
            let segments = self.segments.load_full();
            let (doomed, kept) = segments.split_at(count);
            for segment in doomed {
                tracing::info!(
                    "{}: deleting segment {} ({} bytes) due to {breach} breach",
                    self.partition,
                    segment.base_offset,
                    segment.size_bytes()
                );
            }
            self.segments.store(Arc::new(kept.to_vec()));
            // One after the other, each durable before the next: after a power cut some of them may be back,
            // and what is left must have no gap; once all are gone the first segment's name tells the log
            // start, for good.
            for segment in doomed {
                self.delete_segments(vec![segment.clone()])?;
                self.settle_names()?;
            }
            let new_start = kept.first().map_or(end, |segment| segment.base_offset);
            self.raise_log_start(
                &mut state,
                new_start,
                LogStartOffsetIncrementReason::SegmentDeletion,
            )?;
            count
        };
        self.notify();
        self.start_round();
        Ok(count)
    }

    /// Renames the files of segments that are no longer in the list; they are removed later.
    pub(super) fn delete_segments(&self, doomed: Vec<Arc<LogSegment>>) -> Result<(), StorageError> {
        if doomed.is_empty() {
            return Ok(());
        }
        let delay = Duration::from_millis(self.config.load().file_delete_delay_ms);
        let due = self.clock.monotonic().saturating_add(delay);
        for segment in doomed {
            segment.mark_deleted(&self.place)?;
            self.deletions.lock().queue.push_back((due, segment.base_offset));
        }
        self.directory_changed();
        Ok(())
    }

    /// When [`Log::run_due_deletions`] has something to do, by the monotonic clock.
    pub fn next_deletion_due(&self) -> Option<Duration> {
        self.deletions.lock().queue.front().map(|(due, _)| *due)
    }

    /// Removes the files of segments whose delay has passed; returns how many segments.
    ///
    /// # Errors
    /// A file could not be removed; the directory is offline then.
    pub fn run_due_deletions(&self) -> Result<usize, StorageError> {
        let now = self.clock.monotonic();
        let mut count = 0;
        loop {
            let due = {
                let mut deletions = self.deletions.lock();
                match deletions.queue.front() {
                    Some((due, _)) if *due <= now => deletions.queue.pop_front(),
                    _ => None,
                }
            };
            let Some((_, base_offset)) = due else {
                return Ok(count);
            };
            self.place.directory.check_online()?;
            LogSegment::remove_deleted(&self.place, base_offset)?;
            count += 1;
        }
    }
}
