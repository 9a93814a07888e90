//! Dynamic settings: which level wins, what is left out with a warning, what is refused and in which words.

use super::*;
use crate::config::ListenerName;

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn broker() -> BrokerConfig {
    BrokerConfig::from_settings(&[("log.retention.hours", "24"), ("num.io.threads", "8")]).unwrap()
}

#[test]
fn a_brokers_own_setting_wins_over_the_clusters_and_that_over_the_file() {
    let cluster = settings(&[("log.retention.ms", "5000"), ("message.max.bytes", "100")]);
    let (config, warnings) = broker().with_dynamic(&cluster, &settings(&[("log.retention.ms", "7000")]));
    assert_eq!(warnings, []);
    assert_eq!(
        (
            config.topic_defaults.retention_ms,
            config.topic_defaults.max_message_bytes
        ),
        (Some(7000), 100)
    );
    let (config, _) = config.with_dynamic(&BTreeMap::new(), &BTreeMap::new());
    assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
}

#[test]
fn a_listener_has_limits_of_its_own_at_both_levels_and_the_brokers_otherwise() {
    let key = "listener.name.plaintext.max.connections";
    let of_listener = |config: &BrokerConfig| {
        let limits = &config.network.listener_connections;
        limits.get(&ListenerName::new("PLAINTEXT")).copied()
    };
    let config = BrokerConfig::from_settings(&[("max.connection.creation.rate", "9"), (key, "5")]).unwrap();
    assert_eq!(of_listener(&config), Some((5, 9)));
    let (config, warnings) =
        config.with_dynamic(&settings(&[(key, "6")]), &settings(&[("max.connections", "7")]));
    assert_eq!(
        (of_listener(&config), config.network.max_connections),
        (Some((6, 9)), 7)
    );
    assert_eq!(warnings, []);
    let (config, _) = config.with_dynamic(&BTreeMap::new(), &settings(&[(key, "8")]));
    assert_eq!(of_listener(&config), Some((8, 9)));
    for level in [DynamicLevel::Broker, DynamicLevel::ClusterDefault] {
        assert!(broker().validate_dynamic(level, &settings(&[(key, "5")])).is_ok());
        for (text, expected) in [
            ("0", "Invalid max.connections 0"),
            (
                "-1",
                "Invalid value -1 for configuration max.connections: Value must be at least 0",
            ),
            (
                "x",
                "Invalid value x for configuration max.connections: Not a number of type INT",
            ),
        ] {
            let error = broker()
                .validate_dynamic(level, &settings(&[(key, text)]))
                .unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn what_is_stored_and_cannot_be_applied_is_left_out_and_named() {
    let cluster = settings(&[
        ("log.retention.ms", "soon"),
        ("log.dirs", "/x"),
        ("ssl.keystore.type", "JKS"),
        ("listeners", "PLAINTEXT://:1"),
        ("log.segment.bytes", "4096"),
        ("leader.replication.throttled.rate", "1000"),
    ]);
    let (config, warnings) = broker().with_dynamic(&cluster, &BTreeMap::new());
    assert_eq!(config.topic_defaults.segment_size_bytes, 4096);
    let texts: Vec<_> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        texts,
        [
            "Dynamic configs with invalid values will be ignored: Set(log.retention.ms)",
            "Non-dynamic configs configured in ZooKeeper will be ignored: Set(log.dirs)",
            "Security configs can be dynamically updated only using listener prefix, base configs will \
             be ignored: Set(ssl.keystore.type)",
            "Per-broker configs defined at default cluster level will be ignored: Set(listeners)",
        ]
    );
    let (config, warnings) = broker().with_dynamic(&BTreeMap::new(), &settings(&[("log.retention.ms", "0")]));
    assert_eq!(config.topic_defaults.retention_ms, Some(24 * 3_600_000));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn changes_that_may_not_be_are_refused_in_kafkas_words() {
    use DynamicLevel::{Broker, ClusterDefault};
    let cases: &[(DynamicLevel, (&str, &str), &str)] = &[
        (
            Broker,
            ("log.dirs", "/x"),
            "Cannot update these configs dynamically: Set(log.dirs)",
        ),
        (
            Broker,
            ("ssl.keystore.location", "/x"),
            "These security configs can be dynamically updated only per-listener using the listener prefix: \
             Set(ssl.keystore.location)",
        ),
        (
            ClusterDefault,
            ("listeners", "PLAINTEXT://:1"),
            "Cannot update these configs at default cluster level, broker id must be specified: \
             Set(listeners)",
        ),
        (
            Broker,
            ("message.max.bytes", "-1"),
            "Invalid value -1 for configuration message.max.bytes: Value must be at least 0",
        ),
        (
            Broker,
            ("num.io.threads", "3"),
            "Invalid dynamic configuration: Dynamic thread count update validation failed for \
             num.io.threads=3, value should be at least half the current value 8",
        ),
        (
            Broker,
            ("num.io.threads", "17"),
            "Invalid dynamic configuration: Dynamic thread count update validation failed for \
             num.io.threads=17, value should not be greater than double the current value 8",
        ),
        (
            Broker,
            ("listeners", "EXT://:1"),
            "Error creating broker listeners from 'EXT://:1': No security protocol defined for listener EXT",
        ),
        (
            Broker,
            ("listener.security.protocol.map", "EXT:PLAINTEXT"),
            "Error creating broker listeners from 'PLAINTEXT://127.0.0.1:9092': No security protocol defined for listener PLAINTEXT",
        ),
        (
            Broker,
            ("advertised.listeners", "SSL://h:1"),
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid options based on \
             currently configured listeners are SSL",
        ),
        (
            Broker,
            ("listeners", "SSL://:1"),
            "listener SSL://:1 needs SSL, which is not built yet; only PLAINTEXT listeners can be served",
        ),
        (
            Broker,
            ("listener.name.plaintext.ssl.keystore.location", "/x"),
            "Invalid dynamic configuration: listener.name.plaintext.ssl.keystore.location cannot be changed while this \
             broker runs; set it in the broker's properties and start it again",
        ),
        (
            Broker,
            ("log.retention.ms", "0"),
            "log.retention.ms must be unlimited (-1) or, equal or greater than 1",
        ),
    ];
    for (level, (name, text), expected) in cases {
        let error = broker()
            .validate_dynamic(*level, &settings(&[(name, text)]))
            .unwrap_err();
        assert_eq!(error.to_string(), *expected);
    }
}

#[test]
fn listeners_come_and_go_with_the_map_that_names_their_protocol_but_not_the_one_between_brokers() {
    let both = settings(&[
        ("listeners", "PLAINTEXT://:1,EXT://:2"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,EXT:PLAINTEXT",
        ),
        ("advertised.listeners", "PLAINTEXT://a:1,EXT://b:3"),
    ]);
    let next = broker().validate_dynamic(DynamicLevel::Broker, &both).unwrap();
    let texts = |endpoints: &[crate::config::EndPoint]| -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(&next.listeners), ["PLAINTEXT://:1", "EXT://:2"]);
    assert_eq!(
        texts(&next.advertised_listeners),
        ["PLAINTEXT://a:1", "EXT://b:3"]
    );
    for (name, text, expected) in [
        (
            "listeners",
            "EXT://:2",
            "advertised.listeners listener names must be equal to or a subset",
        ),
        (
            "advertised.listeners",
            "EXT://b:3",
            "inter.broker.listener.name must be a listener name",
        ),
        (
            "listeners",
            "PLAINTEXT://:1,EXT://:1",
            "Each listener must have a different port",
        ),
        (
            "listeners",
            "PLAINTEXT://:1,PLAINTEXT://:2",
            "Each listener must have a different name",
        ),
    ] {
        let mut changed = both.clone();
        changed.insert(name.to_owned(), text.to_owned());
        let error = next
            .validate_dynamic(DynamicLevel::Broker, &changed)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{name}={text}: {error}");
    }
}

#[test]
fn allowed_changes_give_the_configuration_that_would_be() {
    let next = broker().validate_dynamic(
        DynamicLevel::Broker,
        &settings(&[
            ("log.retention.ms", "1"),
            ("my.plugin", "x"),
            ("num.io.threads", "16"),
        ]),
    );
    assert_eq!(next.unwrap().topic_defaults.retention_ms, Some(1));
    assert!(
        broker()
            .validate_dynamic(
                DynamicLevel::ClusterDefault,
                &settings(&[("max.connections", "5")])
            )
            .is_ok()
    );
}
