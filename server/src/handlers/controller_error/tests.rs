//! The controller's requests, from wire to wire.

use std::borrow::Cow;

use crate::controller::Controller;
use crate::coordination::znodes::{self, ReplicaAssignment, TopicAssignment};
use crate::coordination::{Coordination, CreateMode};
use crate::handlers::{
    alter_isr, alter_partition_reassignments, controlled_shutdown, elect_leaders,
    list_partition_reassignments,
};
use crate::protocol::ErrorCode;
use crate::protocol::messages::alter_isr::{AlterIsrPartition, AlterIsrRequest, AlterIsrTopic};
use crate::protocol::messages::controller_commands::ControlledShutdownRequest;
use crate::protocol::messages::reassignments::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, ElectLeadersResponse,
    ListPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic, TopicPartitions,
};
use crate::test_cluster::{Cluster, run};

/// Brokers 0 (the controller) and 1, and topic `t` on both, led by 1.
async fn cluster() -> (Cluster, Controller, Controller) {
    let cluster = Cluster::new(2);
    let (session, controller) = cluster.join(0).await;
    cluster.until(0, |cache| cache.load().broker_count() == 1).await;
    let (_, other) = cluster.join(1).await;
    cluster.until(0, |cache| cache.load().broker_count() == 2).await;
    let partitions = [(0, ReplicaAssignment::new([1, 0]))].into();
    let data = TopicAssignment { partitions }.encode();
    let tree: &dyn Coordination = session.as_ref();
    tree.create(&znodes::topic("t"), Some(data), CreateMode::Persistent)
        .await
        .unwrap();
    cluster.until(0, |cache| cache.contains("t", 0)).await;
    (cluster, controller, other)
}

/// Topic, partition, error and text.
fn shown(response: &ElectLeadersResponse<'_>) -> Vec<String> {
    let topics = response.replica_election_results.iter();
    let lines = topics.flat_map(|topic| {
        let partitions: Vec<String> = topic
            .partition_result
            .iter()
            .map(|one| {
                let code = ErrorCode::from_code(one.error_code);
                let message = one.error_message.as_deref().unwrap_or("-");
                format!("{}-{} {code} {message}", topic.topic, one.partition_id)
            })
            .collect();
        partitions
    });
    lines.collect()
}

fn elections(topic: Option<&str>, election_type: i8, timeout_ms: i32) -> ElectLeadersRequest<'static> {
    let topics = topic.map(|topic| {
        let one = TopicPartitions {
            topic: Cow::Owned(topic.to_owned()),
            partition_id: vec![0].into(),
        };
        vec![one].into()
    });
    ElectLeadersRequest {
        election_type,
        topic_partitions: topics,
        timeout_ms,
    }
}

#[test]
fn elections_are_answered_for_each_partition_and_those_not_needed_only_when_named() {
    run(async {
        let (cluster, controller, other) = cluster().await;
        let metadata = &cluster.brokers.caches[&0];
        let ask = async |controller, request| {
            let answer = elect_leaders::handle(controller, metadata, &request).await;
            answer.map(|response| shown(&response))
        };
        let not_needed = format!(
            "t-0 ELECTION_NOT_NEEDED {}",
            ErrorCode::ElectionNotNeeded.message().unwrap()
        );
        assert_eq!(
            ask(&controller, elections(Some("t"), 0, 1000)).await,
            Ok(vec![not_needed])
        );
        assert_eq!(ask(&controller, elections(None, 0, 1000)).await, Ok(vec![]));
        let unknown = "u-0 UNKNOWN_TOPIC_OR_PARTITION The partition does not exist.".to_owned();
        assert_eq!(
            ask(&controller, elections(Some("u"), 1, 1000)).await,
            Ok(vec![unknown])
        );
        let nobody = "t-0 NOT_CONTROLLER -".to_owned();
        assert_eq!(ask(&other, elections(Some("t"), 0, 1000)).await, Ok(vec![nobody]));
        assert!(ask(&controller, elections(Some("t"), 2, 1000)).await.is_err());
    });
}

#[test]
fn a_shutdown_tells_what_remains_and_others_than_the_controller_say_that_it_moved() {
    run(async {
        let (_cluster, controller, other) = cluster().await;
        let request = |broker_id, broker_epoch| ControlledShutdownRequest {
            broker_id,
            broker_epoch,
        };
        let answer = controlled_shutdown::handle(&other, &request(1, -1)).await;
        assert_eq!(answer.error_code, ErrorCode::StaleControllerEpoch.code());
        let answer = controlled_shutdown::handle(&controller, &request(1, 0)).await;
        assert_eq!(answer.error_code, ErrorCode::StaleBrokerEpoch.code());
        let answer = controlled_shutdown::handle(&controller, &request(7, -1)).await;
        assert_eq!(answer.error_code, ErrorCode::BrokerNotAvailable.code());
        let answer = controlled_shutdown::handle(&controller, &request(1, -1)).await;
        assert_eq!((answer.error_code, answer.remaining_partitions.len()), (0, 0));
        let answer = controlled_shutdown::handle(&controller, &request(0, -1)).await;
        let remaining: Vec<String> = answer
            .remaining_partitions
            .iter()
            .map(|one| format!("{}-{}", one.topic_name, one.partition_index))
            .collect();
        assert_eq!(remaining, ["t-0"], "nobody is left to take it");
    });
}

#[test]
fn a_proposal_is_answered_with_what_holds() {
    run(async {
        let (_cluster, controller, _) = cluster().await;
        let request = |broker_id, broker_epoch| AlterIsrRequest {
            broker_id,
            broker_epoch,
            topics: vec![AlterIsrTopic {
                name: "t".into(),
                partitions: vec![AlterIsrPartition {
                    partition_index: 0,
                    leader_epoch: 0,
                    new_isr: vec![1, 0].into(),
                    current_isr_version: 0,
                }]
                .into(),
            }]
            .into(),
        };
        let answer = alter_isr::handle(&controller, &request(1, 0)).await;
        assert_eq!(answer.error_code, ErrorCode::StaleBrokerEpoch.code());
        assert!(answer.topics.is_empty());
        let epoch = {
            let mut epoch = 0;
            // The epoch is the transaction of the registration: few have been.
            while alter_isr::handle(&controller, &request(1, epoch))
                .await
                .error_code
                != 0
            {
                epoch += 1;
            }
            epoch
        };
        let answer = alter_isr::handle(&controller, &request(1, epoch)).await;
        let topic = answer.topics.iter().next().unwrap();
        let one = topic.partitions.iter().next().unwrap();
        let isr: Vec<i32> = one.isr.iter().collect();
        assert_eq!((one.error_code, one.leader_id, one.leader_epoch), (0, 1, 0));
        assert_eq!((isr, one.current_isr_version), (vec![1, 0], 0));
    });
}

#[test]
fn moves_begin_are_listed_and_end_by_a_target_that_is_null() {
    run(async {
        let (_cluster, controller, other) = cluster().await;
        let request = |replicas: Option<Vec<i32>>| AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: "t".into(),
                partitions: vec![ReassignablePartition {
                    partition_index: 0,
                    replicas: replicas.map(Into::into),
                }]
                .into(),
            }]
            .into(),
            ..AlterPartitionReassignmentsRequest::default()
        };
        let outcome = async |replicas| {
            let answer = alter_partition_reassignments::handle(&controller, &request(replicas)).await;
            let topic = answer.responses.iter().next().unwrap();
            let one = topic.partitions.iter().next().unwrap();
            (
                ErrorCode::from_code(one.error_code),
                one.error_message.map(Cow::into_owned),
            )
        };
        let list = ListPartitionReassignmentsRequest::default();
        let none = ErrorCode::NoReassignmentInProgress;
        let told = none.message().map(str::to_owned);
        assert_eq!(outcome(None).await, (none, told));
        assert_eq!(
            outcome(Some(vec![5])).await.0,
            ErrorCode::InvalidReplicaAssignment
        );
        // 0 is in sync already: the move is over at once.
        assert_eq!(outcome(Some(vec![0])).await, (ErrorCode::None, None));
        let answer = list_partition_reassignments::handle(&controller, &list).await;
        assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
        let answer = alter_partition_reassignments::handle(&other, &request(None)).await;
        assert_eq!(answer.error_code, ErrorCode::NotController.code());
        let answer = list_partition_reassignments::handle(&other, &list).await;
        assert_eq!(answer.error_code, ErrorCode::NotController.code());

        assert_eq!(outcome(Some(vec![1])).await, (ErrorCode::None, None));
        let answer = list_partition_reassignments::handle(&controller, &list).await;
        let topic = answer.topics.iter().next().unwrap();
        let one = topic.partitions.iter().next().unwrap();
        let ids = |ids: &crate::protocol::Array<'_, i32>| ids.iter().collect::<Vec<i32>>();
        assert_eq!(
            (
                ids(&one.replicas),
                ids(&one.adding_replicas),
                ids(&one.removing_replicas)
            ),
            (vec![1, 0], vec![1], vec![0])
        );
        assert_eq!(outcome(None).await, (ErrorCode::None, None));
        let answer = list_partition_reassignments::handle(&controller, &list).await;
        assert!(answer.topics.is_empty());
    });
}
