//! Which replicas are in sync, and the changes of that under way.
//!
//! ```text
//!             a replica caught up                      accepted
//! Committed ─────────────────────▶ pending expansion ───────────▶ Committed
//!        │    replicas lag                      │       refused ─▶ pending until the next LeaderAndIsr
//!        └───────────────────────▶ pending shrinking ── unknown ─▶ proposed again
//! ```
//!
//! One change at a time. A replica that is about to join counts at once, one that is about to leave until that is confirmed: what
//! may be in sync by anybody's book holds the high watermark back. That is so too after a refusal: the change may have been written by
//! an earlier try, and the replica elected since. Source: `IsrState` in `Partition.scala`, KIP-497.
//!
//! **Deviation:** with `inter.broker.protocol.version` below 2.7-IV2 a 2.7.2 leader forgets a change that was not written, and tries the
//! next one on the same version of the state, in vain, until the controller's next word.

use std::sync::Arc;

use milena_engine::units::LeaderEpoch;

use crate::planted::{self, Bug};

/// A change of the in-sync replicas that somebody is to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// By which the answer finds its question.
    pub number: u64,
    pub leader_epoch: LeaderEpoch,
    /// Of the controller that made us leader.
    pub controller_epoch: i32,
    pub isr: Arc<[i32]>,
    /// The version of the state that is changed.
    pub zk_version: i32,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrAnswer {
    /// It stands in the tree, or did before.
    Accepted {
        isr: Arc<[i32]>,
        leader_epoch: LeaderEpoch,
        zk_version: i32,
    },
    /// The state is another by now; its writer tells it by a LeaderAndIsr.
    Refused,
    /// It may have been written or not: the same is proposed again.
    Unknown,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrState {
    /// As the tree has them, as far as is known.
    known: Arc<[i32]>,
    pending: Option<Pending>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    joins: Option<i32>,
    proposal: IsrProposal,
}

impl IsrState {
    pub(super) fn none() -> IsrState {
        IsrState::committed([].into())
    }

    pub(super) fn committed(isr: Arc<[i32]>) -> IsrState {
        IsrState {
            known: isr,
            pending: None,
        }
    }

    /// The in-sync replicas as the tree has them: what `min.insync.replicas` is compared with before an append.
    pub fn known(&self) -> &Arc<[i32]> {
        &self.known
    }

    /// How many may be in sync: what `min.insync.replicas` is compared with after an append.
    pub fn largest_count(&self) -> usize {
        let joins = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.joins.is_some());
        self.known.len() + usize::from(joins)
    }

    /// Whether a replica may be in sync by anybody's book.
    pub fn may_contain(&self, replica: i32) -> bool {
        if let Some(pending) = &self.pending {
            let leaves = pending.joins.is_none() && !pending.proposal.isr.contains(&replica);
            if leaves && planted::has(Bug::PendingLeaveCounts) {
                return false;
            }
            if pending.joins.is_some() && planted::has(Bug::PendingJoinDoesNotCount) {
                return self.known.contains(&replica);
            }
        }
        self.known.contains(&replica)
            || self
                .pending
                .as_ref()
                .is_some_and(|pending| pending.joins == Some(replica))
    }

    pub(super) fn may_change(&self) -> bool {
        self.pending.is_none()
    }

    pub(super) fn proposal(&self) -> Option<&IsrProposal> {
        self.pending.as_ref().map(|pending| &pending.proposal)
    }

    pub(super) fn with(&self, replica: i32) -> Arc<[i32]> {
        self.known.iter().copied().chain([replica]).collect()
    }

    pub(super) fn without(&self, leaving: &[i32]) -> Arc<[i32]> {
        let stays = |id: &i32| !leaving.contains(id);
        self.known.iter().copied().filter(stays).collect()
    }

    /// `joins` is the replica that the proposal adds.
    pub(super) fn begin(&mut self, joins: Option<i32>, proposal: IsrProposal) {
        self.pending = Some(Pending { joins, proposal });
    }
}
