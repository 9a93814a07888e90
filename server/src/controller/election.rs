//! Who becomes leader: pure choices from an assignment, the in-sync replicas and who is alive.
//!
//! Source: `PartitionLeaderElectionAlgorithms`, `Election`.

use std::sync::Arc;

use milena_engine::units::LeaderEpoch;

use crate::cluster::LeaderAndIsr;

/// Why a leader is elected, which decides who may become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionStrategy {
    /// The leader is gone: the first assigned replica that is alive and in sync; if none is and the topic allows it, the first
    /// that is alive.
    OfflinePartition,
    /// The first of the assignment, if it is alive and in sync.
    PreferredReplica,
}

/// The new leader and in-sync replicas; `None` if no one may lead.
pub fn elect(
    strategy: ElectionStrategy,
    assignment: &[i32],
    present: &LeaderAndIsr,
    is_online: impl Fn(i32) -> bool,
    unclean_allowed: bool,
) -> Option<LeaderAndIsr> {
    let in_sync = |id: &i32| is_online(*id) && present.isr.contains(id);
    let clean = match strategy {
        ElectionStrategy::OfflinePartition => assignment.iter().copied().find(in_sync),
        ElectionStrategy::PreferredReplica => assignment.first().copied().filter(in_sync),
    };
    let (leader, isr) = match (clean, strategy) {
        (Some(leader), _) => {
            let stays = |id: &i32| strategy == ElectionStrategy::PreferredReplica || is_online(*id);
            let isr: Vec<i32> = present.isr.iter().copied().filter(stays).collect();
            (leader, isr)
        }
        (None, ElectionStrategy::OfflinePartition) if unclean_allowed => {
            let leader = assignment.iter().copied().find(|id| is_online(*id))?;
            (leader, vec![leader])
        }
        _ => return None,
    };
    let isr = if isr[..] == present.isr[..] {
        Arc::clone(&present.isr)
    } else {
        isr.into()
    };
    let leader_epoch = LeaderEpoch(present.leader_epoch.get() + 1);
    Some(LeaderAndIsr {
        leader: Some(leader),
        leader_epoch,
        isr,
        zk_version: present.zk_version,
    })
}

/// The state after a replica went down: without it in the in-sync set (but for the last one), without a leader if it led.
pub fn without(replica: i32, present: &LeaderAndIsr) -> LeaderAndIsr {
    let isr: Arc<[i32]> = if present.isr.len() == 1 {
        Arc::clone(&present.isr)
    } else {
        present.isr.iter().copied().filter(|id| *id != replica).collect()
    };
    LeaderAndIsr {
        leader: present.leader.filter(|leader| *leader != replica),
        leader_epoch: LeaderEpoch(present.leader_epoch.get() + 1),
        isr,
        zk_version: present.zk_version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(leader: Option<i32>, isr: &[i32]) -> LeaderAndIsr {
        LeaderAndIsr {
            leader,
            leader_epoch: LeaderEpoch(4),
            isr: isr.into(),
            zk_version: 9,
        }
    }

    #[test]
    fn an_election_follows_its_table() {
        use ElectionStrategy::{OfflinePartition, PreferredReplica};
        // strategy, assignment, in sync, alive, unclean allowed -> leader and in-sync replicas
        type Row = (
            ElectionStrategy,
            &'static [i32],
            &'static [i32],
            &'static [i32],
            bool,
            Option<(i32, &'static [i32])>,
        );
        let table: &[Row] = &[
            (
                OfflinePartition,
                &[1, 2, 3],
                &[1, 2],
                &[2, 3],
                false,
                Some((2, &[2])),
            ),
            (
                OfflinePartition,
                &[1, 2, 3],
                &[3, 2],
                &[2, 3],
                false,
                Some((2, &[3, 2])),
            ),
            (OfflinePartition, &[1, 2, 3], &[1], &[2, 3], false, None),
            (OfflinePartition, &[1, 2, 3], &[1], &[3, 2], true, Some((2, &[2]))),
            (OfflinePartition, &[1], &[1], &[], true, None),
            (
                PreferredReplica,
                &[1, 2],
                &[2, 1],
                &[1, 2],
                false,
                Some((1, &[2, 1])),
            ),
            (PreferredReplica, &[1, 2], &[2], &[1, 2], true, None),
            (PreferredReplica, &[1, 2], &[1, 2], &[2], true, None),
        ];
        for (strategy, assignment, isr, alive, unclean, expected) in table {
            let elected = elect(
                *strategy,
                assignment,
                &state(None, isr),
                |id| alive.contains(&id),
                *unclean,
            );
            let found = elected
                .as_ref()
                .map(|elected| (elected.leader.unwrap(), &elected.isr[..]));
            assert_eq!(
                found, *expected,
                "{strategy:?} {assignment:?} {isr:?} {alive:?} {unclean}"
            );
            if let Some(elected) = elected {
                assert_eq!((elected.leader_epoch, elected.zk_version), (LeaderEpoch(5), 9));
            }
        }
    }

    #[test]
    fn the_last_in_sync_replica_stays_but_leads_no_more() {
        let after = without(1, &state(Some(1), &[1]));
        assert_eq!((after.leader, &after.isr[..]), (None, &[1][..]));
        let after = without(2, &state(Some(1), &[1, 2]));
        assert_eq!((after.leader, &after.isr[..]), (Some(1), &[1][..]));
        assert_eq!(after.leader_epoch, LeaderEpoch(5));
    }
}
