//! The shell around [`super::replica_fetcher`]: threads, and a task for every leader (`ReplicaFetcherManager.scala`).
//!
//! `num.replica.fetchers` threads, each with a task for every leader that it fetches from. A partition belongs to one thread, by the
//! same sum as in Kafka, and to one leader at a time. A task has one question under way; leaders are reached through a
//! [`LeaderEndpoint`], which is [`wire`] in a broker.
//!
//! **Deviation:** the threads are for all leaders together, where 2.7.2 has so many for each.
//!
//! Their number changes while the broker runs: each partition whose thread is another by the new number is unfollowed there and
//! followed here, from its log's end. Meanwhile an answer may still arrive where it was; it is not applied, or was before, and nothing of
//! it is reported to the leader any more, so that the new thread may cut it off again.
//!
//! With synced acknowledgements (`flush.messages=1`) a follower asks for more only once what it has is on the medium: the offset it
//! asks from is its synced end, so that the leader acknowledges nothing that a power cut here could take back.

pub mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use milena_engine::io::Clock;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::replica_fetcher::truncation::EpochEnd;
use super::replica_fetcher::{
    EpochQuestion, FetchPlan, FetchedPartition, FetcherRules, FollowError, FollowedLog, FollowedLogs,
    LeaderRefusal, ReplicaFetcher, Step,
};
use super::{Partition, ReplicaManager};
use crate::metadata_cache::MetadataCache;
use crate::planted::{self, Bug};
use wire::{FetcherSettings, WireEndpoint};

const LOGGER: &str = "kafka.server.ReplicaFetcherManager";

/// The answer to a question, when it comes.
pub type Asking<'e, T> = Pin<Box<dyn Future<Output = Result<T, LeaderUnreachable>> + 'e>>;

/// The leader could not be asked, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LeaderUnreachable(pub String);

/// A leader's answer to a fetch.
#[derive(Debug)]
pub enum FetchAnswer {
    /// The session is none that the leader knows.
    SessionRefused(String),
    Fetched {
        session_id: i32,
        partitions: Vec<(TopicPartition, Result<PartitionAnswer, LeaderRefusal>)>,
    },
}

/// What a leader says of one partition.
#[derive(Debug)]
pub struct PartitionAnswer {
    pub high_watermark: Offset,
    pub log_start_offset: Option<Offset>,
    pub records: Bytes,
}

/// A leader, as one task of a follower asks it. After [`LeaderUnreachable`] the next question begins a new connection.
pub trait LeaderEndpoint {
    fn ask_epochs<'e>(
        &'e mut self,
        questions: &'e [EpochQuestion],
    ) -> Asking<'e, Vec<(TopicPartition, Result<EpochEnd, LeaderRefusal>)>>;

    /// Where the leader's log starts and ends.
    fn ask_bounds<'e>(
        &'e mut self,
        partition: &'e TopicPartition,
        epoch: LeaderEpoch,
    ) -> Asking<'e, Result<(Offset, Offset), LeaderRefusal>>;

    fn fetch<'e>(&'e mut self, plan: &'e FetchPlan) -> Asking<'e, FetchAnswer>;

    /// There is nothing to ask for the time being.
    fn rest(&mut self);
}

/// What a fetching thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetcherCommand {
    Follow {
        partition: TopicPartition,
        leader: i32,
        epoch: LeaderEpoch,
        high_watermark: Offset,
    },
    Unfollow(TopicPartition),
}

impl FetcherCommand {
    fn partition(&self) -> &TopicPartition {
        match self {
            FetcherCommand::Follow { partition, .. } | FetcherCommand::Unfollow(partition) => partition,
        }
    }
}

/// What one fetching thread hears.
#[derive(Debug)]
pub struct FetcherInbox(mpsc::UnboundedReceiver<FetcherCommand>);

type FetcherSender = mpsc::UnboundedSender<FetcherCommand>;

fn fetcher_channel() -> (FetcherSender, FetcherInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, FetcherInbox(receiver))
}

/// The way to the fetching threads.
#[derive(Debug)]
pub(super) struct Fetchers(Mutex<FetcherTable>);

#[derive(Debug)]
struct FetcherTable {
    threads: Vec<FetcherSender>,
    /// The leader and the epoch of each partition that is followed.
    followed: HashMap<TopicPartition, (i32, LeaderEpoch)>,
}

impl Fetchers {
    pub(super) fn new(count: usize) -> (Fetchers, Vec<FetcherInbox>) {
        let (threads, inboxes) = (0..count).map(|_| fetcher_channel()).unzip();
        let table = FetcherTable {
            threads,
            followed: HashMap::new(),
        };
        (Fetchers(Mutex::new(table)), inboxes)
    }

    pub(super) fn tell(&self, commands: Vec<FetcherCommand>) {
        let mut table = self.0.lock();
        for command in commands {
            match &command {
                FetcherCommand::Follow {
                    partition,
                    leader,
                    epoch,
                    ..
                } => drop(table.followed.insert(partition.clone(), (*leader, *epoch))),
                FetcherCommand::Unfollow(partition) => drop(table.followed.remove(partition)),
            }
            let thread = fetcher_id(command.partition(), table.threads.len());
            // Nobody fetches in a broker that stands alone or stops.
            let _ = table.threads[thread].send(command);
        }
    }

    /// Has so many threads from now on: hands over what is followed, and returns the inboxes of new ones. Those that are too many hear no
    /// more after what they are told to leave. `begin` says where to go on if the logs' epochs say nothing; `None` if the partition is
    /// gone.
    fn resize(
        &self,
        count: usize,
        begin: impl Fn(&TopicPartition, LeaderEpoch) -> Option<Offset>,
    ) -> Vec<FetcherInbox> {
        let mut table = self.0.lock();
        let before = table.threads.len();
        let (more, inboxes): (Vec<FetcherSender>, Vec<FetcherInbox>) =
            (before..count).map(|_| fetcher_channel()).unzip();
        table.threads.extend(more);
        for (partition, (leader, epoch)) in &table.followed {
            let (from, to) = (fetcher_id(partition, before), fetcher_id(partition, count));
            if from == to {
                continue;
            }
            let _ = table.threads[from].send(FetcherCommand::Unfollow(partition.clone()));
            if let Some(high_watermark) = begin(partition, *epoch) {
                let _ = table.threads[to].send(FetcherCommand::Follow {
                    partition: partition.clone(),
                    leader: *leader,
                    epoch: *epoch,
                    high_watermark,
                });
            }
        }
        table.threads.truncate(count);
        inboxes
    }
}

/// `AbstractFetcherManager.getFetcherId`: by Java's hash of the topic.
pub(super) fn fetcher_id(partition: &TopicPartition, count: usize) -> usize {
    let topic = partition.topic.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let sum = topic.wrapping_mul(31).wrapping_add(partition.partition);
    // `Utils.abs`: 0 for the smallest number, which has no opposite.
    let positive = sum.checked_abs().unwrap_or(0);
    positive as usize % count
}

/// A fetching thread, and how to end it.
type FetcherThread = (oneshot::Sender<()>, JoinHandle<()>);

/// The fetching threads; they end when told to.
#[derive(Debug)]
pub struct ReplicaFetcherManager {
    settings: FetcherSettings,
    replicas: Arc<ReplicaManager>,
    metadata: Arc<MetadataCache>,
    clock: Arc<dyn Clock>,
    /// Also those that are too many since a change of their number, and end by themselves.
    threads: Mutex<Vec<FetcherThread>>,
}

impl ReplicaFetcherManager {
    /// Starts the threads.
    ///
    /// # Errors
    /// There is no thread or runtime for one.
    pub fn start(
        settings: FetcherSettings,
        inboxes: Vec<FetcherInbox>,
        replicas: &Arc<ReplicaManager>,
        metadata: &Arc<MetadataCache>,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<ReplicaFetcherManager> {
        let manager = ReplicaFetcherManager {
            settings,
            replicas: Arc::clone(replicas),
            metadata: Arc::clone(metadata),
            clock: Arc::clone(clock),
            threads: Mutex::default(),
        };
        for (id, inbox) in inboxes.into_iter().enumerate() {
            manager.start_thread(id, inbox)?;
        }
        Ok(manager)
    }

    /// `num.replica.fetchers` is another one. One call at a time.
    ///
    /// # Errors
    /// There is no thread or runtime for one: what it was to fetch is not fetched.
    pub fn resize(&self, count: usize) -> std::io::Result<()> {
        let before = self.replicas.fetchers.0.lock().threads.len();
        let inboxes = self.replicas.fetchers.resize(count, |name, epoch| {
            let partition = self.replicas.partition(&name.topic, name.partition).ok()?;
            Some(partition.begin_as_follower(epoch))
        });
        tracing::info!(
            target: LOGGER,
            "Resized fetcher thread pool size from {before} to {count}"
        );
        for (id, inbox) in (before..).zip(inboxes) {
            self.start_thread(id, inbox)?;
        }
        Ok(())
    }

    fn start_thread(&self, id: usize, inbox: FetcherInbox) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (settings, replicas, metadata, clock) = (
            self.settings.clone(),
            Arc::clone(&self.replicas),
            Arc::clone(&self.metadata),
            Arc::clone(&self.clock),
        );
        let run = move || {
            let rules = settings.rules();
            let broker_id = settings.broker_id;
            let settings = Rc::new(settings);
            let connect = move |leader| -> Box<dyn LeaderEndpoint> {
                Box::new(WireEndpoint::new(
                    Rc::clone(&settings),
                    id,
                    leader,
                    Arc::clone(&metadata),
                ))
            };
            let fetching = Fetching {
                broker_id,
                id,
                rules,
                replicas,
                clock,
                connect: Box::new(connect),
            };
            LocalSet::new().block_on(&runtime, async move {
                tokio::select! {
                    () = fetching.run(inbox) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name(format!("fetcher-{id}"))
            .spawn(run)?;
        self.threads.lock().push((stop, thread));
        Ok(())
    }

    /// Ends the threads; no log is written by them afterwards.
    pub fn stop(&self) {
        for (stop, thread) in self.threads.lock().drain(..) {
            // The thread is gone where there were too many, or if it panicked; then there is nothing to stop.
            let _ = stop.send(());
            if thread.join().is_err() {
                tracing::error!(target: LOGGER, "a fetcher ended by a panic");
            }
        }
    }
}

/// One thread's fetching.
pub struct Fetching {
    pub broker_id: i32,
    /// The number of the thread.
    pub id: usize,
    pub rules: FetcherRules,
    pub replicas: Arc<ReplicaManager>,
    pub clock: Arc<dyn Clock>,
    /// The way to a leader.
    pub connect: Box<dyn Fn(i32) -> Box<dyn LeaderEndpoint>>,
}

impl std::fmt::Debug for Fetching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetching {} of broker {}", self.id, self.broker_id)
    }
}

impl Fetching {
    /// Hands commands to the task of their leader, on the [`LocalSet`] of the caller; a partition that moves is taken from the one
    /// that had it. Ends with the replica manager.
    pub async fn run(self, mut inbox: FetcherInbox) {
        let fetching = Rc::new(self);
        let mut tasks: HashMap<i32, mpsc::UnboundedSender<FetcherCommand>> = HashMap::new();
        let mut leaders: HashMap<TopicPartition, i32> = HashMap::new();
        while let Some(command) = inbox.0.recv().await {
            let partition = command.partition().clone();
            let next = match &command {
                FetcherCommand::Follow { leader, .. } => Some(*leader),
                FetcherCommand::Unfollow(_) => None,
            };
            let before = match next {
                Some(leader) => leaders.insert(partition.clone(), leader),
                None => leaders.remove(&partition),
            };
            if let Some(before) = before.filter(|before| Some(*before) != next) {
                // A task ends only with its thread.
                let _ = tasks[&before].send(FetcherCommand::Unfollow(partition));
            }
            if let Some(leader) = next {
                let task = tasks.entry(leader).or_insert_with(|| {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    tokio::task::spawn_local(LeaderFetcher::new(&fetching, leader, receiver).run());
                    sender
                });
                let _ = task.send(command);
            }
        }
    }
}

/// Partitions, and up to where each must be on the medium before its leader is asked for more.
type Unsynced = Arc<Mutex<Vec<(Arc<Partition>, Offset)>>>;

/// How the machine reaches the logs of this broker.
struct Following {
    replicas: Arc<ReplicaManager>,
    unsynced: Unsynced,
}

impl FollowedLogs for Following {
    fn log(&self, partition: &TopicPartition) -> Option<Arc<dyn FollowedLog>> {
        let partition = self
            .replicas
            .partition(&partition.topic, partition.partition)
            .ok()?;
        Some(Arc::new(FollowedPartition {
            partition,
            unsynced: Arc::clone(&self.unsynced),
            replicas: Arc::clone(&self.replicas),
        }))
    }

    fn is_quota_exceeded(&self) -> bool {
        let quota = &self.replicas.quotas().follower;
        quota.is_exceeded(self.replicas.shared.clock.monotonic())
    }

    fn is_throttled(&self, partition: &TopicPartition) -> bool {
        self.replicas.quotas().follower.is_throttled(partition)
    }
}

struct FollowedPartition {
    partition: Arc<Partition>,
    unsynced: Unsynced,
    replicas: Arc<ReplicaManager>,
}

impl FollowedLog for FollowedPartition {
    fn log_end(&self) -> Offset {
        self.partition.log().log_end_offset()
    }

    fn log_start(&self) -> Offset {
        self.partition.log().log_start_offset()
    }

    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.partition.log().latest_epoch()
    }

    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.partition.log().end_offset_for_epoch(Some(epoch))?;
        Some((end.epoch, end.end_offset))
    }

    fn truncate_to(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.partition.truncate_as_follower(epoch, offset)?;
        // What another task appended, of the leader before, may not be on the medium yet.
        let ends = self.partition.log().offsets();
        if ends.replicable_end < ends.log_end_offset {
            let unsynced = (Arc::clone(&self.partition), ends.log_end_offset);
            self.unsynced.lock().push(unsynced);
        }
        Ok(())
    }

    fn restart_at(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.partition.restart_as_follower(epoch, offset)
    }

    fn append(&self, epoch: LeaderEpoch, answer: &FetchedPartition<'_>) -> Result<Offset, FollowError> {
        let (end, to_sync) = self.partition.append_as_follower(epoch, answer)?;
        let quota = &self.replicas.quotas().follower;
        if !answer.records.is_empty() && quota.is_throttled(self.partition.name()) {
            quota.record(self.replicas.shared.clock.monotonic(), answer.records.len());
        }
        if let Some(upto) = to_sync {
            self.unsynced.lock().push((Arc::clone(&self.partition), upto));
        }
        Ok(end)
    }
}

/// A task: one leader, one connection.
struct LeaderFetcher {
    fetching: Rc<Fetching>,
    leader: i32,
    inbox: mpsc::UnboundedReceiver<FetcherCommand>,
    machine: ReplicaFetcher,
    logs: Following,
    endpoint: Box<dyn LeaderEndpoint>,
}

impl LeaderFetcher {
    fn new(
        fetching: &Rc<Fetching>,
        leader: i32,
        inbox: mpsc::UnboundedReceiver<FetcherCommand>,
    ) -> LeaderFetcher {
        LeaderFetcher {
            fetching: Rc::clone(fetching),
            leader,
            inbox,
            machine: ReplicaFetcher::new(fetching.rules),
            logs: Following {
                replicas: Arc::clone(&fetching.replicas),
                unsynced: Arc::default(),
            },
            endpoint: (fetching.connect)(leader),
        }
    }

    async fn run(mut self) {
        loop {
            self.take_commands();
            let step = self.machine.next(self.now(), &self.logs);
            let asked = match step {
                Step::Wait(until) => {
                    if self.machine.partition_count() == 0 {
                        self.endpoint.rest();
                    }
                    let pause = until.map_or(Duration::MAX, |until| until.saturating_sub(self.now()));
                    tokio::select! {
                        biased;
                        command = self.inbox.recv() => match command {
                            Some(command) => self.obey(command),
                            None => return,
                        },
                        () = tokio::time::sleep(pause) => {}
                    }
                    Ok(())
                }
                Step::AskEpochs(questions) => self.ask_epochs(&questions).await,
                Step::AskBounds {
                    partition,
                    current_leader_epoch,
                } => self.ask_bounds(&partition, current_leader_epoch).await,
                Step::Fetch(plan) => self.fetch(&plan).await,
            };
            if let Err(error) = asked {
                self.log(&format!("Error in the exchange with the leader: {error}"));
                self.machine.unanswered(self.now());
            }
            for note in self.machine.notes() {
                self.log(&note);
            }
            self.sync().await;
        }
    }

    fn now(&self) -> Duration {
        self.fetching.clock.monotonic()
    }

    fn log(&self, line: &str) {
        tracing::warn!(
            target: "kafka.server.ReplicaFetcherThread",
            "[ReplicaFetcher replicaId={}, leaderId={}, fetcherId={}] {line}",
            self.fetching.broker_id,
            self.leader,
            self.fetching.id
        );
    }

    /// Before an answer is applied: what was told while it was on its way counts.
    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: FetcherCommand) {
        match command {
            FetcherCommand::Follow {
                partition,
                epoch,
                high_watermark,
                ..
            } => self.machine.follow(partition, epoch, high_watermark),
            FetcherCommand::Unfollow(partition) => self.machine.unfollow(&partition),
        }
    }

    /// Waits until what was appended is on the medium, where it must be.
    async fn sync(&mut self) {
        let unsynced = std::mem::take(&mut *self.logs.unsynced.lock());
        if planted::has(Bug::UnsyncedCounted) {
            return;
        }
        let mut synced = Vec::with_capacity(unsynced.len());
        for (partition, upto) in unsynced {
            let (done, receiver) = oneshot::channel();
            let told = move |result| drop(done.send(result));
            partition.log().when_synced(upto, Box::new(told));
            synced.push(receiver);
        }
        for receiver in synced {
            // A failed sync takes its directory offline, and the partition with it.
            let _ = receiver.await;
        }
    }

    async fn ask_epochs(&mut self, questions: &[EpochQuestion]) -> Result<(), LeaderUnreachable> {
        let answers = self.endpoint.ask_epochs(questions).await?;
        self.take_commands();
        self.machine
            .epochs_answered(self.now(), questions, answers, &self.logs);
        Ok(())
    }

    async fn ask_bounds(
        &mut self,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
    ) -> Result<(), LeaderUnreachable> {
        let bounds = self.endpoint.ask_bounds(partition, epoch).await?;
        self.take_commands();
        self.machine
            .bounds_answered(self.now(), partition, epoch, bounds, &self.logs);
        Ok(())
    }

    async fn fetch(&mut self, plan: &FetchPlan) -> Result<(), LeaderUnreachable> {
        let answer = self.endpoint.fetch(plan).await?;
        if !planted::has(Bug::FetchedBeforeRoleChangeApplied) {
            self.take_commands();
        }
        let (session_id, partitions) = match answer {
            FetchAnswer::SessionRefused(error) => {
                self.log(&format!("the leader refused the fetch session: {error}"));
                self.machine.session_lost();
                return Ok(());
            }
            FetchAnswer::Fetched {
                session_id,
                partitions,
            } => (session_id, partitions),
        };
        self.machine.begin_answer(session_id);
        let now = self.now();
        for (name, answer) in &partitions {
            let answer = match answer {
                Ok(answer) => Ok(FetchedPartition {
                    // The machine knows what it asked for.
                    fetch_offset: Offset::ZERO,
                    high_watermark: answer.high_watermark,
                    log_start_offset: answer.log_start_offset,
                    records: &answer.records,
                }),
                Err(refusal) => Err(refusal.clone()),
            };
            self.machine.partition_answered(now, name, answer, &self.logs);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use milena_engine::config::LogConfig;
    use milena_engine::io::simulated::{Completions, SimulatedDisk};

    use super::super::tests::{batch_of, created, logs_on, replica_manager, tell};
    use super::*;

    #[test]
    fn a_partition_belongs_to_the_same_fetcher_as_in_kafka() {
        // `"test".hashCode()` is 3556498, times 31 plus 0 or 5.
        for (topic, partition, count, expected) in [
            ("test", 0, 4, 2),
            ("test", 5, 4, 3),
            ("a", 0, 10, 7),
            ("", 3, 2, 1),
        ] {
            let name = TopicPartition::new(topic, partition);
            assert_eq!(fetcher_id(&name, count), expected, "{topic}-{partition}");
        }
    }

    fn follow_from(partition: i32, offset: i64) -> FetcherCommand {
        FetcherCommand::Follow {
            partition: TopicPartition::new("a", partition),
            leader: 2,
            epoch: LeaderEpoch(5),
            high_watermark: Offset(offset),
        }
    }

    fn follow(partition: i32) -> FetcherCommand {
        follow_from(partition, 7)
    }

    fn unfollow(partition: i32) -> FetcherCommand {
        FetcherCommand::Unfollow(TopicPartition::new("a", partition))
    }

    fn heard(inbox: &mut FetcherInbox) -> Vec<FetcherCommand> {
        let mut commands: Vec<FetcherCommand> = std::iter::from_fn(|| inbox.0.try_recv().ok()).collect();
        commands.sort_by(|one, other| one.partition().cmp(other.partition()));
        commands
    }

    #[test]
    fn another_number_of_threads_takes_over_what_is_followed_by_the_new_sum() {
        // The sum of `a` is 97 * 31 = 3007: odd, and 1 of 3.
        let (fetchers, mut inboxes) = Fetchers::new(1);
        fetchers.tell((0..4).map(follow).collect());
        fetchers.tell(vec![unfollow(3)]);
        let mut first = inboxes.remove(0);
        assert_eq!(heard(&mut first).len(), 5);
        let begin = |_: &TopicPartition, _| Some(Offset(9));
        let mut second = fetchers.resize(2, begin).remove(0);
        assert_eq!(heard(&mut first), [unfollow(0), unfollow(2)]);
        assert_eq!(heard(&mut second), [follow_from(0, 9), follow_from(2, 9)]);
        fetchers.tell(vec![unfollow(0)]);
        assert_eq!(heard(&mut second), [unfollow(0)]);
        assert!(fetchers.resize(1, begin).is_empty());
        assert_eq!(heard(&mut second), [unfollow(2)]);
        assert_eq!(
            heard(&mut first),
            [follow_from(2, 9)],
            "what is not followed stays so"
        );
        assert!(second.0.is_closed(), "the thread ends");
    }

    #[test]
    fn what_another_task_appended_is_on_the_medium_before_the_new_leader_hears_of_it() {
        let disk = SimulatedDisk::new(1);
        let logs = logs_on(disk.clone());
        let name = TopicPartition::new("t", 0);
        let config = LogConfig {
            flush_messages: Some(1),
            ..LogConfig::default()
        };
        let log = created(&logs, &name, config);
        disk.set_completions(Completions::Manual);
        log.append_as_follower(&batch_of(1, 0)).expect("it fits");
        let (replicas, _inboxes) = replica_manager(0, logs);
        tell(&replicas, &name, 2, 2, &[0, 1, 2], &[0, 1, 2]);
        let unsynced = Unsynced::default();
        let followed = FollowedPartition {
            partition: replicas.partition("t", 0).expect("it is followed here"),
            unsynced: Arc::clone(&unsynced),
            replicas: Arc::new(replicas),
        };
        followed
            .truncate_to(LeaderEpoch(2), Offset(1))
            .expect("nothing to cut");
        let waited_for: Vec<Offset> = unsynced.lock().iter().map(|(_, upto)| *upto).collect();
        assert_eq!(waited_for, [Offset(1)]);
    }
}
