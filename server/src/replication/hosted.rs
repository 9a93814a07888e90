//! One partition as it is hosted here: its log, and around it the shell of the machine in [`super::partition`].
//!
//! Locks, in the order in which they are taken: `role`, then the log's own or `state`. `role` is held shared by whoever writes to
//! the log on the strength of a role, leader or follower, and exclusively while the role changes: what was accepted in one reign
//! never lands in the log of the next. So it is while a log is cut, and while another takes its place ([`future_replica`]). The log tells
//! of moved ends without a lock of its own; the ends are then read under `state`, so that the machine sees them in order.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use milena_engine::error::AppendError;
use milena_engine::log::{AppendInfo, Log, LogListener, LogOffsetSnapshot};
use milena_engine::record_batch::{AppendOrigin, ValidatedBatches, batches};
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use parking_lot::{Mutex, RwLock};

pub mod future_replica;

use future_replica::{append_or_begin_earlier, storage, take_over_bounds};

use super::partition::isr::{IsrAnswer, IsrProposal};
use super::partition::replica::RemoteReplica;
use super::partition::{Assignment, Input, LocalEnds, Output, PartitionState, Role};
use super::purgatory::{AcknowledgementDone, AcknowledgementId, PendingAcknowledgement, Purgatory};
use super::replica_fetcher::{FetchedPartition, FollowError};
use super::replica_selector::{ReplicaView, rack_aware};
use super::{IsrChange, PartitionRefusal, Shared};
use crate::planted::{self, Bug};

const LOGGER: &str = "kafka.cluster.Partition";

/// One partition hosted here.
#[derive(Debug)]
pub struct Partition {
    name: TopicPartition,
    log: ArcSwap<Log>,
    /// What is to replace it, in another log directory.
    future: ArcSwapOption<Log>,
    shared: Arc<Shared>,
    role: RwLock<()>,
    state: Mutex<PartitionState>,
    /// What lanes ask for each request, copied out of `state`.
    leads: AtomicBool,
    leader_epoch: AtomicI32,
    /// The last epoch in which something came from a leader: the log was cut where it parts from that leader's.
    followed_epoch: AtomicI32,
    purgatory: Purgatory,
    /// Of the last proposal that the log tells.
    told_proposal: AtomicU64,
}

/// What a leader appended.
#[derive(Debug)]
pub struct LeaderAppend {
    /// The reign in which it was appended.
    pub leader_epoch: LeaderEpoch,
    /// Of each set.
    pub results: Vec<Result<AppendInfo, AppendError>>,
}

/// How many replicas a partition that is led here has, are in sync, and must be for `acks=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LedPartition {
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
    pub(super) min_in_sync: usize,
}

/// What follows from a role that a partition took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleTaken {
    Leader,
    /// Of this leader from now on; `None` while there is none.
    Follower {
        leader: Option<i32>,
    },
}

/// Whether `acks=all` is fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    Waiting,
    Done,
    /// The records stay, but fewer replicas than `min.insync.replicas` are in sync by now.
    NotEnoughReplicas,
    /// Another reign began: whether the records stay is not known.
    NotLeader,
}

impl Partition {
    pub(super) fn new(shared: &Arc<Shared>, name: TopicPartition, log: Arc<Log>) -> Arc<Partition> {
        let ends = LocalEnds::from(log.offsets());
        let partition = Arc::new(Partition {
            state: Mutex::new(PartitionState::new(shared.rules, ends)),
            name,
            log: ArcSwap::new(log),
            future: ArcSwapOption::empty(),
            shared: Arc::clone(shared),
            role: RwLock::new(()),
            leads: AtomicBool::new(false),
            leader_epoch: AtomicI32::new(-1),
            followed_epoch: AtomicI32::new(-1),
            purgatory: Purgatory::default(),
            told_proposal: AtomicU64::new(0),
        });
        let listener: Weak<Partition> = Arc::downgrade(&partition);
        partition.log().set_listener(Arc::new(Ends(listener)));
        partition
    }

    pub fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// Another one after a move to another log directory. To be held for moments.
    pub fn log(&self) -> Guard<Arc<Log>> {
        self.log.load()
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
        self.state.lock().isr().known().len() >= self.min_insync_replicas()
    }

    /// Whether a replica is among those in sync, as far as that is committed.
    pub fn is_in_sync(&self, replica: i32) -> bool {
        self.state.lock().isr().known().contains(&replica)
    }

    fn min_insync_replicas(&self) -> usize {
        self.log.load().config().min_insync_replicas as usize
    }

    /// Checks that this broker leads and that the client believes in the same reign (`current_epoch` −1: it says nothing). Returns
    /// the reign.
    ///
    /// # Errors
    /// `NotLeader`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`.
    pub fn check_leader(&self, current_epoch: i32) -> Result<LeaderEpoch, PartitionRefusal> {
        let known = self.check_epoch(current_epoch)?;
        if self.leads.load(Ordering::Acquire) {
            Ok(known)
        } else {
            Err(PartitionRefusal::NotLeader)
        }
    }

    /// [`Partition::check_leader`] for what a follower may answer too.
    ///
    /// # Errors
    /// `FencedLeaderEpoch`, `UnknownLeaderEpoch`.
    pub fn check_epoch(&self, current_epoch: i32) -> Result<LeaderEpoch, PartitionRefusal> {
        let known = self.leader_epoch.load(Ordering::Acquire);
        if current_epoch >= 0 && current_epoch < known && !planted::has(Bug::OldEpochFetchAccepted) {
            return Err(PartitionRefusal::FencedLeaderEpoch);
        }
        if current_epoch >= 0 && current_epoch > known {
            return Err(PartitionRefusal::UnknownLeaderEpoch);
        }
        Ok(LeaderEpoch(known))
    }

    /// Appends produced sets as leader, all under one lock and with one write. The records are in the page cache afterwards;
    /// where an answer says `sync_before_ack`, its acknowledgement waits for [`Log::when_synced`].
    ///
    /// # Errors
    /// `NotLeader`: nothing was appended.
    pub fn append(
        &self,
        batches: &mut [ValidatedBatches<'_>],
        origin: AppendOrigin,
    ) -> Result<LeaderAppend, PartitionRefusal> {
        let _role = self.role.read();
        let leader_epoch = self.check_leader(-1)?;
        Ok(LeaderAppend {
            leader_epoch,
            results: self.log.load().append_as_leader(batches, origin, leader_epoch),
        })
    }

    /// Whether all in-sync replicas have the record at `last_offset`, appended in the reign of `leader_epoch`: this one, or one of those
    /// before it since which this broker leads.
    pub fn acknowledgement(&self, leader_epoch: LeaderEpoch, last_offset: Offset) -> Acknowledgement {
        // The end first: a later reign may have cut the record off and moved the end beyond it again.
        let is_replicated =
            self.log.load().high_watermark() > last_offset || planted::has(Bug::AcknowledgedBeforeReplicated);
        let state = self.state.lock();
        if !self.leads.load(Ordering::Acquire) || !state.has_led_since(leader_epoch) {
            Acknowledgement::NotLeader
        } else if !is_replicated {
            Acknowledgement::Waiting
        } else if state.isr().largest_count() < self.min_insync_replicas() {
            Acknowledgement::NotEnoughReplicas
        } else {
            Acknowledgement::Done
        }
    }

    /// Calls `done` once the in-sync replicas have the record at `last_offset`, or this broker leads no more; perhaps before this
    /// returns. What waits can be given up by [`Partition::forget`].
    pub fn when_acknowledged(
        &self,
        leader_epoch: LeaderEpoch,
        last_offset: Offset,
        done: AcknowledgementDone,
    ) -> Option<AcknowledgementId> {
        self.settle(PendingAcknowledgement {
            leader_epoch,
            last_offset,
            done,
        })
    }

    /// Nobody waits for the acknowledgement any more; it is not told.
    pub fn forget(&self, id: AcknowledgementId) {
        drop(self.purgatory.release(id));
    }

    fn settle(&self, mut pending: PendingAcknowledgement) -> Option<AcknowledgementId> {
        loop {
            match self.acknowledgement(pending.leader_epoch, pending.last_offset) {
                Acknowledgement::Waiting => {}
                settled => {
                    (pending.done)(settled);
                    return None;
                }
            }
            let (leader_epoch, last_offset) = (pending.leader_epoch, pending.last_offset);
            let id = self.purgatory.hold(pending);
            if self.acknowledgement(leader_epoch, last_offset) == Acknowledgement::Waiting {
                return Some(id);
            }
            // Who woke it meanwhile settles it.
            pending = self.purgatory.release(id)?;
        }
    }

    /// After another change than that of ends: who still waits goes on under its name.
    fn settle_changed(&self) {
        for held in self.purgatory.changed() {
            let settled = self.acknowledgement(held.leader_epoch, held.last_offset);
            if settled != Acknowledgement::Waiting
                && let Some(pending) = self.purgatory.release(held.id)
            {
                (pending.done)(settled);
            }
        }
    }

    fn settle_all(&self, woken: Vec<PendingAcknowledgement>) {
        for pending in woken {
            self.settle(pending);
        }
    }

    /// A follower's fetch was read from `fetch_offset`, in the reign of `leader_epoch`; `false` if it is no replica of this
    /// partition.
    pub fn fetched(
        &self,
        replica: i32,
        leader_epoch: LeaderEpoch,
        fetch_offset: Offset,
        log_start_offset: Offset,
        leader_end: Offset,
    ) -> bool {
        let is_live = self.shared.is_live(replica);
        let fetched = Input::Fetched {
            replica,
            leader_epoch,
            fetch_offset,
            log_start_offset,
            leader_end,
            is_live,
        };
        let mut outputs = Vec::new();
        {
            let mut state = self.state.lock();
            let replicas = state.assignment().map(|assignment| &assignment.replicas);
            if !replicas.is_some_and(|replicas| replicas.contains(&replica)) {
                return false;
            }
            state.step(self.shared.clock.monotonic(), fetched, &mut outputs);
        }
        self.carry_out(outputs);
        true
    }

    /// From which other replica a consumer in `rack` had better read, if this broker leads and that one has `fetch_offset`;
    /// `listener` is where the consumer came in, and where it would find the other.
    pub fn preferred_replica(&self, rack: &str, listener: &str, fetch_offset: Offset) -> Option<i32> {
        let state = self.state.lock();
        if state.role() != Role::Leader {
            return None;
        }
        let metadata = self.shared.metadata.load();
        let now = self.shared.clock.monotonic();
        let own_rack = metadata
            .broker(self.shared.rules.broker_id)
            .and_then(|own| own.rack.as_deref());
        let views = state.remotes().filter_map(|(id, replica)| {
            let (log_end, log_start) = (replica.end()?, replica.log_start()?);
            let broker = metadata.broker(id)?;
            broker.endpoint(listener)?;
            (log_end >= fetch_offset && log_start <= fetch_offset).then(|| ReplicaView {
                broker: id,
                rack: broker.rack.as_deref(),
                log_end,
                since_caught_up: replica
                    .caught_up_at()
                    .map_or(Duration::MAX, |at| now.saturating_sub(at)),
            })
        });
        rack_aware(rack, own_rack, views)
    }

    /// Whether the high watermark is not yet where this reign began: until then a leader does not know where the records end for
    /// consumers.
    pub fn is_reign_start_uncommitted(&self) -> bool {
        let start = self.state.lock().reign_start();
        start.is_some_and(|start| start > self.log.load().high_watermark())
    }

    /// Where the logs of all live replicas start at the latest: what was deleted below is gone everywhere.
    pub fn low_watermark(&self) -> Offset {
        let state = self.state.lock();
        let live = state.remotes().filter(|(id, _)| self.shared.is_live(*id));
        let starts = live.map(|(_, replica)| replica.log_start().unwrap_or(Offset(-1)));
        starts.fold(self.log.load().log_start_offset(), Offset::min)
    }

    /// Looks whether replicas lag.
    pub(super) fn check_isr(&self) {
        if self.leads.load(Ordering::Acquire) {
            self.step(|_| Input::CheckIsr);
        }
    }

    pub(super) fn isr_answered(&self, number: u64, answer: IsrAnswer) {
        self.step(|_| Input::IsrAnswered { number, answer });
    }

    /// The controller's word.
    pub(super) fn told(&self, assignment: Assignment) -> Result<RoleTaken, PartitionRefusal> {
        let mut outputs = Vec::new();
        let taken = {
            let _role = self.role.write();
            let mut state = self.state.lock();
            let ends = LocalEnds::from(self.log.load().offsets());
            let leader = assignment.leader;
            let told = Input::LeaderAndIsr { assignment, ends };
            state.step(self.shared.clock.monotonic(), told, &mut outputs);
            for output in &outputs {
                match output {
                    Output::BeginReign(epoch) => self
                        .log()
                        .assign_leader_epoch(*epoch, ends.log_end)
                        .map_err(|_| PartitionRefusal::Offline)?,
                    Output::Stale { .. } => return Err(PartitionRefusal::StaleLeaderEpoch),
                    _ => {}
                }
            }
            let epoch = state.leader_epoch().map_or(-1, LeaderEpoch::get);
            let leads = state.role() == Role::Leader;
            self.leader_epoch.store(epoch, Ordering::Release);
            self.leads.store(leads, Ordering::Release);
            tracing::info!(
                target: "state.change.logger",
                "[Broker id={}] {} {} starts at leader epoch {epoch} from offset {} with high watermark {}",
                self.shared.rules.broker_id,
                if leads { "Leader" } else { "Follower" },
                self.name,
                ends.log_end,
                ends.high_watermark
            );
            match leads {
                true => RoleTaken::Leader,
                false => RoleTaken::Follower { leader },
            }
        };
        self.carry_out(outputs);
        self.settle_changed();
        Ok(taken)
    }

    /// The partition is not served any more; whoever waits for it is woken.
    ///
    /// Takes no lock that a writer holds: a write that fails its directory retires the partitions in the middle of itself.
    pub(super) fn retire(&self) {
        self.set_future(None);
        self.leads.store(false, Ordering::Release);
        self.leader_epoch.store(-1, Ordering::Release);
        for pending in self.purgatory.wake_all() {
            (pending.done)(Acknowledgement::NotLeader);
        }
    }

    fn step(&self, input: impl FnOnce(LocalEnds) -> Input) {
        let mut outputs = Vec::new();
        {
            let mut state = self.state.lock();
            let ends = LocalEnds::from(self.log.load().offsets());
            state.step(self.shared.clock.monotonic(), input(ends), &mut outputs);
        }
        self.carry_out(outputs);
    }

    fn carry_out(&self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                // Done when the role was taken.
                Output::BeginReign(_) | Output::Stale { .. } => {}
                Output::AdvanceHighWatermark(high_watermark) => {
                    self.log.load().advance_high_watermark(high_watermark);
                }
                Output::Propose(proposal) => {
                    self.tell_proposed(&proposal);
                    self.shared.propose(IsrChange {
                        partition: self.name.clone(),
                        proposal,
                    });
                }
                Output::IsrChanged { to, .. } => {
                    let version = self.state.lock().assignment().map_or(-1, |one| one.zk_version);
                    tracing::info!(
                        target: LOGGER,
                        "[Partition {} broker={}] ISR updated to [{}] and zkVersion updated to [{version}]",
                        self.name,
                        self.shared.rules.broker_id,
                        ids(&to)
                    );
                    // What waits for enough replicas looks again (KAFKA-13091).
                    self.settle_changed();
                }
                Output::LowWatermarkMayHaveMoved => self.purgatory.low_watermark_moved(),
            }
        }
    }

    /// Says in Kafka's words what is proposed, once; what is proposed again without an answer is not news.
    fn tell_proposed(&self, proposal: &IsrProposal) {
        if self.told_proposal.swap(proposal.number, Ordering::Relaxed) == proposal.number {
            return;
        }
        let (broker_id, name) = (self.shared.rules.broker_id, &self.name);
        let state = self.state.lock();
        let known = state.isr().known();
        let (from, to) = (ids(known), ids(&proposal.isr));
        if proposal.isr.len() > known.len() {
            tracing::info!(target: LOGGER, "[Partition {name} broker={broker_id}] Expanding ISR from {from} to {to}");
            return;
        }
        let leaving = known.iter().filter(|id| !proposal.isr.contains(id));
        let leaving: Vec<String> = leaving
            .map(|id| {
                let end = state.remote(*id).and_then(RemoteReplica::end);
                let end = end.map_or(-1, Offset::get);
                format!("(brokerId: {id}, endOffset: {end})")
            })
            .collect();
        tracing::info!(
            target: LOGGER,
            "[Partition {name} broker={broker_id}] Shrinking ISR from {from} to {to}. Leader: (highWatermark: {}, endOffset: {}). \
             Out of sync replicas: {}.",
            self.log.load().high_watermark(),
            self.log.load().log_end_offset(),
            leaving.join(" ")
        );
    }

    /// How its replicas are, if this broker leads it.
    pub(super) fn led(&self) -> Option<LedPartition> {
        let state = self.state.lock();
        let assignment = state.assignment().filter(|_| state.role() == Role::Leader)?;
        Some(LedPartition {
            replicas: assignment.replicas.len(),
            in_sync: state.isr().known().len(),
            min_in_sync: self.min_insync_replicas(),
        })
    }

    /// Runs a follower's change of the log while this broker follows the leader of `epoch`.
    fn following<T>(
        &self,
        epoch: LeaderEpoch,
        change: impl FnOnce(&Log) -> Result<T, FollowError>,
    ) -> Result<T, FollowError> {
        let _role = self.role.read();
        self.check_following(epoch)?;
        change(&self.log())
    }

    fn check_following(&self, epoch: LeaderEpoch) -> Result<(), FollowError> {
        let follows = !self.leads.load(Ordering::Acquire) && self.leader_epoch() == Some(epoch);
        if follows || planted::has(Bug::FetchedBeforeRoleChangeApplied) {
            Ok(())
        } else {
            Err(FollowError::NotFollowing)
        }
    }

    /// Appends what the leader of `epoch` sent, and takes over its high watermark and log start offset. Returns the log end, and what
    /// must be synced before it is reported to the leader.
    ///
    /// **Deviation:** batches of a later epoch are not taken. A leader that is deposed while it sends may have cut its log and filled the
    /// same file again; 2.7.2's follower appends what it finds there behind records that are gone (KAFKA-18723).
    pub(super) fn append_as_follower(
        &self,
        epoch: LeaderEpoch,
        answer: &FetchedPartition<'_>,
    ) -> Result<(Offset, Option<Offset>), FollowError> {
        self.following(epoch, |log| {
            let end = log.log_end_offset();
            if end != answer.fetch_offset {
                return Err(FollowError::Unfit(format!(
                    "records from offset {} do not fit the log's end {end}",
                    answer.fetch_offset
                )));
            }
            let mut to_sync = None;
            let records = not_after(epoch, answer.records);
            if records.is_empty() && !answer.records.is_empty() {
                let later = "the leader sent records of a later epoch than its own";
                return Err(FollowError::Unfit(later.to_owned()));
            }
            if !records.is_empty() {
                let restart = |offset| self.shared.logs.truncate_fully_and_start_at(&self.name, offset);
                let appended = append_or_begin_earlier(log, records, restart)?;
                to_sync = appended.sync_before_ack;
            }
            take_over_bounds(log, answer.high_watermark, answer.log_start_offset)?;
            self.followed_epoch.store(epoch.get(), Ordering::Release);
            Ok((log.log_end_offset(), to_sync))
        })
    }

    /// Where another fetcher goes on if the logs' epochs say nothing: at the log's end, unless it is still to be cut.
    pub(super) fn begin_as_follower(&self, epoch: LeaderEpoch) -> Offset {
        if self.followed_epoch.load(Ordering::Acquire) == epoch.get() {
            self.log.load().log_end_offset()
        } else {
            self.log.load().high_watermark()
        }
    }

    pub(super) fn truncate_as_follower(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        let _role = self.role.write();
        self.check_following(epoch)?;
        let high_watermark = self.log().high_watermark();
        if offset < high_watermark {
            tracing::warn!(
                target: "kafka.server.ReplicaFetcherThread",
                "Truncating {} to offset {offset} below high watermark {high_watermark}",
                self.name
            );
        }
        let logs = &self.shared.logs;
        logs.truncate_to(&[(self.name.clone(), offset)])
            .map_err(storage)?;
        logs.truncate_future_to(&self.name, offset).map_err(storage)
    }

    pub(super) fn restart_as_follower(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        let _role = self.role.write();
        self.check_following(epoch)?;
        let logs = &self.shared.logs;
        logs.truncate_fully_and_start_at(&self.name, offset)
            .map_err(storage)?;
        logs.truncate_future_fully_and_start_at(&self.name, offset)
            .map_err(storage)
    }

    /// After a move of the log's ends.
    fn ends_moved(&self) {
        self.step(Input::LocalEndMoved);
        let offsets = self.log.load().offsets();
        let woken = self
            .purgatory
            .ends_moved(offsets.log_end_offset, offsets.high_watermark);
        self.settle_all(woken);
    }
}

fn ids(replicas: &[i32]) -> String {
    replicas.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// Hears of every move of a log's ends.
struct Ends(Weak<Partition>);

impl LogListener for Ends {
    fn offsets_moved(&self, _: &TopicPartition, _: &LogOffsetSnapshot) {
        if let Some(partition) = self.0.upgrade() {
            partition.ends_moved();
        }
    }
}

/// The records up to the first batch of a later epoch.
fn not_after(epoch: LeaderEpoch, records: &[u8]) -> &[u8] {
    let mut size_bytes = 0;
    for batch in batches(records).map_while(Result::ok) {
        let is_later = batch.header().leader_epoch.is_some_and(|of| of > epoch);
        if is_later && !planted::has(Bug::OldEpochFetchAccepted) {
            return &records[..size_bytes];
        }
        size_bytes += batch.size_bytes();
    }
    records
}
