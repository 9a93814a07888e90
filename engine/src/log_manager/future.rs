//! Moves between log directories: a partition's second log, which is to replace the first.
//!
//! ```text
//!               create_future             replace_current_with_future
//!  t-0 in /a ──────────────▶ t-0 in /a,    ─────────────────────────▶ t-0 in /b,
//!                            t-0.…-future in /b                       t-0.…-delete in /a
//! ```
//!
//! The future log is a log like any other, filled by whoever asked for it, retained, checkpointed and flushed with the others; a
//! restart finds it by its name and goes on with it. It is a copy: losing it loses nothing, and a damaged one is dropped.
//!
//! A replacement, in this order: both logs are on the medium; the future one gets the partition's name, durably; the caller
//! switches to it; the former one gets the name of a deleted one, durably. A crash between the two names leaves two directories
//! of one partition with the same records, and the next start is refused until a person removes one of them
//! ([`super::LogDirsError::DuplicatePartition`]), as in Kafka. The other order could leave none.
//!
//! While a log directory is offline no future log is created: there may be one already. Source: `LogManager.scala`
//! (`getOrCreateLog`, `replaceCurrentWithFutureLog`, `maybeUpdatePreferredLogDir`); KIP-113.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::LogConfig;
use crate::error::StorageError;
use crate::log::{Log, LogDirectory};
use crate::units::{Offset, TopicPartition};

use super::partition_directory::PartitionDirectoryName;
use super::{HostedLog, LogManager, WantedLog};

impl LogManager {
    /// The log that is to replace the partition's.
    pub fn future(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.futures
            .read()
            .get(partition)
            .map(|hosted| hosted.log.clone())
    }

    /// All of them, in no order.
    pub fn futures(&self) -> Vec<(TopicPartition, Arc<Log>)> {
        let futures = self.futures.read();
        let pairs = futures
            .iter()
            .map(|(partition, hosted)| (partition.clone(), hosted.log.clone()));
        pairs.collect()
    }

    /// The log directory of this path, in use or not.
    pub fn directory(&self, path: &Path) -> Option<&Arc<LogDirectory>> {
        self.directories().find(|directory| directory.path() == path)
    }

    /// Where the partition's log is to lie once it is created; forgotten then.
    pub fn prefer(&self, partition: &TopicPartition, directory: &Path) {
        self.preferred
            .lock()
            .insert(partition.clone(), directory.to_owned());
    }

    /// Creates the log that is to replace the partition's, in that directory; what is there already is left. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`StorageError::Offline`] if any directory is, or none has that path; [`StorageError::Io`].
    pub fn create_future(
        &self,
        partition: &TopicPartition,
        directory: &Path,
        config: Arc<LogConfig>,
    ) -> Result<Arc<Log>, StorageError> {
        let _changing = self.changing.lock();
        if let Some(future) = self.future(partition) {
            return Ok(future);
        }
        self.check_all_online()?;
        let home = self.homes.iter().find(|home| home.directory.path() == directory);
        let home = home.ok_or_else(|| StorageError::Offline {
            directory: directory.to_owned(),
            reason: "it is not one of the log directories in use".to_owned(),
        })?;
        let wanted = WantedLog {
            partition: partition.clone(),
            config,
            is_new: false,
            preferred_directory: None,
        };
        let name = PartitionDirectoryName::future(partition, self.io.unique_bytes());
        let log = self.create_in(home, &wanted, &name)?;
        if let Err(error) = self.io.sync_dir(home.directory.path()) {
            home.directory.fail(&error);
            return Err(error.into());
        }
        tracing::info!(
            "Created log for partition {partition} in {}",
            log.path().display()
        );
        let hosted = HostedLog::new(log.clone(), home.clone(), None);
        hosted.is_future.store(true, Ordering::Relaxed);
        self.futures.write().insert(partition.clone(), Arc::new(hosted));
        Ok(log)
    }

    /// Gives up the log that was to replace the partition's; its files are removed as those of a deleted one. `false`: there is none.
    ///
    /// # Errors
    /// [`StorageError::Offline`], [`StorageError::Io`]: it is out of service, its directory offline.
    pub fn delete_future(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        let _changing = self.changing.lock();
        self.take_future(partition)
    }

    /// [`Self::delete_future`] by who holds `changing`.
    pub(super) fn take_future(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        let taken = self.futures.write().remove(partition);
        match taken {
            None => Ok(false),
            Some(hosted) => self.schedule_removal(&hosted).map(|()| true),
        }
    }

    /// [`LogManager::truncate_to`] for the log that is to replace the partition's.
    ///
    /// # Errors
    /// Its directory is offline then.
    pub fn truncate_future_to(&self, partition: &TopicPartition, end: Offset) -> Result<(), StorageError> {
        let hosted = self.futures.read().get(partition).cloned();
        self.truncate_hosted(hosted.into_iter().map(|hosted| (hosted, end)).collect())
    }

    /// [`LogManager::truncate_fully_and_start_at`] for the log that is to replace the partition's.
    ///
    /// # Errors
    /// Its directory is offline then.
    pub fn truncate_future_fully_and_start_at(
        &self,
        partition: &TopicPartition,
        start: Offset,
    ) -> Result<(), StorageError> {
        let hosted = self.futures.read().get(partition).cloned();
        hosted.map_or(Ok(()), |hosted| self.restart_hosted(&hosted, start))
    }

    /// Puts the future log in the place of the partition's. Nothing may be appended to either meanwhile, and both must have
    /// the same records. `switch` is told the new one between the two steps: whoever reads from the former one by then goes on.
    ///
    /// # Errors
    /// Nothing was replaced: one of them is missing, or its directory failed. A directory that fails after the switch is not an
    /// error of the move.
    pub fn replace_current_with_future(
        &self,
        partition: &TopicPartition,
        switch: impl FnOnce(&Arc<Log>),
    ) -> Result<(), StorageError> {
        let _changing = self.changing.lock();
        let missing = |which: &str| StorageError::OutOfService {
            partition: partition.clone(),
            reason: format!("it has no {which} log"),
        };
        let current = self.logs.read().get(partition).cloned();
        let current = current.ok_or_else(|| missing("current"))?;
        let future = self.futures.read().get(partition).cloned();
        let future = future.ok_or_else(|| missing("future"))?;
        // Whoever waits for the former log's sync is told; what the new one has is there after a power cut.
        current.log.flush()?;
        future.log.flush()?;
        future.log.rename(&PartitionDirectoryName::current(partition))?;
        future.is_future.store(false, Ordering::Relaxed);
        self.futures.write().remove(partition);
        self.logs.write().insert(partition.clone(), future.clone());
        switch(&future.log);
        if let Err(error) = self.schedule_removal(&current) {
            tracing::error!("the former directory of {partition} stays: {error}");
        }
        tracing::info!(
            "The current replica is successfully replaced with the future replica for {partition}"
        );
        Ok(())
    }
}
