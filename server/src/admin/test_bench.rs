//! A broker's administration on an embedded tree in memory, for tests.

use std::path::PathBuf;
use std::sync::Arc;

use milena_engine::io::Io;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::units::{LeaderEpoch, TimestampMs, TopicPartition};
use tokio::sync::mpsc;

use super::configs::ConfigAdmin;
use super::dynamic::{ConfigListener, DynamicConfigManager};
use crate::config::{BrokerConfig, TopicConfig};
use crate::controller::command::{
    CommandOrigin, MetadataLeader, PartitionMetadataUpdate, UpdateMetadataCommand,
};
use crate::coordination::embedded::EmbeddedTree;
use crate::coordination::startup::create_persistent_paths;
use crate::coordination::{Coordination, znodes};
use crate::metadata_cache::MetadataCache;

/// What a listener was told, as text.
#[derive(Debug)]
pub(crate) struct Told(mpsc::UnboundedSender<String>);

impl ConfigListener for Told {
    fn topic_changed(&self, topic: &str, config: &TopicConfig) {
        let _ = self.0.send(format!("{topic} {:?}", config.overrides()));
    }

    fn broker_changed(&self, previous: &BrokerConfig, current: &Arc<BrokerConfig>) {
        let limit = |config: &BrokerConfig| config.topic_defaults.max_message_bytes;
        let _ = self
            .0
            .send(format!("broker {} -> {}", limit(previous), limit(current)));
    }
}

/// Broker 0 of a cluster with the topic `t`; the topic `ghost` is deleted but still in the metadata cache.
pub(crate) struct TestBench {
    pub(crate) _tree: EmbeddedTree,
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dynamic: DynamicConfigManager,
    pub(crate) admin: ConfigAdmin,
}

impl TestBench {
    pub(crate) async fn new() -> TestBench {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(&PathBuf::from("/a")).unwrap();
        let io: Arc<dyn Io> = Arc::new(disk);
        let clock = Arc::new(ManualClock::new(TimestampMs(1_000_000)));
        let tree = EmbeddedTree::open(&io, clock.clone(), &[PathBuf::from("/a")]).unwrap();
        let coordination: Arc<dyn Coordination> = tree.session();
        create_persistent_paths(coordination.as_ref()).await.unwrap();
        let metadata = Arc::new(MetadataCache::new());
        let known = |topic: &str| PartitionMetadataUpdate {
            topic_partition: TopicPartition::new(topic, 0),
            controller_epoch: 1,
            leader: MetadataLeader::Broker(0),
            leader_epoch: LeaderEpoch(0),
            isr: [0].into(),
            zk_version: 0,
            replicas: [0].into(),
            offline_replicas: [].into(),
        };
        metadata.update(&UpdateMetadataCommand {
            origin: CommandOrigin {
                controller_id: 0,
                controller_epoch: 1,
                broker_epoch: 1,
            },
            partitions: vec![known("t"), known("ghost")],
            live_brokers: [].into(),
        });
        let config = BrokerConfig::from_settings(&[]).unwrap();
        let dynamic = DynamicConfigManager::new(0, Arc::clone(&coordination), clock.clone(), config);
        let admin = ConfigAdmin::new(
            0,
            Arc::clone(&coordination),
            metadata,
            dynamic.config(),
            Arc::default(),
        );
        let bench = TestBench {
            _tree: tree,
            coordination,
            clock,
            dynamic,
            admin,
        };
        bench.write(&znodes::topic("t"), "{}").await;
        bench
    }

    pub(crate) async fn write(&self, path: &str, data: &str) {
        let data = data.to_owned().into();
        self.coordination.set_or_create(path, data).await.unwrap();
    }

    pub(crate) async fn text(&self, path: &str) -> Option<String> {
        let node = self.coordination.get(path, None).await.unwrap()?;
        Some(String::from_utf8(node.data?.to_vec()).unwrap())
    }

    pub(crate) async fn changes(&self) -> Vec<String> {
        let names = self.coordination.children(znodes::CONFIG_CHANGES, None).await;
        names.unwrap().unwrap()
    }

    /// Writes a notification as another broker would.
    pub(crate) async fn notify(&self, data: &str) {
        let data = Some(data.to_owned().into());
        let mode = crate::coordination::CreateMode::PersistentSequential;
        let created = self
            .coordination
            .create(znodes::CONFIG_CHANGE_PREFIX, data, mode)
            .await;
        created.unwrap();
    }
}

/// Runs `script` while the manager runs; it gets what the listener is told. The manager has read the tree and waits before the
/// script begins: what it reads at its start are no changes, and are told to nobody.
pub(crate) async fn while_running<F>(
    bench: &TestBench,
    script: impl FnOnce(mpsc::UnboundedReceiver<String>) -> F,
) where
    F: Future<Output = ()>,
{
    let (sender, told) = mpsc::unbounded_channel();
    let listener = Told(sender);
    tokio::select! {
        biased;
        lost = bench.dynamic.run(&listener) => panic!("the tree is lost: {lost}"),
        () = script(told) => {}
    }
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(test)
}
