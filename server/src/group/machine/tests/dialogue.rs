//! A machine, a clock and a log to talk to. Each request gets a token; answers are kept until they are asked for.

use milena_engine::record_batch::RecordBatchBuilder;

use super::super::*;

pub(super) const GROUP: &str = "g";

/// A group of the tests: settings of 2.7.2 unless changed.
pub(super) struct Dialogue {
    pub(super) machine: GroupMachine,
    pub(super) now_ms: i64,
    next_token: u64,
    next_uuid: u128,
    answers: BTreeMap<Token, Answer>,
    /// Appends that wait for their result.
    pub(super) appends: VecDeque<AppendRequest>,
    /// Whether appends succeed at once.
    pub(super) stores_at_once: bool,
    pub(super) log_end_offset: i64,
    /// What was appended, as it lies in the log.
    pub(super) log: Vec<u8>,
    pub(super) messages: Vec<(LogLevel, String)>,
    pub(super) loads: Vec<i32>,
}

use std::collections::VecDeque;

impl Dialogue {
    /// With a partition that is owned, and empty.
    pub(super) fn new() -> Dialogue {
        Dialogue::with(GroupConfig::default())
    }

    pub(super) fn with(config: GroupConfig) -> Dialogue {
        let mut dialogue = Dialogue::elsewhere(config);
        dialogue.step(Input::Elected { epoch: 1 });
        dialogue.step(Input::Loaded {
            epoch: 1,
            partition: Box::default(),
        });
        dialogue
    }

    /// With a partition that this broker does not lead.
    pub(super) fn elsewhere(config: GroupConfig) -> Dialogue {
        Dialogue {
            machine: GroupMachine::new(0, Arc::new(config)),
            now_ms: 0,
            next_token: 0,
            next_uuid: 1,
            answers: BTreeMap::new(),
            appends: VecDeque::new(),
            stores_at_once: true,
            log_end_offset: 0,
            log: Vec::new(),
            messages: Vec::new(),
            loads: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        // The wall clock begins elsewhere, so that mixing up the two shows.
        Now {
            wall: TimestampMs(1_000_000 + self.now_ms),
            monotonic_ms: self.now_ms,
        }
    }

    pub(super) fn wall(&self) -> TimestampMs {
        self.now().wall
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        let leaves_deadlines = matches!(input, Input::Appended { .. });
        self.machine.step(self.now(), input, &mut out);
        for output in out {
            match output {
                Output::Answer { token, answer } => {
                    assert_eq!(
                        self.answers.insert(token, answer),
                        None,
                        "{token:?} is answered twice"
                    );
                }
                Output::Append(request) => self.appends.push_back(request),
                Output::Load { epoch } => self.loads.push(epoch),
                Output::Log { level, message } => self.messages.push((level, message)),
            }
        }
        while self.stores_at_once && !self.appends.is_empty() {
            self.store();
        }
        let next = self.machine.next_deadline();
        assert!(
            leaves_deadlines || next.is_none_or(|at| at > self.now_ms),
            "a deadline that has passed is left over"
        );
    }

    /// The earliest append under way succeeds.
    pub(super) fn store(&mut self) -> Offset {
        let request = self.appends.pop_front().expect("an append under way");
        self.store_this(&request)
    }

    pub(super) fn store_this(&mut self, request: &AppendRequest) -> Offset {
        let base_offset = Offset(self.log_end_offset);
        let mut builder = RecordBatchBuilder::new().base_offset(base_offset);
        if let Some((id, epoch)) = request.transaction {
            builder = builder
                .producer(id, epoch, Some(milena_engine::units::Sequence(0)))
                .transactional(true);
        }
        for record in &request.records {
            builder.append(request.timestamp, Some(&record.key), record.value.as_deref());
        }
        self.log.extend(builder.build());
        self.log_end_offset += request.records.len() as i64;
        self.step(Input::Appended {
            id: request.id,
            result: Ok(base_offset),
        });
        base_offset
    }

    /// The earliest append under way fails.
    pub(super) fn fail(&mut self, failure: AppendFailure) {
        let request = self.appends.pop_front().expect("an append under way");
        self.step(Input::Appended {
            id: request.id,
            result: Err(failure),
        });
    }

    /// Time passes; deadlines come due one by one.
    pub(super) fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now_ms = at;
            self.step(Input::Tick);
        }
        self.now_ms = end;
        self.step(Input::Tick);
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    pub(super) fn ask(&mut self, input: impl FnOnce(Token) -> Input) -> Token {
        let token = self.token();
        self.step(input(token));
        token
    }

    pub(super) fn join(&mut self, request: JoinGroup) -> Token {
        self.next_uuid += 1;
        let member_uuid = self.next_uuid;
        self.ask(|token| Input::Join {
            token,
            request,
            member_uuid,
        })
    }

    pub(super) fn waits(&self, token: Token) -> bool {
        !self.answers.contains_key(&token)
    }

    pub(super) fn answer(&mut self, token: Token) -> Answer {
        self.answers
            .remove(&token)
            .unwrap_or_else(|| panic!("{token:?} has no answer"))
    }

    pub(super) fn joined(&mut self, token: Token) -> JoinedGroup {
        match self.answer(token) {
            Answer::Join(Ok(joined)) => joined,
            other => panic!("expected a generation, heard {other:?}"),
        }
    }

    pub(super) fn join_refusal(&mut self, token: Token) -> (GroupError, String) {
        match self.answer(token) {
            Answer::Join(Err(refusal)) => (refusal.error, refusal.member_id.to_string()),
            other => panic!("expected a refusal, heard {other:?}"),
        }
    }

    pub(super) fn synced(&mut self, token: Token) -> SyncResult {
        match self.answer(token) {
            Answer::Sync(result) => result,
            other => panic!("expected an assignment, heard {other:?}"),
        }
    }

    /// The assignment as text.
    pub(super) fn assignment(&mut self, token: Token) -> String {
        let synced = self.synced(token).expect("an assignment");
        String::from_utf8(synced.assignment.to_vec()).expect("text")
    }

    pub(super) fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> Result<(), GroupError> {
        self.heartbeat_as(member_id, None, generation_id)
    }

    pub(super) fn heartbeat_as(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation_id: i32,
    ) -> Result<(), GroupError> {
        let request = Heartbeat {
            group_id: GROUP.into(),
            member_id: member_id.into(),
            group_instance_id: instance_id.map(Into::into),
            generation_id,
        };
        let token = self.ask(|token| Input::Heartbeat { token, request });
        match self.answer(token) {
            Answer::Heartbeat(result) => result,
            other => panic!("expected a heartbeat's answer, heard {other:?}"),
        }
    }

    pub(super) fn sync(
        &mut self,
        member_id: &str,
        generation_id: i32,
        assignments: &[(&str, &str)],
    ) -> Token {
        let request = sync(member_id, generation_id, assignments);
        self.ask(|token| Input::Sync { token, request })
    }

    pub(super) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> LeaveResult {
        let member = |(member_id, instance_id): &(&str, Option<&str>)| MemberIdentity {
            member_id: (*member_id).into(),
            group_instance_id: instance_id.map(Into::into),
        };
        let request = LeaveGroup {
            group_id: GROUP.into(),
            members: members.iter().map(member).collect(),
        };
        let token = self.ask(|token| Input::Leave { token, request });
        match self.answer(token) {
            Answer::Leave(result) => result,
            other => panic!("expected a leave's answer, heard {other:?}"),
        }
    }

    pub(super) fn commit(&mut self, request: CommitOffsets) -> Token {
        self.ask(|token| Input::Commit { token, request })
    }

    pub(super) fn committed(&mut self, token: Token) -> CommitResult {
        match self.answer(token) {
            Answer::Commit(results) => results,
            other => panic!("expected a commit's answer, heard {other:?}"),
        }
    }

    /// What is committed for `t-0` of the group.
    pub(super) fn offset(&self) -> Option<i64> {
        self.offset_of("t", 0)
    }

    pub(super) fn offset_of(&self, topic: &str, partition: i32) -> Option<i64> {
        let partitions = [TopicPartition::new(topic, partition)];
        let fetched = self
            .machine
            .fetch_offsets(GROUP, Some(&partitions), false)
            .expect("owned");
        match &fetched[0].1 {
            FetchedOffset::Committed(value) => Some(value.offset.get()),
            FetchedOffset::Absent => None,
            FetchedOffset::Unstable => panic!("not asked for"),
        }
    }

    pub(super) fn state(&self) -> GroupState {
        self.machine.describe(GROUP).expect("owned").state
    }

    pub(super) fn members(&self) -> Vec<String> {
        let summary = self.machine.describe(GROUP).expect("owned");
        summary
            .members
            .iter()
            .map(|member| member.member_id.to_string())
            .collect()
    }

    /// One member that leads a stable group: its id. With the initial delay.
    pub(super) fn stable_member(&mut self) -> String {
        let token = self.join(join("a"));
        self.pass(3_000);
        let joined = self.joined(token);
        let token = self.sync(
            &joined.member_id,
            joined.generation_id,
            &[(&joined.member_id, "all")],
        );
        assert_eq!(self.assignment(token), "all");
        joined.member_id.to_string()
    }

    /// Two members of a stable group, the leader first.
    pub(super) fn stable_pair(&mut self) -> (String, String) {
        let (one, two) = (self.join(join("a")), self.join(join("b")));
        self.pass(10_000);
        let (one, two) = (self.joined(one), self.joined(two));
        let follower = self.sync(&two.member_id, two.generation_id, &[]);
        let leader = self.sync(
            &one.member_id,
            one.generation_id,
            &[(&one.member_id, "first"), (&two.member_id, "second")],
        );
        assert_eq!(self.assignment(leader), "first");
        assert_eq!(self.assignment(follower), "second");
        (one.member_id.to_string(), two.member_id.to_string())
    }
}

/// A consumer without id that is let in at once (as before JoinGroup v4), named by its client id.
pub(super) fn join(client_id: &str) -> JoinGroup {
    JoinGroup {
        group_id: GROUP.into(),
        member_id: "".into(),
        group_instance_id: None,
        require_known_member_id: false,
        client_id: client_id.into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
    }
}

/// The same as a member that has an id.
pub(super) fn rejoin(member_id: &str) -> JoinGroup {
    JoinGroup {
        member_id: member_id.into(),
        ..join("x")
    }
}

/// The same as a static member.
pub(super) fn join_as(instance_id: &str) -> JoinGroup {
    JoinGroup {
        group_instance_id: Some(instance_id.into()),
        ..join(instance_id)
    }
}

/// Protocols whose metadata is a subscription to topic `t`.
pub(super) fn protocols(names: &[&str]) -> Vec<Protocol> {
    let subscription = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255]);
    names
        .iter()
        .map(|name| Protocol {
            name: (*name).into(),
            metadata: subscription.clone(),
        })
        .collect()
}

pub(super) fn sync(member_id: &str, generation_id: i32, assignments: &[(&str, &str)]) -> SyncGroup {
    let assignment =
        |(member_id, text): &(&str, &str)| (Arc::from(*member_id), Bytes::from(text.to_string()));
    SyncGroup {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: assignments.iter().map(assignment).collect(),
    }
}

/// A commit of `t-0` by a consumer that only stores offsets.
pub(super) fn simple_commit(offset: i64, now: TimestampMs) -> CommitOffsets {
    CommitOffsets {
        group_id: GROUP.into(),
        member_id: "".into(),
        group_instance_id: None,
        generation_id: -1,
        offsets: vec![(TopicPartition::new("t", 0), value(offset, now))],
        transaction: None,
    }
}

pub(super) fn value(offset: i64, now: TimestampMs) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: Offset(offset),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp: now,
        expire_timestamp: None,
    }
}
