//! The second stage of a start: every log of the surveyed directories is loaded, each directory by its own
//! few threads.
//!
//! What is known of the last run of a directory, and what follows for its logs:
//!
//! | `.kafka_cleanshutdown` | `milena.state` | boot id | a log is opened with |
//! |---|---|---|---|
//! | there | any | any | nothing to recover |
//! | missing | readable | this one | `SameBoot`: all bytes written must be there |
//! | missing | readable | another | `OtherBoot`: bytes beyond the synced end may be missing |
//! | missing | absent or damaged | - | `Unknown` |
//!
//! The marker is removed, durably, before the first log is opened. `milena.state` keeps its old content until
//! the logs are loaded and it is due ([`super::maintenance`]): a crash while loading must find the evidence
//! as it was.
//!
//! A partition listed in `milena.out-of-service` is checked as a whole, with nothing taken for granted,
//! whatever the marker says; if its bytes are whole again, or a person has given up what lies behind the
//! damage, it is back in service. Source: `LogManager.loadLogs`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::checkpoint::{self, RunState};
use crate::config::LogConfig;
use crate::error::{IoError, StorageError};
use crate::io::{Clock, Io};
use crate::log::{BootEvidence, Log, LogOpenError, OpenOptions, give_up_name};
use crate::units::{Offset, TopicPartition};

use super::checkpoints::{self, DirectoryCheckpoints};
use super::deletion::Deletion;
use super::partition_directory::PartitionDirectoryName;
use super::reserve::ReserveWatch;
use super::schedule::Schedule;
use super::scrub::Scrub;
use super::survey::{Survey, SurveyedDirectory};
use super::{Home, HostedLog, LogDirsError, LogManager, LogManagerConfig, LogManagerObserver, Unavailable};

/// One log was loaded, or could not be.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress<'a> {
    pub directory: &'a Path,
    pub partition: &'a TopicPartition,
    /// Of this directory, including this one.
    pub loaded_count: usize,
    /// Of this directory.
    pub total_count: usize,
    pub took: Duration,
    /// Why the log is not in service.
    pub failure: Option<&'a str>,
}

/// What is shared by the threads that load.
struct Loader<'a> {
    config: &'a LogManagerConfig,
    log_config: &'a (dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
    observer: &'a dyn LogManagerObserver,
    io: &'a Arc<dyn Io>,
    clock: &'a Arc<dyn Clock>,
    boot_id: Option<String>,
}

/// A log that is to be loaded.
#[derive(Clone, Debug)]
struct FoundLog {
    partition: TopicPartition,
    /// Of its directory.
    name: String,
    /// It is to replace the partition's log in another directory.
    is_future: bool,
}

/// A log, or why it is not served.
type LoadedLog = (FoundLog, Result<Arc<Log>, String>);

/// A directory's part of the loading.
struct DirectoryLoad {
    home: Arc<Home>,
    found: Vec<FoundLog>,
    clean_shutdown: bool,
    boot: BootEvidence,
    state: RunState,
    next: AtomicUsize,
    loaded: AtomicUsize,
    results: Mutex<Vec<LoadedLog>>,
}

impl DirectoryLoad {
    /// Takes the directory offline if something could not be noted in it, unless for lack of space.
    fn note(&self, written: Result<(), IoError>) {
        if let Err(error) = written {
            checkpoints::tolerate_full(&self.home.directory, &error);
        }
    }
}

impl LogManager {
    /// Loads all logs, in parallel, and reports each to the observer. `log_config` gives a partition's
    /// settings; it is asked from several threads.
    ///
    /// A log with damaged bytes is out of service, an I/O error takes its directory offline; neither is an
    /// error here.
    ///
    /// # Errors
    /// [`LogDirsError::AllOffline`] if no directory is left.
    pub fn open(
        survey: Survey,
        config: LogManagerConfig,
        log_config: &(dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
        observer: Arc<dyn LogManagerObserver>,
        io: Arc<dyn Io>,
        clock: Arc<dyn Clock>,
    ) -> Result<LogManager, LogDirsError> {
        let loader = Loader {
            config: &config,
            log_config,
            observer: &*observer,
            io: &io,
            clock: &clock,
            boot_id: io.boot_id().ok(),
        };
        let mut homes = Vec::new();
        let mut offline = survey.offline;
        let mut loads = Vec::new();
        let mut deletions = Vec::new();
        for surveyed in survey.online {
            let directory = surveyed.directory.clone();
            let deleted = surveyed.deleted.clone();
            match loader.prepare(surveyed) {
                Ok(load) => {
                    let home = load.home.clone();
                    deletions.extend(
                        deleted
                            .into_iter()
                            .map(|name| Deletion::left_over(home.clone(), name)),
                    );
                    homes.push(home);
                    loads.push(load);
                }
                Err(error) => {
                    tracing::error!(
                        "Error while loading log dir {}: {error}",
                        directory.path().display()
                    );
                    directory.fail(&error);
                    offline.push(directory);
                }
            }
        }
        leave_alone_unfit_futures(&mut loads);
        std::thread::scope(|scope| {
            for load in &loads {
                let loader = &loader;
                let threads = config.recovery_threads_per_dir.clamp(1, load.found.len().max(1));
                // The only thread of the only directory is the caller's own.
                let spawned = if loads.len() == 1 { threads - 1 } else { threads };
                for _ in 0..spawned {
                    scope.spawn(move || loader.run(load));
                }
                if spawned < threads {
                    loader.run(load);
                }
            }
        });
        let now = clock.monotonic();
        let mut manager = LogManager {
            may_lack_writes: Vec::new(),
            are_lost_writes_settled: AtomicBool::new(true),
            schedule: Mutex::new(Schedule::new()),
            scrub: Mutex::new(Scrub::new()),
            deletions: Mutex::new(deletions),
            changing: Mutex::new(()),
            logs: RwLock::default(),
            futures: RwLock::default(),
            preferred: Mutex::default(),
            unavailable: RwLock::default(),
            homes,
            offline_from_start: offline,
            config,
            io,
            clock,
            observer,
        };
        for load in loads {
            manager.take_over(load);
        }
        manager.drop_damaged_futures();
        if manager.online_directory_count() == 0 {
            let reason = |directory: &Arc<crate::log::LogDirectory>| {
                (
                    directory.path().to_owned(),
                    directory.offline_reason().unwrap_or_default().to_owned(),
                )
            };
            return Err(LogDirsError::AllOffline {
                reasons: manager.directories().map(reason).collect(),
            });
        }
        for home in &manager.homes {
            let observer = manager.observer.clone();
            home.directory.set_on_offline(Box::new(move |path, reason| {
                observer.directory_offline(path, reason);
            }));
        }
        manager.watch_space();
        manager.are_lost_writes_settled = AtomicBool::new(manager.may_lack_writes.is_empty());
        // Before the first append, so that the next start can tell what has happened since.
        manager
            .online_homes()
            .for_each(|home| manager.write_state_of_new_boot(home));
        manager.plan_first(now);
        Ok(manager)
    }

    /// Puts what was loaded into service.
    fn take_over(&mut self, load: DirectoryLoad) {
        let home = load.home;
        let may_lack_writes = !load.clean_shutdown && load.boot != BootEvidence::SameBoot;
        let mut logs = self.logs.write();
        let mut futures = self.futures.write();
        let mut unavailable = self.unavailable.write();
        for (found, result) in load.results.into_inner() {
            let partition = found.partition;
            match result {
                Ok(log) => {
                    let is_doubtful = !log.is_synced_mode() || log.has_cut_hole();
                    if may_lack_writes && !found.is_future && is_doubtful {
                        self.may_lack_writes.push(partition.clone());
                    }
                    let written = home.checkpoints.high_watermarks.get(&partition);
                    let hosted = HostedLog::new(log, home.clone(), written);
                    hosted.is_future.store(found.is_future, Ordering::Relaxed);
                    let table = if found.is_future { &mut futures } else { &mut logs };
                    table.insert(partition, Arc::new(hosted));
                }
                Err(_) if found.is_future => home.unserved_futures.lock().push(found.name),
                Err(reason) => {
                    unavailable.insert(
                        partition,
                        Unavailable {
                            home: home.clone(),
                            reason,
                        },
                    );
                }
            }
        }
    }
}

/// A partition has one future log, and not where its log is. Others stay as they are, for a person to look at.
fn leave_alone_unfit_futures(loads: &mut [DirectoryLoad]) {
    let mut seen = HashSet::new();
    for load in loads {
        let current: HashSet<TopicPartition> = load
            .found
            .iter()
            .filter(|found| !found.is_future)
            .map(|found| found.partition.clone())
            .collect();
        let home = &load.home;
        load.found.retain(|found| {
            let is_unfit = found.is_future
                && (current.contains(&found.partition) || !seen.insert(found.partition.clone()));
            if is_unfit {
                tracing::warn!(
                    "{} is left alone: the partition has a log in the same directory, or another one of this kind",
                    home.directory.path().join(&found.name).display()
                );
                home.unserved_futures.lock().push(found.name.clone());
            }
            !is_unfit
        });
    }
}

impl LogManager {
    /// What cannot be served of a copy is no loss, where the log that it is a copy of is served.
    fn drop_damaged_futures(&self) {
        let logs = self.logs.read();
        for home in self.online_homes() {
            let mut unserved = home.unserved_futures.lock();
            let is_copy = |name: &String| match PartitionDirectoryName::parse(name) {
                Some(PartitionDirectoryName::Future(partition)) => logs.contains_key(&partition),
                _ => false,
            };
            let left_over = unserved.extract_if(.., |name| is_copy(name));
            let mut deletions = self.deletions.lock();
            deletions.extend(left_over.map(|name| {
                tracing::warn!(
                    "{} is removed: its move is given up",
                    home.directory.path().join(&name).display()
                );
                Deletion::left_over(home.clone(), name)
            }));
        }
    }
}

impl Loader<'_> {
    /// Reads what the last run left and removes the marker.
    fn prepare(&self, surveyed: SurveyedDirectory) -> Result<DirectoryLoad, IoError> {
        let path = surveyed.directory.path().to_owned();
        let checkpoints = DirectoryCheckpoints::load(&**self.io, &path)?;
        let state = RunState::read(&**self.io, &path).unwrap_or_else(|warning| {
            tracing::warn!("{warning}");
            None
        });
        let boot = match (&state, &self.boot_id) {
            (Some(state), Some(now)) if state.boot_id == *now => BootEvidence::SameBoot,
            (Some(_), _) => BootEvidence::OtherBoot,
            (None, _) => BootEvidence::Unknown,
        };
        if surveyed.clean_shutdown {
            tracing::info!(
                "Skipping recovery for all logs in {} since clean shutdown file was found",
                path.display()
            );
            checkpoint::remove_clean_shutdown_marker(&**self.io, &path)?;
        } else if !surveyed.partitions.is_empty() || !surveyed.future.is_empty() {
            // A start that was killed may have removed the marker without making that durable: it must not come
            // back after what this start changes.
            self.io.sync_dir(&path)?;
            let why = match boot {
                BootEvidence::SameBoot => "the machine has been up since",
                BootEvidence::OtherBoot => {
                    "the machine was restarted since, data not yet synced may be missing"
                }
                BootEvidence::Unknown => "nothing tells whether the machine was restarted since",
            };
            tracing::info!(
                "Attempting recovery for all logs in {} since no clean shutdown file was found; {why}",
                path.display()
            );
        }
        let current = surveyed.partitions.into_iter().map(|partition| FoundLog {
            name: partition.to_string(),
            partition,
            is_future: false,
        });
        let future = surveyed.future.into_iter().map(|(partition, name)| FoundLog {
            partition,
            name,
            is_future: true,
        });
        let home = Home {
            directory: surveyed.directory,
            lock: Mutex::new(Some(surveyed.lock)),
            checkpoints,
            metadata: surveyed.metadata,
            written_synced_ends: Mutex::new(
                state
                    .as_ref()
                    .map(|state| state.synced_ends.clone())
                    .unwrap_or_default(),
            ),
            unserved_futures: Mutex::default(),
            reserve: Mutex::new(ReserveWatch::new(self.config.disk_reserve_bytes)),
        };
        Ok(DirectoryLoad {
            home: Arc::new(home),
            found: current.chain(future).collect(),
            clean_shutdown: surveyed.clean_shutdown,
            boot,
            state: state.unwrap_or_default(),
            next: AtomicUsize::new(0),
            loaded: AtomicUsize::new(0),
            results: Mutex::new(Vec::new()),
        })
    }

    /// Loads logs of the directory until none is left; several threads may.
    fn run(&self, load: &DirectoryLoad) {
        while let Some(found) = load.found.get(load.next.fetch_add(1, Ordering::Relaxed)) {
            let partition = &found.partition;
            if !load.home.directory.is_online() {
                return;
            }
            let start = self.clock.monotonic();
            let result = self.load(load, found);
            if let Err(reason) = &result {
                tracing::error!("{} is not served: {reason}", found.name);
            }
            let loaded_count = load.loaded.fetch_add(1, Ordering::Relaxed) + 1;
            self.observer.loaded(&LoadProgress {
                directory: load.home.directory.path(),
                partition,
                loaded_count,
                total_count: load.found.len(),
                took: self.clock.monotonic().saturating_sub(start),
                failure: result.as_ref().err().map(String::as_str),
            });
            load.results.lock().push((found.clone(), result));
        }
    }

    fn load(&self, load: &DirectoryLoad, found: &FoundLog) -> Result<Arc<Log>, String> {
        let partition = &found.partition;
        let checkpoints = &load.home.checkpoints;
        let doubtful = checkpoints.out_of_service.get(partition);
        let given_up_from = match doubtful {
            Some(_) => self.given_up(load, partition).map_err(|error| {
                checkpoints::tolerate_full(&load.home.directory, &error);
                error.to_string()
            })?,
            None => None,
        };
        let recovery_point = checkpoints.recovery_points.get(partition);
        let synced_end = load.state.synced_ends.get(partition).copied();
        let options = OpenOptions {
            recovery_point: match doubtful {
                Some(_) => Offset::ZERO,
                None => recovery_point.unwrap_or(Offset::ZERO),
            },
            log_start_offset: checkpoints.log_start_offsets.get(partition),
            high_watermark: checkpoints.high_watermarks.get(partition),
            clean_shutdown: load.clean_shutdown && doubtful.is_none(),
            boot: if doubtful.is_some() {
                BootEvidence::SameBoot
            } else {
                load.boot
            },
            // Looked at from the beginning, but not judged with less evidence.
            synced_end: match doubtful {
                Some(_) => synced_end.max(recovery_point),
                None => synced_end,
            },
            cleaned_end: checkpoints.cleaned_ends.get(partition),
            given_up_from,
            cuts_holes: self.config.cuts_holes,
            producer_id_expiration_ms: self.config.producer_id_expiration_ms,
        };
        let (io, clock) = (self.io.clone(), self.clock.clone());
        let directory = load.home.directory.clone();
        let config = (self.log_config)(partition);
        let partition = partition.clone();
        match Log::open(
            directory.clone(),
            &found.name,
            partition.clone(),
            config,
            &options,
            io,
            clock,
        ) {
            Ok(log) => {
                if doubtful.is_some() {
                    // Files below its noted recovery point were built anew too.
                    log.flush().map_err(|error| error.to_string())?;
                    load.note(self.forget_doubt(load, &log, given_up_from));
                    tracing::info!("{partition} was out of service; its bytes are whole, it is served again");
                }
                Ok(log)
            }
            Err(LogOpenError::OutOfService { reason, .. }) => {
                if doubtful.is_none() && !found.is_future {
                    let put = checkpoints
                        .out_of_service
                        .put(&**self.io, &partition, Offset::ZERO);
                    load.note(put);
                }
                Err(reason)
            }
            Err(LogOpenError::Storage(error)) => {
                match &error {
                    StorageError::Io(error) if !error.lacks_space() => directory.fail(error),
                    _ => {}
                }
                Err(error.to_string())
            }
        }
    }

    /// From where on a person has given up what this log holds.
    fn given_up(&self, load: &DirectoryLoad, partition: &TopicPartition) -> Result<Option<Offset>, IoError> {
        let directory = load.home.directory.path().join(partition.to_string());
        let prefix = give_up_name("");
        let entries = self.io.list(&directory)?;
        let given_up = entries
            .iter()
            .filter_map(|entry| entry.name.strip_prefix(&prefix)?.parse().ok());
        Ok(given_up.min().map(Offset))
    }

    /// The log is sound. If a person has given up what lay behind its end, nothing may say any more that it was
    /// synced, and the permission goes: it must not speak for damage that is still to come.
    fn forget_doubt(
        &self,
        load: &DirectoryLoad,
        log: &Log,
        given_up_from: Option<Offset>,
    ) -> Result<(), IoError> {
        let (io, home) = (&**self.io, &load.home);
        let (partition, end) = (log.partition(), log.log_end_offset());
        if let Some(from) = given_up_from {
            home.checkpoints.recovery_points.lower(io, [(partition, end)])?;
            self.lower_synced_end(load, partition, end)?;
            io.remove_file(&log.path().join(give_up_name(from)))?;
            io.sync_dir(&log.path())?;
        }
        home.checkpoints.out_of_service.forget(io, partition)
    }

    /// As long as logs are being loaded, `milena.state` keeps the boot id that it has.
    fn lower_synced_end(
        &self,
        load: &DirectoryLoad,
        partition: &TopicPartition,
        limit: Offset,
    ) -> Result<(), IoError> {
        let mut written = load.home.written_synced_ends.lock();
        if written.get(partition).is_some_and(|end| *end > limit) {
            let mut state = load.state.clone();
            state.synced_ends.clone_from(&written);
            state.synced_ends.insert(partition.clone(), limit);
            state.write(&**self.io, load.home.directory.path())?;
            *written = state.synced_ends;
        }
        Ok(())
    }
}
