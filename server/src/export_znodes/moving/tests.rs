//! Moves into a tree that stands for ZooKeeper, ended at each of their writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::units::TimestampMs;

use super::*;
use crate::coordination::CreateMode;
use crate::coordination::embedded::EmbeddedTree;
use crate::export_znodes::{ExportedZnode, export};
use crate::test_cluster::{Tampered, Writing, embedded_tree, run};

const STATE: &str = r#"{"controller_epoch":3,"leader":0,"version":1,"leader_epoch":5,"isr":[0]}"#;

/// A node with topics so large that they are written one by one.
fn local(topics: usize, partitions: usize) -> LastingTree {
    let mut nodes: Vec<(String, String)> = Vec::new();
    let mut node = |path: String, text: &str| nodes.push((path, text.to_owned()));
    node("/brokers".into(), "");
    node("/brokers/topics".into(), "");
    let names: Vec<String> = (0..topics)
        .map(|number| format!("{}{number}", "t".repeat(200)))
        .collect();
    for topic in &names {
        let replicas: Vec<String> = (0..partitions)
            .map(|number| format!("\"{number}\":[0]"))
            .collect();
        let assignment = format!("{{\"version\":2,\"partitions\":{{{}}}}}", replicas.join(","));
        node(znodes::topic(topic), &assignment);
        node(znodes::partitions(topic), "");
        for number in 0..partitions as i32 {
            node(znodes::partition(topic, number), "");
            node(znodes::partition_state(topic, number), STATE);
        }
    }
    node("/cluster".into(), "");
    node("/cluster/id".into(), r#"{"version":"1","id":"own"}"#);
    node("/config".into(), "");
    node("/config/topics".into(), "");
    for topic in &names {
        node(
            format!("/config/topics/{topic}"),
            r#"{"version":1,"config":{"retention.ms":"-1"}}"#,
        );
    }
    node("/controller_epoch".into(), "3");
    let znodes = nodes.into_iter().map(|(path, text)| ExportedZnode {
        path,
        data: (!text.is_empty()).then(|| Bytes::from(text)),
    });
    LastingTree::new(0, znodes.collect())
}

/// A session that ends at the write after so many, which happened or did not.
fn ending(
    writes: usize,
    last_one_happens: bool,
    tree: &Arc<dyn Coordination>,
    with: CoordinationError,
) -> Tampered {
    let writes_left = AtomicUsize::new(writes);
    let writing: Writing = Box::new(move |tree, operations| {
        let left = writes_left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 {
            // Only a lost connection comes back.
            writes_left.store(usize::MAX, Ordering::Relaxed);
        }
        let (is_the_last, error) = (left == 1, with.clone());
        Box::pin(async move {
            if !is_the_last {
                return tree.multi(operations).await;
            }
            if last_one_happens {
                tree.multi(operations).await?;
            }
            Err(MultiError { index: 0, error })
        })
    });
    Tampered {
        writing,
        ..Tampered::new(Arc::clone(tree))
    }
}

fn zookeeper() -> (EmbeddedTree, Arc<dyn Coordination>) {
    let tree = embedded_tree(&Arc::new(ManualClock::new(TimestampMs(1))));
    let session = tree.session();
    (tree, session)
}

async fn contents(tree: &dyn Coordination) -> BTreeMap<String, Option<Bytes>> {
    let nodes = export(tree).await.unwrap();
    nodes.into_iter().map(|node| (node.path, node.data)).collect()
}

/// A topic is there with all of its partitions and settings, or not at all; and the cluster's id stands for everything.
fn assert_whole(found: &BTreeMap<String, Option<Bytes>>, all: &BTreeMap<String, Option<Bytes>>) {
    let is_topic = |path: &&String| path.matches('/').count() == 3 && path.starts_with("/brokers/topics/");
    for topic in found.keys().filter(is_topic) {
        let name = topic.rsplit('/').next().unwrap();
        let belongs = |path: &&String| path.contains(name);
        let (there, wanted) = (found.keys().filter(belongs), all.keys().filter(belongs));
        assert!(there.eq(wanted), "half of {name} is there");
    }
    if found.contains_key("/cluster/id") {
        assert_eq!(found, all);
    }
}

#[test]
fn a_move_that_ends_at_any_write_leaves_whole_topics_and_is_finished_by_the_next() {
    run(async {
        let local = local(3, 300);
        let (_zookeeper, tree) = zookeeper();
        let published = publish(&*tree, &local).await.unwrap();
        assert_eq!((published.written, published.already), (local.znodes.len(), 0));
        let all = contents(&*tree).await;
        assert_eq!(all.len(), local.znodes.len());
        let (_other, empty) = zookeeper();
        let (_, plan) = look(&*empty, &local).await.unwrap();
        let writes = plan.writes.len();
        assert!(writes >= 5, "the tree, three topics, the cluster id: {writes}");
        for number in 1..=writes {
            for happens in [false, true] {
                let (_zookeeper, tree) = zookeeper();
                let killed = ending(number, happens, &tree, CoordinationError::SessionExpired);
                publish(&killed, &local).await.unwrap_err();
                assert_whole(&contents(&*tree).await, &all);
                let published = publish(&*tree, &local).await.unwrap();
                assert_eq!(published.written + published.already, local.znodes.len());
                assert_eq!(contents(&*tree).await, all, "ended at write {number}");
            }
        }
    });
}

#[test]
fn a_write_whose_answer_was_lost_is_looked_for_and_not_repeated() {
    run(async {
        let local = local(2, 1);
        for happens in [false, true] {
            let (_zookeeper, tree) = zookeeper();
            let lossy = ending(2, happens, &tree, CoordinationError::ConnectionLoss);
            publish(&lossy, &local).await.unwrap();
            assert_eq!(contents(&*tree).await.len(), local.znodes.len());
        }
    });
}

#[test]
fn a_cluster_that_runs_elects_a_controller_that_reads_the_topics() {
    run(async {
        let (_zookeeper, tree) = zookeeper();
        for path in ["/brokers", "/brokers/ids", "/cluster"] {
            tree.ensure(path).await.unwrap();
        }
        let create = async |path: &str, data: &'static str, mode| {
            tree.create(path, Some(Bytes::from_static(data.as_bytes())), mode)
                .await
                .unwrap()
        };
        create(
            "/cluster/id",
            r#"{"version":"1","id":"own"}"#,
            CreateMode::Persistent,
        )
        .await;
        create("/brokers/ids/1", "{}", CreateMode::Ephemeral).await;
        create("/controller", "{}", CreateMode::Ephemeral).await;
        let published = publish(&*tree, &local(1, 1)).await.unwrap();
        assert!(published.renewed_controller);
        assert_eq!(tree.get("/controller", None).await.unwrap(), None);
        let again = publish(&*tree, &local(1, 1)).await.unwrap();
        assert_eq!(
            (again.written, again.renewed_controller),
            (0, false),
            "there is none at this moment"
        );
    });
}

#[test]
fn a_tree_that_was_moved_is_set_aside_and_says_so() {
    let disk = SimulatedDisk::new(1);
    let directories = [PathBuf::from("/a"), PathBuf::from("/b")];
    for directory in &directories {
        disk.create_dir_all(directory).unwrap();
    }
    let (io, clock): (Arc<dyn Io>, Arc<dyn Clock>) =
        (Arc::new(disk), Arc::new(ManualClock::new(TimestampMs(1))));
    drop(EmbeddedTree::open(&io, Arc::clone(&clock), &directories).unwrap());
    let node = StoppedNode::open(&io, Arc::clone(&clock), &directories).unwrap();
    let aside = node.set_aside().unwrap();
    assert_eq!(aside, PathBuf::from("/a/milena.tree.moved"));
    let refused = StoppedNode::open(&io, Arc::clone(&clock), &directories).unwrap_err();
    assert!(
        matches!(&refused, ExportError::MovedBefore { set_aside } if *set_aside == aside),
        "{refused}"
    );
    io.rename(&aside, &directories[0].join("milena.tree")).unwrap();
    StoppedNode::open(&io, clock, &directories).unwrap();
}
