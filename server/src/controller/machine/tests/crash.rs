//! The controller ended before each of its writes: whoever follows ends where it would have ended.
//!
//! Brokers here carry out what they are told, and a leader brings into sync whom it was told of.

use super::reassignment::{move_to, world};
use super::world::World;
use super::*;
use crate::coordination::znodes::topic::encode_reassignment;

/// More rounds than any scenario needs.
const ROUNDS: usize = 100;

/// Brokers and controllers work until nothing changes. A controller that ended is followed by another, which lives for
/// `next` writes, and that one by one that lives on.
fn settle(world: &mut World, next: usize) {
    let mut next = Some(next);
    for _ in 0..ROUNDS {
        if world.is_dead() {
            world.writes_left = next.take();
            world.elect();
            continue;
        }
        if !work(world) && !world.is_dead() {
            return;
        }
    }
    panic!("it does not come to rest");
}

/// One step of a broker; `false` if nobody has anything to do.
fn work(world: &mut World) -> bool {
    while let Some((broker, command)) = world.told.get(world.worked_off).cloned() {
        world.worked_off += 1;
        let live = world.brokers.contains_key(&broker);
        if let BrokerCommand::StopReplica(command) = command
            && live
        {
            let origin = command.origin;
            let deleted = command.partitions.into_iter().filter(|one| one.delete_partition);
            let deleted: Vec<_> = deleted.map(|one| one.topic_partition).collect();
            if !deleted.is_empty() {
                let reply = Ok(Vec::new());
                world.tell(Input::StopReplicaReplied {
                    broker,
                    origin,
                    deleted,
                    reply,
                });
                return true;
            }
        }
    }
    let Some(node) = world.state(&at("t", 0)) else {
        return false;
    };
    let state = node.state.leader_and_isr;
    let Some(leader) = state.leader.filter(|id| world.brokers.contains_key(id)) else {
        return false;
    };
    // What the leader was told of in this epoch.
    let known = world
        .told
        .iter()
        .rev()
        .find_map(|(broker, command)| match command {
            BrokerCommand::LeaderAndIsr(command) if *broker == leader => {
                let one = command
                    .partitions
                    .iter()
                    .find(|one| one.topic_partition == at("t", 0))?;
                (one.state.leader_epoch == state.leader_epoch).then(|| Arc::clone(&one.replicas))
            }
            _ => None,
        });
    let joining = known.iter().flat_map(|known| known.iter().copied());
    let joining = joining.filter(|id| world.brokers.contains_key(id) && !state.isr.contains(id));
    let joining: Vec<i32> = joining.collect();
    if joining.is_empty() {
        return false;
    }
    let isr: Vec<i32> = state.isr.iter().copied().chain(joining).collect();
    world.propose("t", leader, &isr);
    true
}

/// Runs a scenario with the controller ended before each of its writes, and the next one before its first ones.
fn at_every_write(begin: impl Fn() -> World, act: impl Fn(&mut World), check: impl Fn(&World)) {
    for next in 0..6 {
        for writes in 0.. {
            let mut world = begin();
            world.writes_left = Some(writes);
            act(&mut world);
            let mut ended = world.is_dead();
            while !ended && work(&mut world) {
                ended = world.is_dead();
            }
            settle(&mut world, next);
            check(&world);
            if !ended {
                assert!(writes > 2, "the scenario hardly writes");
                break;
            }
        }
    }
}

fn is_moved(world: &World) {
    let assignment = world.assignment("t").unwrap();
    assert_eq!(assignment.partitions[&0], ReplicaAssignment::new([2, 3]));
    let (leader, _, mut isr) = world.led("t");
    isr.sort_unstable();
    assert!([2, 3].contains(&leader));
    assert_eq!(isr, [2, 3]);
    assert_eq!(world.text(znodes::REASSIGN_PARTITIONS), None);
    for gone in [0, 1] {
        let is_told = |(broker, command): &(i32, BrokerCommand)| match command {
            BrokerCommand::StopReplica(command) => {
                *broker == gone && command.partitions.iter().any(|one| one.delete_partition)
            }
            _ => false,
        };
        assert!(world.told.iter().any(is_told), "{gone} keeps its replica");
    }
}

/// Topic `t` on brokers 0 and 1, with nothing left to do.
fn settled() -> World {
    let mut world = world(&[0, 1]);
    settle(&mut world, usize::MAX);
    world
}

#[test]
fn a_move_that_an_old_tool_asked_for_ends_at_its_target() {
    at_every_write(
        settled,
        |world| {
            let data = encode_reassignment(&[(at("t", 0), vec![2, 3])]);
            world.put(znodes::REASSIGN_PARTITIONS, std::str::from_utf8(&data).unwrap());
            world.moves_changed();
        },
        is_moved,
    );
}

#[test]
fn a_move_that_was_accepted_ends_at_its_target() {
    at_every_write(
        || {
            let mut world = settled();
            world.ask(move_to(Some(&[2, 3])));
            world
        },
        |_| {},
        is_moved,
    );
}

#[test]
fn a_cancelled_move_ends_at_its_origin_or_at_its_target_but_nowhere_between() {
    at_every_write(
        settled,
        |world| {
            world.ask(move_to(Some(&[2, 3])));
            world.ask(move_to(None));
        },
        |world| {
            let assignment = world.assignment("t").unwrap().partitions[&0].clone();
            assert!(!assignment.is_being_reassigned());
            let (leader, _, mut isr) = world.led("t");
            isr.sort_unstable();
            let mut replicas = assignment.replicas.to_vec();
            replicas.sort_unstable();
            assert_eq!(isr, replicas);
            assert!(replicas == [0, 1] || replicas == [2, 3], "{replicas:?}");
            assert!(replicas.contains(&leader));
        },
    );
}

#[test]
fn a_deleted_topic_is_gone_with_its_settings_and_its_request() {
    at_every_write(
        || {
            let mut world = settled();
            world.put("/config/topics/t", "{}");
            world
        },
        |world| {
            world.put(&znodes::delete_topic("t"), "");
            world.deletions_changed();
        },
        |world| {
            for path in ["/brokers/topics/t", "/config/topics/t", "/admin/delete_topics/t"] {
                assert_eq!(world.text(path), None);
            }
            assert_eq!(world.machine.context().topic_names().count(), 0);
        },
    );
}

#[test]
fn a_deletion_waits_for_a_dead_replica_across_controllers_and_the_name_is_free_afterwards() {
    let mut world = world(&[0, 1]);
    world.brokers.remove(&1);
    world.brokers_changed();
    world.put(&znodes::delete_topic("t"), "");
    world.deletions_changed();
    settle(&mut world, usize::MAX);
    assert!(world.assignment("t").is_some());
    world.elect();
    settle(&mut world, usize::MAX);
    assert!(world.assignment("t").is_some());
    world.register(1);
    world.brokers_changed();
    settle(&mut world, usize::MAX);
    assert!(world.assignment("t").is_none());
    world.put_topic("t", &[&[1]]);
    world.topics_changed();
    assert_eq!(world.led("t"), (1, 0, vec![1]), "a new life");
}

#[test]
fn a_new_topic_gets_its_leaders() {
    at_every_write(
        || World::of(&[0, 1]),
        |world| {
            world.elect();
            for topic in ["s", "t", "u"] {
                world.put_topic(topic, &[&[0, 1]]);
                world.topics_changed();
            }
        },
        |world| {
            for topic in ["s", "t", "u"] {
                assert_eq!(world.led(topic).0, 0);
            }
        },
    );
}
