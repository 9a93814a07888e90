//! Settings as brokers describe them: of whom, from which source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::messages::configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
};

use super::Described;
use crate::cluster_args::CommandError;

/// Entities that are described by one request.
const BATCH_LENGTH: usize = 500;

/// Who has settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entity {
    Topic(String),
    Broker(i32),
    /// What all brokers have dynamically.
    BrokerDefaults,
    BrokerLogger(i32),
}

impl Entity {
    /// The number on the wire.
    pub(super) fn resource_type(&self) -> i8 {
        match self {
            Entity::Topic(_) => 2,
            Entity::Broker(_) | Entity::BrokerDefaults => 4,
            Entity::BrokerLogger(_) => 8,
        }
    }

    /// The name on the wire.
    pub(super) fn name(&self) -> String {
        match self {
            Entity::Topic(name) => name.clone(),
            Entity::Broker(id) | Entity::BrokerLogger(id) => id.to_string(),
            Entity::BrokerDefaults => String::new(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Entity::Topic(_) => "topic",
            Entity::Broker(_) => "broker",
            Entity::BrokerDefaults => "broker-defaults",
            Entity::BrokerLogger(_) => "broker-logger",
        }
    }

    /// The option that means it.
    pub(super) fn option(&self) -> String {
        match self {
            Entity::BrokerDefaults => "--broker-defaults".to_owned(),
            _ => format!("--{} {}", self.kind(), self.name()),
        }
    }

    /// Who knows and changes it: of a broker that broker itself, of the others any.
    pub(super) fn target(&self) -> Target<'static> {
        match self {
            Entity::Broker(id) | Entity::BrokerLogger(id) => Target::Broker(*id),
            Entity::Topic(_) | Entity::BrokerDefaults => Target::Any,
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entity::Topic(name) => write!(f, "topic {name}"),
            Entity::Broker(id) => write!(f, "broker {id}"),
            Entity::BrokerDefaults => f.write_str("all brokers"),
            Entity::BrokerLogger(id) => write!(f, "the loggers of broker {id}"),
        }
    }
}

/// Where a setting comes from, by its number on the wire; shown by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(i8);

const TOPIC: Source = Source(1);
const BROKER: Source = Source(2);
const ALL_BROKERS: Source = Source(3);
const FILE: Source = Source(4);
const DEFAULT: Source = Source(5);
const LOGGER: Source = Source(6);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            TOPIC => "DYNAMIC_TOPIC_CONFIG",
            BROKER => "DYNAMIC_BROKER_CONFIG",
            ALL_BROKERS => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            FILE => "STATIC_BROKER_CONFIG",
            DEFAULT => "DEFAULT_CONFIG",
            LOGGER => "DYNAMIC_BROKER_LOGGER_CONFIG",
            _ => "UNKNOWN",
        })
    }
}

/// A setting.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: String,
    /// None when it is sensitive, or not set.
    pub(crate) value: Option<String>,
    pub(super) source: Source,
    pub(super) is_read_only: bool,
    pub(super) is_sensitive: bool,
    pub(super) synonyms: Vec<Synonym>,
    pub(super) documentation: Option<String>,
}

/// A place in which a setting is set.
#[derive(Clone, Debug)]
pub(super) struct Synonym {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) source: Source,
}

/// As kafka-configs.sh prints it.
impl fmt::Display for Synonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}={}",
            self.source,
            self.name,
            self.value.as_deref().unwrap_or("null")
        )
    }
}

impl Setting {
    fn of(entity: &Entity, result: &DescribeConfigsResourceResult<'_>) -> Setting {
        // Version 0 only says whether it is a default.
        let source = match (result.config_source, result.is_default, entity) {
            (-1, true, _) => DEFAULT,
            (-1, false, Entity::Topic(_)) => TOPIC,
            (-1, false, _) => FILE,
            (number, _, _) => Source(number),
        };
        let synonyms = result.synonyms.iter().map(|synonym| Synonym {
            name: synonym.name.to_string(),
            value: synonym.value.as_deref().map(str::to_owned),
            source: Source(synonym.source),
        });
        Setting {
            name: result.name.to_string(),
            value: result.value.as_deref().map(str::to_owned),
            source,
            is_read_only: result.read_only,
            is_sensitive: result.is_sensitive,
            synonyms: synonyms.collect(),
            documentation: result.documentation.as_deref().map(str::to_owned),
        }
    }

    /// The value as people read it.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            None if self.is_sensitive => "(hidden)".to_owned(),
            value => value.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        self.source == DEFAULT
    }

    pub(crate) fn is_of_topic(&self) -> bool {
        self.source == TOPIC
    }

    /// Whether it is set for this entity, not inherited.
    pub(super) fn is_of(&self, entity: &Entity) -> bool {
        self.source
            == match entity {
                Entity::Topic(_) => TOPIC,
                Entity::Broker(_) => BROKER,
                Entity::BrokerDefaults => ALL_BROKERS,
                // Levels are either of the file or changed since; both are the broker's own.
                Entity::BrokerLogger(_) => return true,
            }
    }
}

/// What is asked for beyond values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) synonyms: bool,
    pub(super) documentation: bool,
}

/// The settings of each entity, all of which must be told.
pub(crate) async fn settings_of(
    client: &mut Client,
    entities: &[Entity],
) -> Result<Vec<Vec<Setting>>, CommandError> {
    let found = described(client, entities, Wanted::default()).await?;
    found.into_iter().map(|settings| Ok(settings?)).collect()
}

/// The settings of each entity, in their order.
pub(super) async fn described(
    client: &mut Client,
    entities: &[Entity],
    wanted: Wanted,
) -> Result<Vec<Described>, CommandError> {
    let mut found: BTreeMap<(i8, String), Described> = BTreeMap::new();
    for batch in entities.chunk_by(|a, b| a.target() == b.target()) {
        for batch in batch.chunks(BATCH_LENGTH) {
            let target = batch[0].target();
            found.extend(
                client
                    .retry(async |client| ask(client, target, batch, wanted).await)
                    .await?,
            );
        }
    }
    let settings = entities.iter().map(|entity| {
        found
            .remove(&(entity.resource_type(), entity.name()))
            .unwrap_or_else(|| Ok(Vec::new()))
    });
    Ok(settings.collect())
}

async fn ask(
    client: &mut Client,
    target: Target<'_>,
    entities: &[Entity],
    wanted: Wanted,
) -> Result<Vec<((i8, String), Described)>, ClientError> {
    let resource = |entity: &Entity| DescribeConfigsResource {
        resource_type: entity.resource_type(),
        resource_name: entity.name().into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: entities.iter().map(resource).collect(),
        include_synonyms: wanted.synonyms,
        include_documentation: wanted.documentation,
    };
    let answer = client.call(target, &request).await?;
    let response: DescribeConfigsResponse<'_> = answer.decode()?;
    let mut found = Vec::new();
    for result in &response.results {
        let key = (result.resource_type, result.resource_name.to_string());
        let entity = entities
            .iter()
            .find(|entity| (entity.resource_type(), entity.name()) == key);
        let Some(entity) = entity else { continue };
        let checked = ClientError::check(result.error_code, result.error_message.as_deref(), || {
            entity.to_string()
        });
        let described = checked.map_err(Arc::new).map(|()| {
            let settings = result.configs.iter().map(|setting| Setting::of(entity, &setting));
            let mut settings: Vec<Setting> = settings.collect();
            settings.sort_by(|a, b| a.name.cmp(&b.name));
            settings
        });
        found.push((key, described));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_without_sources_is_understood_by_its_mark_for_defaults() {
        let topic = Entity::Topic("t".to_owned());
        let setting = |entity: &Entity, source: i8, is_default: bool| {
            let result = DescribeConfigsResourceResult {
                config_source: source,
                is_default,
                ..Default::default()
            };
            Setting::of(entity, &result)
        };
        assert!(setting(&topic, -1, true).is_default());
        assert!(setting(&topic, -1, false).is_of_topic());
        assert!(setting(&topic, 1, false).is_of(&topic));
        assert!(setting(&Entity::Broker(0), 2, false).is_of(&Entity::Broker(0)));
        assert!(!setting(&Entity::Broker(0), 3, false).is_of(&Entity::Broker(0)));
        assert_eq!(
            setting(&topic, 4, false).source.to_string(),
            "STATIC_BROKER_CONFIG"
        );
    }

    #[test]
    fn a_sensitive_value_is_hidden_and_one_that_is_not_set_is_empty() {
        let topic = Entity::Topic("t".to_owned());
        let shown = |value: Option<&'static str>, is_sensitive| {
            let result = DescribeConfigsResourceResult {
                value: value.map(Into::into),
                is_sensitive,
                ..Default::default()
            };
            Setting::of(&topic, &result).shown()
        };
        assert_eq!(shown(None, true), "(hidden)");
        assert_eq!(shown(None, false), "");
        assert_eq!(shown(Some("x"), false), "x");
    }
}
