//! Every path of the tree, with encode and decode of its data: the same bytes as Apache Kafka 2.7.2 keeps in ZooKeeper.
//!
//! JSON is compact UTF-8. Keys come in the order in which a 2.7.2 broker writes them; readers here, as Kafka's, ignore order
//! and unknown keys. Where Kafka's own order is that of a hash map (partitions of an assignment, settings of an entity) the
//! order here is ascending. Anything that does not parse is a [`ZnodeError`] with path, expectation and finding.
//!
//! It knows no tree: callers read and write. Source: `kafka.zk.ZkData`.

pub mod config;
pub mod registration;
pub mod rights;
pub mod security;
pub mod topic;

use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use config::{ConfigChange, EntityConfig, EntityType, sanitize};
pub use registration::{BrokerRegistration, RegistrationVersion};
pub use rights::{Acl, rights};
pub use topic::{PartitionState, ReplicaAssignment, TopicAssignment};

pub const CONTROLLER: &str = "/controller";
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
pub const BROKER_IDS: &str = "/brokers/ids";
pub const BROKER_SEQUENCE_ID: &str = "/brokers/seqid";
pub const TOPICS: &str = "/brokers/topics";
pub const CONFIG_CHANGES: &str = "/config/changes";
pub const CONFIG_CHANGE_PREFIX: &str = "/config/changes/config_change_";
pub const ISR_CHANGE_NOTIFICATION: &str = "/isr_change_notification";
pub const ISR_CHANGE_PREFIX: &str = "/isr_change_notification/isr_change_";
pub const LOG_DIR_EVENT_NOTIFICATION: &str = "/log_dir_event_notification";
pub const LOG_DIR_EVENT_PREFIX: &str = "/log_dir_event_notification/log_dir_event_";
pub const DELETE_TOPICS: &str = "/admin/delete_topics";
pub const REASSIGN_PARTITIONS: &str = "/admin/reassign_partitions";
pub const PREFERRED_REPLICA_ELECTION: &str = "/admin/preferred_replica_election";
pub const CLUSTER_ID: &str = "/cluster/id";
pub const PRODUCER_ID_BLOCK: &str = "/latest_producer_id_block";
pub const FEATURE: &str = "/feature";
pub const CONSUMERS: &str = "/consumers";

/// What every broker creates on start, with null data.
pub const PERSISTENT_PATHS: [&str; 12] = [
    CONSUMERS,
    BROKER_IDS,
    TOPICS,
    CONFIG_CHANGES,
    DELETE_TOPICS,
    BROKER_SEQUENCE_ID,
    ISR_CHANGE_NOTIFICATION,
    PRODUCER_ID_BLOCK,
    LOG_DIR_EVENT_NOTIFICATION,
    "/config/topics",
    "/config/clients",
    "/config/users",
];
/// The thirteenth of [`PERSISTENT_PATHS`]; apart because Kafka keeps it secret when ZooKeeper's ACLs are on.
pub const CONFIG_BROKERS: &str = "/config/brokers";

pub fn broker_id(id: i32) -> String {
    format!("{BROKER_IDS}/{id}")
}

pub fn topic(topic: &str) -> String {
    format!("{TOPICS}/{topic}")
}

pub fn partitions(topic: &str) -> String {
    format!("{TOPICS}/{topic}/partitions")
}

pub fn partition(topic: &str, partition: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}")
}

pub fn partition_state(topic: &str, partition: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}/state")
}

pub fn delete_topic(topic: &str) -> String {
    format!("{DELETE_TOPICS}/{topic}")
}

/// Offsets of consumers that kept them in ZooKeeper (OffsetCommit v0); decimal text.
pub fn consumer_offset(group: &str, topic: &str, partition: i32) -> String {
    format!("{CONSUMERS}/{group}/offsets/{topic}/{partition}")
}

/// Data of a node that is not what its path promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {found}, expected {expected}")]
pub struct ZnodeError {
    pub path: String,
    pub expected: String,
    pub found: String,
}

impl ZnodeError {
    pub(crate) fn new(path: &str, expected: impl Into<String>, found: impl Into<String>) -> ZnodeError {
        ZnodeError {
            path: path.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// A JSON object being read; every refusal names path, key, expectation and finding.
pub(crate) struct Object<'a> {
    path: &'a str,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(crate) fn parse(path: &'a str, data: &[u8]) -> Result<Object<'a>, ZnodeError> {
        match serde_json::from_slice(data) {
            Ok(Value::Object(map)) => Ok(Object { path, map }),
            Ok(other) => Err(ZnodeError::new(path, "a JSON object", shown(&other))),
            Err(error) => Err(ZnodeError::new(
                path,
                "JSON",
                format!("{error} in {}", shown_bytes(data)),
            )),
        }
    }

    fn refuse(&self, key: &str, expected: &str) -> ZnodeError {
        let found = match self.map.get(key) {
            Some(value) => format!("{key} is {}", shown(value)),
            None => format!("{key} is missing"),
        };
        ZnodeError::new(self.path, format!("{key} to be {expected}"), found)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn i32(&self, key: &str) -> Result<i32, ZnodeError> {
        let number = self
            .map
            .get(key)
            .and_then(Value::as_i64)
            .and_then(|n| i32::try_from(n).ok());
        number.ok_or_else(|| self.refuse(key, "a 32-bit integer"))
    }

    pub(crate) fn string(&self, key: &str) -> Result<&str, ZnodeError> {
        self.map
            .get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| self.refuse(key, "a string"))
    }

    /// A number that is written as a string (or, by old writers, as a number).
    pub(crate) fn i64_text(&self, key: &str) -> Result<i64, ZnodeError> {
        let number = match self.map.get(key) {
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_i64(),
            None => None,
        };
        number.ok_or_else(|| self.refuse(key, "a 64-bit integer in quotes"))
    }

    pub(crate) fn array(&self, key: &str) -> Result<&Vec<Value>, ZnodeError> {
        self.map
            .get(key)
            .and_then(Value::as_array)
            .ok_or_else(|| self.refuse(key, "an array"))
    }

    pub(crate) fn object(&self, key: &str) -> Result<&Map<String, Value>, ZnodeError> {
        self.map
            .get(key)
            .and_then(Value::as_object)
            .ok_or_else(|| self.refuse(key, "an object"))
    }

    /// An array of broker ids.
    pub(crate) fn ids(&self, key: &str) -> Result<Vec<i32>, ZnodeError> {
        let ids = self.map.get(key).and_then(ids);
        ids.ok_or_else(|| self.refuse(key, "an array of broker ids"))
    }

    /// The object at `key`, each of whose values `read` understands; an absent key reads as empty.
    pub(crate) fn each<K, V>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&str, &Value) -> Option<(K, V)>,
    ) -> Result<Vec<(K, V)>, ZnodeError> {
        if self.value(key).is_none() {
            return Ok(Vec::new());
        }
        let entries = self
            .object(key)?
            .iter()
            .map(|(name, value)| read(name, value))
            .collect();
        Option::ok_or_else(entries, || self.refuse(key, expected))
    }
}

pub(crate) fn ids(value: &Value) -> Option<Vec<i32>> {
    let ids = value.as_array()?.iter();
    ids.map(|id| id.as_i64().and_then(|id| i32::try_from(id).ok()))
        .collect()
}

/// A piece short enough for a message.
fn shown(value: &Value) -> String {
    shown_bytes(value.to_string().as_bytes())
}

fn shown_bytes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

pub(crate) fn encode(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn integer(path: &str, data: &[u8]) -> Result<i64, ZnodeError> {
    let text = std::str::from_utf8(data).ok().map(str::trim);
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| ZnodeError::new(path, "an integer as text", shown_bytes(data)))
}

/// `/controller`: who it is, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerNode {
    pub broker_id: i32,
    pub timestamp_ms: i64,
}

impl ControllerNode {
    pub fn encode(&self) -> Bytes {
        let timestamp = self.timestamp_ms.to_string();
        encode(&json!({"version": 1, "brokerid": self.broker_id, "timestamp": timestamp}))
    }

    pub fn decode(data: &[u8]) -> Result<ControllerNode, ZnodeError> {
        let object = Object::parse(CONTROLLER, data)?;
        let timestamp_ms = object.i64_text("timestamp").unwrap_or(-1);
        Ok(ControllerNode {
            broker_id: object.i32("brokerid")?,
            timestamp_ms,
        })
    }
}

/// `/controller_epoch`: plain decimal text.
pub fn encode_controller_epoch(epoch: i32) -> Bytes {
    Bytes::from(epoch.to_string())
}

pub fn decode_controller_epoch(data: &[u8]) -> Result<i32, ZnodeError> {
    let epoch = integer(CONTROLLER_EPOCH, data)?;
    i32::try_from(epoch).map_err(|_| ZnodeError::new(CONTROLLER_EPOCH, "a 32-bit integer", epoch.to_string()))
}

/// `/cluster/id`. The version is a string here, and nowhere else.
pub fn encode_cluster_id(id: &str) -> Bytes {
    encode(&json!({"version": "1", "id": id}))
}

pub fn decode_cluster_id(data: &[u8]) -> Result<String, ZnodeError> {
    Ok(Object::parse(CLUSTER_ID, data)?.string("id")?.to_owned())
}

/// `/latest_producer_id_block`: the producer ids that a broker may give out, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub broker_id: i32,
    pub first: i64,
    pub last: i64,
}

impl ProducerIdBlock {
    pub fn encode(&self) -> Bytes {
        let (start, end) = (self.first.to_string(), self.last.to_string());
        encode(&json!({"version": 1, "broker": self.broker_id, "block_start": start, "block_end": end}))
    }

    pub fn decode(data: &[u8]) -> Result<ProducerIdBlock, ZnodeError> {
        let object = Object::parse(PRODUCER_ID_BLOCK, data)?;
        Ok(ProducerIdBlock {
            broker_id: object.i32("broker")?,
            first: object.i64_text("block_start")?,
            last: object.i64_text("block_end")?,
        })
    }
}

/// `/feature`: finalized features, which 2.7.2 has none of; whether there may be any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureNode {
    /// Enabled from inter-broker protocol 2.7-IV0 on.
    pub enabled: bool,
    /// By name: minimal and maximal finalized level.
    pub features: Vec<(String, i16, i16)>,
}

impl FeatureNode {
    pub fn encode(&self) -> Bytes {
        let features: Map<String, Value> = self
            .features
            .iter()
            .map(|(name, min, max)| {
                (
                    name.clone(),
                    json!({"min_version_level": min, "max_version_level": max}),
                )
            })
            .collect();
        encode(&json!({"features": features, "status": i32::from(self.enabled), "version": 1}))
    }

    pub fn decode(data: &[u8]) -> Result<FeatureNode, ZnodeError> {
        let object = Object::parse(FEATURE, data)?;
        let level = |value: &Value, key: &str| {
            value
                .get(key)?
                .as_i64()
                .and_then(|level| i16::try_from(level).ok())
        };
        let features = object.each("features", "levels by feature", |name, value| {
            Some((
                name.to_owned(),
                (
                    level(value, "min_version_level")?,
                    level(value, "max_version_level")?,
                ),
            ))
        })?;
        let features = features
            .into_iter()
            .map(|(name, (min, max))| (name, min, max))
            .collect();
        Ok(FeatureNode {
            enabled: object.i32("status")? == 1,
            features,
        })
    }
}

/// A notification that a log directory of a broker failed.
pub fn encode_log_dir_event(broker_id: i32) -> Bytes {
    encode(&json!({"version": 1, "broker": broker_id, "event": 1}))
}

/// The broker whose log directory failed.
pub fn decode_log_dir_event(path: &str, data: &[u8]) -> Result<i32, ZnodeError> {
    Object::parse(path, data)?.i32("broker")
}

/// The number at the end of a sequential node's name.
pub fn sequence_number(name: &str) -> Option<u64> {
    name.get(name.len().checked_sub(10)?..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_real_broker_wrote_is_read_and_written_again_byte_for_byte() {
        let captured = r#"{"version":1,"brokerid":0,"timestamp":"1795361230570"}"#;
        let node = ControllerNode::decode(captured.as_bytes()).unwrap();
        assert_eq!(
            node,
            ControllerNode {
                broker_id: 0,
                timestamp_ms: 1_795_361_230_570
            }
        );
        assert_eq!(text(&node.encode()), captured);

        let captured = r#"{"version":"1","id":"lX2CrF_KSPCgF2WuaT801A"}"#;
        let id = decode_cluster_id(captured.as_bytes()).unwrap();
        assert_eq!(id, "lX2CrF_KSPCgF2WuaT801A");
        assert_eq!(text(&encode_cluster_id(&id)), captured);

        let captured = r#"{"version":1,"broker":1,"block_start":"1000","block_end":"1999"}"#;
        let block = ProducerIdBlock::decode(captured.as_bytes()).unwrap();
        assert_eq!(
            block,
            ProducerIdBlock {
                broker_id: 1,
                first: 1000,
                last: 1999
            }
        );
        assert_eq!(text(&block.encode()), captured);

        let captured = r#"{"features":{},"status":1,"version":1}"#;
        let feature = FeatureNode::decode(captured.as_bytes()).unwrap();
        assert_eq!(
            feature,
            FeatureNode {
                enabled: true,
                features: vec![]
            }
        );
        assert_eq!(text(&feature.encode()), captured);

        let captured = r#"{"version":1,"broker":1,"event":1}"#;
        assert_eq!(decode_log_dir_event("/x", captured.as_bytes()).unwrap(), 1);
        assert_eq!(text(&encode_log_dir_event(1)), captured);

        assert_eq!(decode_controller_epoch(b"7").unwrap(), 7);
        assert_eq!(text(&encode_controller_epoch(7)), "7");
    }

    #[test]
    fn paths_are_those_of_kafka() {
        assert_eq!(broker_id(3), "/brokers/ids/3");
        assert_eq!(topic("t"), "/brokers/topics/t");
        assert_eq!(partitions("t"), "/brokers/topics/t/partitions");
        assert_eq!(partition("t", 4), "/brokers/topics/t/partitions/4");
        assert_eq!(partition_state("t", 4), "/brokers/topics/t/partitions/4/state");
        assert_eq!(delete_topic("t"), "/admin/delete_topics/t");
        assert_eq!(consumer_offset("g", "t", 0), "/consumers/g/offsets/t/0");
        assert_eq!(sequence_number("config_change_0000000012"), Some(12));
        assert_eq!(sequence_number("x"), None);
    }

    #[test]
    fn data_that_is_not_what_its_path_promises_is_refused_with_key_expectation_and_finding() {
        let check = |data: &str, expected: &str| {
            let error = ControllerNode::decode(data.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("[]", "/controller: [], expected a JSON object");
        check("{", "expected JSON");
        check(
            r#"{"version":1}"#,
            "brokerid is missing, expected brokerid to be a 32-bit integer",
        );
        check(r#"{"brokerid":"a"}"#, r#"brokerid is "a""#);
        check(r#"{"brokerid":4294967296}"#, "brokerid is 4294967296");
        assert!(decode_controller_epoch(b"x").is_err());
        assert!(decode_controller_epoch(b"4294967296").is_err());
    }
}
