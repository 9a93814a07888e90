//! Reads ranges of partitions that it is told to read: one task for each leader keeps a fetch under way, while what came before is
//! looked at.
//!
//! Promise: the records of a partition come in order, none is left out and none comes twice, also when its leader changes.
//! A partition that cannot be read for now keeps no other waiting. At most two answers of a leader wait to be looked at.
//! Dropping the consumer ends its tasks.
//! Source: `Fetcher` of 2.7.2, without sessions (KIP-227): a reader for people has few partitions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::fetched::{bytes_of, end_offset, next_offset};
use super::{
    Address, Client, ClientError, Connection, ConnectionConfig, Fetched, IsolationLevel, OffsetSpec, Topics,
    chance, refused,
};
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchablePartitionResponse,
};

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
    Lost(ReadPosition, ClientError),
}

/// See the module.
#[derive(Debug)]
pub struct Consumer<'c> {
    client: &'c mut Client,
    config: ConsumerConfig,
    idle: Vec<Idle>,
    /// When what is idle is tried again.
    resume_at: Instant,
    /// Ranges that are not read to their end.
    open: usize,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    backoff: Backoff,
}

/// What no task reads.
#[derive(Debug)]
struct Idle {
    range: ReadRange,
    /// Why not, and since when, if it was tried.
    failure: Option<(ClientError, Instant)>,
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
            idle: ranges
                .into_iter()
                .map(|range| Idle { range, failure: None })
                .collect(),
            resume_at: Instant::now(),
            events,
            sender,
            tasks: JoinSet::new(),
            backoff: Backoff::default(),
        }
    }

    /// What was read next; `None` when all ranges are read to their end. Waits for ever when nothing is written. May be
    /// given up and called again.
    ///
    /// # Errors
    /// A partition cannot be read, and patience does not help or is over.
    pub async fn next(&mut self) -> Result<Option<Fetched>, ClientError> {
        while self.open > 0 {
            let event = tokio::select! {
                biased;
                () = sleep_until(self.resume_at), if !self.idle.is_empty() => {
                    self.start_idle().await?;
                    continue;
                }
                event = self.events.recv() => event,
            };
            match event {
                Some(Event::Fetched(fetched, ended)) => {
                    self.open -= ended;
                    return Ok(Some(fetched));
                }
                Some(Event::Lost(position, error)) => self.lost(position, error).await?,
                // There is always a sender: this consumer's own.
                None => {}
            }
        }
        Ok(None)
    }

    /// Puts a range among the idle ones, from where reading can go on.
    async fn lost(&mut self, position: ReadPosition, error: ClientError) -> Result<(), ClientError> {
        let is_out_of_range = error.code() == Some(ErrorCode::OffsetOutOfRange);
        let reset = self.config.auto_offset_reset.filter(|_| is_out_of_range);
        if reset.is_none() && !error.is_retriable() {
            return Err(error);
        }
        let partition = position.range.partition.clone();
        let since = position.failing_since.unwrap_or_else(Instant::now);
        if self.idle.is_empty() {
            self.resume_at = Instant::now() + self.backoff.next(chance());
        }
        self.idle.push(Idle {
            range: position.range,
            failure: Some((error, since)),
        });
        if let Some(spec) = reset {
            let isolation = self.config.isolation;
            let asked = BTreeMap::from([(partition.clone(), spec)]);
            let mut listed = self.client.list_offsets(&asked, isolation).await?;
            if let Some(Ok(found)) = listed.remove(&partition)
                && let Some(offset) = found.offset
                && let Some(idle) = self.idle.last_mut()
            {
                (idle.range.from, idle.failure) = (offset, None);
            }
        }
        Ok(())
    }

    /// Gives ranges that nobody reads to tasks, each leader's to one; those that have no leader are tried again later.
    async fn start_idle(&mut self) -> Result<(), ClientError> {
        let patience = self.client.config().operation_timeout;
        let is_over =
            |idle: &mut Idle| matches!(&idle.failure, Some((_, since)) if since.elapsed() >= patience);
        let over = self.idle.extract_if(.., is_over).next();
        if let Some((error, _)) = over.and_then(|idle| idle.failure) {
            return Err(error);
        }
        let names = self
            .idle
            .iter()
            .map(|idle| idle.range.partition.topic.to_string());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        let cluster = self.client.metadata(Topics::Named(&names)).await?;
        let mut by_leader: BTreeMap<i32, Vec<ReadPosition>> = BTreeMap::new();
        for Idle { range, failure } in std::mem::take(&mut self.idle) {
            let TopicPartition { topic, partition } = &range.partition;
            let described = cluster
                .topics
                .get(&**topic)
                .and_then(|topic| topic.partition(*partition));
            match cluster.leader(topic, *partition) {
                Some(leader) => by_leader.entry(leader).or_default().push(ReadPosition {
                    range,
                    leader_epoch: described.map_or(-1, |described| described.leader_epoch),
                    failing_since: failure.map(|(_, since)| since),
                }),
                None => {
                    let first = || (no_leader(described.is_some(), &range.partition), Instant::now());
                    let failure = Some(failure.unwrap_or_else(first));
                    self.idle.push(Idle { range, failure });
                }
            }
        }
        self.resume_at = Instant::now() + self.backoff.next(chance());
        if self.idle.is_empty() {
            self.backoff = Backoff::default();
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
    /// Since when it was tried in vain, until something is read.
    failing_since: Option<Instant>,
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
            let _ = self.events.send(Event::Lost(position, error)).await;
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
            // Only what fills an answer keeps it from showing more.
            let nothing_left = response.responses.iter().all(|topic| {
                topic
                    .partition_responses
                    .iter()
                    .all(|read| bytes_of(&read).is_empty())
            });
            let mut lost = Vec::new();
            let mut ended = 0;
            let mut is_read = false;
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
                            lost.push(Event::Lost(position, error));
                            continue;
                        }
                    }
                    (is_read, position.failing_since) = (true, None);
                    // Compaction may have taken the last records before the end.
                    let end = end_offset(&read, self.config.isolation);
                    if nothing_left && let Some(until) = position.range.until.filter(|&until| until <= end) {
                        position.range.from = position.range.from.max(until);
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
            for event in is_read.then_some(fetched).into_iter().chain(lost) {
                if self.events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn request(&self) -> FetchRequest<'static> {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for ReadPosition {
            range, leader_epoch, ..
        } in &self.positions
        {
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
    let bytes = bytes_of(read);
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
