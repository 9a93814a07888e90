//! The manager on an embedded tree: what a listener is told on start, on changes and after a lost session.

use std::time::Duration;

use super::*;
use crate::admin::test_bench::{TestBench, run, while_running};

const OWN: &str = "/config/brokers/0";
const DEFAULT: &str = "/config/brokers/<default>";

fn settings(name: &str, value: &str) -> String {
    format!(r#"{{"version":1,"config":{{"{name}":"{value}"}}}}"#)
}

#[test]
fn notifications_are_taken_in_the_order_of_their_numbers_and_each_once() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut journal = ChangeJournal::default();
    let listed = names(&["config_change_0000000009", "config_change_0000000010", "stray"]);
    assert_eq!(
        journal.unread(&listed),
        ["stray", "config_change_0000000009", "config_change_0000000010"]
    );
    let now = TimestampMs(0);
    assert!(!journal.is_new("stray", now));
    assert!(journal.is_new("config_change_0000000009", now));
    assert!(journal.is_new("config_change_0000000010", now));
    assert!(journal.unread(&listed).is_empty());
    assert!(!journal.is_new("config_change_0000000008", now));
    assert!(journal.unread(&names(&["config_change_0000000010"])).is_empty());
    assert_eq!(journal.created.len(), 1);
}

#[test]
fn a_notification_expires_when_it_is_older_than_fifteen_minutes() {
    let mut journal = ChangeJournal::default();
    journal.is_new("config_change_0000000000", TimestampMs(1000));
    journal.is_new("config_change_0000000001", TimestampMs(1001));
    assert!(
        journal
            .expired(TimestampMs(1000 + CHANGE_EXPIRATION_MS))
            .is_empty()
    );
    assert_eq!(
        journal.expired(TimestampMs(1001 + CHANGE_EXPIRATION_MS)),
        ["config_change_0000000000"]
    );
}

#[test]
fn stored_settings_of_the_broker_hold_before_anything_is_opened_and_its_own_win() {
    run(async {
        let bench = TestBench::new().await;
        bench.write(DEFAULT, &settings("message.max.bytes", "1000")).await;
        bench.dynamic.initialize().await.unwrap();
        let limit = || bench.dynamic.config().load().topic_defaults.max_message_bytes;
        assert_eq!(limit(), 1000);
        bench.write(OWN, &settings("message.max.bytes", "2000")).await;
        bench.dynamic.initialize().await.unwrap();
        assert_eq!(limit(), 2000);
    });
}

#[test]
fn stored_settings_of_topics_are_found_and_one_that_cannot_be_is_named() {
    run(async {
        let bench = TestBench::new().await;
        bench
            .write("/config/topics/t", &settings("segment.ms", "5"))
            .await;
        let found = bench.dynamic.topic_configs().await.unwrap();
        assert_eq!(found["t"].overrides()["segment.ms"], "5");
        bench
            .write("/config/topics/u", &settings("segment.ms", "x"))
            .await;
        let error = bench.dynamic.topic_configs().await.unwrap_err().to_string();
        assert_eq!(
            error,
            "settings of topic u in the tree: Invalid value x for configuration segment.ms: Not a number of type LONG; \
             correct or remove the setting"
        );
    });
}

#[test]
fn on_start_a_listener_is_told_every_topic_that_has_settings_and_old_notifications_are_not_repeated() {
    run(async {
        let bench = TestBench::new().await;
        bench
            .write("/config/topics/t", &settings("segment.ms", "5"))
            .await;
        bench
            .write("/config/topics/u", &settings("segment.ms", "x"))
            .await;
        bench.notify(r#"{"version":2,"entity_path":"topics/t"}"#).await;
        while_running(&bench, async |mut told| {
            assert_eq!(told.recv().await.unwrap(), r#"t {"segment.ms": "5"}"#);
            bench.write(DEFAULT, &settings("message.max.bytes", "1000")).await;
            bench
                .notify(r#"{"version":2,"entity_path":"brokers/<default>"}"#)
                .await;
            assert_eq!(told.recv().await.unwrap(), "broker 1048588 -> 1000");
        })
        .await;
    });
}

#[test]
fn a_notification_brings_what_the_tree_has_by_then_and_what_is_not_understood_is_passed_over() {
    run(async {
        let bench = TestBench::new().await;
        while_running(&bench, async |mut told| {
            for strange in [
                "not json",
                "[]",
                r#"{"version":3,"entity_path":"topics/t"}"#,
                r#"{"version":2,"entity_path":"nosuch/t"}"#,
                r#"{"version":2,"entity_path":"topics"}"#,
                r#"{"version":2,"entity_path":"users/u/clients/c"}"#,
                r#"{"version":2,"entity_path":"brokers/7"}"#,
                r#"{"version":2,"entity_path":"brokers/0"}"#,
            ] {
                bench.notify(strange).await;
            }
            bench.write("/config/topics/u", "{").await;
            bench.notify(r#"{"version":2,"entity_path":"topics/u"}"#).await;
            bench
                .write("/config/topics/t", &settings("segment.ms", "6"))
                .await;
            bench
                .notify(r#"{"version":1,"entity_type":"topics","entity_name":"t"}"#)
                .await;
            assert_eq!(told.recv().await.unwrap(), r#"t {"segment.ms": "6"}"#);
            bench.notify(r#"{"version":2,"entity_path":"topics/gone"}"#).await;
            assert_eq!(told.recv().await.unwrap(), "gone {}");
        })
        .await;
    });
}

#[test]
fn notifications_older_than_fifteen_minutes_are_deleted_with_the_next_change() {
    run(async {
        let bench = TestBench::new().await;
        let change = r#"{"version":2,"entity_path":"topics/t"}"#;
        while_running(&bench, async |mut told| {
            bench.notify(change).await;
            assert_eq!(told.recv().await.unwrap(), "t {}");
            bench
                .clock
                .advance(Duration::from_millis(CHANGE_EXPIRATION_MS as u64 + 1));
            bench.notify(change).await;
            assert_eq!(told.recv().await.unwrap(), "t {}");
            bench.notify(change).await;
            // The purge after the second change comes before the third is looked at.
            assert_eq!(told.recv().await.unwrap(), "t {}");
            let left = bench.changes().await;
            assert_eq!((left.len(), left[0].as_str()), (2, "config_change_0000000001"));
        })
        .await;
    });
}

#[test]
fn after_a_lost_session_everything_is_read_again() {
    run(async {
        let bench = TestBench::new().await;
        while_running(&bench, async |mut told| {
            bench.notify(r#"{"version":2,"entity_path":"topics/t"}"#).await;
            assert_eq!(told.recv().await.unwrap(), "t {}");
            // A change whose notification is already purged.
            bench
                .write("/config/topics/t", &settings("segment.ms", "7"))
                .await;
            bench.dynamic.signals.reload.store(true, Ordering::Release);
            bench.dynamic.signals.wake.notify_one();
            assert_eq!(told.recv().await.unwrap(), r#"t {"segment.ms": "7"}"#);
        })
        .await;
    });
}
