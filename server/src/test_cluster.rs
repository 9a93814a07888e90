//! A cluster in memory for tests: an embedded tree, controllers on it, and brokers that obey and have a metadata cache each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::io::{Clock, Io};
use milena_engine::units::{LeaderEpoch, TimestampMs, TopicPartition};
use parking_lot::Mutex;

use crate::cluster::{BoxFuture, Broker, Endpoint, SecurityProtocol};
use crate::controller::command::{
    BrokerChannel, BrokerCommand, BrokerReply, CommandOrigin, MetadataLeader, PartitionMetadataUpdate,
    UpdateMetadataCommand,
};
use crate::controller::context::LiveBroker;
use crate::controller::{Controller, ControllerSettings};
use crate::coordination::embedded::{EmbeddedSession, EmbeddedTree};
use crate::coordination::startup::{Registering, create_persistent_paths, register_broker};
use crate::coordination::znodes::{BrokerRegistration, RegistrationVersion};
use crate::coordination::{
    Coordination, CoordinationError, MultiError, Node, Operation, OperationResult, SessionListener, Watch,
};
use crate::metadata_cache::MetadataCache;

/// Brokers that obey, with a metadata cache each.
#[derive(Default)]
pub(crate) struct Obedient {
    pub(crate) caches: BTreeMap<i32, Arc<MetadataCache>>,
    pub(crate) deleted: Mutex<Vec<TopicPartition>>,
}

impl BrokerChannel for Obedient {
    fn send(&self, broker_id: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        match command {
            BrokerCommand::UpdateMetadata(command) => {
                self.caches[&broker_id].update(&command);
            }
            BrokerCommand::StopReplica(command) => {
                let deleted = command.partitions.into_iter().filter(|one| one.delete_partition);
                self.deleted.lock().extend(deleted.map(|one| one.topic_partition));
            }
            BrokerCommand::LeaderAndIsr(_) => {}
        }
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn live_brokers(&self, _brokers: &[LiveBroker]) {}
}

pub(crate) struct Cluster {
    pub(crate) tree: EmbeddedTree,
    pub(crate) brokers: Arc<Obedient>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Cluster {
    pub(crate) fn new(brokers: i32) -> Cluster {
        let clock = Arc::new(ManualClock::new(TimestampMs(1_600_000_000_000)));
        let tree = embedded_tree(&clock);
        let caches = (0..brokers).map(|id| (id, Arc::default())).collect();
        Cluster {
            tree,
            brokers: Arc::new(Obedient {
                caches,
                ..Obedient::default()
            }),
            clock,
        }
    }

    pub(crate) async fn join(&self, id: i32) -> (Arc<EmbeddedSession>, Controller) {
        let session = self.tree.session();
        let controller = self.join_over(session.clone(), settings(id)).await;
        (session, controller)
    }

    /// Over a session of any kind.
    pub(crate) async fn join_over(
        &self,
        coordination: Arc<dyn Coordination>,
        settings: ControllerSettings,
    ) -> Controller {
        create_persistent_paths(coordination.as_ref()).await.unwrap();
        register(coordination.as_ref(), settings.broker_id).await;
        let channel: Arc<dyn BrokerChannel> = Arc::clone(&self.brokers) as Arc<dyn BrokerChannel>;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (controller, run) = Controller::start(settings, coordination, channel, clock);
        tokio::spawn(run);
        controller
    }

    /// Waits until the cache of a broker is as it should be.
    pub(crate) async fn until(&self, broker: i32, what: impl Fn(&MetadataCache) -> bool) {
        let cache = &self.brokers.caches[&broker];
        let mut updates = cache.subscribe();
        while !what(cache) {
            updates.changed().await.unwrap();
        }
    }
}

pub(crate) fn settings(broker_id: i32) -> ControllerSettings {
    ControllerSettings {
        broker_id,
        delete_topic_enable: true,
        unclean_leader_election_enable: false,
        leader_rebalance: None,
        feature_versioning: true,
    }
}

/// Registers a broker; returns its epoch.
pub(crate) async fn register(coordination: &dyn Coordination, id: i32) -> i64 {
    let how = Registering {
        version: RegistrationVersion::V5,
        former_session: None,
        patience: Duration::ZERO,
    };
    let registered = register_broker(coordination, &registration(id, 9092 + id), how).await;
    registered.unwrap().epoch
}

/// A tree on a disk of its own.
pub(crate) fn embedded_tree(clock: &Arc<ManualClock>) -> EmbeddedTree {
    let io: Arc<dyn Io> = Arc::new(SimulatedDisk::new(1));
    let directory = PathBuf::from("/a");
    io.create_dir_all(&directory).unwrap();
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    EmbeddedTree::open(&io, clock, &[directory]).unwrap()
}

/// The metadata of a cluster in which broker 0 leads these partitions, and there are no others.
pub(crate) fn metadata_of(partitions: &[(&str, i32)]) -> MetadataCache {
    let led = |&(topic, partition): &(&str, i32)| PartitionMetadataUpdate {
        topic_partition: TopicPartition::new(topic, partition),
        controller_epoch: 1,
        leader: MetadataLeader::Broker(0),
        leader_epoch: LeaderEpoch(0),
        isr: [0].into(),
        zk_version: 0,
        replicas: [0].into(),
        offline_replicas: [].into(),
    };
    let metadata = MetadataCache::new();
    metadata.update(&UpdateMetadataCommand {
        origin: CommandOrigin {
            controller_id: 0,
            controller_epoch: 1,
            broker_epoch: 1,
        },
        partitions: partitions.iter().map(led).collect(),
        live_brokers: [].into(),
    });
    metadata
}

pub(crate) fn registration(id: i32, port: i32) -> BrokerRegistration {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "h".into(),
        port,
        security_protocol: SecurityProtocol::Plaintext,
    };
    let broker = Broker {
        id,
        endpoints: vec![endpoint],
        rack: None,
    };
    BrokerRegistration {
        broker,
        jmx_port: -1,
        timestamp_ms: 1,
    }
}

pub(crate) async fn until_gone(tree: &dyn Coordination, path: &str) {
    loop {
        let gone = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&gone);
        if tree
            .get(path, Some(Box::new(move |_| notify.notify_one())))
            .await
            .unwrap()
            .is_none()
        {
            return;
        }
        gone.notified().await;
    }
}

/// [`run`], with a clock that moves on whenever everybody waits.
pub(crate) fn run_paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(test)
}

pub(crate) type Writing = Box<dyn Fn(Arc<dyn Coordination>, Vec<Operation>) -> Written + Send + Sync>;
type Written = BoxFuture<'static, Result<Vec<OperationResult>, MultiError>>;
pub(crate) type Meddling = Box<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

/// A session with another's hand in it.
pub(crate) struct Tampered {
    pub(crate) session: Arc<dyn Coordination>,
    pub(crate) writing: Writing,
    /// What happens before a node is read.
    pub(crate) before_get: Meddling,
}

impl Tampered {
    pub(crate) fn new(session: Arc<dyn Coordination>) -> Tampered {
        Tampered {
            session,
            writing: Box::new(|session, operations| Box::pin(async move { session.multi(operations).await })),
            before_get: Box::new(|_| Box::pin(std::future::ready(()))),
        }
    }
}

impl std::fmt::Debug for Tampered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tampered({:?})", self.session)
    }
}

impl Coordination for Tampered {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        let (before, path) = ((self.before_get)(path), path.to_owned());
        Box::pin(async move {
            before.await;
            self.session.get(&path, watch).await
        })
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        self.session.children(path, watch)
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        self.session.get_many(paths)
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        (self.writing)(Arc::clone(&self.session), operations)
    }

    fn session_id(&self) -> i64 {
        self.session.session_id()
    }

    fn listen(&self, listener: SessionListener) {
        self.session.listen(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.session.close()
    }
}
