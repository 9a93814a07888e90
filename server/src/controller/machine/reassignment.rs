//! Replicas that move: asked for by AlterPartitionReassignments, or by old tools in `/admin/reassign_partitions`.
//!
//! ```text
//! U  the assignment on the way is written: target first, with who comes and who goes; who is in neither is removed
//! A  not all of the target is in sync: a new leader epoch for all, those that come begin to follow; then wait
//! B  all of the target is in sync: a leader of the target in a new epoch, those that go leave the in-sync set and are
//!    deleted, the final assignment is written, the request is ticked off
//! ```
//!
//! The tree is written before the context changes, so that another controller goes on from any step; what is done twice is
//! harmless. While a topic moves it is not deleted. The assignment of a topic is read, changed for one partition and written at
//! the version that was read: partitions that were added meanwhile stay. Source: `KafkaController`
//! (`onPartitionReassignment`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::TopicPartition;

use super::{
    AssignmentReading, ControllerMachine, OutOfSync, Output, RequestedMoves, StateNode, Waiting, Work,
};
use crate::controller::context::ReplicaPhase;
use crate::controller::election::ElectionStrategy;
use crate::controller::request::{Answer, ControllerError, ControllerErrorKind, RequestId};
use crate::coordination::znodes::{self, ReplicaAssignment};
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Operation};

/// What follows when an assignment is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Phases A and B.
    Begin,
    /// The move is over.
    Finish,
}

impl ControllerMachine {
    /// `/admin/reassign_partitions` has this content. What is under way already goes on; what cannot be done is taken out.
    pub(super) fn moves_requested(&mut self, requested: Option<RequestedMoves>) {
        self.moves.clone_from(&requested);
        let Some(requested) = requested else { return };
        let (mut works, mut refused) = (Vec::new(), Vec::new());
        for (at, target) in requested.moves {
            let planned = well_formed(&target).and_then(|()| self.planned(&at, Some(&target)));
            match planned {
                Ok(to) => {
                    let under_way = self.context.being_reassigned.contains(&at)
                        && self
                            .context
                            .partition(&at)
                            .is_some_and(|one| one.assignment == to);
                    if !under_way {
                        works.push(Work::Reassign { at, to });
                    }
                }
                Err(refusal) => {
                    self.note(format!("{at} is not moved to {target:?}: {refusal}"));
                    refused.push((at, None));
                }
            }
        }
        works.insert(0, Work::TickOffMoves(refused));
        self.next(works);
    }

    /// The latest request counts: one of old tools for the same partitions is taken back.
    pub(super) fn alter_reassignments(
        &mut self,
        id: RequestId,
        wanted: BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) {
        let (mut moves, mut replaced) = (Vec::new(), Vec::new());
        for (at, target) in wanted {
            let valid = target.as_ref().map_or(Ok(()), |target| {
                well_formed(target).and_then(|()| self.new_replicas_live(&at, target))
            });
            let outcome = match valid.and_then(|()| self.planned(&at, target.as_deref())) {
                Ok(to) => {
                    replaced.push((at.clone(), None));
                    moves.push(Work::Reassign { at: at.clone(), to });
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            };
            self.outcomes.reassignments.insert(at, outcome);
        }
        let mut works = Vec::new();
        if !replaced.is_empty() {
            works.push(Work::TickOffMoves(replaced));
        }
        works.extend(moves);
        works.push(Work::AnswerReassignments(id));
        self.next(works);
    }

    fn new_replicas_live(&self, at: &TopicPartition, target: &[i32]) -> Result<(), ControllerError> {
        let origin = self
            .context
            .partition(at)
            .map(|one| one.assignment.origin_replicas());
        let origin = origin.unwrap_or_default();
        let context = &self.context;
        let is_live = |id: &i32| context.live_brokers.contains_key(id) && !context.shutting_down.contains(id);
        let adding: Vec<i32> = target.iter().copied().filter(|id| !origin.contains(id)).collect();
        if adding.iter().all(is_live) {
            return Ok(());
        }
        let live: Vec<i32> = self.context.live_broker_ids().filter(|id| is_live(id)).collect();
        Err(ControllerError::new(
            ControllerErrorKind::InvalidReplicaAssignment,
            format!(
                "Replica assignment has brokers that are not alive. Replica list: {adding:?}, live broker list: {live:?}"
            ),
        ))
    }

    /// The assignment on the way to `target`, or back to where a move that is under way began.
    fn planned(
        &self,
        at: &TopicPartition,
        target: Option<&[i32]>,
    ) -> Result<ReplicaAssignment, ControllerError> {
        let known = self.context.partition(at).map(|one| &one.assignment);
        let to = match (known, target) {
            (Some(known), None) if known.is_being_reassigned() => known.reassign_to(&known.origin_replicas()),
            (_, None) => return Err(ControllerErrorKind::NoReassignmentInProgress.into()),
            (Some(known), Some(target)) => known.reassign_to(target),
            (None, Some(target)) => ReplicaAssignment::new(target),
        };
        if known.is_none() || self.context.is_queued_for_deletion(&at.topic) {
            let kind = ControllerErrorKind::UnknownTopicOrPartition;
            return Err(ControllerError::new(kind, "The partition does not exist."));
        }
        Ok(to)
    }

    pub(super) fn answer_reassignments(&mut self, id: RequestId) {
        let results = std::mem::take(&mut self.outcomes.reassignments);
        self.answer(id, Answer::AlterReassignments(results));
    }

    pub(super) fn list_reassignments(&mut self, id: RequestId, partitions: Option<BTreeSet<TopicPartition>>) {
        let asked = partitions.as_ref().unwrap_or(&self.context.being_reassigned);
        let moving = asked.iter().filter_map(|at| {
            let assignment = &self.context.partition(at)?.assignment;
            let moving = assignment.is_being_reassigned();
            moving.then(|| (at.clone(), assignment.clone()))
        });
        let moving = moving.collect();
        self.answer(id, Answer::ListReassignments(moving));
    }

    /// Phase U.
    pub(super) fn reassign(&mut self, at: TopicPartition, to: ReplicaAssignment) {
        let Some(partition) = self.context.partition(&at) else {
            return;
        };
        let present = partition.assignment.clone();
        self.note(format!(
            "{at} moves from {:?} to {:?}",
            present.replicas, to.replicas
        ));
        if present == to {
            self.assignment_written(at, to, Step::Begin);
        } else {
            self.next([Work::WriteAssignment {
                at,
                to,
                then: Step::Begin,
            }]);
        }
    }

    /// The assignment of a topic was read, to be changed for one partition.
    pub(super) fn assignment_read(
        &mut self,
        (at, to, then): (TopicPartition, ReplicaAssignment, Step),
        reading: AssignmentReading,
    ) {
        match reading {
            Ok(Some((mut assignment, version))) => {
                let held = assignment.partitions.insert(at.partition, to.clone());
                if held.as_ref() == Some(&to) {
                    self.assignment_written(at, to, then);
                    return;
                }
                let expected = ExpectedVersion::Exactly(version);
                let set = Operation::set(znodes::topic(&at.topic), assignment.encode(), expected);
                let write = Output::Write(vec![self.fence(), set]);
                self.ask(write, Waiting::AssignmentWritten { at, to, then });
            }
            Ok(None) => self.assignment_lost(&at, "the topic has no assignment"),
            Err(error) => self.assignment_lost(&at, &error.to_string()),
        }
    }

    pub(super) fn assignment_write_answered(
        &mut self,
        (at, to, then): (TopicPartition, ReplicaAssignment, Step),
        result: Result<(), MultiError>,
    ) {
        match result {
            Ok(_) => self.assignment_written(at, to, then),
            Err(failed) if matches!(failed.error, CoordinationError::BadVersion { .. }) => {
                self.next([Work::WriteAssignment { at, to, then }]);
            }
            Err(failed) => self.assignment_lost(&at, &failed.to_string()),
        }
    }

    fn assignment_lost(&mut self, at: &TopicPartition, why: &str) {
        self.note(format!("The assignment of {at} was not written: {why}"));
        self.context.being_reassigned.remove(at);
        if let Some(outcome) = self.outcomes.reassignments.get_mut(at) {
            *outcome = Err(ControllerError::new(ControllerErrorKind::UnknownServerError, why));
        }
    }

    fn assignment_written(&mut self, at: TopicPartition, to: ReplicaAssignment, then: Step) {
        match then {
            Step::Begin => {
                let removed: Vec<i32> = self
                    .context
                    .replicas_of(&at)
                    .iter()
                    .copied()
                    .filter(|id| !to.replicas.contains(id))
                    .collect();
                if let Some(partition) = self.context.partition_mut(&at) {
                    partition.assignment = to;
                }
                self.context.being_reassigned.insert(at.clone());
                let topic = BTreeSet::from([Arc::clone(&at.topic)]);
                self.halt_deletions(topic, "topic reassignment in progress");
                self.next([
                    Work::RemoveReplicas {
                        at: at.clone(),
                        replicas: removed,
                    },
                    Work::ContinueReassignment { at, begin: true },
                ]);
            }
            Step::Finish => self.reassignment_finished(&at),
        }
    }

    /// Moves that are under way, and to which one of these brokers belongs, go on. All brokers: when a reign begins.
    pub(super) fn resume_reassignments(&mut self, brokers: Option<&[i32]>) {
        let concerned = |at: &&TopicPartition| match (brokers, self.context.partition(at)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(brokers), Some(one)) => {
                let target = one.assignment.target_replicas();
                target.iter().any(|id| brokers.contains(id))
            }
        };
        let resumed = self.context.being_reassigned.iter().filter(concerned);
        let works: Vec<Work> = resumed
            .map(|at| Work::ContinueReassignment {
                at: at.clone(),
                begin: true,
            })
            .collect();
        self.next(works);
    }

    /// The in-sync sets of these partitions may have grown.
    pub(super) fn check_reassignments(&mut self, partitions: Vec<TopicPartition>) {
        let moving = partitions
            .into_iter()
            .filter(|at| self.context.being_reassigned.contains(at));
        let works: Vec<Work> = moving
            .map(|at| Work::ContinueReassignment { at, begin: false })
            .collect();
        self.next(works);
    }

    pub(super) fn continue_reassignment(&mut self, at: TopicPartition, begin: bool) {
        let Some(partition) = self.context.partition(&at) else {
            return;
        };
        if !partition.assignment.is_being_reassigned() {
            self.complete_reassignment(at);
        } else {
            // Watched first, so that no change goes unseen.
            self.out.push(Output::WatchState(at.clone()));
            self.read_states(vec![at.clone()], |_| Waiting::ReassignState { at, begin });
        }
    }

    /// **Deviation:** replicas go only when a replica of the target is online to lead, and leads; 2.7.2 deletes them also while all
    /// of the target is down, and when its election finds that none is in sync any more.
    pub(super) fn reassign_state_read(&mut self, at: TopicPartition, begin: bool, node: Option<&StateNode>) {
        let (Some(present), Some(partition)) = (self.usable(&at, node), self.context.partition(&at)) else {
            return;
        };
        let assignment = partition.assignment.clone();
        let target = assignment.target_replicas();
        let in_sync = target.iter().all(|id| present.isr.contains(id));
        let has_leader = target.iter().any(|id| self.context.is_replica_online(*id, &at));
        self.refresh(&at, present);
        if in_sync && has_leader {
            self.complete_reassignment(at);
        } else if begin {
            for replica in assignment.adding_replicas.iter() {
                self.set_replica(&at, *replica, ReplicaPhase::New);
            }
            self.next([Work::BumpEpoch(vec![at]), Work::Flush]);
        }
    }

    /// Phase B.
    fn complete_reassignment(&mut self, at: TopicPartition) {
        let Some(partition) = self.context.partition_mut(&at) else {
            return;
        };
        let moving = partition.assignment.clone();
        let target = moving.target_replicas();
        partition.assignment = ReplicaAssignment::new(Arc::clone(&target));
        let has_state = partition.leadership.is_some();
        for replica in moving.adding_replicas.iter() {
            self.set_replica(&at, *replica, ReplicaPhase::Online);
        }
        let leader = self.leader_of(&at);
        let stays = leader
            .is_some_and(|leader| target.contains(&leader) && self.context.is_replica_online(leader, &at));
        let partitions = if has_state { vec![at.clone()] } else { Vec::new() };
        let lead = match stays {
            true => Work::BumpEpoch(partitions),
            false => Work::Elect {
                partitions,
                strategy: ElectionStrategy::ReassignPartition,
            },
        };
        self.next([lead, Work::Flush, Work::LeaveToTarget { at, moving }]);
    }

    /// Phase B, after the election: those that go are removed if a replica of the target leads.
    ///
    /// A leader of old may have taken the target out of the in-sync set between the reading that found it there and the
    /// election: what it acknowledged since is on replicas that go. Then the move is under way as before, and the watch of the
    /// state, which that leader has changed, goes on with it.
    pub(super) fn leave_to_target(&mut self, at: TopicPartition, moving: ReplicaAssignment) {
        let completed = ReplicaAssignment::new(moving.target_replicas());
        let leads = |id: &i32| completed.replicas.contains(id) && self.context.is_replica_online(*id, &at);
        let is_led = self.leader_of(&at).as_ref().is_some_and(leads);
        // Of a move that was taken back nobody goes any more.
        if moving.is_being_reassigned() && !is_led {
            self.note(format!(
                "{at} goes on moving to {:?}: none of them leads",
                completed.replicas
            ));
            if let Some(partition) = self.context.partition_mut(&at) {
                partition.assignment = moving;
            }
            return;
        }
        self.next([
            Work::RemoveReplicas {
                at: at.clone(),
                replicas: moving.removing_replicas.to_vec(),
            },
            Work::WriteAssignment {
                at,
                to: completed,
                then: Step::Finish,
            },
        ]);
    }

    /// Replicas that are assigned no more: out of the in-sync set, stopped, deleted. Nobody waits for their answers, as in Kafka.
    pub(super) fn remove_replicas(&mut self, at: TopicPartition, replicas: Vec<i32>) {
        if replicas.is_empty() {
            return;
        }
        let offline = replicas.iter().map(|replica| Work::TakeOffline {
            replica: *replica,
            partitions: vec![at.clone()],
            // Only a newer epoch has it delete its log.
            out_of_sync: OutOfSync::Raises,
        });
        let mut works: Vec<Work> = offline.collect();
        works.push(Work::Flush);
        works.push(Work::DeleteReplicas { at, replicas });
        self.next(works);
    }

    pub(super) fn delete_replicas(&mut self, at: &TopicPartition, replicas: &[i32]) {
        for replica in replicas {
            self.batch.add_stop_replica(*replica, at, true);
            if let Some(partition) = self.context.partition_mut(at) {
                partition.forget_replica(*replica);
            }
            // Should it be asked for again, it is to be heard of anew.
            if let Some(offline) = self.context.offline_dir_replicas.get_mut(replica) {
                offline.remove(at);
            }
        }
        self.flush();
    }

    fn reassignment_finished(&mut self, at: &TopicPartition) {
        let target = self.context.replicas_of(at);
        self.note(format!("{at} is moved to {target:?}"));
        self.context.being_reassigned.remove(at);
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        self.batch.add_update_metadata(brokers, [at.clone()]);
        self.flush();
        let mut works = Vec::new();
        if self.moves.is_some() {
            works.push(Work::TickOffMoves(vec![(at.clone(), Some(target))]));
        }
        let mut moving = self.context.being_reassigned.iter();
        if self.context.is_queued_for_deletion(&at.topic) && !moving.any(|other| other.topic == at.topic) {
            self.context.topics_ineligible_for_deletion.remove(&at.topic);
            works.push(Work::ResumeDeletions);
        }
        self.next(works);
    }

    /// Takes moves out of `/admin/reassign_partitions`, those to this target or to any; the node goes with the last one.
    pub(super) fn tick_off_moves(&mut self, done: &[(TopicPartition, Option<Arc<[i32]>>)]) {
        let Some(requested) = &mut self.moves else { return };
        let before = requested.moves.len();
        requested.moves.retain(|(at, replicas)| {
            let is_done = |(done, target): &(TopicPartition, Option<Arc<[i32]>>)| {
                done == at && target.as_ref().is_none_or(|target| target[..] == replicas[..])
            };
            !done.iter().any(is_done)
        });
        if requested.moves.len() == before && before > 0 {
            return;
        }
        // Whoever changed it meanwhile is heard by the watch, and what is done is then found done.
        let expected = ExpectedVersion::Exactly(requested.version);
        let path = znodes::REASSIGN_PARTITIONS.to_owned();
        let operation = if requested.moves.is_empty() {
            self.moves = None;
            Operation::Delete { path, expected }
        } else {
            requested.version += 1;
            let rest = znodes::topic::encode_reassignment(&requested.moves);
            Operation::set(path, rest, expected)
        };
        let write = Output::Write(vec![self.fence(), operation]);
        self.ask(write, Waiting::Written);
    }
}

fn well_formed(target: &[i32]) -> Result<(), ControllerError> {
    let refuse = |message| {
        let kind = ControllerErrorKind::InvalidReplicaAssignment;
        Err(ControllerError::new(kind, message))
    };
    if target.is_empty() {
        refuse("Empty replica list specified in partition reassignment.".to_owned())
    } else if target.iter().collect::<BTreeSet<_>>().len() != target.len() {
        refuse(format!(
            "Duplicate replica ids in partition reassignment replica list: {target:?}"
        ))
    } else if target.iter().any(|id| *id < 0) {
        refuse(format!("Invalid broker id in replica list: {target:?}"))
    } else {
        Ok(())
    }
}
