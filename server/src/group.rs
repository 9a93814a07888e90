//! GroupCoordinator: consumer groups and their committed offsets.
//!
//! The rules are in [`machine`], a pure state machine per partition of `__consumer_offsets`; this shell gives it time,
//! threads and a log, and nothing else. A machine per partition, because a partition is what is elected, loaded, written in
//! order and given away: nothing in Kafka reaches from one to another, and groups of different partitions do not share a lock.
//!
//! Here are the requests and the deadlines; what one step of a machine takes is in `slot`, loads are in `loader_thread`.
//!
//! Invariants:
//! - no lock is held over an append, a read or an await;
//! - appends of a partition reach the log in the order in which its machine asked for them;
//! - one task sleeps until the earliest deadline of all machines: no group, no wake-up;
//! - loads run on a thread of their own that ends with the last one.
//!
//! Left to others: which groups this broker coordinates (replication says so by [`GroupCoordinator::on_election`]),
//! authorization and the existence of topics (handlers), replication of the log ([`offset_store`]).
//!
//! Source: `kafka.coordinator.group` of 2.7.2; KIP-62, KIP-134, KIP-211, KIP-345, KIP-389, KIP-394, KIP-429, KIP-447, KIP-559.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::{ProducerId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub mod config;
#[cfg(test)]
mod golden;
mod loader_thread;
pub mod loading;
pub mod machine;
mod membership;
pub mod offset_store;
mod offsets;
pub mod records;
pub mod requests;
mod slot;
pub mod state;
pub mod subscription;
mod timers;

use config::GroupConfig;
use loader_thread::Loads;
use machine::{Answer, Input, Now};
pub use offset_store::{AppendDone, AppendFailure, CoordinatorLog, ReadChunk};
use requests::*;
use slot::{Pending, Slot};

/// The topic in which groups and offsets are kept.
pub const GROUP_METADATA_TOPIC_NAME: &str = "__consumer_offsets";

/// No deadline, as an integer.
const NEVER: i64 = i64::MAX;

/// Something to be done once, elsewhere.
pub type Work = Box<dyn FnOnce() + Send>;

/// What a coordinator has from the process around it.
pub struct Surroundings {
    /// Where the 128 bits of a new member id come from.
    pub member_uuids: Box<dyn Fn() -> u128 + Send + Sync>,
    /// Does work that waits for the disk, elsewhere and soon.
    pub run_apart: Box<dyn Fn(Work) -> io::Result<()> + Send + Sync>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

impl Default for Surroundings {
    /// The system's random numbers, and a thread for each work.
    fn default() -> Surroundings {
        Surroundings {
            member_uuids: Box::new(random_uuid),
            run_apart: Box::new(|work| {
                let thread = std::thread::Builder::new().name("group-loader".to_owned());
                thread.spawn(work).map(drop)
            }),
        }
    }
}

/// The coordinator of all groups whose partition this broker leads. Cheap to share; every method takes `&self`.
pub struct GroupCoordinator {
    me: Weak<GroupCoordinator>,
    config: Arc<GroupConfig>,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
    surroundings: Surroundings,
    /// One for each partition of the topic.
    slots: Box<[Slot]>,
    loads: Mutex<Loads>,
    is_stopped: AtomicBool,
    /// When the timer task wakes up, in monotonic milliseconds.
    wakes_at_ms: AtomicI64,
    /// An earlier deadline appeared.
    wake: Notify,
}

impl fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCoordinator")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// A coordinator that leads no partition yet. [`GroupCoordinator::run_timer`] must be running for its deadlines to pass.
    pub fn new(
        config: GroupConfig,
        log: Arc<dyn CoordinatorLog>,
        clock: Arc<dyn Clock>,
    ) -> Arc<GroupCoordinator> {
        GroupCoordinator::within(config, log, clock, Surroundings::default())
    }

    /// As [`GroupCoordinator::new`], in surroundings of which a test knows what they do.
    pub fn within(
        config: GroupConfig,
        log: Arc<dyn CoordinatorLog>,
        clock: Arc<dyn Clock>,
        surroundings: Surroundings,
    ) -> Arc<GroupCoordinator> {
        let config = Arc::new(config);
        let slots = (0..config.offsets_topic_num_partitions.max(1))
            .map(|partition| Slot::new(partition, Arc::clone(&config)))
            .collect();
        Arc::new_cyclic(|me| GroupCoordinator {
            me: me.clone(),
            config,
            log,
            clock,
            surroundings,
            slots,
            loads: Mutex::new(Loads::default()),
            is_stopped: AtomicBool::new(false),
            wakes_at_ms: AtomicI64::new(NEVER),
            wake: Notify::new(),
        })
    }

    /// The partition of `__consumer_offsets` that holds the group.
    pub fn partition_for(&self, group_id: &str) -> i32 {
        records::partition_for(group_id, self.partition_count())
    }

    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// How many partitions the topic has, for the life of this coordinator.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.slots.len()).expect("made from an i32")
    }

    /// This broker has become the leader of `partition` in `epoch`: its groups are loaded, and served from then on. Repeated and
    /// older elections do nothing.
    pub fn on_election(&self, partition: i32, epoch: i32) {
        self.step(partition, Input::Elected { epoch });
    }

    /// This broker leads `partition` no more since `epoch`; `None` if the partition was deleted here. Clients that wait are sent
    /// to the new coordinator. Older resignations do nothing.
    pub fn on_resignation(&self, partition: i32, epoch: Option<i32>) {
        self.step(partition, Input::Resigned { epoch });
    }

    /// These partitions of any topics exist no more: their committed offsets go.
    pub fn on_partitions_deleted(&self, partitions: &[TopicPartition]) {
        let partitions: Arc<[TopicPartition]> = partitions.into();
        for partition in 0..self.partition_count() {
            self.step(
                partition,
                Input::PartitionsDeleted {
                    partitions: Arc::clone(&partitions),
                },
            );
        }
    }

    /// The marker of a transaction has been appended to `partition` of `__consumer_offsets`.
    pub fn on_transaction_completed(&self, partition: i32, producer_id: ProducerId, committed: bool) {
        self.step(
            partition,
            Input::TransactionCompleted {
                producer_id,
                committed,
            },
        );
    }

    /// JoinGroup. Returns once the rebalance is done, which may take minutes.
    ///
    /// # Errors
    /// [`JoinRefusal`], among them MEMBER_ID_REQUIRED, with which a new member begins.
    pub async fn join_group(&self, request: JoinGroup) -> JoinResult {
        let member_id = request.member_id.clone();
        // Only a member without an id needs a new one.
        let member_uuid = if member_id.is_empty() {
            (self.surroundings.member_uuids)()
        } else {
            0
        };
        let pending = self.call(&request.group_id.clone(), |token| Input::Join {
            token,
            request,
            member_uuid,
        });
        match pending.answer().await {
            Some(Answer::Join(result)) => result,
            _ => Err(JoinRefusal {
                error: GroupError::CoordinatorNotAvailable,
                member_id,
            }),
        }
    }

    /// SyncGroup. Returns once the leader's assignment is stored.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn sync_group(&self, request: SyncGroup) -> SyncResult {
        match self
            .call(&request.group_id.clone(), |token| Input::Sync { token, request })
            .answer()
            .await
        {
            Some(Answer::Sync(result)) => result,
            _ => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// [`GroupError`]; REBALANCE_IN_PROGRESS tells the member to join again.
    pub async fn heartbeat(&self, request: Heartbeat) -> Result<(), GroupError> {
        match self
            .call(&request.group_id.clone(), |token| Input::Heartbeat {
                token,
                request,
            })
            .answer()
            .await
        {
            Some(Answer::Heartbeat(result)) => result,
            _ => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// LeaveGroup, for one or more members.
    ///
    /// # Errors
    /// [`GroupError`] for the whole request; those of single members are in the result.
    pub async fn leave_group(&self, request: LeaveGroup) -> LeaveResult {
        match self
            .call(&request.group_id.clone(), |token| Input::Leave { token, request })
            .answer()
            .await
        {
            Some(Answer::Leave(result)) => result,
            _ => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// OffsetCommit (or TxnOffsetCommit). What has no error is in the log, on all in-sync replicas.
    pub async fn commit_offsets(&self, request: CommitOffsets) -> CommitResult {
        let count = request.offsets.len();
        match self
            .call(&request.group_id.clone(), |token| Input::Commit {
                token,
                request,
            })
            .answer()
            .await
        {
            Some(Answer::Commit(results)) => results,
            _ => vec![Err(GroupError::CoordinatorNotAvailable); count],
        }
    }

    /// OffsetFetch, for the given partitions or for all that have an offset.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorLoadInProgress`], [`GroupError::NotCoordinator`], [`GroupError::CoordinatorNotAvailable`].
    pub fn fetch_offsets(
        &self,
        group_id: &str,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<Vec<(TopicPartition, FetchedOffset)>, GroupError> {
        let state = self.slot(self.partition_for(group_id)).state.lock();
        state.machine.fetch_offsets(group_id, partitions, require_stable)
    }

    /// DescribeGroups for one group; one that does not exist is described as dead.
    ///
    /// # Errors
    /// As [`GroupCoordinator::fetch_offsets`].
    pub fn describe_group(&self, group_id: &str) -> Result<GroupSummary, GroupError> {
        self.slot(self.partition_for(group_id))
            .state
            .lock()
            .machine
            .describe(group_id)
    }

    /// ListGroups: all groups that are loaded here, of the given states, or of all if none is given.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorNotAvailable`] once the broker stops.
    pub fn list_groups(&self, states: &[&str]) -> Result<GroupList, GroupError> {
        if self.is_stopped.load(Ordering::SeqCst) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut list = GroupList {
            groups: Vec::new(),
            loading: false,
        };
        for slot in &self.slots {
            let state = slot.state.lock();
            list.loading |= state.machine.is_loading();
            let is_wanted = |group: &GroupOverview| states.is_empty() || states.contains(&group.state.name());
            list.groups.extend(state.machine.overviews().filter(is_wanted));
        }
        Ok(list)
    }

    /// DeleteGroups: one result for each id, in order. A group without error is gone from the log.
    pub async fn delete_groups(&self, group_ids: &[Arc<str>]) -> Vec<Result<(), GroupError>> {
        let delete = |group_id: &Arc<str>| {
            let deleted = group_id.clone();
            self.call(group_id, |token| Input::DeleteGroup {
                token,
                group_id: deleted,
            })
        };
        let pending: Vec<Pending> = group_ids.iter().map(delete).collect();
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(match pending.answer().await {
                Some(Answer::DeleteGroup(result)) => result,
                _ => Err(GroupError::CoordinatorNotAvailable),
            });
        }
        results
    }

    /// OffsetDelete: one result for each partition, in order.
    ///
    /// # Errors
    /// [`GroupError`] for the whole request.
    pub async fn delete_offsets(
        &self,
        group_id: Arc<str>,
        partitions: Vec<TopicPartition>,
    ) -> DeleteOffsetsResult {
        let pending = self.call(&group_id.clone(), |token| Input::DeleteOffsets {
            token,
            group_id,
            partitions,
        });
        match pending.answer().await {
            Some(Answer::DeleteOffsets(result)) => result,
            _ => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// Stops for good: joins and syncs that wait are answered with NOT_COORDINATOR, all later requests refused.
    pub fn shutdown(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        for partition in 0..self.partition_count() {
            self.step(partition, Input::Stopped);
        }
        self.wake.notify_one();
    }

    /// Lets deadlines pass. Runs until [`GroupCoordinator::shutdown`] and the last append; on any lane, once.
    pub async fn run_timer(self: Arc<Self>) {
        loop {
            let at_ms = self.earliest_deadline_ms();
            self.wakes_at_ms.store(at_ms, Ordering::SeqCst);
            // A step that set an earlier deadline before the store did not see it, but is seen here.
            if self.earliest_deadline_ms() < at_ms {
                continue;
            }
            if at_ms == NEVER {
                if self.is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                self.wake.notified().await;
                continue;
            }
            let wait_ms = u64::try_from(at_ms - self.now().monotonic_ms).unwrap_or(0);
            if wait_ms > 0 {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                    () = self.wake.notified() => continue,
                }
            }
            self.tick();
        }
    }

    /// Handles the deadlines that have passed by now; for shells without a tokio timer.
    pub fn tick(&self) {
        let now_ms = self.now().monotonic_ms;
        for partition in 0..self.partition_count() {
            if self.slot(partition).deadline_ms.load(Ordering::SeqCst) <= now_ms {
                self.step(partition, Input::Tick);
            }
        }
    }

    /// When [`GroupCoordinator::tick`] is due, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<i64> {
        Some(self.earliest_deadline_ms()).filter(|at_ms| *at_ms != NEVER)
    }

    fn earliest_deadline_ms(&self) -> i64 {
        self.slots
            .iter()
            .map(|slot| slot.deadline_ms.load(Ordering::SeqCst))
            .min()
            .unwrap_or(NEVER)
    }

    fn slot(&self, partition: i32) -> &Slot {
        let index = usize::try_from(partition).expect("partitions count from 0");
        &self.slots[index]
    }

    fn now(&self) -> Now {
        let monotonic_ms = i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        Now {
            wall: self.clock.wall(),
            monotonic_ms,
        }
    }
}

/// A random UUID (version 4).
fn random_uuid() -> u128 {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the system has randomness");
    let version = 0x4 << 76;
    let variant = 0x8 << 60;
    (u128::from_be_bytes(bits) & !(0xf << 76) & !(0xc << 60)) | version | variant
}

#[cfg(test)]
pub(crate) mod tests;
