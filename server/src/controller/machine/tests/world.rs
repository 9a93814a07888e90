//! A tree in memory and a machine on it: what the machine wants is done at once, and what it says to brokers is kept.
//!
//! A controller can be ended before any of its writes; the next one reads the tree as it stands.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::coordination::ExpectedVersion;
use crate::coordination::znodes::topic::{decode_partitions, decode_reassignment};

#[derive(Clone, Debug)]
struct Held {
    data: Option<Bytes>,
    version: i32,
    mzxid: i64,
}

pub(super) struct World {
    nodes: BTreeMap<String, Held>,
    zxid: i64,
    pub(super) brokers: BTreeMap<i32, LiveBroker>,
    pub(super) machine: ControllerMachine,
    epoch: i32,
    /// The controller ends before the write after so many.
    pub(super) writes_left: Option<usize>,
    /// Before each of the next readings of states: a node that someone else writes.
    pub(super) before_readings: VecDeque<Option<(String, String)>>,
    /// What brokers were told, oldest first.
    pub(super) told: Vec<(i32, BrokerCommand)>,
    /// How many of those brokers have worked off.
    pub(super) worked_off: usize,
    answer: Option<Answer>,
    is_dead: bool,
}

impl World {
    /// Brokers of these ids, and a tree without topics.
    pub(super) fn of(brokers: &[i32]) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            zxid: 1000,
            brokers: BTreeMap::new(),
            machine: ControllerMachine::new(0, true),
            epoch: 0,
            writes_left: None,
            before_readings: VecDeque::new(),
            told: Vec::new(),
            worked_off: 0,
            answer: None,
            is_dead: false,
        };
        world.put(znodes::CONTROLLER_EPOCH, "0");
        for id in brokers {
            world.register(*id);
        }
        world
    }

    pub(super) fn put(&mut self, path: &str, data: &str) {
        self.zxid += 1;
        let version = self.nodes.get(path).map_or(0, |held| held.version + 1);
        let held = Held {
            data: Some(Bytes::copy_from_slice(data.as_bytes())),
            version,
            mzxid: self.zxid,
        };
        self.nodes.insert(path.to_owned(), held);
    }

    /// A topic by its assignment, as a tool writes it.
    pub(super) fn put_topic(&mut self, topic: &str, partitions: &[&[i32]]) {
        let data = assignment(partitions).encode();
        self.put(&znodes::topic(topic), std::str::from_utf8(&data).unwrap());
    }

    pub(super) fn register(&mut self, id: i32) {
        self.zxid += 1;
        self.brokers.insert(id, broker(id, self.zxid));
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let data = self.nodes.get(path)?.data.as_ref();
        Some(data.map_or("", |data| std::str::from_utf8(data).unwrap()))
    }

    pub(super) fn assignment(&self, topic: &str) -> Option<TopicAssignment> {
        let path = znodes::topic(topic);
        let data = self.text(&path)?;
        Some(TopicAssignment::decode(&path, data.as_bytes()).unwrap())
    }

    pub(super) fn state(&self, at: &TopicPartition) -> Option<StateNode> {
        let path = znodes::partition_state(&at.topic, at.partition);
        let held = self.nodes.get(&path)?;
        let state = PartitionState::decode(&path, held.data.as_ref().unwrap(), held.version).unwrap();
        let mzxid = held.mzxid;
        Some(StateNode { state, mzxid })
    }

    /// Leader, leader epoch and in-sync replicas of partition 0.
    pub(super) fn led(&self, topic: &str) -> (i32, i32, Vec<i32>) {
        let state = self.state(&at(topic, 0)).unwrap().state.leader_and_isr;
        (
            state.leader.unwrap_or(-1),
            state.leader_epoch.get(),
            state.isr.to_vec(),
        )
    }

    fn names_below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        let below = self.nodes.keys().filter_map(|one| one.strip_prefix(&prefix));
        below
            .filter(|rest| !rest.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    fn topics(&self) -> Vec<(Arc<str>, TopicAssignment)> {
        let names = self.names_below(znodes::TOPICS);
        names
            .into_iter()
            .map(|name| (Arc::from(name.as_str()), self.assignment(&name).unwrap()))
            .collect()
    }

    fn deletions(&self) -> Vec<Arc<str>> {
        let names = self.names_below(znodes::DELETE_TOPICS);
        names.into_iter().map(Arc::from).collect()
    }

    fn reading(&self) -> ClusterReading {
        let topics = self.topics();
        let partitions = topics.iter().flat_map(|(topic, assignment)| {
            let numbers = assignment.partitions.keys();
            numbers.map(|number| TopicPartition::new(Arc::clone(topic), *number))
        });
        let states = partitions
            .filter_map(|at| Some((at.clone(), self.state(&at)?)))
            .collect();
        ClusterReading {
            brokers: self.brokers.values().cloned().collect(),
            topics,
            states,
            deletions: self.deletions(),
            moves: self.moves(),
            preferred_election: self
                .text(znodes::PREFERRED_REPLICA_ELECTION)
                .map(|data| decode_partitions(znodes::PREFERRED_REPLICA_ELECTION, data.as_bytes()).unwrap()),
        }
    }

    fn moves(&self) -> Option<RequestedMoves> {
        let path = znodes::REASSIGN_PARTITIONS;
        let data = self.text(path)?;
        Some(RequestedMoves {
            moves: decode_reassignment(path, data.as_bytes()).unwrap(),
            version: self.nodes[path].version,
        })
    }

    /// A new controller is elected and reads the tree; returns what brokers are told.
    pub(super) fn elect(&mut self) -> Vec<String> {
        self.elect_while(|_| {})
    }

    /// Of the tree as it was before this happened.
    pub(super) fn elect_while(&mut self, happens: impl FnOnce(&mut World)) -> Vec<String> {
        self.epoch += 1;
        self.is_dead = false;
        let epoch = self.epoch;
        self.put(znodes::CONTROLLER_EPOCH, &epoch.to_string());
        self.machine = ControllerMachine::new(0, true);
        let reading = self.reading();
        let epoch_zk_version = self.nodes[znodes::CONTROLLER_EPOCH].version;
        happens(self);
        self.tell(Input::Elected {
            epoch,
            epoch_zk_version,
            reading,
        })
    }

    /// The controller hears which brokers there are.
    pub(super) fn brokers_changed(&mut self) -> Vec<String> {
        let brokers = self.brokers.values().cloned().collect();
        self.tell(Input::Brokers(brokers))
    }

    pub(super) fn topics_changed(&mut self) -> Vec<String> {
        let topics = self.topics();
        let names = topics.iter().map(|(name, _)| Arc::clone(name)).collect();
        let known: BTreeSet<Arc<str>> = self.machine.context().topic_names().cloned().collect();
        let new = topics
            .into_iter()
            .filter(|(name, _)| !known.contains(name))
            .collect();
        self.tell(Input::Topics { names, new })
    }

    pub(super) fn deletions_changed(&mut self) -> Vec<String> {
        self.tell(Input::Deletions(self.deletions()))
    }

    pub(super) fn moves_changed(&mut self) -> Vec<String> {
        self.tell(Input::Moves(self.moves()))
    }

    /// What brokers are told, and the answer.
    pub(super) fn ask(&mut self, request: Request) -> (Vec<String>, Option<Answer>) {
        self.answer = None;
        let id = RequestId(1);
        let said = self.tell(Input::Request { id, request });
        (said, self.answer.take())
    }

    /// Broker `leader` proposes in-sync replicas of partition 0.
    pub(super) fn propose(&mut self, topic: &str, leader: i32, isr: &[i32]) -> (Vec<String>, Option<Answer>) {
        let present = self.state(&at(topic, 0)).unwrap().state.leader_and_isr;
        let proposed = LeaderAndIsr {
            leader: Some(leader),
            isr: isr.into(),
            ..present
        };
        self.ask(Request::AlterIsr {
            broker_id: leader,
            broker_epoch: self.brokers[&leader].epoch,
            proposals: vec![(at(topic, 0), proposed)],
        })
    }

    /// Whether the controller ended because its writes were used up.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead
    }

    pub(super) fn tell(&mut self, input: Input) -> Vec<String> {
        let mut lines = Vec::new();
        let mut todo: VecDeque<Output> = self.step(input).into();
        while let Some(output) = todo.pop_front() {
            let answer = match output {
                Output::Send { broker, command } => {
                    let output = Output::Send { broker, command };
                    lines.extend(line(&output));
                    if let Output::Send { broker, command } = output {
                        self.told.push((broker, command));
                    }
                    continue;
                }
                Output::Write(operations) => match self.write(&operations) {
                    Some(result) => Input::Written(result),
                    None => return lines,
                },
                Output::ReadStates(partitions) => {
                    if let Some((path, data)) = self.before_readings.pop_front().flatten() {
                        self.put(&path, &data);
                    }
                    let states = partitions
                        .into_iter()
                        .filter_map(|at| Some((at.clone(), self.state(&at)?)));
                    Input::StatesRead(StatesReading {
                        states: states.collect(),
                        failed: None,
                    })
                }
                Output::ReadUncleanTopics(_) => Input::UncleanTopics(BTreeSet::new()),
                Output::RemoveTopic { topic, .. } => match self.remove_topic(&topic) {
                    true => Input::TopicRemoved(Ok(())),
                    false => return lines,
                },
                Output::ReadAssignment(topic) => {
                    let version = self.nodes.get(&znodes::topic(&topic)).map(|held| held.version);
                    Input::AssignmentRead(Ok(self.assignment(&topic).zip(version)))
                }
                Output::Answer { answer, .. } => {
                    self.answer = Some(answer);
                    continue;
                }
                Output::Note(_) | Output::Watch(_) | Output::WatchState(_) | Output::LiveBrokers(_) => {
                    continue;
                }
                Output::Moved => panic!("fenced, though there is no other controller"),
            };
            todo.extend(self.step(answer));
        }
        lines
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.machine.step(TimestampMs(0), input)
    }

    /// `None` if the controller ended before.
    fn write(&mut self, operations: &[Operation]) -> Option<Result<(), MultiError>> {
        match &mut self.writes_left {
            Some(0) => {
                self.is_dead = true;
                return None;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let mut nodes = self.nodes.clone();
        self.zxid += 1;
        for (index, operation) in operations.iter().enumerate() {
            if let Err(error) = apply(&mut nodes, operation, self.zxid) {
                return Some(Err(MultiError { index, error }));
            }
        }
        self.nodes = nodes;
        Some(Ok(()))
    }

    /// Node by node: the controller may end between any two. `false` if it did.
    fn remove_topic(&mut self, topic: &str) -> bool {
        let root = znodes::topic(topic);
        let below = format!("{root}/");
        let of_topic = |path: &&String| **path == root || path.starts_with(&below);
        let mut paths: Vec<String> = self.nodes.keys().filter(of_topic).cloned().collect();
        paths.reverse();
        paths.push(format!("/config/topics/{topic}"));
        paths.push(znodes::delete_topic(topic));
        let there: Vec<String> = paths
            .into_iter()
            .filter(|path| self.nodes.contains_key(path))
            .collect();
        there
            .into_iter()
            .all(|path| self.write(&[Operation::delete(path)]).is_some())
    }
}

fn apply(
    nodes: &mut BTreeMap<String, Held>,
    operation: &Operation,
    zxid: i64,
) -> Result<(), CoordinationError> {
    let path = operation.path().to_owned();
    let present = nodes.get(&path).map(|held| held.version);
    let no_node = || CoordinationError::NoNode { path: path.clone() };
    let check = |expected: i32| match present {
        None => Err(no_node()),
        Some(version) if version == expected => Ok(()),
        Some(_) => Err(CoordinationError::BadVersion {
            path: path.clone(),
            expected,
        }),
    };
    match operation {
        Operation::Check { version, .. } => check(*version)?,
        Operation::Create { data, .. } => {
            if present.is_some() {
                return Err(CoordinationError::NodeExists { path });
            }
            let data = data.clone();
            nodes.insert(
                path,
                Held {
                    data,
                    version: 0,
                    mzxid: zxid,
                },
            );
        }
        Operation::SetData { data, expected, .. } => {
            if let ExpectedVersion::Exactly(version) = expected {
                check(*version)?;
            }
            let held = nodes.get_mut(&path).ok_or_else(no_node)?;
            held.data = data.clone();
            held.version += 1;
            held.mzxid = zxid;
        }
        Operation::Delete { .. } => {
            nodes.remove(&path).ok_or_else(no_node)?;
        }
    }
    Ok(())
}
