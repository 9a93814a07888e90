//! Whole lives of a group from one seed: members join, sync, commit, fall silent, come back, leave; the log is slow, fails, never
//! answers; the partition moves away and back. After every step the machine is checked, and at the end its memory is compared
//! with what a new leader would load.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};

use milena_engine::record_batch::RecordBatchBuilder;

use super::super::super::loading::PartitionLoader;
use super::super::*;
use super::dialogue::{GROUP, join, protocols, simple_commit, sync};

const CLIENTS_COUNT: usize = 6;
const PARTITIONS_COUNT: usize = 8;
/// How long clients are active.
const ACTIVE_MS: i64 = 10 * 60 * 1_000;
/// No client states more.
const REBALANCE_TIMEOUT_MS_MAX: i64 = 30_000;
const COMMIT_TIMEOUT_MS: i64 = 5_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.unsigned_abs()) as i64
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Will send JoinGroup.
    Outside,
    /// Has its generation, will send SyncGroup.
    Joined,
    /// Has its assignment.
    Working,
    /// Says nothing until it starts again.
    Silent,
}

struct Client {
    instance_id: Option<String>,
    knows_member_ids: bool,
    member_id: String,
    generation_id: i32,
    members: Vec<String>,
    doing: Doing,
    acts_at_ms: i64,
    /// The request it waits for.
    waits_for: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit { offset: i64 },
    Delete,
}

struct Simulation {
    random: Random,
    machine: GroupMachine,
    now_ms: i64,
    next_token: u64,
    clients: Vec<Client>,
    /// Who asked what and when; a client of `None` is an administrator.
    asked: BTreeMap<Token, (Option<usize>, Asked, i64)>,
    /// Results of appends on their way.
    results: BTreeMap<(i64, u64), (AppendId, Result<Offset, AppendFailure>)>,
    /// Appends that nobody ever hears of again.
    lost_results: bool,
    log: Vec<u8>,
    log_end_offset: i64,
    epoch: i32,
    loads_at_ms: Option<i64>,
    /// By epoch and generation: who was sent the members, and each client's assignment.
    leaders: BTreeMap<(i32, i32), Arc<str>>,
    assignments: BTreeMap<(i32, i32), BTreeMap<usize, String>>,
    trace: DefaultHasher,
    answers_count: usize,
    stable_count: usize,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random(seed);
        let client = |index: usize, random: &mut Random| Client {
            instance_id: random.one_in(3).then(|| format!("i{index}")),
            knows_member_ids: random.one_in(2),
            member_id: String::new(),
            generation_id: -1,
            members: Vec::new(),
            doing: Doing::Outside,
            acts_at_ms: random.below(5_000),
            waits_for: None,
        };
        let clients = (0..CLIENTS_COUNT)
            .map(|index| client(index, &mut random))
            .collect();
        let group_max_size = if random.one_in(4) { 4 } else { 100 };
        let config = GroupConfig {
            group_max_size,
            group_initial_rebalance_delay_ms: [0, 1_000, 3_000][random.below(3) as usize],
            offsets_retention_ms: 60_000 * (1 + random.below(10)),
            offsets_retention_check_interval_ms: 60_000,
            ..GroupConfig::default()
        };
        Simulation {
            random,
            machine: GroupMachine::new(0, Arc::new(config)),
            now_ms: 0,
            next_token: 0,
            clients,
            asked: BTreeMap::new(),
            results: BTreeMap::new(),
            lost_results: false,
            log: Vec::new(),
            log_end_offset: 0,
            epoch: 0,
            loads_at_ms: None,
            leaders: BTreeMap::new(),
            assignments: BTreeMap::new(),
            trace: DefaultHasher::new(),
            answers_count: 0,
            stable_count: 0,
        }
    }

    fn step(&mut self, input: Input) {
        let now = Now {
            wall: TimestampMs(1_000_000 + self.now_ms),
            monotonic_ms: self.now_ms,
        };
        let mut out = Vec::new();
        self.machine.step(now, input, &mut out);
        for output in out {
            let mut text = String::new();
            write!(text, "{} {output:?}", self.now_ms).expect("a string takes everything");
            text.hash(&mut self.trace);
            match output {
                Output::Answer { token, answer } => self.heard(token, answer),
                Output::Append(request) => self.append(request),
                Output::Load { .. } => self.loads_at_ms = Some(self.now_ms + self.random.below(1_000)),
                Output::Log { .. } => {}
            }
        }
        self.check();
    }

    fn append(&mut self, request: AppendRequest) {
        let late = if self.random.one_in(20) {
            self.random.below(8_000)
        } else {
            self.random.below(50)
        };
        let key = (self.now_ms + late, self.next_token);
        self.next_token += 1;
        if self.random.one_in(25) {
            let failure = [
                AppendFailure::NotEnoughReplicas,
                AppendFailure::TimedOut,
                AppendFailure::NotLeader,
            ];
            let failure = failure[self.random.below(3) as usize].clone();
            self.results.insert(key, (request.id, Err(failure)));
            return;
        }
        let base_offset = Offset(self.log_end_offset);
        let mut builder = RecordBatchBuilder::new().base_offset(base_offset);
        for record in &request.records {
            builder.append(request.timestamp, Some(&record.key), record.value.as_deref());
        }
        self.log.extend(builder.build());
        self.log_end_offset += request.records.len() as i64;
        if self.random.one_in(200) {
            self.lost_results = true;
        } else {
            self.results.insert(key, (request.id, Ok(base_offset)));
        }
    }

    fn ask(&mut self, client: Option<usize>, asked: Asked, input: impl FnOnce(Token) -> Input) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.asked.insert(token, (client, asked, self.now_ms));
        if let (Some(client), false) = (client, matches!(asked, Asked::Commit { .. } | Asked::Leave)) {
            self.clients[client].waits_for = Some(token);
        }
        self.step(input(token));
    }

    fn heard(&mut self, token: Token, answer: Answer) {
        self.answers_count += 1;
        let (client, asked, _) = self.asked.remove(&token).expect("each request is answered once");
        let Some(index) = client else { return };
        if let (Asked::Commit { .. }, Answer::Commit(results)) = (asked, &answer) {
            assert_eq!(results.len(), 1);
            return;
        }
        // What a former life of the client asked for is not its business any more.
        if self.clients[index].waits_for != Some(token) {
            return;
        }
        self.clients[index].waits_for = None;
        let delay = self.random.below(if self.random.0.is_multiple_of(7) {
            4_000
        } else {
            200
        });
        self.clients[index].acts_at_ms = self.now_ms + delay;
        match (asked, answer) {
            (Asked::Join, Answer::Join(Ok(joined))) => {
                let key = (self.epoch, joined.generation_id);
                if !joined.members.is_empty() {
                    let leader = self
                        .leaders
                        .entry(key)
                        .or_insert_with(|| joined.member_id.clone());
                    assert_eq!(*leader, joined.member_id, "two leaders of one generation");
                    assert_eq!(joined.leader_id, joined.member_id);
                }
                let client = &mut self.clients[index];
                client.member_id = joined.member_id.to_string();
                client.generation_id = joined.generation_id;
                client.members = joined
                    .members
                    .iter()
                    .map(|member| member.member_id.to_string())
                    .collect();
                client.doing = Doing::Joined;
            }
            (Asked::Join, Answer::Join(Err(refusal))) => {
                if refusal.error == GroupError::MemberIdRequired {
                    self.clients[index].member_id = refusal.member_id.to_string();
                } else {
                    self.turned_away(index, refusal.error);
                }
            }
            (Asked::Sync, Answer::Sync(Ok(synced))) => {
                let text = String::from_utf8(synced.assignment.to_vec()).expect("text");
                let key = (self.epoch, self.clients[index].generation_id);
                let assignments = self.assignments.entry(key).or_default();
                assignments.insert(index, text);
                let mut owned: Vec<&str> = assignments
                    .values()
                    .flat_map(|text| text.split_whitespace())
                    .collect();
                let count = owned.len();
                owned.sort_unstable();
                owned.dedup();
                assert_eq!(
                    owned.len(),
                    count,
                    "two members own one partition in generation {key:?}: {assignments:?}"
                );
                self.clients[index].doing = Doing::Working;
                self.stable_count += 1;
            }
            (Asked::Heartbeat, Answer::Heartbeat(Ok(()))) => {
                if let Some(group) = self.machine.groups.get(GROUP) {
                    assert_eq!(
                        group.generation_id, self.clients[index].generation_id,
                        "an old generation is alive"
                    );
                }
                self.clients[index].acts_at_ms = self.now_ms + 3_000;
            }
            (Asked::Sync, Answer::Sync(Err(error))) | (Asked::Heartbeat, Answer::Heartbeat(Err(error))) => {
                self.turned_away(index, error);
            }
            other => panic!("the answer is to another question: {other:?}"),
        }
    }

    /// What a client does after an error.
    fn turned_away(&mut self, index: usize, error: GroupError) {
        let client = &mut self.clients[index];
        client.doing = Doing::Outside;
        match error {
            GroupError::UnknownMemberId | GroupError::IllegalGeneration | GroupError::FencedInstanceId => {
                client.member_id.clear();
            }
            GroupError::GroupMaxSizeReached => {
                client.member_id.clear();
                client.acts_at_ms += 20_000;
            }
            GroupError::RebalanceInProgress => {}
            GroupError::NotCoordinator
            | GroupError::CoordinatorLoadInProgress
            | GroupError::CoordinatorNotAvailable
            | GroupError::UnknownServerError => client.acts_at_ms += 500,
            // The record of a group names only the selected protocol, so a loaded group knows no other one.
            GroupError::InconsistentGroupProtocol if self.epoch > 1 => client.acts_at_ms += 500,
            other => panic!("no reason for {other}"),
        }
    }

    fn act(&mut self, index: usize) {
        let client = &self.clients[index];
        let (member_id, generation_id) = (client.member_id.clone(), client.generation_id);
        let instance_id: Option<Arc<str>> = client.instance_id.as_deref().map(Into::into);
        if client.doing == Doing::Silent {
            let client = &mut self.clients[index];
            client.doing = Doing::Outside;
            client.waits_for = None;
            client.member_id.clear();
        } else if self.random.one_in(40) {
            let client = &mut self.clients[index];
            client.doing = Doing::Silent;
            client.waits_for = None;
            client.acts_at_ms = self.now_ms + self.random.below(90_000);
            return;
        }
        // Until an answer says otherwise; a client that hears nothing starts anew.
        self.clients[index].acts_at_ms = self.now_ms + 60_000;
        match self.clients[index].doing {
            Doing::Silent => {}
            _ if self.clients[index].waits_for.is_some() => {
                self.clients[index].waits_for = None;
                self.clients[index].doing = Doing::Outside;
                self.clients[index].acts_at_ms = self.now_ms + 1;
            }
            Doing::Outside => {
                let names =
                    [&["a", "common"][..], &["common"], &["common", "b"]][self.random.below(3) as usize];
                let request = JoinGroup {
                    member_id: self.clients[index].member_id.as_str().into(),
                    require_known_member_id: self.clients[index].knows_member_ids && instance_id.is_none(),
                    group_instance_id: instance_id,
                    rebalance_timeout_ms: 10_000 + self.random.below(REBALANCE_TIMEOUT_MS_MAX - 9_999) as i32,
                    session_timeout_ms: 6_000 + self.random.below(20_000) as i32,
                    protocols: protocols(names),
                    ..join(&format!("c{index}"))
                };
                let member_uuid = u128::from(self.random.next());
                self.ask(Some(index), Asked::Join, |token| Input::Join {
                    token,
                    request,
                    member_uuid,
                });
            }
            Doing::Joined if self.random.one_in(30) => {
                // Heartbeats, but forgets to sync.
                let request = Heartbeat {
                    group_id: GROUP.into(),
                    member_id: member_id.into(),
                    group_instance_id: instance_id,
                    generation_id,
                };
                self.ask(Some(index), Asked::Heartbeat, |token| Input::Heartbeat {
                    token,
                    request,
                });
            }
            Doing::Joined => {
                let mut plan: BTreeMap<&str, String> = BTreeMap::new();
                let members = std::mem::take(&mut self.clients[index].members);
                for partition in 0..if members.is_empty() { 0 } else { PARTITIONS_COUNT } {
                    let owner = &members[partition % members.len()];
                    write!(plan.entry(owner).or_default(), "{partition} ")
                        .expect("a string takes everything");
                }
                let plan: Vec<(&str, &str)> =
                    plan.iter().map(|(owner, text)| (*owner, text.as_str())).collect();
                let request = SyncGroup {
                    group_instance_id: instance_id,
                    ..sync(&member_id, generation_id, &plan)
                };
                self.ask(Some(index), Asked::Sync, |token| Input::Sync { token, request });
            }
            Doing::Working if self.random.one_in(60) => {
                let member = MemberIdentity {
                    member_id: member_id.into(),
                    group_instance_id: instance_id,
                };
                let request = LeaveGroup {
                    group_id: GROUP.into(),
                    members: vec![member],
                };
                self.clients[index].doing = Doing::Silent;
                self.clients[index].acts_at_ms = self.now_ms + self.random.below(30_000);
                self.ask(Some(index), Asked::Leave, |token| Input::Leave { token, request });
            }
            Doing::Working if self.random.one_in(25) => {
                // A consumer joins again when what it subscribes to changes.
                self.clients[index].doing = Doing::Outside;
                self.clients[index].acts_at_ms = self.now_ms;
            }
            Doing::Working => {
                if self.random.one_in(2) {
                    let offset = self.random.below(1_000_000);
                    let wall = TimestampMs(1_000_000 + self.now_ms);
                    let mut request = simple_commit(offset, wall);
                    request.member_id = member_id.as_str().into();
                    request.generation_id = generation_id;
                    request.group_instance_id = instance_id.clone();
                    request.offsets[0].0.partition = self.random.below(PARTITIONS_COUNT as i64) as i32;
                    self.ask(Some(index), Asked::Commit { offset }, |token| Input::Commit {
                        token,
                        request,
                    });
                }
                let request = Heartbeat {
                    group_id: GROUP.into(),
                    member_id: member_id.into(),
                    group_instance_id: instance_id,
                    generation_id,
                };
                self.ask(Some(index), Asked::Heartbeat, |token| Input::Heartbeat {
                    token,
                    request,
                });
            }
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        for (token, (_, asked, since)) in &self.asked {
            let limit = match asked {
                Asked::Join => REBALANCE_TIMEOUT_MS_MAX + COMMIT_TIMEOUT_MS,
                Asked::Sync => REBALANCE_TIMEOUT_MS_MAX + COMMIT_TIMEOUT_MS,
                Asked::Commit { .. } | Asked::Delete => COMMIT_TIMEOUT_MS,
                Asked::Heartbeat | Asked::Leave => 0,
            };
            assert!(
                self.now_ms - since <= limit,
                "{token:?} ({asked:?}) waits since {since}, now {}",
                self.now_ms
            );
        }
        for group in self.machine.groups.values() {
            let awaiting = group
                .members()
                .filter(|(_, member)| member.awaiting_join.is_some())
                .count();
            assert_eq!(awaiting, group.awaiting_join_count());
            assert_eq!(group.is_empty(), group.leader_id().is_empty());
            for (number, member) in group.members() {
                assert_eq!(group.number_of(&member.id), Some(number));
                let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
                assert!(
                    waits || member.session.is_some(),
                    "{} is neither expected nor waits",
                    member.id
                );
                if member.group_instance_id.is_some() {
                    assert_eq!(
                        group.static_member(member.group_instance_id.as_ref()),
                        Some(number)
                    );
                }
            }
            let rebalances = group
                .rebalance
                .as_ref()
                .is_some_and(|rebalance| rebalance.timer.is_some());
            match group.state() {
                GroupState::PreparingRebalance => assert!(rebalances),
                GroupState::CompletingRebalance => {
                    let stores = group.storing_generation == Some(group.generation_id);
                    assert!(
                        group.sync_deadline.is_some() || stores,
                        "nothing ends the wait for the assignment"
                    );
                }
                GroupState::Stable => assert!(!group.is_empty() && !rebalances),
                GroupState::Empty => assert!(group.is_empty() && !rebalances),
                GroupState::Dead => panic!("a dead group is kept"),
            }
        }
    }

    fn load(&mut self) {
        self.loads_at_ms = None;
        let mut loader = PartitionLoader::new();
        loader.replay(&self.log, Offset::ZERO).expect("a good log");
        let partition = Box::new(loader.finish());
        self.step(Input::Loaded {
            epoch: self.epoch,
            partition,
        });
    }

    /// Goes to the next event before `end_ms` and lets it happen.
    fn advance(&mut self, end_ms: i64, clients_act: bool) -> bool {
        let client = (0..self.clients.len())
            .filter(|_| clients_act)
            .min_by_key(|index| self.clients[*index].acts_at_ms)
            .map(|index| (self.clients[index].acts_at_ms, index));
        let result = self.results.first_key_value().map(|(key, _)| key.0);
        let next = [
            client.map(|client| client.0),
            result,
            self.machine.next_deadline(),
            self.loads_at_ms,
        ];
        let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end_ms) else {
            return false;
        };
        self.now_ms = self.now_ms.max(next);
        if self.loads_at_ms.is_some_and(|at| at <= self.now_ms) {
            self.load();
        } else if result.is_some_and(|at| at <= self.now_ms) {
            let (_, (id, result)) = self.results.pop_first().expect("just seen");
            self.step(Input::Appended { id, result });
        } else if client.is_some_and(|client| client.0 <= self.now_ms) {
            self.act(client.expect("just seen").1);
        } else {
            self.step(Input::Tick);
        }
        if clients_act && self.random.one_in(1_500) {
            self.step(Input::Resigned {
                epoch: Some(self.epoch + 1),
            });
            self.epoch += 2;
            self.step(Input::Elected { epoch: self.epoch });
        }
        if clients_act && self.random.one_in(300) {
            self.ask(None, Asked::Delete, |token| Input::DeleteGroup {
                token,
                group_id: GROUP.into(),
            });
        }
        true
    }

    /// Lives, and says what came of it: a hash of all outputs, answers, assignments.
    fn run(mut self) -> (u64, usize, usize) {
        self.epoch = 1;
        self.step(Input::Elected { epoch: 1 });
        while self.advance(ACTIVE_MS, true) {}
        // Everybody falls silent; what is under way ends.
        let quiet_ms = ACTIVE_MS + 200_000;
        while self.advance(quiet_ms, false) {}
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
        assert!(self.results.is_empty());
        if let Some(group) = self.machine.groups.get(GROUP) {
            assert_eq!(group.state(), GroupState::Empty);
        }
        if !self.lost_results {
            let memory = self.machine.fetch_offsets(GROUP, None, false).expect("owned");
            self.epoch += 2;
            self.step(Input::Elected { epoch: self.epoch });
            assert!(self.machine.is_loading());
            self.load();
            let loaded = self.machine.fetch_offsets(GROUP, None, false).expect("owned");
            assert_eq!(memory, loaded, "memory and log differ");
        }
        (self.trace.finish(), self.answers_count, self.stable_count)
    }
}

#[test]
fn any_life_of_a_group_keeps_the_promises_of_the_machine() {
    let (mut answers, mut stable) = (0, 0);
    for seed in 0..300 {
        let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
        let (_, answered, synced) = result.unwrap_or_else(|_| panic!("seed {seed}"));
        answers += answered;
        stable += synced;
    }
    // The lives are worth the name.
    assert!(
        answers > 200_000 && stable > 10_000,
        "{answers} answers, {stable} assignments"
    );
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    for seed in [1, 2, 3] {
        assert_eq!(Simulation::new(seed).run(), Simulation::new(seed).run());
    }
    assert_ne!(Simulation::new(1).run().0, Simulation::new(2).run().0);
}
