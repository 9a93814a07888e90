//! Group: the members of one group, its generation and what they agreed on.
//!
//! Keeps the bookkeeping right (ids, static members, votes, counts) and knows no requests, time or timers; the rules of when a
//! member joins or goes are the machine's. Invariants:
//! - members are ordered by the number they got when they joined; the number stays when a static member's id is replaced;
//! - the leader is a member, and a group with members has one;
//! - every static member is a member, under the same number;
//! - `awaiting_join` members have an unanswered JoinGroup; all members share at least one protocol.
//!
//! Source: `GroupMetadata.scala`, `MemberMetadata.scala`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::TimestampMs;

use super::machine::Token;
use super::offsets::GroupOffsets;
use super::records::{GroupMetadataValue, MemberValue};
use super::requests::{GroupOverview, GroupSummary, JoinedMember, MemberSummary, Protocol};
use super::state::GroupState;
use super::subscription::{CONSUMER_PROTOCOL_TYPE, subscribed_topics};
use super::timers::TimerId;

/// Identifies a member within its group for as long as it is in it, also when its id is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberNumber(u64);

/// One member. Timeouts in milliseconds.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) group_instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// In order of preference, names unique.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// Has not been part of a generation yet, so its client does not heartbeat and its wait for the join has an end.
    pub(super) is_new: bool,
    pub(super) awaiting_join: Option<Token>,
    pub(super) awaiting_sync: Option<Token>,
    /// Is in the generation but has not sent SyncGroup.
    pub(super) owes_sync: bool,
    /// When its session, or its wait as a new member, ends.
    pub(super) session: Option<TimerId>,
}

impl Member {
    /// The metadata for `protocol`, empty if the member does not offer it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|p| &*p.name == protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }
}

/// A running PreparingRebalance.
#[derive(Debug)]
pub(super) struct Rebalance {
    pub(super) timer: Option<TimerId>,
    /// Set while the group waits for its first members to show up.
    pub(super) initial_delay: Option<InitialDelay>,
}

/// The wait of `group.initial.rebalance.delay.ms`, which each newcomer may extend.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    /// How long the running wait is.
    pub(super) delay_ms: i64,
    /// How much of the rebalance timeout is left for further waits.
    pub(super) remaining_ms: i64,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    state: GroupState,
    /// When the group entered its state; `None` if it was loaded from a record too old to say.
    pub(super) state_since: Option<TimestampMs>,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol_name: Option<Arc<str>>,
    pub(super) generation_id: i32,
    leader: Option<MemberNumber>,
    members: BTreeMap<MemberNumber, Member>,
    by_id: HashMap<Arc<str>, MemberNumber>,
    static_members: HashMap<Arc<str>, MemberNumber>,
    /// Ids handed out with MEMBER_ID_REQUIRED that have not joined yet.
    pub(super) pending_members: BTreeMap<Arc<str>, Option<TimerId>>,
    /// How many members offer each protocol.
    supporters: HashMap<Arc<str>, usize>,
    awaiting_join: usize,
    next_number: u64,
    /// What the members consume; `None` if that is not known.
    pub(super) subscribed_topics: Option<BTreeSet<Arc<str>>>,
    /// Somebody joined while the initial delay was running.
    pub(super) new_member_added: bool,
    pub(super) rebalance: Option<Rebalance>,
    /// When members that owe a SyncGroup are given up.
    pub(super) sync_deadline: Option<TimerId>,
    /// The generation whose assignment is being stored.
    pub(super) storing_generation: Option<i32>,
    pub(super) offsets: GroupOffsets,
}

impl Group {
    /// A group without members and without a past.
    pub(super) fn new(id: Arc<str>, now: TimestampMs) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            state_since: Some(now),
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader: None,
            members: BTreeMap::new(),
            by_id: HashMap::new(),
            static_members: HashMap::new(),
            pending_members: BTreeMap::new(),
            supporters: HashMap::new(),
            awaiting_join: 0,
            next_number: 0,
            subscribed_topics: None,
            new_member_added: false,
            rebalance: None,
            sync_deadline: None,
            storing_generation: None,
            offsets: GroupOffsets::default(),
        }
    }

    /// The group as its last record describes it: stable with its members, or empty. Also returns a notice if the members'
    /// subscriptions could not be read.
    pub(super) fn from_record(id: Arc<str>, value: GroupMetadataValue) -> (Group, Option<String>) {
        let mut group = Group::new(id, TimestampMs(0));
        group.state = if value.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        group.state_since = value.current_state_timestamp;
        group.generation_id = value.generation_id;
        let protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        group.protocol_name = value.protocol_name;
        let protocol_name = group.protocol_name.clone().unwrap_or_default();
        for member in value.members {
            let is_leader = value.leader_id.as_ref() == Some(&member.member_id);
            let number = group.add(
                Member {
                    id: member.member_id,
                    group_instance_id: member.group_instance_id,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: vec![Protocol {
                        name: protocol_name.clone(),
                        metadata: member.subscription,
                    }],
                    assignment: member.assignment,
                    is_new: false,
                    awaiting_join: None,
                    awaiting_sync: None,
                    owes_sync: false,
                    session: None,
                },
                protocol_type.clone(),
            );
            if is_leader {
                group.leader = Some(number);
            }
        }
        group.protocol_type = protocol_type;
        let notice = group.compute_subscribed_topics();
        (group, notice)
    }

    pub(super) fn state(&self) -> GroupState {
        self.state
    }

    pub(super) fn is(&self, state: GroupState) -> bool {
        self.state == state
    }

    pub(super) fn transition_to(&mut self, next: GroupState, now: TimestampMs) {
        assert!(
            self.state.may_become(next),
            "group {}: {:?} never becomes {next:?}",
            self.id,
            self.state
        );
        self.state = next;
        self.state_since = Some(now);
    }

    pub(super) fn can_rebalance(&self) -> bool {
        self.state.may_become(GroupState::PreparingRebalance)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn awaiting_join_count(&self) -> usize {
        self.awaiting_join
    }

    pub(super) fn has(&self, member_id: &str) -> bool {
        self.by_id.contains_key(member_id)
    }

    pub(super) fn number_of(&self, member_id: &str) -> Option<MemberNumber> {
        self.by_id.get(member_id).copied()
    }

    pub(super) fn member(&self, number: MemberNumber) -> Option<&Member> {
        self.members.get(&number)
    }

    pub(super) fn member_mut(&mut self, number: MemberNumber) -> Option<&mut Member> {
        self.members.get_mut(&number)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (MemberNumber, &Member)> {
        self.members.iter().map(|(number, member)| (*number, member))
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = (MemberNumber, &mut Member)> {
        self.members.iter_mut().map(|(number, member)| (*number, member))
    }

    pub(super) fn numbers(&self) -> Vec<MemberNumber> {
        self.members.keys().copied().collect()
    }

    pub(super) fn is_leader(&self, number: MemberNumber) -> bool {
        self.leader == Some(number)
    }

    /// `""` if nobody leads.
    pub(super) fn leader_id(&self) -> Arc<str> {
        self.leader
            .and_then(|leader| self.members.get(&leader))
            .map(|leader| leader.id.clone())
            .unwrap_or_default()
    }

    pub(super) fn static_member(&self, group_instance_id: Option<&Arc<str>>) -> Option<MemberNumber> {
        self.static_members.get(group_instance_id?).copied()
    }

    /// Whether another member id holds this instance id now.
    pub(super) fn is_static_member_fenced(
        &self,
        member_id: &str,
        group_instance_id: Option<&Arc<str>>,
    ) -> bool {
        let holder = self
            .static_member(group_instance_id)
            .and_then(|number| self.members.get(&number));
        holder.is_some_and(|holder| &*holder.id != member_id)
    }

    pub(super) fn is_pending_member(&self, member_id: &str) -> bool {
        self.pending_members.contains_key(member_id) && !self.has(member_id)
    }

    pub(super) fn has_all_members_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_members.is_empty()
    }

    /// The longest that any member may take to join again.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .fold(0, i64::max)
    }

    pub(super) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether a member with these protocols could take part.
    pub(super) fn supports_protocols(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.supporters_of(&protocol.name) == self.members.len())
    }

    fn supporters_of(&self, protocol: &str) -> usize {
        self.supporters.get(protocol).copied().unwrap_or(0)
    }

    /// Adds a member whose protocols were found supported; the first one leads and names the protocol type.
    pub(super) fn add(&mut self, member: Member, protocol_type: Option<Arc<str>>) -> MemberNumber {
        let number = MemberNumber(self.next_number);
        self.next_number += 1;
        if self.members.is_empty() {
            self.protocol_type = protocol_type;
        }
        self.leader.get_or_insert(number);
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.insert(instance_id.clone(), number);
        }
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.by_id.insert(member.id.clone(), number);
        count(&mut self.supporters, &member.protocols, true);
        self.members.insert(number, member);
        number
    }

    /// Takes a member out with its static place; the longest-standing member leads if it led.
    pub(super) fn remove(&mut self, number: MemberNumber) -> Option<Member> {
        let member = self.members.remove(&number)?;
        self.by_id.remove(&member.id);
        if let Some(instance_id) = &member.group_instance_id
            && self.static_members.get(instance_id) == Some(&number)
        {
            self.static_members.remove(instance_id);
        }
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        count(&mut self.supporters, &member.protocols, false);
        if self.leader == Some(number) {
            self.leader = self.members.keys().next().copied();
        }
        Some(member)
    }

    /// Gives a static member another id.
    pub(super) fn replace_id(&mut self, number: MemberNumber, new_id: Arc<str>) {
        if let Some(member) = self.members.get_mut(&number) {
            self.by_id.remove(&member.id);
            self.by_id.insert(new_id.clone(), number);
            member.id = new_id;
        }
    }

    pub(super) fn set_protocols(&mut self, number: MemberNumber, protocols: Vec<Protocol>) {
        if let Some(member) = self.members.get_mut(&number) {
            count(&mut self.supporters, &member.protocols, false);
            count(&mut self.supporters, &protocols, true);
            member.protocols = protocols;
        }
    }

    /// Remembers whom to answer once the join is done; returns whom that replaces.
    pub(super) fn await_join(&mut self, number: MemberNumber, token: Token) -> Option<Token> {
        let replaced = self.members.get_mut(&number)?.awaiting_join.replace(token);
        self.awaiting_join += usize::from(replaced.is_none());
        replaced
    }

    pub(super) fn take_awaiting_join(&mut self, number: MemberNumber) -> Option<Token> {
        let token = self.members.get_mut(&number)?.awaiting_join.take();
        self.awaiting_join -= usize::from(token.is_some());
        token
    }

    pub(super) fn take_awaiting_sync(&mut self, number: MemberNumber) -> Option<Token> {
        self.members.get_mut(&number)?.awaiting_sync.take()
    }

    /// Makes a member that has joined the leader, unless the leader has. False if no member has joined.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |number: &MemberNumber| {
            self.members
                .get(number)
                .is_some_and(|m| m.awaiting_join.is_some())
        };
        match self.leader {
            None => false,
            Some(leader) if has_joined(&leader) => true,
            Some(_) => match self.members.keys().find(|number| has_joined(number)).copied() {
                Some(joined) => {
                    self.leader = Some(joined);
                    true
                }
                None => false,
            },
        }
    }

    /// The protocol that most members prefer among those that all support; the earliest vote decides a tie.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let supported = |protocol: &&Protocol| self.supporters_of(&protocol.name) == self.members.len();
        let mut votes: Vec<(&Arc<str>, usize)> = Vec::new();
        for member in self.members.values() {
            let vote = &member.protocols.iter().find(supported)?.name;
            match votes.iter_mut().find(|(name, _)| *name == vote) {
                Some((_, count)) => *count += 1,
                None => votes.push((vote, 1)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name.clone())
    }

    /// Opens the next generation: with a protocol and CompletingRebalance if there are members, else Empty. Returns a notice
    /// if the members' subscriptions could not be read.
    pub(super) fn init_next_generation(&mut self, now: TimestampMs) -> Option<String> {
        self.generation_id = self.generation_id.wrapping_add(1);
        self.storing_generation = None;
        if self.members.is_empty() {
            self.protocol_name = None;
            self.transition_to(GroupState::Empty, now);
        } else {
            let protocol = self.select_protocol();
            self.protocol_name =
                Some(protocol.expect("a member joins only with a protocol that all others support"));
            self.transition_to(GroupState::CompletingRebalance, now);
        }
        self.compute_subscribed_topics()
    }

    fn compute_subscribed_topics(&mut self) -> Option<String> {
        self.subscribed_topics = None;
        if !self.is_consumer_group() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if !self.members.is_empty() {
            let protocol = self.protocol_name.as_ref()?;
            for member in self.members.values() {
                match subscribed_topics(&member.metadata(protocol)) {
                    Ok(subscribed) => topics.extend(subscribed),
                    Err(error) => {
                        return Some(format!(
                            "group {}: the subscription of member {} is not readable ({error}), so its topics are not known \
                             and none of the group's offsets expire",
                            self.id, member.id
                        ));
                    }
                }
            }
        }
        self.subscribed_topics = Some(topics);
        None
    }

    /// Whether the group consumes the topic; true where that is not known.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed_topics
            .as_ref()
            .is_none_or(|topics| topics.contains(topic))
    }

    /// What the leader gets to see.
    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.clone().unwrap_or_default();
        let joined = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        self.members.values().map(joined).collect()
    }

    /// The group's record with the assignment that `assignment` gives each member.
    pub(super) fn to_record(
        &self,
        assignment: impl Fn(MemberNumber, &Member) -> Bytes,
    ) -> GroupMetadataValue {
        let protocol = self.protocol_name.clone().unwrap_or_default();
        let members = self.members.iter().map(|(number, member)| MemberValue {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: assignment(*number, member),
        });
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation_id: self.generation_id,
            protocol_name: self.protocol_name.clone(),
            leader_id: self.leader.map(|_| self.leader_id()),
            current_state_timestamp: self.state_since,
            members: members.collect(),
        }
    }

    pub(super) fn overview(&self) -> GroupOverview {
        GroupOverview {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state,
        }
    }

    /// Metadata and assignments are shown of a stable group only.
    pub(super) fn summary(&self) -> GroupSummary {
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol_name.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.values().map(|member| MemberSummary {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable {
                member.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: if stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        });
        GroupSummary {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }

    /// Nothing is left that would make the group worth keeping.
    pub(super) fn is_vacant(&self) -> bool {
        self.state == GroupState::Empty && self.pending_members.is_empty() && self.offsets.is_empty()
    }
}

fn count(supporters: &mut HashMap<Arc<str>, usize>, protocols: &[Protocol], added: bool) {
    for protocol in protocols {
        let count = supporters.entry(protocol.name.clone()).or_default();
        if added {
            *count += 1;
        } else {
            *count -= 1;
            if *count == 0 {
                supporters.remove(&protocol.name);
            }
        }
    }
}
