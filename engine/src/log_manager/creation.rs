//! Creation of logs: where a new one goes, and that it is there after a power cut.
//!
//! A log goes into the directory asked for, now or before, else into the one with the fewest logs, one that is short of space last;
//! where it cannot be created the next is tried. Before it exists nothing on disk may speak of its name any more: the
//! checkpoints of a partition that was deleted would empty the new log or keep it from being recovered. When the call
//! returns, the entries of all directories that it created are durable, by one sync of each log directory.
//!
//! Source: `LogManager.getOrCreateLog`, `nextLogDirs`; KIP-112.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::StorageError;
use crate::log::{Log, LogOpenError, OpenOptions};
use crate::units::TopicPartition;

use super::checkpoints::tolerate_full;
use super::partition_directory::PartitionDirectoryName;
use super::{Home, HostedLog, LogManager, WantedLog};

impl LogManager {
    /// The log of one partition, created if need be. See [`Self::get_or_create_all`].
    ///
    /// # Errors
    /// As there.
    pub fn get_or_create(&self, wanted: WantedLog) -> Result<Arc<Log>, StorageError> {
        self.get_or_create_all(vec![wanted])
            .pop()
            .expect("one answer for one request")
    }

    /// The logs of several partitions, in the order asked; those missing are created. When it returns, the
    /// new directories survive a power cut: each log directory is synced once for all of them.
    ///
    /// # Errors
    /// For each on its own: [`StorageError::OutOfService`]; [`StorageError::Offline`] if the preferred
    /// directory or all are offline, or if one is and the log `is_new` not; [`StorageError::Io`] of the last
    /// directory tried.
    pub fn get_or_create_all(&self, wanted: Vec<WantedLog>) -> Vec<Result<Arc<Log>, StorageError>> {
        let _changing = self.changing.lock();
        let mut counts = self.log_counts();
        let mut created: HashMap<TopicPartition, Arc<HostedLog>> = HashMap::new();
        let mut answers = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let partition = wanted.partition.clone();
            let existing = self.logs.read().get(&partition).cloned();
            answers.push(match existing.or_else(|| created.get(&partition).cloned()) {
                Some(hosted) => Ok(hosted),
                None => {
                    let answer = self.create(wanted, &mut counts);
                    if let Ok(hosted) = &answer {
                        created.insert(partition, hosted.clone());
                    }
                    answer
                }
            });
        }
        self.make_durable(&mut created);
        let mut logs = self.logs.write();
        logs.extend(created);
        let found = |answer: Result<Arc<HostedLog>, StorageError>| {
            let hosted = answer?;
            match logs.contains_key(hosted.log.partition()) {
                true => Ok(hosted.log.clone()),
                false => Err(hosted.home.directory.offline_error()),
            }
        };
        answers.into_iter().map(found).collect()
    }

    /// How many logs each home has, in the order of the homes.
    fn log_counts(&self) -> Vec<usize> {
        let logs = self.logs.read();
        let futures = self.futures.read();
        let unavailable = self.unavailable.read();
        let homes = || {
            let served = logs.values().chain(futures.values());
            let served = served.map(|hosted| &hosted.home);
            served.chain(unavailable.values().map(|entry| &entry.home))
        };
        if self.homes.len() == 1 {
            return vec![logs.len()];
        }
        self.homes
            .iter()
            .map(|home| homes().filter(|other| Arc::ptr_eq(home, other)).count())
            .collect()
    }

    fn create(&self, wanted: WantedLog, counts: &mut [usize]) -> Result<Arc<HostedLog>, StorageError> {
        self.check_available(&wanted.partition)?;
        if !wanted.is_new {
            self.check_all_online()?;
        }
        let remembered = self.preferred.lock().get(&wanted.partition).cloned();
        let preferred = wanted.preferred_directory.clone().or(remembered);
        let mut candidates: Vec<usize> = match &preferred {
            Some(path) => (0..self.homes.len())
                .filter(|index| self.homes[*index].directory.path() == path)
                .collect(),
            None => (0..self.homes.len()).collect(),
        };
        candidates.sort_by_key(|index| (self.homes[*index].reserve.lock().is_refusing(), counts[*index]));
        let mut last_error = None;
        for index in candidates {
            let home = &self.homes[index];
            // An empty log takes a few blocks of the reserve. Were it refused, its partition would stay offline when
            // there is room again.
            if let Err(refusal) = home.directory.check_online() {
                last_error.get_or_insert(refusal);
                continue;
            }
            match self.create_in(home, &wanted, &PartitionDirectoryName::current(&wanted.partition)) {
                Ok(log) => {
                    self.preferred.lock().remove(&wanted.partition);
                    counts[index] += 1;
                    tracing::info!(
                        "Created log for partition {} in {}",
                        wanted.partition,
                        home.directory.path().display()
                    );
                    return Ok(Arc::new(HostedLog::new(log, home.clone(), None)));
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| StorageError::Offline {
            directory: preferred.unwrap_or_default(),
            reason: "it is not one of the log directories in use".to_owned(),
        }))
    }

    /// `name` is that of its directory.
    pub(super) fn create_in(
        &self,
        home: &Arc<Home>,
        wanted: &WantedLog,
        name: &str,
    ) -> Result<Arc<Log>, StorageError> {
        let fatal = |error| {
            tolerate_full(&home.directory, &error);
            StorageError::Io(error)
        };
        {
            // What is written of other logs here does not outlive their being cut, and nobody writes what was read of
            // an earlier log of this name.
            let _gate = home.checkpoints.recovery_gate.lock();
            home.checkpoints
                .forget(&*self.io, &wanted.partition)
                .map_err(fatal)?;
            self.lower_synced_ends(home, &[(&wanted.partition, None)])?;
        }
        let options = OpenOptions {
            producer_id_expiration_ms: self.config.producer_id_expiration_ms,
            ..OpenOptions::default()
        };
        let (io, clock) = (self.io.clone(), self.clock.clone());
        let (directory, config) = (home.directory.clone(), wanted.config.clone());
        let opened = Log::open(
            directory,
            name,
            wanted.partition.clone(),
            config,
            &options,
            io,
            clock,
        );
        opened.map_err(|error| match error {
            LogOpenError::Storage(error) => error,
            LogOpenError::OutOfService { partition, reason } => {
                StorageError::OutOfService { partition, reason }
            }
        })
    }

    /// Syncs each log directory that got new entries. Where that fails nothing was created.
    fn make_durable(&self, created: &mut HashMap<TopicPartition, Arc<HostedLog>>) {
        for home in &self.homes {
            let is_here = |hosted: &Arc<HostedLog>| Arc::ptr_eq(&hosted.home, home);
            if created.values().any(is_here)
                && let Err(error) = self.io.sync_dir(home.directory.path())
            {
                home.directory.fail(&error);
                created.retain(|_, hosted| !is_here(hosted));
            }
        }
    }
}
