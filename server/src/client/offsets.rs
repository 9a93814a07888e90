//! Which offset a partition has at a time: its ends, and the first record not earlier than a timestamp.
//!
//! Source: `ListOffsetRequest.json`, `KafkaAdminClient.listOffsets` of 2.7.2.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::{Client, ClientError, IsolationLevel, Target, Topics, chance, refused};
use crate::protocol::ErrorCode;
use crate::protocol::messages::list_offsets::{
    ListOffsetPartition, ListOffsetRequest, ListOffsetResponse, ListOffsetTopic,
};

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that can be read.
    Earliest,
    /// The one after the last that can be read.
    Latest,
    /// That of the first record with this timestamp or a later one, in milliseconds since 1970, which is not negative.
    Timestamp(i64),
}

impl OffsetSpec {
    const fn timestamp(self) -> i64 {
        match self {
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest => -1,
            OffsetSpec::Timestamp(timestamp) => timestamp,
        }
    }
}

/// What was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// `None`: no record is so young.
    pub offset: Option<i64>,
    /// Of the record found; −1 for the ends.
    pub timestamp: i64,
    /// Of the record found; −1 when unknown.
    pub leader_epoch: i32,
}

/// An answer for each partition that was asked about. Partitions of one leader may have one error together.
pub type ListedOffsets = BTreeMap<TopicPartition, Result<ListedOffset, Arc<ClientError>>>;

/// How long what may pass is waited for, if the client's patience is not shorter.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

impl Client {
    /// Asks the leaders. What may pass is tried again; what stays wrong with single partitions stands in the result.
    ///
    /// # Errors
    /// The topics cannot be described.
    pub async fn list_offsets(
        &mut self,
        wanted: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: IsolationLevel,
    ) -> Result<ListedOffsets, ClientError> {
        let mut names: Vec<String> = wanted
            .keys()
            .map(|partition| partition.topic.to_string())
            .collect();
        names.dedup();
        let limit = self.config().operation_timeout.min(RETRY_LIMIT);
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::default();
        let mut found = ListedOffsets::new();
        loop {
            let cluster = self.metadata(Topics::Named(&names)).await?;
            let open = wanted.keys().filter(|partition| is_open(found.get(*partition)));
            let mut by_leader: BTreeMap<i32, Vec<&TopicPartition>> = BTreeMap::new();
            let mut leaderless = Vec::new();
            for partition in open {
                match cluster.leader(&partition.topic, partition.partition) {
                    Some(leader) => by_leader.entry(leader).or_default().push(partition),
                    None => leaderless.push(partition),
                }
            }
            for partition in leaderless {
                let topic = cluster.topics.get(&*partition.topic);
                let code = match topic.and_then(|topic| topic.partition(partition.partition)) {
                    Some(_) => ErrorCode::LeaderNotAvailable,
                    None => ErrorCode::UnknownTopicOrPartition,
                };
                let error = refused(partition.to_string(), code);
                found.insert(partition.clone(), Err(Arc::new(error)));
            }
            for (leader, partitions) in by_leader {
                match self.ask_leader(leader, &partitions, wanted, isolation).await {
                    Ok(listed) => found.extend(listed),
                    Err(error) => {
                        let error = Arc::new(error);
                        let failed = partitions
                            .into_iter()
                            .map(|partition| (partition.clone(), Err(error.clone())));
                        found.extend(failed);
                    }
                }
            }
            let pause = backoff.next(chance());
            let is_done = !wanted.keys().any(|partition| is_open(found.get(partition)));
            if is_done || Instant::now() + pause >= deadline {
                return Ok(found);
            }
            sleep(pause).await;
        }
    }

    async fn ask_leader(
        &mut self,
        leader: i32,
        partitions: &[&TopicPartition],
        wanted: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: IsolationLevel,
    ) -> Result<ListedOffsets, ClientError> {
        let topics = partitions
            .chunk_by(|a, b| a.topic == b.topic)
            .map(|topic| ListOffsetTopic {
                name: Cow::Borrowed(&*topic[0].topic),
                partitions: topic
                    .iter()
                    .map(|partition| ListOffsetPartition {
                        partition_index: partition.partition,
                        timestamp: wanted[*partition].timestamp(),
                        ..Default::default()
                    })
                    .collect(),
            });
        let request = ListOffsetRequest {
            replica_id: -1,
            isolation_level: isolation as i8,
            topics: topics.collect(),
        };
        let answer = self.call(Target::Broker(leader), &request).await?;
        let response: ListOffsetResponse<'_> = answer.decode()?;
        let mut results = ListedOffsets::new();
        for topic in response.topics.iter() {
            for found in topic.partitions.iter() {
                let partition = TopicPartition::new(topic.name.as_ref(), found.partition_index);
                let checked = ClientError::check(found.error_code, None, || partition.to_string());
                let listed = ListedOffset {
                    // Version 0 lists offsets of segments, the newest first; -1 stands for none.
                    offset: found
                        .old_style_offsets
                        .first()
                        .or(Some(found.offset))
                        .filter(|&offset| offset >= 0),
                    timestamp: found.timestamp,
                    leader_epoch: found.leader_epoch,
                };
                results.insert(partition, checked.map(|()| listed).map_err(Arc::new));
            }
        }
        Ok(results)
    }
}

/// Whether an answer is missing, or may become a better one. Kafka's clients wait for a topic that is not there; a tool
/// says at once that it is not.
fn is_open(result: Option<&Result<ListedOffset, Arc<ClientError>>>) -> bool {
    match result {
        None => true,
        Some(Ok(_)) => false,
        Some(Err(error)) => error.is_retriable() && error.code() != Some(ErrorCode::UnknownTopicOrPartition),
    }
}
