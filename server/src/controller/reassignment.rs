//! The arithmetic of moving replicas (KIP-455): who comes, who goes, and what an assignment looks like on the way.
//!
//! On the way a partition has the target's replicas first, then those that go. Pure; the steps are in
//! [`super::machine`]. Source class: `ReplicaAssignment`.

use std::sync::Arc;

use crate::coordination::znodes::ReplicaAssignment;

impl ReplicaAssignment {
    /// The replicas before the move.
    pub fn origin_replicas(&self) -> Arc<[i32]> {
        minus(&self.replicas, &self.adding_replicas)
    }

    /// The replicas after the move, the preferred one first.
    pub fn target_replicas(&self) -> Arc<[i32]> {
        minus(&self.replicas, &self.removing_replicas)
    }

    /// On the way to `target`, from where the present move began.
    pub fn reassign_to(&self, target: &[i32]) -> ReplicaAssignment {
        let origin = self.origin_replicas();
        let going = origin.iter().filter(|id| !target.contains(id));
        let replicas: Vec<i32> = target.iter().chain(going).copied().collect();
        ReplicaAssignment {
            adding_replicas: minus(&replicas, &origin),
            removing_replicas: minus(&replicas, target),
            replicas: replicas.into(),
        }
    }
}

fn minus(ids: &[i32], without: &[i32]) -> Arc<[i32]> {
    ids.iter().copied().filter(|id| !without.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(assignment: &ReplicaAssignment) -> [&[i32]; 3] {
        [
            &assignment.replicas,
            &assignment.adding_replicas,
            &assignment.removing_replicas,
        ]
    }

    #[test]
    fn on_the_way_the_target_comes_first_then_those_that_go() {
        let start = ReplicaAssignment::new([1, 2, 3]);
        let moving = start.reassign_to(&[3, 4, 2]);
        assert_eq!(lists(&moving), [&[3, 4, 2, 1][..], &[4], &[1]]);
        assert_eq!(moving.target_replicas()[..], [3, 4, 2]);
        assert_eq!(moving.origin_replicas()[..], [3, 2, 1], "the order is lost");
        let elsewhere = moving.reassign_to(&[5, 2]);
        assert_eq!(lists(&elsewhere), [&[5, 2, 3, 1][..], &[5], &[3, 1]]);
        let back = moving.reassign_to(&moving.origin_replicas());
        assert_eq!(lists(&back), [&[3, 2, 1][..], &[], &[]]);
        assert!(!back.is_being_reassigned());
    }
}
