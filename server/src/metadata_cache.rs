//! The cluster as the controller last told us: brokers, topics, partitions, leaders.
//!
//! [`MetadataCache`] is a snapshot behind one atomic pointer. It is changed only by [`MetadataCache::update`] with an
//! UpdateMetadata command: partitions come as a delta, brokers always all. Reading costs one atomic load and takes no lock, so
//! lanes read it in every Produce and Fetch. Topics lie in shards, and an update copies only the shards that it touches:
//! creating the thousandth topic does not copy the other 999.
//!
//! It never asks the tree. Source class: `kafka.server.MetadataCache`.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use milena_engine::units::{LeaderEpoch, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::Broker;
use crate::controller::command::{MetadataLeader, PartitionMetadataUpdate, UpdateMetadataCommand};

/// Enough that a cluster of 10,000 topics copies some 160 entries per change.
const SHARDS: usize = 64;

/// One partition as last announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub partition: i32,
    /// `None` while there is no leader.
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    pub controller_epoch: i32,
    pub zk_version: i32,
    pub replicas: Arc<[i32]>,
    pub isr: Arc<[i32]>,
    /// Replicas whose broker or log directory is offline.
    pub offline_replicas: Arc<[i32]>,
}

/// One topic: its partitions, sorted by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub name: Arc<str>,
    pub partitions: Vec<PartitionMetadata>,
}

impl TopicMetadata {
    pub fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        // Dense from 0 but for moments of creation and deletion, so the first guess is nearly always right.
        let guess = usize::try_from(partition).ok()?;
        match self.partitions.get(guess) {
            Some(found) if found.partition == partition => Some(found),
            _ => self.position(partition).ok().map(|at| &self.partitions[at]),
        }
    }

    fn position(&self, partition: i32) -> Result<usize, usize> {
        self.partitions
            .binary_search_by_key(&partition, |known| known.partition)
    }
}

type Shard = HashMap<Arc<str>, Arc<TopicMetadata>>;

/// One state of the cluster; never changes.
#[derive(Clone, Debug)]
pub struct MetadataSnapshot {
    shards: Vec<Arc<Shard>>,
    brokers: Arc<BTreeMap<i32, Broker>>,
    controller_id: Option<i32>,
    hasher: RandomState,
}

impl MetadataSnapshot {
    fn empty() -> MetadataSnapshot {
        MetadataSnapshot {
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            brokers: Arc::default(),
            controller_id: None,
            hasher: RandomState::new(),
        }
    }

    fn shard_of(&self, topic: &str) -> usize {
        (self.hasher.hash_one(topic) % SHARDS as u64) as usize
    }

    pub fn topic(&self, topic: &str) -> Option<&Arc<TopicMetadata>> {
        self.shards[self.shard_of(topic)].get(topic)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionMetadata> {
        self.topic(topic)?.partition(partition)
    }

    pub fn contains_topic(&self, topic: &str) -> bool {
        self.topic(topic).is_some()
    }

    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.partition(topic, partition).is_some()
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicMetadata>> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// How many partitions a topic has; `None` for an unknown topic.
    pub fn partition_count(&self, topic: &str) -> Option<usize> {
        self.topic(topic).map(|topic| topic.partitions.len())
    }

    /// Live brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    pub fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    pub fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// The controller that sent the last update; `None` before the first one.
    pub fn controller_id(&self) -> Option<i32> {
        self.controller_id
    }
}

/// The holder of the present [`MetadataSnapshot`].
#[derive(Debug)]
pub struct MetadataCache {
    present: ArcSwap<MetadataSnapshot>,
    /// Serialises writers; readers never see it.
    writer: Mutex<()>,
    /// Counts updates, for those who wait for one.
    updates: watch::Sender<u64>,
}

impl Default for MetadataCache {
    fn default() -> Self {
        MetadataCache::new()
    }
}

impl MetadataCache {
    /// Without topics and brokers.
    pub fn new() -> MetadataCache {
        MetadataCache {
            present: ArcSwap::from_pointee(MetadataSnapshot::empty()),
            writer: Mutex::new(()),
            updates: watch::Sender::new(0),
        }
    }

    /// The present state, for the moment of a request. Holding the guard for long is harmless but costs memory.
    #[inline]
    pub fn load(&self) -> Guard<Arc<MetadataSnapshot>> {
        self.present.load()
    }

    /// The present state, to keep.
    pub fn snapshot(&self) -> Arc<MetadataSnapshot> {
        self.present.load_full()
    }

    /// Whether the partition is known here.
    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.load().contains(topic, partition)
    }

    pub fn contains_topic(&self, topic: &str) -> bool {
        self.load().contains_topic(topic)
    }

    /// Fires after every update.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.updates.subscribe()
    }

    /// Waits for the first update.
    pub async fn heard_of_the_controller(&self) {
        let mut updates = self.subscribe();
        // The sender lives as long as this.
        let _ = updates.wait_for(|count| *count > 0).await;
    }

    /// Takes over what the controller says; returns the partitions that were removed (their topic is being deleted), whose
    /// committed offsets the group coordinator drops.
    pub fn update(&self, command: &UpdateMetadataCommand) -> Vec<TopicPartition> {
        let deleted = {
            let _writer = self.writer.lock();
            let mut next = MetadataSnapshot::clone(&self.present.load());
            next.controller_id = Some(command.origin.controller_id);
            if next.brokers.len() != command.live_brokers.len()
                || !next.brokers.values().eq(command.live_brokers.iter())
            {
                next.brokers = Arc::new(
                    command
                        .live_brokers
                        .iter()
                        .map(|broker| (broker.id, broker.clone()))
                        .collect(),
                );
            }
            let mut deleted = Vec::new();
            // Partitions of one topic come together: the topic is taken out, changed and put back once.
            for changes in command
                .partitions
                .chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic)
            {
                next.apply(changes, &mut deleted);
            }
            self.present.store(Arc::new(next));
            deleted
        };
        self.updates.send_modify(|count| *count += 1);
        deleted
    }
}

impl MetadataSnapshot {
    /// `changes` are of one topic.
    fn apply(&mut self, changes: &[PartitionMetadataUpdate], deleted: &mut Vec<TopicPartition>) {
        let name = &changes[0].topic_partition.topic;
        let shard = self.shard_of(name);
        let shard = Arc::make_mut(&mut self.shards[shard]);
        let mut topic = shard.remove(name).unwrap_or_else(|| {
            Arc::new(TopicMetadata {
                name: Arc::clone(name),
                partitions: Vec::new(),
            })
        });
        let changed = Arc::make_mut(&mut topic);
        changed
            .partitions
            .reserve_exact(changes.len().saturating_sub(changed.partitions.len()));
        for change in changes {
            let position = changed.position(change.topic_partition.partition);
            let leader = match change.leader {
                MetadataLeader::Broker(id) => Some(id),
                MetadataLeader::None => None,
                MetadataLeader::Deleted => {
                    if let Ok(at) = position {
                        changed.partitions.remove(at);
                        deleted.push(change.topic_partition.clone());
                    }
                    continue;
                }
            };
            let partition = PartitionMetadata {
                partition: change.topic_partition.partition,
                leader,
                leader_epoch: change.leader_epoch,
                controller_epoch: change.controller_epoch,
                zk_version: change.zk_version,
                replicas: Arc::clone(&change.replicas),
                isr: Arc::clone(&change.isr),
                offline_replicas: Arc::clone(&change.offline_replicas),
            };
            match position {
                Ok(at) => changed.partitions[at] = partition,
                Err(at) => changed.partitions.insert(at, partition),
            }
        }
        if !topic.partitions.is_empty() {
            shard.insert(Arc::clone(&topic.name), topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Endpoint, SecurityProtocol};
    use crate::controller::command::CommandOrigin;

    fn broker(id: i32) -> Broker {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "h".into(),
            port: 9092 + id,
            security_protocol: SecurityProtocol::Plaintext,
        };
        Broker {
            id,
            endpoints: vec![endpoint],
            rack: None,
        }
    }

    fn change(topic: &str, partition: i32, leader: MetadataLeader) -> PartitionMetadataUpdate {
        PartitionMetadataUpdate {
            topic_partition: TopicPartition::new(topic, partition),
            controller_epoch: 1,
            leader,
            leader_epoch: LeaderEpoch(0),
            isr: [0].into(),
            zk_version: 0,
            replicas: [0].into(),
            offline_replicas: [].into(),
        }
    }

    fn update(partitions: Vec<PartitionMetadataUpdate>, brokers: Vec<Broker>) -> UpdateMetadataCommand {
        UpdateMetadataCommand {
            origin: CommandOrigin {
                controller_id: 7,
                controller_epoch: 1,
                broker_epoch: 1,
            },
            partitions,
            live_brokers: brokers.into(),
        }
    }

    #[test]
    fn a_delta_of_partitions_leaves_the_others_and_brokers_are_replaced() {
        let cache = MetadataCache::new();
        assert_eq!(cache.load().controller_id(), None);
        cache.update(&update(
            vec![
                change("a", 0, MetadataLeader::Broker(0)),
                change("a", 1, MetadataLeader::None),
            ],
            vec![broker(0), broker(1)],
        ));
        let before = cache.snapshot();
        cache.update(&update(
            vec![change("a", 1, MetadataLeader::Broker(1))],
            vec![broker(1)],
        ));
        let now = cache.load();
        assert_eq!(now.partition("a", 0).unwrap().leader, Some(0));
        assert_eq!(now.partition("a", 1).unwrap().leader, Some(1));
        assert_eq!(now.brokers().map(|broker| broker.id).collect::<Vec<_>>(), [1]);
        assert_eq!(now.controller_id(), Some(7));
        assert_eq!(
            before.partition("a", 1).unwrap().leader,
            None,
            "an old snapshot never changes"
        );
        assert_eq!(before.broker_count(), 2);
    }

    #[test]
    fn a_deleted_leader_removes_the_partition_and_with_the_last_one_the_topic() {
        let cache = MetadataCache::new();
        let all = |leader| {
            vec![
                change("a", 0, leader),
                change("a", 1, leader),
                change("b", 0, leader),
            ]
        };
        cache.update(&update(all(MetadataLeader::Broker(0)), vec![broker(0)]));
        let gone = cache.update(&update(
            vec![change("a", 0, MetadataLeader::Deleted)],
            vec![broker(0)],
        ));
        assert_eq!(gone, [TopicPartition::new("a", 0)]);
        assert!(cache.contains("a", 1) && !cache.contains("a", 0));
        cache.update(&update(
            vec![change("a", 1, MetadataLeader::Deleted)],
            vec![broker(0)],
        ));
        assert!(!cache.contains_topic("a") && cache.contains_topic("b"));
        assert!(
            cache
                .update(&update(vec![change("x", 0, MetadataLeader::Deleted)], vec![]))
                .is_empty()
        );
        assert!(!cache.contains_topic("x"));
    }

    #[test]
    fn partitions_that_come_out_of_order_are_found_by_number() {
        let cache = MetadataCache::new();
        let numbers = [5, 0, 3];
        cache.update(&update(
            numbers
                .map(|n| change("a", n, MetadataLeader::Broker(n)))
                .to_vec(),
            vec![broker(0)],
        ));
        let now = cache.load();
        for n in -1..7 {
            assert_eq!(
                now.partition("a", n).map(|p| p.partition),
                numbers.contains(&n).then_some(n)
            );
        }
        assert_eq!(now.partition_count("a"), Some(3));
        assert_eq!(now.partition_count("b"), None);
    }

    #[test]
    fn who_waits_for_the_first_word_of_a_controller_is_woken_by_it_and_waits_no_second_time() {
        crate::test_cluster::run(async {
            let cache = MetadataCache::new();
            let mut waiting = Box::pin(cache.heard_of_the_controller());
            tokio::select! {
                biased;
                () = &mut waiting => panic!("nobody said anything"),
                () = std::future::ready(()) => {}
            }
            cache.update(&update(vec![], vec![]));
            waiting.await;
            cache.heard_of_the_controller().await;
        });
    }

    #[test]
    fn an_update_wakes_those_who_wait_for_one() {
        let cache = MetadataCache::new();
        let mut updates = cache.subscribe();
        assert!(!updates.has_changed().unwrap());
        cache.update(&update(vec![], vec![]));
        assert!(updates.has_changed().unwrap());
        updates.mark_unchanged();
        assert!(!updates.has_changed().unwrap());
    }
}
