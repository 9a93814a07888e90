//! Topics: created, grown and deleted at a client's wish, or created because someone asked for them.
//!
//! A topic is its settings node and its assignment node; what is written is a wish, and the controller does the rest. All
//! wishes of one request are written before the first is waited for, so that they share commits. A wish is checked as Kafka
//! does, in Kafka's order and words; then [`TopicAdmin`] waits until the controller has carried it out and this broker has
//! heard of it, or the request's time is up.
//!
//! Parts: `creation`, `deletion`, `partitions` (more of them for a topic that is there). Source classes: `AdminManager`,
//! `AdminZkClient`, `DelayedCreatePartitions`, `DelayedDeleteTopics`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::assignment::Candidate;
use super::error::{AdminError, AdminErrorKind};
use crate::config::BrokerConfig;
use crate::coordination::Coordination;
use crate::metadata_cache::{MetadataCache, MetadataSnapshot};

mod creation;
mod deletion;
mod partitions;

pub use creation::{CreatedTopic, NewTopic};
pub use partitions::NewPartitions;

/// Creates, grows and deletes topics. Shared by all lanes.
#[derive(Debug)]
pub struct TopicAdmin {
    coordination: Arc<dyn Coordination>,
    metadata: Arc<MetadataCache>,
    config: Arc<ArcSwap<BrokerConfig>>,
}

impl TopicAdmin {
    /// `config` is [`super::dynamic::DynamicConfigManager::config`].
    pub fn new(
        coordination: Arc<dyn Coordination>,
        metadata: Arc<MetadataCache>,
        config: Arc<ArcSwap<BrokerConfig>>,
    ) -> TopicAdmin {
        TopicAdmin {
            coordination,
            metadata,
            config,
        }
    }

    /// `delete.topic.enable`
    pub fn is_deletion_enabled(&self) -> bool {
        self.config.load().topics.delete_topic_enable
    }

    pub fn is_known(&self, topic: &str) -> bool {
        self.metadata.contains_topic(topic)
    }

    /// Waits until the metadata cache is as `what` wants it; `false` if the time was up before.
    async fn wait_until(&self, timeout_ms: i32, what: impl Fn(&MetadataSnapshot) -> bool) -> bool {
        let mut updates = self.metadata.subscribe();
        let seen = async {
            while !what(&self.metadata.load()) {
                if updates.changed().await.is_err() {
                    return;
                }
            }
        };
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        // At the very end of the time, what is so counts.
        tokio::time::timeout(limit, seen).await.is_ok() || what(&self.metadata.load())
    }

    /// The live brokers, by id.
    fn candidates(&self) -> Vec<Candidate> {
        let now = self.metadata.load();
        let candidate = |broker: &crate::cluster::Broker| Candidate {
            id: broker.id,
            rack: broker.rack.as_deref().map(str::to_owned),
        };
        now.brokers().map(candidate).collect()
    }
}

fn has_leaders(now: &MetadataSnapshot, topic: &str, partition_count: i32) -> bool {
    let Some(topic) = now.topic(topic) else {
        return false;
    };
    let led = topic
        .partitions
        .iter()
        .filter(|one| one.partition < partition_count && one.leader.is_some());
    led.count() >= usize::try_from(partition_count).unwrap_or(0)
}

/// What was wished for is granted only if it is done before the time is up.
fn in_time<T>(
    timeout_ms: i32,
    answer: Result<T, AdminError>,
    is_done: impl FnOnce(&T) -> bool,
) -> Result<T, AdminError> {
    answer.and_then(|granted| match timeout_ms > 0 && is_done(&granted) {
        true => Ok(granted),
        false => Err(AdminError::bare(AdminErrorKind::RequestTimedOut)),
    })
}

fn joined(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
