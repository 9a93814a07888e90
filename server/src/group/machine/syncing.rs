//! SyncGroup, Heartbeat and LeaveGroup: the life of a member within a generation.
//!
//! The leader's SyncGroup stores the generation with its assignment; all syncs are answered once that is in the log. Source:
//! `doSyncGroup`, `handleHeartbeat`, `handleLeaveGroup`, `propagateAssignment` in `GroupCoordinator.scala`.

use super::appending::group_error;
use super::joining::group_record;
use super::*;

impl Turn<'_> {
    pub(super) fn sync(&mut self, groups: &mut Groups, token: Token, request: SyncGroup) {
        let checked = self
            .core
            .check_named(&request.group_id)
            .map_err(|error| match error {
                // What the group was doing is lost, so it must be joined again; old clients do not know the other error here.
                GroupError::CoordinatorLoadInProgress => GroupError::RebalanceInProgress,
                other => other,
            });
        let refused = match (checked, groups.get_mut(&request.group_id)) {
            (Err(error), _) => error,
            (Ok(()), None) => GroupError::UnknownMemberId,
            (Ok(()), Some(group)) => match check_sync(group, &request) {
                Err(error) => error,
                Ok(number) if group.is(GroupState::Stable) => return self.sync_stable(group, token, number),
                Ok(number) => return self.sync_completing(group, token, number, request),
            },
        };
        self.answer(token, Answer::Sync(Err(refused)));
    }

    fn sync_stable(&mut self, group: &mut Group, token: Token, number: MemberNumber) {
        self.synced(group, number);
        self.answer_sync(group, token, number);
    }

    /// Gives a member its assignment. Its session, which did not run while it waited for us, begins anew.
    fn answer_sync(&mut self, group: &mut Group, token: Token, number: MemberNumber) {
        let member = group.member(number);
        let synced = SyncedGroup {
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            assignment: member.map(|member| member.assignment.clone()).unwrap_or_default(),
        };
        self.answer(token, Answer::Sync(Ok(synced)));
        self.renew_session(group, number);
    }

    /// The member has asked for its assignment; once all have, nobody is waited for.
    fn synced(&mut self, group: &mut Group, number: MemberNumber) {
        if let Some(member) = group.member_mut(number) {
            member.owes_sync = false;
        }
        if !group.members().any(|(_, member)| member.owes_sync) {
            self.core.timers.cancel(&mut group.sync_deadline);
        }
    }

    fn sync_completing(&mut self, group: &mut Group, token: Token, number: MemberNumber, request: SyncGroup) {
        self.synced(group, number);
        if let Some(member) = group.member_mut(number)
            && let Some(replaced) = member.awaiting_sync.replace(token)
        {
            self.answer(replaced, Answer::Sync(Err(GroupError::RebalanceInProgress)));
        }
        let is_being_stored = group.storing_generation == Some(group.generation_id);
        if !group.is_leader(number) || is_being_stored {
            return;
        }
        let given: BTreeMap<Arc<str>, Bytes> = request.assignments.into_iter().collect();
        let assignments: BTreeMap<_, _> = group
            .members()
            .map(|(number, member)| (number, given.get(&member.id).cloned().unwrap_or_default()))
            .collect();
        let value = group.to_record(|number, _| assignments.get(&number).cloned().unwrap_or_default());
        match group_record(&group.id, &value) {
            Ok(record) => {
                group.storing_generation = Some(group.generation_id);
                let purpose = Purpose::Assignment {
                    group_id: group.id.clone(),
                    generation_id: group.generation_id,
                    assignments,
                };
                self.append(vec![record], None, purpose);
            }
            Err(failure) => self.assignment_not_stored(group, group_error(&failure)),
        }
    }

    pub(super) fn assignment_stored(
        &mut self,
        groups: &mut Groups,
        group_id: &str,
        generation_id: i32,
        mut assignments: BTreeMap<MemberNumber, Bytes>,
        result: Result<(), GroupError>,
    ) {
        let Some(group) = groups.get_mut(group_id) else {
            return;
        };
        // Somebody may have joined or left meanwhile: then the assignment is history already.
        if !group.is(GroupState::CompletingRebalance) || group.generation_id != generation_id {
            return;
        }
        group.storing_generation = None;
        if let Err(error) = result {
            return self.assignment_not_stored(group, error);
        }
        for (number, member) in group.members_mut() {
            member.assignment = assignments.remove(&number).unwrap_or_default();
        }
        for number in group.numbers() {
            if let Some(token) = group.take_awaiting_sync(number) {
                self.answer_sync(group, token, number);
            }
        }
        group.transition_to(GroupState::Stable, self.now.wall);
    }

    fn assignment_not_stored(&mut self, group: &mut Group, error: GroupError) {
        self.warn(format!(
            "group {}: the assignment of generation {} could not be stored: {error}",
            group.id, group.generation_id
        ));
        self.reset_assignment(group, error);
        self.maybe_prepare_rebalance(group, || "the assignment could not be stored".to_owned());
    }

    /// Nobody gets an assignment from this generation.
    pub(super) fn reset_assignment(&mut self, group: &mut Group, error: GroupError) {
        for number in group.numbers() {
            if let Some(member) = group.member_mut(number) {
                member.assignment = Bytes::new();
            }
            if let Some(token) = group.take_awaiting_sync(number) {
                self.answer(token, Answer::Sync(Err(error)));
                self.renew_session(group, number);
            }
        }
    }

    /// Members that joined but never asked for their assignment are given up.
    pub(super) fn sync_overdue(&mut self, group: &mut Group) {
        group.sync_deadline = None;
        let missing: Vec<_> = group
            .members()
            .filter(|(_, member)| member.owes_sync)
            .map(|(number, _)| number)
            .collect();
        for number in &missing {
            if let Some(member) = self.take_out(group, *number) {
                self.info(format!(
                    "group {}: member {} joined but never synced, it is removed",
                    group.id, member.id
                ));
            }
        }
        if !missing.is_empty() {
            self.maybe_prepare_rebalance(group, || "members that joined never synced".to_owned());
        }
    }

    pub(super) fn heartbeat(&mut self, groups: &mut Groups, token: Token, request: &Heartbeat) {
        let result = match (
            self.core.check_named(&request.group_id),
            groups.get_mut(&request.group_id),
        ) {
            // The member's session begins with the loaded group; until then it is believed.
            (Err(GroupError::CoordinatorLoadInProgress), _) => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(GroupError::UnknownMemberId),
            (Ok(()), Some(group)) => self.heartbeat_of_member(group, request),
        };
        self.answer(token, Answer::Heartbeat(result));
    }

    fn heartbeat_of_member(&mut self, group: &mut Group, request: &Heartbeat) -> Result<(), GroupError> {
        let instance_id = request.group_instance_id.as_ref();
        let number = check_member(group, &request.member_id, instance_id, request.generation_id)?;
        self.renew_session(group, number);
        match group.state() {
            GroupState::Stable | GroupState::CompletingRebalance => Ok(()),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    pub(super) fn leave(&mut self, groups: &mut Groups, token: Token, request: &LeaveGroup) {
        let result = match (
            self.core.check_named(&request.group_id),
            groups.get_mut(&request.group_id),
        ) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(vec![Err(GroupError::UnknownMemberId); request.members.len()]),
            (Ok(()), Some(group)) => request
                .members
                .iter()
                .map(|member| self.leave_one(group, member))
                .collect(),
        };
        self.answer(token, Answer::Leave(result));
    }

    /// The outer error fails the whole request.
    fn leave_one(
        &mut self,
        group: &mut Group,
        who: &MemberIdentity,
    ) -> Result<Result<(), GroupError>, GroupError> {
        let instance_id = who.group_instance_id.as_ref();
        if !who.member_id.is_empty() && group.is_static_member_fenced(&who.member_id, instance_id) {
            return Ok(Err(GroupError::FencedInstanceId));
        }
        if group.is_pending_member(&who.member_id) {
            if instance_id.is_some() {
                return Err(GroupError::UnknownServerError);
            }
            self.remove_pending_member(group, &who.member_id);
            return Ok(Ok(()));
        }
        let number = group
            .static_member(instance_id)
            .or_else(|| group.number_of(&who.member_id));
        let Some(number) = number else {
            return Ok(Err(GroupError::UnknownMemberId));
        };
        let member_id = group
            .member(number)
            .map(|member| member.id.clone())
            .unwrap_or_default();
        self.info(format!("group {}: member {member_id} leaves", group.id));
        self.remove_member(group, number, &format!("member {member_id} leaves"));
        Ok(Ok(()))
    }
}

/// Who is this, and is it part of the current generation?
pub(super) fn check_member(
    group: &Group,
    member_id: &str,
    group_instance_id: Option<&Arc<str>>,
    generation_id: i32,
) -> Result<MemberNumber, GroupError> {
    if group.is_static_member_fenced(member_id, group_instance_id) {
        return Err(GroupError::FencedInstanceId);
    }
    let number = group.number_of(member_id).ok_or(GroupError::UnknownMemberId)?;
    if generation_id == group.generation_id {
        Ok(number)
    } else {
        Err(GroupError::IllegalGeneration)
    }
}

fn check_sync(group: &Group, request: &SyncGroup) -> Result<MemberNumber, GroupError> {
    let instance_id = request.group_instance_id.as_ref();
    let number = check_member(group, &request.member_id, instance_id, request.generation_id)?;
    let differs = |given: &Option<Arc<str>>, ours: &Option<Arc<str>>| given.is_some() && given != ours;
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol_name)
    {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    match group.state() {
        GroupState::CompletingRebalance | GroupState::Stable => Ok(number),
        GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
        GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
    }
}
