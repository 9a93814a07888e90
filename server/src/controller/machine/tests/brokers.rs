//! Several brokers that come, go and come back: which of them is told what.

use super::world::World;
use super::*;

/// Brokers 0, 1 and 2, a controller, and a topic of one partition on these replicas.
fn world(replicas: &[i32]) -> World {
    let mut world = World::of(&[0, 1, 2]);
    world.elect();
    world.put_topic("t", &[replicas]);
    world.topics_changed();
    world
}

#[test]
fn a_new_topic_is_led_by_its_first_live_replica_and_the_others_are_told_when_they_come() {
    let mut world = World::of(&[0, 1]);
    world.elect();
    world.put_topic("t", &[&[2, 1, 0]]);
    let said = world.topics_changed();
    assert_eq!(
        said,
        [
            "0 leads t-0 1@0 [1, 0] new",
            "1 leads t-0 1@0 [1, 0] new",
            "0 hears of [0, 1] t-0 1",
            "1 hears of [0, 1] t-0 1",
        ]
    );
    world.register(2);
    assert_eq!(
        world.brokers_changed(),
        [
            "0 hears of [0, 1, 2]",
            "1 hears of [0, 1, 2]",
            "2 hears of [0, 1, 2] t-0 1",
            "2 leads t-0 1@0 [1, 0]",
            "0 hears of [0, 1, 2] t-0 1",
            "1 hears of [0, 1, 2] t-0 1",
            "2 hears of [0, 1, 2] t-0 1",
        ]
    );
}

#[test]
fn a_broker_that_came_back_counts_as_gone_first() {
    let mut world = world(&[1, 0, 2]);
    world.register(1);
    let said = world.brokers_changed();
    assert_eq!(
        said[..4],
        [
            "0 leads t-0 0@1 [0, 2]",
            "2 leads t-0 0@1 [0, 2]",
            "0 hears of [0, 2] t-0 0",
            "2 hears of [0, 2] t-0 0",
        ]
    );
    assert!(said.contains(&"1 leads t-0 0@1 [0, 2]".to_owned()), "{said:?}");
    assert_eq!(world.led("t"), (0, 1, vec![0, 2]));
    let context = world.machine.context();
    assert_eq!(context.replica_phase(&at("t", 0), 1), ReplicaPhase::Online);
    assert_eq!(context.partition_phase(&at("t", 0)), PartitionPhase::Online);
}

#[test]
fn a_controller_with_a_successor_that_it_has_not_heard_of_has_nobody_lead_by_what_was_before() {
    let mut world = world(&[1, 0, 2]);
    // Broker 1 went, the successor had broker 0 lead, and broker 1 is back.
    let later = r#"{"controller_epoch":2,"leader":0,"version":1,"leader_epoch":1,"isr":[0,2]}"#;
    world.put(&znodes::partition_state("t", 0), later);
    world.register(1);
    let said = world.brokers_changed();
    assert!(said.contains(&"1 leads t-0 0@1 [0, 2]".to_owned()), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("@0")), "{said:?}");
}

#[test]
fn a_dead_follower_leaves_the_in_sync_set_in_a_new_epoch_and_is_offline_to_all() {
    let mut world = world(&[0, 1, 2]);
    world.brokers.remove(&2);
    let said = world.brokers_changed();
    assert_eq!(
        said,
        [
            "0 leads t-0 0@1 [0, 1]",
            "1 leads t-0 0@1 [0, 1]",
            "0 hears of [0, 1] t-0 0",
            "1 hears of [0, 1] t-0 0",
        ]
    );
    let told = world.told.last().unwrap();
    let BrokerCommand::UpdateMetadata(command) = &told.1 else {
        panic!("{told:?}");
    };
    assert_eq!(command.partitions[0].offline_replicas[..], [2]);
    assert_eq!(command.origin.broker_epoch, world.brokers[&1].epoch);
}

#[test]
fn a_dead_follower_that_was_behind_is_told_apart_from_its_next_life_by_a_new_epoch() {
    let mut world = world(&[0, 1, 2]);
    world.propose("t", 0, &[0, 1]);
    world.brokers.remove(&2);
    world.brokers_changed();
    assert_eq!(world.led("t"), (0, 1, vec![0, 1]));
    world.register(2);
    let said = world.brokers_changed();
    assert!(said.contains(&"2 leads t-0 0@1 [0, 1]".to_owned()), "{said:?}");
    // One that said that it would go has had it already.
    world.ask(Request::ControlledShutdown {
        broker_id: 2,
        broker_epoch: None,
    });
    assert_eq!(world.led("t").1, 2);
    world.brokers.remove(&2);
    world.brokers_changed();
    assert_eq!(world.led("t").1, 2);
}

#[test]
fn all_replicas_gone_leave_the_last_in_sync_replica_which_alone_leads_again() {
    let mut world = world(&[0, 1]);
    for id in [0, 1] {
        world.brokers.remove(&id);
        world.brokers_changed();
    }
    assert_eq!(world.led("t"), (-1, 2, vec![1]));
    world.register(0);
    world.brokers_changed();
    assert_eq!(world.led("t"), (-1, 2, vec![1]), "0 fell behind");
    world.register(1);
    world.brokers_changed();
    assert_eq!(world.led("t"), (1, 3, vec![1]));
}

#[test]
fn a_leader_that_came_back_unseen_leads_no_more_in_its_old_epoch() {
    let mut world = world(&[1, 0, 2]);
    // The controller and broker 1 lose their sessions together.
    world.register(1);
    let said = world.elect();
    assert_eq!(world.led("t"), (0, 2, vec![0, 2]));
    assert!(!said.iter().any(|line| line.contains("@0")), "{said:?}");
    assert_eq!(
        said[3..6],
        [
            "0 leads t-0 0@2 [0, 2]",
            "1 leads t-0 0@2 [0, 2]",
            "2 leads t-0 0@2 [0, 2]"
        ]
    );
}

#[test]
fn a_follower_that_came_back_unseen_leaves_the_in_sync_set_and_hears_of_the_new_epoch() {
    let mut world = world(&[1, 0, 2]);
    world.register(2);
    let said = world.elect();
    assert_eq!(world.led("t"), (1, 1, vec![1, 0]));
    assert!(said.contains(&"2 leads t-0 1@1 [1, 0]".to_owned()), "{said:?}");
    assert_eq!(world.elect().len(), 9, "the next one has nothing to distrust");
    assert_eq!(world.led("t"), (1, 1, vec![1, 0]));
}

#[test]
fn a_replica_that_came_back_unseen_hears_of_a_new_epoch_also_where_it_is_out_of_sync() {
    let mut world = world(&[1, 0, 2]);
    world.register(2);
    let said = world.elect_while(|world| {
        // The leader does not wait for it.
        let shrunk = r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,0]}"#;
        world.put(&znodes::partition_state("t", 0), shrunk);
    });
    assert_eq!(world.led("t"), (1, 1, vec![1, 0]));
    assert!(said.contains(&"2 leads t-0 1@1 [1, 0]".to_owned()), "{said:?}");
    world.register(2);
    let said = world.elect();
    assert_eq!(world.led("t"), (1, 2, vec![1, 0]));
    assert!(said.contains(&"2 leads t-0 1@2 [1, 0]".to_owned()), "{said:?}");
}

#[test]
fn after_a_power_cut_of_all_the_leader_leads_alone_in_a_new_epoch() {
    let mut world = world(&[2, 0, 1]);
    for id in [0, 1, 2] {
        world.register(id);
    }
    world.elect();
    assert_eq!(world.led("t"), (2, 2, vec![2]));
}

#[test]
fn who_came_back_unseen_leads_on_where_the_others_in_sync_are_down() {
    let mut world = world(&[1, 0, 2]);
    // All sessions end; broker 2 is not back yet.
    world.brokers.remove(&2);
    world.register(1);
    world.register(0);
    world.elect();
    assert_eq!(world.led("t"), (1, 2, vec![1]));
    world.register(2);
    world.brokers_changed();
    assert_eq!(world.led("t"), (1, 2, vec![1]), "it gets what the leader has");
}

#[test]
fn a_dead_leader_is_replaced_by_who_came_back_unseen() {
    let mut world = world(&[1, 0, 2]);
    world.brokers.remove(&1);
    world.register(0);
    world.register(2);
    world.elect();
    assert_eq!(world.led("t"), (0, 2, vec![0]));
}

#[test]
fn a_topic_that_goes_is_not_looked_at_for_what_was_not_seen() {
    let mut world = world(&[2, 0, 1]);
    world.brokers.remove(&1);
    world.brokers_changed();
    world.put(&znodes::delete_topic("t"), "");
    world.register(2);
    world.elect();
    assert_eq!(world.led("t"), (2, 1, vec![2, 0]));
}

#[test]
fn a_sole_replica_keeps_its_epoch_when_it_starts_again() {
    let mut world = world(&[0]);
    world.register(0);
    world.elect();
    assert_eq!(world.led("t"), (0, 0, vec![0]));
}

#[test]
fn a_state_that_exists_already_holds_and_a_leader_of_it_that_is_gone_is_replaced() {
    let mut world = World::of(&[0, 1]);
    world.elect();
    for (topic, leader, isr) in [("held", 1, "[1]"), ("lost", 9, "[9,1]")] {
        world.put_topic(topic, &[&[0, 1]]);
        world.put(&znodes::partitions(topic), "");
        world.put(&znodes::partition(topic, 0), "");
        let state =
            format!(r#"{{"controller_epoch":1,"leader":{leader},"version":1,"leader_epoch":4,"isr":{isr}}}"#);
        world.put(&znodes::partition_state(topic, 0), &state);
    }
    let said = world.topics_changed();
    assert_eq!(world.led("held"), (1, 4, vec![1]));
    assert_eq!(world.led("lost"), (1, 5, vec![1]));
    assert!(
        said.iter().any(|line| line.starts_with("0 leads held-0 1@4 [1]")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|line| line.contains("lost-0 1@5 [1]")),
        "{said:?}"
    );
}
