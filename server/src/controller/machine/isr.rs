//! In-sync sets that leaders change: proposed by AlterIsr, or written by leaders of old and told in `/isr_change_notification`.
//!
//! The leader epoch stays; the version of the state decides between two that write. All brokers hear of what changed. Source:
//! `KafkaController` (`processAlterIsr`, `processIsrChangeNotification`).

use std::collections::BTreeMap;

use milena_engine::units::TopicPartition;

use super::{ControllerMachine, Output, StateNode, Update, UpdateReason, Work};
use crate::cluster::LeaderAndIsr;
use crate::controller::request::{Answer, ControllerErrorKind, RequestId};
use crate::coordination::CoordinationError;

/// What becomes of a proposal.
enum Verdict {
    Write,
    /// It is so already.
    Holds(LeaderAndIsr),
    Refused(ControllerErrorKind),
    /// It names replicas that may not join.
    Ineligible,
}

impl ControllerMachine {
    /// A leader proposes in-sync sets.
    ///
    /// **Deviation:** a replica whose broker is down or shutting down, and one that is not assigned, does not join (KAFKA-14140), nor
    /// does anybody but the leader propose. The leader is told FENCED_LEADER_EPOCH and gets a new epoch at once, since 2.7.2's
    /// leaders forget a proposal only with the next one.
    pub(super) fn alter_isr(
        &mut self,
        id: RequestId,
        broker_id: i32,
        broker_epoch: i64,
        proposals: Vec<(TopicPartition, LeaderAndIsr)>,
    ) {
        let known = self.context.live_brokers.get(&broker_id).map(|live| live.epoch);
        if known != Some(broker_epoch) {
            self.note(format!(
                "Ignoring AlterIsr of broker {broker_id} with epoch {broker_epoch}: it is registered with {known:?}"
            ));
            let stale = ControllerErrorKind::StaleBrokerEpoch.into();
            self.answer(id, Answer::AlterIsr(Err(stale)));
            return;
        }
        let asked = proposals.iter().map(|(at, _)| at.clone()).collect();
        let (mut changes, mut ineligible) = (Vec::new(), Vec::new());
        for (at, proposed) in proposals {
            let outcome = match self.judge(broker_id, &at, &proposed) {
                Verdict::Write => {
                    changes.push((at, proposed));
                    continue;
                }
                Verdict::Holds(present) => Ok(present),
                Verdict::Refused(kind) => Err(kind.into()),
                Verdict::Ineligible => {
                    self.note(format!("{at}: not all of {:?} may be in sync", proposed.isr));
                    ineligible.push(at.clone());
                    Err(ControllerErrorKind::FencedLeaderEpoch.into())
                }
            };
            self.outcomes.isr.insert(at, outcome);
        }
        self.next([
            Work::Update(Update {
                changes,
                why: UpdateReason::AlterIsr,
            }),
            Work::BumpEpoch(ineligible),
            Work::AnswerAlterIsr { id, asked },
        ]);
    }

    fn judge(&self, broker_id: i32, at: &TopicPartition, proposed: &LeaderAndIsr) -> Verdict {
        let Some(state) = self.context.leadership(at) else {
            return Verdict::Refused(ControllerErrorKind::UnknownTopicOrPartition);
        };
        let present = &state.leader_and_isr;
        if proposed.leader_epoch != present.leader_epoch || present.leader != Some(broker_id) {
            return Verdict::Refused(ControllerErrorKind::FencedLeaderEpoch);
        }
        if proposed.isr == present.isr {
            return Verdict::Holds(present.clone());
        }
        if !proposed.isr.contains(&broker_id) {
            return Verdict::Refused(ControllerErrorKind::InvalidRequest);
        }
        let replicas = self.context.replicas_of(at);
        let may_join = |id: &i32| replicas.contains(id) && self.context.is_replica_online(*id, at);
        let mut joining = proposed.isr.iter().filter(|id| !present.isr.contains(id));
        match joining.all(may_join) {
            true => Verdict::Write,
            false => Verdict::Ineligible,
        }
    }

    /// Another write was faster, or failed: the leader looks again.
    pub(super) fn isr_not_written(&mut self, at: TopicPartition, error: &CoordinationError) {
        let kind = match error {
            CoordinationError::BadVersion { .. } => ControllerErrorKind::InvalidUpdateVersion,
            _ => ControllerErrorKind::UnknownServerError,
        };
        self.note(format!("The in-sync set of {at} was not written: {error}"));
        self.outcomes.isr.insert(at, Err(kind.into()));
    }

    pub(super) fn answer_alter_isr(&mut self, id: RequestId, asked: Vec<TopicPartition>) {
        let results = std::mem::take(&mut self.outcomes.isr);
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        self.batch.add_update_metadata(brokers, asked);
        self.flush();
        let changed: Vec<TopicPartition> = results
            .iter()
            .filter(|(_, result)| result.is_ok())
            .map(|(at, _)| at.clone())
            .collect();
        self.answer(id, Answer::AlterIsr(Ok(results)));
        self.check_reassignments(changed);
    }

    /// The tree holds other in-sync sets than the context: everyone hears of them.
    pub(super) fn refreshed(
        &mut self,
        partitions: Vec<TopicPartition>,
        states: BTreeMap<TopicPartition, StateNode>,
    ) {
        for (at, node) in states {
            if let Some(partition) = self.context.partition_mut(&at) {
                partition.leadership = Some(node.state);
            }
        }
        let brokers: Vec<i32> = self.context.live_broker_ids().collect();
        self.batch
            .add_update_metadata(brokers, partitions.iter().cloned());
        self.flush();
        self.check_reassignments(partitions);
    }

    pub(super) fn answer(&mut self, id: RequestId, answer: Answer) {
        self.out.push(Output::Answer { id, answer });
    }
}
