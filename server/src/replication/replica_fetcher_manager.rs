//! The shell around [`super::replica_fetcher`]: threads, connections to leaders, and the wire (`ReplicaFetcherManager.scala`,
//! `ReplicaFetcherThread.scala`, `ReplicaFetcherBlockingSend.scala`).
//!
//! `num.replica.fetchers` threads, each with a task for every leader that it fetches from. A partition belongs to one thread, by the
//! same sum as in Kafka, and to one leader at a time. A task has one connection and one question under way; records go from the
//! connection's buffer into the log without a copy.
//!
//! With synced acknowledgements (`flush.messages=1`) a follower asks for more only once what it has is on the medium: the offset it
//! asks from is its synced end, so that the leader acknowledges nothing that a power cut here could take back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

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
use crate::client::{Address, ClientError, Connection, ConnectionConfig};
use crate::metadata_cache::MetadataCache;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchablePartitionResponse, ForgottenTopic,
};
use crate::protocol::messages::leader_epochs::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use crate::protocol::messages::list_offsets::{
    ListOffsetPartition, ListOffsetRequest, ListOffsetResponse, ListOffsetTopic,
};
use crate::protocol::{ErrorCode, Message, Payload};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// From this version on a leader keeps sessions.
const FIRST_FETCH_VERSION_WITH_SESSIONS: i16 = 7;

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

/// The way to the fetching threads.
#[derive(Debug)]
pub(super) struct Fetchers(Vec<mpsc::UnboundedSender<FetcherCommand>>);

impl Fetchers {
    pub(super) fn new(count: usize) -> (Fetchers, Vec<FetcherInbox>) {
        let (senders, receivers) = (0..count)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                (sender, FetcherInbox(receiver))
            })
            .unzip();
        (Fetchers(senders), receivers)
    }

    pub(super) fn tell(&self, commands: Vec<FetcherCommand>) {
        for command in commands {
            let thread = fetcher_id(command.partition(), self.0.len());
            // Nobody fetches in a broker that stands alone or stops.
            let _ = self.0[thread].send(command);
        }
    }
}

/// `AbstractFetcherManager.getFetcherId`: by Java's hash of the topic.
fn fetcher_id(partition: &TopicPartition, count: usize) -> usize {
    let topic = partition.topic.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let sum = topic.wrapping_mul(31).wrapping_add(partition.partition);
    // `Utils.abs`: 0 for the smallest number, which has no opposite.
    let positive = sum.checked_abs().unwrap_or(0);
    positive as usize % count
}

/// Versions of what is asked of leaders, as `inter.broker.protocol.version` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetcherVersions {
    pub fetch: i16,
    pub list_offsets: i16,
    /// `None` below 0.11.0-IV2: logs are cut at their high watermark.
    pub offset_for_leader_epoch: Option<i16>,
}

/// What fetchers go by.
#[derive(Clone, Debug)]
pub struct FetcherSettings {
    pub broker_id: i32,
    /// The listener under which other brokers are reached.
    pub listener: Arc<str>,
    pub versions: FetcherVersions,
    /// `replica.fetch.wait.max.ms`
    pub wait_max_ms: i32,
    /// `replica.fetch.min.bytes`
    pub min_bytes: i32,
    /// `replica.fetch.max.bytes`
    pub partition_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub response_max_bytes: i32,
    /// `replica.fetch.backoff.ms`
    pub backoff: Duration,
    /// `replica.socket.timeout.ms`
    pub socket_timeout: Duration,
}

/// The fetching threads; they end when told to.
#[derive(Debug)]
pub struct ReplicaFetcherManager {
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
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
        let mut threads = Vec::with_capacity(inboxes.len());
        for (id, inbox) in inboxes.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (stop, stopped) = oneshot::channel();
            let (settings, replicas, metadata, clock) = (
                settings.clone(),
                Arc::clone(replicas),
                Arc::clone(metadata),
                Arc::clone(clock),
            );
            let run = move || {
                let shared = Rc::new(Shared {
                    id,
                    settings,
                    replicas,
                    metadata,
                    clock,
                });
                let local = LocalSet::new();
                local.block_on(&runtime, async move {
                    tokio::select! {
                        () = dispatch(shared, inbox) => {}
                        _ = stopped => {}
                    }
                });
            };
            let thread = std::thread::Builder::new()
                .name(format!("fetcher-{id}"))
                .spawn(run)?;
            threads.push((stop, thread));
        }
        Ok(ReplicaFetcherManager { threads })
    }

    /// Ends the threads; no log is written by them afterwards.
    pub fn stop(self) {
        for (stop, thread) in self.threads {
            // The thread is gone only if it panicked, and then there is nothing to stop.
            let _ = stop.send(());
            if thread.join().is_err() {
                tracing::error!(target: "kafka.server.ReplicaFetcherManager", "a fetcher ended by a panic");
            }
        }
    }
}

/// Of one thread.
#[derive(Debug)]
struct Shared {
    id: usize,
    settings: FetcherSettings,
    replicas: Arc<ReplicaManager>,
    metadata: Arc<MetadataCache>,
    clock: Arc<dyn Clock>,
}

/// Hands commands to the task of their leader; a partition that moves is taken from the one that had it.
async fn dispatch(shared: Rc<Shared>, mut inbox: FetcherInbox) {
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
                tokio::task::spawn_local(LeaderFetcher::new(&shared, leader, receiver).run());
                sender
            });
            let _ = task.send(command);
        }
    }
}

/// How the machine reaches the logs of this broker.
struct Following {
    replicas: Arc<ReplicaManager>,
    /// What must be on the medium before the leader is asked for more.
    unsynced: Arc<Mutex<Vec<(Arc<Partition>, Offset)>>>,
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
        }))
    }
}

struct FollowedPartition {
    partition: Arc<Partition>,
    unsynced: Arc<Mutex<Vec<(Arc<Partition>, Offset)>>>,
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
        self.partition.truncate_as_follower(epoch, offset)
    }

    fn restart_at(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.partition.restart_as_follower(epoch, offset)
    }

    fn append(&self, epoch: LeaderEpoch, answer: &FetchedPartition<'_>) -> Result<Offset, FollowError> {
        let (end, to_sync) = self.partition.append_as_follower(epoch, answer)?;
        if let Some(upto) = to_sync {
            self.unsynced.lock().push((Arc::clone(&self.partition), upto));
        }
        Ok(end)
    }
}

/// A task: one leader, one connection.
struct LeaderFetcher {
    shared: Rc<Shared>,
    leader: i32,
    inbox: mpsc::UnboundedReceiver<FetcherCommand>,
    machine: ReplicaFetcher,
    logs: Following,
    connection: Option<Connection>,
}

/// Why a leader could not be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("broker {0} is not known to be alive")]
    NotAlive(i32),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl LeaderFetcher {
    fn new(
        shared: &Rc<Shared>,
        leader: i32,
        inbox: mpsc::UnboundedReceiver<FetcherCommand>,
    ) -> LeaderFetcher {
        let versions = shared.settings.versions;
        let rules = FetcherRules {
            backoff: shared.settings.backoff,
            has_sessions: versions.fetch >= FIRST_FETCH_VERSION_WITH_SESSIONS,
            has_epochs: versions.offset_for_leader_epoch.is_some(),
        };
        LeaderFetcher {
            shared: Rc::clone(shared),
            leader,
            inbox,
            machine: ReplicaFetcher::new(rules),
            logs: Following {
                replicas: Arc::clone(&shared.replicas),
                unsynced: Arc::default(),
            },
            connection: None,
        }
    }

    async fn run(mut self) {
        loop {
            while let Ok(command) = self.inbox.try_recv() {
                self.obey(command);
            }
            let step = self.machine.next(self.now(), &self.logs);
            let asked = match step {
                Step::Wait(until) => {
                    if self.machine.partition_count() == 0 {
                        self.connection = None;
                    }
                    let pause = until.map_or(Duration::MAX, |until| until.saturating_sub(self.now()));
                    tokio::select! {
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
                self.connection = None;
                self.machine.unanswered(self.now());
            }
            for note in self.machine.notes() {
                self.log(&note);
            }
            self.sync().await;
        }
    }

    fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    fn log(&self, line: &str) {
        tracing::warn!(
            target: "kafka.server.ReplicaFetcherThread",
            "[ReplicaFetcher replicaId={}, leaderId={}, fetcherId={}] {line}",
            self.shared.settings.broker_id,
            self.leader,
            self.shared.id
        );
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

    async fn connection(&mut self) -> Result<&mut Connection, AskError> {
        if self.connection.is_none() {
            let settings = &self.shared.settings;
            let metadata = self.shared.metadata.snapshot();
            let endpoint = metadata
                .broker(self.leader)
                .and_then(|broker| broker.endpoint(&settings.listener))
                .ok_or(AskError::NotAlive(self.leader))?;
            let address = Address {
                host: Arc::clone(&endpoint.host),
                port: u16::try_from(endpoint.port).unwrap_or(0),
            };
            let config = ConnectionConfig {
                client_id: format!("broker-{}-fetcher-{}", settings.broker_id, self.shared.id),
                connect_timeout: settings.socket_timeout,
                request_timeout: settings.socket_timeout,
            };
            self.connection = Some(Connection::open(&address, &config).await?);
        }
        Ok(self.connection.as_mut().expect("it was just opened"))
    }

    async fn ask<'r, Q: Message<'r>>(
        &mut self,
        request: &Q,
        version: i16,
    ) -> Result<crate::client::Answer, AskError> {
        let connection = self.connection().await?;
        Ok(connection.call_in(request, version).await?)
    }

    async fn ask_epochs(&mut self, questions: &[EpochQuestion]) -> Result<(), AskError> {
        let version = self.shared.settings.versions.offset_for_leader_epoch;
        let version = version.expect("the machine asks only where epochs are known");
        let topics = questions.chunk_by(|one, other| one.partition.topic == other.partition.topic);
        let topics = topics.map(|questions| {
            let partitions = questions.iter().map(|question| OffsetForLeaderPartition {
                partition_index: question.partition.partition,
                current_leader_epoch: question.current_leader_epoch.get(),
                leader_epoch: question.epoch.get(),
            });
            OffsetForLeaderTopic {
                name: Cow::Borrowed(&*questions[0].partition.topic),
                partitions: partitions.collect(),
            }
        });
        let request = OffsetForLeaderEpochRequest {
            replica_id: self.shared.settings.broker_id,
            topics: topics.collect(),
        };
        let answer = self.ask(&request, version).await?;
        let response: OffsetForLeaderEpochResponse<'_> = answer.decode()?;
        let mut answers = Vec::with_capacity(questions.len());
        for topic in response.topics.iter() {
            let name: Arc<str> = topic.name.as_ref().into();
            for partition in topic.partitions.iter() {
                let end = match refusal(partition.error_code) {
                    None => Ok(EpochEnd {
                        epoch: (partition.leader_epoch >= 0).then_some(LeaderEpoch(partition.leader_epoch)),
                        end: (partition.end_offset >= 0).then_some(Offset(partition.end_offset)),
                    }),
                    Some(refusal) => Err(refusal),
                };
                let name = TopicPartition::new(Arc::clone(&name), partition.partition_index);
                answers.push((name, end));
            }
        }
        self.machine
            .epochs_answered(self.now(), questions, answers, &self.logs);
        Ok(())
    }

    async fn ask_bounds(&mut self, partition: &TopicPartition, epoch: LeaderEpoch) -> Result<(), AskError> {
        let start = self.ask_offset(partition, epoch, EARLIEST).await?;
        let end = self.ask_offset(partition, epoch, LATEST).await?;
        let bounds = start.and_then(|start| Ok((start, end?)));
        self.machine
            .bounds_answered(self.now(), partition, epoch, bounds, &self.logs);
        Ok(())
    }

    async fn ask_offset(
        &mut self,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
        timestamp: i64,
    ) -> Result<Result<Offset, LeaderRefusal>, AskError> {
        let asked = ListOffsetPartition {
            partition_index: partition.partition,
            current_leader_epoch: epoch.get(),
            timestamp,
            max_num_offsets: 1,
        };
        let topic = ListOffsetTopic {
            name: Cow::Borrowed(&*partition.topic),
            partitions: [asked].into_iter().collect(),
        };
        let request = ListOffsetRequest {
            replica_id: self.shared.settings.broker_id,
            isolation_level: 0,
            topics: [topic].into_iter().collect(),
        };
        let version = self.shared.settings.versions.list_offsets;
        let answer = self.ask(&request, version).await?;
        let response: ListOffsetResponse<'_> = answer.decode()?;
        let found = response
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().collect::<Vec<_>>())
            .next();
        let Some(found) = found else {
            return Ok(Err(LeaderRefusal::Other(
                "nothing about the partition".to_owned(),
            )));
        };
        Ok(match refusal(found.error_code) {
            Some(refusal) => Err(refusal),
            None if version == 0 => {
                let offset = found.old_style_offsets.iter().next();
                offset
                    .map(Offset)
                    .ok_or(LeaderRefusal::Other("no offset".to_owned()))
            }
            None => Ok(Offset(found.offset)),
        })
    }

    async fn fetch(&mut self, plan: &FetchPlan) -> Result<(), AskError> {
        let settings = &self.shared.settings;
        let topics = plan
            .partitions
            .chunk_by(|(one, _), (other, _)| one.topic == other.topic);
        let topics = topics.map(|partitions| {
            let topic = Cow::Borrowed(&*partitions[0].0.topic);
            let partitions = partitions.iter().map(|(name, position)| FetchPartition {
                partition: name.partition,
                current_leader_epoch: position.current_leader_epoch.get(),
                fetch_offset: position.fetch_offset.get(),
                log_start_offset: position.log_start_offset.get(),
                partition_max_bytes: settings.partition_max_bytes,
                ..FetchPartition::default()
            });
            FetchTopic {
                topic,
                partitions: partitions.collect(),
            }
        });
        let forgotten = plan.forgotten.chunk_by(|one, other| one.topic == other.topic);
        let forgotten = forgotten.map(|partitions| ForgottenTopic {
            topic: Cow::Borrowed(&*partitions[0].topic),
            partitions: partitions.iter().map(|name| name.partition).collect(),
        });
        let request = FetchRequest {
            replica_id: settings.broker_id,
            max_wait_ms: settings.wait_max_ms,
            min_bytes: settings.min_bytes,
            max_bytes: settings.response_max_bytes,
            session_id: plan.session_id,
            session_epoch: plan.session_epoch,
            topics: topics.collect(),
            forgotten_topics_data: forgotten.collect(),
            ..FetchRequest::default()
        };
        let version = settings.versions.fetch;
        let answer = self.ask(&request, version).await?;
        let response: FetchResponse<'_> = answer.decode()?;
        // Before anything is applied: what was told while the answer was on its way counts.
        while let Ok(command) = self.inbox.try_recv() {
            self.obey(command);
        }
        if response.error_code != 0 {
            self.log(&format!(
                "the leader refused the fetch session: {}",
                ErrorCode::from_code(response.error_code)
            ));
            self.machine.session_lost();
            return Ok(());
        }
        self.machine.begin_answer(response.session_id);
        let now = self.now();
        for topic in response.responses.iter() {
            let name: Arc<str> = topic.topic.as_ref().into();
            for partition in topic.partition_responses.iter() {
                let name = TopicPartition::new(Arc::clone(&name), partition.partition);
                let answer = match refusal(partition.error_code) {
                    Some(refusal) => Err(refusal),
                    None => Ok(fetched(&partition)),
                };
                self.machine.partition_answered(now, &name, answer, &self.logs);
            }
        }
        Ok(())
    }
}

fn fetched<'p>(partition: &'p FetchablePartitionResponse<'_>) -> FetchedPartition<'p> {
    FetchedPartition {
        // The machine knows what it asked for.
        fetch_offset: Offset::ZERO,
        high_watermark: Offset(partition.high_watermark),
        log_start_offset: (partition.log_start_offset >= 0).then_some(Offset(partition.log_start_offset)),
        records: match &partition.record_set {
            Payload::Bytes(bytes) => bytes,
            Payload::Null | Payload::Extern { .. } => &[],
        },
    }
}

/// What an error of a leader means to a follower; `None` without error.
fn refusal(code: i16) -> Option<LeaderRefusal> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => None,
        ErrorCode::OffsetOutOfRange => Some(LeaderRefusal::OffsetOutOfRange),
        ErrorCode::FencedLeaderEpoch => Some(LeaderRefusal::FencedLeaderEpoch),
        ErrorCode::UnknownLeaderEpoch
        | ErrorCode::NotLeaderOrFollower
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::ReplicaNotAvailable
        | ErrorCode::LeaderNotAvailable => Some(LeaderRefusal::Passing),
        other => Some(LeaderRefusal::Other(other.name().to_owned())),
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_follower_sorts_a_leaders_errors() {
        assert_eq!(refusal(0), None);
        assert_eq!(refusal(1), Some(LeaderRefusal::OffsetOutOfRange));
        assert_eq!(refusal(74), Some(LeaderRefusal::FencedLeaderEpoch));
        for passing in [3, 5, 6, 9, 75] {
            assert_eq!(refusal(passing), Some(LeaderRefusal::Passing));
        }
        let other = LeaderRefusal::Other("KAFKA_STORAGE_ERROR".to_owned());
        assert_eq!(refusal(56), Some(other));
    }
}
