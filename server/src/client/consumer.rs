//! Reads ranges of partitions that it is told to read: one task for each leader keeps a fetch under way, while what came before is
//! looked at.
//!
//! Promise: the records of a partition come in order, none is left out and none comes twice, also when its leader changes.
//! At most two answers of a leader are in memory. Dropping the consumer ends its tasks.
//! Source: `Fetcher` of 2.7.2, without sessions (KIP-227): a reader for people has few partitions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::fetched::next_offset;
use super::{
    Address, Client, ClientError, Connection, ConnectionConfig, Fetched, IsolationLevel, OffsetSpec, Topics,
    chance, refused,
};
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchablePartitionResponse,
};
use crate::protocol::{ErrorCode, Payload};

/// How to read. The names are those of Kafka's consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub isolation: IsolationLevel,
    /// How long a broker waits for `fetch_min_bytes`; `fetch.max.wait.ms`.
    pub fetch_max_wait: Duration,
    pub fetch_min_bytes: i32,
    /// Of one answer, but for one batch; `fetch.max.bytes`.
    pub fetch_max_bytes: i32,
    /// Of one partition in an answer, but for one batch.
    pub max_partition_fetch_bytes: i32,
    /// Where to go on when the offset does not exist any more; nowhere, if `None`.
    pub auto_offset_reset: Option<OffsetSpec>,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            isolation: IsolationLevel::ReadUncommitted,
            fetch_max_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            max_partition_fetch_bytes: 1 << 20,
            auto_offset_reset: None,
        }
    }
}

/// What to read of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    pub partition: TopicPartition,
    /// The first offset.
    pub from: i64,
    /// The offset before which to stop; on and on, if `None`.
    pub until: Option<i64>,
}

impl ReadRange {
    fn is_empty(&self) -> bool {
        self.until.is_some_and(|until| self.from >= until)
    }
}

/// What a task has to tell.
#[derive(Debug)]
enum Event {
    /// With how many ranges came to their end by it.
    Fetched(Fetched, usize),
    /// The leader does not serve this partition (any more), of which this is left to be read.
    Lost(ReadRange, ClientError),
}

/// See the module.
#[derive(Debug)]
pub struct Consumer<'c> {
    client: &'c mut Client,
    config: ConsumerConfig,
    /// What no task reads, and why not, if it was tried.
    idle: Vec<(ReadRange, Option<ClientError>)>,
    /// Ranges that are not read to their end.
    open: usize,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    backoff: Backoff,
    /// Since when nothing but failures was heard.
    failing_since: Option<Instant>,
}

impl<'c> Consumer<'c> {
    /// Reads ranges of different partitions.
    pub fn new(client: &'c mut Client, config: ConsumerConfig, mut ranges: Vec<ReadRange>) -> Consumer<'c> {
        let (sender, events) = mpsc::channel(1);
        ranges.retain(|range| !range.is_empty());
        Consumer {
            client,
            config,
            open: ranges.len(),
            idle: ranges.into_iter().map(|range| (range, None)).collect(),
            events,
            sender,
            tasks: JoinSet::new(),
            backoff: Backoff::default(),
            failing_since: None,
        }
    }

    /// What was read next; `None` when all ranges are read to their end. Waits for ever when nothing is written. May be
    /// given up and called again.
    ///
    /// # Errors
    /// A partition cannot be read, and patience does not help or is over.
    pub async fn next(&mut self) -> Result<Option<Fetched>, ClientError> {
        while self.open > 0 {
            self.start_idle().await?;
            // There is always a sender: this consumer's own.
            let Some(event) = self.events.recv().await else {
                continue;
            };
            match event {
                Event::Fetched(fetched, ended) => {
                    self.open -= ended;
                    self.backoff = Backoff::default();
                    self.failing_since = None;
                    return Ok(Some(fetched));
                }
                Event::Lost(range, error) => self.lost(range, error).await?,
            }
        }
        Ok(None)
    }

    /// Puts a range among the idle ones, from where reading can go on.
    async fn lost(&mut self, range: ReadRange, error: ClientError) -> Result<(), ClientError> {
        let is_out_of_range = error.code() == Some(ErrorCode::OffsetOutOfRange);
        let reset = self.config.auto_offset_reset.filter(|_| is_out_of_range);
        if reset.is_none() && !error.is_retriable() {
            return Err(error);
        }
        let partition = range.partition.clone();
        self.idle.push((range, Some(error)));
        if let Some(spec) = reset {
            let isolation = self.config.isolation;
            let asked = BTreeMap::from([(partition.clone(), spec)]);
            let mut listed = self.client.list_offsets(&asked, isolation).await?;
            if let Some(Ok(found)) = listed.remove(&partition)
                && let Some(offset) = found.offset
                && let Some((range, error)) = self.idle.last_mut()
            {
                (range.from, *error) = (offset, None);
            }
        }
        Ok(())
    }

    /// Gives ranges that nobody reads to tasks, each leader's to one.
    async fn start_idle(&mut self) -> Result<(), ClientError> {
        while !self.idle.is_empty() {
            if self.idle.iter().any(|(_, error)| error.is_some()) {
                self.pause().await?;
            }
            let mut names: Vec<String> = self
                .idle
                .iter()
                .map(|(range, _)| range.partition.topic.to_string())
                .collect();
            names.sort_unstable();
            names.dedup();
            let cluster = self.client.metadata(Topics::Named(&names)).await?;
            let mut by_leader: BTreeMap<i32, Vec<ReadPosition>> = BTreeMap::new();
            for (range, error) in std::mem::take(&mut self.idle) {
                let TopicPartition { topic, partition } = &range.partition;
                let described = cluster
                    .topics
                    .get(&**topic)
                    .and_then(|topic| topic.partition(*partition));
                let leader_epoch = described.map_or(-1, |described| described.leader_epoch);
                match cluster.leader(topic, *partition) {
                    Some(leader) => by_leader
                        .entry(leader)
                        .or_default()
                        .push(ReadPosition { range, leader_epoch }),
                    None => {
                        let error = error.unwrap_or_else(|| no_leader(described.is_some(), &range.partition));
                        self.idle.push((range, Some(error)));
                    }
                }
            }
            for (leader, positions) in by_leader {
                let address = self.client.address_of(leader)?;
                let task = ReadTask {
                    positions,
                    config: self.config.clone(),
                    events: self.sender.clone(),
                };
                let connection = self.client.config().connection.clone();
                self.tasks
                    .spawn(async move { task.run(&address, &connection).await });
            }
            // Those that are done give their memory back.
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    /// Waits before the next attempt, or finds that there were enough.
    async fn pause(&mut self) -> Result<(), ClientError> {
        let pause = self.backoff.next(chance());
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() + pause > self.client.config().operation_timeout {
            let error = self.idle.iter_mut().find_map(|(_, error)| error.take());
            return Err(
                error.unwrap_or_else(|| refused("a partition".to_owned(), ErrorCode::LeaderNotAvailable))
            );
        }
        sleep(pause).await;
        Ok(())
    }
}

fn no_leader(is_known: bool, partition: &TopicPartition) -> ClientError {
    let code = match is_known {
        true => ErrorCode::LeaderNotAvailable,
        false => ErrorCode::UnknownTopicOrPartition,
    };
    refused(partition.to_string(), code)
}

/// Where a task is in a partition.
#[derive(Debug)]
struct ReadPosition {
    /// What is left to be read.
    range: ReadRange,
    leader_epoch: i32,
}

/// Reads ranges of partitions from their leader until none is left.
#[derive(Debug)]
struct ReadTask {
    /// The one that has waited longest first.
    positions: Vec<ReadPosition>,
    config: ConsumerConfig,
    events: mpsc::Sender<Event>,
}

impl ReadTask {
    async fn run(mut self, address: &Address, config: &ConnectionConfig) {
        let Err(error) = self.read(address, config).await else {
            return;
        };
        let text = error.to_string();
        let code = match error.is_retriable() {
            true => ErrorCode::NetworkException,
            false => ErrorCode::UnknownServerError,
        };
        let mut error = Some(error);
        for position in self.positions {
            let error = error.take().unwrap_or_else(|| refused(text.clone(), code));
            // The consumer may be gone, and needs no answer then.
            let _ = self.events.send(Event::Lost(position.range, error)).await;
        }
    }

    async fn read(&mut self, address: &Address, config: &ConnectionConfig) -> Result<(), ClientError> {
        let mut connection = Connection::open(address, config).await?;
        while !self.positions.is_empty() {
            let limit = config.request_timeout + self.config.fetch_max_wait;
            let answer = connection.call_within(&self.request(), limit).await?;
            let asked = self.positions.iter().map(|at| at.range.clone()).collect();
            let response: FetchResponse<'_> = answer.decode()?;
            ClientError::check(response.error_code, None, || format!("fetch from {address}"))?;
            let mut lost = Vec::new();
            let mut ended = 0;
            for topic in response.responses.iter() {
                for read in topic.partition_responses.iter() {
                    let is_meant = |at: &ReadPosition| {
                        at.range.partition.partition == read.partition
                            && *at.range.partition.topic == *topic.topic
                    };
                    let Some(at) = self.positions.iter().position(is_meant) else {
                        continue;
                    };
                    let mut position = self.positions.remove(at);
                    match check(&position.range, &read) {
                        Ok(next) => position.range.from = next,
                        Err(error) => {
                            lost.push(Event::Lost(position.range, error));
                            continue;
                        }
                    }
                    if position.range.is_empty() {
                        ended += 1;
                    } else {
                        // What was read waits longest from now on.
                        self.positions.push(position);
                    }
                }
            }
            let isolation = self.config.isolation;
            let fetched = Event::Fetched(
                Fetched {
                    answer,
                    asked,
                    isolation,
                },
                ended,
            );
            for event in std::iter::once(fetched).chain(lost) {
                if self.events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn request(&self) -> FetchRequest<'static> {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for ReadPosition { range, leader_epoch } in &self.positions {
            topics
                .entry(&range.partition.topic)
                .or_default()
                .push(FetchPartition {
                    partition: range.partition.partition,
                    current_leader_epoch: *leader_epoch,
                    fetch_offset: range.from,
                    partition_max_bytes: self.config.max_partition_fetch_bytes,
                    ..Default::default()
                });
        }
        let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
            topic: Cow::Owned(topic.to_owned()),
            partitions: partitions.into(),
        });
        FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(self.config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            isolation_level: self.config.isolation as i8,
            topics: topics.collect(),
            ..Default::default()
        }
    }
}

/// Where to read on.
fn check(range: &ReadRange, read: &FetchablePartitionResponse<'_>) -> Result<i64, ClientError> {
    let place = || format!("{} at offset {}", range.partition, range.from);
    ClientError::check(read.error_code, None, place)?;
    let bytes = match &read.record_set {
        Payload::Bytes(bytes) => &bytes[..],
        _ => &[],
    };
    let next = next_offset(bytes, range.from);
    if next == range.from && !bytes.is_empty() {
        return Err(ClientError::Refused {
            what: place(),
            code: ErrorCode::CorruptMessage,
            message: Some(format!("found {} bytes that are no whole batch", bytes.len())),
        });
    }
    Ok(next)
}
