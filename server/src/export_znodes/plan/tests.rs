//! What is written into which ZooKeeper, from plain maps.

use super::*;
use crate::coordination::CreateMode;

const ID: &str = r#"{"version":"1","id":"lX2CrF_KSPCgF2WuaT801A"}"#;
const ALONE: &str =
    r#"{"version":2,"partitions":{"0":[7],"1":[7]},"adding_replicas":{},"removing_replicas":{}}"#;
const STATE: &str = r#"{"controller_epoch":3,"leader":7,"version":1,"leader_epoch":5,"isr":[7]}"#;
const BLOCK: &str = r#"{"version":1,"broker":7,"block_start":"2000","block_end":"2999"}"#;

/// A node with topic `t`, in the order of an export.
fn node() -> Vec<(&'static str, &'static str)> {
    vec![
        ("/admin", ""),
        ("/admin/delete_topics", ""),
        ("/admin/delete_topics/t", ""),
        ("/brokers", ""),
        ("/brokers/topics", ""),
        ("/brokers/topics/t", ALONE),
        ("/brokers/topics/t/partitions", ""),
        ("/brokers/topics/t/partitions/0", ""),
        ("/brokers/topics/t/partitions/0/state", STATE),
        ("/brokers/topics/t/partitions/1", ""),
        ("/brokers/topics/t/partitions/1/state", STATE),
        ("/cluster", ""),
        ("/cluster/id", ID),
        ("/config", ""),
        ("/config/brokers", ""),
        (
            "/config/brokers/7",
            r#"{"version":1,"config":{"log.cleaner.threads":"2"}}"#,
        ),
        (
            "/config/brokers/<default>",
            r#"{"version":1,"config":{"log.retention.ms":"1"}}"#,
        ),
        ("/config/topics", ""),
        ("/config/topics/gone", r#"{"version":1,"config":{}}"#),
        (
            "/config/topics/t",
            r#"{"version":1,"config":{"retention.ms":"-1","a":"b"}}"#,
        ),
        ("/controller_epoch", "3"),
        ("/latest_producer_id_block", BLOCK),
    ]
}

fn data(text: &str) -> Option<Bytes> {
    (!text.is_empty()).then(|| Bytes::from(text.to_owned()))
}

fn local(nodes: &[(&str, &str)]) -> LastingTree {
    let znodes = nodes.iter().map(|(path, text)| ExportedZnode {
        path: (*path).to_owned(),
        data: data(text),
    });
    LastingTree::new(7, znodes.collect())
}

fn target(nodes: &[(&str, &str)]) -> Target {
    let nodes = nodes
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (data(text), 4)));
    Target {
        nodes: nodes.collect(),
        ..Target::default()
    }
}

/// What is there, as [`target`], after a plan was carried out.
fn carried_out(mut target: Target, plan: &Plan) -> Target {
    for operation in plan.writes.iter().flatten() {
        let (path, data) = match operation {
            Operation::Create { path, data, mode } => {
                assert_eq!(*mode, CreateMode::Persistent);
                assert!(!target.nodes.contains_key(path), "{path} is there");
                (path, data)
            }
            Operation::SetData { path, data, expected } => {
                assert_eq!(*expected, ExpectedVersion::Exactly(target.nodes[path].1));
                (path, data)
            }
            other => panic!("{other:?}"),
        };
        target.nodes.insert(path.clone(), (data.clone(), 5));
    }
    target
}

fn made(target: &Target) -> Plan {
    plan(&local(&node()), target, TRANSACTION_SIZE_BYTES).unwrap()
}

fn clashes_with(target: &Target) -> Vec<String> {
    match plan(&local(&node()), target, TRANSACTION_SIZE_BYTES) {
        Err(Refusal::Clashes(clashes)) => clashes.iter().map(Clash::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn paths(transaction: &[Operation]) -> Vec<&str> {
    transaction.iter().map(Operation::path).collect()
}

/// The nodes of a cluster that is the node's own, without its topic.
fn own_cluster() -> Vec<(&'static str, &'static str)> {
    let without = [
        "/brokers/topics/t",
        "/config/topics/t",
        "/admin/delete_topics/t",
        "/config/brokers/",
    ];
    let nodes = node().into_iter();
    nodes
        .filter(|(path, _)| !without.iter().any(|prefix| path.starts_with(prefix)))
        .collect()
}

#[test]
fn an_empty_path_gets_everything_with_whole_topics_and_the_cluster_id_last() {
    let plan = made(&Target::default());
    let last = plan.writes.last().unwrap();
    assert_eq!(paths(last), ["/cluster/id"]);
    let topics = paths(&plan.writes[1]);
    assert_eq!(topics[..2], ["/config/topics/t", "/brokers/topics/t"]);
    assert_eq!(topics.len(), 7, "{topics:?}");
    assert_eq!(paths(&plan.writes[2]), ["/admin/delete_topics/t"]);
    let there = carried_out(Target::default(), &plan);
    for (path, text) in node() {
        let found = there.nodes.get(path).map(|(data, _)| data.clone());
        match path {
            "/config/topics/gone" => assert_eq!(found, None),
            _ if text == STATE => {
                let above = STATE.replace("\"leader_epoch\":5", "\"leader_epoch\":6");
                assert_eq!(found.unwrap().unwrap(), above, "{path}");
            }
            _ => assert_eq!(found, Some(data(text)), "{path}"),
        }
    }
    let again = made(&there);
    assert_eq!((again.writes, again.left_to_the_cluster), (vec![], vec![]));
    assert_eq!(again.already, node().len() - 1);
}

#[test]
fn nodes_without_data_get_theirs() {
    let plan = made(&target(&[("/latest_producer_id_block", ""), ("/brokers", "")]));
    let there = carried_out(
        target(&[("/latest_producer_id_block", ""), ("/brokers", "")]),
        &plan,
    );
    assert_eq!(there.data("/latest_producer_id_block").unwrap(), BLOCK);
}

#[test]
fn a_cluster_gets_the_topics_and_keeps_its_epoch_and_what_all_its_brokers_share() {
    let mut nodes = own_cluster();
    nodes.retain(|(path, _)| *path != "/controller_epoch" && *path != "/latest_producer_id_block");
    let epoch = ("/controller_epoch", "2");
    let theirs = r#"{"version":1,"broker":1,"block_start":"1000","block_end":"1999"}"#;
    let shared = r#"{"version":1,"config":{}}"#;
    nodes.extend([
        epoch,
        ("/latest_producer_id_block", theirs),
        ("/config/brokers/<default>", shared),
    ]);
    let there = Target {
        live_brokers: vec![1, 2],
        ..target(&nodes)
    };
    let plan = made(&there);
    assert_eq!(plan.left_to_the_cluster, ["/config/brokers/<default>"]);
    assert_eq!(
        paths(&plan.writes[0]),
        ["/config/brokers/7", "/latest_producer_id_block"]
    );
    let there = carried_out(there, &plan);
    assert_eq!(there.data("/latest_producer_id_block").unwrap(), BLOCK, "raised");
    assert_eq!(there.data("/controller_epoch").unwrap(), "2");
    assert_eq!(there.data("/config/brokers/<default>").unwrap(), shared);
    let state = there.data("/brokers/topics/t/partitions/0/state").unwrap();
    assert_eq!(
        PartitionState::decode("/x", state, 0).unwrap().controller_epoch,
        2
    );
    assert_eq!(made(&there).writes, Vec::<Vec<Operation>>::new());

    let ahead = r#"{"version":1,"broker":1,"block_start":"3000","block_end":"3999"}"#;
    let mut nodes = own_cluster();
    nodes.retain(|(path, _)| *path != "/latest_producer_id_block");
    nodes.push(("/latest_producer_id_block", ahead));
    let plan = made(&target(&nodes));
    assert!(
        plan.writes
            .iter()
            .flatten()
            .all(|one| one.path() != "/latest_producer_id_block")
    );
}

#[test]
fn what_a_controller_made_of_a_half_moved_topic_stays() {
    let mut nodes = own_cluster();
    let leaderless = r#"{"controller_epoch":4,"leader":-1,"version":1,"leader_epoch":7,"isr":[7]}"#;
    nodes.extend([
        (
            "/brokers/topics/t",
            r#"{"version":1,"partitions":{"1":[7],"0":[7]}}"#,
        ),
        ("/brokers/topics/t/partitions", ""),
        ("/brokers/topics/t/partitions/0", ""),
        ("/brokers/topics/t/partitions/0/state", leaderless),
        (
            "/config/topics/t",
            r#"{"version":1,"config":{"a":"b","retention.ms":"-1"}}"#,
        ),
    ]);
    let plan = made(&target(&nodes));
    let topic: Vec<&str> = plan
        .writes
        .iter()
        .flatten()
        .map(Operation::path)
        .filter(|path| path.contains("topics/t"))
        .collect();
    let missing = [
        "/brokers/topics/t/partitions/1",
        "/brokers/topics/t/partitions/1/state",
        "/admin/delete_topics/t",
    ];
    assert_eq!(topic, missing);
}

#[test]
fn another_cluster_is_refused_with_what_to_do() {
    let other = target(&[("/cluster/id", r#"{"version":"1","id":"other"}"#)]);
    let refused = plan(&local(&node()), &other, TRANSACTION_SIZE_BYTES)
        .unwrap_err()
        .to_string();
    for words in [
        "lX2CrF_KSPCgF2WuaT801A",
        "other",
        "an empty one in zookeeper.connect",
    ] {
        assert!(refused.contains(words), "{refused}");
    }
    let refused = plan(&local(&node()[..3]), &Target::default(), TRANSACTION_SIZE_BYTES);
    assert_eq!(refused, Err(Refusal::NeverRan));
}

#[test]
fn every_clash_is_named_before_anything_is_written() {
    let (older, of_two) = (STATE.replace('5', "4"), STATE.replace("[7]", "[7,8]"));
    let mut nodes = own_cluster();
    nodes.extend([
        ("/brokers/topics/t", ALONE),
        ("/brokers/topics/t/partitions/0/state", older.as_str()),
        ("/brokers/topics/t/partitions/1/state", of_two.as_str()),
        (
            "/config/topics/t",
            r#"{"version":1,"config":{"retention.ms":"1"}}"#,
        ),
        ("/config/brokers/7", "{}"),
    ]);
    let mut there = target(&nodes);
    there.live_brokers = vec![7];
    let on_ours = TopicAssignment::decode("/x", ALONE.as_bytes()).unwrap();
    there.other_topics.insert("theirs".to_owned(), on_ours);
    let found = clashes_with(&there);
    let expected = [
        "/brokers/ids/7: a broker with this node's id runs there",
        "/brokers/topics/theirs: the topic has replicas on broker 7",
        "/config/topics/t: the topic's settings there are",
        "/brokers/topics/t/partitions/0/state: there it is at leader epoch 4 with [7] in sync",
        "/brokers/topics/t/partitions/1/state: there it is at leader epoch 5 with [7, 8] in sync",
        "/config/brokers/7: there is {}",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_topic_of_the_same_name_is_one_clash() {
    let mut nodes = own_cluster();
    nodes.extend([
        ("/brokers/topics/t", r#"{"version":2,"partitions":{"0":[1]}}"#),
        ("/brokers/topics/t/partitions", ""),
        ("/config/topics/t", "{}"),
    ]);
    let found = clashes_with(&target(&nodes));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("/brokers/topics/t: a topic of this name is there"),
        "{found:?}"
    );
}

#[test]
fn a_path_without_a_cluster_id_that_has_other_topics_is_not_empty() {
    let mut there = Target::default();
    let elsewhere = TopicAssignment::decode("/x", br#"{"partitions":{"0":[1]}}"#).unwrap();
    there.other_topics.insert("old".to_owned(), elsewhere);
    let found = clashes_with(&there);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("/brokers/topics/old: the path has no cluster id"),
        "{found:?}"
    );
    there.nodes.extend(target(&[("/cluster/id", ID)]).nodes);
    made(&there);
}

#[test]
fn many_clashes_are_counted() {
    let all: Vec<Clash> = (0..12)
        .map(|number| Clash {
            path: format!("/{number}"),
            reason: "x".into(),
        })
        .collect();
    let text = Refusal::Clashes(all).to_string();
    assert!(text.contains("/9: x; and 2 more; nothing was written"), "{text}");
}

#[test]
fn a_transaction_has_whole_topics_unless_one_alone_is_too_large() {
    let unit = |name: &str, operations: usize| -> Vec<Operation> {
        (0..operations)
            .map(|number| Operation::create(format!("/{name}{number}"), None))
            .collect()
    };
    let size = OPERATION_SIZE_BYTES + 3;
    let lengths =
        |units: Vec<Vec<Operation>>| -> Vec<usize> { pack(units, 4 * size).iter().map(Vec::len).collect() };
    assert_eq!(lengths(vec![unit("a", 2), unit("b", 2), unit("c", 1)]), [4, 1]);
    assert_eq!(
        lengths(vec![unit("a", 3), unit("b", 2)]),
        [3, 2],
        "not half of one"
    );
    assert_eq!(lengths(vec![unit("a", 9), unit("b", 3)]), [4, 4, 1 + 3]);
    assert_eq!(lengths(vec![vec![], unit("a", 1), vec![]]), [1]);
    assert_eq!(lengths(vec![]), [0; 0]);
}
