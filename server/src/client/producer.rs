//! Writes records: gathers them into batches by partition, sends them to the leaders, tries again where that can help.
//!
//! Promise: what [`Producer::flush`] says is written, has been acknowledged as [`ProducerConfig::acks`] demands. Records of
//! one partition arrive in the order of [`Producer::append`], because one batch of a partition is under way at a time;
//! with idempotence each arrives once, however often it had to be sent. After an error the rest is not sent.
//! Sources: `KafkaProducer`, `Sender`, `RecordAccumulator` of 2.7.2; KIP-98.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use milena_engine::config::Codec;
use milena_engine::record_batch::{Batch, BatchError, RecordBatchBuilder, RecordHeader};
use milena_engine::units::{ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::{Client, ClientError, Target, TopicMetadata, Topics, chance, partition_of_key, refused};
use crate::protocol::ErrorCode;
use crate::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use crate::protocol::messages::producer_ids::{InitProducerIdRequest, InitProducerIdResponse};

/// How long a topic that is not there may take to be created by the broker that was asked for it.
const CREATION_WAIT: Duration = Duration::from_secs(10);

/// When a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Acks {
    /// Once it is sent: the broker does not answer, and no one knows.
    None = 0,
    /// Once the leader has appended it.
    Leader = 1,
    /// Once all in-sync replicas have.
    All = -1,
}

/// How to write. The names are those of Kafka's producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub acks: Acks,
    pub codec: Codec,
    /// A batch that has so many bytes is sent; a larger record has a batch of its own.
    pub batch_size_bytes: usize,
    /// Most bytes of one request, unless one batch alone has more; `max.request.size`. Full batches of so many bytes
    /// are gathered before they are sent.
    pub request_size_bytes: usize,
    /// How long a batch may be tried to be written; `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// Whether the broker is to drop what it has already. Left out, with a broker that cannot or does not permit it.
    pub idempotence: bool,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            codec: Codec::None,
            batch_size_bytes: 64 << 10,
            request_size_bytes: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            idempotence: true,
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct ProducerRecord<'a> {
    pub topic: &'a str,
    /// Without one, that of the key; without a key, any, and the same for a batch.
    pub partition: Option<i32>,
    pub timestamp: TimestampMs,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [RecordHeader<'a>],
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
#[error(
    "{partition}: {record_count} records, the first of them number {first_number}, were not written: {source}"
)]
pub struct ProduceError {
    pub partition: TopicPartition,
    /// The how-manieth record that was appended is the first of those that failed, from 1.
    pub first_number: u64,
    pub record_count: u32,
    pub source: Box<ClientError>,
}

/// A batch that is complete.
#[derive(Debug)]
struct ReadyBatch {
    bytes: Vec<u8>,
    record_count: u32,
    first_number: u64,
    deadline: Instant,
}

/// What waits for one partition.
#[derive(Debug)]
struct Queue {
    open: Option<(RecordBatchBuilder, u64)>,
    /// The oldest first.
    ready: VecDeque<ReadyBatch>,
    next_sequence: Sequence,
}

/// See the module.
#[derive(Debug)]
pub struct Producer<'c> {
    client: &'c mut Client,
    config: ProducerConfig,
    /// Settled before the first record.
    identity: Option<Option<(ProducerId, ProducerEpoch)>>,
    topics: HashMap<String, TopicMetadata>,
    /// Where records without a key go for now.
    sticky: HashMap<String, i32>,
    queues: BTreeMap<TopicPartition, Queue>,
    /// Of full batches.
    buffered_bytes: usize,
    backoff: Backoff,
    appended: u64,
    written: u64,
}

impl<'c> Producer<'c> {
    pub fn new(client: &'c mut Client, config: ProducerConfig) -> Producer<'c> {
        Producer {
            client,
            config,
            identity: None,
            topics: HashMap::new(),
            sticky: HashMap::new(),
            queues: BTreeMap::new(),
            buffered_bytes: 0,
            backoff: Backoff::default(),
            appended: 0,
            written: 0,
        }
    }

    /// Records that have been acknowledged, or sent if nobody acknowledges.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes a record. It is sent when its batch is full and so are others, enough for a request, or by
    /// [`Producer::flush`].
    ///
    /// # Errors
    /// Why a batch that had to leave was not written, or the topic or partition of this record is not there.
    pub async fn append(&mut self, record: ProducerRecord<'_>) -> Result<(), ProduceError> {
        self.appended += 1;
        let partition = match self.prepare(&record).await {
            Ok(partition) => partition,
            Err(source) => {
                return Err(ProduceError {
                    partition: TopicPartition::new(record.topic, record.partition.unwrap_or(-1)),
                    first_number: self.appended,
                    record_count: 1,
                    source: Box::new(source),
                });
            }
        };
        self.push(TopicPartition::new(record.topic, partition), &record);
        while self.buffered_bytes > self.config.request_size_bytes {
            self.send_round().await?;
        }
        Ok(())
    }

    /// Writes everything that was appended.
    ///
    /// # Errors
    /// Why a batch was not written.
    pub async fn flush(&mut self) -> Result<(), ProduceError> {
        for queue in self.queues.values_mut() {
            self.buffered_bytes += queue.close(&self.config);
        }
        self.sticky.clear();
        while self.queues.values().any(|queue| !queue.ready.is_empty()) {
            self.send_round().await?;
        }
        Ok(())
    }

    /// Learns what is needed for this record, and chooses its partition.
    async fn prepare(&mut self, record: &ProducerRecord<'_>) -> Result<i32, ClientError> {
        if self.identity.is_none() {
            self.identity = Some(self.identify().await?);
        }
        if !self.topics.contains_key(record.topic) {
            self.learn(record.topic).await?;
        }
        let partitions = &self.topics[record.topic].partitions;
        if let Some(id) = record.partition {
            return match partitions.iter().any(|partition| partition.id == id) {
                true => Ok(id),
                false => Err(refused(
                    format!(
                        "{}-{id} (the topic has {} partitions)",
                        record.topic,
                        partitions.len()
                    ),
                    ErrorCode::UnknownTopicOrPartition,
                )),
            };
        }
        if let Some(key) = record.key {
            return Ok(partitions[partition_of_key(key, partitions.len())].id);
        }
        if let Some(&id) = self.sticky.get(record.topic) {
            return Ok(id);
        }
        let led: Vec<_> = partitions
            .iter()
            .filter(|partition| partition.leader.is_some())
            .collect();
        let among = if led.is_empty() {
            partitions.iter().collect()
        } else {
            led
        };
        let id = among[chance() as usize % among.len()].id;
        self.sticky.insert(record.topic.to_owned(), id);
        Ok(id)
    }

    async fn identify(&mut self) -> Result<Option<(ProducerId, ProducerEpoch)>, ClientError> {
        if !self.config.idempotence || self.config.acks != Acks::All {
            return Ok(None);
        }
        let request = InitProducerIdRequest {
            transaction_timeout_ms: i32::MAX,
            ..Default::default()
        };
        let asked = self.client.retry(async |client| {
            let answer = client.call(Target::Any, &request).await?;
            let response: InitProducerIdResponse = answer.decode()?;
            ClientError::check(response.error_code, None, || "a producer id".to_owned())?;
            Ok((
                ProducerId(response.producer_id),
                ProducerEpoch(response.producer_epoch),
            ))
        });
        match asked.await {
            Ok(identity) => Ok(Some(identity)),
            Err(ClientError::Unsupported { .. }) => Ok(None),
            Err(error) if error.code() == Some(ErrorCode::ClusterAuthorizationFailed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for a topic, which the broker may create, until its partitions are known.
    async fn learn(&mut self, topic: &str) -> Result<(), ClientError> {
        let names = [topic.to_owned()];
        let limit = self.client.config().operation_timeout.min(CREATION_WAIT);
        let described = self.client.retry_within(limit, async |client| {
            let mut cluster = client.describe(Topics::Named(&names), true).await?;
            let Some(described) = cluster.topics.remove(topic) else {
                return Err(refused(
                    format!("topic {topic}"),
                    ErrorCode::UnknownTopicOrPartition,
                ));
            };
            ClientError::check(described.error.code(), None, || format!("topic {topic}"))?;
            match described.partitions.is_empty() {
                true => Err(refused(format!("topic {topic}"), ErrorCode::LeaderNotAvailable)),
                false => Ok(described),
            }
        });
        let described = described.await?;
        self.topics.insert(topic.to_owned(), described);
        Ok(())
    }

    fn push(&mut self, partition: TopicPartition, record: &ProducerRecord<'_>) {
        let identity = self.identity.flatten();
        let queue = self.queues.entry(partition).or_insert_with(|| Queue {
            open: None,
            ready: VecDeque::new(),
            next_sequence: Sequence(0),
        });
        let record_size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        if let Some((builder, _)) = &queue.open
            && builder.size_bytes() + record_size > self.config.batch_size_bytes
        {
            self.buffered_bytes += queue.close(&self.config);
            if record.key.is_none() {
                self.sticky.remove(record.topic);
            }
        }
        let next_sequence = queue.next_sequence;
        let (builder, _) = queue.open.get_or_insert_with(|| {
            let builder = RecordBatchBuilder::new().codec(self.config.codec);
            let builder = match identity {
                Some((id, epoch)) => builder.producer(id, epoch, Some(next_sequence)),
                None => builder,
            };
            (builder, self.appended)
        });
        builder.append_with_headers(record.timestamp, record.key, record.value, record.headers);
    }

    /// Sends the oldest full batches of all partitions, to each leader in one request, and hears what became of them.
    async fn send_round(&mut self) -> Result<(), ProduceError> {
        let mut failures = Vec::new();
        for (leader, partitions) in self.due() {
            let sent = match leader {
                Some(leader) => self.send_to(leader, &partitions).await,
                None => Err(refused("the leader".to_owned(), ErrorCode::LeaderNotAvailable)),
            };
            match sent {
                Ok(results) => {
                    // What was acknowledged counts, also beside what was refused.
                    let mut refused = None;
                    for (partition, result) in results {
                        match self.settle(&partition, result) {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => failures.push((partition, error)),
                            Err(error) => refused = refused.or(Some(error)),
                        }
                    }
                    if let Some(error) = refused {
                        return Err(error);
                    }
                }
                Err(error) if error.is_retriable() => {
                    let text = error.to_string();
                    let mut error = Some(error);
                    for partition in partitions {
                        let again = || refused(text.clone(), ErrorCode::NetworkException);
                        failures.push((partition, error.take().unwrap_or_else(again)));
                    }
                }
                Err(error) => {
                    let partition = partitions.into_iter().next();
                    return Err(self.fail(&partition.unwrap_or_else(|| TopicPartition::new("", -1)), error));
                }
            }
        }
        self.recover(failures).await
    }

    /// Which partitions have something to send, by leader, in requests of the size that is allowed.
    fn due(&self) -> Vec<(Option<i32>, Vec<TopicPartition>)> {
        let mut requests: Vec<(Option<i32>, Vec<TopicPartition>)> = Vec::new();
        let mut open: HashMap<Option<i32>, (usize, usize)> = HashMap::new();
        for (partition, queue) in &self.queues {
            let Some(batch) = queue.ready.front() else {
                continue;
            };
            let described = self.topics.get(&*partition.topic);
            let leader = described
                .and_then(|topic| topic.partition(partition.partition))
                .and_then(|partition| partition.leader)
                // One that died is named until another is elected.
                .filter(|id| self.client.cluster().brokers.contains_key(id));
            let (at, size) = open.entry(leader).or_insert((usize::MAX, 0));
            if *at == usize::MAX || *size + batch.bytes.len() > self.config.request_size_bytes {
                (*at, *size) = (requests.len(), 0);
                requests.push((leader, Vec::new()));
            }
            *size += batch.bytes.len();
            requests[*at].1.push(partition.clone());
        }
        requests
    }

    /// Sends one request. The results are in the order of `partitions`.
    async fn send_to(
        &mut self,
        leader: i32,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Result<(), ClientError>)>, ClientError> {
        let mut topics: Vec<TopicProduceData<'_>> = Vec::new();
        for topic in partitions.chunk_by(|a, b| a.topic == b.topic) {
            let data = topic.iter().map(|partition| {
                let batch = self.queues[partition].ready.front();
                PartitionProduceData {
                    partition_index: partition.partition,
                    records: batch.map(|batch| Cow::Borrowed(&batch.bytes[..])),
                }
            });
            topics.push(TopicProduceData {
                name: Cow::Borrowed(&topic[0].topic),
                partitions: data.collect(),
            });
        }
        let timeout = self.client.config().connection.request_timeout;
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.config.acks as i16,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topics: topics.into(),
        };
        if self.config.acks == Acks::None {
            self.client.send_unanswered(leader, &request).await?;
            return Ok(partitions
                .iter()
                .map(|partition| (partition.clone(), Ok(())))
                .collect());
        }
        let answer = self.client.call(Target::Broker(leader), &request).await?;
        let response: ProduceResponse<'_> = answer.decode()?;
        let mut outcomes = HashMap::new();
        for topic in response.responses.iter() {
            for result in topic.partitions.iter() {
                let partition = TopicPartition::new(topic.name.as_ref(), result.partition_index);
                let outcome = outcome_of(&partition, &result);
                outcomes.insert(partition, outcome);
            }
        }
        let results = partitions.iter().map(|partition| {
            let silence = || Err(refused(partition.to_string(), ErrorCode::UnknownServerError));
            (
                partition.clone(),
                outcomes.remove(partition).unwrap_or_else(silence),
            )
        });
        Ok(results.collect())
    }

    /// Takes a batch off its queue, or says what to do about it: the inner error may pass.
    fn settle(
        &mut self,
        partition: &TopicPartition,
        result: Result<(), ClientError>,
    ) -> Result<Result<(), ClientError>, ProduceError> {
        let Some(queue) = self.queues.get_mut(partition) else {
            return Ok(Ok(()));
        };
        let error = match result {
            Ok(()) => {
                if let Some(batch) = queue.ready.pop_front() {
                    self.buffered_bytes -= batch.bytes.len();
                    self.written += u64::from(batch.record_count);
                }
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        if error.code() == Some(ErrorCode::MessageTooLarge)
            && queue.ready.front().is_some_and(|batch| batch.record_count > 1)
            && let Some(batch) = queue.ready.pop_front()
        {
            self.buffered_bytes -= batch.bytes.len();
            let halves = halves(&batch, self.config.codec).expect("a batch of our own is sound");
            for half in halves.into_iter().rev() {
                self.buffered_bytes += half.bytes.len();
                queue.ready.push_front(half);
            }
            return Ok(Ok(()));
        }
        if error.is_retriable() {
            return Ok(Err(error));
        }
        Err(self.fail(partition, error))
    }

    fn fail(&self, partition: &TopicPartition, source: ClientError) -> ProduceError {
        let batch = self.queues.get(partition).and_then(|queue| queue.ready.front());
        ProduceError {
            partition: partition.clone(),
            first_number: batch.map_or(0, |batch| batch.first_number),
            record_count: batch.map_or(0, |batch| batch.record_count),
            source: Box::new(source),
        }
    }

    /// After failures that may pass: waits, and asks who leads now.
    async fn recover(&mut self, failures: Vec<(TopicPartition, ClientError)>) -> Result<(), ProduceError> {
        if failures.is_empty() {
            self.backoff = Backoff::default();
            return Ok(());
        }
        let pause = self.backoff.next(chance());
        let resumed = Instant::now() + pause;
        for (partition, error) in failures {
            let batch = self.queues.get(&partition).and_then(|queue| queue.ready.front());
            if batch.is_some_and(|batch| batch.deadline <= resumed) {
                return Err(self.fail(&partition, error));
            }
        }
        sleep(pause).await;
        let names: Vec<String> = self.topics.keys().cloned().collect();
        // What fails here fails again in the next round, whose error is the one to be told.
        if let Ok(cluster) = self.client.describe(Topics::Named(&names), false).await {
            let described = cluster.topics.into_iter();
            self.topics
                .extend(described.filter(|(_, topic)| !topic.partitions.is_empty()));
        }
        Ok(())
    }
}

impl Queue {
    /// Completes the open batch; returns its size.
    fn close(&mut self, config: &ProducerConfig) -> usize {
        let Some((builder, first_number)) = self.open.take() else {
            return 0;
        };
        let record_count = builder.record_count();
        let bytes = builder.build();
        let size = bytes.len();
        self.next_sequence = self.next_sequence.plus(record_count as i32);
        self.ready.push_back(ReadyBatch {
            bytes,
            record_count,
            first_number,
            deadline: Instant::now() + config.delivery_timeout,
        });
        size
    }
}

/// What the broker says of one partition's batch. One that it has already is as good as written.
fn outcome_of(partition: &TopicPartition, result: &PartitionProduceResponse<'_>) -> Result<(), ClientError> {
    if ErrorCode::from_code(result.error_code) == ErrorCode::DuplicateSequenceNumber {
        return Ok(());
    }
    let record = result.record_errors.iter().find_map(|error| {
        let text = error.batch_index_error_message?;
        Some(format!("record {} of the batch: {text}", error.batch_index))
    });
    let message = record.as_deref().or(result.error_message.as_deref());
    ClientError::check(result.error_code, message, || partition.to_string())
}

/// The records of a batch that was too large, in two.
fn halves(batch: &ReadyBatch, codec: Codec) -> Result<[ReadyBatch; 2], BatchError> {
    let parsed = Batch::parse(&batch.bytes)?;
    let producer = parsed.header().producer;
    let first_count = batch.record_count / 2;
    let builder = |skipped: u32| {
        let builder = RecordBatchBuilder::new().codec(codec);
        match producer {
            Some(stamp) => {
                let base = stamp.base_sequence.map(|base| base.plus(skipped as i32));
                builder.producer(stamp.id, stamp.epoch, base)
            }
            None => builder,
        }
    };
    let mut builders = [builder(0), builder(first_count)];
    let mut records = parsed.records()?;
    let mut number = 0;
    while let Some(record) = records.next_record()? {
        let headers: Vec<RecordHeader<'_>> = record.headers.iter().collect();
        let half = usize::from(number >= first_count);
        builders[half].append_with_headers(record.timestamp, record.key, record.value, &headers);
        number += 1;
    }
    let mut first_number = batch.first_number;
    Ok(builders.map(|builder| {
        let record_count = builder.record_count();
        let half = ReadyBatch {
            bytes: builder.build(),
            record_count,
            first_number,
            deadline: batch.deadline,
        };
        first_number += u64::from(record_count);
        half
    }))
}
