//! Changes of in-sync replicas that the controller is asked to write (KIP-497, `AlterIsrManager`, `Partition.sendAlterIsrRequest`).
//!
//! The controller decides by the version of the state: what it refuses has changed since, and the leader hears of that by a
//! LeaderAndIsr. Everything that is no decision, a stale broker epoch included, is asked again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::controller_channel::ControllerChannel;
use crate::client::Answer;
use crate::cluster::BoxFuture;
use crate::protocol::ErrorCode;
use crate::protocol::messages::alter_isr::{
    AlterIsrPartition, AlterIsrRequest, AlterIsrResponse, AlterIsrTopic,
};
use crate::replication::IsrChange;
use crate::replication::isr_manager::IsrStore;
use crate::replication::partition::isr::IsrAnswer;

const LOGGER: &str = "kafka.server.AlterIsrManager";

/// The tree, written by the controller.
#[derive(Debug)]
pub(super) struct ControllerIsrStore {
    pub(super) broker_id: i32,
    /// The czxid of this broker's registration.
    pub(super) broker_epoch: Arc<AtomicI64>,
    pub(super) controller: ControllerChannel,
    pub(super) version: i16,
}

impl IsrStore for ControllerIsrStore {
    fn write(&self, changes: Vec<IsrChange>) -> BoxFuture<'_, Vec<IsrAnswer>> {
        Box::pin(async move {
            let request = request(
                self.broker_id,
                self.broker_epoch.load(Ordering::Acquire),
                &changes,
            );
            let code_of = |answer: &Answer| {
                let response: AlterIsrResponse<'_> = answer.decode()?;
                Ok(response.error_code)
            };
            let answer = self.controller.call(&request, self.version, code_of).await;
            let decoded = answer.and_then(|answer| {
                let response: AlterIsrResponse<'_> = answer.decode()?;
                Ok(answers(&response, &changes))
            });
            decoded.unwrap_or_else(|error| {
                tracing::error!(target: LOGGER, "the controller's answer cannot be used: {error}");
                vec![IsrAnswer::Unknown; changes.len()]
            })
        })
    }
}

fn request(broker_id: i32, broker_epoch: i64, changes: &[IsrChange]) -> AlterIsrRequest<'_> {
    let topics = changes.chunk_by(|one, other| one.partition.topic == other.partition.topic);
    let topics = topics.map(|changes| {
        let partitions = changes.iter().map(|change| AlterIsrPartition {
            partition_index: change.partition.partition,
            leader_epoch: change.proposal.leader_epoch.get(),
            new_isr: change.proposal.isr.iter().copied().collect(),
            current_isr_version: change.proposal.zk_version,
        });
        AlterIsrTopic {
            name: Cow::Borrowed(&*changes[0].partition.topic),
            partitions: partitions.collect(),
        }
    });
    AlterIsrRequest {
        broker_id,
        broker_epoch,
        topics: topics.collect(),
    }
}

/// One answer for each change; what the controller does not mention is not decided.
fn answers(response: &AlterIsrResponse<'_>, changes: &[IsrChange]) -> Vec<IsrAnswer> {
    let whole = ErrorCode::from_code(response.error_code);
    if whole != ErrorCode::None {
        tracing::warn!(target: LOGGER, "the controller refused changes of in-sync replicas: {whole}");
        return vec![IsrAnswer::Unknown; changes.len()];
    }
    let mut decided: HashMap<TopicPartition, IsrAnswer> = HashMap::new();
    for topic in response.topics.iter() {
        let name: Arc<str> = topic.name.as_ref().into();
        for partition in topic.partitions.iter() {
            let name = TopicPartition::new(Arc::clone(&name), partition.partition_index);
            let answer = match ErrorCode::from_code(partition.error_code) {
                ErrorCode::None => IsrAnswer::Accepted {
                    isr: partition.isr.iter().collect(),
                    leader_epoch: LeaderEpoch(partition.leader_epoch),
                    zk_version: partition.current_isr_version,
                },
                refusal => {
                    tracing::info!(
                        target: LOGGER,
                        "the controller did not change the in-sync replicas of {name}: {refusal}"
                    );
                    match refusal {
                        ErrorCode::UnknownTopicOrPartition
                        | ErrorCode::FencedLeaderEpoch
                        | ErrorCode::InvalidUpdateVersion => IsrAnswer::Refused,
                        _ => IsrAnswer::Unknown,
                    }
                }
            };
            decided.insert(name, answer);
        }
    }
    let answer = |change: &IsrChange| decided.remove(&change.partition).unwrap_or(IsrAnswer::Unknown);
    changes.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::alter_isr::{AlterIsrPartitionResult, AlterIsrTopicResult};
    use crate::replication::partition::isr::IsrProposal;

    fn change(topic: &str, partition: i32) -> IsrChange {
        IsrChange {
            partition: TopicPartition::new(topic, partition),
            proposal: IsrProposal {
                number: 1,
                leader_epoch: LeaderEpoch(4),
                controller_epoch: 2,
                isr: [1, 2].into(),
                zk_version: 7,
            },
        }
    }

    fn result(partition_index: i32, error: ErrorCode) -> AlterIsrPartitionResult<'static> {
        AlterIsrPartitionResult {
            partition_index,
            error_code: error.code(),
            leader_id: 1,
            leader_epoch: 4,
            isr: vec![1, 2].into(),
            current_isr_version: 8,
        }
    }

    #[test]
    fn a_request_names_each_change_below_its_topic() {
        let changes = [change("a", 0), change("a", 3), change("b", 0)];
        let request = request(1, 99, &changes);
        assert_eq!((request.broker_id, request.broker_epoch), (1, 99));
        type Asked = (i32, i32, Vec<i32>, i32);
        let asked: Vec<(String, Vec<Asked>)> = request
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|one| {
                    let isr = one.new_isr.iter().collect();
                    (
                        one.partition_index,
                        one.leader_epoch,
                        isr,
                        one.current_isr_version,
                    )
                });
                (topic.name.to_string(), partitions.collect())
            })
            .collect();
        let proposed = |partition| (partition, 4, vec![1, 2], 7);
        assert_eq!(
            asked,
            [
                ("a".to_owned(), vec![proposed(0), proposed(3)]),
                ("b".to_owned(), vec![proposed(0)])
            ]
        );
    }

    #[test]
    fn what_is_refused_is_given_up_and_what_is_not_decided_is_asked_again() {
        let changes: Vec<IsrChange> = (0..6).map(|partition| change("a", partition)).collect();
        let results = vec![
            result(0, ErrorCode::None),
            result(1, ErrorCode::UnknownTopicOrPartition),
            result(2, ErrorCode::FencedLeaderEpoch),
            result(3, ErrorCode::InvalidUpdateVersion),
            result(4, ErrorCode::UnknownServerError),
        ];
        let topic = AlterIsrTopicResult {
            name: Cow::Borrowed("a"),
            partitions: results.into(),
        };
        let mut response = AlterIsrResponse {
            topics: vec![topic].into(),
            ..AlterIsrResponse::default()
        };
        let accepted = IsrAnswer::Accepted {
            isr: [1, 2].into(),
            leader_epoch: LeaderEpoch(4),
            zk_version: 8,
        };
        use IsrAnswer::{Refused, Unknown};
        assert_eq!(
            answers(&response, &changes),
            [accepted, Refused, Refused, Refused, Unknown, Unknown]
        );
        for whole in [ErrorCode::StaleBrokerEpoch, ErrorCode::ClusterAuthorizationFailed] {
            response.error_code = whole.code();
            assert_eq!(answers(&response, &changes), vec![Unknown; 6], "{whole}");
        }
    }
}
