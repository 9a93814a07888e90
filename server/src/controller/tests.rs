//! The controller on an embedded tree: elections, topics that come, grow and go, fencing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use milena_engine::io::Io;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::units::{TimestampMs, TopicPartition};
use parking_lot::Mutex;

use super::*;
use crate::cluster::{BoxFuture, Broker, Endpoint, SecurityProtocol};
use crate::coordination::embedded::{EmbeddedSession, EmbeddedTree};
use crate::coordination::startup::{create_persistent_paths, register_broker};
use crate::coordination::znodes::{BrokerRegistration, ReplicaAssignment, TopicAssignment};
use crate::metadata_cache::MetadataCache;
use command::BrokerReply;

/// Brokers that obey, with a metadata cache each.
#[derive(Default)]
struct Obedient {
    caches: BTreeMap<i32, Arc<MetadataCache>>,
    deleted: Mutex<Vec<TopicPartition>>,
}

impl BrokerChannel for Obedient {
    fn send(&self, broker_id: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        match command {
            BrokerCommand::UpdateMetadata(command) => {
                self.caches[&broker_id].update(&command);
            }
            BrokerCommand::StopReplica(command) => {
                let deleted = command.partitions.into_iter().filter(|one| one.delete_partition);
                self.deleted.lock().extend(deleted.map(|one| one.topic_partition));
            }
            BrokerCommand::LeaderAndIsr(_) => {}
        }
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

struct Cluster {
    tree: EmbeddedTree,
    brokers: Arc<Obedient>,
    clock: Arc<ManualClock>,
}

impl Cluster {
    fn new(brokers: i32) -> Cluster {
        let disk = SimulatedDisk::new(1);
        let directory = PathBuf::from("/a");
        disk.create_dir_all(&directory).unwrap();
        let io: Arc<dyn Io> = Arc::new(disk);
        let clock = Arc::new(ManualClock::new(TimestampMs(1_600_000_000_000)));
        let tree = EmbeddedTree::open(&io, Arc::clone(&clock) as Arc<dyn Clock>, &[directory]).unwrap();
        let caches = (0..brokers).map(|id| (id, Arc::default())).collect();
        Cluster {
            tree,
            brokers: Arc::new(Obedient {
                caches,
                ..Obedient::default()
            }),
            clock,
        }
    }

    async fn join(&self, id: i32) -> (Arc<EmbeddedSession>, Controller) {
        let session = self.tree.session();
        let coordination: Arc<dyn Coordination> = Arc::clone(&session) as Arc<dyn Coordination>;
        create_persistent_paths(coordination.as_ref()).await.unwrap();
        register_broker(coordination.as_ref(), &registration(id, 9092 + id))
            .await
            .unwrap();
        let settings = ControllerSettings {
            broker_id: id,
            delete_topic_enable: true,
            unclean_leader_election_enable: false,
        };
        let channel: Arc<dyn BrokerChannel> = Arc::clone(&self.brokers) as Arc<dyn BrokerChannel>;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (controller, run) = Controller::start(settings, coordination, channel, clock);
        tokio::spawn(run);
        (session, controller)
    }

    /// Waits until the cache of a broker is as it should be.
    async fn until(&self, broker: i32, what: impl Fn(&MetadataCache) -> bool) {
        let cache = &self.brokers.caches[&broker];
        let mut updates = cache.subscribe();
        while !what(cache) {
            updates.changed().await.unwrap();
        }
    }
}

fn registration(id: i32, port: i32) -> BrokerRegistration {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "h".into(),
        port,
        security_protocol: SecurityProtocol::Plaintext,
    };
    let broker = Broker {
        id,
        endpoints: vec![endpoint],
        rack: None,
    };
    BrokerRegistration {
        broker,
        jmx_port: -1,
        timestamp_ms: 1,
    }
}

fn assignment(partitions: i32, replicas: &[i32]) -> TopicAssignment {
    let partitions = (0..partitions)
        .map(|number| (number, ReplicaAssignment::new(replicas)))
        .collect();
    TopicAssignment { partitions }
}

async fn until_gone(tree: &dyn Coordination, path: &str) {
    loop {
        let gone = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&gone);
        if tree
            .get(path, Some(Box::new(move |_| notify.notify_one())))
            .await
            .unwrap()
            .is_none()
        {
            return;
        }
        gone.notified().await;
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test)
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
