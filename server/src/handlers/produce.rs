//! Produce (key 0): append record batches to partitions led here.
//!
//! Takes a run of requests that one read brought: each set of records is validated on its own, before any lock; then every
//! partition gets all its sets in one append with one write; then each request is answered. The acknowledgement says what the
//! topic's settings promise: the page cache, or the medium where `flush.messages` asks for it (`docs/durability.md`); with
//! `acks=all` on all in-sync replicas.
//!
//! Errors as `KafkaApis.handleProduceRequest` and `ReplicaManager.appendRecords`: each partition has its own; `acks=0` gets no
//! answer and loses its connection on an error, so that the producer refreshes its metadata.
//!
//! **Deviation:** records that hold no batch get their answer as others do; 2.7.2 closes the connection.
//!
//! Watched by S2r, S3 and S4 of `docs/benchmarks.md`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::error::{AppendError, InvalidRecords, RecordRefusal, StorageError};
use milena_engine::log::AppendInfo;
use milena_engine::record_batch::{
    AppendOrigin, Level, RequestRules, ValidatedBatches, ValidationRules, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{LaneScope, Request, RequestContext};
use crate::broker::Broker;
use crate::error::append_error_code;
use crate::network::Reply;
use crate::protocol::ErrorCode;
use crate::protocol::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceResponse,
};
use crate::replication::{Acknowledgement, AcknowledgementId, LeaderAppend, Partition, PartitionRefusal};

/// The client id under which Kafka's tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// One partition of one request: its answer so far, and what that still waits for.
struct Entry<'a> {
    topic: Cow<'a, str>,
    response: PartitionProduceResponse<'static>,
    waits_for: Wait,
}

enum Wait {
    Nothing,
    /// The append of a group, in which its records have this place.
    Append {
        group: usize,
        position: usize,
    },
    Acknowledgement(Acknowledging),
}

struct Refusal {
    code: ErrorCode,
    log_start_offset: i64,
    records: Vec<RecordRefusal>,
    message: Option<String>,
}

impl Refusal {
    fn bare(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            log_start_offset: -1,
            records: Vec::new(),
            message: None,
        }
    }
}

/// All sets of one run that go to one partition.
struct Group<'a> {
    partition: Arc<Partition>,
    batches: Vec<ValidatedBatches<'a>>,
    appended: Result<LeaderAppend, PartitionRefusal>,
}

/// Handles and empties a run of requests; pushes one reply for each.
pub(super) fn handle_run(scope: &Rc<LaneScope>, run: &mut Vec<Request>, replies: &mut Vec<Reply>) {
    if run.is_empty() {
        return;
    }
    let broker = &scope.broker;
    let now = broker.clock.wall();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut answers = Vec::with_capacity(run.len());
    for request in run.iter() {
        let decoded = request.decode::<ProduceRequest<'_>>();
        answers.push(decoded.map(|message| {
            let entries = take(broker, request, &message, now, &mut groups);
            (message.acks, message.timeout_ms, entries)
        }));
    }
    for group in &mut groups {
        group.appended = group.partition.append(&mut group.batches, AppendOrigin::Client);
    }
    for (request, answer) in run.iter().zip(answers) {
        replies.push(match answer {
            Err(reason) => Reply::Close(reason),
            Ok((acks, timeout_ms, entries)) => {
                conclude(scope, &request.context, acks, timeout_ms, entries, &groups)
            }
        });
    }
    drop(groups);
    run.clear();
}

/// Checks and validates all partitions of a request, and puts what may be appended into the groups.
fn take<'a>(
    broker: &Broker,
    request: &Request,
    message: &ProduceRequest<'a>,
    now: TimestampMs,
    groups: &mut Vec<Group<'a>>,
) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for topic in message.topics.iter() {
        entries.reserve(topic.partitions.len());
        for data in topic.partitions.iter() {
            let mut response = PartitionProduceResponse {
                partition_index: data.partition_index,
                ..PartitionProduceResponse::default()
            };
            let prepared = prepare(broker, request, message.acks, &topic.name, data.partition_index);
            let checked = prepared.and_then(|partition| {
                let batches = validated(&request.context, &partition, data.records, now)?;
                Ok(join_group(groups, partition, batches))
            });
            let waits_for = checked.unwrap_or_else(|refusal| {
                refuse(&mut response, refusal);
                Wait::Nothing
            });
            entries.push(Entry {
                topic: topic.name.clone(),
                response,
                waits_for,
            });
        }
    }
    entries
}

fn prepare(
    broker: &Broker,
    request: &Request,
    acks: i16,
    topic: &str,
    index: i32,
) -> Result<Arc<Partition>, Refusal> {
    if !matches!(acks, -1..=1) {
        return Err(Refusal::bare(ErrorCode::InvalidRequiredAcks));
    }
    if broker.is_internal_topic(topic) && request.client_id() != ADMIN_CLIENT_ID {
        return Err(Refusal::bare(ErrorCode::InvalidTopicException));
    }
    let partition = broker.leader_partition(topic, index).map_err(Refusal::bare)?;
    partition
        .check_leader(-1)
        .map_err(|refusal| Refusal::bare(refusal.into()))?;
    if acks == -1 && !partition.has_enough_replicas() {
        return Err(Refusal::bare(ErrorCode::NotEnoughReplicas));
    }
    Ok(partition)
}

fn validated<'a>(
    context: &RequestContext,
    partition: &Partition,
    records: Option<Cow<'a, [u8]>>,
    now: TimestampMs,
) -> Result<ValidatedBatches<'a>, Refusal> {
    let Some(Cow::Borrowed(records)) = records else {
        return Err(Refusal::bare(ErrorCode::InvalidRecord));
    };
    let config = partition.log().config();
    let request = RequestRules::produce(context.api_version);
    let rules = ValidationRules::new(partition.name().clone(), &config, AppendOrigin::Client, request);
    validate(records, &rules, now, Level::Strict).map_err(|error| {
        let code = append_error_code(&AppendError::Invalid(error.clone()));
        match error {
            InvalidRecords::Invalid { message, records } | InvalidRecords::Timestamp { message, records } => {
                let log_start_offset = partition.log().log_start_offset().get();
                Refusal {
                    code,
                    log_start_offset,
                    records,
                    message: Some(message),
                }
            }
            _ => Refusal::bare(code),
        }
    })
}

fn join_group<'a>(
    groups: &mut Vec<Group<'a>>,
    partition: Arc<Partition>,
    batches: ValidatedBatches<'a>,
) -> Wait {
    let found = groups
        .iter()
        .position(|group| Arc::ptr_eq(&group.partition, &partition));
    let Some(group) = found else {
        groups.push(Group {
            partition,
            batches: vec![batches],
            appended: Err(PartitionRefusal::Unknown),
        });
        return Wait::Append {
            group: groups.len() - 1,
            position: 0,
        };
    };
    groups[group].batches.push(batches);
    Wait::Append {
        group,
        position: groups[group].batches.len() - 1,
    }
}

fn conclude(
    scope: &Rc<LaneScope>,
    context: &RequestContext,
    acks: i16,
    timeout_ms: i32,
    mut entries: Vec<Entry<'_>>,
    groups: &[Group<'_>],
) -> Reply {
    for entry in &mut entries {
        take_result(entry, acks, groups);
    }
    if acks == 0 {
        let failed = entries.iter().find(|entry| entry.response.error_code != 0);
        return match failed {
            None => Reply::Nothing,
            Some(entry) => Reply::Close(format!(
                "a produce request with acks=0 failed on {}-{} with error {}",
                entry.topic, entry.response.partition_index, entry.response.error_code
            )),
        };
    }
    if entries
        .iter()
        .all(|entry| matches!(entry.waits_for, Wait::Nothing))
    {
        return scope.respond(context, &response(entries), Vec::new());
    }
    let context = context.clone();
    let scope = Rc::clone(scope);
    let mut entries: Vec<Entry<'static>> = entries.into_iter().map(Entry::detached).collect();
    let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    Reply::Later(Box::pin(async move {
        let deadline = Instant::now() + limit;
        for entry in &mut entries {
            if let Wait::Acknowledgement(waiting) = std::mem::replace(&mut entry.waits_for, Wait::Nothing)
                && let Err(error) = waiting.settled(deadline).await
            {
                refuse(&mut entry.response, Refusal::bare(error));
            }
        }
        scope.respond(&context, &response(entries), Vec::new())
    }))
}

/// An append that is not acknowledged yet.
pub(super) struct Acknowledging {
    partition: Arc<Partition>,
    /// The medium.
    synced: Option<oneshot::Receiver<Result<(), StorageError>>>,
    /// The other in-sync replicas: the reign and the record that they must have.
    replicated: Option<(LeaderEpoch, Offset)>,
}

impl Acknowledging {
    /// `None` if the append is acknowledged already.
    ///
    /// # Errors
    /// It will not be.
    pub(super) fn after(
        partition: &Arc<Partition>,
        leader_epoch: LeaderEpoch,
        info: &AppendInfo,
        acks: i16,
    ) -> Result<Option<Acknowledging>, ErrorCode> {
        let synced = info.sync_before_ack.map(|end| {
            let (done, receiver) = oneshot::channel();
            let told = move |result| drop(done.send(result));
            partition.log().when_synced(end, Box::new(told));
            receiver
        });
        let mut replicated = (acks == -1).then_some((leader_epoch, info.last_offset));
        if synced.is_none()
            && let Some((leader_epoch, last_offset)) = replicated
        {
            let acknowledgement = partition.acknowledgement(leader_epoch, last_offset);
            if acknowledgement != Acknowledgement::Waiting {
                outcome(acknowledgement)?;
                replicated = None;
            }
        }
        Ok((synced.is_some() || replicated.is_some()).then(|| Acknowledging {
            partition: Arc::clone(partition),
            synced,
            replicated,
        }))
    }

    /// Waits first for the medium, then for the other replicas.
    pub(super) async fn settled(self, deadline: Instant) -> Result<(), ErrorCode> {
        if let Some(synced) = self.synced
            && !matches!(synced.await, Ok(Ok(())))
        {
            return Err(ErrorCode::KafkaStorageError);
        }
        let Some((leader_epoch, last_offset)) = self.replicated else {
            return Ok(());
        };
        let (done, settled) = oneshot::channel();
        let told = move |acknowledgement| {
            // Nobody waits any longer than its limit.
            let _ = done.send(acknowledgement);
        };
        let held = Held {
            id: self
                .partition
                .when_acknowledged(leader_epoch, last_offset, Box::new(told)),
            partition: self.partition,
        };
        match timeout_at(deadline, settled).await {
            Ok(settled) => {
                held.told();
                outcome(settled.unwrap_or(Acknowledgement::NotLeader))
            }
            Err(_) => Err(ErrorCode::RequestTimedOut),
        }
    }
}

/// An acknowledgement that is waited for. It is forgotten with the wait, be it that the time is up or that the connection is gone.
struct Held {
    partition: Arc<Partition>,
    id: Option<AcknowledgementId>,
}

impl Held {
    /// Nothing is left to forget.
    fn told(mut self) {
        self.id = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.partition.forget(id);
        }
    }
}

fn outcome(acknowledgement: Acknowledgement) -> Result<(), ErrorCode> {
    match acknowledgement {
        Acknowledgement::Done => Ok(()),
        Acknowledgement::NotEnoughReplicas => Err(ErrorCode::NotEnoughReplicasAfterAppend),
        Acknowledgement::NotLeader | Acknowledgement::Waiting => Err(ErrorCode::NotLeaderOrFollower),
    }
}

impl Entry<'_> {
    /// The same in memory of its own, for an answer that outlives its request.
    fn detached(self) -> Entry<'static> {
        Entry {
            topic: Cow::Owned(self.topic.into_owned()),
            response: self.response,
            waits_for: self.waits_for,
        }
    }
}

/// Answers with what became of the append, unless its acknowledgement waits for the medium or for other replicas.
fn take_result(entry: &mut Entry<'_>, acks: i16, groups: &[Group<'_>]) {
    let Wait::Append { group, position } = entry.waits_for else {
        return;
    };
    let (group, response) = (&groups[group], &mut entry.response);
    entry.waits_for = Wait::Nothing;
    let appended = match &group.appended {
        Ok(appended) => appended,
        Err(refusal) => return refuse(response, Refusal::bare((*refusal).into())),
    };
    match &appended.results[position] {
        Ok(info) => {
            response.base_offset = info.first_offset.map_or(-1, |offset| offset.get());
            response.log_append_time_ms = info.log_append_time.map_or(-1, TimestampMs::get);
            response.log_start_offset = info.log_start_offset.get();
            match Acknowledging::after(&group.partition, appended.leader_epoch, info, acks) {
                Ok(None) => {}
                Ok(Some(waiting)) => entry.waits_for = Wait::Acknowledgement(waiting),
                Err(error) => refuse(response, Refusal::bare(error)),
            }
        }
        Err(error) => {
            report(&group.partition, error);
            refuse(response, Refusal::bare(append_error_code(error)));
        }
    }
}

fn refuse(response: &mut PartitionProduceResponse<'static>, refusal: Refusal) {
    response.error_code = refusal.code.code();
    response.base_offset = -1;
    response.log_append_time_ms = -1;
    response.log_start_offset = refusal.log_start_offset;
    let named = |record: RecordRefusal| BatchIndexAndErrorMessage {
        batch_index: record.batch_index,
        batch_index_error_message: record.message.map(Cow::Owned),
    };
    response.record_errors = refusal.records.into_iter().map(named).collect();
    response.error_message = refusal.message.map(Cow::Owned);
}

/// A producer's mistake is the producer's to log; ours is a line.
fn report(partition: &Partition, error: &AppendError) {
    if let AppendError::Storage(error) = error {
        tracing::debug!(target: "kafka.server.ReplicaManager", "append to {} failed: {error}", partition.name());
    }
}

/// Partitions of one topic that follow each other share its entry, as they did in the request.
fn response(entries: Vec<Entry<'_>>) -> ProduceResponse<'_> {
    let mut responses = Vec::with_capacity(1);
    let mut rest = entries.into_iter().peekable();
    while let Some(Entry { topic, response, .. }) = rest.next() {
        // Grown as needed: room for all that is left, for each topic, is quadratic.
        let mut partitions = vec![response];
        while let Some(next) = rest.next_if(|next| next.topic == topic) {
            partitions.push(next.response);
        }
        responses.push(TopicProduceResponse {
            name: topic,
            partitions: partitions.into(),
        });
    }
    ProduceResponse {
        responses: responses.into(),
        throttle_time_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::protocol::Array;
    use crate::replication::tests::led_with_a_follower;
    use crate::test_cluster::run_paused;

    #[test]
    fn the_answer_takes_room_for_what_it_holds_however_many_topics_it_has() {
        const TOPIC_COUNT: i32 = 100_000;
        let entry = |topic: String, partition_index| Entry {
            topic: Cow::Owned(topic),
            response: PartitionProduceResponse {
                partition_index,
                ..PartitionProduceResponse::default()
            },
            waits_for: Wait::Nothing,
        };
        let entries = (0..TOPIC_COUNT).flat_map(|n| [entry(format!("t{n}"), 0), entry(format!("t{n}"), 1)]);
        let Array::Owned(topics) = response(entries.collect()).responses else {
            panic!("an answer is owned");
        };
        assert_eq!(topics.len(), TOPIC_COUNT as usize);
        for (n, topic) in topics.iter().enumerate() {
            assert_eq!(topic.name, format!("t{n}"));
            let Array::Owned(partitions) = &topic.partitions else {
                panic!("an answer is owned");
            };
            assert_eq!(partitions.len(), 2);
            assert!(partitions.capacity() <= 8, "{}", partitions.capacity());
        }
    }

    #[test]
    fn who_gives_up_waiting_for_replicas_is_forgotten() {
        run_paused(async {
            let (_replicas, partition) = led_with_a_follower("t");
            let purgatory = partition.purgatory();
            let settled = || {
                let waiting = Acknowledging {
                    partition: Arc::clone(&partition),
                    synced: None,
                    replicated: Some((LeaderEpoch(0), Offset(0))),
                };
                waiting.settled(Instant::now() + Duration::from_secs(30))
            };
            {
                let mut closed = pin!(settled());
                let polled = closed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending(), "the follower does not have it");
                assert_eq!(purgatory.waiting_count(), 1);
            }
            assert_eq!(purgatory.waiting_count(), 0, "the connection is gone");
            assert_eq!(settled().await, Err(ErrorCode::RequestTimedOut));
            assert_eq!(purgatory.waiting_count(), 0);
        });
    }
}
