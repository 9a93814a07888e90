//! A broker that is about to stop hands its leaderships over, and leaves the in-sync sets.
//!
//! Until its registration is gone it is told what concerns it, but leads nothing new and joins no in-sync set. Source:
//! `KafkaController` (`doControlledShutdown`).
//!
//! **Deviation:** it does not follow those that lead instead of it; its replicas are stopped, as those are that it followed. 2.7.2 has it
//! follow them, so that it asks to be taken back into in-sync sets, and acknowledgements of all wait for it when it is gone.

use milena_engine::units::TopicPartition;

use super::{ControllerMachine, OutOfSync, Work};
use crate::controller::election::ElectionStrategy;
use crate::controller::request::{Answer, ControllerError, ControllerErrorKind, RequestId};

impl ControllerMachine {
    /// **Deviation:** a broker that is not registered is told BROKER_NOT_AVAILABLE; 2.7.2 says so only to one that does not know its
    /// epoch, and UNKNOWN_SERVER_ERROR to the others.
    pub(super) fn controlled_shutdown(&mut self, id: RequestId, broker_id: i32, broker_epoch: Option<i64>) {
        let refusal = match self.context.live_brokers.get(&broker_id) {
            None => Some(ControllerError::new(
                ControllerErrorKind::BrokerNotAvailable,
                format!("Broker id {broker_id} does not exist."),
            )),
            Some(live) if broker_epoch.is_some_and(|epoch| epoch < live.epoch) => {
                Some(ControllerErrorKind::StaleBrokerEpoch.into())
            }
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            self.note(format!("No controlled shutdown of broker {broker_id}: {refusal}"));
            self.answer(id, Answer::ControlledShutdown(Err(refusal)));
            return;
        }
        self.note(format!("Shutting down broker {broker_id}"));
        self.context.shutting_down.insert(broker_id);
        let concerned = self.context.all_partitions().filter(|(at, one)| {
            let replicas = &one.assignment.replicas;
            replicas.len() > 1
                && replicas.contains(&broker_id)
                && one.leadership.is_some()
                && !self.context.is_queued_for_deletion(&at.topic)
        });
        let (led, followed): (Vec<_>, Vec<_>) = concerned
            .map(|(at, _)| at)
            .partition(|at| self.leader_of(at) == Some(broker_id));
        self.next([
            Work::Elect {
                partitions: led,
                strategy: ElectionStrategy::ControlledShutdown,
            },
            Work::Flush,
            Work::TakeOffline {
                replica: broker_id,
                partitions: followed,
                // Only a newer epoch has it stop following.
                out_of_sync: OutOfSync::Raises,
            },
            Work::Flush,
            Work::AnswerControlledShutdown { id, broker_id },
        ]);
    }

    pub(super) fn answer_controlled_shutdown(&mut self, id: RequestId, broker_id: i32) {
        let remaining = self.context.all_partitions().filter(|(at, one)| {
            one.assignment.replicas.len() > 1
                && self.leader_of(at) == Some(broker_id)
                && !self.context.is_queued_for_deletion(&at.topic)
        });
        let remaining: Vec<TopicPartition> = remaining.map(|(at, _)| at).collect();
        self.answer(id, Answer::ControlledShutdown(Ok(remaining)));
    }

    pub(super) fn leader_of(&self, at: &TopicPartition) -> Option<i32> {
        self.context.leadership(at)?.leader_and_isr.leader
    }
}
