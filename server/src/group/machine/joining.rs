//! JoinGroup, and the rebalance from its first join to the new generation.
//!
//! Two waits belong to it: the initial delay of a group that was empty, which newcomers extend up to the longest rebalance
//! timeout, and the rebalance itself, which ends as soon as everybody known has joined or at the longest rebalance timeout.
//! Dynamic members that have not joined by then are dropped; static ones stay until their session ends. Source:
//! `handleJoinGroup`, `prepareRebalance`, `onCompleteJoin` in `GroupCoordinator.scala`, `InitialDelayedJoin`.

use super::super::config::NEW_MEMBER_JOIN_TIMEOUT_MS;
use super::super::membership::{InitialDelay, Member, Rebalance};
use super::*;

/// How soon a rebalance in which nobody has joined is looked at again, at the least: a client may state a rebalance timeout
/// of 0, which must not keep the broker busy.
const REBALANCE_RETRY_MS_MIN: i64 = 100;

/// A static member whose new id is being stored.
#[derive(Debug)]
pub(super) struct StaticReplacement {
    group_id: Arc<str>,
    generation_id: i32,
    member: MemberNumber,
    token: Token,
    old_id: Arc<str>,
    new_id: Arc<str>,
    old_protocols: Vec<Protocol>,
    /// Who led before; said to the member instead of itself, so that it does not assign partitions.
    leader_id: Arc<str>,
}

impl Turn<'_> {
    fn refuse_join(&mut self, token: Token, error: GroupError, member_id: Arc<str>) {
        self.answer(token, Answer::Join(Err(JoinRefusal { error, member_id })));
    }

    pub(super) fn join(
        &mut self,
        groups: &mut Groups,
        token: Token,
        mut request: JoinGroup,
        member_uuid: u128,
    ) {
        if let Err(error) = self.core.check_named(&request.group_id) {
            return self.refuse_join(token, error, request.member_id);
        }
        let config = &self.core.config;
        let session_timeouts = config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms;
        if !session_timeouts.contains(&request.session_timeout_ms) {
            return self.refuse_join(token, GroupError::InvalidSessionTimeout, request.member_id);
        }
        let is_unknown = request.member_id.is_empty();
        if !is_unknown && !groups.contains_key(&request.group_id) {
            return self.refuse_join(token, GroupError::UnknownMemberId, request.member_id);
        }
        keep_first_of_each_name(&mut request.protocols);
        let group = self.get_or_create(groups, &request.group_id);
        if !self.has_room_for(group, &request.member_id) {
            // **Deviation:** 2.7.2 also forgets the static place of the instance id here while its member stays.
            if let Some(number) = group.number_of(&request.member_id) {
                self.take_out(group, number);
            }
            self.refuse_join(token, GroupError::GroupMaxSizeReached, "".into());
        } else if is_unknown {
            self.join_without_id(group, token, request, member_uuid);
        } else {
            self.join_with_id(group, token, request);
        }
        self.try_complete_join(group);
    }

    /// Members that already wait, or are part of the generation, are never turned away for others.
    fn has_room_for(&self, group: &Group, member_id: &str) -> bool {
        let group_max_size = self.core.config.group_max_size;
        match group.state() {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let member = group.number_of(member_id).and_then(|number| group.member(number));
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || group.awaiting_join_count() < group_max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                group.has(member_id) || group.len() < group_max_size
            }
        }
    }

    fn join_without_id(&mut self, group: &mut Group, token: Token, request: JoinGroup, member_uuid: u128) {
        if !group.supports_protocols(&request.protocol_type, &request.protocols) {
            return self.refuse_join(token, GroupError::InconsistentGroupProtocol, "".into());
        }
        let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        let member_id = new_member_id(prefix, member_uuid);
        if let Some(number) = group.static_member(request.group_instance_id.as_ref()) {
            self.replace_static_member(group, number, token, member_id, request.protocols);
        } else if request.require_known_member_id {
            let at_ms = self.after(i64::from(request.session_timeout_ms));
            let timer = Timer::PendingMember {
                group_id: group.id.clone(),
                member_id: member_id.clone(),
            };
            let timer = self.core.timers.set(at_ms, timer);
            group.pending_members.insert(member_id.clone(), Some(timer));
            self.refuse_join(token, GroupError::MemberIdRequired, member_id);
        } else {
            self.add_member(group, token, member_id, request);
        }
    }

    fn join_with_id(&mut self, group: &mut Group, token: Token, request: JoinGroup) {
        let member_id = request.member_id.clone();
        let instance_id = request.group_instance_id.as_ref();
        if !group.supports_protocols(&request.protocol_type, &request.protocols) {
            return self.refuse_join(token, GroupError::InconsistentGroupProtocol, member_id);
        }
        if group.is_pending_member(&member_id) {
            if instance_id.is_some() {
                // Ids are never handed out to static members this way: the client mixes up two of its own.
                return self.refuse_join(token, GroupError::UnknownServerError, member_id);
            }
            return self.add_member(group, token, member_id, request);
        }
        if group.is_static_member_fenced(&member_id, instance_id) {
            return self.refuse_join(token, GroupError::FencedInstanceId, member_id);
        }
        let is_unknown_instance = instance_id.is_some() && group.static_member(instance_id).is_none();
        let Some(number) = group.number_of(&member_id).filter(|_| !is_unknown_instance) else {
            return self.refuse_join(token, GroupError::UnknownMemberId, member_id);
        };
        let is_unchanged = group
            .member(number)
            .is_some_and(|member| member.protocols == request.protocols);
        let may_trigger = match group.state() {
            GroupState::PreparingRebalance => true,
            // It may have missed the answer to its join.
            GroupState::CompletingRebalance => !is_unchanged,
            // The leader joins again when what it assigns has changed, such as the partitions of a topic.
            GroupState::Stable => group.is_leader(number) || !is_unchanged,
            GroupState::Empty | GroupState::Dead => {
                return self.refuse_join(token, GroupError::UnknownMemberId, member_id);
            }
        };
        if may_trigger {
            group.set_protocols(number, request.protocols);
            self.await_join(group, number, token);
            self.maybe_prepare_rebalance(group, || format!("member {member_id} joins again"));
        } else {
            let joined = self.joined_group(group, number);
            self.answer(token, Answer::Join(Ok(joined)));
        }
    }

    fn await_join(&mut self, group: &mut Group, number: MemberNumber, token: Token) {
        if let Some(replaced) = group.await_join(number, token) {
            let member_id = group
                .member(number)
                .map(|member| member.id.clone())
                .unwrap_or_default();
            self.refuse_join(replaced, GroupError::RebalanceInProgress, member_id);
        }
    }

    fn joined_group(&self, group: &Group, number: MemberNumber) -> JoinedGroup {
        JoinedGroup {
            member_id: group
                .member(number)
                .map(|member| member.id.clone())
                .unwrap_or_default(),
            generation_id: group.generation_id,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            leader_id: group.leader_id(),
            members: if group.is_leader(number) {
                group.joined_members()
            } else {
                Vec::new()
            },
        }
    }

    fn add_member(&mut self, group: &mut Group, token: Token, member_id: Arc<str>, request: JoinGroup) {
        if group.is(GroupState::PreparingRebalance) && group.generation_id == 0 {
            group.new_member_added = true;
        }
        if let Some(mut timer) = group.pending_members.remove(&member_id) {
            self.core.timers.cancel(&mut timer);
        }
        let reason = match &request.group_instance_id {
            Some(instance_id) => format!("static member {member_id} with instance id {instance_id} joins"),
            None => format!("member {member_id} joins"),
        };
        let member = Member {
            id: member_id,
            group_instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: Some(token),
            awaiting_sync: None,
            owes_sync: false,
            session: None,
        };
        let number = group.add(member, Some(request.protocol_type));
        self.expect_within(group, number, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.maybe_prepare_rebalance(group, || reason);
    }

    /// A static member came back without its id: it gets a new one, and whoever uses the old id is fenced.
    fn replace_static_member(
        &mut self,
        group: &mut Group,
        number: MemberNumber,
        token: Token,
        new_id: Arc<str>,
        protocols: Vec<Protocol>,
    ) {
        let Some(member) = group.member(number) else {
            return;
        };
        let (old_id, old_protocols) = (member.id.clone(), member.protocols.clone());
        self.info(format!(
            "group {}: static member {old_id} comes back and becomes {new_id}",
            group.id
        ));
        let leader_id = group.leader_id();
        if let Some(fenced) = group.take_awaiting_join(number) {
            self.refuse_join(fenced, GroupError::FencedInstanceId, old_id.clone());
        }
        if let Some(fenced) = group.take_awaiting_sync(number) {
            self.answer(fenced, Answer::Sync(Err(GroupError::FencedInstanceId)));
        }
        group.replace_id(number, new_id.clone());
        self.renew_session(group, number);
        group.set_protocols(number, protocols);
        self.await_join(group, number, token);
        match group.state() {
            GroupState::Stable if group.select_protocol() == group.protocol_name => {
                let value = group.to_record(|_, member| member.assignment.clone());
                let purpose = StaticReplacement {
                    group_id: group.id.clone(),
                    generation_id: group.generation_id,
                    member: number,
                    token,
                    old_id,
                    new_id,
                    old_protocols,
                    leader_id,
                };
                match group_record(&group.id, &value) {
                    Ok(record) => self.append(vec![record], None, Purpose::StaticMember(purpose)),
                    Err(_) => self.revert_static_member(group, purpose, GroupError::UnknownServerError),
                }
            }
            GroupState::Stable => {
                self.maybe_prepare_rebalance(group, || {
                    format!("static member {new_id} changes the protocol")
                });
            }
            // The leader may already assign to the old id, and the new one would get nothing.
            GroupState::CompletingRebalance => {
                self.prepare_rebalance(
                    group,
                    &format!("static member {new_id} comes back during the assignment"),
                );
            }
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub(super) fn static_member_stored(
        &mut self,
        groups: &mut Groups,
        replacement: StaticReplacement,
        result: Result<(), GroupError>,
    ) {
        let Some(group) = groups.get_mut(&replacement.group_id) else {
            return;
        };
        // A rebalance that began meanwhile answers the join and stores the member.
        let is_as_before = group.is(GroupState::Stable)
            && group.generation_id == replacement.generation_id
            && group.member(replacement.member).is_some_and(|member| {
                member.id == replacement.new_id && member.awaiting_join == Some(replacement.token)
            });
        if !is_as_before {
            return;
        }
        match result {
            Err(error) => self.revert_static_member(group, replacement, error),
            Ok(()) => {
                group.take_awaiting_join(replacement.member);
                let mut joined = self.joined_group(group, replacement.member);
                joined.leader_id = replacement.leader_id;
                joined.members = Vec::new();
                self.renew_session(group, replacement.member);
                self.answer(replacement.token, Answer::Join(Ok(joined)));
            }
        }
    }

    fn revert_static_member(&mut self, group: &mut Group, replacement: StaticReplacement, error: GroupError) {
        self.warn(format!(
            "group {}: the new id {} of static member {} could not be stored ({error}); the old one stays",
            group.id, replacement.new_id, replacement.old_id
        ));
        group.take_awaiting_join(replacement.member);
        group.set_protocols(replacement.member, replacement.old_protocols);
        group.replace_id(replacement.member, replacement.old_id);
        self.renew_session(group, replacement.member);
        self.refuse_join(replacement.token, error, "".into());
    }

    pub(super) fn maybe_prepare_rebalance(&mut self, group: &mut Group, reason: impl FnOnce() -> String) {
        if group.can_rebalance() {
            self.prepare_rebalance(group, &reason());
        }
    }

    pub(super) fn prepare_rebalance(&mut self, group: &mut Group, reason: &str) {
        if group.is(GroupState::CompletingRebalance) {
            self.reset_assignment(group, GroupError::RebalanceInProgress);
        }
        self.core.timers.cancel(&mut group.sync_deadline);
        for (_, member) in group.members_mut() {
            member.owes_sync = false;
        }
        let rebalance_timeout_ms = group.rebalance_timeout_ms();
        let (wait_ms, initial_delay) = if group.is(GroupState::Empty) {
            let delay_ms = i64::from(self.core.config.group_initial_rebalance_delay_ms.max(0));
            let remaining_ms = (rebalance_timeout_ms - delay_ms).max(0);
            (
                delay_ms,
                Some(InitialDelay {
                    delay_ms,
                    remaining_ms,
                }),
            )
        } else {
            (rebalance_timeout_ms, None)
        };
        group.transition_to(GroupState::PreparingRebalance, self.now.wall);
        self.info(format!(
            "group {} (generation {}, {} members, partition {}) prepares a rebalance: {reason}",
            group.id,
            group.generation_id,
            group.len(),
            self.core.partition
        ));
        group.rebalance = Some(Rebalance {
            timer: None,
            initial_delay,
        });
        self.wait_for_joins(group, wait_ms);
        self.try_complete_join(group);
    }

    fn wait_for_joins(&mut self, group: &mut Group, wait_ms: i64) {
        let at_ms = self.after(wait_ms);
        let timer = Timer::Rebalance {
            group_id: group.id.clone(),
        };
        if let Some(rebalance) = &mut group.rebalance {
            self.core.timers.cancel(&mut rebalance.timer);
            rebalance.timer = Some(self.core.timers.set(at_ms, timer));
        }
    }

    /// Ends the rebalance if everybody has joined, except during the initial delay.
    pub(super) fn try_complete_join(&mut self, group: &mut Group) {
        let is_delayed = group
            .rebalance
            .as_ref()
            .is_none_or(|rebalance| rebalance.initial_delay.is_some());
        if group.is(GroupState::PreparingRebalance) && !is_delayed && group.has_all_members_joined() {
            self.complete_join(group);
        }
    }

    pub(super) fn rebalance_over(&mut self, group: &mut Group) {
        let Some(rebalance) = &mut group.rebalance else {
            return;
        };
        rebalance.timer = None;
        match &mut rebalance.initial_delay {
            Some(delay) if group.new_member_added && delay.remaining_ms != 0 => {
                group.new_member_added = false;
                let configured_ms = i64::from(self.core.config.group_initial_rebalance_delay_ms.max(0));
                let wait_ms = configured_ms.min(delay.remaining_ms);
                delay.remaining_ms = (delay.remaining_ms - delay.delay_ms).max(0);
                delay.delay_ms = wait_ms;
                self.wait_for_joins(group, wait_ms);
            }
            _ => self.complete_join(group),
        }
    }

    fn complete_join(&mut self, group: &mut Group) {
        let missing: Vec<_> = group
            .members()
            .filter(|(_, member)| member.awaiting_join.is_none() && member.group_instance_id.is_none())
            .map(|(number, _)| number)
            .collect();
        for number in missing {
            if let Some(member) = self.take_out(group, number) {
                self.info(format!(
                    "group {}: member {} did not join again in time and is removed",
                    group.id, member.id
                ));
            }
        }
        if !group.elect_joined_leader() && !group.is_empty() {
            self.warn(format!(
                "group {}: nobody has joined within the rebalance timeout; waiting on",
                group.id
            ));
            if let Some(rebalance) = &mut group.rebalance {
                rebalance.initial_delay = None;
            }
            let wait_ms = group.rebalance_timeout_ms().max(REBALANCE_RETRY_MS_MIN);
            return self.wait_for_joins(group, wait_ms);
        }
        if let Some(mut rebalance) = group.rebalance.take() {
            self.core.timers.cancel(&mut rebalance.timer);
        }
        if let Some(notice) = group.init_next_generation(self.now.wall) {
            self.warn(notice);
        }
        if group.is_empty() {
            self.info(format!(
                "group {} is empty in generation {}",
                group.id, group.generation_id
            ));
            match group_record(&group.id, &group.to_record(|_, _| Bytes::new())) {
                Ok(record) => {
                    self.append(
                        vec![record],
                        None,
                        Purpose::EmptyGroup {
                            group_id: group.id.clone(),
                        },
                    );
                }
                Err(failure) => self.empty_group_not_stored(&group.id, &failure),
            }
            return;
        }
        self.info(format!(
            "group {} begins generation {} with {} members",
            group.id,
            group.generation_id,
            group.len()
        ));
        for number in group.numbers() {
            if let Some(token) = group.take_awaiting_join(number) {
                let joined = self.joined_group(group, number);
                self.answer(token, Answer::Join(Ok(joined)));
                if let Some(member) = group.member_mut(number) {
                    member.owes_sync = true;
                }
            }
            self.renew_session(group, number);
            if let Some(member) = group.member_mut(number) {
                member.is_new = false;
            }
        }
        // A rebalance timeout below the shortest session would give members no time to assign partitions.
        let shortest_session_ms = i64::from(self.core.config.group_min_session_timeout_ms);
        let at_ms = self.after(group.rebalance_timeout_ms().max(shortest_session_ms));
        group.sync_deadline = Some(self.core.timers.set(
            at_ms,
            Timer::Sync {
                group_id: group.id.clone(),
            },
        ));
    }

    pub(super) fn session_over(&mut self, group: &mut Group, number: MemberNumber) {
        let Some(member) = group.member_mut(number) else {
            return;
        };
        member.session = None;
        let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
        // A member that waits for us is alive, unless it is new and its client may have gone long ago.
        if member.is_new || !waits {
            let member_id = member.id.clone();
            self.info(format!(
                "group {}: the session of member {member_id} is over, it is removed",
                group.id
            ));
            self.remove_member(
                group,
                number,
                &format!("the session of member {member_id} is over"),
            );
        }
    }

    /// Takes a member out and lets the group go on without it.
    pub(super) fn remove_member(&mut self, group: &mut Group, number: MemberNumber, reason: &str) {
        self.take_out(group, number);
        match group.state() {
            GroupState::Dead | GroupState::Empty => {}
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.maybe_prepare_rebalance(group, || reason.to_owned());
            }
            GroupState::PreparingRebalance => self.try_complete_join(group),
        }
    }

    /// Takes a member out and answers what it waits for.
    pub(super) fn take_out(&mut self, group: &mut Group, number: MemberNumber) -> Option<Member> {
        let mut member = group.remove(number)?;
        self.core.timers.cancel(&mut member.session);
        if let Some(token) = member.awaiting_join.take() {
            self.refuse_join(token, GroupError::UnknownMemberId, "".into());
        }
        if let Some(token) = member.awaiting_sync.take() {
            self.answer(token, Answer::Sync(Err(GroupError::UnknownMemberId)));
        }
        Some(member)
    }

    pub(super) fn remove_pending_member(&mut self, group: &mut Group, member_id: &str) {
        if let Some(mut timer) = group.pending_members.remove(member_id) {
            self.core.timers.cancel(&mut timer);
        }
        self.try_complete_join(group);
    }
}

/// A protocol that is named twice counts once.
fn keep_first_of_each_name(protocols: &mut Vec<Protocol>) {
    let mut names = BTreeSet::new();
    protocols.retain(|protocol| names.insert(protocol.name.clone()));
}

/// `prefix-uuid`, the UUID in its usual five groups.
fn new_member_id(prefix: &str, uuid: u128) -> Arc<str> {
    let hex = format!("{uuid:032x}");
    format!(
        "{prefix}-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
    .into()
}

/// The record of a group.
pub(super) fn group_record(
    group_id: &str,
    value: &super::super::records::GroupMetadataValue,
) -> Result<CoordinatorRecord, AppendFailure> {
    use super::super::records::{group_key, group_value};
    let too_long = |error: super::super::records::FieldTooLong| AppendFailure::Other(error.to_string());
    Ok(CoordinatorRecord {
        key: group_key(group_id).map_err(too_long)?,
        value: Some(group_value(value).map_err(too_long)?),
    })
}
