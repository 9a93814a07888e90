//! What follows from a change of settings: every log gets the settings that now hold for its topic, connections get their limits,
//! and replication its rates and its number of fetching threads.
//!
//! The settings that topics have of their own are remembered here, as last heard, so that a change of the broker's defaults can
//! be resolved against them, and the controller hears where an out-of-sync replica may lead (`TopicConfigHandler`,
//! `DynamicLogConfig`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use milena_engine::config::LogConfig;
use milena_engine::log::Log;
use milena_engine::log_manager::LogManager;
use parking_lot::Mutex;

use crate::admin::dynamic::ConfigListener;
use crate::config::{BrokerConfig, NetworkSettings, TopicConfig};
use crate::controller::Controller;
use crate::coordination::Coordination;
use crate::coordination::znodes::config::entity_path;
use crate::coordination::znodes::{EntityConfig, EntityType};
use crate::network::{ConnectionLimits, ConnectionQuota, ConnectionQuotas, RateWindows};
use crate::replication::ReplicaManager;
use crate::replication::replica_fetcher_manager::ReplicaFetcherManager;
use crate::replication::replication_quota_manager::{ReplicationRates, ThrottledReplicas};

const LOGGER: &str = "kafka.server.TopicConfigHandler";

/// The settings of topics.
#[derive(Debug)]
pub(crate) struct TopicConfigs {
    coordination: Arc<dyn Coordination>,
    broker: Arc<ArcSwap<BrokerConfig>>,
    own: Mutex<HashMap<String, TopicConfig>>,
}

impl TopicConfigs {
    /// `own` are the settings that topics have of their own.
    pub(crate) fn new(
        coordination: Arc<dyn Coordination>,
        broker: Arc<ArcSwap<BrokerConfig>>,
        own: HashMap<String, TopicConfig>,
    ) -> TopicConfigs {
        TopicConfigs {
            coordination,
            broker,
            own: Mutex::new(own),
        }
    }

    /// What holds for a topic, from what was last heard.
    pub(super) fn resolved(&self, topic: &str) -> Arc<LogConfig> {
        let broker = self.broker.load();
        let own = self.own.lock();
        Arc::new(
            own.get(topic)
                .map_or_else(|| broker.topic_defaults.clone(), |config| config.resolve(&broker)),
        )
    }

    /// Tells the quotas of replication which replicas of a topic are throttled, from what was last heard.
    pub(super) fn throttle(&self, topic: &str, replicas: &ReplicaManager) {
        let throttled = |name: &str| {
            let own = self.own.lock();
            let list = own.get(topic)?.overrides().get(name)?;
            ThrottledReplicas::parse(list, replicas.broker_id())
        };
        let quotas = replicas.quotas();
        let leader = throttled("leader.replication.throttled.replicas");
        quotas.leader.set_throttled(topic, leader.as_ref());
        let follower = throttled("follower.replication.throttled.replicas");
        quotas.follower.set_throttled(topic, follower.as_ref());
    }

    /// Gives a log what holds for its topic, from what was last heard.
    pub(super) fn apply(&self, topic: &str, log: &Log) {
        let config = self.resolved(topic);
        if *log.config() != *config
            && let Err(error) = log.update_config(config)
        {
            tracing::error!(target: LOGGER, "the settings of {} cannot be changed: {error}", log.partition());
        }
    }

    /// The topic is deleted.
    pub(super) fn forget(&self, topic: &str) {
        self.own.lock().remove(topic);
    }

    /// What holds for a topic that may be new: reads the tree. Settings that cannot be used are logged, and the defaults hold.
    pub(super) async fn read(&self, topic: &str) -> Arc<LogConfig> {
        let path = entity_path(EntityType::Topics, topic);
        let stored = self
            .coordination
            .get(&path, None)
            .await
            .map_err(|error| error.to_string());
        let parsed = stored.and_then(|node| {
            let data = node.and_then(|node| node.data);
            let stored = EntityConfig::decode(&path, data.as_deref()).map_err(|error| error.to_string())?;
            TopicConfig::from_stored(stored.0).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(config) => drop(self.own.lock().insert(topic.to_owned(), config)),
            Err(reason) => {
                tracing::error!(target: LOGGER, "the settings of topic {topic} cannot be used: {reason}")
            }
        }
        self.resolved(topic)
    }
}

/// The limits of connections, host names resolved.
pub(super) fn connection_quotas(config: &BrokerConfig) -> ConnectionQuotas {
    use std::net::ToSocketAddrs;
    let settings = &config.network;
    let mut per_address_overrides = HashMap::new();
    for (host, count) in &settings.max_connections_per_ip_overrides {
        match (host.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => per_address_overrides.extend(addresses.map(|address| (address.ip(), *count))),
            Err(error) => tracing::warn!(
                target: "kafka.network.SocketServer",
                "max.connections.per.ip.overrides: {host} has no address, its limit has no effect: {error}"
            ),
        }
    }
    let quota = |&(connections_max, creation_rate_max): &(u32, u32)| ConnectionQuota {
        connections_max,
        creation_rate_max,
    };
    let own = settings.listener_connections.iter();
    ConnectionQuotas {
        broker: quota(&(settings.max_connections, settings.max_connection_creation_rate)),
        listeners: own
            .map(|(name, limits)| (name.as_str().into(), quota(limits)))
            .collect(),
        per_address_max: settings.max_connections_per_ip,
        per_address_overrides,
        protected_listener: (config.listeners.len() > 1)
            .then(|| config.inter_broker_listener_name.as_str().into()),
    }
}

pub(super) fn rate_windows(settings: &NetworkSettings) -> RateWindows {
    RateWindows {
        count: settings.quota_window_num,
        size: Duration::from_secs(settings.quota_window_size_seconds.into()),
    }
}

/// The rates in the words of the quotas.
pub(super) fn replication_rates(config: &BrokerConfig) -> ReplicationRates {
    let throttles = config.replication.throttles;
    ReplicationRates {
        leader: throttles.leader,
        follower: throttles.follower,
        alter_log_dirs: throttles.alter_log_dirs,
    }
}

/// Carries changes to the logs, the acceptors, the controller and replication.
#[derive(Debug)]
pub(super) struct Reconfigure {
    pub(super) configs: Arc<TopicConfigs>,
    pub(super) logs: Arc<LogManager>,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) controller: Controller,
    pub(super) replicas: Arc<ReplicaManager>,
    /// Where there are other brokers to follow.
    pub(super) fetchers: Option<Arc<ReplicaFetcherManager>>,
    /// Opens and closes listeners, and tells others where the broker is reached from now on.
    pub(super) listen: Listen,
}

/// What is done when `listeners` or `advertised.listeners` may be other ones.
pub(super) struct Listen(pub(super) Box<dyn Fn(&BrokerConfig) + Send + Sync>);

impl std::fmt::Debug for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listen")
    }
}

impl ConfigListener for Reconfigure {
    fn topic_changed(&self, topic: &str, config: &TopicConfig) {
        self.configs.own.lock().insert(topic.to_owned(), config.clone());
        self.configs.throttle(topic, &self.replicas);
        for (_, log) in self.logs.logs_of_topic(topic) {
            self.configs.apply(topic, &log);
        }
        let own = config.overrides().get("unclean.leader.election.enable");
        if own.is_some_and(|own| own.trim().eq_ignore_ascii_case("true")) {
            self.controller.enable_topic_unclean_leader_election(topic);
        }
    }

    fn broker_changed(&self, previous: &BrokerConfig, current: &Arc<BrokerConfig>) {
        if previous.network != current.network || previous.listeners != current.listeners {
            tracing::info!(target: "kafka.network.SocketServer", "Updating limits of connections: {:?}", current.network);
            self.limits.update(connection_quotas(current));
        }
        (self.listen.0)(current);
        self.replicas.quotas().set_rates(replication_rates(current));
        let count = current.replication.fetcher_count;
        if let Some(fetchers) = &self.fetchers
            && previous.replication.fetcher_count != count
            && let Err(error) = fetchers.resize(count as usize)
        {
            tracing::error!(target: "kafka.server.ReplicaFetcherManager", "cannot have {count} fetchers: {error}");
        }
        let logs = self.logs.logs().into_iter().chain(self.logs.futures());
        for (partition, log) in logs {
            self.configs.apply(&partition.topic, &log);
        }
        let unclean = current.topic_defaults.unclean_leader_election_enable;
        self.controller.set_unclean_leader_election(unclean);
    }
}
