//! The states of a group and the transitions between them.
//!
//! ```text
//!                  first member joins                     joins are in, or the rebalance timeout
//!   ┌───────┐ ───────────────────────▶ ┌────────────────────┐ ───────────────────────▶ ┌─────────────────────┐
//!   │ Empty │                          │ PreparingRebalance │                          │ CompletingRebalance │
//!   └───────┘ ◀─────────────────────── └────────────────────┘ ◀─────────────────────── └─────────────────────┘
//!       │       all members are gone      ▲            │        member joins, leaves,         │
//!       │                                 │ same       │        fails or never syncs;         │ the leader's assignment
//!       │ deleted, or no offsets left     │ causes     │        assignment not stored         ▼ is stored
//!       ▼                                 │            │                                  ┌────────┐
//!   ┌──────┐                              └────────────┼───────────────────────────────── │ Stable │
//!   │ Dead │ ◀─────────────────────────────────────────┴───────────────────────────────── └────────┘
//!   └──────┘   the partition moved to another broker
//! ```
//!
//! Every other transition is a bug and is asserted. `Dead` is the last moment of a group in memory and the state in which
//! an unknown group is described. Source: `GroupState` in `GroupMetadata.scala`.

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// Collects JoinGroup requests; answers heartbeats and syncs with REBALANCE_IN_PROGRESS.
    PreparingRebalance,
    /// The generation is fixed; waits for the leader's assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
    /// Leaves memory with this step.
    Dead,
    /// No members; the group is remembered for its offsets.
    Empty,
}

impl GroupState {
    /// Kafka's name, as ListGroups and DescribeGroups send it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
            GroupState::Empty => "Empty",
        }
    }

    /// Whether a group in this state may move to `next`.
    pub fn may_become(self, next: GroupState) -> bool {
        use GroupState::*;
        match next {
            PreparingRebalance => matches!(self, Stable | CompletingRebalance | Empty),
            CompletingRebalance => self == PreparingRebalance,
            Stable => self == CompletingRebalance,
            Empty => self == PreparingRebalance,
            Dead => self != Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GroupState::{self, *};

    #[test]
    fn only_the_drawn_transitions_are_legal() {
        let all = [PreparingRebalance, CompletingRebalance, Stable, Dead, Empty];
        let legal = [
            (Empty, PreparingRebalance),
            (Stable, PreparingRebalance),
            (CompletingRebalance, PreparingRebalance),
            (PreparingRebalance, CompletingRebalance),
            (PreparingRebalance, Empty),
            (CompletingRebalance, Stable),
            (Empty, Dead),
            (PreparingRebalance, Dead),
            (CompletingRebalance, Dead),
            (Stable, Dead),
        ];
        for from in all {
            for to in all {
                assert_eq!(
                    GroupState::may_become(from, to),
                    legal.contains(&(from, to)),
                    "{from:?} -> {to:?}"
                );
            }
        }
    }
}
