//! `DynamicConfigManager`: settings that lie in the tree reach this broker, on start and whenever they change.
//!
//! Who changes settings writes `/config/{type}/{name}` and then a notification below `/config/changes`; every broker watches
//! that node's children, reads what the new ones name, and hands it on. A notification says only where to look: the settings
//! are always read anew, so one that comes late or twice does no harm. Notifications older than 15 minutes are deleted by
//! whoever sees them, so after a lost session everything is read again.
//!
//! How a broker starts with it:
//! ```text
//! let dynamic = Arc::new(DynamicConfigManager::new(broker_id, coordination, clock, config));
//! dynamic.initialize().await?;                    // before logs and sockets are opened
//! let config = dynamic.config();                  // Arc<ArcSwap<BrokerConfig>>: what handlers read, always the present one
//! let topics = dynamic.topic_configs().await?;    // for opening logs: those of topics that have settings of their own
//! ... open logs, partitions, coordinators ...
//! tokio::spawn(async move { let lost = dynamic.run(&listener).await; ... stop the broker ... });
//! ```
//! It promises the listener: after a change of a topic or of this broker is in the tree, one call that begins after it with
//! settings not older than it. Calls come one at a time, in the order of the notifications. What cannot be understood is
//! logged and left out, and never stops the broker. Settings of clients and users (quotas) are not looked at.
//!
//! Source classes: `DynamicConfigManager`, `ZkNodeChangeNotificationListener`, `ConfigHandler`, `DynamicBrokerConfig`.
//!
//! **Deviation:** a notification of this broker's settings that changes nothing calls nobody; Kafka looks for files that
//! changed in place, of which there are none here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use milena_engine::io::Clock;
use milena_engine::units::TimestampMs;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::{BrokerConfig, ConfigError, TopicConfig};
use crate::coordination::znodes::config::{DEFAULT_ENTITY, entity_path};
use crate::coordination::znodes::{self, ConfigChange, EntityConfig, EntityType, ZnodeError};
use crate::coordination::{Coordination, CoordinationError, ExpectedVersion, SessionEvent, Watch, join};

/// Age at which a notification is deleted.
pub const CHANGE_EXPIRATION_MS: i64 = 15 * 60 * 1000;

const TARGET: &str = "kafka.server.DynamicConfigManager";

/// What a broker does when settings change. Called on the task of [`DynamicConfigManager::run`]; must not block for long.
pub trait ConfigListener: Send + Sync {
    /// These are now the settings that the topic has of its own; none if it is gone. The listener resolves them against
    /// [`DynamicConfigManager::config`] for its logs, and lets the controller look for unclean leaders where they allow it.
    fn topic_changed(&self, topic: &str, config: &TopicConfig);

    /// The broker's own settings changed; [`DynamicConfigManager::config`] has `current` already. Every log is to be resolved
    /// again, limits of connections to be set.
    fn broker_changed(&self, previous: &BrokerConfig, current: &Arc<BrokerConfig>);
}

/// Why settings could not be read from the tree or written to it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigTreeError {
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    /// A topic's stored settings have a value that cannot be: guessing instead could delete records.
    #[error("settings of topic {topic} in the tree: {error}; correct or remove the setting")]
    Topic { topic: String, error: ConfigError },
}

/// The stored settings of one entity; none if it has no node.
pub(super) async fn stored_settings(
    coordination: &dyn Coordination,
    kind: EntityType,
    name: &str,
) -> Result<BTreeMap<String, String>, ConfigTreeError> {
    let path = entity_path(kind, name);
    let node = coordination.get(&path, None).await?;
    let data = node.as_ref().and_then(|node| node.data.as_deref());
    Ok(EntityConfig::decode(&path, data)?.0)
}

/// Which notifications were seen. Pure.
#[derive(Debug, Default)]
struct ChangeJournal {
    last_processed: Option<u64>,
    /// When the notifications that still lie in the tree were created, by name.
    created: HashMap<String, TimestampMs>,
}

impl ChangeJournal {
    /// The children (in order) that were not read yet, in the order of their numbers. Those that are gone are forgotten.
    fn unread(&mut self, children: &[String]) -> Vec<String> {
        self.created
            .retain(|name, _| children.binary_search(name).is_ok());
        let mut unread: Vec<&String> = children
            .iter()
            .filter(|name| !self.created.contains_key(*name))
            .collect();
        unread.sort_by_key(|name| (znodes::sequence_number(name), *name));
        unread.into_iter().cloned().collect()
    }

    /// Whether this notification, which was just read, is newer than all before.
    fn is_new(&mut self, name: &str, created: TimestampMs) -> bool {
        self.created.insert(name.to_owned(), created);
        let number = znodes::sequence_number(name);
        let is_new = number.is_some() && number > self.last_processed;
        if is_new {
            self.last_processed = number;
        }
        is_new
    }

    fn expired(&self, now: TimestampMs) -> Vec<String> {
        let is_old = |created: &TimestampMs| now.0.saturating_sub(created.0) > CHANGE_EXPIRATION_MS;
        let old = self.created.iter().filter(|(_, created)| is_old(created));
        let mut names: Vec<String> = old.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }
}

/// The broker's settings as the tree has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct StoredBrokerSettings {
    cluster_default: BTreeMap<String, String>,
    per_broker: BTreeMap<String, String>,
}

/// What wakes [`DynamicConfigManager::run`].
#[derive(Debug, Default)]
struct Signals {
    wake: Notify,
    /// The session was lost meanwhile: notifications may have come and gone.
    reload: AtomicBool,
}

/// Keeps the settings of this broker and its topics as the tree has them.
#[derive(Debug)]
pub struct DynamicConfigManager {
    broker_id: i32,
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    config: Arc<ArcSwap<BrokerConfig>>,
    /// What of the tree is in `config`.
    applied: Mutex<StoredBrokerSettings>,
    signals: Arc<Signals>,
}

impl DynamicConfigManager {
    /// `config` is what the broker was started with. `broker_id` is the real one, which `config` may not have.
    pub fn new(
        broker_id: i32,
        coordination: Arc<dyn Coordination>,
        clock: Arc<dyn Clock>,
        config: BrokerConfig,
    ) -> DynamicConfigManager {
        let signals = Arc::new(Signals::default());
        let heard = Arc::clone(&signals);
        coordination.listen(Arc::new(move |event| match event {
            SessionEvent::Connected => heard.wake.notify_one(),
            SessionEvent::Expired => heard.reload.store(true, Ordering::Release),
            SessionEvent::Disconnected | SessionEvent::AuthenticationFailed => {}
            SessionEvent::Lost(_) => heard.wake.notify_one(),
        }));
        DynamicConfigManager {
            broker_id,
            coordination,
            clock,
            config: Arc::new(ArcSwap::from_pointee(config)),
            applied: Mutex::default(),
            signals,
        }
    }

    /// The holder of the broker's present settings, those of the tree included.
    pub fn config(&self) -> Arc<ArcSwap<BrokerConfig>> {
        Arc::clone(&self.config)
    }

    /// Lays the broker's settings in the tree over those it was started with. Before logs and sockets are opened.
    ///
    /// # Errors
    /// The tree cannot be read. Stored settings that cannot be are logged and left out.
    pub async fn initialize(&self) -> Result<(), ConfigTreeError> {
        self.reload_broker().await.map(drop)
    }

    /// The settings of every topic that has any of its own.
    ///
    /// # Errors
    /// One of them cannot be: the broker does not start, as Kafka does not.
    pub async fn topic_configs(&self) -> Result<HashMap<String, TopicConfig>, ConfigTreeError> {
        let stored = self.stored_topics().await?;
        stored
            .into_iter()
            .map(|(topic, config)| Ok((topic, config?)))
            .collect()
    }

    /// Tells `listener` all settings of topics, then every change, for as long as the tree lives. Returns why it is lost.
    ///
    /// May be dropped at any point.
    pub async fn run(&self, listener: &dyn ConfigListener) -> CoordinationError {
        let mut journal = ChangeJournal::default();
        self.signals.reload.store(true, Ordering::Release);
        loop {
            let is_reload = self.signals.reload.swap(false, Ordering::AcqRel);
            let outcome = self.process(&mut journal, listener, is_reload).await;
            match outcome {
                Ok(()) => {}
                Err(error @ CoordinationError::Lost { .. }) => return error,
                Err(error) => {
                    // What was read and not applied is read again as part of everything.
                    self.signals.reload.store(true, Ordering::Release);
                    tracing::error!(
                        target: TARGET,
                        "Error while processing notification change for path = {}: {error}; goes on with the next \
                         session or change",
                        znodes::CONFIG_CHANGES
                    );
                }
            }
            self.signals.wake.notified().await;
        }
    }

    async fn process(
        &self,
        journal: &mut ChangeJournal,
        listener: &dyn ConfigListener,
        is_reload: bool,
    ) -> Result<(), CoordinationError> {
        let unread = journal.unread(&self.changes().await?);
        let paths = unread
            .iter()
            .map(|name| join(znodes::CONFIG_CHANGES, name))
            .collect();
        let nodes = self.coordination.get_many(paths).await?;
        let found = unread
            .iter()
            .zip(nodes)
            .filter_map(|(name, node)| Some((name, node?)));
        let mut changes = Vec::new();
        for (name, node) in found {
            if journal.is_new(name, node.stat.ctime) && !is_reload {
                changes.push((name, node.data));
            }
        }
        if is_reload {
            // Whatever the notifications name is read below, after they were.
            self.load_all(listener).await?;
        }
        for (name, data) in changes {
            let path = join(znodes::CONFIG_CHANGES, name);
            let Some(data) = data else {
                tracing::warn!(target: TARGET, "read null data from {path}");
                continue;
            };
            match ConfigChange::decode(&path, &data) {
                Ok(change) => self.apply(&change, listener).await?,
                Err(error) => {
                    tracing::error!(target: TARGET, "error processing change notification: {error}")
                }
            }
        }
        for name in journal.expired(self.clock.wall()) {
            let path = join(znodes::CONFIG_CHANGES, &name);
            tracing::debug!(target: TARGET, "Purging change notification {path}");
            match self.coordination.delete(&path, ExpectedVersion::Any).await {
                Ok(_) => drop(journal.created.remove(&name)),
                // The next look finds out whether it is still there; every broker tries.
                Err(CoordinationError::ConnectionLoss) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Names of the notifications, with a watch for the next one.
    async fn changes(&self) -> Result<Vec<String>, CoordinationError> {
        loop {
            let signals = Arc::clone(&self.signals);
            let watch: Watch = Box::new(move |_| signals.wake.notify_one());
            match self
                .coordination
                .children(znodes::CONFIG_CHANGES, Some(watch))
                .await?
            {
                Some(names) => return Ok(names),
                None => self.coordination.ensure(znodes::CONFIG_CHANGES).await?,
            }
        }
    }

    async fn load_all(&self, listener: &dyn ConfigListener) -> Result<(), CoordinationError> {
        self.broker_may_have_changed(listener).await?;
        let topics = match self.stored_topics().await {
            Ok(topics) => topics,
            Err(ConfigTreeError::Coordination(error)) => return Err(error),
            Err(error) => {
                tracing::error!(target: TARGET, "{error}");
                return Ok(());
            }
        };
        for (topic, config) in topics {
            match config {
                Ok(config) => self.tell_topic(&topic, &config, listener),
                Err(error) => tracing::error!(target: TARGET, "{error}"),
            }
        }
        Ok(())
    }

    async fn apply(
        &self,
        change: &ConfigChange,
        listener: &dyn ConfigListener,
    ) -> Result<(), CoordinationError> {
        match change.entity() {
            Some((EntityType::Topics, topic)) => {
                match stored_settings(self.coordination.as_ref(), EntityType::Topics, topic)
                    .await
                    .and_then(|stored| topic_config(topic, stored))
                {
                    Ok(config) => {
                        tracing::info!(
                            target: TARGET,
                            "Processing override for entityPath: {} with config: {}",
                            change.entity_path,
                            shown(config.overrides())
                        );
                        self.tell_topic(topic, &config, listener);
                    }
                    Err(ConfigTreeError::Coordination(error)) => return Err(error),
                    Err(error) => tracing::error!(target: TARGET, "{error}"),
                }
            }
            Some((EntityType::Brokers, name)) => {
                let is_ours = name == DEFAULT_ENTITY || name.trim().parse() == Ok(self.broker_id);
                if is_ours {
                    tracing::info!(
                        target: TARGET,
                        "Processing override for entityPath: {}", change.entity_path
                    );
                    self.broker_may_have_changed(listener).await?;
                }
            }
            Some((EntityType::Clients | EntityType::Users, _)) => tracing::debug!(
                target: TARGET,
                "{}: settings of clients and users have no effect", change.entity_path
            ),
            None => tracing::error!(
                target: TARGET,
                "error processing change notification: entity_path {} does not start with one of topics/, brokers/, \
                 clients/, users/",
                change.entity_path
            ),
        }
        Ok(())
    }

    fn tell_topic(&self, topic: &str, config: &TopicConfig, listener: &dyn ConfigListener) {
        if let Some(ignored) = config.ignored_override(&self.config.load()) {
            tracing::warn!(target: TARGET, "topic {topic}: {ignored}");
        }
        listener.topic_changed(topic, config);
    }

    async fn broker_may_have_changed(&self, listener: &dyn ConfigListener) -> Result<(), CoordinationError> {
        match self.reload_broker().await {
            Ok(Some((previous, current))) => listener.broker_changed(&previous, &current),
            Ok(None) => {}
            Err(ConfigTreeError::Coordination(error)) => return Err(error),
            Err(error) => tracing::error!(target: TARGET, "the broker's settings stay as they are: {error}"),
        }
        Ok(())
    }

    /// The settings before and after, if the tree has others than before.
    async fn reload_broker(&self) -> Result<Option<(Arc<BrokerConfig>, Arc<BrokerConfig>)>, ConfigTreeError> {
        let coordination = self.coordination.as_ref();
        let own = self.broker_id.to_string();
        let stored = StoredBrokerSettings {
            cluster_default: stored_settings(coordination, EntityType::Brokers, DEFAULT_ENTITY).await?,
            per_broker: stored_settings(coordination, EntityType::Brokers, &own).await?,
        };
        let mut applied = self.applied.lock();
        if *applied == stored {
            return Ok(None);
        }
        let previous = self.config.load_full();
        let (current, warnings) = previous.with_dynamic(&stored.cluster_default, &stored.per_broker);
        for warning in warnings {
            tracing::error!(target: "kafka.server.DynamicBrokerConfig", "{warning}");
        }
        let current = Arc::new(current);
        self.config.store(Arc::clone(&current));
        *applied = stored;
        Ok(Some((previous, current)))
    }

    /// Every topic that has a node of settings, by name.
    async fn stored_topics(
        &self,
    ) -> Result<Vec<(String, Result<TopicConfig, ConfigTreeError>)>, ConfigTreeError> {
        let directory = format!("/config/{}", EntityType::Topics.name());
        let topics = self
            .coordination
            .children(&directory, None)
            .await?
            .unwrap_or_default();
        let paths: Vec<String> = topics
            .iter()
            .map(|topic| entity_path(EntityType::Topics, topic))
            .collect();
        let nodes = self.coordination.get_many(paths.clone()).await?;
        let found = topics.into_iter().zip(paths).zip(nodes);
        let found = found.filter_map(|((topic, path), node)| {
            let data = node?.data;
            let stored = EntityConfig::decode(&path, data.as_deref()).map_err(ConfigTreeError::from);
            let config = stored.and_then(|stored| topic_config(&topic, stored.0));
            Some((topic, config))
        });
        Ok(found.collect())
    }
}

/// A topic's stored settings as a whole.
pub(super) fn topic_config(
    topic: &str,
    stored: BTreeMap<String, String>,
) -> Result<TopicConfig, ConfigTreeError> {
    TopicConfig::from_stored(stored).map_err(|error| ConfigTreeError::Topic {
        topic: topic.to_owned(),
        error,
    })
}

/// Kafka's way to print settings.
pub(super) fn shown(settings: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name} -> {value}"))
        .collect();
    format!("Map({})", pairs.join(", "))
}

#[cfg(test)]
mod tests;
