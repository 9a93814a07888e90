//! Directories on a simulated disk and the embedded tree in one of them, start after start.

use std::io::IoSlice;
use std::path::Path;

use bytes::Bytes;
use milena_engine::checkpoint::{BrokerMetadata, RunState};
use milena_engine::io::simulated::{Fault, ManualClock, SimulatedDisk};
use milena_engine::io::{Clock, OpenMode};
use milena_engine::units::{Offset, TimestampMs, TopicPartition};

use super::*;
use crate::coordination::embedded::EmbeddedTree;
use crate::coordination::startup::create_persistent_paths;
use crate::coordination::znodes::{EntityConfig, EntityType, PartitionState, config::entity_path};
use crate::test_cluster::run;

const KEEPS_EVERYTHING: &str = r#"{"version":1,"config":{"retention.bytes":"-1","retention.ms":"-1"}}"#;

/// A disk with the log directories `/a` and `/b` of broker 7, and the broker's settings.
struct Node {
    disk: Arc<SimulatedDisk>,
    clock: Arc<ManualClock>,
    config: BrokerConfig,
    import: Option<Import>,
}

impl Node {
    fn new() -> Node {
        let disk = SimulatedDisk::new(1);
        for directory in ["/a", "/b"] {
            disk.create_dir_all(Path::new(directory)).unwrap();
        }
        let overrides = [("log.dirs".to_owned(), "/a,/b".to_owned())];
        let (config, _) = BrokerConfig::load(None, &overrides, []).unwrap();
        let node = Node {
            disk: Arc::new(disk),
            clock: Arc::new(ManualClock::new(TimestampMs(1_000_000))),
            config,
            import: None,
        };
        node.kafka_starts();
        node
    }

    /// Kafka writes `meta.properties` anew, at another time.
    fn kafka_starts(&self) {
        self.clock.advance(std::time::Duration::from_secs(60));
        let metadata = BrokerMetadata {
            broker_id: 7,
            cluster_id: Some("lX2CrF_KSPCgF2WuaT801A".to_owned()),
        };
        for directory in ["/a", "/b"] {
            metadata
                .write(&*self.disk, Path::new(directory), self.clock.wall())
                .unwrap();
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = Path::new(path);
        self.disk.create_dir_all(path.parent().unwrap()).unwrap();
        let file = self.disk.open(path, OpenMode::Truncate).unwrap();
        file.write_vectored_at(0, &[IoSlice::new(bytes)]).unwrap();
    }

    /// A partition with records and this last leader epoch.
    fn partition(&self, path: &str, epoch: i32) {
        self.write(&format!("{path}/00000000000000000000.log"), b"records");
        let epochs = format!("0\n1\n{epoch} 0\n");
        self.write(&format!("{path}/leader-epoch-checkpoint"), epochs.as_bytes());
    }

    fn delete(&self, path: &str) {
        self.disk.remove_dir_all(Path::new(path)).unwrap();
    }

    /// What Milena had in both directories when it stopped.
    fn milena_stops(&self, partitions: &[(&str, i32)]) {
        let had = partitions
            .iter()
            .map(|(topic, number)| (TopicPartition::new(*topic, *number), Offset(0)));
        let state = RunState {
            boot_id: "x".to_owned(),
            stopped_clean: true,
            synced_ends: had.collect(),
        };
        state.write(&*self.disk, Path::new("/a")).unwrap();
    }

    fn import(&mut self, text: &str) {
        self.import = Some(Import::parse(Path::new("topics.txt"), text.as_bytes()).unwrap());
    }

    /// One start: adoption, then what a person would look at is read. `None` if it did not come so far, or
    /// the tree is lost.
    fn try_start(&self) -> Option<(Result<AdoptionReport, AdoptionError>, BTreeMap<String, String>)> {
        let dirs = [PathBuf::from("/a"), PathBuf::from("/b")];
        let io: Arc<dyn Io> = Arc::<SimulatedDisk>::clone(&self.disk);
        let survey = Survey::of(&dirs, &*io).ok()?;
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let online: Vec<PathBuf> = survey
            .online
            .iter()
            .map(|found| found.directory.path().to_owned())
            .collect();
        let tree = EmbeddedTree::open(&io, clock, &online).ok()?;
        let session = tree.session();
        let start = Start {
            broker_id: 7,
            cluster_id: "lX2CrF_KSPCgF2WuaT801A",
            config: &self.config,
            survey: &survey,
            io: &*io,
            tree_is_new: tree.is_new(),
            import: self.import.as_ref(),
        };
        run(async {
            let coordination: &dyn Coordination = session.as_ref();
            create_persistent_paths(coordination).await.ok()?;
            let report = adopt(coordination, &start).await;
            if report.is_ok() {
                remember(coordination, &*io, &online).await.ok()?;
            }
            let mut nodes = BTreeMap::new();
            for path in coordination.subtree("/").await.ok()? {
                let data = coordination.get(&path, None).await.ok()??.data;
                let data = data.as_deref().unwrap_or_default();
                nodes.insert(path, String::from_utf8(data.to_vec()).unwrap());
            }
            Some((report, nodes))
        })
    }

    fn start(&self) -> (Result<AdoptionReport, AdoptionError>, BTreeMap<String, String>) {
        self.try_start().unwrap()
    }

    fn starts(&self) -> (AdoptionReport, BTreeMap<String, String>) {
        let (report, nodes) = self.start();
        (report.unwrap(), nodes)
    }

    /// A change that the broker makes in the tree while it runs.
    fn set(&self, path: &str, data: Bytes) {
        let io: Arc<dyn Io> = Arc::<SimulatedDisk>::clone(&self.disk);
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let tree = EmbeddedTree::open(&io, clock, &[PathBuf::from("/a")]).unwrap();
        let session = tree.session();
        let coordination: &dyn Coordination = session.as_ref();
        run(coordination.set_or_create(path, data)).unwrap();
    }
}

fn names(topics: &[Arc<str>]) -> Vec<&str> {
    topics.iter().map(|topic| &**topic).collect()
}

/// Leader (-1 for none), leader epoch and in-sync replicas.
fn state(nodes: &BTreeMap<String, String>, topic: &str, number: i32) -> (i32, i32, Vec<i32>) {
    let path = znodes::partition_state(topic, number);
    let state = PartitionState::decode(&path, nodes[&path].as_bytes(), 0)
        .unwrap()
        .leader_and_isr;
    (
        state.leader.unwrap_or(-1),
        state.leader_epoch.get(),
        state.isr.to_vec(),
    )
}

fn says(report: &AdoptionReport, severity: Severity, text: &str) -> bool {
    report
        .messages
        .iter()
        .any(|(how, message)| *how == severity && message.contains(text))
}

#[test]
fn a_directory_that_kafka_wrote_is_registered_as_kafka_would_have_it_and_keeps_everything() {
    let node = Node::new();
    node.partition("/a/orders-0", 4);
    node.partition("/b/orders-1", 2);
    node.write("/a/old-0/00000000000000000000.log", b"");
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.adopted), ["old", "orders"]);
    assert!(report.producer_ids_may_be_new);
    let expected =
        r#"{"version":2,"partitions":{"0":[7],"1":[7]},"adding_replicas":{},"removing_replicas":{}}"#;
    assert_eq!(nodes["/brokers/topics/orders"], expected);
    let expected = r#"{"controller_epoch":0,"leader":7,"version":1,"leader_epoch":4,"isr":[7]}"#;
    assert_eq!(nodes["/brokers/topics/orders/partitions/0/state"], expected);
    assert_eq!(state(&nodes, "orders", 1), (7, 2, vec![7]));
    assert_eq!(state(&nodes, "old", 0), (7, 0, vec![7]));
    assert_eq!(nodes["/config/topics/orders"], KEEPS_EVERYTHING);
    assert!(says(
        &report,
        Severity::Info,
        "Apache Kafka's broker 7 of cluster lX2CrF_KSPCgF2WuaT801A: 2 topics"
    ));
    assert!(says(
        &report,
        Severity::Info,
        "orders is registered with partitions 0-1 at leader epochs 2, 4"
    ));
}

#[test]
fn a_start_that_finds_what_the_last_one_left_says_and_writes_nothing() {
    let node = Node::new();
    node.partition("/a/orders-0", 4);
    let (_, before) = node.starts();
    let (report, after) = node.starts();
    assert_eq!(report, AdoptionReport::default());
    assert_eq!(before, after);
}

#[test]
fn internal_topics_get_kafkas_settings_and_as_many_partitions_as_groups_are_spread_over() {
    let node = Node::new();
    node.partition("/a/__consumer_offsets-0", 0);
    node.partition("/a/__consumer_offsets-3", 0);
    node.partition("/a/__transaction_state-0", 0);
    node.partition("/a/__transaction_state-1", 0);
    let (report, nodes) = node.starts();
    let config = &nodes["/config/topics/__consumer_offsets"];
    assert!(
        config.contains(r#""cleanup.policy":"compact""#) && !config.contains("retention"),
        "{config}"
    );
    assert_eq!(state(&nodes, "__consumer_offsets", 3), (7, 0, vec![7]));
    assert_eq!(
        state(&nodes, "__consumer_offsets", 49),
        (-1, 0, vec![]),
        "the topic has gaps, so 50 is assumed"
    );
    assert!(!nodes.contains_key("/brokers/topics/__consumer_offsets/partitions/50"));
    assert!(
        !nodes.contains_key("/brokers/topics/__transaction_state/partitions/2"),
        "without gaps it is all here"
    );
    assert!(says(
        &report,
        Severity::Warning,
        "__consumer_offsets: partitions 1-2, 4-49 must exist"
    ));
}

#[test]
fn a_gap_in_the_numbers_is_a_partition_without_leader_until_its_records_are_brought() {
    let node = Node::new();
    node.partition("/a/t-1", 0);
    node.partition("/a/t-3", 0);
    let (report, nodes) = node.starts();
    assert_eq!(state(&nodes, "t", 0), (-1, 0, vec![]));
    assert_eq!(state(&nodes, "t", 1), (7, 0, vec![7]));
    assert!(says(
        &report,
        Severity::Warning,
        "Topic t: partitions 0, 2 must exist"
    ));

    node.write("/a/t-0/00000000000000000000.log", b"");
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.extended), [""; 0]);
    assert_eq!(
        state(&nodes, "t", 0),
        (-1, 0, vec![]),
        "an empty log is no reason to serve it"
    );

    node.partition("/b/t-2", 6);
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.extended), ["t"]);
    assert_eq!(state(&nodes, "t", 2), (7, 6, vec![7]));
    assert_eq!(state(&nodes, "t", 0), (-1, 0, vec![]));
}

#[test]
fn the_name_of_a_directory_does_not_decide_how_much_is_written() {
    let node = Node::new();
    node.partition("/a/t-2147483647", 0);
    let (report, nodes) = node.starts();
    assert_eq!(state(&nodes, "t", i32::MAX), (7, 0, vec![7]));
    assert!(nodes.len() < 50);
    assert!(says(&report, Severity::Warning, "its highest partition is above"));
}

#[test]
fn an_import_gives_settings_partitions_and_the_names_of_absent_brokers() {
    let mut node = Node::new();
    node.partition("/a/orders-0", 4);
    node.write("/a/old-0/00000000000000000000.log", b"");
    node.import(concat!(
        "{\"topic\":\"orders\",\"config\":{\"retention.ms\":\"5\"}}\n",
        "create /brokers/topics/orders {\"version\":2,\"partitions\":{\"0\":[1,7],\"1\":[2,3]}}\n",
        "create /brokers/topics/orders/partitions/0/state ",
        "{\"controller_epoch\":7,\"leader\":1,\"version\":1,\"leader_epoch\":9,\"isr\":[1]}\n",
        "create /brokers/topics/old/partitions/0/state ",
        "{\"controller_epoch\":7,\"leader\":1,\"version\":1,\"leader_epoch\":8,\"isr\":[1]}\n",
        "create /latest_producer_id_block {\"version\":1,\"broker\":1,\"block_start\":\"5000\",\"block_end\":\"5999\"}\n",
        "create /controller_epoch 12\n",
        "create /config/brokers/<default> {\"version\":1,\"config\":{\"log.cleaner.threads\":\"2\"}}\n",
        "{\"topic\":\"ordrs\",\"config\":{}}\n",
    ));
    let (report, nodes) = node.starts();
    assert_eq!(
        nodes["/config/topics/orders"],
        r#"{"version":1,"config":{"retention.ms":"5"}}"#
    );
    assert_eq!(nodes["/config/topics/old"], KEEPS_EVERYTHING);
    assert_eq!(
        state(&nodes, "orders", 0),
        (7, 4, vec![7]),
        "the epoch of the log"
    );
    assert_eq!(state(&nodes, "old", 0), (7, 8, vec![7]), "this log knows none");
    assert_eq!(state(&nodes, "orders", 1), (-1, 0, vec![]));
    assert!(nodes["/latest_producer_id_block"].contains("\"5999\""));
    assert_eq!(nodes["/controller_epoch"], "12");
    assert!(nodes["/brokers/topics/orders/partitions/0/state"].starts_with("{\"controller_epoch\":12,"));
    assert!(nodes["/config/brokers/<default>"].contains("log.cleaner.threads"));
    assert!(says(
        &report,
        Severity::Warning,
        "the replicas of brokers 1 are absent"
    ));
    assert!(says(
        &report,
        Severity::Warning,
        "partition 1 must exist, but no log directory has them (brokers 2-3"
    ));
    assert!(says(&report, Severity::Warning, "they are not created: ordrs"));
}

#[test]
fn an_import_at_a_later_start_settles_topics_that_nobody_settled_since() {
    let mut node = Node::new();
    node.partition("/a/one-0", 0);
    node.partition("/a/two-0", 0);
    node.starts();
    let own = EntityConfig([("retention.ms".to_owned(), "9".to_owned())].into());
    node.set(&entity_path(EntityType::Topics, "two"), own.encode());
    node.import("{\"topic\":\"one\",\"config\":{}}\n{\"topic\":\"two\",\"config\":{}}\n");
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.imported), ["one"]);
    assert_eq!(nodes["/config/topics/one"], r#"{"version":1,"config":{}}"#);
    assert_eq!(
        nodes["/config/topics/two"],
        r#"{"version":1,"config":{"retention.ms":"9"}}"#
    );
    assert!(says(
        &report,
        Severity::Info,
        "two has settings of its own already"
    ));
    let (report, _) = node.starts();
    assert_eq!(names(&report.imported), [""; 0]);
}

#[test]
fn a_dump_of_another_cluster_is_refused() {
    let mut node = Node::new();
    node.import("create /cluster/id {\"version\":\"1\",\"id\":\"other\"}\n");
    let (report, _) = node.start();
    let expected = "topics.txt is a dump of cluster other, but the log directories belong to cluster lX2CrF_KSPCgF2WuaT801A";
    assert_eq!(report.unwrap_err().to_string(), expected);
}

#[test]
fn what_kafka_created_in_between_is_registered() {
    let node = Node::new();
    node.partition("/a/t-0", 0);
    node.starts();
    node.milena_stops(&[("t", 0)]);
    node.kafka_starts();
    node.partition("/a/t-1", 3);
    node.partition("/a/new-0", 1);
    node.partition("/a/t-0", 5);
    let (report, nodes) = node.starts();
    assert_eq!(
        (names(&report.adopted), names(&report.extended)),
        (vec!["new"], vec!["t"])
    );
    assert_eq!(state(&nodes, "t", 1), (7, 3, vec![7]));
    assert_eq!(
        state(&nodes, "t", 0),
        (7, 5, vec![7]),
        "Kafka raised its leader epoch"
    );
    assert!(says(
        &report,
        Severity::Info,
        "Another broker has used log directory /a"
    ));
}

#[test]
fn what_kafka_deleted_in_between_is_removed_with_its_settings_told() {
    let node = Node::new();
    for partition in ["/a/gone-0", "/b/gone-1", "/a/less-0", "/a/less-1", "/a/stays-0"] {
        node.partition(partition, 0);
    }
    node.starts();
    node.milena_stops(&[("gone", 0), ("gone", 1), ("less", 0), ("less", 1), ("stays", 0)]);
    node.kafka_starts();
    node.delete("/a/gone-0");
    node.delete("/b/gone-1");
    node.delete("/a/less-1");
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.removed), ["gone", "less"]);
    assert!(!nodes.keys().any(|path| path.contains("gone")));
    assert!(nodes["/brokers/topics/less"].contains(r#""partitions":{"0":[7]}"#));
    assert!(!nodes.contains_key("/brokers/topics/less/partitions/1"));
    assert!(says(&report, Severity::Warning, "gone was deleted"));
    assert!(says(
        &report,
        Severity::Warning,
        "retention.bytes=-1, retention.ms=-1"
    ));
    let (report, again) = node.starts();
    assert_eq!((report, &again), (AdoptionReport::default(), &nodes));
}

#[test]
fn a_topic_is_not_forgotten_while_its_absence_has_another_explanation() {
    type Change = fn(&Node);
    let cases: [(&str, bool, Change); 3] = [
        ("nobody else was there", false, |_| {}),
        (
            "its creation was cut off: it never was on this disk",
            true,
            |node| node.kafka_starts(),
        ),
        ("a directory is offline", true, |node| {
            node.kafka_starts();
            node.disk.fail_below(Path::new("/b"), Fault::Eio);
        }),
    ];
    for (why, deleted, change) in cases {
        let node = Node::new();
        node.partition("/a/stays-0", 0);
        node.partition("/a/t-0", 0);
        node.starts();
        if why.contains("offline") || !deleted {
            node.milena_stops(&[("t", 0)]);
        }
        change(&node);
        node.delete("/a/t-0");
        let (report, nodes) = node.starts();
        assert_eq!(names(&report.removed), [""; 0], "{why}");
        assert!(
            nodes.contains_key("/brokers/topics/t/partitions/0/state"),
            "{why}"
        );
        assert!(
            says(&report, Severity::Warning, "Topic t: no log directory"),
            "{why}"
        );
    }
}

#[test]
fn a_first_start_with_a_directory_offline_is_refused() {
    let node = Node::new();
    node.partition("/a/t-0", 0);
    node.disk.fail_below(Path::new("/b"), Fault::Eio);
    let (report, nodes) = node.start();
    let refused = report.unwrap_err();
    assert!(
        matches!(refused, AdoptionError::DirectoryOffline { .. }),
        "{refused}"
    );
    assert!(!nodes.contains_key("/brokers/topics/t"));
}

#[test]
fn a_lost_tree_is_told_from_a_directory_of_kafka() {
    let node = Node::new();
    node.partition("/b/t-0", 0);
    node.milena_stops(&[("t", 0)]);
    let (report, _) = node.starts();
    assert_eq!(names(&report.adopted), ["t"]);
    assert!(says(&report, Severity::Warning, "its coordination tree is gone"));
}

#[test]
fn producer_ids_start_above_those_that_are_found() {
    let node = Node::new();
    node.partition("/a/t-0", 0);
    let mut aborted = vec![0; 34];
    aborted[2..10].copy_from_slice(&4321i64.to_be_bytes());
    node.write("/a/t-0/00000000000000000000.txnindex", &aborted);
    let (_, nodes) = node.starts();
    let expected = r#"{"version":1,"broker":7,"block_start":"4000","block_end":"4999"}"#;
    assert_eq!(nodes["/latest_producer_id_block"], expected);
}

#[test]
fn a_topic_that_is_being_deleted_is_left_to_the_controller() {
    let node = Node::new();
    node.partition("/a/t-0", 0);
    node.set("/admin/delete_topics/t", Bytes::new());
    let (report, nodes) = node.starts();
    assert_eq!(names(&report.adopted), [""; 0]);
    assert!(!nodes.contains_key("/brokers/topics/t"));
}

#[test]
fn a_start_that_fails_at_any_operation_is_continued_by_the_next() {
    let prepared = || {
        let node = Node::new();
        for partition in ["/a/one-0", "/a/one-1", "/b/two-0"] {
            node.partition(partition, 3);
        }
        node
    };
    let whole = prepared();
    let before = whole.disk.op_count();
    whole.starts();
    let count = whole.disk.op_count() - before;
    for failing in 0..count {
        let node = prepared();
        node.disk.fail_after(failing, Fault::Eio);
        drop(node.try_start());
        let next = Node {
            disk: Arc::new(node.disk.process_kill()),
            ..node
        };
        let (_, nodes) = next.starts();
        for (topic, number) in [("one", 0), ("one", 1), ("two", 0)] {
            assert_eq!(
                state(&nodes, topic, number),
                (7, 3, vec![7]),
                "operation {failing}"
            );
        }
        assert_eq!(nodes["/config/topics/one"], KEEPS_EVERYTHING);
        assert_eq!(nodes["/config/topics/two"], KEEPS_EVERYTHING);
    }
}
