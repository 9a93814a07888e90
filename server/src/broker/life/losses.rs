//! What is lost while the broker runs: a log, a log directory, the tree.
//!
//! A directory that fails takes its partitions out of service, and the tree if it lies there. Without any directory, or
//! without the tree, the broker cannot go on and is told to stop.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use milena_engine::log_manager::{LoadProgress, LogManagerObserver, Survey};
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::coordination::embedded::EmbeddedTree;
use crate::coordination::{Coordination, SessionEvent};
use crate::replication::ReplicaManager;

/// Tells the broker what happened to its directories and logs.
pub(super) struct Observer {
    replicas: Mutex<Option<Arc<ReplicaManager>>>,
    failures: mpsc::UnboundedSender<String>,
    /// Of a broker that stands alone.
    tree: Option<Arc<EmbeddedTree>>,
    /// Notified when the controller has to ask for the replicas of this broker again.
    news: Arc<Notify>,
}

impl Observer {
    /// `failures` hears why the broker cannot go on.
    pub(super) fn new(tree: Option<Arc<EmbeddedTree>>, failures: mpsc::UnboundedSender<String>) -> Observer {
        Observer {
            replicas: Mutex::new(None),
            failures,
            tree,
            news: Arc::default(),
        }
    }

    /// For [`crate::coordination::log_dir_events::tell_controller`].
    pub(super) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Hears why the broker cannot go on.
    pub(super) fn failures(&self) -> mpsc::UnboundedSender<String> {
        self.failures.clone()
    }

    /// From now on these replicas hear of losses too.
    pub(super) fn tell(&self, replicas: Arc<ReplicaManager>) {
        *self.replicas.lock() = Some(replicas);
    }

    /// Undoes [`Observer::tell`].
    pub(super) fn forget(&self) {
        *self.replicas.lock() = None;
    }
}

impl LogManagerObserver for Observer {
    fn loaded(&self, progress: &LoadProgress<'_>) {
        if let Some(reason) = progress.failure {
            tracing::error!(target: "kafka.log.LogManager", "{} is not served: {reason}", progress.partition);
        } else if progress.took > Duration::from_millis(200) {
            tracing::info!(
                target: "kafka.log.LogManager",
                "Completed load of {} in {} ms ({}/{} loaded in {})",
                progress.partition,
                progress.took.as_millis(),
                progress.loaded_count,
                progress.total_count,
                progress.directory.display()
            );
        }
    }

    fn directory_offline(&self, directory: &Path, reason: &str) {
        let replicas = self.replicas.lock().clone();
        if let Some(replicas) = replicas {
            replicas.directory_failed(directory);
            if replicas.all_directories_failed() {
                let message = "Shutdown broker because all log dirs have failed".to_owned();
                drop(self.failures.send(message));
            }
        }
        self.news.notify_one();
        if let Some(tree) = &self.tree
            && tree.path().parent() == Some(directory)
        {
            // Who listens to the tree stops the broker.
            tree.lose(&format!("its log directory is offline: {reason}"));
        }
    }

    fn partition_out_of_service(&self, partition: &TopicPartition, _: &str) {
        let replicas = self.replicas.lock().clone();
        if let Some(replicas) = replicas {
            replicas.out_of_service(partition);
        }
        self.news.notify_one();
    }
}

/// A tree that cannot be written ends the broker, and takes the log directory that it lies in offline with it.
pub(super) fn stop_when_lost(
    coordination: &dyn Coordination,
    tree: &EmbeddedTree,
    survey: &Survey,
    failures: mpsc::UnboundedSender<String>,
) {
    let mut directories = survey.online.iter().map(|found| &found.directory);
    let home = directories.find(|directory| tree.path().parent() == Some(directory.path()));
    // Weak: the directory's own observer holds the tree, which holds this.
    let home = home.map(Arc::downgrade);
    coordination.listen(Arc::new(move |event| {
        let SessionEvent::Lost(message) = event else {
            return;
        };
        if let Some(directory) = home.as_ref().and_then(Weak::upgrade) {
            directory.take_offline(message.clone());
        }
        // Nobody hears it only if the broker is stopping already.
        let _ = failures.send(format!("Shutdown broker because its tree is lost: {message}"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_cluster::run;

    #[test]
    fn the_controller_is_to_hear_of_a_directory_that_failed_and_of_a_partition_that_is_damaged() {
        run(async {
            let (failures, _heard) = mpsc::unbounded_channel();
            let observer = Observer::new(None, failures);
            observer.directory_offline(Path::new("/a"), "a fault");
            observer.news().notified().await;
            observer.partition_out_of_service(&TopicPartition::new("t", 0), "damage");
            observer.news().notified().await;
        });
    }
}
