//! Dialogues with the machine: what it is told, and every command and write that follows.

mod brokers;
mod crash;
mod elections;
mod reassignment;
mod requests;
mod world;

use milena_engine::units::LeaderEpoch;

use super::*;
use crate::cluster::{Broker, Endpoint, SecurityProtocol};
use crate::controller::command::{BrokerCommand, CommandOrigin, CommandRefusal, MetadataLeader};
use crate::controller::request::Answer;
use crate::coordination::znodes::TopicAssignment;

fn broker(id: i32, epoch: i64) -> LiveBroker {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "h".into(),
        port: 9092 + id,
        security_protocol: SecurityProtocol::Plaintext,
    };
    LiveBroker {
        broker: Broker {
            id,
            endpoints: vec![endpoint],
            rack: None,
        },
        epoch,
    }
}

fn assignment(partitions: &[&[i32]]) -> TopicAssignment {
    let partitions = (0..)
        .zip(partitions.iter().map(|ids| ReplicaAssignment::new(*ids)))
        .collect();
    TopicAssignment { partitions }
}

/// Written after every broker registered.
fn state(leader: i32, epoch: i32, isr: &[i32], zk_version: i32) -> StateNode {
    let leader = (leader >= 0).then_some(leader);
    let leader_and_isr = LeaderAndIsr {
        leader,
        leader_epoch: LeaderEpoch(epoch),
        isr: isr.into(),
        zk_version,
    };
    let state = PartitionState {
        controller_epoch: 1,
        leader_and_isr,
    };
    StateNode { state, mzxid: 100 }
}

fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// Of commands to broker 0 of [`Dialogue::alone`].
const ORIGIN: CommandOrigin = CommandOrigin {
    controller_id: 0,
    controller_epoch: 5,
    broker_epoch: 11,
};

/// One line per command and write, as a person would tell it.
fn told(outputs: &[Output]) -> Vec<String> {
    outputs.iter().filter_map(line).collect()
}

fn line(output: &Output) -> Option<String> {
    let ids = |ids: &[i32]| format!("{ids:?}");
    Some(match output {
        Output::Note(_) | Output::Watch(_) | Output::WatchState(_) | Output::LiveBrokers(_) => return None,
        Output::Answer { answer, .. } => format!("answer {answer:?}"),
        Output::ReadUncleanTopics(topics) => format!("unclean? {topics:?}"),
        Output::ReadAssignment(topic) => format!("read {topic}"),
        Output::Moved => "moved".into(),
        Output::RemoveTopic { topic, .. } => format!("remove {topic}"),
        Output::ReadStates(partitions) => format!("read {partitions:?}"),
        Output::Write(operations) => {
            let fence = matches!(&operations[0], Operation::Check { path, version: 7 } if path == znodes::CONTROLLER_EPOCH);
            assert!(fence, "an unfenced write: {operations:?}");
            let lines: Vec<String> = operations[1..]
                .iter()
                .map(|operation| match operation {
                    Operation::Create { path, data, .. } => {
                        let data = data.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                        format!("+{path}{data}")
                    }
                    Operation::SetData { path, data, expected } => {
                        let data = data.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                        format!("={path}{data}{expected:?}")
                    }
                    Operation::Delete { path, .. } => format!("-{path}"),
                    Operation::Check { .. } => panic!("a second check"),
                })
                .collect();
            format!("write {}", lines.join(" "))
        }
        Output::Send { broker, command } => match command {
            BrokerCommand::LeaderAndIsr(command) => {
                let partitions: Vec<String> = command
                    .partitions
                    .iter()
                    .map(|one| {
                        let new = if one.is_new { " new" } else { "" };
                        let state = &one.state;
                        let leader = state.leader.unwrap_or(-1);
                        format!(
                            "{} {leader}@{} {}{new}",
                            one.topic_partition,
                            state.leader_epoch,
                            ids(&state.isr)
                        )
                    })
                    .collect();
                format!("{broker} leads {}", partitions.join(", "))
            }
            BrokerCommand::UpdateMetadata(command) => {
                let live: Vec<i32> = command.live_brokers.iter().map(|broker| broker.id).collect();
                let partitions: Vec<String> = command
                    .partitions
                    .iter()
                    .map(|one| {
                        let leader = match one.leader {
                            MetadataLeader::Broker(id) => id.to_string(),
                            MetadataLeader::None => "none".into(),
                            MetadataLeader::Deleted => "deleted".into(),
                        };
                        format!("{} {leader}", one.topic_partition)
                    })
                    .collect();
                format!("{broker} hears of {live:?} {}", partitions.join(", "))
                    .trim_end()
                    .to_owned()
            }
            BrokerCommand::StopReplica(command) => {
                let partitions: Vec<String> = command
                    .partitions
                    .iter()
                    .map(|one| {
                        let delete = if one.delete_partition { " delete" } else { "" };
                        format!("{}{delete}", one.topic_partition)
                    })
                    .collect();
                format!("{broker} stops {}", partitions.join(", "))
            }
        },
    })
}

struct Dialogue {
    machine: ControllerMachine,
}

impl Dialogue {
    /// Broker 0 is elected with epoch 5 over this cluster; returns what it said first.
    fn elected(reading: ClusterReading) -> (Dialogue, Vec<String>) {
        let mut dialogue = Dialogue {
            machine: ControllerMachine::new(0, true),
        };
        let said = dialogue.tell(Input::Elected {
            epoch: 5,
            epoch_zk_version: 7,
            reading,
        });
        (dialogue, said)
    }

    fn alone() -> Dialogue {
        let reading = ClusterReading {
            brokers: vec![broker(0, 11)],
            ..ClusterReading::default()
        };
        Dialogue::elected(reading).0
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        told(&self.machine.step(TimestampMs(0), input))
    }

    fn topics(&mut self, names: &[&str], new: Vec<(&str, TopicAssignment)>) -> Vec<String> {
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        let new = new
            .into_iter()
            .map(|(name, assignment)| (Arc::from(name), assignment))
            .collect();
        self.tell(Input::Topics { names, new })
    }

    fn written(&mut self) -> Vec<String> {
        self.tell(Input::Written(Ok(())))
    }

    /// The answer to a reading: these states.
    fn exist(&mut self, states: Vec<(TopicPartition, StateNode)>) -> Vec<String> {
        let failed = None;
        self.tell(Input::StatesRead(StatesReading { states, failed }))
    }

    fn refused(&mut self, index: usize, error: CoordinationError) -> Vec<String> {
        self.tell(Input::Written(Err(MultiError { index, error })))
    }
}

fn no_node() -> CoordinationError {
    CoordinationError::NoNode { path: "/x".into() }
}

fn exists() -> CoordinationError {
    CoordinationError::NodeExists { path: "/x".into() }
}

fn bad_version() -> CoordinationError {
    CoordinationError::BadVersion {
        path: "/x".into(),
        expected: 1,
    }
}

#[test]
fn a_new_topic_gets_its_states_in_one_write_then_its_leader_then_everyone_hears() {
    let mut dialogue = Dialogue::alone();
    let said = dialogue.topics(&["t"], vec![("t", assignment(&[&[0], &[0]]))]);
    let state = r#"{"controller_epoch":5,"leader":0,"version":1,"leader_epoch":0,"isr":[0]}"#;
    let expected = format!(
        "write +/brokers/topics/t/partitions +/brokers/topics/t/partitions/0 \
         +/brokers/topics/t/partitions/0/state{state} +/brokers/topics/t/partitions/1 \
         +/brokers/topics/t/partitions/1/state{state}"
    );
    assert_eq!(said, [expected]);
    assert_eq!(
        dialogue.written(),
        [
            "0 leads t-0 0@0 [0] new, t-1 0@0 [0] new",
            "0 hears of [0] t-0 0, t-1 0"
        ]
    );
    let context = dialogue.machine.context();
    assert_eq!(context.partition_phase(&at("t", 1)), PartitionPhase::Online);
    assert_eq!(context.replica_phase(&at("t", 1), 0), ReplicaPhase::Online);
    assert_eq!(
        dialogue.topics(&["t"], vec![]),
        [""; 0],
        "nothing new, nothing said"
    );
}

#[test]
fn a_topic_that_grows_gets_states_for_its_new_partitions_only() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.written();
    let grown = Input::Assignment {
        topic: "t".into(),
        assignment: assignment(&[&[0], &[0]]),
    };
    let said = dialogue.tell(grown.clone());
    assert!(
        said[0].starts_with("write +/brokers/topics/t/partitions/1 +"),
        "{said:?}"
    );
    assert_eq!(
        dialogue.written(),
        ["0 leads t-1 0@0 [0] new", "0 hears of [0] t-1 0"]
    );
    assert_eq!(dialogue.tell(grown), [""; 0]);
}

#[test]
fn a_deletion_tells_everyone_then_stops_then_deletes_and_removes_the_nodes_when_all_answered() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(
        &["t", "u"],
        vec![("t", assignment(&[&[0], &[0]])), ("u", assignment(&[&[0]]))],
    );
    dialogue.written();
    let said = dialogue.tell(Input::Deletions(vec!["t".into()]));
    assert_eq!(
        said,
        [
            "0 hears of [0] t-0 deleted, t-1 deleted",
            "0 stops t-0, t-1",
            "0 stops t-0 delete, t-1 delete"
        ]
    );
    assert_eq!(
        dialogue.tell(Input::Deletions(vec!["t".into()])),
        [""; 0],
        "it is under way"
    );
    let answer = |partition| Input::StopReplicaReplied {
        broker: 0,
        origin: ORIGIN,
        deleted: vec![at("t", partition)],
        reply: Ok(vec![]),
    };
    assert_eq!(dialogue.tell(answer(0)), [""; 0]);
    assert_eq!(dialogue.tell(answer(1)), ["remove t"]);
    assert_eq!(dialogue.tell(Input::TopicRemoved(Ok(()))), [""; 0]);
    assert_eq!(
        dialogue
            .machine
            .context()
            .topic_names()
            .map(|name| &**name)
            .collect::<Vec<_>>(),
        ["u"]
    );
    let again = dialogue.topics(&["t", "u"], vec![("t", assignment(&[&[0]]))]);
    assert!(
        again[0].starts_with("write +/brokers/topics/t/partitions "),
        "a new life: {again:?}"
    );
}

#[test]
fn a_refused_deletion_halts_until_the_broker_comes_back() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.written();
    dialogue.tell(Input::Deletions(vec!["t".into()]));
    let reply = Ok(vec![(at("t", 0), CommandRefusal::KafkaStorageError)]);
    let answer = Input::StopReplicaReplied {
        broker: 0,
        origin: ORIGIN,
        deleted: vec![at("t", 0)],
        reply,
    };
    assert_eq!(dialogue.tell(answer), [""; 0]);
    let said = dialogue.tell(Input::Brokers(vec![broker(0, 12)]));
    assert!(said.contains(&"0 stops t-0 delete".to_owned()), "{said:?}");
}

#[test]
fn an_answer_from_a_former_life_of_a_broker_or_to_a_former_controller_counts_for_nothing() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.written();
    dialogue.tell(Input::Deletions(vec!["t".into()]));
    let said = dialogue.tell(Input::Brokers(vec![broker(0, 12)]));
    assert!(said.contains(&"0 stops t-0 delete".to_owned()), "{said:?}");
    let answer = |origin, reply| Input::StopReplicaReplied {
        broker: 0,
        origin,
        deleted: vec![at("t", 0)],
        reply,
    };
    // What was meant for the former life is given up, and told last.
    let given_up = Err(CommandRefusal::StaleBrokerEpoch);
    assert_eq!(dialogue.tell(answer(ORIGIN, given_up)), [""; 0]);
    let of_former_controller = CommandOrigin {
        controller_epoch: 4,
        broker_epoch: 12,
        ..ORIGIN
    };
    assert_eq!(dialogue.tell(answer(of_former_controller, Ok(vec![]))), [""; 0]);
    let present = CommandOrigin {
        broker_epoch: 12,
        ..ORIGIN
    };
    assert_eq!(dialogue.tell(answer(present, Ok(vec![]))), ["remove t"]);
}

#[test]
fn a_request_to_delete_what_does_not_exist_is_removed() {
    let mut dialogue = Dialogue::alone();
    let said = dialogue.tell(Input::Deletions(vec!["t".into(), "u".into()]));
    assert_eq!(said, ["write -/admin/delete_topics/t -/admin/delete_topics/u"]);
    assert_eq!(
        dialogue.refused(1, no_node()),
        ["write -/admin/delete_topics/u"],
        "one is gone already"
    );
    assert_eq!(dialogue.written(), [""; 0]);
}

#[test]
fn with_deletion_disabled_requests_are_removed_and_topics_stay() {
    let mut machine = ControllerMachine::new(0, false);
    let reading = ClusterReading {
        brokers: vec![broker(0, 11)],
        topics: vec![("t".into(), assignment(&[&[0]]))],
        states: vec![(at("t", 0), state(0, 3, &[0], 4))],
        deletions: vec!["t".into()],
        ..ClusterReading::default()
    };
    let elected = Input::Elected {
        epoch: 5,
        epoch_zk_version: 7,
        reading,
    };
    let said = told(&machine.step(TimestampMs(0), elected));
    assert_eq!(said.last().unwrap(), "write -/admin/delete_topics/t");
    assert!(!said.iter().any(|line| line.contains("stops")));
}

#[test]
fn a_new_controller_tells_what_it_knows_first_then_leaders_and_writes_nothing_if_all_are_alive() {
    let reading = ClusterReading {
        brokers: vec![broker(0, 11)],
        topics: vec![("t".into(), assignment(&[&[0]]))],
        states: vec![(at("t", 0), state(0, 3, &[0], 4))],
        ..ClusterReading::default()
    };
    let (dialogue, said) = Dialogue::elected(reading);
    assert_eq!(
        said,
        [
            "0 hears of [0] t-0 0",
            "0 leads t-0 0@3 [0]",
            "0 hears of [0] t-0 0"
        ]
    );
    assert!(dialogue.machine.is_active());
}

#[test]
fn a_new_controller_finishes_what_the_last_one_left_undone() {
    let reading = ClusterReading {
        brokers: vec![broker(0, 11)],
        // t has no states yet, u has no leader, v is being deleted.
        topics: vec![
            ("t".into(), assignment(&[&[0]])),
            ("u".into(), assignment(&[&[0]])),
            ("v".into(), assignment(&[&[0]])),
        ],
        states: vec![
            (at("u", 0), state(-1, 3, &[0], 4)),
            (at("v", 0), state(0, 0, &[0], 0)),
        ],
        deletions: vec!["v".into()],
        ..ClusterReading::default()
    };
    let (mut dialogue, said) = Dialogue::elected(reading);
    assert!(
        said.last()
            .unwrap()
            .starts_with("write +/brokers/topics/t/partitions "),
        "{said:?}"
    );
    assert_eq!(dialogue.written(), ["read [u-0]"]);
    let reading = StatesReading {
        states: vec![(at("u", 0), state(-1, 3, &[0], 4))],
        ..Default::default()
    };
    let said = dialogue.tell(Input::StatesRead(reading));
    let elected = r#"{"controller_epoch":5,"leader":0,"version":1,"leader_epoch":4,"isr":[0]}"#;
    assert_eq!(
        said,
        [format!(
            "write =/brokers/topics/u/partitions/0/state{elected}Exactly(4)"
        )]
    );
    assert_eq!(
        dialogue.written(),
        [
            "0 leads t-0 0@0 [0] new, u-0 0@4 [0]",
            "0 hears of [0] t-0 0, u-0 0",
            "0 hears of [0] v-0 deleted",
            "0 stops v-0",
            "0 stops v-0 delete",
        ]
    );
    assert_eq!(
        dialogue
            .machine
            .context()
            .leadership(&at("u", 0))
            .unwrap()
            .leader_and_isr
            .zk_version,
        5
    );
}

#[test]
fn an_offline_log_directory_leaves_its_partitions_without_a_leader() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0], &[0]]))]);
    dialogue.written();
    let nodes = vec!["/log_dir_event_notification/log_dir_event_0000000000".to_owned()];
    let said = dialogue.tell(Input::LogDirEvents {
        brokers: BTreeSet::from([0]),
        nodes,
    });
    assert_eq!(
        said[0], "0 leads t-0 0@0 [0], t-1 0@0 [0]",
        "the broker is asked what it still has"
    );
    assert!(
        said[2].starts_with("write -/log_dir_event_notification/"),
        "{said:?}"
    );
    dialogue.written();
    let reply = Ok(vec![(at("t", 1), CommandRefusal::KafkaStorageError)]);
    let partitions = vec![at("t", 0), at("t", 1)];
    let said = dialogue.tell(Input::LeaderAndIsrReplied {
        broker: 0,
        origin: ORIGIN,
        partitions,
        reply,
    });
    assert_eq!(said, ["read [t-1]"], "an election finds no one");
    let states = || StatesReading {
        states: vec![(at("t", 1), state(0, 0, &[0], 0))],
        ..Default::default()
    };
    assert_eq!(dialogue.tell(Input::StatesRead(states())), ["read [t-1]"]);
    let said = dialogue.tell(Input::StatesRead(states()));
    assert!(
        said[0].contains(r#""leader":-1,"version":1,"leader_epoch":1,"isr":[0]"#),
        "{said:?}"
    );
    let said = dialogue.written();
    assert!(said.contains(&"0 hears of [0] t-1 none".to_owned()), "{said:?}");
    // Once there is room for it, the broker has the controller ask again.
    dialogue.tell(Input::LogDirEvents {
        brokers: BTreeSet::from([0]),
        nodes: vec!["/log_dir_event_notification/log_dir_event_0000000001".to_owned()],
    });
    dialogue.written();
    let said = dialogue.tell(Input::LeaderAndIsrReplied {
        broker: 0,
        origin: ORIGIN,
        partitions: vec![at("t", 0), at("t", 1)],
        reply: Ok(vec![]),
    });
    assert_eq!(
        said,
        ["0 hears of [0] t-1 none", "read [t-1]"],
        "who is back is elected"
    );
}

#[test]
fn a_fenced_write_ends_the_reign() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    assert_eq!(dialogue.refused(0, bad_version()), ["moved"]);
    assert!(!dialogue.machine.is_active());
    assert_eq!(dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]), [""; 0]);
}

#[test]
fn what_exists_already_is_left_out_of_a_write_and_the_rest_goes_on() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0], &[0]]))]);
    assert_eq!(dialogue.refused(1, exists()), ["read [t-0, t-1]"]);
    let said = dialogue.exist(vec![(at("t", 0), state(0, 3, &[0], 4))]);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("write +/brokers/topics/t/partitions/1 "),
        "{said:?}"
    );
    // A parent without a state is left out too.
    let said = dialogue.refused(1, exists());
    assert!(
        said[0].starts_with("write +/brokers/topics/t/partitions/1/state"),
        "{said:?}"
    );
    assert_eq!(
        dialogue.refused(1, exists()),
        ["read [t-1]"],
        "someone else goes on creating"
    );
    let said = dialogue.exist(vec![(at("t", 1), state(0, 0, &[0], 0))]);
    assert_eq!(
        said[0], "0 leads t-0 0@3 [0], t-1 0@0 [0]",
        "what someone else wrote holds"
    );
}

#[test]
fn many_states_that_exist_already_are_read_and_told_at_once() {
    let mut dialogue = Dialogue::alone();
    let many: Vec<&[i32]> = vec![&[0]; 1000];
    dialogue.topics(&["t"], vec![("t", assignment(&many))]);
    let said = dialogue.refused(1, exists());
    assert!(said[0].starts_with("read [t-0, ") && said[0].ends_with("t-999]"));
    let states = (0..999).map(|number| (at("t", number), state(0, 3, &[0], 4)));
    let said = dialogue.exist(states.collect());
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("write +/brokers/topics/t/partitions/999 "));
    let said = dialogue.written();
    assert_eq!(said.len(), 2, "one command to the broker, and metadata");
    assert!(said[0].starts_with("0 leads t-0 0@3 [0], t-1 "));
    assert!(said[0].ends_with("t-998 0@3 [0], t-999 0@0 [0] new"));
}

#[test]
fn a_state_that_exists_and_nobody_can_read_is_not_tried_again() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    assert_eq!(dialogue.refused(1, exists()), ["read [t-0]"]);
    let unreadable = Vec::new;
    assert_eq!(dialogue.exist(unreadable()).len(), 1, "parents may exist without");
    dialogue.refused(1, exists());
    assert_eq!(dialogue.refused(1, exists()), ["read [t-0]"]);
    assert_eq!(dialogue.exist(unreadable()), [""; 0]);
}

#[test]
fn a_creation_ends_if_what_exists_cannot_be_read() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.refused(1, exists());
    let reading = StatesReading {
        failed: Some(no_node()),
        ..Default::default()
    };
    assert_eq!(dialogue.tell(Input::StatesRead(reading)), [""; 0]);
    assert_eq!(
        dialogue.machine.context().partition_phase(&at("t", 0)),
        PartitionPhase::New
    );
}

#[test]
fn other_inputs_wait_while_an_answer_is_awaited() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    assert_eq!(
        dialogue.topics(&["t", "u"], vec![("u", assignment(&[&[0]]))]),
        [""; 0]
    );
    let said = dialogue.written();
    assert_eq!(said[0], "0 leads t-0 0@0 [0] new");
    assert!(said[2].starts_with("write +/brokers/topics/u/"));
}

#[test]
fn a_topic_that_is_being_deleted_does_not_grow() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.written();
    dialogue.tell(Input::Deletions(vec!["t".into()]));
    let grown = Input::Assignment {
        topic: "t".into(),
        assignment: assignment(&[&[0], &[0]]),
    };
    let said = dialogue.tell(grown);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains(r#"=/brokers/topics/t{"version":2,"partitions":{"0":[0]}"#),
        "{said:?}"
    );
}

#[test]
fn many_partitions_are_written_in_few_pieces() {
    let mut dialogue = Dialogue::alone();
    let many: Vec<&[i32]> = vec![&[0]; 5000];
    let mut writes = 0;
    let mut said = dialogue.topics(&["t"], vec![("t", assignment(&many))]);
    while said.first().is_some_and(|line| line.starts_with("write ")) {
        writes += 1;
        said = dialogue.written();
    }
    assert_eq!(writes, 3);
    assert!(said[0].contains("t-4999 0@0 [0] new"));
    assert_eq!(dialogue.machine.context().partition_count("t"), 5000);
}

#[test]
fn a_broker_that_moved_is_announced_to_all() {
    let mut dialogue = Dialogue::alone();
    let mut moved = broker(0, 11);
    moved.broker.endpoints[0].port = 1;
    assert_eq!(
        dialogue.tell(Input::Brokers(vec![moved.clone()])),
        ["0 hears of [0]"]
    );
    assert_eq!(dialogue.tell(Input::Brokers(vec![moved])), [""; 0]);
}
