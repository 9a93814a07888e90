//! What is wrong with partitions, told in the log whenever it changes: who is under-replicated, who has too few replicas in sync
//! for `acks=all`, what is offline here; and, by the active controller, which partitions of the cluster have no leader.
//!
//! Each broker speaks of what it leads, as the gauges of Kafka's do, so that every partition is told once. Between two looks
//! [`run`] sleeps: what comes and goes meanwhile is in the lines of single partitions (`ISR updated to ..`).
//!
//! **Deviation:** Kafka has these as metrics only (`UnderReplicatedPartitions`, `UnderMinIsrPartitionCount`, `OfflineReplicaCount`,
//! `OfflinePartitionsCount`), which somebody has to look at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::TopicPartition;

use super::ReplicaManager;
use crate::metadata_cache::{MetadataCache, MetadataSnapshot};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Partitions that a line names; the others are counted.
const NAMED_MAX: usize = 10;
const LOGGER: &str = "kafka.server.ReplicaManager";
const CONTROLLER_LOGGER: &str = "kafka.controller.KafkaController";

type Partitions = BTreeSet<TopicPartition>;

/// What is wrong at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    /// Led here, with fewer replicas in sync than there are.
    under_replicated: Partitions,
    /// Led here, with fewer replicas in sync than `min.insync.replicas`.
    under_min_isr: Partitions,
    /// Of this broker, and not served: a failed directory, damaged bytes.
    offline: Partitions,
    /// Of the cluster, without a leader; only where this broker is the controller.
    leaderless: Partitions,
    controller: Option<i32>,
}

impl Health {
    fn of(replicas: &ReplicaManager, metadata: &MetadataSnapshot) -> Health {
        let mut health = Health {
            offline: replicas.offline_partitions(),
            controller: metadata.controller_id(),
            ..Health::default()
        };
        for partition in replicas.online_partitions() {
            let Some(led) = partition.led() else { continue };
            let name = partition.name();
            if led.in_sync < led.replicas {
                health.under_replicated.insert(name.clone());
            }
            if led.in_sync < led.min_in_sync {
                health.under_min_isr.insert(name.clone());
            }
        }
        if health.controller == Some(replicas.broker_id()) {
            for topic in metadata.topics() {
                let leaderless = topic.partitions.iter().filter(|one| one.leader.is_none());
                let names = leaderless.map(|one| TopicPartition::new(Arc::clone(&topic.name), one.partition));
                health.leaderless.extend(names);
            }
        }
        health
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    logger: &'static str,
    is_bad: bool,
    text: String,
}

impl Line {
    /// What changed of one kind: nothing, those that are in trouble now, or that none is any more.
    fn of(
        logger: &'static str,
        before: &Partitions,
        now: &Partitions,
        bad: &str,
        good: &str,
    ) -> Option<Line> {
        (before != now).then(|| Line {
            logger,
            is_bad: !now.is_empty(),
            text: match now.len() {
                0 => good.to_owned(),
                count => format!("{bad}: {count} ({})", names(now)),
            },
        })
    }
}

fn names(partitions: &Partitions) -> String {
    let named: Vec<String> = partitions
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    match partitions.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// What there is to tell of `now`, after `before` was told.
fn told(broker_id: i32, before: &Health, now: &Health) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(controller) = now.controller.filter(|_| now.controller != before.controller) {
        lines.push(Line {
            logger: CONTROLLER_LOGGER,
            is_bad: false,
            text: format!("[Controller id={broker_id}] The active controller is broker {controller}"),
        });
    }
    let here = [
        (
            &before.under_replicated,
            &now.under_replicated,
            "Under-replicated partitions led here",
            "No partition led here is under-replicated any more",
        ),
        (
            &before.under_min_isr,
            &now.under_min_isr,
            "Partitions led here with fewer replicas in sync than min.insync.replicas",
            "All partitions led here have min.insync.replicas again",
        ),
        (
            &before.offline,
            &now.offline,
            "Offline partitions of this broker",
            "No partition of this broker is offline any more",
        ),
    ];
    for (before, now, bad, good) in here {
        let line = Line::of(LOGGER, before, now, bad, good);
        lines.extend(line.map(|line| Line {
            text: format!("[ReplicaManager broker={broker_id}] {}", line.text),
            ..line
        }));
    }
    // Who is no controller any more leaves it to the next one to tell.
    if now.controller == Some(broker_id) {
        let (bad, good) = (
            "Partitions of the cluster without a leader",
            "Every partition has a leader again",
        );
        let line = Line::of(CONTROLLER_LOGGER, &before.leaderless, &now.leaderless, bad, good);
        lines.extend(line.map(|line| Line {
            text: format!("[Controller id={broker_id}] {}", line.text),
            ..line
        }));
    }
    lines
}

/// Tells it as long as it is polled.
pub async fn run(replicas: Arc<ReplicaManager>, metadata: Arc<MetadataCache>) {
    let mut before = Health::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = Health::of(&replicas, &metadata.load());
        for line in told(replicas.broker_id(), &before, &now) {
            // The target of an event is a constant.
            match (line.logger == CONTROLLER_LOGGER, line.is_bad) {
                (true, true) => tracing::warn!(target: CONTROLLER_LOGGER, "{}", line.text),
                (true, false) => tracing::info!(target: CONTROLLER_LOGGER, "{}", line.text),
                (false, true) => tracing::warn!(target: LOGGER, "{}", line.text),
                (false, false) => tracing::info!(target: LOGGER, "{}", line.text),
            }
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(numbers: impl IntoIterator<Item = i32>) -> Partitions {
        let numbers = numbers.into_iter();
        numbers.map(|number| TopicPartition::new("t", number)).collect()
    }

    fn texts(before: &Health, now: &Health) -> Vec<(bool, String)> {
        let lines = told(1, before, now).into_iter();
        lines.map(|line| (line.is_bad, line.text)).collect()
    }

    #[test]
    fn trouble_is_told_once_with_names_and_its_end_too() {
        let well = Health::default();
        let ill = Health {
            under_replicated: partitions([3, 0]),
            under_min_isr: partitions([3]),
            offline: partitions(0..12),
            ..Health::default()
        };
        let expected = [
            "Under-replicated partitions led here: 2 (t-0, t-3)",
            "Partitions led here with fewer replicas in sync than min.insync.replicas: 1 (t-3)",
            "Offline partitions of this broker: 12 (t-0, t-1, t-2, t-3, t-4, t-5, t-6, t-7, t-8, t-9 and 2 more)",
        ];
        let expected = expected.map(|text| (true, format!("[ReplicaManager broker=1] {text}")));
        assert_eq!(texts(&well, &ill), expected);
        assert_eq!(texts(&ill, &ill), []);
        let ended = texts(&ill, &well);
        assert!(
            ended
                .iter()
                .all(|(is_bad, text)| !is_bad && (text.contains("any more") || text.contains("again")))
        );
        assert_eq!(ended.len(), 3);
    }

    #[test]
    fn the_controller_alone_tells_of_partitions_without_a_leader() {
        let of = |controller, leaderless| Health {
            controller: Some(controller),
            leaderless,
            ..Health::default()
        };
        let told = texts(&of(2, partitions([])), &of(1, partitions([4])));
        let expected = [
            (
                false,
                "[Controller id=1] The active controller is broker 1".to_owned(),
            ),
            (
                true,
                "[Controller id=1] Partitions of the cluster without a leader: 1 (t-4)".to_owned(),
            ),
        ];
        assert_eq!(told, expected);
        let again = texts(&of(1, partitions([4])), &of(1, partitions([])));
        assert_eq!(
            again,
            [(
                false,
                "[Controller id=1] Every partition has a leader again".to_owned()
            )]
        );
        let deposed = texts(&of(1, partitions([4])), &of(2, partitions([])));
        assert_eq!(
            deposed,
            [(
                false,
                "[Controller id=1] The active controller is broker 2".to_owned()
            )]
        );
    }
}
