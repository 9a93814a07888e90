//! What brokers and administrators ask: in-sync sets, controlled shutdown, elections.

use super::world::World;
use super::*;
use crate::controller::request::{ControllerError, ElectionType};

/// Brokers 0, 1 and 2, and topic `t` on these replicas.
fn world(replicas: &[i32]) -> World {
    let mut world = World::of(&[0, 1, 2]);
    world.elect();
    world.put_topic("t", &[replicas]);
    world.topics_changed();
    world
}

fn isr_of(answer: Option<Answer>) -> Result<LeaderAndIsr, ControllerErrorKind> {
    let Some(Answer::AlterIsr(Ok(mut results))) = answer else {
        panic!("{answer:?}");
    };
    results
        .remove(&at("t", 0))
        .unwrap()
        .map_err(|error: ControllerError| error.kind)
}

#[test]
fn a_proposed_in_sync_set_is_written_in_the_same_epoch_and_all_brokers_hear_of_it() {
    let mut world = world(&[1, 0, 2]);
    let (said, answer) = world.propose("t", 1, &[1, 2]);
    assert_eq!(
        said,
        [
            "0 hears of [0, 1, 2] t-0 1",
            "1 hears of [0, 1, 2] t-0 1",
            "2 hears of [0, 1, 2] t-0 1"
        ]
    );
    let holds = isr_of(answer).unwrap();
    assert_eq!(
        (holds.leader, &holds.isr[..], holds.zk_version),
        (Some(1), &[1, 2][..], 1)
    );
    assert_eq!(world.led("t"), (1, 0, vec![1, 2]));
    let before = world.text(&znodes::partition_state("t", 0)).unwrap().to_owned();
    let (_, answer) = world.propose("t", 1, &[1, 2]);
    assert_eq!(isr_of(answer).unwrap(), holds, "it is so already");
    assert_eq!(
        world.state(&at("t", 0)).unwrap().state.leader_and_isr.zk_version,
        1
    );
    assert_eq!(world.text(&znodes::partition_state("t", 0)).unwrap(), before);
}

#[test]
fn proposals_are_refused_by_broker_epoch_leader_epoch_leader_and_version() {
    use ControllerErrorKind::{
        FencedLeaderEpoch, InvalidRequest, InvalidUpdateVersion, StaleBrokerEpoch, UnknownTopicOrPartition,
    };
    let mut world = world(&[1, 0, 2]);
    let present = world.state(&at("t", 0)).unwrap().state.leader_and_isr;
    let ask = |world: &mut World, broker_id, broker_epoch, topic: &str, proposed: LeaderAndIsr| {
        let request = Request::AlterIsr {
            broker_id,
            broker_epoch,
            proposals: vec![(at(topic, 0), proposed)],
        };
        match world.ask(request).1 {
            Some(Answer::AlterIsr(Ok(mut results))) => results.remove(&at(topic, 0)).unwrap(),
            Some(Answer::AlterIsr(Err(error))) => Err(error),
            other => panic!("{other:?}"),
        }
        .map_err(|error| error.kind)
    };
    let epoch = world.brokers[&1].epoch;
    let proposed = LeaderAndIsr {
        leader: Some(1),
        isr: [1, 2].into(),
        ..present.clone()
    };
    let other = |change: fn(&mut LeaderAndIsr)| {
        let mut other = proposed.clone();
        change(&mut other);
        other
    };
    for stale in [epoch - 1, epoch + 1] {
        assert_eq!(
            ask(&mut world, 1, stale, "t", proposed.clone()),
            Err(StaleBrokerEpoch)
        );
    }
    assert_eq!(
        ask(&mut world, 9, epoch, "t", proposed.clone()),
        Err(StaleBrokerEpoch)
    );
    assert_eq!(
        ask(&mut world, 1, epoch, "u", proposed.clone()),
        Err(UnknownTopicOrPartition)
    );
    let old = other(|proposed| proposed.leader_epoch = LeaderEpoch(-1));
    assert_eq!(ask(&mut world, 1, epoch, "t", old), Err(FencedLeaderEpoch));
    let of_follower = world.brokers[&2].epoch;
    assert_eq!(
        ask(&mut world, 2, of_follower, "t", proposed.clone()),
        Err(FencedLeaderEpoch)
    );
    let without_leader = other(|proposed| proposed.isr = [2].into());
    assert_eq!(
        ask(&mut world, 1, epoch, "t", without_leader),
        Err(InvalidRequest)
    );
    let version = other(|proposed| proposed.zk_version = 7);
    assert_eq!(ask(&mut world, 1, epoch, "t", version), Err(InvalidUpdateVersion));
    assert_eq!(world.led("t"), (1, 0, vec![1, 0, 2]));
}

#[test]
fn a_replica_that_is_down_or_shutting_down_does_not_join_and_its_leader_gets_a_new_epoch() {
    let mut world = world(&[1, 0, 2]);
    world.ask(Request::ControlledShutdown {
        broker_id: 2,
        broker_epoch: None,
    });
    assert_eq!(world.led("t"), (1, 1, vec![1, 0]));
    let (said, answer) = world.propose("t", 1, &[1, 0, 2]);
    assert_eq!(isr_of(answer), Err(ControllerErrorKind::FencedLeaderEpoch));
    assert!(said.contains(&"1 leads t-0 1@2 [1, 0]".to_owned()), "{said:?}");
    assert_eq!(world.led("t"), (1, 2, vec![1, 0]));
    world.brokers.remove(&2);
    world.brokers_changed();
    let (_, answer) = world.propose("t", 1, &[1, 0, 2]);
    assert_eq!(isr_of(answer), Err(ControllerErrorKind::FencedLeaderEpoch));
    world.register(2);
    world.brokers_changed();
    let (_, answer) = world.propose("t", 1, &[1, 0, 2]);
    assert_eq!(isr_of(answer).unwrap().isr[..], [1, 0, 2]);
}

#[test]
fn in_sync_sets_that_leaders_of_old_write_are_read_and_told_to_all() {
    let mut world = world(&[1, 0, 2]);
    let state = r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#;
    world.put(&znodes::partition_state("t", 0), state);
    let node = "/isr_change_notification/isr_change_0000000000";
    world.put(node, "");
    let said = world.tell(Input::IsrChanges {
        partitions: vec![at("t", 0), at("gone", 0)],
        nodes: vec![node.to_owned()],
    });
    assert_eq!(said.len(), 3, "{said:?}");
    let Some((_, BrokerCommand::UpdateMetadata(command))) = world.told.last() else {
        panic!("{said:?}");
    };
    assert_eq!(
        (&command.partitions[0].isr[..], command.partitions[0].zk_version),
        (&[1][..], 1)
    );
    assert_eq!(world.text(node), None);
    world.brokers.remove(&1);
    world.brokers_changed();
    assert_eq!(world.led("t"), (-1, 1, vec![1]), "0 and 2 are out of sync");
}

#[test]
fn a_broker_that_shuts_down_hands_its_leaderships_over_and_leaves_the_in_sync_sets() {
    let mut world = World::of(&[0, 1, 2]);
    world.elect();
    for (topic, replicas) in [("f", &[0, 1][..]), ("l", &[1, 2]), ("sole", &[1])] {
        world.put_topic(topic, &[replicas]);
    }
    world.topics_changed();
    let broker_epoch = Some(world.brokers[&1].epoch);
    let shutdown = |broker_epoch| Request::ControlledShutdown {
        broker_id: 1,
        broker_epoch,
    };
    let (said, answer) = world.ask(shutdown(broker_epoch));
    assert_eq!(
        answer,
        Some(Answer::ControlledShutdown(Ok(Vec::new()))),
        "a sole replica does not count"
    );
    assert_eq!(
        said,
        [
            "2 leads l-0 2@1 [2]",
            "0 hears of [0, 1, 2] l-0 2",
            "1 hears of [0, 1, 2] l-0 2",
            "2 hears of [0, 1, 2] l-0 2",
            "1 stops l-0",
            "0 leads f-0 0@1 [0]",
            "0 hears of [0, 1, 2] f-0 0",
            "1 hears of [0, 1, 2] f-0 0",
            "2 hears of [0, 1, 2] f-0 0",
            "1 stops f-0",
        ]
    );
    assert_eq!(world.led("sole"), (1, 0, vec![1]));
    // A topic that is created meanwhile does without it.
    world.put_topic("new", &[&[1, 0]]);
    world.topics_changed();
    assert_eq!(world.led("new"), (0, 0, vec![0]));
    world.brokers.remove(&1);
    world.brokers_changed();
    world.register(1);
    world.brokers_changed();
    assert_eq!(world.led("sole"), (1, 2, vec![1]));
}

#[test]
fn a_follower_that_is_behind_is_stopped_by_a_newer_epoch() {
    let mut world = world(&[1, 0]);
    world.propose("t", 1, &[1]);
    let (said, _) = world.ask(Request::ControlledShutdown {
        broker_id: 0,
        broker_epoch: None,
    });
    assert_eq!(world.led("t"), (1, 1, vec![1]));
    assert_eq!(said.last().unwrap(), "0 stops t-0");
    let Some((0, BrokerCommand::StopReplica(command))) = world.told.last() else {
        panic!("{said:?}");
    };
    assert_eq!(command.partitions[0].leader_epoch, Some(LeaderEpoch(1)));
    assert!(!said.contains(&"0 leads t-0 1@1 [1]".to_owned()), "{said:?}");
}

#[test]
fn a_broker_keeps_the_leaderships_that_nobody_can_take() {
    let mut world = world(&[1, 0]);
    world.propose("t", 1, &[1]);
    let (_, answer) = world.ask(Request::ControlledShutdown {
        broker_id: 1,
        broker_epoch: None,
    });
    assert_eq!(answer, Some(Answer::ControlledShutdown(Ok(vec![at("t", 0)]))));
    assert_eq!(world.led("t"), (1, 0, vec![1]));
}

#[test]
fn a_shutdown_in_a_former_life_or_of_nobody_is_refused() {
    let mut world = world(&[1, 0]);
    let kind = |answer: Option<Answer>| match answer {
        Some(Answer::ControlledShutdown(Err(error))) => error.kind,
        other => panic!("{other:?}"),
    };
    let stale = Some(world.brokers[&1].epoch - 1);
    for (broker_id, broker_epoch, expected) in [
        (1, stale, ControllerErrorKind::StaleBrokerEpoch),
        (9, None, ControllerErrorKind::BrokerNotAvailable),
        (9, stale, ControllerErrorKind::BrokerNotAvailable),
    ] {
        let request = Request::ControlledShutdown {
            broker_id,
            broker_epoch,
        };
        assert_eq!(kind(world.ask(request).1), expected);
    }
    assert_eq!(world.led("t"), (1, 0, vec![1, 0]));
}

fn elect(world: &mut World, topics: &[&str], election_type: ElectionType) -> Vec<String> {
    let request = Request::ElectLeaders {
        partitions: topics.iter().map(|topic| at(topic, 0)).collect(),
        election_type,
    };
    let Some(Answer::ElectLeaders(results)) = world.ask(request).1 else {
        panic!("no answer");
    };
    results
        .into_iter()
        .map(|(at, result)| match result {
            Ok(leader) => format!("{at} {leader}"),
            Err(error) => format!("{at} {:?}", error.kind),
        })
        .collect()
}

#[test]
fn preferred_replicas_lead_again_when_asked_and_in_sync() {
    let mut world = World::of(&[0, 1]);
    world.elect();
    for topic in ["back", "behind", "there", "going"] {
        world.put_topic(topic, &[&[1, 0]]);
    }
    world.topics_changed();
    world.register(1);
    world.brokers_changed();
    world.propose("back", 0, &[0, 1]);
    world.propose("there", 0, &[0, 1]);
    world.put(&znodes::delete_topic("going"), "");
    world.deletions_changed();
    assert_eq!(
        elect(&mut world, &["there"], ElectionType::Preferred),
        ["there-0 1"]
    );
    assert_eq!(
        elect(
            &mut world,
            &["back", "behind", "there", "going", "none"],
            ElectionType::Preferred
        ),
        [
            "back-0 1",
            "behind-0 PreferredLeaderNotAvailable",
            "going-0 InvalidTopicException",
            "none-0 UnknownTopicOrPartition",
            "there-0 ElectionNotNeeded",
        ]
    );
    assert_eq!(world.led("back"), (1, 2, vec![0, 1]));
    assert_eq!(world.led("behind"), (0, 1, vec![0]));
}

#[test]
fn an_unclean_election_that_is_asked_for_happens_only_without_a_leader() {
    let mut world = world(&[1, 0]);
    world.propose("t", 1, &[1]);
    assert_eq!(
        elect(&mut world, &["t"], ElectionType::Unclean),
        ["t-0 ElectionNotNeeded"]
    );
    world.brokers.remove(&1);
    world.brokers_changed();
    assert_eq!(world.led("t"), (-1, 1, vec![1]));
    assert_eq!(elect(&mut world, &["t"], ElectionType::Unclean), ["t-0 0"]);
    assert_eq!(world.led("t"), (0, 2, vec![0]));
    world.brokers.clear();
    world.register(2);
    world.brokers_changed();
    assert_eq!(
        elect(&mut world, &["t"], ElectionType::Unclean),
        ["t-0 EligibleLeadersNotAvailable"]
    );
}

#[test]
fn elections_that_old_tools_ask_for_are_held_and_ticked_off_also_by_the_next_controller() {
    let mut world = World::of(&[0, 1]);
    world.elect();
    world.put_topic("t", &[&[1, 0]]);
    world.topics_changed();
    let asked = r#"{"version":1,"partitions":[{"topic":"t","partition":0},{"topic":"none","partition":0}]}"#;
    for by_next in [false, true] {
        world.register(1);
        world.brokers_changed();
        world.propose("t", 0, &[0, 1]);
        world.put(znodes::PREFERRED_REPLICA_ELECTION, asked);
        if by_next {
            world.elect();
        } else {
            world.tell(Input::PreferredElection(vec![at("t", 0), at("none", 0)]));
        }
        assert_eq!(world.led("t").0, 1);
        assert_eq!(world.text(znodes::PREFERRED_REPLICA_ELECTION), None);
    }
}

#[test]
fn leaders_go_back_by_themselves_where_more_than_the_share_is_led_elsewhere() {
    let mut world = World::of(&[0, 1]);
    world.elect();
    world.put_topic("t", &[&[1, 0], &[1, 0], &[0, 1], &[0, 1]]);
    world.topics_changed();
    world.register(1);
    world.brokers_changed();
    for partition in 0..4 {
        let present = world.state(&at("t", partition)).unwrap().state.leader_and_isr;
        let proposed = LeaderAndIsr {
            leader: Some(0),
            isr: [0, 1].into(),
            ..present
        };
        let broker_epoch = world.brokers[&0].epoch;
        world.ask(Request::AlterIsr {
            broker_id: 0,
            broker_epoch,
            proposals: vec![(at("t", partition), proposed)],
        });
    }
    let rebalance = |imbalance_percentage| Input::RebalanceLeaders { imbalance_percentage };
    assert_eq!(
        world.tell(rebalance(100)),
        [""; 0],
        "all of them is not more than all"
    );
    let said = world.tell(rebalance(99));
    assert!(
        said[0].starts_with("0 leads t-0 1@2 [0, 1], t-1 1@2 [0, 1]"),
        "{said:?}"
    );
    assert_eq!(world.tell(rebalance(0)), [""; 0]);
}

#[test]
fn requests_of_a_controller_on_standby_are_not_answered() {
    let mut machine = ControllerMachine::new(0, true);
    let request = Request::ListReassignments(None);
    let id = RequestId(1);
    assert_eq!(machine.step(TimestampMs(0), Input::Request { id, request }), []);
}
