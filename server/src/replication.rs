//! [`ReplicaManager`]: the partitions of this broker, and what happens to their logs on the word of the controller.
//!
//! The decisions are [`partition::PartitionState`]'s, a pure machine; this is the shell that owns the logs. It sees no wire type
//! and no handler (`ReplicaManager.scala`, `Partition.scala`).
//!
//! Invariants:
//! - a lookup on a lane takes no lock: the table is a snapshot that changes of the partition set replace;
//! - a partition leads only after its log has noted the leader epoch;
//! - whoever waits for a partition is woken by every change that can end the wait, leadership and storage included.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use milena_engine::config::LogConfig;
use milena_engine::error::AppendError;
use milena_engine::log::{AppendInfo, Log, LogListener, LogOffsetSnapshot};
use milena_engine::log_manager::{LogManager, WantedLog};
use milena_engine::record_batch::{AppendOrigin, ValidatedBatches};
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use parking_lot::Mutex;

pub mod coordinator_log;
pub mod partition;
pub mod purgatory;

use crate::controller::command::LeaderAndIsrPartition;
use partition::{Assignment, Input, Output, PartitionState, Role};
use purgatory::Purgatory;

/// Why a partition cannot be used by this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionRefusal {
    #[error("this broker has no such partition")]
    Unknown,
    #[error("this broker is not the leader")]
    NotLeader,
    /// The client knows an older leader epoch than ours.
    #[error("the request's leader epoch is older than the broker's")]
    FencedLeaderEpoch,
    /// The client knows a newer leader epoch than ours.
    #[error("the request's leader epoch is newer than the broker's")]
    UnknownLeaderEpoch,
    /// Its log directory is offline or it is out of service.
    #[error("the partition's storage is offline")]
    Offline,
    /// The controller's word is older than what is known.
    #[error("the leader epoch is not above the known one")]
    StaleLeaderEpoch,
}

/// One partition hosted here.
#[derive(Debug)]
pub struct Partition {
    name: TopicPartition,
    log: Arc<Log>,
    state: Mutex<PartitionState>,
    leads: AtomicBool,
    leader_epoch: AtomicI32,
    purgatory: Purgatory,
}

/// What a lookup finds.
#[derive(Clone, Debug)]
enum Hosted {
    Online(Arc<Partition>),
    /// Known to be ours, but its directory has failed or its bytes are damaged.
    Offline,
}

type Table = HashMap<Arc<str>, Vec<Option<Hosted>>>;

fn hosted<'t>(table: &'t Table, name: &TopicPartition) -> Option<&'t Hosted> {
    table
        .get(&name.topic)?
        .get(usize::try_from(name.partition).ok()?)?
        .as_ref()
}

fn put(table: &mut Table, name: &TopicPartition, entry: Hosted) {
    let index = usize::try_from(name.partition).expect("the controller numbers partitions from 0");
    let slots = table.entry(Arc::clone(&name.topic)).or_default();
    if slots.len() <= index {
        slots.resize(index + 1, None);
    }
    slots[index] = Some(entry);
}

/// The partitions of this broker.
#[derive(Debug)]
pub struct ReplicaManager {
    broker_id: i32,
    logs: Arc<LogManager>,
    table: ArcSwap<Table>,
    /// Held while the table is replaced.
    change: Mutex<()>,
}

impl Partition {
    fn new(broker_id: i32, name: TopicPartition, log: Arc<Log>) -> Arc<Partition> {
        let offsets = log.offsets();
        let partition = Arc::new(Partition {
            state: Mutex::new(PartitionState::new(
                broker_id,
                offsets.replicable_end,
                offsets.high_watermark,
            )),
            name,
            log,
            leads: AtomicBool::new(false),
            leader_epoch: AtomicI32::new(-1),
            purgatory: Purgatory::default(),
        });
        let listener: Weak<Partition> = Arc::downgrade(&partition);
        partition.log.set_listener(Arc::new(Ends(listener)));
        partition
    }

    pub fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub fn purgatory(&self) -> &Purgatory {
        &self.purgatory
    }

    /// The epoch of the present reign; `None` before the first.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        let epoch = self.leader_epoch.load(Ordering::Acquire);
        (epoch >= 0).then_some(LeaderEpoch(epoch))
    }

    /// Whether enough replicas are in sync for `acks=all` (`min.insync.replicas`).
    pub fn has_enough_replicas(&self) -> bool {
        let in_sync = self
            .state
            .lock()
            .assignment()
            .map_or(0, |assignment| assignment.isr.len());
        in_sync >= self.log.config().min_insync_replicas as usize
    }

    /// Checks that this broker leads and that the client believes in the same reign (`current_epoch` −1: it says nothing).
    ///
    /// # Errors
    /// `NotLeader`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`.
    pub fn check_leader(&self, current_epoch: i32) -> Result<(), PartitionRefusal> {
        let known = self.leader_epoch.load(Ordering::Acquire);
        if current_epoch >= 0 && current_epoch < known {
            return Err(PartitionRefusal::FencedLeaderEpoch);
        }
        if current_epoch >= 0 && current_epoch > known {
            return Err(PartitionRefusal::UnknownLeaderEpoch);
        }
        if self.leads.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(PartitionRefusal::NotLeader)
        }
    }

    /// Appends produced sets as leader, all under one lock and with one write. The records are in the page cache afterwards;
    /// where an answer says `sync_before_ack`, its acknowledgement waits for [`Log::when_synced`].
    pub fn append(
        &self,
        batches: &mut [ValidatedBatches<'_>],
        origin: AppendOrigin,
    ) -> Vec<Result<AppendInfo, AppendError>> {
        let epoch = LeaderEpoch(self.leader_epoch.load(Ordering::Acquire));
        self.log.append_as_leader(batches, origin, epoch)
    }

    fn decide(&self, input: Input) -> Result<(), PartitionRefusal> {
        let mut outputs = Vec::new();
        let mut advanced = None;
        let mut state = self.state.lock();
        state.step(input, &mut outputs);
        for output in outputs {
            match output {
                Output::BeginReign(epoch) => {
                    let end = self.log.log_end_offset();
                    self.log
                        .assign_leader_epoch(epoch, end)
                        .map_err(|_| PartitionRefusal::Offline)?;
                }
                Output::AdvanceHighWatermark(high_watermark) => advanced = Some(high_watermark),
                Output::Stale { .. } => return Err(PartitionRefusal::StaleLeaderEpoch),
            }
        }
        self.leader_epoch.store(
            state.leader_epoch().map_or(-1, LeaderEpoch::get),
            Ordering::Release,
        );
        self.leads.store(state.role() == Role::Leader, Ordering::Release);
        drop(state);
        // The log tells its listener, which takes the state's lock.
        if let Some(high_watermark) = advanced {
            self.log.advance_high_watermark(high_watermark);
        }
        self.local_end_moved(self.log.offsets().replicable_end);
        self.purgatory.wake_all();
        Ok(())
    }

    fn local_end_moved(&self, end: Offset) {
        let mut outputs = Vec::new();
        self.state.lock().step(Input::LocalEndMoved(end), &mut outputs);
        for output in outputs {
            if let Output::AdvanceHighWatermark(high_watermark) = output {
                self.log.advance_high_watermark(high_watermark);
            }
        }
    }
}

/// Hears of every move of a log's ends.
struct Ends(Weak<Partition>);

impl LogListener for Ends {
    fn offsets_moved(&self, _: &TopicPartition, offsets: &LogOffsetSnapshot) {
        let Some(partition) = self.0.upgrade() else { return };
        partition.local_end_moved(offsets.replicable_end);
        partition.purgatory.end_moved(partition.log.high_watermark());
    }
}

impl ReplicaManager {
    pub fn new(broker_id: i32, logs: Arc<LogManager>) -> ReplicaManager {
        ReplicaManager {
            broker_id,
            logs,
            table: ArcSwap::default(),
            change: Mutex::new(()),
        }
    }

    /// # Errors
    /// `Unknown`, or `Offline` if it is ours but cannot be served.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, PartitionRefusal> {
        let table = self.table.load();
        let slot = usize::try_from(partition)
            .ok()
            .and_then(|index| table.get(topic)?.get(index)?.as_ref());
        match slot {
            Some(Hosted::Online(partition)) => Ok(Arc::clone(partition)),
            Some(Hosted::Offline) => Err(PartitionRefusal::Offline),
            None => Err(PartitionRefusal::Unknown),
        }
    }

    /// All partitions that are online, in no particular order.
    pub fn online_partitions(&self) -> Vec<Arc<Partition>> {
        let table = self.table.load();
        let hosted = table.values().flatten().flatten();
        hosted
            .filter_map(|hosted| match hosted {
                Hosted::Online(partition) => Some(Arc::clone(partition)),
                Hosted::Offline => None,
            })
            .collect()
    }

    /// The controller's word on who leads what; one table change for all of it. Logs that are missing are created, durably, with
    /// the settings that `config_of` gives for their topic. Blocks for the disk.
    pub fn leader_and_isr(
        &self,
        partitions: Vec<LeaderAndIsrPartition>,
        config_of: &dyn Fn(&str) -> Arc<LogConfig>,
    ) -> Vec<(TopicPartition, Result<(), PartitionRefusal>)> {
        let _change = self.change.lock();
        let mut table = Table::clone(&self.table.load());
        let is_ours = |command: &LeaderAndIsrPartition| command.replicas.contains(&self.broker_id);
        let missing: Vec<&LeaderAndIsrPartition> = partitions
            .iter()
            .filter(|command| is_ours(command) && hosted(&table, &command.topic_partition).is_none())
            .collect();
        let wanted = missing.iter().map(|command| WantedLog {
            partition: command.topic_partition.clone(),
            config: config_of(&command.topic_partition.topic),
            is_new: command.is_new,
            preferred_directory: None,
        });
        let opened = self.logs.get_or_create_all(wanted.collect());
        for (command, log) in missing.into_iter().zip(opened) {
            let name = &command.topic_partition;
            let entry = match log {
                Ok(log) => Hosted::Online(Partition::new(self.broker_id, name.clone(), log)),
                Err(error) => {
                    tracing::error!(target: "state.change.logger", "{name} stays offline: {error}");
                    Hosted::Offline
                }
            };
            put(&mut table, name, entry);
        }
        let mut results = Vec::with_capacity(partitions.len());
        for command in partitions {
            let result = match hosted(&table, &command.topic_partition) {
                Some(Hosted::Online(partition)) => partition.decide(Input::LeaderAndIsr(Assignment {
                    leader: command.state.leader,
                    leader_epoch: command.state.leader_epoch,
                    isr: command.state.isr,
                    replicas: command.replicas,
                    zk_version: command.state.zk_version,
                })),
                Some(Hosted::Offline) => Err(PartitionRefusal::Offline),
                None => Err(PartitionRefusal::Unknown),
            };
            results.push((command.topic_partition, result));
        }
        self.table.store(Arc::new(table));
        results
    }

    /// Stops serving partitions, and schedules the removal of their files where `delete` says so.
    pub fn stop_replicas(
        &self,
        partitions: &[(TopicPartition, bool)],
    ) -> Vec<(TopicPartition, Result<(), PartitionRefusal>)> {
        let stopped = self.remove(|name| partitions.iter().any(|(stopped, _)| stopped == name), None);
        for partition in stopped {
            partition.leads.store(false, Ordering::Release);
            partition.purgatory.wake_all();
        }
        let delete = |name: &TopicPartition, delete: bool| {
            if !delete {
                return Ok(());
            }
            self.logs.delete(name).map(drop).map_err(|error| {
                tracing::error!(target: "state.change.logger", "cannot delete {name}: {error}");
                PartitionRefusal::Offline
            })
        };
        partitions
            .iter()
            .map(|(name, deleted)| (name.clone(), delete(name, *deleted)))
            .collect()
    }

    /// The partitions of a failed directory are offline from now on; whoever waits for them is woken.
    pub fn directory_failed(&self, directory: &Path) {
        let is_below = |partition: &Arc<Partition>| partition.log.directory().path() == directory;
        let lost: Vec<TopicPartition> = self
            .online_partitions()
            .iter()
            .filter(|p| is_below(p))
            .map(|p| p.name.clone())
            .collect();
        for partition in self.remove(|name| lost.contains(name), Some(Hosted::Offline)) {
            partition.leads.store(false, Ordering::Release);
            partition.purgatory.wake_all();
        }
    }

    /// Whether nothing can be served any more.
    pub fn all_directories_failed(&self) -> bool {
        self.logs.online_directory_count() == 0
    }

    /// One partition is out of service from now on.
    pub fn out_of_service(&self, name: &TopicPartition) {
        for partition in self.remove(|other| other == name, Some(Hosted::Offline)) {
            partition.leads.store(false, Ordering::Release);
            partition.purgatory.wake_all();
        }
    }

    fn remove(
        &self,
        chosen: impl Fn(&TopicPartition) -> bool,
        replacement: Option<Hosted>,
    ) -> Vec<Arc<Partition>> {
        let _change = self.change.lock();
        let mut table = Table::clone(&self.table.load());
        let mut removed = Vec::new();
        for slot in table.values_mut().flatten() {
            if let Some(Hosted::Online(partition)) = slot
                && chosen(&partition.name)
            {
                removed.push(Arc::clone(partition));
                slot.clone_from(&replacement);
            }
        }
        table.retain(|_, slots| slots.iter().any(Option::is_some));
        self.table.store(Arc::new(table));
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
    use milena_engine::log_manager::{LogManagerConfig, LogManagerObserver, Survey};
    use milena_engine::record_batch::RecordBatchBuilder;
    use milena_engine::units::TimestampMs;

    use super::*;
    use crate::cluster::LeaderAndIsr;

    struct Deaf;

    impl LogManagerObserver for Deaf {}

    fn logs() -> Arc<LogManager> {
        let disk = SimulatedDisk::new(1);
        let survey = Survey::of(&[PathBuf::from("/d")], &disk).expect("a new directory");
        let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
        let settings = Arc::new(LogConfig::default());
        let config_of = |_: &TopicPartition| Arc::clone(&settings);
        let config = LogManagerConfig::default();
        let logs = LogManager::open(survey, config, &config_of, Arc::new(Deaf), Arc::new(disk), clock);
        Arc::new(logs.expect("nothing to load"))
    }

    #[test]
    fn a_sole_replica_that_becomes_leader_serves_all_that_its_log_holds() {
        let (logs, name) = (logs(), TopicPartition::new("t", 0));
        let log = logs
            .get_or_create(WantedLog {
                partition: name.clone(),
                config: Arc::new(LogConfig::default()),
                is_new: true,
                preferred_directory: None,
            })
            .expect("room on the disk");
        let mut batch = RecordBatchBuilder::new();
        batch.append(
            TimestampMs(1),
            None,
            Some(b"written after the last checkpoint of high watermarks"),
        );
        log.append_as_follower(&batch.build()).expect("a whole batch");
        assert_eq!(log.high_watermark(), Offset(0));
        let replicas = ReplicaManager::new(0, logs);
        let command = LeaderAndIsrPartition {
            topic_partition: name,
            controller_epoch: 1,
            state: LeaderAndIsr {
                leader: Some(0),
                leader_epoch: LeaderEpoch(0),
                isr: [0].into(),
                zk_version: 0,
            },
            replicas: [0].into(),
            adding_replicas: [].into(),
            removing_replicas: [].into(),
            is_new: false,
        };
        let results = replicas.leader_and_isr(vec![command], &|_| Arc::new(LogConfig::default()));
        assert!(results.iter().all(|(_, result)| result.is_ok()));
        assert_eq!(log.high_watermark(), Offset(1));
    }
}
