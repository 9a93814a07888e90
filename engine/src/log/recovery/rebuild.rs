//! Walking a segment's batches to rebuild what is derived from them: indexes, transaction index, producer
//! state, epochs.
//!
//! Nothing is written while walking: a [`Rebuilt`] is applied once all segments were judged.

use std::sync::Arc;

use crate::config::Magic;
use crate::error::{CorruptFile, IoError, StorageError};
use crate::log::appender::producer_batch;
use crate::log::leader_epoch_cache::LeaderEpochCache;
use crate::log::names;
use crate::log::offset_index::{OffsetPosition, is_in_reach};
use crate::log::producer_state::{AbortedTransaction, ProducerStateManager};
use crate::log::scan::{self, BatchScanner, LOOKUP_WINDOW_SIZE_BYTES, Step};
use crate::log::segment::{AppendCursor, LogSegment};
use crate::log::time_index::TimestampOffset;
use crate::record_batch::BatchHeader;
use crate::units::{Offset, TimestampMs};

use super::{CHECK_WINDOW_SIZE_BYTES, Loader, LogOpenError, load_snapshot, replay};

/// The leading part of a segment's derived files that stays as it is.
#[derive(Clone, Debug)]
pub(super) struct KeptPrefix {
    /// The last entry kept: the walk begins at its batch.
    entry: OffsetPosition,
    /// The first offset of that batch.
    pub(super) from: Offset,
    offset_count: u32,
    time_count: u32,
    largest: TimestampOffset,
}

/// The first thing in a segment that is not a sound batch.
#[derive(Clone, Debug)]
pub(super) struct Bad {
    pub(super) position: u64,
    /// What is wrong.
    pub(super) found: String,
    /// Of the batch, if its header can be believed.
    pub(super) size_bytes: Option<u64>,
    /// The file ends before the batch does.
    pub(super) is_partial: bool,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// Bytes of sound batches.
    pub(super) size_bytes: u64,
    pub(super) next_offset: Offset,
    pub(super) bad: Option<Bad>,
    kept: Option<KeptPrefix>,
    cursor: AppendCursor,
    aborted: Vec<AbortedTransaction>,
    /// `aborted` holds all there are; otherwise the entries of the file below this offset stay.
    aborted_from: Option<Offset>,
}

/// Takes a batch with a producer id into the state, reading the marker if it is one. What is unreadable
/// changes nothing.
pub(super) fn apply_producer(
    producers: &mut ProducerStateManager,
    scanner: &mut BatchScanner<'_>,
    position: u64,
    header: &BatchHeader,
) -> Result<Option<AbortedTransaction>, IoError> {
    let control = if header.is_control {
        scanner
            .batch(position, header)?
            .ok()
            .and_then(|batch| batch.control_record().ok())
    } else {
        None
    };
    Ok(producer_batch(header, control).and_then(|batch| producers.apply(&batch)))
}

impl Loader<'_> {
    /// Builds missing or unreadable index files of segments below the recovery point, where every batch must
    /// be sound.
    pub(super) fn complete_indexes(
        &self,
        segments: &[Arc<LogSegment>],
        log_start: Offset,
    ) -> Result<(), LogOpenError> {
        let recovery_point = self.options.recovery_point;
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|next| next.base_offset);
            let is_checked_later =
                !self.options.clean_shutdown && next.is_none_or(|next| next > recovery_point);
            if is_checked_later {
                break;
            }
            let base = segment.base_offset;
            let exists = |suffix| {
                self.place
                    .io
                    .stat(&self.place.file(&names::file_name(base, suffix)))
            };
            let transactions = segment.state.lock().transactions.entries(self.place, base)?;
            let reason = if exists(names::OFFSET_INDEX)?.is_none() {
                "it has no offset index".to_owned()
            } else if exists(names::TIME_INDEX)?.is_none() {
                "it has no time index".to_owned()
            } else if let Err(reason) = &transactions {
                format!("its transaction index is not one: {reason}")
            } else {
                continue;
            };
            let because = "it lies where everything was synced";
            self.rebuild_in_place(segment, &segments[..index], log_start, because, &reason)?;
        }
        Ok(())
    }

    /// Builds all derived files of a segment anew, of which every batch must be sound. Returns the offset
    /// after its last.
    pub(super) fn rebuild_in_place(
        &self,
        segment: &LogSegment,
        older: &[Arc<LogSegment>],
        log_start: Offset,
        because: &str,
        reason: &str,
    ) -> Result<Offset, LogOpenError> {
        let base = segment.base_offset;
        tracing::info!(
            "{}: rebuilding the indexes of segment {base}: {reason}",
            self.partition
        );
        let mut producers =
            ProducerStateManager::new(self.partition.clone(), self.options.producer_id_expiration_ms);
        load_snapshot(self.place, &mut producers, log_start, base, self.now)?;
        replay(self.place, &mut producers, older, base)
            .map_err(|error| self.must_be_whole(error, because))?;
        let rebuilt = self.walk(segment, None, Offset::ZERO, base, &mut producers, None)?;
        if let Some(bad) = &rebuilt.bad {
            let file = segment.file(self.place)?;
            if !scan::is_zero(file.as_ref(), bad.position, segment.size_bytes())? {
                return Err(self.out_of_service(&self.damage(segment, bad), because, None));
            }
        }
        self.apply(segment, &rebuilt)?;
        // Recovery will not look at them again, so that they must be durable like the records.
        for file in segment.index_files(self.place)? {
            file.sync().map_err(|error| self.place.fatal(error))?;
        }
        Ok(rebuilt.next_offset)
    }

    /// `bad` as damage of the segment's file.
    pub(super) fn damage(&self, segment: &LogSegment, bad: &Bad) -> CorruptFile {
        segment.corrupt(self.place, bad.position, "a sound batch", bad.found.clone())
    }

    /// The part of the segment's derived files below `limit` (synced with the records) that need not be built
    /// anew; `None` if there is none to speak of, or if it is not what it must be.
    pub(super) fn trusted_prefix(
        &self,
        segment: &LogSegment,
        limit: Offset,
    ) -> Result<Option<KeptPrefix>, StorageError> {
        let (place, base) = (self.place, segment.base_offset);
        if limit <= base {
            return Ok(None);
        }
        let mut state = segment.state.lock();
        if state.transactions.entries(place, base)?.is_err() {
            return Ok(None);
        }
        let mut last: Option<OffsetPosition> = None;
        let mut offset_count = 0;
        while let Some(entry) = state.offsets.get(place, base, offset_count)? {
            let follows = match last {
                None => entry.offset >= base && entry.position > 0,
                Some(last) => entry.offset > last.offset && entry.position > last.position,
            };
            if entry.offset >= limit {
                break;
            }
            if !follows {
                return Ok(None);
            }
            last = Some(entry);
            offset_count += 1;
        }
        let Some(entry) = last else { return Ok(None) };
        let mut largest: Option<TimestampOffset> = None;
        let mut time_count = 0;
        while let Some(time) = state.times.get(place, base, time_count)? {
            if time.offset > entry.offset {
                break;
            }
            let follows =
                largest.is_none_or(|last| time.timestamp > last.timestamp && time.offset >= last.offset);
            if time.offset < base || !follows {
                return Ok(None);
            }
            largest = Some(time);
            time_count += 1;
        }
        drop(state);
        let none = TimestampOffset {
            timestamp: TimestampMs::NONE,
            offset: base,
        };
        let file = segment.file(place)?;
        let mut scanner = BatchScanner::new(
            file.as_ref(),
            u64::from(entry.position),
            segment.size_bytes(),
            LOOKUP_WINDOW_SIZE_BYTES,
        );
        let Step::Batch { header, .. } = scanner.step()? else {
            return Ok(None);
        };
        let kept = KeptPrefix {
            entry,
            from: header.base_offset,
            offset_count,
            time_count,
            largest: largest.unwrap_or(none),
        };
        let largest_is_sound = match largest {
            Some(largest) => segment.is_sound_time(place, &largest)?,
            None => true,
        };
        // The entry names the last batch of its set; one that names none would not be believed by the next start.
        let mut last_offset = header.last_offset;
        while last_offset < entry.offset {
            let Step::Batch { header, .. } = scanner.step()? else {
                return Ok(None);
            };
            last_offset = header.last_offset;
        }
        let is_sound =
            last_offset == entry.offset && header.max_timestamp <= kept.largest.timestamp && largest_is_sound;
        Ok(is_sound.then_some(kept))
    }

    /// Walks the segment's batches, from the kept prefix on if there is one: headers below `checked_from`,
    /// headers and CRC from there on. Batches below `expected` or out of order are not sound. `producers`
    /// takes what it does not cover yet.
    pub(super) fn walk(
        &self,
        segment: &LogSegment,
        kept: Option<KeptPrefix>,
        checked_from: Offset,
        expected: Offset,
        producers: &mut ProducerStateManager,
        mut epochs: Option<&mut LeaderEpochCache>,
    ) -> Result<Rebuilt, LogOpenError> {
        let base = segment.base_offset;
        let end = segment.size_bytes();
        let file = segment.file(self.place)?;
        let start = kept.as_ref().map_or(0, |kept| u64::from(kept.entry.position));
        let largest = kept.as_ref().map(|kept| kept.largest);
        let counts = kept
            .as_ref()
            .map_or((0, 0), |kept| (kept.offset_count, kept.time_count));
        let mut cursor = AppendCursor::at(base, start, largest, counts, self.now);
        let aborted_from = kept.as_ref().map(|_| producers.map_end_offset());
        let covered = producers.map_end_offset();
        let mut scanner = BatchScanner::new(file.as_ref(), start, end, LOOKUP_WINDOW_SIZE_BYTES);
        let mut next_offset = if kept.is_some() { base } else { expected.max(base) };
        let mut aborted = Vec::new();
        let mut is_checking = false;
        let bad = loop {
            let (position, header) = match scanner.step()? {
                Step::End => break None,
                Step::Bad { position, error } => {
                    let is_partial = error.is_partial();
                    break Some(Bad {
                        position,
                        found: error.to_string(),
                        size_bytes: None,
                        is_partial,
                    });
                }
                Step::Batch { position, header } => (position, header),
            };
            let size = header.size_bytes as u64;
            let unsound = |found: String| Bad {
                position,
                found,
                size_bytes: Some(size),
                is_partial: false,
            };
            if header.base_offset < next_offset || !is_in_reach(header.last_offset, base) {
                let (first, last) = (header.base_offset, header.last_offset);
                break Some(unsound(format!(
                    "offsets {first} to {last}, where {next_offset} or more are due"
                )));
            }
            if header.last_offset >= checked_from {
                if !is_checking {
                    is_checking = true;
                    scanner.widen(CHECK_WINDOW_SIZE_BYTES);
                }
                let sound = scanner
                    .batch(position, &header)?
                    .and_then(|batch| batch.verify_crc());
                if let Err(error) = sound {
                    break Some(unsound(error.to_string()));
                }
            }
            if header.producer.is_some() && header.last_offset >= covered {
                aborted.extend(apply_producer(producers, &mut scanner, position, &header)?);
            }
            if let (Some(epochs), Magic::V2, Some(epoch)) =
                (epochs.as_deref_mut(), header.magic, header.leader_epoch)
                && self.config.message_format == Magic::V2
                && epochs.latest_epoch().is_none_or(|latest| epoch > latest)
            {
                epochs.assign(epoch, header.base_offset);
            }
            cursor.add(
                size,
                header.last_offset,
                header.max_timestamp,
                self.config.index_interval_bytes,
            );
            next_offset = header.next_offset();
        };
        producers.set_map_end_offset(producers.map_end_offset().max(next_offset));
        Ok(Rebuilt {
            size_bytes: cursor.position,
            next_offset,
            bad,
            kept,
            cursor,
            aborted,
            aborted_from,
        })
    }

    /// Writes what a walk found: the file ends behind the last sound batch, the indexes are its own.
    pub(super) fn apply(&self, segment: &LogSegment, rebuilt: &Rebuilt) -> Result<(), LogOpenError> {
        let (place, base) = (self.place, segment.base_offset);
        if rebuilt.size_bytes < segment.size_bytes() {
            let file = segment.file(place)?;
            file.set_len(rebuilt.size_bytes)
                .map_err(|error| place.fatal(error))?;
        }
        {
            let mut state = segment.state.lock();
            let counts = rebuilt
                .kept
                .as_ref()
                .map_or((0, 0), |kept| (kept.offset_count, kept.time_count));
            state.offsets.truncate(place, base, counts.0)?;
            state.times.truncate(place, base, counts.1)?;
            let mut transactions = match rebuilt.aborted_from {
                Some(_) => state.transactions.entries(place, base)?.unwrap_or_default(),
                None => Vec::new(),
            };
            let from = rebuilt.aborted_from.unwrap_or(base);
            transactions.retain(|entry| entry.last_offset < from);
            transactions.extend_from_slice(&rebuilt.aborted);
            state.transactions.replace(place, base, &transactions)?;
        }
        segment.commit_rebuilt(place, &rebuilt.cursor)?;
        Ok(segment.complete_files(place)?)
    }
}
