//! Describing and changing settings on an embedded tree, in the words of a 2.7.2 broker that was asked the same.

use super::*;
use crate::admin::test_bench::{TestBench, run, while_running};
use crate::config::{AlterOperationType, ConfigSource};

fn resource(resource_type: ConfigResourceType, name: &str) -> ConfigResource {
    ConfigResource {
        resource_type,
        name: name.into(),
    }
}

fn pairs(settings: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
        .collect()
}

fn change(name: &str, operation: AlterOperationType, value: Option<&str>) -> AlterOperation {
    AlterOperation {
        name: name.into(),
        operation,
        value: value.map(str::to_owned),
    }
}

/// Variant and text.
fn refused<T: std::fmt::Debug>(result: Result<T, ConfigAdminError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    let variant = match &error {
        ConfigAdminError::InvalidTopicName(_) => "17",
        ConfigAdminError::UnknownTopic(_) => "3",
        ConfigAdminError::InvalidRequest(_) => "42",
        ConfigAdminError::InvalidConfig(_) => "40",
        ConfigAdminError::Tree(_) => "-1",
    };
    (variant, error.to_string())
}

use AlterOperationType::{Append, Delete, Set, Subtract};
use ConfigResourceType::{Broker, BrokerLogger, Topic, Unknown};

#[test]
fn what_cannot_be_described_is_refused_in_kafkas_words() {
    let cases = [
        (Topic, "", "17", "Topic name is illegal, it can't be empty"),
        (
            Topic,
            "a b",
            "17",
            "Topic name \"a b\" is illegal, it contains a character other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (Topic, "nope", "3", "unknown topic"),
        (
            Broker,
            "5",
            "42",
            "Unexpected broker id, expected 0 or empty string, but received 5",
        ),
        (Broker, "x", "42", "Broker id must be an integer, but it is: x"),
        (BrokerLogger, "", "42", "Broker id must not be empty"),
        (
            BrokerLogger,
            "5",
            "42",
            "Unexpected broker id, expected 0 but received 5",
        ),
        (Unknown, "t", "42", "Unsupported resource type: UNKNOWN"),
    ];
    run(async {
        let bench = TestBench::new().await;
        for (resource_type, name, code, text) in cases {
            let found = refused(bench.admin.describe(&resource(resource_type, name)).await);
            assert_eq!(found, (code, text.to_owned()));
        }
    });
}

#[test]
fn what_cannot_be_replaced_is_refused_in_kafkas_words_and_nothing_is_written() {
    type Case = (
        ConfigResourceType,
        &'static str,
        (&'static str, Option<&'static str>),
        &'static str,
        &'static str,
    );
    let cases: [Case; 9] = [
        (Topic, "t", ("x", None), "42", "Null value not supported for : x"),
        (
            Topic,
            "nope",
            ("x", Some("x")),
            "3",
            "The topic 'nope' does not exist.",
        ),
        (
            Topic,
            "ghost",
            ("x", Some("x")),
            "3",
            "Topic 'ghost' does not exist.",
        ),
        (
            Topic,
            "t",
            ("retention.ms", Some("x")),
            "42",
            "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value x for configuration \
             retention.ms: Not a number of type LONG",
        ),
        (Topic, "t", ("x", Some("x")), "40", "Unknown topic config name: x"),
        (
            Broker,
            "5",
            ("x", Some("x")),
            "42",
            "Unexpected broker id, expected 0, but received 5",
        ),
        (
            Broker,
            "x",
            ("x", Some("x")),
            "42",
            "Broker id must be an integer, but it is: x",
        ),
        (
            Broker,
            "0",
            ("log.dirs", Some("/x")),
            "42",
            "Invalid config value for resource ConfigResource(type=BROKER, name='0'): Cannot update these configs \
             dynamically: Set(log.dirs)",
        ),
        (
            Unknown,
            "t",
            ("x", Some("x")),
            "42",
            "AlterConfigs is only supported for topics and brokers, but resource type is UNKNOWN",
        ),
    ];
    run(async {
        let bench = TestBench::new().await;
        for (resource_type, name, setting, code, text) in cases {
            let (resource, wanted) = (resource(resource_type, name), pairs(&[setting]));
            let altered = bench.admin.alter(&resource, &wanted, false).await;
            assert_eq!(refused(altered), (code, text.to_owned()));
        }
        assert!(bench.changes().await.is_empty());
    });
}

#[test]
fn operations_that_cannot_be_are_refused_before_the_resource_is_looked_at() {
    let cases: [(&str, &[AlterOperation], &str, &str); 6] = [
        (
            "nope",
            &[change("a", Set, Some("1")), change("a", Delete, None)],
            "42",
            "Error due to duplicate config keys : a",
        ),
        (
            "nope",
            &[change("a", Set, None), change("b", Append, None)],
            "42",
            "Null value not supported for : SET:a,APPEND:b",
        ),
        (
            "nope",
            &[change("retention.ms", Append, Some("5"))],
            "42",
            "Config value append is not allowed for config key: retention.ms",
        ),
        (
            "nope",
            &[change("retention.ms", Set, Some("5"))],
            "3",
            "The topic 'nope' does not exist.",
        ),
        (
            "t",
            &[change("x", Subtract, Some("5"))],
            "40",
            "Unknown topic config name: x",
        ),
        (
            "t",
            &[change("cleanup.policy", Append, Some("x"))],
            "42",
            "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value x for configuration \
             cleanup.policy: String must be one of: compact, delete",
        ),
    ];
    run(async {
        let bench = TestBench::new().await;
        for (topic, operations, code, text) in cases {
            let topic = resource(Topic, topic);
            let altered = bench.admin.alter_incrementally(&topic, operations, false).await;
            assert_eq!(refused(altered), (code, text.to_owned()));
        }
        assert!(bench.changes().await.is_empty());
    });
}

#[test]
fn levels_of_loggers_are_listed_and_changed_and_a_request_that_is_wrong_changes_none() {
    run(async {
        let bench = TestBench::new().await;
        let own = resource(BrokerLogger, "0");
        let level = async |name: &str| {
            let entries = bench.admin.describe(&own).await.unwrap();
            let entry = entries.into_iter().find(|entry| entry.name == name).unwrap();
            assert_eq!(
                (entry.source as i8, entry.type_id(), entry.read_only),
                (6, 0, false)
            );
            entry.value.unwrap()
        };
        assert_eq!(level("root").await, "INFO");
        let set = [
            change("kafka.server", Set, Some("DEBUG")),
            change("root", Set, Some("WARN")),
        ];
        bench.admin.alter_incrementally(&own, &set, true).await.unwrap();
        assert_eq!(level("kafka.server").await, "INFO", "only checked");
        bench.admin.alter_incrementally(&own, &set, false).await.unwrap();
        assert_eq!(level("kafka.server.KafkaApis").await, "DEBUG");
        assert_eq!(level("kafka.log.LogManager").await, "WARN");

        let prefix = "Invalid config value for resource ConfigResource(type=BROKER_LOGGER, name='0'): ";
        let cases = [
            (
                change("nope", Set, Some("INFO")),
                format!("{prefix}Logger nope does not exist!"),
            ),
            (
                change("nope", Delete, None),
                format!("{prefix}Logger nope does not exist!"),
            ),
            (
                change("kafka", Set, Some("info")),
                format!(
                    "{prefix}Cannot set the log level of kafka to info as it is not a supported log level. Valid log \
                     levels are TRACE, ERROR, INFO, FATAL, DEBUG, WARN"
                ),
            ),
            (
                change("root", Delete, None),
                "Removing the log level of the root logger is not allowed".to_owned(),
            ),
            (
                change("kafka", Append, Some("INFO")),
                "APPEND operation is not allowed for the BROKER_LOGGER resource".to_owned(),
            ),
            (
                change("kafka", Subtract, Some("INFO")),
                "SUBTRACT operation is not allowed for the BROKER_LOGGER resource".to_owned(),
            ),
        ];
        for (wrong, text) in cases {
            let operations = [change("kafka.server", Delete, None), wrong];
            let altered = bench.admin.alter_incrementally(&own, &operations, false).await;
            assert_eq!(refused(altered), ("42", text));
        }
        assert_eq!(level("kafka.server").await, "DEBUG");
        let other = resource(BrokerLogger, "5");
        let altered = bench.admin.alter_incrementally(&other, &set, false).await;
        let text = "Unexpected broker id, expected 0, but received 5".to_owned();
        assert_eq!(refused(altered), ("42", text));

        let delete = [change("kafka.server", Delete, None)];
        bench
            .admin
            .alter_incrementally(&own, &delete, false)
            .await
            .unwrap();
        assert_eq!(level("kafka.server").await, "WARN");
    });
}

#[test]
fn a_change_is_written_as_kafka_writes_it_with_a_notification_that_reaches_the_listener() {
    run(async {
        let bench = TestBench::new().await;
        let topic = resource(Topic, "t");
        while_running(&bench, async |mut told| {
            let wanted = pairs(&[("retention.ms", Some("1")), ("segment.ms", Some("2"))]);
            bench.admin.alter(&topic, &wanted, true).await.unwrap();
            assert_eq!(bench.text("/config/topics/t").await, None);

            bench.admin.alter(&topic, &wanted, false).await.unwrap();
            assert_eq!(
                bench.text("/config/topics/t").await.unwrap(),
                r#"{"version":1,"config":{"retention.ms":"1","segment.ms":"2"}}"#
            );
            assert_eq!(
                bench
                    .text("/config/changes/config_change_0000000000")
                    .await
                    .unwrap(),
                r#"{"version":2,"entity_path":"topics/t"}"#
            );
            assert_eq!(
                told.recv().await.unwrap(),
                r#"t {"retention.ms": "1", "segment.ms": "2"}"#
            );

            let operations = [
                change("retention.ms", Delete, None),
                change("cleanup.policy", Append, Some("compact")),
            ];
            let altered = bench.admin.alter_incrementally(&topic, &operations, false);
            altered.await.unwrap();
            assert_eq!(
                told.recv().await.unwrap(),
                r#"t {"cleanup.policy": "delete,compact", "segment.ms": "2"}"#
            );

            bench.admin.alter(&topic, &[], false).await.unwrap();
            assert_eq!(told.recv().await.unwrap(), "t {}");
            assert_eq!(bench.changes().await.len(), 3);
        })
        .await;
    });
}

#[test]
fn two_changes_of_one_topic_at_a_time_do_not_lose_one_another() {
    run(async {
        let bench = TestBench::new().await;
        let topic = resource(Topic, "t");
        let one = [change("retention.ms", Set, Some("1"))];
        let two = [change("segment.ms", Set, Some("2"))];
        let (first, second) = tokio::join!(
            bench.admin.alter_incrementally(&topic, &one, false),
            bench.admin.alter_incrementally(&topic, &two, false),
        );
        first.unwrap();
        second.unwrap();
        assert_eq!(
            bench.text("/config/topics/t").await.unwrap(),
            r#"{"version":1,"config":{"retention.ms":"1","segment.ms":"2"}}"#
        );
        assert_eq!(bench.changes().await.len(), 2);
    });
}

#[test]
fn settings_of_brokers_hold_once_they_are_applied_and_are_described_with_their_sources() {
    run(async {
        let bench = TestBench::new().await;
        let (all, own) = (resource(Broker, ""), resource(Broker, "0"));
        let set = |value: &str| [change("message.max.bytes", Set, Some(value))];
        while_running(&bench, async |mut told| {
            bench
                .admin
                .alter_incrementally(&all, &set("5000"), false)
                .await
                .unwrap();
            assert_eq!(told.recv().await.unwrap(), "broker 1048588 -> 5000");
            bench
                .admin
                .alter_incrementally(&own, &set("6000"), false)
                .await
                .unwrap();
            assert_eq!(told.recv().await.unwrap(), "broker 5000 -> 6000");
        })
        .await;
        let stored = r#"{"version":1,"config":{"message.max.bytes":"5000"}}"#;
        assert_eq!(bench.text("/config/brokers/<default>").await.unwrap(), stored);
        let described = |entries: Vec<ConfigEntry>| {
            let found = entries
                .into_iter()
                .find(|entry| entry.name == "message.max.bytes");
            found.map(|entry| (entry.value.unwrap(), entry.source)).unwrap()
        };
        let cluster = bench.admin.describe(&all).await.unwrap();
        assert_eq!(
            described(cluster),
            ("5000".to_owned(), ConfigSource::DynamicDefaultBroker)
        );
        let broker = bench.admin.describe(&own).await.unwrap();
        assert_eq!(
            described(broker),
            ("6000".to_owned(), ConfigSource::DynamicBroker)
        );
        let topic = bench.admin.describe(&resource(Topic, "t")).await.unwrap();
        let limit = topic.iter().find(|entry| entry.name == "max.message.bytes");
        assert_eq!(limit.unwrap().value.as_deref(), Some("6000"));
    });
}

#[test]
fn a_change_creates_the_directories_that_the_tree_lacks() {
    run(async {
        let bench = TestBench::new().await;
        for path in ["/config/brokers", znodes::CONFIG_CHANGES] {
            let deleted = bench.coordination.delete(path, ExpectedVersion::Any).await;
            assert!(deleted.unwrap(), "{path}");
        }
        let limit = pairs(&[("message.max.bytes", Some("5"))]);
        bench
            .admin
            .alter(&resource(Broker, "0"), &limit, false)
            .await
            .unwrap();
        assert_eq!(bench.changes().await.len(), 1);
    });
}
