//! Wishes about topics, on a cluster in memory: Kafka's words, and what the tree holds afterwards.

use super::*;
use crate::controller::Controller;
use crate::coordination::embedded::EmbeddedSession;
use crate::test_cluster::{Cluster, run};

const TIMEOUT_MS: i32 = 60_000;

struct Bench {
    cluster: Cluster,
    session: Arc<EmbeddedSession>,
    admin: TopicAdmin,
    _controller: Controller,
}

impl Bench {
    async fn new() -> Bench {
        Bench::with(&[("num.partitions", "3")], 1).await
    }

    /// `brokers` brokers, of which number 0 is asked.
    async fn with(settings: &[(&str, &str)], brokers: i32) -> Bench {
        let cluster = Cluster::new(brokers);
        let (session, controller) = cluster.join(0).await;
        for id in 1..brokers {
            cluster.join(id).await;
        }
        let count = usize::try_from(brokers).unwrap();
        cluster
            .until(0, |cache| cache.load().broker_count() == count)
            .await;
        let config = Arc::new(ArcSwap::from_pointee(
            BrokerConfig::from_settings(settings).unwrap(),
        ));
        let coordination: Arc<dyn Coordination> = Arc::clone(&session) as Arc<dyn Coordination>;
        let metadata = Arc::clone(&cluster.brokers.caches[&0]);
        let admin = TopicAdmin::new(coordination, metadata, config);
        Bench {
            cluster,
            session,
            admin,
            _controller: controller,
        }
    }

    async fn create(&self, topic: NewTopic) -> Result<CreatedTopic, AdminError> {
        self.admin
            .create_topics(TIMEOUT_MS, false, &[topic])
            .await
            .pop()
            .unwrap()
    }

    async fn grow(&self, topic: &str, total: i32, by_hand: Option<Vec<Vec<i32>>>) -> Result<(), AdminError> {
        let wanted = NewPartitions {
            topic: topic.into(),
            total_count: total,
            assignments: by_hand,
        };
        self.admin
            .create_partitions(TIMEOUT_MS, false, &[wanted])
            .await
            .pop()
            .unwrap()
    }

    async fn until_led(&self, topic: &str) {
        let led = |now: &MetadataSnapshot| {
            let topic = now.topic(topic);
            topic.is_some_and(|topic| topic.partitions.iter().all(|one| one.leader.is_some()))
        };
        self.cluster.until(0, |cache| led(&cache.load())).await;
    }

    async fn data(&self, path: &str) -> Option<String> {
        let node = self.session.get(path, None).await.unwrap()?;
        Some(String::from_utf8(node.data?.to_vec()).unwrap())
    }
}

fn topic(name: &str, partitions: i32, replicas: i16) -> NewTopic {
    NewTopic {
        name: name.into(),
        partition_count: partitions,
        replication_factor: replicas,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}

fn by_hand(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments
        .iter()
        .map(|(partition, ids)| (*partition, ids.to_vec()))
        .collect();
    NewTopic {
        assignments,
        ..topic(name, -1, -1)
    }
}

fn refusal(kind: AdminErrorKind, message: &str) -> AdminError {
    AdminError::new(kind, message)
}

#[test]
fn a_created_topic_has_its_nodes_its_leaders_and_an_answer_with_its_settings() {
    run(async {
        let bench = Bench::new().await;
        let mut wanted = topic("t", 2, 1);
        wanted.configs = vec![("retention.ms".into(), Some("1000".into()))];
        let created = bench.create(wanted).await.unwrap();
        assert_eq!((created.partition_count, created.replication_factor), (2, 1));
        let retention = created
            .configs
            .iter()
            .find(|entry| entry.name == "retention.ms")
            .unwrap();
        assert_eq!(retention.value.as_deref(), Some("1000"));
        assert!(bench.cluster.brokers.caches[&0].contains("t", 1));
        assert_eq!(
            bench.data("/brokers/topics/t").await.unwrap(),
            r#"{"version":2,"partitions":{"0":[0],"1":[0]},"adding_replicas":{},"removing_replicas":{}}"#
        );
        assert_eq!(
            bench.data("/config/topics/t").await.unwrap(),
            r#"{"version":1,"config":{"retention.ms":"1000"}}"#
        );
        assert_eq!(
            bench
                .session
                .children("/config/changes", None)
                .await
                .unwrap()
                .unwrap(),
            [""; 0]
        );
        let defaults = bench.create(topic("u", -1, -1)).await.unwrap();
        assert_eq!((defaults.partition_count, defaults.replication_factor), (3, 1));
    });
}

#[test]
fn wishes_that_cannot_be_met_are_refused_in_kafkas_words_and_order() {
    use AdminErrorKind::*;
    run(async {
        let bench = Bench::new().await;
        bench.create(topic("a.b", 1, 1)).await.unwrap();
        let configs = |pairs: &[(&str, Option<&str>)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), value.map(str::to_owned)))
                .collect::<Vec<_>>()
        };
        let table = [
            (
                topic("a.b", 1, 1),
                refusal(TopicAlreadyExists, "Topic 'a.b' already exists."),
            ),
            (
                topic("a_b", 1, 1),
                refusal(InvalidTopic, "Topic 'a_b' collides with existing topics: a.b"),
            ),
            (
                topic("", 1, 1),
                refusal(InvalidTopic, "Topic name is illegal, it can't be empty"),
            ),
            (
                topic("t", 0, 1),
                refusal(InvalidPartitions, "Number of partitions must be larger than 0."),
            ),
            (
                topic("t", -2, 1),
                refusal(InvalidPartitions, "Number of partitions must be larger than 0."),
            ),
            (
                topic("t", 1, 0),
                refusal(
                    InvalidReplicationFactor,
                    "Replication factor must be larger than 0.",
                ),
            ),
            (
                topic("t", 1, 2),
                refusal(
                    InvalidReplicationFactor,
                    "Replication factor: 2 larger than available brokers: 1.",
                ),
            ),
            (
                NewTopic {
                    partition_count: 1,
                    ..by_hand("t", &[(0, &[0])])
                },
                refusal(
                    InvalidRequest,
                    "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at \
                     the same time.",
                ),
            ),
            (
                NewTopic {
                    configs: configs(&[("a", None), ("b", None)]),
                    ..topic("t", 1, 1)
                },
                refusal(InvalidRequest, "Null value not supported for topic configs : a,b"),
            ),
            (
                NewTopic {
                    configs: configs(&[("nonsense", Some("1"))]),
                    ..topic("t", 1, 1)
                },
                refusal(InvalidConfig, "Unknown topic config name: nonsense"),
            ),
            (
                NewTopic {
                    configs: configs(&[("retention.ms", Some("x"))]),
                    ..topic("t", 1, 1)
                },
                refusal(
                    InvalidConfig,
                    "Invalid value x for configuration retention.ms: Not a number of type LONG",
                ),
            ),
            (
                by_hand("t", &[(0, &[0]), (1, &[0, 1])]),
                refusal(
                    InvalidReplicaAssignment,
                    "All partitions should have the same number of replicas",
                ),
            ),
            (
                by_hand("t", &[(0, &[0, 0])]),
                refusal(
                    InvalidReplicaAssignment,
                    "Duplicate replica assignment found: HashMap(0 -> ArrayBuffer(0, 0))",
                ),
            ),
            (
                by_hand("t", &[(0, &[0]), (2, &[0])]),
                refusal(
                    InvalidReplicaAssignment,
                    "partitions should be a consecutive 0-based integer sequence",
                ),
            ),
        ];
        for (wanted, expected) in table {
            assert_eq!(bench.create(wanted.clone()).await, Err(expected), "{wanted:?}");
        }
        assert_eq!(
            bench
                .session
                .children("/brokers/topics", None)
                .await
                .unwrap()
                .unwrap(),
            ["a.b"]
        );
        assert_eq!(
            bench
                .session
                .children("/config/topics", None)
                .await
                .unwrap()
                .unwrap(),
            ["a.b"]
        );
    });
}

#[test]
fn topics_of_one_request_that_collide_are_told_apart() {
    run(async {
        let bench = Bench::new().await;
        let answers = bench
            .admin
            .create_topics(TIMEOUT_MS, false, &[topic("a.b", 1, 1), topic("a_b", 1, 1)])
            .await;
        assert!(answers[0].is_ok());
        let collides = refusal(
            AdminErrorKind::InvalidTopic,
            "Topic 'a_b' collides with existing topics: a.b",
        );
        assert_eq!(answers[1], Err(collides));
    });
}

#[test]
fn validation_alone_writes_nothing_and_answers_what_would_be() {
    run(async {
        let bench = Bench::new().await;
        let answers = bench
            .admin
            .create_topics(0, true, &[topic("t", 2, 1), topic("t/", 1, 1)])
            .await;
        assert_eq!(answers[0].as_ref().unwrap().partition_count, 2);
        assert!(answers[1].is_err());
        assert_eq!(bench.data("/brokers/topics/t").await, None);
    });
}

#[test]
fn without_time_the_work_is_done_and_the_answer_is_that_time_is_up() {
    run(async {
        let bench = Bench::new().await;
        let timed_out = AdminError::bare(AdminErrorKind::RequestTimedOut);
        let answers = bench.admin.create_topics(0, false, &[topic("t", 1, 1)]).await;
        assert_eq!(answers, [Err(timed_out.clone())]);
        bench.until_led("t").await;
        let wanted = NewPartitions {
            topic: "t".into(),
            total_count: 2,
            assignments: None,
        };
        let answers = bench.admin.create_partitions(0, false, &[wanted]).await;
        assert_eq!(answers, [Err(timed_out.clone())]);
        bench.cluster.until(0, |cache| cache.contains("t", 1)).await;
        let answers = bench.admin.delete_topics(-1, &["t".into()]).await;
        assert_eq!(answers, [Err(timed_out)]);
        bench.cluster.until(0, |cache| !cache.contains_topic("t")).await;
    });
}

#[test]
fn settings_left_behind_by_a_former_topic_are_replaced() {
    run(async {
        let bench = Bench::new().await;
        let tree: &dyn Coordination = bench.session.as_ref();
        let stale = bytes::Bytes::from_static(br#"{"version":1,"config":{"retention.ms":"5"}}"#);
        tree.set_or_create("/config/topics/t", stale).await.unwrap();
        bench.create(topic("t", 1, 1)).await.unwrap();
        assert_eq!(
            bench.data("/config/topics/t").await.unwrap(),
            r#"{"version":1,"config":{}}"#
        );
    });
}

#[test]
fn a_deleted_topic_is_gone_from_metadata_and_tree_and_can_be_created_at_once() {
    run(async {
        let bench = Bench::new().await;
        for _ in 0..3 {
            bench.create(topic("t", 2, 1)).await.unwrap();
            let answers = bench
                .admin
                .delete_topics(TIMEOUT_MS, &["t".into(), "none".into()])
                .await;
            let unknown = AdminError::bare(AdminErrorKind::UnknownTopicOrPartition);
            assert_eq!(answers, [Ok(()), Err(unknown)]);
            assert_eq!(bench.data("/config/topics/t").await, None);
        }
        assert_eq!(bench.cluster.brokers.deleted.lock().len(), 6);
    });
}

#[test]
fn two_requests_to_delete_one_topic_both_wait_for_it() {
    run(async {
        let bench = Bench::new().await;
        bench.create(topic("t", 1, 1)).await.unwrap();
        let names = ["t".to_owned()];
        let (one, two) = tokio::join!(
            bench.admin.delete_topics(TIMEOUT_MS, &names),
            bench.admin.delete_topics(TIMEOUT_MS, &names),
        );
        assert_eq!((one, two), (vec![Ok(())], vec![Ok(())]));
    });
}

#[test]
fn partitions_are_added_and_never_taken() {
    use AdminErrorKind::*;
    run(async {
        let bench = Bench::new().await;
        bench.create(topic("t", 2, 1)).await.unwrap();
        assert_eq!(bench.grow("t", 4, None).await, Ok(()));
        assert!(bench.cluster.brokers.caches[&0].contains("t", 3));
        let table = [
            (
                bench.grow("t", 3, None).await,
                refusal(
                    InvalidPartitions,
                    "Topic currently has 4 partitions, which is higher than the requested 3.",
                ),
            ),
            (
                bench.grow("t", 4, None).await,
                refusal(InvalidPartitions, "Topic already has 4 partitions."),
            ),
            (
                bench.grow("none", 4, None).await,
                refusal(UnknownTopicOrPartition, "The topic 'none' does not exist."),
            ),
            (
                bench.grow("t", 5, Some(vec![vec![0], vec![0]])).await,
                refusal(
                    InvalidReplicaAssignment,
                    "Increasing the number of partitions by 1 but 2 assignments provided.",
                ),
            ),
            (
                bench.grow("t", 5, Some(vec![vec![7]])).await,
                refusal(
                    InvalidReplicaAssignment,
                    "Unknown broker(s) in replica assignment: 7.",
                ),
            ),
            (
                bench.grow("t", 5, Some(vec![vec![]])).await,
                refusal(
                    InvalidReplicaAssignment,
                    "Cannot have replication factor of 0 for partition id 4.",
                ),
            ),
            (
                bench.grow("t", 5, Some(vec![vec![0, 0]])).await,
                refusal(
                    InvalidReplicaAssignment,
                    "Duplicate brokers not allowed in replica assignment: 0, 0 for partition id 4.",
                ),
            ),
            (
                bench.grow("t", i32::MAX, None).await,
                refusal(
                    InvalidPartitions,
                    "A topic cannot have more than 100000 partitions, requested were 2147483647.",
                ),
            ),
        ];
        for (found, expected) in table {
            assert_eq!(found, Err(expected));
        }
        assert_eq!(bench.grow("t", 5, Some(vec![vec![0]])).await, Ok(()));
        let wanted = NewPartitions {
            topic: "t".into(),
            total_count: 9,
            assignments: None,
        };
        assert_eq!(
            bench.admin.create_partitions(TIMEOUT_MS, true, &[wanted]).await,
            [Ok(())]
        );
        assert!(!bench.data("/brokers/topics/t").await.unwrap().contains(r#""5":"#));
    });
}

#[test]
fn replicas_by_hand_must_be_as_many_as_partition_0_has() {
    run(async {
        let bench = Bench::with(&[], 2).await;
        bench.create(topic("t", 1, 2)).await.unwrap();
        let found = bench.grow("t", 3, Some(vec![vec![0], vec![1, 0]])).await;
        let expected = "Inconsistent replication factor between partitions, partition 0 has 2 while partitions [1] have \
                        replication factors [1], respectively.";
        assert_eq!(
            found,
            Err(refusal(AdminErrorKind::InvalidReplicaAssignment, expected))
        );
        assert_eq!(bench.grow("t", 2, Some(vec![vec![1, 0]])).await, Ok(()));
        let now = bench.cluster.brokers.caches[&0].snapshot();
        assert_eq!(now.partition("t", 1).unwrap().leader, Some(1));
    });
}

#[test]
fn a_topic_that_someone_asked_for_gets_the_brokers_defaults_and_kafkas_own_what_they_need() {
    run(async {
        let settings = [
            ("num.partitions", "2"),
            ("offsets.topic.num.partitions", "4"),
            ("offsets.topic.replication.factor", "1"),
        ];
        let bench = Bench::with(&settings, 1).await;
        bench.admin.auto_create_topic("t").await.unwrap();
        bench.admin.auto_create_topic("t").await.unwrap();
        bench.until_led("t").await;
        assert!(bench.cluster.brokers.caches[&0].contains("t", 1));
        bench.admin.auto_create_topic("__consumer_offsets").await.unwrap();
        bench.until_led("__consumer_offsets").await;
        assert_eq!(
            bench.cluster.brokers.caches[&0]
                .load()
                .partition_count("__consumer_offsets"),
            Some(4)
        );
        let expected = concat!(
            r#"{"version":1,"config":{"cleanup.policy":"compact","compression.type":"producer","#,
            r#""segment.bytes":"104857600"}}"#
        );
        assert_eq!(
            bench.data("/config/topics/__consumer_offsets").await.unwrap(),
            expected
        );
        let refused = bench.admin.auto_create_topic("a b").await.unwrap_err();
        assert_eq!(refused.kind, AdminErrorKind::InvalidTopic);
    });
}

#[test]
fn kafkas_own_topics_wait_for_enough_brokers() {
    run(async {
        let bench = Bench::with(&[("offsets.topic.replication.factor", "3")], 1).await;
        let refused = bench
            .admin
            .auto_create_topic("__consumer_offsets")
            .await
            .unwrap_err();
        assert_eq!(refused, AdminError::bare(AdminErrorKind::CoordinatorNotAvailable));
    });
}

#[test]
fn many_topics_of_one_request_are_created_together() {
    run(async {
        let bench = Bench::new().await;
        let topics: Vec<NewTopic> = (0..200)
            .map(|number| topic(&format!("t{number}"), 2, 1))
            .collect();
        let answers = bench.admin.create_topics(TIMEOUT_MS, false, &topics).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(bench.cluster.brokers.caches[&0].load().topics().count(), 200);
    });
}
