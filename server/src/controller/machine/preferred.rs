//! Elections that someone asks for: administrators by ElectLeaders, old tools by `/admin/preferred_replica_election`, and the
//! balance of leaders by itself.
//!
//! Source: `KafkaController` (`processReplicaLeaderElection`, `checkAndTriggerAutoLeaderRebalance`).

use std::collections::{BTreeMap, BTreeSet};

use milena_engine::units::TopicPartition;

use super::elections::UNCLEAN;
use super::{ControllerMachine, Work};
use crate::controller::election::ElectionStrategy;
use crate::controller::request::{Answer, ControllerError, ControllerErrorKind, ElectionType, RequestId};
use crate::coordination::znodes;

impl ControllerMachine {
    pub(super) fn elect_leaders(
        &mut self,
        id: RequestId,
        partitions: BTreeSet<TopicPartition>,
        election_type: ElectionType,
    ) {
        use ControllerErrorKind::{ElectionNotNeeded, InvalidTopicException, UnknownTopicOrPartition};
        let mut electable = Vec::new();
        for at in &partitions {
            let refusal = if self.context.partition(at).is_none() {
                ControllerError::new(UnknownTopicOrPartition, "The partition does not exist.")
            } else if self.context.is_queued_for_deletion(&at.topic) {
                ControllerError::new(InvalidTopicException, "The topic is being deleted")
            } else if !self.needs_election(at, election_type) {
                ElectionNotNeeded.into()
            } else {
                electable.push(at.clone());
                continue;
            };
            self.outcomes.elections.insert(at.clone(), Err(refusal));
        }
        let strategy = match election_type {
            ElectionType::Preferred => ElectionStrategy::PreferredReplica,
            ElectionType::Unclean => UNCLEAN,
        };
        let unelected = not_elected(strategy);
        self.next([Work::AnswerElections {
            id,
            partitions,
            unelected,
        }]);
        self.bring_online(electable, strategy);
    }

    fn needs_election(&self, at: &TopicPartition, election_type: ElectionType) -> bool {
        let leader = self.leader_of(at);
        match election_type {
            ElectionType::Preferred => leader.is_none() || leader != self.preferred(at),
            ElectionType::Unclean => leader.is_none_or(|leader| {
                let is_live = self.context.live_brokers.contains_key(&leader);
                !is_live || self.context.shutting_down.contains(&leader)
            }),
        }
    }

    fn preferred(&self, at: &TopicPartition) -> Option<i32> {
        self.context.replicas_of(at).first().copied()
    }

    pub(super) fn answer_elections(
        &mut self,
        id: RequestId,
        partitions: BTreeSet<TopicPartition>,
        unelected: ControllerErrorKind,
    ) {
        let mut outcomes = std::mem::take(&mut self.outcomes.elections);
        let outcome = |at: TopicPartition| {
            let outcome = outcomes.remove(&at).unwrap_or_else(|| Err(unelected.into()));
            (at, outcome)
        };
        let results = partitions.into_iter().map(outcome).collect();
        self.answer(id, Answer::ElectLeaders(results));
    }

    /// An old tool wrote which partitions are to be led by their preferred replicas. The node goes when it is done, whatever came
    /// of it.
    pub(super) fn preferred_election_requested(&mut self, partitions: Vec<TopicPartition>) {
        self.note(format!(
            "Preferred replica election asked for {} partitions",
            partitions.len()
        ));
        let electable = partitions.into_iter().filter(|at| {
            self.context.partition(at).is_some()
                && !self.context.is_queued_for_deletion(&at.topic)
                && self.needs_election(at, ElectionType::Preferred)
        });
        let electable = electable.collect();
        self.next([Work::DeleteNodes(vec![
            znodes::PREFERRED_REPLICA_ELECTION.to_owned(),
        ])]);
        self.bring_online(electable, ElectionStrategy::PreferredReplica);
    }

    /// Leaders go back to preferred replicas where too large a share of a broker's partitions is led by others, unless replicas are
    /// being moved.
    pub(super) fn rebalance_leaders(&mut self, imbalance_percentage: u32) {
        if !self.context.being_reassigned.is_empty() {
            return;
        }
        let mut preferred_by: BTreeMap<i32, (u64, Vec<TopicPartition>)> = BTreeMap::new();
        for (at, one) in self.context.all_partitions() {
            let preferred = one.assignment.replicas.first();
            let Some(preferred) = preferred.filter(|_| !self.context.is_queued_for_deletion(&at.topic))
            else {
                continue;
            };
            let (count, elsewhere) = preferred_by.entry(*preferred).or_default();
            *count += 1;
            if one
                .leadership
                .as_ref()
                .is_some_and(|state| state.leader_and_isr.leader != Some(*preferred))
            {
                elsewhere.push(at);
            }
        }
        let unbalanced = preferred_by.into_iter().filter(|(_, (count, elsewhere))| {
            elsewhere.len() as u64 * 100 > u64::from(imbalance_percentage) * count
        });
        let mut electable = Vec::new();
        for (broker, (_, elsewhere)) in unbalanced {
            let may_lead = |at: &TopicPartition| {
                let state = self.context.leadership(at);
                self.context.is_replica_online(broker, at)
                    && state.is_some_and(|state| state.leader_and_isr.isr.contains(&broker))
            };
            electable.extend(elsewhere.into_iter().filter(may_lead));
        }
        if !electable.is_empty() {
            self.note(format!(
                "Leaders of {} partitions go back to preferred replicas",
                electable.len()
            ));
            self.bring_online(electable, ElectionStrategy::PreferredReplica);
        }
    }
}

/// What an election of this kind that elects nobody is called.
pub(super) fn not_elected(strategy: ElectionStrategy) -> ControllerErrorKind {
    match strategy {
        ElectionStrategy::PreferredReplica => ControllerErrorKind::PreferredLeaderNotAvailable,
        _ => ControllerErrorKind::EligibleLeadersNotAvailable,
    }
}
