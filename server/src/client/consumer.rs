//! Reads partitions that it is told to read: one task for each leader keeps a fetch under way, while what came before is
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
    Address, Client, ClientError, ClusterMetadata, Connection, ConnectionConfig, Fetched, IsolationLevel,
    OffsetSpec, Topics, chance, refused,
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

/// What a task has to tell.
#[derive(Debug)]
enum Event {
    Fetched(Fetched),
    /// The leader does not serve this partition (any more), which is to be read from here.
    Lost {
        partition: TopicPartition,
        offset: i64,
        error: ClientError,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    /// Partitions that no task reads, and why not, if it was tried.
    idle: BTreeMap<TopicPartition, (i64, Option<ClientError>)>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    backoff: Backoff,
    /// Since when nothing but failures was heard.
    failing_since: Option<Instant>,
}

impl Consumer {
    /// Reads each partition from its offset on.
    pub fn new(
        client: Client,
        config: ConsumerConfig,
        partitions: impl IntoIterator<Item = (TopicPartition, i64)>,
    ) -> Consumer {
        let (sender, events) = mpsc::channel(1);
        let idle = partitions.into_iter();
        Consumer {
            client,
            config,
            idle: idle
                .map(|(partition, offset)| (partition, (offset, None)))
                .collect(),
            events,
            sender,
            tasks: JoinSet::new(),
            backoff: Backoff::default(),
            failing_since: None,
        }
    }

    /// What was read next. Waits for ever when nothing is written. May be given up and called again.
    ///
    /// # Errors
    /// A partition cannot be read, and patience does not help or is over.
    pub async fn next(&mut self) -> Result<Fetched, ClientError> {
        loop {
            self.start_idle().await?;
            // There is always a sender: this consumer's own.
            let Some(event) = self.events.recv().await else {
                continue;
            };
            match event {
                Event::Fetched(fetched) => {
                    self.backoff = Backoff::default();
                    self.failing_since = None;
                    return Ok(fetched);
                }
                Event::Lost {
                    partition,
                    offset,
                    error,
                } => self.lost(partition, offset, error).await?,
            }
        }
    }

    /// Puts a partition among the idle ones, at the offset where reading can go on.
    async fn lost(
        &mut self,
        partition: TopicPartition,
        offset: i64,
        error: ClientError,
    ) -> Result<(), ClientError> {
        let is_out_of_range = error.code() == Some(ErrorCode::OffsetOutOfRange);
        let reset = self.config.auto_offset_reset.filter(|_| is_out_of_range);
        if reset.is_none() && !error.is_retriable() {
            return Err(error);
        }
        self.idle.insert(partition.clone(), (offset, Some(error)));
        if let Some(spec) = reset {
            let isolation = self.config.isolation;
            let asked = std::slice::from_ref(&partition);
            let mut listed = self.client.list_offsets(asked, spec, isolation).await?;
            if let Some(found) = listed.remove(&partition)
                && let Some(offset) = found?.offset
            {
                self.idle.insert(partition, (offset, None));
            }
        }
        Ok(())
    }

    /// Gives partitions that nobody reads to tasks, each leader's to one.
    async fn start_idle(&mut self) -> Result<(), ClientError> {
        while !self.idle.is_empty() {
            if self.idle.values().any(|(_, error)| error.is_some()) {
                self.pause().await?;
            }
            let mut names: Vec<String> = self
                .idle
                .keys()
                .map(|partition| partition.topic.to_string())
                .collect();
            names.dedup();
            let cluster = self.client.metadata(Topics::Named(&names)).await?;
            let mut by_leader: BTreeMap<i32, Vec<ReadPosition>> = BTreeMap::new();
            for (partition, (offset, error)) in std::mem::take(&mut self.idle) {
                let topic = cluster.topics.get(&*partition.topic);
                let epoch = topic.and_then(|topic| topic.partition(partition.partition));
                let leader_epoch = epoch.map_or(-1, |described| described.leader_epoch);
                match cluster.leader(&partition.topic, partition.partition) {
                    Some(leader) => by_leader.entry(leader).or_default().push(ReadPosition {
                        partition,
                        offset,
                        leader_epoch,
                    }),
                    None => {
                        let error = error.unwrap_or_else(|| no_leader(&cluster, &partition));
                        self.idle.insert(partition, (offset, Some(error)));
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
            let error = self.idle.values_mut().find_map(|(_, error)| error.take());
            return Err(
                error.unwrap_or_else(|| refused("a partition".to_owned(), ErrorCode::LeaderNotAvailable))
            );
        }
        sleep(pause).await;
        Ok(())
    }
}

fn no_leader(cluster: &ClusterMetadata, partition: &TopicPartition) -> ClientError {
    let topic = cluster.topics.get(&*partition.topic);
    let is_known = topic.is_some_and(|topic| topic.partition(partition.partition).is_some());
    let code = match is_known {
        true => ErrorCode::LeaderNotAvailable,
        false => ErrorCode::UnknownTopicOrPartition,
    };
    refused(partition.to_string(), code)
}

/// Where a task is in a partition.
#[derive(Debug)]
struct ReadPosition {
    partition: TopicPartition,
    offset: i64,
    leader_epoch: i32,
}

/// Reads partitions from their leader until none is left.
#[derive(Debug)]
struct ReadTask {
    /// The one that has waited longest first.
    positions: Vec<ReadPosition>,
    config: ConsumerConfig,
    events: mpsc::Sender<Event>,
}

impl ReadTask {
    async fn run(mut self, address: &Address, config: &ConnectionConfig) {
        if let Err(error) = self.read(address, config).await {
            let text = error.to_string();
            let is_retriable = error.is_retriable();
            let mut error = Some(error);
            for ReadPosition {
                partition, offset, ..
            } in self.positions
            {
                let code = match is_retriable {
                    true => ErrorCode::NetworkException,
                    false => ErrorCode::UnknownServerError,
                };
                let error = error.take().unwrap_or_else(|| refused(text.clone(), code));
                // The consumer may be gone, and needs no answer then.
                let _ = self
                    .events
                    .send(Event::Lost {
                        partition,
                        offset,
                        error,
                    })
                    .await;
            }
        }
    }

    async fn read(&mut self, address: &Address, config: &ConnectionConfig) -> Result<(), ClientError> {
        let mut connection = Connection::open(address, config).await?;
        while !self.positions.is_empty() {
            let request = self.request();
            let limit = config.request_timeout + self.config.fetch_max_wait;
            let answer = connection.call_within(&request, limit).await?;
            drop(request);
            let asked = self
                .positions
                .iter()
                .map(|at| (at.partition.clone(), at.offset))
                .collect();
            let response: FetchResponse<'_> = answer.decode()?;
            ClientError::check(response.error_code, None, || format!("fetch from {address}"))?;
            let mut lost = Vec::new();
            let mut has_news = false;
            for topic in response.responses.iter() {
                for read in topic.partition_responses.iter() {
                    let at = self.positions.iter().position(|at| {
                        at.partition.partition == read.partition && *at.partition.topic == *topic.topic
                    });
                    let Some(at) = at else { continue };
                    let position = self.positions.remove(at);
                    let next = match check(&position, &read) {
                        Ok(next) => next,
                        Err(error) => {
                            lost.push((position, error));
                            continue;
                        }
                    };
                    has_news |= next > position.offset;
                    // What was read waits longest from now on.
                    self.positions.push(ReadPosition {
                        offset: next,
                        ..position
                    });
                }
            }
            // An answer without records is news too, once: it tells where the end is.
            let fetched = Fetched {
                answer,
                asked,
                isolation: self.config.isolation,
            };
            let events = Some(Event::Fetched(fetched)).filter(|_| has_news || lost.is_empty());
            let lost = lost.into_iter().map(|(position, error)| Event::Lost {
                partition: position.partition,
                offset: position.offset,
                error,
            });
            for event in events.into_iter().chain(lost) {
                if self.events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn request(&self) -> FetchRequest<'static> {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for at in &self.positions {
            topics
                .entry(&at.partition.topic)
                .or_default()
                .push(FetchPartition {
                    partition: at.partition.partition,
                    current_leader_epoch: at.leader_epoch,
                    fetch_offset: at.offset,
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
fn check(at: &ReadPosition, read: &FetchablePartitionResponse<'_>) -> Result<i64, ClientError> {
    ClientError::check(read.error_code, None, || {
        format!("{} at offset {}", at.partition, at.offset)
    })?;
    let bytes = match &read.record_set {
        Payload::Bytes(bytes) => &bytes[..],
        _ => &[],
    };
    let next = next_offset(bytes, at.offset);
    if next == at.offset && !bytes.is_empty() {
        return Err(ClientError::Refused {
            what: format!("{} at offset {}", at.partition, at.offset),
            code: ErrorCode::CorruptMessage,
            message: Some(format!("found {} bytes that are no whole batch", bytes.len())),
        });
    }
    Ok(next)
}
