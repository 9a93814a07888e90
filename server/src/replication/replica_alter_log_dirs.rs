//! Moves of replicas between the log directories of this broker, as the replica manager begins, resumes and ends them (KIP-113).
//!
//! | the log lies | the future log lies | asked for | what happens |
//! |---|---|---|---|
//! | in the destination | nowhere | | nothing |
//! | in the destination | elsewhere | | the move is given up |
//! | elsewhere | nowhere | | the move begins |
//! | elsewhere | in the destination | | it goes on |
//! | elsewhere | in a third directory | | that move is given up, another begins |
//! | nowhere | | | the destination is remembered for when the replica is created: REPLICA_NOT_AVAILABLE |
//!
//! A move goes on with each LeaderAndIsr, also after a restart; it ends with the replica, and with either directory. Source:
//! `ReplicaManager.scala` (`alterReplicaLogDirs`, `maybeAddLogDirFetchers`, `handleLogDirFailure`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::error::StorageError;
use milena_engine::log_manager::PartitionDirectoryName;
use milena_engine::units::TopicPartition;

use super::replica_alter_log_dirs_manager::MoverCommand;
use super::{Hosted, Partition, PartitionRefusal, ReplicaManager, hosted};

/// Why a replica does not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterLogDirError {
    /// The name that its directory has meanwhile does not fit a file system.
    #[error("the topic's name is too long")]
    TopicNameTooLong,
    #[error("{} is not in log.dirs", .0.display())]
    NoSuchDirectory(PathBuf),
    /// The destination, another directory or the replica is offline.
    #[error("{0}")]
    Storage(String),
    /// The destination is remembered; the controller has not placed the replica here, or not yet.
    #[error("the replica is not here")]
    NotHosted,
}

impl From<StorageError> for AlterLogDirError {
    fn from(error: StorageError) -> Self {
        AlterLogDirError::Storage(error.to_string())
    }
}

/// See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MovePlan {
    gives_up: bool,
    begins: bool,
}

fn plan(current: &Path, future: Option<&Path>, destination: &Path) -> MovePlan {
    let goes_elsewhere = future.is_some_and(|future| future != destination);
    MovePlan {
        gives_up: goes_elsewhere,
        begins: current != destination && (future.is_none() || goes_elsewhere),
    }
}

impl ReplicaManager {
    /// Moves replicas to other log directories, each as far as it is possible. Blocks for the disk.
    pub fn alter_replica_log_dirs(
        &self,
        moves: Vec<(TopicPartition, PathBuf)>,
    ) -> Vec<(TopicPartition, Result<(), AlterLogDirError>)> {
        let _state_change = self.state_change.lock();
        let altered = moves.into_iter().map(|(name, destination)| {
            let altered = self.alter_replica_log_dir(&name, &destination);
            if let Err(error) = &altered {
                tracing::warn!(
                    target: "kafka.server.ReplicaManager",
                    "Unable to alter log dirs for {name}: {error}"
                );
            }
            (name, altered)
        });
        altered.collect()
    }

    fn alter_replica_log_dir(
        &self,
        name: &TopicPartition,
        destination: &Path,
    ) -> Result<(), AlterLogDirError> {
        if !PartitionDirectoryName::fits_future(name) {
            return Err(AlterLogDirError::TopicNameTooLong);
        }
        let directory = self.logs.directory(destination);
        let directory = directory.ok_or_else(|| AlterLogDirError::NoSuchDirectory(destination.to_owned()))?;
        if !directory.is_online() {
            return Err(AlterLogDirError::Storage(format!(
                "log directory {} is offline",
                destination.display()
            )));
        }
        let partition = match self.partition(&name.topic, name.partition) {
            Ok(partition) => partition,
            Err(PartitionRefusal::Offline) => {
                return Err(AlterLogDirError::Storage("the replica is offline".to_owned()));
            }
            Err(_) => {
                if self.logs.get(name).is_none() {
                    self.logs.prefer(name, destination);
                }
                return Err(AlterLogDirError::NotHosted);
            }
        };
        let (current, future) = (partition.log(), partition.future_log());
        let future = future.as_ref().map(|future| future.directory().path());
        let plan = plan(current.directory().path(), future, destination);
        if plan.gives_up {
            self.movers.tell(MoverCommand::Leave(name.clone()));
            partition.end_move();
            self.logs.delete_future(name)?;
        }
        if plan.begins {
            let log = self.logs.create_future(name, destination, current.config())?;
            tracing::info!(
                target: "kafka.server.ReplicaManager",
                "{name} moves from {} to {}",
                current.path().display(),
                log.path().display()
            );
            // What was changed while it was created did not find it.
            log.update_config(current.config())?;
            partition.set_future(Some(Arc::clone(&log)));
            if !log.directory().is_online() {
                // It failed before anybody could be told that the move ends.
                partition.set_future(None);
                return Err(AlterLogDirError::Storage(format!(
                    "log directory {} failed",
                    destination.display()
                )));
            }
            self.tell_mover(&partition);
        }
        Ok(())
    }

    /// A role was taken: the move that was under way goes on in the new epoch.
    pub(super) fn go_on_moving(&self, partition: &Arc<Partition>) {
        if let Some(future) = self.logs.future(partition.name())
            && future.directory().is_online()
        {
            partition.set_future(Some(future));
            self.tell_mover(partition);
        }
    }

    fn tell_mover(&self, partition: &Partition) {
        if let Some(epoch) = partition.leader_epoch() {
            self.movers.tell(MoverCommand::Move {
                partition: partition.name().clone(),
                epoch,
                high_watermark: partition.log().high_watermark(),
            });
        }
    }

    /// Moves to a failed directory end; the replicas stay where they are. Those from it end with the replica.
    pub(super) fn moves_failed(&self, directory: &Path) {
        for partition in self.online_partitions() {
            let future = partition.future_log();
            if future.is_some_and(|future| future.directory().path() == directory) {
                tracing::warn!(
                    target: "kafka.server.ReplicaManager",
                    "{} does not move any more: {} failed",
                    partition.name(),
                    directory.display()
                );
                partition.set_future(None);
                self.movers.tell(MoverCommand::Leave(partition.name().clone()));
            }
        }
    }

    /// How far a log is behind, for DescribeLogDirs: a future one behind the current log, another behind its own high watermark; `None`
    /// if the replica is not served.
    pub fn offset_lag(
        &self,
        name: &TopicPartition,
        end: milena_engine::units::Offset,
        is_future: bool,
    ) -> Option<i64> {
        let table = self.table.load();
        let Some(Hosted::Online(partition)) = hosted(&table, name) else {
            return None;
        };
        let offsets = partition.log().offsets();
        Some(if is_future {
            offsets.log_end_offset.get() - end.get()
        } else {
            (offsets.high_watermark.get() - end.get()).max(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_move_does_follows_from_where_the_logs_lie() {
        let (gives_up, begins) = (true, true);
        for (current, future, destination, expected) in [
            ("/a", None, "/a", (!gives_up, !begins)),
            ("/a", Some("/b"), "/a", (gives_up, !begins)),
            ("/a", None, "/b", (!gives_up, begins)),
            ("/a", Some("/b"), "/b", (!gives_up, !begins)),
            ("/a", Some("/b"), "/c", (gives_up, begins)),
        ] {
            let plan = plan(Path::new(current), future.map(Path::new), Path::new(destination));
            assert_eq!(
                (plan.gives_up, plan.begins),
                expected,
                "{current} {future:?} {destination}"
            );
        }
    }
}
