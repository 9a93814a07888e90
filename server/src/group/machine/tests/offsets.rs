//! Commits, fetches, expiry and deletion.

use super::super::super::records::{RecordKey, read_key};
use super::super::*;
use super::dialogue::*;

fn t0() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn commit_as(member_id: &str, generation_id: i32, offset: i64, now: TimestampMs) -> CommitOffsets {
    CommitOffsets {
        member_id: member_id.into(),
        generation_id,
        ..simple_commit(offset, now)
    }
}

/// What the tombstones under way are for: partitions, and whether the group's own record is among them.
fn tombstones(d: &Dialogue) -> (Vec<String>, bool) {
    let (mut partitions, mut has_group) = (Vec::new(), false);
    for record in d.appends.iter().flat_map(|append| &append.records) {
        assert_eq!(record.value, None);
        match read_key(&record.key).expect("readable") {
            RecordKey::Offset { partition, .. } => partitions.push(partition.to_string()),
            RecordKey::Group { .. } => has_group = true,
        }
    }
    (partitions, has_group)
}

fn delete_group(d: &mut Dialogue) -> Token {
    d.ask(|token| Input::DeleteGroup {
        token,
        group_id: GROUP.into(),
    })
}

fn delete_offsets(d: &mut Dialogue, partitions: &[(&str, i32)]) -> Token {
    let partitions = partitions
        .iter()
        .map(|(topic, partition)| TopicPartition::new(*topic, *partition))
        .collect();
    d.ask(|token| Input::DeleteOffsets {
        token,
        group_id: GROUP.into(),
        partitions,
    })
}

#[test]
fn an_offset_counts_once_it_is_in_the_log() {
    let mut d = Dialogue::new();
    d.stores_at_once = false;
    let token = d.commit(simple_commit(5, d.wall()));
    assert!(d.waits(token));
    assert_eq!(d.offset(), None);
    let unstable = d
        .machine
        .fetch_offsets(GROUP, Some(&[t0()]), true)
        .expect("owned");
    assert_eq!(unstable[0].1, FetchedOffset::Unstable);
    d.store();
    assert_eq!(d.committed(token), [Ok(())]);
    assert_eq!(d.offset(), Some(5));
    assert_eq!(d.state(), GroupState::Empty);
}

#[test]
fn an_offset_that_cannot_be_stored_leaves_the_old_one() {
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
        (AppendFailure::TimedOut, GroupError::RequestTimedOut),
        (AppendFailure::TooLarge, GroupError::InvalidCommitOffsetSize),
        (
            AppendFailure::InvalidProducerEpoch,
            GroupError::InvalidProducerEpoch,
        ),
        (AppendFailure::Other("odd".into()), GroupError::UnknownServerError),
    ];
    for (failure, error) in cases {
        let mut d = Dialogue::new();
        d.commit(simple_commit(5, d.wall()));
        d.stores_at_once = false;
        let token = d.commit(simple_commit(6, d.wall()));
        d.fail(failure);
        assert_eq!(d.committed(token), [Err(error)]);
        assert_eq!(d.offset(), Some(5));
    }
}

#[test]
fn a_log_that_answers_late_lets_the_client_go_but_its_result_counts() {
    let mut d = Dialogue::new();
    d.stores_at_once = false;
    let token = d.commit(simple_commit(5, d.wall()));
    d.pass(5_000);
    assert_eq!(d.committed(token), [Err(GroupError::RequestTimedOut)]);
    assert_eq!(d.offset(), None);
    d.store();
    assert_eq!(d.offset(), Some(5), "as after a reload");
}

#[test]
fn commits_are_checked_against_the_group() {
    let mut d = Dialogue::new();
    let token = d.commit(commit_as("who", 3, 1, d.wall()));
    assert_eq!(
        d.committed(token),
        [Err(GroupError::IllegalGeneration)],
        "no such group"
    );
    let member_id = d.stable_member();
    type Change = fn(&mut CommitOffsets);
    let cases: &[(&str, Change, Result<(), GroupError>)] = &[
        ("the member", |_| (), Ok(())),
        (
            "another generation",
            |r| r.generation_id = 2,
            Err(GroupError::IllegalGeneration),
        ),
        (
            "unknown member",
            |r| r.member_id = "who".into(),
            Err(GroupError::UnknownMemberId),
        ),
        (
            "outside of the group",
            |r| (r.member_id, r.generation_id) = ("".into(), -1),
            Err(GroupError::UnknownMemberId),
        ),
        (
            "without generation",
            |r| r.generation_id = -1,
            Err(GroupError::IllegalGeneration),
        ),
    ];
    for (what, change, result) in cases {
        let mut request = commit_as(&member_id, 1, 7, d.wall());
        change(&mut request);
        let token = d.commit(request);
        assert_eq!(d.committed(token), [*result], "{what}");
    }
    d.join(join("b"));
    let token = d.commit(commit_as(&member_id, 1, 8, d.wall()));
    assert_eq!(d.committed(token), [Ok(())], "PreparingRebalance");
    let token = d.join(rejoin(&member_id));
    d.joined(token);
    let token = d.commit(commit_as(&member_id, 2, 9, d.wall()));
    assert_eq!(
        d.committed(token),
        [Err(GroupError::RebalanceInProgress)],
        "CompletingRebalance"
    );
    assert_eq!(d.offset(), Some(8));
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    d.pass(9_000);
    let token = d.commit(commit_as(&member_id, 1, 7, d.wall()));
    assert_eq!(d.committed(token), [Ok(())]);
    d.pass(9_000);
    assert_eq!(d.state(), GroupState::Stable);
}

#[test]
fn a_fenced_static_member_cannot_commit() {
    let mut d = Dialogue::new();
    let token = d.join(join_as("i"));
    d.pass(3_000);
    let old = d.joined(token);
    let token = d.join(join_as("i"));
    d.joined(token);
    let request = CommitOffsets {
        group_instance_id: Some("i".into()),
        ..commit_as(&old.member_id, 2, 1, d.wall())
    };
    let token = d.commit(request);
    assert_eq!(d.committed(token), [Err(GroupError::FencedInstanceId)]);
}

#[test]
fn too_much_metadata_fails_its_partition_alone() {
    let mut d = Dialogue::with(GroupConfig {
        offset_metadata_max_bytes: 3,
        ..GroupConfig::default()
    });
    let mut request = simple_commit(5, d.wall());
    request.offsets[0].1.metadata = "äöü".into();
    let mut long = value(6, d.wall());
    long.metadata = "four".into();
    request.offsets.push((TopicPartition::new("t", 1), long));
    let token = d.commit(request.clone());
    assert_eq!(
        d.committed(token),
        [Ok(()), Err(GroupError::OffsetMetadataTooLarge)],
        "three code units fit"
    );
    assert_eq!((d.offset(), d.offset_of("t", 1)), (Some(5), None));
    request.offsets.remove(0);
    let token = d.commit(request);
    assert_eq!(d.committed(token), [Err(GroupError::OffsetMetadataTooLarge)]);
}

#[test]
fn offsets_are_fetched_one_by_one_or_all() {
    let mut d = Dialogue::new();
    let nothing = d
        .machine
        .fetch_offsets(GROUP, Some(&[t0()]), true)
        .expect("owned");
    assert_eq!(nothing, [(t0(), FetchedOffset::Absent)]);
    assert_eq!(d.machine.fetch_offsets(GROUP, None, true), Ok(Vec::new()));
    d.commit(simple_commit(5, d.wall()));
    let mut request = simple_commit(6, d.wall());
    request.offsets[0].0 = TopicPartition::new("s", 3);
    d.commit(request);
    let all = d.machine.fetch_offsets(GROUP, None, true).expect("owned");
    let all: Vec<String> = all
        .into_iter()
        .map(|(partition, _)| partition.to_string())
        .collect();
    assert_eq!(all, ["s-3", "t-0"]);
}

#[test]
fn an_offset_of_a_transaction_counts_from_its_marker() {
    let mut d = Dialogue::new();
    let producer = (ProducerId(7), ProducerEpoch(0));
    let request = CommitOffsets {
        transaction: Some(producer),
        ..simple_commit(5, d.wall())
    };
    let token = d.commit(request.clone());
    assert_eq!(d.committed(token), [Ok(())]);
    assert_eq!(d.offset(), None);
    let unstable = d
        .machine
        .fetch_offsets(GROUP, Some(&[t0()]), true)
        .expect("owned");
    assert_eq!(unstable[0].1, FetchedOffset::Unstable);
    d.step(Input::TransactionCompleted {
        producer_id: ProducerId(7),
        committed: true,
    });
    assert_eq!(d.offset(), Some(5));
    d.commit(CommitOffsets {
        offsets: vec![(t0(), value(9, d.wall()))],
        ..request.clone()
    });
    d.step(Input::TransactionCompleted {
        producer_id: ProducerId(7),
        committed: false,
    });
    assert_eq!(d.offset(), Some(5));
    for (change, error) in [
        (
            CommitOffsets {
                group_id: "".into(),
                ..request.clone()
            },
            GroupError::InvalidGroupId,
        ),
        (
            CommitOffsets {
                member_id: "who".into(),
                ..request.clone()
            },
            GroupError::UnknownMemberId,
        ),
        (
            CommitOffsets {
                generation_id: 4,
                ..request.clone()
            },
            GroupError::IllegalGeneration,
        ),
    ] {
        let token = d.commit(change);
        assert_eq!(d.committed(token), [Err(error)]);
    }
}

const RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
const CHECK_INTERVAL_MS: i64 = 600_000;

#[test]
fn offsets_of_a_simple_group_expire_after_their_commit_and_the_group_with_the_last() {
    let mut d = Dialogue::new();
    d.commit(simple_commit(5, d.wall()));
    d.pass(RETENTION_MS / 2);
    let mut request = simple_commit(6, d.wall());
    request.offsets[0].0 = TopicPartition::new("t", 1);
    d.commit(request);
    d.pass(RETENTION_MS / 2 + CHECK_INTERVAL_MS);
    assert_eq!((d.offset(), d.offset_of("t", 1)), (None, Some(6)));
    d.stores_at_once = false;
    d.pass(RETENTION_MS / 2);
    assert_eq!(tombstones(&d), (vec!["t-1".into()], false), "it has no record");
    assert_eq!(
        d.offset_of("t", 1),
        Some(6),
        "the tombstone is not in the log yet"
    );
    d.store();
    assert_eq!(d.state(), GroupState::Dead);
    assert_eq!(d.machine.group_count(), 0);
    d.pass(CHECK_INTERVAL_MS);
    assert_eq!(d.machine.next_deadline(), None, "nobody left, no wake-up");
}

#[test]
fn offsets_of_an_empty_group_expire_after_it_became_empty_and_the_group_with_its_record() {
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    let token = d.commit(commit_as(&member_id, 1, 5, d.wall()));
    d.committed(token);
    for _ in 0..(RETENTION_MS + CHECK_INTERVAL_MS) / 9_000 {
        d.pass(9_000);
        assert_eq!(d.heartbeat(&member_id, 1), Ok(()));
    }
    assert_eq!(d.offset(), Some(5), "subscribed");
    d.leave(&[(&member_id, None)]).expect("no top-level error")[0].expect("a member");
    d.pass(RETENTION_MS - CHECK_INTERVAL_MS);
    assert_eq!(d.offset(), Some(5));
    d.stores_at_once = false;
    d.pass(2 * CHECK_INTERVAL_MS);
    assert_eq!(tombstones(&d), (vec!["t-0".into()], true));
    d.store();
    assert_eq!(d.machine.group_count(), 0);
}

#[test]
fn a_stable_consumer_group_loses_only_offsets_of_topics_it_does_not_consume() {
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    let mut request = commit_as(&member_id, 1, 5, d.wall());
    request
        .offsets
        .push((TopicPartition::new("other", 0), value(6, d.wall())));
    let token = d.commit(request);
    d.committed(token);
    let mut rebalancing = Vec::new();
    for _ in 0..(RETENTION_MS + 2 * CHECK_INTERVAL_MS) / 9_000 {
        d.pass(9_000);
        if d.heartbeat(&member_id, 1) == Err(GroupError::RebalanceInProgress) {
            rebalancing.push(d.now_ms);
        }
    }
    assert_eq!((d.offset(), d.offset_of("other", 0)), (Some(5), None));
    assert!(rebalancing.is_empty(), "{rebalancing:?}");
}

#[test]
fn nothing_expires_during_a_rebalance_or_where_subscriptions_are_not_known() {
    let unreadable = vec![Protocol {
        name: "range".into(),
        metadata: Bytes::from_static(b"?"),
    }];
    for (protocol_type, protocols) in [("connect", protocols(&["range"])), ("consumer", unreadable)] {
        let mut d = Dialogue::new();
        let token = d.join(JoinGroup {
            protocol_type: protocol_type.into(),
            protocols,
            ..join("a")
        });
        d.pass(3_000);
        let member_id = d.joined(token).member_id;
        let token = d.sync(&member_id, 1, &[]);
        d.assignment(token);
        let mut request = commit_as(&member_id, 1, 5, TimestampMs(0));
        request.offsets[0].1.expire_timestamp = Some(TimestampMs(1));
        let token = d.commit(request);
        assert_eq!(d.committed(token), [Ok(())]);
        for _ in 0..2 * CHECK_INTERVAL_MS / 9_000 {
            d.pass(9_000);
            assert_eq!(d.heartbeat(&member_id, 1), Ok(()));
        }
        assert_eq!(d.offset(), Some(5), "{protocol_type}");
        let token = delete_offsets(&mut d, &[("t", 0)]);
        let expected = match protocol_type {
            "connect" => Err(GroupError::NonEmptyGroup),
            _ => Ok(vec![Err(GroupError::GroupSubscribedToTopic)]),
        };
        assert_eq!(d.answer(token), Answer::DeleteOffsets(expected));
    }
}

#[test]
fn an_offset_with_an_expire_timestamp_goes_by_that() {
    let mut d = Dialogue::new();
    let mut request = simple_commit(5, d.wall());
    request.offsets[0].1.expire_timestamp = Some(TimestampMs(d.wall().get() + CHECK_INTERVAL_MS));
    d.commit(request);
    d.pass(CHECK_INTERVAL_MS - 1);
    assert_eq!(d.offset(), Some(5));
    d.pass(1);
    assert_eq!(d.offset(), None);
}

#[test]
fn tombstones_that_fail_are_tried_again_at_the_next_search() {
    let mut d = Dialogue::new();
    d.commit(simple_commit(5, d.wall()));
    d.stores_at_once = false;
    d.pass(RETENTION_MS + CHECK_INTERVAL_MS);
    d.pass(CHECK_INTERVAL_MS);
    assert_eq!(d.appends.len(), 1, "no second tombstone while one is under way");
    d.fail(AppendFailure::NotEnoughReplicas);
    assert_eq!(d.offset(), Some(5));
    d.pass(CHECK_INTERVAL_MS);
    d.store();
    assert_eq!(d.machine.group_count(), 0);
}

#[test]
fn a_group_is_deleted_with_its_record_if_it_has_no_members() {
    let mut d = Dialogue::new();
    let token = delete_group(&mut d);
    assert_eq!(
        d.answer(token),
        Answer::DeleteGroup(Err(GroupError::GroupIdNotFound))
    );
    let member_id = d.stable_member();
    d.commit(commit_as(&member_id, 1, 5, d.wall()));
    let token = delete_group(&mut d);
    assert_eq!(
        d.answer(token),
        Answer::DeleteGroup(Err(GroupError::NonEmptyGroup))
    );
    d.leave(&[(&member_id, None)]).expect("no top-level error")[0].expect("a member");
    d.stores_at_once = false;
    let token = delete_group(&mut d);
    assert!(d.waits(token));
    assert_eq!(tombstones(&d), (vec!["t-0".into()], true));
    d.store();
    assert_eq!(d.answer(token), Answer::DeleteGroup(Ok(())));
    assert_eq!(d.machine.group_count(), 0);
    let token = delete_group(&mut d);
    assert_eq!(
        d.answer(token),
        Answer::DeleteGroup(Err(GroupError::GroupIdNotFound))
    );
}

#[test]
fn a_deletion_has_its_place_in_the_log() {
    let mut d = Dialogue::new();
    d.commit(simple_commit(5, d.wall()));
    d.stores_at_once = false;
    let before = d.commit(simple_commit(6, d.wall()));
    let deletion = delete_group(&mut d);
    let after = d.commit(simple_commit(7, d.wall()));
    d.store();
    d.store();
    assert_eq!(d.answer(deletion), Answer::DeleteGroup(Ok(())));
    assert_eq!(d.offset(), None);
    d.store();
    assert_eq!(
        (d.committed(before), d.committed(after)),
        (vec![Ok(())], vec![Ok(())])
    );
    assert_eq!(d.offset(), Some(7));
}

#[test]
fn a_deletion_that_fails_changes_nothing_and_says_so() {
    for (failure, error) in [
        (AppendFailure::NotLeader, GroupError::NotCoordinator),
        (
            AppendFailure::NotEnoughReplicas,
            GroupError::CoordinatorNotAvailable,
        ),
        (AppendFailure::TimedOut, GroupError::RequestTimedOut),
    ] {
        let mut d = Dialogue::new();
        d.commit(simple_commit(5, d.wall()));
        d.stores_at_once = false;
        let token = delete_group(&mut d);
        d.fail(failure);
        assert_eq!(d.answer(token), Answer::DeleteGroup(Err(error)));
        assert_eq!(d.offset(), Some(5));
    }
    let mut d = Dialogue::new();
    d.commit(simple_commit(5, d.wall()));
    d.stores_at_once = false;
    let token = delete_group(&mut d);
    d.pass(5_000);
    assert_eq!(
        d.answer(token),
        Answer::DeleteGroup(Err(GroupError::RequestTimedOut))
    );
    d.store();
    assert_eq!(d.machine.group_count(), 0, "late, but done");
}

#[test]
fn a_group_with_many_offsets_is_deleted_in_several_batches_and_answered_once() {
    let mut d = Dialogue::new();
    let mut request = simple_commit(5, d.wall());
    let topic = "t".repeat(249);
    request.offsets = (0..3_000)
        .map(|p| (TopicPartition::new(&*topic, p), value(5, d.wall())))
        .collect();
    let token = d.commit(request);
    assert!(d.committed(token).iter().all(Result::is_ok));
    d.stores_at_once = false;
    let token = delete_group(&mut d);
    let batches = d.appends.len();
    assert!(batches > 1);
    for _ in 0..batches {
        assert!(d.waits(token));
        d.store();
    }
    assert_eq!(d.answer(token), Answer::DeleteGroup(Ok(())));
    assert_eq!(d.machine.group_count(), 0);
}

#[test]
fn a_group_that_somebody_is_about_to_join_can_be_deleted_and_the_newcomer_starts_anew() {
    let mut d = Dialogue::new();
    let token = d.join(JoinGroup {
        require_known_member_id: true,
        ..join("a")
    });
    let (_, member_id) = d.join_refusal(token);
    let token = delete_group(&mut d);
    assert_eq!(d.answer(token), Answer::DeleteGroup(Ok(())));
    let token = d.join(rejoin(&member_id));
    assert_eq!(d.join_refusal(token), (GroupError::UnknownMemberId, member_id));
}

#[test]
fn offsets_are_deleted_unless_the_group_consumes_their_topic() {
    let mut d = Dialogue::new();
    let token = delete_offsets(&mut d, &[("t", 0)]);
    assert_eq!(
        d.answer(token),
        Answer::DeleteOffsets(Err(GroupError::GroupIdNotFound))
    );
    let member_id = d.stable_member();
    let mut request = commit_as(&member_id, 1, 5, d.wall());
    request
        .offsets
        .push((TopicPartition::new("other", 0), value(6, d.wall())));
    let token = d.commit(request);
    d.committed(token);
    let token = delete_offsets(&mut d, &[("t", 0), ("other", 0), ("other", 9)]);
    let expected = vec![Err(GroupError::GroupSubscribedToTopic), Ok(()), Ok(())];
    assert_eq!(d.answer(token), Answer::DeleteOffsets(Ok(expected)));
    assert_eq!((d.offset(), d.offset_of("other", 0)), (Some(5), None));
    d.leave(&[(&member_id, None)]).expect("no top-level error")[0].expect("a member");
    let token = delete_offsets(&mut d, &[("t", 0)]);
    assert_eq!(d.answer(token), Answer::DeleteOffsets(Ok(vec![Ok(())])));
    assert_eq!(
        d.machine.group_count(),
        0,
        "the group was empty and had nothing else"
    );
}

#[test]
fn offsets_of_a_deleted_topic_go() {
    let mut d = Dialogue::new();
    let member_id = d.stable_member();
    let mut request = commit_as(&member_id, 1, 5, d.wall());
    request
        .offsets
        .push((TopicPartition::new("other", 0), value(6, d.wall())));
    let token = d.commit(request);
    d.committed(token);
    d.step(Input::PartitionsDeleted {
        partitions: [t0(), TopicPartition::new("t", 1)].into(),
    });
    assert_eq!((d.offset(), d.offset_of("other", 0)), (None, Some(6)));
    assert_eq!(d.state(), GroupState::Stable);
}
