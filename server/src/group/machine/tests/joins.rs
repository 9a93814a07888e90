//! JoinGroup and rebalances.

use super::super::super::config::NEW_MEMBER_JOIN_TIMEOUT_MS;
use super::super::*;
use super::dialogue::*;

#[test]
fn a_new_client_is_sent_away_once_with_its_id() {
    let mut d = Dialogue::new();
    let request = JoinGroup {
        require_known_member_id: true,
        ..join("client")
    };
    let token = d.join(request);
    let (error, member_id) = d.join_refusal(token);
    assert_eq!(error, GroupError::MemberIdRequired);
    assert_eq!(member_id, "client-00000000-0000-0000-0000-000000000002");
    assert_eq!(d.state(), GroupState::Empty);

    let token = d.join(rejoin(&member_id));
    assert_eq!(d.state(), GroupState::PreparingRebalance);
    d.pass(3_000);
    let joined = d.joined(token);
    assert_eq!((joined.generation_id, &*joined.member_id), (1, &*member_id));
    assert_eq!(joined.leader_id, joined.member_id);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(d.state(), GroupState::CompletingRebalance);
}

#[test]
fn an_id_that_was_handed_out_expires_after_the_session_timeout() {
    let mut d = Dialogue::new();
    let token = d.join(JoinGroup {
        require_known_member_id: true,
        ..join("client")
    });
    let (_, member_id) = d.join_refusal(token);
    d.pass(10_000);
    let token = d.join(rejoin(&member_id));
    assert_eq!(d.join_refusal(token), (GroupError::UnknownMemberId, member_id));
}

#[test]
fn a_rebalance_waits_for_ids_that_were_handed_out() {
    let mut d = Dialogue::new();
    let leader = d.stable_member();
    let token = d.join(JoinGroup {
        require_known_member_id: true,
        ..join("b")
    });
    let (_, pending) = d.join_refusal(token);
    let rejoined = d.join(rejoin(&leader));
    d.pass(5_000);
    assert!(d.waits(rejoined));
    let joined = d.join(rejoin(&pending));
    assert_eq!(d.joined(rejoined).generation_id, 2);
    assert_eq!(d.joined(joined).generation_id, 2);
}

#[test]
fn the_initial_delay_is_extended_by_newcomers_up_to_the_longest_rebalance_timeout() {
    let mut d = Dialogue::new();
    let first = d.join(JoinGroup {
        rebalance_timeout_ms: 7_000,
        ..join("a")
    });
    d.pass(2_999);
    let second = d.join(JoinGroup {
        rebalance_timeout_ms: 7_000,
        ..join("b")
    });
    d.pass(1);
    assert!(d.waits(first), "extended to 6 s");
    d.pass(2_999);
    let third = d.join(JoinGroup {
        rebalance_timeout_ms: 7_000,
        ..join("c")
    });
    d.pass(1);
    assert!(d.waits(first), "extended to 7 s, no further");
    d.join(JoinGroup {
        rebalance_timeout_ms: 7_000,
        ..join("d")
    });
    d.pass(999);
    assert!(d.waits(first));
    d.pass(1);
    for token in [first, second, third] {
        assert_eq!(d.joined(token).generation_id, 1);
    }
}

#[test]
fn the_initial_delay_is_not_extended_without_newcomers() {
    let mut d = Dialogue::new();
    let token = d.join(join("a"));
    d.pass(2_999);
    assert!(d.waits(token));
    d.pass(1);
    d.joined(token);
}

#[test]
fn without_an_initial_delay_the_first_member_has_its_generation_at_once() {
    let mut d = Dialogue::with(GroupConfig {
        group_initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    });
    let token = d.join(join("a"));
    assert_eq!(d.joined(token).generation_id, 1);
}

#[test]
fn only_the_leader_sees_the_members() {
    let mut d = Dialogue::new();
    let (one, two) = (d.join(join("a")), d.join(join_as("i")));
    d.pass(10_000);
    let (one, two) = (d.joined(one), d.joined(two));
    let members: Vec<_> = one
        .members
        .iter()
        .map(|m| (m.member_id.clone(), m.group_instance_id.clone()))
        .collect();
    assert_eq!(
        members,
        [
            (one.member_id.clone(), None),
            (two.member_id.clone(), Some("i".into()))
        ]
    );
    assert_eq!(two.members, []);
    assert_eq!(two.leader_id, one.member_id);
}

#[test]
fn joins_are_refused_with_the_errors_of_kafka() {
    type Change = fn(&mut JoinGroup);
    let cases: &[(&str, Change, GroupError, &str)] = &[
        (
            "no group id",
            |r| r.group_id = "".into(),
            GroupError::InvalidGroupId,
            "",
        ),
        (
            "session too short",
            |r| r.session_timeout_ms = 5_999,
            GroupError::InvalidSessionTimeout,
            "",
        ),
        (
            "session too long",
            |r| r.session_timeout_ms = 1_800_001,
            GroupError::InvalidSessionTimeout,
            "",
        ),
        (
            "unknown id",
            |r| r.member_id = "who".into(),
            GroupError::UnknownMemberId,
            "who",
        ),
        (
            "another protocol type",
            |r| r.protocol_type = "connect".into(),
            GroupError::InconsistentGroupProtocol,
            "",
        ),
        (
            "no common protocol",
            |r| r.protocols = protocols(&["odd"]),
            GroupError::InconsistentGroupProtocol,
            "",
        ),
        (
            "no protocol",
            |r| r.protocols.clear(),
            GroupError::InconsistentGroupProtocol,
            "",
        ),
        (
            "known by no group",
            |r| (r.group_id, r.member_id) = ("other".into(), "who".into()),
            GroupError::UnknownMemberId,
            "who",
        ),
        (
            "an instance id nobody has",
            |r| {
                (r.member_id, r.group_instance_id) =
                    ("a-00000000-0000-0000-0000-000000000002".into(), Some("i".into()))
            },
            GroupError::UnknownMemberId,
            "a-00000000-0000-0000-0000-000000000002",
        ),
    ];
    for (what, change, error, member_id) in cases {
        let mut d = Dialogue::new();
        d.stable_member();
        let mut request = join("b");
        change(&mut request);
        let token = d.join(request);
        assert_eq!(d.join_refusal(token), (*error, member_id.to_string()), "{what}");
    }
}

#[test]
fn an_empty_group_needs_a_protocol_type_and_a_protocol() {
    for request in [
        JoinGroup {
            protocol_type: "".into(),
            ..join("a")
        },
        JoinGroup {
            protocols: Vec::new(),
            ..join("a")
        },
    ] {
        let mut d = Dialogue::new();
        let token = d.join(request);
        assert_eq!(
            d.join_refusal(token),
            (GroupError::InconsistentGroupProtocol, String::new())
        );
    }
}

#[test]
fn the_protocol_with_the_most_first_choices_among_the_common_ones_is_selected() {
    let check = |preferences: &[&[&str]], selected: &str| {
        let mut d = Dialogue::new();
        let tokens: Vec<_> = preferences
            .iter()
            .map(|names| {
                d.join(JoinGroup {
                    protocols: protocols(names),
                    ..join("a")
                })
            })
            .collect();
        d.pass(60_000);
        for token in tokens {
            assert_eq!(
                d.joined(token).protocol_name.as_deref(),
                Some(selected),
                "{preferences:?}"
            );
        }
    };
    check(&[&["a", "b"], &["b", "a"], &["b", "a"]], "b");
    check(
        &[&["a", "b", "c"], &["c", "b"], &["c", "b"], &["c", "b", "a"]],
        "c",
    );
    // A tie goes to the earliest vote; a name given twice counts once.
    check(&[&["a", "b"], &["b", "a"]], "a");
    check(&[&["a", "a", "b"], &["b", "a"], &["b", "a"]], "b");
    // An eager member among cooperative ones keeps the group eager.
    check(
        &[
            &["cooperative-sticky", "range"],
            &["range"],
            &["cooperative-sticky", "range"],
        ],
        "range",
    );
}

#[test]
fn a_full_group_turns_newcomers_away_and_keeps_its_members() {
    let mut d = Dialogue::with(GroupConfig {
        group_max_size: 2,
        ..GroupConfig::default()
    });
    let (leader, follower) = d.stable_pair();
    let token = d.join(join("c"));
    assert_eq!(
        d.join_refusal(token),
        (GroupError::GroupMaxSizeReached, String::new())
    );
    // Members of the generation may join again; during the rebalance the first two to come have the places.
    let (one, two) = (d.join(rejoin(&leader)), d.join(rejoin(&follower)));
    assert_eq!(d.joined(one).generation_id, 2);
    assert_eq!(d.joined(two).generation_id, 2);
}

#[test]
fn a_member_that_rejoins_after_the_places_are_taken_is_removed() {
    let mut d = Dialogue::with(GroupConfig {
        group_max_size: 2,
        ..GroupConfig::default()
    });
    let leader = d.stable_member();
    let late = {
        let token = d.join(join("late"));
        let one = d.join(rejoin(&leader));
        d.joined(one);
        let syncing = d.sync(&leader, 2, &[]);
        d.assignment(syncing);
        d.joined(token).member_id.to_string()
    };
    // The leader begins a rebalance; a newcomer takes the second place before `late` comes.
    let one = d.join(rejoin(&leader));
    let newcomer = d.join(join("new"));
    let token = d.join(rejoin(&late));
    assert_eq!(
        d.join_refusal(token),
        (GroupError::GroupMaxSizeReached, String::new())
    );
    assert_eq!(d.joined(one).members.len(), 2);
    d.joined(newcomer);
    assert_eq!(d.heartbeat(&late, 3), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_static_member_turned_away_from_a_full_group_leaves_the_place_of_the_one_inside_alone() {
    let mut d = Dialogue::with(GroupConfig {
        group_max_size: 1,
        ..GroupConfig::default()
    });
    let token = d.join(join_as("i"));
    d.pass(3_000);
    let member_id = d.joined(token).member_id;
    let token = d.join(join_as("i"));
    assert_eq!(d.join_refusal(token).0, GroupError::GroupMaxSizeReached);
    assert_eq!(d.heartbeat_as(&member_id, Some("i"), 1), Ok(()));
    assert_eq!(
        d.heartbeat_as("other", Some("i"), 1),
        Err(GroupError::FencedInstanceId)
    );
}

#[test]
fn a_follower_that_rejoins_unchanged_gets_the_current_generation_and_the_leader_a_new_one() {
    let mut d = Dialogue::new();
    let (leader, follower) = d.stable_pair();
    let token = d.join(rejoin(&follower));
    let joined = d.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (1, 0));
    assert_eq!(d.state(), GroupState::Stable);

    let token = d.join(JoinGroup {
        protocols: protocols(&["range", "new"]),
        ..rejoin(&follower)
    });
    assert_eq!(d.state(), GroupState::PreparingRebalance, "changed metadata");
    assert_eq!(d.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
    let one = d.join(rejoin(&leader));
    assert_eq!(d.joined(token).generation_id, 2);
    assert_eq!(d.joined(one).generation_id, 2);

    // During CompletingRebalance an unchanged join is taken for a lost answer, also the leader's.
    let token = d.join(rejoin(&leader));
    let joined = d.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 2));
    let waiting = d.sync(&follower, 2, &[]);
    let token = d.join(JoinGroup {
        protocols: protocols(&["range", "newer"]),
        ..rejoin(&follower)
    });
    assert_eq!(d.synced(waiting), Err(GroupError::RebalanceInProgress));
    assert!(d.waits(token));
}

#[test]
fn after_the_rebalance_timeout_dynamic_members_that_have_not_rejoined_are_dropped() {
    let mut d = Dialogue::new();
    let (leader, follower) = d.stable_pair();
    let token = d.join(rejoin(&follower));
    d.joined(token);
    let token = d.join(JoinGroup {
        protocols: protocols(&["range", "new"]),
        ..rejoin(&follower)
    });
    for _ in 0..11 {
        d.pass(5_000);
        assert_eq!(d.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
    }
    d.pass(4_999);
    assert!(d.waits(token));
    d.pass(1);
    let joined = d.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(
        *joined.leader_id, *follower,
        "the leader is gone, who has joined leads"
    );
    assert_eq!(d.heartbeat(&leader, 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn static_members_that_have_not_rejoined_stay_until_their_session_ends() {
    let mut d = Dialogue::new();
    let session = 600_000;
    let one = d.join(JoinGroup {
        session_timeout_ms: session,
        ..join_as("i")
    });
    let two = d.join(join("b"));
    d.pass(10_000);
    let (_, two) = (d.joined(one), d.joined(two));
    let token = d.sync(&two.member_id, 1, &[]);
    let token_of_join = d.join(JoinGroup {
        protocols: protocols(&["range", "new"]),
        ..rejoin(&two.member_id)
    });
    assert_eq!(d.synced(token), Err(GroupError::RebalanceInProgress));
    d.pass(60_000);
    let joined = d.joined(token_of_join);
    assert_eq!(joined.members.len(), 2, "the static one is still counted");
    assert_eq!(joined.leader_id, two.member_id);
}

#[test]
fn a_rebalance_in_which_nobody_joins_goes_on_until_the_sessions_end() {
    let mut d = Dialogue::new();
    let hasty = |id| JoinGroup {
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 0,
        ..join_as(id)
    };
    let (one, two) = (d.join(hasty("i")), d.join(hasty("j")));
    d.pass(3_000);
    let (one, two) = (d.joined(one), d.joined(two));
    let token = d.sync(&two.member_id, 1, &[]);
    let leader = d.sync(&one.member_id, 1, &[]);
    d.assignment(leader);
    d.assignment(token);
    d.leave(&[("", Some("j"))]).expect("no top-level error")[0].expect("a member");
    d.pass(29_999);
    assert_eq!(d.state(), GroupState::PreparingRebalance);
    assert!(
        d.messages.len() < 400,
        "a rebalance timeout of 0 does not keep the broker busy"
    );
    d.pass(1);
    assert_eq!(d.state(), GroupState::Empty);
}

#[test]
fn a_new_member_that_waits_for_five_minutes_is_dropped() {
    let mut d = Dialogue::new();
    let leader = d.stable_member();
    let waiting = d.join(JoinGroup {
        rebalance_timeout_ms: i32::MAX,
        ..join("b")
    });
    let step_ms = 5_000;
    for _ in 0..(NEW_MEMBER_JOIN_TIMEOUT_MS - 1) / step_ms {
        d.pass(step_ms);
        assert_eq!(d.heartbeat(&leader, 1), Err(GroupError::RebalanceInProgress));
    }
    assert!(d.waits(waiting));
    d.pass(step_ms);
    assert_eq!(
        d.join_refusal(waiting),
        (GroupError::UnknownMemberId, String::new())
    );
}

#[test]
fn a_join_replaced_by_a_newer_one_of_the_same_member_is_answered() {
    let mut d = Dialogue::new();
    let (leader, _) = d.stable_pair();
    let first = d.join(rejoin(&leader));
    let second = d.join(rejoin(&leader));
    assert_eq!(d.join_refusal(first), (GroupError::RebalanceInProgress, leader));
    assert!(d.waits(second));
}

#[test]
fn a_static_member_that_restarts_in_a_stable_group_causes_no_rebalance() {
    let mut d = Dialogue::new();
    let one = d.join(join_as("i"));
    let two = d.join(join("b"));
    d.pass(10_000);
    let (one, two) = (d.joined(one), d.joined(two));
    let leader = d.sync(
        &one.member_id,
        1,
        &[(&one.member_id, "first"), (&two.member_id, "second")],
    );
    let follower = d.sync(&two.member_id, 1, &[]);
    d.assignment(leader);
    d.assignment(follower);

    d.stores_at_once = false;
    let token = d.join(join_as("i"));
    assert!(d.waits(token), "the new id is not stored yet");
    d.store();
    let joined = d.joined(token);
    assert_eq!(joined.generation_id, 1);
    assert_ne!(joined.member_id, one.member_id);
    assert_eq!(
        joined.leader_id, one.member_id,
        "so that it does not take itself for the leader"
    );
    assert_eq!(joined.members, []);
    assert_eq!(d.state(), GroupState::Stable);
    assert_eq!(
        d.heartbeat_as(&one.member_id, Some("i"), 1),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(d.heartbeat(&one.member_id, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(d.heartbeat_as(&joined.member_id, Some("i"), 1), Ok(()));
    let token = d.sync(&joined.member_id, 1, &[]);
    assert_eq!(d.assignment(token), "first");
}

#[test]
fn a_static_member_whose_new_id_cannot_be_stored_keeps_the_old_one() {
    let mut d = Dialogue::new();
    let token = d.join(join_as("i"));
    d.pass(3_000);
    let old = d.joined(token);
    let token = d.sync(&old.member_id, 1, &[(&old.member_id, "all")]);
    d.assignment(token);
    d.stores_at_once = false;
    let token = d.join(join_as("i"));
    d.fail(AppendFailure::NotEnoughReplicas);
    assert_eq!(
        d.join_refusal(token),
        (GroupError::CoordinatorNotAvailable, String::new())
    );
    assert_eq!(d.heartbeat_as(&old.member_id, Some("i"), 1), Ok(()));
    // The log may also never answer.
    let token = d.join(join_as("i"));
    d.pass(4_999);
    assert!(d.waits(token));
    d.pass(1);
    assert_eq!(
        d.join_refusal(token),
        (GroupError::RebalanceInProgress, String::new())
    );
    assert_eq!(d.heartbeat_as(&old.member_id, Some("i"), 1), Ok(()));
}

#[test]
fn a_static_member_that_restarts_with_other_protocols_or_during_the_assignment_causes_a_rebalance() {
    let mut d = Dialogue::new();
    let token = d.join(JoinGroup {
        protocols: protocols(&["a", "b"]),
        ..join_as("i")
    });
    d.pass(3_000);
    let old = d.joined(token);
    let waiting = d.sync("nobody", 1, &[]);
    assert_eq!(d.synced(waiting), Err(GroupError::UnknownMemberId));
    let token = d.join(JoinGroup {
        protocols: protocols(&["a", "b"]),
        ..join_as("i")
    });
    let joined = d.joined(token);
    assert_eq!(joined.generation_id, 2, "during the assignment");
    let token = d.sync(&joined.member_id, 2, &[]);
    d.assignment(token);
    let token = d.join(JoinGroup {
        protocols: protocols(&["b", "a"]),
        ..join_as("i")
    });
    let joined = d.joined(token);
    assert_eq!(
        (joined.generation_id, joined.protocol_name.as_deref()),
        (3, Some("b"))
    );
    assert_eq!(joined.members.len(), 1);
    assert_eq!(
        d.heartbeat_as(&old.member_id, Some("i"), 3),
        Err(GroupError::FencedInstanceId)
    );
}

#[test]
fn a_static_member_that_restarts_while_it_waits_fences_its_former_self() {
    let mut d = Dialogue::new();
    let first = d.join(join_as("i"));
    let second = d.join(join_as("i"));
    let (error, member_id) = d.join_refusal(first);
    assert_eq!(error, GroupError::FencedInstanceId);
    d.pass(10_000);
    let joined = d.joined(second);
    assert_ne!(*joined.member_id, *member_id);
    assert_eq!(joined.members.len(), 1);
    let token = d.join(JoinGroup {
        group_instance_id: Some("i".into()),
        ..rejoin(&member_id)
    });
    assert_eq!(d.join_refusal(token), (GroupError::FencedInstanceId, member_id));
}

#[test]
fn a_group_whose_last_member_leaves_is_stored_as_empty_in_a_new_generation() {
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    d.stores_at_once = false;
    assert_eq!(d.leave(&[(&member_id, None)]), Ok(vec![Ok(())]));
    assert_eq!(d.state(), GroupState::Empty);
    let record = &d.appends[0].records[0];
    let value = record
        .value
        .as_deref()
        .map(super::super::super::records::read_group_value);
    let value = value.expect("no tombstone").expect("readable");
    assert_eq!(
        (value.generation_id, value.members.len(), value.leader_id),
        (2, 0, None)
    );
    assert_eq!(value.protocol_type.as_ref(), "consumer");
    d.fail(AppendFailure::NotLeader);
    assert_eq!(d.state(), GroupState::Empty);
}
