//! A leader at the other end of a connection (`ReplicaFetcherThread.scala`, `ReplicaFetcherBlockingSend.scala`).
//!
//! Records stay where the connection put them: the log is written from there.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};

use super::super::replica_fetcher::truncation::EpochEnd;
use super::super::replica_fetcher::{EpochQuestion, FetchPlan, FetcherRules, LeaderRefusal};
use super::{Asking, FetchAnswer, LeaderEndpoint, LeaderUnreachable, PartitionAnswer};
use crate::client::{Address, Answer, ClientError, Connection, ConnectionConfig};
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

impl FetcherSettings {
    /// What follows for the machine.
    pub(super) fn rules(&self) -> FetcherRules {
        FetcherRules {
            backoff: self.backoff,
            has_sessions: self.versions.fetch >= FIRST_FETCH_VERSION_WITH_SESSIONS,
            has_epochs: self.versions.offset_for_leader_epoch.is_some(),
        }
    }
}

/// See the module.
pub(super) struct WireEndpoint {
    settings: Rc<FetcherSettings>,
    /// The number of the fetching thread.
    id: usize,
    leader: i32,
    metadata: Arc<MetadataCache>,
    connection: Option<Connection>,
}

impl From<ClientError> for LeaderUnreachable {
    fn from(error: ClientError) -> LeaderUnreachable {
        LeaderUnreachable(error.to_string())
    }
}

impl WireEndpoint {
    pub(super) fn new(
        settings: Rc<FetcherSettings>,
        id: usize,
        leader: i32,
        metadata: Arc<MetadataCache>,
    ) -> WireEndpoint {
        WireEndpoint {
            settings,
            id,
            leader,
            metadata,
            connection: None,
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection, LeaderUnreachable> {
        if self.connection.is_none() {
            let settings = &self.settings;
            let metadata = self.metadata.snapshot();
            let endpoint = metadata
                .broker(self.leader)
                .and_then(|broker| broker.endpoint(&settings.listener))
                .ok_or_else(|| {
                    LeaderUnreachable(format!("broker {} is not known to be alive", self.leader))
                })?;
            let address = Address {
                host: Arc::clone(&endpoint.host),
                port: u16::try_from(endpoint.port).unwrap_or(0),
            };
            let config = ConnectionConfig {
                client_id: format!("broker-{}-fetcher-{}", settings.broker_id, self.id),
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
    ) -> Result<Answer, LeaderUnreachable> {
        let connection = self.connection().await?;
        let answer = connection.call_in(request, version).await;
        if answer.is_err() {
            self.connection = None;
        }
        Ok(answer?)
    }

    async fn epochs(
        &mut self,
        questions: &[EpochQuestion],
    ) -> Result<Vec<(TopicPartition, Result<EpochEnd, LeaderRefusal>)>, LeaderUnreachable> {
        let version = self.settings.versions.offset_for_leader_epoch;
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
            replica_id: self.settings.broker_id,
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
        Ok(answers)
    }

    async fn bounds(
        &mut self,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
    ) -> Result<Result<(Offset, Offset), LeaderRefusal>, LeaderUnreachable> {
        let start = self.offset(partition, epoch, EARLIEST).await?;
        let end = self.offset(partition, epoch, LATEST).await?;
        Ok(start.and_then(|start| Ok((start, end?))))
    }

    async fn offset(
        &mut self,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
        timestamp: i64,
    ) -> Result<Result<Offset, LeaderRefusal>, LeaderUnreachable> {
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
            replica_id: self.settings.broker_id,
            isolation_level: 0,
            topics: [topic].into_iter().collect(),
        };
        let version = self.settings.versions.list_offsets;
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
        if let Some(refusal) = refusal(found.error_code) {
            return Ok(Err(refusal));
        }
        let offset = match version {
            0 => found.old_style_offsets.iter().next(),
            _ => Some(found.offset),
        };
        let known = offset.filter(|offset| *offset >= 0).map(Offset);
        Ok(known.ok_or(LeaderRefusal::Other("no offset".to_owned())))
    }

    async fn records(&mut self, plan: &FetchPlan) -> Result<FetchAnswer, LeaderUnreachable> {
        let settings = &self.settings;
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
        if response.error_code != 0 {
            let error = ErrorCode::from_code(response.error_code);
            return Ok(FetchAnswer::SessionRefused(error.name().to_owned()));
        }
        let mut partitions = Vec::new();
        for topic in response.responses.iter() {
            let name: Arc<str> = topic.topic.as_ref().into();
            for partition in topic.partition_responses.iter() {
                let name = TopicPartition::new(Arc::clone(&name), partition.partition);
                let said = match refusal(partition.error_code) {
                    Some(refusal) => Err(refusal),
                    None => Ok(partition_answer(answer.body(), &partition)),
                };
                partitions.push((name, said));
            }
        }
        Ok(FetchAnswer::Fetched {
            session_id: response.session_id,
            partitions,
        })
    }
}

impl LeaderEndpoint for WireEndpoint {
    fn ask_epochs<'e>(
        &'e mut self,
        questions: &'e [EpochQuestion],
    ) -> Asking<'e, Vec<(TopicPartition, Result<EpochEnd, LeaderRefusal>)>> {
        Box::pin(self.epochs(questions))
    }

    fn ask_bounds<'e>(
        &'e mut self,
        partition: &'e TopicPartition,
        epoch: LeaderEpoch,
    ) -> Asking<'e, Result<(Offset, Offset), LeaderRefusal>> {
        Box::pin(self.bounds(partition, epoch))
    }

    fn fetch<'e>(&'e mut self, plan: &'e FetchPlan) -> Asking<'e, FetchAnswer> {
        Box::pin(self.records(plan))
    }

    fn rest(&mut self) {
        self.connection = None;
    }
}

/// The records are a part of the answer's own bytes.
fn partition_answer(body: &Bytes, partition: &FetchablePartitionResponse<'_>) -> PartitionAnswer {
    PartitionAnswer {
        high_watermark: Offset(partition.high_watermark),
        log_start_offset: (partition.log_start_offset >= 0).then_some(Offset(partition.log_start_offset)),
        records: match &partition.record_set {
            Payload::Bytes(Cow::Borrowed(bytes)) if !bytes.is_empty() => body.slice_ref(bytes),
            _ => Bytes::new(),
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
