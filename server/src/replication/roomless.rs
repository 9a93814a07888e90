//! [`Roomless`]: the logs of ours that could not be created because a disk was full, until there is room for them.
//!
//! The controller is told KAFKA_STORAGE_ERROR for such a replica and takes it for offline until it hears of the broker's
//! directories again.
//!
//! **Deviation:** in Kafka a full disk takes the whole directory offline, which only a restart ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::log_manager::{LogManager, WantedLog};
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ReplicaManager;

/// Before it is tried again.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Roomless {
    logs: Mutex<BTreeMap<TopicPartition, WantedLog>>,
    came: Notify,
}

impl Roomless {
    /// This one has to wait.
    pub(super) fn add(&self, wanted: WantedLog) {
        self.logs.lock().insert(wanted.partition.clone(), wanted);
        self.came.notify_one();
    }

    /// This one does not wait any more.
    pub(super) fn remove(&self, name: &TopicPartition) {
        self.logs.lock().remove(name);
    }

    pub(super) fn contains(&self, name: &TopicPartition) -> bool {
        self.logs.lock().contains_key(name)
    }

    pub(super) fn names(&self) -> Vec<TopicPartition> {
        self.logs.lock().keys().cloned().collect()
    }

    /// Tries all of them. Returns whether one need not wait any more: it is there, or fails for another reason.
    fn create(&self, logs: &LogManager) -> bool {
        let (names, wanted): (Vec<TopicPartition>, Vec<WantedLog>) =
            self.logs.lock().clone().into_iter().unzip();
        let mut has_settled = false;
        for (name, created) in names.into_iter().zip(logs.get_or_create_all(wanted)) {
            if !created.is_err_and(|error| error.lacks_space()) {
                self.remove(&name);
                has_settled = true;
            }
        }
        has_settled
    }
}

impl ReplicaManager {
    /// Creates the logs that found no room once there is some. `news` is notified when the controller has to ask for the replicas
    /// of this broker again; `blocks_for_disk`: the disk is used on the calling thread.
    pub async fn create_when_there_is_room(self: Arc<Self>, blocks_for_disk: bool, news: Arc<Notify>) {
        loop {
            self.roomless.came.notified().await;
            while !self.roomless.logs.lock().is_empty() {
                tokio::time::sleep(PAUSE).await;
                let replicas = Arc::clone(&self);
                let create = move || {
                    let _state_change = replicas.state_change.lock();
                    replicas.roomless.create(&replicas.logs)
                };
                let has_settled = match blocks_for_disk {
                    true => create(),
                    // It fails if the broker stops, or by a panic, which was told.
                    false => tokio::task::spawn_blocking(create).await.unwrap_or(false),
                };
                if has_settled {
                    news.notify_one();
                }
            }
        }
    }
}
