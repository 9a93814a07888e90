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
//! the same refusal). A leader's high watermark is the least log end of its in-sync replicas and never falls within an epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_engine::units::{LeaderEpoch, Offset};

/// What the controller said of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// `None` while the partition has no leader.
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    LeaderAndIsr(Assignment),
    /// The local log's share of the high watermark is now this: its end, or its synced end where acknowledgements are synced.
    LocalEndMoved(Offset),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A reign begins: the log notes the epoch at its present end.
    BeginReign(LeaderEpoch),
    AdvanceHighWatermark(Offset),
    /// The controller's word is not newer than what is known (STALE_CONTROLLER_EPOCH).
    Stale {
        known: LeaderEpoch,
    },
}

/// The machine.
#[derive(Debug)]
pub struct PartitionState {
    broker_id: i32,
    role: Role,
    assignment: Option<Assignment>,
    local_end: Offset,
    /// Log ends of the other replicas, as their fetches told.
    remote_ends: BTreeMap<i32, Offset>,
    high_watermark: Offset,
}

impl PartitionState {
    pub fn new(broker_id: i32, local_end: Offset, high_watermark: Offset) -> PartitionState {
        PartitionState {
            broker_id,
            role: Role::Undecided,
            assignment: None,
            local_end,
            remote_ends: BTreeMap::new(),
            high_watermark,
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

    pub fn step(&mut self, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::LeaderAndIsr(assignment) => self.decide(assignment, outputs),
            Input::LocalEndMoved(end) => {
                self.local_end = end;
                self.advance(outputs);
            }
        }
    }

    fn decide(&mut self, assignment: Assignment, outputs: &mut Vec<Output>) {
        if let Some(known) = self.leader_epoch()
            && assignment.leader_epoch <= known
        {
            outputs.push(Output::Stale { known });
            return;
        }
        let leads = assignment.leader == Some(self.broker_id);
        if leads {
            outputs.push(Output::BeginReign(assignment.leader_epoch));
        }
        self.role = if leads { Role::Leader } else { Role::Follower };
        self.remote_ends
            .retain(|replica, _| assignment.replicas.contains(replica));
        self.assignment = Some(assignment);
        self.advance(outputs);
    }

    fn advance(&mut self, outputs: &mut Vec<Output>) {
        let Some(assignment) = &self.assignment else {
            return;
        };
        if self.role != Role::Leader {
            return;
        }
        let remote_floor = assignment
            .isr
            .iter()
            .filter(|replica| **replica != self.broker_id)
            .map(|replica| self.remote_ends.get(replica).copied().unwrap_or(Offset::ZERO))
            .min();
        let candidate = remote_floor.map_or(self.local_end, |floor| floor.min(self.local_end));
        if candidate > self.high_watermark {
            self.high_watermark = candidate;
            outputs.push(Output::AdvanceHighWatermark(candidate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(leader: i32, epoch: i32, isr: &[i32]) -> Input {
        Input::LeaderAndIsr(Assignment {
            leader: Some(leader),
            leader_epoch: LeaderEpoch(epoch),
            isr: isr.into(),
            replicas: isr.into(),
            zk_version: 0,
        })
    }

    fn check(state: &mut PartitionState, input: Input, expected: &[Output]) {
        let mut outputs = Vec::new();
        state.step(input, &mut outputs);
        assert_eq!(outputs, expected);
    }

    #[test]
    fn a_sole_replica_moves_the_high_watermark_with_its_log_end() {
        let mut state = PartitionState::new(1, Offset(5), Offset(3));
        check(
            &mut state,
            assignment(1, 0, &[1]),
            &[
                Output::BeginReign(LeaderEpoch(0)),
                Output::AdvanceHighWatermark(Offset(5)),
            ],
        );
        check(
            &mut state,
            Input::LocalEndMoved(Offset(8)),
            &[Output::AdvanceHighWatermark(Offset(8))],
        );
        check(&mut state, Input::LocalEndMoved(Offset(8)), &[]);
    }

    #[test]
    fn an_epoch_that_is_not_newer_is_stale() {
        let mut state = PartitionState::new(1, Offset(0), Offset(0));
        check(
            &mut state,
            assignment(1, 4, &[1]),
            &[Output::BeginReign(LeaderEpoch(4))],
        );
        for epoch in [4, 3] {
            check(
                &mut state,
                assignment(1, epoch, &[1]),
                &[Output::Stale {
                    known: LeaderEpoch(4),
                }],
            );
        }
    }

    #[test]
    fn a_leader_waits_for_its_in_sync_replicas_and_a_follower_decides_nothing() {
        let mut state = PartitionState::new(1, Offset(9), Offset(0));
        check(
            &mut state,
            assignment(1, 0, &[1, 2]),
            &[Output::BeginReign(LeaderEpoch(0))],
        );
        check(&mut state, Input::LocalEndMoved(Offset(12)), &[]);
        check(&mut state, assignment(2, 1, &[1, 2]), &[]);
        assert_eq!(state.role(), Role::Follower);
        check(&mut state, Input::LocalEndMoved(Offset(14)), &[]);
    }
}
