//! Who becomes leader: pure choices from an assignment, the in-sync replicas and who is alive.
//!
//! Source: `PartitionLeaderElectionAlgorithms`, `Election`.

use std::sync::Arc;

use milena_engine::units::LeaderEpoch;

use super::context::Standing;
use crate::cluster::LeaderAndIsr;
use crate::planted::{self, Bug};

/// Why a leader is elected, which decides who may become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionStrategy {
    /// The leader is gone: the first assigned replica that is online and in sync; if none is and the topic or who asks allows
    /// it, the first that is online.
    OfflinePartition { allow_unclean: bool },
    /// The first of the target replicas that is online and in sync.
    ReassignPartition,
    /// The first of the assignment, if it is online and in sync.
    PreferredReplica,
    /// The first assigned replica that is in sync and whose broker stays; those that shut down leave the in-sync set.
    ControlledShutdown,
}

/// The new leader and in-sync replicas; `None` if no one may lead. `assignment` is the target's in a reassignment.
///
/// **Deviation:** ids that are no replicas of the partition leave the in-sync set with each new epoch (KAFKA-9672). In 2.7.2 they stay
/// until they are removed for another reason; at the end of a reassignment those that go are in sync for a while, and no leader waits
/// for them, so that a controller that takes over then may elect one that misses what was acknowledged meanwhile.
pub fn elect(
    strategy: ElectionStrategy,
    assignment: &[i32],
    present: &LeaderAndIsr,
    standing: impl Fn(i32) -> Standing,
) -> Option<LeaderAndIsr> {
    use ElectionStrategy::{ControlledShutdown, OfflinePartition, PreferredReplica, ReassignPartition};
    let is_online = |id: &i32| standing(*id) == Standing::Online;
    let in_sync = |id: &i32| is_online(id) && present.isr.contains(id);
    let clean = match strategy {
        PreferredReplica => assignment.first().copied().filter(in_sync),
        OfflinePartition { .. } | ReassignPartition | ControlledShutdown => {
            assignment.iter().copied().find(in_sync)
        }
    };
    let is_replica = |id: &i32| assignment.contains(id) || planted::has(Bug::StrangersDoNotCount);
    let in_sync = present.isr.iter().copied().filter(is_replica);
    let (leader, isr): (i32, Vec<i32>) = match (clean, strategy) {
        (Some(leader), PreferredReplica | ReassignPartition) => (leader, in_sync.collect()),
        (Some(leader), OfflinePartition { .. }) => (leader, in_sync.filter(is_online).collect()),
        (Some(leader), ControlledShutdown) => {
            let stays = |id: &i32| standing(*id) != Standing::ShuttingDown;
            (leader, in_sync.filter(stays).collect())
        }
        (None, OfflinePartition { allow_unclean }) if allow_unclean => {
            let leader = assignment.iter().copied().find(is_online)?;
            (leader, vec![leader])
        }
        (None, _) => return None,
    };
    Some(changed(present, Some(leader), isr))
}

/// The state after replicas went down: without them in the in-sync set, without a leader if it led. The last one stays in the
/// set, the leader if all of them are gone.
pub fn without(gone: &[i32], present: &LeaderAndIsr) -> LeaderAndIsr {
    let stays = |id: &i32| !gone.contains(id);
    let mut isr: Vec<i32> = present.isr.iter().copied().filter(stays).collect();
    if isr.is_empty() {
        let led = present.leader.filter(|leader| present.isr.contains(leader));
        isr.extend(led.or_else(|| present.isr.first().copied()));
    }
    changed(present, present.leader.filter(stays), isr)
}

/// The state after replicas were found to have come back unseen: without them. Where nobody else in sync is online one of those stays
/// alone, the leader if it can: it would be waited for in vain otherwise.
pub fn without_returned(
    returned: &[i32],
    present: &LeaderAndIsr,
    is_online: impl Fn(&i32) -> bool,
) -> LeaderAndIsr {
    let online = || present.isr.iter().copied().filter(&is_online);
    let led = online().find(|id| present.leader == Some(*id));
    match led.or_else(|| online().next()) {
        // Who is not in sync does not lead, though it is not known yet that it is down.
        Some(stays) if online().all(|id| returned.contains(&id)) => changed(present, None, vec![stays]),
        _ => without(returned, present),
    }
}

/// The same leader in a new epoch, and of the in-sync replicas those that are replicas still, if any is.
pub fn in_new_epoch(assignment: &[i32], present: &LeaderAndIsr) -> LeaderAndIsr {
    let is_replica = |id: &i32| assignment.contains(id) || planted::has(Bug::StrangersDoNotCount);
    let mut isr = present.isr.to_vec();
    if isr.iter().any(is_replica) {
        isr.retain(is_replica);
    }
    changed(present, present.leader, isr)
}

fn changed(present: &LeaderAndIsr, leader: Option<i32>, isr: Vec<i32>) -> LeaderAndIsr {
    let isr = if isr[..] == present.isr[..] {
        Arc::clone(&present.isr)
    } else {
        isr.into()
    };
    LeaderAndIsr {
        leader,
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
    fn of_those_who_came_back_one_stays_where_nobody_else_in_sync_is_online() {
        for (leader, online, stays, leads) in [
            (1, &[1, 2][..], &[1][..], None),
            (3, &[1, 2], &[1], None),
            (2, &[2], &[2], None),
            (1, &[1, 2, 3], &[3], None),
            (3, &[1, 2, 3], &[3], Some(3)),
            (1, &[], &[3], None),
        ] {
            let found = without_returned(&[1, 2], &state(Some(leader), &[1, 2, 3]), |id| {
                online.contains(id)
            });
            assert_eq!(
                (&found.isr[..], found.leader),
                (stays, leads),
                "{leader}, {online:?}"
            );
            assert_eq!(found.leader_epoch, LeaderEpoch(5));
        }
    }

    #[test]
    fn an_election_follows_its_table() {
        use ElectionStrategy::{ControlledShutdown, OfflinePartition, PreferredReplica, ReassignPartition};
        let offline = OfflinePartition { allow_unclean: false };
        let asked = OfflinePartition { allow_unclean: true };
        // strategy, assignment, in sync, online, shutting down -> leader and in-sync replicas
        type Ids = &'static [i32];
        type Row = (ElectionStrategy, Ids, Ids, Ids, Ids, Option<(i32, Ids)>);
        let table: &[Row] = &[
            (offline, &[1, 2, 3], &[1, 2], &[2, 3], &[], Some((2, &[2]))),
            (offline, &[1, 2, 3], &[3, 2], &[2, 3], &[], Some((2, &[3, 2]))),
            (offline, &[1, 2, 3], &[1], &[2, 3], &[], None),
            (asked, &[1, 2, 3], &[1], &[3, 2], &[], Some((2, &[2]))),
            (asked, &[1], &[1], &[], &[], None),
            (offline, &[1, 2], &[1, 2], &[2], &[1], Some((2, &[2]))),
            (offline, &[1, 2], &[9, 2], &[2, 9], &[], Some((2, &[2]))),
            (offline, &[1, 2], &[9], &[1, 2, 9], &[], None),
            (
                PreferredReplica,
                &[1, 2],
                &[2, 1],
                &[1, 2],
                &[],
                Some((1, &[2, 1])),
            ),
            (PreferredReplica, &[1, 2], &[2], &[1, 2], &[], None),
            (PreferredReplica, &[1, 2], &[1, 2], &[2], &[], None),
            (
                ReassignPartition,
                &[4, 5],
                &[1, 5, 4],
                &[1, 5],
                &[],
                Some((5, &[5, 4])),
            ),
            (ReassignPartition, &[4, 5], &[1, 4], &[1, 5], &[], None),
            (
                ControlledShutdown,
                &[1, 2, 3],
                &[1, 2, 3],
                &[2],
                &[1],
                Some((2, &[2, 3])),
            ),
            (ControlledShutdown, &[1, 2], &[1, 2], &[], &[1, 2], None),
            (ControlledShutdown, &[1, 2], &[1], &[2], &[1], None),
        ];
        for (strategy, assignment, isr, online, shutting_down, expected) in table {
            let standing = |id| match (online.contains(&id), shutting_down.contains(&id)) {
                (true, _) => Standing::Online,
                (false, true) => Standing::ShuttingDown,
                (false, false) => Standing::Offline,
            };
            let elected = elect(*strategy, assignment, &state(Some(8), isr), standing);
            let found = elected
                .as_ref()
                .map(|elected| (elected.leader.unwrap(), &elected.isr[..]));
            assert_eq!(found, *expected, "{strategy:?} {assignment:?} {isr:?} {online:?}");
            if let Some(elected) = elected {
                assert_eq!((elected.leader_epoch, elected.zk_version), (LeaderEpoch(5), 9));
            }
        }
    }

    #[test]
    fn the_last_in_sync_replica_stays_but_leads_no_more() {
        let after = without(&[1], &state(Some(1), &[1]));
        assert_eq!((after.leader, &after.isr[..]), (None, &[1][..]));
        let after = without(&[2], &state(Some(1), &[1, 2]));
        assert_eq!((after.leader, &after.isr[..]), (Some(1), &[1][..]));
        assert_eq!(after.leader_epoch, LeaderEpoch(5));
        let after = without(&[1, 2, 3], &state(Some(2), &[1, 2, 3]));
        assert_eq!(
            (after.leader, &after.isr[..]),
            (None, &[2][..]),
            "the leader knows most"
        );
    }
}
