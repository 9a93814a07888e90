//! [`LogManager`]: all logs of a broker, in one or more log directories.
//!
//! A start has two stages: [`Survey::of`] looks at the directories and locks them, so that the broker can
//! settle who it is and which settings each topic has; [`LogManager::open`] loads the logs in parallel.
//! Afterwards the manager finds, creates and deletes logs, and does the recurring work when the broker calls
//! [`LogManager::run_due`]; it has no threads or timers of its own. [`LogManager::shutdown`] ends it.
//!
//! Promises:
//! - **A crash is seen as one.** `.kafka_cleanshutdown` is taken away, durably, before the first log is
//!   loaded, and left as the very last step of a clean stop, only where every log of the directory was synced
//!   and closed.
//! - **Failures stay where they are.** A log with damaged bytes is out of service, its files untouched, and
//!   the others go on. A failed write or sync takes its directory offline, and the other directories go on.
//!   One log that cannot be flushed at shutdown does not keep the others from it.
//! - **Checkpoints never promise too much.** A recovery point is written after the sync that it stands for,
//!   lowered before a truncation, and gone before a partition is created anew under the same name.
//! - **Idle costs nothing**: a checkpoint is written only when it would differ from its file.
//!
//! Locks: `changing` serialises creation, deletion and moves and is held over I/O; a directory's `recovery_gate`,
//! taken after it where both are held, orders what is read of logs and written of them, and truncations; the map of logs
//! is held for moments only. None is taken by reads or by a leader's appends.
//!
//! It leaves to others: what a partition may do (replication), when topics come and go (the controller),
//! compaction (the cleaner). Source: `LogManager.scala`; KIP-112, KIP-113.
//!
//! **Deviation:** Kafka removes the clean-shutdown marker after loading (KAFKA-10471), gives up at the first
//! log that fails to flush at shutdown (KAFKA-13315), and opens directories that are only there to be
//! deleted.

mod adoption;
mod checkpoints;
mod creation;
mod deletion;
mod future;
mod loading;
mod maintenance;
mod partition_directory;
mod reserve;
mod schedule;
mod scrub;
mod shutdown;
mod survey;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::checkpoint::BrokerMetadata;
use crate::config::LogConfig;
use crate::error::StorageError;
use crate::io::{Clock, DirectoryLock, Io};
use crate::log::{Log, LogDirectory};
use crate::units::{Offset, TopicPartition};

use checkpoints::DirectoryCheckpoints;
use deletion::Deletion;
use reserve::ReserveWatch;
use schedule::Schedule;

pub use adoption::FoundPartition;
pub use loading::LoadProgress;
pub use partition_directory::PartitionDirectoryName;
pub use shutdown::ShutdownReport;
pub use survey::{LogDirsError, Survey, SurveyedDirectory};

/// Settings of the manager. Times in milliseconds; under Kafka's names where it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct LogManagerConfig {
    /// `num.recovery.threads.per.data.dir`
    pub recovery_threads_per_dir: usize,
    /// `log.retention.check.interval.ms`
    pub retention_check_interval_ms: u64,
    /// `log.flush.scheduler.interval.ms`
    pub flush_scheduler_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`
    pub recovery_point_checkpoint_interval_ms: u64,
    /// `log.flush.start.offset.checkpoint.interval.ms`
    pub log_start_offset_checkpoint_interval_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`
    pub high_watermark_checkpoint_interval_ms: u64,
    /// `transactional.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
    /// `milena.disk.reserve.bytes`
    pub disk_reserve_bytes: u64,
    /// How fast the background scrub reads; 0 turns it off.
    pub scrub_bytes_per_second: u64,
    /// From the end of one pass of the scrub over all logs to the start of the next.
    pub scrub_interval_ms: u64,
    /// [`OpenOptions::cuts_holes`](crate::log::OpenOptions::cuts_holes) of every log.
    pub cuts_holes: bool,
}

impl Default for LogManagerConfig {
    fn default() -> Self {
        LogManagerConfig {
            recovery_threads_per_dir: 1,
            retention_check_interval_ms: 5 * 60_000,
            flush_scheduler_interval_ms: i64::MAX as u64,
            recovery_point_checkpoint_interval_ms: 60_000,
            log_start_offset_checkpoint_interval_ms: 60_000,
            high_watermark_checkpoint_interval_ms: 5_000,
            producer_id_expiration_ms: 7 * 24 * 3_600_000,
            disk_reserve_bytes: 0,
            scrub_bytes_per_second: 8 << 20,
            scrub_interval_ms: 7 * 24 * 3_600_000,
            cuts_holes: false,
        }
    }
}

/// Told what a person or the broker must know. Called on whatever thread saw it, without locks held; must not
/// block.
pub trait LogManagerObserver: Send + Sync {
    /// A log was loaded, or could not be.
    fn loaded(&self, progress: &LoadProgress<'_>) {
        let _ = progress;
    }

    /// A log directory failed while the broker ran. Its partitions answer with [`StorageError::Offline`]
    /// already.
    fn directory_offline(&self, directory: &Path, reason: &str) {
        let _ = (directory, reason);
    }

    /// Damaged bytes were found by the scrub or by who read them. The partition answers with
    /// [`StorageError::OutOfService`] already.
    fn partition_out_of_service(&self, partition: &TopicPartition, reason: &str) {
        let _ = (partition, reason);
    }
}

/// Observes nothing.
impl LogManagerObserver for () {}

/// A log directory in use.
struct Home {
    directory: Arc<LogDirectory>,
    /// Released when the directory goes out of use.
    lock: Mutex<Option<Box<dyn DirectoryLock>>>,
    checkpoints: DirectoryCheckpoints,
    metadata: Option<BrokerMetadata>,
    /// As in `milena.state`.
    written_synced_ends: Mutex<BTreeMap<TopicPartition, Offset>>,
    /// Names of `…-future` directories that are not served.
    unserved_futures: Mutex<Vec<String>>,
    reserve: Mutex<ReserveWatch>,
}

/// A log in service, and what of it was written where.
struct HostedLog {
    log: Arc<Log>,
    home: Arc<Home>,
    /// As last written to the checkpoint; `i64::MIN` if never.
    written_high_watermark: AtomicI64,
    /// That it is out of service was written down and said.
    noted_out_of_service: AtomicBool,
    /// It is to replace the partition's log in another directory.
    is_future: AtomicBool,
}

/// A partition whose directory is there but whose log is not served.
struct Unavailable {
    home: Arc<Home>,
    reason: String,
}

/// A log that is to be there.
#[derive(Clone, Debug)]
pub struct WantedLog {
    pub partition: TopicPartition,
    /// Used only if it is created.
    pub config: Arc<LogConfig>,
    /// Whether the controller says that it never existed before. If not, and a log directory is offline, the
    /// log may be there and is not created.
    pub is_new: bool,
    /// The directory in which to create it; `None` = the one with the fewest logs.
    pub preferred_directory: Option<PathBuf>,
}

/// One log directory for DescribeLogDirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryDescription {
    pub path: PathBuf,
    /// Why it is offline; its logs are not listed then.
    pub offline_reason: Option<String>,
    pub logs: Vec<LogDescription>,
    /// Names of `…-future` directories that no move goes on with, left alone: there is another one for the
    /// partition, or its log lies in the same directory, or is missing.
    pub future_directories: Vec<String>,
}

/// One log for DescribeLogDirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDescription {
    pub partition: TopicPartition,
    pub size_bytes: u64,
    pub log_end_offset: Offset,
    /// It is to replace the partition's log in another directory.
    pub is_future: bool,
}

/// All logs of a broker. See the module for what it promises.
pub struct LogManager {
    config: LogManagerConfig,
    io: Arc<dyn Io>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn LogManagerObserver>,
    homes: Vec<Arc<Home>>,
    /// Unusable since the start.
    offline_from_start: Vec<Arc<LogDirectory>>,
    logs: RwLock<HashMap<TopicPartition, Arc<HostedLog>>>,
    /// Those that are to replace the partition's log in another directory.
    futures: RwLock<HashMap<TopicPartition, Arc<HostedLog>>>,
    /// Where partitions that are not there yet are to lie.
    preferred: Mutex<HashMap<TopicPartition, PathBuf>>,
    unavailable: RwLock<HashMap<TopicPartition, Unavailable>>,
    may_lack_writes: Vec<TopicPartition>,
    /// Somebody may count on what they lack: until then no next start takes this one for all that has happened.
    are_lost_writes_settled: AtomicBool,
    /// Serialises creation and deletion.
    changing: Mutex<()>,
    deletions: Mutex<Vec<Deletion>>,
    schedule: Mutex<Schedule>,
    scrub: Mutex<scrub::Scrub>,
}

impl fmt::Debug for LogManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directories: Vec<&Path> = self.homes.iter().map(|home| home.directory.path()).collect();
        f.debug_struct("LogManager")
            .field("directories", &directories)
            .field("log_count", &self.log_count())
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// Partitions that may have lost their last writes before this start: their directory was not left cleanly, nothing shows that the
    /// machine has been up since, and their writes are not synced before they are acknowledged, or a hole was cut.
    pub fn may_lack_writes(&self) -> &[TopicPartition] {
        &self.may_lack_writes
    }

    /// Nobody counts any more on what [`Self::may_lack_writes`] lack. Before this is said, the next start finds the same partitions
    /// doubtful, however this one ends.
    pub fn settle_lost_writes(&self) {
        if !self.are_lost_writes_settled.swap(true, Ordering::AcqRel) {
            for log in self
                .may_lack_writes
                .iter()
                .filter_map(|partition| self.get(partition))
            {
                if let Err(error) = log.forget_cut_hole() {
                    tracing::error!("{}: {error}; its next start waits again", log.partition());
                }
            }
            self.online_homes()
                .for_each(|home| self.write_state_of_new_boot(home));
        }
    }

    /// The log of a partition, whether or not its directory is online and it serves.
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.logs.read().get(partition).map(|hosted| hosted.log.clone())
    }

    /// As [`Self::get`], with the reason where the partition's directory is there and its log is not served.
    ///
    /// # Errors
    /// [`StorageError::OutOfService`]; [`StorageError::Offline`] if it is not found and may lie in an offline
    /// directory.
    pub fn find(&self, partition: &TopicPartition) -> Result<Option<Arc<Log>>, StorageError> {
        if let Some(log) = self.get(partition) {
            return Ok(Some(log));
        }
        self.check_available(partition)?;
        self.check_all_online()?;
        Ok(None)
    }

    fn check_available(&self, partition: &TopicPartition) -> Result<(), StorageError> {
        match self.unavailable.read().get(partition) {
            None => Ok(()),
            Some(unavailable) => Err(StorageError::OutOfService {
                partition: partition.clone(),
                reason: unavailable.reason.clone(),
            }),
        }
    }

    fn check_all_online(&self) -> Result<(), StorageError> {
        self.directories()
            .try_for_each(|directory| directory.check_online())
    }

    /// All log directories, in use or not.
    pub fn directories(&self) -> impl Iterator<Item = &Arc<LogDirectory>> {
        self.homes
            .iter()
            .map(|home| &home.directory)
            .chain(&self.offline_from_start)
    }

    /// Of [`Self::directories`], those that have not failed.
    pub fn online_directory_count(&self) -> usize {
        self.directories()
            .filter(|directory| directory.is_online())
            .count()
    }

    /// Number of logs in service.
    pub fn log_count(&self) -> usize {
        self.logs.read().len()
    }

    /// All logs in service, in no order.
    pub fn logs(&self) -> Vec<(TopicPartition, Arc<Log>)> {
        self.logs
            .read()
            .iter()
            .map(|(partition, hosted)| (partition.clone(), hosted.log.clone()))
            .collect()
    }

    /// The logs in service of one topic, future ones too, in no order; for a change of its settings.
    pub fn logs_of_topic(&self, topic: &str) -> Vec<(TopicPartition, Arc<Log>)> {
        let (logs, futures) = (self.logs.read(), self.futures.read());
        let all = logs.iter().chain(&*futures);
        let of_topic = all.filter(|(partition, _)| &*partition.topic == topic);
        of_topic
            .map(|(partition, hosted)| (partition.clone(), hosted.log.clone()))
            .collect()
    }

    /// Partitions that are on the disk but not served, with the reason.
    pub fn out_of_service(&self) -> Vec<(TopicPartition, String)> {
        let logs = self.logs.read();
        let unavailable = self.unavailable.read();
        let since_start = unavailable
            .iter()
            .map(|(partition, entry)| (partition, entry.reason.as_str()));
        let since_then = logs
            .iter()
            .filter_map(|(partition, hosted)| Some((partition, hosted.log.out_of_service()?)));
        since_start
            .chain(since_then)
            .map(|(partition, reason)| (partition.clone(), reason.to_owned()))
            .collect()
    }

    /// The directory that holds the partition's log.
    pub fn directory_of(&self, partition: &TopicPartition) -> Option<Arc<LogDirectory>> {
        self.logs
            .read()
            .get(partition)
            .map(|hosted| hosted.home.directory.clone())
    }

    /// Writes `meta.properties` where it differs; durable when it returns. A directory that fails goes
    /// offline.
    pub fn write_metadata(&self, metadata: &BrokerMetadata) {
        for home in &self.homes {
            let now = self.clock.wall();
            survey::write_metadata(&home.directory, home.metadata.as_ref(), metadata, &*self.io, now);
        }
    }

    /// Cuts logs back so that each ends at its offset, lowering what is written of their offsets on disk first, so
    /// that a crash in between finds nothing taken for verified that is not. Partitions not in
    /// service are left out.
    ///
    /// # Errors
    /// For the first log that fails; its directory is offline then.
    pub fn truncate_to(&self, ends: &[(TopicPartition, Offset)]) -> Result<(), StorageError> {
        let affected = {
            let logs = self.logs.read();
            let found = ends
                .iter()
                .filter_map(|(partition, end)| Some((logs.get(partition)?.clone(), *end)));
            found.collect()
        };
        self.truncate_hosted(affected)
    }

    fn truncate_hosted(&self, affected: Vec<(Arc<HostedLog>, Offset)>) -> Result<(), StorageError> {
        for home in &self.homes {
            let here = || {
                let here = affected.iter().filter(|(log, _)| Arc::ptr_eq(&log.home, home));
                here.filter(|_| home.directory.is_online())
            };
            if here().next().is_none() {
                continue;
            }
            let checkpoints = &home.checkpoints;
            let _gate = checkpoints.recovery_gate.lock();
            // A start after a crash would take what is cut for verified, or delete what was written anew up to a log
            // start of before.
            for checkpoint in [
                &checkpoints.recovery_points,
                &checkpoints.log_start_offsets,
                &checkpoints.high_watermarks,
            ] {
                let limits = here().map(|(hosted, end)| (hosted.log.partition(), *end));
                if let Err(error) = checkpoint.lower(&*self.io, limits) {
                    checkpoints::tolerate_full(&home.directory, &error);
                    return Err(error.into());
                }
            }
            here().for_each(|(hosted, end)| hosted.note_lowered_high_watermark(*end));
            let ends: Vec<_> = here()
                .map(|(hosted, end)| (hosted.log.partition(), Some(*end)))
                .collect();
            self.lower_synced_ends(home, &ends)?;
            for (hosted, end) in here() {
                hosted.log.truncate_to(*end)?;
            }
        }
        Ok(())
    }

    /// Empties a log so that it starts and ends at `start`, lowering what is written of its offsets on disk first.
    ///
    /// # Errors
    /// The log's directory is offline then. Nothing happens if the partition is not in service.
    pub fn truncate_fully_and_start_at(
        &self,
        partition: &TopicPartition,
        start: Offset,
    ) -> Result<(), StorageError> {
        let hosted = self.logs.read().get(partition).cloned();
        hosted.map_or(Ok(()), |hosted| self.restart_hosted(&hosted, start))
    }

    fn restart_hosted(&self, hosted: &HostedLog, start: Offset) -> Result<(), StorageError> {
        hosted.home.directory.check_online()?;
        let partition = hosted.log.partition();
        let checkpoints = &hosted.home.checkpoints;
        let _gate = checkpoints.recovery_gate.lock();
        let (io, limit) = (&*self.io, [(partition, start)]);
        let lowered = checkpoints.recovery_points.forget(io, partition);
        let lowered = lowered.and_then(|()| checkpoints.log_start_offsets.lower(io, limit));
        let lowered = lowered.and_then(|()| checkpoints.high_watermarks.lower(io, limit));
        if let Err(error) = lowered {
            checkpoints::tolerate_full(&hosted.home.directory, &error);
            return Err(error.into());
        }
        hosted.note_lowered_high_watermark(start);
        self.lower_synced_ends(&hosted.home, &[(partition, None)])?;
        hosted.log.truncate_fully_and_start_at(start)
    }

    /// The directories with the sizes of their logs, each in its order.
    pub fn describe(&self) -> Vec<DirectoryDescription> {
        let mut descriptions: Vec<DirectoryDescription> = self
            .directories()
            .map(|directory| DirectoryDescription {
                path: directory.path().to_owned(),
                offline_reason: directory.offline_reason().map(str::to_owned),
                logs: Vec::new(),
                future_directories: Vec::new(),
            })
            .collect();
        for (description, home) in descriptions.iter_mut().zip(&self.homes) {
            description.future_directories = home.unserved_futures.lock().clone();
        }
        for hosted in self.hosted() {
            let home = self.homes.iter().position(|home| Arc::ptr_eq(home, &hosted.home));
            let Some(description) = home.map(|index| &mut descriptions[index]) else {
                continue;
            };
            if description.offline_reason.is_none() {
                description.logs.push(LogDescription {
                    partition: hosted.log.partition().clone(),
                    size_bytes: hosted.log.size_bytes(),
                    log_end_offset: hosted.log.log_end_offset(),
                    is_future: hosted.is_future(),
                });
            }
        }
        descriptions
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl HostedLog {
    fn new(log: Arc<Log>, home: Arc<Home>, written_high_watermark: Option<Offset>) -> HostedLog {
        HostedLog {
            log,
            home,
            written_high_watermark: AtomicI64::new(written_high_watermark.map_or(i64::MIN, Offset::get)),
            noted_out_of_service: AtomicBool::new(false),
            is_future: AtomicBool::new(false),
        }
    }

    fn is_future(&self) -> bool {
        self.is_future.load(Ordering::Relaxed)
    }

    fn note_written_high_watermark(&self, offset: Offset) {
        self.written_high_watermark.store(offset.get(), Ordering::Relaxed);
    }

    fn note_lowered_high_watermark(&self, limit: Offset) {
        self.written_high_watermark
            .fetch_min(limit.get(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
