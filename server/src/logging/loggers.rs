//! Loggers and their levels, which may change while the broker runs (`Log4jController.scala`; KIP-412).
//!
//! Loggers are named as in log4j, with dots; one without a level of its own has that of its nearest ancestor that has one, and
//! at last that of `root`. Which loggers there are is known beforehand ([`KNOWN`]), with their ancestors; others appear once
//! they are used or given a level. Levels last until the broker stops: at the start those of `milena.log.level` hold.
//!
//! An event below the level of its logger costs one comparison: the level is looked up once per place in the code, and again
//! only after a change.
//!
//! **Deviation:** of a logger without a level of its own, 2.7.2 lists the level of `root`; here it is the level that holds, be
//! it an ancestor's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tracing::level_filters::LevelFilter;

/// Name of the logger that all others descend from.
pub const ROOT: &str = "root";

/// The loggers that write lines, without their ancestors.
const KNOWN: [&str; 49] = [
    "kafka.cluster.Partition",
    "kafka.controller.ControllerChannelManager",
    "kafka.controller.KafkaController",
    "kafka.coordinator.group.GroupCoordinator",
    "kafka.coordinator.transaction.ProducerIdManager",
    "kafka.log.LogManager",
    "kafka.network.Acceptor",
    "kafka.network.SocketServer",
    "kafka.server.AdminManager",
    "kafka.server.AlterIsrManager",
    "kafka.server.BrokerToControllerRequestThread",
    "kafka.server.DynamicBrokerConfig",
    "kafka.server.DynamicConfigManager",
    "kafka.server.FinalizedFeatureChangeListener",
    "kafka.server.KafkaApis",
    "kafka.server.KafkaServer",
    "kafka.server.ReplicaAlterLogDirsThread",
    "kafka.server.ReplicaFetcherManager",
    "kafka.server.ReplicaFetcherThread",
    "kafka.server.ReplicaManager",
    "kafka.server.TopicConfigHandler",
    "kafka.zk.AdminZkClient",
    "kafka.zk.KafkaZkClient",
    "kafka.zookeeper.ZooKeeperClient",
    "milena.logging",
    "milena.server.Adoption",
    "milena_engine.io.uring",
    "milena_engine.log",
    "milena_engine.log.appender",
    "milena_engine.log.directory",
    "milena_engine.log.epochs",
    "milena_engine.log.recovery",
    "milena_engine.log.recovery.damage",
    "milena_engine.log.recovery.leftovers",
    "milena_engine.log.recovery.rebuild",
    "milena_engine.log.retention",
    "milena_engine.log.segment.lookup",
    "milena_engine.log_manager",
    "milena_engine.log_manager.checkpoints",
    "milena_engine.log_manager.creation",
    "milena_engine.log_manager.deletion",
    "milena_engine.log_manager.future",
    "milena_engine.log_manager.loading",
    "milena_engine.log_manager.maintenance",
    "milena_engine.log_manager.scrub",
    "milena_engine.log_manager.shutdown",
    "milena_engine.log_manager.survey",
    "milena_server.coordination.startup",
    "state.change.logger",
];

/// The least important events that a logger writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggerLevel {
    /// Only as `milena.log.level`.
    Off,
    /// More than any event here has, so that none is written.
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LoggerLevel {
    /// The names that clients may give, in the order in which 2.7.2 names them in a refusal.
    pub const CHOICES: [LoggerLevel; 6] = [
        LoggerLevel::Trace,
        LoggerLevel::Error,
        LoggerLevel::Info,
        LoggerLevel::Fatal,
        LoggerLevel::Debug,
        LoggerLevel::Warn,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            LoggerLevel::Off => "OFF",
            LoggerLevel::Fatal => "FATAL",
            LoggerLevel::Error => "ERROR",
            LoggerLevel::Warn => "WARN",
            LoggerLevel::Info => "INFO",
            LoggerLevel::Debug => "DEBUG",
            LoggerLevel::Trace => "TRACE",
        }
    }

    /// One of [`LoggerLevel::CHOICES`], in capitals.
    pub fn from_name(name: &str) -> Option<LoggerLevel> {
        LoggerLevel::CHOICES
            .into_iter()
            .find(|level| level.name() == name)
    }

    const fn filter(self) -> LevelFilter {
        match self {
            LoggerLevel::Off | LoggerLevel::Fatal => LevelFilter::OFF,
            LoggerLevel::Error => LevelFilter::ERROR,
            LoggerLevel::Warn => LevelFilter::WARN,
            LoggerLevel::Info => LevelFilter::INFO,
            LoggerLevel::Debug => LevelFilter::DEBUG,
            LoggerLevel::Trace => LevelFilter::TRACE,
        }
    }
}

/// What `milena.log.level` says: the level of `root`, and levels of single loggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) root: LoggerLevel,
    pub(super) own: BTreeMap<String, LoggerLevel>,
}

impl Levels {
    /// `info`, or `info,kafka.controller=debug`; `None` if it is neither.
    pub(super) fn parse(text: &str) -> Option<Levels> {
        let level = |name: &str| match name.trim().to_uppercase().as_str() {
            "OFF" => Some(LoggerLevel::Off),
            name => LoggerLevel::from_name(name),
        };
        let mut entries = text.split(',');
        let mut levels = Levels {
            root: level(entries.next()?)?,
            own: BTreeMap::new(),
        };
        for entry in entries {
            let (logger, name) = entry.split_once('=')?;
            match (logger.trim(), level(name)?) {
                (ROOT, level) => levels.root = level,
                (logger, level) => drop(levels.own.insert(logger.replace("::", "."), level)),
            }
        }
        Some(levels)
    }

    fn of(&self, logger: &str) -> LoggerLevel {
        let found = ancestry(logger).find_map(|name| self.own.get(name));
        found.copied().unwrap_or(self.root)
    }
}

/// `a.b.c`, `a.b`, `a`.
fn ancestry(logger: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(logger), |name| Some(name.rsplit_once('.')?.0))
}

/// All loggers of a process.
#[derive(Debug)]
pub struct Loggers {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    levels: Levels,
    names: BTreeSet<String>,
}

impl State {
    fn add(&mut self, logger: &str) {
        for name in ancestry(logger) {
            if !self.names.insert(name.to_owned()) {
                return;
            }
        }
    }
}

/// The loggers of this process.
pub fn loggers() -> Arc<Loggers> {
    static LOGGERS: OnceLock<Arc<Loggers>> = OnceLock::new();
    Arc::clone(LOGGERS.get_or_init(Arc::default))
}

impl Default for Loggers {
    /// Everything from INFO on.
    fn default() -> Loggers {
        let levels = Levels {
            root: LoggerLevel::Info,
            own: BTreeMap::new(),
        };
        let mut state = State {
            levels,
            names: BTreeSet::new(),
        };
        KNOWN.iter().for_each(|logger| state.add(logger));
        Loggers {
            state: RwLock::new(state),
        }
    }
}

impl Loggers {
    /// Every logger with the level that holds for it, `root` first.
    pub fn list(&self) -> Vec<(String, LoggerLevel)> {
        let state = self.state.read();
        let names = state.names.iter();
        let root = (ROOT.to_owned(), state.levels.root);
        std::iter::once(root)
            .chain(names.map(|name| (name.clone(), state.levels.of(name))))
            .collect()
    }

    pub fn contains(&self, logger: &str) -> bool {
        logger == ROOT || self.state.read().names.contains(logger)
    }

    /// Gives loggers a level, or with `None` takes it away, which `root` withstands.
    pub fn set(&self, changes: impl IntoIterator<Item = (String, Option<LoggerLevel>)>) {
        {
            let mut state = self.state.write();
            for (logger, level) in changes {
                match level {
                    Some(level) if logger == ROOT => state.levels.root = level,
                    Some(level) => {
                        state.add(&logger);
                        state.levels.own.insert(logger, level);
                    }
                    None => drop(state.levels.own.remove(&logger)),
                }
            }
        }
        tracing::callsite::rebuild_interest_cache();
    }

    /// Makes these the only levels; for the start.
    pub(super) fn replace(&self, levels: Levels) {
        let mut state = self.state.write();
        levels.own.keys().for_each(|logger| state.add(logger));
        state.levels = levels;
    }

    /// What a place in the code with this target writes; from now on its logger is known.
    pub(super) fn filter_of(&self, target: &str) -> LevelFilter {
        let logger = target.replace("::", ".");
        {
            let state = self.state.read();
            if state.names.contains(&logger) {
                return state.levels.of(&logger).filter();
            }
        }
        let mut state = self.state.write();
        state.add(&logger);
        state.levels.of(&logger).filter()
    }

    /// The most that any logger writes.
    pub(super) fn most(&self) -> LevelFilter {
        let state = self.state.read();
        let own = state.levels.own.values().map(|level| level.filter());
        own.fold(state.levels.root.filter(), std::cmp::max)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_logger_has_its_own_level_or_its_nearest_ancestors() {
        let loggers = Loggers::default();
        let level = |name: &str| {
            let list = loggers.list();
            let found = list.into_iter().find(|(logger, _)| logger == name);
            found.map(|(_, level)| level.name())
        };
        assert_eq!(level("kafka.server.KafkaServer"), Some("INFO"));
        assert_eq!(loggers.list()[0], (ROOT.to_owned(), LoggerLevel::Info));
        loggers.set([
            ("kafka".to_owned(), Some(LoggerLevel::Debug)),
            ("kafka.server.KafkaServer".to_owned(), Some(LoggerLevel::Error)),
            (ROOT.to_owned(), Some(LoggerLevel::Warn)),
        ]);
        assert_eq!(level("kafka.server.KafkaServer"), Some("ERROR"));
        assert_eq!(level("kafka.server.KafkaApis"), Some("DEBUG"));
        assert_eq!(level("milena_engine.log"), Some("WARN"));
        assert_eq!(loggers.filter_of("kafka.server.KafkaApis"), LevelFilter::DEBUG);
        assert_eq!(loggers.filter_of("kafkaesque"), LevelFilter::WARN);
        assert_eq!(loggers.most(), LevelFilter::DEBUG);
        loggers.set([("kafka".to_owned(), None), (ROOT.to_owned(), None)]);
        assert_eq!(level("kafka.server.KafkaApis"), Some("WARN"));
    }

    #[test]
    fn loggers_are_known_beforehand_with_their_ancestors_and_others_once_they_are_used() {
        let loggers = Loggers::default();
        for name in ["root", "kafka", "kafka.server", "kafka.server.KafkaApis", "state"] {
            assert!(loggers.contains(name), "{name}");
        }
        assert!(!loggers.contains("a") && !loggers.contains(""));
        loggers.filter_of("a::b");
        assert!(loggers.contains("a.b") && loggers.contains("a"));
    }

    /// Loggers of the places in `source` that write lines.
    fn loggers_in(source: &str, module: &str) -> BTreeSet<String> {
        let source = source.split("\nmod tests {").next().unwrap_or_default();
        let literal = |rest: &str| rest.split('"').next().unwrap_or_default().to_owned();
        let mut found = BTreeSet::new();
        for marker in ["target: \"", "LOGGER: &str = \"", "TARGET: &str = \""] {
            found.extend(source.split(marker).skip(1).map(literal));
        }
        for macro_name in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
            let mut places = source.match_indices(macro_name);
            let is_bare = |at: usize| {
                let before = source[..at].chars().next_back();
                !before.is_some_and(|char| char == '_' || char.is_alphanumeric())
                    && !source[at + macro_name.len()..]
                        .trim_start()
                        .starts_with("target:")
            };
            if places.any(|(at, _)| is_bare(at)) {
                found.insert(module.to_owned());
            }
        }
        found
    }

    fn collect(directory: &Path, module: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                collect(&path, &format!("{module}.{name}"), found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !["tests", "logging", "loggers"].contains(&name.as_str())
            {
                let source = std::fs::read_to_string(&path).unwrap();
                let module = if name == "lib" {
                    module.to_owned()
                } else {
                    format!("{module}.{name}")
                };
                found.append(&mut loggers_in(&source, &module));
            }
        }
    }

    #[test]
    fn every_logger_of_the_source_is_known() {
        let server = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        collect(&server.join("src"), "milena_server", &mut found);
        collect(&server.join("../engine/src"), "milena_engine", &mut found);
        assert!(found.len() > 30, "{found:?}");
        let unknown: Vec<_> = found
            .iter()
            .filter(|logger| !KNOWN.contains(&logger.as_str()))
            .collect();
        assert!(unknown.is_empty(), "add to KNOWN: {unknown:?}");
    }
}
