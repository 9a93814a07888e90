//! Environment variables as settings, under the rules of Apache's own container images.
//!
//! `KAFKA_LOG_DIRS` is `log.dirs`: the prefix goes, letters become small, `_` stands for `.`, `__` for `_`
//! and `___` for `-`. Variables that steer Kafka's scripts or the Java machine are no settings; they are
//! known and have no effect. `MILENA_IO_BACKEND` is `milena.io.backend` by the same rules.

use super::definition::broker_definitions;

/// What a variable means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A setting of this name.
    Setting(String),
    /// Options of the Java machine, which may name a JAAS file.
    JavaOptions,
    /// Known, and without effect for this reason.
    NoEffect(&'static str),
    /// None of our variables.
    Foreign,
}

pub(super) const SCRIPTS: &str = "it steers Kafka's scripts or the Java machine";
const SERVICE_LINK: &str =
    "its value is an address that Kubernetes or Docker put there for a service of this name";

const FOR_TOOLS: &str = "it names brokers to the commands that ask a cluster";

/// Variables that begin with `KAFKA_` and are no settings.
const NO_SETTINGS: [&str; 18] = [
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_IMAGE",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_CMD_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_MODE",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_TOPICS_OPTS",
    "KAFKA_USER",
    "KAFKA_VERSION",
];

/// What `variable` with `value` means.
pub(super) fn meaning(variable: &str, value: &str) -> Meaning {
    let (rest, is_own) = match (variable.strip_prefix("KAFKA_"), variable.strip_prefix("MILENA_")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Meaning::Foreign,
    };
    if variable == "KAFKA_OPTS" {
        return Meaning::JavaOptions;
    }
    if NO_SETTINGS.contains(&variable) {
        return Meaning::NoEffect(SCRIPTS);
    }
    if matches!(variable, "KAFKA_BOOTSTRAP_SERVERS" | "MILENA_BOOTSTRAP_SERVER") {
        return Meaning::NoEffect(FOR_TOOLS);
    }
    if rest.is_empty() {
        return Meaning::Foreign;
    }
    // A service called "kafka" makes KAFKA_PORT=tcp://10.0.0.7:9092, KAFKA_SERVICE_HOST,
    // KAFKA_PORT_9092_TCP_ADDR...
    let link_name = rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT") || rest.starts_with("PORT_");
    if link_name || value.starts_with("tcp://") || value.starts_with("udp://") {
        return Meaning::NoEffect(SERVICE_LINK);
    }
    Meaning::Setting(setting_name(if is_own { variable } else { rest }))
}

fn setting_name(rest: &str) -> String {
    let name = rest
        .to_lowercase()
        .replace('_', ".")
        .replace("...", "-")
        .replace("..", "_");
    // One of Kafka's names has capitals (zookeeper.clientCnxnSocket).
    match broker_definitions().find(|definition| definition.name.eq_ignore_ascii_case(&name)) {
        Some(definition) => definition.name.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_settings_as_in_apaches_images() {
        let cases = [
            ("KAFKA_LOG_DIRS", "/data", "log.dirs"),
            ("KAFKA_NUM_PARTITIONS", "3", "num.partitions"),
            (
                "KAFKA_LISTENER_NAME_MY__LISTENER_SSL_KEYSTORE_TYPE",
                "x",
                "listener.name.my_listener.ssl.keystore.type",
            ),
            (
                "KAFKA_LISTENER_NAME_INTERNAL_SCRAM___SHA___256_SASL_JAAS_CONFIG",
                "x",
                "listener.name.internal.scram-sha-256.sasl.jaas.config",
            ),
            (
                "KAFKA_ZOOKEEPER_CLIENTCNXNSOCKET",
                "x",
                "zookeeper.clientCnxnSocket",
            ),
            ("KAFKA_MILENA_LOG_LEVEL", "debug", "milena.log.level"),
            ("MILENA_IO_BACKEND", "uring", "milena.io.backend"),
            ("KAFKA_LISTENERS", "PLAINTEXT://:9092", "listeners"),
        ];
        for (variable, value, expected) in cases {
            assert_eq!(
                meaning(variable, value),
                Meaning::Setting(expected.into()),
                "{variable}"
            );
        }
    }

    #[test]
    fn variables_of_scripts_and_service_links_are_no_settings() {
        for variable in NO_SETTINGS {
            assert_eq!(meaning(variable, "-Xmx1G"), Meaning::NoEffect(SCRIPTS));
        }
        for (variable, value) in [
            ("KAFKA_PORT", "tcp://10.0.0.7:9092"),
            ("KAFKA_SERVICE_HOST", "10.0.0.7"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.7"),
            ("MILENA_PORT", "tcp://10.0.0.7:9092"),
            ("MILENA_SERVICE_PORT", "9092"),
        ] {
            assert_eq!(
                meaning(variable, value),
                Meaning::NoEffect(SERVICE_LINK),
                "{variable}"
            );
        }
        for variable in ["PATH", "KAFKA", "KAFKA_", "MILENA", "MY_KAFKA_LOG_DIRS"] {
            assert_eq!(meaning(variable, "x"), Meaning::Foreign);
        }
    }
}
