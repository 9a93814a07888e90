//! From layers of texts to one checked [`BrokerConfig`]: types, limits, what is refused here, cross-field
//! checks.
//!
//! The cross-field checks are those of `KafkaConfig.validateValues`, with Kafka's texts. All problems are
//! gathered, so that a file is mended in one go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::config::Codec;

use crate::cluster::SecurityProtocol;

use super::ConfigError;
use super::api_version::ApiVersion;
use super::broker::{
    BrokerConfig, ControlledShutdownSettings, FetchSettings, GroupSettings, IoBackend, LeaderBalanceSettings,
    LogManagerSettings, LogOutput, NetworkSettings, OffsetsSettings, QuotaWindowSettings,
    ReplicationSettings, ReplicationThrottles, TopicManagementSettings, TransactionSettings,
};
use super::definition::{Effect, RACK_AWARE_REPLICA_SELECTOR, broker_definition, broker_definitions};
use super::dynamic::is_listener_limit;
use super::listener::{EndPoint, ListenerName, Ports, SecurityProtocolMap, is_valid_host, parse_listeners};
use super::sources::{Sources, Values};
use super::topic;
use super::value::Value;
use super::zookeeper;

/// What `listeners` and `advertised.listeners` may be.
const ENDPOINTS: &str =
    "NAME://host:port, separated by commas, each name one of listener.security.protocol.map";
/// What to do about 0.0.0.0.
const REACHABLE: &str = "in advertised.listeners, an address that clients can reach; listeners=PLAINTEXT://:9092 \
                         listens on every interface and advertises the name of this machine";

/// One thing that is wrong, and the setting that a message should point to.
pub(super) struct Fault {
    pub(super) key: Option<String>,
    pub(super) error: ConfigError,
    /// What would be right, if the text does not say so already.
    pub(super) allowed: Option<String>,
}

/// Gathers what is wrong.
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.add_allowing(key, message, None);
    }

    fn add_allowing(&mut self, key: &str, message: impl Into<String>, allowed: Option<&str>) {
        self.0.push(Fault {
            key: Some(key.to_owned()),
            error: ConfigError::not_allowed(message),
            allowed: allowed.map(str::to_owned),
        });
    }

    fn require_allowing(&mut self, holds: bool, key: &str, message: &str, allowed: String) {
        if !holds {
            self.add_allowing(key, message, Some(&allowed));
        }
    }

    fn require(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.add(key, message);
        }
    }
}

/// Builds and checks.
///
/// # Errors
/// Everything that is wrong, at least one entry.
pub(super) fn build(sources: Arc<Sources>) -> Result<BrokerConfig, Vec<Fault>> {
    let mut faults = Faults(Vec::new());
    let values = sources.values(|definition, error| {
        faults.0.push(Fault {
            key: Some(definition.name.to_owned()),
            error,
            allowed: Some(definition.allowed()),
        });
    });
    refuse_what_is_not_built(&sources, &mut faults);
    // What is wrong already is a default here; compared with that, other values would be blamed for it.
    if faults.0.is_empty() {
        check_fields_together(&values, &mut faults);
    }
    check_compression_type(&values, &mut faults);
    let listeners = check_listeners(&sources, &values, &mut faults);
    let topic_defaults = match topic::broker_defaults(&values) {
        Ok(defaults) => Some(topic::log_config(|name| topic::from_defaults(&defaults, name))),
        Err((key, error)) => {
            // After a fault above this one may be its echo.
            if faults.0.is_empty() {
                faults.0.push(Fault {
                    key: Some(key.to_owned()),
                    error,
                    allowed: None,
                });
            }
            None
        }
    };
    let codec = offsets_codec(&values, &mut faults);
    let overrides = connection_overrides(&values, &mut faults);
    let listener_connections = listener_connections(&sources, &values, &mut faults);
    let zookeeper = zookeeper::settings(&values, |key, message, allowed| {
        faults.add_allowing(key, message, allowed);
    });
    let log_dirs = log_dirs(&values);
    faults.require(
        !log_dirs.is_empty(),
        "log.dirs",
        "At least one log directory must be defined via log.dirs or log.dir.",
    );
    match (listeners, topic_defaults, codec, overrides) {
        (Some(listeners), Some(topic_defaults), Some(codec), Some(overrides)) if faults.0.is_empty() => {
            let broker_id = values.i32("broker.id");
            Ok(BrokerConfig {
                broker_id: (broker_id >= 0).then_some(broker_id),
                reserved_broker_max_id: values.i32("reserved.broker.max.id"),
                zookeeper,
                rack: values.text("broker.rack").map(str::to_owned),
                listeners: listeners.bound,
                advertised_listeners: listeners.advertised,
                inter_broker_listener_name: listeners.inter_broker,
                control_plane_listener_name: listeners.control_plane,
                inter_broker_protocol_version: version(&values, "inter.broker.protocol.version"),
                log_dirs,
                network: network(&values, overrides, listener_connections),
                logs: logs(&values),
                topic_defaults,
                topics: TopicManagementSettings {
                    auto_create_topics_enable: values.boolean("auto.create.topics.enable"),
                    delete_topic_enable: values.boolean("delete.topic.enable"),
                    num_partitions: values.i32("num.partitions"),
                    default_replication_factor: values.i32("default.replication.factor"),
                },
                group: GroupSettings {
                    min_session_timeout_ms: values.i32("group.min.session.timeout.ms"),
                    max_session_timeout_ms: values.i32("group.max.session.timeout.ms"),
                    initial_rebalance_delay_ms: values.i32("group.initial.rebalance.delay.ms"),
                    max_size: values.u32("group.max.size"),
                },
                offsets: offsets(&values, codec),
                transactions: TransactionSettings {
                    state_log_min_isr: values.u32("transaction.state.log.min.isr"),
                    state_log_replication_factor: short(&values, "transaction.state.log.replication.factor"),
                    state_log_num_partitions: values.i32("transaction.state.log.num.partitions"),
                    state_log_segment_bytes: values.i32("transaction.state.log.segment.bytes"),
                },
                fetch: FetchSettings {
                    is_rack_aware: values.text("replica.selector.class") == Some(RACK_AWARE_REPLICA_SELECTOR),
                    max_bytes: values.u32("fetch.max.bytes"),
                    max_incremental_session_cache_slots: values
                        .u32("max.incremental.fetch.session.cache.slots"),
                },
                leader_balance: leader_balance(&values),
                replication: replication(&sources, &values),
                controlled_shutdown: ControlledShutdownSettings {
                    enable: values.boolean("controlled.shutdown.enable"),
                    max_retries: u32::try_from(values.i32("controlled.shutdown.max.retries")).unwrap_or(0),
                    retry_backoff_ms: u64::try_from(values.i64("controlled.shutdown.retry.backoff.ms"))
                        .unwrap_or(0),
                },
                io_backend: match values.text("milena.io.backend") {
                    Some("uring") => IoBackend::Uring,
                    Some("syscall") => IoBackend::Syscall,
                    _ => IoBackend::Auto,
                },
                log_output: LogOutput {
                    directory: values
                        .text("milena.log.dir")
                        .filter(|text| !text.is_empty())
                        .map(PathBuf::from),
                    level: values.text("milena.log.level").unwrap_or("info").to_owned(),
                },
                sources,
                values: Arc::new(values),
            })
        }
        _ => Err(faults.0),
    }
}

fn leader_balance(values: &Values) -> LeaderBalanceSettings {
    let seconds = values.i64("leader.imbalance.check.interval.seconds");
    let percentage = values.i32("leader.imbalance.per.broker.percentage");
    LeaderBalanceSettings {
        auto_leader_rebalance_enable: values.boolean("auto.leader.rebalance.enable"),
        leader_imbalance_per_broker_percentage: u32::try_from(percentage).unwrap_or(0),
        leader_imbalance_check_interval: Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)),
    }
}

fn replication(sources: &Sources, values: &Values) -> ReplicationSettings {
    let milliseconds = |key| Duration::from_millis(u64::try_from(values.i64(key)).unwrap_or(0));
    ReplicationSettings {
        lag_max: milliseconds("replica.lag.time.max.ms"),
        fetcher_count: u32::try_from(values.i32("num.replica.fetchers"))
            .unwrap_or(0)
            .max(1),
        fetch_wait_max_ms: values.i32("replica.fetch.wait.max.ms"),
        fetch_min_bytes: values.i32("replica.fetch.min.bytes"),
        fetch_max_bytes: values.i32("replica.fetch.max.bytes"),
        fetch_response_max_bytes: values.i32("replica.fetch.response.max.bytes"),
        fetch_backoff: milliseconds("replica.fetch.backoff.ms"),
        socket_timeout: milliseconds("replica.socket.timeout.ms"),
        controller_socket_timeout: milliseconds("controller.socket.timeout.ms"),
        quota_windows: QuotaWindowSettings {
            count: values.u32("replication.quota.window.num"),
            size_seconds: values.u32("replication.quota.window.size.seconds"),
        },
        alter_log_dirs_quota_windows: QuotaWindowSettings {
            count: values.u32("alter.log.dirs.replication.quota.window.num"),
            size_seconds: values.u32("alter.log.dirs.replication.quota.window.size.seconds"),
        },
        alter_log_dirs_thread_count: values
            .integer("num.replica.alter.log.dirs.threads")
            .map(|count| u32::try_from(count).unwrap_or(0).max(1)),
        throttles: ReplicationThrottles {
            leader: throttled_rate(sources, "leader.replication.throttled.rate"),
            follower: throttled_rate(sources, "follower.replication.throttled.rate"),
            alter_log_dirs: throttled_rate(sources, "replica.alter.log.dirs.io.max.bytes.per.second"),
        },
    }
}

/// A rate that only the tree has, and only for this broker.
fn throttled_rate(sources: &Sources, name: &str) -> u64 {
    let stated = sources
        .per_broker
        .get(name)
        .and_then(|text| text.trim().parse().ok());
    match stated {
        None | Some(i64::MAX) => u64::MAX,
        Some(rate) => u64::try_from(rate).unwrap_or(0),
    }
}

fn refuse_what_is_not_built(sources: &Sources, faults: &mut Faults) {
    for definition in broker_definitions() {
        if let Effect::RefusesToStart(reason) = definition.effect
            && sources
                .stated(definition.name)
                .is_some_and(|text| !text.trim().is_empty())
        {
            faults.add(
                definition.name,
                format!("{} cannot be set: {reason}", definition.name),
            );
        }
    }
    let providers = sources
        .fixed
        .keys()
        .find(|key| *key == "config.providers" || key.starts_with("config.providers."));
    if let Some(key) = providers {
        faults.add(
            key,
            format!(
                "{key} cannot be set: it names a Java class that supplies values, and Java classes \
             cannot run here"
            ),
        );
    }
}

fn check_fields_together(values: &Values, faults: &mut Faults) {
    let broker_id = values.i64("broker.id");
    if values.boolean("broker.id.generation.enable") {
        let max = values.i64("reserved.broker.max.id");
        faults.require_allowing(
            (-1..=max).contains(&broker_id),
            "broker.id",
            "broker.id must be equal or greater than -1 and not greater than reserved.broker.max.id",
            format!("-1 to {max}"),
        );
    } else {
        faults.require(
            broker_id >= 0,
            "broker.id",
            "broker.id must be equal or greater than 0",
        );
    }
    faults.require(
        values.milliseconds("log.roll.ms") >= 1,
        "log.roll.ms",
        "log.roll.ms must be equal or greater than 1",
    );
    faults.require(
        values.milliseconds("log.roll.jitter.ms") >= 0,
        "log.roll.jitter.ms",
        "log.roll.jitter.ms must be equal or greater than 0",
    );
    faults.require(
        values.milliseconds("log.retention.ms") != 0,
        "log.retention.ms",
        "log.retention.ms must be unlimited (-1) or, equal or greater than 1",
    );
    let cleaner_threads = values.i64("log.cleaner.threads");
    faults.require(
        cleaner_threads > 0 && values.i64("log.cleaner.dedupe.buffer.size") / cleaner_threads > 1 << 20,
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
    );
    let fetch_wait = values.i64("replica.fetch.wait.max.ms");
    faults.require(
        fetch_wait <= values.i64("replica.socket.timeout.ms"),
        "replica.socket.timeout.ms",
        "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent \
         unnecessary socket \
         timeouts",
    );
    faults.require(
        fetch_wait <= values.i64("replica.lag.time.max.ms"),
        "replica.fetch.wait.max.ms",
        "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to \
         prevent frequent \
         changes in ISR",
    );
    let replication_factor = values.i64("offsets.topic.replication.factor");
    faults.require(
        (-1..=replication_factor).contains(&values.i64("offsets.commit.required.acks")),
        "offsets.commit.required.acks",
        "offsets.commit.required.acks must be greater or equal -1 and less or equal to \
         offsets.topic.replication.factor",
    );
    let (protocol, format) = (
        version(values, "inter.broker.protocol.version"),
        version(values, "log.message.format.version"),
    );
    faults.require(
        protocol.magic() >= format.magic(),
        "log.message.format.version",
        format!(
            "log.message.format.version {} can only be used when inter.broker.protocol.version is set to \
             version {} or \
             higher",
            values.text("log.message.format.version").unwrap_or_default(),
            ApiVersion::min_supported_for(format.magic()).short_version()
        ),
    );
    let is_alone = values
        .text("zookeeper.connect")
        .is_none_or(|connect| connect.trim().is_empty());
    faults.require_allowing(
        is_alone || protocol >= ApiVersion::V0_11_0_IV2,
        "inter.broker.protocol.version",
        &format!(
            "inter.broker.protocol.version {protocol} cannot be served in a cluster: followers would cut their logs at the high \
             watermark, which loses acknowledged records (KIP-101)"
        ),
        format!("{} or later", ApiVersion::V0_11_0_IV2),
    );
    let queued = values.i64("queued.max.request.bytes");
    let request_max = values.i64("socket.request.max.bytes");
    faults.require_allowing(
        queued <= 0 || queued >= request_max,
        "queued.max.request.bytes",
        "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
        format!("at least {request_max}, or -1 for no limit"),
    );
    let overrides = values
        .text("max.connections.per.ip.overrides")
        .unwrap_or_default();
    faults.require(
        values.i64("max.connections.per.ip") != 0 || !overrides.is_empty(),
        "max.connections.per.ip",
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.",
    );
    let (delay, idle) = (
        values.i64("connection.failed.authentication.delay.ms"),
        values.i64("connections.max.idle.ms"),
    );
    faults.require(
        idle < 0 || delay < idle,
        "connections.max.idle.ms",
        format!(
            "connection.failed.authentication.delay.ms={delay} should always be less than \
             connections.max.idle.ms={idle} to prevent failed authentication responses from timing out"
        ),
    );
}

fn check_compression_type(values: &Values, faults: &mut Faults) {
    let compression = values.text("compression.type").unwrap_or_default();
    faults.require(
        topic::compression_type(compression).is_some(),
        "compression.type",
        format!(
            "compression.type : {compression} is not valid. Valid options are \
             uncompressed,zstd,lz4,snappy,gzip,producer"
        ),
    );
}

struct Listeners {
    bound: Vec<EndPoint>,
    advertised: Vec<EndPoint>,
    inter_broker: ListenerName,
    control_plane: Option<ListenerName>,
}

/// Listeners, the advertised ones, and the one between brokers; `None` after a fault.
fn check_listeners(sources: &Sources, values: &Values, faults: &mut Faults) -> Option<Listeners> {
    let map_key = "listener.security.protocol.map";
    let map = SecurityProtocolMap::parse(values.text(map_key).unwrap_or_default())
        .map_err(|message| faults.add(map_key, message))
        .ok()?;
    let host_name = values.text("host.name").unwrap_or_default();
    let port = values.i64("port");
    let (key, text) = match values.text("listeners") {
        Some(text) => ("listeners", text.to_owned()),
        None => (
            if sources.is_stated("port") {
                "port"
            } else {
                "host.name"
            },
            format!("PLAINTEXT://{host_name}:{port}"),
        ),
    };
    let bound = parse_listeners(&text, &map, Ports::Distinct)
        .map_err(|message| faults.add_allowing(key, message, Some(ENDPOINTS)))
        .ok()?;
    let advertised_host = values.text("advertised.host.name");
    let advertised_port = values.integer("advertised.port");
    let advertised = if let Some(text) = values.text("advertised.listeners") {
        parse_listeners(text, &map, Ports::Any)
            .map_err(|message| faults.add_allowing("advertised.listeners", message, Some(ENDPOINTS)))
            .ok()?
    } else if advertised_host.is_some() || advertised_port.is_some() {
        let text = format!(
            "PLAINTEXT://{}:{}",
            advertised_host.unwrap_or(host_name),
            advertised_port.unwrap_or(port)
        );
        parse_listeners(&text, &map, Ports::Any)
            .map_err(|message| faults.add("advertised.host.name", message))
            .ok()?
    } else {
        bound.clone()
    };
    let inter_broker = inter_broker_listener(sources, values, &map, faults)?;

    let names = |endpoints: &[EndPoint]| {
        endpoints
            .iter()
            .map(|endpoint| endpoint.listener_name.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let before = faults.0.len();
    for endpoint in &bound {
        faults.require(
            endpoint.security_protocol == SecurityProtocol::Plaintext,
            key,
            format!(
                "listener {endpoint} needs {}, which is not built yet; only PLAINTEXT listeners can be \
                 served",
                endpoint.security_protocol.name()
            ),
        );
    }
    let stated = ["inter.broker.listener.name", "security.inter.broker.protocol"]
        .into_iter()
        .find(|key| sources.is_stated(key));
    faults.require(
        advertised
            .iter()
            .any(|endpoint| endpoint.listener_name == inter_broker),
        stated.unwrap_or("inter.broker.listener.name"),
        format!(
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid \
             options \
             based on currently configured listeners are {}",
            names(&advertised)
        ),
    );
    let control_plane = control_plane_listener(values, &map, &advertised, &inter_broker, faults);
    let is_bound = |endpoint: &EndPoint| {
        bound
            .iter()
            .any(|other| other.listener_name == endpoint.listener_name)
    };
    faults.require(
        advertised.iter().all(is_bound),
        "advertised.listeners",
        format!(
            "advertised.listeners listener names must be equal to or a subset of the ones defined in \
             listeners. Found \
             {}. The valid options based on the current configuration are {}",
            names(&advertised),
            names(&bound)
        ),
    );
    let is_meta = |endpoint: &EndPoint| endpoint.host.as_deref() == Some("0.0.0.0");
    if advertised.iter().any(is_meta) {
        let key = if sources.is_stated("advertised.listeners") {
            "advertised.listeners"
        } else {
            key
        };
        let message = "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.";
        faults.add_allowing(key, message, Some(REACHABLE));
    }
    (faults.0.len() == before).then_some(Listeners {
        bound,
        advertised,
        inter_broker,
        control_plane,
    })
}

fn control_plane_listener(
    values: &Values,
    map: &SecurityProtocolMap,
    advertised: &[EndPoint],
    inter_broker: &ListenerName,
    faults: &mut Faults,
) -> Option<ListenerName> {
    let key = "control.plane.listener.name";
    let name = ListenerName::new(values.text(key).filter(|text| !text.trim().is_empty())?);
    if map.get(&name).is_none() {
        let message =
            format!("Listener with {name} defined in {key} not found in listener.security.protocol.map.");
        faults.add(key, message);
        return None;
    }
    let names: Vec<&str> = advertised
        .iter()
        .map(|endpoint| endpoint.listener_name.as_str())
        .collect();
    faults.require(
        names.contains(&name.as_str()),
        key,
        format!(
            "{key} must be a listener name defined in advertised.listeners. The valid options based on currently \
             configured listeners are {}",
            names.join(",")
        ),
    );
    faults.require(
        name != *inter_broker,
        key,
        format!(
            "{key}, when defined, should have a different value from the inter broker listener name. Currently they \
             both have the value {name}"
        ),
    );
    Some(name)
}

fn inter_broker_listener(
    sources: &Sources,
    values: &Values,
    map: &SecurityProtocolMap,
    faults: &mut Faults,
) -> Option<ListenerName> {
    let (name_key, protocol_key) = ("inter.broker.listener.name", "security.inter.broker.protocol");
    if let Some(name) = values.text(name_key) {
        let name = ListenerName::new(name);
        if sources.is_stated(protocol_key) {
            faults.add(
                name_key,
                format!("Only one of {name_key} and {protocol_key} should be set."),
            );
            return None;
        }
        if map.get(&name).is_none() {
            faults.add(
                name_key,
                format!(
                    "Listener with name {name} defined in {name_key} not found in \
                     listener.security.protocol.map."
                ),
            );
            return None;
        }
        return Some(name);
    }
    let protocol = values.text(protocol_key).unwrap_or_default();
    match SecurityProtocol::from_name(protocol) {
        Some(protocol) => Some(ListenerName::new(protocol.name())),
        None => {
            faults.add(
                protocol_key,
                format!("Invalid security protocol `{protocol}` defined in {protocol_key}"),
            );
            None
        }
    }
}

fn offsets_codec(values: &Values, faults: &mut Faults) -> Option<Codec> {
    let key = "offsets.topic.compression.codec";
    let id = values.i64(key);
    let Some(codec) = u8::try_from(id).ok().and_then(Codec::from_id) else {
        faults.add(
            key,
            format!("{id} is an unknown compression codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd)"),
        );
        return None;
    };
    let newest = version(values, "inter.broker.protocol.version").magic();
    faults.require(
        codec != Codec::Zstd || newest >= ApiVersion::LATEST.magic(),
        key,
        "offsets.topic.compression.codec zstd can only be used when inter.broker.protocol.version is set \
         to version 2.1 \
         or higher",
    );
    Some(codec)
}

/// `host:count,...`
fn connection_overrides(values: &Values, faults: &mut Faults) -> Option<Vec<(String, u32)>> {
    let key = "max.connections.per.ip.overrides";
    let text = values.text(key).unwrap_or_default();
    let mut overrides = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let parsed = entry
            .rsplit_once(':')
            .and_then(|(host, count)| Some((host.trim(), count.trim().parse().ok()?)));
        match parsed {
            None => {
                faults.add(
                    key,
                    format!(
                        "Error parsing configuration property '{key}': found {entry:?}, expected host:count"
                    ),
                );
                return None;
            }
            Some((host, _)) if !is_valid_host(host) => {
                faults.add(key, format!("{key} contains invalid addresses : {host}"));
                return None;
            }
            Some((host, count)) => overrides.push((host.to_owned(), count)),
        }
    }
    Some(overrides)
}

/// `listener.name.{listener}.max.connections` and `.max.connection.creation.rate`; the broker's stand in for what is not set.
fn listener_connections(
    sources: &Sources,
    values: &Values,
    faults: &mut Faults,
) -> BTreeMap<ListenerName, (u32, u32)> {
    let mut limits = BTreeMap::new();
    for key in sources.keys().filter(|key| is_listener_limit(key)) {
        let parts = key
            .strip_prefix("listener.name.")
            .and_then(|rest| rest.split_once('.'));
        let (Some((listener, base)), Some(text)) = (parts, sources.stated(key)) else {
            continue;
        };
        let definition =
            broker_definition(base).expect("limits of listeners are settings of the broker, too");
        let parsed = definition.parse(text).map(|value| match value {
            Value::Integer(limit) => u32::try_from(limit).unwrap_or(0),
            _ => 0,
        });
        let entry = limits.entry(ListenerName::new(listener)).or_insert((
            values.u32("max.connections"),
            values.u32("max.connection.creation.rate"),
        ));
        match parsed {
            Ok(0) => faults.add(key, format!("Invalid {base} 0")),
            Ok(limit) if base == "max.connections" => entry.0 = limit,
            Ok(limit) => entry.1 = limit,
            Err(error) => faults.0.push(Fault {
                key: Some(key.to_owned()),
                error,
                allowed: Some(definition.allowed()),
            }),
        }
    }
    limits
}

fn log_dirs(values: &Values) -> Vec<PathBuf> {
    let text = values
        .text("log.dirs")
        .or(values.text("log.dir"))
        .unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect()
}

/// A version that its limits have checked.
fn version(values: &Values, name: &str) -> ApiVersion {
    values
        .text(name)
        .and_then(ApiVersion::parse)
        .unwrap_or(ApiVersion::LATEST)
}

fn short(values: &Values, name: &str) -> i16 {
    i16::try_from(values.i64(name)).expect("its type is SHORT")
}

/// −1 and `Long.MAX_VALUE` are "never".
fn limit_ms(value: i64) -> Option<u64> {
    u64::try_from(value)
        .ok()
        .filter(|value| *value != i64::MAX as u64)
}

fn network(
    values: &Values,
    overrides: Vec<(String, u32)>,
    listener_connections: BTreeMap<ListenerName, (u32, u32)>,
) -> NetworkSettings {
    NetworkSettings {
        lanes: values
            .integer("milena.lanes")
            .and_then(|count| u32::try_from(count).ok()),
        socket_send_buffer_bytes: u32::try_from(values.i64("socket.send.buffer.bytes")).ok(),
        socket_receive_buffer_bytes: u32::try_from(values.i64("socket.receive.buffer.bytes")).ok(),
        socket_request_max_bytes: values.u32("socket.request.max.bytes"),
        queued_max_request_bytes: u64::try_from(values.i64("queued.max.request.bytes"))
            .ok()
            .filter(|limit| *limit > 0),
        max_connections: values.u32("max.connections"),
        max_connections_per_ip: values.u32("max.connections.per.ip"),
        max_connections_per_ip_overrides: overrides,
        max_connection_creation_rate: values.u32("max.connection.creation.rate"),
        quota_window_num: values.u32("quota.window.num"),
        quota_window_size_seconds: values.u32("quota.window.size.seconds"),
        listener_connections,
        connections_max_idle_ms: limit_ms(values.i64("connections.max.idle.ms")),
        request_timeout_ms: values.i32("request.timeout.ms"),
    }
}

fn logs(values: &Values) -> LogManagerSettings {
    let interval = |name| u64::try_from(values.i64(name)).unwrap_or(0);
    LogManagerSettings {
        retention_check_interval_ms: interval("log.retention.check.interval.ms"),
        flush_scheduler_interval_ms: limit_ms(values.i64("log.flush.scheduler.interval.ms")),
        flush_offset_checkpoint_interval_ms: interval("log.flush.offset.checkpoint.interval.ms"),
        flush_start_offset_checkpoint_interval_ms: interval("log.flush.start.offset.checkpoint.interval.ms"),
        high_watermark_checkpoint_interval_ms: interval("replica.high.watermark.checkpoint.interval.ms"),
        num_recovery_threads_per_data_dir: values.u32("num.recovery.threads.per.data.dir"),
        producer_id_expiration_ms: values.i64("transactional.id.expiration.ms"),
        disk_reserve_bytes: interval("milena.disk.reserve.bytes"),
    }
}

fn offsets(values: &Values, codec: Codec) -> OffsetsSettings {
    OffsetsSettings {
        metadata_max_bytes: values.i32("offset.metadata.max.bytes"),
        load_buffer_size_bytes: values.u32("offsets.load.buffer.size"),
        topic_replication_factor: short(values, "offsets.topic.replication.factor"),
        topic_num_partitions: values.i32("offsets.topic.num.partitions"),
        topic_segment_bytes: values.i32("offsets.topic.segment.bytes"),
        topic_compression_codec: codec,
        retention_ms: values.i64("offsets.retention.minutes") * 60_000,
        retention_check_interval_ms: u64::try_from(values.i64("offsets.retention.check.interval.ms"))
            .unwrap_or(1),
        commit_timeout_ms: values.u32("offsets.commit.timeout.ms"),
        commit_required_acks: short(values, "offsets.commit.required.acks"),
    }
}

#[cfg(test)]
mod tests;
