//! Starting values: a file, `--override`s and the environment, made into one [`BrokerConfig`] or a list of
//! what is wrong.
//!
//! An override wins over the environment, that over the file, that over the default. Nothing is accepted in
//! silence: unknown keys, keys without effect and deprecated ones become [`Warning`]s, everything wrong is
//! named with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::broker::BrokerConfig;
use super::checks::{self, Fault};
use super::definition::{Effect, broker_definition, broker_definitions, suggestion};
use super::dynamic::{is_listener_limit, listener_setting};
use super::environment::{self, Meaning};
use super::jaas::{self, LoginOptions};
use super::properties::parse_properties;
use super::sources::{Sources, Stated};
use super::zookeeper::LOGIN_KEY;

/// Larger than any file of settings; who names an endless one is told so.
const FILE_SIZE_BYTES_MAX: u64 = 4 << 20;

/// Where a setting was given, in the order in which problems are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line from 1.
    File {
        path: Arc<Path>,
        line: usize,
    },
    Environment {
        variable: String,
    },
    Override,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{}:{line}", path.display()),
            Place::Override => f.write_str("--override"),
            Place::Environment { variable } => write!(f, "environment variable {variable}"),
        }
    }
}

/// One thing that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Option<Place>,
    /// Names the key, what was found and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Everything that stops the start, at least one problem. Prints one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// Something the owner of the broker should know; the broker starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Nobody here knows this key. Legal in Kafka, where plugins read them.
    UnknownKey {
        key: String,
        place: Place,
        suggestion: Option<&'static str>,
    },
    /// Settings that are known, given, and change nothing.
    NoEffect { keys: Vec<String>, reason: &'static str },
    /// Variables of the environment that look like settings and are none.
    NoEffectVariables {
        variables: Vec<String>,
        reason: &'static str,
    },
    Deprecated {
        key: &'static str,
        instead: &'static str,
    },
    /// Settings stored in the tree that cannot be applied.
    StoredIgnored { message: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownKey {
                key,
                place,
                suggestion: Some(name),
            } => {
                write!(
                    f,
                    "{place}: unknown setting {key} is ignored; did you mean {name}?"
                )
            }
            Warning::UnknownKey {
                key,
                place,
                suggestion: None,
            } => {
                write!(f, "{place}: unknown setting {key} is ignored")
            }
            Warning::NoEffect { keys, reason } => {
                write!(f, "accepted without effect: {} ({reason})", keys.join(", "))
            }
            Warning::NoEffectVariables { variables, reason } => {
                write!(
                    f,
                    "environment without effect: {} ({reason})",
                    variables.join(", ")
                )
            }
            Warning::Deprecated { key, instead } => write!(f, "{key} is deprecated; use {instead}"),
            Warning::StoredIgnored { message } => f.write_str(message),
        }
    }
}

impl BrokerConfig {
    /// Reads and checks everything that a broker is started with.
    ///
    /// `environment` is all of it; foreign variables are skipped. Without a file the broker listens on
    /// `PLAINTEXT://127.0.0.1:9092` and keeps its data in `./milena-data`; with one, Kafka's defaults hold.
    ///
    /// # Errors
    /// Every problem with its place; nothing was changed anywhere.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(String, String)],
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(BrokerConfig, Vec<Warning>), LoadError> {
        let mut sources = Sources::default();
        if let Some(path) = file {
            let bytes = read_bounded(path)
                .map_err(|error| refusal(None, format!("cannot read {}: {error}", path.display())))?;
            read_properties(path, &bytes, &mut sources)?;
        }
        BrokerConfig::from_sources(sources, file.is_some(), overrides, environment)
    }

    /// As [`BrokerConfig::load`] with a file of these bytes and nothing else; the path is for the messages.
    ///
    /// # Errors
    /// As [`BrokerConfig::load`].
    pub fn from_properties(path: &Path, bytes: &[u8]) -> Result<(BrokerConfig, Vec<Warning>), LoadError> {
        let mut sources = Sources::default();
        read_properties(path, bytes, &mut sources)?;
        BrokerConfig::from_sources(sources, true, &[], [])
    }

    fn from_sources(
        mut sources: Sources,
        with_file: bool,
        overrides: &[(String, String)],
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(BrokerConfig, Vec<Warning>), LoadError> {
        let mut warnings = Vec::new();
        read_environment(environment, &mut sources, &mut warnings)?;
        for (key, text) in overrides {
            sources.fixed.insert(
                key.clone(),
                Stated {
                    text: text.clone(),
                    place: Place::Override,
                },
            );
        }
        put_in_own_defaults(&mut sources, with_file);
        warn_of_settings(&sources, &mut warnings);
        let sources = Arc::new(sources);
        match checks::build(Arc::clone(&sources)) {
            Ok(config) => Ok((config, warnings)),
            Err(faults) => {
                let mut problems: Vec<_> = faults.into_iter().map(|fault| problem(&sources, fault)).collect();
                problems.sort_by_key(|problem| problem.place.clone());
                Err(LoadError { problems })
            }
        }
    }

    /// A configuration of these settings alone, without file or environment; for tests and tools.
    ///
    /// # Errors
    /// As [`BrokerConfig::load`].
    pub fn from_settings(settings: &[(&str, &str)]) -> Result<BrokerConfig, LoadError> {
        let overrides: Vec<_> = settings
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        BrokerConfig::load(None, &overrides, []).map(|(config, _)| config)
    }
}

fn problem(sources: &Sources, fault: Fault) -> Problem {
    let place = fault.key.as_deref().and_then(|key| sources.place(key)).cloned();
    let mut message = fault.error.to_string();
    if let Some(text) = fault.key.as_deref().and_then(|key| shown_text(sources, key))
        && !message.contains(text)
    {
        message = format!("{message} (found: {text})");
    }
    if let Some(allowed) = fault.allowed {
        message = format!("{message} (allowed: {allowed})");
    }
    Problem { place, message }
}

/// What a setting was given, if it may be shown and is wrong for what it says, not for being there.
fn shown_text<'a>(sources: &'a Sources, key: &str) -> Option<&'a str> {
    let definition = broker_definition(key)?;
    let is_value = !definition.is_sensitive() && !matches!(definition.effect, Effect::RefusesToStart(_));
    sources.stated(key).filter(|text| is_value && !text.is_empty())
}

/// All of a file of settings, which may be a pipe; no more than fits [`FILE_SIZE_BYTES_MAX`].
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(FILE_SIZE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > FILE_SIZE_BYTES_MAX {
        let message = format!("found more than {FILE_SIZE_BYTES_MAX} bytes, expected a file of settings");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn refusal(place: Option<Place>, message: String) -> LoadError {
    LoadError {
        problems: vec![Problem { place, message }],
    }
}

/// The settings of a file.
fn read_properties(path: &Path, bytes: &[u8], sources: &mut Sources) -> Result<(), LoadError> {
    let path: Arc<Path> = path.into();
    // **Deviation:** a file of settings with a NUL byte is refused. To Java it is a text like any other, and the broker starts
    // on its defaults.
    if let Some(index) = bytes.iter().position(|byte| *byte == 0) {
        let place = Place::File {
            path,
            line: 1 + bytes[..index].iter().filter(|byte| **byte == b'\n').count(),
        };
        let message = "found a NUL byte, expected lines of key=value in UTF-8 or ISO-8859-1";
        return Err(refusal(Some(place), message.to_owned()));
    }
    let properties = match parse_properties(bytes) {
        Ok(properties) => properties,
        Err(error) => {
            let place = Place::File {
                path,
                line: error.line,
            };
            let message = format!(
                "found \\u{}, expected four hexadecimal digits after \\u",
                error.found
            );
            return Err(refusal(Some(place), message));
        }
    };
    for property in properties {
        let place = Place::File {
            path: Arc::clone(&path),
            line: property.line,
        };
        sources.fixed.insert(
            property.key,
            Stated {
                text: property.value,
                place,
            },
        );
    }
    Ok(())
}

fn read_environment(
    environment: impl IntoIterator<Item = (String, String)>,
    sources: &mut Sources,
    warnings: &mut Vec<Warning>,
) -> Result<(), LoadError> {
    let mut without_effect: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (variable, text) in environment {
        match environment::meaning(&variable, &text) {
            Meaning::Foreign => {}
            Meaning::NoEffect(reason) => without_effect.entry(reason).or_default().push(variable),
            Meaning::JavaOptions => match LoginOptions::of(&text) {
                Some(options) => read_login(&options, variable, sources)?,
                None => without_effect
                    .entry(environment::SCRIPTS)
                    .or_default()
                    .push(variable),
            },
            Meaning::Setting(key) => {
                sources.fixed.insert(
                    key,
                    Stated {
                        text,
                        place: Place::Environment { variable },
                    },
                );
            }
        }
    }
    for (reason, mut variables) in without_effect {
        variables.sort_unstable();
        warnings.push(Warning::NoEffectVariables { variables, reason });
    }
    Ok(())
}

/// Takes who this broker is at ZooKeeper from the JAAS file of Java's options, unless the settings say so themselves.
fn read_login(options: &LoginOptions, variable: String, sources: &mut Sources) -> Result<(), LoadError> {
    let place = Place::Environment { variable };
    let file = options.file.display();
    let wrong = |reason: String| refusal(Some(place.clone()), format!("{file}: {reason}"));
    let bytes = read_bounded(&options.file).map_err(|error| wrong(error.to_string()))?;
    let section = jaas::section(&String::from_utf8_lossy(&bytes), &options.section);
    let Some(modules) = section.map_err(|error| wrong(error.to_string()))? else {
        return Ok(());
    };
    if !options.enabled {
        let name = &options.section;
        return Err(wrong(format!(
            "it has a section {name}, but zookeeper.sasl.client is false"
        )));
    }
    let text = jaas::written(&modules);
    sources
        .fixed
        .entry(LOGIN_KEY.to_owned())
        .or_insert(Stated { text, place });
    Ok(())
}

fn stands_alone(sources: &Sources) -> bool {
    let connect = sources.stated("zookeeper.connect");
    connect.is_none_or(|text| text.trim().is_empty())
}

/// Defaults that differ from Kafka's.
fn put_in_own_defaults(sources: &mut Sources, with_file: bool) {
    if stands_alone(sources) {
        // **Deviation:** alone, internal topics cannot have Kafka's three replicas, so they have one unless
        // told otherwise.
        for key in [
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
        ] {
            sources.own_defaults.insert(key, "1".to_owned());
        }
    }
    if with_file {
        return;
    }
    // **Deviation:** Kafka does not start without a file. Here it is a trial: reachable from this machine
    // only, data in the current directory.
    if !["listeners", "host.name", "port"]
        .iter()
        .any(|key| sources.is_stated(key))
    {
        sources
            .own_defaults
            .insert("listeners", "PLAINTEXT://127.0.0.1:9092".to_owned());
    }
    if !sources.is_stated("log.dir") {
        sources
            .own_defaults
            .insert("log.dirs", "./milena-data".to_owned());
    }
}

fn warn_of_settings(sources: &Sources, warnings: &mut Vec<Warning>) {
    let mut without_effect: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (key, stated) in &sources.fixed {
        let definition = broker_definition(key).map(|definition| (definition, false));
        let prefixed = || listener_setting(key).map(|definition| (definition, true));
        match definition
            .or_else(prefixed)
            .map(|(definition, prefixed)| (definition.effect, prefixed))
        {
            Some((Effect::NoEffectHere(reason), _)) => {
                without_effect.entry(reason).or_default().push(key.clone())
            }
            Some((Effect::OnlyInCluster(reason), _)) if stands_alone(sources) => {
                without_effect.entry(reason).or_default().push(key.clone())
            }
            Some((_, true)) if is_listener_limit(key) => {}
            Some((_, true)) => without_effect
                .entry("settings of a single listener are not built yet; the general ones hold")
                .or_default()
                .push(key.clone()),
            Some((_, false)) => {}
            None if key == "config.providers" || key.starts_with("config.providers.") => {}
            None => warnings.push(Warning::UnknownKey {
                key: key.clone(),
                place: stated.place.clone(),
                suggestion: suggestion(key, broker_definitions().map(|definition| definition.name)),
            }),
        }
    }
    for (reason, keys) in without_effect {
        warnings.push(Warning::NoEffect { keys, reason });
    }
    for (key, instead) in [
        ("port", "listeners"),
        ("host.name", "listeners"),
        ("advertised.port", "advertised.listeners"),
        ("advertised.host.name", "advertised.listeners"),
    ] {
        if sources.is_stated(key) {
            warnings.push(Warning::Deprecated { key, instead });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file of this text, removed when dropped.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str, text: &str) -> TestFile {
            let path = std::env::temp_dir().join(format!("milena-load-{}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            TestFile(path)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn an_override_wins_over_the_environment_that_over_the_file_that_over_the_default() {
        let file = TestFile::new(
            "order",
            "num.partitions=2\ngroup.max.size=2\nfetch.max.bytes=2000\n",
        );
        let environment = pairs(&[("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_GROUP_MAX_SIZE", "3")]);
        let overrides = pairs(&[("num.partitions", "4")]);
        let (config, warnings) = BrokerConfig::load(Some(&file.0), &overrides, environment).unwrap();
        assert_eq!((config.topics.num_partitions, config.group.max_size), (4, 3));
        assert_eq!(
            (config.fetch.max_bytes, config.offsets.metadata_max_bytes),
            (2000, 4096)
        );
        assert_eq!(warnings, []);
    }

    #[test]
    fn with_a_file_kafkas_defaults_hold_and_without_one_ours() {
        let file = TestFile::new("defaults", "");
        let (config, _) = BrokerConfig::load(Some(&file.0), &[], []).unwrap();
        assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://:9092");
        assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kafka-logs")]);
        let (config, _) = BrokerConfig::load(None, &[], []).unwrap();
        assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://127.0.0.1:9092");
        assert_eq!(config.log_dirs, [PathBuf::from("./milena-data")]);
        let alone = (
            config.offsets.topic_replication_factor,
            config.transactions.state_log_replication_factor,
            config.transactions.state_log_min_isr,
        );
        assert_eq!(alone, (1, 1, 1));
        let (config, _) = BrokerConfig::load(
            None,
            &pairs(&[("log.dir", "/x"), ("offsets.topic.replication.factor", "3")]),
            [],
        )
        .unwrap();
        assert_eq!(
            (config.log_dirs, config.offsets.topic_replication_factor),
            (vec![PathBuf::from("/x")], 3)
        );
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_what_is_allowed() {
        let file = TestFile::new(
            "wrong",
            "# x\nnum.partitions=many\nbroker.id=1\nzookeeper.connect=a:x\n",
        );
        let environment = pairs(&[("KAFKA_LOG_CLEANUP_POLICY", "keep")]);
        let overrides = pairs(&[("min.insync.replicas", "0")]);
        let error = BrokerConfig::load(Some(&file.0), &overrides, environment).unwrap_err();
        let path = file.0.display();
        let expected = format!(
            "{path}:2: Invalid value many for configuration num.partitions: Not a number of type INT \
             (allowed: a 32-bit integer, at least 1)\n\
             {path}:4: zookeeper.connect: found \"a:x\", expected host:port (allowed: host:port, separated by commas, with \
             an optional /chroot)\n\
             environment variable KAFKA_LOG_CLEANUP_POLICY: Invalid value keep for configuration \
             log.cleanup.policy: String must be one of: compact, delete (allowed: a list of compact, delete)\n\
             --override: Invalid value 0 for configuration min.insync.replicas: Value must be at least 1 \
             (allowed: a 32-bit integer, at least 1)"
        );
        assert_eq!(error.to_string(), expected);
        let file = TestFile::new(
            "together",
            "num.partitions=0\nlisteners=PLAINTEXT//a:1\ncompression.type=brotli\noffsets.topic.compression.codec=9\n",
        );
        let error = BrokerConfig::load(Some(&file.0), &[], []).unwrap_err();
        let keys = ["num.partitions", "listeners", "compression.type", "codec (0 none"];
        assert_eq!(error.problems.len(), keys.len(), "{error}");
        for (problem, key) in error.problems.iter().zip(keys) {
            assert!(problem.message.contains(key), "{problem}");
        }
        let told = [
            ("socket.request.max.bytes", "100"),
            ("queued.max.request.bytes", "5"),
        ];
        let error = BrokerConfig::from_settings(&told).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--override: queued.max.request.bytes must be larger or equal to socket.request.max.bytes (found: 5) \
             (allowed: at least 100, or -1 for no limit)"
        );
        let error = BrokerConfig::from_settings(&[("listeners", "PLAINTEXT://0.0.0.0:9092")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("(found: PLAINTEXT://0.0.0.0:9092) (allowed: in advertised"),
            "{error}"
        );
        let file = TestFile::new("escape", "a=1\nb=\\u12\n");
        let error = BrokerConfig::load(Some(&file.0), &[], []).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}:2: found \\u12, expected four hexadecimal digits after \\u",
                file.0.display()
            )
        );
        let error = BrokerConfig::load(Some(Path::new("/nowhere/server.properties")), &[], []).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read /nowhere/server.properties: "),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_text_or_without_end_is_refused() {
        let file = TestFile::new("binary", "broker.id=1\nb\0\n");
        let error = BrokerConfig::load(Some(&file.0), &[], []).unwrap_err();
        let expected = format!(
            "{}:2: found a NUL byte, expected lines of key=value in UTF-8 or ISO-8859-1",
            file.0.display()
        );
        assert_eq!(error.to_string(), expected);
        let error = BrokerConfig::load(Some(Path::new("/dev/zero")), &[], []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read /dev/zero: found more than 4194304 bytes, expected a file of settings"
        );
    }

    #[test]
    fn variables_that_mean_nothing_never_stop_the_start() {
        let odd = pairs(&[
            ("MILENA_PORT", "tcp://10.0.0.7:9092"),
            ("MILENA_HOME", "/opt/milena"),
            ("MILENA_", "x"),
            ("KAFKA__", ""),
            ("KAFKA_", "x"),
            ("KAFKA____", "="),
            ("KAFKA_ÄÖ", "\u{0}"),
            ("", "x"),
            ("=C:", "x"),
        ]);
        let (config, warnings) = BrokerConfig::load(None, &[], odd).unwrap();
        assert_eq!(config.listeners[0].port, 9092);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
    }

    #[test]
    fn what_is_ignored_is_said() {
        let settings = pairs(&[
            ("num.io.threads", "8"),
            ("background.threads", "8"),
            ("num.partition", "3"),
            ("super.users", "User:a"),
            ("port", "1"),
            ("listener.name.plaintext.max.connections", "5"),
            ("listener.name.plaintext.connections.max.idle.ms", "5"),
            ("quota.producer.default", "1000"),
        ]);
        let environment = pairs(&[("KAFKA_HEAP_OPTS", "-Xmx1G"), ("KAFKA_DEBUG", "y"), ("HOME", "/")]);
        let (_, warnings) = BrokerConfig::load(None, &settings, environment).unwrap();
        let mut texts: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        texts.sort_unstable();
        assert_eq!(
            texts,
            [
                "--override: unknown setting num.partition is ignored; did you mean num.partitions?",
                "--override: unknown setting super.users is ignored",
                "accepted without effect: background.threads, num.io.threads (each lane (milena.lanes) \
                 reads, handles and answers its own requests; there are no thread pools or queues)",
                "accepted without effect: listener.name.plaintext.connections.max.idle.ms (settings of a single \
                 listener are not built yet; the general ones hold)",
                "accepted without effect: quota.producer.default (quotas are not built yet; no client is \
                 throttled)",
                "environment without effect: KAFKA_DEBUG, KAFKA_HEAP_OPTS (it steers Kafka's scripts or \
                 the Java machine)",
                "port is deprecated; use listeners",
            ]
        );
    }
}
