//! A broker: its disk outlives it, everything else ends with its process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use milena_engine::io::simulated::{Completions, Fault as DiskFault, SimulatedDisk};
use milena_engine::io::{Clock, Io};
use milena_engine::log_manager::{LogManager, LogManagerConfig, LogManagerObserver, Survey};
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use super::clock::SimulatedClock;
use super::isr_store::{self, ControllerIsrStore};
use super::leader::SimulatedEndpoint;
use super::network::Place;
use super::{Shape, TOPIC, World, group};
use crate::broker::command_handler::{CommandHandler, CommandTargets};
use crate::broker::configs::TopicConfigs;
use crate::cluster::{BoxFuture, Broker, Endpoint, SecurityProtocol};
use crate::config::BrokerConfig;
use crate::controller::command::{BrokerChannel, BrokerCommand, BrokerReply, CommandRefusal};
use crate::controller::context::LiveBroker;
use crate::controller::{Controller, ControllerSettings, LeaderRebalance};
use crate::coordination::log_dir_events;
use crate::coordination::lost_writes::wait_until_nobody_counts_on;
use crate::coordination::simulated::SimulatedZooKeeper;
use crate::coordination::startup::{self, Registering};
use crate::coordination::znodes::topic::{ReplicaAssignment, TopicAssignment};
use crate::coordination::znodes::{self, BrokerRegistration, ControllerNode, RegistrationVersion};
use crate::coordination::{Coordination, Operation, SessionEvent};
use crate::fetch_session::FetchSessionCache;
use crate::group::{GROUP_METADATA_TOPIC_NAME, GroupCoordinator};
use crate::metadata_cache::MetadataCache;
use crate::replication::coordinator_log::OffsetsTopic;
use crate::replication::isr_manager::{self, IsrStore, TreeIsrStore};
use crate::replication::replica_fetcher::FetcherRules;
use crate::replication::replica_fetcher_manager::{Fetching, LeaderEndpoint};
use crate::replication::replication_quota_manager::QuotaWindows;
use crate::replication::{ReplicaManager, ReplicaManagerSettings};

pub(super) const LISTENER: &str = "PLAINTEXT";
/// What stays free on a broker's disk.
pub(super) const RESERVE_BYTES: u64 = 200_000;
const LAG_MAX: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine with a disk.
pub(super) struct Node {
    disk: RefCell<SimulatedDisk>,
    clock: Arc<SimulatedClock>,
    running: RefCell<Option<Rc<Running>>>,
    starting: RefCell<Option<AbortHandle>>,
}

/// A process.
pub(super) struct Running {
    pub(super) id: i32,
    pub(super) replicas: Arc<ReplicaManager>,
    pub(super) metadata: Arc<MetadataCache>,
    pub(super) fetch_sessions: RefCell<FetchSessionCache>,
    pub(super) session: Arc<SimulatedZooKeeper>,
    /// The czxid of the registration.
    epoch: Arc<AtomicI64>,
    controller_epoch: Arc<AtomicI32>,
    commands: CommandHandler,
    pub(super) groups: Arc<GroupCoordinator>,
    /// Once it has a place in the cluster.
    pub(super) controller: RefCell<Option<Controller>>,
    is_alive: Cell<bool>,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Node {
    pub(super) fn new(seed: u64, clock: SimulatedClock) -> Node {
        Node {
            disk: RefCell::new(SimulatedDisk::new(seed)),
            clock: Arc::new(clock),
            running: RefCell::new(None),
            starting: RefCell::new(None),
        }
    }

    /// Its wall clock is off by so many seconds from now on.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.clock.set_error(seconds);
    }
}

impl Running {
    pub(super) fn is_alive(&self) -> bool {
        self.is_alive.get()
    }

    /// The czxid of its registration.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether a command may come again after later ones. Some may not, here as in 2.7.2, because nothing on this wire tells that they
    /// are old: what a broker heard of the cluster, and who leads a partition that it has deleted meanwhile, with all that it knew of
    /// its epochs.
    fn may_hear_late(&self, command: &BrokerCommand) -> bool {
        match command {
            BrokerCommand::LeaderAndIsr(command) => {
                let mut partitions = command.partitions.iter().map(|one| &one.topic_partition);
                partitions.all(|at| self.replicas.partition(&at.topic, at.partition).is_ok())
            }
            BrokerCommand::StopReplica(_) => true,
            BrokerCommand::UpdateMetadata(_) => false,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(spawn_local(task).abort_handle());
    }
}

impl World {
    pub(super) fn running(&self, id: i32) -> Option<Rc<Running>> {
        self.nodes[id as usize].running.borrow().clone()
    }
}

/// The settings of every broker.
pub(super) fn config(shape: Shape) -> BrokerConfig {
    let mut settings = vec![
        ("log.dirs", "/d"),
        ("min.insync.replicas", "2"),
        ("log.segment.bytes", "4096"),
    ];
    if shape.is_synced {
        settings.push(("log.flush.interval.messages", "1"));
    }
    BrokerConfig::from_settings(&settings).expect("good settings")
}

/// Hears that the only log directory failed, which ends the process.
#[derive(Default)]
struct Observer {
    replicas: Mutex<Weak<ReplicaManager>>,
    failed: Arc<Notify>,
}

impl LogManagerObserver for Observer {
    fn directory_offline(&self, directory: &Path, _: &str) {
        let replicas = self.replicas.lock().upgrade();
        if let Some(replicas) = replicas {
            replicas.directory_failed(directory);
        }
        self.failed.notify_one();
    }
}

/// Writes the topics' assignments into the tree, as a tool does.
pub(super) async fn create_topics(world: &Rc<World>) {
    let session = world.ensemble.session();
    let tree: &dyn Coordination = &*session;
    startup::create_persistent_paths(tree)
        .await
        .expect("nothing is broken yet");
    for (topic, partitions) in [(TOPIC, world.shape.partitions), (GROUP_METADATA_TOPIC_NAME, 1)] {
        let replicas = |partition: i32| -> Vec<i32> {
            (0..3).map(|at| (partition + at) % world.shape.brokers).collect()
        };
        let partitions =
            (0..partitions).map(|partition| (partition, ReplicaAssignment::new(replicas(partition))));
        let assignment = TopicAssignment {
            partitions: partitions.collect(),
        };
        let config = Bytes::from_static(br#"{"version":1,"config":{}}"#);
        tree.set_or_create(&format!("/config/topics/{topic}"), config)
            .await
            .expect("nothing is broken yet");
        tree.set_or_create(&znodes::topic(topic), assignment.encode())
            .await
            .expect("nothing is broken yet");
    }
    session.close().await.expect("nothing is broken yet");
}

/// Starts a broker that is down.
pub(super) fn start(world: &Rc<World>, id: i32) {
    let node = &world.nodes[id as usize];
    let is_up = node.running.borrow().is_some() || node.starting.borrow().is_some();
    if is_up {
        return;
    }
    let task = spawn_local(bring_up(Rc::clone(world), id));
    *node.starting.borrow_mut() = Some(task.abort_handle());
}

/// The process ends at once; what it wrote is in the page cache.
pub(super) fn kill(world: &Rc<World>, id: i32) {
    if end(world, id) {
        let mut disk = world.nodes[id as usize].disk.borrow_mut();
        let next = disk.process_kill();
        *disk = next;
    }
}

/// The machine loses its power, and what is not on the medium.
pub(super) fn cut_power(world: &Rc<World>, id: i32) {
    if end(world, id) {
        let mut disk = world.nodes[id as usize].disk.borrow_mut();
        let next = disk.power_cut(world.numbers.next());
        *disk = next;
        if !world.shape.is_synced {
            world.promise.doubt(id);
        }
    }
}

fn end(world: &Rc<World>, id: i32) -> bool {
    let node = &world.nodes[id as usize];
    if let Some(starting) = node.starting.borrow_mut().take() {
        starting.abort();
    }
    let Some(running) = node.running.borrow_mut().take() else {
        return false;
    };
    running.is_alive.set(false);
    running.session.vanish();
    for task in running.tasks.borrow_mut().drain(..) {
        task.abort();
    }
    world.checker.event(format!("{id} is down"));
    true
}

pub(super) fn cut_zookeeper(world: &Rc<World>, id: i32, is_cut: bool) {
    if let Some(running) = world.running(id) {
        running.session.cut(is_cut);
    }
}

/// Who is the controller, as the ensemble's leader has it.
pub(super) fn controller(world: &World) -> Option<i32> {
    let data = world.ensemble.look(znodes::CONTROLLER)?.data?;
    let node = ControllerNode::decode(&data).expect("brokers write it well");
    Some(node.broker_id)
}

pub(super) fn expire_session(world: &Rc<World>, id: i32) {
    if let Some(running) = world.running(id) {
        running.session.expire();
    }
}

/// The disk of a running broker refuses an operation after `count` more.
pub(super) fn fail_disk(world: &World, id: i32, count: u64, fault: DiskFault) {
    let node = &world.nodes[id as usize];
    if node.running.borrow().is_some() {
        node.disk.borrow().fail_after(count, fault);
    }
}

/// So much is missing to what is to stay free on a broker's disk.
pub(super) fn fill_disk(world: &World, id: i32, missing_bytes: u64) {
    let disk = world.nodes[id as usize].disk.borrow();
    disk.set_capacity(None);
    if let Ok(space) = disk.space(Path::new("/")) {
        let used = space.total_bytes - space.available_bytes;
        disk.set_capacity(Some(used + RESERVE_BYTES - missing_bytes));
    }
}

pub(super) fn free_disk(world: &World, id: i32) {
    world.nodes[id as usize].disk.borrow().set_capacity(None);
}

/// The disk refuses nothing any more.
pub(super) fn mend_disk(world: &World, id: i32) {
    world.nodes[id as usize].disk.borrow().clear_faults();
}

/// A tool does something in the tree, once.
pub(super) fn do_as_tool(world: &Rc<World>, operation: Operation) {
    let session = world.ensemble.session();
    spawn_local(async move {
        // It is done, cannot be done, or it is not known whether: in any case the tool ends.
        let _ = session.multi(vec![operation]).await;
        let _ = session.close().await;
    });
}

async fn bring_up(world: Rc<World>, id: i32) {
    let node = &world.nodes[id as usize];
    let clock: Arc<dyn Clock> = node.clock.clone();
    let disk = node.disk.borrow().clone();
    disk.clear_faults();
    disk.set_clock(Arc::clone(&clock));
    disk.set_completions(Completions::Manual);
    let syncs = spawn_local(run_completions(Rc::clone(&world), disk.clone())).abort_handle();
    let survey = match Survey::of(&[PathBuf::from("/d")], &disk) {
        Ok(survey) => survey,
        Err(error) => {
            return world
                .checker
                .violation(format!("broker {id} cannot look at its disk: {error}"));
        }
    };
    let config = Arc::clone(&world.config);
    let log_config = Arc::new(config.topic_defaults.clone());
    let config_of = |_: &TopicPartition| Arc::clone(&log_config);
    let io = Arc::new(disk);
    let observer = Arc::new(Observer::default());
    let opened = LogManager::open(
        survey,
        LogManagerConfig {
            cuts_holes: true,
            disk_reserve_bytes: RESERVE_BYTES,
            ..LogManagerConfig::default()
        },
        &config_of,
        Arc::clone(&observer) as Arc<dyn LogManagerObserver>,
        io,
        Arc::clone(&clock),
    );
    let logs = match opened {
        Ok(logs) => Arc::new(logs),
        Err(error) => {
            return world
                .checker
                .violation(format!("broker {id} cannot open its logs: {error}"));
        }
    };
    let kept = Arc::clone(&logs);
    let metadata: Arc<MetadataCache> = Arc::default();
    let settings = ReplicaManagerSettings {
        broker_id: id,
        lag_max: LAG_MAX,
        fetcher_count: 1,
        quota_windows: QuotaWindows::default(),
        alter_log_dirs_quota_windows: QuotaWindows::default(),
        mover_count: 1,
    };
    let (replicas, inboxes) = ReplicaManager::new(settings, logs, Arc::clone(&metadata), Arc::clone(&clock));
    let replicas = Arc::new(replicas);
    *observer.replicas.lock() = Arc::downgrade(&replicas);
    let session = world.ensemble.session();
    let tree: Arc<dyn Coordination> = session.clone();
    let (epoch, controller_epoch) = (Arc::new(AtomicI64::new(-1)), Arc::default());
    let offsets = OffsetsTopic::new(Arc::clone(&replicas), Arc::clone(&clock));
    let configs = TopicConfigs::new(Arc::clone(&tree), Arc::new(ArcSwap::new(config)), HashMap::new());
    let groups = group::coordinator(&world, Arc::new(offsets), Arc::clone(&clock));
    let (commands, obeying) = CommandHandler::start(CommandTargets {
        broker_id: id,
        broker_epoch: Arc::clone(&epoch),
        controller_epoch: Arc::clone(&controller_epoch),
        replicas: Arc::clone(&replicas),
        metadata: Arc::clone(&metadata),
        groups: Arc::clone(&groups),
        configs: Arc::new(configs),
        blocks_for_disk: true,
    });
    let running = Rc::new(Running {
        id,
        replicas: Arc::clone(&replicas),
        metadata: Arc::clone(&metadata),
        fetch_sessions: RefCell::new(FetchSessionCache::new(100)),
        session,
        epoch,
        controller_epoch,
        commands,
        groups: Arc::clone(&groups),
        controller: RefCell::new(None),
        is_alive: Cell::new(true),
        tasks: RefCell::new(vec![syncs]),
    });
    // From here on it can be killed; commands reach it before its registration is answered, as in a broker.
    *node.running.borrow_mut() = Some(Rc::clone(&running));
    node.starting.borrow_mut().take();
    running.spawn(join(Rc::clone(&world), Rc::clone(&running), Arc::clone(&kept)));
    running.spawn(obeying);
    running.spawn(groups.run_timer());
    let news: Arc<Notify> = Arc::default();
    running.spawn(Arc::clone(&replicas).create_when_there_is_room(true, Arc::clone(&news)));
    running.spawn(log_dir_events::tell_controller(id, Arc::clone(&tree), news));
    running.spawn(keep_house(Arc::clone(&kept), Arc::clone(&clock)));
    running.spawn(end_when_failed(
        Rc::clone(&world),
        id,
        Arc::clone(&observer.failed),
    ));
    let store: Arc<dyn IsrStore> = if world.shape.asks_controller_for_isr {
        let (store, asked) = ControllerIsrStore::new();
        running.spawn(isr_store::ask(Rc::clone(&world), Rc::clone(&running), asked));
        Arc::new(store)
    } else {
        let (store, notices) = TreeIsrStore::new(id, Arc::clone(&tree), Arc::clone(&clock));
        running.spawn(notices);
        Arc::new(store)
    };
    running.spawn(isr_manager::run(inboxes.proposals, Arc::clone(&replicas), store));
    running.spawn(async move {
        loop {
            sleep(LAG_MAX / 2).await;
            replicas.check_isrs();
        }
    });
    let inbox = inboxes
        .fetchers
        .into_iter()
        .next()
        .expect("one thread was asked for");
    let fetching = Fetching {
        broker_id: id,
        id: 0,
        rules: FetcherRules {
            backoff: Duration::from_millis(500),
            has_sessions: true,
            has_epochs: true,
        },
        replicas: Arc::clone(&running.replicas),
        clock,
        connect: {
            let (world, running) = (Rc::downgrade(&world), Rc::downgrade(&running));
            Box::new(move |leader| -> Box<dyn LeaderEndpoint> {
                Box::new(SimulatedEndpoint::new(world.clone(), running.clone(), leader))
            })
        },
    };
    running.spawn(fetching.run(inbox));
    world.checker.event(format!("{id} is up"));
}

/// Checkpoints, and looks at the space that is left.
async fn keep_house(logs: Arc<LogManager>, clock: Arc<dyn Clock>) {
    loop {
        let next = logs.run_due(clock.monotonic());
        let wait = next.saturating_sub(clock.monotonic());
        sleep(wait.max(Duration::from_millis(1))).await;
    }
}

async fn end_when_failed(world: Rc<World>, id: i32, failed: Arc<Notify>) {
    failed.notified().await;
    world.checker.event(format!("the log directory of {id} failed"));
    kill(&world, id);
}

/// Registers, and then stands for election; registers anew after the session expired.
async fn join(world: Rc<World>, running: Rc<Running>, logs: Arc<LogManager>) {
    let tree: Arc<dyn Coordination> = running.session.clone();
    let has_expired = Arc::new(AtomicBool::new(false));
    let (again, mut expirations) = mpsc::unbounded_channel();
    {
        let has_expired = Arc::clone(&has_expired);
        tree.listen(Arc::new(move |event| match event {
            SessionEvent::Expired => has_expired.store(true, Ordering::Relaxed),
            SessionEvent::Connected if has_expired.swap(false, Ordering::Relaxed) => {
                let _ = again.send(());
            }
            _ => {}
        }));
    }
    let mut former = None;
    let doubtful = logs.may_lack_writes().to_vec();
    let waited = wait_until_nobody_counts_on(&*tree, running.id, doubtful, PATIENCE).await;
    waited.expect("the tree refuses nothing for good");
    former = Some(register(&running, &*tree, former).await);
    logs.settle_lost_writes();
    world.promise.registered(running.id);
    let (commands, outbox) = mpsc::unbounded_channel();
    let settings = ControllerSettings {
        broker_id: running.id,
        delete_topic_enable: true,
        unclean_leader_election_enable: false,
        leader_rebalance: Some(LeaderRebalance {
            interval: Duration::from_secs(10),
            imbalance_percentage: 10,
        }),
        feature_versioning: true,
    };
    let channel = Arc::new(SimulatedChannel { commands });
    let clock: Arc<dyn Clock> = world.nodes[running.id as usize].clock.clone();
    let (controller, control) = Controller::start(settings, Arc::clone(&tree), channel, clock);
    running.spawn(control);
    *running.controller.borrow_mut() = Some(controller.clone());
    running.spawn(command(Rc::clone(&world), Rc::clone(&running), outbox));
    while expirations.recv().await.is_some() {
        former = Some(register(&running, &*tree, former).await);
        controller.registered();
    }
}

async fn register(running: &Running, tree: &dyn Coordination, former_session: Option<i64>) -> i64 {
    let endpoint = Endpoint {
        listener: LISTENER.into(),
        host: "h".into(),
        port: 9092 + running.id,
        security_protocol: SecurityProtocol::Plaintext,
    };
    let registration = BrokerRegistration {
        broker: Broker {
            id: running.id,
            endpoints: vec![endpoint],
            rack: None,
        },
        jmx_port: -1,
        timestamp_ms: 1,
    };
    loop {
        let how = Registering {
            version: RegistrationVersion::V5,
            former_session,
            patience: PATIENCE,
        };
        match startup::register_broker(tree, &registration, how).await {
            Ok(registered) => {
                let controller_epoch = registered.controller_epoch;
                running
                    .controller_epoch
                    .fetch_max(controller_epoch, Ordering::AcqRel);
                running.epoch.store(registered.epoch, Ordering::Release);
                return registered.session;
            }
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Syncs are done when the disk gets to them.
async fn run_completions(world: Rc<World>, disk: SimulatedDisk) {
    let submitted = Arc::new(Notify::new());
    {
        let submitted = Arc::clone(&submitted);
        disk.set_listener(Box::new(move || submitted.notify_one()));
    }
    // What was submitted before.
    submitted.notify_one();
    loop {
        submitted.notified().await;
        sleep(Duration::from_micros(200 + world.numbers.below(5000))).await;
        disk.run_completions(world.numbers.next());
    }
}

enum ToBrokers {
    Live(Vec<LiveBroker>),
    Command {
        broker: i32,
        command: BrokerCommand,
        reply: oneshot::Sender<BrokerReply>,
    },
}

/// The controller's way to the brokers of this world.
struct SimulatedChannel {
    commands: mpsc::UnboundedSender<ToBrokers>,
}

impl BrokerChannel for SimulatedChannel {
    fn send(&self, broker: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        let (reply, replied) = oneshot::channel();
        let _ = self.commands.send(ToBrokers::Command {
            broker,
            command,
            reply,
        });
        Box::pin(async move { replied.await.unwrap_or(Err(CommandRefusal::StaleBrokerEpoch)) })
    }

    fn live_brokers(&self, brokers: &[LiveBroker]) {
        let _ = self.commands.send(ToBrokers::Live(brokers.to_vec()));
    }
}

type Epochs = Rc<RefCell<HashMap<i32, i64>>>;
type Commands = mpsc::UnboundedSender<(BrokerCommand, oneshot::Sender<BrokerReply>)>;

/// Commands to each broker in order, one at a time, sent again until the broker is another or none.
async fn command(world: Rc<World>, from: Rc<Running>, mut outbox: mpsc::UnboundedReceiver<ToBrokers>) {
    let live: Epochs = Epochs::default();
    let mut queues: HashMap<i32, Commands> = HashMap::new();
    while let Some(message) = outbox.recv().await {
        match message {
            ToBrokers::Live(brokers) => {
                *live.borrow_mut() = brokers.iter().map(|live| (live.broker.id, live.epoch)).collect();
            }
            ToBrokers::Command {
                broker,
                command,
                reply,
            } => {
                let queue = queues.entry(broker).or_insert_with(|| {
                    let (queue, queued) = mpsc::unbounded_channel();
                    from.spawn(command_one(
                        Rc::clone(&world),
                        Rc::clone(&from),
                        broker,
                        Rc::clone(&live),
                        queued,
                    ));
                    queue
                });
                let _ = queue.send((command, reply));
            }
        }
    }
}

async fn command_one(
    world: Rc<World>,
    from: Rc<Running>,
    broker: i32,
    live: Epochs,
    mut queued: mpsc::UnboundedReceiver<(BrokerCommand, oneshot::Sender<BrokerReply>)>,
) {
    let (here, there) = (Place::Broker(from.id), Place::Broker(broker));
    while let Some((command, reply)) = queued.recv().await {
        let answer = loop {
            if live.borrow().get(&broker) != Some(&command.origin().broker_epoch) {
                break Err(CommandRefusal::StaleBrokerEpoch);
            }
            // A broker listens once it is registered.
            if world.network.travel(here, there).await
                && let Some(target) = world.running(broker)
                && target.epoch() > 0
            {
                if let Some(later) = world.network.again() {
                    let (target, command) = (Rc::clone(&target), command.clone());
                    spawn_local(async move {
                        sleep(later).await;
                        if target.may_hear_late(&command) {
                            let _ = target.commands.submit(command).await;
                        }
                    });
                }
                let life = target.epoch();
                let answer = target.commands.submit(command.clone()).await;
                if answer.is_ok() && command.origin().broker_epoch < life {
                    world
                        .checker
                        .violation(format!("broker {broker} obeyed a command to its former life"));
                }
                if target.is_alive() && world.network.travel(there, here).await {
                    break answer;
                }
            }
            sleep(Duration::from_millis(100)).await;
        };
        let _ = reply.send(answer);
    }
}
