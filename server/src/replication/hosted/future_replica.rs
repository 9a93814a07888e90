//! A partition's future replica: a second log in another log directory that is filled from the first and then takes its place.
//!
//! ```text
//!  alter ──▶ truncated where the epochs part ──▶ copied ──▶ level ──▶ in the place of the current log
//!               ▲            │ another destination, a stopped replica, a failed directory
//!      restart ─┘            └──▶ given up; the current log was never touched
//! ```
//!
//! Invariants:
//! - a look into the current log and the append of what was found to the future one are one step under `role`, so that nothing is
//!   appended that the current log does not have any more;
//! - a current log is cut and started anew under `role` held exclusively, and the future one with it;
//! - the replacement holds `role` exclusively: no producer and no leader writes meanwhile. What they wrote until then is copied under it,
//!   so that a partition under load is level too, and all of it is on the medium.
//!
//! Source: `Partition.scala` (`maybeReplaceCurrentWithFutureReplica`), `ReplicaAlterLogDirsThread.scala`; KAFKA-16297.
//!
//! **Deviation:** 2.7.2 replaces the log when it finds both equally long, which a partition under load may hardly ever be; and there a
//! deletion of records waits until the future log has got so far, here its start is brought up with each copy.

use std::sync::Arc;

use milena_engine::error::{AppendError, ReadError, StorageError};
use milena_engine::log::{AppendInfo, Log, LogStartOffsetIncrementReason, UpperBound};
use milena_engine::log_manager::LogManager;
use milena_engine::record_batch::batches;
use milena_engine::units::{LeaderEpoch, Offset};

use super::{Ends, Partition};
use crate::replication::replica_fetcher::FollowError;

/// What one step copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replication) struct Copied {
    /// Of the future log.
    pub end: Offset,
    pub size_bytes: usize,
    /// All was copied that could be read when it began.
    pub is_level: bool,
}

impl Partition {
    /// Deletes records below `offset`, for a client.
    ///
    /// # Errors
    /// The offset is not in the log, or the disk failed.
    pub fn delete_records(&self, offset: Offset) -> Result<(), ReadError> {
        // What is deleted of a log must not be in the one that takes its place.
        let _role = self.role.read();
        let reason = LogStartOffsetIncrementReason::ClientRecordDeletion;
        self.log().advance_log_start_offset(offset, reason).map(drop)
    }

    /// What is to replace the log, if it is on its way.
    pub fn future_log(&self) -> Option<Arc<Log>> {
        self.future.load_full()
    }

    /// Takes no lock, as a write that fails its directory ends moves in the middle of itself.
    pub(in crate::replication) fn set_future(&self, log: Option<Arc<Log>>) {
        self.future.store(log);
    }

    /// Ends the move: nothing is copied any more when this returns, and the log stays where it is.
    pub(in crate::replication) fn end_move(&self) {
        let _role = self.role.write();
        self.future.store(None);
    }

    /// Copies what follows the end of the future log, at most so many bytes, but a whole batch.
    pub(in crate::replication) fn copy_to_future(
        &self,
        epoch: LeaderEpoch,
        size_bytes_max: usize,
    ) -> Result<Copied, FollowError> {
        let _role = self.role.read();
        let future = self.moving(epoch)?;
        self.copy(&self.log(), &future, size_bytes_max)
    }

    /// Under `role`.
    fn copy(&self, current: &Log, future: &Log, size_bytes_max: usize) -> Result<Copied, FollowError> {
        let logs = &self.shared.logs;
        let restart = |offset| logs.truncate_future_fully_and_start_at(&self.name, offset);
        let readable = current.offsets();
        if future.log_end_offset() < readable.log_start_offset {
            restart(readable.log_start_offset).map_err(storage)?;
        }
        let from = future.log_end_offset();
        let found = current.read(from, size_bytes_max, UpperBound::LogEnd, true);
        let found = found.map_err(|error| match error {
            ReadError::Storage(error) => storage(error),
            error => FollowError::Unfit(error.to_string()),
        })?;
        let bytes = found.records.map(|slice| slice.read()).transpose();
        let bytes = bytes.map_err(|error| FollowError::Storage(error.to_string()))?;
        let bytes = bytes.unwrap_or_default();
        if !bytes.is_empty() {
            append_or_begin_earlier(future, &bytes, restart)?;
        }
        take_over_bounds(future, found.high_watermark, Some(found.log_start_offset))?;
        Ok(Copied {
            end: future.log_end_offset(),
            size_bytes: bytes.len(),
            is_level: future.log_end_offset() >= readable.replicable_end,
        })
    }

    pub(in crate::replication) fn truncate_future(
        &self,
        epoch: LeaderEpoch,
        offset: Offset,
    ) -> Result<(), FollowError> {
        self.change_future(epoch, |logs| logs.truncate_future_to(&self.name, offset))
    }

    pub(in crate::replication) fn restart_future(
        &self,
        epoch: LeaderEpoch,
        offset: Offset,
    ) -> Result<(), FollowError> {
        self.change_future(epoch, |logs| {
            logs.truncate_future_fully_and_start_at(&self.name, offset)
        })
    }

    fn change_future(
        &self,
        epoch: LeaderEpoch,
        change: impl FnOnce(&LogManager) -> Result<(), StorageError>,
    ) -> Result<(), FollowError> {
        let _role = self.role.read();
        self.moving(epoch)?;
        change(&self.shared.logs).map_err(storage)
    }

    fn moving(&self, epoch: LeaderEpoch) -> Result<Arc<Log>, FollowError> {
        if self.leader_epoch() != Some(epoch) {
            return Err(FollowError::NotFollowing);
        }
        self.future_log().ok_or(FollowError::NotFollowing)
    }

    /// Puts the future log, which is nearly level, in the place of the current one. `false`: there is none any more.
    ///
    /// # Errors
    /// Nothing was replaced.
    pub(in crate::replication) fn replace_with_future(
        self: &Arc<Self>,
        size_bytes_max: usize,
    ) -> Result<bool, FollowError> {
        // Most of it while others write; what they wrote meanwhile is little.
        self.log().flush().map_err(storage)?;
        if let Some(future) = self.future_log() {
            future.flush().map_err(storage)?;
        }
        {
            let _role = self.role.write();
            let Some(future) = self.future_log() else {
                return Ok(false);
            };
            let current = Arc::clone(&self.log());
            current.flush().map_err(storage)?;
            while future.log_end_offset() < current.log_end_offset() {
                let before = future.log_end_offset();
                if self.copy(&current, &future, size_bytes_max)?.end == before {
                    return Err(FollowError::Unfit(format!(
                        "nothing can be copied from {before} to {}",
                        current.log_end_offset()
                    )));
                }
            }
            let (epoch, end) = (current.latest_epoch(), current.log_end_offset());
            if future.log_end_offset() != end {
                let found = future.log_end_offset();
                return Err(FollowError::Unfit(format!(
                    "the copy ends at {found}, the log at {end}"
                )));
            }
            take_over_bounds(
                &future,
                current.high_watermark(),
                Some(current.log_start_offset()),
            )?;
            // A reign without a record.
            if let Some(epoch) = epoch.filter(|epoch| future.latest_epoch() != Some(*epoch)) {
                future.assign_leader_epoch(epoch, end).map_err(storage)?;
            }
            let switch = |log: &Arc<Log>| {
                log.set_listener(Arc::new(Ends(Arc::downgrade(self))));
                self.log.store(Arc::clone(log));
                self.future.store(None);
            };
            let replaced = self.shared.logs.replace_current_with_future(&self.name, switch);
            replaced.map_err(storage)?;
        }
        // A move of the ends that was told of the former log.
        self.ends_moved();
        Ok(true)
    }
}

/// Appends what a leader or the current log has. An empty log that starts inside the first batch, because records before were
/// deleted there, starts with that batch instead: `restart` makes it.
pub(super) fn append_or_begin_earlier(
    log: &Log,
    records: &[u8],
    restart: impl FnOnce(Offset) -> Result<(), StorageError>,
) -> Result<AppendInfo, FollowError> {
    let appended = match log.append_as_follower(records) {
        Err(AppendError::UnexpectedOffset {
            found,
            log_end_offset: end,
            ..
        }) if end == log.log_start_offset() && found < end && first_batch_reaches(records, end) => {
            tracing::info!(
                target: "kafka.cluster.Partition",
                "Unexpected offset in append to {}: the first offset {found} is less than the log start offset {end}; the log \
                 starts from there",
                log.partition()
            );
            restart(found).map_err(storage)?;
            log.append_as_follower(records)
        }
        appended => appended,
    };
    appended.map_err(|error| match error {
        AppendError::Storage(error) => storage(error),
        error => FollowError::Unfit(error.to_string()),
    })
}

fn first_batch_reaches(records: &[u8], offset: Offset) -> bool {
    let first = batches(records).next().and_then(Result::ok);
    first.is_some_and(|batch| batch.last_offset() >= offset)
}

/// The high watermark and the log start offset of who has the records first.
pub(super) fn take_over_bounds(
    log: &Log,
    high_watermark: Offset,
    log_start_offset: Option<Offset>,
) -> Result<(), FollowError> {
    log.set_high_watermark(high_watermark);
    if let Some(start) = log_start_offset {
        let reason = LogStartOffsetIncrementReason::LeaderOffsetIncremented;
        log.advance_log_start_offset(start, reason)
            .map_err(|error| match error {
                ReadError::Storage(error) => storage(error),
                error => FollowError::Unfit(error.to_string()),
            })?;
    }
    Ok(())
}

/// What a refusal of the disk means; one for lack of space passes.
pub(super) fn storage(error: StorageError) -> FollowError {
    match error {
        error if error.lacks_space() => FollowError::Full,
        error => FollowError::Storage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use milena_engine::error::IoError;

    use super::*;

    #[test]
    fn a_disk_that_is_full_is_tried_again_and_one_that_failed_is_not() {
        let low = StorageError::ReserveReached {
            directory: "/d".into(),
            available_bytes: 1,
            reserve_bytes: 2,
        };
        assert!(matches!(storage(low), FollowError::Full));
        let full = StorageError::Io(IoError::new("rename", "/d/x", ErrorKind::StorageFull.into()));
        assert!(matches!(storage(full), FollowError::Full));
        let failed = StorageError::Offline {
            directory: "/d".into(),
            reason: "EIO".to_owned(),
        };
        assert!(matches!(storage(failed), FollowError::Storage(_)));
    }
}
