//! [`ReplicaManager`]: the partitions of this broker, and what happens to their logs on the word of the controller.
//!
//! The decisions are those of pure machines: [`partition`] for each partition, [`replica_fetcher`] for a follower's dealings with a
//! leader. The shells around them own logs, connections and threads: [`hosted`] one partition, [`replica_fetcher_manager`] the fetchers,
//! [`isr_manager`] the changes of in-sync replicas, [`replica_alter_log_dirs_manager`] the moves between log directories, which are
//! copied by the machine of the fetchers too; [`health`] tells what is wrong (`ReplicaManager.scala`, `Partition.scala`). How fast
//! copies may be made says [`replication_quota_manager`]. Only the fetchers see wire types.
//!
//! Invariants:
//! - a lookup on a lane takes no lock: the table is a snapshot that changes of the partition set replace;
//! - a partition leads only after its log has noted the leader epoch;
//! - what is written to a log on the strength of a role is written while that role lasts, or not at all;
//! - whoever waits for a partition is woken by every change that can end the wait, leadership and storage included.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use milena_engine::config::LogConfig;
use milena_engine::io::Clock;
use milena_engine::log_manager::{LogManager, WantedLog};
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub mod coordinator_log;
pub mod health;
pub mod hosted;
pub mod isr_manager;
pub mod partition;
pub mod purgatory;
pub mod replica_alter_log_dirs;
pub mod replica_alter_log_dirs_manager;
pub mod replica_fetcher;
pub mod replica_fetcher_manager;
pub mod replica_selector;
pub mod replication_quota_manager;
mod roomless;
#[cfg(test)]
pub(crate) mod tests;

use crate::controller::command::LeaderAndIsrPartition;
use crate::metadata_cache::MetadataCache;
use hosted::RoleTaken;
pub use hosted::{Acknowledgement, LeaderAppend, Partition};
use partition::isr::{IsrAnswer, IsrProposal};
use partition::{Assignment, PartitionRules};
pub use purgatory::AcknowledgementId;
use replica_alter_log_dirs_manager::{MoverCommand, MoverInbox, Movers};
use replica_fetcher_manager::{FetcherCommand, FetcherInbox, Fetchers};
use replication_quota_manager::{QuotaWindows, ReplicationQuotaManagers};
use roomless::Roomless;

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

/// A change of in-sync replicas that a partition asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    pub partition: TopicPartition,
    pub proposal: IsrProposal,
}

/// What all partitions of a broker share.
#[derive(Debug)]
struct Shared {
    rules: PartitionRules,
    clock: Arc<dyn Clock>,
    metadata: Arc<MetadataCache>,
    logs: Arc<LogManager>,
    proposals: mpsc::UnboundedSender<IsrChange>,
}

impl Shared {
    /// Whether a broker is registered, as far as is known here.
    fn is_live(&self, broker: i32) -> bool {
        self.metadata.load().broker(broker).is_some()
    }

    fn propose(&self, change: IsrChange) {
        // Nobody listens once the broker stops.
        let _ = self.proposals.send(change);
    }
}

/// What a replica manager leaves to others.
#[derive(Debug)]
pub struct Inboxes {
    /// For [`isr_manager::run`].
    pub proposals: mpsc::UnboundedReceiver<IsrChange>,
    /// For [`replica_fetcher_manager::start`], one for each fetching thread.
    pub fetchers: Vec<FetcherInbox>,
    /// For [`replica_alter_log_dirs_manager::ReplicaAlterLogDirsManager::start`], one for each moving thread.
    pub movers: Vec<MoverInbox>,
}

/// What replication goes by.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaManagerSettings {
    pub broker_id: i32,
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
    /// `num.replica.fetchers`, from 1.
    pub fetcher_count: usize,
    /// `replication.quota.window.*`
    pub quota_windows: QuotaWindows,
    /// `alter.log.dirs.replication.quota.window.*`
    pub alter_log_dirs_quota_windows: QuotaWindows,
    /// `num.replica.alter.log.dirs.threads`, from 1.
    pub mover_count: usize,
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
    shared: Arc<Shared>,
    logs: Arc<LogManager>,
    fetchers: Fetchers,
    movers: Movers,
    quotas: ReplicationQuotaManagers,
    table: ArcSwap<Table>,
    roomless: Roomless,
    /// Held while the table is replaced.
    change: Mutex<()>,
    /// Held over I/O while roles are taken, replicas stopped and moves begun or ended.
    state_change: Mutex<()>,
}

impl ReplicaManager {
    pub fn new(
        settings: ReplicaManagerSettings,
        logs: Arc<LogManager>,
        metadata: Arc<MetadataCache>,
        clock: Arc<dyn Clock>,
    ) -> (ReplicaManager, Inboxes) {
        let (fetchers, inboxes) = Fetchers::new(settings.fetcher_count);
        let (movers, mover_inboxes) = Movers::new(settings.mover_count);
        let (proposals, proposed) = mpsc::unbounded_channel();
        let rules = PartitionRules {
            broker_id: settings.broker_id,
            lag_max: settings.lag_max,
        };
        let shared = Shared {
            rules,
            clock,
            metadata,
            logs: Arc::clone(&logs),
            proposals,
        };
        let replicas = ReplicaManager {
            shared: Arc::new(shared),
            logs,
            fetchers,
            movers,
            quotas: ReplicationQuotaManagers::new(
                settings.quota_windows,
                settings.alter_log_dirs_quota_windows,
            ),
            table: ArcSwap::default(),
            roomless: Roomless::default(),
            change: Mutex::new(()),
            state_change: Mutex::new(()),
        };
        let inboxes = Inboxes {
            proposals: proposed,
            fetchers: inboxes,
            movers: mover_inboxes,
        };
        (replicas, inboxes)
    }

    pub fn broker_id(&self) -> i32 {
        self.shared.rules.broker_id
    }

    /// How fast replication may be.
    pub fn quotas(&self) -> &ReplicationQuotaManagers {
        &self.quotas
    }

    /// Whether a follower gets nothing of a partition for now: it is listed, not in sync, and the rate is exceeded. One in sync is
    /// never held back.
    pub fn throttles(&self, partition: &Partition, follower: i32) -> bool {
        let quota = &self.quotas.leader;
        quota.is_throttled(partition.name())
            && quota.is_exceeded(self.shared.clock.monotonic())
            && !partition.is_in_sync(follower)
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

    /// Those that are ours and cannot be served.
    fn offline_partitions(&self) -> BTreeSet<TopicPartition> {
        let table = self.table.load();
        let mut offline = BTreeSet::from_iter(self.roomless.names());
        for (topic, slots) in table.iter() {
            for (number, slot) in (0..).zip(slots) {
                if matches!(slot, Some(Hosted::Offline)) {
                    offline.insert(TopicPartition::new(Arc::clone(topic), number));
                }
            }
        }
        offline
    }

    /// The controller's word on who leads what; one table change for all of it. Logs that are missing are created, durably, with
    /// the settings that `config_of` gives for their topic. Blocks for the disk.
    pub fn leader_and_isr(
        &self,
        partitions: Vec<LeaderAndIsrPartition>,
        config_of: &dyn Fn(&str) -> Arc<LogConfig>,
    ) -> Vec<(TopicPartition, Result<(), PartitionRefusal>)> {
        let _state_change = self.state_change.lock();
        self.host_missing(&partitions, config_of);
        let table = self.table.load();
        let mut results = Vec::with_capacity(partitions.len());
        let mut fetching = Vec::new();
        for command in partitions {
            let name = command.topic_partition;
            let result = match hosted(&table, &name) {
                Some(Hosted::Online(partition)) => {
                    let epoch = command.state.leader_epoch;
                    let told = partition.told(Assignment {
                        leader: command.state.leader,
                        leader_epoch: epoch,
                        controller_epoch: command.controller_epoch,
                        isr: command.state.isr,
                        replicas: command.replicas,
                        zk_version: command.state.zk_version,
                    });
                    told.map(|taken| {
                        self.go_on_moving(partition);
                        fetching.push(match taken {
                            RoleTaken::Follower { leader: Some(leader) } => FetcherCommand::Follow {
                                partition: name.clone(),
                                leader,
                                epoch,
                                high_watermark: partition.log().high_watermark(),
                            },
                            RoleTaken::Leader | RoleTaken::Follower { leader: None } => {
                                FetcherCommand::Unfollow(name.clone())
                            }
                        });
                    })
                }
                Some(Hosted::Offline) => Err(PartitionRefusal::Offline),
                None if self.roomless.contains(&name) => Err(PartitionRefusal::Offline),
                None => Err(PartitionRefusal::Unknown),
            };
            results.push((name, result));
        }
        self.fetchers.tell(fetching);
        results
    }

    /// Opens the logs that are not hosted yet. Without the lock, as a directory that fails meanwhile takes it.
    fn host_missing(&self, partitions: &[LeaderAndIsrPartition], config_of: &dyn Fn(&str) -> Arc<LogConfig>) {
        let present = self.table.load();
        let is_missing = |command: &&LeaderAndIsrPartition| {
            let is_ours = command.replicas.contains(&self.broker_id());
            is_ours && hosted(&present, &command.topic_partition).is_none()
        };
        let missing: Vec<&LeaderAndIsrPartition> = partitions.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        let wanted = missing.into_iter().map(|command| WantedLog {
            partition: command.topic_partition.clone(),
            config: config_of(&command.topic_partition.topic),
            is_new: command.is_new,
            preferred_directory: None,
        });
        let wanted: Vec<WantedLog> = wanted.collect();
        let opened = self.logs.get_or_create_all(wanted.clone());
        let _change = self.change.lock();
        let mut table = Table::clone(&self.table.load());
        for (wanted, log) in wanted.into_iter().zip(opened) {
            let name = wanted.partition.clone();
            self.roomless.remove(&name);
            let entry = match log {
                Ok(log) if log.directory().is_online() => {
                    Hosted::Online(Partition::new(&self.shared, name.clone(), log))
                }
                Ok(_) => Hosted::Offline,
                Err(error) if error.lacks_space() => {
                    tracing::error!(target: "state.change.logger", "{name} is offline until there is room: {error}");
                    self.roomless.add(wanted);
                    continue;
                }
                Err(error) => {
                    tracing::error!(target: "state.change.logger", "{name} stays offline: {error}");
                    Hosted::Offline
                }
            };
            put(&mut table, &name, entry);
        }
        self.table.store(Arc::new(table));
    }

    /// What became of a proposed change of in-sync replicas.
    fn isr_answered(&self, name: &TopicPartition, number: u64, answer: IsrAnswer) {
        // A partition that is gone needs no answer.
        if let Ok(partition) = self.partition(&name.topic, name.partition) {
            partition.isr_answered(number, answer);
        }
    }

    /// Looks for lagging replicas of all partitions that are led here; to be called every half of `replica.lag.time.max.ms`.
    pub fn check_isrs(&self) {
        let mut partitions = self.online_partitions();
        in_order(&mut partitions);
        for partition in partitions {
            partition.check_isr();
        }
    }

    /// Stops serving partitions, and schedules the removal of their files where `delete` says so.
    pub fn stop_replicas(
        &self,
        partitions: &[(TopicPartition, bool)],
    ) -> Vec<(TopicPartition, Result<(), PartitionRefusal>)> {
        let _state_change = self.state_change.lock();
        let named: HashSet<&TopicPartition> = partitions.iter().map(|(name, _)| name).collect();
        // One that only stops is told so because it is offline, and waits on.
        for (name, _) in partitions.iter().filter(|(_, delete)| *delete) {
            self.roomless.remove(name);
        }
        self.retire(|name| named.contains(name), None);
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
        self.moves_failed(directory);
        let is_below = |partition: &Arc<Partition>| partition.log().directory().path() == directory;
        let online = self.online_partitions();
        let lost: HashSet<TopicPartition> = online
            .iter()
            .filter(|partition| is_below(partition))
            .map(|partition| partition.name().clone())
            .collect();
        self.retire(|name| lost.contains(name), Some(Hosted::Offline));
    }

    /// Whether nothing can be served any more.
    pub fn all_directories_failed(&self) -> bool {
        self.logs.online_directory_count() == 0
    }

    /// One partition is out of service from now on.
    pub fn out_of_service(&self, name: &TopicPartition) {
        self.retire(|other| other == name, Some(Hosted::Offline));
    }

    /// Takes partitions out of the table, or leaves the replacement in their place; nobody follows, leads or waits for them then.
    fn retire(&self, chosen: impl Fn(&TopicPartition) -> bool, replacement: Option<Hosted>) {
        let mut removed = Vec::new();
        {
            let _change = self.change.lock();
            let mut table = Table::clone(&self.table.load());
            for slot in table.values_mut().flatten() {
                if let Some(Hosted::Online(partition)) = slot
                    && chosen(partition.name())
                {
                    removed.push(Arc::clone(partition));
                    slot.clone_from(&replacement);
                }
            }
            table.retain(|_, slots| slots.iter().any(Option::is_some));
            self.table.store(Arc::new(table));
        }
        in_order(&mut removed);
        let unfollowed = removed
            .iter()
            .map(|partition| FetcherCommand::Unfollow(partition.name().clone()));
        self.fetchers.tell(unfollowed.collect());
        for partition in removed {
            partition.retire();
            self.movers.tell(MoverCommand::Leave(partition.name().clone()));
        }
    }
}

/// By name: what follows from it happens in the same order each time.
fn in_order(partitions: &mut [Arc<Partition>]) {
    partitions.sort_by(|one, other| one.name().cmp(other.name()));
}
