//! What DescribeConfigs tells about a broker, the cluster's defaults, or a topic.
//!
//! Every entry says where its value comes from and what else would stand in for it; a source that no layer
//! has is not named. Values of passwords, and of keys whose type nobody knows, are never shown. Behaviour of
//! `AdminManager.describeConfigs`; two things of it may surprise and are kept: of synonyms only those from
//! the named setting on are listed (a topic that has its `retention.ms` from `log.retention.hours` is said to
//! have a default), and nothing is listed for synonyms of another unit.
//!
//! **Deviation:** with a dynamic `log.retention.ms`, Kafka shows `log.retention.hours` with the default's
//! value beside the file's source; here value and source agree.

use super::broker::BrokerConfig;
use super::definition::{
    DynamicKind, broker_definition, broker_definitions, broker_synonyms, dynamic_only_definitions,
    topic_definition, topic_definitions,
};
use super::dynamic::listener_setting;
use super::sources::Sources;
use super::topic::TopicConfig;
use super::value::ValueType;

/// Where a value comes from, with the numbers of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    DynamicTopic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
}

/// One setting as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigEntry {
    pub name: String,
    /// In Kafka's canonical form; `None` is null, or hidden.
    pub value: Option<String>,
    pub source: ConfigSource,
    /// Whether it can only be set in the broker's properties.
    pub read_only: bool,
    pub is_sensitive: bool,
    /// In the order of precedence, the value's own source first.
    pub synonyms: Vec<ConfigSynonym>,
    /// `None` is unknown (0 on the wire).
    pub value_type: Option<ValueType>,
    pub documentation: Option<&'static str>,
}

/// A value that counts, or would count if those before it were removed.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

impl ConfigEntry {
    /// ConfigType of DescribeConfigs 3.
    pub fn type_id(&self) -> i8 {
        match self.value_type {
            None => 0,
            Some(ValueType::Boolean) => 1,
            Some(ValueType::String) => 2,
            Some(ValueType::Int) => 3,
            Some(ValueType::Short) => 4,
            Some(ValueType::Long) => 5,
            Some(ValueType::Double) => 6,
            Some(ValueType::List) => 7,
            Some(ValueType::Class) => 8,
            Some(ValueType::Password) => 9,
        }
    }
}

impl BrokerConfig {
    /// All settings of this broker: the known ones and whatever else it was given.
    pub fn describe(&self) -> Vec<ConfigEntry> {
        let known = broker_definitions().map(|definition| {
            let value = self.values.get(definition.name).canonical();
            self.broker_entry(definition.name, value, Level::Broker)
        });
        let mut entries: Vec<_> = known.collect();
        let sources = &self.sources;
        let others = sources
            .fixed
            .keys()
            .chain(sources.cluster_default.keys())
            .chain(sources.per_broker.keys());
        let mut others: Vec<_> = others.filter(|name| broker_definition(name).is_none()).collect();
        others.sort_unstable();
        others.dedup();
        entries.extend(others.into_iter().map(|name| {
            let value = sources.stated(name).map(str::to_owned);
            self.broker_entry(name, value, Level::Broker)
        }));
        entries
    }

    /// The settings that the cluster has for all brokers, and no others.
    pub fn describe_cluster_default(&self) -> Vec<ConfigEntry> {
        let stored = self.sources.cluster_default.iter();
        stored
            .map(|(name, text)| self.broker_entry(name, Some(text.clone()), Level::Cluster))
            .collect()
    }

    /// All settings of a topic: the known ones and whatever else was stored for it.
    pub fn describe_topic(&self, topic: &TopicConfig) -> Vec<ConfigEntry> {
        let known = topic_definitions().iter().map(|known| known.definition.name);
        let others = topic
            .overrides()
            .keys()
            .map(String::as_str)
            .filter(|name| topic_definition(name).is_none());
        known
            .chain(others)
            .map(|name| self.topic_entry(name, topic))
            .collect()
    }

    fn topic_entry(&self, name: &str, topic: &TopicConfig) -> ConfigEntry {
        let known = topic_definition(name);
        let value = known.and_then(|known| match topic.value(name) {
            Some(value) => value.canonical(),
            None => topic.effective(known.definition.name, self).canonical(),
        });
        let mut synonyms = Vec::new();
        if topic.overrides().contains_key(name) {
            let source = ConfigSource::DynamicTopic;
            synonyms.push(ConfigSynonym {
                name: name.to_owned(),
                value: value.clone(),
                source,
            });
        }
        if let Some(broker_name) = known.and_then(|known| known.broker_name) {
            synonyms.extend(synonyms_of(
                &self.sources,
                broker_name,
                broker_synonyms(broker_name),
                false,
            ));
        }
        ConfigEntry {
            name: name.to_owned(),
            value,
            source: synonyms
                .first()
                .map_or(ConfigSource::Default, |synonym| synonym.source),
            read_only: false,
            is_sensitive: known.is_none(),
            synonyms,
            value_type: known.map(|known| known.definition.value_type),
            documentation: known.map(|known| known.definition.documentation),
        }
    }

    fn broker_entry(&self, name: &str, value: Option<String>, level: Level) -> ConfigEntry {
        let known = broker_definition(name)
            .or_else(|| dynamic_only_definitions().find(|definition| definition.name == name));
        let typed = known.or_else(|| listener_setting(name));
        let is_sensitive = typed.is_none_or(|definition| definition.is_sensitive());
        let names: Vec<&str> = match (known, listener_setting(name)) {
            (None, Some(base)) => vec![name, base.name],
            (Some(definition), _) if broker_definition(name).is_some() => {
                broker_synonyms(definition.name).to_vec()
            }
            _ => vec![name],
        };
        let mut synonyms = synonyms_of(&self.sources, name, &names, is_sensitive);
        if level == Level::Cluster {
            synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        }
        ConfigEntry {
            name: name.to_owned(),
            value: value.filter(|_| !is_sensitive),
            source: synonyms
                .first()
                .map_or(ConfigSource::Default, |synonym| synonym.source),
            read_only: broker_definition(name)
                .is_none_or(|definition| definition.dynamic == DynamicKind::Fixed),
            is_sensitive,
            synonyms,
            value_type: typed.map(|definition| definition.value_type),
            documentation: known.map(|definition| definition.documentation),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Broker,
    Cluster,
}

/// Every layer's value of every synonym, in the order of precedence, from the first of `name` itself on.
fn synonyms_of(sources: &Sources, name: &str, synonyms: &[&str], is_sensitive: bool) -> Vec<ConfigSynonym> {
    type Layer<'a> = (ConfigSource, &'a dyn Fn(&str) -> Option<&'a str>);
    let layers: [Layer<'_>; 4] = [
        (ConfigSource::DynamicBroker, &|name| {
            sources.per_broker.get(name).map(String::as_str)
        }),
        (ConfigSource::DynamicDefaultBroker, &|name| {
            sources.cluster_default.get(name).map(String::as_str)
        }),
        (ConfigSource::StaticBroker, &|name| {
            sources.fixed.get(name).map(|stated| stated.text.as_str())
        }),
        (ConfigSource::Default, &|name| sources.default_text(name)),
    ];
    let mut found = Vec::new();
    for (source, layer) in layers {
        for synonym in synonyms {
            if let Some(text) = layer(synonym) {
                let value = (!is_sensitive).then(|| text.to_owned());
                found.push(ConfigSynonym {
                    name: (*synonym).to_owned(),
                    value,
                    source,
                });
            }
        }
    }
    found
        .into_iter()
        .skip_while(|synonym| synonym.name != name)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn broker(settings: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_settings(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn entry(entries: Vec<ConfigEntry>, name: &str) -> ConfigEntry {
        entries
            .into_iter()
            .find(|entry| entry.name == name)
            .unwrap_or_else(|| panic!("{name} is not described"))
    }

    type Synonym<'a> = (&'a str, Option<&'a str>, ConfigSource);

    fn shown(entry: &ConfigEntry) -> (Option<&str>, ConfigSource, Vec<Synonym<'_>>) {
        let synonyms = entry
            .synonyms
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_deref(), s.source))
            .collect();
        (entry.value.as_deref(), entry.source, synonyms)
    }

    use ConfigSource::{Default, DynamicBroker, DynamicDefaultBroker, DynamicTopic, StaticBroker};

    #[test]
    fn a_topics_value_names_its_source_and_all_that_would_stand_in() {
        let topic = TopicConfig::parse([("retention.ms", " 5 "), ("max.message.bytes", "9")]).unwrap();
        let cluster: BTreeMap<_, _> = [("message.max.bytes".to_owned(), "7".to_owned())].into();
        let (config, _) = broker(&[("log.retention.hours", "24"), ("message.max.bytes", "8")])
            .with_dynamic(&cluster, &BTreeMap::new());
        let found = entry(config.describe_topic(&topic), "retention.ms");
        assert_eq!(
            shown(&found),
            (
                Some("5"),
                DynamicTopic,
                vec![("retention.ms", Some("5"), DynamicTopic)]
            )
        );
        let found = entry(config.describe_topic(&topic), "max.message.bytes");
        let expected = vec![
            ("max.message.bytes", Some("9"), DynamicTopic),
            ("message.max.bytes", Some("7"), DynamicDefaultBroker),
            ("message.max.bytes", Some("8"), StaticBroker),
            ("message.max.bytes", Some("1048588"), Default),
        ];
        assert_eq!(shown(&found), (Some("9"), DynamicTopic, expected));
        let found = entry(config.describe_topic(&TopicConfig::default()), "retention.ms");
        assert_eq!(
            shown(&found),
            (Some("86400000"), Default, vec![]),
            "as Kafka: other units are not listed"
        );
        assert_eq!(
            (found.type_id(), found.read_only, found.is_sensitive),
            (5, false, false)
        );
        assert_eq!(config.describe_topic(&TopicConfig::default()).len(), 26);
    }

    #[test]
    fn a_brokers_value_names_its_source() {
        let own: BTreeMap<_, _> = [("log.retention.ms".to_owned(), "5".to_owned())].into();
        let (config, _) = broker(&[("log.retention.hours", "24"), ("broker.rack", "a")])
            .with_dynamic(&BTreeMap::new(), &own);
        let found = entry(config.describe(), "log.retention.ms");
        let expected = vec![
            ("log.retention.ms", Some("5"), DynamicBroker),
            ("log.retention.hours", Some("24"), StaticBroker),
            ("log.retention.hours", Some("168"), Default),
        ];
        assert_eq!(shown(&found), (Some("5"), DynamicBroker, expected));
        assert!(!found.read_only);
        let found = entry(config.describe(), "broker.rack");
        assert_eq!(
            shown(&found),
            (
                Some("a"),
                StaticBroker,
                vec![("broker.rack", Some("a"), StaticBroker)]
            )
        );
        assert!(found.read_only);
        let found = entry(config.describe(), "offsets.topic.replication.factor");
        assert_eq!((found.value.as_deref(), found.source), (Some("1"), Default));
        let found = entry(config.describe(), "log.cleaner.io.max.bytes.per.second");
        assert_eq!(found.value.as_deref(), Some("1.7976931348623157E308"));
    }

    #[test]
    fn passwords_and_unknown_keys_are_never_shown() {
        let config = broker(&[
            ("ssl.key.password", "s3cret"),
            ("my.plugin.key", "s3cret"),
            ("listener.name.plaintext.ssl.key.password", "s3cret"),
        ]);
        for name in [
            "ssl.key.password",
            "my.plugin.key",
            "listener.name.plaintext.ssl.key.password",
        ] {
            let found = entry(config.describe(), name);
            assert!(
                found.is_sensitive && found.value.is_none() && found.source == StaticBroker,
                "{found:?}"
            );
            assert!(found.synonyms.iter().all(|synonym| synonym.value.is_none()));
        }
        assert!(!format!("{:?}", config.describe()).contains("s3cret"));
    }

    #[test]
    fn the_clusters_defaults_are_only_what_was_stored() {
        let cluster: BTreeMap<_, _> = [("max.connections".to_owned(), "7".to_owned())].into();
        let (config, _) = broker(&[("max.connections", "9")]).with_dynamic(&cluster, &BTreeMap::new());
        let entries = config.describe_cluster_default();
        assert_eq!(entries.len(), 1);
        let expected = vec![("max.connections", Some("7"), DynamicDefaultBroker)];
        assert_eq!(shown(&entries[0]), (Some("7"), DynamicDefaultBroker, expected));
    }
}
