//! Topics: who has replicas of each partition, who leads it, and the requests to move or re-elect.
//!
//! Sources: `kafka.zk.{TopicZNode, TopicPartitionStateZNode, ReassignPartitionsZNode, PreferredReplicaElectionZNode}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{LeaderEpoch, TopicPartition};
use serde_json::{Map, Value, json};

use super::{Object, ZnodeError, encode, ids};
use crate::cluster::LeaderAndIsr;

/// The replicas of one partition; during a reassignment also those that come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAssignment {
    /// The first is the preferred leader.
    pub replicas: Arc<[i32]>,
    pub adding_replicas: Arc<[i32]>,
    pub removing_replicas: Arc<[i32]>,
}

impl ReplicaAssignment {
    pub fn new(replicas: impl Into<Arc<[i32]>>) -> ReplicaAssignment {
        let none: Arc<[i32]> = Arc::default();
        let removing_replicas = Arc::clone(&none);
        ReplicaAssignment {
            replicas: replicas.into(),
            adding_replicas: none,
            removing_replicas,
        }
    }

    pub fn is_being_reassigned(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }
}

/// `/brokers/topics/{t}`: all partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TopicAssignment {
    pub partitions: BTreeMap<i32, ReplicaAssignment>,
}

impl TopicAssignment {
    /// Version 2. Partitions come in ascending order (Kafka's order is that of a hash map).
    pub fn encode(&self) -> Bytes {
        let of = |pick: fn(&ReplicaAssignment) -> &Arc<[i32]>, even_empty: bool| -> Map<String, Value> {
            let partitions = self.partitions.iter();
            let named = partitions.filter(|(_, assignment)| even_empty || !pick(assignment).is_empty());
            named
                .map(|(partition, one)| (partition.to_string(), json!(pick(one)[..])))
                .collect()
        };
        encode(&json!({
            "version": 2,
            "partitions": of(|one| &one.replicas, true),
            "adding_replicas": of(|one| &one.adding_replicas, false),
            "removing_replicas": of(|one| &one.removing_replicas, false),
        }))
    }

    /// Versions 1 (without adding and removing) and 2. Equal lists share their memory.
    pub fn decode(path: &str, data: &[u8]) -> Result<TopicAssignment, ZnodeError> {
        let object = Object::parse(path, data)?;
        let replicas_of = |key: &str| {
            object.each(key, "broker ids by partition", |partition, value| {
                Some((
                    partition.parse::<i32>().ok().filter(|number| *number >= 0)?,
                    ids(value)?,
                ))
            })
        };
        let mut last: Arc<[i32]> = Arc::default();
        let mut shared = |ids: Vec<i32>| {
            if last[..] != ids[..] {
                last = ids.into();
            }
            Arc::clone(&last)
        };
        let mut partitions: BTreeMap<i32, ReplicaAssignment> = BTreeMap::new();
        let none: Arc<[i32]> = Arc::default();
        for (partition, replicas) in replicas_of("partitions")? {
            partitions.insert(
                partition,
                ReplicaAssignment {
                    replicas: shared(replicas),
                    adding_replicas: Arc::clone(&none),
                    removing_replicas: Arc::clone(&none),
                },
            );
        }
        for (partition, adding) in replicas_of("adding_replicas")? {
            if let Some(one) = partitions.get_mut(&partition) {
                one.adding_replicas = adding.into();
            }
        }
        for (partition, removing) in replicas_of("removing_replicas")? {
            if let Some(one) = partitions.get_mut(&partition) {
                one.removing_replicas = removing.into();
            }
        }
        Ok(TopicAssignment { partitions })
    }
}

/// `/brokers/topics/{t}/partitions/{p}/state`. The node's own data version is [`LeaderAndIsr::zk_version`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Of the controller that wrote it.
    pub controller_epoch: i32,
    pub leader_and_isr: LeaderAndIsr,
}

impl PartitionState {
    pub fn encode(&self) -> Bytes {
        let state = &self.leader_and_isr;
        encode(&json!({
            "controller_epoch": self.controller_epoch,
            "leader": state.leader.unwrap_or(-1),
            "version": 1,
            "leader_epoch": state.leader_epoch.get(),
            "isr": state.isr[..],
        }))
    }

    /// `zk_version` is the data version of the node.
    pub fn decode(path: &str, data: &[u8], zk_version: i32) -> Result<PartitionState, ZnodeError> {
        let object = Object::parse(path, data)?;
        let leader = object.i32("leader")?;
        Ok(PartitionState {
            controller_epoch: object.i32("controller_epoch")?,
            leader_and_isr: LeaderAndIsr {
                leader: (leader >= 0).then_some(leader),
                leader_epoch: LeaderEpoch(object.i32("leader_epoch")?),
                isr: object.ids("isr")?.into(),
                zk_version,
            },
        })
    }
}

/// `/admin/reassign_partitions`: replicas to move to.
pub fn encode_reassignment(moves: &[(TopicPartition, Vec<i32>)]) -> Bytes {
    let moves: Vec<Value> = moves
        .iter()
        .map(|(at, replicas)| json!({"topic": &*at.topic, "partition": at.partition, "replicas": replicas}))
        .collect();
    encode(&json!({"version": 1, "partitions": moves}))
}

pub fn decode_reassignment(path: &str, data: &[u8]) -> Result<Vec<(TopicPartition, Vec<i32>)>, ZnodeError> {
    each_partition(path, data, |value| value.get("replicas").and_then(ids))
}

/// `/admin/preferred_replica_election` and the nodes of `/isr_change_notification`: partitions.
pub fn encode_partitions(partitions: &[TopicPartition]) -> Bytes {
    let partitions: Vec<Value> = partitions
        .iter()
        .map(|at| json!({"topic": &*at.topic, "partition": at.partition}))
        .collect();
    encode(&json!({"version": 1, "partitions": partitions}))
}

pub fn decode_partitions(path: &str, data: &[u8]) -> Result<Vec<TopicPartition>, ZnodeError> {
    let partitions = each_partition(path, data, |_| Some(()))?;
    Ok(partitions.into_iter().map(|(partition, ())| partition).collect())
}

fn each_partition<T>(
    path: &str,
    data: &[u8],
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(TopicPartition, T)>, ZnodeError> {
    let object = Object::parse(path, data)?;
    let entry = |value: &Value| {
        let topic = value.get("topic")?.as_str()?;
        let partition = i32::try_from(value.get("partition")?.as_i64()?).ok()?;
        Some((TopicPartition::new(topic, partition), read(value)?))
    };
    let entries = object.array("partitions")?.iter();
    entries
        .map(|value| {
            let expected = "topic and partition of each entry";
            entry(value).ok_or_else(|| ZnodeError::new(path, expected, super::shown(value)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_real_controller_wrote_is_read_and_written_again_byte_for_byte() {
        let captured = r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,0]}"#;
        let state = PartitionState::decode("/x", captured.as_bytes(), 5).unwrap();
        let expected = LeaderAndIsr {
            leader: Some(1),
            leader_epoch: LeaderEpoch(0),
            isr: [1, 0].into(),
            zk_version: 5,
        };
        assert_eq!(
            state,
            PartitionState {
                controller_epoch: 1,
                leader_and_isr: expected
            }
        );
        assert_eq!(text(&state.encode()), captured);

        let none = r#"{"controller_epoch":7,"leader":-1,"version":1,"leader_epoch":3,"isr":[1]}"#;
        let state = PartitionState::decode("/x", none.as_bytes(), 0).unwrap();
        assert_eq!(state.leader_and_isr.leader, None);
        assert_eq!(text(&state.encode()), none);
    }

    #[test]
    fn an_assignment_is_written_in_ascending_order_and_read_in_any() {
        let captured =
            r#"{"version":2,"partitions":{"1":[0,1],"0":[1,0]},"adding_replicas":{},"removing_replicas":{}}"#;
        let assignment = TopicAssignment::decode("/x", captured.as_bytes()).unwrap();
        assert_eq!(assignment.partitions[&0], ReplicaAssignment::new([1, 0]));
        assert_eq!(assignment.partitions[&1], ReplicaAssignment::new([0, 1]));
        let sorted =
            r#"{"version":2,"partitions":{"0":[1,0],"1":[0,1]},"adding_replicas":{},"removing_replicas":{}}"#;
        assert_eq!(text(&assignment.encode()), sorted);

        let moving = r#"{"version":2,"partitions":{"0":[1,2]},"adding_replicas":{"0":[2]},"removing_replicas":{"0":[1]}}"#;
        let assignment = TopicAssignment::decode("/x", moving.as_bytes()).unwrap();
        assert!(assignment.partitions[&0].is_being_reassigned());
        assert_eq!(text(&assignment.encode()), moving);

        let old = TopicAssignment::decode("/x", br#"{"version":1,"partitions":{"0":[1]}}"#).unwrap();
        assert_eq!(old.partitions[&0], ReplicaAssignment::new([1]));
    }

    #[test]
    fn equal_replica_lists_share_their_memory() {
        let many = br#"{"version":2,"partitions":{"0":[0],"1":[0],"2":[0]}}"#;
        let assignment = TopicAssignment::decode("/x", many).unwrap();
        assert!(Arc::ptr_eq(
            &assignment.partitions[&0].replicas,
            &assignment.partitions[&2].replicas
        ));
    }

    #[test]
    fn requests_to_move_and_to_elect_come_back_as_they_were_written() {
        let moves = vec![(TopicPartition::new("t", 0), vec![1, 2])];
        let encoded = encode_reassignment(&moves);
        assert_eq!(
            text(&encoded),
            r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}"#
        );
        assert_eq!(decode_reassignment("/x", &encoded).unwrap(), moves);

        let partitions = vec![TopicPartition::new("t", 0)];
        let encoded = encode_partitions(&partitions);
        assert_eq!(
            text(&encoded),
            r#"{"version":1,"partitions":[{"topic":"t","partition":0}]}"#
        );
        assert_eq!(decode_partitions("/x", &encoded).unwrap(), partitions);
        assert!(decode_partitions("/x", br#"{"partitions":[{"topic":1}]}"#).is_err());
    }

    #[test]
    fn a_damaged_assignment_is_refused() {
        for bad in [
            "{\"partitions\":{\"x\":[0]}}",
            "{\"partitions\":{\"-1\":[0]}}",
            "{\"partitions\":{\"0\":0}}",
        ] {
            assert!(TopicAssignment::decode("/x", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
