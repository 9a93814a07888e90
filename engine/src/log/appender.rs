//! Appending: the only part of the engine that writes records.
//!
//! On the hot path: everything that can be done without knowing the offset was done before (validation, CRC,
//! decompression). Under the append lock there is offset assignment, the producer's sequence check, and one
//! vectored write for all sets that go into one segment. Nothing is allocated per record or per batch, except
//! an index entry every `index.interval.bytes`.
//!
//! A set that is refused leaves no trace and the others go on. A write that fails takes the directory offline
//! in the same step and fails every set of the call. Roll, index and time-index decisions are taken per
//! produced set, and on followers per batch, as though each had been appended alone.
//!
//! Source: `Log.append`, `LogSegment.append`; KIP-98, KIP-101.
//!
//! **Deviation:** a follower rolls between the batches of one fetched chunk; 2.7.2 takes the chunk as one
//! set, refuses it if it is larger than `segment.bytes` and writes index entries that its own
//! `kafka-dump-log` calls mismatches.

use std::io::IoSlice;
use std::sync::Arc;

use crate::config::{LogConfig, Magic};
use crate::error::{AppendError, InvalidRecords, ProducerRefusal, StorageError};
use crate::io::FileHandle;
use crate::log::producer_state::{
    AbortedTransaction, AppendOrigin, BatchContent, ProducerBatch, TransactionOutcome, Verdict,
};
use crate::log::segment::{AppendCursor, LogSegment, RollParams};
use crate::log::{AppendInfo, Log, LogOffsetMetadata, State};
use crate::record_batch::{Batch, BatchHeader, ControlKind, ControlRecord, ValidatedBatches, batches};
use crate::units::{LeaderEpoch, Offset, TimestampMs};

/// What the producer state needs to know of a batch; `None` for batches without a producer id.
pub(super) fn producer_batch(header: &BatchHeader, control: Option<ControlRecord>) -> Option<ProducerBatch> {
    let stamp = header.producer?;
    let content = match control {
        Some(control) => BatchContent::EndTransaction {
            outcome: match control.kind {
                ControlKind::Abort => TransactionOutcome::Abort,
                ControlKind::Commit => TransactionOutcome::Commit,
            },
            coordinator_epoch: control.coordinator_epoch,
        },
        None if header.is_control => BatchContent::EmptyControl,
        None => BatchContent::Data {
            base_sequence: stamp.base_sequence,
            last_sequence: stamp.last_sequence,
            transactional: header.is_transactional,
        },
    };
    Some(ProducerBatch {
        producer_id: stamp.id,
        epoch: stamp.epoch,
        base_offset: header.base_offset,
        last_offset: header.last_offset,
        max_timestamp: header.max_timestamp,
        content,
    })
}

/// The end of the active segment while sets are being taken in; written and published by [`Writer::flush`].
struct Writer<'l> {
    log: &'l Log,
    config: Arc<LogConfig>,
    now: TimestampMs,
    segment: Arc<LogSegment>,
    file: FileHandle,
    cursor: AppendCursor,
    /// Where the bytes taken in, but not written, begin.
    written: u64,
    next_offset: Offset,
    aborted: Vec<AbortedTransaction>,
}

impl<'l> Writer<'l> {
    fn begin(log: &'l Log) -> Result<Writer<'l>, StorageError> {
        let segment = log.active();
        let (file, cursor) = segment.begin_append(&log.place)?;
        Ok(Writer {
            log,
            config: log.config.load_full(),
            now: log.clock.wall(),
            written: cursor.position,
            segment,
            file,
            cursor,
            next_offset: log.log_end_offset(),
            aborted: Vec::new(),
        })
    }

    fn should_roll(&self, set_size_bytes: usize, max_timestamp: TimestampMs, last_offset: Offset) -> bool {
        self.cursor.should_roll(&RollParams {
            config: &self.config,
            jitter_ms: self.log.jitter_ms(&self.config, self.segment.base_offset),
            set_size_bytes: set_size_bytes as u64,
            max_timestamp,
            last_offset,
            now: self.now,
        })
    }

    /// Takes in one batch; its bytes follow those taken in before.
    fn take(&mut self, header: &BatchHeader) {
        self.cursor.add(
            header.size_bytes as u64,
            header.last_offset,
            header.max_timestamp,
            self.config.index_interval_bytes,
        );
        self.next_offset = header.next_offset();
    }

    fn has_unwritten(&self) -> bool {
        self.cursor.position > self.written
    }

    /// Writes what was taken in since the last flush and makes it visible.
    fn flush(&mut self, state: &mut State, buffers: &[IoSlice<'_>]) -> Result<(), StorageError> {
        if !self.has_unwritten() {
            return Ok(());
        }
        let place = &self.log.place;
        place.directory.check_online()?;
        self.cursor.reserve(&self.file, self.config.segment_size_bytes);
        self.file
            .write_vectored_at(self.written, buffers)
            .map_err(|error| place.fatal(error))?;
        for transaction in self.aborted.drain(..) {
            let mut segment = self.segment.state.lock();
            segment
                .transactions
                .append(place, self.segment.base_offset, &transaction)?;
        }
        let position = self.cursor.position;
        let cursor = self.cursor.take();
        self.segment.commit_append(place, cursor)?;
        place.directory.note_appended(position - self.written);
        self.written = position;
        state.producers.set_map_end_offset(self.next_offset);
        let mut offsets = self.log.offsets.lock();
        offsets.end = LogOffsetMetadata {
            offset: self.next_offset,
            segment_base_offset: self.segment.base_offset,
            position,
        };
        let first_unstable = state.producers.first_unstable_offset();
        offsets.first_unstable = first_unstable.map(|first| first.max(offsets.log_start));
        Ok(())
    }

    /// Begins a new segment at `base_offset`; everything taken in must have been flushed.
    fn roll(&mut self, state: &mut State, base_offset: Offset) -> Result<(), StorageError> {
        assert!(
            !self.has_unwritten(),
            "a segment is written to its end before the next begins"
        );
        self.log.roll_to(state, base_offset, self.now)?;
        self.segment = self.log.active();
        (self.file, self.cursor) = self.segment.begin_append(&self.log.place)?;
        self.written = self.cursor.position;
        Ok(())
    }
}

impl Log {
    /// Appends the sets of one leader in order, each all or nothing, assigning offsets and stamping `epoch`.
    /// The bytes are in the page cache on return, not on the medium; see [`AppendInfo::sync_before_ack`].
    ///
    /// # Errors
    /// For each set: `Invalid` (no offsets left, larger than a segment), `Producer` (sequence, epoch,
    /// transaction state), `Storage` (the directory is or went offline, the reserve is reached); then nothing
    /// of the set may be acknowledged.
    pub fn append_as_leader(
        &self,
        sets: &mut [ValidatedBatches<'_>],
        origin: AppendOrigin,
        epoch: LeaderEpoch,
    ) -> Vec<Result<AppendInfo, AppendError>> {
        let mut results = Vec::with_capacity(sets.len());
        let moved = {
            let mut state = self.state.lock();
            let before = self.log_end_offset();
            match self.append_sets(&mut state, sets, origin, epoch, &mut results) {
                Ok(()) => {}
                Err(error) => self.fail_all(sets.len(), error, &mut results),
            }
            self.log_end_offset() > before
        };
        if moved {
            self.after_append();
        }
        if !self.place.directory.is_online() {
            self.fail_waiters();
        }
        results
    }

    fn append_sets(
        &self,
        state: &mut State,
        sets: &mut [ValidatedBatches<'_>],
        origin: AppendOrigin,
        epoch: LeaderEpoch,
        results: &mut Vec<Result<AppendInfo, AppendError>>,
    ) -> Result<(), StorageError> {
        self.check_serving()?;
        self.place.directory.check_appendable()?;
        let log_start_offset = self.log_start_offset();
        let mut writer = Writer::begin(self)?;
        let mut first_unwritten = 0;
        for index in 0..sets.len() {
            let base = writer.next_offset;
            let set = &mut sets[index];
            if set.is_empty() {
                results.push(Ok(empty_info(log_start_offset)));
                continue;
            }
            let next = match set.assign(base, epoch) {
                Ok(next) => next,
                Err(refusal) => {
                    results.push(Err(refusal.into()));
                    continue;
                }
            };
            let size_bytes = set.size_bytes();
            let limit_bytes = writer.config.segment_size_bytes as usize;
            if size_bytes > limit_bytes {
                results.push(Err(InvalidRecords::SetTooLarge {
                    size_bytes,
                    limit_bytes,
                }
                .into()));
                continue;
            }
            let last_offset = Offset(next.get() - 1);
            let mut info = AppendInfo {
                first_offset: Some(base),
                last_offset,
                max_timestamp: set.max_timestamp(),
                log_append_time: set.log_append_time(),
                log_start_offset,
                size_bytes,
                is_duplicate: false,
                sync_before_ack: None,
            };
            match self.judge(state, set, origin, &mut info) {
                Ok(Verdict::New) => {}
                Ok(Verdict::Duplicate { .. }) => {
                    results.push(Ok(info));
                    continue;
                }
                Err(refusal) => {
                    results.push(Err(refusal.into()));
                    continue;
                }
            }
            if writer.should_roll(size_bytes, info.max_timestamp, last_offset) {
                let buffers = buffers(&sets[first_unwritten..index], &results[first_unwritten..index]);
                writer.flush(state, &buffers)?;
                first_unwritten = index;
                writer.roll(state, base)?;
            }
            let set = &sets[index];
            let control = set.control_record();
            let producer_batches = set
                .headers()
                .filter_map(|header| producer_batch(&header, control));
            match state
                .producers
                .append(producer_batches, origin, &mut writer.aborted)
            {
                Ok(Verdict::New) => {}
                Ok(Verdict::Duplicate { .. }) => {
                    unreachable!("a set with a producer id has one batch, judged above")
                }
                Err(refusal) => {
                    results.push(Err(refusal.into()));
                    continue;
                }
            }
            let mut magic = Magic::V2;
            for header in set.headers() {
                magic = header.magic;
                writer.take(&header);
            }
            match magic {
                Magic::V2 => self.assign_epoch(state, epoch, base)?,
                // Truncation must fall back to the high watermark while batches without epochs are written.
                Magic::V0 | Magic::V1 => self.clear_epochs(state)?,
            }
            info.sync_before_ack = self.sync_before_ack(next);
            results.push(Ok(info));
        }
        let buffers = buffers(&sets[first_unwritten..], &results[first_unwritten..]);
        writer.flush(state, &buffers)
    }

    /// Asks the producer state, before anything is rolled, so that a duplicate or a refusal leaves no trace. That of a
    /// duplicate becomes the `info` of the first time.
    fn judge(
        &self,
        state: &State,
        set: &ValidatedBatches<'_>,
        origin: AppendOrigin,
        info: &mut AppendInfo,
    ) -> Result<Verdict, ProducerRefusal> {
        let control = set.control_record();
        let mut batches = set
            .headers()
            .filter_map(|header| producer_batch(&header, control));
        let Some(batch) = batches.next() else {
            return Ok(Verdict::New);
        };
        let verdict = state.producers.check(&batch, origin)?;
        if let Verdict::Duplicate {
            first_offset,
            last_offset,
            timestamp,
        } = verdict
        {
            info.first_offset = first_offset;
            info.last_offset = last_offset;
            // As in Kafka, whatever the topic's timestamp type.
            info.log_append_time = Some(timestamp);
            info.is_duplicate = true;
            info.sync_before_ack = self.sync_before_ack(last_offset.plus(1));
        }
        Ok(verdict)
    }

    /// Appends batches exactly as the leader wrote them, offsets and epochs included. A trailing incomplete
    /// batch is left out. The bytes are in the page cache on return.
    ///
    /// # Errors
    /// `Invalid` if a batch fails its CRC or offsets go back inside `records`, `UnexpectedOffset` if they lie
    /// below the log end: nothing was written. `Storage` as for leaders.
    pub fn append_as_follower(&self, records: &[u8]) -> Result<AppendInfo, AppendError> {
        let mut info = empty_info(self.log_start_offset());
        let mut last_offset: Option<Offset> = None;
        for batch in batches(records) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) if error.is_partial() => break,
                Err(error) => return Err(corrupt(info.size_bytes, "a batch", error.to_string())),
            };
            batch
                .verify_crc()
                .map_err(|error| corrupt(info.size_bytes, "a batch with its CRC", error.to_string()))?;
            if batch.base_offset().get() < 0
                || last_offset.is_some_and(|last| first_known_offset(&batch) <= last)
            {
                let found = format!("offsets {} to {}", batch.base_offset(), batch.last_offset());
                return Err(corrupt(info.size_bytes, "offsets above those before", found));
            }
            if last_offset.is_none() && batch.magic() == Magic::V2 {
                info.first_offset = Some(batch.base_offset());
            }
            last_offset = Some(batch.last_offset());
            info.size_bytes += batch.size_bytes();
            info.max_timestamp = info.max_timestamp.max(batch.max_timestamp());
        }
        let Some(last_offset) = last_offset else {
            return Ok(info);
        };
        info.last_offset = last_offset;
        let appended = self.append_batches(&mut self.state.lock(), &records[..info.size_bytes]);
        if !self.place.directory.is_online() {
            self.fail_waiters();
        }
        appended?;
        info.sync_before_ack = self.sync_before_ack(last_offset.plus(1));
        self.after_append();
        Ok(info)
    }

    /// `records` holds whole, checked batches only, at least one.
    fn append_batches(&self, state: &mut State, records: &[u8]) -> Result<(), AppendError> {
        self.check_serving()?;
        self.place.directory.check_appendable()?;
        let mut writer = Writer::begin(self).map_err(AppendError::Storage)?;
        let mut unwritten_from = 0;
        let mut taken = 0;
        for batch in batches(records).map_while(Result::ok) {
            let header = *batch.header();
            if taken == 0 && first_known_offset(&batch) < writer.next_offset {
                return Err(AppendError::UnexpectedOffset {
                    partition: self.partition.clone(),
                    found: first_known_offset(&batch),
                    log_end_offset: writer.next_offset,
                });
            }
            if writer.should_roll(header.size_bytes, header.max_timestamp, header.last_offset) {
                writer.flush(state, &[IoSlice::new(&records[unwritten_from..taken])])?;
                unwritten_from = taken;
                let base = match header.magic {
                    Magic::V2 => header.base_offset,
                    // The first offset is inside the compressed set; it is at most so far away.
                    Magic::V0 | Magic::V1 => {
                        Offset(header.last_offset.get().saturating_sub(i64::from(i32::MAX)))
                    }
                };
                let base = base.max(writer.next_offset);
                writer.roll(state, base)?;
            }
            let control = if header.is_control {
                batch.control_record().ok()
            } else {
                None
            };
            let batches = producer_batch(&header, control);
            state
                .producers
                .append(batches, AppendOrigin::Replication, &mut writer.aborted)?;
            match (header.magic, header.leader_epoch) {
                (Magic::V2, Some(epoch)) => self.assign_epoch(state, epoch, header.base_offset)?,
                (Magic::V2, None) => {}
                (Magic::V0 | Magic::V1, _) => self.clear_epochs(state)?,
            }
            writer.take(&header);
            taken += header.size_bytes;
        }
        Ok(writer.flush(state, &[IoSlice::new(&records[unwritten_from..taken])])?)
    }

    /// Up to where the acknowledgement of an append that ends at `next` must wait for the medium.
    fn sync_before_ack(&self, next: Offset) -> Option<Offset> {
        let limit = self.config.load().flush_messages?;
        let unflushed = next.since(self.synced_end());
        (limit <= 1 || u64::try_from(unflushed).is_ok_and(|unflushed| unflushed >= limit)).then_some(next)
    }

    /// Once no lock is held: starts syncs that are due and tells the listener.
    fn after_append(&self) {
        let end = self.log_end_offset();
        if self.sync_before_ack(end).is_some() {
            self.want_sync(end);
        }
        self.start_round();
        self.notify();
    }

    /// The directory failed in the middle: no set of the call may be acknowledged.
    #[cold]
    fn fail_all(
        &self,
        count: usize,
        error: StorageError,
        results: &mut Vec<Result<AppendInfo, AppendError>>,
    ) {
        for result in results.iter_mut() {
            // A duplicate too: it may be one of a set of this very call.
            if result.as_ref().is_ok_and(|info| info.size_bytes > 0) {
                *result = Err(self.again(&error).into());
            }
        }
        while results.len() + 1 < count {
            results.push(Err(self.again(&error).into()));
        }
        if results.len() < count {
            results.push(Err(error.into()));
        }
    }

    /// The same error for another set.
    fn again(&self, error: &StorageError) -> StorageError {
        self.place
            .directory
            .check_appendable()
            .and_then(|()| self.check_serving())
            .err()
            .unwrap_or_else(|| StorageError::OutOfService {
                partition: self.partition.clone(),
                reason: error.to_string(),
            })
    }

    /// A part of `segment.jitter.ms`, the same whenever it is asked for one segment, so that segments created
    /// together do not all roll together.
    fn jitter_ms(&self, config: &LogConfig, base: Offset) -> i64 {
        let limit = config.segment_jitter_ms.min(config.segment_ms);
        if limit <= 0 {
            return 0;
        }
        let seed = crc32c::crc32c(self.partition.topic.as_bytes());
        let seed = crc32c::crc32c_append(seed, &self.partition.partition.to_be_bytes());
        i64::from(crc32c::crc32c_append(seed, &base.get().to_be_bytes())) % limit
    }

    /// Seals the active segment and begins one at `base_offset`, or at the log end if that is higher. Does
    /// nothing if the active segment is empty and begins there already. Under the append lock; the one wait
    /// there is for the directory's sync, if the segments' names are not durable from the round that followed
    /// the roll before.
    pub(super) fn roll_to(
        &self,
        state: &mut State,
        base_offset: Offset,
        now: TimestampMs,
    ) -> Result<(), StorageError> {
        let active = self.active();
        let end = self.log_end_offset();
        let base_offset = base_offset.max(end);
        if base_offset == active.base_offset {
            assert!(active.is_empty(), "a segment that begins at the log end is empty");
            return Ok(());
        }
        self.settle_names()?;
        active.complete_files(&self.place)?;
        active.set_sealed();
        if self.recovery_point() >= end {
            // Its records are flushed, so that no flush to come looks at it: what the roll itself changed
            // (the last time index entry, the end of a preallocated file) is synced here.
            self.sync_segment(&active)?;
        }
        state.producers.set_map_end_offset(base_offset);
        self.write_snapshot(state)?;
        let config = self.config.load_full();
        LogSegment::remove_leftovers(&self.place, base_offset)?;
        let segment = LogSegment::create(&self.place, base_offset, &config, now)?;
        let mut segments = Vec::clone(&self.segments.load());
        segments.push(segment);
        self.segments.store(Arc::new(segments));
        self.directory_changed();
        self.offsets.lock().end = LogOffsetMetadata {
            offset: end,
            segment_base_offset: base_offset,
            position: 0,
        };
        self.want_sync(base_offset.min(end));
        tracing::info!(
            "[Log partition={}, dir={}] Rolled new log segment at offset {base_offset}.",
            self.partition,
            self.place.directory.path().display()
        );
        Ok(())
    }

    /// Ends the active segment now, unless it is empty; returns the base offset of the active segment
    /// afterwards.
    ///
    /// # Errors
    /// A file could not be written; the directory is offline then.
    pub fn roll(&self) -> Result<Offset, StorageError> {
        self.check_serving()?;
        {
            let mut state = self.state.lock();
            self.roll_to(&mut state, Offset::ZERO, self.clock.wall())?;
        }
        self.start_round();
        Ok(self.active().base_offset)
    }
}

/// What goes into one vectored write: the bytes of the sets that were taken in.
fn buffers<'s>(
    sets: &'s [ValidatedBatches<'_>],
    results: &[Result<AppendInfo, AppendError>],
) -> Vec<IoSlice<'s>> {
    let mut buffers = Vec::with_capacity(2 * sets.len());
    for (set, result) in sets.iter().zip(results) {
        if result
            .as_ref()
            .is_ok_and(|info| !info.is_duplicate && info.size_bytes > 0)
        {
            buffers.extend(set.io_slices());
        }
    }
    buffers
}

fn empty_info(log_start_offset: Offset) -> AppendInfo {
    AppendInfo {
        first_offset: None,
        last_offset: Offset(-1),
        max_timestamp: TimestampMs::NONE,
        log_append_time: None,
        log_start_offset,
        size_bytes: 0,
        is_duplicate: false,
        sync_before_ack: None,
    }
}

/// The first offset of a v2 batch; the last of a v0 or v1 set, which does not say.
fn first_known_offset(batch: &Batch<'_>) -> Offset {
    batch.base_offset()
}

fn corrupt(position: usize, expected: &str, found: String) -> AppendError {
    InvalidRecords::Corrupt {
        position,
        expected: expected.to_owned(),
        found,
    }
    .into()
}
