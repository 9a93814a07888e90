//! GroupMachine: the groups of one partition of `__consumer_offsets`, as a pure state machine.
//!
//! `step(now, input, &mut outputs)` is all that happens: no threads, clock, randomness or I/O. Time, the bits of new member ids
//! and the results of appends come in with the input; answers, appends, loads and log lines go out. The same inputs give
//! the same outputs, in the same order. States and transitions of a group are drawn in [`super::state`].
//!
//! Promises, each a test:
//! - every request is answered exactly once, and none waits longer than its deadline: a join ends with the rebalance or the
//!   member's own time limit, a sync with the append or `offsets.commit.timeout.ms`, a commit or deletion likewise;
//! - what is committed or deleted changes in memory only after the append's result, in the order of the log;
//! - input that arrives together with an expired deadline is handled first: a heartbeat that is just in time counts;
//! - an append's result asks for no append, and lets no deadline pass that might: it may be told by a thread that changes the log
//!   and holds its locks. What is due is left to the tick;
//! - elections and resignations with an older epoch than the last one seen do nothing.
//!
//! **Deviation:** a member that took part in a join but has not sent SyncGroup within the rebalance timeout is removed. 2.7.2
//! lets it block the group for as long as it sends heartbeats (KAFKA-12890).
//!
//! **Deviation:** requests that 2.7.2 forgets are answered: a JoinGroup or SyncGroup replaced by a newer one of the same member
//! gets REBALANCE_IN_PROGRESS, and the SyncGroup of a removed member UNKNOWN_MEMBER_ID.
//!
//! Parts: `joining` (JoinGroup and rebalances), `syncing` (SyncGroup, Heartbeat, LeaveGroup), `committing` (offsets),
//! `removing` (expiry and deletion), `owning` (election, loading, resignation), `appending` (what waits for the log). Source:
//! `GroupCoordinator.scala`, `GroupMetadataManager.scala`, `DelayedJoin.scala`, `DelayedHeartbeat.scala`.

mod appending;
mod committing;
mod joining;
mod owning;
mod removing;
mod syncing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

use super::config::GroupConfig;
use super::loading::LoadedPartition;
use super::membership::{Group, MemberNumber};
use super::offset_store::AppendFailure;
use super::requests::*;
use super::state::GroupState;
use super::timers::{TimerId, Timers};
use appending::{PendingAppend, Purpose};
use removing::Deletion;

type Groups = BTreeMap<Arc<str>, Group>;

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For records and retention.
    pub wall: TimestampMs,
    /// For deadlines; never goes back.
    pub monotonic_ms: i64,
}

/// Names a request that waits for its answer; unique among those of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names an append; unique within one machine.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(u64);

/// What happens to the machine.
#[derive(Debug)]
pub enum Input {
    /// `member_uuid` becomes part of a new member's id, if one is needed.
    Join {
        token: Token,
        request: JoinGroup,
        member_uuid: u128,
    },
    Sync {
        token: Token,
        request: SyncGroup,
    },
    Heartbeat {
        token: Token,
        request: Heartbeat,
    },
    Leave {
        token: Token,
        request: LeaveGroup,
    },
    Commit {
        token: Token,
        request: CommitOffsets,
    },
    DeleteGroup {
        token: Token,
        group_id: Arc<str>,
    },
    DeleteOffsets {
        token: Token,
        group_id: Arc<str>,
        partitions: Vec<TopicPartition>,
    },
    /// These partitions exist no more, so nobody needs their offsets.
    PartitionsDeleted {
        partitions: Arc<[TopicPartition]>,
    },
    /// The marker of a transaction is in this partition's log.
    TransactionCompleted {
        producer_id: ProducerId,
        committed: bool,
    },
    /// An append has its offset, or failed. Nothing is appended in answer to it.
    Appended {
        id: AppendId,
        result: Result<Offset, AppendFailure>,
    },
    /// This broker leads the partition from `epoch` on.
    Elected {
        epoch: i32,
    },
    /// The load that [`Output::Load`] asked for.
    Loaded {
        epoch: i32,
        partition: Box<LoadedPartition>,
    },
    LoadFailed {
        epoch: i32,
        failure: AppendFailure,
    },
    /// This broker leads the partition no more; `None` if the partition was deleted.
    Resigned {
        epoch: Option<i32>,
    },
    /// The broker stops.
    Stopped,
    /// Only the time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Answer { token: Token, answer: Answer },
    Append(AppendRequest),
    Load { epoch: i32 },
    Log { level: LogLevel, message: String },
}

/// The answer to the request of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Join(JoinResult),
    Sync(SyncResult),
    Heartbeat(Result<(), GroupError>),
    Leave(LeaveResult),
    Commit(CommitResult),
    DeleteGroup(Result<(), GroupError>),
    DeleteOffsets(DeleteOffsetsResult),
}

/// One batch for `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    pub id: AppendId,
    pub timestamp: TimestampMs,
    /// Never empty.
    pub records: Vec<CoordinatorRecord>,
    /// The transaction that the batch belongs to.
    pub transaction: Option<(ProducerId, ProducerEpoch)>,
}

/// A record of `__consumer_offsets`; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Info,
    Warn,
    Error,
}

/// The epochs are those in which the reign began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    Elsewhere,
    Loading { epoch: i32 },
    Owned { epoch: i32 },
}

#[derive(Debug)]
enum Timer {
    /// A member's session, or its first wait for a join, is over.
    Session {
        group_id: Arc<str>,
        member: MemberNumber,
    },
    /// An id handed out was never used.
    PendingMember { group_id: Arc<str>, member_id: Arc<str> },
    /// The joins must be in, or the initial delay is over.
    Rebalance { group_id: Arc<str> },
    /// The syncs must be in.
    Sync { group_id: Arc<str> },
    /// An append takes too long.
    Append(AppendId),
    /// Expired offsets are looked for.
    Expiry,
}

/// All but the groups themselves, so that a group and the rest can be borrowed together.
#[derive(Debug)]
struct Core {
    partition: i32,
    config: Arc<GroupConfig>,
    ownership: Ownership,
    /// The latest epoch of an election or resignation.
    last_epoch: Option<i32>,
    is_stopped: bool,
    timers: Timers<Timer>,
    expiry: Option<TimerId>,
    appends: BTreeMap<AppendId, PendingAppend>,
    next_append: u64,
    /// Deletions that wait for their tombstones.
    deletions: BTreeMap<Token, Deletion>,
    /// The groups with offsets in each producer's open transaction.
    open_groups: BTreeMap<ProducerId, BTreeSet<Arc<str>>>,
    /// Transactions that ended while the partition is loaded: the load may have passed where their markers are.
    ended_meanwhile: Vec<(ProducerId, bool)>,
}

/// One step: the time, the machine's core, and where outputs go.
struct Turn<'a> {
    now: Now,
    core: &'a mut Core,
    out: &'a mut Vec<Output>,
}

/// See the module.
#[derive(Debug)]
pub struct GroupMachine {
    groups: Groups,
    core: Core,
}

impl GroupMachine {
    /// The machine of `partition`, which this broker does not lead yet.
    pub fn new(partition: i32, config: Arc<GroupConfig>) -> GroupMachine {
        let core = Core {
            partition,
            config,
            ownership: Ownership::Elsewhere,
            last_epoch: None,
            is_stopped: false,
            timers: Timers::new(),
            expiry: None,
            appends: BTreeMap::new(),
            next_append: 0,
            deletions: BTreeMap::new(),
            open_groups: BTreeMap::new(),
            ended_meanwhile: Vec::new(),
        };
        GroupMachine {
            groups: BTreeMap::new(),
            core,
        }
    }

    /// Takes in one input and, unless it is an append's result, all deadlines that have passed; pushes what follows to `out` in
    /// order.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let groups = &mut self.groups;
        let mut turn = Turn {
            now,
            core: &mut self.core,
            out,
        };
        match input {
            Input::Join {
                token,
                request,
                member_uuid,
            } => turn.join(groups, token, request, member_uuid),
            Input::Sync { token, request } => turn.sync(groups, token, request),
            Input::Heartbeat { token, request } => turn.heartbeat(groups, token, &request),
            Input::Leave { token, request } => turn.leave(groups, token, &request),
            Input::Commit { token, request } => turn.commit(groups, token, request),
            Input::DeleteGroup { token, group_id } => turn.delete_group(groups, token, &group_id),
            Input::DeleteOffsets {
                token,
                group_id,
                partitions,
            } => {
                turn.delete_offsets(groups, token, &group_id, partitions);
            }
            Input::PartitionsDeleted { partitions } => turn.partitions_deleted(groups, &partitions),
            Input::TransactionCompleted {
                producer_id,
                committed,
            } => {
                turn.transaction_completed(groups, producer_id, committed);
            }
            Input::Appended { id, result } => {
                let first = turn.out.len();
                turn.appended(groups, id, result);
                let is_append = |output: &Output| matches!(output, Output::Append(_));
                debug_assert!(
                    !turn.out[first..].iter().any(is_append),
                    "the log's locks may be held"
                );
                return;
            }
            Input::Elected { epoch } => turn.elected(groups, epoch),
            Input::Loaded { epoch, partition } => turn.loaded(groups, epoch, *partition),
            Input::LoadFailed { epoch, failure } => turn.load_failed(epoch, &failure),
            Input::Resigned { epoch } => turn.resigned(groups, epoch),
            Input::Stopped => turn.stopped(groups),
            Input::Tick => {}
        }
        while let Some((_, timer)) = turn.core.timers.take_due(now.monotonic_ms) {
            turn.fire(groups, timer);
        }
    }

    /// When [`Input::Tick`] is due, in monotonic milliseconds; `None` if nothing waits.
    pub fn next_deadline(&self) -> Option<i64> {
        self.core.timers.next_deadline_ms()
    }

    /// OffsetFetch, for the given partitions or for all that have an offset.
    ///
    /// # Errors
    /// What [`GroupError`] a client of a group gets that is not here or not loaded.
    pub fn fetch_offsets(
        &self,
        group_id: &str,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<Vec<(TopicPartition, FetchedOffset)>, GroupError> {
        self.core.check_available()?;
        let Some(group) = self.groups.get(group_id) else {
            let absent = partitions
                .unwrap_or_default()
                .iter()
                .map(|p| (p.clone(), FetchedOffset::Absent));
            return Ok(absent.collect());
        };
        let fetch =
            |partition: &TopicPartition| (partition.clone(), group.offsets.fetch(partition, require_stable));
        Ok(match partitions {
            Some(partitions) => partitions.iter().map(fetch).collect(),
            None => group.offsets.committed_partitions().iter().map(fetch).collect(),
        })
    }

    /// DescribeGroups. A group that does not exist is described as dead.
    ///
    /// # Errors
    /// As [`GroupMachine::fetch_offsets`].
    pub fn describe(&self, group_id: &str) -> Result<GroupSummary, GroupError> {
        self.core.check_available()?;
        Ok(match self.groups.get(group_id) {
            Some(group) => group.summary(),
            None => GroupSummary {
                state: GroupState::Dead,
                protocol_type: "".into(),
                protocol: "".into(),
                members: Vec::new(),
            },
        })
    }

    /// ListGroups, in the order of the ids.
    pub fn overviews(&self) -> impl Iterator<Item = GroupOverview> {
        self.groups.values().map(Group::overview)
    }

    pub fn is_loading(&self) -> bool {
        matches!(self.core.ownership, Ownership::Loading { .. })
    }

    /// Whether the load of `epoch` is still wanted.
    pub fn is_loading_in(&self, epoch: i32) -> bool {
        self.core.ownership == Ownership::Loading { epoch }
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Committed offsets of all groups.
    pub fn offset_count(&self) -> usize {
        self.groups
            .values()
            .map(|group| group.offsets.committed_count())
            .sum()
    }
}

impl Core {
    /// Whether requests for groups of this partition can be served.
    fn check_available(&self) -> Result<(), GroupError> {
        match self.ownership {
            _ if self.is_stopped => Err(GroupError::CoordinatorNotAvailable),
            Ownership::Loading { .. } => Err(GroupError::CoordinatorLoadInProgress),
            Ownership::Elsewhere => Err(GroupError::NotCoordinator),
            Ownership::Owned { .. } => Ok(()),
        }
    }

    /// The same for requests that need a group id.
    fn check_named(&self, group_id: &str) -> Result<(), GroupError> {
        if group_id.is_empty() {
            Err(GroupError::InvalidGroupId)
        } else {
            self.check_available()
        }
    }

    fn owned_epoch(&self) -> Option<i32> {
        match self.ownership {
            Ownership::Owned { epoch } => Some(epoch),
            Ownership::Elsewhere | Ownership::Loading { .. } => None,
        }
    }
}

impl Turn<'_> {
    fn answer(&mut self, token: Token, answer: Answer) {
        self.out.push(Output::Answer { token, answer });
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.out.push(Output::Log { level, message });
    }

    fn info(&mut self, message: String) {
        self.log(LogLevel::Info, message);
    }

    fn warn(&mut self, message: String) {
        self.log(LogLevel::Warn, message);
    }

    /// `delay_ms` from now; a negative delay is none.
    fn after(&self, delay_ms: i64) -> i64 {
        self.now.monotonic_ms.saturating_add(delay_ms.max(0))
    }

    /// Finds the group, or makes it, empty.
    fn get_or_create<'g>(&mut self, groups: &'g mut Groups, group_id: &Arc<str>) -> &'g mut Group {
        self.schedule_expiry();
        let now = self.now.wall;
        groups
            .entry(group_id.clone())
            .or_insert_with(|| Group::new(group_id.clone(), now))
    }

    /// Starts the member's session anew.
    fn renew_session(&mut self, group: &mut Group, number: MemberNumber) {
        if let Some(member) = group.member(number) {
            let timeout_ms = i64::from(member.session_timeout_ms);
            self.expect_within(group, number, timeout_ms);
        }
    }

    /// Removes the member unless it is heard of within `timeout_ms`.
    fn expect_within(&mut self, group: &mut Group, number: MemberNumber, timeout_ms: i64) {
        let at_ms = self.after(timeout_ms);
        let group_id = group.id.clone();
        if let Some(member) = group.member_mut(number) {
            self.core.timers.cancel(&mut member.session);
            member.session = Some(self.core.timers.set(
                at_ms,
                Timer::Session {
                    group_id,
                    member: number,
                },
            ));
        }
    }

    /// Forgets every deadline of a group that goes.
    fn cancel_timers(&mut self, group: &mut Group) {
        let timers = &mut self.core.timers;
        for (_, member) in group.members_mut() {
            timers.cancel(&mut member.session);
        }
        for timer in group.pending_members.values_mut() {
            timers.cancel(timer);
        }
        if let Some(rebalance) = &mut group.rebalance {
            timers.cancel(&mut rebalance.timer);
        }
        timers.cancel(&mut group.sync_deadline);
    }

    fn fire(&mut self, groups: &mut Groups, timer: Timer) {
        match timer {
            Timer::Session { group_id, member } => {
                if let Some(group) = groups.get_mut(&group_id) {
                    self.session_over(group, member);
                }
            }
            Timer::PendingMember { group_id, member_id } => {
                if let Some(group) = groups.get_mut(&group_id) {
                    self.info(format!(
                        "group {group_id}: pending member {member_id} did not join within its session timeout"
                    ));
                    self.remove_pending_member(group, &member_id);
                }
            }
            Timer::Rebalance { group_id } => {
                if let Some(group) = groups.get_mut(&group_id) {
                    self.rebalance_over(group);
                }
            }
            Timer::Sync { group_id } => {
                if let Some(group) = groups.get_mut(&group_id) {
                    self.sync_overdue(group);
                }
            }
            Timer::Append(id) => self.append_overdue(groups, id),
            Timer::Expiry => self.expire(groups),
        }
    }
}

#[cfg(test)]
mod tests;
