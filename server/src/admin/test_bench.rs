//! A broker's administration on an embedded tree in memory, for tests.

use std::sync::Arc;

use milena_engine::io::simulated::ManualClock;
use milena_engine::units::TimestampMs;
use tokio::sync::mpsc;

use super::configs::ConfigAdmin;
use super::dynamic::{ConfigListener, DynamicConfigManager};
use crate::config::{BrokerConfig, TopicConfig};
use crate::coordination::embedded::EmbeddedTree;
use crate::coordination::startup::create_persistent_paths;
use crate::coordination::{Coordination, znodes};
pub(crate) use crate::test_cluster::run;
use crate::test_cluster::{embedded_tree, metadata_of};

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
        let clock = Arc::new(ManualClock::new(TimestampMs(1_000_000)));
        let tree = embedded_tree(&clock);
        let coordination: Arc<dyn Coordination> = tree.session();
        create_persistent_paths(coordination.as_ref()).await.unwrap();
        let metadata = Arc::new(metadata_of(&[("t", 0), ("ghost", 0)]));
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
