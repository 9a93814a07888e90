//! What is asked of a running controller, by its handle and in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::*;
use crate::cluster::LeaderAndIsr;
use crate::controller::request::{ControllerErrorKind, ElectionType};
use crate::controller::{Controller, LeaderRebalance};
use crate::test_cluster::{run_paused, settings, until_gone};

fn t0() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn create(tree: &dyn Coordination, path: &str, data: impl Into<bytes::Bytes>) {
    tree.create(path, Some(data.into()), CreateMode::Persistent)
        .await
        .unwrap();
}

async fn create_topic(cluster: &Cluster, tree: &dyn Coordination, replicas: &[i32]) {
    create(tree, "/brokers/topics/t", assignment(1, replicas).encode()).await;
    cluster.until(0, |cache| cache.contains("t", 0)).await;
}

/// The leader of `t-0` proposes in-sync replicas.
async fn propose(cluster: &Cluster, tree: &dyn Coordination, controller: &Controller, isr: &[i32]) {
    let path = znodes::partition_state("t", 0);
    let node = tree.get(&path, None).await.unwrap().unwrap();
    let state = znodes::PartitionState::decode(&path, &node.data.unwrap(), node.stat.version).unwrap();
    let present = state.leader_and_isr;
    let leader = present.leader.unwrap();
    let registered = tree.get(&znodes::broker_id(leader), None).await.unwrap().unwrap();
    let proposed = LeaderAndIsr {
        isr: isr.into(),
        ..present
    };
    let results = controller
        .alter_isr(leader, registered.stat.czxid, vec![(t0(), proposed)])
        .await
        .unwrap();
    let holds = results[&t0()].clone().unwrap();
    let is_heard = |cache: &crate::metadata_cache::MetadataCache| {
        let now = cache.load();
        now.partition("t", 0)
            .is_some_and(|one| one.leader_epoch >= holds.leader_epoch)
    };
    cluster.until(0, is_heard).await;
}

fn led_by(cluster: &Cluster, leader: i32) -> bool {
    let now = cluster.brokers.caches[&0].load();
    now.partition("t", 0)
        .is_some_and(|one| one.leader == Some(leader))
}

#[test]
fn a_move_that_is_asked_for_in_the_tree_ends_with_the_node_gone_and_the_new_leader_told() {
    run(async {
        let cluster = Cluster::new(2);
        let (session, controller) = cluster.join(0).await;
        cluster.join(1).await;
        cluster.until(0, |cache| cache.load().broker_count() == 2).await;
        let tree: &dyn Coordination = session.as_ref();
        create_topic(&cluster, tree, &[0]).await;
        let asked = znodes::topic::encode_reassignment(&[(t0(), vec![1])]);
        create(tree, znodes::REASSIGN_PARTITIONS, asked).await;
        cluster
            .until(0, |cache| {
                let now = cache.load();
                now.partition("t", 0)
                    .is_some_and(|one| one.leader_epoch == LeaderEpoch(1))
            })
            .await;
        let moving = controller.list_partition_reassignments(None).await.unwrap();
        assert_eq!(moving[&t0()].adding_replicas[..], [1]);
        propose(&cluster, tree, &controller, &[0, 1]).await;
        until_gone(tree, znodes::REASSIGN_PARTITIONS).await;
        cluster.until(0, |_| led_by(&cluster, 1)).await;
        let node = tree.get("/brokers/topics/t", None).await.unwrap().unwrap();
        assert_eq!(node.data.unwrap(), assignment(1, &[1]).encode());
        assert_eq!(cluster.brokers.deleted.lock()[..], [t0()]);
    });
}

#[test]
fn a_leader_of_old_completes_a_move_by_writing_the_state_and_is_heard_by_its_notification() {
    run(async {
        let cluster = Cluster::new(2);
        let (session, controller) = cluster.join(0).await;
        cluster.join(1).await;
        cluster.until(0, |cache| cache.load().broker_count() == 2).await;
        let tree: &dyn Coordination = session.as_ref();
        create_topic(&cluster, tree, &[0]).await;
        let wanted = BTreeMap::from([(t0(), Some(vec![1]))]);
        let results = controller.alter_partition_reassignments(wanted).await.unwrap();
        assert_eq!(results[&t0()], Ok(()));
        let state = r#"{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":1,"isr":[0,1]}"#;
        let path = znodes::partition_state("t", 0);
        tree.set(&path, state.into(), ExpectedVersion::Any).await.unwrap();
        cluster.until(0, |_| led_by(&cluster, 1)).await;
        assert_eq!(
            controller.list_partition_reassignments(None).await.unwrap(),
            BTreeMap::new()
        );

        let data = znodes::topic::encode_partitions(&[t0()]);
        let told = tree.create(
            znodes::ISR_CHANGE_PREFIX,
            Some(data),
            CreateMode::PersistentSequential,
        );
        until_gone(tree, &told.await.unwrap()).await;
    });
}

#[test]
fn only_the_controller_answers() {
    run(async {
        let cluster = Cluster::new(2);
        let (_session, _first) = cluster.join(0).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let (_session, other) = cluster.join(1).await;
        cluster.until(1, |cache| cache.load().broker_count() == 2).await;
        let refusal = other.list_partition_reassignments(None).await.unwrap_err();
        assert_eq!(refusal.kind, ControllerErrorKind::NotController);
        let refusal = other.controlled_shutdown(1, None).await.unwrap_err();
        assert_eq!(refusal.kind, ControllerErrorKind::NotController);
        other.shutdown().await;
        let elections = other.elect_leaders(BTreeSet::new(), ElectionType::Preferred);
        assert_eq!(
            elections.await.unwrap_err().kind,
            ControllerErrorKind::NotController
        );
    });
}

#[test]
fn preferred_leaders_are_elected_by_the_tree_and_by_themselves() {
    run_paused(async {
        let cluster = Cluster::new(2);
        let session = cluster.tree.session();
        let tree: Arc<dyn Coordination> = session.clone();
        let balanced = crate::controller::ControllerSettings {
            leader_rebalance: Some(LeaderRebalance {
                interval: Duration::from_secs(300),
                imbalance_percentage: 10,
            }),
            ..settings(0)
        };
        let controller = cluster.join_over(Arc::clone(&tree), balanced).await;
        cluster.join(1).await;
        cluster.until(0, |cache| cache.load().broker_count() == 2).await;
        create_topic(&cluster, &*tree, &[1, 0]).await;
        for by_itself in [true, false] {
            controller.controlled_shutdown(1, None).await.unwrap();
            cluster.until(0, |_| led_by(&cluster, 0)).await;
            let node = tree.get(&znodes::broker_id(1), None).await.unwrap().unwrap();
            // The same broker in another session.
            tree.delete(&znodes::broker_id(1), ExpectedVersion::Any)
                .await
                .unwrap();
            cluster.until(0, |cache| cache.load().broker_count() == 1).await;
            create(&*tree, &znodes::broker_id(1), node.data.unwrap()).await;
            cluster.until(0, |cache| cache.load().broker_count() == 2).await;
            propose(&cluster, &*tree, &controller, &[0, 1]).await;
            if !by_itself {
                let asked = znodes::topic::encode_partitions(&[t0()]);
                create(&*tree, znodes::PREFERRED_REPLICA_ELECTION, asked).await;
                until_gone(&*tree, znodes::PREFERRED_REPLICA_ELECTION).await;
            }
            cluster.until(0, |_| led_by(&cluster, 1)).await;
        }
    });
}
