//! The table of every setting: what it is called, what it may be, what it is if unset, and what it does here.
//!
//! The table holds the 216 broker settings and 26 topic settings of Kafka 2.7.2, the three that exist only as
//! dynamic settings, and our own `milena.*` keys. It is data: parsing values is `value`, choosing among
//! sources is `sources`. Invariant: every setting says what becomes of it here ([`Effect`]); none is accepted
//! in silence.

use super::ConfigError;
use super::api_version::ApiVersion;
use super::value::{Value, ValueType};

mod general;
mod own;
mod replication;
mod security;
mod storage;
mod topic;

/// How much a setting matters, as Kafka grades it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether and where a broker setting may be changed while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicKind {
    /// Read at start only.
    Fixed,
    /// For one broker, or for all of the cluster at once.
    ClusterWide,
    /// For one broker only.
    PerBroker,
    /// For one listener of one broker only, as `listener.name.{listener}.{setting}`.
    ListenerPrefix,
}

/// What a setting does in this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what it says.
    Served,
    /// It is accepted and changes nothing, for this reason.
    NoEffectHere(&'static str),
    /// It does what it says where `zookeeper.connect` is set, and otherwise changes nothing, for this reason.
    OnlyInCluster(&'static str),
    /// Setting it stops the start, for this reason: ignoring it would weaken the node or deceive its owner.
    RefusesToStart(&'static str),
}

/// Which values are allowed, beyond the type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limits {
    Any,
    /// Inclusive.
    AtLeast(i64),
    /// Both inclusive.
    Between(i64, i64),
    OneOf(&'static [&'static str]),
    /// Every element of a list.
    EachOf(&'static [&'static str]),
    /// A Kafka release, `2.7` or `2.7-IV2`.
    ApiVersion,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// A level, or several as `level,logger=level`.
    LogLevel,
}

/// One broker setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    pub name: &'static str,
    pub value_type: ValueType,
    /// In the canonical form; `None` is Kafka's null.
    pub default: Option<&'static str>,
    pub limits: Limits,
    pub importance: Importance,
    pub dynamic: DynamicKind,
    pub effect: Effect,
    /// One sentence for people.
    pub documentation: &'static str,
}

/// One topic setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicDefinition {
    pub definition: Definition,
    /// The broker setting that stands in where the topic sets nothing; `None` for the two throttle lists.
    pub broker_name: Option<&'static str>,
}

const ANY: Limits = Limits::Any;
const API_VERSION: Limits = Limits::ApiVersion;
const THROTTLED_REPLICAS: Limits = Limits::ThrottledReplicas;
const LOG_LEVEL: Limits = Limits::LogLevel;

const fn at_least(least: i64) -> Limits {
    Limits::AtLeast(least)
}

const fn between(least: i64, most: i64) -> Limits {
    Limits::Between(least, most)
}

const fn one_of(values: &'static [&'static str]) -> Limits {
    Limits::OneOf(values)
}

const fn each_of(values: &'static [&'static str]) -> Limits {
    Limits::EachOf(values)
}

const ALONE: &str = "without zookeeper.connect the broker stands alone on its embedded tree";
const UNUSED: &str = "no part of Kafka 2.7 goes by it either";
/// The class that sends consumers to a replica in their rack, and the one that never sends them elsewhere.
pub(super) const RACK_AWARE_REPLICA_SELECTOR: &str =
    "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const REPLICA_SELECTORS: &[&str] = &[
    RACK_AWARE_REPLICA_SELECTOR,
    "org.apache.kafka.common.replica.LeaderSelector",
];
const LANES: &str = "each lane (milena.lanes) reads, handles and answers its own requests; there are no \
 thread pools or queues";
const PEERS: &str = "the way to another broker is found within controller.socket.timeout.ms or replica.socket.timeout.ms, \
 and the system sizes the buffers";
const SHUTDOWN: &str = "a broker that stands alone has nobody to hand leadership to";
const EVENTS: &str = "a waiting request is woken by the event it waits for; there is nothing to purge";
const CLEANER: &str = "the log cleaner is not built yet; compacted topics are kept whole";
const TRANSACTIONS: &str = "transactions are not built yet";
const METRICS: &str = "metrics are not built yet";
const QUOTAS: &str = "quotas are not built yet; no client is throttled";
const JAVA: &str = "it names a part of the Java runtime, and there is none";
const SSL: &str = "SSL is not built yet; a listener that needs it is refused";
const SASL: &str = "authentication is not built yet; a listener that needs it is refused";
const PASSWORDS_UNUSED: &str = "stored passwords are not built yet";
const AUTHORIZER: &str = "authorizers are not built yet, and without one every client may do everything";
const PLUGINS: &str = "it names a Java class that guards this broker, and Java classes cannot run here";
const TOKENS: &str = "delegation tokens are not built yet";
const PASSWORDS: &str = "encrypted passwords in dynamic settings are not built yet";

/// Rows of a table, see the files beside this one.
macro_rules! definitions {
    ($table:ident; $($name:literal: $type:ident = $default:tt, $limits:expr, $importance:ident,
      $dynamic:ident, $effect:ident $(($reason:ident))?; $documentation:literal;)*) => {
        pub(super) static $table: &[Definition] = &[$(Definition {
            name: $name,
            value_type: ValueType::$type,
            default: default!($default),
            limits: $limits,
            importance: Importance::$importance,
            dynamic: DynamicKind::$dynamic,
            effect: Effect::$effect $(($reason))?,
            documentation: $documentation,
        }),*];
    };
}

macro_rules! topic_rows {
    ($table:ident; $($name:literal: $type:ident = $default:tt, $limits:expr, $importance:ident, $broker:tt,
      $effect:ident $(($reason:ident))?; $documentation:literal;)*) => {
        pub(super) static $table: &[TopicDefinition] = &[$(TopicDefinition {
            definition: Definition {
                name: $name,
                value_type: ValueType::$type,
                default: default!($default),
                limits: $limits,
                importance: Importance::$importance,
                dynamic: DynamicKind::ClusterWide,
                effect: Effect::$effect $(($reason))?,
                documentation: $documentation,
            },
            broker_name: default!($broker),
        }),*];
    };
}

macro_rules! default {
    (none) => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

use {default, definitions, topic_rows};

definitions! {
    DYNAMIC_ONLY;

    "leader.replication.throttled.rate": Long = "9223372036854775807", at_least(0), Medium, ClusterWide, Served;
        "Bytes per second for throttled replicas on the leader's side; only for one broker, not as a default.";
    "follower.replication.throttled.rate": Long = "9223372036854775807", at_least(0), Medium, ClusterWide, Served;
        "Bytes per second for throttled replicas on the follower's side; only for one broker, not as a default.";
    "replica.alter.log.dirs.io.max.bytes.per.second": Long = "9223372036854775807", at_least(0), Medium,
        ClusterWide, Served;
        "Bytes per second for moves between log directories; only for one broker, not as a default.";
}

/// Every broker setting of Kafka 2.7.2 and our own, in the order of Kafka's documentation; 216 and ours.
pub fn broker_definitions() -> impl Iterator<Item = &'static Definition> {
    [
        general::GENERAL,
        storage::STORAGE,
        replication::REPLICATION,
        security::SECURITY,
        own::OWN,
    ]
    .into_iter()
    .flatten()
}

/// The settings that only exist in the tree, never in a file.
pub(super) fn dynamic_only_definitions() -> impl Iterator<Item = &'static Definition> {
    DYNAMIC_ONLY.iter()
}

/// The 26 topic settings of Kafka 2.7.2.
pub fn topic_definitions() -> &'static [TopicDefinition] {
    topic::TOPIC
}

/// The broker setting of this exact name.
pub fn broker_definition(name: &str) -> Option<&'static Definition> {
    broker_definitions().find(|definition| definition.name == name)
}

/// The topic setting of this exact name.
pub fn topic_definition(name: &str) -> Option<&'static TopicDefinition> {
    topic::TOPIC.iter().find(|topic| topic.definition.name == name)
}

/// The broker settings that decide one value together, the first that is set winning: `log.retention.ms`,
/// `.minutes`, `.hours`. For most settings only itself (`DynamicBrokerConfig.brokerConfigSynonyms`).
pub(super) fn broker_synonyms(name: &'static str) -> &'static [&'static str] {
    match name {
        "log.roll.ms" | "log.roll.hours" => &["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            &["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        _ => match broker_definition(name) {
            Some(definition) => std::slice::from_ref(&definition.name),
            None => &[],
        },
    }
}

impl Definition {
    /// The value of `text`, if type and limits allow it.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with Kafka's words.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let value = Value::parse(self.name, text, self.value_type)?;
        self.check(&value)?;
        Ok(value)
    }

    /// The default, which is always valid.
    pub fn default_value(&self) -> Value {
        match self.default {
            None => Value::Null,
            Some(text) => Value::parse(self.name, text, self.value_type)
                .expect("the table's defaults parse, as a test shows"),
        }
    }

    /// Whether values must not be shown.
    pub fn is_sensitive(&self) -> bool {
        self.value_type == ValueType::Password
    }

    /// What is allowed, for a message: `a 32-bit integer, at least 1`.
    pub fn allowed(&self) -> String {
        let kind = self.value_type.described();
        match self.limits {
            Limits::Any => kind.to_owned(),
            Limits::AtLeast(least) => format!("{kind}, at least {least}"),
            Limits::Between(least, most) => format!("{kind} from {least} to {most}"),
            Limits::OneOf(values) => format!("one of {}", values.join(", ")),
            Limits::EachOf(values) => format!("a list of {}", values.join(", ")),
            Limits::ApiVersion => "a Kafka release from 0.8.0 to 2.7, such as 2.7 or 2.7-IV2".to_owned(),
            Limits::ThrottledReplicas => "*, or partition:broker pairs separated by commas".to_owned(),
            Limits::LogLevel => {
                "trace, debug, info, warn, error or off, then perhaps ,logger=level".to_owned()
            }
        }
    }

    fn check(&self, value: &Value) -> Result<(), ConfigError> {
        let refuse = |found: &dyn std::fmt::Display, problem: String| {
            Err(ConfigError::value(self.name, found.to_string(), problem))
        };
        match (self.limits, value) {
            (Limits::Any, _) | (_, Value::Null) => Ok(()),
            (Limits::AtLeast(least) | Limits::Between(least, _), value) if value.as_f64() < least as f64 => {
                refuse(&value.shown(), format!("Value must be at least {least}"))
            }
            (Limits::Between(_, most), value) if value.as_f64() > most as f64 => {
                refuse(&value.shown(), format!("Value must be no more than {most}"))
            }
            (Limits::OneOf(allowed), Value::Text(text)) if !allowed.contains(&text.as_str()) => {
                refuse(text, format!("String must be one of: {}", allowed.join(", ")))
            }
            (Limits::EachOf(allowed), Value::List(items)) => {
                match items.iter().find(|item| !allowed.contains(&item.as_str())) {
                    Some(item) => refuse(item, format!("String must be one of: {}", allowed.join(", "))),
                    None => Ok(()),
                }
            }
            (Limits::ApiVersion, Value::Text(text)) => match ApiVersion::parse(text) {
                Some(_) => Ok(()),
                None => refuse(text, format!("Version `{text}` is not a valid version")),
            },
            (Limits::ThrottledReplicas, Value::List(items)) => {
                if throttled_replicas_are_valid(items) {
                    return Ok(());
                }
                refuse(
                    &value.shown(),
                    format!(
                        "{} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                        self.name
                    ),
                )
            }
            (Limits::LogLevel, Value::Text(text)) if !crate::logging::is_valid_level(text) => {
                refuse(text, "not a level".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// `ThrottledReplicaListValidator`: the first element is `*`, or each is empty or `digits:digits`.
fn throttled_replicas_are_valid(items: &[String]) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |text: &str| {
        text.split_once(':')
            .is_some_and(|(left, right)| number(left) && number(right))
    };
    items.first().is_some_and(|item| item.trim() == "*")
        || items
            .iter()
            .map(|item| item.trim())
            .all(|item| item.is_empty() || pair(item))
}

/// The known name nearest to a mistyped one, if one is near: at most two letters wrong, missing, added or
/// swapped, and less than a third of the name.
pub fn suggestion<'a>(mistyped: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = mistyped.chars().count();
    let limit = (length / 3).min(2);
    known
        // a name of quite another length is quite another name, and the distance to it costs both lengths
        .filter(|name| name.chars().count().abs_diff(length) <= limit)
        .map(|name| (edit_distance(mistyped, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters to insert, delete, replace or swap with a neighbour to turn one text into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let cost = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_looked_for_at_once() {
        let names = || broker_definitions().map(|definition| definition.name);
        let began = std::time::Instant::now();
        assert_eq!(suggestion(&"x".repeat(1 << 20), names()), None);
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        assert_eq!(suggestion("log.dris", names()), Some("log.dirs"));
    }

    #[test]
    fn there_are_as_many_settings_as_in_kafka_each_once() {
        let kafka = broker_definitions()
            .filter(|definition| !definition.name.starts_with("milena."))
            .count();
        assert_eq!((kafka, topic_definitions().len()), (216, 26));
        let mut names: Vec<_> = broker_definitions().map(|definition| definition.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), broker_definitions().count());
    }

    #[test]
    fn every_default_is_canonical_and_within_its_own_limits() {
        let topics = topic_definitions().iter().map(|topic| &topic.definition);
        for definition in broker_definitions()
            .chain(dynamic_only_definitions())
            .chain(topics)
        {
            if let Some(text) = definition.default {
                let value = definition
                    .parse(text)
                    .unwrap_or_else(|error| panic!("{}: {error}", definition.name));
                assert_eq!(value, definition.default_value());
                assert_eq!(value.canonical().as_deref(), Some(text), "{}", definition.name);
            }
        }
    }

    #[test]
    fn every_topic_setting_stands_on_a_broker_setting_of_the_same_type_and_default() {
        for topic in topic_definitions() {
            let Some(name) = topic.broker_name else { continue };
            let broker = broker_definition(name).unwrap_or_else(|| panic!("{name} is unknown"));
            assert_eq!(broker.value_type, topic.definition.value_type, "{name}");
            if broker.default.is_some() {
                assert_eq!(broker.default, topic.definition.default, "{name}");
            }
        }
    }

    #[test]
    fn the_dynamic_kinds_are_as_many_as_in_kafka() {
        let count = |kind| {
            broker_definitions()
                .filter(|definition| definition.dynamic == kind)
                .count()
        };
        assert_eq!(
            count(DynamicKind::ClusterWide)
                + count(DynamicKind::PerBroker)
                + count(DynamicKind::ListenerPrefix),
            76
        );
        assert_eq!(count(DynamicKind::ListenerPrefix), 10);
    }

    #[test]
    fn every_sentence_is_one_sentence() {
        for definition in broker_definitions() {
            let text = definition.documentation;
            assert!(
                text.ends_with('.') && text.chars().next().is_some_and(char::is_uppercase)
                    || text.starts_with("SO_"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_value_is_refused_in_kafkas_words() {
        let cases = [
            (
                "num.partitions",
                "0",
                "Invalid value 0 for configuration num.partitions: Value must be at least 1",
            ),
            (
                "num.partitions",
                "many",
                "Invalid value many for configuration num.partitions: Not a number of type INT",
            ),
            (
                "log.cleanup.policy",
                "delete, keep",
                "Invalid value keep for configuration log.cleanup.policy: String must be one of: compact, \
                 delete",
            ),
            (
                "inter.broker.protocol.version",
                "3.0",
                "Invalid value 3.0 for configuration inter.broker.protocol.version: Version `3.0` is not a \
                 valid version",
            ),
        ];
        for (name, text, expected) in cases {
            let error = broker_definition(name).unwrap().parse(text).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_mistyped_name_finds_its_neighbour_and_a_foreign_one_finds_none() {
        let names = || broker_definitions().map(|definition| definition.name);
        assert_eq!(suggestion("log.dri", names()), Some("log.dir"));
        assert_eq!(suggestion("num.partition", names()), Some("num.partitions"));
        assert_eq!(
            suggestion("milena.oi.backend", names()),
            Some("milena.io.backend")
        );
        assert_eq!(suggestion("super.users", names()), None);
    }
}
