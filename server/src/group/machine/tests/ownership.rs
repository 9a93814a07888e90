//! Elections, loads and resignations.

use super::super::super::loading::PartitionLoader;
use super::super::*;
use super::dialogue::*;

/// What a new leader makes of the log.
fn load(log: &[u8]) -> Box<LoadedPartition> {
    let mut loader = PartitionLoader::new();
    loader.replay(log, Offset::ZERO).expect("a good log");
    Box::new(loader.finish())
}

#[test]
fn before_the_load_is_done_clients_are_told_to_wait() {
    let mut d = Dialogue::elsewhere(GroupConfig::default());
    assert_eq!(d.machine.describe(GROUP).err(), Some(GroupError::NotCoordinator));
    assert_eq!(d.heartbeat("a", 1), Err(GroupError::NotCoordinator));
    d.step(Input::Elected { epoch: 3 });
    assert_eq!(d.loads, [3]);
    assert!(d.machine.is_loading());
    assert_eq!(
        d.machine.describe(GROUP).err(),
        Some(GroupError::CoordinatorLoadInProgress)
    );
    assert_eq!(
        d.machine.fetch_offsets(GROUP, None, false).err(),
        Some(GroupError::CoordinatorLoadInProgress)
    );
    assert_eq!(d.heartbeat("a", 1), Ok(()), "believed");
    let token = d.sync("a", 1, &[]);
    assert_eq!(
        d.synced(token),
        Err(GroupError::RebalanceInProgress),
        "old clients do not know the other error"
    );
    let token = d.join(join("a"));
    assert_eq!(d.join_refusal(token).0, GroupError::CoordinatorLoadInProgress);
    assert_eq!(
        d.leave(&[("a", None)]),
        Err(GroupError::CoordinatorLoadInProgress)
    );
    let token = d.commit(simple_commit(1, d.wall()));
    assert_eq!(d.committed(token), [Err(GroupError::CoordinatorLoadInProgress)]);
    let token = d.ask(|token| Input::DeleteGroup {
        token,
        group_id: GROUP.into(),
    });
    assert_eq!(
        d.answer(token),
        Answer::DeleteGroup(Err(GroupError::CoordinatorLoadInProgress))
    );
    d.step(Input::Loaded {
        epoch: 3,
        partition: Box::default(),
    });
    assert_eq!(d.state(), GroupState::Dead, "owned, and there is no such group");
}

#[test]
fn a_transaction_that_ends_while_its_partition_is_loaded_counts() {
    let mut before = Dialogue::new();
    let request = CommitOffsets {
        transaction: Some((ProducerId(7), ProducerEpoch(0))),
        ..simple_commit(5, before.wall())
    };
    let token = before.commit(request);
    before.committed(token);

    let mut d = Dialogue::elsewhere(GroupConfig::default());
    d.step(Input::Elected { epoch: 2 });
    d.step(Input::TransactionCompleted {
        producer_id: ProducerId(7),
        committed: true,
    });
    d.step(Input::Loaded {
        epoch: 2,
        partition: load(&before.log),
    });
    assert_eq!(d.offset(), Some(5));
}

#[test]
fn a_loaded_group_is_as_it_was_and_its_sessions_begin_anew() {
    let mut before = Dialogue::new();
    let (leader, follower) = before.stable_pair();
    let request = CommitOffsets {
        member_id: leader.as_str().into(),
        generation_id: 1,
        ..simple_commit(5, before.wall())
    };
    let token = before.commit(request);
    before.committed(token);

    let mut d = Dialogue::elsewhere(GroupConfig::default());
    d.now_ms = 1_000_000;
    d.step(Input::Elected { epoch: 2 });
    d.step(Input::Loaded {
        epoch: 2,
        partition: load(&before.log),
    });
    assert_eq!(d.machine.describe(GROUP), before.machine.describe(GROUP));
    assert_eq!(d.offset(), Some(5));
    assert_eq!(d.heartbeat(&leader, 1), Ok(()));
    let token = d.sync(&follower, 1, &[]);
    assert_eq!(d.assignment(token), "second");
    d.pass(10_000);
    assert_eq!(d.members(), Vec::<String>::new());
}

#[test]
fn a_loaded_group_with_too_many_members_rebalances() {
    let mut before = Dialogue::new();
    let (leader, follower) = before.stable_pair();
    let mut d = Dialogue::elsewhere(GroupConfig {
        group_max_size: 1,
        ..GroupConfig::default()
    });
    d.step(Input::Elected { epoch: 2 });
    d.step(Input::Loaded {
        epoch: 2,
        partition: load(&before.log),
    });
    assert_eq!(d.state(), GroupState::PreparingRebalance);
    let one = d.join(rejoin(&follower));
    let token = d.join(rejoin(&leader));
    assert_eq!(d.join_refusal(token).0, GroupError::GroupMaxSizeReached);
    assert_eq!(d.joined(one).members.len(), 1);
}

#[test]
fn a_resignation_sends_all_who_wait_to_the_new_coordinator() {
    let mut d = Dialogue::new();
    let (one, two) = (d.join(join("a")), d.join(join("b")));
    d.pass(10_000);
    let (_, two) = (d.joined(one), d.joined(two));
    let syncing = d.sync(&two.member_id, 1, &[]);
    let other = JoinGroup {
        group_id: "other".into(),
        ..join("c")
    };
    let joining = d.join(other);
    d.stores_at_once = false;
    let committing = d.commit(CommitOffsets {
        group_id: "simple".into(),
        ..simple_commit(5, d.wall())
    });
    d.step(Input::Resigned { epoch: Some(2) });
    assert_eq!(d.synced(syncing), Err(GroupError::NotCoordinator));
    assert_eq!(d.join_refusal(joining).0, GroupError::NotCoordinator);
    assert_eq!(d.heartbeat(&two.member_id, 1), Err(GroupError::NotCoordinator));
    assert!(d.waits(committing), "the log will say");
    d.store();
    assert_eq!(d.committed(committing), [Ok(())]);
    assert_eq!(d.machine.next_deadline(), None);
    assert_eq!(d.machine.group_count(), 0);
}

#[test]
fn elections_and_resignations_of_older_epochs_do_nothing() {
    let mut d = Dialogue::elsewhere(GroupConfig::default());
    d.step(Input::Elected { epoch: 5 });
    d.step(Input::Elected { epoch: 5 });
    d.step(Input::Elected { epoch: 4 });
    assert_eq!(d.loads, [5]);
    d.step(Input::Loaded {
        epoch: 4,
        partition: Box::default(),
    });
    assert!(d.machine.is_loading(), "a load of another epoch");
    d.step(Input::Resigned { epoch: Some(4) });
    d.step(Input::Loaded {
        epoch: 5,
        partition: Box::default(),
    });
    d.commit(simple_commit(5, d.wall()));
    d.step(Input::Resigned { epoch: Some(4) });
    assert_eq!(d.offset(), Some(5));
    d.step(Input::Resigned { epoch: Some(6) });
    d.step(Input::Elected { epoch: 5 });
    assert_eq!(d.machine.describe(GROUP).err(), Some(GroupError::NotCoordinator));
    d.step(Input::Elected { epoch: 7 });
    d.step(Input::Resigned { epoch: Some(8) });
    d.step(Input::Loaded {
        epoch: 7,
        partition: Box::default(),
    });
    assert_eq!(
        d.machine.describe(GROUP).err(),
        Some(GroupError::NotCoordinator),
        "resigned during the load"
    );
    // A deleted topic that is created again counts its epochs from 0.
    d.step(Input::Resigned { epoch: None });
    d.step(Input::Elected { epoch: 0 });
    d.step(Input::Loaded {
        epoch: 0,
        partition: Box::default(),
    });
    assert_eq!(d.state(), GroupState::Dead);
}

#[test]
fn an_epoch_that_follows_directly_continues_the_reign_and_one_after_a_gap_does_not() {
    let mut d = Dialogue::new();
    let joining = d.join(join("a"));
    d.stores_at_once = false;
    let committing = d.commit(CommitOffsets {
        group_id: "simple".into(),
        ..simple_commit(5, d.wall())
    });
    d.step(Input::Elected { epoch: 2 });
    d.store();
    assert_eq!(d.committed(committing), [Ok(())]);
    assert_eq!(d.machine.offset_count(), 1);
    d.step(Input::Resigned { epoch: Some(1) });
    assert!(d.waits(joining), "the resignation is older");
    d.step(Input::Elected { epoch: 4 });
    assert_eq!(d.join_refusal(joining).0, GroupError::NotCoordinator);
    assert_eq!(d.loads, [1, 4]);
    d.step(Input::Elected { epoch: 5 });
    d.step(Input::Loaded {
        epoch: 4,
        partition: load(&d.log),
    });
    assert_eq!(d.machine.offset_count(), 1);
    d.step(Input::Resigned { epoch: Some(5) });
    assert_eq!(d.machine.group_count(), 0);
}

#[test]
fn results_of_appends_from_before_a_move_change_nothing_after_it() {
    let mut d = Dialogue::new();
    d.stores_at_once = false;
    let committing = d.commit(simple_commit(5, d.wall()));
    d.step(Input::Resigned { epoch: Some(2) });
    d.step(Input::Elected { epoch: 3 });
    d.step(Input::Loaded {
        epoch: 3,
        partition: Box::default(),
    });
    d.store();
    assert_eq!(d.committed(committing), [Ok(())]);
    assert_eq!(d.offset(), None, "the load has seen what the log had");
}

#[test]
fn a_partition_that_cannot_be_loaded_is_not_served() {
    let mut d = Dialogue::elsewhere(GroupConfig::default());
    d.step(Input::Elected { epoch: 1 });
    d.step(Input::LoadFailed {
        epoch: 1,
        failure: AppendFailure::Storage,
    });
    assert_eq!(d.machine.describe(GROUP).err(), Some(GroupError::NotCoordinator));
    assert!(d.messages.iter().any(|(level, _)| *level == LogLevel::Error));
    d.step(Input::Elected { epoch: 2 });
    d.step(Input::Loaded {
        epoch: 2,
        partition: Box::default(),
    });
    assert_eq!(d.state(), GroupState::Dead);
}

#[test]
fn a_broker_that_stops_answers_everybody_and_takes_nothing_new() {
    let mut d = Dialogue::new();
    let joining = d.join(join("a"));
    d.step(Input::Stopped);
    assert_eq!(d.join_refusal(joining).0, GroupError::NotCoordinator);
    assert_eq!(d.heartbeat("a", 1), Err(GroupError::CoordinatorNotAvailable));
    d.step(Input::Elected { epoch: 9 });
    assert_eq!(
        d.machine.describe(GROUP).err(),
        Some(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(d.machine.next_deadline(), None);
}
