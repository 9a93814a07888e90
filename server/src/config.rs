//! `server.properties` and everything that may stand in its place: Kafka's keys, defaults, checks and words.
//!
//! [`BrokerConfig::load`] makes one checked, typed value of a file, `--override`s and the environment, or
//! names every problem with its place. [`BrokerConfig::with_dynamic`] lays the settings stored in the tree
//! over it and gives a new value; nothing here is ever changed in place. [`TopicConfig`] is the same for one
//! topic. Describing both for DescribeConfigs and checking changes for AlterConfigs are here too, with
//! Kafka's texts, but no wire types are.
//!
//! Behaviour of `KafkaConfig.scala`, `LogConfig.scala`, `DynamicBrokerConfig.scala`, `AbstractConfig.java` at
//! 2.7.2.

mod alter_operation;
mod api_version;
mod broker;
mod checks;
mod definition;
mod describe;
mod dynamic;
mod environment;
mod inter_broker_versions;
mod jaas;
mod listener;
mod load;
mod properties;
mod sources;
mod topic;
mod value;
mod zookeeper;

pub use alter_operation::{AlterOperation, AlterOperationType, apply_operations, topic_setting};
pub use api_version::ApiVersion;
pub use broker::{
    BrokerConfig, ControlledShutdownSettings, FetchSettings, GroupSettings, IoBackend, LogManagerSettings,
    NetworkSettings, OffsetsSettings, QuotaWindowSettings, TopicManagementSettings, TransactionSettings,
    ZooKeeperSettings, ZooKeeperTls,
};
pub use definition::{
    Definition, DynamicKind, Effect, Importance, Limits, TopicDefinition, broker_definition,
    broker_definitions, suggestion, topic_definition, topic_definitions,
};
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym};
pub use dynamic::{DynamicLevel, usable_dynamic_settings};
pub use inter_broker_versions::InterBrokerVersions;
pub use listener::{EndPoint, ListenerName, local_host_name};
pub use load::{LoadError, Place, Problem, Warning};
pub use properties::{PropertiesError, Property, parse_properties};
pub use topic::TopicConfig;
pub use value::{Value, ValueType};

/// Why one setting, or several together, cannot be. The text is Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Kafka's ConfigException: the text has not the type, or lies outside the limits. In AlterConfigs it
    /// becomes INVALID_REQUEST behind [`ConfigError::alter_message`]'s prefix, in CreateTopics
    /// INVALID_CONFIG.
    #[error("Invalid value {found} for configuration {name}: {problem}")]
    Value {
        name: String,
        found: String,
        problem: String,
    },
    /// INVALID_CONFIG everywhere.
    #[error("Unknown topic config name: {name}")]
    UnknownTopicConfig { name: String },
    /// Topic settings that contradict each other: INVALID_CONFIG everywhere.
    #[error("{message}")]
    TopicConflict { message: String },
    /// Settings that contradict each other or may not be changed here (Kafka's IllegalArgumentException and
    /// nameless ConfigException): as [`ConfigError::Value`].
    #[error("{message}")]
    NotAllowed { message: String },
    /// The request itself is wrong (Kafka's InvalidRequestException): INVALID_REQUEST with this text alone.
    #[error("{message}")]
    InvalidRequest { message: String },
}

/// The protocol error that a [`ConfigError`] becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// Error 40, INVALID_CONFIG.
    InvalidConfig,
    /// Error 42, INVALID_REQUEST.
    InvalidRequest,
}

impl ConfigError {
    pub(crate) fn value(name: &str, found: String, problem: String) -> ConfigError {
        ConfigError::Value {
            name: name.to_owned(),
            found,
            problem,
        }
    }

    pub(crate) fn not_allowed(message: impl Into<String>) -> ConfigError {
        ConfigError::NotAllowed {
            message: message.into(),
        }
    }

    /// What CreateTopics answers: everything wrong with a setting is INVALID_CONFIG.
    pub fn create_kind(&self) -> ConfigErrorKind {
        match self {
            ConfigError::InvalidRequest { .. } => ConfigErrorKind::InvalidRequest,
            _ => ConfigErrorKind::InvalidConfig,
        }
    }

    /// What AlterConfigs and IncrementalAlterConfigs answer for a resource: error and text.
    ///
    /// `resource_type` is `TOPIC` or `BROKER`.
    pub fn alter_answer(&self, resource_type: &str, resource_name: &str) -> (ConfigErrorKind, String) {
        match self {
            ConfigError::Value { .. } | ConfigError::NotAllowed { .. } => (
                ConfigErrorKind::InvalidRequest,
                format!(
                    "Invalid config value for resource ConfigResource(type={resource_type}, \
                     name='{resource_name}'): {self}"
                ),
            ),
            ConfigError::UnknownTopicConfig { .. } | ConfigError::TopicConflict { .. } => {
                (ConfigErrorKind::InvalidConfig, self.to_string())
            }
            ConfigError::InvalidRequest { .. } => (ConfigErrorKind::InvalidRequest, self.to_string()),
        }
    }
}
