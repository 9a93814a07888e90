//! The manager's recurring work, done by whoever calls [`LogManager::run_due`].
//!
//! | work | every | first |
//! |---|---|---|
//! | free space against `milena.disk.reserve.bytes` | [`SPACE_INTERVAL`] | at once |
//! | high watermarks | `replica.high.watermark.checkpoint.interval.ms` | after that |
//! | recovery points, `milena.state` | `log.flush.offset.checkpoint.interval.ms` | [`INITIAL_DELAY`] |
//! | unused files are closed | with the recovery points | |
//! | log start offsets | `log.flush.start.offset.checkpoint.interval.ms` | [`INITIAL_DELAY`] |
//! | flush by `flush.ms` | `log.flush.scheduler.interval.ms` or the shortest `flush.ms` | [`INITIAL_DELAY`] |
//! | retention | `log.retention.check.interval.ms` | [`INITIAL_DELAY`] |
//! | idle producer ids | [`PRODUCER_EXPIRY_INTERVAL`] | after that |
//! | files of deleted logs and segments | when their delay is over | at once |
//! | a step of the scrub | see [`super::scrub`] | after [`super::scrub::FIRST_DELAY`] |
//!
//! Between looks at the free space, appends count themselves against it
//! ([`LogDirectory::note_appended`](crate::log::LogDirectory::note_appended)), so that the reserve holds at
//! any speed. Source: `LogManager.startup` and the tasks it schedules.
//!
//! **Deviation:** in Kafka `flush.ms` has no effect unless `log.flush.scheduler.interval.ms` is set too. Here
//! the shortest `flush.ms` of any log sets the interval if it is shorter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint::RunState;
use crate::error::{IoError, StorageError};
use crate::log::Log;
use crate::units::{Offset, TopicPartition};

use super::checkpoints::{Offsets, tolerate_full};
use super::reserve::ReserveChange;
use super::schedule::Task;
use super::{Home, HostedLog, LogManager, scrub};

/// `LogManager.InitialTaskDelayMs`
const INITIAL_DELAY: Duration = Duration::from_secs(30);
/// `LogManager.ProducerIdExpirationCheckIntervalMs`
const PRODUCER_EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
const SPACE_INTERVAL: Duration = Duration::from_secs(5);
/// No `flush.ms` makes the manager look more often.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(50);

impl LogManager {
    /// Does what is due at `now` ([`Clock::monotonic`](crate::io::Clock::monotonic)) and returns when to call
    /// again. May wait for the disk: not to be called on a network lane. One caller at a time.
    pub fn run_due(&self, now: Duration) -> Duration {
        loop {
            let Some(task) = self.schedule.lock().take_due(now) else {
                break;
            };
            let next = self.run(task, now);
            let mut schedule = self.schedule.lock();
            if let Some(next) = next {
                schedule.set_no_later(task, next.max(now + Duration::from_millis(1)));
            }
        }
        self.schedule
            .lock()
            .next_deadline()
            .unwrap_or(now + SPACE_INTERVAL)
    }

    pub(super) fn plan_first(&self, now: Duration) {
        let ms = Duration::from_millis;
        let mut schedule = self.schedule.lock();
        schedule.set(Task::Space, Some(now + SPACE_INTERVAL));
        schedule.set(Task::Deletion, Some(now));
        let after = |interval_ms: u64| now.checked_add(ms(interval_ms));
        schedule.set(
            Task::HighWatermarks,
            after(self.config.high_watermark_checkpoint_interval_ms),
        );
        for task in [
            Task::RecoveryPoints,
            Task::LogStartOffsets,
            Task::Flush,
            Task::Retention,
        ] {
            schedule.set(task, Some(now + INITIAL_DELAY));
        }
        schedule.set(Task::ProducerExpiry, Some(now + PRODUCER_EXPIRY_INTERVAL));
        if self.config.scrub_bytes_per_second > 0 {
            schedule.set(Task::Scrub, Some(now + scrub::FIRST_DELAY));
        }
    }

    pub(super) fn plan_deletion(&self, at: Duration) {
        self.schedule.lock().set_no_later(Task::Deletion, at);
    }

    fn run(&self, task: Task, now: Duration) -> Option<Duration> {
        let after = |interval_ms: u64| now.checked_add(Duration::from_millis(interval_ms));
        match task {
            Task::Space => {
                self.watch_space();
                Some(now + SPACE_INTERVAL)
            }
            Task::HighWatermarks => {
                self.note_out_of_service();
                self.checkpoint_high_watermarks();
                after(self.config.high_watermark_checkpoint_interval_ms)
            }
            Task::RecoveryPoints => {
                self.checkpoint_recovery_points();
                self.hosted()
                    .iter()
                    .for_each(|hosted| hosted.log.release_descriptors());
                after(self.config.recovery_point_checkpoint_interval_ms)
            }
            Task::LogStartOffsets => {
                self.checkpoint_log_start_offsets();
                after(self.config.log_start_offset_checkpoint_interval_ms)
            }
            Task::Flush => Some(self.flush_by_time(now)),
            Task::Deletion => {
                let segments = self.remove_deleted_segments(now);
                let directories = self.remove_deleted(now);
                segments.into_iter().chain(directories).min()
            }
            Task::Retention => {
                self.delete_old_segments();
                self.plan_deletion(now);
                after(self.config.retention_check_interval_ms)
            }
            Task::ProducerExpiry => {
                for hosted in self.hosted() {
                    hosted.log.remove_expired_producers();
                }
                Some(now + PRODUCER_EXPIRY_INTERVAL)
            }
            Task::Scrub => self.scrub_step(now),
        }
    }

    pub(super) fn online_homes(&self) -> impl Iterator<Item = &Arc<Home>> {
        self.homes.iter().filter(|home| home.directory.is_online())
    }

    /// The logs in service whose directories are online, in order.
    pub(super) fn hosted(&self) -> Vec<Arc<HostedLog>> {
        self.hosted_where(|hosted| hosted.home.directory.is_online())
    }

    pub(super) fn hosted_in(&self, home: &Arc<Home>) -> Vec<Arc<HostedLog>> {
        self.hosted_where(|hosted| Arc::ptr_eq(&hosted.home, home))
    }

    /// Future ones too, each behind the one that it is to replace. In the order of their partitions: what is done to the disk does
    /// not depend on the order of a hash map, so that a test repeats a failure.
    fn hosted_where(&self, is_wanted: impl Fn(&HostedLog) -> bool) -> Vec<Arc<HostedLog>> {
        let (logs, futures) = (self.logs.read(), self.futures.read());
        let wanted = logs.values().chain(futures.values());
        let wanted = wanted.filter(|hosted| is_wanted(hosted));
        let mut hosted: Vec<Arc<HostedLog>> = wanted.cloned().collect();
        drop((logs, futures));
        hosted.sort_by(|left, right| left.log.partition().cmp(right.log.partition()));
        hosted
    }

    /// Tells each directory how much its file system has free.
    pub(super) fn watch_space(&self) {
        for home in self.online_homes() {
            let path = home.directory.path();
            let mut watch = home.reserve.lock();
            let space = match self.io.space(path) {
                Ok(space) => space,
                Err(error) => {
                    tracing::warn!("the free space of {} is unknown: {error}", path.display());
                    continue;
                }
            };
            let (usable, change) = watch.observe(space.available_bytes);
            home.directory.set_space(usable, watch.reserve_bytes());
            match change {
                Some(ReserveChange::Reached) => tracing::error!(
                    "log directory {} has {} bytes free, less than milena.disk.reserve.bytes={}: appends are \
                     refused until retention or you make room, or lower the reserve",
                    path.display(),
                    space.available_bytes,
                    watch.reserve_bytes()
                ),
                Some(ReserveChange::Resumed) => tracing::info!(
                    "log directory {} has {} bytes free again: appends are taken",
                    path.display(),
                    space.available_bytes
                ),
                None => {}
            }
        }
    }

    /// Notes this boot's id, unless the file has it.
    pub(super) fn write_state_of_new_boot(&self, home: &Arc<Home>) {
        let Ok(boot_id) = self.io.boot_id() else { return };
        let known = RunState::read(&*self.io, home.directory.path()).ok().flatten();
        if known.is_none_or(|state| state.boot_id != boot_id) {
            self.write_state(home, false);
        }
    }

    /// Writes `milena.state`; returns whether it stands.
    pub(super) fn write_state(&self, home: &Arc<Home>, stopped_clean: bool) -> bool {
        // What it says of a log does not outlive that log's being cut.
        let _gate = home.checkpoints.recovery_gate.lock();
        match self.try_write_state(home, stopped_clean, &[]) {
            Ok(()) => true,
            Err(error) => {
                tolerate_full(&home.directory, &error);
                false
            }
        }
    }

    /// `limits`: these partitions are synced up to there at most; `None` = nothing is.
    fn try_write_state(
        &self,
        home: &Arc<Home>,
        stopped_clean: bool,
        limits: &[(&TopicPartition, Option<Offset>)],
    ) -> Result<(), IoError> {
        let known = match self.are_lost_writes_settled.load(Ordering::Acquire) {
            true => self
                .io
                .boot_id()
                .inspect_err(|error| {
                    tracing::warn!("the machine's boot id is unknown: {error}");
                })
                .ok(),
            false => None,
        };
        // Equal to no boot's id: the next start takes it for another boot.
        let boot_id = known.unwrap_or_else(|| super::survey::unique_id(self.io.as_ref()));
        let mut written = home.written_synced_ends.lock();
        let ends = self.hosted_in(home).into_iter();
        let mut synced_ends: BTreeMap<_, _> = ends
            .map(|hosted| (hosted.log.partition().clone(), hosted.log.synced_end()))
            .collect();
        // What is known of those out of service stays: the next start must not take less for damage.
        for (partition, unavailable) in &*self.unavailable.read() {
            if Arc::ptr_eq(&unavailable.home, home)
                && let Some(end) = written.get(partition)
            {
                synced_ends.insert(partition.clone(), *end);
            }
        }
        for (partition, limit) in limits {
            match limit {
                Some(limit) => {
                    if let Some(end) = synced_ends.get_mut(*partition) {
                        *end = (*end).min(*limit);
                    }
                }
                None => {
                    synced_ends.remove(*partition);
                }
            }
        }
        let state = RunState {
            boot_id,
            stopped_clean,
            synced_ends,
        };
        state.write(&*self.io, home.directory.path())?;
        *written = state.synced_ends;
        Ok(())
    }

    /// Makes `milena.state` say no more of these partitions than that they are synced up to an end, or
    /// nothing: what was said of records that are about to go must not be believed of those that take their
    /// offsets. Under the home's `recovery_gate`.
    pub(super) fn lower_synced_ends(
        &self,
        home: &Arc<Home>,
        limits: &[(&TopicPartition, Option<Offset>)],
    ) -> Result<(), StorageError> {
        let says_more = {
            let written = home.written_synced_ends.lock();
            limits.iter().any(|(partition, limit)| {
                let end = written.get(*partition);
                end.is_some_and(|end| limit.is_none_or(|limit| *end > limit))
            })
        };
        if says_more && let Err(error) = self.try_write_state(home, false, limits) {
            tolerate_full(&home.directory, &error);
            return Err(error.into());
        }
        Ok(())
    }

    /// Writes the high watermarks of directories where one moved.
    fn checkpoint_high_watermarks(&self) {
        let mut moved: Vec<Arc<Home>> = Vec::new();
        let (logs, futures) = (self.logs.read(), self.futures.read());
        for hosted in logs.values().chain(futures.values()) {
            let written = hosted.written_high_watermark.load(Ordering::Relaxed);
            if hosted.log.high_watermark().get() != written
                && !moved.iter().any(|home| Arc::ptr_eq(home, &hosted.home))
            {
                moved.push(hosted.home.clone());
            }
        }
        drop((logs, futures));
        for home in moved.iter().filter(|home| home.directory.is_online()) {
            self.write_high_watermarks(home);
        }
    }

    pub(super) fn write_high_watermarks(&self, home: &Arc<Home>) -> bool {
        let _gate = home.checkpoints.recovery_gate.lock();
        let hosted = self.hosted_in(home);
        let offsets: Vec<Offset> = hosted.iter().map(|hosted| hosted.log.high_watermark()).collect();
        let mut entries = self.kept_entries(home, &home.checkpoints.high_watermarks.all());
        let partitions = hosted.iter().map(|hosted| hosted.log.partition().clone());
        entries.extend(partitions.zip(offsets.iter().copied()));
        match home.checkpoints.high_watermarks.write(&*self.io, entries) {
            Ok(()) => {
                hosted
                    .iter()
                    .zip(offsets)
                    .for_each(|(hosted, offset)| hosted.note_written_high_watermark(offset));
                true
            }
            Err(error) => {
                tolerate_full(&home.directory, &error);
                false
            }
        }
    }

    /// Entries of partitions that are on the disk but not served.
    fn kept_entries(&self, home: &Arc<Home>, written: &Offsets) -> Offsets {
        let unavailable = self.unavailable.read();
        let here = unavailable
            .iter()
            .filter(|(_, entry)| Arc::ptr_eq(&entry.home, home));
        here.filter_map(|(partition, _)| Some((partition.clone(), *written.get(partition)?)))
            .collect()
    }

    /// Writes the recovery points of directories where one moved, and removes producer snapshots that
    /// recovery from there would not use; where acknowledgements are synced, also how far the logs are, so that a
    /// start writes little again.
    fn checkpoint_recovery_points(&self) {
        for home in self.online_homes() {
            let Some(moved) = self.write_recovery_points(home) else {
                continue;
            };
            if moved || self.a_synced_end_moved(home) {
                self.write_state(home, false);
            }
            if moved {
                for hosted in self.hosted_in(home) {
                    if let Err(error) = hosted.log.delete_snapshots_after_checkpoint() {
                        tracing::error!("Error removing snapshots of {}: {error}", hosted.log.partition());
                    }
                }
            }
        }
    }

    /// Whether a log with synced acknowledgements is synced further than `milena.state` says.
    fn a_synced_end_moved(&self, home: &Arc<Home>) -> bool {
        let written = home.written_synced_ends.lock();
        let said = |log: &Log| written.get(log.partition()).copied().unwrap_or(Offset::ZERO);
        let hosted = self.hosted_in(home);
        let mut logs = hosted.iter().map(|hosted| &hosted.log);
        logs.any(|log| log.is_synced_mode() && log.synced_end() != said(log))
    }

    /// Writes down which logs were found damaged since the last call, so that the next start checks them.
    pub(super) fn note_out_of_service(&self) {
        // A future log that is damaged ends its move, and nothing else.
        for hosted in self.hosted().iter().filter(|hosted| !hosted.is_future()) {
            let Some(reason) = hosted.log.out_of_service() else {
                continue;
            };
            if hosted.noted_out_of_service.swap(true, Ordering::Relaxed) {
                continue;
            }
            let partition = hosted.log.partition();
            {
                let checkpoints = &hosted.home.checkpoints;
                let _gate = checkpoints.recovery_gate.lock();
                // An entry of before a deletion would speak of the partition's next log.
                if !self
                    .logs
                    .read()
                    .get(partition)
                    .is_some_and(|now| Arc::ptr_eq(now, hosted))
                {
                    continue;
                }
                let doubtful = hosted.log.log_start_offset();
                if let Err(error) = checkpoints.out_of_service.put(&*self.io, partition, doubtful) {
                    tolerate_full(&hosted.home.directory, &error);
                }
            }
            self.observer.partition_out_of_service(partition, reason);
        }
    }

    /// Returns whether one had moved; `None` if they could not be written.
    pub(super) fn write_recovery_points(&self, home: &Arc<Home>) -> Option<bool> {
        let _gate = home.checkpoints.recovery_gate.lock();
        let mut entries = self.kept_entries(home, &home.checkpoints.recovery_points.all());
        let hosted = self.hosted_in(home);
        entries.extend(hosted.iter().map(|hosted| {
            // Whatever is verified and synced, it ends with the log.
            let point = hosted.log.recovery_point().min(hosted.log.log_end_offset());
            (hosted.log.partition().clone(), point)
        }));
        // A log of which nothing is synced yet needs no entry: an idle broker writes none for it.
        if home.checkpoints.recovery_points.says(&entries) {
            return Some(false);
        }
        match home.checkpoints.recovery_points.write(&*self.io, entries) {
            Ok(()) => Some(true),
            Err(error) => {
                tolerate_full(&home.directory, &error);
                None
            }
        }
    }

    /// Writes the log start offsets of directories where one moved.
    fn checkpoint_log_start_offsets(&self) {
        self.online_homes().for_each(|home| {
            self.write_log_start_offsets(home);
        });
    }

    /// Only those beyond their first segment are written: for the others the segment's name tells.
    pub(super) fn write_log_start_offsets(&self, home: &Arc<Home>) -> bool {
        // A log start of before a deletion would empty the partition's next log.
        let _gate = home.checkpoints.recovery_gate.lock();
        let mut entries = self.kept_entries(home, &home.checkpoints.log_start_offsets.all());
        for hosted in self.hosted_in(home) {
            let start = hosted.log.log_start_offset();
            if hosted
                .log
                .segment_base_offsets()
                .first()
                .is_some_and(|first| start > *first)
            {
                entries.insert(hosted.log.partition().clone(), start);
            }
        }
        match home.checkpoints.log_start_offsets.write(&*self.io, entries) {
            Ok(()) => true,
            Err(error) => {
                tolerate_full(&home.directory, &error);
                false
            }
        }
    }

    /// Flushes logs whose `flush.ms` is over; returns when to look again.
    fn flush_by_time(&self, now: Duration) -> Duration {
        let mut interval = Duration::from_millis(self.config.flush_scheduler_interval_ms);
        for hosted in self.hosted() {
            if let Some(flush_ms) = hosted.log.config().flush_ms {
                interval = interval.min(Duration::from_millis(flush_ms));
            }
            if hosted.log.flush_due().is_some_and(|due| due <= now)
                && let Err(error) = hosted.log.flush()
            {
                tracing::error!("Error flushing {}: {error}", hosted.log.partition());
            }
        }
        // A topic may get its `flush.ms` later: look for that no less often than retention is first done.
        now + interval.clamp(FLUSH_INTERVAL_MIN, INITIAL_DELAY)
    }

    fn delete_old_segments(&self) {
        for hosted in self.hosted() {
            if let Err(error) = hosted.log.delete_old_segments() {
                tracing::error!("Error applying retention to {}: {error}", hosted.log.partition());
            }
        }
    }

    /// Removes the files of deleted segments whose delay is over; returns when the next is due.
    fn remove_deleted_segments(&self, now: Duration) -> Option<Duration> {
        let mut next = None;
        for hosted in self.hosted() {
            let log = &hosted.log;
            if log.next_deletion_due().is_some_and(|due| due <= now)
                && let Err(error) = log.run_due_deletions()
            {
                tracing::error!("Error removing deleted segments of {}: {error}", log.partition());
            }
            next = next.into_iter().chain(log.next_deletion_due()).min();
        }
        next
    }
}
