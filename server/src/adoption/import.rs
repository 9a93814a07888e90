//! `--import FILE`: what a person or ZooKeeper knows of topics, since their directories do not.
//!
//! A line is one of these, and a file may mix them; empty lines and lines that start with `#` are skipped:
//!
//! | line | example |
//! |---|---|
//! | settings of a topic | `{"topic":"orders","config":{"retention.ms":"86400000"}}` |
//! | a znode (`milena export-znodes --format json`) | `{"path":"/config/topics/orders","data":"{\"version\":1,…}"}` |
//! | a command for `zookeeper-shell.sh` (`milena export-znodes`) | `create /config/topics/orders {"version":1,…}` |
//! | the output of `kafka-topics.sh --describe` (tabs between) | `Topic: orders  …  Configs: retention.ms=86400000` |
//!
//! Of znodes, these count: `/config/{topics,brokers,clients,users}/…`, `/brokers/topics/…`, `/cluster/id`,
//! `/controller_epoch`, `/latest_producer_id_block`; the others are passed over. A later line wins over an
//! earlier one on the same thing. A topic with an empty `config` has no settings of its own, which means the
//! broker's defaults, retention included.
//!
//! A file with anything wrong in it is refused as a whole, with its line, what was found and what was
//! expected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use milena_engine::checkpoint::read_file;
use milena_engine::error::IoError;
use milena_engine::io::Io;
use milena_engine::units::LeaderEpoch;
use serde_json::Value;

use crate::config::{ConfigError, TopicConfig};
use crate::coordination::znodes::{
    self, EntityConfig, PartitionState, ProducerIdBlock, TopicAssignment, ZnodeError,
};

/// What a partition had in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportedPartition {
    /// Broker ids.
    pub replicas: Vec<i32>,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What a topic had in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportedTopic {
    /// `None` if the file says nothing about its settings.
    pub settings: Option<EntityConfig>,
    /// Empty if the file says nothing about its partitions.
    pub partitions: BTreeMap<i32, ImportedPartition>,
}

impl ImportedTopic {
    /// One more than the highest number.
    pub(super) fn partition_count(&self) -> i32 {
        self.partitions
            .keys()
            .next_back()
            .map_or(0, |last| last.saturating_add(1))
    }
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// For messages.
    pub path: PathBuf,
    pub topics: BTreeMap<String, ImportedTopic>,
    /// Settings of brokers, clients and users, by path.
    pub entities: BTreeMap<String, EntityConfig>,
    pub cluster_id: Option<String>,
    pub controller_epoch: Option<i32>,
    pub producer_ids: Option<ProducerIdBlock>,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("{}, line {line}: found {found}, expected {expected}", path.display())]
    Line {
        path: PathBuf,
        /// From 1.
        line: usize,
        found: String,
        expected: String,
    },
    #[error("{}, line {line}: topic {topic}: {source}", path.display())]
    Setting {
        path: PathBuf,
        line: usize,
        topic: String,
        source: Box<ConfigError>,
    },
    #[error("{}, line {line}: {source}", path.display())]
    Znode {
        path: PathBuf,
        line: usize,
        source: ZnodeError,
    },
}

/// What is wrong with a line, without its place.
enum Wrong {
    Line { found: String, expected: String },
    Setting { topic: String, source: Box<ConfigError> },
    Znode(ZnodeError),
}

impl From<ZnodeError> for Wrong {
    fn from(error: ZnodeError) -> Wrong {
        Wrong::Znode(error)
    }
}

fn wrong(found: impl Into<String>, expected: impl Into<String>) -> Wrong {
    Wrong::Line {
        found: found.into(),
        expected: expected.into(),
    }
}

const A_LINE: &str = "{\"topic\":…,\"config\":{…}}, {\"path\":…,\"data\":…}, create PATH DATA, or a line of \
                      kafka-topics --describe";

impl Import {
    /// Reads a file as a whole.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(io: &dyn Io, path: &Path) -> Result<Import, ImportError> {
        let Some(content) = read_file(io, path)? else {
            return Err(ImportError::Missing {
                path: path.to_owned(),
            });
        };
        Import::parse(path, &content)
    }

    /// `path` is for messages.
    ///
    /// # Errors
    /// As [`Import::read`].
    pub fn parse(path: &Path, content: &[u8]) -> Result<Import, ImportError> {
        let mut import = Import {
            path: path.to_owned(),
            topics: BTreeMap::new(),
            entities: BTreeMap::new(),
            cluster_id: None,
            controller_epoch: None,
            producer_ids: None,
        };
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let read = match std::str::from_utf8(line) {
                Ok(line) => import.line(line.trim_matches(['\r', ' ', '\t', '\u{feff}'])),
                Err(error) => Err(wrong(error.to_string(), "UTF-8")),
            };
            let path = path.to_owned();
            let line = index + 1;
            read.map_err(|wrong| match wrong {
                Wrong::Line { found, expected } => ImportError::Line {
                    path,
                    line,
                    found,
                    expected,
                },
                Wrong::Setting { topic, source } => ImportError::Setting {
                    path,
                    line,
                    topic,
                    source,
                },
                Wrong::Znode(source) => ImportError::Znode { path, line, source },
            })?;
        }
        Ok(import)
    }

    fn line(&mut self, line: &str) -> Result<(), Wrong> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line.starts_with('{') {
            return self.json(line);
        }
        if line.starts_with("Topic:") {
            return self.described(line);
        }
        match line.split_once(char::is_whitespace) {
            Some(("create" | "set", rest)) => {
                let rest = rest.trim_start();
                let (path, data) = match rest.split_once(char::is_whitespace) {
                    Some((path, data)) => (path, Some(unquoted(data.trim()))),
                    None => (rest, None),
                };
                self.znode(path, data)
            }
            _ => Err(wrong(shown(line), A_LINE)),
        }
    }

    fn json(&mut self, line: &str) -> Result<(), Wrong> {
        let value: Value = serde_json::from_str(line).map_err(|error| wrong(error.to_string(), "JSON"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        if let Some(path) = text("path") {
            let data = match value.get("data") {
                None | Some(Value::Null) => None,
                Some(Value::String(data)) => Some(data.clone()),
                // Data that is JSON may stand there as it is.
                Some(other) => Some(other.to_string()),
            };
            return self.znode(path, data.as_deref());
        }
        let Some(topic) = text("topic") else {
            return Err(wrong(
                shown(line),
                "a key \"topic\" or a key \"path\", with a string",
            ));
        };
        let topic = topic_name(topic)?;
        if let Some(key) = value.as_object().and_then(|object| {
            object
                .keys()
                .find(|key| !matches!(key.as_str(), "topic" | "config"))
        }) {
            return Err(wrong(
                format!("key \"{key}\""),
                "the keys \"topic\" and \"config\" only",
            ));
        }
        let Some(Value::Object(config)) = value.get("config") else {
            return Err(wrong(shown(line), "a key \"config\" with an object of settings"));
        };
        let mut settings = BTreeMap::new();
        for (name, value) in config {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                other => {
                    return Err(wrong(
                        format!("{other} as the value of {name}"),
                        "a string, a number, true or false",
                    ));
                }
            };
            settings.insert(name.clone(), value);
        }
        // A person wrote this: a name that nobody knows is a slip, not a later release's.
        let parsed = TopicConfig::parse(settings.clone());
        self.settings(topic, settings, parsed)
    }

    /// `Topic: orders  PartitionCount: 3  ReplicationFactor: 1  Configs: a=b,c=d`, or
    /// `Topic: orders  Partition: 0  Leader: 1  Replicas: 1,2  Isr: 1`.
    fn described(&mut self, line: &str) -> Result<(), Wrong> {
        let fields: BTreeMap<&str, &str> = line
            .split('\t')
            .filter_map(|field| field.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let field = |name: &str| fields.get(name).copied();
        let topic = topic_name(field("Topic").unwrap_or_default())?;
        if let Some(number) = field("Partition") {
            let expected = "Partition: and Replicas: with numbers";
            let number = partition_number(number).ok_or_else(|| wrong(shown(line), expected))?;
            let replicas = field("Replicas")
                .unwrap_or_default()
                .split(',')
                .map(str::parse::<i32>);
            let replicas: Result<Vec<i32>, _> = replicas.collect();
            let replicas = replicas.map_err(|_| wrong(shown(line), expected))?;
            self.partition(topic, number).replicas = replicas;
            return Ok(());
        }
        let Some(configs) = field("Configs") else {
            return Err(wrong(shown(line), "Configs: or Partition:"));
        };
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        let mut last: Option<String> = None;
        for piece in configs.split(',').filter(|piece| !piece.is_empty()) {
            match (piece.split_once('='), &last) {
                (Some((name, value)), _) => {
                    settings.insert(name.to_owned(), value.to_owned());
                    last = Some(name.to_owned());
                }
                // A comma inside of a value.
                (None, Some(name)) => {
                    let value = settings.entry(name.clone()).or_default();
                    value.push(',');
                    value.push_str(piece);
                }
                (None, None) => return Err(wrong(shown(piece), "name=value")),
            }
        }
        let parsed = TopicConfig::from_stored(settings.clone());
        self.settings(topic, settings, parsed)
    }

    fn znode(&mut self, path: &str, data: Option<&str>) -> Result<(), Wrong> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(wrong(shown(path), "the path of a znode, which starts with /"));
        };
        let bytes = data.unwrap_or_default().as_bytes();
        match rest.split('/').collect::<Vec<_>>().as_slice() {
            ["config", "topics", topic] => {
                let EntityConfig(settings) = EntityConfig::decode(path, data.map(str::as_bytes))?;
                let topic = topic_name(topic)?;
                let parsed = TopicConfig::from_stored(settings.clone());
                self.settings(topic, settings, parsed)?;
            }
            ["config", "brokers" | "clients" | "users", _, ..] if data.is_some() => {
                let config = EntityConfig::decode(path, data.map(str::as_bytes))?;
                self.entities.insert(path.to_owned(), config);
            }
            ["config", "brokers" | "clients" | "users", _, ..] => {}
            ["brokers", "topics", topic] => {
                let topic = topic_name(topic)?.to_owned();
                for (number, one) in TopicAssignment::decode(path, bytes)?.partitions {
                    self.partition(&topic, number).replicas = one.replicas.to_vec();
                }
            }
            ["brokers", "topics", topic, "partitions", number, "state"] => {
                let number = partition_number(number)
                    .ok_or_else(|| wrong(shown(path), "the number of a partition"))?;
                let state = PartitionState::decode(path, bytes, 0)?;
                let topic = topic_name(topic)?;
                self.partition(topic, number).leader_epoch = Some(state.leader_and_isr.leader_epoch);
            }
            ["cluster", "id"] => self.cluster_id = Some(znodes::decode_cluster_id(bytes)?),
            ["controller_epoch"] => self.controller_epoch = Some(znodes::decode_controller_epoch(bytes)?),
            ["latest_producer_id_block"] if !bytes.is_empty() => {
                self.producer_ids = Some(ProducerIdBlock::decode(bytes)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn topic(&mut self, topic: &str) -> &mut ImportedTopic {
        self.topics.entry(topic.to_owned()).or_default()
    }

    fn partition(&mut self, topic: &str, number: i32) -> &mut ImportedPartition {
        self.topic(topic).partitions.entry(number).or_default()
    }

    fn settings(
        &mut self,
        topic: &str,
        settings: BTreeMap<String, String>,
        parsed: Result<TopicConfig, ConfigError>,
    ) -> Result<(), Wrong> {
        parsed.map_err(|source| Wrong::Setting {
            topic: topic.to_owned(),
            source: Box::new(source),
        })?;
        self.topic(topic).settings = Some(EntityConfig(settings));
        Ok(())
    }
}

fn partition_number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| *number >= 0)
}

/// What Kafka allows, but for the length of the name.
fn topic_name(name: &str) -> Result<&str, Wrong> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || matches!(name, "." | "..") || !name.bytes().all(legal) {
        return Err(wrong(
            format!("topic {}", shown(name)),
            "letters, digits, '.', '_' and '-'",
        ));
    }
    Ok(name)
}

/// Without the quotes that the shell takes away.
fn unquoted(data: &str) -> &str {
    let without = |quote: char| data.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    without('\'').or_else(|| without('"')).unwrap_or(data)
}

/// A piece short enough for a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Import, ImportError> {
        Import::parse(Path::new("topics.txt"), text.as_bytes())
    }

    fn settings(import: &Import, topic: &str) -> Vec<(String, String)> {
        let settings = import.topics[topic].settings.clone().unwrap();
        settings.0.into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn all_forms_of_a_line_say_the_same() {
        for line in [
            r#"{"topic":"a.b","config":{"cleanup.policy":"compact,delete","retention.ms":5}}"#,
            r#"{"path":"/config/topics/a.b","data":"{\"version\":1,\"config\":{\"cleanup.policy\":\"compact,delete\",\"retention.ms\":\"5\"}}"}"#,
            r#"{"path":"/config/topics/a.b","data":{"version":1,"config":{"cleanup.policy":"compact,delete","retention.ms":"5"}}}"#,
            r#"create /config/topics/a.b {"version":1,"config":{"cleanup.policy":"compact,delete","retention.ms":"5"}}"#,
            r#"set /config/topics/a.b '{"version":1, "config":{"cleanup.policy":"compact,delete","retention.ms":"5"}}'"#,
            "Topic: a.b\tPartitionCount: 1\tReplicationFactor: 1\tConfigs: cleanup.policy=compact,delete,retention.ms=5",
        ] {
            let import = parse(&format!("# a note\n\n{line}\r\n")).unwrap();
            let expected = pairs(&[("cleanup.policy", "compact,delete"), ("retention.ms", "5")]);
            assert_eq!(settings(&import, "a.b"), expected, "{line}");
        }
    }

    #[test]
    fn a_topic_without_settings_of_its_own_is_not_one_of_which_nothing_is_said() {
        let import = parse(concat!(
            "{\"topic\":\"a\",\"config\":{}}\n",
            "Topic: b\tPartitionCount: 1\tReplicationFactor: 1\tConfigs: \n",
            "\tTopic: c\tPartition: 4\tLeader: 1\tReplicas: 1,2\tIsr: 1\n",
        ))
        .unwrap();
        assert_eq!(settings(&import, "a"), []);
        assert_eq!(settings(&import, "b"), []);
        assert_eq!(import.topics["c"].settings, None);
        assert_eq!(import.topics["c"].partitions[&4].replicas, [1, 2]);
        assert_eq!(import.topics["c"].partition_count(), 5);
    }

    #[test]
    fn a_dump_of_znodes_gives_partitions_epochs_and_what_is_not_of_topics() {
        let import = parse(concat!(
            "create /brokers\n",
            "create /brokers/topics/t {\"version\":2,\"partitions\":{\"0\":[1,2],\"1\":[2,3]}}\n",
            "create /brokers/topics/t/partitions/1/state ",
            "{\"controller_epoch\":7,\"leader\":2,\"version\":1,\"leader_epoch\":9,\"isr\":[2]}\n",
            "create /cluster/id {\"version\":\"1\",\"id\":\"x\"}\n",
            "create /controller_epoch 7\n",
            "create /latest_producer_id_block\n",
            "create /latest_producer_id_block ",
            "{\"version\":1,\"broker\":1,\"block_start\":\"1000\",\"block_end\":\"1999\"}\n",
            "create /config/brokers/<default> {\"version\":1,\"config\":{\"log.cleaner.threads\":\"2\"}}\n",
            "create /config/users\n",
            "create /kafka-acl/Topic/t {}\n",
        ))
        .unwrap();
        let topic = &import.topics["t"];
        assert_eq!(topic.partitions[&0].replicas, [1, 2]);
        assert_eq!(topic.partitions[&1].leader_epoch, Some(LeaderEpoch(9)));
        assert_eq!(import.cluster_id.as_deref(), Some("x"));
        assert_eq!(import.controller_epoch, Some(7));
        assert_eq!(import.producer_ids.unwrap().last, 1999);
        assert_eq!(
            import.entities.keys().collect::<Vec<_>>(),
            ["/config/brokers/<default>"]
        );
    }

    #[test]
    fn whatever_is_wrong_is_named_with_its_line_what_was_found_and_what_was_expected() {
        for (text, expected) in [
            (
                "\n\nretention.ms=5",
                "topics.txt, line 3: found \"retention.ms=5\", expected",
            ),
            ("{\"topic\":\"a\"", "topics.txt, line 1: found EOF while parsing"),
            ("{\"name\":\"a\"}", "expected a key \"topic\" or a key \"path\""),
            ("{\"topic\":\"a\"}", "expected a key \"config\""),
            (
                "{\"topic\":\"a b\",\"config\":{}}",
                "found topic \"a b\", expected letters",
            ),
            ("{\"topic\":\"a\",\"configs\":{}}", "found key \"configs\""),
            (
                "{\"topic\":\"a\",\"config\":{\"retention.ms\":null}}",
                "found null as the value of retention.ms",
            ),
            (
                "{\"topic\":\"a\",\"config\":{\"retention.msx\":\"5\"}}",
                "line 1: topic a: Unknown topic config name: retention.msx",
            ),
            (
                "Topic: a\tPartitionCount: 1\tReplicationFactor: 1\tConfigs: retention.ms=x",
                "topic a: Invalid value x for configuration retention.ms",
            ),
            ("create config/topics/a {}", "expected the path of a znode"),
            (
                "create /brokers/topics/a {\"partitions\":3}",
                "line 1: /brokers/topics/a: partitions is 3",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Import::parse(Path::new("x"), b"\xff").unwrap_err().to_string();
        assert!(error.ends_with("expected UTF-8"), "{error}");
    }
}
