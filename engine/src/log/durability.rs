//! When records are on the medium: shared syncs, flushes and who waits for them.
//!
//! One round of syncs is in flight per log. A round covers everything appended before it began (the target);
//! whatever is appended meanwhile shares the next. It syncs the active segment's `.log` alone if the target
//! lies in it, every sealed segment that was not synced since its roll with all its files, and the directory
//! if files were created since:
//!
//! ```text
//!   idle --(a waiter, an append with flush.messages=1, a roll)--> in flight (target)
//!   in flight --(all done)--> idle, or the next round
//!   in flight --(one failed)--> directory offline, waiters refused
//! ```
//!
//! Invariants: `synced_end` and `recovery_point` move only when a whole round succeeded, never past the log
//! end, and not for bytes that a truncation replaced while the round ran. Below the recovery point everything
//! is synced, indexes included, so that it moves into the active segment by a flush only; `synced_end` speaks
//! of records. Waiters run without any lock, in offset order, each exactly once.
//!
//! Source: `Log.flush`, KAFKA-3968 (the directory), KAFKA-10101 (the recovery point), KAFKA-10778 (fenced at
//! once).
//!
//! **Deviation:** with `flush.messages` 2.7.2 syncs under the append lock, once per append that reaches the
//! limit. Here the sync runs outside the lock, is shared, and the acknowledgement waits for it
//! ([`crate::log::AppendInfo::sync_before_ack`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{IoError, StorageError};
use crate::io::{Completion, FileHandle, OpenMode, Operation};
use crate::log::segment::LogSegment;
use crate::log::{Log, names};
use crate::units::Offset;

/// Told once: `Ok` when the offset asked for is on the medium. Must not block.
pub type SyncDone = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Under a lock of its own, held for moments.
pub(super) struct Durability {
    in_flight: bool,
    /// A round is to reach at least this.
    wanted: Offset,
    waiters: Vec<(Offset, SyncDone)>,
    /// How often files were created in, or renamed out of, the partition's directory.
    directory_changes: u64,
    /// How many of these changes are durable.
    directory_synced: u64,
    /// The partition's directory itself was created and its parent not synced.
    parent_dirty: bool,
    /// The log was created, or left clean before: nothing of an earlier life waits for a sync.
    began_settled: bool,
    /// By the monotonic clock.
    last_flush: Duration,
}

impl Durability {
    pub(super) fn new(synced_end: Offset, created: bool, began_settled: bool, now: Duration) -> Durability {
        Durability {
            in_flight: false,
            wanted: synced_end,
            waiters: Vec::new(),
            directory_changes: 1,
            directory_synced: 0,
            parent_dirty: created,
            began_settled,
            last_flush: now,
        }
    }

    /// Takes out those who wait for an offset of which `is_meant` holds, in the order of their offsets.
    fn take_waiters(&mut self, is_meant: impl Fn(Offset) -> bool) -> Vec<(Offset, SyncDone)> {
        let mut taken: Vec<_> = self.waiters.extract_if(.., |(upto, _)| is_meant(*upto)).collect();
        taken.sort_by_key(|(upto, _)| *upto);
        taken
    }

    /// What is to be synced beside files.
    fn names_to_sync(&self) -> NamesToSync {
        NamesToSync {
            directory_changes: (self.directory_synced < self.directory_changes)
                .then_some(self.directory_changes),
            parent: self.parent_dirty,
        }
    }

    fn names_synced(&mut self, names: NamesToSync) {
        if let Some(changes) = names.directory_changes {
            self.directory_synced = self.directory_synced.max(changes);
        }
        self.parent_dirty &= !names.parent;
    }
}

impl fmt::Debug for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durability")
            .field("in_flight", &self.in_flight)
            .field("wanted", &self.wanted)
            .field("waiters", &self.waiters.len())
            .finish_non_exhaustive()
    }
}

/// Directory entries that are not durable.
#[derive(Clone, Copy)]
struct NamesToSync {
    directory_changes: Option<u64>,
    /// The entry of the partition's directory in the log directory.
    parent: bool,
}

/// What a round is to sync.
struct Plan {
    operations: Vec<Operation>,
    /// Sealed segments that will be flushed by it.
    sealed: Vec<Arc<LogSegment>>,
    /// Base offset of the active segment.
    active_base: Offset,
}

/// What a flush is to reach.
pub(super) struct Flush {
    target: Offset,
    truncations: u64,
    pub(super) segments: Arc<Vec<Arc<LogSegment>>>,
    names: NamesToSync,
}

/// One round of syncs.
struct Round {
    log: Arc<Log>,
    target: Offset,
    /// Base offset of the segment that was active when the round was planned.
    active_base: Offset,
    truncations: u64,
    names: NamesToSync,
    sealed: Vec<Arc<LogSegment>>,
    remaining: AtomicUsize,
    error: Mutex<Option<IoError>>,
}

impl Round {
    fn completion(self: &Arc<Round>) -> Completion {
        let round = self.clone();
        Box::new(move |result| round.one_done(result))
    }

    fn one_done(&self, result: Result<(), IoError>) {
        if let Err(error) = result {
            // In the step that sees it: nothing may be acknowledged while the other syncs are still running.
            self.log.sync_failed(&error);
            self.error.lock().get_or_insert(error);
        }
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            let failed = self.error.lock().is_some();
            self.log.finish_round(self, failed);
        }
    }
}

impl Log {
    /// Calls `done` once everything below `upto` is on the medium, at once if it is. Starts a sync if none is
    /// in flight.
    pub fn when_synced(&self, upto: Offset, done: SyncDone) {
        if let Err(error) = self.check_serving() {
            return done(Err(error));
        }
        {
            let mut durability = self.durability.lock();
            let (synced_end, log_end) = {
                let offsets = self.offsets.lock();
                (offsets.synced_end, offsets.end.offset)
            };
            if synced_end < upto {
                let upto = upto.min(log_end);
                durability.wanted = durability.wanted.max(upto);
                durability.waiters.push((upto, done));
                drop(durability);
                // The directory may have failed after the check above and before the waiter was there to be
                // told.
                if self.check_serving().is_err() {
                    self.fail_waiters();
                }
                return self.start_round();
            }
        }
        done(Ok(()));
    }

    /// Notes that a round is to reach `upto`; [`Log::start_round`] follows once no lock is held.
    pub(super) fn want_sync(&self, upto: Offset) {
        let mut durability = self.durability.lock();
        durability.wanted = durability.wanted.max(upto);
    }

    /// Starts a round if one is wanted and none is in flight.
    pub(super) fn start_round(&self) {
        let Some(me) = self.me.upgrade() else { return };
        let (target, truncations, names) = {
            let mut durability = self.durability.lock();
            let offsets = self.offsets.lock();
            if durability.in_flight
                || durability.wanted <= offsets.synced_end
                || !self.place.directory.is_online()
            {
                return;
            }
            durability.in_flight = true;
            // A roll alone asks for the segments before the active one; anything else for all there is.
            let active = offsets.end.segment_base_offset;
            let target = if durability.wanted <= active {
                active
            } else {
                offsets.end.offset
            };
            (
                target,
                self.truncations.load(Ordering::Acquire),
                durability.names_to_sync(),
            )
        };
        let Plan {
            operations,
            sealed,
            active_base,
        } = match self.plan_round(target, names) {
            Ok(plan) => plan,
            Err(error) => {
                self.sync_failed(&error);
                return self.round_failed();
            }
        };
        let round = Arc::new(Round {
            log: me,
            target,
            active_base,
            truncations,
            names,
            sealed,
            // One more than there are, so that the round ends in the line after the last submission at the
            // earliest.
            remaining: AtomicUsize::new(operations.len() + 1),
            error: Mutex::new(None),
        });
        for operation in operations {
            self.place.io.submit(operation, round.completion());
        }
        round.one_done(Ok(()));
    }

    /// A failed sync is final for the directory, unless what was to be synced went away while the sync ran: the log
    /// was closed because its partition was deleted, or its directory has another name now, at the end of a move.
    fn sync_failed(&self, error: &IoError) {
        let path = self.place.path();
        let is_renamed = !error.path.starts_with(&path) && !path.starts_with(&error.path);
        let is_gone =
            error.kind() == std::io::ErrorKind::NotFound && (is_renamed || self.fence.get().is_some());
        if !is_gone {
            self.place.directory.fail(error);
        }
    }

    /// What must be synced so that everything below `target` is on the medium, and these names are.
    fn plan_round(&self, target: Offset, names: NamesToSync) -> Result<Plan, IoError> {
        let mut operations = Vec::with_capacity(2);
        let mut sealed = Vec::new();
        let segments = self.segments.load_full();
        let (active, older) = segments.split_last().expect("a log always has a segment");
        for segment in older.iter().rev().filter(|segment| !segment.is_flushed()) {
            let Some(file) = segment.file_to_sync(&self.place)? else {
                continue;
            };
            operations.push(Operation::Sync { file });
            for file in segment.index_files(&self.place)? {
                operations.push(Operation::Sync { file });
            }
            sealed.push(segment.clone());
        }
        if target > active.base_offset {
            operations.push(Operation::Sync {
                file: active.file(&self.place)?,
            });
        }
        if names.directory_changes.is_some() {
            let epochs = self.epochs_file()?;
            operations.extend(epochs.map(|file| Operation::Sync { file }));
            operations.push(Operation::SyncDir {
                directory: self.place.path(),
            });
        }
        if names.parent {
            operations.push(Operation::SyncDir {
                directory: self.place.directory.path().to_owned(),
            });
        }
        Ok(Plan {
            operations,
            sealed,
            active_base: active.base_offset,
        })
    }

    fn finish_round(&self, round: &Round, failed: bool) {
        if failed || !self.place.directory.is_online() {
            return self.round_failed();
        }
        let ready = {
            let mut durability = self.durability.lock();
            durability.in_flight = false;
            durability.names_synced(round.names);
            durability.last_flush = self.clock.monotonic();
            let mut offsets = self.offsets.lock();
            if self.truncations.load(Ordering::Acquire) == round.truncations {
                // Not after a truncation: a segment that was sealed may be active again, with other records.
                round.sealed.iter().for_each(|segment| segment.set_flushed());
                let target = round.target.min(offsets.end.offset);
                offsets.synced_end = offsets.synced_end.max(target);
                // The active segment's indexes are not part of a round: only a flush moves the recovery point
                // into it.
                offsets.recovery_point = offsets.recovery_point.max(target.min(round.active_base));
            }
            let synced_end = offsets.synced_end;
            drop(offsets);
            durability.take_waiters(|upto| upto <= synced_end)
        };
        if self.is_synced_mode() {
            self.notify();
        }
        for (_, done) in ready {
            done(Ok(()));
        }
        self.start_round();
    }

    /// Begins another round if the log's directory got another name meanwhile; otherwise the failure is final.
    fn round_failed(&self) {
        self.durability.lock().in_flight = false;
        match self.check_serving() {
            Ok(()) => self.start_round(),
            Err(_) => self.fail_waiters(),
        }
    }

    /// Tells every waiter that it will not be.
    pub(super) fn fail_waiters(&self) {
        let waiters = std::mem::take(&mut self.durability.lock().waiters);
        for (_, done) in waiters {
            let error = self.check_serving().err();
            done(Err(error.unwrap_or_else(|| self.place.directory.offline_error())));
        }
    }

    /// After a truncation to `end`: waiters beyond are refused (their records are gone), ends are lowered.
    pub(super) fn truncate_durability(&self, end: Offset) {
        let gone = {
            let mut durability = self.durability.lock();
            durability.wanted = durability.wanted.min(end);
            durability.take_waiters(|upto| upto > end)
        };
        for (upto, done) in gone {
            let reason = format!("the log was truncated to {end}, below {upto}");
            done(Err(StorageError::OutOfService {
                partition: self.partition.clone(),
                reason,
            }));
        }
    }

    /// Syncs everything there is, indexes included, on the calling thread, and moves the recovery point to
    /// the log end, which it returns. For `flush.ms`, checkpoints and the clean close; not for a network
    /// thread.
    ///
    /// # Errors
    /// The sync that failed; the directory is offline then, unless the log was deleted meanwhile.
    pub fn flush(&self) -> Result<Offset, StorageError> {
        self.check_serving()?;
        self.flush_all()
    }

    pub(super) fn flush_all(&self) -> Result<Offset, StorageError> {
        if self.never_held_records() {
            return Ok(Offset::ZERO);
        }
        let flush = self.begin_flush()?;
        let synced = self.flush_segments(&flush.segments);
        self.finish_flush(&flush, synced)
    }

    /// What a flush is to reach, with the index entries up to there in their files.
    pub(super) fn begin_flush(&self) -> Result<Flush, StorageError> {
        let _appends_wait = self.state.lock();
        self.active().write_indexes(&self.place)?;
        let names = self.durability.lock().names_to_sync();
        Ok(Flush {
            target: self.log_end_offset(),
            truncations: self.truncations.load(Ordering::Acquire),
            segments: self.segments.load_full(),
            names,
        })
    }

    /// `synced`: the sealed segments that are on the medium now.
    pub(super) fn finish_flush(
        &self,
        flush: &Flush,
        synced: Result<Vec<Arc<LogSegment>>, IoError>,
    ) -> Result<Offset, StorageError> {
        let synced = synced.and_then(|sealed| self.sync_names(flush.names).map(|()| sealed));
        let sealed = match synced {
            Ok(sealed) => sealed,
            Err(error) => {
                self.sync_failed(&error);
                self.fail_waiters();
                return Err(error.into());
            }
        };
        // The kernel tells of a failed write once: if another sync heard of it, this one may have succeeded in vain.
        if let Err(error) = self.place.directory.check_online() {
            self.fail_waiters();
            return Err(error);
        }
        let recovery_point = {
            let mut durability = self.durability.lock();
            durability.names_synced(flush.names);
            durability.last_flush = self.clock.monotonic();
            let mut offsets = self.offsets.lock();
            if self.truncations.load(Ordering::Acquire) == flush.truncations {
                // Not after a truncation, as after a round.
                sealed.iter().for_each(|segment| segment.set_flushed());
                let target = flush.target.min(offsets.end.offset);
                offsets.synced_end = offsets.synced_end.max(target);
                offsets.recovery_point = offsets.recovery_point.max(target);
            }
            offsets.recovery_point
        };
        self.release_synced_waiters();
        Ok(recovery_point)
    }

    /// An empty log that never was anything else has nothing to lose: its names become durable with the first
    /// records, and a thousand of them stop without a thousand syncs.
    fn never_held_records(&self) -> bool {
        self.log_end_offset() == Offset::ZERO
            && self.truncations.load(Ordering::Acquire) == 0
            && self.durability.lock().began_settled
    }

    /// Syncs what is not synced of these segments; returns the sealed ones among them. Nothing keeps a truncation
    /// from coming between.
    pub(super) fn flush_segments(
        &self,
        segments: &[Arc<LogSegment>],
    ) -> Result<Vec<Arc<LogSegment>>, IoError> {
        let mut sealed = Vec::new();
        let recovery_point = self.recovery_point();
        let last = segments.len().saturating_sub(1);
        for (index, segment) in segments.iter().enumerate() {
            let is_active = index == last;
            let is_past = segments
                .get(index + 1)
                .is_some_and(|next| next.base_offset <= recovery_point);
            if segment.is_flushed() || segment.is_deleted() || (!is_active && is_past) {
                continue;
            }
            let Some(file) = segment.file_to_sync(&self.place)? else {
                continue;
            };
            file.sync()?;
            for file in segment.index_files(&self.place)? {
                file.sync()?;
            }
            if !is_active {
                sealed.push(segment.clone());
            }
        }
        Ok(sealed)
    }

    /// Syncs all files of a segment that was just sealed; a failure is final.
    pub(super) fn sync_segment(&self, segment: &LogSegment) -> Result<(), IoError> {
        let files = segment.file(&self.place).and_then(|file| {
            let mut files = segment.index_files(&self.place)?;
            files.push(file);
            Ok(files)
        });
        let synced = files.and_then(|files| files.iter().try_for_each(|file| file.sync()));
        synced.inspect_err(|error| self.place.directory.fail(error))?;
        segment.set_flushed();
        Ok(())
    }

    /// The epochs of an empty log are written without a sync: they become durable with the first names.
    fn epochs_file(&self) -> Result<Option<FileHandle>, IoError> {
        let path = self.place.file(names::LEADER_EPOCHS);
        match self.place.io.open(&path, OpenMode::ReadWrite) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A failure is for the caller to judge.
    fn sync_names(&self, names: NamesToSync) -> Result<(), IoError> {
        if names.directory_changes.is_some() {
            if let Some(file) = self.epochs_file()? {
                file.sync()?;
            }
            self.place.io.sync_dir(&self.place.path())?;
        }
        if names.parent {
            self.place.io.sync_dir(self.place.directory.path())?;
        }
        Ok(())
    }

    /// Notes that a file was created in the partition's directory, or renamed.
    pub(super) fn directory_changed(&self) {
        self.durability.lock().directory_changes += 1;
    }

    /// Makes the names in the partition's directory durable now, if they are not: before a new segment is
    /// created, so that a power cut loses no segment but the last, and before records follow a truncation. A failure
    /// is final.
    pub(super) fn settle_names(&self) -> Result<(), IoError> {
        let names = self.durability.lock().names_to_sync();
        self.sync_names(names).map_err(|error| self.place.fatal(error))?;
        self.durability.lock().names_synced(names);
        Ok(())
    }

    fn release_synced_waiters(&self) {
        let synced_end = self.synced_end();
        let ready = self.durability.lock().take_waiters(|upto| upto <= synced_end);
        for (_, done) in ready {
            done(Ok(()));
        }
        if self.is_synced_mode() {
            self.notify();
        }
    }

    /// When `flush.ms` asks for the next [`Log::flush`], by the monotonic clock; `None` while everything is
    /// synced or `flush.ms` is not set.
    pub(crate) fn flush_due(&self) -> Option<Duration> {
        let flush_ms = self.config.load().flush_ms?;
        let offsets = *self.offsets.lock();
        if offsets.recovery_point >= offsets.end.offset {
            return None;
        }
        self.durability
            .lock()
            .last_flush
            .checked_add(Duration::from_millis(flush_ms))
    }
}
