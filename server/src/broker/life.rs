//! The broker's life: start in order, stop in reverse (`KafkaServer.startup`, `KafkaServer.shutdown`).
//!
//! Order of the start: ports (taken, so that a taken one is told before anything is touched, but refusing whoever connects), log
//! directories and their locks, the tree, cluster id and broker id, settings of topics, logs (with recovery), registration
//! (whereupon the ports listen), the controller, groups, and at last the lanes, which let clients in. What fails names itself, and
//! what was taken is released.
//!
//! Alone, the tree is embedded, the directories are adopted into it, and clients are let in once the partitions are placed; a new
//! tree is established just before: a first start that fails leaves none behind. In a cluster the tree is ZooKeeper's, and who
//! may place partitions is another broker that finds this one registered: clients and brokers are let in at once.
//!
//! Threads: one per lane; `control`, with the controller, the timers of groups and the signals; `housekeeping`; those that fetch from
//! leaders and that move replicas between log directories; those of the disk and of the tree.
//!
//! Parts: `controlled_shutdown` (leadership is handed over), `error` (why a broker does not start), `features` (what the cluster has
//! agreed to use), `identity` (who this broker is), `listeners` (where it is reached), `membership` (its registration), `losses` (what
//! becomes of a directory or a tree that fails), `settings` (the configuration in the words of each part), `tree` (where the tree lies).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use milena_engine::checkpoint::BrokerMetadata;
use milena_engine::io::{Backend, Clock, Io, SystemClock};
use milena_engine::log_manager::{LogManager, LogManagerObserver, Survey};
use milena_engine::units::{TimestampMs, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

mod controlled_shutdown;
mod error;
mod features;
mod identity;
mod listeners;
mod losses;
mod membership;
mod replication;
mod settings;
mod tree;

use super::Broker;
use super::channel::BrokerChannels;
use super::command_handler::{CommandHandler, CommandTargets};
use super::configs::{Listen, Reconfigure, TopicConfigs, connection_quotas, rate_windows, replication_rates};
use super::housekeeping::Housekeeping;
use super::signals::Signals;
use crate::admin::configs::ConfigAdmin;
use crate::admin::dynamic::DynamicConfigManager;
use crate::admin::topics::TopicAdmin;
use crate::adoption::{self, AdoptionError, Import};
use crate::cluster::{self, BoxFuture};
use crate::config::{ApiVersion, BrokerConfig, IoBackend};
use crate::controller::Controller;
use crate::coordination::Coordination;
use crate::coordination::bounded::BoundedCoordination;
use crate::coordination::log_dir_events;
use crate::coordination::lost_writes::wait_until_nobody_counts_on;
use crate::coordination::producer_ids::{ProducerIdManager, raise_above};
use crate::coordination::startup;
use crate::coordination::znodes::BrokerRegistration;
use crate::fetch_session::FetchSessionCache;
use crate::group::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator};
use crate::handlers::Handlers;
use crate::metadata_cache::MetadataCache;
use crate::network::{ConnectionLimits, Lanes, NetworkConfig, OpenListener};
use crate::replication::coordinator_log::OffsetsTopic;
use crate::replication::replica_alter_log_dirs_manager::ReplicaAlterLogDirsManager;
use crate::replication::replica_fetcher_manager::ReplicaFetcherManager;
use crate::replication::{PartitionRefusal, ReplicaManager};
pub use error::StartError;
use features::{FeatureError, FeatureWatch};
use listeners::{Bound, Listeners};
use losses::{Observer, stop_when_lost};
use membership::Membership;
use settings::{
    channel_settings, controller_settings, group_config, log_manager_config, mover_settings, network_config,
    registering, replica_manager_settings,
};
use tree::Tree;
pub(crate) use tree::connect;

/// How long the controller may take to place the partitions that are there.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long clients wait for ZooKeeper to come back before they are told to ask again.
const OUTAGE_HIDDEN_FROM_CLIENTS: Duration = Duration::from_secs(10);
const LOGGER: &str = "kafka.server.KafkaServer";

/// What ended a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One of [`Signals`].
    Signal,
    /// It could not go on.
    Failed(String),
}

/// A started broker; stops when told to, not when dropped.
#[derive(Debug)]
pub struct RunningBroker {
    broker: Arc<Broker>,
    tree: Tree,
    controller: Controller,
    channels: Arc<BrokerChannels>,
    lanes: Lanes,
    fetchers: Option<Arc<ReplicaFetcherManager>>,
    movers: ReplicaAlterLogDirsManager,
    housekeeping: Housekeeping,
    control: Control,
    failures: mpsc::UnboundedReceiver<String>,
    addresses: Vec<String>,
    took: Duration,
}

impl RunningBroker {
    /// Starts a broker; returns once clients are let in.
    ///
    /// # Errors
    /// See [`StartError`]; everything that was taken is released.
    pub fn start(config: BrokerConfig) -> Result<RunningBroker, StartError> {
        RunningBroker::start_importing(config, None)
    }

    /// [`RunningBroker::start`] with what a person knows about topics that are found in the log directories.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_importing(
        config: BrokerConfig,
        import: Option<Import>,
    ) -> Result<RunningBroker, StartError> {
        Start::new(config, import).run()
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// One line that says that it is ready: where it listens, where its data are, how it reaches the disk, how long it took.
    pub fn ready_line(&self) -> String {
        let directories: Vec<String> = self
            .broker
            .config()
            .log_dirs
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        format!(
            "milena is ready on {} (broker {}, data in {}, io {}) after {:.1} ms",
            self.addresses.join(", "),
            self.broker.id,
            directories.join(", "),
            self.broker.io.describe(),
            self.took.as_secs_f64() * 1000.0
        )
    }

    /// Waits for a signal or a failure that the broker cannot survive.
    pub fn wait(&mut self, signals: &mut Signals) -> Ending {
        match signals.wait_or(self.failures.recv()) {
            None => Ending::Signal,
            Some(failure) => Ending::Failed(failure.unwrap_or_default()),
        }
    }

    /// Hands over what it leads, and stops in the reverse order of the start; all logs are synced and the next start recovers nothing. The answer is the
    /// directories where that failed; those that were offline before told so then.
    pub fn stop(self) -> Vec<(PathBuf, String)> {
        let id = self.broker.id;
        tracing::info!(target: LOGGER, "[KafkaServer id={id}] shutting down");
        if self.tree.embedded().is_none() {
            self.hand_over();
        }
        self.lanes.stop();
        self.broker.groups.shutdown();
        if let Some(fetchers) = self.fetchers {
            fetchers.stop();
        }
        self.movers.stop();
        self.control.stop(self.controller);
        self.housekeeping.stop();
        let logs = &self.broker.logs;
        let online = logs.directories().filter(|one| one.is_online());
        let online: Vec<_> = online.map(|one| one.path().to_owned()).collect();
        let mut report = logs.shutdown();
        for (directory, reason) in &report.unclean {
            tracing::warn!(target: LOGGER, "{} was not left clean: {reason}", directory.display());
        }
        self.tree.shutdown();
        tracing::info!(target: LOGGER, "[KafkaServer id={id}] shut down completed");
        report.unclean.retain(|(directory, _)| online.contains(directory));
        report.unclean
    }
}

impl RunningBroker {
    fn hand_over(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(controlled_shutdown::run(&self.broker, &self.channels)),
            Err(error) => tracing::warn!(target: LOGGER, "leadership is not handed over: {error}"),
        }
    }
}

/// The thread with the controller and the timers of groups.
#[derive(Debug)]
struct Control {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<Controller>,
}

impl Control {
    fn stop(self, controller: Controller) {
        // The thread is gone only if it panicked, and then there is nothing to stop.
        let _ = self.stop.send(controller);
        if self.thread.join().is_err() {
            tracing::error!(target: LOGGER, "the control thread ended by a panic");
        }
    }
}

/// A broker whose lanes do not let anybody in yet.
struct Joined {
    broker: Arc<Broker>,
    limits: Arc<ConnectionLimits>,
    /// Clients wait there.
    sockets: Vec<OpenListener>,
    listeners: Arc<Listeners>,
    controller: Controller,
    channels: Arc<BrokerChannels>,
    /// Where there are other brokers to follow.
    fetchers: Option<Arc<ReplicaFetcherManager>>,
    movers: ReplicaAlterLogDirsManager,
    /// For the control thread.
    control: BoxFuture<'static, ()>,
}

/// A start under way.
struct Start {
    config: BrokerConfig,
    import: Option<Import>,
    began: Instant,
    clock: Arc<dyn Clock>,
}

impl Start {
    fn new(config: BrokerConfig, import: Option<Import>) -> Start {
        Start {
            config,
            import,
            began: Instant::now(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    fn run(self) -> Result<RunningBroker, StartError> {
        let io = milena_engine::io::open(match self.config.io_backend {
            IoBackend::Auto => Backend::Auto,
            IoBackend::Uring => Backend::Uring,
            IoBackend::Syscall => Backend::Syscall,
        })?;
        self.run_with(io)
    }

    fn run_with(self, io: Arc<dyn Io>) -> Result<RunningBroker, StartError> {
        tracing::info!(target: LOGGER, "milena.io.backend: {}", io.describe());
        if self.import.is_some() && self.config.zookeeper.is_some() {
            return Err(StartError::ImportIntoZooKeeper);
        }
        let network = network_config(&self.config);
        let mut listeners = Vec::new();
        listeners::bind(&mut listeners, &self.config.listeners, &network)?;
        let survey = Survey::of(&self.config.log_dirs, &*io)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(StartError::Thread)?;
        let clock = Arc::clone(&self.clock);
        let tree = runtime.block_on(Tree::open(&self.config, &io, clock, &survey))?;
        self.run_on(&io, &tree, runtime, survey, network, listeners)
            .inspect_err(|_| tree.shutdown())
    }

    /// The rest of the start, with ports, directories and the tree in hand.
    fn run_on(
        self,
        io: &Arc<dyn Io>,
        tree: &Tree,
        runtime: tokio::runtime::Runtime,
        survey: Survey,
        network: NetworkConfig,
        listeners: Vec<Bound>,
    ) -> Result<RunningBroker, StartError> {
        let coordination = tree.session();
        let (failures, failed) = mpsc::unbounded_channel();
        if let Some(embedded) = tree.embedded() {
            stop_when_lost(&*coordination, embedded, &survey, failures.clone());
        }
        let observer = Arc::new(Observer::new(tree.embedded().cloned(), failures));
        let sockets = (&network, listeners);
        let joined =
            runtime.block_on(self.join(io, survey, tree, &coordination, sockets, Arc::clone(&observer)));
        // The replicas hold the logs, which hold their observer.
        let joined = joined.inspect_err(|_| observer.forget())?;
        let Joined {
            broker,
            limits,
            sockets,
            listeners: listening,
            controller,
            channels,
            fetchers,
            movers,
            control,
        } = joined;
        if let Some(embedded) = tree.embedded() {
            embedded.establish()?;
        }
        let (stop, stopped) = oneshot::channel::<Controller>();
        let groups = Arc::clone(&broker.groups);
        let control_loop = move || {
            runtime.block_on(async move {
                tokio::spawn(groups.run_timer());
                tokio::spawn(control);
                if let Ok(controller) = stopped.await {
                    controller.shutdown().await;
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(control_loop)
            .map_err(StartError::Thread)?;
        let housekeeping = Housekeeping::start(Arc::clone(&broker.logs), Arc::clone(&self.clock))
            .map_err(StartError::Thread)?;
        let addresses = sockets
            .iter()
            .map(|listener| format!("{}://{}", listener.name, listener.address));
        let addresses = addresses.collect();
        let shared = Arc::clone(&broker);
        let lanes = Lanes::start(network, sockets, limits, move |_| {
            Handlers::new(Arc::clone(&shared))
        })
        .map_err(StartError::Thread)?;
        listening.begin(lanes.listeners(), &broker.config());
        tracing::info!(target: LOGGER, "[KafkaServer id={}] started", broker.id);
        Ok(RunningBroker {
            broker,
            tree: tree.clone(),
            controller,
            channels,
            lanes,
            fetchers,
            movers,
            housekeeping,
            control: Control { thread, stop },
            failures: failed,
            addresses,
            took: self.began.elapsed(),
        })
    }

    /// Everything between the log directories and the lanes.
    async fn join(
        &self,
        io: &Arc<dyn Io>,
        survey: Survey,
        tree: &Tree,
        coordination: &Arc<dyn Coordination>,
        (network, mut bound): (&NetworkConfig, Vec<Bound>),
        observer: Arc<Observer>,
    ) -> Result<Joined, StartError> {
        let metadata = Arc::new(MetadataCache::new());
        startup::create_persistent_paths(&**coordination).await?;
        let (features_epoch, features) = self.features(coordination).await?;
        let (cluster_id, id) = identity::establish(&**coordination, &survey, &self.config).await?;
        let online = usable_directories(&survey);
        let mut producer_ids_may_be_new = false;
        if let Some(embedded) = tree.embedded() {
            let start = adoption::Start {
                broker_id: id,
                cluster_id: &cluster_id,
                config: &self.config,
                survey: &survey,
                io: &**io,
                tree_is_new: embedded.is_new(),
                import: self.import.as_ref(),
            };
            producer_ids_may_be_new = adoption::adopt(&**coordination, &start)
                .await?
                .producer_ids_may_be_new;
        }

        let dynamic = DynamicConfigManager::new(
            id,
            Arc::clone(coordination),
            Arc::clone(&self.clock),
            self.config.clone(),
        );
        dynamic.initialize().await?;
        let config = dynamic.config();
        listeners::bind(&mut bound, &config.load().listeners, network)?;
        let own = dynamic.topic_configs().await?;
        let configs = Arc::new(TopicConfigs::new(
            Arc::clone(coordination),
            Arc::clone(&config),
            own,
        ));
        let config_of = |partition: &TopicPartition| configs.resolved(&partition.topic);
        let logs = Arc::new(LogManager::open(
            survey,
            log_manager_config(&self.config),
            &config_of,
            Arc::clone(&observer) as Arc<dyn LogManagerObserver>,
            Arc::clone(io),
            Arc::clone(&self.clock),
        )?);
        if let Some(seen) = producer_ids_may_be_new
            .then(|| logs.highest_producer_id())
            .flatten()
        {
            raise_above(&**coordination, id, seen)
                .await
                .map_err(AdoptionError::from)?;
        }
        let (replicas, mut inboxes) = ReplicaManager::new(
            replica_manager_settings(id, &config.load()),
            Arc::clone(&logs),
            Arc::clone(&metadata),
            Arc::clone(&self.clock),
        );
        let replicas = Arc::new(replicas);
        replicas.quotas().set_rates(replication_rates(&config.load()));
        observer.tell(Arc::clone(&replicas));
        let offsets = OffsetsTopic::new(Arc::clone(&replicas), Arc::clone(&self.clock));
        let existing = startup::partition_count(&**coordination, GROUP_METADATA_TOPIC_NAME).await?;
        let groups = GroupCoordinator::new(
            group_config(&self.config, existing),
            Arc::new(offsets),
            Arc::clone(&self.clock),
        );

        let open = listeners::ports(&bound);
        let registration = self.registration(id, listeners::advertised(&open, &config.load()));
        let how = registering(&self.config);
        let doubtful = logs.may_lack_writes().to_vec();
        wait_until_nobody_counts_on(&**coordination, id, doubtful, how.patience).await?;
        let membership = Membership::join(coordination, &self.clock, registration, how).await?;
        // Not before: a port that answers says that the broker is there. Others, who hear of it now, connect at once.
        let sockets = listeners::listen(bound)?;
        let sockets = sockets.into_iter().map(|(_, socket)| socket).collect();
        logs.settle_lost_writes();
        let membership = Arc::new(membership);
        let listeners = Arc::new(Listeners::new(network.clone(), Arc::clone(&membership), open));
        logs.write_metadata(&BrokerMetadata {
            broker_id: id,
            cluster_id: Some(cluster_id.clone()),
        });
        if tree.embedded().is_some() {
            adoption::remember(&**coordination, &**io, &online).await?;
        }

        let epoch = membership.epoch();
        let (commands, carrying_out) = CommandHandler::start(CommandTargets {
            broker_id: id,
            broker_epoch: Arc::clone(&epoch),
            controller_epoch: membership.controller_epoch(),
            replicas: Arc::clone(&replicas),
            metadata: Arc::clone(&metadata),
            groups: Arc::clone(&groups),
            configs: Arc::clone(&configs),
            blocks_for_disk: false,
        });
        let channels = Arc::new(BrokerChannels::new(
            channel_settings(id, &self.config),
            commands.clone(),
        ));
        let settings = controller_settings(id, &config.load());
        let (controller, control) = Controller::start(
            settings,
            Arc::clone(coordination),
            Arc::clone(&channels) as _,
            Arc::clone(&self.clock),
        );
        let mut control = Box::pin(async move {
            tokio::join!(control, carrying_out);
        });
        if tree.embedded().is_some() {
            let placed = tokio::time::timeout(CONTROLLER_TIMEOUT, placed(&metadata, &replicas, id));
            tokio::select! {
                placed = placed => placed.map_err(|_| StartError::Controller)?,
                () = &mut control => return Err(StartError::Controller),
            }
        }
        let bounded = BoundedCoordination::new(Arc::clone(coordination), OUTAGE_HIDDEN_FROM_CLIENTS);
        let bounded: Arc<dyn Coordination> = Arc::new(bounded);
        let broker = Broker {
            id,
            epoch,
            features_epoch,
            cluster_id: cluster_id.into(),
            topics: TopicAdmin::new(Arc::clone(&bounded), Arc::clone(&metadata), Arc::clone(&config)),
            configs: ConfigAdmin::new(
                id,
                Arc::clone(&bounded),
                Arc::clone(&metadata),
                Arc::clone(&config),
                crate::logging::loggers(),
            ),
            config,
            io: Arc::clone(io),
            clock: Arc::clone(&self.clock),
            logs,
            commands,
            controller: controller.clone(),
            replicas,
            metadata,
            groups,
            producer_ids: ProducerIdManager::new(id, Arc::clone(&bounded)),
            fetch_sessions: Mutex::new(FetchSessionCache::new(
                self.config.fetch.max_incremental_session_cache_slots as usize,
            )),
            coordination: bounded,
        };
        let limits = ConnectionLimits::new(
            connection_quotas(&broker.config()),
            rate_windows(&self.config.network),
        );
        let moves = std::mem::take(&mut inboxes.movers);
        let (fetchers, replication) = match tree.embedded() {
            Some(_) => (None, None),
            None => {
                let parts = replication::Parts {
                    broker_id: id,
                    broker_epoch: &broker.epoch,
                    config: &self.config,
                    replicas: &broker.replicas,
                    metadata: &broker.metadata,
                    coordination,
                    clock: &self.clock,
                };
                let (fetchers, replication) =
                    replication::start(&parts, inboxes).map_err(StartError::Thread)?;
                (Some(Arc::new(fetchers)), Some(replication))
            }
        };
        let reconfigure = Reconfigure {
            configs,
            logs: Arc::clone(&broker.logs),
            limits: Arc::clone(&limits),
            controller: controller.clone(),
            replicas: Arc::clone(&broker.replicas),
            fetchers: fetchers.clone(),
            listen: Listen(Box::new({
                let listeners = Arc::clone(&listeners);
                move |config| listeners.follow(config)
            })),
        };
        let movers = ReplicaAlterLogDirsManager::start(
            mover_settings(id, &self.config),
            moves,
            &broker.replicas,
            &self.clock,
        )
        .map_err(StartError::Thread)?;
        let failures = observer.failures();
        let place = membership::keep(membership, controller.clone(), failures.clone());
        let news = observer.news();
        let room = Arc::clone(&broker.replicas).create_when_there_is_room(false, Arc::clone(&news));
        let losses = log_dir_events::tell_controller(id, Arc::clone(coordination), news);
        let control = async move {
            let dynamic = async move {
                let lost = dynamic.run(&reconfigure).await;
                tracing::error!(target: LOGGER, "changes of settings are not heard any more: {lost}");
            };
            let replication = async move {
                if let Some(replication) = replication {
                    replication.await;
                }
            };
            let features = async move {
                if let Some(features) = features {
                    features::run(features, failures).await;
                }
            };
            tokio::join!(control, dynamic, replication, place, losses, room, features);
        };
        Ok(Joined {
            broker: Arc::new(broker),
            limits,
            sockets,
            listeners,
            controller,
            channels,
            fetchers,
            movers,
            control: Box::pin(control),
        })
    }

    /// The epoch of what the cluster has agreed to use, and who keeps looking at it; alone there is nothing to agree upon.
    async fn features(
        &self,
        coordination: &Arc<dyn Coordination>,
    ) -> Result<(Arc<AtomicI64>, Option<FeatureWatch>), StartError> {
        let Some(zookeeper) = &self.config.zookeeper else {
            return Ok((Arc::new(AtomicI64::new(0)), None));
        };
        let epoch = Arc::new(AtomicI64::new(features::NO_EPOCH));
        if self.config.inter_broker_protocol_version < ApiVersion::V2_7_IV0 {
            return Ok((epoch, None));
        }
        let watch = FeatureWatch::new(coordination, Arc::clone(&epoch));
        let timeout_ms = zookeeper.connection_timeout_ms;
        let read = tokio::time::timeout(Duration::from_millis(timeout_ms.into()), watch.read());
        read.await.map_err(|_| FeatureError::TimedOut { timeout_ms })??;
        Ok((epoch, Some(watch)))
    }

    fn registration(&self, id: i32, endpoints: Vec<cluster::Endpoint>) -> BrokerRegistration {
        let TimestampMs(timestamp_ms) = self.clock.wall();
        BrokerRegistration {
            broker: cluster::Broker {
                id,
                endpoints,
                rack: self.config.rack.as_deref().map(Into::into),
            },
            jmx_port: -1,
            timestamp_ms,
        }
    }
}

fn usable_directories(survey: &Survey) -> Vec<PathBuf> {
    let online = survey.online.iter();
    online.map(|found| found.directory.path().to_owned()).collect()
}

/// Waits until this broker is the controller and hosts every partition that the metadata give to it.
async fn placed(metadata: &MetadataCache, replicas: &ReplicaManager, id: i32) {
    let mut updates = metadata.subscribe();
    while metadata.load().controller_id() != Some(id) || !is_placed(metadata, replicas, id) {
        if updates.changed().await.is_err() {
            return;
        }
    }
}

fn is_placed(metadata: &MetadataCache, replicas: &ReplicaManager, id: i32) -> bool {
    let snapshot = metadata.load();
    let mut partitions = snapshot.topics().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(move |partition| (&topic.name, partition))
    });
    partitions.all(|(topic, partition)| {
        partition.leader != Some(id)
            || !matches!(
                replicas.partition(topic, partition.partition),
                Err(PartitionRefusal::Unknown)
            )
    })
}

#[cfg(test)]
pub(super) mod tests;
