//! Fetch (key 1): records from partitions, as file ranges that the network sends without touching them.
//!
//! A fetch looks once; if there is too little to answer (`min_bytes`) it registers with its partitions, looks again, and sleeps
//! until an append satisfies it or `max_wait_ms` is over. Cold data is brought into memory off the lane before it is sent.
//!
//! Versions: up to 1 answers in message format v0, up to 3 in v1 (converted here, the only case in which record bytes
//! are read); up to 2 never exceeds a partition's limit; from 7 on incremental sessions; zstd topics need 10; from 11 on a consumer
//! may read from a follower, and is sent to one in its rack (KIP-392); a follower of 12 may learn where its log parts from ours
//! (`KafkaApis.handleFetchRequest`, `ReplicaManager.readFromLocalLog`, `DelayedFetch.scala`,
//! `LazyDownConversionRecords.java`).
//!
//! **Deviation:** a partition whose batches are broken and cannot be converted for an old consumer is CORRUPT_MESSAGE; 2.7.2
//! fails the whole request with whatever error the exception has, or closes the connection.
//!
//! **Deviation:** a proposal to read from another replica is sent at once; in 2.7.2 it waits for `max_wait_ms`, since it brings no
//! records.
//!
//! Watched by S6 and S7 of `docs/benchmarks.md`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::config::{Codec, CompressionType, Magic};
use milena_engine::error::ReadError;
use milena_engine::io::Operation;
use milena_engine::log::{FileSlice, Log, UpperBound};
use milena_engine::record_batch::{BatchError, BatchHeader, convert_down};
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{LaneScope, Request, RequestContext};
use crate::broker::Broker;
use crate::error::read_error_code;
use crate::fetch_session::{AnswerSummary, FetchContext, FetchRange, SessionRefusal};
use crate::network::{FileRange, Reply};
use crate::protocol::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchablePartitionResponse,
    FetchableTopicResponse,
};
use crate::protocol::{ErrorCode, Payload};
use crate::replication::Partition;
use crate::replication::purgatory::End;

/// From this version on the first batch is returned whole whatever its size.
const FIRST_VERSION_WITHOUT_HARD_LIMIT: i16 = 3;
/// From this version on a client knows zstd.
const FIRST_VERSION_WITH_ZSTD: i16 = 10;
/// From this version on a consumer tells its rack, and may read from a follower.
const FIRST_VERSION_WITH_RACKS: i16 = 11;
/// What a client sees where an offset is unknown.
const UNKNOWN_OFFSET: i64 = -1;
const UNKNOWN_REPLICA: i32 = -1;

/// What was asked, apart from the partitions.
struct Terms {
    /// The broker id of a follower.
    follower: Option<i32>,
    wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
    bound: UpperBound,
    /// Where a consumer sits that may be sent to another replica: its rack and its listener.
    place: Option<(String, Arc<str>)>,
    version: i16,
}

impl Terms {
    /// Only consumers of today know that a follower may serve them.
    fn may_read_from_follower(&self) -> bool {
        self.follower.is_none() && self.version >= FIRST_VERSION_WITH_RACKS
    }
}

/// What one partition has to say.
struct Found {
    error: ErrorCode,
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
    aborted: Option<Vec<AbortedTransaction>>,
    /// Where the follower's log parts from ours.
    diverging: Option<EpochEndOffset>,
    /// Another replica that the consumer had better read from.
    preferred: Option<i32>,
    records: Records,
}

enum Records {
    None,
    Range(FileSlice),
    Converted(Vec<u8>),
}

impl Records {
    fn size_bytes(&self) -> usize {
        match self {
            Records::None => 0,
            Records::Range(slice) => slice.size_bytes,
            Records::Converted(bytes) => bytes.len(),
        }
    }
}

impl Found {
    fn error(error: ErrorCode) -> Found {
        Found {
            error,
            high_watermark: UNKNOWN_OFFSET,
            last_stable_offset: UNKNOWN_OFFSET,
            log_start_offset: UNKNOWN_OFFSET,
            aborted: None,
            diverging: None,
            preferred: None,
            records: Records::None,
        }
    }

    /// Where the log ends, without records.
    fn nothing(log: &Log) -> Found {
        let offsets = log.offsets();
        Found {
            high_watermark: offsets.high_watermark.get(),
            last_stable_offset: offsets.last_stable_offset.get(),
            log_start_offset: offsets.log_start_offset.get(),
            ..Found::error(ErrorCode::None)
        }
    }
}

/// One look at all partitions.
struct Look {
    found: Vec<Found>,
    size_bytes: usize,
    /// An error, a diverging log or a better replica: answered at once.
    is_urgent: bool,
}

pub(super) fn handle(scope: &Rc<LaneScope>, request: &Request) -> Reply {
    let message = match request.decode::<FetchRequest<'_>>() {
        Ok(message) => message,
        Err(reason) => return Reply::Close(reason),
    };
    let broker = &scope.broker;
    let (asked, forgotten) = named_partitions(&message);
    let begun = broker.fetch_sessions.lock().begin(
        broker.clock.monotonic(),
        message.session_id,
        message.session_epoch,
        asked,
        &forgotten,
    );
    let context = match begun {
        Ok(context) => context,
        Err(refusal) => return refuse(scope, &request.context, refusal),
    };
    let max_bytes = usize::try_from(message.max_bytes)
        .unwrap_or(0)
        .min(broker.fetch_max_bytes());
    let follower = (message.replica_id >= 0).then_some(message.replica_id);
    let terms = Terms {
        follower,
        wait: Duration::from_millis(u64::try_from(message.max_wait_ms).unwrap_or(0)),
        min_bytes: usize::try_from(message.min_bytes).unwrap_or(0).min(max_bytes),
        max_bytes,
        bound: match (follower, message.isolation_level) {
            (Some(_), _) => UpperBound::LogEnd,
            (None, 1) => UpperBound::LastStable,
            (None, _) => UpperBound::HighWatermark,
        },
        place: (broker.config().fetch.is_rack_aware && !message.rack_id.is_empty()).then(|| {
            (
                message.rack_id.to_string(),
                Arc::clone(&request.context.peer.listener),
            )
        }),
        version: request.context.api_version,
    };
    let look = look(broker, &terms, &context);
    let cold = cold_ranges(&look);
    if is_enough(&terms, &context, &look) && cold.is_empty() {
        return answer(scope, &request.context, &terms, &context, look);
    }
    let (scope, request_context) = (Rc::clone(scope), request.context.clone());
    Reply::Later(Box::pin(async move {
        let look = wait(&scope.broker, &terms, &context, look).await;
        warm(&scope.broker, cold_ranges(&look)).await;
        answer(&scope, &request_context, &terms, &context, look)
    }))
}

fn named_partitions(message: &FetchRequest<'_>) -> (Vec<(TopicPartition, FetchRange)>, Vec<TopicPartition>) {
    let mut asked = Vec::new();
    for topic in message.topics.iter() {
        let name: Arc<str> = topic.topic.as_ref().into();
        for partition in topic.partitions.iter() {
            let range = FetchRange {
                fetch_offset: Offset(partition.fetch_offset),
                log_start_offset: Offset(partition.log_start_offset),
                last_fetched_epoch: partition.last_fetched_epoch,
                size_bytes_max: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
            };
            asked.push((TopicPartition::new(Arc::clone(&name), partition.partition), range));
        }
    }
    let mut forgotten = Vec::new();
    for topic in message.forgotten_topics_data.iter() {
        let name: Arc<str> = topic.topic.as_ref().into();
        forgotten.extend(
            topic
                .partitions
                .iter()
                .map(|index| TopicPartition::new(Arc::clone(&name), index)),
        );
    }
    (asked, forgotten)
}

fn refuse(scope: &LaneScope, context: &RequestContext, refusal: SessionRefusal) -> Reply {
    let error = match refusal {
        SessionRefusal::IdNotFound => ErrorCode::FetchSessionIdNotFound,
        SessionRefusal::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
    };
    let response = FetchResponse {
        error_code: error.code(),
        ..FetchResponse::default()
    };
    scope.respond(context, &response, Vec::new())
}

/// Reads all partitions once; what has been found uses up `max_bytes`.
fn look(broker: &Broker, terms: &Terms, context: &FetchContext) -> Look {
    let mut left = terms.max_bytes;
    let hard_limit = terms.version < FIRST_VERSION_WITHOUT_HARD_LIMIT;
    let mut whole_first = !hard_limit;
    let mut look = Look {
        found: Vec::with_capacity(context.partitions.len()),
        size_bytes: 0,
        is_urgent: false,
    };
    for (name, range) in &context.partitions {
        let size_max = usize::try_from(range.size_bytes_max).unwrap_or(0).min(left);
        let found = match read(broker, terms, name, range, size_max, whole_first) {
            Ok(found) => found,
            Err(error) => Found::error(error),
        };
        let size = found.records.size_bytes();
        if size > 0 {
            whole_first = false;
        }
        left = left.saturating_sub(size);
        look.size_bytes += size;
        look.is_urgent |=
            found.error != ErrorCode::None || found.diverging.is_some() || found.preferred.is_some();
        look.found.push(found);
    }
    look
}

fn read(
    broker: &Broker,
    terms: &Terms,
    name: &TopicPartition,
    range: &FetchRange,
    size_max: usize,
    whole_first: bool,
) -> Result<Found, ErrorCode> {
    let partition = broker
        .leader_partition(&name.topic, name.partition)
        .map_err(|error| match error {
            // Clients before version 6 do not know the storage error.
            ErrorCode::KafkaStorageError if terms.version <= 5 => ErrorCode::NotLeaderOrFollower,
            error => error,
        })?;
    let leader_epoch = if terms.may_read_from_follower() {
        partition.check_epoch(range.current_leader_epoch)?
    } else {
        partition.check_leader(range.current_leader_epoch)?
    };
    let log = partition.log();
    let config = log.config();
    if config.compression_type == CompressionType::Always(Codec::Zstd)
        && terms.version < FIRST_VERSION_WITH_ZSTD
    {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    if let Some((rack, listener)) = terms.place.as_ref().filter(|_| terms.may_read_from_follower())
        && let Some(preferred) = partition.preferred_replica(rack, listener, range.fetch_offset)
    {
        return Ok(Found {
            preferred: Some(preferred),
            ..Found::nothing(&log)
        });
    }
    if let Some(found) = diverging(&partition, range)? {
        return Ok(found);
    }
    let info = log.read(range.fetch_offset, size_max, terms.bound, whole_first).map_err(|error| {
        if let ReadError::Storage(error) = &error {
            tracing::error!(target: "kafka.server.ReplicaManager", "Error processing fetch of {name}: {error}");
        }
        read_error_code(&error)
    })?;
    let is_served = terms.follower.is_none_or(|follower| {
        let (offset, start, end) = (range.fetch_offset, range.log_start_offset, info.log_end_offset);
        let is_replica = partition.fetched(follower, leader_epoch, offset, start, end);
        if !is_replica {
            // It learns where the log ends, and gets nothing.
            tracing::warn!(
                target: "kafka.server.ReplicaManager",
                "broker {follower} fetches from {name} without being one of its replicas"
            );
        }
        is_replica
    });
    let hard_limit = terms.version < FIRST_VERSION_WITHOUT_HARD_LIMIT;
    let records = match info.records {
        Some(_) if !is_served || is_throttled(broker, terms, &partition) => Records::None,
        // Part of a batch is of use only to the oldest clients, which grow their limit on it.
        Some(_) if info.first_entry_incomplete && !hard_limit => Records::None,
        Some(slice) => converted(terms, &partition, slice, range.fetch_offset)?,
        None => Records::None,
    };
    let to_wire = |transaction: milena_engine::log::AbortedTransactionRange| AbortedTransaction {
        producer_id: transaction.producer_id.get(),
        first_offset: transaction.first_offset.get(),
    };
    Ok(Found {
        error: ErrorCode::None,
        high_watermark: info.high_watermark.get(),
        last_stable_offset: info.last_stable_offset.get(),
        log_start_offset: info.log_start_offset.get(),
        aborted: info
            .aborted_transactions
            .map(|list| list.into_iter().map(to_wire).collect()),
        diverging: None,
        preferred: None,
        records,
    })
}

/// Whether the partition is held back for now, because the follower that asks gets more than `leader.replication.throttled.rate`.
fn is_throttled(broker: &Broker, terms: &Terms, partition: &Partition) -> bool {
    terms
        .follower
        .is_some_and(|follower| broker.replicas.throttles(partition, follower))
}

/// What a follower is told whose last record is of an epoch that ends elsewhere here (KIP-595): nothing but where its log must be cut.
fn diverging(partition: &Partition, range: &FetchRange) -> Result<Option<Found>, ErrorCode> {
    if range.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let log = partition.log();
    let epoch = LeaderEpoch(range.last_fetched_epoch);
    let Some(end) = log.end_offset_for_epoch(Some(epoch)) else {
        return Err(ErrorCode::OffsetOutOfRange);
    };
    if end.epoch >= epoch && end.end_offset >= range.fetch_offset {
        return Ok(None);
    }
    Ok(Some(Found {
        diverging: Some(EpochEndOffset {
            epoch: end.epoch.get(),
            end_offset: end.end_offset.get(),
        }),
        ..Found::nothing(&log)
    }))
}

/// Message formats for old consumers; everybody else gets the file's bytes.
fn converted(
    terms: &Terms,
    partition: &Partition,
    slice: FileSlice,
    fetch_offset: Offset,
) -> Result<Records, ErrorCode> {
    let target = match terms.version {
        0 | 1 => Magic::V0,
        2 | 3 => Magic::V1,
        _ => return Ok(Records::Range(slice)),
    };
    let config = partition.log().config();
    if config.message_format <= target {
        return Ok(Records::Range(slice));
    }
    if !config.message_downconversion_enable {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let bytes = slice.read().map_err(|error| {
        tracing::error!(target: "kafka.server.ReplicaManager", "cannot read {}: {error}", partition.name());
        ErrorCode::KafkaStorageError
    })?;
    match convert_down(&bytes, target, fetch_offset) {
        Ok(converted) if converted.is_empty() && !bytes.is_empty() => {
            Ok(Records::Converted(oversized(&bytes)))
        }
        Ok(converted) => Ok(Records::Converted(converted)),
        Err(error) => {
            tracing::warn!(target: "kafka.server.KafkaApis", "cannot convert {}: {error}", partition.name());
            Err(match error {
                BatchError::UnsupportedCompression { .. } => ErrorCode::UnsupportedCompressionType,
                _ => ErrorCode::CorruptMessage,
            })
        }
    }
}

/// The beginning of a batch that does not fit: it makes an old client raise its limit (`LazyDownConversionRecords`).
fn oversized(bytes: &[u8]) -> Vec<u8> {
    let Ok(header) = BatchHeader::parse(bytes) else {
        return Vec::new();
    };
    let length = i32::try_from(header.size_bytes.max(bytes.len() + 1)).unwrap_or(i32::MAX);
    let mut fake = vec![0; bytes.len().clamp(17, 61)];
    fake[..8].copy_from_slice(&(-1i64).to_be_bytes());
    fake[8..12].copy_from_slice(&length.to_be_bytes());
    fake
}

fn is_enough(terms: &Terms, context: &FetchContext, look: &Look) -> bool {
    terms.wait.is_zero()
        || context.partitions.is_empty()
        || look.is_urgent
        || look.size_bytes >= terms.min_bytes
}

/// Sleeps until there is enough or the time is over; returns the last look.
async fn wait(broker: &Broker, terms: &Terms, context: &FetchContext, first: Look) -> Look {
    if is_enough(terms, context, &first) {
        return first;
    }
    let deadline = Instant::now() + terms.wait;
    let watch = Watch {
        broker,
        terms,
        context,
        end: match terms.bound {
            UpperBound::LogEnd => End::Log,
            UpperBound::HighWatermark | UpperBound::LastStable => End::HighWatermark,
        },
        wake: Arc::new(Notify::new()),
    };
    loop {
        watch.register();
        let look = look(broker, terms, context);
        if is_enough(terms, context, &look) {
            return look;
        }
        if tokio::time::timeout_at(deadline, watch.wake.notified())
            .await
            .is_err()
        {
            return self::look(broker, terms, context);
        }
    }
}

/// The registrations of one waiting fetch; taken back when it ends, however it ends.
struct Watch<'a> {
    broker: &'a Broker,
    terms: &'a Terms,
    context: &'a FetchContext,
    end: End,
    wake: Arc<Notify>,
}

impl Watch<'_> {
    fn register(&self) {
        self.unregister();
        for (partition, range) in self.partitions() {
            // Each append would wake it, for nothing.
            if !is_throttled(self.broker, self.terms, &partition) {
                partition
                    .purgatory()
                    .watch(self.end, range.fetch_offset, &self.wake);
            }
        }
    }

    fn unregister(&self) {
        for (partition, _) in self.partitions() {
            partition.purgatory().unwatch(&self.wake);
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (Arc<Partition>, &FetchRange)> {
        self.context.partitions.iter().filter_map(|(name, range)| {
            let partition = self.broker.replicas.partition(&name.topic, name.partition).ok()?;
            Some((partition, range))
        })
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.unregister();
    }
}

fn cold_ranges(look: &Look) -> Vec<FileSlice> {
    let ranges = look.found.iter().filter_map(|found| match &found.records {
        Records::Range(slice) => Some(slice),
        _ => None,
    });
    ranges
        .filter(|slice| !slice.file.is_resident(slice.position, slice.size_bytes as u64))
        .cloned()
        .collect()
}

/// Brings cold ranges into memory off the lane. A failure shows when the range is sent.
async fn warm(broker: &Broker, ranges: Vec<FileSlice>) {
    for slice in ranges {
        let (done, warmed) = oneshot::channel();
        let operation = Operation::Warm {
            file: slice.file,
            position: slice.position,
            size_bytes: slice.size_bytes as u64,
        };
        broker
            .io
            .submit(operation, Box::new(move |result| drop(done.send(result))));
        if let Ok(Err(error)) = warmed.await {
            tracing::warn!(target: "kafka.server.ReplicaManager", "cannot read ahead: {error}");
        }
    }
}

fn answer(
    scope: &LaneScope,
    request: &RequestContext,
    terms: &Terms,
    context: &FetchContext,
    look: Look,
) -> Reply {
    let broker = &scope.broker;
    let summary = |found: &Found| AnswerSummary {
        error_code: found.error.code(),
        high_watermark: found.high_watermark,
        log_start_offset: found.log_start_offset,
        records_size_bytes: found.records.size_bytes(),
        has_preferred_replica: found.preferred.is_some(),
        has_diverging_epoch: found.diverging.is_some(),
    };
    let summaries: Vec<AnswerSummary> = look.found.iter().map(summary).collect();
    let finished = broker.fetch_sessions.lock().finish(
        broker.clock.monotonic(),
        context,
        &summaries,
        terms.follower.is_some(),
        || broker.random_id(),
    );
    let (session_id, sent) = match finished {
        Ok(finished) => finished,
        Err(refusal) => return refuse(scope, request, refusal),
    };
    if terms.follower.is_some() {
        record_replicated(broker, context, &look);
    }
    let mut ranges = Vec::new();
    let mut topics: Vec<(&TopicPartition, Vec<FetchablePartitionResponse<'static>>)> = Vec::new();
    let chosen = context
        .partitions
        .iter()
        .zip(look.found)
        .zip(sent)
        .filter(|(_, sent)| *sent);
    for (((name, _), found), _) in chosen {
        let response = partition_response(name.partition, found, &mut ranges);
        match topics.last_mut() {
            Some((last, partitions)) if last.topic == name.topic => partitions.push(response),
            _ => topics.push((name, vec![response])),
        }
    }
    let responses = topics
        .into_iter()
        .map(|(name, partitions)| FetchableTopicResponse {
            topic: Cow::Borrowed(&*name.topic),
            partition_responses: partitions.into(),
        });
    let response = FetchResponse {
        responses: responses.collect(),
        session_id,
        ..FetchResponse::default()
    };
    scope.respond(request, &response, ranges)
}

/// What followers in sync are sent counts too, so that the rate is that of all replication together.
fn record_replicated(broker: &Broker, context: &FetchContext, look: &Look) {
    let quota = &broker.replicas.quotas().leader;
    let sizes = context.partitions.iter().zip(&look.found);
    let throttled =
        sizes.filter(|((name, _), found)| found.records.size_bytes() > 0 && quota.is_throttled(name));
    let size_bytes: usize = throttled.map(|(_, found)| found.records.size_bytes()).sum();
    if size_bytes > 0 {
        quota.record(broker.clock.monotonic(), size_bytes);
    }
}

fn partition_response(
    partition: i32,
    found: Found,
    ranges: &mut Vec<FileRange>,
) -> FetchablePartitionResponse<'static> {
    let record_set = match found.records {
        Records::None => Payload::EMPTY,
        Records::Converted(bytes) => Payload::Bytes(Cow::Owned(bytes)),
        Records::Range(FileSlice {
            file,
            position,
            size_bytes,
        }) => {
            ranges.push(FileRange {
                file,
                position,
                size_bytes,
            });
            Payload::Extern { size_bytes }
        }
    };
    FetchablePartitionResponse {
        partition,
        error_code: found.error.code(),
        high_watermark: found.high_watermark,
        last_stable_offset: found.last_stable_offset,
        log_start_offset: found.log_start_offset,
        aborted_transactions: found.aborted.map(Into::into),
        diverging_epoch: found.diverging.unwrap_or_default(),
        preferred_read_replica: found.preferred.unwrap_or(UNKNOWN_REPLICA),
        record_set,
        ..FetchablePartitionResponse::default()
    }
}
