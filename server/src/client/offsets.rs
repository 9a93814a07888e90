//! Which offset a partition has at a time: its ends, and the first record not earlier than a timestamp.
//!
//! Source: `ListOffsetRequest.json`, `KafkaAdminClient.listOffsets` of 2.7.2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use milena_engine::units::TopicPartition;

use super::{Client, ClientError, IsolationLevel, Target, Topics, refused};
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

/// An answer for each partition that was asked about.
pub type ListedOffsets = BTreeMap<TopicPartition, Result<ListedOffset, ClientError>>;

impl Client {
    /// Asks the leaders. What may pass is tried again; what stays wrong with single partitions stands in the result.
    ///
    /// # Errors
    /// What keeps this client from the cluster.
    pub async fn list_offsets(
        &mut self,
        wanted: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: IsolationLevel,
    ) -> Result<ListedOffsets, ClientError> {
        let mut found = ListedOffsets::new();
        let mut names: Vec<String> = wanted
            .keys()
            .map(|partition| partition.topic.to_string())
            .collect();
        names.dedup();
        self.retry(async |client| {
            let is_open = |partition: &&TopicPartition| {
                let result = found.get(*partition);
                result.is_none_or(|result| result.as_ref().is_err_and(ClientError::is_retriable))
            };
            let open: Vec<&TopicPartition> = wanted.keys().filter(is_open).collect();
            let cluster = client.describe(Topics::Named(&names), false).await?;
            let mut by_leader: BTreeMap<i32, Vec<&TopicPartition>> = BTreeMap::new();
            let mut passing = None;
            for partition in open {
                let topic = cluster.topics.get(&*partition.topic);
                let is_known = topic.is_some_and(|topic| topic.partition(partition.partition).is_some());
                match cluster.leader(&partition.topic, partition.partition) {
                    Some(leader) => by_leader.entry(leader).or_default().push(partition),
                    // Kafka's clients wait for a topic that is not there; a tool says at once that it is not.
                    None if !is_known => {
                        let error = refused(partition.to_string(), ErrorCode::UnknownTopicOrPartition);
                        found.insert(partition.clone(), Err(error));
                    }
                    None => passing = Some((partition.clone(), ErrorCode::LeaderNotAvailable)),
                }
            }
            for (leader, partitions) in by_leader {
                for (partition, result) in client.ask_leader(leader, &partitions, wanted, isolation).await? {
                    if let Some(code) = result.as_ref().err().and_then(ClientError::code)
                        && code.is_retriable()
                    {
                        passing = Some((partition.clone(), code));
                    }
                    found.insert(partition, result);
                }
            }
            match passing {
                Some((partition, code)) => Err(refused(partition.to_string(), code)),
                None => Ok(()),
            }
        })
        .await
        .or_else(|error| {
            if error.code().is_some() {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        for partition in wanted.keys() {
            found
                .entry(partition.clone())
                .or_insert_with(|| Err(refused(partition.to_string(), ErrorCode::LeaderNotAvailable)));
        }
        Ok(found)
    }

    async fn ask_leader(
        &mut self,
        leader: i32,
        partitions: &[&TopicPartition],
        wanted: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: IsolationLevel,
    ) -> Result<Vec<(TopicPartition, Result<ListedOffset, ClientError>)>, ClientError> {
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
        let mut results = Vec::with_capacity(partitions.len());
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
                results.push((partition, checked.map(|()| listed)));
            }
        }
        Ok(results)
    }
}
