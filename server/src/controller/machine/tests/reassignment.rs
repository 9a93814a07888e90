//! Replicas that move, step by step.

use super::world::World;
use super::*;
use crate::controller::request::ControllerError;
use crate::coordination::znodes::topic::encode_reassignment;

/// Brokers 0 to 3, and topic `t` on these replicas.
pub(super) fn world(replicas: &[i32]) -> World {
    let mut world = World::of(&[0, 1, 2, 3]);
    world.elect();
    world.put_topic("t", &[replicas]);
    world.topics_changed();
    world
}

pub(super) fn move_to(target: Option<&[i32]>) -> Request {
    let target = target.map(<[i32]>::to_vec);
    Request::AlterReassignments([(at("t", 0), target)].into())
}

fn outcome(answer: Option<Answer>) -> Result<(), ControllerError> {
    match answer {
        Some(Answer::AlterReassignments(mut results)) => results.pop_first().unwrap().1,
        other => panic!("{other:?}"),
    }
}

fn kind(answer: Option<Answer>) -> ControllerErrorKind {
    outcome(answer).unwrap_err().kind
}

fn lists(world: &World) -> String {
    let one = world.assignment("t").unwrap().partitions[&0].clone();
    format!(
        "{:?} +{:?} -{:?}",
        one.replicas, one.adding_replicas, one.removing_replicas
    )
}

/// What was said to one broker, without metadata.
fn to(broker: i32, said: &[String]) -> Vec<&str> {
    let prefix = format!("{broker} ");
    said.iter()
        .filter(|line| line.starts_with(&prefix) && !line.contains("hears"))
        .map(|line| &line[prefix.len()..])
        .collect()
}

#[test]
fn replicas_move_when_those_that_come_are_in_sync() {
    let mut world = world(&[0, 1]);
    let (said, answer) = world.ask(move_to(Some(&[2, 1])));
    assert_eq!(outcome(answer), Ok(()));
    assert_eq!(lists(&world), "[2, 1, 0] +[2] -[0]");
    assert_eq!(to(0, &said), ["leads t-0 0@1 [0, 1]"]);
    assert_eq!(to(1, &said), ["leads t-0 0@1 [0, 1]"]);
    assert_eq!(to(2, &said), ["leads t-0 0@1 [0, 1] new"]);
    let listed = world.ask(Request::ListReassignments(None)).1;
    let Some(Answer::ListReassignments(listed)) = listed else {
        panic!("{listed:?}");
    };
    assert_eq!(listed[&at("t", 0)].adding_replicas[..], [2]);

    let (said, _) = world.propose("t", 0, &[0, 1, 2]);
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
    assert_eq!(world.led("t"), (2, 3, vec![1, 2]));
    assert_eq!(to(0, &said), ["stops t-0", "stops t-0 delete"]);
    assert_eq!(to(1, &said), ["leads t-0 2@2 [1, 2]", "leads t-0 2@3 [1, 2]"]);
    assert_eq!(to(2, &said), ["leads t-0 2@2 [1, 2]", "leads t-0 2@3 [1, 2]"]);
    assert_eq!(said.last().unwrap(), "3 hears of [0, 1, 2, 3] t-0 2");
    let listed = world.ask(Request::ListReassignments(None)).1;
    assert_eq!(listed, Some(Answer::ListReassignments(BTreeMap::new())));
}

#[test]
fn a_move_that_only_changes_the_order_is_over_at_once() {
    let mut world = world(&[0, 1]);
    let (said, _) = world.ask(move_to(Some(&[1, 0])));
    assert_eq!(lists(&world), "[1, 0] +[] -[]");
    assert_eq!(
        to(0, &said),
        ["leads t-0 0@1 [0, 1]"],
        "the leader stays until the balance is looked at"
    );
}

#[test]
fn a_cancelled_move_removes_who_had_come() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 3])));
    let (said, answer) = world.ask(move_to(None));
    assert_eq!(outcome(answer), Ok(()));
    assert_eq!(lists(&world), "[0, 1] +[] -[]");
    assert_eq!(to(2, &said), ["stops t-0", "stops t-0 delete"]);
    assert_eq!(world.led("t").2, [0, 1]);
    assert_eq!(
        kind(world.ask(move_to(None)).1),
        ControllerErrorKind::NoReassignmentInProgress
    );
}

#[test]
fn a_new_target_replaces_the_old_one_and_removes_who_is_in_neither() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    let (said, _) = world.ask(move_to(Some(&[3, 1])));
    assert_eq!(lists(&world), "[3, 1, 0] +[3] -[0]");
    assert_eq!(to(2, &said), ["stops t-0", "stops t-0 delete"]);
    assert_eq!(to(3, &said), ["leads t-0 0@2 [0, 1]", "leads t-0 0@3 [0, 1] new"]);
    world.propose("t", 0, &[0, 1, 3]);
    assert_eq!(lists(&world), "[3, 1] +[] -[]");
    assert_eq!(world.led("t").0, 3);
}

#[test]
fn a_target_that_cannot_be_is_refused() {
    use ControllerErrorKind::{InvalidReplicaAssignment, UnknownTopicOrPartition};
    let mut world = world(&[0, 1]);
    for bad in [&[][..], &[1, 1], &[-1, 1], &[9, 1]] {
        assert_eq!(
            kind(world.ask(move_to(Some(bad))).1),
            InvalidReplicaAssignment,
            "{bad:?}"
        );
    }
    world.ask(Request::ControlledShutdown {
        broker_id: 3,
        broker_epoch: None,
    });
    assert_eq!(
        kind(world.ask(move_to(Some(&[3, 1]))).1),
        InvalidReplicaAssignment
    );
    let nowhere = Request::AlterReassignments([(at("u", 0), Some(vec![0]))].into());
    assert_eq!(kind(world.ask(nowhere).1), UnknownTopicOrPartition);
    world.put(&znodes::delete_topic("t"), "");
    world.deletions_changed();
    assert_eq!(kind(world.ask(move_to(Some(&[2, 1]))).1), UnknownTopicOrPartition);
}

#[test]
fn moves_that_old_tools_ask_for_are_made_and_ticked_off_one_by_one() {
    let mut world = world(&[0, 1]);
    world.put_topic("u", &[&[0, 1]]);
    world.topics_changed();
    let moves = [
        (at("t", 0), vec![2, 1]),
        (at("u", 0), vec![3, 1]),
        (at("none", 0), vec![0]),
        (at("u", 7), vec![]),
    ];
    let data = encode_reassignment(&moves);
    world.put(znodes::REASSIGN_PARTITIONS, std::str::from_utf8(&data).unwrap());
    world.moves_changed();
    let left = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[2,1]},{"topic":"u","partition":0,"replicas":[3,1]}]}"#;
    assert_eq!(world.text(znodes::REASSIGN_PARTITIONS), Some(left));
    assert_eq!(world.moves_changed(), [""; 0], "they are under way");
    world.propose("t", 0, &[0, 1, 2]);
    let left = r#"{"version":1,"partitions":[{"topic":"u","partition":0,"replicas":[3,1]}]}"#;
    assert_eq!(world.text(znodes::REASSIGN_PARTITIONS), Some(left));
    world.propose("u", 0, &[0, 1, 3]);
    assert_eq!(world.text(znodes::REASSIGN_PARTITIONS), None);
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
}

#[test]
fn a_request_replaces_what_an_old_tool_asked_for() {
    let mut world = world(&[0, 1]);
    let data = encode_reassignment(&[(at("t", 0), vec![2, 1])]);
    world.put(znodes::REASSIGN_PARTITIONS, std::str::from_utf8(&data).unwrap());
    world.moves_changed();
    world.ask(move_to(Some(&[3, 1])));
    assert_eq!(world.text(znodes::REASSIGN_PARTITIONS), None);
    assert_eq!(lists(&world), "[3, 1, 0] +[3] -[0]");
}

#[test]
fn a_leader_of_old_that_writes_the_in_sync_set_itself_completes_a_move() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    let state = r#"{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":1,"isr":[0,1,2]}"#;
    world.put(&znodes::partition_state("t", 0), state);
    world.tell(Input::StateChanged(at("t", 0)));
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
    assert_eq!(world.tell(Input::StateChanged(at("t", 0))), [""; 0]);
}

#[test]
fn a_move_goes_on_when_a_broker_of_the_target_comes_back() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    world.brokers.remove(&2);
    world.brokers_changed();
    world.register(2);
    let said = world.brokers_changed();
    assert_eq!(
        to(2, &said).last().unwrap(),
        &"leads t-0 0@3 [0, 1] new",
        "{said:?}"
    );
    world.propose("t", 0, &[0, 1, 2]);
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
}

/// A broker's answer to a LeaderAndIsr about the partition.
fn answers(world: &mut World, broker: i32, refusal: CommandRefusal) -> Vec<String> {
    let origin = CommandOrigin {
        controller_id: 0,
        controller_epoch: world.machine.context().epoch,
        broker_epoch: world.brokers[&broker].epoch,
    };
    world.tell(Input::LeaderAndIsrReplied {
        broker,
        origin,
        partitions: vec![at("t", 0)],
        reply: Ok(vec![(at("t", 0), refusal)]),
    })
}

fn tells_of_its_directories(world: &mut World, broker: i32) -> Vec<String> {
    let node = "/log_dir_event_notification/log_dir_event_0000000000";
    world.put(node, "");
    world.tell(Input::LogDirEvents {
        brokers: BTreeSet::from([broker]),
        nodes: vec![node.to_owned()],
    })
}

#[test]
fn a_replica_without_room_that_was_taken_back_and_asked_for_again_comes_once_there_is_room() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    answers(&mut world, 2, CommandRefusal::KafkaStorageError);
    world.ask(move_to(None));
    answers(&mut world, 2, CommandRefusal::KafkaStorageError);
    world.ask(move_to(Some(&[2, 1])));
    answers(&mut world, 2, CommandRefusal::KafkaStorageError);
    let said = tells_of_its_directories(&mut world, 2);
    assert_eq!(to(2, &said).len(), 1, "{said:?}");
    assert!(to(2, &said)[0].starts_with("leads t-0 0@"), "{said:?}");
}

#[test]
fn a_replica_that_is_back_leads_also_if_only_its_answer_to_the_repeated_command_is_heard() {
    let mut world = world(&[2]);
    answers(&mut world, 2, CommandRefusal::KafkaStorageError);
    assert_eq!(world.led("t").0, -1);
    tells_of_its_directories(&mut world, 2);
    let said = answers(&mut world, 2, CommandRefusal::StaleControllerEpoch);
    assert_eq!(world.led("t").0, 2);
    assert!(
        said.contains(&"3 hears of [0, 1, 2, 3] t-0 2".to_owned()),
        "{said:?}"
    );
}

#[test]
fn replicas_do_not_go_while_the_whole_target_is_down() {
    let mut world = world(&[0]);
    world.ask(move_to(Some(&[2])));
    // The only replica that is left in sync when the others are gone.
    world.propose("t", 0, &[0]);
    let state = r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":2,"isr":[2]}"#;
    world.put(&znodes::partition_state("t", 0), state);
    world.brokers.remove(&2);
    world.brokers_changed();
    world.tell(Input::StateChanged(at("t", 0)));
    assert_eq!(lists(&world), "[2, 0] +[2] -[0]");
    world.register(2);
    world.brokers_changed();
    assert_eq!(lists(&world), "[2] +[] -[]");
    assert_eq!(world.led("t").0, 2);
}

#[test]
fn replicas_do_not_go_when_the_target_leaves_the_in_sync_set_before_it_is_elected() {
    let mut world = world(&[0]);
    world.ask(move_to(Some(&[2])));
    let state = |isr: &str| {
        let state =
            format!(r#"{{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":1,"isr":[{isr}]}}"#);
        (znodes::partition_state("t", 0), state)
    };
    let in_sync = |world: &mut World| {
        let (path, data) = state("0,2");
        world.put(&path, &data);
    };
    in_sync(&mut world);
    world.before_readings = [None, Some(state("0"))].into();
    let said = world.tell(Input::StateChanged(at("t", 0)));
    assert!(world.before_readings.is_empty());
    assert_eq!(to(0, &said), [""; 0]);
    assert_eq!(lists(&world), "[2, 0] +[2] -[0]");
    assert_eq!(world.led("t"), (0, 1, vec![0]));
    // The watch tells of what the leader wrote, then of what it writes when the target has caught up.
    assert_eq!(world.tell(Input::StateChanged(at("t", 0))), [""; 0]);
    assert_eq!(lists(&world), "[2, 0] +[2] -[0]");
    in_sync(&mut world);
    let said = world.tell(Input::StateChanged(at("t", 0)));
    assert_eq!(to(0, &said), ["stops t-0", "stops t-0 delete"]);
    assert_eq!(lists(&world), "[2] +[] -[]");
    assert_eq!(world.led("t"), (2, 3, vec![2]));
}

#[test]
fn a_topic_that_moves_is_deleted_when_it_has_moved() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    world.put(&znodes::delete_topic("t"), "");
    assert_eq!(world.deletions_changed(), [""; 0]);
    let (said, _) = world.propose("t", 0, &[0, 1, 2]);
    assert!(said.contains(&"2 stops t-0 delete".to_owned()), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("t-0 deleted")), "{said:?}");
}

#[test]
fn partitions_that_are_added_while_another_moves_stay() {
    let mut world = world(&[0, 1]);
    world.ask(move_to(Some(&[2, 1])));
    let mut grown = world.assignment("t").unwrap();
    grown.partitions.insert(1, ReplicaAssignment::new([3]));
    // The controller has not heard of it yet.
    world.put(&znodes::topic("t"), std::str::from_utf8(&grown.encode()).unwrap());
    world.propose("t", 0, &[0, 1, 2]);
    let written = world.assignment("t").unwrap();
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
    assert_eq!(written.partitions[&1], ReplicaAssignment::new([3]));
    world.tell(Input::Assignment {
        topic: "t".into(),
        assignment: written,
    });
    assert_eq!(
        world.state(&at("t", 1)).unwrap().state.leader_and_isr.leader,
        Some(3)
    );
}

#[test]
fn an_id_in_the_in_sync_set_that_is_no_replica_leaves_it_and_hinders_nothing() {
    let mut world = world(&[0, 1]);
    let state = r#"{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":0,"isr":[0,3,1]}"#;
    world.put(&znodes::partition_state("t", 0), state);
    world.elect();
    world.brokers.remove(&0);
    world.brokers_changed();
    assert_eq!(world.led("t").2, [1]);
    world.ask(move_to(Some(&[2, 1])));
    world.propose("t", 1, &[1, 2]);
    assert_eq!(lists(&world), "[2, 1] +[] -[]");
}
