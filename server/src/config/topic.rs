//! `TopicConfig`: the settings that one topic has of its own, and what they make of its logs.
//!
//! The values are kept as the texts that were given, as Kafka stores them in `/config/topics/{topic}`. A
//! topic setting wins over the broker setting that stands in for it
//! ([`super::TopicDefinition::broker_name`]). Behaviour of `LogConfig.scala`.

use std::collections::{BTreeMap, HashMap};

use milena_engine::config::{CleanupPolicy, Codec, CompressionType, LogConfig, TimestampType};

use super::ConfigError;
use super::api_version::ApiVersion;
use super::broker::BrokerConfig;
use super::definition::{broker_synonyms, topic_definition, topic_definitions};
use super::sources::Values;
use super::value::Value;

/// The settings that a topic has of its own, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConfig {
    overrides: BTreeMap<String, String>,
}

impl TopicConfig {
    /// Settings from a client: every name is known, every value is valid, and together they make sense.
    ///
    /// # Errors
    /// [`ConfigError::UnknownTopicConfig`], [`ConfigError::Value`], [`ConfigError::TopicConflict`].
    pub fn parse<I, K, V>(overrides: I) -> Result<TopicConfig, ConfigError>
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        let config = TopicConfig {
            overrides: overrides
                .into_iter()
                .map(|(name, text)| (name.into(), text.into()))
                .collect(),
        };
        if let Some(name) = config
            .overrides
            .keys()
            .find(|name| topic_definition(name).is_none())
        {
            return Err(ConfigError::UnknownTopicConfig { name: name.clone() });
        }
        config.check_values()?;
        // As in Kafka, what is not set counts with Kafka's default here, not with the broker's.
        let lag = |name: &str| match config
            .value(name)
            .or(topic_definition(name).map(|topic| topic.definition.default_value()))
        {
            Some(Value::Integer(lag)) => lag,
            _ => 0,
        };
        let (least, most) = (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms"));
        if least > most {
            return Err(ConfigError::TopicConflict {
                message: format!(
                    "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms \
                     ({most})"
                ),
            });
        }
        Ok(config)
    }

    /// Settings that were stored before. Names that nobody knows are kept and have no effect, as in Kafka: a
    /// later release may have written them.
    ///
    /// # Errors
    /// [`ConfigError::Value`]: guessing instead could delete records.
    pub fn from_stored(overrides: BTreeMap<String, String>) -> Result<TopicConfig, ConfigError> {
        let config = TopicConfig { overrides };
        config.check_values()?;
        Ok(config)
    }

    /// `__consumer_offsets`, as its coordinator creates it.
    pub fn consumer_offsets(broker: &BrokerConfig) -> TopicConfig {
        let segment = broker.offsets.topic_segment_bytes.to_string();
        TopicConfig::of(&[
            ("compression.type", "producer"),
            ("cleanup.policy", "compact"),
            ("segment.bytes", segment.as_str()),
        ])
    }

    /// `__transaction_state`, as its coordinator creates it.
    pub fn transaction_state(broker: &BrokerConfig) -> TopicConfig {
        let segment = broker.transactions.state_log_segment_bytes.to_string();
        let min_isr = broker.transactions.state_log_min_isr.to_string();
        TopicConfig::of(&[
            ("unclean.leader.election.enable", "false"),
            ("compression.type", "uncompressed"),
            ("cleanup.policy", "compact"),
            ("min.insync.replicas", min_isr.as_str()),
            ("segment.bytes", segment.as_str()),
        ])
    }

    /// A topic whose partitions were found in a log directory without its settings: it keeps everything.
    pub fn found_on_disk() -> TopicConfig {
        TopicConfig::of(&[("retention.ms", "-1"), ("retention.bytes", "-1")])
    }

    fn of(pairs: &[(&str, &str)]) -> TopicConfig {
        TopicConfig {
            overrides: pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// The texts as they were given, to be stored.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// The settings of the topic's logs.
    pub fn resolve(&self, broker: &BrokerConfig) -> LogConfig {
        log_config(|name| self.effective(name, broker))
    }

    /// An override that this broker does not follow, and why: a record format newer than the protocol between
    /// brokers.
    pub fn ignored_override(&self, broker: &BrokerConfig) -> Option<String> {
        let text = self.overrides.get("message.format.version")?;
        let version = ApiVersion::parse(text.trim())?;
        (version > broker.inter_broker_protocol_version).then(|| {
            format!(
                "message.format.version={text} is ignored: it is newer than inter.broker.protocol.version={}",
                broker.inter_broker_protocol_version
            )
        })
    }

    /// The value that counts for a known setting.
    pub(super) fn effective(&self, name: &'static str, broker: &BrokerConfig) -> Value {
        if name == "message.format.version" && self.ignored_override(broker).is_some() {
            return default_value(&broker.values, name);
        }
        self.value(name)
            .unwrap_or_else(|| default_value(&broker.values, name))
    }

    /// The topic's own value of a setting.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        let text = self.overrides.get(name)?;
        topic_definition(name)?.definition.parse(text).ok()
    }

    fn check_values(&self) -> Result<(), ConfigError> {
        for (name, text) in &self.overrides {
            if let Some(topic) = topic_definition(name) {
                topic.definition.parse(text)?;
            }
        }
        Ok(())
    }
}

/// What a broker's settings give to topics, by topic setting; checked against the topic's limits.
///
/// # Errors
/// The broker setting and what a topic's limits say about it.
pub(super) fn broker_defaults(
    values: &Values,
) -> Result<HashMap<&'static str, Value>, (&'static str, ConfigError)> {
    let mut defaults = HashMap::new();
    for topic in topic_definitions() {
        let name = topic.definition.name;
        let value = default_value(values, name);
        if let (Some(broker_name), Some(text)) = (topic.broker_name, value.canonical()) {
            topic.definition.parse(&text).map_err(|error| match error {
                ConfigError::Value { found, problem, .. } => {
                    let stated = broker_synonyms(broker_name)
                        .iter()
                        .find(|synonym| values.integer(synonym).is_some());
                    let key = stated.copied().unwrap_or(broker_name);
                    (key, ConfigError::value(key, found, problem))
                }
                other => (broker_name, other),
            })?;
        }
        defaults.insert(name, value);
    }
    Ok(defaults)
}

/// A value out of [`broker_defaults`].
pub(super) fn from_defaults(defaults: &HashMap<&'static str, Value>, name: &str) -> Value {
    defaults.get(name).cloned().unwrap_or(Value::Null)
}

/// What a topic without this setting gets from the broker's (`KafkaServer.copyKafkaConfigToLog`).
fn default_value(values: &Values, name: &'static str) -> Value {
    let Some(topic) = topic_definition(name) else {
        return Value::Null;
    };
    match topic.broker_name {
        None => topic.definition.default_value(),
        Some(broker_name @ ("log.roll.ms" | "log.roll.jitter.ms" | "log.flush.interval.ms")) => {
            Value::Integer(values.milliseconds(broker_name))
        }
        Some(broker_name @ "log.retention.ms") => Value::Integer(values.milliseconds(broker_name).max(-1)),
        Some(broker_name @ "log.message.format.version") => {
            match values.text(broker_name).and_then(ApiVersion::parse) {
                Some(version) => Value::Text(version.to_string()),
                None => Value::Null,
            }
        }
        Some(broker_name @ "compression.type") => {
            Value::Text(values.text(broker_name).unwrap_or_default().to_ascii_lowercase())
        }
        Some(broker_name) => values.get(broker_name).clone(),
    }
}

/// The engine's settings from a topic's values, which are all valid.
pub(super) fn log_config(value: impl Fn(&'static str) -> Value) -> LogConfig {
    let integer = |name| match value(name) {
        Value::Integer(number) => number,
        _ => 0,
    };
    let size = |name| u32::try_from(integer(name)).unwrap_or(u32::MAX);
    let boolean = |name| value(name) == Value::Boolean(true);
    let unless_unlimited = |name| {
        u64::try_from(integer(name))
            .ok()
            .filter(|number| *number != i64::MAX as u64)
    };
    let text = |name| match value(name) {
        Value::Text(text) => text,
        _ => String::new(),
    };
    let policies = match value("cleanup.policy") {
        Value::List(items) => items,
        _ => Vec::new(),
    };
    let has_policy = |name: &str| policies.iter().any(|policy| policy.eq_ignore_ascii_case(name));
    LogConfig {
        segment_size_bytes: size("segment.bytes"),
        segment_ms: integer("segment.ms"),
        segment_jitter_ms: integer("segment.jitter.ms"),
        segment_index_size_bytes: size("segment.index.bytes"),
        index_interval_bytes: size("index.interval.bytes"),
        // 0 is allowed and does what 1 does: every append is synced.
        flush_messages: unless_unlimited("flush.messages").map(|count| count.max(1)),
        flush_ms: unless_unlimited("flush.ms"),
        retention_bytes: u64::try_from(integer("retention.bytes")).ok(),
        retention_ms: Some(integer("retention.ms")).filter(|age| *age >= 0),
        max_message_bytes: size("max.message.bytes"),
        delete_retention_ms: integer("delete.retention.ms"),
        min_compaction_lag_ms: integer("min.compaction.lag.ms"),
        max_compaction_lag_ms: integer("max.compaction.lag.ms"),
        file_delete_delay_ms: u64::try_from(integer("file.delete.delay.ms")).unwrap_or(0),
        min_cleanable_dirty_ratio: value("min.cleanable.dirty.ratio").as_f64(),
        cleanup_policy: CleanupPolicy {
            delete: has_policy("delete"),
            compact: has_policy("compact"),
        },
        unclean_leader_election_enable: boolean("unclean.leader.election.enable"),
        min_insync_replicas: size("min.insync.replicas"),
        compression_type: compression_type(&text("compression.type")).unwrap_or_default(),
        preallocate: boolean("preallocate"),
        message_format: ApiVersion::parse(&text("message.format.version"))
            .unwrap_or(ApiVersion::LATEST)
            .magic(),
        message_timestamp_type: match text("message.timestamp.type").as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        message_timestamp_difference_max_ms: integer("message.timestamp.difference.max.ms"),
        message_downconversion_enable: boolean("message.downconversion.enable"),
    }
}

/// `compression.type`, in any case.
pub(super) fn compression_type(text: &str) -> Option<CompressionType> {
    match text.to_ascii_lowercase().as_str() {
        "producer" => Some(CompressionType::Producer),
        "uncompressed" => Some(CompressionType::Always(Codec::None)),
        "gzip" => Some(CompressionType::Always(Codec::Gzip)),
        "snappy" => Some(CompressionType::Always(Codec::Snappy)),
        "lz4" => Some(CompressionType::Always(Codec::Lz4)),
        "zstd" => Some(CompressionType::Always(Codec::Zstd)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use milena_engine::config::Magic;

    use super::*;

    fn broker(settings: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_settings(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn resolve(broker_settings: &[(&str, &str)], topic: &[(&str, &str)]) -> LogConfig {
        TopicConfig::parse(topic.iter().copied())
            .unwrap()
            .resolve(&broker(broker_settings))
    }

    #[test]
    fn a_topic_without_settings_on_a_broker_without_settings_has_kafkas_defaults() {
        assert_eq!(resolve(&[], &[]), LogConfig::default());
        assert_eq!(broker(&[]).topic_defaults, LogConfig::default());
    }

    #[test]
    fn broker_settings_stand_in_and_the_topics_own_win() {
        let day = 24 * 3_600_000;
        let config = resolve(
            &[("log.retention.hours", "24"), ("log.segment.bytes", "1000")],
            &[("segment.bytes", "14")],
        );
        assert_eq!((config.retention_ms, config.segment_size_bytes), (Some(day), 14));
        let config = resolve(
            &[
                ("log.retention.hours", "1"),
                ("log.retention.minutes", "2"),
                ("log.roll.hours", "1"),
            ],
            &[],
        );
        assert_eq!(
            (config.retention_ms, config.segment_ms),
            (Some(120_000), 3_600_000)
        );
        assert_eq!(resolve(&[("log.retention.ms", "-7")], &[]).retention_ms, None);
        assert_eq!(
            resolve(&[("log.flush.scheduler.interval.ms", "5")], &[]).flush_ms,
            Some(5)
        );
        assert_eq!(resolve(&[], &[("flush.messages", "0")]).flush_messages, Some(1));
        assert_eq!(resolve(&[], &[("retention.bytes", "0")]).retention_bytes, Some(0));
        let policy = resolve(&[], &[("cleanup.policy", "compact, delete")]).cleanup_policy;
        assert_eq!((policy.compact, policy.delete), (true, true));
        let codec = resolve(&[("compression.type", "ZSTD")], &[]).compression_type;
        assert_eq!(codec, CompressionType::Always(Codec::Zstd));
    }

    #[test]
    fn a_record_format_newer_than_the_brokers_protocol_is_ignored() {
        let settings = [
            ("inter.broker.protocol.version", "0.10.2"),
            ("log.message.format.version", "0.10.1"),
        ];
        let topic = TopicConfig::parse([("message.format.version", "2.0")]).unwrap();
        assert!(topic.ignored_override(&broker(&settings)).is_some());
        assert_eq!(topic.resolve(&broker(&settings)).message_format, Magic::V1);
        assert_eq!(
            resolve(&[], &[("message.format.version", "0.9.0.1")]).message_format,
            Magic::V0
        );
    }

    #[test]
    fn wrong_topic_settings_are_refused_in_kafkas_words() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("x", "1")], "Unknown topic config name: x"),
            (
                &[("retention.ms", "abc")],
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                &[("retention.ms", "-2")],
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                &[("min.cleanable.dirty.ratio", "1.5")],
                "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                &[("compression.type", "GZIP")],
                "Invalid value GZIP for configuration compression.type: String must be one of: \
                 uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                &[("message.format.version", "9")],
                "Invalid value 9 for configuration message.format.version: Version `9` is not a valid \
                 version",
            ),
            (
                &[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")],
                "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4)",
            ),
            (
                &[("leader.replication.throttled.replicas", "0:1,x")],
                "Invalid value [0:1, x] for configuration leader.replication.throttled.replicas: \
                 leader.replication.throttled.replicas must be the literal '*' or a list of replicas in \
                 the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
        ];
        for (settings, expected) in cases {
            assert_eq!(
                TopicConfig::parse(settings.iter().copied())
                    .unwrap_err()
                    .to_string(),
                *expected
            );
        }
        assert!(TopicConfig::parse([("follower.replication.throttled.replicas", "*")]).is_ok());
    }

    #[test]
    fn stored_settings_may_hold_unknown_names_but_no_wrong_values() {
        let stored =
            |name: &str, text: &str| TopicConfig::from_stored([(name.to_owned(), text.to_owned())].into());
        assert_eq!(
            stored("remote.storage.enable", "true")
                .unwrap()
                .resolve(&broker(&[])),
            LogConfig::default()
        );
        assert!(stored("retention.ms", "soon").is_err());
    }

    #[test]
    fn internal_topics_have_kafkas_settings_and_found_topics_keep_everything() {
        let broker = broker(&[]);
        let offsets = TopicConfig::consumer_offsets(&broker).resolve(&broker);
        assert_eq!(
            (offsets.segment_size_bytes, offsets.cleanup_policy.delete),
            (100 << 20, false)
        );
        let transactions = TopicConfig::transaction_state(&broker).resolve(&broker);
        assert_eq!(
            transactions.compression_type,
            CompressionType::Always(Codec::None)
        );
        let found = TopicConfig::found_on_disk().resolve(&broker);
        assert_eq!((found.retention_ms, found.retention_bytes), (None, None));
        for config in [
            TopicConfig::consumer_offsets(&broker),
            TopicConfig::transaction_state(&broker),
            TopicConfig::found_on_disk(),
        ] {
            assert_eq!(TopicConfig::parse(config.overrides().clone()), Ok(config));
        }
    }
}
