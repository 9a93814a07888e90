//! Settings that change while the broker runs: which may, at which level, and what results.
//!
//! The check of AlterConfigs for brokers, strict, and the reading of what is stored in the tree, lenient: what cannot be
//! applied is left out with a warning. Behaviour of `DynamicBrokerConfig.scala`, `DynamicConfig.scala`.
//!
//! Applied while running: everything that stands in for topic settings, `message.max.bytes` and the connection limits, those
//! of single listeners too, listeners, their protocols, and what is advertised. The rest of the dynamic settings is accepted if it has
//! no effect here anyway, and refused otherwise: what belongs to SSL and SASL.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ConfigError;
use super::broker::BrokerConfig;
use super::checks;
use super::definition::{
    Definition, DynamicKind, broker_definition, broker_definitions, dynamic_only_definitions,
};
use super::load::Warning;
use super::sources::Sources;

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

/// Where the broker is reached, which may change while it runs.
const LISTENER_SETTINGS: [&str; 3] = [
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
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
            match checks::build(Arc::new(sources)) {
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
        let next = checks::build(Arc::new(sources)).map_err(|faults| {
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
            if is_listener_limit(name) || LISTENER_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            if (per_broker_setting || listener_setting(name).is_some()) && !unchanged {
                return Err(ConfigError::not_allowed(format!(
                    "Invalid dynamic configuration: {name} cannot be changed while this broker runs; set it in the \
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
        "Security configs can be dynamically updated only using listener prefix, base configs will be ignored",
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

#[cfg(test)]
mod tests;
