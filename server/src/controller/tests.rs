//! The controller on an embedded tree: elections, topics that come, grow and go, fencing.

mod faults;
mod requests;

use crate::coordination::znodes::{self, ReplicaAssignment, TopicAssignment};
use crate::coordination::{Coordination, CreateMode, ExpectedVersion, Operation};
use crate::test_cluster::{Cluster, run, until_gone};

fn assignment(partitions: i32, replicas: &[i32]) -> TopicAssignment {
    let partitions = (0..partitions)
        .map(|number| (number, ReplicaAssignment::new(replicas)))
        .collect();
    TopicAssignment { partitions }
}

#[test]
fn a_topic_in_the_tree_gets_leaders_grows_and_goes() {
    run(async {
        let cluster = Cluster::new(1);
        let (session, controller) = cluster.join(0).await;
        let tree: &dyn Coordination = session.as_ref();
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        tree.create(
            "/brokers/topics/t",
            Some(assignment(2, &[0]).encode()),
            CreateMode::Persistent,
        )
        .await
        .unwrap();
        tree.set_or_create("/config/topics/t", bytes::Bytes::from_static(b"{}"))
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 1)).await;
        let state = tree
            .get("/brokers/topics/t/partitions/1/state", None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            state.data.unwrap(),
            r#"{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":0,"isr":[0]}"#
        );

        tree.set(
            "/brokers/topics/t",
            assignment(4, &[0]).encode(),
            ExpectedVersion::Any,
        )
        .await
        .unwrap();
        cluster.until(0, |cache| cache.contains("t", 3)).await;
        tree.set(
            "/brokers/topics/t",
            assignment(5, &[0]).encode(),
            ExpectedVersion::Any,
        )
        .await
        .unwrap();
        cluster.until(0, |cache| cache.contains("t", 4)).await;

        tree.create("/admin/delete_topics/t", None, CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| !cache.contains_topic("t")).await;
        until_gone(tree, "/admin/delete_topics/t").await;
        assert_eq!(tree.get("/brokers/topics/t", None).await.unwrap(), None);
        assert_eq!(tree.get("/config/topics/t", None).await.unwrap(), None);
        assert_eq!(cluster.brokers.deleted.lock().len(), 5);
        assert!(controller.is_active());
        assert_eq!(controller.controller_id(), Some(0));
        controller.shutdown().await;
    });
}

#[test]
fn the_election_writes_what_kafka_writes() {
    run(async {
        let cluster = Cluster::new(1);
        let (session, _controller) = cluster.join(0).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let node = session.get(znodes::CONTROLLER, None).await.unwrap().unwrap();
        assert_eq!(
            node.data.unwrap(),
            r#"{"version":1,"brokerid":0,"timestamp":"1600000000000"}"#
        );
        assert!(node.stat.ephemeral_owner.is_some());
        let epoch = session
            .get(znodes::CONTROLLER_EPOCH, None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(epoch.data.unwrap(), "1");
    });
}

#[test]
fn when_the_controller_dies_another_takes_over_its_partitions() {
    run(async {
        let cluster = Cluster::new(2);
        let (first, _first_controller) = cluster.join(0).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let (second, controller) = cluster.join(1).await;
        cluster.until(1, |cache| cache.load().broker_count() == 2).await;
        let tree: &dyn Coordination = second.as_ref();
        let both = assignment(1, &[0, 1]);
        tree.create("/brokers/topics/t", Some(both.encode()), CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(1, |cache| cache.contains("t", 0)).await;
        assert_eq!(controller.controller_id(), Some(0));
        cluster.tree.expire(&first).await.unwrap();
        cluster
            .until(1, |cache| {
                let now = cache.load();
                now.partition("t", 0)
                    .is_some_and(|one| one.leader == Some(1) && one.isr[..] == [1])
            })
            .await;
        assert!(controller.is_active());
        let state = tree
            .get("/brokers/topics/t/partitions/0/state", None)
            .await
            .unwrap()
            .unwrap();
        assert!(
            state
                .data
                .unwrap()
                .starts_with(br#"{"controller_epoch":2,"leader":1,"#)
        );
        assert_eq!(cluster.brokers.caches[&1].load().controller_id(), Some(1));
    });
}

#[test]
fn a_controller_whose_node_is_deleted_by_hand_is_elected_anew() {
    run(async {
        let cluster = Cluster::new(1);
        let (session, controller) = cluster.join(0).await;
        let tree: &dyn Coordination = session.as_ref();
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        tree.delete(znodes::CONTROLLER, ExpectedVersion::Any)
            .await
            .unwrap();
        let wanted = assignment(1, &[0]);
        tree.create("/brokers/topics/t", Some(wanted.encode()), CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 0)).await;
        let epoch = tree.get(znodes::CONTROLLER_EPOCH, None).await.unwrap().unwrap();
        assert_eq!(epoch.data.unwrap(), "2");
        assert!(controller.is_active());
    });
}

#[test]
fn a_damaged_topic_is_left_out_and_the_others_are_served() {
    run(async {
        let cluster = Cluster::new(1);
        let (session, _controller) = cluster.join(0).await;
        let tree: &dyn Coordination = session.as_ref();
        let bad = bytes::Bytes::from_static(b"{");
        tree.create("/brokers/topics/bad", Some(bad), CreateMode::Persistent)
            .await
            .unwrap();
        let good = assignment(1, &[0]);
        tree.create(
            "/brokers/topics/good",
            Some(good.encode()),
            CreateMode::Persistent,
        )
        .await
        .unwrap();
        cluster.until(0, |cache| cache.contains("good", 0)).await;
        assert!(!cluster.brokers.caches[&0].contains_topic("bad"));
    });
}

#[test]
fn a_topic_that_was_damaged_and_mended_grows_on() {
    run(async {
        let cluster = Cluster::new(1);
        let (session, _controller) = cluster.join(0).await;
        let tree: &dyn Coordination = session.as_ref();
        let path = "/brokers/topics/t";
        tree.create(path, Some(assignment(1, &[0]).encode()), CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 0)).await;
        let bad = bytes::Bytes::from_static(b"{");
        tree.set(path, bad, ExpectedVersion::Any).await.unwrap();
        // Another topic, so that the damage has been read.
        tree.create(
            "/brokers/topics/u",
            Some(assignment(1, &[0]).encode()),
            CreateMode::Persistent,
        )
        .await
        .unwrap();
        cluster.until(0, |cache| cache.contains("u", 0)).await;
        tree.set(path, assignment(2, &[0]).encode(), ExpectedVersion::Any)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 1)).await;
    });
}

/// A topic whose only in-sync replica is on a broker that is gone.
async fn create_leaderless(tree: &dyn Coordination, topic: &str) {
    let state = r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":2,"isr":[1]}"#;
    let path = znodes::partition(topic, 0);
    let operations = vec![
        Operation::create(znodes::topic(topic), Some(assignment(1, &[1, 0]).encode())),
        Operation::create(znodes::partitions(topic), None),
        Operation::create(path, None),
        Operation::create(znodes::partition_state(topic, 0), Some(state.into())),
    ];
    tree.multi(operations).await.unwrap();
}

#[test]
fn unclean_elections_enabled_at_run_time_give_leaderless_partitions_a_leader() {
    run(async {
        let cluster = Cluster::new(1);
        let session = cluster.tree.session();
        let tree: &dyn Coordination = session.as_ref();
        tree.ensure(znodes::TOPICS).await.unwrap();
        for topic in ["by-topic", "by-default"] {
            create_leaderless(tree, topic).await;
        }
        let (_session, controller) = cluster.join(0).await;
        let led = |topic: &str| {
            let now = cluster.brokers.caches[&0].load();
            now.partition(topic, 0).is_some_and(|one| one.leader == Some(0))
        };
        cluster
            .until(0, |cache| {
                cache.contains("by-topic", 0) && cache.contains("by-default", 0)
            })
            .await;
        assert!(!led("by-topic"));

        let config = br#"{"version":1,"config":{"unclean.leader.election.enable":"true"}}"#;
        tree.set_or_create("/config/topics/by-topic", bytes::Bytes::from_static(config))
            .await
            .unwrap();
        controller.enable_topic_unclean_leader_election("by-topic");
        cluster.until(0, |_| led("by-topic")).await;
        assert!(!led("by-default"));

        controller.set_unclean_leader_election(false);
        controller.set_unclean_leader_election(true);
        cluster.until(0, |_| led("by-default")).await;
    });
}
