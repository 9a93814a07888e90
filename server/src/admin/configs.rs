//! `ConfigAdmin`: settings of topics and brokers as clients see and change them.
//!
//! Levels of loggers lie in no tree: they are this process's own, and gone with it ([`crate::logging`]).
//!
//! Describing a topic reads the tree; describing the broker shows what holds now, which a change reaches a moment after it was
//! acknowledged ([`super::dynamic`]). A change is checked as a whole, and then written with its notification in one
//! transaction: on success it is durable and every broker will hear of it, on failure nothing happened (but for a lost
//! connection to the tree, after which nobody knows). Two changes of one resource at a time do not lose one another.
//!
//! Errors carry Kafka's texts. Source classes: `AdminManager`, `AdminZkClient`.
//!
//! **Deviation:** Kafka writes settings and notification one after the other and lets concurrent changes of one resource
//! overwrite each other, and can leave settings behind for a topic that is deleted meanwhile; here none of it can happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::check_topic_name;
use super::dynamic::{ConfigTreeError, shown, stored_settings, topic_config};
use crate::config::{
    AlterOperation, AlterOperationType, BrokerConfig, ConfigEntry, ConfigError, ConfigErrorKind,
    ConfigSource, DynamicLevel, TopicConfig, apply_operations, broker_definition, topic_setting,
    usable_dynamic_settings,
};
use crate::coordination::znodes::config::{DEFAULT_ENTITY, entity_path};
use crate::coordination::znodes::{self, ConfigChange, EntityConfig, EntityType};
use crate::coordination::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, parent,
};
use crate::logging::{LoggerLevel, Loggers, ROOT};
use crate::metadata_cache::MetadataCache;

const TARGET: &str = "kafka.server.AdminManager";

/// What settings belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigResourceType {
    Topic,
    Broker,
    BrokerLogger,
    Unknown,
}

impl ConfigResourceType {
    /// From the wire; what 2.7.2 does not know is [`ConfigResourceType::Unknown`].
    pub const fn from_id(id: i8) -> ConfigResourceType {
        match id {
            2 => ConfigResourceType::Topic,
            4 => ConfigResourceType::Broker,
            8 => ConfigResourceType::BrokerLogger,
            _ => ConfigResourceType::Unknown,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            ConfigResourceType::Topic => "TOPIC",
            ConfigResourceType::Broker => "BROKER",
            ConfigResourceType::BrokerLogger => "BROKER_LOGGER",
            ConfigResourceType::Unknown => "UNKNOWN",
        }
    }
}

/// One topic, one broker (an empty name: all of them), or the loggers of one broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConfigResource {
    pub resource_type: ConfigResourceType,
    pub name: String,
}

/// Why settings are not told or changed. The text is Kafka's; `None` leaves it to the error code.
#[derive(Debug, thiserror::Error)]
pub enum ConfigAdminError {
    #[error("{0}")]
    InvalidTopicName(String),
    #[error("{}", .0.as_deref().unwrap_or("unknown topic"))]
    UnknownTopic(Option<String>),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    InvalidConfig(String),
    /// The tree could not be read or written.
    #[error(transparent)]
    Tree(#[from] ConfigTreeError),
}

impl From<CoordinationError> for ConfigAdminError {
    fn from(error: CoordinationError) -> ConfigAdminError {
        ConfigAdminError::Tree(error.into())
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ConfigAdminError> {
    Err(ConfigAdminError::InvalidRequest(message.into()))
}

/// A resource whose settings lie in the tree.
#[derive(Clone, Copy, Debug)]
enum Stored<'a> {
    Topic(&'a str),
    Broker(DynamicLevel),
}

/// Tells and changes settings.
#[derive(Debug)]
pub struct ConfigAdmin {
    broker_id: i32,
    coordination: Arc<dyn Coordination>,
    metadata: Arc<MetadataCache>,
    config: Arc<ArcSwap<BrokerConfig>>,
    loggers: Arc<Loggers>,
}

impl ConfigAdmin {
    /// `config` is [`super::dynamic::DynamicConfigManager::config`].
    pub fn new(
        broker_id: i32,
        coordination: Arc<dyn Coordination>,
        metadata: Arc<MetadataCache>,
        config: Arc<ArcSwap<BrokerConfig>>,
        loggers: Arc<Loggers>,
    ) -> ConfigAdmin {
        ConfigAdmin {
            broker_id,
            coordination,
            metadata,
            config,
            loggers,
        }
    }

    /// All settings of a resource.
    pub async fn describe(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, ConfigAdminError> {
        let name = resource.name.as_str();
        let unexpected = |expected: String| {
            invalid(format!(
                "Unexpected broker id, expected {expected} but received {name}"
            ))
        };
        match resource.resource_type {
            ConfigResourceType::Topic => {
                check_topic_name(name).map_err(ConfigAdminError::InvalidTopicName)?;
                if !self.metadata.contains_topic(name) {
                    return Err(ConfigAdminError::UnknownTopic(None));
                }
                let stored = stored_settings(self.coordination.as_ref(), EntityType::Topics, name).await?;
                let topic = topic_config(name, stored)?;
                Ok(self.config.load().describe_topic(&topic))
            }
            ConfigResourceType::Broker if name.is_empty() => {
                Ok(self.config.load().describe_cluster_default())
            }
            ConfigResourceType::Broker if broker_id(name)? == self.broker_id => {
                Ok(self.config.load().describe())
            }
            ConfigResourceType::Broker => unexpected(format!("{} or empty string,", self.broker_id)),
            ConfigResourceType::BrokerLogger if name.is_empty() => invalid("Broker id must not be empty"),
            ConfigResourceType::BrokerLogger if broker_id(name)? == self.broker_id => {
                let loggers = self.loggers.list().into_iter();
                Ok(loggers.map(|(name, level)| logger_entry(name, level)).collect())
            }
            ConfigResourceType::BrokerLogger => unexpected(self.broker_id.to_string()),
            ConfigResourceType::Unknown => invalid("Unsupported resource type: UNKNOWN"),
        }
    }

    /// Makes `settings` the whole of a resource's settings (AlterConfigs); with `validate_only` it is only checked.
    pub async fn alter(
        &self,
        resource: &ConfigResource,
        settings: &[(String, Option<String>)],
        validate_only: bool,
    ) -> Result<(), ConfigAdminError> {
        let without_value: Vec<&str> = settings
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        if !without_value.is_empty() {
            return invalid(format!(
                "Null value not supported for : {}",
                without_value.join(",")
            ));
        }
        let settings: BTreeMap<String, String> = settings
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect();
        let stored = match resource.resource_type {
            ConfigResourceType::Topic => Stored::Topic(&resource.name),
            ConfigResourceType::Broker => Stored::Broker(self.broker_level(&resource.name)?),
            other => return unsupported(other),
        };
        self.change(resource, stored, validate_only, |_| Ok(settings.clone()))
            .await
    }

    /// Changes some of a resource's settings (IncrementalAlterConfigs); with `validate_only` it is only checked.
    pub async fn alter_incrementally(
        &self,
        resource: &ConfigResource,
        operations: &[AlterOperation],
        validate_only: bool,
    ) -> Result<(), ConfigAdminError> {
        // What is wrong with the operations as such comes before everything that is wrong with the resource.
        let applied = apply_operations(&BTreeMap::new(), operations, |_| None);
        if let Err(ConfigError::InvalidRequest { message }) = applied {
            return invalid(message);
        }
        match resource.resource_type {
            ConfigResourceType::Topic => {
                let stored = Stored::Topic(&resource.name);
                let make = |now: &BTreeMap<String, String>| apply_operations(now, operations, topic_setting);
                self.change(resource, stored, validate_only, make).await
            }
            ConfigResourceType::Broker => {
                let level = self.broker_level(&resource.name)?;
                let make = |now: &BTreeMap<String, String>| {
                    apply_operations(
                        &usable_dynamic_settings(level, now),
                        operations,
                        broker_definition,
                    )
                };
                self.change(resource, Stored::Broker(level), validate_only, make)
                    .await
            }
            ConfigResourceType::BrokerLogger => {
                self.broker_level(&resource.name)?;
                self.alter_loggers(resource, operations, validate_only)
            }
            other => unsupported(other),
        }
    }

    fn broker_level(&self, name: &str) -> Result<DynamicLevel, ConfigAdminError> {
        if name.is_empty() {
            Ok(DynamicLevel::ClusterDefault)
        } else if broker_id(name)? == self.broker_id {
            Ok(DynamicLevel::Broker)
        } else {
            let expected = self.broker_id;
            invalid(format!(
                "Unexpected broker id, expected {expected}, but received {name}"
            ))
        }
    }

    fn alter_loggers(
        &self,
        resource: &ConfigResource,
        operations: &[AlterOperation],
        validate_only: bool,
    ) -> Result<(), ConfigAdminError> {
        let wrong = |message: String| {
            let (_, message) =
                ConfigError::not_allowed(message).alter_answer(resource.resource_type.name(), &resource.name);
            tracing::info!(target: TARGET, "{message}");
            invalid(message)
        };
        let mut changes = Vec::new();
        for AlterOperation {
            name,
            operation,
            value,
        } in operations
        {
            let is_known = self.loggers.contains(name);
            match operation {
                AlterOperationType::Set | AlterOperationType::Delete if !is_known => {
                    return wrong(format!("Logger {name} does not exist!"));
                }
                AlterOperationType::Set => {
                    let text = value.as_deref().unwrap_or_default();
                    let Some(level) = LoggerLevel::from_name(text) else {
                        return wrong(format!(
                            "Cannot set the log level of {name} to {text} as it is not a supported log level. \
                             Valid log levels are {}",
                            LoggerLevel::CHOICES.map(LoggerLevel::name).join(", ")
                        ));
                    };
                    changes.push((name.clone(), Some(level)));
                }
                AlterOperationType::Delete if name == ROOT => {
                    return invalid(format!(
                        "Removing the log level of the {ROOT} logger is not allowed"
                    ));
                }
                AlterOperationType::Delete => changes.push((name.clone(), None)),
                AlterOperationType::Append | AlterOperationType::Subtract => {
                    return invalid(format!(
                        "{} operation is not allowed for the BROKER_LOGGER resource",
                        operation.name()
                    ));
                }
            }
        }
        if !validate_only {
            for (logger, level) in &changes {
                let level = level.map_or("that of its ancestors", LoggerLevel::name);
                tracing::info!(target: TARGET, "The level of logger {logger} is now {level}");
            }
            self.loggers.set(changes);
        }
        Ok(())
    }

    /// Checks what `make` makes of the stored settings, and writes it.
    async fn change(
        &self,
        resource: &ConfigResource,
        stored: Stored<'_>,
        validate_only: bool,
        make: impl Fn(&BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError>,
    ) -> Result<(), ConfigAdminError> {
        let (kind, name) = match stored {
            Stored::Topic(topic) => (EntityType::Topics, topic.to_owned()),
            Stored::Broker(DynamicLevel::Broker) => (EntityType::Brokers, self.broker_id.to_string()),
            Stored::Broker(DynamicLevel::ClusterDefault) => (EntityType::Brokers, DEFAULT_ENTITY.to_owned()),
        };
        let refuse = |error: ConfigError| {
            let (kind, message) = error.alter_answer(resource.resource_type.name(), &resource.name);
            tracing::info!(target: TARGET, "{message}");
            match kind {
                ConfigErrorKind::InvalidRequest => ConfigAdminError::InvalidRequest(message),
                ConfigErrorKind::InvalidConfig => ConfigAdminError::InvalidConfig(message),
            }
        };
        if let Stored::Topic(topic) = stored
            && !self.metadata.contains_topic(topic)
        {
            make(&BTreeMap::new()).map_err(refuse)?;
            let message = format!("The topic '{topic}' does not exist.");
            return Err(ConfigAdminError::UnknownTopic(Some(message)));
        }
        let path = entity_path(kind, &name);
        // What was written when the connection was lost, and the version that it then has.
        let mut unknown: Option<(Bytes, i32)> = None;
        loop {
            let node = self.coordination.get(&path, None).await?;
            let data = node.as_ref().and_then(|node| node.data.as_deref());
            if let (Some((written, version)), Some(node)) = (unknown.take(), &node)
                && (node.stat.version, data) == (version, Some(&*written))
            {
                return Ok(());
            }
            let now = EntityConfig::decode(&path, data).map_err(ConfigTreeError::from)?;
            let next = make(&now.0).map_err(refuse)?;
            let mut operations = Vec::new();
            match stored {
                Stored::Topic(topic) => {
                    check_topic_name(topic).map_err(ConfigAdminError::InvalidTopicName)?;
                    operations.push(self.check_topic(topic).await?);
                    TopicConfig::parse(next.clone()).map_err(refuse)?;
                }
                Stored::Broker(level) => {
                    self.config
                        .load()
                        .validate_dynamic(level, &next)
                        .map_err(refuse)?;
                }
            }
            if validate_only {
                return Ok(());
            }
            match stored {
                Stored::Topic(topic) => tracing::info!(
                    target: TARGET,
                    "Updating topic {topic} with new configuration {}", shown(&next)
                ),
                Stored::Broker(_) => tracing::info!(target: TARGET, "Updating settings of brokers/{name}"),
            }
            let data = EntityConfig(next).encode();
            operations.push(match &node {
                Some(node) => {
                    Operation::set(&*path, data.clone(), ExpectedVersion::Exactly(node.stat.version))
                }
                None => Operation::create(&*path, Some(data.clone())),
            });
            operations.push(Operation::Create {
                path: znodes::CONFIG_CHANGE_PREFIX.to_owned(),
                data: Some(ConfigChange::new(kind, &name).encode()),
                mode: CreateMode::PersistentSequential,
            });
            match self.coordination.multi(operations).await {
                Ok(_) => return Ok(()),
                Err(MultiError {
                    error: CoordinationError::BadVersion { .. } | CoordinationError::NodeExists { .. },
                    ..
                }) => {}
                Err(MultiError {
                    error: CoordinationError::ConnectionLoss,
                    ..
                }) => unknown = Some((data, node.map_or(0, |node| node.stat.version + 1))),
                Err(MultiError {
                    error: CoordinationError::NoNode { .. },
                    ..
                }) => {
                    let directory = parent(&path).expect("a path of settings has three names");
                    self.coordination
                        .ensure_all(&[directory, znodes::CONFIG_CHANGES])
                        .await?;
                }
                Err(failed) => return Err(failed.error.into()),
            }
        }
    }

    /// Fails the transaction if the topic is gone by then.
    async fn check_topic(&self, topic: &str) -> Result<Operation, ConfigAdminError> {
        let path = znodes::topic(topic);
        match self.coordination.get(&path, None).await? {
            Some(node) => Ok(Operation::Check {
                path,
                version: node.stat.version,
            }),
            None => {
                let message = format!("Topic '{topic}' does not exist.");
                Err(ConfigAdminError::UnknownTopic(Some(message)))
            }
        }
    }
}

fn logger_entry(name: String, level: LoggerLevel) -> ConfigEntry {
    ConfigEntry {
        name,
        value: Some(level.name().to_owned()),
        source: ConfigSource::DynamicBrokerLogger,
        read_only: false,
        is_sensitive: false,
        synonyms: Vec::new(),
        value_type: None,
        documentation: None,
    }
}

fn broker_id(name: &str) -> Result<i32, ConfigAdminError> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
    }
}

fn unsupported<T>(resource_type: ConfigResourceType) -> Result<T, ConfigAdminError> {
    invalid(format!(
        "AlterConfigs is only supported for topics and brokers, but resource type is {}",
        resource_type.name()
    ))
}

#[cfg(test)]
mod tests;
