//! Settings that change while the broker runs: which may, at which level, and what results.
//!
//! Checks of AlterConfigs and IncrementalAlterConfigs for brokers, and the lenient reading of what is stored
//! in the tree. Behaviour of `DynamicBrokerConfig.scala`, `DynamicConfig.scala`,
//! `AdminManager.prepareIncrementalConfigs`.
//!
//! Applied while running: everything that stands in for topic settings, `message.max.bytes` and the
//! connection limits, those of single listeners too. The rest of the dynamic settings is accepted if it has no effect here anyway, and
//! refused otherwise: listeners, and what belongs to SSL and SASL.

use std::collections::BTreeMap;

use super::ConfigError;
use super::broker::BrokerConfig;
use super::checks;
use super::definition::{
    Definition, DynamicKind, broker_definition, broker_definitions, dynamic_only_definitions,
    topic_definition,
};
use super::load::Warning;
use super::sources::Sources;
use super::value::ValueType;

/// Whose setting it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicLevel {
    /// `/config/brokers/{id}`
    Broker,
    /// `/config/brokers/<default>`
    ClusterDefault,
}

/// The limits of one connection count each, but Kafka lets them be set for all listeners of a cluster at
/// once.
pub(super) const LISTENER_LIMITS: [&str; 2] = ["max.connections", "max.connection.creation.rate"];

/// Settings of one mechanism of one listener: `listener.name.{listener}.{mechanism}.{setting}`.
const MECHANISM_SETTINGS: [&str; 5] = [
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// Thread counts may at most be halved or doubled at one time.
const THREAD_COUNTS: [&str; 5] = [
    "num.io.threads",
    "num.network.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
];

/// Whether a key is a limit of one listener's connections, which is served, unlike other settings of one listener.
pub(super) fn is_listener_limit(key: &str) -> bool {
    listener_base_name(key).is_some_and(|base| LISTENER_LIMITS.contains(&base))
}

/// `setting` of `listener.name.{listener}.{setting}`.
pub(super) fn listener_base_name(key: &str) -> Option<&str> {
    key.strip_prefix("listener.name.")?
        .split_once('.')
        .map(|(_, setting)| setting)
}

/// The setting that a key with a listener's prefix is about.
pub(super) fn listener_setting(key: &str) -> Option<&'static Definition> {
    let base = listener_base_name(key)?;
    let of_mechanism = MECHANISM_SETTINGS
        .into_iter()
        .find(|setting| base.ends_with(setting));
    broker_definition(of_mechanism.unwrap_or(base))
}

/// The definition of a dynamic setting, by its name without a prefix.
fn dynamic_definition(name: &str) -> Option<&'static Definition> {
    let dynamic = broker_definitions().filter(|definition| definition.dynamic != DynamicKind::Fixed);
    dynamic
        .chain(dynamic_only_definitions())
        .find(|definition| definition.name == name)
}

/// Kafka's way to print several names.
fn set_text<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    format!(
        "Set({})",
        names
            .into_iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

fn is_fixed(name: &str) -> bool {
    broker_definition(name).is_some_and(|definition| definition.dynamic == DynamicKind::Fixed)
}

fn lacks_listener_prefix(name: &str) -> bool {
    broker_definition(name).is_some_and(|definition| definition.dynamic == DynamicKind::ListenerPrefix)
}

fn is_per_broker(name: &str) -> bool {
    match listener_base_name(name) {
        Some(base) => !LISTENER_LIMITS.contains(&base),
        None => broker_definition(name).is_some_and(|definition| {
            matches!(
                definition.dynamic,
                DynamicKind::PerBroker | DynamicKind::ListenerPrefix
            )
        }),
    }
}

fn check_type(name: &str, text: &str) -> Result<(), ConfigError> {
    match dynamic_definition(listener_base_name(name).unwrap_or(name)) {
        Some(definition) => definition.parse(text).map(|_| ()),
        None => Ok(()),
    }
}

impl BrokerConfig {
    /// This configuration with other dynamic settings in place of its present ones: what the tree holds at
    /// `/config/brokers/<default>` and `/config/brokers/{id}`.
    ///
    /// Never fails: what is stored and cannot be applied is left out with a warning, as in Kafka.
    pub fn with_dynamic(
        &self,
        cluster_default: &BTreeMap<String, String>,
        per_broker: &BTreeMap<String, String>,
    ) -> (BrokerConfig, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut config = self.clone();
        for (level, stored) in [
            (DynamicLevel::ClusterDefault, cluster_default),
            (DynamicLevel::Broker, per_broker),
        ] {
            let usable = usable_settings(level, stored, &mut warnings);
            let mut sources = (*config.sources).clone();
            *sources.dynamic_mut(level) = usable;
            match checks::build(sources) {
                Ok(next) => config = next,
                Err(faults) => {
                    let reasons: Vec<_> = faults.iter().map(|fault| fault.error.to_string()).collect();
                    let whose = match level {
                        DynamicLevel::Broker => "Per-broker configs",
                        DynamicLevel::ClusterDefault => "Cluster default configs",
                    };
                    warnings.push(Warning::StoredIgnored {
                        message: format!("{whose} could not be applied: {}", reasons.join("; ")),
                    });
                }
            }
        }
        (config, warnings)
    }

    /// What this broker would become if the settings of one level were exactly `settings`: the check of
    /// AlterConfigs.
    ///
    /// # Errors
    /// With Kafka's texts. **Deviation:** Kafka says "Invalid value org.apache...ConfigException: (reason)
    /// for configuration Invalid dynamic configuration" where two of its messages are mixed up; here the
    /// reason follows the words "Invalid dynamic configuration".
    pub fn validate_dynamic(
        &self,
        level: DynamicLevel,
        settings: &BTreeMap<String, String>,
    ) -> Result<BrokerConfig, ConfigError> {
        let refuse_if = |predicate: fn(&str) -> bool, message: &str| {
            let found: Vec<_> = settings.keys().filter(|name| predicate(name)).collect();
            if found.is_empty() {
                Ok(())
            } else {
                Err(ConfigError::not_allowed(format!(
                    "{message}: {}",
                    set_text(found)
                )))
            }
        };
        refuse_if(is_fixed, "Cannot update these configs dynamically")?;
        refuse_if(
            lacks_listener_prefix,
            "These security configs can be dynamically updated only per-listener using the listener prefix",
        )?;
        for (name, text) in settings {
            check_type(name, text)?;
        }
        if level == DynamicLevel::ClusterDefault {
            refuse_if(
                is_per_broker,
                "Cannot update these configs at default cluster level, broker id must be specified",
            )?;
        }
        self.refuse_what_cannot_change(settings)?;
        let mut sources = (*self.sources).clone();
        *sources.dynamic_mut(level) = settings.clone();
        let next = checks::build(sources).map_err(|faults| {
            faults
                .into_iter()
                .next()
                .expect("a configuration is refused for at least one reason")
                .error
        })?;
        self.check_thread_counts(&next)?;
        Ok(next)
    }

    /// Settings that Kafka changes while running and this broker does not, if they would change.
    fn refuse_what_cannot_change(&self, settings: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        for (name, text) in settings {
            let per_broker_setting = matches!(
                broker_definition(name).map(|definition| definition.dynamic),
                Some(DynamicKind::PerBroker | DynamicKind::ListenerPrefix)
            );
            let unchanged = self.sources.stated(name) == Some(text.as_str());
            if is_listener_limit(name) {
                continue;
            }
            if (per_broker_setting || listener_setting(name).is_some()) && !unchanged {
                return Err(ConfigError::not_allowed(format!(
                    "Invalid dynamic configuration: {name} cannot be changed while this broker runs; set \
                     it in the \
                     broker's properties and start it again"
                )));
            }
            if name == "metric.reporters" && !text.trim().is_empty() {
                let problem = format!("Class {text} could not be found.");
                return Err(ConfigError::value(name, text.clone(), problem));
            }
        }
        Ok(())
    }

    fn check_thread_counts(&self, next: &BrokerConfig) -> Result<(), ConfigError> {
        let wrong = |message: String| {
            Err(ConfigError::not_allowed(format!(
                "Invalid dynamic configuration: {message}"
            )))
        };
        for name in THREAD_COUNTS {
            let (old, new) = (self.values.i64(name), next.values.i64(name));
            let message = format!("Dynamic thread count update validation failed for {name}={new}");
            if new < old / 2 {
                return wrong(format!(
                    "{message}, value should be at least half the current value {old}"
                ));
            }
            if new > old * 2 {
                return wrong(format!(
                    "{message}, value should not be greater than double the current value {old}"
                ));
            }
        }
        let (old, new) = (
            self.values.i64("log.cleaner.threads"),
            next.values.i64("log.cleaner.threads"),
        );
        if new < old / 2 {
            return wrong(format!(
                "Log cleaner threads cannot be reduced to less than half the current value {old}"
            ));
        }
        if new > old * 2 {
            return wrong(format!(
                "Log cleaner threads cannot be increased to more than double the current value {old}"
            ));
        }
        Ok(())
    }
}

impl Sources {
    fn dynamic_mut(&mut self, level: DynamicLevel) -> &mut BTreeMap<String, String> {
        match level {
            DynamicLevel::Broker => &mut self.per_broker,
            DynamicLevel::ClusterDefault => &mut self.cluster_default,
        }
    }
}

/// What of the stored settings can be applied at their level.
fn usable_settings(
    level: DynamicLevel,
    stored: &BTreeMap<String, String>,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<String, String> {
    let mut usable = stored.clone();
    let mut drop_if = |refused: &dyn Fn(&str, &str) -> bool, message: &str| {
        let names: Vec<_> = usable
            .iter()
            .filter(|(name, text)| refused(name, text))
            .map(|(name, _)| name.clone())
            .collect();
        if !names.is_empty() {
            usable.retain(|name, _| !names.contains(name));
            warnings.push(Warning::StoredIgnored {
                message: format!("{message}: {}", set_text(&names)),
            });
        }
    };
    drop_if(
        &|name, text| check_type(name, text).is_err(),
        "Dynamic configs with invalid values will be ignored",
    );
    drop_if(
        &|name, _| is_fixed(name),
        "Non-dynamic configs configured in ZooKeeper will be ignored",
    );
    drop_if(
        &|name, _| lacks_listener_prefix(name),
        "Security configs can be dynamically updated only using listener prefix, base configs will be \
         ignored",
    );
    if level == DynamicLevel::ClusterDefault {
        drop_if(
            &|name, _| is_per_broker(name),
            "Per-broker configs defined at default cluster level will be ignored",
        );
    }
    usable
}

/// What of the settings stored at one level an incremental change starts from: those that can be applied.
pub fn usable_dynamic_settings(
    level: DynamicLevel,
    stored: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    usable_settings(level, stored, &mut Vec::new())
}

/// What IncrementalAlterConfigs does to one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterOperationType {
    Set,
    Delete,
    Append,
    Subtract,
}

impl AlterOperationType {
    /// From the wire: 0 to 3.
    pub const fn from_id(id: i8) -> Option<AlterOperationType> {
        match id {
            0 => Some(AlterOperationType::Set),
            1 => Some(AlterOperationType::Delete),
            2 => Some(AlterOperationType::Append),
            3 => Some(AlterOperationType::Subtract),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            AlterOperationType::Set => "SET",
            AlterOperationType::Delete => "DELETE",
            AlterOperationType::Append => "APPEND",
            AlterOperationType::Subtract => "SUBTRACT",
        }
    }
}

/// One change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterOperation {
    pub name: String,
    pub operation: AlterOperationType,
    pub value: Option<String>,
}

/// The settings that result from `current` by `operations`; they are still to be checked as a whole.
///
/// `definition` finds a setting by name: [`super::broker_definition`], or a topic's.
///
/// # Errors
/// [`ConfigError::InvalidRequest`], and [`ConfigError::UnknownTopicConfig`] for appending to a setting that
/// nobody knows.
pub fn apply_operations(
    current: &BTreeMap<String, String>,
    operations: &[AlterOperation],
    definition: impl Fn(&str) -> Option<&'static Definition>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let invalid = |message: String| Err(ConfigError::InvalidRequest { message });
    let mut duplicates: Vec<&str> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let again = operations[..index]
            .iter()
            .any(|earlier| earlier.name == operation.name);
        if again && !duplicates.contains(&operation.name.as_str()) {
            duplicates.push(&operation.name);
        }
    }
    if !duplicates.is_empty() {
        return invalid(format!(
            "Error due to duplicate config keys : {}",
            duplicates.join(",")
        ));
    }
    let without_value = operations
        .iter()
        .filter(|change| change.value.is_none() && change.operation != AlterOperationType::Delete);
    let without_value: Vec<_> = without_value
        .map(|change| format!("{}:{}", change.operation.name(), change.name))
        .collect();
    if !without_value.is_empty() {
        return invalid(format!(
            "Null value not supported for : {}",
            without_value.join(",")
        ));
    }
    let mut settings = current.clone();
    for change in operations {
        let value = change.value.as_deref().unwrap_or_default();
        let verb = match change.operation {
            AlterOperationType::Set => {
                settings.insert(change.name.clone(), value.to_owned());
                continue;
            }
            AlterOperationType::Delete => {
                settings.remove(&change.name);
                continue;
            }
            AlterOperationType::Append => "append",
            AlterOperationType::Subtract => "subtract",
        };
        let Some(known) = definition(&change.name) else {
            return Err(ConfigError::UnknownTopicConfig {
                name: change.name.clone(),
            });
        };
        if known.value_type != ValueType::List {
            return invalid(format!(
                "Config value {verb} is not allowed for config key: {}",
                change.name
            ));
        }
        let old = settings
            .get(&change.name)
            .map(String::as_str)
            .or(known.default)
            .unwrap_or_default();
        let mut items: Vec<&str> = old.split(',').filter(|item| !item.is_empty()).collect();
        for item in value.split(',') {
            if change.operation == AlterOperationType::Append {
                items.push(item);
            } else if let Some(index) = items.iter().position(|old| *old == item) {
                items.remove(index);
            }
        }
        let joined = items.join(",");
        settings.insert(change.name.clone(), joined);
    }
    Ok(settings)
}

/// [`apply_operations`]'s way to find a topic setting.
pub fn topic_setting(name: &str) -> Option<&'static Definition> {
    topic_definition(name).map(|topic| &topic.definition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenerName;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn broker() -> BrokerConfig {
        BrokerConfig::from_settings(&[("log.retention.hours", "24"), ("num.io.threads", "8")]).unwrap()
    }

    #[test]
    fn a_brokers_own_setting_wins_over_the_clusters_and_that_over_the_file() {
        let cluster = settings(&[("log.retention.ms", "5000"), ("message.max.bytes", "100")]);
        let (config, warnings) = broker().with_dynamic(&cluster, &settings(&[("log.retention.ms", "7000")]));
        assert_eq!(warnings, []);
        assert_eq!(
            (
                config.topic_defaults.retention_ms,
                config.topic_defaults.max_message_bytes
            ),
            (Some(7000), 100)
        );
        let (config, _) = config.with_dynamic(&BTreeMap::new(), &BTreeMap::new());
        assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
    }

    #[test]
    fn a_listener_has_limits_of_its_own_at_both_levels_and_the_brokers_otherwise() {
        let key = "listener.name.plaintext.max.connections";
        let of_listener = |config: &BrokerConfig| {
            let limits = &config.network.listener_connections;
            limits.get(&ListenerName::new("PLAINTEXT")).copied()
        };
        let config =
            BrokerConfig::from_settings(&[("max.connection.creation.rate", "9"), (key, "5")]).unwrap();
        assert_eq!(of_listener(&config), Some((5, 9)));
        let (config, warnings) =
            config.with_dynamic(&settings(&[(key, "6")]), &settings(&[("max.connections", "7")]));
        assert_eq!(
            (of_listener(&config), config.network.max_connections),
            (Some((6, 9)), 7)
        );
        assert_eq!(warnings, []);
        let (config, _) = config.with_dynamic(&BTreeMap::new(), &settings(&[(key, "8")]));
        assert_eq!(of_listener(&config), Some((8, 9)));
        for level in [DynamicLevel::Broker, DynamicLevel::ClusterDefault] {
            assert!(broker().validate_dynamic(level, &settings(&[(key, "5")])).is_ok());
            for (text, expected) in [
                ("0", "Invalid max.connections 0"),
                (
                    "-1",
                    "Invalid value -1 for configuration max.connections: Value must be at least 0",
                ),
                (
                    "x",
                    "Invalid value x for configuration max.connections: Not a number of type INT",
                ),
            ] {
                let error = broker()
                    .validate_dynamic(level, &settings(&[(key, text)]))
                    .unwrap_err();
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn what_is_stored_and_cannot_be_applied_is_left_out_and_named() {
        let cluster = settings(&[
            ("log.retention.ms", "soon"),
            ("log.dirs", "/x"),
            ("ssl.keystore.type", "JKS"),
            ("listeners", "PLAINTEXT://:1"),
            ("log.segment.bytes", "4096"),
            ("leader.replication.throttled.rate", "1000"),
        ]);
        let (config, warnings) = broker().with_dynamic(&cluster, &BTreeMap::new());
        assert_eq!(config.topic_defaults.segment_size_bytes, 4096);
        let texts: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            texts,
            [
                "Dynamic configs with invalid values will be ignored: Set(log.retention.ms)",
                "Non-dynamic configs configured in ZooKeeper will be ignored: Set(log.dirs)",
                "Security configs can be dynamically updated only using listener prefix, base configs will \
                 be ignored: \
             Set(ssl.keystore.type)",
                "Per-broker configs defined at default cluster level will be ignored: Set(listeners)",
            ]
        );
        let (config, warnings) =
            broker().with_dynamic(&BTreeMap::new(), &settings(&[("log.retention.ms", "0")]));
        assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn changes_that_may_not_be_are_refused_in_kafkas_words() {
        use DynamicLevel::{Broker, ClusterDefault};
        let cases: &[(DynamicLevel, (&str, &str), &str)] = &[
            (
                Broker,
                ("log.dirs", "/x"),
                "Cannot update these configs dynamically: Set(log.dirs)",
            ),
            (
                Broker,
                ("ssl.keystore.location", "/x"),
                "These security configs can be dynamically updated only per-listener using the listener \
                 prefix: \
                 Set(ssl.keystore.location)",
            ),
            (
                ClusterDefault,
                ("listeners", "PLAINTEXT://:1"),
                "Cannot update these configs at default cluster level, broker id must be specified: \
                 Set(listeners)",
            ),
            (
                Broker,
                ("message.max.bytes", "-1"),
                "Invalid value -1 for configuration message.max.bytes: Value must be at least 0",
            ),
            (
                Broker,
                ("num.io.threads", "3"),
                "Invalid dynamic configuration: Dynamic thread count update validation failed for \
                 num.io.threads=3, \
                 value should be at least half the current value 8",
            ),
            (
                Broker,
                ("num.io.threads", "17"),
                "Invalid dynamic configuration: Dynamic thread count update validation failed for \
                 num.io.threads=17, \
                 value should not be greater than double the current value 8",
            ),
            (
                Broker,
                ("listeners", "PLAINTEXT://:1"),
                "Invalid dynamic configuration: listeners cannot be changed while this broker runs; set it \
                 in the \
                 broker's properties and start it again",
            ),
            (
                Broker,
                ("log.retention.ms", "0"),
                "log.retention.ms must be unlimited (-1) or, equal or greater than 1",
            ),
        ];
        for (level, (name, text), expected) in cases {
            let error = broker()
                .validate_dynamic(*level, &settings(&[(name, text)]))
                .unwrap_err();
            assert_eq!(error.to_string(), *expected);
        }
    }

    #[test]
    fn allowed_changes_give_the_configuration_that_would_be() {
        let next = broker().validate_dynamic(
            DynamicLevel::Broker,
            &settings(&[
                ("log.retention.ms", "1"),
                ("my.plugin", "x"),
                ("num.io.threads", "16"),
            ]),
        );
        assert_eq!(next.unwrap().topic_defaults.retention_ms, Some(1));
        assert!(
            broker()
                .validate_dynamic(
                    DynamicLevel::ClusterDefault,
                    &settings(&[("max.connections", "5")])
                )
                .is_ok()
        );
    }

    fn change(name: &str, operation: AlterOperationType, value: Option<&str>) -> AlterOperation {
        AlterOperation {
            name: name.into(),
            operation,
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn lists_grow_and_shrink_and_other_settings_are_set_and_removed() {
        use AlterOperationType::{Append, Delete, Set, Subtract};
        let current = settings(&[
            ("retention.ms", "1"),
            ("follower.replication.throttled.replicas", "0:1,1:1"),
        ]);
        let operations = [
            change("retention.ms", Delete, None),
            change("segment.ms", Set, Some("9")),
            change("cleanup.policy", Append, Some("compact")),
            change("leader.replication.throttled.replicas", Append, Some("0:1,1:2")),
            change(
                "follower.replication.throttled.replicas",
                Subtract,
                Some("0:1,7:7"),
            ),
        ];
        assert_eq!(
            apply_operations(&current, &operations, topic_setting).unwrap(),
            settings(&[
                ("segment.ms", "9"),
                ("cleanup.policy", "delete,compact"),
                ("leader.replication.throttled.replicas", "0:1,1:2"),
                ("follower.replication.throttled.replicas", "1:1"),
            ])
        );
    }

    #[test]
    fn operations_that_cannot_be_are_refused_in_kafkas_words() {
        use AlterOperationType::{Append, Delete, Set, Subtract};
        let cases: &[(&[AlterOperation], &str)] = &[
            (
                &[change("a", Set, Some("1")), change("a", Delete, None)],
                "Error due to duplicate config keys : a",
            ),
            (
                &[change("a", Set, None), change("b", Delete, None)],
                "Null value not supported for : SET:a",
            ),
            (
                &[change("retention.ms", Append, Some("1"))],
                "Config value append is not allowed for config key: retention.ms",
            ),
            (
                &[change("retention.ms", Subtract, Some("1"))],
                "Config value subtract is not allowed for config key: retention.ms",
            ),
            (&[change("x", Append, Some("1"))], "Unknown topic config name: x"),
        ];
        for (operations, expected) in cases {
            let error = apply_operations(&BTreeMap::new(), operations, topic_setting).unwrap_err();
            assert_eq!(error.to_string(), *expected);
        }
    }
}
