//! [`AppendCursor`]: where an append has got to in a segment, before anything of it is visible.
//!
//! It takes the index, time-index and roll decisions for one batch after another as though each had been
//! appended alone; the same code rebuilds indexes, so that an index equals its rebuild. Source:
//! `LogSegment.append`, `LogSegment.shouldRoll`.

use crate::config::LogConfig;
use crate::io::FileHandle;
use crate::log::offset_index::{OffsetPosition, is_in_reach};
use crate::log::sparse_index::Entry;
use crate::log::time_index::TimestampOffset;
use crate::units::{Offset, TimestampMs};

/// A smaller segment reserves nothing, so that many small logs take no more than they hold.
const RESERVE_FROM_SIZE_BYTES: u64 = 4 << 20;
/// Most that is reserved at a time.
const RESERVE_SIZE_BYTES_MAX: u64 = 8 << 20;

/// What decides whether a segment must end before the next set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollParams<'a> {
    pub(crate) config: &'a LogConfig,
    pub(crate) jitter_ms: i64,
    pub(crate) set_size_bytes: u64,
    pub(crate) max_timestamp: TimestampMs,
    pub(crate) last_offset: Offset,
    pub(crate) now: TimestampMs,
}

/// Where an append of several sets has got to in one segment; nothing of it is visible until it is committed.
#[derive(Debug)]
pub(crate) struct AppendCursor {
    pub(super) base_offset: Offset,
    /// Where the next batch goes.
    pub(crate) position: u64,
    /// Up to where space was asked for; 0 if it was not.
    pub(super) reserved_end: u64,
    pub(super) bytes_since_entry: u64,
    pub(super) created: TimestampMs,
    pub(super) first_timestamp: Option<TimestampMs>,
    pub(super) largest: TimestampOffset,
    pub(super) last_time: TimestampMs,
    pub(super) offset_count: u32,
    pub(super) time_count: u32,
    pub(crate) new_offsets: Vec<OffsetPosition>,
    pub(crate) new_times: Vec<TimestampOffset>,
}

impl AppendCursor {
    /// Whether the segment must end before the set: because of its size, its age, a full index, or an offset
    /// that the index cannot hold.
    pub(crate) fn should_roll(&self, params: &RollParams<'_>) -> bool {
        let config = params.config;
        let roll_ms = if config.cleanup_policy.compact {
            config.segment_ms.min(config.max_compaction_lag_ms)
        } else {
            config.segment_ms
        };
        let waited_ms = match self.first_timestamp {
            Some(first) if first.get() >= 0 => params.max_timestamp.get().saturating_sub(first.get()),
            _ => params.now.get().saturating_sub(self.created.get()),
        };
        let index_size_bytes = config.segment_index_size_bytes;
        let (offsets_max, times_max) = index_counts_max(index_size_bytes);
        let is_empty = self.position == 0;
        self.position + params.set_size_bytes > u64::from(config.segment_size_bytes)
            || (!is_empty && waited_ms > roll_ms.saturating_sub(params.jitter_ms))
            || (!is_empty && (self.offset_count >= offsets_max || self.time_count + 1 >= times_max))
            || !is_in_reach(params.last_offset, self.base_offset)
    }

    /// For a walk from `position` on, behind `counts` index entries of which the last names `position` (or
    /// none).
    pub(crate) fn at(
        base_offset: Offset,
        position: u64,
        largest: Option<TimestampOffset>,
        counts: (u32, u32),
        now: TimestampMs,
    ) -> AppendCursor {
        let largest = largest.unwrap_or(TimestampOffset {
            timestamp: TimestampMs::NONE,
            offset: base_offset,
        });
        AppendCursor {
            base_offset,
            position,
            reserved_end: 0,
            bytes_since_entry: 0,
            created: now,
            first_timestamp: None,
            largest,
            last_time: largest.timestamp,
            offset_count: counts.0,
            time_count: counts.1,
            new_offsets: Vec::new(),
            new_times: Vec::new(),
        }
    }

    /// Asks for the space of the next appends, a part of what the segment has so far. The file system would otherwise
    /// look for it page by page, for an eighth of the CPU of an append (ext4), and lay logs that grow side by side
    /// in pieces.
    pub(crate) fn reserve(&mut self, file: &FileHandle, segment_size_bytes: u32) {
        if self.position <= self.reserved_end || self.position < RESERVE_FROM_SIZE_BYTES {
            return;
        }
        let chunk = (self.position / 4).min(RESERVE_SIZE_BYTES_MAX);
        let end = (self.position + chunk).min(u64::from(segment_size_bytes));
        file.reserve(self.position, end);
        self.reserved_end = end.max(self.position);
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The entry that closes the time index, if it says something new.
    pub(crate) fn closing_time(&self) -> Option<TimestampOffset> {
        (self.largest.timestamp > self.last_time).then_some(self.largest)
    }

    /// What is to be committed; the cursor goes on from there.
    pub(crate) fn take(&mut self) -> AppendCursor {
        let new_offsets = std::mem::take(&mut self.new_offsets);
        let new_times = std::mem::take(&mut self.new_times);
        AppendCursor {
            new_offsets,
            new_times,
            ..*self
        }
    }

    /// Takes one batch that is to be written at `self.position`.
    pub(crate) fn add(&mut self, size: u64, last_offset: Offset, max_timestamp: TimestampMs, interval: u32) {
        if self.position == 0 {
            self.first_timestamp = Some(max_timestamp);
        }
        if max_timestamp > self.largest.timestamp {
            self.largest = TimestampOffset {
                timestamp: max_timestamp,
                offset: last_offset,
            };
        }
        if self.bytes_since_entry > u64::from(interval) {
            let position = u32::try_from(self.position).expect("segment.bytes is below 2 GiB");
            self.new_offsets.push(OffsetPosition {
                offset: last_offset,
                position,
            });
            self.offset_count += 1;
            if self.largest.timestamp > self.last_time {
                self.new_times.push(self.largest);
                self.last_time = self.largest.timestamp;
                self.time_count += 1;
            }
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += size;
        self.position += size;
    }
}

/// Most entries of `.index` and `.timeindex`.
fn index_counts_max(index_size_bytes: u32) -> (u32, u32) {
    (
        index_size_bytes / OffsetPosition::SIZE_BYTES as u32,
        index_size_bytes / TimestampOffset::SIZE_BYTES as u32,
    )
}
