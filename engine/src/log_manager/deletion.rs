//! Deletion of logs: at once by name, later by file.
//!
//! The directory gets the name of a deleted one, durably, so that the partition is gone for a restart and its
//! name is free; the log is closed, and readers that hold its files go on. Its files are removed when
//! `file.delete.delay.ms` is over. What a crash leaves is removed by the next start. Source:
//! `LogManager.asyncDelete`, `deleteLogs`.

use std::sync::Arc;
use std::time::Duration;

use crate::error::StorageError;
use crate::log::Log;
use crate::units::TopicPartition;

use super::checkpoints::tolerate_full;
use super::partition_directory::PartitionDirectoryName;
use super::{Home, HostedLog, LogManager};

/// A directory whose files are to be removed.
pub(super) struct Deletion {
    home: Arc<Home>,
    name: String,
    /// Monotonic.
    due: Duration,
    /// Serves until its files go.
    log: Option<Arc<Log>>,
}

impl Deletion {
    /// From an earlier run: nobody reads it.
    pub(super) fn left_over(home: Arc<Home>, name: String) -> Deletion {
        Deletion {
            home,
            name,
            due: Duration::ZERO,
            log: None,
        }
    }
}

impl LogManager {
    /// Takes a partition out of service and has its files removed after `file.delete.delay.ms`, those of a log that was to replace
    /// its own too; also one that is out of service because of damage. When it returns `true`, the deletion survives a power cut.
    /// `false`: there is no such partition.
    ///
    /// # Errors
    /// [`StorageError::Offline`] if it may lie in an offline directory; [`StorageError::Io`] if it cannot be
    /// renamed: it is out of service and its directory offline.
    pub fn delete(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        let _changing = self.changing.lock();
        let future = self.take_future(partition);
        let removed = self.logs.write().remove(partition);
        if let Some(hosted) = removed {
            self.schedule_removal(&hosted)?;
        } else if let Some(unavailable) = self.unavailable.write().remove(partition) {
            let home = unavailable.home;
            home.directory.check_online()?;
            let path = home.directory.path();
            let name = PartitionDirectoryName::deleted(partition, self.io.unique_bytes());
            let from = path.join(PartitionDirectoryName::current(partition));
            let renamed = self
                .io
                .rename(&from, &path.join(&name))
                .and_then(|()| self.io.sync_dir(path));
            renamed.inspect_err(|error| home.directory.fail(error))?;
            self.remove_later(partition, home, name, None);
        } else {
            self.check_all_online()?;
            return future;
        }
        future.map(|_| true)
    }

    /// Takes a log out of service that is in no table any more, and has its files removed.
    pub(super) fn schedule_removal(&self, hosted: &HostedLog) -> Result<(), StorageError> {
        let log = &hosted.log;
        hosted.home.directory.check_online()?;
        // Before its files are elsewhere: a sync that is under way must not take their absence for a failed
        // disk.
        log.abandon();
        let name = PartitionDirectoryName::deleted(log.partition(), self.io.unique_bytes());
        log.rename(&name)?;
        self.remove_later(log.partition(), hosted.home.clone(), name, Some(log.clone()));
        Ok(())
    }

    fn remove_later(&self, partition: &TopicPartition, home: Arc<Home>, name: String, log: Option<Arc<Log>>) {
        tracing::info!(
            "Log for partition {partition} is renamed to {} and is scheduled for deletion",
            home.directory.path().join(&name).display()
        );
        let delay_ms = log.as_ref().map_or(0, |log| log.config().file_delete_delay_ms);
        let due = self
            .clock
            .monotonic()
            .saturating_add(Duration::from_millis(delay_ms));
        self.deletions.lock().push(Deletion { home, name, due, log });
        self.plan_deletion(due);
    }

    /// Removes what is due; returns when the next is.
    pub(super) fn remove_deleted(&self, now: Duration) -> Option<Duration> {
        let due: Vec<Deletion> = self
            .deletions
            .lock()
            .extract_if(.., |deletion| deletion.due <= now)
            .collect();
        for deletion in due {
            if !deletion.home.directory.is_online() {
                continue;
            }
            let path = deletion.home.directory.path().join(&deletion.name);
            if let Some(log) = deletion.log {
                log.abandon();
            }
            match self.io.remove_dir_all(&path) {
                Ok(()) => tracing::info!("Deleted log in {}.", path.display()),
                Err(error) => tolerate_full(&deletion.home.directory, &error),
            }
        }
        self.deletions.lock().iter().map(|deletion| deletion.due).min()
    }
}
