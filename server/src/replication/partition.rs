//! What this broker is to one partition, as a pure machine: event in, decision out (`Partition.scala`).
//!
//! ```text
//!            LeaderAndIsr, leader = us            LeaderAndIsr, newer epoch, leader = us
//!  Undecided ─────────────────────────▶ Leader ◀───────────────────────────────────────┐
//!      │                                  │ └──────────────────────────────────────────┘
//!      │ leader = another                 │ newer epoch, leader = another
//!      ▼                                  ▼
//!  Follower ◀───────────────────────── Follower
//! ```
//!
//! Illegal, and refused as stale: a LeaderAndIsr whose leader epoch is not above the known one (with an equal epoch Kafka answers
//! the same refusal).
//!
//! A leader knows of each other replica how far it came, as its fetches tell ([`replica`]), and which replicas are in sync
//! ([`isr`]). Its high watermark is the least log end of itself, of its in-sync replicas and of those that have been caught up
//! lately, so that these can join; it never falls within a reign. A new leader believes nothing of what it heard of the others in an
//! earlier reign. A replica joins the in-sync ones once it holds everything up to the high watermark and up to the beginning of the
//! reign, and leaves them when it has not been caught up for `replica.lag.time.max.ms`.
//!
//! **Deviation:** what is in sync by the tree and is no replica (any more) holds the high watermark until it is taken out of the in-sync
//! ones, which is asked for at once. 2.7.2 does not wait for it, though in the middle of a reassignment's end the next controller may
//! make it the leader, without what was acknowledged meanwhile.

pub mod isr;
pub mod replica;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::log::LogOffsetSnapshot;
use milena_engine::units::{LeaderEpoch, Offset};

use crate::planted::{self, Bug};
use isr::{IsrAnswer, IsrProposal, IsrState};
use replica::RemoteReplica;

/// What the controller said of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// `None` while the partition has no leader.
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    /// Of the controller that decided it.
    pub controller_epoch: i32,
    pub isr: Arc<[i32]>,
    pub replicas: Arc<[i32]>,
    /// Version of the state znode that this was read from.
    pub zk_version: i32,
}

/// What a broker is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Undecided,
    Leader,
    Follower,
}

/// How far the local log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEnds {
    pub log_end: Offset,
    /// The log's share of the high watermark: its end, or its synced end where acknowledgements are synced.
    pub replicable_end: Offset,
    pub high_watermark: Offset,
}

impl From<LogOffsetSnapshot> for LocalEnds {
    fn from(offsets: LogOffsetSnapshot) -> LocalEnds {
        LocalEnds {
            log_end: offsets.log_end_offset,
            replicable_end: match planted::has(Bug::UnsyncedCounted) {
                true => offsets.log_end_offset,
                false => offsets.replicable_end,
            },
            high_watermark: offsets.high_watermark,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    LeaderAndIsr {
        assignment: Assignment,
        ends: LocalEnds,
    },
    /// The log's ends are these now.
    LocalEndMoved(LocalEnds),
    /// A follower asked for records from an offset that this log has: so far its own log goes.
    Fetched {
        replica: i32,
        /// The reign in which the fetch was read: what is heard of another means nothing.
        leader_epoch: LeaderEpoch,
        fetch_offset: Offset,
        log_start_offset: Offset,
        /// Where the leader's log ended when the fetch was read.
        leader_end: Offset,
        /// The broker is registered, as far as is known here.
        is_live: bool,
    },
    /// Time to look who lags.
    CheckIsr,
    /// What became of a proposal.
    IsrAnswered {
        number: u64,
        answer: IsrAnswer,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A reign begins: the log notes the epoch at its present end.
    BeginReign(LeaderEpoch),
    AdvanceHighWatermark(Offset),
    /// Have these replicas written as the in-sync ones; answered by [`Input::IsrAnswered`].
    Propose(IsrProposal),
    /// The in-sync replicas were these, and are now those.
    IsrChanged {
        from: Arc<[i32]>,
        to: Arc<[i32]>,
    },
    /// A replica's log starts later than before.
    LowWatermarkMayHaveMoved,
    /// The controller's word is not newer than what is known (STALE_CONTROLLER_EPOCH).
    Stale {
        known: LeaderEpoch,
    },
}

/// What a broker's replicas go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRules {
    pub broker_id: i32,
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
}

/// The machine.
#[derive(Debug)]
pub struct PartitionState {
    rules: PartitionRules,
    role: Role,
    assignment: Option<Assignment>,
    local: LocalEnds,
    /// The other replicas.
    remote: BTreeMap<i32, RemoteReplica>,
    isr: IsrState,
    /// Where the log ended when the reign began.
    reign_start: Offset,
    /// The first of the reigns that followed each other without another leader.
    leads_since: LeaderEpoch,
    /// Numbers the proposals of this machine's life.
    proposals: u64,
}

impl PartitionState {
    pub fn new(rules: PartitionRules, local: LocalEnds) -> PartitionState {
        PartitionState {
            rules,
            role: Role::Undecided,
            assignment: None,
            local,
            remote: BTreeMap::new(),
            isr: IsrState::none(),
            reign_start: Offset::ZERO,
            leads_since: LeaderEpoch(0),
            proposals: 0,
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// The epoch of the present reign, whoever's it is.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.assignment.as_ref().map(|assignment| assignment.leader_epoch)
    }

    /// The in-sync replicas and what is under way with them; of a follower none.
    pub fn isr(&self) -> &IsrState {
        &self.isr
    }

    /// Where the log ended when this reign began; `None` on a follower.
    pub fn reign_start(&self) -> Option<Offset> {
        (self.role == Role::Leader).then_some(self.reign_start)
    }

    /// Whether this broker has led since that epoch without another leader in between, so that what it appended then is where it
    /// was.
    pub fn has_led_since(&self, epoch: LeaderEpoch) -> bool {
        self.role == Role::Leader && self.leads_since <= epoch
    }

    /// How far another replica came, as its last fetch in this reign told.
    pub fn remote(&self, replica: i32) -> Option<&RemoteReplica> {
        self.remote.get(&replica)
    }

    /// The other replicas, by id.
    pub fn remotes(&self) -> impl Iterator<Item = (i32, &RemoteReplica)> {
        self.remote.iter().map(|(id, replica)| (*id, replica))
    }

    pub fn step(&mut self, now: Duration, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::LeaderAndIsr { assignment, ends } => self.decide(now, assignment, ends, outputs),
            Input::LocalEndMoved(ends) => {
                let decided = self.local.high_watermark;
                self.local = ends;
                if self.role == Role::Leader {
                    // The log may not have heard yet of what was decided here; who joins must have all of it.
                    self.local.high_watermark = decided.max(ends.high_watermark);
                    // Or it is another log, which took the place of the one that had heard.
                    if decided > ends.high_watermark {
                        outputs.push(Output::AdvanceHighWatermark(decided));
                    }
                }
                self.advance(now, outputs);
            }
            Input::Fetched {
                replica,
                leader_epoch,
                fetch_offset,
                log_start_offset,
                leader_end,
                is_live,
            } => {
                if self.role != Role::Leader || self.leader_epoch() != Some(leader_epoch) {
                    return;
                }
                let Some(known) = self.remote.get_mut(&replica) else {
                    return;
                };
                if known.fetched(now, fetch_offset, log_start_offset, leader_end) {
                    outputs.push(Output::LowWatermarkMayHaveMoved);
                }
                if is_live {
                    self.expand(replica, fetch_offset, outputs);
                }
                self.advance(now, outputs);
            }
            Input::CheckIsr => self.shrink(now, outputs),
            Input::IsrAnswered { number, answer } => self.isr_answered(now, number, answer, outputs),
        }
    }

    fn decide(&mut self, now: Duration, assignment: Assignment, ends: LocalEnds, outputs: &mut Vec<Output>) {
        if let Some(known) = self.leader_epoch()
            && assignment.leader_epoch <= known
            && !planted::has(Bug::LeaderEpochIgnored)
        {
            outputs.push(Output::Stale { known });
            return;
        }
        let leads = assignment.leader == Some(self.rules.broker_id);
        // Epoch by epoch nobody else led in between.
        let leads_on = self.role == Role::Leader
            && leads
            && self.leader_epoch().map(|known| known.get() + 1) == Some(assignment.leader_epoch.get());
        self.local = ends;
        self.role = if leads { Role::Leader } else { Role::Follower };
        self.remote.retain(|id, _| assignment.replicas.contains(id));
        for id in assignment
            .replicas
            .iter()
            .filter(|id| **id != self.rules.broker_id)
        {
            let is_in_sync = assignment.isr.contains(id);
            let replica = self.remote.entry(*id).or_default();
            if !leads_on && !planted::has(Bug::FormerReignBelieved) {
                *replica = RemoteReplica::default();
            }
            replica.begin_reign(now, is_in_sync, ends.log_end);
        }
        if leads {
            if !leads_on {
                self.leads_since = assignment.leader_epoch;
            }
            self.reign_start = ends.log_end;
            self.isr = IsrState::committed(Arc::clone(&assignment.isr));
            outputs.push(Output::BeginReign(assignment.leader_epoch));
        } else {
            self.isr = IsrState::none();
        }
        self.assignment = Some(assignment);
        if self.has_strangers() {
            self.shrink(now, outputs);
        }
        self.advance(now, outputs);
    }

    /// Whether one is in sync that is no replica (KAFKA-9672).
    fn has_strangers(&self) -> bool {
        let mut in_sync = self.isr.known().iter();
        let counts = !planted::has(Bug::StrangersDoNotCount);
        counts && in_sync.any(|id| *id != self.rules.broker_id && !self.remote.contains_key(id))
    }

    fn advance(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.role != Role::Leader || self.has_strangers() {
            return;
        }
        let mut candidate = self.local.replicable_end;
        for (id, replica) in &self.remote {
            let counts = self.isr.may_contain(*id) || replica.is_caught_up(now, self.rules.lag_max);
            match replica.end() {
                Some(end) if counts => candidate = candidate.min(end),
                None if counts => return,
                _ => {}
            }
        }
        if candidate > self.local.high_watermark {
            self.local.high_watermark = candidate;
            outputs.push(Output::AdvanceHighWatermark(candidate));
        }
    }

    fn expand(&mut self, replica: i32, end: Offset, outputs: &mut Vec<Output>) {
        let joins = self.isr.may_change()
            && !self.isr.may_contain(replica)
            && end >= self.local.high_watermark
            && (end >= self.reign_start || planted::has(Bug::JoinsBeforeReignStart));
        if joins {
            self.propose(Some(replica), self.isr.with(replica), outputs);
        }
    }

    fn shrink(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.role != Role::Leader || !self.isr.may_change() {
            return;
        }
        let lags = |id: &i32| {
            let Some(replica) = self.remote.get(id) else {
                // That can only come from the tree.
                return *id != self.rules.broker_id;
            };
            replica.end() != Some(self.local.log_end) && !replica.is_caught_up(now, self.rules.lag_max)
        };
        let lagging: Vec<i32> = self.isr.known().iter().copied().filter(lags).collect();
        if !lagging.is_empty() {
            self.propose(None, self.isr.without(&lagging), outputs);
        }
    }

    fn propose(&mut self, joins: Option<i32>, isr: Arc<[i32]>, outputs: &mut Vec<Output>) {
        let assignment = self.assignment.as_ref().expect("a leader has an assignment");
        self.proposals += 1;
        let proposal = IsrProposal {
            number: self.proposals,
            leader_epoch: assignment.leader_epoch,
            controller_epoch: assignment.controller_epoch,
            isr,
            zk_version: assignment.zk_version,
        };
        self.isr.begin(joins, proposal.clone());
        outputs.push(Output::Propose(proposal));
    }

    fn isr_answered(&mut self, now: Duration, number: u64, answer: IsrAnswer, outputs: &mut Vec<Output>) {
        let Some(proposal) = self
            .isr
            .proposal()
            .filter(|proposal| proposal.number == number)
            .cloned()
        else {
            // A newer word of the controller came first.
            return;
        };
        match answer {
            IsrAnswer::Accepted {
                isr,
                leader_epoch,
                zk_version,
            } => {
                let assignment = self.assignment.as_mut().expect("a leader has an assignment");
                if leader_epoch != assignment.leader_epoch || zk_version < assignment.zk_version {
                    return;
                }
                let from = Arc::clone(self.isr.known());
                assignment.zk_version = zk_version;
                self.isr = IsrState::committed(Arc::clone(&isr));
                if from != isr {
                    outputs.push(Output::IsrChanged { from, to: isr });
                }
                self.advance(now, outputs);
            }
            IsrAnswer::Refused => {}
            IsrAnswer::Unknown => outputs.push(Output::Propose(proposal)),
        }
    }
}
