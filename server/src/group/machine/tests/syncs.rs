//! SyncGroup, Heartbeat, LeaveGroup and sessions.

use super::super::*;
use super::dialogue::*;

#[test]
fn followers_wait_for_the_leader_and_all_for_the_log() {
    let mut d = Dialogue::new();
    let (one, two) = (d.join(join("a")), d.join(join("b")));
    d.pass(10_000);
    let (one, two) = (d.joined(one), d.joined(two));
    d.stores_at_once = false;
    let follower = d.sync(&two.member_id, 1, &[]);
    assert!(d.appends.is_empty());
    let leader = d.sync(&one.member_id, 1, &[(&two.member_id, "second")]);
    assert_eq!(d.appends.len(), 1);
    assert!(d.waits(follower) && d.waits(leader));
    assert_eq!(d.state(), GroupState::CompletingRebalance);
    d.store();
    assert_eq!(d.state(), GroupState::Stable);
    assert_eq!(d.assignment(leader), "", "the leader forgot itself");
    let synced = d.synced(follower).expect("an assignment");
    assert_eq!(synced.assignment, "second");
    assert_eq!(
        (synced.protocol_type.as_deref(), synced.protocol_name.as_deref()),
        (Some("consumer"), Some("range"))
    );
    let later = d.sync(&two.member_id, 1, &[]);
    assert_eq!(d.assignment(later), "second");
}

#[test]
fn an_assignment_that_cannot_be_stored_is_an_error_for_all_and_a_new_rebalance() {
    let cases = [
        (
            AppendFailure::UnknownTopicOrPartition,
            GroupError::CoordinatorNotAvailable,
        ),
        (
            AppendFailure::NotEnoughReplicas,
            GroupError::CoordinatorNotAvailable,
        ),
        (
            AppendFailure::NotEnoughReplicasAfterAppend,
            GroupError::CoordinatorNotAvailable,
        ),
        (AppendFailure::NotLeader, GroupError::NotCoordinator),
        (AppendFailure::Storage, GroupError::NotCoordinator),
        (AppendFailure::TimedOut, GroupError::RebalanceInProgress),
        (AppendFailure::TooLarge, GroupError::UnknownServerError),
        (AppendFailure::Other("odd".into()), GroupError::UnknownServerError),
    ];
    for (failure, error) in cases {
        let mut d = Dialogue::new();
        let (one, two) = (d.join(join("a")), d.join(join("b")));
        d.pass(10_000);
        let (one, two) = (d.joined(one), d.joined(two));
        d.stores_at_once = false;
        let follower = d.sync(&two.member_id, 1, &[]);
        let leader = d.sync(&one.member_id, 1, &[]);
        d.fail(failure);
        assert_eq!(d.synced(follower), Err(error));
        assert_eq!(d.synced(leader), Err(error));
        assert_eq!(d.state(), GroupState::PreparingRebalance);
    }
}

#[test]
fn a_result_asks_for_no_append_and_leaves_what_is_due_to_the_tick() {
    let mut d = Dialogue::new();
    d.stable_member();
    d.stores_at_once = false;
    let mut request = simple_commit(5, d.wall());
    request.group_id = "other".into();
    let token = d.commit(request);
    // The session of the only member ends meanwhile, which is to be stored.
    d.now_ms += 10_000;
    d.store();
    assert_eq!(
        d.committed(token),
        [Ok(())],
        "its deadline has not passed for the machine"
    );
    assert_eq!((d.state(), d.appends.len()), (GroupState::Stable, 0));
    assert!(d.machine.next_deadline().is_some_and(|at| at <= d.now_ms));
    d.step(Input::Tick);
    assert_eq!((d.state(), d.appends.len()), (GroupState::Empty, 1));
}

#[test]
fn a_log_that_never_answers_ends_the_syncs_after_the_commit_timeout() {
    let mut d = Dialogue::new();
    let token = d.join(join("a"));
    d.pass(3_000);
    let joined = d.joined(token);
    d.stores_at_once = false;
    let token = d.sync(&joined.member_id, 1, &[]);
    d.pass(4_999);
    assert!(d.waits(token));
    d.pass(1);
    assert_eq!(d.synced(token), Err(GroupError::RebalanceInProgress));
    assert_eq!(d.state(), GroupState::PreparingRebalance);
    d.store();
    assert_eq!(d.state(), GroupState::PreparingRebalance, "too late");
}

#[test]
fn a_rebalance_during_the_append_makes_its_result_meaningless() {
    let mut d = Dialogue::new();
    let token = d.join(join("a"));
    d.pass(3_000);
    let joined = d.joined(token);
    d.stores_at_once = false;
    let token = d.sync(&joined.member_id, 1, &[]);
    d.join(join("b"));
    assert_eq!(d.synced(token), Err(GroupError::RebalanceInProgress));
    d.store();
    assert_eq!(d.state(), GroupState::PreparingRebalance);
}

#[test]
fn the_assignment_of_an_older_generation_never_makes_a_newer_one_stable() {
    let mut d = Dialogue::new();
    let token = d.join(join("a"));
    d.pass(3_000);
    let member_id = d.joined(token).member_id;
    d.stores_at_once = false;
    let old = d.sync(&member_id, 1, &[(&member_id, "old")]);
    let token = d.join(JoinGroup {
        protocols: protocols(&["range", "new"]),
        ..rejoin(&member_id)
    });
    assert_eq!(d.synced(old), Err(GroupError::RebalanceInProgress));
    assert_eq!(d.joined(token).generation_id, 2);
    let new = d.sync(&member_id, 2, &[(&member_id, "new")]);
    d.store();
    assert_eq!(d.state(), GroupState::CompletingRebalance);
    assert!(d.waits(new));
    d.store();
    assert_eq!(d.assignment(new), "new");
}

#[test]
fn syncs_of_the_leader_during_the_append_wait_for_that_append() {
    let mut d = Dialogue::new();
    let token = d.join(join("a"));
    d.pass(3_000);
    let joined = d.joined(token);
    d.stores_at_once = false;
    let first = d.sync(&joined.member_id, 1, &[(&joined.member_id, "one")]);
    let second = d.sync(&joined.member_id, 1, &[(&joined.member_id, "two")]);
    assert_eq!(d.synced(first), Err(GroupError::RebalanceInProgress), "replaced");
    assert_eq!(d.appends.len(), 1);
    d.store();
    assert_eq!(d.assignment(second), "one", "what the log has");
}

#[test]
fn syncs_are_refused_with_the_errors_of_kafka() {
    type Change = fn(&mut SyncGroup);
    let cases: &[(&str, Change, GroupError)] = &[
        (
            "no group id",
            |r| r.group_id = "".into(),
            GroupError::InvalidGroupId,
        ),
        (
            "unknown group",
            |r| r.group_id = "other".into(),
            GroupError::UnknownMemberId,
        ),
        (
            "unknown member",
            |r| r.member_id = "who".into(),
            GroupError::UnknownMemberId,
        ),
        (
            "another generation",
            |r| r.generation_id = 2,
            GroupError::IllegalGeneration,
        ),
        (
            "another type",
            |r| r.protocol_type = Some("connect".into()),
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "another protocol",
            |r| r.protocol_name = Some("odd".into()),
            GroupError::InconsistentGroupProtocol,
        ),
    ];
    for (what, change, error) in cases {
        let mut d = Dialogue::new();
        let member_id = d.stable_member();
        let mut request = sync(&member_id, 1, &[]);
        change(&mut request);
        let token = d.ask(|token| Input::Sync { token, request });
        assert_eq!(d.synced(token), Err(*error), "{what}");
    }
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    d.join(join("b"));
    let token = d.sync(&member_id, 1, &[]);
    assert_eq!(d.synced(token), Err(GroupError::RebalanceInProgress));
    let mut request = sync(&member_id, 1, &[]);
    (request.protocol_type, request.protocol_name) = (Some("consumer".into()), Some("range".into()));
    let mut d = Dialogue::new();
    d.stable_member();
    let token = d.ask(|token| Input::Sync { token, request });
    assert_eq!(d.assignment(token), "all");
}

#[test]
fn heartbeats_are_answered_by_the_state_of_the_group() {
    let mut d = Dialogue::new();
    assert_eq!(
        d.heartbeat("who", 1),
        Err(GroupError::UnknownMemberId),
        "no group"
    );
    let token = d.join(join("a"));
    d.pass(3_000);
    let member_id = d.joined(token).member_id;
    assert_eq!(d.heartbeat(&member_id, 1), Ok(()), "CompletingRebalance");
    let token = d.sync(&member_id, 1, &[]);
    d.assignment(token);
    assert_eq!(d.heartbeat(&member_id, 1), Ok(()), "Stable");
    assert_eq!(d.heartbeat(&member_id, 0), Err(GroupError::IllegalGeneration));
    assert_eq!(d.heartbeat("who", 1), Err(GroupError::UnknownMemberId));
    d.join(join("b"));
    assert_eq!(
        d.heartbeat(&member_id, 1),
        Err(GroupError::RebalanceInProgress),
        "PreparingRebalance"
    );
    let request = Heartbeat {
        group_id: "".into(),
        member_id,
        group_instance_id: None,
        generation_id: 1,
    };
    let token = d.ask(|token| Input::Heartbeat { token, request });
    assert_eq!(
        d.answer(token),
        Answer::Heartbeat(Err(GroupError::InvalidGroupId))
    );
}

#[test]
fn a_silent_member_is_removed_when_its_session_ends_and_heartbeats_prolong_it() {
    let mut d = Dialogue::new();
    let (leader, follower) = d.stable_pair();
    d.pass(6_000);
    assert_eq!(d.heartbeat(&leader, 1), Ok(()));
    d.pass(3_999);
    assert_eq!(d.state(), GroupState::Stable);
    d.pass(1);
    assert_eq!(d.state(), GroupState::PreparingRebalance);
    assert_eq!(d.members(), [leader]);
    assert_eq!(d.heartbeat(&follower, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_heartbeat_that_comes_together_with_the_end_of_its_session_counts() {
    let mut d = Dialogue::new();
    let leader = d.stable_member();
    d.now_ms += 10_000;
    assert_eq!(d.heartbeat(&leader, 1), Ok(()));
    assert_eq!(d.state(), GroupState::Stable);
}

#[test]
fn members_that_wait_for_us_do_not_lose_their_session() {
    let mut d = Dialogue::new();
    let (leader, follower) = d.stable_pair();
    let joining = d.join(JoinGroup {
        protocols: protocols(&["range", "new"]),
        ..rejoin(&follower)
    });
    for _ in 0..4 {
        d.pass(9_000);
        assert_eq!(d.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
    }
    assert!(d.waits(joining), "36 s after a session of 10 s");
    let token = d.join(rejoin(&leader));
    d.joined(token);
    d.joined(joining);
    // As follower, waiting for an assignment that takes long.
    let waiting = d.sync(&follower, 2, &[]);
    for _ in 0..4 {
        d.pass(9_000);
        assert_eq!(d.heartbeat(&leader, 2), Ok(()));
    }
    let token = d.sync(&leader, 2, &[]);
    d.assignment(token);
    d.assignment(waiting);
    d.pass(9_999);
    assert_eq!(
        d.state(),
        GroupState::Stable,
        "the session runs again from the answer"
    );
}

#[test]
fn a_leader_that_never_syncs_is_removed_after_the_rebalance_timeout_though_it_heartbeats() {
    let mut d = Dialogue::new();
    let (one, two) = (d.join(join("a")), d.join(join("b")));
    d.pass(10_000);
    let (one, two) = (d.joined(one), d.joined(two));
    let waiting = d.sync(&two.member_id, 1, &[]);
    for _ in 0..10 {
        d.pass(5_000);
        assert_eq!(d.heartbeat(&one.member_id, 1), Ok(()));
    }
    assert!(d.waits(waiting));
    d.pass(5_000);
    assert_eq!(
        d.heartbeat(&one.member_id, 1),
        Ok(()),
        "59 s into a generation with a timeout of 60 s"
    );
    d.pass(1_000);
    assert_eq!(d.synced(waiting), Err(GroupError::RebalanceInProgress));
    assert_eq!(d.heartbeat(&one.member_id, 1), Err(GroupError::UnknownMemberId));
    let token = d.join(rejoin(&two.member_id));
    assert_eq!(d.joined(token).generation_id, 2);
}

#[test]
fn a_follower_that_never_syncs_is_removed_from_a_stable_group() {
    let mut d = Dialogue::new();
    let (one, two) = (d.join(join("a")), d.join(join("b")));
    d.pass(10_000);
    let (one, two) = (d.joined(one), d.joined(two));
    let token = d.sync(&one.member_id, 1, &[]);
    d.assignment(token);
    for _ in 0..11 {
        d.pass(5_000);
        assert_eq!(d.heartbeat(&one.member_id, 1), Ok(()));
        assert_eq!(d.heartbeat(&two.member_id, 1), Ok(()));
    }
    d.pass(5_000);
    assert_eq!(d.members(), [one.member_id.to_string()]);
    assert_eq!(d.state(), GroupState::PreparingRebalance);
}

#[test]
fn leaving_members_are_judged_one_by_one() {
    let mut d = Dialogue::new();
    let one = d.join(join("a"));
    let two = d.join(join_as("i"));
    let three = d.join(join_as("j"));
    d.pass(10_000);
    let (one, two, _) = (d.joined(one), d.joined(two), d.joined(three));
    let token = d.join(JoinGroup {
        require_known_member_id: true,
        ..join("d")
    });
    let (_, pending) = d.join_refusal(token);
    let results = d.leave(&[
        ("who", None),
        ("who", Some("i")),
        (&two.member_id, Some("i")),
        ("", Some("j")),
        ("", Some("nobody")),
        (&pending, None),
        (&one.member_id, None),
        (&one.member_id, None),
    ]);
    let expected = vec![
        Err(GroupError::UnknownMemberId),
        Err(GroupError::FencedInstanceId),
        Ok(()),
        Ok(()),
        Err(GroupError::UnknownMemberId),
        Ok(()),
        Ok(()),
        Err(GroupError::UnknownMemberId),
    ];
    assert_eq!(results, Ok(expected));
    assert_eq!(d.state(), GroupState::Empty);
    let token = d.join(rejoin(&pending));
    assert_eq!(d.join_refusal(token).0, GroupError::UnknownMemberId);
}

#[test]
fn leaving_an_unknown_group_is_an_error_of_each_member() {
    let mut d = Dialogue::new();
    let results = d.leave(&[("a", None), ("b", None)]);
    assert_eq!(results, Ok(vec![Err(GroupError::UnknownMemberId); 2]));
    let request = LeaveGroup {
        group_id: "".into(),
        members: Vec::new(),
    };
    let token = d.ask(|token| Input::Leave { token, request });
    assert_eq!(d.answer(token), Answer::Leave(Err(GroupError::InvalidGroupId)));
}

#[test]
fn what_a_leaving_member_waits_for_is_answered() {
    let mut d = Dialogue::new();
    let (leader, follower) = d.stable_pair();
    let joining = d.join(rejoin(&leader));
    d.leave(&[(&leader, None)]).expect("no top-level error")[0].expect("a member");
    assert_eq!(
        d.join_refusal(joining),
        (GroupError::UnknownMemberId, String::new())
    );
    let token = d.join(rejoin(&follower));
    assert_eq!(d.joined(token).generation_id, 2);
    let other = d.join(join("c"));
    let token = d.join(rejoin(&follower));
    let (_, other) = (d.joined(token), d.joined(other));
    let syncing = d.sync(&other.member_id, 3, &[]);
    d.leave(&[(&other.member_id, None)]).expect("no top-level error")[0].expect("a member");
    assert_eq!(d.synced(syncing), Err(GroupError::UnknownMemberId));
}
